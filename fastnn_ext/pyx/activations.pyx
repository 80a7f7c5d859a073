"""Activations, compiled; see `fastnn/activations.py` for what each is, and `formulas.pxd` for its formula."""

cimport formulas
cimport numpy as cnp
from common cimport (
    GIL_ELEMENTS, PyArray_DATA, PyArray_DIM, PyArray_NDIM, PyArray_SIZE, PyArray_TYPE, empty_like, is_plain,
    is_plain_of, is_safe_out, loop2_f32, loop2_f64, loop_f32, loop_f64, real, same_shape,
)
from cpython.long cimport PyLong_AsLongAndOverflow, PyLong_CheckExact
from cpython.pycapsule cimport PyCapsule_New
from cpython.ref cimport PyObject
from elementwise cimport PART_ELEMENTS, SHARE_ELEMENTS, binary, finite, map, map_times, unary
from fused cimport Activation
from pool cimport join_pool, raise_if, run, team
from softmax cimport COLUMNS, PIECE, softmax_backward_loop, softmax_loop

from fastnn_ext.checks import activations as checks

cnp.import_array()
join_pool()

# ----------------------------------------------------------------------------------------------------
# Loops: each formula over contiguous elements; a derivative also times the gradient of the output


cdef void step_loop(const real *x, real *y, Py_ssize_t n, real option) noexcept nogil:
    map(formulas.step[real], x, y, n, option)


cdef void flat_loop(const real *x, real *y, Py_ssize_t n, real option) noexcept nogil:
    map(formulas.flat[real], x, y, n, option)


cdef void flat_backward_loop(const real *g, const real *x, real *grad, Py_ssize_t n, real option) noexcept nogil:
    map_times(formulas.flat[real], g, x, grad, n, option)


cdef void sign_loop(const real *x, real *y, Py_ssize_t n, real option) noexcept nogil:
    map(formulas.sign[real], x, y, n, option)


cdef void relu_loop(const real *x, real *y, Py_ssize_t n, real option) noexcept nogil:
    map(formulas.relu[real], x, y, n, option)


cdef void relu_derivative_loop(const real *x, real *y, Py_ssize_t n, real option) noexcept nogil:
    map(formulas.relu_derivative[real], x, y, n, option)


cdef void relu_backward_loop(const real *g, const real *y, real *grad, Py_ssize_t n, real option) noexcept nogil:
    map_times(formulas.relu_derivative[real], g, y, grad, n, option)


cdef void leaky_relu_loop(const real *x, real *y, Py_ssize_t n, real option) noexcept nogil:
    map(formulas.leaky_relu[real], x, y, n, option)


cdef void leaky_relu_derivative_loop(const real *x, real *y, Py_ssize_t n, real option) noexcept nogil:
    map(formulas.leaky_relu_derivative[real], x, y, n, option)


cdef void leaky_relu_backward_loop(const real *g, const real *x, real *grad, Py_ssize_t n, real option) noexcept nogil:
    map_times(formulas.leaky_relu_derivative[real], g, x, grad, n, option)


cdef void elu_loop(const real *x, real *y, Py_ssize_t n, real option) noexcept nogil:
    map(formulas.elu[real], x, y, n, option)


cdef void elu_derivative_loop(const real *x, real *y, Py_ssize_t n, real option) noexcept nogil:
    map(formulas.elu_derivative[real], x, y, n, option)


cdef void elu_backward_loop(const real *g, const real *x, real *grad, Py_ssize_t n, real option) noexcept nogil:
    map_times(formulas.elu_derivative[real], g, x, grad, n, option)


cdef void selu_loop(const real *x, real *y, Py_ssize_t n, real option) noexcept nogil:
    map(formulas.selu[real], x, y, n, option)


cdef void selu_derivative_loop(const real *x, real *y, Py_ssize_t n, real option) noexcept nogil:
    map(formulas.selu_derivative[real], x, y, n, option)


