"""2-D pools by Numba; see `fastnn/pooling.py` for what each function is.

With channels first, the inner loops run over the windows of a row, tap by tap; with channels last, over the channels
of a pixel. Images and planes are flattened to three axes, [image or plane, row, column * channel].
"""

import numpy as np

from fastnn_ext.checks import pooling as checks
from fastnn_ext.njit._options import njit
from fastnn_ext.njit._reductions import inlined
from fastnn_ext.njit._windows import first_tap, inside

_STRIP = 4096  # elements of combined rows that are worked on together


@njit
def _larger(value, best):
    """The larger of two numbers; the first NaN if there is one."""
    return best if (value <= best) | (best != best) else value


@njit
def _plus(value, total):
    return total + value


@njit
def _raise(values, best):
    for i in range(best.size):
        best[i] = _larger(values[i], best[i])


@njit
def _raise_with(values, start, step, best, positions):
    for i in range(best.size):
        value = values[i]
        is_larger = (value > best[i]) | ((value != value) & (best[i] == best[i]))
        best[i] = value if is_larger else best[i]
        positions[i] = start + i * step if is_larger else positions[i]


@njit
def _add(values, total):
    for i in range(total.size):
        total[i] += values[i]


def _reduction(combine, identity):
    """y = the windows of [plane, row, column] combined, first by their rows, then by their columns.

    The combined rows stand in a strip of memory, each with what padding counts as behind it and so in front of the
    next one, at a pitch that is a multiple of the stride: the columns of many of them are one long loop, which
    becomes vector code even where an image is narrow.
    """

    @inlined
    def combine_into(values, best, n):
        for i in range(n):
            best[i] = combine(values[i], best[i])

    @inlined
    def combine_steps(values, step, best):
        # Constant steps, and indices that need no wrap-around as they have no sign: so the loops become vector code.
        if step == 1:
            for i in range(best.size):
                best[i] = combine(values[i], best[i])
        elif step == 2:
            for i in range(best.size):
                best[i] = combine(values[np.uintp(2 * i)], best[i])
        else:
            for i in range(best.size):
                best[i] = combine(values[np.uintp(step * i)], best[i])

    @inlined
    def reduce_rows(x, rows, p, best, n):
        top, first = p * rows.stride - rows.before, first_tap(rows, p)
        values = x[top + first * rows.dilation]
        for i in range(n):
            best[i] = values[i]
        for r in range(first + 1, rows.taps):
            h = top + r * rows.dilation
            if h >= rows.length:
                break
            combine_into(x[h], best, n)

    @njit
    def reduce_planes(x, rows, columns, y):
        span = columns.dilation * (columns.taps - 1) + 1
        width = columns.outputs + (span - 1) // columns.stride
        pitch = width * columns.stride
        lines = min(rows.outputs, max(1, _STRIP // pitch))
        length = min(columns.length, pitch - columns.before)
        strip = np.full(lines * pitch + columns.before + span, identity, x.dtype)
        reduced = strip[columns.before : columns.before + lines * pitch].reshape(lines, pitch)
        results = np.empty((lines, width), x.dtype)
        for plane in range(x.shape[0]):
            for start in range(0, rows.outputs, lines):
                count = min(lines, rows.outputs - start)
                for line in range(count):
                    reduce_rows(x[plane], rows, start + line, reduced[line], length)
                best = results[:count].reshape(-1)
                best[:] = identity
                for s in range(columns.taps):
                    combine_steps(strip[s * columns.dilation :], columns.stride, best)
                for line in range(count):
                    for q in range(columns.outputs):
                        y[plane, start + line, q] = results[line, q]

    return reduce_planes


_max_planes = _reduction(_larger, -np.inf)
_sum_planes = _reduction(_plus, 0)


@njit
def _arg_max_planes(x, rows, columns, y, indices):
    width = columns.length
    for plane in range(x.shape[0]):
        for p in range(rows.outputs):
            best, positions = y[plane, p], indices[plane, p]
            best[:] = -np.inf
            top = p * rows.stride - rows.before
            first_row = first_tap(rows, p)
            for q in range(columns.outputs):
                left = q * columns.stride - columns.before + first_tap(columns, q) * columns.dilation
                positions[q] = (top + first_row * rows.dilation) * width + left
            for r in range(first_row, rows.taps):
                h = top + r * rows.dilation
                if h >= rows.length:
                    break
                for s in range(columns.taps):
                    first, end, source = inside(columns, s)
                    values = x[plane, h, source :: columns.stride]
                    start = h * width + source
                    _raise_with(values, start, columns.stride, best[first:end], positions[first:end])


@njit
def _max_pixels(x, channels, rows, columns, y, indices):
    width = columns.length
    for image in range(x.shape[0]):
        for p in range(rows.outputs):
            top, first_row = p * rows.stride - rows.before, first_tap(rows, p)
            for q in range(columns.outputs):
                left, first_column = q * columns.stride - columns.before, first_tap(columns, q)
                best = y[image, p, q * channels : (q + 1) * channels]
                best[:] = -np.inf
                positions = (
                    indices[image, p, q * channels : (q + 1) * channels] if indices.size else indices[0, 0]
                )
                positions[:] = (
                    (top + first_row * rows.dilation) * width + left + first_column * columns.dilation
                )
                for r in range(first_row, rows.taps):
                    h = top + r * rows.dilation
                    if h >= rows.length:
                        break
                    for s in range(first_column, columns.taps):
                        w = left + s * columns.dilation
                        if w >= width:
                            break
                        values = x[image, h, w * channels : (w + 1) * channels]
                        if indices.size:
                            _raise_with(values, h * width + w, 0, best, positions)
                        else:
                            _raise(values, best)


@njit
def _counts(axis, counts_padding):
    """How many elements along one axis each window averages."""
    counts = np.empty(axis.outputs, np.int64)
    for window in range(axis.outputs):
        start = window * axis.stride - axis.before
        if counts_padding:
            counts[window] = min(start + axis.taps, axis.length + axis.after) - start
        else:
            counts[window] = min(start + axis.taps, axis.length) - max(start, 0)
    return counts


@inlined
def _divide(values, divisors):
    for i in range(values.size):
        values[i] /= divisors[i]


@njit
def _avg_planes(x, rows, columns, counts_padding, y):
    _sum_planes(x, rows, columns, y)
    heights, widths = _counts(rows, counts_padding), _counts(columns, counts_padding)
    areas = np.empty(rows.outputs * columns.outputs, x.dtype)
    for p in range(rows.outputs):
        for q in range(columns.outputs):
            areas[p * columns.outputs + q] = heights[p] * widths[q]
    for plane in range(x.shape[0]):
        _divide(y[plane].reshape(-1), areas)


@njit
def _avg_pixels(x, channels, rows, columns, counts_padding, y):
    heights, widths = _counts(rows, counts_padding), _counts(columns, counts_padding)
    for image in range(x.shape[0]):
        for p in range(rows.outputs):
            top = p * rows.stride - rows.before
            for q in range(columns.outputs):
                left = q * columns.stride - columns.before
                total = y[image, p, q * channels : (q + 1) * channels]
                total[:] = 0
                for h in range(max(top, 0), min(top + rows.taps, rows.length)):
                    for w in range(max(left, 0), min(left + columns.taps, columns.length)):
                        _add(x[image, h, w * channels : (w + 1) * channels], total)
                count = x.dtype.type(heights[p] * widths[q])
                for c in range(channels):
                    total[c] /= count


@njit
def _spread_planes(grad_out, rows, columns, counts_padding, grad_x):
    heights, widths = _counts(rows, counts_padding), _counts(columns, counts_padding)
    line = np.empty(columns.length, grad_x.dtype)
    share = np.empty(columns.outputs, grad_x.dtype)
    grad_x[:] = 0
    for plane in range(grad_x.shape[0]):
        for p in range(rows.outputs):
            for q in range(columns.outputs):
                share[q] = grad_out[plane, p, q] / grad_x.dtype.type(heights[p] * widths[q])
            line[:] = 0
            for s in range(columns.taps):
                first, end, source = inside(columns, s)
                for i in range(end - first):
                    line[source + i * columns.stride] += share[first + i]
            top = p * rows.stride - rows.before
            for h in range(max(top, 0), min(top + rows.taps, rows.length)):
                _add(line, grad_x[plane, h])


@njit
def _spread_pixels(grad_out, channels, rows, columns, counts_padding, grad_x):
    heights, widths = _counts(rows, counts_padding), _counts(columns, counts_padding)
    share = np.empty(channels, grad_x.dtype)
    grad_x[:] = 0
    for image in range(grad_x.shape[0]):
        for p in range(rows.outputs):
            top = p * rows.stride - rows.before
            for q in range(columns.outputs):
                left = q * columns.stride - columns.before
                count = grad_x.dtype.type(heights[p] * widths[q])
                for c in range(channels):
                    share[c] = grad_out[image, p, q * channels + c] / count
                for h in range(max(top, 0), min(top + rows.taps, rows.length)):
                    for w in range(max(left, 0), min(left + columns.taps, columns.length)):
                        _add(share, grad_x[image, h, w * channels : (w + 1) * channels])


@njit
def _scatter(grad_out, indices, channels, grad_x):
    """Add each window's gradient at its maximum; [image or plane, window or pixel, channel]."""
    grad_x[:] = 0
    for one in range(grad_x.shape[0]):
        for i in range(grad_out.shape[1]):
            for c in range(channels):
                grad_x[one, indices[one, i, c], c] += grad_out[one, i, c]


def _flat(images, channels_last):
    """[image, row, column * channel], or [plane, row, column]."""
    n, a, b, c = images.shape
    return images.reshape(n, a, b * c) if channels_last else images.reshape(n * a, b, c)


def _wrapped(images, channels_last):
    """[image, pixel, channel], or [plane, pixel, 1]."""
    n, a, b, c = images.shape
    return images.reshape(n, a * b, c) if channels_last else images.reshape(n * a, b * c, 1)


_NO_INDICES = np.empty((1, 1, 0), np.int64)


def max_pool2d(
    x,
    kernel_size,
    *,
    stride=None,
    padding=0,
    dilation=1,
    ceil_mode=False,
    layout="NCHW",
    return_indices=False,
    out=None,
):
    x, rows, columns, channels_last, y, indices = checks.max_pool2d(
        x, kernel_size, stride, padding, dilation, ceil_mode, layout, return_indices, out
    )
    positions = _NO_INDICES if indices is None else _flat(indices, channels_last)
    images, result = _flat(x, channels_last), _flat(y.array, channels_last)
    if channels_last:
        _max_pixels(images, x.shape[3], rows, columns, result, positions)
    elif indices is None:
        _max_planes(images, rows, columns, result)
    else:
        _arg_max_planes(images, rows, columns, result, positions)
    return y.deliver() if indices is None else (y.deliver(), indices)


def max_pool2d_backward(grad_out, indices, input_shape, *, layout="NCHW", out=None):
    grad_out, indices, channels_last, grad_x = checks.max_pool2d_backward(
        grad_out, indices, input_shape, layout, out
    )
    channels = grad_x.array.shape[3] if channels_last else 1
    gradients, positions, target = (_wrapped(one, channels_last) for one in (grad_out, indices, grad_x.array))
    _scatter(gradients, positions, channels, target)
    return grad_x.deliver()


def avg_pool2d(
    x,
    kernel_size,
    *,
    stride=None,
    padding=0,
    ceil_mode=False,
    count_include_pad=True,
    layout="NCHW",
    out=None,
):
    x, rows, columns, counts_padding, channels_last, y = checks.avg_pool2d(
        x, kernel_size, stride, padding, ceil_mode, count_include_pad, layout, out
    )
    images, result = _flat(x, channels_last), _flat(y.array, channels_last)
    if channels_last:
        _avg_pixels(images, x.shape[3], rows, columns, counts_padding, result)
    else:
        _avg_planes(images, rows, columns, counts_padding, result)
    return y.deliver()


def avg_pool2d_backward(
    grad_out,
    input_shape,
    kernel_size,
    *,
    stride=None,
    padding=0,
    ceil_mode=False,
    count_include_pad=True,
    layout="NCHW",
    out=None,
):
    grad_out, rows, columns, counts_padding, channels_last, grad_x = checks.avg_pool2d_backward(
        grad_out, input_shape, kernel_size, stride, padding, ceil_mode, count_include_pad, layout, out
    )
    gradients, target = _flat(grad_out, channels_last), _flat(grad_x.array, channels_last)
    if channels_last:
        _spread_pixels(gradients, grad_x.array.shape[3], rows, columns, counts_padding, target)
    else:
        _spread_planes(gradients, rows, columns, counts_padding, target)
    return grad_x.deliver()
