"""2-D convolution and the gradients of its three arguments."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import ArrayLike, NDArray

from fastnn._contract import Draw, kernel
from fastnn.activations import activate
from fastnn_ext.checks import conv as _checks
from fastnn_ext.checks.windows import Axis

Array = NDArray[Any]
Padding = int | tuple[int, int] | tuple[tuple[int, int], tuple[int, int]] | str

#: The most bytes that the patches of one block of output rows take.
_PATCH_BYTES = 2**23

#: Layers of small networks (the first two are LeNet's), of residual networks and of mobile ones.
WORKLOADS = {
    name: {"n": n, "c": c, "h": h, "w": h, "k": k, "r": r, "s": r, **options}
    for name, n, c, h, k, r, options in (
        ("1x1x28x28 k6 5x5", 1, 1, 28, 6, 5, {}),
        ("64x1x28x28 k6 5x5", 64, 1, 28, 6, 5, {}),
        ("64x6x14x14 k16 5x5", 64, 6, 14, 16, 5, {}),
        ("32x3x32x32 k32 3x3p1", 32, 3, 32, 32, 3, {"padding": 1}),
        ("8x64x28x28 k64 3x3p1", 8, 64, 28, 64, 3, {"padding": 1}),
        ("8x64x28x28 k256 1x1", 8, 64, 28, 256, 1, {}),
        ("4x3x112x112 k64 7x7s2p3", 4, 3, 112, 64, 7, {"stride": 2, "padding": 3}),
        ("8x64x28x28 depthwise 3x3p1", 8, 1, 28, 1, 3, {"padding": 1, "groups": 64}),
    )
}


def _image_and_kernels(
    draw: Draw, groups: int = 1, dilation: int | tuple[int, int] = 1, layout: str = "NCHW", **_: Any
) -> dict[str, Any]:
    """An x that the kernel fits without padding; "c" and "k" count the channels and kernels of one group."""
    dilation_h, dilation_w = dilation if isinstance(dilation, tuple) else (dilation, dilation)
    n, c, k = draw.size("n"), draw.size("c"), groups * draw.size("k")
    r, s = draw.size("r", low=1), draw.size("s", low=1)
    h, w = draw.size("h", low=dilation_h * (r - 1) + 1), draw.size("w", low=dilation_w * (s - 1) + 1)
    scale = 1 / math.sqrt(max(c * r * s, 1))
    x, weight = draw.real(n, groups * c, h, w), draw.real(k, c, r, s, low=-scale, high=scale)
    if layout == "NHWC":
        x, weight = (np.ascontiguousarray(array.transpose(0, 2, 3, 1)) for array in (x, weight))
    return {"x": x, "weight": weight, "bias": draw.real(k, low=-1, high=1)}


def _inner(rows: Axis, columns: Axis, channels_last: bool) -> tuple[slice, ...]:
    """Where the image lies in a padded one."""
    height = slice(rows.before, rows.before + rows.length)
    width = slice(columns.before, columns.before + columns.length)
    return (slice(None), height, width) if channels_last else (slice(None), slice(None), height, width)


def _padded_shape(shape: tuple[int, ...], rows: Axis, columns: Axis, channels_last: bool) -> tuple[int, ...]:
    height, width = (axis.before + axis.length + axis.after for axis in (rows, columns))
    return (shape[0], height, width, shape[3]) if channels_last else (*shape[:2], height, width)


def _padded(x: Array, rows: Axis, columns: Axis, channels_last: bool) -> Array:
    """`x` in a frame of zeros; `x` itself where there is no padding."""
    shape = _padded_shape(x.shape, rows, columns, channels_last)
    if shape == x.shape:
        return x
    padded = np.zeros(shape, x.dtype)
    padded[_inner(rows, columns, channels_last)] = x
    return padded


def _windows(padded: Array, rows: Axis, columns: Axis, groups: int, channels_last: bool) -> Array:
    """The view [n, group, c, r, s, p, q] of a padded image: tap (r, s) of the window of pixel (p, q)."""
    axes = (0, 3, 1, 2) if channels_last else (0, 1, 2, 3)
    n, c = (padded.shape[axis] for axis in axes[:2])
    # Of a C-contiguous array; its own strides may be anything along axes of one element.
    of_image, of_channel, of_row, of_column = (
        padded.itemsize * math.prod(padded.shape[axis + 1 :]) for axis in axes
    )
    return as_strided(
        padded,
        (n, groups, c // groups, rows.taps, columns.taps, rows.outputs, columns.outputs),
        (
            of_image,
            c // groups * of_channel,
            of_channel,
            rows.dilation * of_row,
            columns.dilation * of_column,
            rows.stride * of_row,
            columns.stride * of_column,
        ),
    )


def _grouped(images: Array, groups: int, channels_last: bool) -> Array:
    """The view [n, group, channel, pixel] of images in either layout."""
    if channels_last:
        n, p, q, k = images.shape
        return images.reshape(n, p * q, groups, k // groups).transpose(0, 2, 3, 1)
    n, k, p, q = images.shape
    return images.reshape(n, groups, k // groups, p * q)


def _as_matrices(windows: Array, channels_last: bool) -> Array:
    """A copy of `windows` as matrices [n, group, term, pixel], their terms ordered as a kernel's weights."""
    n, g, c, r, s, p, q = windows.shape
    if channels_last:
        return windows.transpose(0, 1, 5, 6, 3, 4, 2).reshape(n, g, p * q, r * s * c).swapaxes(2, 3)
    return windows.reshape(n, g, c * r * s, p * q)


