/* Included twice by windows.h. */

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

/* All windows one by one. */
FNN_STATIC void FNN_NAME(pool_each)(int kind, const fnn_windows *w, const FNN_REAL *x, FNN_REAL *y, int64_t *indices)
{
    for (ptrdiff_t line = 0; line < w->lines; line++) {
        for (ptrdiff_t q = 0; q < w->count; q++) {
            const int is_first = q == 0, is_last = q == w->count - 1;
            const ptrdiff_t left = is_first ? w->left : 0, right = is_last ? w->right : 0;
            const ptrdiff_t at = line * w->step + q * w->stride + left, to = line * w->count + q;
            fnn_windows one = *w;
            one.columns -= left + right;
            one.elements = is_first ? w->first_elements : is_last ? w->last_elements : w->elements;
            FNN_NAME(pool_window)(kind, &one, x + at, w->first + at, y + to,
                                  kind == FNN_POOL_MAX_AT ? indices + to : indices);
        }
    }
}

#if FNN_LANES > 1

#define FNN_VEC FNN_NAME(vec)
#define FNN_MASK FNN_NAME(mask)

/* Every second lane of two vectors, one behind the other. */
#define FNN_EVEN(lane, s) (2 * (lane))
#define FNN_ODD(lane, s) (2 * (lane) + 1)
#define FNN_LANE(lane, s) (lane)
/* Each lane of the first half twice. */
#define FNN_HALF(lane, s) ((lane) / 2)
/* One lane further. */
#define FNN_NEXT(lane, s) ((lane) + 1)
/* The lanes of two vectors in turn: the first half and the second one. */
#define FNN_MIX_LOW(lane, s) ((lane) / 2 + (lane) % 2 * FNN_LANES)
#define FNN_MIX_HIGH(lane, s) ((lane) / 2 + (lane) % 2 * FNN_LANES + FNN_LANES / 2)
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

FNN_INLINE FNN_VEC FNN_NAME(pool_select)(FNN_MASK mask, FNN_VEC a, FNN_VEC b)
{
    return (FNN_VEC)((mask & (FNN_MASK)a) | (~mask & (FNN_MASK)b));
}

/* The larger of two numbers, b where they are equal. */
FNN_INLINE FNN_VEC FNN_NAME(pool_larger)(FNN_VEC a, FNN_VEC b)
{
#if FNN_VECTOR_BYTES == 64 && FNN_REAL_BITS == 32
    return (FNN_VEC)_mm512_max_ps((__m512)a, (__m512)b);
#elif FNN_VECTOR_BYTES == 64
    return (FNN_VEC)_mm512_max_pd((__m512d)a, (__m512d)b);
#elif FNN_VECTOR_BYTES == 32 && FNN_REAL_BITS == 32
    return (FNN_VEC)_mm256_max_ps((__m256)a, (__m256)b);
#elif FNN_VECTOR_BYTES == 32
    return (FNN_VEC)_mm256_max_pd((__m256d)a, (__m256d)b);
#elif defined(__SSE2__) && FNN_REAL_BITS == 32
    return (FNN_VEC)_mm_max_ps((__m128)a, (__m128)b);
#elif defined(__SSE2__)
    return (FNN_VEC)_mm_max_pd((__m128d)a, (__m128d)b);
#else
    return FNN_NAME(larger)(a, b);
#endif
}

/* The larger of numbers, or the one that comes first; with `careful`, a NaN is larger than any number. */
FNN_INLINE void FNN_NAME(keep_larger)(int kind, int careful, FNN_VEC value, FNN_MASK at, FNN_VEC *best,
                                      FNN_MASK *best_at)
{
    FNN_MASK larger;
    if (kind == FNN_POOL_MEAN)
        return;
    if (kind == FNN_POOL_MAX && !careful) {
        *best = FNN_NAME(pool_larger)(value, *best);
        return;
    }
#if FNN_VECTOR_BYTES == 64 && FNN_REAL_BITS == 32
    if (!careful) {
        const __mmask16 above = _mm512_cmp_ps_mask((__m512)value, (__m512)*best, _CMP_GT_OQ);
        *best = (FNN_VEC)_mm512_mask_mov_ps((__m512)*best, above, (__m512)value);
        *best_at = (FNN_MASK)_mm512_mask_mov_epi32((__m512i)*best_at, above, (__m512i)at);
        return;
    }
#elif FNN_VECTOR_BYTES == 64
    if (!careful) {
        const __mmask8 above = _mm512_cmp_pd_mask((__m512d)value, (__m512d)*best, _CMP_GT_OQ);
        *best = (FNN_VEC)_mm512_mask_mov_pd((__m512d)*best, above, (__m512d)value);
        *best_at = (FNN_MASK)_mm512_mask_mov_epi64((__m512i)*best_at, above, (__m512i)at);
        return;
    }
#endif
    larger = (FNN_MASK)(value > *best);
    if (careful)
        larger = ~(FNN_MASK)(value <= *best) & (FNN_MASK)(*best == *best);
    *best = FNN_NAME(pool_select)(larger, value, *best);
    *best_at = (larger & at) | (~larger & *best_at);
}

