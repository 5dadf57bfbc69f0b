/* LANES rows at a time, a row in each lane: a panel holds entry j of all of them as vector j, and the ops work
 * in place on it. Entries of short contiguous rows are transposed into a panel; along an inner axis memory
 * already lies that way. Lanes beyond the last row repeat row 0. */

#define ROWS_AHEAD 12 /* strided rows the hardware does not foresee; 12 lines are in flight at most */
#define PIECE ((ptrdiff_t)(16 / sizeof(REAL)))

/* `count` rows of n contiguous entries into a panel, PIECE entries of all rows at a time; and back. */
static void NAME(rows_to_panel)(const REAL *x, ptrdiff_t n, ptrdiff_t count, REAL *panel) {
    if (count < LANES || n < PIECE) {
        for (ptrdiff_t l = 0; l < LANES; l++)
            for (ptrdiff_t j = 0; j < n; j++) panel[j * LANES + l] = x[(l < count ? l : 0) * n + j];
        return;
    }
    for (ptrdiff_t j = 0; j < n; j += PIECE) {
        V v[PIECE];
        ptrdiff_t k = j < n - PIECE ? j : n - PIECE; /* the last pieces overlap those before */
        for (int i = 0; i < PIECE; i++) v[i] = NAME(load_pieces)(x + i * n + k, PIECE * n);
        NAME(transpose)(v);
        for (int i = 0; i < PIECE; i++) NAME(store)(panel + (k + i) * LANES, v[i]);
    }
}

static void NAME(panel_to_rows)(const REAL *panel, ptrdiff_t n, ptrdiff_t count, REAL *out) {
    if (count < LANES || n < PIECE) {
        for (ptrdiff_t l = 0; l < count; l++)
            for (ptrdiff_t j = 0; j < n; j++) out[l * n + j] = panel[j * LANES + l];
        return;
    }
    for (ptrdiff_t j = 0; j < n; j += PIECE) {
        V v[PIECE];
        ptrdiff_t k = j < n - PIECE ? j : n - PIECE;
        for (int i = 0; i < PIECE; i++) v[i] = NAME(load)(panel + (k + i) * LANES);
        NAME(transpose)(v);
        for (int i = 0; i < PIECE; i++) NAME(store_pieces)(out + i * n + k, PIECE * n, v[i]);
    }
}

/* Panels side by side, for `count` columns in all, from rows `stride` apart, so that each line of memory is read once. */
static void NAME(columns_to_panels)(const REAL *x, ptrdiff_t n, ptrdiff_t stride, ptrdiff_t count, REAL *panels) {
    for (ptrdiff_t j = 0; j < n; j++, x += stride)
        for (ptrdiff_t c = 0; c < count; c += LANES) {
            __builtin_prefetch(x + ROWS_AHEAD * stride + c);
            NAME(store)(panels + c * n + j * LANES, NAME(load_part)(x + c, count - c, NAME(splat)(x[0])));
        }
}

static void NAME(panels_to_columns)(const REAL *panels, ptrdiff_t n, ptrdiff_t stride, ptrdiff_t count, REAL *out) {
    for (ptrdiff_t j = 0; j < n; j++, out += stride)
        for (ptrdiff_t c = 0; c < count; c += LANES) {
            __builtin_prefetch(out + ROWS_AHEAD * stride + c, 1);
            NAME(store_part)(out + c, count - c, NAME(load)(panels + c * n + j * LANES));
        }
}

/* Lane maxima, NaN where softmax is NaN: for +inf, and for nothing but -inf. */
INLINE V NAME(nan_unless_finite)(V max) { return NAME(select)(max - max == 0, max, NAME(splat)(NAN)); }

static void NAME(softmax_panel)(REAL *x, ptrdiff_t n) {
    V max = NAME(nan_unless_finite)(NAME(max_of)(x, n * LANES)), hi, lo;
    NAME(Shift) s = NAME(shift_by)(max);
    NAME(exps_of)(x, x, n * LANES, (NAME(LeftOut)){.what = NOTHING}, &s, &hi, &lo);
    NAME(times_all)(x, x, n * LANES, NAME(ratio)(NAME(splat)(1), hi, lo));
}

static NAME(Summary) NAME(panel_summary)(const REAL *x, REAL *e, ptrdiff_t n, V max) {
    NAME(Summary) r = {.max = max};
    NAME(Shift) s = NAME(shift_by)(max);
    NAME(exps_of)(x, e, n * LANES, (NAME(LeftOut)){.what = FIRST_MAX, .max = max}, &s, &r.hi, &r.lo);
    NAME(complete)(&r, &s);
    return r;
}

static void NAME(log_softmax_panel)(REAL *x, ptrdiff_t n) {
    V max = NAME(nan_unless_finite)(NAME(max_of)(x, n * LANES));
    NAME(Summary) r = NAME(panel_summary)(x, NULL, n, max);
    NAME(subtract_all)(x, x, n * LANES, max, r.log1p_rest);
}

static void NAME(logsumexp_panel)(const REAL *x, ptrdiff_t n, REAL *out) {
    V max = NAME(max_of)(x, n * LANES), finite = NAME(nan_unless_finite)(max);
    V result = max + NAME(panel_summary)(x, NULL, n, finite).log1p_rest;
    NAME(bits) infinite = finite != finite, nan = {0};
    if (NAME(any)(infinite)) {
        for (ptrdiff_t j = 0; j < n; j++) {
            V v = NAME(load)(x + j * LANES);
            nan |= v != v;
        }
        result = NAME(select)(infinite, NAME(select)(nan, NAME(splat)(NAN), max), result);
    }
    NAME(store)(out, result);
}

