"""exp, log, tanh and their kin for loops that LLVM turns into vector code: the twins of pyx/engine/vmath.h.

Same polynomials, same steps, same names without the prefix; the header says how each function works and how
exact it is. Each takes a float32 or float64 scalar and stays in its type: a literal such as 0.5 would turn
float32 into float64, therefore every constant comes from `_constants(x)`.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import overload

from ._options import OPTIONS, intrinsic, njit, widest_vectors


class _Constants(NamedTuple):
    """The header's limits and tables (polynomials from the constant term up) in one type."""

    mantissa_bits: int
    bias: int
    sqrt_half: int
    head: int
    min_normal: np.floating
    ln2_hi: np.floating
    ln2_lo: np.floating
    exp_min: np.floating
    exp_max: np.floating
    exp_end: np.floating
    exp_lowered: np.floating
    saturation: np.floating
    tiny: np.floating
    erf_max: np.floating
    normal_max: np.floating
    mills_centre: np.floating
    exp_tail: tuple[np.floating, ...]
    tanh_tail: tuple[np.floating, ...]  # the same of 2 r, times 2
    log_tail: tuple[np.floating, ...]
    erf_tail: tuple[np.floating, ...]
    mills: tuple[np.floating, ...]
    power: np.floating  # 2**mantissa_bits
    log_offset: np.floating  # power + bias
    denormal_log_offset: np.floating  # the same after scaling by power
    exp_shifter: np.floating  # 1.5 * power + 2 * bias
    lifted_shifter: np.floating  # 1.5 * power + bias + exp_lift
    expm1_shifter: np.floating  # 1.5 * power + bias - 1
    tanh_shifter: np.floating  # 1.5 * power + bias
    times_exp_min: np.floating  # below, x * e**x rounds to 0
    zero: np.floating
    quarter: np.floating
    half: np.floating
    one: np.floating
    two: np.floating
    inf: np.floating
    nan: np.floating
    log2_e: np.floating
    two_log2_e: np.floating
    half_ln2: np.floating
    sqrt2: np.floating


