/* What src_cy/real.h and sums.h compute of each argument, over arrays of n entries in whole vectors; included for float and for
 * double. */

#define V NAME(vec)
#define LANES ((ptrdiff_t)(VECTOR_BYTES / sizeof(REAL)))
#define EACH_VECTOR for (ptrdiff_t i = 0; i < n; i += LANES)

/* exp(x - max) of entries of a row, biased and but for a common factor. */
void NAME(exps)(ptrdiff_t n, REAL max, const REAL *x, REAL *out) {
    NAME(Shift) s = NAME(shift_by)(NAME(splat)(max));
    EACH_VECTOR {
        V v = NAME(load)(x + i);
        NAME(exp_biased)(&v, 1, &s, 1, MIXED);
        NAME(store)(out + i, v);
    }
}

/* The same as that of a maximum. */
void NAME(exps_of_max)(ptrdiff_t n, REAL max, const REAL *x, REAL *out, REAL *lo) {
    NAME(Shift) s = NAME(shift_by)(NAME(splat)(max));
    EACH_VECTOR {
        s.max = NAME(load)(x + i);
        NAME(Pair) p = NAME(exp_of_max)(&s);
        NAME(store)(out + i, p.hi);
        NAME(store)(lo + i, p.lo);
    }
}

/* log(1 + hi + lo) */
void NAME(log1ps)(ptrdiff_t n, const REAL *hi, const REAL *lo, REAL *out) {
    EACH_VECTOR {
        NAME(Pair) s = {NAME(load)(hi + i), NAME(load)(lo + i)};
        NAME(store)(out + i, NAME(log1p)(s, NAME(reciprocal)(1 + s.hi)));
    }
}

/* a / (hi + lo) */
void NAME(quotients)(ptrdiff_t n, const REAL *a, const REAL *hi, const REAL *lo, REAL *out) {
    EACH_VECTOR {
        NAME(Ratio) q = NAME(inverse)((NAME(Pair)){NAME(load)(hi + i), NAME(load)(lo + i)});
        NAME(store)(out + i, NAME(times)(NAME(load)(a + i), q));
    }
}

/* The sum of the same exps as softmax has it. */
double NAME(sum_of_exps)(ptrdiff_t n, REAL max, const REAL *x) {
    const Grid g = {n / LANES, LANES, n % LANES, ROW};
    NAME(Shift) s = NAME(shift_by)(NAME(splat)(max));
    NAME(Sum) sum;
    NAME(exps_row)(x, LANES, NULL, 0, &g, &s, (NAME(Ahead)){NULL, NULL}, &sum, NULL);
    NAME(Pair) all = NAME(pair_of)(NAME(of_all_lanes)(sum));
    return (double)all.hi[0] + all.lo[0];
}

/* The largest power of two that is not `taken` off a row, how far below a maximum entries are told apart, and the
 * bias. */
void NAME(limits)(REAL *large, REAL *vanishes, int *bias) {
    const NAME(Shift) none = NAME(shift_by)(NAME(splat)(0));
    V one = NAME(splat)(0);
    NAME(exp_biased)(&one, 1, &none, 1, 0);
    *bias = ilogb(one[0]);
    *vanishes = -none.lowest[0];
    for (*large = 1; !NAME(any)(NAME(shift_by)(NAME(splat)(2 * *large)).large); *large *= 2);
}

#undef V
#undef LANES
#undef EACH_VECTOR
#undef REAL
#undef NAME
