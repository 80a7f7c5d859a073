/* The widest vector that the compiler targets, for the headers that need more than a loop it can vectorise.
 *
 * FNN_VECTOR_BYTES is its size and FNN_REGISTERS how many of them the processor has; without the vector extensions of
 * gcc and clang a "vector" is one number, and the same code is correct scalar code. For each dtype there are the type
 * fnn_vec_f32 (f64) and functions on it: load, store, their masked forms load_part and store_part, splat, and the
 * steps of a transposition in registers.
 */
#ifndef FASTNN_SIMD_H
#define FASTNN_SIMD_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifndef FNN_INLINE
#if defined(__GNUC__)
#define FNN_INLINE static inline __attribute__((always_inline))
#elif defined(_MSC_VER)
#define FNN_INLINE static __forceinline
#else
#define FNN_INLINE static inline
#endif
#endif

#if defined(__GNUC__)
#define FNN_OUTLINE static __attribute__((noinline, unused))
#define FNN_RESTRICT __restrict__
#define FNN_PREFETCH(address) __builtin_prefetch(address)
#define FNN_PREFETCH_WRITE(address) __builtin_prefetch(address, 1)
#define FNN_PREFETCH_L2(address) __builtin_prefetch(address, 0, 2)
#else
#define FNN_OUTLINE static
#define FNN_RESTRICT
#define FNN_PREFETCH(address) ((void)0)
#define FNN_PREFETCH_WRITE(address) ((void)0)
#define FNN_PREFETCH_L2(address) ((void)0)
#endif

#if defined(__clang__)
#define FNN_UNROLL _Pragma("unroll")
#elif defined(__GNUC__)
#define FNN_UNROLL _Pragma("GCC unroll 32")
#else
#define FNN_UNROLL
#endif

#if !defined(__GNUC__) || defined(FNN_SCALAR)
#define FNN_VECTOR_BYTES 0
#define FNN_LANES_F32 1
#define FNN_LANES_F64 1
#elif defined(__AVX512F__)
#define FNN_VECTOR_BYTES 64
#define FNN_LANES_F32 16
#define FNN_LANES_F64 8
#elif defined(__AVX__)
#define FNN_VECTOR_BYTES 32
#define FNN_LANES_F32 8
#define FNN_LANES_F64 4
#else
#define FNN_VECTOR_BYTES 16
#define FNN_LANES_F32 4
#define FNN_LANES_F64 2
#endif

#if defined(__AVX512F__) || defined(__aarch64__)
#define FNN_REGISTERS 32
#else
#define FNN_REGISTERS 16
#endif

#if FNN_VECTOR_BYTES >= 32 || (FNN_VECTOR_BYTES && defined(__SSE2__))
#include <immintrin.h> /* masked loads and stores and the like, which the vector extensions have no words for */
#endif

/* Masked loads and stores cost no more than whole ones. */
#define FNN_FREE_MASKS (FNN_VECTOR_BYTES == 64)

/* Keeps what was loaded in its register: GCC would load it again for each multiply-add, and vectors as long as a cache
 * line mostly reach over the end of one. With shorter vectors and fewer registers nothing is gained. */
#if defined(__GNUC__) && defined(__AVX512F__)
#define FNN_KEEP(vector) __asm__("" : "+v"(vector))
#else
#define FNN_KEEP(vector) (void)(vector)
#endif

/* f(0, s), f(1, s), ...: the lanes of a shuffle. */
#define FNN_EACH_2(f, s) f(0, s), f(1, s)
#define FNN_EACH_4(f, s) FNN_EACH_2(f, s), f(2, s), f(3, s)
#define FNN_EACH_8(f, s) FNN_EACH_4(f, s), f(4, s), f(5, s), f(6, s), f(7, s)
#define FNN_EACH_16(f, s) \
    FNN_EACH_8(f, s), f(8, s), f(9, s), f(10, s), f(11, s), f(12, s), f(13, s), f(14, s), f(15, s)
#define FNN_JOIN_(a, b) a##b
#define FNN_JOIN(a, b) FNN_JOIN_(a, b)

#define FNN_REAL float
#define FNN_INT int32_t
#define FNN_REAL_BITS 32
#define FNN_LANES FNN_LANES_F32
#define FNN_NAME(name) fnn_##name##_f32
#include "simd_body.h"

#define FNN_REAL double
#define FNN_INT int64_t
#define FNN_REAL_BITS 64
#define FNN_LANES FNN_LANES_F64
#define FNN_NAME(name) fnn_##name##_f64
#include "simd_body.h"

#endif
