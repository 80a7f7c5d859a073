"""Convolution with kernels of 3 x 3 and many channels in Winograd's form: see engine/winograd.h. The result is in tiles of
4 x 4 pixels, or of 2 x 2 with a stride of 2, for which the gradients have no such form.

The kernels are transformed once, as many at a time as the workspace holds. Then each block of tiles goes through all
three steps: source to planes, products, planes to result. Channels are side by side for that, so the pixels of images
with channels first are transposed before and after.

The transforms mix the pixels of a tile, and the weights of a kernel: the rounding errors of a sum are those of the
largest. Where these are much larger than the sum's own terms, the direct form does it: kernels whose weights differ
much, tiles with a window of much smaller pixels (in a block of few such tiles only these), and blocks in which a result
is not finite. For the gradient of kernels, which sums over tiles, the same is asked of whole channels: the few that are
almost all zeros, or small beside a much larger number, are done again without the zeros: see conv_sparse.pxd.

Threads take as many kernels as are transformed at once, or parts of the tiles with sums of their own, where there are
enough of them to share: a block of tiles after the other costs them more, since each reads what the other has written.
"""

from common cimport real
from conv_blocks cimport *
from conv_pixels cimport run_pixels
from conv_planes cimport run_planes
from conv_sparse cimport CHANNELS_AT_ONCE, FEW_NUMBERS, UNEVEN, Places, Sparse
from fused cimport Activation
from libc.math cimport INFINITY, fmax, fmin
from libc.string cimport memcpy, memset

cdef extern from "engine/winograd.h" nogil:
    ctypedef struct Form "fnn_winograd_form":
        int stride
        int out, width "in"         # pixels of a tile of the result and of the source, in each direction
        int source, kernels, sums   # transformed numbers, in each direction
        int tile_cost, kernel_cost  # of their transforms, a vector at one point, in products of vectors
        double even

    const Form FORMS "fnn_winograd_forms"[2]
    const double EVEN_KERNEL "FNN_WINOGRAD_EVEN_KERNEL"
    const double EVEN_SUMS "FNN_WINOGRAD_EVEN_SUMS"
    const double LEAST_COUNT "FNN_WINOGRAD_LEAST_COUNT"
    const double LIMIT_STEP "FNN_WINOGRAD_LIMIT_STEP"
    void fnn_winograd_source_f32(
        int stride, float *v, Py_ssize_t plane, const float *d, Py_ssize_t line, Py_ssize_t pixel, Py_ssize_t count
    )
    void fnn_winograd_source_f64(
        int stride, double *v, Py_ssize_t plane, const double *d, Py_ssize_t line, Py_ssize_t pixel, Py_ssize_t count
    )
    void fnn_winograd_kernels_f32(
        int stride, float *u, Py_ssize_t plane, Py_ssize_t u_channel, const float *g, Py_ssize_t g_channel,
        Py_ssize_t g_kernel, const Py_ssize_t *at, Py_ssize_t channels, Py_ssize_t count, float *sizes
    )
    double fnn_winograd_spread_f32(const float *sizes, Py_ssize_t channels, Py_ssize_t kernels)
    void fnn_winograd_sizes_f32(
        float *sums, float *squares, const float *x, Py_ssize_t step, Py_ssize_t pixels, Py_ssize_t channels
    )
    void fnn_winograd_channels_f32(
        float *sums, float *most, const float *x, Py_ssize_t step, Py_ssize_t pixels, Py_ssize_t channels
    )
    bint fnn_winograd_is_even_f32(
        int stride, const float *sums, const float *squares, Py_ssize_t line, Py_ssize_t lines, Py_ssize_t columns,
        double spread
    )
    void fnn_winograd_kernels_f64(
        int stride, double *u, Py_ssize_t plane, Py_ssize_t u_channel, const double *g, Py_ssize_t g_channel,
        Py_ssize_t g_kernel, const Py_ssize_t *at, Py_ssize_t channels, Py_ssize_t count, double *sizes
    )
    double fnn_winograd_spread_f64(const double *sizes, Py_ssize_t channels, Py_ssize_t kernels)
    void fnn_winograd_sizes_f64(
        double *sums, double *squares, const double *x, Py_ssize_t step, Py_ssize_t pixels, Py_ssize_t channels
    )
    void fnn_winograd_channels_f64(
        double *sums, double *most, const double *x, Py_ssize_t step, Py_ssize_t pixels, Py_ssize_t channels
    )
    bint fnn_winograd_is_even_f64(
        int stride, const double *sums, const double *squares, Py_ssize_t line, Py_ssize_t lines, Py_ssize_t columns,
        double spread
    )
    bint fnn_winograd_result_f32(
        int stride, float *y, Py_ssize_t line, Py_ssize_t pixel, const float *m, Py_ssize_t plane, const float *bias,
        Py_ssize_t lines, Py_ssize_t columns, Py_ssize_t count
    )
    bint fnn_winograd_result_f64(
        int stride, double *y, Py_ssize_t line, Py_ssize_t pixel, const double *m, Py_ssize_t plane, const double *bias,
        Py_ssize_t lines, Py_ssize_t columns, Py_ssize_t count
    )
    void fnn_winograd_multiply_f32(
        int stride, const float *v, Py_ssize_t v_plane, Py_ssize_t v_tile, const float *u, Py_ssize_t u_plane,
        float *m, Py_ssize_t m_plane, Py_ssize_t tiles, Py_ssize_t channels, Py_ssize_t vectors, Py_ssize_t vecs
    )
    void fnn_winograd_multiply_f64(
        int stride, const double *v, Py_ssize_t v_plane, Py_ssize_t v_tile, const double *u, Py_ssize_t u_plane,
        double *m, Py_ssize_t m_plane, Py_ssize_t tiles, Py_ssize_t channels, Py_ssize_t vectors, Py_ssize_t vecs
    )
    void fnn_winograd_gradient_f32(
        float *v, Py_ssize_t plane, const float *y, Py_ssize_t line, Py_ssize_t pixel, Py_ssize_t lines,
        Py_ssize_t columns, Py_ssize_t count
    )
    void fnn_winograd_sum_f32(
        const float *g, Py_ssize_t g_tile, const float *v, Py_ssize_t v_tile, float *s, Py_ssize_t tiles,
        Py_ssize_t kernels, Py_ssize_t vectors, bint add
    )
    bint fnn_winograd_weight_f32(
        float *grad, Py_ssize_t row, Py_ssize_t column, Py_ssize_t channel, const float *s, Py_ssize_t plane,
        Py_ssize_t count
    )
    void fnn_winograd_gradient_f64(
        double *v, Py_ssize_t plane, const double *y, Py_ssize_t line, Py_ssize_t pixel, Py_ssize_t lines,
        Py_ssize_t columns, Py_ssize_t count
    )
    void fnn_winograd_sum_f64(
        const double *g, Py_ssize_t g_tile, const double *v, Py_ssize_t v_tile, double *s, Py_ssize_t tiles,
        Py_ssize_t kernels, Py_ssize_t vectors, bint add
    )
    bint fnn_winograd_weight_f64(
        double *grad, Py_ssize_t row, Py_ssize_t column, Py_ssize_t channel, const double *s, Py_ssize_t plane,
        Py_ssize_t count
    )

