/*
 * model/config.c - config.json and generation_config.json as checked numbers.
 *
 * Three tables do the work: `field` rows say where a value lies in the JSON text, where it goes and
 * which values are sane; `relation` rows say how two values must agree; the code here walks them
 * and turns every disagreement into a sentence. Ranges are generous (an order of magnitude beyond
 * the released model), but they are finite: no product of sizes computed from an accepted
 * configuration leaves 64 bits, and no allocation made from one explodes.
 *
 * Source: MODEL.md, Configuration.
 */
#include "model/config.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "base/util.h"
#include "model/config_quant.h"
#include "model/json_text.h"

enum kind { INT, FLOAT, DOUBLE, BOOL, TEXT_IS, MUST_BE_FALSE };
enum need { REQUIRED, OPTIONAL };

struct field {
    const char
        *key; /* path below the section; spellings separated by '|', all present must agree */
    enum kind kind;
    enum need need;
    size_t offset; /* in the section's structure */
    double min, max;
    const char *text; /* TEXT_IS: the one value that is implemented */
};

struct reader {
    json_t *root;
    const char *file;
    struct problems *why;
    int err;
};

#define KEY_MAX 160

const char *config_found_text(char *buf, size_t size, const json_t *v)
{
    switch (v ? json_typeof(v) : JSON_NULL) {
    case JSON_INTEGER:
        snprintf(buf, size, "%" JSON_INTEGER_FORMAT, json_integer_value(v));
        return buf;
    case JSON_REAL:
        snprintf(buf, size, "%.9g", json_real_value(v));
        return buf;
    case JSON_STRING:
        if (json_string_length(v) > 40)
            return "a long string";
        snprintf(buf, size, "\"%s\"", json_string_value(v));
        return buf;
    case JSON_TRUE:
        return "true";
    case JSON_FALSE:
        return "false";
    case JSON_OBJECT:
        return "an object";
    case JSON_ARRAY:
        return "an array";
    default:
        return v ? "null" : "nothing";
    }
}

static const char *expected_text(char *buf, size_t size, const struct field *f)
{
    switch (f->kind) {
    case INT:
        snprintf(buf, size, "an integer from %.0f to %.0f", f->min, f->max);
        return buf;
    case BOOL:
        return "true or false";
    case TEXT_IS:
        snprintf(buf, size, "\"%s\"", f->text);
        return buf;
    case MUST_BE_FALSE:
        return "false, nothing else is implemented";
    default:
        snprintf(buf, size, "a number from %g to %g", f->min, f->max);
        return buf;
    }
}

/* The value at a dotted path below `v`; `n` bytes of `path` count. NULL when there is none. */
static json_t *at_path(json_t *v, const char *path, size_t n)
{
    while (v && n > 0) {
        size_t part = 0;
        while (part < n && path[part] != '.')
            part++;
        char key[64];
        if (part >= sizeof(key) || !json_is_object(v))
            return NULL;
        memcpy(key, path, part);
        key[part] = '\0';
        v = json_object_get(v, key);
        size_t skip = part + (part < n);
        path += skip;
        n -= skip;
    }
    return v;
}

static json_t *section(const struct reader *r, const char *path)
{
    return at_path(r->root, path, strlen(path));
}

static void complain(struct reader *r, const char *base, const char *key, const char *found,
                     const char *expected)
{
    r->err = problem_add(r->why, -EINVAL, "%s: %s%s%s: found %s, expected %s", r->file, base,
                         *base ? "." : "", key, found, expected);
}

static bool in_range(const struct field *f, const json_t *v)
{
    if (f->kind == BOOL)
        return json_is_boolean(v);
    if (f->kind == MUST_BE_FALSE)
        return json_is_false(v);
    if (f->kind == TEXT_IS)
        return json_is_string(v) && strcmp(json_string_value(v), f->text) == 0;
    if (f->kind == INT && !json_is_integer(v))
        return false;
    double x = json_number_value(v);
    return json_is_number(v) && x >= f->min && x <= f->max;
}

