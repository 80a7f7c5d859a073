/* Included twice by gemm.h, after gemm_tile.h: the choice of the form, packing and blocking. */

typedef void (*FNN_NAME(epilogue_function))(void *context, FNN_REAL *row, ptrdiff_t i, ptrdiff_t j, ptrdiff_t count);

typedef struct {
    ptrdiff_t m, n, k;
    const FNN_REAL *a;
    ptrdiff_t a_rs, a_cs;
    const FNN_REAL *b;
    ptrdiff_t b_rs, b_cs;
    FNN_REAL *c;
    ptrdiff_t c_rs, c_cs;
    const FNN_REAL *row_bias, *col_bias;
    int accumulate;
    const FNN_REAL *panels; /* B as gemm_pack_panels leaves it, or NULL */
    FNN_NAME(epilogue_function) epilogue;
    void *epilogue_context;
} FNN_NAME(gemm_args);

/* ---- the choice of the form ---- */

/* The same product read as C^T = B^T A^T. */
static FNN_NAME(gemm_args) FNN_NAME(gemm_transposed)(const FNN_NAME(gemm_args) *g)
{
    FNN_NAME(gemm_args) t = *g;
    t.m = g->n, t.n = g->m;
    t.a = g->b, t.a_rs = g->b_cs, t.a_cs = g->b_rs;
    t.b = g->a, t.b_rs = g->a_cs, t.b_cs = g->a_rs;
    t.c_rs = g->c_cs, t.c_cs = g->c_rs;
    t.row_bias = g->col_bias, t.col_bias = g->row_bias;
    return t;
}

/* The stride of a dimension of size 1 is never used: make it what the fast paths look for. */
static FNN_NAME(gemm_args) FNN_NAME(gemm_normal)(const FNN_NAME(gemm_args) *g)
{
    FNN_NAME(gemm_args) t = *g;
    if (t.k == 1)
        t.a_cs = t.b_rs = 1;
    if (t.m == 1)
        t.a_rs = t.c_rs = 1;
    if (t.n == 1)
        t.b_cs = t.c_cs = 1;
    return t;
}

/* Costs count vector multiply-adds. */
static double FNN_NAME(tiles_cost)(const FNN_NAME(gemm_args) *g, int panels)
{
    const double m = (double)g->m, k = (double)g->k, vecs = (double)fnn_parts(g->n, FNN_LANES);
    double cost = m * vecs * k;
    if (g->b_cs != 1 && !panels)
        cost += FNN_COST_TRANSPOSED_LOAD * vecs * FNN_LANES * k;
    if (g->c_cs != 1)
        cost += FNN_COST_TRANSPOSED_STORE * m * (double)g->n;
    return cost;
}

static double FNN_NAME(dot_cost)(const FNN_NAME(gemm_args) *g)
{
    return FNN_COST_DOT * (double)g->m * (double)g->n * ((double)fnn_parts(g->k, FNN_LANES) + FNN_COST_LANES_SUM);
}

/* How many vectors wide panels of B are: equal parts of n columns. */
static ptrdiff_t FNN_NAME(panel_vecs)(ptrdiff_t n, ptrdiff_t most_vecs)
{
    const ptrdiff_t vecs = fnn_parts(n, FNN_LANES);
    return fnn_parts(vecs, fnn_parts(vecs, most_vecs));
}

/* Whether up to `rows` rows meet a large B, whose rows can be read where they are, once. */
static int FNN_NAME(streams_b)(const FNN_NAME(gemm_args) *g, ptrdiff_t rows)
{
    return g->b_cs == 1 && g->m <= rows && g->k * g->n * (ptrdiff_t)sizeof(FNN_REAL) > FNN_STREAM_B_BYTES;
}

static void FNN_NAME(plan_tiles)(fnn_gemm_plan *plan, const FNN_NAME(gemm_args) *g, int panels)
{
    const ptrdiff_t size = (ptrdiff_t)sizeof(FNN_REAL);
    const int few_rows = g->m <= fnn_max_rows[FNN_MAX_VECS] && !panels;
    plan->panels = panels;
    plan->vecs = (int)FNN_NAME(panel_vecs)(g->n, few_rows ? FNN_MAX_VECS : FNN_USUAL_VECS);
    plan->rows = (int)fnn_even_part(g->m, fnn_max_rows[plan->vecs], 1);
    const ptrdiff_t width = plan->vecs * FNN_LANES;
    plan->kc = fnn_even_part(g->k, FNN_KC, 16);
    plan->nc = fnn_even_part(g->n, fnn_min(FNN_B_BYTES / (plan->kc * size), FNN_MAX_PANELS * width), width);
    plan->group = fnn_min((g->b_cs == 1 || panels ? FNN_GROUP : 1) * width, plan->nc);
    /* a block of B that fits in the first cache is run along the rows of C, which are written one after the other */
    const int along_rows = g->n > width && fnn_min(plan->kc, g->k) * plan->nc * size <= 16384;
    plan->pack_b = !panels && (g->b_cs != 1 || (g->m > FNN_REUSE_B * plan->rows && !along_rows));
    plan->pack_a = g->n > FNN_REUSE_A * width && g->k >= 64;
    const ptrdiff_t most_rows = fnn_min(FNN_MC - FNN_MAX_ROWS, fnn_max(FNN_A_BYTES / (plan->kc * size), 16));
    plan->mc = along_rows ? plan->rows : fnn_even_part(g->m, most_rows, plan->rows);
    /* short columns of B, so that its rows are read as long streams */
    if (!plan->pack_b && !panels && FNN_NAME(streams_b)(g, plan->rows))
        plan->kc = FNN_STREAM_KC;
}

/* Panels are used where that is faster and changes no bit: where the product would be tiles without them, whichever way
 * round, that sum as many terms in registers. */
