/* Included twice by conv.h: the tiles for one dtype. */

#define FNN_VEC FNN_NAME(vec)

/* p[0 .. end - begin) = (or, with `add`, +=) lanes begin .. end of v, which are not all. */
FNN_INLINE void FNN_NAME(put_lanes)(FNN_REAL *p, FNN_VEC v, int begin, int end, int add)
{
#if FNN_VECTOR_BYTES == 64 && FNN_REAL_BITS == 32
    const __mmask16 mask = (__mmask16)(((1u << (end - begin)) - 1) << begin);
    const __m512 old = add ? _mm512_maskz_loadu_ps(mask, p - begin) : _mm512_setzero_ps();
    _mm512_mask_storeu_ps(p - begin, mask, old + (__m512)v);
#elif FNN_VECTOR_BYTES == 64
    const __mmask8 mask = (__mmask8)(((1u << (end - begin)) - 1) << begin);
    const __m512d old = add ? _mm512_maskz_loadu_pd(mask, p - begin) : _mm512_setzero_pd();
    _mm512_mask_storeu_pd(p - begin, mask, old + (__m512d)v);
#else
    FNN_REAL lanes[FNN_LANES];
    FNN_NAME(store)(lanes, v);
    for (int q = begin; q < end; q++)
        p[q - begin] = (add ? p[q - begin] : 0) + lanes[q];
#endif
}

/* The numbers of a tile to their places in C. Not in line: it is as long as a tile, and tiles are many. */
FNN_OUTLINE void FNN_NAME(conv_put)(const fnn_conv_tile *t, const FNN_VEC *sums, int rows, int vecs)
{
    const ptrdiff_t c_rs = t->c_rs;
    const int add = t->accumulate;
    for (int v = 0; v < vecs; v++) {
        for (ptrdiff_t r = t->first[v]; r < t->first[v + 1]; r++) {
            const fnn_conv_run run = t->runs[r];
            FNN_REAL *c = (FNN_REAL *)t->c + run.target;
            if (run.begin == 0 && run.end == FNN_LANES) {
                for (int i = 0; i < rows; i++, c += c_rs)
                    FNN_NAME(store)(c, add ? FNN_NAME(load)(c) + sums[i * vecs + v] : sums[i * vecs + v]);
            } else {
                for (int i = 0; i < rows; i++, c += c_rs)
                    FNN_NAME(put_lanes)(c, sums[i * vecs + v], run.begin, run.end, add);
            }
        }
    }
}

FNN_INLINE void FNN_NAME(conv_tile)(int rows, int vecs, const fnn_conv_tile *t)
{
    /* Rows go in fours with a base each: base, base + rs, base + 2 rs, base + 3 rs are addressing modes. */
    const ptrdiff_t rs = t->a_rs, *a_at = t->a_at, *b_at = t->b_at;
    const FNN_REAL *a0 = (const FNN_REAL *)t->a, *b0 = (const FNN_REAL *)t->b;
    const FNN_REAL *row_bias = (const FNN_REAL *)t->row_bias, *col_bias = (const FNN_REAL *)t->col_bias;
    FNN_VEC acc[FNN_MAX_ROWS][FNN_MAX_VECS], sums[FNN_MAX_ROWS * FNN_MAX_VECS];

    FNN_UNROLL for (int v = 0; v < vecs; v++) {
        const FNN_REAL *c = (const FNN_REAL *)t->c + t->runs[t->first[v]].target;
        FNN_UNROLL for (int i = 0; i < rows; i++) {
            FNN_PREFETCH_WRITE(c);
            c += t->c_rs;
        }
    }
    FNN_UNROLL for (int i = 0; i < rows; i++) {
        FNN_UNROLL for (int v = 0; v < vecs; v++)
            acc[i][v] = row_bias ? FNN_NAME(splat)(row_bias[i])
                      : col_bias ? FNN_NAME(load)(col_bias + v * FNN_LANES)
                                 : FNN_NAME(splat)(0);
    }
    for (ptrdiff_t p = 0; p < t->k; p++) {
        const FNN_REAL *base = a0 + a_at[p], *b = b0 + b_at[p];
        const FNN_REAL *a[3] = {base, base + (rows > 4 ? 4 * rs : 0), base + (rows > 8 ? 8 * rs : 0)};
        FNN_VEC bv[FNN_MAX_VECS];
        FNN_UNROLL for (int v = 0; v < vecs; v++)
            bv[v] = FNN_NAME(load)(b + v * FNN_LANES);
        FNN_UNROLL for (int i = 0; i < rows; i++) {
            const FNN_VEC x = FNN_NAME(splat)(a[i / 4][i % 4 * rs]);
            FNN_UNROLL for (int v = 0; v < vecs; v++)
                acc[i][v] += x * bv[v];
        }
    }
    if (t->whole) {
        const ptrdiff_t c_rs = t->c_rs;
        FNN_UNROLL for (int v = 0; v < vecs; v++) {
            FNN_REAL *c = (FNN_REAL *)t->c + t->runs[t->first[v]].target;
            FNN_UNROLL for (int i = 0; i < rows; i++, c += c_rs)
                FNN_NAME(store)(c, acc[i][v]);
        }
        return;
    }
    FNN_UNROLL for (int i = 0; i < rows; i++) {
        FNN_UNROLL for (int v = 0; v < vecs; v++)
            sums[i * vecs + v] = acc[i][v];
    }
    FNN_NAME(conv_put)(t, sums, rows, vecs);
}

