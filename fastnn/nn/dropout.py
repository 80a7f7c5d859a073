"""Dropout."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnn.init import RandomState
from fastnn.nn._layer import Layer, Shape
from fastnn_ext.checks import number, wrong

Array = NDArray[Any]


class Dropout(Layer):
    """In training each element is 0 with probability `p`, else divided by 1 - p; otherwise nothing happens.

    The random numbers come from a counter-based generator (Philox) and are the same for all backends.

    References
    ----------
    Srivastava, Hinton, Krizhevsky, Sutskever and Salakhutdinov, "Dropout: A Simple Way to Prevent Neural Networks
    from Overfitting", JMLR 15, 2014.
    """

    def __init__(self, p: float = 0.5) -> None:
        self.p = number("Dropout", "p", p, low=0)
        if self.p > 1:
            raise wrong(ValueError, "Dropout", "p", f"is {p}", "a number from 0 to 1")
        self.seed(None)

    def seed(self, random_state: RandomState) -> None:
        seed = np.random.default_rng(random_state).integers(2**63)
        self._rng = np.random.Generator(np.random.Philox(int(seed)))

    def _forward(self, x: Array, training: bool) -> Array:
        if not training:
            return x
        mask = self._scratch("mask", x.shape, x.dtype)
        self._rng.random(out=mask, dtype=x.dtype)
        np.greater_equal(mask, self.p, out=mask)
        mask *= 1 / (1 - self.p) if self.p < 1 else 0
        self._saved = mask
        return np.multiply(x, mask, out=self._scratch("y", x.shape, x.dtype))

    def _backward(self, grad: Array, saved: Any, needs_grad_x: bool) -> Array | None:
        return np.multiply(grad, saved, out=saved) if needs_grad_x else None

    def output_shape(self, shape: Shape) -> Shape:
        return shape