static fnn_gemm_plan FNN_NAME(gemm_plan)(const FNN_NAME(gemm_args) *args)
{
    const FNN_NAME(gemm_args) g = FNN_NAME(gemm_normal)(args), t = FNN_NAME(gemm_transposed)(&g);
    fnn_gemm_plan plan;
    memset(&plan, 0, sizeof plan);
    if (g.m == 0 || g.n == 0 || g.k == 0) {
        plan.form = FNN_FORM_FILL;
        return plan;
    }
    const double straight = FNN_NAME(tiles_cost)(&g, 0), swapped = FNN_NAME(tiles_cost)(&t, 0);
    const double cost = fnn_min_f(straight, swapped);
    plan.form = FNN_FORM_TILES;
    plan.swap = swapped < straight;
    if (g.a_cs == 1 && g.b_rs == 1 && FNN_NAME(dot_cost)(&g) < cost) {
        plan.form = FNN_FORM_DOT;
        plan.swap = g.m > g.n;
    }
    const FNN_NAME(gemm_args) *o = plan.swap ? &t : &g;
    if (plan.form == FNN_FORM_DOT)
        plan.kc = o->m > 4 ? FNN_DOT_KC : o->k;
    else if (o->m == 1 && o->b_cs == 1 && o->c_cs == 1)
        plan.form = FNN_FORM_COMBINE;
    else if (g.panels && !FNN_NAME(streams_b)(o, FNN_MAX_ROWS) && FNN_NAME(tiles_cost)(&g, 1) <= cost) {
        plan.swap = 0;
        FNN_NAME(plan_tiles)(&plan, &g, 1);
    } else
        FNN_NAME(plan_tiles)(&plan, o, 0);
    return plan;
}

/* ---- what comes before and after the products ---- */

/* C = 0 unless it accumulates, plus the biases. */
static void FNN_NAME(gemm_fill)(const FNN_NAME(gemm_args) *g, ptrdiff_t i0, ptrdiff_t i1, ptrdiff_t j0, ptrdiff_t j1)
{
    for (ptrdiff_t i = i0; i < i1; i++) {
        const FNN_REAL row = g->row_bias ? g->row_bias[i] : 0;
        for (ptrdiff_t j = j0; j < j1; j++) {
            FNN_REAL *c = g->c + i * g->c_rs + j * g->c_cs;
            *c = (g->accumulate ? *c : 0) + (g->col_bias ? g->col_bias[j] + row : row);
        }
    }
}

/* The epilogue on a block of C; if `swap`, g is the transposed problem and the block is turned back. */
static void FNN_NAME(gemm_finish)(const FNN_NAME(gemm_args) *g, int swap, ptrdiff_t i0, ptrdiff_t i1, ptrdiff_t j0,
                                  ptrdiff_t j1)
{
    if (g->epilogue == NULL)
        return;
    if (swap) {
        const FNN_NAME(gemm_args) t = FNN_NAME(gemm_transposed)(g);
        FNN_NAME(gemm_finish)(&t, 0, j0, j1, i0, i1);
        return;
    }
    const ptrdiff_t count = g->c_cs == 1 ? j1 - j0 : 1;
    for (ptrdiff_t i = i0; i < i1; i++)
        for (ptrdiff_t j = j0; j < j1; j += count)
            g->epilogue(g->epilogue_context, g->c + i * g->c_rs + j * g->c_cs, i, j, count);
}

/* ---- form: sums of rows of B (m = 1) ---- */

static void FNN_NAME(gemm_combine)(const FNN_NAME(gemm_args) *g, ptrdiff_t j0, ptrdiff_t j1)
{
    FNN_REAL start[FNN_LANES], *c = g->c + j0;
    for (int q = 0; q < FNN_LANES; q++)
        start[q] = g->row_bias ? *g->row_bias : 0;
    const FNN_REAL *add = g->accumulate ? c : g->col_bias ? g->col_bias + j0 : start;
    int step = g->accumulate || g->col_bias;
    for (ptrdiff_t p = 0, rows; p < g->k; p += rows) {
        const FNN_REAL *x = g->a + p * g->a_cs, *b = g->b + p * g->b_rs + j0;
        rows = g->k - p >= FNN_COMBINE_ROWS ? FNN_COMBINE_ROWS : g->k - p >= 4 ? 4 : 1;
        if (rows == FNN_COMBINE_ROWS)
            FNN_NAME(combine)(FNN_COMBINE_ROWS, j1 - j0, x, g->a_cs, b, g->b_rs, add, step, c);
        else if (rows == 4)
            FNN_NAME(combine)(4, j1 - j0, x, g->a_cs, b, g->b_rs, add, step, c);
        else
            FNN_NAME(combine)(1, j1 - j0, x, g->a_cs, b, g->b_rs, add, step, c);
        add = c;
        step = 1;
    }
}

/* ---- form: dot products ---- */

static void FNN_NAME(dot_tile)(int rows, ptrdiff_t k, const FNN_REAL *const *a, const FNN_REAL *const *b,
                               FNN_REAL *sums)
{
    if (rows == 1)
        FNN_NAME(dot_1x8)(k, a, b, sums);
#if FNN_DOT_ROWS == 4
    else if (rows == 4)
        FNN_NAME(dot_4x4)(k, a, b, sums);
#endif
    else
        FNN_NAME(dot_2x4)(k, a, b, sums);
}

/* The same with a few thousand terms at a time, whose sums are added in double: floats would stop growing. */
static void FNN_NAME(dot_long)(int rows, int cols, ptrdiff_t k, const FNN_REAL **a, const FNN_REAL **b,
                               FNN_REAL *sums)
{
    double total[FNN_DOT_ROWS * FNN_DOT_COLS] = {0};
    FNN_REAL part[FNN_DOT_ROWS * FNN_DOT_COLS + FNN_LANES] = {0};
    for (ptrdiff_t p = 0; p < k; p += FNN_DOT_TERMS) {
        FNN_NAME(dot_tile)(rows, fnn_min(FNN_DOT_TERMS, k - p), a, b, part);
        for (int s = 0; s < rows * cols; s++)
            total[s] += part[s];
        for (int r = 0; r < rows; r++)
            a[r] += FNN_DOT_TERMS;
        for (int q = 0; q < cols; q++)
            b[q] += FNN_DOT_TERMS;
    }
    for (int s = 0; s < rows * cols; s++)
        sums[s] = (FNN_REAL)total[s];
}

