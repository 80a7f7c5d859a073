"""The main job, run for real: a small convolutional network learns scikit-learn's digits with each backend.

Two convolutions with pooling, one dense layer, softmax cross-entropy and Adam, on the 1,797 handwritten digits of
8x8 pixels (Alpaydin and Kaynak, 1998). Every backend starts from the same weights and sees the same batches.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import numpy as np
from numpy.typing import NDArray

import fastnn
from fastnn import _pictures, _select, data, init, nn, optim, plot, train

Split = tuple[NDArray[np.float32], NDArray[np.intp]]

SEED = 0
TEST_SHARE = 0.2
EPOCHS = 20
BATCH = 32
LEARNING_RATE = 4e-3
#: How far the backends' test losses may lie apart after training: float32 sums in another order, grown by training.
LOSS_TOLERANCE = 0.02
#: And their test accuracies: two of the 359 test digits.
ACCURACY_TOLERANCE = 2 / 359


@dataclass(frozen=True)
class Result:
    """What one backend achieved."""

    backend: str
    accuracy: float
    loss: float
    history: train.History
    model: nn.Sequential

    @property
    def seconds_per_epoch(self) -> float:
        """The mean over the epochs."""
        return mean(self.history["seconds"])


def load_digits() -> tuple[Split, Split]:
    """Training and test digits, always split the same way."""
    try:
        images, labels = data.load_digits()
    except ImportError as error:
        raise SystemExit(f"fastnn demo: {error}") from error
    return data.split(images, labels, test_share=TEST_SHARE, random_state=SEED)


def network() -> nn.Sequential:
    """conv 16x3x3, pool, conv 32x3x3, pool, dense 10; its first weights are always the same."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, activation="relu"),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1, activation="relu"),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(32 * 2 * 2, 10),
    ).initialize(init.he_normal, random_state=SEED)


def learn(backend: str, digits: tuple[Split, Split], *, progress: bool = True) -> Result:
    """Train the network with the kernels of `backend` and test it."""
    chosen = fastnn.report()[0].backend
    fastnn.set_backend(backend)
    try:
        training, test = digits
        warm_up = BATCH + len(training[1]) % BATCH  # both sizes of batch, so that compilation is not timed
        _fit((training[0][:warm_up], training[1][:warm_up]), 1, progress=False)
        model, history = _fit(training, EPOCHS, test, progress=progress)
        tested = train.evaluate(model, *test, loss=nn.CrossEntropyLoss())
    finally:
        fastnn.set_backend(chosen)
    return Result(backend, tested["accuracy"], tested["loss"], history, model)


def _fit(
    digits: Split, epochs: int, test: Split | None = None, *, progress: bool
) -> tuple[nn.Sequential, train.History]:
    model = network()
    history = train.fit(
        model,
        *digits,
        loss=nn.CrossEntropyLoss(),
        optimizer=optim.Adam(model.parameters(), LEARNING_RATE),
        epochs=epochs,
        batch_size=BATCH,
        validation_data=test,
        random_state=SEED,
        progress=progress,
    )
    return model, history


def table(results: list[Result]) -> str:
    """The results as a Markdown table; speed-up is against NumPy."""
    baseline = next(r.seconds_per_epoch for r in results if r.backend == "numpy")
    rows = ["| backend | test accuracy | test loss | seconds per epoch | speed-up |", "|---|---|---|---|---|"]
    rows += [
        f"| {r.backend} | {r.accuracy:.2%} | {r.loss:.4f} | {r.seconds_per_epoch:.3f} |"
        f" {baseline / r.seconds_per_epoch:.1f}x |"
        for r in results
    ]
    return "\n".join(rows)


def disagreement(results: list[Result]) -> str:
    """Where the backends differ by more than the stated tolerances; empty where they agree."""
    losses = [r.loss for r in results]
    accuracies = [r.accuracy for r in results]
    if max(losses) - min(losses) > LOSS_TOLERANCE:
        return f"test losses differ by {max(losses) - min(losses):.4f}, more than {LOSS_TOLERANCE}"
    if max(accuracies) - min(accuracies) > ACCURACY_TOLERANCE + 1e-9:
        return f"test accuracies differ by {max(accuracies) - min(accuracies):.2%}, more than {ACCURACY_TOLERANCE:.2%}"
    return ""


def draw(result: Result, folder: Path) -> list[Path]:
    """Pictures of what was learnt: loss and accuracy by epoch, and the filters of the first convolution."""
    folder.mkdir(parents=True, exist_ok=True)
    first = result.model[0]
    assert isinstance(first, nn.Conv2d)
    pictures = {
        "loss": plot.history(result.history),
        "accuracy": plot.history(result.history, "accuracy"),
        "filters": plot.filters(first),
    }
    paths = {name: folder / f"{name}.png" for name in pictures}
    for name, axes in pictures.items():
        _pictures.save(axes, paths[name])
    return list(paths.values())


def run(folder: str) -> list[Result]:
    """Train with every backend that is here, print the table, and put pictures into `folder`."""
    digits = load_digits()
    names = [name for name in ("numpy", "numba", "cython") if not _select.why_unavailable(name)]
    for name in _select.BACKENDS:
        if name not in names:
            print(f"{name}: left out, {_select.why_unavailable(name)}")
    results = [learn(name, digits) for name in names]
    print(f"\n{len(digits[0][1])} digits to train on, {len(digits[1][1])} to test, {EPOCHS} epochs of Adam\n")
    print(table(results))
    problem = disagreement(results)
    if problem:
        raise SystemExit(f"fastnn demo: the backends disagree: {problem}")
    print(
        f"\nThe backends agree: losses within {LOSS_TOLERANCE}, accuracies within {ACCURACY_TOLERANCE:.2%}."
    )
    if _pictures.are_possible():
        paths = ", ".join(map(str, draw(results[-1], Path(folder))))
        print(f"What {results[-1].backend} has learnt, in pictures: {paths}")
    else:
        print("No pictures: they are made by matplotlib, which is not installed.")
    return results
