/* One contiguous row of n entries at a time. `out` may be an input. */

static void NAME(fill)(REAL *out, ptrdiff_t n, REAL a) {
    for (ptrdiff_t j = 0; j < n; j++) out[j] = a;
}

INLINE V NAME(all_lanes)(NAME(Sum) sum) { return NAME(value)(NAME(of_all_lanes)(sum)); }

/* Where the next row is, to look ahead to. Longer ones the hardware fetches in time, and they would push this
 * one out of the cache. */
INLINE const REAL *NAME(next)(const REAL *row, ptrdiff_t n) {
    return row && n * (ptrdiff_t)sizeof(REAL) <= 256 * 1024 ? row + n : NULL;
}

/* The maximum of a row in every lane, NaN passed over. */
INLINE V NAME(row_max)(const REAL *x, ptrdiff_t n) {
    V max;
    PASS_NAME(max_of_row)(x, LANES, ROW_GRID(n), &max);
    return NAME(splat)(NAME(max_lane)(max));
}

/* The sum of a row in float64, added exactly: as good as rounded once. Of infinities, what they make. */
static double NAME(exact_sum)(const REAL *x, ptrdiff_t n) {
    enum { SIDE_BY_SIDE = 16 };
    double hi[SIDE_BY_SIDE] = {0}, lo[SIDE_BY_SIDE] = {0}, sum = 0, rest = 0, plain = 0;
    ptrdiff_t j = 0;
    for (; n - j >= SIDE_BY_SIDE; j += SIDE_BY_SIDE)
        for (int i = 0; i < SIDE_BY_SIDE; i++) {
            double a = x[j + i], s = hi[i] + a, b = s - hi[i];
            lo[i] += (hi[i] - (s - b)) + (a - b);
            hi[i] = s;
        }
    for (ptrdiff_t i = 0; i < SIDE_BY_SIDE + n - j; i++) {
        double a = i < SIDE_BY_SIDE ? hi[i] : x[j + i - SIDE_BY_SIDE], s = sum + a, b = s - sum;
        rest += (sum - (s - b)) + (a - b) + (i < SIDE_BY_SIDE ? lo[i] : 0);
        sum = s;
        plain += a;
    }
    return isfinite(sum) ? sum + rest : plain;
}

static void NAME(softmax_row)(const REAL *x, REAL *out, ptrdiff_t n) {
    const Grid *g = ROW_GRID(n);
    V max = NAME(row_max)(x, n);
    if (!isfinite(max[0])) {
        NAME(fill)(out, n, NAN);
        return;
    }
    NAME(Shift) s = NAME(shift_by)(max);
    NAME(Sum) sum;
    NAME(exps_of)(x, LANES, out, LANES, g, &s, (NAME(Ahead)){NAME(next)(x, n), NAME(next)(out, n)}, &sum, NULL, 0);
    NAME(Ratio) q = NAME(inverse)(NAME(pair_of)(NAME(of_all_lanes)(sum)));
    PASS_NAME(times_all_row)(out, LANES, out, LANES, g, &q);
}

/* What log-type ops need of rows, `rest` being the sum of exp(x_j - max) without one maximum: rest, log(1 + rest),
 * 1 / (1 + rest), and what makes exp(x_j - max) of a biased exp. */
typedef struct {
    V log1p_rest;
    NAME(Pair) rest;
    NAME(Ratio) inverse;
    NAME(Pair) unit;
} NAME(Summary);

/* From the sum that leaves the maxima out, and their number. */
INLINE NAME(Summary) NAME(summary)(const NAME(Shift) *s, NAME(Sum) sum, NAME(Sum) maxima) {
    const NAME(Pair) one = {NAME(splat)(1), NAME(splat)(0)}, less_one = {NAME(splat)(-1), NAME(splat)(0)};
    NAME(Pair) unit = NAME(per_biased)(s), rest = NAME(product)(NAME(pair_of)(sum), NAME(ratio)(unit));
    if (NAME(any)(NAME(greater)(NAME(finite)(maxima), one.hi))) /* seldom; where there are no ties it changes nothing */
        rest = NAME(plus)(rest, NAME(plus)(NAME(pair_of)(maxima), less_one));
    NAME(Pair) more = NAME(two_sum)(one.hi, rest.hi);
    NAME(Ratio) inverse = NAME(inverse)((NAME(Pair)){more.hi, more.lo + rest.lo});
    return (NAME(Summary)){NAME(log1p)(rest, more, inverse.hi), rest, inverse, unit};
}

