/*
 * tools/bench_cuda.c - how fast the CUDA ops are at the sizes of the released model.
 *
 *     bench_cuda [PREFIX]     only cases whose name begins so
 *
 * A case is a sequence of ops over several sets of weights, so many that they do not fit into the
 * second-level cache, recorded as one step; printed are the time of one round (one set), the rate
 * at which its weights are read and what share of the device's read rate that is. Median of RUNS.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "kernels/ops.h"

enum { RUNS = 11, REPLAYS = 10, SETS = 48, FAR = 300 << 20, ROOM = 64 << 20, POOL = 32 << 20 };

static struct device *d;
static const struct ops *op;
static char *pool; /* random numbers of 16 bits, where weights lie */
static size_t pool_at, pool_bytes;
static float *room[8]; /* activations */
static double rate;    /* at which the device reads, bytes/s */
static const char *prefix;

static void *need(void *p)
{
    if (p == NULL) {
        fprintf(stderr, "bench_cuda: no memory left\n");
        exit(1);
    }
    return p;
}

/* Room for weights behind what was given out last; begins again at the end. */
static void *weights(size_t bytes)
{
    bytes = (bytes + 255) / 256 * 256;
    if (pool_at + bytes > pool_bytes)
        pool_at = 0;
    pool_at += bytes;
    return pool + pool_at - bytes;
}

static struct weight matrix(int rows, int cols)
{
    struct weight w = {.type = DT_BF16, .rows = rows, .cols = cols};
    w.data = weights(weight_bytes(&w));
    return w;
}

/* Small random bf16 numbers, doubled until the pool is full. */
static void fill_pool(size_t bytes)
{
    uint16_t *some = need(malloc(POOL));
    uint32_t x = 1;
    for (size_t i = 0; i < POOL / sizeof(*some); i++) {
        x = x * 1664525u + 1013904223u;
        some[i] = f32_to_bf16((float)(int32_t)x * 0x1p-31f * 0.05f);
    }
    pool = need(op->alloc(d, bytes));
    pool_bytes = bytes;
    op->put(d, pool, some, POOL);
    for (size_t have = POOL; have < bytes; have *= 2)
        op->copy(d, pool + have, pool, have < bytes - have ? have : bytes - have);
    free(some);
}

/* One layer's worth of everything a case may use. */
struct set {
    struct weight q, k, v, o, gate, up, down, router, shared_gate, table;
    struct expert experts[128], shared;
    struct kv kv;
};

struct sizes {
    int hidden, heads, kv_heads, dim, inner, count, top_k, shared, positions;
    enum dtype kv;
};

static const struct sizes thinker = {2048, 32, 4, 128, 768, 128, 8, 0, 8192, DT_F16};
static const struct sizes talker = {1024, 16, 2, 128, 384, 128, 6, 768, 8192, DT_F16};
static const struct sizes predictor = {1024, 16, 8, 128, 3072, 0, 0, 0, 16, DT_F32};
static const struct sizes audio = {1280, 20, 20, 64, 5120, 0, 0, 0, 104, DT_F32};
static const struct sizes wave = {1024, 16, 16, 64, 3072, 0, 0, 0, 135, DT_F32};

static struct set sets[SETS];
static int n_sets;
static const struct sizes *z;
static int rows; /* n */
static int32_t *pos;
static struct sampling how;

static struct expert expert(int inner, int hidden)
{
    struct expert e;
    e.gate = matrix(inner, hidden);
    e.up = matrix(inner, hidden);
    e.down = matrix(hidden, inner);
    return e;
}

/* Experts lie behind one another: never across the pool's end. */
static void make_experts(struct set *s, const struct sizes *c)
{
    size_t all = (size_t)c->count * 3 * (size_t)c->inner * (size_t)c->hidden * 2;
    if (pool_at + all > pool_bytes)
        pool_at = 0;
    for (int i = 0; i < c->count; i++)
        s->experts[i] = expert(c->inner, c->hidden);
    s->router = matrix(c->count, c->hidden);
    s->shared_gate = matrix(1, c->hidden);
    s->shared = c->shared > 0 ? expert(c->shared, c->hidden) : (struct expert){0};
}

static void make_sets(const struct sizes *c, int n)
{
    z = c;
    n_sets = n;
    for (int i = 0; i < n; i++) {
        struct set *s = &sets[i];
        int wide = c->heads * c->dim, width = c->kv_heads * c->dim;
        s->q = matrix(wide, c->hidden);
        s->k = matrix(width, c->hidden);
        s->v = matrix(width, c->hidden);
        s->o = matrix(c->hidden, wide);
        if (c->count > 0) {
            make_experts(s, c);
        } else {
            s->gate = matrix(c->inner, c->hidden);
            s->up = matrix(c->inner, c->hidden);
            s->down = matrix(c->hidden, c->inner);
        }
        size_t cache = (size_t)c->positions * (size_t)width * dtype_size(c->kv);
        if (s->kv.k == NULL) {
            s->kv.k = need(op->alloc(d, 8192 * 512 * 2));
            s->kv.v = need(op->alloc(d, 8192 * 512 * 2));
        }
        if (cache > 8192 * 512 * 2)
            need(NULL);
        s->kv = (struct kv){s->kv.k, s->kv.v, c->kv, c->positions, c->kv_heads, c->dim};
    }
}

