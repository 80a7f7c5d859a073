/* power = lift e^(x - peak) for n numbers, none of them above `peak`, and the sum of these powers, all in registers.
 *
 * x = (16 n + j) ln(2)/16 + r: where a register is a table of 16 powers 2^(j/16), r is so small that three terms of e^r
 * will do. Multiplications are what the processor has too few units for, tables it has units of their own for.
 *
 * Eight powers are added before their sum is made double. Where vectors begin does not depend on the address: the same
 * numbers have the same sum anywhere. */
#ifndef FASTNN_EXPS_H
#define FASTNN_EXPS_H

#include "simd.h"

#if FNN_FREE_MASKS
#define FNN_HAS_EXPS 1

/* The bits of 2^(j/16) without those of 1 + j/16, which are the number 16 n + j, shifted: added to each other they are
 * those of 2^(n + j/16). */
static const int32_t FNN_SIXTEENTHS[FNN_LANES_F32] __attribute__((aligned(64))) = {
    0, -152893, -289342, -408621, -509968, -592590, -655657, -698305,
    -719629, -718684, -694486, -646004, -572163, -471841, -343865, -187011,
};

/* 2^32 e^x for x <= 0; below the largest of what is 0 as a float, it is that. NaN stays. */
FNN_INLINE fnn_vec_f32 fnn_lifted_exp_by_table(fnn_vec_f32 x, fnn_mask_f32 table)
{
    const float shifter = 12582912.0f + 16 * (127 + 32), end = -109.51726f;
    x = (fnn_vec_f32)_mm512_max_ps((__m512)fnn_splat_f32(end), (__m512)x);
    const fnn_vec_f32 shifted = x * 23.0831207f + shifter, n = shifted - shifter;
    const fnn_vec_f32 r = (x - n * 0.0433216989f) - n * -1.1904e-10f;
    const fnn_mask_f32 sixteenths = (fnn_mask_f32)shifted;
    const fnn_vec_f32 scale = (fnn_vec_f32)(
        (fnn_mask_f32)_mm512_permutexvar_epi32((__m512i)sixteenths, (__m512i)table) + (sixteenths << 19));
    return scale + scale * (r + r * r * (0.5f + 1.6666667e-1f * r));
}

FNN_INLINE void fnn_add_as_double(fnn_vec_f32 v, __m512d *low, __m512d *high)
{
    *low = _mm512_add_pd(*low, _mm512_cvtps_pd(_mm512_castps512_ps256((__m512)v)));
    *high = _mm512_add_pd(*high, _mm512_cvtps_pd(_mm512_extractf32x8_ps((__m512)v, 1)));
}

/* Up to a vector of powers. */
FNN_INLINE void fnn_lifted_exps_few(
    const float *x, fnn_vec_f32 peaks, float *power, ptrdiff_t n, fnn_mask_f32 table, __m512d *low, __m512d *high)
{
    const fnn_vec_f32 e = fnn_lifted_exp_by_table(fnn_load_part_f32(x, n) - peaks, table);
    fnn_store_part_f32(power, e, n);
    fnn_add_as_double((fnn_vec_f32)_mm512_maskz_mov_ps((__mmask16)((1u << n) - 1), (__m512)e), low, high);
}

/* Meanwhile n numbers from `ahead` on and the room for n from `target` on are brought to the cache. */
FNN_INLINE double fnn_lifted_exps(
    const float *x, float peak, float *power, ptrdiff_t n, const float *ahead, const float *target)
{
    enum { LANES = FNN_LANES_F32 };
    const fnn_mask_f32 table = *(const fnn_mask_f32 *)FNN_SIXTEENTHS;
    const fnn_vec_f32 peaks = fnn_splat_f32(peak);
    __m512d low = _mm512_setzero_pd(), high = low;
    ptrdiff_t i = 0;
    for (; i + 8 * LANES <= n; i += 8 * LANES) {
        fnn_vec_f32 e[8];
        FNN_UNROLL
        for (int k = 0; k < 8; k++) {
            FNN_PREFETCH(ahead + i + k * LANES);
            FNN_PREFETCH_WRITE(target + i + k * LANES);
            e[k] = fnn_lifted_exp_by_table(fnn_load_f32(x + i + k * LANES) - peaks, table);
            fnn_store_f32(power + i + k * LANES, e[k]);
        }
        fnn_add_as_double(((e[0] + e[1]) + (e[2] + e[3])) + ((e[4] + e[5]) + (e[6] + e[7])), &low, &high);
    }
    for (; i + LANES <= n; i += LANES)
        fnn_lifted_exps_few(x + i, peaks, power + i, LANES, table, &low, &high);
    fnn_lifted_exps_few(x + i, peaks, power + i, n - i, table, &low, &high);
    return _mm512_reduce_add_pd(_mm512_add_pd(low, high));
}
#else
#define FNN_HAS_EXPS 0
#define fnn_lifted_exps(x, peak, power, n, ahead, target) 0.0
#endif

#endif
