"""2-D convolution by Numba; see `fastnn/conv.py` for what each function is.

Every pass is a product of matrices whose terms are read where they lie in an image: none is copied next to the
terms of its window. Only the image is copied, into a frame of zeros that takes the place of the padding, and in bands
of rows that stay in the second-level cache. With channels first, kernels are the rows of a product and the windows
of a line its columns; with channels last it is the other way round. The gradient of the image has the same form
with the gradient of the output in the frame, once for each phase of the strides, since only every so many taps
meet there. The gradient of the kernels sums over windows.
"""

import math

import numpy as np

from fastnn_ext.checks import conv as checks
from fastnn_ext.njit._frames import (
    SLACK,
    backward_lines,
    band_of,
    comb,
    copy,
    fill_pixels,
    fill_pixels_from_planes,
    fill_planes,
    is_in_place,
    new_frame,
    places,
    reach_of,
    steps,
    sums,
)
from fastnn_ext.njit._gemm import internal, matmul, matmul_nn, matmul_nt, matmul_tn, multiply_lines
from fastnn_ext.njit._options import njit
from fastnn_ext.njit._tiles import (
    DOT_COLUMNS,
    DOT_ROWS,
    MASKED_LOADS,
    ONE_ROW_COLUMNS,
    VECTOR_BYTES,
    Matrix,
    dot_tile,
    offset,
    pointer,
    zero,
)
from fastnn_ext.njit._windows import inside
from fastnn_ext.njit.activations import activate

# Fewer channels than this in a group fill vectors too badly for sums of outer products.
_FEW_CHANNELS = 8


