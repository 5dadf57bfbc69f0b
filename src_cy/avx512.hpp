/* Vectors of 64 bytes, by the intrinsics of AVX-512 (F, VL, DQ). Included by simd.hpp. */
#pragma once

namespace {
INLINE float max_lane(vec<float> v) { return _mm512_reduce_max_ps(v); }
INLINE double max_lane(vec<double> v) { return _mm512_reduce_max_pd(v); }

/* The second operand where either is NaN. */
INLINE vec<float> max(vec<float> a, vec<float> b) { return _mm512_max_ps(a, b); }
INLINE vec<double> max(vec<double> a, vec<double> b) { return _mm512_max_pd(a, b); }
INLINE vec<float> min(vec<float> a, vec<float> b) { return _mm512_min_ps(a, b); }
INLINE vec<double> min(vec<double> a, vec<double> b) { return _mm512_min_pd(a, b); }

/* a * b + c, rounded once. */
INLINE vec<float> fma(vec<float> a, vec<float> b, vec<float> c) { return _mm512_fmadd_ps(a, b, c); }
INLINE vec<double> fma(vec<double> a, vec<double> b, vec<double> c) { return _mm512_fmadd_pd(a, b, c); }

/* Masks of lanes, a bit each in mask registers: a vector of them would be converted back and forth at each use. */
template <class R> struct MaskOf;
template <> struct MaskOf<float> { using Mask = __mmask16; };
template <> struct MaskOf<double> { using Mask = __mmask8; };
template <class V> using mask_of = typename MaskOf<real_of<V>>::Mask;

INLINE __mmask16 greater(vec<float> a, vec<float> b) { return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ); }
INLINE __mmask8 greater(vec<double> a, vec<double> b) { return _mm512_cmp_pd_mask(a, b, _CMP_GT_OQ); }
INLINE __mmask16 less(vec<float> a, vec<float> b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
INLINE __mmask8 less(vec<double> a, vec<double> b) { return _mm512_cmp_pd_mask(a, b, _CMP_LT_OQ); }
INLINE __mmask16 equal(vec<float> a, vec<float> b) { return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ); }
INLINE __mmask8 equal(vec<double> a, vec<double> b) { return _mm512_cmp_pd_mask(a, b, _CMP_EQ_OQ); }
INLINE __mmask16 are_equal(bits_of<vec<float>> a, bits_of<vec<float>> b) {
    return _mm512_cmpeq_epi32_mask((__m512i)a, (__m512i)b);
}
INLINE __mmask8 are_equal(bits_of<vec<double>> a, bits_of<vec<double>> b) {
    return _mm512_cmpeq_epi64_mask((__m512i)a, (__m512i)b);
}
INLINE bool any(__mmask16 hit) { return hit != 0; }
INLINE __mmask16 is_negative(bits_of<vec<float>> a) { return _mm512_movepi32_mask((__m512i)a); }
INLINE __mmask8 is_negative(bits_of<vec<double>> a) { return _mm512_movepi64_mask((__m512i)a); }
template <class R> INLINE mask_of<vec<R>> only_lane(ptrdiff_t i) {
    return (mask_of<vec<R>>)(i >= 0 && i < LANES<R> ? 1u << i : 0);
}
INLINE vec<float> select(__mmask16 take_a, vec<float> a, vec<float> b) { return _mm512_mask_blend_ps(take_a, b, a); }
INLINE vec<double> select(__mmask8 take_a, vec<double> a, vec<double> b) { return _mm512_mask_blend_pd(take_a, b, a); }

/* 1 / a within an ULP or two, where both are normal. Newton's steps on an estimate of 14 bits take 5 cycles in place of
 * the division's 16. */
INLINE vec<float> reciprocal(vec<float> a) {
    vec<float> r = _mm512_rcp14_ps(a);
    return fma(r, fma(-a, r, splat<vec<float>>(1)), r);
}
INLINE vec<double> reciprocal(vec<double> a) {
    vec<double> r = _mm512_rcp14_pd(a);
    for (int step = 0; step < 2; step++) r = fma(r, fma(-a, r, splat<vec<double>>(1)), r);
    return r;
}

/* 0 in the lanes of a mask, which are counted. */
INLINE vec<float> leave_out(vec<float> v, __mmask16 out, bits_of<vec<float>> *count) {
    *count = (bits_of<vec<float>>)_mm512_mask_add_epi32((__m512i)*count, out, (__m512i)*count, _mm512_set1_epi32(1));
    return _mm512_mask_mov_ps(v, out, _mm512_setzero_ps());
}
INLINE vec<double> leave_out(vec<double> v, __mmask8 out, bits_of<vec<double>> *count) {
    *count = (bits_of<vec<double>>)_mm512_mask_add_epi64((__m512i)*count, out, (__m512i)*count, _mm512_set1_epi64(1));
    return _mm512_mask_mov_pd(v, out, _mm512_setzero_pd());
}

/* p[label * stride + lane] for the label of each lane, 0 where that is negative: gathered, in two thirds of the time of
 * one by one. */
