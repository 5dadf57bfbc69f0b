/* What src_cy/real.h and sums.h compute of each argument, over arrays of n entries in whole vectors; included for float and for
 * double. */

#define V NAME(vec)
#define LANES ((ptrdiff_t)(VECTOR_BYTES / sizeof(REAL)))
#define EACH_VECTOR for (ptrdiff_t i = 0; i < n; i += LANES)

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

/* The power of two that rows of a maximum take off; the tests' own is that of the nearest multiple of ln(2). */
static int NAME(power)(const NAME(Shift) *s, ptrdiff_t lane) {
    return (int)(NAME(shift_by)(NAME(splat)(0)).magic[0] - s->magic[lane]);
}

/* exp(x - max) of entries of a row, biased and but for a common factor. */
void NAME(exps)(ptrdiff_t n, REAL max, const REAL *x, REAL *out) {
    NAME(Shift) s = NAME(shift_by)(NAME(splat)(max));
    const REAL scale = (REAL)ldexp(1, NAME(power)(&s, 0) - (int)nearbyint(max / M_LN2));
    EACH_VECTOR {
        V v = NAME(load)(x + i);
        NAME(exp_biased)(&v, 1, &s, 1, MIXED);
        NAME(store)(out + i, v * scale);
    }
}

/* The same as what makes an exp of a biased one where x is the maximum: its inverse, in two parts. Beyond the largest
 * maximum that is not taken off, where there is none, the exact value. */
void NAME(exps_of_max)(ptrdiff_t n, REAL max, const REAL *x, REAL *out, REAL *lo) {
    const int power = (int)nearbyint(max / M_LN2);
    REAL large, vanishes;
    int bias;
    NAME(limits)(&large, &vanishes, &bias);
    EACH_VECTOR {
        NAME(Shift) s = NAME(shift_by)(NAME(load)(x + i));
        NAME(Pair) p = NAME(per_biased)(&s);
        for (ptrdiff_t l = 0; l < LANES; l++) {
            long double inverse = ldexpl(1 / ((long double)p.hi[l] + p.lo[l]), NAME(power)(&s, l) - power);
            if (s.taken[l] != 0) inverse = ldexpl(expl(x[i + l]), bias - power);
            out[i + l] = (REAL)inverse;
            lo[i + l] = (REAL)(inverse - out[i + l]);
        }
    }
}

/* log(1 + hi + lo) */
void NAME(log1ps)(ptrdiff_t n, const REAL *hi, const REAL *lo, REAL *out) {
    EACH_VECTOR {
        NAME(Pair) s = {NAME(load)(hi + i), NAME(load)(lo + i)};
        NAME(Pair) more = NAME(two_sum)(NAME(splat)(1), s.hi);
        NAME(store)(out + i, NAME(log1p)(s, more, NAME(reciprocal)(more.hi)));
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
    PASS_NAME(exps_row)(x, LANES, NULL, 0, &g, &s, (NAME(Ahead)){NULL, NULL}, &sum, NULL);
    NAME(Pair) all = NAME(pair_of)(NAME(of_all_lanes)(sum));
    return (double)all.hi[0] + all.lo[0];
}

#undef V
#undef LANES
#undef EACH_VECTOR
#undef REAL
#undef NAME
#undef PASS_NAME
