/*
 * tests/unit/test_scene.c - the simulated room against what is known of it: reverberation time,
 * levels, delay, drift, faults, noises; and that nothing of it depends on anything but the seeds.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <math.h>

#include "base/util.h"
#include "daemon/acoustics.h"
#include "daemon/scene.h"

enum { PERIODS = 300, N = PERIODS * SCENE_PERIOD };

static double rms_db(const float *x, size_t n)
{
    double sum = 1e-20;
    for (size_t i = 0; i < n; i++)
        sum += (double)x[i] * (double)x[i];
    return 10 * log10(sum / (double)n);
}

/* Energy of the taps from `lag` on. */
static double energy_after(const struct taps *t, int lag)
{
    double sum = 0;
    for (size_t i = 0; i < t->n; i++)
        if (t->lag[i] >= lag)
            sum += (double)t->gain[i] * (double)t->gain[i];
    return sum;
}

static void test_taps(void **unused)
{
    (void)unused;
    struct taps t, again, other;
    assert_int_equal(taps_make(&t, 48000, 96, 400, -3, 5), 0);
    assert_int_equal(taps_make(&again, 48000, 96, 400, -3, 5), 0);
    assert_int_equal(taps_make(&other, 48000, 96, 400, -3, 6), 0);
    assert_int_equal(t.lag[0], 96);
    assert_true(fabs(energy_after(&t, 0) - 1) < 1e-5);
    assert_true(fabs(10 * log10(energy_after(&t, 97) / (1 - energy_after(&t, 97))) + 3) < 0.01);
    /* The tail falls by 60 dB in 400 ms: 15 dB in 100 ms. */
    int from = 96 + 72 + 480;
    double fall = 10 * log10(energy_after(&t, from) / energy_after(&t, from + 4800));
    assert_true(fabs(fall - 15) < 1.5);
    assert_int_equal(t.n, again.n);
    assert_memory_equal(t.gain, again.gain, t.n * sizeof(float));
    assert_memory_not_equal(t.gain, other.gain, t.n * sizeof(float));
    taps_free(&t);
    taps_free(&again);
    taps_free(&other);
    assert_int_equal(taps_make(&t, 48000, 0, 0, -3, 5), 0);
    assert_true(t.n == 1 && t.gain[0] == 1);
    taps_free(&t);
}

static void test_noises(void **unused)
{
    (void)unused;
    static float a[96000], b[96000];
    for (int k = 0; k < NOISE_KINDS; k++) {
        struct noise z, y;
        memset(a, 0, sizeof(a));
        memset(b, 0, sizeof(b));
        noise_init(&z, (enum scenario_noise_kind)k, -40, 48000, 9);
        noise_init(&y, (enum scenario_noise_kind)k, -40, 48000, 9);
        noise_add(&z, a, 96000);
        for (size_t i = 0; i < 96000; i += 480)
            noise_add(&y, b + i, 480);
        assert_true(fabs(rms_db(a, 96000) + 40) < 1);
        assert_true(k == NOISE_HUM || memcmp(a, b, sizeof(a)) == 0);
    }
}

/* A tone of -20 dBFS through a room; the last quarter of what comes out is judged. */
struct heard {
    float *mic, *far, *speaker;
    uint64_t pulled;
};

static void play(struct heard *h, struct scenario *s)
{
    struct scene *r = NULL;
    struct scene_period p;
    float pcm[SCENE_PERIOD];
    *h = (struct heard){calloc(N, sizeof(float)), calloc(N, sizeof(float)),
                        calloc(N, sizeof(float)), 0};
    assert_int_equal(scene_open(&r, s, NULL), 0);
    for (size_t at = 0; at < N; at += SCENE_PERIOD) {
        while (scene_hungry(r)) {
            for (int i = 0; i < SCENE_PERIOD; i++)
                pcm[i] = 0.1414f * sinf(6.2831853f * (float)((h->pulled + (uint64_t)i) % 480) / 96);
            scene_play(r, pcm);
            h->pulled += SCENE_PERIOD;
        }
        scene_period(r, &p);
        memcpy(h->mic + at, p.mic, sizeof(p.mic));
        memcpy(h->far + at, p.far, sizeof(p.far));
        memcpy(h->speaker + at, p.speaker, sizeof(p.speaker));
        uint64_t delay = scene_play_delay(r), least = (uint64_t)s->room.play_delay_ms * 48;
        assert_true(delay + 1 >= least && delay <= least + SCENE_PERIOD);
    }
    scene_close(r);
}

