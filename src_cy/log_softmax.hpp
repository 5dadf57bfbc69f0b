/* log_softmax: (x_j - max) - log(1 + rest); and logsumexp: max + log(1 + rest). Uses summary.hpp. */
#pragma once
#include "summary.hpp"

namespace {
template <> struct Op<LOG_SOFTMAX> : FromMaximum {
    template <class R, class Begin> static ALWAYS void row(const Row<R> &r, const vec<R> most, Begin begin_next) {
        if (!__builtin_isfinite(most[0])) return fill(r, R(NAN));
        const Summary<vec<R>> s = row_summary<R>(r, nullptr, most, r.out);
        if (r.in_order)
            return each_vector<R>(r.n, [&](ptrdiff_t j, ptrdiff_t count) ALWAYS {
                store_some(r.out + j, count, (load_some(r.a + j, count, R(0)) - most) - s.log1p_rest);
            });
        begin_next();
        on_kind<ROW>(r.grid(), Subtract<R>{r.lines_of(r.a), r.lines_of(r.out), &most, &s.log1p_rest});
    }

    template <bool known, class R> static ALWAYS void grid(const Rows<R> &r) {
        using V = vec<R>;
        V most[MOST_VECTORS], log1p_rest[MOST_VECTORS];
        Summary<V> s[MOST_VECTORS];
        on<known>(r.g, MaxOf<R>{r.a, most});
        for (int w = 0; w < vectors<R>(r.g); w++) most[w] = nan_unless_finite(most[w]);
        grid_summary<known>(r, Lines<R>{}, most, s);
        for (int w = 0; w < vectors<R>(r.g); w++) log1p_rest[w] = s[w].log1p_rest;
        on<known>(r.g, Subtract<R>{r.a, r.out, most, log1p_rest});
    }
};

template <> struct Op<LOGSUMEXP> : FromMaximum {
    template <class R, class Begin> static ALWAYS void row(const Row<R> &r, const vec<R> most, Begin begin_next) {
        using V = vec<R>;
        if (!__builtin_isfinite(most[0])) {
            for (ptrdiff_t j = 0; j < r.n; j++)
                if (__builtin_isnan(r.a[j])) return void(*r.result = NAN);
            return void(*r.result = most[0]);
        }
        /* log(1 + rest) may have an error of eps beside a maximum of 1, so there the sum may hold the maximum. */
        if (r.in_order || (most[0] > -1 && most[0] < 1))
            return void(*r.result = most[0] + row_summary<R>(r, nullptr, most, nullptr).log1p_rest[0]);
        const Shift<V> s = shift_by(most);
        Sum<R> sum;
        begin_next();
        exps_of<false>(r.grid(), r.lines_of(r.a), Lines<R>{}, &s, {r.next_logits(), nullptr}, &sum,
                       (Sum<R> *)nullptr);
        const Pair<V> all = product(sum.of_all_lanes().pair(), ratio(per_biased(s)));
        const Pair<V> rest = plus(all, Pair<V>{splat<V>(-1), splat<V>(0)});
        const Pair<V> more = two_sum(splat<V>(1), rest.hi);
        *r.result = most[0] + log1p(rest, more, reciprocal(more.hi))[0];
    }

    template <bool known, class R> static ALWAYS void grid(const Rows<R> &r) {
        using V = vec<R>;
        V most[MOST_VECTORS], finite[MOST_VECTORS];
        Summary<V> s[MOST_VECTORS];
        on<known>(r.g, MaxOf<R>{r.a, most});
        for (int w = 0; w < vectors<R>(r.g); w++) finite[w] = nan_unless_finite(most[w]);
        grid_summary<known>(r, Lines<R>{}, finite, s);
        for (int w = 0; w < vectors<R>(r.g); w++) {
            const ptrdiff_t left = r.count - w * LANES<R>;
            V result = most[w] + s[w].log1p_rest;
            mask_of<V> finite_max = equal(finite[w], finite[w]), number = equal(most[w], most[w]);
            if (any((mask_of<V>)~finite_max)) {
                for (ptrdiff_t j = 0; j < r.g.lines; j++) {
                    V v = load_part(r.a.at + j * r.a.stride + w * LANES<R>, left, splat<V>(0));
                    number &= equal(v, v);
                }
                result = select(finite_max, result, select(number, most[w], splat<V>(NAN)));
            }
            store_part(r.results + w * LANES<R>, left, result);
        }
    }
};
} // namespace
