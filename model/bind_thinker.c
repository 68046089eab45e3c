/*
 * model/bind_thinker.c - the tensors that every model has: Thinker and audio encoder.
 */
#include <math.h>
#include <stdio.h>

#include "model/bind.h"

void bind_thinker(struct binder *b, struct model *m)
{
    const struct decoder_config *c = &m->config.thinker;
    struct thinker_weights *t = &m->thinker;
    bind_table(b, &t->embed, c->vocab, c->hidden, "thinker.model.embed_tokens.weight");
    bind_decoder(b, &t->text, c, "thinker.model", DECODER_HEAD_NORMS);
    bind_matrix(b, &t->head, c->vocab, c->hidden, "thinker.lm_head.weight");
    if (t->text.layers)
        m->kv_type = t->text.layers[0].q.type == DT_F32 ? DT_F32 : DT_F16;
}

static void bind_audio_layer(struct binder *b, struct audio_layer *l, const struct audio_config *c,
                             int layer)
{
    const struct {
        struct conv *to;
        const char *name;
        int rows, cols;
    } linear[] = {
        {&l->q, "self_attn.q_proj", c->d_model, c->d_model},
        {&l->k, "self_attn.k_proj", c->d_model, c->d_model},
        {&l->v, "self_attn.v_proj", c->d_model, c->d_model},
        {&l->o, "self_attn.out_proj", c->d_model, c->d_model},
        {&l->fc1, "fc1", c->ffn, c->d_model},
        {&l->fc2, "fc2", c->d_model, c->ffn},
    };
    char name[TENSOR_NAME_MAX];
    for (size_t i = 0; i < sizeof(linear) / sizeof(linear[0]); i++) {
        snprintf(name, sizeof(name), "thinker.audio_tower.layers.%d.%s", layer, linear[i].name);
        bind_linear(b, linear[i].to, linear[i].rows, linear[i].cols, name);
    }
    snprintf(name, sizeof(name), "thinker.audio_tower.layers.%d.self_attn_layer_norm", layer);
    bind_layer_norm(b, &l->attn_norm, c->d_model, name);
    snprintf(name, sizeof(name), "thinker.audio_tower.layers.%d.final_layer_norm", layer);
    bind_layer_norm(b, &l->mlp_norm, c->d_model, name);
}

/* Row t of the table: sin(t r_i), then cos(t r_i), r_i = exp(-i ln(10000) / (d/2 - 1)). Positions
 * start again in every chunk, so a chunk's tokens are all the rows there are. */
static void bind_positions(struct binder *b, float **v, const struct audio_config *c)
{
    int rows = (c->chunk + 7) / 8, half = c->d_model / 2;
    float *p = bind_alloc(b, (size_t)rows * (size_t)c->d_model, sizeof(float));
    for (int t = 0; p && t < rows; t++)
        for (int i = 0; i < half; i++) {
            double angle = t * exp(-i * log(10000.0) / (half - 1));
            p[(size_t)t * (size_t)c->d_model + (size_t)i] = (float)sin(angle);
            p[(size_t)t * (size_t)c->d_model + (size_t)(half + i)] = (float)cos(angle);
        }
    bind_computed(b, v, p, (size_t)rows * (size_t)c->d_model);
}

static int halve(int n) /* a convolution of stride 2 with padding 1 */
{
    return (n + 1) / 2;
}

void bind_audio(struct binder *b, struct model *m)
{
    const struct audio_config *c = &m->config.audio;
    struct audio_weights *a = &m->audio;
    int bins = halve(halve(halve(c->mel_bins)));
    for (int i = 0; i < 3; i++) {
        int in = i ? c->channels : 1;
        const size_t shape[] = {(size_t)c->channels, (size_t)in, 3, 3};
        bind_tensor(b, &a->conv[i].w, c->channels, in * 9, 4, shape,
                    "thinker.audio_tower.conv2d%d.weight", i + 1);
        bind_vector(b, &a->conv[i].bias, c->channels, FILL_BIAS,
                    "thinker.audio_tower.conv2d%d.bias", i + 1);
    }
    bind_matrix(b, &a->conv_out, c->d_model, c->channels * bins,
                "thinker.audio_tower.conv_out.weight");
    bind_positions(b, &a->positions, c);
    a->layers = bind_alloc(b, (size_t)c->layers, sizeof(*a->layers));
    for (int i = 0; a->layers && i < c->layers; i++)
        bind_audio_layer(b, &a->layers[i], c, i);
    bind_layer_norm(b, &a->post, c->d_model, "thinker.audio_tower.ln_post");
    bind_linear(b, &a->proj1, c->d_model, c->d_model, "thinker.audio_tower.proj1");
    bind_linear(b, &a->proj2, c->output, c->d_model, "thinker.audio_tower.proj2");
}