/* The maxima of a line of windows, and where they are. */
typedef struct {
    FNN_VEC best;
    FNN_MASK at;
} FNN_NAME(pooled_line);

/* As many windows as there are lanes, `before` windows behind the first of their line; nothing is read beyond the last
 * of them. At an edge, taps outside of the image are what changes no result. The sum of what the windows read: NaN
 * where one of that is. Lines are compared apart, so that none waits for another. The last one goes to `shared`, if that
 * is not NULL, and the first one comes from there if it `is_shared` with the windows above. */
FNN_INLINE FNN_VEC FNN_NAME(pool_vector)(int kind, int careful, int rows, int columns, int stride, int edge,
                                         const fnn_windows *w, ptrdiff_t before, const FNN_REAL *x, ptrdiff_t first,
                                         FNN_REAL *y, int64_t *indices, FNN_NAME(pooled_line) *shared, int is_shared)
{
    const FNN_MASK lanes = {FNN_JOIN(FNN_EACH_, FNN_LANES)(FNN_LANE, 0)}, none = lanes - lanes;
    const FNN_VEC neutral = FNN_NAME(splat)(kind == FNN_POOL_MEAN ? (FNN_REAL)-0.0 : -(FNN_REAL)INFINITY);
    const FNN_MASK is_first = lanes == (FNN_INT)-before, is_last = lanes == (FNN_INT)(w->count - 1 - before);
    FNN_MASK first_at = none, pool_at = none, line_at, outside[3] = {{0}};
    FNN_VEC taps[3] = {{0}}, pool = (FNN_VEC)none, sum = pool, line;
    FNN_VEC elements = FNN_NAME(splat)((FNN_REAL)w->elements);
    FNN_INT at[FNN_LANES];
    if (edge) {
        FNN_UNROLL for (int s = 0; s < columns; s++)
            outside[s] = (is_first & -(FNN_INT)(s < w->left)) | (is_last & -(FNN_INT)(s >= columns - w->right));
        elements = FNN_NAME(pool_select)(is_first, FNN_NAME(splat)((FNN_REAL)w->first_elements), elements);
        elements = FNN_NAME(pool_select)(is_last, FNN_NAME(splat)((FNN_REAL)w->last_elements), elements);
        first_at = is_first & (FNN_INT)w->left;
    }
    FNN_UNROLL for (int r = 0; r < rows; r++) {
        if (r == 0 && is_shared) {
            pool = shared->best, pool_at = shared->at - (FNN_INT)w->step;
            continue;
        }
        FNN_NAME(pool_read)(columns, stride, x + r * w->line, taps);
        FNN_UNROLL for (int s = 0; s < columns; s++) {
            if (edge)
                taps[s] = FNN_NAME(pool_select)(outside[s], neutral, taps[s]);
            sum = r + s ? sum + taps[s] : taps[0];
        }
        line = taps[0];
        line_at = first_at + (FNN_INT)(r * w->line);
        FNN_UNROLL for (int s = 1; s < columns; s++)
            FNN_NAME(keep_larger)(kind, careful, taps[s], none + (FNN_INT)(r * w->line + s), &line, &line_at);
        if (r == 0)
            pool = line, pool_at = line_at;
        else
            FNN_NAME(keep_larger)(kind, careful, line, line_at, &pool, &pool_at);
        if (r == rows - 1 && shared != NULL)
            shared->best = line, shared->at = line_at;
    }
    FNN_NAME(store)(y, kind == FNN_POOL_MEAN ? sum / elements : pool);
    if (kind == FNN_POOL_MAX_AT) {
        pool_at += lanes * stride;
        memcpy(at, &pool_at, sizeof at);
        for (int q = 0; q < FNN_LANES; q++)
            indices[q] = first + at[q];
    }
    return sum;
}

