/*
 * tests/unit/test_quantize.c - 8-bit weights from end to end: a checkpoint is quantised, read back,
 * held against the same numbers in F32, and damaged.
 */
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/util.h"
#include "daemon/commands.h"
#include "engine/engine.h"
#include "model/quantize.h"
#include "tests/support/flatten.h"
#include "tests/support/tiny.h"

#define HEADS SOURCE_DIR "/tests/golden/heads"

/* Quantises into a new directory beside others of its kind; `to` can be used as a tiny then. */
static int quantise(struct tiny *to, struct quantize_opts o, struct problems *why)
{
    struct quantizer *q = NULL;
    *to = (struct tiny){0};
    snprintf(to->dir, sizeof(to->dir), "/tmp/parley-tiny-XXXXXX");
    assert_non_null(mkdtemp(to->dir));
    o.out = to->dir;
    int more = quantizer_open(&q, &o, why);
    if (more == 0)
        while ((more = quantizer_step(q, NULL, why)) == 1)
            ;
    quantizer_close(q);
    return more;
}

static bool ends_with(const char *name, const char *end)
{
    size_t n = strlen(name), m = strlen(end);
    return n > m && strcmp(name + n - m, end) == 0;
}

static void *copied(const struct st_file *f, const struct st_tensor *t, struct st_entry *e)
{
    void *to = malloc(t->bytes + 1);
    *e = (struct st_entry){.name = strdup(t->name), .type = t->type, .ndim = t->ndim};
    memcpy(e->shape, t->shape, sizeof(e->shape));
    memcpy(to, st_data(f, t), t->bytes);
    return to;
}

/* The stored tensor in F32: bytes by their definition, everything else widened. */
static float *dequantised(const struct st_file *f, const struct st_tensor *t, struct st_entry *e)
{
    char name[256];
    enum dtype type;
    e->type = ST_F32;
    e->ndim = t->ndim;
    memcpy(e->shape, t->shape, sizeof(e->shape));
    if (!ends_with(t->name, ".weight_packed")) {
        float *to = malloc((t->count + 1) * sizeof(*to));
        assert_true(st_type_weight(t->type, &type));
        for (size_t i = 0; i < t->count; i++)
            to[i] = dtype_read(type, st_data(f, t), i);
        e->name = strdup(t->name);
        return to;
    }
    size_t base = strlen(t->name) - strlen("_packed");
    snprintf(name, sizeof(name), "%.*s_scale", (int)base, t->name);
    const struct st_tensor *scale = st_find(f, name);
    snprintf(name, sizeof(name), "%.*s_shape", (int)base, t->name);
    const int64_t *shape = st_data(f, st_find(f, name));
    const uint8_t *bytes = st_data(f, t);
    size_t rows = (size_t)shape[0], cols = (size_t)shape[1], groups = scale->shape[1];
    float *to = malloc(rows * cols * sizeof(*to));
    for (size_t r = 0; r < rows; r++)
        for (size_t c = 0; c < cols; c++)
            to[r * cols + c] =
                (float)(bytes[r * 4 * t->shape[1] + c] - 128) *
                dtype_read(DT_BF16, st_data(f, scale), r * groups + c / (cols / groups));
    e->shape[1] = cols;
    e->name = strndup(t->name, base);
    return to;
}

/* Turns a quantised directory into one of F32, or all of it but the quantised matrices. */
static void widen(struct tiny *t, bool bytes_too)
{
    struct problems why = {0};
    struct st_file *f = NULL;
    char path[128];
    size_t n = 0;
    tiny_path(t, "model.safetensors", path);
    assert_int_equal(st_open(&f, path, &why), 0);
    struct st_entry *e = calloc(f->header.n, sizeof(*e));
    for (size_t i = 0; i < f->header.n; i++) {
        const struct st_tensor *x = &f->header.tensors[i];
        bool aside = ends_with(x->name, ".weight_scale") || ends_with(x->name, ".weight_shape");
        if (!bytes_too && (aside || ends_with(x->name, ".weight_packed")))
            e[n].data = copied(f, x, &e[n]);
        else if (!aside)
            e[n].data = dequantised(f, x, &e[n]);
        n += e[n].data != NULL;
    }
    st_close(f);
    assert_int_equal(safetensors_write(path, e, n, &why), 0);
    if (bytes_too)
        tiny_set(t, "config.json", "quantization_config", NULL);
    for (size_t i = 0; i < n; i++) {
        free((void *)e[i].name);
        free((void *)e[i].data);
    }
    free(e);
}

