/*
 * tests/unit/test_kernels.c - every op of every backend against its plain-C twin.
 *
 * For each instruction set of this machine an op is run over real and awkward shapes and compared
 * with the plain backend (error relative to the largest value), then run again row by row and with
 * other numbers of threads: those must agree bit for bit. Weights begin at an odd element, so that
 * nothing may count on alignment. Where a backend rounds x to bf16 the test does so beforehand, so
 * that the tight bound applies to it as well.
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
#include "tests/support/sanitized.h"

static const char *const instruction_sets[] = {"cpu:avx512bf16", "cpu:avx512", "cpu:avx2",
                                               "cpu:neon", "cpu:generic"};

/* The devices of one instruction set. */
struct devices {
    const char *name;
    struct device *plain;
    struct device *one;   /* one thread */
    struct device *three; /* three */
};

static uint64_t state = 1;

/* Uniform in [-1, 1). */
static float noise(void)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (float)(int32_t)(state >> 32) * 0x1p-31f;
}

static float *floats(size_t n)
{
    float *p = malloc((n ? n : 1) * sizeof(*p));
    assert_non_null(p);
    return p;
}

static float *random_floats(size_t n, float scale)
{
    float *p = floats(n);
    for (size_t i = 0; i < n; i++)
        p[i] = noise() * scale;
    return p;
}

/* Values that bf16 holds exactly when `type` is bf16: what backends may round x to. */
static float *random_input(size_t n, enum dtype type)
{
    float *p = random_floats(n, 1);
    for (size_t i = 0; i < n && type == DT_BF16; i++)
        p[i] = bf16_to_f32(f32_to_bf16(p[i]));
    return p;
}

/* Random bytes whose last ones in a row are no weights, in groups that change from call to call. */
static struct weight random_bytes(int rows, int cols)
{
    static const int groups[] = {128, 32, 16, 1, 3, 10, 1000, 65536};
    static unsigned turn;
    struct weight w = {.type = DT_I8, .rows = rows, .cols = cols, .scale_type = turn % 3};
    w.group = min_int(groups[turn++ % ARRAY_LEN(groups)], cols);
    size_t bytes = (size_t)rows * weight_row_bytes(&w);
    size_t scales = (size_t)rows * (size_t)weight_groups(&w);
    uint8_t *p = malloc(bytes + 1);
    void *scale = malloc(scales * dtype_size(w.scale_type));
    assert_true(p != NULL && scale != NULL);
    for (size_t i = 0; i < bytes; i++)
        p[i + 1] = (uint8_t)(128 + 127.9f * noise());
    for (size_t i = 0; i < scales; i++)
        dtype_write(w.scale_type, scale, i, (1.2f + noise()) * 0.004f);
    w.data = p + 1;
    w.scale = scale;
    return w;
}

/* A random matrix whose data begins one element behind an allocation. */
static struct weight random_weight(enum dtype type, int rows, int cols)
{
    size_t count = (size_t)rows * (size_t)cols, size = dtype_size(type);
    if (type == DT_I8)
        return random_bytes(rows, cols);
    char *p = malloc((count + 1) * size);
    assert_non_null(p);
    for (size_t i = 0; i < count; i++)
        dtype_write(type, p, i + 1, noise() * 0.5f);
    return (struct weight){.data = p + size, .type = type, .rows = rows, .cols = cols};
}

static void free_weight(struct weight *w)
{
    free((char *)(uintptr_t)w->data - dtype_size(w->type));
    free((void *)(uintptr_t)w->scale);
}

/* |got - want| <= tolerance * max |want|; sums of terms of size 1 may come out as nearly nothing,
 * but not with more digits. */
static void close_to(const struct devices *d, const char *what, const float *got, const float *want,
                     size_t n, double tolerance)
{
    double top = 0.05;
    for (size_t i = 0; i < n; i++)
        top = fabs((double)want[i]) > top ? fabs((double)want[i]) : top;
    for (size_t i = 0; i < n; i++) {
        double e = fabs((double)got[i] - want[i]) / top;
        if (!(e <= tolerance))
            fail_msg("%s: %s: element %zu is %g, the twin has %g (relative error %g)", d->name,
                     what, i, (double)got[i], (double)want[i], e);
    }
}