static void store(const struct field *f, void *base, const json_t *v)
{
    char *to = (char *)base + f->offset;
    if (f->kind == INT)
        *(int *)to = (int)json_integer_value(v);
    else if (f->kind == FLOAT)
        *(float *)to = (float)json_number_value(v);
    else if (f->kind == DOUBLE)
        *(double *)to = json_number_value(v);
    else if (f->kind == BOOL)
        *(bool *)to = json_is_true(v);
}

static void read_field(struct reader *r, const char *base, const struct field *f, void *out)
{
    json_t *top = section(r, base), *seen = NULL;
    char found[64], expected[96];
    for (const char *p = f->key; *p;) {
        size_t n = strcspn(p, "|");
        json_t *v = at_path(top, p, n);
        char key[KEY_MAX];
        snprintf(key, sizeof(key), "%.*s", (int)n, p);
        if (v && !json_is_null(v)) {
            if (!in_range(f, v))
                complain(r, base, key, config_found_text(found, sizeof(found), v),
                         expected_text(expected, sizeof(expected), f));
            else if (seen && json_number_value(seen) != json_number_value(v))
                complain(r, base, key, config_found_text(found, sizeof(found), v),
                         "the same value as in its other spelling");
            else
                store(f, out, v);
            seen = v;
        }
        p += n + (p[n] == '|');
    }
    if (!seen && f->need == REQUIRED)
        complain(r, base, f->key, "nothing", expected_text(expected, sizeof(expected), f));
}

static void read_fields(struct reader *r, const char *base, const struct field *f, size_t n,
                        void *out)
{
    for (size_t i = 0; i < n; i++)
        read_field(r, base, &f[i], out);
}

/* The tables. Sizes reach ten times the released model's. tie_word_embeddings is not looked at:
 * full dumps carry a meaningless `true` in places, and a head that is not stored is missed by name.
 */
#define SIZE_MAX_     65536
#define LAYERS_MAX    512
#define VOCAB_MAX     (4 << 20)
#define POSITIONS_MAX (16 << 20)

#define D(member)        offsetof(struct decoder_config, member)
#define ROPE_PLACES(key) "rope_parameters." key "|rope_scaling." key

static const struct field decoder_fields[] = {
    {"num_hidden_layers", INT, REQUIRED, D(layers), 1, LAYERS_MAX, NULL},
    {"hidden_size", INT, REQUIRED, D(hidden), 1, SIZE_MAX_, NULL},
    {"num_attention_heads", INT, REQUIRED, D(heads), 1, 1024, NULL},
    {"num_key_value_heads", INT, REQUIRED, D(kv_heads), 1, 1024, NULL},
    {"head_dim", INT, OPTIONAL, D(head_dim), 2, 1024, NULL},
    {"intermediate_size", INT, REQUIRED, D(intermediate), 1, 4 * SIZE_MAX_, NULL},
    {"max_position_embeddings", INT, REQUIRED, D(max_positions), 1, POSITIONS_MAX, NULL},
    {"rms_norm_eps", FLOAT, REQUIRED, D(eps), 1e-12, 0.1, NULL},
    {ROPE_PLACES("rope_theta") "|rope_theta", DOUBLE, REQUIRED, D(theta), 1, 1e12, NULL},
    {"hidden_act", TEXT_IS, OPTIONAL, 0, 0, 0, "silu"},
    {"attention_bias", MUST_BE_FALSE, OPTIONAL, 0, 0, 0, NULL},
};

static const struct field vocab_fields[] = {
    {"vocab_size", INT, REQUIRED, D(vocab), 1, VOCAB_MAX, NULL},
};

static const struct field experts_fields[] = {
    {"num_experts|num_local_experts", INT, REQUIRED, D(experts), 0, 1024, NULL},
};

