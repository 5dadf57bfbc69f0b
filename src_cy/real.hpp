/* The arithmetic of a vector of float or double: exp, log1p, and numbers as unevaluated sums. See docs/numerics.md for
 * what each device buys. Uses simd.hpp only. */
#pragma once
#include "simd.hpp"

namespace {
template <class R> struct Constants;

template <> struct Constants<double> {
    static constexpr int mantissa_bits = 52, bias = 512;
    static constexpr double unbias = 0x1p-512;
    static constexpr double above = 0x1p513; /* any exp */
    static constexpr double plain_magic = 6755399441055744.0; /* 1.5 * 2**52: added, rounds to an integer in low bits */
    static constexpr double magic = plain_magic + 1023 + bias;
    static constexpr double large = 2048.0;
    static constexpr double vanishes = 800.0; /* exp(-745.2) rounds to 0 */
    static constexpr double max_real = 1.7e308;
    static constexpr double splitter = 134217729.0;
    static constexpr double log2e = 1.4426950408889634;
    static constexpr double ln2_high = 6.93147180369123816490e-01; /* 33 bits: k * ln2_high is exact for every k */
    static constexpr double ln2_low = 1.90821492927058770002e-10;
    /* The quotient is rounded so that r is from ln(3/4) to ln(3/2): exp(r) - 1 is then rounded no worse than exp(r). */
    static constexpr double offset = 0.05889151782819173;
    /* (exp(r) - 1 - r) / r**2, minimax there, relative error of exp 2**-57.7, highest first */
    static constexpr double exp_coefficients[] = {
        2.6457316079685612e-08, 2.759078955918679e-07, 2.7554116964701935e-06, 2.4801575279892647e-05,
        1.984127249705058e-04,  1.3888888885813047e-03, 8.333333332409704e-03, 4.166666666668427e-02,
        1.666666666666776e-01,  4.999999999999999e-01};
    static constexpr int64_t sqrt_half_bits = 0x3fe6a09e667f3bcd;
    static constexpr double log2_high = 6.93147180369123816490e-01;
    static constexpr double log2_low = 1.90821492927058770002e-10;
    static constexpr double log_coefficients[] = {
        1.479819860511658591e-01, 1.531383769920937332e-01, 1.818357216161805012e-01, 2.222219843214978396e-01,
        2.857142874366239149e-01, 3.999999999940941908e-01, 6.666666666666735130e-01};
    static constexpr double least_normal = 0x1p-1022, to_normal = 0x1p64, log_to_normal = 44.361419555836500;
};

template <> struct Constants<float> {
    static constexpr int mantissa_bits = 23, bias = 64;
    static constexpr float unbias = 0x1p-64f;
    static constexpr float above = 0; /* sums of floats need no start */
    static constexpr float plain_magic = 12582912.0f; /* 1.5 * 2**23 */
    static constexpr float magic = plain_magic + 127 + bias;
    static constexpr float large = 256.0f;
    static constexpr float vanishes = 128.0f; /* exp(-104) rounds to 0 */
    static constexpr float max_real = 3.4e38f;
    static constexpr float splitter = 4097.0f;
    static constexpr float log2e = 1.44269504f;
    static constexpr float ln2_high = 0.693145751953125f; /* 14 bits: as above */
    static constexpr float ln2_low = 1.42860682e-6f;
    static constexpr float offset = 0; /* |r| <= ln(2)/2: softmax is within its bound without the subtraction it costs */
    /* as above, 2**-28.2 */
    static constexpr float exp_coefficients[] = {1.3821273e-3f, 8.368681e-3f, 4.1668262e-2f, 1.6666521e-1f, 4.9999994e-1f};
    static constexpr int32_t sqrt_half_bits = 0x3f3504f3;
    static constexpr float log2_high = 6.9313812256e-01f;
    static constexpr float log2_low = 9.0580006145e-06f;
    static constexpr float log_coefficients[] = {0.24279078841f, 0.28498786688f, 0.40000972152f, 0.66666662693f};
    static constexpr float least_normal = 0x1p-126f, to_normal = 0x1p32f, log_to_normal = 22.1807098f;
};

template <class V> using constants_of = Constants<real_of<V>>;

/* How many vectors a pass takes at a time, so that their dependent operations fill each other's gaps; through exp half
 * as many, whose steps then stay in registers. */
constexpr int GROUP = 8, EXPS = 4;

/* Whether rows of large maxima are among those that go through exp, and whether its sum is that of the entries other than
 * maxima (passes.hpp). */
enum { MIXED = 1, OTHERS = 2 };

/* How exp takes its argument x: exp(x - max) is exp(x) * 2**-k0, where k0 is the maximum in units of ln(2), rounded,
 * times a factor near 1 that all entries of a row have in common and that a quotient does not show. So nothing is
 * subtracted before the reduction, which is exact. Only a maximum beyond `large` is `taken` off first: entries that
 * matter are within a factor 2 of it, and the difference is exact (Sterbenz). `lowest` bounds what is left of x where exp
 * vanishes anyway. */
template <class V> struct Shift {
    V max, taken, magic, lowest;
    mask_of<V> large;
};

template <class V> INLINE Shift<V> shift_by(V most) {
    using C = constants_of<V>;
    const V plain = splat<V>(C::plain_magic);
    Shift<V> s;
    s.large = greater(max(most, -most), splat<V>(C::large));
    s.taken = select(s.large, most, splat<V>(0));
    s.max = most;
    s.magic = C::magic - (fma((most - s.taken) + C::offset, splat<V>(C::log2e), plain) - plain);
    s.lowest = (most - s.taken) - C::vanishes;
    return s;
}

/* The value of a polynomial in `count` vectors, into p. */
template <int count, class V, class R, int terms> INLINE void polynomial(const R (&c)[terms], const V *x, V *p) {
    for (int i = 0; i < count; i++) p[i] = splat<V>(c[0]);
#pragma GCC unroll 16
    for (int k = 1; k < terms; k++)
        for (int i = 0; i < count; i++) p[i] = fma(p[i], x[i], splat<V>(c[k]));
}

/* exp(d + low) - 1 of what a reduction leaves, for `count` vectors into x. */
template <int count, class V> INLINE void expm1(V *x, const V *d, const V *low) {
    V p[count];
    for (int i = 0; i < count; i++) x[i] = d[i] + low[i];
    polynomial<count>(constants_of<V>::exp_coefficients, x, p);
    for (int i = 0; i < count; i++) x[i] = d[i] + fma(x[i] * x[i], p[i], low[i]);
}

/* exp(x - max) * 2**bias but for that factor, which is between 2/3 and 3/2. The bias keeps every result normal, so that a
 * subnormal softmax is rounded once, by the final product, and makes the scaling one shift: the exponent is read off the
 * low bits of the rounded quotient. NaN comes through; -inf gives less than the smallest result. Vector i is shifted by
 * s[i % wide]; large shifts need MIXED. */
template <int count, int wide, int how, class V> INLINE void exp_biased(V *x, const Shift<V> *s) {
    using C = constants_of<V>;
    V d[count], low[count], scale[count];
    if constexpr (how & MIXED)
        for (int i = 0; i < count; i++) x[i] = x[i] - s[i % wide].taken;
    for (int i = 0; i < count; i++) d[i] = max(s[i % wide].lowest, x[i]);
    for (int i = 0; i < count; i++) scale[i] = fma(d[i] - C::offset, splat<V>(C::log2e), s[i % wide].magic);
    for (int i = 0; i < count; i++) x[i] = s[i % wide].magic - scale[i];
    for (int i = 0; i < count; i++) d[i] = fma(x[i], splat<V>(C::ln2_high), d[i]);
    for (int i = 0; i < count; i++) low[i] = x[i] * C::ln2_low;
    expm1<count>(x, d, low);
    for (int i = 0; i < count; i++) scale[i] = (V)((bits_of<V>)scale[i] << C::mantissa_bits);
    for (int i = 0; i < count; i++) x[i] = fma(x[i], scale[i], scale[i]);
}

/* 1 - exp(x) for x <= 0, of `count` vectors, where y is exp(x): near 0 it is -h (1 + h / 4), h being 2 (exp(x / 2) - 1), which
 * is x of a subnormal number, whose half is none. */
template <int count, class V> INLINE void one_minus_exp(const V *x, const V *y, V *gap) {
    V half[count], p[count], h[count];
    for (int i = 0; i < count; i++) half[i] = x[i] / 2;
    polynomial<count>(constants_of<V>::exp_coefficients, half, p);
    for (int i = 0; i < count; i++) h[i] = fma(x[i] * half[i], p[i], x[i]);
    for (int i = 0; i < count; i++) h[i] = splat<V>(0) - h[i] * (1 + h[i] / 4);
    for (int i = 0; i < count; i++) gap[i] = select(greater(x[i], splat<V>(-0.5)), h[i], 1 - y[i]);
}

template <class V> INLINE bits_of<V> lane_index() {
    bits_of<V> index;
    for (int i = 0; i < LANES<real_of<V>>; i++) index[i] = i;
    return index;
}

/* In each lane the entry of that index of two vectors. */
template <class V> INLINE V entries(V a, V b, bits_of<V> index) {
#if defined(__clang__) && VECTOR_BYTES > 16
    return permuted(a, b, index);
#elif defined(__clang__)
    constexpr ptrdiff_t lanes = LANES<real_of<V>>;
    V v;
    for (int i = 0; i < lanes; i++) v[i] = index[i] % (2 * lanes) < lanes ? a[index[i] % lanes] : b[index[i] % lanes];
    return v;
#else
    return __builtin_shuffle(a, b, index);
#endif
}

/* Every lane's partner, `distance` lanes away (a power of two). */
template <class V> INLINE V partners(V v, int distance) {
    return entries(v, v, lane_index<V>() ^ (int_of<real_of<V>>)distance);
}

/* A number as an unevaluated sum, lo being small beside hi. */
template <class V> struct Pair {
    V hi, lo;
};

/* a + b, exactly (two-sum); for |a| >= |b| in 3 operations in place of 6. */
template <class V> INLINE Pair<V> two_sum(V a, V b) {
    V s = a + b, c = s - a;
    return {s, (a - (s - c)) + (b - c)};
}

template <class V> INLINE Pair<V> fast_two_sum(V a, V b) {
    V s = a + b;
    return {s, b - (s - a)};
}

template <class V> INLINE Pair<V> plus(Pair<V> a, Pair<V> b) {
    Pair<V> s = two_sum(a.hi, b.hi);
    s.lo += a.lo + b.lo;
    return s;
}

/* Of `count` vectors exp(x - max) / exp_biased(x): 2**-bias over the factor that exps have in common, which is the exp of what the maximum
 * leaves of its quotient. The exp of the negative of that is within the polynomial's range (shift_by). */
template <int count, class V> INLINE void per_biased(const Shift<V> *s, Pair<V> *unit) {
    using C = constants_of<V>;
    V k[count], d[count], low[count], x[count];
    for (int i = 0; i < count; i++) k[i] = C::magic - s[i].magic;
    for (int i = 0; i < count; i++) d[i] = fma(k[i], splat<V>(C::ln2_high), s[i].taken - s[i].max);
    for (int i = 0; i < count; i++) low[i] = k[i] * C::ln2_low;
    expm1<count>(x, d, low);
    for (int i = 0; i < count; i++) unit[i] = fast_two_sum(splat<V>(C::unbias), x[i] * C::unbias);
}

template <class V> INLINE Pair<V> per_biased(const Shift<V> &s) {
    Pair<V> unit;
    per_biased<1>(&s, &unit);
    return unit;
}

/* What a * b, rounded to `product`, lost. */
template <class V> INLINE V product_error(V a, V b, V product) {
    if constexpr (HAS_FMA) return fma(a, b, -product);
    /* Dekker's splitting */
    V ca = a * constants_of<V>::splitter, cb = b * constants_of<V>::splitter;
    V ah = ca - (ca - a), bh = cb - (cb - b), al = a - ah, bl = b - bh;
    return ((ah * bh - product) + ah * bl + al * bh) + al * bl;
}

/* A factor as an unevaluated sum, so that a product with it is rounded once. Without FMA `hi` has half the digits: its
 * product with half of a number's is exact. */
template <class V> struct Ratio {
    V hi, lo;
};

template <class V> INLINE V half_of_digits(V a) {
    using Int = int_of<real_of<V>>;
    return (V)((bits_of<V>)a & ~(((Int)1 << (constants_of<V>::mantissa_bits / 2 + 1)) - 1));
}

template <class V> INLINE Ratio<V> ratio(Pair<V> a) {
    if constexpr (HAS_FMA) return {a.hi, a.lo};
    V half = half_of_digits(a.hi);
    return {half, (a.hi - half) + a.lo};
}

/* 1 / (hi + lo) */
template <class V> INLINE Ratio<V> inverse(Pair<V> a) {
    V q = reciprocal(a.hi), product = q * a.hi;
    V residual = (1 - product) - product_error(q, a.hi, product);
    return ratio(Pair<V>{q, q * fma(-q, a.lo, residual)});
}

template <class V> INLINE V times(V a, Ratio<V> q) {
    if constexpr (HAS_FMA) return fma(a, q.hi, a * q.lo);
    V half = half_of_digits(a);
    return half * q.hi + ((a - half) * q.hi + a * q.lo);
}

template <class V> INLINE Pair<V> product(Pair<V> a, Ratio<V> q) {
    if constexpr (HAS_FMA) {
        V hi = a.hi * q.hi;
        return {hi, fma(a.hi, q.hi, -hi) + fma(a.hi, q.lo, a.lo * q.hi)};
    }
    V half = half_of_digits(a.hi);
    return fast_two_sum(half * q.hi, (a.hi - half) * q.hi + (a.hi * q.lo + a.lo * q.hi));
}

template <class V> INLINE V share(Pair<V> a, Ratio<V> q) {
    Pair<V> p = product(a, q);
    return p.hi + p.lo;
}

template <class V> INLINE Ratio<V> multiple(V factor, Ratio<V> q) {
    return ratio(product(Pair<V>{factor, splat<V>(0)}, q));
}

/* Of `count` vectors log(1 + s.hi + s.lo) for s >= 0 to 1 ULP, after fdlibm's s_log1p.c (Sun Microsystems, 1993). `more` is
 * 1 + s.hi, exactly, and `share` about 1 / more. */
template <int count, class V> INLINE void log1p(const Pair<V> *s, const Pair<V> *more, const Ratio<V> *share, V *log) {
    using C = constants_of<V>;
    using Bits = bits_of<V>;
    const V magic = splat<V>(C::plain_magic), zero = splat<V>(0);
    V k[count], f[count], lost[count], half[count], z[count], w[count], r[count], low[count];
    for (int i = 0; i < count; i++) {
        Bits exponent = ((Bits)more[i].hi - C::sqrt_half_bits) >> C::mantissa_bits;
        k[i] = (V)((Bits)magic + exponent) - magic;
        f[i] = (V)((Bits)more[i].hi - (exponent << C::mantissa_bits)) - 1;
    }
    for (int i = 0; i < count; i++) {
        mask_of<V> near_one = equal(k[i], zero);
        f[i] = select(near_one, s[i].hi, f[i]);
        lost[i] = (select(near_one, zero, more[i].lo) + s[i].lo) * share[i].hi;
    }
    for (int i = 0; i < count; i++) half[i] = f[i] * f[i] / 2;
    for (int i = 0; i < count; i++) z[i] = f[i] * reciprocal(2 + f[i]);
    for (int i = 0; i < count; i++) w[i] = z[i] * z[i];
    polynomial<count>(C::log_coefficients, w, r);
    for (int i = 0; i < count; i++) r[i] *= w[i];
    for (int i = 0; i < count; i++) low[i] = fma(k[i], splat<V>(C::log2_low), lost[i]);
    for (int i = 0; i < count; i++) z[i] = fma(z[i], half[i] + r[i], low[i]);
    for (int i = 0; i < count; i++) f[i] = (z[i] - half[i]) + f[i];
    for (int i = 0; i < count; i++) log[i] = fma(k[i], splat<V>(C::log2_high), f[i]);
    for (int i = 0; i < count; i++) log[i] = select(less(s[i].hi, splat<V>(C::max_real)), log[i], s[i].hi); /* inf and NaN */
}

template <class V> INLINE V log1p(Pair<V> s, Pair<V> more, V share) {
    const Ratio<V> of = {share, splat<V>(0)};
    V log;
    log1p<1>(&s, &more, &of, &log);
    return log;
}
} // namespace
