/*
 * tests/unit/test_turn_fuzz.c - turn taking under any events: millions of random ones, and thirty
 * simulated days of a household, with what obeys the actions (tests/support/floor.h) complaining
 * about each that makes no sense and each state that outlives its limit. All counters start just
 * before they wrap.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/util.h"
#include "daemon/turn.h"
#include "tests/support/floor.h"

enum { MS = 16, SECOND = 16000 };

static uint32_t any(uint64_t *seed, uint32_t below)
{
    *seed = *seed * UINT64_C(6364136223846793005) + 1442695040888963407u;
    return (uint32_t)((*seed >> 33) % below);
}

static void obey(struct floor *f, struct turn_event e, bool tagged)
{
    const char *wrong = floor_step(f, e, tagged);
    if (wrong != NULL) {
        char said[256];
        floor_say(f, said, sizeof(said));
        fail_msg("step %llu, %s in %s gave %s: broken rule: %s", (unsigned long long)f->steps,
                 turn_event_name(e.kind), turn_state_name(f->last.was), said, wrong);
    }
}

static void open_at_wraps(struct floor *f, const struct turn_opts *o, uint64_t start)
{
    assert_null(floor_open(f, o, start));
    f->turn.turn = UINT32_MAX - 3;
    f->turn.answer = UINT32_MAX - 3;
}

/* Mostly what conversations are made of, or hardly any state would live long. */
static enum turn_event_kind any_kind(uint64_t *seed)
{
    static const enum turn_event_kind usual[] = {
        TURN_SPEECH_ONSET, TURN_SPEECH_END, TURN_SPEECH_ONSET, TURN_SPEECH_END,   TURN_ANSWER_READY,
        TURN_UNMUTE,       TURN_MIC_BACK,   TURN_SPEAKER_BACK, TURN_ANSWER_READY,
    };
    if (any(seed, 20) != 0)
        return usual[any(seed, ARRAY_LEN(usual))];
    return (enum turn_event_kind)any(seed, TURN_EVENTS);
}

/* Any event at any time, among more ticks than anything else; some with the tags of old work. */
static void storm(const struct turn_opts *o, uint64_t seed, int steps)
{
    static const uint64_t starts[] = {0, UINT32_MAX - 7u * SECOND, INT64_MAX - 7u * SECOND,
                                      UINT64_MAX - 7u * SECOND};
    struct floor f;
    unsigned visited = 0;
    uint64_t at = starts[seed % ARRAY_LEN(starts)];
    open_at_wraps(&f, o, at);
    for (int i = 0; i < steps; i++) {
        struct turn_event e = {.kind = TURN_TICK, .probability = (float)any(&seed, 101) / 100};
        /* Stretches of few events, so that the slow states are reached, and of many. */
        bool calm = (i >> 10) % 2;
        if (any(&seed, calm ? 40 : 3) == 0)
            e.kind = any_kind(&seed);
        if (any(&seed, 50) != 0)
            at += any(&seed, calm ? 400 * MS : 40 * MS);
        e.at = at - (any(&seed, 100) == 0 ? any(&seed, 9 * SECOND) : 0);
        e.age = any(&seed, 4) == 0 ? any(&seed, 500 * MS) : 0;
        bool stale = any(&seed, 10) == 0;
        e.turn = f.turn.turn - any(&seed, 2);
        e.answer = f.turn.answer - any(&seed, 2);
        obey(&f, e, stale);
        visited |= 1u << f.turn.state;
    }
    assert_int_equal(visited, (1u << TURN_STATES) - 1);
    assert_true(f.turns > 150 && f.replies > 60 && f.holds > 100);
}

static void test_storm(void **unused)
{
    (void)unused;
    const struct turn_opts plain = {0}, wake = {.wake_needed = true};
    const struct turn_opts tight = {.preroll_ms = 5000,
                                    .min_speech_ms = 1,
                                    .speculate_ms = 700, /* after the end of the turn */
                                    .turn_max_ms = 2000,
                                    .held_max_ms = 100,
                                    .grace_ms = 1,
                                    .settle_ms = 1,
                                    .undo_ms = 20000,
                                    .think_max_ms = 1500,
                                    .speak_max_ms = 3000,
                                    .device_wait_ms = 900};
    for (uint64_t seed = 0; seed < 8; seed++) {
        storm(&plain, seed, 400000);
        storm(&tight, seed, 200000);
        storm(&wake, seed, 200000);
    }
}

/* The same events give the same actions. */
static void test_same(void **unused)
{
    (void)unused;
    struct floor a, b;
    uint64_t seed = 5, at = 0;
    open_at_wraps(&a, NULL, 0);
    open_at_wraps(&b, NULL, 0);
    for (int i = 0; i < 100000; i++) {
        struct turn_event e = {.kind = (enum turn_event_kind)any(&seed, TURN_EVENTS),
                               .at = at += any(&seed, 100 * MS),
                               .probability = (float)any(&seed, 101) / 100};
        obey(&a, e, false);
        obey(&b, e, false);
        assert_memory_equal(&a.last, &b.last, sizeof(a.last));
    }
}

/* -- Thirty days of a household --------------------------------------------------------------- */

enum { STEP = SECOND / 10 }; /* a tick each 100 ms */

