/*
 * tests/unit/test_ear.c - the ear in simulated rooms: our own speech is taken away, a person's is
 * kept and noticed. Speech is that of etc/demo.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

#include "audio/ear.h"
#include "base/util.h"
#include "tests/support/room.h"
#include "tests/support/sanitized.h"

enum { ROOMS = 10, TRIED = SANITIZED ? 1 : ROOMS }; /* rooms in which everything is tried */
enum { SECONDS = 15, N = SECONDS * EAR_RATE, PERIODS = N / EAR_PERIOD };
enum { LOUD_PERIODS = 10 };
#define PI 3.14159265358979323846

/* Our own speech, the person's (power 1 while it sounds), what the microphone gets. */
static float far[N], *person;
static size_t person_n, person_on;

static void append(size_t *at, const char *path)
{
    float *pcm;
    size_t n;
    assert_int_equal(room_read(&pcm, &n, path), 0);
    for (size_t i = 0; i < n && *at < N; i++)
        far[(*at)++] = 1.5f * pcm[i];
    free(pcm);
}

static int load_speech(void **unused)
{
    (void)unused;
    size_t at = 0;
    while (at < N) {
        append(&at, SOURCE_DIR "/etc/demo/capital.wav");
        append(&at, SOURCE_DIR "/etc/demo/sum.wav");
    }
    if (room_read(&person, &person_n, SOURCE_DIR "/etc/demo/times-two.wav") != 0)
        return -1;
    double power = 0.0;
    size_t loud = 0;
    for (size_t i = 0; i < person_n; i++)
        if (fabsf(person[i]) > 0.02f) {
            power += (double)person[i] * person[i];
            loud++;
            person_on = person_on == 0 ? i : person_on;
        }
    for (size_t i = 0; i < person_n; i++)
        person[i] *= (float)sqrt((double)loud / power);
    return 0;
}

static int free_speech(void **unused)
{
    (void)unused;
    free(person);
    return 0;
}

static struct room_opts room_number(int i)
{
    return (struct room_opts){.rt60 = 0.1 + 0.055 * i,
                              .delay_ms = 5.0 + 6.0 * i,
                              .gain_db = -12.0 + 1.5 * i,
                              .direct_db = i % 3 * 3 - 3,
                              .saturation = i % 4 == 1 ? 0.7 : 0.0,
                              .noise_dbfs = -75.0 + 2.0 * i,
                              .seed = (uint32_t)i + 1};
}

/* What the microphone hears in a room, and the rms of its loud periods. */
struct heard {
    float mic[N];
    double rms;
};
static struct heard rooms[ROOMS];

static void hear_room(const struct room_opts *o, struct heard *h)
{
    struct room *r;
    double power = 0.0;
    size_t n = 0;
    assert_int_equal(room_open(&r, o), 0);
    room_hear(r, far, h->mic, N);
    room_close(r);
    for (size_t i = 0; i < N; i++)
        if (fabsf(far[i]) > 0.02f) {
            power += (double)h->mic[i] * h->mic[i];
            n++;
        }
    h->rms = sqrt(power / (double)n);
}

static const struct heard *room_heard(int i)
{
    const struct room_opts o = room_number(i);
    if (rooms[i].rms == 0.0)
        hear_room(&o, &rooms[i]);
    return &rooms[i];
}

static struct ear *open_ear(const struct ear_opts *o)
{
    struct ear *e = NULL;
    assert_int_equal(ear_open(&e, o, NULL), 0);
    return e;
}

static double power_of(const float *x)
{
    double sum = 0.0;
    for (int i = 0; i < EAR_PERIOD; i++)
        sum += (double)x[i] * x[i];
    return sum;
}

static const struct ear_opts at_16k = {.rate = EAR_RATE};

static void test_options(void **unused)
{
    (void)unused;
    const int bad[] = {8000, 44123, -1, 1000000};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        const struct ear_opts o = {.rate = bad[i]};
        struct problems why = {0};
        struct ear *e = NULL;
        assert_int_equal(ear_open(&e, &o, &why), -EINVAL);
        assert_int_equal(why.n, 1);
        assert_null(e);
        problems_free(&why);
    }
    const int good[] = {16000, 44100, 48000, 0};
    for (size_t i = 0; i < ARRAY_LEN(good); i++) {
        const struct ear_opts o = {.rate = good[i], .noise = i % 2, .gain = i / 2};
        ear_close(open_ear(&o));
    }
    ear_close(NULL);
}