def _make_constants(
    real: type[np.floating], mantissa_bits: int, bias: int, exp_lift: int, **others: Any
) -> _Constants:
    """All constants with their reals as `real`, those that follow from the format included."""

    def typed(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(map(real, value))
        return real(value) if isinstance(value, float) else value

    power = 2.0**mantissa_bits
    constants = {
        "mantissa_bits": mantissa_bits,
        "bias": bias,
        "power": power,
        "log_offset": power + bias,
        "denormal_log_offset": power + bias + mantissa_bits,
        "exp_shifter": 1.5 * power + 2 * bias,
        "exp_lowered": 2.0**-exp_lift,
        "lifted_shifter": 1.5 * power + bias + exp_lift,
        "expm1_shifter": 1.5 * power + bias - 1,
        "tanh_shifter": 1.5 * power + bias,
        "times_exp_min": others["exp_min"] - 8,
        "zero": 0.0,
        "quarter": 0.25,
        "half": 0.5,
        "one": 1.0,
        "two": 2.0,
        "inf": math.inf,
        "nan": math.nan,
        "log2_e": 1.4426950408889634,
        "two_log2_e": 2.8853900817779268,
        "half_ln2": 0.34657359027997264,
        "sqrt2": 1.4142135623730951,
        "tanh_tail": tuple(c * 2.0 ** (i + 1) for i, c in enumerate(others["exp_tail"])),
        **others,
    }
    return _Constants(**{name: typed(value) for name, value in constants.items()})


_F32 = _make_constants(
    np.float32,
    mantissa_bits=23,
    bias=127,
    exp_lift=32,
    sqrt_half=0x3F3504F3,
    head=0xFFFFF000,
    min_normal=1.17549435e-38,
    ln2_hi=0.693145752,
    ln2_lo=1.42860682e-6,
    exp_min=-104.0,
    exp_max=89.0,
    exp_end=-110.210396,
    saturation=18.0,
    tiny=1.49011612e-8,
    erf_max=4.0,
    normal_max=14.5,
    mills_centre=4.0,
    exp_tail=(
        0.5, 1.6666548e-1, 4.16668616e-2, 8.36622808e-3, 1.3898256e-3,
    ),
    log_tail=(
        3.33333313e-1, -2.50008196e-1, 2.00012282e-1, -1.66233599e-1, 1.42017424e-1, -1.31601498e-1,
        1.2761654e-1, -7.63466731e-2,
    ),
    erf_tail=(
        1.28379166e-1, -3.7612626e-1, 1.12835847e-1, -2.68537682e-2, 5.18822996e-3, -8.0092717e-4,
        7.85054071e-5,
    ),
    mills=(
        3.77642572e-1, -3.03948313e-1, 1.93568438e-1, -9.32616442e-2, 3.02019827e-2, -3.76291503e-3,
        -1.75675866e-3, 7.85320881e-4, 9.06957212e-5, -6.55106196e-5,
    ),
)  # fmt: skip

_F64 = _make_constants(
    np.float64,
    mantissa_bits=52,
    bias=1023,
    exp_lift=64,
    sqrt_half=0x3FE6A09E667F3BCD,
    head=-0x8000000,
    min_normal=2.2250738585072014e-308,
    ln2_hi=0.693147180559663,
    ln2_lo=2.8235290563031577e-13,
    exp_min=-746.0,
    exp_max=710.0,
    exp_end=-753.45098523,
    saturation=38.0,
    tiny=2.7755575615628914e-17,
    erf_max=6.0,
    normal_max=39.0,
    mills_centre=5.0,
    exp_tail=(
        0.5, 0.166666666666666, 0.041666666666618904, 0.008333333333389686, 0.0013888888921053412,
        0.000198412697070116, 2.4801515535102802e-05, 2.755742632499441e-06, 2.7622598159516194e-07,
        2.504586011593048e-08,
    ),
    log_tail=(
        0.6666666666666735, 0.3999999999941108, 0.28571428743264854, 0.22222198475775629,
        0.1818356974971365, 0.15313903020622538, 0.14797509718439905,
    ),
    erf_tail=(
        0.12837916709551256, -0.37612638903183515, 0.11283791670944078, -0.026866170643093993,
        0.0052239776059707765, -0.0008548325922052289, 0.00012055293354864688, -1.4924707952533698e-05,
        1.6447076955606043e-06, -1.6205888752049642e-07, 1.3709114764332677e-08, -7.7759379198779e-10,
    ),
    mills=(
        0.3845965248750315, -0.3326912514450283, 0.24765280798498843, -0.15676657833565735,
        0.08251018308518306, -0.03455931935299109, 0.010397533400075154, -0.0014966883876479347,
        -0.0003989347002485394, 0.00027244955153373743, -2.968785874451407e-05, -2.488149954651777e-05,
        8.340584610666964e-06, 1.9907330067469517e-06, -1.3845576778074455e-06, -1.688570595694453e-07,
        2.1638842198517186e-07, 2.180250587100163e-08, -3.269769433842766e-08, -5.113455946108129e-09,
        3.6044216239178566e-09, 1.0127075654301998e-09,
    ),
)  # fmt: skip


def _constants(x):
    """The constants in the type of `x`."""
    raise NotImplementedError("compiled code only")


@overload(_constants, inline="always", jit_options=OPTIONS)
def _constants_of_type(x):
    constants = {types.float32: _F32, types.float64: _F64}.get(x)
    return None if constants is None else lambda x: constants


@intrinsic
def _bits(typing_context, x):
    """The bits of a real as an integer."""

    def codegen(context, builder, signature, arguments):
        (value,) = arguments
        word = ir.IntType(signature.args[0].bitwidth)
        return builder.zext(builder.bitcast(value, word), ir.IntType(64))

    return types.int64(x), codegen


@intrinsic
def _real(typing_context, bits, like):
    """The real, of the type of `like`, that has these low bits."""

    def codegen(context, builder, signature, arguments):
        real = signature.return_type
        word = builder.trunc(arguments[0], ir.IntType(real.bitwidth))
        return builder.bitcast(word, context.get_value_type(real))

    return like(types.int64, like), codegen


@intrinsic
def _polynomial(typing_context, x, coefficients):
    """Sum of coefficients[k] * x**k, in pairs of neighbouring powers: half the latency of Horner's rule."""

    def codegen(context, builder, signature, arguments):
        x, table = arguments
        square = builder.fmul(x, x)
        count = len(signature.args[1])
        total = None
        for k in reversed(range(0, count, 2)):
            term = builder.extract_value(table, k)
            if k + 1 < count:
                term = builder.fadd(term, builder.fmul(builder.extract_value(table, k + 1), x))
            total = term if total is None else builder.fadd(term, builder.fmul(square, total))
        return total

    return x(x, coefficients), codegen


_part = njit(forceinline=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)
_inlined = njit(forceinline=True)


@_part
def _reduce(x, shifter):
    """r, and n + shifter, whose low bits hold n and what the shifter adds to it: x = n ln 2 + r."""
    c = _constants(x)
    shifted = x * c.log2_e + shifter
    n = shifted - shifter
    return x - n * c.ln2_hi - n * c.ln2_lo, shifted


@_part
def _scaled_exp(factor, x, correction):
    """factor * e**(x - correction)."""
    c = _constants(x)
    r, shifted = _reduce(x, c.exp_shifter)
    r -= correction
    expm1_r = r + r * r * _polynomial(r, c.exp_tail)
    exponents = _bits(shifted)
    half = exponents >> 1
    first = factor * _real(half << c.mantissa_bits, x)
    second = _real((exponents - half) << c.mantissa_bits, x)
    return (first + first * expm1_r) * second


@_part
def _half_expm1(x):
    """(e**x - 1) / 2."""
    c = _constants(x)
    r, shifted = _reduce(x, c.expm1_shifter)
    scale = _real(_bits(shifted) << c.mantissa_bits, x)
    return (scale - c.half) + scale * r + scale * (r * r) * _polynomial(r, c.exp_tail)


def _log_tail(f, square):
    """log(1 + f) - f + square / 2, square being f**2."""
    raise NotImplementedError("compiled code only")


@overload(_log_tail, jit_options={**OPTIONS, "forceinline": True})
def _log_tail_of_type(f, square):
    def series(f, square):
        return square * f * _polynomial(f, _constants(f).log_tail)

    def atanh(f, square):
        c = _constants(f)
        s = f / (c.two + f)
        z = s * s
        return s * (c.half * square + z * _polynomial(z, c.log_tail))

    return series if f == types.float32 else atanh


@_part
def _reduced_log(f, k):
    """log(2**k * (1 + f))."""
    c = _constants(f)
    square = f * f
    tail = _log_tail(f, square) + k * c.ln2_lo
    return k * c.ln2_hi + (f - (c.half * square - tail))


@_part
def _lifted_parts(x):
    """p and scale with 2**exp_lift * e**x = scale * (1 + p), for exp_end <= x <= 0."""
    c = _constants(x)
    r, shifted = _reduce(x, c.lifted_shifter)
    return r + r * r * _polynomial(r, c.exp_tail), _real(_bits(shifted) << c.mantissa_bits, x)


@_part
def _minus_abs_to_end(x):
    """-|x|, or exp_end if that is larger."""
    c = _constants(x)
    a = abs(x)
    return -(-c.exp_end if -c.exp_end < a else a)


@_part
def _minus_abs(x):
    """-|x|, constant from the saturation on."""
    c = _constants(x)
    return -c.saturation if x > c.saturation else -abs(x)


@_part
def _exp_minus_abs(x):
    """e**-|x|, constant from the saturation on; rubbish where e**x is zero."""
    c = _constants(x)
    return _scaled_exp(c.one, _minus_abs(x), c.zero)


@_part
def _times_exp(x):
    """x e**x for x <= 0."""
    c = _constants(x)
    y = _scaled_exp(x, _minus_abs(x), c.zero)
    return -c.zero if x < c.times_exp_min else y


@_part
def _normal_tail(x, exponent, correction):
    """P(X > x) for x >= 0, with -x**2 / 2 given as exponent - correction."""
    c = _constants(x)
    u = c.two / (x + c.mills_centre)
    return _scaled_exp(_polynomial(x * u - c.one, c.mills) * u, exponent, correction)


@_inlined
def exp(x):
    c = _constants(x)
    y = _scaled_exp(c.one, x, c.zero)
    y = c.inf if x > c.exp_max else y
    return c.zero if x < c.exp_min else y


@njit
def exponentials(x):
    """e**x in the place of each x."""
    widest_vectors()
    for i in range(x.size):
        x[i] = exp(x[i])


@_inlined
def expm1(x):
    c = _constants(x)
    y = c.two * _half_expm1(x)
    y = c.inf if x > c.exp_max else y
    y = -c.one if x < -c.saturation else y
    return x if abs(x) < c.tiny else y


@_inlined
def log(x):
    c = _constants(x)
    denormal = x < c.min_normal
    bits = _bits(abs(x * c.power if denormal else x)) + ((c.bias << c.mantissa_bits) - c.sqrt_half)
    offset = c.denormal_log_offset if denormal else c.log_offset
    k = _real((bits >> c.mantissa_bits) | _bits(c.power), x) - offset
    f = _real((bits & ((1 << c.mantissa_bits) - 1)) + c.sqrt_half, x) - c.one
    y = _reduced_log(f, k)
    y = y if x < c.inf else x
    return y if x > c.zero else (-c.inf if x == c.zero else c.nan)


@_inlined
def log1p(x):
    c = _constants(x)
    offset = (c.bias << c.mantissa_bits) - c.sqrt_half
    exponent = (_bits(abs(c.one + x)) + offset) >> c.mantissa_bits
    k = _real(exponent | _bits(c.power), x) - c.log_offset
    scale = _real((2 * c.bias + 2 - exponent) << c.mantissa_bits, x)
    f = scale * (c.quarter * x) + (c.quarter * scale - c.one)
    y = _reduced_log(f, k)
    y = y if x < c.inf else x
    y = x if abs(x) < c.tiny else y
    return y if x > -c.one else (-c.inf if x == -c.one else c.nan)


@_inlined
def tanh(x):
    c = _constants(x)
    a = abs(x)
    near = c.saturation if a > c.saturation else a
    shifted = near * c.two_log2_e + c.tanh_shifter
    r = near - (shifted - c.tanh_shifter) * c.half_ln2
    scale = _real(_bits(shifted) << c.mantissa_bits, x)
    h = (c.half * scale - c.half) + scale * r + scale * (r * r) * _polynomial(r, c.tanh_tail)
    guess = c.half if a > c.half else a
    y = guess + ((h - guess) - guess * h) / (c.one + h)
    return math.copysign(y, x)


@_inlined
def sigmoid(x):
    c = _constants(x)
    e = c.zero if x < c.exp_min else _exp_minus_abs(x)
    ratio = (c.one if x > c.zero else e) / (c.one + e)
    return e - e * ratio if x < -c.one else ratio


@_inlined
def softplus(x):
    c = _constants(x)
    e = _exp_minus_abs(x)
    k = c.one if e > c.sqrt2 - c.one else c.zero
    f = (c.one - c.half * k) * e - c.half * k
    y = c.zero if x < c.exp_min else _reduced_log(f, k)
    return (x if x > c.zero else c.zero) + y


@_inlined
def silu(x):
    c = _constants(x)
    minus_abs = _minus_abs_to_end(x)
    p, scale = _lifted_parts(minus_abs)
    e = (scale + scale * p) * c.exp_lowered
    ratio = (x if x >= c.zero else e) / (c.one + e)
    factor = -minus_abs * scale
    y = factor + factor * p
    lost = (factor - y) + factor * p
    left = (y - (y * ratio - (lost - lost * ratio))) * -c.exp_lowered
    return ratio if x >= c.zero else left


@_inlined
def mish(x):
    c = _constants(x)
    e = c.zero if x < c.exp_min else _exp_minus_abs(x)
    n_right, n_left, d_right = c.one + c.two * e, e * (e + c.two), c.two * (e * e)
    right, left = x * n_right, _times_exp(x) * (e + c.two)
    n = n_right if x > c.zero else n_left
    d = d_right if x > c.zero else c.two
    return (right if x > c.zero else left) / (n + d)


@_inlined
def erf(x):
    c = _constants(x)
    a = abs(x)
    square = a * a
    near = a + a * _polynomial(square, c.erf_tail)
    far = c.one - c.two * _normal_tail(c.sqrt2 * a, -square, c.zero)
    far = c.one if a > c.erf_max else far
    return math.copysign(near if a < c.one else far, x)


@_inlined
def normal_cdf(x):
    c = _constants(x)
    a = abs(x)
    head = _real(_bits(a) & c.head, x)
    rest = c.half * (a - head) * (a + head)
    tail = _normal_tail(a, -c.half * head * head, rest)
    tail = c.zero if a > c.normal_max else tail
    return c.one - tail if x > c.zero else tail
