"""The gradient of some kernels, or of some channels of all kernels, from numbers that are mostly zeros.

These are gone through pixel by pixel, without the zeros: each adds its multiple of what it meets in the other operand,
the dense one, whose channels are put side by side, some at a time. All numbers must be finite: a zero times an infinity
would be left out.
"""

from common cimport real
from conv_blocks cimport *
from conv_pixels cimport add_pixel_products, plan_pixels
from libc.string cimport memcpy, memset
from pool cimport poll

cdef enum:
    UNEVEN = 1            # what a part of a gradient returns that has to be computed by the direct form
    CHANNELS_AT_ONCE = 64
    FEW_NUMBERS = 16      # one of so many may be gone through: each costs several times as much as in the direct form

cdef struct Places:
    # of the numbers of an array: from one to the next
    Py_ssize_t image, line, pixel, channel

cdef struct Sparse:
    # job.channels are those of the dense operand, job.result_image, result_line, ... places of the sparse one, and
    # job.weight_i, weight_channel, ... of the gradient
    Job job
    Py_ssize_t itemsize
    Py_ssize_t at_once         # channels of a part
    Places places              # of the dense operand
    const void *dense
    const void *sparse
    void *grad
    const Py_ssize_t *chosen   # channels of the sparse operand
    Py_ssize_t count
    double most                # numbers of these that are not zero


cdef inline void place_frame(Block *block, const Job *job) noexcept nogil:
    """The block's part of the dense operand, as a copy in a frame of zeros."""
    block.in_place, block.pixel = False, job.channels
    block.height = block.lines + job.rows.high - job.rows.low
    block.width = (block.columns + job.columns.high - job.columns.low) * block.pixel
    block.image_step = block.height * block.width


cdef inline void copy_frame(
    real *target, const Block *block, const Job *job, const Places *places, const real *source
) noexcept nogil:
    cdef Py_ssize_t channels = job.channels, width = block.width // channels
    cdef Py_ssize_t top = block.line + job.rows.low, left = block.column + job.columns.low
    cdef Py_ssize_t begin = fnn_max(left, 0), end = fnn_min(left + width, job.columns.length)
    cdef Py_ssize_t image, y, x
    cdef const real *line
    memset(target, 0, (block.images * block.image_step + MAX_VECS * lanes_of(source)) * sizeof(real))
    target += (begin - left) * channels
    for image in range(block.image, block.image + block.images):
        for y in range(top, top + block.height):
            line = source + image * places.image + y * places.line + begin * places.pixel
            if not 0 <= y < job.rows.length:
                pass
            elif places.channel == 1:
                for x in range(end - begin):
                    memcpy(target + x * channels, line + x * places.pixel, channels * sizeof(real))
            else:
                transpose(target, channels, line, places.channel, channels, end - begin)
            target += block.width


cdef inline Py_ssize_t add_numbers(
    const Block *block, const Job *job, const real *frame, const real *sparse, real *sums
) noexcept nogil:
    """sums += the products of one channel's numbers in a block; how many of these are not zero."""
    cdef Py_ssize_t sparse_at[CHUNK_PIXELS]
    cdef Py_ssize_t dense_at[CHUNK_PIXELS]
    cdef Py_ssize_t image, line, x, at, to, count = 0, total = 0
    cdef Tile tile
    tile.a_rs, tile.a_at, tile.b_at, tile.c_rs = 0, sparse_at, dense_at, 0
    tile.row_bias = tile.col_bias = NULL
    tile.accumulate, tile.whole = True, False
    for image in range(block.images):
        for line in range(block.lines):
            if count + block.columns > CHUNK_PIXELS:
                tile.k = count
                add_pixel_products(block, job, &tile, frame, sparse, sums)
                total += count
                count = 0
            at = start_of(block, job) + image * job.result_image + line * job.result_line
            to = image * block.image_step + line * block.width
            for x in range(block.columns):
                sparse_at[count], dense_at[count] = at, to
                count += sparse[at] != 0
                at += job.result_column
                to += block.pixel
    tile.k = count
    if count:
        add_pixel_products(block, job, &tile, frame, sparse, sums)
    return total + count


cdef inline void put_sums(const Job *job, Py_ssize_t channels, const real *sums, real *grad) noexcept nogil:
    """The sums [r, s, channel] of one channel of the sparse operand to their places in the gradient."""
    cdef Py_ssize_t r, s, c, to_tap
    for r in range(job.rows.count):
        for s in range(job.columns.count):
            to_tap = job.rows.index[r] * job.weight_row + job.columns.index[s] * job.weight_column
            for c in range(channels):
                grad[to_tap + c * job.weight_channel] = sums[c]
            sums += channels


cdef inline int sum_sparse(
    const Sparse *all, const real *dense, const real *sparse, real *grad, Py_ssize_t part
) noexcept nogil:
    """What belongs to some channels of the dense operand; UNEVEN where the other is not sparse, -1 without memory."""
    cdef Py_ssize_t first = part * all.at_once, i
    cdef double left = all.most
    cdef Job job = all.job
    cdef real *frame
    cdef real *sums
    cdef Plan plan
    cdef Block block
    job.m, job.channels = 1, fnn_min(all.at_once, job.channels - first)
    job.weight_column = job.channels
    job.weight_row = job.columns.count * job.weight_column
    job.weight_i = job.rows.count * job.weight_row
    sums = <real *> fnn_workspace(WEIGHT, all.count * job.weight_i * sizeof(real))
    if sums == NULL or not plan_pixels(&plan, &job, sizeof(real)):
        return -1
    memset(sums, 0, all.count * job.weight_i * sizeof(real))
    plan.columns = fnn_min(plan.columns, CHUNK_PIXELS)
    memset(&block, 0, sizeof(Block))
    while next_block(&block, &plan, &job):
        place_frame(&block, &job)
        frame = <real *> fnn_workspace(
            SOURCE, (block.images * block.image_step + MAX_VECS * lanes_of(dense)) * sizeof(real)
        )
        if frame == NULL or poll():
            return -1
        copy_frame(frame, &block, &job, &all.places, dense + first * all.places.channel)
        for i in range(all.count):
            left -= add_numbers(
                &block, &job, frame, sparse + all.chosen[i] * job.result_i, sums + i * job.weight_i
            )
        if left < 0:
            return UNEVEN
    for i in range(all.count):
        put_sums(
            &all.job, job.channels, sums + i * job.weight_i,
            grad + all.chosen[i] * all.job.weight_i + first * all.job.weight_channel
        )
    return 0