static void FNN_NAME(dot_block)(const FNN_NAME(gemm_args) *g, ptrdiff_t p, ptrdiff_t k, int add, ptrdiff_t i,
                                int rows, ptrdiff_t j, ptrdiff_t cols)
{
    const int tile_cols = rows == 1 ? 8 : 4;
    const FNN_REAL *a[FNN_DOT_ROWS], *b[FNN_DOT_COLS];
    FNN_REAL sums[FNN_DOT_ROWS * FNN_DOT_COLS + FNN_LANES];
    for (int r = 0; r < rows; r++)
        a[r] = g->a + (i + r) * g->a_rs + p;
    /* past the last row of B the last one again, whose sums are left out */
    for (int q = 0; q < tile_cols; q++)
        b[q] = g->b + (j + fnn_min(q, cols - 1)) * g->b_cs + p;
    if (k > FNN_DOT_TERMS)
        FNN_NAME(dot_long)(rows, tile_cols, k, a, b, sums);
    else
        FNN_NAME(dot_tile)(rows, k, a, b, sums);
    for (int r = 0; r < rows; r++) {
        const FNN_REAL bias = g->row_bias ? g->row_bias[i + r] : 0;
        for (int q = 0; q < cols; q++) {
            FNN_REAL *c = g->c + (i + r) * g->c_rs + (j + q) * g->c_cs;
            *c = sums[r * tile_cols + q] + (add ? *c : g->col_bias ? g->col_bias[j + q] : bias);
        }
    }
}

/* For each few rows of B all rows of A, of which there are fewer. */
static void FNN_NAME(gemm_dot)(const FNN_NAME(gemm_args) *g, ptrdiff_t kc, ptrdiff_t i0, ptrdiff_t i1, ptrdiff_t j0,
                               ptrdiff_t j1)
{
    for (ptrdiff_t p = 0; p < g->k; p += kc) {
        const ptrdiff_t k = fnn_min(kc, g->k - p);
        for (ptrdiff_t j = j0; j < j1; j += FNN_DOT_COLS) {
            const ptrdiff_t end = fnn_min(j + FNN_DOT_COLS, j1);
            for (ptrdiff_t i = i0; i < i1;) {
                const int rows = FNN_DOT_ROWS == 4 && i1 - i >= 4 ? 4 : i1 - i >= 2 ? 2 : 1;
                const int step = rows == 1 ? 8 : 4;
                for (ptrdiff_t q = j; q < end; q += step)
                    FNN_NAME(dot_block)(g, p, k, p > 0 || g->accumulate, i, rows, q, fnn_min(step, end - q));
                i += rows;
            }
        }
    }
}

/* ---- form: register tiles ---- */

/* Strips of A whose columns are contiguous: many at a time. */
static void FNN_NAME(gemm_pack_a_columns)(const FNN_NAME(gemm_args) *g, FNN_REAL *target, ptrdiff_t strip, ptrdiff_t i,
                                          ptrdiff_t rows, ptrdiff_t p, ptrdiff_t k)
{
    for (ptrdiff_t first = 0; first < rows; first += FNN_STRIPS * strip) {
        for (ptrdiff_t q = 0; q < k; q++) {
            const FNN_REAL *from = g->a + i + (p + q) * g->a_cs;
            for (ptrdiff_t r = first; r < fnn_min(first + FNN_STRIPS * strip, rows); r += strip) {
                const ptrdiff_t height = fnn_min(strip, rows - r);
                for (ptrdiff_t v = 0; v < height; v += FNN_LANES) {
                    const ptrdiff_t count = fnn_min(FNN_LANES, height - v);
                    const FNN_VEC x = FNN_NAME(load_part)(from + r + v, count);
                    FNN_PREFETCH(from + r + v + FNN_AHEAD * g->a_cs);
                    FNN_NAME(store_part)(target + r * k + q * strip + v, x, count);
                }
            }
        }
    }
}

/* Rows i .. i + rows of A at p .. p + k, as strips of a tile's rows, column after column: what a tile reads lies in one
 * line after the other. */
static void FNN_NAME(gemm_pack_a)(const FNN_NAME(gemm_args) *g, FNN_REAL *target, ptrdiff_t strip, ptrdiff_t i,
                                  ptrdiff_t rows, ptrdiff_t p, ptrdiff_t k)
{
    const FNN_REAL *a = g->a + i * g->a_rs + p * g->a_cs;
    if (g->a_rs == 1 && g->a_cs != 1) {
        FNN_NAME(gemm_pack_a_columns)(g, target, strip, i, rows, p, k);
        return;
    }
    for (ptrdiff_t r = 0; r < rows; r += strip, target += strip * k) {
        const ptrdiff_t height = fnn_min(strip, rows - r);
        if (g->a_cs == 1) {
            FNN_NAME(transpose_strip)(target, strip, a + r * g->a_rs, g->a_rs, height, k);
            continue;
        }
        for (ptrdiff_t q = 0; q < k; q++)
            for (ptrdiff_t v = 0; v < height; v++)
                target[q * strip + v] = a[(r + v) * g->a_rs + q * g->a_cs];
    }
}

