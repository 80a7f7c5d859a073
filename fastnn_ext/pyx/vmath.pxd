"""The vectorisable mathematical functions of engine/vmath.h, for float and double under one name each."""

from common cimport real

cdef extern from "engine/vmath.h" nogil:
    float fnn_abs_f32(float x)
    double fnn_abs_f64(double x)
    float fnn_exp_f32(float x)
    double fnn_exp_f64(double x)
    float fnn_lift_f32()
    double fnn_lift_f64()
    float fnn_lifted_exp_f32(float x)
    double fnn_lifted_exp_f64(double x)
    float fnn_expm1_f32(float x)
    double fnn_expm1_f64(double x)
    float fnn_log_f32(float x)
    double fnn_log_f64(double x)
    float fnn_log1p_f32(float x)
    double fnn_log1p_f64(double x)
    float fnn_tanh_f32(float x)
    double fnn_tanh_f64(double x)
    float fnn_sigmoid_f32(float x)
    double fnn_sigmoid_f64(double x)
    float fnn_softplus_f32(float x)
    double fnn_softplus_f64(double x)
    float fnn_silu_f32(float x)
    double fnn_silu_f64(double x)
    float fnn_mish_f32(float x)
    double fnn_mish_f64(double x)
    float fnn_erf_f32(float x)
    double fnn_erf_f64(double x)
    float fnn_normal_cdf_f32(float x)
    double fnn_normal_cdf_f64(double x)
    float fnn_gelu_f32(float x)
    double fnn_gelu_f64(double x)


cdef inline real fabs(real x) noexcept nogil:
    if real is float:
        return fnn_abs_f32(x)
    else:
        return fnn_abs_f64(x)


cdef inline real exp(real x) noexcept nogil:
    if real is float:
        return fnn_exp_f32(x)
    else:
        return fnn_exp_f64(x)


cdef inline double lift_of(const real *x) noexcept nogil:
    """What lifted_exp multiplies by."""
    return fnn_lift_f32() if real is float else fnn_lift_f64()


cdef inline real lifted_exp(real x) noexcept nogil:
    """lift * e^x for x <= 0."""
    if real is float:
        return fnn_lifted_exp_f32(x)
    else:
        return fnn_lifted_exp_f64(x)


cdef inline real expm1(real x) noexcept nogil:
    if real is float:
        return fnn_expm1_f32(x)
    else:
        return fnn_expm1_f64(x)


cdef inline real log(real x) noexcept nogil:
    if real is float:
        return fnn_log_f32(x)
    else:
        return fnn_log_f64(x)


cdef inline real log1p(real x) noexcept nogil:
    if real is float:
        return fnn_log1p_f32(x)
    else:
        return fnn_log1p_f64(x)


cdef inline real tanh(real x) noexcept nogil:
    if real is float:
        return fnn_tanh_f32(x)
    else:
        return fnn_tanh_f64(x)


cdef inline real sigmoid(real x) noexcept nogil:
    if real is float:
        return fnn_sigmoid_f32(x)
    else:
        return fnn_sigmoid_f64(x)


cdef inline real softplus(real x) noexcept nogil:
    if real is float:
        return fnn_softplus_f32(x)
    else:
        return fnn_softplus_f64(x)


cdef inline real silu(real x) noexcept nogil:
    if real is float:
        return fnn_silu_f32(x)
    else:
        return fnn_silu_f64(x)


cdef inline real mish(real x) noexcept nogil:
    if real is float:
        return fnn_mish_f32(x)
    else:
        return fnn_mish_f64(x)


cdef inline real erf(real x) noexcept nogil:
    if real is float:
        return fnn_erf_f32(x)
    else:
        return fnn_erf_f64(x)


cdef inline real normal_cdf(real x) noexcept nogil:
    """P(X <= x) for a standard normal X."""
    if real is float:
        return fnn_normal_cdf_f32(x)
    else:
        return fnn_normal_cdf_f64(x)


cdef inline real gelu(real x) noexcept nogil:
    """x P(X <= x)"""
    if real is float:
        return fnn_gelu_f32(x)
    else:
        return fnn_gelu_f64(x)
