/*
 * tests/unit/test_end_of_turn.c - the detector of the end of a turn: its numbers, models that bring
 * none, files that are not what they should be.
 */
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/util.h"
#include "daemon/end_of_turn.h"
#include "model/safetensors.h"

enum { HIDDEN = 3 };

struct folder {
    char dir[32], file[64];
};

static void folder_make(struct folder *f)
{
    snprintf(f->dir, sizeof(f->dir), "/tmp/parley-end-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    snprintf(f->file, sizeof(f->file), "%s/%s", f->dir, END_OF_TURN_FILE);
}

static void folder_remove(const struct folder *f)
{
    unlink(f->file);
    assert_int_equal(rmdir(f->dir), 0);
}

static void write_tensors(const struct folder *f, const struct st_entry *entries, size_t n)
{
    assert_int_equal(safetensors_write(f->file, entries, n, NULL), 0);
}

static float weight[HIDDEN + 1] = {0.5f, -2.0f, 1.0f}, bias[2] = {0.25f};
static float broken[HIDDEN] = {0, NAN, 0};

#define WEIGHT(data, n)                                                                            \
    {                                                                                              \
        "weight", ST_F32, 1, {n}, data                                                             \
    }
#define BIAS                                                                                       \
    {                                                                                              \
        "bias", ST_F32, 1, {1}, bias                                                               \
    }

static void test_numbers(void **unused)
{
    (void)unused;
    static const struct {
        float state[HIDDEN], expected;
    } cases[] = {
        {{0, 0, 0}, 0.56217650f}, /* 1 / (1 + e^-0.25) */
        {{1, 0.5f, 0.25f}, 0.5f}, /* 0.5 - 1 + 0.25 + 0.25 = 0 */
        {{0, 1, 0}, 0.14804720f}, /* -1.75 */
        {{0, 0, 1000}, 1},        {{0, 1000, 0}, 0},
    };
    struct folder f;
    struct end_of_turn *e;
    folder_make(&f);
    write_tensors(&f, (struct st_entry[]){WEIGHT(weight, HIDDEN), BIAS}, 2);
    assert_int_equal(end_of_turn_open(&e, f.dir, HIDDEN, NULL), 0);
    assert_non_null(e);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        assert_float_equal(end_of_turn_probability(e, cases[i].state), cases[i].expected, 1e-6);
    end_of_turn_close(e);
    folder_remove(&f);
}

static void test_absent(void **unused)
{
    (void)unused;
    struct folder f;
    struct problems why = {0};
    struct end_of_turn *e = (struct end_of_turn *)&f;
    folder_make(&f);
    assert_int_equal(end_of_turn_open(&e, f.dir, HIDDEN, &why), 0);
    assert_null(e);
    assert_int_equal(why.n, 0);
    end_of_turn_close(e);
    folder_remove(&f);
}

/* Refused in one sentence, which is the one expected. */
static void refused(const struct folder *f, const char *sentence)
{
    struct problems why = {0};
    struct end_of_turn *e = (struct end_of_turn *)&why;
    assert_int_equal(end_of_turn_open(&e, f->dir, HIDDEN, &why), -EINVAL);
    assert_null(e);
    assert_int_equal(why.n, 1);
    assert_non_null(strstr(why.text[0], sentence));
    problems_free(&why);
}

static void test_bad_tensors(void **unused)
{
    (void)unused;
    static const struct {
        struct st_entry entries[2];
        size_t n;
        const char *sentence;
    } cases[] = {
        {{WEIGHT(weight, HIDDEN + 1), BIAS},
         2,
         "end_of_turn.safetensors: tensor weight: found F32 [4], expected F32 [3]"},
        {{{"weight", ST_I32, 1, {HIDDEN}, weight}, BIAS}, 2, "found I32 [3], expected F32 [3]"},
        {{{"weight", ST_F32, 2, {1, HIDDEN}, weight}, BIAS},
         2,
         "found F32 [1, 3], expected F32 [3]"},
        {{WEIGHT(weight, HIDDEN)}, 1, "found no tensor bias, expected F32 [1]"},
        {{BIAS}, 1, "found no tensor weight, expected F32 [3]"},
        {{WEIGHT(broken, HIDDEN), BIAS}, 2, "tensor weight: found NaN at 1, expected a number"},
    };
    struct folder f;
    folder_make(&f);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        write_tensors(&f, cases[i].entries, cases[i].n);
        refused(&f, cases[i].sentence);
    }
    folder_remove(&f);
}

static void test_no_safetensors(void **unused)
{
    (void)unused;
    struct folder f;
    folder_make(&f);
    FILE *file = fopen(f.file, "w");
    assert_non_null(file);
    fputs("version https://git-lfs.github.com/spec/v1\n", file);
    assert_int_equal(fclose(file), 0);
    refused(&f, "end_of_turn.safetensors");
    folder_remove(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_absent),
        cmocka_unit_test(test_bad_tensors),
        cmocka_unit_test(test_no_safetensors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
