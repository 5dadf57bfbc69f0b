/* A cross-entropy is at_label * nll[label] + sum_j everywhere[j] * nll[j], as PyTorch defines it, with
 * nll_j = (max - x_j) + log(1 + rest): `Target` (call.h) says how they are weighed. Its gradient is
 * y_j * (at_label + total) - everywhere_j - (j == label) * at_label, with 1 - y of the largest formed from the others. Both are
 * times the weight of the row. Uses targets.hpp. */
#pragma once
#include "targets.hpp"

namespace {
template <class R> INLINE const R *everywhere_of(const Target *t) { return (const R *)t->everywhere; }

template <class R> INLINE R at_label_of(const Target *t, ptrdiff_t label) {
    return (R)(t->weight ? t->at_label * ((const R *)t->weight)[label] : t->at_label);
}

/* at_label * nll of the label, by halves where the difference of the logits overflows: at_label may be small. A factor of
 * 0 makes it 0 whatever the logit. */
template <class V> INLINE V loss_at_label(V at_label, V most, V x_label, V log1p_rest) {
    V d = most - x_label, loss = at_label * (d + log1p_rest);
    mask_of<V> finite = less(d, splat<V>(INFINITY)), nothing = equal(at_label, splat<V>(0));
    if (!any((mask_of<V>)~finite)) return loss;
    loss = select(finite, loss, 2 * (at_label * (most / 2 - x_label / 2)) + at_label * log1p_rest); /* which may be NaN */
    return select(nothing, at_label * log1p_rest, loss);
}

/* The gradient of a row from its exps, which it replaces. */
template <class R> void row_gradient(const Row<R> &r, R x_label, R at_label, R most, const Summary<vec<R>> &s) {
    using V = vec<R>;
    const Target *t = &r.call->target;
    const R *everywhere = everywhere_of<R>(t), total = (R)t->total, scale = (R)t->scale * r.sample;
    const Ratio<V> per_exp = ratio(product(s.unit, s.inverse));
    const R y_label = times(splat<V>(r.out[r.label]), per_exp)[0];
    const R one_minus = x_label == most ? share(s.rest, s.inverse)[0] : 1 - y_label;
    const V scales = splat<V>(scale), factor = splat<V>(scale * (at_label + total));
    V none = splat<V>(NAN);
    Ratio<V> q;
    const auto e = r.lines_of(r.out);
    quotients<R>(1, &factor, &s, &q);
    keep_digits<R>(1, &factor, &s, e, &none, &q, [&](auto pass) ALWAYS { on_kind<ROW>(r.grid(), pass); });
    if (everywhere)
        on_kind<ROW>(r.grid(), TargetGradient<R, true>{e, e, Weights<R, true>(t, {}), &q, &scales, &none, &none});
    else
        on_kind<ROW>(r.grid(), Times<R>{e, e, &q});
    r.out[r.label] = scale * ((total * y_label - (everywhere ? everywhere[r.label] : 0)) - at_label * one_minus);
}

/* What the labels of one vector of rows contribute. Ignored ones and lanes without a row have label -1. Of few lines, as a
 * `known` grid has, each is compared with the labels: to gather and scatter takes 40 operations each where the CPU has them. */
template <bool known, class R> struct AtLabel {
    using V = vec<R>;
    ptrdiff_t label[LANES<R>]; /* or, of few lines, `lane` */
    bits_of<V> lane;
    mask_of<V> ignored;
    V at, everywhere, x, sample;

    ALWAYS inline void look_up(const Rows<R> &r, int w) {
        const Target *t = &r.call->target;
        const ptrdiff_t *labels = r.labels + w * LANES<R>, count = r.count - w * LANES<R>, lines = r.g.lines;
        const auto weight = [&](ptrdiff_t label) ALWAYS { return at_label_of<R>(t, label); };
        const auto smoothing = [&](ptrdiff_t label) ALWAYS { return everywhere_of<R>(t)[label]; };
        if constexpr (known)
            for (int l = 0; l < LANES<R>; l++) lane[l] = (int_of<R>)labels[l];
        else if (count >= LANES<R>)
            __builtin_memcpy(label, labels, sizeof label);
        else
            for (int l = 0; l < LANES<R>; l++) label[l] = l < count ? labels[l] : -1;
        sample = r.sample(w);
        ignored = are_negative() | equal(sample, splat<V>(0));
        x = from({r.a.at + w * LANES<R>, r.a.stride}, lines);
        at = t->weight ? of_each(weight, lines) : splat<V>((R)t->at_label);
        everywhere = t->everywhere ? of_each(smoothing, lines) : splat<V>(0);
    }

    ALWAYS inline mask_of<V> are_negative() const {
        if constexpr (known) return is_negative(lane);
        int_of<R> high[LANES<R>]; /* the upper half of each label, where its sign is, or all of it */
        bits_of<V> sign;
        constexpr int less = 8 * (sizeof *label > sizeof *high ? sizeof *label - sizeof *high : 0);
        for (int l = 0; l < LANES<R>; l++) high[l] = (int_of<R>)(label[l] >> less);
        __builtin_memcpy(&sign, high, sizeof sign);
        return is_negative(sign);
    }

    ALWAYS inline mask_of<V> are_at(ptrdiff_t line) const { return are_equal(lane, (int_of<R>)line - bits_of<V>{}); }

    /* In each lane the entry of its line, or 0. */
    ALWAYS inline V from(Lines<const R> x, ptrdiff_t lines) const {
        if constexpr (!known) return gather(x.at, x.stride, label);
        V v = splat<V>(0);
        for (ptrdiff_t j = 0; j < lines; j++) v = select(are_at(j), load(x.at + j * x.stride), v);
        return v;
    }

    /* In each lane value(label), or 0. */
    template <class Value> ALWAYS inline V of_each(Value value, ptrdiff_t lines) const {
        if constexpr (!known) return of_lanes<V>([&](int l) ALWAYS { return label[l] < 0 ? 0 : value(label[l]); });
        V v = splat<V>(0);
        for (ptrdiff_t j = 0; j < lines; j++) v = select(are_at(j), splat<V>(value(j)), v);
        return v;
    }

    /* Put each lane of `v` into its line. */
    ALWAYS inline void put(Lines<R> out, ptrdiff_t lines, V v) const {
        if constexpr (known) {
            for (ptrdiff_t j = 0; j < lines; j++) {
                R *p = out.at + j * out.stride;
                store(p, select(are_at(j), v, load(p)));
            }
            return;
        }
        R lane_of[LANES<R>];
        store(lane_of, v);
        for (int l = 0; l < LANES<R>; l++)
            if (label[l] >= 0) out.at[label[l] * out.stride + l] = lane_of[l];
    }
};

/* The gradients of rows from their exps, which they replace. */
template <bool known, class R>
INLINE void gradients_grid(const Rows<R> &r, const AtLabel<known, R> *a, const vec<R> *most, const Summary<vec<R>> *s) {
    using V = vec<R>;
    const R total = (R)r.call->target.total;
    V dx_label[MOST_VECTORS], scale[MOST_VECTORS], factor[MOST_VECTORS], none[MOST_VECTORS];
    Ratio<V> q[MOST_VECTORS];
    mask_of<V> ignored[MOST_VECTORS];
    for (int w = 0; w < vectors<R>(r.g); w++) {
        const Ratio<V> per_exp = ratio(product(s[w].unit, s[w].inverse));
        V y_label = times(a[w].from({r.out.at + w * LANES<R>, r.out.stride}, r.g.lines), per_exp);
        V one_minus = share(s[w].rest, s[w].inverse);
        one_minus = select(equal(a[w].x, most[w]), one_minus, 1 - y_label);
        scale[w] = (R)r.call->target.scale * a[w].sample;
        dx_label[w] = scale[w] * ((total * y_label - a[w].everywhere) - a[w].at * one_minus);
        dx_label[w] = select(a[w].ignored, splat<V>(0), dx_label[w]);
        factor[w] = scale[w] * (a[w].at + total);
        ignored[w] = a[w].ignored;
        none[w] = splat<V>(NAN);
    }
    const auto seldom = [&](auto pass) ALWAYS { on_seldom<known>(r.g, pass); };
    quotients<R>(vectors<R>(r.g), factor, s, q);
    if (r.call->target.weight || r.samples) keep_digits<R>(vectors<R>(r.g), factor, s, r.out, none, q, seldom);
    if (r.call->target.everywhere)
        on_seldom<known>(r.g, TargetGradient<R, false>{r.out, r.out, Weights<R, false>(&r.call->target, {}), q, scale, none, none});
    else
        on<known>(r.g, Times<R>{r.out, r.out, q});
    clear(r, ignored);
    for (int w = 0; w < vectors<R>(r.g); w++) a[w].put({r.out.at + w * LANES<R>, r.out.stride}, r.g.lines, dx_label[w]);
}

/* One loss a row; and the gradient into `out` unless that is NULL. Ignored rows have neither. */
template <> struct Op<CROSS_ENTROPY> {
    template <class R> static ALWAYS bool is_ignored(const Row<R> &r) { return r.label < 0 || r.sample == 0; }

    template <class R> static ALWAYS vec<R> lead(const Row<R> &r) { return is_ignored(r) ? splat<vec<R>>(0) : row_max(r); }

    template <class R, class Begin> static ALWAYS void row(const Row<R> &r, const vec<R> most, Begin begin_next) {
        using V = vec<R>;
        const Target *t = &r.call->target;
        if (is_ignored(r)) {
            if (r.out) fill(r, R(0));
            return void(*r.result = 0);
        }
        const R x_label = r.a[r.label], at_label = at_label_of<R>(t, r.label);
        if (!__builtin_isfinite(most[0])) {
            if (r.out) fill(r, R(NAN));
            return void(*r.result = NAN);
        }
        Sum<R> gaps = Sum<R>::from(0);
        if (t->everywhere) on_kind<ROW>(r.grid(), HalfGaps<R, true>{r.lines_of(r.a), Weights<R, true>(t, {}), &most, &gaps});
        const Summary<V> s = row_summary(r, r.out, most, r.next(r.out));
        begin_next();
        if (r.out) row_gradient(r, x_label, at_label, most[0], s);
        V loss = loss_at_label(splat<V>(at_label * r.sample), most, splat<V>(x_label), s.log1p_rest);
        if (t->everywhere) loss += loss_everywhere(all_lanes(gaps), splat<V>((R)t->total), splat<V>(r.sample), s);
        *r.result = loss[0];
    }

    template <bool known, class R> static ALWAYS void grid(const Rows<R> &r) {
        using V = vec<R>;
        const Target *t = &r.call->target;
        V most[MOST_VECTORS], zero = splat<V>(0);
        Sum<R> gaps[MOST_VECTORS];
        AtLabel<known, R> a[MOST_VECTORS];
        Summary<V> s[MOST_VECTORS];
        on<known>(r.g, MaxOf<R>{r.a, most});
        for (int w = 0; w < vectors<R>(r.g); w++) {
            most[w] = nan_unless_finite(most[w]);
            a[w].look_up(r, w);
        }
        if (t->everywhere) on_seldom<known>(r.g, HalfGaps<R, false>{r.a, Weights<R, false>(t, {}), most, gaps});
        grid_summary<known>(r, r.out, most, s);
        for (int w = 0; w < vectors<R>(r.g); w++) {
            V loss = loss_at_label(a[w].at * a[w].sample, most[w], a[w].x, s[w].log1p_rest);
            if (t->everywhere) loss += loss_everywhere(gaps[w].value(), splat<V>((R)t->total), a[w].sample, s[w]);
            store_part(r.results + w * LANES<R>, r.count - w * LANES<R>, select(a[w].ignored, zero, loss));
        }
        if (r.out.at) gradients_grid<known>(r, a, most, s);
    }
};
} // namespace
