/* Rows side by side, a row in each lane: line j of a grid holds entry j of all of them. Along an inner axis memory
 * lies that way; short contiguous rows are transposed into a panel, whose lanes beyond the last row are filled
 * with what does no harm. */

#define PIECE ((ptrdiff_t)(16 / sizeof(REAL)))
#define FEW 3 /* entries, or fewer: such rows are permuted within registers */

/* In each lane the entry of that index of FEW vectors; and LANES rows of `n` entries, so many vectors, into lanes;
 * and back. */
INLINE V NAME(entries_of)(const V *v, NAME(bits) index) {
    NAME(bits) last = index >= (INT)(2 * LANES), lane = NAME(lane_index)();
    return NAME(entries)(NAME(entries)(v[0], v[1], index), v[2], (last & (index - (INT)LANES)) | (~last & lane));
}

INLINE void NAME(few_to_lanes)(const REAL *x, const INT n, REAL *lanes, ptrdiff_t apart) {
    V v[FEW];
    for (int i = 0; i < FEW; i++) v[i] = i < n ? NAME(load)(x + i * LANES) : NAME(splat)(0);
    for (INT j = 0; j < n; j++) NAME(store)(lanes + j * apart, NAME(entries_of)(v, NAME(lane_index)() * n + j));
}

INLINE void NAME(lanes_to_few)(const REAL *lanes, ptrdiff_t apart, const INT n, REAL *out) {
    V v[FEW];
    for (int j = 0; j < FEW; j++) v[j] = j < n ? NAME(load)(lanes + j * apart) : NAME(splat)(0);
    for (INT i = 0; i < n; i++) {
        NAME(bits) k = NAME(lane_index)() + i * (INT)LANES;
        NAME(store)(out + i * LANES, NAME(entries_of)(v, k % n * (INT)LANES + k / n));
    }
}

/* Call it with an `n` that the compiler knows. */
#define FOR_FEW(n, call) ((n) == 1 ? call(1) : (n) == 2 ? call(2) : call(3))

/* `count` contiguous rows, or none, a row in each lane of vectors that lie `apart` entries from each other, PIECE
 * entries of all rows at a time; and back. */
INLINE void NAME(rows_to_lanes)(const REAL *x, ptrdiff_t n, ptrdiff_t count, REAL *lanes, ptrdiff_t apart) {
    if (count < LANES) {
        for (ptrdiff_t j = 0; j < n; j++) NAME(store)(lanes + j * apart, NAME(splat)(count > 0 ? x[j] : 0));
        for (ptrdiff_t l = 1; l < count; l++)
            for (ptrdiff_t j = 0; j < n; j++) lanes[j * apart + l] = x[l * n + j];
        return;
    }
    if (n <= FEW) {
#define CALL(n) NAME(few_to_lanes)(x, n, lanes, apart)
        FOR_FEW(n, CALL);
#undef CALL
        return;
    }
    for (ptrdiff_t j = 0; j < n; j += PIECE) {
        V v[PIECE];
        ptrdiff_t k = j < n - PIECE ? j : n - PIECE; /* the last pieces overlap those before */
        for (int i = 0; i < PIECE; i++) v[i] = NAME(load_pieces)(x + i * n + k, PIECE * n);
        NAME(transpose)(v);
        for (int i = 0; i < PIECE; i++) NAME(store)(lanes + (k + i) * apart, v[i]);
    }
}

INLINE void NAME(lanes_to_rows)(const REAL *lanes, ptrdiff_t apart, ptrdiff_t n, ptrdiff_t count, REAL *out) {
    if (count < LANES) {
        for (ptrdiff_t l = 0; l < count; l++)
            for (ptrdiff_t j = 0; j < n; j++) out[l * n + j] = lanes[j * apart + l];
        return;
    }
    if (n <= FEW) {
#define CALL(n) NAME(lanes_to_few)(lanes, apart, n, out)
        FOR_FEW(n, CALL);
#undef CALL
        return;
    }
    for (ptrdiff_t j = 0; j < n; j += PIECE) {
        V v[PIECE];
        ptrdiff_t k = j < n - PIECE ? j : n - PIECE;
        for (int i = 0; i < PIECE; i++) v[i] = NAME(load)(lanes + (k + i) * apart);
        NAME(transpose)(v);
        for (int i = 0; i < PIECE; i++) NAME(store_pieces)(out + i * n + k, PIECE * n, v[i]);
    }
}

