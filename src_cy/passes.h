/* Passes over a grid: lines of vectors, line j of x at x + j * its stride, of four kinds.
 *
 * * ROW: one vector wide, without gaps. A row of n contiguous entries, the last line perhaps a short one: then the
 *   lanes of what a pass returns are still to be combined. Or rows side by side, one a lane, n lines.
 * * NARROW: rows side by side, up to a vector's lanes of them.
 * * TALL: rows side by side, a tile of them: TILE vectors, whose dependent steps fill each other's gaps and whose
 *   state stays in registers from line to line.
 * * WIDE: rows side by side, more of them, GROUP / PAIR lines at a time, and of these PAIR vectors after the others.
 *   Vector w of what a pass returns belongs to the rows of vector w of each line.
 *
 * A row in a lane has the same bits in every kind. Results may take the place of inputs. */

/* Room for the vectors of a line, 4 KB of them: whole pages are passed over, and one entry of the TLB serves each. And
 * 5 more: arrays of them 4 KB apart would be taken for one another by loads that look past stores. */
#define MOST_VECTORS (4096 / VECTOR_BYTES + 5)
#define EACH_VECTOR for (int w = 0; w < NAME(vectors)(g); w++)
#define EACH_STATE for (int w = 0; w < (kind == WIDE ? NAME(vectors)(g) : wide); w++)

INLINE int NAME(vectors)(const Grid *g) {
    return g->kind == WIDE ? (int)((g->lanes + PAIR * LANES - 1) / (PAIR * LANES) * PAIR) : WIDTH(g->kind);
}

#define ROW_GRID(n) (&(const Grid){(n) / LANES, LANES, (n) % LANES, ROW})

/* A pass, written once as a loop, compiled for each kind of grid; ON chooses. Inlined only into functions that have
 * `known`, a TALL grid whose lines the compiler knows: else that would double the time to compile. */
