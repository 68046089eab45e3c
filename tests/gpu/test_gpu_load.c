/*
 * tests/gpu/test_gpu_load.c - weights on a real GPU are the weights on the host: from files, one by
 * one and fused, and from the generator.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/util.h"
#include "tests/support/flatten.h"
#include "tests/support/tiny.h"

static struct device *gpu;

static struct model *open_model(const struct model_opts *o)
{
    struct model *m = NULL;
    struct problems why = {0};
    int more = model_open(&m, o, &why);
    while (more == 0 && (more = model_load(m, NULL, &why)) == 1)
        more = 0;
    if (more < 0)
        fail_msg("%s", why.n ? why.text[0] : "no model");
    return m;
}

static void assert_same(const struct model_opts *o)
{
    struct model_opts there = *o;
    struct flat near, away;
    there.device = gpu;
    struct model *a = open_model(o), *b = open_model(&there);
    flatten(&near, a);
    flatten_from(&away, b, gpu);
    assert_int_equal(near.n, away.n);
    assert_memory_equal(near.values, away.values, near.n * sizeof(float));
    free(near.values);
    free(away.values);
    model_close(a);
    model_close(b);
}

static void files_arrive(void **state)
{
    (void)state;
    static const struct tiny_layout layouts[] = {{0},
                                                 {.shards = 3},
                                                 {.fused = true, .shards = 2},
                                                 {.misalign = 1}};
    for (size_t i = 0; i < ARRAY_LEN(layouts); i++) {
        struct tiny t;
        tiny_init(&t, ST_BF16);
        tiny_write(&t, &layouts[i]);
        assert_same(&(struct model_opts){.dir = t.dir});
        tiny_free(&t);
    }
    assert_same(&(struct model_opts){.dir = SOURCE_DIR "/tests/golden/heads"});
}

static void random_weights_are_those_of_the_host(void **state)
{
    (void)state;
    static const enum dtype types[] = {DT_F32, DT_BF16, DT_F16};
    for (size_t i = 0; i < ARRAY_LEN(types); i++)
        assert_same(&(struct model_opts){.synthetic = SOURCE_DIR "/tools/configs/bench-30m.json",
                                         .synthetic_type = types[i],
                                         .seed = 3});
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(files_arrive),
        cmocka_unit_test(random_weights_are_those_of_the_host),
    };
    struct problems why = {0};
    const struct device_opts o = {.name = "cuda"};
    if (device_open(&gpu, &o, &why) < 0) {
        printf("skip: %s\n", why.text[0]);
        problems_free(&why);
        return 77;
    }
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    device_close(gpu);
    return failed;
}
