/*
 * tests/gpu/test_cuda_ops.c - every op of the CUDA backend against its plain-C twin.
 *
 *     test_cuda_ops [small|real]     both without an argument; small is what compute-sanitizer runs
 *
 * Inputs are fresh random numbers, outputs are poisoned with NaN first, errors are relative to the
 * largest value that the twin has. Prints a line an op: cases and the largest error. Without a GPU
 * it prints skip: and exits with 77.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/util.h"
#include "tests/gpu/both.h"

enum { SKIPPED = 77 };

static const char *const type_names[] = {"F32", "BF16", "F16", "I8"};

/* Each op twice: on the plain device with host pointers, on the GPU with its own. */
#define BOTH(op_, plain_args, gpu_args)                                                            \
    do {                                                                                           \
        plain->op->op_ plain_args;                                                                 \
        gpu->op->op_ gpu_args;                                                                     \
    } while (0)

static void linear_case_within(double bar, enum dtype type, int rows, int cols, int n,
                               unsigned flags)
{
    size_t out = (size_t)n * (size_t)rows;
    struct weights w = matrix(type, rows, cols);
    struct both x = floats((size_t)n * (size_t)cols, 1), bias = floats((size_t)rows, 1);
    struct both y = flags & LINEAR_ADD ? floats(out, 1) : poisoned(out);
    bool with = !(flags & LINEAR_SILU);
    BOTH(linear, (plain, y.host, x.host, n, &w.host, with ? bias.host : NULL, flags),
         (gpu, y.device, x.device, n, &w.device, with ? bias.device : NULL, flags));
    close_to(y, out, bar, type_names[type], rows, cols, n);
    give_back();
}

static void linear_case(enum dtype type, int rows, int cols, int n, unsigned flags)
{
    linear_case_within(2e-5, type, rows, cols, n, flags);
}

/* A router sees all of x: in two parts of bf16 2.5e-6 of the largest of so many would be missing;
 * the sums are good to 1.2e-6. */
static void test_routers(void)
{
    for (int n = 31; n <= 100; n = n * 3 + 1) {
        linear_case_within(1.8e-6, DT_BF16, 128, 2048, n, LINEAR_EXACT);
        linear_case_within(1.8e-6, DT_F16, 128, 1024, n, LINEAR_EXACT);
    }
}

static void test_linear(void)
{
    static const int awkward[][2] = {{1, 1},   {3, 5},      {13, 37},   {72, 127}, {8, 2048},
                                     {64, 31}, {129, 768},  {5, 2049},  {33, 96},  {40, 64},
                                     {16, 32}, {300, 1000}, {48, 4320}, {50, 40}};
    static const int real[][2] = {{4096, 2048}, {2048, 4096}, {1280, 7680}, {5120, 1280},
                                  {1280, 5120}, {1024, 3072}, {3072, 1024}, {2048, 2048}};
    static const int counts[] = {1, 2, 3, 8, 9, 17, 33, 70};
    static const unsigned flags[] = {
        0, LINEAR_ADD, LINEAR_GELU, LINEAR_SILU, LINEAR_ADD | LINEAR_GELU, LINEAR_EXACT};
    for (int t = 0; t < DT_COUNT; t++)
        for (size_t i = 0; i < ARRAY_LEN(awkward); i++)
            for (size_t n = 0; n < ARRAY_LEN(counts); n++)
                linear_case(t, awkward[i][0], awkward[i][1], counts[n],
                            flags[(i + n) % ARRAY_LEN(flags)]);
    for (size_t i = 0; now.real && i < ARRAY_LEN(real); i++)
        for (int n = 1; n <= 100; n = n < 3 ? n + 1 : n * 33)
            linear_case(i % 3 == 2 ? DT_F16 : DT_BF16, real[i][0], real[i][1], n,
                        i % 2 ? LINEAR_ADD : 0);
    if (!now.real)
        return;
    linear_case(DT_BF16, 152064, 2048, 1, 0);
    linear_case(DT_BF16, 64, 12288, 1, LINEAR_ADD); /* shared memory to the last byte */
    linear_case(DT_BF16, 64, 6144, 2, LINEAR_ADD);
}

