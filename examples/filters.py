"""What a convolutional network has learnt on scikit-learn's digits: its filters, and what they make of a digit.

pip install 'fastnn-kernels[sklearn,plot]'
python examples/filters.py [FOLDER for the pictures]
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from fastnn import data, demo, nn, optim, plot, train


def learn() -> tuple[nn.Sequential, train.History, tuple[np.ndarray, np.ndarray]]:
    """The network after ten epochs, their history, and the test digits."""
    training, test = data.split(*data.load_digits(), random_state=0)
    model = demo.network()
    history = train.fit(
        model,
        *training,
        loss=nn.CrossEntropyLoss(),
        optimizer=optim.Adam(model.parameters(), lr=4e-3),
        epochs=10,
        validation_data=test,
        random_state=0,
        progress=False,
    )
    return model, history, test


def pictures(model: nn.Sequential, history: train.History, digit: np.ndarray, folder: str) -> None:
    from matplotlib.figure import Figure

    figure = Figure((7, 3.1), layout="constrained")
    left, right = figure.subplots(1, 2)
    plot.history(history, ax=left).set_title("Loss")
    plot.history(history, "accuracy", ax=right).set_title("Accuracy")
    figure.savefig(Path(folder) / "history.png")

    figure = Figure((7, 2.6), layout="compressed")
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.7))
    plot.filters(model[0], ax=left).set_title("First convolution")
    plot.filters(model[2].weight.data[:8], ax=right).set_title("Second convolution, first 8 filters")
    figure.savefig(Path(folder) / "filters.png")

    figure = Figure((7, 1.9), layout="compressed")
    plot.feature_maps(model, digit, figure=figure)
    figure.savefig(Path(folder) / "feature_maps.png")

    plot.network(model, input_shape=(1, *digit.shape)).figure.savefig(Path(folder) / "network.png")


def main(folder: str | None = None) -> None:
    model, history, (images, labels) = learn()
    print("| | epoch 1 | epoch 2 | epoch 5 | epoch 10 |\n|---|---|---|---|---|")
    for metric in ("loss", "val_loss", "accuracy", "val_accuracy"):
        values = [history[metric][epoch - 1] for epoch in (1, 2, 5, 10)]
        print(f"| {metric} | {' | '.join(f'{value:.3f}' for value in values)} |")
    if folder:
        pictures(model, history, images[labels == 3][0], folder)


if __name__ == "__main__":
    main(*sys.argv[1:])
