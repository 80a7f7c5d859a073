/* Included twice by winograd.h: the transforms and the products for one dtype. */

#define FNN_VEC FNN_NAME(vec)

/* B^T of six numbers: of their polynomial, what is left after the division by all other points. Or of five, with a stride
 * of 2. */
FNN_INLINE void FNN_NAME(winograd_b)(int stride, const FNN_VEC *d, FNN_VEC *t)
{
    if (stride == 2) {
        t[0] = d[0] - d[2], t[1] = d[1], t[2] = d[2], t[3] = d[4] - d[2], t[4] = d[3];
        return;
    }
    const FNN_REAL p = (FNN_REAL)FNN_WINOGRAD_P, q = (FNN_REAL)FNN_WINOGRAD_Q;
    const FNN_REAL half = (FNN_REAL)0.5, both = (FNN_REAL)2.5;
    const FNN_VEC even_p = d[4] - d[2] * 2, odd_p = (d[3] - d[1] * 2) * p;
    const FNN_VEC even_q = d[4] - d[2] * half, odd_q = (d[3] - d[1] * half) * q;
    t[0] = (d[0] + d[4]) - d[2] * both;
    t[1] = even_p + odd_p;
    t[2] = even_p - odd_p;
    t[3] = even_q + odd_q;
    t[4] = even_q - odd_q;
    t[5] = (d[1] + d[5]) - d[3] * both;
}

/* G of three numbers: their polynomial at the points. */
FNN_INLINE void FNN_NAME(winograd_g)(int stride, const FNN_VEC *g, FNN_VEC *t)
{
    if (stride == 2) {
        t[0] = g[0], t[1] = g[1], t[2] = g[0] + g[2], t[3] = g[2];
        return;
    }
    const FNN_REAL p = (FNN_REAL)FNN_WINOGRAD_P, q = (FNN_REAL)FNN_WINOGRAD_Q, half = (FNN_REAL)0.5;
    const FNN_REAL scale_p = (FNN_REAL)(-2.0 / 3), scale_q = (FNN_REAL)(1.0 / 6);
    const FNN_VEC even_p = (g[0] + g[2] * half) * scale_p, odd_p = g[1] * (p * scale_p);
    const FNN_VEC even_q = (g[0] + g[2] * 2) * scale_q, odd_q = g[1] * (q * scale_q);
    t[0] = g[0];
    t[1] = even_p + odd_p;
    t[2] = even_p - odd_p;
    t[3] = even_q + odd_q;
    t[4] = even_q - odd_q;
    t[5] = g[2];
}

/* A^T of six numbers, or of three. */
FNN_INLINE void FNN_NAME(winograd_a)(int stride, const FNN_VEC *m, FNN_VEC *y)
{
    if (stride == 2) {
        y[0] = m[0] + m[1], y[1] = m[1] + m[2];
        return;
    }
    const FNN_REAL p = (FNN_REAL)FNN_WINOGRAD_P, q = (FNN_REAL)FNN_WINOGRAD_Q, half = (FNN_REAL)0.5;
    const FNN_REAL p3 = (FNN_REAL)FNN_WINOGRAD_P3, q3 = (FNN_REAL)FNN_WINOGRAD_Q3;
    const FNN_VEC even_p = m[1] + m[2], odd_p = m[1] - m[2], even_q = m[3] + m[4], odd_q = m[3] - m[4];
    y[0] = m[0] + even_p + even_q;
    y[1] = odd_p * p + odd_q * q;
    y[2] = even_p * half + even_q * 2;
    y[3] = m[5] + odd_p * p3 + odd_q * q3;
}

