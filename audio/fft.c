/*
 * audio/fft.c - a real transform of N by a complex one of N / 2 (even samples real part, odd ones
 * imaginary), radix 2.
 */
#include "audio/fft.h"

#include <math.h>

#include "base/util.h"

#define PI 3.14159265358979323846

enum { HALF = FFT_N / 2 };

void fft_init(struct fft *f)
{
    int bits = 0;
    while (1 << bits < HALF)
        bits++;
    for (int k = 0; k < HALF; k++) {
        f->cos[k] = (float)cos(2.0 * PI * k / FFT_N);
        f->sin[k] = (float)sin(2.0 * PI * k / FFT_N);
        int reversed = 0;
        for (int b = 0; b < bits; b++)
            reversed |= (k >> b & 1) << (bits - 1 - b);
        f->order[k] = (unsigned short)reversed;
    }
    for (int span = 1; span < HALF; span *= 2)
        for (int j = 0; j < span; j++) {
            f->turn_re[span + j] = f->cos[j * (HALF / span)];
            f->turn_im[span + j] = f->sin[j * (HALF / span)];
        }
}

/* In place over HALF numbers that are in bit-reversed order; sign -1 forward, 1 inverse. */
WIDE static void butterflies(const struct fft *f, float *re, float *im, float sign)
{
    for (int span = 1; span < HALF; span *= 2) {
        const float *c = f->turn_re + span, *s = f->turn_im + span;
        for (int base = 0; base < HALF; base += 2 * span) {
            float *restrict ar = re + base, *restrict ai = im + base;
            float *restrict br = ar + span, *restrict bi = ai + span;
            for (int j = 0; j < span; j++) {
                float tr = br[j] * c[j] - bi[j] * (sign * s[j]);
                float ti = br[j] * (sign * s[j]) + bi[j] * c[j];
                br[j] = ar[j] - tr;
                bi[j] = ai[j] - ti;
                ar[j] += tr;
                ai[j] += ti;
            }
        }
    }
}

void fft_forward(const struct fft *f, struct spectrum *out, const float *in)
{
    float re[HALF], im[HALF];
    for (int n = 0; n < HALF; n++) {
        re[f->order[n]] = in[2 * n];
        im[f->order[n]] = in[2 * n + 1];
    }
    butterflies(f, re, im, -1.0f);
    out->re[0] = re[0] + im[0];
    out->re[HALF] = re[0] - im[0];
    out->im[0] = out->im[HALF] = 0.0f;
    for (int k = 1; k < HALF; k++) {
        float even_r = 0.5f * (re[k] + re[HALF - k]), even_i = 0.5f * (im[k] - im[HALF - k]);
        float odd_r = 0.5f * (im[k] + im[HALF - k]), odd_i = -0.5f * (re[k] - re[HALF - k]);
        out->re[k] = even_r + odd_r * f->cos[k] + odd_i * f->sin[k];
        out->im[k] = even_i + odd_i * f->cos[k] - odd_r * f->sin[k];
    }
}

void fft_inverse(const struct fft *f, float *out, const struct spectrum *in)
{
    float re[HALF], im[HALF];
    for (int k = 0; k < HALF; k++) {
        float even_r = 0.5f * (in->re[k] + in->re[HALF - k]);
        float even_i = 0.5f * (in->im[k] - in->im[HALF - k]);
        float dr = 0.5f * (in->re[k] - in->re[HALF - k]);
        float di = 0.5f * (in->im[k] + in->im[HALF - k]);
        float odd_r = dr * f->cos[k] - di * f->sin[k], odd_i = dr * f->sin[k] + di * f->cos[k];
        re[f->order[k]] = even_r - odd_i;
        im[f->order[k]] = even_i + odd_r;
    }
    butterflies(f, re, im, 1.0f);
    for (int n = 0; n < HALF; n++) {
        out[2 * n] = re[n] / HALF;
        out[2 * n + 1] = im[n] / HALF;
    }
}
