/*
 * kernels/plain/norm.c - RMS norm, layer norm, rotary embedding.
 */
#include "kernels/plain/plain.h"

#include <math.h>

/* y[dim] = x * rsqrt(mean(x^2) + eps) * w */
static void rms_row(float *y, const float *x, int dim, const float *w, float eps)
{
    double scale = 1 / sqrt(plain_dot(x, x, (size_t)dim) / dim + eps);
    for (int i = 0; i < dim; i++)
        y[i] = (float)(x[i] * scale) * w[i];
}

void plain_rms_norm(struct device *d, float *y, const float *x, int n, int dim, const float *w,
                    float eps)
{
    (void)d;
    for (size_t i = 0; i < (size_t)n; i++)
        rms_row(y + i * (size_t)dim, x + i * (size_t)dim, dim, w, eps);
}

static void layer_row(float *y, const float *x, int dim, const float *w, const float *b, float eps)
{
    double mean = 0, var = 0;
    for (int i = 0; i < dim; i++)
        mean += x[i];
    mean /= dim;
    for (int i = 0; i < dim; i++)
        var += (x[i] - mean) * (x[i] - mean);
    double scale = 1 / sqrt(var / dim + eps);
    for (int i = 0; i < dim; i++)
        y[i] = (float)((x[i] - mean) * scale * w[i] + b[i]);
}

void plain_layer_norm(struct device *d, float *y, const float *x, int n, int dim, const float *w,
                      const float *b, float eps)
{
    (void)d;
    for (size_t i = 0; i < (size_t)n; i++)
        layer_row(y + i * (size_t)dim, x + i * (size_t)dim, dim, w, b, eps);
}

/* Turns the pairs (a, b) = (i, i + half) of one head by the angle position * inv_freq[i]. The angle
 * is formed in fp32, as the reference does. */
static void turn(float *x, int half, const float *inv_freq, int position)
{
    for (int i = 0; i < half; i++) {
        float angle = (float)position * inv_freq[i];
        float c = cosf(angle), s = sinf(angle), a = x[i], b = x[i + half];
        x[i] = a * c - b * s;
        x[i + half] = b * c + a * s;
    }
}

void plain_norm_rope(struct device *d, float *x, int n, int heads, int dim, const float *norm,
                     float eps, const float *inv_freq, const int32_t *pos)
{
    (void)d;
    for (int i = 0; i < n; i++)
        for (int h = 0; h < heads; h++, x += dim) {
            if (norm != NULL)
                rms_row(x, x, dim, norm, eps);
            turn(x, dim / 2, inv_freq, *pos + i);
        }
}
