/*
 * model/quantize_row.c - the numbers of 8-bit weights: a group's scale and its bytes.
 *
 * A scale near max |w| / 127.5 uses the whole range. Scales are bf16, whose neighbours lie 0.4 to
 * 0.8 % apart, so there are only a few to choose from: the one with the least squared error is
 * taken, clipping included.
 */
#include <math.h>

#include "kernels/dtype.h"
#include "model/quantize.h"

enum { CANDIDATES = 6 };

/* The nearest whole number for |x| < 2^22, as a loop that vectorises. */
static float nearest(float x)
{
    return (x + 0x1.8p23f) - 0x1.8p23f;
}

static float level(float w, float inverse)
{
    float x = w * inverse; /* bounded first: nearest() wants small numbers */
    x = x < -128 ? -128 : x;
    return nearest(x > 127 ? 127 : x);
}

/* In steps of the scale, so that tiny weights do not underflow. */
static float squared_error(const float *w, int n, float inverse)
{
    float sum = 0;
    for (int i = 0; i < n; i++) {
        float e = w[i] * inverse - level(w[i], inverse);
        sum += e * e;
    }
    return sum;
}

static uint16_t best_scale(const float *w, int n)
{
    float most = 0, least = INFINITY;
    for (int i = 0; i < n; i++)
        most = fabsf(w[i]) > most ? fabsf(w[i]) : most;
    uint16_t first = f32_to_bf16(most / 128.5f), best = 0;
    if (first == 0) /* nothing but zeros, or next to it: any scale gives zeros */
        return f32_to_bf16(1);
    for (int i = 0; i < CANDIDATES; i++) {
        float scale = bf16_to_f32((uint16_t)(first + i));
        float step = scale / bf16_to_f32(first), error = squared_error(w, n, 1 / scale);
        error *= step * step;
        if (error < least) {
            least = error;
            best = (uint16_t)(first + i);
        }
    }
    return best;
}

void quantize_row(uint8_t *to, uint16_t *scales, const float *w, int cols, int group, double *error,
                  double *square)
{
    for (int c = 0; c < cols; c += group, scales++) {
        int n = cols - c < group ? cols - c : group;
        *scales = best_scale(w + c, n);
        float scale = bf16_to_f32(*scales), inverse = 1 / scale;
        for (int i = c; i < c + n; i++) {
            float q = level(w[i], inverse), e = w[i] - scale * q;
            to[i] = (uint8_t)(q + 128);
            *error += (double)e * e;
            *square += (double)w[i] * w[i];
        }
    }
}