cdef enum:
    # slots of the workspace
    PLANES = TRANSFORMED + 1  # of a block of tiles, and what else it needs
    PIXELS = SOURCE           # of a block of tiles that are summed

    STEP = 4  # pixels of the source from one tile to the next, with either stride

    KERNEL_BYTES = 9 << 19  # of transformed kernels, which with the planes stay below 8 MiB
    LEAST_KERNELS = 32      # at once
    # of which the rounding errors, which are larger than those of the direct form, average out:
    LEAST_CHANNELS = 32     # channels that are summed,
    LEAST_SUMMED = 96       # and tiles, which a gradient of kernels sums
    SIZES = 10              # numbers that the weights of a kernel are judged by
    FEW_UNEVEN = 8          # the part of tiles, or of vectors of kernels, that may be done twice is one of so many
    PLANE_BYTES = 1 << 20   # of the planes of a block,
    LEAST_TILES = 32        # or of so many tiles: for each block the transformed kernels are read again
    MOST_BLOCK_BYTES = 5 << 19  # of a block's planes and
    TILE_PIXELS = 25        # pixels for each of its tiles
    MOST_PLANE_BYTES = 3 << 20  # of the planes of the blocks that are summed at once,
    SUMMED_TILES = 112      # and so many tiles,
    PART_TILES = 96         # of a part of the tiles whose sums are added to those of the others, at least
    LEAST_BLOCKS = 4        # of tiles, or parts, for as many threads, if that leaves
    FEW_TILES = 8           # tiles in a block
    LINE = 16               # numbers between planes, so that they do not begin at the same place of a cache
    LINE_BYTES = 64         # of a cache

cdef struct Winograd:
    # a job in this form, of arrays of one dtype
    const Job *job
    const Form *form
    int threads
    const Activation *activation
    bint channels_last
    Py_ssize_t itemsize, lanes
    const void *source
    const void *weight
    const void *bias
    const void *grad_out
    void *result
    Py_ssize_t first, count        # kernels that are worked on
    Py_ssize_t vectors, vecs       # that these are, and in a panel of them
    void *kernels                  # transformed
    bint is_transformed            # all of them were, beforehand
    Py_ssize_t kernel_plane
    Py_ssize_t channels_at_once    # of a part of the transform
    void *sizes                    # of the kernels' weights, for each part of the transform
    double *spreads                # of each vector of kernels
    double spread                  # of all that are even
    Py_ssize_t uneven              # vectors that are not
    Py_ssize_t lines, columns      # of tiles in an image
    Plan plan                      # blocks of tiles
    # a gradient of kernels: parts of the blocks of tiles, each with sums of its own in `kernels`,
    Py_ssize_t parts, blocks_of_part
    Py_ssize_t first_block, last_block
    # and the planes of the blocks that are summed at once
    Py_ssize_t block, blocks, tiles, tiles_at_once
    void *source_planes
    void *gradient_planes
    Py_ssize_t source_tile, gradient_tile  # from one tile to the next
    void *counted                          # of each of these blocks: the channels' sums, and their largest numbers,
    double *counts                         # and of all; in the end, the sum over the largest number
    Py_ssize_t *uneven_channels            # which are too few,
    Py_ssize_t *uneven_kernels
    Py_ssize_t few_channels, few_kernels   # how many are

cdef struct Pixels:
    # a block of the source with its channels side by side, from the image's line `top` and column `left` on
    const void *first
    Py_ssize_t top, left, image, line, pixel


cdef inline Py_ssize_t padded(Py_ssize_t count, Py_ssize_t lanes) noexcept nogil:
    """`count` numbers in whole vectors."""
    return fnn_parts(count, lanes) * lanes


cdef inline bint is_dense(const Taps *taps) noexcept nogil:
    """Whether three taps read positions that follow each other, and two of them at least lie in the source.

    A result that is a sum of few terms is small beside those of its tile, and their rounding errors are mixed.
    """
    return (
        taps.count == 3 and taps.step <= 2 and taps.high - taps.low == 2
        and taps.low >= -1 and (taps.outputs - 1) * taps.step + taps.high <= taps.length
    )


cdef inline const Form *form_of(const Job *job) noexcept nogil:
    return &FORMS[job.rows.step - 1]


cdef inline Py_ssize_t source_planes(const Form *form) noexcept nogil:
    return form.source * form.source


cdef inline Py_ssize_t kernel_planes(const Form *form) noexcept nogil:
    return form.kernels * form.kernels


cdef inline Py_ssize_t product_planes(const Form *form) noexcept nogil:
    return form.sums * form.sums


cdef inline Py_ssize_t kernels_at_once(const Job *job, Py_ssize_t itemsize, Py_ssize_t lanes) noexcept nogil:
    """How many kernels are transformed at once, at most: as many as there is room for."""
    cdef Py_ssize_t most = KERNEL_BYTES // (kernel_planes(form_of(job)) * fnn_max(job.channels, 1) * itemsize)
    return most - most % lanes


cdef inline double tiles_of_job(const Job *job) noexcept nogil:
    cdef Py_ssize_t out = form_of(job).out
    return <double> job.images * fnn_parts(job.rows.outputs, out) * fnn_parts(job.columns.outputs, out)


cdef inline bint saves_time(const Job *job, Py_ssize_t itemsize, Py_ssize_t lanes, bint summed) noexcept nogil:
    """Whether this form is faster than the direct one: in multiplications of whole vectors."""
    cdef const Form *form = form_of(job)
    cdef double pixels = <double> job.images * job.rows.outputs * job.columns.outputs
    cdef double tiles = tiles_of_job(job)
    cdef double channels = <double> fnn_parts(job.channels, lanes)
    cdef double kernels = <double> fnn_parts(job.m, lanes)
    # whose lanes are pixels where channels are first, so that kernels need not fill vectors
    cdef bint fill = summed or job.result_i == 1
    cdef double direct = 9 * pixels * job.channels * (kernels if fill else <double> job.m / lanes)
    cdef double products = source_planes(form) * tiles * job.channels * kernels
    cdef Py_ssize_t passes = fnn_parts(job.m, kernels_at_once(job, itemsize, lanes))
    cdef double transforms = (
        form.tile_cost * tiles * (passes * source_planes(form) * channels + product_planes(form) * kernels)
        + form.kernel_cost * kernel_planes(form) * job.channels * kernels
    )
    return products + transforms < direct


cdef inline bint is_worth_winograd(const Job *job, Py_ssize_t itemsize, Py_ssize_t lanes, bint summed) noexcept nogil:
    """Whether a job without groups is one for this form, and faster in it. With `summed` the gradient of its kernels."""
    return (
        is_dense(&job.rows) and is_dense(&job.columns) and job.rows.step == job.columns.step
        and (job.rows.step == 1 or not summed) and job.channels >= LEAST_CHANNELS
        and kernels_at_once(job, itemsize, lanes) >= LEAST_KERNELS and saves_time(job, itemsize, lanes, summed)
    )


