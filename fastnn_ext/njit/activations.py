"""Activations by Numba; see `fastnn/activations.py` for what each function is.

The formulas are those of `pyx/formulas.pxd`. Each takes x and the option of its kernel and stays in the type
of x, to which `real` brings its constants. Both sides of a selection are computed beforehand, so that a loop
has no branch and becomes vector code.
"""

import math

import numpy as np

from fastnn_ext.checks import activations as checks
from fastnn_ext.njit import _vmath as vmath
from fastnn_ext.njit._options import njit

_FAR = 1000.0
_SELU_SCALE, _SELU_ALPHA = 1.0507009873554804934193349852946, 1.6732632423543772848170429916717
_TANH_SLOPE, _TANH_CUBIC = 1.5957691216057307117, 0.071354816272600247  # 2 sqrt(2 / pi), and 0.044715 of it
_DENSITY = 0.39894228040143267794  # 1 / sqrt(2 pi)

_inlined = njit(forceinline=True)


@_inlined
def real(value, x):
    """`value` in the type of x."""
    return type(x)(value)


@_inlined
def _at_least(x, low):
    limit = real(low, x)
    return limit if x < limit else x


@_inlined
def _clipped(x, low, high):
    limit = real(high, x)
    x = _at_least(x, low)
    return limit if x > limit else x


@_inlined
def _chosen(condition, yes, no, x):
    """One of two numbers; NaN where x is NaN."""
    value = real(yes, x) if condition else real(no, x)
    return x if x != x else value


# ----------------------------------------------------------------------------------------------------
# Formulas


@_inlined
def _flat(x, option):
    return _chosen(True, 0, 0, x)


@_inlined
def _step(x, threshold):
    return _chosen(x >= threshold, 1, 0, x)


@_inlined
def _sign(x, option):
    below = real(-1, x) if x < 0 else x
    return real(1, x) if x > 0 else below


@_inlined
def _relu(x, option):
    return _at_least(x, 0)


@_inlined
def _relu_derivative(x, option):
    return _chosen(x > 0, 1, 0, x)


@_inlined
def _leaky_relu(x, negative_slope):
    below = negative_slope * x
    return x if x > 0 else below


@_inlined
def _leaky_relu_derivative(x, negative_slope):
    return _chosen(x > 0, 1, negative_slope, x)


@_inlined
def _elu(x, alpha):
    below = alpha * vmath.expm1(x)
    return x if x > 0 else below


@_inlined
def _elu_derivative(x, alpha):
    below = alpha * vmath.exp(x)
    return real(1, x) if x > 0 else below


@_inlined
def _selu(x, option):
    return real(_SELU_SCALE, x) * _elu(x, real(_SELU_ALPHA, x))


@_inlined
def _selu_derivative(x, option):
    return real(_SELU_SCALE, x) * _elu_derivative(x, real(_SELU_ALPHA, x))


@_inlined
def _gelu(x, option):
    return _at_least(x, -_FAR) * vmath.normal_cdf(x)


@_inlined
def _gelu_derivative(x, option):
    z = _clipped(x, -_FAR, _FAR)
    return vmath.normal_cdf(x) + z * (real(_DENSITY, x) * vmath.exp(real(-0.5, x) * z * z))


@_inlined
def _tanh_argument(z):
    return z * (real(_TANH_SLOPE, z) + real(_TANH_CUBIC, z) * (z * z))


@_inlined
def _gelu_tanh(x, option):
    return _at_least(x, -_FAR) * vmath.sigmoid(_tanh_argument(_clipped(x, -_FAR, _FAR)))


@_inlined
def _gelu_tanh_derivative(x, option):
    z = _clipped(x, -_FAR, _FAR)
    slope = real(_TANH_SLOPE, x) + real(3 * _TANH_CUBIC, x) * (z * z)
    return _sigmoid_and_slope(_tanh_argument(z), z * slope)


@_inlined
def _sigmoid_and_slope(x, factor):
    """sigmoid(x) + factor * sigmoid'(x), with one exponential."""
    one = real(1, x)
    e = vmath.exp(-abs(x))
    r = one / (one + e)
    return r * ((e if x < 0 else one) + factor * (e * r))


