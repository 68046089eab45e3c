/*
 * tools/bench_kernels.c - how fast the kernels of this machine are.
 *
 *     bench_kernels [device [threads]]      e.g. bench_kernels cpu:avx2 1
 *
 * Prints, for a device: the rate at which memory is read at all, matrix times vector against it,
 * matrix times many rows in arithmetic per second, and microseconds of the ops of a step at the
 * sizes of the released model. Each figure is the best of several runs, because whatever else the
 * machine does can only slow one down; the median stands beside it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "kernels/ops.h"

enum { RUNS = 15 };

static uint32_t state = 1;

static float noise(void)
{
    state = state * 1664525u + 1013904223u;
    return (float)(int32_t)state * 0x1p-31f;
}

static void *need(void *p)
{
    if (p == NULL) {
        fprintf(stderr, "bench_kernels: no memory left\n");
        exit(1);
    }
    return p;
}

static float *floats(size_t n)
{
    float *p = need(aligned_alloc(64, (n * sizeof(*p) + 63) / 64 * 64));
    for (size_t i = 0; i < n; i++)
        p[i] = noise();
    return p;
}

enum { GROUP = 128 }; /* columns of I8 matrices that share a scale */

static struct weight matrix(enum dtype type, int rows, int cols)
{
    size_t n = (size_t)rows * (size_t)cols, size = dtype_size(type);
    char *p = need(aligned_alloc(64, (n * size + 63) / 64 * 64));
    for (size_t i = 0; i < n && type != DT_I8; i++)
        dtype_write(type, p, i, noise());
    if (type != DT_I8)
        return (struct weight){.data = p, .type = type, .rows = rows, .cols = cols};
    for (size_t i = 0; i < n; i++)
        p[i] = (char)(127 * noise());
    const struct weight scale = matrix(DT_BF16, rows, cols / GROUP);
    return (struct weight){p, DT_I8, rows, cols, DT_BF16, scale.data, GROUP};
}

static void drop(struct weight *w)
{
    free((void *)(uintptr_t)w->scale);
    free((void *)(uintptr_t)w->data);
}

/* What is measured: `calls` times `run`. */
struct measure {
    void (*run)(struct measure *m);
    struct device *d;
    int n;
    unsigned flags;
    struct weight *w;
    float *y, *x, *a, *b;
    struct expert *e;
    int32_t *ids;
    struct kv *kv;
    struct attention *attention;
    int32_t pos;
};

/* Seconds of one call: best and median of RUNS, each of so many calls that it takes 2 ms. */
static double seconds(struct measure *m, double *median)
{
    double t[RUNS], start = clock_seconds();
    m->run(m);
    m->run(m);
    int calls = 1 + (int)(0.002 / ((clock_seconds() - start) / 2 + 1e-9));
    for (int i = 0; i < RUNS; i++) {
        start = clock_seconds();
        for (int j = 0; j < calls; j++)
            m->run(m);
        t[i] = (clock_seconds() - start) / calls;
    }
    qsort(t, RUNS, sizeof(*t), by_double);
    *median = t[RUNS / 2];
    return t[0];
}

static void run_linear(struct measure *m)
{
    m->d->op->linear(m->d, m->y, m->x, m->n, m->w, NULL, m->flags);
}

static void report(struct measure *m, const char *what, double bytes, double flops)
{
    double median, best = seconds(m, &median);
    printf("  %-40s %9.1f us  (median %9.1f)", what, best * 1e6, median * 1e6);
    if (bytes > 0)
        printf("  %6.1f GB/s", bytes / best * 1e-9);
    if (flops > 0)
        printf("  %7.1f GFLOP/s", flops / best * 1e-9);
    printf("\n");
    fflush(stdout);
}

/* Reads 512 MB; the best of several. */
static void bench_read(struct device *d)
{
    size_t bytes = (size_t)512 << 20;
    char *p = need(aligned_alloc(64, bytes));
    double rates[RUNS];
    memset(p, 1, bytes);
    for (int i = 0; i < RUNS; i++)
        rates[i] = device_read_rate(d, p, bytes) * 1e-9;
    qsort(rates, RUNS, sizeof(*rates), by_double);
    printf("memory is read at %.1f GB/s (median %.1f)\n", rates[RUNS - 1], rates[RUNS / 2]);
    free(p);
}

