/*
 * kernels/cpu/pool.c - fork and join within a microsecond.
 *
 * One word, `gate`, says whether a job is open and how many workers are inside it:
 *
 *     owner    writes the job; opens the gate; claims tasks like everyone; closes the gate; waits
 *              until nobody is inside. Only then may it write the next job.
 *     worker   enters (adds one) only while the gate is open; claims tasks until none is left;
 *              leaves (takes one off).
 *
 * So the owner never waits for a worker that slept through the job, and a worker that comes late
 * finds the gate closed. Who has watched in vain for a while sleeps on a condition variable,
 * workers and owner alike. `sleepers` is raised before a worker's last look at the gate and read
 * after the gate was opened, both sequentially consistent, hence one of the two sees the other;
 * `waiting` likewise.
 */
#include "kernels/cpu/pool.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>

#include "base/thread.h"

enum {
    OPEN = 1 << 16,  /* gate: a job may be entered; the bits below count those inside */
    WATCH = 2000,    /* looks at the gate before sleeping, 20-100 us */
    PATIENCE = 2000, /* looks at the last worker before sleeping, likewise */
};

struct pool {
    /* The job; written by the owner while nobody is inside. */
    void (*fn)(void *arg, int task, int worker);
    void *arg;
    int tasks;

    _Alignas(64) atomic_int gate;
    atomic_int sleepers;
    atomic_bool waiting; /* the owner sleeps until nobody is inside */
    atomic_bool stop;
    _Alignas(64) atomic_int next; /* the first task not claimed */

    pthread_mutex_t lock; /* guards nothing but the sleep */
    pthread_cond_t wake, left;
    int threads; /* with the owner; workers has one less that runs */
    struct worker *workers;
};

struct worker {
    struct pool *pool;
    int number; /* 1 .. threads - 1 */
    struct thread thread;
};

static void relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("isb");
#endif
}

static void work(struct pool *p, int worker)
{
    int task;
    while ((task = atomic_fetch_add_explicit(&p->next, 1, memory_order_relaxed)) < p->tasks)
        p->fn(p->arg, task, worker);
}

static bool enter(struct pool *p)
{
    int gate = atomic_load_explicit(&p->gate, memory_order_relaxed);
    while (gate & OPEN)
        if (atomic_compare_exchange_weak_explicit(&p->gate, &gate, gate + 1, memory_order_acquire,
                                                  memory_order_relaxed))
            return true;
    return false;
}

/* The last one out wakes an owner that has lost patience. */
static void leave(struct pool *p)
{
    if (atomic_fetch_sub(&p->gate, 1) != 1 || !atomic_load(&p->waiting))
        return;
    pthread_mutex_lock(&p->lock);
    pthread_cond_signal(&p->left);
    pthread_mutex_unlock(&p->lock);
}

static bool called(struct pool *p)
{
    return (atomic_load(&p->gate) & OPEN) || atomic_load(&p->stop);
}

/* Returns when a job is open or the pool ends. */
static void await(struct pool *p)
{
    for (int i = 0; i < WATCH; i++) {
        if (atomic_load_explicit(&p->gate, memory_order_relaxed) & OPEN)
            return;
        relax();
    }
    pthread_mutex_lock(&p->lock);
    atomic_fetch_add(&p->sleepers, 1);
    while (!called(p))
        pthread_cond_wait(&p->wake, &p->lock);
    atomic_fetch_sub(&p->sleepers, 1);
    pthread_mutex_unlock(&p->lock);
}

static void *worker_main(void *arg)
{
    struct worker *w = arg;
    struct pool *p = w->pool;
    while (!atomic_load_explicit(&p->stop, memory_order_relaxed)) {
        await(p);
        if (enter(p)) {
            work(p, w->number);
            leave(p);
            /* The job is over but may stay open for a moment: look away until it is closed. */
            while (atomic_load_explicit(&p->gate, memory_order_relaxed) & OPEN)
                relax();
        }
    }
    return NULL;
}

/* Waits until nobody is inside the closed gate. A worker that was taken off its processor in the
 * middle of a task needs one to finish it: then sleep, so that the system may use this one. */
static void join(struct pool *p)
{
    for (int i = 0; i < PATIENCE; i++) {
        if (atomic_load_explicit(&p->gate, memory_order_acquire) == 0)
            return;
        relax();
    }
    pthread_mutex_lock(&p->lock);
    atomic_store(&p->waiting, true);
    while (atomic_load(&p->gate) != 0)
        pthread_cond_wait(&p->left, &p->lock);
    atomic_store(&p->waiting, false);
    pthread_mutex_unlock(&p->lock);
}

static void wake_all(struct pool *p)
{
    pthread_mutex_lock(&p->lock);
    pthread_cond_broadcast(&p->wake);
    pthread_mutex_unlock(&p->lock);
}

void pool_run(struct pool *p, void (*fn)(void *arg, int task, int worker), void *arg, int tasks)
{
    if (tasks <= 1 || p->threads == 1) {
        for (int i = 0; i < tasks; i++)
            fn(arg, i, 0);
        return;
    }
    p->fn = fn;
    p->arg = arg;
    p->tasks = tasks;
    atomic_store_explicit(&p->next, 0, memory_order_relaxed);
    atomic_fetch_or(&p->gate, OPEN);
    if (atomic_load(&p->sleepers) > 0)
        wake_all(p);
    work(p, 0);
    atomic_fetch_and_explicit(&p->gate, ~OPEN, memory_order_acq_rel);
    join(p);
}

int pool_threads(const struct pool *p)
{
    return p->threads;
}

int pool_open(struct pool **ret, int threads)
{
    struct pool *p = aligned_alloc(64, sizeof(*p));
    struct worker *workers = calloc((size_t)threads, sizeof(*workers));
    if (p == NULL || workers == NULL) {
        free(p);
        free(workers);
        return -ENOMEM;
    }
    *p = (struct pool){.threads = 1, .workers = workers};
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->wake, NULL);
    pthread_cond_init(&p->left, NULL);
    for (int err; p->threads < threads; p->threads++) {
        struct worker *w = &workers[p->threads];
        *w = (struct worker){.pool = p, .number = p->threads};
        if ((err = thread_start(&w->thread, "kernels", worker_main, w)) < 0) {
            pool_close(p);
            return err;
        }
    }
    *ret = p;
    return 0;
}

void pool_close(struct pool *p)
{
    if (p == NULL)
        return;
    atomic_store(&p->stop, true);
    wake_all(p);
    for (int i = 1; i < p->threads; i++)
        thread_join(&p->workers[i].thread);
    pthread_cond_destroy(&p->wake);
    pthread_cond_destroy(&p->left);
    pthread_mutex_destroy(&p->lock);
    free(p->workers);
    free(p);
}
