/*
 * tests/unit/test_player.c - replies on their way to the loudspeaker: what is pulled is what was
 * written, through holds, drops, dry queues and threads, and nothing clicks.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <errno.h>
#include <math.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>

#include "audio/player.h"
#include "audio/resample.h"
#include "base/thread.h"
#include "base/util.h"

enum { SOURCE = 24000, RATE = 48000, PERIOD = 480, FADE = 240 };
#define PI 3.14159265358979323846

static struct player *open_player(int rate)
{
    struct player *p = NULL;
    const struct player_opts o = {.rate = rate};
    assert_int_equal(player_open(&p, &o, NULL), 0);
    return p;
}

/* A tone of the source whose every sample is different for a while. */
static void tone(float *pcm, size_t n, size_t from, double hz, double rate)
{
    for (size_t i = 0; i < n; i++)
        pcm[i] = (float)(0.5 * sin(2.0 * PI * hz * (double)(from + i) / rate));
}

static void write_all(struct player *p, uint32_t answer, const float *pcm, size_t n)
{
    assert_int_equal(player_write(p, answer, pcm, n), n);
}

static float biggest_step(const float *x, size_t n)
{
    float most = 0.0f;
    for (size_t i = 1; i < n; i++)
        most = fmaxf(most, fabsf(x[i] - x[i - 1]));
    return most;
}

static bool silent(const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (x[i] != 0.0f)
            return false;
    return true;
}

static void test_options(void **unused)
{
    (void)unused;
    const struct player_opts bad[] = {{.rate = 10},         {.rate = -1},     {.source_rate = 1},
                                      {.queue_ms = 1},      {.fade_ms = 500}, {.refill_ms = 3000},
                                      {.queue_ms = 1 << 30}};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct problems why = {0};
        struct player *p = NULL;
        assert_int_equal(player_open(&p, &bad[i], &why), -EINVAL);
        assert_int_equal(why.n, 1);
        assert_null(p);
        problems_free(&why);
    }
    struct player *p = NULL;
    assert_int_equal(player_open(&p, NULL, NULL), 0);
    assert_int_equal(player_begin(p, 0), -EINVAL);
    player_close(p);
    player_close(NULL);
}

/* The whole path at four rates: length to the sample, tone and level right, alias 60 dB down. */
static void test_rates(void **unused)
{
    (void)unused;
    const int rates[] = {16000, 32000, 44100, 48000};
    enum { N = 12000 }; /* half a second */
    static float in[N], out[48000];
    for (size_t r = 0; r < ARRAY_LEN(rates); r++) {
        struct player *p = open_player(rates[r]);
        struct player_state s;
        tone(in, N, 0, 1000.0, SOURCE);
        assert_int_equal(player_begin(p, 1), 0);
        write_all(p, 1, in, N);
        player_end(p, 1);
        player_play(p, 1);
        player_pull(p, out, 48000);
        size_t want = (size_t)ceil((double)N * rates[r] / SOURCE);
        assert_true(silent(out + want, 48000 - want));
        double worst = 0.0;
        for (size_t i = 1000; i < want - 1000; i++)
            worst = fmax(worst, fabs(out[i] - 0.5 * sin(2.0 * PI * 1000.0 * (double)i / rates[r])));
        assert_true(worst < 1e-3);
        player_state(p, &s);
        assert_true(s.ended && !s.playing && s.pulled == N && s.queued == 0 && s.starved == 0);
        assert_true(player_heard(p, 1, 0) == N);
        player_close(p);
    }
}

/* However the reply is cut into pieces, and however it is pulled, the same bits come out. */
static void test_pieces(void **unused)
{
    (void)unused;
    enum { N = 9000, OUT = 20000 };
    static float in[N], whole[OUT], parts[OUT];
    struct player *p = open_player(RATE), *q = open_player(RATE);
    tone(in, N, 0, 777.0, SOURCE);
    assert_int_equal(player_begin(p, 1), 0);
    assert_int_equal(player_begin(q, 1), 0);
    write_all(p, 1, in, N);
    for (size_t i = 0, k = 1; i < N; i += k, k = k * 7 % 401 + 1) {
        k = min_size(k, N - i);
        write_all(q, 1, in + i, k);
    }
    player_end(p, 1);
    player_end(q, 1);
    player_play(p, 1);
    player_play(q, 1);
    player_pull(p, whole, OUT);
    for (size_t i = 0, k = 1; i < OUT; i += k, k = k * 11 % 977 + 1) {
        k = min_size(k, OUT - i);
        player_pull(q, parts + i, k);
    }
    assert_memory_equal(whole, parts, sizeof(whole));
    player_close(p);
    player_close(q);
}

