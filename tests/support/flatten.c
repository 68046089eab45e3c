/*
 * tests/support/flatten.c - walks a struct model as its header documents it, independently of the
 * binder, so that a tensor bound to the wrong field shows up as values in the wrong place.
 */
#include "tests/support/flatten.h"

#undef NDEBUG
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "kernels/plain/plain.h"

static float *room(struct flat *f, size_t n)
{
    assert(grow_array(&f->values, &f->cap, f->n + n, sizeof(float)) == 0);
    f->n += n;
    return f->values + f->n - n;
}

static void matrix(struct flat *f, const struct weight *w, int rows, int cols)
{
    assert(w->data && w->rows == rows && w->cols == cols);
    assert((uintptr_t)w->data % dtype_size(w->type) == 0);
    float *to = room(f, (size_t)rows * (size_t)cols);
    struct weight near = *w;
    void *copy = NULL;
    if (f->device) {
        assert(w->type < DT_FLOATS && (copy = malloc(weight_bytes(w))));
        f->device->op->get(f->device, copy, w->data, weight_bytes(w));
        near.data = copy;
    }
    for (size_t r = 0; r < (size_t)rows; r++)
        plain_row(to + r * (size_t)cols, &near, r);
    free(copy);
}

static void vector(struct flat *f, const float *v, int n)
{
    float *to = room(f, (size_t)n);
    assert(v);
    if (f->device)
        f->device->op->get(f->device, to, v, (size_t)n * sizeof(float));
    else
        memcpy(to, v, (size_t)n * sizeof(float));
}

static void mlp(struct flat *f, const struct expert *e, int hidden, int inner)
{
    matrix(f, &e->gate, inner, hidden);
    matrix(f, &e->up, inner, hidden);
    matrix(f, &e->down, hidden, inner);
}

static void decoder_layer(struct flat *f, const struct decoder_layer *l,
                          const struct decoder_config *c, bool sparse)
{
    int q = c->heads * c->head_dim, kv = c->kv_heads * c->head_dim;
    vector(f, l->attn_norm, c->hidden);
    matrix(f, &l->q, q, c->hidden);
    matrix(f, &l->k, kv, c->hidden);
    matrix(f, &l->v, kv, c->hidden);
    matrix(f, &l->o, c->hidden, q);
    if (l->q_norm) {
        vector(f, l->q_norm, c->head_dim);
        vector(f, l->k_norm, c->head_dim);
    } else {
        vector(f, l->attn_scale, c->hidden);
    }
    vector(f, l->mlp_norm, c->hidden);
    if (l->mlp_scale)
        vector(f, l->mlp_scale, c->hidden);
    if (!sparse) {
        const struct expert dense = {l->gate, l->up, l->down};
        mlp(f, &dense, c->hidden, c->intermediate);
        return;
    }
    matrix(f, &l->router, c->experts, c->hidden);
    for (int i = 0; i < c->experts; i++)
        mlp(f, &l->experts[i], c->hidden, c->expert_intermediate);
    if (c->shared_intermediate > 0) {
        mlp(f, &l->shared, c->hidden, c->shared_intermediate);
        matrix(f, &l->shared_gate, 1, c->hidden);
    }
}

static void decoder(struct flat *f, const struct decoder_weights *d)
{
    for (int i = 0; i < d->config->layers; i++)
        decoder_layer(f, &d->layers[i], d->config, decoder_is_sparse(d->config, i));
    vector(f, d->norm, d->config->hidden);
}

static void linear(struct flat *f, const struct conv *c, int rows, int cols)
{
    matrix(f, &c->w, rows, cols);
    vector(f, c->bias, rows);
}

static void norm(struct flat *f, const struct layer_norm *n, int dim)
{
    vector(f, n->w, dim);
    vector(f, n->b, dim);
}

