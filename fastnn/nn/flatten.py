"""Images to rows."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from numpy.typing import NDArray

from fastnn.nn._layer import Layer, Shape
from fastnn.nn._plan import Stage
from fastnn_ext.checks import wrong

Array = NDArray[Any]


class Flatten(Layer):
    """All axes but the first become one."""

    def _forward(self, x: Array, training: bool) -> Array:
        if training:
            self._saved = x.shape
        return x.reshape(self.output_shape(x.shape))

    def _backward(self, grad: Array, saved: Any, needs_grad_x: bool) -> Array | None:
        gradient: Array = grad.reshape(saved)
        return gradient

    def _stages(self) -> Iterator[Stage]:
        yield lambda x, _: (None, x.reshape(self.output_shape(x.shape)))

    def output_shape(self, shape: Shape) -> Shape:
        if not shape:
            raise wrong(ValueError, str(self), "input", f"has shape {shape}", "(N, ...)")
        return (shape[0], math.prod(shape[1:]))
