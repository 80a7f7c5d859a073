"""2-D convolution by Numba; see `fastnn/conv.py` for what each function is.

A block of windows is written as a matrix of patches, which fits the second-level cache, and multiplied by the
kernels; the gradients of image and kernels are products with the same matrix. With channels first a patch is a column
of the matrix, with channels last a row. A 1x1 convolution reads the image itself as that matrix.
"""

import math

import numpy as np

from fastnn_ext.checks import conv as checks
from fastnn_ext.njit._gemm import matmul
from fastnn_ext.njit._options import njit
from fastnn_ext.njit._tiles import Matrix, offset, pointer, zero
from fastnn_ext.njit._windows import inside
from fastnn_ext.njit.activations import activate

#: Of a block of patches.
_BLOCK_BYTES = 1 << 20


@njit
def _is_image(rows, columns):
    """Whether the patches are the image itself: kernels of one tap that step over every pixel."""
    return (
        rows.taps * columns.taps == 1
        and rows.stride * columns.stride == 1
        and rows.outputs == rows.length
        and columns.outputs == columns.length
    )


@njit
def _block_size(terms, rows, columns, itemsize):
    """How many windows a block has: some rows of them, or a part of one row."""
    most = max(_BLOCK_BYTES // (terms * itemsize), 1)
    if most >= columns.outputs:
        return min(most // columns.outputs, rows.outputs) * columns.outputs
    return most


@njit
def _block_end(at, size, columns):
    """The end of the block that begins at window `at`; parts of a row end where the row does."""
    if size >= columns.outputs:
        return at + size
    return min(at + size, (at // columns.outputs + 1) * columns.outputs)


@njit
def _row_part(at, end, p, columns):
    """The columns first .. last of row p in the block at .. end."""
    first = max(at - p * columns.outputs, 0)
    last = min(end - p * columns.outputs, columns.outputs)
    return first, last


@njit
def _write_planes(x, rows, columns, at, end, patches):
    """patches[(channel, r, s), window] from x[channel, row, column]."""
    line = 0
    for c in range(x.shape[0]):
        for r in range(rows.taps):
            for s in range(columns.taps):
                target = patches[line]
                line += 1
                low, high, source = inside(columns, s)
                for p in range(at // columns.outputs, (end - 1) // columns.outputs + 1):
                    first, last = _row_part(at, end, p, columns)
                    to = target[p * columns.outputs + first - at : p * columns.outputs + last - at]
                    h = p * rows.stride + r * rows.dilation - rows.before
                    if h < 0 or h >= rows.length:
                        to[:] = 0
                        continue
                    a, b = min(max(low, first), last), max(min(high, last), first)
                    to[: a - first] = 0
                    values = x[c, h, source + (a - low) * columns.stride :: columns.stride]
                    for q in range(b - a):
                        to[a - first + q] = values[q]
                    to[max(b, a) - first :] = 0


@njit
def _add_planes(patches, rows, columns, at, end, x):
    """The transpose of `_write_planes`: add each element to where it came from."""
    line = 0
    for c in range(x.shape[0]):
        for r in range(rows.taps):
            for s in range(columns.taps):
                source = patches[line]
                line += 1
                low, high, position = inside(columns, s)
                for p in range(at // columns.outputs, (end - 1) // columns.outputs + 1):
                    h = p * rows.stride + r * rows.dilation - rows.before
                    if h < 0 or h >= rows.length:
                        continue
                    first, last = _row_part(at, end, p, columns)
                    a, b = max(low, first), min(high, last)
                    values = source[p * columns.outputs + a - at :]
                    to = x[c, h, position + (a - low) * columns.stride :: columns.stride]
                    for q in range(b - a):
                        to[q] += values[q]


@njit
def _write_pixels(x, rows, columns, at, end, patches):
    """patches[window, (r, s, channel)] from x[row, column, channel]."""
    channels = x.shape[2]
    for window in range(at, end):
        top = window // columns.outputs * rows.stride - rows.before
        left = window % columns.outputs * columns.stride - columns.before
        target = patches[window - at]
        for r in range(rows.taps):
            h = top + r * rows.dilation
            for s in range(columns.taps):
                w = left + s * columns.dilation
                first = (r * columns.taps + s) * channels
                to = target[first : first + channels]
                if h < 0 or h >= rows.length or w < 0 or w >= columns.length:
                    to[:] = 0
                    continue
                for c in range(channels):
                    to[c] = x[h, w, c]


@njit
def _add_pixels(patches, rows, columns, at, end, x):
    """The transpose of `_write_pixels`."""
    channels = x.shape[2]
    for window in range(at, end):
        top = window // columns.outputs * rows.stride - rows.before
        left = window % columns.outputs * columns.stride - columns.before
        source = patches[window - at]
        for r in range(rows.taps):
            h = top + r * rows.dilation
            if h < 0 or h >= rows.length:
                continue
            for s in range(columns.taps):
                w = left + s * columns.dilation
                if w < 0 or w >= columns.length:
                    continue
                values = source[(r * columns.taps + s) * channels :]
                for c in range(channels):
                    x[h, w, c] += values[c]


@njit
def _forward_planes(x, weight, bias, rows, columns, groups, y):
    """y[n, k, window] = weight[k, terms] patches[terms, window] + bias[k], group by group."""
    windows, terms = rows.outputs * columns.outputs, weight.shape[1]
    channels, kernels = x.shape[1] // groups, weight.shape[0] // groups
    is_image = _is_image(rows, columns)
    size = _block_size(max(terms, 1), rows, columns, x.itemsize)
    patches = np.empty(0 if is_image else terms * size, x.dtype)
    empty = patches[:0]
    for n in range(x.shape[0]):
        for g in range(groups):
            image = x[n, g * channels : (g + 1) * channels]
            a = Matrix(offset(pointer(weight), g * kernels * terms), terms, 1)
            start = Matrix(zero(pointer(weight)), 0, 0)
            if bias.size:
                start = Matrix(offset(pointer(bias), g * kernels), 1, 0)
            target = Matrix(offset(pointer(y), (n * groups + g) * kernels * windows), windows, 1)
            if is_image:
                matmul(kernels, windows, terms, a, Matrix(pointer(image), windows, 1), start, target, empty)
                continue
            at = 0
            while at < windows:
                end = min(_block_end(at, size, columns), windows)
                block = patches[: terms * (end - at)].reshape(terms, end - at)
                _write_planes(image, rows, columns, at, end, block)
                c = Matrix(offset(target.data, at), windows, 1)
                matmul(kernels, end - at, terms, a, Matrix(pointer(block), end - at, 1), start, c, empty)
                at = end


@njit
def _forward_pixels(x, weight, bias, rows, columns, groups, y):
    """y[n, window, k] = patches[window, terms] weight[k, terms] + bias[k], group by group."""
    windows, terms = rows.outputs * columns.outputs, weight.shape[1]
    channels, kernels = x.shape[3] // groups, weight.shape[0] // groups
    is_image = groups == 1 and _is_image(rows, columns)
    size = _block_size(max(terms, 1), rows, columns, x.itemsize)
    patches = np.empty(0 if is_image else terms * size, x.dtype)
    empty = patches[:0]
    for n in range(x.shape[0]):
        for g in range(groups):
            image = x[n, :, :, g * channels : (g + 1) * channels]
            b = Matrix(offset(pointer(weight), g * kernels * terms), 1, terms)
            start = Matrix(zero(pointer(weight)), 0, 0)
            if bias.size:
                start = Matrix(offset(pointer(bias), g * kernels), 0, 1)
            pitch = groups * kernels
            target = Matrix(offset(pointer(y), n * windows * pitch + g * kernels), pitch, 1)
            if is_image:
                matmul(windows, kernels, terms, Matrix(pointer(image), terms, 1), b, start, target, empty)
                continue
            at = 0
            while at < windows:
                end = min(_block_end(at, size, columns), windows)
                block = patches[: terms * (end - at)].reshape(end - at, terms)
                _write_pixels(image, rows, columns, at, end, block)
                c = Matrix(offset(target.data, at * pitch), pitch, 1)
                matmul(end - at, kernels, terms, Matrix(pointer(block), terms, 1), b, start, c, empty)
                at = end


@njit
def _backward_planes(grad_out, x, weight, rows, columns, groups, grad_x, grad_weight):
    """The gradients of image and kernels; an empty one is not wanted."""
    windows, terms = rows.outputs * columns.outputs, weight.shape[1]
    channels, kernels = x.shape[1] // groups, weight.shape[0] // groups
    size = _block_size(max(terms, 1), rows, columns, x.itemsize)
    patches = np.empty(terms * size, x.dtype)
    empty = patches[:0]
    grad_x[:] = 0
    grad_weight[:] = 0
    for n in range(x.shape[0]):
        for g in range(groups):
            inputs = slice(g * channels, (g + 1) * channels)
            w = Matrix(offset(pointer(weight), g * kernels * terms), 1, terms)
            g_w = Matrix(offset(pointer(grad_weight), g * kernels * terms), terms, 1)
            at = 0
            while at < windows:
                end = min(_block_end(at, size, columns), windows)
                count = end - at
                block = patches[: terms * count].reshape(terms, count)
                g_y = Matrix(offset(pointer(grad_out), (n * groups + g) * kernels * windows + at), windows, 1)
                if grad_weight.size:
                    _write_planes(x[n, inputs], rows, columns, at, end, block)
                    matmul(kernels, terms, count, g_y, Matrix(pointer(block), 1, count), g_w, g_w, empty)
                if grad_x.size:
                    c = Matrix(pointer(block), count, 1)
                    matmul(terms, count, kernels, w, g_y, Matrix(zero(c.data), 0, 0), c, empty)
                    _add_planes(block, rows, columns, at, end, grad_x[n, inputs])
                at = end


@njit
def _backward_pixels(grad_out, x, weight, rows, columns, groups, grad_x, grad_weight):
    """The gradients of image and kernels; an empty one is not wanted."""
    windows, terms = rows.outputs * columns.outputs, weight.shape[1]
    channels, kernels = x.shape[3] // groups, weight.shape[0] // groups
    size = _block_size(max(terms, 1), rows, columns, x.itemsize)
    patches = np.empty(terms * size, x.dtype)
    empty = patches[:0]
    pitch = groups * kernels
    grad_x[:] = 0
    grad_weight[:] = 0
    for n in range(x.shape[0]):
        for g in range(groups):
            inputs = slice(g * channels, (g + 1) * channels)
            w = Matrix(offset(pointer(weight), g * kernels * terms), terms, 1)
            g_w = Matrix(offset(pointer(grad_weight), g * kernels * terms), terms, 1)
            at = 0
            while at < windows:
                end = min(_block_end(at, size, columns), windows)
                count = end - at
                block = patches[: terms * count].reshape(count, terms)
                c = Matrix(pointer(block), terms, 1)
                g_y = Matrix(offset(pointer(grad_out), (n * windows + at) * pitch + g * kernels), pitch, 1)
                if grad_weight.size:
                    _write_pixels(x[n, :, :, inputs], rows, columns, at, end, block)
                    matmul(kernels, terms, count, Matrix(g_y.data, 1, pitch), c, g_w, g_w, empty)
                if grad_x.size:
                    matmul(count, terms, kernels, g_y, w, Matrix(zero(c.data), 0, 0), c, empty)
                    _add_pixels(block, rows, columns, at, end, grad_x[n, :, :, inputs])
                at = end


@njit
def _sum_channels(grad_out, sums):
    """Sums of grad_out[n, k, window] over n and window, in float64: there can be millions of terms."""
    for k in range(sums.size):
        total = 0.0
        for n in range(grad_out.shape[0]):
            # Partial sums that do not wait for each other, so that the loop vectorises.
            lanes = np.zeros(16, np.float64)
            windows = grad_out[n, k]
            whole = windows.size // 16 * 16
            for first in range(0, whole, 16):
                for lane in range(16):
                    lanes[lane] += windows[first + lane]
            for i in range(whole, windows.size):
                lanes[0] += windows[i]
            total += lanes.sum()
        sums[k] = total


@njit
def _sum_pixels(grad_out, sums):
    """Sums of grad_out[window, k] over the windows, in float64."""
    total = np.zeros(sums.size, np.float64)
    for window in range(grad_out.shape[0]):
        for k in range(sums.size):
            total[k] += grad_out[window, k]
    for k in range(sums.size):
        sums[k] = total[k]


def _kernels(weight):
    """Kernels as rows of terms, (channel, r, s) or (r, s, channel)."""
    return weight.reshape(weight.shape[0], math.prod(weight.shape[1:]))


def conv2d(
    x,
    weight,
    bias=None,
    *,
    stride=1,
    padding=0,
    dilation=1,
    groups=1,
    activation=None,
    layout="NCHW",
    out=None,
):
    x, weight, bias, rows, columns, groups, activation, channels_last, y = checks.conv2d(
        x, weight, bias, stride, padding, dilation, groups, activation, layout, out
    )
    if y.array.size:
        bias = np.empty(0, x.dtype) if bias is None else bias
        forward = _forward_pixels if channels_last else _forward_planes
        forward(x, _kernels(weight), bias, rows, columns, groups, y.array)
        if activation is not None:
            activate(activation, y.array)
    return y.deliver()


def conv2d_backward(
    grad_out,
    x,
    weight,
    *,
    stride=1,
    padding=0,
    dilation=1,
    groups=1,
    layout="NCHW",
    needs=(True, True, True),
):
    grad_out, x, weight, rows, columns, groups, channels_last, gradients = checks.conv2d_backward(
        grad_out, x, weight, stride, padding, dilation, groups, layout, needs
    )
    for_x, for_weight, for_bias = gradients
    if for_x is not None or for_weight is not None:
        grad_x = np.empty((0, 0, 0, 0), x.dtype) if for_x is None else for_x.array
        grad_weight = np.empty((0, 0), x.dtype) if for_weight is None else _kernels(for_weight.array)
        backward = _backward_pixels if channels_last else _backward_planes
        backward(grad_out, x, _kernels(weight), rows, columns, groups, grad_x, grad_weight)
    if for_bias is not None:
        n, a, b, c = grad_out.shape
        if channels_last:
            _sum_pixels(grad_out.reshape(n * a * b, c), for_bias.array)
        else:
            _sum_channels(grad_out.reshape(n, a, b * c), for_bias.array)
    return tuple(None if gradient is None else gradient.deliver() for gradient in gradients)
