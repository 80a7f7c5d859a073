"""The recurrent layer by Numba; see `fastnn/recurrent.py` for what each function is.

One call goes through all steps: calls cost as much as the product of a small step.
"""

import math

import numpy as np

from fastnn_ext.checks import recurrent as checks
from fastnn_ext.njit._gemm import matmul_nn, matmul_nt, matmul_tn
from fastnn_ext.njit._options import njit, widest_vectors
from fastnn_ext.njit._reductions import sum_rows
from fastnn_ext.njit.activations import FROM_OUTPUT, STATES

_ALL = (True, True, True, True, True)
_NO_GRADIENT = {np.dtype(dtype): np.empty((1, 0), dtype) for dtype in (np.float32, np.float64)}


def _rows(array):
    """A plain array as a matrix whose rows run along the last axis."""
    return array.reshape(math.prod(array.shape[:-1]), array.shape[-1])


def _forward(f):
    @njit
    def apply(z):
        widest_vectors()
        zero = z.dtype.type(0)
        for i in range(z.size):
            z[i] = f(z[i], zero)

    @njit
    def forward(x, weight_ih, weight_hh, bias, h0, outputs):
        """outputs[step, sample, unit]; the inputs of all steps are the rows of x."""
        steps, n, units = outputs.shape
        matmul_nt(x, weight_ih, bias, outputs.reshape(steps * n, units), False)
        for step in range(steps):
            state = h0 if step == 0 else outputs[step - 1]
            matmul_nt(state, weight_hh, bias[:0], outputs[step], True)
            apply(outputs[step].reshape(n * units))

    return forward


def _backward(derivative):
    @njit
    def multiply(delta, g, y):
        widest_vectors()
        zero = y.dtype.type(0)
        for i in range(y.size):
            delta[i] = (delta[i] + g[i]) * derivative(y[i], zero)

    @njit
    def backward(grad_outputs, weight_hh, outputs, grad_h_n, delta, grad_h0):
        steps, n, units = outputs.shape
        no_bias = weight_hh.reshape(units * units)[:0]
        grad_h0[:] = 0
        if grad_h_n.size:
            grad_h0[:] = grad_h_n
        for step in range(steps - 1, -1, -1):
            delta[step] = grad_h0
            flat = delta[step].reshape(n * units)
            multiply(flat, grad_outputs[step].reshape(n * units), outputs[step].reshape(n * units))
            matmul_nn(delta[step], weight_hh, no_bias, grad_h0, False)

    return backward


_FORWARD = {name: _forward(f) for name, f in STATES.items()}
_BACKWARD = {name: _backward(FROM_OUTPUT[name]) for name in STATES}


@njit
def _gradients(delta, x, weight_ih, h0, outputs, needs, grad_x, grad_weight_ih, grad_weight_hh, grad_bias):
    """The needed gradients of inputs, weights and bias, from the rows of all steps; the first `n` follow on h0."""
    n, rows = h0.shape[0], delta.shape[0]
    no_bias = grad_bias[:0]
    if needs[0]:
        matmul_nn(delta, weight_ih, no_bias, grad_x, False)
    if needs[1]:
        matmul_tn(delta, x, no_bias, grad_weight_ih, False)
    if needs[2]:
        first = min(n, rows)
        matmul_tn(delta[:first], h0[:first], no_bias, grad_weight_hh, False)
        if rows > n:
            matmul_tn(delta[n:], outputs[: rows - n], no_bias, grad_weight_hh, True)
    if needs[3]:
        sum_rows(delta, grad_bias)


def rnn(x, weight_ih, weight_hh, bias, h0, *, nonlinearity="tanh", out=None):
    arrays, nonlinearity, output, last = checks.rnn(x, weight_ih, weight_hh, bias, h0, nonlinearity, out)
    x, weight_ih, weight_hh, bias, h0 = arrays
    outputs = output.array
    _FORWARD[nonlinearity](_rows(x), weight_ih, weight_hh, bias, h0, outputs)
    last.array[...] = outputs[-1] if len(outputs) else h0
    return output.deliver(), last.deliver()


def rnn_backward(
    grad_outputs, x, weight_ih, weight_hh, h0, outputs, grad_h_n=None, *, nonlinearity="tanh", needs=_ALL
):
    arrays, grad_h_n, nonlinearity, results = checks.rnn_backward(
        grad_outputs, x, weight_ih, weight_hh, h0, outputs, grad_h_n, nonlinearity, needs
    )
    grad_outputs, x, weight_ih, weight_hh, h0, outputs = arrays
    delta, none = np.empty_like(outputs), _NO_GRADIENT[x.dtype]
    grad_x, grad_weight_ih, grad_weight_hh, grad_bias, grad_h0 = (
        None if result is None else result.array for result in results
    )
    last, first = none if grad_h_n is None else grad_h_n, np.empty_like(h0) if grad_h0 is None else grad_h0
    _BACKWARD[nonlinearity](grad_outputs, weight_hh, outputs, last, delta, first)
    gradients = (
        none if grad_x is None else _rows(grad_x),
        none if grad_weight_ih is None else grad_weight_ih,
        none if grad_weight_hh is None else grad_weight_hh,
        none[0] if grad_bias is None else grad_bias,
    )
    needed = tuple(result is not None for result in results)
    _gradients(_rows(delta), _rows(x), weight_ih, h0, _rows(outputs), needed, *gradients)
    return tuple(None if result is None else result.deliver() for result in results)
