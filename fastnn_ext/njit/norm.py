"""Normalisations by Numba; see `fastnn/norm.py` for what each function is.

Statistics are added up as in `_reductions.py`. Parameters that are not there are arrays without elements. A gradient
that is not wanted is not computed: its array has no elements either.
"""

import math

import numpy as np

from fastnn_ext.checks import norm as checks
from fastnn_ext.njit._options import njit
from fastnn_ext.njit._reductions import PIECE, add, inlined, reordered, sum_of

_NONE = {np.dtype(dtype): np.empty(0, dtype) for dtype in (np.float32, np.float64)}


@reordered
def _squares_of_piece(x, center):
    total = 0.0
    for i in range(x.size):
        total += (x[i] - center) * (x[i] - center)
    return total


@reordered
def _products_of_piece(g, x, center):
    """The sum of g, and that of g * (x - center)."""
    total, product = 0.0, 0.0
    for i in range(g.size):
        total += g[i]
        product += g[i] * (x[i] - center)
    return total, product


@njit
def _squares_of(x, center):
    total, excess = 0.0, 0.0
    for start in range(0, x.size, PIECE):
        total, excess = add(total, excess, _squares_of_piece(x[start : start + PIECE], center))
    return total


@njit
def _products_of(g, x, center):
    total, excess, product, product_excess = 0.0, 0.0, 0.0, 0.0
    for start in range(0, g.size, PIECE):
        end = start + PIECE
        part, product_part = _products_of_piece(g[start:end], x[start:end], center)
        total, excess = add(total, excess, part)
        product, product_excess = add(product, product_excess, product_part)
    return total, product


@inlined
def _normalise(x, y, mean, scale, shift):
    for i in range(x.size):
        y[i] = (x[i] - mean) * scale + shift


@inlined
def _propagate(g, x, grad, mean, mean_g, slope, scale):
    """The gradient of x from that of the normalised x, less what the statistics take away."""
    for i in range(g.size):
        grad[i] = (g[i] - mean_g - (x[i] - mean) * slope) * scale


# ----------------------------------------------------------------------------------------------------
# Rows


@njit
def _statistics_of(x, eps):
    mean = sum_of(x) / x.size
    return mean, 1 / math.sqrt(_squares_of(x, mean) / x.size + eps)


@njit
def _normalise_rows(x, weight, bias, eps, y):
    real = x.dtype.type
    for row in range(x.shape[0] if x.shape[1] else 0):
        source, target = x[row], y[row]
        mean, inv_std = _statistics_of(source, eps)
        center, scale = real(mean), real(inv_std)
        if weight.size == 0 and bias.size == 0:
            _normalise(source, target, center, scale, real(0))
        elif bias.size == 0:
            for i in range(source.size):
                target[i] = (source[i] - center) * (scale * weight[i])
        elif weight.size == 0:
            for i in range(source.size):
                target[i] = (source[i] - center) * scale + bias[i]
        else:
            for i in range(source.size):
                target[i] = (source[i] - center) * (scale * weight[i]) + bias[i]


@njit
def _propagate_rows(g, x, weight, eps, grad_x, grad_weight, grad_bias):
    real, length = x.dtype.type, x.shape[1]
    weight_sums, weight_excess = np.zeros(grad_weight.size), np.zeros(grad_weight.size)
    bias_sums, bias_excess = np.zeros(grad_bias.size), np.zeros(grad_bias.size)
    weighted = np.empty(weight.size, x.dtype)
    for row in range(x.shape[0] if length else 0):
        source, gradient = x[row], g[row]
        mean, inv_std = _statistics_of(source, eps)
        center, scale = real(mean), real(inv_std)
        for i in range(weight_sums.size):
            term = gradient[i] * ((source[i] - center) * scale)
            weight_sums[i], weight_excess[i] = add(weight_sums[i], weight_excess[i], term)
        for i in range(bias_sums.size):
            bias_sums[i], bias_excess[i] = add(bias_sums[i], bias_excess[i], gradient[i])
        if grad_x.size:
            for i in range(weight.size):
                weighted[i] = gradient[i] * weight[i]
            inner = weighted if weight.size else gradient
            total, product = _products_of(inner, source, mean)
            slope = real(inv_std * inv_std * (product / length))
            _propagate(inner, source, grad_x[row], center, real(total / length), slope, scale)
    for i in range(weight_sums.size):
        grad_weight[i] = weight_sums[i]
    for i in range(bias_sums.size):
        grad_bias[i] = bias_sums[i]


