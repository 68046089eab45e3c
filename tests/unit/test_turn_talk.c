/*
 * tests/unit/test_turn_talk.c - turn taking: conversations as scripts of events, with the log of
 * actions that each must give.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/util.h"
#include "daemon/turn.h"
#include "tests/support/turn_script.h"

/* Speech; sound that is held for but is no speech. */
#define ONSET(ms)       ((struct cue){ms, TURN_SPEECH_ONSET, 0, 0.9f})
#define NOISE(ms)       ((struct cue){ms, TURN_SPEECH_ONSET, 0, 0.55f})
#define END(ms)         ((struct cue){ms, TURN_SPEECH_END, 0, 0})
#define EVENT(ms, kind) ((struct cue){ms, TURN_##kind, 0, 0})

static void script(const struct turn_opts *o, const struct cue *cues, size_t n, int until_ms,
                   const char *expected)
{
    struct turn_script s;
    turn_script_open(&s, o);
    turn_script_play(&s, cues, n, until_ms);
    if (s.wrong != NULL)
        fail_msg("broken rule: %s\n%s", s.wrong, s.log);
    assert_string_equal(s.log, expected);
}

#define SCRIPT(opts, until_ms, expected, ...)                                                      \
    do {                                                                                           \
        const struct cue cues[] = {__VA_ARGS__};                                                   \
        script(opts, cues, ARRAY_LEN(cues), until_ms, expected);                                   \
    } while (0)

static void test_plain(void **unused)
{
    (void)unused;
    /* The answer is ready before the end of the turn: it sounds at once, 600 ms after the speech.
     * The end was noticed 50 ms late. The follow-up window counts from the end of the sound. */
    SCRIPT(NULL, 16000,
           "1000 speech_onset: listening hear@640\n"
           "2200 tick: listening hear_end\n"
           "2600 tick: speaking commit play\n"
           "6000 answer_ended: idle\n"
           "13960 tick: idle lapse\n",
           {1000, TURN_SPEECH_ONSET, 60, 0.9f}, {2050, TURN_SPEECH_END, 50, 0},
           EVENT(2500, ANSWER_READY), {6000, TURN_ANSWER_ENDED, 40, 0});
}

static void test_five_turns(void **unused)
{
    (void)unused;
    struct turn_script s;
    turn_script_open(&s, NULL);
    for (int i = 0; i < 5; i++) {
        int t = i * 5000;
        const struct cue cues[] = {ONSET(t + 1000), END(t + 2000), EVENT(t + 2400, ANSWER_READY),
                                   EVENT(t + 4500, ANSWER_ENDED)};
        char want[256];
        s.log[0] = '\0';
        turn_script_play(&s, cues, ARRAY_LEN(cues), t + 5000);
        snprintf(want, sizeof(want),
                 "%d speech_onset: listening hear@%d\n%d tick: listening hear_end\n"
                 "%d tick: speaking commit play\n%d answer_ended: idle\n",
                 t + 1000, t + 700, t + 2200, t + 2600, t + 4500);
        assert_string_equal(s.log, want);
        assert_int_equal(s.floor.last.turn, i + 1);
    }
}

static void test_pause(void **unused)
{
    (void)unused;
    /* Speech goes on after 400 ms: the answer, ready already, never was. Twice. */
    SCRIPT(NULL, 5000,
           "1000 speech_onset: listening hear@700\n"
           "2200 tick: listening hear_end\n"
           "2400 speech_onset: listening drop roll_back@2200\n"
           "3200 tick: listening hear_end\n"
           "3590 speech_onset: listening drop roll_back@3200\n"
           "4200 tick: listening hear_end\n"
           "4600 tick: thinking commit\n"
           "4800 answer_ready: speaking play\n",
           ONSET(1000), END(2000), EVENT(2300, ANSWER_READY), ONSET(2400), END(3000), ONSET(3590),
           END(4000), EVENT(4800, ANSWER_READY));
    /* A pause shorter than the first horizon is none. */
    SCRIPT(NULL, 2800, "1000 speech_onset: listening hear@700\n2500 tick: listening hear_end\n",
           ONSET(1000), END(1500), ONSET(1690), END(2300));
}

