"""The dense layer, its backward and the deltas, by Numba; see `fastnn/linear.py` for what each function is."""

import math

import numpy as np

from fastnn_ext.checks import linear as checks
from fastnn_ext.njit import _calls as calls
from fastnn_ext.njit._gemm import matmul_nn, matmul_nt, matmul_tn
from fastnn_ext.njit._options import njit, widest_vectors
from fastnn_ext.njit.activations import FROM_OUTPUT, activate, multiply_by_derivative

_DTYPES = (np.float32, np.float64)
_NO_BIAS = {np.dtype(dtype): np.empty(0, dtype) for dtype in _DTYPES}
_NO_MATRIX = {np.dtype(dtype): np.empty((0, 0), dtype) for dtype in _DTYPES}


def _rows(array):
    """A plain array as a matrix whose rows run along the last axis."""
    return array if array.ndim == 2 else array.reshape(math.prod(array.shape[:-1]), array.shape[-1])


@njit
def _sum_rows(grad_out, sums):
    """Column sums of grad_out, in float64: there can be millions of rows."""
    total = np.zeros(sums.size, np.float64)
    for i in range(grad_out.shape[0]):
        for j in range(grad_out.shape[1]):
            total[j] += grad_out[i, j]
    for j in range(sums.size):
        sums[j] = total[j]


@njit
def _gradients(grad_out, x, weight, grad_x, grad_weight, grad_bias):
    """Those gradients that have room; in one call, since calls cost as much as small products."""
    no_bias = grad_bias[:0]
    if grad_x.size:
        matmul_nn(grad_out, weight, no_bias, grad_x, False)
    if grad_weight.size:
        matmul_tn(grad_out, x, no_bias, grad_weight, False)
    if grad_bias.size:
        _sum_rows(grad_out, grad_bias)


def _delta(derivative):
    """The call of (y - target) * f' for f' as a formula of the output y."""

    @njit(nogil=False)
    def delta(y, target, out, option):
        widest_vectors()
        result = calls.result_of_two(y, target, out)
        if calls.is_nothing(result):
            return result
        state = calls.release(y)
        y, target, difference = calls.elements(y), calls.elements(target), calls.elements(result)
        option = y.dtype.type(option)
        for i in range(y.size):
            difference[i] = (y[i] - target[i]) * derivative(y[i], option)
        calls.take_back(state)
        return result

    return calls.Call(delta, 2)


_DELTAS = {name: _delta(derivative) for name, derivative in FROM_OUTPUT.items()}


def linear(x, weight, bias=None, *, activation=None, out=None):
    x, weight, bias, activation, output = checks.linear(x, weight, bias, activation, out)
    y = output.array
    matmul_nt(_rows(x), weight, _NO_BIAS[x.dtype] if bias is None else bias, _rows(y), False)
    if activation is not None:
        activate(activation, y)
    return output.deliver()


def linear_backward(grad_out, x, weight, *, needs=(True, True, True)):
    grad_out, x, weight, outputs = checks.linear_backward(grad_out, x, weight, needs)
    for_x, for_weight, for_bias = outputs
    grad_x = _NO_MATRIX[x.dtype] if for_x is None else _rows(for_x.array)
    grad_weight = _NO_MATRIX[x.dtype] if for_weight is None else for_weight.array
    grad_bias = _NO_BIAS[x.dtype] if for_bias is None else for_bias.array
    _gradients(_rows(grad_out), _rows(x), weight, grad_x, grad_weight, grad_bias)
    return tuple(None if output is None else output.deliver() for output in outputs)


def output_delta(y, target, *, activation="sigmoid", loss="half_squared_error", out=None):
    derivative = checks.left_derivative(activation, loss)
    delta = _DELTAS[derivative](y, target, out, 0.0)
    if delta is None:
        y, target, _, output = checks.output_delta(y, target, activation, loss, out)
        _DELTAS[derivative].checked(0.0, y, target, output.array)
        return output.deliver()
    return delta


def hidden_delta(delta_next, weight_next, y, *, activation="sigmoid", out=None):
    delta_next, weight_next, y, activation, output = checks.hidden_delta(
        delta_next, weight_next, y, activation, out
    )
    delta = output.array
    matmul_nn(_rows(delta_next), weight_next, _NO_BIAS[y.dtype], _rows(delta), False)
    if activation is not None:
        multiply_by_derivative(activation, delta, y)
    return output.deliver()
