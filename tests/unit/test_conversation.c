/*
 * tests/unit/test_conversation.c - conversations with the small model that ships with Parley:
 * turns, pauses, interruptions, what is remembered of them, and all of it the same each time.
 *
 * The ids in the engine are held against a second feeding of the same sound from the log's
 * hear_from to hear_to, straight into the engine and without anything going wrong on the way.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <errno.h>
#include <math.h>

#include "base/util.h"
#include "daemon/conversation_private.h"
#include "tests/support/talk.h"

#define DEMO SOURCE_DIR "/etc/demo/"

enum { MS = 16, IDS_MAX = 4096 };

static struct talk t;
static float *capital, *sum, *times; /* questions of 2.3, 2.3 and 1.5 s */
static size_t n_capital, n_sum, n_times;

/* -- Reading the log -------------------------------------------------------------------------- */

static void has(const char *text)
{
    if (strstr(t.log, text) == NULL)
        fail_msg("the log lacks: %s\n%s", text, t.log);
}

static void hasnt(const char *text)
{
    if (strstr(t.log, text) != NULL)
        fail_msg("the log has: %s\n%s", text, t.log);
}

static const char *wait_for(const char *from, const char *text)
{
    const char *found = talk_until(&t, from, text, 15000);
    if (found == NULL)
        fail_msg("the log lacks, 15 s later: %s\n%s", text, t.log);
    return found + 1;
}

static int count(const char *text)
{
    int n = 0;
    for (const char *p = t.log; (p = strstr(p, text)) != NULL; p++)
        n++;
    return n;
}

/* The number behind `key` in the first line from `from` on that has it. */
static int64_t number(const char *from, const char *key)
{
    const char *p = strstr(from, key);
    assert_non_null(p);
    return strtoll(p + strlen(key) + 2, NULL, 10);
}

/* The text of answer `answer`, from its "word" lines put together. */
static const char *said(int answer)
{
    static char text[512];
    char start[64];
    size_t n = 0;
    snprintf(start, sizeof(start), "\"event\":\"word\",\"answer\":%d,\"text\":\"", answer);
    for (const char *p = t.log; (p = strstr(p, start)) != NULL;)
        for (p += strlen(start); *p != '"' && n + 1 < sizeof(text);)
            text[n++] = *p++;
    text[n] = '\0';
    return text;
}

/* The text of the last answer that was made to its end. */
static const char *last_said(void)
{
    const char *last = NULL;
    for (const char *p = t.log; (p = strstr(p, "\"event\":\"said\"")) != NULL; p++)
        last = p;
    assert_non_null(last);
    return said((int)number(last, "answer"));
}

/* -- The same without a conversation ---------------------------------------------------------- */

/* The microphone's whole stream, to be fed again. */
static float *stream;
static size_t n_stream, stream_cap;

static void speak(const float *pcm, size_t n)
{
    assert_int_equal(grow_array(&stream, &stream_cap, (size_t)t.now + n, sizeof(float)), 0);
    memset(stream + n_stream, 0, ((size_t)t.now - n_stream) * sizeof(float));
    memcpy(stream + t.now, pcm, n * sizeof(float));
    n_stream = (size_t)t.now + n;
    talk_say(&t, pcm, n);
}

struct said_turn {
    int64_t from, to, gap_from, gap_to; /* samples heard: [from, to) without the gap */
    const char *answer;                 /* as far as it was heard; NULL: the model answers */
};

/* The ids of the conversation so far. */
static int copy_ids(int32_t *ids)
{
    int n = engine_length(t.session.engine);
    assert_in_range(n, 0, IDS_MAX);
    memcpy(ids, engine_ids(t.session.engine), (size_t)n * sizeof(*ids));
    return n;
}

static void hear_again(int64_t from, int64_t to)
{
    assert_int_equal(grow_array(&stream, &stream_cap, (size_t)to, sizeof(float)), 0);
    if ((size_t)to > n_stream) {
        memset(stream + n_stream, 0, ((size_t)to - n_stream) * sizeof(float));
        n_stream = (size_t)to;
    }
    assert_int_equal(session_hear(&t.session, stream + from, (size_t)(to - from), NULL), 0);
}

