/*
 * audio/ear.c - what the microphone heard, without what the loudspeaker said.
 *
 *   mic --check--48->16 kHz--+--> filter (echo.c) --rest--+--> webrtc ---+--> clean
 *                            |                            +--> near.c --near-^
 *                            +--> as long as webrtc takes --------------> raw
 *   far -------48->16 kHz-------> `delay_ms` --> filter; webrtc is told delay_ms
 *
 * Alone, webrtc takes 14 dB of a voice that is 10 dB under the echo, and behind the filter still 2
 * to 20; so when somebody talks it is passed by. It rests while the loudspeaker has long been
 * silent: nothing of what it makes would be heard. Its high-pass filter stays off: it turns the
 * phase of all of a voice's lower half; here a first-order filter takes the constant part off.
 *
 * How long webrtc takes is measured when the ear is opened, on a burst of noise: it differs between
 * its versions and with what is switched on.
 */
#include "audio/ear.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "audio/apm.h"
#include "audio/echo.h"
#include "audio/near.h"
#include "audio/resample.h"
#include "base/util.h"

_Static_assert((int)EAR_PERIOD == (int)APM_PERIOD && (int)EAR_PERIOD == (int)ECHO_PERIOD &&
                   (int)EAR_PERIOD == (int)NEAR_PERIOD,
               "one period for all");

enum {
    RATE_MAX = 192000,
    DELAY_MAX = 500,              /* ms */
    LATENCY_MAX = 4 * EAR_PERIOD, /* of webrtc */
    LOUDEST = 50,                 /* periods of far end that are remembered: half a second */
    /* Periods of silence after which webrtc rests: the far end's delay, what is remembered as the
     * loudest, and half a second that it remembers itself; periods in which it is not heard then.
     */
    REST = DELAY_MAX / 10 + LOUDEST + 50,
    WAKE = LATENCY_MAX / EAR_PERIOD + 1,
};
#define SILENCE   1e-6f  /* rms, -120 dBFS */
#define FAR_HEARD 0.003f /* rms of a far end that is worth measuring the canceller on */
#define CLIP      0.999f
#define SMOOTH    0.98f /* of the powers behind erle, a period: half a second */

struct ear {
    bool no_cancel;
    int rate, delay_ms;
    int cancel_latency, latency; /* samples of webrtc: of its canceller, in all */
    int late;                    /* ... of the filter to EAR_RATE */
    struct apm *apm;
    struct apm *polish; /* NULL: neither noise nor gain */
    float weight;       /* of the rest in clean */
    int silent, waking; /* periods of silence at the far end, up to REST; periods left of WAKE */
    struct echo *echo;
    struct near *near;
    float constant;                       /* of the microphone */
    struct resample *mic_down, *far_down; /* NULL at EAR_RATE */
    float *checked;                       /* [rate / 100] */
    float *down;                          /* [most of a period] */

    float raw[LATENCY_MAX + EAR_PERIOD];          /* the newest samples */
    float rest[LATENCY_MAX + EAR_PERIOD];         /* likewise */
    float far[(DELAY_MAX / 10 + 1) * EAR_PERIOD]; /* likewise */
    float loud[LOUDEST];                          /* rms of far periods */
    int loud_at;
    float before, after; /* power with and without echo, smoothed, while it is heard */
};

/* The lag at which webrtc's output is most like a burst of noise that was its input. */
static int measure_latency(const struct apm_opts *o, int *latency)
{
    enum { PERIODS = 20, N = PERIODS * EAR_PERIOD };
    static const float silence[EAR_PERIOD];
    struct apm *a;
    int err = apm_open(&a, o);
    float *in = calloc(2 * N, sizeof(float)), *out = in + N;
    if (err < 0 || in == NULL) {
        free(in);
        if (err == 0)
            apm_close(a);
        return err < 0 ? err : -ENOMEM;
    }
    uint32_t seed = 1;
    for (int i = 0; i < N; i++) {
        seed = seed * 1664525u + 1013904223u;
        in[i] = out[i] = 0.1f * (float)(int32_t)seed / 2147483648.0f;
    }
    for (int i = 0; i < PERIODS; i++)
        apm_period(a, out + i * EAR_PERIOD, silence, 0);
    double best = 0.0;
    for (int lag = 0; lag < LATENCY_MAX; lag++) {
        double sum = 0.0;
        for (int i = LATENCY_MAX; i < N; i++)
            sum += (double)out[i] * in[i - lag];
        if (sum > best) {
            best = sum;
            *latency = lag;
        }
    }
    free(in);
    apm_close(a);
    return 0;
}

