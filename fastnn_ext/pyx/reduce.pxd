"""The reductions of engine/reduce.h, for float and double under one name each, and sums of many pieces."""

from common cimport real

cdef extern from "engine/reduce.h" nogil:
    float fnn_largest_f32(const float *x, Py_ssize_t n)
    double fnn_largest_f64(const double *x, Py_ssize_t n)
    double fnn_sum_f32(const float *x, Py_ssize_t n)
    double fnn_sum_f64(const double *x, Py_ssize_t n)
    double fnn_sum_in_pairs_f32(const float *x, Py_ssize_t n)
    double fnn_sum_in_pairs_f64(const double *x, Py_ssize_t n)


cdef inline real largest(const real *x, Py_ssize_t n) noexcept nogil:
    """The largest of n numbers but NaN; minus infinity for none."""
    if real is float:
        return fnn_largest_f32(x, n)
    else:
        return fnn_largest_f64(x, n)


cdef inline double sum_of(const real *x, Py_ssize_t n) noexcept nogil:
    """The sum in double."""
    if real is float:
        return fnn_sum_f32(x, n)
    else:
        return fnn_sum_f64(x, n)


cdef inline double sum_in_pairs(const real *x, Py_ssize_t n) noexcept nogil:
    """The sum of numbers that are not negative, within half an ulp: pairs are added before they are made double."""
    if real is float:
        return fnn_sum_in_pairs_f32(x, n)
    else:
        return fnn_sum_in_pairs_f64(x, n)


cdef inline void accumulate(double *total, double *excess, double term) noexcept nogil:
    """total += term; what rounding adds on top is taken off the next time (Kahan), unless it is infinite."""
    cdef double exact = term - excess[0]
    cdef double rounded = total[0] + exact
    cdef double error = (rounded - total[0]) - exact
    excess[0] = error if error - error == 0 else 0
    total[0] = rounded