/* Feeds the turns straight into the engine and compares the ids with those found before. */
static void same_as(const int32_t *ids, int n, const struct said_turn *turns, size_t n_turns)
{
    struct engine *e = t.session.engine;
    int32_t id, text[64];
    int got;
    assert_int_equal(engine_rewind(e, 0, NULL), 0);
    for (size_t i = 0; i < n_turns; i++) {
        const struct said_turn *s = &turns[i];
        assert_int_equal(engine_turn(e, NULL), 0);
        hear_again(s->from, s->gap_to ? s->gap_from : s->to);
        if (s->gap_to)
            hear_again(s->gap_to, s->to);
        assert_int_equal(engine_answer(e, NULL), 0);
        if (s->answer != NULL) {
            got = tokenizer_encode(t.session.tokenizer, s->answer, strlen(s->answer), 0, text, 64);
            assert_int_equal(engine_recall(e, text, got, NULL), 0);
            continue;
        }
        while ((got = engine_next(e, &id, NULL)) == 1)
            ;
        assert_int_equal(got, 0);
    }
    assert_int_equal(engine_length(e), n);
    assert_memory_equal(engine_ids(e), ids, (size_t)n * sizeof(*ids));
}

/* After a test that failed. */
static void clean_up(void)
{
    if (t.conversation != NULL)
        talk_end(&t);
}

static void begin(const struct conversation_opts *o)
{
    clean_up();
    n_stream = 0;
    talk_begin(&t, o);
    talk_wait(&t, 500);
}

/* -- Turns ------------------------------------------------------------------------------------ */

static void test_plain(void **unused)
{
    (void)unused;
    int32_t ids[IDS_MAX];
    begin(NULL);
    speak(capital, n_capital);
    wait_for(NULL, "answer_ended");
    assert_string_equal(said(1), "The capital of France is Paris.");
    int n = copy_ids(ids);
    struct said_turn turn = {.from = number(t.log, "hear_from"), .to = number(t.log, "hear_to")};
    same_as(ids, n, &turn, 1);
    /* Nobody speaks: nothing happens but the end of the follow-up window. */
    talk_wait(&t, (int)(t.now / MS) + 100); /* a line about memory comes yet */
    size_t before = t.log_len;
    talk_wait(&t, 30000);
    assert_int_equal(count("\"lapse\""), 1);
    assert_true(t.log_len - before < 200);
    struct conversation_now now;
    conversation_now(t.conversation, &now);
    assert_int_equal(now.turns, 1);
    assert_int_equal(now.replies, 1);
    assert_int_equal(now.state, TURN_IDLE);
    assert_in_range(now.answer_ms, 290, 400); /* it sounded finished */
    talk_end(&t);
}

static void test_two_turns(void **unused)
{
    (void)unused;
    begin(NULL);
    speak(sum, n_sum);
    const char *at = wait_for(NULL, "answer_ended");
    talk_wait(&t, (int)(t.now / MS) + 1000);
    speak(times, n_times);
    wait_for(at, "answer_ended");
    assert_string_equal(said(1), "Seven plus eight is fifteen.");
    assert_string_equal(said(2), "Fifteen times two is thirty.");
    talk_end(&t);
}

/* A pause in mid-turn: an answer is begun and nobody notices. */
static void test_pause(void **unused)
{
    (void)unused;
    int32_t ids[IDS_MAX];
    size_t half = 18000; /* between two words */
    begin(NULL);
    speak(capital, half);
    talk_wait(&t, (int)(t.now / MS) + 450);
    speak(capital + half, n_capital - half);
    wait_for(NULL, "answer_ended");
    assert_int_equal(count("\"hear_end\""), 2);
    assert_int_equal(count("\"roll_back\""), 1);
    assert_int_equal(count("\"play\""), 1);
    int n = copy_ids(ids);
    const char *second = strstr(strstr(t.log, "\"hear_to\"") + 1, "\"hear_to\"");
    struct said_turn turn = {.from = number(t.log, "hear_from"), .to = number(second, "hear_to")};
    same_as(ids, n, &turn, 1);
    talk_end(&t);
}

