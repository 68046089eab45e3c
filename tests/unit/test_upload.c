/*
 * tests/unit/test_upload.c - weights on a device with memory of its own are the weights on the
 * host, from every layout and from the generator; what goes wrong on the way is said.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/util.h"
#include "tests/support/far.h"
#include "tests/support/flatten.h"
#include "tests/support/tiny.h"

static int load(struct model *m, struct problems *why)
{
    struct load_progress p = {0};
    size_t before = 0;
    int more;
    while ((more = model_load(m, &p, why)) == 1) {
        assert_true(p.done >= before && p.done <= p.total);
        before = p.done;
    }
    if (more == 0)
        assert_int_equal(p.done, p.total);
    return more;
}

static struct model *open_model(const struct model_opts *o)
{
    struct model *m = NULL;
    struct problems why = {0};
    assert_int_equal(model_open(&m, o, &why), 0);
    assert_int_equal(load(m, &why), 0);
    return m;
}

static void assert_tables_equal(const struct model *a, const struct model *b)
{
    const struct audio_config *c = &a->config.audio;
    size_t positions = (size_t)(c->chunk + 7) / 8 * (size_t)c->d_model;
    size_t half = (size_t)a->config.thinker.head_dim / 2;
    assert_ptr_not_equal(a->audio.positions, b->audio.positions);
    assert_memory_equal(a->audio.positions, b->audio.positions, positions * sizeof(float));
    assert_memory_equal(a->thinker.text.inv_freq, b->thinker.text.inv_freq, half * sizeof(float));
}

/* The same model once on the host and once far away. */
static void assert_same(const struct model_opts *o)
{
    struct far far;
    struct flat near, away;
    struct model_opts there = *o;
    far_open(&far);
    there.device = &far.host.d;
    struct model *a = open_model(o), *b = open_model(&there);
    flatten(&near, a);
    flatten(&away, b);
    assert_int_equal(near.n, away.n);
    assert_memory_equal(near.values, away.values, near.n * sizeof(float));
    assert_tables_equal(a, b);
    if (o->dir != NULL)
        assert_true(far.copies > 0);
    assert_int_equal(model_device_bytes(a), 0);
    assert_true(model_device_bytes(b) >= far.bytes);
    free(near.values);
    free(away.values);
    model_close(a);
    model_close(b);
    far_close(&far);
}

static void every_layout_arrives(void **state)
{
    (void)state;
    static const enum st_type types[] = {ST_BF16, ST_TYPE_COUNT};
    static const struct tiny_layout layouts[] = {
        {0},
        {.shards = 3},
        {.fused = true},
        {.fused = true, .shards = 4},
        {.misalign = 1},
        {.fused = true, .shards = 2, .misalign = 3},
    };
    for (size_t k = 0; k < ARRAY_LEN(types); k++)
        for (size_t i = 0; i < ARRAY_LEN(layouts); i++) {
            if (types[k] == ST_TYPE_COUNT && layouts[i].fused)
                continue; /* experts of different types cannot be fused */
            struct tiny t;
            tiny_init(&t, types[k]);
            tiny_write(&t, &layouts[i]);
            assert_same(&(struct model_opts){.dir = t.dir});
            assert_same(&(struct model_opts){.dir = t.dir, .text_only = true});
            tiny_free(&t);
        }
}

/* More than one chunk, and matrices that lie across their borders. */
static void a_model_of_many_chunks_arrives(void **state)
{
    (void)state;
    assert_same(&(struct model_opts){.dir = SOURCE_DIR "/tests/golden/heads"});
}

static void random_weights_are_those_of_the_host(void **state)
{
    (void)state;
    static const enum dtype types[] = {DT_F32, DT_BF16, DT_F16};
    for (size_t k = 0; k < ARRAY_LEN(types); k++)
        assert_same(&(struct model_opts){.synthetic = SOURCE_DIR "/tools/configs/awkward.json",
                                         .synthetic_type = types[k],
                                         .seed = 7});
}

