"""The geometry of windows in C: what `fastnn_ext.checks.windows` works out, for the usual forms of options.

Everything here is in Py_ssize_t: options are below 2**31 and lengths below 2**60, so nothing overflows.
"""

cimport numpy as cnp
from common cimport PyArray_DIM, PyArray_NDIM

cdef extern from "Python.h":
    bint PyLong_CheckExact(object value)
    long long PyLong_AsLongLongAndOverflow(object value, int *overflow) noexcept

cdef enum:
    LARGEST = 0x7fffffff  # of an option

cdef struct Axis:
    # tap t of window i is at i * stride + t * dilation - before of the input
    Py_ssize_t length, taps, stride, dilation, before, after, outputs

cdef struct Image:
    # the shape of an image array in either layout
    Py_ssize_t n, c, h, w


cdef inline bint read_integer(object value, Py_ssize_t low, Py_ssize_t *result) noexcept:
    """Whether `value` is an int from `low` to LARGEST; which."""
    cdef int overflow = 0
    cdef long long number
    if not PyLong_CheckExact(value):
        return False
    number = PyLong_AsLongLongAndOverflow(value, &overflow)
    result[0] = <Py_ssize_t> number
    return overflow == 0 and low <= number <= LARGEST


cdef inline bint read_pair(object value, Py_ssize_t low, Py_ssize_t *height, Py_ssize_t *width) noexcept:
    """Whether `value` is an int or a tuple of two, from `low` to LARGEST; which."""
    if type(value) is tuple and len(<tuple> value) == 2:
        return read_integer((<tuple> value)[0], low, height) and read_integer((<tuple> value)[1], low, width)
    height[0] = width[0] = 0
    if not read_integer(value, low, height):
        return False
    width[0] = height[0]
    return True


cdef inline bint read_layout(object layout, bint *channels_last) noexcept:
    """Whether `layout` is a string that is one; which."""
    if type(layout) is not str:
        return False
    channels_last[0] = <str> layout == "NHWC"
    return channels_last[0] or <str> layout == "NCHW"


cdef inline bint place(Axis *axis, bint ceil) noexcept:
    """Count the windows of an axis whose other fields are set; whether there is one."""
    cdef Py_ssize_t room = axis.length + axis.before + axis.after - axis.dilation * (axis.taps - 1) - 1
    if room < 0:
        return False  # ceil may still find one: the Python check knows
    axis.outputs = (room + axis.stride - 1 if ceil else room) // axis.stride + 1
    if ceil and (axis.outputs - 1) * axis.stride >= axis.length + axis.before:
        axis.outputs -= 1
    return True


cdef inline bint read_axes(
    object stride, object padding, object dilation, bint ceil, Axis *rows, Axis *columns
) noexcept:
    """Whether two axes whose length and taps are set can be completed from options of the usual forms."""
    if not (
        read_pair(stride, 1, &rows.stride, &columns.stride)
        and read_pair(padding, 0, &rows.before, &columns.before)
        and read_pair(dilation, 1, &rows.dilation, &columns.dilation)
    ):
        return False
    rows.after, columns.after = rows.before, columns.before
    return place(rows, ceil) and place(columns, ceil)


cdef inline Axis axis_of(object axis):
    """The C form of a `fastnn_ext.checks.windows.Axis`."""
    return Axis(axis[0], axis[1], axis[2], axis[3], axis[4], axis[5], axis[6])


cdef inline Image image_of(cnp.ndarray x, bint channels_last) noexcept:
    """The shape of an array of four dimensions."""
    if channels_last:
        return Image(PyArray_DIM(x, 0), PyArray_DIM(x, 3), PyArray_DIM(x, 1), PyArray_DIM(x, 2))
    return Image(PyArray_DIM(x, 0), PyArray_DIM(x, 1), PyArray_DIM(x, 2), PyArray_DIM(x, 3))


cdef inline void set_shape(cnp.npy_intp *shape, Image image, bint channels_last) noexcept:
    shape[0] = image.n
    shape[1], shape[2], shape[3] = image.c, image.h, image.w
    if channels_last:
        shape[1], shape[2], shape[3] = image.h, image.w, image.c


cdef inline bint is_many(double n, double c, double h, double w) noexcept nogil:
    """Whether so many elements need a check that multiplies without overflow: more than any memory holds."""
    return n * c * h * w > 1e12
