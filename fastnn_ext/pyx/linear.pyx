"""The dense layer, its backward and the deltas, compiled; see `fastnn/linear.py` for what each function is."""

cimport numpy as cnp
from common cimport (
    GIL_ELEMENTS, PyArray_CheckExact, PyArray_DATA, PyArray_DIM, PyArray_DIMS, PyArray_EMPTY, PyArray_ISCARRAY_RO,
    PyArray_ISFARRAY_RO, PyArray_ISWRITEABLE, PyArray_NDIM, PyArray_SIZE, PyArray_TYPE, are_apart, are_outs, data_of,
    empty_like, gradient_in, has_shape, is_plain, is_plain_of, is_safe_out, read_bools, real, same_shape,
)
from columns cimport sum_columns
from fused cimport Activation, activation_of
from gemm cimport (
    Derivative, Factors, activating, multiply, multiply_packed, multiplying, no_epilogue, pack_panels, panels_size,
    uses_panels,
)
from packed cimport keep_with, kept_with, room_for, start_of
from pool cimport join_pool, raise_if, run, team

from fastnn_ext.checks import linear as checks
from fastnn_ext.checks.packed import PackedWeight

cnp.import_array()
join_pool()
cdef str NAME = __name__

cdef enum:
    MAX_NDIM = 64    # NPY_MAXDIMS of NumPy 2
    CHUNK = 1024     # elements that stay in the first-level cache between two loops
    PART = 32 * CHUNK  # that one thread does at a time
    SHARE = 131072   # elements that a thread must have


cdef struct Matrix:
    const void *data
    cnp.npy_intp rs, cs  # from one row to the next, from one column to the next


cdef struct Product:
    # x[rows, in] and weight[out, in]
    cnp.npy_intp rows, inputs, outputs


cdef inline bint is_matrix_of(object a, int typenum) noexcept:
    """Whether `a` is plain and of type `typenum`, or is so transposed: a product reads both as they are."""
    return is_plain_of(a, typenum) or (
        PyArray_CheckExact(a)
        and PyArray_TYPE(<cnp.ndarray> a) == typenum
        and PyArray_NDIM(<cnp.ndarray> a) == 2
        and PyArray_ISFARRAY_RO(<cnp.ndarray> a)
    )


cdef inline Matrix matrix_of(cnp.ndarray a) noexcept:
    """`a`, for which is_matrix_of holds, with its last axis along the columns."""
    if PyArray_ISCARRAY_RO(a):
        return Matrix(PyArray_DATA(a), PyArray_DIM(a, PyArray_NDIM(a) - 1), 1)
    return Matrix(PyArray_DATA(a), 1, PyArray_DIM(a, 0))


cdef inline bint fits(object x, object weight, Product *size) noexcept:
    """Whether x and weight can be read as they are and fit together; their sizes."""
    if not PyArray_CheckExact(x) or PyArray_NDIM(<cnp.ndarray> x) == 0:
        return False
    cdef int typenum = PyArray_TYPE(<cnp.ndarray> x)
    if typenum != cnp.NPY_FLOAT32 and typenum != cnp.NPY_FLOAT64:
        return False
    if not is_matrix_of(x, typenum) or not is_matrix_of(weight, typenum) or PyArray_NDIM(<cnp.ndarray> weight) != 2:
        return False
    size.inputs = PyArray_DIM(<cnp.ndarray> x, PyArray_NDIM(<cnp.ndarray> x) - 1)
    size.outputs = PyArray_DIM(<cnp.ndarray> weight, 0)
    if size.inputs == 0 or PyArray_DIM(<cnp.ndarray> weight, 1) != size.inputs:
        return False  # without inputs, sizes are not bounded by memory: let the check multiply them
    size.rows = PyArray_SIZE(<cnp.ndarray> x) // size.inputs
    return True


cdef inline void measure(cnp.ndarray x, cnp.ndarray weight, Product *size) noexcept:
    """The sizes of checked x and weight, of which any may be 0."""
    cdef int axis
    size.inputs = PyArray_DIM(weight, 1)
    size.outputs = PyArray_DIM(weight, 0)
    size.rows = 1
    for axis in range(PyArray_NDIM(x) - 1):
        size.rows *= PyArray_DIM(x, axis)


cdef inline void swap_last(cnp.ndarray x, Py_ssize_t last, cnp.npy_intp *shape) noexcept:
    """The shape of x with another last length."""
    cdef int axis, ndim = PyArray_NDIM(x)
    for axis in range(ndim - 1):
        shape[axis] = PyArray_DIM(x, axis)
    shape[ndim - 1] = last