/* Nothing plays: a person comes through untouched, in step with raw, ear_latency late. */
static void test_alone(void **unused)
{
    (void)unused;
    const int rates[] = {16000, 44100, 48000};
    for (size_t r = 0; r < ARRAY_LEN(rates); r++) {
        const struct ear_opts o = {.rate = rates[r]};
        struct ear *e = open_ear(&o);
        static float mic[192000 / 100], out[N];
        int n = rates[r] / 100, latency = ear_latency(e);
        struct ear_frame f;
        double raw = 0.0, off = 0.0, late = 0.0;
        for (int p = 0; p < 300; p++) {
            for (int i = 0; i < n; i++)
                mic[i] = (float)(0.1 * sin(2.0 * PI * 440.0 * (p * n + i) / rates[r]));
            ear_period(e, mic, NULL, &f);
            assert_true(f.near == 1.0f && f.bad == 0 && f.clipped == 0 && f.far == -120.0f);
            memcpy(out + p * EAR_PERIOD, f.raw, sizeof(f.raw));
            for (int i = 0; i < EAR_PERIOD && p > 100; i++) {
                double want = 0.1 * sin(2.0 * PI * 440.0 * (p * EAR_PERIOD + i - latency) / 16000);
                raw += f.raw[i] * f.raw[i];
                off += pow(f.raw[i] - f.clean[i], 2);
                late += pow(f.raw[i] - want, 2);
            }
        }

        assert_true(fabsf(f.level - -23.0f) < 0.2f);
        assert_true(off < 0.01 * raw);  /* clean is raw */
        assert_true(late < 0.01 * raw); /* and both are the input, latency later */
        ear_close(e);
    }
}

static void test_silence(void **unused)
{
    (void)unused;
    struct ear *e = open_ear(NULL);
    struct ear_frame f;
    for (int p = 0; p < (SANITIZED ? 300 : 3000); p++) {
        ear_period(e, NULL, NULL, &f);
        assert_true(f.level == -120.0f && f.near == 1.0f && f.erle == 0.0f);
        assert_true(power_of(f.clean) < 1e-6);
    }
    ear_close(e);
}

/* Own echo alone, in every room: 20 dB quieter from the fourth second on, and never somebody. */
static void test_echo_alone(void **unused)
{
    (void)unused;
    for (int i = 0; i < TRIED; i++) {
        const float *mic = room_heard(i)->mic;
        struct ear *e = open_ear(&at_16k);
        struct ear_frame f;
        double raw = 0.0, clean = 0.0;
        int somebody = 0;
        for (int p = 0; p < PERIODS; p++) {
            ear_period(e, mic + p * EAR_PERIOD, far + p * EAR_PERIOD, &f);
            if (p < 400)
                continue;
            raw += power_of(f.raw);
            clean += power_of(f.clean);
            somebody += f.near >= 0.5f;
        }
        print_message("room %d: erle %.1f dB (said: %.1f), near %d\n", i, 10.0 * log10(raw / clean),
                      f.erle, somebody);
        assert_true(raw > 100.0 * clean);
        assert_true(f.settled && f.erle > 15.0f);
        assert_int_equal(somebody, 0);
        ear_close(e);
    }
}

/* Minutes of silence, then echo: it is learnt as if the device had just been switched on. */
static void test_echo_after_silence(void **unused)
{
    (void)unused;
    const float *mic = room_heard(0)->mic;
    struct ear *e = open_ear(&at_16k);
    struct ear_frame f;
    for (int p = 0; p < (SANITIZED ? 1000 : 12000); p++)
        ear_period(e, NULL, NULL, &f);
    double raw = 0.0, clean = 0.0;
    for (int p = 0; p < 600; p++) {
        ear_period(e, mic + p * EAR_PERIOD, far + p * EAR_PERIOD, &f);
        raw += p < 400 ? 0.0 : power_of(f.raw);
        clean += p < 400 ? 0.0 : power_of(f.clean);
    }
    assert_true(raw > 100.0 * clean);
    assert_true(f.settled);
    ear_close(e);
}

/* The person at `db` below the echo from 12 s on. Returns after how many ms of voice somebody was
 * noticed (10000: never); *loss, *sdr: what clean keeps of the voice and how pure, in dB. */