/* Columns j .. j + cols of B at p .. p + k, in rows of `width` numbers that end in zeros. */
static void FNN_NAME(gemm_pack_b)(const FNN_NAME(gemm_args) *g, FNN_REAL *target, ptrdiff_t p, ptrdiff_t k,
                                  ptrdiff_t j, ptrdiff_t cols, ptrdiff_t width)
{
    const FNN_REAL *b = g->b + p * g->b_rs + j * g->b_cs;
    for (ptrdiff_t v = 0; g->b_rs == 1 && g->b_cs != 1 && v < cols; v += FNN_LANES)
        FNN_NAME(transpose_rows)(target + v, width, b + v * g->b_cs, g->b_cs, fnn_min(FNN_LANES, cols - v), k, 1, 0);
    for (ptrdiff_t q = 0; g->b_cs == 1 && q < k; q++) {
        for (ptrdiff_t v = 0; v < cols; v += FNN_LANES) {
            const FNN_REAL *from = b + q * g->b_rs + v;
            FNN_NAME(store)(target + q * width + v, cols - v >= FNN_LANES ? FNN_NAME(load)(from)
                                                                          : FNN_NAME(load_part)(from, cols - v));
        }
    }
    for (ptrdiff_t q = 0; g->b_rs != 1 && g->b_cs != 1 && q < k; q++)
        for (ptrdiff_t v = 0; v < width; v++)
            target[q * width + v] = v < cols ? b[q * g->b_rs + v * g->b_cs] : 0;
}

/* A block of C that is worked on: rows i0 .. i1, columns j0 .. j1, the first of them at c. */
typedef struct {
    const FNN_NAME(gemm_args) *g;
    const fnn_gemm_plan *plan;
    ptrdiff_t i0, i1, j0, j1;
    FNN_REAL *c;
    ptrdiff_t c_rs;
    int accumulate;
    FNN_REAL *a_pack, *b_pack;
    const FNN_REAL *panels[FNN_MAX_PANELS]; /* of B, packed */
} FNN_NAME(block);

/* A row of cache lines and an eighth of one: rows that lie beside each other in a tile come to new cache lines at
 * different steps, and their misses do not come all at once. */
static ptrdiff_t FNN_NAME(staggered)(ptrdiff_t numbers)
{
    return fnn_parts(numbers, FNN_LINE) * FNN_LINE + FNN_LINE / 8;
}

/* Whether packed panels of B are kept for more than one block of rows. */
static int FNN_NAME(keeps_b)(const FNN_NAME(block) *block)
{
    return block->i1 - block->i0 > block->plan->mc;
}

static int FNN_NAME(block_memory)(FNN_NAME(block) *block)
{
    const fnn_gemm_plan *plan = block->plan;
    const ptrdiff_t width = plan->vecs * FNN_LANES, n = block->j1 - block->j0;
    const ptrdiff_t size = (ptrdiff_t)sizeof(FNN_REAL);
    block->a_pack = block->b_pack = NULL;
    if (plan->pack_a) {
        const ptrdiff_t rows = fnn_parts(plan->mc, plan->rows) * plan->rows;
        const ptrdiff_t numbers = rows * FNN_NAME(staggered)(plan->kc) + FNN_LANES;
        block->a_pack = (FNN_REAL *)fnn_workspace(FNN_SLOT_GEMM_A, (size_t)(numbers * size));
        if (block->a_pack == NULL)
            return -1;
    }
    if (plan->pack_b || (n % FNN_LANES && !FNN_FREE_MASKS && !plan->panels)) {
        const ptrdiff_t columns = fnn_min(fnn_parts(n, width) * width, FNN_NAME(keeps_b)(block) ? n + width : plan->group);
        block->b_pack = (FNN_REAL *)fnn_workspace(FNN_SLOT_GEMM_B, (size_t)(columns * plan->kc * size));
        if (block->b_pack == NULL)
            return -1;
    }
    return 0;
}

/* Sets the tiles' A to the block of rows i .. i + rows. */
static void FNN_NAME(block_set_a)(const FNN_NAME(block) *block, FNN_NAME(tile_args) *t, ptrdiff_t i, ptrdiff_t rows,
                                  ptrdiff_t p)
{
    const FNN_NAME(gemm_args) *g = block->g;
    const ptrdiff_t height = block->plan->rows;
    if (!block->plan->pack_a) {
        t->a = g->a + i * g->a_rs + p * g->a_cs, t->a_rs = g->a_rs, t->a_cs = g->a_cs, t->a_step = height * g->a_rs;
    } else if (g->a_cs == 1 && rows < FNN_STRIPS_ROWS) {
        t->a = block->a_pack, t->a_rs = FNN_NAME(staggered)(t->k), t->a_cs = 1, t->a_step = height * t->a_rs;
        for (ptrdiff_t r = 0; r < rows; r++)
            memcpy(block->a_pack + r * t->a_rs, g->a + (i + r) * g->a_rs + p, (size_t)t->k * sizeof(FNN_REAL));
    } else {
        t->a = block->a_pack, t->a_rs = 1, t->a_cs = height, t->a_step = height * t->k;
        FNN_NAME(gemm_pack_a)(g, block->a_pack, height, i, rows, p, t->k);
    }
}

