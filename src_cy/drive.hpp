/* A call as rows, panels or columns, which n and inner alone choose, so that a row has the same bits alone and in a batch:
 *
 * * rows:    inner == 1 and a row of more than SHORT_BYTES: one at a time, vectorised along the row;
 * * panels:  inner == 1 and shorter rows: a row in each vector lane, transposed in and out (panels.hpp);
 * * columns: inner > 1: a row in each vector lane, as memory lies. Short rows that lie across are such columns of the inputs,
 *            and panels of the result.
 *
 * Uses few.hpp. */
#pragma once
#include "few.hpp"

namespace {
/* Bytes of a panel of short rows, which stays in the L1 cache; and of a line of strided ones, which one entry of the TLB
 * serves, with the passes' state in L1; and lines so few that the TLB holds their pages all at once: a tile at a time. */
constexpr ptrdiff_t PANEL_BYTES = 16 * 1024, STRIP_BYTES = 4096, FEW_LINES = 16, EARLY_BYTES = 4096;

/* Rows one after the other. Where one waits for its sums, a dozen steps of which each waits for the one before, the next one is begun:
 * rows of 4 KB take 0.9 of the time. Those of 8 KB leave the L1 cache meanwhile, and take 1.07. */
template <class Of, class R> void run_each(const Call *c, const Arrays<R> &x, ptrdiff_t first, bool in_order) {
    const ptrdiff_t n = c->s.n;
    const bool is_early = n * (ptrdiff_t)sizeof(R) <= EARLY_BYTES;
    const auto row_of = [&](ptrdiff_t i) ALWAYS {
        return Row<R>{x.a + i * x.a_stride, moved(x.b, i * x.b_stride),   moved(x.out, i * n),      moved(x.results, i), n,
                      c->labels ? c->labels[i] : 0, x.samples ? x.samples[i] : 1, c, in_order, is_early};
    };
    auto lead = Of::lead(row_of(first));
    for (ptrdiff_t i = first, begun = first; i < c->s.outer; i++) {
        const auto begin_next = [&](bool now) ALWAYS {
            if (now && begun == i && i + 1 < c->s.outer) lead = Of::lead(row_of(begun = i + 1));
        };
        Of::row(row_of(i), lead, [&]() ALWAYS { begin_next(is_early); });
        begin_next(true);
    }
}

template <class R> void run_rows(const Call *c, const Arrays<R> &x, ptrdiff_t first = 0, bool in_order = false) {
    with_op(c->op, [&](auto of) ALWAYS { run_each<decltype(of)>(c, x, first, in_order); });
}

/* Whether a short row that is alone may be gone over as a long one is, with sums in the order of a lane: of a panel of one row
 * the exps take as many vectors as it has entries. Two gain from n = 9 on, three seldom. */
INLINE bool has_sums_in_order(const Call *c) {
    if (c->op == CROSS_ENTROPY) return !c->target.everywhere;
    return c->op == SOFTMAX || c->op == LOG_SOFTMAX || c->op == LOGSUMEXP || c->op == SOFTMAX_VJP;
}

INLINE bool has_no_gaps(const Layout &s) { return s.outer_stride == s.n && s.n_stride == 1; }
INLINE bool lies_across(const Layout &s) { return s.n > 1 && s.n_stride != 1; }

/* OPS_OF_FEW(EACH) is from setup.py. */
template <class R> ptrdiff_t run_few(const Call *c) {
    if (c->s.outer < TILE * LANES<R> || !has_no_gaps(c->s) || (c->b && !has_no_gaps(c->sb))) return 0;
    switch (c->op) {
#define CASE(op) case op: return few<LEVEL, op, R>(c);
        OPS_OF_FEW(CASE)
    default: return 0;
    }
}

template <class R> void run_panels(const Call *c, const Arrays<R> &x) {
    constexpr ptrdiff_t size = PANEL_BYTES / sizeof(R);
    alignas(64) R panels[2 * size];
    const ptrdiff_t n = c->s.n;
    const bool fits = TILE * n * VECTOR_BYTES <= PANEL_BYTES;
    for (ptrdiff_t count, i = run_few<R>(c); i < c->s.outer; i += count) {
        if (c->s.outer - i <= (n > 8 ? 2 : 1) && has_sums_in_order(c)) return run_rows(c, x, i, true);
        const bool is_tall = fits && c->s.outer - i > 2 * LANES<R>;
        const Grid g = {n, is_tall ? TILE * LANES<R> : LANES<R>, 0, is_tall ? TALL : ROW};
        count = g.lanes < c->s.outer - i ? g.lanes : c->s.outer - i;
        through_panels(c, x, i, n, count, g, panels, panels + size,
                       [&](const Rows<R> &rows) ALWAYS { op_grid(c->op, rows); });
    }
}

/* Rows of which those of an input lie across, `lanes` at a time. */
template <class R> void run_across(const Call *c, const Arrays<R> &x) {
    constexpr ptrdiff_t size = PANEL_BYTES / sizeof(R);
    alignas(64) R panels[2 * size];
    const ptrdiff_t n = c->s.n, lanes = TILE * n * VECTOR_BYTES <= PANEL_BYTES ? TILE * LANES<R> : LANES<R>;
    for (ptrdiff_t i = 0, count; i < c->s.outer; i += count) {
        count = lanes < c->s.outer - i ? lanes : c->s.outer - i;
        const auto lines_of = [&](const R *at, const Layout &s, R *panel) ALWAYS {
            if (at && !lies_across(s)) rows_to_panel(at + i * s.outer_stride, s.outer_stride, n, count, panel, lanes);
            return at && lies_across(s) ? Lines<const R>{at + i * s.outer_stride, s.n_stride} : Lines<const R>{panel, lanes};
        };
        R *out = moved(x.out, i * n);
        const Kind kind = count == TILE * LANES<R> ? TALL : count > LANES<R> ? WIDE : NARROW;
        op_grid(c->op, Rows<R>{{n, count, 0, kind}, lines_of(x.a, c->s, panels), lines_of(x.b, c->sb, panels + size),
                               {out ? panels : nullptr, lanes}, moved(x.results, i), moved(c->labels, i), moved(x.samples, i),
                               count, c, {}});
        if (out) panel_to_rows(panels, lanes, n, count, out);
    }
}

/* Whether a tile of columns is best gone over alone: a VJP keeps five states a vector, which so stay in registers, and reads two
 * inputs again, which so are in the L2 cache: (1000, 1000) takes 0.75 to 0.95 of the time. Of arrays beyond the L3 cache lines of 128
 * bytes are too short for that: 1.4. */
template <class R> bool is_for_tiles(enum op op, const Layout &s) {
    constexpr ptrdiff_t line = TILE * VECTOR_BYTES, large = 8 << 20;
    return op == SOFTMAX_VJP && (line >= 256 || (line >= 128 && s.n * s.inner * (ptrdiff_t)sizeof(R) <= large));
}

/* How many columns are gone over together: equal shares, in whole tiles. */
template <class R> ptrdiff_t strip_width(enum op op, const Layout &s) {
    constexpr ptrdiff_t tile = TILE * LANES<R>, most = STRIP_BYTES / sizeof(R);
    const ptrdiff_t strips = (s.inner + most - 1) / most;
    if (s.n <= FEW_LINES || is_for_tiles<R>(op, s)) return tile;
    return ((s.inner + strips - 1) / strips + tile - 1) / tile * tile;
}

/* Columns that are gone over first, so that the others' vectors lie in one cache line each where lines lie like the first: axis 0
 * of (1000, 1000) float32 takes 0.95 of the time, a VJP 0.85. Of few columns one more strip would take longer. */
template <class R> ptrdiff_t columns_to_alignment(const R *first, ptrdiff_t inner) {
    return inner > 4 * TILE * LANES<R> ? entries_to_alignment(first) : 0;
}

template <class R> void run_columns(const Call *c, const Arrays<R> &x) {
    const ptrdiff_t strip = strip_width<R>(c->op, c->s);
    for (ptrdiff_t o = 0; o < c->s.outer; o++) {
        const R *out = moved(x.out, o * c->so.outer_stride), *a = x.a + o * c->s.outer_stride;
        const ptrdiff_t head = columns_to_alignment(out ? out : a, c->s.inner);
        for (ptrdiff_t i = 0, count; i < c->s.inner && !is_given_up(c->given_up); i += count) {
            const ptrdiff_t most = i || !head ? strip : head;
            count = c->s.inner - i < most ? c->s.inner - i : most;
            const Kind kind = count == TILE * LANES<R> ? TALL : count > LANES<R> ? WIDE : NARROW;
            op_grid(c->op, Rows<R>{{c->s.n, count, 0, kind, c->given_up},
                                   {a + i, c->s.n_stride},
                                   {moved(x.b, o * c->sb.outer_stride + i), c->sb.n_stride},
                                   {moved(x.out, o * c->so.outer_stride + i), c->so.n_stride},
                                   moved(x.results, o * c->results_stride + i),
                                   moved(c->labels, o * c->labels_stride + i),
                                   moved(x.samples, o * c->samples_stride + i), count, c, {}});
        }
    }
}

template <class R> void run_call(const Call *c) {
    const Arrays<R> x = arrays_of<R>(c);
    if (c->op == LOG_SOFTMAX_JACOBIAN) return log_softmax_jacobians(x.a, x.out, c->s.outer, c->s.n, c->given_up);
    if (c->op == SOFTMAX_JACOBIAN && c->given_up)
        return watched_jacobians(x.a, x.out, c->s.outer, c->s.n, c->given_up);
    if (c->op == SOFTMAX_JACOBIAN) return softmax_jacobians(x.a, x.out, c->s.outer, c->s.n);
    if (c->s.inner > 1 || (c->s.outer == 1 && lies_across(c->s))) return run_columns(c, x);
    if (lies_across(c->s) || (c->b && lies_across(c->sb))) return run_across(c, x);
    if (is_short(c->s.n, sizeof(R))) return run_panels(c, x);
    run_rows(c, x);
}
} // namespace
