/* Included twice by maxpool.h. */

/* The pool of one window of any size at x. */
FNN_STATIC void FNN_NAME(pool_window)(int kind, const fnn_windows *w, const FNN_REAL *x, ptrdiff_t first, FNN_REAL *y,
                                      int64_t *index)
{
    FNN_REAL sum = 0;
    ptrdiff_t at = 0;
    for (ptrdiff_t r = 0; r < w->rows; r++) {
        for (ptrdiff_t s = 0; s < w->columns; s++) {
            const FNN_REAL value = x[r * w->line + s], best = x[at];
            at = !(value <= best) & (best == best) ? r * w->line + s : at;
            sum += value;
        }
    }
    *y = kind == FNN_POOL_MEAN ? sum / (FNN_REAL)w->elements : x[at];
    if (kind == FNN_POOL_MAX_AT)
        *index = first + at;
}

/* The windows one by one. */
FNN_OUTLINE void FNN_NAME(pool_each)(int kind, const fnn_windows *w, const FNN_REAL *x, FNN_REAL *y, int64_t *indices)
{
    fnn_windows at_edge = *w;
    at_edge.columns--;
    for (ptrdiff_t q = 0; q < w->count; q++) {
        const int edge = w->edge && q == 0;
        const ptrdiff_t at = q * w->stride + edge;
        FNN_NAME(pool_window)(kind, edge ? &at_edge : w, x + at, w->first + at, y + q,
                              kind == FNN_POOL_MAX_AT ? indices + q : indices);
    }
}

#if FNN_LANES > 1

#define FNN_VEC FNN_NAME(vec)
#define FNN_MASK FNN_NAME(mask)

/* Every second lane of two vectors, one behind the other. */
#define FNN_EVEN(lane, s) (2 * (lane))
#define FNN_ODD(lane, s) (2 * (lane) + 1)
#define FNN_LANE(lane, s) (lane)
#if defined(__clang__)
#define FNN_SHUFFLE(a, b, lanes) __builtin_shufflevector(a, b, FNN_JOIN(FNN_EACH_, FNN_LANES)(lanes, 0))
#else
#define FNN_SHUFFLE(a, b, lanes) __builtin_shuffle(a, b, (FNN_MASK){FNN_JOIN(FNN_EACH_, FNN_LANES)(lanes, 0)})
#endif

/* What the columns of a window read in one line, for as many windows as there are lanes. */
FNN_INLINE void FNN_NAME(pool_read)(int columns, int stride, const FNN_REAL *x, FNN_VEC *taps)
{
    if (stride == 1) {
        FNN_UNROLL for (int s = 0; s < columns; s++)
            taps[s] = FNN_NAME(load)(x + s);
        return;
    }
    const FNN_VEC low = FNN_NAME(load)(x), high = FNN_NAME(load)(x + FNN_LANES);
    taps[0] = FNN_SHUFFLE(low, high, FNN_EVEN);
    taps[1] = FNN_SHUFFLE(low, high, FNN_ODD);
    if (columns == 3)
        taps[2] = FNN_SHUFFLE(FNN_NAME(load)(x + 1), FNN_NAME(load)(x + FNN_LANES + 1), FNN_ODD);
}

/* The larger of numbers, or the one that comes first. */
FNN_INLINE void FNN_NAME(keep_larger)(FNN_VEC value, FNN_MASK at, FNN_VEC *best, FNN_MASK *best_at)
{
#if FNN_VECTOR_BYTES == 64 && FNN_REAL_BITS == 32
    const __mmask16 larger = _mm512_cmp_ps_mask((__m512)value, (__m512)*best, _CMP_GT_OQ);
    *best = (FNN_VEC)_mm512_mask_mov_ps((__m512)*best, larger, (__m512)value);
    *best_at = (FNN_MASK)_mm512_mask_mov_epi32((__m512i)*best_at, larger, (__m512i)at);
#elif FNN_VECTOR_BYTES == 64
    const __mmask8 larger = _mm512_cmp_pd_mask((__m512d)value, (__m512d)*best, _CMP_GT_OQ);
    *best = (FNN_VEC)_mm512_mask_mov_pd((__m512d)*best, larger, (__m512d)value);
    *best_at = (FNN_MASK)_mm512_mask_mov_epi64((__m512i)*best_at, larger, (__m512i)at);
#else
    const FNN_MASK larger = (FNN_MASK)(value > *best);
    *best = (FNN_VEC)((larger & (FNN_MASK)value) | (~larger & (FNN_MASK)*best));
    *best_at = (larger & at) | (~larger & *best_at);
#endif
}

