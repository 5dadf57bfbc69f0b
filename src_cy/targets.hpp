/* Cross-entropies in which every class of a row counts, as `Target` (call.h) says: by a probability t_j, by smoothing, or by
 * both: u_j = t_j * at_label * weight_j + everywhere_j, and sum_j u_j * nll_j is the loss. Uses summary.hpp. */
#pragma once
#include "summary.hpp"

namespace {
/* The u of a row, `along` which classes lie, or of rows side by side, of which each line is a class. `t.at` is NULL where there is
 * smoothing alone. */
template <class R, bool along> struct Weights {
    using V = vec<R>;
    Lines<const R> t;
    const R *weight, *everywhere;
    R at_label;

    Weights(const Target *of, Lines<const R> t)
        : t(t), weight((const R *)of->weight), everywhere((const R *)of->everywhere), at_label((R)of->at_label) {}

    template <Kind kind, int height, bool whole> ALWAYS inline void of(const Tile<R, kind, height, whole> &tile, V *u) const {
        constexpr int count = Tile<R, kind, height, whole>::count, wide = Tile<R, kind, height, whole>::wide;
        const auto of_classes = [&](const R *x, V *to) ALWAYS {
            if constexpr (along)
                tile.load(to, {x, LANES<R>}, 0);
            else
                for (int i = 0; i < count; i++) to[i] = splat<V>(x[tile.line + i / wide]);
        };
        V v[count];
        if (!t.at) return of_classes(everywhere, u);
        tile.load(u, t, 0);
        if (weight) {
            of_classes(weight, v);
            for (int i = 0; i < count; i++) u[i] *= at_label * v[i];
        } else if (everywhere) {
            for (int i = 0; i < count; i++) u[i] *= at_label;
        }
        if (!everywhere) return;
        of_classes(everywhere, v);
        for (int i = 0; i < count; i++) u[i] += v[i];
    }
};

/* Lane sums of u * (max - x) / 2, since the difference of halves does not overflow; a class of weight 0 takes no part, whatever
 * its logit. */
template <class R, bool along> struct HalfGaps {
    using V = vec<R>;
    Lines<const R> x;
    Weights<R, along> weights;
    const V *most;
    Sum<R> *sums;

    template <Kind kind> ALWAYS inline void run(const Grid &g) const {
        V a[GROUP], u[GROUP];
        const V zero = splat<V>(0);
        sum_tiles<R, kind, GROUP>(g, sums, [&](auto tile, Sum<R> *part) ALWAYS {
            tile.load(a, x, 0);
            weights.of(tile, u);
            for (int i = 0; i < tile.count; i++) {
                const V term = u[i] * (most[tile.state(i)] / 2 - a[i] / 2);
                a[i] = select(equal(u[i], zero), u[i], term);
            }
            add_terms<tile.count, tile.wide>(part + tile.state(0), a);
        });
    }
};

/* Lane sums of u but where x is `but`, as it is nowhere if that is NaN. */
template <class R, bool along> struct SumOfWeights {
    using V = vec<R>;
    Lines<const R> x;
    Weights<R, along> weights;
    const V *but;
    Sum<R> *sums;

    template <Kind kind> ALWAYS inline void run(const Grid &g) const {
        V a[GROUP], u[GROUP];
        sum_tiles<R, kind, GROUP>(g, sums, [&](auto tile, Sum<R> *part) ALWAYS {
            tile.load(a, x, 0);
            weights.of(tile, u);
            for (int i = 0; i < tile.count; i++) a[i] = select(equal(a[i], but[tile.state(i)]), splat<V>(0), u[i]);
            add_terms<tile.count, tile.wide>(part + tile.state(0), a);
        });
    }
};

/* out = e * q - scale * u, or `at_largest` where e is `largest`. */
template <class R, bool along> struct TargetGradient {
    using V = vec<R>;
    Lines<R> e, out;
    Weights<R, along> weights;
    const Ratio<V> *q;
    const V *scale, *largest, *at_largest;

    template <Kind kind> ALWAYS inline void run(const Grid &g) const {
        V v[GROUP], u[GROUP];
        each_tile<R, kind, GROUP>(g, [&](auto tile) ALWAYS {
            tile.load(v, {e.at, e.stride}, 0);
            weights.of(tile, u);
            for (int i = 0; i < tile.count; i++) {
                const ptrdiff_t k = tile.state(i);
                const V dx = times(v[i], q[k]) - scale[k] * u[i];
                v[i] = select(equal(v[i], largest[k]), at_largest[k], dx);
            }
            tile.store(out, v);
        });
    }
};

/* Of `count` vectors of rows whose exps are `e`, what these are times in the gradient: `factor` a sum of exps. */
template <class R> INLINE void quotients(int count, const vec<R> *factor, const Summary<vec<R>> *s, Ratio<vec<R>> *q) {
    for (int w = 0; w < count; w++) q[w] = multiple(factor[w], ratio(product(s[w].unit, s[w].inverse)));
}

/* Where weights made such a factor so small that the bias of exps costs the quotient its digits, they lose it before, and `largest`
 * with them: of a float below 2**-39, where what that makes subnormal is 0 in the end. */
template <class R, class On>
INLINE void keep_digits(int count, const vec<R> *factor, const Summary<vec<R>> *s, Lines<R> e, vec<R> *largest, Ratio<vec<R>> *q,
                        On on_rows) {
    using V = vec<R>;
    using C = Constants<R>;
    const V one = splat<V>(1), least = splat<V>(C::least_normal * ((int64_t)1 << C::mantissa_bits) / C::unbias);
    V down[MOST_VECTORS];
    bool any_small = false;
    for (int w = 0; w < count; w++) {
        const V all = factor[w] * s[w].inverse.hi;
        const mask_of<V> small = less(all, least) & less(-least, all) & ~equal(factor[w], splat<V>(0));
        down[w] = select(small, splat<V>(C::unbias), one);
        any_small |= any(small);
    }
    if (!any_small) return;
    V whole[MOST_VECTORS];
    Ratio<V> once[MOST_VECTORS];
    for (int w = 0; w < count; w++) {
        once[w] = {down[w], splat<V>(0)};
        largest[w] *= down[w];
        whole[w] = factor[w] / down[w];
    }
    quotients<R>(count, whole, s, q);
    on_rows(Times<R>{e, e, once});
}

/* What they contribute to a row's loss, times the weight of the row. */
template <class V> INLINE V loss_everywhere(V half_gaps, V total, V sample, const Summary<V> &s) {
    return 2 * (sample * half_gaps) + sample * total * s.log1p_rest;
}

/* Rows that take no part have no gradient. */
template <class R> INLINE void clear(const Rows<R> &r, const mask_of<vec<R>> *ignored) {
    using V = vec<R>;
    for (int w = 0; w < vectors<R>(r.g); w++)
        for (ptrdiff_t j = 0; any(ignored[w]) && j < r.g.lines; j++) {
            const ptrdiff_t left = r.g.lanes - w * LANES<R>;
            R *p = r.out.at + j * r.out.stride + w * LANES<R>;
            store_part(p, left, select(ignored[w], splat<V>(0), load_part(p, left, splat<V>(0))));
        }
}
} // namespace