/* Held and resumed twice, once in mid-fade: silence, no click, and every sample in its place. */
static void test_hold(void **unused)
{
    (void)unused;
    enum { N = 24000, PERIODS = 140 };
    static float in[N], plain[PERIODS * PERIOD], held[PERIODS * PERIOD];
    struct player *p = open_player(RATE), *q = open_player(RATE);
    tone(in, N, 0, 400.0, SOURCE);
    for (int i = 0; i < 2; i++) {
        struct player *x = i == 0 ? p : q;
        assert_int_equal(player_begin(x, 1), 0);
        write_all(x, 1, in, N);
        player_end(x, 1);
        player_play(x, 1);
    }
    for (size_t i = 0; i < PERIODS; i++) {
        player_pull(p, plain + i * PERIOD, PERIOD);
        if (i == 20 || i == 40)
            player_hold(q);
        if (i == 30 || i == 41)
            player_play(q, 1);
        player_pull(q, held + i * PERIOD, PERIOD);
        if (i == 20) {
            assert_true(silent(held + i * PERIOD + FADE, PERIOD - FADE));
            assert_true(player_heard(q, 1, 0) == 20 * PERIOD / 2);
            assert_true(player_heard(q, 1, PERIOD + 100) == 20 * PERIOD / 2 - 50);
        }
    }
    assert_true(biggest_step(held, PERIODS * PERIOD) < 0.05f);
    assert_true(silent(held + 21 * PERIOD, 9 * PERIOD));
    assert_memory_equal(held, plain, 20 * PERIOD * sizeof(float));
    /* 10 periods later by the first hold, one more by the second; the fades in are left out. */
    assert_memory_equal(held + 30 * PERIOD + FADE, plain + 20 * PERIOD + FADE,
                        (10 * PERIOD - FADE) * sizeof(float));
    assert_memory_equal(held + 41 * PERIOD + FADE, plain + 30 * PERIOD + FADE,
                        (70 * PERIOD - FADE) * sizeof(float));
    assert_true(player_heard(q, 1, 0) == N);
    player_close(p);
    player_close(q);
}

/* Full scale that never changes is the worst case for clicks. */
static void test_no_steps(void **unused)
{
    (void)unused;
    enum { N = 24000, PERIODS = 120 };
    static float in[N], out[PERIODS * PERIOD], ear[4800];
    struct player *p = open_player(RATE);
    for (size_t i = 0; i < N; i++)
        in[i] = 1.0f;
    for (size_t i = 0; i < 4800; i++)
        ear[i] = 0.3f * (float)sin(2.0 * PI * 600.0 * (double)i / RATE);
    assert_int_equal(player_begin(p, 1), 0);
    player_play(p, 1);
    write_all(p, 1, in, N / 2);
    for (size_t i = 0; i < PERIODS; i++) {
        if (i == 5 || i == 6 || i == 22)
            player_earcon(p, ear, ARRAY_LEN(ear));
        if (i == 10 || i == 75)
            player_hold(p);
        if (i == 13 || i == 76)
            player_play(p, 1);
        if (i == 20)
            player_volume(p, 0.1f);
        if (i == 25)
            player_volume(p, 0.9f);
        if (i == 60) { /* it ran dry at 53 */
            write_all(p, 1, in, N / 2);
            player_end(p, 1);
        }
        if (i == 100)
            player_drop(p, 1);
        player_pull(p, out + i * PERIOD, PERIOD);
    }
    assert_true(biggest_step(out, PERIODS * PERIOD) < 0.05f);
    assert_true(silent(out + 101 * PERIOD, 19 * PERIOD));
    assert_true(fabsf(out[24 * PERIOD] - 0.1f * (1.0f + 0.0f)) < 0.05f); /* with an earcon */
    assert_true(fabsf(out[30 * PERIOD] - 0.9f) < 1e-3f);
    assert_false(player_silenced(p));
    player_volume(p, 0.0f);
    assert_false(player_silenced(p)); /* not before the device has been given it */
    player_pull(p, out, PERIOD);
    assert_true(player_silenced(p));
    struct player_state s;
    player_state(p, &s);
    assert_true(s.starved > 0 && s.answer == 0);
    player_close(p);
}