cdef inline bint is_output(object out, cnp.ndarray x, const cnp.npy_intp *shape) noexcept:
    """Whether `out` is a plain, writable array of x's type and number of dimensions, apart from x."""
    return (
        is_plain_of(out, PyArray_TYPE(x))
        and PyArray_ISWRITEABLE(<cnp.ndarray> out)
        and has_shape(<cnp.ndarray> out, PyArray_NDIM(x), shape)
        and are_apart(<cnp.ndarray> out, x)
    )


cdef inline Factors factors_of(const Product *size, Matrix x, Matrix weight) noexcept nogil:
    return Factors(
        size.rows, size.outputs, size.inputs, x.rs, x.cs, weight.cs, weight.rs, size.outputs, 1, False
    )


cdef int run_linear(
    const Product *size, Matrix x, Matrix weight, const real *panels, const real *bias, const Activation *activation,
    real *y,
) noexcept nogil:
    cdef Factors f = factors_of(size, x, weight)
    return multiply_packed(
        &f, <const real *> x.data, <const real *> weight.data, panels, <const real *> NULL, bias,
        activating(activation), y,
    )


cdef const void *panels_of(object packed, const Product *size, Matrix x, Matrix weight, const real *b) except? NULL:
    """The panels of the packed weight b, made when they are first of use; NULL where there are none yet."""
    cdef Factors f = factors_of(size, x, weight)
    cdef const void *panels = kept_with(packed, NAME)
    cdef cnp.ndarray room
    if panels == NULL and uses_panels(&f, b):
        room = room_for(panels_size(&f, b) * <Py_ssize_t> sizeof(real))
        pack_panels(&f, b, <real *> start_of(room))
        panels = keep_with(packed, NAME, room)
    return panels


def linear(x, weight, bias=None, *, activation=None, out=None):
    cdef const Activation *f = activation_of("linear", activation)
    cdef object output = None
    cdef cnp.npy_intp shape[MAX_NDIM]
    cdef Product size
    cdef cnp.ndarray y
    cdef object packed = None
    if not PyArray_CheckExact(weight) and type(weight) is PackedWeight:
        packed, weight = weight, weight._array
    cdef bint fast = fits(x, weight, &size) and (
        bias is None
        or (is_plain_of(bias, PyArray_TYPE(<cnp.ndarray> x)) and has_shape(<cnp.ndarray> bias, 1, &size.outputs))
    )
    if fast:
        swap_last(<cnp.ndarray> x, size.outputs, shape)
    if fast and out is None:
        y = PyArray_EMPTY(PyArray_NDIM(<cnp.ndarray> x), shape, PyArray_TYPE(<cnp.ndarray> x), 0)
    elif (
        fast
        and is_output(out, <cnp.ndarray> x, shape)
        and are_apart(<cnp.ndarray> out, <cnp.ndarray> weight)
        and (bias is None or are_apart(<cnp.ndarray> out, <cnp.ndarray> bias))
    ):
        y = <cnp.ndarray> out
    else:
        x, weight, bias, _, output = checks.linear(x, weight, bias, activation, out)
        measure(<cnp.ndarray?> x, <cnp.ndarray?> weight, &size)
        y = <cnp.ndarray?> output.array
    cdef Matrix a = matrix_of(<cnp.ndarray> x)
    cdef Matrix b = matrix_of(<cnp.ndarray> weight)
    cdef const void *c = NULL if bias is None else PyArray_DATA(<cnp.ndarray> bias)
    cdef void *target = PyArray_DATA(y)
    cdef bint single = PyArray_TYPE(y) == cnp.NPY_FLOAT32
    cdef const void *panels = NULL
    cdef int failed
    if packed is not None and size.rows > 1 and weight is packed._array:
        if single:
            panels = panels_of[float](packed, &size, a, b, <float *> b.data)
        else:
            panels = panels_of[double](packed, &size, a, b, <double *> b.data)
    if PyArray_SIZE(<cnp.ndarray> weight) < GIL_ELEMENTS and size.rows <= 1:
        if single:
            failed = run_linear[float](&size, a, b, NULL, <float *> c, f, <float *> target)
        else:
            failed = run_linear[double](&size, a, b, NULL, <double *> c, f, <double *> target)
    else:
        with nogil:
            if single:
                failed = run_linear[float](&size, a, b, <float *> panels, <float *> c, f, <float *> target)
            else:
                failed = run_linear[double](&size, a, b, <double *> panels, <double *> c, f, <double *> target)
    raise_if(failed, "linear")
    return y if output is None else output.deliver()


