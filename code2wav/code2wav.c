/*
 * code2wav/code2wav.c - the codec's decoder with its state carried (rates of the released model):
 *
 *   codes [n, 16] -> mean of 16 embeddings -> sliding-window transformer              n rows
 *     -> 2 x (transposed conv x2, ConvNeXt block)                                     4n
 *     -> causal conv -> 4 x (snake, transposed conv x8 x5 x4 x3, 3 residual units)    1920n
 *     -> snake, causal conv to one channel -> clamp
 *
 * A causal convolution needs the rows before its input. So its input lies in a buffer with that
 * history in front (struct stream), and after the convolution the newest rows slide to the front.
 * Kernels see one contiguous input, and a chunk border is nothing special.
 *
 * The surprising thing: the reference trims `rate` samples from both ends of every block's
 * transposed convolution. The right end is the half of a block whose other half needs an input that
 * is still to come; the left end is the whole first block. Hence the first input of a reply only
 * becomes history and puts nothing out.
 */
#include "code2wav/code2wav.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>

#include "base/util.h"
#include "model/decoder.h"

enum {
    KERNEL = 7,
    PAST = KERNEL - 1,
    UNITS = 3,
    RING_FRAMES = 64, /* the transformer's ring takes so many at once, whatever max_frames is */
    OWNED_MAX = 64,
};

static const int dilations[UNITS] = {1, 3, 9};

/* The input of a causal convolution: rows that came before, then the new ones. */
struct stream {
    float *all; /* [past + new rows, channels] */
    int past;
    int channels;
};

struct block {
    const struct block_weights *w;
    int rate;
    bool started;               /* has seen its first input */
    struct stream up;           /* snaked input of the transposed convolution */
    struct stream units[UNITS]; /* snaked inputs of the dilated convolutions */
};

struct code2wav {
    const struct code2wav_config *config;
    const struct code2wav_weights *w;
    struct device *dev; /* NULL while memory is only being counted */
    struct decoder *transformer;
    int max_frames;
    int max_positions;
    const struct weight **tables; /* [groups] the embedding table, once for each row of it */
    struct step *frame;           /* recorded: one frame, all blocks started */
    int32_t *host_ids; /* [groups, max_frames] rows of the embedding table, group by group */
    int32_t *ids;      /* the same on the device */
    float *zeros;      /* as many as the largest thing that is ever cleared */
    float *share;      /* [hidden] 1 / groups */
    float *sum;        /* [max_frames, hidden] */
    float *x;          /* [max_frames, hidden] */
    struct stream upsample[UPSAMPLE_MAX];
    float *wide;   /* [largest upsampled rows, 4 * hidden] */
    float *narrow; /* [largest upsampled rows, hidden] */
    struct stream in;
    struct block blocks[UPSAMPLE_MAX];
    float *line;   /* [rows, channels] what flows from block to block */
    float *branch; /* the same, inside a residual unit */
    struct stream out;
    float *pcm; /* [max_frames * frame_samples] */

    void *owned[OWNED_MAX]; /* device memory to release */
    int n_owned;
    size_t bytes;
    bool failed;
};

/* Zeroed device memory for `count` floats (or 32-bit ids). Failure is remembered, not returned, so
 * that the plan below reads as a list. */
static void *take(struct code2wav *c, size_t count)
{
    c->bytes += count * sizeof(float);
    if (c->dev == NULL || c->failed)
        return NULL;
    void *p = c->n_owned < OWNED_MAX ? c->dev->op->alloc(c->dev, count * sizeof(float)) : NULL;
    if (p == NULL)
        c->failed = true;
    else
        c->owned[c->n_owned++] = p;
    return p;
}

static struct stream take_stream(struct code2wav *c, int past, int channels, int rows)
{
    struct stream s = {.past = past, .channels = channels};
    s.all = take(c, (size_t)(past + rows) * (size_t)channels);
    return s;
}

static float *fresh(const struct stream *s)
{
    return s->all + (size_t)s->past * (size_t)s->channels;
}

static size_t history_floats(const struct stream *s)
{
    return (size_t)s->past * (size_t)s->channels;
}

/* After t new rows: the last `past` rows become the history. */
static void slide(struct code2wav *c, const struct stream *s, int t)
{
    c->dev->op->copy(c->dev, s->all, s->all + (size_t)t * (size_t)s->channels,
                     history_floats(s) * sizeof(float));
}

static void forget(struct code2wav *c, const struct stream *s)
{
    c->dev->op->copy(c->dev, s->all, c->zeros, history_floats(s) * sizeof(float));
}