/* A producer slower than real time: fades, waits for `refill`, loses nothing. */
static void test_starved(void **unused)
{
    (void)unused;
    enum { N = 48000, PERIODS = 800 };
    static float in[N], out[PERIODS * PERIOD];
    struct player *p = open_player(RATE);
    struct player_state s;
    tone(in, N, 0, 300.0, SOURCE);
    assert_int_equal(player_begin(p, 1), 0);
    player_play(p, 1);
    size_t at = 0, stretches = 0;
    bool was = true;
    for (size_t i = 0; i < PERIODS; i++) {
        size_t k = min_size(N - at, i % 8 == 0 ? 960 : 0); /* half of real time */
        write_all(p, 1, in + at, k);
        at += k;
        if (at == N)
            player_end(p, 1);
        player_pull(p, out + i * PERIOD, PERIOD);
        bool is = silent(out + i * PERIOD, PERIOD);
        stretches += was && !is;
        was = is;
    }
    player_state(p, &s);
    assert_true(s.ended && s.starved > 50);
    assert_true(stretches >= 4 && stretches <= 9); /* of 300 ms and more, not of one frame */
    assert_true(player_heard(p, 1, 0) == N);
    assert_true(biggest_step(out, PERIODS * PERIOD) < 0.05f);
    player_close(p);
}

static void test_drop(void **unused)
{
    (void)unused;
    static float in[24000], out[10 * PERIOD];
    struct player *p = open_player(RATE);
    struct player_state s;
    tone(in, 24000, 0, 500.0, SOURCE);
    assert_int_equal(player_begin(p, 7), 0);
    write_all(p, 7, in, 24000);
    assert_int_equal(player_begin(p, 8), -EAGAIN);
    player_play(p, 7);
    player_pull(p, out, 10 * PERIOD);
    player_drop(p, 7);
    assert_false(player_wants(p, 7));
    assert_int_equal(player_write(p, 7, in, 100), 0);
    assert_true(player_heard(p, 7, 0) == 5 * PERIOD);

    /* The next one may be queued at once; it sounds behind the fade and starts with itself. */
    assert_int_equal(player_begin(p, 8), 0);
    player_play(p, 8);
    write_all(p, 8, in, 12000);
    assert_int_equal(player_write(p, 7, in, 100), 0);
    player_pull(p, out, PERIOD);
    assert_true(silent(out + FADE, PERIOD - FADE));
    assert_true(player_heard(p, 8, 0) == 0);
    player_pull(p, out, 2 * PERIOD);
    assert_true(player_heard(p, 8, 0) == PERIOD && player_heard(p, 7, 0) == 5 * PERIOD);
    assert_true(fabs(out[PERIOD] - 0.5 * sin(2.0 * PI * 500.0 * PERIOD / RATE)) < 1e-3);

    /* Dropped before it began, and all before it. */
    player_drop(p, 10);
    assert_int_equal(player_begin(p, 9), 0);
    assert_int_equal(player_write(p, 9, in, 100), 0);
    assert_int_equal(player_begin(p, 11), 0);
    assert_true(player_room(p) > 0);
    player_state(p, &s);
    assert_true(s.answer == 11 && !s.playing && s.pulled == 0 && s.queued == 0);
    player_pull(p, out, 3 * PERIOD);
    assert_true(player_heard(p, 7, 0) == 0 && player_heard(p, 8, 0) == PERIOD);
    player_close(p);
}

/* Unheard until play; the queue is bounded; the earcon sounds while a reply is held. */
static void test_queue(void **unused)
{
    (void)unused;
    static float in[SOURCE * 6], out[PERIOD], ear[2 * PERIOD];
    struct player *p = open_player(RATE);
    struct player_state s;
    for (size_t i = 0; i < ARRAY_LEN(in); i++)
        in[i] = 0.25f;
    for (size_t i = 0; i < ARRAY_LEN(ear); i++)
        ear[i] = 0.125f;
    assert_int_equal(player_begin(p, 1), 0);
    size_t took = player_write(p, 1, in, ARRAY_LEN(in));
    assert_true(took >= 4 * SOURCE && took < ARRAY_LEN(in));
    took += player_write(p, 1, in, ARRAY_LEN(in)); /* the little that lay in the filter */
    assert_int_equal(player_write(p, 1, in, 1000), 0);
    player_pull(p, out, PERIOD);
    assert_true(silent(out, PERIOD));
    player_state(p, &s);
    assert_true(s.answer == 1 && !s.playing && s.queued == took && s.pulled == 0);
    player_earcon(p, ear, ARRAY_LEN(ear));
    player_pull(p, out, PERIOD);
    assert_true(out[0] == 0.125f && out[PERIOD - 1] == 0.125f);
    player_pull(p, out, PERIOD);
    player_end(p, 1); /* its tail finds room even in a full queue */
    player_play(p, 1);
    for (int i = 0; i < 20; i++)
        player_pull(p, out, PERIOD);
    player_state(p, &s);
    assert_true(s.playing && s.pulled == 20 * PERIOD / 2 && s.queued == took - s.pulled);
    for (int i = 0; i < 600; i++)
        player_pull(p, out, PERIOD);
    player_state(p, &s);
    assert_true(s.ended && s.starved == 0 && s.pulled == took);
    assert_int_equal(player_begin(p, 2), 0);
    player_close(p);
}

