/*
 * model/model.h - a checkpoint on disk as checked tensors on a device.
 *
 * open   reads config.json, generation_config.json and the safetensors headers, binds every tensor
 *        by name, type and exact shape, and makes the memory plan. No weight is read.
 * plan   what will be used, per component, beside what is free.
 * load   in short steps, so that the caller can show progress. On the CPU the matrices stay where
 *        they lie in the mapped files and a step only brings pages in; to a device with memory of
 *        its own they are copied by several threads. Small vectors (norms, biases) are widened to
 *        fp32 once.
 *
 * Layouts accepted: model.safetensors or model.safetensors.index.json with shards; experts one by
 * one as released, or fused (gate_up_proj, down_proj) as transformers 5 saves them. Tensors of
 * thinker.visual.* are left alone.
 *
 * Threads: after the last load step everything here is constant and may be read from any thread.
 * Source: MODEL.md, tensor inventory.
 */
#ifndef PARLEY_MODEL_MODEL_H
#define PARLEY_MODEL_MODEL_H

#include <stdbool.h>
#include <stddef.h>

#include "base/problem.h"
#include "kernels/ops.h"
#include "model/config.h"

struct decoder_layer {
    float *attn_norm;             /* [hidden] */
    struct weight q, k, v, o;     /* [heads*head_dim, hidden] ... [hidden, heads*head_dim] */
    float *q_norm, *k_norm;       /* [head_dim]; NULL in Code2Wav */
    float *attn_scale;            /* [hidden] layer scale; Code2Wav only, else NULL */
    float *mlp_norm;              /* [hidden] */
    float *mlp_scale;             /* [hidden] as attn_scale */
    struct weight gate, up, down; /* dense layers; data NULL in a mixture */
    struct weight router;         /* [experts, hidden]; data NULL in a dense layer */
    struct expert *experts;       /* [experts] */
    struct expert shared;         /* Talker's shared expert; data NULL = none */
    struct weight shared_gate;    /* [1, hidden] */
};

struct decoder_weights {
    const struct decoder_config *config;
    struct decoder_layer *layers; /* [config->layers] */
    float *norm;                  /* [hidden] final norm */
    float *inv_freq;              /* [head_dim/2] theta^(-2i/head_dim) */
};

struct conv {
    struct weight w;
    float *bias; /* [out], NULL = none */
};

struct layer_norm {
    float *w, *b;
};

struct audio_layer {
    struct layer_norm attn_norm, mlp_norm;
    struct conv q, k, v, o; /* [d_model, d_model] + bias */
    struct conv fc1, fc2;   /* [ffn, d_model], [d_model, ffn] */
};

struct audio_weights {
    struct conv conv[3];    /* [channels, 1*9], [channels, channels*9] twice */
    struct weight conv_out; /* [d_model, channels * stem_bins] */
    struct audio_layer *layers;
    struct layer_norm post;
    struct conv proj1, proj2; /* [d_model, d_model], [output, d_model] */
    float *positions;         /* [tokens of a chunk, d_model] sinusoids, computed */
};

struct projection {
    struct conv fc1, fc2; /* [projection, thinker_hidden], [talker hidden, projection] */
};

struct talker_weights {
    struct decoder_weights text;
    struct weight codec_embedding; /* [vocab, hidden] */
    struct weight codec_head;      /* [vocab, hidden] */
    struct projection text_projection, hidden_projection;
    struct decoder_weights predictor;
    struct weight *code_embedding; /* [groups-1] of [predictor vocab, predictor hidden] */
    struct weight *code_head;      /* [groups-1] of the same */
};

struct snake {
    float *alpha;    /* [channels] exp(alpha) */
    float *inv_beta; /* [channels] 1 / (exp(beta) + 1e-9) */
};

struct upsample_weights {       /* transposed conv k = s = ratio, then ConvNeXt */
    struct conv up;             /* [hidden, hidden*ratio] in-major */
    float *dw_weight, *dw_bias; /* [hidden, 7], [hidden] */
    struct layer_norm norm;     /* eps 1e-6 */
    struct conv pw1, pw2;       /* [4*hidden, hidden], [hidden, 4*hidden] */
    float *gamma;               /* [hidden] */
};

struct residual_weights { /* x + conv2(snake(conv1(snake(x)))) */
    struct snake act1, act2;
    struct conv conv1, conv2; /* [c, c*7], [c, c*1] */
};

struct block_weights { /* one decoder block: channels in -> in/2 */
    struct snake act;
    struct conv up;                  /* [in, out*2*rate] in-major */
    struct residual_weights unit[3]; /* dilation 1, 3, 9 */
};

struct code2wav_weights {
    struct weight embedding; /* [groups*codebook, hidden] */
    struct decoder_weights transformer;
    struct upsample_weights *upsample; /* [n_ratios] */
    struct conv in;                    /* [decoder_dim, hidden*7] */
    struct block_weights *blocks;      /* [n_rates] */
    struct snake act;
    struct conv out; /* [1, channels*7] */
};

struct thinker_weights {
    struct weight embed; /* [vocab, hidden] */
    struct decoder_weights text;
    struct weight head; /* [vocab, hidden] */
};

struct model {
    struct config config;
    struct thinker_weights thinker;
    struct audio_weights audio;
    struct talker_weights talker;     /* left empty in text-only mode */
    struct code2wav_weights code2wav; /* likewise */
    enum dtype kv_type;    /* of the KV caches: F32 when the Thinker is F32, else F16, whose
                              rounding is 8 times finer than BF16 at the same size */
    bool speech;           /* talker and code2wav are bound */
    struct loader *loader; /* mapped files, owned memory; private */
};

struct model_opts {
    const char *dir;       /* a Hugging Face checkpoint directory; or NULL and: */
    const char *synthetic; /* path of a config.json: random weights in memory, no other file */
    enum dtype synthetic_type;
    uint64_t seed;
    bool text_only;        /* neither bind nor need Talker and Code2Wav */
    struct device *device; /* where the weights go when it has memory of its own (`load`), and which
                              lives as long as the model; NULL = they stay on the host */
};

struct plan_row {
    const char *component; /* "thinker", "audio encoder", "talker", "code predictor", "code2wav";
                              "vision, unused" is counted, never mapped nor owned */
    size_t tensors;
    size_t parameters;
    size_t mapped;   /* bytes used where they lie in the files */
    size_t owned;    /* bytes of anonymous memory: widened vectors, synthetic weights; or of the
                        device's, which then holds everything */
    enum dtype type; /* of its largest matrices */
    unsigned types;  /* bit t: some tensor of it has type t */
};

struct load_progress {
    const char *component; /* the one being loaded */
    size_t done, total;    /* bytes over all components */
    int row;               /* index of the component's plan row */
};

int model_open(struct model **ret, const struct model_opts *o, struct problems *why);

/* The plan's rows, in loading order; returns their number. Caches are the stages' business. */
int model_plan(const struct model *m, const struct plan_row **rows);

struct model_layout {
    size_t files;       /* of weights; 0 = synthetic */
    bool sharded;       /* found by model.safetensors.index.json */
    bool fused_experts; /* gate_up_proj and down_proj instead of one by one */
};

void model_layout(const struct model *m, struct model_layout *layout);

/* Bytes that model_load will take from the device with memory of its own; 0 on the host. */
size_t model_device_bytes(const struct model *m);

/* One step of at most about 100 ms. 1 = more to do, 0 = everything is there, negative errno (a
 * sentence in `why`). */
int model_load(struct model *m, struct load_progress *p, struct problems *why);

/* NULL is allowed. */
void model_close(struct model *m);

#endif
