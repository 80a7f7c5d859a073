"""Checks of the activations, and the choice of one that another kernel applies to its result."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from fastnn_ext import checks

Array = NDArray[Any]

#: What linear and conv2d can apply to their result: None (nothing), and the element-wise activations with
#: their default options.
FUSABLE = (
    None,
    "relu",
    "leaky_relu",
    "elu",
    "selu",
    "gelu",
    "silu",
    "softplus",
    "sigmoid",
    "hard_sigmoid",
    "tanh",
    "hard_tanh",
    "softsign",
    "mish",
    "step",
    "sign",
)
#: Those whose derivative follows from the output alone, which is what deltas are made of.
FROM_OUTPUT = (None, "relu", "sigmoid", "tanh")

#: Options up to this size need no closer look.
_SURELY_FINITE = 1e300


def fused(function: str, activation: Any) -> str | None:
    """The member of FUSABLE that equals `activation`; a ValueError where none does.

    Compiled kernels know those by identity, and a name that was read from a file is another object.
    """
    return FUSABLE[FUSABLE.index(checks.choice(function, "activation", activation, FUSABLE))]


def from_output(function: str, activation: Any) -> str | None:
    """`activation` where it is one of FROM_OUTPUT, else a ValueError."""
    chosen: str | None = checks.choice(function, "activation", activation, FROM_OUTPUT)
    return chosen


def option(function: str, argument: str, value: Any) -> float:
    """A slope, scale or threshold: any finite number."""
    kind = type(value)
    if (kind is float or kind is int) and abs(value) <= _SURELY_FINITE:
        return float(value)
    return checks.number(function, argument, value, finite=True)


def approximate(function: str, value: Any) -> str:
    """Which of the two formulas of gelu."""
    chosen: str = checks.choice(function, "approximate", value, ("none", "tanh"))
    return chosen


def forward(function: str, out: Any, x: Any) -> tuple[Array, checks.Output]:
    """The plain pre-activation, and where the result goes."""
    x, y = checks.elementwise(function, out, x=x)
    return x, y


def backward(function: str, out: Any, grad_out: Any, **saved: Any) -> tuple[Array, Array, checks.Output]:
    """The plain gradient of the output and what was saved, and where the gradient of the input goes."""
    grad_out, saved_array, grad = checks.elementwise(function, out, grad_out=grad_out, **saved)
    return grad_out, saved_array, grad


def softmax(function: str, out: Any, axis: Any, x: Any) -> tuple[Array, int, checks.Output]:
    """`forward`, and the axis counted from the front."""
    x, y = forward(function, out, x)
    return x, axis_of(function, axis, "x", x), y


def softmax_backward(
    function: str, out: Any, axis: Any, grad_out: Any, y: Any
) -> tuple[Array, Array, int, checks.Output]:
    """`backward`, and the axis counted from the front."""
    grad_out, y, grad = backward(function, out, grad_out, y=y)
    return grad_out, y, axis_of(function, axis, "grad_out", grad_out), grad


def axis_of(function: str, axis: Any, argument: str, array: Array) -> int:
    """`axis` counted from the front, where `array` has it."""
    if type(axis) is int and -array.ndim <= axis < array.ndim:
        return axis % array.ndim
    checks.at_least(function, argument, array, 1)
    return checks.integer(function, "axis", axis, low=-array.ndim, high=array.ndim - 1) % array.ndim
