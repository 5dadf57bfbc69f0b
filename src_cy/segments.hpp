/* Ragged rows: row k is the entries from segments[k] to segments[k + 1]. Short ones of one length are copied together and gone
 * over as the matrix that they are then; the others where they lie. A row has the same bits alone and in a batch, so these are
 * the bits of the op itself. Uses drive.hpp. */
#pragma once
#include "drive.hpp"

namespace {
/* So many segments are sorted at a time: of 20 lengths each then has several tiles, and what is sorted is in the L2 cache when it
 * is copied (half as many and twice as many take as long). And bytes of a matrix, in the L1 cache beside its panel. */
constexpr ptrdiff_t SORTED = 4096, MATRIX_BYTES = 16 * 1024;

/* Segments by their length: those of n entries are which[first[n]] to which[first[n + 1]], long ones at `longer`. */
template <class R> struct ByLength {
    static constexpr ptrdiff_t longer = SHORT_BYTES / sizeof(R) + 1;
    uint16_t which[SORTED];
    int first[longer + 3] = {};

    ByLength(const ptrdiff_t *segments, ptrdiff_t count) {
        const auto length = [&](ptrdiff_t k) ALWAYS {
            const ptrdiff_t n = segments[k + 1] - segments[k];
            return n < longer ? n : longer;
        };
        for (ptrdiff_t k = 0; k < count; k++) first[length(k) + 2]++;
        for (ptrdiff_t n = 0; n <= longer; n++) first[n + 1] += first[n];
        for (ptrdiff_t k = 0; k < count; k++) which[first[length(k) + 1]++] = (uint16_t)k;
    }
};

template <class R> INLINE void copy_row(const R *from, ptrdiff_t n, R *to) {
    each_vector<R>(n, [&](ptrdiff_t j, ptrdiff_t count) ALWAYS {
        store_some(to + j, count, load_some(from + j, count, R(0)));
    });
}

template <class R> void run_alone(const Call *c, const Arrays<R> &x, ptrdiff_t k) {
    const ptrdiff_t start = c->segments[k], n = c->segments[k + 1] - start;
    Call row = *c;
    row.a = (void *)(x.a + start);
    row.b = (void *)moved(x.b, start);
    row.out = moved(x.out, start);
    row.results = moved(x.results, k);
    row.s = row.sb = row.so = {1, n, 1, n, 1};
    run_call<R>(&row);
}

/* Short segments of n entries each. */
template <class R> void run_matrix(const Call *c, const Arrays<R> &x, const uint16_t *which, ptrdiff_t count, ptrdiff_t n) {
    constexpr ptrdiff_t size = MATRIX_BYTES / sizeof(R), tile = TILE * LANES<R>;
    alignas(64) R a[size], b[size];
    const ptrdiff_t most = size / n, step = most > tile ? most - most % tile : most;
    Call rows = *c;
    rows.a = a;
    rows.b = x.b ? b : nullptr;
    rows.out = x.out ? a : nullptr;
    rows.results = b;
    for (ptrdiff_t i = 0, end; i < count; i = end) {
        end = i + step < count ? i + step : count;
        for (ptrdiff_t k = i; k < end; k++) copy_row(x.a + c->segments[which[k]], n, a + (k - i) * n);
        for (ptrdiff_t k = i; k < end && x.b; k++) copy_row(x.b + c->segments[which[k]], n, b + (k - i) * n);
        rows.s = rows.sb = rows.so = {end - i, n, 1, n, 1};
        run_call<R>(&rows);
        for (ptrdiff_t k = i; k < end && x.out; k++) copy_row(a + (k - i) * n, n, x.out + c->segments[which[k]]);
        for (ptrdiff_t k = i; k < end && x.results; k++) x.results[which[k]] = b[k - i];
    }
}

template <class R> void run_sorted(const Call *c, const ByLength<R> &by) {
    const Arrays<R> x = arrays_of<R>(c);
    for (ptrdiff_t n = 0; n <= by.longer && !is_given_up(c->given_up); n++) {
        const ptrdiff_t from = by.first[n], count = by.first[n + 1] - from;
        if (n > 0 && n < by.longer && count > 1)
            run_matrix(c, x, by.which + from, count, n);
        else
            for (ptrdiff_t i = from; i < from + count; i++)
                if (n)
                    run_alone(c, x, by.which[i]);
                else if (x.results)
                    x.results[by.which[i]] = -INFINITY;
    }
}

template <class R> void run_segments(const Call *c) {
    Call some = *c;
    for (ptrdiff_t k = 0; k < c->s.outer; k += some.s.outer) {
        some.s.outer = c->s.outer - k < SORTED ? c->s.outer - k : SORTED;
        some.segments = c->segments + k;
        some.results = moved((R *)c->results, k);
        run_sorted(&some, ByLength<R>(some.segments, some.s.outer));
    }
}
} // namespace
