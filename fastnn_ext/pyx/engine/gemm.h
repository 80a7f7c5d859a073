/* Matrix products: C = A B, for any strides, with an epilogue to be plugged in.
 *
 *     fnn_gemm_f32(const fnn_gemm_args_f32 *args), fnn_gemm_f64(...)    0, FNN_NO_MEMORY or FNN_INTERRUPTED
 *
 * computes, for i < m and j < n,
 *
 *     C[i, j] (=, or += with `accumulate`) sum over p < k of A[i, p] B[p, j], plus row_bias[i] and col_bias[j]
 *
 * where A[i, p] = a[i * a_rs + p * a_cs], and B and C alike. Then `epilogue(context, row, i, j, count)` is called on
 * pieces C[i, j .. j + count] that cover C once, while they are in cache. `panels` may hold B packed beforehand
 * (fnn_gemm_pack_panels_f32), beside b itself, which some forms read; the result is the same to the last bit. Any size
 * may be 0.
 *
 * Each product takes one of four forms:
 *
 *   fill      k = 0
 *   dot       rows of A times rows of B^T, both contiguous, with sums over the lanes at the end: packs nothing
 *   combine   one row: a sum of rows of B
 *   tiles     register tiles over packed panels, blocked for the caches as Goto and van de Geijn (2008) do; operands
 *             that are read only a few times stay where they are
 *
 * The form and the blocks depend on sizes and strides alone, and fnn_gemm_share computes any part of C with them: the
 * result of an element does not depend on which part it is in, nor on who computes the others.
 *
 * The register tile (gemm_tile.h) is written with the compiler's vector extensions (simd.h), so one source serves
 * SSE2, AVX2, AVX-512 and NEON; without them a vector is one number. */
#ifndef FASTNN_GEMM_H
#define FASTNN_GEMM_H

#include "parallel.h"
#include "simd.h"

/* Register tiles: rows by vectors of C. */
#define FNN_MAX_VECS 4
#define FNN_TILES_1_TO_4(tile, vecs) tile(1, vecs) tile(2, vecs) tile(3, vecs) tile(4, vecs)
#define FNN_TILES_1_TO_8(tile, vecs) \
    FNN_TILES_1_TO_4(tile, vecs) tile(5, vecs) tile(6, vecs) tile(7, vecs) tile(8, vecs)
#if FNN_REGISTERS == 32
#define FNN_MAX_ROWS 12
#define FNN_TILES_1(tile) FNN_TILES_1_TO_8(tile, 1) tile(9, 1) tile(10, 1) tile(11, 1) tile(12, 1)
#define FNN_TILES_2(tile) FNN_TILES_1_TO_8(tile, 2) tile(9, 2) tile(10, 2) tile(11, 2) tile(12, 2)
#define FNN_TILES_3(tile) FNN_TILES_1_TO_8(tile, 3)
#define FNN_TILES_4(tile) FNN_TILES_1_TO_4(tile, 4) tile(5, 4) tile(6, 4)
static const int fnn_max_rows[FNN_MAX_VECS + 1] = {0, 12, 12, 8, 6};
#define FNN_DOT_ROWS 4
#else
#define FNN_MAX_ROWS 6
#define FNN_TILES_1(tile) FNN_TILES_1_TO_4(tile, 1) tile(5, 1) tile(6, 1)
#define FNN_TILES_2(tile) FNN_TILES_1_TO_4(tile, 2) tile(5, 2) tile(6, 2)
#define FNN_TILES_3(tile) FNN_TILES_1_TO_4(tile, 3)
#define FNN_TILES_4(tile) tile(1, 4) tile(2, 4)
static const int fnn_max_rows[FNN_MAX_VECS + 1] = {0, 6, 6, 4, 2};
#define FNN_DOT_ROWS 2
#endif
#define FNN_DOT_COLS 8
#define FNN_USUAL_VECS 3 /* of a tile that goes down many rows */
#define FNN_COMBINE_ROWS (FNN_REGISTERS / 2)

