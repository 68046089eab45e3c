/*
 * model/config.h - the dimensions of a checkpoint, read from its config.json.
 *
 * Every number comes from the file: the reference's class defaults are wrong for the released model
 * in several places (MODEL.md, pitfalls), so a key that matters and is missing is an error, not a
 * default. Both spellings of the rope settings are read (`rope_theta` + `rope_scaling`, and
 * `rope_parameters`), and both of the expert count (`num_experts`, `num_local_experts`).
 */
#ifndef PARLEY_MODEL_CONFIG_H
#define PARLEY_MODEL_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "base/problem.h"

/* A stack of decoder layers: Thinker, Talker, code predictor, Code2Wav's transformer. */
struct decoder_config {
    int layers;
    int hidden;
    int heads;
    int kv_heads;
    int head_dim;
    int intermediate; /* of dense layers */
    int experts;      /* 0 = every layer dense */
    int top_k;
    int expert_intermediate;
    int shared_intermediate; /* Talker's shared expert, 0 = none */
    int sparse_step;         /* layer l is a mixture when (l + 1) % sparse_step == 0 ... */
    uint64_t dense_layers;   /* ... and bit l (l < 64) of this is clear (mlp_only_layers) */
    bool norm_topk;
    int vocab; /* rows of the embedding and of the head; 0 for Code2Wav */
    int max_positions;
    int window; /* sliding window, 0 = none */
    float eps;
    double theta;
};

struct audio_config {
    int mel_bins;
    int channels; /* downsample_hidden_size */
    int d_model;
    int layers;
    int heads;
    int ffn;
    int output;        /* output_dim = the Thinker's hidden */
    int chunk;         /* mel frames in a stem chunk: 2 * n_window */
    int window_chunks; /* chunks in an attention window: n_window_infer / chunk */
    int max_source_positions;
};

#define CODE_GROUPS_MAX  32
#define UPSAMPLE_MAX     8
#define SPEAKERS_MAX     64
#define SPEAKER_NAME_MAX 32

struct code2wav_config {
    struct decoder_config transformer;
    int codebook; /* codebook_size */
    int groups;   /* num_quantizers */
    int decoder_dim;
    int n_ratios;
    int ratios[UPSAMPLE_MAX]; /* upsampling_ratios: transposed conv + ConvNeXt */
    int n_rates;
    int rates[UPSAMPLE_MAX]; /* upsample_rates: decoder blocks */
    int frame_samples;       /* product of all of them: 1920 */
};

struct speaker {
    char name[SPEAKER_NAME_MAX]; /* lower case */
    int32_t id;                  /* row of the Talker's codec embedding */
};

struct talker_config {
    struct decoder_config text;
    struct decoder_config predictor;
    int groups; /* num_code_groups */
    int thinker_hidden;
    int projection;   /* intermediate size of the two projections */
    int accept_layer; /* the Thinker layer whose INPUT is taken at audio positions */
    int32_t codec_pad, codec_bos, codec_eos, codec_nothink, codec_think_bos, codec_think_eos;
    int n_speakers;
    struct speaker speakers[SPEAKERS_MAX];
};

struct token_ids {
    int32_t im_start, im_end, system, user, assistant;
    int32_t audio_start, audio_pad, audio_end;
    int32_t tts_pad, tts_bos, tts_eos;
};

/* generation_config.json; what is absent there has the reference's default (MODEL.md, Sampling). */
struct generation_config {
    int talker_max_frames;
    float talker_temperature, talker_top_p, talker_repetition_penalty;
    int talker_top_k;
    float predictor_temperature, predictor_top_p; /* 1.0, 0.8 */
    int predictor_top_k;                          /* 50 */
    float temperature, top_p, repetition_penalty; /* Thinker; temperature 0 = greedy, the default */
    int top_k;
};

#define QUANT_GROUPS_MAX 8

/* quantization_config: weights of linear layers stored as signed bytes with scales, the
 * "pack-quantized" format of compressed-tensors with num_bits 8 (MODEL.md, 8-bit weights). Which
 * matrices are stored so is for the files to say. */
struct quant_config {
    int n;                       /* 0 = none may be */
    int group[QUANT_GROUPS_MAX]; /* columns that share a scale; 0 = a whole row */
};

struct config {
    struct decoder_config thinker;
    struct audio_config audio;
    struct talker_config talker;
    struct code2wav_config code2wav;
    struct token_ids tokens;
    struct generation_config generation;
    struct quant_config quant;
    bool has_speech; /* enable_audio_output and the two sections are there */
};

/* Parses config.json's text (`name` is used in sentences). Every missing, ill-typed or inconsistent
 * field is one sentence with field, found and expected. 0 or -EINVAL. */
int config_parse(struct config *c, const char *text, size_t len, const char *name,
                 struct problems *why);

/* Fills c->generation from generation_config.json's text; len 0 = the defaults. */
int config_parse_generation(struct config *c, const char *text, size_t len, const char *name,
                            struct problems *why);

/* Layer l of the stack is a mixture of experts. */
bool decoder_is_sparse(const struct decoder_config *c, int layer);

#endif
