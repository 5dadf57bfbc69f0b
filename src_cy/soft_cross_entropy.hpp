/* The cross-entropy of probabilities t, whose weights are the u of targets.hpp: sum_j u_j * (max - x_j) + sum_j u_j * log(1 + rest).
 * Its gradient is y_j * sum_j u_j - u_j; of a largest y_k above 2/3, sum_(j != k) u_j - (1 - y_k) * sum_j u_j, of which neither
 * cancels. Uses targets.hpp. */
#pragma once
#include "targets.hpp"

namespace {
/* What exps have been made of an entry that is the maximum; NaN, which none of them is, where that is not above 2/3: of those
 * up to 1 below it, exps may be the same. */
template <class R> INLINE vec<R> largest_exp(vec<R> most, const Summary<vec<R>> &s) {
    using V = vec<R>;
    const Shift<V> shift = shift_by(most);
    V e = most;
    exp_biased<1, 1, MIXED>(&e, &shift);
    return select(less(s.rest.hi, splat<V>(R(0.5))), e, splat<V>(NAN));
}

/* One loss a row; and the gradient into `out` unless that is NULL. Rows of weight 0 have neither. */
template <> struct Op<SOFT_CROSS_ENTROPY> {
    template <class R> static ALWAYS vec<R> lead(const Row<R> &r) { return r.sample == 0 ? splat<vec<R>>(0) : row_max(r); }

    template <class R, class Begin> static ALWAYS void row(const Row<R> &r, const vec<R> most, Begin begin_next) {
        using V = vec<R>;
        if (r.sample == 0) {
            if (r.out) fill(r, R(0));
            return void(*r.result = 0);
        }
        const V none = splat<V>(NAN);
        if (!__builtin_isfinite(most[0])) {
            if (r.out) fill(r, R(NAN));
            return void(*r.result = NAN);
        }
        const Weights<R, true> weights(&r.call->target, r.lines_of(r.b));
        Sum<R> gaps, sum;
        on_kind<ROW>(r.grid(), HalfGaps<R, true>{r.lines_of(r.a), weights, &most, &gaps});
        on_kind<ROW>(r.grid(), SumOfWeights<R, true>{r.lines_of(r.a), weights, &none, &sum});
        const V total = all_lanes(sum), half_gaps = all_lanes(gaps);
        const Summary<V> s = row_summary(r, r.out, most, r.next(r.out));
        begin_next();
        *r.result = loss_everywhere(half_gaps, total, splat<V>(r.sample), s)[0];
        if (!r.out) return;
        V largest = largest_exp<R>(most, s);
        const V scale = splat<V>((R)r.call->target.scale * r.sample), factor = scale * total;
        const auto e = r.lines_of(r.out);
        if (any(equal(largest, largest))) on_kind<ROW>(r.grid(), SumOfWeights<R, true>{{e.at, e.stride}, weights, &largest, &sum});
        const V at_largest = scale * (all_lanes(sum) - total * share(s.rest, s.inverse));
        Ratio<V> q;
        quotients<R>(1, &factor, &s, &q);
        keep_digits<R>(1, &factor, &s, e, &largest, &q, [&](auto pass) ALWAYS { on_kind<ROW>(r.grid(), pass); });
        on_kind<ROW>(r.grid(), TargetGradient<R, true>{e, e, weights, &q, &scale, &largest, &at_largest});
    }

    template <bool known, class R> static ALWAYS void grid(const Rows<R> &r) {
        using V = vec<R>;
        const Weights<R, false> weights(&r.call->target, r.b);
        V most[MOST_VECTORS], none[MOST_VECTORS], total[MOST_VECTORS];
        Sum<R> gaps[MOST_VECTORS], sum[MOST_VECTORS];
        Summary<V> s[MOST_VECTORS];
        on<known>(r.g, MaxOf<R>{r.a, most});
        for (int w = 0; w < vectors<R>(r.g); w++) {
            most[w] = nan_unless_finite(most[w]);
            none[w] = splat<V>(NAN);
        }
        on<known>(r.g, HalfGaps<R, false>{r.a, weights, most, gaps});
        on<known>(r.g, SumOfWeights<R, false>{r.a, weights, none, sum});
        grid_summary<known>(r, r.out, most, s);
        for (int w = 0; w < vectors<R>(r.g); w++) {
            total[w] = sum[w].value();
            const V loss = loss_everywhere(gaps[w].value(), total[w], r.sample(w), s[w]);
            store_part(r.results + w * LANES<R>, r.count - w * LANES<R>, select(equal(r.sample(w), splat<V>(0)), splat<V>(0), loss));
        }
        if (r.out.at) gradients<known>(r, weights, most, total, s, sum);
    }

    /* From the exps, which they replace. */
    template <bool known, class R>
    static ALWAYS void gradients(const Rows<R> &r, const Weights<R, false> &weights, const vec<R> *most, const vec<R> *total,
                                 const Summary<vec<R>> *s, Sum<R> *sum) {
        using V = vec<R>;
        V largest[MOST_VECTORS], at_largest[MOST_VECTORS], scale[MOST_VECTORS], factor[MOST_VECTORS];
        Ratio<V> q[MOST_VECTORS];
        mask_of<V> ignored[MOST_VECTORS];
        bool has_largest = false;
        for (int w = 0; w < vectors<R>(r.g); w++) {
            largest[w] = largest_exp<R>(most[w], s[w]);
            has_largest |= any(equal(largest[w], largest[w]));
        }
        if (has_largest) on<known>(r.g, SumOfWeights<R, false>{{r.out.at, r.out.stride}, weights, largest, sum});
        for (int w = 0; w < vectors<R>(r.g); w++) {
            scale[w] = (R)r.call->target.scale * r.sample(w);
            at_largest[w] = scale[w] * (sum[w].value() - total[w] * share(s[w].rest, s[w].inverse));
            factor[w] = scale[w] * total[w];
            ignored[w] = equal(r.sample(w), splat<V>(0));
        }
        const auto seldom = [&](auto pass) ALWAYS { on_seldom<known>(r.g, pass); };
        quotients<R>(vectors<R>(r.g), factor, s, q);
        keep_digits<R>(vectors<R>(r.g), factor, s, r.out, largest, q, seldom);
        on<known>(r.g, TargetGradient<R, false>{r.out, r.out, weights, q, scale, largest, at_largest});
        clear(r, ignored);
    }
};
} // namespace
