/* Stores that go past the caches, for results that are larger than these: memory is not read before it is written, and
 * what is in cache stays there. Elsewhere than on x86 they are ordinary stores.
 *
 * Filled line by line: a loop computes into a small buffer that stays in the first-level cache, from where it is moved. */
#ifndef FASTNN_STREAM_H
#define FASTNN_STREAM_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include "arena.h"

#if defined(__SSE2__) || defined(_M_X64)
#include <immintrin.h>
#endif

enum {
    FNN_CACHE_LINE = 64,
    FNN_STREAM_PIECE = 512, /* bytes that are computed before they are moved: few, so that the two overlap */
    FNN_STREAM_BYTES = 1 << 24 /* of a result that is worth it: more than a core has of its caches */
};

/* How many bytes from `address` on the next cache line begins. */
FNN_STATIC ptrdiff_t fnn_to_line(const void *address)
{
    return (ptrdiff_t)(-(uintptr_t)address % FNN_CACHE_LINE);
}

/* Move whole cache lines that both begin on one. */
FNN_STATIC void fnn_stream(void *target, const void *source, ptrdiff_t bytes)
{
#if defined(__AVX512F__)
    for (ptrdiff_t at = 0; at < bytes; at += 64)
        _mm512_stream_si512((__m512i *)((char *)target + at), *(const __m512i *)((const char *)source + at));
#elif defined(__AVX__)
    for (ptrdiff_t at = 0; at < bytes; at += 32)
        _mm256_stream_si256((__m256i *)((char *)target + at), *(const __m256i *)((const char *)source + at));
#elif defined(__SSE2__) || defined(_M_X64)
    for (ptrdiff_t at = 0; at < bytes; at += 16)
        _mm_stream_si128((__m128i *)((char *)target + at), *(const __m128i *)((const char *)source + at));
#else
    memcpy(target, source, (size_t)bytes);
#endif
}

/* Before other threads may read what was streamed. */
FNN_STATIC void fnn_stream_end(void)
{
#if defined(__SSE2__) || defined(_M_X64)
    _mm_sfence();
#endif
}

#endif