static double double_talk(int room, double db, double *loss, double *sdr)
{
    static float mic[N], voice[N + LOUD_PERIODS * EAR_PERIOD];
    const struct heard *h = room_heard(room);
    struct ear *e = open_ear(&at_16k);
    struct ear_frame f;
    size_t start = 12 * EAR_RATE + (size_t)room * 700;
    double gain = h->rms * pow(10.0, -db / 20.0), noticed = 10000.0;
    double vv = 0.0, vc = 0.0, cc = 0.0;
    memcpy(mic, h->mic, sizeof(mic));
    memset(voice, 0, sizeof(voice));
    for (size_t i = 0; i < person_n; i++) {
        voice[start + i] = (float)gain * person[i];
        mic[start + i] += voice[start + i];
    }
    int late = ear_latency(e);
    for (int p = 0; p < PERIODS; p++) {
        ear_period(e, mic + p * EAR_PERIOD, far + p * EAR_PERIOD, &f);
        double ms = ((double)(p + 1) * EAR_PERIOD - (double)(start + person_on)) / 16.0;
        if (ms > 0.0 && f.near >= 0.5f && noticed == 10000.0)
            noticed = ms;
        for (int i = 0; i < EAR_PERIOD && p * EAR_PERIOD > late; i++) {
            double v = voice[p * EAR_PERIOD + i - late], c = v != 0.0 ? f.clean[i] : 0.0;
            vv += v * v;
            vc += v * c;
            cc += c * c;
        }
    }
    ear_close(e);
    *loss = -20.0 * log10(fabs(vc / vv));
    *sdr = 10.0 * log10(vc * vc / vv / (cc - vc * vc / vv));
    return noticed;
}

static int by_size(const void *a, const void *b)
{
    return (*(const double *)a > *(const double *)b) - (*(const double *)a < *(const double *)b);
}

static void talk_over(double db, double most_ms, double most_loss)
{
    double noticed[TRIED], loss[TRIED], sdr[TRIED];
    for (int i = 0; i < TRIED; i++) {
        noticed[i] = double_talk(i, db, &loss[i], &sdr[i]);
        print_message("room %d, voice %.0f dB under the echo: noticed after %.0f ms, loss %.1f dB, "
                      "SI-SDR %.1f dB\n",
                      i, db, noticed[i], loss[i], sdr[i]);
    }
    qsort(noticed, TRIED, sizeof(double), by_size);
    qsort(loss, TRIED, sizeof(double), by_size);
    assert_true(noticed[TRIED / 2] <= most_ms && noticed[TRIED * 8 / 10] <= 3.0 * most_ms);
    assert_true(loss[TRIED / 2] <= most_loss && loss[TRIED - 1] <= 2.0 * most_loss);
}

static void test_talk_over_3(void **unused)
{
    (void)unused;
    talk_over(3.0, 100.0, 3.3);
}

static void test_talk_over_10(void **unused)
{
    (void)unused;
    talk_over(10.0, 150.0, 5.0);
}

/* A delay that is known too low is no harm, even 50 ms; nor is its correction on the way. */
static void test_delay(void **unused)
{
    (void)unused;
    static struct heard h;
    const float *mic = h.mic;
    const struct room_opts o = {.rt60 = 0.3, .delay_ms = 60.0, .gain_db = -6.0, .seed = 3};
    const int hints[] = {0, 10, 30, 55};
    hear_room(&o, &h);
    for (size_t i = 0; i < ARRAY_LEN(hints) && i < TRIED; i++) {
        const struct ear_opts opts = {.rate = EAR_RATE, .delay_ms = hints[i]};
        struct ear *e = open_ear(&opts);
        struct ear_frame f;
        double raw = 0.0, clean = 0.0;
        for (int p = 0; p < PERIODS; p++) {
            if (p == 800)
                ear_delay(e, 50);
            ear_period(e, mic + p * EAR_PERIOD, far + p * EAR_PERIOD, &f);
            if ((p >= 400 && p < 800) || p >= 1200) {
                raw += power_of(f.raw);
                clean += power_of(f.clean);
            }
        }
        assert_true(raw > 100.0 * clean);
        ear_close(e);
    }
}

/* What is no number is silence and counted; full scale is counted; the ear hears on. */
static void test_bad_input(void **unused)
{
    (void)unused;
    const float *mic = room_heard(3)->mic;
    struct ear *e = open_ear(&at_16k);
    struct ear_frame f;
    double raw = 0.0, clean = 0.0;
    for (int p = 0; p < PERIODS; p++) {
        float m[EAR_PERIOD], x[EAR_PERIOD];
        memcpy(m, mic + p * EAR_PERIOD, sizeof(m));
        memcpy(x, far + p * EAR_PERIOD, sizeof(x));
        if (p % 50 == 7 && p < 300) {
            m[3] = NAN;
            m[4] = INFINITY;
            m[5] = 1e30f;
            x[6] = NAN;
            x[7] = -INFINITY;
        }
        if (p >= 300 && p < 320)
            for (int i = 0; i < EAR_PERIOD; i++)
                m[i] = fminf(fmaxf(m[i] * 100.0f, -1.0f), 1.0f);
        ear_period(e, m, x, &f);
        assert_int_equal(f.bad, p % 50 == 7 && p < 300 ? 2 : 0);
        if (p >= 300 && p < 320)
            assert_true(f.clipped > 0 || f.level < -20.0f);
        for (int i = 0; i < EAR_PERIOD; i++)
            assert_true(isfinite(f.clean[i]) && isfinite(f.raw[i]) && fabsf(f.clean[i]) <= 1.0f);
        assert_true(isfinite(f.near) && f.near >= 0.0f && f.near <= 1.0f && isfinite(f.erle));
        if (p >= 1000) {
            raw += power_of(f.raw);
            clean += power_of(f.clean);
        }
    }
    assert_true(raw > 100.0 * clean);
    ear_close(e);
}

