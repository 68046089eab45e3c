/*
 * tests/gpu/both.c - data on both sides.
 */
#include "tests/gpu/both.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"

enum { OWNED_MAX = 4096, TOLD_MAX = 5 };

struct device *plain, *gpu;
struct tested now;
uint64_t state;

/* What a case has taken, on both sides; given back at its end. */
static struct {
    void *host[OWNED_MAX], *device[OWNED_MAX];
    int n;
} owned;

void die(const char *what)
{
    printf("FAIL: %s\n", what);
    exit(1);
}

float noise(void)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (float)(int32_t)(state >> 32) * 0x1p-31f;
}

struct both take(size_t bytes)
{
    struct both b = {malloc(bytes ? bytes : 1), gpu->op->alloc(gpu, bytes)};
    if (b.host == NULL || b.device == NULL || owned.n == OWNED_MAX)
        die("no memory");
    owned.host[owned.n] = b.host;
    owned.device[owned.n++] = b.device;
    return b;
}

void give_back(void)
{
    while (owned.n > 0) {
        owned.n--;
        free(owned.host[owned.n]);
        gpu->op->release(gpu, owned.device[owned.n]);
    }
}

void to_device(struct both b, size_t bytes)
{
    gpu->op->put(gpu, b.device, b.host, bytes);
}

struct both floats(size_t n, float scale)
{
    struct both b = take(n * sizeof(float));
    for (size_t i = 0; i < n; i++)
        ((float *)b.host)[i] = noise() * scale;
    to_device(b, n * sizeof(float));
    return b;
}

struct both narrow_floats(size_t n, enum dtype type)
{
    struct both b = take(n * sizeof(float));
    for (size_t i = 0; i < n; i++) {
        uint16_t h;
        float v = noise();
        if (type == DT_BF16 || type == DT_F16) {
            dtype_write(type, &h, 0, v);
            v = dtype_read(type, &h, 0);
        }
        ((float *)b.host)[i] = v;
    }
    to_device(b, n * sizeof(float));
    return b;
}

struct both poisoned(size_t n)
{
    struct both b = take(n * sizeof(float));
    memset(b.host, 0xff, n * sizeof(float));
    to_device(b, n * sizeof(float));
    return b;
}

struct both ints(size_t n, int below)
{
    struct both b = take(n * sizeof(int32_t));
    for (size_t i = 0; i < n; i++)
        ((int32_t *)b.host)[i] = (int32_t)((noise() * 0.5f + 0.5f) * (float)below) % below;
    to_device(b, n * sizeof(int32_t));
    return b;
}

struct both number(int32_t v)
{
    struct both b = take(sizeof(v));
    *(int32_t *)b.host = v;
    to_device(b, sizeof(v));
    return b;
}

void fill(enum dtype type, void *to, size_t n, float scale)
{
    for (size_t i = 0; i < n; i++)
        dtype_write(type, to, i, noise() * scale);
}

static struct weights bytes_matrix(int rows, int cols)
{
    static const int groups[] = {128, 32, 10, 65536};
    struct weight w = {.type = DT_I8, .rows = rows, .cols = cols, .scale_type = DT_BF16};
    w.group = min_int(groups[(rows + cols) % 4], cols);
    size_t bytes = (size_t)rows * weight_row_bytes(&w);
    size_t scales = (size_t)rows * (size_t)weight_groups(&w);
    struct both b = take(bytes), s = take(scales * 2);
    for (size_t i = 0; i < bytes; i++)
        ((uint8_t *)b.host)[i] = (uint8_t)(128 + 127.9f * noise());
    fill(DT_BF16, s.host, scales, 0.004f);
    to_device(b, bytes);
    to_device(s, scales * 2);
    struct weights both = {w, w};
    both.host.data = b.host;
    both.host.scale = s.host;
    both.device.data = b.device;
    both.device.scale = s.device;
    return both;
}

struct weights matrix(enum dtype type, int rows, int cols)
{
    if (type == DT_I8)
        return bytes_matrix(rows, cols);
    size_t n = (size_t)rows * (size_t)cols;
    struct both b = take(n * dtype_size(type));
    fill(type, b.host, n, 0.5f);
    to_device(b, n * dtype_size(type));
    struct weight w = {.type = type, .rows = rows, .cols = cols};
    struct weights both = {w, w};
    both.host.data = b.host;
    both.device.data = b.device;
    return both;
}

__attribute__((format(printf, 1, 2))) static void fail(const char *format, ...)
{
    va_list args;
    if (now.failed++ > TOLD_MAX)
        return;
    va_start(args, format);
    printf("FAIL %s: ", now.name);
    vprintf(format, args);
    printf("\n");
    va_end(args);
}

static void compare(struct both y, size_t n, double top, double bar, const char *what, int a, int b,
                    int c)
{
    float *got = malloc(n * sizeof(*got));
    const float *want = y.host;
    double worst = 0;
    size_t at = 0;
    gpu->op->get(gpu, got, y.device, n * sizeof(*got));
    for (size_t i = 0; i < n; i++)
        top = fabs((double)want[i]) > top ? fabs((double)want[i]) : top;
    for (size_t i = 0; i < n; i++) {
        double e = fabs((double)got[i] - want[i]) / top;
        if (!(e <= worst)) {
            worst = e == e ? e : INFINITY;
            at = i;
        }
    }
    now.cases++;
    now.worst = fmax(now.worst, worst);
    if (!(worst <= bar))
        fail("%s (%d, %d, %d): element %zu of %zu is %g, the twin has %g (error %.2e, bar %.0e)",
             what, a, b, c, at, n, (double)got[at], (double)want[at], worst, bar);
    free(got);
}

void close_to(struct both y, size_t n, double bar, const char *what, int a, int b, int c)
{
    compare(y, n, 1e-30, bar, what, a, b, c);
}

void close_sums(struct both y, size_t n, double term, double bar, const char *what, int a, int b)
{
    compare(y, n, term, bar, what, a, b, 0);
}

void same_ints(struct both y, size_t n, const char *what, int a, int b, int c)
{
    int32_t *got = malloc(n * sizeof(*got));
    gpu->op->get(gpu, got, y.device, n * sizeof(*got));
    now.cases++;
    for (size_t i = 0; i < n; i++)
        if (got[i] != ((int32_t *)y.host)[i]) {
            fail("%s (%d, %d, %d): id %zu of %zu is %d, the twin has %d", what, a, b, c, i, n,
                 got[i], ((int32_t *)y.host)[i]);
            break;
        }
    free(got);
}
