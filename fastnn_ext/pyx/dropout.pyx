"""Dropout, compiled; see `fastnn/dropout.py` for what each function is.

A word depends on its number alone, so any part of an array can be done by any thread.
"""

cimport numpy as cnp
from common cimport (
    GIL_ELEMENTS, PyArray_DATA, PyArray_SIZE, PyArray_TYPE, empty_like, is_plain, is_safe_out,
)
from cpython.float cimport PyFloat_AS_DOUBLE, PyFloat_CheckExact
from cpython.long cimport PyLong_AsLongLongAndOverflow, PyLong_CheckExact
from libc.math cimport ceil
from libc.stdint cimport int64_t, uint64_t
from pool cimport join_pool, raise_if, run, team

from fastnn_ext.checks import dropout as checks

cnp.import_array()
join_pool()

cdef extern from "engine/random.h" nogil:
    uint64_t WORD_STEP "FNN_WORD_STEP"
    uint64_t state_of "fnn_state_of"(uint64_t seed)
    void drop_f32 "fnn_drop_f32"(
        const float *x, float *y, Py_ssize_t n, uint64_t state, int64_t threshold, float scale
    )
    void drop_f64 "fnn_drop_f64"(
        const double *x, double *y, Py_ssize_t n, uint64_t state, int64_t threshold, double scale
    )

cdef enum:
    PART = 32768    # elements that one thread does at a time
    SHARE = 131072  # that a thread must have


cdef struct Task:
    const void *x
    void *y
    Py_ssize_t n
    uint64_t state
    int64_t threshold
    double scale


cdef int drop_part_f32(void *context, Py_ssize_t part) noexcept nogil:
    cdef const Task *task = <const Task *> context
    cdef Py_ssize_t first = part * PART
    drop_f32(
        <const float *> task.x + first, <float *> task.y + first, min(task.n - first, <Py_ssize_t> PART),
        task.state + <uint64_t> first * WORD_STEP, task.threshold, <float> task.scale,
    )
    return 0


cdef int drop_part_f64(void *context, Py_ssize_t part) noexcept nogil:
    cdef const Task *task = <const Task *> context
    cdef Py_ssize_t first = part * PART
    drop_f64(
        <const double *> task.x + first, <double *> task.y + first, min(task.n - first, <Py_ssize_t> PART),
        task.state + <uint64_t> first * WORD_STEP, task.threshold, task.scale,
    )
    return 0


cdef inline bint is_word(object value, uint64_t *word) noexcept:
    """Whether `value` is an int that needs no look by Python; its value."""
    cdef int overflow = 0
    cdef long long number
    if not PyLong_CheckExact(value):
        return False
    number = PyLong_AsLongLongAndOverflow(value, &overflow)
    word[0] = <uint64_t> number
    return overflow == 0 and number >= 0


cdef inline bint is_chance(object value, double *p) noexcept:
    if not PyFloat_CheckExact(value):
        return False
    p[0] = PyFloat_AS_DOUBLE(value)
    return p[0] >= 0 and p[0] <= 1


cdef object drop(str name, str argument, object x, object p, object seed, object offset, object out):
    cdef object output = None
    cdef cnp.ndarray y
    cdef Task task
    cdef uint64_t first = 0, start = 0
    cdef double chance = 0
    cdef int failed
    cdef bint fast = (
        is_plain(x) and is_chance(p, &chance) and is_word(seed, &start) and is_word(offset, &first)
    )
    if fast and out is None:
        y = empty_like(<cnp.ndarray> x)
    elif fast and is_safe_out(out, <cnp.ndarray> x):
        y = <cnp.ndarray> out
    else:
        x, chance, start, first, output = checks.dropout(name, p, seed, offset, out, **{argument: x})
        y = <cnp.ndarray?> output.array
    task.x, task.y, task.n = PyArray_DATA(<cnp.ndarray?> x), PyArray_DATA(y), PyArray_SIZE(y)
    task.state = state_of(start) + first * WORD_STEP
    task.threshold = <int64_t> ceil(chance * <double> (<int64_t> 1 << 53))
    task.scale = 1 / (1 - chance) if chance < 1 else 1
    cdef bint single = PyArray_TYPE(y) == cnp.NPY_FLOAT32
    cdef Py_ssize_t parts = (task.n + PART - 1) // PART
    if task.n < GIL_ELEMENTS:
        failed = run(drop_part_f32 if single else drop_part_f64, &task, parts, 1)
    else:
        with nogil:
            failed = run(drop_part_f32 if single else drop_part_f64, &task, parts, team(task.n, SHARE))
    raise_if(failed, name)
    return y if output is None else output.deliver()


def dropout(x, *, p=0.5, seed, offset=0, out=None):
    return drop("dropout", "x", x, p, seed, offset, out)


def dropout_backward(grad_out, *, p=0.5, seed, offset=0, out=None):
    return drop("dropout_backward", "grad_out", grad_out, p, seed, offset, out)
