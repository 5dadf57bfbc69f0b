/* The arithmetic of one real type, written once: included with REAL, NAME(x) and the constants below
 * defined for float and for double. See docs/numerics.md for what each device buys. */

#define V NAME(vec)
#define LANES ((ptrdiff_t)(VECTOR_BYTES / sizeof(REAL)))

INLINE V NAME(load)(const REAL *p) {
    V v;
    memcpy(&v, p, sizeof v);
    return v;
}

INLINE void NAME(store)(REAL *p, V v) { memcpy(p, &v, sizeof v); }

#define EACH for (int i = 0; i < count; i++)

/* Where a row's entries are shifted to before exp. `coarse` is the maximum rounded to 1/64 while it is
 * small: d = x - coarse then loses at most what x - (d + coarse) gives back exactly (2 operations, where a
 * general two-sum takes 5). Beyond LARGE every entry that matters is within a factor 2 of the maximum and
 * the difference is exact. `fine` is coarse - max; `lowest` bounds x where exp vanishes anyway. */
typedef struct {
    V coarse, fine, lowest;
    NAME(mask) large;
} NAME(Shift);

INLINE NAME(Shift) NAME(shift_by)(V max) {
    const V rounder = NAME(splat)(COARSE_ROUNDER), limit = NAME(splat)(LARGE);
    NAME(Shift) s;
    V rounded = (max + rounder) - rounder;
    s.large = NAME(greater)(max, limit) | NAME(less)(max, -limit);
    s.coarse = NAME(select)(s.large, max, rounded);
    s.fine = s.coarse - max;
    s.lowest = NAME(select)(s.large, NAME(splat)(-INFINITY), s.coarse - NAME(splat)(VANISHES));
    return s;
}

/* exp(x - max) * 2**BIAS, and exactly 2**BIAS for the maximum, so that the sum of a saturated row is exact. The
 * bias keeps every result normal, so that a subnormal softmax is rounded once, by the final product, and makes
 * the scaling by 2**k one shift and one product: k + BIAS is read off the low bits of the rounded quotient. NaN
 * comes through; -inf gives less than the smallest result. Vector i is shifted by s[i % wide]; not at all without
 * SHIFTED. Large shifts need MIXED. */
INLINE void NAME(exp_biased)(V *x, int count, const NAME(Shift) *s, int wide, int how) {
    const V magic = NAME(splat)(MAGIC);
    V d[GROUP], low[GROUP], t[GROUP], p[GROUP];
    EACH x[i] = NAME(max)(s[i % wide].lowest, x[i]);
    EACH d[i] = how & SHIFTED ? x[i] - s[i % wide].coarse : x[i];
    if (how & SHIFTED) EACH low[i] = (x[i] - (d[i] + s[i % wide].coarse)) + s[i % wide].fine;
    if (how & MIXED) {
        EACH low[i] = NAME(select)(s[i % wide].large, NAME(splat)(0), low[i]);
        EACH d[i] = NAME(max)(NAME(splat)(-VANISHES), d[i]);
    }
    EACH t[i] = d[i] * LOG2E + magic;
    EACH x[i] = t[i] - magic;
    EACH low[i] = how & SHIFTED ? low[i] - x[i] * LN2_LOW : -x[i] * LN2_LOW;
    EACH d[i] = d[i] - x[i] * LN2_HIGH;
    EACH x[i] = d[i] + low[i];
    EXP_POLYNOMIAL(p, x)
    EACH p[i] = 1 + (d[i] + (low[i] + x[i] * x[i] * p[i]));
    EACH x[i] = p[i] * (V)((NAME(bits))t[i] << MANTISSA_BITS);
}

INLINE NAME(bits) NAME(lane_index)(void) {
    NAME(bits) index;
    for (int i = 0; i < LANES; i++) index[i] = i;
    return index;
}

/* In each lane the entry of that index of two vectors. */
INLINE V NAME(entries)(V a, V b, NAME(bits) index) {
#if defined(__clang__)
    V v;
    for (int i = 0; i < LANES; i++) v[i] = index[i] % (2 * LANES) < LANES ? a[index[i] % LANES] : b[index[i] % LANES];
    return v;
#else
    return __builtin_shuffle(a, b, index);
#endif
}

/* Every lane's partner, `distance` lanes away (a power of two). */
INLINE V NAME(partners)(V v, int distance) { return NAME(entries)(v, v, NAME(lane_index)() ^ (INT)distance); }

/* hi + lo += a, exactly (two-sum). */
INLINE void NAME(add_exactly)(V *hi, V *lo, V a) {
    V s = *hi + a, b = s - *hi;
    *lo += (*hi - (s - b)) + (a - b);
    *hi = s;
}

/* The same for |a| <= |hi|, with 4 operations in place of 6. */
INLINE void NAME(add_smaller)(V *hi, V *lo, V a) {
    V s = *hi + a;
    *lo += a - (s - *hi);
    *hi = s;
}

/* 1 - a * b, where a is nearly 1 / b: exact, or nearly so. */
INLINE V NAME(residual)(V a, V b) {
#if HAS_FMA
    return NAME(fma)(-a, b, NAME(splat)(1));
#else
    V ca = a * SPLITTER, cb = b * SPLITTER, p = a * b;
    V ah = ca - (ca - a), bh = cb - (cb - b), al = a - ah, bl = b - bh;
    return (1 - p) - (((ah * bh - p) + ah * bl + al * bh) + al * bl);
#endif
}

/* 1 / (hi + lo), or a multiple of it, as an unevaluated sum, so that a product with it is rounded once. */
typedef struct {
    V hi, lo;
} NAME(Ratio);

INLINE NAME(Ratio) NAME(inverse)(V hi, V lo) {
    V inverse = NAME(reciprocal)(hi);
    return (NAME(Ratio)){inverse, inverse * (NAME(residual)(inverse, hi) - inverse * lo)};
}

INLINE NAME(Ratio) NAME(multiple)(V factor, NAME(Ratio) q) {
    V hi = factor * q.hi;
    return (NAME(Ratio)){hi, NAME(fma)(factor, q.hi, -hi) + factor * q.lo};
}

INLINE V NAME(times)(V a, NAME(Ratio) q) { return NAME(fma)(a, q.hi, a * q.lo); }

/* log(1 + s) for s >= 0 to 1 ULP, after fdlibm's s_log1p.c (Sun Microsystems, 1993). `inverse` is 1 / (1 + s). */
INLINE V NAME(log1p)(V s, V inverse) {
    typedef NAME(bits) Bits;
    const V magic = NAME(splat)(PLAIN_MAGIC), zero = NAME(splat)(0), one = NAME(splat)(1);
    V u = 1 + s;
    Bits shifted = (Bits)u - SQRT_HALF_BITS;
    Bits exponent = shifted >> MANTISSA_BITS;
    V k = (V)((Bits)magic + exponent) - magic;
    V f = (V)((Bits)u - (exponent << MANTISSA_BITS)) - 1;
    V lost = NAME(select)(NAME(greater)(s, one), 1 - (u - s), s - (u - 1)) * inverse;
    NAME(mask) near_one = NAME(equal)(k, zero);
    f = NAME(select)(near_one, s, f);
    lost = NAME(select)(near_one, zero, lost);
    V half = f * f / 2, z = f * NAME(reciprocal)(2 + f), w = z * z;
    V r = w * LOG_POLYNOMIAL(w);
    V log = (z * (half + r) + (k * LOG2_LOW + lost)) - half + f + k * LOG2_HIGH;
    return NAME(select)(NAME(less)(s, NAME(splat)(MAX_REAL)), log, s); /* inf and NaN */
}
