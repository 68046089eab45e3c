/*
 * audio/resample.c - a polyphase filter: for each of the `up` places that an output can have
 * between two input samples, 2 * half weights of a sinc under a Kaiser window.
 *
 *     out[k] = sum_j weight[phase][j] * in[floor(k * down / up) - half + 1 + j]
 *
 * The last 2 * half inputs lie twice in a row, so that a product never wraps around. Sums are made
 * in a fixed order: the same bits everywhere.
 */
#include "audio/resample.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"

enum {
    HALF = 32,    /* weights on each side at the lower rate */
    UP_MAX = 640, /* ... and sets of them */
    LANES = 16,   /* sums side by side */
};
#define CUTOFF 0.92 /* of the lower Nyquist rate: the middle of the slope */
#define BETA   8.0  /* Kaiser: 80 dB */
#define PI     3.14159265358979323846

struct resample {
    int up, down, half;
    float *weight;  /* [up, 2*half] */
    float *last;    /* [2, 2*half], the same twice */
    size_t silent;  /* inputs of silence in a row, up to 2*half */
    size_t next;    /* where in `last` the next input goes */
    uint64_t taken; /* inputs so far */
    uint64_t made;  /* outputs so far */
    uint64_t place; /* the input before the next output (floor of its time) */
    int phase;      /* ... and how far behind it, of `up` */
};

static int divisor(int a, int b)
{
    return b == 0 ? a : divisor(b, a % b);
}

static double bessel0(double x)
{
    double sum = 1.0, term = 1.0;
    for (int k = 1; term > 1e-12 * sum; k++) {
        term *= (x / (2 * k)) * (x / (2 * k));
        sum += term;
    }
    return sum;
}

/* One row of weights, with a sum of 1. */
static void make_row(float *row, int half, double frac, double cutoff)
{
    double sum = 0.0;
    for (int pass = 0; pass < 2; pass++)
        for (int j = 0; j < 2 * half; j++) {
            double x = j - half + 1 - frac, edge = x / half;
            double window = bessel0(BETA * sqrt(fmax(0.0, 1.0 - edge * edge))) / bessel0(BETA);
            double sinc = x == 0.0 ? 1.0 : sin(PI * cutoff * x) / (PI * cutoff * x);
            if (pass == 0)
                sum += sinc * window;
            else
                row[j] = (float)(sinc * window / sum);
        }
}

bool resample_can(int from, int to)
{
    if (from <= 0 || to <= 0)
        return false;
    int common = divisor(from, to);
    return to / common <= UP_MAX && from / common <= UP_MAX;
}

int resample_open(struct resample **ret, int from, int to)
{
    if (!resample_can(from, to))
        return -EINVAL;
    int common = divisor(from, to);
    struct resample *r = calloc(1, sizeof(*r));
    if (r == NULL)
        return -ENOMEM;
    r->up = to / common;
    r->down = from / common;
    double slower = fmin(1.0, (double)to / from);
    r->half = ((int)ceil(HALF / slower) + LANES - 1) / LANES * LANES;
    size_t width = 2 * (size_t)r->half;
    r->weight = malloc((size_t)r->up * width * sizeof(float));
    r->last = calloc(2 * width, sizeof(float));
    if (r->weight == NULL || r->last == NULL) {
        resample_close(r);
        return -ENOMEM;
    }
    for (int p = 0; p < r->up; p++)
        make_row(r->weight + (size_t)p * width, r->half, (double)p / r->up, CUTOFF * slower);
    *ret = r;
    return 0;
}

void resample_close(struct resample *r)
{
    if (r == NULL)
        return;
    free(r->weight);
    free(r->last);
    free(r);
}

int resample_wait(const struct resample *r)
{
    return r->half;
}

size_t resample_most(const struct resample *r, size_t n)
{
    return (n + (size_t)r->half) * (size_t)r->up / (size_t)r->down + 2;
}

/* The weighted sum of the last 2 * half inputs, in LANES sums, always the same ones. */
WIDE static float product(const struct resample *r)
{
    size_t width = 2 * (size_t)r->half;
    const float *w = r->weight + (size_t)r->phase * width, *x = r->last + r->next;
    float s[LANES] = {0.0f};
    for (size_t j = 0; j < width; j += LANES)
        for (size_t i = 0; i < LANES; i++)
            s[i] += w[j + i] * x[j + i];
    for (size_t n = LANES / 2; n > 0; n /= 2)
        for (size_t i = 0; i < n; i++)
            s[i] += s[i + n];
    return s[0];
}

static size_t take(struct resample *r, float in, float *out)
{
    size_t width = 2 * (size_t)r->half, n = 0;
    r->last[r->next] = r->last[r->next + width] = in;
    r->next = r->next + 1 == width ? 0 : r->next + 1;
    r->silent = in == 0.0f ? min_size(r->silent + 1, width) : 0;
    r->taken++;
    while (r->place + (uint64_t)r->half + 1 == r->taken) {
        out[n++] = r->silent == width ? 0.0f : product(r);
        r->made++;
        r->phase += r->down;
        r->place += (uint64_t)(r->phase / r->up);
        r->phase %= r->up;
    }
    return n;
}

size_t resample_feed(struct resample *r, const float *in, size_t n, float *out)
{
    size_t made = 0;
    for (size_t i = 0; i < n; i++)
        made += take(r, in[i], out + made);
    return made;
}

size_t resample_end(struct resample *r, float *out)
{
    uint64_t all = (r->taken * (uint64_t)r->up + (uint64_t)r->down - 1) / (uint64_t)r->down;
    size_t wanted = (size_t)(all - r->made), made = 0;
    while (made < wanted)
        made += take(r, 0.0f, out + made);
    resample_reset(r);
    return wanted;
}

void resample_reset(struct resample *r)
{
    memset(r->last, 0, 4 * (size_t)r->half * sizeof(float));
    r->next = r->silent = 0;
    r->taken = r->made = r->place = 0;
    r->phase = 0;
}
