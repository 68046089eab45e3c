/*
 * kernels/cpu/pool.h - a few threads that share the tasks of one job at a time.
 *
 *     pool_run(p, fn, arg, tasks);    // fn(arg, task, worker) for every task, somewhere, once
 *
 * Tasks are claimed one by one, so a thread that the system holds up does not hold up the job.
 * Which thread runs a task is chance; tasks must not depend on it (`worker` only picks scratch
 * space). The caller works too, as worker 0. Between jobs the others watch for some tens of
 * microseconds, long enough for the next op of a step, then sleep.
 *
 * Threads: one owner calls pool_run; tasks may not.
 */
#ifndef PARLEY_KERNELS_CPU_POOL_H
#define PARLEY_KERNELS_CPU_POOL_H

struct pool;

/* `threads` counts the caller. 0, or negative errno when a thread could not be started. */
int pool_open(struct pool **ret, int threads);

int pool_threads(const struct pool *p);

void pool_run(struct pool *p, void (*fn)(void *arg, int task, int worker), void *arg, int tasks);

/* Joins the threads; NULL is allowed. */
void pool_close(struct pool *p);

#endif