cdef int run_backward(
    const Product *size, const real *grad_out, Matrix x, Matrix weight,
    real *grad_x, real *grad_weight, real *grad_bias,
) noexcept nogil:
    """The gradients whose pointers are not NULL."""
    cdef const real *no_bias = NULL
    cdef int failed = 0
    cdef Factors f
    if grad_x != NULL:
        f = Factors(
            size.rows, size.inputs, size.outputs, size.outputs, 1, weight.rs, weight.cs, size.inputs, 1, False
        )
        failed = multiply(&f, grad_out, <const real *> weight.data, no_bias, no_bias, no_epilogue(), grad_x)
    if grad_weight != NULL and not failed:
        f = Factors(size.outputs, size.inputs, size.rows, 1, size.outputs, x.rs, x.cs, size.inputs, 1, False)
        failed = multiply(&f, grad_out, <const real *> x.data, no_bias, no_bias, no_epilogue(), grad_weight)
    if grad_bias != NULL and not failed:
        failed = sum_columns[real](grad_out, size.rows, size.outputs, grad_bias)
    return failed


def linear_backward(grad_out, x, weight, *, needs=(True, True, True), out=None):
    cdef tuple outputs = None
    cdef cnp.npy_intp shape[MAX_NDIM]
    cdef bint needed[3]
    cdef Product size
    cdef object grad_x = None, grad_weight = None, grad_bias = None
    cdef bint fast = (
        fits(x, weight, &size)
        and is_plain_of(grad_out, PyArray_TYPE(<cnp.ndarray> x))
        and read_bools(needs, 3, needed)
    )
    if fast:
        swap_last(<cnp.ndarray> x, size.outputs, shape)
        fast = (
            has_shape(<cnp.ndarray> grad_out, PyArray_NDIM(<cnp.ndarray> x), shape)
            and are_outs(out, needed, <cnp.ndarray> grad_out, <cnp.ndarray> x, <cnp.ndarray> weight)
        )
    if fast:
        grad_x = gradient_in(out, needed, 0, <cnp.ndarray> x)
        grad_weight = gradient_in(out, needed, 1, <cnp.ndarray> weight)
        grad_bias = gradient_in(out, needed, 2, <cnp.ndarray> weight)
    else:
        grad_out, x, weight, outputs = checks.linear_backward(grad_out, x, weight, needs, out)
        measure(<cnp.ndarray?> x, <cnp.ndarray?> weight, &size)
        grad_x, grad_weight, grad_bias = [None if one is None else one.array for one in outputs]
    cdef const void *g = PyArray_DATA(<cnp.ndarray> grad_out)
    cdef Matrix a = matrix_of(<cnp.ndarray> x)
    cdef Matrix w = matrix_of(<cnp.ndarray> weight)
    cdef void *gx = data_of(grad_x)
    cdef void *gw = data_of(grad_weight)
    cdef void *gb = data_of(grad_bias)
    cdef bint single = PyArray_TYPE(<cnp.ndarray> x) == cnp.NPY_FLOAT32
    cdef int failed
    with nogil:
        if single:
            failed = run_backward[float](
                &size, <float *> g, a, w, <float *> gx, <float *> gw, <float *> gb
            )
        else:
            failed = run_backward[double](
                &size, <double *> g, a, w, <double *> gx, <double *> gw, <double *> gb
            )
    raise_if(failed, "linear_backward")
    if outputs is None:
        return grad_x, grad_weight, grad_bias
    return tuple([None if one is None else one.deliver() for one in outputs])


cdef struct Deltas:
    const void *y
    const void *target
    void *delta
    Py_ssize_t n
    const Activation *activation


