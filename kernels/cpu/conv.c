/*
 * kernels/cpu/conv.c - convolutions as matrix products.
 *
 * A convolution's weight is a matrix whose columns are (channel, kernel position); its x is the
 * matrix of patches, one row per output. Patches are gathered into scratch some thousands at a time
 * and multiplied as any x. Gathering interleaves the kernel positions, one element at a time, which
 * is cheap beside the product when there are many outputs. With few outputs (NARROW) the weights
 * are turned to (kernel position, channel) instead, once per call: then a patch is `kernel` runs of
 * whole samples, and without dilation it need not be gathered at all, because it lies in x as it
 * is, neighbouring patches overlapping.
 *
 * Which way is taken depends on the weight's shape alone, so that results do not depend on t.
 */
#include "base/util.h"
#include "kernels/cpu/cpu.h"

enum {
    NARROW = 256,            /* outputs */
    PATCH_BYTES = 2 << 20,   /* patches gathered before they are multiplied */
    GATHER_BYTES = 64 << 10, /* patches of a task */
};

/* Rows of patches from row `row` on, made by `fill`. */
struct patches {
    const struct cpu *c;
    void (*fill)(const struct patches *p, void *to, size_t row); /* fp32, or as `num` if narrow */
    const float *x;                                              /* what the op was given */
    const char *near; /* narrow: x as `num`, beginning at its history */
    enum number num;
    size_t cols, in;
    int kernel, dilation; /* conv1d */
    int h, w;             /* conv2d */
    char *to;             /* [chunk, cols] as num */
    float *row;           /* [worker][cols] fp32, where `to` is bf16 */
    size_t first, count;  /* rows of this chunk */
    size_t part;          /* of a task */
};

static void gather_task(void *arg, int task, int worker)
{
    const struct patches *p = arg;
    size_t from = (size_t)task * p->part, size = number_x_bytes(p->num);
    for (size_t i = from; i < from + p->part && i < p->count; i++) {
        char *to = p->to + i * p->cols * size;
        if (p->near == NULL && p->num == NUM_PAIR) {
            float *row = p->row + (size_t)worker * p->cols;
            p->fill(p, row, p->first + i);
            p->c->vec->to_bf16((uint16_t *)to, row, p->cols);
        } else {
            p->fill(p, to, p->first + i);
        }
    }
}

/* y[rows, out] = act(patches W^T + bias), chunk by chunk; scratch from p->to on. */
static void multiply(struct cpu *c, struct patches *p, float *y, size_t rows, size_t chunk,
                     const struct weight *w, const float *bias, unsigned flags)
{
    size_t ldx = p->cols * number_x_bytes(p->num);
    p->part = GATHER_BYTES / ldx + 1;
    for (p->first = 0; p->first < rows; p->first += p->count) {
        p->count = rows - p->first < chunk ? rows - p->first : chunk;
        pool_run(c->pool, gather_task, p, (int)((p->count + p->part - 1) / p->part));
        struct product q = {w, p->num, p->to, ldx, (int)p->count, NULL, bias, flags};
        q.y = y + p->first * (size_t)w->rows;
        cpu_product(c, &q);
    }
}

/* Patches of fp32 x; those of bf16 are made in a row of fp32 first. */
static void gather_and_multiply(struct cpu *c, struct patches *p, float *y, size_t rows,
                                const struct weight *w, const float *bias, unsigned flags)
{
    size_t bytes = p->cols * 4, chunk = PATCH_BYTES / bytes + 1;
    chunk = chunk < rows ? chunk : rows;
    p->to = host_scratch(&c->host.d, (chunk + (size_t)pool_threads(c->pool)) * bytes);
    p->row = (float *)(p->to + chunk * bytes);
    multiply(c, p, y, rows, chunk, w, bias, flags);
}

enum { TAPS = 9 }; /* of conv2d, 3 x 3 */

/* Patch [in][b along w][a along h] of one output pixel (kernels/plain/conv.c has the formula). */
static void fill_2d(const struct patches *p, void *to, size_t row)
{
    int ho = (p->h + 1) / 2, wo = (p->w + 1) / 2;
    int j = (int)(row % (size_t)wo), i = (int)(row / (size_t)wo % (size_t)ho);
    const float *image = p->x + row / (size_t)(ho * wo) * (size_t)(p->h * p->w) * p->in;
    float *patch = to;
    for (int b = 0; b < 3; b++)
        for (int a = 0; a < 3; a++, patch++) {
            int r = 2 * i - 1 + a, q = 2 * j - 1 + b;
            int outside = r < 0 || r >= p->h || q < 0 || q >= p->w;
            const float *from = outside ? NULL : image + (size_t)(r * p->w + q) * p->in;
            for (size_t c = 0; c < p->in; c++)
                patch[c * TAPS] = outside ? 0 : from[c];
        }
}

