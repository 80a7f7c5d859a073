"""Normalisations, compiled; see `fastnn/norm.py` for what each function is.

Statistics are sums in double, piece by piece with compensation; of a row of floats they are sums of deviations from
some number near the mean, of which a few at a time are added as floats. Elements are centred by a mean of two parts,
the nearest number of their type and what that lacks, so that a large mean costs no digits.
"""

cimport numpy as cnp
from common cimport (
    GIL_ELEMENTS, PyArray_DATA, PyArray_DIM, PyArray_EMPTY, PyArray_ISWRITEABLE, PyArray_NDIM, PyArray_SIZE,
    PyArray_TYPE, are_apart, data_of, empty_like, has_shape, is_plain, is_plain_of, read_bools, real, same_shape,
)
from cpython.float cimport PyFloat_AS_DOUBLE, PyFloat_CheckExact
from libc.math cimport sqrt
from libc.string cimport memset
from pool cimport NO_MEMORY, join_pool, look, raise_if, run, team
from reduce cimport accumulate, sum_of, sum_of_squares, sums_of_deviations, sums_of_products

from fastnn_ext.checks import norm as checks

cdef extern from "engine/arena.h" nogil:
    enum:
        SUMS "FNN_SLOT_USER"
    void *fnn_workspace(int slot, size_t bytes)

cdef extern from "engine/simd.h" nogil:
    void prefetch "FNN_PREFETCH"(const void *address)

cnp.import_array()
join_pool()

cdef enum:
    PIECE = 2048        # numbers that are added without compensation; they stay in the first-level cache
    AHEAD = 256         # numbers after which as many of the next row are asked for
    LINE = 64           # bytes of a line of the caches
    COLUMNS = 512       # columns side by side
    BLOCK_ROWS = 64     # of columns that are added without compensation
    TOGETHER = 128      # channels that are taken together, at most
    FEW_PLACES = 64     # of a channel, below which places of several channels are taken side by side
    PART = 32768        # elements that one thread does at a time
    SHARE = 131072      # that a thread must have
    PARTS = 16          # of the rows, each with sums over its own rows, at most
    ROWS_OF_PART = 16   # at least
    FEW_ROWS = 16       # whose terms are added in the type of x before they are made double
    WIDE = PARTS * PIECE  # columns above which their sums are taken piece by piece, when all rows are done


# ----------------------------------------------------------------------------------------------------
# Sums of many pieces, and the formulas of an element


cdef double total_of(const real *x, Py_ssize_t n) noexcept nogil:
    cdef double total = 0, excess = 0
    cdef Py_ssize_t start = 0
    if n <= PIECE:
        return sum_of(x, n)
    while start < n:
        accumulate(&total, &excess, sum_of(x + start, min(n - start, <Py_ssize_t> PIECE)))
        start += PIECE
    return total


cdef double squares_of(const real *x, Py_ssize_t n, double center) noexcept nogil:
    cdef double total = 0, excess = 0
    cdef Py_ssize_t start = 0
    if n <= PIECE:
        return sum_of_squares(x, n, center)
    while start < n:
        accumulate(&total, &excess, sum_of_squares(x + start, min(n - start, <Py_ssize_t> PIECE), center))
        start += PIECE
    return total


cdef inline void ask_for(const real *x, Py_ssize_t n) noexcept nogil:
    """What is needed soon is brought to the cache; nothing happens where there is no memory."""
    cdef Py_ssize_t i
    for i from 0 <= i < n by LINE // sizeof(real):
        prefetch(x + i)


cdef inline void normalise(
    const real *x, real *y, Py_ssize_t n, real mean, real rest, real scale, real shift
) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        y[i] = ((x[i] - mean) - rest) * scale + shift


cdef inline void propagate(
    const real *g, const real *x, real *grad, Py_ssize_t n, real mean, real rest, real mean_g, real slope, real scale
) noexcept nogil:
    """The gradient of x from that of the normalised x, less what the statistics take away."""
    cdef Py_ssize_t i
    for i in range(n):
        grad[i] = (g[i] - mean_g - ((x[i] - mean) - rest) * slope) * scale


