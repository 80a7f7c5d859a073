"""2-D convolution, compiled; see `fastnn/conv.py` for what each function is.

Where many pixels share what they read, no matrix of patches ("im2col") is made: the register tiles of engine/conv.h look
up where each term lies. What is copied is the image itself, block by block, where it needs a frame of zeros or its pixels
sorted by phase. Kernels of 3 x 3 over many channels take Winograd's form instead, also with a stride of 2, kernels of one pixel are matrix
products, and so are the patches of images with few pixels, of deep convolutions with a stride, and of many gradients.
Channels with a kernel each are put side by side, some at a time, where their planes are narrow or have a stride. The
arguments and the jobs that they make are here; conv_planes.pxd, conv_depthwise.pxd, conv_pixels.pxd,
conv_winograd.pxd, conv_sparse.pxd, conv_points.pxd and conv_patches.pxd do the jobs.
"""

cimport numpy as cnp
from columns cimport sum_columns
from common cimport (
    PyArray_CheckExact, PyArray_DATA, PyArray_DIMS, PyArray_EMPTY, PyArray_ISWRITEABLE, PyArray_NDIM, PyArray_TYPE, are_apart,
    are_outs, data_of, gradient_in, has_shape, is_plain, is_plain_of, read_bools, real,
)
from conv_blocks cimport *
from conv_depthwise cimport (
    MOST_TERMS, fits_half, fits_half_back, grad_weight_planewise, grad_x_halved, is_halved, is_planewise, run_planewise,
)
from conv_patches cimport move_patches
from conv_pixels cimport grad_weight_depthwise, grad_weight_pixels, grad_weight_transposed, run_depthwise, run_pixels
from conv_planes cimport grad_weight_planes, run_planes
from conv_points cimport factors_of, grad_weight_products, is_product, run_products
from conv_sparse cimport UNEVEN, Sparse, sum_sparse
from conv_winograd cimport *
from fused cimport Activation, activation_of
from gemm cimport Factors, pack_panels, panels_size, uses_panels
from libc.string cimport memset
from packed cimport keep_with, kept_with, room_for, start_of
from pool cimport NO_MEMORY, Task, join_pool, raise_if, run, team
from reduce cimport sum_of
from windows cimport (
    Axis, Image, axis_of, image_of, is_many, read_axes, read_integer, read_layout, set_shape,
)

from fastnn_ext.checks import conv as checks
from fastnn_ext.checks.packed import PackedWeight

cnp.import_array()
join_pool()
cdef str NAME = __name__
cdef str NAME_STRIDED = __name__ + ", stride 2"

cdef extern from "engine/simd.h" nogil:
    bint FREE_MASKS "FNN_FREE_MASKS"

cdef enum:
    SUMS = 16        # channels whose sums are done together
    SMALL = 1 << 16  # multiplications that cost less than giving up the GIL
    KERNELS = 32     # that a part does, at least: each part copies what it needs of the image
    PRODUCT_ROWS = 128  # the same for kernels of one pixel, where the copy is dearer beside the work
    PART = 1 << 22   # multiplications that one thread does at a time, at least
    SHARE = 1 << 20  # that a thread must have
    MOVING = 8       # of them take as long as a number from memory and back
    CHANNELS = 16    # of a part with one channel in each group, at least
    CHANNEL_BYTES = 1 << 21  # of their sums, for all taps, in double and in the array's dtype
    BAND = 128       # pixels of a part of one image, at least: each part packs the weights
    GROUP_BYTES = 1 << 18  # of the planes of some groups that stay in the second-level cache
    MOST_SUMS = 16         # over some of the images each, that are the gradient of the weights together,
    SUMS_BYTES = 1 << 18   # and their bytes: they stay in the second-level cache
    PARTIAL = PLANES       # slot of the workspace for these sums
    FEW_PIXELS = 16        # of an image whose convolution is a product of patches, more or less,
    PATCH_MOST = 1 << 22   # if the patches of an image have no more bytes than this,
    PANEL_BYTES = 1 << 22  # and with the pixels of its result and what the product packs, at most this,
    PATCH_ROOM = 15 << 19  # no more than this;
    PATCH_BYTES = 1 << 21  # so many are made at once
    LANE_LOSS = 16         # taps for each vector that a line of a plane is, and less: lanes are lost for nothing
    SIDE_BY_SIDE = 16      # channels, with a kernel each, that are put side by side at once,
    SIDE_PIXELS = PLANES   # in this slot, if an image of them and its result have no more bytes than
    SIDE_MOST = 1 << 20    # this; of so many images
    SIDE_BYTES = 1 << 18   # that they stay in the second-level cache

cdef struct Convolution:
    Axis rows, columns
    Py_ssize_t images, groups
    Py_ssize_t channels, kernels  # of one group
    bint channels_last
    const void *panels            # of the weights, packed for a product, or NULL

cdef inline Py_ssize_t parts_of_bias(const Convolution *conv) noexcept nogil:
    return fnn_parts(conv.groups * conv.kernels, SUMS)


cdef void sum_planes(const Convolution *conv, const real *grad_out, Py_ssize_t part, real *grad_bias) noexcept nogil:
    """A part of the gradient of the bias, channels first, in the order of memory; in double: there can be millions of
    pixels."""
    cdef Py_ssize_t pixels = conv.rows.outputs * conv.columns.outputs
    cdef Py_ssize_t kernels = conv.groups * conv.kernels, first = part * SUMS, n, k
    cdef Py_ssize_t count = fnn_min(SUMS, kernels - first)
    cdef double total[SUMS]
    memset(total, 0, sizeof(total))
    for n in range(conv.images):
        for k in range(count):
            total[k] += sum_of(grad_out + (n * kernels + first + k) * pixels, pixels)
    for k in range(count):
        grad_bias[first + k] = <real> total[k]


cdef inline bint has_stride(const Convolution *conv) noexcept nogil:
    return conv.rows.stride > 1 or conv.columns.stride > 1


cdef inline bint is_pointwise(const Convolution *conv) noexcept nogil:
    """Whether each pixel of the result reads one of the image: the planes are products as they are."""
    return conv.rows.taps == 1 and conv.columns.taps == 1 and not has_stride(conv)


