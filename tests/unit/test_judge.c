/*
 * tests/unit/test_judge.c - whose voice it is: near and detector together, and growing wary.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "daemon/judge.h"

enum { AGO = 3 * EAR_PERIOD }; /* so long before it was told the detector's voice began */

/* While the loudspeaker sounds, in a room that is known. */
static struct ear_frame sounding(float near)
{
    return (struct ear_frame){.near = near, .far = -20, .settled = true};
}

/* What a judge makes of `periods` in which the detector goes on about a voice. */
static enum vad_kind after(struct judge *j, struct ear_frame f, float probability, int periods)
{
    enum vad_kind kind = VAD_NONE;
    for (int i = 1; i <= periods && kind == VAD_NONE; i++)
        kind = judge_near(j, &f, probability, (uint64_t)(AGO + i * EAR_PERIOD)).kind;
    return kind;
}

/* A judge to whom nobody was near until the detector told of a voice. */
static struct judge told(void)
{
    struct judge j;
    judge_open(&j);
    assert_int_equal(after(&j, sounding(0), 0, 1), VAD_NONE);
    assert_int_equal(judge_voice(&j, VAD_START, AGO, AGO).kind, VAD_NONE); /* our own echo? */
    return j;
}

/* The surer the detector, the less has to be near; a room that is not known asks for much. */
static void test_bar(void **unused)
{
    (void)unused;
    static const struct {
        float near, probability;
        bool settled, speech;
    } cases[] = {{0.51f, 0.0f, true, true},   {0.49f, 0.5f, true, false},
                 {0.31f, 0.7f, true, true},   {0.29f, 0.7f, true, false},
                 {0.11f, 0.95f, true, true},  {0.09f, 1.0f, true, false},
                 {0.79f, 1.0f, false, false}, {0.81f, 0.5f, false, true}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct judge j = told();
        struct ear_frame f = sounding(cases[i].near);
        f.settled = cases[i].settled;
        if ((after(&j, f, cases[i].probability, 1) == VAD_START) != cases[i].speech)
            fail_msg("case %zu", i);
    }
}

/* While the loudspeaker is silent the detector is believed, with its own age. */
static void test_silent(void **unused)
{
    (void)unused;
    struct judge j;
    struct ear_frame f = {.near = 0, .far = -90};
    judge_open(&j);
    judge_near(&j, &f, 0, AGO);
    struct verdict v = judge_voice(&j, VAD_START, AGO, AGO);
    assert_int_equal(v.kind, VAD_START);
    assert_int_equal(v.age, AGO);
    assert_int_equal(judge_voice(&j, VAD_END, AGO, 2 * AGO).kind, VAD_END);
}

/* Half a second without anybody near ends what was begun. */
static void test_gone(void **unused)
{
    (void)unused;
    struct judge j = told();
    assert_int_equal(after(&j, sounding(0.9f), 0.9f, 1), VAD_START);
    assert_int_equal(after(&j, sounding(0), 0.9f, 49), VAD_NONE);
    assert_int_equal(after(&j, sounding(0), 0.9f, 2), VAD_END);
}

/* Held for nothing twice, it waits for five periods in a row; proved right, for fewer again. */
static void test_wary(void **unused)
{
    (void)unused;
    struct judge j = told();
    judge_doubted(&j);
    judge_doubted(&j);
    assert_int_equal(after(&j, sounding(0.9f), 0.9f, 4), VAD_NONE);
    assert_int_equal(after(&j, sounding(0.9f), 0.9f, 1), VAD_START);
    j = told();
    judge_doubted(&j);
    judge_doubted(&j);
    judge_confirmed(&j);
    assert_int_equal(after(&j, sounding(0.9f), 0.9f, 1), VAD_START);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bar),
        cmocka_unit_test(test_silent),
        cmocka_unit_test(test_gone),
        cmocka_unit_test(test_wary),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
