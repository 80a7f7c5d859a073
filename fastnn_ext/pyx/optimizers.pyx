"""Optimizer steps, compiled; see `fastnn/optimizers.py` for what each function is.

Each is one loop that reads and writes every array once: a compiler, which does not know that they are apart, would
read again what has just been stored, and a store across two cache lines keeps that waiting. Choices that are the same
for all elements stand inside it, since compilers take them out, and keep 0 * infinity from making NaN where nothing is
to be added.
"""

cimport numpy as cnp
from common cimport (
    GIL_ELEMENTS, PyArray_DATA, PyArray_ISWRITEABLE, PyArray_SIZE, PyArray_TYPE, are_apart, is_plain, is_plain_of,
    real, same_shape,
)
from cpython.float cimport PyFloat_AS_DOUBLE, PyFloat_CheckExact
from cpython.long cimport PyLong_AsLongLongAndOverflow, PyLong_CheckExact
from libc.math cimport pow, sqrt, sqrtf
from pool cimport join_pool, run_to_end, team

from fastnn_ext.checks import optimizers as checks

cnp.import_array()
join_pool()

cdef enum:
    MAX_STATES = 4  # Adam's: param, two averages and the maximum of one
    PART = 16384    # elements that one thread does at a time
    SHARE = 65536   # that a thread must have


cdef struct Numbers:
    double lr, weight_decay, momentum, eps, alpha, beta1, beta2, correction, shrink
    bint nesterov


cdef struct Step:
    bint is_float
    Py_ssize_t n
    const void *grad
    void *states[MAX_STATES]  # param first; NULL where there are fewer
    Numbers numbers


ctypedef void (*Loop)(const Step *step) noexcept nogil


# ----------------------------------------------------------------------------------------------------
# Loops


cdef inline real root(real x) noexcept nogil:
    if real is float:
        return sqrtf(x)
    else:
        return sqrt(x)


cdef inline real plus_decay(real grad, real param, real weight_decay) noexcept nogil:
    return grad + weight_decay * param if weight_decay != <real> 0 else grad


cdef inline real larger(real x, real y) noexcept nogil:
    """The larger of two numbers, or NaN."""
    cdef real value = x if x > y else y
    return x if x != x else value


cdef void sgd_loop(const Step *step, real *param) noexcept nogil:
    cdef const real *grad = <const real *> step.grad
    cdef real lr = <real> step.numbers.lr, decay = <real> step.numbers.weight_decay
    cdef Py_ssize_t i
    for i in range(step.n):
        param[i] -= lr * plus_decay(grad[i], param[i], decay)


cdef void momentum_loop(const Step *step, real *param) noexcept nogil:
    cdef const real *grad = <const real *> step.grad
    cdef real *velocity = <real *> step.states[1]
    cdef real lr = <real> step.numbers.lr, decay = <real> step.numbers.weight_decay
    cdef real momentum = <real> step.numbers.momentum, g, v
    cdef bint nesterov = step.numbers.nesterov
    cdef Py_ssize_t i
    for i in range(step.n):
        g = plus_decay(grad[i], param[i], decay)
        v = momentum * velocity[i] + g
        velocity[i] = v
        param[i] -= lr * (g + momentum * v if nesterov else v)


cdef void adagrad_loop(const Step *step, real *param) noexcept nogil:
    cdef const real *grad = <const real *> step.grad
    cdef real *square_sum = <real *> step.states[1]
    cdef real lr = <real> step.numbers.lr, decay = <real> step.numbers.weight_decay
    cdef real eps = <real> step.numbers.eps, g, square
    cdef Py_ssize_t i
    for i in range(step.n):
        g = plus_decay(grad[i], param[i], decay)
        square = square_sum[i] + g * g
        square_sum[i] = square
        param[i] -= lr * g / (root(square) + eps)