/* Packs the panels of columns j .. end, as far as tiles can't read them where they are. */
static void FNN_NAME(block_pack_b)(FNN_NAME(block) *block, ptrdiff_t p, ptrdiff_t k, ptrdiff_t j, ptrdiff_t end)
{
    const FNN_NAME(gemm_args) *g = block->g;
    const ptrdiff_t width = block->plan->vecs * FNN_LANES, origin = FNN_NAME(keeps_b)(block) ? block->j0 : j;
    if (block->plan->panels)
        return;
    if (!block->plan->pack_b) {
        const ptrdiff_t inside = (end - j) / FNN_LANES * FNN_LANES == end - j || FNN_FREE_MASKS ? end : j + (end - j) / width * width;
        j = inside;
    } else if (g->b_cs == 1) {
        /* row by row, as memory is read fastest */
        for (ptrdiff_t q = 0; q < k; q++) {
            const FNN_REAL *from = g->b + (p + q) * g->b_rs;
            for (ptrdiff_t panel = j; panel < end; panel += width) {
                const ptrdiff_t cols = fnn_min(width, end - panel), padded = fnn_parts(cols, FNN_LANES) * FNN_LANES;
                FNN_REAL *to = block->b_pack + (panel - origin) * k + q * padded;
                for (ptrdiff_t v = 0; v < padded; v += FNN_LANES) {
                    FNN_PREFETCH(from + panel + v + FNN_AHEAD * g->b_rs);
                    FNN_NAME(store)(to + v, cols - v >= FNN_LANES ? FNN_NAME(load)(from + panel + v)
                                                                  : FNN_NAME(load_part)(from + panel + v, cols - v));
                }
            }
        }
        for (; j < end; j += width)
            block->panels[(j - block->j0) / width] = block->b_pack + (j - origin) * k;
    }
    for (; j < end; j += width) {
        const ptrdiff_t cols = fnn_min(width, end - j);
        FNN_REAL *target = block->b_pack + (j - origin) * k;
        FNN_NAME(gemm_pack_b)(g, target, p, k, j, cols, fnn_parts(cols, FNN_LANES) * FNN_LANES);
        block->panels[(j - block->j0) / width] = target;
    }
}

static void FNN_NAME(block_set_b)(FNN_NAME(block) *block, FNN_NAME(tile_args) *t, ptrdiff_t p, ptrdiff_t j,
                                  ptrdiff_t cols, int vecs)
{
    const FNN_NAME(gemm_args) *g = block->g;
    const ptrdiff_t width = block->plan->vecs * FNN_LANES;
    t->last = cols - (vecs - 1) * FNN_LANES;
    t->b_rs = vecs * FNN_LANES;
    if (block->plan->panels) {
        t->b = g->panels + j * g->k + p * t->b_rs, t->b_step = width * g->k;
    } else if (!block->plan->pack_b && (FNN_FREE_MASKS || t->last == FNN_LANES)) {
        t->b = g->b + p * g->b_rs + j, t->b_rs = g->b_rs, t->b_step = width;
    } else {
        t->b = block->panels[(j - block->j0) / width], t->b_step = width * t->k;
    }
}

/* Sets what the tiles at row i and column j add to their products. `splats` has the block's row biases, each in all lanes
 * of a vector, or one vector of zeros. */
FNN_INLINE void FNN_NAME(block_set_add)(const FNN_NAME(block) *block, FNN_NAME(tile_args) *t, ptrdiff_t j, int first,
                                        const FNN_REAL *splats)
{
    if (!first)
        t->add = t->c, t->add_rs = t->c_rs, t->add_vs = FNN_LANES;
    else if (block->g->col_bias)
        t->add = block->g->col_bias + j, t->add_rs = 0, t->add_vs = FNN_LANES;
    else
        t->add = splats, t->add_rs = block->g->row_bias ? FNN_LANES : 0, t->add_vs = 0;
}

/* Tiles of C. Where they hang over C's last column, they go one by one through memory of their own. */
static void FNN_NAME(run_tiles)(const FNN_NAME(tile_args) *t, int rows, int vecs)
{
    const FNN_NAME(tile_function) tile = FNN_NAME(tiles)[vecs][rows];
    if (FNN_FREE_MASKS || t->last == FNN_LANES) {
        tile(t);
        return;
    }
    FNN_REAL whole[FNN_MAX_ROWS * FNN_MAX_VECS * FNN_LANES], zeros[FNN_LANES] = {0};
    FNN_NAME(tile_args) inner = *t;
    inner.count = 1;
    inner.c = whole, inner.c_rs = vecs * FNN_LANES;
    inner.add = zeros, inner.add_rs = inner.add_vs = 0;
    for (ptrdiff_t i = 0; i < t->count; i++, inner.a += t->a_step) {
        tile(&inner);
        const FNN_REAL *add = t->add + i * t->add_step;
        FNN_REAL *c = t->c + i * t->c_step;
        for (int r = 0; r < rows; r++) {
            for (int v = 0; v < vecs; v++) {
                const ptrdiff_t count = v == vecs - 1 ? t->last : FNN_LANES;
                const FNN_VEC sum = FNN_NAME(load)(whole + (r * vecs + v) * FNN_LANES);
                const FNN_VEC more = FNN_NAME(load_part)(add + r * t->add_rs + v * t->add_vs, count);
                FNN_NAME(put)(c + r * t->c_rs + v * FNN_LANES, sum + more, count, 0);
            }
        }
    }
}

/* Has the tiles of a panel of B fetch the next one, at column j, if it was packed long ago. */
static void FNN_NAME(fetch_ahead)(const FNN_NAME(block) *block, FNN_NAME(tile_args) *t, ptrdiff_t i0, ptrdiff_t j)
{
    const ptrdiff_t times = t->count * block->plan->rows;
    const int packed_long_ago = block->plan->panels || (block->plan->pack_b && i0 > block->i0);
    if (packed_long_ago && j < block->j1 && times > 0) {
        const ptrdiff_t lines = t->k * t->b_rs / FNN_LINE;
        t->ahead = t->b + t->b_step;
        t->ahead_lines = fnn_min(fnn_parts(lines, times), FNN_MOST_AHEAD);
    }
}