static void same(const struct devices *d, const char *what, const float *a, const float *b,
                 size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (memcmp(&a[i], &b[i], sizeof(*a)) != 0)
            fail_msg("%s: %s: element %zu is %.9g here and %.9g there", d->name, what, i,
                     (double)a[i], (double)b[i]);
}

enum { TYPES = DT_FLOATS };
/* Rows, tokens and positions of the larger cases. */
enum { MANY = SANITIZED ? 18 : 130, SOME = SANITIZED ? 5 : 40, WINDOW = SANITIZED ? 26 : 104 };
static const int counts[] = {1, 2, 3, 5, 17, MANY};

static void linear_case(const struct devices *d, enum dtype type, int rows, int cols, int n,
                        unsigned flags)
{
    char what[128];
    snprintf(what, sizeof(what), "linear %s [%d, %d] n %d flags %u", dtype_name(type), rows, cols,
             n, flags);
    size_t out = (size_t)n * (size_t)rows;
    struct weight w = random_weight(type, rows, cols);
    float *x = flags & LINEAR_EXACT ? random_floats((size_t)n * (size_t)cols, 1)
                                    : random_input((size_t)n * (size_t)cols, type);
    float *bias = random_floats((size_t)rows, 1), *y = random_floats(out, 1);
    float *want = floats(out), *many = floats(out);
    const float *b = flags & LINEAR_SILU ? NULL : bias;
    memcpy(want, y, out * sizeof(*y));
    memcpy(many, y, out * sizeof(*y));
    d->plain->op->linear(d->plain, want, x, n, &w, b, flags);
    d->three->op->linear(d->three, many, x, n, &w, b, flags);
    close_to(d, what, many, want, out, type == DT_I8 ? 1e-5 : 2e-6);
    for (int i = 0; i < n; i++)
        d->one->op->linear(d->one, y + (size_t)i * (size_t)rows, x + (size_t)i * (size_t)cols, 1,
                           &w, b, flags);
    same(d, what, many, y, out);
    free(x);
    free(bias);
    free(y);
    free(want);
    free(many);
    free_weight(&w);
}

static void linear_cases(const struct devices *d, enum dtype type)
{
    static const int dims[][2] = {{1, 1},     {3, 5},     {13, 37},   {37, 13}, {72, 127},
                                  {127, 72},  {8, 2048},  {129, 768}, {64, 31}, {5, 2049},
                                  {33, 4320}, {1280, 64}, {300, 1000}}; /* the largest last */
    static const unsigned flags[] = {
        0, LINEAR_ADD, LINEAR_GELU, LINEAR_SILU, LINEAR_ADD | LINEAR_GELU, LINEAR_EXACT};
    for (size_t i = 0; i < ARRAY_LEN(dims) - SANITIZED; i++)
        for (size_t n = 0; n < ARRAY_LEN(counts) - SANITIZED; n++)
            linear_case(d, type, dims[i][0], dims[i][1], counts[n],
                        flags[(i + n) % ARRAY_LEN(flags)]);
}

static void test_linear(const struct devices *d)
{
    for (int t = 0; t < TYPES; t++)
        linear_cases(d, (enum dtype)t);
}

/* An op on fp32 rows, for those that are the same in shape. */
struct row_op {
    const char *name;
    void (*run)(struct device *d, float *y, const float *x, int n, int dim, const float *a,
                const float *b);
};

static void run_rms(struct device *d, float *y, const float *x, int n, int dim, const float *a,
                    const float *b)
{
    (void)b;
    d->op->rms_norm(d, y, x, n, dim, a, 1e-6f);
}

static void run_layer(struct device *d, float *y, const float *x, int n, int dim, const float *a,
                      const float *b)
{
    d->op->layer_norm(d, y, x, n, dim, a, b, 1e-5f);
}

static void run_silu_mul(struct device *d, float *y, const float *x, int n, int dim, const float *a,
                         const float *b)
{
    (void)a;
    (void)b;
    d->op->silu_mul(d, y, x, (size_t)n * (size_t)dim);
}

static void run_add(struct device *d, float *y, const float *x, int n, int dim, const float *a,
                    const float *b)
{
    (void)a;
    (void)b;
    d->op->add(d, y, x, (size_t)n * (size_t)dim);
}

