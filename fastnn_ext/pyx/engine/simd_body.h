/* Included twice by simd.h: the vector of FNN_LANES numbers of type FNN_REAL. */

#if FNN_LANES > 1
typedef FNN_REAL FNN_NAME(vec) __attribute__((vector_size(FNN_VECTOR_BYTES)));
typedef FNN_REAL FNN_NAME(vec_in_memory)
    __attribute__((vector_size(FNN_VECTOR_BYTES), aligned(sizeof(FNN_REAL)), may_alias));
typedef FNN_INT FNN_NAME(mask) __attribute__((vector_size(FNN_VECTOR_BYTES)));
#else
typedef FNN_REAL FNN_NAME(vec);
typedef FNN_REAL FNN_NAME(vec_in_memory);
#endif

#define FNN_VEC FNN_NAME(vec)

FNN_INLINE FNN_VEC FNN_NAME(load)(const FNN_REAL *p)
{
    return *(const FNN_NAME(vec_in_memory) *)p;
}

FNN_INLINE void FNN_NAME(store)(FNN_REAL *p, FNN_VEC v)
{
    *(FNN_NAME(vec_in_memory) *)p = v;
}

FNN_INLINE FNN_VEC FNN_NAME(splat)(FNN_REAL x)
{
#if FNN_LANES > 1
    return x - (FNN_VEC){0}; /* minus, since plus would lose the sign of zero and could not be optimised away */
#else
    return x;
#endif
}

/* The first `count` lanes from memory and zeros after them, 0 <= count <= FNN_LANES; never touches what is beyond. */
FNN_INLINE FNN_VEC FNN_NAME(load_part)(const FNN_REAL *p, ptrdiff_t count)
{
#if FNN_VECTOR_BYTES == 64 && FNN_REAL_BITS == 32
    return (FNN_VEC)_mm512_maskz_loadu_ps((__mmask16)((1u << count) - 1), p);
#elif FNN_VECTOR_BYTES == 64
    return (FNN_VEC)_mm512_maskz_loadu_pd((__mmask8)((1u << count) - 1), p);
#elif FNN_VECTOR_BYTES == 32 && FNN_REAL_BITS == 32
    return (FNN_VEC)_mm256_maskload_ps(p, (__m256i)((FNN_NAME(mask)){0, 1, 2, 3, 4, 5, 6, 7} < (FNN_INT)count));
#elif FNN_VECTOR_BYTES == 32
    return (FNN_VEC)_mm256_maskload_pd(p, (__m256i)((FNN_NAME(mask)){0, 1, 2, 3} < (FNN_INT)count));
#else
    FNN_REAL lanes[FNN_LANES] = {0};
    for (ptrdiff_t q = 0; q < FNN_LANES; q++)
        if (q < count)
            lanes[q] = p[q];
    return FNN_NAME(load)(lanes);
#endif
}

FNN_INLINE void FNN_NAME(store_part)(FNN_REAL *p, FNN_VEC v, ptrdiff_t count)
{
#if FNN_VECTOR_BYTES == 64 && FNN_REAL_BITS == 32
    _mm512_mask_storeu_ps(p, (__mmask16)((1u << count) - 1), (__m512)v);
#elif FNN_VECTOR_BYTES == 64
    _mm512_mask_storeu_pd(p, (__mmask8)((1u << count) - 1), (__m512d)v);
#elif FNN_VECTOR_BYTES == 32 && FNN_REAL_BITS == 32
    _mm256_maskstore_ps(p, (__m256i)((FNN_NAME(mask)){0, 1, 2, 3, 4, 5, 6, 7} < (FNN_INT)count), (__m256)v);
#elif FNN_VECTOR_BYTES == 32
    _mm256_maskstore_pd(p, (__m256i)((FNN_NAME(mask)){0, 1, 2, 3} < (FNN_INT)count), (__m256d)v);
#else
    FNN_REAL lanes[FNN_LANES];
    FNN_NAME(store)(lanes, v);
    for (ptrdiff_t q = 0; q < count; q++)
        p[q] = lanes[q];
#endif
}

