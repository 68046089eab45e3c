/*
 * tests/unit/test_checkpoint.c - checkpoints on disk: every layout gives the same model, every
 * defect is refused by name, text-only needs nothing of speech, synthetic weights are reproducible.
 */
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/util.h"
#include "daemon/commands.h"
#include "tests/support/flatten.h"
#include "tests/support/tiny.h"

static void show(const struct problems *why)
{
    for (size_t i = 0; i < why->n; i++)
        print_message("  %s\n", why->text[i]);
}

/* What a tensor's value becomes on its way: rounding to its type, then the snakes' functions. */
static float arrived(const struct tiny_tensor *x, size_t i)
{
    enum dtype type;
    uint32_t stored;
    size_t len = strlen(x->name);
    st_type_weight(x->type, &type);
    dtype_write(type, &stored, 0, x->values[i]);
    float v = dtype_read(type, &stored, 0);
    if (len > 6 && strcmp(x->name + len - 6, ".alpha") == 0)
        return expf(v);
    if (len > 5 && strcmp(x->name + len - 5, ".beta") == 0)
        return 1 / (expf(v) + 1e-9f);
    return v;
}

static void assert_values_arrived(const struct flat *f, const struct tiny *t)
{
    size_t at = 0;
    for (size_t k = 0; k < t->n; k++)
        for (size_t i = 0; i < t->tensors[k].count; i++, at++)
            if (f->values[at] != arrived(&t->tensors[k], i)) {
                print_message("%s, element %zu\n", t->tensors[k].name, i);
                fail();
            }
    assert_int_equal(at, f->n);
}

static void load_layout(struct flat *f, enum st_type type, const struct tiny_layout *layout)
{
    struct problems why = {0};
    struct model *m = NULL;
    struct tiny t;
    tiny_init(&t, type);
    tiny_write(&t, layout);
    int err = tiny_open(&t, &m, false, &why);
    show(&why);
    assert_int_equal(err, 0);
    flatten(f, m);
    if (!layout->fused)
        assert_values_arrived(f, &t);
    model_close(m);
    tiny_free(&t);
}

/* One by one, in one file: the layout whose values are compared with what was written. The others
 * are compared with it. */
static void all_layouts_give_the_same_model(void **state)
{
    (void)state;
    static const enum st_type types[] = {ST_F32, ST_BF16, ST_F16, ST_TYPE_COUNT};
    static const struct tiny_layout layouts[] = {
        {.shards = 3},   {.fused = true}, {.fused = true, .shards = 4},
        {.misalign = 1}, {.misalign = 2}, {.fused = true, .shards = 2, .misalign = 3},
    };
    for (size_t k = 0; k < ARRAY_LEN(types); k++) {
        struct flat plain, other;
        load_layout(&plain, types[k], &(struct tiny_layout){0});
        for (size_t i = 0; i < ARRAY_LEN(layouts); i++) {
            /* Experts of different types cannot be fused. */
            if (types[k] == ST_TYPE_COUNT && layouts[i].fused)
                continue;
            load_layout(&other, types[k], &layouts[i]);
            assert_int_equal(plain.n, other.n);
            assert_memory_equal(plain.values, other.values, plain.n * sizeof(float));
            free(other.values);
        }
        free(plain.values);
    }
}

enum act {
    SET,     /* `where` a JSON file, `what` a path, `to` a JSON value or NULL = remove */
    REPLACE, /* `what` by `to` in the text (or header) of `where` */
    DROP,    /* tensor `what` is not written */
    RESHAPE, /* tensor `what`: its dimensions in reverse order */
    RETYPE,  /* tensor `what` is written as type `to` */
    REMOVE,  /* file `where` */
    CUT,     /* file `where` to atoi(to) bytes, or if negative by so many */
    PUT,     /* file `where` holds `to` */
};

#define SHARD1 "model-00001-of-00002.safetensors"
#define SHARD2 "model-00002-of-00002.safetensors"
#define INDEX  "model.safetensors.index.json"
#define SINGLE "model.safetensors"