/* Rows i0 .. i1, a block of A at t->a, times columns j .. j + cols, a panel of B. */
static void FNN_NAME(run_down)(FNN_NAME(block) *block, FNN_NAME(tile_args) *t, ptrdiff_t i0, ptrdiff_t i1, ptrdiff_t p,
                               ptrdiff_t j, ptrdiff_t cols, const FNN_REAL *splats)
{
    const int rows = block->plan->rows, vecs = (int)fnn_parts(cols, FNN_LANES);
    const int first = p == 0 && !block->accumulate;
    FNN_NAME(block_set_b)(block, t, p, j, cols, vecs);
    t->c = block->c + (i0 - block->i0) * t->c_rs + (j - block->j0);
    FNN_NAME(block_set_add)(block, t, j, first, splats);
    FNN_NAME(tile_args) tiles = *t;
    tiles.count = (i1 - i0) / rows;
    FNN_NAME(fetch_ahead)(block, &tiles, i0, j + cols);
    tiles.b_step = 0, tiles.c_step = rows * t->c_rs, tiles.add_step = rows * t->add_rs;
    FNN_NAME(run_tiles)(&tiles, rows, vecs);
    const ptrdiff_t tiles_done = tiles.count, done = tiles_done * rows;
    if (done < i1 - i0) {
        tiles.count = 1, tiles.ahead_lines = 0;
        tiles.a += tiles_done * t->a_step, tiles.c += done * t->c_rs, tiles.add += done * t->add_rs;
        FNN_NAME(run_tiles)(&tiles, (int)(i1 - i0 - done), vecs);
    }
}

/* Rows i0 .. i1 times `panels` whole panels of B from column j on, which lie at equal distances: row of tiles by row of
 * tiles, so that C is written along its rows. */
static void FNN_NAME(run_along)(FNN_NAME(block) *block, FNN_NAME(tile_args) *t, ptrdiff_t i0, ptrdiff_t i1, ptrdiff_t p,
                                ptrdiff_t j, ptrdiff_t panels, const FNN_REAL *splats)
{
    const ptrdiff_t width = block->plan->vecs * FNN_LANES, height = block->plan->rows;
    const int first = p == 0 && !block->accumulate;
    t->c = block->c + (i0 - block->i0) * t->c_rs + (j - block->j0);
    FNN_NAME(block_set_b)(block, t, p, j, width, block->plan->vecs);
    FNN_NAME(block_set_add)(block, t, j, first, splats);
    FNN_NAME(tile_args) tiles = *t;
    tiles.count = panels;
    tiles.a_step = 0, tiles.c_step = width, tiles.add_step = t->add_vs == 0 ? 0 : width;
    for (ptrdiff_t i = i0; i < i1; i += height) {
        FNN_NAME(run_tiles)(&tiles, (int)fnn_min(height, i1 - i), block->plan->vecs);
        tiles.a += t->a_step, tiles.c += height * t->c_rs, tiles.add += height * t->add_rs;
    }
}

static void FNN_NAME(set_splats)(const FNN_NAME(gemm_args) *g, ptrdiff_t i0, ptrdiff_t i1, FNN_REAL *splats)
{
    if (g->row_bias == NULL)
        FNN_NAME(store)(splats, FNN_NAME(splat)(0));
    for (ptrdiff_t i = i0; g->row_bias && i < i1; i++)
        FNN_NAME(store)(splats + (i - i0) * FNN_LANES, FNN_NAME(splat)(g->row_bias[i]));
}

/* A block of at most plan->nc columns. The loops are those of Goto and van de Geijn: a panel of B stays in the first
 * cache while the tiles go down the rows, a block of A in the second while they go along the panels; but with few terms
 * C is what costs, and it is written row by row. */
static int FNN_NAME(run_block)(FNN_NAME(block) *block, int finish)
{
    const FNN_NAME(gemm_args) *g = block->g;
    const fnn_gemm_plan *plan = block->plan;
    const ptrdiff_t width = plan->vecs * FNN_LANES;
    FNN_REAL splats[FNN_MC * FNN_LANES];
    double unasked = 0; /* multiply-adds since the last poll */
    if (FNN_NAME(block_memory)(block) < 0)
        return FNN_NO_MEMORY;
    for (ptrdiff_t p = 0; p < g->k; p += plan->kc) {
        for (ptrdiff_t i0 = block->i0; i0 < block->i1; i0 += plan->mc) {
            const ptrdiff_t i1 = fnn_min(i0 + plan->mc, block->i1);
            FNN_NAME(tile_args) t;
            t.k = fnn_min(plan->kc, g->k - p);
            t.c_rs = block->c_rs, t.ahead = NULL, t.ahead_lines = 0;
            FNN_NAME(block_set_a)(block, &t, i0, i1 - i0, p);
            if (p == 0)
                FNN_NAME(set_splats)(g, i0, i1, splats);
            ptrdiff_t j = block->j0;
            if (i1 - i0 <= plan->rows && (!plan->pack_b || i0 > block->i0)) {
                const ptrdiff_t panels = (block->j1 - j - 1) / width;
                FNN_NAME(run_along)(block, &t, i0, i1, p, j, panels, splats);
                j += panels * width;
            }
            const ptrdiff_t done = j;
            for (ptrdiff_t end; j < block->j1; j = end) {
                end = fnn_min(j + plan->group, block->j1);
                unasked += (double)(i1 - i0) * (double)(end - j) * (double)t.k;
                if (unasked > FNN_POLL_AFTER) {
                    const int stop = fnn_poll();
                    if (stop)
                        return stop;
                    unasked = 0;
                }
                if (i0 == block->i0)
                    FNN_NAME(block_pack_b)(block, p, t.k, j, end);
                const ptrdiff_t panels = t.k <= FNN_ALONG_K ? (end - j) / width : 0;
                if (panels > 0)
                    FNN_NAME(run_along)(block, &t, i0, i1, p, j, panels, splats);
                for (ptrdiff_t panel = j + panels * width, cols; panel < end; panel += cols) {
                    cols = fnn_min(width, end - panel);
                    FNN_NAME(run_down)(block, &t, i0, i1, p, panel, cols, splats);
                }
                if (finish && p + t.k == g->k)
                    FNN_NAME(gemm_finish)(g, plan->swap, i0, i1, j, end);
            }
            if (finish && p + t.k == g->k)
                FNN_NAME(gemm_finish)(g, plan->swap, i0, i1, block->j0, done);
        }
    }
    return 0;
}

