"""The frame of an element-wise kernel: arguments in, one loop over plain memory, result out."""

cimport numpy as cnp
from common cimport (
    GIL_ELEMENTS, PyArray_DATA, PyArray_SIZE, PyArray_TYPE, are_apart, empty_like, is_plain, is_plain_of,
    is_safe_out, loop2_f32, loop2_f64, loop_f32, loop_f64, real, same_shape,
)
from cpython.float cimport PyFloat_AS_DOUBLE, PyFloat_CheckExact
from cpython.long cimport PyLong_AsLongAndOverflow, PyLong_CheckExact
from pool cimport raise_if, run, team

cdef enum:
    PART_ELEMENTS = 16384   # that one thread does at a time
    SHARE_ELEMENTS = 49152  # that a thread must have, and
    SHARE_LIGHT = 98304     # of what is faster than memory

cdef extern from "engine/stream.h" nogil:
    enum:
        CACHE_LINE "FNN_CACHE_LINE"
        STREAM_PIECE "FNN_STREAM_PIECE"
        STREAM_BYTES "FNN_STREAM_BYTES"
    Py_ssize_t to_line "fnn_to_line"(const void *address)
    void stream "fnn_stream"(void *target, const void *source, Py_ssize_t bytes)
    void end_stream "fnn_stream_end"()

cdef extern from "engine/map.h" nogil:
    void fnn_map_f32(
        float (*f)(float, float) noexcept nogil, const float *x, float *y, Py_ssize_t n, float option
    )
    void fnn_map_f64(
        double (*f)(double, double) noexcept nogil, const double *x, double *y, Py_ssize_t n, double option
    )
    void fnn_map_times_f32(
        float (*f)(float, float) noexcept nogil, const float *g, const float *x, float *y, Py_ssize_t n, float option
    )
    void fnn_map_times_f64(
        double (*f)(double, double) noexcept nogil, const double *g, const double *x, double *y, Py_ssize_t n,
        double option
    )


cdef inline void map(
    real (*f)(real, real) noexcept nogil, const real *x, real *y, Py_ssize_t n, real option
) noexcept nogil:
    """y = f(x), as one loop over f's formula."""
    if real is float:
        fnn_map_f32(f, x, y, n, option)
    else:
        fnn_map_f64(f, x, y, n, option)


cdef inline void map_times(
    real (*f)(real, real) noexcept nogil, const real *g, const real *x, real *y, Py_ssize_t n, real option
) noexcept nogil:
    """y = g * f(x), as one loop over f's formula."""
    if real is float:
        fnn_map_times_f32(f, g, x, y, n, option)
    else:
        fnn_map_times_f64(f, g, x, y, n, option)


cdef inline double finite(str function, str argument, object value) except? -1:
    """A slope, scale or threshold: any finite number, most of which need no look by Python."""
    cdef double number
    cdef int overflow = 0
    if PyFloat_CheckExact(value):
        number = PyFloat_AS_DOUBLE(value)
        if number - number == 0:
            return number
    elif PyLong_CheckExact(value):
        number = PyLong_AsLongAndOverflow(value, &overflow)
        if overflow == 0:
            return number
    from fastnn_ext.checks.activations import option
    return option(function, argument, value)


cdef inline object unary(
    str name, str argument, loop_f32 f32, loop_f64 f64, object x, object out, double option, bint light=False
):
    """y = f(x) by the loop of x's dtype, which is `light` where it is faster than memory."""
    cdef object output = None
    cdef cnp.ndarray source, result
    if is_plain(x) and out is None:
        result = empty_like(<cnp.ndarray> x)
    elif is_plain(x) and is_safe_out(out, <cnp.ndarray> x):
        result = <cnp.ndarray> out
    else:
        from fastnn_ext import checks  # here, since a .pxd has no body that runs
        x, output = checks.elementwise(name, out, **{argument: x})
        result = <cnp.ndarray?> output.array
    source = <cnp.ndarray?> x
    cdef Py_ssize_t n = PyArray_SIZE(source)
    cdef bint single = PyArray_TYPE(source) == cnp.NPY_FLOAT32
    cdef const void *from_x = PyArray_DATA(source)
    cdef void *y = PyArray_DATA(result)
    if n >= GIL_ELEMENTS:
        run_elements(name, Elements(single, light, result is out, n, option, NULL, from_x, y, f32, f64, NULL, NULL))
    elif single:
        f32(<const float *> from_x, <float *> y, n, <float> option)
    else:
        f64(<const double *> from_x, <double *> y, n, option)
    return result if output is None else output.deliver()


