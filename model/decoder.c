/*
 * model/decoder.c - one sequence through a stack of decoder layers.
 *
 *   x += o(attend(rope(norm(q a)), rope(norm(k a)), v a)),  a = rms(x)
 *   x += mlp(rms(x)),  mlp = dense SwiGLU, or the top-k experts (+ the gated shared expert)
 *
 * Code2Wav's transformer has a layer scale on both branches and no q/k norm; everything else is the
 * same, so there is one block for all four stacks. All memory is taken at open.
 */
#include "model/decoder.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

#include "base/util.h"

struct decoder {
    const struct decoder_weights *w;
    struct device *dev;
    struct kv *kv; /* [layers] */
    int length;    /* positions in the cache */
    int placed;    /* what *pos holds once everything begun is done */
    int max_rows;
    int32_t *pos;       /* device copy of length for the ops, counted up by them */
    float *a;           /* [rows, hidden] normed input of a branch */
    float *q;           /* [rows, heads*head_dim] */
    float *k, *v;       /* [rows, kv_heads*head_dim] */
    float *att;         /* [rows, heads*head_dim] */
    float *branch;      /* [rows, hidden] a branch's output before its scale or gate */
    float *gate, *up;   /* [rows, intermediate] */
    float *logits;      /* [rows, experts] */
    int32_t *ids;       /* [rows, top_k] */
    float *weights;     /* [rows, top_k] */
    float *shared_gate; /* [rows, 1] */
};

static int cache_rows(const struct decoder_opts *o)
{
    int window = o->weights->config->window;
    if (window > 0 && window - 1 + o->max_rows < o->max_positions)
        return window - 1 + o->max_rows;
    return o->max_positions;
}

static int mlp_width(const struct decoder_config *c)
{
    return max_int(c->intermediate, c->shared_intermediate);
}

size_t decoder_bytes(const struct decoder_opts *o)
{
    const struct decoder_config *c = o->weights->config;
    size_t kv = 2 * (size_t)c->kv_heads * c->head_dim;
    size_t cache = (size_t)c->layers * cache_rows(o) * kv * dtype_size(o->kv_type);
    size_t row = 2 * (size_t)c->hidden + 2 * (size_t)c->heads * c->head_dim + kv +
                 2 * (size_t)mlp_width(c) + (size_t)c->experts + 2 * (size_t)c->top_k + 1;
    return cache + o->max_rows * row * sizeof(float);
}

static int alloc_cache(struct decoder *d, const struct decoder_opts *o)
{
    const struct decoder_config *c = d->w->config;
    d->kv = calloc((size_t)c->layers, sizeof(*d->kv));
    if (d->kv == NULL)
        return -ENOMEM;
    for (int l = 0; l < c->layers; l++) {
        struct kv *kv = &d->kv[l];
        *kv = (struct kv){.type = o->kv_type,
                          .rows = cache_rows(o),
                          .heads = c->kv_heads,
                          .dim = c->head_dim};
        size_t bytes = (size_t)kv->rows * kv->heads * kv->dim * dtype_size(kv->type);
        kv->k = d->dev->op->alloc(d->dev, bytes);
        kv->v = d->dev->op->alloc(d->dev, bytes);
        if (kv->k == NULL || kv->v == NULL)
            return -ENOMEM;
    }
    return 0;
}

static int alloc_scratch(struct decoder *d)
{
    const struct decoder_config *c = d->w->config;
    size_t rows = (size_t)d->max_rows, f = sizeof(float);
    size_t top_k = (size_t)max_int(c->top_k, 1), experts = (size_t)max_int(c->experts, 1);
    size_t heads = (size_t)c->heads * c->head_dim, kv_heads = (size_t)c->kv_heads * c->head_dim;
    size_t hidden = (size_t)c->hidden, width = (size_t)max_int(mlp_width(c), 1);
    const struct {
        void *ret; /* address of the pointer to fill */
        size_t bytes;
    } need[] = {
        {&d->pos, sizeof(int32_t)},      {&d->a, rows * hidden * f},
        {&d->q, rows * heads * f},       {&d->k, rows * kv_heads * f},
        {&d->v, rows * kv_heads * f},    {&d->att, rows * heads * f},
        {&d->branch, rows * hidden * f}, {&d->gate, rows * width * f},
        {&d->up, rows * width * f},      {&d->logits, rows * experts * f},
        {&d->ids, rows * top_k * 4},     {&d->weights, rows * top_k * f},
        {&d->shared_gate, rows * f},
    };
    for (size_t i = 0; i < ARRAY_LEN(need); i++) {
        void *p = d->dev->op->alloc(d->dev, need[i].bytes);
        if (p == NULL)
            return -ENOMEM;
        memcpy(need[i].ret, &p, sizeof(p));
    }
    return 0;
}

int decoder_open(struct decoder **ret, const struct decoder_opts *o, struct problems *why)
{
    struct decoder *d = calloc(1, sizeof(*d));
    if (d == NULL)
        return -ENOMEM;
    d->w = o->weights;
    d->dev = o->device;
    d->max_rows = o->max_rows;
    if (alloc_cache(d, o) < 0 || alloc_scratch(d) < 0) {
        decoder_close(d);
        return problem_add(why, -ENOMEM,
                           "no memory for %zu bytes of cache and scratch of a decoder with %d "
                           "layers and %d positions",
                           decoder_bytes(o), o->weights->config->layers, o->max_positions);
    }
    *ret = d;
    return 0;
}

