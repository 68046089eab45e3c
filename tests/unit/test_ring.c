/*
 * tests/unit/test_ring.c - rings between two threads: order, wrap-around, loss, and with the thread
 * sanitizer that nothing is touched by both sides at once.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <errno.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/ring.h"
#include "base/thread.h"
#include "base/util.h"

struct record {
    uint64_t position; /* the writer's own count */
    uint32_t words[5]; /* derived from it */
};

static struct record make(uint64_t position)
{
    struct record e = {.position = position};
    for (int i = 0; i < 5; i++)
        e.words[i] = (uint32_t)(position * 2654435761u) + (uint32_t)i;
    return e;
}

static void check(const struct record *e, uint64_t position)
{
    struct record want = make(position);
    assert_true(e->position == position);
    assert_memory_equal(e->words, want.words, sizeof(want.words));
}

/* Numbers that differ from run to run only if the seed does. */
static uint32_t any(uint32_t *seed, uint32_t below)
{
    *seed = *seed * 1664525u + 1013904223u;
    return (*seed >> 8) % below;
}

static void test_open(void **unused)
{
    (void)unused;
    struct ring *r = NULL;
    assert_int_equal(ring_open(&r, 0, 1, 0), -EINVAL);
    assert_int_equal(ring_open(&r, 1, 0, 0), -EINVAL);
    assert_int_equal(ring_open(&r, 1, SIZE_MAX, 0), -EINVAL);
    assert_int_equal(ring_open(&r, 16, SIZE_MAX / 2, 0), -EINVAL);
    assert_null(r);
    const size_t asked[][2] = {{1, 1}, {2, 2}, {3, 4}, {64, 64}, {65, 128}, {16000, 16384}};
    for (size_t i = 0; i < ARRAY_LEN(asked); i++) {
        assert_int_equal(ring_open(&r, 4, asked[i][0], 7), 0);
        assert_int_equal(ring_capacity(r), asked[i][1]);
        assert_int_equal(ring_write_room(r), asked[i][1]);
        assert_int_equal(ring_read_avail(r), 0);
        assert_true(ring_write_at(r) == 7 && ring_read_at(r) == 7 && ring_lost(r) == 0);
        ring_close(r);
    }
    ring_close(NULL);
}

/* Pages of a fresh ring are there before a real-time thread asks for them. */
static void test_touched(void **unused)
{
    (void)unused;
    struct ring *r = NULL;
    void *first;
    size_t bytes = (size_t)8 << 20, page = (size_t)sysconf(_SC_PAGESIZE);
    assert_int_equal(ring_open(&r, 1, bytes, 0), 0);
    assert_int_equal(ring_write_begin(r, &first, bytes), bytes);
    unsigned char *from = (unsigned char *)first + (page - (uintptr_t)first % page) % page;
    size_t n = (bytes - (size_t)(from - (unsigned char *)first)) / page, there = 0;
    unsigned char *resident = malloc(n);
    assert_non_null(resident);
    assert_int_equal(mincore(from, n * page, resident), 0);
    for (size_t i = 0; i < n; i++)
        there += resident[i] & 1;
    assert_int_equal(there, n);
    free(resident);
    ring_close(r);
}

static void test_full(void **unused)
{
    (void)unused;
    struct ring *r = NULL;
    float in[11], out[11] = {0};
    for (int i = 0; i < 11; i++)
        in[i] = (float)i;
    assert_int_equal(ring_open(&r, sizeof(float), 8, 0), 0);
    assert_int_equal(ring_write(r, in, 0), 0);
    assert_int_equal(ring_write(r, in, 5), 5);
    assert_int_equal(ring_write(r, in + 5, 6), 3); /* the oldest stay, the newest are refused */
    assert_int_equal(ring_lost(r), 3);
    assert_int_equal(ring_write_room(r), 0);
    assert_int_equal(ring_write(r, in, 2), 0);
    assert_int_equal(ring_lost(r), 5);
    assert_true(ring_write_at(r) == 8); /* what is lost has no position */
    assert_int_equal(ring_read(r, out, 0), 0);
    assert_int_equal(ring_read(r, out, 3), 3);
    assert_int_equal(ring_read(r, out + 3, 11), 5);
    assert_memory_equal(in, out, 8 * sizeof(float));
    assert_int_equal(ring_read(r, out, 11), 0);
    ring_close(r);
}

