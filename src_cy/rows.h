/* One contiguous row of n entries at a time. `out` may be an input. */

static void NAME(fill)(REAL *out, ptrdiff_t n, REAL a) {
    for (ptrdiff_t j = 0; j < n; j++) out[j] = a;
}

/* The sum of all lanes of hi + lo, as such a pair in every lane. */
INLINE void NAME(add_lanes)(V *hi, V *lo) {
    for (int distance = LANES / 2; distance; distance /= 2) {
        V h = NAME(partners)(*hi, distance), l = NAME(partners)(*lo, distance);
        NAME(add_exactly)(hi, lo, h);
        *lo += l;
    }
}

/* The first index that holds `a`, which is there. */
static ptrdiff_t NAME(index_of)(const REAL *x, ptrdiff_t n, REAL a) {
    ptrdiff_t j = 0;
    for (; j + 4 * LANES <= n; j += 4 * LANES) {
        NAME(bits) hit = {0};
        for (int i = 0; i < 4; i++) hit |= NAME(load)(x + j + i * LANES) == NAME(splat)(a);
        if (NAME(any)(hit)) break;
    }
    while (x[j] != a) j++;
    return j;
}

/* Where the next row is, to look ahead to. Longer ones the hardware fetches in time, and they would push this
 * one out of the cache. */
INLINE const REAL *NAME(next)(const REAL *row, ptrdiff_t n) {
    return row && n * (ptrdiff_t)sizeof(REAL) <= 256 * 1024 ? row + n : NULL;
}

static void NAME(softmax_row)(const REAL *x, REAL *out, ptrdiff_t n) {
    REAL max = NAME(max_lane)(NAME(max_of)(x, n));
    if (!isfinite(max)) {
        NAME(fill)(out, n, NAN);
        return;
    }
    V hi, lo;
    NAME(Shift) s = NAME(shift_by)(NAME(splat)(max));
    NAME(LeftOut) nothing = {.next_x = NAME(next)(x, n), .next_out = NAME(next)(out, n)};
    NAME(exps_of)(x, out, n, nothing, &s, &hi, &lo);
    NAME(add_lanes)(&hi, &lo);
    NAME(times_all)(out, out, n, NAME(ratio)(NAME(splat)(1), hi, lo));
}

/* What log-type ops need of a row, the same in every lane: rest is the sum of exp(x_j - max) without one
 * maximum, hi + lo the biased sum of all. */
typedef struct {
    V max, rest, log1p_rest, hi, lo;
} NAME(Summary);

/* From the biased sum without one maximum, to which that one is added. */
static void NAME(complete)(NAME(Summary) *r, const NAME(Shift) *s) {
    V one = r->max;
    NAME(exp_biased)(&one, 1, s, 1);
    r->rest = (r->hi + r->lo) / one;
    r->log1p_rest = NAME(log1p)(r->rest);
    NAME(add_exactly)(&r->hi, &r->lo, one);
}

static NAME(Summary) NAME(row_summary)(const REAL *x, REAL *e, ptrdiff_t n, REAL max, const REAL *next_out) {
    NAME(Summary) r = {.max = NAME(splat)(max)};
    NAME(LeftOut) one = {INDEX, NAME(index_of)(x, n, max), r.max, NAME(next)(x, n), next_out};
    NAME(Shift) s = NAME(shift_by)(r.max);
    NAME(exps_of)(x, e, n, one, &s, &r.hi, &r.lo);
    NAME(add_lanes)(&r.hi, &r.lo);
    NAME(complete)(&r, &s);
    return r;
}

static void NAME(log_softmax_row)(const REAL *x, REAL *out, ptrdiff_t n) {
    REAL max = NAME(max_lane)(NAME(max_of)(x, n));
    if (!isfinite(max)) {
        NAME(fill)(out, n, NAN);
        return;
    }
    NAME(Summary) r = NAME(row_summary)(x, NULL, n, max, out);
    /* log y_j = (x_j - max) - log(1 + rest) */
    NAME(subtract_all)(x, out, n, r.max, r.log1p_rest);
}

