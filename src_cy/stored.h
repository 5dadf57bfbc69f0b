/* Arrays as they lie in memory: of any type of numbers, with any strides. Kernels read some of them as they are; the rest
 * is made floats without gaps, a block of rows at a time (convert.hpp). */
#pragma once
#include <stddef.h>

enum type { FLOAT64, FLOAT32, FLOAT16, BFLOAT16, BOOL, INT8, INT16, INT32, INT64, UINT8, UINT16, UINT32, UINT64 };

/* More go the long way: with 30, calls are 2 KB longer and small ones take 15 ns more. */
enum { MOST_AXES = 8 };

/* Up to this size a row is faster one a lane than one at a time (docs/performance.md). */
enum { SHORT_BYTES = 512 };
static inline int is_short(ptrdiff_t n, ptrdiff_t itemsize) { return n * itemsize <= SHORT_BYTES; }

/* Axes one after the other seen as one, the last varying fastest; neighbours that need not be told apart are one of them.
 * Strides are in bytes. */
typedef struct {
    ptrdiff_t length, stride;
} Axis;
typedef struct {
    ptrdiff_t ndim, count;
    Axis axis[MOST_AXES];
} Axes;

/* Of one canonical array, in elements; the stride of `inner` is 1. */
typedef struct {
    ptrdiff_t outer, n, inner, outer_stride, n_stride;
} Layout;

/* A canonical array; `row` is n and inner together. `at` is NULL where a call has none. */
typedef struct {
    char *at;
    enum type type;
    Axes outer, n, inner, row;
    int is_ready; /* whether kernels take it as it is */
} Stored;

/* One more axis, within those there are. */
static inline void add_axis(Axes *axes, ptrdiff_t length, ptrdiff_t stride) {
    Axis *last = axes->axis + axes->ndim - 1;
    if (length == 1) return;
    axes->count *= length;
    if (axes->ndim && last->stride == length * stride)
        *last = (Axis){last->length * length, stride};
    else
        axes->axis[axes->ndim++] = (Axis){length, stride};
}

/* Whether it is one axis, or none, of whole elements; and how many lie between two entries, or `none`. Their size is a power
 * of 2: divisions would take a tenth of a small call. */
static inline int has_one_stride(const Axes *axes, ptrdiff_t itemsize, ptrdiff_t none, ptrdiff_t *stride) {
    *stride = axes->ndim ? axes->axis[0].stride >> __builtin_ctz((unsigned)itemsize) : none;
    return axes->ndim == 0 || (axes->ndim == 1 && (axes->axis[0].stride & (itemsize - 1)) == 0);
}

/* Find out whether kernels of a type read an array as it is, or write it, and how it then lies. Inner axes have no gaps;
 * without any, rows have none, and of results lie next to each other. Short rows may also lie across: entries of a row
 * apart, those of neighbours side by side. */
static inline void set_layout(Stored *x, Layout *s, enum type type, int is_written) {
    const ptrdiff_t itemsize = type == FLOAT32 ? sizeof(float) : sizeof(double);
    ptrdiff_t inner_stride;
    s->outer = x->outer.count, s->n = x->n.count, s->inner = x->inner.count;
    const int of_inner = has_one_stride(&x->inner, itemsize, 1, &inner_stride);
    const int of_n = has_one_stride(&x->n, itemsize, s->inner, &s->n_stride);
    const int of_outer = has_one_stride(&x->outer, itemsize, s->n * s->inner, &s->outer_stride);
    x->is_ready = x->type == type && of_inner && inner_stride == 1 && of_n && of_outer;
    if (!x->is_ready || s->inner > 1) return;
    const int lies_across = s->outer_stride == 1 && s->outer > 1 && s->n > 1 && is_short(s->n, itemsize);
    x->is_ready = is_written ? s->n_stride == 1 && s->outer_stride == s->n : s->n_stride == 1 || lies_across;
}
