/*
 * kernels/cpu/element.c - norms, rotary embedding and element-wise ops over the pool.
 *
 * Every op is a function of a range of rows (or of elements, rows of width 1); large ranges are
 * parted between the threads.
 */
#include <math.h>

#include "base/util.h"
#include "kernels/cpu/cpu.h"

enum { PART = 1 << 14 }; /* elements of a task, a few microseconds */

/* An op over `rows` rows of `dim` elements. */
struct range {
    void (*fn)(const struct range *r, size_t from, size_t rows);
    const struct vec *vec;
    float *y;
    const float *x, *a, *b;
    float eps;
    size_t rows, dim, part;
    int heads;
    const struct turns *turns;
};

static void range_task(void *arg, int task, int worker)
{
    const struct range *r = arg;
    size_t from = (size_t)task * r->part;
    (void)worker;
    r->fn(r, from, r->rows - from < r->part ? r->rows - from : r->part);
}

static void run(struct cpu *c, struct range *r)
{
    r->vec = c->vec;
    r->part = (PART + r->dim - 1) / r->dim;
    pool_run(c->pool, range_task, r, (int)((r->rows + r->part - 1) / r->part));
}

static void rms_rows(const struct range *r, size_t from, size_t rows)
{
    for (size_t i = from; i < from + rows; i++)
        r->vec->rms(r->y + i * r->dim, r->x + i * r->dim, r->a, r->eps, r->dim);
}

void cpu_rms_norm(struct device *d, float *y, const float *x, int n, int dim, const float *w,
                  float eps)
{
    struct range r = {.fn = rms_rows, .y = y, .x = x, .a = w, .eps = eps};
    r.rows = (size_t)n;
    r.dim = (size_t)dim;
    run((struct cpu *)d, &r);
}

static void layer_rows(const struct range *r, size_t from, size_t rows)
{
    for (size_t i = from; i < from + rows; i++)
        r->vec->layer(r->y + i * r->dim, r->x + i * r->dim, r->a, r->b, r->eps, r->dim);
}

void cpu_layer_norm(struct device *d, float *y, const float *x, int n, int dim, const float *w,
                    const float *b, float eps)
{
    struct range r = {.fn = layer_rows, .y = y, .x = x, .a = w, .b = b, .eps = eps};
    r.rows = (size_t)n;
    r.dim = (size_t)dim;
    run((struct cpu *)d, &r);
}

/* The table for positions pos .. pos + n - 1, made anew only when something has changed. The angle
 * is formed in fp32, as the reference does. */
static void prepare_turns(struct turns *t, int half, const float *inv_freq, int pos, int n)
{
    size_t bytes = (size_t)half * sizeof(float), turn = 2 * bytes;
    if (t->half == half && t->pos == pos && t->n >= n && memcmp(t->inv_freq, inv_freq, bytes) == 0)
        return;
    t->table = host_room(&t->room, (size_t)n * turn + bytes);
    t->inv_freq = t->table + (size_t)n * 2 * (size_t)half;
    memcpy(t->inv_freq, inv_freq, bytes);
    t->half = half;
    t->pos = pos;
    t->n = n;
    float *to = t->table;
    for (int i = 0; i < n; i++, to += 2 * half)
        for (int k = 0; k < half; k++) {
            float angle = (float)(pos + i) * inv_freq[k];
            to[k] = cosf(angle);
            to[half + k] = sinf(angle);
        }
}

/* A row is one head of one position. */
static void rope_rows(const struct range *r, size_t from, size_t rows)
{
    size_t half = r->dim / 2;
    for (size_t i = from; i < from + rows; i++) {
        float *x = r->y + i * r->dim;
        const float *turn = r->turns->table + i / (size_t)r->heads * 2 * half;
        if (r->a != NULL)
            r->vec->rms(x, x, r->a, r->eps, r->dim);
        r->vec->turn(x, turn, turn + half, half);
    }
}