/* A of four numbers: the transpose of winograd_a. */
FNN_INLINE void FNN_NAME(winograd_at)(const FNN_VEC *y, FNN_VEC *t)
{
    const FNN_REAL p = (FNN_REAL)FNN_WINOGRAD_P, q = (FNN_REAL)FNN_WINOGRAD_Q, half = (FNN_REAL)0.5;
    const FNN_REAL p3 = (FNN_REAL)FNN_WINOGRAD_P3, q3 = (FNN_REAL)FNN_WINOGRAD_Q3;
    const FNN_VEC even_p = y[0] + y[2] * half, odd_p = y[1] * p + y[3] * p3;
    const FNN_VEC even_q = y[0] + y[2] * 2, odd_q = y[1] * q + y[3] * q3;
    t[0] = y[0];
    t[1] = even_p + odd_p;
    t[2] = even_p - odd_p;
    t[3] = even_q + odd_q;
    t[4] = even_q - odd_q;
    t[5] = y[3];
}

/* G^T of six numbers: the transpose of winograd_g. */
FNN_INLINE void FNN_NAME(winograd_gt)(const FNN_VEC *t, FNN_VEC *g)
{
    const FNN_REAL p = (FNN_REAL)FNN_WINOGRAD_P, q = (FNN_REAL)FNN_WINOGRAD_Q, half = (FNN_REAL)0.5;
    const FNN_REAL scale_p = (FNN_REAL)(-2.0 / 3), scale_q = (FNN_REAL)(1.0 / 6);
    const FNN_VEC even_p = (t[1] + t[2]) * scale_p, odd_p = (t[1] - t[2]) * (p * scale_p);
    const FNN_VEC even_q = (t[3] + t[4]) * scale_q, odd_q = (t[3] - t[4]) * (q * scale_q);
    g[0] = t[0] + even_p + even_q;
    g[1] = odd_p + odd_q;
    g[2] = t[5] + even_p * half + even_q * 2;
}

FNN_INLINE void FNN_NAME(winograd_source_vector)(const fnn_winograd_form *form, FNN_REAL *v, ptrdiff_t plane,
                                                 const FNN_REAL *d, ptrdiff_t line, ptrdiff_t pixel, ptrdiff_t count)
{
    FNN_VEC t[6][6], one[6], two[6];
    FNN_UNROLL for (int j = 0; j < form->in; j++) {
        FNN_UNROLL for (int i = 0; i < form->in; i++) {
            const FNN_REAL *from = d + i * line + j * pixel;
            one[i] = count == FNN_LANES ? FNN_NAME(load)(from) : FNN_NAME(load_part)(from, count);
        }
        FNN_NAME(winograd_b)(form->stride, one, two);
        FNN_UNROLL for (int i = 0; i < form->source; i++)
            t[i][j] = two[i];
    }
    FNN_UNROLL for (int i = 0; i < form->source; i++) {
        FNN_NAME(winograd_b)(form->stride, t[i], two);
        FNN_UNROLL for (int j = 0; j < form->source; j++)
            FNN_NAME(store)(v + (i * form->source + j) * plane, two[j]);
    }
}

FNN_INLINE void FNN_NAME(winograd_source_vectors)(const fnn_winograd_form *form, FNN_REAL *v, ptrdiff_t plane,
                                                  const FNN_REAL *d, ptrdiff_t line, ptrdiff_t pixel, ptrdiff_t count)
{
    for (; count >= FNN_LANES; count -= FNN_LANES, d += FNN_LANES, v += FNN_LANES)
        FNN_NAME(winograd_source_vector)(form, v, plane, d, line, pixel, FNN_LANES);
    if (count > 0)
        FNN_NAME(winograd_source_vector)(form, v, plane, d, line, pixel, count);
}

/* The planes v, in whole vectors, of the tile at d with `count` channels. */
FNN_STATIC void FNN_NAME(winograd_source)(int stride, FNN_REAL *v, ptrdiff_t plane, const FNN_REAL *d, ptrdiff_t line,
                                          ptrdiff_t pixel, ptrdiff_t count)
{
    if (stride == 1)
        FNN_NAME(winograd_source_vectors)(&fnn_winograd_forms[0], v, plane, d, line, pixel, count);
    else
        FNN_NAME(winograd_source_vectors)(&fnn_winograd_forms[1], v, plane, d, line, pixel, count);
}

/* The planes u of some channels and `count` kernels, FNN_LANES each at most: tap t of channel c of kernel i is
 * g[c * g_channel + i * g_kernel + at[t]]; one of these strides is 1, or that between the nine taps. Adds to `sizes`:
 * for each tap the sum of absolute values over channels, and the largest sum of a channel's squares. */
