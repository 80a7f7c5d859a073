/* Element-wise loops: y = f(x), or y = g * f(x).
 *
 * They are C because Cython has no way to say that y may be x itself and that no element depends on another one; a
 * compiler that is not told tests for overlap, and may take its slow loop for results in place. f is a constant
 * wherever these are inlined, so each becomes one vectorised loop over f's formula. */
#ifndef FASTNN_MAP_H
#define FASTNN_MAP_H

#include <stddef.h>
#include "vmath.h"

#if defined(__clang__)
#define FNN_INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#elif defined(__GNUC__)
#define FNN_INDEPENDENT _Pragma("GCC ivdep")
#elif defined(_MSC_VER)
#define FNN_INDEPENDENT __pragma(loop(ivdep))
#else
#define FNN_INDEPENDENT
#endif

#define FNN_MAPS(type, suffix) \
    FNN_INLINE void fnn_map_##suffix(type (*f)(type, type), const type *x, type *y, ptrdiff_t n, type option) \
    { \
        FNN_INDEPENDENT \
        for (ptrdiff_t i = 0; i < n; i++) \
            y[i] = f(x[i], option); \
    } \
    FNN_INLINE void fnn_map_times_##suffix( \
        type (*f)(type, type), const type *g, const type *x, type *y, ptrdiff_t n, type option) \
    { \
        FNN_INDEPENDENT \
        for (ptrdiff_t i = 0; i < n; i++) \
            y[i] = g[i] * f(x[i], option); \
    }

FNN_MAPS(float, f32)
FNN_MAPS(double, f64)

#endif