static void test_end_likely(void **unused)
{
    (void)unused;
    /* Finished: 300 ms are enough. Unfinished: up to the longest silence. */
    SCRIPT(NULL, 2700,
           "1000 speech_onset: listening hear@700\n"
           "2200 tick: listening hear_end\n"
           "2300 tick: thinking commit\n",
           ONSET(1000), END(2000), {2050, TURN_END_LIKELY, 0, 0.9f});
    SCRIPT(NULL, 4500,
           "1000 speech_onset: listening hear@700\n"
           "2200 tick: listening hear_end\n"
           "4000 tick: thinking commit\n",
           ONSET(1000), END(2000), {2250, TURN_END_LIKELY, 0, 0.1f});
    /* It spoke of the last pause, not of this one; and it may think again. */
    SCRIPT(NULL, 3700,
           "1000 speech_onset: listening hear@700\n"
           "2200 tick: listening hear_end\n"
           "2500 speech_onset: listening drop roll_back@2200\n"
           "3200 tick: listening hear_end\n"
           "3600 tick: thinking commit\n",
           ONSET(1000), END(2000), {2050, TURN_END_LIKELY, 0, 0.1f}, ONSET(2500), END(3000));
    SCRIPT(NULL, 2700,
           "1000 speech_onset: listening hear@700\n"
           "2200 tick: listening hear_end\n"
           "2600 tick: thinking commit\n",
           ONSET(1000), END(2000), {2050, TURN_END_LIKELY, 0, 0.1f},
           {2150, TURN_END_LIKELY, 0, 0.5f});
}

#define QUESTION                                                                                   \
    "1000 speech_onset: listening hear@700\n"                                                      \
    "2200 tick: listening hear_end\n"                                                              \
    "2600 tick: speaking commit play\n"
#define ASK ONSET(1000), END(2000), EVENT(2500, ANSWER_READY)

static void test_barge_in(void **unused)
{
    (void)unused;
    /* Late: held at once, dropped after 650 ms of speech; the new turn has it from its start. */
    SCRIPT(NULL, 8000,
           QUESTION "6000 speech_onset: held hold\n"
                    "6650 tick: listening drop truncate hear@5700\n"
                    "7200 tick: listening hear_end\n"
                    "7600 tick: thinking commit\n",
           ASK, ONSET(6000), END(7000));
    /* The judge is quicker than the time. */
    SCRIPT(NULL, 6500,
           QUESTION "6000 speech_onset: held hold\n"
                    "6100 barge_in: listening drop truncate hear@5700\n",
           ASK, ONSET(6000), EVENT(6100, BARGE_IN));
    /* Early, but the sound has been heard: once the canceller is not known to have settled, a
     * clearer voice is wanted. */
    SCRIPT(NULL, 4000,
           QUESTION "3300 tick: held hold\n3850 tick: listening drop truncate hear@2900\n", ASK,
           {3200, TURN_SPEECH_ONSET, 0, 0.7f}, {3300, TURN_TICK, 0, 0.85f},
           {3400, TURN_TICK, 0, 0.9f});
}

static void test_undo(void **unused)
{
    (void)unused;
    /* Over the first half second of the reply: the turn was not over. Own sound is left out: the
     * hearing goes on 300 ms before the onset, but nothing is heard twice. */
    SCRIPT(NULL, 4800,
           QUESTION "3000 speech_onset: held hold\n"
                    "3650 tick: listening drop roll_back@2700\n"
                    "4200 tick: listening hear_end\n"
                    "4600 tick: thinking commit\n",
           ASK, ONSET(3000), END(4000));
    /* In the grace time: held when it is over, the speech counts from its onset. */
    SCRIPT(NULL, 3300, QUESTION "2750 tick: held hold\n3280 tick: listening drop roll_back@2330\n",
           ASK, ONSET(2630));
}

