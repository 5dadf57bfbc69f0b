/* One vector of float or double at the ISA level this file is compiled for: 64 bytes at x86-64-v4, 32 at
 * v3, 16 elsewhere (SSE, NEON). GCC's and Clang's vector types give arithmetic and contraction to FMA;
 * intrinsics stand only where those types have no operation for it. */
#pragma once

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__) && defined(__AVX512VL__) && defined(__AVX512DQ__)
#define VECTOR_BYTES 64
#elif defined(__AVX2__)
#define VECTOR_BYTES 32
#else
#define VECTOR_BYTES 16
#endif

#if defined(__FMA__) || defined(__ARM_FEATURE_FMA)
#define HAS_FMA 1
#else
#define HAS_FMA 0
#endif

#define INLINE static inline __attribute__((always_inline))
#define PASS static __attribute__((noinline, unused, aligned(64)))
#define VECTOR(type) __attribute__((vector_size(VECTOR_BYTES))) type

typedef VECTOR(float) vec_f32;
typedef VECTOR(double) vec_f64;
typedef VECTOR(int32_t) bits_f32;
typedef VECTOR(int64_t) bits_f64;

/* x86's max and min return the second operand where either is NaN; so does the generic form. */
#define GENERIC_PICK(name, real, op)                                                                       \
    INLINE vec_##real name##_##real(vec_##real a, vec_##real b) {                                          \
        bits_##real take_a = a op b;                                                                       \
        return (vec_##real)((take_a & (bits_##real)a) | (~take_a & (bits_##real)b));                       \
    }

#if VECTOR_BYTES == 64
#define SUFFIXED(f, real) SUFFIXED_##real(_mm512_##f)
#elif VECTOR_BYTES == 32
#define SUFFIXED(f, real) SUFFIXED_##real(_mm256_##f)
#elif defined(__SSE2__)
#define SUFFIXED(f, real) SUFFIXED_##real(_mm_##f)
#endif
#define SUFFIXED_f32(f) f##_ps
#define SUFFIXED_f64(f) f##_pd

/* A list of E(lane) for all lanes. */
#define LIST_2(E, l) E(l), E(l + 1)
#define LIST_4(E, l) LIST_2(E, l), LIST_2(E, l + 2)
#define LIST_8(E, l) LIST_4(E, l), LIST_4(E, l + 4)
#define LIST_16(E, l) LIST_8(E, l), LIST_8(E, l + 8)
#if VECTOR_BYTES == 64
#define EACH_LANE_f32(E) LIST_16(E, 0)
#define EACH_LANE_f64(E) LIST_8(E, 0)
#elif VECTOR_BYTES == 32
#define EACH_LANE_f32(E) LIST_8(E, 0)
#define EACH_LANE_f64(E) LIST_4(E, 0)
#else
#define EACH_LANE_f32(E) LIST_4(E, 0)
#define EACH_LANE_f64(E) LIST_2(E, 0)
#endif

/* All lanes `a`; the largest lane. */
#ifdef SUFFIXED
INLINE vec_f32 splat_f32(float a) { return SUFFIXED(set1, f32)(a); }
INLINE vec_f64 splat_f64(double a) { return SUFFIXED(set1, f64)(a); }
#else
INLINE vec_f32 splat_f32(float a) { return a - (vec_f32){0}; }
INLINE vec_f64 splat_f64(double a) { return a - (vec_f64){0}; }
#endif

#if VECTOR_BYTES == 64
INLINE float max_lane_f32(vec_f32 v) { return _mm512_reduce_max_ps(v); }
INLINE double max_lane_f64(vec_f64 v) { return _mm512_reduce_max_pd(v); }
#else
#define LARGEST_THROUGH_MEMORY(real, type)                                                                 \
    INLINE type max_lane_##real(vec_##real v) {                                                            \
        type lanes[VECTOR_BYTES / sizeof(type)];                                                           \
        memcpy(lanes, &v, sizeof lanes);                                                                   \
        for (int w = VECTOR_BYTES / sizeof(type) / 2; w; w /= 2)                                           \
            for (int i = 0; i < w; i++) lanes[i] = lanes[i] > lanes[i + w] ? lanes[i] : lanes[i + w];      \
        return lanes[0];                                                                                   \
    }