cdef void selu_backward_loop(const real *g, const real *x, real *grad, Py_ssize_t n, real option) noexcept nogil:
    map_times(formulas.selu_derivative[real], g, x, grad, n, option)


cdef void gelu_loop(const real *x, real *y, Py_ssize_t n, real option) noexcept nogil:
    map(formulas.gelu[real], x, y, n, option)


cdef void gelu_derivative_loop(const real *x, real *y, Py_ssize_t n, real option) noexcept nogil:
    map(formulas.gelu_derivative[real], x, y, n, option)


cdef void gelu_backward_loop(const real *g, const real *x, real *grad, Py_ssize_t n, real option) noexcept nogil:
    map_times(formulas.gelu_derivative[real], g, x, grad, n, option)


cdef void gelu_tanh_loop(const real *x, real *y, Py_ssize_t n, real option) noexcept nogil:
    map(formulas.gelu_tanh[real], x, y, n, option)


cdef void gelu_tanh_derivative_loop(const real *x, real *y, Py_ssize_t n, real option) noexcept nogil:
    map(formulas.gelu_tanh_derivative[real], x, y, n, option)


cdef void gelu_tanh_backward_loop(const real *g, const real *x, real *grad, Py_ssize_t n, real option) noexcept nogil:
    map_times(formulas.gelu_tanh_derivative[real], g, x, grad, n, option)


cdef void silu_loop(const real *x, real *y, Py_ssize_t n, real option) noexcept nogil:
    map(formulas.silu[real], x, y, n, option)


cdef void silu_derivative_loop(const real *x, real *y, Py_ssize_t n, real option) noexcept nogil:
    map(formulas.silu_derivative[real], x, y, n, option)


cdef void silu_backward_loop(const real *g, const real *x, real *grad, Py_ssize_t n, real option) noexcept nogil:
    map_times(formulas.silu_derivative[real], g, x, grad, n, option)


cdef void mish_loop(const real *x, real *y, Py_ssize_t n, real option) noexcept nogil:
    map(formulas.mish[real], x, y, n, option)


cdef void mish_derivative_loop(const real *x, real *y, Py_ssize_t n, real option) noexcept nogil:
    map(formulas.mish_derivative[real], x, y, n, option)


cdef void mish_backward_loop(const real *g, const real *x, real *grad, Py_ssize_t n, real option) noexcept nogil:
    map_times(formulas.mish_derivative[real], g, x, grad, n, option)


cdef void softplus_loop(const real *x, real *y, Py_ssize_t n, real option) noexcept nogil:
    map(formulas.softplus[real], x, y, n, option)


cdef void softplus_backward_loop(const real *g, const real *x, real *grad, Py_ssize_t n, real option) noexcept nogil:
    map_times(formulas.sigmoid[real], g, x, grad, n, option)


cdef void sigmoid_loop(const real *x, real *y, Py_ssize_t n, real option) noexcept nogil:
    map(formulas.sigmoid[real], x, y, n, option)


cdef void sigmoid_derivative_loop(const real *x, real *y, Py_ssize_t n, real option) noexcept nogil:
    map(formulas.sigmoid_derivative[real], x, y, n, option)


cdef void sigmoid_backward_loop(const real *g, const real *y, real *grad, Py_ssize_t n, real option) noexcept nogil:
    map_times(formulas.sigmoid_from_output[real], g, y, grad, n, option)


cdef void hard_sigmoid_loop(const real *x, real *y, Py_ssize_t n, real option) noexcept nogil:
    map(formulas.hard_sigmoid[real], x, y, n, option)


cdef void hard_sigmoid_derivative_loop(const real *x, real *y, Py_ssize_t n, real option) noexcept nogil:
    map(formulas.hard_sigmoid_derivative[real], x, y, n, option)


cdef void hard_sigmoid_backward_loop(const real *g, const real *x, real *grad, Py_ssize_t n, real option) noexcept nogil:
    map_times(formulas.hard_sigmoid_derivative[real], g, x, grad, n, option)


