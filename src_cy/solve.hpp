/* The v of (diag(y) - y y^T + ridge I) v = b, by Sherman and Morrison (docs/derivation.md). With the shares
 * w_j = y_j / (y_j + ridge), v_i = (b_i + c y_i) / (y_i + ridge) and
 *
 *     c = (sum_j [y_j > ridge ? b_j : w_j b_j] / ridge - sum_(y_j > ridge) b_j / (y_j + ridge)) / sum_j w_j.
 *
 * Without a ridge the first sum, which is 0 then, is left out, and so are entries with y_j = 0. Uses summary.hpp. */
#pragma once
#include "summary.hpp"

namespace {
template <> struct Op<SOFTMAX_SOLVE> : FromNothing {
    template <class R, class Begin> static ALWAYS void row(const Row<R> &r, int, Begin) {
        const R ridge = (R)r.call->ridge;
        Coefficient<R> sums;
        on_kind<ROW>(r.grid(), CoefficientOf<R>{r.lines_of(r.a), r.lines_of(r.b), ridge, &sums});
        const vec<R> c = sums.of_all_lanes().value(ridge);
        on_kind<ROW>(r.grid(), Solution<R>{r.lines_of(r.a), r.lines_of(r.b), r.lines_of(r.out), ridge, &c});
    }

    template <bool known, class R> static ALWAYS void grid(const Rows<R> &r) {
        const R ridge = (R)r.call->ridge;
        Coefficient<R> sums[MOST_VECTORS];
        vec<R> c[MOST_VECTORS];
        on<known>(r.g, CoefficientOf<R>{r.a, r.b, ridge, sums});
        for (int w = 0; w < vectors<R>(r.g); w++) c[w] = sums[w].value(ridge);
        on<known>(r.g, Solution<R>{r.a, r.b, r.out, ridge, c});
    }
};
} // namespace