static int open_parts(struct ear *e, const struct ear_opts *o)
{
    const struct apm_opts cancel = {.cancel = true};
    const struct apm_opts polish = {.noise = o->noise, .gain = o->gain};
    int polishing = 0;
    int err = measure_latency(&cancel, &e->cancel_latency);
    if (err == 0)
        err = apm_open(&e->apm, &cancel);
    if (err == 0 && (o->noise || o->gain))
        err = measure_latency(&polish, &polishing);
    if (err == 0 && (o->noise || o->gain))
        err = apm_open(&e->polish, &polish);
    if (err == 0)
        err = echo_open(&e->echo);
    if (err == 0)
        err = near_open(&e->near);
    if (err == 0 && e->rate != EAR_RATE)
        err = resample_open(&e->mic_down, e->rate, EAR_RATE);
    if (err == 0 && e->rate != EAR_RATE)
        err = resample_open(&e->far_down, e->rate, EAR_RATE);
    if (err < 0)
        return err;
    e->latency = e->cancel_latency + polishing;
    size_t n = (size_t)e->rate / 100;
    if (e->mic_down != NULL) {
        size_t ready = n - (size_t)resample_wait(e->mic_down);
        e->late = EAR_PERIOD - (int)((ready * EAR_RATE + (size_t)e->rate - 1) / (size_t)e->rate);
    }
    e->checked = calloc(n, sizeof(float));
    e->down = calloc(e->mic_down != NULL ? resample_most(e->mic_down, n) : n, sizeof(float));
    return e->checked == NULL || e->down == NULL ? -ENOMEM : 0;
}

bool ear_takes(int rate)
{
    return rate >= EAR_RATE && rate <= RATE_MAX && rate % 100 == 0 && resample_can(rate, EAR_RATE);
}

int ear_open(struct ear **ret, const struct ear_opts *o, struct problems *why)
{
    const struct ear_opts none = {0};
    if (o == NULL)
        o = &none;
    int rate = o->rate != 0 ? o->rate : 48000;
    if (!ear_takes(rate))
        return problem_add(why, -EINVAL,
                           "ear: rate: found %d Hz, expected 16000 to 192000 in steps of 100 "
                           "(beyond 64000: of 400)",
                           rate);
    struct ear *e = calloc(1, sizeof(*e));
    if (e == NULL)
        return -ENOMEM;
    e->rate = rate;
    e->no_cancel = o->no_cancel;
    ear_delay(e, o->delay_ms);
    int err = open_parts(e, o);
    if (err < 0) {
        ear_close(e);
        return err;
    }
    *ret = e;
    return 0;
}

void ear_close(struct ear *e)
{
    if (e == NULL)
        return;
    apm_close(e->apm);
    apm_close(e->polish);
    echo_close(e->echo);
    near_close(e->near);
    resample_close(e->mic_down);
    resample_close(e->far_down);
    free(e->checked);
    free(e->down);
    free(e);
}

int ear_latency(const struct ear *e)
{
    return e->latency + e->late;
}

void ear_delay(struct ear *e, int delay_ms)
{
    e->delay_ms = min_int(max_int(delay_ms, 0), DELAY_MAX);
}

void ear_moved(struct ear *e)
{
    echo_moved(e->echo);
    near_reset(e->near);
}

/* in[n] (or silence) without what is no number; counts that and what is clipped. */
static void check(struct ear *e, const float *in, size_t n, int *bad, int *clipped)
{
    for (size_t i = 0; i < n; i++) {
        float x = in != NULL ? in[i] : 0.0f;
        if (!isfinite(x)) {
            x = 0.0f;
            ++*bad;
        }
        *clipped += fabsf(x) >= CLIP;
        e->checked[i] = x > 1.0f ? 1.0f : x < -1.0f ? -1.0f : x;
    }
}

/* Takes the slowly changing mean away: first order, 8 Hz. */
static void level(struct ear *e, float *x)
{
    for (int i = 0; i < EAR_PERIOD; i++) {
        e->constant += 0.003f * (x[i] - e->constant);
        x[i] -= e->constant;
    }
}

/* checked[rate / 100] to out[EAR_PERIOD]. The first period makes `late` samples less, for which
 * silence stands; every other period makes exactly one. */
static void to_ear_rate(struct ear *e, struct resample *r, float *out)
{
    if (r == NULL) {
        memcpy(out, e->checked, EAR_PERIOD * sizeof(float));
        return;
    }
    size_t made = resample_feed(r, e->checked, (size_t)e->rate / 100, e->down);
    size_t missing = EAR_PERIOD - min_size(made, EAR_PERIOD);
    memset(out, 0, missing * sizeof(float));
    memcpy(out + missing, e->down, (EAR_PERIOD - missing) * sizeof(float));
}

