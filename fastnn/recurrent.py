"""The recurrent layer of Elman and its backward, through time."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastnn._contract import Draw, kernel
from fastnn.activations import activate, derivative_from_output
from fastnn_ext.checks import recurrent as checks
from fastnn_ext.checks.recurrent import NONLINEARITIES

Array = NDArray[Any]

#: A stream of single steps, the rows of digits, sentences, and more units than a cache holds weights of.
WORKLOADS = {
    f"{t}x{n}x{inputs}->{units}": {"t": t, "n": n, "in": inputs, "h": units}
    for t, n, inputs, units in ((50, 1, 16, 32), (28, 64, 28, 128), (35, 20, 200, 200), (64, 32, 256, 512))
}


def _sequences(draw: Draw, **_: Any) -> dict[str, Any]:
    """Weights between units that are small enough for no error to grow from step to step."""
    steps, n, inputs, units = draw.size("t"), draw.size("n"), draw.size("in"), draw.size("h")
    scale, scale_hh = 1 / math.sqrt(max(inputs, 1)), 1 / max(units, 1)
    return {
        "x": draw.real(steps, n, inputs),
        "weight_ih": draw.real(units, inputs, low=-scale, high=scale),
        "weight_hh": draw.real(units, units, low=-scale_hh, high=scale_hh),
        "bias": draw.real(units, low=-1, high=1),
        "h0": draw.real(n, units, low=-1, high=1),
    }


def _rows(array: Array) -> Array:
    """The samples of all steps as the rows of a matrix."""
    return array.reshape(math.prod(array.shape[:-1]), array.shape[-1])


@kernel(
    example=_sequences,
    options={"nonlinearity": NONLINEARITIES},
    ulp=32,
    conditioned=True,
    results=("outputs", "h_n"),
    workloads=WORKLOADS,
)
def rnn(
    x: ArrayLike,
    weight_ih: ArrayLike,
    weight_hh: ArrayLike,
    bias: ArrayLike,
    h0: ArrayLike,
    *,
    nonlinearity: str = "tanh",
    out: Array | None = None,
) -> tuple[Array, Array]:
    """Recurrent layer, outputs[t] = f(x[t] @ weight_ih.T + bias + outputs[t - 1] @ weight_hh.T).

    Before the first step the units have the states h0.

    Parameters
    ----------
    x : array_like, shape (T, N, in)
        T steps of N sequences.
    weight_ih : array_like, shape (h, in)
        Row i holds the weights of the inputs into unit i.
    weight_hh : array_like, shape (h, h)
        Row i holds the weights of the units' states into unit i.
    bias : array_like, shape (h,)
        Added to every row. (PyTorch has two, for inputs and states, of which only the sum counts.)
    h0 : array_like, shape (N, h)
        The states before the first step.
    nonlinearity : {"tanh", "relu"}
        The function f.
    out : ndarray, shape (T, N, h), optional
        Where the outputs go; it shares no memory with an argument.

    Returns
    -------
    outputs : ndarray, shape (T, N, h)
        The states after each step, in the promoted float dtype of the arguments.
    h_n : ndarray, shape (N, h)
        The states after the last step; h0 where there is none.

    Raises
    ------
    ValueError
        Where the shapes do not fit, the nonlinearity is unknown, or `out` does not fit.
    TypeError
        Where an argument is not an array of real numbers.

    Notes
    -----
    The sums of a step are accumulated in the compute dtype, as in `linear`. Their error is at most 32 units of the
    last place of f of the sum of the terms' absolute values, where weight_hh is small enough for the errors of earlier
    steps to fade.

    References
    ----------
    Elman, "Finding Structure in Time", Cognitive Science 14, 1990.
    """
    arrays, nonlinearity, outputs, last = checks.rnn(x, weight_ih, weight_hh, bias, h0, nonlinearity, out)
    x, weight_ih, weight_hh, bias, state = arrays
    z = (_rows(x) @ weight_ih.T + bias).reshape(x.shape[0], *state.shape)
    for step in z:
        step += state @ weight_hh.T
        step[...] = state = activate(nonlinearity, step)
    return outputs.fill(z), last.fill(np.copy(state))


@kernel(
    backward_of="rnn",
    options={
        "needs": (
            (True, True, True, True, True),
            (False, True, True, True, False),
            (True, False, True, False, False),
            (False, False, False, True, True),
        )
    },
    ulp=32,
    conditioned=True,
    workloads=WORKLOADS,
)
def rnn_backward(
    grad_outputs: ArrayLike,
    x: ArrayLike,
    weight_ih: ArrayLike,
    weight_hh: ArrayLike,
    h0: ArrayLike,
    outputs: ArrayLike,
    grad_h_n: ArrayLike | None = None,
    *,
    nonlinearity: str = "tanh",
    needs: tuple[bool, bool, bool, bool, bool] = (True, True, True, True, True),
) -> tuple[Array | None, Array | None, Array | None, Array | None, Array | None]:
    """Gradients of a loss with respect to the arguments of `rnn`, by backpropagation through time.

    From the last step to the first, delta[t] = (grad_outputs[t] + delta[t + 1] @ weight_hh) f'(z[t]). With rows for
    the samples of all steps, grad_x = delta @ weight_ih, grad_weight_ih = delta.T @ x, grad_bias is delta summed over
    the rows, and grad_weight_hh = delta.T @ the states before each step; grad_h0 = delta[0] @ weight_hh.

    Parameters
    ----------
    grad_outputs : array_like, shape (T, N, h)
        Gradient with respect to the outputs of `rnn`.
    x : array_like, shape (T, N, in)
        The inputs of the forward pass.
    weight_ih, weight_hh : array_like, shapes (h, in) and (h, h)
        The weights of the forward pass.
    h0 : array_like, shape (N, h)
        The states before the first step.
    outputs : array_like, shape (T, N, h)
        What the forward pass returned, from which f' follows.
    grad_h_n : array_like, shape (N, h), optional
        Gradient with respect to h_n, added to that of the last outputs; nothing is where it is None.
    nonlinearity : {"tanh", "relu"}
        That of the forward pass.
    needs : tuple of five bool
        Which of the gradients are computed; the first layer of a network has no use for its grad_x.

    Returns
    -------
    tuple of ndarray or None
        (grad_x, grad_weight_ih, grad_weight_hh, grad_bias, grad_h0) in the shapes of the arguments and in their
        promoted float dtype; None where not needed.

    Raises
    ------
    ValueError
        Where the shapes do not fit, the nonlinearity is unknown, or `needs` has not five members.
    TypeError
        Where an argument is not an array of real numbers, or a need not a bool.

    Notes
    -----
    grad_bias is accumulated in float64; the products as in `linear`.

    References
    ----------
    Werbos, "Backpropagation Through Time: What It Does and How to Do It", Proceedings of the IEEE 78, 1990.
    """
    arrays, gradient, nonlinearity, results = checks.rnn_backward(
        grad_outputs, x, weight_ih, weight_hh, h0, outputs, grad_h_n, nonlinearity, needs
    )
    grad_outputs, x, weight_ih, weight_hh, h0, outputs = arrays
    delta = derivative_from_output(nonlinearity, outputs)
    later = np.zeros_like(h0) if gradient is None else gradient
    for step in range(len(x) - 1, -1, -1):
        delta[step] *= grad_outputs[step] + later
        later = delta[step] @ weight_hh
    before = np.concatenate([h0[np.newaxis], outputs])[: len(x)]
    d = _rows(delta)
    grad_x, grad_weight_ih, grad_weight_hh, grad_bias, grad_h0 = results
    return (
        grad_x.fill((d @ weight_ih).reshape(x.shape)) if grad_x else None,
        grad_weight_ih.fill(d.T @ _rows(x)) if grad_weight_ih else None,
        grad_weight_hh.fill(d.T @ _rows(before)) if grad_weight_hh else None,
        grad_bias.fill(np.sum(d, axis=0, dtype=np.float64)) if grad_bias else None,
        grad_h0.fill(np.copy(later)) if grad_h0 else None,
    )