static void bench_linear(struct device *d, enum dtype type, int rows, int cols, int n,
                         unsigned flags)
{
    char what[96];
    snprintf(what, sizeof(what), "%s%s [%d, %d] n %d", dtype_name(type),
             flags & LINEAR_EXACT ? " exact" : "", rows, cols, n);
    struct weight w = matrix(type, rows, cols);
    struct measure m = {.run = run_linear, .d = d, .n = n, .flags = flags, .w = &w};
    m.x = floats((size_t)n * (size_t)cols);
    m.y = floats((size_t)n * (size_t)rows);
    double size = (double)rows * cols;
    report(&m, what, n == 1 ? (double)weight_bytes(&w) : 0, n > 1 ? 2 * size * n : 0);
    free(m.x);
    free(m.y);
    drop(&w);
}

static void bench_products(struct device *d)
{
    printf("matrix times vector, from memory\n");
    bench_linear(d, DT_BF16, 65536, 2048, 1, 0);
    bench_linear(d, DT_BF16, 65536, 2048, 1, LINEAR_EXACT);
    bench_linear(d, DT_F16, 65536, 2048, 1, 0);
    bench_linear(d, DT_F32, 32768, 2048, 1, 0);
    bench_linear(d, DT_I8, 131072, 2048, 1, 0);
    printf("matrix times vector, from the cache\n");
    bench_linear(d, DT_BF16, 2048, 1024, 1, 0);
    bench_linear(d, DT_BF16, 3072, 1024, 1, 0);
    bench_linear(d, DT_BF16, 1024, 1024, 1, 0);
    bench_linear(d, DT_BF16, 512, 512, 1, 0);
    bench_linear(d, DT_I8, 2048, 1024, 1, 0);
    bench_linear(d, DT_I8, 3072, 1024, 1, 0);
    bench_linear(d, DT_I8, 1024, 1024, 1, 0);
    bench_linear(d, DT_I8, 512, 512, 1, 0);
    bench_linear(d, DT_BF16, 128, 1024, 1, LINEAR_EXACT);
    printf("matrix times many rows\n");
    for (int t = 0; t <= DT_F16; t++) {
        bench_linear(d, (enum dtype)t, 2048, 2048, 128, 0);
        bench_linear(d, (enum dtype)t, 5120, 1280, 104, 0);
    }
    bench_linear(d, DT_F32, 480, 4320, 400, 0);
    bench_linear(d, DT_BF16, 2048, 2048, 2, 0);
    bench_linear(d, DT_BF16, 2048, 2048, 8, 0);
}

static void run_experts(struct measure *m)
{
    m->d->op->experts(m->d, m->y, m->x, m->n, m->e, 128, m->ids, m->a, 8);
}

static void bench_experts(struct device *d, int n)
{
    enum { EXPERTS = 128, K = 8, HIDDEN = 2048, INNER = 768 };
    struct expert e[EXPERTS];
    char what[96];
    snprintf(what, sizeof(what), "BF16 8 of 128, [768, 2048], n %d", n);
    for (int i = 0; i < EXPERTS; i++)
        e[i] = (struct expert){matrix(DT_BF16, INNER, HIDDEN), matrix(DT_BF16, INNER, HIDDEN),
                               matrix(DT_BF16, HIDDEN, INNER)};
    struct measure m = {.run = run_experts, .d = d, .n = n, .e = e};
    m.x = floats((size_t)n * HIDDEN);
    m.y = floats((size_t)n * HIDDEN);
    m.a = floats((size_t)n * K);
    m.ids = need(calloc((size_t)n * K, sizeof(*m.ids)));
    for (int i = 0; i < n * K; i++)
        m.ids[i] = i * 37 % EXPERTS;
    double one = 3.0 * INNER * HIDDEN;
    report(&m, what, n == 1 ? K * one * 2 : 0, n > 1 ? 2 * one * K * n : 0);
    free(m.x);
    free(m.y);
    free(m.a);
    free(m.ids);
    for (int i = 0; i < EXPERTS; i++) {
        drop(&e[i].gate);
        drop(&e[i].up);
        drop(&e[i].down);
    }
}

