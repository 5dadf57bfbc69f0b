/* Sums in which no digit of a term is lost that shows in the result, one in each lane. Uses real.hpp only.
 *
 * Of floats they are kept in double, which rounds by 2**-53 of the sum a term; of doubles as hi + lo, where hi takes
 * the next term and lo what that rounded off. lo rounds as well: a long sum is made of parts of CHUNK lines at most,
 * of which each has an hi of its own (docs/numerics.md). */
#pragma once
#include "real.hpp"

namespace {
constexpr ptrdiff_t CHUNK = 65536;

template <class R> struct Sum {
    using V = vec<R>;
    V hi, lo;

    /* An empty sum; it may start from a number above any term, and then that is taken off at the end, exactly. */
    static ALWAYS inline Sum from(R start) { return {splat<V>(start), splat<V>(0)}; }

    ALWAYS inline void take_start(R start) { hi -= start; }

    ALWAYS inline void add(V a) {
        Pair<V> s = two_sum(hi, a);
        *this = {s.hi, lo + s.lo};
    }

    /* The same for |a| <= |hi|. */
    ALWAYS inline void add_smaller(V a) {
        Pair<V> s = fast_two_sum(hi, a);
        *this = {s.hi, lo + s.lo};
    }

    /* The same for whole numbers, of which nothing is rounded off. */
    ALWAYS inline void add_whole(V a) { hi += a; }

    ALWAYS inline void join(Sum other) {
        Pair<V> s = plus(Pair<V>{hi, lo}, Pair<V>{other.hi, other.lo});
        *this = {s.hi, s.lo};
    }

    /* Of infinities, what they make: lo is NaN then. */
    ALWAYS inline V value() const { return select(equal(hi - hi, splat<V>(0)), hi + lo, hi); }

    /* The same where there are none. */
    ALWAYS inline V finite() const { return hi + lo; }

    ALWAYS inline Pair<V> pair() const { return fast_two_sum(hi, lo); }

    /* The sum of all lanes, in each. */
    ALWAYS inline Sum of_all_lanes() const {
        Sum sum = *this;
        for (int distance = LANES<R> / 2; distance; distance /= 2)
            sum.join({partners(sum.hi, distance), partners(sum.lo, distance)});
        return sum;
    }
};

template <> struct Sum<float> {
    using V = vec<float>;
    vec<double> low, high; /* the lower half of the lanes, and the upper */

    static ALWAYS inline Sum from(float start) { return {splat<vec<double>>(start), splat<vec<double>>(start)}; }

    ALWAYS inline void take_start(float start) {
        low -= start;
        high -= start;
    }

    ALWAYS inline void add(V a) {
        low += lower_half(a);
        high += upper_half(a);
    }

    ALWAYS inline void add_smaller(V a) { add(a); }
    ALWAYS inline void add_whole(V a) { add(a); }

    ALWAYS inline void join(Sum other) {
        low += other.low;
        high += other.high;
    }

    ALWAYS inline V value() const { return join_halves(low, high); }
    ALWAYS inline V finite() const { return value(); }

    ALWAYS inline Pair<V> pair() const {
        V hi = value();
        return {hi, join_halves(low - lower_half(hi), high - upper_half(hi))};
    }

    ALWAYS inline Sum of_all_lanes() const {
        vec<double> all = low + high;
        for (int distance = LANES<float> / 4; distance; distance /= 2) all += partners(all, distance);
        return {all, all};
    }
};

template <class R> INLINE vec<R> all_lanes(Sum<R> sum) { return sum.of_all_lanes().value(); }

/* The sum of a row in float64, added exactly: as good as rounded once. Of infinities, what they make. */
template <class R> double exact_sum(const R *x, ptrdiff_t n) {
    constexpr int side_by_side = 16;
    double hi[side_by_side] = {}, lo[side_by_side] = {}, sum = 0, rest = 0, plain = 0;
    ptrdiff_t j = 0;
    for (; n - j >= side_by_side; j += side_by_side)
        for (int i = 0; i < side_by_side; i++) {
            double a = x[j + i], s = hi[i] + a, b = s - hi[i];
            lo[i] += (hi[i] - (s - b)) + (a - b);
            hi[i] = s;
        }
    for (ptrdiff_t i = 0; i < side_by_side + n - j; i++) {
        double a = i < side_by_side ? hi[i] : x[j + i - side_by_side], s = sum + a, b = s - sum;
        rest += (sum - (s - b)) + (a - b) + (i < side_by_side ? lo[i] : 0);
        sum = s;
        plain += a;
    }
    return __builtin_isfinite(sum) ? sum + rest : plain;
}
} // namespace