static NAME(Summary) NAME(row_summary)(const REAL *x, REAL *e, ptrdiff_t n, V max, const REAL *next_out) {
    NAME(Shift) s = NAME(shift_by)(max);
    NAME(Sum) sum, maxima;
    NAME(Ahead) ahead = {NAME(next)(x, n), next_out};
    NAME(exps_of)(x, LANES, e, LANES, ROW_GRID(n), &s, ahead, &sum, &maxima, 0);
    return NAME(summary)(&s, NAME(of_all_lanes)(sum), NAME(of_all_lanes)(maxima));
}

static void NAME(log_softmax_row)(const REAL *x, REAL *out, ptrdiff_t n) {
    V max = NAME(row_max)(x, n);
    if (!isfinite(max[0])) {
        NAME(fill)(out, n, NAN);
        return;
    }
    NAME(Summary) r = NAME(row_summary)(x, NULL, n, max, out);
    /* log y_j = (x_j - max) - log(1 + rest) */
    PASS_NAME(subtract_all_row)(x, LANES, out, LANES, ROW_GRID(n), &max, &r.log1p_rest);
}

static REAL NAME(logsumexp_row)(const REAL *x, ptrdiff_t n) {
    V max = NAME(row_max)(x, n);
    if (!isfinite(max[0])) {
        for (ptrdiff_t j = 0; j < n; j++)
            if (isnan(x[j])) return NAN;
        return max[0];
    }
    /* log(1 + rest) may have an error of eps beside a maximum of 1, so there the sum may hold the maximum. */
    if (max[0] > -1 && max[0] < 1) return max[0] + NAME(row_summary)(x, NULL, n, max, NULL).log1p_rest[0];
    NAME(Shift) s = NAME(shift_by)(max);
    NAME(Sum) sum;
    NAME(exps_of)(x, LANES, NULL, 0, ROW_GRID(n), &s, (NAME(Ahead)){NAME(next)(x, n), NULL}, &sum, NULL, 0);
    NAME(Pair) all = NAME(product)(NAME(pair_of)(NAME(of_all_lanes)(sum)), NAME(ratio)(NAME(per_biased)(&s)));
    NAME(Pair) rest = NAME(plus)(all, (NAME(Pair)){NAME(splat)(-1), NAME(splat)(0)});
    NAME(Pair) more = NAME(two_sum)(NAME(splat)(1), rest.hi);
    return max[0] + NAME(log1p)(rest, more, NAME(reciprocal)(more.hi))[0];
}

/* dx_i = y_i * (g_i - sum_j g_j y_j) is unchanged by g - c: the cotangent of a dominant entry as c keeps the
 * digits of a saturated row; else the value nearest 0 between the extremes of g, which is g if g is constant.
 * Mostly that is 0, and the sum is known from the look at the extremes. Where the extremes are so far apart that
 * differences overflow, all is computed of an eighth of the cotangent. Returns which of that a row is. */
INLINE int NAME(centre_of)(const NAME(Extremes) *ends, NAME(Centre) *c) {
    const V zero = NAME(splat)(0), one = NAME(splat)(1);
    V nearest = NAME(max)(ends->least, NAME(min)(ends->most, zero));
    c->scale = one;
    c->centre = NAME(select)(NAME(greater)(ends->y_max, NAME(splat)((REAL)0.5)), ends->at_max, nearest);
    int how = NAME(any)((NAME(mask))~NAME(equal)(c->centre, zero)) ? CENTRED : 0;
    NAME(mask) far_apart = NAME(greater)(ends->most - ends->least, NAME(splat)(MAX_REAL / 8));
    if (!NAME(any)(far_apart)) return how;
    c->scale = NAME(select)(far_apart, one / 8, one);
    c->centre *= c->scale;
    return how | SCALED;
}

static void NAME(softmax_vjp_row)(const REAL *y, const REAL *ct, REAL *out, ptrdiff_t n) {
    const Grid *g = ROW_GRID(n);
    NAME(Extremes) ends;
    NAME(Sum) sum;
    PASS_NAME(survey_of_row)(y, LANES, ct, LANES, g, out, &ends, &sum);
    NAME(Extremes) row = {NAME(splat)(NAME(max_lane)(ends.y_max)), ends.at_max, NAME(splat)(NAME(max_lane)(ends.most)),
                          NAME(splat)(-NAME(max_lane)(-ends.least))};
    for (int i = 0; i < LANES; i++)
        if (ends.y_max[i] == row.y_max[0]) row.at_max = NAME(splat)(ends.at_max[i]);
    NAME(Centre) c;
    int how = NAME(centre_of)(&row, &c);
    if (how) PASS_NAME(dot_of_row)(y, LANES, ct, LANES, g, &c, &sum);
    V dot = NAME(all_lanes)(sum);
    NAME(Ahead) ahead = {NAME(next)(y, n), NAME(next)(ct, n)};
    if (how & SCALED)
        PASS_NAME(vjp_scaled_row)(y, LANES, ct, LANES, out, LANES, g, &c, &dot, ahead);
    else
        PASS_NAME(vjp_all_row)(y, LANES, ct, LANES, out, LANES, g, &c, &dot, ahead);
}

