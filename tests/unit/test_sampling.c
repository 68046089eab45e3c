/*
 * tests/unit/test_sampling.c - the choice of the next id, routing, and number formats.
 *
 * Distributions are checked by drawing many times and comparing frequencies with what the rule
 * says, computed here by sorting; the order of penalty, suppression, temperature, top-k and top-p
 * is checked by cases in which another order would give another id. Draws are the same on every
 * machine, so a short sequence of them is written down here.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/util.h"
#include "kernels/ops.h"

static const char *const names[] = {"plain", "cpu"};

static struct device *open_device(const char *name)
{
    struct device *d = NULL;
    struct device_opts o = {.name = name, .threads = 2};
    assert_int_equal(device_open(&d, &o, NULL), 0);
    return d;
}

static int32_t sample(struct device *d, const float *logits, int n, const struct sampling *s,
                      uint32_t *seen, uint64_t *draw)
{
    int32_t id = -1;
    uint64_t before = *draw;
    d->op->sample(d, &id, logits, n, s, seen, draw);
    assert_int_equal(*draw, before + 1);
    assert_in_range(id, 0, n - 1);
    return id;
}

/* Probabilities by the rule: sort, cut, normalise. At most 64 ids. */
static void expected(double *p, const float *logits, int n, const struct sampling *s)
{
    int order[64], keep = n;
    double sum = 0, tail = 0;
    for (int i = 0; i < n; i++) {
        int at = i;
        for (; at > 0 && logits[order[at - 1]] < logits[i]; at--)
            order[at] = order[at - 1];
        order[at] = i;
        p[i] = 0;
    }
    if (s->top_k > 0)
        keep = min_int(keep, s->top_k);
    for (int i = 0; i < keep; i++)
        sum += exp((double)(logits[order[i]] / s->temperature));
    while (s->top_p > 0 && s->top_p < 1 && keep > 1) {
        double last = exp((double)(logits[order[keep - 1]] / s->temperature)) / sum;
        if (tail + last > 1 - (double)s->top_p)
            break;
        tail += last;
        keep--;
    }
    for (int i = 0; i < keep; i++)
        p[order[i]] = exp((double)(logits[order[i]] / s->temperature)) / sum / (1 - tail);
}

/* 20000 draws; each id's count within five standard deviations, none where none is due. */
static void frequencies(struct device *d, const struct sampling *s)
{
    enum { N = 40, DRAWS = 20000 };
    float logits[N];
    double p[64];
    int counts[N] = {0};
    uint64_t draw = 0;
    for (int i = 0; i < N; i++)
        logits[i] = 3 * sinf((float)(i * i));
    expected(p, logits, N, s);
    for (int i = 0; i < DRAWS; i++)
        counts[sample(d, logits, N, s, NULL, &draw)]++;
    for (int i = 0; i < N; i++) {
        double sigma = sqrt(DRAWS * p[i] * fmax(0, 1 - p[i]));
        assert_true(fabs(counts[i] - DRAWS * p[i]) <= 5 * sigma + 0.01);
    }
}

static void test_frequencies(void **unused)
{
    (void)unused;
    static const struct sampling rules[] = {
        {.temperature = 1, .seed = 1},
        {.temperature = 0.9f, .top_k = 5, .seed = 2},
        {.temperature = 1, .top_p = 0.8f, .seed = 3},
        {.temperature = 1.5f, .top_k = 20, .top_p = 0.5f, .seed = 4},
        {.temperature = 0.3f, .top_k = 1000, .top_p = 1, .seed = 5},
        {.temperature = 1, .top_p = 1e-6f, .seed = 6},
    };
    for (size_t n = 0; n < ARRAY_LEN(names); n++) {
        struct device *d = open_device(names[n]);
        for (size_t i = 0; i < ARRAY_LEN(rules); i++)
            frequencies(d, &rules[i]);
        device_close(d);
    }
}

static void test_greedy(void **unused)
{
    (void)unused;
    struct device *d = open_device("cpu");
    float logits[6] = {1, 4, -3, 4, 3.9f, NAN};
    uint32_t seen = 0;
    uint64_t draw = 7;
    struct sampling s = {0};
    assert_int_equal(sample(d, logits, 6, &s, &seen, &draw), 1); /* lowest id among equals */
    assert_int_equal(seen, 1u << 1);
    s.repetition_penalty = 1.1f; /* 4 / 1.1 < 4 */
    assert_int_equal(sample(d, logits, 6, &s, &seen, &draw), 3);
    assert_int_equal(sample(d, logits, 6, &s, &seen, &draw), 4);
    s = (struct sampling){.limit = 1, .keep = 4}; /* ids 1.. are gone but for 4 */
    assert_int_equal(sample(d, logits, 6, &s, NULL, &draw), 4);
    s.keep = 2;
    assert_int_equal(sample(d, logits, 6, &s, NULL, &draw), 0);
    s = (struct sampling){.temperature = 1, .top_k = 1}; /* the same by another way */
    assert_int_equal(sample(d, logits, 6, &s, NULL, &draw), 1);
    device_close(d);
}