/* Logits behind a second of sound and some ids, on a device; kept in F32 throughout. */
static float *logits_of(const char *dir, const char *device, size_t *n)
{
    struct problems why = {0};
    struct model *m = NULL;
    struct device *d = NULL;
    struct engine *e = NULL;
    const struct model_opts mo = {.dir = dir, .text_only = true};
    const struct device_opts dop = {.name = device, .threads = 2};
    static float pcm[16000];
    for (size_t i = 0; i < ARRAY_LEN(pcm); i++)
        pcm[i] = (float)(0.3 * sin(0.05 * (double)i) * cos(0.0007 * (double)(i % 5000)));
    assert_int_equal(device_open(&d, &dop, &why), 0);
    assert_int_equal(model_open(&m, &mo, &why), 0);
    while (model_load(m, NULL, &why) == 1)
        ;
    m->kv_type = DT_F32;
    const struct engine_opts eo = {.model = m, .device = d, .context = 256};
    assert_int_equal(engine_open(&e, &eo, &why), 0);
    assert_int_equal(engine_turn(e, &why), 0);
    assert_int_equal(engine_hear(e, pcm, ARRAY_LEN(pcm), &why), 0);
    assert_int_equal(engine_text(e, "what is it", &why), 0);
    assert_int_equal(engine_answer(e, &why), 0);
    *n = (size_t)m->config.thinker.vocab;
    float *all = malloc(3 * *n * sizeof(*all));
    for (int i = 0; i < 3; i++) {
        engine_logits(e, all + (size_t)i * *n);
        assert_int_equal(engine_force(e, 30 + i, &why), 1);
    }
    *n *= 3;
    engine_close(e);
    model_close(m);
    device_close(d);
    return all;
}

static void close_to(const float *a, const float *b, size_t n, double tolerance)
{
    double top = 1e-30, most = 0;
    for (size_t i = 0; i < n; i++)
        top = fmax(top, fabs((double)b[i]));
    for (size_t i = 0; i < n; i++)
        most = fmax(most, fabs((double)a[i] - b[i]) / top);
    print_message("largest difference %.2g of the largest logit, allowed %.2g\n", most, tolerance);
    assert_true(most <= tolerance);
}

/* The same numbers in 8 bits and in F32 give the same logits, and on both devices. */
static void equals_the_same_weights_in_f32(void **state)
{
    (void)state;
    struct problems why = {0};
    struct tiny packed, wide;
    struct model *a = NULL, *b = NULL;
    struct flat fa, fb;
    size_t n;
    assert_int_equal(quantise(&packed, (struct quantize_opts){.in = HEADS}, &why), 0);
    assert_int_equal(quantise(&wide, (struct quantize_opts){.in = HEADS}, &why), 0);
    widen(&packed, false);
    widen(&wide, true);
    assert_int_equal(tiny_open(&packed, &a, false, &why), 0);
    assert_int_equal(tiny_open(&wide, &b, false, &why), 0);
    assert_int_equal(a->thinker.text.layers[0].q.type, DT_I8);
    assert_int_equal(a->thinker.text.layers[0].router.type, DT_F32);
    flatten(&fa, a);
    flatten(&fb, b);
    assert_int_equal(fa.n, fb.n);
    assert_memory_equal(fa.values, fb.values, fa.n * sizeof(float));
    model_close(a);
    model_close(b);
    float *cpu = logits_of(packed.dir, "cpu", &n), *plain = logits_of(packed.dir, "plain", &n);
    float *want = logits_of(wide.dir, "cpu", &n), *plain_want = logits_of(wide.dir, "plain", &n);
    close_to(plain, plain_want, n, 0);
    close_to(cpu, plain, n, 1e-5);
    close_to(cpu, want, n, 1e-5);
    free(fa.values);
    free(fb.values);
    free(cpu);
    free(plain);
    free(want);
    free(plain_want);
    tiny_free(&packed);
    tiny_free(&wide);
}

