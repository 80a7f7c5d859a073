"""The Cython view of `engine/gemm.h`: C = A B with an epilogue to be plugged in."""

from common cimport real
from fused cimport Activation

cdef extern from "engine/gemm.h" nogil:
    ctypedef void (*epilogue_f32 "fnn_epilogue_function_f32")(
        void *context, float *row, Py_ssize_t i, Py_ssize_t j, Py_ssize_t count
    ) noexcept nogil
    ctypedef void (*epilogue_f64 "fnn_epilogue_function_f64")(
        void *context, double *row, Py_ssize_t i, Py_ssize_t j, Py_ssize_t count
    ) noexcept nogil

    ctypedef struct gemm_args_f32 "fnn_gemm_args_f32":
        Py_ssize_t m, n, k
        const float *a
        Py_ssize_t a_rs, a_cs
        const float *b
        Py_ssize_t b_rs, b_cs
        float *c
        Py_ssize_t c_rs, c_cs
        const float *row_bias
        const float *col_bias
        bint accumulate
        const float *panels
        epilogue_f32 epilogue
        void *epilogue_context

    ctypedef struct gemm_args_f64 "fnn_gemm_args_f64":
        Py_ssize_t m, n, k
        const double *a
        Py_ssize_t a_rs, a_cs
        const double *b
        Py_ssize_t b_rs, b_cs
        double *c
        Py_ssize_t c_rs, c_cs
        const double *row_bias
        const double *col_bias
        bint accumulate
        const double *panels
        epilogue_f64 epilogue
        void *epilogue_context

    # 0, FNN_NO_MEMORY or FNN_INTERRUPTED
    int gemm_f32 "fnn_gemm_f32"(const gemm_args_f32 *args)
    int gemm_f64 "fnn_gemm_f64"(const gemm_args_f64 *args)
    Py_ssize_t panels_size_f32 "fnn_gemm_panels_size_f32"(Py_ssize_t k, Py_ssize_t n)
    Py_ssize_t panels_size_f64 "fnn_gemm_panels_size_f64"(Py_ssize_t k, Py_ssize_t n)
    void pack_panels_f32 "fnn_gemm_pack_panels_f32"(const gemm_args_f32 *args, float *panels)
    void pack_panels_f64 "fnn_gemm_pack_panels_f64"(const gemm_args_f64 *args, double *panels)
    bint uses_panels_f32 "fnn_gemm_uses_panels_f32"(const gemm_args_f32 *args)
    bint uses_panels_f64 "fnn_gemm_uses_panels_f64"(const gemm_args_f64 *args)


cdef struct Epilogue:
    # what is done to each row piece of a finished block of C; NULLs for nothing
    epilogue_f32 f32
    epilogue_f64 f64
    void *context


cdef struct Factors:
    # C[m, n] = (or +=) A[m, k] B[k, n], each with the strides of its rows and columns
    Py_ssize_t m, n, k
    Py_ssize_t a_rs, a_cs, b_rs, b_cs, c_rs, c_cs
    bint accumulate


cdef inline Epilogue no_epilogue() noexcept nogil:
    return Epilogue(NULL, NULL, NULL)


cdef inline gemm_args_f32 product_f32(
    const Factors *f, const float *a, const float *b, const float *panels, const float *row_bias,
    const float *col_bias, Epilogue epilogue, float *c,
) noexcept nogil:
    return gemm_args_f32(
        m=f.m, n=f.n, k=f.k, a=a, a_rs=f.a_rs, a_cs=f.a_cs, b=b, b_rs=f.b_rs, b_cs=f.b_cs,
        c=c, c_rs=f.c_rs, c_cs=f.c_cs, row_bias=row_bias, col_bias=col_bias, accumulate=f.accumulate,
        panels=panels, epilogue=epilogue.f32, epilogue_context=epilogue.context,
    )


cdef inline gemm_args_f64 product_f64(
    const Factors *f, const double *a, const double *b, const double *panels, const double *row_bias,
    const double *col_bias, Epilogue epilogue, double *c,
) noexcept nogil:
    return gemm_args_f64(
        m=f.m, n=f.n, k=f.k, a=a, a_rs=f.a_rs, a_cs=f.a_cs, b=b, b_rs=f.b_rs, b_cs=f.b_cs,
        c=c, c_rs=f.c_rs, c_cs=f.c_cs, row_bias=row_bias, col_bias=col_bias, accumulate=f.accumulate,
        panels=panels, epilogue=epilogue.f64, epilogue_context=epilogue.context,
    )