/* The maxima of as many windows as there are lanes; nothing is read beyond the last of them. With `edge`, the first
 * column of the first window is outside, and the second one counts in its place. Lines are reduced apart, so that none
 * waits for another. Returns the sums: where one is NaN, there may be a NaN in the window, whose maximum is not right. */
FNN_INLINE FNN_VEC FNN_NAME(max_vector)(int kind, int rows, int columns, int stride, int edge, const fnn_windows *w,
                                            const FNN_REAL *x, ptrdiff_t first, FNN_REAL *y, int64_t *indices)
{
    const FNN_MASK lanes = {FNN_JOIN(FNN_EACH_, FNN_LANES)(FNN_LANE, 0)}, zero = lanes - lanes;
    const FNN_MASK outside = (FNN_MASK)(lanes == zero);
    FNN_MASK pool_at = zero, line_at;
    FNN_VEC taps[3], pool = (FNN_VEC)zero, line, sum = (FNN_VEC)zero, of_line;
    FNN_INT at[FNN_LANES];
    FNN_UNROLL for (int r = 0; r < rows; r++) {
        FNN_NAME(pool_read)(columns, stride, x + r * w->line, taps);
        if (edge)
            taps[0] = (FNN_VEC)((outside & (FNN_MASK)taps[1]) | (~outside & (FNN_MASK)taps[0]));
        line = of_line = taps[0];
        line_at = zero + (FNN_INT)(r * w->line) - (edge ? outside : zero);
        FNN_UNROLL for (int s = 1; s < columns; s++) {
            of_line += taps[s];
            FNN_NAME(keep_larger)(taps[s], zero + (FNN_INT)(r * w->line + s), &line, &line_at);
        }
        sum = r ? sum + of_line : of_line;
        if (r == 0)
            pool = line, pool_at = line_at;
        else
            FNN_NAME(keep_larger)(line, line_at, &pool, &pool_at);
    }
    FNN_NAME(store)(y, pool);
    if (kind == FNN_POOL_MAX_AT) {
        pool_at += lanes * stride;
        memcpy(at, &pool_at, sizeof at);
        for (int q = 0; q < FNN_LANES; q++)
            indices[q] = first + at[q];
    }
    return sum;
}

FNN_INLINE void FNN_NAME(mean_vector)(int rows, int columns, int stride, const fnn_windows *w, const FNN_REAL *x,
                                      FNN_REAL *y)
{
    FNN_VEC taps[3], sum = FNN_NAME(splat)(0);
    FNN_UNROLL for (int r = 0; r < rows; r++) {
        FNN_NAME(pool_read)(columns, stride, x + r * w->line, taps);
        FNN_UNROLL for (int s = 0; s < columns; s++)
            sum = r + s ? sum + taps[s] : taps[0];
    }
    FNN_NAME(store)(y, sum / FNN_NAME(splat)((FNN_REAL)w->elements));
}