static void attention_branch(struct decoder *d, const struct decoder_layer *w, const struct kv *kv,
                             float *x, int n, const int32_t *pos)
{
    const struct decoder_config *c = d->w->config;
    const struct ops *op = d->dev->op;
    const struct attention shape = {.heads = c->heads,
                                    .causal = 1,
                                    .window = c->window,
                                    .scale = 1.0f / sqrtf((float)c->head_dim)};
    const struct norm norm = {w->attn_norm, c->eps};
    const struct rope rope = {w->q_norm, w->k_norm, c->eps, d->w->inv_freq};
    float *const qkv[] = {d->q, d->k, d->v};
    const struct weight *const product[] = {&w->q, &w->k, &w->v};
    op->norm_linear(d->dev, qkv, d->a, x, n, &norm, product, 3);
    op->rope_attend(d->dev, d->att, d->q, d->k, d->v, n, kv, &shape, &rope, pos);
    op->linear_add(d->dev, x, d->branch, d->att, n, &w->o, w->attn_scale);
}

static void mlp_branch(struct decoder *d, const struct decoder_layer *w, float *x, int n)
{
    const struct decoder_config *c = d->w->config;
    const struct ops *op = d->dev->op;
    const struct norm norm = {w->mlp_norm, c->eps};
    if (w->router.data == NULL) {
        op->norm_swiglu(d->dev, d->gate, d->up, d->a, x, n, &norm, &w->gate, &w->up);
        op->linear_add(d->dev, x, d->branch, d->gate, n, &w->down, w->mlp_scale);
        return;
    }
    const struct moe m = {.router = &w->router,
                          .experts = w->experts,
                          .count = c->experts,
                          .k = c->top_k,
                          .renorm = c->norm_topk,
                          .shared = &w->shared,
                          .shared_gate = &w->shared_gate,
                          .a = d->a,
                          .branch = d->branch,
                          .logits = d->logits,
                          .gate = d->gate,
                          .up = d->up,
                          .weights = d->weights,
                          .share = d->shared_gate,
                          .ids = d->ids};
    op->mixture(d->dev, x, n, &norm, &m);
}

static void layers(struct decoder *d, float *x, int n, int tap, float *tap_out, const int32_t *pos)
{
    const struct decoder_config *c = d->w->config;
    size_t bytes = (size_t)n * c->hidden * sizeof(float);
    for (int l = 0; l < c->layers; l++) {
        if (tap == l && tap_out != NULL) {
            d->dev->op->copy(d->dev, tap_out, x, bytes);
            d->dev->op->mark(d->dev); /* who wants it need not wait for the layers above */
        }
        attention_branch(d, &d->w->layers[l], &d->kv[l], x, n, pos);
        mlp_branch(d, &d->w->layers[l], x, n);
    }
    if (tap == c->layers && tap_out != NULL) { /* the reference's last hidden state is normed */
        decoder_norm(d, tap_out, x, n);
        d->dev->op->mark(d->dev);
    }
}

void decoder_place(struct decoder *d)
{
    int32_t pos = d->length;
    if (d->placed == d->length)
        return;
    d->dev->op->put(d->dev, d->pos, &pos, sizeof(pos));
    d->placed = d->length;
}

void decoder_run(struct decoder *d, float *x, int n, int tap, float *tap_out)
{
    layers(d, x, n, tap, tap_out, d->pos);
    d->dev->op->advance(d->dev, d->pos, n);
}

void decoder_count(struct decoder *d, int n)
{
    d->length += n;
    d->placed += n;
}

void decoder_run_at(struct decoder *d, float *x, int n, const int32_t *pos)
{
    layers(d, x, n, -1, NULL, pos);
}

void decoder_forward(struct decoder *d, float *x, int n, int tap, float *tap_out)
{
    decoder_place(d);
    decoder_run(d, x, n, tap, tap_out);
    decoder_count(d, n);
}

struct norm decoder_final(const struct decoder *d)
{
    return (struct norm){d->w->norm, d->w->config->eps};
}

void decoder_norm(struct decoder *d, float *y, const float *x, int n)
{
    const struct decoder_config *c = d->w->config;
    d->dev->op->rms_norm(d->dev, y, x, n, c->hidden, d->w->norm, c->eps);
}

int decoder_length(const struct decoder *d)
{
    return d->length;
}

void decoder_rewind(struct decoder *d, int length)
{
    d->length = min_int(d->length, max_int(length, 0));
}

void decoder_close(struct decoder *d)
{
    if (d == NULL)
        return;
    const struct ops *op = d->dev->op;
    for (int l = 0; d->kv != NULL && l < d->w->config->layers; l++) {
        op->release(d->dev, d->kv[l].k);
        op->release(d->dev, d->kv[l].v);
    }
    void *const scratch[] = {d->pos, d->a,       d->q,          d->k,  d->v,
                             d->att, d->branch,  d->gate,       d->up, d->logits,
                             d->ids, d->weights, d->shared_gate};
    for (size_t i = 0; i < ARRAY_LEN(scratch); i++)
        op->release(d->dev, scratch[i]);
    free(d->kv);
    free(d);
}
