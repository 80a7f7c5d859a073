"""Losses, with their gradients."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

import fastnn
from fastnn_ext.checks import wrong

Array = NDArray[Any]


class Loss:
    """How far outputs are from their targets: `loss(output, target)`.

    Parameters
    ----------
    reduction : {"mean", "sum", "none"}
        Whether the terms are averaged, added, or returned as they are.
    """

    kernel: ClassVar[str]

    def __init__(self, *, reduction: str = "mean") -> None:
        self.options: dict[str, Any] = {"reduction": reduction}

    def __call__(self, output: ArrayLike, target: ArrayLike) -> Any:
        """The loss, in the dtype of `output`."""
        output, target = self._arrays(output, target)
        return getattr(fastnn, self.kernel)(output, target, **self.options)

    def value_and_grad(self, output: ArrayLike, target: ArrayLike) -> tuple[Any, Array]:
        """The loss, and its gradient with respect to `output`."""
        output, target = self._arrays(output, target)
        pair: tuple[Any, Array] = getattr(fastnn, f"{self.kernel}_with_grad")(output, target, **self.options)
        return pair

    def accuracy(self, output: Array, target: Array) -> float | None:
        """The share of what is classified rightly; None where the loss does not classify."""
        return None

    def check_labels(self, target: Array, outputs: int) -> None:
        """An IndexError where the loss takes labels, and `target` has some that a network has no output for."""

    def _arrays(self, output: ArrayLike, target: ArrayLike) -> tuple[Array, Array]:
        """Both in the output's dtype, so that the gradient is."""
        output, target = np.asanyarray(output), np.asanyarray(target)
        casts = output.dtype.kind == "f" and target.dtype.kind in self._cast_kinds
        return output, target.astype(output.dtype, copy=False) if casts else target

    _cast_kinds = "fiub"

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.options.items())})"
        )


class CrossEntropyLoss(Loss):
    """Cross-entropy of softmax(output) with labels or probabilities; `fastnn.cross_entropy` has the options."""

    kernel = "cross_entropy"
    _cast_kinds = "f"  # integers are labels

    def __init__(
        self, *, reduction: str = "mean", ignore_index: int | None = None, label_smoothing: float = 0
    ) -> None:
        super().__init__(reduction=reduction)
        self.options |= {"ignore_index": ignore_index, "label_smoothing": label_smoothing}

    def accuracy(self, output: Array, target: Array) -> float | None:
        labels = target if target.ndim < output.ndim else target.argmax(axis=-1)
        return _share(output.argmax(axis=-1) == labels)

    def check_labels(self, target: Array, outputs: int) -> None:
        if target.dtype.kind not in "iu":
            return
        known = target[target != self.options["ignore_index"]]
        if known.size and not 0 <= known.min() <= known.max() < outputs:
            given = f"has labels from {known.min()} to {known.max()}, but the network has {outputs} outputs"
            raise wrong(IndexError, type(self).__name__, "target", given, f"labels from 0 to {outputs - 1}")


class MSELoss(Loss):
    """The mean of (output - target)^2 over all elements."""

    kernel = "mse_loss"


class HalfSquaredError(Loss):
    """1/2 sum (output - target)^2 over the outputs of a sample, averaged over samples: the E of textbooks."""

    kernel = "half_squared_error"


class BCELoss(Loss):
    """Binary cross-entropy of probabilities."""

    kernel = "binary_cross_entropy"
    _boundary = 0.5

    def accuracy(self, output: Array, target: Array) -> float | None:
        right = (output >= self._boundary) == (target >= 0.5)
        return _share(right.reshape(len(right), -1).all(axis=1))


class BCEWithLogitsLoss(BCELoss):
    """Binary cross-entropy of sigmoid(output), exact at any output."""

    kernel = "binary_cross_entropy_with_logits"
    _boundary = 0.0


def _share(right: Array) -> float:
    """How much of it is true; `mean` would take many times as long for a batch."""
    return np.count_nonzero(right) / right.size if right.size else math.nan
