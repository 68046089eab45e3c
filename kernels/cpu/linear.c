/*
 * kernels/cpu/linear.c - y = W x over the pool.
 *
 * A task is a block of weight rows times a block of x rows. The weight block stays in the second
 * level cache while rows of x pass in tiles of VEC_ROWS, so weights come from memory once. Decoding
 * (n = 1) reads every weight once and is bound by that; many rows are bound by arithmetic.
 */
#include "base/util.h"
#include "kernels/cpu/cpu.h"

enum {
    BLOCK_BYTES = 512 << 10, /* weights of one task */
    BLOCK_ROWS = 128,        /* and at most so many rows */
    ROW_STEP = 8,            /* rows of a block: whole tiles */
    SERIAL_WORK = 1 << 16,   /* multiplications not worth waking anybody for, about 2 us */
};

struct job {
    const struct cpu *c;
    const struct product *p;
    size_t ldw;     /* bytes */
    int row_block;  /* weight rows of a task */
    int row_blocks; /* tasks along the rows */
    int x_block;    /* rows of x of a task */
};

enum number cpu_number_conv(const struct cpu *c, enum dtype type)
{
    return type == DT_BF16 && c->vec->pairs ? NUM_PAIR : (enum number)type;
}

enum number cpu_number(const struct cpu *c, enum dtype type, unsigned flags)
{
    if (type == DT_BF16 && c->vec->pairs && !(flags & LINEAR_EXACT))
        return NUM_SPLIT;
    return (enum number)type;
}

void cpu_dots(const struct cpu *c, float *out, size_t ldo, const struct weight *w, enum number num,
              int r, int rows, const void *const *x, int n)
{
    size_t ldw = weight_row_bytes(w);
    if (num == NUM_I8)
        c->vec->dots8(out, ldo, w, r, rows, x, n);
    else
        c->vec->dots(out, ldo, num, (const char *)w->data + (size_t)r * ldw, ldw, rows, x, n,
                     w->cols);
}

/* Rows i .. i + n - 1 of x with weight rows r .. r + rows - 1. */
static void tile(const struct job *j, int r, int rows, int i, int n)
{
    const struct product *p = j->p;
    const struct weight *w = p->w;
    const void *x[VEC_ROWS] = {NULL};
    float sums[VEC_ROWS * BLOCK_ROWS];
    for (int m = 0; m < n; m++)
        x[m] = (const char *)p->x + (size_t)(i + m) * p->ldx;
    cpu_dots(j->c, sums, BLOCK_ROWS, w, p->num, r, rows, x, n);
    for (int m = 0; m < n; m++)
        j->c->vec->finish(p->y + (size_t)(i + m) * (size_t)w->rows + r, sums + m * BLOCK_ROWS,
                          p->bias ? p->bias + r : NULL, (size_t)rows, p->flags);
}

static void product_task(void *arg, int task, int worker)
{
    const struct job *j = arg;
    int r = task % j->row_blocks * j->row_block, i = task / j->row_blocks * j->x_block;
    int rows = min_int(j->row_block, j->p->w->rows - r), end = min_int(i + j->x_block, j->p->n);
    (void)worker;
    for (; i < end; i += VEC_ROWS)
        tile(j, r, rows, i, min_int(VEC_ROWS, end - i));
}

static int blocks(int n, int block)
{
    return (n + block - 1) / block;
}

/* Some tasks more than threads, so that the last one does not keep the others waiting. */
static int enough_tasks(const struct cpu *c)
{
    return 4 * pool_threads(c->pool);
}

static void split(struct job *j)
{
    const struct weight *w = j->p->w;
    int n = j->p->n, tasks = enough_tasks(j->c);
    int fit = (int)(BLOCK_BYTES / (j->ldw + 1)) / ROW_STEP * ROW_STEP;
    j->row_block = max_int(ROW_STEP, min_int(BLOCK_ROWS, fit));
    j->x_block = n;
    if (n <= VEC_ROWS) { /* only rows can be split */
        int share = blocks(blocks(w->rows, tasks), ROW_STEP) * ROW_STEP;
        j->row_block = min_int(j->row_block, share);
    }
    j->row_blocks = blocks(w->rows, j->row_block);
    if (j->row_blocks < tasks)
        j->x_block = blocks(blocks(n, blocks(tasks, j->row_blocks)), VEC_ROWS) * VEC_ROWS;
}

void cpu_product(struct cpu *c, const struct product *p)
{
    struct job j = {.c = c, .p = p, .ldw = weight_row_bytes(p->w)};
    split(&j);
    int tasks = j.row_blocks * blocks(p->n, j.x_block);
    if ((double)p->n * p->w->rows * p->w->cols > SERIAL_WORK) {
        pool_run(c->pool, product_task, &j, tasks);
        return;
    }
    for (int t = 0; t < tasks; t++)
        product_task(&j, t, 0);
}

struct conversion {
    const struct cpu *c;
    void *to;
    const float *x;
    size_t count, part; /* elements; rows where they are split */
    size_t cols;
};

static void convert_task(void *arg, int task, int worker)
{
    const struct conversion *v = arg;
    size_t from = (size_t)task * v->part, n = v->count - from < v->part ? v->count - from : v->part;
    (void)worker;
    v->c->vec->to_bf16((uint16_t *)v->to + from, v->x + from, n);
}

static void split_task(void *arg, int task, int worker)
{
    const struct conversion *v = arg;
    size_t row = (size_t)task * v->part, end = row + v->part;
    (void)worker;
    for (; row < end && row < v->count; row++) {
        uint16_t *high = (uint16_t *)v->to + row * 2 * v->cols;
        v->c->vec->to_split(high, high + v->cols, v->x + row * v->cols, v->cols);
    }
}

void cpu_split(struct cpu *c, void *to, const float *x, size_t rows, size_t cols)
{
    struct conversion v = {c, to, x, rows, 16384 / cols + 1, cols};
    pool_run(c->pool, split_task, &v, (int)((rows + v.part - 1) / v.part));
}

void cpu_round(struct cpu *c, void *to, const float *x, size_t count)
{
    struct conversion v = {c, to, x, count, 16384, 0};
    pool_run(c->pool, convert_task, &v, (int)((count + v.part - 1) / v.part));
}

void cpu_linear(struct device *d, float *y, const float *x, int n, const struct weight *w,
                const float *bias, unsigned flags)
{
    struct cpu *c = (struct cpu *)d;
    struct product p = {w, cpu_number(c, w->type, flags), x, 0, n, y, bias, flags};
    p.ldx = (size_t)w->cols * number_x_bytes(p.num);
    if (p.num == NUM_SPLIT) {
        void *halves = host_scratch(d, (size_t)n * p.ldx);
        cpu_split(c, halves, x, (size_t)n, (size_t)w->cols);
        p.x = halves;
    }
    cpu_product(c, &p);
}

void cpu_embed(struct device *d, float *y, const struct weight *table, const int32_t *ids, int n,
               int add)
{
    const struct cpu *c = (const struct cpu *)d;
    size_t cols = (size_t)table->cols, stride = weight_row_bytes(table);
    if (table->type == DT_I8) {
        plain_embed(d, y, table, ids, n, add);
        return;
    }
    for (int i = 0; i < n; i++, y += cols)
        c->vec->widen(y, (const char *)table->data + (size_t)ids[i] * stride, table->type, cols,
                      add);
}