#define FNN_TILE(rows, vecs)                                              \
    static void FNN_NAME(conv_tile_##rows##x##vecs)(const fnn_conv_tile *t) \
    {                                                                     \
        FNN_NAME(conv_tile)(rows, vecs, t);                               \
    }
FNN_TILES_1(FNN_TILE) FNN_TILES_2(FNN_TILE) FNN_TILES_3(FNN_TILE) FNN_TILES_4(FNN_TILE)
#undef FNN_TILE

/* C for a tile of `rows` rows and `vecs` vectors. */
FNN_STATIC void FNN_NAME(conv_run_tile)(const fnn_conv_tile *t, ptrdiff_t rows, ptrdiff_t vecs)
{
    typedef void (*function)(const fnn_conv_tile *);
    static const function tiles[FNN_MAX_VECS + 1][FNN_MAX_ROWS + 1] = {
#define FNN_TILE(rows, vecs) FNN_NAME(conv_tile_##rows##x##vecs),
        {NULL},
        {NULL, FNN_TILES_1(FNN_TILE)},
        {NULL, FNN_TILES_2(FNN_TILE)},
        {NULL, FNN_TILES_3(FNN_TILE)},
        {NULL, FNN_TILES_4(FNN_TILE)},
#undef FNN_TILE
    };
    tiles[vecs][rows](t);
}

/* target[0 .. width) = zeros up to `at`, `count` numbers of the source, then zeros. Up to a vector behind the end gets
 * zeros too: lines are copied in the order of the memory, and the next one repairs that. */
FNN_INLINE void FNN_NAME(conv_copy_line)(FNN_REAL *target, ptrdiff_t width, const FNN_REAL *source,
                                         ptrdiff_t at, ptrdiff_t count)
{
    const FNN_VEC zero = FNN_NAME(splat)(0);
    ptrdiff_t q = 0;
    for (; q < at; q += FNN_LANES)
        FNN_NAME(store)(target + q, zero);
    for (q = 0; q + FNN_LANES <= count; q += FNN_LANES)
        FNN_NAME(store)(target + at + q, FNN_NAME(load)(source + q));
    if (q < count) {
        FNN_NAME(store)(target + at + q, FNN_NAME(load_part)(source + q, count - q));
        q += FNN_LANES;
    }
    for (q += at; q < width; q += FNN_LANES)
        FNN_NAME(store)(target + q, zero);
}

/* The same of numbers that are `step` apart. */
FNN_INLINE void FNN_NAME(conv_copy_apart)(FNN_REAL *target, ptrdiff_t width, const FNN_REAL *source, ptrdiff_t step,
                                          ptrdiff_t at, ptrdiff_t count)
{
    const FNN_VEC zero = FNN_NAME(splat)(0);
    ptrdiff_t q = 0;
    for (; q < at; q += FNN_LANES)
        FNN_NAME(store)(target + q, zero);
    q = 0;
#if FNN_FREE_MASKS
    /* as many as two vectors have */
    const ptrdiff_t at_once = fnn_min(fnn_parts(2 * FNN_LANES, step), FNN_LANES);
    const FNN_NAME(mask) places = FNN_NAME(places)(step);
    for (; q < count; q += at_once) {
        const ptrdiff_t some = fnn_min(at_once, count - q), size = (some - 1) * step + 1;
        const FNN_VEC a = FNN_NAME(load_part)(source + q * step, fnn_min(size, FNN_LANES));
        const FNN_VEC b = FNN_NAME(load_part)(source + q * step + FNN_LANES, fnn_max(size - FNN_LANES, 0));
        FNN_NAME(store)(target + at + q, FNN_NAME(pick)(a, b, places, some));
    }
    q += FNN_LANES - at_once;
#else
    if (step == 2 && FNN_LANES > 1)
        for (; q + FNN_LANES <= count; q += FNN_LANES)
            FNN_NAME(store)(target + at + q, FNN_NAME(every_second)(FNN_NAME(load)(source + 2 * q),
                                                                    FNN_NAME(load)(source + 2 * q + FNN_LANES - 1)));
    for (; q < count; q++)
        target[at + q] = source[q * step];
#endif
    for (q += at; q < width; q += FNN_LANES)
        FNN_NAME(store)(target + q, zero);
}

/* The same for `lines` of them that follow each other in the target; then `rest` zeros. */
FNN_STATIC void FNN_NAME(conv_copy_lines)(FNN_REAL *target, ptrdiff_t width, const FNN_REAL *source, ptrdiff_t step,
                                          ptrdiff_t source_rs, ptrdiff_t lines, ptrdiff_t at, ptrdiff_t count,
                                          ptrdiff_t rest)
{
    const FNN_VEC zero = FNN_NAME(splat)(0);
    if (width <= FNN_LANES && count > 0 && step == 1) {
        for (ptrdiff_t n = 0; n < lines; n++, target += width, source += source_rs) {
            if (at)
                FNN_NAME(store)(target, zero);
            FNN_NAME(store)(target + at, FNN_NAME(load_part)(source, count));
        }
    } else if (step == 1) {
        for (ptrdiff_t n = 0; n < lines; n++, target += width, source += source_rs)
            FNN_NAME(conv_copy_line)(target, width, source, at, count);
    } else {
        for (ptrdiff_t n = 0; n < lines; n++, target += width, source += source_rs)
            FNN_NAME(conv_copy_apart)(target, width, source, step, at, count);
    }
    for (ptrdiff_t q = 0; q < rest; q += FNN_LANES)
        FNN_NAME(store)(target + q, zero);
}

/* target[q * step] = source[q] for a line of `count` numbers; step > 1. */
FNN_STATIC void FNN_NAME(conv_spread_line)(FNN_REAL *target, ptrdiff_t step, const FNN_REAL *source, ptrdiff_t count)
{
    ptrdiff_t q = 0;
    if (step == 2 && FNN_LANES > 1) {
        for (; q + FNN_LANES <= count; q += FNN_LANES) {
            const FNN_VEC v = FNN_NAME(load)(source + q);
            FNN_REAL *a = target + 2 * q, *b = a + FNN_LANES - 1;
            FNN_NAME(store)(a, FNN_NAME(spread_a)(v, FNN_NAME(load)(a)));
            FNN_NAME(store)(b, FNN_NAME(spread_b)(v, FNN_NAME(load)(b)));
        }
    }
    for (; q < count; q++)
        target[q * step] = source[q];
}

/* For each plane c, line n and number q: patch[c * patch_plane + n * patch_line + q] =
 * source[c * source_plane + n * source_line + q * step], or with `adds` the way back: each number is added to the one that
 * it came from. Lines that fit a register of `bytes` go through one, others, for which that is 0, number by number. */
FNN_INLINE void FNN_NAME(conv_move_lines)(int bytes, int adds, const fnn_conv_patch *t, FNN_REAL *patch,
                                          FNN_REAL *source)
{
    const ptrdiff_t count = t->count, step = t->step;
    for (ptrdiff_t c = 0; c < t->planes; c++) {
        for (ptrdiff_t n = 0; n < t->lines; n++) {
            FNN_REAL *inside = source + c * t->source_plane + n * t->source_line;
            FNN_REAL *copy = patch + c * t->patch_plane + n * t->patch_line;
            if (bytes)
                FNN_NAME(move_part)(bytes, adds ? inside : copy, adds ? copy : inside, count, adds);
            else if (adds)
                for (ptrdiff_t q = 0; q < count; q++)
                    inside[q * step] += copy[q];
            else if (step == 1)
                for (ptrdiff_t q = 0; q < count; q++)
                    copy[q] = inside[q];
            else
                for (ptrdiff_t q = 0; q < count; q++)
                    copy[q] = inside[q * step];
        }
    }
}

FNN_STATIC void FNN_NAME(conv_move_patch)(const fnn_conv_patch *t, int adds, FNN_REAL *patch, FNN_REAL *source)
{
    const ptrdiff_t bytes = t->count * (ptrdiff_t)sizeof(FNN_REAL);
    const int width = !FNN_FREE_MASKS || t->step > 1 || bytes > 64 ? 0 : bytes <= 16 ? 16 : bytes <= 32 ? 32 : 64;
#define FNN_MOVE(width) \
    (adds ? FNN_NAME(conv_move_lines)(width, 1, t, patch, source) : FNN_NAME(conv_move_lines)(width, 0, t, patch, source))
    if (width == 16)
        FNN_MOVE(16);
    else if (width == 32)
        FNN_MOVE(32);
    else if (width == 64)
        FNN_MOVE(64);
    else
        FNN_MOVE(0);
#undef FNN_MOVE
}

/* sums[s] = the sum of the lanes of acc[s]: a transposition that adds its two halves after every step. */
FNN_INLINE void FNN_NAME(conv_sum_lanes)(int count, const FNN_VEC *acc, FNN_REAL *sums)
{
    FNN_UNROLL for (int first = 0; first < count; first += FNN_LANES) {
        FNN_VEC r[FNN_LANES];
        FNN_UNROLL for (int q = 0; q < FNN_LANES; q++)
            r[q] = first + q < count ? acc[first + q] : FNN_NAME(splat)(0);
        FNN_NAME(fold)(r, 8);
        FNN_NAME(fold)(r, 4);
        FNN_NAME(fold)(r, 2);
        FNN_NAME(fold)(r, 1);
        FNN_NAME(store)(sums + first, r[0]);
    }
}

/* sums[i * cols + j] = sum of the products of a[i] and b[j] over all lines of all images. */
FNN_INLINE void FNN_NAME(conv_dot)(int rows, int cols, const fnn_conv_lines *block, const FNN_REAL *const *a,
                                   const FNN_REAL *const *b, FNN_REAL *sums)
{
    FNN_VEC acc[FNN_DOT_ROWS * FNN_DOT_COLS], av[FNN_DOT_ROWS];
    const ptrdiff_t part = block->count % FNN_LANES, whole = block->count - part;
    FNN_UNROLL for (int s = 0; s < rows * cols; s++)
        acc[s] = FNN_NAME(splat)(0);
    for (ptrdiff_t image = 0; image < block->images; image++) {
        for (ptrdiff_t line = 0; line < block->lines; line++) {
            const ptrdiff_t a_at = image * block->a_image + line * block->a_line;
            const ptrdiff_t b_at = image * block->b_image + line * block->b_line;
            for (ptrdiff_t q = 0; q < whole; q += FNN_LANES) {
                FNN_UNROLL for (int i = 0; i < rows; i++)
                    av[i] = FNN_NAME(load)(a[i] + a_at + q);
                FNN_UNROLL for (int j = 0; j < cols; j++) {
                    const FNN_VEC bv = FNN_NAME(load)(b[j] + b_at + q);
                    FNN_UNROLL for (int i = 0; i < rows; i++)
                        acc[i * cols + j] += av[i] * bv;
                }
            }
            if (part) {
                FNN_UNROLL for (int i = 0; i < rows; i++)
                    av[i] = FNN_NAME(load_part)(a[i] + a_at + whole, part);
                FNN_UNROLL for (int j = 0; j < cols; j++) {
                    const FNN_VEC bv = FNN_NAME(load_part)(b[j] + b_at + whole, part);
                    FNN_UNROLL for (int i = 0; i < rows; i++)
                        acc[i * cols + j] += av[i] * bv;
                }
            }
        }
    }
    FNN_NAME(conv_sum_lanes)(rows * cols, acc, sums);
}

#define FNN_DOT(rows, cols)                                                                               \
    static void FNN_NAME(conv_dot_##rows##x##cols)(const fnn_conv_lines *block, const FNN_REAL *const *a, \
                                                   const FNN_REAL *const *b, FNN_REAL *sums)              \
    {                                                                                                     \
        FNN_NAME(conv_dot)(rows, cols, block, a, b, sums);                                                \
    }
FNN_DOT(1, 8)
FNN_DOT(2, 4)
#if FNN_DOT_ROWS >= 4
FNN_DOT(4, 4)
#endif
#undef FNN_DOT

/* c[i * c_rs + j] += the sum over all lines of the products of a[i * a_rs ...] and b[b_at[j] ...]. */
FNN_STATIC void FNN_NAME(conv_dots)(const fnn_conv_lines *block, const FNN_REAL *a, ptrdiff_t a_rs,
                                    ptrdiff_t rows, const FNN_REAL *b, const ptrdiff_t *b_at, ptrdiff_t cols,
                                    FNN_REAL *c, ptrdiff_t c_rs)
{
    const FNN_REAL *a_rows[FNN_DOT_ROWS], *b_rows[FNN_DOT_COLS];
    FNN_REAL sums[FNN_DOT_ROWS * FNN_DOT_COLS + FNN_LANES];
    int tile_rows;
    for (ptrdiff_t i = 0; i < rows; i += tile_rows) {
        tile_rows = rows - i >= 4 && FNN_DOT_ROWS >= 4 ? 4 : rows - i >= 2 ? 2 : 1;
        const int tile_cols = tile_rows == 1 ? 8 : 4;
        for (int r = 0; r < tile_rows; r++)
            a_rows[r] = a + (i + r) * a_rs;
        for (ptrdiff_t j = 0; j < cols; j += tile_cols) {
            /* past the last column the last one again, whose sums are left out */
            for (int q = 0; q < tile_cols; q++)
                b_rows[q] = b + b_at[fnn_min(j + q, cols - 1)];
#if FNN_DOT_ROWS >= 4
            if (tile_rows == 4)
                FNN_NAME(conv_dot_4x4)(block, a_rows, b_rows, sums);
            else
#endif
            if (tile_rows == 2)
                FNN_NAME(conv_dot_2x4)(block, a_rows, b_rows, sums);
            else
                FNN_NAME(conv_dot_1x8)(block, a_rows, b_rows, sums);
            for (int r = 0; r < tile_rows; r++)
                for (int q = 0; q < fnn_min(tile_cols, cols - j); q++)
                    c[(i + r) * c_rs + j + q] += sums[r * tile_cols + q];
        }
    }
}

/* Depthwise with the channels in the lanes: c[i * c_rs + v] = bias[v] + the sum over p of
 * a[i * a_rs + a_at[p] + v] b[p * b_rs + v], for `pixels` pixels from `at` on and `count` channels from v on. */
FNN_INLINE void FNN_NAME(conv_channels)(int pixels, const fnn_conv_channels *t, ptrdiff_t at, ptrdiff_t v,
                                        ptrdiff_t count)
{
    const FNN_REAL *a = (const FNN_REAL *)t->a + at * t->a_rs + v, *b = (const FNN_REAL *)t->b + v;
    const FNN_REAL *bias = (const FNN_REAL *)t->bias;
    FNN_REAL *c = (FNN_REAL *)t->c + at * t->c_rs + v;
    const int whole = count == FNN_LANES;
    FNN_VEC acc[4];
    FNN_UNROLL for (int i = 0; i < pixels; i++)
        acc[i] = FNN_NAME(splat)(0);
    for (ptrdiff_t p = 0; p < t->k; p++) {
        const FNN_REAL *x = a + t->a_at[p];
        const FNN_VEC w = FNN_NAME(load)(b + p * t->b_rs);
        FNN_UNROLL for (int i = 0; i < pixels; i++)
            acc[i] += w * (whole ? FNN_NAME(load)(x + i * t->a_rs)
                                 : FNN_NAME(load_part)(x + i * t->a_rs, count));
    }
    FNN_UNROLL for (int i = 0; i < pixels; i++)
        FNN_NAME(put)(c + i * t->c_rs, bias ? acc[i] + FNN_NAME(load)(bias + v) : acc[i], count, 0);
}

/* The same for taps in rows and whole vectors: what is read of a pixel serves all results that it is a term of. */
FNN_INLINE void FNN_NAME(conv_channel_rows)(int pixels, int size, int step, const fnn_conv_channels *t, ptrdiff_t at,
                                            ptrdiff_t v)
{
    const ptrdiff_t pixel = t->a_rs / step;
    const FNN_REAL *a = (const FNN_REAL *)t->a + at * t->a_rs + v, *b = (const FNN_REAL *)t->b + v;
    const FNN_REAL *bias = (const FNN_REAL *)t->bias;
    FNN_REAL *c = (FNN_REAL *)t->c + at * t->c_rs + v;
    FNN_VEC acc[FNN_ROW_PIXELS], w[FNN_ROW_TAPS];
    FNN_UNROLL for (int i = 0; i < pixels; i++)
        acc[i] = FNN_NAME(splat)(0);
    for (ptrdiff_t p = 0; p < t->k; p += size) {
        const FNN_REAL *x = a + t->a_at[p];
        FNN_UNROLL for (int s = 0; s < size; s++)
            w[s] = FNN_NAME(load)(b + (p + s) * t->b_rs);
        FNN_UNROLL for (int j = 0; j < (pixels - 1) * step + size; j++) {
            const FNN_VEC xv = FNN_NAME(load)(x + j * pixel);
            FNN_UNROLL for (int i = 0; i < pixels; i++)
                if (j - i * step >= 0 && j - i * step < size)
                    acc[i] += xv * w[j - i * step];
        }
    }
    FNN_UNROLL for (int i = 0; i < pixels; i++)
        FNN_NAME(store)(c + i * t->c_rs, bias ? acc[i] + FNN_NAME(load)(bias + v) : acc[i]);
}

#define FNN_ROWS_OF_TAPS(make, pixels, step) \
    make(pixels, 2, step) make(pixels, 3, step) make(pixels, 4, step) make(pixels, 5, step) make(pixels, 6, step) \
    make(pixels, 7, step)
#define FNN_MANY_PIXELS(make) FNN_ROWS_OF_TAPS(make, FNN_ROW_PIXELS, 1) FNN_ROWS_OF_TAPS(make, FNN_ROW_PIXELS, 2)
#define FNN_FEW_PIXELS(make) FNN_ROWS_OF_TAPS(make, 4, 1) FNN_ROWS_OF_TAPS(make, 4, 2)
#define FNN_MAKE(pixels, size, step, name)                                                               \
    FNN_OUTLINE void FNN_NAME(name##_##size##_##step)(const fnn_conv_channels *t, ptrdiff_t at, ptrdiff_t v) \
    {                                                                                                    \
        FNN_NAME(conv_channel_rows)(pixels, size, step, t, at, v);                                       \
    }
#define FNN_MAKE_MANY(pixels, size, step) FNN_MAKE(pixels, size, step, conv_channels_many)
#define FNN_MAKE_FEW(pixels, size, step) FNN_MAKE(pixels, size, step, conv_channels_few)
FNN_MANY_PIXELS(FNN_MAKE_MANY)
FNN_FEW_PIXELS(FNN_MAKE_FEW)

/* A line of the result, in rows of taps where there is a kernel for them. Where fewer pixels are left than a kernel does,
 * it starts earlier and does some again. */
FNN_STATIC void FNN_NAME(conv_run_channels)(const fnn_conv_channels *t)
{
    typedef void (*function)(const fnn_conv_channels *, ptrdiff_t, ptrdiff_t);
#define FNN_NAME_MANY(pixels, size, step) FNN_NAME(conv_channels_many_##size##_##step),
#define FNN_NAME_FEW(pixels, size, step) FNN_NAME(conv_channels_few_##size##_##step),
    static const function many[] = {FNN_MANY_PIXELS(FNN_NAME_MANY)}, few[] = {FNN_FEW_PIXELS(FNN_NAME_FEW)};
    const int in_rows = t->row > 1 && t->row <= FNN_ROW_TAPS && t->step <= 2 && t->pixels >= 4;
    const ptrdiff_t kind = in_rows ? (t->step - 1) * (FNN_ROW_TAPS - 1) + t->row - 2 : 0;
    const ptrdiff_t whole = t->count / FNN_LANES * FNN_LANES, pixels = t->pixels;
    for (ptrdiff_t at = 0, step; in_rows && at < pixels; at += step) {
        const int is_many = pixels - at > 4 && pixels >= FNN_ROW_PIXELS;
        step = is_many ? FNN_ROW_PIXELS : 4;
        for (ptrdiff_t v = 0; v < whole; v += FNN_LANES)
            (is_many ? many : few)[kind](t, fnn_min(at, pixels - step), v);
    }
    if (in_rows && whole == t->count)
        return;
    for (ptrdiff_t at = 0, step; at < pixels; at += step) {
        step = pixels >= 4 ? 4 : 1;
        for (ptrdiff_t v = in_rows ? whole : 0; v < t->count; v += FNN_LANES) {
            const ptrdiff_t count = fnn_min(FNN_LANES, t->count - v), from = fnn_min(at, pixels - step);
            if (step == 4 && count == FNN_LANES)
                FNN_NAME(conv_channels)(4, t, from, v, FNN_LANES);
            else if (step == 4)
                FNN_NAME(conv_channels)(4, t, from, v, count);
            else
                FNN_NAME(conv_channels)(1, t, from, v, count);
        }
    }
}
#undef FNN_ROWS_OF_TAPS
#undef FNN_MANY_PIXELS
#undef FNN_FEW_PIXELS
#undef FNN_MAKE
#undef FNN_MAKE_MANY
#undef FNN_MAKE_FEW
#undef FNN_NAME_MANY
#undef FNN_NAME_FEW

/* sums[p * sums_rs + v] += the sum over the pixels i of c[i * c_rs + v] a[i * a_rs + a_at[p] + v], for the taps p from
 * `tap` on and `count` channels from v on. */
FNN_INLINE void FNN_NAME(conv_channel_taps)(int taps, const fnn_conv_channels *t, ptrdiff_t at, ptrdiff_t pixels,
                                            ptrdiff_t tap, ptrdiff_t v, ptrdiff_t count, FNN_REAL *sums,
                                            ptrdiff_t sums_rs)
{
    const FNN_REAL *a = (const FNN_REAL *)t->a + at * t->a_rs + v, *c = (const FNN_REAL *)t->c + at * t->c_rs + v;
    const FNN_REAL *x[FNN_DOT_TAPS];
    const int whole = count == FNN_LANES;
    FNN_VEC acc[FNN_DOT_TAPS];
    sums += tap * sums_rs + v;
    FNN_UNROLL for (int s = 0; s < taps; s++) {
        acc[s] = FNN_NAME(load)(sums + s * sums_rs);
        x[s] = a + t->a_at[tap + s];
    }
    for (ptrdiff_t i = 0; i < pixels; i++) {
        const FNN_VEC g = whole ? FNN_NAME(load)(c + i * t->c_rs) : FNN_NAME(load_part)(c + i * t->c_rs, count);
        FNN_UNROLL for (int s = 0; s < taps; s++)
            acc[s] += g * (whole ? FNN_NAME(load)(x[s] + i * t->a_rs)
                                 : FNN_NAME(load_part)(x[s] + i * t->a_rs, count));
    }
    FNN_UNROLL for (int s = 0; s < taps; s++)
        FNN_NAME(store)(sums + s * sums_rs, acc[s]);
}

#define FNN_EACH_TAPS(make) \
    make(1) make(2) make(3) make(4) make(5) make(6) make(7) make(8) make(9) make(10) make(11) make(12)
#define FNN_MAKE(taps)                                                                                            \
    FNN_OUTLINE void FNN_NAME(conv_channel_taps_##taps)(const fnn_conv_channels *t, ptrdiff_t at, ptrdiff_t pixels, \
                                                        ptrdiff_t tap, ptrdiff_t v, FNN_REAL *sums,               \
                                                        ptrdiff_t sums_rs)                                        \
    {                                                                                                             \
        const ptrdiff_t count = fnn_min(FNN_LANES, t->count - v);                                                 \
        if (count == FNN_LANES)                                                                                   \
            FNN_NAME(conv_channel_taps)(taps, t, at, pixels, tap, v, FNN_LANES, sums, sums_rs);                   \
        else                                                                                                      \
            FNN_NAME(conv_channel_taps)(taps, t, at, pixels, tap, v, count, sums, sums_rs);                       \
    }
FNN_EACH_TAPS(FNN_MAKE)

/* The same for all taps and channels, some pixels at a time, which stay in the first-level cache; the lines of sums
 * have whole vectors. */
FNN_STATIC void FNN_NAME(conv_channel_dots)(const fnn_conv_channels *t, FNN_REAL *sums, ptrdiff_t sums_rs)
{
    typedef void (*function)(const fnn_conv_channels *, ptrdiff_t, ptrdiff_t, ptrdiff_t, ptrdiff_t, FNN_REAL *, ptrdiff_t);
#define FNN_NAME_TAPS(taps) FNN_NAME(conv_channel_taps_##taps),
    static const function kinds[] = {NULL, FNN_EACH_TAPS(FNN_NAME_TAPS)};
    const ptrdiff_t most = fnn_even_part(t->k, FNN_DOT_TAPS, 1);
    const ptrdiff_t pixels = t->count > FNN_LANES ? fnn_even_part(t->pixels, FNN_DOT_PIXELS, 1) : t->pixels;
    for (ptrdiff_t at = 0; at < t->pixels; at += pixels)
        for (ptrdiff_t v = 0; v < t->count; v += FNN_LANES)
            for (ptrdiff_t tap = 0; tap < t->k; tap += most)
                kinds[fnn_min(most, t->k - tap)](t, at, fnn_min(pixels, t->pixels - at), tap, v, sums, sums_rs);
}
#undef FNN_EACH_TAPS
#undef FNN_MAKE
#undef FNN_NAME_TAPS

/* acc[i] += the dense square `kernel` over the lines from b on. */
FNN_INLINE void FNN_NAME(conv_add_square)(int rows, const FNN_REAL *b, ptrdiff_t b_line, const FNN_VEC *kernel,
                                          FNN_VEC *acc)
{
    FNN_UNROLL for (int y = 0; y < rows + 2; y++) {
        FNN_UNROLL for (int s = 0; s < 3; s++) {
            const FNN_VEC x = FNN_NAME(load)(b + y * b_line + s);
            FNN_UNROLL for (int i = 0; i < rows; i++)
                if (y - i >= 0 && y - i < 3)
                    acc[i] += x * kernel[(y - i) * 3 + s];
        }
    }
}

/* `rows` lines of a plane from `line` on. A last vector that is not whole starts earlier, where there is room. */
FNN_INLINE void FNN_NAME(conv_plane_rows)(int rows, int square, const fnn_conv_plane *t, const FNN_VEC *weights,
                                          ptrdiff_t line)
{
    const ptrdiff_t count = t->count, b_line = t->b_line, c_line = t->c_line;
    const FNN_REAL *b = (const FNN_REAL *)t->b + line * b_line;
    FNN_REAL *c = (FNN_REAL *)t->c + line * c_line;
    const FNN_VEC bias = FNN_NAME(splat)(t->bias ? *(const FNN_REAL *)t->bias : 0);
    FNN_VEC kernel[9], acc[FNN_PLANE_ROWS];
    if (square)
        FNN_UNROLL for (int q = 0; q < 9; q++)
            kernel[q] = weights[q];
    for (ptrdiff_t v = 0; v < count; v += FNN_LANES) {
        const ptrdiff_t at = v + FNN_LANES <= count || count < FNN_LANES ? v : count - FNN_LANES;
        FNN_UNROLL for (int i = 0; i < rows; i++)
            acc[i] = bias;
        if (square) {
            FNN_NAME(conv_add_square)(rows, b + at, b_line, kernel, acc);
        } else {
            for (ptrdiff_t p = 0; p < t->k; p++) {
                const FNN_REAL *x = b + t->b_at[p] + at;
                FNN_UNROLL for (int i = 0; i < rows; i++)
                    acc[i] += FNN_NAME(load)(x + i * b_line) * weights[p];
            }
        }
        FNN_UNROLL for (int i = 0; i < rows; i++)
            FNN_NAME(put)(c + i * c_line + at, acc[i], fnn_min(count, FNN_LANES), 0);
    }
}

/* What `size` taps in a row read around the vector at p, which may begin or end a line of a plane without a frame.
 * Lanes from `count` on are zero. */
FNN_INLINE void FNN_NAME(conv_neighbours)(int size, int left, int right, ptrdiff_t count, const FNN_REAL *p,
                                          FNN_VEC *x)
{
    const int half = size / 2, whole = count == FNN_LANES;
    const FNN_VEC centre = whole ? FNN_NAME(load)(p) : FNN_NAME(load_part)(p, count);
    FNN_UNROLL for (int s = 0; s < size; s++) {
        if (s < half && left)
            x[s] = FNN_NAME(shift_up)(whole ? centre : FNN_NAME(load_part)(p, count - (half - s)), half - s);
        else if (s > half && right)
            x[s] = FNN_NAME(shift_down)(centre, s - half);
        else if (s == half)
            x[s] = centre;
        else
            x[s] = whole ? FNN_NAME(load)(p + s - half) : FNN_NAME(load_part)(p + s - half, count);
    }
}

/* A pair of vectors: the `count` numbers at p, then zeros. */
FNN_INLINE void FNN_NAME(conv_load_pair)(const FNN_REAL *p, ptrdiff_t count, FNN_VEC *pair)
{
    pair[0] = FNN_NAME(load_part)(p, fnn_min(fnn_max(count, 0), FNN_LANES));
    pair[1] = FNN_NAME(load_part)(p + FNN_LANES, fnn_min(fnn_max(count - FNN_LANES, 0), FNN_LANES));
}

/* What three taps in a row read around every second number from p on, of which the line has `length` more. */
FNN_INLINE void FNN_NAME(conv_half_neighbours)(int left, int right, ptrdiff_t count, ptrdiff_t length, const FNN_REAL *p,
                                               FNN_VEC *x)
{
    FNN_VEC pair[2];
    if (!left && !right) {
        pair[0] = FNN_NAME(load)(p - 1), pair[1] = FNN_NAME(load)(p - 1 + FNN_LANES);
        x[0] = FNN_NAME(evens)(pair[0], pair[1]), x[1] = FNN_NAME(odds)(pair[0], pair[1]);
        x[2] = FNN_NAME(every_second)(FNN_NAME(load)(p + 1), FNN_NAME(load)(p + FNN_LANES));
        return;
    }
    FNN_NAME(conv_load_pair)(p, right ? fnn_min(length, 2 * count) : 2 * FNN_LANES, pair);
    x[1] = FNN_NAME(evens)(pair[0], pair[1]), x[2] = FNN_NAME(odds)(pair[0], pair[1]);
    if (!left) {
        FNN_NAME(conv_load_pair)(p - 1, fnn_min(length + 1, 2 * count), pair);
        x[0] = FNN_NAME(evens)(pair[0], pair[1]);
        return;
    }
    if (right)
        FNN_NAME(conv_load_pair)(p, 2 * count - 2, pair);
    x[0] = FNN_NAME(shift_up)(FNN_NAME(odds)(pair[0], pair[1]), 1);
}

/* The lines that `rows` lines of C from `line` on read, each `step` further: zeros above and below the plane. */
FNN_INLINE void FNN_NAME(conv_find_lines)(int rows, int size, int step, const fnn_conv_plane *t, ptrdiff_t line,
                                          const FNN_REAL **found)
{
    FNN_UNROLL for (int y = 0; y < (rows - 1) * step + size; y++) {
        const ptrdiff_t at = line * step + y - size / 2;
        found[y] = (const FNN_REAL *)(at >= 0 && at < t->b_lines ? (const FNN_REAL *)t->b + at * t->b_line : t->zeros);
    }
}

/* What `size` taps in a row read for a vector of a line of C at `at`. */
FNN_INLINE void FNN_NAME(conv_taps)(int size, int step, int left, int right, ptrdiff_t count, const fnn_conv_plane *t,
                                    const FNN_REAL *b, ptrdiff_t at, FNN_VEC *x)
{
    if (step == 1)
        FNN_NAME(conv_neighbours)(size, left, right, count, b + at, x);
    else
        FNN_NAME(conv_half_neighbours)(left, right, count, t->b_line - 2 * at, b + 2 * at, x);
}

FNN_INLINE void FNN_NAME(conv_same_vector)(int size, int step, int left, int right, ptrdiff_t count,
                                           const fnn_conv_plane *t, const FNN_REAL *const *b, const FNN_VEC *kernel,
                                           FNN_VEC bias, FNN_REAL *c, ptrdiff_t at)
{
    FNN_VEC acc[FNN_PLANE_ROWS], x[5];
    FNN_UNROLL for (int i = 0; i < FNN_PLANE_ROWS; i++)
        acc[i] = bias;
    FNN_UNROLL for (int y = 0; y < (FNN_PLANE_ROWS - 1) * step + size; y++) {
        FNN_NAME(conv_taps)(size, step, left, right, count, t, b[y], at, x);
        FNN_UNROLL for (int s = 0; s < size; s++) {
            FNN_KEEP(x[s]);
            FNN_UNROLL for (int i = 0; i < FNN_PLANE_ROWS; i++)
                if (y - i * step >= 0 && y - i * step < size)
                    acc[i] += x[s] * kernel[(y - i * step) * size + s];
        }
    }
    FNN_UNROLL for (int i = 0; i < FNN_PLANE_ROWS; i++)
        FNN_NAME(put)(c + i * t->c_line + at, acc[i], count, 0);
}

/* A few lines of a plane without a frame. */
FNN_INLINE void FNN_NAME(conv_same_rows)(int size, int step, const fnn_conv_plane *t, const FNN_VEC *weights, ptrdiff_t line)
{
    const ptrdiff_t count = t->count;
    const FNN_VEC bias = FNN_NAME(splat)(t->bias ? *(const FNN_REAL *)t->bias : 0);
    const FNN_REAL *b[2 * FNN_PLANE_ROWS + 4];
    FNN_REAL *c = (FNN_REAL *)t->c + line * t->c_line;
    FNN_VEC kernel[25];
    FNN_UNROLL for (int q = 0; q < size * size; q++)
        kernel[q] = weights[q];
    FNN_NAME(conv_find_lines)(FNN_PLANE_ROWS, size, step, t, line, b);
    if (count <= FNN_LANES) {
        FNN_NAME(conv_same_vector)(size, step, 1, 1, count, t, b, kernel, bias, c, 0);
        return;
    }
    FNN_NAME(conv_same_vector)(size, step, 1, 0, FNN_LANES, t, b, kernel, bias, c, 0);
    for (ptrdiff_t v = FNN_LANES; v + FNN_LANES + size / 2 <= count; v += FNN_LANES)
        FNN_NAME(conv_same_vector)(size, step, 0, 0, FNN_LANES, t, b, kernel, bias, c, v);
    FNN_NAME(conv_same_vector)(size, step, 0, 1, FNN_LANES, t, b, kernel, bias, c, count - FNN_LANES);
}

/* A strip of one form, not in line. */
#define FNN_STRIP(name, call)                                                                              \
    FNN_OUTLINE void FNN_NAME(name)(const fnn_conv_plane *t, const FNN_VEC *weights, ptrdiff_t line) { call; }
FNN_STRIP(conv_line, FNN_NAME(conv_plane_rows)(1, 0, t, weights, line))
FNN_STRIP(conv_strip, FNN_NAME(conv_plane_rows)(FNN_PLANE_ROWS, 0, t, weights, line))
FNN_STRIP(conv_strip_square_3, FNN_NAME(conv_plane_rows)(FNN_PLANE_ROWS, 1, t, weights, line))
FNN_STRIP(conv_strip_same_3, FNN_NAME(conv_same_rows)(3, 1, t, weights, line))
FNN_STRIP(conv_strip_same_5, FNN_NAME(conv_same_rows)(5, 1, t, weights, line))
FNN_STRIP(conv_strip_half_3, FNN_NAME(conv_same_rows)(3, 2, t, weights, line))
#undef FNN_STRIP

/* The plane in strips of lines. Where lines are left over the last one starts earlier and writes some again. */
FNN_STATIC void FNN_NAME(conv_run_plane)(const fnn_conv_plane *t)
{
    typedef void (*function)(const fnn_conv_plane *, const FNN_VEC *, ptrdiff_t);
    static const function forms[] = {FNN_NAME(conv_strip), FNN_NAME(conv_strip_square_3), FNN_NAME(conv_strip_same_3),
                                     FNN_NAME(conv_strip_same_5), FNN_NAME(conv_strip_half_3)};
    const ptrdiff_t rows = t->lines < FNN_PLANE_ROWS ? 1 : FNN_PLANE_ROWS;
    const function strip = rows == 1 ? FNN_NAME(conv_line) : forms[t->form];
    FNN_VEC weights[FNN_PLANE_TERMS];
    for (ptrdiff_t p = 0; p < t->k; p++)
        weights[p] = FNN_NAME(splat)(((const FNN_REAL *)t->a)[p]);
    for (ptrdiff_t y = 0; y < t->lines; y += rows)
        strip(t, weights, fnn_min(y, t->lines - rows));
}

/* acc[r * size + s] += the products of one vector in each of `rows` lines of a and what is around it in b. */
FNN_INLINE void FNN_NAME(conv_dot_vector)(int rows, int size, int step, int left, int right, ptrdiff_t count,
                                          const fnn_conv_plane *t, const FNN_REAL *a, const FNN_REAL *const *b,
                                          ptrdiff_t at, FNN_VEC *acc)
{
    FNN_VEC av[FNN_PLANE_ROWS], x[5];
    FNN_UNROLL for (int i = 0; i < rows; i++)
        av[i] = count == FNN_LANES ? FNN_NAME(load)(a + i * t->c_line + at)
                                   : FNN_NAME(load_part)(a + i * t->c_line + at, count);
    FNN_UNROLL for (int y = 0; y < (rows - 1) * step + size; y++) {
        FNN_NAME(conv_taps)(size, step, left, right, count, t, b[y], at, x);
        FNN_UNROLL for (int s = 0; s < size; s++) {
            FNN_KEEP(x[s]);
            FNN_UNROLL for (int i = 0; i < rows; i++)
                if (y - i * step >= 0 && y - i * step < size)
                    acc[(y - i * step) * size + s] += av[i] * x[s];
        }
    }
}

FNN_INLINE void FNN_NAME(conv_dot_rows)(int rows, int size, int step, const fnn_conv_plane *t, ptrdiff_t line, FNN_VEC *acc)
{
    const ptrdiff_t count = t->count;
    const FNN_REAL *a = (const FNN_REAL *)t->a + line * t->c_line, *b[2 * FNN_PLANE_ROWS + 4];
    ptrdiff_t v = FNN_LANES;
    FNN_NAME(conv_find_lines)(rows, size, step, t, line, b);
    if (count <= FNN_LANES) {
        FNN_NAME(conv_dot_vector)(rows, size, step, 1, 1, count, t, a, b, 0, acc);
        return;
    }
    FNN_NAME(conv_dot_vector)(rows, size, step, 1, 0, FNN_LANES, t, a, b, 0, acc);
    for (; v + FNN_LANES < count; v += FNN_LANES)
        FNN_NAME(conv_dot_vector)(rows, size, step, 0, 0, FNN_LANES, t, a, b, v, acc);
    FNN_NAME(conv_dot_vector)(rows, size, step, 0, 1, count - v, t, a, b, v, acc);
}

#define FNN_SAME_DOTS(name, size, step)                                                                          \
    FNN_OUTLINE void FNN_NAME(name)(const fnn_conv_plane *t, ptrdiff_t first, ptrdiff_t end, FNN_REAL *sums)     \
    {                                                                                                            \
        FNN_VEC acc[size * size];                                                                                \
        FNN_UNROLL for (int q = 0; q < size * size; q++)                                                         \
            acc[q] = FNN_NAME(splat)(0);                                                                         \
        for (; first + FNN_PLANE_ROWS <= end; first += FNN_PLANE_ROWS)                                           \
            FNN_NAME(conv_dot_rows)(FNN_PLANE_ROWS, size, step, t, first, acc);                                  \
        for (; first < end; first++)                                                                             \
            FNN_NAME(conv_dot_rows)(1, size, step, t, first, acc);                                               \
        FNN_NAME(conv_sum_lanes)(size * size, acc, sums);                                                        \
    }
FNN_SAME_DOTS(conv_same_dots_3, 3, 1)
FNN_SAME_DOTS(conv_same_dots_5, 5, 1)
FNN_SAME_DOTS(conv_half_dots_3, 3, 2)
#undef FNN_SAME_DOTS

/* sums[p] += the sum of A[y, x] B[y * b_line + b_at[p] + x] over the lines y of the plane, `most` of them in registers;
 * A has the lines of C. */
FNN_STATIC void FNN_NAME(conv_plane_dots)(const fnn_conv_plane *t, ptrdiff_t most, FNN_REAL *sums)
{
    FNN_REAL some[25 + FNN_LANES];
    for (ptrdiff_t line = 0; line < t->lines; line += most) {
        const ptrdiff_t end = fnn_min(line + most, t->lines);
        if (t->form == FNN_PLANE_ANY || t->form == FNN_PLANE_SQUARE_3) {
            const fnn_conv_lines block = {1, end - line, t->count, 0, t->c_line, 0, t->b_line};
            FNN_NAME(conv_dots)(&block, (const FNN_REAL *)t->a + line * t->c_line, 0, 1,
                                (const FNN_REAL *)t->b + line * t->b_line, t->b_at, t->k, sums, 0);
            continue;
        }
        if (t->form == FNN_PLANE_SAME_3)
            FNN_NAME(conv_same_dots_3)(t, line, end, some);
        else if (t->form == FNN_PLANE_HALF_3)
            FNN_NAME(conv_half_dots_3)(t, line, end, some);
        else
            FNN_NAME(conv_same_dots_5)(t, line, end, some);
        for (ptrdiff_t p = 0; p < t->k; p++)
            sums[p] += some[p];
    }
}

/* A vector of two lines, `count` lanes from `at` on, of the gradient of a plane's result: the numbers of the plane's
 * gradient that meet them, `rest` being in their lines from there on; the odd line may be NULL. Kernels are in `k`. */
FNN_INLINE void FNN_NAME(conv_half_back_vector)(int right, ptrdiff_t count, const FNN_REAL *const *g, ptrdiff_t at,
                                                const FNN_VEC *k, FNN_REAL *even_line, FNN_REAL *odd_line, ptrdiff_t rest)
{
    FNN_VEC here[2], next[2];
    FNN_UNROLL for (int i = 0; i < 2; i++) {
        here[i] = count == FNN_LANES ? FNN_NAME(load)(g[i] + at) : FNN_NAME(load_part)(g[i] + at, count);
        next[i] = right ? FNN_NAME(shift_down)(here[i], 1) : FNN_NAME(load)(g[i] + at + 1);
    }
    FNN_VEC even = here[0] * k[4], odd = here[0] * k[5] + next[0] * k[3];
    const ptrdiff_t some = fnn_min(rest, FNN_LANES), more = fnn_min(fnn_max(rest - FNN_LANES, 0), FNN_LANES);
    FNN_NAME(put)(even_line, FNN_NAME(mixed_low)(even, odd), some, 0);
    FNN_NAME(put)(even_line + FNN_LANES, FNN_NAME(mixed_high)(even, odd), more, 0);
    if (odd_line == NULL)
        return;
    even = here[0] * k[7] + here[1] * k[1];
    odd = (here[0] * k[8] + here[1] * k[2]) + (next[0] * k[6] + next[1] * k[0]);
    FNN_NAME(put)(odd_line, FNN_NAME(mixed_low)(even, odd), some, 0);
    FNN_NAME(put)(odd_line + FNN_LANES, FNN_NAME(mixed_high)(even, odd), more, 0);
}

/* The gradient of a plane of FNN_PLANE_HALF_3: C is the plane, with `count` numbers in a line, B the gradient of its
 * result. */
FNN_STATIC void FNN_NAME(conv_half_back)(const fnn_conv_plane *t)
{
    const ptrdiff_t outputs = t->b_line, last = fnn_max(outputs - FNN_LANES, 0);
    FNN_VEC k[9];
    FNN_UNROLL for (int p = 0; p < 9; p++)
        k[p] = FNN_NAME(splat)(((const FNN_REAL *)t->a)[p]);
    for (ptrdiff_t y = 0; y < t->b_lines; y++) {
        const FNN_REAL *line = (const FNN_REAL *)t->b + y * outputs;
        const FNN_REAL *g[2] = {line, y + 1 < t->b_lines ? line + outputs : (const FNN_REAL *)t->zeros};
        FNN_REAL *even = (FNN_REAL *)t->c + 2 * y * t->c_line, *odd = 2 * y + 1 < t->lines ? even + t->c_line : NULL;
        for (ptrdiff_t v = 0; v < last; v += FNN_LANES)
            FNN_NAME(conv_half_back_vector)(0, FNN_LANES, g, v, k, even + 2 * v, odd ? odd + 2 * v : NULL, 2 * FNN_LANES);
        FNN_NAME(conv_half_back_vector)(1, fnn_min(outputs, FNN_LANES), g, last, k, even + 2 * last,
                                        odd ? odd + 2 * last : NULL, t->count - 2 * last);
    }
}

/* target[j, i] = source[i, j] for FNN_LANES or fewer rows i and columns j. */
FNN_OUTLINE void FNN_NAME(conv_transpose_block)(FNN_REAL *target, ptrdiff_t target_rs, const FNN_REAL *source,
                                                ptrdiff_t source_rs, ptrdiff_t rows, ptrdiff_t cols)
{
    const int whole = rows == FNN_LANES && cols == FNN_LANES;
    FNN_VEC r[FNN_LANES];
    if (whole) {
        FNN_UNROLL for (int i = 0; i < FNN_LANES; i++)
            r[i] = FNN_NAME(load)(source + i * source_rs);
    } else {
        FNN_UNROLL for (int i = 0; i < FNN_LANES; i++)
            r[i] = i < rows ? FNN_NAME(load_part)(source + i * source_rs, cols) : FNN_NAME(splat)(0);
    }
    FNN_NAME(exchange)(r, FNN_LANES, 1);
    FNN_NAME(exchange)(r, FNN_LANES, 2);
    FNN_NAME(exchange)(r, FNN_LANES, 4);
    FNN_NAME(exchange)(r, FNN_LANES, 8);
    if (whole) {
        FNN_UNROLL for (int q = 0; q < FNN_LANES; q++)
            FNN_NAME(store)(target + q * target_rs, r[q]);
    } else {
        FNN_UNROLL for (int q = 0; q < FNN_LANES; q++)
            if (q < cols)
                FNN_NAME(store_part)(target + q * target_rs, r[q], rows);
    }
}

/* target[j, i] = source[i, j]: a few long lines at a time of the one whose lines are further apart. They may be far
 * from the cache: the processor prefetches them, and vectors of long ones keep within a cache line where they can. */
FNN_STATIC void FNN_NAME(conv_transpose)(FNN_REAL *target, ptrdiff_t target_rs, const FNN_REAL *source,
                                         ptrdiff_t source_rs, ptrdiff_t rows, ptrdiff_t cols)
{
    const int by_rows = target_rs > source_rs;
    const ptrdiff_t lines = by_rows ? cols : rows, length = by_rows ? rows : cols;
    const ptrdiff_t unaligned = (ptrdiff_t)((uintptr_t)(by_rows ? target : source) / sizeof(FNN_REAL) % FNN_LANES);
    const int aligns = length >= 6 * FNN_LANES && (by_rows ? target_rs : source_rs) % FNN_LANES == 0;
    for (ptrdiff_t line = 0; line < lines; line += FNN_LANES) {
        const ptrdiff_t count = fnn_min(FNN_LANES, lines - line);
        for (ptrdiff_t at = 0, step; at < length; at += step) {
            step = fnn_min(FNN_LANES - (aligns && at == 0 ? unaligned : 0), length - at);
            if (by_rows)
                FNN_NAME(conv_transpose_block)(target + line * target_rs + at, target_rs,
                                               source + at * source_rs + line, source_rs, step, count);
            else
                FNN_NAME(conv_transpose_block)(target + at * target_rs + line, target_rs,
                                               source + line * source_rs + at, source_rs, count, step);
        }
    }
}

#undef FNN_VEC
#undef FNN_REAL
#undef FNN_REAL_BITS
#undef FNN_LANES
#undef FNN_NAME
