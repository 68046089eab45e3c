/* tests/support/tiny.c - making and writing small checkpoints; see tiny.h. */
#include "tests/support/tiny.h"

#undef NDEBUG
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/util.h"
#include "model/bind.h"

/* The shape of the released configuration, with sizes that differ from each other so that a
 * transposed or exchanged tensor cannot pass. */
static const char tiny_config[] =
    "{'model_type': 'qwen3_omni_moe', 'enable_audio_output': true,"
    " 'im_start_token_id': 40, 'im_end_token_id': 41, 'system_token_id': 1, 'user_token_id': 2,"
    " 'assistant_token_id': 3, 'tts_pad_token_id': 42, 'tts_bos_token_id': 43,"
    " 'tts_eos_token_id': 44,"
    " 'thinker_config': {'audio_start_token_id': 45, 'audio_end_token_id': 46,"
    "  'audio_token_id': 47, 'tie_word_embeddings': false,"
    "  'audio_config': {'num_mel_bins': 20, 'downsample_hidden_size': 5, 'd_model': 12,"
    "   'encoder_layers': 2, 'encoder_attention_heads': 3, 'encoder_ffn_dim': 14,"
    "   'output_dim': 16, 'n_window': 9, 'n_window_infer': 40, 'max_source_positions': 50,"
    "   'activation_function': 'gelu', 'scale_embedding': false},"
    "  'text_config': {'vocab_size': 50, 'hidden_size': 16, 'num_hidden_layers': 3,"
    "   'num_attention_heads': 4, 'num_key_value_heads': 2, 'head_dim': 6,"
    "   'intermediate_size': 22, 'max_position_embeddings': 128, 'rms_norm_eps': 1e-06,"
    "   'rope_parameters': {'rope_theta': 1000000.0, 'rope_type': 'default'},"
    "   'hidden_act': 'silu', 'attention_bias': false, 'num_experts': 5,"
    "   'num_experts_per_tok': 2, 'moe_intermediate_size': 10, 'norm_topk_prob': true,"
    "   'decoder_sparse_step': 1, 'mlp_only_layers': [1]}},"
    " 'talker_config': {'num_code_groups': 3, 'thinker_hidden_size': 16,"
    "  'accept_hidden_layer': 2, 'codec_pad_id': 1040, 'codec_bos_id': 1041,"
    "  'codec_eos_token_id': 1042, 'codec_nothink_id': 1043, 'codec_think_bos_id': 1044,"
    "  'codec_think_eos_id': 1045, 'speaker_id': {'Ethan': 1046, 'chelsie': 1047},"
    "  'text_config': {'vocab_size': 1048, 'hidden_size': 14, 'num_hidden_layers': 2,"
    "   'num_attention_heads': 3, 'num_key_value_heads': 1, 'head_dim': 4,"
    "   'intermediate_size': 18, 'max_position_embeddings': 128, 'rms_norm_eps': 1e-06,"
    "   'rope_theta': 1000000.0, 'rope_scaling': {'type': 'default'}, 'num_local_experts': 4,"
    "   'num_experts_per_tok': 3, 'moe_intermediate_size': 6, 'norm_topk_prob': true,"
    "   'decoder_sparse_step': 1, 'shared_expert_intermediate_size': 8},"
    "  'code_predictor_config': {'vocab_size': 24, 'hidden_size': 14, 'num_hidden_layers': 1,"
    "   'num_attention_heads': 2, 'num_key_value_heads': 1, 'head_dim': 8,"
    "   'intermediate_size': 20, 'max_position_embeddings': 64, 'rms_norm_eps': 1e-06,"
    "   'rope_theta': 1000000.0, 'num_code_groups': 3}},"
    " 'code2wav_config': {'codebook_size': 24, 'num_quantizers': 3, 'hidden_size': 16,"
    "  'num_hidden_layers': 2, 'num_attention_heads': 4, 'num_key_value_heads': 4,"
    "  'intermediate_size': 26, 'sliding_window': 7, 'max_position_embeddings': 100,"
    "  'rms_norm_eps': 1e-05, 'rope_theta': 10000, 'decoder_dim': 12, 'upsample_rates': [3, 2],"
    "  'upsampling_ratios': [2]}}";

static json_t *tiny_config_json(void)
{
    char *text = strdup(tiny_config);
    for (char *p = text; *p; p++)
        if (*p == '\'')
            *p = '"';
    json_t *root = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
    free(text);
    assert(root);
    return root;
}

/* A source that answers every question and remembers it. */
struct recorder {
    struct source source;
    struct tiny *tiny;
    enum st_type type;
};