FNN_INLINE void FNN_NAME(winograd_kernels_of)(const fnn_winograd_form *form, FNN_REAL *u, ptrdiff_t plane,
                                              ptrdiff_t u_channel, const FNN_REAL *g, ptrdiff_t g_channel,
                                              ptrdiff_t g_kernel, const ptrdiff_t *at, ptrdiff_t channels,
                                              ptrdiff_t count, FNN_REAL *sizes)
{
    const ptrdiff_t run = g_channel == 9 ? 9 * channels : 9; /* taps that follow each other */
    FNN_VEC t[6][3], one[3], two[6], sums[9], squares, most = FNN_NAME(load)(sizes + 9 * FNN_LANES);
    FNN_REAL lanes[FNN_LANES][9][FNN_LANES]; /* [channel, tap, kernel] */
    for (ptrdiff_t s = 0; g_kernel != 1 && g_channel == 1 && s < 9; s++)
        FNN_NAME(transpose_rows)(lanes[0][s], 9 * FNN_LANES, g + at[s], g_kernel, count, channels, 1, 0);
    for (ptrdiff_t c = 0; g_kernel != 1 && g_channel != 1 && c < 9 * channels; c += run)
        FNN_NAME(transpose_rows)(lanes[c / 9][0], FNN_LANES, g + c / 9 * g_channel, g_kernel, count, run, 1, 0);
    FNN_UNROLL for (int tap = 0; tap < 9; tap++)
        sums[tap] = FNN_NAME(load)(sizes + tap * FNN_LANES);
    for (ptrdiff_t c = 0; c < channels; c++) {
        squares = FNN_NAME(splat)(0);
        FNN_UNROLL for (int j = 0; j < 3; j++) {
            FNN_UNROLL for (int i = 0; i < 3; i++) {
                const ptrdiff_t tap = 3 * i + j;
                one[i] = g_kernel == 1 ? FNN_NAME(load_part)(g + c * g_channel + at[tap], count)
                                       : FNN_NAME(load)(lanes[c][g_channel == 1 ? tap : at[tap]]);
                sums[tap] += FNN_NAME(magnitude)(one[i]);
                squares += one[i] * one[i];
            }
            FNN_NAME(winograd_g)(form->stride, one, two);
            FNN_UNROLL for (int i = 0; i < form->kernels; i++)
                t[i][j] = two[i];
        }
        FNN_UNROLL for (int i = 0; i < form->kernels; i++) {
            FNN_NAME(winograd_g)(form->stride, t[i], two);
            FNN_UNROLL for (int j = 0; j < form->kernels; j++)
                FNN_NAME(store)(u + (i * form->kernels + j) * plane + c * u_channel, two[j]);
        }
        most = FNN_NAME(larger)(squares, most);
    }
    FNN_UNROLL for (int tap = 0; tap < 9; tap++)
        FNN_NAME(store)(sizes + tap * FNN_LANES, sums[tap]);
    FNN_NAME(store)(sizes + 9 * FNN_LANES, most);
}

FNN_STATIC void FNN_NAME(winograd_kernels)(int stride, FNN_REAL *u, ptrdiff_t plane, ptrdiff_t u_channel,
                                           const FNN_REAL *g, ptrdiff_t g_channel, ptrdiff_t g_kernel,
                                           const ptrdiff_t *at, ptrdiff_t channels, ptrdiff_t count, FNN_REAL *sizes)
{
    if (stride == 1)
        FNN_NAME(winograd_kernels_of)(&fnn_winograd_forms[0], u, plane, u_channel, g, g_channel, g_kernel, at, channels,
                                      count, sizes);
    else
        FNN_NAME(winograd_kernels_of)(&fnn_winograd_forms[1], u, plane, u_channel, g, g_channel, g_kernel, at, channels,
                                      count, sizes);
}

/* How much the `sizes` of some kernels of so many channels add to rounding errors: the largest quotient, squared, of a
 * channel's length and the mean absolute weight of a tap. */
