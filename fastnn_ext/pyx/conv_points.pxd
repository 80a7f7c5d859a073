"""Convolutions with kernels of one pixel: products of matrices, without copies of the images."""

from common cimport real
from conv_blocks cimport Job, Taps
from fused cimport Activation
from gemm cimport Factors, activating, multiply, multiply_packed, no_epilogue


cdef inline bint is_each_in_place(const Taps *taps) noexcept nogil:
    return taps.count == 1 and taps.step == 1 and taps.low == 0 and taps.outputs == taps.length


cdef inline bint is_product(const Job *job, bint channels_last) noexcept nogil:
    """Whether each pixel of the result, without gaps, comes from the pixel of the source at the same place alone."""
    return (
        is_each_in_place(&job.rows) and is_each_in_place(&job.columns)
        and job.result_column == (job.groups * job.m if channels_last else 1)
        and job.result_line == job.columns.outputs * job.result_column
    )


cdef inline Factors factors_of(const Job *job, bint channels_last) noexcept nogil:
    """The product for a group, of all images where channels are last, else of one."""
    cdef Py_ssize_t pixels = job.rows.outputs * job.columns.outputs
    if channels_last:
        return Factors(
            job.images * pixels, job.m, job.channels, job.groups * job.channels, 1, job.weight_channel, job.weight_i,
            job.result_column, 1, False,
        )
    return Factors(
        job.m, pixels, job.channels, job.weight_i, job.weight_channel, pixels, 1, job.result_i, 1, False
    )


cdef inline int run_products(
    const Job *job, bint channels_last, const real *source, const real *weight, const real *bias, real *result,
    const Activation *activation,
) noexcept nogil:
    """The job, for which is_product holds; a negative code where it fails."""
    cdef Py_ssize_t pixels = job.rows.outputs * job.columns.outputs
    cdef Py_ssize_t channels = job.groups * job.channels
    cdef Py_ssize_t n, g
    cdef int failed
    cdef const real *b
    cdef Factors f = factors_of(job, channels_last)
    for n in range(1 if channels_last else job.images):
        for g in range(job.groups):
            b = bias + g * job.m if bias != NULL else NULL
            if channels_last:
                failed = multiply_packed(
                    &f, source + g * job.channels, weight + g * job.weight_group, <const real *> job.panels,
                    <const real *> NULL, b, activating(activation), result + g * job.m,
                )
            else:
                failed = multiply(
                    &f, weight + g * job.weight_group, source + (n * channels + g * job.channels) * pixels, b,
                    <const real *> NULL, activating(activation), result + n * job.result_image + g * job.m * pixels,
                )
            if failed:
                return failed
    return 0


cdef inline int grad_weight_products(
    const Job *job, bint channels_last, const real *x, const real *grad_out, real *grad_weight
) noexcept nogil:
    """Add the gradient of the weights of a job for which is_product holds; a negative code where it fails."""
    cdef Py_ssize_t pixels = job.rows.outputs * job.columns.outputs
    cdef Py_ssize_t channels = job.groups * job.channels
    cdef Py_ssize_t n, g
    cdef int failed
    cdef Factors f
    if channels_last:
        f = Factors(
            job.m, job.channels, job.images * pixels, 1, job.result_column, channels, 1,
            job.weight_i, job.weight_channel, True,
        )
    else:
        f = Factors(
            job.m, job.channels, pixels, job.result_i, 1, 1, pixels, job.weight_i, job.weight_channel, True
        )
    for n in range(1 if channels_last else job.images):
        for g in range(job.first_group, job.end_group):
            if channels_last:
                failed = multiply(
                    &f, grad_out + g * job.m, x + g * job.channels, <const real *> NULL, <const real *> NULL, no_epilogue(),
                    grad_weight + g * job.weight_group,
                )
            else:
                failed = multiply(
                    &f, grad_out + n * job.result_image + g * job.m * pixels,
                    x + (n * channels + g * job.channels) * pixels, <const real *> NULL, <const real *> NULL, no_epilogue(),
                    grad_weight + g * job.weight_group,
                )
            if failed:
                return failed
    return 0