/* The loudspeaker is carried into another room: what was learnt is learnt anew. */
static void test_other_room(void **unused)
{
    (void)unused;
    const float *one = room_heard(2)->mic, *two = room_heard(7)->mic;
    struct ear *e = open_ear(&at_16k);
    struct ear_frame f;
    double raw = 0.0, clean = 0.0;
    for (int p = 0; p < PERIODS; p++) {
        const float *mic = p < 900 ? one : two;
        ear_period(e, mic + p * EAR_PERIOD, far + p * EAR_PERIOD, &f);
        if (p >= 1200) {
            raw += power_of(f.raw);
            clean += power_of(f.clean);
        }
    }
    assert_true(raw > 100.0 * clean);
    ear_close(e);
}

/* The echo comes later by a part of a millisecond, as after an underrun: too little for the filter
 * to start anew, enough to leave as much as a person would. Told, the ear takes it for nobody, and
 * learns. */
static void test_moved(void **unused)
{
    (void)unused;
    enum { LATER = 8, WHEN = 900 };
    const float *mic = room_heard(2)->mic;
    struct ear *e = open_ear(&at_16k);
    struct ear_frame f;
    double raw = 0.0, clean = 0.0;
    int somebody = 0;
    for (int p = 0; p < PERIODS; p++) {
        if (p == WHEN)
            ear_moved(e);
        ear_period(e, mic + p * EAR_PERIOD - (p < WHEN ? 0 : LATER), far + p * EAR_PERIOD, &f);
        somebody += p > WHEN && f.near >= (f.settled ? 0.5f : 0.8f);
        if (p >= WHEN + 100) {
            raw += power_of(f.raw);
            clean += power_of(f.clean);
        }
    }
    print_message("echo 0.5 ms later: erle %.1f dB, near %d\n", 10.0 * log10(raw / clean),
                  somebody);
    assert_true(raw > 100.0 * clean);
    assert_int_equal(somebody, 0);
    ear_close(e);
}

/* A device with its own canceller: nothing is taken away. */
static void test_no_cancel(void **unused)
{
    (void)unused;
    const struct ear_opts o = {.rate = EAR_RATE, .no_cancel = true};
    struct ear *e = open_ear(&o);
    struct ear_frame f;
    for (int p = 0; p < 500; p++) {
        ear_period(e, far + p * EAR_PERIOD, far + p * EAR_PERIOD, &f);
        for (int i = 0; i < EAR_PERIOD; i++)
            assert_true(fabsf(f.clean[i] - f.raw[i]) < 1e-3f);
    }
    ear_close(e);
}

/* Two ears that hear the same give the same bits. */
static void test_same_again(void **unused)
{
    (void)unused;
    const float *mic = room_heard(5)->mic;
    const struct ear_opts opts = {.rate = EAR_RATE, .noise = true, .gain = true};
    struct ear *a = open_ear(&opts), *b = open_ear(&opts);
    struct ear_frame fa, fb;
    memset(&fa, 0, sizeof(fa));
    memset(&fb, 0, sizeof(fb));
    for (int p = 0; p < (SANITIZED ? 500 : PERIODS); p++) {
        ear_period(a, mic + p * EAR_PERIOD, far + p * EAR_PERIOD, &fa);
        ear_period(b, mic + p * EAR_PERIOD, far + p * EAR_PERIOD, &fb);
        assert_memory_equal(fa.clean, fb.clean, sizeof(fa.clean));
        assert_memory_equal(fa.raw, fb.raw, sizeof(fa.raw));
        assert_true(fa.near == fb.near && fa.erle == fb.erle && fa.level == fb.level);
    }
    ear_close(a);
    ear_close(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_options),
        cmocka_unit_test(test_alone),
        cmocka_unit_test(test_silence),
        cmocka_unit_test(test_echo_alone),
        cmocka_unit_test(test_echo_after_silence),
        cmocka_unit_test(test_talk_over_3),
        cmocka_unit_test(test_talk_over_10),
        cmocka_unit_test(test_delay),
        cmocka_unit_test(test_bad_input),
        cmocka_unit_test(test_other_room),
        cmocka_unit_test(test_moved),
        cmocka_unit_test(test_no_cancel),
        cmocka_unit_test(test_same_again),
    };
    return cmocka_run_group_tests(tests, load_speech, free_speech);
}
