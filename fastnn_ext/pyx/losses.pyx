"""Losses, compiled; see `fastnn/losses.py` for what each function is.

Memory is passed over once, in blocks that stay in the first-level cache: the terms of a block go to a buffer and are
added in double precision, its gradients go out while it is still there. Threads take parts of many blocks, whose sums
are added in their order.
"""

cimport numpy as cnp
from common cimport (
    GIL_ELEMENTS, PyArray_CheckExact, PyArray_DATA, PyArray_DIM, PyArray_DIMS, PyArray_EMPTY, PyArray_ISCARRAY_RO,
    PyArray_ISWRITEABLE, PyArray_NDIM, PyArray_SIZE, PyArray_TYPE, are_apart, empty_like, has_shape, is_plain,
    is_plain_of, is_safe_out, real, same_shape,
)
from cpython.float cimport PyFloat_AS_DOUBLE, PyFloat_CheckExact
from cpython.long cimport PyLong_AsLongLongAndOverflow, PyLong_CheckExact
from libc.math cimport INFINITY, NAN
from libc.string cimport memset
from pool cimport NO_MEMORY, join_pool, raise_if, run, team
from reduce cimport accumulate, largest, sum_in_eights, sum_of
from softmax cimport lifted_exp_all
from vmath cimport exp, fabs, lift_of, log, log1p

from fastnn_ext.checks import losses as checks

cdef extern from "numpy/arrayobject.h":
    object PyArray_Scalar(void *data, cnp.dtype dtype, object base)
    void PyArray_ScalarAsCtype(object scalar, void *data) noexcept
    cnp.dtype PyArray_DescrFromType(int typenum)

cdef extern from *:
    """
    #define FNN_IS_FLOAT32(x) PyArray_IsScalar(x, Float32)
    #define FNN_IS_FLOAT64(x) PyArray_IsScalar(x, Float64)
    """
    bint FNN_IS_FLOAT32(object x)
    bint FNN_IS_FLOAT64(object x)

cdef extern from "engine/arena.h" nogil:
    enum:
        TOTALS "FNN_SLOT_USER"
    void *fnn_workspace(int slot, size_t bytes)

cnp.import_array()
join_pool()

cdef enum:
    BLOCK = 1024              # elements that stay in the first-level cache between two loops
    ROWS = 64                 # of a block at most
    PART = 1 << 15            # elements of a part
    SHARE_ELEMENTS = 1 << 16  # that a thread must have, and
    SHARE_LOGITS = 3 << 14    # of rows with exponentials
    ROW = TOTALS + 1          # slot of the workspace: a row's exponentials

cdef enum:
    UNKNOWN, MEAN, SUM, NONE


# ----------------------------------------------------------------------------------------------------
# Losses of y and target: the terms, and the slopes they have in y before they are scaled