def _rows(array):
    return array.reshape(math.prod(array.shape[:-1]), array.shape[-1])


def _or_none(array, dtype):
    return _NONE[dtype] if array is None else array


def layer_norm(x, weight=None, bias=None, *, eps=1e-5, out=None):
    x, weight, bias, eps, output = checks.layer_norm(x, weight, bias, eps, out)
    parameters = _or_none(weight, x.dtype), _or_none(bias, x.dtype)
    _normalise_rows(_rows(x), *parameters, eps, _rows(output.array))
    return output.deliver()


def layer_norm_backward(grad_out, x, weight=None, *, eps=1e-5, needs=(True, True, True)):
    grad_out, x, weight, eps, outputs = checks.layer_norm_backward(grad_out, x, weight, eps, needs)
    arrays = [_NONE[x.dtype] if output is None else output.array for output in outputs]
    grad_x = _rows(arrays[0]) if outputs[0] else _NONE[x.dtype].reshape(0, 0)
    _propagate_rows(_rows(grad_out), _rows(x), _or_none(weight, x.dtype), eps, grad_x, *arrays[1:])
    return tuple(None if output is None else output.deliver() for output in outputs)


# ----------------------------------------------------------------------------------------------------
# Channels, x[sample, channel, place]


@njit
def _batch_statistics(x, channel):
    """Mean and variance of a channel."""
    count = x.shape[0] * x.shape[2]
    total, excess = 0.0, 0.0
    for sample in range(x.shape[0]):
        total, excess = add(total, excess, sum_of(x[sample, channel]))
    mean = total / count
    total, excess = 0.0, 0.0
    for sample in range(x.shape[0]):
        total, excess = add(total, excess, _squares_of(x[sample, channel], mean))
    return mean, total / count


@njit
def _statistics_of_columns(x):
    """Mean and variance of each column of x[sample, channel]."""
    samples, channels = x.shape
    total, excess, mean = np.zeros(channels), np.zeros(channels), np.zeros(channels)
    for sample in range(samples):
        for channel in range(channels):
            total[channel], excess[channel] = add(total[channel], excess[channel], x[sample, channel])
    for channel in range(channels):
        mean[channel] = total[channel] / samples
    total[:], excess[:] = 0, 0
    for sample in range(samples):
        for channel in range(channels):
            deviation = x[sample, channel] - mean[channel]
            total[channel], excess[channel] = add(total[channel], excess[channel], deviation * deviation)
    return mean, total / samples


@njit
def _statistics_of_channels(x):
    if x.shape[2] == 1:
        return _statistics_of_columns(x[:, :, 0])
    mean, variance = np.empty(x.shape[1]), np.empty(x.shape[1])
    for channel in range(x.shape[1]):
        mean[channel], variance[channel] = _batch_statistics(x, channel)
    return mean, variance


@njit
def _normalise_channels(x, weight, bias, mean, inv_std, y):
    samples, channels, places = x.shape
    center, scale = mean.astype(x.dtype), (inv_std * weight).astype(x.dtype)
    for sample in range(samples):
        if places == 1:
            source, target = x[sample, :, 0], y[sample, :, 0]
            for channel in range(channels):
                target[channel] = (source[channel] - center[channel]) * scale[channel] + bias[channel]
        else:
            for channel in range(channels):
                source, target = x[sample, channel], y[sample, channel]
                _normalise(source, target, center[channel], scale[channel], bias[channel])


@njit
def _move(running, momentum, new):
    for channel in range(running.size):
        running[channel] = (1 - momentum) * running[channel] + momentum * new[channel]


