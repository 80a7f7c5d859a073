/* Included by vmath.h once for float and once for double; it has no guard because of that.
 *
 * Three habits keep the loops in vector registers:
 * - Round to an integer by adding 1.5 * 2^p and read the integer from the low bits of the sum: SSE2 and
 *   AVX2 have no conversion between double and 64-bit integers, but they can add and shift.
 * - Let arguments outside the domain give rubbish and choose the right value last. A clamp of the argument
 *   to a constant reads better, but GCC then carries that constant through the whole function and merges
 *   the two halves late.
 * - Compare unrelated-looking variables (-|x| rather than x) where GCC would otherwise chain the
 *   comparisons into branches and compute a division once per branch. */

FNN_INLINE FNN_REAL FNN_NAME(abs)(FNN_REAL x)
{
    return FNN_NAME(real)(FNN_NAME(bits)(x) & (~(FNN_UINT)0 >> 1));
}

FNN_INLINE FNN_REAL FNN_NAME(with_sign)(FNN_REAL magnitude, FNN_REAL sign)
{
    const FNN_UINT sign_bit = ~(~(FNN_UINT)0 >> 1);
    return FNN_NAME(real)(FNN_NAME(bits)(magnitude) | (FNN_NAME(bits)(sign) & sign_bit));
}

/* One of two numbers, by the sign bit. */
FNN_INLINE FNN_REAL FNN_NAME(by_sign)(FNN_REAL x, FNN_REAL positive, FNN_REAL negative)
{
    const FNN_UINT mask = (FNN_UINT)0 - (FNN_NAME(bits)(x) >> (sizeof(FNN_REAL) * 8 - 1));
    return FNN_NAME(real)((FNN_NAME(bits)(negative) & mask) | (FNN_NAME(bits)(positive) & ~mask));
}

/* x = n ln 2 + r with |r| <= ln(2)/2 (Cody and Waite, 1980). Returns r; the low bits of *shifted hold
 * n + offset. */
FNN_INLINE FNN_REAL FNN_NAME(reduce)(FNN_REAL x, int offset, FNN_REAL *shifted)
{
    const FNN_REAL shifter = FNN_C(1.5) * (FNN_REAL)((FNN_UINT)1 << FNN_MANTISSA_BITS) + (FNN_REAL)offset;
    FNN_REAL n;
    *shifted = x * FNN_C(1.4426950408889634) + shifter;
    n = *shifted - shifter;
    return x - n * FNN_LN2_HI - n * FNN_LN2_LO;
}

/* factor * e^(x - correction). 2^n is applied as two factors, so that it reaches infinity and denormals. */
FNN_INLINE FNN_REAL FNN_NAME(scaled_exp)(FNN_REAL factor, FNN_REAL x, FNN_REAL correction)
{
    FNN_REAL shifted;
    const FNN_REAL r = FNN_NAME(reduce)(x, 2 * FNN_BIAS, &shifted) - correction;
    const FNN_REAL expm1_r = r + r * r * FNN_NAME(exp_tail)(r);
    const FNN_UINT exponents = FNN_NAME(bits)(shifted);
    const FNN_UINT half = exponents >> 1;
    const FNN_REAL first = factor * FNN_NAME(real)(half << FNN_MANTISSA_BITS);
    const FNN_REAL second = FNN_NAME(real)((exponents - half) << FNN_MANTISSA_BITS);
    return (first + first * expm1_r) * second;
}

/* (e^x - 1) / 2 = (2^(n-1) - 1/2) + 2^(n-1) (e^r - 1): the small term is added last, so that nothing
 * cancels. Halved, the power of two fits the format up to the largest result. */
FNN_INLINE FNN_REAL FNN_NAME(half_expm1)(FNN_REAL x)
{
    FNN_REAL shifted;
    const FNN_REAL r = FNN_NAME(reduce)(x, FNN_BIAS - 1, &shifted);
    const FNN_REAL scale = FNN_NAME(real)(FNN_NAME(bits)(shifted) << FNN_MANTISSA_BITS);
    return (scale - FNN_C(0.5)) + scale * r + scale * (r * r) * FNN_NAME(exp_tail)(r);
}