static void run_attend(struct measure *m)
{
    m->d->op->attend(m->d, m->y, m->x, m->n, m->kv, m->attention, &m->pos);
}

static void bench_attend(struct device *d, enum dtype type, int keys, int n)
{
    enum { HEADS = 32, KV = 4, DIM = 128 };
    char what[96];
    size_t cache = (size_t)keys * KV * DIM;
    snprintf(what, sizeof(what), "%s 32/4 heads of 128, %d keys, n %d", dtype_name(type), keys, n);
    struct weight k = matrix(type, keys, KV * DIM), v = matrix(type, keys, KV * DIM);
    struct kv kv = {(void *)(uintptr_t)k.data, (void *)(uintptr_t)v.data, type, keys, KV, DIM};
    struct attention a = {HEADS, 1, 0, 0.088f};
    struct measure m = {.run = run_attend, .d = d, .n = n, .kv = &kv, .attention = &a};
    m.pos = keys - n;
    m.x = floats((size_t)n * HEADS * DIM);
    m.y = floats((size_t)n * HEADS * DIM);
    report(&m, what, n == 1 ? 2.0 * (double)cache * (double)dtype_size(type) : 0,
           n > 1 ? 4.0 * n * HEADS * DIM * keys : 0);
    free(m.x);
    free(m.y);
    drop(&k);
    drop(&v);
}

static void run_conv1d(struct measure *m)
{
    m->d->op->conv1d(m->d, m->y, m->x, m->n, m->w, NULL, 7, m->pos, 0);
}

static void run_up(struct measure *m)
{
    m->d->op->conv1d_up(m->d, m->y, m->x, m->n, m->w, NULL, m->pos, 2 * m->pos);
}

static void run_snake(struct measure *m)
{
    m->d->op->snake(m->d, m->y, m->x, m->n, 96, m->a, m->b);
}

/* One 80 ms frame of Code2Wav's widest and longest convolutions. */
static void bench_conv(struct device *d, enum dtype type)
{
    static const int shapes[][4] = {{1024, 1536, 4, 1}, {768, 768, 32, 3}, {384, 384, 160, 3},
                                    {192, 192, 640, 3}, {96, 96, 1920, 9}, {96, 1, 1920, 1}};
    static const int ups[][4] = {{1536, 768, 4, 8}, {192, 96, 640, 3}};
    char what[96];
    for (size_t i = 0; i < ARRAY_LEN(shapes); i++) {
        int in = shapes[i][0], out = shapes[i][1], t = shapes[i][2];
        struct weight w = matrix(type, out, in * 7);
        struct measure m = {.run = run_conv1d, .d = d, .n = t, .w = &w, .pos = shapes[i][3]};
        float *x = floats((size_t)(t + 6 * m.pos) * (size_t)in);
        m.x = x + 6 * m.pos * in;
        m.y = floats((size_t)t * (size_t)out);
        snprintf(what, sizeof(what), "%s conv1d %d -> %d, dilation %d, t %d", dtype_name(type), in,
                 out, shapes[i][3], t);
        report(&m, what, 0, 14.0 * in * out * t);
        free(x);
        free(m.y);
        drop(&w);
    }
    for (size_t i = 0; i < ARRAY_LEN(ups); i++) {
        int in = ups[i][0], out = ups[i][1], t = ups[i][2], s = ups[i][3];
        struct weight w = matrix(type, in, out * 2 * s);
        struct measure m = {.run = run_up, .d = d, .n = t, .w = &w, .pos = s};
        float *x = floats((size_t)(t + 1) * (size_t)in);
        m.x = x + in;
        m.y = floats((size_t)t * (size_t)(out * s));
        snprintf(what, sizeof(what), "%s conv1d_up %d -> %d, stride %d, t %d", dtype_name(type), in,
                 out, s, t);
        report(&m, what, 0, 4.0 * in * out * s * t);
        free(x);
        free(m.y);
        drop(&w);
    }
}

