/*
 * kernels/plain/element.c - element-wise ops and the transpose.
 */
#include "kernels/plain/plain.h"

#include <math.h>

void plain_silu_mul(struct device *d, float *gate, const float *up, size_t count)
{
    (void)d;
    for (size_t i = 0; i < count; i++)
        gate[i] = plain_silu(gate[i]) * up[i];
}

void plain_add(struct device *d, float *y, const float *x, size_t count)
{
    (void)d;
    for (size_t i = 0; i < count; i++)
        y[i] += x[i];
}

void plain_scale_add(struct device *d, float *y, const float *x, int n, int dim, const float *scale)
{
    (void)d;
    for (int i = 0; i < n; i++)
        for (int j = 0; j < dim; j++, y++, x++)
            *y += scale[j] * *x;
}

void plain_gate_add(struct device *d, float *y, const float *x, int n, int dim, const float *gate)
{
    (void)d;
    for (int i = 0; i < n; i++) {
        float s = (float)(1 / (1 + exp(-(double)gate[i])));
        for (int j = 0; j < dim; j++, y++, x++)
            *y += s * *x;
    }
}

void plain_transpose(struct device *d, float *y, const float *x, int batch, int rows, int cols)
{
    (void)d;
    size_t r = (size_t)rows, c = (size_t)cols;
    for (int b = 0; b < batch; b++, x += r * c, y += r * c)
        for (size_t i = 0; i < r; i++)
            for (size_t j = 0; j < c; j++)
                y[j * r + i] = x[i * c + j];
}

void plain_snake(struct device *d, float *y, const float *x, int t, int channels,
                 const float *alpha, const float *inv_beta)
{
    (void)d;
    for (int i = 0; i < t; i++)
        for (int c = 0; c < channels; c++, y++, x++) {
            float s = sinf(*x * alpha[c]);
            *y = *x + s * s * inv_beta[c];
        }
}
