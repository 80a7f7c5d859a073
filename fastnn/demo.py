"""The main job, run for real: a small convolutional network learns scikit-learn's digits with each backend.

Two convolutions with pooling, one dense layer, softmax cross-entropy and Adam, on the 1,797 handwritten digits of
8x8 pixels (Alpaydin and Kaynak, 1998). Every backend starts from the same weights and sees the same batches.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnn import _select

Array = NDArray[np.float32]

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
class Split:
    """Images [n, 1, 8, 8] from 0 to 1 and their labels."""

    images: Array
    labels: NDArray[np.intp]


@dataclass(frozen=True)
class Result:
    """What one backend achieved."""

    backend: str
    accuracy: float
    loss: float
    seconds_per_epoch: float


def load_digits() -> tuple[Split, Split]:
    """Training and test digits, always split the same way."""
    try:
        from sklearn.datasets import load_digits as load
    except ImportError as error:
        raise SystemExit(
            "fastnn demo: the digits come with scikit-learn; pip install 'fastnn-kernels[demo]'"
        ) from error
    images, labels = load(return_X_y=True)
    order = np.random.default_rng(SEED).permutation(len(labels))
    images = (images[order] / 16).astype(np.float32).reshape(-1, 1, 8, 8)
    labels = labels[order].astype(np.intp)
    tests = round(TEST_SHARE * len(labels))
    return Split(images[tests:], labels[tests:]), Split(images[:tests], labels[:tests])


class Network:
    """conv 16x3x3, pool, conv 32x3x3, pool, dense 10; written on the kernels of one backend."""

    def __init__(self, kernels: Any) -> None:
        self.kernels = kernels
        rng = np.random.default_rng(SEED)
        self.parameters = [
            array
            for shape in ((16, 1, 3, 3), (32, 16, 3, 3), (10, 32 * 2 * 2))
            for array in (_he_normal(rng, shape), np.zeros(shape[0], np.float32))
        ]
        self._means = [np.zeros_like(p) for p in self.parameters]
        self._squares = [np.zeros_like(p) for p in self.parameters]
        self._steps = 0

    def forward(self, x: Array) -> tuple[Array, tuple[Array, ...]]:
        """Logits [n, 10], and what `backward` needs."""
        k = self.kernels
        w1, b1, w2, b2, w3, b3 = self.parameters
        a1 = k.conv2d(x, w1, b1, padding=1, activation="relu")
        p1, i1 = k.max_pool2d(a1, 2, return_indices=True)
        a2 = k.conv2d(p1, w2, b2, padding=1, activation="relu")
        p2, i2 = k.max_pool2d(a2, 2, return_indices=True)
        features = p2.reshape(len(x), -1)
        return k.linear(features, w3, b3), (x, a1, i1, p1, a2, i2, p2, features)

    def backward(self, grad: Array, saved: tuple[Array, ...]) -> list[Array]:
        """The gradient of each parameter from that of the logits."""
        k = self.kernels
        x, a1, i1, p1, a2, i2, p2, features = saved
        _, _, w2, _, w3, _ = self.parameters
        grad_features, grad_w3, grad_b3 = k.linear_backward(grad, features, w3)
        grad_a2 = k.max_pool2d_backward(grad_features.reshape(p2.shape), i2, a2.shape)
        grad_p1, grad_w2, grad_b2 = k.conv2d_backward(k.relu_backward(grad_a2, a2), p1, w2, padding=1)
        grad_a1 = k.max_pool2d_backward(grad_p1, i1, a1.shape)
        _, grad_w1, grad_b1 = k.conv2d_backward(
            k.relu_backward(grad_a1, a1), x, self.parameters[0], padding=1, needs=(False, True, True)
        )
        return [grad_w1, grad_b1, grad_w2, grad_b2, grad_w3, grad_b3]

    def train_step(self, x: Array, labels: NDArray[np.intp]) -> float:
        """One step of Adam on one mini-batch; its loss."""
        logits, saved = self.forward(x)
        loss, grad = self.kernels.cross_entropy_with_grad(logits, labels)
        self._steps += 1
        for param, gradient, mean, square in zip(
            self.parameters, self.backward(grad, saved), self._means, self._squares, strict=True
        ):
            self.kernels.adam_step(param, gradient, mean, square, step=self._steps, lr=LEARNING_RATE)
        return float(loss)

    def evaluate(self, split: Split) -> tuple[float, float]:
        """Accuracy and mean loss on `split`."""
        logits, _ = self.forward(split.images)
        loss = self.kernels.cross_entropy(logits, split.labels)
        return float(np.mean(logits.argmax(axis=1) == split.labels)), float(loss)


def _he_normal(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """He et al. (2015): standard deviation sqrt(2 / fan_in)."""
    fan_in = int(np.prod(shape[1:]))
    weights: Array = (rng.standard_normal(shape) * np.sqrt(2 / fan_in)).astype(np.float32)
    return weights


def _batches(split: Split) -> Iterator[tuple[int, Array, NDArray[np.intp]]]:
    """All mini-batches of all epochs, with the epoch; the same for every backend."""
    rng = np.random.default_rng(SEED)
    for epoch in range(EPOCHS):
        order = rng.permutation(len(split.labels))
        for start in range(0, len(order), BATCH):
            batch = order[start : start + BATCH]
            yield epoch, split.images[batch], split.labels[batch]


def train(backend: str, data: tuple[Split, Split], *, progress: bool = True) -> Result:
    """Train the network with the kernels of `backend` and test it."""
    training, test = data
    network = Network(_select.backend(backend))
    _warm_up(backend, training)
    batches = _batches(training)
    if progress:
        from tqdm import tqdm

        total = EPOCHS * -(-len(training.labels) // BATCH)
        batches = tqdm(batches, total=total, desc=f"{backend:7}", unit="batch", dynamic_ncols=True)
    start = time.perf_counter()
    for _, images, labels in batches:
        network.train_step(images, labels)
    seconds = time.perf_counter() - start
    accuracy, loss = network.evaluate(test)
    return Result(backend, accuracy, loss, seconds / EPOCHS)


def _warm_up(backend: str, split: Split) -> None:
    """One step and one evaluation on a throw-away network, so that compilation by Numba is not timed."""
    network = Network(_select.backend(backend))
    network.train_step(split.images[:BATCH], split.labels[:BATCH])
    network.evaluate(Split(split.images[:BATCH], split.labels[:BATCH]))


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


def run() -> list[Result]:
    """Train with every backend that is here and print the table."""
    data = load_digits()
    names = [name for name in ("numpy", "numba", "cython") if not _select.why_unavailable(name)]
    for name in _select.BACKENDS:
        if name not in names:
            print(f"{name}: left out, {_select.why_unavailable(name)}")
    results = [train(name, data) for name in names]
    print(
        f"\n{len(data[0].labels)} digits to train on, {len(data[1].labels)} to test, {EPOCHS} epochs of Adam\n"
    )
    print(table(results))
    problem = disagreement(results)
    if problem:
        raise SystemExit(f"fastnn demo: the backends disagree: {problem}")
    print(
        f"\nThe backends agree: losses within {LOSS_TOLERANCE}, accuracies within {ACCURACY_TOLERANCE:.2%}."
    )
    return results
