/* Contiguous rows of so few entries that the compiler knows them: panels stay in registers as far as there are any. One op
 * a unit (unit.c): 1.2 to 4 times as fast at n = 2, up to 1.5 times at 10; at 16 softmax gains nothing
 * (docs/performance.md). Each length takes half a second to compile. */

INLINE ptrdiff_t NAME(tiles)(const Call *c, const REAL *a, const REAL *b, REAL *out, REAL *results, const ptrdiff_t n) {
    const ptrdiff_t count = TILE * LANES, rows = c->s.outer;
    const Grid g = {n, count, 0, TALL};
    REAL p[n * count], q[n * count];
    ptrdiff_t i = 0;
    for (; rows - i >= count; i += count) {
        NAME(rows_to_panel)(a + i * n, n, count, p, count);
        if (b) NAME(rows_to_panel)(b + i * n, n, count, q, count);
        NAME(any_grid)(OP, p, count, q, count, out ? p : NULL, count, results ? results + i : NULL, &g,
                       c->labels ? c->labels + i : NULL, count, &c->target, a + (i + count) * n,
                       out ? out + i * n : NULL, 1);
        if (out) NAME(panel_to_rows)(p, count, n, count, out + i * n);
    }
    return i;
}

#define TILES_OF(n)                                                                                        \
    PASS ptrdiff_t NAME(tiles_of_##n)(const Call *c, const REAL *a, const REAL *b, REAL *out, REAL *results) { \
        return NAME(tiles)(c, a, b, out, results, n);                                                      \
    }
#define CASE_OF(n)                                                                                         \
    case n: return NAME(tiles_of_##n)(c, a, b, out, results);
#define EACH_LENGTH(DO) DO(1) DO(2) DO(3) DO(4) DO(5) DO(6) DO(7) DO(8) DO(9) DO(10)

EACH_LENGTH(TILES_OF)

ptrdiff_t KNOWN_TILES(OP)(const Call *c, const REAL *a, const REAL *b, REAL *out, REAL *results) {
    switch (c->s.n) { EACH_LENGTH(CASE_OF) }
    return 0;
}