/* Experts fused or one by one, one file or many, aligned or not: the same model. */
static void all_layouts_give_the_same_model(void **state)
{
    (void)state;
    static const struct {
        struct tiny_layout in;
        size_t shard_bytes;
        int misalign;
    } cases[] = {{{0}, 0, 0}, {{.fused = true}, 0, 0}, {{.shards = 3}, 20000, 0}, {{0}, 0, 1}};
    struct flat first = {0};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct problems why = {0};
        struct tiny in, out;
        struct model *m = NULL;
        struct flat f;
        tiny_init(&in, ST_BF16);
        tiny_write(&in, &cases[i].in);
        const struct quantize_opts o = {.in = in.dir, .shard_bytes = cases[i].shard_bytes};
        assert_int_equal(quantise(&out, o, &why), 0);
        if (cases[i].misalign)
            tiny_replace(&out, "model.safetensors", "{", "{ ");
        assert_int_equal(tiny_open(&out, &m, false, &why), 0);
        struct model_layout layout;
        model_layout(m, &layout);
        assert_int_equal(layout.sharded, cases[i].shard_bytes > 0);
        assert_false(layout.fused_experts);
        flatten(&f, m);
        if (i == 0) {
            first = f;
        } else {
            assert_int_equal(f.n, first.n);
            assert_memory_equal(f.values, first.values, f.n * sizeof(float));
            free(f.values);
        }
        model_close(m);
        tiny_free(&in);
        tiny_free(&out);
    }
    free(first.values);
}

#define Q    "thinker.model.layers.0.self_attn.q_proj.weight"
#define HEAD "thinker.lm_head.weight"

/* Edits of the header, or with a path of config.json; what is said then. */
static const struct {
    const char *from, *to, *words[4];
} defects[] = {
    {HEAD "_packed\":{\"dtype\":\"I32\"",
     HEAD "_packed\":{\"dtype\":\"U32\"",
     {HEAD "_packed: dtype: found U32", "expected I32"}},
    {HEAD "_scale\":{\"dtype\":\"BF16\"",
     HEAD "_scale\":{\"dtype\":\"I16\"",
     {HEAD "_scale: dtype: found I16", "expected F32, BF16 or F16"}},
    {HEAD "_shape\":{\"dtype\":\"I64\"",
     HEAD "_shape\":{\"dtype\":\"F64\"",
     {HEAD "_shape: dtype: found F64", "expected I64 or I32"}},
    {HEAD "_packed", HEAD "_pecked", {HEAD ": found nothing", "[50, 16]"}},
    {HEAD "_scale", HEAD "_scele", {HEAD "_scale: found nothing"}},
    {HEAD "_shape", HEAD "_shepe", {HEAD "_shape: found nothing"}},
    {HEAD "_scale", Q "_zero_point", {Q ": found zero points", "symmetric"}},
    {HEAD "_scale", Q "_g_idx", {Q ": found an order of columns"}},
    {HEAD "_scale", Q, {Q ": found it stored twice"}},
    {"[50,4]", "[25,8]", {HEAD "_packed: shape: found [25, 8]", "expected [50, 4] by config.json"}},
    {"[50,1]", "[1,50]", {HEAD "_scale: shape: found [1, 50]", "expected [50, any]"}},
};