static void test_cough(void **unused)
{
    (void)unused;
    /* A cough, "okay": shorter than 650 ms; it resumes when it ends. */
    SCRIPT(NULL, 8000,
           QUESTION "6000 speech_onset: held hold\n"
                    "6190 speech_end: speaking resume\n"
                    "7000 speech_onset: held hold\n"
                    "7600 speech_end: speaking resume\n",
           ASK, ONSET(6000), END(6190), ONSET(7000), END(7600));
    /* A judge knows earlier, and the rest of it does not hold again. */
    SCRIPT(NULL, 8000, QUESTION "6000 speech_onset: held hold\n6150 not_speech: speaking resume\n",
           ASK, ONSET(6000), EVENT(6150, NOT_SPEECH), END(7500));
    /* Only periods that are clearly speech count. */
    SCRIPT(NULL, 8000, QUESTION "6000 speech_onset: held hold\n6500 speech_end: speaking resume\n",
           ASK, ONSET(6000), {6350, TURN_TICK, 0, 0.3f}, {6500, TURN_SPEECH_END, 150, 0});
}

static void test_insist(void **unused)
{
    (void)unused;
    /* A short word may be "okay" or "stop"; who says it again within a second and a half means it.
     */
    SCRIPT(NULL, 8300,
           QUESTION "6000 speech_onset: held hold\n"
                    "6400 speech_end: speaking resume\n"
                    "7890 speech_onset: held hold\n"
                    "8220 tick: listening drop truncate hear@7590\n",
           ASK, ONSET(6000), END(6400), ONSET(7890));
    /* Later it is the first time again. What was no speech does not count. */
    SCRIPT(NULL, 11000,
           QUESTION "6000 speech_onset: held hold\n"
                    "6400 speech_end: speaking resume\n"
                    "7900 speech_onset: held hold\n"
                    "8500 speech_end: speaking resume\n",
           ASK, ONSET(6000), END(6400), ONSET(7900), END(8500));
    SCRIPT(NULL, 9000,
           QUESTION "6000 speech_onset: held hold\n"
                    "6400 not_speech: speaking resume\n"
                    "7000 speech_onset: held hold\n"
                    "7600 speech_end: speaking resume\n",
           ASK, ONSET(6000), EVENT(6400, NOT_SPEECH), END(6500), ONSET(7000), END(7600));
}

static void test_echo_only(void **unused)
{
    (void)unused;
    /* Our own sound, weakly seen as speech while the canceller settles, then not at all. */
    SCRIPT(NULL, 8000, QUESTION "7500 answer_ended: idle\n", ASK, NOISE(2700), END(3500),
           {3600, TURN_SPEECH_ONSET, 0, 0.4f}, END(7000), EVENT(7500, ANSWER_ENDED));
}

static void test_din(void **unused)
{
    (void)unused;
    /* A television behind: held for two seconds at most, then only for a clearer voice. */
    SCRIPT(NULL, 11700,
           QUESTION "6000 speech_onset: held hold\n"
                    "8000 tick: speaking resume\n"
                    "11000 tick: held hold\n"
                    "11650 tick: listening drop truncate hear@10700\n",
           ASK, NOISE(6000), {11000, TURN_TICK, 0, 0.9f});
}

static void test_while_thinking(void **unused)
{
    (void)unused;
    /* Nothing has sounded: 200 ms of speech take the turn further, as if no pause had been. */
    SCRIPT(NULL, 5000,
           "1000 speech_onset: listening hear@700\n"
           "2200 tick: listening hear_end\n"
           "2600 tick: thinking commit\n"
           "2800 speech_onset: held\n"
           "3000 tick: listening drop roll_back@2200\n"
           "3600 tick: listening hear_end\n"
           "4000 tick: speaking commit play\n",
           ONSET(1000), END(2000), ONSET(2800), END(3400), EVENT(3900, ANSWER_READY));
    /* After a long silence that silence is no part of it. */
    SCRIPT(NULL, 15300,
           "1000 speech_onset: listening hear@700\n"
           "2200 tick: listening hear_end\n"
           "2600 tick: thinking commit\n"
           "5100 tick: thinking earcon:wait\n"
           "7600 tick: thinking earcon:wait\n"
           "10100 tick: thinking earcon:wait\n"
           "12600 tick: thinking earcon:wait\n"
           "15000 speech_onset: held\n"
           "15200 tick: listening drop roll_back@14700\n",
           ONSET(1000), END(2000), ONSET(15000));
    /* A click does not; the answer that came meanwhile sounds then. */
    SCRIPT(NULL, 5000,
           "1000 speech_onset: listening hear@700\n"
           "2200 tick: listening hear_end\n"
           "2600 tick: thinking commit\n"
           "2800 speech_onset: held\n"
           "2950 speech_end: speaking play\n",
           ONSET(1000), END(2000), ONSET(2800), EVENT(2900, ANSWER_READY), END(2950));
    /* ... or it was empty. */
    SCRIPT(NULL, 5000,
           "1000 speech_onset: listening hear@700\n"
           "2200 tick: listening hear_end\n"
           "2600 tick: thinking commit\n"
           "2800 speech_onset: held\n"
           "2950 speech_end: idle earcon:empty\n",
           ONSET(1000), END(2000), ONSET(2800), EVENT(2900, ANSWER_EMPTY), END(2950));
}

