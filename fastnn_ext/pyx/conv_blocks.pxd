"""What the two layouts of a convolution share: the job, its taps, and the blocks that it is done in.

A job is a sum over terms, each a weight times a number of the source: one for each channel and tap. The
convolution itself is one job; its gradient for x is one job for each phase of the stride.
"""

from common cimport real
from fused cimport Activation
from libc.string cimport memset
from windows cimport Axis

cdef extern from "engine/conv.h" nogil:
    enum:
        SLOT "FNN_SLOT_USER"
        LANES_F32 "FNN_LANES_F32"
        LANES_F64 "FNN_LANES_F64"
        MAX_VECS "FNN_MAX_VECS"

    ctypedef struct Run "fnn_conv_run":
        int begin, end
        Py_ssize_t target

    ctypedef struct Tile "fnn_conv_tile":
        Py_ssize_t k
        const void *a
        Py_ssize_t a_rs
        const Py_ssize_t *a_at
        const void *b
        const Py_ssize_t *b_at
        void *c
        Py_ssize_t c_rs
        const Run *runs
        const Py_ssize_t *first
        const void *row_bias
        const void *col_bias
        bint accumulate, whole

    ctypedef struct Lines "fnn_conv_lines":
        Py_ssize_t images, lines, count, a_image, a_line, b_image, b_line

    ctypedef struct Channels "fnn_conv_channels":
        Py_ssize_t k, pixels, count, row, step
        const void *a
        Py_ssize_t a_rs
        const Py_ssize_t *a_at
        const void *b
        Py_ssize_t b_rs
        const void *bias
        void *c
        Py_ssize_t c_rs

    void *fnn_workspace(int slot, size_t bytes)
    Py_ssize_t fnn_min(Py_ssize_t a, Py_ssize_t b)
    Py_ssize_t fnn_max(Py_ssize_t a, Py_ssize_t b)
    Py_ssize_t fnn_parts(Py_ssize_t size, Py_ssize_t part)
    Py_ssize_t fnn_even_part(Py_ssize_t size, Py_ssize_t most, Py_ssize_t unit)
    Py_ssize_t max_rows "fnn_conv_rows"(Py_ssize_t vecs)
    void fnn_conv_run_tile_f32(const Tile *tile, Py_ssize_t rows, Py_ssize_t vecs)
    void fnn_conv_run_tile_f64(const Tile *tile, Py_ssize_t rows, Py_ssize_t vecs)
    void fnn_conv_run_channels_f32(const Channels *line)
    void fnn_conv_run_channels_f64(const Channels *line)
    void fnn_conv_channel_dots_f32(const Channels *line, float *sums, Py_ssize_t sums_rs)
    void fnn_conv_channel_dots_f64(const Channels *line, double *sums, Py_ssize_t sums_rs)
    void fnn_conv_copy_lines_f32(
        float *target, Py_ssize_t width, const float *source, Py_ssize_t step, Py_ssize_t source_rs, Py_ssize_t lines,
        Py_ssize_t at, Py_ssize_t count, Py_ssize_t rest
    )
    void fnn_conv_spread_line_f32(float *target, Py_ssize_t step, const float *source, Py_ssize_t count)
    void fnn_conv_copy_lines_f64(
        double *target, Py_ssize_t width, const double *source, Py_ssize_t step, Py_ssize_t source_rs, Py_ssize_t lines,
        Py_ssize_t at, Py_ssize_t count, Py_ssize_t rest
    )
    void fnn_conv_spread_line_f64(double *target, Py_ssize_t step, const double *source, Py_ssize_t count)
    void fnn_conv_dots_f32(
        const Lines *block, const float *a, Py_ssize_t a_rs, Py_ssize_t rows,
        const float *b, const Py_ssize_t *b_at, Py_ssize_t cols, float *c, Py_ssize_t c_rs
    )
    void fnn_conv_dots_f64(
        const Lines *block, const double *a, Py_ssize_t a_rs, Py_ssize_t rows,
        const double *b, const Py_ssize_t *b_at, Py_ssize_t cols, double *c, Py_ssize_t c_rs
    )
    void fnn_conv_transpose_f32(
        float *target, Py_ssize_t target_rs, const float *source, Py_ssize_t source_rs, Py_ssize_t rows, Py_ssize_t cols
    )
    void fnn_conv_transpose_f64(
        double *target, Py_ssize_t target_rs, const double *source, Py_ssize_t source_rs, Py_ssize_t rows,
        Py_ssize_t cols
    )

