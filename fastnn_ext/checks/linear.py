"""Checks of the dense layer, its backward and the deltas of backpropagation."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from fastnn_ext import checks
from fastnn_ext.checks import Output
from fastnn_ext.checks.activations import FROM_OUTPUT, from_output, fused
from fastnn_ext.checks.packed import unpacked

#: For each loss, the activations it has a delta for, each with the activation whose f' is left in that delta.
DELTAS: dict[str, dict[str | None, str | None]] = {
    "half_squared_error": {activation: activation for activation in (None, *FROM_OUTPUT)},
    "binary_cross_entropy": {"sigmoid": None},
    "cross_entropy": {"softmax": None},
}


def linear(
    x: Any, weight: Any, bias: Any, activation: Any, out: Any
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any] | None, str | None, Output]:
    """Plain x[..., in], weight[out, in] and bias[out] or None, the activation, and the Output[..., out]."""
    activation = fused("linear", activation)
    arrays, given, dtype = checks.floats("linear", x=x, weight=unpacked(weight), bias=bias)
    x, weight, bias = arrays
    checks.at_least("linear", "x", x, 1)
    checks.has_shape("linear", "weight", weight, ("out", x.shape[-1]), "as x has shape", x.shape)
    if bias is not None:
        checks.has_shape("linear", "bias", bias, weight.shape[:1], "as weight has shape", weight.shape)
    y = checks.output("linear", out, (*x.shape[:-1], weight.shape[0]), dtype, reads=given)
    return x, weight, bias, activation, y


def linear_backward(
    grad_out: Any, x: Any, weight: Any, needs: Any, out: Any
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], tuple[Output | None, Output | None, Output | None]]:
    """Plain grad_out[..., out], x[..., in], weight[out, in], and an Output for each needed gradient."""
    name = "linear_backward"
    needs = checks.needed(name, needs)
    arrays, given, dtype = checks.floats(name, grad_out=grad_out, x=x, weight=weight)
    grad_out, x, weight = arrays
    checks.at_least(name, "x", x, 1)
    checks.has_shape(name, "weight", weight, ("out", x.shape[-1]), "as x has shape", x.shape)
    shape = (*x.shape[:-1], weight.shape[0])
    checks.has_shape(name, "grad_out", grad_out, shape, "the shape of linear(x, weight)")
    shapes = x.shape, weight.shape, weight.shape[:1]
    gradients = checks.gradients(name, out, needs, shapes, dtype, given)
    return grad_out, x, weight, gradients


def left_derivative(activation: Any, loss: Any) -> str | None:
    """The activation whose f'(y) multiplies y - target in the delta of `activation` and `loss`, or None."""
    loss = checks.choice("output_delta", "loss", loss, DELTAS)
    return DELTAS[loss][checks.choice("output_delta", "activation", activation, DELTAS[loss])]


def output_delta(
    y: Any, target: Any, activation: Any, loss: Any, out: Any
) -> tuple[NDArray[Any], NDArray[Any], str | None, Output]:
    """Plain y and target, the `left_derivative`, and the Output."""
    derivative = left_derivative(activation, loss)
    y, target, delta = checks.elementwise("output_delta", out, y=y, target=target)
    return y, target, derivative, delta


def hidden_delta(
    delta_next: Any, weight_next: Any, y: Any, activation: Any, out: Any
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], str | None, Output]:
    """Plain delta_next[..., out], weight_next[out, in], y[..., in], the activation, the Output[..., in]."""
    name = "hidden_delta"
    activation = from_output(name, activation)
    arrays, given, dtype = checks.floats(name, delta_next=delta_next, weight_next=weight_next, y=y)
    delta_next, weight_next, y = arrays
    checks.at_least(name, "delta_next", delta_next, 1)
    fitting = (delta_next.shape[-1], "in")
    checks.has_shape(name, "weight_next", weight_next, fitting, "as delta_next has shape", delta_next.shape)
    shape = (*delta_next.shape[:-1], weight_next.shape[1])
    checks.has_shape(name, "y", y, shape, "the shape of delta_next @ weight_next")
    delta = checks.output(name, out, y.shape, dtype, reads=given)
    return delta_next, weight_next, y, activation, delta
