"""Convolution in the layout NCHW: the pixels of a plane are in the lanes of the vectors.

Where the source is read in place or from a copy with a frame of zeros, what a tap reads of a plane is the
plane itself from some place on. So a block is computed as if its lines were as long as the source's, and what
falls between them is dropped. With a stride, the copy has its pixels sorted by phase: then what a tap reads
lies side by side. Where many terms read each number, each tap of a line is a phase: then nothing is dropped.
"""

from common cimport real
from conv_blocks cimport *
from fused cimport Activation
from libc.string cimport memset
from pool cimport poll
from windows cimport is_many


cdef inline bint is_whole_plane(const Job *job, Py_ssize_t lanes) noexcept nogil:
    """Whether an image's lines follow each other in a copy, and are so long that few lanes are lost behind them."""
    return job.columns.reach == 0 and job.rows.outputs * job.columns.outputs >= 32 * lanes


cdef inline bint plan_planes(
    Plan *plan, const Job *job, Py_ssize_t itemsize, Py_ssize_t lanes
) noexcept nogil:
    """Blocks that keep to the caches; whether they fit memory."""
    cdef const Taps *rows = &job.rows
    cdef const Taps *columns = &job.columns
    cdef Py_ssize_t phases = fnn_max(rows.phases * columns.phases, 1)
    cdef Py_ssize_t per_position = itemsize * phases * fnn_max(job.channels, 1)
    cdef Py_ssize_t positions = POSITIONS, size
    # Small planes are worth a copy, in which many follow each other: there is less left of the last vector.
    plan.in_place = (
        rows.step == 1 and columns.step == 1 and columns.phases <= 1
        and is_inside(rows, 0, rows.outputs) and is_inside(columns, 0, columns.outputs)
        and (job.images == 1 or rows.outputs * columns.length >= 8 * lanes)
    )
    if not plan.in_place:
        positions = fnn_min(positions, BLOCK_BYTES // per_position)
    if job.result_column != 1:
        positions = fnn_min(positions, BLOCK_BYTES // (itemsize * fnn_max(job.planes, 1)))
    plan.columns = fnn_max(positions // (1 + rows.reach) - columns.reach, NARROW)
    plan.columns = fnn_even_part(columns.outputs, plan.columns, 1)
    if not plan.in_place and is_many(1 + rows.reach, plan.columns + columns.reach, phases, MAX_VECS):
        return False
    size = columns.length if plan.in_place else plan.columns + columns.reach
    plan.lines = 1
    if plan.columns == columns.outputs:
        plan.lines = fnn_even_part(rows.outputs, fnn_max(positions // size - rows.reach, 1), 1)
    size *= plan.lines + rows.reach
    plan.images = 1
    if plan.lines == rows.outputs and not plan.in_place and not is_whole_plane(job, lanes):
        plan.images = fnn_even_part(job.images, fnn_max(positions // size, 1), 1)
    plan.channels = job.channels
    if not plan.in_place:
        plan.channels = fnn_max(MOST_BYTES // (itemsize * phases * plan.images * size), 1)
        plan.channels = fnn_min(plan.channels, job.channels)
    return True


cdef inline Py_ssize_t distance_of_lines(const Block *block, const Job *job, Py_ssize_t lanes) noexcept nogil:
    """Of a copy: whole vectors, which the taps of all lines read aligned, where that costs few lanes.

    Lines of one image follow each other as in the result, where no tap reaches out of them.
    """
    cdef Py_ssize_t size = block.images * block.width
    cdef Py_ssize_t whole = fnn_parts(size, lanes) * lanes
    return whole if job.columns.reach == 0 and block.images > 1 and 16 * (whole - size) <= size else size


cdef inline bint place_planes(
    Block *block, const Plan *plan, const Job *job, Py_ssize_t lanes, Py_ssize_t tail
) noexcept nogil:
    """Choose where the block's part of the source is read, and its strides. Whether they have changed.

    A copy has the images side by side in each line, so that nothing is between them. In place, tiles read up to
    `tail` numbers behind their last pixel: at the source's end, they get a copy.
    """
    cdef Py_ssize_t plane = job.rows.length * job.columns.length
    cdef Py_ssize_t end = (
        ((block.image + block.images) * job.groups * job.channels - 1) * plane
        + (block.line + block.lines + job.rows.high) * job.columns.length + tail
    )
    cdef Py_ssize_t height = block.height, width = block.width, line_step = block.line_step
    block.in_place = plan.in_place and end <= job.images * job.groups * job.channels * plane
    if block.in_place:
        block.height, block.width, block.line_step = job.rows.length, job.columns.length, job.columns.length
        block.image_step, block.phase, block.channel = job.groups * job.channels * plane, 0, plane
    else:
        block.height, block.width = block.lines + job.rows.reach, block.columns + job.columns.reach
        block.image_step = block.width
        block.line_step = distance_of_lines(block, job, lanes)
        block.phase = block.height * block.line_step
        block.channel = job.rows.phases * job.columns.phases * block.phase
    return block.height != height or block.width != width or block.line_step != line_step


cdef inline void copy_planes(
    real *target, const Block *block, const Job *job, const real *source, Py_ssize_t channels
) noexcept nogil:
    """The block's part of some channels of the source, [channel, phase, y, image, x], framed with zeros."""
    cdef const Taps *rows = &job.rows
    cdef const Taps *columns = &job.columns
    cdef Py_ssize_t image = job.groups * job.channels * rows.length * columns.length
    cdef Py_ssize_t size = block.line_step
    cdef Py_ssize_t c, f, g, y, row, column, at, end, top, bottom
    cdef const real *line
    source += block.image * image
    for c in range(channels):
        for f in range(rows.phases):
            row = block.line * rows.step + rows.low + rows.offset[f]
            top = fnn_min(gap(row, rows.step), block.height)
            bottom = fnn_max(fnn_min(block.height, gap(row - rows.length, rows.step)), top)
            for g in range(columns.phases):
                column = block.column * columns.step + columns.low + columns.offset[g]
                at = fnn_min(gap(column, columns.step), block.width)
                end = fnn_max(fnn_min(block.width, gap(column - columns.length, columns.step)), at)
                line = source + row * columns.length + column
                memset(target, 0, top * size * sizeof(real))
                if block.images == 1:
                    copy_lines(
                        target + top * size, size, line + top * rows.step * columns.length, columns.step,
                        rows.step * columns.length, bottom - top, at, end, 0
                    )
                else:
                    for y in range(top, bottom):
                        copy_lines(
                            target + y * size, block.width, line + y * rows.step * columns.length, columns.step,
                            image, block.images, at, end, size - block.images * block.width
                        )
                memset(target + bottom * size, 0, (block.height - bottom) * size * sizeof(real))
                target += block.height * size
        source += rows.length * columns.length
    memset(target, 0, MAX_VECS * lanes_of(source) * sizeof(real))


cdef inline const real *part_of_planes(
    const Block *block, const Job *job, const real *source, Py_ssize_t channels
) noexcept nogil:
    """The block's part of `channels` channels of the source, in place or as a copy; NULL without memory."""
    cdef real *copy
    if block.in_place:
        return (
            source + block.image * block.image_step
            + (block.line + job.rows.low) * block.line_step + block.column + job.columns.low
        )
    copy = <real *> fnn_workspace(
        SOURCE, (channels * block.channel + MAX_VECS * lanes_of(source)) * sizeof(real)
    )
    if copy != NULL:
        copy_planes(copy, block, job, source, channels)
    return copy


cdef inline void place_terms(
    Py_ssize_t *weight_at, Py_ssize_t *source_at, Py_ssize_t first, Py_ssize_t count, const Block *block,
    const Job *job,
) noexcept nogil:
    """Where the terms `first`, `first` + 1, ... are, in the order of channels and taps, NCHW."""
    cdef const Taps *rows = &job.rows
    cdef const Taps *columns = &job.columns
    cdef Py_ssize_t s = first % columns.count
    cdef Py_ssize_t r = first // columns.count % rows.count
    cdef Py_ssize_t c = first // columns.count // rows.count
    cdef Py_ssize_t p
    for p in range(count):
        weight_at[p] = (
            c * job.weight_channel + rows.index[r] * job.weight_row + columns.index[s] * job.weight_column
        )
        source_at[p] = (
            c * block.channel + (rows.phase[r] * columns.phases + columns.phase[s]) * block.phase
            + rows.shift[r] * block.line_step + columns.shift[s]
        )
        s += 1
        if s == columns.count:
            s = 0
            r += 1
            if r == rows.count:
                r = 0
                c += 1


cdef inline bint set_runs(Block *block, const Job *job, Py_ssize_t lanes) noexcept nogil:
    """Find which lanes are pixels and where they go; whether there is memory."""
    cdef Py_ssize_t lines = block.images * block.lines
    cdef Py_ssize_t image, line, begin, end, stop, target, v, vector = 0, count = 0
    cdef Run *run
    block.vectors = fnn_parts(
        (block.images - 1) * block.image_step + (block.lines - 1) * block.line_step + block.columns, lanes
    )
    block.first = <Py_ssize_t *> fnn_workspace(
        RUNS, (block.vectors + 1) * sizeof(Py_ssize_t) + (block.vectors + lines) * sizeof(Run)
    )
    if block.first == NULL:
        return False
    block.runs = <Run *> (block.first + block.vectors + 1)
    block.first[0] = 0
    for line in range(block.lines):
        for image in range(block.images):
            begin = line * block.line_step + image * block.image_step
            end = begin + block.columns
            target = image * job.result_image + line * job.result_line
            if job.result_column != 1:  # to a result without distances between the pixels
                target = (image * block.lines + line) * block.columns
            while begin < end:
                v = begin // lanes
                stop = fnn_min(end, (v + 1) * lanes)
                while vector < v:
                    vector += 1
                    block.first[vector] = count
                run = block.runs + count - 1
                if (
                    count > block.first[v] and run.end == begin - v * lanes
                    and run.target + run.end - run.begin == target
                ):
                    run.end = <int> (stop - v * lanes)
                else:
                    block.runs[count] = Run(<int> (begin - v * lanes), <int> (stop - v * lanes), target)
                    count += 1
                target += stop - begin
                begin = stop
    block.first[block.vectors] = count
    block.whole = 0
    while block.whole < count and block.first[block.whole] == block.whole and (
        block.runs[block.whole].end - block.runs[block.whole].begin == lanes
    ):
        block.whole += 1
    return True


cdef inline void multiply_planes(
    const Block *block, const Job *job, const real *source, Py_ssize_t channels, const real *weight,
    const real *bias, real *result, Py_ssize_t result_i, bint accumulate,
) noexcept nogil:
    """One block of one group of the result, from `channels` channels of the source."""
    cdef Py_ssize_t weight_at[TERMS]
    cdef Py_ssize_t source_at[TERMS]
    cdef Py_ssize_t terms = channels * job.rows.count * job.columns.count
    cdef Py_ssize_t at_once = fnn_even_part(terms, TERMS, 1) if terms else 1
    cdef Py_ssize_t lanes = lanes_of(source)
    cdef Py_ssize_t vecs = 4 if job.m <= max_rows(4) else 3 if job.m % max_rows(3) == 0 else 2
    cdef Py_ssize_t first = 0, i, v, height
    cdef Tile tile
    vecs = fnn_even_part(block.vectors, vecs, 1)
    height = fnn_even_part(job.m, max_rows(vecs), 1)
    tile.a_rs, tile.a_at, tile.b_at = job.weight_i, weight_at, source_at
    tile.c_rs, tile.runs = result_i, block.runs
    tile.col_bias = NULL
    while True:
        tile.k = fnn_min(at_once, terms - first)
        tile.accumulate = accumulate or first > 0
        place_terms(weight_at, source_at, first, tile.k, block, job)
        for i from 0 <= i < job.m by height:
            tile.a = weight + i * job.weight_i
            tile.row_bias = NULL
            if bias != NULL and not tile.accumulate:
                tile.row_bias = bias + i
            tile.c = result + i * result_i
            for v from 0 <= v < block.vectors by vecs:
                tile.first = block.first + v
                tile.b = source + v * lanes
                tile.whole = not tile.accumulate and v + vecs <= block.whole
                run_tile(source, &tile, fnn_min(height, job.m - i), fnn_min(vecs, block.vectors - v))
        first += tile.k
        if first >= terms or poll():
            return


cdef inline void spread(const Block *block, const Job *job, const real *compact, real *result) noexcept nogil:
    """A block of one group of the result to its pixels, which are more than one apart."""
    cdef Py_ssize_t i, image, line
    cdef real *target
    for i in range(job.m):
        for image in range(block.images):
            for line in range(block.lines):
                target = result + i * job.result_i + image * job.result_image + line * job.result_line
                spread_line(target, job.result_column, compact, block.columns)
                compact += block.columns


cdef inline void activate_planes(
    const Activation *activation, const Block *block, const Job *job, real *result
) noexcept nogil:
    """f over a block of one group of the result: a plane at once where its lines follow each other."""
    cdef Py_ssize_t i, image, line
    cdef bint whole = block.columns == job.result_line
    cdef real *plane
    for i in range(job.m):
        for image in range(block.images):
            plane = result + i * job.result_i + image * job.result_image
            if whole:
                activate(activation, plane, block.lines * block.columns)
                continue
            for line in range(block.lines):
                activate(activation, plane + line * job.result_line, block.columns)


cdef inline int run_group_of_planes(
    const Block *block, const Plan *plan, const Job *job, const real *source, const real *weight,
    const real *bias, real *result, const Activation *activation,
) noexcept nogil:
    """One block of one group; -1 where there is no memory."""
    cdef bint compact = job.result_column != 1
    cdef Py_ssize_t result_i = block.images * block.lines * block.columns if compact else job.result_i
    cdef Py_ssize_t plane = job.rows.length * job.columns.length
    cdef Py_ssize_t channel = 0, channels
    cdef const real *part
    cdef real *target = result
    if compact:
        target = <real *> fnn_workspace(RESULT, job.m * result_i * sizeof(real))
        if target == NULL:
            return -1
    while True:  # also once for no channels at all: then the result is the bias
        channels = fnn_min(plan.channels, job.channels - channel)
        part = part_of_planes(block, job, source + channel * plane, channels)
        if part == NULL:
            return -1
        multiply_planes(
            block, job, part, channels, weight + channel * job.weight_channel, bias, target, result_i,
            channel > 0
        )
        channel += channels
        if channel >= job.channels:
            break
    if compact:
        spread(block, job, target, result)
    elif activation != NULL:
        activate_planes(activation, block, job, result)
    return 0


cdef inline bint is_worth_splitting(const Job *job) noexcept nogil:
    """Whether a copy for each tap of a line pays: its lines are as long as the result's, so that no lane is dropped.

    Each of its numbers is a term of all kernels and each row of taps; `reach` lanes of a line would be lost.
    """
    cdef const Taps *columns = &job.columns
    return (
        columns.step == 1 and columns.count <= SPLIT_TAPS
        and columns.reach * job.planes * job.rows.count >= SPLIT_GAIN * (columns.outputs + columns.reach)
    )


cdef inline int run_planes(
    const Job *of_result, const real *source, const real *weight, const real *bias, real *result,
    const Activation *activation,
) noexcept nogil:
    """The job in the layout NCHW; -1 where there is no memory."""
    cdef Py_ssize_t lanes = lanes_of(source)
    cdef Py_ssize_t group, images = 0, lines = 0, columns = 0
    cdef Plan plan
    cdef Block block
    cdef Py_ssize_t tables[3 * SPLIT_TAPS]
    cdef Job own = of_result[0]
    cdef const Job *job = &own
    memset(&block, 0, sizeof(Block))
    if is_worth_splitting(job):
        split_phases(&own.columns, tables)
    if not plan_planes(&plan, job, sizeof(real), lanes):
        return -1
    while next_block(&block, &plan, job):
        if poll():
            return -1
        if (
            place_planes(&block, &plan, job, lanes, MAX_VECS * lanes)
            or block.images != images or block.lines != lines or block.columns != columns
        ):
            if not set_runs(&block, job, lanes):
                return -1
            images, lines, columns = block.images, block.lines, block.columns
        for group in range(job.groups):
            if run_group_of_planes(
                &block, &plan, job,
                source + group * job.channels * job.rows.length * job.columns.length,
                weight + group * job.weight_group, bias,
                result + start_of(&block, job) + group * job.m * job.result_i, activation,
            ) < 0:
                return -1
            if bias != NULL:
                bias += job.m
        if bias != NULL:
            bias -= job.groups * job.m
    return 0


cdef inline void add_plane_products(
    const Block *block, const Job *job, Lines *dots, Py_ssize_t lines, Py_ssize_t images, const real *source,
    Py_ssize_t channels, const real *grad_out, real *grad_weight,
) noexcept nogil:
    """grad_weight += the products of one block of one group, `images` and `lines` at a time."""
    cdef Py_ssize_t weight_at[TERMS]
    cdef Py_ssize_t source_at[TERMS]
    cdef Py_ssize_t terms = channels * job.rows.count * job.columns.count
    cdef Py_ssize_t first, count, image, line
    for first from 0 <= first < terms by TERMS:
        if poll():
            return
        count = fnn_min(TERMS, terms - first)
        place_terms(weight_at, source_at, first, count, block, job)
        for image from 0 <= image < block.images by images:
            dots.images = fnn_min(images, block.images - image)
            for line from 0 <= line < block.lines by lines:
                dots.lines = fnn_min(lines, block.lines - line)
                add_dots(
                    dots, grad_out + image * job.result_image + line * job.result_line, job.result_i, job.m,
                    source + image * block.image_step + line * block.line_step, source_at, count,
                    grad_weight + first, job.weight_i
                )


cdef inline int grad_weight_planes(
    const Job *job, const real *source, const real *grad_out, real *grad_weight
) noexcept nogil:
    """grad_weight += the products of grad_out and the source, summed over the pixels; -1 without memory."""
    cdef Py_ssize_t outputs = job.rows.outputs * job.columns.outputs
    cdef Py_ssize_t plane = job.rows.length * job.columns.length
    cdef Py_ssize_t group, channel, channels, images, lines
    cdef const real *part
    cdef Plan plan
    cdef Block block
    cdef Lines dots
    memset(&block, 0, sizeof(Block))
    if not plan_planes(&plan, job, sizeof(real), lanes_of(source)):
        return -1
    if plan.in_place:
        plan.images = fnn_even_part(job.images, fnn_max(DOT_POSITIONS // outputs, 1), 1)
    while next_block(&block, &plan, job):
        if poll():
            return -1
        place_planes(&block, &plan, job, lanes_of(source), 0)
        images, lines = block.images, fnn_max(DOT_POSITIONS // block.columns, 1)
        if lines >= block.lines:
            images = fnn_min(fnn_max(lines // block.lines, 1), block.images)
            lines = block.lines
        else:
            images, lines = 1, fnn_even_part(block.lines, lines, 1)
        dots.count = block.columns
        dots.a_image, dots.a_line = job.result_image, job.result_line
        dots.b_image, dots.b_line = block.image_step, block.line_step
        for group in range(job.first_group, job.end_group):
            for channel from 0 <= channel < job.channels by plan.channels:
                channels = fnn_min(plan.channels, job.channels - channel)
                part = part_of_planes(
                    &block, job, source + (group * job.channels + channel) * plane, channels
                )
                if part == NULL:
                    return -1
                add_plane_products(
                    &block, job, &dots, lines, images, part, channels,
                    grad_out + start_of(&block, job) + group * job.m * job.result_i,
                    grad_weight + group * job.weight_group + channel * job.weight_channel
                )
    return 0