/* The result takes the place of y. */
static void NAME(softmax_vjp_panel)(REAL *y, const REAL *g, ptrdiff_t n) {
    NAME(Extremes) all = NAME(extremes_of)(y, g, n * LANES, NULL);
    V zero = NAME(splat)(0), centre = NAME(max)(all.g_min, NAME(min)(all.g_max, zero)), hi, lo;
    NAME(bits) any = {0};
    for (ptrdiff_t j = 0; j < n; j++) {
        NAME(bits) first = (NAME(load)(y + j * LANES) == all.y_max) & (all.y_max > (REAL)0.5) & ~any;
        centre = NAME(select)(first, NAME(load)(g + j * LANES), centre);
        any |= first;
    }
    NAME(dot_of)(y, g, n * LANES, centre, NULL, NULL, &hi, &lo);
    NAME(vjp_all)(y, g, y, n * LANES, centre, hi + lo);
}

static void NAME(log_softmax_vjp_panel)(REAL *logy, const REAL *g, ptrdiff_t n) {
    V hi, lo;
    NAME(sum_of)(g, n * LANES, &hi, &lo);
    NAME(log_vjp_all)(logy, g, logy, n * LANES, hi + lo);
}

static void NAME(log_softmax_jvp_panel)(REAL *logy, const REAL *t, ptrdiff_t n) {
    V hi, lo;
    NAME(exp_dot_of)(logy, t, n * LANES, &hi, &lo);
    NAME(subtract_all)(t, logy, n * LANES, NAME(splat)(0), hi + lo);
}

/* sum_j everywhere[j] * (max - x_j) */
INLINE V NAME(spread_panel)(const REAL *x, ptrdiff_t n, V max, const REAL *everywhere) {
    V hi = NAME(splat)(0), lo = hi;
    for (ptrdiff_t j = 0; everywhere && j < n; j++)
        NAME(add_exactly)(&hi, &lo, NAME(splat)(everywhere[j]) * (max - NAME(load)(x + j * LANES)));
    return hi + lo;
}

/* Entry `label` of each lane, which differs between them. */
INLINE V NAME(pick)(const REAL *x, ptrdiff_t n, NAME(bits) label) {
    V picked = NAME(load)(x);
    for (ptrdiff_t j = 1; j < n; j++)
        picked = NAME(select)(label == (INT)j, NAME(load)(x + j * LANES), picked);
    return picked;
}

/* Losses, one a lane; and in place of x the gradients if `grad`. `labels` and `at_label` are per lane. */
static void NAME(cross_entropy_panel)(REAL *x, REAL *losses, ptrdiff_t n, const ptrdiff_t *labels,
                                      const REAL *at_label, const REAL *everywhere, REAL total, REAL scale, int grad) {
    V max = NAME(nan_unless_finite)(NAME(max_of)(x, n * LANES)), at = NAME(load)(at_label);
    V spread = NAME(spread_panel)(x, n, max, everywhere), everywhere_at_label = NAME(splat)(0);
    NAME(bits) label;
    for (int l = 0; l < LANES; l++) label[l] = (INT)labels[l];
    V x_label = NAME(pick)(x, n, label);
    NAME(Summary) r = NAME(panel_summary)(x, grad ? x : NULL, n, max);
    V loss = at * ((max - x_label) + r.log1p_rest);
    NAME(store)(losses, everywhere ? loss + (spread + total * r.log1p_rest) : loss);
    if (!grad) return;
    for (int l = 0; everywhere && l < LANES; l++) everywhere_at_label[l] = everywhere[labels[l]];
    V y_label = NAME(pick)(x, n, label) / r.hi;
    V one_minus = NAME(select)(x_label == max, r.rest / (1 + r.rest), 1 - y_label);
    V dx_label = scale * ((total * y_label - everywhere_at_label) - at * one_minus);
    NAME(times_all)(x, x, n * LANES, NAME(ratio)(scale * (at + total), r.hi, r.lo));
    for (ptrdiff_t j = 0; j < n; j++) {
        V dx = NAME(load)(x + j * LANES);
        if (everywhere) dx -= scale * everywhere[j];
        NAME(store)(x + j * LANES, NAME(select)(label == (INT)j, dx_label, dx));
    }
}

/* The ops of one or two arrays whose result has their shape: on a row, and on panels. */
static void NAME(elementwise_row)(const REAL *a, const REAL *b, REAL *out, ptrdiff_t n, enum elementwise op) {
    switch (op) {
    case SOFTMAX: NAME(softmax_row)(a, out, n); break;
    case LOG_SOFTMAX: NAME(log_softmax_row)(a, out, n); break;
    case SOFTMAX_VJP: NAME(softmax_vjp_row)(a, b, out, n); break;
    case LOG_SOFTMAX_VJP: NAME(log_softmax_vjp_row)(a, b, out, n); break;
    case LOG_SOFTMAX_JVP: NAME(log_softmax_jvp_row)(a, b, out, n); break;
    }
}

static void NAME(elementwise_panel)(REAL *a, const REAL *b, ptrdiff_t n, enum elementwise op) {
    switch (op) {
    case SOFTMAX: NAME(softmax_panel)(a, n); break;
    case LOG_SOFTMAX: NAME(log_softmax_panel)(a, n); break;
    case SOFTMAX_VJP: NAME(softmax_vjp_panel)(a, b, n); break;
    case LOG_SOFTMAX_VJP: NAME(log_softmax_vjp_panel)(a, b, n); break;
    case LOG_SOFTMAX_JVP: NAME(log_softmax_jvp_panel)(a, b, n); break;
    }
}
