/* What src_cy/real.hpp and sums.hpp compute of each argument, over arrays of n entries in whole vectors, as a library: one
 * for each level. */
#include "passes.hpp"

namespace {

template <class R> constexpr int how_far(R max) { return (int)__builtin_nearbyint(max / M_LN2); }

/* The largest power of two that is not `taken` off a row, how far below a maximum entries are told apart, and the
 * bias. */
template <class R> void limits(R *large, R *vanishes, int *bias) {
    using V = vec<R>;
    const Shift<V> none = shift_by(splat<V>(0));
    V one = splat<V>(0);
    exp_biased<1, 1, 0>(&one, &none);
    *bias = ilogb(one[0]);
    *vanishes = -none.lowest[0];
    for (*large = 1; !any(shift_by(splat<V>(2 * *large)).large); *large *= 2);
}

/* The power of two that rows of a maximum take off; the tests' own is that of the nearest multiple of ln(2). */
template <class V> int power(const Shift<V> &s, ptrdiff_t lane) {
    return (int)(shift_by(splat<V>(0)).magic[0] - s.magic[lane]);
}

/* exp(x - max) of entries of a row, biased and but for a common factor. */
template <class R> void exps(ptrdiff_t n, R max, const R *x, R *out) {
    const Shift<vec<R>> s = shift_by(splat<vec<R>>(max));
    const R scale = (R)ldexp(1, power(s, 0) - how_far(max));
    for (ptrdiff_t i = 0; i < n; i += LANES<R>) {
        vec<R> v = load(x + i);
        exp_biased<1, 1, MIXED>(&v, &s);
        store(out + i, v * scale);
    }
}

/* The same as what makes an exp of a biased one where x is the maximum: its inverse, in two parts. Beyond the largest
 * maximum that is not taken off, where there is none, the exact value. */
template <class R> void exps_of_max(ptrdiff_t n, R max, const R *x, R *out, R *lo) {
    R large, vanishes;
    int bias;
    limits(&large, &vanishes, &bias);
    for (ptrdiff_t i = 0; i < n; i += LANES<R>) {
        const Shift<vec<R>> s = shift_by(load(x + i));
        const Pair<vec<R>> p = per_biased(s);
        for (ptrdiff_t l = 0; l < LANES<R>; l++) {
            long double inverse = ldexpl(1 / ((long double)p.hi[l] + p.lo[l]), power(s, l) - how_far(max));
            if (s.taken[l] != 0) inverse = ldexpl(expl(x[i + l]), bias - how_far(max));
            out[i + l] = (R)inverse;
            lo[i + l] = (R)(inverse - out[i + l]);
        }
    }
}

/* log(1 + hi + lo) */
template <class R> void log1ps(ptrdiff_t n, const R *hi, const R *lo, R *out) {
    for (ptrdiff_t i = 0; i < n; i += LANES<R>) {
        const Pair<vec<R>> s = {load(hi + i), load(lo + i)}, more = two_sum(splat<vec<R>>(1), s.hi);
        store(out + i, log1p(s, more, reciprocal(more.hi)));
    }
}

/* a / (hi + lo) */
template <class R> void quotients(ptrdiff_t n, const R *a, const R *hi, const R *lo, R *out) {
    for (ptrdiff_t i = 0; i < n; i += LANES<R>)
        store(out + i, times(load(a + i), inverse(Pair<vec<R>>{load(hi + i), load(lo + i)})));
}

/* The sum of the same exps as softmax has it. */
template <class R> double sum_of_exps(ptrdiff_t n, R max, const R *x) {
    const Shift<vec<R>> s = shift_by(splat<vec<R>>(max));
    Sum<R> sum;
    on_kind<ROW>(row_grid<R>(n), Exps<R, 0>{{x, LANES<R>}, {}, &s, {}, &sum, nullptr});
    const Pair<vec<R>> all = sum.of_all_lanes().pair();
    return (double)all.hi[0] + all.lo[0];
}

} // namespace

#define OF_BOTH(R, f)                                                                                                 \
    extern "C" void limits_##f(R *large, R *vanishes, int *bias) { limits(large, vanishes, bias); }                   \
    extern "C" void exps_##f(ptrdiff_t n, R max, const R *x, R *out) { exps(n, max, x, out); }                        \
    extern "C" void exps_of_max_##f(ptrdiff_t n, R max, const R *x, R *out, R *lo) {                                  \
        exps_of_max(n, max, x, out, lo);                                                                              \
    }                                                                                                                 \
    extern "C" void log1ps_##f(ptrdiff_t n, const R *hi, const R *lo, R *out) { log1ps(n, hi, lo, out); }             \
    extern "C" void quotients_##f(ptrdiff_t n, const R *a, const R *hi, const R *lo, R *out) {                        \
        quotients(n, a, hi, lo, out);                                                                                 \
    }                                                                                                                 \
    extern "C" double sum_of_exps_##f(ptrdiff_t n, R max, const R *x) { return sum_of_exps(n, max, x); }
OF_BOTH(float, f32)
OF_BOTH(double, f64)
