/* One vector of float or double at the CPU level this is compiled for. GCC's and Clang's vector types give arithmetic;
 * a file a level has what they have no operation for, by intrinsics. Uses language.hpp. */
#pragma once
#include "language.hpp"

namespace {
template <class R> struct VectorOf;
template <> struct VectorOf<float> {
    typedef float Vector __attribute__((vector_size(VECTOR_BYTES)));
    typedef int32_t Bits __attribute__((vector_size(VECTOR_BYTES)));
    using Int = int32_t;
};
template <> struct VectorOf<double> {
    typedef double Vector __attribute__((vector_size(VECTOR_BYTES)));
    typedef int64_t Bits __attribute__((vector_size(VECTOR_BYTES)));
    using Int = int64_t;
};
template <class R> using vec = typename VectorOf<R>::Vector;
template <class R> using int_of = typename VectorOf<R>::Int;
template <class R> constexpr ptrdiff_t LANES = VECTOR_BYTES / sizeof(R);

template <class V> struct RealOf;
template <> struct RealOf<vec<float>> { using Real = float; };
template <> struct RealOf<vec<double>> { using Real = double; };
template <class V> using real_of = typename RealOf<V>::Real;
template <class V> using bits_of = typename VectorOf<real_of<V>>::Bits;

template <class V> INLINE V splat(real_of<V> a) { return a - V{}; } /* which is a, whatever it is */

template <class R> INLINE vec<R> load(const R *p) {
    vec<R> v;
    __builtin_memcpy(&v, p, sizeof v);
    return v;
}

template <class R> INLINE void store(R *p, vec<R> v) { __builtin_memcpy(p, &v, sizeof v); }

/* entry(l) in lane l. Not through an array: a vector that is read where its lanes were written waits for all of them
 * (13 ns in place of 6). */
template <class V, class Entry> INLINE V of_lanes(Entry entry) {
    constexpr ptrdiff_t lanes = LANES<real_of<V>>;
    if constexpr (lanes == 2)
        return V{entry(0), entry(1)};
    else if constexpr (lanes == 4)
        return V{entry(0), entry(1), entry(2), entry(3)};
    else if constexpr (lanes == 8)
        return V{entry(0), entry(1), entry(2), entry(3), entry(4), entry(5), entry(6), entry(7)};
    else
        return V{entry(0), entry(1), entry(2),  entry(3),  entry(4),  entry(5),  entry(6),  entry(7),
                 entry(8), entry(9), entry(10), entry(11), entry(12), entry(13), entry(14), entry(15)};
}
} // namespace

#if VECTOR_BYTES == 64
#include "avx512.hpp"
#else
#include "generic.hpp"
#endif

namespace {
/* Within each piece of 16 bytes: 2 doubles of 2 vectors, or 4 floats of 4, transposed. */
INLINE void transpose(vec<double> *v) {
    vec<double> a = v[0];
    v[0] = unpack_low(a, v[1]);
    v[1] = unpack_high(a, v[1]);
}
INLINE void transpose(vec<float> *v) {
    using W = vec<double>;
    W low[2] = {(W)unpack_low(v[0], v[1]), (W)unpack_low(v[2], v[3])};
    W high[2] = {(W)unpack_high(v[0], v[1]), (W)unpack_high(v[2], v[3])};
    transpose(low);
    transpose(high);
    v[0] = (vec<float>)low[0];
    v[1] = (vec<float>)low[1];
    v[2] = (vec<float>)high[0];
    v[3] = (vec<float>)high[1];
}
} // namespace
