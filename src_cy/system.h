/* What the pool needs of a system: locks, words that are waited for under one, threads that signals pass by, and calls in
 * forked children. Waiting for 2 ms says whether the word came. */
#pragma once

#if defined(_WIN32) /* it has no forks, and signals are for Python's own thread */
#define WIN32_LEAN_AND_MEAN
#include <windows.h>

typedef SRWLOCK Lock;
typedef CONDITION_VARIABLE Word;
#define NEW_LOCK SRWLOCK_INIT
#define NEW_WORD CONDITION_VARIABLE_INIT

static void take(Lock *lock) { AcquireSRWLockExclusive(lock); }
static void give(Lock *lock) { ReleaseSRWLockExclusive(lock); }
static void tell_one(Word *word) { WakeConditionVariable(word); }
static void tell_all(Word *word) { WakeAllConditionVariable(word); }
static void wait_for(Word *word, Lock *lock) { SleepConditionVariableSRW(word, lock, INFINITE, 0); }
static int wait_2_ms_for(Word *word, Lock *lock) { return SleepConditionVariableSRW(word, lock, 2, 0) != 0; }
static void give_way(void) { SwitchToThread(); }

static DWORD WINAPI started(void *run) {
    ((void (*)(void))run)();
    return 0;
}
static int start_thread(void (*run)(void)) {
    HANDLE thread = CreateThread(NULL, 1 << 20, started, (void *)run, 0, NULL);
    if (thread) CloseHandle(thread);
    return thread != NULL;
}
static int call_in_children(void (*run)(void)) {
    (void)run;
    return 0;
}

#elif defined(__wasm__) /* a thread would need memory that is shared: none starts, so none is waited for */
typedef char Lock, Word;
#define NEW_LOCK 0
#define NEW_WORD 0

static void take(Lock *lock) { (void)lock; }
static void give(Lock *lock) { (void)lock; }
static void tell_one(Word *word) { (void)word; }
static void tell_all(Word *word) { (void)word; }
static void wait_for(Word *word, Lock *lock) { (void)word, (void)lock; }
static int wait_2_ms_for(Word *word, Lock *lock) { return (void)word, (void)lock, 0; }
static void give_way(void) {}
static int start_thread(void (*run)(void)) { return (void)run, 0; }
static int call_in_children(void (*run)(void)) { return (void)run, 0; }

#else /* POSIX */
#define _GNU_SOURCE /* for names of threads */
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <time.h>

typedef pthread_mutex_t Lock;
typedef pthread_cond_t Word;
#define NEW_LOCK PTHREAD_MUTEX_INITIALIZER
#define NEW_WORD PTHREAD_COND_INITIALIZER

static void take(Lock *lock) { pthread_mutex_lock(lock); }
static void give(Lock *lock) { pthread_mutex_unlock(lock); }
static void tell_one(Word *word) { pthread_cond_signal(word); }
static void tell_all(Word *word) { pthread_cond_broadcast(word); }
static void wait_for(Word *word, Lock *lock) { pthread_cond_wait(word, lock); }
static int wait_2_ms_for(Word *word, Lock *lock) {
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += 2 * 1000 * 1000;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    return !pthread_cond_timedwait(word, lock, &until);
}
static void give_way(void) { sched_yield(); }

static void *started(void *run) {
    ((void (*)(void))run)();
    return NULL;
}
/* Signals are for Python's threads, so it blocks them all. */
static int start_thread(void (*run)(void)) {
    pthread_t thread;
    pthread_attr_t attributes;
    sigset_t all, before;
    sigfillset(&all);
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attributes, 1 << 20);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int failed = pthread_create(&thread, &attributes, started, (void *)run);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
#if defined(__linux__)
    if (!failed) pthread_setname_np(thread, "fastsoftmax"); /* in top, gdb and the tests */
#endif
    return !failed;
}
static int call_in_children(void (*run)(void)) { return pthread_atfork(NULL, NULL, run); }
#endif
