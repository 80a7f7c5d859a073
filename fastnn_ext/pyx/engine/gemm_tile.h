/* Included twice by gemm.h: what of a product runs in registers.
 *
 *   tile       a block of rows by vectors of C, its columns in the lanes of the vectors
 *   dot        a block of C whose operands are contiguous along k, so that k is in the lanes
 *   transpose  a matrix to the other order
 *
 * Every number of C is computed by the same operations in the same order whichever tile it falls in: how a problem is
 * cut into tiles or into shares for threads doesn't show in the result.
 */

#define FNN_VEC FNN_NAME(vec)
#define FNN_LINE (64 / (ptrdiff_t)sizeof(FNN_REAL)) /* numbers in a cache line */

/* C[i, v] = sum over p of A[i, p] B[p, v], plus `add`, for `k` steps of p; and the same for the tiles after this one,
 * `count` of them, each a step away from the one before: down the rows or along the columns of C. */
typedef struct {
    ptrdiff_t count, k;
    const FNN_REAL *a;
    ptrdiff_t a_rs, a_cs, a_step; /* from one row to the next, from one p to the next, from one tile to the next */
    const FNN_REAL *b;
    ptrdiff_t b_rs, b_step;
    FNN_REAL *c;
    ptrdiff_t c_rs, c_step;
    const FNN_REAL *add; /* what to add: C itself, a bias or zeros, as the strides make it */
    ptrdiff_t add_rs, add_vs, add_step;
    const FNN_REAL *ahead; /* what will be read after these tiles, of which each row of theirs fetches some lines */
    ptrdiff_t ahead_lines;
    ptrdiff_t last; /* how many lanes of the last vector are inside; all of them unless FNN_FREE_MASKS */
} FNN_NAME(tile_args);

/* The vector at p, or its part that is inside if it is the last one. */
FNN_INLINE FNN_VEC FNN_NAME(load_within)(const FNN_REAL *p, int is_last, ptrdiff_t last)
{
    return FNN_FREE_MASKS && is_last ? FNN_NAME(load_part)(p, last) : FNN_NAME(load)(p);
}

/* acc[i, v] += sum over p of A[i, p] B[p, v] for `k` steps of p. */
FNN_INLINE void FNN_NAME(add_products)(int rows, int vecs, const FNN_NAME(tile_args) *t, ptrdiff_t k,
                                       const FNN_REAL *const *first_a, const FNN_REAL *b,
                                       FNN_VEC (*acc)[FNN_MAX_VECS])
{
    const ptrdiff_t rs = t->a_rs, cs = t->a_cs, b_rs = t->b_rs, last = t->last;
    const FNN_REAL *a[3] = {first_a[0], first_a[1], first_a[2]};
    for (; k > 0; k--) {
        FNN_VEC bv[FNN_MAX_VECS];
        FNN_UNROLL for (int v = 0; v < vecs; v++)
            bv[v] = FNN_NAME(load_within)(b + v * FNN_LANES, v == vecs - 1, last);
        FNN_UNROLL for (int i = 0; i < rows; i++) {
            const FNN_VEC x = FNN_NAME(splat)(a[i / 4][i % 4 * rs]);
            FNN_UNROLL for (int v = 0; v < vecs; v++)
                acc[i][v] += x * bv[v];
        }
        FNN_UNROLL for (int g = 0; g < (rows + 3) / 4; g++)
            a[g] += cs;
        b += b_rs;
    }
}

FNN_INLINE void FNN_NAME(prefetch_row)(int vecs, const FNN_REAL *c)
{
    FNN_UNROLL for (int v = 0; v < vecs; v++) {
        if (v * FNN_VECTOR_BYTES % 64 == 0)
            FNN_PREFETCH_WRITE(c + v * FNN_LANES);
    }
}

