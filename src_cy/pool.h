/* The blocks of a call, shared out among its own thread and helpers that sleep between calls.
 *
 * Helpers are plain threads that Python does not know: one is at work 7 to 25 us after it was asked, and asking takes
 * 3, where a Python thread must be woken and take the GIL, 60 us in all. One call at a time has them; others that come
 * meanwhile run alone. */
#pragma once
#include <stdatomic.h>
#include <stddef.h>

typedef struct {
    void (*run)(const void *call, ptrdiff_t start, ptrdiff_t stop);
    const void *call;
    ptrdiff_t rows, step;
    _Atomic ptrdiff_t next;
    int given_up;
} Work;

extern unsigned forks; /* since the first of this process's parents */

/* To be called on import: a fork that has begun runs no handler that comes later, and without the GIL a first call may come
 * meanwhile. Not 0 where there is no room for a handler. */
int renew_pool_in_children(void);

/* Ask for help with a call, and whether it will come. */
int ask_for_help(Work *w, int helpers);

/* Leave it all to helpers, for some 2 ms; whether they are done. */
int wait_awhile(Work *w);

/* When all blocks are taken: wait until those that helpers have taken are done. Mostly that is soon. */
void wait_for_helpers(void);

/* Take the next block, and whether there is one. */
static inline int take_block(Work *w, ptrdiff_t *start, ptrdiff_t *stop) {
    *start = atomic_fetch_add(&w->next, w->step);
    *stop = *start + w->step < w->rows ? *start + w->step : w->rows;
    return *start < w->rows;
}

/* Have no further block taken, and those that are stop within long rows. */
static inline void give_up(Work *w) {
    atomic_store(&w->next, w->rows);
    __atomic_store_n(&w->given_up, 1, __ATOMIC_RELAXED);
}
