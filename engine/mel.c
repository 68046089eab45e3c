/*
 * engine/mel.c - the Whisper log-mel front end, one frame at a time.
 *
 * Frame i covers samples 160i-200 .. 160i+199 under a periodic Hann window; a 400-point transform
 * gives 201 power bins, Slaney triangles fold them into `bins` energies, log10 of which is kept.
 * Before the first and after the last sample the sound is mirrored. All samples of the sound are
 * kept: the mirror at the end needs the last 200, and a sound is bounded by the context.
 *
 * The transform runs in double: bins 80 dB below a loud neighbour count, and a float transform
 * leaves an error of that size there.
 */
#include "engine/mel.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"

#define HALF       (MEL_FFT / 2)
#define SPECTRUM   (HALF + 1)
#define ENERGY_MIN 1e-10

struct triangle {
    int first, count; /* spectrum bins under it */
    float w[SPECTRUM];
};

struct mel {
    int bins;
    double window[MEL_FFT];
    double cosine[MEL_FFT]; /* cos(2 pi k / 400): twiddles of the transform */
    double sine[MEL_FFT];
    struct triangle *triangle; /* [bins] */
    float *pcm;
    size_t samples, pcm_cap;
    float *raw; /* [frames, bins] log10 energies */
    size_t raw_cap;
    int frames;
    int final; /* frames that later samples cannot change */
    float peak, final_peak;
};

static double hz_to_mel(double f)
{
    return f < 1000.0 ? 3.0 * f / 200.0 : 15.0 + 27.0 * log(f / 1000.0) / log(6.4);
}

static double mel_to_hz(double m)
{
    return m < 15.0 ? 200.0 * m / 3.0 : 1000.0 * exp((m - 15.0) * log(6.4) / 27.0);
}

/* Slaney triangle over lo < mid < hi (Hz), area-normalised. */
static void make_triangle(struct triangle *t, double lo, double mid, double hi)
{
    for (int b = 0; b < SPECTRUM; b++) {
        double f = b * (double)MEL_RATE / MEL_FFT;
        double up = (f - lo) / (mid - lo), down = (hi - f) / (hi - mid);
        double w = fmax(0.0, fmin(up, down)) * 2.0 / (hi - lo);
        if (w <= 0.0)
            continue;
        if (t->count == 0)
            t->first = b;
        t->count = b - t->first + 1;
        t->w[b - t->first] = (float)w;
    }
}

static void make_tables(struct mel *m)
{
    for (int i = 0; i < MEL_FFT; i++) {
        double a = 2.0 * M_PI * i / MEL_FFT;
        m->cosine[i] = cos(a);
        m->sine[i] = sin(a);
        m->window[i] = 0.5 - 0.5 * cos(a);
    }
    double top = hz_to_mel(MEL_RATE / 2.0);
    for (int b = 0; b < m->bins; b++) {
        double edge[3];
        for (int e = 0; e < 3; e++)
            edge[e] = mel_to_hz(top * (b + e) / (m->bins + 1));
        make_triangle(&m->triangle[b], edge[0], edge[1], edge[2]);
    }
}

int mel_open(struct mel **ret, int bins)
{
    struct mel *m = calloc(1, sizeof(*m));
    if (m == NULL)
        return -ENOMEM;
    m->bins = bins;
    m->triangle = calloc((size_t)bins, sizeof(*m->triangle));
    if (m->triangle == NULL) {
        mel_close(m);
        return -ENOMEM;
    }
    make_tables(m);
    mel_reset(m);
    *ret = m;
    return 0;
}

void mel_reset(struct mel *m)
{
    m->samples = 0;
    m->frames = m->final = 0;
    m->peak = m->final_peak = -INFINITY;
}

/* Sample i of the sound mirrored at both ends; a sound too short to mirror is followed by zeros. */
static double sample_at(const struct mel *m, long i)
{
    long n = (long)m->samples;
    if (i < 0)
        i = -i;
    if (i >= n && n > HALF)
        i = 2 * (n - 1) - i;
    return i < n ? m->pcm[i] : 0.0;
}

