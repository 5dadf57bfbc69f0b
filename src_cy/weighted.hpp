/* log sum_j b_j exp(x_j) = max + log sum_j b_j exp(x_j - max), the maximum being that of entries whose b is not 0: others take no
 * part, whatever they are. NaN of a negative sum. Uses summary.hpp. */
#pragma once
#include "summary.hpp"

namespace {
/* Lane maxima of the entries that take part. */
template <class R> struct MaxOfWeighted {
    using V = vec<R>;
    Lines<const R> x, b;
    V *most;

    template <Kind kind> ALWAYS inline void run(const Grid &g) const {
        V a[GROUP], w[GROUP];
        for (int i = 0; i < states<R, kind>(g); i++) most[i] = splat<V>(-INFINITY);
        each_tile<R, kind, GROUP>(g, [&](auto tile) ALWAYS {
            tile.load(a, x, -INFINITY);
            tile.load(w, b, 0);
            for (int i = 0; i < tile.count; i++) {
                V &of = most[tile.state(i)];
                of = max(select(equal(w[i], splat<V>(0)), splat<V>(-INFINITY), a[i]), of);
            }
        });
    }
};

/* Lane sums of b * exp(x), but for the factor that exps have in common. */
template <class R> struct WeightedExps {
    using V = vec<R>;
    Lines<const R> x, b;
    const Shift<V> *s;
    Sum<R> *sums;

    template <Kind kind> ALWAYS inline void run(const Grid &g) const {
        V a[EXPS], w[EXPS];
        sum_tiles<R, kind, EXPS>(g, sums, [&](auto tile, Sum<R> *part) ALWAYS {
            tile.load(a, x, -INFINITY);
            tile.load(w, b, 0);
            for (int i = 0; i < tile.count; i++) a[i] = select(equal(w[i], splat<V>(0)), splat<V>(-INFINITY), a[i]);
            mask_of<V> none[EXPS]; /* an exp that is exactly 0: of an infinite factor NaN */
            for (int i = 0; i < tile.count; i++) none[i] = equal(a[i], splat<V>(-INFINITY));
            exp_biased<tile.count, tile.wide, MIXED>(a, s + tile.state(0));
            for (int i = 0; i < tile.count; i++) {
                const V e = select(none[i], splat<V>(0), a[i] * Constants<R>::unbias);
                part[tile.state(i)].add(w[i] * e);
            }
        });
    }
};

/* Of a row in which there are infinities or NaN what they make, or else `otherwise`. */
template <class R>
R of_infinities(const R *x, const R *b, ptrdiff_t n, ptrdiff_t x_stride, ptrdiff_t b_stride, R otherwise) {
    R result = otherwise;
    for (ptrdiff_t j = 0; j < n; j++) {
        const R a = x[j * x_stride], w = b[j * b_stride];
        const bool is_infinite = a == R(INFINITY) || w - w != 0;
        if (w == 0) continue;
        if (a != a || w != w || (is_infinite && (w < 0 || a == -R(INFINITY)))) return NAN;
        if (is_infinite) result = INFINITY;
    }
    return result;
}

/* Whether a maximum is that of nothing, whose logarithm it is. */
template <class R> INLINE bool is_none(R most) { return most == -R(INFINITY); }

/* log(s), -inf of 0 and NaN of less. A subnormal sum is made normal first. */
template <class V> INLINE V log_of(V s) {
    using C = constants_of<V>;
    const V zero = splat<V>(0);
    const mask_of<V> small = less(s, splat<V>(C::least_normal));
    const V scaled = select(small, s * C::to_normal, s), lost = select(small, splat<V>(C::log_to_normal), zero);
    const Pair<V> less_one = {scaled - 1, zero}, more = {scaled, zero};
    const V log = log1p(less_one, more, zero) - lost;
    return select(greater(s, zero), log, select(equal(s, zero), splat<V>(-INFINITY), splat<V>(NAN)));
}

/* From the sum of WeightedExps. */
template <class R> INLINE vec<R> weighted_log(vec<R> most, const Shift<vec<R>> &s, const Sum<R> &sum) {
    const vec<R> common = per_biased(s).hi * (1 / Constants<R>::unbias);
    return most + log_of(sum.value() * common);
}

template <> struct Op<WEIGHTED_LOGSUMEXP> : FromNothing {
    template <class R, class Begin> static ALWAYS void row(const Row<R> &r, int, Begin) {
        vec<R> most;
        on_kind<ROW>(r.grid(), MaxOfWeighted<R>{r.lines_of(r.a), r.lines_of(r.b), &most});
        most = splat<vec<R>>(max_lane(most));
        const Shift<vec<R>> s = shift_by(nan_unless_finite(most));
        Sum<R> sum;
        on_kind<ROW>(r.grid(), WeightedExps<R>{r.lines_of(r.a), r.lines_of(r.b), &s, &sum});
        const R log = weighted_log(most, s, sum.of_all_lanes())[0];
        *r.result = log - log == 0 ? log : of_infinities(r.a, r.b, r.n, 1, 1, is_none(most[0]) ? most[0] : log);
    }

    template <bool known, class R> static ALWAYS void grid(const Rows<R> &r) {
        using V = vec<R>;
        V most[MOST_VECTORS];
        Shift<V> s[MOST_VECTORS];
        Sum<R> sum[MOST_VECTORS];
        on<known>(r.g, MaxOfWeighted<R>{r.a, r.b, most});
        for (int w = 0; w < vectors<R>(r.g); w++) s[w] = shift_by(nan_unless_finite(most[w]));
        on<known>(r.g, WeightedExps<R>{r.a, r.b, s, sum});
        for (int w = 0; w < vectors<R>(r.g); w++) {
            V log = weighted_log(most[w], s[w], sum[w]);
            for (int l = 0; l < LANES<R> && w * LANES<R> + l < r.count; l++)
                if (log[l] - log[l] != 0) {
                    const ptrdiff_t i = w * LANES<R> + l;
                    const R otherwise = is_none(most[w][l]) ? most[w][l] : log[l];
                    log[l] = of_infinities(r.a.at + i, r.b.at + i, r.g.lines, r.a.stride, r.b.stride, otherwise);
                }
            store_part(r.results + w * LANES<R>, r.count - w * LANES<R>, log);
        }
    }
};
} // namespace
