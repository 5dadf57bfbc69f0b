/* A call as rows, panels or columns, which n and inner alone choose, so that a row has the same bits alone and in a batch:
 *
 * * rows:    inner == 1 and a row of more than SHORT_BYTES: one at a time, vectorised along the row (rows.h);
 * * panels:  inner == 1 and shorter rows: a row in each vector lane, transposed in and out (lanes.h);
 * * columns: inner > 1: a row in each vector lane, as memory lies. */

static void NAME(run_rows)(const Call *c, const REAL *a, const REAL *b, REAL *out, REAL *results) {
    for (ptrdiff_t i = 0, n = c->s.n; i < c->s.outer; i++)
        NAME(row)(c->op, a + i * n, b ? b + i * n : NULL, out ? out + i * n : NULL, results ? results + i : NULL, n,
                  c->labels ? c->labels[i] : 0, &c->target);
}

#define DECLARE(op)                                                                                        \
    ptrdiff_t KNOWN_TILES(op)(const Call *, const REAL *a, const REAL *b, REAL *out, REAL *results);
DECLARE(SOFTMAX) DECLARE(LOG_SOFTMAX) DECLARE(SOFTMAX_VJP) DECLARE(CROSS_ENTROPY)
#undef DECLARE

/* Whole tiles of rows of so few entries that these were compiled for them (tiles.h); returns how many rows that was. */
static ptrdiff_t NAME(known_tiles)(const Call *c, const REAL *a, const REAL *b, REAL *out, REAL *results) {
    if (c->s.outer < TILE * LANES) return 0;
    switch (c->op) {
    case SOFTMAX: return KNOWN_TILES(SOFTMAX)(c, a, b, out, results);
    case LOG_SOFTMAX: return KNOWN_TILES(LOG_SOFTMAX)(c, a, b, out, results);
    case SOFTMAX_VJP: return KNOWN_TILES(SOFTMAX_VJP)(c, a, b, out, results);
    case CROSS_ENTROPY: return KNOWN_TILES(CROSS_ENTROPY)(c, a, b, out, results);
    default: return 0;
    }
}

static void NAME(run_panels)(const Call *c, const REAL *a, const REAL *b, REAL *out, REAL *results) {
    enum { PANEL = PANEL_BYTES / sizeof(REAL) };
    REAL panels[2 * PANEL] __attribute__((aligned(64))), *p = panels, *q = panels + PANEL;
    const ptrdiff_t n = c->s.n;
    const int fits = TILE * n * VECTOR_BYTES <= PANEL_BYTES;
    for (ptrdiff_t count, i = NAME(known_tiles)(c, a, b, out, results); i < c->s.outer; i += count) {
        const int is_tall = fits && c->s.outer - i > 2 * LANES;
        const Grid g = {n, is_tall ? TILE * LANES : LANES, 0, is_tall ? TALL : ROW}; /* perhaps more lanes than rows */
        count = g.lanes < c->s.outer - i ? g.lanes : c->s.outer - i;
        NAME(rows_to_panel)(a + i * n, n, count, p, g.lanes);
        if (b) NAME(rows_to_panel)(b + i * n, n, count, q, g.lanes);
        NAME(grid)(c->op, p, g.lanes, q, g.lanes, out ? p : NULL, g.lanes, results ? results + i : NULL, &g,
                   c->labels ? c->labels + i : NULL, count, &c->target, a + (i + count) * n, out ? out + i * n : NULL);
        if (out) NAME(panel_to_rows)(p, g.lanes, n, count, out + i * n);
    }
}

/* How many columns are gone over together: equal shares, in whole tiles. */
static ptrdiff_t NAME(strip_width)(const Layout *s) {
    const ptrdiff_t tile = TILE * LANES, most = STRIP_BYTES / (ptrdiff_t)sizeof(REAL);
    const ptrdiff_t strips = (s->inner + most - 1) / most;
    if (s->n <= FEW_LINES) return tile;
    return ((s->inner + strips - 1) / strips + tile - 1) / tile * tile;
}

static void NAME(run_columns)(const Call *c, const REAL *a, const REAL *b, REAL *out, REAL *results) {
    const ptrdiff_t strip = NAME(strip_width)(&c->s);
    for (ptrdiff_t o = 0; o < c->s.outer; o++)
        for (ptrdiff_t i = 0; i < c->s.inner;) {
            Grid g = {c->s.n, c->s.inner - i < strip ? c->s.inner - i : strip, 0, NARROW};
            g.kind = g.lanes == TILE * LANES ? TALL : g.lanes > LANES ? WIDE : NARROW;
            NAME(grid)(c->op, a + o * c->s.outer_stride + i, c->s.n_stride, b ? b + o * c->sb.outer_stride + i : NULL,
                       c->sb.n_stride, out ? out + o * c->so.outer_stride + i : NULL, c->so.n_stride,
                       results ? results + o * c->results_stride + i : NULL, &g,
                       c->labels ? c->labels + o * c->labels_stride + i : NULL, g.lanes, &c->target, NULL, NULL);
            i += g.lanes;
        }
}

static void NAME(run)(const Call *c) {
    const REAL *a = c->a, *b = c->b;
    REAL *out = c->out, *results = c->results;
    if (c->op == SOFTMAX_JACOBIAN)
        NAME(softmax_jacobians)(a, out, c->s.outer, c->s.n);
    else if (c->s.inner > 1 || (c->s.n > 1 && c->s.n_stride > 1))
        NAME(run_columns)(c, a, b, out, results);
    else if (c->s.n * (ptrdiff_t)sizeof(REAL) <= SHORT_BYTES)
        NAME(run_panels)(c, a, b, out, results);
    else
        NAME(run_rows)(c, a, b, out, results);
}
