"""Depthwise convolution in the layout NCHW: few kernels for each channel, so a plane is done at a time.

A block of a plane, in its frame of zeros or in place, stays in the first-level cache for all terms of all its results.
"""

from common cimport real
from conv_blocks cimport *
from conv_planes cimport activate_planes, copy_planes, place_terms, spread
from fused cimport Activation
from libc.string cimport memset
from pool cimport poll
from windows cimport Axis, is_many

cdef extern from "engine/conv.h" nogil:
    enum:
        ANY "FNN_PLANE_ANY"
        SQUARE_3 "FNN_PLANE_SQUARE_3"
        SAME_3 "FNN_PLANE_SAME_3"
        SAME_5 "FNN_PLANE_SAME_5"
        HALF_3 "FNN_PLANE_HALF_3"
        MOST_TERMS "FNN_PLANE_TERMS"

    ctypedef struct Plane "fnn_conv_plane":
        Py_ssize_t lines, count, k
        int form
        const void *a
        const void *b
        const Py_ssize_t *b_at
        Py_ssize_t b_lines, b_line
        const void *zeros
        const void *bias
        void *c
        Py_ssize_t c_line

    bint fits_same "fnn_conv_fits_same"(Py_ssize_t lines, Py_ssize_t count, Py_ssize_t size, Py_ssize_t lanes)
    bint fits_half_back "fnn_conv_fits_half_back"(Py_ssize_t count, Py_ssize_t lanes)
    bint fits_half "fnn_conv_fits_half"(Py_ssize_t lines, Py_ssize_t count, Py_ssize_t lanes)
    void fnn_conv_run_plane_f32(const Plane *plane)
    void fnn_conv_run_plane_f64(const Plane *plane)
    void fnn_conv_half_back_f32(const Plane *plane)
    void fnn_conv_half_back_f64(const Plane *plane)
    void fnn_conv_plane_dots_f32(const Plane *plane, Py_ssize_t most, float *sums)
    void fnn_conv_plane_dots_f64(const Plane *plane, Py_ssize_t most, double *sums)

cdef enum:
    FRAME_BYTES = 3 << 13   # of a block of planes in their frames: with results, most of a first-level cache
    LANE_TERMS = 256        # products that a lane sums

cdef struct Terms:
    # of all channels of a group
    Py_ssize_t weight_at[MOST_TERMS]
    Py_ssize_t source_at[MOST_TERMS]


cdef inline bint is_planewise(const Job *job) noexcept nogil:
    """Whether groups have so few channels and kernels that nothing is gained by doing kernels together."""
    return (
        job.channels * job.m <= 2 and job.channels > 0
        and not is_many(job.rows.count, job.columns.count, job.channels, 1)
        and job.rows.count * job.columns.count * job.channels <= MOST_TERMS
    )


cdef inline bint are_neighbours(const Taps *taps, Py_ssize_t size) noexcept nogil:
    """Whether the taps are that many, side by side."""
    return taps.step == 1 and taps.count == size and taps.reach == size - 1


