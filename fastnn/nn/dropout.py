"""Dropout."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

import fastnn
from fastnn.init import RandomState
from fastnn.nn._layer import Layer, Shape
from fastnn.nn._plan import Stage

Array = NDArray[Any]


class Dropout(Layer):
    """In training each element is 0 with probability `p`, else divided by 1 - p; otherwise nothing happens.

    The mask follows from a seed and a count of the elements so far, is the same for all backends, and is made again
    for backward; see `fastnn.dropout`.

    References
    ----------
    Srivastava, Hinton, Krizhevsky, Sutskever and Salakhutdinov, "Dropout: A Simple Way to Prevent Neural Networks
    from Overfitting", JMLR 15, 2014.
    """

    def __init__(self, p: float = 0.5) -> None:
        fastnn.dropout(0.0, p=p, seed=0)
        self.p = p
        self.seed(None)

    def seed(self, random_state: RandomState) -> None:
        self._seed = int(np.random.default_rng(random_state).integers(2**63))
        self._count = 0

    def _forward(self, x: Array, training: bool) -> Array:
        if not training:
            return x
        mask: dict[str, Any] = {"p": self.p, "seed": self._seed, "offset": self._count}
        self._count = (self._count + x.size) % 2**64
        self._saved = mask
        y: Array = fastnn.dropout(x, **mask, out=self._scratch("y", x.shape, x.dtype))
        return y

    def _backward(self, grad: Array, saved: Any, needs_grad_x: bool) -> Array | None:
        out = self._scratch("grad", grad.shape, grad.dtype)
        gradient: Array = fastnn.dropout_backward(grad, **saved, out=out)
        return gradient

    def _stages(self) -> Iterator[Stage]:
        yield from ()

    def output_shape(self, shape: Shape) -> Shape:
        return shape