cdef enum:
    # slots of the workspace
    TAPS = SLOT      # tables of taps, for height and width
    RUNS = SLOT + 2  # where the lanes of a block go
    SOURCE           # a block of the image in its frame
    RESULT           # a block of the result that is spread over every second (third, ...) pixel, or transposed planes
    WEIGHT           # weights, or their gradient, with the channels of the result side by side
    BIAS             # the bias in whole vectors, or a line of sums
    TRANSFORMED      # kernels in Winograd's form, sums that will be their gradient, or patches

    TERMS = 192            # are summed in registers before the result gets them: more would round worse
    POSITIONS = 8192       # of one channel in a block
    NARROW = 64            # columns that a block of NCHW has at least, where there are as many,
    FEW = 12               # and one of NHWC
    DOT_POSITIONS = 1024   # of a few lines, so that they stay in the first-level cache
    CHUNK_PIXELS = 256     # whose products are summed in registers
    BLOCK_BYTES = 1 << 19  # of a block of the image, of the result or of weights: fits the second-level cache
    TRANSPOSED_BYTES = 1 << 20  # of some channels of an image that are put side by side,
    SUMMED_BYTES = 1 << 22      # and of the gradient of their weights
    MANY_CHANNELS = 8           # or rows of so many channels and taps, which are worth it
    LONG_ROW = 24
    SPLIT_TAPS = 8              # of a line with a copy each, at most,
    SPLIT_GAIN = 4              # and the terms that copying a number costs
    MOST_BYTES = 6 << 20   # of a block of the image where a few pixels have that many channels

cdef struct Taps:
    # along one axis: tap t of output i reads the source at i * step + at[t], zeros outside of 0 .. length - 1
    Py_ssize_t count, step, length, outputs
    Py_ssize_t *at
    Py_ssize_t *index   # of the tap in the kernel
    # at[t] = low + offset[phase[t]] + shift[t] * step; taps of one phase read positions that are `step` apart
    Py_ssize_t low, high      # the least and the largest at[t]
    Py_ssize_t phases, reach  # how many phases; the largest shift[t]
    Py_ssize_t *offset
    Py_ssize_t *phase
    Py_ssize_t *shift


cdef inline Py_ssize_t lanes_of(const real *x) noexcept nogil:
    return LANES_F32 if real is float else LANES_F64


cdef inline Py_ssize_t gap(Py_ssize_t position, Py_ssize_t step) noexcept nogil:
    """How many steps bring `position` to 0 or beyond."""
    return 0 if position >= 0 else (-position + step - 1) // step