def _add_to_windows(windows: Array, matrices: Array, channels_last: bool) -> None:
    """Add matrices [n, group, term, pixel] to the image under `windows`, tap by tap since windows overlap."""
    n, g, c, r, s, p, q = windows.shape
    if channels_last:
        terms = matrices.swapaxes(2, 3).reshape(n, g, p, q, r, s, c).transpose(0, 1, 6, 4, 5, 2, 3)
    else:
        terms = matrices.reshape(n, g, c, r, s, p, q)
    for i in range(r):
        for j in range(s):
            windows[:, :, :, i, j] += terms[:, :, :, i, j]


def _blocks(windows: Array) -> Iterator[tuple[slice, slice, slice]]:
    """Images, rows and pixels of blocks whose windows take at most _PATCH_BYTES, or are one row of pixels."""
    n, p, q = windows.shape[0], *windows.shape[5:]
    bytes_of_row = math.prod(windows.shape[1:5]) * q * windows.itemsize
    rows_at_once = max(_PATCH_BYTES // max(bytes_of_row, 1), 1)
    images_at_once = max(rows_at_once // p, 1)
    for image in range(0, n, images_at_once):
        for row in range(0, p, rows_at_once):
            end = min(row + rows_at_once, p)
            yield slice(image, image + images_at_once), slice(row, end), slice(row * q, end * q)


@kernel(
    example=_image_and_kernels,
    options={
        "stride": (1, 2, (2, 3)),
        "padding": (0, 1, (2, 1), ((1, 0), (0, 2)), "same", "valid"),
        "dilation": (1, 2, (1, 3)),
        "groups": (1, 2, 3),
        "activation": (None, "relu", "sigmoid", "tanh"),
        "layout": ("NCHW", "NHWC"),
    },
    ulp=16,
    conditioned=True,
    workloads=WORKLOADS,
)
def conv2d(
    x: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    *,
    stride: int | tuple[int, int] = 1,
    padding: Padding = 0,
    dilation: int | tuple[int, int] = 1,
    groups: int = 1,
    activation: str | None = None,
    layout: str = "NCHW",
    out: Array | None = None,
) -> Array:
    """2-D convolution as networks use it (cross-correlation: the kernel is not flipped).

    y[n, k, p, q] = f(bias[k] + sum over c, r, s of
    weight[k, c, r, s] x[n, c, p * stride + r * dilation - top, q * stride + s * dilation - left]),
    where x counts as zero outside of the image and c runs over the channels of k's group.

    Parameters
    ----------
    x : array_like, shape (N, C, H, W) or (N, H, W, C)
        Images, in `layout`.
    weight : array_like or PackedWeight, shape (K, C / groups, R, S) or (K, R, S, C / groups)
        One kernel per output channel, in `layout`. For many calls with the same weight there is `pack`.
    bias : array_like, shape (K,), optional
        Added to each output channel; nothing is where it is None.
    stride : int or (height, width)
        Steps of the kernel over the image.
    padding : int, (height, width), ((top, bottom), (left, right)), "same" or "valid"
        Zeros around the image. "same" gives ceil(H / stride) rows and ceil(W / stride) columns, with the odd
        zero after the image (SAME_UPPER of ONNX); "valid" is 0.
    dilation : int or (height, width)
        Distance between the taps of a kernel.
    groups : int
        Divides channels and kernels into groups that see only each other; `groups=C` is a depthwise
        convolution.
    activation : None or str
        The element-wise function f that is applied to the result, by its public name ("relu", "tanh", ...).
    layout : {"NCHW", "NHWC"}
        Order of the axes of images and kernels.
    out : ndarray, optional
        Written and returned when given; it shares no memory with an argument.

    Returns
    -------
    ndarray, shape (N, K, P, Q) or (N, P, Q, K)
        In the promoted float dtype of the arguments, with
        P = floor((top + H + bottom - dilation * (R - 1) - 1) / stride) + 1 rows, and columns alike.

    Raises
    ------
    ValueError
        Where shapes do not fit, the kernel is larger than the padded image, `groups` does not divide channels
        and kernels, an option is out of its range, or `out` has the wrong shape or dtype, is read-only or
        overlaps an argument.
    TypeError
        Where an argument is not an array of real numbers, or an option not an integer.

    Notes
    -----
    Each sum is accumulated in the compute dtype in an order of the version's own; its error is at most 16
    units of the last place of the sum of the terms' absolute values, and larger where `linear` says so. The
    definition multiplies kernels with a matrix of patches ("im2col").

    The compiled version may compute tiles of 4 by 4 pixels together, or of 2 by 2 with a stride of 2 (3 by 3
    kernels, dilation 1, at most 1 of padding, 32 channels or more), with rounding errors like those of the largest
    among the 6 by 6 or 5 by 5 pixels that a tile is computed from. Tiles of which a window holds little beside
    these, and kernels with a few weights much larger than the others, are computed one pixel at a time: a window
    of zeros gives the bias.

    References
    ----------
    Lavin and Gray, "Fast algorithms for convolutional neural networks", IEEE Conference on Computer Vision and
    Pattern Recognition, 2016.
    Chellapilla, Puri and Simard, "High performance convolutional neural networks for document processing",
    Tenth International Workshop on Frontiers in Handwriting Recognition, 2006.
    """
    x, weight, bias, rows, columns, groups, activation, channels_last, y = _checks.conv2d(
        x, weight, bias, stride, padding, dilation, groups, activation, layout, out
    )
    windows = _windows(_padded(x, rows, columns, channels_last), rows, columns, groups, channels_last)
    kernels = _kernel_matrices(weight, groups)
    z = y.array
    pixels_of = _grouped(z, groups, channels_last)
    for images, lines, pixels in _blocks(windows):
        patches = _as_matrices(windows[images, ..., lines, :], channels_last)
        np.matmul(kernels, patches, out=pixels_of[images, ..., pixels])
    if bias is not None:
        z += bias if channels_last else bias[:, None, None]
    return y.fill(activate(activation, z))


def _kernel_matrices(weight: Array, groups: int) -> Array:
    """The view [group, kernel, term] of the weights in either layout."""
    return weight.reshape(groups, weight.shape[0] // groups, math.prod(weight.shape[1:]))


@kernel(
    backward_of="conv2d",
    options={"needs": ((True, True, True), (True, False, False), (False, True, False), (False, False, True))},
    ulp=16,
    conditioned=True,
    workloads=WORKLOADS,
)
def conv2d_backward(
    grad_out: ArrayLike,
    x: ArrayLike,
    weight: ArrayLike,
    *,
    stride: int | tuple[int, int] = 1,
    padding: Padding = 0,
    dilation: int | tuple[int, int] = 1,
    groups: int = 1,
    layout: str = "NCHW",
    needs: tuple[bool, bool, bool] = (True, True, True),
    out: tuple[Array | None, Array | None, Array | None] | None = None,
) -> tuple[Array | None, Array | None, Array | None]:
    """Gradients of a loss with respect to the arguments of `conv2d` without activation.

    With g = grad_out, h = p * stride + r * dilation - top and w = q * stride + s * dilation - left:
    grad_x[n, c, h, w] = sum of weight[k, c, r, s] g[n, k, p, q] over the k, r, s, p, q that meet there,
    grad_weight[k, c, r, s] = sum over n, p, q of g[n, k, p, q] x[n, c, h, w] and
    grad_bias[k] = sum over n, p, q of g[n, k, p, q]. Undo a fused activation first, by its own backward.

    Parameters
    ----------
    grad_out : array_like, shape (N, K, P, Q) or (N, P, Q, K)
        Gradient with respect to the result of `conv2d` before its activation.
    x : array_like, shape (N, C, H, W) or (N, H, W, C)
        The images of the forward pass.
    weight : array_like, shape (K, C / groups, R, S) or (K, R, S, C / groups)
        The weights of the forward pass.
    stride, padding, dilation, groups, layout
        Those of the forward pass; see `conv2d`.
    needs : tuple of three bool
        Which of the gradients are computed; the first layer of a network has no use for its grad_x.
    out : tuple of three ndarray or None, optional
        Where (grad_x, grad_weight, grad_bias) are written, each that is not None: arrays that are needed, share no
        memory with an argument or each other, and are returned.

    Returns
    -------
    tuple of ndarray or None
        (grad_x, grad_weight, grad_bias) in the shapes of x, weight and bias and in the promoted float dtype
        of the arguments; None where not needed.

    Raises
    ------
    ValueError
        As `conv2d`, and where grad_out has not the shape of its result, `needs` or `out` has not three members, or
        one of `out` is not needed or does not fit.
    TypeError
        Where an argument is not an array of real numbers, an option not an integer, or a need not a bool.

    Notes
    -----
    grad_bias is accumulated in float64; the other sums as in `conv2d`.
    """
    grad_out, x, weight, rows, columns, groups, channels_last, gradients = _checks.conv2d_backward(
        grad_out, x, weight, stride, padding, dilation, groups, layout, needs, out
    )
    grad_x, grad_weight, grad_bias = gradients
    g = _grouped(grad_out, groups, channels_last)
    geometry = rows, columns, groups, channels_last
    return (
        grad_x.fill(_grad_x(g, x.shape, weight, *geometry)) if grad_x else None,
        grad_weight.fill(_grad_weight(g, x, weight.shape, *geometry)) if grad_weight else None,
        grad_bias.fill(np.sum(g, axis=(0, 3), dtype=np.float64).ravel()) if grad_bias else None,
    )


def _grad_x(
    g: Array,
    shape: tuple[int, ...],
    weight: Array,
    rows: Axis,
    columns: Axis,
    groups: int,
    channels_last: bool,
) -> Array:
    """What each window adds to the image below it."""
    padded = np.zeros(_padded_shape(shape, rows, columns, channels_last), g.dtype)
    windows = _windows(padded, rows, columns, groups, channels_last)
    kernels = _kernel_matrices(weight, groups)
    for images, lines, pixels in _blocks(windows):
        g_block = g[images, ..., pixels]
        if channels_last:  # the product in the order of the memory that it is added to
            matrices = (g_block.swapaxes(2, 3) @ kernels).swapaxes(2, 3)
        else:
            matrices = kernels.swapaxes(1, 2) @ g_block
        _add_to_windows(windows[images, ..., lines, :], matrices, channels_last)
    return np.ascontiguousarray(padded[_inner(rows, columns, channels_last)])


def _grad_weight(
    g: Array,
    x: Array,
    shape: tuple[int, ...],
    rows: Axis,
    columns: Axis,
    groups: int,
    channels_last: bool,
) -> Array:
    """The product of gradients and patches, over all pixels of all images."""
    windows = _windows(_padded(x, rows, columns, channels_last), rows, columns, groups, channels_last)
    total = np.zeros((groups, shape[0] // groups, math.prod(shape[1:])), g.dtype)
    for images, lines, pixels in _blocks(windows):
        patches = _as_matrices(windows[images, ..., lines, :], channels_last)
        total += np.sum(g[images, ..., pixels] @ patches.swapaxes(2, 3), axis=0)
    return total.reshape(shape)