cdef inline void multiply(const real *a, const real *b, real *product, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        product[i] = a[i] * b[i]


# ----------------------------------------------------------------------------------------------------
# Rows


cdef struct Statistics:
    double mean, inv_std


cdef struct Rows:
    const void *g
    const void *x
    const void *weight
    const void *bias
    void *y                  # or the gradient of x
    # for the gradients of weight and bias, or NULL:
    double *sums             # of each part, two for each column: of grad_out * normalised x, and of grad_out
    Statistics *statistics   # of each row, where the columns come later
    void *grad_weight
    void *grad_bias
    Py_ssize_t rows, length, parts
    double eps


cdef inline bint float_moments_of(const float *x, Py_ssize_t n, double *mean, double *variance) noexcept nogil:
    """Mean and variance from deviations from a guess; whether the guess was near and the squares are in range."""
    cdef float guess = (x[0] + x[n // 4] + x[n // 2] + x[n - 1]) / 4
    cdef double sum, squares, difference, share = 1 / <double> n
    sums_of_deviations(x, n, guess, &sum, &squares)
    difference = sum * share
    mean[0] = guess + difference
    variance[0] = squares * share - difference * difference
    return variance[0] > 1e-20 and variance[0] < 1e30 and difference * difference <= 2 * variance[0]


cdef inline Statistics statistics_of(const real *x, Py_ssize_t length, double eps) noexcept nogil:
    cdef double mean, variance
    if real is float:
        if float_moments_of(x, length, &mean, &variance):
            return Statistics(mean, 1 / sqrt(variance + eps))
    mean = total_of(x, length) / length
    return Statistics(mean, 1 / sqrt(squares_of(x, length, mean) / length + eps))


cdef inline void normalise_row(
    const real *x, const real *weight, const real *bias, real *y, Py_ssize_t n, real mean, real rest, real scale
) noexcept nogil:
    cdef Py_ssize_t i
    if weight != NULL and bias != NULL:
        for i in range(n):
            y[i] = ((x[i] - mean) - rest) * (scale * weight[i]) + bias[i]
    elif weight != NULL:
        for i in range(n):
            y[i] = ((x[i] - mean) - rest) * (scale * weight[i])
    elif bias != NULL:
        for i in range(n):
            y[i] = ((x[i] - mean) - rest) * scale + bias[i]
    else:
        normalise(x, y, n, mean, rest, scale, <real> 0)


cdef int normalise_rows(const Rows *task, Py_ssize_t part, real *y) noexcept nogil:
    cdef const real *x = <const real *> task.x
    cdef const real *weight = <const real *> task.weight
    cdef const real *bias = <const real *> task.bias
    cdef Py_ssize_t row, start, n, at
    cdef Statistics s
    cdef double done = 0
    cdef int stop
    for row in range(part * task.rows // task.parts, (part + 1) * task.rows // task.parts):
        s = statistics_of(x + row * task.length, task.length, task.eps)
        for start from 0 <= start < task.length by AHEAD:
            n = min(task.length - start, <Py_ssize_t> AHEAD)
            at = row * task.length + start
            ask_for(x + at + task.length, n)
            normalise_row(
                x + at, weight + start if weight != NULL else weight, bias + start if bias != NULL else bias, y + at, n,
                <real> s.mean, <real> (s.mean - <real> s.mean), <real> s.inv_std,
            )
        stop = look(task.length, &done)
        if stop:
            return stop
    return 0


cdef int normalise_rows_f32(void *task, Py_ssize_t part) noexcept nogil:
    return normalise_rows[float](<const Rows *> task, part, <float *> (<const Rows *> task).y)


cdef int normalise_rows_f64(void *task, Py_ssize_t part) noexcept nogil:
    return normalise_rows[double](<const Rows *> task, part, <double *> (<const Rows *> task).y)


cdef void propagate_row(
    const Rows *task, const real *g, const real *x, const real *weight, real *grad, Statistics s
) noexcept nogil:
    """The gradient of a row of x; grad_out * weight stands in a buffer, piece by piece."""
    cdef real buffer[PIECE]
    cdef double sum = 0, product = 0, excess = 0, product_excess = 0, part, product_part
    cdef double share = 1 / <double> task.length
    cdef real mean = <real> s.mean, rest = <real> (s.mean - <real> s.mean), mean_g, slope
    cdef const real *gradient
    cdef Py_ssize_t start = 0, n, i, at_once
    while start < task.length:
        n = min(task.length - start, <Py_ssize_t> PIECE)
        gradient = g + start
        if weight != NULL:
            multiply(gradient, weight + start, buffer, n)
            gradient = buffer
        sums_of_products(gradient, x + start, n, mean, rest, &part, &product_part)
        accumulate(&sum, &excess, part)
        accumulate(&product, &product_excess, product_part)
        start += n
    mean_g = <real> (sum * share)
    slope = <real> (s.inv_std * s.inv_std * (product * share))
    start = 0
    while start < task.length:
        n = min(task.length - start, <Py_ssize_t> PIECE)
        gradient = g + start
        if weight != NULL:
            if task.length > PIECE:
                multiply(gradient, weight + start, buffer, n)
            gradient = buffer
        for i from 0 <= i < n by AHEAD:
            at_once = min(n - i, <Py_ssize_t> AHEAD)
            ask_for(x + 2 * task.length + start + i, at_once)  # since two rows are taken together
            ask_for(g + 2 * task.length + start + i, at_once)
            propagate(
                gradient + i, x + start + i, grad + start + i, at_once, mean, rest, mean_g, slope, <real> s.inv_std
            )
        start += n


cdef inline void add_row(
    const real *g, const real *x, real *weight_sums, real *bias_sums, Py_ssize_t n, const Statistics *s
) noexcept nogil:
    cdef real mean = <real> s.mean, rest = <real> (s.mean - <real> s.mean), scale = <real> s.inv_std
    cdef Py_ssize_t i
    for i in range(n):
        weight_sums[i] += g[i] * (((x[i] - mean) - rest) * scale)
        bias_sums[i] += g[i]


cdef inline void add_two_rows(
    const real *g, const real *x, Py_ssize_t stride, real *weight_sums, real *bias_sums, Py_ssize_t n,
    const Statistics *s,
) noexcept nogil:
    """The same for two rows, since the sums take longer to load and store than to add to."""
    cdef real mean = <real> s[0].mean, rest = <real> (s[0].mean - <real> s[0].mean), scale = <real> s[0].inv_std
    cdef real mean1 = <real> s[1].mean, rest1 = <real> (s[1].mean - <real> s[1].mean), scale1 = <real> s[1].inv_std
    cdef const real *g1 = g + stride
    cdef const real *x1 = x + stride
    cdef Py_ssize_t i
    for i in range(n):
        weight_sums[i] += g[i] * (((x[i] - mean) - rest) * scale) + g1[i] * (((x1[i] - mean1) - rest1) * scale1)
        bias_sums[i] += g[i] + g1[i]


cdef struct ColumnSums:
    # two for each of n columns, of grad_out * normalised x and of grad_out; the terms of some rows stand in `recent`
    double *sums
    void *recent
    Py_ssize_t n, rows


cdef inline void open_columns(ColumnSums *columns, const real *like) noexcept nogil:
    memset(columns.sums, 0, 2 * columns.n * sizeof(double))
    memset(columns.recent, 0, 2 * columns.n * sizeof(real))


cdef inline void settle_recent(ColumnSums *columns, const real *like) noexcept nogil:
    cdef real *recent = <real *> columns.recent
    cdef double *sums = columns.sums
    cdef Py_ssize_t i
    for i in range(2 * columns.n):
        sums[i] += recent[i]
        recent[i] = 0


cdef inline void add_rows(
    ColumnSums *columns, const real *g, const real *x, Py_ssize_t stride, const Statistics *s, Py_ssize_t rows
) noexcept nogil:
    """One row or two."""
    cdef real *recent = <real *> columns.recent
    if rows == 2:
        add_two_rows(g, x, stride, recent, recent + columns.n, columns.n, s)
    else:
        add_row(g, x, recent, recent + columns.n, columns.n, s)
    columns.rows += rows
    if columns.rows % FEW_ROWS == 0:
        settle_recent(columns, g)


cdef int propagate_rows(const Rows *task, Py_ssize_t part, real *grad) noexcept nogil:
    cdef const real *g = <const real *> task.g
    cdef const real *x = <const real *> task.x
    cdef Py_ssize_t row = part * task.rows // task.parts, end = (part + 1) * task.rows // task.parts
    cdef Py_ssize_t first, rows, i
    cdef Statistics s[2]
    cdef ColumnSums columns = ColumnSums(NULL, NULL, task.length, 0)
    cdef double done = 0
    cdef int stop
    if task.sums != NULL:
        columns.sums = task.sums + 2 * part * task.length
        columns.recent = task.sums + 2 * (task.parts + part) * task.length
        open_columns(&columns, x)
    while row < end:
        rows = min(end - row, <Py_ssize_t> 2)
        for i in range(rows):
            first = (row + i) * task.length
            s[i] = statistics_of(x + first, task.length, task.eps)
            if task.statistics != NULL:
                task.statistics[row + i] = s[i]
        for i in range(rows if grad != NULL else 0):
            first = (row + i) * task.length
            propagate_row(task, g + first, x + first, <const real *> task.weight, grad + first, s[i])
        first = row * task.length
        if task.sums != NULL:
            add_rows(&columns, g + first, x + first, task.length, s, rows)
        row += rows
        stop = look(<double> rows * task.length, &done)
        if stop:
            return stop
    if task.sums != NULL:
        settle_recent(&columns, x)
    return 0


cdef int propagate_rows_f32(void *task, Py_ssize_t part) noexcept nogil:
    return propagate_rows[float](<const Rows *> task, part, <float *> (<const Rows *> task).y)


cdef int propagate_rows_f64(void *task, Py_ssize_t part) noexcept nogil:
    return propagate_rows[double](<const Rows *> task, part, <double *> (<const Rows *> task).y)


cdef inline void add_parts(
    const double *sums, Py_ssize_t parts, Py_ssize_t stride, Py_ssize_t n, real *result
) noexcept nogil:
    """The sums of all parts, in their order."""
    cdef double total
    cdef Py_ssize_t i, part
    for i in range(n):
        total = 0
        for part in range(parts):
            total += sums[part * stride + i]
        result[i] = <real> total


cdef inline void give_columns(
    const Rows *task, const double *sums, Py_ssize_t parts, Py_ssize_t first, Py_ssize_t n, const real *like
) noexcept nogil:
    """The gradients of weight and bias from column `first` on, where they are wanted."""
    if task.grad_weight != NULL:
        add_parts(sums, parts, 2 * n, n, <real *> task.grad_weight + first)
    if task.grad_bias != NULL:
        add_parts(sums + n, parts, 2 * n, n, <real *> task.grad_bias + first)


cdef int sum_strip(const Rows *task, Py_ssize_t strip, const real *x) noexcept nogil:
    """The sums of some columns, whose rows have their statistics."""
    cdef double[2 * PIECE] sums
    cdef real[2 * PIECE] recent
    cdef const real *g = <const real *> task.g
    cdef Py_ssize_t first = strip * PIECE, row = 0, rows, at
    cdef ColumnSums columns = ColumnSums(&sums[0], &recent[0], min(task.length - first, <Py_ssize_t> PIECE), 0)
    cdef double done = 0
    cdef int stop
    open_columns(&columns, x)
    while row < task.rows:
        rows = min(task.rows - row, <Py_ssize_t> 2)
        at = row * task.length + first
        add_rows(&columns, g + at, x + at, task.length, task.statistics + row, rows)
        row += rows
        stop = look(<double> rows * columns.n, &done)
        if stop:
            return stop
    settle_recent(&columns, x)
    give_columns(task, &sums[0], 1, first, columns.n, x)
    return 0


cdef int sum_strip_f32(void *task, Py_ssize_t strip) noexcept nogil:
    return sum_strip[float](<const Rows *> task, strip, <const float *> (<const Rows *> task).x)


cdef int sum_strip_f64(void *task, Py_ssize_t strip) noexcept nogil:
    return sum_strip[double](<const Rows *> task, strip, <const double *> (<const Rows *> task).x)


cdef int run_rows(Rows *task, bint single) noexcept nogil:
    cdef Py_ssize_t n = task.rows * task.length
    task.parts = min(task.rows, n // PART + 1)
    if task.g == NULL:
        return run(normalise_rows_f32 if single else normalise_rows_f64, task, task.parts, team(n, SHARE))
    return run(propagate_rows_f32 if single else propagate_rows_f64, task, task.parts, team(n, SHARE))


cdef int run_wide_rows(Rows *task, bint single) noexcept nogil:
    """With the sums of columns, which are so many that those of each part would take too much memory."""
    cdef Py_ssize_t n = task.rows * task.length, strips = (task.length + PIECE - 1) // PIECE
    cdef int failed
    task.statistics = <Statistics *> fnn_workspace(SUMS, task.rows * sizeof(Statistics))
    if task.statistics == NULL:
        return NO_MEMORY
    failed = run_rows(task, single)
    return failed if failed else run(sum_strip_f32 if single else sum_strip_f64, task, strips, team(n, SHARE))


cdef int run_rows_with_sums(Rows *task, bint single) noexcept nogil:
    """The parts, and so the order of adding, follow from the sizes alone."""
    cdef Py_ssize_t n = task.rows * task.length
    cdef int failed
    if task.length > WIDE:
        return run_wide_rows(task, single)
    task.parts = max(min(task.rows // ROWS_OF_PART, <Py_ssize_t> PARTS, 2 * WIDE // task.length), <Py_ssize_t> 1)
    task.sums = <double *> fnn_workspace(SUMS, 4 * task.parts * task.length * sizeof(double))
    if task.sums == NULL:
        return NO_MEMORY
    failed = run(propagate_rows_f32 if single else propagate_rows_f64, task, task.parts, team(n, SHARE))
    if not failed and single:
        give_columns(task, task.sums, task.parts, 0, task.length, <const float *> task.x)
    elif not failed:
        give_columns(task, task.sums, task.parts, 0, task.length, <const double *> task.x)
    return failed


cdef inline void measure_rows(Rows *task, cnp.ndarray x) noexcept:
    cdef int axis
    task.length = PyArray_DIM(x, PyArray_NDIM(x) - 1)
    task.rows = 1
    for axis in range(PyArray_NDIM(x) - 1):
        task.rows *= PyArray_DIM(x, axis)


cdef inline bint is_parameter(object parameter, cnp.ndarray x, int axis) noexcept:
    """Whether `parameter` is a plain array of x's type with one number for each place along the axis."""
    cdef cnp.npy_intp length = PyArray_DIM(x, axis)
    return is_plain_of(parameter, PyArray_TYPE(x)) and has_shape(<cnp.ndarray> parameter, 1, &length)


cdef inline bint is_separate_out(object out, cnp.ndarray x) noexcept:
    return (
        is_plain_of(out, PyArray_TYPE(x))
        and PyArray_ISWRITEABLE(<cnp.ndarray> out)
        and same_shape(<cnp.ndarray> out, x)
        and are_apart(<cnp.ndarray> out, x)
    )


cdef inline bint is_non_negative(object value, double *number) noexcept:
    """Whether `value` is a float that is finite and not negative, which needs no look by Python; its value."""
    if not PyFloat_CheckExact(value):
        return False
    number[0] = PyFloat_AS_DOUBLE(value)
    return number[0] >= 0 and number[0] - number[0] == 0


def layer_norm(x, weight=None, bias=None, *, eps=1e-5, out=None):
    cdef object output = None
    cdef cnp.ndarray y
    cdef Rows task
    cdef int failed
    cdef bint fast = is_plain(x) and PyArray_NDIM(<cnp.ndarray> x) > 0 and is_non_negative(eps, &task.eps)
    if fast:
        fast = (weight is None or is_parameter(weight, <cnp.ndarray> x, PyArray_NDIM(<cnp.ndarray> x) - 1)) and (
            bias is None or is_parameter(bias, <cnp.ndarray> x, PyArray_NDIM(<cnp.ndarray> x) - 1)
        )
    if fast and out is None:
        y = empty_like(<cnp.ndarray> x)
    elif (
        fast
        and is_separate_out(out, <cnp.ndarray> x)
        and (weight is None or are_apart(<cnp.ndarray> out, <cnp.ndarray> weight))
        and (bias is None or are_apart(<cnp.ndarray> out, <cnp.ndarray> bias))
    ):
        y = <cnp.ndarray> out
    else:
        x, weight, bias, task.eps, output = checks.layer_norm(x, weight, bias, eps, out)
        y = <cnp.ndarray?> output.array
    measure_rows(&task, <cnp.ndarray?> x)
    task.g, task.x, task.weight, task.bias, task.y = NULL, data_of(x), data_of(weight), data_of(bias), PyArray_DATA(y)
    task.sums, task.statistics = NULL, NULL
    cdef bint single = PyArray_TYPE(y) == cnp.NPY_FLOAT32
    if PyArray_SIZE(y) < GIL_ELEMENTS:
        failed = run_rows(&task, single) if task.length else 0
    else:
        with nogil:
            failed = run_rows(&task, single)
    raise_if(failed, "layer_norm")
    return y if output is None else output.deliver()


cdef inline cnp.ndarray empty_parameter(cnp.ndarray x, int axis):
    cdef cnp.npy_intp length = PyArray_DIM(x, axis)
    return PyArray_EMPTY(1, &length, PyArray_TYPE(x), 0)


def layer_norm_backward(grad_out, x, weight=None, *, eps=1e-5, needs=(True, True, True)):
    cdef tuple outputs = None
    cdef object grad_x = None, grad_weight = None, grad_bias = None
    cdef bint needed[3]
    cdef Rows task
    cdef int last
    cdef bint fast = (
        is_plain(x)
        and PyArray_NDIM(<cnp.ndarray> x) > 0
        and is_plain_of(grad_out, PyArray_TYPE(<cnp.ndarray> x))
        and same_shape(<cnp.ndarray> grad_out, <cnp.ndarray> x)
        and (weight is None or is_parameter(weight, <cnp.ndarray> x, PyArray_NDIM(<cnp.ndarray> x) - 1))
        and is_non_negative(eps, &task.eps)
        and read_bools(needs, 3, needed)
    )
    if fast:
        last = PyArray_NDIM(<cnp.ndarray> x) - 1
        grad_x = empty_like(<cnp.ndarray> x) if needed[0] else None
        grad_weight = empty_parameter(<cnp.ndarray> x, last) if needed[1] else None
        grad_bias = empty_parameter(<cnp.ndarray> x, last) if needed[2] else None
    else:
        grad_out, x, weight, task.eps, outputs = checks.layer_norm_backward(grad_out, x, weight, eps, needs)
        grad_x, grad_weight, grad_bias = [None if one is None else one.array for one in outputs]
    measure_rows(&task, <cnp.ndarray?> x)
    task.g, task.x, task.weight, task.y = data_of(grad_out), data_of(x), data_of(weight), data_of(grad_x)
    task.bias, task.sums, task.statistics = NULL, NULL, NULL
    task.grad_weight, task.grad_bias = data_of(grad_weight), data_of(grad_bias)
    cdef bint single = PyArray_TYPE(<cnp.ndarray> x) == cnp.NPY_FLOAT32
    cdef int failed = 0
    with nogil:
        if task.length == 0:
            pass
        elif task.grad_weight != NULL or task.grad_bias != NULL:
            failed = run_rows_with_sums(&task, single)
        elif task.y != NULL:
            failed = run_rows(&task, single)
    raise_if(failed, "layer_norm_backward")
    if outputs is None:
        return grad_x, grad_weight, grad_bias
    return tuple([None if one is None else one.deliver() for one in outputs])


# ----------------------------------------------------------------------------------------------------
# Channels: x[samples, channels, places]. With many places a channel is taken plane by plane. With few, neighbouring
# channels are taken together, as columns of a matrix whose rows are samples.


cdef struct Channels:
    const void *g
    const void *x
    const void *weight
    const void *bias
    void *y               # or the gradient of x
    void *running_mean    # or, for the backward, the mean that the forward used
    void *running_var     # and 1 / std
    void *mean            # what the forward returns, or the gradients of weight and bias; NULL where not wanted
    void *inv_std
    Py_ssize_t samples, channels, places
    Py_ssize_t group      # channels that one thread does at a time
    double momentum, eps
    bint training


cdef inline double settle(
    const Channels *task, Py_ssize_t channel, double mean, double variance, real *running_mean
) noexcept nogil:
    """The inverse standard deviation; the statistics go where they are wanted."""
    cdef real *running_var = <real *> task.running_var
    cdef double count = <double> task.samples * task.places, inv_std = 1 / sqrt(variance + task.eps)
    cdef double old = 1 - task.momentum
    if task.training:
        running_mean[channel] = <real> (old * running_mean[channel] + task.momentum * mean)
        running_var[channel] = <real> (
            old * running_var[channel] + task.momentum * (variance * (count / (count - 1)))
        )
    if task.mean != NULL:
        (<real *> task.mean)[channel] = <real> mean
        (<real *> task.inv_std)[channel] = <real> inv_std
    return inv_std


cdef int normalise_channel(const Channels *task, Py_ssize_t channel, real *running_mean) noexcept nogil:
    cdef Py_ssize_t places = task.places, step = task.channels * places, sample
    cdef const real *x = <const real *> task.x + channel * places
    cdef real *y = <real *> task.y + channel * places
    cdef double mean = running_mean[channel], variance = (<real *> task.running_var)[channel]
    cdef double excess = 0, count = <double> task.samples * places
    cdef real scale, shift = (<const real *> task.bias)[channel], rest = 0
    cdef double done = 0
    cdef int stop
    if task.training:
        mean = variance = 0
        for sample in range(task.samples):
            accumulate(&mean, &excess, total_of(x + sample * step, places))
        mean /= count
        excess = 0
        for sample in range(task.samples):
            accumulate(&variance, &excess, squares_of(x + sample * step, places, mean))
        variance /= count
        rest = <real> (mean - <real> mean)
    scale = <real> (settle(task, channel, mean, variance, running_mean) * (<const real *> task.weight)[channel])
    for sample in range(task.samples):
        normalise(x + sample * step, y + sample * step, places, <real> mean, rest, scale, shift)
        stop = look(places, &done)
        if stop:
            return stop
    return 0


cdef struct Columns:
    # sums of columns, of whose rows some stand in `part` still
    double part[COLUMNS]
    double total[COLUMNS]
    double excess[COLUMNS]
    Py_ssize_t n, count


cdef inline void clear(Columns *columns, Py_ssize_t n) noexcept nogil:
    memset(columns, 0, sizeof(Columns))
    columns.n = n


cdef inline void end_block(Columns *columns) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(columns.n):
        accumulate(&columns.total[i], &columns.excess[i], columns.part[i])
        columns.part[i] = 0


cdef inline void end_row(Columns *columns) noexcept nogil:
    columns.count += 1
    if columns.count % BLOCK_ROWS == 0:
        end_block(columns)


cdef inline void add_squares(const real *x, const double *mean, Columns *columns, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        columns.part[i] += (x[i] - mean[i]) * (x[i] - mean[i])
    end_row(columns)


cdef inline void add_columns(const real *x, Columns *columns, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        columns.part[i] += x[i]
    end_row(columns)


cdef inline double gather(const double *columns, Py_ssize_t places) noexcept nogil:
    """The sum of a channel's columns."""
    cdef double total = 0
    cdef Py_ssize_t i
    for i in range(places):
        total += columns[i]
    return total


cdef int normalise_columns(
    const Channels *task, Py_ssize_t first, Py_ssize_t channels, real *running_mean
) noexcept nogil:
    """Neighbouring channels with few places, which are `columns` numbers of each sample."""
    cdef Py_ssize_t places = task.places, step = task.channels * places, columns = channels * places
    cdef const real *x = <const real *> task.x + first * places
    cdef real *y = <real *> task.y + first * places
    cdef Columns sums
    cdef double[COLUMNS] center
    cdef real[COLUMNS] mean, rest, scale, shift
    cdef double count = <double> task.samples * places, mean_of_channel, variance, inv_std
    cdef Py_ssize_t sample, channel, i
    for i in range(columns):
        center[i] = running_mean[first + i // places]
    if task.training:
        clear(&sums, columns)
        for sample in range(task.samples):
            add_columns(x + sample * step, &sums, columns)
        end_block(&sums)
        for channel in range(channels):
            mean_of_channel = gather(sums.total + channel * places, places) / count
            for i in range(channel * places, (channel + 1) * places):
                center[i] = mean_of_channel
        clear(&sums, columns)
        for sample in range(task.samples):
            add_squares(x + sample * step, center, &sums, columns)
        end_block(&sums)
    for channel in range(channels):
        i = channel * places
        variance = (<const real *> task.running_var)[first + channel]
        if task.training:
            variance = gather(sums.total + i, places) / count
        inv_std = settle(task, first + channel, center[i], variance, running_mean)
        for i in range(channel * places, (channel + 1) * places):
            mean[i] = <real> center[i]
            rest[i] = <real> (center[i] - mean[i]) if task.training else 0
            scale[i] = <real> (inv_std * (<const real *> task.weight)[first + channel])
            shift[i] = (<const real *> task.bias)[first + channel]
    for sample in range(task.samples):
        for i in range(columns):
            y[sample * step + i] = ((x[sample * step + i] - mean[i]) - rest[i]) * scale[i] + shift[i]
    return 0


cdef inline int normalise_group(const Channels *task, Py_ssize_t part, real *running_mean) noexcept nogil:
    cdef Py_ssize_t first = part * task.group, end = min(first + task.group, task.channels), channel
    cdef int stop
    if task.places < FEW_PLACES:
        return normalise_columns(task, first, end - first, running_mean)
    for channel in range(first, end):
        stop = normalise_channel(task, channel, running_mean)
        if stop:
            return stop
    return 0


cdef int normalise_group_f32(void *task, Py_ssize_t part) noexcept nogil:
    return normalise_group[float](<const Channels *> task, part, <float *> (<const Channels *> task).running_mean)


cdef int normalise_group_f64(void *task, Py_ssize_t part) noexcept nogil:
    return normalise_group[double](<const Channels *> task, part, <double *> (<const Channels *> task).running_mean)


cdef int propagate_channel(const Channels *task, Py_ssize_t channel, const real *means) noexcept nogil:
    cdef Py_ssize_t places = task.places, step = task.channels * places, sample, start, n
    cdef const real *g = <const real *> task.g + channel * places
    cdef const real *x = <const real *> task.x + channel * places
    cdef real *grad = <real *> task.y + channel * places
    cdef real mean = means[channel], scale, zero = 0
    cdef double inv_std = (<const real *> task.running_var)[channel], count = <double> task.samples * places
    cdef double sum = 0, product = 0, excess = 0, product_excess = 0, part, product_part, done = 0
    cdef int stop
    if task.training or task.mean != NULL or task.inv_std != NULL:
        for sample in range(task.samples):
            start = 0
            while start < places:
                n = min(places - start, <Py_ssize_t> PIECE)
                sums_of_products(
                    g + sample * step + start, x + sample * step + start, n, mean, zero, &part, &product_part
                )
                accumulate(&sum, &excess, part)
                accumulate(&product, &product_excess, product_part)
                start += n
    give_sums(task, channel, product * inv_std, sum, means)
    if task.y == NULL:
        return 0
    scale = <real> (inv_std * (<const real *> task.weight)[channel])
    for sample in range(task.samples):
        if task.training:
            propagate(
                g + sample * step, x + sample * step, grad + sample * step, places, mean, zero,
                <real> (sum / count), <real> (inv_std * inv_std * (product / count)), scale,
            )
        else:
            scale_all(g + sample * step, grad + sample * step, places, scale)
        stop = look(places, &done)
        if stop:
            return stop
    return 0


cdef inline void scale_all(const real *g, real *grad, Py_ssize_t n, real scale) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        grad[i] = g[i] * scale


cdef inline void give_sums(
    const Channels *task, Py_ssize_t channel, double for_weight, double for_bias, const real *like
) noexcept nogil:
    """The gradients of weight and bias where they are wanted, in the type of `like`."""
    if task.mean != NULL:
        (<real *> task.mean)[channel] = <real> for_weight
    if task.inv_std != NULL:
        (<real *> task.inv_std)[channel] = <real> for_bias


cdef int propagate_columns(
    const Channels *task, Py_ssize_t first, Py_ssize_t channels, const real *means
) noexcept nogil:
    cdef Py_ssize_t places = task.places, step = task.channels * places, columns = channels * places
    cdef const real *g = <const real *> task.g + first * places
    cdef const real *x = <const real *> task.x + first * places
    cdef real *grad = <real *> task.y + first * places
    cdef Columns sums, products
    cdef real[COLUMNS] mean, mean_g, slope, scale
    cdef double count = <double> task.samples * places, sum, product, inv_std
    cdef Py_ssize_t sample, channel, i
    clear(&sums, columns)
    clear(&products, columns)
    for i in range(columns):
        mean[i] = means[first + i // places]
    for sample in range(task.samples):
        add_columns(g + sample * step, &sums, columns)
        add_products(g + sample * step, x + sample * step, mean, &products, columns)
    end_block(&sums)
    end_block(&products)
    for channel in range(channels):
        inv_std = (<const real *> task.running_var)[first + channel]
        sum = gather(sums.total + channel * places, places)
        product = gather(products.total + channel * places, places)
        give_sums(task, first + channel, product * inv_std, sum, means)
        for i in range(channel * places, (channel + 1) * places):
            mean_g[i] = <real> (sum / count)
            slope[i] = <real> (inv_std * inv_std * (product / count))
            scale[i] = <real> (inv_std * (<const real *> task.weight)[first + channel])
    if task.y == NULL:
        return 0
    for sample in range(task.samples):
        if task.training:
            for i in range(columns):
                grad[sample * step + i] = (
                    g[sample * step + i] - mean_g[i] - (x[sample * step + i] - mean[i]) * slope[i]
                ) * scale[i]
        else:
            for i in range(columns):
                grad[sample * step + i] = g[sample * step + i] * scale[i]
    return 0


cdef inline void add_products(
    const real *g, const real *x, const real *mean, Columns *columns, Py_ssize_t n
) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        columns.part[i] += <double> g[i] * (<double> x[i] - mean[i])
    end_row(columns)


cdef inline int propagate_group(const Channels *task, Py_ssize_t part, const real *means) noexcept nogil:
    cdef Py_ssize_t first = part * task.group, end = min(first + task.group, task.channels), channel
    cdef int stop
    if task.places < FEW_PLACES:
        return propagate_columns(task, first, end - first, means)
    for channel in range(first, end):
        stop = propagate_channel(task, channel, means)
        if stop:
            return stop
    return 0


cdef int propagate_group_f32(void *task, Py_ssize_t part) noexcept nogil:
    return propagate_group[float](<const Channels *> task, part, <float *> (<const Channels *> task).running_mean)


cdef int propagate_group_f64(void *task, Py_ssize_t part) noexcept nogil:
    return propagate_group[double](<const Channels *> task, part, <double *> (<const Channels *> task).running_mean)


cdef int run_channels(Channels *task, bint single) noexcept nogil:
    cdef Py_ssize_t plane = task.samples * task.places
    cdef double n = <double> plane * task.channels
    if task.places < FEW_PLACES:
        task.group = min(COLUMNS // max(task.places, <Py_ssize_t> 1), <Py_ssize_t> TOGETHER)
    else:
        task.group = PART // max(plane, <Py_ssize_t> 1) + 1
    cdef Py_ssize_t parts = (task.channels + task.group - 1) // task.group
    if task.g == NULL:
        return run(normalise_group_f32 if single else normalise_group_f64, task, parts, team(n, SHARE))
    return run(propagate_group_f32 if single else propagate_group_f64, task, parts, team(n, SHARE))


cdef inline void measure_channels(Channels *task, cnp.ndarray x) noexcept:
    cdef int axis
    task.samples, task.channels, task.places = PyArray_DIM(x, 0), PyArray_DIM(x, 1), 1
    for axis in range(2, PyArray_NDIM(x)):
        task.places *= PyArray_DIM(x, axis)


cdef inline bint are_parameters(object x, tuple parameters) noexcept:
    """Whether x is plain and has channels, and each parameter is a plain array with a number for each."""
    if not is_plain(x) or PyArray_NDIM(<cnp.ndarray> x) < 2:
        return False
    for i in range(len(parameters)):
        if not is_parameter(parameters[i], <cnp.ndarray> x, 1):
            return False
    return True


cdef inline bint can_be_updated(cnp.ndarray statistic, tuple others) noexcept:
    if not PyArray_ISWRITEABLE(statistic):
        return False
    for i in range(len(others)):
        if not are_apart(statistic, <cnp.ndarray> others[i]):
            return False
    return True


def batch_norm(
    x, weight, bias, running_mean, running_var, *, training, momentum=0.1, eps=1e-5, return_stats=False, out=None
):
    cdef object output = None, updated = None, outputs = None, mean = None, inv_std = None
    cdef cnp.ndarray y
    cdef Channels task
    cdef int failed
    cdef bint fast = (
        are_parameters(x, (weight, bias, running_mean, running_var))
        and (training is True or training is False)
        and (return_stats is True or return_stats is False)
        and is_non_negative(momentum, &task.momentum)
        and task.momentum <= 1
        and is_non_negative(eps, &task.eps)
    )
    if fast and training is True:
        fast = (
            can_be_updated(<cnp.ndarray> running_mean, (x, weight, bias, running_var))
            and can_be_updated(<cnp.ndarray> running_var, (x, weight, bias))
            and PyArray_SIZE(<cnp.ndarray> x) >= 2 * PyArray_DIM(<cnp.ndarray> x, 1)
        )
    if fast and out is None:
        y = empty_like(<cnp.ndarray> x)
    elif (
        fast
        and is_separate_out(out, <cnp.ndarray> x)
        and can_be_updated(<cnp.ndarray> out, (weight, bias, running_mean, running_var))
    ):
        y = <cnp.ndarray> out
    else:
        x, weight, bias, updated, training, task.momentum, task.eps, output, outputs = checks.batch_norm(
            x, weight, bias, running_mean, running_var, training, momentum, eps, return_stats, out
        )
        running_mean, running_var = updated.arrays
        y = <cnp.ndarray?> output.array
    if outputs is not None:
        mean, inv_std = [one.array for one in outputs]
    elif updated is None and return_stats is True:
        mean, inv_std = empty_like(<cnp.ndarray> weight), empty_like(<cnp.ndarray> weight)
    measure_channels(&task, <cnp.ndarray?> x)
    task.g, task.x, task.weight, task.bias, task.y = NULL, data_of(x), data_of(weight), data_of(bias), data_of(y)
    task.running_mean, task.running_var = data_of(running_mean), data_of(running_var)
    task.mean, task.inv_std = data_of(mean), data_of(inv_std)
    task.training = training
    cdef bint single = PyArray_TYPE(y) == cnp.NPY_FLOAT32
    with nogil:
        failed = run_channels(&task, single)
    raise_if(failed, "batch_norm")
    if updated is None:
        return y if mean is None else (y, mean, inv_std)
    if task.training:
        updated.deliver()
    if outputs is None:
        return output.deliver()
    return output.deliver(), outputs[0].deliver(), outputs[1].deliver()


def batch_norm_backward(grad_out, x, weight, mean, inv_std, *, training, needs=(True, True, True)):
    cdef tuple outputs = None
    cdef object grad_x = None, grad_weight = None, grad_bias = None
    cdef bint needed[3]
    cdef Channels task
    cdef int failed
    cdef bint fast = (
        are_parameters(x, (weight, mean, inv_std))
        and is_plain_of(grad_out, PyArray_TYPE(<cnp.ndarray> x))
        and same_shape(<cnp.ndarray> grad_out, <cnp.ndarray> x)
        and (training is True or training is False)
        and read_bools(needs, 3, needed)
    )
    if fast:
        grad_x = empty_like(<cnp.ndarray> x) if needed[0] else None
        grad_weight = empty_like(<cnp.ndarray> weight) if needed[1] else None
        grad_bias = empty_like(<cnp.ndarray> weight) if needed[2] else None
    else:
        grad_out, x, weight, mean, inv_std, training, outputs = checks.batch_norm_backward(
            grad_out, x, weight, mean, inv_std, training, needs
        )
        grad_x, grad_weight, grad_bias = [None if one is None else one.array for one in outputs]
    measure_channels(&task, <cnp.ndarray?> x)
    task.g, task.x, task.weight, task.y = data_of(grad_out), data_of(x), data_of(weight), data_of(grad_x)
    task.bias = NULL
    task.running_mean, task.running_var = data_of(mean), data_of(inv_std)
    task.mean, task.inv_std = data_of(grad_weight), data_of(grad_bias)
    task.momentum = task.eps = 0
    task.training = training
    cdef bint single = PyArray_TYPE(<cnp.ndarray> x) == cnp.NPY_FLOAT32
    with nogil:
        failed = run_channels(&task, single)
    raise_if(failed, "batch_norm_backward")
    if outputs is None:
        return grad_x, grad_weight, grad_bias
    return tuple([None if one is None else one.deliver() for one in outputs])
