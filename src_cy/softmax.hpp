/* softmax: y_j = exp(x_j - max) / sum. Uses summary.hpp. */
#pragma once
#include "summary.hpp"

namespace {
template <> struct Op<SOFTMAX> : FromMaximum {
    template <class R, class Begin> static ALWAYS void row(const Row<R> &r, const vec<R> most, Begin begin_next) {
        using V = vec<R>;
        if (!__builtin_isfinite(most[0])) return fill(r, R(NAN));
        const Shift<V> s = shift_by(most);
        Sum<R> sum;
        if (r.in_order) {
            R exps[SHORT_BYTES / sizeof(R)];
            short_exps(r.a, r.n, s, exps);
            return short_times(exps, r.n, inverse(sum_in_order(exps, r.n).pair()), r.out);
        }
        exps_of<false>(r.grid(), r.lines_of(r.a), r.lines_of(r.out), &s, {r.next_logits(), r.next(r.out)}, &sum,
                       (Sum<R> *)nullptr);
        const Ratio<V> q = inverse(sum.of_all_lanes().pair());
        begin_next();
        on_kind<ROW>(r.grid(), Times<R>{r.lines_of(r.out), r.lines_of(r.out), &q});
    }

    template <bool known, class R> static ALWAYS void grid(const Rows<R> &r) {
        using V = vec<R>;
        V most[MOST_VECTORS];
        Shift<V> s[MOST_VECTORS];
        Sum<R> sum[MOST_VECTORS];
        Ratio<V> q[MOST_VECTORS];
        on<known>(r.g, MaxOf<R>{r.a, most});
        for (int w = 0; w < vectors<R>(r.g); w++) s[w] = shift_by(nan_unless_finite(most[w]));
        exps_of<known>(r.g, r.a, r.out, s, r.ahead, sum, (Sum<R> *)nullptr);
        for (int w = 0; w < vectors<R>(r.g); w++) q[w] = inverse(sum[w].pair());
        on<known>(r.g, Times<R>{r.out, r.out, q});
    }
};
} // namespace