/* log(2^k (1 + f)), summed from the smallest term up. */
FNN_INLINE FNN_REAL FNN_NAME(reduced_log)(FNN_REAL f, FNN_REAL k)
{
    const FNN_REAL square = f * f;
    const FNN_REAL tail = FNN_NAME(log_tail)(f, square) + k * FNN_LN2_LO;
    return k * FNN_LN2_HI + (f - (FNN_C(0.5) * square - tail));
}

/* p and scale with 2^FNN_EXP_LIFT e^x = scale (1 + p), for FNN_EXP_END <= x <= 0. Lifted, the power of two is a
 * normal number wherever e^x is not 0, so one factor will do and denormals, slow and inexact, never arise; at FNN_EXP_END
 * it is 0. */
FNN_INLINE FNN_REAL FNN_NAME(lifted_parts)(FNN_REAL x, FNN_REAL *scale)
{
    FNN_REAL shifted;
    const FNN_REAL r = FNN_NAME(reduce)(x, FNN_BIAS + FNN_EXP_LIFT, &shifted);
    *scale = FNN_NAME(real)(FNN_NAME(bits)(shifted) << FNN_MANTISSA_BITS);
    return r + r * r * FNN_NAME(exp_tail)(r);
}

/* 2^FNN_EXP_LIFT e^x for FNN_EXP_END <= x <= 0. */
FNN_INLINE FNN_REAL FNN_NAME(lifted)(FNN_REAL x)
{
    FNN_REAL scale;
    const FNN_REAL p = FNN_NAME(lifted_parts)(x, &scale);
    return scale + scale * p;
}

/* 2^FNN_EXP_LIFT */
FNN_INLINE FNN_REAL FNN_NAME(lift)(void)
{
    return FNN_C(1.0) / FNN_EXP_LOWERED;
}

/* 2^FNN_EXP_LIFT e^x for any x <= 0. */
FNN_INLINE FNN_REAL FNN_NAME(lifted_exp)(FNN_REAL x)
{
    return FNN_NAME(lifted)(FNN_EXP_END > x ? FNN_EXP_END : x);
}

/* -|x|, or FNN_EXP_END if that is larger. */
FNN_INLINE FNN_REAL FNN_NAME(minus_abs_to_end)(FNN_REAL x)
{
    const FNN_REAL a = FNN_NAME(abs)(x);
    return -(-FNN_EXP_END < a ? -FNN_EXP_END : a);
}

/* -|x|, but a constant from FNN_SATURATION on, where 1 + e^-x is 1 already: it keeps large activations away from
 * denormals, which cost over a hundred cycles each. */
FNN_INLINE FNN_REAL FNN_NAME(minus_abs)(FNN_REAL x)
{
    return x > FNN_SATURATION ? -FNN_SATURATION : -FNN_NAME(abs)(x);
}

/* e^-|x|, or that constant's. Rubbish for x < FNN_EXP_MIN. */
FNN_INLINE FNN_REAL FNN_NAME(exp_minus_abs)(FNN_REAL x)
{
    return FNN_NAME(scaled_exp)(FNN_C(1.0), FNN_NAME(minus_abs)(x), FNN_C(0.0));
}

/* x e^x for x <= 0, which is still a number where e^x is denormal or 0 already. */
FNN_INLINE FNN_REAL FNN_NAME(times_exp)(FNN_REAL x)
{
    const FNN_REAL y = FNN_NAME(scaled_exp)(x, FNN_NAME(minus_abs)(x), FNN_C(0.0));
    return x < FNN_EXP_MIN - 8 ? FNN_C(-0.0) : y;
}

/* Phi(-x) for 0 <= x <= FNN_NORMAL_MAX, given -x^2 / 2 as exponent - correction. */
FNN_INLINE FNN_REAL FNN_NAME(normal_tail)(FNN_REAL x, FNN_REAL exponent, FNN_REAL correction)
{
    const FNN_REAL u = FNN_C(2.0) / (x + FNN_MILLS_CENTRE);
    return FNN_NAME(scaled_exp)(FNN_NAME(mills)(x * u - FNN_C(1.0)) * u, exponent, correction);
}

FNN_INLINE FNN_REAL FNN_NAME(exp)(FNN_REAL x)
{
    const FNN_REAL y = FNN_NAME(scaled_exp)(FNN_C(1.0), x, FNN_C(0.0));
    const FNN_REAL z = x > FNN_EXP_MAX ? (FNN_REAL)INFINITY : y;
    return x < FNN_EXP_MIN ? FNN_C(0.0) : z;
}

