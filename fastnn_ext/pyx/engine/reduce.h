/* The largest of n numbers, and sums of n terms, in double.
 *
 * A compiler may not reorder a reduction, and so doesn't vectorise it, unless it is told that the order is free: that is
 * what "omp simd" says; no OpenMP runtime is involved, and compilers that don't know it run the plain loop. The
 * numbers are read as a few stretches side by side, each with accumulators of its own, which hides the latency of
 * their additions. */
#ifndef FASTNN_REDUCE_H
#define FASTNN_REDUCE_H

#include <math.h>
#include <stddef.h>

#include "simd.h"
#include "stream.h"

#if defined(__GNUC__)
#define FNN_REDUCE(clause) _Pragma(#clause)
#else
#define FNN_REDUCE(clause)
#endif

enum {
    FNN_FEW = 64, /* numbers that take longer to divide than to run through */
    FNN_MANY = 512, /* that are worth whole cache lines */
    FNN_SIDE = 16 /* sums side by side: whole vectors of any width */
};

/* The length of each of some stretches: whole vectors of any width, unless that leaves too much over. */
#define FNN_STRETCH(n, stretches) ((n) / (stretches) & ((n) < 512 ? ~(ptrdiff_t)0 : ~(ptrdiff_t)15))

/* Largest numbers of a long row that are kept side by side: as many as the registers hold. */
#define FNN_PEAKS(type) ((int)(FNN_FEW * sizeof(float) / sizeof(type)))

/* NaN is passed over: what is done with the largest number meets it again. */
#define FNN_LARGER(x, peak) ((x) > (peak) ? (x) : (peak))