static const struct field mixture_fields[] = {
    {"num_experts_per_tok", INT, REQUIRED, D(top_k), 1, 1024, NULL},
    {"moe_intermediate_size", INT, REQUIRED, D(expert_intermediate), 1, SIZE_MAX_, NULL},
    {"norm_topk_prob", BOOL, REQUIRED, D(norm_topk), 0, 0, NULL},
    {"decoder_sparse_step", INT, OPTIONAL, D(sparse_step), 1, LAYERS_MAX, NULL},
};

static const struct field shared_fields[] = {
    {"shared_expert_intermediate_size", INT, REQUIRED, D(shared_intermediate), 0, SIZE_MAX_, NULL},
};

static const struct field window_fields[] = {
    {"sliding_window", INT, REQUIRED, D(window), 1, POSITIONS_MAX, NULL},
};

#define A(member) offsetof(struct audio_config, member)
static const struct field audio_fields[] = {
    {"num_mel_bins", INT, REQUIRED, A(mel_bins), 8, 1024, NULL},
    {"downsample_hidden_size", INT, REQUIRED, A(channels), 1, 8192, NULL},
    {"d_model", INT, REQUIRED, A(d_model), 4, SIZE_MAX_, NULL},
    {"encoder_layers", INT, REQUIRED, A(layers), 1, LAYERS_MAX, NULL},
    {"encoder_attention_heads", INT, REQUIRED, A(heads), 1, 1024, NULL},
    {"encoder_ffn_dim", INT, REQUIRED, A(ffn), 1, 4 * SIZE_MAX_, NULL},
    {"output_dim", INT, REQUIRED, A(output), 1, SIZE_MAX_, NULL},
    {"n_window", INT, REQUIRED, A(chunk), 1, 1000, NULL},
    {"n_window_infer", INT, REQUIRED, A(window_chunks), 2, 100000, NULL},
    {"max_source_positions", INT, REQUIRED, A(max_source_positions), 1, POSITIONS_MAX, NULL},
    {"activation_function", TEXT_IS, OPTIONAL, 0, 0, 0, "gelu"},
    {"scale_embedding", MUST_BE_FALSE, OPTIONAL, 0, 0, 0, NULL},
};

#define T(member) offsetof(struct talker_config, member)
#define ID(key, member)                                                                            \
    {                                                                                              \
        key, INT, REQUIRED, T(member), 0, VOCAB_MAX - 1, NULL                                      \
    }
static const struct field talker_fields[] = {
    {"num_code_groups", INT, REQUIRED, T(groups), 2, CODE_GROUPS_MAX, NULL},
    {"thinker_hidden_size", INT, REQUIRED, T(thinker_hidden), 1, SIZE_MAX_, NULL},
    {"text_config.intermediate_size", INT, REQUIRED, T(projection), 1, 4 * SIZE_MAX_, NULL},
    {"accept_hidden_layer", INT, REQUIRED, T(accept_layer), 0, LAYERS_MAX, NULL},
    ID("codec_pad_id", codec_pad),
    ID("codec_bos_id", codec_bos),
    ID("codec_eos_token_id", codec_eos),
    ID("codec_nothink_id", codec_nothink),
    ID("codec_think_bos_id", codec_think_bos),
    ID("codec_think_eos_id", codec_think_eos),
};
#undef ID

#define C(member) offsetof(struct code2wav_config, member)
static const struct field code2wav_fields[] = {
    {"codebook_size", INT, REQUIRED, C(codebook), 1, 1 << 20, NULL},
    {"num_quantizers", INT, REQUIRED, C(groups), 2, CODE_GROUPS_MAX, NULL},
    {"decoder_dim", INT, REQUIRED, C(decoder_dim), 2, SIZE_MAX_, NULL},
};

#define K(member) offsetof(struct token_ids, member)
#define ID(key, member)                                                                            \
    {                                                                                              \
        key, INT, REQUIRED, K(member), 0, VOCAB_MAX - 1, NULL                                      \
    }