FNN_INLINE FNN_REAL FNN_NAME(expm1)(FNN_REAL x)
{
    FNN_REAL y = FNN_C(2.0) * FNN_NAME(half_expm1)(x);
    y = x > FNN_EXP_MAX ? (FNN_REAL)INFINITY : y;
    y = x < -FNN_SATURATION ? FNN_C(-1.0) : y;
    return FNN_NAME(abs)(x) < FNN_TINY ? x : y;
}

FNN_INLINE FNN_REAL FNN_NAME(log)(FNN_REAL x)
{
    const FNN_REAL power = (FNN_REAL)((FNN_UINT)1 << FNN_MANTISSA_BITS);
    const FNN_UINT one = (FNN_UINT)FNN_BIAS << FNN_MANTISSA_BITS;
    const FNN_UINT mantissa = ((FNN_UINT)1 << FNN_MANTISSA_BITS) - 1;
    const FNN_REAL normal = x < FNN_MIN_NORMAL ? x * power : x;
    const FNN_REAL bias = x < FNN_MIN_NORMAL ? power + (FNN_BIAS + FNN_MANTISSA_BITS) : power + FNN_BIAS;
    /* The exponent field is made to step at sqrt(1/2): f is centred and log(1) has no cancelling terms. */
    const FNN_UINT b = FNN_NAME(bits)(normal) + (one - FNN_SQRT_HALF);
    const FNN_REAL k = FNN_NAME(real)((b >> FNN_MANTISSA_BITS) | FNN_NAME(bits)(power)) - bias;
    const FNN_REAL f = FNN_NAME(real)((b & mantissa) + FNN_SQRT_HALF) - FNN_C(1.0);
    FNN_REAL y = FNN_NAME(reduced_log)(f, k);
    y = x < (FNN_REAL)INFINITY ? y : x;
    return x > 0 ? y : (x == 0 ? -(FNN_REAL)INFINITY : (FNN_REAL)NAN);
}

/* f = (1 + x) / 2^k - 1 is formed from x and not from the rounded 1 + x, which serves to find k only: no
 * division and no correction term. The power is carried as 4 / 2^k because 1 / 2^k is denormal for the
 * largest x. */
FNN_INLINE FNN_REAL FNN_NAME(log1p)(FNN_REAL x)
{
    const FNN_REAL power = (FNN_REAL)((FNN_UINT)1 << FNN_MANTISSA_BITS);
    const FNN_UINT one = (FNN_UINT)FNN_BIAS << FNN_MANTISSA_BITS;
    const FNN_UINT exponent = (FNN_NAME(bits)(FNN_C(1.0) + x) + (one - FNN_SQRT_HALF)) >> FNN_MANTISSA_BITS;
    const FNN_REAL k = FNN_NAME(real)(exponent | FNN_NAME(bits)(power)) - (power + FNN_BIAS);
    const FNN_REAL scale = FNN_NAME(real)((2 * FNN_BIAS + 2 - exponent) << FNN_MANTISSA_BITS);
    const FNN_REAL f = scale * (FNN_C(0.25) * x) + (FNN_C(0.25) * scale - FNN_C(1.0));
    FNN_REAL y = FNN_NAME(reduced_log)(f, k);
    y = x < (FNN_REAL)INFINITY ? y : x;
    y = FNN_NAME(abs)(x) < FNN_TINY ? x : y;
    return x > -1 ? y : (x == -1 ? -(FNN_REAL)INFINITY : (FNN_REAL)NAN);
}

/* h / (1 + h) with h = (e^(2|x|) - 1) / 2, written guess + (h - guess - guess h) / (1 + h), where rounding touches
 * only the smaller second term. |x| = n ln(2)/2 + r is found in one step: the rounding of ln 2 counts n times, but the
 * error of h counts the less the larger n is. */