/* c[i, j] = (or +=) block[i, j] */
static void FNN_NAME(deliver)(const FNN_NAME(gemm_args) *g, const FNN_NAME(block) *block)
{
    const ptrdiff_t m = block->i1 - block->i0, n = block->j1 - block->j0;
    FNN_REAL *c = g->c + block->i0 * g->c_rs + block->j0 * g->c_cs;
    for (ptrdiff_t j = 0; g->c_rs == 1 && j < n; j += FNN_LANES)
        for (ptrdiff_t i = 0; i < m; i += FNN_LANES)
            FNN_NAME(transpose_rows)(c + i + j * g->c_cs, g->c_cs, block->c + i * block->c_rs + j, block->c_rs,
                                     fnn_min(FNN_LANES, m - i), fnn_min(FNN_LANES, n - j), 0, g->accumulate);
    for (ptrdiff_t i = 0; g->c_rs != 1 && i < m; i++) {
        for (ptrdiff_t j = 0; j < n; j++) {
            FNN_REAL *to = c + i * g->c_rs + j * g->c_cs;
            *to = block->c[i * block->c_rs + j] + (g->accumulate ? *to : 0);
        }
    }
}

static int FNN_NAME(gemm_tiles)(const FNN_NAME(gemm_args) *g, const fnn_gemm_plan *plan, ptrdiff_t i0, ptrdiff_t i1,
                                ptrdiff_t j0, ptrdiff_t j1)
{
    FNN_NAME(block) block;
    const int direct = g->c_cs == 1;
    const ptrdiff_t nc = fnn_min(plan->nc, j1 - j0);
    /* a C whose columns aren't contiguous is computed in a block of memory that is, and copied */
    const ptrdiff_t most = FNN_C_BYTES / (ptrdiff_t)sizeof(FNN_REAL) / nc;
    const ptrdiff_t rows = fnn_min(fnn_max(plan->mc, FNN_BLOCK_NUMBERS / nc), most);
    const ptrdiff_t mc = direct ? i1 - i0 : fnn_min(i1 - i0, rows);
    block.g = g, block.plan = plan;
    block.c_rs = direct ? g->c_rs : FNN_NAME(staggered)(nc);
    block.accumulate = direct && g->accumulate;
    FNN_REAL *memory = NULL;
    if (!direct) {
        memory = (FNN_REAL *)fnn_workspace(FNN_SLOT_GEMM_C, (size_t)(mc * block.c_rs) * sizeof(FNN_REAL));
        if (memory == NULL)
            return FNN_NO_MEMORY;
    }
    for (block.i0 = i0; block.i0 < i1; block.i0 += mc) {
        block.i1 = fnn_min(block.i0 + mc, i1);
        for (block.j0 = j0; block.j0 < j1; block.j0 += nc) {
            block.j1 = fnn_min(block.j0 + nc, j1);
            block.c = direct ? g->c + block.i0 * g->c_rs + block.j0 : memory;
            const int code = FNN_NAME(run_block)(&block, direct);
            if (code)
                return code;
            if (!direct) {
                FNN_NAME(deliver)(g, &block);
                FNN_NAME(gemm_finish)(g, plan->swap, block.i0, block.i1, block.j0, block.j1);
            }
        }
    }
    return 0;
}

/* ---- entry points ---- */

/* Rows i0 .. i1 and columns j0 .. j1 of the product. */
FNN_STATIC int FNN_NAME(gemm_share)(const FNN_NAME(gemm_args) *args, const fnn_gemm_plan *plan, ptrdiff_t i0,
                                    ptrdiff_t i1, ptrdiff_t j0, ptrdiff_t j1)
{
    FNN_NAME(gemm_args) g = FNN_NAME(gemm_normal)(args);
    if (i0 >= i1 || j0 >= j1)
        return 0;
    if (plan->form == FNN_FORM_FILL || (g.accumulate && (g.row_bias || g.col_bias)) || (g.row_bias && g.col_bias)) {
        FNN_NAME(gemm_fill)(&g, i0, i1, j0, j1);
        g.accumulate = 1;
        g.row_bias = g.col_bias = NULL;
    }
    if (plan->swap) {
        g = FNN_NAME(gemm_transposed)(&g);
        const ptrdiff_t swapped_i0 = j0, swapped_i1 = j1;
        j0 = i0, j1 = i1, i0 = swapped_i0, i1 = swapped_i1;
    }
    if (plan->form == FNN_FORM_TILES)
        return FNN_NAME(gemm_tiles)(&g, plan, i0, i1, j0, j1);
    if (plan->form == FNN_FORM_DOT)
        FNN_NAME(gemm_dot)(&g, plan->kc, i0, i1, j0, j1);
    if (plan->form == FNN_FORM_COMBINE)
        FNN_NAME(gemm_combine)(&g, j0, j1);
    FNN_NAME(gemm_finish)(&g, plan->swap, i0, i1, j0, j1);
    return 0;
}

/* ---- B packed beforehand: panels of all k terms, one after the other, which can be entered at any p ---- */

/* How many numbers they are. */
FNN_STATIC ptrdiff_t FNN_NAME(gemm_panels_size)(ptrdiff_t k, ptrdiff_t n)
{
    return fnn_parts(n, FNN_LANES) * FNN_LANES * k;
}

FNN_STATIC void FNN_NAME(gemm_pack_panels)(const FNN_NAME(gemm_args) *args, FNN_REAL *panels)
{
    const FNN_NAME(gemm_args) g = FNN_NAME(gemm_normal)(args);
    const ptrdiff_t width = g.n > 0 ? FNN_NAME(panel_vecs)(g.n, FNN_USUAL_VECS) * FNN_LANES : 0;
    for (ptrdiff_t j = 0, cols; j < g.n; j += cols) {
        cols = fnn_min(width, g.n - j);
        FNN_NAME(gemm_pack_b)(&g, panels + j * g.k, 0, g.k, j, cols, fnn_parts(cols, FNN_LANES) * FNN_LANES);
    }
}