@_inlined
def _silu(x, option):
    return _at_least(x, -_FAR) * vmath.sigmoid(x)


@_inlined
def _silu_derivative(x, option):
    return _sigmoid_and_slope(x, _clipped(x, -_FAR, _FAR))


@_inlined
def _mish_parts(x):
    """n, d and e = exp(-|x|) with tanh(softplus(x)) = n / (n + d): see formulas.pxd."""
    one, two = real(1, x), real(2, x)
    e = vmath.exp(-abs(x))
    n_above, n_below, d_above = one + two * e, e * (e + two), two * (e * e)
    return (n_above if x > 0 else n_below), (d_above if x > 0 else two), e


@_inlined
def _mish(x, option):
    n, d, _ = _mish_parts(x)
    return _at_least(x, -_FAR) * (n / (n + d))


@_inlined
def _mish_derivative(x, option):
    n, d, e = _mish_parts(x)
    one = real(1, x)
    square = e * e
    r = one / (n + d)
    slope = real(4, x) * (one + e) * (square if x > 0 else e)
    return r * (n + _clipped(x, -_FAR, _FAR) * (slope * r))


@_inlined
def _softplus(x, option):
    return vmath.softplus(x)


@_inlined
def _sigmoid(x, option):
    return vmath.sigmoid(x)


@_inlined
def _sigmoid_derivative(x, option):
    one = real(1, x)
    e = vmath.exp(-abs(x))
    r = one / (one + e)
    return e * r * r


@_inlined
def _sigmoid_from_output(y, option):
    return y * (real(1, y) - y)


@_inlined
def _hard_sigmoid(x, option):
    return _clipped(x + real(3, x), 0, 6) * real(1 / 6, x)


@_inlined
def _hard_sigmoid_derivative(x, option):
    return _chosen(abs(x) < 3, 1 / 6, 0, x)


@_inlined
def _tanh(x, option):
    return vmath.tanh(x)


@_inlined
def _tanh_derivative(x, option):
    return real(4, x) * _sigmoid_derivative(real(2, x) * _clipped(x, -_FAR, _FAR), option)


@_inlined
def _tanh_from_output(y, option):
    return (real(1, y) - y) * (real(1, y) + y)


@_inlined
def _hard_tanh(x, option):
    return _clipped(x, -1, 1)


@_inlined
def _hard_tanh_derivative(x, option):
    return _chosen(abs(x) < 1, 1, 0, x)


@_inlined
def _softsign(x, option):
    z = _clipped(x, -1e30, 1e30)
    return z / (real(1, x) + abs(z))


@_inlined
def _softsign_derivative(x, option):
    r = real(1, x) / (real(1, x) + abs(x))
    return r * r


# ----------------------------------------------------------------------------------------------------
# Loops. Those over one array less are for results in place: one array given twice would be taken for two that
# overlap, and those are not done by vector code.


class _Map:
    """y = f(x) and y = g * f(x) over flat arrays; each loop is compiled at its first use."""

    def __init__(self, formula):
        @njit
        def apply(x, y, option):
            option = x.dtype.type(option)
            for i in range(x.size):
                y[i] = formula(x[i], option)

        @njit
        def apply_in_place(y, option):
            option = y.dtype.type(option)
            for i in range(y.size):
                y[i] = formula(y[i], option)

        @njit
        def times(g, x, y, option):
            option = x.dtype.type(option)
            for i in range(x.size):
                y[i] = g[i] * formula(x[i], option)

        @njit
        def times_in_place(g, x, option):
            option = x.dtype.type(option)
            for i in range(x.size):
                g[i] *= formula(x[i], option)

        self.apply, self.apply_in_place = apply, apply_in_place
        self.times, self.times_in_place = times, times_in_place


def _line(array):
    return array if array.ndim == 1 else array.reshape(-1)


def _forward(function, f, x, out, option=0.0):
    x, output = checks.forward(function, out, x)
    y = output.array
    if x is y:
        f.apply_in_place(_line(y), option)
    else:
        f.apply(_line(x), _line(y), option)
    return output.deliver()


