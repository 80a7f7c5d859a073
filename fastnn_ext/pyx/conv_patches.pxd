"""Convolutions of images with few pixels: rows of a matrix hold what each pixel of the result reads, its patch.

A patch is in the order of the weights, [channel, r, s] or [r, s, channel], and has zeros where its taps are outside of
the image.
"""

from common cimport real
from conv_blocks cimport fnn_max, fnn_min, gap
from libc.string cimport memset
from windows cimport Axis

cdef extern from "engine/conv.h" nogil:
    ctypedef struct Patch "fnn_conv_patch":
        Py_ssize_t planes, lines, count, step, patch_plane, patch_line, source_plane, source_line

    void fnn_conv_move_patch_f32(const Patch *form, bint adds, float *patch, float *source)
    void fnn_conv_move_patch_f64(const Patch *form, bint adds, double *patch, double *source)

cdef struct Span:
    # along one axis: tap t reads at start + t * dilation, and the taps first .. end - 1 are inside
    Py_ssize_t start, first, end


cdef inline Span span_of(const Axis *axis, Py_ssize_t output) noexcept nogil:
    cdef Py_ssize_t start = output * axis.stride - axis.before
    cdef Py_ssize_t first = fnn_min(gap(start, axis.dilation), axis.taps)
    return Span(start, first, fnn_max(fnn_min(gap(start - axis.length, axis.dilation), axis.taps), first))


cdef inline Py_ssize_t place_patch(
    Patch *patch, const Axis *rows, const Axis *columns, Py_ssize_t channels, bint channels_last, Span r, Span s
) noexcept nogil:
    """Set what a pixel of the result reads of the image; where that starts in the image."""
    cdef Py_ssize_t pixel = channels if channels_last else 1
    cdef Py_ssize_t at = (r.start + r.first * rows.dilation) * columns.length + s.start + s.first * columns.dilation
    patch.lines, patch.patch_line = r.end - r.first, columns.taps * pixel
    patch.source_line = rows.dilation * columns.length * pixel
    if not channels_last:
        patch.planes, patch.count, patch.step = channels, s.end - s.first, columns.dilation
        patch.patch_plane, patch.source_plane = rows.taps * columns.taps, rows.length * columns.length
        return at
    patch.step = 1
    if columns.dilation == 1:  # neighbours are one long line
        patch.planes, patch.count = 1, (s.end - s.first) * channels
    else:
        patch.planes, patch.count = s.end - s.first, channels
    patch.patch_plane, patch.source_plane = channels, columns.dilation * channels
    return at * channels


cdef inline void move_patches(
    const Axis *rows, const Axis *columns, Py_ssize_t channels, bint channels_last, bint adds, real *image,
    Py_ssize_t line, real *patches
) noexcept nogil:
    """The patches of one line of the result; with `adds` the way back: what they have is added to the image."""
    cdef Py_ssize_t size = rows.taps * columns.taps * channels, x
    cdef Span r = span_of(rows, line), s
    cdef real *outside
    cdef real *inside
    cdef Patch patch
    for x in range(columns.outputs):
        s = span_of(columns, x)
        outside = image + place_patch(&patch, rows, columns, channels, channels_last, r, s)
        inside = patches + (r.first * columns.taps + s.first) * (channels if channels_last else 1)
        if not adds and (r.end - r.first < rows.taps or s.end - s.first < columns.taps):
            memset(patches, 0, size * sizeof(real))
        if real is float:
            fnn_conv_move_patch_f32(&patch, adds, inside, outside)
        else:
            fnn_conv_move_patch_f64(&patch, adds, inside, outside)
        patches += size