/* dx_i = g_i - exp(logy_i) * sum_j g_j */
static void NAME(log_softmax_vjp_row)(const REAL *logy, const REAL *ct, REAL *out, ptrdiff_t n) {
    const Grid *g = ROW_GRID(n);
    NAME(Sum) sum;
    PASS_NAME(sum_of_row)(ct, LANES, g, &sum);
    V total = NAME(all_lanes)(sum);
    PASS_NAME(log_vjp_all_row)(logy, LANES, ct, LANES, out, LANES, g, &total);
}

/* d(log y)_i = t_i - sum_j exp(logy_j) * t_j */
static void NAME(log_softmax_jvp_row)(const REAL *logy, const REAL *t, REAL *out, ptrdiff_t n) {
    const Grid *g = ROW_GRID(n);
    NAME(Sum) sum;
    PASS_NAME(exp_dot_of_row)(logy, LANES, t, LANES, g, &sum);
    V dot = NAME(all_lanes)(sum), zero = NAME(splat)(0);
    PASS_NAME(subtract_all_row)(t, LANES, out, LANES, g, &zero, &dot);
}

/* The sum of all entries but the one at k. */
INLINE REAL NAME(sum_without)(const REAL *y, ptrdiff_t n, ptrdiff_t k) {
    NAME(Sum) before, after;
    PASS_NAME(sum_of_row)(y, LANES, ROW_GRID(k), &before);
    PASS_NAME(sum_of_row)(y + k + 1, LANES, ROW_GRID(n - k - 1), &after);
    return NAME(all_lanes)(NAME(joined)(before, after))[0];
}

/* Lines that are about to be written are asked for 2 KB before: stores wait for theirs one after the other. */
#define STORES_AHEAD ((ptrdiff_t)(2048 / sizeof(REAL)))

/* Up to so many entries a row stays in registers. */
#define SHORT_MATRIX 16

/* So many entries a row, or fewer: faster by permutations, each of which AVX-512 has in one instruction. */
#define TINY_MATRIX (VECTOR_BYTES == 64 ? 3 * LANES / 4 : LANES / 2)

/* The sum of the n entries of `wide` vectors, in each of the first n lanes: of 8 as a tree of three roundings, for which
 * the bound of the diagonal has room (docs/numerics.md), at a third of the time. */
INLINE V NAME(sum_of_entries)(const V *v, const int wide, ptrdiff_t n) {
    if (n > 8) {
        NAME(Sum) sum = NAME(sum_from)(0);
        for (int w = 0; w < wide; w++) NAME(add)(&sum, v[w]);
        return NAME(all_lanes)(sum);
    }
    V s = wide == 4 ? (v[0] + v[2]) + (v[1] + v[3]) : wide == 2 ? v[0] + v[1] : v[0];
    for (int distance = LANES < 8 ? LANES / 2 : 4; distance; distance /= 2) s += NAME(partners)(s, distance);
    return s;
}

/* J_ij = y_i * ((i == j) - y_j) of rows that are one vector: a matrix is written as one row of n * n entries, products
 * of two permutations. 1 - y_i of a dominant entry is the sum of the others. */
