/*
 * tests/unit/test_plan.c - the memory plan of a device with memory of its own: named, counted and
 * refused with figures.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/plan.h"
#include "tests/support/far.h"
#include "tests/support/tiny.h"

#define SHAPE SOURCE_DIR "/tests/golden/heads"

static struct model *open_on(struct far *f, size_t total)
{
    struct model *m = NULL;
    far_open(f);
    f->total = total;
    assert_int_equal(model_open(&m, &(struct model_opts){.dir = SHAPE, .device = &f->host.d}, NULL),
                     0);
    return m;
}

static void everything_counts_on_a_device(void **state)
{
    (void)state;
    struct far far;
    struct model *m = open_on(&far, (size_t)1 << 30);
    const struct plan_memory where = plan_memory(&far.host.d);
    struct plan_row sum = plan_sum(m);
    assert_string_equal(where.device, "far");
    assert_int_equal(where.total, (size_t)1 << 30);
    assert_int_equal(sum.mapped, 0);
    assert_int_equal(sum.owned, model_device_bytes(m));
    assert_true(plan_need(&where, m, 1000000) > sum.owned + 1000000);
    assert_int_equal(plan_check(&where, m, 1000000, false, NULL), 0);
    model_close(m);
    far_close(&far);
}

static void what_does_not_fit_is_refused_with_figures(void **state)
{
    (void)state;
    struct far far;
    struct problems why = {0};
    struct model *m = open_on(&far, 5000000);
    const struct plan_memory where = plan_memory(&far.host.d);
    assert_int_equal(plan_check(&where, m, 0, true, &why), -ENOMEM);
    assert_true(problems_mention(&why, (const char *const[4]){"device far",
                                                              "found 5.00 MB of its 5.00 MB free",
                                                              "expected 7", "--context"}));
    problems_free(&why);
    model_close(m);
    far_close(&far);
}

/* Jetson and its like: what files fill is not free by the GPU's word, and free all the same. */
static void cached_files_leave_room_on_an_integrated_gpu(void **state)
{
    (void)state;
    struct far far;
    struct model *m = open_on(&far, (size_t)1 << 20);
    far.cached = far.total - 4096;
    assert_int_equal(plan_memory(&far.host.d).unused, 4096);
    far.integrated = true;
    assert_int_equal(plan_memory(&far.host.d).unused, far.total);
    model_close(m);
    far_close(&far);
}

static void weights_it_cannot_use_are_refused(void **state)
{
    (void)state;
    struct far far;
    struct problems why = {0};
    struct model *m = open_on(&far, (size_t)1 << 30);
    struct plan_memory where = plan_memory(&far.host.d);
    where.types = 1u << DT_F16;
    assert_int_equal(plan_check(&where, m, 0, false, &why), -EINVAL);
    assert_true(problems_mention(&why, (const char *const[4]){"found BF16 weights in the thinker",
                                                              "expected F16", "--device cpu"}));
    problems_free(&why);
    model_close(m);
    far_close(&far);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(everything_counts_on_a_device),
        cmocka_unit_test(what_does_not_fit_is_refused_with_figures),
        cmocka_unit_test(cached_files_leave_room_on_an_integrated_gpu),
        cmocka_unit_test(weights_it_cannot_use_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