def _backward(function, f, out, option=0.0, **arrays):
    g, saved, output = checks.backward(function, out, **arrays)
    grad = output.array
    if g is grad:
        f.times_in_place(_line(grad), _line(saved), option)
    else:
        f.times(_line(g), _line(saved), _line(grad), option)
    return output.deliver()


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
    option = checks.option("step", "threshold", threshold)
    return _forward("step", _STEP, x, out, option)


def step_derivative(x, *, threshold=0, out=None):
    option = checks.option("step_derivative", "threshold", threshold)
    return _forward("step_derivative", _FLAT, x, out, option)


def step_backward(grad_out, x, *, threshold=0, out=None):
    option = checks.option("step_backward", "threshold", threshold)
    return _backward("step_backward", _FLAT, out, option, grad_out=grad_out, x=x)


def sign(x, *, out=None):
    return _forward("sign", _SIGN, x, out)


def sign_derivative(x, *, out=None):
    return _forward("sign_derivative", _FLAT, x, out)


def sign_backward(grad_out, x, *, out=None):
    return _backward("sign_backward", _FLAT, out, grad_out=grad_out, x=x)


def relu(x, *, out=None):
    return _forward("relu", _RELU, x, out)


def relu_derivative(x, *, out=None):
    return _forward("relu_derivative", _RELU_DERIVATIVE, x, out)


def relu_backward(grad_out, y, *, out=None):
    return _backward("relu_backward", _RELU_DERIVATIVE, out, grad_out=grad_out, y=y)


def leaky_relu(x, *, negative_slope=0.01, out=None):
    option = checks.option("leaky_relu", "negative_slope", negative_slope)
    return _forward("leaky_relu", _LEAKY_RELU, x, out, option)


def leaky_relu_derivative(x, *, negative_slope=0.01, out=None):
    option = checks.option("leaky_relu_derivative", "negative_slope", negative_slope)
    return _forward("leaky_relu_derivative", _LEAKY_RELU_DERIVATIVE, x, out, option)


def leaky_relu_backward(grad_out, x, *, negative_slope=0.01, out=None):
    option = checks.option("leaky_relu_backward", "negative_slope", negative_slope)
    return _backward("leaky_relu_backward", _LEAKY_RELU_DERIVATIVE, out, option, grad_out=grad_out, x=x)


def elu(x, *, alpha=1, out=None):
    option = checks.option("elu", "alpha", alpha)
    return _forward("elu", _ELU, x, out, option)


def elu_derivative(x, *, alpha=1, out=None):
    option = checks.option("elu_derivative", "alpha", alpha)
    return _forward("elu_derivative", _ELU_DERIVATIVE, x, out, option)


def elu_backward(grad_out, x, *, alpha=1, out=None):
    option = checks.option("elu_backward", "alpha", alpha)
    return _backward("elu_backward", _ELU_DERIVATIVE, out, option, grad_out=grad_out, x=x)


def selu(x, *, out=None):
    return _forward("selu", _SELU, x, out)


def selu_derivative(x, *, out=None):
    return _forward("selu_derivative", _SELU_DERIVATIVE, x, out)


def selu_backward(grad_out, x, *, out=None):
    return _backward("selu_backward", _SELU_DERIVATIVE, out, grad_out=grad_out, x=x)


def gelu(x, *, approximate="none", out=None):
    f = _GELU if checks.approximate("gelu", approximate) == "none" else _GELU_TANH
    return _forward("gelu", f, x, out)


def gelu_derivative(x, *, approximate="none", out=None):
    f = (
        _GELU_DERIVATIVE
        if checks.approximate("gelu_derivative", approximate) == "none"
        else _GELU_TANH_DERIVATIVE
    )
    return _forward("gelu_derivative", f, x, out)


def gelu_backward(grad_out, x, *, approximate="none", out=None):
    f = (
        _GELU_DERIVATIVE
        if checks.approximate("gelu_backward", approximate) == "none"
        else _GELU_TANH_DERIVATIVE
    )
    return _backward("gelu_backward", f, out, grad_out=grad_out, x=x)


