/* Vectors of 32 bytes: what generic.hpp leaves to the intrinsics of AVX2 and FMA. */
#pragma once

namespace {
INLINE vec<float> max(vec<float> a, vec<float> b) { return _mm256_max_ps(a, b); }
INLINE vec<double> max(vec<double> a, vec<double> b) { return _mm256_max_pd(a, b); }
INLINE vec<float> min(vec<float> a, vec<float> b) { return _mm256_min_ps(a, b); }
INLINE vec<double> min(vec<double> a, vec<double> b) { return _mm256_min_pd(a, b); }
#if HAS_FMA
INLINE vec<float> fma(vec<float> a, vec<float> b, vec<float> c) { return _mm256_fmadd_ps(a, b, c); }
INLINE vec<double> fma(vec<double> a, vec<double> b, vec<double> c) { return _mm256_fmadd_pd(a, b, c); }
#endif

INLINE bool any(bits_of<vec<float>> hit) { return _mm256_movemask_ps((__m256)hit) != 0; }
INLINE bool any(bits_of<vec<double>> hit) { return _mm256_movemask_pd((__m256d)hit) != 0; }

INLINE vec<double> lower_half(vec<float> v) { return _mm256_cvtps_pd(_mm256_castps256_ps128(v)); }
INLINE vec<double> upper_half(vec<float> v) { return _mm256_cvtps_pd(_mm256_extractf128_ps(v, 1)); }
INLINE vec<float> join_halves(vec<double> low, vec<double> high) {
    return _mm256_insertf128_ps(_mm256_castps128_ps256(_mm256_cvtpd_ps(low)), _mm256_cvtpd_ps(high), 1);
}

template <class R> INLINE __m256i first(ptrdiff_t count) {
    if constexpr (sizeof(R) == 4)
        return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)(count > 8 ? 8 : count)),
                                  _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
    else
        return _mm256_cmpgt_epi64(_mm256_set1_epi64x(count), _mm256_setr_epi64x(0, 1, 2, 3));
}
INLINE vec<float> load_part(const float *p, ptrdiff_t count, vec<float> fill) {
    __m256i these = first<float>(count);
    return _mm256_blendv_ps(fill, _mm256_maskload_ps(p, these), (__m256)these);
}
INLINE vec<double> load_part(const double *p, ptrdiff_t count, vec<double> fill) {
    __m256i these = first<double>(count);
    return _mm256_blendv_pd(fill, _mm256_maskload_pd(p, these), (__m256d)these);
}
INLINE void store_part(float *p, ptrdiff_t count, vec<float> v) { _mm256_maskstore_ps(p, first<float>(count), v); }
INLINE void store_part(double *p, ptrdiff_t count, vec<double> v) { _mm256_maskstore_pd(p, first<double>(count), v); }

INLINE vec<float> load_pieces(const float *p, ptrdiff_t apart) {
    return _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(p)), _mm_loadu_ps(p + apart), 1);
}
INLINE vec<double> load_pieces(const double *p, ptrdiff_t apart) {
    return _mm256_insertf128_pd(_mm256_castpd128_pd256(_mm_loadu_pd(p)), _mm_loadu_pd(p + apart), 1);
}
INLINE void store_pieces(float *p, ptrdiff_t apart, vec<float> v) {
    _mm_storeu_ps(p, _mm256_castps256_ps128(v));
    _mm_storeu_ps(p + apart, _mm256_extractf128_ps(v, 1));
}
INLINE void store_pieces(double *p, ptrdiff_t apart, vec<double> v) {
    _mm_storeu_pd(p, _mm256_castpd256_pd128(v));
    _mm_storeu_pd(p + apart, _mm256_extractf128_pd(v, 1));
}

#if defined(__clang__) /* which has no shuffle by a vector */
INLINE vec<float> permuted(vec<float> a, vec<float> b, bits_of<vec<float>> index) {
    const __m256i lane = (__m256i)index;
    return select((index & 8) != 0, vec<float>(_mm256_permutevar8x32_ps(b, lane)), _mm256_permutevar8x32_ps(a, lane));
}
INLINE vec<double> permuted(vec<double> a, vec<double> b, bits_of<vec<double>> index) {
    const bits_of<vec<double>> low = 2 * (index & 3);
    const __m256i halves = (__m256i)(low | (low + 1) << 32);
    return select((index & 4) != 0, vec<double>((__m256d)_mm256_permutevar8x32_ps((__m256)b, halves)),
                  vec<double>((__m256d)_mm256_permutevar8x32_ps((__m256)a, halves)));
}
#endif

INLINE vec<float> unpack_low(vec<float> a, vec<float> b) { return _mm256_unpacklo_ps(a, b); }
INLINE vec<float> unpack_high(vec<float> a, vec<float> b) { return _mm256_unpackhi_ps(a, b); }
INLINE vec<double> unpack_low(vec<double> a, vec<double> b) { return _mm256_unpacklo_pd(a, b); }
INLINE vec<double> unpack_high(vec<double> a, vec<double> b) { return _mm256_unpackhi_pd(a, b); }
} // namespace