/* The person breaks in: of the answer remains what was heard. */
static void barge_in(bool tell_cut)
{
    const struct conversation_opts o = {.texts = true, .tell_cut = tell_cut};
    int32_t ids[IDS_MAX];
    begin(&o);
    speak(capital, n_capital);
    wait_for(NULL, "\"play\"");
    talk_wait(&t, (int)(t.now / MS) + 1000);
    uint64_t onset = t.now;
    speak(sum, n_sum);
    wait_for(NULL, "answer_ended");
    has("\"hold\"");
    has("\"truncate\",\"hear\"");
    const char *memory = strstr(t.log, "\"event\":\"memory\"");
    assert_non_null(memory);
    assert_true(number(memory, "tokens") < number(memory, "of"));
    /* 1000 ms before the onset and not 300 ms after it. */
    assert_in_range(number(memory, "heard_ms"), 1000, 1300);
    assert_string_equal(said(2), "Seven plus eight is fifteen.");
    const char *kept = strstr(memory, "\"text\":\"") + 8;
    char text[64];
    snprintf(text, sizeof(text), "%.*s%s", (int)(strchr(kept, '"') - kept), kept,
             tell_cut ? "..." : "");
    assert_memory_equal(text, "The capital", 11);
    int n = copy_ids(ids);
    const char *second = strstr(t.log, "\"truncate\"");
    struct said_turn turns[] = {
        {.from = number(t.log, "hear_from"), .to = number(t.log, "hear_to"), .answer = text},
        {.from = number(second, "hear_from"), .to = number(second, "hear_to")}};
    same_as(ids, n, turns, 2);
    /* Silence: held within 250 ms of the first word. */
    size_t last = 0, until = t.n_out;
    for (size_t i = (size_t)onset * 3; i < until && i < (size_t)onset * 3 + 48000; i++)
        if (fabsf(t.out[i]) > 3e-3f)
            last = i;
    assert_true(last < (size_t)onset * 3 + 48000 / 4);
    talk_end(&t);
}

static void test_barge_in(void **unused)
{
    (void)unused;
    barge_in(false);
    barge_in(true);
}

/* A click holds the reply; it goes on without a lost or repeated sample. */
static void test_resume(void **unused)
{
    (void)unused;
    begin(NULL);
    speak(capital, n_capital);
    wait_for(NULL, "\"play\"");
    talk_wait(&t, (int)(t.now / MS) + 700);
    speak(times + 3000, 2400); /* a syllable */
    const char *resumed = wait_for(NULL, "\"resume\"");
    wait_for(resumed, "answer_ended");
    hasnt("truncate");
    assert_int_equal(count("\"event\":\"said\""), 1);
    talk_end(&t);
}

/* Stopped while the answer is being made; the next turn knows nothing of it. */
static void test_stop(void **unused)
{
    (void)unused;
    int32_t ids[IDS_MAX];
    begin(NULL);
    t.pieces = 1; /* a slow machine */
    speak(capital, n_capital);
    wait_for(NULL, "\"event\":\"word\",\"answer\":1,\"text\":\" cap\"");
    conversation_event(t.conversation, TURN_STOP);
    wait_for(NULL, "\"event\":\"stop\"");
    t.pieces = 0;
    talk_wait(&t, (int)(t.now / MS) + 2000);
    hasnt("\"event\":\"said\"");
    const char *stop = strstr(t.log, "\"event\":\"stop\"");
    speak(sum, n_sum);
    wait_for(stop, "answer_ended");
    assert_string_equal(said(2), "Seven plus eight is fifteen.");
    int n = copy_ids(ids);
    struct said_turn turn = {.from = number(stop, "hear_from"), .to = number(stop, "hear_to")};
    same_as(ids, n, &turn, 1);
    talk_end(&t);
}

static void test_mute(void **unused)
{
    (void)unused;
    begin(NULL);
    speak(capital, n_capital);
    wait_for(NULL, "\"play\"");
    conversation_event(t.conversation, TURN_MUTE);
    const char *muted = wait_for(NULL, "\"event\":\"mute\"");
    speak(sum, n_sum);
    talk_wait(&t, (int)(t.now / MS) + 1000);
    assert_null(strstr(muted, "\"hear\""));
    conversation_event(t.conversation, TURN_UNMUTE);
    wait_for(muted, "mic_open");
    talk_wait(&t, (int)(t.now / MS) + 500);
    speak(sum, n_sum);
    wait_for(muted, "answer_ended");
    assert_string_equal(said(2), "Seven plus eight is fifteen.");
    talk_end(&t);
}