static float rms(const float *x, size_t n)
{
    float sum = 0.0f;
    for (size_t i = 0; i < n; i++)
        sum += x[i] * x[i];
    return sqrtf(sum / (float)n);
}

static float dbfs(float x)
{
    return 20.0f * log10f(fmaxf(x, SILENCE));
}

/* Appends a period to the newest samples. */
static void push(float *newest, size_t size, const float *period)
{
    memmove(newest, newest + EAR_PERIOD, (size - EAR_PERIOD) * sizeof(float));
    memcpy(newest + size - EAR_PERIOD, period, EAR_PERIOD * sizeof(float));
}

static float loudest_far(struct ear *e, float now)
{
    e->loud[e->loud_at] = now;
    e->loud_at = (e->loud_at + 1) % LOUDEST;
    float most = 0.0f;
    for (int i = 0; i < LOUDEST; i++)
        most = e->loud[i] > most ? e->loud[i] : most;
    return most;
}

/* How much the canceller takes away of echo alone. */
static void measure_erle(struct ear *e, const struct ear_frame *f, float far)
{
    if (far < FAR_HEARD || f->near > 0.5f)
        return;
    float raw = rms(f->raw, EAR_PERIOD), clean = rms(f->clean, EAR_PERIOD);
    e->before = SMOOTH * e->before + (1.0f - SMOOTH) * raw * raw;
    e->after = SMOOTH * e->after + (1.0f - SMOOTH) * clean * clean;
}

/* The period that began `late` samples before the newest one. */
static const float *ago(const float *newest, int late)
{
    return newest + LATENCY_MAX - late;
}

/* clean: what webrtc makes of the rest while there is only echo, the rest itself when somebody
 * talks: webrtc would suppress a good part of the voice. */
static void cancel(struct ear *e, const float *rest, const float *far, struct ear_frame *out)
{
    const float *kept = ago(e->rest, e->cancel_latency);
    e->silent = count_silence(e->silent, REST, far, EAR_PERIOD);
    if (e->silent == REST) {
        memcpy(out->clean, kept, sizeof(out->clean));
        e->waking = WAKE;
        return;
    }
    float from = e->weight, to = e->waking > 0 ? 1.0f : sqrtf(sqrtf(out->near));
    e->waking -= e->waking > 0;
    memcpy(out->clean, rest, sizeof(out->clean));
    apm_period(e->apm, out->clean, far, e->delay_ms);
    for (int i = 0; i < EAR_PERIOD; i++) {
        float w = from + (to - from) * (float)(i + 1) / EAR_PERIOD;
        out->clean[i] += w * (kept[i] - out->clean[i]);
    }
    e->weight = to;
}

void ear_period(struct ear *e, const float *mic, const float *far, struct ear_frame *out)
{
    float m[EAR_PERIOD], f[EAR_PERIOD], predicted[EAR_PERIOD], rest[EAR_PERIOD];
    int unused = 0;
    *out = (struct ear_frame){0};
    check(e, mic, (size_t)e->rate / 100, &out->bad, &out->clipped);
    to_ear_rate(e, e->mic_down, m);
    level(e, m);
    check(e, far, (size_t)e->rate / 100, &unused, &unused);
    to_ear_rate(e, e->far_down, f);

    push(e->far, ARRAY_LEN(e->far), f);
    const float *delayed =
        e->far + ARRAY_LEN(e->far) - EAR_PERIOD - (size_t)e->delay_ms * EAR_RATE / 1000;
    float far_rms = rms(delayed, EAR_PERIOD), loudest = loudest_far(e, far_rms);
    if (echo_period(e->echo, m, delayed, predicted, rest))
        near_reset(e->near);

    out->far = dbfs(loudest);
    out->near = near_period(e->near, predicted, rest, out->far);
    out->settled = near_settled(e->near);
    push(e->raw, ARRAY_LEN(e->raw), m);
    push(e->rest, ARRAY_LEN(e->rest), rest);
    memcpy(out->raw, ago(e->raw, e->latency), sizeof(out->raw));
    if (e->no_cancel)
        memcpy(out->clean, ago(e->raw, e->cancel_latency), sizeof(out->clean));
    else
        cancel(e, rest, f, out);
    if (e->polish != NULL)
        apm_period(e->polish, out->clean, f, 0);
    for (int i = 0; i < EAR_PERIOD; i++)
        out->clean[i] = fminf(fmaxf(out->clean[i], -1.0f), 1.0f);
    out->level = dbfs(rms(out->raw, EAR_PERIOD));
    measure_erle(e, out, far_rms);
    out->erle = e->before > 0.0f ? 10.0f * log10f((e->before + 1e-12f) / (e->after + 1e-12f)) : 0;
}