FNN_INLINE void FNN_NAME(one_tile)(int rows, int vecs, const FNN_NAME(tile_args) *t, const FNN_REAL *first_a,
                                   const FNN_REAL *b, FNN_REAL *c, const FNN_REAL *add, const FNN_REAL *ahead)
{
    /* Rows go in fours with a base pointer each: base, base + rs, base + 2 rs and base + 3 rs are addressing modes. */
    const ptrdiff_t rs = t->a_rs, cs = t->a_cs, b_rs = t->b_rs, c_rs = t->c_rs, last = t->last;
    const FNN_REAL *a[3] = {first_a, first_a + (rows > 4 ? 4 * rs : 0), first_a + (rows > 8 ? 8 * rs : 0)};
    FNN_VEC acc[FNN_MAX_ROWS][FNN_MAX_VECS];

    FNN_UNROLL for (int i = 0; i < rows; i++) {
        FNN_UNROLL for (int v = 0; v < vecs; v++)
            acc[i][v] = FNN_NAME(splat)(0);
    }
    if (t->k < FNN_SPREAD_K) {
        FNN_UNROLL for (int i = 0; i < rows; i++)
            FNN_NAME(prefetch_row)(vecs, c + i * c_rs);
        FNN_NAME(add_products)(rows, vecs, t, t->k, a, b, acc);
    } else {
        /* All of C at once would keep the loads of A and B waiting for memory. */
        const ptrdiff_t step = t->k / rows;
        for (ptrdiff_t i = 0; i < rows; i++) {
            const ptrdiff_t k = i == rows - 1 ? t->k - i * step : step;
            FNN_NAME(prefetch_row)(vecs, c + i * c_rs);
            for (ptrdiff_t line = 0; line < t->ahead_lines; line++, ahead += FNN_LINE)
                FNN_PREFETCH_L2(ahead);
            FNN_NAME(add_products)(rows, vecs, t, k, a, b, acc);
            FNN_UNROLL for (int g = 0; g < (rows + 3) / 4; g++)
                a[g] += k * cs;
            b += k * b_rs;
        }
    }
    /* All loads come before the stores: rows of C that are a multiple of 4096 bytes apart look alike to the processor's
     * check of loads against pending stores, and would wait for each other. */
    FNN_UNROLL for (int i = 0; i < rows; i++) {
        FNN_UNROLL for (int v = 0; v < vecs; v++)
            acc[i][v] += FNN_NAME(load_within)(add + i * t->add_rs + v * t->add_vs, v == vecs - 1, last);
    }
    FNN_UNROLL for (int i = 0; i < rows; i++) {
        FNN_UNROLL for (int v = 0; v < vecs; v++) {
            if (FNN_FREE_MASKS && v == vecs - 1)
                FNN_NAME(store_part)(c + i * c_rs + v * FNN_LANES, acc[i][v], last);
            else
                FNN_NAME(store)(c + i * c_rs + v * FNN_LANES, acc[i][v]);
        }
    }
}

FNN_INLINE void FNN_NAME(tile)(int rows, int vecs, const FNN_NAME(tile_args) *t)
{
    const FNN_REAL *a = t->a, *b = t->b, *add = t->add, *ahead = t->ahead;
    FNN_REAL *c = t->c;
    for (ptrdiff_t count = t->count; count > 0; count--) {
        FNN_NAME(one_tile)(rows, vecs, t, a, b, c, add, ahead);
        a += t->a_step, b += t->b_step, c += t->c_step, add += t->add_step, ahead += rows * t->ahead_lines * FNN_LINE;
    }
}

