"""Normalisation over the batch and over the last axis, with their backward."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastnn._contract import Draw, kernel
from fastnn_ext.checks import norm as checks

Array = NDArray[Any]
Needs = tuple[bool, bool, bool]

_NEEDS = ((True, True, True), (True, False, False), (False, True, True))
_EPS = (1e-5, 0.1)

#: A sample, a mini-batch, the sentences of a transformer, and more than a cache holds.
ROWS = {f"{n}x{c}": {"n": n, "c": c} for n, c in ((1, 128), (64, 128), (512, 768), (4096, 1024))}
#: Features without places, and images of many places and of few.
IMAGES = {
    f"{n}x{c}{places}": {"n": n, "c": c, "s": s}
    for n, c, s, places in (
        (64, 128, 1, ""),
        (32, 64, 1024, "x32x32"),
        (8, 256, 196, "x14x14"),
        (64, 512, 49, "x7x7"),
    )
}


def _samples(draw: Draw, **_: Any) -> dict[str, Any]:
    """Rows whose variance does not vanish, where rounding alone would decide; a row of one is exact."""
    n, c = draw.size("n"), draw.size("c")
    x = draw.real(n, c)
    x[:, ::2] += 8
    return {"x": x, "weight": draw.real(c), "bias": draw.real(c)}


def _images(draw: Draw, training: bool = True, **_: Any) -> dict[str, Any]:
    n, c, s = draw.size("n", low=2), draw.size("c"), draw.size("s", low=1)
    x = draw.real(n, c, s)
    x[::2] += 8
    return {
        "x": x,
        "weight": draw.real(c),
        "bias": draw.real(c),
        "running_mean": draw.real(c),
        "running_var": draw.real(c, low=0.5, high=2),
    }


def _moments(x: Array, axis: int | tuple[int, ...], count: int) -> tuple[Array, Array]:
    """Mean and variance over axes that hold `count` elements, in float64; the axes stay, with length 1."""
    count = max(count, 1)
    mean: Any = np.sum(x, axis, np.float64, keepdims=True) / count
    square = np.square(np.subtract(x, mean.astype(x.dtype)), dtype=np.float64)
    return mean, np.sum(square, axis, keepdims=True) / count


def _normalised(x: Array, mean: Array, scale: Array, shift: Array | None) -> Array:
    """(x - mean) * scale + shift in the dtype of x."""
    y: Array = np.subtract(x, mean.astype(x.dtype))
    y *= scale.astype(x.dtype)
    if shift is not None:
        y += shift
    return y


@kernel(example=_samples, options={"eps": _EPS}, ulp=16, floor=1, workloads=ROWS)
def layer_norm(
    x: ArrayLike,
    weight: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    *,
    eps: float = 1e-5,
    out: Array | None = None,
) -> Array:
    """Normalisation of each row, along the last axis: (x - mean) / sqrt(variance + eps) * weight + bias.

    Parameters
    ----------
    x : array_like, shape (..., length)
        Inputs; any number of leading dimensions, or none.
    weight : array_like, shape (length,), optional
        What each normalised element is multiplied by; 1 where it is None.
    bias : array_like, shape (length,), optional
        What is added then; nothing where it is None.
    eps : float
        Added to the variance, which is the mean of the squared deviations from the mean; at least 0.
    out : ndarray, the shape of x, optional
        Written and returned when given; it shares no memory with an argument.

    Returns
    -------
    ndarray, the shape of x
        In the promoted float dtype of the arguments.

    Raises
    ------
    ValueError
        Where x has no axis, a shape does not fit, eps is negative or not finite, or `out` does not fit.
    TypeError
        Where an argument is not an array of real numbers, or eps no number.

    Notes
    -----
    Sums of more than a few terms are accumulated in float64, the variance from deviations. Where the mean is of the
    size of the standard deviation, the error is at most 16 units of the last place of the larger of 1 and the result. A
    row with NaN or infinity gives NaN.

    References
    ----------
    Ba, Kiros and Hinton, "Layer Normalization", arXiv:1607.06450, 2016.
    """
    x, weight, bias, eps, y = checks.layer_norm(x, weight, bias, eps, out)
    mean, variance = _moments(x, -1, x.shape[-1])
    scale = 1 / np.sqrt(variance + eps)
    return y.fill(_normalised(x, mean, scale if weight is None else scale * weight, bias))


@kernel(
    backward_of="layer_norm",
    options={"needs": _NEEDS},
    ulp=64,
    floor=1,
    workloads=ROWS,
)
def layer_norm_backward(
    grad_out: ArrayLike,
    x: ArrayLike,
    weight: ArrayLike | None = None,
    *,
    eps: float = 1e-5,
    needs: Needs = (True, True, True),
) -> tuple[Array | None, Array | None, Array | None]:
    """Gradients of a loss with respect to the arguments of `layer_norm`.

    With g = grad_out * weight, xn = (x - mean) / std and std = sqrt(variance + eps), and means along the last axis,
    grad_x = (g - mean(g) - xn * mean(g * xn)) / std; grad_weight = grad_out * xn and grad_bias = grad_out, each summed
    over the rows. Mean and variance are computed again, which takes less than to save them.

    Parameters
    ----------
    grad_out : array_like, the shape of x
        Gradient with respect to the result of `layer_norm`.
    x : array_like, shape (..., length)
        The inputs of the forward pass.
    weight : array_like, shape (length,), optional
        The weights of the forward pass; 1 where it is None.
    eps : float
        That of the forward pass.
    needs : tuple of three bool
        Which of the gradients are computed.

    Returns
    -------
    tuple of ndarray or None
        (grad_x, grad_weight, grad_bias) in the promoted float dtype of the arguments; None where not needed.

    Raises
    ------
    ValueError
        Where the shapes do not fit, eps is negative or not finite, or `needs` has not three members.
    TypeError
        Where an argument is not an array of real numbers, eps no number, or a need not a bool.

    Notes
    -----
    Sums of more than a few terms are accumulated in float64. The error is at most 64 units of the last place of the
    larger of the result and the largest grad_out, where the mean is of the size of the standard deviation and that is
    not small; in float64 that holds for sums of up to some thousand terms.
    """
    grad_out, x, weight, eps, gradients = checks.layer_norm_backward(grad_out, x, weight, eps, needs)
    grad_x, grad_weight, grad_bias = gradients
    length = x.shape[-1]
    rows = (math.prod(x.shape[:-1]), length)
    g, x = grad_out.reshape(rows), x.reshape(rows)
    mean, variance = _moments(x, -1, length)
    scale, deviation = 1 / np.sqrt(variance + eps), x - mean
    return (
        grad_x.fill(
            _input_gradient(g if weight is None else g * weight, deviation, scale, -1, length).reshape(
                grad_out.shape
            )
        )
        if grad_x
        else None,
        grad_weight.fill(_totals((g * (deviation * scale)).T)) if grad_weight else None,
        grad_bias.fill(_totals(g.T)) if grad_bias else None,
    )


def _totals(terms: Array) -> Array:
    """The sum over all axes but the first, in float64, of terms that lie side by side: NumPy adds those in pairs."""
    rows = (terms.shape[0], math.prod(terms.shape[1:]))
    total: Array = np.asarray(np.sum(np.ascontiguousarray(terms).reshape(rows), -1, np.float64))
    return total


def _input_gradient(
    g: Array, deviation: Array, scale: Array, axis: int | tuple[int, ...], count: int
) -> Array:
    """(g - mean(g) - deviation * scale^2 * mean(g * deviation)) * scale, with means along the axes, in float64."""
    count = max(count, 1)
    mean = np.sum(g, axis, np.float64, keepdims=True) / count
    slope = scale * scale * (np.sum(g * deviation, axis, keepdims=True) / count)
    gradient: Array = (g - mean - deviation * slope) * scale
    return gradient


@kernel(
    example=_images,
    options={
        "training": (True, False),
        "momentum": (0.1, 0.75),
        "eps": _EPS,
        "return_stats": (False, True),
    },
    ulp=16,
    floor=1,
    updates=("running_mean", "running_var"),
    results=("y", "mean", "inv_std"),
    workloads=IMAGES,
)
def batch_norm(
    x: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike,
    running_mean: Array,
    running_var: Array,
    *,
    training: bool,
    momentum: float = 0.1,
    eps: float = 1e-5,
    return_stats: bool = False,
    out: Array | None = None,
) -> Array | tuple[Array, Array, Array]:
    """Normalisation of each channel: (x - mean) * inv_std * weight + bias with inv_std = 1 / sqrt(variance + eps).

    Where `training`, mean and variance are those of the channel in this batch, and the running statistics move
    towards them; else they are the running statistics.

    Parameters
    ----------
    x : array_like, shape (N, C, ...)
        Samples of C channels, with any number of further axes, or none.
    weight : array_like, shape (C,)
        What each normalised channel is multiplied by.
    bias : array_like, shape (C,)
        What is added to it then.
    running_mean : ndarray, shape (C,)
        Where `training`, it becomes (1 - momentum) * running_mean + momentum * mean, in place.
    running_var : ndarray, shape (C,)
        Likewise, with the variance of the population that the batch was drawn from: that of the batch times
        count / (count - 1), where count = N * ... is how many values a channel has.
    training : bool
        Whether the statistics of the batch are used.
    momentum : float
        The share of the new statistics in the running ones, from 0 to 1.
    eps : float
        Added to the variance; at least 0.
    return_stats : bool
        Whether the statistics that were used are returned as well, for `batch_norm_backward`.
    out : ndarray, the shape of x, optional
        Written and returned when given; it shares no memory with an argument.

    Returns
    -------
    y : ndarray, the shape of x
        In the promoted float dtype of the arguments.
    mean, inv_std : ndarray, shape (C,)
        Only with `return_stats`.

    Raises
    ------
    ValueError
        Where x has fewer than two dimensions or, where `training`, fewer than two values of a channel; where a shape
        does not fit, momentum or eps is out of its range, `out` does not fit, or a running statistic is read-only
        or shares memory with another argument.
    TypeError
        Where an argument is not an array of real numbers, a running statistic not one of floats to be written, or an
        option not of its type.

    Notes
    -----
    Mean and variance are accumulated in float64, the variance from deviations. Where the mean is of the size of the
    standard deviation, the error is at most 16 units of the last place of the larger of 1 and the result.

    References
    ----------
    Ioffe and Szegedy, "Batch Normalization: Accelerating Deep Network Training by Reducing Internal Covariate Shift",
    2015.
    """
    x, weight, bias, running, training, momentum, eps, y, stats = checks.batch_norm(
        x, weight, bias, running_mean, running_var, training, momentum, eps, return_stats, out
    )
    channels = _channels(x)
    if training:
        count = x.size // max(x.shape[1], 1)
        mean, variance = _moments(channels, (0, 2), count)
        for moving, new in zip(running.arrays, (mean, variance * (count / max(count - 1, 1))), strict=True):
            moving[...] = (1 - momentum) * moving + momentum * new[0, :, 0]
        running.deliver()
    else:
        mean, variance = (array.reshape(1, -1, 1).astype(np.float64) for array in running.arrays)
    inv_std = 1 / np.sqrt(variance + eps)
    values = _normalised(channels, mean, inv_std * weight[:, None], bias[:, None])
    result = y.fill(values.reshape(x.shape))
    if stats is None:
        return result
    return result, stats[0].fill(mean[0, :, 0]), stats[1].fill(inv_std[0, :, 0])


def _channels(x: Array) -> Array:
    """x[N, C, ...] with all places along one axis."""
    return x.reshape(*x.shape[:2], math.prod(x.shape[2:]))


@kernel(
    backward_of="batch_norm",
    options={"needs": _NEEDS},
    ulp=64,
    floor=1,
    workloads=IMAGES,
)
def batch_norm_backward(
    grad_out: ArrayLike,
    x: ArrayLike,
    weight: ArrayLike,
    mean: ArrayLike,
    inv_std: ArrayLike,
    *,
    training: bool,
    needs: Needs = (True, True, True),
) -> tuple[Array | None, Array | None, Array | None]:
    """Gradients of a loss with respect to the x, weight and bias of `batch_norm`.

    With xn = (x - mean) * inv_std and means over the values of a channel,
    grad_x = (grad_out - mean(grad_out) - xn * mean(grad_out * xn)) * inv_std * weight where `training`, and
    grad_out * inv_std * weight where not, since the statistics were constants then. grad_weight = grad_out * xn and
    grad_bias = grad_out, each summed over the values of a channel.

    Parameters
    ----------
    grad_out : array_like, the shape of x
        Gradient with respect to the y of `batch_norm`.
    x : array_like, shape (N, C, ...)
        The inputs of the forward pass.
    weight : array_like, shape (C,)
        The weights of the forward pass.
    mean, inv_std : array_like, shape (C,)
        What `batch_norm` returned with `return_stats`.
    training : bool
        That of the forward pass.
    needs : tuple of three bool
        Which of the gradients are computed.

    Returns
    -------
    tuple of ndarray or None
        (grad_x, grad_weight, grad_bias) in the promoted float dtype of the arguments; None where not needed.

    Raises
    ------
    ValueError
        Where the shapes do not fit or `needs` has not three members.
    TypeError
        Where an argument is not an array of real numbers, or training or a need not a bool.

    Notes
    -----
    Sums of more than a few terms are accumulated in float64. The error is at most 64 units of the last place of the
    larger of the result and the largest grad_out, where the mean is of the size of the standard deviation and that is
    not small; in float64 that holds for sums of up to some thousand terms.
    """
    grad_out, x, weight, mean, inv_std, training, gradients = checks.batch_norm_backward(
        grad_out, x, weight, mean, inv_std, training, needs
    )
    grad_x, grad_weight, grad_bias = gradients
    g, scale = _channels(grad_out), inv_std[:, None].astype(np.float64)
    deviation = _channels(x) - mean[:, None].astype(np.float64)
    count = x.size // max(x.shape[1], 1)
    if grad_x and training:
        values = _input_gradient(g, deviation, scale, (0, 2), count) * weight[:, None]
    else:
        values = g * (scale * weight[:, None])
    return (
        grad_x.fill(values.reshape(x.shape)) if grad_x else None,
        grad_weight.fill(_totals((g * deviation).swapaxes(0, 1)) * inv_std) if grad_weight else None,
        grad_bias.fill(_totals(g.swapaxes(0, 1))) if grad_bias else None,
    )
