"""Normalisation layers."""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

import fastnn
from fastnn import init
from fastnn.nn._layer import Layer, Shape, floating
from fastnn.nn._parameters import Buffer, Parameter
from fastnn_ext.checks import boolean, integer, wrong
from fastnn_ext.checks.norm import as_eps, as_momentum

Array = NDArray[Any]
#: NumPy's arrays have at most 64 axes.
MOST_AXES = 63


class Norm(Layer):
    """A layer that may have a weight and a bias for what it has normalised."""

    weight: Parameter | None = None
    bias: Parameter | None = None

    def _have(self, shape: Shape, dtype: np.dtype[Any], *, weight: bool, bias: bool) -> None:
        if weight:
            self.weight = Parameter(shape, dtype, init.ones, has_fans=False)
        if bias:
            self.bias = Parameter(shape, dtype, init.zeros, has_fans=False)

    def _needs(self, needs_grad_x: bool) -> tuple[bool, bool, bool]:
        return needs_grad_x, self.weight is not None, self.bias is not None

    def _add(self, grad_weight: Array | None, grad_bias: Array | None) -> None:
        for parameter, grad in ((self.weight, grad_weight), (self.bias, grad_bias)):
            if parameter is not None and grad is not None:
                parameter.add_grad(grad.reshape(parameter.shape))


class BatchNorm(Norm):
    """(x - mean) / sqrt(variance + eps) * weight + bias for each channel, with `fastnn.batch_norm`.

    In training mean and variance are those of the batch, and the running ones move towards them; evaluation uses the
    running ones.
    """

    ndims: ClassVar[tuple[int, ...]]
    expected: ClassVar[str]

    def __init__(
        self,
        num_features: int,
        *,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        dtype: DTypeLike = np.float32,
    ) -> None:
        name = type(self).__name__
        self.num_features = integer(name, "num_features", num_features, low=1)
        self.eps = as_eps(name, eps)
        self.momentum = None if momentum is None else as_momentum(name, momentum)
        affine, dtype = boolean(name, "affine", affine), floating(name, dtype)
        self._have((self.num_features,), dtype, weight=affine, bias=affine)
        self.running_mean = Buffer((self.num_features,), dtype, 0)
        self.running_var = Buffer((self.num_features,), dtype, 1)
        self.num_batches_tracked = Buffer((), np.int64, 0)

    def _forward(self, x: Array, training: bool) -> Array:
        x = self._cast(x)
        weight, bias = self._weight_and_bias
        running = self.running_mean.data, self.running_var.data
        if not training:
            self.output_shape(x.shape)
            return fastnn.batch_norm(x, weight, bias, *running, training=False, eps=self.eps)  # type: ignore[return-value]
        self.check_batch(x.shape)
        batches = self.num_batches_tracked.data
        y, mean, inv_std = fastnn.batch_norm(
            x,
            weight,
            bias,
            *running,
            training=True,
            momentum=1 / (int(batches) + 1) if self.momentum is None else self.momentum,
            eps=self.eps,
            return_stats=True,
            out=self._scratch("y", x.shape, weight.dtype),
        )
        batches += 1
        self._saved = x, mean, inv_std
        return y

    def _backward(self, grad: Array, saved: Any, needs_grad_x: bool) -> Array | None:
        x, mean, inv_std = saved
        grad_x, *gradients = fastnn.batch_norm_backward(
            grad.astype(x.dtype, copy=False),
            x,
            self._weight_and_bias[0],
            mean,
            inv_std,
            training=True,
            needs=self._needs(needs_grad_x),
        )
        self._add(*gradients)
        return grad_x

    @property
    def _weight_and_bias(self) -> tuple[Array, Array]:
        if self.weight is None or self.bias is None:
            return self._identity
        return self.weight.data, self.bias.data

    @cached_property
    def _identity(self) -> tuple[Array, Array]:
        """A weight and a bias that change nothing."""
        mean = self.running_mean
        return np.ones(mean.shape, mean.dtype), np.zeros(mean.shape, mean.dtype)

    def output_shape(self, shape: Shape) -> Shape:
        if len(shape) not in self.ndims or shape[1] != self.num_features:
            expected = self.expected.format(self.num_features)
            raise wrong(ValueError, str(self), "input", f"has shape {shape}", expected)
        return shape

    def check_batch(self, shape: Shape) -> None:
        super().check_batch(shape)
        if shape[0] * math.prod(shape[2:]) < 2:
            expected = "at least two values of each channel in training"
            raise wrong(ValueError, str(self), "input", f"has shape {shape}", expected)


