/*
 * model/bind_speech.c - the tensors that speaking needs: Talker, code predictor, Code2Wav.
 *
 * Convolutions are matrices as PyTorch stores them: Conv1d [out, in, k] has one row an output
 * channel; ConvTranspose1d [in, out, k] has one row an input channel.
 */
#include <stdio.h>

#include "model/bind.h"

static void bind_projection(struct binder *b, struct projection *p, const struct talker_config *c,
                            const char *name)
{
    char fc[TENSOR_NAME_MAX];
    snprintf(fc, sizeof(fc), "talker.%s.linear_fc1", name);
    bind_linear(b, &p->fc1, c->projection, c->thinker_hidden, fc);
    snprintf(fc, sizeof(fc), "talker.%s.linear_fc2", name);
    bind_linear(b, &p->fc2, c->text.hidden, c->projection, fc);
}

void bind_talker(struct binder *b, struct model *m)
{
    const struct talker_config *c = &m->config.talker;
    struct talker_weights *t = &m->talker;
    bind_table(b, &t->codec_embedding, c->text.vocab, c->text.hidden,
               "talker.model.codec_embedding.weight");
    bind_decoder(b, &t->text, &c->text, "talker.model", DECODER_HEAD_NORMS);
    bind_matrix(b, &t->codec_head, c->text.vocab, c->text.hidden, "talker.codec_head.weight");
    bind_projection(b, &t->text_projection, c, "text_projection");
    bind_projection(b, &t->hidden_projection, c, "hidden_projection");
}

void bind_predictor(struct binder *b, struct model *m)
{
    const struct talker_config *c = &m->config.talker;
    const struct decoder_config *p = &c->predictor;
    struct talker_weights *t = &m->talker;
    bind_decoder(b, &t->predictor, p, "talker.code_predictor.model", DECODER_HEAD_NORMS);
    t->code_embedding = bind_alloc(b, (size_t)c->groups - 1, sizeof(struct weight));
    t->code_head = bind_alloc(b, (size_t)c->groups - 1, sizeof(struct weight));
    if (!t->code_embedding || !t->code_head)
        return;
    for (int g = 0; g < c->groups - 1; g++) {
        bind_table(b, &t->code_embedding[g], p->vocab, p->hidden,
                   "talker.code_predictor.model.codec_embedding.%d.weight", g);
        bind_matrix(b, &t->code_head[g], p->vocab, p->hidden,
                    "talker.code_predictor.lm_head.%d.weight", g);
    }
}

static void bind_conv1d(struct binder *b, struct conv *c, int out, int in, int kernel,
                        const char *prefix)
{
    const size_t shape[] = {(size_t)out, (size_t)in, (size_t)kernel};
    bind_tensor(b, &c->w, out, in * kernel, 3, shape, "%s.conv.weight", prefix);
    bind_vector(b, &c->bias, out, FILL_BIAS, "%s.conv.bias", prefix);
}

static void bind_conv1d_up(struct binder *b, struct conv *c, int in, int out, int kernel,
                           const char *prefix)
{
    const size_t shape[] = {(size_t)in, (size_t)out, (size_t)kernel};
    bind_tensor(b, &c->w, in, out * kernel, 3, shape, "%s.conv.weight", prefix);
    bind_vector(b, &c->bias, out, FILL_BIAS, "%s.conv.bias", prefix);
}

static void bind_snake(struct binder *b, struct snake *s, int channels, const char *prefix)
{
    bind_vector(b, &s->alpha, channels, FILL_SNAKE_ALPHA, "%s.alpha", prefix);
    bind_vector(b, &s->inv_beta, channels, FILL_SNAKE_BETA, "%s.beta", prefix);
}

