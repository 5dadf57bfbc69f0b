/* Products with the derivatives of softmax and log_softmax. Uses summary.hpp. */
#pragma once
#include "summary.hpp"

namespace {
template <class V> INLINE mask_of<V> is_dominant(V y) { return greater(y, splat<V>(real_of<V>(0.5))); }

/* dx_i = y_i * (g_i - sum_j g_j y_j) is unchanged by g - c: the cotangent of a dominant entry as c keeps the
 * digits of a saturated row; else the value nearest 0 between the extremes of g, which is g if g is constant.
 * Mostly that is 0, and the sum is known from the survey. Returns whether it is another in some lane. */
template <class V> INLINE bool centre_of(const Extremes<V> &ends, Centre<V> *c) {
    const V zero = splat<V>(0), nearest = max(ends.least, min(ends.most, zero));
    c->scale = splat<V>(1);
    c->centre = select(is_dominant(ends.y_max), ends.at_max, nearest);
    return any((mask_of<V>)~equal(c->centre, zero));
}

/* Whether differences from the sum may overflow, or the sum has, over a difference that had: a smaller one moves no number
 * past the largest. Then all is computed of an eighth of the cotangent. */
template <class V> INLINE mask_of<V> is_far(V dot) {
    using C = constants_of<V>;
    constexpr real_of<V> far = C::max_real / ((int_of<real_of<V>>)8 << C::mantissa_bits);
    return (mask_of<V>)~(less(dot, splat<V>(far)) & greater(dot, splat<V>(-far)));
}

template <class V> INLINE void scale_down(Centre<V> *c, mask_of<V> far) {
    c->scale = select(far, splat<V>(1) / 8, splat<V>(1));
    c->centre *= c->scale;
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

/* In which lanes some cotangent of the first lines is not above 0, and some not below: mostly in all. Then 0 is between the
 * extremes, which are not needed. */
template <class R> struct Signs {
    mask_of<vec<R>> low, high;

    ALWAYS inline Signs(Lines<const R> ct, ptrdiff_t entry, ptrdiff_t left, int lines) {
        const vec<R> zero = splat<vec<R>>(0);
        vec<R> least = zero + INFINITY, most = zero - INFINITY;
        for (int j = 0; j < lines; j++) {
            vec<R> a = load_part(ct.at + j * ct.stride + entry, left, zero);
            least = min(a, least);
            most = max(a, most);
        }
        low = (mask_of<vec<R>>)~greater(least, zero);
        high = (mask_of<vec<R>>)~less(most, zero);
    }
};

/* Whether that holds of a row, and of each of the rows of a grid that is high enough for the look to pay. */
template <class R> INLINE bool has_both_signs(Lines<const R> row) {
    const Signs<R> signs(row, 0, LANES<R>, 4);
    return any(signs.low) && any(signs.high);
}

template <class R> INLINE bool have_both_signs(const Grid &g, Lines<const R> ct) {
    constexpr int looked_at = 16;
    bool have = g.lines >= 4 * looked_at;
    for (ptrdiff_t i = 0; have && i < g.lanes; i += LANES<R>) {
        const Signs<R> signs(ct, i, g.lanes - i, looked_at);
        have = !any((mask_of<vec<R>>)~(signs.low & signs.high));
    }
    return have;
}

/* Where a number is in a row that has it. */
template <class R> INLINE ptrdiff_t place_of(R a, const R *x, ptrdiff_t n) {
    ptrdiff_t j = 0;
    while (n - j >= LANES<R> && !any(equal(load(x + j), splat<vec<R>>(a)))) j += LANES<R>;
    while (j < n - 1 && x[j] != a) j++;
    return j;
}

template <> struct Op<SOFTMAX_VJP> : FromNothing {
    template <class R, class Begin> static ALWAYS void row(const Row<R> &r, int, Begin) {
        using V = vec<R>;
        const auto y = r.lines_of(r.a), ct = r.lines_of(r.b);
        const auto out = r.lines_of(r.out);
        const Ahead<R> ahead = {r.next_a(), r.next(r.b)};
        Sum<R> sum;
        Centre<V> c = {splat<V>(1), splat<V>(0)};
        const bool is_centred = survey_row(r, &c, &sum);
        if (is_centred) on_kind<ROW>(r.grid(), Dot<R, false>{y, ct, &c, &sum});
        V dot = r.in_order ? dot_in_order(r, c) : all_lanes(sum);
        if (any(is_far(dot))) {
            scale_down(&c, is_far(dot));
            on_kind<ROW>(r.grid(), Dot<R, true>{y, ct, &c, &sum});
            dot = r.in_order ? dot_in_order(r, c) : all_lanes(sum);
            return on_kind<ROW>(r.grid(), Vjp<R, SCALED>{y, ct, out, &c, &dot, ahead});
        }
        if (is_centred) return on_kind<ROW>(r.grid(), Vjp<R, CENTRED>{y, ct, out, &c, &dot, ahead});
        on_kind<ROW>(r.grid(), Vjp<R, 0>{y, ct, out, &c, &dot, ahead});
    }

    /* The centre of a row, and the sum unless there is one; returns whether. */
    template <class R> static ALWAYS bool survey_row(const Row<R> &r, Centre<vec<R>> *c, Sum<R> *sum) {
        using V = vec<R>;
        const auto y = r.lines_of(r.a), ct = r.lines_of(r.b);
        Extremes<V> ends;
        if (!r.in_order && has_both_signs(ct)) {
            on_kind<ROW>(r.grid(), Survey<R, SUMS>{y, ct, r.out, &ends, sum});
            const bool is_centred = any(is_dominant(ends.y_max));
            if (is_centred) c->centre = splat<V>(r.b[place_of(max_lane(ends.y_max), r.a, r.n)]);
            return is_centred;
        }
        on_kind<ROW>(r.grid(), Survey<R, PLACES | EXTREMES | SUMS>{y, ct, r.out, &ends, sum});
        return centre_of(extremes_of_row(r, ends), c);
    }

    /* Of several with the maximum of y any will do, but where the row is to have the bits that it has in a lane: the first. */
    template <class R> static ALWAYS Extremes<vec<R>> extremes_of_row(const Row<R> &r, const Extremes<vec<R>> &ends) {
        using V = vec<R>;
        Extremes<V> row = {splat<V>(max_lane(ends.y_max)), ends.at_max, splat<V>(max_lane(ends.most)),
                           splat<V>(-max_lane(-ends.least))};
        row.at_max = splat<V>(max_lane(select(equal(ends.y_max, row.y_max), ends.at_max, splat<V>(-INFINITY))));
        for (ptrdiff_t j = r.in_order ? r.n - 1 : -1; j >= 0; j--)
            if (r.a[j] == row.y_max[0]) row.at_max = splat<V>(r.b[j]);
        return row;
    }

    /* The same of the rows of a grid, but for a `known` one, which is small: nearly always one of its rows has a centre. */
    template <bool known, class R> static ALWAYS void survey(const Rows<R> &r, Extremes<vec<R>> *ends, Sum<R> *sum) {
        constexpr int all = PLACES | EXTREMES | (known ? 0 : SUMS);
        if (known || !have_both_signs(r.g, r.b)) return on<known>(r.g, Survey<R, all>{r.a, r.b, r.ahead.out, ends, sum});
        on<known>(r.g, Survey<R, SUMS>{r.a, r.b, r.ahead.out, ends, sum});
        mask_of<vec<R>> dominant = is_dominant(ends->y_max);
        for (int w = 1; w < vectors<R>(r.g); w++) dominant |= is_dominant(ends[w].y_max);
        if (any(dominant)) on<known>(r.g, Survey<R, PLACES>{r.a, r.b, nullptr, ends, sum});
        for (int w = 0; w < vectors<R>(r.g); w++) ends[w].most = ends[w].least = splat<vec<R>>(0);
    }

    template <bool known, class R> static ALWAYS void grid(const Rows<R> &r) {
        using V = vec<R>;
        Extremes<V> ends[MOST_VECTORS];
        Sum<R> sum[MOST_VECTORS];
        Centre<V> c[MOST_VECTORS];
        V dot[MOST_VECTORS], size = splat<V>(0); /* far if some sum may be */
        bool is_centred = known;
        survey<known>(r, ends, sum);
        for (int w = 0; w < vectors<R>(r.g); w++) {
            is_centred |= centre_of(ends[w], &c[w]);
            if (known) size = max(ends[w].most - ends[w].least, size);
        }
        if (known && any(is_far(size))) return scaled_grid<known>(r, c);
        if (is_centred) on<known>(r.g, Dot<R, false>{r.a, r.b, c, sum});
        for (int w = 0; w < vectors<R>(r.g); w++) {
            dot[w] = sum[w].finite();
            if (!known) size = fma(dot[w], dot[w], size);
        }
        if (!known && any(is_far(size))) return scaled_grid<known>(r, c);
        const Ahead<R> ahead = {r.ahead.x, nullptr};
        if (is_centred) return on<known>(r.g, Vjp<R, CENTRED>{r.a, r.b, r.out, c, dot, ahead});
        on<known>(r.g, Vjp<R, 0>{r.a, r.b, r.out, c, dot, ahead});
    }

    /* Rows of which some sum is far. */
    template <bool known, class R> static ALWAYS void scaled_grid(const Rows<R> &r, Centre<vec<R>> *c) {
        Sum<R> sum[MOST_VECTORS];
        vec<R> dot[MOST_VECTORS];
        on_seldom<known>(r.g, Dot<R, false>{r.a, r.b, c, sum});
        for (int w = 0; w < vectors<R>(r.g); w++) scale_down(&c[w], is_far(sum[w].finite()));
        on_seldom<known>(r.g, Dot<R, true>{r.a, r.b, c, sum});
        for (int w = 0; w < vectors<R>(r.g); w++) dot[w] = sum[w].value();
        on_seldom<known>(r.g, Vjp<R, SCALED>{r.a, r.b, r.out, c, dot, {r.ahead.x, nullptr}});
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
