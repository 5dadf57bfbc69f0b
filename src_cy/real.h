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

/* How exp takes its argument x: exp(x - max) is exp(x) * 2**-k0, where k0 is the maximum in units of ln(2), rounded,
 * times a factor near 1 that all entries of a row have in common and that a quotient does not show. So nothing is
 * subtracted before the reduction, which is exact. Only a maximum beyond LARGE is `taken` off first: entries that
 * matter are within a factor 2 of it, and the difference is exact (Sterbenz). `lowest` bounds what is left of x where exp
 * vanishes anyway. */
typedef struct {
    V max, taken, magic, lowest;
    NAME(mask) large;
} NAME(Shift);

INLINE NAME(Shift) NAME(shift_by)(V max) {
    const V limit = NAME(splat)(LARGE), plain = NAME(splat)(PLAIN_MAGIC);
    NAME(Shift) s;
    s.large = NAME(greater)(NAME(max)(max, -max), limit);
    s.taken = NAME(select)(s.large, max, NAME(splat)(0));
    s.max = max;
    s.magic = MAGIC - (NAME(fma)((max - s.taken) - -OFFSET, NAME(splat)(LOG2E), plain) - plain);
    s.lowest = (max - s.taken) - VANISHES;
    return s;
}

/* exp(d + low) - 1 of what a reduction leaves, for `count` vectors into x. */
INLINE void NAME(expm1_all)(V *x, const V *d, const V *low, int count) {
    const REAL c[] = EXP_COEFFICIENTS;
    V p[EXPS];
    EACH x[i] = d[i] + low[i];
    EACH p[i] = NAME(splat)(c[0]);
#pragma GCC unroll 16
    for (int k = 1; k < (int)(sizeof c / sizeof *c); k++) EACH p[i] = NAME(fma)(p[i], x[i], NAME(splat)(c[k]));
    EACH x[i] = d[i] + NAME(fma)(x[i] * x[i], p[i], low[i]);
}

INLINE V NAME(expm1)(V d, V low) {
    V x;
    NAME(expm1_all)(&x, &d, &low, 1);
    return x;
}

/* exp(x - max) * 2**BIAS but for that factor, which is between 2/3 and 3/2. The bias keeps every result normal, so that a
 * subnormal softmax is rounded once, by the final product, and makes the scaling one shift: the exponent is read off the
 * low bits of the rounded quotient. NaN comes through; -inf gives less than the smallest result. Vector i is shifted by
 * s[i % wide]; large shifts need MIXED. */