cdef inline object binary(
    str name, str argument, loop2_f32 f32, loop2_f64 f64, object grad_out, object saved, object out, double option,
    bint light=False,
):
    """y = f(grad_out, saved) by the loop of their dtype, which is `light` where it is faster than memory."""
    cdef object output = None
    cdef cnp.ndarray g, s, result
    cdef bint fast = (
        is_plain(grad_out)
        and is_plain_of(saved, PyArray_TYPE(<cnp.ndarray> grad_out))
        and same_shape(<cnp.ndarray> grad_out, <cnp.ndarray> saved)
    )
    if fast and out is None:
        result = empty_like(<cnp.ndarray> grad_out)
    elif fast and is_safe_out(out, <cnp.ndarray> grad_out) and is_safe_out(out, <cnp.ndarray> saved):
        result = <cnp.ndarray> out
    else:
        from fastnn_ext import checks
        grad_out, saved, output = checks.elementwise(name, out, **{"grad_out": grad_out, argument: saved})
        result = <cnp.ndarray?> output.array
    g, s = <cnp.ndarray?> grad_out, <cnp.ndarray?> saved
    cdef Py_ssize_t n = PyArray_SIZE(g)
    cdef bint single = PyArray_TYPE(g) == cnp.NPY_FLOAT32
    cdef const void *from_g = PyArray_DATA(g)
    cdef const void *from_s = PyArray_DATA(s)
    cdef void *y = PyArray_DATA(result)
    if n >= GIL_ELEMENTS:
        run_elements(name, Elements(single, light, result is out, n, option, from_g, from_s, y, NULL, NULL, f32, f64))
    elif single:
        f32(<const float *> from_g, <const float *> from_s, <float *> y, n, <float> option)
    else:
        f64(<const double *> from_g, <const double *> from_s, <double *> y, n, option)
    return result if output is None else output.deliver()


cdef struct Elements:
    # y = f(x), or f(g, x) where there is a g
    bint single
    bint light    # faster than memory
    bint is_old   # memory of y; new one was just zeroed, and is in the caches
    Py_ssize_t n
    double option
    const void *g
    const void *x
    void *y
    loop_f32 unary_f32
    loop_f64 unary_f64
    loop2_f32 binary_f32
    loop2_f64 binary_f64


cdef inline int run_elements(str name, Elements elements) except -1:
    """The loop over all elements without the GIL, on several threads where there are many."""
    cdef Py_ssize_t n = elements.n, parts = (n + PART_ELEMENTS - 1) // PART_ELEMENTS
    cdef int failed, threads = team(n, SHARE_LIGHT if elements.light else SHARE_ELEMENTS)
    with nogil:
        failed = run(run_numbered_part, &elements, parts, threads)
    return raise_if(failed, name)


cdef inline int run_numbered_part(void *elements, Py_ssize_t part) noexcept nogil:
    cdef const Elements *e = <const Elements *> elements
    cdef Py_ssize_t first = part * PART_ELEMENTS, n = min(e.n - first, PART_ELEMENTS)
    cdef Py_ssize_t itemsize = sizeof(float) if e.single else sizeof(double)
    if e.light and e.is_old and e.n * itemsize >= STREAM_BYTES and e.y != e.x and e.y != e.g:
        stream_part(e, first, n, itemsize)
    else:
        run_part(e, first, n, <char *> e.y + first * itemsize)
    return 0


cdef inline void stream_part(const Elements *e, Py_ssize_t first, Py_ssize_t n, Py_ssize_t itemsize) noexcept nogil:
    """The same past the caches, but for what are not whole cache lines of y."""
    cdef char memory[STREAM_PIECE + CACHE_LINE]
    cdef char *piece = memory + to_line(memory)
    cdef char *y = <char *> e.y + first * itemsize
    cdef Py_ssize_t count = min(to_line(y) // itemsize, n)
    run_part(e, first, count, y)
    while True:
        first, n, y = first + count, n - count, y + count * itemsize
        count = min(STREAM_PIECE, n * itemsize // CACHE_LINE * CACHE_LINE) // itemsize
        if count == 0:
            break
        run_part(e, first, count, piece)
        stream(y, piece, count * itemsize)
    run_part(e, first, n, y)
    end_stream()


cdef inline void run_part(const Elements *e, Py_ssize_t first, Py_ssize_t n, void *y) noexcept nogil:
    """n elements from `first` on, to y."""
    if e.single and e.g == NULL:
        e.unary_f32(<const float *> e.x + first, <float *> y, n, <float> e.option)
    elif e.single:
        e.binary_f32(<const float *> e.g + first, <const float *> e.x + first, <float *> y, n, <float> e.option)
    elif e.g == NULL:
        e.unary_f64(<const double *> e.x + first, <double *> y, n, e.option)
    else:
        e.binary_f64(<const double *> e.g + first, <const double *> e.x + first, <double *> y, n, e.option)
