/* The v of (diag(y) - y y^T + ridge I) v = b, by Sherman and Morrison (docs/derivation.md). With the shares
 * w_j = y_j / (y_j + ridge), v_i = (b_i + c y_i) / (y_i + ridge) and
 *
 *     c = (sum_j [y_j > ridge ? b_j : w_j b_j] / ridge - sum_(y_j > ridge) b_j / (y_j + ridge)) / sum_j w_j.
 *
 * Without a ridge the first sum, which is 0 then, is left out, and so are entries with y_j = 0. Uses summary.hpp. */
#pragma once
#include "summary.hpp"

namespace {
/* The three sums of c. */
template <class R> struct Solving {
    using V = vec<R>;
    Sum<R> whole, taken, shares;

    static ALWAYS inline Solving from(R start) { return {Sum<R>::from(start), Sum<R>::from(start), Sum<R>::from(start)}; }
    ALWAYS inline void take_start(R) {} /* they start from 0 */

    ALWAYS inline void join(Solving other) {
        whole.join(other.whole);
        taken.join(other.taken);
        shares.join(other.shares);
    }

    ALWAYS inline Solving of_all_lanes() const {
        return {whole.of_all_lanes(), taken.of_all_lanes(), shares.of_all_lanes()};
    }

    /* NaN of a row that holds NaN or an infinity. A row of zeros has no shares, and nothing to take. */
    ALWAYS inline V coefficient(R ridge) const {
        const V sum = whole.finite(), all = shares.finite();
        V c = (ridge > 0 ? sum / ridge : sum - sum) - taken.finite();
        c = select(equal(all, splat<V>(0)), c, c / all);
        return c + (c - c);
    }
};

/* Lane sums. */
template <class R> struct Solve {
    using V = vec<R>;
    Lines<const R> y, b;
    R ridge;
    Solving<R> *sums;

    template <Kind kind> ALWAYS inline void run(const Grid &g) const {
        const V r = splat<V>(ridge), zero = splat<V>(0);
        V u[EXPS], v[EXPS];
        sum_tiles<R, kind, EXPS>(g, sums, [&](auto tile, Solving<R> *part) ALWAYS {
            tile.load(u, y, 0);
            tile.load(v, b, 0);
            for (int i = 0; i < tile.count; i++) {
                Solving<R> &of = part[tile.state(i)];
                const mask_of<V> large = greater(u[i], r);
                const V sum = u[i] + r, share = select(equal(sum, zero), zero, u[i] / sum);
                of.whole.add(select(large, v[i], share * v[i]));
                of.taken.add(select(large, v[i] / sum, zero));
                of.shares.add(share);
            }
        });
    }
};

/* out = (b + c y) / (y + ridge), and 0 where there is neither y nor a ridge. */
template <class R> struct Solution {
    using V = vec<R>;
    Lines<const R> y, b;
    Lines<R> out;
    R ridge;
    const V *c;

    Solution from(ptrdiff_t line) const { return {y.from(line), b.from(line), out.from(line), ridge, c}; }
    template <Kind kind> ALWAYS inline void run(const Grid &g) const {
        V u[GROUP], v[GROUP];
        each_tile<R, kind, GROUP>(g, [&](auto tile) ALWAYS {
            tile.load(u, y, 0);
            tile.load(v, b, 0);
            for (int i = 0; i < tile.count; i++) {
                const V of = c[tile.state(i)], sum = u[i] + splat<V>(ridge);
                v[i] = select(equal(sum, splat<V>(0)), of - of, fma(of, u[i], v[i]) / sum);
            }
            tile.store(out, v);
        });
    }
};
template <class R> constexpr bool BY_LINE<Solution<R>> = true;

template <> struct Op<SOFTMAX_SOLVE> {
    template <class R> static void row(const Row<R> &r) {
        const R ridge = (R)r.call->ridge;
        Solving<R> sums;
        on_kind<ROW>(r.grid(), Solve<R>{r.lines_of(r.a), r.lines_of(r.b), ridge, &sums});
        const vec<R> c = sums.of_all_lanes().coefficient(ridge);
        on_kind<ROW>(r.grid(), Solution<R>{r.lines_of(r.a), r.lines_of(r.b), r.lines_of(r.out), ridge, &c});
    }

    template <bool known, class R> static ALWAYS void grid(const Rows<R> &r) {
        const R ridge = (R)r.call->ridge;
        Solving<R> sums[MOST_VECTORS];
        vec<R> c[MOST_VECTORS];
        on<known>(r.g, Solve<R>{r.a, r.b, ridge, sums});
        for (int w = 0; w < vectors<R>(r.g); w++) c[w] = sums[w].coefficient(ridge);
        on<known>(r.g, Solution<R>{r.a, r.b, r.out, ridge, c});
    }
};
} // namespace
