"""Activations by Numba; see `fastnn/activations.py` for what each function is.

The formulas are those of `pyx/formulas.pxd`. Each takes x and the option of its kernel and stays in the type
of x, to which `real` brings its constants. Both sides of a selection are computed beforehand, so that a loop
has no branch and becomes vector code.
"""

import math

import numpy as np

from fastnn_ext.checks import activations as checks
from fastnn_ext.njit import _calls as calls
from fastnn_ext.njit import _vmath as vmath
from fastnn_ext.njit._options import njit, widest_vectors
from fastnn_ext.njit._reductions import PIECE, add, inlined, largest, reordered, sum_of_piece

_FAR = 1000.0
_SELU_SCALE, _SELU_ALPHA = 1.0507009873554804934193349852946, 1.6732632423543772848170429916717
_TANH_SLOPE, _TANH_CUBIC = 1.5957691216057307117, 0.071354816272600247  # 2 sqrt(2 / pi), and 0.044715 of it
_DENSITY = 0.39894228040143267794  # 1 / sqrt(2 pi)


@inlined
def real(value, x):
    """`value` in the type of x."""
    return type(x)(value)


@inlined
def _at_least(x, low):
    limit = real(low, x)
    return limit if x < limit else x


@inlined
def _clipped(x, low, high):
    limit = real(high, x)
    x = _at_least(x, low)
    return limit if x > limit else x


@inlined
def _chosen(condition, yes, no, x):
    """One of two numbers; NaN where x is NaN."""
    value = real(yes, x) if condition else real(no, x)
    return x if x != x else value


# ----------------------------------------------------------------------------------------------------
# Formulas


@inlined
def _one(x, option):
    return real(1, x)


@inlined
def _flat(x, option):
    return _chosen(True, 0, 0, x)


@inlined
def _step(x, threshold):
    return _chosen(x >= threshold, 1, 0, x)


@inlined
def _sign(x, option):
    below = real(-1, x) if x < 0 else x
    return real(1, x) if x > 0 else below


@inlined
def _relu(x, option):
    return _at_least(x, 0)


@inlined
def _relu_derivative(x, option):
    return _chosen(x > 0, 1, 0, x)


@inlined
def _leaky_relu(x, negative_slope):
    below = negative_slope * x
    return x if x > 0 else below


@inlined
def _leaky_relu_derivative(x, negative_slope):
    return _chosen(x > 0, 1, negative_slope, x)


@inlined
def _elu(x, alpha):
    below = alpha * vmath.expm1(x)
    return x if x > 0 else below


@inlined
def _elu_derivative(x, alpha):
    below = alpha * vmath.exp(x)
    return real(1, x) if x > 0 else below


@inlined
def _selu(x, option):
    return real(_SELU_SCALE, x) * _elu(x, real(_SELU_ALPHA, x))


@inlined
def _selu_derivative(x, option):
    return real(_SELU_SCALE, x) * _elu_derivative(x, real(_SELU_ALPHA, x))


@inlined
def _gelu(x, option):
    return _at_least(x, -_FAR) * vmath.normal_cdf(x)


@inlined
def _gelu_derivative(x, option):
    z = _clipped(x, -_FAR, _FAR)
    return vmath.normal_cdf(x) + z * (real(_DENSITY, x) * vmath.exp(real(-0.5, x) * z * z))


@inlined
def _tanh_argument(z):
    return z * (real(_TANH_SLOPE, z) + real(_TANH_CUBIC, z) * (z * z))


@inlined
def _gelu_tanh(x, option):
    return _at_least(x, -_FAR) * vmath.sigmoid(_tanh_argument(_clipped(x, -_FAR, _FAR)))


@inlined
def _gelu_tanh_derivative(x, option):
    z = _clipped(x, -_FAR, _FAR)
    slope = real(_TANH_SLOPE, x) + real(3 * _TANH_CUBIC, x) * (z * z)
    return _sigmoid_and_slope(_tanh_argument(z), z * slope)


@inlined
def _sigmoid_and_slope(x, factor):
    """sigmoid(x) + factor * sigmoid'(x), with one exponential."""
    one = real(1, x)
    e = vmath.exp(-abs(x))
    r = one / (one + e)
    return r * ((e if x < 0 else one) + factor * (e * r))


