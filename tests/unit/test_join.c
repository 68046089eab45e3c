/*
 * tests/unit/test_join.c - microphone and loudspeaker on two clocks, in virtual time: what the
 * loudspeaker plays at a moment comes out beside what the microphone takes at that moment, for ten
 * minutes at 500 ppm, through jitter, xruns, stalls and lost devices.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

#include "audio/join.h"
#include "base/util.h"
#include "tests/support/sanitized.h"

enum { RATE = SANITIZED ? 16000 : 48000, PERIOD = RATE / 100, LEAD = RATE * JOIN_LEAD_MS / 1000 };
enum { DRIFT_S = SANITIZED ? 60 : 600 }; /* at the largest drift */
#define PI 3.14159265358979323846

/* What sounds at time t: some tones, so that any shift shows, if of a part of a sample only. */
static double sound_at(double t)
{
    t *= RATE / 48000.0;
    return 0.2 * sin(2 * PI * 310.0 * t) + 0.2 * sin(2 * PI * 1170.0 * t + 1.0) +
           0.1 * sin(2 * PI * 37.3 * t + 2.0);
}

/* Two devices and the world's time. */
struct world {
    struct join *j;
    double now;                /* seconds */
    double speaker_hz, mic_hz; /* real */
    double jitter_s;
    uint32_t seed;
    double written, captured;     /* samples since the start of each device */
    double speaker_at, mic_at;    /* time of the first sample */
    double next_write, next_read; /* times */
    bool speaker_on, mic_on, speaker_anew, mic_anew;
    double worst, sum, sum_far; /* of the difference of mic and far, since `measure` */
    size_t missing;
    float early[LEAD]; /* of the far end */
};

static double any(struct world *w)
{
    w->seed = w->seed * 1664525u + 1013904223u;
    return (double)(w->seed >> 8) / (1 << 24);
}

static struct world make_world(double speaker_ppm, double jitter_ms)
{
    struct world w = {.speaker_hz = RATE * (1.0 + speaker_ppm * 1e-6),
                      .mic_hz = RATE,
                      .jitter_s = jitter_ms / 1000.0,
                      .seed = 5,
                      .now = 100.0,
                      .speaker_at = 100.02,
                      .mic_at = 100.0,
                      .next_write = 100.0,
                      .next_read = 100.013,
                      .speaker_on = true,
                      .mic_on = true};
    assert_int_equal(join_open(&w.j, RATE), 0);
    return w;
}

/* The loudspeaker takes a period; 30 ms are kept in it. */
static void play(struct world *w)
{
    float pcm[PERIOD];
    for (int i = 0; i < PERIOD; i++)
        pcm[i] = (float)sound_at(w->speaker_at + (w->written + i) / w->speaker_hz);
    w->written += PERIOD;
    double heard = (w->now - w->speaker_at) * w->speaker_hz;
    const struct audio_moment m = {.at_ns = (int64_t)(w->now * 1e9),
                                   .delay = llround(w->written - heard +
                                                    w->jitter_s * (any(w) - 0.5) * RATE)};
    join_write(w->j, AUDIO_PLAYBACK, pcm, PERIOD, &m, w->speaker_anew);
    w->speaker_anew = false;
    w->next_write = w->speaker_at + w->written / w->speaker_hz - 0.03;
}

static void record(struct world *w)
{
    float pcm[PERIOD];
    for (int i = 0; i < PERIOD; i++)
        pcm[i] = (float)sound_at(w->mic_at + (w->captured + i) / w->mic_hz);
    w->captured += PERIOD;
    double late = (w->now - w->mic_at) * w->mic_hz - w->captured;
    const struct audio_moment m = {.at_ns = (int64_t)(w->now * 1e9),
                                   .delay = llround(late + w->jitter_s * (any(w) - 0.5) * RATE)};
    join_write(w->j, AUDIO_CAPTURE, pcm, PERIOD, &m, w->mic_anew);
    w->mic_anew = false;
    w->next_read = w->mic_at + (w->captured + PERIOD) / w->mic_hz + 0.003;
}

static void take(struct world *w, bool measure)
{
    float mic[PERIOD], far[PERIOD];
    w->missing += join_take(w->j, mic, far);
    for (int i = 0; i < PERIOD; i++) {
        float late = w->early[0];
        memmove(w->early, w->early + 1, sizeof(w->early) - sizeof(float));
        w->early[LEAD - 1] = far[i];
        far[i] = late;
    }
    for (int i = 0; i < PERIOD && measure; i++) {
        w->worst = fmax(w->worst, fabs(mic[i] - far[i]));
        w->sum += pow(mic[i] - far[i], 2);
        w->sum_far += pow(mic[i], 2);
    }
}

/* The world goes on until `end`; a lost microphone is taken from by the clock. */
static void run(struct world *w, double end, bool measure)
{
    double due = w->now;
    w->worst = w->sum = w->sum_far = 0.0;
    while (w->now < end) {
        double write = w->speaker_on ? w->next_write : end, read = w->mic_on ? w->next_read : due;
        w->now = fmin(write, read);
        if (write <= read && w->speaker_on)
            play(w);
        else if (w->mic_on)
            record(w);
        while (w->mic_on && join_ready(w->j))
            take(w, measure);
        for (; !w->mic_on && w->now >= due; due += 0.01)
            take(w, measure);
    }
}

static double error_db(const struct world *w)
{
    return 10.0 * log10(w->sum / w->sum_far + 1e-12);
}

