"""How windows lie on an image, for the njit loops of convolution and pooling.

An `axis` is a `fastnn_ext.checks.windows.Axis`.
"""

from fastnn_ext.njit._options import njit


@njit
def inside(axis, tap):
    """The windows whose tap is inside the input, and the input position of the first of them."""
    shift = tap * axis.dilation - axis.before
    first = max(0, (axis.stride - 1 - shift) // axis.stride) if shift < 0 else 0
    end = min(axis.outputs, (axis.length - 1 - shift) // axis.stride + 1) if shift < axis.length else first
    return first, max(first, end), first * axis.stride + shift


@njit
def first_tap(axis, window):
    """The first tap of a window that is inside the input."""
    start = window * axis.stride - axis.before
    return 0 if start >= 0 else (axis.dilation - 1 - start) // axis.dilation