/*
 * Power spectrum of 400 real samples: 400 = 16 * 25. With n = 25 a + b and k = 16 c + d:
 * X[k] = sum_b e(-b k / 400) * (sum_a x[25 a + b] e(-a d / 16)), so 25 short transforms of 16
 * points come first and the rest is a sum over b.
 */
static void power_spectrum(const struct mel *m, const double *x, double *power)
{
    double re[16][25], im[16][25];
    for (int b = 0; b < 25; b++) {
        for (int d = 0; d < 16; d++) {
            double sr = 0.0, si = 0.0;
            for (int a = 0; a < 16; a++) {
                int t = a * d % 16 * 25;
                sr += x[25 * a + b] * m->cosine[t];
                si -= x[25 * a + b] * m->sine[t];
            }
            re[d][b] = sr;
            im[d][b] = si;
        }
    }
    for (int k = 0; k < SPECTRUM; k++) {
        const double *r = re[k % 16], *s = im[k % 16];
        double sr = 0.0, si = 0.0;
        for (int b = 0, t = 0; b < 25; b++, t = (t + k) % MEL_FFT) {
            sr += r[b] * m->cosine[t] + s[b] * m->sine[t];
            si += s[b] * m->cosine[t] - r[b] * m->sine[t];
        }
        power[k] = sr * sr + si * si;
    }
}

static int add_frame(struct mel *m)
{
    int err = grow_array(&m->raw, &m->raw_cap, (size_t)(m->frames + 1) * m->bins, sizeof(float));
    if (err < 0)
        return err;
    double x[MEL_FFT], power[SPECTRUM];
    long start = (long)m->frames * MEL_HOP - HALF;
    for (int i = 0; i < MEL_FFT; i++)
        x[i] = sample_at(m, start + i) * m->window[i];
    power_spectrum(m, x, power);
    float *out = m->raw + (size_t)m->frames * m->bins;
    for (int b = 0; b < m->bins; b++) {
        const struct triangle *t = &m->triangle[b];
        double e = 0.0;
        for (int i = 0; i < t->count; i++)
            e += t->w[i] * power[t->first + i];
        out[b] = (float)log10(fmax(e, ENERGY_MIN));
        m->peak = fmaxf(m->peak, out[b]);
    }
    m->frames++;
    return 0;
}

int mel_push(struct mel *m, const float *pcm, size_t n)
{
    int err = grow_array(&m->pcm, &m->pcm_cap, m->samples + n, sizeof(float));
    if (err < 0)
        return err;
    memcpy(m->pcm + m->samples, pcm, n * sizeof(float));
    m->samples += n;
    while ((size_t)m->frames * MEL_HOP + HALF < m->samples) {
        err = add_frame(m);
        if (err < 0)
            return err;
    }
    m->final = m->frames;
    m->final_peak = m->peak;
    return 0;
}

int mel_finish(struct mel *m)
{
    while ((size_t)(m->frames + 1) * MEL_HOP <= m->samples) {
        int err = add_frame(m);
        if (err < 0)
            return err;
    }
    return 0;
}

void mel_resume(struct mel *m)
{
    m->frames = m->final;
    m->peak = m->final_peak;
}

size_t mel_samples(const struct mel *m)
{
    return m->samples;
}

int mel_frames(const struct mel *m)
{
    return m->frames;
}

float mel_peak(const struct mel *m)
{
    return m->peak;
}

float mel_floor(const struct mel *m, int first, int n)
{
    float low = INFINITY;
    const float *raw = m->raw + (size_t)first * m->bins;
    for (size_t i = 0; i < (size_t)n * m->bins; i++)
        low = fminf(low, raw[i]);
    return low;
}

void mel_read(const struct mel *m, int first, int n, float peak, float *out)
{
    const float *raw = m->raw + (size_t)first * m->bins;
    for (size_t i = 0; i < (size_t)n * m->bins; i++)
        out[i] = (fmaxf(raw[i], peak - 8.0f) + 4.0f) / 4.0f;
}

void mel_close(struct mel *m)
{
    if (m == NULL)
        return;
    free(m->triangle);
    free(m->pcm);
    free(m->raw);
    free(m);
}