static void test_drift(void **unused)
{
    (void)unused;
    const double ppm[] = {0.0, 500.0, -500.0, 100.0};
    for (size_t i = 0; i < ARRAY_LEN(ppm); i++) {
        struct world w = make_world(ppm[i], 1.0);
        run(&w, 130.0, false);
        size_t before = w.missing;
        run(&w, 100.0 + (i == 1 ? DRIFT_S : 90), true);
        print_message("%4.0f ppm: found %.0f, difference %.1f dB, off by %.2f samples\n", ppm[i],
                      join_drift_ppm(w.j), error_db(&w), join_error(w.j));
        assert_true(fabs(join_drift_ppm(w.j) - ppm[i]) < 30.0);
        assert_true(error_db(&w) < -20.0); /* within some samples all the time */
        assert_int_equal(w.missing, before);
        double delay = join_play_delay(w.j, (int64_t)(w.now * 1e9));
        assert_true(fabs(delay - 0.035 * RATE) < 0.008 * RATE);
        join_close(w.j);
    }
}

/* Moments as bad as those of a sound server. */
static void test_jitter(void **unused)
{
    (void)unused;
    struct world w = make_world(50.0, 10.0);
    run(&w, 220.0, false);
    run(&w, 280.0, true);
    print_message("jitter 10 ms: difference %.1f dB\n", error_db(&w));
    assert_true(error_db(&w) < -3.0); /* some samples */
    assert_int_equal(w.missing, 0);
    join_close(w.j);
}

/* The loudspeaker stops for a while and goes on with what it has. */
static void test_speaker_xrun(void **unused)
{
    (void)unused;
    const double gaps[] = {0.010, 0.043, 0.3};
    struct world w = make_world(0.0, 0.2);
    double until = 120.0;
    run(&w, until, false);
    for (size_t i = 0; i < ARRAY_LEN(gaps); i++) {
        w.speaker_at += gaps[i]; /* everything sounds later by as much */
        w.next_write += gaps[i];
        w.speaker_anew = true;
        run(&w, until + 2.0, false);
        run(&w, until + 12.0, true);
        print_message("gap of %.0f ms: difference %.1f dB\n", 1e3 * gaps[i], error_db(&w));
        assert_true(error_db(&w) < -20.0);
        until += 12.0;
    }
    join_close(w.j);
}

/* Samples of the microphone are lost: silence in their place, and time goes on as before. */
static void test_mic_xrun(void **unused)
{
    (void)unused;
    struct world w = make_world(200.0, 0.2);
    run(&w, 120.0, false);
    for (int i = 1; i <= 3; i++) {
        size_t before = w.missing;
        w.captured += 1000.0 * i;
        w.next_read += 1000.0 * i / RATE;
        w.mic_anew = true;
        run(&w, 120.0 + i * 10.0 - 8.0, false);
        run(&w, 120.0 + i * 10.0, true);
        assert_in_range(w.missing - before, 1000 * i - 60, 1000 * i + 60);
        assert_true(error_db(&w) < -20.0);
    }
    join_close(w.j);
}

/* Lost and opened again, one after the other: time is kept by the clock meanwhile. */
static void test_lost(void **unused)
{
    (void)unused;
    struct world w = make_world(-100.0, 0.2);
    run(&w, 120.0, false);
    w.mic_on = false;
    run(&w, 123.0, false);
    assert_in_range(w.missing, 2.9 * RATE, 3.1 * RATE);
    w.mic_on = true;
    w.mic_at = w.now;
    w.captured = 0.0;
    w.next_read = w.now + 0.02;
    w.mic_anew = true;
    run(&w, 126.0, false);
    run(&w, 136.0, true);
    assert_true(error_db(&w) < -20.0);

    w.speaker_on = false;
    run(&w, 140.0, false);
    run(&w, 141.0, true);
    assert_true(fabs(error_db(&w)) < 0.5); /* far is silence: all of mic is the difference */
    w.speaker_on = true;
    w.speaker_at = w.now + 0.02;
    w.written = 0.0;
    w.next_write = w.now;
    w.speaker_anew = true;
    run(&w, 144.0, false);
    run(&w, 154.0, true);
    assert_true(error_db(&w) < -20.0);
    join_close(w.j);
}

/* The microphone's first samples come late; silence was given meanwhile. */
static void test_late_start(void **unused)
{
    (void)unused;
    struct world w = make_world(0.0, 0.2);
    w.mic_on = false;
    run(&w, 102.0, false);
    assert_in_range(w.missing, 1.9 * RATE, 2.1 * RATE);
    w.mic_on = true;
    w.mic_at = w.now;
    w.next_read = w.now + 0.013;
    size_t before = w.missing;
    run(&w, 120.0, false);
    assert_int_equal(w.missing, before);
    run(&w, 130.0, true);
    assert_true(error_db(&w) < -20.0);
    join_close(w.j);
}

/* Nobody reads for longer than the rings hold: what was lost is silence, time is right. */
static void test_nobody_reads(void **unused)
{
    (void)unused;
    struct world w = make_world(0.0, 0.2);
    run(&w, 120.0, false);
    while (w.now < 130.0) {
        w.now = fmin(w.next_write, w.next_read);
        if (w.next_write <= w.next_read)
            play(&w);
        else
            record(&w);
    }
    run(&w, 135.0, false);
    run(&w, 145.0, true);
    assert_true(error_db(&w) < -20.0);
    join_close(w.j);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_drift),        cmocka_unit_test(test_jitter),
        cmocka_unit_test(test_speaker_xrun), cmocka_unit_test(test_mic_xrun),
        cmocka_unit_test(test_lost),         cmocka_unit_test(test_nobody_reads),
        cmocka_unit_test(test_late_start),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