static REAL NAME(logsumexp_row)(const REAL *x, ptrdiff_t n) {
    REAL max = NAME(max_lane)(NAME(max_of)(x, n));
    if (isfinite(max)) return max + NAME(row_summary)(x, NULL, n, max, NULL).log1p_rest[0];
    for (ptrdiff_t j = 0; j < n; j++)
        if (isnan(x[j])) return NAN;
    return max;
}

/* dx_i = y_i * (g_i - sum_j g_j y_j) is unchanged by g - c: the cotangent of a dominant entry as c keeps the
 * digits of a saturated row; else the value nearest 0 between the extremes of g, which is g if g is constant. */
static void NAME(softmax_vjp_row)(const REAL *y, const REAL *g, REAL *out, ptrdiff_t n) {
    NAME(Extremes) all = NAME(extremes_of)(y, g, n, out);
    REAL y_max = NAME(max_lane)(all.y_max), least = -NAME(max_lane)(-all.g_min), most = NAME(max_lane)(all.g_max);
    REAL c = least > 0 ? least : most < 0 ? most : 0;
    if (y_max > (REAL)0.5) c = g[NAME(index_of)(y, n, y_max)];
    V centre = NAME(splat)(c), hi, lo;
    NAME(dot_of)(y, g, n, centre, NAME(next)(y, n), NAME(next)(g, n), &hi, &lo);
    NAME(add_lanes)(&hi, &lo);
    NAME(vjp_all)(y, g, out, n, centre, hi + lo);
}

/* dx_i = g_i - exp(logy_i) * sum_j g_j */
static void NAME(log_softmax_vjp_row)(const REAL *logy, const REAL *g, REAL *out, ptrdiff_t n) {
    V hi, lo;
    NAME(sum_of)(g, n, &hi, &lo);
    NAME(add_lanes)(&hi, &lo);
    NAME(log_vjp_all)(logy, g, out, n, hi + lo);
}

/* d(log y)_i = t_i - sum_j exp(logy_j) * t_j */
static void NAME(log_softmax_jvp_row)(const REAL *logy, const REAL *t, REAL *out, ptrdiff_t n) {
    V hi, lo;
    NAME(exp_dot_of)(logy, t, n, &hi, &lo);
    NAME(add_lanes)(&hi, &lo);
    NAME(subtract_all)(t, out, n, NAME(splat)(0), hi + lo);
}

/* The sum of all entries but the one at k. */
INLINE REAL NAME(sum_without)(const REAL *y, ptrdiff_t n, ptrdiff_t k) {
    V before, before_lo, after, after_lo;
    NAME(sum_of)(y, k, &before, &before_lo);
    NAME(sum_of)(y + k + 1, n - k - 1, &after, &after_lo);
    NAME(add_exactly)(&before, &before_lo, after);
    before_lo += after_lo;
    NAME(add_lanes)(&before, &before_lo);
    return before[0] + before_lo[0];
}

/* The same for a row that is one vector: the others of a dominant entry are added as a tree. */
INLINE void NAME(softmax_jacobian_vector)(const REAL *y, REAL *out, ptrdiff_t n) {
    V v = NAME(load_part)(y, n, NAME(splat)(0));
    NAME(bits) dominant = v > (REAL)0.5;
    V others = NAME(select)(dominant, NAME(splat)(0), v);
    for (int distance = LANES / 2; distance; distance /= 2) others += NAME(partners)(others, distance);
    V diagonal = v * NAME(select)(dominant, others, 1 - v);
    for (ptrdiff_t i = 0; i < n; i++) {
        NAME(bits) here = NAME(lane_index)() == (INT)i;
        NAME(store_part)(out + i * n, n, NAME(select)(here, diagonal, -y[i] * v));
    }
}