def silu(x, *, out=None):
    return _forward("silu", _SILU, x, out)


def silu_derivative(x, *, out=None):
    return _forward("silu_derivative", _SILU_DERIVATIVE, x, out)


def silu_backward(grad_out, x, *, out=None):
    return _backward("silu_backward", _SILU_DERIVATIVE, out, grad_out=grad_out, x=x)


def mish(x, *, out=None):
    return _forward("mish", _MISH, x, out)


def mish_derivative(x, *, out=None):
    return _forward("mish_derivative", _MISH_DERIVATIVE, x, out)


def mish_backward(grad_out, x, *, out=None):
    return _backward("mish_backward", _MISH_DERIVATIVE, out, grad_out=grad_out, x=x)


def softplus(x, *, out=None):
    return _forward("softplus", _SOFTPLUS, x, out)


def softplus_derivative(x, *, out=None):
    return _forward("softplus_derivative", _SIGMOID, x, out)


def softplus_backward(grad_out, x, *, out=None):
    return _backward("softplus_backward", _SIGMOID, out, grad_out=grad_out, x=x)


def sigmoid(x, *, out=None):
    return _forward("sigmoid", _SIGMOID, x, out)


def sigmoid_derivative(x, *, out=None):
    return _forward("sigmoid_derivative", _SIGMOID_DERIVATIVE, x, out)


def sigmoid_backward(grad_out, y, *, out=None):
    return _backward("sigmoid_backward", _SIGMOID_FROM_OUTPUT, out, grad_out=grad_out, y=y)


def hard_sigmoid(x, *, out=None):
    return _forward("hard_sigmoid", _HARD_SIGMOID, x, out)


def hard_sigmoid_derivative(x, *, out=None):
    return _forward("hard_sigmoid_derivative", _HARD_SIGMOID_DERIVATIVE, x, out)


def hard_sigmoid_backward(grad_out, x, *, out=None):
    return _backward("hard_sigmoid_backward", _HARD_SIGMOID_DERIVATIVE, out, grad_out=grad_out, x=x)


def tanh(x, *, out=None):
    return _forward("tanh", _TANH, x, out)


def tanh_derivative(x, *, out=None):
    return _forward("tanh_derivative", _TANH_DERIVATIVE, x, out)


def tanh_backward(grad_out, y, *, out=None):
    return _backward("tanh_backward", _TANH_FROM_OUTPUT, out, grad_out=grad_out, y=y)


def hard_tanh(x, *, out=None):
    return _forward("hard_tanh", _HARD_TANH, x, out)


def hard_tanh_derivative(x, *, out=None):
    return _forward("hard_tanh_derivative", _HARD_TANH_DERIVATIVE, x, out)


def hard_tanh_backward(grad_out, x, *, out=None):
    return _backward("hard_tanh_backward", _HARD_TANH_DERIVATIVE, out, grad_out=grad_out, x=x)


def softsign(x, *, out=None):
    return _forward("softsign", _SOFTSIGN, x, out)


def softsign_derivative(x, *, out=None):
    return _forward("softsign_derivative", _SOFTSIGN_DERIVATIVE, x, out)


def softsign_backward(grad_out, x, *, out=None):
    return _backward("softsign_backward", _SOFTSIGN_DERIVATIVE, out, grad_out=grad_out, x=x)


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


def activate(activation, y):
    """y = f(y), in place on a plain array; nothing for None."""
    if activation is not None:
        f, option = _FUSED[activation]
        f.apply_in_place(_line(y), option)


def multiply_by_derivative(activation, delta, y):
    """delta *= f' from the output y, in place on a plain array; nothing for None."""
    if activation is not None:
        _FROM_OUTPUT[activation].times_in_place(_line(delta), _line(y), 0.0)


# ----------------------------------------------------------------------------------------------------
# Softmax over the middle axis of flat [outer, length, inner]

_PIECE = 1024

_reordered = njit(fastmath={"contract", "reassoc"})