/* Matrices of r0, r1, r2 rows over the same x, twice: the same calls give the same bits. */
static void linears_case(enum dtype type, int r0, int r1, int r2, int cols, int n, unsigned flags)
{
    int rows[] = {r0, r1, r2}, count = r2 ? 3 : r1 ? 2 : 1;
    struct weights w[3];
    struct both y[3], z[3], bias[3], x = floats((size_t)n * (size_t)cols, 1);
    const struct weight *hw[3], *dw[3];
    const float *hb[3], *db[3];
    float *hy[3], *dy[3], *dz[3];
    for (int i = 0; i < count; i++) {
        size_t out = (size_t)n * (size_t)rows[i];
        w[i] = matrix(type, rows[i], cols);
        bias[i] = floats((size_t)rows[i], 1);
        y[i] = flags & LINEAR_ADD ? floats(out, 1) : poisoned(out);
        z[i] = take(out * 4);
        gpu->op->copy(gpu, z[i].device, y[i].device, out * 4);
        hw[i] = &w[i].host;
        dw[i] = &w[i].device;
        hb[i] = i == 1 ? NULL : bias[i].host;
        db[i] = i == 1 ? NULL : bias[i].device;
        hy[i] = y[i].host;
        dy[i] = y[i].device;
        dz[i] = z[i].device;
    }
    BOTH(linears, (plain, hy, x.host, n, hw, hb, count, flags),
         (gpu, dy, x.device, n, dw, db, count, flags));
    gpu->op->linears(gpu, dz, x.device, n, dw, db, count, flags);
    for (int i = 0; i < count; i++) {
        size_t out = (size_t)n * (size_t)rows[i];
        close_to(y[i], out, 2e-5, type_names[type], rows[i], cols, n);
        gpu->op->get(gpu, z[i].host, y[i].device, out * 4);
        close_to(z[i], out, 0, "again", rows[i], cols, n);
    }
    give_back();
}

static void test_linears(void)
{
    static const int counts[] = {1, 2, 3, 16, 17, 24, 33, 52, 64, 65, 104, 129};
    for (size_t i = 0; i < ARRAY_LEN(counts); i++) {
        linears_case(DT_F32, 33, 7, 9, 72, counts[i], 0);
        linears_case(DT_I8, 40, 8, 0, 64, counts[i], LINEAR_GELU);
        linears_case(DT_BF16, 512, 516, 640, 32, counts[i], LINEAR_ADD);
        linears_case(DT_F16, 516, 1028, 0, 96, counts[i], LINEAR_ADD | LINEAR_GELU);
        linears_case(DT_BF16, 600, 300, 512, 416, counts[i], 0);
        linears_case(DT_BF16, 514, 512, 512, 128, counts[i], LINEAR_GELU);
    }
    for (size_t i = 3; now.real && i < ARRAY_LEN(counts); i += 2) {
        linears_case(DT_BF16, 1280, 1280, 1280, 1280, counts[i], 0);
        linears_case(DT_BF16, 5120, 0, 0, 1280, counts[i], LINEAR_GELU);
        linears_case(DT_BF16, 1280, 0, 0, 5120, counts[i], LINEAR_ADD);
        linears_case(DT_F16, 4096, 512, 512, 2048, counts[i], 0);
    }
}

static void norm_linear_case(enum dtype type, int r0, int r1, int r2, int cols, int n)
{
    int rows[] = {r0, r1, r2}, count = r2 ? 3 : r1 ? 2 : 1;
    struct weights w[3];
    struct both y[3], x = floats((size_t)n * (size_t)cols, 3), nw = floats((size_t)cols, 1);
    struct both a = poisoned((size_t)n * (size_t)cols);
    const struct weight *hw[3], *dw[3];
    float *hy[3], *dy[3];
    for (int i = 0; i < count; i++) {
        w[i] = matrix(type, rows[i], cols);
        y[i] = poisoned((size_t)n * (size_t)rows[i]);
        hw[i] = &w[i].host;
        dw[i] = &w[i].device;
        hy[i] = y[i].host;
        dy[i] = y[i].device;
    }
    struct norm hn = {nw.host, 1e-6f}, dn = {nw.device, 1e-6f};
    BOTH(norm_linear, (plain, hy, a.host, x.host, n, &hn, hw, count),
         (gpu, dy, a.device, x.device, n, &dn, dw, count));
    for (int i = 0; i < count; i++)
        close_to(y[i], (size_t)n * (size_t)rows[i], 2e-5, type_names[type], rows[i], cols, n);
    close_to(a, (size_t)n * (size_t)cols, 1e-5, "normed", cols, 0, n);
    give_back();
}

static void test_norm_linear(void)
{
    for (int t = 0; t < DT_COUNT; t++)
        for (int n = 1; n <= 5; n++) {
            norm_linear_case(t, 33, 7, 9, 72, n);
            norm_linear_case(t, 40, 8, 8, 64, n);
            norm_linear_case(t, 17, 0, 0, 100, n);
            norm_linear_case(t, 128, 1, 0, 256, n);
        }
    for (int n = 1; now.real && n <= 60; n = n < 2 ? 2 : n * 30) {
        norm_linear_case(DT_BF16, 4096, 512, 512, 2048, n);
        norm_linear_case(DT_BF16, 2048, 256, 256, 1024, n);
        norm_linear_case(DT_BF16, 2048, 1024, 1024, 1024, n);
        norm_linear_case(DT_BF16, 128, 1, 0, 1024, n);
        norm_linear_case(DT_BF16, 3072, 0, 0, 1024, n);
    }
}

static void swiglu_case(enum dtype type, int rows, int cols, int n)
{
    size_t out = (size_t)n * (size_t)rows, in = (size_t)n * (size_t)cols;
    struct weights gate = matrix(type, rows, cols), up = matrix(type, rows, cols);
    struct both x = floats(in, 2), nw = floats((size_t)cols, 1), a = poisoned(in);
    struct both y = poisoned(out), room = poisoned(out);
    struct norm hn = {nw.host, 1e-6f}, dn = {nw.device, 1e-6f};
    BOTH(norm_swiglu, (plain, y.host, room.host, a.host, x.host, n, &hn, &gate.host, &up.host),
         (gpu, y.device, room.device, a.device, x.device, n, &dn, &gate.device, &up.device));
    close_to(y, out, 2e-5, type_names[type], rows, cols, n);
    give_back();
}

