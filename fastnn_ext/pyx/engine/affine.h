/* y = x * factor and y = (x - a) - b for n numbers; y may be x.
 *
 * A vector stored across two cache lines takes as long as several others, and results of NumPy mostly begin in the middle
 * of a line. So the first vector has only what is left of the line of y. */
#ifndef FASTNN_AFFINE_H
#define FASTNN_AFFINE_H

#include "simd.h"
#include "stream.h"

#define FNN_OVER_LINES(name, type, suffix, parameters, formula)                                             \
    FNN_INLINE void fnn_##name##_##suffix parameters                                                        \
    {                                                                                                       \
        enum { LANES = sizeof(fnn_vec_##suffix) / sizeof(type) };                                           \
        ptrdiff_t i = fnn_to_line(y) / (ptrdiff_t)sizeof(type) % LANES;                                     \
        i = i < n ? i : n;                                                                                  \
        fnn_vec_##suffix v = fnn_load_part_##suffix(x, i);                                                  \
        fnn_store_part_##suffix(y, formula, i);                                                             \
        for (; i + LANES <= n; i += LANES) {                                                                \
            v = fnn_load_##suffix(x + i);                                                                   \
            fnn_store_##suffix(y + i, formula);                                                             \
        }                                                                                                   \
        v = fnn_load_part_##suffix(x + i, n - i);                                                           \
        fnn_store_part_##suffix(y + i, formula, n - i);                                                     \
    }

#define FNN_AFFINE(type, suffix)                                                                            \
    FNN_OVER_LINES(scale, type, suffix, (const type *x, type *y, ptrdiff_t n, type factor), v * factor)     \
    FNN_OVER_LINES(shift, type, suffix, (const type *x, type *y, ptrdiff_t n, type a, type b), (v - a) - b)

FNN_AFFINE(float, f32)
FNN_AFFINE(double, f64)

#endif