static void test_two_quick_turns(void **unused)
{
    (void)unused;
    /* Who speaks into the last word is not cut: its end gives the floor, pre-roll and all. */
    SCRIPT(NULL, 8000,
           QUESTION "6000 speech_onset: held hold\n"
                    "6030 answer_ended: listening hear@5700\n"
                    "6700 tick: listening hear_end\n"
                    "7100 tick: thinking commit\n",
           ASK, ONSET(6000), EVENT(6030, ANSWER_ENDED), END(6500));
    /* Right after it; the pre-roll does not reach into the turn before. */
    SCRIPT(NULL, 4500,
           "1000 speech_onset: listening hear@700\n"
           "2200 tick: listening hear_end\n"
           "2600 tick: idle commit earcon:empty\n"
           "2700 speech_onset: listening hear@2200\n"
           "3700 tick: listening hear_end\n"
           "4100 tick: thinking commit\n",
           ONSET(1000), END(2000), EVENT(2400, ANSWER_EMPTY), {2700, TURN_SPEECH_ONSET, 250, 0.9f},
           END(3500));
}

static void test_devices(void **unused)
{
    (void)unused;
    /* The speaker goes and comes back: the reply goes on where it stopped. */
    SCRIPT(NULL, 8000,
           QUESTION "5000 speaker_lost: held hold earcon:lost\n"
                    "6500 speaker_back: speaking resume earcon:back\n"
                    "7000 answer_ended: idle\n",
           ASK, EVENT(5000, SPEAKER_LOST), EVENT(6500, SPEAKER_BACK), EVENT(7000, ANSWER_ENDED));
    /* It does not come back in time. */
    SCRIPT(NULL, 16000,
           QUESTION "5000 speaker_lost: held hold earcon:lost\n"
                    "15000 tick: idle drop truncate\n",
           ASK, EVENT(5000, SPEAKER_LOST));
    /* It is gone before the first sound; a voice is heard all the same. */
    SCRIPT(NULL, 6000,
           "500 speaker_lost: idle earcon:lost\n"
           "1000 speech_onset: listening hear@700\n"
           "2200 tick: listening hear_end\n"
           "2600 tick: held commit\n"
           "4000 speaker_back: speaking play earcon:back\n",
           EVENT(500, SPEAKER_LOST), ASK, EVENT(4000, SPEAKER_BACK));
    SCRIPT(NULL, 6000,
           QUESTION "4000 speaker_lost: held hold earcon:lost\n"
                    "5650 tick: listening drop truncate hear@4700\n",
           ASK, EVENT(4000, SPEAKER_LOST), ONSET(5000));
    /* The microphone goes in mid-speech; half a question is none. */
    SCRIPT(NULL, 6000,
           "1000 speech_onset: listening hear@700\n"
           "1500 mic_lost: idle forget earcon:lost\n"
           "3000 mic_back: idle earcon:back\n"
           "4000 speech_onset: listening hear@3700\n"
           "5200 tick: listening hear_end\n"
           "5600 tick: thinking commit\n",
           ONSET(1000), EVENT(1500, MIC_LOST), EVENT(3000, MIC_BACK), ONSET(4000), END(5000));
    /* ... in the pause: the question is answered. In the reply: it goes on. */
    SCRIPT(NULL, 6000,
           "1000 speech_onset: listening hear@700\n"
           "2200 tick: listening hear_end\n"
           "2300 mic_lost: listening earcon:lost\n"
           "2600 tick: speaking commit play\n"
           "4000 mic_back: speaking earcon:back\n",
           ONSET(1000), END(2000), EVENT(2300, MIC_LOST), EVENT(2500, ANSWER_READY),
           EVENT(4000, MIC_BACK));
}

