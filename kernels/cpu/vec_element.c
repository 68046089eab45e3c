/*
 * kernels/cpu/vec_element.c - what acts on single elements or single rows (compiled per
 * instruction set).
 *
 * A vector function gives the same result in every lane, and a partial vector is padded with zeros
 * and run through the same code: an element's result does not depend on where it lies.
 */
#include <math.h>

#include "kernels/cpu/simd.h"
#include "kernels/cpu/vec_all.h"
#include "kernels/ops.h"

/* for (i, m) over n elements in steps of VL: m lanes from i on */
#define EACH(i, m, n) for (size_t i = 0, m; i < (n) && (m = (n)-i < VL ? (n)-i : VL); i += VL)

INLINE vf load(const float *p, size_t m)
{
    return m == VL ? vf_load(p) : vf_load_n(p, (int)m);
}

INLINE void store(float *p, vf v, size_t m)
{
    if (m == VL)
        vf_store(p, v);
    else
        vf_store_n(p, v, (int)m);
}

void VEC(finish)(float *y, const float *sums, const float *bias, size_t n, unsigned flags)
{
    EACH(i, m, n)
    {
        vf v = load(sums + i, m);
        if (bias != NULL)
            v += load(bias + i, m);
        if (flags & LINEAR_GELU)
            v = vf_gelu(v);
        if (flags & LINEAR_SILU)
            v = vf_silu(v);
        if (flags & LINEAR_ADD)
            v = load(y + i, m) + v;
        store(y + i, v, m);
    }
}

void VEC(softmax)(float *p, size_t n, float scale)
{
    float top = -INFINITY, lanes[VL];
    vf most = vf_all(-INFINITY), sum = {0};
    size_t i = 0;
    for (; i + VL <= n; i += VL)
        most = vf_max(vf_load(p + i) * scale, most);
    vf_store(lanes, most);
    for (int l = 0; l < VL; l++)
        top = lanes[l] > top ? lanes[l] : top;
    for (; i < n; i++)
        top = p[i] * scale > top ? p[i] * scale : top;
    EACH(j, m, n)
    {
        vf e = vf_exp(load(p + j, m) * scale - top);
        store(p + j, e, m);
        sum += load(p + j, m); /* read back: zeros behind the end */
    }
    float inverse = 1 / vf_sum(sum);
    EACH(k, l, n)
    {
        store(p + k, load(p + k, l) * inverse, l);
    }
}

void VEC(to_bf16)(uint16_t *y, const float *x, size_t n)
{
    EACH(i, m, n)
    {
        vh h = __builtin_convertvector(vf_round_bf16(load(x + i, m)), vh);
        memcpy(y + i, &h, m * sizeof(*y));
    }
}

void VEC(to_split)(uint16_t *high, uint16_t *low, const float *x, size_t n)
{
    enum { PART = 256 };
    float rest[PART];
    for (size_t at = 0; at < n; at += PART) {
        size_t k = n - at < PART ? n - at : PART;
        VEC(to_bf16)(high + at, x + at, k);
        for (size_t i = 0; i < k; i++)
            rest[i] = x[at + i] - bf16_to_f32(high[at + i]);
        VEC(to_bf16)(low + at, rest, k);
    }
}

INLINE vf widened(const void *x, enum dtype type, size_t i, size_t m)
{
    if (type == DT_F32)
        return load((const float *)x + i, m);
    const uint16_t *h = (const uint16_t *)x + i;
    vh v = m == VL ? vh_load(h) : vh_load_n(h, (int)m);
    return type == DT_BF16 ? vf_from_bf16(v) : vf_from_f16(v);
}

void VEC(widen)(float *y, const void *x, enum dtype type, size_t n, int add)
{
    EACH(i, m, n)
    {
        vf v = widened(x, type, i, m);
        store(y + i, add ? load(y + i, m) + v : v, m);
    }
}

void VEC(silu_mul)(float *gate, const float *up, size_t n)
{
    EACH(i, m, n)
    {
        store(gate + i, vf_silu(load(gate + i, m)) * load(up + i, m), m);
    }
}

void VEC(add)(float *y, const float *x, size_t n)
{
    EACH(i, m, n)
    {
        store(y + i, load(y + i, m) + load(x + i, m), m);
    }
}

