"""Convolutions of images with few pixels: rows of a matrix hold what each pixel of the result reads, its patch.

A patch is in the order of the weights, [channel, r, s], and has zeros where its taps are outside of the image.
"""

from common cimport real
from conv_blocks cimport fnn_max, fnn_min, gap
from libc.string cimport memset
from windows cimport Axis

cdef extern from "engine/conv.h" nogil:
    ctypedef struct Patch "fnn_conv_patch":
        Py_ssize_t planes, lines, count, step, patch_plane, patch_line, source_plane, source_line

    void fnn_conv_take_patch_f32(const Patch *form, float *patch, const float *source)
    void fnn_conv_take_patch_f64(const Patch *form, double *patch, const double *source)
    void fnn_conv_add_patch_f32(const Patch *form, const float *patch, float *source)
    void fnn_conv_add_patch_f64(const Patch *form, const double *patch, double *source)

cdef struct Span:
    # along one axis: tap t reads at start + t * dilation, and the taps first .. end - 1 are inside
    Py_ssize_t start, first, end


cdef inline Span span_of(const Axis *axis, Py_ssize_t output) noexcept nogil:
    cdef Py_ssize_t start = output * axis.stride - axis.before
    cdef Py_ssize_t first = fnn_min(gap(start, axis.dilation), axis.taps)
    return Span(start, first, fnn_max(fnn_min(gap(start - axis.length, axis.dilation), axis.taps), first))


cdef inline Py_ssize_t place_patch(
    Patch *patch, const Axis *rows, const Axis *columns, Py_ssize_t channels, Span r, Span s
) noexcept nogil:
    """Set what a pixel of the result reads of the image; where that starts in a plane."""
    patch.planes, patch.lines, patch.count, patch.step = channels, r.end - r.first, s.end - s.first, columns.dilation
    patch.patch_plane, patch.patch_line = rows.taps * columns.taps, columns.taps
    patch.source_plane, patch.source_line = rows.length * columns.length, rows.dilation * columns.length
    return (r.start + r.first * rows.dilation) * columns.length + s.start + s.first * columns.dilation


cdef inline void take_patches(
    const Axis *rows, const Axis *columns, Py_ssize_t channels, const real *image, Py_ssize_t line, real *patches
) noexcept nogil:
    """The patches of one line of the result, from planes."""
    cdef Py_ssize_t taps = rows.taps * columns.taps, x
    cdef Span r = span_of(rows, line), s
    cdef const real *source
    cdef real *inside
    cdef Patch patch
    for x in range(columns.outputs):
        s = span_of(columns, x)
        source = image + place_patch(&patch, rows, columns, channels, r, s)
        inside = patches + r.first * columns.taps + s.first
        if patch.lines < rows.taps or patch.count < columns.taps:
            memset(patches, 0, channels * taps * sizeof(real))
        if real is float:
            fnn_conv_take_patch_f32(&patch, inside, source)
        else:
            fnn_conv_take_patch_f64(&patch, inside, source)
        patches += channels * taps


cdef inline void add_patches(
    const Axis *rows, const Axis *columns, Py_ssize_t channels, const real *patches, Py_ssize_t line, real *image
) noexcept nogil:
    """The way back: each pixel of the image gets the sum of what the patches of a line have for it."""
    cdef Py_ssize_t taps = rows.taps * columns.taps, x
    cdef Span r = span_of(rows, line), s
    cdef const real *inside
    cdef real *target
    cdef Patch patch
    for x in range(columns.outputs):
        s = span_of(columns, x)
        target = image + place_patch(&patch, rows, columns, channels, r, s)
        inside = patches + r.first * columns.taps + s.first
        if real is float:
            fnn_conv_add_patch_f32(&patch, inside, target)
        else:
            fnn_conv_add_patch_f64(&patch, inside, target)
        patches += channels * taps