static void run_scale_add(struct device *d, float *y, const float *x, int n, int dim,
                          const float *a, const float *b)
{
    (void)b;
    d->op->scale_add(d, y, x, n, dim, a);
}

static void run_snake(struct device *d, float *y, const float *x, int n, int dim, const float *a,
                      const float *b)
{
    d->op->snake(d, y, x, n, dim, a, b);
}

static const struct row_op row_ops[] = {
    {"rms_norm", run_rms}, {"layer_norm", run_layer},    {"silu_mul", run_silu_mul},
    {"add", run_add},      {"scale_add", run_scale_add}, {"snake", run_snake},
};

static void row_case(const struct devices *d, const struct row_op *op, int n, int dim, float scale)
{
    char what[128];
    snprintf(what, sizeof(what), "%s n %d dim %d x %g", op->name, n, dim, (double)scale);
    size_t count = (size_t)n * (size_t)dim;
    float *x = random_floats(count, scale), *y = random_floats(count, scale);
    float *a = random_floats((size_t)dim, 2), *b = random_floats((size_t)dim, 1);
    float *want = floats(count), *many = floats(count);
    memcpy(want, y, count * sizeof(*y));
    memcpy(many, y, count * sizeof(*y));
    op->run(d->plain, want, x, n, dim, a, b);
    op->run(d->three, many, x, n, dim, a, b);
    /* Three values may lie so close together that their mean takes most digits with it. */
    close_to(d, what, many, want, count, dim > 3 ? 1e-6 : 1e-5);
    for (int i = 0; i < n; i++)
        op->run(d->one, y + (size_t)i * (size_t)dim, x + (size_t)i * (size_t)dim, 1, dim, a, b);
    same(d, what, many, y, count);
    free(x);
    free(y);
    free(a);
    free(b);
    free(want);
    free(many);
}

static void test_rows(const struct devices *d)
{
    static const int dims[] = {1, 3, 13, 37, 72, 127, 128, 1024, 2048};
    for (size_t o = 0; o < ARRAY_LEN(row_ops); o++)
        for (size_t i = 0; i < ARRAY_LEN(dims); i++)
            for (size_t n = 0; n < ARRAY_LEN(counts); n++)
                row_case(d, &row_ops[o], counts[n], dims[i], n % 2 ? 40 : 1);
}

/* sin(x alpha)^2 near and far; gelu and silu where they are small or large; absolute bounds. */
static void test_functions(const struct devices *d)
{
    static const float scales[] = {1, 10, 100, 8000, 9000, 1e6f};
    enum { N = 4099 };
    float one = 1, *y = floats(N), *got = floats(N), *up = floats(N);
    struct weight w = {.data = &one, .type = DT_F32, .rows = 1, .cols = 1};
    for (size_t s = 0; s < ARRAY_LEN(scales); s++) {
        float *x = random_floats(N, scales[s]);
        memcpy(y, x, N * sizeof(*x));
        d->one->op->snake(d->one, got, x, N, 1, &one, &one);
        for (int i = 0; i < N; i++) {
            double v = pow(sin((double)x[i]), 2), e = fabs((double)got[i] - x[i] - v);
            assert_true(e <= 2.5e-7 + fabs((double)x[i]) * 0x1p-23);
        }
        free(x);
    }
    for (int i = 0; i < N; i++)
        y[i] = (float)(i - N / 2) * 0.006f; /* -12.3 .. 12.3 */
    d->one->op->linear(d->one, got, y, N, &w, NULL, LINEAR_GELU);
    for (int i = 0; i < N; i++) {
        double v = 0.5 * (double)y[i] * erfc(-(double)y[i] * M_SQRT1_2);
        assert_true(fabs((double)got[i] - v) <=
                    1e-6 * fabs(v) * (1 + (double)(y[i] * y[i])) + 1e-30);
        up[i] = 1;
    }
    memcpy(got, y, N * sizeof(*y));
    d->one->op->silu_mul(d->one, got, up, N);
    for (int i = 0; i < N; i++)
        assert_true(fabs((double)got[i] - (double)y[i] / (1 + exp(-(double)y[i]))) <=
                    1e-6 * fabs((double)y[i]));
    free(y);
    free(got);
    free(up);
}

