"""The dense layer, its backward and the deltas, by Numba; see `fastnn/linear.py` for what each function is."""

import math

import numpy as np

from fastnn_ext.checks import linear as checks
from fastnn_ext.checks.activations import from_output, fused
from fastnn_ext.njit import _calls as calls
from fastnn_ext.njit._gemm import matmul_nn, matmul_nt, matmul_tn
from fastnn_ext.njit._options import njit, widest_vectors
from fastnn_ext.njit._reductions import sum_rows
from fastnn_ext.njit.activations import FROM_OUTPUT, activate, multiply_by_derivative

_DTYPES = (np.float32, np.float64)
_NO_BIAS = {np.dtype(dtype): np.empty(0, dtype) for dtype in _DTYPES}
_NO_MATRIX = {np.dtype(dtype): np.empty((0, 0), dtype) for dtype in _DTYPES}


def _rows(array):
    """A plain array as a matrix whose rows run along the last axis."""
    return array if array.ndim == 2 else array.reshape(math.prod(array.shape[:-1]), array.shape[-1])


@njit
def _gradients(grad_out, x, weight, grad_x, grad_weight, grad_bias):
    """Those gradients that have room; in one call, since calls cost as much as small products."""
    no_bias = grad_bias[:0]
    if grad_x.size:
        matmul_nn(grad_out, weight, no_bias, grad_x, False)
    if grad_weight.size:
        matmul_tn(grad_out, x, no_bias, grad_weight, False)
    if grad_bias.size:
        sum_rows(grad_out, grad_bias)


def _delta(derivative):
    """The call of (y - target) * f' for f' as a formula of the output y."""

    @njit(nogil=False)
    def delta(y, target, out):
        widest_vectors()
        result = calls.result_of_two(y, target, out)
        if calls.is_nothing(result):
            return result
        state = calls.release(y)
        y, target, difference = calls.elements(y), calls.elements(target), calls.elements(result)
        for i in range(y.size):
            difference[i] = (y[i] - target[i]) * derivative(y[i], 0)
        calls.take_back(state)
        return result

    return calls.Call(delta)


_DELTAS = {name: _delta(derivative) for name, derivative in FROM_OUTPUT.items()}


@calls.inlined
def _are_factors(a, b, axis):
    """Whether `a` has rows as long as that axis of the matrix `b`."""
    factors = calls.is_array(a) and calls.is_array(b) and calls.ndim(a) > 0 and calls.ndim(b) == 2
    return factors and calls.last_of(a) == calls.shape(b)[axis]


@calls.inlined
def _is_result(out, a, last):
    """Whether `out` can be written: as many rows as `a`, each of length `last`."""
    fits = calls.is_array(out) and calls.is_writable(out) and calls.ndim(out) == calls.ndim(a)
    return fits and calls.have_rows_alike(a, out, calls.ndim(a) - 1) and calls.last_of(out) == last


@njit(nogil=False)
def _linear_call(x, weight, bias, out):
    if not _are_factors(x, weight, 1):
        return calls.nothing(x)
    rows, n, k = calls.rows(x), calls.shape(weight)[0], calls.shape(weight)[1]
    if not calls.is_brief_product(rows, n, k):
        return calls.nothing(x)
    has_bias, has_out = not calls.is_none(bias), not calls.is_none(out)
    if has_bias and not (calls.is_array(bias) and calls.ndim(bias) == 1 and calls.last_of(bias) == n):
        return calls.nothing(x)
    if has_out:
        if not (_is_result(out, x, n) and calls.are_separate(x, out) and calls.are_separate(weight, out)):
            return calls.nothing(x)
        if has_bias and not calls.are_separate(bias, out):
            return calls.nothing(x)
    y = calls.done(out) if has_out else calls.new_rows(x, calls.ndim(x), n)
    if not calls.is_nothing(y):
        start = calls.elements(bias) if has_bias else calls.elements(x)[:0]
        matmul_nt(calls.matrix(x, k), calls.matrix(weight, k), start, calls.matrix(y, n), False)
    return y


@njit(nogil=False)
def _product_call(delta_next, weight_next, y, out):
    """delta_next @ weight_next, which has the shape of y."""
    if not _are_factors(delta_next, weight_next, 0):
        return calls.nothing(y)
    rows, k, n = calls.rows(delta_next), calls.shape(weight_next)[0], calls.shape(weight_next)[1]
    if not (calls.is_brief_product(rows, n, k) and _is_result(y, delta_next, n)):
        return calls.nothing(y)
    has_out = not calls.is_none(out)
    if has_out:
        if not (_is_result(out, delta_next, n) and calls.are_separate(y, out)):
            return calls.nothing(y)
        if not (calls.are_separate(delta_next, out) and calls.are_separate(weight_next, out)):
            return calls.nothing(y)
    delta = calls.done(out) if has_out else calls.new_like(y)
    if not calls.is_nothing(delta):
        start = calls.elements(y)[:0]
        factors = calls.matrix(delta_next, k), calls.matrix(weight_next, n)
        matmul_nn(*factors, start, calls.matrix(delta, n), False)
    return delta