static void bind_upsample(struct binder *b, struct upsample_weights *u, int hidden, int ratio,
                          int index)
{
    char up[PREFIX_MAX], next[PREFIX_MAX], part[TENSOR_NAME_MAX];
    snprintf(up, sizeof(up), "code2wav.upsample.%d.0", index);
    snprintf(next, sizeof(next), "code2wav.upsample.%d.1", index);
    bind_conv1d_up(b, &u->up, hidden, hidden, ratio, up);
    bind_depthwise(b, &u->dw_weight, hidden, 7, "%s.dwconv.conv.weight", next);
    bind_vector(b, &u->dw_bias, hidden, FILL_BIAS, "%s.dwconv.conv.bias", next);
    snprintf(part, sizeof(part), "%s.norm", next);
    bind_layer_norm(b, &u->norm, hidden, part);
    snprintf(part, sizeof(part), "%s.pwconv1", next);
    bind_linear(b, &u->pw1, 4 * hidden, hidden, part);
    snprintf(part, sizeof(part), "%s.pwconv2", next);
    bind_linear(b, &u->pw2, hidden, 4 * hidden, part);
    bind_vector(b, &u->gamma, hidden, FILL_SCALE, "%s.gamma", next);
}

static void bind_residual(struct binder *b, struct residual_weights *r, int channels,
                          const char *prefix)
{
    char part[TENSOR_NAME_MAX];
    snprintf(part, sizeof(part), "%s.act1", prefix);
    bind_snake(b, &r->act1, channels, part);
    snprintf(part, sizeof(part), "%s.conv1", prefix);
    bind_conv1d(b, &r->conv1, channels, channels, 7, part);
    snprintf(part, sizeof(part), "%s.act2", prefix);
    bind_snake(b, &r->act2, channels, part);
    snprintf(part, sizeof(part), "%s.conv2", prefix);
    bind_conv1d(b, &r->conv2, channels, channels, 1, part);
}

/* decoder.N.block: 0 snake, 1 transposed convolution, 2..4 residual units. */
static void bind_block(struct binder *b, struct block_weights *w, int in, int rate, int index)
{
    char part[PREFIX_MAX];
    snprintf(part, sizeof(part), "code2wav.decoder.%d.block.0", index);
    bind_snake(b, &w->act, in, part);
    snprintf(part, sizeof(part), "code2wav.decoder.%d.block.1", index);
    bind_conv1d_up(b, &w->up, in, in / 2, 2 * rate, part);
    for (int i = 0; i < 3; i++) {
        snprintf(part, sizeof(part), "code2wav.decoder.%d.block.%d", index, i + 2);
        bind_residual(b, &w->unit[i], in / 2, part);
    }
}

void bind_code2wav(struct binder *b, struct model *m)
{
    const struct code2wav_config *c = &m->config.code2wav;
    struct code2wav_weights *w = &m->code2wav;
    int hidden = c->transformer.hidden, channels = c->decoder_dim;
    char part[TENSOR_NAME_MAX];
    bind_table(b, &w->embedding, c->groups * c->codebook, hidden, "code2wav.code_embedding.weight");
    bind_decoder(b, &w->transformer, &c->transformer, "code2wav.pre_transformer",
                 DECODER_LAYER_SCALES);
    w->upsample = bind_alloc(b, (size_t)c->n_ratios, sizeof(*w->upsample));
    w->blocks = bind_alloc(b, (size_t)c->n_rates, sizeof(*w->blocks));
    if (!w->upsample || !w->blocks)
        return;
    for (int i = 0; i < c->n_ratios; i++)
        bind_upsample(b, &w->upsample[i], hidden, c->ratios[i], i);
    bind_conv1d(b, &w->in, channels, hidden, 7, "code2wav.decoder.0");
    for (int i = 0; i < c->n_rates; i++, channels /= 2)
        bind_block(b, &w->blocks[i], channels, c->rates[i], i + 1);
    snprintf(part, sizeof(part), "code2wav.decoder.%d", c->n_rates + 1);
    bind_snake(b, &w->act, channels, part);
    snprintf(part, sizeof(part), "code2wav.decoder.%d", c->n_rates + 2);
    bind_conv1d(b, &w->out, 1, channels, 7, part);
}