static void linear_add_case(enum dtype type, int rows, int cols, int n, bool scaled)
{
    size_t out = (size_t)n * (size_t)rows;
    struct weights w = matrix(type, rows, cols);
    struct both x = floats((size_t)n * (size_t)cols, 1), y = floats(out, 1), room = poisoned(out);
    struct both scale = floats((size_t)rows, 1);
    BOTH(linear_add, (plain, y.host, room.host, x.host, n, &w.host, scaled ? scale.host : NULL),
         (gpu, y.device, room.device, x.device, n, &w.device, scaled ? scale.device : NULL));
    close_to(y, out, 2e-5, type_names[type], rows, cols, n);
    give_back();
}

static void test_swiglu(void)
{
    for (int t = 0; t < DT_COUNT; t++)
        for (int n = 1; n <= 20; n = n * 2 + (n == 2)) {
            swiglu_case(t, 37, 52, n);
            swiglu_case(t, 41, 48, n);
            swiglu_case(t, 64, 96, n);
            linear_add_case(t, 52, 37, n, n % 2);
            linear_add_case(t, 33, 72, n, n % 2);
            linear_add_case(t, 64, 128, n, n % 2);
        }
    for (int n = 1; now.real && n <= 4; n *= 2) {
        swiglu_case(DT_BF16, 3072, 1024, n);
        linear_add_case(DT_BF16, 1024, 3072, n, true);
        linear_add_case(DT_BF16, 2048, 4096, n, false);
        linear_add_case(DT_BF16, 1024, 2048, n, false);
    }
}

/* Ops on rows of floats. */
static void rows_case(int n, int dim, float size)
{
    size_t count = (size_t)n * (size_t)dim;
    struct both x = floats(count, size), w = floats((size_t)dim, 2), b = floats((size_t)dim, 1);
    struct both y = poisoned(count), z = floats(count, size), g = floats((size_t)n, 3);
    BOTH(rms_norm, (plain, y.host, x.host, n, dim, w.host, 1e-6f),
         (gpu, y.device, x.device, n, dim, w.device, 1e-6f));
    close_to(y, count, 1e-5, "rms_norm", n, dim, 0);
    BOTH(layer_norm, (plain, y.host, x.host, n, dim, w.host, b.host, 1e-5f),
         (gpu, y.device, x.device, n, dim, w.device, b.device, 1e-5f));
    close_to(y, count, 1e-5, "layer_norm", n, dim, 0);
    BOTH(snake, (plain, y.host, x.host, n, dim, w.host, b.host),
         (gpu, y.device, x.device, n, dim, w.device, b.device));
    close_to(y, count, 1e-5, "snake", n, dim, 0);
    BOTH(silu_mul, (plain, y.host, x.host, count), (gpu, y.device, x.device, count));
    close_to(y, count, 1e-5, "silu_mul", n, dim, 0);
    BOTH(add, (plain, z.host, x.host, count), (gpu, z.device, x.device, count));
    close_to(z, count, 1e-6, "add", n, dim, 0);
    BOTH(scale_add, (plain, z.host, x.host, n, dim, w.host),
         (gpu, z.device, x.device, n, dim, w.device));
    close_sums(z, count, size, 1e-6, "scale_add", n, dim);
    BOTH(gate_add, (plain, z.host, x.host, n, dim, g.host),
         (gpu, z.device, x.device, n, dim, g.device));
    close_sums(z, count, size, 1e-6, "gate_add", n, dim);
    give_back();
}

static void test_rows(void)
{
    static const int dims[] = {1, 3, 37, 128, 1024, 2048, 2500};
    static const int counts[] = {1, 3, 17, 130};
    for (size_t i = 0; i < ARRAY_LEN(dims); i++)
        for (size_t n = 0; n < ARRAY_LEN(counts); n++)
            rows_case(counts[n], dims[i], n % 2 ? 30 : 1);
    if (now.real)
        rows_case(1920, 96, 3);
}

static void transpose_case(int batch, int rows, int cols)
{
    size_t n = (size_t)batch * (size_t)rows * (size_t)cols;
    struct both x = floats(n, 1), y = poisoned(n);
    BOTH(transpose, (plain, y.host, x.host, batch, rows, cols),
         (gpu, y.device, x.device, batch, rows, cols));
    close_to(y, n, 0, "transpose", batch, rows, cols);
    give_back();
}

static void copy_case(int to, int from, int n)
{
    size_t all = (size_t)max_int(to, from) + (size_t)n;
    struct both x = floats(all, 1);
    float *h = x.host, *d = x.device;
    BOTH(copy, (plain, h + to, h + from, (size_t)n * 4), (gpu, d + to, d + from, (size_t)n * 4));
    close_to(x, all, 0, "copy", to, from, n);
    give_back();
}

