/* Calls on arrays that kernels do not read as they are: blocks of rows are made floats without gaps, masked if need be, run,
 * and put where the result is. A block stays in the L2 cache, and its room is the caller's. Uses drive.hpp, halves.hpp,
 * masks.hpp. */
#pragma once
#include "drive.hpp"
#include "halves.hpp"
#include "masks.hpp"

namespace {
/* Of each array in a block: two or three of them leave the L2 cache room, and malloc takes no new pages for them. */
constexpr ptrdiff_t BLOCK_BYTES = 16 * 1024;
/* Blocks of columns are no narrower: two cache lines of each. Those of rows that lie across are whole vectors of them, since
 * they share cache lines, as long as that is no more than MOST_ACROSS. */
constexpr ptrdiff_t LEAST_COLUMNS = 32, MOST_ACROSS = 4 * 1024 * 1024;

INLINE ptrdiff_t least(ptrdiff_t a, ptrdiff_t b) { return a < b ? a : b; }
INLINE ptrdiff_t most(ptrdiff_t a, ptrdiff_t b) { return a > b ? a : b; }

/* In bytes, of entry i from the first. */
INLINE ptrdiff_t offset_of(const Axes &axes, ptrdiff_t i) {
    ptrdiff_t offset = 0;
    for (ptrdiff_t k = axes.ndim - 1; k >= 0; k--) {
        const ptrdiff_t above = k ? i / axes.axis[k].length : 0;
        offset += (i - above * axes.axis[k].length) * axes.axis[k].stride;
        i = above;
    }
    return offset;
}

INLINE ptrdiff_t last_stride(const Axes &axes) { return axes.ndim ? axes.axis[axes.ndim - 1].stride : 0; }

/* body(offset, i, count) for entries i of `start` to `stop` that lie on one line. */
template <class Body> INLINE void each_run(const Axes &axes, ptrdiff_t start, ptrdiff_t stop, Body body) {
    const ptrdiff_t length = axes.ndim ? axes.axis[axes.ndim - 1].length : 1;
    for (ptrdiff_t i = start, count; i < stop; i += count) {
        count = least(length - i % length, stop - i);
        body(offset_of(axes, i), i, count);
    }
}

/* So many rows of a call from one on: all entries of each, or columns of a canonical array whose outer is 1. In a block they
 * are lines of `width` entries. */
struct Part {
    ptrdiff_t first, count, width;
    bool along_inner;
};

/* body(at, stride, place in the block, count) for the entries that lie on one line. */
template <class Body> INLINE void each_line(const Stored &x, const Part &p, Body body) {
    if (p.along_inner) {
        for (ptrdiff_t j = 0; j < x.n.count; j++)
            each_run(x.inner, p.first, p.first + p.count, [&](ptrdiff_t offset, ptrdiff_t i, ptrdiff_t count) ALWAYS {
                body(x.at + offset_of(x.n, j) + offset, last_stride(x.inner), j * p.width + (i - p.first), count);
            });
        return;
    }
    for (ptrdiff_t r = 0; r < p.count; r++)
        each_run(x.row, 0, x.row.count, [&](ptrdiff_t offset, ptrdiff_t i, ptrdiff_t count) ALWAYS {
            body(x.at + offset_of(x.outer, p.first + r) + offset, last_stride(x.row), r * p.width + i, count);
        });
}

/* Whether all entries of a part are on one line, each row's after those before; and its stride. */
INLINE bool is_one_line(const Stored &x, const Part &p) {
    if (p.along_inner || x.row.ndim > 1) return false;
    return p.count == 1 || (x.outer.ndim == 1 && (x.row.ndim == 0 || x.outer.axis[0].stride == p.width * x.row.axis[0].stride));
}
INLINE ptrdiff_t line_stride(const Stored &x) { return last_stride(x.row.ndim ? x.row : x.outer); }

template <class R> INLINE R entry_of(const char *at) {
    R value;
    __builtin_memcpy(&value, at, sizeof value);
    return value;
}

/* Neighbours as such, for the compiler to make vectors of. */
template <class T, class R> void reals_of(const char *from, ptrdiff_t stride, R *to, ptrdiff_t n) {
    if (stride == sizeof(T))
        for (ptrdiff_t i = 0; i < n; i++) to[i] = (R)entry_of<T>(from + i * sizeof(T));
    else
        for (ptrdiff_t i = 0; i < n; i++) to[i] = (R)entry_of<T>(from + i * stride);
}

void reals_of_type(enum type type, const char *from, ptrdiff_t stride, float *to, ptrdiff_t n) {
    if (type == FLOAT32) return reals_of<float>(from, stride, to, n);
    if (stride == sizeof(uint16_t)) return widen((const uint16_t *)from, to, n, type);
    for (ptrdiff_t i = 0; i < n; i++) {
        const uint16_t half = entry_of<uint16_t>(from + i * stride);
        widen(&half, to + i, 1, type);
    }
}

void reals_of_type(enum type type, const char *from, ptrdiff_t stride, double *to, ptrdiff_t n) {
    switch (type) {
    case FLOAT64: return reals_of<double>(from, stride, to, n);
    case BOOL: return reals_of<uint8_t>(from, stride, to, n);
    case INT8: return reals_of<int8_t>(from, stride, to, n);
    case INT16: return reals_of<int16_t>(from, stride, to, n);
    case INT32: return reals_of<int32_t>(from, stride, to, n);
    case INT64: return reals_of<int64_t>(from, stride, to, n);
    case UINT8: return reals_of<uint8_t>(from, stride, to, n);
    case UINT16: return reals_of<uint16_t>(from, stride, to, n);
    case UINT32: return reals_of<uint32_t>(from, stride, to, n);
    case UINT64: return reals_of<uint64_t>(from, stride, to, n);
    case FLOAT32:
    case FLOAT16:
    case BFLOAT16: return; /* are made floats */
    }
}

void type_of_reals(enum type, const double *from, char *to, ptrdiff_t stride, ptrdiff_t n) {
    for (ptrdiff_t i = 0; i < n; i++) __builtin_memcpy(to + i * stride, from + i, sizeof *from);
}

void type_of_reals(enum type type, const float *from, char *to, ptrdiff_t stride, ptrdiff_t n) {
    if (type != FLOAT32 && stride == sizeof(uint16_t)) return narrow(from, (uint16_t *)to, n, type);
    for (ptrdiff_t i = 0; i < n; i++) {
        uint16_t half;
        if (type == FLOAT32) {
            __builtin_memcpy(to + i * stride, from + i, sizeof *from);
        } else {
            narrow(from + i, &half, 1, type);
            __builtin_memcpy(to + i * stride, &half, sizeof half);
        }
    }
}

template <class R> constexpr enum type TYPE = sizeof(R) == sizeof(float) ? FLOAT32 : FLOAT64;

/* Whether rows of reals lie across, entries `apart` from each other and those of neighbouring rows side by side. */
template <class R> INLINE bool lies_across(const Stored &x, const Part &p, ptrdiff_t *apart) {
    return !p.along_inner && x.type == TYPE<R> && last_stride(x.outer) == sizeof(R) && x.row.ndim == 1 &&
           has_one_stride(&x.row, sizeof(R), 1, apart);
}

/* A part of an array as a block; whole vectors of rows that lie across are transposed in registers. */
template <class R> void fetch(const Stored &x, const Part &p, R *to) {
    ptrdiff_t apart;
    if (is_one_line(x, p)) {
        reals_of_type(x.type, x.at + offset_of(x.outer, p.first), line_stride(x), to, p.count * p.width);
    } else if (lies_across<R>(x, p, &apart)) {
        each_run(x.outer, p.first, p.first + p.count, [&](ptrdiff_t offset, ptrdiff_t i, ptrdiff_t count) ALWAYS {
            const R *rows = (const R *)(x.at + offset);
            for (ptrdiff_t l = 0; l < count; l += LANES<R>)
                lanes_to_rows(rows + l, apart, p.width, count - l, to + (i - p.first + l) * p.width);
        });
    } else {
        each_line(x, p, [&](const char *at, ptrdiff_t stride, ptrdiff_t place, ptrdiff_t count) ALWAYS {
            reals_of_type(x.type, at, stride, to + place, count);
        });
    }
}

/* And back. */
template <class R> void put(const Stored &out, const Part &p, const R *from) {
    ptrdiff_t apart;
    if (is_one_line(out, p)) {
        type_of_reals(out.type, from, out.at + offset_of(out.outer, p.first), line_stride(out), p.count * p.width);
    } else if (lies_across<R>(out, p, &apart)) {
        each_run(out.outer, p.first, p.first + p.count, [&](ptrdiff_t offset, ptrdiff_t i, ptrdiff_t count) ALWAYS {
            R *rows = (R *)(out.at + offset);
            const R *block = from + (i - p.first) * p.width;
            ptrdiff_t l = 0;
            for (; count - l >= LANES<R>; l += LANES<R>)
                rows_to_lanes(block + l * p.width, p.width, p.width, LANES<R>, rows + l, apart);
            for (; l < count; l++)
                for (ptrdiff_t j = 0; j < p.width; j++) rows[j * apart + l] = block[l * p.width + j];
        });
    } else {
        each_line(out, p, [&](char *at, ptrdiff_t stride, ptrdiff_t place, ptrdiff_t count) ALWAYS {
            type_of_reals(out.type, from + place, at, stride, count);
        });
    }
}

/* The bytes of a part of a mask: where they are, or in a block. */
const uint8_t *fetch_mask(const Stored &mask, const Part &p, uint8_t *to) {
    if (is_one_line(mask, p) && line_stride(mask) == 1) return (const uint8_t *)mask.at + offset_of(mask.outer, p.first);
    each_line(mask, p, [&](const char *at, ptrdiff_t stride, ptrdiff_t place, ptrdiff_t count) ALWAYS {
        if (stride == 1)
            __builtin_memcpy(to + place, at, count);
        else
            for (ptrdiff_t i = 0; i < count; i++) to[place + i] = at[i * stride];
    });
    return to;
}

/* Where the rows of a call are in blocks of it, and how many a block has. */
template <class R> struct Room {
    ptrdiff_t step, entries, results;
    R *a, *b, *out, *one_a_row;
    uint8_t *mask;
    ptrdiff_t bytes;

    Room(const Call *c, char *at) {
        constexpr ptrdiff_t tile = TILE * LANES<R>;
        const bool along_inner = c->conversion->along_inner, square = is_square(c->op);
        const ptrdiff_t row = c->s.n * (along_inner ? 1 : c->s.inner), result = square ? row * row : row;
        const bool is_turned = last_stride(c->conversion->a.outer) < last_stride(c->conversion->a.row);
        const bool by_vectors = is_turned && LANES<R> * result * (ptrdiff_t)sizeof(R) <= MOST_ACROSS;
        step = most(BLOCK_BYTES / sizeof(R) / result, along_inner ? LEAST_COLUMNS : by_vectors ? LANES<R> : 1);
        step = least(step > tile ? step - step % tile : step, along_inner ? most(c->s.inner, 2) : c->s.outer);
        entries = step * row;
        results = step * (along_inner ? 1 : c->s.inner);
        bytes = 0;
        a = take<R>(at, entries);
        b = take<R>(at, c->b ? entries : 0);
        out = square ? take<R>(at, step * result) : a;
        one_a_row = take<R>(at, results);
        mask = take<uint8_t>(at, c->conversion->mask.at ? entries : 0);
    }

    template <class T> T *take(char *at, ptrdiff_t count) {
        T *taken = (T *)(at + bytes);
        bytes += (count * (ptrdiff_t)sizeof(T) + 63) / 64 * 64;
        return taken;
    }
};

/* The arrays of a part as kernels take them: where they are, if they lie so, or a block. */
template <class R> INLINE R *where_it_is(const Stored &x, const Layout &all, const Part &p, Layout *s) {
    s->n_stride = all.n_stride;
    if (!p.along_inner) s->outer_stride = all.outer_stride;
    return (R *)x.at + p.first * (p.along_inner ? 1 : all.outer_stride);
}

template <class R> INLINE R *input(const Stored &x, const Layout &all, const Part &p, Layout *s, R *block) {
    if (x.is_ready) return where_it_is<R>(x, all, p, s);
    fetch(x, p, block);
    return block;
}

/* What is masked out of a block of results is what they are of -inf, but in rows that are NaN. */
template <class R> INLINE void fill_masked(const Call &part, const uint8_t *mask, ptrdiff_t entries, double fill) {
    R *out = (R *)part.out;
    for (ptrdiff_t i = 0; i < part.s.outer * part.s.inner; i++) {
        const ptrdiff_t first = i / part.s.inner * part.s.outer_stride + i % part.s.inner;
        if (!(out[first] == out[first])) return blend<R>(out, mask, out, entries, fill);
    }
}

template <class R> void run_block(const Call *c, ptrdiff_t i, const Part &p, const Room<R> &room) {
    const Conversion &v = *c->conversion;
    const ptrdiff_t entries = (p.along_inner ? c->s.n : p.count) * p.width, results = p.along_inner ? 1 : c->s.inner;
    Part of_result = p;
    Call part = *c;
    part.conversion = nullptr;
    part.s = {p.count, c->s.n, c->s.inner, p.width, c->s.inner};
    part.ahead = v.a.at + offset_of(v.a.outer, least(p.first + p.count, v.a.outer.count - 1)) - (char *)(room.a + p.width);
    if (p.along_inner) part.s = {1, c->s.n, p.count, entries, p.width};
    part.sb = part.so = part.s;
    const uint8_t *mask = v.mask.at ? fetch_mask(v.mask, p, room.mask) : nullptr;
    if (mask) {
        const bool is_there = v.a.is_ready && is_one_line(v.a, p) && line_stride(v.a) == sizeof(R);
        if (!is_there) fetch(v.a, p, room.a);
        blend<R>(is_there ? (R *)(v.a.at + offset_of(v.a.outer, p.first)) : room.a, mask, room.a, entries, -INFINITY);
        part.a = room.a;
    } else {
        part.a = input(v.a, c->s, p, &part.s, room.a);
    }
    if (c->b) part.b = input(v.b, c->sb, p, &part.sb, room.b);
    if (is_square(c->op)) of_result.width = p.width * p.width;
    const bool is_direct = c->out && v.out.is_ready && (!mask || is_one_line(v.out, of_result));
    if (c->out) part.out = is_direct ? where_it_is<R>(v.out, c->so, of_result, &part.so) : room.out;
    part.results = v.halves ? room.one_a_row : moved((R *)c->results, i * (p.along_inner ? 1 : c->results_stride));
    part.labels = moved(c->labels, i * (p.along_inner ? 1 : c->labels_stride));
    part.samples = moved((const R *)c->samples, i * (p.along_inner ? 1 : c->samples_stride));
    run_call<R>(&part);
    if (mask && c->out) fill_masked<R>(part, mask, entries, v.fill);
    if (c->out && !is_direct) put(v.out, of_result, (const R *)part.out);
    if (v.halves) narrow((const float *)part.results, v.halves + p.first * results, p.count * results, v.a.type);
}

template <class R> void run_converted(const Call *c) {
    const Conversion &v = *c->conversion;
    const ptrdiff_t rows = v.along_inner ? c->s.inner : c->s.outer, entries = c->s.n * c->s.inner;
    int k = 0;
    while (__atomic_exchange_n(&v.taken[k], 1, __ATOMIC_ACQUIRE)) k++;
    const Room<R> room(c, v.room + k * v.room_bytes);
    for (ptrdiff_t i = 0, count; i < rows; i += count) {
        count = least(room.step, rows - i);
        /* Of a single column lines are two entries long: without gaps it would be a row. */
        run_block(c, i, {c->first + i, count, v.along_inner ? most(count, 2) : entries, (bool)v.along_inner}, room);
    }
    __atomic_store_n(&v.taken[k], 0, __ATOMIC_RELEASE);
}

ptrdiff_t room_bytes(const Call *c) { return c->single ? Room<float>(c, nullptr).bytes : Room<double>(c, nullptr).bytes; }
} // namespace
