/* Passes over n contiguous entries, vector by vector. The entries are a row, and then the lanes of what a
 * pass returns are still to be combined; or LANES short rows side by side, entry j of all of them in vector j,
 * and then each lane is a row of its own. `e` and `out` may be inputs. */

/* Up to `left` entries as `count` vectors, `fill` beyond; and back. A full group needs no masks. */
INLINE void NAME(load_group)(V *a, const REAL *p, ptrdiff_t left, int count, REAL fill) {
    if (left >= count * LANES)
        EACH a[i] = NAME(load)(p + i * LANES);
    else
        EACH a[i] = NAME(load_part)(p + i * LANES, left - i * LANES, NAME(splat)(fill));
}

INLINE void NAME(store_group)(REAL *p, ptrdiff_t left, int count, const V *a) {
    if (left >= count * LANES)
        EACH NAME(store)(p + i * LANES, a[i]);
    else
        EACH NAME(store_part)(p + i * LANES, left - i * LANES, a[i]);
}

/* Run BODY(count, left) on groups of `count` vectors from j = 0 to n: of 8 while they last, of 4, 2 and 1,
 * all full, which the compiler sees, and a last vector in part. */
#define GROUPS(BODY)                                                                                       \
    ptrdiff_t j = 0;                                                                                       \
    for (; n - j >= GROUP * LANES; j += GROUP * LANES) BODY(GROUP, GROUP * LANES)                          \
    for (; n - j >= 4 * LANES; j += 4 * LANES) BODY(4, 4 * LANES)                                          \
    for (; n - j >= 2 * LANES; j += 2 * LANES) BODY(2, 2 * LANES)                                          \
    for (; n - j >= LANES; j += LANES) BODY(1, LANES)                                                      \
    if (j < n) BODY(1, n - j)

/* Lane maxima; NaN is passed over and comes back through exp. */
PASS V NAME(max_of)(const REAL *x, ptrdiff_t n) {
    V m[GROUP], a[GROUP];
    for (int i = 0; i < GROUP; i++) m[i] = NAME(splat)(-INFINITY);
#define BODY(count, left)                                                                                  \
    {                                                                                                      \
        NAME(load_group)(a, x + j, left, count, -INFINITY);                                                \
        for (int i = 0; i < count; i++) m[i] = NAME(max)(a[i], m[i]);                                      \
    }
    GROUPS(BODY)
#undef BODY
    for (int width = GROUP / 2; width; width /= 2)
        for (int i = 0; i < width; i++) m[i] = NAME(max)(m[i], m[i + width]);
    return m[0];
}

/* Bring in what comes after this pass while it keeps the vector units busy: memory is then read beside the
 * exps, not between them. NULL brings nothing. */
INLINE void NAME(look_ahead)(const REAL *p, ptrdiff_t j, int count) {
    if (p)
        EACH __builtin_prefetch(p + j + i * LANES);
}

/* Which entry the sum of exps leaves out: none; the one at an index; in each lane the first that equals `max`. */
typedef struct {
    enum left_out what;
    ptrdiff_t index;
    V max;
    const REAL *next_x, *next_out; /* for look_ahead */
} NAME(LeftOut);

/* Lane sums hi + lo of exp(x - max) * 2**BIAS, and the exps themselves into `e` unless that is NULL. */
INLINE void NAME(exps_loop)(const REAL *x, REAL *e, ptrdiff_t n, NAME(LeftOut) left_out, const NAME(Shift) *s,
                          int mixed, V *hi, V *lo) {
    /* The sum of all is at least 2**BIAS, so it may start from more than any pair of terms. */
    const V start = NAME(splat)(left_out.what == NOTHING ? 4 / UNBIAS : 0);
    V h = start, l = NAME(splat)(0), a[GROUP];
    NAME(bits) seen = {0}, hit[GROUP];
#define BODY(count, left)                                                                                  \
    {                                                                                                      \
        NAME(load_group)(a, x + j, left, count, -INFINITY);                                                \
        NAME(look_ahead)(left_out.next_x, j, count);                                                       \
        NAME(look_ahead)(left_out.next_out, j, count);                                                     \
        if (left_out.what == FIRST_MAX)                                                                    \
            for (int i = 0; i < count; i++) {                                                              \
                hit[i] = (a[i] == left_out.max) & ~seen;                                                   \
                seen |= hit[i];                                                                            \
            }                                                                                              \
        NAME(exp_biased)(a, count, s, mixed);                                                              \
        if (e) NAME(store_group)(e + j, left, count, a);                                                   \
        if (left_out.what == FIRST_MAX)                                                                    \
            for (int i = 0; i < count; i++) a[i] = NAME(select)(hit[i], NAME(splat)(0), a[i]);             \
        if (left_out.what == INDEX && (size_t)(left_out.index - j) < (size_t)(count * LANES))              \
            for (int i = 0; i < count; i++) a[i] = NAME(without_lane)(a[i], left_out.index - j - i * LANES); \
        for (int i = 0; i < count; i += 2) { /* pairs: one rounding before the exact sum */                \
            V pair = i + 1 < count ? a[i] + a[i + 1] : a[i];                                               \
            if (left_out.what == NOTHING)                                                                  \
                NAME(add_smaller)(&h, &l, pair);                                                           \
            else                                                                                           \
                NAME(add_exactly)(&h, &l, pair);                                                           \
        }                                                                                                  \
    }
    GROUPS(BODY)
#undef BODY
    *hi = h - start;
    *lo = l;
}