/* Buffers of block b for at most `rows` inputs; returns its outputs. */
static int plan_block(struct code2wav *c, int b, int rows)
{
    struct block *k = &c->blocks[b];
    int in = c->config->decoder_dim >> b, out = c->config->decoder_dim >> (b + 1);
    k->w = c->w->blocks == NULL ? NULL : &c->w->blocks[b];
    k->rate = c->config->rates[b];
    k->up = take_stream(c, 1, in, rows);
    for (int i = 0; i < UNITS; i++)
        k->units[i] = take_stream(c, PAST * dilations[i], out, rows * k->rate);
    return rows * k->rate;
}

static size_t largest(size_t a, size_t b)
{
    return a > b ? a : b;
}

/* Every buffer, in the order of the data. */
static void plan(struct code2wav *c)
{
    const struct code2wav_config *g = c->config;
    size_t hidden = (size_t)g->transformer.hidden, frames = (size_t)c->max_frames, line = 0;
    size_t zeros = frames * hidden;
    int rows = c->max_frames;
    c->ids = take(c, (size_t)g->groups * frames);
    c->share = take(c, hidden);
    c->sum = take(c, frames * hidden);
    c->x = take(c, frames * hidden);
    for (int i = 0; i < g->n_ratios; i++) {
        rows *= g->ratios[i];
        c->upsample[i] = take_stream(c, PAST, (int)hidden, rows);
    }
    c->wide = take(c, (size_t)rows * 4 * hidden);
    c->narrow = take(c, (size_t)rows * hidden);
    c->in = take_stream(c, PAST, (int)hidden, rows);
    zeros = largest(zeros, PAST * hidden);
    line = (size_t)rows * (size_t)g->decoder_dim;
    for (int b = 0; b < g->n_rates; b++) {
        rows = plan_block(c, b, rows);
        size_t channels = (size_t)(g->decoder_dim >> (b + 1)), most = (size_t)rows * channels;
        size_t history = (size_t)(PAST * dilations[UNITS - 1]) * channels;
        line = largest(line, most);
        zeros = largest(zeros, history);
    }
    c->line = take(c, line);
    c->branch = take(c, line);
    c->out = take_stream(c, PAST, g->decoder_dim >> g->n_rates, rows);
    c->pcm = take(c, (size_t)rows);
    c->zeros = take(c, largest(zeros, (size_t)g->decoder_dim));
}

static void set_up(struct code2wav *c, const struct code2wav_opts *o)
{
    c->config = &o->model->config.code2wav;
    c->w = &o->model->code2wav;
    c->max_frames = max_int(o->max_frames, 1);
    /* With a window the cache is a ring and a reply may be of any length. */
    c->max_positions =
        c->config->transformer.window > 0 ? INT_MAX / 2 : c->config->transformer.max_positions;
}

/* A backend may cut its sums where the ring of keys ends; so that the sound does not depend on
 * max_frames, the ring is of one size for all that are usual. */
static struct decoder_opts transformer_opts(const struct code2wav *c, struct device *dev)
{
    return (struct decoder_opts){.weights = &c->w->transformer,
                                 .device = dev,
                                 .max_positions = c->max_positions,
                                 .max_rows = max_int(c->max_frames, RING_FRAMES),
                                 .kv_type = DT_F32}; /* a small ring: precision costs nothing */
}

size_t code2wav_bytes(const struct code2wav_opts *o)
{
    struct code2wav c = {0};
    set_up(&c, o);
    plan(&c);
    struct decoder_opts d = transformer_opts(&c, NULL);
    return c.bytes + decoder_bytes(&d);
}

/* 1 / groups in every channel: the mean of the embeddings is their sum scaled. */
static int fill_share(struct code2wav *c)
{
    int hidden = c->config->transformer.hidden;
    float *share = malloc((size_t)hidden * sizeof(float));
    if (share == NULL)
        return -ENOMEM;
    for (int i = 0; i < hidden; i++)
        share[i] = 1.0f / (float)c->config->groups;
    c->dev->op->put(c->dev, c->share, share, (size_t)hidden * sizeof(float));
    free(share);
    return 0;
}

int code2wav_open(struct code2wav **ret, const struct code2wav_opts *o, struct problems *why)
{
    if (!o->model->speech)
        return problem_add(why, -EINVAL, "code2wav: the model was opened without speech");
    struct code2wav *c = calloc(1, sizeof(*c));
    if (c == NULL)
        return problem_add(why, -ENOMEM, "code2wav: no memory");
    c->dev = o->device;
    set_up(c, o);
    plan(c);
    c->host_ids = calloc((size_t)c->config->groups * (size_t)c->max_frames, sizeof(int32_t));
    c->tables = calloc((size_t)c->config->groups, sizeof(*c->tables));
    for (int g = 0; c->tables != NULL && g < c->config->groups; g++)
        c->tables[g] = &c->w->embedding;
    struct decoder_opts d = transformer_opts(c, c->dev);
    int err = decoder_open(&c->transformer, &d, why);
    if (err < 0)
        goto out;
    err = -ENOMEM;
    if (c->failed || c->host_ids == NULL || c->tables == NULL || fill_share(c) < 0) {
        problem_add(why, err, "code2wav: no memory for %zu bytes of buffers", c->bytes);
        goto out;
    }
    *ret = c;
    return 0;
out:
    code2wav_close(c);
    return err;
}

