/* The kernels for double and float, of one CPU level. */
#pragma once
#include "call.h"
#include "simd.h"

#ifndef LEVEL
#define LEVEL this
#endif
#define JOINED(a, b) JOINED_AS_THEY_ARE(a, b)
#define JOINED_AS_THEY_ARE(a, b) a##_##b

/* How many vectors a pass takes at a time, so that their dependent operations fill each other's gaps; through exp half
 * as many, whose steps then stay in registers; and lines that a sum takes before it is handed over (sums.h). */
enum { GROUP = 8, EXPS = 4, CHUNK = 65536 };

/* What a pass goes over: so many lines of so many entries, and a last one of `tail` (passes.h). */
enum kind { ROW, NARROW, TALL, WIDE };
enum { PAIR = 2 };
#define WIDTH(kind) ((kind) == TALL ? TILE : (kind) == WIDE ? PAIR : 1)
typedef struct {
    ptrdiff_t lines, lanes, tail;
    enum kind kind;
} Grid;

/* Whether rows of large maxima are among those that go through exp (real.h), and whether its sum is that of the entries
 * other than maxima. */
enum { MIXED = 1, OTHERS = 2 };

/* Whether something is taken off a cotangent, and whether it is made smaller before (rows.h). */
enum { CENTRED = 1, SCALED = 2 };

/* Bytes of a panel of short rows, which stays in the L1 cache; and of a line of strided ones, which one entry of the TLB serves,
 * with the passes' state in L1; and lines so few that the TLB holds their pages all at once: a tile at a time. */
enum { PANEL_BYTES = 16 * 1024, STRIP_BYTES = 4096, FEW_LINES = 16 };

/* Of a real type, a name that profilers and tests/test_generated_code.py see, and what another unit holds. */
#define SEEN(x, real) JOINED(x##_##real, LEVEL)
#define TILES_OF_UNIT(op, real) JOINED(JOINED(known_tiles, op), JOINED(real, LEVEL))

#define REAL double
#define INT int64_t
#define NAME(x) x##_f64
#define PASS_NAME(x) SEEN(x, f64)
#define KNOWN_TILES(op) TILES_OF_UNIT(op, f64)
#define MANTISSA_BITS 52
#define BIAS 512
#define UNBIAS 0x1p-512
#define ABOVE 0x1p513 /* any exp */
#define MAGIC (6755399441055744.0 + 1023 + BIAS) /* 1.5 * 2**52: adding it rounds to an integer, kept in the low bits */
#define PLAIN_MAGIC 6755399441055744.0
#define LARGE 2048.0
#define VANISHES 800.0 /* exp(-745.2) rounds to 0 */
#define MAX_REAL 1.7e308
#define SPLITTER 134217729.0
#define LOG2E 1.4426950408889634
#define LN2_HIGH 6.93147180369123816490e-01 /* 33 bits: k * LN2_HIGH is exact for every k there is */
#define LN2_LOW 1.90821492927058770002e-10
/* The quotient is rounded so that r is from ln(3/4) to ln(3/2): exp(r) - 1 is then rounded no worse than exp(r) itself. */
#define OFFSET 0.05889151782819173
/* (exp(r) - 1 - r) / r**2, minimax there, relative error of exp 2**-57.7, highest first */
#define EXP_COEFFICIENTS                                                                                   \
    {2.6457316079685612e-08, 2.759078955918679e-07, 2.7554116964701935e-06, 2.4801575279892647e-05,        \
     1.984127249705058e-04,  1.3888888885813047e-03, 8.333333332409704e-03, 4.166666666668427e-02,         \
     1.666666666666776e-01,  4.999999999999999e-01}
#define SQRT_HALF_BITS 0x3fe6a09e667f3bcd
#define LOG2_HIGH 6.93147180369123816490e-01
#define LOG2_LOW 1.90821492927058770002e-10
#define LOG_COEFFICIENTS                                                                                   \
    {1.479819860511658591e-01, 1.531383769920937332e-01, 1.818357216161805012e-01, 2.222219843214978396e-01, \
     2.857142874366239149e-01, 3.999999999940941908e-01, 6.666666666666735130e-01}
#include "real.h"
#include "sums.h"
#include "passes.h"
#include "rows.h"
#include "lanes.h"
#ifdef PART
#include PART
#endif
#include "undef.h"

#define REAL float
#define INT int32_t
#define NAME(x) x##_f32
#define PASS_NAME(x) SEEN(x, f32)
#define KNOWN_TILES(op) TILES_OF_UNIT(op, f32)
#define MANTISSA_BITS 23
#define BIAS 64
#define UNBIAS 0x1p-64f
#define ABOVE 0 /* sums of floats need no start */
#define MAGIC (12582912.0f + 127 + BIAS) /* 1.5 * 2**23 */
#define PLAIN_MAGIC 12582912.0f
#define LARGE 256.0f
#define VANISHES 128.0f /* exp(-104) rounds to 0 */
#define MAX_REAL 3.4e38f
#define SPLITTER 4097.0f
#define LOG2E 1.44269504f
#define LN2_HIGH 0.693145751953125f /* 14 bits: as above */
#define LN2_LOW 1.42860682e-6f
#define OFFSET 0 /* |r| <= ln(2)/2: softmax is within its bound without the subtraction that the other costs */
/* as above, 2**-28.2 */
#define EXP_COEFFICIENTS                                                                                   \
    {1.3821273e-3f, 8.368681e-3f, 4.1668262e-2f, 1.6666521e-1f, 4.9999994e-1f}
#define SQRT_HALF_BITS 0x3f3504f3
#define LOG2_HIGH 6.9313812256e-01f
#define LOG2_LOW 9.0580006145e-06f
#define LOG_COEFFICIENTS {0.24279078841f, 0.28498786688f, 0.40000972152f, 0.66666662693f}
#include "real.h"
#include "sums.h"
#include "passes.h"
#include "rows.h"
#include "lanes.h"
#ifdef PART
#include PART
#endif
#include "undef.h"