FNN_STATIC double FNN_NAME(winograd_spread)(const FNN_REAL *sizes, ptrdiff_t channels, ptrdiff_t kernels)
{
    double most = 0;
    for (ptrdiff_t i = 0; i < kernels; i++) {
        const double square = sizes[9 * FNN_LANES + i];
        double least = sizes[i], total = 0, spread;
        for (int tap = 0; tap < 9; tap++) {
            const double sum = sizes[tap * FNN_LANES + i];
            total += sum;
            least = sum < least ? sum : least;
        }
        least /= (double)channels;
        spread = total == 0 ? 0 : square / (least * least);
        if (!(spread < HUGE_VAL) || (total > 0 && square < FNN_LEAST_SQUARE))
            return HUGE_VAL;
        most = spread > most ? spread : most;
    }
    return most;
}

/* One step towards the sums of vectors: half as many, of lanes that are s apart. */
FNN_INLINE void FNN_NAME(winograd_add_lanes)(FNN_VEC *r, int s)
{
    if (s >= FNN_LANES)
        return;
    FNN_UNROLL for (int i = 0; i < FNN_LANES / (2 * s); i++)
        r[i] = FNN_NAME(upper)(r[2 * i], r[2 * i + 1], s) + FNN_NAME(lower)(r[2 * i], r[2 * i + 1], s);
}

/* The sum of the lanes of each of FNN_LANES vectors. */
FNN_INLINE FNN_VEC FNN_NAME(winograd_sum_lanes)(const FNN_REAL *vectors)
{
    FNN_VEC r[FNN_LANES];
    FNN_UNROLL for (int i = 0; i < FNN_LANES; i++)
        r[i] = FNN_NAME(load)(vectors + i * FNN_LANES);
    FNN_NAME(winograd_add_lanes)(r, 1);
    FNN_NAME(winograd_add_lanes)(r, 2);
    FNN_NAME(winograd_add_lanes)(r, 4);
    FNN_NAME(winograd_add_lanes)(r, 8);
    return r[0];
}

/* The sums of absolute values and of squares over the channels of each of the pixels, `step` apart. */
FNN_STATIC void FNN_NAME(winograd_sizes)(FNN_REAL *sums, FNN_REAL *squares, const FNN_REAL *x, ptrdiff_t step,
                                         ptrdiff_t pixels, ptrdiff_t channels)
{
    FNN_REAL of_lanes[2][FNN_LANES * FNN_LANES] = {{0}};
    for (ptrdiff_t first = 0; first < pixels; first += FNN_LANES) {
        const ptrdiff_t count = fnn_min(pixels - first, FNN_LANES);
        for (ptrdiff_t i = 0; i < count; i++) {
            const FNN_REAL *from = x + (first + i) * step;
            FNN_VEC v, sum = FNN_NAME(splat)(0), square = sum;
            ptrdiff_t c = 0;
            for (; c + FNN_LANES <= channels; c += FNN_LANES) {
                v = FNN_NAME(load)(from + c);
                sum += FNN_NAME(magnitude)(v), square += v * v;
            }
            if (c < channels) {
                v = FNN_NAME(load_part)(from + c, channels - c);
                sum += FNN_NAME(magnitude)(v), square += v * v;
            }
            FNN_NAME(store)(of_lanes[0] + i * FNN_LANES, sum);
            FNN_NAME(store)(of_lanes[1] + i * FNN_LANES, square);
        }
        FNN_NAME(put)(sums + first, FNN_NAME(winograd_sum_lanes)(of_lanes[0]), count, 0);
        FNN_NAME(put)(squares + first, FNN_NAME(winograd_sum_lanes)(of_lanes[1]), count, 0);
    }
}