static const struct refusal {
    enum act act;
    struct tiny_layout layout;
    const char *where, *what, *to;
    const char *words[4];
} refusals[] = {
    {REMOVE, {0}, "config.json", 0, 0, {"config.json", "found no readable file", "expected the"}},
    {PUT, {0}, "config.json", 0, "{", {"config.json", "line 1", "expected a JSON object"}},
    {SET,
     {0},
     "config.json",
     "thinker_config.text_config.num_hidden_layers",
     "4",
     {SINGLE, "tensor thinker.model.layers.3.self_attn.q_proj.weight", "found nothing",
      "[24, 16]"}},
    {SET,
     {0},
     "config.json",
     "thinker_config.text_config.intermediate_size",
     "23",
     {SINGLE, "layers.1.mlp.gate_proj.weight: shape", "found [22, 16]", "[23, 16] by config.json"}},
    {SET,
     {0},
     "config.json",
     "talker_config.text_config.moe_intermediate_size",
     "7",
     {SINGLE, "talker.model.layers.0.mlp.experts.0.gate_proj.weight: shape", "found [6, 14]",
      "expected [7, 14]"}},
    {SET,
     {.fused = true},
     "config.json",
     "talker_config.text_config.moe_intermediate_size",
     "7",
     {SINGLE, "talker.model.layers.0.mlp.experts.gate_up_proj: shape", "found [4, 12, 14]",
      "expected [4, 14, 14]"}},
    {SET,
     {0},
     "config.json",
     "thinker_config.audio_config.num_mel_bins",
     "30",
     {SINGLE, "thinker.audio_tower.conv_out.weight: shape", "found [12, 15]", "[12, 20]"}},
    {SET,
     {0},
     "config.json",
     "code2wav_config.upsample_rates",
     "[3, 3]",
     {SINGLE, "code2wav.decoder.2.block.1.conv.weight: shape", "found [6, 3, 4]", "[6, 3, 6]"}},
    {SET,
     {0},
     "config.json",
     "code2wav_config.codebook_size",
     "25",
     {SINGLE, "code2wav.code_embedding.weight: shape", "found [72, 16]", "expected [75, 16]"}},
    {SET,
     {0},
     "config.json",
     "talker_config.text_config.shared_expert_intermediate_size",
     "9",
     {SINGLE, "talker.model.layers.0.mlp.shared_expert.gate_proj.weight", "[8, 14]", "[9, 14]"}},
    {PUT,
     {0},
     "generation_config.json",
     0,
     "{\"talker_top_k\": -1}",
     {"generation_config.json", "talker_top_k", "found -1", "expected an integer"}},
    {PUT, {0}, "generation_config.json", 0, "", {"generation_config.json", "found nothing"}},

    {DROP,
     {0},
     0,
     "thinker.lm_head.weight",
     0,
     {SINGLE, "tensor thinker.lm_head.weight", "found nothing", "expected weights of [50, 16]"}},
    {DROP,
     {.shards = 2},
     0,
     "talker.model.norm.weight",
     0,
     {INDEX, "tensor talker.model.norm.weight", "found nothing", "[14]"}},
    {DROP,
     {0},
     0,
     "thinker.model.layers.2.mlp.experts.4.up_proj.weight",
     0,
     {SINGLE, "thinker.model.layers.2.mlp.experts.4.up_proj.weight", "found nothing", "[10, 16]"}},
    {DROP, {0}, 0, "code2wav.upsample.0.1.gamma", 0, {SINGLE, "gamma", "found nothing", "[16]"}},
    {DROP,
     {0},
     0,
     "talker.code_predictor.lm_head.1.weight",
     0,
     {SINGLE, "talker.code_predictor.lm_head.1.weight", "found nothing", "[24, 14]"}},
    {RESHAPE,
     {0},
     0,
     "thinker.model.layers.0.self_attn.k_proj.weight",
     0,
     {SINGLE, "k_proj.weight: shape", "found [16, 12]", "expected [12, 16]"}},
    {RESHAPE,
     {0},
     0,
     "code2wav.decoder.0.conv.weight",
     0,
     {SINGLE, "code2wav.decoder.0.conv.weight: shape", "found [7, 16, 12]", "[12, 16, 7]"}},
    {RESHAPE,
     {0},
     0,
     "thinker.audio_tower.conv2d1.weight",
     0,
     {SINGLE, "conv2d1.weight: shape", "found [3, 3, 1, 5]", "expected [5, 1, 3, 3]"}},
    {RETYPE,
     {0},
     0,
     "thinker.model.embed_tokens.weight",
     "I8",
     {SINGLE, "embed_tokens.weight: dtype", "found I8", "expected F32, BF16 or F16"}},
    {RETYPE,
     {0},
     0,
     "talker.model.norm.weight",
     "F64",
     {SINGLE, "talker.model.norm.weight: dtype", "found F64", "expected F32, BF16 or F16"}},
    {RETYPE,
     {.shards = 2},
     0,
     "code2wav.decoder.0.conv.bias",
     "F8_E4M3",
     {SHARD2, "code2wav.decoder.0.conv.bias: dtype", "found F8_E4M3", "expected F32"}},

    {REMOVE, {0}, SINGLE, 0, 0, {"found neither model.safetensors", "expected one of them"}},
    {REMOVE, {.shards = 2}, SHARD2, 0, 0, {SHARD2, "found no readable file", "expected"}},
    {REMOVE, {.shards = 2}, INDEX, 0, 0, {INDEX, "found neither", "expected one of them"}},
    {CUT, {0}, SINGLE, 0, "5", {SINGLE, "size", "found 5 bytes", "expected"}},
    {CUT,
     {0},
     SINGLE,
     0,
     "900",
     {SINGLE, "header length", "expected at most the 892", "truncated"}},
    {CUT, {0}, SINGLE, 0, "-1", {SINGLE, "data_offsets", "expected a range within", "truncated"}},
    {CUT, {.shards = 2}, SHARD1, 0, "-64", {SHARD1, "data_offsets", "found", "truncated"}},
    {PUT,
     {0},
     SINGLE,
     0,
     "\377\377\377\377\377\377\377\377{}",
     {SINGLE, "header length", "found 18446744073709551615", "expected at most"}},
    {REPLACE, {0}, SINGLE, "[50,16]", "[51,16]", {SINGLE, "data_offsets", "expected", "[51, 16]"}},
    {REPLACE, {0}, SINGLE, "[50,16]", "[-50,16]", {SINGLE, "shape", "found -50", "expected 0"}},
    {REPLACE,
     {0},
     SINGLE,
     "[50,16]",
     "[9223372036854775807,16]",
     {SINGLE, "shape", "found [9223372036854775807, 16]", "expected a size that fits"}},
    {REPLACE, {0}, SINGLE, "[50,16]", "50", {SINGLE, "shape", "found no array", "expected"}},
    {REPLACE, {0}, SINGLE, "[0,", "[1,", {SINGLE, "data_offsets", "found", "expected"}},
    {REPLACE, {0}, SINGLE, "\"BF16\"", "\"BF17\"", {SINGLE, "dtype", "found BF17", "expected F32"}},
    {REPLACE,
     {0},
     SINGLE,
     "{",
     "{\"thinker.lm_head.weight\":{},",
     {SINGLE, "header", "duplicate object key \"thinker.lm_head.weight\"",
      "expected a JSON object"}},
    {REPLACE,
     {0},
     SINGLE,
     "thinker.lm_head",
     "thinker.lm\377head",
     {SINGLE, "header", "unable to decode byte 0xff", "expected"}},
    {REPLACE,
     {0},
     SINGLE,
     "{\"format\":\"pt\"}",
     "[1]",
     {SINGLE, "__metadata__", "found", "expected"}},

    {PUT, {.shards = 2}, INDEX, 0, "{}", {INDEX, "weight_map", "found no object", "expected"}},
    {PUT,
     {.shards = 2},
     INDEX,
     0,
     "{\"weight_map\": {}}",
     {INDEX, "weight_map", "found an empty object", "expected"}},
    {PUT,
     {.shards = 2},
     INDEX,
     0,
     "{\"weight_map\": {\"a\": \"b\", \"a\": \"c\"}}",
     {INDEX, "line 1", "duplicate object key", "expected"}},
    {SET,
     {.shards = 2},
     INDEX,
     "weight_map.thinker.lm_head.weight",
     "\"../model.safetensors\"",
     {INDEX, "weight_map.thinker.lm_head.weight", "found ../model.safetensors", "expected the"}},
    {SET,
     {.shards = 2},
     INDEX,
     "weight_map.thinker.lm_head.weight",
     "7",
     {INDEX, "weight_map.thinker.lm_head.weight", "found no string", "expected the name"}},
    {SET,
     {.shards = 2},
     INDEX,
     "weight_map.thinker.lm_head.weight",
     "\"" SHARD2 "\"",
     {INDEX, "tensor thinker.lm_head.weight", "found nothing in " SHARD2, "expected it there"}},
    {SET,
     {.shards = 2},
     INDEX,
     "weight_map.thinker.lm_head.weight",
     "\"model-3.safetensors\"",
     {"model-3.safetensors", "found no readable file", "expected safetensors"}},
    {SET,
     {.shards = 2},
     INDEX,
     "weight_map.thinker.visual.x",
     "\"" SHARD1 "\"",
     {INDEX, "tensor thinker.visual.x", "found nothing in " SHARD1, "expected it there"}},
    {SET,
     {.shards = 2},
     INDEX,
     "weight_map.thinker.lm_head.weight",
     NULL,
     {INDEX, "tensor thinker.lm_head.weight", "found nothing", "expected weights of [50, 16]"}},
};