cdef void output_deltas(
    const real *y, const real *target, Py_ssize_t n, const Activation *activation, real *delta
) noexcept nogil:
    """(y - target) * f'(y), in chunks that stay in cache between the two loops; delta may be y or target."""
    cdef real difference[CHUNK]
    cdef Py_ssize_t part, first, count, i
    for part in range((n + CHUNK - 1) // CHUNK):
        first = part * CHUNK
        count = min(n - first, CHUNK)
        for i in range(count):
            difference[i] = y[first + i] - target[first + i]
        if activation != NULL:
            if real is float:
                activation.backward_f32(difference, y + first, difference, count, <float> activation.option)
            else:
                activation.backward_f64(difference, y + first, difference, count, activation.option)
        for i in range(count):
            delta[first + i] = difference[i]


cdef int output_deltas_f32(void *context, Py_ssize_t part) noexcept nogil:
    cdef const Deltas *d = <const Deltas *> context
    cdef Py_ssize_t first = part * PART
    output_deltas[float](
        <const float *> d.y + first, <const float *> d.target + first, min(d.n - first, PART), d.activation,
        <float *> d.delta + first,
    )
    return 0


cdef int output_deltas_f64(void *context, Py_ssize_t part) noexcept nogil:
    cdef const Deltas *d = <const Deltas *> context
    cdef Py_ssize_t first = part * PART
    output_deltas[double](
        <const double *> d.y + first, <const double *> d.target + first, min(d.n - first, PART), d.activation,
        <double *> d.delta + first,
    )
    return 0


def output_delta(y, target, *, activation="sigmoid", loss="half_squared_error", out=None):
    cdef object output = None, derivative
    cdef cnp.ndarray delta
    cdef bint fast = (
        is_plain(y)
        and is_plain_of(target, PyArray_TYPE(<cnp.ndarray> y))
        and same_shape(<cnp.ndarray> y, <cnp.ndarray> target)
        and type(loss) is str
        and loss == "half_squared_error"
        and (activation is None or (type(activation) is str and activation in checks.FROM_OUTPUT))
    )
    derivative = activation
    if fast and out is None:
        delta = empty_like(<cnp.ndarray> y)
    elif fast and is_safe_out(out, <cnp.ndarray> y) and is_safe_out(out, <cnp.ndarray> target):
        delta = <cnp.ndarray> out
    else:
        y, target, derivative, output = checks.output_delta(y, target, activation, loss, out)
        delta = <cnp.ndarray?> output.array
    cdef const Activation *f = activation_of("output_delta", derivative)
    cdef Py_ssize_t n = PyArray_SIZE(delta)
    cdef Deltas deltas = Deltas(PyArray_DATA(<cnp.ndarray?> y), PyArray_DATA(<cnp.ndarray?> target), PyArray_DATA(delta), n, f)
    cdef bint single = PyArray_TYPE(delta) == cnp.NPY_FLOAT32
    cdef int failed
    with nogil:
        failed = run(
            output_deltas_f32 if single else output_deltas_f64, &deltas, (n + PART - 1) // PART, team(n, SHARE)
        )
    raise_if(failed, "output_delta")
    return delta if output is None else output.deliver()


cdef int run_hidden_delta(
    const Product *size, Matrix delta_next, Matrix weight_next, const real *y, const Activation *activation,
    real *delta,
) noexcept nogil:
    """delta[rows, inputs] = (delta_next[rows, outputs] weight_next[outputs, inputs]) * f'(y)."""
    cdef Derivative derivative = Derivative(activation, y, size.inputs)
    cdef const real *no_bias = NULL
    cdef Factors f = Factors(
        size.rows, size.inputs, size.outputs, delta_next.rs, delta_next.cs, weight_next.rs, weight_next.cs,
        size.inputs, 1, False,
    )
    return multiply(
        &f, <const real *> delta_next.data, <const real *> weight_next.data, no_bias, no_bias,
        multiplying(&derivative), delta,
    )


def hidden_delta(delta_next, weight_next, y, *, activation="sigmoid", out=None):
    cdef object output = None
    cdef cnp.npy_intp shape[MAX_NDIM]
    cdef Product size
    cdef cnp.ndarray delta
    cdef bint fast = (
        is_plain(y)
        and fits(y, weight_next, &size)
        and is_matrix_of(delta_next, PyArray_TYPE(<cnp.ndarray> y))
        and (activation is None or (type(activation) is str and activation in checks.FROM_OUTPUT))
    )
    if fast:
        swap_last(<cnp.ndarray> y, size.outputs, shape)
        fast = has_shape(<cnp.ndarray> delta_next, PyArray_NDIM(<cnp.ndarray> y), shape)
    if fast and out is None:
        delta = empty_like(<cnp.ndarray> y)
    elif (
        fast
        and is_output(out, <cnp.ndarray> y, PyArray_DIMS(<cnp.ndarray> y))
        and are_apart(<cnp.ndarray> out, <cnp.ndarray> weight_next)
        and are_apart(<cnp.ndarray> out, <cnp.ndarray> delta_next)
    ):
        delta = <cnp.ndarray> out
    else:
        delta_next, weight_next, y, _, output = checks.hidden_delta(delta_next, weight_next, y, activation, out)
        measure(<cnp.ndarray?> y, <cnp.ndarray?> weight_next, &size)
        delta = <cnp.ndarray?> output.array
    cdef const Activation *f = activation_of("hidden_delta", activation)
    cdef Matrix d = matrix_of(<cnp.ndarray> delta_next)
    cdef Matrix w = matrix_of(<cnp.ndarray> weight_next)
    cdef const void *saved = PyArray_DATA(<cnp.ndarray> y)
    cdef void *target = PyArray_DATA(delta)
    cdef bint single = PyArray_TYPE(delta) == cnp.NPY_FLOAT32
    cdef int failed
    with nogil:
        if single:
            failed = run_hidden_delta[float](
                &size, d, w, <float *> saved, f, <float *> target
            )
        else:
            failed = run_hidden_delta[double](
                &size, d, w, <double *> saved, f, <double *> target
            )
    raise_if(failed, "hidden_delta")
    return delta if output is None else output.deliver()
