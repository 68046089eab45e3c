/*
 * kernels/compose.c - the fused ops made of single ones.
 */
#include "kernels/compose.h"

static const float *const no_bias[3];

void compose_linears(struct device *d, float *const *y, const float *x, int n,
                     const struct weight *const *w, const float *const *bias, int count,
                     unsigned flags)
{
    for (int i = 0; i < count; i++)
        d->op->linear(d, y[i], x, n, w[i], bias[i], flags);
}

void compose_norm_linear(struct device *d, float *const *y, float *a, const float *x, int n,
                         const struct norm *norm, const struct weight *const *w, int count)
{
    d->op->rms_norm(d, a, x, n, w[0]->cols, norm->w, norm->eps);
    d->op->linears(d, y, a, n, w, no_bias, count, 0);
}

void compose_rope_attend(struct device *d, float *y, float *q, float *k, const float *v, int n,
                         const struct kv *kv, const struct attention *a, const struct rope *r,
                         const int32_t *pos)
{
    d->op->norm_rope(d, q, n, a->heads, kv->dim, r->q_norm, r->eps, r->inv_freq, pos);
    d->op->norm_rope(d, k, n, kv->heads, kv->dim, r->k_norm, r->eps, r->inv_freq, pos);
    d->op->kv_store(d, kv, k, v, n, pos);
    d->op->attend(d, y, q, n, kv, a, pos);
}

void compose_linear_add(struct device *d, float *y, float *room, const float *x, int n,
                        const struct weight *w, const float *scale)
{
    if (scale == NULL) {
        d->op->linear(d, y, x, n, w, NULL, LINEAR_ADD);
        return;
    }
    d->op->linear(d, room, x, n, w, NULL, 0);
    d->op->scale_add(d, y, room, n, w->rows, scale);
}

/* y = silu(gate a) * (up a) */
static void swiglu(struct device *d, float *y, float *room, const float *a, int n,
                   const struct weight *gate, const struct weight *up)
{
    float *const both[] = {y, room};
    const struct weight *const w[] = {gate, up};
    d->op->linears(d, both, a, n, w, no_bias, 2, 0);
    d->op->silu_mul(d, y, room, (size_t)n * (size_t)gate->rows);
}

void compose_norm_swiglu(struct device *d, float *y, float *room, float *a, const float *x, int n,
                         const struct norm *norm, const struct weight *gate,
                         const struct weight *up)
{
    d->op->rms_norm(d, a, x, n, gate->cols, norm->w, norm->eps);
    swiglu(d, y, room, a, n, gate, up);
}

void compose_mixture(struct device *d, float *x, int n, const struct norm *norm,
                     const struct moe *m)
{
    const struct ops *op = d->op;
    int hidden = m->router->cols;
    op->rms_norm(d, m->a, x, n, hidden, norm->w, norm->eps);
    op->linear(d, m->logits, m->a, n, m->router, NULL, LINEAR_EXACT);
    op->route(d, m->ids, m->weights, m->logits, n, m->count, m->k, m->renorm);
    op->experts(d, x, m->a, n, m->experts, m->count, m->ids, m->weights, m->k);
    if (m->shared->gate.data == NULL)
        return;
    swiglu(d, m->gate, m->up, m->a, n, &m->shared->gate, &m->shared->up);
    op->linear(d, m->branch, m->gate, n, &m->shared->down, NULL, 0);
    op->linear(d, m->share, m->a, n, m->shared_gate, NULL, LINEAR_EXACT);
    op->gate_add(d, x, m->branch, n, hidden, m->share);
}

void compose_embed_sum(struct device *d, float *y, const struct weight *const *tables,
                       const int32_t *ids, int count)
{
    for (int i = 0; i < count; i++)
        d->op->embed(d, y, tables[i], ids + i, 1, i > 0);
}