static double run_qkv(struct set *s)
{
    float *const y[] = {room[1], room[2], room[3]};
    const struct weight *const w[] = {&s->q, &s->k, &s->v};
    const struct norm norm = {room[7], 1e-6f};
    op->norm_linear(d, y, room[4], room[0], rows, &norm, w, 3);
    return (double)(weight_bytes(&s->q) + weight_bytes(&s->k) + weight_bytes(&s->v));
}

static double run_attend(struct set *s)
{
    const struct attention a = {z->heads, 1, 0, 0.088f};
    const struct rope r = {room[7], room[7], 1e-6f, room[7]};
    op->rope_attend(d, room[5], room[1], room[2], room[3], rows, &s->kv, &a, &r, pos);
    return 0;
}

static double run_o(struct set *s)
{
    op->linear_add(d, room[0], room[4], room[5], rows, &s->o, NULL);
    return (double)weight_bytes(&s->o);
}

static double run_mixture(struct set *s)
{
    const struct norm norm = {room[7], 1e-6f};
    size_t one = weight_bytes(&s->experts[0].gate) * 3;
    float *m = room[6];
    struct moe moe = {.router = &s->router,
                      .experts = s->experts,
                      .count = z->count,
                      .k = z->top_k,
                      .renorm = 1,
                      .shared = &s->shared,
                      .shared_gate = &s->shared_gate,
                      .a = room[4],
                      .branch = room[5],
                      .logits = m,
                      .gate = room[1],
                      .up = room[2],
                      .weights = m + 65536,
                      .share = m + 131072,
                      .ids = (int32_t *)(m + 262144)};
    op->mixture(d, room[0], rows, &norm, &moe);
    int used = rows == 1 ? z->top_k : z->count;
    return (double)used * (double)one + (double)weight_bytes(&s->router) +
           (double)weight_bytes(&s->shared.gate) * 3;
}

static double run_swiglu(struct set *s)
{
    const struct norm norm = {room[7], 1e-6f};
    op->norm_swiglu(d, room[1], room[2], room[4], room[0], rows, &norm, &s->gate, &s->up);
    return (double)weight_bytes(&s->gate) * 2;
}

static double run_down(struct set *s)
{
    op->linear_add(d, room[0], room[4], room[1], rows, &s->down, NULL);
    return (double)weight_bytes(&s->down);
}

static double run_moe_layer(struct set *s)
{
    return run_qkv(s) + run_attend(s) + run_o(s) + run_mixture(s);
}

static double run_dense_layer(struct set *s)
{
    return run_qkv(s) + run_attend(s) + run_o(s) + run_swiglu(s) + run_down(s);
}

static double run_table(struct set *s)
{
    const struct weight *const w[] = {&s->table};
    const struct norm norm = {room[7], 1e-6f};
    op->norm_linear(d, &room[1], room[4], room[0], 1, &norm, w, 1);
    return (double)weight_bytes(&s->table);
}

static double run_linear(struct set *s)
{
    op->linear(d, room[1], room[0], rows, &s->table, NULL, LINEAR_GELU);
    return (double)weight_bytes(&s->table);
}

static double run_sample(struct set *s)
{
    op->sample(d, (int32_t *)room[6], room[1], s->table.rows, &how, NULL, (uint64_t *)room[5]);
    return 0;
}

static double run_audio_norm(struct set *s)
{
    (void)s;
    op->layer_norm(d, room[4], room[0], rows, z->hidden, room[7], room[7], 1e-5f);
    return 0;
}

static double run_audio_qkv(struct set *s)
{
    float *const y[] = {room[1], room[2], room[3]};
    const struct weight *const w[] = {&s->q, &s->k, &s->v};
    const float *const bias[] = {room[7], room[7], room[7]};
    op->linears(d, y, room[4], rows, w, bias, 3, 0);
    return (double)weight_bytes(&s->q) * 3;
}

static double run_audio_attend(struct set *s)
{
    const struct kv kv = {room[2], room[3], DT_F32, rows, 20, 64};
    const struct attention a = {20, 0, 0, 0.125f};
    (void)s;
    op->attend(d, room[5], room[1], rows, &kv, &a, pos);
    return 0;
}