/* Muted and unmuted, and the other way round, within one period: the last one counts. */
static void test_mute_at_once(void **unused)
{
    (void)unused;
    const struct ear_frame silence = {.level = -90};
    begin(NULL);
    conversation_event(t.conversation, TURN_MUTE);
    conversation_event(t.conversation, TURN_UNMUTE);
    assert_int_equal(conversation_period(t.conversation, &silence, 0), CONVERSATION_MIC_OPEN);
    conversation_event(t.conversation, TURN_MUTE);
    conversation_event(t.conversation, TURN_UNMUTE);
    conversation_event(t.conversation, TURN_RELEASE);
    assert_int_equal(conversation_period(t.conversation, &silence, 0), CONVERSATION_MIC_CLOSE);
    talk_end(&t);
}

static void speak_babble(float hum)
{
    size_t n;
    float *x = talk_recording(SOURCE_DIR "/tests/replay/voices/babble.flac", &n);
    for (size_t i = 0; i < n; i++) {
        float phase = 6.2831853f * 100 * (float)i / 16000;
        x[i] = 0.7f * x[i] + hum * (sinf(phase) + 0.5f * sinf(2 * phase) + 0.3f * sinf(3 * phase));
    }
    speak(x, n);
    free(x);
}

/* What the model says nothing to is forgotten. Many talk at once through a hum that is louder
 * each time, until the model takes it for noise alone. */
static void test_empty(void **unused)
{
    (void)unused;
    begin(NULL);
    for (int i = 0; i < 16 && strstr(t.log, "\"earcon\":\"empty\"") == NULL; i++) {
        clean_up();
        begin(NULL);
        speak_babble(0.02f * powf(1.2f, (float)i));
        talk_wait(&t, (int)(t.now / MS) + 2000);
        conversation_event(t.conversation, TURN_STOP);
    }
    has("\"earcon\":\"empty\"");
    hasnt("\"play\"");
    size_t from = t.log_len;
    speak(sum, n_sum);
    wait_for(t.log + from, "answer_ended");
    int32_t ids[IDS_MAX];
    int n = copy_ids(ids);
    struct said_turn turn = {.from = number(t.log + from, "hear_from"),
                             .to = number(t.log + from, "hear_to")};
    same_as(ids, n, &turn, 1);
    talk_end(&t);
}

/* The context fills: the oldest turns go, the rest is as if they had never been. */
static void test_context(void **unused)
{
    (void)unused;
    int32_t ids[IDS_MAX];
    const float *const pcm[] = {capital, sum, times};
    const size_t n_pcm[] = {n_capital, n_sum, n_times};
    struct said_turn turns[9];
    begin(NULL);
    const char *at = t.log;
    for (int i = 0; i < 9; i++) {
        size_t from = (size_t)(at - t.log);
        speak(pcm[i % 3], n_pcm[i % 3]);
        at = wait_for(t.log + from, "answer_ended");
        turns[i] = (struct said_turn){.from = number(t.log + from, "hear_from"),
                                      .to = number(t.log + from, "hear_to")};
        talk_wait(&t, (int)(t.now / MS) + 1500);
        at = t.log + t.log_len;
    }
    has("\"event\":\"forgot\"");
    hasnt("\"earcon\":\"full\"");
    hasnt("\"event\":\"failed\"");
    int n = copy_ids(ids), left = 0;
    for (int i = 0; i + 1 < n; i++)
        left += ids[i + 1] == t.session.model->config.tokens.user;
    assert_in_range(left, 1, 8);
    same_as(ids, n, turns + 9 - left, (size_t)left);
    talk_end(&t);
}

/* A turn that does not fit at all. */
static void test_full(void **unused)
{
    (void)unused;
    begin(NULL);
    for (int i = 0; i < 16; i++)
        speak(capital + 2000, n_capital - 6000);
    wait_for(NULL, "\"earcon\":\"full\"");
    talk_wait(&t, (int)(t.now / MS) + 2000);
    const char *full = strstr(t.log, "\"earcon\":\"full\"");
    speak(sum, n_sum);
    wait_for(full, "answer_ended");
    assert_string_equal(last_said(), "Seven plus eight is fifteen.");
    talk_end(&t);
}

