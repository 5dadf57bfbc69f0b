/* Sums in which no digit of a term is lost that shows in the result, one in each lane.
 *
 * Of floats they are kept in double, which rounds by 2**-53 of the sum a term; of doubles as hi + lo, where hi takes
 * the next term and lo what that rounded off. lo rounds as well: a long sum is made of parts of CHUNK lines at most,
 * of which each has an hi of its own (docs/numerics.md). */

#if MANTISSA_BITS == 23

typedef struct {
    vec_f64 low, high; /* the lower half of the lanes, and the upper */
} NAME(Sum);

INLINE NAME(Sum) NAME(sum_from)(REAL start) { return (NAME(Sum)){splat_f64(start), splat_f64(start)}; }

INLINE void NAME(take_start)(NAME(Sum) *sum, REAL start) {
    sum->low -= start;
    sum->high -= start;
}

INLINE void NAME(add)(NAME(Sum) *sum, V a) {
    sum->low += lower_half(a);
    sum->high += upper_half(a);
}

INLINE void NAME(add_smaller)(NAME(Sum) *sum, V a) { NAME(add)(sum, a); }

INLINE void NAME(add_whole)(NAME(Sum) *sum, V a) { NAME(add)(sum, a); }

INLINE NAME(Sum) NAME(joined)(NAME(Sum) a, NAME(Sum) b) { return (NAME(Sum)){a.low + b.low, a.high + b.high}; }

INLINE V NAME(value)(NAME(Sum) sum) { return join_halves(sum.low, sum.high); }

INLINE V NAME(finite)(NAME(Sum) sum) { return NAME(value)(sum); }

INLINE NAME(Pair) NAME(pair_of)(NAME(Sum) sum) {
    V hi = NAME(value)(sum);
    return (NAME(Pair)){hi, join_halves(sum.low - lower_half(hi), sum.high - upper_half(hi))};
}

/* The sum of all lanes, in each. */
INLINE NAME(Sum) NAME(of_all_lanes)(NAME(Sum) sum) {
    vec_f64 all = sum.low + sum.high;
    for (int distance = LANES / 4; distance; distance /= 2) all += partners_f64(all, distance);
    return (NAME(Sum)){all, all};
}

#else

typedef NAME(Pair) NAME(Sum);

/* An empty sum; it may start from a number above any term, and then that is taken off at the end, exactly. */
INLINE NAME(Sum) NAME(sum_from)(REAL start) { return (NAME(Sum)){NAME(splat)(start), NAME(splat)(0)}; }

INLINE void NAME(take_start)(NAME(Sum) *sum, REAL start) { sum->hi -= start; }

INLINE void NAME(add)(NAME(Sum) *sum, V a) {
    NAME(Pair) s = NAME(two_sum)(sum->hi, a);
    *sum = (NAME(Sum)){s.hi, sum->lo + s.lo};
}

/* The same for |a| <= |hi|. */
INLINE void NAME(add_smaller)(NAME(Sum) *sum, V a) {
    NAME(Pair) s = NAME(fast_two_sum)(sum->hi, a);
    *sum = (NAME(Sum)){s.hi, sum->lo + s.lo};
}

/* The same for whole numbers, of which nothing is rounded off. */
INLINE void NAME(add_whole)(NAME(Sum) *sum, V a) { sum->hi += a; }

INLINE NAME(Sum) NAME(joined)(NAME(Sum) a, NAME(Sum) b) { return NAME(plus)(a, b); }

/* Of infinities, what they make: lo is NaN then. */
INLINE V NAME(value)(NAME(Sum) sum) {
    return NAME(select)(NAME(equal)(sum.hi - sum.hi, NAME(splat)(0)), sum.hi + sum.lo, sum.hi);
}

/* The same where there are none. */
INLINE V NAME(finite)(NAME(Sum) sum) { return sum.hi + sum.lo; }

INLINE NAME(Pair) NAME(pair_of)(NAME(Sum) sum) { return NAME(fast_two_sum)(sum.hi, sum.lo); }

INLINE NAME(Sum) NAME(of_all_lanes)(NAME(Sum) sum) {
    for (int distance = LANES / 2; distance; distance /= 2)
        sum = NAME(plus)(sum, (NAME(Pair)){NAME(partners)(sum.hi, distance), NAME(partners)(sum.lo, distance)});
    return sum;
}

#endif