static void run_conv2d(struct measure *m)
{
    m->d->op->conv2d(m->d, m->y, m->x, 1, 50, 64, m->w, m->a);
}

static void run_rms(struct measure *m)
{
    m->d->op->rms_norm(m->d, m->y, m->x, m->n, 2048, m->a, 1e-6f);
}

static void run_rope(struct measure *m)
{
    m->d->op->norm_rope(m->d, m->y, m->n, 32, 128, m->a, 1e-6f, m->b, &m->pos);
}

static void run_silu_mul(struct measure *m)
{
    m->d->op->silu_mul(m->d, m->y, m->x, (size_t)m->n * 3072);
}

static void run_route(struct measure *m)
{
    m->d->op->route(m->d, m->ids, m->y, m->x, m->n, 128, 8, 1);
}

static void run_sample(struct measure *m)
{
    static const struct sampling s = {1, 50, 0.8f, 1.05f, 0, 0, 1};
    static const struct sampling greedy = {0};
    uint64_t draw = 1;
    m->d->op->sample(m->d, m->ids, m->x, m->n, m->flags ? &greedy : &s, NULL, &draw);
}

static void bench_small(struct device *d)
{
    static const struct {
        const char *name;
        void (*run)(struct measure *m);
        int n;
        unsigned flags;
    } ops[] = {
        {"rms_norm 2048", run_rms, 1, 0},
        {"rms_norm 2048, n 128", run_rms, 128, 0},
        {"norm_rope 32 heads of 128, same position", run_rope, 1, 0},
        {"silu_mul 3072", run_silu_mul, 1, 0},
        {"route 8 of 128", run_route, 1, 0},
        {"route 8 of 128, n 128", run_route, 128, 0},
        {"sample 2048, top-k 50, top-p 0.8", run_sample, 2048, 0},
        {"sample 152064, greedy", run_sample, 152064, 1},
        {"snake 96, t 1920", run_snake, 1920, 0},
    };
    struct weight w = matrix(DT_F32, 480, 480 * 9);
    int32_t ids[1024] = {0};
    for (size_t i = 0; i < ARRAY_LEN(ops); i++) {
        struct measure m = {.run = ops[i].run, .d = d, .n = ops[i].n, .flags = ops[i].flags};
        m.x = floats(1 << 20);
        m.y = floats(1 << 20);
        m.a = floats(1 << 12);
        m.b = floats(1 << 12);
        m.ids = ids;
        report(&m, ops[i].name, 0, 0);
        free(m.x);
        free(m.y);
        free(m.a);
        free(m.b);
    }
    struct measure m = {.run = run_conv2d, .d = d, .w = &w, .x = floats(64 * 50 * 480)};
    m.y = floats(32 * 25 * 480);
    m.a = floats(480);
    report(&m, "F32 conv2d 480 -> 480, 50 x 64", 0, 2.0 * 32 * 25 * 480 * 480 * 9);
    free(m.x);
    free(m.y);
    free(m.a);
    drop(&w);
}

int main(int argc, char **argv)
{
    struct problems why = {0};
    struct device_opts o = {.name = argc > 1 ? argv[1] : NULL,
                            .threads = argc > 2 ? (int)strtol(argv[2], NULL, 10) : 0};
    struct device *d;
    if (device_open(&d, &o, &why) < 0) {
        fprintf(stderr, "bench_kernels: %s\n", why.text[0]);
        problems_free(&why);
        return 1;
    }
    printf("%s\n", d->name);
    bench_read(d);
    bench_products(d);
    printf("mixture of experts\n");
    bench_experts(d, 1);
    bench_experts(d, 128);
    printf("attention\n");
    bench_attend(d, DT_BF16, 4000, 1);
    bench_attend(d, DT_F32, 4000, 1);
    bench_attend(d, DT_BF16, 4000, 128);
    bench_attend(d, DT_BF16, 500, 1);
    printf("convolutions\n");
    bench_conv(d, DT_F32);
    bench_conv(d, DT_BF16);
    printf("small ops\n");
    bench_small(d);
    device_close(d);
    return 0;
}