FNN_INLINE FNN_REAL FNN_NAME(tanh)(FNN_REAL x)
{
    const FNN_REAL shifter = FNN_C(1.5) * (FNN_REAL)((FNN_UINT)1 << FNN_MANTISSA_BITS) + FNN_BIAS;
    const FNN_REAL a = FNN_NAME(abs)(x);
    const FNN_REAL shifted = a * FNN_C(2.8853900817779268) + shifter;
    const FNN_REAL r = a - (shifted - shifter) * FNN_C(0.34657359027997264);
    const FNN_REAL scale = FNN_NAME(real)(FNN_NAME(bits)(shifted) << FNN_MANTISSA_BITS);
    const FNN_REAL tail = scale * (r * r) * FNN_NAME(exp_tail_of)(r, FNN_C(2.0));
    const FNN_REAL h = (FNN_C(0.5) * scale - FNN_C(0.5)) + scale * r + tail;
    const FNN_REAL guess = a > FNN_C(0.5) ? FNN_C(0.5) : a;
    const FNN_REAL y = guess + ((h - guess) - guess * h) / (FNN_C(1.0) + h);
    return FNN_NAME(with_sign)(a > FNN_SATURATION ? FNN_C(1.0) : y, x);
}

/* a / (1 + e) = a - a e / (1 + e) with e = e^-|x| and a = 1 or, for negative x, e: the rounding of 1 + e counts only where
 * e is not small. The sign bits choose, since comparisons and divisions share units of the processor. */
FNN_INLINE FNN_REAL FNN_NAME(sigmoid)(FNN_REAL x)
{
    const FNN_REAL e = FNN_NAME(lifted)(FNN_NAME(minus_abs_to_end)(x)) * FNN_EXP_LOWERED;
    const FNN_REAL a = FNN_NAME(by_sign)(x, FNN_C(1.0), e);
    return a - a * (e / (FNN_C(1.0) + e));
}

/* max(x, 0) + log(1 + e^-|x|); 1 + e lies in [1, 2], so k is 0 or 1. */
FNN_INLINE FNN_REAL FNN_NAME(softplus)(FNN_REAL x)
{
    const FNN_REAL minus_abs = -FNN_NAME(abs)(x);
    const FNN_REAL e = FNN_NAME(exp_minus_abs)(x);
    const FNN_REAL k = e > FNN_C(0.41421356237309503) ? FNN_C(1.0) : FNN_C(0.0);
    const FNN_REAL f = (FNN_C(1.0) - FNN_C(0.5) * k) * e - FNN_C(0.5) * k;
    const FNN_REAL y = FNN_NAME(reduced_log)(f, k);
    return (x > minus_abs ? x : FNN_C(0.0)) + (minus_abs < FNN_EXP_MIN ? FNN_C(0.0) : y);
}

/* x / (1 + e) or, for negative x, -y / (1 + e) = -(y - y e / (1 + e)) with e = e^-|x| and y = |x| e, 0 where e is 0. What
 * y = |x| 2^n (1 + p) loses to rounding goes with the smaller term; where products are rounded too, so does what 1 + e
 * loses. */
FNN_INLINE FNN_REAL FNN_NAME(silu)(FNN_REAL x)
{
    const FNN_REAL minus_abs = FNN_NAME(minus_abs_to_end)(x);
    FNN_REAL scale;
    const FNN_REAL p = FNN_NAME(lifted_parts)(minus_abs, &scale);
    const FNN_REAL lifted = scale + scale * p;
    const FNN_REAL e = lifted * FNN_EXP_LOWERED;
    const FNN_REAL sum = FNN_C(1.0) + e;
    const FNN_REAL ratio = FNN_NAME(by_sign)(x, x, e) / sum;
    const FNN_REAL factor = -minus_abs * scale;
    const FNN_REAL y = factor + factor * p;
    const FNN_REAL product = y * ratio;
    FNN_REAL lost = (factor - y) + factor * p;
    if (!FNN_FUSED) {
        const FNN_REAL of_e = ((scale - lifted) + scale * p) * FNN_EXP_LOWERED;
        lost += product * (((FNN_C(1.0) - sum) + e) + of_e) - y * of_e;
    }
    const FNN_REAL left = (y - (product - (lost - lost * ratio))) * -FNN_EXP_LOWERED;
    return FNN_NAME(by_sign)(x, ratio, left);
}

