/* The Jacobian of softmax, J_ij = y_i * ((i == j) - y_j), for all rows of an array at once, and its diagonal as an op.
 * 1 - y_i of a dominant entry is the sum of the others. The same of log_softmax. Uses summary.hpp. */
#pragma once
#include "summary.hpp"

namespace {
/* Lines that are about to be written are asked for 2 KB before: stores wait for theirs one after the other. */
template <class R> constexpr ptrdiff_t STORES_AHEAD = 2048 / sizeof(R);

/* Up to so many entries a row stays in registers. */
constexpr int SHORT_MATRIX = 16;

/* So many entries a row, or fewer: faster by permutations, each of which AVX-512 has in one instruction. */
template <class R> constexpr ptrdiff_t TINY_MATRIX = VECTOR_BYTES == 64 ? 3 * LANES<R> / 4 : LANES<R> / 2;

/* The sum of the n entries of `wide` vectors, `most` or fewer, in each of the first n lanes: of 8 as a tree of three
 * roundings, for which the bound of the diagonal has room (docs/numerics.md), at a third of the time. */
template <int wide, ptrdiff_t most, class V> INLINE V sum_of_entries(const V *v, ptrdiff_t n) {
    using R = real_of<V>;
    if (most > 8 && n > 8) {
        Sum<R> sum = Sum<R>::from(0);
        for (int w = 0; w < wide; w++) sum.add(v[w]);
        return all_lanes(sum);
    }
    V s = v[0];
    if constexpr (wide == 4) s = (v[0] + v[2]) + (v[1] + v[3]);
    if constexpr (wide == 2) s = v[0] + v[1];
    for (int distance = LANES<R> < 8 ? LANES<R> / 2 : 4; distance; distance /= 2) s += partners(s, distance);
    return s;
}

/* Of rows that are one vector: a matrix is written as one row of n * n entries, products of two permutations. */
template <class R> void tiny_jacobians(const R *y, R *out, ptrdiff_t rows, ptrdiff_t n) {
    using V = vec<R>;
    using Int = int_of<R>;
    const V zero = splat<V>(0), half = splat<V>(R(0.5));
    const ptrdiff_t size = n * n, count = (size + LANES<R> - 1) / LANES<R>, last = size < LANES<R> ? 0 : size - LANES<R>;
    bits_of<V> first[LANES<R>], second[LANES<R>]; /* which y_i, and which -y_j or 1 - y_i, for each lane of a vector */
    for (ptrdiff_t k = 0; k < count; k++)
        for (Int l = 0; l < (Int)LANES<R>; l++) {
            Int at = (Int)(k * LANES<R> < last ? k * LANES<R> : last) + l, i = at / (Int)n, j = at % (Int)n;
            first[k][l] = i;
            second[k][l] = i == j ? i + (Int)LANES<R> : j;
        }
    for (; rows; rows--, y += n, out += size) {
        V v = load_part(y, n, zero), small = select(greater(v, half), zero, v);
        V others = sum_of_entries<1, TINY_MATRIX<R>>(&small, n);
        V complement = select(greater(v, half), others, 1 - v);
        for (ptrdiff_t k = 0; k < count; k++) {
            R *at = out + (k * LANES<R> < last ? k * LANES<R> : last);
            V j = entries(v, v, first[k]) * entries(-v, complement, second[k]);
            __builtin_prefetch(at + STORES_AHEAD<R>, 1);
            if (size < LANES<R>)
                store_part(at, size, j);
            else
                store(at, j);
        }
    }
}

/* Of rows that are `wide` vectors. */
template <int wide, class R> void short_jacobians(const R *y, R *out, ptrdiff_t rows, ptrdiff_t n) {
    using V = vec<R>;
    const V zero = splat<V>(0), half = splat<V>(R(0.5));
    for (; rows; rows--, y += n, out += n * n) {
        V v[wide], small[wide], diagonal[wide];
        for (int w = 0; w < wide; w++) {
            v[w] = load_part(y + w * LANES<R>, n - w * LANES<R>, zero);
            small[w] = select(greater(v[w], half), zero, v[w]);
        }
        V others = sum_of_entries<wide, wide * LANES<R>>(small, n);
        for (int w = 0; w < wide; w++) diagonal[w] = v[w] * select(greater(v[w], half), others, 1 - v[w]);
#pragma GCC unroll 16 /* then the lanes of the diagonal are constants: 20 -> 14 us for (1000, 5) at v3 */
        for (int i = 0; i < wide * LANES<R>; i++) {
            if (i >= n) break;
            for (int w = 0; w < wide; w++) {
                R *at = out + i * n + w * LANES<R>;
                mask_of<V> here = only_lane<R>(i - w * LANES<R>);
                __builtin_prefetch(at + STORES_AHEAD<R>, 1);
                store_part(at, n - w * LANES<R>, select(here, diagonal[w], -y[i] * v[w]));
            }
        }
    }
}

/* The sum of all entries but the one at k. */
template <class R> R sum_without(const R *y, ptrdiff_t n, ptrdiff_t k) {
    Sum<R> before, after;
    on_kind<ROW>(row_grid<R>(k), SumOf<R>{{y, LANES<R>}, &before});
    on_kind<ROW>(row_grid<R>(n - k - 1), SumOf<R>{{y + k + 1, LANES<R>}, &after});
    before.join(after);
    return all_lanes(before)[0];
}

/* Rows i to `end` of a matrix. */
template <class R> INLINE void long_jacobian(const R *y, R *out, ptrdiff_t n, ptrdiff_t i, ptrdiff_t end) {
    for (; i < end; i++) {
        const vec<R> minus = splat<vec<R>>(-y[i]);
        R *row = out + i * n;
        ptrdiff_t j = 0;
        for (; j + LANES<R> <= n; j += LANES<R>) {
            __builtin_prefetch(row + j + STORES_AHEAD<R>, 1);
            store(row + j, minus * load(y + j));
        }
        if (j < n) store_part(row + j, n - j, minus * load_part(y + j, n - j, splat<vec<R>>(0)));
        row[i] = y[i] * (y[i] > R(0.5) ? sum_without(y, n, i) : 1 - y[i]);
    }
}

template <class R> void softmax_jacobians(const R *y, R *out, ptrdiff_t rows, ptrdiff_t n) {
    const ptrdiff_t count = (n + LANES<R> - 1) / LANES<R>;
    if (n <= TINY_MATRIX<R>) return tiny_jacobians(y, out, rows, n);
    if (count == 1) return short_jacobians<1>(y, out, rows, n);
    if constexpr (2 * LANES<R> <= SHORT_MATRIX)
        if (count == 2) return short_jacobians<2>(y, out, rows, n);
    if constexpr (4 * LANES<R> <= SHORT_MATRIX)
        if (count <= 4) return short_jacobians<4>(y, out, rows, n);
    for (ptrdiff_t i = 0; i < rows; i++) long_jacobian(y + i * n, out + i * n * n, n, 0, n);
}

/* Of rows so long that the call may be given up within one. */
template <class R> void watched_jacobians(const R *y, R *out, ptrdiff_t rows, ptrdiff_t n, const int *given_up) {
    for (; rows && !is_given_up(given_up); rows--, y += n, out += n * n)
        for (ptrdiff_t i = 0; i < n && !is_given_up(given_up); i++) long_jacobian(y, out, n, i, i + 1);
}

/* J_ii = y_i * (1 - y_i) */
template <> struct Op<SOFTMAX_JACOBIAN_DIAGONAL> : FromNothing {
    template <class R, class Begin> static ALWAYS void row(const Row<R> &r, int, Begin) {
        Sum<R> sum;
        on_kind<ROW>(r.grid(), SumOfSmall<R>{r.lines_of(r.a), &sum});
        const vec<R> others = all_lanes(sum);
        on_kind<ROW>(r.grid(), Diagonal<R>{r.lines_of(r.a), r.lines_of(r.out), &others});
    }

    template <bool known, class R> static ALWAYS void grid(const Rows<R> &r) {
        Sum<R> sum[MOST_VECTORS];
        vec<R> others[MOST_VECTORS];
        on<known>(r.g, SumOfSmall<R>{r.a, sum});
        for (int w = 0; w < vectors<R>(r.g); w++) others[w] = sum[w].value();
        on<known>(r.g, Diagonal<R>{r.a, r.out, others});
    }
};

/* J_ij = (i == j) - exp(logy_j): one line for all rows of a matrix, but for its diagonal. */
template <class R>
void log_softmax_jacobians(const R *logy, R *out, ptrdiff_t rows, ptrdiff_t n, const int *given_up) {
    using V = vec<R>;
    const Shift<V> none = shift_by(splat<V>(0));
    for (; rows && !is_given_up(given_up); rows--, logy += n, out += n * n) {
        each_vector<R>(n, [&](ptrdiff_t j, ptrdiff_t count) ALWAYS {
            V y = load_some(logy + j, count, R(0));
            exp_biased<1, 1, 0>(&y, &none);
            store_some(out + j, count, y * -Constants<R>::unbias);
        });
        for (ptrdiff_t i = 1; i < n && !is_given_up(given_up); i++) __builtin_memcpy(out + i * n, out, n * sizeof(R));
        each_vector<R>(n, [&](ptrdiff_t j, ptrdiff_t count) ALWAYS {
            V x = load_some(logy + j, count, R(0)), y;
            for (ptrdiff_t i = 0; i < count; i++) y[i] = -out[(j + i) * (n + 1)];
            one_minus_exp<1>(&x, &y, &x);
            for (ptrdiff_t i = 0; i < count; i++) out[(j + i) * (n + 1)] = x[i];
        });
    }
}

/* J_ii = 1 - exp(logy_i) */
template <> struct Op<LOG_SOFTMAX_JACOBIAN_DIAGONAL> : FromNothing {
    template <class R, class Begin> static ALWAYS void row(const Row<R> &r, int, Begin) {
        on_kind<ROW>(r.grid(), OneMinusExp<R>{r.lines_of(r.a), r.lines_of(r.out)});
    }

    template <bool known, class R> static ALWAYS void grid(const Rows<R> &r) { on<known>(r.g, OneMinusExp<R>{r.a, r.out}); }
};
} // namespace