LARGEST_THROUGH_MEMORY(f32, float)
LARGEST_THROUGH_MEMORY(f64, double)
#endif

#ifdef SUFFIXED
#define NATIVE_PICK(name, real)                                                                            \
    INLINE vec_##real name##_##real(vec_##real a, vec_##real b) { return SUFFIXED(name, real)(a, b); }
NATIVE_PICK(max, f32)
NATIVE_PICK(max, f64)
NATIVE_PICK(min, f32)
NATIVE_PICK(min, f64)
#else
GENERIC_PICK(max, f32, >)
GENERIC_PICK(max, f64, >)
GENERIC_PICK(min, f32, <)
GENERIC_PICK(min, f64, <)
#endif

/* a * b + c in one rounding where the hardware has it. Nothing else is contracted (setup.py): the same bits wherever a
 * formula is inlined. */
#if HAS_FMA && defined(SUFFIXED)
INLINE vec_f32 fma_f32(vec_f32 a, vec_f32 b, vec_f32 c) { return SUFFIXED(fmadd, f32)(a, b, c); }
INLINE vec_f64 fma_f64(vec_f64 a, vec_f64 b, vec_f64 c) { return SUFFIXED(fmadd, f64)(a, b, c); }
#elif HAS_FMA
INLINE vec_f32 fma_f32(vec_f32 a, vec_f32 b, vec_f32 c) {
    for (int i = 0; i < 4; i++) c[i] = __builtin_fmaf(a[i], b[i], c[i]);
    return c;
}
INLINE vec_f64 fma_f64(vec_f64 a, vec_f64 b, vec_f64 c) {
    for (int i = 0; i < 2; i++) c[i] = __builtin_fma(a[i], b[i], c[i]);
    return c;
}
#else
INLINE vec_f32 fma_f32(vec_f32 a, vec_f32 b, vec_f32 c) { return a * b + c; }
INLINE vec_f64 fma_f64(vec_f64 a, vec_f64 b, vec_f64 c) { return a * b + c; }
#endif

/* Masks of lanes: a bit each in AVX-512's mask registers (there a vector of them would be converted back and forth
 * at each use), elsewhere a vector of all ones and zeros. Both take &, | and ~. */
#if VECTOR_BYTES == 64
typedef __mmask16 mask_f32;
typedef __mmask8 mask_f64;
#define COMPARISON(name, operator, code)                                                                   \
    INLINE mask_f32 name##_f32(vec_f32 a, vec_f32 b) { return _mm512_cmp_ps_mask(a, b, code); }            \
    INLINE mask_f64 name##_f64(vec_f64 a, vec_f64 b) { return _mm512_cmp_pd_mask(a, b, code); }
INLINE int any_f32(mask_f32 hit) { return hit != 0; }
INLINE int any_f64(mask_f64 hit) { return hit != 0; }
INLINE mask_f32 is_negative_f32(bits_f32 a) { return _mm512_movepi32_mask((__m512i)a); }
INLINE mask_f64 is_negative_f64(bits_f64 a) { return _mm512_movepi64_mask((__m512i)a); }
INLINE mask_f32 only_lane_f32(ptrdiff_t i) { return (mask_f32)(i >= 0 && i < 16 ? 1u << i : 0); }
INLINE mask_f64 only_lane_f64(ptrdiff_t i) { return (mask_f64)(i >= 0 && i < 8 ? 1u << i : 0); }
INLINE vec_f32 select_f32(mask_f32 take_a, vec_f32 a, vec_f32 b) { return _mm512_mask_blend_ps(take_a, b, a); }
INLINE vec_f64 select_f64(mask_f64 take_a, vec_f64 a, vec_f64 b) { return _mm512_mask_blend_pd(take_a, b, a); }
#else
typedef bits_f32 mask_f32;
typedef bits_f64 mask_f64;
#define COMPARISON(name, operator, code)                                                                   \
    INLINE mask_f32 name##_f32(vec_f32 a, vec_f32 b) { return a operator b; }                              \
    INLINE mask_f64 name##_f64(vec_f64 a, vec_f64 b) { return a operator b; }