#define ON_EACH_KIND(name, loop, parameters, ...)                                                          \
    PASS void PASS_NAME(name##_row) parameters { NAME(loop)(__VA_ARGS__, ROW); }                                \
    PASS void PASS_NAME(name##_narrow) parameters { NAME(loop)(__VA_ARGS__, NARROW); }                          \
    PASS void PASS_NAME(name##_tall) parameters { NAME(loop)(__VA_ARGS__, TALL); }                              \
    PASS void PASS_NAME(name##_wide) parameters { NAME(loop)(__VA_ARGS__, WIDE); }                              \
    INLINE void NAME(name##_known) parameters { NAME(loop)(__VA_ARGS__, TALL); }
#define ON(g, name, arguments)                                                                             \
    (known               ? NAME(name##_known) arguments                                                    \
     : (g)->kind == ROW    ? PASS_NAME(name##_row) arguments                                                    \
     : (g)->kind == NARROW ? PASS_NAME(name##_narrow) arguments                                                 \
     : (g)->kind == TALL   ? PASS_NAME(name##_tall) arguments                                                   \
                           : PASS_NAME(name##_wide) arguments)

/* Run BODY(height, left) on tiles of up to `most` vectors, `height` lines by `wide` vectors, at line j and entry c of it,
 * where so many entries are left of the line: all that the vectors hold, which the compiler sees, or fewer. */
#define EACH_TILE(BODY, most)                                                                              \
    ptrdiff_t j = 0, c = 0;                                                                                \
    const ptrdiff_t lines = g->lines;                                                                      \
    OVER(BODY, most)                                                                                       \
    if (g->tail) BODY(1, g->tail)
#define OVER(BODY, most)                                                                                   \
    if (kind == TALL) {                                                                                    \
        for (; lines - j >= (most) / TILE; j += (most) / TILE) BODY((most) / TILE, TILE * LANES)           \
        for (; j < lines; j++) BODY(1, TILE * LANES)                                                       \
    } else {                                                                                               \
        for (; lines - j >= (most) / wide; j += (most) / wide) ACROSS(BODY, (most) / wide)                 \
        for (; (most) / wide > 4 && lines - j >= 4; j += 4) ACROSS(BODY, 4)                                \
        for (; (most) / wide > 2 && lines - j >= 2; j += 2) ACROSS(BODY, 2)                                \
        for (; j < lines; j++) ACROSS(BODY, 1)                                                             \
    }
#define ACROSS(BODY, height)                                                                               \
    {                                                                                                      \
        if (kind == WIDE) {                                                                                \
            for (c = 0; g->lanes - c >= PAIR * LANES; c += PAIR * LANES) BODY(height, PAIR * LANES)        \
            if (c < g->lanes) BODY(height, g->lanes - c)                                                   \
        } else {                                                                                           \
            BODY(height, kind == ROW ? LANES : g->lanes)                                                   \
        }                                                                                                  \
    }

/* The same with a Sum for each state, `part`, to which BODY adds. `sums` gets the whole, which is the part where there
 * are no more lines than CHUNK; after each chunk FLUSH is run. A part is in registers where there are few; GCC spills
 * more where one sum is an element of an array: 0.88 -> 1.02 ms for (1000, 1000) float32 at AVX2. */
#define SUM_TILES(BODY, most, start, FLUSH)                                                                \
    NAME(Sum) one, few[TILE], many[MOST_VECTORS], *part;                                                   \
    ptrdiff_t j = 0, c = 0;                                                                                \
    do {                                                                                                   \
        const ptrdiff_t from = j, lines = g->lines - j > CHUNK ? j + CHUNK : g->lines;                     \
        part = kind == WIDE ? (from ? many : sums) : wide == 1 ? &one : few;                               \
        EACH_STATE part[w] = NAME(sum_from)(start);                                                        \
        OVER(BODY, most)                                                                                   \
        if (lines == g->lines && g->tail) BODY(1, g->tail)                                                 \
        EACH_STATE NAME(take_start)(&part[w], start);                                                      \
        if (from)                                                                                          \
            EACH_STATE sums[w] = NAME(joined)(sums[w], part[w]);                                           \
        else if (kind != WIDE)                                                                             \
            EACH_STATE sums[w] = part[w];                                                                  \
        FLUSH                                                                                              \
    } while (j < g->lines);
#define NOTHING_TO_FLUSH

/* A tile's `count` vectors, `fill` beyond the entries that are left; and back. */
INLINE void NAME(load_tile)(V *a, const REAL *p, ptrdiff_t stride, int count, int wide, ptrdiff_t left, REAL fill) {
    if (left >= wide * LANES)
        EACH a[i] = NAME(load)(p + i / wide * stride + i % wide * LANES);
    else
        EACH a[i] =
            NAME(load_part)(p + i / wide * stride + i % wide * LANES, left - i % wide * LANES, NAME(splat)(fill));
}

INLINE void NAME(store_tile)(REAL *p, ptrdiff_t stride, int count, int wide, ptrdiff_t left, const V *a) {
    if (left >= wide * LANES)
        EACH NAME(store)(p + i / wide * stride + i % wide * LANES, a[i]);
    else
        EACH NAME(store_part)(p + i / wide * stride + i % wide * LANES, left - i % wide * LANES, a[i]);
}

/* Within BODY: its vectors, the entries of an array at the tile, and the state of its vector i. */
#define COUNT(height) ((height) * wide)
#define STRIDE(s) (kind == ROW ? LANES : (s))
#define LOAD(a, p, s, height, left, fill)                                                                  \
    NAME(load_tile)(a, (p) + j * STRIDE(s) + c, STRIDE(s), COUNT(height), wide, left, fill)
#define STORE(p, s, height, left, a)                                                                       \
    NAME(store_tile)((p) + j * STRIDE(s) + c, STRIDE(s), COUNT(height), wide, left, a)
#define OF(i) (c / LANES + (i) % wide)

/* Lane maxima; NaN is passed over and comes back through exp. */
INLINE void NAME(max_loop)(const REAL *x, ptrdiff_t sx, const Grid *g, V *max, const int kind) {
    const int wide = WIDTH(kind);
    V m[GROUP], a[GROUP];
    for (int i = 0; i < GROUP; i++) m[i] = NAME(splat)(-INFINITY);
    if (kind == WIDE) EACH_STATE max[w] = m[0];
#define BODY(height, left)                                                                                 \
    {                                                                                                      \
        LOAD(a, x, sx, height, left, -INFINITY);                                                           \
        for (int i = 0; kind != WIDE && i < COUNT(height); i++) m[i] = NAME(max)(a[i], m[i]);              \
        for (int k = 0; kind == WIDE && k < wide; k++) {                                                   \
            V of = max[OF(k)];                                                                             \
            for (int i = k; i < COUNT(height); i += wide) of = NAME(max)(a[i], of);                        \
            max[OF(k)] = of;                                                                               \
        }                                                                                                  \
    }
    EACH_TILE(BODY, GROUP)
#undef BODY
    if (kind == WIDE) return;
    for (int width = GROUP / 2; width >= wide; width /= 2)
        for (int i = 0; i < width; i++) m[i] = NAME(max)(m[i], m[i + width]);
    EACH_STATE max[w] = m[w];
}
ON_EACH_KIND(max_of, max_loop, (const REAL *x, ptrdiff_t sx, const Grid *g, V *max), x, sx, g, max)

/* Where this pass prefetches: what comes after it is brought in while it keeps the vector units busy, so that
 * memory is read beside the exps, not between them. For grids without gaps; NULL brings nothing. */
typedef struct {
    const REAL *x, *out;
} NAME(Ahead);

INLINE void NAME(look_ahead)(const REAL *p, ptrdiff_t at, int count) {
    if (p)
        EACH __builtin_prefetch(p + at + i * LANES);
}
#define LOOK_AHEAD(p, height) NAME(look_ahead)(p, j * wide * LANES + c, COUNT(height))

/* Sums of exp_biased(x), and the exps themselves into `e` unless that is NULL. With OTHERS those of maxima are left
 * out, and counted: they would swallow what a dominated row is about. */
INLINE void NAME(exps_loop)(const REAL *x, ptrdiff_t sx, REAL *e, ptrdiff_t se, const Grid *g, const NAME(Shift) *s,
                            NAME(Ahead) ahead, NAME(Sum) *sums, NAME(Sum) *maxima, int how, const int kind) {
    const int wide = WIDTH(kind);
    const V none = NAME(splat)(0);
    V a[EXPS];
    NAME(mask) largest[EXPS];
    NAME(bits) one_count, few_counts[TILE], many_counts[MOST_VECTORS];
    NAME(bits) *counts = kind == WIDE ? many_counts : wide == 1 ? &one_count : few_counts;
    for (int w = 0; how & OTHERS && w < (kind == WIDE ? NAME(vectors)(g) : wide); w++) {
        counts[w] = (NAME(bits))none;
        maxima[w] = NAME(sum_from)(0);
    }
#define BODY(height, left)                                                                                 \
    {                                                                                                      \
        LOAD(a, x, sx, height, left, -INFINITY);                                                           \
        LOOK_AHEAD(ahead.x, height);                                                                       \
        LOOK_AHEAD(ahead.out, height);                                                                     \
        for (int i = 0; how & OTHERS && i < COUNT(height); i++)                                            \
            largest[i] = NAME(equal)(a[i], s[OF(i)].max);                                                  \
        NAME(exp_biased)(a, COUNT(height), s + c / LANES, wide, how);                                      \
        if (e) STORE(e, se, height, left, a);                                                              \
        for (int i = 0; i < COUNT(height); i++) {                                                          \
            if (how & OTHERS)                                                                              \
                NAME(add)(&part[OF(i)], NAME(leave_out)(a[i], largest[i], &counts[OF(i)]));                \
            else                                                                                           \
                NAME(add_smaller)(&part[OF(i)], a[i]);                                                     \
        }                                                                                                  \
    }
#define FLUSH                                                                                              \
    for (int w = 0; how & OTHERS && w < (kind == WIDE ? NAME(vectors)(g) : wide); w++) {                   \
        NAME(add_whole)(&maxima[w], __builtin_convertvector(counts[w], V));                                \
        counts[w] = (NAME(bits))none;                                                                      \
    }
    SUM_TILES(BODY, EXPS, how & OTHERS ? 0 : ABOVE, FLUSH)
#undef FLUSH
#undef BODY
}

#define EXPS_PASSES(name, how)                                                                             \
    ON_EACH_KIND(name, exps_loop,                                                                          \
                   (const REAL *x, ptrdiff_t sx, REAL *e, ptrdiff_t se, const Grid *g, const NAME(Shift) *s, \
                    NAME(Ahead) ahead, NAME(Sum) *sums, NAME(Sum) *maxima),                                \
                   x, sx, e, se, g, s, ahead, sums, maxima, how)
EXPS_PASSES(exps, 0)
EXPS_PASSES(exps_mixed, MIXED)
EXPS_PASSES(exps_others, OTHERS)
EXPS_PASSES(exps_others_mixed, OTHERS | MIXED)

/* The same, large maxima or not; with OTHERS if `maxima` is not NULL. */
INLINE void NAME(exps_of)(const REAL *x, ptrdiff_t sx, REAL *e, ptrdiff_t se, const Grid *g, const NAME(Shift) *s,
                          NAME(Ahead) ahead, NAME(Sum) *sums, NAME(Sum) *maxima, const int known) {
    NAME(mask) large = s[0].large;
    EACH_VECTOR large |= s[w].large;
    int mixed = NAME(any)(large);
    if (maxima && mixed)
        ON(g, exps_others_mixed, (x, sx, e, se, g, s, ahead, sums, maxima));
    else if (maxima)
        ON(g, exps_others, (x, sx, e, se, g, s, ahead, sums, maxima));
    else if (mixed)
        ON(g, exps_mixed, (x, sx, e, se, g, s, ahead, sums, maxima));
    else
        ON(g, exps, (x, sx, e, se, g, s, ahead, sums, maxima));
}

/* out = e * q */
INLINE void NAME(times_loop)(const REAL *e, ptrdiff_t se, REAL *out, ptrdiff_t so, const Grid *g, const NAME(Ratio) *q,
                             const int kind) {
    const int wide = WIDTH(kind);
    V v[GROUP];
#define BODY(height, left)                                                                                 \
    {                                                                                                      \
        LOAD(v, e, se, height, left, 0);                                                                   \
        for (int i = 0; i < COUNT(height); i++) v[i] = NAME(times)(v[i], q[OF(i)]);                        \
        STORE(out, so, height, left, v);                                                                   \
    }
    EACH_TILE(BODY, GROUP)
#undef BODY
}
ON_EACH_KIND(times_all, times_loop,
               (const REAL *e, ptrdiff_t se, REAL *out, ptrdiff_t so, const Grid *g, const NAME(Ratio) *q),
               e, se, out, so, g, q)

/* out = (x - a) - b */
INLINE void NAME(subtract_loop)(const REAL *x, ptrdiff_t sx, REAL *out, ptrdiff_t so, const Grid *g, const V *a,
                                const V *b, const int kind) {
    const int wide = WIDTH(kind);
    V v[GROUP];
#define BODY(height, left)                                                                                 \
    {                                                                                                      \
        LOAD(v, x, sx, height, left, 0);                                                                   \
        for (int i = 0; i < COUNT(height); i++) v[i] = (v[i] - a[OF(i)]) - b[OF(i)];                       \
        STORE(out, so, height, left, v);                                                                   \
    }
    EACH_TILE(BODY, GROUP)
#undef BODY
}
ON_EACH_KIND(subtract_all, subtract_loop,
               (const REAL *x, ptrdiff_t sx, REAL *out, ptrdiff_t so, const Grid *g, const V *a, const V *b),
               x, sx, out, so, g, a, b)

/* Add the terms of a tile, pairs of lines first: a rounding, for which the bounds of products have room. */
INLINE void NAME(add_tile)(NAME(Sum) *sum, const V *a, int count, const int wide) {
    for (int i = 0; i < count; i += 2 * wide)
        for (int k = 0; k < wide; k++) NAME(add)(&sum[k], i + k + wide < count ? a[i + k] + a[i + k + wide] : a[i + k]);
}

INLINE void NAME(add_products)(NAME(Sum) *sum, const V *a, const V *b, int count, const int wide) {
    for (int i = 0; i < count; i += 2 * wide)
        for (int k = i; k < i + wide; k++) {
            V product = a[k] * b[k];
            NAME(add)(&sum[k - i], k + wide < count ? NAME(fma)(a[k + wide], b[k + wide], product) : product);
        }
}

/* What a VJP needs to know: lane maxima of y and the cotangent there, the lane extremes of the cotangent, lane sums
 * of their product. */
typedef struct {
    V y_max, at_max, most, least;
} NAME(Extremes);

INLINE void NAME(survey_loop)(const REAL *y, ptrdiff_t sy, const REAL *ct, ptrdiff_t sc, const Grid *g,
                              const REAL *next_out, NAME(Extremes) *all, NAME(Sum) *sums, const int kind) {
    const int wide = WIDTH(kind);
    NAME(Extremes) few_ends[TILE], *ends = kind == WIDE ? all : few_ends;
    V a[GROUP], b[GROUP];
    EACH_STATE { /* field by field: of arrays of them GCC makes a `rep stos` of 30 cycles */
        ends[w].y_max = ends[w].most = NAME(splat)(-INFINITY);
        ends[w].least = NAME(splat)(INFINITY);
        ends[w].at_max = NAME(splat)(0);
    }
#define BODY(height, left)                                                                                 \
    {                                                                                                      \
        LOAD(a, y, sy, height, left, 0);                                                                   \
        LOAD(b, ct, sc, height, left, ct[0]);                                                              \
        LOOK_AHEAD(next_out, height);                                                                      \
        for (int i = 0; i < COUNT(height); i++) {                                                          \
            NAME(Extremes) *of = &ends[OF(i)];                                                             \
            of->at_max = NAME(select)(NAME(greater)(a[i], of->y_max), b[i], of->at_max);                   \
            of->y_max = NAME(max)(a[i], of->y_max);                                                        \
            of->most = NAME(max)(b[i], of->most);                                                          \
            of->least = NAME(min)(b[i], of->least);                                                        \
        }                                                                                                  \
        NAME(add_products)(part + c / LANES, a, b, COUNT(height), wide);                                   \
    }
    SUM_TILES(BODY, GROUP, 0, NOTHING_TO_FLUSH)
#undef BODY
    if (kind != WIDE) EACH_STATE all[w] = few_ends[w];
}
ON_EACH_KIND(survey_of, survey_loop,
               (const REAL *y, ptrdiff_t sy, const REAL *ct, ptrdiff_t sc, const Grid *g, const REAL *next_out,
                NAME(Extremes) *all, NAME(Sum) *sums),
               y, sy, ct, sc, g, next_out, all, sums)

/* What is taken from a cotangent that is first multiplied by a scale: 1, or less where differences would overflow. */
typedef struct {
    V scale, centre;
} NAME(Centre);

/* Lane sums of y * (cotangent - centre). */
INLINE void NAME(dot_loop)(const REAL *y, ptrdiff_t sy, const REAL *ct, ptrdiff_t sc, const Grid *g,
                           const NAME(Centre) *of, NAME(Sum) *sums, const int kind) {
    const int wide = WIDTH(kind);
    V u[GROUP], v[GROUP];
#define BODY(height, left)                                                                                 \
    {                                                                                                      \
        LOAD(u, y, sy, height, left, 0);                                                                   \
        LOAD(v, ct, sc, height, left, 0);                                                                  \
        for (int i = 0; i < COUNT(height); i++)                                                            \
            v[i] = NAME(fma)(v[i], of[OF(i)].scale, -of[OF(i)].centre);                                    \
        NAME(add_products)(part + c / LANES, u, v, COUNT(height), wide);                                   \
    }
    SUM_TILES(BODY, GROUP, 0, NOTHING_TO_FLUSH)
#undef BODY
}
ON_EACH_KIND(dot_of, dot_loop,
               (const REAL *y, ptrdiff_t sy, const REAL *ct, ptrdiff_t sc, const Grid *g, const NAME(Centre) *of,
                NAME(Sum) *sums),
               y, sy, ct, sc, g, of, sums)

/* out = y * ((cotangent - centre) - dot), with the scale if there is one. */
INLINE void NAME(vjp_loop)(const REAL *y, ptrdiff_t sy, const REAL *ct, ptrdiff_t sc, REAL *out, ptrdiff_t so,
                           const Grid *g, const NAME(Centre) *of, const V *dot, NAME(Ahead) ahead, int scaled,
                           const int kind) {
    const int wide = WIDTH(kind);
    V u[GROUP], v[GROUP];
#define BODY(height, left)                                                                                 \
    {                                                                                                      \
        LOAD(u, y, sy, height, left, 0);                                                                   \
        LOAD(v, ct, sc, height, left, 0);                                                                  \
        LOOK_AHEAD(ahead.x, height);                                                                       \
        LOOK_AHEAD(ahead.out, height);                                                                     \
        for (int i = 0; i < COUNT(height); i++) {                                                          \
            v[i] = (scaled ? v[i] * of[OF(i)].scale : v[i]) - of[OF(i)].centre;                            \
            v[i] = u[i] * (v[i] - dot[OF(i)]);                                                             \
            v[i] = scaled ? v[i] / of[OF(i)].scale : v[i];                                                 \
        }                                                                                                  \
        STORE(out, so, height, left, v);                                                                   \
    }
    EACH_TILE(BODY, GROUP)
#undef BODY
}
#define VJP_PASSES(name, scaled)                                                                           \
    ON_EACH_KIND(name, vjp_loop,                                                                           \
                 (const REAL *y, ptrdiff_t sy, const REAL *ct, ptrdiff_t sc, REAL *out, ptrdiff_t so,      \
                  const Grid *g, const NAME(Centre) *of, const V *dot, NAME(Ahead) ahead),                 \
                 y, sy, ct, sc, out, so, g, of, dot, ahead, scaled)
VJP_PASSES(vjp_all, 0)
VJP_PASSES(vjp_scaled, 1)

/* Lane sums of x. */
INLINE void NAME(sum_loop)(const REAL *x, ptrdiff_t sx, const Grid *g, NAME(Sum) *sums, const int kind) {
    const int wide = WIDTH(kind);
    V a[GROUP];
#define BODY(height, left)                                                                                 \
    {                                                                                                      \
        LOAD(a, x, sx, height, left, 0);                                                                   \
        NAME(add_tile)(part + c / LANES, a, COUNT(height), wide);                                          \
    }
    SUM_TILES(BODY, GROUP, 0, NOTHING_TO_FLUSH)
#undef BODY
}
ON_EACH_KIND(sum_of, sum_loop, (const REAL *x, ptrdiff_t sx, const Grid *g, NAME(Sum) *sums), x, sx, g, sums)

/* out = cotangent - exp(logy) * total */
INLINE void NAME(log_vjp_loop)(const REAL *logy, ptrdiff_t sy, const REAL *ct, ptrdiff_t sc, REAL *out, ptrdiff_t so,
                               const Grid *g, const V *total, const int kind) {
    const int wide = WIDTH(kind);
    const NAME(Shift) none = NAME(shift_by)(NAME(splat)(0));
    V y[EXPS], v[EXPS];
#define BODY(height, left)                                                                                 \
    {                                                                                                      \
        LOAD(y, logy, sy, height, left, 0);                                                                \
        LOAD(v, ct, sc, height, left, 0);                                                                  \
        NAME(exp_biased)(y, COUNT(height), &none, 1, 0);                                                   \
        for (int i = 0; i < COUNT(height); i++) v[i] = NAME(fma)(y[i] * -UNBIAS, total[OF(i)], v[i]);      \
        STORE(out, so, height, left, v);                                                                   \
    }
    EACH_TILE(BODY, EXPS)
#undef BODY
}
ON_EACH_KIND(log_vjp_all, log_vjp_loop,
               (const REAL *logy, ptrdiff_t sy, const REAL *ct, ptrdiff_t sc, REAL *out, ptrdiff_t so, const Grid *g,
                const V *total),
               logy, sy, ct, sc, out, so, g, total)

/* Lane sums of exp(logy) * t. */
INLINE void NAME(exp_dot_loop)(const REAL *logy, ptrdiff_t sy, const REAL *t, ptrdiff_t st, const Grid *g,
                               NAME(Sum) *sums, const int kind) {
    const int wide = WIDTH(kind);
    const NAME(Shift) none = NAME(shift_by)(NAME(splat)(0));
    V y[EXPS], v[EXPS];
#define BODY(height, left)                                                                                 \
    {                                                                                                      \
        LOAD(y, logy, sy, height, left, 0);                                                                \
        LOAD(v, t, st, height, left, 0);                                                                   \
        NAME(exp_biased)(y, COUNT(height), &none, 1, 0);                                                   \
        for (int i = 0; i < COUNT(height); i++) v[i] *= y[i] * UNBIAS;                                     \
        for (int i = 0; i < COUNT(height); i++) NAME(add)(&part[OF(i)], v[i]);                             \
    }
    SUM_TILES(BODY, EXPS, 0, NOTHING_TO_FLUSH)
#undef BODY
}
ON_EACH_KIND(exp_dot_of, exp_dot_loop,
               (const REAL *logy, ptrdiff_t sy, const REAL *t, ptrdiff_t st, const Grid *g, NAME(Sum) *sums),
               logy, sy, t, st, g, sums)