void VEC(scale_add)(float *y, const float *x, const float *scale, size_t n)
{
    EACH(i, m, n)
    {
        store(y + i, vf_fma(load(scale + i, m), load(x + i, m), load(y + i, m)), m);
    }
}

void VEC(axpy)(float *y, const float *x, float a, size_t n)
{
    EACH(i, m, n)
    {
        store(y + i, vf_fma(vf_all(a), load(x + i, m), load(y + i, m)), m);
    }
}

/* y = x + sin(x alpha)^2 inv_beta; lanes beyond the range of vf_sin_squared one by one */
void VEC(snake)(float *y, const float *x, const float *alpha, const float *inv_beta, size_t n)
{
    EACH(i, m, n)
    {
        vf v = load(x + i, m), angle = v * load(alpha + i, m), s = vf_sin_squared(angle);
        float angles[VL], squares[VL];
        vi far = ~(vf_abs(angle) <= 8192.0f); /* NaN too */
        if (vf_sum((vf)(far & (vi)vf_all(1.0f))) > 0) {
            vf_store(angles, angle);
            vf_store(squares, s);
            for (int l = 0; l < VL; l++)
                if (!(fabsf(angles[l]) <= 8192.0f))
                    squares[l] = sinf(angles[l]) * sinf(angles[l]);
            s = vf_load(squares);
        }
        store(y + i, vf_fma(s, load(inv_beta + i, m), v), m);
    }
}

void VEC(rms)(float *y, const float *x, const float *w, float eps, size_t n)
{
    vf sum = {0};
    EACH(i, m, n)
    {
        vf v = load(x + i, m);
        sum = vf_fma(v, v, sum);
    }
    float scale = 1 / sqrtf(vf_sum(sum) / (float)n + eps);
    EACH(j, k, n)
    {
        store(y + j, load(x + j, k) * scale * load(w + j, k), k);
    }
}

void VEC(layer)(float *y, const float *x, const float *w, const float *b, float eps, size_t n)
{
    vf sum = {0}, square = {0};
    EACH(i, m, n)
    {
        sum += load(x + i, m);
    }
    float mean = vf_sum(sum) / (float)n;
    EACH(j, k, n)
    {
        vf v = load(x + j, k) - mean;
        if (k < VL) { /* lanes behind the end would count mean^2 */
            float lanes[VL] = {0};
            vf_store_n(lanes, v, (int)k);
            v = vf_load(lanes);
        }
        square = vf_fma(v, v, square);
    }
    float scale = 1 / sqrtf(vf_sum(square) / (float)n + eps);
    EACH(l, c, n)
    {
        store(y + l, vf_fma((load(x + l, c) - mean) * scale, load(w + l, c), load(b + l, c)), c);
    }
}

void VEC(turn)(float *x, const float *c, const float *s, size_t n)
{
    EACH(i, m, n)
    {
        vf a = load(x + i, m), b = load(x + n + i, m), co = load(c + i, m), si = load(s + i, m);
        store(x + i, a * co - b * si, m);
        store(x + n + i, b * co + a * si, m);
    }
}

void VEC(depthwise)(float *y, const float *x, const float *w, const float *bias, int kernel,
                    size_t n)
{
    EACH(i, m, n)
    {
        vf sum = bias ? load(bias + i, m) : (vf){0};
        for (int k = 0; k < kernel; k++)
            sum = vf_fma(load(w + (size_t)k * n + i, m), load(x + (size_t)k * n + i, m), sum);
        store(y + i, sum, m);
    }
}

/* Streams a page apart, as rows of a matrix are. */
uint32_t VEC(read)(const void *data, size_t bytes)
{
    enum { STREAMS = 8, PAGE = 4096 };
    const char *p = data;
    vu sum[STREAMS] = {{0}};
    for (; bytes >= (size_t)STREAMS * PAGE; p += STREAMS * PAGE, bytes -= (size_t)STREAMS * PAGE)
        for (size_t at = 0; at < PAGE; at += sizeof(vu))
#pragma GCC unroll 8
            for (size_t s = 0; s < STREAMS; s++)
                sum[s] += (vu)vf_load(p + s * PAGE + at);
    for (; bytes >= sizeof(vu); p += sizeof(vu), bytes -= sizeof(vu))
        sum[0] += (vu)vf_load(p);
    for (int s = 1; s < STREAMS; s++)
        sum[0] += sum[s];
    return sum[0][0] + sum[0][VL / 2];
}