static void embed_case(enum dtype type, int rows, int cols, int n)
{
    struct weights w = matrix(type, rows, cols), v = matrix(type, rows, cols);
    struct both ids = ints((size_t)n, rows), y = floats((size_t)n * (size_t)cols, 1);
    BOTH(embed, (plain, y.host, &w.host, ids.host, n, n % 2),
         (gpu, y.device, &w.device, ids.device, n, n % 2));
    close_to(y, (size_t)n * (size_t)cols, 1e-6, "embed", rows, cols, n);
    const struct weight *ht[64], *dt[64];
    for (int i = 0; i < n; i++) {
        ht[i] = i % 2 ? &w.host : &v.host;
        dt[i] = i % 2 ? &w.device : &v.device;
    }
    struct both sum = poisoned((size_t)cols);
    BOTH(embed_sum, (plain, sum.host, ht, ids.host, n), (gpu, sum.device, dt, ids.device, n));
    close_to(sum, (size_t)cols, 1e-6, "embed_sum", rows, cols, n);
    give_back();
}

static void test_moves(void)
{
    transpose_case(1, 1, 1);
    transpose_case(3, 33, 70);
    transpose_case(13, 16, 480);
    copy_case(0, 100, 10);
    copy_case(0, 7, 1000);
    copy_case(0, 1024, 6144);
    copy_case(0, 24576, 41472);
    copy_case(5, 0, 3000);
    copy_case(2000, 0, 500);
    for (int t = 0; t < DT_COUNT; t++)
        for (int n = 1; n <= 33; n = n * 3 + n % 2) {
            embed_case(t, 50, 37, n);
            embed_case(t, 100, 1024, n);
        }
}

struct shape {
    int heads, kv_heads, dim, rows, window, causal;
    enum dtype type;
};

/* Attention of n rows at *pos over a cache that was filled before. */
static void attend_case(struct shape s, int pos, int n, bool norm)
{
    int width = s.kv_heads * s.dim, wide = s.heads * s.dim;
    size_t cache = (size_t)s.rows * (size_t)width * dtype_size(s.type);
    struct both k = take(cache), v = take(cache), at = number(pos);
    fill(s.type, k.host, (size_t)s.rows * (size_t)width, 1);
    fill(s.type, v.host, (size_t)s.rows * (size_t)width, 1);
    to_device(k, cache);
    to_device(v, cache);
    struct kv hkv = {k.host, v.host, s.type, s.rows, s.kv_heads, s.dim}, dkv = hkv;
    dkv.k = k.device;
    dkv.v = v.device;
    struct attention a = {s.heads, s.causal, s.window, 0.3f};
    struct both q = floats((size_t)n * (size_t)wide, 2), y = poisoned((size_t)n * (size_t)wide);
    struct both nk = floats((size_t)n * (size_t)width, 2),
                nv = floats((size_t)n * (size_t)width, 1);
    struct both qn = floats((size_t)s.dim, 1), kn = floats((size_t)s.dim, 1);
    struct both inv = take((size_t)(s.dim / 2) * 4);
    for (int i = 0; i < s.dim / 2; i++)
        ((float *)inv.host)[i] = powf(1e6f, -2.0f * (float)i / (float)s.dim);
    to_device(inv, (size_t)(s.dim / 2) * 4);
    BOTH(attend, (plain, y.host, q.host, n, &hkv, &a, at.host),
         (gpu, y.device, q.device, n, &dkv, &a, at.device));
    close_to(y, (size_t)n * (size_t)wide, 1e-4, "attend", s.dim, pos, n);
    if (!s.causal) {
        give_back();
        return;
    }
    struct rope hr = {norm ? qn.host : NULL, norm ? kn.host : NULL, 1e-6f, inv.host};
    struct rope dr = {norm ? qn.device : NULL, norm ? kn.device : NULL, 1e-6f, inv.device};
    y = poisoned((size_t)n * (size_t)wide);
    BOTH(rope_attend, (plain, y.host, q.host, nk.host, nv.host, n, &hkv, &a, &hr, at.host),
         (gpu, y.device, q.device, nk.device, nv.device, n, &dkv, &a, &dr, at.device));
    close_to(y, (size_t)n * (size_t)wide, s.type == DT_F32 ? 1e-4 : 1e-3, "rope_attend", s.dim, pos,
             n);
    /* what was stored: the next row sees it */
    struct both next = number(pos + n), q1 = floats((size_t)wide, 1), y1 = poisoned((size_t)wide);
    BOTH(attend, (plain, y1.host, q1.host, 1, &hkv, &a, next.host),
         (gpu, y1.device, q1.device, 1, &dkv, &a, next.device));
    if (pos + n < s.rows || s.window > 0)
        close_to(y1, (size_t)wide, s.type == DT_F32 ? 1e-4 : 1e-3, "stored", s.dim, pos, n);
    give_back();
}