static void test_gate_add(const struct devices *d)
{
    enum { N = 5, DIM = 37 };
    float *x = random_floats(N * DIM, 1), *y = random_floats(N * DIM, 1);
    float gate[N] = {0, 100, -100, 2, -3}, want[N * DIM];
    memcpy(want, y, sizeof(want));
    d->plain->op->gate_add(d->plain, want, x, N, DIM, gate);
    d->three->op->gate_add(d->three, y, x, N, DIM, gate);
    close_to(d, "gate_add", y, want, N * DIM, 1e-6);
    free(x);
    free(y);
}

static void test_embed_transpose(const struct devices *d)
{
    enum { N = 3, COLS = 37 };
    int32_t ids[N] = {4, 0, 2};
    for (int t = 0; t < TYPES; t++)
        for (int add = 0; add < 2; add++) {
            struct weight w = random_weight((enum dtype)t, 5, COLS);
            float *y = random_floats(N * COLS, 1), want[N * COLS], turned[N * COLS];
            memcpy(want, y, sizeof(want));
            d->plain->op->embed(d->plain, want, &w, ids, N, add);
            d->three->op->embed(d->three, y, &w, ids, N, add);
            same(d, "embed", y, want, N * COLS);
            d->three->op->transpose(d->three, turned, y, 1, N, COLS);
            for (int i = 0; i < N * COLS; i++)
                assert_true(turned[i] == y[i % N * COLS + i / N]);
            free(y);
            free_weight(&w);
        }
}

static void rope_case(const struct devices *d, int n, int heads, int dim, int pos, int norm)
{
    size_t count = (size_t)n * (size_t)heads * (size_t)dim, row = (size_t)heads * (size_t)dim;
    float *x = random_floats(count, 1), *want = floats(count), *many = floats(count);
    float *w = random_floats((size_t)dim, 2), *freq = floats((size_t)dim / 2 + 1);
    for (int i = 0; i < dim / 2; i++)
        freq[i] = powf(1e6f, -2.0f * (float)i / (float)dim);
    memcpy(want, x, count * sizeof(*x));
    memcpy(many, x, count * sizeof(*x));
    int32_t p = pos;
    d->plain->op->norm_rope(d->plain, want, n, heads, dim, norm ? w : NULL, 1e-6f, freq, &p);
    d->three->op->norm_rope(d->three, many, n, heads, dim, norm ? w : NULL, 1e-6f, freq, &p);
    close_to(d, "norm_rope", many, want, count, 1e-6);
    for (int i = 0; i < n; i++, p++)
        d->one->op->norm_rope(d->one, x + (size_t)i * row, 1, heads, dim, norm ? w : NULL, 1e-6f,
                              freq, &p);
    same(d, "norm_rope", many, x, count);
    free(x);
    free(want);
    free(many);
    free(w);
    free(freq);
}

static void test_norm_rope(const struct devices *d)
{
    rope_case(d, 1, 32, 128, 0, 1);
    rope_case(d, 5, 4, 128, 31999, 1);
    rope_case(d, MANY, 16, 64, 7, 0);
    rope_case(d, 3, 3, 6, 100, 1);
    rope_case(d, 3, 3, 26, 100, 0);
}

struct attend_shape {
    int heads, kv_heads, dim, rows, before, n, causal, window;
};