cdef void tanh_loop(const real *x, real *y, Py_ssize_t n, real option) noexcept nogil:
    map(formulas.tanh[real], x, y, n, option)


cdef void tanh_derivative_loop(const real *x, real *y, Py_ssize_t n, real option) noexcept nogil:
    map(formulas.tanh_derivative[real], x, y, n, option)


cdef void tanh_backward_loop(const real *g, const real *y, real *grad, Py_ssize_t n, real option) noexcept nogil:
    map_times(formulas.tanh_from_output[real], g, y, grad, n, option)


cdef void hard_tanh_loop(const real *x, real *y, Py_ssize_t n, real option) noexcept nogil:
    map(formulas.hard_tanh[real], x, y, n, option)


cdef void hard_tanh_derivative_loop(const real *x, real *y, Py_ssize_t n, real option) noexcept nogil:
    map(formulas.hard_tanh_derivative[real], x, y, n, option)


cdef void hard_tanh_backward_loop(const real *g, const real *x, real *grad, Py_ssize_t n, real option) noexcept nogil:
    map_times(formulas.hard_tanh_derivative[real], g, x, grad, n, option)


cdef void softsign_loop(const real *x, real *y, Py_ssize_t n, real option) noexcept nogil:
    map(formulas.softsign[real], x, y, n, option)


cdef void softsign_derivative_loop(const real *x, real *y, Py_ssize_t n, real option) noexcept nogil:
    map(formulas.softsign_derivative[real], x, y, n, option)


cdef void softsign_backward_loop(const real *g, const real *x, real *grad, Py_ssize_t n, real option) noexcept nogil:
    map_times(formulas.softsign_derivative[real], g, x, grad, n, option)


# ----------------------------------------------------------------------------------------------------
# Kernels


def step(x, *, threshold=0, out=None):
    cdef double option = finite("step", "threshold", threshold)
    return unary("step", "x", step_loop[float], step_loop[double], x, out, option, light=True)


def step_derivative(x, *, threshold=0, out=None):
    cdef double option = finite("step_derivative", "threshold", threshold)
    return unary("step_derivative", "x", flat_loop[float], flat_loop[double], x, out, option, light=True)


def step_backward(grad_out, x, *, threshold=0, out=None):
    cdef double option = finite("step_backward", "threshold", threshold)
    return binary("step_backward", "x", flat_backward_loop[float], flat_backward_loop[double], grad_out, x, out, option, light=True)


def sign(x, *, out=None):
    return unary("sign", "x", sign_loop[float], sign_loop[double], x, out, 0, light=True)


def sign_derivative(x, *, out=None):
    return unary("sign_derivative", "x", flat_loop[float], flat_loop[double], x, out, 0, light=True)


def sign_backward(grad_out, x, *, out=None):
    return binary("sign_backward", "x", flat_backward_loop[float], flat_backward_loop[double], grad_out, x, out, 0, light=True)


def relu(x, *, out=None):
    return unary("relu", "x", relu_loop[float], relu_loop[double], x, out, 0, light=True)


def relu_derivative(x, *, out=None):
    return unary("relu_derivative", "x", relu_derivative_loop[float], relu_derivative_loop[double], x, out, 0, light=True)


def relu_backward(grad_out, y, *, out=None):
    return binary("relu_backward", "y", relu_backward_loop[float], relu_backward_loop[double], grad_out, y, out, 0, light=True)


def leaky_relu(x, *, negative_slope=0.01, out=None):
    cdef double option = finite("leaky_relu", "negative_slope", negative_slope)
    return unary("leaky_relu", "x", leaky_relu_loop[float], leaky_relu_loop[double], x, out, option, light=True)


def leaky_relu_derivative(x, *, negative_slope=0.01, out=None):
    cdef double option = finite("leaky_relu_derivative", "negative_slope", negative_slope)
    return unary("leaky_relu_derivative", "x", leaky_relu_derivative_loop[float], leaky_relu_derivative_loop[double], x, out, option, light=True)


