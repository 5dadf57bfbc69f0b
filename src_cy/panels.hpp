/* Short contiguous rows into the lanes of a panel, and back. Uses real.hpp. */
#pragma once
#include "real.hpp"

namespace {
template <class R> constexpr ptrdiff_t PIECE = 16 / sizeof(R);
constexpr int FEW = 3; /* entries, or fewer: such rows are permuted within registers */

/* In each lane the entry of that index of FEW vectors. */
template <class V> INLINE V entries_of(const V *v, bits_of<V> index) {
    using Int = int_of<real_of<V>>;
    constexpr Int lanes = LANES<real_of<V>>;
    bits_of<V> last = index >= 2 * lanes, lane = lane_index<V>();
    return entries(entries(v[0], v[1], index), v[2], (last & (index - lanes)) | (~last & lane));
}

/* LANES rows of `n` entries, so many vectors, into lanes; and back. */
template <int n, class R> INLINE void few_to_lanes(const R *x, R *lanes, ptrdiff_t apart) {
    using V = vec<R>;
    V v[FEW];
    for (int i = 0; i < FEW; i++) v[i] = i < n ? load(x + i * LANES<R>) : splat<V>(0);
    for (int j = 0; j < n; j++) store(lanes + j * apart, entries_of(v, lane_index<V>() * n + j));
}

template <int n, class R> INLINE void lanes_to_few(const R *lanes, ptrdiff_t apart, R *out) {
    using V = vec<R>;
    using Int = int_of<R>;
    V v[FEW];
    for (int j = 0; j < FEW; j++) v[j] = j < n ? load(lanes + j * apart) : splat<V>(0);
    for (Int i = 0; i < n; i++) {
        bits_of<V> k = lane_index<V>() + i * (Int)LANES<R>;
        store(out + i * LANES<R>, entries_of(v, k % n * (Int)LANES<R> + k / n));
    }
}

/* `count` rows that lie `stride` entries from each other, or none, a row in each lane of vectors that lie `apart` entries
 * from each other, PIECE entries of all rows at a time; and back, to rows without gaps. */
template <class R>
INLINE void rows_to_lanes(const R *x, ptrdiff_t stride, ptrdiff_t n, ptrdiff_t count, R *lanes, ptrdiff_t apart) {
    using V = vec<R>;
    if (count < LANES<R> || (n <= FEW && stride != n)) {
        for (ptrdiff_t j = 0; j < n; j++) store(lanes + j * apart, splat<V>(count > 0 ? x[j] : 0));
        for (ptrdiff_t l = 1; l < count && l < LANES<R>; l++)
            for (ptrdiff_t j = 0; j < n; j++) lanes[j * apart + l] = x[l * stride + j];
        return;
    }
    if (n == 1) return few_to_lanes<1>(x, lanes, apart);
    if (n == 2) return few_to_lanes<2>(x, lanes, apart);
    if (n == 3) return few_to_lanes<3>(x, lanes, apart);
    for (ptrdiff_t j = 0; j < n; j += PIECE<R>) {
        V v[PIECE<R>];
        ptrdiff_t k = j < n - PIECE<R> ? j : n - PIECE<R>; /* the last pieces overlap those before */
        for (int i = 0; i < PIECE<R>; i++) v[i] = load_pieces(x + i * stride + k, PIECE<R> * stride);
        transpose(v);
        for (int i = 0; i < PIECE<R>; i++) store(lanes + (k + i) * apart, v[i]);
    }
}

template <class R> INLINE void lanes_to_rows(const R *lanes, ptrdiff_t apart, ptrdiff_t n, ptrdiff_t count, R *out) {
    if (count < LANES<R>) {
        for (ptrdiff_t l = 0; l < count; l++)
            for (ptrdiff_t j = 0; j < n; j++) out[l * n + j] = lanes[j * apart + l];
        return;
    }
    if (n == 1) return lanes_to_few<1>(lanes, apart, out);
    if (n == 2) return lanes_to_few<2>(lanes, apart, out);
    if (n == 3) return lanes_to_few<3>(lanes, apart, out);
    for (ptrdiff_t j = 0; j < n; j += PIECE<R>) {
        vec<R> v[PIECE<R>];
        ptrdiff_t k = j < n - PIECE<R> ? j : n - PIECE<R>;
        for (int i = 0; i < PIECE<R>; i++) v[i] = load(lanes + (k + i) * apart);
        transpose(v);
        for (int i = 0; i < PIECE<R>; i++) store_pieces(out + i * n + k, PIECE<R> * n, v[i]);
    }
}

/* Rows into the lanes of a panel, lines of `lanes` entries without gaps; and back. */
template <class R>
INLINE void rows_to_panel(const R *x, ptrdiff_t stride, ptrdiff_t n, ptrdiff_t count, R *panel, ptrdiff_t lanes) {
    for (ptrdiff_t l = 0; l < lanes; l += LANES<R>) rows_to_lanes(x + l * stride, stride, n, count - l, panel + l, lanes);
}

template <class R> INLINE void panel_to_rows(const R *panel, ptrdiff_t lanes, ptrdiff_t n, ptrdiff_t count, R *out) {
    for (ptrdiff_t l = 0; l < lanes; l += LANES<R>) lanes_to_rows(panel + l, lanes, n, count - l, out + l * n);
}
} // namespace