cdef void square_terms(const real *y, const real *target, real *terms, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        terms[i] = (y[i] - target[i]) * (y[i] - target[i])


cdef void square_slopes(const real *y, const real *target, real *slopes, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        slopes[i] = (y[i] - target[i]) + (y[i] - target[i])


cdef void half_square_slopes(const real *y, const real *target, real *slopes, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        slopes[i] = y[i] - target[i]


cdef inline real at_least(real x, real low) noexcept nogil:
    return low if x < low else x


cdef void chance_terms(const real *y, const real *target, real *terms, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    cdef real one = 1, low = -100
    for i in range(n):
        terms[i] = -(target[i] * at_least(log(y[i]), low) + (one - target[i]) * at_least(log1p(-y[i]), low))


cdef void chance_slopes(const real *y, const real *target, real *slopes, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    cdef real one = 1, low = 1e-12
    for i in range(n):
        slopes[i] = (y[i] - target[i]) / at_least(y[i] * (one - y[i]), low)


cdef void logit_terms(const real *x, const real *target, real *terms, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    cdef real one = 1, zero = 0, unlikely, linear
    for i in range(n):
        unlikely = target[i] if x[i] < zero else one - target[i]
        linear = zero if unlikely == zero else fabs(x[i]) * unlikely
        terms[i] = linear + log1p(exp(-fabs(x[i])))


cdef void logit_slopes(const real *x, const real *target, real *slopes, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    cdef real one = 1, zero = 0, decay, rest
    for i in range(n):
        decay = exp(-fabs(x[i]))
        rest = one - target[i]
        slopes[i] = (decay * rest - target[i] if x[i] < zero else rest - target[i] * decay) / (one + decay)


ctypedef void (*loop_f32)(const float *y, const float *target, float *result, Py_ssize_t n) noexcept nogil
ctypedef void (*loop_f64)(const double *y, const double *target, double *result, Py_ssize_t n) noexcept nogil


cdef struct Formula:
    loop_f32 terms_f32
    loop_f64 terms_f64
    loop_f32 slopes_f32
    loop_f64 slopes_f64
    double factor  # of each term
    bint by_row    # whether the terms of a row make one term of the loss


cdef Formula SQUARE = Formula(
    square_terms[float], square_terms[double], square_slopes[float], square_slopes[double], 1, False
)
cdef Formula HALF_SQUARE = Formula(
    square_terms[float], square_terms[double], half_square_slopes[float], half_square_slopes[double], 0.5, True
)
cdef Formula CHANCE = Formula(
    chance_terms[float], chance_terms[double], chance_slopes[float], chance_slopes[double], 1, False
)
cdef Formula LOGIT = Formula(
    logit_terms[float], logit_terms[double], logit_slopes[float], logit_slopes[double], 1, False
)


cdef struct Task:
    # One call: `each` takes the terms, or the rows' sums of them, `grad` the gradients; NULL where not wanted.
    const Formula *formula
    bint is_float
    const void *y
    const void *target
    void *each
    void *grad
    const void *scales  # of each gradient, or each row's; where NULL, `scale` is that of all
    double scale
    bint summed
    bint by_row
    Py_ssize_t n, rows
    Py_ssize_t at_once  # elements, or rows, of a part
    double *totals      # of each part
    double total


cdef double pass_over(
    const Task *task, const real *y, const real *target, Py_ssize_t n, real *each, real *grad, const real *scales,
    real scale
) noexcept nogil:
    """Terms and gradients of n elements; the sum of the terms if wanted. `grad` may be y, target or scales."""
    cdef real buffer[BLOCK]
    cdef real *result
    cdef double total = 0, excess = 0
    cdef Py_ssize_t i, start = 0, size
    while start < n:
        size = min(<Py_ssize_t> BLOCK, n - start)
        if task.summed or each != NULL:
            result = &buffer[0] if each == NULL else each + start
            if real is float:
                task.formula.terms_f32(y + start, target + start, result, size)
            else:
                task.formula.terms_f64(y + start, target + start, result, size)
            if task.summed:
                accumulate(&total, &excess, sum_of(result, size))
        if grad != NULL:
            if real is float:
                task.formula.slopes_f32(y + start, target + start, buffer, size)
            else:
                task.formula.slopes_f64(y + start, target + start, buffer, size)
            result = grad + start
            if scales == NULL:
                for i in range(size):
                    result[i] = buffer[i] * scale
            else:
                for i in range(size):
                    result[i] = buffer[i] * scales[start + i]
        start += size
    return total * task.formula.factor


cdef void perform_real(const Task *task, const real *y, real *each, real *grad, Py_ssize_t part) noexcept nogil:
    cdef const real *target = <const real *> task.target
    cdef const real *scales = <const real *> task.scales
    cdef Py_ssize_t row, first = part * task.at_once, size
    cdef double sum_of_row
    if not task.by_row:
        size = min(task.at_once, task.n - first)
        if scales != NULL:
            scales += first
        task.totals[part] = pass_over[real](
            task, y + first, target + first, size, NULL if each == NULL else each + first,
            NULL if grad == NULL else grad + first, scales, <real> task.scale
        )
        return
    size = task.n // max(task.rows, 1)
    for row in range(first, min(first + task.at_once, task.rows)):
        sum_of_row = pass_over[real](
            task, y + row * size, target + row * size, size, NULL, NULL if grad == NULL else grad + row * size,
            NULL, <real> task.scale if scales == NULL else scales[row]
        )
        if each != NULL:
            each[row] = <real> sum_of_row


cdef int perform(void *context, Py_ssize_t part) noexcept nogil:
    cdef const Task *task = <const Task *> context
    if task.is_float:
        perform_real[float](task, <const float *> task.y, <float *> task.each, <float *> task.grad, part)
    else:
        perform_real[double](task, <const double *> task.y, <double *> task.each, <double *> task.grad, part)
    return 0


cdef inline double *room_for(double *one, Py_ssize_t parts) noexcept nogil:
    """Memory for a sum of each part; `one` where that is enough."""
    return one if parts <= 1 else <double *> fnn_workspace(TOTALS, parts * sizeof(double))


cdef inline double sum_in_order(const double *totals, Py_ssize_t parts) noexcept nogil:
    cdef double total = 0, excess = 0
    cdef Py_ssize_t part
    for part in range(parts):
        accumulate(&total, &excess, totals[part])
    return total


cdef inline int start(Task *task, str name) except -1:
    """`perform` all parts, without the GIL where that pays."""
    cdef double one = 0
    cdef Py_ssize_t count = task.rows if task.by_row else task.n, parts
    cdef int failed
    task.at_once = max(PART // max(task.n // max(task.rows, 1), 1), 1) if task.by_row else PART
    parts = (count + task.at_once - 1) // task.at_once
    task.totals = room_for(&one, parts)
    task.total = 0
    if task.totals == NULL:
        raise_if(NO_MEMORY, name)
    if task.n < GIL_ELEMENTS and parts <= 1:
        perform(task, 0)
    else:
        with nogil:
            failed = run(perform, task, parts, team(task.n, SHARE_ELEMENTS))
        raise_if(failed, name)
    if not task.by_row:
        task.total = sum_in_order(task.totals, parts)
    return 0


# ----------------------------------------------------------------------------------------------------
# The calls: plain arguments as they are, others by way of the checks


cdef int reduction_of(object reduction) except -1:
    if isinstance(reduction, str):
        if reduction == "mean":
            return MEAN
        if reduction == "sum":
            return SUM
        if reduction == "none":
            return NONE
    return UNKNOWN


cdef inline bint are_alike(object y, object target) noexcept:
    """Whether y and target are plain arrays of one type and shape."""
    return (
        is_plain(y)
        and is_plain_of(target, PyArray_TYPE(<cnp.ndarray> y))
        and same_shape(<cnp.ndarray> y, <cnp.ndarray> target)
    )


cdef bint is_number(object value, int typenum, double *number) noexcept:
    """Whether `value` is a number that leaves the dtype as it is; its value."""
    cdef int overflow = 0
    cdef float single
    if PyFloat_CheckExact(value):
        number[0] = PyFloat_AS_DOUBLE(value)
    elif PyLong_CheckExact(value):
        number[0] = <double> PyLong_AsLongLongAndOverflow(value, &overflow)
    elif typenum == cnp.NPY_FLOAT64 and FNN_IS_FLOAT64(value):
        number[0] = PyFloat_AS_DOUBLE(value)
    elif typenum == cnp.NPY_FLOAT32 and FNN_IS_FLOAT32(value):
        PyArray_ScalarAsCtype(value, &single)
        number[0] = single
    elif is_plain_of(value, typenum) and PyArray_NDIM(<cnp.ndarray> value) == 0:
        if typenum == cnp.NPY_FLOAT32:
            number[0] = (<float *> PyArray_DATA(<cnp.ndarray> value))[0]
        else:
            number[0] = (<double *> PyArray_DATA(<cnp.ndarray> value))[0]
    else:
        return False
    return overflow == 0


cdef inline object scalar(double value, int typenum):
    """A NumPy scalar."""
    cdef float rounded = <float> value
    cdef void *data = &rounded if typenum == cnp.NPY_FLOAT32 else <void *> &value
    return PyArray_Scalar(data, PyArray_DescrFromType(typenum), None)


cdef inline double reduced(int reduction, double total, Py_ssize_t size) noexcept:
    return total if reduction == SUM else (total / size if size else NAN)


cdef inline int leading(cnp.ndarray a) noexcept:
    """The number of dimensions before the last."""
    return max(PyArray_NDIM(a) - 1, 0)


cdef inline Py_ssize_t rows_of(cnp.ndarray a) noexcept:
    """The product of all lengths but the last."""
    cdef Py_ssize_t rows = 1
    cdef int axis
    for axis in range(leading(a)):
        rows *= PyArray_DIM(a, axis)
    return rows


cdef inline void describe(
    Task *task, const Formula *formula, cnp.ndarray y, cnp.ndarray target, int reduction
) noexcept:
    task.formula = formula
    task.is_float = PyArray_TYPE(y) == cnp.NPY_FLOAT32
    task.y, task.target = PyArray_DATA(y), PyArray_DATA(target)
    task.each = task.grad = NULL
    task.scales = NULL
    task.scale = 1
    task.n = PyArray_SIZE(y)
    task.rows = rows_of(y) if formula.by_row else task.n
    task.by_row = formula.by_row and reduction == NONE
    task.summed = False


cdef inline cnp.ndarray empty_terms(const Formula *formula, cnp.ndarray y):
    """A new array for the unreduced loss."""
    return PyArray_EMPTY(leading(y) if formula.by_row else PyArray_NDIM(y), PyArray_DIMS(y), PyArray_TYPE(y), 0)


cdef object forward(const Formula *formula, str name, str first, object y, object target, object reduction, object out):
    """The loss."""
    cdef object loss = None
    cdef cnp.ndarray each = None
    cdef Task task
    cdef int kind = reduction_of(reduction)
    if kind == UNKNOWN or out is not None or not are_alike(y, target):
        y, target, loss = checks.forward(name, y, target, reduction, out, first=first, by_row=formula.by_row)
        if kind == NONE:
            each = <cnp.ndarray?> loss.array
    elif kind == NONE:
        each = empty_terms(formula, <cnp.ndarray> y)
    describe(&task, formula, <cnp.ndarray?> y, <cnp.ndarray?> target, kind)
    task.summed = kind != NONE or formula.by_row
    if each is not None:
        task.each = PyArray_DATA(each)
    start(&task, name)
    if loss is not None:
        return loss.deliver() if kind == NONE else loss.total(task.total)
    return each if kind == NONE else scalar(reduced(kind, task.total, task.rows), PyArray_TYPE(<cnp.ndarray> y))


cdef inline bint is_factor(bint by_row, int reduction, object grad_out, cnp.ndarray y, double *scale) noexcept:
    """Whether grad_out is what can be multiplied with the slopes: a number, or a plain array of one per term."""
    if reduction != NONE:
        return is_number(grad_out, PyArray_TYPE(y), scale)
    cdef int ndim = leading(y) if by_row else PyArray_NDIM(y)
    return is_plain_of(grad_out, PyArray_TYPE(y)) and has_shape(<cnp.ndarray> grad_out, ndim, PyArray_DIMS(y))


cdef inline bint is_gradient(object out, cnp.ndarray y, cnp.ndarray target) noexcept:
    """Whether the gradient can be written to `out`."""
    return out is None or (is_safe_out(out, y) and is_safe_out(out, target))


cdef inline bint is_apart(object out, object grad_out) noexcept:
    """Whether writing `out` leaves grad_out alone, except where it has been read."""
    if out is None or not PyArray_CheckExact(grad_out):
        return True
    return is_safe_out(out, <cnp.ndarray> grad_out) or are_apart(<cnp.ndarray> out, <cnp.ndarray> grad_out)


cdef object backward(
    const Formula *formula, str name, str first, object grad_out, object y, object target, object reduction, object out
):
    """The gradient of the loss with respect to y, times grad_out."""
    cdef object output = None
    cdef cnp.ndarray grad
    cdef Task task
    cdef double scale = 1
    cdef int kind = reduction_of(reduction)
    cdef bint fast = (
        kind != UNKNOWN
        and are_alike(y, target)
        and is_factor(formula.by_row, kind, grad_out, <cnp.ndarray> y, &scale)
        and is_gradient(out, <cnp.ndarray> y, <cnp.ndarray> target)
        and is_apart(out, grad_out)
    )
    if not fast:
        grad_out, y, target, output = checks.backward(
            name, grad_out, y, target, reduction, out, first=first, by_row=formula.by_row
        )
        grad = <cnp.ndarray?> output.array
    else:
        grad = empty_like(<cnp.ndarray> y) if out is None else <cnp.ndarray> out
    describe(&task, formula, <cnp.ndarray?> y, <cnp.ndarray?> target, kind)
    task.grad = PyArray_DATA(grad)
    if kind == NONE:
        task.scales = PyArray_DATA(<cnp.ndarray?> grad_out)
    elif not fast:
        task.scale = grad_out
    else:
        task.scale = scale / task.rows if kind == MEAN else scale
    start(&task, name)
    return grad if output is None else output.deliver()


cdef tuple with_grad(
    const Formula *formula, str name, str first, object y, object target, object reduction, object out
):
    """The loss and its gradient with respect to y."""
    cdef object loss = None, output = None, value
    cdef cnp.ndarray each = None, grad
    cdef Task task
    cdef int kind = reduction_of(reduction)
    cdef bint fast = (
        kind != UNKNOWN
        and are_alike(y, target)
        and is_gradient(out, <cnp.ndarray> y, <cnp.ndarray> target)
    )
    if not fast:
        _, y, target, loss, output = checks.with_grad(
            name, y, target, reduction, out, first=first, by_row=formula.by_row
        )
        grad = <cnp.ndarray?> output.array
        if kind == NONE:
            each = <cnp.ndarray?> loss.array
    else:
        grad = empty_like(<cnp.ndarray> y) if out is None else <cnp.ndarray> out
        if kind == NONE:
            each = empty_terms(formula, <cnp.ndarray> y)
    describe(&task, formula, <cnp.ndarray?> y, <cnp.ndarray?> target, kind)
    task.summed = kind != NONE or formula.by_row
    task.grad = PyArray_DATA(grad)
    if each is not None:
        task.each = PyArray_DATA(each)
    if kind == MEAN:
        task.scale = 1.0 / task.rows
    start(&task, name)
    if not fast:
        return (loss.deliver() if kind == NONE else loss.total(task.total)), output.deliver()
    value = each if kind == NONE else scalar(reduced(kind, task.total, task.rows), PyArray_TYPE(<cnp.ndarray> y))
    return value, grad


def mse_loss(y, target, *, reduction="mean", out=None):
    return forward(&SQUARE, "mse_loss", "y", y, target, reduction, out)


def mse_loss_backward(grad_out, y, target, *, reduction="mean", out=None):
    return backward(&SQUARE, "mse_loss_backward", "y", grad_out, y, target, reduction, out)


def mse_loss_with_grad(y, target, *, reduction="mean", out=None):
    return with_grad(&SQUARE, "mse_loss_with_grad", "y", y, target, reduction, out)


def half_squared_error(y, target, *, reduction="mean", out=None):
    return forward(&HALF_SQUARE, "half_squared_error", "y", y, target, reduction, out)


def half_squared_error_backward(grad_out, y, target, *, reduction="mean", out=None):
    return backward(&HALF_SQUARE, "half_squared_error_backward", "y", grad_out, y, target, reduction, out)


def half_squared_error_with_grad(y, target, *, reduction="mean", out=None):
    return with_grad(&HALF_SQUARE, "half_squared_error_with_grad", "y", y, target, reduction, out)


def binary_cross_entropy(y, target, *, reduction="mean", out=None):
    return forward(&CHANCE, "binary_cross_entropy", "y", y, target, reduction, out)


def binary_cross_entropy_backward(grad_out, y, target, *, reduction="mean", out=None):
    return backward(&CHANCE, "binary_cross_entropy_backward", "y", grad_out, y, target, reduction, out)


def binary_cross_entropy_with_grad(y, target, *, reduction="mean", out=None):
    return with_grad(&CHANCE, "binary_cross_entropy_with_grad", "y", y, target, reduction, out)


def binary_cross_entropy_with_logits(logits, target, *, reduction="mean", out=None):
    return forward(&LOGIT, "binary_cross_entropy_with_logits", "logits", logits, target, reduction, out)


def binary_cross_entropy_with_logits_backward(grad_out, logits, target, *, reduction="mean", out=None):
    name = "binary_cross_entropy_with_logits_backward"
    return backward(&LOGIT, name, "logits", grad_out, logits, target, reduction, out)


def binary_cross_entropy_with_logits_with_grad(logits, target, *, reduction="mean", out=None):
    name = "binary_cross_entropy_with_logits_with_grad"
    return with_grad(&LOGIT, name, "logits", logits, target, reduction, out)


# ----------------------------------------------------------------------------------------------------
# Cross-entropy: a few rows at a time, x is replaced by x - max and that by its exponential in a buffer


cdef struct Rows:
    # One call: `each` takes the rows' losses, `grad` the gradients; NULL where not wanted.
    bint is_float
    const void *logits
    const cnp.npy_intp *labels  # NULL where there are probabilities
    const void *probabilities
    void *each
    void *grad
    const void *scales  # of each row's gradient; where NULL, `scale` is that of all
    double scale
    double smoothing
    cnp.npy_intp ignored, classes
    bint summed
    Py_ssize_t n, size  # rows, and those that count in the mean
    Py_ssize_t at_once  # rows of a part
    double *totals      # of each part
    double total


cdef inline void subtract_greatest(const real *x, real *shifted, Py_ssize_t n) noexcept nogil:
    """x - max(x); where that is infinite, 0 for infinite numbers and minus infinity for the others."""
    cdef real best = largest(x, n), infinity = <real> INFINITY
    cdef Py_ssize_t i
    for i in range(n):
        shifted[i] = x[i] - best
    if best == infinity:
        for i in range(n):
            if x[i] == x[i]:
                shifted[i] = 0 if x[i] == infinity else -infinity


cdef struct Block:
    # Of each row in the buffer:
    double excess[ROWS]    # what its exponentials add up to, less 1
    double expected[ROWS]  # x - max, averaged over the target's distribution
    double mass[ROWS]      # the sum of that distribution


cdef inline double sum_products(const real *q, const real *shifted, Py_ssize_t n, real hard, real even) noexcept nogil:
    """The sum of p * shifted where p = hard * q + even; a class with p = 0 may be at minus infinity."""
    cdef real products[BLOCK]
    cdef double total = 0
    cdef real zero = 0, p
    cdef Py_ssize_t i, start = 0, size
    while start < n:
        size = min(<Py_ssize_t> BLOCK, n - start)
        for i in range(size):
            p = hard * q[start + i] + even
            products[i] = zero if p == zero else p * shifted[start + i]
        total += sum_of(&products[0], size)
        start += size
    return total


cdef void open_rows(const Rows *task, Py_ssize_t first, Py_ssize_t rows, real *e, Block *block) noexcept nogil:
    """x - max to e, and what the losses need of it."""
    cdef const real *x = <const real *> task.logits + first * task.classes
    cdef const real *q = <const real *> task.probabilities
    cdef double hard = 1 - task.smoothing, even = task.smoothing / task.classes
    cdef Py_ssize_t i, n = task.classes
    cdef cnp.npy_intp label
    for i in range(rows):
        subtract_greatest(x + i * n, e + i * n, n)
        block.mass[i], block.expected[i] = 1, 0
        if task.labels == NULL:
            block.expected[i] = sum_products(q + (first + i) * n, e + i * n, n, <real> hard, <real> even)
            block.mass[i] = hard * sum_of(q + (first + i) * n, n) + task.smoothing
            continue
        label = task.labels[first + i]
        if label != task.ignored:
            if hard != 0:
                block.expected[i] = hard * <double> e[i * n + label]
            if even != 0:
                block.expected[i] += even * sum_of(e + i * n, n)


cdef void close_rows(const Rows *task, Py_ssize_t first, Py_ssize_t rows, real *e, Block *block) noexcept nogil:
    """Sums of the lifted exponentials e; if wanted, gradients in their place."""
    cdef const real *q = <const real *> task.probabilities
    cdef const real *scales = <const real *> task.scales
    cdef double scale = task.scale
    cdef Py_ssize_t i, n = task.classes
    for i in range(rows):
        if scales != NULL:
            scale = <double> scales[first + i]
        if task.labels == NULL:
            block.excess[i] = close_expected(task, q + (first + i) * n, e + i * n, block.mass[i], <real> scale)
        elif task.labels[first + i] != task.ignored:
            block.excess[i] = close_labelled(task, task.labels[first + i], e + i * n, scale)
        else:
            block.excess[i] = 0
            if task.grad != NULL:
                memset(e + i * n, 0, n * sizeof(real))


cdef inline double close_labelled(const Rows *task, cnp.npy_intp label, real *e, double scale) noexcept nogil:
    """The label's own exponential is kept apart: neither log p nor p - 1 = -rest / sum cancels for p near 1."""
    cdef double even = task.smoothing / task.classes
    cdef double own = <double> e[label], rest, factor
    cdef real factor_of_all, even_of_all = 0
    cdef Py_ssize_t j
    rest = sum_in_eights(e, label) + sum_in_eights(e + label + 1, task.classes - label - 1)
    if task.grad != NULL:
        factor = scale / (own + rest)
        factor_of_all = <real> factor
        if task.smoothing != 0:  # else an infinite scale would make NaN of nothing
            even_of_all = <real> (scale * even)
        for j in range(task.classes):
            e[j] = e[j] * factor_of_all - even_of_all
        e[label] = <real> (-rest * factor + (scale * (task.smoothing - even) if task.smoothing != 0 else 0))
    return rest / lift_of(e) + (own / lift_of(e) - 1)


cdef inline double close_expected(const Rows *task, const real *q, real *e, double mass, real scale) noexcept nogil:
    cdef double total = sum_in_eights(e, task.classes)
    cdef real ratio = <real> (mass / total)
    cdef real hard = <real> (1 - task.smoothing), even = <real> (task.smoothing / task.classes)
    cdef Py_ssize_t j
    if task.grad != NULL:
        for j in range(task.classes):
            e[j] = (e[j] * ratio - (hard * q[j] + even)) * scale
    return total / lift_of(e) - 1


cdef void hand_over(
    const Rows *task, Py_ssize_t first, Py_ssize_t rows, Block *block, real *each, double *total, double *excess
) noexcept nogil:
    """The losses of the rows in the buffer."""
    cdef Py_ssize_t i
    for i in range(rows):
        block.expected[i] = block.mass[i] * log1p(block.excess[i]) - block.expected[i]
    if task.summed:
        accumulate(total, excess, sum_of(&block.expected[0], rows))
    elif each != NULL:
        for i in range(rows):
            each[first + i] = <real> block.expected[i]


cdef int cross_entropy_rows(const Rows *task, real *each, real *grad, Py_ssize_t part) noexcept nogil:
    """A part of the rows; NO_MEMORY where there is none for a long row."""
    cdef real stack[BLOCK]
    cdef Block block
    cdef real *buffer = &stack[0]
    cdef const real *logits = <const real *> task.logits
    cdef Py_ssize_t rows, at_once = max(<Py_ssize_t> 1, min(<Py_ssize_t> ROWS, BLOCK // task.classes))
    cdef Py_ssize_t first = part * task.at_once, end = min(first + task.at_once, task.n)
    cdef double total = 0, excess = 0
    if task.classes > BLOCK and grad == NULL:
        buffer = <real *> fnn_workspace(ROW, task.classes * sizeof(real))
        if buffer == NULL:
            return NO_MEMORY
    while first < end:
        rows = min(at_once, end - first)
        if grad != NULL:
            buffer = grad + first * task.classes
        open_rows(task, first, rows, buffer, &block)
        lifted_exp_all(
            buffer, 0, buffer, rows * task.classes, logits + (first + rows) * task.classes,
            buffer if grad == NULL else buffer + rows * task.classes,
        )
        close_rows(task, first, rows, buffer, &block)
        if task.summed or each != NULL:
            hand_over(task, first, rows, &block, each, &total, &excess)
        first += rows
    task.totals[part] = total
    return 0


cdef int cross_entropy_of(void *context, Py_ssize_t part) noexcept nogil:
    cdef const Rows *task = <const Rows *> context
    if task.is_float:
        return cross_entropy_rows(task, <float *> task.each, <float *> task.grad, part)
    return cross_entropy_rows(task, <double *> task.each, <double *> task.grad, part)


cdef inline int start_rows(Rows *task, str name) except -1:
    """`cross_entropy_of` all parts, without the GIL where that pays."""
    cdef double one = 0
    cdef Py_ssize_t parts
    cdef int failed
    # whole blocks of rows
    task.at_once = max(PART // max(task.classes, BLOCK // ROWS), 1)
    if task.classes < BLOCK:
        task.at_once -= task.at_once % min(<Py_ssize_t> ROWS, BLOCK // task.classes)
    parts = (task.n + task.at_once - 1) // task.at_once
    task.totals = room_for(&one, parts)
    if task.totals == NULL:
        raise_if(NO_MEMORY, name)
    if task.n * task.classes < GIL_ELEMENTS and parts <= 1:
        failed = cross_entropy_of(task, 0)
    else:
        with nogil:
            failed = run(cross_entropy_of, task, parts, team(task.n * task.classes, SHARE_LOGITS))
    raise_if(failed, name)
    task.total = sum_in_order(task.totals, parts)
    return 0


cdef bint is_option(object ignore_index, object label_smoothing, Rows *task) noexcept:
    """Whether the options need no look by Python; their values."""
    cdef int overflow = 0
    task.ignored = -1
    if ignore_index is not None:
        if not PyLong_CheckExact(ignore_index):
            return False
        task.ignored = PyLong_AsLongLongAndOverflow(ignore_index, &overflow)
    if not is_number(label_smoothing, cnp.NPY_FLOAT64, &task.smoothing):
        return False
    return overflow == 0 and 0 <= task.smoothing <= 1


cdef bint are_rows(object logits, object target, object ignore_index, Rows *task) noexcept:
    """Whether logits and target are plain and fit together, with all labels in range; sizes and pointers."""
    cdef cnp.ndarray x
    cdef int ndim
    cdef Py_ssize_t i
    if not is_plain(logits) or not PyArray_CheckExact(target) or not PyArray_ISCARRAY_RO(<cnp.ndarray> target):
        return False
    x = <cnp.ndarray> logits
    ndim = PyArray_NDIM(x)
    if ndim == 0 or PyArray_DIM(x, ndim - 1) == 0:
        return False
    describe_rows(task, x, <cnp.ndarray> target)
    if task.labels == NULL:
        return ignore_index is None and are_alike(logits, target)
    if PyArray_TYPE(<cnp.ndarray> target) != cnp.NPY_INTP:
        return False
    if not has_shape(<cnp.ndarray> target, ndim - 1, PyArray_DIMS(x)):
        return False
    for i in range(task.n):
        if ignore_index is not None and task.labels[i] == task.ignored:
            task.size -= 1
        elif not 0 <= task.labels[i] < task.classes:
            return False
    return True


cdef void describe_rows(Rows *task, cnp.ndarray logits, cnp.ndarray target) noexcept:
    """What both the fast and the checked call know; options, outputs and scale are theirs to set."""
    task.is_float = PyArray_TYPE(logits) == cnp.NPY_FLOAT32
    task.logits = PyArray_DATA(logits)
    task.labels = NULL
    task.probabilities = NULL
    if PyArray_TYPE(target) == cnp.NPY_FLOAT32 or PyArray_TYPE(target) == cnp.NPY_FLOAT64:
        task.probabilities = PyArray_DATA(target)
    else:
        task.labels = <const cnp.npy_intp *> PyArray_DATA(target)
    task.classes = PyArray_DIM(logits, PyArray_NDIM(logits) - 1)
    task.n = task.size = rows_of(logits)
    task.each = task.grad = NULL
    task.scales = NULL
    task.scale = 1
    task.summed = False


cdef int take(Rows *task, object classes) except -1:
    """The checked arguments."""
    describe_rows(task, <cnp.ndarray?> classes.logits, <cnp.ndarray?> classes.target)
    task.ignored = classes.ignored
    task.smoothing = classes.smoothing
    return 0


cdef inline bint is_fresh(object out, cnp.ndarray logits, object target) noexcept:
    """Whether the gradient can be written to `out`, apart from what is read."""
    return out is None or (
        is_plain_of(out, PyArray_TYPE(logits))
        and PyArray_ISWRITEABLE(<cnp.ndarray> out)
        and same_shape(<cnp.ndarray> out, logits)
        and are_apart(<cnp.ndarray> out, logits)
        and are_apart(<cnp.ndarray> out, <cnp.ndarray> target)
    )


cdef inline cnp.ndarray empty_losses(cnp.ndarray logits):
    return PyArray_EMPTY(PyArray_NDIM(logits) - 1, PyArray_DIMS(logits), PyArray_TYPE(logits), 0)


def cross_entropy(logits, target, *, reduction="mean", ignore_index=None, label_smoothing=0, out=None):
    cdef Rows task
    cdef object classes, loss = None
    cdef cnp.ndarray each = None
    cdef int kind = reduction_of(reduction)
    if (
        kind == UNKNOWN
        or out is not None
        or not is_option(ignore_index, label_smoothing, &task)
        or not are_rows(logits, target, ignore_index, &task)
    ):
        classes, loss = checks.cross_entropy(
            "cross_entropy", logits, target, reduction, ignore_index, label_smoothing, out
        )
        take(&task, classes)
    if kind == NONE:
        each = empty_losses(<cnp.ndarray> logits) if loss is None else <cnp.ndarray?> loss.array
        task.each = PyArray_DATA(each)
    task.summed = kind != NONE
    start_rows(&task, "cross_entropy")
    if loss is not None:
        return loss.deliver() if kind == NONE else loss.total(task.total)
    return each if kind == NONE else scalar(reduced(kind, task.total, task.size), PyArray_TYPE(<cnp.ndarray> logits))


def cross_entropy_backward(
    grad_out, logits, target, *, reduction="mean", ignore_index=None, label_smoothing=0, out=None
):
    cdef Rows task
    cdef object classes, output = None
    cdef cnp.ndarray grad
    cdef double scale = 1
    cdef int kind = reduction_of(reduction)
    cdef bint fast = (
        kind != UNKNOWN
        and is_option(ignore_index, label_smoothing, &task)
        and are_rows(logits, target, ignore_index, &task)
        and is_factor(True, kind, grad_out, <cnp.ndarray> logits, &scale)
        and is_fresh(out, <cnp.ndarray> logits, target)
        and (out is None or not PyArray_CheckExact(grad_out) or are_apart(<cnp.ndarray> out, <cnp.ndarray> grad_out))
    )
    if fast:
        grad = empty_like(<cnp.ndarray> logits) if out is None else <cnp.ndarray> out
    else:
        grad_out, classes, output = checks.cross_entropy_backward(
            "cross_entropy_backward", grad_out, logits, target, reduction, ignore_index, label_smoothing, out
        )
        take(&task, classes)
        grad = <cnp.ndarray?> output.array
    task.grad = PyArray_DATA(grad)
    if kind == NONE:
        task.scales = PyArray_DATA(<cnp.ndarray?> grad_out)
    elif not fast:
        task.scale = grad_out
    else:
        task.scale = scale / task.size if kind == MEAN else scale
    start_rows(&task, "cross_entropy_backward")
    return grad if output is None else output.deliver()


def cross_entropy_with_grad(logits, target, *, reduction="mean", ignore_index=None, label_smoothing=0, out=None):
    cdef Rows task
    cdef object classes, value, loss = None, output = None
    cdef cnp.ndarray each = None, grad
    cdef int kind = reduction_of(reduction)
    if (
        kind != UNKNOWN
        and is_option(ignore_index, label_smoothing, &task)
        and are_rows(logits, target, ignore_index, &task)
        and is_fresh(out, <cnp.ndarray> logits, target)
    ):
        grad = empty_like(<cnp.ndarray> logits) if out is None else <cnp.ndarray> out
    else:
        _, classes, loss, output = checks.cross_entropy_with_grad(
            "cross_entropy_with_grad", logits, target, reduction, ignore_index, label_smoothing, out
        )
        take(&task, classes)
        grad = <cnp.ndarray?> output.array
        task.size = loss.size
    task.grad = PyArray_DATA(grad)
    task.summed = kind != NONE
    if kind == NONE:
        each = empty_losses(<cnp.ndarray> logits) if loss is None else <cnp.ndarray?> loss.array
        task.each = PyArray_DATA(each)
    elif kind == MEAN:
        task.scale = 1.0 / task.size
    start_rows(&task, "cross_entropy_with_grad")
    if loss is not None:
        return (loss.deliver() if kind == NONE else loss.total(task.total)), output.deliver()
    value = each if kind == NONE else scalar(reduced(kind, task.total, task.size), PyArray_TYPE(<cnp.ndarray> logits))
    return value, grad
