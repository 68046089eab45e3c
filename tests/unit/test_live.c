/*
 * tests/unit/test_live.c - a conversation with its threads, through recordings instead of devices,
 * in real time: asked, answered, stopped. Under the thread sanitizer it is the test of what crosses
 * between them.
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
#include <poll.h>
#include <sndfile.h>

#include "base/util.h"
#include "daemon/live.h"
#include "tests/support/talk.h"

#define OUT BINARY_DIR "/live-out.wav"
#define IN  BINARY_DIR "/live-in.wav"

static struct session session;
static struct live *running; /* what a failed test leaves is stopped before the next one */
static char lines[1 << 20];
static size_t n_lines;

/* A second of silence, the question, silence. */
static void write_question(int silence_s)
{
    static float silence[16000];
    size_t n;
    float *pcm = talk_recording(SOURCE_DIR "/etc/demo/sum.wav", &n);
    SF_INFO info = {.samplerate = 16000, .channels = 1, .format = SF_FORMAT_WAV | SF_FORMAT_PCM_16};
    SNDFILE *f = sf_open(IN, SFM_WRITE, &info);
    assert_non_null(f);
    sf_write_float(f, silence, 16000);
    sf_write_float(f, pcm, (sf_count_t)n);
    for (int i = 0; i < silence_s; i++)
        sf_write_float(f, silence, 16000);
    sf_close(f);
    free(pcm);
}

static struct live *open_live(const char *capture)
{
    struct live *l = NULL;
    struct problems why = {.n = 0};
    const struct live_opts o = {.session = &session,
                                .capture = capture,
                                .playback = "wav:" OUT,
                                .vad = SOURCE_DIR "/models/vad/silero.bin",
                                .texts = true};
    if (running != NULL) {
        live_stop(running, NULL);
        live_close(running);
    }
    running = NULL;
    n_lines = 0;
    lines[0] = '\0';
    if (live_open(&l, &o, &why) < 0 || live_start(l, &why) < 0)
        fail_msg("%s", why.n > 0 ? why.text[0] : "live_open");
    running = l;
    return l;
}

static void end_live(struct live *l)
{
    running = NULL;
    assert_int_equal(live_stop(l, NULL), 0);
    live_close(l);
}

/* Until the lines have `text`, or it has ended, or time is over: two minutes, because a sanitizer
 * makes the model slower than speech. */
static bool read_until(struct live *l, const char *text)
{
    double end = clock_seconds() + 120;
    struct pollfd fd = {.fd = live_fd(l), .events = POLLIN};
    while (strstr(lines, text) == NULL && !live_ended(l) && clock_seconds() < end) {
        poll(&fd, 1, 100);
        while (n_lines + LIVE_LINE_MAX < sizeof(lines)) {
            size_t n = live_read(l, lines + n_lines);
            if (n == 0)
                break;
            assert_int_equal(lines[n_lines + n - 1], '\n');
            n_lines += n;
        }
    }
    return strstr(lines, text) != NULL;
}

/* Seconds of the output, and in *loud those of its last sound. */
static double output(double *loud)
{
    SF_INFO info = {0};
    float x;
    SNDFILE *f = sf_open(OUT, SFM_READ, &info);
    assert_non_null(f);
    *loud = 0;
    for (sf_count_t i = 0; sf_readf_float(f, &x, 1) == 1; i++)
        if (fabsf(x) > 3e-3f)
            *loud = (double)i / info.samplerate;
    sf_close(f);
    return (double)info.frames / info.samplerate;
}

static void test_question(void **unused)
{
    (void)unused;
    double loud;
    struct live_stats stats;
    struct live_progress before, after;
    write_question(3);
    struct live *l = open_live("wav:" IN);
    live_progress(l, &before);
    assert_true(read_until(l, "answer_ended"));
    live_progress(l, &after);
    live_stats(l, &stats);
    assert_non_null(strstr(lines, "Seven plus eight is fifteen."));
    assert_true(after.floor - before.floor > 300 && after.work - before.work > 50);
    assert_int_equal(stats.now.turns, 1);
    assert_int_equal(stats.now.replies, 1);
    assert_int_equal(stats.lines_lost, 0);
    assert_true(stats.now.answer_ms > 250 && stats.now.rate > 0);
    assert_false(read_until(l, "no such line")); /* the recording's end ends it */
    if (!live_ended(l))
        fail_msg("it does not end by itself: %s", n_lines > 900 ? lines + n_lines - 900 : lines);
    end_live(l);
    assert_true(output(&loud) > 5);
    assert_true(loud > 4);
}

/* In mid-reply it ends within a moment, and silent. */
static void test_stop(void **unused)
{
    (void)unused;
    double loud;
    struct live *l = open_live("null");
    assert_int_equal(live_say(l, "\xff"), -EINVAL);
    assert_int_equal(live_say(l, "One, two, three, four, five, six, seven, eight, nine."), 0);
    assert_true(read_until(l, "\"play\""));
    poll(NULL, 0, 800);
    double before = clock_seconds();
    end_live(l);
    assert_true(clock_seconds() - before < 5); /* a piece of work is waited for */
    double length = output(&loud);
    assert_true(loud > 0.5 && loud < length - 0.005);
}

static void test_bad(void **unused)
{
    (void)unused;
    struct live *l = NULL;
    struct problems why = {.n = 0};
    struct live_opts o = {.session = &session,
                          .capture = "null",
                          .playback = "null",
                          .vad = SOURCE_DIR "/no/such/file"};
    assert_true(live_open(&l, &o, &why) < 0);
    assert_int_equal(why.n, 1);
    problems_free(&why);
    o.vad = SOURCE_DIR "/models/vad/silero.bin";
    o.capture = "wav:" SOURCE_DIR "/no/such/file.wav";
    assert_true(live_open(&l, &o, &why) < 0);
    assert_true(why.n >= 1);
    problems_free(&why);
    o.capture = "null";
    assert_int_equal(live_open(&l, &o, &why), 0); /* never started */
    live_close(l);
    live_close(NULL);
}

static int close_all(void **state)
{
    (void)state;
    session_close(&session);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bad),
        cmocka_unit_test(test_question),
        cmocka_unit_test(test_stop),
    };
    if (!talk_model(&session, 512))
        return 77;
    size_t n = ARRAY_LEN(tests);
#ifdef PARLEY_EMULATED
    n = 1; /* an emulator cannot keep up with real time */
#endif
    return _cmocka_run_group_tests("tests", tests, n, NULL, close_all);
}
