"""The activations and their derivatives at one point; see `fastnn/activations.py` for what they are.

Each takes x and the option of its kernel, which most ignore. Constants are typed, since a bare literal is a double
and would make float arithmetic double; selections have no branch that a vectorised loop could not take both ways of.
At infinity a factor x is held to +-`far`, where its other factor has long been 0.
"""

from common cimport real
from vmath cimport exp, expm1, fabs, normal_cdf
from vmath cimport gelu as exact_gelu
from vmath cimport mish as exact_mish
from vmath cimport sigmoid as logistic
from vmath cimport silu as exact_silu
from vmath cimport softplus as log1p_exp
from vmath cimport tanh as hyperbolic_tangent

cdef enum:
    far = 1000


cdef inline real at_least(real x, real low) noexcept nogil:
    return low if x < low else x


cdef inline real at_most(real x, real high) noexcept nogil:
    return high if x > high else x


cdef inline real clipped(real x, real low, real high) noexcept nogil:
    return at_most(at_least(x, low), high)


cdef inline real chosen(bint condition, real yes, real no, real x) noexcept nogil:
    """One of two numbers; NaN where x is NaN."""
    cdef real value = yes if condition else no
    return x if x != x else value


cdef inline real flat(real x, real option) noexcept nogil:
    """The derivative of step and sign."""
    return chosen(True, <real> 0, <real> 0, x)


cdef inline real step(real x, real threshold) noexcept nogil:
    return chosen(x >= threshold, <real> 1, <real> 0, x)


cdef inline real sign(real x, real option) noexcept nogil:
    cdef real zero = 0, one = 1
    return one if x > zero else (-one if x < zero else x)


cdef inline real relu(real x, real option) noexcept nogil:
    return at_least(x, <real> 0)


cdef inline real relu_derivative(real x, real option) noexcept nogil:
    return chosen(x > <real> 0, <real> 1, <real> 0, x)


cdef inline real leaky_relu(real x, real negative_slope) noexcept nogil:
    return x if x > <real> 0 else negative_slope * x


cdef inline real leaky_relu_derivative(real x, real negative_slope) noexcept nogil:
    return chosen(x > <real> 0, <real> 1, negative_slope, x)


cdef inline real elu(real x, real alpha) noexcept nogil:
    return x if x > <real> 0 else alpha * expm1(x)


cdef inline real elu_derivative(real x, real alpha) noexcept nogil:
    return <real> 1 if x > <real> 0 else alpha * exp(x)


cdef inline real selu(real x, real option) noexcept nogil:
    cdef real scale = 1.0507009873554804934193349852946
    return scale * elu(x, <real> 1.6732632423543772848170429916717)


cdef inline real selu_derivative(real x, real option) noexcept nogil:
    cdef real scale = 1.0507009873554804934193349852946
    return scale * elu_derivative(x, <real> 1.6732632423543772848170429916717)


cdef inline real gelu(real x, real option) noexcept nogil:
    return exact_gelu(x)


cdef inline real gelu_derivative(real x, real option) noexcept nogil:
    cdef real z = clipped(x, <real> -far, <real> far)
    cdef real density = <real> 0.39894228040143267794 * exp(<real> -0.5 * z * z)
    return normal_cdf(x) + z * density


cdef inline real gelu_tanh(real x, real option) noexcept nogil:
    """x (1 + tanh(u)) / 2 = x sigmoid(2 u), u = sqrt(2 / pi) (x + 0.044715 x^3), which may be infinite"""
    cdef real u = x * (<real> 1.5957691216057307117 + <real> 0.071354816272600247 * (x * x))
    return at_least(x, <real> -far) * logistic(u)


cdef inline real gelu_tanh_derivative(real x, real option) noexcept nogil:
    cdef real z = clipped(x, <real> -far, <real> far)
    cdef real u = z * (<real> 1.5957691216057307117 + <real> 0.071354816272600247 * (z * z))
    cdef real slope = <real> 1.5957691216057307117 + <real> 0.21406444881780074 * (z * z)
    return logistic_and_slope(u, z * slope)


cdef inline real logistic_and_slope(real x, real factor) noexcept nogil:
    """sigmoid(x) + factor sigmoid'(x), with one exponential"""
    cdef real one = 1
    cdef real e = exp(-fabs(x))
    cdef real r = one / (one + e)
    return r * ((e if x < <real> 0 else one) + factor * (e * r))


cdef inline real silu(real x, real option) noexcept nogil:
    return exact_silu(x)


cdef inline real silu_derivative(real x, real option) noexcept nogil:
    return logistic_and_slope(x, clipped(x, <real> -far, <real> far))


cdef inline real mish(real x, real option) noexcept nogil:
    return exact_mish(x)


cdef inline real mish_derivative(real x, real option) noexcept nogil:
    """t + x sigmoid(x) (1 - t^2) for t = tanh(softplus(x)) = n / (n + d), and slope / (n + d)^2 for the rest"""
    cdef real one = 1, two = 2, four = 4
    cdef real e = exp(-fabs(x))
    cdef bint above = x > <real> 0
    cdef real n = one + two * e if above else e * (e + two)
    cdef real d = two * (e * e) if above else two
    cdef real r = one / (n + d)
    cdef real slope = four * (one + e) * (e * e if above else e)
    return r * (n + clipped(x, <real> -far, <real> far) * (slope * r))


cdef inline real softplus(real x, real option) noexcept nogil:
    return log1p_exp(x)


cdef inline real sigmoid(real x, real option) noexcept nogil:
    return logistic(x)


cdef inline real sigmoid_derivative(real x, real option) noexcept nogil:
    cdef real one = 1
    cdef real e = exp(-fabs(x))
    cdef real r = one / (one + e)
    return e * r * r


cdef inline real sigmoid_from_output(real y, real option) noexcept nogil:
    return y * (<real> 1 - y)


cdef inline real hard_sigmoid(real x, real option) noexcept nogil:
    return clipped(x + <real> 3, <real> 0, <real> 6) * <real> (1.0 / 6)


cdef inline real hard_sigmoid_derivative(real x, real option) noexcept nogil:
    return chosen(fabs(x) < <real> 3, <real> (1.0 / 6), <real> 0, x)


cdef inline real tanh(real x, real option) noexcept nogil:
    return hyperbolic_tangent(x)


cdef inline real tanh_derivative(real x, real option) noexcept nogil:
    cdef real two = 2
    cdef real z = clipped(x, <real> -far, <real> far)
    return <real> 4 * sigmoid_derivative(two * z, option)


cdef inline real tanh_from_output(real y, real option) noexcept nogil:
    cdef real one = 1
    return (one - y) * (one + y)


cdef inline real hard_tanh(real x, real option) noexcept nogil:
    return clipped(x, <real> -1, <real> 1)


cdef inline real hard_tanh_derivative(real x, real option) noexcept nogil:
    return chosen(fabs(x) < <real> 1, <real> 1, <real> 0, x)


cdef inline real softsign(real x, real option) noexcept nogil:
    cdef real z = clipped(x, <real> -1e30, <real> 1e30)
    return z / (<real> 1 + fabs(z))


cdef inline real softsign_derivative(real x, real option) noexcept nogil:
    cdef real one = 1
    cdef real r = one / (one + fabs(x))
    return r * r