/* Block sizes. Those in bytes follow the usual caches: 32 KiB, and a share of 1 to 2 MiB. */
enum {
    FNN_KC = 512,              /* terms summed in registers, at most, before they are added to C */
    FNN_DOT_KC = 1024,
    FNN_DOT_TERMS = 16384,     /* of a long dot product, which are added in the type of the operands */
    FNN_SPREAD_K = 128,        /* terms from which a tile fetches C row by row */
    FNN_ALONG_K = 128,         /* terms up to which tiles go along the rows of C */
    FNN_AHEAD = 4,             /* rows or columns that are fetched before they are packed */
    FNN_MOST_AHEAD = 8,        /* lines that a row of a tile fetches of the next panel */
    FNN_STRIPS_ROWS = 128,     /* of A from which rows are worth the transposition to strips */
    FNN_STRIPS = 16,           /* of A that are packed together */
    FNN_STREAM_KC = 32,
    FNN_STREAM_B_BYTES = 1000000, /* of B beyond which a product with few rows reads it as a stream */
    FNN_A_BYTES = 1048576,     /* of a packed block of A */
    FNN_B_BYTES = 4194304,     /* of a packed block of B */
    FNN_MC = 1024,             /* rows of a block of A, at most */
    FNN_MAX_PANELS = 1024,     /* of B in a block */
    FNN_GROUP = 8,             /* panels of B that are packed together */
    FNN_REUSE_A = 4,           /* tiles that a packed row of A must meet to be worth packing */
    FNN_REUSE_B = 7,          /* and a packed column of B */
    FNN_BLOCK_NUMBERS = 131072, /* of a block of C that is stored transposed, or more rows of it, up to */
    FNN_C_BYTES = 2621440,      /* so that the blocks of A, B and C stay below 8 MiB together */
    FNN_DIVIDE_COLS = 64,      /* columns that stay in one part, where the form has no tiles */
    FNN_MOST_DOWN = 256        /* parts below each other that are thought of */
};

/* What else costs time, in multiply-adds of whole vectors: a number that is transposed while it is packed or stored,
 * a step of the dot form, and a sum over the lanes of a vector. */
#define FNN_COST_TRANSPOSED_LOAD 0.6
#define FNN_COST_TRANSPOSED_STORE 2.5
#define FNN_COST_DOT 1.1
#define FNN_COST_LANES_SUM 4

/* Threads, in the same unit: what it costs a part to read and pack a vector that other parts read as well; what it costs
 * that a row of the result changes from one part to the next, where processors take the lines from each other, also those
 * that they only fetch ahead; and how much work a thread must have, for one part and for two. */
#define FNN_COST_READ 10.0
#define FNN_COST_BORDER 300.0
#define FNN_TEAM_WORK 1e5
#define FNN_TWO_PARTS_WORK 16e6
#define FNN_POLL_AFTER 3e7 /* multiply-adds */

FNN_INLINE ptrdiff_t fnn_min(ptrdiff_t a, ptrdiff_t b) { return a < b ? a : b; }
FNN_INLINE ptrdiff_t fnn_max(ptrdiff_t a, ptrdiff_t b) { return a > b ? a : b; }
FNN_INLINE double fnn_min_f(double a, double b) { return a < b ? a : b; }
FNN_INLINE ptrdiff_t fnn_parts(ptrdiff_t size, ptrdiff_t part) { return size / part + (size % part != 0); }

/* The size of equal parts of `size`, a multiple of `unit` and about `most` at most. */
FNN_INLINE ptrdiff_t fnn_even_part(ptrdiff_t size, ptrdiff_t most, ptrdiff_t unit)
{
    return fnn_parts(fnn_parts(size, fnn_parts(size, most)), unit) * unit;
}

typedef struct {
    int form;       /* FNN_FORM_... */
    int swap;       /* computes the transpose, B^T A^T */
    int panels;     /* B is packed already */
    int pack_a, pack_b;
    ptrdiff_t kc, mc, nc;  /* block sizes */
    ptrdiff_t group;       /* columns of B packed together */
    int rows, vecs;        /* register tile */
} fnn_gemm_plan;
enum { FNN_FORM_FILL, FNN_FORM_DOT, FNN_FORM_COMBINE, FNN_FORM_TILES };

#define FNN_REAL float
#define FNN_LANES FNN_LANES_F32
#define FNN_NAME(name) fnn_##name##_f32
#include "gemm_tile.h"
#include "gemm_body.h"

#define FNN_REAL double
#define FNN_LANES FNN_LANES_F64
#define FNN_NAME(name) fnn_##name##_f64
#include "gemm_tile.h"
#include "gemm_body.h"

#endif