static const struct field token_fields[] = {
    ID("im_start_token_id", im_start),
    ID("im_end_token_id", im_end),
    ID("system_token_id", system),
    ID("user_token_id", user),
    ID("assistant_token_id", assistant),
    ID("thinker_config.audio_start_token_id", audio_start),
    ID("thinker_config.audio_token_id", audio_pad),
    ID("thinker_config.audio_end_token_id", audio_end),
    ID("tts_pad_token_id", tts_pad),
    ID("tts_bos_token_id", tts_bos),
    ID("tts_eos_token_id", tts_eos),
};
#undef ID

static const struct field top_fields[] = {
    {"model_type", TEXT_IS, REQUIRED, 0, 0, 0, "qwen3_omni_moe"},
};

#define G(member) offsetof(struct generation_config, member)
static const struct field generation_fields[] = {
    {"talker_max_new_tokens", INT, OPTIONAL, G(talker_max_frames), 1, 1 << 20, NULL},
    {"talker_temperature", FLOAT, OPTIONAL, G(talker_temperature), 0, 100, NULL},
    {"talker_top_k", INT, OPTIONAL, G(talker_top_k), 0, VOCAB_MAX, NULL},
    {"talker_top_p", FLOAT, OPTIONAL, G(talker_top_p), 0, 1, NULL},
    {"talker_repetition_penalty", FLOAT, OPTIONAL, G(talker_repetition_penalty), 0.01, 100, NULL},
    {"temperature", FLOAT, OPTIONAL, G(temperature), 0, 100, NULL},
    {"top_k", INT, OPTIONAL, G(top_k), 0, VOCAB_MAX, NULL},
    {"top_p", FLOAT, OPTIONAL, G(top_p), 0, 1, NULL},
    {"repetition_penalty", FLOAT, OPTIONAL, G(repetition_penalty), 0.01, 100, NULL},
};

enum op { EQUAL, MULTIPLE, AT_MOST, BELOW };

struct relation { /* the value at `a` is EQUAL to, a MULTIPLE of ... the value at `b` */
    const char *a_name;
    size_t a;
    enum op op;
    const char *b_name;
    size_t b;
    bool speech;
};

#define O(member) offsetof(struct config, member)
#define THINKER   "thinker_config.text_config."
#define AUDIO     "thinker_config.audio_config."
#define TALKER    "talker_config.text_config."
#define PREDICTOR "talker_config.code_predictor_config."
#define C2W       "code2wav_config."
#define BELOW_VOCAB(key, member)                                                                   \
    {                                                                                              \
        key, O(tokens.member), BELOW, THINKER "vocab_size", O(thinker.vocab), false                \
    }
#define BELOW_CODEC(key, member)                                                                   \
    {                                                                                              \
        "talker_config." key, O(talker.member), BELOW, TALKER "vocab_size", O(talker.text.vocab),  \
            true                                                                                   \
    }