def leaky_relu_backward(grad_out, x, *, negative_slope=0.01, out=None):
    cdef double option = finite("leaky_relu_backward", "negative_slope", negative_slope)
    return binary("leaky_relu_backward", "x", leaky_relu_backward_loop[float], leaky_relu_backward_loop[double], grad_out, x, out, option, light=True)


def elu(x, *, alpha=1, out=None):
    cdef double option = finite("elu", "alpha", alpha)
    return unary("elu", "x", elu_loop[float], elu_loop[double], x, out, option)


def elu_derivative(x, *, alpha=1, out=None):
    cdef double option = finite("elu_derivative", "alpha", alpha)
    return unary("elu_derivative", "x", elu_derivative_loop[float], elu_derivative_loop[double], x, out, option)


def elu_backward(grad_out, x, *, alpha=1, out=None):
    cdef double option = finite("elu_backward", "alpha", alpha)
    return binary("elu_backward", "x", elu_backward_loop[float], elu_backward_loop[double], grad_out, x, out, option)


def selu(x, *, out=None):
    return unary("selu", "x", selu_loop[float], selu_loop[double], x, out, 0)


def selu_derivative(x, *, out=None):
    return unary("selu_derivative", "x", selu_derivative_loop[float], selu_derivative_loop[double], x, out, 0)


def selu_backward(grad_out, x, *, out=None):
    return binary("selu_backward", "x", selu_backward_loop[float], selu_backward_loop[double], grad_out, x, out, 0)


def gelu(x, *, approximate="none", out=None):
    if is_tanh("gelu", approximate):
        return unary("gelu", "x", gelu_tanh_loop[float], gelu_tanh_loop[double], x, out, 0)
    return unary("gelu", "x", gelu_loop[float], gelu_loop[double], x, out, 0)


def gelu_derivative(x, *, approximate="none", out=None):
    if is_tanh("gelu_derivative", approximate):
        return unary("gelu_derivative", "x", gelu_tanh_derivative_loop[float], gelu_tanh_derivative_loop[double], x, out, 0)
    return unary("gelu_derivative", "x", gelu_derivative_loop[float], gelu_derivative_loop[double], x, out, 0)


def gelu_backward(grad_out, x, *, approximate="none", out=None):
    if is_tanh("gelu_backward", approximate):
        return binary("gelu_backward", "x", gelu_tanh_backward_loop[float], gelu_tanh_backward_loop[double], grad_out, x, out, 0)
    return binary("gelu_backward", "x", gelu_backward_loop[float], gelu_backward_loop[double], grad_out, x, out, 0)


cdef inline bint is_tanh(str function, object approximate) except -1:
    if approximate is "none":
        return False
    return approximate is "tanh" or checks.approximate(function, approximate) == "tanh"


def silu(x, *, out=None):
    return unary("silu", "x", silu_loop[float], silu_loop[double], x, out, 0)


def silu_derivative(x, *, out=None):
    return unary("silu_derivative", "x", silu_derivative_loop[float], silu_derivative_loop[double], x, out, 0)


def silu_backward(grad_out, x, *, out=None):
    return binary("silu_backward", "x", silu_backward_loop[float], silu_backward_loop[double], grad_out, x, out, 0)


def mish(x, *, out=None):
    return unary("mish", "x", mish_loop[float], mish_loop[double], x, out, 0)


def mish_derivative(x, *, out=None):
    return unary("mish_derivative", "x", mish_derivative_loop[float], mish_derivative_loop[double], x, out, 0)


def mish_backward(grad_out, x, *, out=None):
    return binary("mish_backward", "x", mish_backward_loop[float], mish_backward_loop[double], grad_out, x, out, 0)


def softplus(x, *, out=None):
    return unary("softplus", "x", softplus_loop[float], softplus_loop[double], x, out, 0)


def softplus_derivative(x, *, out=None):
    return unary("softplus_derivative", "x", sigmoid_loop[float], sigmoid_loop[double], x, out, 0)