/* Slower than speech: it waits until it will last, and never stutters. */
static void test_slow(void **unused)
{
    (void)unused;
    begin(NULL);
    t.pieces = 1;
    t.cost[WORK_WORD] = 0.01; /* every second period one piece: 1.5 times too slow */
    t.cost[WORK_FRAME] = 0.12;
    speak(capital, n_capital);
    wait_for(NULL, "answer_ended");
    hasnt("\"event\":\"waits\"");
    talk_end(&t);
}

static void test_bad_sound(void **unused)
{
    (void)unused;
    float bad[1600];
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        bad[i] = i % 3 ? NAN : i % 2 ? INFINITY : 1e30f;
    begin(NULL);
    talk_say(&t, bad, ARRAY_LEN(bad));
    talk_wait(&t, 5000);
    size_t from = t.log_len;
    speak(capital, n_capital);
    wait_for(t.log + from, "answer_ended");
    assert_string_equal(last_said(), "The capital of France is Paris.");
    talk_end(&t);
}

/* The work side hangs for ever: the floor stays alive and says so. */
static void test_hang(void **unused)
{
    (void)unused;
    begin(NULL);
    t.pieces = -1;
    for (int i = 0; i < 60; i++) {
        speak(capital, n_capital);
        talk_wait(&t, (int)(t.now / MS) + 1000);
    }
    has("\"earcon\":\"wait\"");
    has("\"overflow\"");
    t.pieces = 0; /* it wakes up */
    talk_wait(&t, (int)(t.now / MS) + 90000);
    size_t from = t.log_len;
    speak(sum, n_sum);
    wait_for(t.log + from, "answer_ended");
    assert_string_equal(last_said(), "Seven plus eight is fifteen.");
    talk_end(&t);
}

/* Written turns: words to be said, a question, and everything forgotten. */
static void test_written(void **unused)
{
    (void)unused;
    begin(NULL);
    assert_int_equal(conversation_say(t.conversation, ""), -EINVAL);
    assert_int_equal(conversation_say(t.conversation, "\xff"), -EINVAL);
    assert_int_equal(conversation_say(t.conversation, "The opposite of hot is cold."), 0);
    assert_int_equal(conversation_ask(t.conversation, "and?"), -EBUSY);
    const char *at = wait_for(NULL, "answer_ended");
    assert_string_equal(last_said(), "The opposite of hot is cold.");
    struct conversation_now now;
    conversation_now(t.conversation, &now);
    assert_int_equal(now.answer_ms, -1); /* nobody had spoken */
    speak(sum, n_sum);
    at = wait_for(at, "answer_ended");
    assert_string_equal(last_said(), "Seven plus eight is fifteen.");
    conversation_now(t.conversation, &now);
    assert_in_range(now.answer_ms, 250, 2000);
    /* Over a reply: it is cut, and the question has the floor. */
    speak(capital, n_capital);
    at = wait_for(at, "\"play\"");
    talk_wait(&t, (int)(t.now / MS) + 600);
    assert_int_equal(conversation_ask(t.conversation, "What is the capital of Spain?"), 0);
    at = wait_for(at, "\"asked\",\"was\":\"speaking\"");
    wait_for(at, "\"event\":\"word\""); /* whatever it says: it has learnt to hear, not to read */
    has("[\"drop\",\"truncate\",\"hear\",\"hear_end\",\"commit\"]");
    hasnt("\"event\":\"failed\"");
    conversation_forget(t.conversation);
    talk_wait(&t, (int)(t.now / MS) + 100);
    assert_int_equal(engine_length(t.session.engine), 0);
    conversation_event(t.conversation, TURN_MUTE);
    talk_wait(&t, (int)(t.now / MS) + 100);
    assert_int_equal(conversation_say(t.conversation, "Hello."), 0); /* nobody hears it */
    talk_wait(&t, (int)(t.now / MS) + 1000);
    assert_int_equal(engine_length(t.session.engine), 0);
    talk_end(&t);
}

