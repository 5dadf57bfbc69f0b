/* Vectors of 16 bytes where no intrinsics are used (NEON): what generic.hpp leaves to a level, by vector types. */
#pragma once

namespace {
/* The second operand where either is NaN, as x86 has it. */
template <class V> INLINE V max(V a, V b) { return select(greater(a, b), a, b); }
template <class V> INLINE V min(V a, V b) { return select(less(a, b), a, b); }
#if HAS_FMA
INLINE vec<float> fma(vec<float> a, vec<float> b, vec<float> c) {
    for (int i = 0; i < 4; i++) c[i] = __builtin_fmaf(a[i], b[i], c[i]);
    return c;
}
INLINE vec<double> fma(vec<double> a, vec<double> b, vec<double> c) {
    for (int i = 0; i < 2; i++) c[i] = __builtin_fma(a[i], b[i], c[i]);
    return c;
}
#endif

INLINE bool any(bits_of<vec<double>> hit) { return (hit[0] | hit[1]) != 0; }
INLINE bool any(bits_of<vec<float>> hit) { return any((bits_of<vec<double>>)hit); }

INLINE vec<double> lower_half(vec<float> v) { return vec<double>{v[0], v[1]}; }
INLINE vec<double> upper_half(vec<float> v) { return vec<double>{v[2], v[3]}; }
INLINE vec<float> join_halves(vec<double> low, vec<double> high) {
    return vec<float>{(float)low[0], (float)low[1], (float)high[0], (float)high[1]};
}

INLINE vec<float> unpack_low(vec<float> a, vec<float> b) { return vec<float>{a[0], b[0], a[1], b[1]}; }
INLINE vec<float> unpack_high(vec<float> a, vec<float> b) { return vec<float>{a[2], b[2], a[3], b[3]}; }
INLINE vec<double> unpack_low(vec<double> a, vec<double> b) { return vec<double>{a[0], b[0]}; }
INLINE vec<double> unpack_high(vec<double> a, vec<double> b) { return vec<double>{a[1], b[1]}; }
} // namespace