static void test_overflow(void **unused)
{
    (void)unused;
    SCRIPT(NULL, 4000,
           "1000 speech_onset: listening hear@700\n"
           "1500 overflow: idle forget earcon:repeat\n", /* the rest is not a turn */
           ONSET(1000), EVENT(1500, OVERFLOW), END(3000));
}

static void test_slow(void **unused)
{
    (void)unused;
    const struct turn_opts o = {.think_max_ms = 6000};
    SCRIPT(&o, 10000,
           "1000 speech_onset: listening hear@700\n"
           "2200 tick: listening hear_end\n"
           "2600 tick: thinking commit\n"
           "5100 tick: thinking earcon:wait\n"
           "7600 tick: thinking earcon:wait\n"
           "8600 tick: idle drop forget earcon:failed\n",
           ONSET(1000), END(2000));
}

static void test_empty(void **unused)
{
    (void)unused;
    SCRIPT(NULL, 4000,
           "1000 speech_onset: listening hear@700\n"
           "2200 tick: listening hear_end\n"
           "2600 tick: thinking commit\n"
           "3000 answer_empty: idle earcon:empty\n",
           ONSET(1000), END(2000), EVENT(3000, ANSWER_EMPTY));
}

static void test_long(void **unused)
{
    (void)unused;
    /* An answer without end, and a question without end. */
    const struct turn_opts o = {.speak_max_ms = 5000, .turn_max_ms = 3000};
    SCRIPT(&o, 8000, QUESTION "7600 tick: idle drop truncate\n", ASK);
    SCRIPT(&o, 9000,
           "1000 speech_onset: listening hear@700\n"
           "4000 tick: thinking hear_end commit earcon:cut\n"
           "4500 answer_ready: speaking play\n" /* he goes on, and is not heard */
           "6500 speech_onset: held hold\n"     /* until he breathes */
           "7150 tick: listening drop truncate hear@6200\n",
           ONSET(1000), EVENT(4500, ANSWER_READY), END(6300), ONSET(6500));
    /* With a pause now and then it ends all the same. */
    SCRIPT(&o, 4500,
           "1000 speech_onset: listening hear@700\n"
           "2700 tick: listening hear_end\n"
           "2900 speech_onset: listening drop roll_back@2700\n"
           "3900 tick: listening hear_end\n"
           "4000 tick: thinking commit earcon:cut\n",
           ONSET(1000), END(2500), ONSET(2900), END(3700));
}

static void test_silence(void **unused)
{
    (void)unused;
    SCRIPT(NULL, 600000, "", EVENT(600000, TICK));
}

static void test_noise(void **unused)
{
    (void)unused;
    /* A click opens a turn that is forgotten; two of them together still are no speech. */
    SCRIPT(NULL, 4000,
           "1000 speech_onset: listening hear@700\n"
           "1640 tick: idle forget\n"
           "2000 speech_onset: listening hear@1700\n"
           "2860 tick: idle forget\n",
           ONSET(1000), END(1040), ONSET(2000), END(2080), ONSET(2200), END(2260));
    /* A judge: not speech. Later in a turn it only does not keep the turn open. */
    SCRIPT(NULL, 6000,
           "1000 speech_onset: listening hear@700\n"
           "1500 not_speech: idle forget\n"
           "2000 speech_onset: listening hear@1700\n"
           "2700 tick: listening hear_end\n"
           "2800 speech_onset: listening drop roll_back@2700\n"
           "3200 tick: listening hear_end\n"
           "3600 tick: thinking commit\n",
           ONSET(1000), EVENT(1500, NOT_SPEECH), END(1800), ONSET(2000), END(2500), ONSET(2800),
           EVENT(3000, NOT_SPEECH), END(5000));
}