/* Up to four vectors of channels of winograd_channels. */
FNN_INLINE void FNN_NAME(winograd_count)(FNN_REAL *sums, FNN_REAL *most, const FNN_REAL *x, ptrdiff_t step,
                                         ptrdiff_t pixels, int vecs, ptrdiff_t last)
{
    FNN_VEC sum[4], peak[4];
    FNN_UNROLL for (int v = 0; v < vecs; v++) {
        sum[v] = FNN_NAME(load)(sums + v * FNN_LANES);
        peak[v] = FNN_NAME(load)(most + v * FNN_LANES);
    }
    for (ptrdiff_t i = 0; i < pixels; i++, x += step) {
        FNN_UNROLL for (int v = 0; v < vecs; v++) {
            const FNN_REAL *from = x + v * FNN_LANES;
            const FNN_VEC size = FNN_NAME(magnitude)(last == FNN_LANES ? FNN_NAME(load)(from)
                                                                       : FNN_NAME(load_part)(from, last));
            sum[v] += size, peak[v] = FNN_NAME(larger)(size, peak[v]);
        }
    }
    FNN_UNROLL for (int v = 0; v < vecs; v++) {
        FNN_NAME(store)(sums + v * FNN_LANES, sum[v]);
        FNN_NAME(store)(most + v * FNN_LANES, peak[v]);
    }
}

/* Each channel's sum of absolute values and the largest one are updated with those of `pixels`, `step` apart; in whole
 * vectors. */
FNN_STATIC void FNN_NAME(winograd_channels)(FNN_REAL *sums, FNN_REAL *most, const FNN_REAL *x, ptrdiff_t step,
                                            ptrdiff_t pixels, ptrdiff_t channels)
{
    ptrdiff_t c = 0;
    for (; c + 4 * FNN_LANES <= channels; c += 4 * FNN_LANES)
        FNN_NAME(winograd_count)(sums + c, most + c, x + c, step, pixels, 4, FNN_LANES);
    for (; c + FNN_LANES <= channels; c += FNN_LANES)
        FNN_NAME(winograd_count)(sums + c, most + c, x + c, step, pixels, 1, FNN_LANES);
    if (c < channels)
        FNN_NAME(winograd_count)(sums + c, most + c, x + c, step, pixels, 1, channels - c);
}

FNN_INLINE int FNN_NAME(winograd_is_even_tile)(const fnn_winograd_form *form, const FNN_REAL *sums,
                                               const FNN_REAL *squares, ptrdiff_t line, ptrdiff_t lines,
                                               ptrdiff_t columns, double spread)
{
    FNN_REAL rows[6][4], windows[4], low[4] = {0}, square[6] = {0}, peak[6] = {0}, least, all = 0, most = 0, total = 0;
    for (int i = 0; i < form->in; i++, sums += line, squares += line) {
        for (int j = 0; j < form->in; j++)
            square[j] += squares[j], peak[j] = squares[j] > peak[j] ? squares[j] : peak[j];
        for (int j = 0; j < form->out; j++) {
            const FNN_REAL *first = sums + j * form->stride;
            rows[i][j] = first[0] + first[1] + first[2];
        }
    }
    for (int i = 0; i < form->out; i++) {
        const int top = i * form->stride;
        for (int j = 0; j < form->out; j++) {
            windows[j] = rows[top][j] + rows[top + 1][j] + rows[top + 2][j];
            low[j] = i == 0 || (i < lines && windows[j] < low[j]) ? windows[j] : low[j];
        }
        total += windows[0] + windows[form->out - 1];
    }
    for (int j = 0; j < form->in; j++)
        all += square[j], most = peak[j] > most ? peak[j] : most;
    all += 4 * most; /* errors of a few numbers do not cancel */
    least = low[0];
    for (int j = 1; j < columns; j++)
        least = low[j] < least ? low[j] : least;
    return total == 0 || (all > (FNN_REAL)FNN_LEAST_SQUARE && spread * all <= (double)least * least);
}

/* Whether the rounding errors of a tile, whose lines are `line` apart, are small beside each of its sums: the first
 * `lines` by `columns` pixels of the result. `spread` is that of the kernels. */