#ifdef SUFFIXED
INLINE int any_f32(mask_f32 hit) { return SUFFIXED(movemask, f32)((vec_f32)hit) != 0; }
INLINE int any_f64(mask_f64 hit) { return SUFFIXED(movemask, f64)((vec_f64)hit) != 0; }
#else
INLINE int any_f64(mask_f64 hit) { return (hit[0] | hit[1]) != 0; }
INLINE int any_f32(mask_f32 hit) { return any_f64((mask_f64)hit); }
#endif
#define MASK_OF_VECTORS(real, integer)                                                                     \
    INLINE mask_##real is_negative_##real(bits_##real a) { return a < 0; }                                 \
    INLINE mask_##real only_lane_##real(ptrdiff_t i) {                                                     \
        mask_##real lane;                                                                                  \
        for (int l = 0; l < VECTOR_BYTES / (int)sizeof(integer); l++) lane[l] = l == i ? -1 : 0;           \
        return lane;                                                                                       \
    }                                                                                                      \
    INLINE vec_##real select_##real(mask_##real take_a, vec_##real a, vec_##real b) {                      \
        return (vec_##real)((take_a & (bits_##real)a) | (~take_a & (bits_##real)b));                       \
    }
MASK_OF_VECTORS(f32, int32_t)
MASK_OF_VECTORS(f64, int64_t)
#endif
COMPARISON(greater, >, _CMP_GT_OQ)
COMPARISON(less, <, _CMP_LT_OQ)
COMPARISON(equal, ==, _CMP_EQ_OQ)

/* 1 / a within an ULP or two, where both are normal. Newton's steps on AVX-512's estimate of 14 bits take 5 cycles in
 * place of the division's 16. */
#if VECTOR_BYTES == 64
INLINE vec_f32 reciprocal_f32(vec_f32 a) {
    vec_f32 r = _mm512_rcp14_ps(a);
    return fma_f32(r, fma_f32(-a, r, splat_f32(1)), r);
}
INLINE vec_f64 reciprocal_f64(vec_f64 a) {
    vec_f64 r = _mm512_rcp14_pd(a);
    for (int step = 0; step < 2; step++) r = fma_f64(r, fma_f64(-a, r, splat_f64(1)), r);
    return r;
}
#else
INLINE vec_f32 reciprocal_f32(vec_f32 a) { return 1 / a; }
INLINE vec_f64 reciprocal_f64(vec_f64 a) { return 1 / a; }
#endif

/* 0 in the lanes of a mask, which are counted. */
#if VECTOR_BYTES == 64
INLINE vec_f32 leave_out_f32(vec_f32 v, mask_f32 out, bits_f32 *count) {
    *count = (bits_f32)_mm512_mask_add_epi32((__m512i)*count, out, (__m512i)*count, _mm512_set1_epi32(1));
    return _mm512_mask_mov_ps(v, out, _mm512_setzero_ps());
}
INLINE vec_f64 leave_out_f64(vec_f64 v, mask_f64 out, bits_f64 *count) {
    *count = (bits_f64)_mm512_mask_add_epi64((__m512i)*count, out, (__m512i)*count, _mm512_set1_epi64(1));
    return _mm512_mask_mov_pd(v, out, _mm512_setzero_pd());
}
#else
#define LEAVE_OUT(real)                                                                                    \
    INLINE vec_##real leave_out_##real(vec_##real v, mask_##real out, bits_##real *count) {                \
        *count -= out;                                                                                     \
        return (vec_##real)(~out & (bits_##real)v);                                                        \
    }
LEAVE_OUT(f32)
LEAVE_OUT(f64)
#endif

/* p[label * stride + lane] for the label of each lane, 0 where that is negative. AVX-512 gathers them in two thirds of
 * the time; AVX2 would take longer. Elsewhere not through an array: a vector that is read where its lanes were written
 * waits for all of them (13 ns in place of 6). */