/* A last vector that is not whole starts earlier, where there is room. */
FNN_INLINE void FNN_NAME(pool_vectors)(int kind, int rows, int columns, int stride, const fnn_windows *w,
                                       const FNN_REAL *x, FNN_REAL *y, int64_t *indices)
{
    const ptrdiff_t n = w->count;
    FNN_VEC sum = FNN_NAME(splat)(0);
    for (ptrdiff_t v = 0; v < n; v += FNN_LANES) {
        const ptrdiff_t i = v + FNN_LANES <= n || n < FNN_LANES ? v : n - FNN_LANES;
        const FNN_REAL *from = x + i * stride;
        const ptrdiff_t first = w->first + i * stride;
        int64_t *at = kind == FNN_POOL_MAX_AT ? indices + i : indices;
        if (kind == FNN_POOL_MEAN)
            FNN_NAME(mean_vector)(rows, columns, stride, w, from, y + i);
        else if (w->edge && i == 0)
            sum += FNN_NAME(max_vector)(kind, rows, columns, stride, 1, w, from, first, y + i, at);
        else
            sum += FNN_NAME(max_vector)(kind, rows, columns, stride, 0, w, from, first, y + i, at);
    }
    if (kind != FNN_POOL_MEAN && FNN_NAME(has_nan)(sum))
        FNN_NAME(pool_each)(kind, w, x, y, indices);
}

#define FNN_WINDOWS(kind, rows, columns, stride)                                                                    \
    static void FNN_NAME(pool_##kind##_##rows##x##columns##_##stride)(const fnn_windows *w, const FNN_REAL *x,      \
                                                                    FNN_REAL *y, int64_t *indices)                  \
    {                                                                                                               \
        FNN_NAME(pool_vectors)(FNN_POOL_##kind, rows, columns, stride, w, x, y, indices);                           \
    }
#define FNN_WINDOWS_OF_ROWS(kind, rows) \
    FNN_WINDOWS(kind, rows, 2, 1) FNN_WINDOWS(kind, rows, 2, 2) \
    FNN_WINDOWS(kind, rows, 3, 1) FNN_WINDOWS(kind, rows, 3, 2)
#define FNN_WINDOWS_OF(kind) FNN_WINDOWS_OF_ROWS(kind, 1) FNN_WINDOWS_OF_ROWS(kind, 2) FNN_WINDOWS_OF_ROWS(kind, 3)
FNN_WINDOWS_OF(MEAN)
FNN_WINDOWS_OF(MAX)
FNN_WINDOWS_OF(MAX_AT)
#undef FNN_WINDOWS
#undef FNN_WINDOWS_OF_ROWS
#undef FNN_WINDOWS_OF

#endif

/* The pools of windows of which x is the first element. */
FNN_STATIC void FNN_NAME(pool_windows)(int kind, const fnn_windows *w, const FNN_REAL *x, FNN_REAL *y,
                                       int64_t *indices)
{
#if FNN_LANES > 1
    typedef void (*function)(const fnn_windows *, const FNN_REAL *, FNN_REAL *, int64_t *);
#define FNN_WINDOWS(kind, rows)                                                                     \
    {                                                                                               \
        {FNN_NAME(pool_##kind##_##rows##x2_1), FNN_NAME(pool_##kind##_##rows##x2_2)},               \
        {FNN_NAME(pool_##kind##_##rows##x3_1), FNN_NAME(pool_##kind##_##rows##x3_2)},               \
    }
#define FNN_WINDOWS_OF(kind) {FNN_WINDOWS(kind, 1), FNN_WINDOWS(kind, 2), FNN_WINDOWS(kind, 3)}
    static const function loops[3][3][2][2] = {FNN_WINDOWS_OF(MEAN), FNN_WINDOWS_OF(MAX), FNN_WINDOWS_OF(MAX_AT)};
#undef FNN_WINDOWS
#undef FNN_WINDOWS_OF
    if (w->room >= FNN_LANES) {
        loops[kind][w->rows - 1][w->columns - 2][w->stride - 1](w, x, y, indices);
        return;
    }
#endif
    FNN_NAME(pool_each)(kind, w, x, y, indices);
}

#undef FNN_VEC
#undef FNN_MASK
#undef FNN_EVEN
#undef FNN_ODD
#undef FNN_LANE
#undef FNN_SHUFFLE
#undef FNN_REAL
#undef FNN_INT
#undef FNN_REAL_BITS
#undef FNN_LANES
#undef FNN_NAME
