/* exp, log, tanh and their kin for loops that the compiler turns into vector code.
 *
 * Every function is scalar and branch-free: choices are ternaries on finished values, rounding and powers
 * of two are made with adds and shifts, so `for (i...) y[i] = fnn_tanh(x[i]);` vectorises on SSE2, AVX2,
 * AVX-512 and NEON with `-O3 -fno-math-errno -fno-trapping-math`. Accuracy does not rest on fused
 * multiply-add; contraction is allowed. NaN goes in and comes out, infinities and signed zeros are those
 * of C11 Annex F, results underflow gradually.
 *
 * Suffix _f32 or _f64; the name without suffix picks by the type of its argument.
 *
 * The largest errors that were found stand in docs/accuracy.md; benchmarks/vmath_error.py measures the kernels that are
 * made of these functions.
 *
 * Polynomials are minimax (Remez exchange, weighted for relative error of the function, leading
 * coefficients fitted to the format). fastnn_ext/njit/_vmath.py holds the same tables under the same
 * names. */
#ifndef FASTNN_VMATH_H
#define FASTNN_VMATH_H

#include <float.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

/* Rounding by a large addend needs sums that are rounded to their type: not so in x87 registers. */
#if defined(FLT_EVAL_METHOD) && FLT_EVAL_METHOD == 2
#error "fastnn needs float arithmetic in float precision (on 32-bit x86: -msse2 -mfpmath=sse)"
#endif

/* Products and sums are fused by the compiler: the processor has an instruction for it. */
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA)
#define FNN_FUSED 1
#else
#define FNN_FUSED 0
#endif

#if defined(__GNUC__)
#define FNN_INLINE static inline __attribute__((always_inline))
#elif defined(_MSC_VER)
#define FNN_INLINE static __forceinline
#else
#define FNN_INLINE static inline
#endif

FNN_INLINE uint32_t fnn_bits_f32(float x) { uint32_t b; memcpy(&b, &x, sizeof b); return b; }
FNN_INLINE uint64_t fnn_bits_f64(double x) { uint64_t b; memcpy(&b, &x, sizeof b); return b; }
FNN_INLINE float fnn_real_f32(uint32_t b) { float x; memcpy(&x, &b, sizeof x); return x; }
FNN_INLINE double fnn_real_f64(uint64_t b) { double x; memcpy(&x, &b, sizeof x); return x; }

/* The polynomials, summed in pairs of neighbouring powers or, where the many constants would not fit the
 * registers, in even and odd powers: as many operations as Horner's rule and half its latency. */

/* (e^(u r) - 1 - u r) / (u r^2) for u = 1 or 2 and |u r| <= ln(2)/2; error 2^-26 and 2^-55 of e^(u r) - 1. Powers of u
 * leave the coefficients exact. */
FNN_INLINE float fnn_exp_tail_of_f32(float r, float u)
{
    const float s = r * r, v = u * u;
    float p = u * v * v * 1.3898256e-3f;
    p = (u * v * 4.16668616e-2f + v * v * 8.36622808e-3f * r) + s * p;
    return (u * 0.5f + v * 1.6666548e-1f * r) + s * p;
}

FNN_INLINE double fnn_exp_tail_of_f64(double r, double u)
{
    const double s = r * r, v = u * u, w = v * v;
    double p = u * w * w * 2.7622598159516194e-07 + v * w * w * 2.504586011593048e-08 * r;
    p = (u * v * w * 2.4801515535102802e-05 + w * w * 2.755742632499441e-06 * r) + s * p;
    p = (u * w * 0.0013888888921053412 + v * w * 0.000198412697070116 * r) + s * p;
    p = (u * v * 0.041666666666618904 + w * 0.008333333333389686 * r) + s * p;
    return (u * 0.5 + v * 0.166666666666666 * r) + s * p;
}

FNN_INLINE float fnn_exp_tail_f32(float r) { return fnn_exp_tail_of_f32(r, 1.0f); }
FNN_INLINE double fnn_exp_tail_f64(double r) { return fnn_exp_tail_of_f64(r, 1.0); }

/* log(1 + f) - f + f^2 / 2 for sqrt(1/2) <= 1 + f <= sqrt(2), square = f^2; error 2^-27 of log(1 + f). */
FNN_INLINE float fnn_log_tail_f32(float f, float square)
{
    float p = 1.2761654e-1f - 7.63466731e-2f * f;
    p = (1.42017424e-1f - 1.31601498e-1f * f) + square * p;
    p = (2.00012282e-1f - 1.66233599e-1f * f) + square * p;
    p = (3.33333313e-1f - 2.50008196e-1f * f) + square * p;
    return square * f * p;
}

/* The same by log(1 + f) = 2 atanh(f / (2 + f)), the form of FDLIBM (Ng, 1993): in double one division
 * costs less than the thirteen further terms of the plain series. Error 2^-59. */