static void alter_tensor(struct tiny *t, const struct refusal *r)
{
    struct tiny_tensor *x = tiny_find(t, r->what);
    assert_non_null(x);
    if (r->act == DROP)
        tiny_drop(t, r->what);
    for (int i = 0; r->act == RESHAPE && i < x->ndim / 2; i++) {
        size_t first = x->shape[i];
        x->shape[i] = x->shape[x->ndim - 1 - i];
        x->shape[x->ndim - 1 - i] = first;
    }
    for (int i = 0; r->act == RETYPE && i < ST_TYPE_COUNT; i++)
        if (strcmp(st_type_name((enum st_type)i), r->to) == 0)
            x->type = (enum st_type)i;
}

static void alter_files(struct tiny *t, const struct refusal *r)
{
    size_t n;
    if (r->act == SET)
        tiny_set(t, r->where, r->what, r->to);
    else if (r->act == REPLACE)
        tiny_replace(t, r->where, r->what, r->to);
    else if (r->act == REMOVE)
        tiny_remove(t, r->where);
    else if (r->act == PUT)
        tiny_put(t, r->where, r->to, strlen(r->to));
    else if (r->act == CUT) {
        free(tiny_get(t, r->where, &n));
        long to = strtol(r->to, NULL, 10);
        tiny_truncate(t, r->where, to < 0 ? n - (size_t)-to : (size_t)to);
    }
}

