"""The reductions of engine/reduce.h, for float and double under one name each, and sums of many pieces."""

from common cimport real

cdef extern from "engine/reduce.h" nogil:
    float fnn_largest_f32(const float *x, Py_ssize_t n)
    double fnn_largest_f64(const double *x, Py_ssize_t n)
    double fnn_sum_f32(const float *x, Py_ssize_t n)
    double fnn_sum_f64(const double *x, Py_ssize_t n)
    double fnn_sum_in_eights_f32(const float *x, Py_ssize_t n)
    double fnn_sum_in_eights_f64(const double *x, Py_ssize_t n)
    double fnn_sum_squares_f32(const float *x, Py_ssize_t n, double center)
    double fnn_sum_squares_f64(const double *x, Py_ssize_t n, double center)
    void fnn_sum_products_f32(
        const float *g, const float *x, Py_ssize_t n, float mean, float rest, double *sum, double *product
    )
    void fnn_sum_products_in_double_f64(
        const double *g, const double *x, Py_ssize_t n, double center, double *sum, double *product
    )


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


cdef inline double sum_in_eights(const real *x, Py_ssize_t n) noexcept nogil:
    """The sum of numbers that are not negative, within two ulp: eight are added before they are made double."""
    if real is float:
        return fnn_sum_in_eights_f32(x, n)
    else:
        return fnn_sum_in_eights_f64(x, n)


cdef inline double sum_of_squares(const real *x, Py_ssize_t n, double center) noexcept nogil:
    """The sum of (x - center)^2 in double."""
    if real is float:
        return fnn_sum_squares_f32(x, n, center)
    else:
        return fnn_sum_squares_f64(x, n, center)


cdef inline void sums_of_products(
    const real *g, const real *x, Py_ssize_t n, real mean, real rest, double *sum, double *product
) noexcept nogil:
    """The sum of g and that of g * (x - mean), with what a mean of type float lacks as `rest`."""
    if real is float:
        fnn_sum_products_f32(g, x, n, mean, rest, sum, product)
    else:
        fnn_sum_products_in_double_f64(g, x, n, mean, sum, product)


cdef inline void sums_of_deviations(
    const float *x, Py_ssize_t n, float center, double *sum, double *squares
) noexcept nogil:
    """The sum of x - center and that of their squares, within some units of the last place of a float."""
    fnn_sum_products_f32(NULL, x, n, center, 0, sum, squares)


cdef inline void accumulate(double *total, double *excess, double term) noexcept nogil:
    """total += term; what rounding adds on top is taken off the next time (Kahan), unless it is infinite."""
    cdef double exact = term - excess[0]
    cdef double rounded = total[0] + exact
    cdef double error = (rounded - total[0]) - exact
    excess[0] = error if error - error == 0 else 0
    total[0] = rounded
