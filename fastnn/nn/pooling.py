"""Pooling layers of images [N, C, H, W]."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, ClassVar

from numpy.typing import NDArray

import fastnn
from fastnn.nn._layer import Layer, Shape
from fastnn.nn._plan import Empty, Stage, Step, stage
from fastnn_ext.checks import wrong
from fastnn_ext.checks.windows import axes, pair

Array = NDArray[Any]
Pair = int | tuple[int, int]
Padding = int | tuple[int, int] | tuple[tuple[int, int], tuple[int, int]] | str


class Pool(Layer):
    """One number for each window of an image."""

    function: ClassVar[str]

    def __init__(self, kernel_size: Pair, stride: Pair | None = None, padding: Padding = 0) -> None:
        name = type(self).__name__
        self.taps = pair(name, "kernel_size", kernel_size)
        stride = self.taps if stride is None else stride
        self._options: dict[str, Any] = {"stride": stride, "padding": padding}
        axes(name, (2**31, 2**31), self.taps, **self._options)  # options that no image fits

    def _stages(self) -> Iterator[Stage]:
        pool = getattr(fastnn, self.function)
        yield stage(pool, self.output_shape, kernel_size=self.taps, **self._options)

    def output_shape(self, shape: Shape) -> Shape:
        if len(shape) != 4:
            raise wrong(ValueError, str(self), "input", f"has shape {shape}", "(N, C, H, W)")
        rows, columns = axes(type(self).__name__, (shape[2], shape[3]), self.taps, **self._options)
        return (*shape[:2], rows.outputs, columns.outputs)


class MaxPool2d(Pool):
    """The largest element of each window, with `fastnn.max_pool2d`.

    Parameters
    ----------
    kernel_size, stride, padding
        As there.
    """

    function = "max_pool2d"

    def _forward(self, x: Array, training: bool, undoing: str | None = None) -> Array:
        """`undoing` is the activation of the layer before, whose derivative follows from the maxima alone.

        Backward then applies it to the gradients of the maxima, which are fewer than those of all elements.
        """
        if not training:
            return fastnn.max_pool2d(x, self.taps, **self._options)  # type: ignore[return-value]
        out = self._out(x, x.dtype)
        y, indices = fastnn.max_pool2d(x, self.taps, **self._options, return_indices=True, out=out)
        self._saved = indices, x.shape, None if undoing is None else (undoing, y, x)
        return y

    def _backward(self, grad: Array, saved: Any, needs_grad_x: bool) -> Array | None:
        indices, shape, undoing = saved
        if undoing is None:
            out = self._scratch("grad", shape, grad.dtype)
        else:
            activation, y, out = undoing  # the layer before needs its output no more
            maxima = self._scratch("maxima", y.shape, y.dtype)
            grad = getattr(fastnn, f"{activation}_backward")(grad.astype(y.dtype, copy=False), y, out=maxima)
        gradient: Array = fastnn.max_pool2d_backward(grad, indices, shape, out=out)
        return gradient


class AvgPool2d(Pool):
    """The mean of each window, padding counted as zeros, with `fastnn.avg_pool2d`.

    Parameters
    ----------
    kernel_size, stride, padding
        As there.
    """

    function = "avg_pool2d"

    def _forward(self, x: Array, training: bool) -> Array:
        out = self._out(x, x.dtype) if training else None
        y: Array = fastnn.avg_pool2d(x, self.taps, **self._options, out=out)
        if training:
            self._saved = x.shape
        return y

    def _backward(self, grad: Array, saved: Any, needs_grad_x: bool) -> Array | None:
        out = self._scratch("grad", saved, grad.dtype)
        gradient: Array = fastnn.avg_pool2d_backward(grad, saved, self.taps, **self._options, out=out)
        return gradient


class GlobalAvgPool2d(Layer):
    """The mean of each channel: [N, C, H, W] becomes [N, C]."""

    def _forward(self, x: Array, training: bool) -> Array:
        shape = self.output_shape(x.shape)
        y: Array = fastnn.avg_pool2d(x, x.shape[2:]).reshape(shape)
        if training:
            self._saved = x.shape
        return y

    def _backward(self, grad: Array, saved: Any, needs_grad_x: bool) -> Array | None:
        out = self._scratch("grad", saved, grad.dtype)
        planes = grad.reshape(*grad.shape, 1, 1)
        gradient: Array = fastnn.avg_pool2d_backward(planes, saved, saved[2:], out=out)
        return gradient

    def _stages(self) -> Iterator[Stage]:
        pool = fastnn.avg_pool2d

        def bind(x: Array, empty: Empty) -> tuple[Step, Array]:
            y = empty((*x.shape[:2], 1, 1), x.dtype)
            return partial(pool, kernel_size=x.shape[2:], out=y), y.reshape(x.shape[:2])

        yield bind

    def output_shape(self, shape: Shape) -> Shape:
        if len(shape) != 4 or not shape[2] * shape[3]:
            raise wrong(ValueError, str(self), "input", f"has shape {shape}", "(N, C, H, W)")
        return shape[:2]
