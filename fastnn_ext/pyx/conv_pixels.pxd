"""Convolution in the layout NHWC: the channels of the result are in the lanes of the vectors."""

from common cimport real
from conv_blocks cimport *
from fused cimport Activation
from libc.string cimport memcpy, memset
from pool cimport poll
from windows cimport is_many


cdef inline bint plan_pixels(Plan *plan, const Job *job, Py_ssize_t itemsize) noexcept nogil:
    """Blocks that keep to the caches; whether they fit memory."""
    cdef const Taps *rows = &job.rows
    cdef const Taps *columns = &job.columns
    cdef Py_ssize_t height = rows.high - rows.low + 1, width = columns.high - columns.low + 1
    cdef Py_ssize_t positions = fnn_max(BLOCK_BYTES // (itemsize * fnn_max(job.channels, 1)), 1)
    plan.in_place = is_inside(rows, 0, rows.outputs) and is_inside(columns, 0, columns.outputs)
    plan.channels = job.channels
    plan.columns = fnn_max((positions // height - width) // columns.step + 1, FEW)
    plan.columns = fnn_even_part(columns.outputs, plan.columns, 1)
    width += (plan.columns - 1) * columns.step
    if not plan.in_place and is_many(height, width, job.channels, 1):
        return False
    plan.lines = plan.images = 1
    if plan.columns == columns.outputs:
        plan.lines = fnn_max((fnn_min(positions, POSITIONS) // width - height) // rows.step + 1, 1)
        plan.lines = fnn_even_part(rows.outputs, plan.lines, 1)
        height += (plan.lines - 1) * rows.step
    if plan.lines == rows.outputs:
        plan.images = fnn_max(fnn_min(positions, POSITIONS) // (height * width), 1)
        plan.images = fnn_even_part(job.images, plan.images, 1)
    return True


cdef inline void place_pixels(Block *block, const Plan *plan, const Job *job, Py_ssize_t tail) noexcept nogil:
    """Choose where the block's part of the source is read, and its strides; here `width` counts numbers.

    In place, up to `tail` numbers behind the last pixel may be read: at the source's end, it gets a copy.
    """
    cdef Py_ssize_t columns
    cdef Py_ssize_t line = job.columns.length * job.groups * job.channels
    cdef Py_ssize_t end = (
        (block.image + block.images - 1) * job.rows.length
        + (block.line + block.lines - 1) * job.rows.step + job.rows.high + 1
    ) * line + tail
    block.in_place = (
        end <= job.images * job.rows.length * line
        and is_inside(&job.rows, block.line, block.lines)
        and is_inside(&job.columns, block.column, block.columns)
    )
    if block.in_place:
        block.pixel = job.groups * job.channels
        block.height, block.width = job.rows.length, job.columns.length * block.pixel
    else:
        block.pixel = job.channels
        columns = (block.columns - 1) * job.columns.step + job.columns.high - job.columns.low + 1
        block.height = (block.lines - 1) * job.rows.step + job.rows.high - job.rows.low + 1
        block.width = columns * block.pixel
    block.image_step = block.height * block.width


cdef inline void copy_pixels(
    real *target, const Block *block, const Job *job, const real *source
) noexcept nogil:
    """The block's part of one group of the source, [image, y, x, channel], in its frame of zeros."""
    cdef Py_ssize_t pixel = job.groups * job.channels
    cdef Py_ssize_t top = block.line * job.rows.step + job.rows.low
    cdef Py_ssize_t left = block.column * job.columns.step + job.columns.low
    cdef Py_ssize_t at = fnn_min(gap(left, 1) * pixel, block.width)
    cdef Py_ssize_t end = fnn_max(fnn_min(block.width, (job.columns.length - left) * pixel), at)
    cdef Py_ssize_t n, y, x
    cdef const real *line
    for n in range(block.image, block.image + block.images):
        for y in range(top, top + block.height):
            line = source + (n * job.rows.length + y) * job.columns.length * pixel
            if not 0 <= y < job.rows.length:
                memset(target, 0, block.width * sizeof(real))
            elif job.groups == 1:
                copy_line(target, block.width, line + left * pixel, at, end)
            else:
                for x in range(block.width // job.channels):
                    end = job.channels if 0 <= left + x < job.columns.length else 0
                    copy_line(target + x * job.channels, job.channels, line + (left + x) * pixel, 0, end)
            target += block.width
    memset(target, 0, MAX_VECS * lanes_of(source) * sizeof(real))


cdef inline const real *part_of_pixels(const Block *block, const Job *job, const real *source) noexcept nogil:
    """The block's part of one group of the source, in place or as a copy; NULL without memory."""
    cdef real *copy
    if job.channels == 0:
        return source
    if block.in_place:
        return (
            source + block.image * block.image_step
            + (block.line * job.rows.step + job.rows.low) * block.width
            + (block.column * job.columns.step + job.columns.low) * block.pixel
        )
    copy = <real *> fnn_workspace(
        SOURCE, (block.images * block.image_step + MAX_VECS * lanes_of(source)) * sizeof(real)
    )
    if copy != NULL:
        copy_pixels(copy, block, job, source)
    return copy


cdef inline Py_ssize_t source_line(Py_ssize_t line, const Block *block, const Job *job) noexcept nogil:
    """Where the source's part starts for a line of the block, counted through its images."""
    return line // block.lines * block.image_step + line % block.lines * job.rows.step * block.width


cdef inline Py_ssize_t result_line(Py_ssize_t line, const Block *block, const Job *job) noexcept nogil:
    """The same in the result."""
    return line // block.lines * job.result_image + line % block.lines * job.result_line


cdef inline Py_ssize_t place_of_tap(
    Py_ssize_t r, Py_ssize_t s, const Block *block, const Job *job
) noexcept nogil:
    """Where a tap is in the block's part of the source, from that of the first one on."""
    return (
        (job.rows.at[r] - job.rows.low) * block.width + (job.columns.at[s] - job.columns.low) * block.pixel
    )


cdef inline void place_pixel_terms(
    Py_ssize_t *weight_at, Py_ssize_t *source_at, Py_ssize_t first, Py_ssize_t count, const Block *block,
    const Job *job,
) noexcept nogil:
    """Where the terms `first`, `first` + 1, ... are, in the order of taps and channels, NHWC."""
    cdef const Taps *rows = &job.rows
    cdef const Taps *columns = &job.columns
    cdef Py_ssize_t channels = fnn_max(job.channels, 1)
    cdef Py_ssize_t c = first % channels
    cdef Py_ssize_t s = first // channels % fnn_max(columns.count, 1)
    cdef Py_ssize_t r = first // channels // fnn_max(columns.count, 1)
    cdef Py_ssize_t p
    for p in range(count):
        weight_at[p] = (
            c * job.weight_channel + rows.index[r] * job.weight_row + columns.index[s] * job.weight_column
        )
        source_at[p] = place_of_tap(r, s, block, job) + c
        c += 1
        if c == channels:
            c = 0
            s += 1
            if s == columns.count:
                s = 0
                r += 1


cdef inline void pack_weight(
    real *packed, Py_ssize_t width, const real *weight, const Py_ssize_t *weight_at, Py_ssize_t terms,
    Py_ssize_t weight_i, Py_ssize_t count,
) noexcept nogil:
    """packed[p, i] = weight[i * weight_i + weight_at[p]], in lines of `width` numbers that end in zeros."""
    cdef Py_ssize_t p, i
    if weight_i == 1:
        for p in range(terms):
            copy_line(packed + p * width, width, weight + weight_at[p], 0, count)
        return
    for i in range(count):
        for p in range(terms):
            packed[p * width + i] = weight[weight_at[p]]
        weight += weight_i
    for i in range(count, width):
        for p in range(terms):
            packed[p * width + i] = 0


cdef inline void set_column_runs(
    Run *runs, Py_ssize_t *first, Py_ssize_t count, Py_ssize_t lanes
) noexcept nogil:
    """The lanes of the vectors over `count` columns that follow each other."""
    cdef Py_ssize_t v
    first[0] = 0
    for v in range(fnn_min(MAX_VECS, fnn_parts(count, lanes))):
        runs[v] = Run(0, <int> fnn_min(lanes, count - v * lanes), v * lanes)
        first[v + 1] = v + 1


cdef inline void multiply_pixels(
    const Block *block, const Job *job, const real *source, const real *weight, const real *bias,
    real *result, real *packed,
) noexcept nogil:
    """One block of one group of the result."""
    cdef Py_ssize_t weight_at[TERMS]
    cdef Py_ssize_t source_at[TERMS]
    cdef Py_ssize_t packed_at[TERMS]
    cdef Py_ssize_t runs_of[MAX_VECS + 1]
    cdef Run runs[MAX_VECS]
    cdef Py_ssize_t terms = job.channels * job.rows.count * job.columns.count
    cdef Py_ssize_t at_once = fnn_even_part(terms, TERMS, 1) if terms else 1
    cdef Py_ssize_t lanes = lanes_of(source)
    cdef Py_ssize_t vectors = fnn_parts(job.m, lanes)
    cdef Py_ssize_t vecs = 3 if vectors % 2 and vectors % 3 == 0 else 2
    cdef Py_ssize_t first = 0, line, x, v, p, of_panel, height
    cdef const real *from_line
    cdef real *to_line
    cdef Tile tile
    vecs = fnn_even_part(vectors, vecs, 1)
    height = fnn_even_part(block.columns, max_rows(vecs), 1)
    tile.a_rs, tile.a_at, tile.b_at = job.columns.step * block.pixel, source_at, packed_at
    tile.b, tile.c_rs, tile.runs, tile.first = packed, job.result_column, runs, runs_of
    tile.row_bias = NULL
    while True:
        tile.k = fnn_min(at_once, terms - first)
        tile.accumulate = first > 0
        place_pixel_terms(weight_at, source_at, first, tile.k, block, job)
        for v from 0 <= v < vectors by vecs:
            of_panel = fnn_min(vecs, vectors - v)
            for p in range(tile.k):
                packed_at[p] = p * of_panel * lanes
            pack_weight(
                packed, of_panel * lanes, weight + v * lanes * job.weight_i, weight_at, tile.k, job.weight_i,
                fnn_min(of_panel * lanes, job.m - v * lanes)
            )
            set_column_runs(runs, runs_of, job.m - v * lanes, lanes)
            tile.whole = not tile.accumulate and (v + of_panel) * lanes <= job.m
            tile.col_bias = NULL
            if bias != NULL and first == 0:
                tile.col_bias = bias + v * lanes
            for line in range(block.images * block.lines):
                from_line = source + source_line(line, block, job)
                to_line = result + result_line(line, block, job) + v * lanes
                for x from 0 <= x < block.columns by height:
                    tile.a, tile.c = from_line + x * tile.a_rs, to_line + x * tile.c_rs
                    run_tile(source, &tile, fnn_min(height, block.columns - x), of_panel)
        first += tile.k
        if first >= terms or poll():
            return


cdef inline const real *whole_vectors(const real *bias, Py_ssize_t count) noexcept nogil:
    """A copy of the bias that vectors can be read from to its end; NULL without memory."""
    cdef Py_ssize_t size = fnn_parts(count, lanes_of(bias)) * lanes_of(bias)
    cdef real *copy = <real *> fnn_workspace(BIAS, (size + 1) * sizeof(real))
    if copy != NULL:
        memset(copy, 0, size * sizeof(real))
        memcpy(copy, bias, count * sizeof(real))
    return copy


cdef inline int run_pixels(
    const Job *job, const real *source, const real *weight, const real *bias, real *result,
    const Activation *activation,
) noexcept nogil:
    """The job in the layout NHWC; -1 where there is no memory."""
    cdef Py_ssize_t lanes = lanes_of(source)
    cdef Py_ssize_t group, image, line
    cdef const real *part
    cdef const real *of_group = NULL
    cdef real *target
    cdef real *packed
    cdef Plan plan
    cdef Block block
    memset(&block, 0, sizeof(Block))
    packed = <real *> fnn_workspace(WEIGHT, TERMS * MAX_VECS * lanes * sizeof(real))
    if packed == NULL or not plan_pixels(&plan, job, sizeof(real)):
        return -1
    while next_block(&block, &plan, job):
        if poll():
            return -1
        place_pixels(&block, &plan, job, 0)
        target = result + start_of(&block, job)
        for group in range(job.groups):
            part = part_of_pixels(&block, job, source + group * job.channels)
            if bias != NULL:
                of_group = whole_vectors(bias + group * job.m, job.m)
            if part == NULL or (bias != NULL and of_group == NULL):
                return -1
            multiply_pixels(
                &block, job, part, weight + group * job.weight_group, of_group, target + group * job.m, packed
            )
        if activation != NULL:
            activate_pixels(activation, &block, job, target)
    return 0


cdef inline void activate_pixels(
    const Activation *activation, const Block *block, const Job *job, real *result
) noexcept nogil:
    """f over a block of the result, line by line."""
    cdef Py_ssize_t line
    for line in range(block.images * block.lines):
        activate(activation, result + result_line(line, block, job), block.columns * job.result_column)


cdef inline void place_taps(
    Py_ssize_t *weight_at, Py_ssize_t *source_at, const Block *block, const Job *job
) noexcept nogil:
    """Where each tap is, of a channel that has a kernel to itself, in the order of the memory."""
    cdef Py_ssize_t last = job.rows.count * job.columns.count - 1
    cdef Py_ssize_t r, s, p = 0
    for r in range(job.rows.count):
        for s in range(job.columns.count):
            weight_at[p] = job.rows.index[r] * job.weight_row + job.columns.index[s] * job.weight_column
            source_at[p] = place_of_tap(r, s, block, job)
            p += 1
    if source_at[0] > source_at[last]:
        reverse(weight_at, last + 1)
        reverse(source_at, last + 1)


cdef inline void place_line(Channels *line, const Block *block, const Job *job) noexcept nogil:
    """The distances of a line of the block, and whether its taps follow each other."""
    cdef const Taps *columns = &job.columns
    line.pixels, line.step, line.a_rs, line.c_rs = block.columns, columns.step, columns.step * block.pixel, job.result_column
    line.k = job.rows.count * columns.count
    line.row = columns.count if columns.high - columns.low + 1 == columns.count else 1


cdef inline void depthwise_block(
    const Block *block, const Job *job, Channels *tile, const real *source, real *result
) noexcept nogil:
    """The tile's channels of one block, line by line."""
    cdef Py_ssize_t line
    for line in range(block.images * block.lines):
        tile.a = source + source_line(line, block, job)
        tile.c = result + result_line(line, block, job)
        run_channels(source, tile)


cdef inline int run_depthwise(
    const Job *job, const real *source, const real *weight, const real *bias, real *result,
    const Activation *activation,
) noexcept nogil:
    """A job whose `channels` have a kernel each, their `groups` being 1; -1 where there is no memory."""
    cdef Py_ssize_t taps = job.rows.count * job.columns.count
    cdef Py_ssize_t lanes = lanes_of(source)
    cdef Py_ssize_t most = fnn_max(BLOCK_BYTES // (<Py_ssize_t> sizeof(real) * (taps + 1)), 1)
    cdef Py_ssize_t width = fnn_parts(fnn_min(most, job.channels), lanes) * lanes
    cdef Py_ssize_t *weight_at = <Py_ssize_t *> fnn_workspace(RUNS, (2 * taps + 1) * sizeof(Py_ssize_t))
    cdef real *packed = <real *> fnn_workspace(WEIGHT, (taps + 1) * width * sizeof(real))
    cdef Py_ssize_t channel
    cdef const real *part
    cdef real *target
    cdef Plan plan
    cdef Block block
    cdef Channels tile
    if weight_at == NULL or packed == NULL or not plan_pixels(&plan, job, sizeof(real)):
        return -1
    tile.a_at, tile.b, tile.b_rs = weight_at + taps, packed, width
    for channel from 0 <= channel < job.channels by width:
        tile.count = fnn_min(width, job.channels - channel)
        tile.bias = NULL
        if bias != NULL:
            tile.bias = whole_vectors(bias + channel, tile.count)
            if tile.bias == NULL:
                return -1
        memset(&block, 0, sizeof(Block))
        while next_block(&block, &plan, job):
            if poll():
                return -1
            place_pixels(&block, &plan, job, 0)
            place_taps(weight_at, weight_at + taps, &block, job)
            pack_weight(
                packed, width, weight + channel * job.weight_group, weight_at, taps, job.weight_group,
                tile.count
            )
            part = part_of_pixels(&block, job, source)
            if part == NULL:
                return -1
            target = result + start_of(&block, job)
            place_line(&tile, &block, job)
            depthwise_block(&block, job, &tile, part + channel, target + channel)
            if activation != NULL and channel + tile.count == job.channels:
                activate_pixels(activation, &block, job, target)
    return 0


cdef inline Py_ssize_t place_pixel_pairs(
    Py_ssize_t *grad_at, Py_ssize_t *source_at, Py_ssize_t first, const Block *block, const Job *job
) noexcept nogil:
    """Where the block's pixels `first`, `first` + 1, ... are in the gradient and in the source; how many."""
    cdef Py_ssize_t x = first % block.columns
    cdef Py_ssize_t line = first // block.columns % block.lines
    cdef Py_ssize_t image = first // block.columns // block.lines
    cdef Py_ssize_t p, count = fnn_min(CHUNK_PIXELS, block.images * block.lines * block.columns - first)
    for p in range(count):
        grad_at[p] = (
            start_of(block, job) + image * job.result_image + line * job.result_line + x * job.result_column
        )
        source_at[p] = (
            image * block.image_step + line * job.rows.step * block.width + x * job.columns.step * block.pixel
        )
        x += 1
        if x == block.columns:
            x = 0
            line += 1
            if line == block.lines:
                line = 0
                image += 1
    return count


cdef inline void add_pixel_products(
    const Block *block, const Job *job, Tile *tile, const real *source, const real *grad_out,
    real *grad_weight,
) noexcept nogil:
    """grad_weight += the products of some pixels of one group."""
    cdef Py_ssize_t runs_of[MAX_VECS + 1]
    cdef Run runs[MAX_VECS]
    cdef Py_ssize_t lanes = lanes_of(source)
    # taps of a line that lie side by side in the source, as in the weights, are one long row of channels
    cdef Py_ssize_t span = job.columns.high - job.columns.low + 1
    cdef bint joined = block.pixel == job.channels and span == job.columns.count
    cdef Py_ssize_t width = job.channels * job.columns.count if joined else job.channels
    cdef Py_ssize_t parts = 1 if joined else job.columns.count
    cdef Py_ssize_t vecs = fnn_even_part(fnn_parts(width, lanes), MAX_VECS if job.m == 1 else 2, 1)
    cdef Py_ssize_t height = fnn_even_part(job.m, max_rows(vecs), 1)
    cdef Py_ssize_t r, s, v, i
    cdef real *to_tap
    tile.runs, tile.first = runs, runs_of
    for v from 0 <= v < fnn_parts(width, lanes) by vecs:
        set_column_runs(runs, runs_of, width - v * lanes, lanes)
        for r in range(job.rows.count):
            for s in range(parts):
                tile.b = source + place_of_tap(r, s, block, job) + v * lanes
                to_tap = grad_weight + r * job.weight_row + s * job.weight_column + v * lanes
                for i from 0 <= i < job.m by height:
                    tile.a, tile.c = grad_out + i * job.result_i, to_tap + i * job.weight_i
                    run_tile(
                        source, tile, fnn_min(height, job.m - i), fnn_min(vecs, fnn_parts(width, lanes) - v)
                    )


cdef inline int grad_weight_pixels(
    const Job *job, const real *source, const real *grad_out, real *grad_weight
) noexcept nogil:
    """grad_weight += the products of grad_out and the source, summed over the pixels; -1 without memory."""
    cdef Py_ssize_t grad_at[CHUNK_PIXELS]
    cdef Py_ssize_t source_at[CHUNK_PIXELS]
    cdef Py_ssize_t group, first
    cdef const real *part
    cdef Plan plan
    cdef Block block
    cdef Tile tile
    memset(&block, 0, sizeof(Block))
    if not plan_pixels(&plan, job, sizeof(real)):
        return -1
    tile.a_rs, tile.a_at, tile.b_at, tile.c_rs = job.result_i, grad_at, source_at, job.weight_i
    tile.row_bias = tile.col_bias = NULL
    tile.accumulate, tile.whole = True, False
    while next_block(&block, &plan, job):
        if poll():
            return -1
        place_pixels(&block, &plan, job, MAX_VECS * lanes_of(source))
        for group in range(job.first_group, job.end_group):
            part = part_of_pixels(&block, job, source + group * job.channels)
            if part == NULL:
                return -1
            for first from 0 <= first < block.images * block.lines * block.columns by CHUNK_PIXELS:
                tile.k = place_pixel_pairs(grad_at, source_at, first, &block, job)
                add_pixel_products(
                    &block, job, &tile, part, grad_out + group * job.m * job.result_i,
                    grad_weight + group * job.weight_group
                )
    return 0


cdef inline int grad_weight_transposed(
    const Job *job, const real *source, const real *grad_out, real *grad_weight
) noexcept nogil:
    """`grad_weight_pixels` for the layout NCHW: some channels of an image at a time have their pixels side by side."""
    cdef Py_ssize_t plane = job.rows.length * job.columns.length
    cdef Py_ssize_t taps = job.rows.count * job.columns.count
    cdef Py_ssize_t numbers = fnn_min(TRANSPOSED_BYTES // plane, SUMMED_BYTES // fnn_max(job.m * taps, 1))
    cdef Py_ssize_t at_once = numbers // <Py_ssize_t> sizeof(real)
    cdef Py_ssize_t channels = fnn_even_part(job.channels, fnn_max(at_once, 1), lanes_of(source))
    cdef real *pixels = <real *> fnn_workspace(TRANSFORMED, (job.m * taps + plane) * channels * sizeof(real))
    cdef real *sums = pixels + plane * channels
    cdef Py_ssize_t group, channel, image, i
    cdef Job part = job[0]
    if pixels == NULL:
        return -1
    part.images = part.groups = part.end_group = 1
    part.first_group = 0
    for group in range(job.first_group, job.end_group):
        for channel from 0 <= channel < job.channels by channels:
            part.channels = fnn_min(channels, job.channels - channel)
            part.weight_i, part.weight_channel, part.weight_column = taps * part.channels, 1, part.channels
            part.weight_row = job.columns.count * part.channels
            memset(sums, 0, job.m * taps * part.channels * sizeof(real))
            for image in range(job.images):
                transpose(
                    pixels, part.channels,
                    source + ((image * job.groups + group) * job.channels + channel) * plane, plane,
                    part.channels, plane,
                )
                if grad_weight_pixels(
                    &part, <const real *> pixels,
                    grad_out + image * job.result_image + group * job.m * job.result_i, sums,
                ) < 0:
                    return -1
            for i in range(job.m):
                transpose(
                    grad_weight + group * job.weight_group + i * job.weight_i + channel * job.weight_channel,
                    taps, <const real *> sums + i * part.weight_i, part.channels, taps, part.channels,
                )
    return 0


cdef inline void flush(real *sums, double *total, Py_ssize_t n) noexcept nogil:
    """Add sums to the total, and begin again."""
    cdef Py_ssize_t i
    for i in range(n):
        total[i] += sums[i]
        sums[i] = 0


cdef inline int grad_weight_depthwise(
    const Job *job, const real *source, const real *grad_out, real *grad_weight
) noexcept nogil:
    """The same where each group is one channel, blocks being those of all groups. A few lines are summed in `real`."""
    cdef Py_ssize_t taps = job.rows.count * job.columns.count, channels = job.end_group - job.first_group
    cdef Py_ssize_t width = fnn_parts(channels, lanes_of(source)) * lanes_of(source)
    cdef Py_ssize_t *weight_at = <Py_ssize_t *> fnn_workspace(RUNS, (2 * taps + 1) * sizeof(Py_ssize_t))
    cdef Py_ssize_t *source_at = weight_at + taps
    cdef double *total = <double *> fnn_workspace(WEIGHT, (taps * width + 1) * (sizeof(double) + sizeof(real)))
    cdef real *sums = <real *> (total + taps * width)
    cdef Py_ssize_t line, p, c, summed
    cdef const real *part
    cdef Plan plan
    cdef Block block
    cdef Channels tile
    cdef Job share = job[0]
    if weight_at == NULL or total == NULL or not plan_pixels(&plan, job, sizeof(real)):
        return -1
    share.groups, share.channels = job.channels // channels, channels
    source += job.first_group
    grad_out += job.first_group
    grad_weight += job.first_group * job.weight_group
    memset(&block, 0, sizeof(Block))
    memset(total, 0, taps * width * (sizeof(double) + sizeof(real)))
    tile.count, tile.a_at = channels, source_at
    while next_block(&block, &plan, job):
        if poll():
            return -1
        place_pixels(&block, &plan, &share, 0)
        place_taps(weight_at, source_at, &block, &share)
        part = part_of_pixels(&block, &share, source)
        if part == NULL:
            return -1
        place_line(&tile, &block, &share)
        summed = 0
        for line in range(block.images * block.lines):
            tile.a = part + source_line(line, &block, &share)
            tile.c = <void *> (grad_out + start_of(&block, job) + result_line(line, &block, job))
            add_channel_dots(&tile, sums, width)
            summed += block.columns
            if summed >= CHUNK_PIXELS:
                flush(sums, total, taps * width)
                summed = 0
        flush(sums, total, taps * width)
    place_taps(weight_at, source_at, &block, job)
    for c in range(channels):
        for p in range(taps):
            grad_weight[c * job.weight_group + weight_at[p]] = <real> total[p * width + c]
    return 0
