/*
 * tests/unit/test_scenario.c - scenarios: what a good one becomes, and a table of bad ones, each of
 * which must be refused with a sentence that names what is wrong.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/util.h"
#include "daemon/expect.h"
#include "daemon/scenario.h"

#define PATH  BINARY_DIR "/scenario-test.json"
#define VOICE SOURCE_DIR "/tests/replay/voices/hello.flac"

static int read_text(struct scenario *s, const char *text, struct problems *why)
{
    FILE *f = fopen(PATH, "w");
    assert_non_null(f);
    fputs(text, f);
    assert_int_equal(fclose(f), 0);
    return scenario_read(s, PATH, why);
}

static void test_defaults(void **unused)
{
    (void)unused;
    struct scenario s;
    struct problems why = {0};
    assert_int_equal(read_text(&s, "{\"about\": \"nothing\", \"length_ms\": 10}", &why), 0);
    assert_string_equal(s.about, "nothing");
    assert_int_equal(s.length_ms, 10);
    assert_int_equal(s.room.rt60_ms, 250);
    assert_true(s.room.voice_db == -26 && s.room.echo_db == 0 && s.cost[WORK_FRAME] > 0);
    assert_int_equal(s.n_sounds + s.n_noises + s.n_events, 0);
    assert_null(s.system);
    scenario_free(&s);
    scenario_free(&s);
}

static void test_everything(void **unused)
{
    (void)unused;
    struct scenario s;
    struct problems why = {0};
    int err = read_text(
        &s,
        "{\"about\": \"all\", \"system\": \"Be brief.\", \"length_ms\": 9000, \"tell_cut\": true,"
        "\"turn\": {\"end_ms\": 500, \"likely\": 0.7, \"wake_needed\": true},"
        "\"model\": {\"seed\": 3, \"max_tokens\": 40, \"sampled\": true},"
        "\"ear\": {\"delay_ms\": 10, \"noise\": true}, \"wrap\": {\"bits\": 64, \"after_ms\": 50},"
        "\"room\": {\"rt60_ms\": 400, \"echo_db\": 10, \"drift_ppm\": -200, \"saturation\": 0.5},"
        "\"cost\": {\"word\": 12.5},"
        "\"sounds\": [{\"at_ms\": 5, \"file\": \"" VOICE "\"},"
        "             {\"at_ms\": 7, \"after\": \"play\", \"nth\": 2, \"file\": \"" VOICE
        "\", \"level_db\": -6, \"rt60_ms\": 0, \"repeat_ms\": 4000}],"
        "\"noises\": [{\"kind\": \"hum\", \"level_db\": -50, \"from_ms\": 100, \"to_ms\": 200}],"
        "\"events\": [{\"at_ms\": 1, \"event\": \"mute\"},"
        "             {\"at_ms\": 2, \"event\": \"underrun\", \"for_ms\": 30},"
        "             {\"at_ms\": 3, \"event\": \"cost\", \"cost\": {\"frame\": 200}}]}",
        &why);
    if (err < 0)
        fail_msg("%s", why.n ? why.text[0] : "?");
    assert_int_equal(s.turn.end_ms, 500);
    assert_true(s.turn.likely == 0.7f && s.turn.wake_needed);
    assert_true(s.model.seed == 3 && s.model.max_tokens == 40 && s.model.sampled);
    assert_true(s.ear.delay_ms == 10 && s.ear.noise && !s.ear.gain);
    assert_true(s.wrap_bits == 64 && s.wrap_after_ms == 50);
    assert_true(s.room.drift_ppm == -200 && s.room.saturation == 0.5);
    assert_true(s.cost[WORK_WORD] == 12.5 && s.cost[WORK_HEAR] > 0);
    assert_int_equal(s.n_sounds, 2);
    assert_int_equal(s.sounds[0].rt60_ms, 400);
    assert_string_equal(s.sounds[1].when.after, "play");
    assert_true(s.sounds[1].when.nth == 2 && s.sounds[1].when.at_ms == 7);
    assert_true(s.sounds[1].rt60_ms == 0 && s.sounds[1].repeat_ms == 4000);
    assert_true(s.noises[0].kind == NOISE_HUM && s.noises[0].to_ms == 200);
    assert_true(s.events[0].fault == FAULT_TURN && s.events[0].turn == TURN_MUTE);
    assert_true(s.events[1].fault == FAULT_UNDERRUN && s.events[1].for_ms == 30);
    assert_true(s.events[2].cost[WORK_FRAME] == 200 && s.events[2].cost[WORK_WORD] < 0);
    scenario_free(&s);
}

/* What is put into a good scenario, and what the sentence must hold. */
static const struct {
    const char *text, *words[3];
} bad[] = {
    {"", {"found no JSON"}},
    {"[]", {"the whole", "found a list", "expected an object"}},
    {"{\"about\": \"x\", \"about\": \"y\", \"length_ms\": 10}", {"duplicate"}},
    {"{\"about\": \"x\"}", {"length_ms", "found nothing"}},
    {"{\"length_ms\": 10}", {"about", "found nothing"}},
    {"{\"about\": 7, \"length_ms\": 10}", {"about", "found 7", "a text"}},
    {"{\"about\": \"x\", \"length_ms\": 0}", {"length_ms", "found 0", "from 10 to"}},
    {"{\"about\": \"x\", \"length_ms\": 1e3}", {"length_ms", "a whole number"}},
    {"{\"about\": \"x\", \"length_ms\": 10, \"lenght\": 1}", {"unknown field \"lenght\""}},
#define WITH(more) "{\"about\": \"x\", \"length_ms\": 100, " more "}"
    {WITH("\"room\": 4"), {"room", "found 4", "an object"}},
    {WITH("\"room\": {\"rt60_ms\": -1}"), {"room.rt60_ms", "found -1", "0 to 2000"}},
    {WITH("\"room\": {\"echo_db\": \"loud\"}"), {"room.echo_db", "found \"loud\"", "a number"}},
    {WITH("\"room\": {\"size\": 4}"), {"room", "unknown field \"size\"", "rt60_ms, delay_ms"}},
    {WITH("\"room\": {\"impulse\": \"no.wav\"}"), {"room.impulse", "found \"no.wav\""}},
    {WITH("\"turn\": {\"end\": 4}"), {"turn.end", "only options of daemon/turn.h"}},
    {WITH("\"turn\": {\"end_ms\": \"4\"}"), {"turn.end_ms", "found \"4\""}},
    {WITH("\"turn\": {\"end_ms\": 4.5}"), {"turn.end_ms", "found 4.5"}},
    {WITH("\"turn\": {\"end_ms\": -4}"), {"turn taking: end_ms is -4"}},
    {WITH("\"turn\": {\"end_ms\": 900, \"silence_max_ms\": 500}"), {"end_ms <= silence_max_ms"}},
    {WITH("\"turn\": {\"likely\": 2}"), {"turn taking: likely is 2"}},
    {WITH("\"model\": {\"context\": 1}"), {"model.context", "found 1"}},
    {WITH("\"ear\": {\"noise\": 1}"), {"ear.noise", "true or false"}},
    {WITH("\"wrap\": {\"bits\": 31, \"after_ms\": 0}"), {"wrap.bits", "found 31"}},
    {WITH("\"wrap\": {}"), {"wrap.bits", "found nothing"}},
    {WITH("\"cost\": {\"word\": -1}"), {"cost.word", "found -1"}},
    {WITH("\"cost\": {\"walk\": 1}"), {"cost", "unknown field \"walk\""}},
    {WITH("\"sounds\": {}"), {"sounds", "found an object", "a list"}},
    {WITH("\"sounds\": [3]"), {"sounds[0]", "found 3", "an object"}},
    {WITH("\"sounds\": [{}]"), {"sounds[0].at_ms", "found nothing"}},
    {WITH("\"sounds\": [{\"at_ms\": 1}]"), {"sounds[0].file", "found nothing"}},
    {WITH("\"sounds\": [{\"at_ms\": 1, \"file\": \"no.wav\"}]"),
     {"sounds[0].file", "found \"no.wav\"", "readable sound file"}},
    {WITH("\"sounds\": [{\"at_ms\": 1, \"file\": \"" VOICE "\", \"nth\": 0}]"),
     {"sounds[0].nth", "found 0"}},
    {WITH("\"noises\": [{\"kind\": \"blue\", \"level_db\": -40}]"),
     {"noises[0].kind", "found \"blue\"", "\"pink\""}},
    {WITH("\"noises\": [{\"kind\": \"pink\"}]"), {"noises[0].level_db", "found nothing"}},
    {WITH("\"noises\": [{\"kind\": \"pink\", \"level_db\": -40, \"from_ms\": 9, \"to_ms\": 3}]"),
     {"noises[0].to_ms", "found 3", "at least from_ms"}},
    {WITH("\"events\": [{\"at_ms\": 1, \"event\": \"rain\"}]"),
     {"events[0].event", "found \"rain\"", "\"mic_lost\""}},
    {WITH("\"events\": [{\"at_ms\": 1, \"event\": \"tick\"}]"), {"events[0].event", "\"tick\""}},
    {WITH("\"events\": [{\"at_ms\": 1, \"event\": \"overflow\"}]"),
     {"events[0].for_ms", "found nothing"}},
    {WITH("\"events\": [{\"at_ms\": 1, \"event\": \"mute\", \"for_ms\": 20}]"),
     {"events[0]", "unknown field \"for_ms\""}},
    {WITH("\"events\": [{\"at_ms\": 1, \"event\": \"cost\"}]"),
     {"events[0].cost", "found nothing"}},
    {WITH("\"events\": [{\"at_ms\": 1, \"event\": \"cost\", \"cost\": {\"word\": \"1\"}}]"),
     {"events[0].cost.word", "found \"1\""}},
    {WITH("\"expect\": [3]"), {"expect[0]", "found 3", "an object"}},
    {WITH("\"expect\": [{}]"), {"expect[0]", "found no field of a log line"}},
    {WITH("\"expect\": [{\"to_ms\": 4}]"), {"expect[0]", "found no field of a log line"}},
    {WITH("\"expect\": [{\"action\": \"dance\"}]"), {"expect[0].action", "\"dance\""}},
    {WITH("\"expect\": [{\"event\": \"tick\", \"to_ms\": \"4\"}]"), {"expect[0].to_ms"}},
    {WITH("\"expect\": [{\"event\": [\"tick\"]}]"), {"expect[0].event", "found a list"}},
    {WITH("\"never\": [{\"action\": 5}]"), {"never[0].action", "found 5", "a text"}},
    {WITH("\"count\": [{\"action\": \"play\"}]"), {"count[0].times", "found nothing"}},
};

