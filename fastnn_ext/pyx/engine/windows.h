/* Pools of neighbouring windows, in registers: for windows of few rows and columns and short strides. A NaN is larger
 * than any number; of equal elements, and of NaNs, the first one is the maximum. */
#ifndef FASTNN_WINDOWS_H
#define FASTNN_WINDOWS_H

#include <math.h>
#include "arena.h"
#include "simd.h"

enum {
    FNN_POOL_MEAN,
    FNN_POOL_MAX,
    FNN_POOL_MAX_AT /* the maximum and where it is */
};

/* Some lines of windows. */
typedef struct {
    ptrdiff_t rows, columns; /* 1 to 3 and 2 or 3 */
    ptrdiff_t stride;        /* from one to the next: 1 or 2 */
    ptrdiff_t line;          /* from one line of x to the next */
    ptrdiff_t lines, step;   /* of windows, and from one to the next in x */
    ptrdiff_t first;         /* where x is in its plane */
    ptrdiff_t elements;      /* that a mean is of */
    ptrdiff_t left, right;   /* columns of the first window and of the last one that are outside of the image */
    ptrdiff_t first_elements, last_elements; /* that the means of these two are of */
    ptrdiff_t count;         /* of windows in a line */
    ptrdiff_t room;          /* how many of the last line on can be read and written: a whole vector, where it allows */
} fnn_windows;

#if FNN_VECTOR_BYTES
typedef int64_t fnn_vec_positions __attribute__((vector_size(FNN_VECTOR_BYTES)));
#endif

#define FNN_REAL float
#define FNN_INT int32_t
#define FNN_REAL_BITS 32
#define FNN_LANES FNN_LANES_F32
#define FNN_NAME(name) fnn_##name##_f32
#include "windows_body.h"

#define FNN_REAL double
#define FNN_INT int64_t
#define FNN_REAL_BITS 64
#define FNN_LANES FNN_LANES_F64
#define FNN_NAME(name) fnn_##name##_f64
#include "windows_body.h"

#endif
