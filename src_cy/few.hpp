/* Contiguous rows of so few entries that the compiler knows them: panels stay in registers as far as there are any. One op
 * a unit (unit.cpp): 1.2 to 4 times as fast at n = 2, up to 1.5 times at 10; at 16 softmax gains nothing
 * (docs/performance.md). Each length takes half a second to compile. Uses arrays.hpp. */
#pragma once
#include "arrays.hpp"

/* Whole tiles of rows of so few entries; returns how many rows that was. */
template <class Level, enum op which, class R> ptrdiff_t few(const Call *c);

namespace {
template <enum op which, int n, class R> PASS ptrdiff_t tiles_of_rows(const Call *c, const Arrays<R> &all) {
    constexpr ptrdiff_t count = TILE * LANES<R>;
    const Grid g = {n, count, 0, TALL};
    R p[n * count], q[n * count];
    const Arrays<R> x = {all.a, all.b, all.out, all.results, all.samples, n, n};
    ptrdiff_t i = 0;
    for (; c->s.outer - i >= count; i += count)
        through_panels(c, x, i, n, count, g, p, q, [](const Rows<R> &rows) ALWAYS { Op<which>::template grid<true>(rows); });
    return i;
}
} // namespace