static const struct relation relations[] = {
    {THINKER "num_attention_heads", O(thinker.heads), MULTIPLE, THINKER "num_key_value_heads",
     O(thinker.kv_heads), false},
    {THINKER "num_experts_per_tok", O(thinker.top_k), AT_MOST, THINKER "num_experts",
     O(thinker.experts), false},
    {AUDIO "output_dim", O(audio.output), EQUAL, THINKER "hidden_size", O(thinker.hidden), false},
    {AUDIO "d_model", O(audio.d_model), MULTIPLE, AUDIO "encoder_attention_heads", O(audio.heads),
     false},
    BELOW_VOCAB("im_start_token_id", im_start),
    BELOW_VOCAB("im_end_token_id", im_end),
    BELOW_VOCAB("system_token_id", system),
    BELOW_VOCAB("user_token_id", user),
    BELOW_VOCAB("assistant_token_id", assistant),
    BELOW_VOCAB("thinker_config.audio_start_token_id", audio_start),
    BELOW_VOCAB("thinker_config.audio_token_id", audio_pad),
    BELOW_VOCAB("thinker_config.audio_end_token_id", audio_end),
    BELOW_VOCAB("tts_pad_token_id", tts_pad),
    BELOW_VOCAB("tts_bos_token_id", tts_bos),
    BELOW_VOCAB("tts_eos_token_id", tts_eos),
    {TALKER "num_attention_heads", O(talker.text.heads), MULTIPLE, TALKER "num_key_value_heads",
     O(talker.text.kv_heads), true},
    {TALKER "num_experts_per_tok", O(talker.text.top_k), AT_MOST, TALKER "num_experts",
     O(talker.text.experts), true},
    {PREDICTOR "num_attention_heads", O(talker.predictor.heads), MULTIPLE,
     PREDICTOR "num_key_value_heads", O(talker.predictor.kv_heads), true},
    {PREDICTOR "hidden_size", O(talker.predictor.hidden), EQUAL, TALKER "hidden_size",
     O(talker.text.hidden), true},
    {PREDICTOR "vocab_size", O(talker.predictor.vocab), AT_MOST, C2W "codebook_size",
     O(code2wav.codebook), true},
    {"talker_config.thinker_hidden_size", O(talker.thinker_hidden), EQUAL, THINKER "hidden_size",
     O(thinker.hidden), true},
    {"talker_config.accept_hidden_layer", O(talker.accept_layer), BELOW,
     THINKER "num_hidden_layers", O(thinker.layers), true},
    {C2W "num_quantizers", O(code2wav.groups), EQUAL, "talker_config.num_code_groups",
     O(talker.groups), true},
    {C2W "num_attention_heads", O(code2wav.transformer.heads), MULTIPLE, C2W "num_key_value_heads",
     O(code2wav.transformer.kv_heads), true},
    BELOW_CODEC("codec_pad_id", codec_pad),
    BELOW_CODEC("codec_bos_id", codec_bos),
    BELOW_CODEC("codec_eos_token_id", codec_eos),
    BELOW_CODEC("codec_nothink_id", codec_nothink),
    BELOW_CODEC("codec_think_bos_id", codec_think_bos),
    BELOW_CODEC("codec_think_eos_id", codec_think_eos),
};

static bool holds(enum op op, int a, int b)
{
    switch (op) {
    case EQUAL:
        return a == b;
    case MULTIPLE:
        return b > 0 && a % b == 0;
    case AT_MOST:
        return a <= b;
    default:
        return a < b;
    }
}

static void check_relations(struct reader *r, const struct config *c)
{
    static const char *const words[] = {"the same as", "a multiple of", "at most", "less than"};
    for (size_t i = 0; i < ARRAY_LEN(relations); i++) {
        const struct relation *rel = &relations[i];
        if (rel->speech && !c->has_speech)
            continue;
        int a = *(const int *)((const char *)c + rel->a),
            b = *(const int *)((const char *)c + rel->b);
        if (!holds(rel->op, a, b))
            r->err = problem_add(r->why, -EINVAL, "%s: %s: found %d, expected %s %s, which is %d",
                                 r->file, rel->a_name, a, words[rel->op], rel->b_name, b);
    }
}

/* mlp_only_layers: the numbers of dense layers among mixtures. */
static void read_dense_layers(struct reader *r, const char *base, struct decoder_config *c)
{
    json_t *list = json_object_get(section(r, base), "mlp_only_layers"), *v;
    char found[64];
    size_t i;
    if (!list || json_is_null(list))
        return;
    if (!json_is_array(list))
        complain(r, base, "mlp_only_layers", config_found_text(found, sizeof(found), list),
                 "an array");
    json_array_foreach(list, i, v)
    {
        json_int_t layer = json_integer_value(v);
        if (!json_is_integer(v) || layer < 0 || layer >= min_int(c->layers, 64)) {
            complain(r, base, "mlp_only_layers", config_found_text(found, sizeof(found), v),
                     "numbers of layers (below 64)");
            return;
        }
        c->dense_layers |= UINT64_C(1) << layer;
    }
}

