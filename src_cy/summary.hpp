/* What ops have in common: what they are given, the maximum, and what log-type ops need of a row. Uses passes.hpp, short_row.hpp. */
#pragma once
#include "passes.hpp"
#include "short_row.hpp"

namespace {
/* One contiguous row of n entries, into `out` (perhaps an input) or the one value `result`. `in_order` are the sums of a short
 * one, to have the bits that it has as a lane of a panel; `is_early` whether the next one is begun before it ends (drive.hpp). */
template <class R> struct Row {
    const R *a, *b;
    R *out, *result;
    ptrdiff_t n, label;
    R sample;
    const Call *call;
    bool in_order, is_early;

    ALWAYS inline Grid grid() const { return row_grid<R>(n, call->given_up); }
    template <class T> ALWAYS inline Lines<T> lines_of(T *x) const { return {x, LANES<R>}; }

    /* What will be read after it, to look ahead to; of logits what is not begun yet. Longer rows the hardware fetches in time, and
     * they would push this one out of the cache. */
    ALWAYS inline const R *next(const R *row, int count = 1) const {
        return row && n * (ptrdiff_t)sizeof(R) <= 256 * 1024 ? row + count * n : nullptr;
    }
    ALWAYS inline const R *next_a(int count = 1) const {
        const R *p = next(a, count);
        return p ? (const R *)((const char *)p + call->ahead) : p;
    }
    ALWAYS inline const R *next_logits() const { return next_a(1 + is_early); }
};

/* Rows side by side, a row in each lane of a grid, `count` of them, into `out` or one result each. Along an inner axis
 * memory lies that way; short contiguous rows are transposed into a panel, whose lanes beyond the last row are filled
 * with what does no harm. `ahead` is where more rows come from. */
template <class R> struct Rows {
    Grid g;
    Lines<const R> a, b;
    Lines<R> out;
    R *results;
    const ptrdiff_t *labels;
    const R *samples;
    ptrdiff_t count;
    const Call *call;
    Ahead<R> ahead;

    /* The weights of the rows of vector w. */
    ALWAYS inline vec<R> sample(int w) const {
        const vec<R> one = splat<vec<R>>(1);
        return samples ? load_part(samples + w * LANES<R>, count - w * LANES<R>, one) : one;
    }
};

/* An op: `row(r, lead, begin_next)` goes over one row, from what `lead` found out of it, and says where the `lead` of the next is
 * best found out: where the row would wait for its sums. Its twin `grid` goes over rows side by side. */
template <enum op> struct Op;

template <class R> void fill(const Row<R> &r, R a) {
    for (ptrdiff_t j = 0; j < r.n; j++) r.out[j] = a;
}

/* The maximum of a row in every lane, NaN passed over. */
template <class R> INLINE vec<R> row_max(const Row<R> &r) {
    vec<R> most;
    if (r.in_order) return short_max(r.a, r.n);
    on_kind<ROW>(r.grid(), MaxOf<R>{r.lines_of(r.a), &most});
    return splat<vec<R>>(max_lane(most));
}

/* Ops that begin with the maximum; and others: where a row and the next of two inputs are gone over by turns the cache holds less. */
struct FromMaximum {
    template <class R> static ALWAYS vec<R> lead(const Row<R> &r) { return row_max(r); }
};
struct FromNothing {
    template <class R> static ALWAYS int lead(const Row<R> &) { return 0; }
};

/* Lane maxima, NaN where softmax is NaN: for +inf, and for nothing but -inf. */
template <class V> INLINE V nan_unless_finite(V most) {
    return select(equal(most - most, splat<V>(0)), most, splat<V>(NAN));
}

/* `rest` being the sum of exp(x_j - max) without one maximum: rest, log(1 + rest), 1 / (1 + rest), and what makes
 * exp(x_j - max) of a biased exp. */
template <class V> struct Summary {
    V log1p_rest;
    Pair<V> rest;
    Ratio<V> inverse;
    Pair<V> unit;
};

/* From the sums that leave the maxima out, and their number. Four vectors step by step, not one after the other, where each
 * step waits for the one before: the cross-entropy of 5 classes takes 0.8 of the time. */
template <int count, class R>
INLINE void summaries(const Shift<vec<R>> *s, const Sum<R> *sum, const Sum<R> *maxima, Summary<vec<R>> *of) {
    using V = vec<R>;
    const Pair<V> one = {splat<V>(1), splat<V>(0)}, less_one = {splat<V>(-1), splat<V>(0)};
    Pair<V> unit[count], rest[count], more[count];
    Ratio<V> q[count];
    V log[count];
    per_biased<count>(s, unit);
    for (int i = 0; i < count; i++) rest[i] = product(sum[i].pair(), ratio(unit[i]));
    for (int i = 0; i < count; i++)
        if (any(greater(maxima[i].finite(), one.hi))) /* seldom; where there are no ties it changes nothing */
            rest[i] = plus(rest[i], plus(maxima[i].pair(), less_one));
    for (int i = 0; i < count; i++) more[i] = two_sum(one.hi, rest[i].hi);
    for (int i = 0; i < count; i++) q[i] = inverse(Pair<V>{more[i].hi, more[i].lo + rest[i].lo});
    log1p<count>(rest, more, q, log);
    for (int i = 0; i < count; i++) of[i] = {log[i], rest[i], q[i], unit[i]};
}

template <class R> INLINE Summary<vec<R>> summary(const Shift<vec<R>> &s, Sum<R> sum, Sum<R> maxima) {
    Summary<vec<R>> of;
    summaries<1, R>(&s, &sum, &maxima, &of);
    return of;
}

/* Of a row; and the exps into `e` unless that is NULL. */
template <class R> Summary<vec<R>> row_summary(const Row<R> &r, R *e, vec<R> most, const R *next_out) {
    const Shift<vec<R>> s = shift_by(most);
    Sum<R> sum, maxima;
    if (r.in_order) { /* `e` may be the row itself */
        R exps[SHORT_BYTES / sizeof(R)];
        short_exps(r.a, r.n, s, exps);
        sum = others_in_order(r.a, most[0], exps, r.n, &maxima);
        if (e) __builtin_memcpy(e, exps, r.n * sizeof(R));
        return summary(s, sum, maxima);
    }
    exps_of<false>(r.grid(), r.lines_of(r.a), r.lines_of(e), &s, {r.next_logits(), next_out}, &sum, &maxima);
    return summary(s, sum.of_all_lanes(), maxima.of_all_lanes());
}

/* Of rows whose maxima are `most`, finite or NaN. */
template <bool known, class R>
INLINE void grid_summary(const Rows<R> &r, Lines<R> e, const vec<R> *most, Summary<vec<R>> *of) {
    Shift<vec<R>> s[MOST_VECTORS];
    Sum<R> sum[MOST_VECTORS], maxima[MOST_VECTORS];
    for (int w = 0; w < vectors<R>(r.g); w++) s[w] = shift_by(most[w]);
    exps_of<known>(r.g, r.a, e, s, r.ahead, sum, maxima);
    if (known || r.g.kind == TALL) return summaries<TILE, R>(s, sum, maxima, of);
    for (int w = 0; w < vectors<R>(r.g); w++) summaries<1, R>(s + w, sum + w, maxima + w, of + w);
}
} // namespace