static void refuses_defects(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(defects); i++) {
        struct problems why = {0};
        struct tiny in, out;
        struct model *m = NULL;
        tiny_init(&in, ST_BF16);
        tiny_write(&in, &(struct tiny_layout){0});
        assert_int_equal(quantise(&out, (struct quantize_opts){.in = in.dir}, &why), 0);
        tiny_replace(&out, "model.safetensors", defects[i].from, defects[i].to);
        int err = tiny_open(&out, &m, false, &why);
        for (size_t k = 0; k < why.n && !problems_mention(&why, defects[i].words); k++)
            print_message("%zu: %s\n", i, why.text[k]);
        assert_int_equal(err, -EINVAL);
        assert_true(problems_mention(&why, defects[i].words));
        problems_free(&why);
        tiny_free(&in);
        tiny_free(&out);
    }
}

/* The sizes in X.weight_shape, and a configuration that does not fit the files. */
static void refuses_other_sizes(void **state)
{
    (void)state;
    static const char *const wrong[4] = {HEAD "_shape: found [50, 17]", "[50, 16] by config.json"};
    static const char *const plain[4] = {"found 8-bit weights", "quantization_config"};
    static const char *const groups[4] = {Q "_scale: found scales [24, 1]", "5 columns"};
    struct problems why = {0};
    struct tiny in, out;
    struct model *m = NULL;
    struct st_file *f = NULL;
    char path[128];
    tiny_init(&in, ST_BF16);
    tiny_write(&in, &(struct tiny_layout){0});
    assert_int_equal(quantise(&out, (struct quantize_opts){.in = in.dir}, &why), 0);
    tiny_path(&out, "model.safetensors", path);
    assert_int_equal(st_open(&f, path, &why), 0);
    const struct st_tensor *t = st_find(f, HEAD "_shape");
    size_t at = f->header.data_start + t->begin, n;
    st_close(f);
    char *bytes = tiny_get(&out, "model.safetensors", &n);
    bytes[at + 8] = 17;
    tiny_put(&out, "model.safetensors", bytes, n);
    assert_int_equal(tiny_open(&out, &m, false, &why), -EINVAL);
    assert_true(problems_mention(&why, wrong));
    problems_free(&why);
    bytes[at + 8] = 16;
    tiny_put(&out, "model.safetensors", bytes, n);
    free(bytes);
    tiny_set(&out, "config.json", "quantization_config.config_groups",
             "{\"g\": {\"weights\": {\"num_bits\": 8, \"group_size\": 5}}}");
    assert_int_equal(tiny_open(&out, &m, false, &why), -EINVAL);
    assert_true(problems_mention(&why, groups));
    problems_free(&why);
    tiny_set(&out, "config.json", "quantization_config", NULL);
    assert_int_equal(tiny_open(&out, &m, false, &why), -EINVAL);
    assert_true(problems_mention(&why, plain));
    problems_free(&why);
    tiny_free(&in);
    tiny_free(&out);
}

static void keeps_what_it_is_told_to(void **state)
{
    (void)state;
    struct problems why = {0};
    const char *const keep[] = {"*lm_head*", "*.layers.0.*"};
    struct quantize_opts o = {.keep = keep, .n_keep = 2, .group = 16};
    struct tiny in, out, again;
    struct model *m = NULL;
    tiny_init(&in, ST_F32);
    tiny_write(&in, &(struct tiny_layout){0});
    o.in = in.dir;
    assert_int_equal(quantise(&out, o, &why), 0);
    assert_int_equal(tiny_open(&out, &m, false, &why), 0);
    assert_int_equal(m->thinker.head.type, DT_F32);
    assert_int_equal(m->thinker.embed.type, DT_F32);
    assert_int_equal(m->thinker.text.layers[0].q.type, DT_F32);
    assert_int_equal(m->thinker.text.layers[1].q.type, DT_I8);
    assert_int_equal(m->audio.conv_out.type, DT_I8);
    assert_int_equal(m->talker.codec_head.type, DT_I8);
    assert_int_equal(m->code2wav.upsample[0].pw1.w.type, DT_I8);
    assert_int_equal(m->code2wav.upsample[0].up.w.type, DT_F32);
    model_close(m);
    o.in = out.dir; /* twice is once too often */
    assert_int_equal(quantise(&again, o, &why), -EINVAL);
    const char *const words[4] = {"found a quantization_config", "not quantised yet"};
    assert_true(problems_mention(&why, words));
    problems_free(&why);
    tiny_free(&again);
    tiny_free(&in);
    tiny_free(&out);
}