/* Stores `before` positions, then n more, and attends from those. */
static void attend_case(const struct devices *d, const struct attend_shape *s, enum dtype type)
{
    char what[128];
    snprintf(what, sizeof(what), "attend %s heads %d/%d dim %d rows %d before %d n %d window %d",
             dtype_name(type), s->heads, s->kv_heads, s->dim, s->rows, s->before, s->n, s->window);
    size_t width = (size_t)s->kv_heads * (size_t)s->dim, all = (size_t)(s->before + s->n) * width;
    size_t row = (size_t)s->heads * (size_t)s->dim, out = (size_t)s->n * row;
    size_t cache = (size_t)s->rows * width;
    float *k = random_floats(all, 1), *v = random_floats(all, 1), *q = random_floats(out, 3);
    float *want = floats(out), *many = floats(out), *y = floats(out);
    struct attention a = {s->heads, s->causal, s->window, 1 / sqrtf((float)s->dim)};
    struct kv kv = {calloc(cache, 4), calloc(cache, 4), type, s->rows, s->kv_heads, s->dim};
    struct kv twin = {calloc(cache, 4), calloc(cache, 4), type, s->rows, s->kv_heads, s->dim};
    int32_t zero = 0, pos = s->before;
    for (int at = 0; at < s->before; at++) {
        d->one->op->kv_store(d->one, &kv, k + (size_t)at * width, v + (size_t)at * width, 1, &zero);
        zero++;
    }
    d->one->op->kv_store(d->one, &kv, k + (size_t)pos * width, v + (size_t)pos * width, s->n, &pos);
    zero = 0;
    d->plain->op->kv_store(d->plain, &twin, k, v, s->before + s->n, &zero);
    assert_memory_equal(kv.k, twin.k, cache * dtype_size(type));
    assert_memory_equal(kv.v, twin.v, cache * dtype_size(type));
    d->plain->op->attend(d->plain, want, q, s->n, &kv, &a, &pos);
    d->three->op->attend(d->three, many, q, s->n, &kv, &a, &pos);
    close_to(d, what, many, want, out, 2e-6);
    d->one->op->attend(d->one, y, q, s->n, &kv, &a, &pos);
    same(d, what, many, y, out);
    for (int i = 0; s->causal && i < s->n; i++, pos++)
        d->one->op->attend(d->one, y + (size_t)i * row, q + (size_t)i * row, 1, &kv, &a, &pos);
    same(d, what, many, y, out);
    free(k);
    free(v);
    free(q);
    free(want);
    free(many);
    free(y);
    free(kv.k);
    free(kv.v);
    free(twin.k);
    free(twin.v);
}

static void test_attend(const struct devices *d)
{
    static const struct attend_shape shapes[] = {
        {1, 1, 1, 4, 0, 1, 1, 0},
        {3, 1, 13, 40, 5, 3, 1, 0},
        {32, 4, 128, 700, 600, 1, 1, 0},
        {8, 2, 128, 300, 150, MANY, 1, 0},
        {16, 16, 64, 202, 700, MANY, 1, 72},
        {4, 2, 37, 8, 20, 3, 1, 5},
        {20, 20, 64, WINDOW, 0, WINDOW, 0, 0},
        {4, 4, 72, 13, 0, 13, 0, 0},
        {16, 8, 128, 16, 0, 2, 1, 0},
        {2, 1, 127, 600, 511, 17, 1, 300},
    };
    for (int t = 0; t < TYPES; t++)
        for (size_t i = 0; i < ARRAY_LEN(shapes); i++)
            attend_case(d, &shapes[i], (enum dtype)t);
}

/* DT_COUNT: every expert of another type. */
static void experts_case(const struct devices *d, enum dtype type, int hidden, int inner, int many,
                         int k, int n)
{
    size_t out = (size_t)n * (size_t)hidden, slots = (size_t)n * (size_t)k;
    struct expert *e = calloc((size_t)many, sizeof(*e));
    float *x = random_input(out, type), *y = random_floats(out, 1);
    float *want = floats(out), *got = floats(out);
    float *logits = random_floats((size_t)n * (size_t)many, 3), *weights = floats(slots);
    int32_t *ids = calloc(slots, sizeof(*ids));
    for (int i = 0; i < many; i++) {
        enum dtype t = type == DT_COUNT ? (enum dtype)(i % DT_COUNT) : type;
        e[i] = (struct expert){random_weight(t, inner, hidden), random_weight(t, inner, hidden),
                               random_weight(t, hidden, inner)};
    }
    d->three->op->route(d->three, ids, weights, logits, n, many, k, 1);
    memcpy(want, y, out * sizeof(*y));
    memcpy(got, y, out * sizeof(*y));
    d->plain->op->experts(d->plain, want, x, n, e, many, ids, weights, k);
    d->three->op->experts(d->three, got, x, n, e, many, ids, weights, k);
    int rounds = type == DT_BF16 && strstr(d->name, "bf16") != NULL; /* between up and down */
    close_to(d, "experts", got, want, out, rounds ? 4e-3 : 3e-6);
    for (int i = 0; i < n; i++)
        d->one->op->experts(d->one, y + (size_t)i * (size_t)hidden, x + (size_t)i * (size_t)hidden,
                            1, e, many, ids + i * k, weights + i * k, k);
    same(d, "experts", got, y, out);
    for (int i = 0; i < many; i++) {
        free_weight(&e[i].gate);
        free_weight(&e[i].up);
        free_weight(&e[i].down);
    }
    free(e);
    free(x);
    free(y);
    free(want);
    free(got);
    free(logits);
    free(weights);
    free(ids);
}