static bool said(const struct problems *why, const char *const words[3])
{
    for (size_t i = 0; i < why->n; i++) {
        bool all = strstr(why->text[i], PATH) != NULL || strstr(why->text[i], "turn taking");
        for (int k = 0; k < 3 && words[k] != NULL; k++)
            all = all && strstr(why->text[i], words[k]) != NULL;
        if (all)
            return true;
    }
    return false;
}

static void test_bad(void **unused)
{
    (void)unused;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct scenario s;
        struct expect *e = NULL;
        struct problems why = {0};
        int err = read_text(&s, bad[i].text, &why);
        if (err == 0) { /* patterns are judged by whoever uses them */
            err = expect_open(&e, &s, &why);
            expect_close(e);
            scenario_free(&s);
        }
        if (err == 0 || !said(&why, bad[i].words))
            fail_msg("%s: %s", bad[i].text, why.n ? why.text[0] : "accepted");
        problems_free(&why);
    }
}

static void test_all_faults_are_said(void **unused)
{
    (void)unused;
    struct scenario s;
    struct problems why = {0};
    assert_true(read_text(&s,
                          "{\"length_ms\": 5, \"room\": {\"rt60_ms\": 1e9, \"x\": 1},"
                          "\"sounds\": [{\"at_ms\": -1, \"file\": \"no\"}]}",
                          &why) < 0);
    assert_int_equal(why.n, 6);
    problems_free(&why);
    assert_true(scenario_read(&s, BINARY_DIR "/no-such.json", &why) < 0);
    assert_non_null(strstr(why.text[0], "no-such.json"));
    problems_free(&why);
}

static void test_turn_options(void **unused)
{
    (void)unused;
    struct turn_opts o = {0};
    assert_int_equal(turn_option_set(&o, "end_ms", 700), 0);
    assert_int_equal(turn_option_set(&o, "hold_probability", 0.25), 0);
    assert_int_equal(turn_option_set(&o, "wake_needed", 1), 0);
    assert_true(o.end_ms == 700 && o.hold_probability == 0.25f && o.wake_needed);
    assert_int_equal(turn_option_set(&o, "end", 700), -ENOENT);
    assert_int_equal(turn_option_set(&o, "end_ms", 700.5), -EINVAL);
    assert_int_equal(turn_option_set(&o, "end_ms", 1e12), -EINVAL);
    assert_int_equal(turn_option_set(&o, "wake_needed", 2), -EINVAL);
    assert_int_equal(turn_option_set(&o, "heard_you", 1), 0);
    assert_true(o.heard_you);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),     cmocka_unit_test(test_everything),
        cmocka_unit_test(test_bad),          cmocka_unit_test(test_all_faults_are_said),
        cmocka_unit_test(test_turn_options),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