static void heard_free(struct heard *h)
{
    free(h->mic);
    free(h->far);
    free(h->speaker);
}

static struct scenario quiet(void)
{
    return (struct scenario){.length_ms = PERIODS * 10,
                             .room = {.voice_db = -26, .play_delay_ms = 20, .delay_ms = 5}};
}

static void test_echo(void **unused)
{
    (void)unused;
    struct heard h;
    struct scenario s = quiet();
    s.room.echo_db = 6;
    play(&h, &s);
    assert_true(fabs(rms_db(h.speaker + N / 2, N / 2) + 20) < 0.1);
    float gain = 1.33352f; /* 2.5 dB: a tone of -22.5 dBFS would be 6 dB over the voice */
    assert_true(fabs(rms_db(h.mic + N / 2, N / 2) + 17.5) < 0.1);
    for (size_t i = 0; i < N; i++) {
        assert_true(h.far[i] == h.speaker[i]);
        assert_true(i < 20 * 48 ? h.speaker[i] == 0 : 1);
        float echo = i < 240 ? 0 : h.speaker[i - 240] * gain;
        assert_true(fabsf(h.mic[i] - echo) < 1e-4f);
    }
    heard_free(&h);
}

static void test_drift(void **unused)
{
    (void)unused;
    for (double ppm = -500; ppm <= 500; ppm += 1000) {
        struct heard h;
        struct scenario s = quiet();
        double error = 0;
        s.room.drift_ppm = ppm;
        play(&h, &s);
        double extra = (double)h.pulled - N;
        assert_true(fabs(extra - N * ppm * 1e-6) <= SCENE_PERIOD);
        for (size_t i = N / 2; i < N; i++) /* the loop follows: 0.1 is 15 samples of this tone */
            error = fmax(error, fabs((double)h.far[i] - (double)h.speaker[i]));
        assert_true(error > 0 && error < 0.1);
        assert_true(fabs(rms_db(h.far + N / 2, N / 2) + 20) < 0.2);
        heard_free(&h);
    }
}

static void test_saturation(void **unused)
{
    (void)unused;
    struct heard h;
    struct scenario s = quiet();
    s.room.echo_db = 6;
    s.room.saturation = 0.05;
    play(&h, &s);
    for (size_t i = 0; i < N; i++)
        assert_true(fabsf(h.mic[i]) < 0.0668f); /* 0.05 and 2.5 dB */
    heard_free(&h);
}

static bool all_zero(const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (x[i] != 0)
            return false;
    return true;
}

static int bad_samples(const float *x)
{
    int n = 0;
    for (int i = 0; i < SCENE_PERIOD; i++)
        n += !isfinite(x[i]);
    return n;
}

static void next(struct scene *r, struct scene_period *p)
{
    float pcm[SCENE_PERIOD];
    for (int i = 0; i < SCENE_PERIOD; i++)
        pcm[i] = 0.1f;
    while (scene_hungry(r))
        scene_play(r, pcm);
    scene_period(r, p);
}