#define FNN_TILE(rows, vecs) \
    static void FNN_NAME(tile_##rows##x##vecs)(const FNN_NAME(tile_args) *t) { FNN_NAME(tile)(rows, vecs, t); }
FNN_TILES_1(FNN_TILE) FNN_TILES_2(FNN_TILE) FNN_TILES_3(FNN_TILE) FNN_TILES_4(FNN_TILE)
#undef FNN_TILE

typedef void (*FNN_NAME(tile_function))(const FNN_NAME(tile_args) *t);

/* [vecs][rows], for the rows up to fnn_max_rows[vecs] */
static const FNN_NAME(tile_function) FNN_NAME(tiles)[FNN_MAX_VECS + 1][FNN_MAX_ROWS + 1] = {
#define FNN_TILE(rows, vecs) FNN_NAME(tile_##rows##x##vecs),
    {NULL},
    {NULL, FNN_TILES_1(FNN_TILE)},
    {NULL, FNN_TILES_2(FNN_TILE)},
    {NULL, FNN_TILES_3(FNN_TILE)},
    {NULL, FNN_TILES_4(FNN_TILE)},
#undef FNN_TILE
};

/* c[j] = sum over r < rows of x[r * x_cs] b[r, j], plus add[j * add_step], for j < n: a matrix and a vector read once,
 * row by row, which is the order that the processor prefetches. */
FNN_INLINE void FNN_NAME(combine)(int rows, ptrdiff_t n, const FNN_REAL *x, ptrdiff_t x_cs, const FNN_REAL *b,
                                  ptrdiff_t b_rs, const FNN_REAL *add, ptrdiff_t add_step, FNN_REAL *c)
{
    const FNN_REAL *base[(FNN_COMBINE_ROWS + 3) / 4];
    FNN_VEC xs[FNN_COMBINE_ROWS];
    FNN_UNROLL for (int r = 0; r < rows; r++) {
        xs[r] = FNN_NAME(splat)(x[r * x_cs]);
        if (r % 4 == 0)
            base[r / 4] = b + r * b_rs;
    }
    ptrdiff_t j = 0;
    for (; j + FNN_LANES <= n; j += FNN_LANES) {
        FNN_VEC sum = FNN_NAME(load)(add + j * add_step);
        FNN_UNROLL for (int r = 0; r < rows; r++)
            sum += xs[r] * FNN_NAME(load)(base[r / 4] + r % 4 * b_rs + j);
        FNN_NAME(store)(c + j, sum);
    }
    if (j < n) {
        FNN_VEC sum = FNN_NAME(load_part)(add + j * add_step, n - j);
        FNN_UNROLL for (int r = 0; r < rows; r++)
            sum += xs[r] * FNN_NAME(load_part)(base[r / 4] + r % 4 * b_rs + j, n - j);
        FNN_NAME(store_part)(c + j, sum, n - j);
    }
}

FNN_INLINE void FNN_NAME(fold)(FNN_VEC *r, int s)
{
    if (s < FNN_LANES) {
        FNN_UNROLL for (int q = 0; q < s; q++)
            r[q] = FNN_NAME(upper)(r[q], r[q + s], s) + FNN_NAME(lower)(r[q], r[q + s], s);
    }
}

/* sums[i * cols + j] = sum over p of a[i][p] b[j][p], for all rows and cols. */
FNN_INLINE void FNN_NAME(dot)(int rows, int cols, ptrdiff_t k, const FNN_REAL *const *rows_a,
                              const FNN_REAL *const *rows_b, FNN_REAL *sums)
{
    const FNN_REAL *a[FNN_DOT_ROWS], *b[FNN_DOT_COLS];
    FNN_VEC acc[FNN_DOT_ROWS * FNN_DOT_COLS], av[FNN_DOT_ROWS];
    ptrdiff_t p = 0;

    FNN_UNROLL for (int i = 0; i < rows; i++)
        a[i] = rows_a[i];
    FNN_UNROLL for (int j = 0; j < cols; j++)
        b[j] = rows_b[j];
    FNN_UNROLL for (int s = 0; s < rows * cols; s++)
        acc[s] = FNN_NAME(splat)(0);
    for (; p + FNN_LANES <= k; p += FNN_LANES) {
        FNN_UNROLL for (int i = 0; i < rows; i++)
            av[i] = FNN_NAME(load)(a[i] + p);
        FNN_UNROLL for (int j = 0; j < cols; j++) {
            const FNN_VEC bv = FNN_NAME(load)(b[j] + p);
            FNN_UNROLL for (int i = 0; i < rows; i++)
                acc[i * cols + j] += av[i] * bv;
        }
    }
    if (p < k) {
        FNN_UNROLL for (int i = 0; i < rows; i++)
            av[i] = FNN_NAME(load_part)(a[i] + p, k - p);
        FNN_UNROLL for (int j = 0; j < cols; j++) {
            const FNN_VEC bv = FNN_NAME(load_part)(b[j] + p, k - p);
            FNN_UNROLL for (int i = 0; i < rows; i++)
                acc[i * cols + j] += av[i] * bv;
        }
    }
    /* The lanes of each accumulator are summed for as many accumulators at once as there are lanes: a transposition
     * that adds its two halves after every step. */
    FNN_UNROLL for (int first = 0; first < rows * cols; first += FNN_LANES) {
        FNN_VEC r[FNN_LANES];
        FNN_UNROLL for (int q = 0; q < FNN_LANES; q++)
            r[q] = first + q < rows * cols ? acc[first + q] : FNN_NAME(splat)(0);
        FNN_NAME(fold)(r, 8);
        FNN_NAME(fold)(r, 4);
        FNN_NAME(fold)(r, 2);
        FNN_NAME(fold)(r, 1);
        FNN_NAME(store)(sums + first, r[0]);
    }
}

#define FNN_DOT(rows, cols)                                                                                         \
    static void FNN_NAME(dot_##rows##x##cols)(ptrdiff_t k, const FNN_REAL *const *a, const FNN_REAL *const *b,      \
                                              FNN_REAL *sums)                                                       \
    {                                                                                                               \
        FNN_NAME(dot)(rows, cols, k, a, b, sums);                                                                   \
    }
FNN_DOT(1, 8)
FNN_DOT(2, 4)
#if FNN_DOT_ROWS == 4
FNN_DOT(4, 4)
#endif
#undef FNN_DOT

/* One step of the transposition of `rows` vectors, in blocks of `rows` by `rows` numbers. */
FNN_INLINE void FNN_NAME(exchange)(FNN_VEC *r, int rows, int s)
{
    if (s < rows) {
        FNN_UNROLL for (int i = 0; i < rows; i++) {
            if ((i & s) == 0) {
                const FNN_VEC a = r[i], b = r[i + s];
                r[i] = FNN_NAME(upper)(a, b, s);
                r[i + s] = FNN_NAME(lower)(a, b, s);
            }
        }
    }
}

/* target[j, i] = source[i, j] (or += with `add`) for FNN_LANES or fewer rows i and all j. With `pad` each row of the
 * target is filled up to FNN_LANES with zeros. */
static void FNN_NAME(transpose_rows)(FNN_REAL *target, ptrdiff_t target_rs, const FNN_REAL *source,
                                     ptrdiff_t source_rs, ptrdiff_t rows, ptrdiff_t cols, int pad, int add)
{
    const int whole = pad || rows == FNN_LANES;
    for (ptrdiff_t j = 0; j < cols; j += FNN_LANES) {
        const ptrdiff_t count = cols - j < FNN_LANES ? cols - j : FNN_LANES;
        FNN_VEC r[FNN_LANES];
        if (rows == FNN_LANES && count == FNN_LANES) {
            FNN_UNROLL for (int i = 0; i < FNN_LANES; i++)
                r[i] = FNN_NAME(load)(source + i * source_rs + j);
        } else {
            FNN_UNROLL for (int i = 0; i < FNN_LANES; i++)
                r[i] = i >= rows ? FNN_NAME(splat)(0)
                     : count < FNN_LANES ? FNN_NAME(load_part)(source + i * source_rs + j, count)
                                         : FNN_NAME(load)(source + i * source_rs + j);
        }
        FNN_NAME(exchange)(r, FNN_LANES, 1);
        FNN_NAME(exchange)(r, FNN_LANES, 2);
        FNN_NAME(exchange)(r, FNN_LANES, 4);
        FNN_NAME(exchange)(r, FNN_LANES, 8);
        FNN_REAL *to = target + j * target_rs;
        if (whole && !add && count == FNN_LANES) {
            FNN_UNROLL for (int q = 0; q < FNN_LANES; q++)
                FNN_NAME(store)(to + q * target_rs, r[q]);
        } else {
            FNN_UNROLL for (int q = 0; q < FNN_LANES; q++) {
                if (q < count)
                    FNN_NAME(put)(to + q * target_rs, r[q], whole ? FNN_LANES : rows, add);
            }
        }
    }
}

/* target[j * height + i] = source[i, j] for `rows` rows i, at most `height`, and all j: a strip of A. Strips half a
 * vector high are usual, and two of their columns go into a vector. Up to FNN_LANES numbers behind the strip are
 * overwritten. */
static void FNN_NAME(transpose_strip)(FNN_REAL *target, ptrdiff_t height, const FNN_REAL *source, ptrdiff_t source_rs,
                                      ptrdiff_t rows, ptrdiff_t cols)
{
    enum { HALF = FNN_LANES / 2 };
    ptrdiff_t j = 0;
#if FNN_LANES > 2
    for (; rows == HALF && height == HALF && j + FNN_LANES <= cols; j += FNN_LANES) {
        FNN_VEC r[HALF];
        FNN_UNROLL for (int i = 0; i < HALF; i++)
            r[i] = FNN_NAME(load)(source + i * source_rs + j);
        FNN_NAME(exchange)(r, HALF, 1);
        FNN_NAME(exchange)(r, HALF, 2);
        FNN_NAME(exchange)(r, HALF, 4);
        FNN_REAL *to = target + j * HALF;
        FNN_UNROLL for (int q = 0; q < HALF; q += 2) {
            FNN_NAME(store)(to + q * HALF, FNN_NAME(upper)(r[q], r[q + 1], HALF));
            FNN_NAME(store)(to + (HALF + q) * HALF, FNN_NAME(lower)(r[q], r[q + 1], HALF));
        }
    }
#endif
    for (ptrdiff_t i = 0; i < rows; i += FNN_LANES)
        FNN_NAME(transpose_rows)(target + j * height + i, height, source + i * source_rs + j, source_rs,
                                 rows - i < FNN_LANES ? rows - i : FNN_LANES, cols - j, height < FNN_LANES, 0);
}