INLINE __m512i places(const ptrdiff_t *label, ptrdiff_t stride, ptrdiff_t l) {
    bits_of<vec<double>> labels, lane = {l, l + 1, l + 2, l + 3, l + 4, l + 5, l + 6, l + 7};
    __builtin_memcpy(&labels, label + l, sizeof labels);
    return (__m512i)(labels * stride + lane);
}
INLINE __mmask8 are_labels(const ptrdiff_t *label) {
    return (__mmask8)~_mm512_movepi64_mask(_mm512_loadu_si512(label));
}
INLINE vec<double> gather(const double *p, ptrdiff_t stride, const ptrdiff_t *label) {
    return _mm512_mask_i64gather_pd(_mm512_setzero_pd(), are_labels(label), places(label, stride, 0), p, sizeof *p);
}
INLINE __m256 gather_half(const float *p, ptrdiff_t stride, const ptrdiff_t *label, ptrdiff_t l) {
    return _mm512_mask_i64gather_ps(_mm256_setzero_ps(), are_labels(label + l), places(label, stride, l), p, sizeof *p);
}
INLINE vec<float> gather(const float *p, ptrdiff_t stride, const ptrdiff_t *label) {
    __m512 low = _mm512_castps256_ps512(gather_half(p, stride, label, 0));
    return _mm512_insertf32x8(low, gather_half(p, stride, label, 8), 1);
}

/* Half a vector of floats as doubles; and two such halves, rounded, as a whole. */
INLINE vec<double> lower_half(vec<float> v) { return _mm512_cvtps_pd(_mm512_castps512_ps256(v)); }
INLINE vec<double> upper_half(vec<float> v) { return _mm512_cvtps_pd(_mm512_extractf32x8_ps(v, 1)); }
INLINE vec<float> join_halves(vec<double> low, vec<double> high) {
    return _mm512_insertf32x8(_mm512_castps256_ps512(_mm512_cvtpd_ps(low)), _mm512_cvtpd_ps(high), 1);
}

/* The first `count` lanes from memory, all of them or none included, and `fill` in the others; and back. */
template <class R> INLINE mask_of<vec<R>> first(ptrdiff_t count) {
    return (mask_of<vec<R>>)((1u << (count > LANES<R> ? LANES<R> : count < 0 ? 0 : count)) - 1);
}
INLINE vec<float> load_part(const float *p, ptrdiff_t count, vec<float> fill) {
    return _mm512_mask_loadu_ps(fill, first<float>(count), p);
}
INLINE vec<double> load_part(const double *p, ptrdiff_t count, vec<double> fill) {
    return _mm512_mask_loadu_pd(fill, first<double>(count), p);
}
INLINE void store_part(float *p, ptrdiff_t count, vec<float> v) { _mm512_mask_storeu_ps(p, first<float>(count), v); }
INLINE void store_part(double *p, ptrdiff_t count, vec<double> v) { _mm512_mask_storeu_pd(p, first<double>(count), v); }

/* A vector made of 16-byte pieces that lie `apart` entries from each other; and back. */
INLINE vec<float> load_pieces(const float *p, ptrdiff_t apart) {
    __m512 v = _mm512_castps128_ps512(_mm_loadu_ps(p));
    v = _mm512_insertf32x4(v, _mm_loadu_ps(p + apart), 1);
    v = _mm512_insertf32x4(v, _mm_loadu_ps(p + 2 * apart), 2);
    return _mm512_insertf32x4(v, _mm_loadu_ps(p + 3 * apart), 3);
}
INLINE vec<double> load_pieces(const double *p, ptrdiff_t apart) {
    __m512d v = _mm512_castpd128_pd512(_mm_loadu_pd(p));
    v = _mm512_insertf64x2(v, _mm_loadu_pd(p + apart), 1);
    v = _mm512_insertf64x2(v, _mm_loadu_pd(p + 2 * apart), 2);
    return _mm512_insertf64x2(v, _mm_loadu_pd(p + 3 * apart), 3);
}
INLINE void store_pieces(float *p, ptrdiff_t apart, vec<float> v) {
    _mm_storeu_ps(p, _mm512_castps512_ps128(v));
    _mm_storeu_ps(p + apart, _mm512_extractf32x4_ps(v, 1));
    _mm_storeu_ps(p + 2 * apart, _mm512_extractf32x4_ps(v, 2));
    _mm_storeu_ps(p + 3 * apart, _mm512_extractf32x4_ps(v, 3));
}
INLINE void store_pieces(double *p, ptrdiff_t apart, vec<double> v) {
    _mm_storeu_pd(p, _mm512_castpd512_pd128(v));
    _mm_storeu_pd(p + apart, _mm512_extractf64x2_pd(v, 1));
    _mm_storeu_pd(p + 2 * apart, _mm512_extractf64x2_pd(v, 2));
    _mm_storeu_pd(p + 3 * apart, _mm512_extractf64x2_pd(v, 3));
}

#if defined(__clang__) /* which has no shuffle by a vector */
INLINE vec<float> permuted(vec<float> a, vec<float> b, bits_of<vec<float>> index) {
    return _mm512_permutex2var_ps(a, (__m512i)index, b);
}
INLINE vec<double> permuted(vec<double> a, vec<double> b, bits_of<vec<double>> index) {
    return _mm512_permutex2var_pd(a, (__m512i)index, b);
}
#endif

INLINE vec<float> unpack_low(vec<float> a, vec<float> b) { return _mm512_unpacklo_ps(a, b); }
INLINE vec<float> unpack_high(vec<float> a, vec<float> b) { return _mm512_unpackhi_ps(a, b); }
INLINE vec<double> unpack_low(vec<double> a, vec<double> b) { return _mm512_unpacklo_pd(a, b); }
INLINE vec<double> unpack_high(vec<double> a, vec<double> b) { return _mm512_unpackhi_pd(a, b); }
} // namespace