/* Rows into the lanes of a panel, lines of `lanes` entries without gaps; and back. */
INLINE void NAME(rows_to_panel)(const REAL *x, ptrdiff_t n, ptrdiff_t count, REAL *panel, ptrdiff_t lanes) {
    for (ptrdiff_t l = 0; l < lanes; l += LANES) NAME(rows_to_lanes)(x + l * n, n, count - l, panel + l, lanes);
}

INLINE void NAME(panel_to_rows)(const REAL *panel, ptrdiff_t lanes, ptrdiff_t n, ptrdiff_t count, REAL *out) {
    for (ptrdiff_t l = 0; l < lanes; l += LANES) NAME(lanes_to_rows)(panel + l, lanes, n, count - l, out + l * n);
}

/* Lane maxima, NaN where softmax is NaN: for +inf, and for nothing but -inf. */
INLINE V NAME(nan_unless_finite)(V max) {
    return NAME(select)(NAME(equal)(max - max, NAME(splat)(0)), max, NAME(splat)(NAN));
}

INLINE void NAME(softmax_grid)(const REAL *x, ptrdiff_t sx, REAL *out, ptrdiff_t so, const Grid *g, NAME(Ahead) ahead,
                               const int known) {
    V max[MOST_VECTORS];
    NAME(Shift) s[MOST_VECTORS];
    NAME(Sum) sum[MOST_VECTORS];
    NAME(Ratio) q[MOST_VECTORS];
    ON(g, max_of, (x, sx, g, max));
    EACH_VECTOR s[w] = NAME(shift_by)(NAME(nan_unless_finite)(max[w]));
    NAME(exps_of)(x, sx, out, so, g, s, ahead, sum, NULL, known);
    EACH_VECTOR q[w] = NAME(inverse)(NAME(pair_of)(sum[w]));
    ON(g, times_all, (out, so, out, so, g, q));
}

/* The summaries of rows whose maxima are `max`, finite or NaN; and the exps into `e` unless that is NULL. */
INLINE void NAME(grid_summary)(const REAL *x, ptrdiff_t sx, REAL *e, ptrdiff_t se, const Grid *g, const V *max,
                               NAME(Ahead) ahead, NAME(Summary) *r, const int known) {
    NAME(Shift) s[MOST_VECTORS];
    NAME(Sum) sum[MOST_VECTORS], maxima[MOST_VECTORS];
    EACH_VECTOR s[w] = NAME(shift_by)(max[w]);
    NAME(exps_of)(x, sx, e, se, g, s, ahead, sum, maxima, known);
    EACH_VECTOR r[w] = NAME(summary)(&s[w], sum[w], maxima[w]);
}

INLINE void NAME(log_softmax_grid)(const REAL *x, ptrdiff_t sx, REAL *out, ptrdiff_t so, const Grid *g,
                                   NAME(Ahead) ahead, const int known) {
    V max[MOST_VECTORS], log1p_rest[MOST_VECTORS];
    NAME(Summary) r[MOST_VECTORS];
    ON(g, max_of, (x, sx, g, max));
    EACH_VECTOR max[w] = NAME(nan_unless_finite)(max[w]);
    NAME(grid_summary)(x, sx, NULL, 0, g, max, ahead, r, known);
    EACH_VECTOR log1p_rest[w] = r[w].log1p_rest;
    ON(g, subtract_all, (x, sx, out, so, g, max, log1p_rest));
}