static void test_attend(void)
{
    static const struct shape shapes[] = {
        {9, 3, 12, 40, 0, 1, DT_F32},     {6, 3, 14, 40, 0, 1, DT_BF16},
        {5, 1, 20, 40, 0, 1, DT_F16},     {5, 5, 12, 30, 19, 1, DT_F32},
        {32, 4, 128, 300, 0, 1, DT_F16},  {16, 2, 128, 300, 0, 1, DT_F16},
        {16, 8, 128, 16, 0, 1, DT_F32},   {16, 16, 64, 135, 72, 1, DT_F32},
        {12, 2, 128, 300, 0, 1, DT_BF16}, {4, 4, 64, 200, 0, 1, DT_BF16},
        {8, 1, 64, 300, 70, 1, DT_F16},
    };
    static const int places[] = {0, 1, 5, 13, 63, 64, 65, 127, 130, 200, 290};
    for (size_t i = 0; i < ARRAY_LEN(shapes); i++)
        for (size_t p = 0; p < ARRAY_LEN(places); p++)
            for (int n = 1; n <= 9; n = n * 2 + (n > 3))
                if (shapes[i].window > 0 ? n + shapes[i].window - 1 <= shapes[i].rows
                                         : places[p] + n < shapes[i].rows)
                    attend_case(shapes[i], places[p], n, i % 2 == 0);
    attend_case((struct shape){3, 3, 10, 26, 0, 0, DT_F32}, 0, 26, false);
    attend_case((struct shape){20, 20, 64, 104, 0, 0, DT_F32}, 0, 104, false);
    if (!now.real)
        return;
    attend_case((struct shape){32, 4, 128, 8192, 0, 1, DT_F16}, 99, 1, true);
    attend_case((struct shape){32, 4, 128, 8192, 0, 1, DT_F16}, 4000, 1, true);
    attend_case((struct shape){32, 4, 128, 8192, 0, 1, DT_F16}, 8100, 1, true);
    attend_case((struct shape){32, 4, 128, 2048, 0, 1, DT_F16}, 60, 100, true);
    attend_case((struct shape){32, 4, 128, 2048, 0, 1, DT_F16}, 1900, 60, true);
}

static void rope_case(int n, int heads, int dim, bool norm)
{
    size_t count = (size_t)n * (size_t)heads * (size_t)dim;
    struct both x = floats(count, 2), w = floats((size_t)dim, 1), inv = floats((size_t)dim, 1);
    struct both pos = number(1234);
    BOTH(norm_rope, (plain, x.host, n, heads, dim, norm ? w.host : NULL, 1e-6f, inv.host, pos.host),
         (gpu, x.device, n, heads, dim, norm ? w.device : NULL, 1e-6f, inv.device, pos.device));
    close_to(x, count, 1e-5, "norm_rope", n, heads, dim);
    BOTH(advance, (plain, pos.host, n), (gpu, pos.device, n));
    same_ints(pos, 1, "advance", n, 0, 0);
    give_back();
}

static void test_rope(void)
{
    for (int n = 1; n < 40; n = n * 3 + 1) {
        rope_case(n, 3, 12, true);
        rope_case(n, 5, 14, false);
        rope_case(n, 32, 128, true);
        rope_case(n, 16, 64, false);
    }
}

static void route_case(int n, int experts, int k, int renorm)
{
    struct both logits = floats((size_t)n * (size_t)experts, 4);
    struct both ids = take((size_t)n * (size_t)k * 4), weights = poisoned((size_t)n * (size_t)k);
    for (int i = 0; i < n * experts; i++) /* ties */
        if (i % 5 == 0)
            ((float *)logits.host)[i] = 3.5f;
    to_device(logits, (size_t)n * (size_t)experts * 4);
    BOTH(route, (plain, ids.host, weights.host, logits.host, n, experts, k, renorm),
         (gpu, ids.device, weights.device, logits.device, n, experts, k, renorm));
    same_ints(ids, (size_t)n * (size_t)k, "route", n, experts, k);
    close_to(weights, (size_t)n * (size_t)k, 1e-5, "route", n, experts, k);
    give_back();
}

struct experts {
    struct expert host[128], device[128];
};

/* Experts in one allocation at regular distances, as the loader lays them; or each by itself. */
static void make_experts(struct experts *e, int count, enum dtype type, int inner, int hidden,
                         bool regular)
{
    size_t one = (size_t)inner * (size_t)hidden * dtype_size(type);
    size_t at = (one + 255) / 256 * 256;
    struct both all = {0};
    if (regular) {
        all = take(at * 3 * (size_t)count);
        fill(type, all.host, at * 3 * (size_t)count / dtype_size(type), 0.2f);
        to_device(all, at * 3 * (size_t)count);
    }
    for (int i = 0; i < count; i++) {
        struct weights w[3];
        for (int j = 0; j < 3; j++) {
            int rows = j == 2 ? hidden : inner, cols = j == 2 ? inner : hidden;
            if (!regular) {
                w[j] = matrix(type, rows, cols);
                continue;
            }
            w[j].host = (struct weight){.type = type, .rows = rows, .cols = cols};
            w[j].device = w[j].host;
            w[j].host.data = (char *)all.host + (size_t)(3 * i + j) * at;
            w[j].device.data = (char *)all.device + (size_t)(3 * i + j) * at;
        }
        e->host[i] = (struct expert){w[0].host, w[1].host, w[2].host};
        e->device[i] = (struct expert){w[0].device, w[1].device, w[2].device};
    }
}