static void test_full(void **unused)
{
    (void)unused;
    SCRIPT(NULL, 4000,
           "1000 speech_onset: listening hear@700\n"
           "1500 context_full: listening compact\n"
           "2200 tick: listening hear_end\n"
           "2600 tick: thinking commit\n"
           "2800 context_full: idle drop forget earcon:full\n",
           ONSET(1000), EVENT(1500, CONTEXT_FULL), END(2000), EVENT(2800, CONTEXT_FULL));
    /* In the reply: afterwards. */
    SCRIPT(NULL, 7000, QUESTION "6000 answer_ended: idle compact\n", ASK, EVENT(5000, CONTEXT_FULL),
           EVENT(6000, ANSWER_ENDED));
    SCRIPT(NULL, 6800,
           QUESTION "6000 speech_onset: held hold\n"
                    "6650 tick: listening drop truncate compact hear@5700\n",
           ASK, EVENT(5000, CONTEXT_FULL), ONSET(6000));
}

static void test_wake(void **unused)
{
    (void)unused;
    const struct turn_opts o = {.wake_needed = true, .follow_up_ms = 3000};
    SCRIPT(&o, 20000,
           "3000 wake: idle earcon:awake\n"
           "4000 speech_onset: listening hear@3700\n"
           "5200 tick: listening hear_end\n"
           "5600 tick: speaking commit play\n"
           "9000 answer_ended: idle\n"
           "11000 speech_onset: listening hear@10700\n" /* follows up */
           "11640 tick: idle forget\n" /* but was a click: the window is no longer */
           "12000 tick: idle lapse\n",
           ONSET(1000), END(2000), EVENT(3000, WAKE), ONSET(4000), END(5000),
           EVENT(5500, ANSWER_READY), EVENT(9000, ANSWER_ENDED), ONSET(11000), END(11040),
           ONSET(13000), END(15000));
    /* The word and the question in one breath: the word is left out. */
    SCRIPT(&o, 3000,
           "1500 wake: listening hear@1500 earcon:awake\n"
           "2700 tick: listening hear_end\n",
           ONSET(1000), EVENT(1500, WAKE), END(2500));
}

static void test_mute(void **unused)
{
    (void)unused;
    /* What is said in between is not heard, not even as a pre-roll. */
    SCRIPT(NULL, 6000,
           "1000 mute: muted mic_close earcon:muted\n"
           "3000 unmute: idle earcon:unmuted mic_open\n"
           "3100 speech_onset: listening hear@3000\n",
           EVENT(1000, MUTE), ONSET(2000), END(2500), EVENT(3000, UNMUTE), ONSET(3100), END(3200),
           ONSET(3300), EVENT(5990, TICK));
}

#define PRESS(ms) EVENT(ms, UNMUTE), EVENT(ms, WAKE)
#define PRESSED                                                                                    \
    "500 mute: muted mic_close earcon:muted\n"                                                     \
    "1000 unmute: idle earcon:unmuted mic_open\n"                                                  \
    "1000 wake: idle earcon:awake\n"
#define HOLD_AND_ASK                                                                               \
    EVENT(500, MUTE), PRESS(1000), ONSET(1200), EVENT(2000, RELEASE), EVENT(2500, ANSWER_READY)
#define HELD_AND_ASKED                                                                             \
    PRESSED "1200 speech_onset: listening hear@1000\n"                                             \
            "2000 release: thinking mic_close hear_end commit\n"                                   \
            "2500 answer_ready: speaking play\n"