#define FNN_REDUCTIONS(type, suffix)                                                                                \
    FNN_INLINE type fnn_largest_few_##suffix(const type *x, ptrdiff_t n, type peak)                                 \
    {                                                                                                               \
        for (ptrdiff_t i = 0; i < n; i++)                                                                           \
            peak = FNN_LARGER(x[i], peak);                                                                          \
        return peak;                                                                                                \
    }                                                                                                               \
    FNN_INLINE double fnn_sum_few_##suffix(const type *x, ptrdiff_t n, double sum)                                  \
    {                                                                                                               \
        for (ptrdiff_t i = 0; i < n; i++)                                                                           \
            sum += x[i];                                                                                            \
        return sum;                                                                                                 \
    }                                                                                                               \
    FNN_INLINE double fnn_sum_rest_##suffix(const type *x, ptrdiff_t n, double sum)                                 \
    {                                                                                                               \
        if (n < 4)                                                                                                  \
            return fnn_sum_few_##suffix(x, n, sum);                                                                 \
        FNN_REDUCE(omp simd reduction(+ : sum))                                                                     \
        for (ptrdiff_t i = 0; i < n; i++)                                                                           \
            sum += x[i];                                                                                            \
        return sum;                                                                                                 \
    }                                                                                                               \
    FNN_INLINE void fnn_larger_of_each_##suffix(const type *x, type *peaks)                                         \
    {                                                                                                               \
        for (int q = 0; q < FNN_PEAKS(type); q++)                                                                   \
            peaks[q] = FNN_LARGER(x[q], peaks[q]);                                                                  \
    }                                                                                                               \
    /* In order, as memory is read fastest; all but the first and the last few by whole cache lines. */             \
    FNN_OUTLINE type fnn_largest_of_many_##suffix(const type *x, ptrdiff_t n)                                       \
    {                                                                                                               \
        type peaks[FNN_PEAKS(type)], peak = -(type)INFINITY;                                                        \
        for (int q = 0; q < FNN_PEAKS(type); q++)                                                                   \
            peaks[q] = peak;                                                                                        \
        fnn_larger_of_each_##suffix(x, peaks);                                                                      \
        for (ptrdiff_t i = fnn_to_line(x) / (ptrdiff_t)sizeof(type); i + FNN_PEAKS(type) <= n; i += FNN_PEAKS(type))\
            fnn_larger_of_each_##suffix(x + i, peaks);                                                              \
        fnn_larger_of_each_##suffix(x + n - FNN_PEAKS(type), peaks);                                                \
        FNN_REDUCE(omp simd reduction(max : peak))                                                                  \
        for (int q = 0; q < FNN_PEAKS(type); q++)                                                                   \
            peak = FNN_LARGER(peaks[q], peak);                                                                      \
        return peak;                                                                                                \
    }                                                                                                               \
    FNN_OUTLINE type fnn_largest_of_some_##suffix(const type *x, ptrdiff_t n)                                       \
    {                                                                                                               \
        const ptrdiff_t part = n / 4 / FNN_SIDE * FNN_SIDE;                                                         \
        const type *y = x + part, *z = y + part, *w = z + part;                                                     \
        type a = -(type)INFINITY, b = a, c = a, d = a;                                                              \
        FNN_REDUCE(omp simd reduction(max : a, b, c, d))                                                            \
        for (ptrdiff_t i = 0; i < part; i++) {                                                                      \
            a = FNN_LARGER(x[i], a);                                                                                \
            b = FNN_LARGER(y[i], b);                                                                                \
            c = FNN_LARGER(z[i], c);                                                                                \
            d = FNN_LARGER(w[i], d);                                                                                \
        }                                                                                                           \
        /* what is left, and as much before it as makes whole vectors */                                            \
        FNN_REDUCE(omp simd reduction(max : a))                                                                     \
        for (ptrdiff_t i = 4 * part < n ? n - FNN_FEW : n; i < n; i++)                                              \
            a = FNN_LARGER(x[i], a);                                                                                \
        a = FNN_LARGER(b, a);                                                                                       \
        c = FNN_LARGER(d, c);                                                                                       \
        return FNN_LARGER(c, a);                                                                                    \
    }                                                                                                               \
    /* Short rows, of which there are many, in line. */                                                             \
    FNN_INLINE type fnn_largest_##suffix(const type *x, ptrdiff_t n)                                                \
    {                                                                                                               \
        if (n < FNN_FEW)                                                                                            \
            return fnn_largest_few_##suffix(x, n, -(type)INFINITY);                                                 \
        return n < FNN_MANY ? fnn_largest_of_some_##suffix(x, n) : fnn_largest_of_many_##suffix(x, n);              \
    }                                                                                                               \
    FNN_INLINE double fnn_sum_##suffix(const type *x, ptrdiff_t n)                                                  \
    {                                                                                                               \
        const ptrdiff_t part = FNN_STRETCH(n, 2);                                                                   \
        const type *y = x + part;                                                                                   \
        double a = 0, b = 0;                                                                                        \
        if (n < FNN_FEW)                                                                                            \
            return fnn_sum_few_##suffix(x, n, 0);                                                                   \
        FNN_REDUCE(omp simd reduction(+ : a, b))                                                                    \
        for (ptrdiff_t i = 0; i < part; i++) {                                                                      \
            a += x[i];                                                                                              \
            b += y[i];                                                                                              \
        }                                                                                                           \
        return fnn_sum_rest_##suffix(x + 2 * part, n - 2 * part, a + b);                                            \
    }                                                                                                               \
    FNN_INLINE double fnn_sum_in_eights_##suffix(const type *x, ptrdiff_t n)                                        \
    {                                                                                                               \
        if (n < FNN_FEW)                                                                                            \
            return fnn_sum_few_##suffix(x, n, 0);                                                                   \
        double lanes[FNN_SIDE] = {0}, sum = 0;                                                                      \
        ptrdiff_t start = 0;                                                                                        \
        for (; start + 8 * FNN_SIDE <= n; start += 8 * FNN_SIDE) {                                                  \
            const type *y = x + start;                                                                              \
            for (int q = 0; q < FNN_SIDE; q++)                                                                      \
                lanes[q] += ((y[q] + y[q + FNN_SIDE]) + (y[q + 2 * FNN_SIDE] + y[q + 3 * FNN_SIDE])) +              \
                            ((y[q + 4 * FNN_SIDE] + y[q + 5 * FNN_SIDE]) +                                          \
                             (y[q + 6 * FNN_SIDE] + y[q + 7 * FNN_SIDE]));                                          \
        }                                                                                                           \
        for (; start + FNN_SIDE <= n; start += FNN_SIDE)                                                            \
            for (int q = 0; q < FNN_SIDE; q++)                                                                      \
                lanes[q] += x[start + q];                                                                           \
        for (; start < n; start++)                                                                                  \
            sum += x[start];                                                                                        \
        FNN_REDUCE(omp simd reduction(+ : sum))                                                                     \
        for (int q = 0; q < FNN_SIDE; q++)                                                                          \
            sum += lanes[q];                                                                                        \
        return sum;                                                                                                 \
    }                                                                                                               \
    /* The sum of (x - center)^2. */                                                                                \
    FNN_INLINE double fnn_sum_squares_##suffix(const type *x, ptrdiff_t n, double center)                           \
    {                                                                                                               \
        const ptrdiff_t part = n < FNN_FEW ? 0 : FNN_STRETCH(n, 2);                                                 \
        const type *y = x + part;                                                                                   \
        double a = 0, b = 0;                                                                                        \
        FNN_REDUCE(omp simd reduction(+ : a, b))                                                                    \
        for (ptrdiff_t i = 0; i < part; i++) {                                                                      \
            a += (x[i] - center) * (x[i] - center);                                                                 \
            b += (y[i] - center) * (y[i] - center);                                                                 \
        }                                                                                                           \
        a += b;                                                                                                     \
        FNN_REDUCE(omp simd reduction(+ : a))                                                                       \
        for (ptrdiff_t i = 2 * part; i < n; i++)                                                                    \
            a += (x[i] - center) * (x[i] - center);                                                                 \
        return a;                                                                                                   \
    }                                                                                                               \
    /* The sum of g, and that of g * (x - center). */                                                               \
    FNN_INLINE void fnn_sum_products_in_double_##suffix(                                                            \
        const type *g, const type *x, ptrdiff_t n, double center, double *sum, double *product)                     \
    {                                                                                                               \
        double a = 0, b = 0;                                                                                        \
        FNN_REDUCE(omp simd reduction(+ : a, b))                                                                    \
        for (ptrdiff_t i = 0; i < n; i++) {                                                                         \
            a += g[i];                                                                                              \
            b += g[i] * (x[i] - center);                                                                            \
        }                                                                                                           \
        *sum = a;                                                                                                   \
        *product = b;                                                                                               \
    }

