"""Layers with weights and a bias, and the activation that their kernel applies to the result."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from functools import partial
from typing import Any, ClassVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

import fastnn
from fastnn import init
from fastnn.nn._layer import Layer, Shape, floating
from fastnn.nn._parameters import Parameter
from fastnn.nn._plan import Empty, Stage, Step, cast
from fastnn.nn.activations import saves_output
from fastnn_ext.checks import integer, wrong
from fastnn_ext.checks.activations import fused
from fastnn_ext.checks.windows import axes, pair

Array = NDArray[Any]
Pair = int | tuple[int, int]
Padding = int | tuple[int, int] | tuple[tuple[int, int], tuple[int, int]] | str


class Affine(Layer):
    """weight and bias applied to x by a kernel, then an activation."""

    kernel: ClassVar[str]
    options: ClassVar[tuple[str, ...]] = ()

    def _have(self, shape: Shape, bias: bool, activation: str | None, dtype: DTypeLike) -> None:
        name = type(self).__name__
        dtype = floating(name, dtype)
        self.activation = fused(name, activation)
        self.weight = Parameter(shape, dtype, init.he_uniform)
        self.bias = Parameter(shape[:1], dtype, init.zeros) if bias else None
        self._options = {name: self.config[name] for name in self.options}

    def _forward(
        self, x: Array, training: bool, activation: str | None = None, undone: bool = False
    ) -> Array:
        """`activation` is that of the layer that follows, computed here.

        Where it is `undone` by a later layer's backward, this layer's is to leave it alone.
        """
        activation = activation or self.activation
        weight, bias = self.weight.data, None if self.bias is None else self.bias.data
        if x.dtype != weight.dtype and x.dtype.kind == "f":
            x = x.astype(weight.dtype)
        apply = getattr(fastnn, self.kernel)
        if not training:
            y: Array = apply(x, weight, bias, activation=activation, **self._options)
            return y
        out = self._out(x, weight.dtype)
        if activation is None:
            y = apply(x, weight, bias, out=out, **self._options)
            self._saved = x, None, None
        elif saves_output(activation):
            y = apply(x, weight, bias, activation=activation, out=out, **self._options)
            self._saved = (x, None, None) if undone else (x, y, activation)
        else:
            z = self._scratch("z", out.shape, out.dtype)
            apply(x, weight, bias, out=z, **self._options)
            y = getattr(fastnn, activation)(z, out=out)
            self._saved = x, z, activation
        return y

    def _backward(self, grad: Array, saved: Any, needs_grad_x: bool) -> Array | None:
        x, kept, activation = saved
        grad = grad.astype(x.dtype, copy=False)
        if activation is not None:  # whoever wanted what was kept has gone back already
            grad = getattr(fastnn, f"{activation}_backward")(grad, kept, out=kept)
        gradients = getattr(fastnn, f"{self.kernel}_backward")
        weight, bias = self.weight, self.bias
        needs = (needs_grad_x, True, bias is not None)
        room = (None, weight.room, None if bias is None else bias.room)
        grad_x, grad_weight, grad_bias = gradients(
            grad, x, weight.data, needs=needs, out=room, **self._options
        )
        weight.add_grad(grad_weight)
        if bias is not None:
            bias.add_grad(grad_bias)
        result: Array | None = grad_x
        return result

    def _stages(self, activation: str | None = None) -> Iterator[Stage]:
        activation = activation or self.activation
        weight, bias = fastnn.pack(self.weight.data), None if self.bias is None else self.bias.data.copy()
        apply = getattr(fastnn, self.kernel)
        if self._options:  # with none, a partial would only cost time
            apply = partial(apply, **self._options)

        def bind(x: Array, empty: Empty) -> tuple[Step, Array]:
            y = empty(self.output_shape(x.shape), weight.dtype)
            return lambda x: apply(x, weight, bias, activation=activation, out=y), y

        yield cast(weight.dtype)
        yield bind

    @abstractmethod
    def output_shape(self, shape: Shape) -> Shape: ...


class Linear(Affine):
    """Dense layer, f(x @ weight.T + bias).

    Parameters
    ----------
    in_features, out_features : int
        Sizes of the last axis before and after.
    bias : bool
        Whether there is a bias.
    activation : str, optional
        The function f, by the name of its kernel; None is the identity.
    dtype : float32 or float64
        Of weights, bias and output.
    """

    kernel = "linear"

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        bias: bool = True,
        activation: str | None = None,
        dtype: DTypeLike = np.float32,
    ) -> None:
        self.in_features = integer("Linear", "in_features", in_features, low=1)
        self.out_features = integer("Linear", "out_features", out_features, low=1)
        self._have((self.out_features, self.in_features), bias, activation, dtype)

    def output_shape(self, shape: Shape) -> Shape:
        if not shape or shape[-1] != self.in_features:
            raise wrong(ValueError, str(self), "input", f"has shape {shape}", f"(..., {self.in_features})")
        return (*shape[:-1], self.out_features)


class Conv2d(Affine):
    """2-D convolution of images [N, C, H, W], with `fastnn.conv2d`.

    Parameters
    ----------
    in_channels, out_channels : int
        Channels before and after.
    kernel_size : int or (height, width)
        Taps of the kernel.
    stride, padding, dilation, groups
        As in `fastnn.conv2d`.
    bias : bool
        Whether there is a bias.
    activation : str, optional
        The function that is applied to the result, by the name of its kernel; None is the identity.
    dtype : float32 or float64
        Of weights, bias and output.
    """

    kernel = "conv2d"
    options = ("stride", "padding", "dilation", "groups")

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Pair,
        *,
        stride: Pair = 1,
        padding: Padding = 0,
        dilation: Pair = 1,
        groups: int = 1,
        bias: bool = True,
        activation: str | None = None,
        dtype: DTypeLike = np.float32,
    ) -> None:
        self.in_channels = integer("Conv2d", "in_channels", in_channels, low=1)
        self.out_channels = integer("Conv2d", "out_channels", out_channels, low=1)
        groups = integer("Conv2d", "groups", groups, low=1)
        if in_channels % groups or out_channels % groups:
            expected = f"a divisor of {in_channels} and {out_channels}"
            raise wrong(ValueError, "Conv2d", "groups", f"is {groups}", expected)
        taps = pair("Conv2d", "kernel_size", kernel_size)
        axes("Conv2d", (2**31, 2**31), taps, stride, padding, dilation)  # options that no image fits
        self._have((self.out_channels, self.in_channels // groups, *taps), bias, activation, dtype)

    def output_shape(self, shape: Shape) -> Shape:
        if len(shape) != 4 or shape[1] != self.in_channels:
            expected = f"(N, {self.in_channels}, H, W)"
            raise wrong(ValueError, str(self), "input", f"has shape {shape}", expected)
        options = (self._options[name] for name in ("stride", "padding", "dilation"))
        rows, columns = axes(
            type(self).__name__, (shape[2], shape[3]), (self.weight.shape[2], self.weight.shape[3]), *options
        )
        return (shape[0], self.out_channels, rows.outputs, columns.outputs)