static void refuses_defects(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(refusals); i++) {
        const struct refusal *r = &refusals[i];
        struct problems why = {0};
        struct model *m = NULL;
        struct tiny t;
        tiny_init(&t, ST_BF16);
        if (r->act == DROP || r->act == RESHAPE || r->act == RETYPE)
            alter_tensor(&t, r);
        tiny_write(&t, &r->layout);
        alter_files(&t, r);
        int err = tiny_open(&t, &m, false, &why);
        if (err != -EINVAL || m || !problems_mention(&why, r->words)) {
            print_message("row %zu: %d, expected ... %s ... %s\n", i, err, r->words[1],
                          r->words[2]);
            show(&why);
            fail();
        }
        problems_free(&why);
        tiny_free(&t);
    }
}

static void reports_several_defects(void **state)
{
    (void)state;
    struct problems why = {0};
    struct model *m = NULL;
    struct tiny t;
    tiny_init(&t, ST_F32);
    tiny_find(&t, "thinker.model.norm.weight")->type = ST_I32;
    tiny_drop(&t, "thinker.lm_head.weight");
    tiny_drop(&t, "code2wav.decoder.0.conv.bias");
    tiny_write(&t, &(struct tiny_layout){.shards = 2});
    assert_int_equal(tiny_open(&t, &m, false, &why), -EINVAL);
    assert_int_equal(why.n, 3);
    problems_free(&why);
    tiny_free(&t);
}

static bool is_speech(const char *name)
{
    return strncmp(name, "talker.", 7) == 0 || strncmp(name, "code2wav.", 9) == 0;
}