void cpu_conv2d(struct device *d, float *y, const float *x, int n, int h, int w,
                const struct weight *weight, const float *bias)
{
    struct cpu *c = (struct cpu *)d;
    struct patches p = {.c = c, .fill = fill_2d, .x = x, .h = h, .w = w};
    p.num = (enum number)weight->type; /* x in fp32: the Thinker's routers see this error */
    p.cols = (size_t)weight->cols;
    p.in = p.cols / TAPS;
    size_t rows = (size_t)n * (size_t)((h + 1) / 2) * (size_t)((w + 1) / 2);
    gather_and_multiply(c, &p, y, rows, weight, bias, LINEAR_GELU);
}

/* Patch [in][kernel] of sample `row`. */
static void fill_1d(const struct patches *p, void *to, size_t row)
{
    ptrdiff_t step = (ptrdiff_t)p->in * p->dilation;
    const float *x = p->x + (ptrdiff_t)(row * p->in) - step * (p->kernel - 1);
    float *patch = to;
    for (int i = 0; i < p->kernel; i++, x += step)
        for (size_t c = 0; c < p->in; c++)
            patch[c * (size_t)p->kernel + (size_t)i] = x[c];
}

/* Patch [kernel][in] of sample `row`. */
static void fill_near(const struct patches *p, void *to, size_t row)
{
    size_t bytes = p->in * number_x_bytes(p->num);
    for (size_t i = 0; i < (size_t)p->kernel; i++)
        memcpy((char *)to + i * bytes, p->near + (row + i * (size_t)p->dilation) * bytes, bytes);
}

struct turning {
    const struct weight *w;
    char *to;
    size_t in, kernel;
};

/* One output's weights from [in][kernel] to [kernel][in]. */
static void turn_task(void *arg, int task, int worker)
{
    const struct turning *t = arg;
    size_t cols = t->in * t->kernel, at = (size_t)task * cols;
    (void)worker;
    for (size_t i = 0; i < t->kernel; i++)
        for (size_t c = 0; c < t->in; c++)
            if (t->w->type == DT_F32)
                ((float *)t->to)[at + i * t->in + c] =
                    ((const float *)t->w->data)[at + c * t->kernel + i];
            else
                ((uint16_t *)t->to)[at + i * t->in + c] =
                    ((const uint16_t *)t->w->data)[at + c * t->kernel + i];
}

static size_t round_up(size_t bytes)
{
    return (bytes + 63) / 64 * 64;
}

/* conv1d with few outputs: see the head of this file. */
static void narrow(struct cpu *c, struct patches *p, float *y, size_t t, const struct weight *w,
                   const float *bias, unsigned flags)
{
    size_t history = (size_t)(p->kernel - 1) * (size_t)p->dilation, ldx = p->cols * 4;
    size_t weights = round_up(p->cols * (size_t)w->rows * dtype_size(w->type));
    size_t near = p->num == NUM_PAIR ? round_up((history + t) * p->in * 2) : 0;
    size_t chunk = p->dilation == 1 ? 0 : PATCH_BYTES / ldx + 1;
    char *scratch = host_scratch(&c->host.d, weights + near + chunk * ldx);
    struct turning turning = {w, scratch, p->in, (size_t)p->kernel};
    struct weight turned = *w;
    turned.data = scratch;
    p->near = (const char *)(p->x - history * p->in);
    if (p->num == NUM_PAIR) {
        cpu_round(c, scratch + weights, p->x - history * p->in, (history + t) * p->in);
        p->near = scratch + weights;
    }
    pool_run(c->pool, turn_task, &turning, w->rows);
    if (p->dilation == 1) {
        struct product q = {&turned, p->num, p->near, 0, (int)t, y, bias, flags};
        q.ldx = p->in * number_x_bytes(p->num);
        cpu_product(c, &q);
        return;
    }
    p->fill = fill_near;
    p->to = scratch + weights + near;
    multiply(c, p, y, t, chunk, &turned, bias, flags);
}

void cpu_conv1d(struct device *d, float *y, const float *x, int t, const struct weight *w,
                const float *bias, int kernel, int dilation, unsigned flags)
{
    struct cpu *c = (struct cpu *)d;
    struct patches p = {.c = c, .fill = fill_1d, .x = x, .kernel = kernel, .dilation = dilation};
    if (kernel == 1) { /* its patches are x itself */
        cpu_linear(d, y, x, t, w, bias, flags);
        return;
    }
    p.num = cpu_number_conv(c, w->type);
    p.cols = (size_t)w->cols;
    p.in = p.cols / (size_t)kernel;
    if (w->rows <= NARROW)
        narrow(c, &p, y, (size_t)t, w, bias, flags);
    else
        gather_and_multiply(c, &p, y, (size_t)t, w, bias, flags);
}