@inlined
def _silu(x, option):
    return vmath.silu(x)


@inlined
def _silu_derivative(x, option):
    return _sigmoid_and_slope(x, _clipped(x, -_FAR, _FAR))


@inlined
def _mish(x, option):
    return vmath.mish(x)


@inlined
def _mish_derivative(x, option):
    one, two = real(1, x), real(2, x)
    e = vmath.exp(-abs(x))
    square = e * e
    n = one + two * e if x > 0 else e * (e + two)
    r = one / (n + (two * square if x > 0 else two))
    slope = real(4, x) * (one + e) * (square if x > 0 else e)
    return r * (n + _clipped(x, -_FAR, _FAR) * (slope * r))


@inlined
def _softplus(x, option):
    return vmath.softplus(x)


@inlined
def _sigmoid(x, option):
    return vmath.sigmoid(x)


@inlined
def _sigmoid_derivative(x, option):
    one = real(1, x)
    e = vmath.exp(-abs(x))
    r = one / (one + e)
    return e * r * r


@inlined
def _sigmoid_from_output(y, option):
    return y * (real(1, y) - y)


@inlined
def _hard_sigmoid(x, option):
    return _clipped(x + real(3, x), 0, 6) * real(1 / 6, x)


@inlined
def _hard_sigmoid_derivative(x, option):
    return _chosen(abs(x) < 3, 1 / 6, 0, x)


@inlined
def _tanh(x, option):
    return vmath.tanh(x)


@inlined
def _tanh_derivative(x, option):
    return real(4, x) * _sigmoid_derivative(real(2, x) * _clipped(x, -_FAR, _FAR), option)


@inlined
def _tanh_from_output(y, option):
    return (real(1, y) - y) * (real(1, y) + y)


@inlined
def _hard_tanh(x, option):
    return _clipped(x, -1, 1)


@inlined
def _hard_tanh_derivative(x, option):
    return _chosen(abs(x) < 1, 1, 0, x)


@inlined
def _softsign(x, option):
    z = _clipped(x, -1e30, 1e30)
    return z / (real(1, x) + abs(z))


@inlined
def _softsign_derivative(x, option):
    r = real(1, x) / (real(1, x) + abs(x))
    return r * r


# ----------------------------------------------------------------------------------------------------
# Loops. Those over one array less are for results in place: one array given twice would be taken for two that
# overlap, and those are not done by vector code.


class _Map:
    """y = f(x) and y = g * f(x) over plain arrays, as calls by dtype; each is compiled at its first use."""

    def __init__(self, formula):
        @njit(nogil=False)
        def forward(x, out, option):
            widest_vectors()
            value = calls.number(option)
            result = calls.result(x, out) if calls.is_finite(value) else calls.nothing(x)
            if calls.is_nothing(result):
                return result
            state = calls.release(x)
            y = calls.elements(result)
            value = y.dtype.type(value)
            if calls.are_same(x, result):
                for i in range(y.size):
                    y[i] = formula(y[i], value)
            else:
                x = calls.elements(x)
                for i in range(y.size):
                    y[i] = formula(x[i], value)
            calls.take_back(state)
            return result

        @njit(nogil=False)
        def backward(g, x, out, option):
            widest_vectors()
            value = calls.number(option)
            result = calls.result_of_two(g, x, out) if calls.is_finite(value) else calls.nothing(g)
            if calls.is_nothing(result):
                return result
            state = calls.release(x)
            x, y = calls.elements(x), calls.elements(result)
            value = y.dtype.type(value)
            if calls.are_same(g, result):
                for i in range(y.size):
                    y[i] *= formula(x[i], value)
            else:
                g = calls.elements(g)
                for i in range(y.size):
                    y[i] = g[i] * formula(x[i], value)
            calls.take_back(state)
            return result

        self.forward, self.backward = calls.Call(forward), calls.Call(backward)


# The machine code is called by each of these on its own: a call from Python to Python costs as much as a small array.


def _forward(function, f, x, out, argument, value):
    """y = f(x) with an option."""
    for run in f.forward.runs:
        y = run(x, out, value)
        if y is not None:
            return y
    return _checked_forward(function, f, x, out, checks.option(function, argument, value))


