/* Grids, which passes go over: lines of vectors, line j of x at x.at + j * its stride, of four kinds. Uses sums.hpp.
 *
 * * ROW: one vector wide, without gaps. A row of n contiguous entries, the last line perhaps a short one: then the
 *   lanes of what a pass returns are still to be combined. Or rows side by side, one a lane, n lines.
 * * NARROW: rows side by side, up to a vector's lanes of them.
 * * TALL: rows side by side, a tile of them: TILE vectors, whose dependent steps fill each other's gaps and whose
 *   state stays in registers from line to line.
 * * WIDE: rows side by side, more of them, GROUP / PAIR lines at a time, and of these PAIR vectors after the others.
 *   Vector w of what a pass returns belongs to the rows of vector w of each line.
 *
 * A row in a lane has the same bits in every kind. Results may take the place of inputs. */
#pragma once
#include "call.h"
#include "sums.hpp"

namespace {
enum Kind { ROW, NARROW, TALL, WIDE };
constexpr int PAIR = 2;
template <Kind kind> constexpr int width = kind == TALL ? TILE : kind == WIDE ? PAIR : 1;

/* So many lines of so many entries, and a last one of `tail`. */
struct Grid {
    ptrdiff_t lines, lanes, tail;
    Kind kind;
    const int *given_up = nullptr;
};

/* Of a long call; others have NULL. */
INLINE bool is_given_up(const int *given_up) {
    return __builtin_expect(given_up != nullptr, 0) && __atomic_load_n(given_up, __ATOMIC_RELAXED);
}

template <class R> INLINE Grid row_grid(ptrdiff_t n, const int *given_up = nullptr) {
    return {n / LANES<R>, LANES<R>, n % LANES<R>, ROW, given_up};
}

/* Room for the vectors of a line, 4 KB of them: whole pages are passed over, and one entry of the TLB serves each. And
 * 5 more: arrays of them 4 KB apart would be taken for one another by loads that look past stores. */
constexpr int MOST_VECTORS = 4096 / VECTOR_BYTES + 5;

template <class R> INLINE int vectors(const Grid &g) {
    if (g.kind == WIDE) return (int)((g.lanes + PAIR * LANES<R> - 1) / (PAIR * LANES<R>) * PAIR);
    return g.kind == TALL ? TILE : 1;
}

/* Where the lines of a grid lie. */
template <class T> struct Lines {
    T *at;
    ptrdiff_t stride;

    ALWAYS inline Lines from(ptrdiff_t line) const { return {at + line * stride, stride}; }
};

/* Where a pass prefetches: what comes after it is brought in while it keeps the vector units busy, so that
 * memory is read beside the exps, not between them. For grids without gaps; NULL brings nothing. */
template <class R> struct Ahead {
    const R *x, *out;
};

/* Vectors of `height` lines by `wide`, from a line and an entry of it, where so many entries are `left` of the line: all
 * that the vectors hold (`whole`), or fewer. */
template <class R, Kind kind, int height, bool whole> struct Tile {
    using V = vec<R>;
    static constexpr int wide = width<kind>, count = height * wide;
    ptrdiff_t line, entry, left;

    /* Vector i of it in an array. */
    template <class T> ALWAYS inline T *in(Lines<T> x, int i) const {
        const ptrdiff_t stride = kind == ROW ? LANES<R> : x.stride;
        return x.at + (line * stride + entry) + i / wide * stride + i % wide * LANES<R>;
    }

    /* `fill` stands beyond the entries that are left. */
    ALWAYS inline V get(int i, Lines<const R> x, R fill) const {
        if constexpr (whole) return ::load(in(x, i));
        return load_part(in(x, i), left - i % wide * LANES<R>, splat<V>(fill));
    }

    ALWAYS inline void put(int i, Lines<R> out, V a) const {
        if constexpr (whole)
            ::store(in(out, i), a);
        else
            store_part(in(out, i), left - i % wide * LANES<R>, a);
    }

    ALWAYS inline void load(V *a, Lines<const R> x, R fill) const {
        for (int i = 0; i < count; i++) a[i] = get(i, x, fill);
    }

    ALWAYS inline void store(Lines<R> out, const V *a) const {
        for (int i = 0; i < count; i++) put(i, out, a[i]);
    }

    ALWAYS inline void look_ahead(const R *p) const {
        if (!p) return;
        for (int i = 0; i < count; i++) __builtin_prefetch(p + line * wide * LANES<R> + entry + i * LANES<R>);
    }

    /* Which state of a pass its vector i belongs to. */
    ALWAYS inline ptrdiff_t state(int i) const { return entry / LANES<R> + i % wide; }
};

/* Run body(tile) on lines from j to `lines`, tiles of `most` vectors and then of fewer. */
template <class R, Kind kind, int most, class Body>
INLINE void tiles_of(const Grid &g, ptrdiff_t &j, const ptrdiff_t lines, Body body) {
    constexpr int tall = most / width<kind>;
    constexpr ptrdiff_t across = width<kind> * LANES<R>;
    if constexpr (kind == TALL) {
        for (; lines - j >= tall; j += tall) body(Tile<R, kind, tall, true>{j, 0, across});
        for (; j < lines; j++) body(Tile<R, kind, 1, true>{j, 0, across});
    } else {
        const auto line_of = [&](auto tile) ALWAYS {
            constexpr int height = tile.count / width<kind>;
            if constexpr (kind == ROW) {
                body(Tile<R, kind, height, true>{j, 0, across});
            } else if constexpr (kind == NARROW) {
                if (g.lanes >= across)
                    body(Tile<R, kind, height, true>{j, 0, across});
                else
                    body(Tile<R, kind, height, false>{j, 0, g.lanes});
            } else {
                ptrdiff_t c = 0;
                for (; g.lanes - c >= across; c += across) body(Tile<R, kind, height, true>{j, c, across});
                if (c < g.lanes) body(Tile<R, kind, height, false>{j, c, g.lanes - c});
            }
            j += height;
        };
        while (lines - j >= tall) line_of(Tile<R, kind, tall, true>{});
        if constexpr (kind == ROW && tall > 4)
            while (lines - j >= 4) line_of(Tile<R, kind, 4, true>{});
        if constexpr (tall > 2)
            while (lines - j >= 2) line_of(Tile<R, kind, 2, true>{});
        while (j < lines) line_of(Tile<R, kind, 1, true>{});
    }
}

/* The tiles of a grid, one after the other. */
template <class R, Kind kind, int most, class Body> INLINE void each_tile(const Grid &g, Body body) {
    ptrdiff_t j = 0;
    tiles_of<R, kind, most>(g, j, g.lines, body);
    if constexpr (kind == ROW)
        if (g.tail) body(Tile<R, kind, 1, false>{j, 0, g.tail});
}

/* A copy; GCC makes one of a struct by 16 bytes, which loads of 32 wait for. */
template <class V> ALWAYS inline V by_field(const V &v) { return v; }
template <class V> ALWAYS inline Ratio<V> by_field(const Ratio<V> &q) { return {q.hi, q.lo}; }

/* What belongs to each vector of a line; of one vector it is kept in registers, which writing would else have it read again. */
template <Kind kind, class T> struct Each {
    const T *all, first;

    ALWAYS inline explicit Each(const T *p) : all(p), first(by_field(*p)) {}
    ALWAYS inline const T &operator[](ptrdiff_t k) const { return width<kind> == 1 ? first : all[k]; }
};

/* Entries of an array before one whose address a vector's size divides. */
template <class R> INLINE ptrdiff_t entries_to_alignment(const R *x) {
    return (ptrdiff_t)(-(uintptr_t)x % VECTOR_BYTES / sizeof(R));
}

/* out = f(which state, an entry of each input). A vector is written before the next is read: a VJP takes 0.95 of the time. Those
 * of a row are written where each is in one cache line, not in two: softmax of (4000, 4000) float32 takes 0.8, (1000, 1000) 0.95. */
template <class R, Kind kind, class F, class... In>
INLINE void write(Grid g, Lines<R> out, Ahead<R> ahead, F f, In... x) {
    const auto body = [&](auto tile) ALWAYS {
        tile.look_ahead(ahead.x);
        tile.look_ahead(ahead.out);
        for (int i = 0; i < tile.count; i++) tile.put(i, out, f(tile.state(i), tile.get(i, {x.at, x.stride}, 0)...));
    };
    if constexpr (kind == ROW) {
        const ptrdiff_t n = g.lines * LANES<R> + g.tail, first = entries_to_alignment(out.at);
        if (first && first < n) {
            body(Tile<R, kind, 1, false>{0, 0, first});
            out.at += first;
            ((x.at += first), ...);
            g = row_grid<R>(n - first);
        }
    }
    each_tile<R, kind, GROUP>(g, body);
}

INLINE ptrdiff_t chunk_end(const Grid &g, ptrdiff_t j) { return g.lines - j > CHUNK ? j + CHUNK : g.lines; }

/* How many states a pass has over a grid of a kind. */
template <class R, Kind kind> INLINE int states(const Grid &g) { return kind == WIDE ? vectors<R>(g) : width<kind>; }

/* The same with a Sum, or several as one, for each state: body(tile, part) adds to those of `part`. `sums` gets the whole,
 * which is the part where there are no more lines than CHUNK; after each chunk `flush` is run. A part is in registers where
 * there are few; GCC spills more where one sum is an element of an array: 0.88 -> 1.02 ms for (1000, 1000) float32 at AVX2. */
template <class R, Kind kind, int most, class S, class Body, class Flush>
INLINE void sum_tiles(const Grid &g, R start, S *sums, Body body, Flush flush) {
    S one, few[TILE], many[MOST_VECTORS], *part;
    ptrdiff_t j = 0;
    const int count = states<R, kind>(g);
    do {
        const ptrdiff_t from = j, end = chunk_end(g, j);
        part = kind == WIDE ? (from ? many : sums) : width<kind> == 1 ? &one : few;
        const auto with_part = [&](auto tile) ALWAYS { body(tile, part); };
        for (int w = 0; w < count; w++) part[w] = S::from(start);
        tiles_of<R, kind, most>(g, j, end, with_part);
        if constexpr (kind == ROW)
            if (end == g.lines && g.tail) with_part(Tile<R, kind, 1, false>{j, 0, g.tail});
        for (int w = 0; w < count; w++) part[w].take_start(start);
        if (from)
            for (int w = 0; w < count; w++) sums[w].join(part[w]);
        else if (kind != WIDE)
            for (int w = 0; w < count; w++) sums[w] = part[w];
        flush();
    } while (j < g.lines && !is_given_up(g.given_up));
}

template <class R, Kind kind, int most, class S, class Body> INLINE void sum_tiles(const Grid &g, S *sums, Body body) {
    sum_tiles<R, kind, most>(g, R(0), sums, body, []() ALWAYS {});
}

/* A pass, written once, compiled for each kind of grid as a function whose name tells the level (profilers and
 * tests/test_generated_code.py see it). It keeps its arguments in registers, since what it writes might else change them;
 * a struct by value would come through memory, by loads wider than the stores before, which wait for them. */
template <class Level, class Pass, Kind kind>
PASS void pass_over(const Pass &pass, ptrdiff_t lines, ptrdiff_t lanes, ptrdiff_t tail, const int *given_up) {
    const Pass own = pass;
    own.template run<kind>(Grid{lines, lanes, tail, kind, given_up});
}

/* Whether a pass keeps nothing from line to line, and has a part `from` a line on. */
template <class Pass> constexpr bool BY_LINE = false;
template <Kind kind, class Pass> COLD void in_chunks(const Grid g, const Pass &pass);

template <Kind kind, class Pass> INLINE void on_kind(const Grid &g, const Pass &pass) {
    if constexpr (BY_LINE<Pass>)
        if (__builtin_expect(g.given_up != nullptr, 0)) return in_chunks<kind>(g, pass);
    pass_over<LEVEL, Pass, kind>(pass, g.lines, g.lanes, g.tail, g.given_up);
}

/* Run a pass on a grid. Inlined only where the grid is `known`, a TALL one whose lines the compiler knows: else that would
 * double the time to compile. */
template <bool known, class Pass> INLINE void on(const Grid &g, const Pass &pass) {
    if constexpr (known)
        pass.template run<TALL>(g);
    else if (g.kind == ROW)
        on_kind<ROW>(g, pass);
    else if (g.kind == NARROW)
        on_kind<NARROW>(g, pass);
    else if (g.kind == TALL)
        on_kind<TALL>(g, pass);
    else
        on_kind<WIDE>(g, pass);
}

/* The same of one that is seldom needed, which is not inlined. */
template <bool known, class Pass> INLINE void on_seldom(const Grid &g, const Pass &pass) {
    if constexpr (known)
        on_kind<TALL>(g, pass);
    else
        on<false>(g, pass);
}

/* Between chunks the call may be given up. Not within such a pass: (3, 100000) float32 would take 1.1 times as long. */
template <Kind kind, class Pass> COLD void in_chunks(const Grid g, const Pass &pass) {
    for (ptrdiff_t line = 0, end; line < g.lines && !is_given_up(g.given_up); line = end) {
        end = chunk_end(g, line);
        on_kind<kind>(Grid{end - line, g.lanes, end == g.lines ? g.tail : 0, kind}, pass.from(line));
    }
}
} // namespace