/* p[0 .. count) = v, or += v with `add`; count <= FNN_LANES. */
FNN_INLINE void FNN_NAME(put)(FNN_REAL *p, FNN_VEC v, ptrdiff_t count, int add)
{
    if (count == FNN_LANES)
        FNN_NAME(store)(p, add ? FNN_NAME(load)(p) + v : v);
    else
        FNN_NAME(store_part)(p, add ? FNN_NAME(load_part)(p, count) + v : v, count);
}

/* to[0 .. count) = from, or += from with `add`; for masks that are free, in a register of so many bytes, a
 * constant: one that is longer than it must be reaches over the end of a cache line more often. */
FNN_INLINE void FNN_NAME(move_part)(int bytes, FNN_REAL *to, const FNN_REAL *from, ptrdiff_t count, int add)
{
#if FNN_VECTOR_BYTES == 64 && FNN_REAL_BITS == 32
    const __mmask8 mask = (__mmask8)((1u << count) - 1);
    if (bytes == 16) {
        const __m128 v = _mm_maskz_loadu_ps(mask, from);
        _mm_mask_storeu_ps(to, mask, add ? _mm_add_ps(v, _mm_maskz_loadu_ps(mask, to)) : v);
        return;
    }
    if (bytes == 32) {
        const __m256 v = _mm256_maskz_loadu_ps(mask, from);
        _mm256_mask_storeu_ps(to, mask, add ? _mm256_add_ps(v, _mm256_maskz_loadu_ps(mask, to)) : v);
        return;
    }
#elif FNN_VECTOR_BYTES == 64
    const __mmask8 mask = (__mmask8)((1u << count) - 1);
    if (bytes <= 32) {
        const __m256d v = _mm256_maskz_loadu_pd(mask, from);
        _mm256_mask_storeu_pd(to, mask, add ? _mm256_add_pd(v, _mm256_maskz_loadu_pd(mask, to)) : v);
        return;
    }
#endif
    (void)bytes;
    FNN_NAME(put)(to, FNN_NAME(load_part)(from, count), count, add);
}

/* Each lane without its sign. */
FNN_INLINE FNN_VEC FNN_NAME(magnitude)(FNN_VEC v)
{
#if FNN_LANES > 1
    return (FNN_VEC)((FNN_NAME(mask))v & (FNN_INT)(FNN_REAL_BITS == 32 ? INT32_MAX : INT64_MAX));
#else
    return v < 0 ? -v : v;
#endif
}

FNN_INLINE int FNN_NAME(has_nan)(FNN_VEC v)
{
#if FNN_VECTOR_BYTES == 64 && FNN_REAL_BITS == 32
    return _mm512_cmp_ps_mask((__m512)v, (__m512)v, _CMP_UNORD_Q) != 0;
#elif FNN_VECTOR_BYTES == 64
    return _mm512_cmp_pd_mask((__m512d)v, (__m512d)v, _CMP_UNORD_Q) != 0;
#elif FNN_VECTOR_BYTES == 32 && FNN_REAL_BITS == 32
    return _mm256_movemask_ps(_mm256_cmp_ps((__m256)v, (__m256)v, _CMP_UNORD_Q)) != 0;
#elif FNN_VECTOR_BYTES == 32
    return _mm256_movemask_pd(_mm256_cmp_pd((__m256d)v, (__m256d)v, _CMP_UNORD_Q)) != 0;
#elif defined(__SSE2__) && FNN_LANES > 1 && FNN_REAL_BITS == 32
    return _mm_movemask_ps(_mm_cmpunord_ps((__m128)v, (__m128)v)) != 0;
#elif defined(__SSE2__) && FNN_LANES > 1
    return _mm_movemask_pd(_mm_cmpunord_pd((__m128d)v, (__m128d)v)) != 0;
#else
    FNN_REAL lanes[FNN_LANES];
    int found = 0;
    FNN_NAME(store)(lanes, v);
    for (int q = 0; q < FNN_LANES; q++)
        found |= lanes[q] != lanes[q];
    return found;
#endif
}

/* The larger of each two lanes; that of b where one is NaN. */
FNN_INLINE FNN_VEC FNN_NAME(larger)(FNN_VEC a, FNN_VEC b)
{
#if FNN_LANES > 1
    const FNN_NAME(mask) above = (FNN_NAME(mask))(a > b);
    return (FNN_VEC)(((FNN_NAME(mask))a & above) | ((FNN_NAME(mask))b & ~above));
#else
    return a > b ? a : b;
#endif
}

