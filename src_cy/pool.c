#include "system.h"
#include "pool.h"

typedef struct {
    Lock lock;
    Word asked, done;
    Work *work;          /* of the call that has the pool */
    int helpers, wanted; /* in all; and how many may still join */
    _Atomic int active;  /* helpers on the work */
} Pool;

#define NEW_POOL {.lock = NEW_LOCK, .asked = NEW_WORD, .done = NEW_WORD}
static Pool pool = NEW_POOL;
unsigned forks;

static void helper(void) {
    take(&pool.lock);
    for (;;) {
        while (!pool.wanted) wait_for(&pool.asked, &pool.lock);
        Work *w = pool.work;
        pool.wanted--;
        pool.active++;
        give(&pool.lock);
        for (ptrdiff_t start, stop; take_block(w, &start, &stop);) w->run(w->call, start, stop);
        take(&pool.lock);
        if (!--pool.active) tell_one(&pool.done);
    }
}

static void renew_pool(void) {
    pool = (Pool)NEW_POOL;
    forks++;
}

/* A forked child has none of its parent's threads, and perhaps a lock that one of them held; a call that was forked in
 * a signal handler lacks the blocks that helpers had taken, and tells by `forks`. */
int renew_pool_in_children(void) { return call_in_children(renew_pool); }

int ask_for_help(Work *w, int helpers) {
    take(&pool.lock);
    int is_free = !pool.work;
    while (is_free && pool.helpers < helpers && start_thread(helper)) pool.helpers++;
    int comes = is_free && pool.helpers;
    if (comes) {
        pool.work = w;
        pool.wanted = helpers < pool.helpers ? helpers : pool.helpers;
        tell_all(&pool.asked);
    }
    give(&pool.lock);
    return comes;
}

int wait_awhile(Work *w) {
    take(&pool.lock);
    int is_late = 0, is_done;
    while (!(is_done = w->next >= w->rows && !pool.active) && !is_late) is_late = !wait_2_ms_for(&pool.done, &pool.lock);
    give(&pool.lock);
    return is_done;
}

void wait_for_helpers(void) {
    take(&pool.lock);
    pool.wanted = 0;
    give(&pool.lock);
    for (int i = 0; i < 100 && pool.active; i++) give_way();
    take(&pool.lock);
    while (pool.active) wait_for(&pool.done, &pool.lock);
    pool.work = NULL;
    give(&pool.lock);
}