/* A last vector of a line that is not whole starts earlier, where there is room. Maxima of three lines share one with the
 * windows above. */
FNN_INLINE FNN_VEC FNN_NAME(pool_vectors)(int kind, int careful, int rows, int columns, int stride, int edges,
                                          const fnn_windows *windows, const FNN_REAL *x, FNN_REAL *y, int64_t *indices)
{
    enum { MOST = 32 }; /* vectors in a line that is shared */
    const fnn_windows own = *windows, *const w = rows == 3 ? &own : windows; /* which no store of an index can change */
    const ptrdiff_t n = w->count;
    const int shares = rows == 3 && kind != FNN_POOL_MEAN && !careful && w->step == 2 * w->line && n <= MOST * FNN_LANES;
    FNN_NAME(pooled_line) lines[MOST];
    FNN_VEC sum = FNN_NAME(splat)(0);
    for (ptrdiff_t line = 0; line < w->lines; line++) {
        for (ptrdiff_t v = 0; v < n; v += FNN_LANES) {
            const ptrdiff_t i = v + FNN_LANES <= n || n < FNN_LANES ? v : n - FNN_LANES;
            const ptrdiff_t at = line * w->step + i * stride;
            int64_t *index = kind == FNN_POOL_MAX_AT ? indices + line * n + i : indices;
            FNN_NAME(pooled_line) *shared = shares ? lines + v / FNN_LANES : NULL;
            if (edges && ((w->left && i == 0) || (w->right && i + FNN_LANES >= n)))
                sum += FNN_NAME(pool_vector)(kind, careful, rows, columns, stride, 1, w, i, x + at, w->first + at,
                                             y + line * n + i, index, shared, shares && line > 0);
            else
                sum += FNN_NAME(pool_vector)(kind, careful, rows, columns, stride, 0, w, i, x + at, w->first + at,
                                             y + line * n + i, index, shared, shares && line > 0);
        }
    }
    return sum;
}

/* Where there is a NaN. */
FNN_OUTLINE void FNN_NAME(pool_carefully)(int kind, const fnn_windows *w, const FNN_REAL *x, FNN_REAL *y,
                                          int64_t *indices)
{
    FNN_NAME(pool_vectors)(kind, 1, (int)w->rows, (int)w->columns, (int)w->stride, 1, w, x, y, indices);
}