FNN_STATIC int FNN_NAME(winograd_is_even)(int stride, const FNN_REAL *sums, const FNN_REAL *squares, ptrdiff_t line,
                                          ptrdiff_t lines, ptrdiff_t columns, double spread)
{
    if (stride == 1)
        return FNN_NAME(winograd_is_even_tile)(&fnn_winograd_forms[0], sums, squares, line, lines, columns, spread);
    return FNN_NAME(winograd_is_even_tile)(&fnn_winograd_forms[1], sums, squares, line, lines, columns, spread);
}

/* Whether all lanes are: of the sum of numbers times zero, whether all of these are finite. */
FNN_INLINE int FNN_NAME(winograd_is_zero)(FNN_VEC probe)
{
    FNN_REAL lanes[FNN_LANES];
    int other = 0;
    FNN_NAME(store)(lanes, probe);
    for (int q = 0; q < FNN_LANES; q++)
        other |= lanes[q] != 0;
    return !other;
}

/* The first `lines` by `columns` pixels of a tile, plus bias; the sum of all of them times zero. */
FNN_INLINE FNN_VEC FNN_NAME(winograd_result_vector)(const fnn_winograd_form *form, FNN_REAL *y, ptrdiff_t line,
                                                    ptrdiff_t pixel, const FNN_REAL *m, ptrdiff_t plane, FNN_VEC bias,
                                                    ptrdiff_t lines, ptrdiff_t columns, ptrdiff_t count)
{
    FNN_VEC t[4][6], one[6], two[4], probe = FNN_NAME(splat)(0);
    FNN_UNROLL for (int j = 0; j < form->sums; j++) {
        FNN_UNROLL for (int i = 0; i < form->sums; i++)
            one[i] = FNN_NAME(load)(m + (i * form->sums + j) * plane);
        FNN_NAME(winograd_a)(form->stride, one, two);
        FNN_UNROLL for (int i = 0; i < form->out; i++)
            t[i][j] = two[i];
    }
    FNN_UNROLL for (int i = 0; i < form->out; i++) {
        FNN_NAME(winograd_a)(form->stride, t[i], two);
        FNN_UNROLL for (int j = 0; j < form->out; j++) {
            two[j] += bias;
            probe += two[j] * 0;
            if (i < lines && j < columns)
                FNN_NAME(put)(y + i * line + j * pixel, two[j], count, 0);
        }
    }
    return probe;
}

FNN_INLINE int FNN_NAME(winograd_result_vectors)(const fnn_winograd_form *form, FNN_REAL *y, ptrdiff_t line,
                                                 ptrdiff_t pixel, const FNN_REAL *m, ptrdiff_t plane,
                                                 const FNN_REAL *bias, ptrdiff_t lines, ptrdiff_t columns,
                                                 ptrdiff_t count)
{
    FNN_VEC probe = FNN_NAME(splat)(0);
    for (ptrdiff_t v = 0; v < count; v += FNN_LANES) {
        const FNN_VEC b = FNN_NAME(load)(bias + v);
        if (lines == form->out && columns == form->out && count - v >= FNN_LANES)
            probe += FNN_NAME(winograd_result_vector)(form, y + v, line, pixel, m + v, plane, b, form->out, form->out,
                                                      FNN_LANES);
        else
            probe += FNN_NAME(winograd_result_vector)(form, y + v, line, pixel, m + v, plane, b, lines, columns,
                                                      fnn_min(count - v, FNN_LANES));
    }
    return FNN_NAME(winograd_is_zero)(probe);
}

/* The tile at y from the planes m, with `count` kernels side by side; whether all of it is finite. The bias has whole
 * vectors. */
FNN_STATIC int FNN_NAME(winograd_result)(int stride, FNN_REAL *y, ptrdiff_t line, ptrdiff_t pixel, const FNN_REAL *m,
                                         ptrdiff_t plane, const FNN_REAL *bias, ptrdiff_t lines, ptrdiff_t columns,
                                         ptrdiff_t count)
{
    if (stride == 1)
        return FNN_NAME(winograd_result_vectors)(&fnn_winograd_forms[0], y, line, pixel, m, plane, bias, lines, columns,
                                                 count);
    return FNN_NAME(winograd_result_vectors)(&fnn_winograd_forms[1], y, line, pixel, m, plane, bias, lines, columns,
                                             count);
}