def _checked_forward(function, f, x, out, option):
    x, output = checks.forward(function, out, x)
    f.forward.checked(x, output.array, option)
    return output.deliver()


def _backward(function, f, grad_out, x, out, argument, value):
    """grad_out * f(x) with an option."""
    for run in f.backward.runs:
        grad = run(grad_out, x, out, value)
        if grad is not None:
            return grad
    option = checks.option(function, argument, value)
    return _checked_backward(function, f, out, option, grad_out=grad_out, x=x)


def _checked_backward(function, f, out, option, **arrays):
    grad_out, saved, output = checks.backward(function, out, **arrays)
    f.backward.checked(grad_out, saved, output.array, option)
    return output.deliver()


def _kernel(name, f):
    """The kernel y = f(x)."""
    runs = f.forward.runs

    def kernel(x, *, out=None):
        for run in runs:
            y = run(x, out, 0.0)
            if y is not None:
                return y
        return _checked_forward(name, f, x, out, 0.0)

    return _named(kernel, name)


def _backward_from_input(name, f):
    """The kernel grad_out * f(x)."""
    runs = f.backward.runs

    def kernel(grad_out, x, *, out=None):
        for run in runs:
            grad = run(grad_out, x, out, 0.0)
            if grad is not None:
                return grad
        return _checked_backward(name, f, out, 0.0, grad_out=grad_out, x=x)

    return _named(kernel, name)


def _backward_from_output(name, f):
    """The kernel grad_out * f(y)."""
    runs = f.backward.runs

    def kernel(grad_out, y, *, out=None):
        for run in runs:
            grad = run(grad_out, y, out, 0.0)
            if grad is not None:
                return grad
        return _checked_backward(name, f, out, 0.0, grad_out=grad_out, y=y)

    return _named(kernel, name)


def _named(kernel, name):
    kernel.__name__ = kernel.__qualname__ = name
    return kernel


# ----------------------------------------------------------------------------------------------------
# Kernels

_STEP = _Map(_step)
_FLAT = _Map(_flat)
_SIGN = _Map(_sign)
_RELU = _Map(_relu)
_RELU_DERIVATIVE = _Map(_relu_derivative)
_LEAKY_RELU = _Map(_leaky_relu)
_LEAKY_RELU_DERIVATIVE = _Map(_leaky_relu_derivative)
_ELU = _Map(_elu)
_ELU_DERIVATIVE = _Map(_elu_derivative)
_SELU = _Map(_selu)
_SELU_DERIVATIVE = _Map(_selu_derivative)
_GELU = _Map(_gelu)
_GELU_TANH = _Map(_gelu_tanh)
_GELU_DERIVATIVE = _Map(_gelu_derivative)
_GELU_TANH_DERIVATIVE = _Map(_gelu_tanh_derivative)
_SILU = _Map(_silu)
_SILU_DERIVATIVE = _Map(_silu_derivative)
_MISH = _Map(_mish)
_MISH_DERIVATIVE = _Map(_mish_derivative)
_SOFTPLUS = _Map(_softplus)
_SIGMOID = _Map(_sigmoid)
_SIGMOID_DERIVATIVE = _Map(_sigmoid_derivative)
_SIGMOID_FROM_OUTPUT = _Map(_sigmoid_from_output)
_HARD_SIGMOID = _Map(_hard_sigmoid)
_HARD_SIGMOID_DERIVATIVE = _Map(_hard_sigmoid_derivative)
_TANH = _Map(_tanh)
_TANH_DERIVATIVE = _Map(_tanh_derivative)
_TANH_FROM_OUTPUT = _Map(_tanh_from_output)
_HARD_TANH = _Map(_hard_tanh)
_HARD_TANH_DERIVATIVE = _Map(_hard_tanh_derivative)
_SOFTSIGN = _Map(_softsign)
_SOFTSIGN_DERIVATIVE = _Map(_softsign_derivative)


def step(x, *, threshold=0, out=None):
    return _forward("step", _STEP, x, out, "threshold", threshold)


def step_derivative(x, *, threshold=0, out=None):
    return _forward("step_derivative", _FLAT, x, out, "threshold", threshold)


