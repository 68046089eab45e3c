/*
 * tests/unit/test_turn.c - turn taking: every cell of the table, names, options, stale events.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <errno.h>

#include "base/util.h"
#include "daemon/turn.h"
#include "tests/support/turn_script.h"

/* One event, which must break no rule. */
static void step(struct turn_script *s, enum turn_event_kind kind, int age_ms, float probability)
{
    turn_script_step(s, &(struct cue){0, kind, age_ms, probability});
    if (s->wrong != NULL)
        fail_msg("%s: broken rule: %s", turn_event_name(kind), s->wrong);
}

/* -- Every cell ------------------------------------------------------------------------------- */

enum place {
    IDLE,
    SPEECH,
    PAUSE,
    THINKING,
    SPEAKING,
    HELD,
    HELD_EARLY,
    HELD_DEVICE,
    MUTED,
    PLACES
};

static const char *const place_names[PLACES] = {
    "idle", "listening, speech", "listening, pause", "thinking", "speaking",
    "held", "held before sound", "held, no speaker", "muted"};

/* Brings a fresh turn to the place by the usual way. */
static void go(struct turn_script *s, enum place to)
{
    static const struct cue way[] = {{1000, TURN_SPEECH_ONSET, 0, 0.9f},
                                     {2000, TURN_SPEECH_END, 0, 0}};
    turn_script_open(s, NULL);
    if (to == MUTED)
        step(s, TURN_MUTE, 0, 0);
    if (to == IDLE || to == MUTED)
        return;
    turn_script_play(s, way, 1, 1500);
    if (to == SPEECH)
        return;
    turn_script_play(s, way + 1, 1, to == PAUSE ? 2300 : 2700);
    if (to == PAUSE || to == THINKING)
        return;
    if (to != HELD_EARLY) {
        step(s, TURN_ANSWER_READY, 0, 0);
        turn_script_play(s, NULL, 0, 5000); /* long enough for the canceller to be trusted */
    }
    if (to == HELD || to == HELD_EARLY)
        step(s, TURN_SPEECH_ONSET, 0, 0.9f);
    if (to == HELD_DEVICE)
        step(s, TURN_SPEAKER_LOST, 0, 0);
}