INLINE void NAME(tiny_jacobians)(const REAL *y, REAL *out, ptrdiff_t rows, ptrdiff_t n) {
    const V zero = NAME(splat)(0), half = NAME(splat)((REAL)0.5);
    const ptrdiff_t size = n * n, vectors = (size + LANES - 1) / LANES, last = size < LANES ? 0 : size - LANES;
    NAME(bits) first[LANES], second[LANES]; /* which y_i, and which -y_j or 1 - y_i, for each lane of a vector */
    for (ptrdiff_t k = 0; k < vectors; k++)
        for (INT l = 0; l < LANES; l++) {
            INT at = (INT)(k * LANES < last ? k * LANES : last) + l, i = at / (INT)n, j = at % (INT)n;
            first[k][l] = i;
            second[k][l] = i == j ? i + (INT)LANES : j;
        }
    for (; rows; rows--, y += n, out += size) {
        V v = NAME(load_part)(y, n, zero), small = NAME(select)(NAME(greater)(v, half), zero, v);
        V others = NAME(sum_of_entries)(&small, 1, n);
        V complement = NAME(select)(NAME(greater)(v, half), others, 1 - v);
        for (ptrdiff_t k = 0; k < vectors; k++) {
            REAL *at = out + (k * LANES < last ? k * LANES : last);
            V j = NAME(entries)(v, v, first[k]) * NAME(entries)(-v, complement, second[k]);
            __builtin_prefetch(at + STORES_AHEAD, 1);
            if (size < LANES)
                NAME(store_part)(at, size, j);
            else
                NAME(store)(at, j);
        }
    }
}

/* The same of rows that are `wide` vectors. */
INLINE void NAME(short_jacobians)(const REAL *y, REAL *out, ptrdiff_t rows, ptrdiff_t n, const int wide) {
    const V zero = NAME(splat)(0), half = NAME(splat)((REAL)0.5);
    for (; rows; rows--, y += n, out += n * n) {
        V v[SHORT_MATRIX], small[SHORT_MATRIX], diagonal[SHORT_MATRIX];
        for (int w = 0; w < wide; w++) {
            v[w] = NAME(load_part)(y + w * LANES, n - w * LANES, zero);
            small[w] = NAME(select)(NAME(greater)(v[w], half), zero, v[w]);
        }
        V others = NAME(sum_of_entries)(small, wide, n);
        for (int w = 0; w < wide; w++)
            diagonal[w] = v[w] * NAME(select)(NAME(greater)(v[w], half), others, 1 - v[w]);
#pragma GCC unroll 16 /* then the lanes of the diagonal are constants: 20 -> 14 us for (1000, 5) at v3 */
        for (int i = 0; i < wide * LANES; i++) {
            if (i >= n) break;
            for (int w = 0; w < wide; w++) {
                REAL *at = out + i * n + w * LANES;
                NAME(mask) here = NAME(only_lane)(i - w * LANES);
                __builtin_prefetch(at + STORES_AHEAD, 1);
                NAME(store_part)(at, n - w * LANES, NAME(select)(here, diagonal[w], -y[i] * v[w]));
            }
        }
    }
}

/* The same of a longer row. */
INLINE void NAME(long_jacobian)(const REAL *y, REAL *out, ptrdiff_t n) {
    for (ptrdiff_t i = 0; i < n; i++) {
        V minus = NAME(splat)(-y[i]);
        REAL *row = out + i * n;
        ptrdiff_t j = 0;
        for (; j + LANES <= n; j += LANES) {
            __builtin_prefetch(row + j + STORES_AHEAD, 1);
            NAME(store)(row + j, minus * NAME(load)(y + j));
        }
        if (j < n) NAME(store_part)(row + j, n - j, minus * NAME(load_part)(y + j, n - j, NAME(splat)(0)));
        row[i] = y[i] * (y[i] > (REAL)0.5 ? NAME(sum_without)(y, n, i) : 1 - y[i]);
    }
}

static void NAME(softmax_jacobians)(const REAL *y, REAL *out, ptrdiff_t rows, ptrdiff_t n) {
    ptrdiff_t vectors = (n + LANES - 1) / LANES;
    if (n <= TINY_MATRIX)
        NAME(tiny_jacobians)(y, out, rows, n);
    else if (vectors == 1)
        NAME(short_jacobians)(y, out, rows, n, 1);
    else if (vectors == 2 && 2 * LANES <= SHORT_MATRIX)
        NAME(short_jacobians)(y, out, rows, n, 2);
    else if (vectors <= 4 && 4 * LANES <= SHORT_MATRIX)
        NAME(short_jacobians)(y, out, rows, n, 4);
    else
        for (ptrdiff_t i = 0; i < rows; i++) NAME(long_jacobian)(y + i * n, out + i * n * n, n);
}

/* A cross-entropy is at_label * nll[label] + sum_j everywhere[j] * nll[j], as PyTorch defines it, with
 * nll_j = (max - x_j) + log(1 + rest): `Target` (call.h) says how they are weighed. */
INLINE REAL NAME(at_label)(const Target *t, ptrdiff_t label) {
    return (REAL)(t->weight ? t->at_label * ((const REAL *)t->weight)[label] : t->at_label);
}