def softplus_backward(grad_out, x, *, out=None):
    return binary("softplus_backward", "x", softplus_backward_loop[float], softplus_backward_loop[double], grad_out, x, out, 0)


def sigmoid(x, *, out=None):
    return unary("sigmoid", "x", sigmoid_loop[float], sigmoid_loop[double], x, out, 0)


def sigmoid_derivative(x, *, out=None):
    return unary("sigmoid_derivative", "x", sigmoid_derivative_loop[float], sigmoid_derivative_loop[double], x, out, 0)


def sigmoid_backward(grad_out, y, *, out=None):
    return binary("sigmoid_backward", "y", sigmoid_backward_loop[float], sigmoid_backward_loop[double], grad_out, y, out, 0)


def hard_sigmoid(x, *, out=None):
    return unary("hard_sigmoid", "x", hard_sigmoid_loop[float], hard_sigmoid_loop[double], x, out, 0, light=True)


def hard_sigmoid_derivative(x, *, out=None):
    return unary("hard_sigmoid_derivative", "x", hard_sigmoid_derivative_loop[float], hard_sigmoid_derivative_loop[double], x, out, 0, light=True)


def hard_sigmoid_backward(grad_out, x, *, out=None):
    return binary("hard_sigmoid_backward", "x", hard_sigmoid_backward_loop[float], hard_sigmoid_backward_loop[double], grad_out, x, out, 0, light=True)


def tanh(x, *, out=None):
    return unary("tanh", "x", tanh_loop[float], tanh_loop[double], x, out, 0)


def tanh_derivative(x, *, out=None):
    return unary("tanh_derivative", "x", tanh_derivative_loop[float], tanh_derivative_loop[double], x, out, 0)


def tanh_backward(grad_out, y, *, out=None):
    return binary("tanh_backward", "y", tanh_backward_loop[float], tanh_backward_loop[double], grad_out, y, out, 0)


def hard_tanh(x, *, out=None):
    return unary("hard_tanh", "x", hard_tanh_loop[float], hard_tanh_loop[double], x, out, 0, light=True)


def hard_tanh_derivative(x, *, out=None):
    return unary("hard_tanh_derivative", "x", hard_tanh_derivative_loop[float], hard_tanh_derivative_loop[double], x, out, 0, light=True)


def hard_tanh_backward(grad_out, x, *, out=None):
    return binary("hard_tanh_backward", "x", hard_tanh_backward_loop[float], hard_tanh_backward_loop[double], grad_out, x, out, 0, light=True)


def softsign(x, *, out=None):
    return unary("softsign", "x", softsign_loop[float], softsign_loop[double], x, out, 0)


def softsign_derivative(x, *, out=None):
    return unary("softsign_derivative", "x", softsign_derivative_loop[float], softsign_derivative_loop[double], x, out, 0)


def softsign_backward(grad_out, x, *, out=None):
    return binary("softsign_backward", "x", softsign_backward_loop[float], softsign_backward_loop[double], grad_out, x, out, 0)


# ----------------------------------------------------------------------------------------------------
# Softmax


def softmax(x, *, axis=-1, out=None):
    return along_axis("softmax", x, axis, out, False)


def softmax_backward(grad_out, y, *, axis=-1, out=None):
    return backward_along_axis("softmax_backward", grad_out, y, axis, out, False)


def log_softmax(x, *, axis=-1, out=None):
    return along_axis("log_softmax", x, axis, out, True)


def log_softmax_backward(grad_out, y, *, axis=-1, out=None):
    return backward_along_axis("log_softmax_backward", grad_out, y, axis, out, True)