static void test_pieces(void **unused)
{
    (void)unused;
    struct ring *r = NULL;
    void *to;
    const void *from;
    uint32_t in[8] = {0, 1, 2, 3, 4, 5, 6, 7};
    assert_int_equal(ring_open(&r, sizeof(uint32_t), 8, 6), 0);
    assert_int_equal(ring_write_begin(r, &to, 8), 2); /* positions 6, 7; then the memory ends */
    memcpy(to, in, 2 * sizeof(uint32_t));
    assert_int_equal(ring_read_avail(r), 0); /* not before it is said */
    ring_write_end(r, 2);
    assert_int_equal(ring_write_begin(r, &to, 8), 6);
    memcpy(to, in + 2, 6 * sizeof(uint32_t));
    ring_write_end(r, 4); /* fewer than offered */
    assert_int_equal(ring_read_avail(r), 6);
    assert_int_equal(ring_read_begin(r, &from, 8), 2);
    assert_memory_equal(from, in, 2 * sizeof(uint32_t));
    ring_read_end(r, 1);
    assert_int_equal(ring_read_begin(r, &from, 8), 1);
    assert_memory_equal(from, in + 1, sizeof(uint32_t));
    ring_read_end(r, 1);
    assert_int_equal(ring_read_begin(r, &from, 3), 3);
    assert_memory_equal(from, in + 2, 3 * sizeof(uint32_t));
    ring_read_end(r, 3);
    assert_int_equal(ring_read_begin(r, &from, 3), 1);
    ring_read_end(r, 0);
    assert_int_equal(ring_read_avail(r), 1);
    assert_int_equal(ring_write_room(r), 7);
    ring_close(r);
}

static void test_skip(void **unused)
{
    (void)unused;
    const uint64_t starts[] = {0, UINT32_MAX - 2, UINT64_MAX - 2};
    for (size_t i = 0; i < ARRAY_LEN(starts); i++) {
        struct ring *r = NULL;
        uint64_t at = starts[i], e;
        assert_int_equal(ring_open(&r, sizeof(e), 16, at), 0);
        for (uint64_t k = 0; k < 10; k++)
            ring_write(r, &(uint64_t){at + k}, 1);
        assert_int_equal(ring_read_skip(r, at), 0);
        assert_int_equal(ring_read_skip(r, at - 5), 0); /* long gone */
        assert_int_equal(ring_read_skip(r, at + 4), 4);
        assert_int_equal(ring_read(r, &e, 1), 1);
        assert_true(e == at + 4);
        assert_int_equal(ring_read_skip(r, at + 100), 5); /* what is there */
        assert_true(ring_read_at(r) == at + 10);
        ring_close(r);
    }
}

/* One thread, every mixture of writes and reads, across the wraps of 32 and 64 bits. */
static void mixture(uint64_t start, size_t capacity, uint32_t seed)
{
    struct ring *r = NULL;
    struct record buf[40];
    uint64_t in = start, out = start, lost = 0;
    assert_int_equal(ring_open(&r, sizeof(struct record), capacity, start), 0);
    for (int step = 0; step < 4000; step++) {
        size_t n = any(&seed, ARRAY_LEN(buf) + 1), done;
        if (any(&seed, 2)) {
            for (size_t i = 0; i < n; i++)
                buf[i] = make(in + i);
            size_t room = ring_write_room(r);
            done = ring_write(r, buf, n);
            assert_int_equal(done, min_size(n, room));
            in += done;
            lost += n - done;
        } else {
            size_t there = ring_read_avail(r);
            done = ring_read(r, buf, n);
            assert_int_equal(done, min_size(n, there));
            for (size_t i = 0; i < done; i++)
                check(&buf[i], out + i);
            out += done;
        }
        assert_true(ring_write_at(r) == in && ring_read_at(r) == out && ring_lost(r) == lost);
        assert_true(ring_read_avail(r) + ring_write_room(r) == ring_capacity(r));
    }
    ring_close(r);
}

static void test_wraps(void **unused)
{
    (void)unused;
    const uint64_t starts[] = {0, 5, (UINT64_C(1) << 32) - 1000, UINT64_MAX - 1000, INT64_MAX - 7u};
    for (size_t i = 0; i < ARRAY_LEN(starts); i++)
        for (size_t capacity = 1; capacity <= 64; capacity *= 4)
            mixture(starts[i], capacity, (uint32_t)(i * 100 + capacity));
}

struct pair {
    struct ring *r;
    uint64_t start, n; /* elements to be sent */
    bool lossy;        /* the producer does not wait for room */
    bool in_place;     /* written and read without a copy */
    _Atomic bool done;
};

static size_t put(struct pair *p, uint64_t at, size_t n)
{
    struct record buf[32];
    void *to = buf;
    if (p->in_place)
        n = ring_write_begin(p->r, &to, n);
    for (size_t i = 0; i < n; i++)
        ((struct record *)to)[i] = make(at + i);
    if (!p->in_place)
        return ring_write(p->r, buf, n);
    ring_write_end(p->r, n);
    return n;
}