@internal
def _is_narrow(outputs, pitch, terms, itemsize):
    """Whether one run over all lines, with what it computes between them, costs less than line by line.

    Lines waste a part of their last vector, and short ones the reading of the weights; the results of a run are
    copied, which takes the time of some terms.
    """
    lanes = VECTOR_BYTES // itemsize
    whole = -(-outputs // lanes) * lanes
    return 8 * pitch * (terms + 8) < 9 * whole * terms


@internal
def _put(block, lines, pitch, target, at, plane, line, step, outputs):
    """target[at + c * plane + i * line + j * step] = block[c, i * pitch + j], for a flat target."""
    flat = block.reshape(-1)
    for c in range(block.shape[0]):
        for i in range(lines):
            to = at + c * plane + i * line
            copy(flat, c * block.shape[1] + i * pitch, 1, target, to, step, outputs)


# ----------------------------------------------------------------------------------------------------
# Channels first


@internal
def _correlate_planes(shape, a, a_runs, b, b_runs, pitch, start, target, at, plane, line, step):
    """Lines of products, put into a flat target as in `_put`; shape is (lines, rows, columns, depth)."""
    lines, rows, columns, depth = shape
    itemsize = target.itemsize
    narrow = lines > 1 and _is_narrow(columns, pitch, a_runs.size * depth, itemsize)
    if step == 1 and not narrow:
        c = Matrix(offset(pointer(target), at), plane, 1)
        product = rows, columns, depth
        multiply_lines(lines, product, a, 0, b, pitch, a_runs, b_runs, start, 0, c, line, itemsize)
        return
    if narrow:
        # All lines as one: between them it computes what nobody asked for.
        together, c_pitch = (lines - 1) * pitch + columns, pitch
        block = np.empty((rows, together), target.dtype)
        product, count = (rows, together, depth), 1
    else:
        c_pitch = columns
        block = np.empty((rows, lines * columns), target.dtype)
        product, count = (rows, columns, depth), lines
    c = Matrix(pointer(block), block.shape[1], 1)
    multiply_lines(count, product, a, 0, b, pitch, a_runs, b_runs, start, 0, c, c_pitch, itemsize)
    _put(block, lines, c_pitch, target, at, plane, line, step, columns)


@njit
def _forward_planes(x, weight, bias, rows, columns, groups, y):
    """y[n, k, p, q] = weight[k, terms] patches[terms, (p, q)] + bias[k], group by group."""
    kernels, terms, channels = weight.shape[0] // groups, weight.shape[1], x.shape[1] // groups
    taps, windows = rows.taps * columns.taps, rows.outputs * columns.outputs
    reach, pitch = reach_of(rows), columns.outputs + reach_of(columns)
    in_place = (
        MASKED_LOADS
        and rows.stride * columns.stride == 1
        and is_in_place(rows.length, rows.before, rows.outputs + reach)
        and is_in_place(columns.length, columns.before, pitch)
    )
    if in_place:
        pitch, height, band = columns.length, rows.length, rows.outputs
    else:
        widest = max(x.shape[1] * rows.stride * columns.stride, weight.shape[0])
        band = band_of(rows.outputs, reach, widest * pitch * x.itemsize)
        height = band + reach
    phase = height * pitch
    frame_shape = (0 if in_place else x.shape[1], rows.stride, columns.stride, height, pitch)
    frame = new_frame(frame_shape, pitch, x)
    plane = phase * rows.stride * columns.stride
    row_places = places(rows, phase * columns.stride, pitch)
    column_places = places(columns, phase, 1)
    if columns.taps > 1 and columns.dilation % columns.stride == 0:
        depth, a_col, b_row = columns.taps, 1, columns.dilation // columns.stride
        a_runs = steps(channels * rows.taps, columns.taps)
        b_runs = sums(steps(channels, plane), row_places)
    else:
        depth, a_col, b_row = channels, taps, plane
        a_runs, b_runs = steps(taps, 1), sums(row_places, column_places)
    flat = y.reshape(-1)
    for n in range(x.shape[0]):
        for first in range(0, rows.outputs, band):
            lines = min(band, rows.outputs - first)
            image = x[n]
            data = pointer(image)
            if not in_place:
                top = first * rows.stride - rows.before
                fill_planes(image, top, -columns.before, rows.stride, columns.stride, frame)
                data = pointer(frame)
            for g in range(groups):
                a = Matrix(offset(pointer(weight), g * kernels * terms), terms, a_col)
                b = Matrix(offset(data, g * channels * plane), b_row, 1)
                start = Matrix(zero(pointer(weight)), 0, 0)
                if bias.size:
                    start = Matrix(offset(pointer(bias), g * kernels), 1, 0)
                at = (n * groups + g) * kernels * windows + first * columns.outputs
                shape = lines, kernels, columns.outputs, depth
                _correlate_planes(
                    shape, a, a_runs, b, b_runs, pitch, start, flat, at, windows, columns.outputs, 1
                )


@njit
def _image_gradient_planes(grad_out, weight, rows, columns, groups, grad_x):
    """The gradient of the image; `weight` is [group, channel, kernel, r, s]."""
    channels, kernels = weight.shape[1:3]
    taps = rows.taps * columns.taps
    size = rows.length * columns.length
    top, lines = backward_lines(rows)
    left, pitch = backward_lines(columns)
    reach, pitch = reach_of(rows), pitch + reach_of(columns)
    band = band_of(lines, reach, max(grad_out.shape[1], grad_x.shape[1]) * pitch * grad_x.itemsize)
    plane = (band + reach) * pitch
    frame = new_frame((grad_out.shape[1], 1, 1, band + reach, pitch), pitch, grad_x)
    start = Matrix(zero(pointer(grad_x)), 0, 0)
    flat = grad_x.reshape(-1)
    for n in range(grad_x.shape[0]):
        for first in range(0, lines, band):
            fill_planes(grad_out[n], top + first, left, 1, 1, frame)
            for u in range(rows.stride):
                below = comb(rows, u)
                low, high = max(first, below.line), min(first + band, below.line + below.outputs)
                for v in range(columns.stride):
                    across = comb(columns, v)
                    if low >= high or across.outputs == 0:
                        continue
                    r_steps = steps(below.taps, below.tap_step * columns.taps)
                    r_places = steps(below.taps, -below.place_step * pitch)
                    a_runs = sums(steps(kernels, taps), r_steps)
                    b_runs = sums(steps(kernels, plane), r_places)
                    tap = below.tap * columns.taps + across.tap
                    place = (low - first + below.place) * pitch + across.line + across.place
                    at = (below.start + (low - below.line) * rows.stride) * columns.length + across.start
                    for g in range(groups):
                        a = Matrix(
                            offset(pointer(weight), g * channels * kernels * taps + tap),
                            kernels * taps,
                            across.tap_step,
                        )
                        b = Matrix(offset(pointer(frame), g * kernels * plane + place), -across.place_step, 1)
                        image = (n * groups + g) * channels * size
                        shape = high - low, channels, across.outputs, across.taps
                        line = rows.stride * columns.length
                        _correlate_planes(
                            shape, a, a_runs, b, b_runs, pitch, start, flat, image + at, size, line,
                            columns.stride,
                        )  # fmt: skip


# ----------------------------------------------------------------------------------------------------
# Channels last


@njit
def _forward_pixels(x, weight, bias, rows, columns, groups, y):
    """y[n, p, q, k] = patches[(p, q), terms] weight[terms, k] + bias[k]; `weight` is [group, terms, kernel]."""
    terms, kernels = weight.shape[1:]
    pixel, channels = x.shape[3], x.shape[3] // groups
    height = (rows.outputs - 1) * rows.stride + rows.dilation * (rows.taps - 1) + 1
    width = (columns.outputs - 1) * columns.stride + columns.dilation * (columns.taps - 1) + 1
    in_place = is_in_place(rows.length, rows.before, height) and is_in_place(
        columns.length, columns.before, width
    )
    band = rows.outputs
    if in_place:
        width = columns.length
    else:
        overlap = rows.dilation * (rows.taps - 1) // rows.stride
        band = band_of(rows.outputs, overlap, rows.stride * width * pixel * x.itemsize)
        height = (band - 1) * rows.stride + rows.dilation * (rows.taps - 1) + 1
    line = width * pixel
    frame = new_frame((0 if in_place else height, width, pixel), line, x)
    r_places = steps(rows.taps, rows.dilation * line)
    if groups == 1 and columns.dilation == 1:
        depth, a_runs = columns.taps * channels, r_places
    else:
        depth, a_runs = channels, sums(r_places, steps(columns.taps, columns.dilation * pixel))
    b_runs = steps(a_runs.size, depth * kernels)
    pitch = groups * kernels
    for n in range(x.shape[0]):
        for first in range(0, rows.outputs, band):
            lines = min(band, rows.outputs - first)
            image = x[n]
            data = pointer(image)
            if not in_place:
                fill_pixels(image, first * rows.stride - rows.before, -columns.before, frame)
                data = pointer(frame)
            for g in range(groups):
                a = Matrix(offset(data, g * channels), columns.stride * pixel, 1)
                b = Matrix(offset(pointer(weight), g * terms * kernels), kernels, 1)
                start = Matrix(zero(pointer(weight)), 0, 0)
                if bias.size:
                    start = Matrix(offset(pointer(bias), g * kernels), 0, 1)
                at = (n * rows.outputs + first) * columns.outputs * pitch + g * kernels
                c = Matrix(offset(pointer(y), at), pitch, 1)
                shape = columns.outputs, kernels, depth
                multiply_lines(
                    lines, shape, a, rows.stride * line, b, 0, a_runs, b_runs, start, 0, c,
                    columns.outputs * pitch, y.itemsize,
                )  # fmt: skip


@njit
def _image_gradient_pixels(grad_out, weight, rows, columns, groups, grad_x):
    """The gradient of the image; `weight` is [kernel, (r, s, channel)]."""
    pixel, channels = grad_x.shape[3], grad_x.shape[3] // groups
    depth, kernels = weight.shape[0] // groups, grad_out.shape[3]
    terms = weight.shape[1]
    top, lines = backward_lines(rows)
    left, width = backward_lines(columns)
    reach, width = reach_of(rows), width + reach_of(columns)
    line = width * kernels
    band = band_of(lines, reach, line * grad_x.itemsize)
    frame = new_frame((band + reach, width, kernels), line, grad_x)
    start = Matrix(zero(pointer(grad_x)), 0, 0)
    for n in range(grad_x.shape[0]):
        for first in range(0, lines, band):
            fill_pixels(grad_out[n], top + first, left, frame)
            for u in range(rows.stride):
                below = comb(rows, u)
                low, high = max(first, below.line), min(first + band, below.line + below.outputs)
                for v in range(columns.stride):
                    across = comb(columns, v)
                    if low >= high or across.outputs == 0:
                        continue
                    a_runs = sums(
                        steps(below.taps, -below.place_step * line),
                        steps(across.taps, -across.place_step * kernels),
                    )
                    b_runs = sums(
                        steps(below.taps, below.tap_step * columns.taps * channels),
                        steps(across.taps, across.tap_step * channels),
                    )
                    place = (low - first + below.place) * line + (across.line + across.place) * kernels
                    tap = (below.tap * columns.taps + across.tap) * channels
                    h = below.start + (low - below.line) * rows.stride
                    at = ((n * rows.length + h) * columns.length + across.start) * pixel
                    for g in range(groups):
                        a = Matrix(offset(pointer(frame), place + g * depth), kernels, 1)
                        b = Matrix(offset(pointer(weight), g * depth * terms + tap), terms, 1)
                        c = Matrix(offset(pointer(grad_x), at + g * channels), columns.stride * pixel, 1)
                        shape = across.outputs, channels, depth
                        multiply_lines(
                            high - low, shape, a, line, b, 0, a_runs, b_runs, start, 0, c,
                            rows.stride * columns.length * pixel, grad_x.itemsize,
                        )  # fmt: skip


# ----------------------------------------------------------------------------------------------------
# The gradient of the kernels


@njit
def _add_kernel_gradient(grad_out, x, channels_last, rows, columns, groups, grad_weight):
    """Add to grad_weight[kernel, r, s, channel], from either layout of the images."""
    pixel = x.shape[3] if channels_last else x.shape[1]
    total = grad_weight.shape[0]
    kernels, channels = total // groups, grad_weight.shape[3]
    windows = rows.outputs * columns.outputs
    span = rows.dilation * (rows.taps - 1) + 1
    width = (columns.outputs - 1) * columns.stride + columns.dilation * (columns.taps - 1) + 1
    band = band_of(rows.outputs, (span - 1) // rows.stride, rows.stride * width * pixel * x.itemsize)
    line = width * pixel
    frame = new_frame(((band - 1) * rows.stride + span, width, pixel), line, x)
    a_row, a_col = (1, total) if channels_last else (windows, 1)
    a_runs = steps(rows.outputs, columns.outputs * a_col)
    b_runs = steps(rows.outputs, rows.stride * line)
    # The taps of a row lie next to each other if nothing comes between them.
    whole = groups == 1 and columns.dilation == 1
    pieces, length = (1, columns.taps * channels) if whole else (columns.taps, channels)
    for n in range(x.shape[0]):
        for first in range(0, rows.outputs, band):
            lines = min(band, rows.outputs - first)
            top = first * rows.stride - rows.before
            if channels_last:
                fill_pixels(x[n], top, -columns.before, frame)
            else:
                fill_pixels_from_planes(x[n], top, -columns.before, frame)
            for g in range(groups):
                at = (
                    (n * windows + first * columns.outputs) * a_col
                    if channels_last
                    else (n * total * windows + first * columns.outputs)
                )
                a = Matrix(offset(pointer(grad_out), at + g * kernels * a_row), a_row, a_col)
                for s in range(pieces):
                    b = Matrix(
                        offset(pointer(frame), s * columns.dilation * pixel + g * channels),
                        columns.stride * pixel,
                        1,
                    )
                    target = g * kernels * rows.taps * columns.taps * channels + s * channels
                    c = Matrix(offset(pointer(grad_weight), target), rows.taps * columns.taps * channels, 1)
                    shape = kernels, length, columns.outputs
                    c_line = columns.taps * channels
                    multiply_lines(
                        rows.taps, shape, a, 0, b, rows.dilation * line, a_runs[:lines], b_runs[:lines],
                        c, c_line, c, c_line, x.itemsize,
                    )  # fmt: skip


@njit
def _kernel_gradient_dots(grad_out, x, rows, columns, groups, grad_weight):
    """Add to grad_weight[kernel, channel, r, s], with channels first and a column stride of 1."""
    kernels, channels = grad_weight.shape[0] // groups, grad_weight.shape[1]
    height = (rows.outputs - 1) * rows.stride + rows.dilation * (rows.taps - 1) + 1
    width = columns.outputs + columns.dilation * (columns.taps - 1)
    frame = new_frame((1, 1, 1, height, width), width, x)
    tallest = 1 if kernels == 1 else DOT_ROWS
    for n in range(x.shape[0]):
        for c in range(x.shape[1]):
            fill_planes(x[n, c : c + 1], -rows.before, -columns.before, 1, 1, frame)
            for k in range(0, kernels, tallest):
                high = min(tallest, kernels - k)
                first = c // channels * kernels + k
                for r in range(rows.taps):
                    source = frame[0, 0, 0, r * rows.dilation :: rows.stride]
                    gradients = grad_out[n, first : first + high]
                    _add_dots(gradients, source, columns, grad_weight[first : first + high, c % channels, r])


@internal
def _add_dots(gradients, source, columns, sums):
    """sums[k, s] += dots of gradients[k, p] and what tap s meets of the lines source[p], over all p."""
    height, lines, outputs = gradients.shape
    widest = ONE_ROW_COLUMNS if height == 1 else DOT_COLUMNS
    for s in range(0, columns.taps, widest):
        shape = height, min(widest, columns.taps - s), outputs
        target = Matrix(offset(pointer(sums), s), sums.strides[0] // sums.itemsize, 1)
        for p in range(lines):
            a = Matrix(offset(pointer(gradients), p * outputs), lines * outputs, 1)
            b_at = p * (source.strides[0] // source.itemsize) + s * columns.dilation
            dot_tile(shape, a, Matrix(offset(pointer(source), b_at), columns.dilation, 1), target, target)


# ----------------------------------------------------------------------------------------------------
# Kernels of one tap, for which the image itself is the matrix of patches


@njit
def _forward_1x1(x, weight, bias, groups, y):
    """y[n, k, window] = weight[k, channel] x[n, channel, window] + bias[k], group by group."""
    kernels, channels, windows = weight.shape[0] // groups, weight.shape[1], x.shape[2]
    empty = bias[:0]
    for i in range(x.shape[0] * groups):
        g = i % groups
        a = Matrix(offset(pointer(weight), g * kernels * channels), channels, 1)
        b = Matrix(offset(pointer(x), i * channels * windows), windows, 1)
        start = Matrix(zero(pointer(weight)), 0, 0)
        if bias.size:
            start = Matrix(offset(pointer(bias), g * kernels), 1, 0)
        c = Matrix(offset(pointer(y), i * kernels * windows), windows, 1)
        matmul(kernels, windows, channels, a, b, start, c, empty)


@njit
def _image_gradient_1x1(grad_out, weight, groups, grad_x):
    """grad_x[n, channel, window] = weight[k, channel] grad_out[n, k, window], group by group."""
    kernels, channels, windows = weight.shape[0] // groups, weight.shape[1], grad_x.shape[2]
    empty = grad_x.reshape(-1)[:0]
    for i in range(grad_x.shape[0] * groups):
        a = Matrix(offset(pointer(weight), i % groups * kernels * channels), 1, channels)
        b = Matrix(offset(pointer(grad_out), i * kernels * windows), windows, 1)
        c = Matrix(offset(pointer(grad_x), i * channels * windows), windows, 1)
        matmul(channels, windows, kernels, a, b, Matrix(zero(c.data), 0, 0), c, empty)


@njit
def _kernel_gradient_1x1(grad_out, x, groups, grad_weight):
    """grad_weight[k, channel] += grad_out[n, k, window] x[n, channel, window], group by group."""
    kernels, channels, windows = grad_weight.shape[0] // groups, grad_weight.shape[1], x.shape[2]
    empty = grad_weight.reshape(-1)[:0]
    for i in range(x.shape[0] * groups):
        a = Matrix(offset(pointer(grad_out), i * kernels * windows), windows, 1)
        b = Matrix(offset(pointer(x), i * channels * windows), 1, windows)
        c = Matrix(offset(pointer(grad_weight), i % groups * kernels * channels), channels, 1)
        matmul(kernels, channels, windows, a, b, c, c, empty)


# ----------------------------------------------------------------------------------------------------
# The gradient of the image, term by term


@njit
def _image_gradient_by_terms(grad_out, weight, rows, columns, grad_x):
    """What each window adds to the image, [n, channel, row, column], for weights that zero may not be multiplied by.

    The fast passes multiply what is around the windows, which is zero, like any other gradient; an infinite weight
    would make NaN of it. The sums are in float64.
    """
    kernels = weight.shape[0] // (grad_x.shape[1] // weight.shape[1])
    total = np.zeros(grad_x.shape[2:], np.float64)
    for n in range(grad_x.shape[0]):
        for c in range(grad_x.shape[1]):
            total[:] = 0
            first = c // weight.shape[1] * kernels
            for k in range(first, first + kernels):
                for r in range(rows.taps):
                    for s in range(columns.taps):
                        factor = weight[k, c % weight.shape[1], r, s]
                        p, p_end, h = inside(rows, r)
                        q, q_end, w = inside(columns, s)
                        for i in range(p_end - p):
                            for j in range(q_end - q):
                                total[h + i * rows.stride, w + j * columns.stride] += (
                                    factor * grad_out[n, k, p + i, q + j]
                                )
            grad_x[n, c] = total


# ----------------------------------------------------------------------------------------------------
# The gradient of the bias


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


# ----------------------------------------------------------------------------------------------------
# Kernels


def _is_1x1(rows, columns, groups, channels_last):
    """Whether the windows are pixels of the image, and the channels of a group lie where `matmul` finds them."""
    return not (channels_last and groups > 1) and all(
        axis.taps == 1 and axis.before == 0 and (axis.outputs - 1) * axis.stride < axis.length
        for axis in (rows, columns)
    )


def _seen(images, rows, columns, channels_last):
    """The pixels that are windows: a view of the images, or all of them."""
    if rows.outputs == rows.length and columns.outputs == columns.length:
        return images
    lines, pixels = (slice(0, (axis.outputs - 1) * axis.stride + 1, axis.stride) for axis in (rows, columns))
    return images[:, lines, pixels] if channels_last else images[:, :, lines, pixels]


def _planes(images):
    """[n, channel, window]."""
    return images.reshape(*images.shape[:2], math.prod(images.shape[2:]))


def _pixels(images):
    """[window of all images, channel]."""
    return images.reshape(math.prod(images.shape[:3]), images.shape[3])


def _kernels(weight):
    """Kernels as rows of terms, (channel, r, s) or (r, s, channel)."""
    return weight.reshape(weight.shape[0], math.prod(weight.shape[1:]))


def _with_room(weight):
    """A plain copy that tiles can read to the end of their last vector."""
    room = np.empty(weight.size + SLACK, weight.dtype)[: weight.size].reshape(weight.shape)
    room[...] = weight
    return room


def _forward(x, weight, bias, rows, columns, groups, channels_last, y):
    if _is_1x1(rows, columns, groups, channels_last):
        x = np.ascontiguousarray(_seen(x, rows, columns, channels_last))
        if channels_last:
            matmul_nt(_pixels(x), _kernels(weight), bias, _pixels(y), False)
        else:
            _forward_1x1(_planes(x), _kernels(weight), bias, groups, _planes(y))
    elif channels_last:
        terms = _kernels(weight).reshape(groups, weight.shape[0] // groups, -1).swapaxes(1, 2)
        _forward_pixels(x, _with_room(terms), bias, rows, columns, groups, y)
    else:
        _forward_planes(x, _kernels(weight), bias, rows, columns, groups, y)


def _image_gradient(grad_out, weight, rows, columns, groups, channels_last, grad_x):
    if _is_1x1(rows, columns, groups, channels_last):
        seen = _seen(grad_x, rows, columns, channels_last)
        result = grad_x if seen is grad_x else np.empty(seen.shape, seen.dtype)
        if channels_last:
            matmul_nn(_pixels(grad_out), _kernels(weight), result[:0, 0, 0, 0], _pixels(result), False)
        else:
            _image_gradient_1x1(_planes(grad_out), _kernels(weight), groups, _planes(result))
        if seen is not grad_x:
            grad_x[...] = 0
            seen[...] = result
    elif not np.isfinite(weight).all():
        if channels_last:
            grad_out, weight, grad_x = (np.moveaxis(one, 3, 1) for one in (grad_out, weight, grad_x))
        _image_gradient_by_terms(grad_out, weight, rows, columns, grad_x)
    elif channels_last:
        _image_gradient_pixels(grad_out, _with_room(_kernels(weight)), rows, columns, groups, grad_x)
    else:
        kernels = weight.reshape(groups, weight.shape[0] // groups, *weight.shape[1:]).swapaxes(1, 2)
        _image_gradient_planes(grad_out, np.ascontiguousarray(kernels), rows, columns, groups, grad_x)


def _kernel_gradient(grad_out, x, rows, columns, groups, channels_last, grad_weight):
    grad_weight[...] = 0
    if _is_1x1(rows, columns, groups, channels_last):
        x = np.ascontiguousarray(_seen(x, rows, columns, channels_last))
        if channels_last:
            matmul_tn(_pixels(grad_out), _pixels(x), x[:0, 0, 0, 0], _kernels(grad_weight), True)
        else:
            _kernel_gradient_1x1(_planes(grad_out), _planes(x), groups, _kernels(grad_weight))
    elif channels_last:
        _add_kernel_gradient(grad_out, x, True, rows, columns, groups, grad_weight)
    elif groups > 1 and grad_weight.shape[1] < _FEW_CHANNELS and columns.stride == 1:
        _kernel_gradient_dots(grad_out, x, rows, columns, groups, grad_weight)
    else:
        last = np.zeros((*grad_weight.shape[:1], *grad_weight.shape[2:], grad_weight.shape[1]), x.dtype)
        _add_kernel_gradient(grad_out, x, False, rows, columns, groups, last)
        grad_weight[...] = np.moveaxis(last, 3, 1)


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
        _forward(x, weight, bias, rows, columns, groups, channels_last, y.array)
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
    out=None,
):
    grad_out, x, weight, rows, columns, groups, channels_last, gradients = checks.conv2d_backward(
        grad_out, x, weight, stride, padding, dilation, groups, layout, needs, out
    )
    for_x, for_weight, for_bias = gradients
    geometry = rows, columns, groups, channels_last
    if for_x is not None:
        _image_gradient(grad_out, weight, *geometry, for_x.array)
    if for_weight is not None:
        _kernel_gradient(grad_out, x, *geometry, for_weight.array)
    if for_bias is not None:
        n, a, b, c = grad_out.shape
        if channels_last:
            _sum_pixels(grad_out.reshape(n * a * b, c), for_bias.array)
        else:
            _sum_channels(grad_out.reshape(n, a, b * c), for_bias.array)
    return tuple(None if gradient is None else gradient.deliver() for gradient in gradients)
