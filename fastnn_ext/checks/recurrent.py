"""Checks of the recurrent layer and its backward."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from fastnn_ext import checks
from fastnn_ext.checks import Output

Array = NDArray[Any]
Arrays = tuple[Array, ...]

NONLINEARITIES = ("tanh", "relu")


def rnn(
    x: Any, weight_ih: Any, weight_hh: Any, bias: Any, h0: Any, nonlinearity: Any, out: Any
) -> tuple[Arrays, str, Output, Output]:
    """Plain x, weight_ih, weight_hh, bias and h0, the nonlinearity, and the Outputs of the states and the last one."""
    name = "rnn"
    nonlinearity = checks.choice(name, "nonlinearity", nonlinearity, NONLINEARITIES)
    bias = checks.as_real(name, "bias", bias)
    arrays, given, dtype = checks.floats(
        name, x=x, weight_ih=weight_ih, weight_hh=weight_hh, bias=bias, h0=h0
    )
    x, weight_ih, weight_hh, bias, h0 = arrays
    _fit(name, x, weight_ih, weight_hh, h0)
    checks.has_shape(name, "bias", bias, h0.shape[1:], "as weight_hh has shape", weight_hh.shape)
    outputs = checks.output(name, out, (x.shape[0], *h0.shape), dtype, reads=given)
    last = checks.output(name, None, h0.shape, dtype, argument="h_n")
    return tuple(arrays), nonlinearity, outputs, last


def rnn_backward(
    grad_outputs: Any,
    x: Any,
    weight_ih: Any,
    weight_hh: Any,
    h0: Any,
    outputs: Any,
    grad_h_n: Any,
    nonlinearity: Any,
    needs: Any,
) -> tuple[Arrays, Array | None, str, tuple[Output | None, ...]]:
    """Plain grad_outputs, x, weight_ih, weight_hh, h0 and outputs, grad_h_n or None, nonlinearity, and the Outputs.

    There is no Output for a gradient that is not needed.
    """
    name = "rnn_backward"
    expected = "five bools, for the gradients of x, weight_ih, weight_hh, bias and h0"
    needed = checks.booleans(name, "needs", needs, 5, expected)
    nonlinearity = checks.choice(name, "nonlinearity", nonlinearity, NONLINEARITIES)
    arguments = {
        "grad_outputs": grad_outputs,
        "x": x,
        "weight_ih": weight_ih,
        "weight_hh": weight_hh,
        "h0": h0,
        "outputs": outputs,
        **checks.present(grad_h_n=grad_h_n),
    }
    arrays, _, dtype = checks.floats(name, **arguments)
    grad_outputs, x, weight_ih, weight_hh, h0, outputs, *gradients = arrays
    _fit(name, x, weight_ih, weight_hh, h0)
    shape = (x.shape[0], *h0.shape)
    checks.has_shape(name, "outputs", outputs, shape, "as x and h0 have it")
    checks.has_shape(name, "grad_outputs", grad_outputs, shape, "as x and h0 have it")
    for gradient in gradients:
        checks.has_shape(name, "grad_h_n", gradient, h0.shape, "the shape of h0")
    results = {
        "grad_x": x.shape,
        "grad_weight_ih": weight_ih.shape,
        "grad_weight_hh": weight_hh.shape,
        "grad_bias": h0.shape[1:],
        "grad_h0": h0.shape,
    }
    written = tuple(
        checks.output(name, None, size, dtype, argument=argument) if need else None
        for need, (argument, size) in zip(needed, results.items(), strict=True)
    )
    return tuple(arrays[:6]), gradients[0] if gradients else None, nonlinearity, written


def _fit(function: str, x: Array, weight_ih: Array, weight_hh: Array, h0: Array) -> None:
    """A ValueError where x[T, N, in], weight_ih[h, in], weight_hh[h, h] and h0[N, h] do not fit together."""
    checks.has_shape(function, "x", x, ("T", "N", "in"))
    checks.has_shape(function, "weight_ih", weight_ih, ("h", x.shape[2]), "as x has shape", x.shape)
    units = weight_ih.shape[0]
    checks.has_shape(
        function, "weight_hh", weight_hh, (units, units), "as weight_ih has shape", weight_ih.shape
    )
    checks.has_shape(function, "h0", h0, (x.shape[1], units), "as x and weight_ih have it")