static void *produce(void *arg)
{
    struct pair *p = arg;
    uint32_t seed = 1;
    for (uint64_t i = 0; i < p->n;) {
        size_t n = min_size(1 + any(&seed, 32), (size_t)(p->n - i));
        size_t done = put(p, p->start + i, p->lossy ? n : min_size(n, ring_write_room(p->r)));
        i += p->lossy ? n : done; /* refused elements are gone, and counted */
        if (done == 0 || any(&seed, 64) == 0)
            sched_yield();
    }
    atomic_store(&p->done, true);
    return NULL;
}

static size_t take(struct pair *p, struct record *buf, size_t n)
{
    if (!p->in_place)
        return ring_read(p->r, buf, n);
    const void *from;
    n = ring_read_begin(p->r, &from, n);
    memcpy(buf, from, n * sizeof(*buf));
    ring_read_end(p->r, n);
    return n;
}

/* The consumer is the test's own thread. Returns how many arrived, all in order. */
static uint64_t consume(struct pair *p)
{
    struct record buf[32];
    uint64_t got = 0, next = p->start;
    uint32_t seed = 2;
    for (;;) {
        bool done = atomic_load(&p->done); /* before the look at the ring */
        size_t n = take(p, buf, 1 + any(&seed, 32));
        if (n == 0 && done)
            return got;
        if (n == 0)
            sched_yield();
        for (size_t i = 0; i < n; i++) {
            assert_true((int64_t)(buf[i].position - next) >= 0);
            if (!p->lossy)
                assert_true(buf[i].position == next);
            check(&buf[i], buf[i].position);
            next = buf[i].position + 1;
        }
        got += n;
    }
}

static void stress(uint64_t start, size_t capacity, bool lossy, bool in_place)
{
    struct pair p = {.start = start, .n = 200000, .lossy = lossy, .in_place = in_place};
    struct thread t;
    atomic_init(&p.done, false);
    assert_int_equal(ring_open(&p.r, sizeof(struct record), capacity, start), 0);
    assert_int_equal(thread_start(&t, "producer", produce, &p), 0);
    uint64_t got = consume(&p);
    thread_join(&t);
    assert_true(got + ring_lost(p.r) == p.n);
    assert_true(ring_write_at(p.r) == start + got && ring_read_at(p.r) == start + got);
    if (!lossy)
        assert_true(ring_lost(p.r) == 0);
    ring_close(p.r);
}

static void test_threads(void **unused)
{
    (void)unused;
    const uint64_t near32 = (UINT64_C(1) << 32) - 50000, near64 = UINT64_MAX - 50000;
    stress(0, 64, false, false);
    stress(near32, 1, false, false);
    stress(near32, 16, false, true);
    stress(near64, 128, false, false);
    stress(near64, 4, false, true);
    stress(near64, 32, true, false);
}

struct onlooker {
    struct ring *r;
    _Atomic bool stop;
    uint64_t last;
};

static void *look(void *arg)
{
    struct onlooker *o = arg;
    while (!atomic_load(&o->stop)) {
        uint64_t at = ring_write_at(o->r) + ring_read_at(o->r) + ring_lost(o->r);
        if (at < o->last)
            return arg; /* a counter went back */
        o->last = at;
        sched_yield();
    }
    return NULL;
}

/* A third thread may watch the counters. */
static void test_onlooker(void **unused)
{
    (void)unused;
    struct onlooker o = {.last = 0};
    struct thread t;
    int16_t period[160] = {0};
    atomic_init(&o.stop, false);
    assert_int_equal(ring_open(&o.r, sizeof(int16_t), 1024, 0), 0);
    assert_int_equal(thread_start(&t, "onlooker", look, &o), 0);
    for (int i = 0; i < 20000; i++) {
        ring_write(o.r, period, 160);
        if (i % 3)
            ring_read(o.r, period, 160);
    }
    atomic_store(&o.stop, true);
    thread_join(&t);
    assert_true(o.last <= ring_write_at(o.r) + ring_read_at(o.r) + ring_lost(o.r));
    assert_true(ring_write_at(o.r) + ring_lost(o.r) == 20000 * 160);
    ring_close(o.r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_open),    cmocka_unit_test(test_touched),
        cmocka_unit_test(test_full),    cmocka_unit_test(test_pieces),
        cmocka_unit_test(test_skip),    cmocka_unit_test(test_wraps),
        cmocka_unit_test(test_threads), cmocka_unit_test(test_onlooker),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