/* J_ij = y_i * ((i == j) - y_j); 1 - y_i of an entry above 1/2 is the sum of the others. */
static void NAME(softmax_jacobian_row)(const REAL *y, REAL *out, ptrdiff_t n) {
    if (n <= LANES) {
        NAME(softmax_jacobian_vector)(y, out, n);
        return;
    }
    for (ptrdiff_t i = 0; i < n; i++) {
        V minus = NAME(splat)(-y[i]);
        REAL *row = out + i * n;
        ptrdiff_t j = 0;
        for (; j + LANES <= n; j += LANES) NAME(store)(row + j, minus * NAME(load)(y + j));
        if (j < n) NAME(store_part)(row + j, n - j, minus * NAME(load_part)(y + j, n - j, NAME(splat)(0)));
        row[i] = y[i] * (y[i] > (REAL)0.5 ? NAME(sum_without)(y, n, i) : 1 - y[i]);
    }
}

/* A cross-entropy is at_label * nll[label] + sum_j everywhere[j] * nll[j], as PyTorch defines it, with
 * nll_j = (max - x_j) + log(1 + rest). `everywhere` is NULL without smoothing; `total` is its sum. */
typedef struct {
    const REAL *everywhere;
    REAL total, scale;
} NAME(Target);

/* sum_j everywhere[j] * (max - x_j) */
INLINE REAL NAME(spread_row)(const REAL *x, ptrdiff_t n, REAL max, const REAL *everywhere) {
    V hi, lo;
    if (!everywhere) return 0;
    NAME(dot_of)(everywhere, x, n, NAME(splat)(max), NULL, NULL, &hi, &lo);
    NAME(add_lanes)(&hi, &lo);
    return -(hi[0] + lo[0]);
}

INLINE REAL NAME(loss_of)(REAL at_label, NAME(Target) t, REAL max, REAL x_label, REAL spread, REAL log1p_rest) {
    REAL loss = at_label * ((max - x_label) + log1p_rest);
    return t.everywhere ? loss + (spread + t.total * log1p_rest) : loss;
}

/* d loss / d x_j = y_j * (at_label + total) - everywhere_j - (j == label) * at_label: at the label, where
 * `largest` says that 1 - y_label is best formed from the others. */
INLINE REAL NAME(grad_at_label)(REAL at_label, NAME(Target) t, REAL y_label, REAL rest, int largest, ptrdiff_t label) {
    REAL one_minus = largest ? rest / (1 + rest) : 1 - y_label;
    REAL everywhere = t.everywhere ? t.everywhere[label] : 0;
    return t.scale * ((t.total * y_label - everywhere) - at_label * one_minus);
}

/* The loss; and the gradient into `out` unless that is NULL. */
static REAL NAME(cross_entropy_row)(const REAL *x, REAL *out, ptrdiff_t n, ptrdiff_t label, REAL at_label,
                                    const REAL *everywhere, REAL total, REAL scale) {
    NAME(Target) t = {everywhere, total, scale};
    REAL max = NAME(max_lane)(NAME(max_of)(x, n)), x_label = x[label];
    if (!isfinite(max)) {
        if (out) NAME(fill)(out, n, NAN);
        return NAN;
    }
    REAL spread = NAME(spread_row)(x, n, max, everywhere);
    NAME(Summary) r = NAME(row_summary)(x, out, n, max, NAME(next)(out, n));
    if (out) {
        REAL dx = NAME(grad_at_label)(at_label, t, out[label] / r.hi[0], r.rest[0], x_label == max, label);
        V factor = NAME(splat)(scale * (at_label + total));
        NAME(times_all)(out, out, n, NAME(ratio)(factor, r.hi, r.lo));
        for (ptrdiff_t j = 0; everywhere && j < n; j++) out[j] -= scale * everywhere[j];
        out[label] = dx;
    }
    return NAME(loss_of)(at_label, t, max, x_label, spread, r.log1p_rest[0]);
}
