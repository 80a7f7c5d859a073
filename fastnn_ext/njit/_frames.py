"""Where the terms of a convolution lie: distances between them, and frames that images are copied into.

A frame is a band of rows of an image with zeros around it in place of padding. With channels first, positions that
are a stride apart lie next to each other in it, so that the windows of a line are contiguous whatever the stride.
An `axis` is a `fastnn_ext.checks.windows.Axis`.
"""

import math
from typing import NamedTuple

import numpy as np

from fastnn_ext.njit._gemm import internal
from fastnn_ext.njit._tiles import Matrix, copy_panels, offset, pointer

# Of a band of a frame, and of the results that are computed side by side before they are put in their places.
_BAND_BYTES = 1 << 20
#: Elements behind a frame: tiles read their last vector to its end where there are no masked loads.
SLACK = 64


# ----------------------------------------------------------------------------------------------------
# Distances


@internal
def steps(count, step):
    """The distances 0, step, 2 step, ..."""
    distances = np.empty(count, np.int64)
    for i in range(count):
        distances[i] = i * step
    return distances


@internal
def sums(outer, inner):
    """All sums of two distances."""
    sums = np.empty(outer.size * inner.size, np.int64)
    for i in range(outer.size):
        for j in range(inner.size):
            sums[i * inner.size + j] = outer[i] + inner[j]
    return sums


@internal
def places(axis, phase, line):
    """Where the taps of a window are in a frame whose phases and lines are so far apart."""
    places = np.empty(axis.taps, np.int64)
    for tap in range(axis.taps):
        at = tap * axis.dilation
        places[tap] = at % axis.stride * phase + at // axis.stride * line
    return places


@internal
def reach_of(axis):
    """How many lines of a frame a window needs beyond its own."""
    return axis.dilation * (axis.taps - 1) // axis.stride


@internal
def band_of(lines, reach, bytes_of_line):
    """How many lines of results a band has."""
    return max(1, min(lines, _BAND_BYTES // max(bytes_of_line, 1) - reach))


@internal
def is_in_place(x_length, first, count):
    return first == 0 and count <= x_length


class Comb(NamedTuple):
    """The positions of an image along one axis that have one phase of the stride, and the taps that meet there.

    Position `start + i * stride` gets, from tap `tap + t * tap_step`, what is in line `line + i` of the frame,
    `place - t * place_step` lines further on.
    """

    start: int
    outputs: int
    line: int
    tap: int
    tap_step: int
    taps: int
    place: int
    place_step: int


@internal
def comb(axis, phase):
    common = math.gcd(axis.dilation, axis.stride)
    tap_step, place_step = axis.stride // common, axis.dilation // common
    tap, taps = 0, 0
    for candidate in range(min(axis.taps, axis.stride)):
        if candidate * axis.dilation % axis.stride == phase:
            tap, taps = candidate, (axis.taps - 1 - candidate) // tap_step + 1
            break
    place = reach_of(axis) - (tap * axis.dilation - phase) // axis.stride
    first = -((phase - axis.before) // axis.stride)
    end = (axis.length - 1 + axis.before - phase) // axis.stride + 1
    start = first * axis.stride + phase - axis.before
    line = first - axis.before // axis.stride
    return Comb(start, max(0, end - first), line, tap, tap_step, taps, place, place_step)


@internal
def backward_lines(axis):
    """How many lines of windows, whether they exist or not, meet an image: the first of them, and the number."""
    first = axis.before // axis.stride
    return first - reach_of(axis), (axis.length - 1 + axis.before) // axis.stride + 1 - first


# ----------------------------------------------------------------------------------------------------
# Frames


@internal
def copy(source, at, step, target, to, target_step, count):
    """target[to + i * target_step] = source[at + i * step] for flat arrays.

    An unsigned index can't count from the end, which saves asking.
    """
    at, step = np.uintp(at), np.uintp(step)
    to, target_step = np.uintp(to), np.uintp(target_step)
    for i in range(np.uintp(max(count, 0))):
        target[to + i * target_step] = source[at + i * step]


@internal
def fill_planes(x, top, left, row_step, column_step, frame):
    """frame[c, u, v, i, j] = x[c, top + i * row_step + u, left + j * column_step + v]; zero outside of x."""
    height, width = x.shape[1:]
    lines, pitch = frame.shape[3:]
    frame[:] = 0
    if row_step * column_step == 1:
        i, j = max(0, -top), max(0, -left)
        h, w = max(0, top), max(0, left)
        rows, columns = min(lines - i, height - h), min(pitch - j, width - w)
        if rows <= 0 or columns <= 0:
            return
        for c in range(x.shape[0]):
            # What is written beyond the columns, into the padding of the next line, is zero.
            source = Matrix(offset(pointer(x), (c * height + h) * width + w), width, 1)
            target = Matrix(offset(pointer(frame), (c * lines + i) * pitch + j), pitch, 1)
            copy_panels((rows, columns), source, 0, target)
        return
    flat, image = frame.reshape(-1), x.reshape(-1)
    for c in range(x.shape[0]):
        for u in range(row_step):
            for i in range(
                max(0, -((top + u) // row_step)), min(lines, (height - 1 - top - u) // row_step + 1)
            ):
                h = top + i * row_step + u
                for v in range(column_step):
                    j = max(0, -((left + v) // column_step))
                    end = min(pitch, (width - 1 - left - v) // column_step + 1)
                    to = (((c * row_step + u) * column_step + v) * lines + i) * pitch + j
                    w = left + v + j * column_step
                    copy(image, (c * height + h) * width + w, column_step, flat, to, 1, end - j)


@internal
def fill_pixels(x, top, left, frame):
    """frame[i, j, c] = x[top + i, left + j, c], zero outside of x."""
    height, width, channels = x.shape
    i, j = max(0, -top), max(0, -left)
    h, w = max(0, top), max(0, left)
    rows, columns = min(frame.shape[0] - i, height - h), min(frame.shape[1] - j, width - w)
    frame[:] = 0
    if rows <= 0 or columns <= 0 or channels == 0:
        return
    pitch = frame.shape[1] * channels
    source = Matrix(offset(pointer(x), (h * width + w) * channels), width * channels, 1)
    target = Matrix(offset(pointer(frame), i * pitch + j * channels), pitch, 1)
    copy_panels((rows, columns * channels), source, 0, target)


@internal
def fill_pixels_from_planes(x, top, left, frame):
    """frame[i, j, c] = x[c, top + i, left + j], zero outside of x."""
    channels, height, width = x.shape
    frame[:] = 0
    flat, image = frame.reshape(-1), x.reshape(-1)
    j = max(0, -left)
    count = min(frame.shape[1], width - left) - j
    for i in range(max(0, -top), min(frame.shape[0], height - top)):
        for c in range(channels):
            at = (c * height + top + i) * width + left + j
            copy(image, at, 1, flat, (i * frame.shape[1] + j) * channels + c, channels, count)


@internal
def new_frame(shape, line, like):
    """An array with room behind it for the padding that follows its last line, and for the last vector of a tile."""
    size = 1
    for length in shape:
        size *= length
    return np.empty(size + line + SLACK, like.dtype)[:size].reshape(shape)
