/*
 * kernels/plain/attend.c - the key/value cache and attention over it.
 *
 * Query head h reads kv head h / (heads / kv heads).
 */
#include "kernels/plain/plain.h"

#include <math.h>

void plain_kv_store(struct device *d, const struct kv *kv, const float *k, const float *v, int n,
                    const int32_t *pos)
{
    (void)d;
    size_t width = (size_t)kv->heads * (size_t)kv->dim;
    for (int i = 0; i < n; i++, k += width, v += width) {
        size_t row = (size_t)((*pos + i) % kv->rows) * width;
        for (size_t j = 0; j < width; j++) {
            dtype_write(kv->type, kv->k, row + j, k[j]);
            dtype_write(kv->type, kv->v, row + j, v[j]);
        }
    }
}

/* Index of the first element of kv head `head` at `position`. */
static size_t at(const struct kv *kv, int position, int head)
{
    size_t row = (size_t)(position % kv->rows);
    return (row * (size_t)kv->heads + (size_t)head) * (size_t)kv->dim;
}

/* p[j - from] = softmax over from <= j < to of scale * q . k_j */
static void scores(float *p, const float *q, const struct kv *kv, int head, float scale, int from,
                   int to)
{
    double top = -INFINITY, sum = 0;
    for (int j = from; j < to; j++) {
        size_t key = at(kv, j, head);
        double s = 0;
        for (int i = 0; i < kv->dim; i++)
            s += (double)q[i] * dtype_read(kv->type, kv->k, key + (size_t)i);
        p[j - from] = (float)s * scale;
        top = p[j - from] > top ? p[j - from] : top;
    }
    for (int j = 0; j < to - from; j++)
        sum += exp(p[j] - top);
    for (int j = 0; j < to - from; j++)
        p[j] = (float)(exp(p[j] - top) / sum);
}

/* y[dim] = sum over from <= j < to of p[j - from] v_j */
static void mix(float *y, const float *p, const struct kv *kv, int head, int from, int to)
{
    for (int i = 0; i < kv->dim; i++) {
        double s = 0;
        for (int j = from; j < to; j++)
            s += (double)p[j - from] * dtype_read(kv->type, kv->v, at(kv, j, head) + (size_t)i);
        y[i] = (float)s;
    }
}

void plain_attend(struct device *d, float *y, const float *q, int n, const struct kv *kv,
                  const struct attention *a, const int32_t *pos)
{
    int last = a->causal ? *pos + n : n, group = a->heads / kv->heads;
    float *p = host_scratch(d, (size_t)last * sizeof(float));
    for (int i = 0; i < n; i++) {
        int from = 0, to = a->causal ? *pos + i + 1 : n;
        if (a->causal && a->window > 0 && to > a->window)
            from = to - a->window;
        for (int h = 0; h < a->heads; h++, q += kv->dim, y += kv->dim) {
            scores(p, q, kv, h / group, a->scale, from, to);
            mix(y, p, kv, h / group, from, to);
        }
    }
}
