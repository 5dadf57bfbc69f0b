/* Vectors of 16 bytes of x86-64: what generic.hpp leaves to the intrinsics of SSE2. */
#pragma once

namespace {
INLINE vec<float> max(vec<float> a, vec<float> b) { return _mm_max_ps(a, b); }
INLINE vec<double> max(vec<double> a, vec<double> b) { return _mm_max_pd(a, b); }
INLINE vec<float> min(vec<float> a, vec<float> b) { return _mm_min_ps(a, b); }
INLINE vec<double> min(vec<double> a, vec<double> b) { return _mm_min_pd(a, b); }
#if HAS_FMA
INLINE vec<float> fma(vec<float> a, vec<float> b, vec<float> c) { return _mm_fmadd_ps(a, b, c); }
INLINE vec<double> fma(vec<double> a, vec<double> b, vec<double> c) { return _mm_fmadd_pd(a, b, c); }
#endif

INLINE bool any(bits_of<vec<float>> hit) { return _mm_movemask_ps((__m128)hit) != 0; }
INLINE bool any(bits_of<vec<double>> hit) { return _mm_movemask_pd((__m128d)hit) != 0; }

INLINE vec<double> lower_half(vec<float> v) { return _mm_cvtps_pd(v); }
INLINE vec<double> upper_half(vec<float> v) { return _mm_cvtps_pd(_mm_movehl_ps(v, v)); }
INLINE vec<float> join_halves(vec<double> low, vec<double> high) {
    return _mm_movelh_ps(_mm_cvtpd_ps(low), _mm_cvtpd_ps(high));
}

INLINE vec<float> unpack_low(vec<float> a, vec<float> b) { return _mm_unpacklo_ps(a, b); }
INLINE vec<float> unpack_high(vec<float> a, vec<float> b) { return _mm_unpackhi_ps(a, b); }
INLINE vec<double> unpack_low(vec<double> a, vec<double> b) { return _mm_unpacklo_pd(a, b); }
INLINE vec<double> unpack_high(vec<double> a, vec<double> b) { return _mm_unpackhi_pd(a, b); }
} // namespace