static void test_push_to_talk(void **unused)
{
    (void)unused;
    /* Released in the last syllable: answered, and muted as before; what is said over the answer
     * is not heard. */
    SCRIPT(NULL, 20000, HELD_AND_ASKED "5000 answer_ended: muted\n", HOLD_AND_ASK, ONSET(3000),
           EVENT(3100, BARGE_IN), EVENT(3200, WAKE), EVENT(3300, ASKED), END(4000),
           EVENT(5000, ANSWER_ENDED));
    /* Released in a pause in which the answer was begun. */
    SCRIPT(NULL, 3000,
           PRESSED "1200 speech_onset: listening hear@1000\n"
                   "2200 tick: listening hear_end\n"
                   "2400 release: speaking mic_close commit play\n",
           EVENT(500, MUTE), PRESS(1000), ONSET(1200), END(2000), EVENT(2350, ANSWER_READY),
           EVENT(2400, RELEASE));
    /* Released while the answer sounds, over a cough that has just held it. */
    SCRIPT(NULL, 20000,
           PRESSED "1200 speech_onset: listening hear@1000\n"
                   "2200 tick: listening hear_end\n"
                   "2600 tick: speaking commit play\n"
                   "5000 speech_onset: held hold\n"
                   "5100 release: speaking mic_close resume\n"
                   "6000 answer_ended: muted\n",
           EVENT(500, MUTE), PRESS(1000), ONSET(1200), END(2000), EVENT(2500, ANSWER_READY),
           ONSET(5000), EVENT(5100, RELEASE), EVENT(6000, ANSWER_ENDED));
    /* Nothing was said, or not enough for a turn. */
    SCRIPT(NULL, 9000, PRESSED "2000 release: muted mic_close earcon:muted\n", EVENT(500, MUTE),
           PRESS(1000), EVENT(2000, RELEASE));
    SCRIPT(NULL, 9000,
           PRESSED "1200 speech_onset: listening hear@1000\n"
                   "1300 release: muted mic_close forget earcon:muted\n",
           EVENT(500, MUTE), PRESS(1000), ONSET(1200), EVENT(1300, RELEASE));
}

static void test_heard_you(void **unused)
{
    (void)unused;
    const struct turn_opts o = {.heard_you = true, .turn_max_ms = 3000};
    /* Not over a reply that begins at once. */
    SCRIPT(&o, 3000, QUESTION, ASK);
    SCRIPT(&o, 3000,
           "1000 speech_onset: listening hear@700\n"
           "2200 tick: listening hear_end\n"
           "2600 tick: thinking commit earcon:heard\n"
           "2800 answer_ready: speaking play\n",
           ONSET(1000), END(2000), EVENT(2800, ANSWER_READY));
    SCRIPT(&o, 3000,
           PRESSED "1200 speech_onset: listening hear@1000\n"
                   "2000 release: thinking mic_close hear_end commit earcon:heard\n",
           EVENT(500, MUTE), PRESS(1000), ONSET(1200), EVENT(2000, RELEASE));
    /* What says more, and what was not heard. */
    SCRIPT(&o, 4500,
           "1000 speech_onset: listening hear@700\n"
           "4000 tick: thinking hear_end commit earcon:cut\n",
           ONSET(1000));
    SCRIPT(&o, 3000,
           "1000 speech_onset: listening hear@700\n"
           "2200 tick: listening hear_end\n"
           "2600 tick: idle commit earcon:empty\n",
           ONSET(1000), END(2000), EVENT(2500, ANSWER_EMPTY));
    SCRIPT(&o, 2000, "1000 asked: thinking hear@1000 hear_end commit\n", EVENT(1000, ASKED));
}

static void test_push_during_reply(void **unused)
{
    (void)unused;
    /* The key takes the floor, and the next question is answered too. */
    SCRIPT(NULL, 9000,
           HELD_AND_ASKED "4000 unmute: speaking earcon:unmuted mic_open\n"
                          "4000 wake: idle drop truncate earcon:awake\n"
                          "4100 speech_onset: listening hear@4000\n"
                          "5000 release: thinking mic_close hear_end commit\n"
                          "5500 answer_ready: speaking play\n"
                          "8000 answer_ended: muted\n",
           HOLD_AND_ASK, PRESS(4000), ONSET(4100), EVENT(5000, RELEASE), EVENT(5500, ANSWER_READY),
           EVENT(8000, ANSWER_ENDED));
    /* Who unmutes meanwhile hears the answer to its end; who mutes again, or stops, does not. */
    SCRIPT(NULL, 9000,
           HELD_AND_ASKED "4000 unmute: speaking earcon:unmuted mic_open\n"
                          "5000 answer_ended: idle\n",
           HOLD_AND_ASK, EVENT(4000, UNMUTE), EVENT(5000, ANSWER_ENDED));
    SCRIPT(NULL, 9000, HELD_AND_ASKED "4000 mute: muted drop truncate earcon:muted\n", HOLD_AND_ASK,
           EVENT(4000, MUTE));
    SCRIPT(NULL, 9000, HELD_AND_ASKED "4000 stop: muted drop truncate\n", HOLD_AND_ASK,
           EVENT(4000, STOP));
}

