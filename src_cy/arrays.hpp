/* The arrays of a call, and rows of them; and a panel of contiguous rows gone through an op. Uses panels.hpp, ops.hpp. */
#pragma once
#include "ops.hpp"
#include "panels.hpp"

namespace {
/* NULL stands for what the op does without. */
template <class R> struct Arrays {
    const R *a, *b;
    R *out, *results;
};

template <class R> INLINE Arrays<R> arrays_of(const Call *c) {
    return {(const R *)c->a, (const R *)c->b, (R *)c->out, (R *)c->results};
}

template <class T> INLINE T *moved(T *p, ptrdiff_t by) { return p ? p + by : nullptr; }

/* `count` contiguous rows from row i through run(rows), by way of the panels p and q of `g`, which may have more lanes
 * than there are rows. */
template <class R, class Run>
INLINE void through_panels(const Call *c, const Arrays<R> &x, ptrdiff_t i, const ptrdiff_t n, const ptrdiff_t count,
                           const Grid &g, R *p, R *q, Run run) {
    R *out = moved(x.out, i * n);
    rows_to_panel(x.a + i * n, n, count, p, g.lanes);
    if (x.b) rows_to_panel(x.b + i * n, n, count, q, g.lanes);
    run(Rows<R>{g, {p, g.lanes}, {q, g.lanes}, {out ? p : nullptr, g.lanes}, moved(x.results, i), moved(c->labels, i),
                count, &c->target, {x.a + (i + count) * n, out}});
    if (out) panel_to_rows(p, g.lanes, n, count, out);
}
} // namespace