FNN_INLINE double fnn_log_tail_f64(double f, double square)
{
    const double s = f / (2.0 + f);
    const double z = s * s;
    const double w = z * z;
    double p = 0.14797509718439905;
    p = (0.1818356974971365 + 0.15313903020622538 * z) + w * p;
    p = (0.28571428743264854 + 0.22222198475775629 * z) + w * p;
    p = (0.6666666666666735 + 0.3999999999941108 * z) + w * p;
    return s * (0.5 * square + z * p);
}

/* erf(x) / x - 1 as a function of z = x^2 <= 1; error 2^-29 and 2^-56 of erf(x) / x. */
FNN_INLINE float fnn_erf_tail_f32(float z)
{
    const float w = z * z;
    float even = 7.85054071e-5f, odd = -8.0092717e-4f;
    even = even * w + 5.18822996e-3f;
    odd = odd * w - 2.68537682e-2f;
    even = even * w + 1.12835847e-1f;
    odd = odd * w - 3.7612626e-1f;
    even = even * w + 1.28379166e-1f;
    return even + z * odd;
}

FNN_INLINE double fnn_erf_tail_f64(double z)
{
    const double w = z * z;
    double even = 1.3709114764332677e-08, odd = -7.7759379198779e-10;
    even = even * w + 1.6447076955606043e-06;
    odd = odd * w - 1.6205888752049642e-07;
    even = even * w + 0.00012055293354864688;
    odd = odd * w - 1.4924707952533698e-05;
    even = even * w + 0.0052239776059707765;
    odd = odd * w - 0.0008548325922052289;
    even = even * w + 0.11283791670944078;
    odd = odd * w - 0.026866170643093993;
    even = even * w + 0.12837916709551256;
    odd = odd * w - 0.37612638903183515;
    return even + z * odd;
}

/* (x + c) Phi(-x) e^(x^2/2) / 2 as a function of t = (x - c) / (x + c), c = FNN_MILLS_CENTRE: with the
 * mapping of Shepherd and Laframboise (Math. Comp. 36, 1981) one polynomial serves the whole tail. Error
 * 2^-25 and 2^-54. */
FNN_INLINE float fnn_mills_f32(float t)
{
    const float s = t * t;
    float even = 9.06957212e-5f, odd = -6.55106196e-5f;
    even = even * s - 1.75675866e-3f;
    odd = odd * s + 7.85320881e-4f;
    even = even * s + 3.02019827e-2f;
    odd = odd * s - 3.76291503e-3f;
    even = even * s + 1.93568438e-1f;
    odd = odd * s - 9.32616442e-2f;
    even = even * s + 3.77642572e-1f;
    odd = odd * s - 3.03948313e-1f;
    return even + t * odd;
}

FNN_INLINE double fnn_mills_f64(double t)
{
    const double s = t * t;
    double even = 3.6044216239178566e-09, odd = 1.0127075654301998e-09;
    even = even * s - 3.269769433842766e-08;
    odd = odd * s - 5.113455946108129e-09;
    even = even * s + 2.1638842198517186e-07;
    odd = odd * s + 2.180250587100163e-08;
    even = even * s - 1.3845576778074455e-06;
    odd = odd * s - 1.688570595694453e-07;
    even = even * s + 8.340584610666964e-06;
    odd = odd * s + 1.9907330067469517e-06;
    even = even * s - 2.968785874451407e-05;
    odd = odd * s - 2.488149954651777e-05;
    even = even * s - 0.0003989347002485394;
    odd = odd * s + 0.00027244955153373743;
    even = even * s + 0.010397533400075154;
    odd = odd * s - 0.0014966883876479347;
    even = even * s + 0.08251018308518306;
    odd = odd * s - 0.03455931935299109;
    even = even * s + 0.24765280798498843;
    odd = odd * s - 0.15676657833565735;
    even = even * s + 0.3845965248750315;
    odd = odd * s - 0.3326912514450283;
    return even + t * odd;
}

/* The same for gelu: in float, errors of 2^-28 in |x| Phi(-|x|) and of 4e-5 in its ratio cost three terms less. */
FNN_INLINE float fnn_gelu_mills_f32(float t)
{
    const float s = t * t;
    float even = -2.89428653e-3f, odd = -4.27750312e-3f;
    even = even * s + 3.0333586e-2f;
    odd = odd * s - 9.30796191e-2f;
    even = even * s + 1.9361335e-1f;
    odd = odd * s - 3.03948671e-1f;
    even = even * s + 3.77641708e-1f;
    return even + t * odd;
}

FNN_INLINE double fnn_gelu_mills_f64(double t) { return fnn_mills_f64(t); }