static void text_only_needs_no_speech_tensors(void **state)
{
    (void)state;
    struct problems why = {0};
    struct model *m = NULL;
    const struct plan_row *rows;
    struct tiny t;
    tiny_init(&t, ST_BF16);
    for (size_t i = t.n; i-- > 0;)
        if (is_speech(t.tensors[i].name))
            tiny_drop(&t, t.tensors[i].name);
    tiny_write(&t, &(struct tiny_layout){0});
    assert_int_equal(tiny_open(&t, &m, false, &why), -EINVAL);
    problems_free(&why);
    assert_int_equal(tiny_open(&t, &m, true, &why), 0);
    assert_false(m->speech);
    assert_null(m->talker.text.layers);
    assert_int_equal(model_plan(m, &rows), 2);
    model_close(m);
    tiny_free(&t);
}

static void text_only_needs_no_speech_shards(void **state)
{
    (void)state;
    struct problems why = {0};
    struct model *m = NULL;
    struct tiny t;
    tiny_init(&t, ST_BF16);
    tiny_write(&t, &(struct tiny_layout){.shards = 12});
    tiny_remove(&t, "model-00012-of-00012.safetensors");
    tiny_remove(&t, "model-00011-of-00012.safetensors");
    assert_int_equal(tiny_open(&t, &m, false, &why), -EINVAL);
    assert_int_equal(why.n, 2); /* one sentence per file, not per tensor */
    problems_free(&why);
    assert_int_equal(tiny_open(&t, &m, true, &why), 0);
    model_close(m);
    tiny_free(&t);
}

static void plan_adds_up(void **state)
{
    (void)state;
    struct problems why = {0};
    struct load_progress p = {0};
    const struct plan_row *rows;
    struct model *m = NULL;
    struct tiny t;
    size_t tensors = 0, parameters = 0, expected = 0, bytes = 0;
    int more;
    tiny_init(&t, ST_F16);
    for (size_t i = 0; i < t.n; i++)
        expected += t.tensors[i].count;
    tiny_write(&t, &(struct tiny_layout){0});
    const struct model_opts o = {.dir = t.dir};
    assert_int_equal(model_open(&m, &o, &why), 0);
    int n = model_plan(m, &rows);
    assert_int_equal(n, 5);
    for (int i = 0; i < n; i++) {
        tensors += rows[i].tensors;
        parameters += rows[i].parameters;
        bytes += rows[i].mapped;
        assert_int_equal(rows[i].types, 1u << DT_F16);
    }
    assert_int_equal(tensors, t.n);
    assert_int_equal(parameters, expected);
    assert_true(bytes < 2 * parameters); /* the vectors are owned */
    while ((more = model_load(m, &p, &why)) == 1)
        assert_true(p.done <= p.total && p.row < n);
    assert_int_equal(more, 0);
    assert_int_equal(p.done, p.total);
    assert_int_equal(m->kv_type, DT_F16);
    model_close(m);
    tiny_free(&t);
}

static void counts_vision_and_leaves_it(void **state)
{
    (void)state;
    struct problems why = {0};
    const struct plan_row *rows;
    struct model *m = NULL;
    struct tiny t;
    tiny_init(&t, ST_BF16);
    assert_int_equal(grow_array(&t.tensors, &t.cap, t.n + 1, sizeof(*t.tensors)), 0);
    t.tensors[t.n++] = (struct tiny_tensor){.name = strdup("thinker.visual.patch.weight"),
                                            .ndim = 1,
                                            .shape = {11},
                                            .count = 11,
                                            .values = calloc(11, sizeof(float)),
                                            .type = ST_I64}; /* not even a weight */
    tiny_write(&t, &(struct tiny_layout){0});
    assert_int_equal(tiny_open(&t, &m, false, &why), 0);
    assert_int_equal(model_plan(m, &rows), 6);
    assert_int_equal(rows[5].parameters, 11);
    assert_int_equal(rows[5].mapped + rows[5].owned, 0);
    model_close(m);
    tiny_free(&t);
}