/* Rows of the embedding table for n frames of codes, on the device. */
static void put_ids(struct code2wav *c, const int32_t *codes, int n)
{
    int groups = c->config->groups;
    for (int g = 0; g < groups; g++)
        for (int i = 0; i < n; i++)
            c->host_ids[g * n + i] = g * c->config->codebook + codes[i * groups + g];
    c->dev->op->put(c->dev, c->ids, c->host_ids, (size_t)groups * (size_t)n * sizeof(int32_t));
}

/* x[n, hidden] = mean over groups of embedding[group * codebook + code]. */
static void embed(struct code2wav *c, int n)
{
    const struct ops *op = c->dev->op;
    int groups = c->config->groups, hidden = c->config->transformer.hidden;
    if (n == 1)
        op->embed_sum(c->dev, c->sum, c->tables, c->ids, groups);
    for (int g = 0; n > 1 && g < groups; g++)
        op->embed(c->dev, c->sum, &c->w->embedding, c->ids + g * n, n, g > 0);
    op->copy(c->dev, c->x, c->zeros, (size_t)n * (size_t)hidden * sizeof(float));
    op->scale_add(c->dev, c->x, c->sum, n, hidden, c->share);
}

/* Transposed convolution and ConvNeXt block i over x[t, hidden]; *x becomes [t * ratio, hidden].
 *   u = up(x);  u + gamma * pw2(gelu(pw1(norm(depthwise(u))))) */
static int upsample(struct code2wav *c, int i, const float **x, int t)
{
    const struct upsample_weights *w = &c->w->upsample[i];
    const struct stream *s = &c->upsample[i];
    const struct ops *op = c->dev->op;
    int ratio = c->config->ratios[i], hidden = s->channels;
    float *u = fresh(s);
    op->conv1d_up(c->dev, u, *x, t, &w->up.w, w->up.bias, ratio, ratio);
    t *= ratio;
    op->conv1d_depthwise(c->dev, c->narrow, u, t, hidden, w->dw_weight, w->dw_bias, KERNEL);
    slide(c, s, t); /* before u changes; u itself lies behind what this writes */
    op->layer_norm(c->dev, c->narrow, c->narrow, t, hidden, w->norm.w, w->norm.b, 1e-6f);
    op->linear(c->dev, c->wide, c->narrow, t, &w->pw1.w, w->pw1.bias, LINEAR_GELU);
    op->linear(c->dev, c->narrow, c->wide, t, &w->pw2.w, w->pw2.bias, 0);
    op->scale_add(c->dev, u, c->narrow, t, hidden, w->gamma);
    *x = u;
    return t;
}

/* line += conv2(snake(conv1(snake(line)))), line[t, channels]. */
static void residual_unit(struct code2wav *c, const struct residual_weights *w,
                          const struct stream *s, int dilation, int t)
{
    const struct ops *op = c->dev->op;
    float *a = fresh(s);
    op->snake(c->dev, a, c->line, t, s->channels, w->act1.alpha, w->act1.inv_beta);
    op->conv1d(c->dev, c->branch, a, t, &w->conv1.w, w->conv1.bias, KERNEL, dilation, 0);
    slide(c, s, t);
    op->snake(c->dev, c->branch, c->branch, t, s->channels, w->act2.alpha, w->act2.inv_beta);
    op->conv1d(c->dev, c->line, c->branch, t, &w->conv2.w, w->conv2.bias, 1, 1, LINEAR_ADD);
}

/* One decoder block over line[t, in]; the line becomes [rows, out]. Returns rows, 0 when the first
 * input of a reply was all there was. */
static int decode_block(struct code2wav *c, struct block *k, int t)
{
    const struct ops *op = c->dev->op;
    const struct stream *s = &k->up;
    const float *x = fresh(s);
    op->snake(c->dev, fresh(s), c->line, t, s->channels, k->w->act.alpha, k->w->act.inv_beta);
    int skip = k->started ? 0 : 1, rows = (t - skip) * k->rate;
    if (rows > 0)
        op->conv1d_up(c->dev, c->line, x + skip * s->channels, t - skip, &k->w->up.w, k->w->up.bias,
                      k->rate, 2 * k->rate);
    slide(c, s, t);
    k->started = true;
    for (int i = 0; rows > 0 && i < UNITS; i++)
        residual_unit(c, &k->w->unit[i], &k->units[i], dilations[i], rows);
    return rows;
}