/* One panel of `vecs` vectors of C, for `rows` rows that go `height` at a time. t has the strides; C is added to where
 * there is no `add`. */
FNN_STATIC void FNN_NAME(winograd_panel)(FNN_NAME(tile_args) *t, const FNN_REAL *a, const FNN_REAL *b, FNN_REAL *c,
                                         const FNN_REAL *add, ptrdiff_t rows, ptrdiff_t height, ptrdiff_t vecs)
{
    t->a = a, t->b = b, t->c = c, t->add = add ? add : c;
    t->add_rs = add ? 0 : t->c_rs, t->add_vs = add ? 0 : FNN_LANES, t->add_step = add ? 0 : t->c_step;
    t->count = rows / height;
    FNN_NAME(tiles)[vecs][height](t);
    if (rows % height) {
        t->a += t->count * t->a_step, t->c += t->count * t->c_step, t->add += t->count * t->add_step;
        t->count = 1;
        FNN_NAME(tiles)[vecs][rows % height](t);
    }
}

/* m[sum, tile, kernel] = the sum over its terms and over channels of v[point, tile, channel] u[point, channel, kernel].
 * The kernels are `vectors` vectors, in panels of `vecs` of them that hold all channels. */
FNN_STATIC void FNN_NAME(winograd_multiply)(int stride, const FNN_REAL *v, ptrdiff_t v_plane, ptrdiff_t v_tile,
                                            const FNN_REAL *u, ptrdiff_t u_plane, FNN_REAL *m, ptrdiff_t m_plane,
                                            ptrdiff_t tiles, ptrdiff_t channels, ptrdiff_t vectors, ptrdiff_t vecs)
{
    static const FNN_REAL zeros[FNN_LANES];
    const fnn_winograd_form *form = &fnn_winograd_forms[stride - 1];
    const ptrdiff_t height = fnn_even_part(tiles, fnn_max_rows[vecs], 1);
    const ptrdiff_t at_once = fnn_even_part(channels, form->summed, 1);
    FNN_NAME(tile_args) t = {0};
    t.a_rs = v_tile, t.a_cs = 1, t.a_step = height * v_tile;
    t.c_rs = vectors * FNN_LANES, t.c_step = height * t.c_rs;
    t.last = FNN_LANES;
    for (int sum = 0; sum < form->sums * form->sums; sum++, m += m_plane) {
        const int i = sum / form->sums, j = sum % form->sums;
        for (int term = 0; term < form->terms[i] * form->terms[j]; term++) {
            const int a = term / form->terms[j], b = term % form->terms[j];
            const FNN_REAL *v_point = v + (form->of_source[i][a] * form->source + form->of_source[j][b]) * v_plane;
            const FNN_REAL *u_point = u + (form->of_kernel[i][a] * form->kernels + form->of_kernel[j][b]) * u_plane;
            for (ptrdiff_t first = 0; first < channels; first += at_once) {
                t.k = fnn_min(at_once, channels - first);
                for (ptrdiff_t panel = 0; panel < vectors; panel += vecs) {
                    const ptrdiff_t width = fnn_min(vecs, vectors - panel);
                    t.b_rs = width * FNN_LANES;
                    FNN_NAME(winograd_panel)(&t, v_point + first,
                                             u_point + panel * FNN_LANES * channels + first * t.b_rs,
                                             m + panel * FNN_LANES, term || first ? NULL : zeros, tiles, height, width);
                }
            }
        }
    }
}

/* The planes v, in whole vectors, of a tile of the result's gradient: its first `lines` by `columns` pixels, and zeros.
 */
