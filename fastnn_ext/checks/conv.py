"""Checks of the 2-D convolution and its backward."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from fastnn_ext import checks
from fastnn_ext.checks import Output, wrong
from fastnn_ext.checks.activations import fused
from fastnn_ext.checks.packed import unpacked
from fastnn_ext.checks.windows import Axis, axes, image_shape, is_channels_last, plane


def conv2d(
    x: Any,
    weight: Any,
    bias: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: Any,
    activation: Any,
    layout: Any,
    out: Any,
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any] | None, Axis, Axis, int, str | None, bool, Output]:
    """Plain arrays (or no bias), the geometry, the activation, whether channels are last, and the Output."""
    name = "conv2d"
    activation = fused(name, activation)
    channels_last = is_channels_last(name, layout)
    arrays, given, dtype = checks.floats(name, x=x, weight=unpacked(weight), bias=bias)
    x, weight, bias = arrays
    rows, columns, groups = _geometry(name, x, weight, stride, padding, dilation, groups, channels_last)
    if bias is not None:
        checks.has_shape(name, "bias", bias, weight.shape[:1], "as weight has shape", weight.shape)
    shape = image_shape(x.shape[0], weight.shape[0], rows.outputs, columns.outputs, channels_last)
    y = checks.output(name, out, shape, dtype, reads=given)
    return x, weight, bias, rows, columns, groups, activation, channels_last, y


def conv2d_backward(
    grad_out: Any,
    x: Any,
    weight: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: Any,
    layout: Any,
    needs: Any,
    out: Any,
) -> tuple[
    NDArray[Any],
    NDArray[Any],
    NDArray[Any],
    Axis,
    Axis,
    int,
    bool,
    tuple[Output | None, Output | None, Output | None],
]:
    """Plain arrays, the geometry, whether channels are last, and an Output for each gradient needed."""
    name = "conv2d_backward"
    needs = checks.needed(name, needs)
    channels_last = is_channels_last(name, layout)
    arrays, given, dtype = checks.floats(name, grad_out=grad_out, x=x, weight=weight)
    grad_out, x, weight = arrays
    rows, columns, groups = _geometry(name, x, weight, stride, padding, dilation, groups, channels_last)
    shape = image_shape(x.shape[0], weight.shape[0], rows.outputs, columns.outputs, channels_last)
    checks.has_shape(name, "grad_out", grad_out, shape, "the shape of conv2d(x, weight)")
    shapes = x.shape, weight.shape, weight.shape[:1]
    gradients = checks.gradients(name, out, needs, shapes, dtype, given)
    return grad_out, x, weight, rows, columns, groups, channels_last, gradients


def _geometry(
    function: str,
    x: NDArray[Any],
    weight: NDArray[Any],
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: Any,
    channels_last: bool,
) -> tuple[Axis, Axis, int]:
    """The axes and groups of a convolution whose arrays fit each other."""
    groups = checks.integer(function, "groups", groups, low=1)
    checks.has_shape(function, "x", x, ("N", "H", "W", "C") if channels_last else ("N", "C", "H", "W"))
    channels = x.shape[3 if channels_last else 1]
    if channels % groups:
        raise wrong(ValueError, function, "groups", f"is {groups}", f"a divisor of x's {channels} channels")
    per_group = channels // groups
    checks.has_shape(
        function,
        "weight",
        weight,
        ("K", "R", "S", per_group) if channels_last else ("K", per_group, "R", "S"),
        f"as x has {channels} channels in {groups} group(s)",
    )
    kernels = weight.shape[0]
    if kernels % groups:
        raise wrong(
            ValueError, function, "groups", f"is {groups}", f"a divisor of weight's {kernels} kernels"
        )
    taps = plane(weight.shape, channels_last)
    if 0 in taps:
        raise wrong(ValueError, function, "weight", f"has shape {weight.shape}", "a kernel of at least 1 x 1")
    rows, columns = axes(
        function, plane(x.shape, channels_last), taps, stride, padding, dilation, kernel="weight"
    )
    return rows, columns, groups
