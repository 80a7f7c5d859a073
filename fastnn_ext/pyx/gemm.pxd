"""The Cython view of `engine/gemm.h`: C = A B with packing and epilogue to be plugged in."""

from common cimport real

cdef extern from "engine/gemm.h" nogil:
    ctypedef void (*pack_a_f32 "fnn_pack_a_function_f32")(
        void *context, float *target, Py_ssize_t target_rs, Py_ssize_t i, Py_ssize_t rows, Py_ssize_t p, Py_ssize_t k
    ) noexcept nogil
    ctypedef void (*pack_a_f64 "fnn_pack_a_function_f64")(
        void *context, double *target, Py_ssize_t target_rs, Py_ssize_t i, Py_ssize_t rows, Py_ssize_t p, Py_ssize_t k
    ) noexcept nogil
    ctypedef const float *(*pack_b_f32 "fnn_pack_b_function_f32")(
        void *context, float *target, Py_ssize_t p, Py_ssize_t k, Py_ssize_t j, Py_ssize_t cols, Py_ssize_t width
    ) noexcept nogil
    ctypedef const double *(*pack_b_f64 "fnn_pack_b_function_f64")(
        void *context, double *target, Py_ssize_t p, Py_ssize_t k, Py_ssize_t j, Py_ssize_t cols, Py_ssize_t width
    ) noexcept nogil
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
        pack_a_f32 pack_a
        void *pack_a_context
        pack_b_f32 pack_b
        void *pack_b_context
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
        pack_a_f64 pack_a
        void *pack_a_context
        pack_b_f64 pack_b
        void *pack_b_context
        epilogue_f64 epilogue
        void *epilogue_context

    # 0, or -1 where there is no memory for the packed panels
    int gemm_f32 "fnn_gemm_f32"(const gemm_args_f32 *args)
    int gemm_f64 "fnn_gemm_f64"(const gemm_args_f64 *args)


cdef struct Epilogue:
    # what is done to each row piece of a finished block of C; NULLs for nothing
    epilogue_f32 f32
    epilogue_f64 f64
    void *context


cdef inline int matmul(
    Py_ssize_t m, Py_ssize_t n, Py_ssize_t k,
    const real *a, Py_ssize_t a_rs, Py_ssize_t a_cs,
    const real *b, Py_ssize_t b_rs, Py_ssize_t b_cs,
    real *c, const real *bias, Epilogue epilogue,
) noexcept nogil:
    """c[m, n] = a[m, k] b[k, n] + bias[n], c being C-contiguous; bias may be NULL."""
    cdef gemm_args_f32 single
    cdef gemm_args_f64 double_
    if real is float:
        single = gemm_args_f32(
            m=m, n=n, k=k, a=a, a_rs=a_rs, a_cs=a_cs, b=b, b_rs=b_rs, b_cs=b_cs, c=c, c_rs=n, c_cs=1,
            row_bias=NULL, col_bias=bias, accumulate=False,
            pack_a=NULL, pack_a_context=NULL, pack_b=NULL, pack_b_context=NULL,
            epilogue=epilogue.f32, epilogue_context=epilogue.context,
        )
        return gemm_f32(&single)
    else:
        double_ = gemm_args_f64(
            m=m, n=n, k=k, a=a, a_rs=a_rs, a_cs=a_cs, b=b, b_rs=b_rs, b_cs=b_cs, c=c, c_rs=n, c_cs=1,
            row_bias=NULL, col_bias=bias, accumulate=False,
            pack_a=NULL, pack_a_context=NULL, pack_b=NULL, pack_b_context=NULL,
            epilogue=epilogue.f64, epilogue_context=epilogue.context,
        )
        return gemm_f64(&double_)


cdef inline Epilogue no_epilogue() noexcept nogil:
    return Epilogue(NULL, NULL, NULL)