cdef object along_axis(str name, object x, object axis, object out, bint is_log):
    cdef object output = None
    cdef cnp.ndarray source, result
    cdef int middle = plain_axis(x, axis)
    if middle >= 0 and out is None:
        result = empty_like(<cnp.ndarray> x)
    elif middle >= 0 and is_safe_out(out, <cnp.ndarray> x):
        result = <cnp.ndarray> out
    else:
        x, middle, output = checks.softmax(name, out, axis, x)
        result = <cnp.ndarray?> output.array
    source = <cnp.ndarray?> x
    run_along_axis(name, Lines(
        single=PyArray_TYPE(source) == cnp.NPY_FLOAT32, is_log=is_log,
        g=NULL, x=PyArray_DATA(source), y=PyArray_DATA(result),
        outer=lengths(source, 0, middle), length=lengths(source, middle, middle + 1),
        inner=lengths(source, middle + 1, PyArray_NDIM(source)), planes=0, columns=0, across=0,
    ))
    return result if output is None else output.deliver()


cdef object backward_along_axis(str name, object grad_out, object y, object axis, object out, bint is_log):
    cdef object output = None
    cdef cnp.ndarray g, saved, result
    cdef int middle = plain_axis(grad_out, axis)
    if middle >= 0 and not (
        is_plain_of(y, PyArray_TYPE(<cnp.ndarray> grad_out)) and same_shape(<cnp.ndarray> grad_out, <cnp.ndarray> y)
    ):
        middle = -1
    if middle >= 0 and out is None:
        result = empty_like(<cnp.ndarray> grad_out)
    elif middle >= 0 and is_safe_out(out, <cnp.ndarray> grad_out) and is_safe_out(out, <cnp.ndarray> y):
        result = <cnp.ndarray> out
    else:
        grad_out, y, middle, output = checks.softmax_backward(name, out, axis, grad_out, y)
        result = <cnp.ndarray?> output.array
    g, saved = <cnp.ndarray?> grad_out, <cnp.ndarray?> y
    run_along_axis(name, Lines(
        single=PyArray_TYPE(g) == cnp.NPY_FLOAT32, is_log=is_log,
        g=PyArray_DATA(g), x=PyArray_DATA(saved), y=PyArray_DATA(result),
        outer=lengths(g, 0, middle), length=lengths(g, middle, middle + 1),
        inner=lengths(g, middle + 1, PyArray_NDIM(g)), planes=0, columns=0, across=0,
    ))
    return result if output is None else output.deliver()


cdef struct Lines:
    # y = f(x) along the middle axis of [outer, length, inner], or f(g, x) where there is a g
    bint single, is_log
    const void *g
    const void *x
    void *y
    Py_ssize_t outer, length, inner
    # of a part; and parts side by side
    Py_ssize_t planes, columns, across