def step_backward(grad_out, x, *, threshold=0, out=None):
    return _backward("step_backward", _FLAT, grad_out, x, out, "threshold", threshold)


sign = _kernel("sign", _SIGN)
sign_derivative = _kernel("sign_derivative", _FLAT)
sign_backward = _backward_from_input("sign_backward", _FLAT)


relu = _kernel("relu", _RELU)
relu_derivative = _kernel("relu_derivative", _RELU_DERIVATIVE)
relu_backward = _backward_from_output("relu_backward", _RELU_DERIVATIVE)


def leaky_relu(x, *, negative_slope=0.01, out=None):
    return _forward("leaky_relu", _LEAKY_RELU, x, out, "negative_slope", negative_slope)


def leaky_relu_derivative(x, *, negative_slope=0.01, out=None):
    return _forward("leaky_relu_derivative", _LEAKY_RELU_DERIVATIVE, x, out, "negative_slope", negative_slope)


def leaky_relu_backward(grad_out, x, *, negative_slope=0.01, out=None):
    return _backward(
        "leaky_relu_backward", _LEAKY_RELU_DERIVATIVE, grad_out, x, out, "negative_slope", negative_slope
    )


def elu(x, *, alpha=1, out=None):
    return _forward("elu", _ELU, x, out, "alpha", alpha)


def elu_derivative(x, *, alpha=1, out=None):
    return _forward("elu_derivative", _ELU_DERIVATIVE, x, out, "alpha", alpha)


def elu_backward(grad_out, x, *, alpha=1, out=None):
    return _backward("elu_backward", _ELU_DERIVATIVE, grad_out, x, out, "alpha", alpha)


selu = _kernel("selu", _SELU)
selu_derivative = _kernel("selu_derivative", _SELU_DERIVATIVE)
selu_backward = _backward_from_input("selu_backward", _SELU_DERIVATIVE)


_EXACT = "none"


def _gelu_form(function, approximate, exact, by_tanh):
    """The formula that `approximate` names."""
    if approximate is _EXACT:  # the common case, kept cheap
        return exact
    return exact if checks.approximate(function, approximate) == _EXACT else by_tanh


def gelu(x, *, approximate=_EXACT, out=None):
    f = _gelu_form("gelu", approximate, _GELU, _GELU_TANH)
    return _forward("gelu", f, x, out, "approximate", 0.0)


def gelu_derivative(x, *, approximate=_EXACT, out=None):
    f = _gelu_form("gelu_derivative", approximate, _GELU_DERIVATIVE, _GELU_TANH_DERIVATIVE)
    return _forward("gelu_derivative", f, x, out, "approximate", 0.0)


def gelu_backward(grad_out, x, *, approximate=_EXACT, out=None):
    f = _gelu_form("gelu_backward", approximate, _GELU_DERIVATIVE, _GELU_TANH_DERIVATIVE)
    return _backward("gelu_backward", f, grad_out, x, out, "approximate", 0.0)


silu = _kernel("silu", _SILU)
silu_derivative = _kernel("silu_derivative", _SILU_DERIVATIVE)
silu_backward = _backward_from_input("silu_backward", _SILU_DERIVATIVE)


mish = _kernel("mish", _MISH)
mish_derivative = _kernel("mish_derivative", _MISH_DERIVATIVE)
mish_backward = _backward_from_input("mish_backward", _MISH_DERIVATIVE)


softplus = _kernel("softplus", _SOFTPLUS)
softplus_derivative = _kernel("softplus_derivative", _SIGMOID)
softplus_backward = _backward_from_input("softplus_backward", _SIGMOID)


sigmoid = _kernel("sigmoid", _SIGMOID)
sigmoid_derivative = _kernel("sigmoid_derivative", _SIGMOID_DERIVATIVE)
sigmoid_backward = _backward_from_output("sigmoid_backward", _SIGMOID_FROM_OUTPUT)


hard_sigmoid = _kernel("hard_sigmoid", _HARD_SIGMOID)
hard_sigmoid_derivative = _kernel("hard_sigmoid_derivative", _HARD_SIGMOID_DERIVATIVE)
hard_sigmoid_backward = _backward_from_input("hard_sigmoid_backward", _HARD_SIGMOID_DERIVATIVE)