static double run_audio_o(struct set *s)
{
    op->linear(d, room[0], room[5], rows, &s->o, room[7], LINEAR_ADD);
    return (double)weight_bytes(&s->o);
}

static double run_audio_fc1(struct set *s)
{
    op->linear(d, room[1], room[4], rows, &s->gate, room[7], LINEAR_GELU);
    return (double)weight_bytes(&s->gate);
}

static double run_audio_fc2(struct set *s)
{
    op->linear(d, room[0], room[1], rows, &s->down, room[7], LINEAR_ADD);
    return (double)weight_bytes(&s->down);
}

static double run_audio_layer(struct set *s)
{
    double bytes = run_audio_norm(s) + run_audio_qkv(s);
    bytes += run_audio_attend(s) + run_audio_o(s) + run_audio_norm(s);
    return bytes + run_audio_fc1(s) + run_audio_fc2(s);
}

/* table.rows outputs of table.cols = in * 7 over `rows` samples. */
static double run_conv(struct set *s)
{
    op->conv1d(d, room[1], room[0] + (1 << 20), rows, &s->table, NULL, 7, 3, 0);
    return (double)weight_bytes(&s->table);
}

static int stride;

static double run_up(struct set *s)
{
    op->conv1d_up(d, room[1], room[0] + (1 << 20), rows, &s->table, NULL, stride, 2 * stride);
    return (double)weight_bytes(&s->table);
}

static double run_conv2d(struct set *s)
{
    op->conv2d(d, room[1], room[0], 1, 50, 64, &s->table, NULL);
    return (double)weight_bytes(&s->table);
}

static double run_snake(struct set *s)
{
    (void)s;
    op->snake(d, room[1], room[0], rows, 96, room[7], room[7]);
    return 0;
}

static double run_rms(struct set *s)
{
    (void)s;
    op->rms_norm(d, room[1], room[0], rows, 1024, room[7], 1e-6f);
    return 0;
}

static double run_slide(struct set *s)
{
    (void)s;
    op->copy(d, room[1], room[1] + 32 * 768, 54 * 768 * 4);
    return 0;
}

static void measure(const char *name, double (*run)(struct set *s), int n, int at)
{
    struct step *step = NULL;
    double took[RUNS], bytes = 0;
    int32_t flag;
    if (strncmp(name, prefix, strlen(prefix)) != 0)
        return;
    rows = n;
    op->put(d, pos, &at, sizeof(at));
    for (int i = -3; i < RUNS; i++) {
        op->get(d, &flag, pos, sizeof(flag));
        double start = clock_seconds();
        for (int r = 0; r < (i < 0 ? 1 : REPLAYS); r++)
            if (op->step_begin(d, &step)) {
                bytes = 0;
                for (int s = 0; s < n_sets; s++)
                    bytes += run(&sets[s]);
                op->step_end(d, &step);
            }
        op->get(d, &flag, pos, sizeof(flag));
        if (i >= 0)
            took[i] = (clock_seconds() - start) / REPLAYS / n_sets;
    }
    op->step_drop(d, step);
    qsort(took, RUNS, sizeof(*took), by_double);
    printf("%-44s n %4d  %8.2f us", name, n, took[RUNS / 2] * 1e6);
    if (bytes > 0)
        printf("  %7.1f GB/s  %5.1f %%", bytes / n_sets / took[RUNS / 2] * 1e-9,
               100 * bytes / n_sets / took[RUNS / 2] / rate);
    printf("\n");
    fflush(stdout);
}

static void with_table(int table_rows, int cols)
{
    size_t one = (size_t)table_rows * (size_t)cols * 2;
    n_sets = min_int(SETS, max_int(2, (int)(FAR / one)));
    for (int i = 0; i < n_sets; i++)
        sets[i].table = matrix(table_rows, cols);
}

static void bench_thinker(void)
{
    make_sets(&thinker, 12);
    measure("thinker qkv", run_qkv, 1, 0);
    measure("thinker attention at 100", run_attend, 1, 100);
    measure("thinker attention at 4000", run_attend, 1, 4000);
    measure("thinker o", run_o, 1, 0);
    measure("thinker mixture", run_mixture, 1, 0);
    measure("thinker layer at 100", run_moe_layer, 1, 100);
    measure("thinker layer at 4000", run_moe_layer, 1, 4000);
    for (int n = 20; n <= 100; n += 40) {
        measure("prefill qkv", run_qkv, n, 0);
        measure("prefill attention at 100", run_attend, n, 100);
        measure("prefill o", run_o, n, 0);
        measure("prefill mixture", run_mixture, n, 0);
        measure("prefill layer at 100", run_moe_layer, n, 100);
    }
    measure("prefill attention at 2000", run_attend, 100, 2000);
    with_table(152064, 2048);
    measure("thinker head", run_table, 1, 0);
    how = (struct sampling){0};
    measure("thinker sample, greedy", run_sample, 1, 0);
}