/* What an earlier turn went through does not stick to the next. */
static void test_aftermath(void **unused)
{
    (void)unused;
    /* A turn that was ended by force is not taken up again. */
    const struct turn_opts o = {.turn_max_ms = 3000};
    SCRIPT(&o, 5600,
           "1000 speech_onset: listening hear@700\n"
           "4000 tick: thinking hear_end commit earcon:cut\n"
           "4500 answer_ready: speaking play\n"
           "4750 speech_onset: held hold\n"
           "5400 tick: listening drop truncate hear@4450\n",
           ONSET(1000), EVENT(4500, ANSWER_READY), END(4600), ONSET(4750));
    /* Thinking does not count for the longest turn. */
    SCRIPT(&o, 9000,
           "1000 speech_onset: listening hear@700\n"
           "2200 tick: listening hear_end\n"
           "2600 tick: thinking commit\n"
           "5100 tick: thinking earcon:wait\n"
           "7600 tick: thinking earcon:wait\n"
           "8000 speech_onset: held\n"
           "8200 tick: listening drop roll_back@7700\n",
           ONSET(1000), END(2000), ONSET(8000));
    /* A speaker that was away: the canceller has to settle again. */
    SCRIPT(NULL, 8000,
           QUESTION "5000 speaker_lost: held hold earcon:lost\n"
                    "5500 speaker_back: speaking resume earcon:back\n"
                    "7000 tick: held hold\n"
                    "7250 tick: listening drop truncate hear@6300\n",
           ASK, EVENT(5000, SPEAKER_LOST), EVENT(5500, SPEAKER_BACK),
           {6600, TURN_SPEECH_ONSET, 0, 0.7f});
    /* Room is made once for one full context. */
    SCRIPT(NULL, 12600,
           QUESTION "6000 answer_ended: idle compact\n"
                    "7000 speech_onset: listening hear@6700\n"
                    "8200 tick: listening hear_end\n"
                    "8600 tick: thinking commit\n"
                    "9000 answer_ready: speaking play\n"
                    "9500 answer_ended: idle\n",
           ASK, EVENT(5000, CONTEXT_FULL), EVENT(6000, ANSWER_ENDED), ONSET(7000), END(8000),
           EVENT(9000, ANSWER_READY), EVENT(9500, ANSWER_ENDED));
    /* Two seconds of peace after a din that was held for. */
    SCRIPT(NULL, 10020,
           QUESTION "6000 speech_onset: held hold\n"
                    "8000 tick: speaking resume\n"
                    "10000 tick: held hold\n",
           ASK, NOISE(6000), {8100, TURN_TICK, 0, 0.9f});
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plain),          cmocka_unit_test(test_five_turns),
        cmocka_unit_test(test_pause),          cmocka_unit_test(test_end_likely),
        cmocka_unit_test(test_barge_in),       cmocka_unit_test(test_undo),
        cmocka_unit_test(test_cough),          cmocka_unit_test(test_insist),
        cmocka_unit_test(test_echo_only),      cmocka_unit_test(test_din),
        cmocka_unit_test(test_while_thinking), cmocka_unit_test(test_two_quick_turns),
        cmocka_unit_test(test_devices),        cmocka_unit_test(test_overflow),
        cmocka_unit_test(test_slow),           cmocka_unit_test(test_empty),
        cmocka_unit_test(test_long),           cmocka_unit_test(test_silence),
        cmocka_unit_test(test_noise),          cmocka_unit_test(test_full),
        cmocka_unit_test(test_wake),           cmocka_unit_test(test_mute),
        cmocka_unit_test(test_push_to_talk),   cmocka_unit_test(test_push_during_reply),
        cmocka_unit_test(test_heard_you),      cmocka_unit_test(test_aftermath),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