void cpu_norm_rope(struct device *d, float *x, int n, int heads, int dim, const float *norm,
                   float eps, const float *inv_freq, const int32_t *pos)
{
    struct cpu *c = (struct cpu *)d;
    struct range r = {.fn = rope_rows, .y = x, .a = norm, .eps = eps, .heads = heads};
    prepare_turns(&c->turns, dim / 2, inv_freq, *pos, n);
    r.turns = &c->turns;
    r.rows = (size_t)n * (size_t)heads;
    r.dim = (size_t)dim;
    run(c, &r);
}

static void silu_mul_rows(const struct range *r, size_t from, size_t rows)
{
    r->vec->silu_mul(r->y + from, r->x + from, rows);
}

void cpu_silu_mul(struct device *d, float *gate, const float *up, size_t count)
{
    struct range r = {.fn = silu_mul_rows, .y = gate, .x = up, .rows = count, .dim = 1};
    run((struct cpu *)d, &r);
}

static void add_rows(const struct range *r, size_t from, size_t rows)
{
    r->vec->add(r->y + from, r->x + from, rows);
}

void cpu_add(struct device *d, float *y, const float *x, size_t count)
{
    struct range r = {.fn = add_rows, .y = y, .x = x, .rows = count, .dim = 1};
    run((struct cpu *)d, &r);
}

static void scale_add_rows(const struct range *r, size_t from, size_t rows)
{
    for (size_t i = from; i < from + rows; i++)
        r->vec->scale_add(r->y + i * r->dim, r->x + i * r->dim, r->a, r->dim);
}

void cpu_scale_add(struct device *d, float *y, const float *x, int n, int dim, const float *scale)
{
    struct range r = {.fn = scale_add_rows, .y = y, .x = x, .a = scale};
    r.rows = (size_t)n;
    r.dim = (size_t)dim;
    run((struct cpu *)d, &r);
}

static void gate_add_rows(const struct range *r, size_t from, size_t rows)
{
    for (size_t i = from; i < from + rows; i++)
        r->vec->axpy(r->y + i * r->dim, r->x + i * r->dim, 1 / (1 + expf(-r->a[i])), r->dim);
}

void cpu_gate_add(struct device *d, float *y, const float *x, int n, int dim, const float *gate)
{
    struct range r = {.fn = gate_add_rows, .y = y, .x = x, .a = gate};
    r.rows = (size_t)n;
    r.dim = (size_t)dim;
    run((struct cpu *)d, &r);
}

static void snake_rows(const struct range *r, size_t from, size_t rows)
{
    for (size_t i = from; i < from + rows; i++)
        r->vec->snake(r->y + i * r->dim, r->x + i * r->dim, r->a, r->b, r->dim);
}

void cpu_snake(struct device *d, float *y, const float *x, int t, int channels, const float *alpha,
               const float *inv_beta)
{
    struct range r = {.fn = snake_rows, .y = y, .x = x, .a = alpha, .b = inv_beta};
    r.rows = (size_t)t;
    r.dim = (size_t)channels;
    run((struct cpu *)d, &r);
}

struct routing {
    struct device *d;
    int32_t *ids;
    float *weights;
    const float *logits;
    int n, experts, k, renorm;
};

enum { ROUTE_ROWS = 8 }; /* of a task, about 30 us */

static void route_task(void *arg, int task, int worker)
{
    const struct routing *r = arg;
    int from = task * ROUTE_ROWS, n = min_int(ROUTE_ROWS, r->n - from);
    size_t at = (size_t)from * (size_t)r->k;
    (void)worker;
    plain_route(r->d, r->ids + at, r->weights + at, r->logits + (size_t)from * (size_t)r->experts,
                n, r->experts, r->k, r->renorm);
}

void cpu_route(struct device *d, int32_t *ids, float *weights, const float *logits, int n,
               int experts, int k, int renorm)
{
    struct routing r = {d, ids, weights, logits, n, experts, k, renorm};
    pool_run(((struct cpu *)d)->pool, route_task, &r, (n + ROUTE_ROWS - 1) / ROUTE_ROWS);
}