/* What is told of a very long answer is its end, and says so. */
static void test_long_answer(void **unused)
{
    (void)unused;
    begin(NULL);
    struct heard *h = &t.conversation->work.heard;
    heard_begin(h);
    for (int i = 0; i < 400; i++)
        assert_int_equal(heard_word(h, "\xE2\x82\xAC"), 0);
    assert_int_equal(heard_word(h, "!"), 0);
    assert_int_equal(memory_close_turn(t.conversation, 0, true), 0);
    talk_wait(&t, (int)(t.now / MS) + 100);
    has("\"text\":\"...\\u20ac\\u20ac");
    has("\\u20ac!\"");
    hasnt("\\ufffd"); /* no half of a character */
    talk_end(&t);
}

/* -- The same each time ----------------------------------------------------------------------- */

/* A conversation with a bit of everything; its log, which the caller frees. */
static char *play_all(uint64_t start, bool wraps)
{
    const struct conversation_opts o = {.texts = true, .tell_cut = true, .start = start};
    clean_up();
    talk_begin(&t, &o);
    if (wraps)
        t.conversation->floor.turn.turn = t.conversation->floor.turn.answer = UINT32_MAX - 1;
    talk_wait(&t, 500);
    talk_say(&t, capital, 18000);
    talk_wait(&t, (int)(t.now / MS) + 450);
    talk_say(&t, capital + 18000, n_capital - 18000);
    wait_for(NULL, "\"play\"");
    talk_wait(&t, (int)(t.now / MS) + 900);
    talk_say(&t, sum, n_sum);
    const char *at = wait_for(NULL, "answer_ended");
    talk_say(&t, times, n_times);
    wait_for(at, "answer_ended");
    talk_wait(&t, (int)(t.now / MS) + 10000);
    char *log = t.log;
    t.log = NULL;
    talk_end(&t);
    return log;
}

/* Takes the numbers of turns and answers out. */
static void without_numbers(char *log)
{
    char *to = log;
    for (const char *p = log; *p != '\0';) {
        if (strncmp(p, "\"turn\":", 7) == 0 || strncmp(p, "\"answer\":", 9) == 0)
            for (p = strchr(p, ':') + 1; *p >= '0' && *p <= '9';)
                p++;
        *to++ = *p++;
    }
    *to = '\0';
}

static void test_same(void **unused)
{
    (void)unused;
    char *first = play_all(0, false), *second = play_all(0, false);
    assert_string_equal(first, second);
    /* Near the ends of all counters nothing is different. */
    char *late = play_all(UINT64_MAX - 4 * 16000, true);
    without_numbers(first);
    without_numbers(late);
    assert_string_equal(first, late);
    free(first);
    free(second);
    free(late);
}

static int open_all(void **state)
{
    (void)state;
    capital = talk_recording(DEMO "capital.wav", &n_capital);
    sum = talk_recording(DEMO "sum.wav", &n_sum);
    times = talk_recording(DEMO "times-two.wav", &n_times);
    return 0;
}

static int close_all(void **state)
{
    (void)state;
    free(capital);
    free(sum);
    free(times);
    free(stream);
    session_close(&t.session);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plain),       cmocka_unit_test(test_barge_in),
        cmocka_unit_test(test_two_turns),   cmocka_unit_test(test_pause),
        cmocka_unit_test(test_resume),      cmocka_unit_test(test_stop),
        cmocka_unit_test(test_mute),        cmocka_unit_test(test_empty),
        cmocka_unit_test(test_context),     cmocka_unit_test(test_full),
        cmocka_unit_test(test_slow),        cmocka_unit_test(test_bad_sound),
        cmocka_unit_test(test_hang),        cmocka_unit_test(test_written),
        cmocka_unit_test(test_same),        cmocka_unit_test(test_mute_at_once),
        cmocka_unit_test(test_long_answer),
    };
    if (!talk_model(&t.session, 384))
        return 77;
    size_t n = ARRAY_LEN(tests);
#ifdef __SANITIZE_THREAD__
    n = 2; /* all of them take a quarter of an hour there; test_live has the threads */
#elif defined(PARLEY_EMULATED)
    n = 1; /* one takes minutes */
#endif
    return _cmocka_run_group_tests("tests", tests, n, open_all, close_all);
}