#define EXPS(name, left_out_what, mixed)                                                                   \
    PASS void NAME(name)(const REAL *x, REAL *e, ptrdiff_t n, NAME(LeftOut) left_out, const NAME(Shift) *s,  \
                         V *hi, V *lo) {                                                                   \
        left_out.what = left_out_what;                                                                     \
        NAME(exps_loop)(x, e, n, left_out, s, mixed, hi, lo);                                              \
    }
EXPS(exps_nothing, NOTHING, 0)
EXPS(exps_nothing_mixed, NOTHING, 1)
EXPS(exps_index, INDEX, 0)
EXPS(exps_index_mixed, INDEX, 1)
EXPS(exps_first_max, FIRST_MAX, 0)
EXPS(exps_first_max_mixed, FIRST_MAX, 1)

/* The same, with all of the choices compiled for themselves. */
INLINE void NAME(exps_of)(const REAL *x, REAL *e, ptrdiff_t n, NAME(LeftOut) left_out, const NAME(Shift) *s,
                          V *hi, V *lo) {
    int mixed = NAME(any)(s->large);
    switch (left_out.what) {
    case NOTHING: (mixed ? NAME(exps_nothing_mixed) : NAME(exps_nothing))(x, e, n, left_out, s, hi, lo); break;
    case INDEX: (mixed ? NAME(exps_index_mixed) : NAME(exps_index))(x, e, n, left_out, s, hi, lo); break;
    case FIRST_MAX: (mixed ? NAME(exps_first_max_mixed) : NAME(exps_first_max))(x, e, n, left_out, s, hi, lo); break;
    }
}

/* out = e * q */
PASS void NAME(times_all)(const REAL *e, REAL *out, ptrdiff_t n, NAME(Ratio) q) {
    V v[GROUP];
#define BODY(count, left)                                                                                  \
    {                                                                                                      \
        NAME(load_group)(v, e + j, left, count, 0);                                                        \
        for (int i = 0; i < count; i++) v[i] = NAME(times)(v[i], q);                                       \
        NAME(store_group)(out + j, left, count, v);                                                        \
    }
    GROUPS(BODY)
#undef BODY
}

/* out = (x - a) - b */
PASS void NAME(subtract_all)(const REAL *x, REAL *out, ptrdiff_t n, V a, V b) {
    V v[GROUP];
#define BODY(count, left)                                                                                  \
    {                                                                                                      \
        NAME(load_group)(v, x + j, left, count, 0);                                                        \
        for (int i = 0; i < count; i++) v[i] = (v[i] - a) - b;                                             \
        NAME(store_group)(out + j, left, count, v);                                                        \
    }
    GROUPS(BODY)
#undef BODY
}

/* What the centre of a cotangent is chosen from: lane maxima of y, and the lane extremes of g. */
typedef struct {
    V y_max, g_max, g_min;
} NAME(Extremes);

PASS NAME(Extremes) NAME(extremes_of)(const REAL *y, const REAL *g, ptrdiff_t n, const REAL *next_out) {
    enum { CHAINS = 2 }; /* three running extremes each are enough to hide their latency */
    V top[CHAINS], most[CHAINS], least[CHAINS], a[GROUP], b[GROUP];
    for (int i = 0; i < CHAINS; i++) {
        top[i] = most[i] = NAME(splat)(-INFINITY);
        least[i] = NAME(splat)(INFINITY);
    }
#define BODY(count, left)                                                                                  \
    {                                                                                                      \
        NAME(load_group)(a, y + j, left, count, 0);                                                        \
        NAME(load_group)(b, g + j, left, count, g[0]);                                                     \
        NAME(look_ahead)(next_out, j, count);                                                              \
        for (int i = 0; i < count; i++) {                                                                  \
            top[i % CHAINS] = NAME(max)(a[i], top[i % CHAINS]);                                            \
            most[i % CHAINS] = NAME(max)(b[i], most[i % CHAINS]);                                          \
            least[i % CHAINS] = NAME(min)(b[i], least[i % CHAINS]);                                        \
        }                                                                                                  \
    }
    GROUPS(BODY)
#undef BODY
    return (NAME(Extremes)){NAME(max)(top[0], top[1]), NAME(max)(most[0], most[1]), NAME(min)(least[0], least[1])};
}

