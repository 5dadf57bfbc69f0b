/* What crosses from the Cython layer to the kernels of a CPU level: a call, and the table of what they can do. */
#pragma once
#include "stored.h"
#include <stdint.h>

enum op {
    SOFTMAX,
    LOG_SOFTMAX,
    LOGSUMEXP,
    SOFTMAX_VJP,
    LOG_SOFTMAX_VJP,
    LOG_SOFTMAX_JVP,
    SOFTMAX_JACOBIAN,
    CROSS_ENTROPY,
    SOFTMAX_JACOBIAN_DIAGONAL = CROSS_ENTROPY + 2, /* as in OPS of registry.py: cross_entropy_with_grad is between */
    LOG_SOFTMAX_JACOBIAN,
    LOG_SOFTMAX_JACOBIAN_DIAGONAL,
    SOFT_CROSS_ENTROPY,
    SOFTMAX_SOLVE = SOFT_CROSS_ENTROPY + 6, /* soft_cross_entropy_with_grad and ragged rows are between */
    WEIGHTED_LOGSUMEXP,
};

/* Whether a row of n entries has a result of n * n. */
static inline int is_square(enum op op) { return op == SOFTMAX_JACOBIAN || op == LOG_SOFTMAX_JACOBIAN; }

/* What a pass goes over rows side by side by: so many vectors (grid.hpp). */
enum { TILE = 4 };

/* What weighs a cross-entropy's terms: at_label (times a weight per class unless that is NULL) the label's, or each class's by
 * its probability, `everywhere` (NULL without smoothing) those of all classes, `total` its sum; `scale` the gradient. */
typedef struct {
    const void *weight, *everywhere;
    double at_label, total, scale;
} Target;

/* The arrays of a call that kernels do not read as they are, or not all of them, in place of its own; a mask, and what the
 * result is where it does not hold; results one a row as halves; and room for a block of rows on each thread. */
typedef struct {
    Stored a, b, out, mask;
    double fill;
    uint16_t *halves;
    int along_inner; /* whether blocks are columns, since outer is 1 */
    char *room;
    ptrdiff_t room_bytes;
    int *taken;
} Conversion;

/* An op and its arrays. `b` is NULL for ops of one array, `out` where only `results` are wanted: those are one a row,
 * as are the labels, and the weights of rows unless that is NULL, all canonical (outer, inner). */
typedef struct {
    enum op op;
    void *a, *b, *out, *results;
    ptrdiff_t *labels;
    const void *samples;
    Layout s, sb, so;
    ptrdiff_t results_stride, labels_stride, samples_stride;
    Target target;
    double ridge; /* what softmax_solve adds to a diagonal */
    const int *given_up; /* whether to stop within long rows; NULL if there are none */
    int single;
    const Conversion *conversion; /* NULL if kernels read the arrays as they are */
    ptrdiff_t first;              /* row of it that this part of the call begins with */
    ptrdiff_t ahead;              /* how many bytes after `a`, where a row of it ends, what will be read next lies */
    const ptrdiff_t *segments;    /* where each of s.outer ragged rows begins, and the last ends; NULL if all are of s.n */
} Call;

/* Of one level: void pointers stand for either real type. */
typedef struct {
    const char *level;
    ptrdiff_t vector_bytes;
    void (*run)(const Call *);
    double (*exact_sum_f32)(const float *, ptrdiff_t n);
    double (*exact_sum_f64)(const double *, ptrdiff_t n);
    ptrdiff_t (*room_bytes)(const Call *);
    void (*widen)(const uint16_t *from, float *to, ptrdiff_t n, enum type);
    void (*narrow)(const float *from, uint16_t *to, ptrdiff_t n, enum type);
    void (*blend_f32)(const float *x, const uint8_t *mask, float *to, ptrdiff_t n, double fill);
    void (*blend_f64)(const double *x, const uint8_t *mask, double *to, ptrdiff_t n, double fill);
} Kernels;
