"""Softmax and log-softmax over the middle axis of contiguous [outer, length, inner], and their backwards.

Along the last axis (inner = 1) short rows are taken many at once, so that the exponentials run over a long contiguous
piece all the same. Along another axis neighbouring columns are reduced side by side, so nothing is transposed. Sums,
but of eight exponentials at a time, are in double, piece by piece with compensation: their error does not grow with
the length.

Lines that take long look for signals, and the functions that run through them return the code of that look.

The argument of exp is never above 0. NaN, or infinity minus infinity, reaches the sum and so the whole row.
"""

from common cimport real
from elementwise cimport CACHE_LINE, to_line
from pool cimport look
from reduce cimport accumulate, largest, sum_in_eights, sum_of
from vmath cimport exp, lift_of, lifted_exp, log

cdef extern from "engine/simd.h" nogil:
    void prefetch "FNN_PREFETCH"(const void *address)
    void prefetch_write "FNN_PREFETCH_WRITE"(const void *address)

cdef extern from "engine/exps.h" nogil:
    bint HAS_EXPS "FNN_HAS_EXPS"
    double fnn_lifted_exps(
        const float *x, float peak, float *power, Py_ssize_t n, const float *ahead, const float *target
    )

cdef extern from "engine/affine.h" nogil:
    void fnn_scale_f32(const float *x, float *y, Py_ssize_t n, float factor)
    void fnn_scale_f64(const double *x, double *y, Py_ssize_t n, double factor)
    void fnn_shift_f32(const float *x, float *y, Py_ssize_t n, float a, float b)
    void fnn_shift_f64(const double *x, double *y, Py_ssize_t n, double a, double b)

cdef enum:
    BLOCK = 128     # numbers between two looks ahead
    PIECE = 1024    # numbers in a piece, which stays in the first-level cache
    ROWS = 8        # rows of BLOCK numbers in a piece
    STRETCH = 1 << 20  # numbers of a long line that are run through without a look for signals
    COLUMNS = 128   # columns side by side; a piece has PIECE / COLUMNS rows of them


cdef inline void scale(const real *x, real *y, Py_ssize_t n, real factor) noexcept nogil:
    """y = x * factor"""
    if real is float:
        fnn_scale_f32(x, y, n, factor)
    else:
        fnn_scale_f64(x, y, n, factor)


cdef inline void shift(const real *x, real *y, Py_ssize_t n, real a, real b) noexcept nogil:
    """y = (x - a) - b"""
    if real is float:
        fnn_shift_f32(x, y, n, a, b)
    else:
        fnn_shift_f64(x, y, n, a, b)


cdef inline real larger(real a, real b) noexcept nogil:
    return b if a < b else a