/* One value for each of `count` rows. */
INLINE void NAME(logsumexp_grid)(const REAL *x, ptrdiff_t sx, REAL *results, const Grid *g, ptrdiff_t count,
                                 NAME(Ahead) ahead, const int known) {
    V max[MOST_VECTORS], finite[MOST_VECTORS];
    NAME(Summary) r[MOST_VECTORS];
    ON(g, max_of, (x, sx, g, max));
    EACH_VECTOR finite[w] = NAME(nan_unless_finite)(max[w]);
    NAME(grid_summary)(x, sx, NULL, 0, g, finite, ahead, r, known);
    EACH_VECTOR {
        ptrdiff_t left = count - w * LANES;
        V result = max[w] + r[w].log1p_rest;
        NAME(mask) finite_max = NAME(equal)(finite[w], finite[w]), number = NAME(equal)(max[w], max[w]);
        if (NAME(any)((NAME(mask))~finite_max)) {
            for (ptrdiff_t j = 0; j < g->lines; j++) {
                V v = NAME(load_part)(x + j * sx + w * LANES, left, NAME(splat)(0));
                number &= NAME(equal)(v, v);
            }
            result = NAME(select)(finite_max, result, NAME(select)(number, max[w], NAME(splat)(NAN)));
        }
        NAME(store_part)(results + w * LANES, left, result);
    }
}

INLINE void NAME(softmax_vjp_grid)(const REAL *y, ptrdiff_t sy, const REAL *ct, ptrdiff_t sc, REAL *out, ptrdiff_t so,
                                   const Grid *g, NAME(Ahead) ahead, const int known) {
    NAME(Extremes) ends[MOST_VECTORS];
    NAME(Sum) sum[MOST_VECTORS];
    NAME(Centre) c[MOST_VECTORS];
    V dot[MOST_VECTORS];
    int how = 0;
    ON(g, survey_of, (y, sy, ct, sc, g, ahead.out, ends, sum));
    EACH_VECTOR how |= NAME(centre_of)(&ends[w], &c[w]);
    if (how) ON(g, dot_of, (y, sy, ct, sc, g, c, sum));
    EACH_VECTOR dot[w] = how & SCALED ? NAME(value)(sum[w]) : NAME(finite)(sum[w]);
    if (how & SCALED)
        ON(g, vjp_scaled, (y, sy, ct, sc, out, so, g, c, dot, (NAME(Ahead)){ahead.x, NULL}));
    else
        ON(g, vjp_all, (y, sy, ct, sc, out, so, g, c, dot, (NAME(Ahead)){ahead.x, NULL}));
}

INLINE void NAME(log_softmax_vjp_grid)(const REAL *logy, ptrdiff_t sy, const REAL *ct, ptrdiff_t sc, REAL *out,
                                       ptrdiff_t so, const Grid *g, const int known) {
    NAME(Sum) sum[MOST_VECTORS];
    V total[MOST_VECTORS];
    ON(g, sum_of, (ct, sc, g, sum));
    EACH_VECTOR total[w] = NAME(value)(sum[w]);
    ON(g, log_vjp_all, (logy, sy, ct, sc, out, so, g, total));
}

INLINE void NAME(log_softmax_jvp_grid)(const REAL *logy, ptrdiff_t sy, const REAL *t, ptrdiff_t st, REAL *out,
                                       ptrdiff_t so, const Grid *g, const int known) {
    NAME(Sum) sum[MOST_VECTORS];
    V dot[MOST_VECTORS], zero[MOST_VECTORS];
    ON(g, exp_dot_of, (logy, sy, t, st, g, sum));
    EACH_VECTOR {
        dot[w] = NAME(value)(sum[w]);
        zero[w] = NAME(splat)(0);
    }
    ON(g, subtract_all, (t, st, out, so, g, zero, dot));
}

/* What the labels of one vector of rows contribute. Ignored ones and lanes without a row have label -1. */
typedef struct {
    ptrdiff_t label[LANES];
    NAME(mask) ignored;
    V at, everywhere, x;
} NAME(AtLabel);