@_reordered
def _sum_of_piece(x, start, end):
    total = 0.0
    for i in range(start, end):
        total += x[i]
    return total


@_inlined
def _add(term, total, excess):
    """Kahan's sum: `excess` is what rounding has added to `total` so far."""
    exact = term - excess
    rounded = total + exact
    error = (rounded - total) - exact
    return rounded, error if error - error == 0 else 0.0  # an infinite sum stays infinite


@njit
def _sum_of(x, start, end):
    """In float64, piece by piece with compensation: the error does not grow with the length."""
    total, excess = 0.0, 0.0
    for piece in range(start, end, _PIECE):
        total, excess = _add(_sum_of_piece(x, piece, min(piece + _PIECE, end)), total, excess)
    return total


@_inlined
def _larger(a, b):
    return b if a < b else a


@njit
def _largest(x, start, end):
    """By eight comparisons at a time, which need not wait for each other."""
    a = b = c = d = e = f = g = h = x[start]
    whole = start + (end - start) // 8 * 8
    for i in range(start, whole, 8):
        a, b, c, d = _larger(x[i], a), _larger(x[i + 1], b), _larger(x[i + 2], c), _larger(x[i + 3], d)
        e, f, g, h = _larger(x[i + 4], e), _larger(x[i + 5], f), _larger(x[i + 6], g), _larger(x[i + 7], h)
    for i in range(whole, end):
        a = _larger(x[i], a)
    return _larger(_larger(_larger(a, b), _larger(c, d)), _larger(_larger(e, f), _larger(g, h)))