struct depthwise {
    const struct vec *vec;
    float *y;
    const float *x; /* from its history on */
    const float *w; /* [kernel, channels] */
    const float *bias;
    int t, channels, kernel, part;
};

static void depthwise_task(void *arg, int task, int worker)
{
    const struct depthwise *j = arg;
    int from = task * j->part, to = min_int(from + j->part, j->t);
    size_t channels = (size_t)j->channels;
    (void)worker;
    for (size_t s = (size_t)from; s < (size_t)to; s++)
        j->vec->depthwise(j->y + s * channels, j->x + s * channels, j->w, j->bias, j->kernel,
                          channels);
}

void cpu_conv1d_depthwise(struct device *d, float *y, const float *x, int t, int channels,
                          const float *w, const float *bias, int kernel)
{
    struct cpu *c = (struct cpu *)d;
    float *turned = host_scratch(d, (size_t)channels * (size_t)kernel * sizeof(float));
    struct depthwise j = {c->vec, y, x, turned, bias, t, channels, kernel, 0};
    for (int i = 0; i < kernel; i++)
        for (int k = 0; k < channels; k++)
            turned[(size_t)i * (size_t)channels + (size_t)k] = w[k * kernel + i];
    j.x = x - (size_t)(kernel - 1) * (size_t)channels;
    j.part = 1 + 16384 / channels;
    pool_run(c->pool, depthwise_task, &j, (t + j.part - 1) / j.part);
}

/* Transposed convolution: a task multiplies a run of samples with the columns of some outputs,
 * tmp[j][o][kernel], then lays the results along time. Rows of x overlap by one where the kernel
 * is two strides long. */
struct up {
    const struct cpu *c;
    float *y;
    const float *x;
    const struct weight *w;
    const float *bias;
    int t, out, stride, kernel;
    int outs, samples; /* of a task */
    int blocks;        /* of outputs */
    float *tmp;        /* [worker][samples + 1][outs * kernel] */
};

enum { UP_COLUMNS = 512, UP_SAMPLES = 48 };

/* y of sample j, outputs o .. o + n - 1; now and before are rows of tmp (before: NULL if kernel is
 * one stride). */
static void lay(const struct up *u, const float *now, const float *before, int j, int o, int n)
{
    for (int i = 0; i < u->stride; i++) {
        float *y = u->y + ((size_t)j * (size_t)u->stride + (size_t)i) * (size_t)u->out + o;
        for (int m = 0; m < n; m++) {
            float v = now[m * u->kernel + i] + (u->bias ? u->bias[o + m] : 0);
            y[m] = before ? v + before[m * u->kernel + u->stride + i] : v;
        }
    }
}

static void up_task(void *arg, int task, int worker)
{
    const struct up *u = arg;
    int o = task % u->blocks * u->outs, j = task / u->blocks * u->samples;
    int n = min_int(u->outs, u->out - o), end = min_int(j + u->samples, u->t);
    int history = u->kernel > u->stride, width = n * u->kernel, rows = end - j + history;
    size_t in = (size_t)u->w->rows, size = dtype_size(u->w->type), ld = (size_t)width;
    float *tmp = u->tmp + (size_t)worker * (size_t)(u->samples + 1) * (size_t)(u->outs * u->kernel);
    memset(tmp, 0, (size_t)rows * ld * sizeof(*tmp));
    u->c->vec->mix(tmp, ld, u->x + ((ptrdiff_t)j - history) * (ptrdiff_t)in, in, rows,
                   (const char *)u->w->data + (size_t)o * (size_t)u->kernel * size,
                   (size_t)u->w->cols * size, u->w->type, u->w->rows, width);
    for (int i = 0; i < end - j; i++)
        lay(u, tmp + (size_t)(i + history) * ld, history ? tmp + (size_t)i * ld : NULL, j + i, o,
            n);
}

void cpu_conv1d_up(struct device *d, float *y, const float *x, int t, const struct weight *w,
                   const float *bias, int stride, int kernel)
{
    struct cpu *c = (struct cpu *)d;
    struct up u = {.c = c, .y = y, .x = x, .w = w, .bias = bias, .t = t, .stride = stride};
    u.kernel = kernel;
    u.out = w->cols / kernel;
    u.outs = max_int(1, min_int(u.out, UP_COLUMNS / kernel));
    u.samples = min_int(t, UP_SAMPLES);
    u.blocks = (u.out + u.outs - 1) / u.outs;
    size_t tmp = (size_t)(u.samples + 1) * (size_t)(u.outs * kernel);
    u.tmp = host_scratch(d, tmp * sizeof(float) * (size_t)pool_threads(c->pool));
    pool_run(c->pool, up_task, &u, u.blocks * ((t + u.samples - 1) / u.samples));
}