INLINE void NAME(exp_biased)(V *x, int count, const NAME(Shift) *s, int wide, int how) {
    V d[EXPS], low[EXPS], scale[EXPS];
    if (how & MIXED) EACH x[i] = x[i] - s[i % wide].taken;
    EACH d[i] = NAME(max)(s[i % wide].lowest, x[i]);
    EACH scale[i] = NAME(fma)(d[i] - OFFSET, NAME(splat)(LOG2E), s[i % wide].magic);
    EACH x[i] = s[i % wide].magic - scale[i];
    EACH d[i] = NAME(fma)(x[i], NAME(splat)(LN2_HIGH), d[i]);
    EACH low[i] = x[i] * LN2_LOW;
    NAME(expm1_all)(x, d, low, count);
    EACH scale[i] = (V)((NAME(bits))scale[i] << MANTISSA_BITS);
    EACH x[i] = NAME(fma)(x[i], scale[i], scale[i]);
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

/* A number as an unevaluated sum, lo being small beside hi. */
typedef struct {
    V hi, lo;
} NAME(Pair);

/* a + b, exactly (two-sum); for |a| >= |b| in 3 operations in place of 6. */
INLINE NAME(Pair) NAME(two_sum)(V a, V b) {
    V s = a + b, c = s - a;
    return (NAME(Pair)){s, (a - (s - c)) + (b - c)};
}

INLINE NAME(Pair) NAME(fast_two_sum)(V a, V b) {
    V s = a + b;
    return (NAME(Pair)){s, b - (s - a)};
}

INLINE NAME(Pair) NAME(plus)(NAME(Pair) a, NAME(Pair) b) {
    NAME(Pair) s = NAME(two_sum)(a.hi, b.hi);
    s.lo += a.lo + b.lo;
    return s;
}

/* exp(x - max) / exp_biased(x): 2**-BIAS over the factor that exps have in common, which is the exp of what the maximum
 * leaves of its quotient. The exp of the negative of that is within the polynomial's range (shift_by). */
INLINE NAME(Pair) NAME(per_biased)(const NAME(Shift) *s) {
    V k = MAGIC - s->magic, d = NAME(fma)(k, NAME(splat)(LN2_HIGH), s->taken - s->max), low = k * LN2_LOW;
    return NAME(fast_two_sum)(NAME(splat)(UNBIAS), NAME(expm1)(d, low) * UNBIAS);
}

/* What a * b, rounded to `product`, lost. */
INLINE V NAME(product_error)(V a, V b, V product) {
#if HAS_FMA
    return NAME(fma)(a, b, -product);
#else /* Dekker's splitting */
    V ca = a * SPLITTER, cb = b * SPLITTER;
    V ah = ca - (ca - a), bh = cb - (cb - b), al = a - ah, bl = b - bh;
    return ((ah * bh - product) + ah * bl + al * bh) + al * bl;
#endif
}

/* A factor as an unevaluated sum, so that a product with it is rounded once. Without FMA `hi` has half the digits: its
 * product with half of a number's is exact. */
typedef struct {
    V hi, lo;
} NAME(Ratio);

INLINE V NAME(half_of_digits)(V a) {
    return (V)((NAME(bits))a & ~(((INT)1 << (MANTISSA_BITS / 2 + 1)) - 1));
}

INLINE NAME(Ratio) NAME(ratio)(NAME(Pair) a) {
#if HAS_FMA
    return (NAME(Ratio)){a.hi, a.lo};
#else
    V half = NAME(half_of_digits)(a.hi);
    return (NAME(Ratio)){half, (a.hi - half) + a.lo};
#endif
}

/* 1 / (hi + lo) */
INLINE NAME(Ratio) NAME(inverse)(NAME(Pair) a) {
    V q = NAME(reciprocal)(a.hi), product = q * a.hi;
    V residual = (1 - product) - NAME(product_error)(q, a.hi, product);
    return NAME(ratio)((NAME(Pair)){q, q * NAME(fma)(-q, a.lo, residual)});
}

INLINE V NAME(times)(V a, NAME(Ratio) q) {
#if HAS_FMA
    return NAME(fma)(a, q.hi, a * q.lo);
#else
    V half = NAME(half_of_digits)(a);
    return half * q.hi + ((a - half) * q.hi + a * q.lo);
#endif
}

INLINE NAME(Pair) NAME(product)(NAME(Pair) a, NAME(Ratio) q) {
#if HAS_FMA
    V hi = a.hi * q.hi;
    return (NAME(Pair)){hi, NAME(fma)(a.hi, q.hi, -hi) + NAME(fma)(a.hi, q.lo, a.lo * q.hi)};
#else
    V half = NAME(half_of_digits)(a.hi);
    return NAME(fast_two_sum)(half * q.hi, (a.hi - half) * q.hi + (a.hi * q.lo + a.lo * q.hi));
#endif
}

INLINE V NAME(share)(NAME(Pair) a, NAME(Ratio) q) {
    NAME(Pair) product = NAME(product)(a, q);
    return product.hi + product.lo;
}

INLINE NAME(Ratio) NAME(multiple)(V factor, NAME(Ratio) q) {
    return NAME(ratio)(NAME(product)((NAME(Pair)){factor, NAME(splat)(0)}, q));
}

/* log(1 + s.hi + s.lo) for s >= 0 to 1 ULP, after fdlibm's s_log1p.c (Sun Microsystems, 1993). `more` is 1 + s.hi,
 * exactly, and `inverse` about 1 / more. */
INLINE V NAME(log1p)(NAME(Pair) s, NAME(Pair) more, V inverse) {
    typedef NAME(bits) Bits;
    const V magic = NAME(splat)(PLAIN_MAGIC), zero = NAME(splat)(0);
    Bits shifted = (Bits)more.hi - SQRT_HALF_BITS;
    Bits exponent = shifted >> MANTISSA_BITS;
    V k = (V)((Bits)magic + exponent) - magic;
    V f = (V)((Bits)more.hi - (exponent << MANTISSA_BITS)) - 1;
    NAME(mask) near_one = NAME(equal)(k, zero);
    f = NAME(select)(near_one, s.hi, f);
    V lost = (NAME(select)(near_one, zero, more.lo) + s.lo) * inverse;
    V half = f * f / 2, z = f * NAME(reciprocal)(2 + f), w = z * z;
    const REAL c[] = LOG_COEFFICIENTS;
    V r = NAME(splat)(c[0]);
#pragma GCC unroll 16
    for (int i = 1; i < (int)(sizeof c / sizeof *c); i++) r = NAME(fma)(r, w, NAME(splat)(c[i]));
    r *= w;
    V low = NAME(fma)(k, NAME(splat)(LOG2_LOW), lost);
    V log = NAME(fma)(k, NAME(splat)(LOG2_HIGH), (NAME(fma)(z, half + r, low) - half) + f);
    return NAME(select)(NAME(less)(s.hi, NAME(splat)(MAX_REAL)), log, s.hi); /* inf and NaN */
}