class BatchNorm1d(BatchNorm):
    """Batch normalisation of features [N, C], or of sequences with channels first [N, C, L].

    In training each channel has the mean and variance of the batch, of which there must be two values at least, and
    the running ones move towards them (the variance is the unbiased one there); evaluation uses the running ones.

    Parameters
    ----------
    num_features : int
        Channels.
    eps : float
        Added to the variance.
    momentum : float, optional
        The share of the new statistics in the running ones; where it is None, those are the means over all batches.
    affine : bool
        Whether the result is multiplied by a weight and added to a bias, which begin at 1 and 0.
    dtype : float32 or float64
        Of weight, bias, running statistics and output.

    References
    ----------
    Ioffe and Szegedy, "Batch Normalization: Accelerating Deep Network Training by Reducing Internal Covariate Shift",
    2015.
    """

    ndims = (2, 3)
    expected = "(N, {0}) or (N, {0}, L)"


class BatchNorm2d(BatchNorm):
    """Batch normalisation of images [N, C, H, W]; else as `BatchNorm1d`."""

    ndims = (4,)
    expected = "(N, {0}, H, W)"


class LayerNorm(Norm):
    """(x - mean) / sqrt(variance + eps) * weight + bias with statistics along the last axes, of each sample alone.

    Parameters
    ----------
    normalized_shape : int or tuple of int
        The length of the last axis, or the lengths of the last axes.
    eps : float
        Added to the variance.
    elementwise_affine : bool
        Whether there is a weight, which begins at 1, and maybe a bias.
    bias : bool
        Whether there is a bias too, which begins at 0.
    dtype : float32 or float64
        Of weight, bias and output; without a weight the output has the dtype of the input.

    References
    ----------
    Ba, Kiros and Hinton, "Layer Normalization", arXiv:1607.06450, 2016.
    """

    def __init__(
        self,
        normalized_shape: int | tuple[int, ...],
        *,
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        dtype: DTypeLike = np.float32,
    ) -> None:
        lengths = normalized_shape if isinstance(normalized_shape, (tuple, list)) else (normalized_shape,)
        if not 1 <= len(lengths) <= MOST_AXES:
            expected = f"from 1 to {MOST_AXES} lengths"
            raise wrong(ValueError, "LayerNorm", "normalized_shape", f"has {len(lengths)}", expected)
        self.normalized_shape = tuple(integer("LayerNorm", "normalized_shape", n, low=1) for n in lengths)
        self.eps = as_eps("LayerNorm", eps)
        weight = boolean("LayerNorm", "elementwise_affine", elementwise_affine)
        bias = boolean("LayerNorm", "bias", bias) and weight
        self._have(self.normalized_shape, floating("LayerNorm", dtype), weight=weight, bias=bias)

    def _forward(self, x: Array, training: bool) -> Array:
        x, shape = self._cast(x), self.output_shape(x.shape)
        rows = x.reshape(*shape[: -len(self.normalized_shape)], math.prod(self.normalized_shape))
        out = self._scratch("y", rows.shape, rows.dtype) if training else None
        y = fastnn.layer_norm(rows, _row(self.weight), _row(self.bias), eps=self.eps, out=out)
        if training:
            self._saved = rows
        return y.reshape(shape)

    def _backward(self, grad: Array, saved: Any, needs_grad_x: bool) -> Array | None:
        grad_x, *gradients = fastnn.layer_norm_backward(
            grad.astype(saved.dtype, copy=False).reshape(saved.shape),
            saved,
            _row(self.weight),
            eps=self.eps,
            needs=self._needs(needs_grad_x),
        )
        self._add(*gradients)
        return None if grad_x is None else grad_x.reshape(grad.shape)

    def output_shape(self, shape: Shape) -> Shape:
        if shape[-len(self.normalized_shape) :] != self.normalized_shape:
            expected = f"(..., {', '.join(map(str, self.normalized_shape))})"
            raise wrong(ValueError, str(self), "input", f"has shape {shape}", expected)
        return shape


def _row(parameter: Parameter | None) -> Array | None:
    return None if parameter is None else parameter.data.reshape(-1)
