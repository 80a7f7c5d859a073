"""Watch a small network learn: 2-8-2 on an XOR of clouds, which no straight line divides.

python examples/watch.py [FOLDER for the pictures, with the extra "plot"]
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from fastnn import nn, optim, plot, train

EPOCHS = (0, 1, 3, 20)


def clouds(random_state: int) -> tuple[np.ndarray, np.ndarray]:
    """Four clouds around the corners of a square; those on a diagonal are of one class."""
    rng = np.random.default_rng(random_state)
    corners = rng.choice((-1.0, 1.0), (300, 2))
    return corners + 0.4 * rng.standard_normal((300, 2)), (corners[:, 0] * corners[:, 1] > 0).astype(int)


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(2, 8, activation="tanh"), nn.Linear(8, 2)).initialize(random_state=3)


def learn() -> list[nn.Sequential]:
    """The network after each number of epochs, as copies."""
    model, loss = network(), nn.CrossEntropyLoss()
    models = [model.astype(model.dtype)]
    optimizer = optim.Adam(model.parameters(), lr=0.03)

    def keep(run: train.Run) -> None:
        if run.epoch + 1 in EPOCHS:
            models.append(run.model.astype(run.model.dtype))

    train.fit(
        model,
        *clouds(0),
        loss=loss,
        optimizer=optimizer,
        epochs=EPOCHS[-1],
        random_state=0,
        callbacks=[keep],
        progress=False,
    )
    return models


def pictures(models: list[nn.Sequential], folder: str) -> None:
    from matplotlib.figure import Figure

    figure = Figure((7, 2.6), layout="constrained")
    panels = figure.subplots(1, len(models), sharey=True)
    for ax, model, epochs in zip(panels, models, EPOCHS, strict=True):
        plot.decision_boundary(model, *clouds(0), ax=ax)
        ax.set_title(f"{epochs} epoch{'s' * (epochs != 1)}", fontsize="medium")
        ax.get_legend().remove()
        ax.label_outer()
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    figure.savefig(Path(folder) / "decision_boundary.png")
    plot.network(models[-1]).figure.savefig(Path(folder) / "small_network.png")


def main(folder: str | None = None) -> None:
    models = learn()
    print("| epochs | test loss | test accuracy |\n|---|---|---|")
    for epochs, model in zip(EPOCHS, models, strict=True):
        tested = train.evaluate(model, *clouds(1), loss=nn.CrossEntropyLoss())
        print(f"| {epochs} | {tested['loss']:.3f} | {tested['accuracy']:.1%} |")
    if folder:
        pictures(models, folder)


if __name__ == "__main__":
    main(*sys.argv[1:])
