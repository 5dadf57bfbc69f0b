/* Vectors of 32 and 16 bytes: what vector types say of all of them. The rest is of a level. Included by simd.hpp. */
#pragma once

namespace {
/* Masks are vectors of all ones and zeros. */
template <class V> using mask_of = bits_of<V>;
template <class V> INLINE mask_of<V> greater(V a, V b) { return a > b; }
template <class V> INLINE mask_of<V> less(V a, V b) { return a < b; }
template <class V> INLINE mask_of<V> equal(V a, V b) { return a == b; }
template <class Bits> INLINE Bits are_equal(Bits a, Bits b) { return a == b; }
template <class Bits> INLINE Bits is_negative(Bits a) { return a < 0; }
template <class R> INLINE mask_of<vec<R>> only_lane(ptrdiff_t i) {
    mask_of<vec<R>> lane;
    for (int l = 0; l < LANES<R>; l++) lane[l] = l == i ? -1 : 0;
    return lane;
}
template <class V> INLINE V select(mask_of<V> take_a, V a, V b) {
    return (V)((take_a & (bits_of<V>)a) | (~take_a & (bits_of<V>)b));
}
} // namespace

#if VECTOR_BYTES == 32
#include "avx2.hpp"
#elif defined(__SSE2__)
#include "sse.hpp"
#else
#include "plain.hpp"
#endif

namespace {
#if !HAS_FMA
/* Rounded twice. Where the hardware has it, once: nothing else is contracted (setup.py), so a formula has the same bits
 * wherever it is inlined. */
template <class V> INLINE V fma(V a, V b, V c) { return a * b + c; }
#endif

template <class V> INLINE real_of<V> max_lane(V v) {
    constexpr ptrdiff_t lanes = LANES<real_of<V>>;
    real_of<V> lane[lanes];
    store(lane, v);
    for (ptrdiff_t w = lanes / 2; w; w /= 2)
        for (ptrdiff_t i = 0; i < w; i++) lane[i] = lane[i] > lane[i + w] ? lane[i] : lane[i + w];
    return lane[0];
}

/* 1 / a within an ULP or two, where both are normal. */
template <class V> INLINE V reciprocal(V a) { return 1 / a; }

/* 0 in the lanes of a mask, which are counted. */
template <class V> INLINE V leave_out(V v, mask_of<V> out, bits_of<V> *count) {
    *count -= out;
    return (V)(~out & (bits_of<V>)v);
}

/* p[label * stride + lane] for the label of each lane, 0 where that is negative. AVX2's gather would take longer. */
template <class R> INLINE vec<R> gather(const R *p, ptrdiff_t stride, const ptrdiff_t *label) {
    return of_lanes<vec<R>>([&](int l) ALWAYS { return label[l] < 0 ? 0 : p[label[l] * stride + l]; });
}

#if VECTOR_BYTES == 16
/* The first `count` lanes from memory, all of them or none included, and `fill` in the others; and back. */
template <class R> INLINE vec<R> load_part(const R *p, ptrdiff_t count, vec<R> fill) {
    R lane[LANES<R>];
    store(lane, fill);
    for (ptrdiff_t i = 0; i < LANES<R> && i < count; i++) lane[i] = p[i];
    return load(lane);
}
template <class R> INLINE void store_part(R *p, ptrdiff_t count, vec<R> v) {
    R lane[LANES<R>];
    store(lane, v);
    for (ptrdiff_t i = 0; i < LANES<R> && i < count; i++) p[i] = lane[i];
}

/* A vector made of 16-byte pieces that lie `apart` entries from each other; and back. */
template <class R> INLINE vec<R> load_pieces(const R *p, ptrdiff_t) { return load(p); }
template <class R> INLINE void store_pieces(R *p, ptrdiff_t, vec<R> v) { store(p, v); }
#endif
} // namespace