cdef inline void lifted_exp_all(
    const real *x, real peak, real *power, Py_ssize_t n, const real *ahead, const real *target
) noexcept nogil:
    """power = lift * e^(x - peak); meanwhile n numbers from `ahead` on, which are next, and the room for n results from
    `target` on are brought to the cache."""
    cdef Py_ssize_t line = CACHE_LINE // sizeof(real), block, i
    if real is float and HAS_EXPS:
        fnn_lifted_exps(x, peak, power, n, ahead, target)
        return
    for block in range(n // BLOCK):
        for i in range(BLOCK // line):
            prefetch(ahead + block * BLOCK + i * line)
            prefetch_write(target + block * BLOCK + i * line)
        for i in range(BLOCK):
            power[block * BLOCK + i] = lifted_exp(x[block * BLOCK + i] - peak)
    for i in range(n - n % BLOCK, n):
        power[i] = lifted_exp(x[i] - peak)


cdef inline double lifted_exps(
    const real *x, real peak, real *power, Py_ssize_t n, const real *ahead, const real *target
) noexcept nogil:
    """`lifted_exp_all` and the sum of the powers."""
    if real is float and HAS_EXPS:
        return fnn_lifted_exps(x, peak, power, n, ahead, target)
    lifted_exp_all(x, peak, power, n, ahead, target)
    return sum_in_eights(power, n)


cdef inline real *in_lines(real *memory) noexcept nogil:
    """Where in `memory` the first cache line begins, if a vector is a whole one."""
    return memory + (to_line(memory) // <Py_ssize_t> sizeof(real) if HAS_EXPS else 0)


cdef inline int softmax_loop(
    const real *x, real *y, Py_ssize_t outer, Py_ssize_t length, Py_ssize_t inner,
    Py_ssize_t first, Py_ssize_t end, bint is_log,
) noexcept nogil:
    """Of each [length, inner] the columns from `first`, a multiple of COLUMNS, to `end`."""
    cdef Py_ssize_t plane = length * inner, rows, column
    cdef double done = 0
    cdef int stop = 0
    if plane == 0:
        return 0
    while outer > 0:
        rows = 1
        if inner > 1:
            for column from first <= column < end by COLUMNS:
                stop = softmax_columns(
                    x + column, y + column, length, inner, min(end - column, COLUMNS), is_log, &done
                )
                if stop:
                    return stop
        elif length > PIECE:
            stop = softmax_long_row(x, y, length, is_log, &done)
            if stop:
                return stop
        else:
            rows = min(PIECE // length, outer)
            if length < BLOCK:
                softmax_short_rows(x, y, rows, length, is_log)
            else:
                softmax_rows(x, y, rows, length, is_log)
        x += rows * plane
        y += rows * plane
        outer -= rows
    return 0


cdef inline void softmax_short_rows(
    const real *x, real *y, Py_ssize_t rows, Py_ssize_t length, bint is_log
) noexcept nogil:
    cdef real[PIECE + CACHE_LINE] memory
    cdef real[PIECE] peak
    cdef real *power = in_lines(memory)
    cdef Py_ssize_t row, start, i
    for row in range(rows):
        start = row * length
        peak[row] = largest(x + start, length)
        for i in range(start, start + length):
            power[i] = x[i] - peak[row]
    lifted_exp_all(power, 0, power, rows * length, x + rows * length, y)
    for row in range(rows):
        start = row * length
        finish(x + start, power + start, y + start, length, peak[row], sum_in_eights(power + start, length), is_log)


cdef inline void softmax_rows(
    const real *x, real *y, Py_ssize_t rows, Py_ssize_t length, bint is_log
) noexcept nogil:
    """Rows of at least BLOCK numbers."""
    cdef real[PIECE + CACHE_LINE] memory
    cdef real[ROWS] peak
    cdef double[ROWS] total
    cdef real *power = in_lines(memory)
    cdef const real *ahead = x + rows * length
    cdef Py_ssize_t row, start
    for row in range(rows):
        start = row * length
        peak[row] = largest(x + start, length)
        total[row] = lifted_exps(x + start, peak[row], power + start, length, ahead + start, y + start)
    for row in range(rows):
        start = row * length
        finish(x + start, power + start, y + start, length, peak[row], total[row], is_log)


cdef inline int softmax_long_row(
    const real *x, real *y, Py_ssize_t length, bint is_log, double *done
) noexcept nogil:
    cdef real[PIECE + CACHE_LINE] memory
    cdef real *power = in_lines(memory)
    cdef real peak
    cdef double total = 0, excess = 0
    cdef Py_ssize_t start = 0, n, i
    cdef int stop = find_peak(x, length, &peak, done)
    while start < length and not stop:
        n = min(length - start, PIECE)
        accumulate(&total, &excess, lifted_exps(x + start, peak, power, n, x + start + n, y + start))
        if not is_log:
            for i in range(n):
                y[start + i] = power[i]
        start += n
        stop = look(n, done)
    start = 0
    while start < length and not stop:
        n = min(length - start, STRETCH)
        finish(x + start, y + start, y + start, n, peak, total, is_log)
        start += n
        stop = look(n, done)
    return stop


cdef inline int find_peak(const real *x, Py_ssize_t length, real *peak, double *done) noexcept nogil:
    cdef Py_ssize_t start = STRETCH
    cdef int stop = 0
    peak[0] = largest(x, min(length, STRETCH))
    while start < length and not stop:
        peak[0] = larger(largest(x + start, min(length - start, STRETCH)), peak[0])
        start += STRETCH
        stop = look(STRETCH, done)
    return stop


cdef inline void finish(
    const real *x, const real *power, real *y, Py_ssize_t n, real peak, double total, bint is_log
) noexcept nogil:
    if is_log:
        shift(x, y, n, peak, <real> log(total / lift_of(x)))
    else:
        scale(power, y, n, <real> (1 / total))


cdef inline int softmax_columns(
    const real *x, real *y, Py_ssize_t length, Py_ssize_t stride, Py_ssize_t columns, bint is_log, double *done
) noexcept nogil:
    cdef real[PIECE] power
    cdef real[COLUMNS] peak, scale
    cdef double[COLUMNS] part, total, excess
    cdef Py_ssize_t rows = PIECE // columns, start = 0, n, row, i
    cdef const real *source
    cdef real *target
    cdef int stop = 0
    for i in range(columns):
        peak[i] = x[i]
        total[i] = excess[i] = 0
    while start < length and not stop:
        n = min(length - start, STRETCH // columns)
        for row in range(start, start + n):
            source = x + row * stride
            for i in range(columns):
                peak[i] = larger(source[i], peak[i])
        start += n
        stop = look(n * columns, done)
    start = 0
    while start < length and not stop:
        n = min(length - start, rows)
        for row in range(n):
            source = x + (start + row) * stride
            for i in range(columns):
                power[row * columns + i] = source[i] - peak[i]
        lifted_exp_all(power, 0, power, n * columns, power, power)
        for i in range(columns):
            part[i] = power[i]
        for row in range(1, n):
            for i in range(columns):
                part[i] += power[row * columns + i]
        for i in range(columns):
            accumulate(&total[i], &excess[i], part[i])
        if not is_log:
            for row in range(n):
                target = y + (start + row) * stride
                for i in range(columns):
                    target[i] = power[row * columns + i]
        start += n
        stop = look(n * columns, done)
    for i in range(columns):
        scale[i] = <real> (log(total[i] / lift_of(x)) if is_log else 1 / total[i])
    start = 0
    while start < length and not stop:
        n = min(length - start, STRETCH // columns)
        for row in range(start, start + n):
            source = x + row * stride
            target = y + row * stride
            if is_log:
                for i in range(columns):
                    target[i] = (source[i] - peak[i]) - scale[i]
            else:
                for i in range(columns):
                    target[i] = target[i] * scale[i]
        start += n
        stop = look(n * columns, done)
    return stop


cdef inline int softmax_backward_loop(
    const real *g, const real *y, real *grad, Py_ssize_t outer, Py_ssize_t length, Py_ssize_t inner,
    Py_ssize_t first, Py_ssize_t end, bint is_log,
) noexcept nogil:
    """Of each [length, inner] the columns from `first`, a multiple of COLUMNS, to `end`."""
    cdef Py_ssize_t plane = length * inner, rows, column
    cdef double done = 0
    cdef int stop = 0
    if plane == 0:
        return 0
    while outer > 0:
        rows = 1
        if inner > 1:
            for column from first <= column < end by COLUMNS:
                stop = softmax_backward_columns(
                    g + column, y + column, grad + column, length, inner, min(end - column, COLUMNS), is_log, &done
                )
                if stop:
                    return stop
        elif length > PIECE:
            stop = softmax_backward_long_row(g, y, grad, length, is_log, &done)
            if stop:
                return stop
        else:
            rows = min(PIECE // length, outer)
            softmax_backward_short_rows(g, y, grad, rows, length, is_log)
        g += rows * plane
        y += rows * plane
        grad += rows * plane
        outer -= rows
    return 0


cdef inline void softmax_backward_short_rows(
    const real *g, const real *y, real *grad, Py_ssize_t rows, Py_ssize_t length, bint is_log
) noexcept nogil:
    cdef real[PIECE] factor
    cdef Py_ssize_t row, start
    factors(g, y, factor, rows * length, is_log)
    for row in range(rows):
        start = row * length
        finish_backward(
            g + start, y + start, factor + start, grad + start, length,
            <real> sum_of(g + start if is_log else factor + start, length), is_log,
        )


cdef inline int softmax_backward_long_row(
    const real *g, const real *y, real *grad, Py_ssize_t length, bint is_log, double *done
) noexcept nogil:
    cdef real[PIECE] factor
    cdef double total = 0, excess = 0
    cdef Py_ssize_t start = 0, n
    cdef int stop = 0
    while start < length and not stop:
        n = min(length - start, PIECE)
        if not is_log:
            factors(g + start, y + start, factor, n, is_log)
        accumulate(&total, &excess, sum_of(g + start if is_log else factor, n))
        start += n
        stop = look(n, done)
    start = 0
    while start < length and not stop:
        n = min(length - start, PIECE)
        if is_log:
            factors(g + start, y + start, factor, n, is_log)
        finish_backward(g + start, y + start, factor, grad + start, n, <real> total, is_log)
        start += n
        stop = look(n, done)
    return stop


cdef inline void factors(const real *g, const real *y, real *factor, Py_ssize_t n, bint is_log) noexcept nogil:
    """exp(y) for log-softmax, g * y for softmax."""
    cdef Py_ssize_t i
    if is_log:
        for i in range(n):
            factor[i] = exp(y[i])
    else:
        for i in range(n):
            factor[i] = g[i] * y[i]


cdef inline void finish_backward(
    const real *g, const real *y, const real *factor, real *grad, Py_ssize_t n, real total, bint is_log
) noexcept nogil:
    cdef Py_ssize_t i
    if is_log:
        for i in range(n):
            grad[i] = g[i] - factor[i] * total
    else:
        for i in range(n):
            grad[i] = y[i] * (g[i] - total)


cdef inline int softmax_backward_columns(
    const real *g, const real *y, real *grad, Py_ssize_t length, Py_ssize_t stride, Py_ssize_t columns, bint is_log,
    double *done,
) noexcept nogil:
    cdef double[COLUMNS] total, excess
    cdef real[COLUMNS] sum_of_terms
    cdef Py_ssize_t rows = STRETCH // columns, start = 0, end, row, i
    cdef int stop = 0
    for i in range(columns):
        total[i] = excess[i] = 0
    while start < length and not stop:
        end = min(length, start + rows)
        for row in range(start, end):
            for i in range(columns):
                accumulate(
                    &total[i], &excess[i],
                    g[row * stride + i] if is_log else g[row * stride + i] * y[row * stride + i],
                )
        stop = look((end - start) * columns, done)
        start = end
    for i in range(columns):
        sum_of_terms[i] = <real> total[i]
    start = 0
    while start < length and not stop:
        end = min(length, start + rows)
        for row in range(start, end):
            if is_log:
                for i in range(columns):
                    grad[i] = g[i] - exp(y[i]) * sum_of_terms[i]
            else:
                for i in range(columns):
                    grad[i] = y[i] * (g[i] - sum_of_terms[i])
            g += stride
            y += stride
            grad += stride
        stop = look((end - start) * columns, done)
        start = end
    return stop