#define FNN_WINDOWS(kind, rows, columns, stride)                                                                    \
    static void FNN_NAME(pool_##kind##_##rows##x##columns##_##stride)(const fnn_windows *w, const FNN_REAL *x,      \
                                                                    FNN_REAL *y, int64_t *indices)                  \
    {                                                                                                               \
        const FNN_VEC sum = w->left || w->right                                                                     \
            ? FNN_NAME(pool_vectors)(FNN_POOL_##kind, 0, rows, columns, stride, 1, w, x, y, indices)                \
            : FNN_NAME(pool_vectors)(FNN_POOL_##kind, 0, rows, columns, stride, 0, w, x, y, indices);               \
        if (FNN_POOL_##kind != FNN_POOL_MEAN && FNN_NAME(has_nan)(sum))                                             \
            FNN_NAME(pool_carefully)(FNN_POOL_##kind, w, x, y, indices);                                            \
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

/* Narrower vectors of float64 are slower than one number after the other. */
#define FNN_SPREADS (FNN_LANES > 1 && (FNN_REAL_BITS == 32 || FNN_VECTOR_BYTES == 64))

#if FNN_SPREADS

/* Where the maxima of as many windows as there are lanes are behind `start`, in fewer bits: right where `far`, to which
 * they are added bit by bit, has none behind these. */
FNN_INLINE FNN_MASK FNN_NAME(pool_narrow)(const int64_t *indices, int64_t start, fnn_vec_positions *far)
{
    enum { EACH = FNN_VECTOR_BYTES / 8 };
    fnn_vec_positions part[FNN_LANES / EACH];
    FNN_INT lanes[FNN_LANES];
    FNN_MASK at;
    FNN_UNROLL for (int i = 0; i < FNN_LANES / EACH; i++) {
        memcpy(part + i, indices + i * EACH, sizeof *part);
        part[i] -= start;
        *far |= part[i];
    }
#if FNN_REAL_BITS == 64
    (void)lanes;
    at = part[0];
#elif FNN_VECTOR_BYTES == 64
    (void)lanes;
    at = (FNN_MASK)_mm512_castsi256_si512(_mm512_cvtepi64_epi32((__m512i)part[0]));
    at = (FNN_MASK)_mm512_inserti64x4((__m512i)at, _mm512_cvtepi64_epi32((__m512i)part[1]), 1);
#else
    FNN_UNROLL for (int q = 0; q < FNN_LANES; q++)
        lanes[q] = (FNN_INT)part[q / EACH][q % EACH];
    memcpy(&at, lanes, sizeof at);
#endif
    return at;
}

/* Every second number of a line, and those behind them. */
FNN_INLINE void FNN_NAME(pool_store_mixed)(FNN_REAL *x, FNN_VEC even, FNN_VEC odd)
{
    FNN_NAME(store)(x, FNN_SHUFFLE(even, odd, FNN_MIX_LOW));
    FNN_NAME(store)(x + FNN_LANES, FNN_SHUFFLE(even, odd, FNN_MIX_HIGH));
}

/* Whether no window's maximum was lost or far away. */
FNN_INLINE int FNN_NAME(pool_found_all)(FNN_MASK lost, fnn_vec_positions far)
{
    int64_t bits = 0;
    for (int q = 0; q < FNN_VECTOR_BYTES / 8; q++)
        bits |= far[q] >> 31;
    for (int q = 0; q < FNN_LANES; q++)
        bits |= lost[q];
    return bits == 0;
}

#endif

/* Windows of 2 x 2 that are spread together; with AVX-512 those whose lines are a vector. */
#define FNN_SPREAD (FNN_VECTOR_BYTES == 64 ? FNN_LANES / 2 : FNN_LANES)

/* Whether vectors help with so many windows in a line: a last one that is not whole starts earlier, and does some twice. */
FNN_STATIC int FNN_NAME(pool_fits_spread)(ptrdiff_t count)
{
    const ptrdiff_t done = (count + FNN_SPREAD - 1) / FNN_SPREAD * FNN_SPREAD;
    return FNN_SPREADS && count >= FNN_SPREAD && 3 * count >= 2 * done;
}

#if FNN_VECTOR_BYTES == 64

/* x[0 .. FNN_LANES) from windows of which each has two numbers, with the maximum behind x at `at`; which are maxima. */
FNN_INLINE unsigned FNN_NAME(pool_spread_line)(FNN_MASK at, FNN_VEC value, ptrdiff_t line, FNN_REAL *x)
{
    const FNN_MASK lanes = {FNN_JOIN(FNN_EACH_, FNN_LANES)(FNN_LANE, 0)}, here = lanes + (FNN_INT)line;
#if FNN_REAL_BITS == 32
    const __mmask16 is_at = _mm512_cmpeq_epi32_mask((__m512i)at, (__m512i)here);
    FNN_NAME(store)(x + line, (FNN_VEC)_mm512_maskz_mov_ps(is_at, (__m512)value));
#else
    const __mmask8 is_at = _mm512_cmpeq_epi64_mask((__m512i)at, (__m512i)here);
    FNN_NAME(store)(x + line, (FNN_VEC)_mm512_maskz_mov_pd(is_at, (__m512d)value));
#endif
    return is_at;
}

/* What is said of the next function. */
FNN_INLINE int FNN_NAME(pool_spread_pairs)(const FNN_REAL *grad, const int64_t *indices, int64_t first, ptrdiff_t line,
                                           ptrdiff_t lines, ptrdiff_t count, FNN_REAL *x)
{
    enum { PAIRS = 0x5555 & ((1 << FNN_LANES) - 1) };
    const FNN_MASK twice = {FNN_JOIN(FNN_EACH_, FNN_LANES)(FNN_HALF, 0)};
    fnn_vec_positions far = {0};
    unsigned lost = 0;
    for (ptrdiff_t p = 0; p < lines; p++) {
        for (ptrdiff_t v = 0; v < count; v += FNN_SPREAD) {
            const ptrdiff_t q = v + FNN_SPREAD <= count ? v : count - FNN_SPREAD, from = p * count + q;
            const ptrdiff_t to = 2 * (p * line + q);
#if FNN_REAL_BITS == 32
            const __m512i behind = _mm512_loadu_si512(indices + from) - _mm512_set1_epi64(first + to);
            const __m512i narrow = _mm512_castsi256_si512(_mm512_cvtepi64_epi32(behind));
            const __m512 grads = _mm512_castps256_ps512(_mm256_loadu_ps(grad + from));
            const FNN_MASK at = (FNN_MASK)_mm512_permutexvar_epi32((__m512i)twice, narrow);
            const FNN_VEC value = (FNN_VEC)_mm512_permutexvar_ps((__m512i)twice, grads) + FNN_NAME(splat)(0);
            far |= (fnn_vec_positions)behind;
#else
            const __m512i some = _mm512_castsi256_si512(_mm256_loadu_si256((const __m256i *)(indices + from)));
            const __m512d grads = _mm512_castpd256_pd512(_mm256_loadu_pd(grad + from));
            const FNN_MASK at = (FNN_MASK)_mm512_permutexvar_epi64((__m512i)twice, some) - (first + to);
            const FNN_VEC value = (FNN_VEC)_mm512_permutexvar_pd((__m512i)twice, grads) + FNN_NAME(splat)(0);
#endif
            const unsigned found = FNN_NAME(pool_spread_line)(at, value, 0, x + to)
                | FNN_NAME(pool_spread_line)(at, value, line, x + to);
            lost |= ~(found | found >> 1);
        }
    }
    return (lost & PAIRS) == 0 && FNN_NAME(pool_found_all)((FNN_MASK){0}, far);
}

#endif

/* Pairs of lines of a plane from the gradients of windows of 2 x 2, `lines` times `count`, the first of which begins at
 * `first` in its plane; whether all maxima are in their windows. A gradient of -0 becomes 0, as if added. */
FNN_STATIC int FNN_NAME(pool_spread_2x2)(const FNN_REAL *grad, const int64_t *indices, int64_t first, ptrdiff_t line,
                                         ptrdiff_t lines, ptrdiff_t count, FNN_REAL *x)
{
#if FNN_VECTOR_BYTES == 64
    return FNN_NAME(pool_spread_pairs)(grad, indices, first, line, lines, count, x);
#elif FNN_SPREADS
    const FNN_MASK lanes = {FNN_JOIN(FNN_EACH_, FNN_LANES)(FNN_LANE, 0)}, none = lanes - lanes;
    FNN_MASK lost = none;
    fnn_vec_positions far = {0};
    for (ptrdiff_t p = 0; p < lines; p++) {
        for (ptrdiff_t v = 0; v < count; v += FNN_LANES) {
            const ptrdiff_t q = v + FNN_LANES <= count ? v : count - FNN_LANES, from = p * count + q;
            const ptrdiff_t to = 2 * (p * line + q);
            const FNN_MASK at = FNN_NAME(pool_narrow)(indices + from, first + to, &far) - 2 * lanes;
            const FNN_VEC value = FNN_NAME(load)(grad + from) + FNN_NAME(splat)(0);
            FNN_MASK found = none;
            FNN_UNROLL for (int r = 0; r < 2; r++) {
                const FNN_MASK is_even = at == none + (FNN_INT)(r * line);
                const FNN_MASK is_odd = at == none + (FNN_INT)(r * line + 1);
                const FNN_VEC even = (FNN_VEC)(is_even & (FNN_MASK)value), odd = (FNN_VEC)(is_odd & (FNN_MASK)value);
                FNN_NAME(pool_store_mixed)(x + to + r * line, even, odd);
                found |= is_even | is_odd;
            }
            lost |= ~found;
        }
    }
    return FNN_NAME(pool_found_all)(lost, far);
#else
    return (void)grad, (void)indices, (void)first, (void)line, (void)lines, (void)count, (void)x, 0;
#endif
}

#if FNN_REAL_BITS == 32 /* of float64 it would be slower, from memory, than one number after the other */

/* A plane of 2 * lines times 2 * count numbers from the gradients of windows of 3 x 3 around every second number of every
 * second line; whether all maxima are in their windows and in the plane. The terms of each sum are added window by window.
 * Nothing is done where vectors do not help, or no whole one is in a line. */
FNN_STATIC int FNN_NAME(pool_spread_3x3)(const FNN_REAL *grad, const int64_t *indices, ptrdiff_t lines, ptrdiff_t count,
                                         FNN_REAL *x)
{
#if FNN_SPREADS
    enum { MOST = 32 }; /* vectors in a line */
    const FNN_MASK lanes = {FNN_JOIN(FNN_EACH_, FNN_LANES)(FNN_LANE, 0)}, none = lanes - lanes;
    const FNN_VEC zero = FNN_NAME(splat)(0);
    const ptrdiff_t line = 2 * count;
    FNN_VEC even_below[MOST], odd_below[MOST]; /* of the line below the present windows: the next ones reach it too */
    FNN_MASK lost = none;
    fnn_vec_positions far = {0};
    if (count < FNN_LANES || count > MOST * FNN_LANES)
        return 0;
    for (ptrdiff_t p = 0; p < lines; p++) {
        for (ptrdiff_t v = 0; v < count; v += FNN_LANES) {
            const ptrdiff_t q = v + FNN_LANES <= count ? v : count - FNN_LANES, from = p * count + q;
            const ptrdiff_t to = 2 * (p * line + q), corner = to - line - 1;
            const FNN_MASK at = FNN_NAME(pool_narrow)(indices + from, corner, &far) - 2 * lanes;
            const FNN_VEC value = FNN_NAME(load)(grad + from) + zero;
            const FNN_MASK inside = q > 0 ? ~none : lanes != none; /* whose left column is in the plane */
            FNN_VEC *even = even_below + v / FNN_LANES, *odd = odd_below + v / FNN_LANES, next_value;
            FNN_MASK found = none, next;
            if (q + FNN_LANES < count) { /* the windows one further, whose left column is the right one of these */
                next = FNN_NAME(pool_narrow)(indices + from + 1, corner + 2, &far) - 2 * lanes;
                next_value = FNN_NAME(load)(grad + from + 1) + zero;
            } else {
                next = FNN_SHUFFLE(at, at, FNN_NEXT); /* behind the last window, where the value is 0 */
                next_value = FNN_SHUFFLE(value, zero, FNN_NEXT);
            }
            FNN_UNROLL for (int r = 0; r < 3; r++) {
                const FNN_MASK left = at == none + (FNN_INT)(r * line), middle = at == none + (FNN_INT)(r * line + 1);
                const FNN_MASK right = at == none + (FNN_INT)(r * line + 2), left_of_next = next == none + (FNN_INT)(r * line);
                const FNN_VEC of_middle = (FNN_VEC)(middle & (FNN_MASK)value);
                const FNN_VEC of_right = (FNN_VEC)(right & (FNN_MASK)value);
                const FNN_VEC of_next = (FNN_VEC)(left_of_next & (FNN_MASK)next_value);
                if (r > 0)
                    *even = of_middle, *odd = of_right + of_next;
                else if (p > 0)
                    *even += of_middle, *odd = (*odd + of_right) + of_next;
                if (r > 0 || p > 0)
                    found |= (left & inside) | middle | right;
                if (r < 2 && (r > 0 || p > 0))
                    FNN_NAME(pool_store_mixed)(x + to + (r - 1) * line, *even, *odd);
            }
            lost |= ~found;
        }
    }
    for (ptrdiff_t v = 0; v < count && lines > 0; v += FNN_LANES) {
        const ptrdiff_t q = v + FNN_LANES <= count ? v : count - FNN_LANES;
        FNN_NAME(pool_store_mixed)(x + (2 * lines - 1) * line + 2 * q, even_below[v / FNN_LANES], odd_below[v / FNN_LANES]);
    }
    return FNN_NAME(pool_found_all)(lost, far);
#else
    return (void)grad, (void)indices, (void)lines, (void)count, (void)x, 0;
#endif
}

#endif

#undef FNN_SPREAD
#undef FNN_SPREADS
#undef FNN_VEC
#undef FNN_MASK
#undef FNN_EVEN
#undef FNN_ODD
#undef FNN_LANE
#undef FNN_HALF
#undef FNN_NEXT
#undef FNN_MIX_LOW
#undef FNN_MIX_HIGH
#undef FNN_SHUFFLE
#undef FNN_REAL
#undef FNN_INT
#undef FNN_REAL_BITS
#undef FNN_LANES
#undef FNN_NAME