static void experts_case(int count, int k, enum dtype type, int inner, int hidden, int n,
                         bool regular)
{
    static struct experts e;
    size_t rows = (size_t)n * (size_t)hidden;
    make_experts(&e, count, type, inner, hidden, regular);
    struct both x = floats(rows, 1), y = floats(rows, 1),
                weights = floats((size_t)n * (size_t)k, 1);
    struct both ids = ints((size_t)n * (size_t)k, count);
    for (int i = 0; i < n; i++) /* k different ones, as a router gives */
        for (int j = 1; j < k; j++)
            ((int32_t *)ids.host)[i * k + j] = (((int32_t *)ids.host)[i * k] + 3 * j) % count;
    to_device(ids, (size_t)n * (size_t)k * 4);
    BOTH(experts, (plain, y.host, x.host, n, e.host, count, ids.host, weights.host, k),
         (gpu, y.device, x.device, n, e.device, count, ids.device, weights.device, k));
    close_to(y, rows, 2e-5, type_names[type], inner, hidden, n);
    give_back();
}

static void mixture_case(int count, int k, enum dtype type, int inner, int hidden, int shared,
                         int n)
{
    static struct experts e, s;
    size_t rows = (size_t)n, f = 1;
    make_experts(&e, count, type, inner, hidden, true);
    memset(&s, 0, sizeof(s));
    if (shared > 0)
        make_experts(&s, 1, type, shared, hidden, true);
    struct weights router = matrix(type, count, hidden), gate = matrix(type, 1, hidden);
    struct both x = floats(rows * (size_t)hidden, 1), nw = floats((size_t)hidden, 1);
    struct both a = poisoned(rows * (size_t)hidden), branch = poisoned(rows * (size_t)hidden);
    struct both logits = poisoned(rows * (size_t)count), up = poisoned(rows * (size_t)(shared + 1));
    struct both g = poisoned(rows * (size_t)(shared + 1)), w = poisoned(rows * (size_t)k);
    struct both share = poisoned(rows * f), ids = take(rows * (size_t)k * 4);
    struct moe h = {.router = &router.host,
                    .experts = e.host,
                    .count = count,
                    .k = k,
                    .renorm = 1,
                    .shared = &s.host[0],
                    .shared_gate = &gate.host,
                    .a = a.host,
                    .branch = branch.host,
                    .logits = logits.host,
                    .gate = g.host,
                    .up = up.host,
                    .weights = w.host,
                    .share = share.host,
                    .ids = ids.host};
    struct moe d = {.router = &router.device,
                    .experts = e.device,
                    .count = count,
                    .k = k,
                    .renorm = 1,
                    .shared = &s.device[0],
                    .shared_gate = &gate.device,
                    .a = a.device,
                    .branch = branch.device,
                    .logits = logits.device,
                    .gate = g.device,
                    .up = up.device,
                    .weights = w.device,
                    .share = share.device,
                    .ids = ids.device};
    struct norm hn = {nw.host, 1e-6f}, dn = {nw.device, 1e-6f};
    BOTH(mixture, (plain, x.host, n, &hn, &h), (gpu, x.device, n, &dn, &d));
    same_ints(ids, rows * (size_t)k, "mixture", inner, hidden, n);
    close_to(x, rows * (size_t)hidden, 2e-5, type_names[type], inner, hidden, n);
    give_back();
}

static void test_experts(void)
{
    route_case(1, 7, 3, 1);
    route_case(5, 128, 8, 1);
    route_case(3, 128, 6, 0);
    route_case(2, 300, 16, 1);
    for (int n = 1; n <= 60; n = n * 3 + n % 2) {
        for (int t = 0; t < DT_COUNT; t++)
            experts_case(7, 3, t, 37, 52, n, false);
        experts_case(16, 4, DT_BF16, 64, 96, n, true);
        experts_case(16, 4, DT_F16, 48, 96, n, true);
        experts_case(16, 4, DT_BF16, 64, 96, n, false);
        experts_case(3, 2, DT_BF16, 96, 128, n, true);
        mixture_case(16, 4, DT_BF16, 64, 96, 0, n);
        mixture_case(16, 4, DT_BF16, 64, 128, 96, n);
        mixture_case(9, 2, DT_F16, 24, 40, 32, n);
        mixture_case(9, 2, DT_F16, 8, 2200, 0, n);
        mixture_case(9, 2, DT_F32, 23, 44, 29, n);
    }
    for (int n = 1; now.real && n <= 60; n = n < 2 ? 2 : n * 30) {
        experts_case(32, 8, DT_BF16, 768, 2048, n, true);
        mixture_case(32, 8, DT_BF16, 768, 2048, 0, n);
        mixture_case(128, 6, DT_BF16, 384, 1024, 768, n);
        mixture_case(16, 8, DT_BF16, 768, 1024, 0, n);
    }
}

