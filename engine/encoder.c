/*
 * engine/encoder.c - convolution stem and windowed bidirectional transformer of the audio encoder.
 *
 *   mel [100, bins] -> 3 x (conv 3x3 / 2, gelu) -> [13, bins/8, channels]
 *       -> rows of channels*bins/8, channel major -> conv_out -> + sinusoid of 0..12
 *   window [104, d_model] -> layers -> ln_post -> proj1, gelu, proj2 -> [104, output]
 *
 * Time is the first axis everywhere and channels the last, so that every step is a matrix product
 * on rows. One chunk at a time: the stem's first map is the largest buffer of the encoder.
 */
#include "engine/encoder.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

#include "base/util.h"

struct encoder {
    const struct audio_config *c;
    const struct audio_weights *w;
    struct device *dev;
    float *mel;       /* [chunk, bins] one padded chunk, host */
    float *map[2];    /* [time, bins, channels] the stem's maps, in turn */
    float *stem;      /* [window tokens, d_model] finished stem rows of the window */
    float *x, *a;     /* [window tokens, d_model] residual stream, normed rows */
    float *q, *k, *v; /* [window tokens, d_model] */
    float *att;       /* [window tokens, d_model] */
    float *ffn;       /* [window tokens, ffn] */
    float *out;       /* [window tokens, output] */
    int32_t *zero;    /* position 0 for kv_store and attend */
    /* Recorded, because they come again: the stem of a whole chunk by its place in the window, the
     * transformer by its number of rows. */
    struct step **stems;   /* [window_chunks] */
    struct step **windows; /* [window tokens + 1] */
};

int encoder_tokens(int frames)
{
    for (int i = 0; i < 3; i++)
        frames = (frames + 1) / 2;
    return frames;
}

int encoder_window_tokens(const struct audio_config *c)
{
    return encoder_tokens(c->chunk) * c->window_chunks;
}

int encoder_sound_tokens(const struct audio_config *c, int frames)
{
    return frames / c->chunk * encoder_tokens(c->chunk) + encoder_tokens(frames % c->chunk);
}

struct sizes {
    size_t map[2], rows, ffn, out;
};

static struct sizes buffer_sizes(const struct audio_config *c)
{
    size_t half_t = (size_t)(c->chunk + 1) / 2, half_b = (size_t)(c->mel_bins + 1) / 2;
    size_t first = half_t * half_b * c->channels;
    size_t second = ((half_t + 1) / 2) * ((half_b + 1) / 2) * c->channels;
    size_t tokens = (size_t)encoder_window_tokens(c);
    struct sizes s = {.map = {first, second},
                      .rows = tokens * c->d_model,
                      .ffn = tokens * c->ffn,
                      .out = tokens * c->output};
    size_t input = (size_t)c->chunk * c->mel_bins;
    if (s.map[1] < input) /* map[1] first takes the mel chunk, later the second map */
        s.map[1] = input;
    return s;
}

size_t encoder_bytes(const struct model *model)
{
    struct sizes s = buffer_sizes(&model->config.audio);
    return (s.map[0] + s.map[1] + 7 * s.rows + s.ffn + s.out) * sizeof(float);
}

static int alloc_buffers(struct encoder *e)
{
    struct sizes s = buffer_sizes(e->c);
    const struct {
        float **ret;
        size_t count;
    } need[] = {{&e->map[0], s.map[0]}, {&e->map[1], s.map[1]}, {&e->stem, s.rows}, {&e->x, s.rows},
                {&e->a, s.rows},        {&e->q, s.rows},        {&e->k, s.rows},    {&e->v, s.rows},
                {&e->att, s.rows},      {&e->ffn, s.ffn},       {&e->out, s.out}};
    for (size_t i = 0; i < ARRAY_LEN(need); i++) {
        *need[i].ret = e->dev->op->alloc(e->dev, need[i].count * sizeof(float));
        if (*need[i].ret == NULL)
            return -ENOMEM;
    }
    e->zero = e->dev->op->alloc(e->dev, sizeof(*e->zero));
    e->mel = malloc((size_t)e->c->chunk * e->c->mel_bins * sizeof(float));
    e->stems = calloc((size_t)e->c->window_chunks, sizeof(*e->stems));
    e->windows = calloc((size_t)encoder_window_tokens(e->c) + 1, sizeof(*e->windows));
    return e->zero != NULL && e->mel != NULL && e->stems != NULL && e->windows != NULL ? 0
                                                                                       : -ENOMEM;
}

int encoder_open(struct encoder **ret, const struct model *model, struct device *dev)
{
    struct encoder *e = calloc(1, sizeof(*e));
    if (e == NULL)
        return -ENOMEM;
    e->c = &model->config.audio;
    e->w = &model->audio;
    e->dev = dev;
    int err = alloc_buffers(e);
    if (err < 0) {
        encoder_close(e);
        return err;
    }
    *ret = e;
    return 0;
}