FNN_REDUCTIONS(float, f32)
FNN_REDUCTIONS(double, f64)

/* The sum of g, and that of g * ((x - mean) - rest); where g is NULL, it is that difference. A lane adds up a few
 * floats before they are made double, so the error is one of some units of the last place of a sum of magnitudes,
 * however many terms there are. Where that overflows, products with a g are added in double from the start. */
enum { FNN_TERMS = 8 };

FNN_INLINE void fnn_sum_products_f32(
    const float *g, const float *x, ptrdiff_t n, float mean, float rest, double *sum, double *product)
{
    enum { LANES = FNN_LANES_F32 };
    const fnn_vec_f32 means = fnn_splat_f32(mean), rests = fnn_splat_f32(rest);
    double total = 0, total_product = 0;
    ptrdiff_t start = 0;
    while (n - start >= LANES) {
        fnn_vec_f32 a[4], b[4];
        const ptrdiff_t vectors = (n - start) / LANES < 4 * FNN_TERMS ? (n - start) / LANES : 4 * FNN_TERMS;
        FNN_UNROLL
        for (int k = 0; k < 4; k++)
            a[k] = b[k] = fnn_splat_f32(0);
#define FNN_ADD_TERM(k, at)                                                                                         \
    do {                                                                                                            \
        const fnn_vec_f32 q = (fnn_load_f32(x + (at)) - means) - rests, p = g == NULL ? q : fnn_load_f32(g + (at)); \
        a[k] += p;                                                                                                  \
        b[k] += p * q;                                                                                              \
    } while (0)
        ptrdiff_t i = 0;
        for (; i + 4 <= vectors; i += 4) {
            FNN_UNROLL
            for (int k = 0; k < 4; k++)
                FNN_ADD_TERM(k, start + (i + k) * LANES);
        }
        for (; i < vectors; i++)
            FNN_ADD_TERM(0, start + i * LANES);
#undef FNN_ADD_TERM
        total += fnn_sum_lanes_f32((a[0] + a[1]) + (a[2] + a[3]));
        total_product += fnn_sum_lanes_f32((b[0] + b[1]) + (b[2] + b[3]));
        start += vectors * LANES;
    }
    float last = 0, last_product = 0;
    for (; start < n; start++) {
        const float q = (x[start] - mean) - rest, p = g == NULL ? q : g[start];
        last += p;
        last_product += p * q;
    }
    *sum = total + last;
    *product = total_product + last_product;
    if (g != NULL && (*sum - *sum) + (*product - *product) != 0)
        fnn_sum_products_in_double_f32(g, x, n, (double)mean + rest, sum, product);
}

#endif