static void test_experts(const struct devices *d)
{
    for (int t = 0; t < TYPES; t++) {
        experts_case(d, (enum dtype)t, 13, 37, 4, 2, 1);
        experts_case(d, (enum dtype)t, 72, 33, 5, 5, 17);
        experts_case(d, (enum dtype)t, 256, 96, 16, 6, SOME);
        experts_case(d, (enum dtype)t, 1, 1, 1, 1, 3);
    }
}

/* 8-bit weights, where they may stand. */
static void test_bytes(const struct devices *d)
{
    int32_t ids[] = {4, 0, 2};
    float want[3 * 37], got[3 * 37];
    struct weight table = random_weight(DT_I8, 5, 37);
    d->plain->op->embed(d->plain, want, &table, ids, 3, 0);
    d->three->op->embed(d->three, got, &table, ids, 3, 0);
    same(d, "embed I8", got, want, ARRAY_LEN(got));
    free_weight(&table);
    linear_cases(d, DT_I8);
    for (int i = 0; i < 8; i++) /* of groups */
        experts_case(d, DT_I8, 256, 96, 16, 6, SOME);
    experts_case(d, DT_I8, 13, 37, 4, 2, 1);
    experts_case(d, DT_I8, 1, 1, 1, 1, 3);
    experts_case(d, DT_COUNT, 72, 33, 5, 3, 17);
}

static void conv2d_case(const struct devices *d, enum dtype type, int n, int h, int w, int in,
                        int out)
{
    size_t image = (size_t)h * (size_t)w * (size_t)in;
    size_t result = (size_t)((h + 1) / 2) * (size_t)((w + 1) / 2) * (size_t)out;
    struct weight weight = random_weight(type, out, in * 9);
    float *x = random_input((size_t)n * image, type), *bias = random_floats((size_t)out, 1);
    float *want = floats((size_t)n * result), *got = floats((size_t)n * result);
    float *y = floats((size_t)n * result);
    d->plain->op->conv2d(d->plain, want, x, n, h, w, &weight, bias);
    d->three->op->conv2d(d->three, got, x, n, h, w, &weight, bias);
    close_to(d, "conv2d", got, want, (size_t)n * result, 2e-6);
    for (int i = 0; i < n; i++)
        d->one->op->conv2d(d->one, y + (size_t)i * result, x + (size_t)i * image, 1, h, w, &weight,
                           bias);
    same(d, "conv2d", got, y, (size_t)n * result);
    free(x);
    free(bias);
    free(want);
    free(got);
    free(y);
    free_weight(&weight);
}

/* Which way round the two kernel axes lie: one pixel, one weight. */
static void conv2d_axes(const struct devices *d)
{
    float weights[9] = {0}, x[12] = {0}, y[4], bias = 0;
    struct weight w = {.data = weights, .type = DT_F32, .rows = 1, .cols = 9};
    weights[0 * 3 + 1] = 1; /* one to the left along w, centre along h */
    x[2 * 4 + 1] = 5;       /* h 2, w 1 of [3, 4]; output (1, 1) is centred on (2, 2) */
    d->one->op->conv2d(d->one, y, x, 1, 3, 4, &w, &bias);
    assert_true(y[0] == 0 && y[1] == 0 && y[2] == 0 && fabsf(y[3] - 5) < 1e-4f);
}

static void test_conv2d(const struct devices *d)
{
    conv2d_axes(d);
    for (int t = 0; t < TYPES; t++) {
        conv2d_case(d, (enum dtype)t, 1, 1, 1, 1, 1);
        conv2d_case(d, (enum dtype)t, 2, 13, 16, 1, 12);
        conv2d_case(d, (enum dtype)t, 3, 7, 8, 13, 37);
        conv2d_case(d, (enum dtype)t, 1, 25, 32, 48, 48);
    }
}

struct conv1d_shape {
    int in, out, kernel, dilation, t;
    unsigned flags;
};