static void audio(struct flat *f, const struct audio_weights *a, const struct audio_config *c)
{
    int bins = ((c->mel_bins + 1) / 2 + 1) / 2;
    for (int i = 0; i < 3; i++)
        linear(f, &a->conv[i], c->channels, i ? c->channels * 9 : 9);
    matrix(f, &a->conv_out, c->d_model, c->channels * ((bins + 1) / 2));
    for (int i = 0; i < c->layers; i++) {
        const struct audio_layer *l = &a->layers[i];
        linear(f, &l->q, c->d_model, c->d_model);
        linear(f, &l->k, c->d_model, c->d_model);
        linear(f, &l->v, c->d_model, c->d_model);
        linear(f, &l->o, c->d_model, c->d_model);
        linear(f, &l->fc1, c->ffn, c->d_model);
        linear(f, &l->fc2, c->d_model, c->ffn);
        norm(f, &l->attn_norm, c->d_model);
        norm(f, &l->mlp_norm, c->d_model);
    }
    norm(f, &a->post, c->d_model);
    linear(f, &a->proj1, c->d_model, c->d_model);
    linear(f, &a->proj2, c->output, c->d_model);
}

static void talker(struct flat *f, const struct talker_weights *t, const struct talker_config *c)
{
    matrix(f, &t->codec_embedding, c->text.vocab, c->text.hidden);
    decoder(f, &t->text);
    matrix(f, &t->codec_head, c->text.vocab, c->text.hidden);
    linear(f, &t->text_projection.fc1, c->projection, c->thinker_hidden);
    linear(f, &t->text_projection.fc2, c->text.hidden, c->projection);
    linear(f, &t->hidden_projection.fc1, c->projection, c->thinker_hidden);
    linear(f, &t->hidden_projection.fc2, c->text.hidden, c->projection);
    decoder(f, &t->predictor);
    for (int g = 0; g < c->groups - 1; g++) {
        matrix(f, &t->code_embedding[g], c->predictor.vocab, c->predictor.hidden);
        matrix(f, &t->code_head[g], c->predictor.vocab, c->predictor.hidden);
    }
}

static void snake(struct flat *f, const struct snake *s, int channels)
{
    vector(f, s->alpha, channels);
    vector(f, s->inv_beta, channels);
}

static void up(struct flat *f, const struct conv *c, int in, int out, int kernel)
{
    matrix(f, &c->w, in, out * kernel);
    vector(f, c->bias, out);
}

static void block(struct flat *f, const struct block_weights *w, int in, int rate)
{
    int out = in / 2;
    snake(f, &w->act, in);
    up(f, &w->up, in, out, 2 * rate);
    for (int i = 0; i < 3; i++) {
        snake(f, &w->unit[i].act1, out);
        linear(f, &w->unit[i].conv1, out, out * 7);
        snake(f, &w->unit[i].act2, out);
        linear(f, &w->unit[i].conv2, out, out);
    }
}

static void code2wav(struct flat *f, const struct code2wav_weights *w,
                     const struct code2wav_config *c)
{
    int hidden = c->transformer.hidden, channels = c->decoder_dim;
    matrix(f, &w->embedding, c->groups * c->codebook, hidden);
    decoder(f, &w->transformer);
    for (int i = 0; i < c->n_ratios; i++) {
        const struct upsample_weights *u = &w->upsample[i];
        up(f, &u->up, hidden, hidden, c->ratios[i]);
        vector(f, u->dw_weight, hidden * 7);
        vector(f, u->dw_bias, hidden);
        norm(f, &u->norm, hidden);
        linear(f, &u->pw1, 4 * hidden, hidden);
        linear(f, &u->pw2, hidden, 4 * hidden);
        vector(f, u->gamma, hidden);
    }
    linear(f, &w->in, channels, hidden * 7);
    for (int i = 0; i < c->n_rates; i++, channels /= 2)
        block(f, &w->blocks[i], channels, c->rates[i]);
    snake(f, &w->act, channels);
    linear(f, &w->out, 1, channels * 7);
}

void flatten(struct flat *f, const struct model *m)
{
    flatten_from(f, m, NULL);
}

void flatten_from(struct flat *f, const struct model *m, struct device *d)
{
    const struct decoder_config *c = &m->config.thinker;
    *f = (struct flat){.device = d};
    matrix(f, &m->thinker.embed, c->vocab, c->hidden);
    decoder(f, &m->thinker.text);
    matrix(f, &m->thinker.head, c->vocab, c->hidden);
    audio(f, &m->audio, &m->config.audio);
    if (!m->speech)
        return;
    talker(f, &m->talker, &m->config.talker);
    code2wav(f, &m->code2wav, &m->config.code2wav);
}
