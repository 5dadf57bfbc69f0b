/* Products with the derivatives of softmax and log_softmax. Uses summary.hpp. */
#pragma once
#include "summary.hpp"

namespace {
/* Whether something is taken off a cotangent, and whether it is made smaller before. */
enum { CENTRED = 1, SCALED = 2 };

/* dx_i = y_i * (g_i - sum_j g_j y_j) is unchanged by g - c: the cotangent of a dominant entry as c keeps the
 * digits of a saturated row; else the value nearest 0 between the extremes of g, which is g if g is constant.
 * Mostly that is 0, and the sum is known from the look at the extremes. Where the extremes are so far apart that
 * differences overflow, all is computed of an eighth of the cotangent. Returns which of that a row is. */
template <class V> INLINE int centre_of(const Extremes<V> &ends, Centre<V> *c) {
    using R = real_of<V>;
    const V zero = splat<V>(0), one = splat<V>(1);
    V nearest = max(ends.least, min(ends.most, zero));
    c->scale = one;
    c->centre = select(greater(ends.y_max, splat<V>(R(0.5))), ends.at_max, nearest);
    int how = any((mask_of<V>)~equal(c->centre, zero)) ? CENTRED : 0;
    mask_of<V> far_apart = greater(ends.most - ends.least, splat<V>(Constants<R>::max_real / 8));
    if (!any(far_apart)) return how;
    c->scale = select(far_apart, one / 8, one);
    c->centre *= c->scale;
    return how | SCALED;
}

/* The sum of y * (cotangent - centre) of a short row, by pairs as `add_products` has it. */
template <class R> INLINE vec<R> dot_in_order(const Row<R> &r, const Centre<vec<R>> &c) {
    using V = vec<R>;
    const bool is_scaled = c.scale[0] != 1;
    Sum<R> sum = Sum<R>::from(0);
    const auto y = [&](ptrdiff_t j) ALWAYS { return splat<V>(r.a[j]); };
    const auto centred = [&](ptrdiff_t j) ALWAYS {
        const V g = splat<V>(r.b[j]);
        return is_scaled ? fma(g, c.scale, -c.centre) : g - c.centre;
    };
    for (ptrdiff_t j = 0; j < r.n; j += 2) {
        const V product = y(j) * centred(j);
        sum.add(j + 1 < r.n ? fma(y(j + 1), centred(j + 1), product) : product);
    }
    return is_scaled ? sum.value() : sum.finite();
}

template <> struct Op<SOFTMAX_VJP> : FromNothing {
    template <class R, class Begin> static ALWAYS void row(const Row<R> &r, int, Begin) {
        using V = vec<R>;
        const auto y = r.lines_of(r.a), ct = r.lines_of(r.b);
        Extremes<V> ends;
        Sum<R> sum;
        on_kind<ROW>(r.grid(), Survey<R, true>{y, ct, r.out, &ends, &sum});
        Extremes<V> row = {splat<V>(max_lane(ends.y_max)), ends.at_max, splat<V>(max_lane(ends.most)),
                           splat<V>(-max_lane(-ends.least))};
        /* Of several with that y any will do, but where the row is to have the bits that it has in a lane: the first. */
        row.at_max = splat<V>(max_lane(select(equal(ends.y_max, row.y_max), ends.at_max, splat<V>(-INFINITY))));
        for (ptrdiff_t j = r.in_order ? r.n - 1 : -1; j >= 0; j--)
            if (r.a[j] == row.y_max[0]) row.at_max = splat<V>(r.b[j]);
        Centre<V> c;
        const int how = centre_of(row, &c);
        if (how & SCALED)
            on_kind<ROW>(r.grid(), Dot<R, true>{y, ct, &c, &sum});
        else if (how)
            on_kind<ROW>(r.grid(), Dot<R, false>{y, ct, &c, &sum});
        const V dot = r.in_order ? dot_in_order(r, c) : all_lanes(sum);
        const Ahead<R> ahead = {r.next_a(), r.next(r.b)};
        if (how & SCALED)
            on_kind<ROW>(r.grid(), Vjp<R, true>{y, ct, r.lines_of(r.out), &c, &dot, ahead});
        else
            on_kind<ROW>(r.grid(), Vjp<R, false>{y, ct, r.lines_of(r.out), &c, &dot, ahead});
    }

    template <bool known, class R> static ALWAYS void grid(const Rows<R> &r) {
        using V = vec<R>;
        Extremes<V> ends[MOST_VECTORS];
        Sum<R> sum[MOST_VECTORS];
        Centre<V> c[MOST_VECTORS];
        int how = 0;
        on<known>(r.g, Survey<R, !known>{r.a, r.b, r.ahead.out, ends, sum});
        for (int w = 0; w < vectors<R>(r.g); w++) how |= centre_of(ends[w], &c[w]);
        if (how & SCALED)
            products<known, true>(r, c, sum, true);
        else
            products<known, false>(r, c, sum, known || how);
    }

    /* The products of rows whose centres are known, with the sum formed `anew` where not all are 0. */
    template <bool known, bool scaled, class R>
    static ALWAYS void products(const Rows<R> &r, const Centre<vec<R>> *c, Sum<R> *sum, bool anew) {
        vec<R> dot[MOST_VECTORS];
        const auto pass = [&](const auto &pass) ALWAYS {
            if constexpr (scaled)
                on_seldom<known>(r.g, pass);
            else
                on<known>(r.g, pass);
        };
        if (anew) pass(Dot<R, scaled>{r.a, r.b, c, sum});
        for (int w = 0; w < vectors<R>(r.g); w++) dot[w] = scaled ? sum[w].value() : sum[w].finite();
        pass(Vjp<R, scaled>{r.a, r.b, r.out, c, dot, {r.ahead.x, nullptr}});
    }
};

/* dx_i = g_i - exp(logy_i) * sum_j g_j */
template <> struct Op<LOG_SOFTMAX_VJP> : FromNothing {
    template <class R, class Begin> static ALWAYS void row(const Row<R> &r, int, Begin) {
        Sum<R> sum;
        on_kind<ROW>(r.grid(), SumOf<R>{r.lines_of(r.b), &sum});
        const vec<R> total = all_lanes(sum);
        on_kind<ROW>(r.grid(), LogVjp<R>{r.lines_of(r.a), r.lines_of(r.b), r.lines_of(r.out), &total});
    }

    template <bool known, class R> static ALWAYS void grid(const Rows<R> &r) {
        Sum<R> sum[MOST_VECTORS];
        vec<R> total[MOST_VECTORS];
        on<known>(r.g, SumOf<R>{r.b, sum});
        for (int w = 0; w < vectors<R>(r.g); w++) total[w] = sum[w].value();
        on<known>(r.g, LogVjp<R>{r.a, r.b, r.out, total});
    }
};

/* d(log y)_i = t_i - sum_j exp(logy_j) * t_j */
template <> struct Op<LOG_SOFTMAX_JVP> : FromNothing {
    template <class R, class Begin> static ALWAYS void row(const Row<R> &r, int, Begin) {
        Sum<R> sum;
        on_kind<ROW>(r.grid(), ExpDot<R>{r.lines_of(r.a), r.lines_of(r.b), &sum});
        const vec<R> dot = all_lanes(sum), zero = splat<vec<R>>(0);
        on_kind<ROW>(r.grid(), Subtract<R>{r.lines_of(r.b), r.lines_of(r.out), &zero, &dot});
    }

    template <bool known, class R> static ALWAYS void grid(const Rows<R> &r) {
        Sum<R> sum[MOST_VECTORS];
        vec<R> dot[MOST_VECTORS], zero[MOST_VECTORS];
        on<known>(r.g, ExpDot<R>{r.a, r.b, sum});
        for (int w = 0; w < vectors<R>(r.g); w++) {
            dot[w] = sum[w].value();
            zero[w] = splat<vec<R>>(0);
        }
        on<known>(r.g, Subtract<R>{r.b, r.out, zero, dot});
    }
};
} // namespace