static void conv1d_case(const struct devices *d, enum dtype type, const struct conv1d_shape *s)
{
    size_t history = (size_t)(s->kernel - 1) * (size_t)s->dilation, in = (size_t)s->in;
    size_t out = (size_t)s->out, count = (size_t)s->t * out;
    struct weight w = random_weight(type, s->out, s->in * s->kernel);
    float *x = random_input((history + (size_t)s->t) * in, type), *now = x + history * in;
    float *bias = random_floats(out, 1), *y = random_floats(count, 1);
    float *want = floats(count), *got = floats(count);
    memcpy(want, y, count * sizeof(*y));
    memcpy(got, y, count * sizeof(*y));
    d->plain->op->conv1d(d->plain, want, now, s->t, &w, bias, s->kernel, s->dilation, s->flags);
    d->three->op->conv1d(d->three, got, now, s->t, &w, bias, s->kernel, s->dilation, s->flags);
    close_to(d, "conv1d", got, want, count, 2e-6);
    for (int i = 0; i < s->t; i++)
        d->one->op->conv1d(d->one, y + (size_t)i * out, now + (size_t)i * in, 1, &w, bias,
                           s->kernel, s->dilation, s->flags);
    same(d, "conv1d", got, y, count);
    free(x);
    free(bias);
    free(y);
    free(want);
    free(got);
    free_weight(&w);
}

static void test_conv1d(const struct devices *d)
{
    static const struct conv1d_shape shapes[] = {
        {1, 1, 7, 1, 1, 0},           {13, 37, 7, 3, 17, LINEAR_ADD},
        {96, 1, 7, 1, MANY, 0},       {24, 24, 1, 1, SOME, 0},
        {12, 300, 7, 9, 33, 0},       {72, 260, 3, 1, 5, LINEAR_ADD},
        {96, 96, 7, 9, MANY + 70, 0},
    };
    for (int t = 0; t < TYPES; t++)
        for (size_t i = 0; i < ARRAY_LEN(shapes); i++)
            conv1d_case(d, (enum dtype)t, &shapes[i]);
}

static void depthwise_case(const struct devices *d, int t, int channels, int kernel)
{
    size_t dim = (size_t)channels, count = (size_t)t * dim;
    float *x = random_floats((size_t)(t + kernel - 1) * dim, 1);
    float *now = x + (size_t)(kernel - 1) * dim, *w = random_floats(dim * (size_t)kernel, 1);
    float *bias = random_floats(dim, 1), *want = floats(count), *got = floats(count);
    float *y = floats(count);
    d->plain->op->conv1d_depthwise(d->plain, want, now, t, channels, w, bias, kernel);
    d->three->op->conv1d_depthwise(d->three, got, now, t, channels, w, bias, kernel);
    close_to(d, "conv1d_depthwise", got, want, count, 1e-6);
    for (int i = 0; i < t; i++)
        d->one->op->conv1d_depthwise(d->one, y + (size_t)i * dim, now + (size_t)i * dim, 1,
                                     channels, w, bias, kernel);
    same(d, "conv1d_depthwise", got, y, count);
    free(x);
    free(w);
    free(bias);
    free(want);
    free(got);
    free(y);
}

static void test_depthwise(const struct devices *d)
{
    depthwise_case(d, 1, 1, 7);
    depthwise_case(d, 17, 37, 7);
    depthwise_case(d, MANY, 1024, 7);
}

static void up_case(const struct devices *d, enum dtype type, int in, int out, int stride,
                    int kernel, int t)
{
    size_t history = kernel > stride ? (size_t)in : 0, block = (size_t)stride * (size_t)out;
    struct weight w = random_weight(type, in, out * kernel);
    float *x = random_floats(history + (size_t)t * (size_t)in, 1), *now = x + history;
    float *bias = random_floats((size_t)out, 1), *want = floats((size_t)t * block);
    float *got = floats((size_t)t * block), *y = floats((size_t)t * block);
    d->plain->op->conv1d_up(d->plain, want, now, t, &w, bias, stride, kernel);
    d->three->op->conv1d_up(d->three, got, now, t, &w, bias, stride, kernel);
    close_to(d, "conv1d_up", got, want, (size_t)t * block, 2e-6);
    for (int i = 0; i < t; i++)
        d->one->op->conv1d_up(d->one, y + (size_t)i * block, now + (size_t)i * (size_t)in, 1, &w,
                              bias, stride, kernel);
    same(d, "conv1d_up", got, y, (size_t)t * block);
    free(x);
    free(bias);
    free(want);
    free(got);
    free(y);
    free_weight(&w);
}

