/* The kernels and the pool of a machine that has no Python here: rows shared out among threads have the bits of rows alone,
 * and sum to 1. Prints the level, in how many calls help came, and a hash of the results. */
#include "levels.h"
#include "pool.h"
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

enum { CALLS = 200, MOST = 3 << 18 };
static double x[MOST], alone[MOST], shared[MOST];
static const Kernels *kernels;
static unsigned long long hash = 14695981039346656037ull; /* FNV-1a */

static void fill(int single, double scale) {
    unsigned long long s = 88172645463325252ull;
    for (ptrdiff_t i = 0; i < MOST; i++) {
        s ^= s << 13, s ^= s >> 7, s ^= s << 17;
        const double v = scale * ((double)(s >> 11) / (1ull << 53) - 0.5);
        if (single)
            ((float *)x)[i] = (float)v;
        else
            x[i] = v;
    }
}

static Call call_of(enum op op, int single, ptrdiff_t rows, ptrdiff_t n, void *out) {
    Call c = {.op = op, .a = x, .out = out, .single = single};
    c.s = (Layout){rows, n, 1, n, 1};
    c.sb = c.so = c.s;
    c.results_stride = 1;
    return c;
}

static void part(const void *call, ptrdiff_t start, ptrdiff_t stop) {
    Call c = *(const Call *)call;
    const ptrdiff_t bytes = start * c.s.n * (ptrdiff_t)(c.single ? sizeof(float) : sizeof(double));
    c.a = (char *)c.a + bytes, c.out = (char *)c.out + bytes, c.s.outer = stop - start;
    kernels->run(&c);
}

/* Whether help came; where it does, every second call leaves all to it. */
static int share(const Call *c, ptrdiff_t step, int leave) {
    Work w = {.run = part, .call = c, .rows = c->s.outer, .step = step};
    const int helped = ask_for_help(&w, 3);
    while (helped && leave && !wait_awhile(&w)) {}
    for (ptrdiff_t start, stop; take_block(&w, &start, &stop);) part(c, start, stop);
    if (helped) wait_for_helpers();
    return helped;
}

/* Each number from its lowest byte on, wherever that lies in memory: machines of both orders have the same hash. */
static void add_to_hash(const void *numbers, ptrdiff_t count, int single) {
    for (ptrdiff_t i = 0; i < count; i++) {
        uint32_t low = 0;
        uint64_t bits = 0;
        if (single)
            memcpy(&low, (const float *)numbers + i, sizeof low), bits = low;
        else
            memcpy(&bits, (const double *)numbers + i, sizeof bits);
        for (int shift = 0; shift < (single ? 32 : 64); shift += 8) hash = (hash ^ (bits >> shift & 255)) * 1099511628211ull;
    }
}

static int sums_to_one(const Call *c) {
    for (ptrdiff_t i = 0; i < c->s.outer; i++) {
        double sum = 0;
        for (ptrdiff_t j = 0; j < c->s.n; j++)
            sum += c->single ? ((float *)c->out)[i * c->s.n + j] : ((double *)c->out)[i * c->s.n + j];
        if (!(fabs(sum - 1) < (c->single ? 1e-5 : 1e-13))) return 0;
    }
    return 1;
}

static int check(int single, ptrdiff_t rows, ptrdiff_t n, int *helped) {
    const size_t bytes = (size_t)(rows * n) * (single ? sizeof(float) : sizeof(double));
    const Call one = call_of(SOFTMAX, single, rows, n, alone), many = call_of(SOFTMAX, single, rows, n, shared);
    kernels->run(&one);
    add_to_hash(alone, rows * n, single);
    for (int i = 0; i < CALLS; i++) {
        memset(shared, 0, bytes);
        *helped += share(&many, rows > 8 ? rows / 8 : 1, i % 2);
        if (memcmp(alone, shared, bytes)) return 0;
    }
    return sums_to_one(&one);
}

int main(void) {
#define NAME(level) #level,
    static const char *const levels[] = {LEVELS(NAME)};
    kernels = kernels_of(levels[0]);
    int good = !renew_pool_in_children(), helped = 0, calls = 0;
    for (int single = 0; single < 2; single++) {
        fill(single, 30);
        for (ptrdiff_t n = 1; n <= MOST / 6; n = n * 3 + 1, calls += CALLS)
            good = good && check(single, n < 1000 ? 1000 / n : 3, n, &helped);
    }
    printf("%s, vectors of %d bytes: %s, help in %d of %d calls, %016llx\n", levels[0], (int)kernels->vector_bytes,
           good ? "good" : "WRONG", helped, calls, hash);
    return !good;
}