static int record(struct source *s, const struct tensor_want *want, struct tensor_got *got,
                  struct problems *why)
{
    struct recorder *r = (struct recorder *)s;
    struct tiny *t = r->tiny;
    (void)why;
    assert(grow_array(&t->tensors, &t->cap, t->n + 1, sizeof(*t->tensors)) == 0);
    struct tiny_tensor *x = &t->tensors[t->n];
    *x = (struct tiny_tensor){.name = strdup(want->name), .ndim = want->ndim, .count = 1};
    for (int i = 0; i < want->ndim; i++) {
        x->shape[i] = want->shape[i];
        x->count *= want->shape[i];
    }
    static const enum st_type turn[] = {ST_BF16, ST_F32, ST_F16};
    x->type = r->type == ST_TYPE_COUNT ? turn[t->n % 3] : r->type;
    x->values = malloc(x->count * sizeof(float));
    static struct random_table table;
    random_table_init(&table, DT_F32, want->mean, want->deviation);
    random_fill(&table, t->n, 0, x->count, x->values);
    t->n++;
    *got = (struct tensor_got){.type = DT_F32};
    return 0;
}

static bool record_has(const struct source *s, const char *name)
{
    (void)s;
    (void)name;
    return false;
}

void tiny_init_config(struct tiny *t, enum st_type type, json_t *config)
{
    struct problems why = {0};
    struct model m = {.speech = true};
    struct recorder r = {{record, record_has}, t, type};
    struct binder b = {.source = &r.source, .why = &why};
    *t = (struct tiny){.config = config};
    char *text = json_dumps(config, 0);
    if (config_parse(&m.config, text, strlen(text), "config.json", &why) < 0 ||
        bind_model(&b, &m) < 0) {
        fprintf(stderr, "tiny: %s\n", why.n ? why.text[0] : "?");
        abort();
    }
    free(text);
    binder_free_pieces(&b);
    for (size_t i = 0; i < b.n_blocks; i++)
        free(b.blocks[i]);
    free(b.blocks);
}

void tiny_init(struct tiny *t, enum st_type type)
{
    tiny_init_config(t, type, tiny_config_json());
}

struct tiny_tensor *tiny_find(struct tiny *t, const char *name)
{
    for (size_t i = 0; i < t->n; i++)
        if (strcmp(t->tensors[i].name, name) == 0)
            return &t->tensors[i];
    return NULL;
}

static void drop(struct tiny *t, struct tiny_tensor *x)
{
    free(x->name);
    free(x->values);
    memmove(x, x + 1, (size_t)(t->tensors + t->n - (x + 1)) * sizeof(*x));
    t->n--;
}

void tiny_drop(struct tiny *t, const char *name)
{
    struct tiny_tensor *x = tiny_find(t, name);
    assert(x);
    drop(t, x);
}

/* Moves the values of one expert's matrix into the fused tensor. */
static void fuse_one(struct tiny *t, const char *prefix, int expert, const char *matrix,
                     struct tiny_tensor *into, size_t at)
{
    char name[160];
    snprintf(name, sizeof(name), "%s.experts.%d.%s.weight", prefix, expert, matrix);
    struct tiny_tensor *x = tiny_find(t, name);
    assert(x && at + x->count <= into->count);
    memcpy(into->values + at, x->values, x->count * sizeof(float));
}

static void add(struct tiny *t, const char *prefix, const char *name, enum st_type type,
                const size_t shape[3], struct tiny_tensor *x)
{
    char full[160];
    snprintf(full, sizeof(full), "%s.experts.%s", prefix, name);
    *x = (struct tiny_tensor){.name = strdup(full),
                              .ndim = 3,
                              .shape = {shape[0], shape[1], shape[2]},
                              .count = shape[0] * shape[1] * shape[2],
                              .type = type};
    x->values = malloc(x->count * sizeof(float));
    (void)t;
}

static void fuse_layer(struct tiny *t, const char *prefix)
{
    char name[160];
    snprintf(name, sizeof(name), "%s.experts.0.gate_proj.weight", prefix);
    struct tiny_tensor *first = tiny_find(t, name), fused[2];
    if (!first)
        return;
    size_t inner = first->shape[0], hidden = first->shape[1], one = inner * hidden, n = 0;
    enum st_type type = first->type;
    do
        snprintf(name, sizeof(name), "%s.experts.%zu.gate_proj.weight", prefix, ++n);
    while (tiny_find(t, name));
    add(t, prefix, "gate_up_proj", type, (const size_t[]){n, 2 * inner, hidden}, &fused[0]);
    add(t, prefix, "down_proj", type, (const size_t[]){n, hidden, inner}, &fused[1]);
    for (size_t e = 0; e < n; e++) {
        fuse_one(t, prefix, (int)e, "gate_proj", &fused[0], 2 * e * one);
        fuse_one(t, prefix, (int)e, "up_proj", &fused[0], (2 * e + 1) * one);
        fuse_one(t, prefix, (int)e, "down_proj", &fused[1], e * one);
    }
    snprintf(name, sizeof(name), "%s.experts.", prefix);
    for (size_t i = t->n; i-- > 0;)
        if (strncmp(t->tensors[i].name, name, strlen(name)) == 0)
            drop(t, &t->tensors[i]);
    assert(grow_array(&t->tensors, &t->cap, t->n + 2, sizeof(*t->tensors)) == 0);
    t->tensors[t->n++] = fused[0];
    t->tensors[t->n++] = fused[1];
}