static void test_up(const struct devices *d)
{
    for (int t = 0; t < TYPES; t++) {
        up_case(d, (enum dtype)t, 1, 1, 2, 2, 1);
        up_case(d, (enum dtype)t, 64, 72, 2, 2, 5);
        up_case(d, (enum dtype)t, 300, 37, 8, 16, 4);
        up_case(d, (enum dtype)t, 48, 13, 5, 10, MANY);
        up_case(d, (enum dtype)t, 24, 96, 3, 6, 60);
    }
}

/* A device of this name and number of threads, or NULL when this machine has none such. */
static struct device *open_device(const char *name, int threads)
{
    struct device *d;
    struct device_opts o = {.name = name, .threads = threads};
    return device_open(&d, &o, NULL) == 0 ? d : NULL;
}

static void for_each_device(void (*test)(const struct devices *d))
{
    for (size_t i = 0; i < ARRAY_LEN(instruction_sets); i++) {
        struct devices d = {.name = instruction_sets[i]};
        d.one = open_device(d.name, 1);
        if (d.one == NULL)
            continue;
        d.three = open_device(d.name, 3);
        d.plain = open_device("plain", 0);
        assert_non_null(d.three);
        assert_non_null(d.plain);
        test(&d);
        device_close(d.one);
        device_close(d.three);
        device_close(d.plain);
    }
}

#define EACH_DEVICE(name)                                                                          \
    static void name##_each(void **unused)                                                         \
    {                                                                                              \
        (void)unused;                                                                              \
        for_each_device(name);                                                                     \
    }

EACH_DEVICE(test_linear)
EACH_DEVICE(test_rows)
EACH_DEVICE(test_functions)
EACH_DEVICE(test_gate_add)
EACH_DEVICE(test_embed_transpose)
EACH_DEVICE(test_norm_rope)
EACH_DEVICE(test_attend)
EACH_DEVICE(test_experts)
EACH_DEVICE(test_conv2d)
EACH_DEVICE(test_conv1d)
EACH_DEVICE(test_depthwise)
EACH_DEVICE(test_up)
EACH_DEVICE(test_bytes)

static void test_names(void **unused)
{
    (void)unused;
    struct problems why = {0};
    struct device *d;
    struct device_opts o = {.name = "cpu:no-such-set"};
    assert_int_equal(device_open(&d, &o, &why), -22);
    assert_int_equal(why.n, 1);
    assert_non_null(strstr(why.text[0], "cpu:generic"));
    assert_non_null(strstr(why.text[0], "plain"));
#ifdef PARLEY_CUDA
    assert_non_null(strstr(why.text[0], "cuda"));
#else
    assert_null(strstr(why.text[0], "cuda"));
#endif
    problems_free(&why);
    device_close(NULL);
    o.name = NULL;
    assert_int_equal(device_open(&d, &o, NULL), 0);
    assert_non_null(strstr(d->name, "cpu"));
    float *bytes = d->op->alloc(d, 3 << 20);
    assert_int_equal((uintptr_t)bytes % 64, 0);
    assert_true(bytes[0] == 0 && device_read_rate(d, bytes, 3 << 20) > 0);
    d->op->release(d, bytes);
    device_close(d);
}

int main(void)
{
    for (size_t i = 0; i < ARRAY_LEN(instruction_sets); i++) {
        struct device *d = open_device(instruction_sets[i], 1);
        printf("%s: %s\n", instruction_sets[i], d ? "tested" : "skipped, not on this machine");
        device_close(d);
    }
    fflush(stdout);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),          cmocka_unit_test(test_linear_each),
        cmocka_unit_test(test_rows_each),      cmocka_unit_test(test_functions_each),
        cmocka_unit_test(test_gate_add_each),  cmocka_unit_test(test_embed_transpose_each),
        cmocka_unit_test(test_norm_rope_each), cmocka_unit_test(test_attend_each),
        cmocka_unit_test(test_experts_each),   cmocka_unit_test(test_conv2d_each),
        cmocka_unit_test(test_conv1d_each),    cmocka_unit_test(test_depthwise_each),
        cmocka_unit_test(test_up_each),        cmocka_unit_test(test_bytes_each),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
