/* base/thread.c - the one place where threads are made. */
#include "base/thread.h"

#include <sched.h>
#include <signal.h>

int thread_start(struct thread *t, const char *name, void *(*main)(void *), void *arg)
{
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old); /* signals are the main thread's business */
    int err = pthread_create(&t->id, NULL, main, arg);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (err != 0)
        return -err;
    pthread_setname_np(t->id, name);
    return 0;
}

void thread_join(struct thread *t)
{
    pthread_join(t->id, NULL);
}

int thread_realtime(bool on)
{
    const struct sched_param p = {.sched_priority = on ? 10 : 0};
    return -pthread_setschedparam(pthread_self(), on ? SCHED_FIFO : SCHED_OTHER, &p);
}

int thread_cpus(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof(set), &set) != 0)
        return 1;
    int n = CPU_COUNT(&set);
    return n > 0 ? n : 1;
}