/* Three convolutions; returns the last map [time, bins, channels] and its shape. */
static float *stem_maps(struct encoder *e, int *time, int *bins)
{
    float *in = e->map[1], *out = e->map[0];
    for (int i = 0; i < 3; i++) {
        e->dev->op->conv2d(e->dev, out, in, 1, *time, *bins, &e->w->conv[i].w, e->w->conv[i].bias);
        *time = (*time + 1) / 2;
        *bins = (*bins + 1) / 2;
        float *t = in;
        in = out;
        out = t;
    }
    return in;
}

/* The stem's rows of a chunk whose mel frames are on the device. */
static void run_stem(struct encoder *e, int chunk, int tokens, int padded)
{
    const struct ops *op = e->dev->op;
    int time = padded, bins = e->c->mel_bins;
    float *last = stem_maps(e, &time, &bins);
    float *rows = last == e->map[0] ? e->map[1] : e->map[0];
    op->transpose(e->dev, rows, last, tokens, bins, e->c->channels);
    float *out = e->stem + (size_t)chunk * encoder_tokens(e->c->chunk) * e->c->d_model;
    op->linear(e->dev, out, rows, tokens, &e->w->conv_out, NULL, 0);
    op->add(e->dev, out, e->w->positions, (size_t)tokens * e->c->d_model);
}

void encoder_stem(struct encoder *e, int chunk, const float *mel, int frames, int padded)
{
    const struct ops *op = e->dev->op;
    int tokens = encoder_tokens(frames);
    size_t used = (size_t)frames * e->c->mel_bins, all = (size_t)padded * e->c->mel_bins;
    memcpy(e->mel, mel, used * sizeof(float));
    memset(e->mel + used, 0, (all - used) * sizeof(float));
    op->put(e->dev, e->map[1], e->mel, all * sizeof(float));
    if (frames < e->c->chunk) {
        run_stem(e, chunk, tokens, padded);
    } else if (op->step_begin(e->dev, &e->stems[chunk])) {
        run_stem(e, chunk, tokens, padded);
        op->step_end(e->dev, &e->stems[chunk]);
    }
}

static void layer(struct encoder *e, const struct audio_layer *w, int n)
{
    const struct ops *op = e->dev->op;
    int head_dim = e->c->d_model / e->c->heads;
    const struct kv kv = {
        .k = e->k, .v = e->v, .type = DT_F32, .rows = n, .heads = e->c->heads, .dim = head_dim};
    float *const qkv[] = {e->q, e->k, e->v};
    const struct weight *const in[] = {&w->q.w, &w->k.w, &w->v.w};
    const float *const bias[] = {w->q.bias, w->k.bias, w->v.bias};
    const struct attention shape = {.heads = e->c->heads, .scale = 1.0f / sqrtf((float)head_dim)};
    op->layer_norm(e->dev, e->a, e->x, n, e->c->d_model, w->attn_norm.w, w->attn_norm.b, 1e-5f);
    op->linears(e->dev, qkv, e->a, n, in, bias, 3, 0);
    op->attend(e->dev, e->att, e->q, n, &kv, &shape, e->zero);
    op->linear(e->dev, e->x, e->att, n, &w->o.w, w->o.bias, LINEAR_ADD);
    op->layer_norm(e->dev, e->a, e->x, n, e->c->d_model, w->mlp_norm.w, w->mlp_norm.b, 1e-5f);
    op->linear(e->dev, e->ffn, e->a, n, &w->fc1.w, w->fc1.bias, LINEAR_GELU);
    op->linear(e->dev, e->x, e->ffn, n, &w->fc2.w, w->fc2.bias, LINEAR_ADD);
}

static void run_window(struct encoder *e, int n)
{
    const struct ops *op = e->dev->op;
    op->copy(e->dev, e->x, e->stem, (size_t)n * e->c->d_model * sizeof(float));
    for (int l = 0; l < e->c->layers; l++)
        layer(e, &e->w->layers[l], n);
    op->layer_norm(e->dev, e->a, e->x, n, e->c->d_model, e->w->post.w, e->w->post.b, 1e-5f);
    op->linear(e->dev, e->q, e->a, n, &e->w->proj1.w, e->w->proj1.bias, LINEAR_GELU);
    op->linear(e->dev, e->out, e->q, n, &e->w->proj2.w, e->w->proj2.bias, 0);
}

const float *encoder_window(struct encoder *e, int n)
{
    const struct ops *op = e->dev->op;
    if (op->step_begin(e->dev, &e->windows[n])) {
        run_window(e, n);
        op->step_end(e->dev, &e->windows[n]);
    }
    return e->out;
}

void encoder_close(struct encoder *e)
{
    if (e == NULL)
        return;
    for (int i = 0; e->stems != NULL && i < e->c->window_chunks; i++)
        e->dev->op->step_drop(e->dev, e->stems[i]);
    for (int i = 0; e->windows != NULL && i <= encoder_window_tokens(e->c); i++)
        e->dev->op->step_drop(e->dev, e->windows[i]);
    void *const buffers[] = {e->map[0], e->map[1], e->stem, e->x,   e->a,   e->q,
                             e->k,      e->v,      e->att,  e->ffn, e->out, e->zero};
    for (size_t i = 0; i < ARRAY_LEN(buffers); i++)
        e->dev->op->release(e->dev, buffers[i]);
    free(e->stems);
    free(e->windows);
    free(e->mel);
    free(e);
}