cdef inline int multiply_packed(
    const Factors *f, const real *a, const real *b, const real *panels, const real *row_bias, const real *col_bias,
    Epilogue epilogue, real *c,
) noexcept nogil:
    """c = (or +=) a b plus a bias for each row or column, or NULL; `panels` of b, or NULL. A code where it fails."""
    cdef gemm_args_f32 single
    cdef gemm_args_f64 double_
    if real is float:
        single = product_f32(f, a, b, panels, row_bias, col_bias, epilogue, c)
        return gemm_f32(&single)
    else:
        double_ = product_f64(f, a, b, panels, row_bias, col_bias, epilogue, c)
        return gemm_f64(&double_)


cdef inline int multiply(
    const Factors *f, const real *a, const real *b, const real *row_bias, const real *col_bias, Epilogue epilogue,
    real *c,
) noexcept nogil:
    """The same without panels."""
    cdef const real *no_panels = NULL
    return multiply_packed(f, a, b, no_panels, row_bias, col_bias, epilogue, c)


cdef inline bint uses_panels(const Factors *f, const real *b) noexcept nogil:
    """Whether the product would read panels of b rather than b."""
    cdef gemm_args_f32 single
    cdef gemm_args_f64 double_
    if real is float:
        single = product_f32(f, NULL, b, NULL, NULL, NULL, no_epilogue(), NULL)
        return uses_panels_f32(&single)
    else:
        double_ = product_f64(f, NULL, b, NULL, NULL, NULL, no_epilogue(), NULL)
        return uses_panels_f64(&double_)


cdef inline Py_ssize_t panels_size(const Factors *f, const real *b) noexcept nogil:
    """How many numbers the panels of b are."""
    return panels_size_f32(f.k, f.n) if real is float else panels_size_f64(f.k, f.n)


cdef inline void pack_panels(const Factors *f, const real *b, real *panels) noexcept nogil:
    cdef gemm_args_f32 single
    cdef gemm_args_f64 double_
    if real is float:
        single = product_f32(f, NULL, b, NULL, NULL, NULL, no_epilogue(), NULL)
        pack_panels_f32(&single, panels)
    else:
        double_ = product_f64(f, NULL, b, NULL, NULL, NULL, no_epilogue(), NULL)
        pack_panels_f64(&double_, panels)


cdef inline void activate_f32(void *activation, float *row, Py_ssize_t i, Py_ssize_t j, Py_ssize_t n) noexcept nogil:
    cdef const Activation *f = <const Activation *> activation
    f.f32(row, row, n, <float> f.option)


cdef inline void activate_f64(void *activation, double *row, Py_ssize_t i, Py_ssize_t j, Py_ssize_t n) noexcept nogil:
    cdef const Activation *f = <const Activation *> activation
    f.f64(row, row, n, f.option)


cdef inline Epilogue activating(const Activation *activation) noexcept nogil:
    """The epilogue that applies the activation, or NULL for none."""
    return no_epilogue() if activation == NULL else Epilogue(activate_f32, activate_f64, <void *> activation)


cdef struct Derivative:
    # f' from the output y[rows, columns]
    const Activation *activation
    const void *y
    Py_ssize_t columns


cdef inline void multiply_by_f32(void *context, float *row, Py_ssize_t i, Py_ssize_t j, Py_ssize_t n) noexcept nogil:
    cdef const Derivative *d = <const Derivative *> context
    d.activation.backward_f32(
        row, <const float *> d.y + i * d.columns + j, row, n, <float> d.activation.option
    )


cdef inline void multiply_by_f64(void *context, double *row, Py_ssize_t i, Py_ssize_t j, Py_ssize_t n) noexcept nogil:
    cdef const Derivative *d = <const Derivative *> context
    d.activation.backward_f64(row, <const double *> d.y + i * d.columns + j, row, n, d.activation.option)


cdef inline Epilogue multiplying(const Derivative *derivative) noexcept nogil:
    """The epilogue that multiplies by the derivative of an activation, or by 1 where that is NULL."""
    if derivative.activation == NULL:
        return no_epilogue()
    return Epilogue(multiply_by_f32, multiply_by_f64, <void *> derivative)