/* Three threads: one writes answers whose samples say where they belong, one takes the floor this
 * way and that, this one pulls and checks. */
struct stress {
    struct player *p;
    _Atomic bool stop;
    _Atomic uint32_t begun;
};

static void *produce(void *arg)
{
    struct stress *s = arg;
    static float pcm[960];
    for (uint32_t answer = 1; !atomic_load(&s->stop); answer++) {
        while (player_begin(s->p, answer) == -EAGAIN && !atomic_load(&s->stop))
            sched_yield();
        atomic_store(&s->begun, answer);
        for (int i = 0; i < 960; i++)
            pcm[i] = (float)(answer % 97 + 1) / 128.0f;
        for (size_t at = 0; at < 24000 && player_wants(s->p, answer) && !atomic_load(&s->stop);) {
            size_t k = player_write(s->p, answer, pcm, 960);
            at += k;
            if (k == 0)
                sched_yield();
        }
        player_end(s->p, answer);
    }
    return NULL;
}

static void *take_floor(void *arg)
{
    struct stress *s = arg;
    uint32_t seed = 1;
    while (!atomic_load(&s->stop)) {
        uint32_t answer = atomic_load(&s->begun);
        seed = seed * 1664525u + 1013904223u;
        switch ((seed >> 16) % 8) {
        case 0:
            player_drop(s->p, answer);
            break;
        case 1:
            player_hold(s->p);
            break;
        case 2:
            player_volume(s->p, 1.0f);
            break;
        default:
            player_play(s->p, answer);
        }
        struct player_state state;
        player_state(s->p, &state);
        assert_true(player_heard(s->p, answer, 480) <= 24000 + 960);
        for (int i = 0; i < 20; i++)
            sched_yield();
    }
    return NULL;
}

static void test_threads(void **unused)
{
    (void)unused;
    struct stress s = {.p = open_player(RATE)};
    struct thread producer, floor;
    static float out[PERIOD];
    float last = 0.0f, top = 0.0f;
    uint32_t sounded = 0;
    assert_int_equal(thread_start(&producer, "produce", produce, &s), 0);
    assert_int_equal(thread_start(&floor, "floor", take_floor, &s), 0);
    for (int i = 0; i < 20000 || (sounded < 20 && i < 2000000); i++) {
        player_pull(s.p, out, PERIOD);
        for (size_t k = 0; k < PERIOD; k++) {
            assert_true(fabsf(out[k] - last) < 0.05f);
            last = out[k];
            top = fmaxf(top, last);
            if (last == 0.0f && top > 0.0f) {
                sounded++;
                top = 0.0f;
            }
        }
        if (i % 16 == 0)
            sched_yield();
    }
    atomic_store(&s.stop, true);
    thread_join(&producer);
    thread_join(&floor);
    assert_true(sounded >= 20);
    player_close(s.p);
}

/* Two dropped replies are never heard in each other's place: the level tells whose sample it is. */
static void test_no_mixing(void **unused)
{
    (void)unused;
    static float in[4800], out[PERIOD];
    struct player *p = open_player(RATE);
    for (uint32_t answer = 1; answer < 60; answer++) {
        float level = (float)answer / 64.0f, most = 0.0f;
        for (size_t i = 0; i < ARRAY_LEN(in); i++)
            in[i] = level;
        assert_int_equal(player_begin(p, answer), 0);
        player_play(p, answer);
        write_all(p, answer, in, 600 + answer * 61);
        player_pull(p, out, PERIOD); /* the fade of the one before */
        for (int i = 0; i < 2; i++) {
            player_pull(p, out, PERIOD);
            for (size_t k = 0; k < PERIOD; k++)
                most = fmaxf(most, out[k]);
        }
        assert_true(most <= level * 1.2f && most >= level * 0.9f);
        player_drop(p, answer);
    }
    player_close(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_options),   cmocka_unit_test(test_rates),
        cmocka_unit_test(test_pieces),    cmocka_unit_test(test_hold),
        cmocka_unit_test(test_no_steps),  cmocka_unit_test(test_starved),
        cmocka_unit_test(test_drop),      cmocka_unit_test(test_queue),
        cmocka_unit_test(test_no_mixing), cmocka_unit_test(test_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