cdef void rmsprop_loop(const Step *step, real *param) noexcept nogil:
    cdef const real *grad = <const real *> step.grad
    cdef real *square_avg = <real *> step.states[1]
    cdef real lr = <real> step.numbers.lr, decay = <real> step.numbers.weight_decay
    cdef real alpha = <real> step.numbers.alpha, rest = <real> (1 - step.numbers.alpha)
    cdef real eps = <real> step.numbers.eps, g, square
    cdef Py_ssize_t i
    for i in range(step.n):
        g = plus_decay(grad[i], param[i], decay)
        square = alpha * square_avg[i] + rest * (g * g)
        square_avg[i] = square
        param[i] -= lr * g / (root(square) + eps)


cdef inline void adam_elements(const Step *step, real *param, bint amsgrad) noexcept nogil:
    cdef const real *grad = <const real *> step.grad
    cdef real *exp_avg = <real *> step.states[1]
    cdef real *exp_avg_sq = <real *> step.states[2]
    cdef real *maximum = <real *> step.states[3]
    cdef real lr = <real> step.numbers.lr, decay = <real> step.numbers.weight_decay
    cdef real beta1 = <real> step.numbers.beta1, rest1 = <real> (1 - step.numbers.beta1)
    cdef real beta2 = <real> step.numbers.beta2, rest2 = <real> (1 - step.numbers.beta2)
    cdef real correction = <real> step.numbers.correction, shrink = <real> step.numbers.shrink
    cdef real eps = <real> step.numbers.eps, g, average, square
    cdef Py_ssize_t i
    for i in range(step.n):
        g = plus_decay(grad[i], param[i], decay)
        average = beta1 * exp_avg[i] + rest1 * g
        exp_avg[i] = average
        square = beta2 * exp_avg_sq[i] + rest2 * (g * g)
        exp_avg_sq[i] = square
        if amsgrad:
            square = larger(square, maximum[i])
            maximum[i] = square
        param[i] = shrink * param[i] - lr * average / (correction * root(square) + eps)


cdef void adam_loop(const Step *step, real *param) noexcept nogil:
    if step.states[3] == NULL:
        adam_elements(step, param, False)
    else:
        adam_elements(step, param, True)


cdef void sgd(const Step *step) noexcept nogil:
    if step.is_float:
        sgd_loop(step, <float *> step.states[0])
    else:
        sgd_loop(step, <double *> step.states[0])


cdef void momentum_(const Step *step) noexcept nogil:
    if step.is_float:
        momentum_loop(step, <float *> step.states[0])
    else:
        momentum_loop(step, <double *> step.states[0])


cdef void adagrad(const Step *step) noexcept nogil:
    if step.is_float:
        adagrad_loop(step, <float *> step.states[0])
    else:
        adagrad_loop(step, <double *> step.states[0])


cdef void rmsprop(const Step *step) noexcept nogil:
    if step.is_float:
        rmsprop_loop(step, <float *> step.states[0])
    else:
        rmsprop_loop(step, <double *> step.states[0])


cdef void adam(const Step *step) noexcept nogil:
    if step.is_float:
        adam_loop(step, <float *> step.states[0])
    else:
        adam_loop(step, <double *> step.states[0])


# ----------------------------------------------------------------------------------------------------
# The calls: plain arguments as they are, others by way of the checks


cdef bint is_rate(object value, double *number) noexcept:
    """Whether `value` is a finite number of at least 0 that needs no look by Python; its value."""
    cdef int overflow = 0
    if PyFloat_CheckExact(value):
        number[0] = PyFloat_AS_DOUBLE(value)
    elif PyLong_CheckExact(value):
        number[0] = <double> PyLong_AsLongLongAndOverflow(value, &overflow)
    else:
        return False
    return overflow == 0 and number[0] >= 0 and number[0] - number[0] == 0


cdef inline bint is_fraction(object value, double *number) noexcept:
    return is_rate(value, number) and number[0] < 1


cdef inline bint is_bool(object value) noexcept:
    return value is True or value is False