tanh = _kernel("tanh", _TANH)
tanh_derivative = _kernel("tanh_derivative", _TANH_DERIVATIVE)
tanh_backward = _backward_from_output("tanh_backward", _TANH_FROM_OUTPUT)


hard_tanh = _kernel("hard_tanh", _HARD_TANH)
hard_tanh_derivative = _kernel("hard_tanh_derivative", _HARD_TANH_DERIVATIVE)
hard_tanh_backward = _backward_from_input("hard_tanh_backward", _HARD_TANH_DERIVATIVE)


softsign = _kernel("softsign", _SOFTSIGN)
softsign_derivative = _kernel("softsign_derivative", _SOFTSIGN_DERIVATIVE)
softsign_backward = _backward_from_input("softsign_backward", _SOFTSIGN_DERIVATIVE)


# ----------------------------------------------------------------------------------------------------
# Activations of other kernels

_FUSED = {
    "relu": (_RELU, 0.0),
    "leaky_relu": (_LEAKY_RELU, 0.01),
    "elu": (_ELU, 1.0),
    "selu": (_SELU, 0.0),
    "gelu": (_GELU, 0.0),
    "silu": (_SILU, 0.0),
    "softplus": (_SOFTPLUS, 0.0),
    "sigmoid": (_SIGMOID, 0.0),
    "hard_sigmoid": (_HARD_SIGMOID, 0.0),
    "tanh": (_TANH, 0.0),
    "hard_tanh": (_HARD_TANH, 0.0),
    "softsign": (_SOFTSIGN, 0.0),
    "mish": (_MISH, 0.0),
    "step": (_STEP, 0.0),
    "sign": (_SIGN, 0.0),
}
_FROM_OUTPUT = {"relu": _RELU_DERIVATIVE, "sigmoid": _SIGMOID_FROM_OUTPUT, "tanh": _TANH_FROM_OUTPUT}
#: The derivative of an activation as a formula of its output.
FROM_OUTPUT = {
    None: _one,
    "relu": _relu_derivative,
    "sigmoid": _sigmoid_from_output,
    "tanh": _tanh_from_output,
}
#: What the units of a recurrent layer do, as formulas.
STATES = {"tanh": _tanh, "relu": _relu}


def activate(activation, y):
    """y = f(y), in place on a plain array; nothing for None."""
    if activation is not None:
        f, option = _FUSED[activation]
        f.forward.checked(y, y, option)


def multiply_by_derivative(activation, delta, y):
    """delta *= f' from the output y, in place on a plain array; nothing for None."""
    if activation is not None:
        _FROM_OUTPUT[activation].backward.checked(delta, y, delta, 0.0)


# ----------------------------------------------------------------------------------------------------
# Softmax over the middle axis of flat [outer, length, inner]. Where the axis is the last one, short rows are taken
# many at once and long ones piece by piece, so that the exponentials run over a long piece which stays in the cache;
# else a strip of neighbouring columns is.

_STRIP = 512  # columns


@inlined
def _subtract(x, y, scalar):
    for i in range(x.size):
        y[i] = x[i] - scalar


@inlined
def _subtract_each(x, y, others):
    for i in range(x.size):
        y[i] = x[i] - others[i]


@inlined
def _subtract_both(x, y, peak, log_total):
    for i in range(x.size):
        y[i] = (x[i] - peak) - log_total


@inlined
def _scale(x, y, factor):
    for i in range(x.size):
        y[i] = x[i] * factor


@inlined
def _scale_in_place(y, factor):
    for i in range(y.size):
        y[i] *= factor