/* One step of a transposition: the 2 by 2 blocks of s by s numbers that lie in rows a and b (b being s rows below a)
 * exchange their off-diagonal blocks. `upper` is the new a, `lower` the new b. */
#define FNN_UPPER(lane, s) (((lane) & (s)) ? FNN_LANES + (lane) - (s) : (lane))
#define FNN_LOWER(lane, s) (((lane) & (s)) ? FNN_LANES + (lane) : (lane) + (s))
#if FNN_LANES == 1
#define FNN_SHUFFLE(a, b, lanes, s) (a)
#elif defined(__clang__)
#define FNN_SHUFFLE(a, b, lanes, s) __builtin_shufflevector(a, b, FNN_JOIN(FNN_EACH_, FNN_LANES)(lanes, s))
#else
#define FNN_SHUFFLE(a, b, lanes, s) \
    __builtin_shuffle(a, b, (FNN_NAME(mask)){FNN_JOIN(FNN_EACH_, FNN_LANES)(lanes, s)})
#endif

FNN_INLINE FNN_VEC FNN_NAME(upper)(FNN_VEC a, FNN_VEC b, int s)
{
    (void)b, (void)s;
    return s == 1 ? FNN_SHUFFLE(a, b, FNN_UPPER, 1)
         : s == 2 ? FNN_SHUFFLE(a, b, FNN_UPPER, 2)
         : s == 4 ? FNN_SHUFFLE(a, b, FNN_UPPER, 4)
                  : FNN_SHUFFLE(a, b, FNN_UPPER, 8);
}

FNN_INLINE FNN_VEC FNN_NAME(lower)(FNN_VEC a, FNN_VEC b, int s)
{
    (void)b, (void)s;
    return s == 1 ? FNN_SHUFFLE(a, b, FNN_LOWER, 1)
         : s == 2 ? FNN_SHUFFLE(a, b, FNN_LOWER, 2)
         : s == 4 ? FNN_SHUFFLE(a, b, FNN_LOWER, 4)
                  : FNN_SHUFFLE(a, b, FNN_LOWER, 8);
}

/* The sum of all lanes: halves are added to halves. */
FNN_INLINE FNN_REAL FNN_NAME(sum_lanes)(FNN_VEC v)
{
#if FNN_LANES > 8
    v += FNN_NAME(lower)(v, v, 8);
#endif
#if FNN_LANES > 4
    v += FNN_NAME(lower)(v, v, 4);
#endif
#if FNN_LANES > 2
    v += FNN_NAME(lower)(v, v, 2);
#endif
#if FNN_LANES > 1
    v += FNN_NAME(lower)(v, v, 1);
    return v[0];
#else
    return v;
#endif
}

/* Lane i gets lane i - n, or lane i + n, and zero where there is none; n is 1 or 2. */
#define FNN_UP(lane, n) ((lane) < (n) ? FNN_LANES : (lane) - (n))
#define FNN_DOWN(lane, n) ((lane) + (n) < FNN_LANES ? (lane) + (n) : FNN_LANES)

FNN_INLINE FNN_VEC FNN_NAME(shift_up)(FNN_VEC v, int n)
{
    const FNN_VEC zero = FNN_NAME(splat)(0);
#if FNN_LANES == 1
    return (void)v, (void)n, zero;
#else
    return n == 1 ? FNN_SHUFFLE(v, zero, FNN_UP, 1) : FNN_SHUFFLE(v, zero, FNN_UP, 2);
#endif
}

FNN_INLINE FNN_VEC FNN_NAME(shift_down)(FNN_VEC v, int n)
{
    const FNN_VEC zero = FNN_NAME(splat)(0);
#if FNN_LANES == 1
    return (void)v, (void)n, zero;
#else
    return n == 1 ? FNN_SHUFFLE(v, zero, FNN_DOWN, 1) : FNN_SHUFFLE(v, zero, FNN_DOWN, 2);
#endif
}

/* Numbers that are two apart in memory. a is the vector at p and b the one at p + FNN_LANES - 1: together they are what
 * lies between the first and the last of these numbers, and nothing beyond. */