/* Only the plain rotary embedding is implemented; for text and audio the three axes of the
 * released model's multi-axis kind coincide with it. */
static void check_rope_type(struct reader *r, const char *base)
{
    static const char *const keys[] = {"rope_parameters.rope_type", "rope_scaling.rope_type",
                                       "rope_scaling.type"};
    char found[64];
    for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
        json_t *v = at_path(section(r, base), keys[i], strlen(keys[i]));
        const char *type = json_string_value(v);
        if (!v || json_is_null(v) || (type && strcmp(type, "default") == 0) ||
            (type && strcmp(type, "mrope") == 0))
            continue;
        complain(r, base, keys[i], config_found_text(found, sizeof(found), v),
                 "\"default\" or \"mrope\"");
    }
}

/* What the four stacks have in common. A missing head_dim is hidden / heads, as in the reference.
 */
static void read_decoder(struct reader *r, const char *base, struct decoder_config *c)
{
    if (!json_is_object(section(r, base))) {
        char found[64];
        complain(r, "", base, config_found_text(found, sizeof(found), section(r, base)),
                 "an object");
        return;
    }
    c->sparse_step = 1;
    read_fields(r, base, decoder_fields, ARRAY_LEN(decoder_fields), c);
    check_rope_type(r, base);
    if (c->head_dim == 0 && c->heads > 0)
        c->head_dim = c->hidden / c->heads;
    if (c->head_dim % 2 != 0 || c->head_dim < 2)
        r->err = problem_add(r->why, -EINVAL, "%s: %s.head_dim: found %d, expected an even number",
                             r->file, base, c->head_dim);
}

static void read_mixture(struct reader *r, const char *base, struct decoder_config *c)
{
    read_fields(r, base, experts_fields, ARRAY_LEN(experts_fields), c);
    if (c->experts == 0)
        return;
    read_fields(r, base, mixture_fields, ARRAY_LEN(mixture_fields), c);
    read_dense_layers(r, base, c);
}

static void read_audio(struct reader *r, struct audio_config *c)
{
    const char *base = "thinker_config.audio_config";
    read_fields(r, base, audio_fields, ARRAY_LEN(audio_fields), c);
    if (r->err < 0)
        return;
    c->chunk *= 2; /* n_window is half a chunk */
    if (c->window_chunks < c->chunk || (c->chunk + 7) / 8 > c->max_source_positions)
        r->err =
            problem_add(r->why, -EINVAL,
                        "%s: %s.n_window: found %d, expected at most half of n_window_infer "
                        "(%d) and 4 max_source_positions (%d)",
                        r->file, base, c->chunk / 2, c->window_chunks, c->max_source_positions);
    c->window_chunks /= c->chunk;
    if (c->d_model % 2 != 0)
        r->err = problem_add(r->why, -EINVAL, "%s: %s.d_model: found %d, expected an even number",
                             r->file, base, c->d_model);
}

static void read_speakers(struct reader *r, struct talker_config *c)
{
    json_t *all = section(r, "talker_config.speaker_id"), *v;
    const char *name;
    char found[64];
    if (json_object_size(all) < 1 || json_object_size(all) > SPEAKERS_MAX) {
        complain(r, "talker_config", "speaker_id", config_found_text(found, sizeof(found), all),
                 "an object with 1 to 64 speakers");
        return;
    }
    json_object_foreach(all, name, v)
    {
        struct speaker *s = &c->speakers[c->n_speakers];
        json_int_t id = json_integer_value(v);
        if (!*name || strlen(name) >= sizeof(s->name) || !json_is_integer(v) || id < 0 ||
            id >= c->text.vocab) {
            complain(r, "talker_config", "speaker_id", config_found_text(found, sizeof(found), v),
                     "names of at most 31 bytes with ids below the Talker's vocab_size");
            return;
        }
        for (size_t i = 0; name[i]; i++)
            s->name[i] = name[i] >= 'A' && name[i] <= 'Z' ? (char)(name[i] + 32) : name[i];
        s->id = (int32_t)id;
        c->n_speakers++;
    }
}