cdef bint all_finite(const real *x, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    cdef int bad = 0
    for i in range(n):
        bad |= not (x[i] - x[i] == 0)
    return not bad


cdef void scatter(
    const Convolution *conv, const real *grad_out, const real *weight, real *grad_x
) noexcept nogil:
    """grad_x term by term: without zeros around grad_out, which a weight of infinity would turn into NaN."""
    cdef const Axis *rows = &conv.rows
    cdef const Axis *columns = &conv.columns
    cdef Py_ssize_t c_count = conv.groups * conv.channels, k_count = conv.groups * conv.kernels
    cdef Py_ssize_t n, k, c, r, s, p, q, h, w, first
    cdef Py_ssize_t weight_c = 1 if conv.channels_last else rows.taps * columns.taps
    cdef Py_ssize_t weight_tap = conv.channels if conv.channels_last else 1
    cdef Py_ssize_t x_c = 1 if conv.channels_last else rows.length * columns.length
    cdef Py_ssize_t x_pixel = c_count if conv.channels_last else 1
    cdef Py_ssize_t g_k = 1 if conv.channels_last else rows.outputs * columns.outputs
    cdef Py_ssize_t g_pixel = k_count if conv.channels_last else 1
    cdef real factor
    memset(grad_x, 0, conv.images * c_count * rows.length * columns.length * sizeof(real))
    for n in range(conv.images):
        for k in range(k_count):
            first = k // conv.kernels * conv.channels
            for c in range(conv.channels):
                for r in range(rows.taps):
                    for s in range(columns.taps):
                        factor = weight[
                            k * conv.channels * rows.taps * columns.taps + c * weight_c
                            + (r * columns.taps + s) * weight_tap
                        ]
                        for p in range(rows.outputs):
                            h = p * rows.stride + r * rows.dilation - rows.before
                            if not 0 <= h < rows.length:
                                continue
                            for q in range(columns.outputs):
                                w = q * columns.stride + s * columns.dilation - columns.before
                                if 0 <= w < columns.length:
                                    grad_x[(first + c) * x_c + (h * columns.length + w) * x_pixel] += (
                                        factor * grad_out[k * g_k + (p * columns.outputs + q) * g_pixel]
                                    )
        grad_x += c_count * rows.length * columns.length
        grad_out += k_count * rows.outputs * columns.outputs


cdef inline Py_ssize_t weights_of(const Convolution *conv) noexcept nogil:
    """How many numbers the weights are."""
    return conv.groups * conv.kernels * conv.channels * conv.rows.taps * conv.columns.taps


cdef bint is_depthwise(const Convolution *conv) noexcept nogil:
    """Whether the channels, side by side, have a kernel each."""
    return conv.channels_last and conv.channels == 1 and conv.kernels == 1


cdef void place_weight(Job *job, const Convolution *conv) noexcept nogil:
    """The strides of the weights, [group, kernel, channel, r, s] or [group, kernel, r, s, channel]."""
    cdef Py_ssize_t taps = conv.rows.taps * conv.columns.taps
    job.images, job.groups = conv.images, conv.groups
    job.first_group, job.end_group = 0, conv.groups
    job.weight_group = conv.kernels * conv.channels * taps
    job.weight_i = conv.channels * taps
    job.weight_channel = 1 if conv.channels_last else taps
    job.weight_column = conv.channels if conv.channels_last else 1
    job.weight_row = conv.columns.taps * job.weight_column
    job.panels = NULL


cdef bint set_forward(Job *job, const Convolution *conv) noexcept nogil:
    """The job of the convolution itself; whether there is memory for its tables."""
    cdef Py_ssize_t kernels = conv.groups * conv.kernels
    cdef Py_ssize_t pixels = conv.rows.outputs * conv.columns.outputs
    place_weight(job, conv)
    job.panels = conv.panels
    job.channels, job.m = conv.channels, conv.kernels
    job.planes = conv.kernels
    job.result_image = kernels * pixels
    job.result_i = 1 if conv.channels_last else pixels
    job.result_column = kernels if conv.channels_last else 1
    job.result_line = conv.columns.outputs * job.result_column
    if is_depthwise(conv):
        job.groups, job.channels, job.m = 1, conv.groups, conv.groups
    return forward_taps(&job.rows, TAPS, &conv.rows) and forward_taps(&job.columns, TAPS + 1, &conv.columns)


cdef void set_backward(Job *job, const Convolution *conv) noexcept nogil:
    """The jobs of grad_x, but for their taps: kernels and channels change places."""
    cdef Py_ssize_t channels = conv.groups * conv.channels
    cdef Py_ssize_t weight_i
    place_weight(job, conv)
    weight_i = job.weight_i
    job.weight_i = job.weight_channel
    job.weight_channel = weight_i
    job.channels, job.m = conv.kernels, conv.channels
    job.planes = conv.channels
    job.result_image = channels * conv.rows.length * conv.columns.length
    job.result_i = 1 if conv.channels_last else conv.rows.length * conv.columns.length
    job.result_column = (channels if conv.channels_last else 1) * conv.columns.stride
    job.result_line = (channels if conv.channels_last else 1) * conv.rows.stride * conv.columns.length
    if is_depthwise(conv):
        job.groups, job.channels, job.m = 1, conv.groups, conv.groups


cdef int run_job(
    const Convolution *conv, const Job *job, const real *source, const real *weight, const real *bias,
    real *result, const Activation *activation,
) noexcept nogil:
    if job.images == 0 or job.m == 0:
        return 0
    if is_depthwise(conv):
        return run_depthwise(job, source, weight, bias, result, activation)
    if not conv.channels_last and is_planewise(job):
        return run_planewise(job, source, weight, bias, result, activation)
    if is_product(job, conv.channels_last):
        return run_products(job, conv.channels_last, source, weight, bias, result, activation)
    if conv.channels_last:
        return run_pixels(job, source, weight, bias, result, activation)
    return run_planes(job, source, weight, bias, result, activation)


cdef inline bint has_plane_form(const Convolution *conv, Py_ssize_t lanes, bint backward) noexcept nogil:
    """Whether planes of channels with a kernel each are done well as they are: from registers, and with few lanes lost.

    Gradients want results as large as the image, which need no frame.
    """
    cdef const Axis *rows = &conv.rows
    cdef const Axis *columns = &conv.columns
    cdef Py_ssize_t taps = rows.taps * columns.taps
    if taps < 4:
        return True
    if is_halved(rows) and is_halved(columns):
        return fits_half(rows.outputs, columns.outputs, lanes)
    return (
        rows.taps == columns.taps and columns.taps in (3, 5) and rows.stride == 1 and columns.stride == 1
        and rows.dilation == 1 and columns.dilation == 1
        and (
            (columns.taps == 3 and not backward)
            or (rows.outputs == rows.length and columns.outputs == columns.length)
        )
        and columns.outputs * LANE_LOSS > taps * lanes
    )


cdef void frame_axis(Axis *axis) noexcept nogil:
    """Make what the windows read outside, before or after, a part of the axis, and drop what none reads."""
    axis.length = (axis.outputs - 1) * axis.stride + (axis.taps - 1) * axis.dilation + 1
    axis.before = 0


cdef double pixels_side_by_side(const Convolution *conv) noexcept nogil:
    """Of an image in its frame and of its result."""
    cdef Axis rows = conv.rows, columns = conv.columns
    frame_axis(&rows)
    frame_axis(&columns)
    return <double> rows.length * columns.length + <double> rows.outputs * columns.outputs


cdef bint is_worth_side_by_side(
    const Convolution *conv, Py_ssize_t itemsize, Py_ssize_t lanes, bint backward
) noexcept nogil:
    """Whether channels with a kernel each are put side by side, though they come in planes."""
    return (
        not conv.channels_last and conv.channels == 1 and conv.kernels == 1 and conv.groups >= MANY_CHANNELS
        and conv.rows.taps * conv.columns.taps <= MOST_TERMS
        and pixels_side_by_side(conv) * SIDE_BY_SIDE * itemsize <= SIDE_MOST
        and not has_plane_form(conv, lanes, backward)
    )


cdef Convolution some_side_by_side(const Convolution *conv, Py_ssize_t itemsize) noexcept nogil:
    """The convolution of as many images and channels as are done at once, side by side."""
    cdef Convolution some = conv[0]
    some.channels_last = True
    some.groups = fnn_min(SIDE_BY_SIDE, conv.groups)
    some.images = fnn_max(<Py_ssize_t> (SIDE_BYTES / (pixels_side_by_side(conv) * some.groups * itemsize)), 1)
    some.images = fnn_even_part(conv.images, some.images, 1)
    return some


cdef void put_side_by_side(
    const Convolution *some, const real *planes, Py_ssize_t image, Py_ssize_t plane, real *pixels
) noexcept nogil:
    """The channels of images that are `image` numbers apart and have planes of `plane` numbers, to pixels."""
    cdef Py_ssize_t n
    for n in range(some.images):
        transpose(pixels + n * plane * some.groups, some.groups, planes + n * image, plane, some.groups, plane)


cdef void put_in_frame(
    const Convolution *some, const Convolution *conv, const real *planes, Py_ssize_t image, real *pixels
) noexcept nogil:
    """The channels of images that are `image` numbers apart, within the frames of `some`."""
    cdef Py_ssize_t plane = conv.rows.length * conv.columns.length, n, line
    cdef Py_ssize_t top = conv.rows.before, left = conv.columns.before
    cdef Py_ssize_t lines = fnn_min(conv.rows.length, some.rows.length - top)
    cdef Py_ssize_t columns = fnn_max(fnn_min(conv.columns.length, some.columns.length - left), 0)
    for n in range(some.images):
        for line in range(lines):
            transpose(
                pixels + ((n * some.rows.length + top + line) * some.columns.length + left) * some.groups, some.groups,
                planes + n * image + line * conv.columns.length, plane, some.groups, columns
            )


cdef void put_in_planes(
    const Convolution *some, const real *pixels, Py_ssize_t image, Py_ssize_t plane, real *planes
) noexcept nogil:
    """The way back."""
    cdef Py_ssize_t n
    for n in range(some.images):
        transpose(planes + n * image, plane, pixels + n * plane * some.groups, some.groups, plane, some.groups)


cdef int forward_side_by_side(
    const Convolution *conv, const real *x, const real *weight, const real *bias, real *y,
    const Activation *activation,
) noexcept nogil:
    """y where is_worth_side_by_side holds; a negative code where it fails."""
    cdef Py_ssize_t inputs = conv.rows.length * conv.columns.length
    cdef Py_ssize_t outputs = conv.rows.outputs * conv.columns.outputs
    cdef Py_ssize_t taps = conv.rows.taps * conv.columns.taps
    cdef Convolution some = some_side_by_side(conv, sizeof(real))
    cdef Py_ssize_t images = some.images, first, image, framed
    frame_axis(&some.rows)
    frame_axis(&some.columns)
    framed = images * some.groups * some.rows.length * some.columns.length
    cdef real *source = <real *> fnn_workspace(SIDE_PIXELS, framed * sizeof(real))
    cdef real *result = <real *> fnn_workspace(RESULT, images * some.groups * outputs * sizeof(real))
    if source == NULL or result == NULL:
        return -1
    for first from 0 <= first < conv.groups by SIDE_BY_SIDE:
        some.groups = fnn_min(SIDE_BY_SIDE, conv.groups - first)
        memset(source, 0, framed * sizeof(real))
        for image from 0 <= image < conv.images by images:
            some.images = fnn_min(images, conv.images - image)
            put_in_frame(&some, conv, x + (image * conv.groups + first) * inputs, conv.groups * inputs, source)
            if forward(
                &some, <const real *> source, weight + first * taps, bias + first if bias != NULL else NULL, result,
                activation
            ) < 0:
                return -1
            put_in_planes(
                &some, <const real *> result, conv.groups * outputs, outputs, y + (image * conv.groups + first) * outputs
            )
    return 0


cdef int forward(
    const Convolution *conv, const real *x, const real *weight, const real *bias, real *y,
    const Activation *activation,
) noexcept nogil:
    """y of plain arrays; a negative code where it fails."""
    cdef Job job
    if is_worth_side_by_side(conv, sizeof(real), lanes_of(x), False):
        return forward_side_by_side(conv, x, weight, bias, y, activation)
    if not set_forward(&job, conv):
        return -1
    return run_job(conv, &job, x, weight, bias, y, activation)


cdef int backward_channels(
    const Convolution *conv, const real *grad_out, const real *weight, real *grad_x, Py_ssize_t first, Py_ssize_t channels
) noexcept nogil:
    """grad_x of some channels of each group, from finite weights: all, or those of one image, without a stride where
    channels are last. For each phase of the stride a convolution of grad_out with the taps that meet there."""
    cdef Py_ssize_t pixel = conv.groups * conv.channels if conv.channels_last else 1
    cdef Py_ssize_t size = conv.images * conv.groups * channels * conv.rows.length * conv.columns.length
    cdef Py_ssize_t a, b
    cdef const real *no_bias = NULL
    cdef Job job
    cdef int failed
    set_backward(&job, conv)
    if channels < conv.channels:
        job.m = channels
    weight += first * job.weight_i
    grad_x += first * job.result_i
    if has_stride(conv):  # phases that no tap meets
        memset(grad_x, 0, size * sizeof(real))
    for a in range(fnn_min(conv.rows.stride, conv.rows.length)):
        if not backward_taps(&job.rows, TAPS, &conv.rows, a):
            return -1
        if job.rows.count == 0:
            continue
        for b in range(fnn_min(conv.columns.stride, conv.columns.length)):
            if not backward_taps(&job.columns, TAPS + 1, &conv.columns, b):
                return -1
            if job.columns.count == 0:
                continue
            failed = run_job(
                conv, &job, grad_out, weight, no_bias, grad_x + (a * conv.columns.length + b) * pixel, NULL
            )
            if failed:
                return failed
    return 0


cdef int backward_x(
    const Convolution *conv, const real *grad_out, const real *weight, real *grad_x
) noexcept nogil:
    """grad_x; a code."""
    if all_finite(weight, weights_of(conv)):
        return backward_channels(conv, grad_out, weight, grad_x, 0, conv.channels)
    scatter(conv, grad_out, weight, grad_x)
    return 0


cdef inline bint is_worth_transposing(const Job *job, Py_ssize_t itemsize) noexcept nogil:
    """Whether channels side by side, with those of the next taps, make long rows, and the images are small enough."""
    cdef Py_ssize_t plane = job.rows.length * job.columns.length * itemsize
    cdef bint joined = job.columns.high - job.columns.low + 1 == job.columns.count
    return (
        job.channels >= MANY_CHANNELS or (joined and job.channels * job.columns.count >= LONG_ROW)
    ) and 0 < plane * MANY_CHANNELS <= TRANSPOSED_BYTES


cdef struct Share:
    # of the weights: some kernels, or all of some groups
    Py_ssize_t kernel, kernels, group, groups


cdef inline Share all_of(const Convolution *conv) noexcept nogil:
    return Share(0, conv.kernels, 0, conv.groups)


cdef int backward_weight(
    const Convolution *conv, const real *grad_out, const real *x, real *grad_weight, Share share
) noexcept nogil:
    """A share of grad_weight; a code."""
    cdef Job job
    if not set_forward(&job, conv):
        return -1
    if share.kernels < conv.kernels:
        job.m = share.kernels
        grad_out += share.kernel * job.result_i
        grad_weight += share.kernel * job.weight_i
        memset(grad_weight, 0, share.kernels * job.weight_i * sizeof(real))
    else:
        job.first_group, job.end_group = share.group, share.group + share.groups
        memset(
            grad_weight + share.group * job.weight_group, 0, share.groups * job.weight_group * sizeof(real)
        )
    if job.images == 0 or job.m == 0 or job.channels == 0:
        return 0
    if is_depthwise(conv):
        return grad_weight_depthwise(&job, x, grad_out, grad_weight)
    if not conv.channels_last and is_planewise(&job):
        return grad_weight_planewise(&job, x, grad_out, grad_weight)
    if is_product(&job, conv.channels_last):
        return grad_weight_products(&job, conv.channels_last, x, grad_out, grad_weight)
    if conv.channels_last:
        return grad_weight_pixels(&job, x, grad_out, grad_weight)
    if is_worth_transposing(&job, sizeof(real)):
        return grad_weight_transposed(&job, x, grad_out, grad_weight)
    return grad_weight_planes(&job, x, grad_out, grad_weight)


cdef int backward(
    const Convolution *conv, const real *grad_out, const real *x, const real *weight, real *grad_x,
    real *grad_weight, real *grad_bias,
) noexcept nogil:
    """The gradients that are not NULL; a negative code where it fails."""
    cdef Py_ssize_t pixels = conv.images * conv.rows.outputs * conv.columns.outputs, part
    cdef int failed = 0
    if grad_x != NULL:
        failed = backward_x(conv, grad_out, weight, grad_x)
    if grad_weight != NULL and not failed:
        failed = backward_weight(conv, grad_out, x, grad_weight, all_of(conv))
    if failed or grad_bias == NULL:
        return failed
    if conv.channels_last:
        return sum_columns(grad_out, pixels, conv.groups * conv.kernels, grad_bias)
    for part in range(parts_of_bias(conv)):
        sum_planes(conv, grad_out, part, grad_bias)
    return 0


cdef inline bint is_x_halved(const Convolution *conv, const real *weight) noexcept nogil:
    """Whether the gradient of planes with a kernel each is done as grad_x_halved does it."""
    return (
        conv.channels == 1 and conv.kernels == 1 and is_halved(&conv.rows) and is_halved(&conv.columns)
        and fits_half_back(conv.columns.outputs, lanes_of(weight)) and all_finite(weight, weights_of(conv))
    )


cdef void add_sums(const real *partial, Py_ssize_t count, Py_ssize_t n, real *sum) noexcept nogil:
    """sum += each of the partial sums of n numbers, one after the other."""
    cdef Py_ssize_t i, j
    for i in range(count):
        for j in range(n):
            sum[j] += partial[i * n + j]


cdef int backward_side_by_side(
    const Convolution *conv, Py_ssize_t groups, const real *grad_out, const real *x, const real *weight, real *grad_x,
    real *grad_weight, real *grad_bias,
) noexcept nogil:
    """The gradients of some of the `groups` of an image, where is_worth_side_by_side holds; a negative code where it
    fails."""
    cdef Py_ssize_t inputs = conv.rows.length * conv.columns.length
    cdef Py_ssize_t outputs = conv.rows.outputs * conv.columns.outputs
    cdef Py_ssize_t taps = conv.rows.taps * conv.columns.taps
    cdef Convolution some = some_side_by_side(conv, sizeof(real))
    cdef Py_ssize_t images = some.images, first, image, n, c
    cdef real *source = <real *> fnn_workspace(SIDE_PIXELS, images * some.groups * inputs * sizeof(real))
    cdef real *gradient = <real *> fnn_workspace(RESULT, images * some.groups * outputs * sizeof(real))
    cdef real *sums = <real *> fnn_workspace(BIAS, some.groups * taps * sizeof(real))
    cdef double total[SIDE_BY_SIDE]
    cdef bint halved = grad_x != NULL and is_x_halved(conv, weight)
    cdef const real *planes
    if source == NULL or gradient == NULL or sums == NULL:
        return -1
    if grad_weight != NULL:
        memset(grad_weight, 0, conv.groups * taps * sizeof(real))
    for first from 0 <= first < conv.groups by SIDE_BY_SIDE:
        some.groups = fnn_min(SIDE_BY_SIDE, conv.groups - first)
        memset(total, 0, sizeof(total))
        for image from 0 <= image < conv.images by images:
            some.images = fnn_min(images, conv.images - image)
            planes = grad_out + (image * groups + first) * outputs
            if grad_weight != NULL or not halved:
                put_side_by_side(&some, planes, groups * outputs, outputs, gradient)
            if grad_bias != NULL:
                for n in range(some.images):
                    for c in range(some.groups):
                        total[c] += sum_of(planes + (n * groups + c) * outputs, outputs)
            if grad_weight != NULL:
                put_side_by_side(&some, x + (image * groups + first) * inputs, groups * inputs, inputs, source)
                if backward_weight(&some, <const real *> gradient, <const real *> source, sums, all_of(&some)) < 0:
                    return -1
                add_sums(<const real *> sums, 1, some.groups * taps, grad_weight + first * taps)
            if halved:
                for n in range(some.images):
                    if grad_x_halved(
                        &conv.rows, &conv.columns, some.groups, planes + n * groups * outputs, weight + first * taps,
                        grad_x + ((image + n) * groups + first) * inputs
                    ) < 0:
                        return -1
            elif grad_x != NULL:
                if backward_x(&some, <const real *> gradient, weight + first * taps, source) < 0:
                    return -1
                put_in_planes(
                    &some, <const real *> source, groups * inputs, inputs, grad_x + (image * groups + first) * inputs
                )
        if grad_bias != NULL:
            for c in range(some.groups):
                grad_bias[first + c] = <real> total[c]
    return 0


cdef int backward_planewise(
    const Convolution *some, Py_ssize_t images, Py_ssize_t groups, const real *grad_out, const real *x,
    const real *weight, real *grad_x, real *grad_weight, real *grad_bias,
) noexcept nogil:
    """The gradients of some groups, `some` being one image of them: each plane is read once. -1 without memory."""
    cdef Py_ssize_t outputs = some.rows.outputs * some.columns.outputs
    cdef Py_ssize_t inputs = some.channels * some.rows.length * some.columns.length
    cdef Py_ssize_t kernels = some.groups * some.kernels, k
    cdef double *total = <double *> fnn_workspace(BIAS, kernels * sizeof(double))
    cdef bint halved
    cdef int failed
    cdef Job job
    cdef Convolution all_images = some[0]
    if is_worth_side_by_side(some, sizeof(real), lanes_of(grad_out), True):
        all_images.images = images
        return backward_side_by_side(
            &all_images, groups, grad_out, x, weight, grad_x, grad_weight, grad_bias
        )
    if total == NULL:
        return -1
    halved = grad_x != NULL and is_x_halved(some, weight)
    memset(total, 0, kernels * sizeof(double))
    if grad_weight != NULL:
        memset(grad_weight, 0, weights_of(some) * sizeof(real))
    for _ in range(images):
        if grad_weight != NULL and not (
            set_forward(&job, some) and grad_weight_planewise(&job, x, grad_out, grad_weight) == 0
        ):
            return -1
        if grad_x != NULL:
            if halved:
                failed = grad_x_halved(&some.rows, &some.columns, some.groups, grad_out, weight, grad_x)
            else:
                failed = backward_x(some, grad_out, weight, grad_x)
            if failed:
                return failed
            grad_x += groups * inputs
        if grad_bias != NULL:  # last: the sums alone would wait for memory
            for k in range(kernels):
                total[k] += sum_of(grad_out + k * outputs, outputs)
        x += groups * inputs
        grad_out += groups * some.kernels * outputs
    if grad_bias != NULL:
        for k in range(kernels):
            grad_bias[k] = <real> total[k]
    return 0


# --- the arguments ---

cdef bint fits(
    object x, object weight, object stride, object padding, object dilation, object groups, object layout,
    Convolution *conv,
) noexcept:
    """Whether arrays and options are of the usual forms and fit together; the convolution that they are."""
    cdef Image image, kernel
    if not (
        is_plain(x) and is_plain_of(weight, PyArray_TYPE(<cnp.ndarray> x))
        and PyArray_NDIM(<cnp.ndarray> x) == 4 and PyArray_NDIM(<cnp.ndarray> weight) == 4
        and read_layout(layout, &conv.channels_last) and read_integer(groups, 1, &conv.groups)
    ):
        return False
    image = image_of(<cnp.ndarray> x, conv.channels_last)
    kernel = image_of(<cnp.ndarray> weight, conv.channels_last)
    measure(conv, image, kernel)
    return (
        image.c == kernel.c * conv.groups and kernel.n % conv.groups == 0 and kernel.h > 0 and kernel.w > 0
        and read_axes(stride, padding, dilation, False, &conv.rows, &conv.columns)
    )


cdef void measure(Convolution *conv, Image image, Image kernel) noexcept:
    """The sizes that follow from the arrays; groups must be set."""
    conv.images, conv.channels, conv.kernels = image.n, kernel.c, kernel.n // conv.groups
    conv.rows.length, conv.columns.length = image.h, image.w
    conv.rows.taps, conv.columns.taps = kernel.h, kernel.w
    conv.panels = NULL


cdef void take_checked(
    Convolution *conv, cnp.ndarray x, cnp.ndarray weight, rows, columns, Py_ssize_t groups, bint last
):
    """The convolution of arrays and options that have been checked."""
    conv.groups, conv.channels_last = groups, last
    conv.rows, conv.columns = axis_of(rows), axis_of(columns)
    measure(conv, image_of(x, last), image_of(weight, last))


cdef inline bint is_covered(const Axis *axis) noexcept:
    """Whether there is one window, which is the image."""
    return (
        axis.outputs == 1 and axis.before == 0 and axis.taps == axis.length
        and (axis.dilation == 1 or axis.taps == 1)
    )


cdef inline Axis one_pixel() noexcept nogil:
    return Axis(length=1, taps=1, stride=1, dilation=1, before=0, after=0, outputs=1)


cdef void join_pixels(Convolution *conv) noexcept:
    """Make one pixel of an image that is as large as the kernels: its pixels are further channels of a product."""
    if conv.groups == 1 and is_covered(&conv.rows) and is_covered(&conv.columns):
        conv.channels *= conv.rows.length * conv.columns.length
        conv.rows = conv.columns = one_pixel()
        conv.channels_last = True


cdef inline Image output_of(const Convolution *conv) noexcept:
    return Image(conv.images, conv.groups * conv.kernels, conv.rows.outputs, conv.columns.outputs)


cdef inline double work_of(const Convolution *conv) noexcept nogil:
    """How many multiplications it is."""
    return (
        <double> conv.images * conv.groups * conv.kernels * conv.rows.outputs * conv.columns.outputs
        * conv.channels * conv.rows.taps * conv.columns.taps
    )


cdef inline double cost_of(const Convolution *conv) noexcept nogil:
    """The same, and what reading and writing costs beside them where each channel has kernels of its own."""
    cdef double inputs = conv.rows.length * conv.columns.length
    cdef double outputs = conv.kernels * conv.rows.outputs * conv.columns.outputs
    cdef double moved = conv.images * conv.groups * (inputs + outputs) if conv.channels == 1 and conv.groups > 1 else 0
    return work_of(conv) + MOVING * moved


cdef inline bint is_small(const Convolution *conv) noexcept:
    """Whether the work is less than what giving up the GIL costs where other threads want it."""
    return work_of(conv) < SMALL


cdef int forward_of(
    const Convolution *conv, bint single, const void *x, const void *weight, const void *bias, void *y,
    const Activation *f,
) noexcept nogil:
    if single:
        return forward[float](conv, <float *> x, <float *> weight, <float *> bias, <float *> y, f)
    return forward[double](conv, <double *> x, <double *> weight, <double *> bias, <double *> y, f)


cdef int backward_of(
    const Convolution *conv, bint single, const void *g, const void *x, const void *weight, void *grad_x,
    void *grad_weight, void *grad_bias,
) noexcept nogil:
    if single:
        return backward[float](
            conv, <float *> g, <float *> x, <float *> weight, <float *> grad_x, <float *> grad_weight,
            <float *> grad_bias
        )
    return backward[double](
        conv, <double *> g, <double *> x, <double *> weight, <double *> grad_x, <double *> grad_weight,
        <double *> grad_bias
    )


# --- threads: parts of the images, and of the kernels, by sizes alone ---

cdef struct Call:
    # of arrays of one dtype; results that are not wanted are NULL
    const Convolution *conv
    const Activation *activation
    bint single
    Py_ssize_t images    # of a part
    Py_ssize_t of_image  # how many parts one image is, where no part has more
    Py_ssize_t channels  # of a part of the gradient of an image
    Py_ssize_t kernels   # of a part of the gradient of the weights, or of an image
    Py_ssize_t lines     # of a part of an image with channels last
    Py_ssize_t groups    # of a part of the gradient of the weights, or of all gradients of a depthwise convolution
    Py_ssize_t of_weight  # how many parts the gradient of the weights is, or each sum over some of the images,
    Py_ssize_t summed     # so many in each,
    Py_ssize_t sums       # of so many sums
    Py_ssize_t of_bias    # how many parts the gradient of the bias is
    const void *x
    const void *weight
    const void *transformed  # the kernels for Winograd's form, or NULL
    const void *bias
    const void *grad_out
    void *y
    void *grad_x
    void *grad_weight
    void *partial        # the sums but the first, which is where the gradient will be
    void *grad_bias


cdef inline Py_ssize_t size_of_number(const Call *call) noexcept nogil:
    return sizeof(float) if call.single else sizeof(double)


cdef inline Py_ssize_t lanes_of_number(const Call *call) noexcept nogil:
    return LANES_F32 if call.single else LANES_F64


cdef Py_ssize_t divide_images(Call *call, int threads) noexcept nogil:
    """Set how many images are a part; how many parts there are, on which no number depends."""
    cdef Py_ssize_t images = call.conv.images, parts
    cdef double wanted = max(cost_of(call.conv) / PART, 1)
    call.images = fnn_max(images, 1)
    if images > 1:
        parts = <Py_ssize_t> wanted if wanted < images else images
        call.images = fnn_parts(images, fnn_min(fnn_parts(parts, threads) * threads, images))
    return fnn_parts(images, call.images)


cdef Py_ssize_t divide_kernels(Call *call, double work) noexcept nogil:
    """Set how many kernels are a part of that work; how many parts there are, one where there are groups."""
    cdef Py_ssize_t kernels = call.conv.kernels
    cdef Py_ssize_t least = PRODUCT_ROWS if call.conv.rows.taps * call.conv.columns.taps == 1 else KERNELS
    cdef double parts = work / PART
    call.kernels = kernels
    if call.conv.groups == 1 and parts > 1:
        call.kernels = fnn_min(kernels, fnn_max(least, fnn_parts(kernels, <Py_ssize_t> parts) if parts < kernels else 1))
        call.kernels = fnn_even_part(kernels, call.kernels, 1)
    return fnn_parts(kernels, call.kernels) if kernels else 1


cdef bint has_finite_weights(const Call *call) noexcept nogil:
    if call.single:
        return all_finite(<const float *> call.weight, weights_of(call.conv))
    return all_finite(<const double *> call.weight, weights_of(call.conv))


cdef Py_ssize_t divide_channels(Call *call, int threads) noexcept nogil:
    """Set how many channels of the gradient of one image are a part; how many parts there are, on which no number
    depends."""
    cdef const Convolution *conv = call.conv
    call.channels = conv.channels
    if (
        threads > 1 and conv.images == 1 and conv.groups == 1 and not is_pointwise(conv)
        and not (conv.channels_last and has_stride(conv)) and has_finite_weights(call)
    ):
        call.channels = fnn_even_part(conv.channels, fnn_max(fnn_parts(conv.channels, threads), KERNELS), 1)
    return fnn_parts(conv.channels, call.channels) if conv.channels else 1


cdef Py_ssize_t divide_groups_of_image(Call *call) noexcept nogil:
    """Set how many groups of an image are a part; how many parts there are."""
    cdef const Convolution *conv = call.conv
    cdef Py_ssize_t parts = fnn_min(conv.groups, <Py_ssize_t> (cost_of(conv) / conv.images / SHARE) + 1)
    call.groups = fnn_even_part(conv.groups, fnn_parts(conv.groups, parts), SIDE_BY_SIDE if conv.channels == 1 else 1)
    return fnn_parts(conv.groups, call.groups)


cdef Py_ssize_t divide_weights(Call *call, int threads) noexcept nogil:
    """Set how many kernels, or groups, are a part of the gradient of the weights; how many parts there are."""
    cdef const Convolution *conv = call.conv
    cdef double work = work_of(conv)
    cdef Py_ssize_t parts = fnn_min(conv.groups, <Py_ssize_t> (work / PART) + 1)
    cdef Py_ssize_t taps = conv.rows.taps * conv.columns.taps, least
    if conv.groups == 1:
        return divide_kernels(call, work)
    if is_depthwise(conv):  # even parts of channels side by side, on which no number depends
        parts = fnn_max(fnn_min(threads, conv.groups // CHANNELS), 1)
        while conv.groups % parts:
            parts -= 1
        least = fnn_parts(conv.groups * taps * (size_of_number(call) + <Py_ssize_t> sizeof(double)), CHANNEL_BYTES)
        while parts < fnn_min(least, conv.groups) or conv.groups % parts:
            parts += 1
    call.groups = fnn_parts(conv.groups, parts)
    return fnn_parts(conv.groups, call.groups)


cdef void divide_sums(Call *call) noexcept nogil:
    """Set over how many images a part of the gradient of the weights sums, and how many such sums there are: by sizes
    alone, since numbers depend on it."""
    cdef const Convolution *conv = call.conv
    cdef double wanted = min(work_of(conv) / SHARE / call.of_weight, <double> MOST_SUMS)
    cdef Py_ssize_t fitting = SUMS_BYTES // fnn_max(weights_of(conv) * size_of_number(call), 1)
    cdef Py_ssize_t sums = fnn_min(fnn_min(<Py_ssize_t> wanted, fitting), conv.images)
    call.summed, call.sums = conv.images, 1
    if sums > 1 and conv.groups == 1:
        call.summed = fnn_parts(conv.images, sums)
        call.sums = fnn_parts(conv.images, call.summed)


cdef Py_ssize_t divide_lines(Call *call, int threads) noexcept nogil:
    """Set how many lines of an image are a part; how many parts there are, on which no number depends."""
    cdef const Convolution *conv = call.conv
    cdef Py_ssize_t pixels = conv.rows.outputs * conv.columns.outputs
    cdef Py_ssize_t parts = fnn_min(fnn_parts(2 * threads, fnn_max(conv.images, 1)), pixels // BAND)
    call.lines = conv.rows.outputs
    if threads > 1 and parts > 1:
        call.lines = fnn_parts(conv.rows.outputs, parts)
    return fnn_parts(conv.rows.outputs, call.lines) if pixels else 1


cdef inline const void *advanced(const void *numbers, Py_ssize_t count, const Call *call) noexcept nogil:
    return <const char *> numbers + count * size_of_number(call) if numbers != NULL else NULL


cdef Convolution some_images(Call *call, Py_ssize_t first, Py_ssize_t images) noexcept nogil:
    """Point `call` to some of the images, or to those that there are; their convolution."""
    cdef Convolution conv = call.conv[0]
    cdef Py_ssize_t inputs = conv.groups * conv.channels * conv.rows.length * conv.columns.length
    cdef Py_ssize_t outputs = conv.groups * conv.kernels * conv.rows.outputs * conv.columns.outputs
    conv.images = fnn_min(images, conv.images - first)
    call.x, call.y = advanced(call.x, first * inputs, call), <void *> advanced(call.y, first * outputs, call)
    call.grad_out = advanced(call.grad_out, first * outputs, call)
    call.grad_x = <void *> advanced(call.grad_x, first * inputs, call)
    return conv


cdef void some_kernels(Call *call, Convolution *conv, Py_ssize_t part) noexcept nogil:
    """Point `call` to some planes of the result of one image, channels first."""
    cdef Py_ssize_t first = part * call.kernels
    cdef Py_ssize_t plane = conv.rows.outputs * conv.columns.outputs
    cdef Py_ssize_t kernel = conv.channels * conv.rows.taps * conv.columns.taps
    conv.kernels = fnn_min(call.kernels, conv.kernels - first)
    call.weight = advanced(call.weight, first * kernel, call)
    call.y = <void *> advanced(call.y, first * plane, call)
    call.bias = advanced(call.bias, first, call)


cdef void some_groups(Call *call, Convolution *conv, Py_ssize_t part) noexcept nogil:
    """Point `call` to some groups of one image, channels first."""
    cdef Py_ssize_t first = part * call.groups
    cdef Py_ssize_t kernel = conv.channels * conv.rows.taps * conv.columns.taps
    call.x = advanced(call.x, first * conv.channels * conv.rows.length * conv.columns.length, call)
    call.y = <void *> advanced(call.y, first * conv.kernels * conv.rows.outputs * conv.columns.outputs, call)
    call.weight = advanced(call.weight, first * conv.kernels * kernel, call)
    call.bias = advanced(call.bias, first * conv.kernels, call)
    conv.groups = fnn_min(call.groups, conv.groups - first)


cdef void some_lines(Call *call, Convolution *conv, Py_ssize_t part) noexcept nogil:
    """Point `call` to some lines of the result of one image, channels last: they begin further down in the frame."""
    cdef Py_ssize_t first = part * call.lines
    cdef Py_ssize_t line = conv.columns.outputs * conv.groups * conv.kernels
    conv.rows.before -= first * conv.rows.stride
    conv.rows.outputs = fnn_min(call.lines, conv.rows.outputs - first)
    call.y = <char *> call.y + first * line * size_of_number(call)


cdef int forward_part(void *context, Py_ssize_t part) noexcept nogil:
    cdef Call call = (<Call *> context)[0]
    cdef Convolution conv = some_images(&call, part // call.of_image * call.images, call.images)
    if call.lines:
        some_lines(&call, &conv, part % call.of_image)
    elif call.groups:
        some_groups(&call, &conv, part % call.of_image)
    elif call.of_image > 1:
        some_kernels(&call, &conv, part % call.of_image)
    return forward_of(&conv, call.single, call.x, call.weight, call.bias, call.y, call.activation)


cdef Share share_of(const Call *call, Py_ssize_t part) noexcept nogil:
    """The kernels of a part, or its groups where there are several."""
    cdef const Convolution *conv = call.conv
    cdef Py_ssize_t kernel = part * call.kernels, group = part * call.groups
    if conv.groups > 1:
        return Share(0, conv.kernels, group, fnn_min(call.groups, conv.groups - group))
    return Share(kernel, fnn_min(call.kernels, conv.kernels - kernel), 0, 1)


cdef int weight_part(Call *call, Py_ssize_t part) noexcept nogil:
    """The gradient of some kernels over some images, by the direct form."""
    cdef Share share = share_of(call, part % call.of_weight)
    cdef Py_ssize_t sum = part // call.of_weight
    cdef Convolution conv = some_images(call, sum * call.summed, call.summed)
    cdef void *grad_weight = call.grad_weight
    if sum > 0:
        grad_weight = <void *> advanced(call.partial, (sum - 1) * weights_of(&conv), call)
    if call.single:
        return backward_weight[float](
            &conv, <const float *> call.grad_out, <const float *> call.x, <float *> grad_weight, share
        )
    return backward_weight[double](
        &conv, <const double *> call.grad_out, <const double *> call.x, <double *> grad_weight, share
    )


cdef void bias_part(const Call *call, Py_ssize_t part) noexcept nogil:
    if call.single:
        sum_planes[float](call.conv, <const float *> call.grad_out, part, <float *> call.grad_bias)
    else:
        sum_planes[double](call.conv, <const double *> call.grad_out, part, <double *> call.grad_bias)


cdef int images_part(Call *call, Py_ssize_t part) noexcept nogil:
    """The gradient of some images, or of some channels of one."""
    cdef Convolution conv = some_images(call, part // call.of_image * call.images, call.images)
    cdef Py_ssize_t first = part % call.of_image * call.channels
    cdef Py_ssize_t channels = fnn_min(call.channels, conv.channels - first)
    if call.of_image == 1:
        return backward_of(&conv, call.single, call.grad_out, NULL, call.weight, call.grad_x, NULL, NULL)
    if call.single:
        return backward_channels[float](
            &conv, <const float *> call.grad_out, <const float *> call.weight, <float *> call.grad_x, first, channels
        )
    return backward_channels[double](
        &conv, <const double *> call.grad_out, <const double *> call.weight, <double *> call.grad_x, first, channels
    )


cdef int backward_part(void *context, Py_ssize_t part) noexcept nogil:
    """First the gradients of the weights and the bias, which are sums over all images; then grad_x."""
    cdef Call call = (<Call *> context)[0]
    cdef Py_ssize_t of_weight = call.of_weight * call.sums
    if part < of_weight:
        return weight_part(&call, part)
    part -= of_weight
    if part < call.of_bias:
        bias_part(&call, part)
        return 0
    return images_part(&call, part - call.of_bias)


cdef void add_partial(const Call *call) noexcept nogil:
    cdef Py_ssize_t n = weights_of(call.conv)
    if call.single:
        add_sums[float](<const float *> call.partial, call.sums - 1, n, <float *> call.grad_weight)
    else:
        add_sums[double](<const double *> call.partial, call.sums - 1, n, <double *> call.grad_weight)


cdef int run_each(Task task, void *context, Py_ssize_t parts, int threads) noexcept nogil:
    """Tasks that use threads themselves: side by side if that keeps all threads at work, else one after the other."""
    cdef Py_ssize_t part
    cdef int failed = 0
    if parts % threads == 0 or parts >= 4 * threads:
        return run(task, context, parts, threads)
    for part in range(parts):
        failed = task(context, part)
        if failed:
            break
    return failed


# Images of few pixels and the like: the patches of some of them, as a matrix, make products of all their pixels.

cdef struct Patches:
    const Call *call
    int threads
    Convolution product   # of the images that are worked on: a pixel is a patch
    Py_ssize_t image, images
    void *patches
    void *result          # or its gradient, of which the pixels are done,
    void *pixels          # with the kernels side by side: as they are, or in this
    void *room
    bint to_planes        # and then go there


cdef inline bint has_patches(const Convolution *conv, Py_ssize_t itemsize) noexcept nogil:
    """Whether a convolution can be a product of patches: there is room for those of an image, and for its result."""
    cdef double pixels = <double> conv.rows.outputs * conv.columns.outputs
    cdef double patch = <double> conv.channels * conv.rows.taps * conv.columns.taps
    cdef double panels = min(512 * max(patch, <double> conv.kernels) * itemsize, <double> PANEL_BYTES)
    return (
        conv.groups == 1 and conv.images > 0 and pixels * patch > 0
        and pixels * max(patch, <double> conv.kernels) * itemsize <= PATCH_MOST
        and pixels * (patch + conv.kernels) * itemsize + panels <= PATCH_ROOM and not is_product_of_pixels(conv)
        and (not is_pointwise(conv) or pixels <= 6 or (pixels <= 49 and conv.kernels >= 256))
    )


cdef inline Py_ssize_t pixels_of(const Convolution *conv) noexcept nogil:
    """Of an image's result."""
    return conv.rows.outputs * conv.columns.outputs


cdef inline Py_ssize_t patch_of(const Convolution *conv) noexcept nogil:
    """How many numbers a pixel of the result reads."""
    return conv.channels * conv.rows.taps * conv.columns.taps


cdef inline bint is_deep(const Convolution *conv) noexcept nogil:
    """Whether patches are long, of short lines less so."""
    return patch_of(conv) >= (36 if conv.columns.outputs <= 16 else 100)


cdef inline Py_ssize_t kernels_for_copies(const Convolution *conv) noexcept nogil:
    """How many kernels a number that is copied serves; short lines without masks cost as much as four times as many."""
    return conv.kernels if FREE_MASKS else conv.kernels // 4


cdef inline bint is_worth_patches(const Call *call) noexcept nogil:
    """Whether to copy what each pixel of the result reads costs less than the lanes that short lines lose, or than
    sorting pixels by phase. The limits of this and the next two are measured."""
    cdef const Convolution *conv = call.conv
    cdef Py_ssize_t pixels = pixels_of(conv), line = conv.columns.outputs, patch = patch_of(conv)
    cdef Py_ssize_t kernels = kernels_for_copies(conv)
    if not has_patches(conv, size_of_number(call)):
        return False
    if conv.channels_last:
        return (
            (pixels <= FEW_PIXELS and patch >= 100) or (line <= 12 and patch >= 400)
            or (has_stride(conv) and conv.kernels >= 64 and patch >= 256)
        )
    return (
        pixels <= 6 or (pixels <= FEW_PIXELS and kernels >= 4) or (line <= 10 and conv.channels >= 24 and kernels >= 10)
        or (has_stride(conv) and line <= 16 and kernels >= 24 and patch >= 100)
        or (has_stride(conv) and conv.kernels >= 96 and patch >= 256)
    )


cdef inline bint is_x_worth_patches(const Call *call) noexcept nogil:
    """The same of the gradient of the image, to which patches are added up."""
    cdef const Convolution *conv = call.conv
    cdef Py_ssize_t pixels = pixels_of(conv), kernels = kernels_for_copies(conv)
    cdef bint are_apart = conv.rows.taps < 2 * conv.rows.stride and conv.columns.taps < 2 * conv.columns.stride
    if not has_patches(conv, size_of_number(call)) or is_pointwise(conv):
        return False
    if conv.channels_last:  # a few channels would be a part of a vector
        return (
            conv.channels <= 6 or (pixels <= FEW_PIXELS and conv.kernels >= 16)
            or (conv.kernels >= 32 and is_deep(conv))
        )
    return (
        pixels <= 6 or (pixels <= 49 and kernels >= 4) or (are_apart and kernels >= 4 and conv.channels <= 64)
        or (has_stride(conv) and kernels >= 20) or (conv.kernels >= 64 and is_deep(conv))
    )


cdef inline bint is_weight_worth_patches(const Call *call) noexcept nogil:
    """The same of the gradient of the kernels."""
    cdef const Convolution *conv = call.conv
    cdef Py_ssize_t pixels = pixels_of(conv), kernels = kernels_for_copies(conv)
    if not has_patches(conv, size_of_number(call)):
        return False
    if is_deep(conv) and (conv.kernels >= 128 or (kernels >= 48 and (has_stride(conv) or conv.channels <= 6))):
        return True
    if conv.channels_last:
        return (pixels <= 9 and conv.kernels >= 8) or (conv.channels <= 4 and conv.kernels >= 16)
    return pixels <= 6 or (pixels <= FEW_PIXELS and kernels >= 8)


cdef Patches patches_of(const Call *call, void *result, int threads) noexcept nogil:
    """With how many images are worked on at once, by sizes alone. The result is y or its gradient."""
    cdef const Convolution *conv = call.conv
    cdef Py_ssize_t pixels = pixels_of(conv), patch = patch_of(conv)
    cdef Py_ssize_t bytes_of_image = pixels * fnn_max(patch, conv.kernels) * size_of_number(call)
    cdef Patches p
    p.call, p.threads, p.result, p.to_planes = call, threads, result, result == call.y
    p.images = fnn_even_part(conv.images, fnn_max(PATCH_BYTES // bytes_of_image, 1), 1)
    p.product.groups, p.product.channels, p.product.kernels = 1, patch, conv.kernels
    p.product.rows = p.product.columns = one_pixel()
    p.product.channels_last, p.product.panels = True, NULL
    return p


cdef bint has_room_for_patches(Patches *p) noexcept nogil:
    """Take the thread's memory; whether there is any."""
    cdef const Convolution *conv = p.call.conv
    cdef Py_ssize_t numbers = p.images * pixels_of(conv), itemsize = size_of_number(p.call)
    p.patches = fnn_workspace(TRANSFORMED, numbers * patch_of(conv) * itemsize)
    p.room = NULL
    if not conv.channels_last:
        p.room = fnn_workspace(RESULT, numbers * conv.kernels * itemsize)
    return p.patches != NULL and (conv.channels_last or p.room != NULL)


cdef Py_ssize_t next_patches(Patches *p, Py_ssize_t image) noexcept nogil:
    """Go to the images from `image` on; how many there are."""
    cdef const Convolution *conv = p.call.conv
    cdef Py_ssize_t images = fnn_min(p.images, conv.images - image)
    cdef Py_ssize_t pixels = pixels_of(conv)
    p.image = image
    p.product.images = images * pixels
    p.pixels = p.room
    if conv.channels_last:
        p.pixels = <void *> advanced(p.result, image * pixels * conv.kernels, p.call)
    return images


cdef void take_line(const Patches *p, Py_ssize_t part, const real *x, real *patches) noexcept nogil:
    cdef const Convolution *conv = p.call.conv
    cdef Py_ssize_t image = p.image + part // conv.rows.outputs
    move_patches(
        &conv.rows, &conv.columns, conv.channels, conv.channels_last, False,
        <real *> x + image * conv.channels * conv.rows.length * conv.columns.length, part % conv.rows.outputs,
        patches + part * conv.columns.outputs * p.product.channels
    )


cdef int patches_part(void *context, Py_ssize_t part) noexcept nogil:
    """The patches of one line of one image."""
    cdef const Patches *p = <const Patches *> context
    if p.call.single:
        take_line[float](p, part, <const float *> p.call.x, <float *> p.patches)
    else:
        take_line[double](p, part, <const double *> p.call.x, <double *> p.patches)
    return 0


cdef void exchange_pixels(const Patches *p, Py_ssize_t part, real *planes, real *pixels) noexcept nogil:
    cdef const Convolution *conv = p.call.conv
    cdef Py_ssize_t plane = conv.rows.outputs * conv.columns.outputs
    planes += (p.image + part) * conv.kernels * plane
    pixels += part * conv.kernels * plane
    if p.to_planes:
        transpose(planes, plane, <const real *> pixels, conv.kernels, plane, conv.kernels)
    else:
        transpose(pixels, conv.kernels, <const real *> planes, plane, conv.kernels, plane)


cdef int pixels_part(void *context, Py_ssize_t part) noexcept nogil:
    """The pixels of one image's result, to planes or from them."""
    cdef const Patches *p = <const Patches *> context
    if p.call.single:
        exchange_pixels[float](p, part, <float *> p.result, <float *> p.pixels)
    else:
        exchange_pixels[double](p, part, <double *> p.result, <double *> p.pixels)
    return 0


cdef void add_image(const Patches *p, Py_ssize_t part, real *patches, real *grad_x) noexcept nogil:
    cdef const Convolution *conv = p.call.conv
    cdef Py_ssize_t size = conv.channels * conv.rows.length * conv.columns.length, line
    grad_x += (p.image + part) * size
    memset(grad_x, 0, size * sizeof(real))
    for line in range(conv.rows.outputs):
        move_patches(
            &conv.rows, &conv.columns, conv.channels, conv.channels_last, True, grad_x, line,
            patches + (part * conv.rows.outputs + line) * conv.columns.outputs * p.product.channels
        )


cdef int image_part(void *context, Py_ssize_t part) noexcept nogil:
    """The gradient of one image, from its patches."""
    cdef const Patches *p = <const Patches *> context
    if p.call.single:
        add_image[float](p, part, <float *> p.patches, <float *> p.call.grad_x)
    else:
        add_image[double](p, part, <double *> p.patches, <double *> p.call.grad_x)
    return 0


cdef int forward_patches_part(void *context, Py_ssize_t part) noexcept nogil:
    """Some images of y."""
    cdef Patches p = (<const Patches *> context)[0]
    cdef const Call *call = p.call
    cdef Py_ssize_t images
    cdef int failed
    if not has_room_for_patches(&p):
        return NO_MEMORY
    images = next_patches(&p, part * p.images)
    failed = run(patches_part, &p, images * call.conv.rows.outputs, p.threads)
    if not failed:
        failed = forward_of(&p.product, call.single, p.patches, call.weight, call.bias, p.pixels, call.activation)
    if not failed and not call.conv.channels_last:
        failed = run(pixels_part, &p, images, p.threads)
    return failed


cdef int forward_by_patches(const Call *call, int threads) noexcept nogil:
    """y where is_worth_patches holds; 0 or what failed."""
    cdef Patches p = patches_of(call, call.y, threads)
    return run_each(forward_patches_part, &p, fnn_parts(call.conv.images, p.images), threads)


cdef int add_weight_products(const Patches *p) noexcept nogil:
    """grad_weight += the products of the gradient's pixels and the patches."""
    cdef Job job
    if not set_forward(&job, &p.product):
        return NO_MEMORY
    if p.call.single:
        return grad_weight_products[float](
            &job, True, <const float *> p.patches, <const float *> p.pixels, <float *> p.call.grad_weight
        )
    return grad_weight_products[double](
        &job, True, <const double *> p.patches, <const double *> p.pixels, <double *> p.call.grad_weight
    )


cdef int backward_patches_part(void *context, Py_ssize_t part) noexcept nogil:
    """The gradients of some images."""
    cdef Patches p = (<const Patches *> context)[0]
    cdef const Call *call = p.call
    cdef Py_ssize_t images
    cdef int failed = 0
    if not has_room_for_patches(&p):
        return NO_MEMORY
    images = next_patches(&p, part * p.images)
    if not call.conv.channels_last:
        failed = run(pixels_part, &p, images, p.threads)
    if not failed:
        failed = backward_of(&p.product, call.single, p.pixels, NULL, call.weight, p.patches, NULL, NULL)
    return failed if failed else run(image_part, &p, images, p.threads)


cdef int backward_by_patches(const Call *call, int threads) noexcept nogil:
    """The gradient of the images; 0 or what failed."""
    cdef Patches p = patches_of(call, <void *> call.grad_out, threads)
    return run_each(backward_patches_part, &p, fnn_parts(call.conv.images, p.images), threads)


cdef int weight_by_patches(const Call *call, int threads) noexcept nogil:
    """The gradient of the kernels, which is added up image by image; 0 or what failed."""
    cdef Patches p = patches_of(call, <void *> call.grad_out, threads)
    cdef Py_ssize_t first = 0, images
    cdef int failed = 0
    if not has_room_for_patches(&p):
        return NO_MEMORY
    memset(call.grad_weight, 0, weights_of(call.conv) * size_of_number(call))
    while not failed and first < call.conv.images:
        images = next_patches(&p, first)
        if not call.conv.channels_last:
            failed = run(pixels_part, &p, images, threads)
        if not failed:
            failed = run(patches_part, &p, images * call.conv.rows.outputs, threads)
        if not failed:
            failed = add_weight_products(&p)
        first += images
    return failed


cdef int take_gradients(Call *call, int threads) noexcept nogil:
    """Those gradients that patches are worth; they are not wanted any more. 0 or what failed."""
    cdef int failed = 0
    if call.grad_x != NULL and is_x_worth_patches(call):
        failed = backward_by_patches(call, threads)
        call.grad_x = NULL
    if call.grad_weight != NULL and not failed and is_weight_worth_patches(call):
        failed = weight_by_patches(call, threads)
        call.grad_weight = NULL
    return failed


# Winograd's form: the kernels are transformed first, or last of all their gradient; both belong to all blocks of tiles.

cdef int kernels_part(void *context, Py_ssize_t part) noexcept nogil:
    cdef const Winograd *w = <const Winograd *> context
    if w.itemsize == sizeof(float):
        transform_kernels[float](w, <const float *> w.weight, part)
    else:
        transform_kernels[double](w, <const double *> w.weight, part)
    return 0


cdef int tiles_part(void *context, Py_ssize_t part) noexcept nogil:
    cdef const Winograd *w = <const Winograd *> context
    if w.itemsize == sizeof(float):
        return run_tiles[float](w, <const float *> w.bias, part)
    return run_tiles[double](w, <const double *> w.bias, part)


cdef int set_transformed(Winograd *w) noexcept nogil:
    """Transform the kernels that are worked on, and measure them; 0 or what failed."""
    cdef int failed = run(kernels_part, w, fnn_parts(w.job.channels, w.channels_at_once), w.threads)
    if failed:
        return failed
    if w.itemsize == sizeof(float):
        measure_kernels[float](w, <float *> w.sizes)
    else:
        measure_kernels[double](w, <double *> w.sizes)
    return 0


cdef int some_kernels_part(void *context, Py_ssize_t part) noexcept nogil:
    """As many kernels as are transformed at once, over all tiles; 0 or what failed."""
    cdef Winograd w = (<const Winograd *> context)[0]
    cdef Py_ssize_t bytes_at_once = bytes_of_kernels(&w)
    cdef int failed = 0
    if w.is_transformed:
        w.kernels = <char *> w.kernels + part * bytes_at_once
    else:
        w.kernels = fnn_workspace(TRANSFORMED, bytes_at_once)
    if w.kernels == NULL:
        return NO_MEMORY
    set_kernels(&w, part * w.count)
    if not w.is_transformed:
        failed = set_transformed(&w)
    if failed:
        return failed
    judge_kernels(&w)
    return run(tiles_part, &w, parts_of_tiles(&w), w.threads)


cdef int run_winograd(Winograd *w, int threads) noexcept nogil:
    """The job in this form; 0 or what failed."""
    w.threads = threads
    plan_winograd(w)
    return run_each(some_kernels_part, w, fnn_parts(w.job.m, w.count), threads)


cdef int transform_part(void *context, Py_ssize_t part) noexcept nogil:
    cdef const Winograd *w = <const Winograd *> context
    if w.itemsize == sizeof(float):
        return transform_tiles[float](w, <const float *> w.grad_out, part)
    return transform_tiles[double](w, <const double *> w.grad_out, part)


cdef int sums_part(void *context, Py_ssize_t part) noexcept nogil:
    cdef const Winograd *w = <const Winograd *> context
    if w.itemsize == sizeof(float):
        sum_tiles[float](w, <const float *> w.source_planes, <const float *> w.gradient_planes, part)
    else:
        sum_tiles[double](w, <const double *> w.source_planes, <const double *> w.gradient_planes, part)
    return 0


cdef void count_blocks(Winograd *w) noexcept nogil:
    if w.itemsize == sizeof(float):
        add_counts[float](w, <const float *> w.counted)
    else:
        add_counts[double](w, <const double *> w.counted)


cdef int weight_tiles_part(void *context, Py_ssize_t part) noexcept nogil:
    cdef const Winograd *w = <const Winograd *> context
    if w.itemsize == sizeof(float):
        return transform_sums[float](w, <const float *> w.kernels, part)
    return transform_sums[double](w, <const double *> w.kernels, part)


cdef int sparse_part(void *context, Py_ssize_t part) noexcept nogil:
    cdef const Sparse *all = <const Sparse *> context
    if all.itemsize == sizeof(float):
        return sum_sparse[float](all, <const float *> all.dense, <const float *> all.sparse, <float *> all.grad, part)
    return sum_sparse[double](all, <const double *> all.dense, <const double *> all.sparse, <double *> all.grad, part)


cdef int run_uneven(const Winograd *w) noexcept nogil:
    """The gradient again where channels or kernels are uneven; 0, UNEVEN or what failed."""
    cdef Py_ssize_t tables[12]
    cdef Sparse sparse
    cdef int failed = 0
    if w.few_channels:
        sparse_channels(w, &sparse, tables)
        place_sparse(w, &sparse)
        failed = run(sparse_part, &sparse, fnn_parts(sparse.job.channels, sparse.at_once), w.threads)
    if w.few_kernels and failed == 0:
        sparse_kernels(w, &sparse)
        place_sparse(w, &sparse)
        failed = run(sparse_part, &sparse, fnn_parts(sparse.job.channels, sparse.at_once), w.threads)
    return failed


cdef int sums_of_part(void *context, Py_ssize_t part) noexcept nogil:
    """The sums over a part of the tiles; 0 or what failed."""
    cdef Winograd w = (<const Winograd *> context)[0]
    cdef Py_ssize_t at_once = w.blocks
    cdef void *planes = fnn_workspace(PLANES, bytes_of_planes(&w))
    cdef int failed
    if planes == NULL:
        return NO_MEMORY
    place_planes(&w, planes)
    set_part(&w, part)
    while w.block < w.last_block:
        set_blocks(&w, at_once)
        failed = run(transform_part, &w, w.blocks, w.threads)
        if failed == 0:
            count_blocks(&w)
            failed = run(sums_part, &w, kernel_planes(w.form), w.threads)
        if failed:
            return failed
        w.block += w.blocks
    return 0


cdef int some_gradients_part(void *context, Py_ssize_t part) noexcept nogil:
    """The gradient of as many kernels as are summed at once; 0, UNEVEN or what failed."""
    cdef Winograd w = (<const Winograd *> context)[0]
    cdef void *sums = fnn_workspace(TRANSFORMED, bytes_of_parts(&w))
    cdef int failed
    if sums == NULL:
        return NO_MEMORY
    set_kernels(&w, part * w.count)
    place_parts(&w, sums)
    failed = run_each(sums_of_part, &w, w.parts, w.threads)
    if failed:
        return failed
    add_counts_of_parts(&w)
    if not judge_sums(&w):
        return UNEVEN
    failed = run(weight_tiles_part, &w, w.count, w.threads)
    return failed if failed else run_uneven(&w)


cdef int run_winograd_weight(Winograd *w, int threads) noexcept nogil:
    """The gradient of the kernels in this form; 0, UNEVEN or what failed."""
    w.threads = threads
    plan_winograd(w)
    plan_sums(w)
    return run_each(some_gradients_part, w, fnn_parts(w.job.m, w.count), threads)


cdef Winograd winograd_of(const Call *call, const Job *job) noexcept nogil:
    cdef Winograd w
    memset(&w, 0, sizeof(Winograd))
    w.job, w.form, w.activation, w.channels_last = job, form_of(job), call.activation, call.conv.channels_last
    w.itemsize, w.lanes = size_of_number(call), lanes_of_number(call)
    w.weight = call.weight
    return w


cdef bint is_winograd_forward(const Call *call, Job *job, bint summed) noexcept nogil:
    """Whether the convolution, or with `summed` the gradient of its kernels, takes Winograd's form; its job."""
    return (
        call.conv.groups == 1 and set_forward(job, call.conv)
        and is_worth_winograd(job, size_of_number(call), lanes_of_number(call), summed)
    )


cdef bint is_winograd_backward(const Call *call, Job *job) noexcept nogil:
    """Whether grad_x takes this form; its job. There are no zeros around grad_out that a weight turns into NaN."""
    cdef const Convolution *conv = call.conv
    if conv.groups > 1 or conv.rows.stride > 1 or conv.columns.stride > 1:
        return False
    set_backward(job, conv)
    return (
        backward_taps(&job.rows, TAPS, &conv.rows, 0) and backward_taps(&job.columns, TAPS + 1, &conv.columns, 0)
        and is_worth_winograd(job, size_of_number(call), lanes_of_number(call), False)
        and (
            all_finite(<const float *> call.weight, weights_of(conv)) if call.single
            else all_finite(<const double *> call.weight, weights_of(conv))
        )
    )


cdef bint is_product_of_pixels(const Convolution *conv) noexcept nogil:
    """Whether the convolution and the gradient of its image are one product of all pixels, which has parts of its own:
    of some of the pixels it may take another form, with other roundings."""
    cdef Job job
    return conv.channels_last and set_forward(&job, conv) and is_product(&job, True)


cdef bint is_product_of_planes(const Convolution *conv) noexcept nogil:
    """The same of the planes of one image, and of the gradient of the kernels."""
    cdef Job job
    return (
        not conv.channels_last and conv.images == 1 and conv.groups == 1 and is_pointwise(conv)
        and set_forward(&job, conv) and is_product(&job, False)
    )


cdef int run_forward(Call *call) noexcept nogil:
    cdef Py_ssize_t parts
    cdef int threads = team(cost_of(call.conv), SHARE)
    cdef Job job
    cdef Winograd w
    if is_winograd_forward(call, &job, False):
        w = winograd_of(call, &job)
        w.source, w.bias, w.result = call.x, call.bias, call.y
        w.kernels, w.is_transformed = <void *> call.transformed, call.transformed != NULL
        return run_winograd(&w, threads)
    if is_product_of_pixels(call.conv):
        return forward_of(
            call.conv, call.single, call.x, call.weight, call.bias, call.y, call.activation
        )
    if is_worth_patches(call):
        return forward_by_patches(call, threads)
    if is_product_of_planes(call.conv):
        return forward_of(
            call.conv, call.single, call.x, call.weight, call.bias, call.y, call.activation
        )
    parts = divide_images(call, threads)
    if call.images == 1 and call.conv.channels_last:
        call.of_image = divide_lines(call, threads)
    elif call.images == 1 and call.conv.groups > 1:
        call.of_image = divide_groups_of_image(call)
    elif call.images == 1:
        call.of_image = divide_kernels(call, work_of(call.conv) / call.conv.images)
    return run(forward_part, call, parts * call.of_image, threads)


cdef Py_ssize_t divide_groups(Call *call, int threads) noexcept nogil:
    """Set how many groups' planes of an image stay in cache; how many parts there are, on which no number depends, none
    where groups are few."""
    cdef const Convolution *conv = call.conv
    cdef Py_ssize_t bytes = size_of_number(call) * (
        conv.rows.length * conv.columns.length + conv.kernels * conv.rows.outputs * conv.columns.outputs
    )
    cdef Py_ssize_t parts
    if (
        conv.channels_last or conv.groups < MANY_CHANNELS or conv.channels != 1 or conv.kernels not in (1, 2)
        or conv.kernels * conv.rows.taps * conv.columns.taps > MOST_TERMS
    ):
        return 0
    if is_worth_side_by_side(conv, size_of_number(call), lanes_of_number(call), True):
        call.groups = SIDE_BY_SIDE
    else:
        parts = fnn_parts(conv.groups, fnn_max(GROUP_BYTES // bytes, 1))
        call.groups = fnn_parts(conv.groups, fnn_min(fnn_parts(parts, threads) * threads, conv.groups))
    return fnn_parts(conv.groups, call.groups)


cdef int groups_part(void *context, Py_ssize_t part) noexcept nogil:
    cdef const Call *call = <const Call *> context
    cdef Convolution conv = call.conv[0]
    cdef Py_ssize_t first = part * call.groups, itemsize = size_of_number(call)
    cdef Py_ssize_t x = first * conv.rows.length * conv.columns.length * itemsize
    cdef Py_ssize_t g = first * conv.kernels * conv.rows.outputs * conv.columns.outputs * itemsize
    cdef Py_ssize_t w = first * conv.kernels * conv.rows.taps * conv.columns.taps * itemsize
    cdef Py_ssize_t b = first * conv.kernels * itemsize
    cdef char *grad_x = NULL
    cdef char *grad_weight = NULL
    cdef char *grad_bias = NULL
    if call.grad_x != NULL:
        grad_x = <char *> call.grad_x + x
    if call.grad_weight != NULL:
        grad_weight = <char *> call.grad_weight + w
    if call.grad_bias != NULL:
        grad_bias = <char *> call.grad_bias + b
    conv.groups, conv.images = fnn_min(call.groups, conv.groups - first), 1
    if call.single:
        return backward_planewise[float](
            &conv, call.conv.images, call.conv.groups, <const float *> (<const char *> call.grad_out + g),
            <const float *> (<const char *> call.x + x), <const float *> (<const char *> call.weight + w),
            <float *> grad_x, <float *> grad_weight, <float *> grad_bias,
        )
    return backward_planewise[double](
        &conv, call.conv.images, call.conv.groups, <const double *> (<const char *> call.grad_out + g),
        <const double *> (<const char *> call.x + x), <const double *> (<const char *> call.weight + w),
        <double *> grad_x, <double *> grad_weight, <double *> grad_bias,
    )


cdef int run_backward(Call *call) noexcept nogil:
    cdef int failed, threads = team(2 * cost_of(call.conv), SHARE)
    cdef Py_ssize_t parts, of_groups = divide_groups(call, threads)
    cdef Job job
    cdef Winograd w
    if of_groups:
        return run(groups_part, call, of_groups, threads)
    if call.grad_x != NULL and is_winograd_backward(call, &job):
        w = winograd_of(call, &job)
        w.source, w.result = call.grad_out, call.grad_x
        failed = run_winograd(&w, threads)
        if failed:
            return failed
        call.grad_x = NULL
    if call.grad_x != NULL and is_product_of_pixels(call.conv):
        failed = backward_of(call.conv, call.single, call.grad_out, NULL, call.weight, call.grad_x, NULL, NULL)
        if failed:
            return failed
        call.grad_x = NULL
    if call.grad_weight != NULL and is_winograd_forward(call, &job, True) and tiles_of_job(&job) >= LEAST_SUMMED:
        w = winograd_of(call, &job)
        w.source, w.grad_out, w.result = call.x, call.grad_out, call.grad_weight
        failed = run_winograd_weight(&w, threads)
        if failed == 0:
            call.grad_weight = NULL
        elif failed != UNEVEN:
            return failed
    failed = take_gradients(call, threads)
    if failed:
        return failed
    if is_product_of_planes(call.conv):
        failed = backward_of(
            call.conv, call.single, call.grad_out, call.x, call.weight, call.grad_x, call.grad_weight, NULL
        )
        if failed:
            return failed
        call.grad_x = call.grad_weight = NULL
    if call.grad_bias != NULL and call.conv.channels_last:
        failed = backward_of(call.conv, call.single, call.grad_out, NULL, NULL, NULL, NULL, call.grad_bias)
        if failed:
            return failed
        call.grad_bias = NULL
    if call.grad_weight != NULL:
        call.of_weight = divide_weights(call, threads)
        divide_sums(call)
        if call.sums > 1:
            call.partial = fnn_workspace(PARTIAL, (call.sums - 1) * weights_of(call.conv) * size_of_number(call))
            if call.partial == NULL:
                return NO_MEMORY
    call.of_bias = parts_of_bias(call.conv) if call.grad_bias != NULL else 0
    parts = call.of_weight * call.sums + call.of_bias
    if call.grad_x != NULL:
        call.of_image = divide_channels(call, threads)
        parts += divide_images(call, threads) * call.of_image
    failed = run(backward_part, call, parts, threads)
    if call.grad_weight != NULL and not failed:
        add_partial(call)
    return failed


# Packed weights: a shape of weights has but one form in which they are used, for each stride.

cdef const void *transformed_of(object packed, const Call *call, const Job *job) except NULL:
    """All kernels for Winograd's form, transformed on first use."""
    cdef str name = NAME if job.rows.step == 1 else NAME_STRIDED
    cdef const void *kept = kept_with(packed, name)
    cdef Winograd w
    cdef Py_ssize_t first = 0, bytes_at_once
    cdef cnp.ndarray room
    if kept != NULL:
        return kept
    w = winograd_of(call, job)
    w.threads = 1
    plan_winograd(&w)
    bytes_at_once = bytes_of_kernels(&w)
    room = room_for(fnn_parts(job.m, w.count) * bytes_at_once)
    w.kernels = start_of(room)
    while first < job.m:
        set_kernels(&w, first)
        raise_if(set_transformed(&w), "conv2d")
        first += w.count
        w.kernels = <char *> w.kernels + bytes_at_once
    return keep_with(packed, name, room)


cdef const void *panels_of(object packed, const Job *job, const real *weight) except? NULL:
    """The panels for a product, with channels last, made when they are first of use; NULL where there are none yet."""
    cdef Factors f = factors_of(job, True)
    cdef const void *panels = kept_with(packed, NAME)
    cdef cnp.ndarray room
    if panels == NULL and uses_panels(&f, weight):
        room = room_for(panels_size(&f, weight) * <Py_ssize_t> sizeof(real))
        pack_panels(&f, weight, <real *> start_of(room))
        panels = keep_with(packed, NAME, room)
    return panels


cdef int use_packed(object packed, Convolution *conv, Call *call, const real *weight) except -1:
    """Point to what is kept with the packed weight, where the convolution takes a form that reads it."""
    cdef Py_ssize_t taps = conv.rows.taps * conv.columns.taps
    cdef Job job
    if taps == 1 and conv.channels_last and conv.groups == 1:
        if set_forward(&job, conv) and is_product(&job, True):
            conv.panels = panels_of(packed, &job, weight)
    elif taps == 9 and conv.channels >= LEAST_CHANNELS and is_winograd_forward(call, &job, False):
        call.transformed = transformed_of(packed, call, &job)
    return 0


def conv2d(
    x, weight, bias=None, *, stride=1, padding=0, dilation=1, groups=1, activation=None, layout="NCHW",
    out=None,
):
    cdef const Activation *f = activation_of("conv2d", activation)
    cdef object output = None
    cdef cnp.npy_intp shape[4]
    cdef Convolution conv
    cdef Image image
    cdef cnp.ndarray y
    cdef int failed
    cdef object packed = None
    if not PyArray_CheckExact(weight) and type(weight) is PackedWeight:
        packed, weight = weight, weight._array
    cdef bint fast = fits(x, weight, stride, padding, dilation, groups, layout, &conv)
    if fast:
        image = output_of(&conv)
        set_shape(shape, image, conv.channels_last)
        fast = not is_many(image.n, image.c, image.h, image.w) and (
            bias is None
            or is_plain_of(bias, PyArray_TYPE(<cnp.ndarray> x))
            and has_shape(<cnp.ndarray> bias, 1, PyArray_DIMS(<cnp.ndarray> weight))
        )
    if fast and out is None:
        y = PyArray_EMPTY(4, shape, PyArray_TYPE(<cnp.ndarray> x), 0)
    elif (
        fast and is_plain_of(out, PyArray_TYPE(<cnp.ndarray> x)) and PyArray_ISWRITEABLE(<cnp.ndarray> out)
        and has_shape(<cnp.ndarray> out, 4, shape)
        and are_apart(<cnp.ndarray> out, <cnp.ndarray> x)
        and are_apart(<cnp.ndarray> out, <cnp.ndarray> weight)
        and (bias is None or are_apart(<cnp.ndarray> out, <cnp.ndarray> bias))
    ):
        y = <cnp.ndarray> out
    else:
        x, weight, bias, rows, columns, groups, _, last, output = checks.conv2d(
            x, weight, bias, stride, padding, dilation, groups, activation, layout, out
        )
        take_checked(&conv, <cnp.ndarray?> x, <cnp.ndarray?> weight, rows, columns, groups, last)
        y = <cnp.ndarray?> output.array
    cdef bint single = PyArray_TYPE(y) == cnp.NPY_FLOAT32
    cdef Call call = Call(
        conv=&conv, activation=f, single=single, images=0, of_image=1, kernels=0, lines=0, groups=0, of_weight=0,
        summed=0, sums=0, partial=NULL,
        x=data_of(x), weight=data_of(weight), transformed=NULL, bias=data_of(bias),
        grad_out=NULL, y=data_of(y), grad_x=NULL, grad_weight=NULL,
        grad_bias=NULL,
    )
    if packed is not None and weight is packed._array:
        if single:
            use_packed[float](packed, &conv, &call, <float *> call.weight)
        else:
            use_packed[double](packed, &conv, &call, <double *> call.weight)
    join_pixels(&conv)
    if is_small(&conv):
        failed = forward_of(&conv, single, call.x, call.weight, call.bias, call.y, f)
    else:
        with nogil:
            failed = run_forward(&call)
    raise_if(failed, "conv2d")
    return y if output is None else output.deliver()


def conv2d_backward(
    grad_out, x, weight, *, stride=1, padding=0, dilation=1, groups=1, layout="NCHW", needs=(True, True, True),
    out=None,
):
    cdef object outputs = None
    cdef cnp.npy_intp shape[4]
    cdef bint needed[3]
    cdef Convolution conv
    cdef int failed
    cdef bint fast = (
        read_bools(needs, 3, needed)
        and fits(x, weight, stride, padding, dilation, groups, layout, &conv)
        and is_plain_of(grad_out, PyArray_TYPE(<cnp.ndarray> x))
    )
    if fast:
        set_shape(shape, output_of(&conv), conv.channels_last)
        fast = (
            has_shape(<cnp.ndarray> grad_out, 4, shape)
            and are_outs(out, needed, <cnp.ndarray> grad_out, <cnp.ndarray> x, <cnp.ndarray> weight)
        )
    if fast:
        grad_x = gradient_in(out, needed, 0, <cnp.ndarray> x)
        grad_weight = gradient_in(out, needed, 1, <cnp.ndarray> weight)
        grad_bias = gradient_in(out, needed, 2, <cnp.ndarray> weight)
    else:
        grad_out, x, weight, rows, columns, groups, last, outputs = checks.conv2d_backward(
            grad_out, x, weight, stride, padding, dilation, groups, layout, needs, out
        )
        take_checked(&conv, <cnp.ndarray?> x, <cnp.ndarray?> weight, rows, columns, groups, last)
        grad_x, grad_weight, grad_bias = [None if one is None else one.array for one in outputs]
    cdef bint single = PyArray_TYPE(<cnp.ndarray> x) == cnp.NPY_FLOAT32
    cdef Call call = Call(
        conv=&conv, activation=NULL, single=single, images=0, of_image=1, kernels=0, lines=0, groups=0, of_weight=0,
        summed=0, sums=0, partial=NULL,
        x=data_of(x), weight=data_of(weight), transformed=NULL, bias=NULL,
        grad_out=data_of(grad_out), y=NULL, grad_x=data_of(grad_x),
        grad_weight=data_of(grad_weight), grad_bias=data_of(grad_bias),
    )
    join_pixels(&conv)
    if is_small(&conv):
        failed = backward_of(
            &conv, single, call.grad_out, call.x, call.weight, call.grad_x, call.grad_weight, call.grad_bias
        )
    else:
        with nogil:
            failed = run_backward(&call)
    raise_if(failed, "conv2d_backward")
    if outputs is None:
        return grad_x, grad_weight, grad_bias
    return tuple([None if one is None else one.deliver() for one in outputs])