struct house {
    struct floor f;
    uint64_t seed, at;
    int speech, silence; /* steps of it to come, 0 = none */
    int answer;          /* steps until the answer has sound, then until it has ended */
    bool said;           /* that the answer has sound */
    int trouble;         /* steps until the device that is lost comes back, or MUTE ends */
    enum turn_event_kind remedy;
};

static void tell(struct house *h, enum turn_event_kind kind, float probability)
{
    struct turn_event e = {.kind = kind, .at = h->at, .probability = probability};
    obey(&h->f, e, false);
    uint32_t set = h->f.last.set;
    if (set & TURN_DO_HEAR_END) {
        h->answer = 2 + (int)any(&h->seed, any(&h->seed, 50) ? 20 : 900);
        h->said = false;
    }
    if (set & TURN_DO_PLAY)
        h->answer = 10 + (int)any(&h->seed, 200);
}

/* A person says 0.1 to 8 s, pauses a little or for minutes. */
static float speak(struct house *h)
{
    if (h->speech > 0 && --h->speech == 0) {
        h->silence =
            (int)any(&h->seed, 3) ? 1 + (int)any(&h->seed, 12) : 1 + (int)any(&h->seed, 1200);
        tell(h, TURN_SPEECH_END, 0);
    } else if (h->speech == 0 && h->silence-- <= 0) {
        h->speech = 1 + (int)any(&h->seed, any(&h->seed, 2) ? 80 : 5);
        tell(h, TURN_SPEECH_ONSET, 0.9f);
    }
    return h->speech > 0 ? 0.9f : 0.1f;
}

/* The model and the loudspeaker: playing stands still while it is held. */
static void answer(struct house *h)
{
    const struct floor *f = &h->f;
    if (!f->begun || (f->playing && f->held) || h->answer <= 0 || --h->answer > 0)
        return;
    if (f->playing)
        tell(h, TURN_ANSWER_ENDED, 0);
    else if (!h->said)
        tell(h, any(&h->seed, 60) ? TURN_ANSWER_READY : TURN_ANSWER_EMPTY, 0);
    h->said = true;
}

/* Now and then something happens that ends by itself later. */
static void trouble(struct house *h)
{
    static const enum turn_event_kind kinds[][2] = {
        {TURN_MUTE, TURN_UNMUTE},       {TURN_RELEASE, TURN_UNMUTE},
        {TURN_MIC_LOST, TURN_MIC_BACK}, {TURN_SPEAKER_LOST, TURN_SPEAKER_BACK},
        {TURN_STOP, TURN_TICK},         {TURN_MODEL_FAILED, TURN_TICK},
        {TURN_CONTEXT_FULL, TURN_TICK}, {TURN_OVERFLOW, TURN_TICK},
        {TURN_NOT_SPEECH, TURN_TICK},
    };
    if (h->trouble > 0 && --h->trouble == 0)
        tell(h, h->remedy, 0);
    if (h->trouble > 0 || any(&h->seed, 1000) != 0)
        return;
    size_t i = any(&h->seed, ARRAY_LEN(kinds));
    tell(h, kinds[i][0], 0);
    h->trouble = 1 + (int)any(&h->seed, 300);
    h->remedy = kinds[i][1];
}

static void test_thirty_days(void **unused)
{
    (void)unused;
    static struct house h;
    const uint64_t day = UINT64_C(86400) * SECOND, steps = 30 * day / STEP;
    h.at = (uint64_t)0 - 15 * day; /* 64 bits wrap in the middle, 32 bits all the time */
    open_at_wraps(&h.f, NULL, h.at);
    uint64_t idle_at = h.at;
    for (uint64_t i = 0; i < steps; i++) {
        h.at += STEP;
        float p = speak(&h);
        trouble(&h);
        answer(&h);
        tell(&h, TURN_TICK, p);
        if (h.f.turn.state == TURN_IDLE || h.f.turn.state == TURN_MUTED)
            idle_at = h.at;
        assert_true(h.at - idle_at < 3600u * SECOND); /* nobody talks for an hour */
    }
    assert_true(h.f.turns > 30000 && h.f.replies > 30000 && h.f.holds > 10000);

    /* After all that it is as new. */
    tell(&h, TURN_MIC_BACK, 0);
    tell(&h, TURN_SPEAKER_BACK, 0);
    tell(&h, TURN_UNMUTE, 0);
    tell(&h, TURN_STOP, 0);
    tell(&h, TURN_SPEECH_END, 0);
    h.at += 60 * SECOND;
    tell(&h, TURN_TICK, 0);
    tell(&h, TURN_SPEECH_ONSET, 0.9f);
    assert_int_equal(h.f.turn.state, TURN_LISTENING);
    h.at += SECOND;
    tell(&h, TURN_SPEECH_END, 0);
    h.at += SECOND;
    tell(&h, TURN_TICK, 0);
    assert_int_equal(h.f.turn.state, TURN_THINKING);
    tell(&h, TURN_ANSWER_READY, 0);
    assert_int_equal(h.f.turn.state, TURN_SPEAKING);
    tell(&h, TURN_ANSWER_ENDED, 0);
    assert_int_equal(h.f.turn.state, TURN_IDLE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_storm),
        cmocka_unit_test(test_same),
        cmocka_unit_test(test_thirty_days),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
