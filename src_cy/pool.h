/* The blocks of a call, shared out among its own thread and helpers that sleep between calls.
 *
 * Helpers are plain threads that Python does not know: one is at work 7 to 25 us after it was asked, and asking takes
 * 3, where a Python thread must be woken and take the GIL, 60 us in all. One call at a time has them; others that come
 * meanwhile run alone. */
#pragma once
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <time.h>

typedef struct {
    void (*run)(const void *call, ptrdiff_t start, ptrdiff_t stop);
    const void *call;
    ptrdiff_t rows, step;
    _Atomic ptrdiff_t next;
    int given_up;
} Work;

typedef struct {
    pthread_mutex_t lock;
    pthread_cond_t asked, done;
    Work *work;          /* of the call that has the pool */
    int helpers, wanted; /* in all; and how many may still join */
    _Atomic int active;  /* helpers on the work */
} Pool;

#define NEW_POOL                                                                                           \
    {                                                                                                      \
        .lock = PTHREAD_MUTEX_INITIALIZER, .asked = PTHREAD_COND_INITIALIZER, .done = PTHREAD_COND_INITIALIZER \
    }
static Pool pool = NEW_POOL;
static unsigned forks; /* since the first of this process's parents */

/* Take the next block, and whether there is one. */
static int take_block(Work *w, ptrdiff_t *start, ptrdiff_t *stop) {
    *start = atomic_fetch_add(&w->next, w->step);
    *stop = *start + w->step < w->rows ? *start + w->step : w->rows;
    return *start < w->rows;
}

/* Have no further block taken, and those that are stop within long rows. */
static void give_up(Work *w) {
    atomic_store(&w->next, w->rows);
    __atomic_store_n(&w->given_up, 1, __ATOMIC_RELAXED);
}

static void *helper(void *unused) {
    pthread_mutex_lock(&pool.lock);
    for (;;) {
        while (!pool.wanted) pthread_cond_wait(&pool.asked, &pool.lock);
        Work *w = pool.work;
        pool.wanted--;
        pool.active++;
        pthread_mutex_unlock(&pool.lock);
        for (ptrdiff_t start, stop; take_block(w, &start, &stop);) w->run(w->call, start, stop);
        pthread_mutex_lock(&pool.lock);
        if (!--pool.active) pthread_cond_signal(&pool.done);
    }
    return unused;
}

/* Signals are for Python's threads, so it blocks them all. */
static int start_helper(void) {
    pthread_t thread;
    pthread_attr_t attributes;
    sigset_t all, before;
    sigfillset(&all);
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attributes, 1 << 20);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int failed = pthread_create(&thread, &attributes, helper, NULL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
#if defined(__linux__) && defined(_GNU_SOURCE)
    if (!failed) pthread_setname_np(thread, "fastsoftmax"); /* in top, gdb and the tests */
#endif
    return !failed;
}

static void renew_pool(void) {
    pool = (Pool)NEW_POOL;
    forks++;
}

/* A forked child has none of its parent's threads, and perhaps a lock that one of them held; a call that was forked in
 * a signal handler lacks the blocks that helpers had taken, and tells by `forks`. To be called on import: a fork that has
 * begun runs no handler that comes later, and without the GIL a first call may come meanwhile. */
static int renew_pool_in_children(void) {
    return pthread_atfork(NULL, NULL, renew_pool);
}

/* Ask for help with a call, and whether it will come. */
static int ask_for_help(Work *w, int helpers) {
    pthread_mutex_lock(&pool.lock);
    int is_free = !pool.work;
    while (is_free && pool.helpers < helpers && start_helper()) pool.helpers++;
    int comes = is_free && pool.helpers;
    if (comes) {
        pool.work = w;
        pool.wanted = helpers < pool.helpers ? helpers : pool.helpers;
        pthread_cond_broadcast(&pool.asked);
    }
    pthread_mutex_unlock(&pool.lock);
    return comes;
}

/* Leave it all to helpers, for 2 ms at most; whether they are done. */
static int wait_awhile(Work *w) {
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += 2 * 1000 * 1000;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    pthread_mutex_lock(&pool.lock);
    int is_late = 0, is_done;
    while (!(is_done = w->next >= w->rows && !pool.active) && !is_late)
        is_late = pthread_cond_timedwait(&pool.done, &pool.lock, &until);
    pthread_mutex_unlock(&pool.lock);
    return is_done;
}

/* When all blocks are taken: wait until those that helpers have taken are done. Mostly that is soon. */
static void wait_for_helpers(void) {
    pthread_mutex_lock(&pool.lock);
    pool.wanted = 0;
    pthread_mutex_unlock(&pool.lock);
    for (int i = 0; i < 100 && pool.active; i++) sched_yield();
    pthread_mutex_lock(&pool.lock);
    while (pool.active) pthread_cond_wait(&pool.done, &pool.lock);
    pool.work = NULL;
    pthread_mutex_unlock(&pool.lock);
}