@njit
def _softmax_rows(x, y, is_log):
    length = x.shape[1]
    together = max(1, PIECE // length)
    power = np.empty((together, min(length, PIECE)), x.dtype)
    for first in range(0, x.shape[0], together):
        if length > PIECE:
            _softmax_row(x[first], y[first], power[0], is_log)
        else:
            _softmax_short_rows(x[first : first + together], y[first : first + together], power, is_log)


@njit
def _softmax_row(x, y, power, is_log):
    peak, total, excess = largest(x), 0.0, 0.0
    for start in range(0, x.size, PIECE):
        piece = x[start : start + PIECE]
        e = power[: piece.size] if is_log else y[start : start + PIECE]
        _subtract(piece, e, peak)
        vmath.exponentials(e)
        total, excess = add(total, excess, sum_of_piece(e))
    if is_log:
        _subtract_both(x, y, peak, x.dtype.type(vmath.log(total)))
    else:
        _scale_in_place(y, x.dtype.type(1 / total))


@njit
def _softmax_short_rows(x, y, power, is_log):
    rows = x.shape[0]
    for i in range(rows):
        _subtract(x[i], power[i], largest(x[i]))
    vmath.exponentials(power[:rows].reshape(-1))
    for i in range(rows):
        total = sum_of_piece(power[i])
        if is_log:
            _subtract_both(x[i], y[i], largest(x[i]), x.dtype.type(vmath.log(total)))
        else:
            _scale(power[i], y[i], x.dtype.type(1 / total))


@njit
def _softmax_columns(x, y, length, inner, is_log):
    width = min(inner, _STRIP)
    power, peak = np.empty(_rows_of_piece(width) * width, x.dtype), np.empty(width, x.dtype)
    scale, sums = np.empty(width, x.dtype), np.empty((3, width))
    for plane in range(0, x.size, length * inner):
        for first in range(plane, plane + inner, width):
            n = min(width, plane + inner - first)
            end = first + (length - 1) * inner + n
            _softmax_strip(x[first:end], y[first:end], inner, power, peak[:n], scale[:n], sums, is_log)


@inlined
def _rows_of_piece(width):
    return max(8, PIECE // width)


@njit
def _softmax_strip(x, y, inner, power, peak, scale, sums, is_log):
    """Rows as long as `peak`, which begin `inner` apart."""
    n = peak.size
    part, total, excess = sums[0, :n], sums[1, :n], sums[2, :n]
    total[:] = excess[:] = 0
    peak[:] = x[:n]
    for row in range(0, x.size, inner):
        _raise(x[row : row + n], peak)
    for first in range(0, x.size, _rows_of_piece(n) * inner):
        rows = min(_rows_of_piece(n), (x.size - first - n) // inner + 1)
        for k in range(rows):
            row = first + k * inner
            _subtract_each(x[row : row + n], power[k * n : (k + 1) * n], peak)
        vmath.exponentials(power[: rows * n])
        part[:] = 0
        for k in range(rows):
            row = first + k * inner
            _accumulate(power[k * n : (k + 1) * n], part)
            if not is_log:
                y[row : row + n] = power[k * n : (k + 1) * n]
        _add_each(total, excess, part)
    for i in range(n):
        scale[i] = vmath.log(total[i]) if is_log else 1 / total[i]
    for row in range(0, x.size, inner):
        if is_log:
            _subtract_both_each(x[row : row + n], y[row : row + n], peak, scale)
        else:
            _scale_each(y[row : row + n], scale)


@inlined
def _raise(values, best):
    for i in range(best.size):
        best[i] = values[i] if values[i] > best[i] else best[i]


@inlined
def _accumulate(values, sums):
    for i in range(sums.size):
        sums[i] += values[i]


@inlined
def _add_each(total, excess, terms):
    for i in range(total.size):
        total[i], excess[i] = add(total[i], excess[i], terms[i])


@inlined
def _subtract_both_each(x, y, peak, log_total):
    for i in range(x.size):
        y[i] = (x[i] - peak[i]) - log_total[i]


@inlined
def _scale_each(y, factors):
    for i in range(y.size):
        y[i] *= factors[i]


@reordered
def _sum_of_products(g, y):
    total = 0.0
    for i in range(y.size):
        total += g[i] * y[i]
    return total


@inlined
def _gradient(g, y, total, grad):
    for i in range(y.size):
        grad[i] = y[i] * (g[i] - total)


@inlined
def _log_gradient(g, power, total, grad):
    for i in range(g.size):
        grad[i] = g[i] - power[i] * total


@njit
def _softmax_backward_rows(g, y, grad, is_log):
    length = y.shape[1]
    together = max(1, PIECE // length)
    power = np.empty((together, min(length, PIECE)), y.dtype)
    for first in range(0, y.shape[0], together):
        end = first + together
        if length > PIECE:
            _softmax_backward_row(g[first], y[first], grad[first], power[0], is_log)
        else:
            _softmax_backward_short_rows(g[first:end], y[first:end], grad[first:end], power, is_log)


@njit
def _softmax_backward_row(g, y, grad, power, is_log):
    total, excess = 0.0, 0.0
    for start in range(0, y.size, PIECE):
        piece = g[start : start + PIECE]
        term = sum_of_piece(piece) if is_log else _sum_of_products(piece, y[start : start + PIECE])
        total, excess = add(total, excess, term)
    rounded = y.dtype.type(total)
    if not is_log:
        _gradient(g, y, rounded, grad)
        return
    for start in range(0, y.size, PIECE):
        end = min(start + PIECE, y.size)
        e = power[: end - start]
        e[:] = y[start:end]
        vmath.exponentials(e)
        _log_gradient(g[start:end], e, rounded, grad[start:end])


@njit
def _softmax_backward_short_rows(g, y, grad, power, is_log):
    rows = y.shape[0]
    if is_log:
        power[:rows] = y
        vmath.exponentials(power[:rows].reshape(-1))
    for i in range(rows):
        if is_log:
            _log_gradient(g[i], power[i], y.dtype.type(sum_of_piece(g[i])), grad[i])
        else:
            _gradient(g[i], y[i], y.dtype.type(_sum_of_products(g[i], y[i])), grad[i])


@njit
def _softmax_backward_columns(g, y, grad, length, inner, is_log):
    width = min(inner, _STRIP)
    power, totals = np.empty(_rows_of_piece(width) * width, y.dtype), np.empty(width, y.dtype)
    sums = np.empty((3, width))
    for plane in range(0, y.size, length * inner):
        for first in range(plane, plane + inner, width):
            n = min(width, plane + inner - first)
            end = first + (length - 1) * inner + n
            _softmax_backward_strip(
                g[first:end], y[first:end], grad[first:end], inner, power, totals[:n], sums, is_log
            )


@njit
def _softmax_backward_strip(g, y, grad, inner, power, totals, sums, is_log):
    """Rows as long as `totals`, which begin `inner` apart."""
    n = totals.size
    part, total, excess = sums[0, :n], sums[1, :n], sums[2, :n]
    total[:] = excess[:] = 0
    step = _rows_of_piece(n) * inner
    for first in range(0, y.size, step):
        part[:] = 0
        for row in range(first, min(first + step, y.size), inner):
            if is_log:
                _accumulate(g[row : row + n], part)
            else:
                _accumulate_products(g[row : row + n], y[row : row + n], part)
        _add_each(total, excess, part)
    totals[:] = total
    for first in range(0, y.size, step):
        if is_log:
            _exponentials_of_rows(y[first : first + step], inner, n, power)
        for row in range(first, min(first + step, y.size), inner):
            if is_log:
                k = (row - first) // inner * n
                _log_gradient_each(g[row : row + n], power[k : k + n], totals, grad[row : row + n])
            else:
                _gradient_each(g[row : row + n], y[row : row + n], totals, grad[row : row + n])


@inlined
def _accumulate_products(g, y, sums):
    for i in range(sums.size):
        sums[i] += g[i] * y[i]


@inlined
def _exponentials_of_rows(y, inner, n, power):
    end = 0
    for row in range(0, y.size, inner):
        power[end : end + n] = y[row : row + n]
        end += n
    vmath.exponentials(power[:end])


@inlined
def _gradient_each(g, y, totals, grad):
    for i in range(y.size):
        grad[i] = y[i] * (g[i] - totals[i])


@inlined
def _log_gradient_each(g, power, totals, grad):
    for i in range(g.size):
        grad[i] = g[i] - power[i] * totals[i]


@inlined
def _place_of(x, axis):
    """The axis counted from the front; -1 where it takes a closer look, or where there is too much to do."""
    place = calls.whole_number(axis)
    place = place + calls.ndim(x) if place < 0 else place
    return int(place) if 0 <= place < calls.ndim(x) and calls.is_brief(x) else -1


@inlined
def _extent(x, axis):
    """The length of an axis, and how many elements there are behind it."""
    inner = 1
    for i in range(axis + 1, calls.ndim(x)):
        inner *= calls.shape(x)[i]
    return calls.shape(x)[axis], inner


def _along_one(rows, columns, is_log):
    """The call of y = f(x) by `rows` or `columns` along an axis, by what follows the axis in memory."""

    @njit(nogil=False)
    def softmax(x, out, axis):
        place = _place_of(x, axis) if calls.is_array(x) else -1
        result = calls.result(x, out) if place >= 0 else calls.nothing(x)
        if not calls.is_nothing(result) and calls.size(x) > 0:
            length, inner = _extent(x, place)
            if inner == 1:
                rows(calls.matrix(x, length), calls.matrix(result, length), is_log)
            else:
                columns(calls.elements(x), calls.elements(result), length, inner, is_log)
        return result

    return calls.Call(softmax)


def _along_two(rows, columns, is_log):
    """The same for grad = f(g, y)."""

    @njit(nogil=False)
    def softmax_backward(g, y, out, axis):
        place = _place_of(g, axis) if calls.is_array(g) else -1
        result = calls.result_of_two(g, y, out) if place >= 0 else calls.nothing(g)
        if not calls.is_nothing(result) and calls.size(g) > 0:
            length, inner = _extent(g, place)
            if inner == 1:
                grad = calls.matrix(result, length)
                rows(calls.matrix(g, length), calls.matrix(y, length), grad, is_log)
            else:
                grad = calls.elements(result)
                columns(calls.elements(g), calls.elements(y), grad, length, inner, is_log)
        return result

    return calls.Call(softmax_backward)


def _along(axis, rows, columns, is_log, *arrays):
    """Run `rows` or `columns` along `axis`, by what follows the axis in memory."""
    shape = arrays[0].shape
    length, inner = shape[axis], math.prod(shape[axis + 1 :])
    if arrays[0].size == 0:
        return
    if inner == 1:
        rows(*[array.reshape(-1, length) for array in arrays], is_log)
    else:
        columns(*[array.ravel() for array in arrays], length, inner, is_log)


_SOFTMAX, _LOG_SOFTMAX = (_along_one(_softmax_rows, _softmax_columns, is_log) for is_log in (False, True))
_SOFTMAX_BACKWARD, _LOG_SOFTMAX_BACKWARD = (
    _along_two(_softmax_backward_rows, _softmax_backward_columns, is_log) for is_log in (False, True)
)


def _checked_softmax(function, call, is_log, x, axis, out):
    x, axis, output = checks.softmax(function, out, axis, x)
    if call.checked(x, output.array, axis) is None:
        _along(axis, _softmax_rows, _softmax_columns, is_log, x, output.array)
    return output.deliver()


def _checked_softmax_backward(function, call, is_log, g, y, axis, out):
    g, y, axis, output = checks.softmax_backward(function, out, axis, g, y)
    if call.checked(g, y, output.array, axis) is None:
        _along(axis, _softmax_backward_rows, _softmax_backward_columns, is_log, g, y, output.array)
    return output.deliver()


def softmax(x, *, axis=-1, out=None):
    y = _SOFTMAX(x, out, axis)
    return _checked_softmax("softmax", _SOFTMAX, False, x, axis, out) if y is None else y


def softmax_backward(grad_out, y, *, axis=-1, out=None):
    call = _SOFTMAX_BACKWARD
    grad = call(grad_out, y, out, axis)
    if grad is None:
        return _checked_softmax_backward("softmax_backward", call, False, grad_out, y, axis, out)
    return grad


def log_softmax(x, *, axis=-1, out=None):
    y = _LOG_SOFTMAX(x, out, axis)
    return _checked_softmax("log_softmax", _LOG_SOFTMAX, True, x, axis, out) if y is None else y


def log_softmax_backward(grad_out, y, *, axis=-1, out=None):
    call = _LOG_SOFTMAX_BACKWARD
    grad = call(grad_out, y, out, axis)
    if grad is None:
        return _checked_softmax_backward("log_softmax_backward", call, True, grad_out, y, axis, out)
    return grad