/* A negative logit is multiplied by the penalty, and suppression comes before top-k. */
static void test_order(void **unused)
{
    (void)unused;
    struct device *d = open_device("cpu");
    float logits[4] = {-1, -1.05f, -9, 8};
    uint32_t seen = 1;
    uint64_t draw = 0;
    struct sampling s = {.temperature = 1, .top_k = 1, .repetition_penalty = 1.2f, .limit = 3};
    s.keep = 0;
    assert_int_equal(sample(d, logits, 4, &s, &seen, &draw), 1);
    assert_int_equal(seen, 3);
    s.top_k = 2; /* 3 is suppressed: 0 and 1 are left, never 2 */
    for (int i = 0; i < 200; i++)
        assert_in_range(sample(d, logits, 4, &s, NULL, &draw), 0, 1);
    device_close(d);
}

static void test_hopeless_logits(void **unused)
{
    (void)unused;
    struct device *d = open_device("cpu");
    float nan[3] = {NAN, NAN, NAN}, low[3] = {-INFINITY, -INFINITY, -INFINITY};
    float high[3] = {0, INFINITY, 0}, mixed[3] = {-INFINITY, 2, NAN};
    struct sampling s = {.temperature = 1, .top_k = 2, .top_p = 0.9f, .seed = 3};
    uint64_t draw = 0;
    for (int i = 0; i < 20; i++) {
        sample(d, nan, 3, &s, NULL, &draw);
        sample(d, low, 3, &s, NULL, &draw);
        assert_int_equal(sample(d, high, 3, &s, NULL, &draw), 1);
        assert_int_equal(sample(d, mixed, 3, &s, NULL, &draw), 1);
    }
    s = (struct sampling){.temperature = 1, .limit = 1, .keep = 2};
    assert_int_equal(sample(d, nan, 3, &s, NULL, &draw), 2);
    device_close(d);
}

/* The draw number alone decides; a large vocabulary; the same ids on every machine. */
static void test_reproducible(void **unused)
{
    (void)unused;
    enum { N = 152064, DRAWS = 12 };
    static const int32_t written[DRAWS] = {82601,  148634, 102289, 128941, 98216, 113408,
                                           107183, 47759,  27227,  85410,  3839,  150848};
    float *logits = malloc(N * sizeof(*logits));
    assert_non_null(logits);
    for (int i = 0; i < N; i++)
        logits[i] = (float)(i * 7919 % 10007) * 0x1p-10f;
    struct sampling s = {.temperature = 0.7f, .top_k = 0, .top_p = 0.95f, .seed = 42};
    for (size_t n = 0; n < ARRAY_LEN(names); n++) {
        struct device *d = open_device(names[n]);
        for (uint64_t i = DRAWS; i-- > 0;) {
            uint64_t draw = i;
            int32_t id = sample(d, logits, N, &s, NULL, &draw);
            if (id != written[i])
                fail_msg("%s: draw %d gives %d, written down is %d", names[n], (int)i, (int)id,
                         (int)written[i]);
        }
        device_close(d);
    }
    free(logits);
}

static void test_route(void **unused)
{
    (void)unused;
    struct device *d = open_device("cpu");
    float logits[8] = {1, 3, 3, -2, 0, 2, NAN, 2}, weights[4], nan[4] = {NAN, NAN, NAN, NAN};
    int32_t ids[4];
    logits[6] = -INFINITY;
    d->op->route(d, ids, weights, logits, 1, 8, 4, 1);
    assert_true(ids[0] == 1 && ids[1] == 2 && ids[2] == 5 && ids[3] == 7);
    assert_true(fabsf(weights[0] + weights[1] + weights[2] + weights[3] - 1) < 1e-6f);
    assert_true(fabsf(weights[2] / weights[0] - expf(-1)) < 1e-6f);
    d->op->route(d, ids, weights, logits, 1, 8, 2, 0);
    double sum = exp(-2) + 2 + exp(-5) + exp(-3) + 2 * exp(-1);
    assert_true(fabs((double)weights[0] - 1 / sum) < 1e-6);
    d->op->route(d, ids, weights, nan, 1, 4, 4, 1);
    for (int i = 0; i < 4; i++)
        assert_int_equal(ids[i], i); /* valid and different, whatever comes */
    device_close(d);
}

static void test_formats(void **unused)
{
    (void)unused;
    for (uint32_t u = 0; u < 65536; u++) {
        float h = f16_to_f32((uint16_t)u), b = bf16_to_f32((uint16_t)u);
        assert_true(h != h || f32_to_f16(h) == u);
        assert_true(b != b || f32_to_bf16(b) == u);
        if (u < 0x7bff) { /* halfway to the next goes to the even one, a little more goes up */
            double half = ((double)h + (double)f16_to_f32((uint16_t)(u + 1))) / 2;
            assert_int_equal(f32_to_f16((float)half), u + (u & 1));
            assert_int_equal(f32_to_f16(nextafterf((float)half, 1e9f)), u + 1);
        }
    }
    assert_int_equal(f32_to_f16(65519.99f), 0x7bff);
    assert_int_equal(f32_to_f16(65520), 0x7c00);
    assert_int_equal(f32_to_f16(-1e30f), 0xfc00);
    assert_int_equal(f32_to_bf16(0x1.01p0f), 0x3f80);
    assert_int_equal(f32_to_bf16(0x1.03p0f), 0x3f82);
    assert_true(isnan(f16_to_f32(f32_to_f16(NAN))) && isnan(bf16_to_f32(f32_to_bf16(NAN))));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_frequencies),  cmocka_unit_test(test_greedy),
        cmocka_unit_test(test_order),        cmocka_unit_test(test_hopeless_logits),
        cmocka_unit_test(test_reproducible), cmocka_unit_test(test_route),
        cmocka_unit_test(test_formats),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