/* The vocoder over x[t, hidden]: samples on the device; returns how many. */
static int decode(struct code2wav *c, const float *x, int t)
{
    const struct code2wav_weights *w = c->w;
    const struct ops *op = c->dev->op;
    const struct stream *in = &c->in, *out = &c->out;
    op->copy(c->dev, fresh(in), x, (size_t)t * (size_t)in->channels * sizeof(float));
    op->conv1d(c->dev, c->line, fresh(in), t, &w->in.w, w->in.bias, KERNEL, 1, 0);
    slide(c, in, t);
    for (int b = 0; b < c->config->n_rates && t > 0; b++)
        t = decode_block(c, &c->blocks[b], t);
    if (t == 0)
        return 0;
    op->snake(c->dev, fresh(out), c->line, t, out->channels, w->act.alpha, w->act.inv_beta);
    op->conv1d(c->dev, c->pcm, fresh(out), t, &w->out.w, w->out.bias, KERNEL, 1, 0);
    slide(c, out, t);
    return t;
}

/* To [-1, 1]; what is not a number becomes silence rather than a click. */
static void clamp(float *pcm, int n)
{
    for (int i = 0; i < n; i++) {
        float v = pcm[i];
        pcm[i] = v > 1 ? 1 : v < -1 ? -1 : v == v ? v : 0;
    }
}

/* Everything between ids and samples on the device; returns how many samples. */
static int run(struct code2wav *c, int n)
{
    const float *x = c->x;
    int t = n;
    embed(c, n);
    decoder_run(c->transformer, c->x, n, -1, NULL);
    decoder_norm(c->transformer, c->x, c->x, n);
    for (int i = 0; i < c->config->n_ratios; i++)
        t = upsample(c, i, &x, t);
    return decode(c, x, t);
}

/* Once every block has its history, one frame is the same step every time: recorded. */
static int run_frame(struct code2wav *c)
{
    const struct ops *op = c->dev->op;
    if (op->step_begin(c->dev, &c->frame)) {
        run(c, 1);
        op->step_end(c->dev, &c->frame);
    }
    return c->config->frame_samples;
}

static int next(struct code2wav *c, const int32_t *codes, int n, float *pcm)
{
    put_ids(c, codes, n);
    decoder_place(c->transformer);
    int t = n == 1 && c->blocks[c->config->n_rates - 1].started ? run_frame(c) : run(c, n);
    decoder_count(c->transformer, n);
    c->dev->op->get(c->dev, pcm, c->pcm, (size_t)t * sizeof(float));
    clamp(pcm, t);
    return t;
}

int code2wav_next(struct code2wav *c, const int32_t *codes, int n, float *pcm)
{
    int groups = c->config->groups, samples = 0;
    if (n < 0 || n > INT_MAX / c->config->frame_samples)
        return -EINVAL;
    for (size_t i = 0; i < (size_t)n * (size_t)groups; i++)
        if (codes[i] < 0 || codes[i] >= c->config->codebook)
            return -EINVAL;
    if (n > c->max_positions - decoder_length(c->transformer))
        return -ENOSPC;
    for (int done = 0, step; done < n; done += step) {
        step = min_int(n - done, c->max_frames);
        samples += next(c, codes + (size_t)done * (size_t)groups, step, pcm + samples);
    }
    return samples;
}

void code2wav_reset(struct code2wav *c)
{
    decoder_rewind(c->transformer, 0);
    for (int i = 0; i < c->config->n_ratios; i++)
        forget(c, &c->upsample[i]);
    forget(c, &c->in);
    for (int b = 0; b < c->config->n_rates; b++) {
        struct block *k = &c->blocks[b];
        k->started = false;
        forget(c, &k->up);
        for (int i = 0; i < UNITS; i++)
            forget(c, &k->units[i]);
    }
    forget(c, &c->out);
}

int code2wav_delay(const struct code2wav_config *config)
{
    int delay = 0; /* every block lacks `rate` of its outputs */
    for (int b = 0; b < config->n_rates; b++)
        delay = (delay + 1) * config->rates[b];
    return delay;
}

void code2wav_close(struct code2wav *c)
{
    if (c == NULL)
        return;
    if (c->dev != NULL)
        c->dev->op->step_drop(c->dev, c->frame);
    decoder_close(c->transformer);
    for (int i = 0; i < c->n_owned; i++)
        c->dev->op->release(c->dev, c->owned[i]);
    free(c->tables);
    free(c->host_ids);
    free(c);
}