/* Lane sums hi + lo of a * (b - c). */
PASS void NAME(dot_of)(const REAL *a, const REAL *b, ptrdiff_t n, V c, const REAL *next_a, const REAL *next_b,
                       V *hi, V *lo) {
    V h = NAME(splat)(0), l = h, u[GROUP], v[GROUP];
#define BODY(count, left)                                                                                  \
    {                                                                                                      \
        NAME(load_group)(u, a + j, left, count, 0);                                                        \
        NAME(load_group)(v, b + j, left, count, c[0]);                                                     \
        NAME(look_ahead)(next_a, j, count);                                                                \
        NAME(look_ahead)(next_b, j, count);                                                                \
        for (int i = 0; i < count; i++) u[i] = u[i] * (v[i] - c);                                          \
        NAME(add_exactly)(&h, &l, NAME(tree)(u, count));                                                   \
    }
    GROUPS(BODY)
#undef BODY
    *hi = h;
    *lo = l;
}

/* out = y * ((g - centre) - dot) */
PASS void NAME(vjp_all)(const REAL *y, const REAL *g, REAL *out, ptrdiff_t n, V centre, V dot) {
    V u[GROUP], v[GROUP];
#define BODY(count, left)                                                                                  \
    {                                                                                                      \
        NAME(load_group)(u, y + j, left, count, 0);                                                        \
        NAME(load_group)(v, g + j, left, count, 0);                                                        \
        for (int i = 0; i < count; i++) v[i] = u[i] * ((v[i] - centre) - dot);                             \
        NAME(store_group)(out + j, left, count, v);                                                        \
    }
    GROUPS(BODY)
#undef BODY
}

/* Lane sums hi + lo of g. */
PASS void NAME(sum_of)(const REAL *g, ptrdiff_t n, V *hi, V *lo) {
    V h = NAME(splat)(0), l = h, a[GROUP];
#define BODY(count, left)                                                                                  \
    {                                                                                                      \
        NAME(load_group)(a, g + j, left, count, 0);                                                        \
        NAME(add_exactly)(&h, &l, NAME(tree)(a, count));                                                   \
    }
    GROUPS(BODY)
#undef BODY
    *hi = h;
    *lo = l;
}

/* out = g - exp(logy) * total */
PASS void NAME(log_vjp_all)(const REAL *logy, const REAL *g, REAL *out, ptrdiff_t n, V total) {
    NAME(Shift) none = NAME(shift_by)(NAME(splat)(0));
    V y[GROUP], v[GROUP];
#define BODY(count, left)                                                                                  \
    {                                                                                                      \
        NAME(load_group)(y, logy + j, left, count, 0);                                                     \
        NAME(load_group)(v, g + j, left, count, 0);                                                        \
        NAME(exp_biased)(y, count, &none, 0);                                                              \
        for (int i = 0; i < count; i++) v[i] -= y[i] * UNBIAS * total;                                     \
        NAME(store_group)(out + j, left, count, v);                                                        \
    }
    GROUPS(BODY)
#undef BODY
}

/* Lane sums hi + lo of exp(logy) * t. */
PASS void NAME(exp_dot_of)(const REAL *logy, const REAL *t, ptrdiff_t n, V *hi, V *lo) {
    NAME(Shift) none = NAME(shift_by)(NAME(splat)(0));
    V h = NAME(splat)(0), l = h, y[GROUP], v[GROUP];
#define BODY(count, left)                                                                                  \
    {                                                                                                      \
        NAME(load_group)(y, logy + j, left, count, 0);                                                     \
        NAME(load_group)(v, t + j, left, count, 0);                                                        \
        NAME(exp_biased)(y, count, &none, 0);                                                              \
        for (int i = 0; i < count; i++) v[i] *= y[i] * UNBIAS;                                             \
        NAME(add_exactly)(&h, &l, NAME(tree)(v, count));                                                   \
    }
    GROUPS(BODY)
#undef BODY
    *hi = h;
    *lo = l;
}