static void conv1d_case(enum dtype type, int in, int out, int kernel, int dilation, int t,
                        unsigned flags)
{
    int past = (kernel - 1) * dilation;
    struct weights w = matrix(type, out, in * kernel);
    struct both x = narrow_floats((size_t)(t + past) * (size_t)in, type);
    struct both y = floats((size_t)t * (size_t)out, 1), bias = floats((size_t)out, 1);
    size_t skip = (size_t)past * (size_t)in;
    BOTH(conv1d,
         (plain, y.host, (float *)x.host + skip, t, &w.host, bias.host, kernel, dilation, flags),
         (gpu, y.device, (float *)x.device + skip, t, &w.device, bias.device, kernel, dilation,
          flags));
    close_to(y, (size_t)t * (size_t)out, 2e-5, type_names[type], in, out, t);
    give_back();
}

static void up_case(enum dtype type, int in, int out, int stride, int kernel, int t)
{
    struct weights w = matrix(type, in, out * kernel);
    struct both x = narrow_floats((size_t)(t + 1) * (size_t)in, type);
    size_t n = (size_t)t * (size_t)stride * (size_t)out;
    struct both y = poisoned(n), bias = floats((size_t)out, 1);
    BOTH(conv1d_up, (plain, y.host, (float *)x.host + in, t, &w.host, bias.host, stride, kernel),
         (gpu, y.device, (float *)x.device + in, t, &w.device, bias.device, stride, kernel));
    close_to(y, n, 2e-5, type_names[type], in, out, t);
    give_back();
}

static void depthwise_case(int channels, int t)
{
    struct both x = floats((size_t)(t + 6) * (size_t)channels, 1),
                w = floats(7u * (size_t)channels, 1);
    struct both y = poisoned((size_t)t * (size_t)channels), bias = floats((size_t)channels, 1);
    size_t skip = 6u * (size_t)channels;
    BOTH(conv1d_depthwise,
         (plain, y.host, (float *)x.host + skip, t, channels, w.host, bias.host, 7),
         (gpu, y.device, (float *)x.device + skip, t, channels, w.device, bias.device, 7));
    close_to(y, (size_t)t * (size_t)channels, 1e-5, "depthwise", channels, t, 0);
    give_back();
}

static void conv2d_case(enum dtype type, int n, int h, int w, int in, int out)
{
    struct weights k = matrix(type, out, in * 9);
    struct both x = narrow_floats((size_t)n * (size_t)h * (size_t)w * (size_t)in, type);
    size_t count = (size_t)n * (size_t)((h + 1) / 2) * (size_t)((w + 1) / 2) * (size_t)out;
    struct both y = poisoned(count), bias = floats((size_t)out, 1);
    BOTH(conv2d, (plain, y.host, x.host, n, h, w, &k.host, bias.host),
         (gpu, y.device, x.device, n, h, w, &k.device, bias.device));
    close_to(y, count, 2e-5, type_names[type], h, w, in);
    give_back();
}

static void test_conv(void)
{
    for (int t = 0; t < DT_FLOATS; t++)
        for (int n = 1; n < 80; n = n * 3 + 1) {
            conv1d_case(t, 13, 5, 7, 3, n, LINEAR_ADD);
            conv1d_case(t, 96, 33, 7, 9, n, 0);
            conv1d_case(t, 32, 64, 1, 1, n, LINEAR_ADD);
            conv1d_case(t, 32, 1, 7, 1, n, 0);
            up_case(t, 21, 5, 3, 6, n);
            up_case(t, 32, 24, 4, 8, n);
            up_case(t, 64, 33, 2, 2, n);
            depthwise_case(37, n);
        }
    for (int t = 0; t < DT_FLOATS; t++) {
        conv2d_case(t, 2, 9, 14, 1, 11);
        conv2d_case(t, 1, 13, 8, 32, 48);
        conv2d_case(t, 2, 5, 7, 11, 11);
    }
    if (!now.real)
        return;
    conv1d_case(DT_BF16, 1024, 1536, 7, 1, 4, 0);
    conv1d_case(DT_BF16, 768, 768, 7, 3, 32, 0);
    conv1d_case(DT_BF16, 384, 384, 7, 9, 160, 0);
    conv1d_case(DT_BF16, 96, 96, 7, 9, 1920, 0);
    conv1d_case(DT_BF16, 96, 1, 7, 1, 1920, 0);
    up_case(DT_BF16, 1536, 768, 8, 16, 4);
    up_case(DT_BF16, 192, 96, 3, 6, 640);
    up_case(DT_BF16, 1024, 1024, 2, 2, 2);
    conv2d_case(DT_BF16, 1, 100, 128, 1, 480);
    conv2d_case(DT_BF16, 1, 25, 32, 480, 480);
}