static void fuse(struct tiny *t)
{
    char prefix[64];
    for (int layer = 0; layer < 8; layer++) {
        snprintf(prefix, sizeof(prefix), "thinker.model.layers.%d.mlp", layer);
        fuse_layer(t, prefix);
        snprintf(prefix, sizeof(prefix), "talker.model.layers.%d.mlp", layer);
        fuse_layer(t, prefix);
    }
}

/* The values as the file has them: in the tensor's type, or zeros in a type of another size. */
static void *encode(const struct tiny_tensor *x)
{
    enum dtype type;
    char *data = calloc(x->count + 1, st_type_size(x->type));
    if (st_type_weight(x->type, &type))
        for (size_t i = 0; i < x->count; i++)
            dtype_write(type, data, i, x->values[i]);
    return data;
}

static void write_shard(const struct tiny *t, const char *file, size_t first, size_t n)
{
    struct problems why = {0};
    struct st_entry *e = calloc(n + 1, sizeof(*e));
    char path[128];
    for (size_t i = 0; i < n; i++) {
        const struct tiny_tensor *x = &t->tensors[first + i];
        e[i] = (struct st_entry){.name = x->name, .type = x->type, .ndim = x->ndim};
        memcpy(e[i].shape, x->shape, sizeof(x->shape));
        e[i].data = encode(x);
    }
    tiny_path(t, file, path);
    if (safetensors_write(path, e, n, &why) < 0) {
        fprintf(stderr, "tiny: %s\n", why.n ? why.text[0] : "?");
        abort();
    }
    for (size_t i = 0; i < n; i++)
        free((void *)e[i].data);
    free(e);
}

static void write_weights(struct tiny *t, int shards)
{
    json_t *map = json_object();
    size_t first = 0;
    char file[64];
    for (int s = 0; s < shards; s++) {
        size_t end = t->n * (size_t)(s + 1) / (size_t)shards;
        snprintf(file, sizeof(file), "model-%05d-of-%05d.safetensors", s + 1, shards);
        write_shard(t, file, first, end - first);
        for (; first < end; first++)
            json_object_set_new(map, t->tensors[first].name, json_string(file));
    }
    json_t *index = json_pack("{s:{s:i}, s:o}", "metadata", "total_size", 0, "weight_map", map);
    char *text = json_dumps(index, JSON_INDENT(1));
    tiny_put(t, "model.safetensors.index.json", text, strlen(text));
    free(text);
    json_decref(index);
}

/* A space more in the header moves the data by a byte. */
static void misalign(struct tiny *t, int shards, int bytes)
{
    char file[64];
    for (int i = 0; i < bytes; i++)
        for (int s = 0; s < (shards ? shards : 1); s++) {
            snprintf(file, sizeof(file),
                     shards ? "model-%05d-of-%05d.safetensors" : "model.safetensors", s + 1,
                     shards);
            tiny_replace(t, file, "{", "{ ");
        }
}

void tiny_write(struct tiny *t, const struct tiny_layout *layout)
{
    snprintf(t->dir, sizeof(t->dir), "/tmp/parley-tiny-XXXXXX");
    assert(mkdtemp(t->dir));
    char *text = json_dumps(t->config, JSON_INDENT(1));
    tiny_put(t, "config.json", text, strlen(text));
    free(text);
    if (layout->fused)
        fuse(t);
    if (layout->shards == 0)
        write_shard(t, "model.safetensors", 0, t->n);
    else
        write_weights(t, layout->shards);
    misalign(t, layout->shards, layout->misalign);
}

int tiny_open(const struct tiny *t, struct model **m, bool text_only, struct problems *why)
{
    const struct model_opts o = {.dir = t->dir, .text_only = text_only};
    int err = model_open(m, &o, why);
    while (err == 0 && (err = model_load(*m, NULL, why)) == 1)
        err = 0;
    return err;
}

bool problems_mention(const struct problems *why, const char *const words[4])
{
    for (size_t i = 0; i < why->n; i++) {
        bool all = true;
        for (int w = 0; w < 4 && words[w]; w++)
            all = all && strstr(why->text[i], words[w]);
        if (all)
            return true;
    }
    return false;
}
