"""How the windows of a convolution or a pool lie on an image: the geometry that both families share."""

from __future__ import annotations

from typing import Any, NamedTuple

from fastnn_ext import checks
from fastnn_ext.checks import wrong

LAYOUTS = ("NCHW", "NHWC")


class Axis(NamedTuple):
    """The windows along one axis: tap t of window i is at `i * stride + t * dilation - before` of the input.

    Positions outside of 0 to `length - 1` are padding. `after` is the padding at the other end, and `outputs`
    the number of windows: the length of the result.
    """

    length: int
    taps: int
    stride: int
    dilation: int
    before: int
    after: int
    outputs: int

    @property
    def span(self) -> int:
        """From the first tap of a window to the last, both counted."""
        return self.dilation * (self.taps - 1) + 1


def is_channels_last(function: str, layout: Any) -> bool:
    """Whether `layout` is NHWC; a ValueError where it is no layout."""
    return bool(checks.choice(function, "layout", layout, LAYOUTS) == "NHWC")


def plane(shape: tuple[int, ...], channels_last: bool) -> tuple[int, int]:
    """Height and width of an image array of four dimensions."""
    return (shape[1], shape[2]) if channels_last else (shape[2], shape[3])


def image_shape(batch: int, channels: int, height: int, width: int, channels_last: bool) -> tuple[int, ...]:
    """The shape of an image array in its layout."""
    return (batch, height, width, channels) if channels_last else (batch, channels, height, width)


def pair(function: str, argument: str, value: Any, low: int = 1) -> tuple[int, int]:
    """`value` as two integers of at least `low`, for height and width; one integer stands for both."""
    if isinstance(value, (tuple, list)):
        if len(value) != 2:
            raise wrong(ValueError, function, argument, f"is {value!r}", "an integer or a pair of integers")
        first, second = value
    else:
        first = second = value
    height, width = (checks.integer(function, argument, one, low=low) for one in (first, second))
    return height, width


def axes(
    function: str,
    lengths: tuple[int, int],
    taps: tuple[int, int],
    stride: Any,
    padding: Any,
    dilation: Any = 1,
    *,
    ceil: bool = False,
    kernel: str = "kernel_size",
) -> tuple[Axis, Axis]:
    """The axes of height and width; `kernel` is the argument to blame where no window fits."""
    strides = pair(function, "stride", stride)
    dilations = pair(function, "dilation", dilation)
    pads = _pads(function, padding, lengths, taps, strides, dilations)
    rows, columns = (
        _axis(*of_axis, ceil) for of_axis in zip(lengths, taps, strides, dilations, pads, strict=True)
    )
    if rows.outputs < 1 or columns.outputs < 1:
        padded = tuple(axis.length + axis.before + axis.after for axis in (rows, columns))
        given = f"spans {(rows.span, columns.span)}"
        raise wrong(ValueError, function, kernel, given, f"at most the padded input's {padded}")
    return rows, columns


def _axis(length: int, taps: int, stride: int, dilation: int, pads: tuple[int, int], ceil: bool) -> Axis:
    before, after = pads
    room = length + before + after - dilation * (taps - 1) - 1
    count = (-(-room // stride) if ceil else room // stride) + 1
    if ceil and (count - 1) * stride >= length + before:
        count -= 1  # a window that ceil_mode adds starts within the input or the padding before it
    return Axis(length, taps, stride, dilation, before, after, count)


def _pads(
    function: str,
    padding: Any,
    lengths: tuple[int, int],
    taps: tuple[int, int],
    strides: tuple[int, int],
    dilations: tuple[int, int],
) -> tuple[tuple[int, int], tuple[int, int]]:
    """The padding before and after, for height and for width."""
    if isinstance(padding, str):
        if checks.choice(function, "padding", padding, ("same", "valid")) == "valid":
            return (0, 0), (0, 0)
        height, width = map(_same, lengths, taps, strides, dilations)
        return height, width
    sides = padding if isinstance(padding, (tuple, list)) else ()
    if any(isinstance(side, (tuple, list)) for side in sides):
        if not (
            len(sides) == 2 and all(isinstance(side, (tuple, list)) and len(side) == 2 for side in sides)
        ):
            expected = "an integer, (height, width), ((top, bottom), (left, right)), 'same' or 'valid'"
            raise wrong(ValueError, function, "padding", f"is {padding!r}", expected)
        height, width = (pair(function, "padding", side, low=0) for side in sides)
        return height, width
    vertical, horizontal = pair(function, "padding", padding, low=0)
    return (vertical, vertical), (horizontal, horizontal)


def _same(length: int, taps: int, stride: int, dilation: int) -> tuple[int, int]:
    """The padding for `ceil(length / stride)` windows, the odd one after the input (ONNX's SAME_UPPER)."""
    total = max((-(-length // stride) - 1) * stride + dilation * (taps - 1) + 1 - length, 0)
    return total // 2, total - total // 2