/* What a backend may rely on to take neighbours for one matrix (model/bind.h). */
static void neighbours_lie_together(void **state)
{
    (void)state;
    struct far far;
    far_open(&far);
    struct model *m =
        open_model(&(struct model_opts){.synthetic = SOURCE_DIR "/tools/configs/bench-30m.json",
                                        .synthetic_type = DT_BF16,
                                        .device = &far.host.d});
    const struct decoder_layer *l = &m->thinker.text.layers[0];
    assert_ptr_equal(l->k.data, (const char *)l->q.data + weight_bytes(&l->q));
    assert_ptr_equal(l->v.data, (const char *)l->k.data + weight_bytes(&l->k));
    if (l->experts != NULL) {
        const struct expert *e = l->experts;
        assert_ptr_equal(e->up.data, (const char *)e->gate.data + weight_bytes(&e->gate));
        ptrdiff_t gates = (const char *)e[1].gate.data - (const char *)e[0].gate.data;
        ptrdiff_t downs = (const char *)e[1].down.data - (const char *)e[0].down.data;
        for (int i = 1; i < m->config.thinker.experts; i++) {
            assert_ptr_equal(e[i].gate.data, (const char *)e[0].gate.data + i * gates);
            assert_ptr_equal(e[i].down.data, (const char *)e[0].down.data + i * downs);
        }
    }
    model_close(m);
    far_close(&far);
}

static void a_file_cut_short_is_noticed(void **state)
{
    (void)state;
    struct far far;
    struct tiny t;
    struct model *m = NULL;
    struct problems why = {0};
    char path[128];
    size_t size;
    far_open(&far);
    tiny_init(&t, ST_BF16);
    tiny_write(&t, &(struct tiny_layout){0});
    assert_int_equal(model_open(&m, &(struct model_opts){.dir = t.dir, .device = &far.host.d},
                                &why),
                     0);
    tiny_path(&t, "model.safetensors", path);
    free(tiny_get(&t, "model.safetensors", &size));
    assert_int_equal(truncate(path, (off_t)(size / 2)), 0);
    assert_int_equal(load(m, &why), -EIO);
    assert_true(problems_mention(&why, (const char *const[4]){"model.safetensors", "end"}));
    problems_free(&why);
    model_close(m);
    tiny_free(&t);
    far_close(&far);
}

static void a_lane_without_memory_is_said(void **state)
{
    (void)state;
    struct far far;
    struct model *m = NULL;
    struct problems why = {0};
    far_open(&far);
    far.fail_at = 1;
    assert_int_equal(model_open(&m,
                                &(struct model_opts){.dir = SOURCE_DIR "/tests/golden/heads",
                                                     .device = &far.host.d},
                                &why),
                     0);
    assert_int_equal(load(m, &why), -ENOMEM);
    assert_true(problems_mention(&why, (const char *const[4]){"pinned"}));
    problems_free(&why);
    model_close(m);
    far_close(&far);
}

/* In the middle of loading, too. */
static void closing_ends_the_threads(void **state)
{
    (void)state;
    struct far far;
    struct model *m = NULL;
    struct problems why = {0};
    far_open(&far);
    assert_int_equal(model_open(&m,
                                &(struct model_opts){.dir = SOURCE_DIR "/tests/golden/heads",
                                                     .device = &far.host.d},
                                &why),
                     0);
    assert_int_equal(model_load(m, NULL, &why), 1);
    model_close(m);
    far_close(&far);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_layout_arrives),
        cmocka_unit_test(a_model_of_many_chunks_arrives),
        cmocka_unit_test(random_weights_are_those_of_the_host),
        cmocka_unit_test(neighbours_lie_together),
        cmocka_unit_test(a_file_cut_short_is_noticed),
        cmocka_unit_test(a_lane_without_memory_is_said),
        cmocka_unit_test(closing_ends_the_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