/* What one event of 10 ms later does there; "-" = nothing. */
static const char *const cells[TURN_EVENTS][PLACES] = {
    [TURN_TICK] = {"-", "-", "-", "-", "-", "-", "-", "-", "-"},
    [TURN_SPEECH_ONSET] = {"listening hear@0", "-", "listening drop roll_back@2200", "held",
                           "held hold", "-", "-", "-", "-"},
    [TURN_SPEECH_END] = {"-", "-", "-", "-", "-", "speaking resume", "thinking", "-", "-"},
    [TURN_END_LIKELY] = {"-", "-", "-", "-", "-", "-", "-", "-", "-"},
    [TURN_ANSWER_READY] = {"-", "-", "-", "speaking play", "-", "-", "-", "-", "-"},
    [TURN_ANSWER_EMPTY] = {"-", "-", "-", "idle earcon:empty", "-", "-", "-", "-", "-"},
    [TURN_ANSWER_ENDED] = {"-", "-", "-", "-", "idle", "listening hear@4700", "-", "idle", "-"},
    [TURN_NOT_SPEECH] = {"-", "idle forget", "-", "-", "-", "speaking resume", "thinking", "-",
                         "-"},
    [TURN_BARGE_IN] = {"-", "-", "-", "listening drop roll_back@2200",
                       "listening drop truncate hear@4710", "listening drop truncate hear@4700",
                       "listening drop roll_back@2200", "listening drop truncate hear@4710", "-"},
    [TURN_WAKE] = {"idle earcon:awake", "-", "-", "idle drop truncate earcon:awake",
                   "idle drop truncate earcon:awake",
                   "listening drop truncate hear@5010 "
                   "earcon:awake",
                   "listening drop truncate hear@2710 earcon:awake",
                   "idle drop truncate earcon:awake", "-"},
    [TURN_STOP] = {"-", "idle forget", "idle drop forget", "idle drop truncate",
                   "idle drop truncate", "idle drop truncate", "idle drop truncate",
                   "idle drop truncate", "-"},
    [TURN_MUTE] = {"muted mic_close earcon:muted", "muted mic_close forget earcon:muted",
                   "muted mic_close drop forget earcon:muted",
                   "muted mic_close drop truncate earcon:muted",
                   "muted mic_close drop truncate earcon:muted",
                   "muted mic_close drop truncate earcon:muted",
                   "muted mic_close drop truncate earcon:muted",
                   "muted mic_close drop truncate earcon:muted", "-"},
    [TURN_UNMUTE] = {"-", "-", "-", "-", "-", "-", "-", "-", "idle earcon:unmuted mic_open"},
    [TURN_RELEASE] = {"muted mic_close earcon:muted", "thinking mic_close hear_end commit",
                      "thinking mic_close commit", "thinking mic_close", "speaking mic_close",
                      "speaking mic_close resume", "thinking mic_close", "held mic_close", "-"},
    [TURN_MIC_LOST] = {"idle earcon:lost", "idle forget earcon:lost", "listening earcon:lost",
                       "thinking earcon:lost", "speaking earcon:lost",
                       "speaking resume earcon:lost", "thinking earcon:lost", "held earcon:lost",
                       "-"},
    [TURN_MIC_BACK] = {"-", "-", "-", "-", "-", "-", "-", "-", "-"}, /* it was not lost */
    [TURN_SPEAKER_LOST] = {"idle earcon:lost", "listening earcon:lost", "listening earcon:lost",
                           "thinking earcon:lost", "held hold earcon:lost", "held earcon:lost",
                           "held earcon:lost", "-", "-"},
    [TURN_SPEAKER_BACK] = {"-", "-", "-", "-", "-", "-", "-", "speaking resume earcon:back", "-"},
    [TURN_OVERFLOW] = {"-", "idle forget earcon:repeat", "idle drop forget earcon:repeat", "-", "-",
                       "speaking resume", "thinking", "-", "-"},
    [TURN_MODEL_FAILED] = {"-", "idle forget earcon:failed", "idle drop forget earcon:failed",
                           "idle drop forget earcon:failed", "idle drop truncate earcon:failed",
                           "idle drop truncate earcon:failed", "idle drop forget earcon:failed",
                           "idle drop truncate earcon:failed", "-"},
    [TURN_CONTEXT_FULL] = {"idle compact", "listening compact", "listening compact",
                           "thinking compact", "-", "-", "held compact", "-", "muted compact"},
    [TURN_ASKED] = {"thinking hear@10 hear_end commit", "thinking forget hear@1510 hear_end commit",
                    "thinking drop forget hear@2310 hear_end commit",
                    "thinking drop truncate hear@2710 hear_end commit",
                    "thinking drop truncate hear@5010 hear_end commit",
                    "thinking drop truncate hear@5010 hear_end commit",
                    "thinking drop truncate hear@2710 hear_end commit",
                    "thinking drop truncate hear@5010 hear_end commit", "-"},
};

static void test_cells(void **unused)
{
    (void)unused;
    int wrong = 0;
    for (int k = 0; k < TURN_EVENTS; k++) {
        for (int p = 0; p < PLACES; p++) {
            struct turn_script s;
            char said[256] = "-";
            go(&s, (enum place)p);
            s.now_ms += SCRIPT_PERIOD_MS;
            step(&s, (enum turn_event_kind)k, 0, 0.9f);
            if (s.floor.last.set != 0 || s.floor.last.was != s.floor.last.now)
                floor_say(&s.floor, said, sizeof(said));
            assert_non_null(cells[k][p]);
            if (strcmp(said, cells[k][p]) == 0)
                continue;
            wrong++;
            print_error("%s in %s: %s, expected %s\n", turn_event_name((enum turn_event_kind)k),
                        place_names[p], said, cells[k][p]);
        }
    }
    assert_int_equal(wrong, 0);
}

/* Devices that were lost before, in every state. */
static void test_back(void **unused)
{
    (void)unused;
    for (int p = 0; p < PLACES; p++) {
        struct turn_script s;
        char said[256];
        go(&s, (enum place)p);
        step(&s, TURN_MIC_LOST, 0, 0);
        step(&s, TURN_MIC_LOST, 0, 0);
        assert_int_equal(s.floor.last.set, 0); /* said once */
        step(&s, TURN_SPEECH_ONSET, 0, 0.9f);
        assert_int_equal(s.floor.last.set, 0); /* from where? */
        enum turn_state before = s.floor.turn.state;
        step(&s, TURN_MIC_BACK, 0, 0);
        floor_say(&s.floor, said, sizeof(said));
        assert_int_equal(s.floor.turn.state, before);
        assert_true(p == MUTED || strstr(said, "earcon:back") != NULL);
        step(&s, TURN_SPEAKER_LOST, 0, 0);
        step(&s, TURN_SPEAKER_BACK, 0, 0);
        floor_say(&s.floor, said, sizeof(said));
        assert_true(p == MUTED || strstr(said, "earcon:back") != NULL);
    }
}