cdef bint are_steppable(Step *step, object grad, tuple states) noexcept:
    """Whether grad and the states, param first, are plain arrays alike and apart; their pointers."""
    cdef object param = states[0], state
    cdef Py_ssize_t i, j
    if not is_plain(param) or not is_plain_of(grad, PyArray_TYPE(<cnp.ndarray> param)):
        return False
    if not same_shape(<cnp.ndarray> grad, <cnp.ndarray> param):
        return False
    for i in range(len(states)):
        state = states[i]
        if not (
            is_plain_of(state, PyArray_TYPE(<cnp.ndarray> param))
            and PyArray_ISWRITEABLE(<cnp.ndarray> state)
            and same_shape(<cnp.ndarray> state, <cnp.ndarray> param)
            and are_apart(<cnp.ndarray> state, <cnp.ndarray> grad)
        ):
            return False
        for j in range(i):
            if not are_apart(<cnp.ndarray> state, <cnp.ndarray> states[j]):
                return False
    point(step, grad, states)
    return True


cdef void point(Step *step, object grad, tuple states) noexcept:
    """The pointers of plain arrays."""
    cdef Py_ssize_t i
    step.is_float = PyArray_TYPE(<cnp.ndarray> grad) == cnp.NPY_FLOAT32
    step.n = PyArray_SIZE(<cnp.ndarray> grad)
    step.grad = PyArray_DATA(<cnp.ndarray> grad)
    for i in range(MAX_STATES):
        step.states[i] = PyArray_DATA(<cnp.ndarray> states[i]) if i < len(states) else NULL


cdef struct Job:
    Loop loop
    const Step *step


cdef int perform_part(void *context, Py_ssize_t part) noexcept nogil:
    cdef const Job *job = <const Job *> context
    cdef Step step = job.step[0]
    cdef Py_ssize_t first = part * PART, itemsize = sizeof(float) if step.is_float else sizeof(double)
    cdef int i
    step.n = min(step.n - first, PART)
    step.grad = <const char *> step.grad + first * itemsize
    for i in range(MAX_STATES):
        if step.states[i] != NULL:
            step.states[i] = <char *> step.states[i] + first * itemsize
    job.loop(&step)
    return 0