#if VECTOR_BYTES == 64
typedef VECTOR(ptrdiff_t) labels_8;
INLINE labels_8 places(labels_8 labels, ptrdiff_t stride, ptrdiff_t l) {
    return labels * stride + (labels_8){l, l + 1, l + 2, l + 3, l + 4, l + 5, l + 6, l + 7};
}
INLINE __mmask8 are_labels(labels_8 labels) { return (__mmask8)~_mm512_movepi64_mask((__m512i)labels); }
INLINE vec_f64 gather_f64(const double *p, ptrdiff_t stride, const ptrdiff_t *label) {
    labels_8 labels;
    memcpy(&labels, label, sizeof labels);
    __m512i at = (__m512i)places(labels, stride, 0);
    return _mm512_mask_i64gather_pd(_mm512_setzero_pd(), are_labels(labels), at, p, sizeof *p);
}
INLINE __m256 gather_half(const float *p, ptrdiff_t stride, const ptrdiff_t *label, ptrdiff_t lane) {
    labels_8 labels;
    memcpy(&labels, label + lane, sizeof labels);
    __m512i at = (__m512i)places(labels, stride, lane);
    return _mm512_mask_i64gather_ps(_mm256_setzero_ps(), are_labels(labels), at, p, sizeof *p);
}
INLINE vec_f32 gather_f32(const float *p, ptrdiff_t stride, const ptrdiff_t *label) {
    __m512 low = _mm512_castps256_ps512(gather_half(p, stride, label, 0));
    return _mm512_insertf32x8(low, gather_half(p, stride, label, 8), 1);
}
#else
#define ENTRY(l) (label[l] < 0 ? 0 : p[label[l] * stride + l])
INLINE vec_f32 gather_f32(const float *p, ptrdiff_t stride, const ptrdiff_t *label) {
    return (vec_f32){EACH_LANE_f32(ENTRY)};
}
INLINE vec_f64 gather_f64(const double *p, ptrdiff_t stride, const ptrdiff_t *label) {
    return (vec_f64){EACH_LANE_f64(ENTRY)};
}
#undef ENTRY
#endif

/* Half a vector of floats as doubles; and two such halves, rounded, as a whole. */
#if VECTOR_BYTES == 64
INLINE vec_f64 lower_half(vec_f32 v) { return _mm512_cvtps_pd(_mm512_castps512_ps256(v)); }
INLINE vec_f64 upper_half(vec_f32 v) { return _mm512_cvtps_pd(_mm512_extractf32x8_ps(v, 1)); }
INLINE vec_f32 join_halves(vec_f64 low, vec_f64 high) {
    return _mm512_insertf32x8(_mm512_castps256_ps512(_mm512_cvtpd_ps(low)), _mm512_cvtpd_ps(high), 1);
}
#elif VECTOR_BYTES == 32
INLINE vec_f64 lower_half(vec_f32 v) { return _mm256_cvtps_pd(_mm256_castps256_ps128(v)); }
INLINE vec_f64 upper_half(vec_f32 v) { return _mm256_cvtps_pd(_mm256_extractf128_ps(v, 1)); }
INLINE vec_f32 join_halves(vec_f64 low, vec_f64 high) {
    return _mm256_insertf128_ps(_mm256_castps128_ps256(_mm256_cvtpd_ps(low)), _mm256_cvtpd_ps(high), 1);
}
#elif defined(__SSE2__)
INLINE vec_f64 lower_half(vec_f32 v) { return _mm_cvtps_pd(v); }
INLINE vec_f64 upper_half(vec_f32 v) { return _mm_cvtps_pd(_mm_movehl_ps(v, v)); }
INLINE vec_f32 join_halves(vec_f64 low, vec_f64 high) { return _mm_movelh_ps(_mm_cvtpd_ps(low), _mm_cvtpd_ps(high)); }
#else
INLINE vec_f64 lower_half(vec_f32 v) { return (vec_f64){v[0], v[1]}; }
INLINE vec_f64 upper_half(vec_f32 v) { return (vec_f64){v[2], v[3]}; }
INLINE vec_f32 join_halves(vec_f64 low, vec_f64 high) {
    return (vec_f32){(float)low[0], (float)low[1], (float)high[0], (float)high[1]};
}
#endif

