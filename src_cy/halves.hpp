/* float16 and bfloat16, as their bits, made floats and back, rounded to nearest, ties to even. What is plain C the compiler
 * makes vectors of. Uses call.h, language.hpp. */
#pragma once
#include "call.h"
#include "language.hpp"

namespace {
INLINE float float_of(uint32_t bits) {
    float a;
    __builtin_memcpy(&a, &bits, sizeof a);
    return a;
}

INLINE uint32_t bits_of_float(float a) {
    uint32_t bits;
    __builtin_memcpy(&bits, &a, sizeof bits);
    return bits;
}

/* The exponent is moved by a multiplication, which makes subnormals normal; infinities and NaN get all of its bits. */
INLINE float wide_float16(uint16_t a) {
    const uint32_t size = a & 0x7fff, sign = (uint32_t)(a & 0x8000) << 16;
    const uint32_t bits = bits_of_float(float_of(size << 13) * 0x1p112f);
    return float_of(sign | bits | (size >= 0x7c00 ? 0x7f800000 : 0));
}

/* What is subnormal or 0 is rounded by the addition of a number whose last digit is theirs. */
INLINE uint16_t narrow_float16(float a) {
    const uint32_t bits = bits_of_float(a), size = bits & 0x7fffffff, magic = bits_of_float(0.5f);
    const uint32_t small = bits_of_float(float_of(size) + 0.5f) - magic;
    const uint32_t normal = (size - ((127 - 15) << 23) + 0xfff + ((size >> 13) & 1)) >> 13;
    const uint32_t large = size > 0x7f800000 ? 0x7e00 : 0x7c00;
    return (uint16_t)(bits >> 16 & 0x8000) | (uint16_t)(size < bits_of_float(0x1p-14f)   ? small
                                                        : size < bits_of_float(0x1p16f) ? normal
                                                                                        : large);
}

INLINE float wide_bfloat16(uint16_t a) { return float_of((uint32_t)a << 16); }

INLINE uint16_t narrow_bfloat16(float a) {
    const uint32_t bits = bits_of_float(a), is_nan = (bits & 0x7fffffff) > 0x7f800000;
    return (uint16_t)((is_nan ? bits | 0x400000 : bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

/* As many as the instructions of the level take at once; returns how many that was. */
INLINE ptrdiff_t widen_by_f16c(const uint16_t *from, float *to, ptrdiff_t n) {
    ptrdiff_t i = 0;
#if VECTOR_BYTES == 64
    for (; i + 16 <= n; i += 16) _mm512_storeu_ps(to + i, _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(from + i))));
#elif defined(__F16C__)
    for (; i + 8 <= n; i += 8) _mm256_storeu_ps(to + i, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(from + i))));
#endif
    return i;
}

INLINE ptrdiff_t narrow_by_f16c(const float *from, uint16_t *to, ptrdiff_t n) {
    ptrdiff_t i = 0;
#if VECTOR_BYTES == 64
    for (; i + 16 <= n; i += 16) _mm256_storeu_si256((__m256i *)(to + i), _mm512_cvtps_ph(_mm512_loadu_ps(from + i), 0));
#elif defined(__F16C__)
    for (; i + 8 <= n; i += 8) _mm_storeu_si128((__m128i *)(to + i), _mm256_cvtps_ph(_mm256_loadu_ps(from + i), 0));
#endif
    return i;
}

void widen(const uint16_t *from, float *to, ptrdiff_t n, enum type kind) {
    if (kind == BFLOAT16)
        for (ptrdiff_t i = 0; i < n; i++) to[i] = wide_bfloat16(from[i]);
    else
        for (ptrdiff_t i = widen_by_f16c(from, to, n); i < n; i++) to[i] = wide_float16(from[i]);
}

void narrow(const float *from, uint16_t *to, ptrdiff_t n, enum type kind) {
    if (kind == BFLOAT16)
        for (ptrdiff_t i = 0; i < n; i++) to[i] = narrow_bfloat16(from[i]);
    else
        for (ptrdiff_t i = narrow_by_f16c(from, to, n); i < n; i++) to[i] = narrow_float16(from[i]);
}
} // namespace