cdef inline void plan_tiles(Winograd *w, Py_ssize_t tiles) noexcept nogil:
    """Choose blocks of about so many tiles."""
    w.plan.columns = fnn_even_part(w.columns, tiles, 1)
    w.plan.lines = w.plan.images = 1
    if w.plan.columns == w.columns:
        w.plan.lines = fnn_even_part(w.lines, fnn_max(tiles // w.columns, 1), 1)
    if w.plan.lines == w.lines:
        w.plan.images = fnn_even_part(w.job.images, fnn_max(tiles // (w.lines * w.columns), 1), 1)


cdef inline void plan_winograd(Winograd *w) noexcept nogil:
    """Choose how many kernels and tiles are worked on at once."""
    cdef const Job *job = w.job
    cdef Py_ssize_t tiles, bytes_of_tile, bytes_of_pixels = 0
    w.count = fnn_even_part(job.m, kernels_at_once(job, w.itemsize, w.lanes), w.lanes)
    w.lines, w.columns = fnn_parts(job.rows.outputs, w.form.out), fnn_parts(job.columns.outputs, w.form.out)
    bytes_of_tile = (
        source_planes(w.form) * padded(job.channels, w.lanes) + product_planes(w.form) * w.count
    ) * w.itemsize
    if not w.channels_last:  # which are copied, side by side
        bytes_of_pixels = TILE_PIXELS * job.channels * w.itemsize
    tiles = fnn_max(
        PLANE_BYTES // bytes_of_tile, fnn_min(LEAST_TILES, MOST_BLOCK_BYTES // (bytes_of_tile + bytes_of_pixels))
    )
    plan_tiles(w, fnn_min(tiles, fnn_max(fnn_parts(job.images * w.lines * w.columns, LEAST_BLOCKS), FEW_TILES)))


cdef inline void set_kernels(Winograd *w, Py_ssize_t first) noexcept nogil:
    """Go to the kernels from `first` on."""
    w.count = fnn_min(w.count, w.job.m - first)
    w.first, w.vectors = first, fnn_parts(w.count, w.lanes)
    w.vecs = 3 if w.vectors % 2 and w.vectors % 3 == 0 else 2
    w.kernel_plane = w.job.channels * w.vectors * w.lanes + LINE
    w.channels_at_once = padded((1 << 13) // w.count, w.lanes)
    w.spreads = <double *> (<char *> w.kernels + kernel_planes(w.form) * w.kernel_plane * w.itemsize)
    w.sizes = w.spreads + w.vectors


cdef inline Py_ssize_t bytes_of_kernels(const Winograd *w) noexcept nogil:
    """Of all that `set_kernels` places, for as many kernels as are worked on at once; whole cache lines."""
    cdef Py_ssize_t vectors = fnn_parts(w.count, w.lanes), parts = fnn_parts(w.job.channels, w.lanes)
    cdef Py_ssize_t numbers = (
        kernel_planes(w.form) * (w.job.channels * vectors * w.lanes + LINE) + parts * vectors * SIZES * w.lanes
    )
    return padded(numbers * w.itemsize + vectors * <Py_ssize_t> sizeof(double), LINE_BYTES)


cdef inline Py_ssize_t parts_of_tiles(const Winograd *w) noexcept nogil:
    return (
        fnn_parts(w.job.images, w.plan.images) * fnn_parts(w.lines, w.plan.lines)
        * fnn_parts(w.columns, w.plan.columns)
    )


cdef inline Block block_of_tiles(const Winograd *w, Py_ssize_t part) noexcept nogil:
    cdef Py_ssize_t across = fnn_parts(w.columns, w.plan.columns), down = fnn_parts(w.lines, w.plan.lines)
    cdef Block block
    block.column = part % across * w.plan.columns
    block.line = part // across % down * w.plan.lines
    block.image = part // across // down * w.plan.images
    block.columns = fnn_min(w.plan.columns, w.columns - block.column)
    block.lines = fnn_min(w.plan.lines, w.lines - block.line)
    block.images = fnn_min(w.plan.images, w.job.images - block.image)
    return block


cdef inline void transform_kernels(const Winograd *w, const real *weight, Py_ssize_t part) noexcept nogil:
    """The transform of some channels of all kernels that are worked on, in panels [channel, kernel]."""
    cdef const Job *job = w.job
    cdef Py_ssize_t end = fnn_min((part + 1) * w.channels_at_once, job.channels)
    cdef Py_ssize_t at[9]
    cdef Py_ssize_t c, v, r, s, panel, width
    cdef const real *source
    cdef real *target
    cdef real *sizes = <real *> w.sizes + part * w.vectors * SIZES * w.lanes
    memset(sizes, 0, w.vectors * SIZES * w.lanes * sizeof(real))
    for r in range(3):
        for s in range(3):
            at[3 * (job.rows.at[r] - job.rows.low) + job.columns.at[s] - job.columns.low] = (
                job.rows.index[r] * job.weight_row + job.columns.index[s] * job.weight_column
            )
    for panel from 0 <= panel < w.vectors by w.vecs:
        width = fnn_min(w.vecs, w.vectors - panel)
        for c from part * w.channels_at_once <= c < end by w.lanes:
            for v in range(panel, panel + width):
                source = weight + c * job.weight_channel + (w.first + v * w.lanes) * job.weight_i
                target = <real *> w.kernels + (panel * job.channels + c * width + v - panel) * w.lanes
                if real is float:
                    fnn_winograd_kernels_f32(
                        w.form.stride, target, w.kernel_plane, width * w.lanes, source, job.weight_channel,
                        job.weight_i, at, fnn_min(w.lanes, end - c), fnn_min(w.lanes, w.count - v * w.lanes),
                        sizes + v * SIZES * w.lanes
                    )
                else:
                    fnn_winograd_kernels_f64(
                        w.form.stride, target, w.kernel_plane, width * w.lanes, source, job.weight_channel,
                        job.weight_i, at, fnn_min(w.lanes, end - c), fnn_min(w.lanes, w.count - v * w.lanes),
                        sizes + v * SIZES * w.lanes
                    )


cdef inline void measure_kernels(Winograd *w, real *sizes) noexcept nogil:
    """The spread of each vector of kernels, from what the parts of the transform have found."""
    cdef Py_ssize_t of_vector = SIZES * w.lanes, parts = fnn_parts(w.job.channels, w.channels_at_once)
    cdef Py_ssize_t v, i, part, kernels
    cdef real *first
    cdef real *other
    for v in range(w.vectors):
        first = sizes + v * of_vector
        for part in range(1, parts):
            other = first + part * w.vectors * of_vector
            for i in range(9 * w.lanes):
                first[i] += other[i]
            for i in range(9 * w.lanes, of_vector):
                first[i] = fmax(first[i], other[i])
        kernels = fnn_min(w.lanes, w.count - v * w.lanes)
        if real is float:
            w.spreads[v] = fnn_winograd_spread_f32(first, w.job.channels, kernels)
        else:
            w.spreads[v] = fnn_winograd_spread_f64(first, w.job.channels, kernels)


cdef inline bint is_uneven(const Winograd *w, Py_ssize_t vector) noexcept nogil:
    return w.spreads[vector] > EVEN_KERNEL * EVEN_KERNEL * fmax(1, w.job.channels / 96.)


cdef inline void judge_kernels(Winograd *w) noexcept nogil:
    """Count the vectors of kernels that are uneven; the spread of the others is what tiles are held against."""
    cdef Py_ssize_t v
    w.spread = w.uneven = 0
    for v in range(w.vectors):
        if is_uneven(w, v):
            w.uneven += 1
        else:
            w.spread = fmax(w.spread, w.spreads[v])
    w.spread /= w.form.even * w.form.even


cdef inline Py_ssize_t source_length(const Winograd *w, Py_ssize_t tiles) noexcept nogil:
    """How many pixels in a line are read by tiles beside each other."""
    return tiles * STEP + w.form.width - STEP


cdef inline Pixels window_of(
    const Winograd *w, const Block *block, Py_ssize_t *height, Py_ssize_t *width
) noexcept nogil:
    """The part of the image that the block's tiles read, as a copy with `pixel` numbers for each pixel."""
    cdef const Taps *rows = &w.job.rows
    cdef const Taps *columns = &w.job.columns
    cdef Pixels pixels
    cdef Py_ssize_t top = block.line * STEP + rows.low, left = block.column * STEP + columns.low
    pixels.top, pixels.left = fnn_max(top, 0), fnn_max(left, 0)
    height[0] = fnn_max(fnn_min(top + source_length(w, block.lines), rows.length) - pixels.top, 0)
    width[0] = fnn_max(fnn_min(left + source_length(w, block.columns), columns.length) - pixels.left, 0)
    pixels.pixel = padded(w.job.channels, w.lanes)
    pixels.line = width[0] * pixels.pixel
    pixels.image = height[0] * pixels.line
    return pixels


cdef inline Pixels pixels_in_place(const Winograd *w, const Block *block) noexcept nogil:
    """The images of a block where channels are last."""
    cdef Pixels pixels
    pixels.top = pixels.left = 0
    pixels.pixel = w.job.channels
    pixels.line = w.job.columns.length * pixels.pixel
    pixels.image = w.job.rows.length * pixels.line
    pixels.first = <const char *> w.source + block.image * pixels.image * w.itemsize
    return pixels


cdef inline void transpose_window(
    const Winograd *w, const Block *block, const Pixels *pixels, Py_ssize_t height, Py_ssize_t width, real *copy
) noexcept nogil:
    """The block's pixels, of images with channels first."""
    cdef Py_ssize_t plane = w.job.rows.length * w.job.columns.length
    cdef Py_ssize_t image, line
    cdef Py_ssize_t lines = height, run = width
    cdef const real *source
    if width == w.job.columns.length:  # one run over all lines
        lines, run = 1, height * width
    for image in range(block.images):
        source = (
            <const real *> w.source + (block.image + image) * w.job.channels * plane
            + pixels.top * w.job.columns.length + pixels.left
        )
        for line in range(lines):
            transpose(
                copy + image * pixels.image + line * pixels.line, pixels.pixel,
                source + line * w.job.columns.length, plane, w.job.channels, run
            )


cdef inline void transform_tile(
    const Winograd *w, const Pixels *pixels, Py_ssize_t image, Py_ssize_t line, Py_ssize_t column, real *patch,
    real *v, Py_ssize_t plane,
) noexcept nogil:
    """The planes of one tile, whose place is that of its first pixel; what is outside of the image counts as zero."""
    cdef Py_ssize_t channels = w.job.channels, height = w.job.rows.length, width = w.job.columns.length
    cdef Py_ssize_t size = w.form.width, y, x, of_line = pixels.line, of_pixel = pixels.pixel
    cdef const real *first = <const real *> pixels.first + image * pixels.image
    cdef const real *tile = patch
    cdef const real *from_line
    if line >= 0 and column >= 0 and line + size <= height and column + size <= width:
        tile = first + (line - pixels.top) * of_line + (column - pixels.left) * of_pixel
    else:
        for y in range(line, line + size):
            from_line = first + (y - pixels.top) * of_line - pixels.left * of_pixel
            for x in range(column, column + size):
                if 0 <= y < height and 0 <= x < width:
                    memcpy(patch, from_line + x * of_pixel, channels * sizeof(real))
                else:
                    memset(patch, 0, channels * sizeof(real))
                patch += channels
        of_line, of_pixel = size * channels, channels
    if real is float:
        fnn_winograd_source_f32(w.form.stride, v, plane, tile, of_line, of_pixel, channels)
    else:
        fnn_winograd_source_f64(w.form.stride, v, plane, tile, of_line, of_pixel, channels)


cdef inline void transform_source(
    const Winograd *w, const Block *block, const Pixels *pixels, real *patch, real *v, Py_ssize_t plane,
    Py_ssize_t of_tile,
) noexcept nogil:
    """The planes of all tiles of a block, which are `of_tile` numbers apart."""
    cdef Py_ssize_t image, line, column
    for image in range(block.images):
        for line in range(block.line, block.line + block.lines):
            for column in range(block.column, block.column + block.columns):
                transform_tile(
                    w, pixels, image, line * STEP + w.job.rows.low, column * STEP + w.job.columns.low, patch, v, plane
                )
                v += of_tile


cdef inline bint transform_line(
    const Winograd *w, real *y, Py_ssize_t of_line, Py_ssize_t of_pixel, Py_ssize_t lines, Py_ssize_t columns,
    const real *m, Py_ssize_t plane, const real *bias,
) noexcept nogil:
    """A line of tiles of the result: `lines` lines of `columns` pixels. Whether all of it is finite."""
    cdef bint finite = True
    cdef Py_ssize_t column
    for column from 0 <= column < columns by w.form.out:
        if real is float:
            finite &= fnn_winograd_result_f32(
                w.form.stride, y + column * of_pixel, of_line, of_pixel, m, plane, bias, lines,
                fnn_min(w.form.out, columns - column), w.count
            )
        else:
            finite &= fnn_winograd_result_f64(
                w.form.stride, y + column * of_pixel, of_line, of_pixel, m, plane, bias, lines,
                fnn_min(w.form.out, columns - column), w.count
            )
        m += w.vectors * w.lanes
    return finite


cdef inline bint transform_result(
    const Winograd *w, const Block *block, const real *m, Py_ssize_t plane, const real *bias, real *pixels
) noexcept nogil:
    """The block of the result, line by line of tiles; whether all of it is finite. `pixels` holds such a line."""
    cdef const Job *job = w.job
    cdef Py_ssize_t image, tile, line, lines, i
    cdef Py_ssize_t columns = fnn_min(block.columns * w.form.out, job.columns.outputs - block.column * w.form.out)
    cdef Py_ssize_t width = w.vectors * w.lanes
    cdef bint whole = columns == job.columns.outputs
    cdef real *y
    for image in range(block.images):
        for tile in range(block.line, block.line + block.lines):
            lines = fnn_min(w.form.out, job.rows.outputs - tile * w.form.out)
            y = (
                <real *> w.result + (block.image + image) * job.result_image + w.first * job.result_i
                + tile * w.form.out * job.result_line + block.column * w.form.out * job.result_column
            )
            if w.channels_last:
                if not transform_line(w, y, job.result_line, job.result_column, lines, columns, m, plane, bias):
                    return False
                if w.activation != NULL:
                    for line in range(lines * columns):
                        activate(
                            w.activation,
                            y + line // columns * job.result_line + line % columns * job.result_column, w.count
                        )
            else:
                if not transform_line(w, pixels, columns * width, width, lines, columns, m, plane, bias):
                    return False
                if w.activation != NULL:
                    activate(w.activation, pixels, lines * columns * width)
                if whole:
                    transpose(y, job.result_i, <const real *> pixels, width, lines * columns, w.count)
                else:
                    for line in range(lines):
                        transpose(
                            y + line * job.result_line, job.result_i, <const real *> pixels + line * columns * width,
                            width, columns, w.count
                        )
            m += block.columns * width
    return True


cdef inline Py_ssize_t frame_size(const Winograd *w, const Block *block) noexcept nogil:
    """Of the block's source, with the pixels outside of the image."""
    return source_length(w, block.lines) * source_length(w, block.columns)


cdef inline const real *pixel_of_window(
    const real *first, const Pixels *pixels, const Pixels *window, Py_ssize_t image
) noexcept nogil:
    """The first pixel of the window, among `pixels` that begin at `first`."""
    return (
        first + image * pixels.image + (window.top - pixels.top) * pixels.line
        + (window.left - pixels.left) * pixels.pixel
    )


cdef inline Py_ssize_t mark_tiles(
    const Winograd *w, const Block *block, const Pixels *pixels, const Pixels *window, Py_ssize_t height,
    Py_ssize_t width, real *sums, char *marks,
) noexcept nogil:
    """Set a mark for each tile that is uneven; how many are. `sums` has room for two frames."""
    cdef const Job *job = w.job
    cdef Py_ssize_t line_of_frame = source_length(w, block.columns), image, line, column, at, count = 0
    cdef Py_ssize_t top = window.top - block.line * STEP - job.rows.low
    cdef Py_ssize_t left = window.left - block.column * STEP - job.columns.low
    cdef Py_ssize_t lines, columns
    cdef real *squares = sums + frame_size(w, block)
    cdef const real *source
    cdef bint even
    memset(sums, 0, 2 * frame_size(w, block) * sizeof(real))
    for image in range(block.images):
        source = pixel_of_window(<const real *> pixels.first, pixels, window, image)
        for line in range(height):
            at = (top + line) * line_of_frame + left
            if real is float:
                fnn_winograd_sizes_f32(
                    sums + at, squares + at, source + line * pixels.line, pixels.pixel, width, job.channels
                )
            else:
                fnn_winograd_sizes_f64(
                    sums + at, squares + at, source + line * pixels.line, pixels.pixel, width, job.channels
                )
        for line in range(block.lines):
            lines = fnn_min(w.form.out, job.rows.outputs - (block.line + line) * w.form.out)
            for column in range(block.columns):
                columns = fnn_min(w.form.out, job.columns.outputs - (block.column + column) * w.form.out)
                at = (line * line_of_frame + column) * STEP
                if real is float:
                    even = fnn_winograd_is_even_f32(
                        w.form.stride, sums + at, squares + at, line_of_frame, lines, columns, w.spread
                    )
                else:
                    even = fnn_winograd_is_even_f64(
                        w.form.stride, sums + at, squares + at, line_of_frame, lines, columns, w.spread
                    )
                marks[0] = not even
                marks += 1
                count += not even
    return count


cdef inline int run_direct(
    const Winograd *w, const Block *block, Py_ssize_t first, Py_ssize_t kernels, const real *bias
) noexcept nogil:
    """Some kernels' results for the tiles of the block, by the direct form; -1 where there is no memory."""
    cdef Py_ssize_t rows_at[3]
    cdef Py_ssize_t columns_at[3]
    cdef Py_ssize_t t, i, line = block.line * w.form.out, column = block.column * w.form.out
    cdef Job job = w.job[0]
    cdef const real *source = <const real *> w.source
    cdef const real *weight = <const real *> w.weight
    cdef real *result = <real *> w.result
    job.images, job.m = block.images, kernels
    for t in range(3):
        rows_at[t] = job.rows.at[t] + line * job.rows.step
        columns_at[t] = job.columns.at[t] + column * job.columns.step
    job.rows.at, job.columns.at = rows_at, columns_at
    job.rows.low += line * job.rows.step
    job.rows.high += line * job.rows.step
    job.columns.low += column * job.columns.step
    job.columns.high += column * job.columns.step
    job.rows.outputs = fnn_min(block.lines * w.form.out, job.rows.outputs - line)
    job.columns.outputs = fnn_min(block.columns * w.form.out, job.columns.outputs - column)
    source += block.image * job.channels * job.rows.length * job.columns.length
    weight += first * job.weight_i
    if bias != NULL:
        bias += first
    result += (
        block.image * job.result_image + first * job.result_i + line * job.result_line + column * job.result_column
    )
    if not w.channels_last:
        return run_planes(&job, source, weight, bias, result, w.activation)
    if run_pixels(&job, source, weight, bias, result, NULL):
        return -1
    if w.activation != NULL:  # not of the kernels beside these
        for i in range(job.images * job.rows.outputs * job.columns.outputs):
            line = i // job.columns.outputs
            activate(
                w.activation,
                result + line // job.rows.outputs * job.result_image + line % job.rows.outputs * job.result_line
                + i % job.columns.outputs * job.result_column,
                kernels
            )
    return 0


cdef inline int mend_tiles(const Winograd *w, const Block *block, const char *marks, const real *bias) noexcept nogil:
    """The marked tiles, and the kernels that are uneven, by the direct form; -1 where there is no memory."""
    cdef Block run
    cdef Py_ssize_t line, column, v
    for line in range(block.images * block.lines):
        run.image, run.line = block.image + line // block.lines, block.line + line % block.lines
        run.images = run.lines = 1
        column = 0
        while column < block.columns:
            run.columns = 0
            while column + run.columns < block.columns and marks[column + run.columns]:
                run.columns += 1
            run.column = block.column + column
            if run.columns and run_direct(w, &run, w.first, w.count, bias):
                return -1
            column += run.columns + 1
        marks += block.columns
    if w.uneven:
        for v in range(w.vectors):
            if is_uneven(w, v) and run_direct(
                w, block, w.first + v * w.lanes, fnn_min(w.lanes, w.count - v * w.lanes), bias
            ):
                return -1
    return 0


cdef inline int run_tiles(const Winograd *w, const real *bias, Py_ssize_t part) noexcept nogil:
    """One block of tiles; -1 where there is no memory."""
    cdef Block block = block_of_tiles(w, part)
    cdef Py_ssize_t tiles = block.images * block.lines * block.columns, uneven
    cdef Py_ssize_t channels = padded(w.job.channels, w.lanes), kernels = w.vectors * w.lanes
    cdef Py_ssize_t v_plane = tiles * channels + LINE, m_plane = tiles * kernels + LINE
    cdef Py_ssize_t height, width, v_size, m_size, size, line = w.form.out * w.form.out * block.columns * kernels
    cdef Pixels pixels, window
    cdef real *v
    cdef real *m
    cdef real *biases
    cdef real *patch
    cdef real *copy
    cdef char *marks
    if w.uneven * FEW_UNEVEN > w.vectors:
        return run_direct(w, &block, w.first, w.count, bias)
    window = window_of(w, &block, &height, &width)
    # the line of the result takes the place of the source's pixels
    size = fnn_max(line, 0 if w.channels_last else block.images * window.image) + w.lanes
    v_size, m_size = source_planes(w.form) * v_plane, product_planes(w.form) * m_plane
    v = <real *> fnn_workspace(
        PLANES, (v_size + m_size + source_planes(w.form) * channels + kernels + size) * sizeof(real) + tiles
    )
    if v == NULL:
        return -1
    m = v + v_size
    biases = m + m_size
    patch = biases + kernels
    copy = patch + source_planes(w.form) * channels
    marks = <char *> (copy + size)
    if w.channels_last:
        pixels = pixels_in_place(w, &block)
    else:
        pixels = window
        pixels.first = copy
        transpose_window(w, &block, &pixels, height, width, copy)
    uneven = mark_tiles(w, &block, &pixels, &window, height, width, v, marks)
    if uneven * FEW_UNEVEN > tiles:
        return run_direct(w, &block, w.first, w.count, bias)
    transform_source(w, &block, &pixels, patch, v, v_plane, channels)
    if real is float:
        fnn_winograd_multiply_f32(
            w.form.stride, v, v_plane, channels, <const real *> w.kernels, w.kernel_plane, m, m_plane, tiles,
            w.job.channels, w.vectors, w.vecs
        )
    else:
        fnn_winograd_multiply_f64(
            w.form.stride, v, v_plane, channels, <const real *> w.kernels, w.kernel_plane, m, m_plane, tiles,
            w.job.channels, w.vectors, w.vecs
        )
    memset(biases, 0, kernels * sizeof(real))
    if bias != NULL:
        memcpy(biases, bias + w.first, w.count * sizeof(real))
    if not transform_result(w, &block, <const real *> m, m_plane, <const real *> biases, copy):
        return run_direct(w, &block, w.first, w.count, bias)
    if uneven or w.uneven:
        return mend_tiles(w, &block, marks, bias)
    return 0


cdef inline Py_ssize_t tiles_of(const Block *block) noexcept nogil:
    return block.images * block.lines * block.columns


cdef inline Py_ssize_t tiles_of_block(const Winograd *w) noexcept nogil:
    """At most."""
    return w.plan.images * w.plan.lines * w.plan.columns


cdef inline Py_ssize_t plane_of_sums(const Winograd *w) noexcept nogil:
    return w.count * padded(w.job.channels, w.lanes) + LINE


cdef inline Py_ssize_t channels_of_sums(const Winograd *w) noexcept nogil:
    """Those of the source and of the gradient, in whole vectors."""
    return padded(w.job.channels, w.lanes) + padded(w.count, w.lanes)


cdef inline Py_ssize_t bytes_of_sums(const Winograd *w) noexcept nogil:
    """Of a part, whole cache lines."""
    return padded(kernel_planes(w.form) * plane_of_sums(w) * w.itemsize, LINE_BYTES)


cdef inline void plan_sums(Winograd *w) noexcept nogil:
    """Choose parts of the tiles, by sizes alone, and how many blocks are summed at once."""
    cdef Py_ssize_t tiles = w.job.images * w.lines * w.columns, most, parts
    plan_tiles(w, fnn_min(tiles_of_block(w), SUMMED_TILES // LEAST_BLOCKS))
    # with a distance that is no power of two, since products go through the tiles of a few numbers
    w.source_tile = padded(w.job.channels, w.lanes) + LINE
    w.gradient_tile = padded(w.count, w.lanes) + LINE
    most = MOST_PLANE_BYTES // (
        (source_planes(w.form) * w.source_tile + product_planes(w.form) * w.gradient_tile) * w.itemsize
    )
    w.blocks = fnn_max(fnn_min(SUMMED_TILES, most) // tiles_of_block(w), 1)
    w.tiles_at_once = w.blocks * tiles_of_block(w)
    most = fnn_min(KERNEL_BYTES // bytes_of_sums(w), tiles // PART_TILES)
    parts = 4 if most >= 4 else 2 if most >= 2 else 1  # which two threads share evenly
    w.blocks_of_part = fnn_parts(parts_of_tiles(w), parts)
    w.parts = fnn_parts(parts_of_tiles(w), w.blocks_of_part)


cdef inline Py_ssize_t plane_of(const Winograd *w, Py_ssize_t of_tile) noexcept nogil:
    """The size of a plane of the tiles that are summed at once."""
    return w.tiles_at_once * of_tile + LINE


cdef inline size_t bytes_of_planes(const Winograd *w) noexcept nogil:
    """Of what the blocks of tiles that are summed at once take."""
    cdef Py_ssize_t planes = source_planes(w.form) * plane_of(w, w.source_tile)
    planes += product_planes(w.form) * plane_of(w, w.gradient_tile)
    return (planes + 2 * w.blocks * channels_of_sums(w)) * w.itemsize


cdef inline void place_planes(Winograd *w, void *memory) noexcept nogil:
    w.source_planes = memory
    w.gradient_planes = <char *> w.source_planes + source_planes(w.form) * plane_of(w, w.source_tile) * w.itemsize
    w.counted = <char *> w.gradient_planes + product_planes(w.form) * plane_of(w, w.gradient_tile) * w.itemsize


cdef inline size_t bytes_of_parts(const Winograd *w) noexcept nogil:
    """Of the sums and counts of all parts, and of what is made of the counts."""
    cdef Py_ssize_t counts = 2 * channels_of_sums(w) * <Py_ssize_t> sizeof(double)
    return w.parts * (bytes_of_sums(w) + counts) + channels_of_sums(w) * <Py_ssize_t> sizeof(Py_ssize_t)


cdef inline void place_parts(Winograd *w, void *memory) noexcept nogil:
    w.kernels = memory
    w.counts = <double *> (<char *> memory + w.parts * bytes_of_sums(w))
    w.uneven_channels = <Py_ssize_t *> (w.counts + w.parts * 2 * channels_of_sums(w))
    w.uneven_kernels = w.uneven_channels + padded(w.job.channels, w.lanes)


cdef inline void set_part(Winograd *w, Py_ssize_t part) noexcept nogil:
    """Go to a part of the blocks of tiles."""
    w.kernels = <char *> w.kernels + part * bytes_of_sums(w)
    w.counts += part * 2 * channels_of_sums(w)
    memset(w.counts, 0, 2 * channels_of_sums(w) * sizeof(double))
    w.first_block = w.block = part * w.blocks_of_part
    w.last_block = fnn_min(w.first_block + w.blocks_of_part, parts_of_tiles(w))


cdef inline void set_blocks(Winograd *w, Py_ssize_t most) noexcept nogil:
    """Take the next blocks of tiles, and count their tiles."""
    cdef Block block
    cdef Py_ssize_t i
    w.blocks, w.tiles = fnn_min(most, w.last_block - w.block), 0
    for i in range(w.blocks):
        block = block_of_tiles(w, w.block + i)
        w.tiles += tiles_of(&block)


cdef inline void count_channel(const Winograd *w, Py_ssize_t c, double sum, double most) noexcept nogil:
    w.counts[c] += sum
    c += channels_of_sums(w)
    w.counts[c] = fmax(w.counts[c], most)


cdef inline void add_counts(const Winograd *w, const real *counted) noexcept nogil:
    """What the blocks have counted, in their order."""
    cdef Py_ssize_t channels = channels_of_sums(w), block, c
    for block in range(w.blocks):
        for c in range(channels):
            count_channel(w, c, counted[c], counted[channels + c])
        counted += 2 * channels


cdef inline void add_counts_of_parts(const Winograd *w) noexcept nogil:
    cdef Py_ssize_t channels = channels_of_sums(w), part, c
    cdef const double *counted = w.counts
    for part in range(1, w.parts):
        counted += 2 * channels
        for c in range(channels):
            count_channel(w, c, counted[c], counted[channels + c])


cdef inline bint divide_counts(const Winograd *w) noexcept nogil:
    """Make each sum a count of terms, infinite where all are zeros; whether all numbers are finite."""
    cdef Py_ssize_t channels = channels_of_sums(w), c
    for c in range(channels):
        if not w.counts[c] < INFINITY:
            return False
        w.counts[c] = w.counts[c] / w.counts[channels + c] if w.counts[c] else INFINITY
    return True


cdef inline Py_ssize_t list_fewer(
    Py_ssize_t *listed, const double *counts, Py_ssize_t channels, double limit
) noexcept nogil:
    """The channels whose counts are below the limit; how many."""
    cdef Py_ssize_t c, few = 0
    for c in range(channels):
        listed[few] = c
        few += counts[c] < limit
    return few


cdef inline void list_uneven(Winograd *w, double limit, double other) noexcept nogil:
    """The channels whose counts are below the limit, and the kernels whose are below the other one."""
    w.few_channels = list_fewer(w.uneven_channels, w.counts, w.job.channels, limit)
    w.few_kernels = list_fewer(w.uneven_kernels, w.counts + padded(w.job.channels, w.lanes), w.count, other)


cdef inline bint judge_sums(Winograd *w) noexcept nogil:
    """List channels and kernels so that each pair of the others has enough terms to outweigh the rounding errors of the
    largest: those that are the fewest weights. Whether all numbers are finite."""
    cdef double pixels = <double> w.job.images * w.job.rows.length * w.job.columns.length
    cdef double least = fmin(LEAST_COUNT, pixels / 16), pair = EVEN_SUMS * pixels
    cdef double limit = INFINITY, best, fewest = INFINITY, weights
    cdef Py_ssize_t c
    if not divide_counts(w):
        return False
    for c in range(w.job.channels):
        limit = fmin(limit, w.counts[c])
    best = limit = fmax(limit, least)
    while True:
        list_uneven(w, limit, fmax(pair / limit, least))
        weights = <double> w.few_channels * w.count + <double> w.few_kernels * (w.job.channels - w.few_channels)
        if weights < fewest:
            fewest, best = weights, limit
        if pair / limit <= least or w.few_channels * w.count >= fewest:
            break
        limit *= LIMIT_STEP
    list_uneven(w, best, fmax(pair / best, least))
    return True


cdef inline Places places_of_source(const Winograd *w) noexcept nogil:
    cdef Py_ssize_t plane = w.job.rows.length * w.job.columns.length, channels = w.job.channels
    if w.channels_last:
        return Places(plane * channels, w.job.columns.length * channels, channels, 1)
    return Places(plane * channels, w.job.columns.length, 1, plane)


cdef inline Places places_of_gradient(const Winograd *w) noexcept nogil:
    return Places(w.job.result_image, w.job.result_line, w.job.result_column, w.job.result_i)


cdef inline void turn_taps(Taps *taps, Py_ssize_t *at, Py_ssize_t *index) noexcept nogil:
    """What the source's positions meet in the gradient of the result. The tables get room for three taps."""
    cdef Py_ssize_t t
    for t in range(3):
        at[t], index[t] = -taps.at[2 - t], taps.index[2 - t]
    taps.at, taps.index = at, index
    taps.low, taps.high = at[0], at[2]
    taps.length, taps.outputs = taps.outputs, taps.length


cdef inline void sparse_kernels(const Winograd *w, Sparse *sparse) noexcept nogil:
    """The gradient of the kernels that are uneven."""
    sparse.job, sparse.places = w.job[0], places_of_source(w)
    sparse.dense, sparse.sparse = w.source, <const char *> w.grad_out + w.first * w.job.result_i * w.itemsize
    sparse.chosen, sparse.count = w.uneven_kernels, w.few_kernels
    sparse.most = tiles_of_job(w.job) * w.form.out * w.form.out * w.count / FEW_NUMBERS


cdef inline void sparse_channels(const Winograd *w, Sparse *sparse, Py_ssize_t *tables) noexcept nogil:
    """The gradient of all kernels for the channels that are uneven; `tables` has room for twelve numbers."""
    cdef Job *job = &sparse.job
    cdef Places source = places_of_source(w)
    sparse.job, sparse.places = w.job[0], places_of_gradient(w)
    turn_taps(&job.rows, tables, tables + 3)
    turn_taps(&job.columns, tables + 6, tables + 9)
    job.channels = w.count
    job.weight_i, job.weight_channel = w.job.weight_channel, w.job.weight_i
    job.result_image, job.result_line, job.result_column, job.result_i = (
        source.image, source.line, source.pixel, source.channel
    )
    sparse.dense, sparse.sparse = <const char *> w.grad_out + w.first * w.job.result_i * w.itemsize, w.source
    sparse.chosen, sparse.count = w.uneven_channels, w.few_channels
    sparse.most = tiles_of_job(w.job) * w.form.out * w.form.out * w.job.channels / FEW_NUMBERS


cdef inline void place_sparse(const Winograd *w, Sparse *sparse) noexcept nogil:
    """Set what is the same of channels and kernels."""
    sparse.itemsize = w.itemsize
    sparse.at_once = fnn_even_part(sparse.job.channels, CHANNELS_AT_ONCE, w.lanes)
    sparse.grad = <char *> w.result + w.first * w.job.weight_i * w.itemsize


cdef inline void count_pixels(
    real *sums, real *most, const real *x, Py_ssize_t of_line, Py_ssize_t of_pixel, Py_ssize_t lines,
    Py_ssize_t columns, Py_ssize_t channels,
) noexcept nogil:
    cdef Py_ssize_t line
    if of_line == columns * of_pixel:
        lines, columns = 1, lines * columns
    for line in range(lines):
        if real is float:
            fnn_winograd_channels_f32(sums, most, x + line * of_line, of_pixel, columns, channels)
        else:
            fnn_winograd_channels_f64(sums, most, x + line * of_line, of_pixel, columns, channels)


cdef inline void transform_gradient(
    const Winograd *w, const Block *block, const real *first, Py_ssize_t of_image, Py_ssize_t of_line,
    Py_ssize_t of_pixel, real *v, Py_ssize_t plane,
) noexcept nogil:
    """The planes of all tiles of a block of the result's gradient, which begins at `first`."""
    cdef Py_ssize_t image, line, column, lines, columns
    cdef const real *y
    for image in range(block.images):
        for line in range(block.lines):
            for column in range(block.columns):
                y = first + image * of_image + line * w.form.out * of_line + column * w.form.out * of_pixel
                lines = fnn_min(w.form.out, w.job.rows.outputs - (block.line + line) * w.form.out)
                columns = fnn_min(w.form.out, w.job.columns.outputs - (block.column + column) * w.form.out)
                if real is float:
                    fnn_winograd_gradient_f32(v, plane, y, of_line, of_pixel, lines, columns, w.count)
                else:
                    fnn_winograd_gradient_f64(v, plane, y, of_line, of_pixel, lines, columns, w.count)
                v += w.gradient_tile


cdef inline int transform_tiles(const Winograd *w, const real *grad_out, Py_ssize_t part) noexcept nogil:
    """Both operands of the sums, for one of the blocks of tiles; -1 where there is no memory."""
    cdef Block block
    cdef Py_ssize_t before = 0, i, image, line
    cdef Py_ssize_t height, width, lines, columns, size = 0, channels = channels_of_sums(w)
    cdef Py_ssize_t of_image = w.job.result_image, of_line = w.job.result_line, of_pixel = w.job.result_column
    cdef Pixels pixels, window
    cdef const Job *job = w.job
    cdef real *counted = <real *> w.counted + 2 * part * channels
    cdef real *patch
    cdef real *copy
    cdef const real *source
    for i in range(part):
        block = block_of_tiles(w, w.block + i)
        before += tiles_of(&block)
    block = block_of_tiles(w, w.block + part)
    window = window_of(w, &block, &height, &width)
    lines = fnn_min(block.lines * w.form.out, job.rows.outputs - block.line * w.form.out)
    columns = fnn_min(block.columns * w.form.out, job.columns.outputs - block.column * w.form.out)
    if not w.channels_last:
        size = block.images * fnn_max(window.image, lines * columns * w.count)
    patch = <real *> fnn_workspace(PIXELS, (source_planes(w.form) * job.channels + size + w.lanes) * sizeof(real))
    if patch == NULL:
        return -1
    copy = patch + source_planes(w.form) * job.channels
    if w.channels_last:
        pixels = pixels_in_place(w, &block)
    else:
        pixels = window
        pixels.first = copy
        transpose_window(w, &block, &pixels, height, width, copy)
    memset(counted, 0, 2 * channels * sizeof(real))
    for image in range(block.images):
        source = pixel_of_window(<const real *> pixels.first, &pixels, &window, image)
        count_pixels(
            counted, counted + channels, source, pixels.line, pixels.pixel, height, width, job.channels
        )
    transform_source(
        w, &block, &pixels, patch, <real *> w.source_planes + before * w.source_tile, plane_of(w, w.source_tile),
        w.source_tile
    )
    grad_out += (
        block.image * of_image + w.first * job.result_i
        + w.form.out * (block.line * of_line + block.column * of_pixel)
    )
    source = grad_out
    if not w.channels_last:
        for image in range(block.images):
            for line in range(1 if columns == job.columns.outputs else lines):
                transpose(
                    copy + (image * lines + line) * columns * w.count, w.count,
                    grad_out + image * of_image + line * of_line, job.result_i, w.count,
                    lines * columns if columns == job.columns.outputs else columns
                )
        source = copy
        of_image, of_line, of_pixel = lines * columns * w.count, columns * w.count, w.count
    counted += padded(job.channels, w.lanes)
    for image in range(block.images):
        count_pixels(
            counted, counted + channels, source + image * of_image, of_line, of_pixel, lines, columns, w.count
        )
    transform_gradient(
        w, &block, source, of_image, of_line, of_pixel, <real *> w.gradient_planes + before * w.gradient_tile,
        plane_of(w, w.gradient_tile)
    )
    return 0


cdef inline void sum_tiles(const Winograd *w, const real *v, const real *g, Py_ssize_t point) noexcept nogil:
    """Add the products of the tiles, at one point."""
    cdef real *s = <real *> w.kernels + point * plane_of_sums(w)
    cdef Py_ssize_t vectors = fnn_parts(w.job.channels, w.lanes)
    v += point * plane_of(w, w.source_tile)
    g += point * plane_of(w, w.gradient_tile)
    if real is float:
        fnn_winograd_sum_f32(g, w.gradient_tile, v, w.source_tile, s, w.tiles, w.count, vectors, w.block > w.first_block)
    else:
        fnn_winograd_sum_f64(g, w.gradient_tile, v, w.source_tile, s, w.tiles, w.count, vectors, w.block > w.first_block)


cdef inline void add_parts(const Winograd *w, const real *sums, real *kernel) noexcept nogil:
    """The sums of a kernel over all parts, point after point."""
    cdef Py_ssize_t channels = padded(w.job.channels, w.lanes), point, part, c
    cdef const real *term
    for point in range(kernel_planes(w.form)):
        memcpy(kernel, sums + point * plane_of_sums(w), channels * sizeof(real))
        for part in range(1, w.parts):
            term = <const real *> (<const char *> sums + part * bytes_of_sums(w)) + point * plane_of_sums(w)
            for c in range(channels):
                kernel[c] += term[c]
        kernel += channels


cdef inline int transform_sums(const Winograd *w, const real *sums, Py_ssize_t kernel) noexcept nogil:
    """The gradient of a kernel; UNEVEN where it is not finite, -1 where there is no memory."""
    cdef const Job *job = w.job
    cdef Py_ssize_t channels = padded(job.channels, w.lanes), plane = plane_of_sums(w), c
    cdef real *grad = <real *> w.result + (w.first + kernel) * job.weight_i
    cdef real *of_parts
    cdef bint finite = True
    sums += kernel * channels
    if w.parts > 1:
        of_parts = <real *> fnn_workspace(PIXELS, kernel_planes(w.form) * channels * sizeof(real))
        if of_parts == NULL:
            return -1
        add_parts(w, sums, of_parts)
        sums, plane = of_parts, channels
    for c from 0 <= c < job.channels by w.lanes:
        if real is float:
            finite &= fnn_winograd_weight_f32(
                grad + c * job.weight_channel, job.weight_row, job.weight_column, job.weight_channel, sums + c, plane,
                fnn_min(w.lanes, job.channels - c)
            )
        else:
            finite &= fnn_winograd_weight_f64(
                grad + c * job.weight_channel, job.weight_row, job.weight_column, job.weight_channel, sums + c, plane,
                fnn_min(w.lanes, job.channels - c)
            )
    return 0 if finite else UNEVEN