@njit(nogil=False)
def _gradients_call(grad_out, x, weight):
    """All three gradients."""
    if not (_are_factors(x, weight, 1) and _are_factors(grad_out, weight, 0)):
        return calls.nothing(x)
    rows, n, k = calls.rows(x), calls.shape(weight)[0], calls.shape(weight)[1]
    alike = calls.ndim(grad_out) == calls.ndim(x) and calls.have_rows_alike(x, grad_out, calls.ndim(x) - 1)
    if not (alike and calls.is_brief_product(rows, n, k)):
        return calls.nothing(x)
    grad_x = calls.new_like(x)
    if calls.is_nothing(grad_x):
        return grad_x
    grad_weight = calls.new_like(weight)
    if calls.is_nothing(grad_weight):
        return grad_weight
    grad_bias = calls.new_rows(weight, 1, n)
    if calls.is_nothing(grad_bias):
        return grad_bias
    _gradients(
        calls.matrix(grad_out, n),
        calls.matrix(x, k),
        calls.matrix(weight, k),
        calls.matrix(grad_x, k),
        calls.matrix(grad_weight, k),
        calls.elements(grad_bias),
    )
    return calls.as_tuple((grad_x, grad_weight, grad_bias))


_LINEAR, _PRODUCT, _GRADIENTS = (calls.Call(call) for call in (_linear_call, _product_call, _gradients_call))
_ALL = (True, True, True)


def linear(x, weight, bias=None, *, activation=None, out=None):
    if activation is not None:
        activation = fused("linear", activation)
    y = _LINEAR(x, weight, bias, out)
    if y is None:
        return _checked_linear(x, weight, bias, activation, out)
    if activation is not None:
        activate(activation, y)
    return y


def _checked_linear(x, weight, bias, activation, out):
    x, weight, bias, activation, output = checks.linear(x, weight, bias, activation, out)
    y = output.array
    _LINEAR.prepare(y)
    matmul_nt(_rows(x), weight, _NO_BIAS[x.dtype] if bias is None else bias, _rows(y), False)
    if activation is not None:
        activate(activation, y)
    return output.deliver()


def linear_backward(grad_out, x, weight, *, needs=_ALL, out=None):
    gradients = _GRADIENTS(grad_out, x, weight) if needs is _ALL and out is None else None
    return _checked_backward(grad_out, x, weight, needs, out) if gradients is None else gradients


def _checked_backward(grad_out, x, weight, needs, out):
    grad_out, x, weight, outputs = checks.linear_backward(grad_out, x, weight, needs, out)
    _GRADIENTS.prepare(x)
    for_x, for_weight, for_bias = outputs
    grad_x = _NO_MATRIX[x.dtype] if for_x is None else _rows(for_x.array)
    grad_weight = _NO_MATRIX[x.dtype] if for_weight is None else for_weight.array
    grad_bias = _NO_BIAS[x.dtype] if for_bias is None else for_bias.array
    _gradients(_rows(grad_out), _rows(x), weight, grad_x, grad_weight, grad_bias)
    return tuple(None if output is None else output.deliver() for output in outputs)


def output_delta(y, target, *, activation="sigmoid", loss="half_squared_error", out=None):
    call = _DELTAS[checks.left_derivative(activation, loss)]
    delta = call(y, target, out)
    if delta is None:
        y, target, _, output = checks.output_delta(y, target, activation, loss, out)
        call.checked(y, target, output.array)
        return output.deliver()
    return delta


def hidden_delta(delta_next, weight_next, y, *, activation="sigmoid", out=None):
    activation = from_output("hidden_delta", activation)
    delta = _PRODUCT(delta_next, weight_next, y, out)
    if delta is None:
        return _checked_delta(delta_next, weight_next, y, activation, out)
    if activation is not None:
        multiply_by_derivative(activation, delta, y)
    return delta


def _checked_delta(delta_next, weight_next, y, activation, out):
    delta_next, weight_next, y, activation, output = checks.hidden_delta(
        delta_next, weight_next, y, activation, out
    )
    delta = output.array
    _PRODUCT.prepare(y)
    matmul_nn(_rows(delta_next), weight_next, _NO_BIAS[y.dtype], _rows(delta), False)
    if activation is not None:
        multiply_by_derivative(activation, delta, y)
    return output.deliver()
