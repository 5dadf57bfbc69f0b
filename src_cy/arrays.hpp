/* The arrays of a call, and rows of them; and a panel of contiguous rows gone through an op. Uses panels.hpp, ops.hpp. */
#pragma once
#include "ops.hpp"
#include "panels.hpp"

namespace {
/* NULL stands for what the op does without. Rows of the inputs may lie apart, those of the result do not. */
template <class R> struct Arrays {
    const R *a, *b;
    R *out, *results;
    const R *samples;
    ptrdiff_t a_stride, b_stride;
};

template <class R> INLINE Arrays<R> arrays_of(const Call *c) {
    return {(const R *)c->a,       (const R *)c->b,   (R *)c->out,                       (R *)c->results,
            (const R *)c->samples, c->s.outer_stride, c->b ? c->sb.outer_stride : 0};
}

template <class T> INLINE T *moved(T *p, ptrdiff_t by) { return p ? p + by : nullptr; }

/* `count` contiguous rows from row i through run(rows), by way of the panels p and q of `g`, which may have more lanes
 * than there are rows. */
template <class R, class Run>
INLINE void through_panels(const Call *c, const Arrays<R> &x, ptrdiff_t i, const ptrdiff_t n, const ptrdiff_t count,
                           const Grid &g, R *p, R *q, Run run) {
    R *out = moved(x.out, i * n);
    rows_to_panel(x.a + i * x.a_stride, x.a_stride, n, count, p, g.lanes);
    if (x.b) rows_to_panel(x.b + i * x.b_stride, x.b_stride, n, count, q, g.lanes);
    run(Rows<R>{g, {p, g.lanes}, {q, g.lanes}, {out ? p : nullptr, g.lanes}, moved(x.results, i), moved(c->labels, i),
                moved(x.samples, i), count, c, {x.a + (i + count) * x.a_stride, out}});
    if (out) panel_to_rows(p, g.lanes, n, count, out);
}
} // namespace