static void sample_case(int count, struct sampling s, float size)
{
    struct both logits = floats((size_t)count, size), id = number(-1);
    size_t words = ((size_t)count + 31) / 32;
    struct both seen = take(words * 4), draw = take(8);
    memset(seen.host, 0, words * 4);
    ((uint32_t *)seen.host)[words / 2] =
        0x5a5a5a5a & ((1ull << (count % 32 ? count % 32 : 32)) - 1);
    *(uint64_t *)draw.host = (uint64_t)now.cases;
    for (int i = 0; i < count; i++)
        if (i % 7 == 3)
            ((float *)logits.host)[i] = ((float *)logits.host)[0]; /* ties */
    to_device(logits, (size_t)count * 4);
    to_device(seen, words * 4);
    to_device(draw, 8);
    for (int i = 0; i < 4; i++) {
        BOTH(sample, (plain, id.host, logits.host, count, &s, seen.host, draw.host),
             (gpu, id.device, logits.device, count, &s, seen.device, draw.device));
        same_ints(id, 1, "sample", count, s.top_k, (int)(100 * s.top_p));
    }
    same_ints(seen, words, "seen", count, s.top_k, 0);
    same_ints(draw, 2, "draw", count, s.top_k, 0);
    give_back();
}

static void test_sample(void)
{
    static const struct sampling how[] = {
        {.temperature = 0, .repetition_penalty = 1.3f},
        {.temperature = 0.9f, .top_k = 50, .repetition_penalty = 1.05f},
        {.temperature = 1, .top_k = 50, .top_p = 0.8f},
        {.temperature = 0.7f, .top_p = 0.9f},
        {.temperature = 1},
        {.temperature = 1.5f, .top_k = 300, .top_p = 0.95f},
        {.temperature = 0.9f, .top_k = 20, .limit = 2, .keep = 5},
        {.temperature = 0.3f, .top_k = 1},
    };
    static const int counts[] = {6, 67, 411, 2048, 3072};
    for (size_t i = 0; i < ARRAY_LEN(how); i++)
        for (size_t c = 0; c < ARRAY_LEN(counts); c++) {
            struct sampling s = how[i];
            s.seed = 77 + c;
            sample_case(counts[c], s, 5);
            sample_case(counts[c], s, 0.1f);
        }
    for (size_t i = 0; now.real && i < ARRAY_LEN(how); i++)
        sample_case(152064, how[i], 8);
}

/* A recorded step gives what the ops give, again and again. */
static void test_step(void)
{
    enum { ROWS = 24, COLS = 64 };
    struct weights w = matrix(DT_BF16, ROWS, COLS);
    struct both x = floats(COLS, 1), y = poisoned(ROWS), pos = number(7);
    struct step *step = NULL;
    for (int i = 0; i < 5; i++) {
        for (int j = 0; j < COLS; j++)
            ((float *)x.host)[j] = noise();
        to_device(x, COLS * 4);
        plain->op->linear(plain, y.host, x.host, 1, &w.host, NULL, 0);
        plain->op->advance(plain, pos.host, 3);
        if (gpu->op->step_begin(gpu, &step)) {
            gpu->op->linear(gpu, y.device, x.device, 1, &w.device, NULL, 0);
            gpu->op->advance(gpu, pos.device, 3);
            gpu->op->step_end(gpu, &step);
        }
        close_to(y, ROWS, 2e-5, "step", i, 0, 0);
        same_ints(pos, 1, "step", i, 0, 0);
    }
    gpu->op->step_drop(gpu, step);
    give_back();
}

static const struct {
    const char *name;
    void (*run)(void);
} tests[] = {
    {"linear", test_linear},   {"routers", test_routers},
    {"linears", test_linears}, {"norm_linear", test_norm_linear},
    {"swiglu", test_swiglu},   {"rows", test_rows},
    {"moves", test_moves},     {"rope", test_rope},
    {"attend", test_attend},   {"experts", test_experts},
    {"conv", test_conv},       {"sample", test_sample},
    {"step", test_step},
};

int main(int argc, char **argv)
{
    struct problems why = {0};
    struct device_opts o = {.name = "cuda"}, p = {.name = "plain"};
    const char *which = argc > 1 ? argv[1] : "";
    int failed = 0;
    if (device_open(&gpu, &o, &why) < 0) {
        printf("skip: %s\n", why.n > 0 ? why.text[0] : "no GPU");
        problems_free(&why);
        return SKIPPED;
    }
    if (device_open(&plain, &p, NULL) < 0)
        die("no plain device");
    state = (uint64_t)time(NULL);
    printf("%s, seed %llu\n", gpu->name, (unsigned long long)state);
    for (size_t i = 0; i < ARRAY_LEN(tests); i++) {
        double start = clock_seconds();
        now.name = tests[i].name;
        now.cases = now.failed = 0;
        now.worst = 0;
        now.real = strcmp(which, "small") != 0;
        tests[i].run();
        printf("%-12s %5d cases, %d failed, largest error %.1e, %.1f s\n", now.name, now.cases,
               now.failed, now.worst, clock_seconds() - start);
        fflush(stdout);
        failed += now.failed;
    }
    device_close(gpu);
    device_close(plain);
    printf("%s\n", failed ? "FAILED" : "ok");
    return failed ? 1 : 0;
}