cdef inline bint is_same(const Taps *taps, Py_ssize_t size) noexcept nogil:
    """Whether they are around each position of the source."""
    return are_neighbours(taps, size) and taps.low == -(size // 2) and taps.outputs == taps.length


cdef inline bint is_half(const Taps *taps) noexcept nogil:
    """Whether three taps are around every second position of the source."""
    return (
        taps.step == 2 and taps.count == 3 and taps.low == -1 and taps.high == 1
        and taps.outputs == fnn_parts(taps.length, 2)
    )


cdef inline bint has_no_frame(int form) noexcept nogil:
    return form == SAME_3 or form == SAME_5 or form == HALF_3


cdef inline int form_of(const Job *job, Py_ssize_t lanes) noexcept nogil:
    """How the engine does the planes."""
    cdef const Taps *rows = &job.rows
    cdef const Taps *columns = &job.columns
    cdef Py_ssize_t size = rows.count
    if job.channels == 1 and (size == 3 or size == 5) and job.result_column == 1:
        if (
            is_same(rows, size) and is_same(columns, size)
            and fits_same(rows.length, columns.length, size, lanes)
        ):
            return SAME_3 if size == 3 else SAME_5
        if is_half(rows) and is_half(columns) and fits_half(rows.outputs, columns.outputs, lanes):
            return HALF_3
        if size == 3 and are_neighbours(rows, 3) and are_neighbours(columns, 3):
            return SQUARE_3
    return ANY


cdef inline bint plan_plane(Plan *plan, const Job *job, int form, Py_ssize_t itemsize, Py_ssize_t lanes) noexcept nogil:
    """Blocks of one plane; whether they fit memory."""
    cdef const Taps *rows = &job.rows
    cdef const Taps *columns = &job.columns
    cdef Py_ssize_t phases = fnn_max(rows.phases * columns.phases, 1)
    cdef Py_ssize_t positions = FRAME_BYTES // (itemsize * phases * job.channels), lines = rows.outputs
    plan.images, plan.channels, plan.columns = 1, job.channels, columns.outputs
    plan.in_place = has_no_frame(form) or (
        rows.step == 1 and columns.step == 1 and columns.outputs >= lanes
        and is_inside(rows, 0, rows.outputs) and is_inside(columns, 0, columns.outputs)
    )
    if not plan.in_place:
        plan.columns = fnn_max(positions // (2 + rows.reach) - columns.reach, NARROW)
        plan.columns = fnn_even_part(columns.outputs, plan.columns, 1)
        if is_many(1 + rows.reach, plan.columns + columns.reach, phases, job.channels):
            return False
        lines = fnn_max(positions // (plan.columns + columns.reach) - rows.reach, 1)
    if job.result_column != 1:
        lines = fnn_min(lines, fnn_max(FRAME_BYTES // (itemsize * plan.columns), 1))
    plan.lines = fnn_even_part(rows.outputs, lines, 1)
    return True


cdef inline bint next_block_of_image(Block *block, const Plan *plan, const Job *job, Py_ssize_t image) noexcept nogil:
    """Go to the next block of each plane of an image, or to the first one, and place it; whether there is one."""
    if block.images and block.image == image:
        block.column += block.columns
        if block.column >= job.columns.outputs:
            block.column = 0
            block.line += block.lines
    else:
        block.image, block.images, block.line, block.column = image, 1, 0, 0
    block.lines = fnn_min(plan.lines, job.rows.outputs - block.line)
    block.columns = fnn_min(plan.columns, job.columns.outputs - block.column)
    block.in_place = plan.in_place
    if block.in_place:
        block.width, block.phase, block.channel = job.columns.length, 0, job.rows.length * job.columns.length
    else:
        block.height, block.width = block.lines + job.rows.reach, block.columns + job.columns.reach
        block.phase = block.height * block.width
        block.channel = job.rows.phases * job.columns.phases * block.phase
    block.line_step = block.width
    return block.lines > 0


cdef inline void find_terms(Terms *terms, Plane *plane, const Block *block, const Job *job) noexcept nogil:
    """The terms of a block, those of a square in the order of the memory."""
    cdef Py_ssize_t last
    plane.k = job.channels * job.rows.count * job.columns.count
    place_terms(terms.weight_at, terms.source_at, 0, plane.k, block, job)
    last = plane.k - 1
    if plane.form != ANY and terms.source_at[0] > terms.source_at[last]:
        reverse(terms.weight_at, plane.k)
        reverse(terms.source_at, plane.k)
    plane.b_at = terms.source_at
    plane.lines, plane.count, plane.b_lines, plane.b_line = block.lines, block.columns, job.rows.length, block.width


cdef inline const real *part_of_plane(
    const Block *block, const Job *job, int form, const real *source, real *frame
) noexcept nogil:
    """Where the block's first tap reads, in place or in a copy; of the forms of the same size, the plane."""
    if not block.in_place:
        copy_planes(frame, block, job, source, job.channels)
        return frame
    source += block.image * job.groups * job.channels * block.channel
    if has_no_frame(form):
        return source
    return source + (block.line + job.rows.low) * block.width + block.column + job.columns.low


cdef inline real *reserve_frame(Plane *plane, const Plan *plan, const Job *job, const real *dtype) noexcept nogil:
    """Room for the frames of a block, with vectors behind, or for a line of zeros where there are none."""
    cdef Py_ssize_t size = job.columns.length
    cdef real *memory
    if not plan.in_place:
        size = (plan.lines + job.rows.reach) * (plan.columns + job.columns.reach)
        size *= job.channels * job.rows.phases * job.columns.phases
    size += MAX_VECS * lanes_of(dtype)
    memory = <real *> fnn_workspace(SOURCE, size * sizeof(real))
    if memory != NULL and plan.in_place:
        memset(memory, 0, size * sizeof(real))
    plane.zeros = memory
    return memory


cdef inline real *begin_planes(Plane *plane, Plan *plan, const Job *job, const real *dtype) noexcept nogil:
    """Choose form and blocks; the frame, or NULL where there is no memory."""
    plane.form = form_of(job, lanes_of(dtype))
    if not plan_plane(plan, job, plane.form, sizeof(real), lanes_of(dtype)):
        return NULL
    return reserve_frame(plane, plan, job, dtype)


cdef inline void run_plane(const real *dtype, const Plane *plane) noexcept nogil:
    if real is float:
        fnn_conv_run_plane_f32(plane)
    else:
        fnn_conv_run_plane_f64(plane)


cdef inline void add_plane_dots(const Plane *plane, real *sums) noexcept nogil:
    cdef Py_ssize_t most = fnn_even_part(
        plane.lines, fnn_max(LANE_TERMS * lanes_of(sums) // plane.count, 1), 4
    )
    if real is float:
        fnn_conv_plane_dots_f32(plane, most, sums)
    else:
        fnn_conv_plane_dots_f64(plane, most, sums)


cdef inline void run_block_of_planes(
    Plane *plane, const Block *block, const Terms *terms, const Job *job, const real *weight, const real *bias,
    real *compact, real *result, const Activation *activation,
) noexcept nogil:
    """One block of the results of a group, whose source is placed."""
    cdef real weights[MOST_TERMS]
    cdef real *target = result if compact == NULL else compact
    cdef Py_ssize_t i, p
    plane.c_line = job.result_line if compact == NULL else block.columns
    for i in range(job.m):
        for p in range(plane.k):
            weights[p] = weight[i * job.weight_i + terms.weight_at[p]]
        plane.a, plane.bias = weights, NULL
        if bias != NULL:
            plane.bias = bias + i
        plane.c = target + i * (job.result_i if compact == NULL else block.lines * block.columns)
        run_plane(result, plane)
    if compact != NULL:
        spread(block, job, compact, result)
    elif activation != NULL:
        activate_planes(activation, block, job, result)


cdef inline int run_planewise(
    const Job *job, const real *source, const real *weight, const real *bias, real *result,
    const Activation *activation,
) noexcept nogil:
    """A job for which is_planewise holds; -1 where there is no memory."""
    cdef Py_ssize_t of_group = job.channels * job.rows.length * job.columns.length
    cdef Py_ssize_t image, group
    cdef const real *of_bias = NULL
    cdef real *compact = NULL
    cdef real *frame
    cdef Terms terms
    cdef Plane plane
    cdef Plan plan
    cdef Block block
    frame = begin_planes(&plane, &plan, job, source)
    if frame == NULL:
        return -1
    if job.result_column != 1:
        compact = <real *> fnn_workspace(RESULT, job.m * plan.lines * plan.columns * sizeof(real))
        if compact == NULL:
            return -1
    memset(&block, 0, sizeof(Block))
    for image in range(job.images):
        while next_block_of_image(&block, &plan, job, image):
            if poll():
                return -1
            find_terms(&terms, &plane, &block, job)
            for group in range(job.groups):
                plane.b = part_of_plane(&block, job, plane.form, source + group * of_group, frame)
                if bias != NULL:
                    of_bias = bias + group * job.m
                run_block_of_planes(
                    &plane, &block, &terms, job, weight + group * job.weight_group, of_bias, compact,
                    result + start_of(&block, job) + group * job.m * job.result_i, activation
                )
    return 0


cdef inline bint is_halved(const Axis *axis) noexcept nogil:
    """Whether there are three taps around every second position."""
    return (
        axis.taps == 3 and axis.stride == 2 and axis.dilation == 1 and axis.before == 1
        and axis.outputs == fnn_parts(axis.length, 2)
    )


cdef inline int grad_x_halved(
    const Axis *rows, const Axis *columns, Py_ssize_t planes, const real *grad_out, const real *weight, real *grad_x
) noexcept nogil:
    """The gradient of planes with a kernel each, of which both axes are halved: a number is written once, whatever the
    phase of the stride that it is in. -1 without memory."""
    cdef Py_ssize_t size = (columns.outputs + MAX_VECS * lanes_of(grad_out)) * <Py_ssize_t> sizeof(real)
    cdef Py_ssize_t i
    cdef void *zeros = fnn_workspace(SOURCE, size)
    cdef Plane plane
    if zeros == NULL:
        return -1
    memset(zeros, 0, size)
    plane.zeros, plane.lines, plane.count, plane.c_line = zeros, rows.length, columns.length, columns.length
    plane.b_lines, plane.b_line = rows.outputs, columns.outputs
    for i in range(planes):
        plane.a, plane.b = weight + i * 9, grad_out + i * rows.outputs * columns.outputs
        plane.c = grad_x + i * rows.length * columns.length
        if real is float:
            fnn_conv_half_back_f32(&plane)
        else:
            fnn_conv_half_back_f64(&plane)
    return 0


cdef inline int grad_weight_planewise(
    const Job *job, const real *source, const real *grad_out, real *grad_weight
) noexcept nogil:
    """grad_weight += the products of grad_out and the source, summed over the pixels; -1 without memory."""
    cdef Py_ssize_t of_group = job.channels * job.rows.length * job.columns.length
    cdef Py_ssize_t image, group, i
    cdef const real *of_grad
    cdef real *frame
    cdef Terms terms
    cdef Plane plane
    cdef Plan plan
    cdef Block block
    frame = begin_planes(&plane, &plan, job, source)
    if frame == NULL:
        return -1
    plane.c_line = job.result_line
    memset(&block, 0, sizeof(Block))
    for image in range(job.images):
        while next_block_of_image(&block, &plan, job, image):
            if poll():
                return -1
            find_terms(&terms, &plane, &block, job)
            for group in range(job.first_group, job.end_group):
                plane.b = part_of_plane(&block, job, plane.form, source + group * of_group, frame)
                of_grad = grad_out + start_of(&block, job) + group * job.m * job.result_i
                for i in range(job.m):
                    plane.a = of_grad + i * job.result_i
                    add_plane_dots(&plane, grad_weight + group * job.weight_group + i * job.weight_i)
    return 0
