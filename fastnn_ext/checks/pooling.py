"""Checks of the 2-D pools and their backward."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnn_ext import checks
from fastnn_ext.checks import Output, wrong
from fastnn_ext.checks.windows import Axis, axes, image_shape, is_channels_last, pair, plane


def max_pool2d(
    x: Any,
    kernel_size: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    ceil_mode: Any,
    layout: Any,
    return_indices: Any,
    out: Any,
) -> tuple[NDArray[Any], Axis, Axis, bool, Output, NDArray[np.int64] | None]:
    """Plain x, rows, columns, whether channels are last, the Output and an array for the indices or None."""
    name = "max_pool2d"
    with_indices = checks.boolean(name, "return_indices", return_indices)
    channels_last = is_channels_last(name, layout)
    (x,), given, dtype = checks.floats(name, x=x)
    _is_image(name, "x", x.shape, channels_last)
    rows, columns = _geometry(name, x.shape, kernel_size, stride, padding, dilation, ceil_mode, channels_last)
    shape = _pooled_shape(x.shape, rows, columns, channels_last)
    y = checks.output(name, out, shape, dtype, reads=given)
    if with_indices:
        checks.checked_size(name, "return_indices", shape)
    return x, rows, columns, channels_last, y, np.empty(shape, np.int64) if with_indices else None


def max_pool2d_backward(
    grad_out: Any, indices: Any, input_shape: Any, layout: Any, out: Any
) -> tuple[NDArray[Any], NDArray[np.int64], bool, Output]:
    """Plain grad_out, plain indices, all within the plane, whether channels are last, and the Output."""
    name = "max_pool2d_backward"
    channels_last = is_channels_last(name, layout)
    (grad_out,), given, dtype = checks.floats(name, grad_out=grad_out)
    positions = checks.as_array(name, "indices", indices)
    if positions.dtype.kind not in "iu":
        raise wrong(TypeError, name, "indices", f"has dtype {positions.dtype}", "an integer dtype")
    shape = _input_shape(name, input_shape, channels_last)
    _is_image(name, "grad_out", grad_out.shape, channels_last)
    _has_batch_and_channels(name, grad_out, shape, channels_last)
    checks.has_shape(name, "indices", positions, grad_out.shape, "the shape of grad_out")
    height, width = plane(shape, channels_last)
    if positions.size:
        for extreme in (int(positions.min()), int(positions.max())):
            if not 0 <= extreme < height * width:
                expected = f"positions in a plane of {height} x {width}"
                raise wrong(IndexError, name, "indices", f"has {extreme}", expected)
    grad_x = checks.output(name, out, shape, dtype, reads=[*given, positions])
    return grad_out, checks.plain(positions, np.int64), channels_last, grad_x


def avg_pool2d(
    x: Any,
    kernel_size: Any,
    stride: Any,
    padding: Any,
    ceil_mode: Any,
    count_include_pad: Any,
    layout: Any,
    out: Any,
) -> tuple[NDArray[Any], Axis, Axis, bool, bool, Output]:
    """Plain x, rows, columns, whether padding counts, whether channels are last, and the Output."""
    name = "avg_pool2d"
    counts = checks.boolean(name, "count_include_pad", count_include_pad)
    channels_last = is_channels_last(name, layout)
    (x,), given, dtype = checks.floats(name, x=x)
    _is_image(name, "x", x.shape, channels_last)
    rows, columns = _geometry(name, x.shape, kernel_size, stride, padding, 1, ceil_mode, channels_last)
    shape = _pooled_shape(x.shape, rows, columns, channels_last)
    return x, rows, columns, counts, channels_last, checks.output(name, out, shape, dtype, reads=given)


def avg_pool2d_backward(
    grad_out: Any,
    input_shape: Any,
    kernel_size: Any,
    stride: Any,
    padding: Any,
    ceil_mode: Any,
    count_include_pad: Any,
    layout: Any,
    out: Any,
) -> tuple[NDArray[Any], Axis, Axis, bool, bool, Output]:
    """Plain grad_out, rows, columns, whether padding counts, whether channels are last, and the Output."""
    name = "avg_pool2d_backward"
    counts = checks.boolean(name, "count_include_pad", count_include_pad)
    channels_last = is_channels_last(name, layout)
    (grad_out,), given, dtype = checks.floats(name, grad_out=grad_out)
    shape = _input_shape(name, input_shape, channels_last)
    rows, columns = _geometry(name, shape, kernel_size, stride, padding, 1, ceil_mode, channels_last)
    pooled = _pooled_shape(shape, rows, columns, channels_last)
    checks.has_shape(name, "grad_out", grad_out, pooled, "the shape of avg_pool2d")
    return grad_out, rows, columns, counts, channels_last, checks.output(name, out, shape, dtype, reads=given)


def _geometry(
    function: str,
    shape: tuple[int, ...],
    kernel_size: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    ceil_mode: Any,
    channels_last: bool,
) -> tuple[Axis, Axis]:
    """The axes of a pool, in which every window covers an element of the input."""
    ceil = checks.boolean(function, "ceil_mode", ceil_mode)
    taps = pair(function, "kernel_size", kernel_size)
    stride = taps if stride is None else stride
    rows, columns = axes(function, plane(shape, channels_last), taps, stride, padding, dilation, ceil=ceil)
    for axis in (rows, columns):
        if 2 * max(axis.before, axis.after) > axis.span:
            expected = f"at most half of the span of the kernel, {axis.span}"
            raise wrong(ValueError, function, "padding", f"is {padding!r}", expected)
        if not _is_covered(axis):
            given = f"is {padding!r} with dilation {dilation!r}"
            raise wrong(ValueError, function, "padding", given, "windows that each cover an element of x")
    return rows, columns


def _is_covered(axis: Axis) -> bool:
    """Whether each window has a tap within the input: only dilated ones can step over a short one."""
    if axis.length == 0:
        return False
    if axis.dilation == 1 or axis.length >= axis.dilation:
        return True
    starts = (window * axis.stride - axis.before for window in range(axis.outputs))
    return all(max(start, start % axis.dilation) < axis.length for start in starts)


def _pooled_shape(shape: tuple[int, ...], rows: Axis, columns: Axis, channels_last: bool) -> tuple[int, ...]:
    channels = shape[3 if channels_last else 1]
    return image_shape(shape[0], channels, rows.outputs, columns.outputs, channels_last)


def _is_image(function: str, argument: str, shape: tuple[int, ...], channels_last: bool) -> None:
    if len(shape) != 4:
        expected = "(N, H, W, C)" if channels_last else "(N, C, H, W)"
        raise wrong(ValueError, function, argument, f"has shape {shape}", expected)


def _input_shape(function: str, value: Any, channels_last: bool) -> tuple[int, ...]:
    """`value` as the shape of an image array."""
    if not isinstance(value, (tuple, list)):
        raise wrong(TypeError, function, "input_shape", f"is {value!r}", "a tuple of four integers")
    shape = tuple(checks.integer(function, "input_shape", length, low=0, high=2**62) for length in value)
    _is_image(function, "input_shape", shape, channels_last)
    return shape


def _has_batch_and_channels(
    function: str, grad_out: NDArray[Any], shape: tuple[int, ...], channels_last: bool
) -> None:
    batch, channels = shape[0], shape[3 if channels_last else 1]
    wanted = (batch, "P", "Q", channels) if channels_last else (batch, channels, "P", "Q")
    checks.has_shape(function, "grad_out", grad_out, wanted, f"as input_shape is {shape}")
