/*
 * model/bind_decoder.c - the tensors of a stack of decoder layers: Thinker, Talker, code predictor
 * and Code2Wav's transformer differ in flags and sizes only.
 *
 *     P.layers.L.self_attn.{q,k,v,o}_proj.weight       P.layers.L.input_layernorm.weight
 *     P.layers.L.self_attn.{q,k}_norm.weight           P.layers.L.post_attention_layernorm.weight
 *     P.layers.L.mlp.{gate,up,down}_proj.weight                          a dense layer
 *     P.layers.L.mlp.gate.weight                                         a mixture: its router,
 *     P.layers.L.mlp.experts.E.{gate,up,down}_proj.weight                its experts one by one
 *     P.layers.L.mlp.experts.gate_up_proj [E, 2I, H], .down_proj         or fused
 *     P.layers.L.mlp.shared_expert.*, .shared_expert_gate.weight         Talker
 *     P.layers.L.{self_attn,mlp}_layer_scale.scale                       Code2Wav
 *     P.norm.weight
 */
#include <math.h>
#include <stdio.h>

#include "model/bind.h"

static void bind_attention(struct binder *b, struct decoder_layer *l,
                           const struct decoder_config *c, const char *p, unsigned flags)
{
    int q = c->heads * c->head_dim, kv = c->kv_heads * c->head_dim;
    bind_vector(b, &l->attn_norm, c->hidden, FILL_NORM, "%s.input_layernorm.weight", p);
    bind_matrix(b, &l->q, q, c->hidden, "%s.self_attn.q_proj.weight", p);
    bind_matrix(b, &l->k, kv, c->hidden, "%s.self_attn.k_proj.weight", p);
    bind_matrix(b, &l->v, kv, c->hidden, "%s.self_attn.v_proj.weight", p);
    bind_matrix(b, &l->o, c->hidden, q, "%s.self_attn.o_proj.weight", p);
    if (flags & DECODER_HEAD_NORMS) {
        bind_vector(b, &l->q_norm, c->head_dim, FILL_NORM, "%s.self_attn.q_norm.weight", p);
        bind_vector(b, &l->k_norm, c->head_dim, FILL_NORM, "%s.self_attn.k_norm.weight", p);
    }
    if (flags & DECODER_LAYER_SCALES)
        bind_vector(b, &l->attn_scale, c->hidden, FILL_SCALE, "%s.self_attn_layer_scale.scale", p);
}

static void bind_mlp(struct binder *b, struct expert *e, int hidden, int inner, const char *p)
{
    bind_matrix(b, &e->gate, inner, hidden, "%s.gate_proj.weight", p);
    bind_matrix(b, &e->up, inner, hidden, "%s.up_proj.weight", p);
    bind_matrix(b, &e->down, hidden, inner, "%s.down_proj.weight", p);
}

/* gate_up_proj [E, 2I, H]: rows 0..I-1 of an expert are its gate, I..2I-1 its up. */
static void bind_fused_experts(struct binder *b, struct expert *e, const struct decoder_config *c,
                               const char *p)
{
    size_t n = (size_t)c->experts, inner = (size_t)c->expert_intermediate,
           hidden = (size_t)c->hidden, one = inner * hidden;
    struct tensor_got got;
    if (bind_fused(b, &got, (const size_t[]){n, 2 * inner, hidden}, "%s.experts.gate_up_proj", p))
        for (size_t i = 0; i < n; i++) {
            bind_slice(b, &e[i].gate, &got, 2 * i * one, c->expert_intermediate, c->hidden);
            bind_slice(b, &e[i].up, &got, (2 * i + 1) * one, c->expert_intermediate, c->hidden);
        }
    if (bind_fused(b, &got, (const size_t[]){n, hidden, inner}, "%s.experts.down_proj", p))
        for (size_t i = 0; i < n; i++)
            bind_slice(b, &e[i].down, &got, i * one, c->hidden, c->expert_intermediate);
}

static void bind_mixture(struct binder *b, struct decoder_layer *l, const struct decoder_config *c,
                         const char *p)
{
    char name[TENSOR_NAME_MAX];
    bind_matrix(b, &l->router, c->experts, c->hidden, "%s.gate.weight", p);
    l->experts = bind_alloc(b, (size_t)c->experts, sizeof(*l->experts));
    if (!l->experts)
        return;
    snprintf(name, sizeof(name), "%s.experts.gate_up_proj", p);
    if (b->source->has(b->source, name)) {
        b->fused = true;
        bind_fused_experts(b, l->experts, c, p);
    } else {
        for (int i = 0; i < c->experts; i++) {
            snprintf(name, sizeof(name), "%s.experts.%d", p, i);
            bind_mlp(b, &l->experts[i], c->hidden, c->expert_intermediate, name);
        }
    }
    if (c->shared_intermediate > 0) {
        snprintf(name, sizeof(name), "%s.shared_expert", p);
        bind_mlp(b, &l->shared, c->hidden, c->shared_intermediate, name);
        bind_matrix(b, &l->shared_gate, 1, c->hidden, "%s.shared_expert_gate.weight", p);
    }
}

static void bind_layer(struct binder *b, struct decoder_layer *l, const struct decoder_config *c,
                       int layer, const char *prefix, unsigned flags)
{
    char p[PREFIX_MAX], mlp[PREFIX_MAX];
    snprintf(p, sizeof(p), "%s.layers.%d", prefix, layer);
    snprintf(mlp, sizeof(mlp), "%s.layers.%d.mlp", prefix, layer);
    bind_attention(b, l, c, p, flags);
    bind_vector(b, &l->mlp_norm, c->hidden, FILL_NORM, "%s.post_attention_layernorm.weight", p);
    if (flags & DECODER_LAYER_SCALES)
        bind_vector(b, &l->mlp_scale, c->hidden, FILL_SCALE, "%s.mlp_layer_scale.scale", p);
    if (decoder_is_sparse(c, layer)) {
        bind_mixture(b, l, c, mlp);
        return;
    }
    bind_matrix(b, &l->gate, c->intermediate, c->hidden, "%s.gate_proj.weight", mlp);
    bind_matrix(b, &l->up, c->intermediate, c->hidden, "%s.up_proj.weight", mlp);
    bind_matrix(b, &l->down, c->hidden, c->intermediate, "%s.down_proj.weight", mlp);
}

void bind_decoder(struct binder *b, struct decoder_weights *d, const struct decoder_config *c,
                  const char *prefix, unsigned flags)
{
    d->config = c;
    d->layers = bind_alloc(b, (size_t)c->layers, sizeof(*d->layers));
    float *inv_freq = bind_alloc(b, (size_t)c->head_dim / 2, sizeof(float));
    if (!d->layers || !inv_freq)
        return;
    for (int i = 0; i < c->head_dim / 2; i++) /* theta^(-2i/head_dim) */
        inv_freq[i] = (float)pow(c->theta, -2.0 * i / c->head_dim);
    bind_computed(b, &d->inv_freq, inv_freq, (size_t)c->head_dim / 2);
    for (int i = 0; i < c->layers; i++)
        bind_layer(b, &d->layers[i], c, i, prefix, flags);
    bind_vector(b, &d->norm, c->hidden, FILL_NORM, "%s.norm.weight", prefix);
}