/* The functions themselves, written once in vmath_impl.h for a type FNN_REAL. */
#define FNN_REAL float
#define FNN_UINT uint32_t
#define FNN_NAME(name) fnn_##name##_f32
#define FNN_C(value) value##f
#define FNN_MANTISSA_BITS 23
#define FNN_BIAS 127
#define FNN_MIN_NORMAL 1.17549435e-38f
#define FNN_SQRT_HALF UINT32_C(0x3f3504f3) /* bits of sqrt(1/2) */
#define FNN_HEAD UINT32_C(0xfffff000)      /* half of the significand, so that its square is exact */
#define FNN_LN2_HI 0.693145752f            /* 15 bits: n * FNN_LN2_HI is exact for every exponent n */
#define FNN_LN2_LO 1.42860682e-6f
#define FNN_EXP_MIN (-104.0f)              /* below, e^x rounds to 0 */
#define FNN_EXP_MAX 89.0f                  /* above, e^x is infinite */
#define FNN_EXP_LIFT 32
#define FNN_EXP_LOWERED 2.32830644e-10f    /* 2^-FNN_EXP_LIFT */
#define FNN_EXP_END (-110.210396f)         /* -(FNN_BIAS + FNN_EXP_LIFT) ln 2: from there on e^x and x e^x round to 0 */
#define FNN_SATURATION 18.0f               /* e^-x is under half a unit in the last place of 1 */
#define FNN_TINY 1.49011612e-8f            /* 2^-26: e^x - 1 and log(1 + x) are x */
#define FNN_ERF_MAX 4.0f
#define FNN_NORMAL_MAX 14.5f
#define FNN_MILLS_CENTRE 4.0f
#define FNN_LIFT 64
#define FNN_LOWERED 5.42101086e-20f        /* 2^-FNN_LIFT */
#include "vmath_impl.h"

#define FNN_REAL double
#define FNN_UINT uint64_t
#define FNN_NAME(name) fnn_##name##_f64
#define FNN_C(value) value
#define FNN_MANTISSA_BITS 52
#define FNN_BIAS 1023
#define FNN_MIN_NORMAL 2.2250738585072014e-308
#define FNN_SQRT_HALF UINT64_C(0x3fe6a09e667f3bcd)
#define FNN_HEAD UINT64_C(0xfffffffff8000000)
#define FNN_LN2_HI 0.693147180559663 /* 41 bits */
#define FNN_LN2_LO 2.8235290563031577e-13
#define FNN_EXP_MIN (-746.0)
#define FNN_EXP_MAX 710.0
#define FNN_EXP_LIFT 64
#define FNN_EXP_LOWERED 5.421010862427522e-20
#define FNN_EXP_END (-753.45098523)
#define FNN_SATURATION 38.0
#define FNN_TINY 2.7755575615628914e-17 /* 2^-55 */
#define FNN_ERF_MAX 6.0
#define FNN_NORMAL_MAX 39.0
#define FNN_MILLS_CENTRE 5.0
#define FNN_LIFT 512
#define FNN_LOWERED 7.458340731200207e-155
#include "vmath_impl.h"

#if defined(__cplusplus)
#define FNN_OVERLOAD(name)                                                 \
    FNN_INLINE float fnn_##name(float x) { return fnn_##name##_f32(x); }   \
    FNN_INLINE double fnn_##name(double x) { return fnn_##name##_f64(x); }
FNN_OVERLOAD(exp)
FNN_OVERLOAD(expm1)
FNN_OVERLOAD(log)
FNN_OVERLOAD(log1p)
FNN_OVERLOAD(tanh)
FNN_OVERLOAD(sigmoid)
FNN_OVERLOAD(softplus)
FNN_OVERLOAD(silu)
FNN_OVERLOAD(mish)
FNN_OVERLOAD(erf)
FNN_OVERLOAD(normal_cdf)
FNN_OVERLOAD(gelu)
#undef FNN_OVERLOAD
#else
#define FNN_BY_TYPE(name, x) _Generic((x), float: fnn_##name##_f32, default: fnn_##name##_f64)(x)
#define fnn_exp(x) FNN_BY_TYPE(exp, x)
#define fnn_expm1(x) FNN_BY_TYPE(expm1, x)
#define fnn_log(x) FNN_BY_TYPE(log, x)
#define fnn_log1p(x) FNN_BY_TYPE(log1p, x)
#define fnn_tanh(x) FNN_BY_TYPE(tanh, x)
#define fnn_sigmoid(x) FNN_BY_TYPE(sigmoid, x)
#define fnn_softplus(x) FNN_BY_TYPE(softplus, x)
#define fnn_erf(x) FNN_BY_TYPE(erf, x)
#define fnn_normal_cdf(x) FNN_BY_TYPE(normal_cdf, x)
#define fnn_gelu(x) FNN_BY_TYPE(gelu, x)
#endif

#endif