/* x tanh(softplus(x)) = x n / (n + d), n = w (w + 2) for w = e^x, d = 2, both over w^2 where x > 0. */
FNN_INLINE FNN_REAL FNN_NAME(mish)(FNN_REAL x)
{
    const FNN_REAL y = FNN_NAME(exp_minus_abs)(x);
    const FNN_REAL e = x < FNN_EXP_MIN ? FNN_C(0.0) : y;
    const FNN_REAL right = FNN_C(1.0) + FNN_C(2.0) * e;
    const FNN_REAL n = x > 0 ? right : e * (e + FNN_C(2.0));
    const FNN_REAL d = x > 0 ? FNN_C(2.0) * (e * e) : FNN_C(2.0);
    return (x > 0 ? x * right : FNN_NAME(times_exp)(x) * (e + FNN_C(2.0))) / (n + d);
}

FNN_INLINE FNN_REAL FNN_NAME(erf)(FNN_REAL x)
{
    const FNN_REAL a = FNN_NAME(abs)(x);
    const FNN_REAL square = a * a;
    const FNN_REAL near = a + a * FNN_NAME(erf_tail)(square);
    const FNN_REAL tail = FNN_NAME(normal_tail)(FNN_C(1.4142135623730951) * a, -square, FNN_C(0.0));
    const FNN_REAL far = a > FNN_ERF_MAX ? FNN_C(1.0) : FNN_C(1.0) - FNN_C(2.0) * tail;
    return FNN_NAME(with_sign)(a < 1 ? near : far, x);
}

/* Phi(x). In the left tail the rounding of x^2 would be multiplied by x^2, so the square is split: head^2 is
 * exact. */
FNN_INLINE FNN_REAL FNN_NAME(normal_cdf)(FNN_REAL x)
{
    const FNN_REAL a = FNN_NAME(abs)(x);
    const FNN_REAL head = FNN_NAME(real)(FNN_NAME(bits)(a) & FNN_HEAD);
    const FNN_REAL rest = FNN_C(0.5) * (a - head) * (a + head);
    const FNN_REAL y = FNN_NAME(normal_tail)(a, FNN_C(-0.5) * head * head, rest);
    const FNN_REAL tail = a > FNN_NORMAL_MAX ? FNN_C(0.0) : y;
    return x > 0 ? FNN_C(1.0) - tail : tail;
}

/* x Phi(x) = max(x, 0) - |x| Phi(-|x|). Far left only the absolute error counts, so the square is not split. The power of
 * two is lifted, so that only the last product can underflow; from -0 nothing is subtracted but the result. */
FNN_INLINE FNN_REAL FNN_NAME(gelu)(FNN_REAL x)
{
    const FNN_REAL a = FNN_NAME(abs)(x);
    const FNN_REAL ratio = a * (FNN_C(2.0) / (a + FNN_MILLS_CENTRE));
    const FNN_REAL factor = ratio * FNN_NAME(gelu_mills)(ratio - FNN_C(1.0));
    FNN_REAL shifted;
    const FNN_REAL r = FNN_NAME(reduce)(FNN_C(-0.5) * a * a, FNN_BIAS + FNN_LIFT, &shifted);
    const FNN_REAL scale = FNN_NAME(real)(FNN_NAME(bits)(shifted) << FNN_MANTISSA_BITS);
    const FNN_REAL lifted = (factor + factor * (r + r * r * FNN_NAME(exp_tail)(r))) * scale;
    const FNN_REAL tail = a > FNN_NORMAL_MAX ? FNN_C(0.0) : lifted * FNN_LOWERED;
    return (x >= 0 ? x : FNN_C(-0.0)) - tail;
}

#undef FNN_REAL
#undef FNN_UINT
#undef FNN_NAME
#undef FNN_C
#undef FNN_MANTISSA_BITS
#undef FNN_BIAS
#undef FNN_MIN_NORMAL
#undef FNN_SQRT_HALF
#undef FNN_HEAD
#undef FNN_LN2_HI
#undef FNN_LN2_LO
#undef FNN_EXP_MIN
#undef FNN_EXP_MAX
#undef FNN_EXP_END
#undef FNN_EXP_LIFT
#undef FNN_EXP_LOWERED
#undef FNN_SATURATION
#undef FNN_TINY
#undef FNN_ERF_MAX
#undef FNN_NORMAL_MAX
#undef FNN_MILLS_CENTRE
#undef FNN_LIFT
#undef FNN_LOWERED
