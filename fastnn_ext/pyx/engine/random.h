/* Random words by their number: those of SplitMix64 (Steele, Lea and Flood, 2014), whose state is a counter, so that any
 * word can be computed alone, and loops that set elements to zero by them. y may be x. */
#ifndef FASTNN_RANDOM_H
#define FASTNN_RANDOM_H

#include <stddef.h>
#include <stdint.h>
#include "map.h"

#define FNN_WORD_STEP UINT64_C(0x9E3779B97F4A7C15)

FNN_INLINE uint64_t fnn_mix(uint64_t z)
{
    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    return z ^ (z >> 31);
}

/* The state from which the words of a seed are counted: seeds that are near are far apart. */
FNN_INLINE uint64_t fnn_state_of(uint64_t seed)
{
    return fnn_mix(seed + FNN_WORD_STEP);
}

/* An element stays, times the scale, where the upper 53 bits of its word reach the threshold. */
#define FNN_DROP(type, suffix)                                                                                      \
    FNN_INLINE void fnn_drop_##suffix(                                                                              \
        const type *x, type *y, ptrdiff_t n, uint64_t state, int64_t threshold, type scale)                         \
    {                                                                                                               \
        FNN_INDEPENDENT                                                                                             \
        for (ptrdiff_t i = 0; i < n; i++) {                                                                         \
            const int64_t bits = (int64_t)(fnn_mix(state + (uint64_t)i * FNN_WORD_STEP) >> 11);                     \
            const type kept = x[i] * scale;                                                                         \
            y[i] = bits >= threshold ? kept : 0;                                                                    \
        }                                                                                                           \
    }

FNN_DROP(float, f32)
FNN_DROP(double, f64)

#endif
