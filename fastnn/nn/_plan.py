"""Inference with everything made ready beforehand: a flat list of calls of kernels on buffers of their own."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fastnn.nn._scratch import Scratch
from fastnn_ext.checks import FLOAT64, integer, wrong

if TYPE_CHECKING:
    from fastnn.nn._layer import Layer

Array = NDArray[Any]
Shape = tuple[int, ...]
#: Computes from an array, into a buffer that it knows.
Step = Callable[[Array], object]
#: A buffer of that shape and dtype, which holds its content until the next but one is asked for.
Empty = Callable[[Shape, np.dtype[Any]], Array]
#: From the array that a step will read: the step, or None where the result is a view; and where its result lies.
Stage = Callable[[Array, Empty], tuple[Step | None, Array]]
#: The step that reads the caller's x, those that follow with what each reads, and where their result lies.
Bound = tuple[Step, tuple[tuple[Step, Array], ...], Array]


def stage(
    kernel: Callable[..., object],
    output_shape: Callable[[Shape], Shape],
    dtype: np.dtype[Any] | None = None,
    **options: Any,
) -> Stage:
    """The stage that is one call, `kernel(x, out=..., **options)`; `dtype` is that of its result, None that of x."""

    def bind(x: Array, empty: Empty) -> tuple[Step, Array]:
        y = empty(output_shape(x.shape), dtype or x.dtype)
        return partial(kernel, out=y, **options), y

    return bind


def cast(dtype: np.dtype[Any]) -> Stage:
    """The stage that is `astype(dtype, copy=False)`."""

    def bind(x: Array, empty: Empty) -> tuple[Step | None, Array]:
        if x.dtype == dtype:
            return None, x
        y = empty(x.shape, dtype)
        return partial(np.copyto, y), y

    return bind


class Plan:
    """A network as it was when the plan was made, ready for batches of up to `batch_size`; made by `Layer.plan`.

    `plan(x)` is the output for a batch, in a buffer that the next call overwrites.

    Attributes
    ----------
    batch_size : int
        The most samples of a call.
    sample_shape : tuple of int or None
        The shape of a sample; None before the first call, where it was not given.
    dtype : dtype
        Of x.
    """

    def __init__(self, layer: Layer, batch_size: int, sample_shape: Shape | None) -> None:
        self.batch_size = integer("plan", "batch_size", batch_size, low=1)
        self.sample_shape: Shape | None = None
        self.dtype = layer.dtype or FLOAT64
        self._output_shape = layer.output_shape
        self._stages = list(layer._stages())
        self._scratch = Scratch()
        self._bound: dict[Shape, Bound] = {}
        if sample_shape is not None:
            self._settle(tuple(sample_shape))

    def __call__(self, x: Array) -> Array:
        """The output for x.

        Parameters
        ----------
        x : ndarray, shape (n, ...)
            Up to `batch_size` samples, in the dtype of the parameters.

        Returns
        -------
        ndarray
            The same bits as those of `predict`, in memory of the plan: the next call overwrites it.

        Raises
        ------
        TypeError
            Where x is no ndarray, or of another dtype.
        ValueError
            Where x has another shape.
        """
        fits = type(x) is np.ndarray and x.dtype == self.dtype
        bound = self._bound.get(x.shape) if fits else None
        first, others, y = bound or self._bind_for(x)
        first(x)
        for step, source in others:
            step(source)
        return y

    def _bind_for(self, x: Any) -> Bound:
        """The steps for an x that is the first of its shape, once it has been checked."""
        if type(x) is not np.ndarray:
            raise wrong(TypeError, "plan", "x", f"is a {type(x).__name__}", "an ndarray")
        if x.dtype != self.dtype:
            raise wrong(TypeError, "plan", "x", f"has dtype {x.dtype}", str(self.dtype))
        if self.sample_shape is None and x.ndim:
            self._settle(x.shape[1:])
        if not x.ndim or len(x) > self.batch_size or x.shape[1:] != self.sample_shape:
            sample = "..." if self.sample_shape is None else ", ".join(map(str, self.sample_shape))
            expected = f"(n, {sample}) with n up to {self.batch_size}"
            raise wrong(ValueError, "plan", "x", f"has shape {x.shape}", expected)
        bound = self._bound[x.shape] = self._bind(x.shape)
        return bound

    def _settle(self, sample_shape: Shape) -> None:
        """Make the buffers for samples of that shape."""
        shape = (self.batch_size, *sample_shape)
        self._output_shape(shape)  # an error names the layer
        for _ in range(2):  # the first time, buffers grow
            self._bound[shape] = self._bind(shape)
        self.sample_shape = sample_shape

    def _bind(self, shape: Shape) -> Bound:
        """The steps for an x of that shape."""
        names = cycle("ab")

        def empty(shape: Shape, dtype: np.dtype[Any]) -> Array:
            return self._scratch(next(names), shape, dtype)

        y = np.empty(shape, self.dtype)
        steps: list[tuple[Step, Array]] = []
        for bind in self._stages:
            source = y
            step, y = bind(source, empty)
            if step:
                steps.append((step, source))
        if not steps:  # views alone: of a copy
            source, y = y, empty(y.shape, y.dtype)
            steps.append((partial(np.copyto, y), source))
        (first, source), *others = steps
        if source.shape != shape:
            first = _reshaped(first, source.shape)
        return first, tuple(others), y

    def __repr__(self) -> str:
        sample = "" if self.sample_shape is None else f" of shape {self.sample_shape}"
        return f"<plan for up to {self.batch_size} samples{sample} of {self.dtype}>"


def _reshaped(step: Step, shape: Shape) -> Step:
    return lambda x: step(x.reshape(shape))