@njit
def _train(x, running_mean, running_var, momentum, eps):
    """Mean and 1 / std of each channel, towards which the running statistics move."""
    count = x.shape[0] * x.shape[2]
    mean, variance = _statistics_of_channels(x)
    for channel in range(mean.size):
        population = variance[channel] * (count / (count - 1))
        running_mean[channel] = (1 - momentum) * running_mean[channel] + momentum * mean[channel]
        running_var[channel] = (1 - momentum) * running_var[channel] + momentum * population
    return mean, 1 / np.sqrt(variance + eps)


@njit
def _totals_of_channels(g, x, mean):
    """For each channel the sum of g, and that of g * (x - mean)."""
    samples, channels, places = x.shape
    total, excess = np.zeros(channels), np.zeros(channels)
    product, product_excess = np.zeros(channels), np.zeros(channels)
    center = mean.astype(np.float64)
    for sample in range(samples):
        for channel in range(channels):
            if places == 1:
                part = np.float64(g[sample, channel, 0])
                product_part = part * (x[sample, channel, 0] - center[channel])
            else:
                part, product_part = _products_of(g[sample, channel], x[sample, channel], center[channel])
            total[channel], excess[channel] = add(total[channel], excess[channel], part)
            product[channel], product_excess[channel] = add(
                product[channel], product_excess[channel], product_part
            )
    return total, product


@njit
def _scale(g, grad, factor):
    for i in range(g.size):
        grad[i] = g[i] * factor


@njit
def _batch_norm_backward(g, x, weight, mean, inv_std, training, grad_x, grad_weight, grad_bias):
    real, count = x.dtype.type, x.shape[0] * x.shape[2]
    std = inv_std.astype(np.float64)
    total, product = _totals_of_channels(g, x, mean)
    for channel in range(grad_weight.size):
        grad_weight[channel] = product[channel] * std[channel]
    for channel in range(grad_bias.size):
        grad_bias[channel] = total[channel]
    for sample in range(x.shape[0] if grad_x.size else 0):
        for channel in range(x.shape[1]):
            gradient, target = g[sample, channel], grad_x[sample, channel]
            scale = real(std[channel] * weight[channel])
            if training:
                mean_g = real(total[channel] / count)
                slope = real(std[channel] * std[channel] * (product[channel] / count))
                _propagate(gradient, x[sample, channel], target, mean[channel], mean_g, slope, scale)
            else:
                _scale(gradient, target, scale)


def _channels(array):
    """A plain array [N, C, ...] with all places along one axis."""
    return array.reshape(*array.shape[:2], math.prod(array.shape[2:]))


def batch_norm(
    x,
    weight,
    bias,
    running_mean,
    running_var,
    *,
    training,
    momentum=0.1,
    eps=1e-5,
    return_stats=False,
    out=None,
):
    x, weight, bias, running, training, momentum, eps, output, stats = checks.batch_norm(
        x, weight, bias, running_mean, running_var, training, momentum, eps, return_stats, out
    )
    if training:
        mean, inv_std = _train(_channels(x), *running.arrays, momentum, eps)
        running.deliver()
    else:
        mean, variance = (array.astype(np.float64) for array in running.arrays)
        inv_std = 1 / np.sqrt(variance + eps)
    _normalise_channels(_channels(x), weight, bias, mean, inv_std, _channels(output.array))
    if stats is None:
        return output.deliver()
    return output.deliver(), stats[0].fill(mean), stats[1].fill(inv_std)


def batch_norm_backward(grad_out, x, weight, mean, inv_std, *, training, needs=(True, True, True)):
    grad_out, x, weight, mean, inv_std, training, outputs = checks.batch_norm_backward(
        grad_out, x, weight, mean, inv_std, training, needs
    )
    arrays = [_NONE[x.dtype] if output is None else output.array for output in outputs]
    grad_x = _channels(arrays[0]) if outputs[0] else _NONE[x.dtype].reshape(0, 0, 0)
    _batch_norm_backward(
        _channels(grad_out), _channels(x), weight, mean, inv_std, training, grad_x, *arrays[1:]
    )
    return tuple(None if output is None else output.deliver() for output in outputs)