static void read_talker(struct reader *r, struct talker_config *c)
{
    const char *text = "talker_config.text_config";
    const char *predictor = "talker_config.code_predictor_config";
    read_fields(r, "talker_config", talker_fields, ARRAY_LEN(talker_fields), c);
    read_decoder(r, text, &c->text);
    read_fields(r, text, vocab_fields, ARRAY_LEN(vocab_fields), &c->text);
    read_mixture(r, text, &c->text);
    read_fields(r, text, shared_fields, ARRAY_LEN(shared_fields), &c->text);
    /* The reference makes every Talker layer a mixture, whatever these two keys say. */
    c->text.sparse_step = 1;
    c->text.dense_layers = 0;
    read_decoder(r, predictor, &c->predictor);
    read_fields(r, predictor, vocab_fields, ARRAY_LEN(vocab_fields), &c->predictor);
    read_speakers(r, c);
    struct talker_config twice = {0};
    read_fields(r, predictor, talker_fields, 1, &twice); /* num_code_groups */
    if (twice.groups != c->groups)
        r->err = problem_add(r->why, -EINVAL,
                             "%s: %s.num_code_groups: found %d, expected the same as "
                             "talker_config.num_code_groups, which is %d",
                             r->file, predictor, twice.groups, c->groups);
}

/* A short list of upsampling factors; multiplies `product` by them. */
static void read_factors(struct reader *r, const char *key, int *out, int *n, int *product)
{
    json_t *list = json_object_get(section(r, "code2wav_config"), key), *v;
    char found[64];
    size_t i;
    if (!json_is_array(list) || json_array_size(list) < 1 || json_array_size(list) > UPSAMPLE_MAX) {
        complain(r, "code2wav_config", key, config_found_text(found, sizeof(found), list),
                 "an array of 1 to 8 integers from 1 to 64");
        return;
    }
    json_array_foreach(list, i, v)
    {
        json_int_t x = json_integer_value(v);
        if (!json_is_integer(v) || x < 1 || x > 64 || *product * x > SIZE_MAX_) {
            complain(r, "code2wav_config", key, config_found_text(found, sizeof(found), v),
                     "integers from 1 to 64 with a product of at most 65536");
            return;
        }
        out[i] = (int)x;
        *product *= (int)x;
    }
    *n = (int)json_array_size(list);
}

static void read_code2wav(struct reader *r, struct code2wav_config *c)
{
    const char *base = "code2wav_config";
    read_decoder(r, base, &c->transformer);
    read_fields(r, base, window_fields, ARRAY_LEN(window_fields), &c->transformer);
    read_fields(r, base, code2wav_fields, ARRAY_LEN(code2wav_fields), c);
    c->frame_samples = 1;
    read_factors(r, "upsampling_ratios", c->ratios, &c->n_ratios, &c->frame_samples);
    read_factors(r, "upsample_rates", c->rates, &c->n_rates, &c->frame_samples);
    if (c->decoder_dim >> c->n_rates < 1)
        r->err = problem_add(r->why, -EINVAL,
                             "%s: %s.decoder_dim: found %d, expected at least %d, because each of "
                             "the %d upsample_rates halves it",
                             r->file, base, c->decoder_dim, 1 << c->n_rates, c->n_rates);
}