#define FNN_LANE(lane, n) (lane)
#define FNN_EVEN(lane, n) (2 * (lane) + ((lane) >= (n)))
#define FNN_SPREAD_A(lane, n) ((lane) % 2 ? FNN_LANES + (lane) : (lane) / 2)
#define FNN_SPREAD_B(lane, n) ((lane) % 2 ? (n) + (lane) / 2 : FNN_LANES + (lane))

FNN_INLINE FNN_VEC FNN_NAME(every_second)(FNN_VEC a, FNN_VEC b)
{
    (void)b;
    return FNN_SHUFFLE(a, b, FNN_EVEN, FNN_LANES / 2);
}

/* a and b with the lanes of v in the places of these numbers. */
FNN_INLINE FNN_VEC FNN_NAME(spread_a)(FNN_VEC v, FNN_VEC a)
{
    (void)a;
    return FNN_SHUFFLE(v, a, FNN_SPREAD_A, 0);
}

FNN_INLINE FNN_VEC FNN_NAME(spread_b)(FNN_VEC v, FNN_VEC b)
{
    (void)b;
    return FNN_SHUFFLE(v, b, FNN_SPREAD_B, FNN_LANES / 2);
}

/* The lanes of a, then b, that are in even places, and in odd ones. */
#define FNN_EVERY_SECOND(lane, n) (2 * (lane) + (n))

FNN_INLINE FNN_VEC FNN_NAME(evens)(FNN_VEC a, FNN_VEC b)
{
    (void)b;
    return FNN_SHUFFLE(a, b, FNN_EVERY_SECOND, 0);
}

FNN_INLINE FNN_VEC FNN_NAME(odds)(FNN_VEC a, FNN_VEC b)
{
    (void)a;
    return FNN_LANES == 1 ? b : FNN_SHUFFLE(a, b, FNN_EVERY_SECOND, 1);
}

/* The way back: the first half of what these are the even and the odd places of, and the second. */
#define FNN_MIXED(lane, n) ((lane) / 2 + ((lane) % 2 ? FNN_LANES : 0) + (n))

FNN_INLINE FNN_VEC FNN_NAME(mixed_low)(FNN_VEC even, FNN_VEC odd)
{
    (void)odd;
    return FNN_SHUFFLE(even, odd, FNN_MIXED, 0);
}

FNN_INLINE FNN_VEC FNN_NAME(mixed_high)(FNN_VEC even, FNN_VEC odd)
{
    (void)even;
    return FNN_LANES == 1 ? odd : FNN_SHUFFLE(even, odd, FNN_MIXED, FNN_LANES / 2);
}

#if FNN_FREE_MASKS
/* 0, step, 2 step, ... */
FNN_INLINE FNN_NAME(mask) FNN_NAME(places)(ptrdiff_t step)
{
    const FNN_NAME(mask) lane = {FNN_JOIN(FNN_EACH_, FNN_LANES)(FNN_LANE, 0)};
    return lane * (FNN_INT)step;
}

/* The first `count` lanes get those of a, then b, that are at these places, the others zeros. */
FNN_INLINE FNN_VEC FNN_NAME(pick)(FNN_VEC a, FNN_VEC b, FNN_NAME(mask) places, ptrdiff_t count)
{
#if FNN_REAL_BITS == 32
    return (FNN_VEC)_mm512_maskz_permutex2var_ps((__mmask16)((1u << count) - 1), (__m512)a, (__m512i)places, (__m512)b);
#else
    return (FNN_VEC)_mm512_maskz_permutex2var_pd((__mmask8)((1u << count) - 1), (__m512d)a, (__m512i)places, (__m512d)b);
#endif
}
#endif

#undef FNN_VEC
#undef FNN_LANE
#undef FNN_EVEN
#undef FNN_SPREAD_A
#undef FNN_SPREAD_B
#undef FNN_EVERY_SECOND
#undef FNN_MIXED
#undef FNN_UP
#undef FNN_DOWN
#undef FNN_UPPER
#undef FNN_LOWER
#undef FNN_SHUFFLE
#undef FNN_REAL
#undef FNN_INT
#undef FNN_REAL_BITS
#undef FNN_LANES
#undef FNN_NAME