/* Half of sum_j everywhere[j] * (max - x_j), since the difference of halves does not overflow; a class of weight 0 takes
 * no part, whatever its logit. `everywhere` lies along a row, or holds an entry for each line of rows side by side. */
static void NAME(half_spread)(const REAL *x, ptrdiff_t sx, const Grid *g, const V *max, const REAL *everywhere,
                              int along, V *spread) {
    NAME(Sum) sum[MOST_VECTORS], part[MOST_VECTORS];
    EACH_VECTOR sum[w] = part[w] = NAME(sum_from)(0);
    for (ptrdiff_t j = 0; j < g->lines + (g->tail > 0); j++)
        EACH_VECTOR {
            ptrdiff_t left = (j < g->lines ? g->lanes : g->tail) - w * LANES;
            V v = NAME(load_part)(x + j * sx + w * LANES, left, NAME(splat)(0));
            V u = along ? NAME(load_part)(everywhere + j * LANES, left, NAME(splat)(0)) : NAME(splat)(everywhere[j]);
            V term = u * (max[w] / 2 - v / 2);
            NAME(add)(&part[w], NAME(select)(NAME(equal)(u, NAME(splat)(0)), u, term));
            if (j % CHUNK == CHUNK - 1) {
                sum[w] = NAME(joined)(sum[w], part[w]);
                part[w] = NAME(sum_from)(0);
            }
        }
    EACH_VECTOR sum[w] = NAME(joined)(sum[w], part[w]);
    EACH_VECTOR spread[w] = NAME(value)(along ? NAME(of_all_lanes)(sum[w]) : sum[w]);
}

/* at_label * nll of the label, by halves where the difference of the logits overflows: at_label may be small. A factor of
 * 0 makes it 0 whatever the logit. */
INLINE V NAME(loss_at_label)(V at_label, V max, V x_label, V log1p_rest) {
    V d = max - x_label, loss = at_label * (d + log1p_rest);
    NAME(mask) finite = NAME(less)(d, NAME(splat)(INFINITY)), nothing = NAME(equal)(at_label, NAME(splat)(0));
    if (NAME(any)((NAME(mask))~finite))
        loss = NAME(select)(finite, loss, 2 * (at_label * (max / 2 - x_label / 2)));
    return NAME(select)(nothing, at_label * log1p_rest, loss);
}

/* The loss; and the gradient into `out` unless that is NULL: d loss / d x_j = y_j * (at_label + total)
 * - everywhere_j - (j == label) * at_label, with 1 - y of the largest formed from the others. */
static REAL NAME(cross_entropy_row)(const REAL *x, REAL *out, ptrdiff_t n, ptrdiff_t label, const Target *t) {
    const REAL *everywhere = t->everywhere, total = t->total, scale = t->scale;
    if (label < 0) { /* ignored */
        if (out) NAME(fill)(out, n, 0);
        return 0;
    }
    REAL x_label = x[label], at_label = NAME(at_label)(t, label);
    V max = NAME(row_max)(x, n);
    if (!isfinite(max[0])) {
        if (out) NAME(fill)(out, n, NAN);
        return NAN;
    }
    V spread = NAME(splat)(0);
    if (everywhere) NAME(half_spread)(x, LANES, ROW_GRID(n), &max, everywhere, 1, &spread);
    NAME(Summary) r = NAME(row_summary)(x, out, n, max, NAME(next)(out, n));
    if (out) {
        NAME(Ratio) per_exp = NAME(ratio)(NAME(product)(r.unit, r.inverse));
        REAL y_label = NAME(times)(NAME(splat)(out[label]), per_exp)[0];
        REAL one_minus = x_label == max[0] ? NAME(share)(r.rest, r.inverse)[0] : 1 - y_label;
        NAME(Ratio) q = NAME(multiple)(NAME(splat)(scale * (at_label + total)), per_exp);
        PASS_NAME(times_all_row)(out, LANES, out, LANES, ROW_GRID(n), &q);
        for (ptrdiff_t j = 0; everywhere && j < n; j++) out[j] -= scale * everywhere[j];
        out[label] = scale * ((total * y_label - (everywhere ? everywhere[label] : 0)) - at_label * one_minus);
    }
    REAL loss = NAME(loss_at_label)(NAME(splat)(at_label), max, NAME(splat)(x_label), r.log1p_rest)[0];
    return everywhere ? loss + (2 * spread[0] + total * r.log1p_rest[0]) : loss;
}
