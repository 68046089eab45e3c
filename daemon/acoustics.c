/* daemon/acoustics.c - impulse responses, noises and levels of simulated rooms. */
#include "daemon/acoustics.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "daemon/sound_file.h"

#define PI 3.14159265358979323846

enum { PULSES = 1250, TAIL_FROM_US = 1500, HUM_HZ = 50 };

/* splitmix64, Vigna: the same numbers everywhere. */
static uint64_t draw(uint64_t *state)
{
    uint64_t z = *state += 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

/* [-1, 1) */
static float uniform(uint64_t *state)
{
    return (float)(int32_t)(draw(state) >> 32) / 2147483648.0f;
}

double amplitude(double db)
{
    return pow(10, db / 20);
}

static int taps_alloc(struct taps *t, size_t n)
{
    *t = (struct taps){.lag = calloc(n, sizeof(*t->lag)), .gain = calloc(n, sizeof(*t->gain))};
    if (t->lag != NULL && t->gain != NULL)
        return 0;
    taps_free(t);
    return -ENOMEM;
}

static void add_tap(struct taps *t, int lag, float gain)
{
    t->lag[t->n] = lag;
    t->gain[t->n++] = gain;
    t->last = lag;
}

static double energy(const float *x, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)x[i] * (double)x[i];
    return sum;
}

static void scale(float *x, size_t n, double factor)
{
    for (size_t i = 0; i < n; i++)
        x[i] = (float)((double)x[i] * factor);
}

int taps_make(struct taps *t, int rate, int delay, int rt60_ms, double tail_db, uint64_t seed)
{
    int cell = rate / PULSES, from = rate / 1000 * TAIL_FROM_US / 1000;
    size_t pulses = (size_t)(rate / 1000 * rt60_ms / cell);
    int err = taps_alloc(t, pulses + 1);
    if (err < 0)
        return err;
    double fall = rt60_ms > 0 ? amplitude(-60.0 * cell * 1000 / ((double)rt60_ms * rate)) : 0;
    double level = 1;
    add_tap(t, delay, 1);
    for (size_t i = 0; i < pulses; i++, level *= fall) {
        uint64_t r = draw(&seed);
        int place = (int)(r >> 8 & 0xFFFFFF) * cell >> 24;
        add_tap(t, delay + from + (int)i * cell + place, (float)(r & 1 ? level : -level));
    }
    double tail = energy(t->gain + 1, t->n - 1);
    if (tail > 0)
        scale(t->gain + 1, t->n - 1, amplitude(tail_db) / sqrt(tail));
    scale(t->gain, t->n, 1 / sqrt(energy(t->gain, t->n)));
    return 0;
}

int taps_read(struct taps *t, int rate, int delay, const char *path, struct problems *why)
{
    float *pcm = NULL, peak = 0;
    size_t n = 0;
    int err = sound_file_read_at(&pcm, &n, path, rate, why);
    if (err == 0 && n > (size_t)rate * 2)
        err =
            problem_add(why, -EINVAL, "%s: found %.1f s, expected a room's response of at most 2 s",
                        path, (double)n / rate);
    if (err == 0)
        err = taps_alloc(t, n);
    for (size_t i = 0; err == 0 && i < n; i++)
        peak = fmaxf(peak, fabsf(pcm[i]));
    for (size_t i = 0; err == 0 && i < n; i++)
        if (fabsf(pcm[i]) >= peak / 1000)
            add_tap(t, delay + (int)i, pcm[i]);
    if (err == 0)
        scale(t->gain, t->n, 1 / sqrt(energy(t->gain, t->n)));
    free(pcm);
    return err;
}

void taps_apply(const struct taps *t, const float *x, size_t n, float *y)
{
    memset(y, 0, (n + (size_t)t->last) * sizeof(*y));
    for (size_t k = 0; k < t->n; k++) {
        float *to = y + t->lag[k], gain = t->gain[k];
        for (size_t i = 0; i < n; i++)
            to[i] += gain * x[i];
    }
}

void taps_free(struct taps *t)
{
    free(t->lag);
    free(t->gain);
    *t = (struct taps){0};
}

double active_level(const float *pcm, size_t n, int rate)
{
    size_t block = (size_t)rate / 50;
    double loudest = 0, sum = 0;
    size_t used = 0;
    for (size_t at = 0; at + block <= n; at += block)
        loudest = fmax(loudest, energy(pcm + at, block));
    for (size_t at = 0; at + block <= n; at += block) {
        double e = energy(pcm + at, block);
        if (e > 0 && e >= loudest * 0.0031623) { /* -25 dB */
            sum += e;
            used += block;
        }
    }
    return used > 0 ? 10 * log10(sum / (double)used) : -120;
}

/* Amplitudes of the hum: the mains and four harmonics, every other one weak. */
static float hum(struct noise *z)
{
    double c = z->wave[0], s = z->wave[1];
    z->wave[0] = c * z->turn[0] - s * z->turn[1];
    z->wave[1] = s * z->turn[0] + c * z->turn[1];
    double s2 = 2 * s * c, c2 = c * c - s * s, s3 = s2 * c + c2 * s;
    double s4 = 2 * s2 * c2, c3 = c2 * c - s2 * s, s5 = s3 * c2 + c3 * s2;
    return (float)(s + 0.3 * s2 + 0.6 * s3 + 0.15 * s4 + 0.3 * s5);
}

/* Three poles that together fall by 3 dB an octave (Kellet). */
static float pink(struct noise *z)
{
    float white = uniform(&z->state), *p = z->pink;
    p[0] = 0.99765f * p[0] + white * 0.0990460f;
    p[1] = 0.96300f * p[1] + white * 0.2965164f;
    p[2] = 0.57000f * p[2] + white * 1.0526913f;
    return p[0] + p[1] + p[2] + white * 0.1848f;
}

static float sample(struct noise *z)
{
    switch (z->kind) {
    case NOISE_PINK:
        return pink(z);
    case NOISE_HUM:
        return hum(z);
    default:
        return uniform(&z->state);
    }
}

void noise_init(struct noise *z, enum scenario_noise_kind kind, double level_db, int rate,
                uint64_t seed)
{
    double step = 2 * PI * HUM_HZ / rate, sum = 0;
    *z = (struct noise){
        .kind = kind, .rate = rate, .state = seed, .turn = {cos(step), sin(step)}, .wave = {1, 0}};
    for (int i = 0; i < 2 * rate; i++) { /* two seconds are measured, which also settles filters */
        float x = sample(z);
        sum += (double)x * (double)x;
    }
    z->gain = (float)(amplitude(level_db) / sqrt(sum / (2 * rate)));
}

void noise_add(struct noise *z, float *pcm, size_t n)
{
    for (size_t i = 0; i < n; i++)
        pcm[i] += z->gain * sample(z);
    /* The rotation's length drifts by rounding; over days that would be heard. */
    double r = 1 / sqrt(z->wave[0] * z->wave[0] + z->wave[1] * z->wave[1]);
    z->wave[0] *= r;
    z->wave[1] *= r;
}