cdef inline void reverse(Py_ssize_t *numbers, Py_ssize_t count) noexcept nogil:
    cdef Py_ssize_t i, number
    for i in range(count // 2):
        number = numbers[i]
        numbers[i] = numbers[count - 1 - i]
        numbers[count - 1 - i] = number


cdef inline bint reserve(Taps *taps, int slot, Py_ssize_t count) noexcept nogil:
    """Room for the tables of `count` taps."""
    cdef Py_ssize_t *memory = <Py_ssize_t *> fnn_workspace(slot, 5 * <size_t> count * sizeof(Py_ssize_t))
    if memory == NULL:
        return False
    taps.count = 0
    taps.at = memory
    taps.index = memory + count
    taps.offset = memory + 2 * count
    taps.phase = memory + 3 * count
    taps.shift = memory + 4 * count
    return True


cdef inline void sort_phases(Taps *taps) noexcept nogil:
    """Set the fields that follow from the others."""
    cdef Py_ssize_t t, offset, phase
    taps.low = taps.high = taps.at[0] if taps.count else 0
    for t in range(taps.count):
        taps.low = fnn_min(taps.low, taps.at[t])
        taps.high = fnn_max(taps.high, taps.at[t])
    taps.phases = taps.reach = 0
    for t in range(taps.count):
        offset = (taps.at[t] - taps.low) % taps.step
        phase = 0
        while phase < taps.phases and taps.offset[phase] != offset:
            phase += 1
        if phase == taps.phases:
            taps.offset[phase] = offset
            taps.phases += 1
        taps.phase[t] = phase
        taps.shift[t] = (taps.at[t] - taps.low) // taps.step
        taps.reach = fnn_max(taps.reach, taps.shift[t])


cdef inline void split_phases(Taps *taps, Py_ssize_t *tables) noexcept nogil:
    """A phase for each tap: what it reads is copied for it alone. In tables of its own: the job's serve all threads."""
    cdef Py_ssize_t t
    taps.offset, taps.phase, taps.shift = tables, tables + SPLIT_TAPS, tables + 2 * SPLIT_TAPS
    for t in range(taps.count):
        taps.offset[t], taps.phase[t], taps.shift[t] = taps.at[t] - taps.low, t, 0
    taps.phases, taps.reach = taps.count, 0


cdef inline bint forward_taps(Taps *taps, int slot, const Axis *axis) noexcept nogil:
    """What the outputs of a convolution read of its input."""
    cdef Py_ssize_t t
    if not reserve(taps, slot, axis.taps):
        return False
    taps.count, taps.step, taps.length, taps.outputs = axis.taps, axis.stride, axis.length, axis.outputs
    for t in range(axis.taps):
        taps.index[t] = t
        taps.at[t] = t * axis.dilation - axis.before
    sort_phases(taps)
    return True


cdef inline bint backward_taps(Taps *taps, int slot, const Axis *axis, Py_ssize_t phase) noexcept nogil:
    """What the input's positions phase, phase + stride, ... read of the output's gradient."""
    cdef Py_ssize_t t, distance
    if not reserve(taps, slot, axis.taps):
        return False
    taps.step, taps.length = 1, axis.outputs
    taps.outputs = fnn_parts(axis.length - phase, axis.stride)
    for t in range(axis.taps):
        distance = phase + axis.before - t * axis.dilation
        if distance % axis.stride == 0:
            taps.index[taps.count] = t
            taps.at[taps.count] = distance // axis.stride
            taps.count += 1
    sort_phases(taps)
    return True


cdef struct Job:
    # result[image, line, column, group, i] = bias[group, i] + sum over channels c and taps r, s of
    # weight[group, i, c, r, s] * source[image, line + r, column + s, group, c], for i = 0 .. m - 1
    Taps rows, columns
    Py_ssize_t images, groups, channels, m
    Py_ssize_t planes                  # the m of the whole result: what numbers depend on is decided by it
    Py_ssize_t first_group, end_group  # whose gradient of the weights is worked on
    Py_ssize_t weight_group, weight_i, weight_channel, weight_row, weight_column  # strides
    Py_ssize_t result_image, result_i, result_line, result_column
    const void *panels  # of the weights, packed for a product, or NULL

cdef struct Plan:
    Py_ssize_t images, lines, columns, channels  # of a block, at most
    bint in_place                                # whether the source is to be read where it is

cdef struct Block:
    Py_ssize_t image, line, column      # the first of the result
    Py_ssize_t images, lines, columns   # how many
    bint in_place
    Py_ssize_t height, width            # of the source's part, in its copy or in place
    Py_ssize_t image_step, phase, channel, pixel  # from one to the next in there, and width from line to line,
    Py_ssize_t line_step                # but with pixels in the lanes, where lines of several images may be joined
    Py_ssize_t vectors                  # NCHW: over a plane,
    Py_ssize_t whole                    # and how many of the first are pixels that follow each other
    Run *runs
    Py_ssize_t *first


cdef inline bint next_block(Block *block, const Plan *plan, const Job *job) noexcept nogil:
    """Go to the next block, the first one when `block` is all zeros; whether there is one."""
    if block.images:
        block.column += block.columns
        if block.column >= job.columns.outputs:
            block.column = 0
            block.line += block.lines
            if block.line >= job.rows.outputs:
                block.line = 0
                block.image += block.images
    block.images = fnn_min(plan.images, job.images - block.image)
    block.lines = fnn_min(plan.lines, job.rows.outputs - block.line)
    block.columns = fnn_min(plan.columns, job.columns.outputs - block.column)
    return block.images > 0


cdef inline Py_ssize_t start_of(const Block *block, const Job *job) noexcept nogil:
    """Where the block starts in the result."""
    return (
        block.image * job.result_image + block.line * job.result_line + block.column * job.result_column
    )


cdef inline bint is_inside(const Taps *taps, Py_ssize_t start, Py_ssize_t count) noexcept nogil:
    """Whether `count` outputs from `start` on read nothing outside of the source."""
    return start * taps.step + taps.low >= 0 and (start + count - 1) * taps.step + taps.high < taps.length


cdef inline void copy_lines(
    real *target, Py_ssize_t width, const real *source, Py_ssize_t step, Py_ssize_t source_rs, Py_ssize_t lines,
    Py_ssize_t at, Py_ssize_t end, Py_ssize_t rest,
) noexcept nogil:
    """Lines one after the other, then `rest` zeros: target[x] = source[x * step] for x from `at` to `end`, else zero.

    May write zeros a vector beyond.
    """
    if real is float:
        fnn_conv_copy_lines_f32(target, width, source + at * step, step, source_rs, lines, at, end - at, rest)
    else:
        fnn_conv_copy_lines_f64(target, width, source + at * step, step, source_rs, lines, at, end - at, rest)


cdef inline void copy_line(
    real *target, Py_ssize_t width, const real *source, Py_ssize_t at, Py_ssize_t end
) noexcept nogil:
    """target[x] = source[x] for x from `at` to `end`, else zero; may write zeros a vector beyond."""
    copy_lines(target, width, source, 1, 0, 1, at, end, 0)


cdef inline void spread_line(real *target, Py_ssize_t step, const real *source, Py_ssize_t count) noexcept nogil:
    """target[x * step] = source[x]"""
    if real is float:
        fnn_conv_spread_line_f32(target, step, source, count)
    else:
        fnn_conv_spread_line_f64(target, step, source, count)


cdef inline void transpose(
    real *target, Py_ssize_t target_rs, const real *source, Py_ssize_t source_rs, Py_ssize_t rows, Py_ssize_t cols
) noexcept nogil:
    """target[j, i] = source[i, j]"""
    if real is float:
        fnn_conv_transpose_f32(target, target_rs, source, source_rs, rows, cols)
    else:
        fnn_conv_transpose_f64(target, target_rs, source, source_rs, rows, cols)


cdef inline void run_tile(
    const real *dtype, const Tile *tile, Py_ssize_t rows, Py_ssize_t vecs
) noexcept nogil:
    if real is float:
        fnn_conv_run_tile_f32(tile, rows, vecs)
    else:
        fnn_conv_run_tile_f64(tile, rows, vecs)


cdef inline void add_dots(
    const Lines *block, const real *a, Py_ssize_t a_rs, Py_ssize_t rows, const real *b,
    const Py_ssize_t *b_at, Py_ssize_t cols, real *c, Py_ssize_t c_rs,
) noexcept nogil:
    if real is float:
        fnn_conv_dots_f32(block, a, a_rs, rows, b, b_at, cols, c, c_rs)
    else:
        fnn_conv_dots_f64(block, a, a_rs, rows, b, b_at, cols, c, c_rs)


cdef inline void run_channels(const real *dtype, const Channels *line) noexcept nogil:
    if real is float:
        fnn_conv_run_channels_f32(line)
    else:
        fnn_conv_run_channels_f64(line)


cdef inline void add_channel_dots(const Channels *line, real *sums, Py_ssize_t sums_rs) noexcept nogil:
    if real is float:
        fnn_conv_channel_dots_f32(line, sums, sums_rs)
    else:
        fnn_conv_channel_dots_f64(line, sums, sums_rs)


cdef inline void activate(const Activation *activation, real *y, Py_ssize_t n) noexcept nogil:
    if real is float:
        activation.f32(y, y, n, <float> activation.option)
    else:
        activation.f64(y, y, n, activation.option)