FNN_STATIC void FNN_NAME(winograd_gradient)(FNN_REAL *v, ptrdiff_t plane, const FNN_REAL *y, ptrdiff_t line,
                                            ptrdiff_t pixel, ptrdiff_t lines, ptrdiff_t columns, ptrdiff_t count)
{
    FNN_VEC t[6][4], one[4], two[6];
    for (ptrdiff_t k = 0; k < count; k += FNN_LANES) {
        const ptrdiff_t inside = fnn_min(FNN_LANES, count - k);
        FNN_UNROLL for (int j = 0; j < 4; j++) {
            FNN_UNROLL for (int i = 0; i < 4; i++) {
                const FNN_REAL *from = y + i * line + j * pixel + k;
                one[i] = i >= lines || j >= columns ? FNN_NAME(splat)(0)
                       : inside == FNN_LANES ? FNN_NAME(load)(from) : FNN_NAME(load_part)(from, inside);
            }
            FNN_NAME(winograd_at)(one, two);
            FNN_UNROLL for (int i = 0; i < 6; i++)
                t[i][j] = two[i];
        }
        FNN_UNROLL for (int i = 0; i < 6; i++) {
            FNN_NAME(winograd_at)(t[i], two);
            FNN_UNROLL for (int j = 0; j < 6; j++)
                FNN_NAME(store)(v + (i * 6 + j) * plane + k, two[j]);
        }
    }
}

/* s[kernel, channel] = (or += with `add`) the sum over tiles of g[tile, kernel] v[tile, channel], of one point. The
 * channels are `vectors` vectors, and so long are the rows of s. */
FNN_STATIC void FNN_NAME(winograd_sum)(const FNN_REAL *g, ptrdiff_t g_tile, const FNN_REAL *v, ptrdiff_t v_tile,
                                       FNN_REAL *s, ptrdiff_t tiles, ptrdiff_t kernels, ptrdiff_t vectors, int add)
{
    static const FNN_REAL zeros[FNN_LANES];
    const ptrdiff_t vecs = vectors % 2 && vectors % 3 == 0 ? 3 : fnn_min(vectors, 2);
    const ptrdiff_t height = fnn_even_part(kernels, fnn_max_rows[vecs], 1);
    FNN_NAME(tile_args) t = {0};
    t.k = tiles;
    t.a_rs = 1, t.a_cs = g_tile, t.a_step = height;
    t.b_rs = v_tile;
    t.c_rs = vectors * FNN_LANES, t.c_step = height * t.c_rs;
    t.last = FNN_LANES;
    for (ptrdiff_t panel = 0; panel < vectors; panel += vecs)
        FNN_NAME(winograd_panel)(&t, g, v + panel * FNN_LANES, s + panel * FNN_LANES, add ? NULL : zeros, kernels,
                                 height, fnn_min(vecs, vectors - panel));
}

/* The gradient G^T s G of a kernel for `count` channels, FNN_LANES at most; whether all of it is finite. The channels are
 * side by side, or the nine taps are. */
FNN_STATIC int FNN_NAME(winograd_weight)(FNN_REAL *grad, ptrdiff_t row, ptrdiff_t column, ptrdiff_t channel,
                                         const FNN_REAL *s, ptrdiff_t plane, ptrdiff_t count)
{
    FNN_VEC t[3][6], one[6], two[3], probe = FNN_NAME(splat)(0);
    FNN_REAL lanes[9][FNN_LANES];
    FNN_UNROLL for (int j = 0; j < 6; j++) {
        FNN_UNROLL for (int i = 0; i < 6; i++)
            one[i] = FNN_NAME(load)(s + (i * 6 + j) * plane);
        FNN_NAME(winograd_gt)(one, two);
        FNN_UNROLL for (int i = 0; i < 3; i++)
            t[i][j] = two[i];
    }
    FNN_UNROLL for (int i = 0; i < 3; i++) {
        FNN_NAME(winograd_gt)(t[i], two);
        FNN_UNROLL for (int j = 0; j < 3; j++) {
            probe += two[j] * 0;
            if (channel == 1)
                FNN_NAME(put)(grad + i * row + j * column, two[j], count, 0);
            else
                FNN_NAME(store)(lanes[3 * i + j], two[j]);
        }
    }
    if (channel != 1)
        FNN_NAME(conv_transpose)(grad, channel, lanes[0], FNN_LANES, 9, count);
    return FNN_NAME(winograd_is_zero)(probe);
}

#undef FNN_VEC
#undef FNN_REAL
#undef FNN_LANES
#undef FNN_NAME
