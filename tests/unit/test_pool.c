/*
 * tests/unit/test_pool.c - every task of every job runs exactly once, whatever the threads do.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "kernels/cpu/pool.h"

enum { TASKS = 64 };

struct counting {
    int runs[TASKS]; /* not atomic: a task belongs to one thread at a time */
    int worker[TASKS];
};

static void count_task(void *arg, int task, int worker)
{
    struct counting *c = arg;
    c->runs[task]++;
    c->worker[task] = worker;
}

static void jobs(int threads, int rounds)
{
    struct pool *p = NULL;
    assert_int_equal(pool_open(&p, threads), 0);
    assert_int_equal(pool_threads(p), threads);
    for (int i = 0; i < rounds; i++) {
        struct counting c = {0};
        int tasks = i % (TASKS + 1);
        pool_run(p, count_task, &c, tasks);
        for (int t = 0; t < TASKS; t++) {
            assert_int_equal(c.runs[t], t < tasks);
            assert_in_range(c.worker[t], 0, threads - 1);
        }
        if (i % 1000 == 999)
            usleep(2000); /* long enough for the workers to fall asleep */
    }
    pool_close(p);
}

static void test_jobs(void **unused)
{
    (void)unused;
    jobs(1, 200);
    jobs(2, 20000);
    jobs(3, 5000);
    jobs(9, 2000);
}

static void sleep_task(void *arg, int task, int worker)
{
    (void)worker;
    usleep(200);
    ((int *)arg)[task]++;
}

/* Tasks that wait let the others have their share. */
static void test_slow_tasks(void **unused)
{
    (void)unused;
    struct pool *p = NULL;
    int runs[40] = {0};
    assert_int_equal(pool_open(&p, 4), 0);
    for (int i = 0; i < 5; i++)
        pool_run(p, sleep_task, runs, 40);
    for (int i = 0; i < 40; i++)
        assert_int_equal(runs[i], 5);
    pool_close(p);
}

/* Opening and closing, with the workers awake, asleep, or never needed. */
static void test_ends(void **unused)
{
    (void)unused;
    for (int i = 0; i < 50; i++) {
        struct pool *p = NULL;
        struct counting c = {0};
        assert_int_equal(pool_open(&p, 1 + i % 5), 0);
        if (i % 2)
            pool_run(p, count_task, &c, TASKS);
        if (i % 3 == 0)
            usleep(1000);
        pool_close(p);
    }
    pool_close(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_jobs),
        cmocka_unit_test(test_slow_tasks),
        cmocka_unit_test(test_ends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
