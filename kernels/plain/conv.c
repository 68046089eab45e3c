/*
 * kernels/plain/conv.c - the convolutions of the audio encoder's stem and of Code2Wav.
 *
 * All are channels last: the pixel or sample is the row, the channel the column.
 */
#include "kernels/plain/plain.h"

#include <string.h>

enum { KERNEL = 3 }; /* of conv2d, on both axes */

/* y[out] of the output pixel (i, j): sum over c, b, a of
 * W[o][c][b][a] x[2i - 1 + a][2j - 1 + b][c], where a runs along h and b along w; outside is 0. */
static void pixel(float *y, const float *x, int h, int w, int i, int j, const struct weight *weight,
                  const float *bias, float *patch, float *row)
{
    size_t in = (size_t)weight->cols / (KERNEL * KERNEL), taps = KERNEL * KERNEL;
    memset(patch, 0, (size_t)weight->cols * sizeof(float));
    for (int b = 0; b < KERNEL; b++)
        for (int a = 0; a < KERNEL; a++) {
            int r = 2 * i - 1 + a, c = 2 * j - 1 + b;
            if (r < 0 || r >= h || c < 0 || c >= w)
                continue;
            for (size_t k = 0; k < in; k++)
                patch[k * taps + (size_t)(b * KERNEL + a)] =
                    x[((size_t)r * (size_t)w + (size_t)c) * in + k];
        }
    for (size_t o = 0; o < (size_t)weight->rows; o++) {
        plain_row(row, weight, o);
        double sum = plain_dot(row, patch, (size_t)weight->cols);
        y[o] = plain_gelu((float)(sum + (bias ? bias[o] : 0)));
    }
}

void plain_conv2d(struct device *d, float *y, const float *x, int n, int h, int w,
                  const struct weight *weight, const float *bias)
{
    size_t in = (size_t)weight->cols / (KERNEL * KERNEL), cols = (size_t)weight->cols;
    float *patch = host_scratch(d, 2 * cols * sizeof(float));
    for (int m = 0; m < n; m++, x += (size_t)h * (size_t)w * in)
        for (int i = 0; i < (h + 1) / 2; i++)
            for (int j = 0; j < (w + 1) / 2; j++, y += weight->rows)
                pixel(y, x, h, w, i, j, weight, bias, patch, patch + cols);
}

/* y[t][o] = bias[o] + sum over c, i of W[o][c][i] x[t - (kernel - 1 - i) dilation][c] */
void plain_conv1d(struct device *d, float *y, const float *x, int t, const struct weight *w,
                  const float *bias, int kernel, int dilation, unsigned flags)
{
    size_t cols = (size_t)w->cols, in = cols / (size_t)kernel;
    float *patch = host_scratch(d, 2 * cols * sizeof(float)), *row = patch + cols;
    for (int s = 0; s < t; s++) {
        for (size_t c = 0; c < in; c++)
            for (int i = 0; i < kernel; i++) {
                ptrdiff_t from = s - (ptrdiff_t)(kernel - 1 - i) * dilation;
                patch[c * (size_t)kernel + (size_t)i] = x[from * (ptrdiff_t)in + (ptrdiff_t)c];
            }
        for (size_t o = 0; o < (size_t)w->rows; o++, y++) {
            plain_row(row, w, o);
            float v = (float)(plain_dot(row, patch, cols) + (bias ? bias[o] : 0));
            *y = flags & LINEAR_ADD ? *y + v : v;
        }
    }
}

/* y[t][c] = bias[c] + sum over i of w[c][i] x[t - (kernel - 1 - i)][c] */
void plain_conv1d_depthwise(struct device *d, float *y, const float *x, int t, int channels,
                            const float *w, const float *bias, int kernel)
{
    (void)d;
    for (int s = 0; s < t; s++)
        for (int c = 0; c < channels; c++, y++) {
            double sum = bias ? bias[c] : 0;
            for (int i = 0; i < kernel; i++)
                sum +=
                    (double)w[c * kernel + i] * x[(ptrdiff_t)(s - (kernel - 1 - i)) * channels + c];
            *y = (float)sum;
        }
}

/* y[j stride + i][o] = bias[o] + sum over c of W[c][o][i] x[j][c] + W[c][o][stride + i] x[j-1][c],
 * the second term only when kernel is 2 stride. */
void plain_conv1d_up(struct device *d, float *y, const float *x, int t, const struct weight *w,
                     const float *bias, int stride, int kernel)
{
    (void)d;
    size_t in = (size_t)w->rows, cols = (size_t)w->cols, out = cols / (size_t)kernel;
    for (int j = 0; j < t; j++, x += in)
        for (int i = 0; i < stride; i++)
            for (size_t o = 0; o < out; o++, y++) {
                size_t tap = o * (size_t)kernel + (size_t)i;
                double sum = bias ? bias[o] : 0;
                for (size_t c = 0; c < in; c++) {
                    sum += (double)x[c] * dtype_read(w->type, w->data, c * cols + tap);
                    if (kernel > stride)
                        sum += (double)(x - in)[c] *
                               dtype_read(w->type, w->data, c * cols + tap + (size_t)stride);
                }
                *y = (float)sum;
            }
}