/* Where the kernel can populate for us (5.14 and later; elsewhere this would be a SIGBUS). */
static void notices_a_file_that_shrinks(void **state)
{
    (void)state;
    struct problems why = {0};
    struct model *m = NULL;
    struct tiny t;
    char path[128];
    void *p = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(p != MAP_FAILED);
    int err = madvise(p, 4096, 22); /* MADV_POPULATE_READ */
    munmap(p, 4096);
    /* an emulator may answer yes to everything, even for memory that is not there */
    if (err < 0 || madvise(p, 4096, 22) == 0) {
        print_message("skip: this kernel cannot populate mappings\n");
        skip();
    }
    tiny_init(&t, ST_BF16);
    tiny_write(&t, &(struct tiny_layout){0});
    tiny_path(&t, "model.safetensors", path);
    const struct model_opts o = {.dir = t.dir};
    assert_int_equal(model_open(&m, &o, &why), 0);
    assert_int_equal(truncate(path, 0), 0);
    assert_int_equal(model_load(m, NULL, &why), -EIO);
    assert_int_equal(why.n, 1);
    problems_free(&why);
    model_close(m);
    tiny_free(&t);
}

static void open_synthetic(struct flat *f, const char *config, enum dtype type, uint64_t seed)
{
    struct problems why = {0};
    struct model *m = NULL;
    const struct model_opts o = {.synthetic = config, .synthetic_type = type, .seed = seed};
    assert_int_equal(model_open(&m, &o, &why), 0);
    while (model_load(m, NULL, &why) == 1)
        ;
    flatten(f, m);
    model_close(m);
}

static void synthetic_is_reproducible(void **state)
{
    (void)state;
    struct flat a, b, c, wide;
    struct tiny t;
    char path[128];
    double sum = 0;
    tiny_init(&t, ST_BF16);
    tiny_write(&t, &(struct tiny_layout){0});
    tiny_path(&t, "config.json", path);
    open_synthetic(&a, path, DT_BF16, 1);
    open_synthetic(&b, path, DT_BF16, 1);
    open_synthetic(&c, path, DT_BF16, 2);
    open_synthetic(&wide, path, DT_F32, 1);
    assert_int_equal(a.n, wide.n);
    assert_memory_equal(a.values, b.values, a.n * sizeof(float));
    assert_memory_not_equal(a.values, c.values, a.n * sizeof(float));
    for (size_t i = 0; i < a.n; i++)
        assert_true(fabsf(a.values[i] - wide.values[i]) <= fabsf(wide.values[i]) / 250 + 1e-9f);
    for (size_t i = 0; i < 800; i++) /* the embedding: deviation 1 / sqrt(16) */
        sum += wide.values[i] * wide.values[i] * 16;
    assert_true(sum > 600 && sum < 1000);
    free(a.values);
    free(b.values);
    free(c.values);
    free(wide.values);
    tiny_free(&t);
}

static void synthetic_size_must_be_possible(void **state)
{
    (void)state;
    struct problems why = {0};
    struct model *m = NULL;
    struct tiny t;
    char path[128];
    tiny_init(&t, ST_BF16);
    tiny_write(&t, &(struct tiny_layout){0});
    tiny_set(&t, "config.json", "thinker_config.text_config.vocab_size", "4000000");
    tiny_set(&t, "config.json", "thinker_config.text_config.head_dim", "1024");
    tiny_set(&t, "config.json", "thinker_config.text_config.intermediate_size", "262144");
    tiny_set(&t, "config.json", "thinker_config.text_config.hidden_size", "65536");
    tiny_set(&t, "config.json", "thinker_config.audio_config.output_dim", "65536");
    tiny_set(&t, "config.json", "talker_config.thinker_hidden_size", "65536");
    tiny_set(&t, "config.json", "thinker_config.text_config.moe_intermediate_size", "65536");
    tiny_set(&t, "config.json", "thinker_config.text_config.num_experts", "1024");
    tiny_set(&t, "config.json", "thinker_config.text_config.num_hidden_layers", "512");
    tiny_path(&t, "config.json", path);
    const struct model_opts o = {.synthetic = path, .synthetic_type = DT_F32, .text_only = true};
    assert_int_equal(model_open(&m, &o, &why), 0);
    assert_int_equal(model_load(m, NULL, &why), -ENOMEM);
    const char *const words[4] = {"bytes of memory for weights cannot be had"};
    assert_true(problems_mention(&why, words));
    problems_free(&why);
    model_close(m);
    tiny_free(&t);
}

