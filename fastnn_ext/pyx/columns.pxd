"""Sums of the columns of a matrix, such as the gradient of a bias from those of all rows."""

from common cimport real
from pool cimport poll, run, team

cdef enum:
    COLUMNS = 64     # that are summed together
    ROWS = 65536     # after which there is a look for signals
    SHARE = 131072   # elements that a thread must have


cdef struct Sums:
    const void *matrix
    Py_ssize_t rows, columns
    void *sums


cdef inline int sum_rows(const Sums *task, Py_ssize_t part, real *sums) noexcept nogil:
    """Column sums of a part of matrix[rows, columns], in double: there can be millions of rows."""
    cdef double total[COLUMNS]
    cdef Py_ssize_t n = task.columns, first = part * COLUMNS, count = min(n - first, COLUMNS), i, j
    cdef const real *row = <const real *> task.matrix + first
    cdef int stop
    for j in range(count):
        total[j] = 0
    for i from 0 <= i <= task.rows - 4 by 4:
        for j in range(count):
            total[j] += (<double> row[j] + row[n + j]) + (<double> row[2 * n + j] + row[3 * n + j])
        row += 4 * n
        if i % ROWS == ROWS - 4:
            stop = poll()
            if stop:
                return stop
    for i in range(task.rows % 4):
        for j in range(count):
            total[j] += row[i * n + j]
    for j in range(count):
        sums[first + j] = <real> total[j]
    return 0


cdef inline int sum_rows_f32(void *task, Py_ssize_t part) noexcept nogil:
    return sum_rows[float](<const Sums *> task, part, <float *> (<Sums *> task).sums)


cdef inline int sum_rows_f64(void *task, Py_ssize_t part) noexcept nogil:
    return sum_rows[double](<const Sums *> task, part, <double *> (<Sums *> task).sums)


cdef inline int sum_columns(
    const real *matrix, Py_ssize_t rows, Py_ssize_t columns, real *sums
) noexcept nogil:
    """The sum of each column of a matrix."""
    cdef Sums task = Sums(matrix, rows, columns, sums)
    return run(
        sum_rows_f32 if real is float else sum_rows_f64, &task, (columns + COLUMNS - 1) // COLUMNS,
        team(<double> rows * <double> columns, SHARE),
    )