/* The first `count` lanes from memory, all of them or none included, and `fill` in the others; and back. */
#if VECTOR_BYTES == 64
#define FIRST(count, lanes) ((1u << ((count) > (lanes) ? (lanes) : (count) < 0 ? 0 : (count))) - 1)
INLINE vec_f32 load_part_f32(const float *p, ptrdiff_t count, vec_f32 fill) {
    return _mm512_mask_loadu_ps(fill, (__mmask16)FIRST(count, 16), p);
}
INLINE vec_f64 load_part_f64(const double *p, ptrdiff_t count, vec_f64 fill) {
    return _mm512_mask_loadu_pd(fill, (__mmask8)FIRST(count, 8), p);
}
INLINE void store_part_f32(float *p, ptrdiff_t count, vec_f32 v) {
    _mm512_mask_storeu_ps(p, (__mmask16)FIRST(count, 16), v);
}
INLINE void store_part_f64(double *p, ptrdiff_t count, vec_f64 v) {
    _mm512_mask_storeu_pd(p, (__mmask8)FIRST(count, 8), v);
}
#elif VECTOR_BYTES == 32
INLINE __m256i first_f32(ptrdiff_t count) {
    const __m256i index = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)(count > 8 ? 8 : count)), index);
}
INLINE __m256i first_f64(ptrdiff_t count) {
    return _mm256_cmpgt_epi64(_mm256_set1_epi64x(count), _mm256_setr_epi64x(0, 1, 2, 3));
}
INLINE vec_f32 load_part_f32(const float *p, ptrdiff_t count, vec_f32 fill) {
    __m256i first = first_f32(count);
    return _mm256_blendv_ps(fill, _mm256_maskload_ps(p, first), (__m256)first);
}
INLINE vec_f64 load_part_f64(const double *p, ptrdiff_t count, vec_f64 fill) {
    __m256i first = first_f64(count);
    return _mm256_blendv_pd(fill, _mm256_maskload_pd(p, first), (__m256d)first);
}
INLINE void store_part_f32(float *p, ptrdiff_t count, vec_f32 v) { _mm256_maskstore_ps(p, first_f32(count), v); }
INLINE void store_part_f64(double *p, ptrdiff_t count, vec_f64 v) { _mm256_maskstore_pd(p, first_f64(count), v); }
#else
#define PARTS_THROUGH_MEMORY(real, type)                                                                   \
    INLINE vec_##real load_part_##real(const type *p, ptrdiff_t count, vec_##real fill) {                  \
        type lanes[VECTOR_BYTES / sizeof(type)];                                                           \
        memcpy(lanes, &fill, sizeof lanes);                                                                \
        for (ptrdiff_t i = 0; i < VECTOR_BYTES / (ptrdiff_t)sizeof(type) && i < count; i++) lanes[i] = p[i]; \
        memcpy(&fill, lanes, sizeof lanes);                                                                \
        return fill;                                                                                       \
    }                                                                                                      \
    INLINE void store_part_##real(type *p, ptrdiff_t count, vec_##real v) {                                \
        type lanes[VECTOR_BYTES / sizeof(type)];                                                           \
        memcpy(lanes, &v, sizeof lanes);                                                                   \
        for (ptrdiff_t i = 0; i < VECTOR_BYTES / (ptrdiff_t)sizeof(type) && i < count; i++) p[i] = lanes[i]; \
    }
PARTS_THROUGH_MEMORY(f32, float)
PARTS_THROUGH_MEMORY(f64, double)
#endif