static void test_faults(void **unused)
{
    (void)unused;
    struct scene *r = NULL;
    struct scene_period p;
    struct scenario s = quiet();
    assert_int_equal(scene_open(&r, &s, NULL), 0);
    for (int i = 0; i < 10; i++)
        next(r, &p);
    assert_false(all_zero(p.mic, SCENE_PERIOD) || all_zero(p.far, SCENE_PERIOD));
    scene_mic_lost(r, true);
    next(r, &p);
    assert_true(all_zero(p.mic, SCENE_PERIOD) && !all_zero(p.far, SCENE_PERIOD));
    scene_mic_lost(r, false);
    scene_mic_closed(r, true);
    next(r, &p);
    assert_true(all_zero(p.mic, SCENE_PERIOD));
    scene_mic_closed(r, false);
    scene_overflow(r, 20);
    for (int i = 0; i < 3; i++) {
        next(r, &p);
        assert_int_equal(all_zero(p.mic, SCENE_PERIOD), i < 2);
    }
    scene_no_number(r, 10);
    for (int i = 0; i < 2; i++) {
        next(r, &p);
        assert_int_equal(bad_samples(p.mic) > 0, i < 1);
    }
    /* What the device holds sounds still; then it has nothing for 30 ms. */
    scene_underrun(r, 30);
    for (int i = 0; i < 6; i++) {
        next(r, &p);
        assert_int_equal(all_zero(p.speaker, SCENE_PERIOD), i >= 2 && i < 5);
    }
    scene_speaker_lost(r, true);
    for (int i = 0; i < 5; i++) {
        next(r, &p);
        assert_true(all_zero(p.speaker, SCENE_PERIOD) && !scene_hungry(r));
    }
    scene_speaker_lost(r, false);
    for (int i = 0; i < 4; i++)
        next(r, &p);
    assert_false(all_zero(p.speaker, SCENE_PERIOD));
    scene_close(r);
    scene_close(NULL);
}

static void test_sounds(void **unused)
{
    (void)unused;
    char file[] = SOURCE_DIR "/tests/replay/voices/hello.flac";
    struct scenario_sound sounds[2] = {{.file = file, .level_db = 6, .rt60_ms = 200},
                                       {.file = file, .level_db = 80, .repeat_ms = 1500}};
    struct scenario s = quiet();
    struct scene *r = NULL;
    struct scene_period p;
    struct scene_levels l;
    double from_ms, to_ms;
    s.sounds = sounds;
    s.n_sounds = 2;
    assert_int_equal(scene_open(&r, &s, NULL), 0);
    scene_sound_span(r, 0, &from_ms, &to_ms);
    assert_true(from_ms >= 10 && from_ms < 40 && to_ms > 550 && to_ms < 700);
    next(r, &p);
    assert_true(all_zero(p.user, SCENE_PERIOD));
    scene_sound(r, 0);
    for (int i = 0; i < 120; i++)
        next(r, &p);
    scene_levels(r, &l);
    assert_true(fabs(l.voice + 20) < 2); /* -26 + 6 */
    assert_true(all_zero(p.user, SCENE_PERIOD));
    scene_sound(r, 1); /* far too loud: the converter clips; goes round for 1.5 s */
    bool clipped = false;
    for (int i = 0; i < 150; i++) {
        next(r, &p);
        for (int k = 0; k < SCENE_PERIOD; k++) {
            assert_true(fabsf(p.mic[k]) <= 1);
            clipped = clipped || p.mic[k] == 1;
        }
    }
    assert_true(clipped && !all_zero(p.user, SCENE_PERIOD));
    next(r, &p);
    assert_true(all_zero(p.user, SCENE_PERIOD));
    scene_close(r);
}

static void test_impulse_file(void **unused)
{
    (void)unused;
    char file[] = SOURCE_DIR "/tests/replay/voices/click.flac";
    char none[] = SOURCE_DIR "/tests/replay/voices/no.flac";
    char longer[] = SOURCE_DIR "/tests/replay/voices/television.flac";
    struct problems why = {0};
    struct scene *r = NULL;
    struct heard h;
    struct scenario s = quiet();
    s.room.impulse = file;
    play(&h, &s);
    assert_true(rms_db(h.mic + N / 2, N / 2) > -60);
    heard_free(&h);
    s.room.impulse = none;
    assert_true(scene_open(&r, &s, &why) < 0);
    s.room.impulse = longer;
    assert_true(scene_open(&r, &s, &why) < 0);
    assert_non_null(strstr(why.text[0], "no.flac"));
    assert_non_null(strstr(why.text[1], "expected a room's response of at most 2 s"));
    problems_free(&why);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_taps),       cmocka_unit_test(test_noises),
        cmocka_unit_test(test_echo),       cmocka_unit_test(test_drift),
        cmocka_unit_test(test_saturation), cmocka_unit_test(test_faults),
        cmocka_unit_test(test_sounds),     cmocka_unit_test(test_impulse_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