static void test_names(void **unused)
{
    (void)unused;
    struct turn t;
    struct turn_actions a;
    for (int i = 0; i < TURN_EVENTS; i++)
        for (int j = 0; j < i; j++)
            assert_string_not_equal(turn_event_name((enum turn_event_kind)i),
                                    turn_event_name((enum turn_event_kind)j));
    assert_string_equal(turn_state_name(TURN_MUTED), "muted");
    assert_string_equal(turn_event_name(TURN_CONTEXT_FULL), "context_full");
    assert_string_equal(turn_action_name(TURN_ACTIONS - 1), "lapse");
    assert_string_equal(turn_earcon_name(TURN_EARCON_UNMUTED), "unmuted");
    assert_string_equal(turn_state_name((enum turn_state)99), "?");
    assert_string_equal(turn_event_name((enum turn_event_kind)99), "?");
    assert_string_equal(turn_action_name(99), "?");
    assert_string_equal(turn_earcon_name((enum turn_earcon)99), "?");
    assert_int_equal(turn_init(&t, NULL, 0, NULL), 0);
    assert_int_equal(turn_step(&t, &(struct turn_event){.kind = TURN_EVENTS}, &a), -EINVAL);
}

static void test_options(void **unused)
{
    (void)unused;
    const struct {
        struct turn_opts o;
        const char *names;
    } bad[] = {
        {{.sample_rate = 10}, "sample_rate"},
        {{.sample_rate = -16000}, "sample_rate"},
        {{.end_ms = -1}, "end_ms"},
        {{.follow_up_ms = 2000000000}, "follow_up_ms"},
        {{.confirm_probability = 1.5f}, "confirm_probability"},
        {{.likely = (float)__builtin_nan("")}, "likely"},
        {{.likely = 0.1f}, "unlikely <= likely"},
        {{.end_ms = 800, .silence_max_ms = 700}, "silence_max_ms"},
        {{.end_ms = 500, .end_likely_ms = 700}, "end_likely_ms"},
    };
    struct turn t;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct problems why = {.n = 0};
        assert_int_equal(turn_init(&t, &bad[i].o, 0, &why), -EINVAL);
        assert_int_equal(why.n, 1);
        assert_non_null(strstr(why.text[0], bad[i].names));
        problems_free(&why);
    }
    const struct turn_opts o = {.sample_rate = 48000, .end_ms = 250, .likely = 0.9f};
    assert_int_equal(turn_init(&t, &o, 5, NULL), 0);
    assert_true(t.for_.end == 250 * 48 && t.for_.end_likely == 250 * 48);
    assert_true(t.for_.preroll == 300 * 48 && t.likely == 0.9f && t.unlikely == 0.4f);
    assert_int_equal(turn_init(&t, &(struct turn_opts){.end_ms = 3000}, 5, NULL), 0);
    assert_true(t.for_.silence_max == 3000 * 16);
}

/* Answers and failures of work that was given up. */
static void test_stale(void **unused)
{
    (void)unused;
    struct turn_script s;
    go(&s, THINKING);
    const enum turn_event_kind kinds[] = {TURN_ANSWER_READY, TURN_ANSWER_EMPTY, TURN_ANSWER_ENDED,
                                          TURN_OVERFLOW,     TURN_MODEL_FAILED, TURN_CONTEXT_FULL};
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
        struct turn_event e = {.kind = kinds[i],
                               .at = s.floor.turn.now,
                               .turn = s.floor.turn.turn - 1,
                               .answer = s.floor.turn.answer - 1};
        assert_null(floor_step(&s.floor, e, true));
        assert_int_equal(s.floor.last.set, 0);
        assert_int_equal(s.floor.last.now, TURN_THINKING);
    }
    /* Time does not go back. */
    uint64_t now = s.floor.turn.now;
    struct turn_event early = {.kind = TURN_TICK, .at = now - 100000};
    assert_null(floor_step(&s.floor, early, false));
    assert_true(s.floor.turn.now == now);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cells),   cmocka_unit_test(test_back),  cmocka_unit_test(test_names),
        cmocka_unit_test(test_options), cmocka_unit_test(test_stale),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