/* A vector made of 16-byte pieces that lie `apart` entries from each other; and back. */
#if VECTOR_BYTES == 64
INLINE vec_f32 load_pieces_f32(const float *p, ptrdiff_t apart) {
    __m512 v = _mm512_castps128_ps512(_mm_loadu_ps(p));
    v = _mm512_insertf32x4(v, _mm_loadu_ps(p + apart), 1);
    v = _mm512_insertf32x4(v, _mm_loadu_ps(p + 2 * apart), 2);
    return _mm512_insertf32x4(v, _mm_loadu_ps(p + 3 * apart), 3);
}
INLINE void store_pieces_f32(float *p, ptrdiff_t apart, vec_f32 v) {
    _mm_storeu_ps(p, _mm512_castps512_ps128(v));
    _mm_storeu_ps(p + apart, _mm512_extractf32x4_ps(v, 1));
    _mm_storeu_ps(p + 2 * apart, _mm512_extractf32x4_ps(v, 2));
    _mm_storeu_ps(p + 3 * apart, _mm512_extractf32x4_ps(v, 3));
}
INLINE vec_f64 load_pieces_f64(const double *p, ptrdiff_t apart) {
    __m512d v = _mm512_castpd128_pd512(_mm_loadu_pd(p));
    v = _mm512_insertf64x2(v, _mm_loadu_pd(p + apart), 1);
    v = _mm512_insertf64x2(v, _mm_loadu_pd(p + 2 * apart), 2);
    return _mm512_insertf64x2(v, _mm_loadu_pd(p + 3 * apart), 3);
}
INLINE void store_pieces_f64(double *p, ptrdiff_t apart, vec_f64 v) {
    _mm_storeu_pd(p, _mm512_castpd512_pd128(v));
    _mm_storeu_pd(p + apart, _mm512_extractf64x2_pd(v, 1));
    _mm_storeu_pd(p + 2 * apart, _mm512_extractf64x2_pd(v, 2));
    _mm_storeu_pd(p + 3 * apart, _mm512_extractf64x2_pd(v, 3));
}
#elif VECTOR_BYTES == 32
INLINE vec_f32 load_pieces_f32(const float *p, ptrdiff_t apart) {
    return _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(p)), _mm_loadu_ps(p + apart), 1);
}
INLINE void store_pieces_f32(float *p, ptrdiff_t apart, vec_f32 v) {
    _mm_storeu_ps(p, _mm256_castps256_ps128(v));
    _mm_storeu_ps(p + apart, _mm256_extractf128_ps(v, 1));
}
INLINE vec_f64 load_pieces_f64(const double *p, ptrdiff_t apart) {
    return _mm256_insertf128_pd(_mm256_castpd128_pd256(_mm_loadu_pd(p)), _mm_loadu_pd(p + apart), 1);
}
INLINE void store_pieces_f64(double *p, ptrdiff_t apart, vec_f64 v) {
    _mm_storeu_pd(p, _mm256_castpd256_pd128(v));
    _mm_storeu_pd(p + apart, _mm256_extractf128_pd(v, 1));
}
#else
#define ONE_PIECE(real, type)                                                                              \
    INLINE vec_##real load_pieces_##real(const type *p, ptrdiff_t apart) {                                 \
        (void)apart;                                                                                       \
        vec_##real v;                                                                                      \
        memcpy(&v, p, sizeof v);                                                                           \
        return v;                                                                                          \
    }                                                                                                      \
    INLINE void store_pieces_##real(type *p, ptrdiff_t apart, vec_##real v) {                              \
        (void)apart;                                                                                       \
        memcpy(p, &v, sizeof v);                                                                           \
    }
ONE_PIECE(f32, float)
ONE_PIECE(f64, double)
#endif

/* Within each piece: 4 floats of 4 vectors, or 2 doubles of 2, transposed. */
#ifdef SUFFIXED
INLINE void transpose_f64(vec_f64 *v) {
    vec_f64 a = v[0];
    v[0] = SUFFIXED(unpacklo, f64)(a, v[1]);
    v[1] = SUFFIXED(unpackhi, f64)(a, v[1]);
}
INLINE void transpose_f32(vec_f32 *v) {
    vec_f64 low[2] = {(vec_f64)SUFFIXED(unpacklo, f32)(v[0], v[1]), (vec_f64)SUFFIXED(unpacklo, f32)(v[2], v[3])};
    vec_f64 high[2] = {(vec_f64)SUFFIXED(unpackhi, f32)(v[0], v[1]), (vec_f64)SUFFIXED(unpackhi, f32)(v[2], v[3])};
    transpose_f64(low);
    transpose_f64(high);
    v[0] = (vec_f32)low[0];
    v[1] = (vec_f32)low[1];
    v[2] = (vec_f32)high[0];
    v[3] = (vec_f32)high[1];
}
#else
#define TRANSPOSE(real, count)                                                                             \
    INLINE void transpose_##real(vec_##real *v) {                                                          \
        vec_##real w[count];                                                                               \
        for (int i = 0; i < count; i++)                                                                    \
            for (int j = 0; j < count; j++) w[i][j] = v[j][i];                                             \
        memcpy(v, w, sizeof w);                                                                            \
    }
TRANSPOSE(f32, 4)
TRANSPOSE(f64, 2)
#endif