static void bench_speech(void)
{
    make_sets(&talker, 20);
    measure("talker qkv", run_qkv, 1, 0);
    measure("talker attention at 100", run_attend, 1, 100);
    measure("talker o", run_o, 1, 0);
    measure("talker mixture", run_mixture, 1, 0);
    measure("talker layer at 100", run_moe_layer, 1, 100);
    measure("talker layer at 100", run_moe_layer, 60, 100);
    make_sets(&predictor, 12);
    measure("predictor qkv", run_qkv, 1, 0);
    measure("predictor attention", run_attend, 1, 8);
    measure("predictor o", run_o, 1, 0);
    measure("predictor gate, up", run_swiglu, 1, 0);
    measure("predictor down", run_down, 1, 0);
    measure("predictor layer", run_dense_layer, 1, 8);
    measure("predictor layer", run_dense_layer, 2, 0);
    with_table(2048, 1024);
    measure("predictor head", run_table, 1, 0);
    how = (struct sampling){1, 50, 0.8f, 0, 0, 0, 1};
    measure("predictor sample", run_sample, 1, 0);
}

static void bench_wave(void)
{
    static const int convs[][3] = {{1024, 1536, 4}, {768, 768, 32}, {384, 384, 160},
                                   {192, 192, 640}, {96, 96, 1920}, {96, 1, 1920}};
    static const int ups[][4] = {{1536, 768, 4, 8},
                                 {768, 384, 32, 5},
                                 {384, 192, 160, 4},
                                 {192, 96, 640, 3}};
    char name[64];
    make_sets(&wave, 8);
    measure("wave transformer layer", run_dense_layer, 1, 80);
    with_table(4096, 1024);
    measure("wave linear 4096 x 1024", run_linear, 4, 0);
    for (size_t i = 0; i < ARRAY_LEN(convs); i++) {
        with_table(convs[i][1], convs[i][0] * 7);
        snprintf(name, sizeof(name), "wave conv %d -> %d", convs[i][0], convs[i][1]);
        measure(name, run_conv, convs[i][2], 0);
    }
    for (size_t i = 0; i < ARRAY_LEN(ups); i++) {
        stride = ups[i][3];
        with_table(ups[i][0], ups[i][1] * 2 * stride);
        snprintf(name, sizeof(name), "wave up %d -> %d", ups[i][0], ups[i][1]);
        measure(name, run_up, ups[i][2], 0);
    }
    measure("wave snake", run_snake, 1920, 0);
    measure("wave slide", run_slide, 1, 0);
    measure("wave rms_norm", run_rms, 1, 0);
}

static void bench_audio(void)
{
    make_sets(&audio, 16);
    for (int n = 13; n <= 104; n *= 2) {
        measure("audio layer norm", run_audio_norm, n, 0);
        measure("audio qkv", run_audio_qkv, n, 0);
        measure("audio attention", run_audio_attend, n, 0);
        measure("audio o", run_audio_o, n, 0);
        measure("audio fc1", run_audio_fc1, n, 0);
        measure("audio fc2", run_audio_fc2, n, 0);
        measure("audio layer", run_audio_layer, n, 0);
    }
    with_table(1280, 7680);
    measure("audio stem linear 1280 x 7680", run_linear, 13, 0);
    with_table(480, 480 * 9);
    measure("audio conv2d 50 x 64", run_conv2d, 1, 0);
}

static void make_room(void)
{
    float *some = need(malloc(ROOM));
    uint32_t x = 7;
    for (size_t i = 0; i < ROOM / sizeof(*some); i++) {
        x = x * 1664525u + 1013904223u;
        some[i] = (float)(int32_t)x * 0x1p-31f;
    }
    for (size_t i = 0; i < ARRAY_LEN(room); i++) {
        room[i] = need(op->alloc(d, ROOM));
        op->put(d, room[i], some, ROOM);
    }
    pos = need(op->alloc(d, sizeof(*pos)));
    free(some);
}

int main(int argc, char **argv)
{
    struct problems why = {0};
    struct device_opts o = {.name = "cuda"};
    prefix = argc > 1 ? argv[1] : "";
    if (device_open(&d, &o, &why) < 0) {
        printf("skip: %s\n", why.n > 0 ? why.text[0] : "no GPU");
        problems_free(&why);
        return 77;
    }
    op = d->op;
    fill_pool((size_t)17 << 30);
    make_room();
    for (int i = 0; i < 3; i++)
        rate = device_read_rate(d, pool, (size_t)4 << 30);
    printf("%s reads %.0f GB/s\n", d->name, rate * 1e-9);
    bench_thinker();
    bench_speech();
    bench_wave();
    bench_audio();
    device_close(d);
    return 0;
}
