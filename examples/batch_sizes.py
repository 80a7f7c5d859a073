"""All samples, 32 or one for each step: the same network learns the same digits by batches of three sizes.

    pip install 'fastnn-kernels[sklearn]'
    python examples/batch_sizes.py [FOLDER for the picture, with the extra "plot"]

A step by all samples goes down the true gradient, but an epoch has only one. A step by one sample is the cheapest and
the noisiest, and the kernels have next to nothing to do in a call. Each size has a learning rate that suits it.
"""

from __future__ import annotations

import sys
from itertools import accumulate
from pathlib import Path

from fastnn import data, init, nn, optim, train

EPOCHS = 20
ALL = 1438
#: Learning rates by size of batch.
RATES = {ALL: 0.5, 32: 0.2, 1: 0.01}


def learn(batch_size: int) -> tuple[train.History, float]:
    """The history of a training by SGD, and the accuracy on the test digits."""
    training, test = data.split(*data.load_digits(), random_state=0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 32, activation="relu"), nn.Linear(32, 10)).initialize(
        init.he_normal, random_state=0
    )
    loss = nn.CrossEntropyLoss()
    history = train.fit(
        model,
        *training,
        loss=loss,
        optimizer=optim.SGD(model.parameters(), RATES[batch_size]),
        epochs=EPOCHS,
        batch_size=batch_size,
        random_state=0,
        progress=False,
    )
    return history, train.evaluate(model, *test, loss=loss)["accuracy"]


def picture(histories: dict[int, train.History], folder: str) -> None:
    from matplotlib.figure import Figure

    figure = Figure((7, 3.7), layout="constrained")
    by_epoch, by_time = figure.subplots(1, 2, sharey=True)
    for size, history in histories.items():
        label = "all samples" if size == ALL else f"{size} sample{'s' * (size > 1)}"
        by_epoch.semilogy(range(1, EPOCHS + 1), history["loss"], label=label)
        by_time.loglog(list(accumulate(history["seconds"])), history["loss"], label=label)
    by_epoch.set(xlabel="epoch", ylabel="loss", title="By epoch")
    by_time.set(xlabel="seconds", title="By time")
    for ax in (by_epoch, by_time):
        ax.grid(alpha=0.3)
    figure.legend(
        *by_epoch.get_legend_handles_labels(), title="in a step", loc="outside upper center", ncols=3
    )
    figure.savefig(Path(folder) / "batch_sizes.png")


def main(folder: str | None = None) -> None:
    results = {size: learn(size) for size in RATES}
    print(f"| batch | learning rate | steps in {EPOCHS} epochs | seconds | loss | test accuracy |")
    print("|---" * 6 + "|")
    for size, (history, accuracy) in results.items():
        steps, seconds = EPOCHS * -(-ALL // size), sum(history["seconds"])
        print(
            f"| {size} | {RATES[size]} | {steps:,} | {seconds:.2f} | {history['loss'][-1]:.3f} | {accuracy:.1%} |"
        )
    if folder:
        picture({size: history for size, (history, _) in results.items()}, folder)


if __name__ == "__main__":
    main(*sys.argv[1:])
