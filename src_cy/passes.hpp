/* The passes that ops are made of. Each is what it reads and writes, and `run` for a kind of grid. Uses grid.hpp. */
#pragma once
#include "grid.hpp"

namespace {
/* Lane maxima; NaN is passed over and comes back through exp. */
template <class R> struct MaxOf {
    using V = vec<R>;
    Lines<const R> x;
    V *most;

    template <Kind kind> ALWAYS inline void run(const Grid &g) const {
        constexpr int wide = width<kind>;
        V m[GROUP], a[GROUP];
        for (int i = 0; i < GROUP; i++) m[i] = splat<V>(-INFINITY);
        if (kind == WIDE)
            for (int w = 0; w < vectors<R>(g); w++) most[w] = m[0];
        each_tile<R, kind, GROUP>(g, [&](auto tile) ALWAYS {
            tile.load(a, x, -INFINITY);
            if constexpr (kind != WIDE) {
                for (int i = 0; i < tile.count; i++) m[i] = max(a[i], m[i]);
                return;
            }
            for (int k = 0; k < wide; k++) {
                V of = most[tile.state(k)];
                for (int i = k; i < tile.count; i += wide) of = max(a[i], of);
                most[tile.state(k)] = of;
            }
        });
        if (kind == WIDE) return;
        for (int half = GROUP / 2; half >= wide; half /= 2)
            for (int i = 0; i < half; i++) m[i] = max(m[i], m[i + half]);
        for (int w = 0; w < wide; w++) most[w] = m[w];
    }
};

/* Sums of exp_biased(x), and the exps themselves into `e` unless that is NULL. With OTHERS those of maxima are left
 * out, and counted: they would swallow what a dominated row is about. */
template <class R, int how> struct Exps {
    using V = vec<R>;
    Lines<const R> x;
    Lines<R> e;
    const Shift<V> *s;
    Ahead<R> ahead;
    Sum<R> *sums, *maxima;

    template <Kind kind> ALWAYS inline void run(const Grid &g) const {
        constexpr int wide = width<kind>;
        constexpr R start = how & OTHERS ? 0 : Constants<R>::above;
        const int counted = how & OTHERS ? states<R, kind>(g) : 0;
        const bits_of<V> none = (bits_of<V>)splat<V>(0);
        V a[EXPS];
        mask_of<V> largest[EXPS];
        bits_of<V> one_count, few_counts[TILE], many_counts[MOST_VECTORS];
        bits_of<V> *counts = kind == WIDE ? many_counts : wide == 1 ? &one_count : few_counts;
        for (int w = 0; w < counted; w++) {
            counts[w] = none;
            maxima[w] = Sum<R>::from(0);
        }
        const auto body = [&](auto tile, Sum<R> *part) ALWAYS {
            tile.load(a, x, -INFINITY);
            tile.look_ahead(ahead.x);
            tile.look_ahead(ahead.out);
            if constexpr (how & OTHERS)
                for (int i = 0; i < tile.count; i++) largest[i] = equal(a[i], s[tile.state(i)].max);
            exp_biased<tile.count, wide, how>(a, s + tile.state(0));
            if (e.at) tile.store(e, a);
            for (int i = 0; i < tile.count; i++)
                if constexpr (how & OTHERS)
                    part[tile.state(i)].add(leave_out(a[i], largest[i], &counts[tile.state(i)]));
                else
                    part[tile.state(i)].add_smaller(a[i]);
        };
        sum_tiles<R, kind, EXPS>(g, start, sums, body, [&]() ALWAYS {
            for (int w = 0; w < counted; w++) {
                maxima[w].add_whole(__builtin_convertvector(counts[w], V));
                counts[w] = none;
            }
        });
    }
};

/* The same, large maxima or not; with OTHERS if `maxima` is not NULL. */
template <bool known, class R>
INLINE void exps_of(const Grid &g, Lines<const R> x, Lines<R> e, const Shift<vec<R>> *s, Ahead<R> ahead, Sum<R> *sums,
                    Sum<R> *maxima) {
    mask_of<vec<R>> large = s[0].large;
    for (int w = 0; w < vectors<R>(g); w++) large |= s[w].large;
    const bool mixed = any(large);
    if (maxima && mixed)
        on<known>(g, Exps<R, OTHERS | MIXED>{x, e, s, ahead, sums, maxima});
    else if (maxima)
        on<known>(g, Exps<R, OTHERS>{x, e, s, ahead, sums, maxima});
    else if (mixed)
        on<known>(g, Exps<R, MIXED>{x, e, s, ahead, sums, maxima});
    else
        on<known>(g, Exps<R, 0>{x, e, s, ahead, sums, maxima});
}

/* out = e * q */
template <class R> struct Times {
    using V = vec<R>;
    Lines<R> e, out;
    const Ratio<V> *q;

    Times from(ptrdiff_t line) const { return {e.from(line), out.from(line), q}; }
    template <Kind kind> ALWAYS inline void run(const Grid &g) const {
        const Each<kind, Ratio<V>> of(q);
        write<R, kind>(g, out, {}, [&](ptrdiff_t k, V a) ALWAYS { return times(a, of[k]); }, e);
    }
};
template <class R> constexpr bool BY_LINE<Times<R>> = true;

/* out = (x - a) - b */
template <class R> struct Subtract {
    using V = vec<R>;
    Lines<const R> x;
    Lines<R> out;
    const V *a, *b;

    Subtract from(ptrdiff_t line) const { return {x.from(line), out.from(line), a, b}; }
    template <Kind kind> ALWAYS inline void run(const Grid &g) const {
        const Each<kind, V> first(a), second(b);
        write<R, kind>(g, out, {}, [&](ptrdiff_t k, V v) ALWAYS { return (v - first[k]) - second[k]; }, x);
    }
};
template <class R> constexpr bool BY_LINE<Subtract<R>> = true;

/* Add the terms of a tile. Doubles by pairs of lines first: a rounding, for which the bounds of products have room. Of floats two
 * may overflow together where the sum, a double, does not. */
template <int count, int wide, class R> INLINE void add_terms(Sum<R> *sum, const vec<R> *a) {
    if constexpr (sizeof(R) < sizeof(double)) {
        for (int i = 0; i < count; i++) sum[i % wide].add(a[i]);
        return;
    }
    for (int i = 0; i < count; i += 2 * wide)
        for (int k = i; k < i + wide; k++) sum[k - i].add(k + wide < count ? a[k] + a[k + wide] : a[k]);
}

template <int count, int wide, class R> INLINE void add_products(Sum<R> *sum, const vec<R> *a, const vec<R> *b) {
    for (int i = 0; i < count; i += 2 * wide)
        for (int k = i; k < i + wide; k++) {
            vec<R> product = a[k] * b[k];
            sum[k - i].add(k + wide < count ? fma(a[k + wide], b[k + wide], product) : product);
        }
}

/* What a VJP needs to know: lane maxima of y and the cotangent there, the lane extremes of the cotangent, lane sums
 * of their product. */
template <class V> struct Extremes {
    V y_max, at_max, most, least;
};
enum { PLACES = 1, EXTREMES = 2, SUMS = 4 };

/* The maxima, and what else of that is `wanted`. */
template <class R, int wanted> struct Survey {
    using V = vec<R>;
    Lines<const R> y, ct;
    const R *next_out;
    Extremes<V> *all;
    Sum<R> *sums;

    template <Kind kind> ALWAYS inline void run(const Grid &g) const {
        constexpr int wide = width<kind>;
        Extremes<V> few_ends[TILE], *ends = kind == WIDE ? all : few_ends;
        V a[GROUP], b[GROUP];
        for (int w = 0; w < states<R, kind>(g); w++) { /* by field: else GCC makes a `rep stos` of 30 cycles */
            ends[w].y_max = ends[w].most = splat<V>(-INFINITY);
            ends[w].least = splat<V>(INFINITY);
            ends[w].at_max = splat<V>(0);
        }
        const auto look = [&](auto tile) ALWAYS {
            tile.load(a, y, 0);
            tile.load(b, ct, wanted & EXTREMES ? ct.at[0] : 0);
            tile.look_ahead(next_out);
            for (int i = 0; i < tile.count; i++) {
                Extremes<V> &of = ends[tile.state(i)];
                if (wanted & PLACES) of.at_max = select(greater(a[i], of.y_max), b[i], of.at_max);
                of.y_max = max(a[i], of.y_max);
                if (wanted & EXTREMES) of.most = max(b[i], of.most);
                if (wanted & EXTREMES) of.least = min(b[i], of.least);
            }
        };
        if constexpr (wanted & SUMS)
            sum_tiles<R, kind, GROUP>(g, sums, [&](auto tile, Sum<R> *part) ALWAYS {
                look(tile);
                add_products<tile.count, wide>(part + tile.state(0), a, b);
            });
        else
            each_tile<R, kind, GROUP>(g, look);
        if (kind != WIDE)
            for (int w = 0; w < wide; w++) all[w] = few_ends[w];
    }
};

/* What is taken from a cotangent that is first multiplied by a scale: 1, or less where differences would overflow. */
template <class V> struct Centre {
    V scale, centre;
};

template <class V> ALWAYS inline Centre<V> by_field(const Centre<V> &c) { return {c.scale, c.centre}; }

/* Lane sums of y * (cotangent - centre). */
template <class R, bool scaled> struct Dot {
    using V = vec<R>;
    Lines<const R> y, ct;
    const Centre<V> *of;
    Sum<R> *sums;

    template <Kind kind> ALWAYS inline void run(const Grid &g) const {
        V u[GROUP], v[GROUP];
        sum_tiles<R, kind, GROUP>(g, sums, [&](auto tile, Sum<R> *part) ALWAYS {
            tile.load(u, y, 0);
            tile.load(v, ct, 0);
            for (int i = 0; i < tile.count; i++) {
                const Centre<V> &c = of[tile.state(i)];
                v[i] = scaled ? fma(v[i], c.scale, -c.centre) : v[i] - c.centre;
            }
            add_products<tile.count, tile.wide>(part + tile.state(0), u, v);
        });
    }
};

/* Whether something is taken off a cotangent, and whether it is made smaller before. */
enum { CENTRED = 1, SCALED = 2 };

/* out = y * ((cotangent - centre) - dot), with the scale if there is one. */
template <class R, int how> struct Vjp {
    using V = vec<R>;
    Lines<const R> y, ct;
    Lines<R> out;
    const Centre<V> *of;
    const V *dot;
    Ahead<R> ahead;

    Vjp from(ptrdiff_t line) const { return {y.from(line), ct.from(line), out.from(line), of, dot, {}}; }
    template <Kind kind> ALWAYS inline void run(const Grid &g) const {
        const Each<kind, Centre<V>> centres(of);
        const Each<kind, V> dots(dot);
        const auto product = [&](ptrdiff_t k, V u, V v) ALWAYS {
            const Centre<V> &c = centres[k];
            if (how & SCALED) v *= c.scale;
            v = u * ((how ? v - c.centre : v) - dots[k]);
            return how & SCALED ? v / c.scale : v;
        };
        write<R, kind>(g, out, ahead, product, y, ct);
    }
};
template <class R, int how> constexpr bool BY_LINE<Vjp<R, how>> = true;

/* Lane sums of x. */
template <class R> struct SumOf {
    Lines<const R> x;
    Sum<R> *sums;

    template <Kind kind> ALWAYS inline void run(const Grid &g) const {
        vec<R> a[GROUP];
        sum_tiles<R, kind, GROUP>(g, sums, [&](auto tile, Sum<R> *part) ALWAYS {
            tile.load(a, x, 0);
            add_terms<tile.count, tile.wide>(part + tile.state(0), a);
        });
    }
};

/* Lane sums of the entries of y up to 1/2. */
template <class R> struct SumOfSmall {
    using V = vec<R>;
    Lines<const R> y;
    Sum<R> *sums;

    template <Kind kind> ALWAYS inline void run(const Grid &g) const {
        V a[GROUP];
        sum_tiles<R, kind, GROUP>(g, sums, [&](auto tile, Sum<R> *part) ALWAYS {
            tile.load(a, y, 0);
            for (int i = 0; i < tile.count; i++) a[i] = select(greater(a[i], splat<V>(R(0.5))), splat<V>(0), a[i]);
            add_terms<tile.count, tile.wide>(part + tile.state(0), a);
        });
    }
};

/* out = y * (1 - y), where 1 - y of an entry above 1/2 is `others`. */
template <class R> struct Diagonal {
    using V = vec<R>;
    Lines<const R> y;
    Lines<R> out;
    const V *others;

    Diagonal from(ptrdiff_t line) const { return {y.from(line), out.from(line), others}; }
    template <Kind kind> ALWAYS inline void run(const Grid &g) const {
        const Each<kind, V> rest(others);
        const auto product = [&](ptrdiff_t k, V a) ALWAYS {
            return a * select(greater(a, splat<V>(R(0.5))), rest[k], 1 - a);
        };
        write<R, kind>(g, out, {}, product, y);
    }
};
template <class R> constexpr bool BY_LINE<Diagonal<R>> = true;

/* out = cotangent - exp(logy) * total */
template <class R> struct LogVjp {
    using V = vec<R>;
    Lines<const R> logy, ct;
    Lines<R> out;
    const V *total;

    LogVjp from(ptrdiff_t line) const { return {logy.from(line), ct.from(line), out.from(line), total}; }
    template <Kind kind> ALWAYS inline void run(const Grid &g) const {
        const Shift<V> none = shift_by(splat<V>(0));
        V y[EXPS], v[EXPS];
        each_tile<R, kind, EXPS>(g, [&](auto tile) ALWAYS {
            tile.load(y, logy, 0);
            tile.load(v, ct, 0);
            exp_biased<tile.count, 1, 0>(y, &none);
            for (int i = 0; i < tile.count; i++) v[i] = fma(y[i] * -Constants<R>::unbias, total[tile.state(i)], v[i]);
            tile.store(out, v);
        });
    }
};
template <class R> constexpr bool BY_LINE<LogVjp<R>> = true;

/* out = 1 - exp(logy) */
template <class R> struct OneMinusExp {
    using V = vec<R>;
    Lines<const R> logy;
    Lines<R> out;

    OneMinusExp from(ptrdiff_t line) const { return {logy.from(line), out.from(line)}; }
    template <Kind kind> ALWAYS inline void run(const Grid &g) const {
        const Shift<V> none = shift_by(splat<V>(0));
        V x[EXPS], y[EXPS];
        each_tile<R, kind, EXPS>(g, [&](auto tile) ALWAYS {
            tile.load(x, logy, 0);
            for (int i = 0; i < tile.count; i++) y[i] = x[i];
            exp_biased<tile.count, 1, 0>(y, &none);
            for (int i = 0; i < tile.count; i++) y[i] *= Constants<R>::unbias;
            one_minus_exp<tile.count>(x, y, x);
            tile.store(out, x);
        });
    }
};
template <class R> constexpr bool BY_LINE<OneMinusExp<R>> = true;

/* Lane sums of exp(logy) * t. */
template <class R> struct ExpDot {
    using V = vec<R>;
    Lines<const R> logy, t;
    Sum<R> *sums;

    template <Kind kind> ALWAYS inline void run(const Grid &g) const {
        const Shift<V> none = shift_by(splat<V>(0));
        V y[EXPS], v[EXPS];
        sum_tiles<R, kind, EXPS>(g, sums, [&](auto tile, Sum<R> *part) ALWAYS {
            tile.load(y, logy, 0);
            tile.load(v, t, 0);
            exp_biased<tile.count, 1, 0>(y, &none);
            for (int i = 0; i < tile.count; i++) v[i] *= y[i] * Constants<R>::unbias;
            for (int i = 0; i < tile.count; i++) part[tile.state(i)].add(v[i]);
        });
    }
};

/* What the coefficient c of a solution is made of (solve.hpp): three sums. */
template <class R> struct Coefficient {
    using V = vec<R>;
    Sum<R> whole, taken, shares;

    static ALWAYS inline Coefficient from(R start) { return {Sum<R>::from(start), Sum<R>::from(start), Sum<R>::from(start)}; }
    ALWAYS inline void take_start(R) {} /* they start from 0 */

    ALWAYS inline void join(Coefficient other) {
        whole.join(other.whole);
        taken.join(other.taken);
        shares.join(other.shares);
    }

    ALWAYS inline Coefficient of_all_lanes() const {
        return {whole.of_all_lanes(), taken.of_all_lanes(), shares.of_all_lanes()};
    }

    /* NaN of a row that holds NaN or an infinity. A row of zeros has no shares, and nothing to take. */
    ALWAYS inline V value(R ridge) const {
        const V sum = whole.finite(), all = shares.finite();
        V c = (ridge > 0 ? sum / ridge : sum - sum) - taken.finite();
        c = select(equal(all, splat<V>(0)), c, c / all);
        return c + (c - c);
    }
};

/* Lane sums of these. */
template <class R> struct CoefficientOf {
    using V = vec<R>;
    Lines<const R> y, b;
    R ridge;
    Coefficient<R> *sums;

    template <Kind kind> ALWAYS inline void run(const Grid &g) const {
        const V r = splat<V>(ridge), zero = splat<V>(0);
        V u[EXPS], v[EXPS];
        sum_tiles<R, kind, EXPS>(g, sums, [&](auto tile, Coefficient<R> *part) ALWAYS {
            tile.load(u, y, 0);
            tile.load(v, b, 0);
            for (int i = 0; i < tile.count; i++) {
                Coefficient<R> &of = part[tile.state(i)];
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
        const Each<kind, V> coefficients(c);
        const auto quotient = [&](ptrdiff_t k, V u, V v) ALWAYS {
            const V of = coefficients[k], sum = u + splat<V>(ridge);
            return select(equal(sum, splat<V>(0)), of - of, fma(of, u, v) / sum);
        };
        write<R, kind>(g, out, {}, quotient, y, b);
    }
};
template <class R> constexpr bool BY_LINE<Solution<R>> = true;
} // namespace