cdef void divide(Lines *lines) noexcept nogil:
    """Parts of about PART_ELEMENTS: some planes, which are rows where `inner` is 1, or some columns of one plane."""
    cdef Py_ssize_t together = max(PIECE // lines.length, 1) if lines.inner == 1 else 1  # rows that a loop takes at once
    cdef Py_ssize_t plane = lines.length * lines.inner
    lines.planes = max(PART_ELEMENTS // (plane * together), 1) * together
    lines.columns = lines.inner
    if plane > PART_ELEMENTS and lines.inner > 1:
        lines.columns = max(PART_ELEMENTS // (lines.length * COLUMNS), 1) * COLUMNS
    lines.across = (lines.inner + lines.columns - 1) // lines.columns


cdef int run_along_axis(str name, Lines lines) except -1:
    cdef Py_ssize_t n = lines.outer * lines.length * lines.inner
    cdef int failed
    if n < GIL_ELEMENTS:
        run_planes(&lines, 0, lines.outer, 0, lines.inner)
        return 0
    divide(&lines)
    with nogil:
        failed = run(
            run_numbered_planes, &lines, (lines.outer + lines.planes - 1) // lines.planes * lines.across,
            team(n, SHARE_ELEMENTS),
        )
    return raise_if(failed, name)


cdef int run_numbered_planes(void *lines, Py_ssize_t part) noexcept nogil:
    cdef const Lines *of = <const Lines *> lines
    cdef Py_ssize_t plane = part // of.across * of.planes, column = part % of.across * of.columns
    return run_planes(
        of, plane, min(of.planes, of.outer - plane), column, min(column + of.columns, of.inner)
    )


cdef int run_planes(
    const Lines *lines, Py_ssize_t plane, Py_ssize_t planes, Py_ssize_t first, Py_ssize_t end
) noexcept nogil:
    """Columns `first` to `end` of some planes; the code of a look for signals where that says to stop."""
    cdef Py_ssize_t length = lines.length, inner = lines.inner, at = plane * length * inner
    if lines.single and lines.g == NULL:
        return softmax_loop(
            <const float *> lines.x + at, <float *> lines.y + at, planes, length, inner, first, end,
            lines.is_log,
        )
    elif lines.single:
        return softmax_backward_loop(
            <const float *> lines.g + at, <const float *> lines.x + at, <float *> lines.y + at,
            planes, length, inner, first, end, lines.is_log,
        )
    elif lines.g == NULL:
        return softmax_loop(
            <const double *> lines.x + at, <double *> lines.y + at, planes, length, inner, first, end,
            lines.is_log,
        )
    else:
        return softmax_backward_loop(
            <const double *> lines.g + at, <const double *> lines.x + at, <double *> lines.y + at,
            planes, length, inner, first, end, lines.is_log,
        )


cdef inline int plain_axis(object x, object axis) except -2:
    """The axis counted from the front; -1 where x is not plain or the axis needs a look by Python."""
    cdef int overflow = 0, ndim
    cdef long number
    if not (is_plain(x) and PyLong_CheckExact(axis)):
        return -1
    ndim = PyArray_NDIM(<cnp.ndarray> x)
    number = PyLong_AsLongAndOverflow(axis, &overflow)
    if overflow or not -ndim <= number < ndim:
        return -1
    return number + ndim if number < 0 else number


cdef inline Py_ssize_t lengths(cnp.ndarray x, int first, int end) noexcept nogil:
    """The product of the lengths of these axes."""
    cdef Py_ssize_t product = 1
    cdef int axis
    for axis in range(first, end):
        product *= PyArray_DIM(x, axis)
    return product


# ----------------------------------------------------------------------------------------------------
# The table of those that other kernels apply to their results, with default options

cdef Activation[16] table
cdef int entries = 0


cdef int enter(
    str name, loop_f32 f32, loop_f64 f64, double option=0, loop2_f32 backward_f32=NULL, loop2_f64 backward_f64=NULL
) except -1:
    global entries
    table[entries] = Activation(<PyObject *> name, f32, f64, backward_f32, backward_f64, option)
    entries += 1
    return 0


enter("step", step_loop[float], step_loop[double])
enter("sign", sign_loop[float], sign_loop[double])
enter("relu", relu_loop[float], relu_loop[double], 0, relu_backward_loop[float], relu_backward_loop[double])
enter("leaky_relu", leaky_relu_loop[float], leaky_relu_loop[double], 0.01)
enter("elu", elu_loop[float], elu_loop[double], 1)
enter("selu", selu_loop[float], selu_loop[double])
enter("gelu", gelu_loop[float], gelu_loop[double])
enter("silu", silu_loop[float], silu_loop[double])
enter("mish", mish_loop[float], mish_loop[double])
enter("softplus", softplus_loop[float], softplus_loop[double])
enter("sigmoid", sigmoid_loop[float], sigmoid_loop[double], 0, sigmoid_backward_loop[float], sigmoid_backward_loop[double])
enter("hard_sigmoid", hard_sigmoid_loop[float], hard_sigmoid_loop[double])
enter("tanh", tanh_loop[float], tanh_loop[double], 0, tanh_backward_loop[float], tanh_backward_loop[double])
enter("hard_tanh", hard_tanh_loop[float], hard_tanh_loop[double])
enter("softsign", softsign_loop[float], softsign_loop[double])

FUSED = PyCapsule_New(table, NULL, NULL)
