/*
 * base/thread.h - the one place where threads are made.
 *
 * Modules are passive; a thread is started here, told to stop by a flag of its owner, and joined.
 * Never cancelled.
 */
#ifndef PARLEY_BASE_THREAD_H
#define PARLEY_BASE_THREAD_H

#include <pthread.h>
#include <stdbool.h>

struct thread {
    pthread_t id;
};

/* Runs `main(arg)` on a new thread with all signals blocked; `name` (at most 15 characters) shows
 * in ps and gdb. 0 or negative errno. */
int thread_start(struct thread *t, const char *name, void *(*main)(void *), void *arg);

/* Waits for the end of `main`. */
void thread_join(struct thread *t);

/* Asks for real-time priority for the calling thread, or gives it back. 0 or negative errno: -EPERM
 * where the system allows none. */
int thread_realtime(bool on);

/* Processors this process may run on, at least 1. */
int thread_cpus(void);

#endif
