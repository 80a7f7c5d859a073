"""What the compiled kernels share: the look at their arguments, and the frame of an element-wise kernel.

An argument is `plain` where C code can read it as it is: a base-class ndarray, C-contiguous, aligned, in native byte
order, of float32 or float64. Whatever is not goes to `fastnn_ext.checks`, which raises the error or makes it plain.
"""

cimport numpy as cnp
from libc.stdint cimport uintptr_t

cdef extern from "numpy/arrayobject.h" nogil:
    bint PyArray_CheckExact(object array)
    bint PyArray_ISCARRAY_RO(cnp.ndarray array)
    bint PyArray_ISFARRAY_RO(cnp.ndarray array)
    bint PyArray_ISWRITEABLE(cnp.ndarray array)
    int PyArray_TYPE(cnp.ndarray array)
    int PyArray_NDIM(cnp.ndarray array)
    cnp.npy_intp *PyArray_DIMS(cnp.ndarray array)
    cnp.npy_intp PyArray_DIM(cnp.ndarray array, int axis)
    cnp.npy_intp PyArray_SIZE(cnp.ndarray array)
    cnp.npy_intp PyArray_NBYTES(cnp.ndarray array)
    void *PyArray_DATA(cnp.ndarray array)

cdef extern from "numpy/arrayobject.h":
    cnp.ndarray PyArray_EMPTY(int ndim, cnp.npy_intp *shape, int typenum, int fortran)
    cnp.ndarray PyArray_ZEROS(int ndim, cnp.npy_intp *shape, int typenum, int fortran)

ctypedef fused real:
    float
    double

#: Below this many elements a kernel keeps the GIL: giving it up and taking it back costs as much as the work.
cdef enum:
    GIL_ELEMENTS = 4096

ctypedef void (*loop_f32)(const float *x, float *y, Py_ssize_t n, float option) noexcept nogil
ctypedef void (*loop_f64)(const double *x, double *y, Py_ssize_t n, double option) noexcept nogil
ctypedef void (*loop2_f32)(const float *g, const float *s, float *y, Py_ssize_t n, float option) noexcept nogil
ctypedef void (*loop2_f64)(const double *g, const double *s, double *y, Py_ssize_t n, double option) noexcept nogil


cdef inline bint is_plain(object a) noexcept:
    """Whether `a` is a float32 or float64 array that C code can read as it is."""
    if not PyArray_CheckExact(a):
        return False
    cdef int typenum = PyArray_TYPE(<cnp.ndarray> a)
    return (typenum == cnp.NPY_FLOAT32 or typenum == cnp.NPY_FLOAT64) and PyArray_ISCARRAY_RO(<cnp.ndarray> a)


cdef inline bint is_plain_of(object a, int typenum) noexcept:
    """Whether `a` is plain and of type `typenum`."""
    return PyArray_CheckExact(a) and PyArray_TYPE(<cnp.ndarray> a) == typenum and PyArray_ISCARRAY_RO(<cnp.ndarray> a)


cdef inline bint same_shape(cnp.ndarray a, cnp.ndarray b) noexcept:
    cdef int ndim = PyArray_NDIM(a)
    cdef int axis
    if ndim != PyArray_NDIM(b):
        return False
    for axis in range(ndim):
        if PyArray_DIM(a, axis) != PyArray_DIM(b, axis):
            return False
    return True


cdef inline bint has_shape(cnp.ndarray a, int ndim, const cnp.npy_intp *shape) noexcept:
    cdef int axis
    if PyArray_NDIM(a) != ndim:
        return False
    for axis in range(ndim):
        if PyArray_DIM(a, axis) != shape[axis]:
            return False
    return True


cdef inline bint are_apart(cnp.ndarray a, cnp.ndarray b) noexcept:
    """Whether two plain arrays share no byte."""
    cdef uintptr_t a0 = <uintptr_t> PyArray_DATA(a)
    cdef uintptr_t b0 = <uintptr_t> PyArray_DATA(b)
    return a0 + <uintptr_t> PyArray_NBYTES(a) <= b0 or b0 + <uintptr_t> PyArray_NBYTES(b) <= a0


cdef inline bint is_safe_out(object out, cnp.ndarray x) noexcept:
    """Whether an element-wise kernel can write `out` from plain `x`: alike, writable, the same memory or apart."""
    return (
        is_plain_of(out, PyArray_TYPE(x))
        and PyArray_ISWRITEABLE(<cnp.ndarray> out)
        and same_shape(<cnp.ndarray> out, x)
        and (PyArray_DATA(<cnp.ndarray> out) == PyArray_DATA(x) or are_apart(<cnp.ndarray> out, x))
    )


cdef inline cnp.ndarray empty_like(cnp.ndarray x):
    return PyArray_EMPTY(PyArray_NDIM(x), PyArray_DIMS(x), PyArray_TYPE(x), 0)


cdef inline bint read_bools(object flags, Py_ssize_t count, bint *values) noexcept:
    """Whether `flags` is a tuple of that many bools; which."""
    if type(flags) is not tuple or len(<tuple> flags) != count:
        return False
    for i in range(count):
        if (<tuple> flags)[i] is not True and (<tuple> flags)[i] is not False:
            return False
        values[i] = (<tuple> flags)[i] is True
    return True


cdef inline bint are_outs(
    object out, const bint *needed, cnp.ndarray grad_out, cnp.ndarray x, cnp.ndarray weight
) noexcept:
    """Whether the gradients of x, weight and a bias, as far as needed, can go to the members of `out`."""
    cdef object one
    cdef cnp.ndarray like
    cdef int i, j
    if out is None:
        return True
    if type(out) is not tuple or len(<tuple> out) != 3:
        return False
    for i in range(3):
        one = (<tuple> out)[i]
        if one is None:
            continue
        like = x if i == 0 else weight
        if not (
            needed[i]
            and is_plain_of(one, PyArray_TYPE(x))
            and PyArray_ISWRITEABLE(<cnp.ndarray> one)
            and has_shape(<cnp.ndarray> one, 1 if i == 2 else PyArray_NDIM(like), PyArray_DIMS(like))
            and are_apart(<cnp.ndarray> one, grad_out)
            and are_apart(<cnp.ndarray> one, x)
            and are_apart(<cnp.ndarray> one, weight)
        ):
            return False
        for j in range(i):
            if (<tuple> out)[j] is not None and not are_apart(<cnp.ndarray> one, <cnp.ndarray> (<tuple> out)[j]):
                return False
    return True


cdef inline object gradient_in(object out, const bint *needed, int i, cnp.ndarray like):
    """Where gradient i goes, for which `are_outs` holds; a bias has the first axis of `like`. None if not needed."""
    if not needed[i]:
        return None
    if out is not None and (<tuple> out)[i] is not None:
        return (<tuple> out)[i]
    return PyArray_EMPTY(1 if i == 2 else PyArray_NDIM(like), PyArray_DIMS(like), PyArray_TYPE(like), 0)


cdef inline void *data_of(object array) noexcept:
    """The elements of an array; NULL for None."""
    return NULL if array is None else PyArray_DATA(<cnp.ndarray> array)
