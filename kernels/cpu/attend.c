/*
 * kernels/cpu/attend.c - attention over the key/value cache.
 *
 * The query heads that share a kv head, over all n rows, are that head's queries; a task takes a
 * block of them through all their keys: scores (a product with the keys as weight rows), softmax,
 * values (a product the other way round). Scores of a block lie in scratch, zero where a query of
 * the block does not see a key, so that its sums do not depend on the block it is in. Runs of keys
 * end at multiples of RUN and where the ring wraps, both fixed by position, for the same reason.
 */
#include "base/util.h"
#include "kernels/cpu/cpu.h"

enum {
    QUERIES = 24,          /* of a task at most; whole tiles */
    RUN = 256,             /* keys handled while they are in the cache */
    SERIAL_WORK = 1 << 16, /* multiplications not worth waking anybody for */
};

struct job {
    const struct cpu *c;
    const struct kv *kv;
    const struct attention *a;
    float *y;
    const float *q;
    int n, pos;
    int group;   /* query heads of a kv head */
    int queries; /* of a task */
    int blocks;  /* tasks of a kv head */
    int span;    /* most keys of a task */
    float *scratch;
    size_t scratch_worker; /* floats: queries * (span + dim) */
};

/* Keys of row i: from .. to - 1. */
static int last_key(const struct job *j, int i)
{
    return j->a->causal ? j->pos + i + 1 : j->n;
}

static int first_key(const struct job *j, int i)
{
    return j->a->causal && j->a->window > 0 ? max_int(0, last_key(j, i) - j->a->window) : 0;
}

/* Offset in q and y of query r (row r / group) of kv head `head`. */
static size_t query_at(const struct job *j, int head, int r)
{
    size_t row = (size_t)(r / j->group), sub = (size_t)(r % j->group);
    return (row * (size_t)j->a->heads + (size_t)head * (size_t)j->group + sub) * (size_t)j->kv->dim;
}

/* Keys from `key` on that lie one behind the other, up to `to` and the end of the run. */
static int run_length(const struct kv *kv, int key, int to)
{
    int end = min_int(to, (key / RUN + 1) * RUN);
    return min_int(end - key, kv->rows - key % kv->rows);
}

static const void *row_of(const struct kv *kv, const void *data, int key, int head)
{
    size_t row = (size_t)(key % kv->rows) * (size_t)kv->heads + (size_t)head;
    return (const char *)data + row * (size_t)kv->dim * dtype_size(kv->type);
}

/* s[q][key - from] = q . k for the queries r .. r + n - 1 */
static void scores(const struct job *j, float *s, int head, int r, int n, int from, int to)
{
    const struct kv *kv = j->kv;
    size_t ldw = (size_t)kv->heads * (size_t)kv->dim * dtype_size(kv->type);
    const void *x[QUERIES];
    for (int i = 0; i < n; i++)
        x[i] = j->q + query_at(j, head, r + i);
    for (int key = from, keys; key < to; key += keys) {
        keys = run_length(kv, key, to);
        for (int i = 0; i < n; i += VEC_ROWS)
            j->c->vec->dots(s + (size_t)i * (size_t)j->span + (key - from), (size_t)j->span,
                            (enum number)kv->type, row_of(kv, kv->k, key, head), ldw, keys, x + i,
                            min_int(VEC_ROWS, n - i), kv->dim);
    }
}

/* Softmax over what each query sees, zeros over the rest of from .. to - 1. */
static void weigh(const struct job *j, float *s, int r, int n, int from, int to)
{
    for (int i = 0; i < n; i++, s += j->span) {
        int first = first_key(j, (r + i) / j->group) - from;
        int last = last_key(j, (r + i) / j->group) - from;
        memset(s, 0, (size_t)first * sizeof(*s));
        memset(s + last, 0, (size_t)(to - from - last) * sizeof(*s));
        j->c->vec->softmax(s + first, (size_t)(last - first), j->a->scale);
    }
}