static void computes_tables(void **state)
{
    (void)state;
    struct problems why = {0};
    struct model *m = NULL;
    struct tiny t;
    tiny_init(&t, ST_F32);
    tiny_write(&t, &(struct tiny_layout){0});
    assert_int_equal(tiny_open(&t, &m, false, &why), 0);
    assert_true(m->thinker.text.inv_freq[0] == 1);
    assert_true(m->thinker.text.inv_freq[2] == (float)pow(1e6, -4.0 / 6));
    assert_true(m->code2wav.transformer.inv_freq[1] == 0.01f);
    /* chunk 18 gives 3 tokens of 12: sin, then cos; the last frequency is 1 / 10000 */
    assert_true(m->audio.positions[0] == 0 && m->audio.positions[6] == 1);
    assert_true(m->audio.positions[2 * 12] == (float)sin(2));
    assert_true(fabs(m->audio.positions[2 * 12 + 5] - 2e-4) < 1e-10);
    model_close(m);
    tiny_free(&t);
}

static void opens_the_reference_checkpoints(void **state)
{
    (void)state;
    static const char *const shapes[] = {"awkward", "heads", "long"};
    for (size_t i = 0; i < ARRAY_LEN(shapes); i++) {
        struct problems why = {0};
        struct model *m = NULL;
        struct flat f;
        char dir[256];
        snprintf(dir, sizeof(dir), "%s/tests/golden/%s", SOURCE_DIR, shapes[i]);
        const struct model_opts o = {.dir = dir};
        int err = model_open(&m, &o, &why);
        show(&why);
        assert_int_equal(err, 0);
        while (model_load(m, NULL, &why) == 1)
            ;
        flatten(&f, m);
        for (size_t k = 0; k < f.n; k++)
            assert_true(isfinite(f.values[k]));
        free(f.values);
        model_close(m);
    }
}

/* What the command prints, as JSON. */
static json_t *inspect(char *dir, int *code)
{
    char *argv[] = {"inspect", "--json", dir, NULL}, path[64];
    snprintf(path, sizeof(path), "/tmp/parley-inspect-%d", (int)getpid());
    fflush(stdout);
    int saved = dup(1);
    assert_non_null(freopen(path, "w", stdout));
    *code = cmd_inspect(3, argv);
    fflush(stdout);
    dup2(saved, 1);
    close(saved);
    json_t *root = json_load_file(path, 0, NULL);
    unlink(path);
    assert_non_null(root);
    return root;
}

static void inspect_tells(void **state)
{
    (void)state;
    int code;
    struct tiny t;
    json_t *root = inspect(SOURCE_DIR "/tests/golden/heads", &code);
    assert_int_equal(code, 0);
    assert_true(json_is_true(json_object_get(root, "good")));
    assert_int_equal(json_integer_value(json_object_get(root, "files")), 2);
    assert_int_equal(json_array_size(json_object_get(root, "components")), 6);
    assert_true(json_is_true(json_object_get(root, "generation_config")));
    assert_true(json_is_true(json_object_get(root, "fits")));
    assert_true(json_integer_value(json_object_get(root, "cache_bytes")) > 100000);
    json_decref(root);
    tiny_init(&t, ST_BF16); /* no tokenizer, and a tensor too few */
    tiny_drop(&t, "thinker.lm_head.weight");
    tiny_write(&t, &(struct tiny_layout){0});
    root = inspect(t.dir, &code);
    assert_int_equal(code, 2);
    assert_true(json_is_false(json_object_get(root, "good")));
    assert_true(json_is_false(json_object_get(root, "generation_config")));
    assert_true(json_array_size(json_object_get(root, "problems")) >= 2);
    json_decref(root);
    tiny_free(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_layouts_give_the_same_model),
        cmocka_unit_test(refuses_defects),
        cmocka_unit_test(reports_several_defects),
        cmocka_unit_test(text_only_needs_no_speech_tensors),
        cmocka_unit_test(text_only_needs_no_speech_shards),
        cmocka_unit_test(plan_adds_up),
        cmocka_unit_test(counts_vision_and_leaves_it),
        cmocka_unit_test(notices_a_file_that_shrinks),
        cmocka_unit_test(synthetic_is_reproducible),
        cmocka_unit_test(synthetic_size_must_be_possible),
        cmocka_unit_test(computes_tables),
        cmocka_unit_test(opens_the_reference_checkpoints),
        cmocka_unit_test(inspect_tells),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