INLINE void NAME(look_up)(NAME(AtLabel) *a, const ptrdiff_t *labels, ptrdiff_t count, const Target *t, const REAL *x,
                          ptrdiff_t sx) {
    INT high[LANES]; /* the upper half of each label, where its sign is, or all of it */
    NAME(bits) sign;
    if (count >= LANES)
        memcpy(a->label, labels, sizeof a->label);
    else
        for (int l = 0; l < LANES; l++) a->label[l] = l < count ? labels[l] : -1;
    for (int l = 0; l < LANES; l++) high[l] = (INT)(a->label[l] >> 8 * (sizeof *labels - sizeof *high));
    memcpy(&sign, high, sizeof sign);
    a->ignored = NAME(is_negative)(sign);
    a->x = NAME(gather)(x, sx, a->label);
#define WEIGHT(l) (a->label[l] < 0 ? 0 : NAME(at_label)(t, a->label[l]))
#define EVERYWHERE(l) (a->label[l] < 0 ? 0 : ((const REAL *)t->everywhere)[a->label[l]])
    a->at = t->weight ? (V){NAME(EACH_LANE)(WEIGHT)} : NAME(splat)((REAL)t->at_label);
    a->everywhere = t->everywhere ? (V){NAME(EACH_LANE)(EVERYWHERE)} : NAME(splat)(0);
#undef WEIGHT
#undef EVERYWHERE
}

/* Put each lane of `v` at its label's entry. */
INLINE void NAME(put)(REAL *out, ptrdiff_t so, const NAME(AtLabel) *a, V v) {
    REAL lane[LANES];
    NAME(store)(lane, v);
    for (int l = 0; l < LANES; l++)
        if (a->label[l] >= 0) out[a->label[l] * so + l] = lane[l];
}

/* The gradients of rows from their exps, which they replace. */
INLINE void NAME(gradients_grid)(REAL *e, ptrdiff_t se, const Grid *g, const NAME(AtLabel) *a, const V *max,
                                 const NAME(Summary) *r, const Target *t, const int known) {
    const REAL *everywhere = t->everywhere, total = t->total, scale = t->scale;
    V dx_label[MOST_VECTORS], zero = NAME(splat)(0);
    NAME(Ratio) q[MOST_VECTORS];
    int ignored = 0;
    EACH_VECTOR {
        NAME(Ratio) per_exp = NAME(ratio)(NAME(product)(r[w].unit, r[w].inverse));
        V y_label = NAME(times)(NAME(gather)(e + w * LANES, se, a[w].label), per_exp);
        V one_minus = NAME(share)(r[w].rest, r[w].inverse);
        one_minus = NAME(select)(NAME(equal)(a[w].x, max[w]), one_minus, 1 - y_label);
        dx_label[w] = scale * ((total * y_label - a[w].everywhere) - a[w].at * one_minus);
        q[w] = NAME(multiple)(scale * (a[w].at + total), per_exp);
        ignored |= NAME(any)(a[w].ignored);
    }
    ON(g, times_all, (e, se, e, se, g, q));
    for (ptrdiff_t j = 0; (ignored || everywhere) && j < g->lines; j++)
        EACH_VECTOR {
            ptrdiff_t left = g->lanes - w * LANES;
            REAL *p = e + j * se + w * LANES;
            V dx = NAME(load_part)(p, left, zero);
            if (everywhere) dx -= scale * everywhere[j];
            NAME(store_part)(p, left, NAME(select)(a[w].ignored, zero, dx));
        }
    EACH_VECTOR NAME(put)(e + w * LANES, se, &a[w], dx_label[w]);
}