@njit
def _softmax_rows(x, y, length, is_log):
    """Short rows are taken many at once, so that the exponentials run over a long piece all the same."""
    together = max(1, _PIECE // length)
    power, peak = np.empty(together * length, x.dtype), np.empty(together, x.dtype)
    for first in range(0, x.size // length, together):
        rows, start = min(together, x.size // length - first), first * length
        for row in range(rows):
            peak[row] = _largest(x, start + row * length, start + (row + 1) * length)
            for i in range(row * length, (row + 1) * length):
                power[i] = x[start + i] - peak[row]
        for i in range(rows * length):
            power[i] = vmath.exp(power[i])
        for row in range(rows):
            total = _sum_of(power, row * length, (row + 1) * length)
            if is_log:
                log_total = x.dtype.type(vmath.log(total))
                for i in range(row * length, (row + 1) * length):
                    y[start + i] = (x[start + i] - peak[row]) - log_total
            else:
                inverse = x.dtype.type(1 / total)
                for i in range(row * length, (row + 1) * length):
                    y[start + i] = power[i] * inverse


@njit
def _softmax_columns(x, y, length, inner, is_log):
    piece, plane = _rows_of_piece(length, inner) * inner, length * inner
    power, peak, scale = np.empty(piece, x.dtype), np.empty(inner, x.dtype), np.empty(inner, x.dtype)
    part, total, excess = np.empty(inner), np.empty(inner), np.empty(inner)
    for start in range(0, x.size, plane):
        total[:] = excess[:] = 0
        for i in range(inner):
            peak[i] = x[start + i]
        for row in range(start, start + plane, inner):
            for i in range(inner):
                peak[i] = _larger(x[row + i], peak[i])
        for first in range(start, start + plane, piece):
            n = min(piece, start + plane - first)
            for row in range(0, n, inner):
                for i in range(inner):
                    power[row + i] = x[first + row + i] - peak[i]
            for i in range(n):
                power[i] = vmath.exp(power[i])
            _add_columns(power, 0, n, part, total, excess)
            if not is_log:
                for i in range(n):
                    y[first + i] = power[i]
        for i in range(inner):
            scale[i] = vmath.log(total[i]) if is_log else 1 / total[i]
        for row in range(start, start + plane, inner):
            if is_log:
                for i in range(inner):
                    y[row + i] = (x[row + i] - peak[i]) - scale[i]
            else:
                for i in range(inner):
                    y[row + i] *= scale[i]


@_inlined
def _rows_of_piece(length, inner):
    return min(length, max(8, _PIECE // inner))


@njit
def _add_columns(x, start, end, part, total, excess):
    """Add rows as long as `total` to it in float64, plainly among themselves, then with compensation."""
    part[:] = 0
    for row in range(start, end, part.size):
        for i in range(part.size):
            part[i] += x[row + i]
    for i in range(part.size):
        total[i], excess[i] = _add(part[i], total[i], excess[i])


@njit
def _softmax_backward_rows(g, y, grad, length, is_log):
    together = max(1, _PIECE // length)
    factor = np.empty(together * length, y.dtype)
    for first in range(0, y.size // length, together):
        rows, start = min(together, y.size // length - first), first * length
        _factors(g, y, start, rows * length, factor, is_log)
        for row in range(rows):
            low, high = row * length, (row + 1) * length
            if is_log:
                total = y.dtype.type(_sum_of(g, start + low, start + high))
                for i in range(low, high):
                    grad[start + i] = g[start + i] - factor[i] * total
            else:
                total = y.dtype.type(_sum_of(factor, low, high))
                for i in range(start + low, start + high):
                    grad[i] = y[i] * (g[i] - total)


@njit
def _factors(g, y, start, n, factor, is_log):
    """exp(y) for log-softmax, g * y for softmax."""
    if is_log:
        for i in range(n):
            factor[i] = vmath.exp(y[start + i])
    else:
        for i in range(n):
            factor[i] = g[start + i] * y[start + i]


@njit
def _softmax_backward_columns(g, y, grad, length, inner, is_log):
    piece, plane = _rows_of_piece(length, inner) * inner, length * inner
    factor, sums = np.empty(piece, y.dtype), np.empty(inner, y.dtype)
    part, total, excess = np.empty(inner), np.empty(inner), np.empty(inner)
    for start in range(0, y.size, plane):
        total[:] = excess[:] = 0
        for first in range(start, start + plane, piece):
            n = min(piece, start + plane - first)
            if is_log:
                _add_columns(g, first, first + n, part, total, excess)
            else:
                _factors(g, y, first, n, factor, False)
                _add_columns(factor, 0, n, part, total, excess)
        for i in range(inner):
            sums[i] = total[i]
        for first in range(start, start + plane, piece):
            n = min(piece, start + plane - first)
            if is_log:
                _factors(g, y, first, n, factor, True)
            for row in range(0, n, inner):
                if is_log:
                    for i in range(inner):
                        grad[first + row + i] = g[first + row + i] - factor[row + i] * sums[i]
                else:
                    for i in range(inner):
                        grad[first + row + i] = y[first + row + i] * (g[first + row + i] - sums[i])


def _along(axis, rows, columns, is_log, *arrays):
    """Run `rows` or `columns` along `axis`, by what follows the axis in memory."""
    shape = arrays[0].shape
    length, inner = shape[axis], math.prod(shape[axis + 1 :])
    if arrays[0].size == 0:
        return
    lines = map(_line, arrays)
    if inner == 1:
        rows(*lines, length, is_log)
    else:
        columns(*lines, length, inner, is_log)


def softmax(x, *, axis=-1, out=None):
    x, axis, output = checks.softmax("softmax", out, axis, x)
    _along(axis, _softmax_rows, _softmax_columns, False, x, output.array)
    return output.deliver()


def softmax_backward(grad_out, y, *, axis=-1, out=None):
    grad_out, y, axis, output = checks.softmax_backward("softmax_backward", out, axis, grad_out, y)
    _along(axis, _softmax_backward_rows, _softmax_backward_columns, False, grad_out, y, output.array)
    return output.deliver()


def log_softmax(x, *, axis=-1, out=None):
    x, axis, output = checks.softmax("log_softmax", out, axis, x)
    _along(axis, _softmax_rows, _softmax_columns, True, x, output.array)
    return output.deliver()


def log_softmax_backward(grad_out, y, *, axis=-1, out=None):
    grad_out, y, axis, output = checks.softmax_backward("log_softmax_backward", out, axis, grad_out, y)
    _along(axis, _softmax_backward_rows, _softmax_backward_columns, True, grad_out, y, output.array)
    return output.deliver()
