/* What of a convolution runs in registers. The loops around it are in conv.pyx.
 *
 *   conv_tile      C[i, v] = sum over p of A[i, p] B[p, v], for a few rows i and vectors v. Each term p has a
 *                  place of its own in A and in B, looked up in two tables: so patches are read where they
 *                  lie in the image, and the matrix of patches that a plain product would need is never made
 *   conv_dots      sums of products along the lines of images, for the gradient of the weights
 *   conv_channels  depthwise, with the channels side by side
 *   conv_channel_dots the gradient of its weights
 *   conv_plane     depthwise, with the pixels side by side
 *   conv_plane_dots the gradient of its weights
 *   conv_half_back the gradient of a plane with a stride of 2
 *   conv_move_patch what one pixel of the result reads, copied, or added to where it came from
 *   conv_transpose of planes to pixels and back
 */
#ifndef FASTNN_CONV_H
#define FASTNN_CONV_H

#include "gemm.h"

/* Lanes begin .. end of one vector of a tile, and where the first of them goes in a row of C. Planes of C are
 * computed with the line length of the image, which is longer than theirs: lanes between runs are dropped. */
typedef struct {
    int begin, end;
    ptrdiff_t target;
} fnn_conv_run;

/* One tile. The arrays are of the dtype of the function that gets it. */
typedef struct {
    ptrdiff_t k;            /* number of terms */
    const void *a;
    ptrdiff_t a_rs;         /* A[i, p] = a[i * a_rs + a_at[p]] */
    const ptrdiff_t *a_at;
    const void *b;
    const ptrdiff_t *b_at;  /* B[p, v] = b[b_at[p] + v] */
    void *c;
    ptrdiff_t c_rs;         /* from one row of C to the next */
    const fnn_conv_run *runs;
    const ptrdiff_t *first; /* the runs of vector v are runs[first[v]] .. runs[first[v + 1]] */
    const void *row_bias;   /* added to each row, or NULL */
    const void *col_bias;   /* added to each column, or NULL; has whole vectors */
    int accumulate;         /* whether C is added to */
    int whole;              /* whether it is not, and each vector is one run: then it is stored from the registers */
} fnn_conv_tile;

/* What a pixel of the result reads of some planes: short lines of `count` numbers that are `step` apart. */
typedef struct {
    ptrdiff_t planes, lines, count, step;
    ptrdiff_t patch_plane, patch_line; /* from one to the next in a patch, where the numbers are side by side, */
    ptrdiff_t source_plane, source_line; /* and in the planes */
} fnn_conv_patch;

/* The lines of a block of images. */
typedef struct {
    ptrdiff_t images, lines, count; /* `count` numbers along each line */
    ptrdiff_t a_image, a_line;      /* from one image and line to the next */
    ptrdiff_t b_image, b_line;
} fnn_conv_lines;

/* A line of a depthwise convolution, the channels of its pixels side by side. */
typedef struct {
    ptrdiff_t k;            /* number of taps */
    ptrdiff_t pixels;       /* of the result */
    ptrdiff_t count;        /* number of channels */
    ptrdiff_t row;          /* so many taps each follow each other, from pixel to pixel of A, or 1 */
    ptrdiff_t step;         /* how many pixels of A a pixel of the result is further, for such rows of taps */
    const void *a;
    ptrdiff_t a_rs;         /* what that is in numbers */
    const ptrdiff_t *a_at;  /* of each tap */
    const void *b;
    ptrdiff_t b_rs;         /* from one tap to the next; weights and bias have whole vectors */
    const void *bias;
    void *c;
    ptrdiff_t c_rs;
} fnn_conv_channels;

/* Some lines of one plane: C[y, x] = bias + the sum over p of A[p] B[y * b_line + b_at[p] + x]. */
typedef struct {
    ptrdiff_t lines, count; /* of C */
    ptrdiff_t k;            /* number of terms */
    int form;
    const void *a;
    const void *b;          /* has whole vectors where count is less than one */
    const ptrdiff_t *b_at;
    ptrdiff_t b_lines, b_line;
    const void *zeros;      /* a line of them, for the forms without a frame */
    const void *bias;       /* or NULL */
    void *c;
    ptrdiff_t c_line;
} fnn_conv_plane;

/* The terms of a plane. */
enum {
    FNN_PLANE_ANY,
    FNN_PLANE_SQUARE_3, /* 3 x 3 neighbours, a row of taps being a line of B */
    FNN_PLANE_SAME_3,   /* the same around each pixel of a plane that lies at B without a frame */
    FNN_PLANE_SAME_5,   /* 5 x 5 of them */
    FNN_PLANE_HALF_3    /* 3 x 3 around every second pixel of every second line */
};

enum {
    FNN_ROW_TAPS = 7,       /* of a row of taps that a kernel of its own does, at most */
    FNN_ROW_PIXELS = FNN_REGISTERS >= 32 ? 8 : 6, /* that it does together: they share what they read */
    FNN_DOT_TAPS = 12,      /* whose sums are in registers together, */
    FNN_DOT_PIXELS = 16     /* over so many pixels */
};

enum {
    FNN_PLANE_ROWS = 4, /* lines of a plane that are computed together: each line of B serves several of them */
    FNN_PLANE_TERMS = 192
};

/* Whether a plane can be done in its form without a frame: each vector of a line meets one edge, or is the line. */
FNN_INLINE int fnn_conv_fits_same(ptrdiff_t lines, ptrdiff_t count, ptrdiff_t size, ptrdiff_t lanes)
{
    const ptrdiff_t half = size / 2, rest = count % lanes;
    return lines >= FNN_PLANE_ROWS && lanes >= half && (count <= lanes || count >= lanes + half)
           && (rest == 0 || rest >= half);
}

/* The same for every second pixel of so many lines of so many numbers, which begin and end with masked loads. */
FNN_INLINE int fnn_conv_fits_half(ptrdiff_t lines, ptrdiff_t count, ptrdiff_t lanes)
{
    return FNN_VECTOR_BYTES >= 32 && lines >= FNN_PLANE_ROWS
           && (FNN_FREE_MASKS ? 16 * count > 9 * lanes : 2 * count > 3 * lanes);
}

/* And its gradient, of lines of so many numbers: other masked stores are slow where they are most of all. */
FNN_INLINE int fnn_conv_fits_half_back(ptrdiff_t count, ptrdiff_t lanes) { return FNN_FREE_MASKS || 2 * count > lanes; }

/* The rows that a tile of as many vectors has at most. */
FNN_INLINE ptrdiff_t fnn_conv_rows(ptrdiff_t vecs) { return fnn_max_rows[vecs]; }

#define FNN_REAL float
#define FNN_REAL_BITS 32
#define FNN_LANES FNN_LANES_F32
#define FNN_NAME(name) fnn_##name##_f32
#include "conv_tile.h"

#define FNN_REAL double
#define FNN_REAL_BITS 64
#define FNN_LANES FNN_LANES_F64
#define FNN_NAME(name) fnn_##name##_f64
#include "conv_tile.h"

#endif