/* One loss for each of `count` rows; and the gradients into `out` unless that is NULL. Ignored rows have neither. */
INLINE void NAME(cross_entropy_grid)(const REAL *x, ptrdiff_t sx, REAL *out, ptrdiff_t so, REAL *losses, const Grid *g,
                                     const ptrdiff_t *labels, ptrdiff_t count, const Target *t, NAME(Ahead) ahead,
                                     const int known) {
    V max[MOST_VECTORS], spread[MOST_VECTORS], zero = NAME(splat)(0);
    NAME(AtLabel) a[MOST_VECTORS];
    NAME(Summary) r[MOST_VECTORS];
    ON(g, max_of, (x, sx, g, max));
    EACH_VECTOR {
        max[w] = NAME(nan_unless_finite)(max[w]);
        NAME(look_up)(&a[w], labels + w * LANES, count - w * LANES, t, x + w * LANES, sx);
    }
    if (t->everywhere) NAME(half_spread)(x, sx, g, max, t->everywhere, 0, spread);
    NAME(grid_summary)(x, sx, out, so, g, max, ahead, r, known);
    EACH_VECTOR {
        V loss = NAME(loss_at_label)(a[w].at, max[w], a[w].x, r[w].log1p_rest);
        if (t->everywhere) loss += 2 * spread[w] + (REAL)t->total * r[w].log1p_rest;
        NAME(store_part)(losses + w * LANES, count - w * LANES, NAME(select)(a[w].ignored, zero, loss));
    }
    if (out) NAME(gradients_grid)(out, so, g, a, max, r, t, known);
}

/* Any op of call.h but the Jacobian (rows.h): on a row whose label is `label`, into `out` or the one value
 * `result`; and on rows side by side, `count` of them, into `out` or one result each. `next` is where more rows come
 * from. */
static void NAME(row)(enum op op, const REAL *a, const REAL *b, REAL *out, REAL *result, ptrdiff_t n,
                      ptrdiff_t label, const Target *t) {
    switch (op) {
    case SOFTMAX: NAME(softmax_row)(a, out, n); break;
    case LOG_SOFTMAX: NAME(log_softmax_row)(a, out, n); break;
    case LOGSUMEXP: *result = NAME(logsumexp_row)(a, n); break;
    case SOFTMAX_VJP: NAME(softmax_vjp_row)(a, b, out, n); break;
    case LOG_SOFTMAX_VJP: NAME(log_softmax_vjp_row)(a, b, out, n); break;
    case LOG_SOFTMAX_JVP: NAME(log_softmax_jvp_row)(a, b, out, n); break;
    case SOFTMAX_JACOBIAN: break; /* rows.h: all rows at once */
    case CROSS_ENTROPY: *result = NAME(cross_entropy_row)(a, out, n, label, t); break;
    }
}

INLINE void NAME(any_grid)(enum op op, const REAL *a, ptrdiff_t sa, const REAL *b, ptrdiff_t sb, REAL *out,
                           ptrdiff_t so, REAL *results, const Grid *g, const ptrdiff_t *labels, ptrdiff_t count,
                           const Target *t, const REAL *next, const REAL *next_out, const int known) {
    NAME(Ahead) ahead = {next, next_out};
    switch (op) {
    case SOFTMAX: NAME(softmax_grid)(a, sa, out, so, g, ahead, known); break;
    case LOG_SOFTMAX: NAME(log_softmax_grid)(a, sa, out, so, g, ahead, known); break;
    case LOGSUMEXP: NAME(logsumexp_grid)(a, sa, results, g, count, ahead, known); break;
    case SOFTMAX_VJP: NAME(softmax_vjp_grid)(a, sa, b, sb, out, so, g, ahead, known); break;
    case LOG_SOFTMAX_VJP: NAME(log_softmax_vjp_grid)(a, sa, b, sb, out, so, g, known); break;
    case LOG_SOFTMAX_JVP: NAME(log_softmax_jvp_grid)(a, sa, b, sb, out, so, g, known); break;
    case CROSS_ENTROPY: NAME(cross_entropy_grid)(a, sa, out, so, results, g, labels, count, t, ahead, known); break;
    case SOFTMAX_JACOBIAN: break;
    }
}

static void NAME(grid)(enum op op, const REAL *a, ptrdiff_t sa, const REAL *b, ptrdiff_t sb, REAL *out, ptrdiff_t so,
                       REAL *results, const Grid *g, const ptrdiff_t *labels, ptrdiff_t count, const Target *t,
                       const REAL *next, const REAL *next_out) {
    NAME(any_grid)(op, a, sa, b, sb, out, so, results, g, labels, count, t, next, next_out, 0);
}