/* Whether the product would use them. */
FNN_STATIC int FNN_NAME(gemm_uses_panels)(const FNN_NAME(gemm_args) *args)
{
    FNN_NAME(gemm_args) g = *args;
    g.panels = g.b; /* looked at for NULL only */
    return FNN_NAME(gemm_plan)(&g).panels;
}

/* ---- threads: the product in parts of equal rows and columns ---- */

typedef struct {
    const FNN_NAME(gemm_args) *args;
    const fnn_gemm_plan *plan;
    ptrdiff_t rows, cols; /* of a part */
    ptrdiff_t across;     /* parts side by side */
} FNN_NAME(gemm_parts);

/* What a part of the product as planned, not swapped, takes on one thread: its tiles, and reading and packing all that
 * they need. */
static double FNN_NAME(part_cost)(const FNN_NAME(gemm_args) *g, const fnn_gemm_plan *plan, ptrdiff_t rows, ptrdiff_t cols)
{
    const double k = (double)g->k, a = (double)rows * k, b = (double)cols * k;
    double cost = (double)rows * (double)fnn_parts(cols, FNN_LANES) * k + FNN_COST_READ * (a + b) / FNN_LANES;
    if (plan->pack_a && g->a_cs != 1)
        cost += FNN_COST_TRANSPOSED_LOAD * a;
    if (plan->pack_b && g->b_cs != 1)
        cost += FNN_COST_TRANSPOSED_LOAD * b;
    return cost;
}

/* About `pieces` parts, rows by columns as the threads are through with them soonest. */
static FNN_NAME(gemm_parts) FNN_NAME(gemm_divide)(const FNN_NAME(gemm_args) *g, const fnn_gemm_plan *plan,
                                                  ptrdiff_t pieces, int threads)
{
    const int tiles = plan->form == FNN_FORM_TILES;
    const ptrdiff_t row_unit = tiles ? plan->rows : FNN_DOT_ROWS, col_unit = tiles ? plan->vecs * FNN_LANES : FNN_DIVIDE_COLS;
    FNN_NAME(gemm_parts) best = {NULL, plan, g->m, g->n, 1};
    double least = -1;
    for (ptrdiff_t down = 1; down <= fnn_min(pieces, FNN_MOST_DOWN); down++) {
        const ptrdiff_t rows = fnn_even_part(g->m, fnn_parts(g->m, down), row_unit);
        const ptrdiff_t cols = fnn_even_part(g->n, fnn_parts(g->n, fnn_parts(pieces, down)), col_unit);
        const ptrdiff_t across = fnn_parts(g->n, cols), parts = fnn_parts(g->m, rows) * across;
        /* in rows of the result as it lies in memory */
        const ptrdiff_t borders = plan->swap ? g->n * (parts / across - 1) : g->m * (across - 1);
        const double cost = (double)fnn_parts(parts, threads) * FNN_NAME(part_cost)(g, plan, rows, cols)
            + FNN_COST_BORDER * (double)borders / threads;
        if (least < 0 || cost < least) {
            least = cost;
            best.rows = rows, best.cols = cols, best.across = across;
        }
    }
    return best;
}

static int FNN_NAME(gemm_part)(void *context, ptrdiff_t part)
{
    const FNN_NAME(gemm_parts) *parts = (const FNN_NAME(gemm_parts) *)context;
    const FNN_NAME(gemm_args) *g = parts->args;
    const ptrdiff_t i = part / parts->across * parts->rows, j = part % parts->across * parts->cols;
    return FNN_NAME(gemm_share)(g, parts->plan, i, fnn_min(i + parts->rows, g->m), j, fnn_min(j + parts->cols, g->n));
}

/* How many parts: one for each thread, since each part packs again what it needs; two of a large product, where that is
 * little and a worker may be late; as many as polls are due where nothing is packed, and there is no poll inside them. */
static ptrdiff_t FNN_NAME(gemm_pieces)(const fnn_gemm_plan *plan, double work, int threads)
{
    if (plan->form != FNN_FORM_TILES)
        return fnn_max(2 * threads, (ptrdiff_t)(work * FNN_LANES / FNN_POLL_AFTER));
    return threads > 1 && work / threads > FNN_TWO_PARTS_WORK ? 2 * threads : threads;
}

FNN_STATIC int FNN_NAME(gemm)(const FNN_NAME(gemm_args) *args)
{
    const fnn_gemm_plan plan = FNN_NAME(gemm_plan)(args);
    const double work = (double)args->m * (double)args->n * ((double)args->k / FNN_LANES + 1);
    if (work < FNN_TEAM_WORK)
        return FNN_NAME(gemm_share)(args, &plan, 0, args->m, 0, args->n);
    const int threads = fnn_team(work, FNN_TEAM_WORK);
    const FNN_NAME(gemm_args) o = plan.swap ? FNN_NAME(gemm_transposed)(args) : *args;
    const FNN_NAME(gemm_args) normal = FNN_NAME(gemm_normal)(&o);
    FNN_NAME(gemm_parts) parts
        = FNN_NAME(gemm_divide)(&normal, &plan, FNN_NAME(gemm_pieces)(&plan, work, threads), threads);
    parts.args = args;
    if (plan.swap) {
        const ptrdiff_t rows = parts.rows;
        parts.rows = parts.cols, parts.cols = rows;
        parts.across = fnn_parts(args->n, parts.cols);
    }
    return fnn_run(FNN_NAME(gemm_part), &parts, fnn_parts(args->m, parts.rows) * parts.across, threads);
}

#undef FNN_REAL
#undef FNN_LANES
#undef FNN_NAME
#undef FNN_VEC
#undef FNN_LINE
