"""2-D max and average pooling with their backward."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastnn._contract import Draw, kernel
from fastnn_ext.checks import pooling as _checks
from fastnn_ext.checks.windows import Axis

Array = NDArray[Any]
Pair = int | tuple[int, int]
Padding = int | tuple[int, int] | tuple[tuple[int, int], tuple[int, int]] | str

WORKLOADS = {
    name: {"n": n, "c": c, "h": h, "w": h, **options}
    for name, n, c, h, options in (
        ("64x6x28x28 2x2s2", 64, 6, 28, {"kernel_size": 2}),
        ("32x64x32x32 2x2s2", 32, 64, 32, {"kernel_size": 2}),
        ("8x64x56x56 3x3s2p1", 8, 64, 56, {"kernel_size": 3, "stride": 2, "padding": 1}),
    )
}

_OPTIONS = {
    "kernel_size": (2, 3, (3, 2)),
    "stride": (None, 1, (2, 3)),
    "padding": (0, 1, (0, 1), ((0, 1), (1, 0)), "same", "valid"),
    "ceil_mode": (False, True),
    "layout": ("NCHW", "NHWC"),
}


def _image(
    draw: Draw, kernel_size: Pair = 2, dilation: Pair = 1, layout: str = "NCHW", **_: Any
) -> dict[str, Any]:
    """An x that the kernel fits without padding."""
    taps = kernel_size if isinstance(kernel_size, tuple) else (kernel_size, kernel_size)
    dilations = dilation if isinstance(dilation, tuple) else (dilation, dilation)
    h, w = (
        draw.size(symbol, low=step * (count - 1) + 1)
        for symbol, count, step in zip("hw", taps, dilations, strict=True)
    )
    x = draw.real(draw.size("n"), draw.size("c"), h, w)
    return {"x": np.ascontiguousarray(x.transpose(0, 2, 3, 1)) if layout == "NHWC" else x}


def _planes(images: Array, channels_last: bool) -> Array:
    """The view [n, c, h, w] of images in either layout."""
    return images.transpose(0, 3, 1, 2) if channels_last else images


def _meeting(axis: Axis, tap: int) -> tuple[slice, slice]:
    """The windows whose tap lies in the input, and the input positions where it does."""
    shift = tap * axis.dilation - axis.before
    first = max(-(shift // axis.stride), 0)
    end = max(min((axis.length - 1 - shift) // axis.stride + 1, axis.outputs), first)
    start = first * axis.stride + shift
    return slice(first, end), slice(start, start + (end - first) * axis.stride, axis.stride)


def _reduced(ufunc: np.ufunc, x: Array, axis: int, along: Axis) -> Array:
    """`ufunc` over the taps of each window along one axis; padding counts as its identity."""
    shape = (*x.shape[:axis], along.outputs, *x.shape[axis + 1 :])
    identity = 0 if ufunc is np.add else -np.inf
    y = np.full_like(x, identity, shape=shape)
    before = (slice(None),) * axis
    for tap in range(along.taps):
        windows, inputs = ((*before, side) for side in _meeting(along, tap))
        ufunc(y[windows], x[inputs], out=y[windows])
    return y


def _spread(g: Array, axis: int, along: Axis) -> Array:
    """The transpose of the sum over the taps: each input position gets the sum over the windows it is in."""
    shape = (*g.shape[:axis], along.length, *g.shape[axis + 1 :])
    x = np.zeros_like(g, shape=shape)
    before = (slice(None),) * axis
    for tap in range(along.taps):
        windows, inputs = ((*before, side) for side in _meeting(along, tap))
        x[inputs] += g[windows]
    return x


@kernel(
    example=_image,
    options={**_OPTIONS, "dilation": (1, 2, (1, 3)), "return_indices": (False, True)},
    ulp=0,
    results=("y", "indices"),
    workloads=WORKLOADS,
)
def max_pool2d(
    x: ArrayLike,
    kernel_size: Pair,
    *,
    stride: Pair | None = None,
    padding: Padding = 0,
    dilation: Pair = 1,
    ceil_mode: bool = False,
    layout: str = "NCHW",
    return_indices: bool = False,
    out: Array | None = None,
) -> Array | tuple[Array, NDArray[np.int64]]:
    """Largest element of each window of an image.

    y[n, c, p, q] = max over r, s of
    x[n, c, p * stride + r * dilation - top, q * stride + s * dilation - left],
    where padding counts as minus infinity.

    Parameters
    ----------
    x : array_like, shape (N, C, H, W) or (N, H, W, C)
        Images, in `layout`.
    kernel_size : int or (height, width)
        The window's taps.
    stride : int or (height, width), optional
        Steps of the window over the image; the kernel size where it is None.
    padding : int, (height, width), ((top, bottom), (left, right)), "same" or "valid"
        Padding around the image, at most half of the window's span. "same" gives ceil(H / stride) rows and
        ceil(W / stride) columns, with the odd one after the image (SAME_UPPER of ONNX); "valid" is 0.
    dilation : int or (height, width)
        Distance between the taps of a window.
    ceil_mode : bool
        Whether the number of windows is rounded up. The last one still starts within the image or the padding
        before it.
    layout : {"NCHW", "NHWC"}
        Order of the axes.
    return_indices : bool
        Whether the position of each maximum is returned as well.
    out : ndarray, optional
        Written and returned when given; it shares no memory with `x`.

    Returns
    -------
    y : ndarray, shape (N, C, P, Q) or (N, P, Q, C)
        In the float dtype of `x`, with
        P = floor((top + H + bottom - dilation * (R - 1) - 1) / stride) + 1 rows, and columns alike.
    indices : ndarray of int64, the shape of y
        Only with `return_indices`: the position h * W + w of the maximum in its plane; of equal ones, or of
        NaNs, the first.

    Raises
    ------
    ValueError
        Where `x` has not four dimensions, the window is larger than the padded image, padding is more than
        half of the window, a window covers no element, an option is out of its range, or `out` does not fit.
    TypeError
        Where `x` is not an array of real numbers, or an option not of its type.

    Notes
    -----
    Exact. A window with a NaN gives NaN.
    """
    x, rows, columns, channels_last, y, indices = _checks.max_pool2d(
        x, kernel_size, stride, padding, dilation, ceil_mode, layout, return_indices, out
    )
    planes = _planes(x, channels_last)
    best = _planes(y.array, channels_last)
    if indices is None:
        best[...] = _reduced(np.maximum, _reduced(np.maximum, planes, 2, rows), 3, columns)
        return y.deliver()
    _arg_max(planes, rows, columns, best, _planes(indices, channels_last))
    return y.deliver(), indices


def _arg_max(x: Array, rows: Axis, columns: Axis, best: Array, indices: Array) -> None:
    """Write the maximum of each window to `best` and its position to `indices`, tap by tap."""
    positions = np.arange(rows.length * columns.length).reshape(rows.length, columns.length)
    indices[...] = -1
    for r in range(rows.taps):
        windows_h, inputs_h = _meeting(rows, r)
        for s in range(columns.taps):
            windows_w, inputs_w = _meeting(columns, s)
            here = np.s_[:, :, windows_h, windows_w]
            value, so_far = x[:, :, inputs_h, inputs_w], best[here]
            is_first = indices[here] < 0
            is_first_nan = np.isnan(value) & ~np.isnan(so_far)
            better = is_first | is_first_nan | (value > so_far)
            np.copyto(so_far, value, where=better)
            np.copyto(indices[here], positions[inputs_h, inputs_w], where=better)


@kernel(backward_of="max_pool2d", conditioned=True, workloads=WORKLOADS)
def max_pool2d_backward(
    grad_out: ArrayLike,
    indices: ArrayLike,
    input_shape: tuple[int, int, int, int],
    *,
    layout: str = "NCHW",
    out: Array | None = None,
) -> Array:
    """Gradient of a loss with respect to the `x` of `max_pool2d`.

    grad_x[n, c, i] = sum of grad_out[n, c, p, q] over the windows with indices[n, c, p, q] = i = h * W + w.

    Parameters
    ----------
    grad_out : array_like, shape (N, C, P, Q) or (N, P, Q, C)
        Gradient with respect to the result of `max_pool2d`.
    indices : array_like of int, the shape of grad_out
        The positions that `max_pool2d` returned.
    input_shape : tuple of four int
        The shape of `x`.
    layout : {"NCHW", "NHWC"}
        Order of the axes.
    out : ndarray, shape input_shape, optional
        Written and returned when given; it shares no memory with an argument.

    Returns
    -------
    ndarray, shape input_shape
        In the float dtype of grad_out.

    Raises
    ------
    ValueError
        Where shapes do not fit, or `out` does not fit.
    TypeError
        Where grad_out is not an array of real numbers, or indices not one of integers.
    IndexError
        Where an index is outside of the plane; nothing is written.

    Notes
    -----
    Each sum has as many terms as windows overlap there; its error is at most 4 units of the last place of the
    sum of their absolute values.
    """
    grad_out, indices, channels_last, grad_x = _checks.max_pool2d_backward(
        grad_out, indices, input_shape, layout, out
    )
    n, c, h, w = _planes(grad_x.array, channels_last).shape
    if channels_last:
        targets = (np.arange(n)[:, None, None, None] * (h * w) + indices) * c + np.arange(c)
    else:
        targets = np.arange(n * c).reshape(n, c, 1, 1) * (h * w) + indices
    total = np.bincount(targets.ravel(), grad_out.ravel(), minlength=n * c * h * w)
    return grad_x.fill(total.astype(grad_out.dtype, copy=False).reshape(input_shape))


@kernel(
    example=_image,
    options={**_OPTIONS, "count_include_pad": (True, False)},
    ulp=8,
    conditioned=True,
    workloads=WORKLOADS,
)
def avg_pool2d(
    x: ArrayLike,
    kernel_size: Pair,
    *,
    stride: Pair | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    layout: str = "NCHW",
    out: Array | None = None,
) -> Array:
    """Mean of each window of an image.

    y[n, c, p, q] = sum over r, s of x[n, c, p * stride + r - top, q * stride + s - left] / count(p, q),
    where padding counts as zero.

    Parameters
    ----------
    x : array_like, shape (N, C, H, W) or (N, H, W, C)
        Images, in `layout`.
    kernel_size : int or (height, width)
        The window's size.
    stride : int or (height, width), optional
        Steps of the window over the image; the kernel size where it is None.
    padding : int, (height, width), ((top, bottom), (left, right)), "same" or "valid"
        Padding around the image, at most half of the window. "same" gives ceil(H / stride) rows and
        ceil(W / stride) columns, with the odd one after the image (SAME_UPPER of ONNX); "valid" is 0.
    ceil_mode : bool
        Whether the number of windows is rounded up. The last one still starts within the image or the padding
        before it; what it covers beyond the padding never counts.
    count_include_pad : bool
        Whether count(p, q) is the window's elements in the padded image, or only those in the image itself.
    layout : {"NCHW", "NHWC"}
        Order of the axes.
    out : ndarray, optional
        Written and returned when given; it shares no memory with `x`.

    Returns
    -------
    ndarray, shape (N, C, P, Q) or (N, P, Q, C)
        In the float dtype of `x`, with P = floor((top + H + bottom - R) / stride) + 1 rows and columns alike.

    Raises
    ------
    ValueError
        Where `x` has not four dimensions, the window is larger than the padded image, padding is more than
        half of the window, an option is out of its range, or `out` does not fit.
    TypeError
        Where `x` is not an array of real numbers, or an option not of its type.

    Notes
    -----
    Summed along one axis, then along the other; the error is at most 8 units of the last place of the mean of
    the absolute values.
    """
    x, rows, columns, counts_padding, channels_last, y = _checks.avg_pool2d(
        x, kernel_size, stride, padding, ceil_mode, count_include_pad, layout, out
    )
    sums = _reduced(np.add, _reduced(np.add, _planes(x, channels_last), 2, rows), 3, columns)
    np.divide(sums, _counts(rows, columns, counts_padding, x.dtype), out=_planes(y.array, channels_last))
    return y.deliver()


def _counts(rows: Axis, columns: Axis, counts_padding: bool, dtype: np.dtype[Any]) -> Array:
    """How many elements each window averages, [p, q]."""
    first, second = (
        np.minimum(starts + axis.taps, end) - np.maximum(starts, begin)
        for axis in (rows, columns)
        for starts in [np.arange(axis.outputs) * axis.stride - axis.before]
        for begin, end in [(-axis.before, axis.length + axis.after) if counts_padding else (0, axis.length)]
    )
    counts: Array = np.multiply.outer(first, second).astype(dtype)
    return counts


@kernel(backward_of="avg_pool2d", ulp=8, conditioned=True, workloads=WORKLOADS)
def avg_pool2d_backward(
    grad_out: ArrayLike,
    input_shape: tuple[int, int, int, int],
    kernel_size: Pair,
    *,
    stride: Pair | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    layout: str = "NCHW",
    out: Array | None = None,
) -> Array:
    """Gradient of a loss with respect to the `x` of `avg_pool2d`.

    grad_x[n, c, h, w] = sum of grad_out[n, c, p, q] / count(p, q) over the windows (p, q) that cover (h, w).

    Parameters
    ----------
    grad_out : array_like, shape (N, C, P, Q) or (N, P, Q, C)
        Gradient with respect to the result of `avg_pool2d`.
    input_shape : tuple of four int
        The shape of `x`.
    kernel_size, stride, padding, ceil_mode, count_include_pad, layout
        Those of the forward pass; see `avg_pool2d`.
    out : ndarray, shape input_shape, optional
        Written and returned when given; it shares no memory with grad_out.

    Returns
    -------
    ndarray, shape input_shape
        In the float dtype of grad_out.

    Raises
    ------
    ValueError
        As `avg_pool2d`, and where grad_out has not the shape of its result.
    TypeError
        Where grad_out is not an array of real numbers, or an option not of its type.

    Notes
    -----
    The error is at most 8 units of the last place of the sum of the terms' absolute values.
    """
    grad_out, rows, columns, counts_padding, channels_last, grad_x = _checks.avg_pool2d_backward(
        grad_out, input_shape, kernel_size, stride, padding, ceil_mode, count_include_pad, layout, out
    )
    share = _planes(grad_out, channels_last) / _counts(rows, columns, counts_padding, grad_out.dtype)
    _planes(grad_x.array, channels_last)[...] = _spread(_spread(share, 3, columns), 2, rows)
    return grad_x.deliver()