cdef inline object perform(Loop loop, const Step *step, object updated):
    """The step, without the GIL where that pays; then what was copied goes back. Ctrl-C never leaves half a step."""
    cdef Job job = Job(loop, step)
    if step.n < GIL_ELEMENTS:
        loop(step)
    else:
        with nogil:
            run_to_end(perform_part, &job, (step.n + PART - 1) // PART, team(step.n, SHARE))
    if updated is not None:
        updated.deliver()


def sgd_step(param, grad, *, lr, weight_decay=0):
    cdef Step step
    cdef Numbers *numbers = &step.numbers
    cdef object updated = None
    if not (
        is_rate(lr, &numbers.lr)
        and is_rate(weight_decay, &numbers.weight_decay)
        and are_steppable(&step, grad, (param,))
    ):
        grad, updated, numbers.lr, numbers.weight_decay = checks.sgd_step(param, grad, lr, weight_decay)
        point(&step, grad, tuple(updated.arrays))
    perform(sgd, &step, updated)


def momentum_step(param, grad, velocity, *, lr, momentum=0.9, nesterov=False, weight_decay=0):
    cdef Step step
    cdef Numbers *numbers = &step.numbers
    cdef object updated = None
    numbers.nesterov = nesterov is True
    if not (
        is_rate(lr, &numbers.lr)
        and is_rate(momentum, &numbers.momentum)
        and is_bool(nesterov)
        and is_rate(weight_decay, &numbers.weight_decay)
        and are_steppable(&step, grad, (param, velocity))
    ):
        grad, updated, numbers.lr, numbers.momentum, numbers.nesterov, numbers.weight_decay = checks.momentum_step(
            param, grad, velocity, lr, momentum, nesterov, weight_decay
        )
        point(&step, grad, tuple(updated.arrays))
    perform(momentum_, &step, updated)


def adagrad_step(param, grad, square_sum, *, lr, eps=1e-10, weight_decay=0):
    cdef Step step
    cdef Numbers *numbers = &step.numbers
    cdef object updated = None
    if not (
        is_rate(lr, &numbers.lr)
        and is_rate(eps, &numbers.eps)
        and is_rate(weight_decay, &numbers.weight_decay)
        and are_steppable(&step, grad, (param, square_sum))
    ):
        grad, updated, numbers.lr, numbers.eps, numbers.weight_decay = checks.adagrad_step(
            param, grad, square_sum, lr, eps, weight_decay
        )
        point(&step, grad, tuple(updated.arrays))
    perform(adagrad, &step, updated)


def rmsprop_step(param, grad, square_avg, *, lr, alpha=0.99, eps=1e-8, weight_decay=0):
    cdef Step step
    cdef Numbers *numbers = &step.numbers
    cdef object updated = None
    if not (
        is_rate(lr, &numbers.lr)
        and is_fraction(alpha, &numbers.alpha)
        and is_rate(eps, &numbers.eps)
        and is_rate(weight_decay, &numbers.weight_decay)
        and are_steppable(&step, grad, (param, square_avg))
    ):
        grad, updated, numbers.lr, numbers.alpha, numbers.eps, numbers.weight_decay = checks.rmsprop_step(
            param, grad, square_avg, lr, alpha, eps, weight_decay
        )
        point(&step, grad, tuple(updated.arrays))
    perform(rmsprop, &step, updated)


cdef bint is_count(object step, double *count) noexcept:
    """Whether `step` is an int of at least 1 that needs no look by Python; its value."""
    cdef int overflow = 0
    if not PyLong_CheckExact(step):
        return False
    count[0] = <double> PyLong_AsLongLongAndOverflow(step, &overflow)
    return overflow == 0 and count[0] >= 1


cdef void correct_bias(Numbers *numbers, double count, bint decoupled) noexcept:
    """The numbers of the loop from those of the call."""
    if decoupled:
        numbers.shrink = 1 - numbers.lr * numbers.weight_decay
        numbers.weight_decay = 0
    numbers.lr /= 1 - pow(numbers.beta1, count)
    numbers.correction = 1 / sqrt(1 - pow(numbers.beta2, count))


def adam_step(
    param,
    grad,
    exp_avg,
    exp_avg_sq,
    max_exp_avg_sq=None,
    *,
    step,
    lr,
    beta1=0.9,
    beta2=0.999,
    eps=1e-8,
    weight_decay=0,
    decoupled=False,
):
    cdef Step task
    cdef Numbers *numbers = &task.numbers
    cdef object updated = None
    cdef double count
    cdef tuple states = (param, exp_avg, exp_avg_sq)
    if max_exp_avg_sq is not None:
        states = (param, exp_avg, exp_avg_sq, max_exp_avg_sq)
    numbers.shrink = 1
    if (
        is_count(step, &count)
        and is_rate(lr, &numbers.lr)
        and is_fraction(beta1, &numbers.beta1)
        and is_fraction(beta2, &numbers.beta2)
        and is_rate(eps, &numbers.eps)
        and is_rate(weight_decay, &numbers.weight_decay)
        and is_bool(decoupled)
        and are_steppable(&task, grad, states)
    ):
        correct_bias(numbers, count, decoupled is True)
    else:
        grad, updated, checked = checks.adam_step(
            param, grad, exp_avg, exp_avg_sq, max_exp_avg_sq, step, lr, beta1, beta2, eps, weight_decay, decoupled
        )
        numbers.beta1, numbers.beta2, numbers.lr, numbers.correction = checked[:4]
        numbers.eps, numbers.weight_decay, numbers.shrink = checked[4:]
        point(&task, grad, tuple(updated.arrays))
    perform(adam, &task, updated)
