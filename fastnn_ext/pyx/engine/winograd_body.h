/* Included twice by winograd.h: the transforms and the products for one dtype. */

#define FNN_VEC FNN_NAME(vec)

/* B^T of six numbers: of their polynomial, what is left after the division by all other points. */
FNN_INLINE void FNN_NAME(winograd_b)(const FNN_VEC *d, FNN_VEC *t)
{
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
FNN_INLINE void FNN_NAME(winograd_g)(const FNN_VEC *g, FNN_VEC *t)
{
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

/* A^T of six numbers. */
FNN_INLINE void FNN_NAME(winograd_a)(const FNN_VEC *m, FNN_VEC *y)
{
    const FNN_REAL p = (FNN_REAL)FNN_WINOGRAD_P, q = (FNN_REAL)FNN_WINOGRAD_Q, half = (FNN_REAL)0.5;
    const FNN_REAL p3 = (FNN_REAL)FNN_WINOGRAD_P3, q3 = (FNN_REAL)FNN_WINOGRAD_Q3;
    const FNN_VEC even_p = m[1] + m[2], odd_p = m[1] - m[2], even_q = m[3] + m[4], odd_q = m[3] - m[4];
    y[0] = m[0] + even_p + even_q;
    y[1] = odd_p * p + odd_q * q;
    y[2] = even_p * half + even_q * 2;
    y[3] = m[5] + odd_p * p3 + odd_q * q3;
}

FNN_INLINE void FNN_NAME(winograd_source_vector)(FNN_REAL *v, ptrdiff_t plane, const FNN_REAL *d, ptrdiff_t line,
                                                 ptrdiff_t pixel, ptrdiff_t count)
{
    FNN_VEC t[6][6], one[6], two[6];
    FNN_UNROLL for (int j = 0; j < 6; j++) {
        FNN_UNROLL for (int i = 0; i < 6; i++) {
            const FNN_REAL *from = d + i * line + j * pixel;
            one[i] = count == FNN_LANES ? FNN_NAME(load)(from) : FNN_NAME(load_part)(from, count);
        }
        FNN_NAME(winograd_b)(one, two);
        FNN_UNROLL for (int i = 0; i < 6; i++)
            t[i][j] = two[i];
    }
    FNN_UNROLL for (int i = 0; i < 6; i++) {
        FNN_NAME(winograd_b)(t[i], two);
        FNN_UNROLL for (int j = 0; j < 6; j++)
            FNN_NAME(store)(v + (i * 6 + j) * plane, two[j]);
    }
}

/* The planes v, in whole vectors, of the tile at d with `count` channels. */
FNN_STATIC void FNN_NAME(winograd_source)(FNN_REAL *v, ptrdiff_t plane, const FNN_REAL *d, ptrdiff_t line,
                                          ptrdiff_t pixel, ptrdiff_t count)
{
    for (; count >= FNN_LANES; count -= FNN_LANES, d += FNN_LANES, v += FNN_LANES)
        FNN_NAME(winograd_source_vector)(v, plane, d, line, pixel, FNN_LANES);
    if (count > 0)
        FNN_NAME(winograd_source_vector)(v, plane, d, line, pixel, count);
}

/* The planes u of some channels and `count` kernels, FNN_LANES each at most: tap t of channel c of kernel i is
 * g[c * g_channel + i * g_kernel + at[t]]; one of these strides is 1, or that between the nine taps. */
FNN_STATIC void FNN_NAME(winograd_kernels)(FNN_REAL *u, ptrdiff_t plane, ptrdiff_t u_channel, const FNN_REAL *g,
                                           ptrdiff_t g_channel, ptrdiff_t g_kernel, const ptrdiff_t *at,
                                           ptrdiff_t channels, ptrdiff_t count)
{
    FNN_VEC t[6][3], one[3], two[6];
    FNN_REAL lanes[FNN_LANES][9][FNN_LANES]; /* [channel, tap, kernel] */
    for (ptrdiff_t s = 0; g_kernel != 1 && g_channel == 1 && s < 9; s++)
        FNN_NAME(transpose_rows)(lanes[0][s], 9 * FNN_LANES, g + at[s], g_kernel, count, channels, 1, 0);
    for (ptrdiff_t c = 0; g_kernel != 1 && g_channel != 1 && c < channels; c++)
        FNN_NAME(transpose_rows)(lanes[c][0], FNN_LANES, g + c * g_channel, g_kernel, count, 9, 1, 0);
    for (ptrdiff_t c = 0; c < channels; c++) {
        FNN_UNROLL for (int j = 0; j < 3; j++) {
            FNN_UNROLL for (int i = 0; i < 3; i++) {
                const ptrdiff_t tap = 3 * i + j;
                one[i] = g_kernel == 1 ? FNN_NAME(load_part)(g + c * g_channel + at[tap], count)
                                       : FNN_NAME(load)(lanes[c][g_channel == 1 ? tap : at[tap]]);
            }
            FNN_NAME(winograd_g)(one, two);
            FNN_UNROLL for (int i = 0; i < 6; i++)
                t[i][j] = two[i];
        }
        FNN_UNROLL for (int i = 0; i < 6; i++) {
            FNN_NAME(winograd_g)(t[i], two);
            FNN_UNROLL for (int j = 0; j < 6; j++)
                FNN_NAME(store)(u + (i * 6 + j) * plane + c * u_channel, two[j]);
        }
    }
}

/* The first `lines` by `columns` pixels of a tile, plus bias; the sum of all 16 times zero. */
FNN_INLINE FNN_VEC FNN_NAME(winograd_result_vector)(FNN_REAL *y, ptrdiff_t line, ptrdiff_t pixel, const FNN_REAL *m,
                                                    ptrdiff_t plane, FNN_VEC bias, ptrdiff_t lines, ptrdiff_t columns,
                                                    ptrdiff_t count)
{
    FNN_VEC t[4][6], one[6], two[4], probe = FNN_NAME(splat)(0);
    FNN_UNROLL for (int j = 0; j < 6; j++) {
        FNN_UNROLL for (int i = 0; i < 6; i++)
            one[i] = FNN_NAME(load)(m + (i * 6 + j) * plane);
        FNN_NAME(winograd_a)(one, two);
        FNN_UNROLL for (int i = 0; i < 4; i++)
            t[i][j] = two[i];
    }
    FNN_UNROLL for (int i = 0; i < 4; i++) {
        FNN_NAME(winograd_a)(t[i], two);
        FNN_UNROLL for (int j = 0; j < 4; j++) {
            two[j] += bias;
            probe += two[j] * 0;
            if (i < lines && j < columns)
                FNN_NAME(put)(y + i * line + j * pixel, two[j], count, 0);
        }
    }
    return probe;
}

/* The tile at y from the planes m, with `count` kernels side by side; whether all of it is finite. The bias has whole
 * vectors. */
FNN_STATIC int FNN_NAME(winograd_result)(FNN_REAL *y, ptrdiff_t line, ptrdiff_t pixel, const FNN_REAL *m,
                                         ptrdiff_t plane, const FNN_REAL *bias, ptrdiff_t lines, ptrdiff_t columns,
                                         ptrdiff_t count)
{
    FNN_VEC probe = FNN_NAME(splat)(0);
    FNN_REAL lanes[FNN_LANES];
    int bad = 0;
    for (ptrdiff_t v = 0; v < count; v += FNN_LANES) {
        const FNN_VEC b = FNN_NAME(load)(bias + v);
        if (lines == 4 && columns == 4 && count - v >= FNN_LANES)
            probe += FNN_NAME(winograd_result_vector)(y + v, line, pixel, m + v, plane, b, 4, 4, FNN_LANES);
        else
            probe += FNN_NAME(winograd_result_vector)(y + v, line, pixel, m + v, plane, b, lines, columns,
                                                      fnn_min(count - v, FNN_LANES));
    }
    FNN_NAME(store)(lanes, probe);
    for (int q = 0; q < FNN_LANES; q++)
        bad |= lanes[q] != 0;
    return !bad;
}

/* m[point, tile, kernel] = the sum over channels of v[point, tile, channel] u[point, channel, kernel]. The kernels
 * are `vectors` vectors, in panels of `vecs` of them that hold all channels. */
FNN_STATIC void FNN_NAME(winograd_multiply)(const FNN_REAL *v, ptrdiff_t v_plane, ptrdiff_t v_tile, const FNN_REAL *u,
                                            ptrdiff_t u_plane, FNN_REAL *m, ptrdiff_t m_plane, ptrdiff_t tiles,
                                            ptrdiff_t channels, ptrdiff_t vectors, ptrdiff_t vecs)
{
    static const FNN_REAL zeros[FNN_LANES];
    const ptrdiff_t height = fnn_even_part(tiles, fnn_max_rows[vecs], 1);
    const ptrdiff_t at_once = fnn_even_part(channels, FNN_KC, 1);
    FNN_NAME(tile_args) t = {0};
    t.a_rs = v_tile, t.a_cs = 1, t.a_step = height * v_tile;
    t.c_rs = vectors * FNN_LANES, t.c_step = height * t.c_rs;
    t.last = FNN_LANES;
    for (ptrdiff_t point = 0; point < FNN_WINOGRAD_POINTS; point++) {
        for (ptrdiff_t first = 0; first < channels; first += at_once) {
            t.k = fnn_min(at_once, channels - first);
            for (ptrdiff_t panel = 0; panel < vectors; panel += vecs) {
                const ptrdiff_t width = fnn_min(vecs, vectors - panel);
                t.a = v + point * v_plane + first;
                t.b_rs = width * FNN_LANES;
                t.b = u + point * u_plane + panel * FNN_LANES * channels + first * t.b_rs;
                t.c = m + point * m_plane + panel * FNN_LANES;
                t.add = first ? t.c : zeros;
                t.add_rs = first ? t.c_rs : 0, t.add_vs = first ? FNN_LANES : 0, t.add_step = first ? t.c_step : 0;
                t.count = tiles / height;
                FNN_NAME(tiles)[width][height](&t);
                if (tiles % height) {
                    const ptrdiff_t done = t.count;
                    t.a += done * t.a_step, t.c += done * t.c_step, t.add += done * t.add_step;
                    t.count = 1;
                    FNN_NAME(tiles)[width][tiles % height](&t);
                }
            }
        }
    }
}

#undef FNN_VEC
#undef FNN_REAL
#undef FNN_LANES
#undef FNN_NAME