static void refuses_directories(void **state)
{
    (void)state;
    struct problems why = {0};
    struct quantizer *q = NULL;
    struct tiny in;
    struct stat st;
    char beside[128];
    tiny_init(&in, ST_BF16);
    tiny_write(&in, &(struct tiny_layout){0});
    struct quantize_opts o = {.in = in.dir, .out = in.dir};
    assert_int_equal(quantizer_open(&q, &o, &why), -EINVAL);
    const char *const full[4] = {"found files in it", "new or empty"};
    assert_true(problems_mention(&why, full));
    problems_free(&why);
    o.out = "/no/such/place";
    assert_int_equal(quantizer_open(&q, &o, &why), -EIO);
    problems_free(&why);
    snprintf(beside, sizeof(beside), "%s.out", in.dir); /* given up half way: nothing is left */
    o.out = beside;
    assert_int_equal(quantizer_open(&q, &o, &why), 0);
    assert_int_equal(quantizer_step(q, NULL, &why), 1);
    quantizer_close(q);
    assert_int_equal(stat(beside, &st), -1);
    snprintf(beside, sizeof(beside), "%s.out.%d.tmp", in.dir, (int)getpid());
    assert_int_equal(stat(beside, &st), -1);
    quantizer_close(NULL);
    tiny_free(&in);
}

/* A group's scale: never worse than the plain maximum, zeros, one value, huge and tiny ones. */
static void rows_are_close(void **state)
{
    (void)state;
    enum { COLS = 300 };
    static const float scales[] = {1, 1e-6f, 1e6f, 1e-30f};
    float w[COLS];
    uint8_t to[COLS];
    uint16_t scale[(COLS + 127) / 128];
    for (size_t s = 0; s < ARRAY_LEN(scales); s++) {
        double error = 0, square = 0;
        for (int i = 0; i < COLS; i++)
            w[i] = i < 128 ? 0 : scales[s] * (float)sin(i * 1.7) * (float)(1 + i % 3);
        quantize_row(to, scale, w, COLS, 128, &error, &square);
        for (int i = 0; i < COLS; i++) {
            float step = bf16_to_f32(scale[i / 128]);
            if (!(fabsf(w[i] - step * (float)(to[i] - 128)) <= 1.6f * step))
                fail_msg("%g became %d steps of %g", (double)w[i], to[i] - 128, (double)step);
        }
        assert_true(to[0] == 128 && to[127] == 128);
        assert_true(sqrt(error / square) < 0.01);
    }
}

static void command_works(void **state)
{
    (void)state;
    struct tiny out = {0};
    snprintf(out.dir, sizeof(out.dir), "/tmp/parley-tiny-XXXXXX");
    assert_non_null(mkdtemp(out.dir));
    char in[] = HEADS, group[] = "--group", n[] = "32", quiet[] = "--quiet", name[] = "quantize";
    char *good[] = {name, in, out.dir, group, n, quiet, NULL}, *bad[] = {name, in, NULL};
    assert_int_equal(cmd_quantize(6, good), 0);
    assert_int_equal(cmd_quantize(6, good), EXIT_BAD_INPUT); /* it is full now */
    n[0] = '0';
    assert_int_equal(cmd_quantize(6, good), EXIT_BAD_INPUT);
    assert_int_equal(cmd_quantize(2, bad), EXIT_BAD_INPUT);
    tiny_free(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equals_the_same_weights_in_f32),
        cmocka_unit_test(all_layouts_give_the_same_model),
        cmocka_unit_test(refuses_defects),
        cmocka_unit_test(refuses_other_sizes),
        cmocka_unit_test(keeps_what_it_is_told_to),
        cmocka_unit_test(refuses_directories),
        cmocka_unit_test(rows_are_close),
        cmocka_unit_test(command_works),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