/* The Talker's draws are confined to the ids below vocab - 1024 (and the end), which are codes. */
static void check_codes(struct reader *r, const struct config *c)
{
    int codes = c->talker.text.vocab - 1024;
    if (c->has_speech && (codes < 1 || codes > c->code2wav.codebook))
        r->err = problem_add(r->why, -EINVAL,
                             "%s: " TALKER "vocab_size: found %d, expected 1024 special ids and "
                             "from 1 to " C2W "codebook_size codes, which is %d",
                             r->file, c->talker.text.vocab, c->code2wav.codebook);
}

static int open_text(struct reader *r, const char *text, size_t len)
{
    json_error_t e;
    int err = json_text_parse(&r->root, text, len, r->file, &e, r->why);
    if (err == -EINVAL)
        problem_add(r->why, err, "%s: line %d: %s, expected a JSON object", r->file, e.line,
                    e.text);
    if (err < 0)
        return err;
    if (!json_is_object(r->root))
        return problem_add(r->why, -EINVAL, "%s: found %s, expected a JSON object", r->file,
                           json_is_array(r->root) ? "an array" : "something else");
    return 0;
}

static bool speech_sections(const struct reader *r)
{
    return !json_is_false(section(r, "enable_audio_output")) &&
           json_is_object(section(r, "talker_config")) &&
           json_is_object(section(r, "code2wav_config"));
}

int config_parse(struct config *c, const char *text, size_t len, const char *name,
                 struct problems *why)
{
    struct reader r = {.file = name, .why = why};
    *c = (struct config){0};
    r.err = open_text(&r, text, len);
    if (r.err < 0)
        goto out;
    read_fields(&r, "", top_fields, ARRAY_LEN(top_fields), c);
    if (config_parse_quant(&c->quant, r.root, name, why) < 0)
        r.err = -EINVAL;
    if (r.err < 0) /* another model, or a form of this one that would only give followers */
        goto out;
    read_fields(&r, "", token_fields, ARRAY_LEN(token_fields), &c->tokens);
    read_decoder(&r, "thinker_config.text_config", &c->thinker);
    read_fields(&r, "thinker_config.text_config", vocab_fields, ARRAY_LEN(vocab_fields),
                &c->thinker);
    read_mixture(&r, "thinker_config.text_config", &c->thinker);
    read_audio(&r, &c->audio);
    c->has_speech = speech_sections(&r);
    if (c->has_speech) {
        read_talker(&r, &c->talker);
        read_code2wav(&r, &c->code2wav);
    }
    if (r.err == 0) {
        check_relations(&r, c);
        check_codes(&r, c);
    }
    (void)config_parse_generation(c, NULL, 0, name, why);
out:
    json_decref(r.root);
    return r.err;
}

int config_parse_generation(struct config *c, const char *text, size_t len, const char *name,
                            struct problems *why)
{
    struct generation_config *g = &c->generation;
    struct reader r = {.file = name, .why = why};
    *g = (struct generation_config){.talker_max_frames = 4096,
                                    .talker_temperature = 0.9f,
                                    .talker_top_p = 1,
                                    .talker_repetition_penalty = 1.05f,
                                    .talker_top_k = 50,
                                    .predictor_temperature = 1,
                                    .predictor_top_p = 0.8f,
                                    .predictor_top_k = 50,
                                    .temperature = 1,
                                    .top_p = 1,
                                    .repetition_penalty = 1};
    if (len > 0) {
        r.err = open_text(&r, text, len);
        if (r.err == 0)
            read_fields(&r, "", generation_fields, ARRAY_LEN(generation_fields), g);
    }
    if (!json_is_true(json_object_get(r.root, "do_sample"))) /* the reference's switch */
        g->temperature = 0;
    json_decref(r.root);
    return r.err;
}

bool decoder_is_sparse(const struct decoder_config *c, int layer)
{
    if (c->experts == 0 || (layer + 1) % c->sparse_step != 0)
        return false;
    return layer >= 64 || !(c->dense_layers >> layer & 1);
}