/* out[q][dim] = s V */
static void values(const struct job *j, float *out, const float *s, int head, int n, int from,
                   int to)
{
    const struct kv *kv = j->kv;
    size_t dim = (size_t)kv->dim, ldv = (size_t)kv->heads * dim * dtype_size(kv->type);
    memset(out, 0, (size_t)n * dim * sizeof(*out));
    for (int key = from, keys; key < to; key += keys) {
        keys = run_length(kv, key, to);
        j->c->vec->mix(out, dim, s + (key - from), (size_t)j->span, n, row_of(kv, kv->v, key, head),
                       ldv, kv->type, keys, kv->dim);
    }
}

static void attend_task(void *arg, int task, int worker)
{
    const struct job *j = arg;
    int head = task / j->blocks, r = task % j->blocks * j->queries;
    int n = min_int(j->queries, j->n * j->group - r);
    int from = first_key(j, r / j->group), to = last_key(j, (r + n - 1) / j->group);
    float *s = j->scratch + (size_t)worker * j->scratch_worker;
    float *out = s + (size_t)j->queries * (size_t)j->span;
    scores(j, s, head, r, n, from, to);
    weigh(j, s, r, n, from, to);
    values(j, out, s, head, n, from, to);
    for (int i = 0; i < n; i++)
        memcpy(j->y + query_at(j, head, r + i), out + (size_t)i * (size_t)j->kv->dim,
               (size_t)j->kv->dim * sizeof(float));
}

/* Blocks of queries so small that every thread gets some, but whole tiles. */
static void split(struct job *j)
{
    int threads = pool_threads(j->c->pool), all = j->n * j->group;
    for (j->queries = QUERIES;; j->queries /= 2) {
        j->blocks = (all + j->queries - 1) / j->queries;
        if (j->blocks * j->kv->heads >= 2 * threads || j->queries <= VEC_ROWS)
            break;
    }
    int rows = (j->queries - 1) / j->group + 2; /* that a block can touch */
    j->span = last_key(j, j->n - 1) - first_key(j, 0);
    if (j->a->causal && j->a->window > 0)
        j->span = min_int(j->span, j->a->window + rows);
    j->scratch_worker = (size_t)j->queries * (size_t)(j->span + j->kv->dim);
}

void cpu_attend(struct device *d, float *y, const float *q, int n, const struct kv *kv,
                const struct attention *a, const int32_t *pos)
{
    struct cpu *c = (struct cpu *)d;
    struct job j = {.c = c, .kv = kv, .a = a, .y = y, .q = q, .n = n, .pos = *pos};
    j.group = a->heads / kv->heads;
    split(&j);
    j.scratch = host_scratch(d, j.scratch_worker * sizeof(float) * (size_t)pool_threads(c->pool));
    int tasks = kv->heads * j.blocks;
    if (2.0 * n * a->heads * j.span * kv->dim > SERIAL_WORK) {
        pool_run(c->pool, attend_task, &j, tasks);
        return;
    }
    for (int t = 0; t < tasks; t++)
        attend_task(&j, t, 0);
}

static void keep(const struct cpu *c, enum dtype type, void *to, size_t at, const float *x,
                 size_t n)
{
    if (type == DT_F32)
        memcpy((float *)to + at, x, n * sizeof(*x));
    else if (type == DT_BF16)
        c->vec->to_bf16((uint16_t *)to + at, x, n);
    else
        for (size_t i = 0; i < n; i++)
            dtype_write(type, to, at + i, x[i]);
}

void cpu_kv_store(struct device *d, const struct kv *kv, const float *k, const float *v, int n,
                  const int32_t *pos)
{
    const struct cpu *c = (const struct cpu *)d;
    size_t width = (size_t)kv->heads * (size_t)kv->dim;
    for (int i = 0; i < n; i++, k += width, v += width) {
        size_t at = (size_t)((*pos + i) % kv->rows) * width;
        keep(c, kv->type, kv->k, at, k, width);
        keep(c, kv->type, kv->v, at, v, width);
    }
}
