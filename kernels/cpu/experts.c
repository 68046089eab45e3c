/*
 * kernels/cpu/experts.c - mixtures of experts: rows grouped by expert, two parallel phases.
 *
 *     up      h_m = silu(gate_e x_i) * (up_e x_i)     tasks: active expert x block of `inner`
 *     down    y_i += sum over j of weight_ij down_e h_m    tasks: block of `hidden`, all experts
 *
 * A slot is one (row i, choice j), number i * k + j; slots sorted by expert have places m, so that
 * an expert sees its rows as one run. The last sum is taken in the order of j whatever the places
 * are, which keeps a row's result independent of its company.
 */
#include "base/util.h"
#include "kernels/cpu/cpu.h"

enum { BLOCK = 32 }; /* weight rows of a task */

struct mixture {
    const struct cpu *c;
    const struct expert *e;
    float *y;
    const float *weights; /* [slots] */
    int n, k, hidden, inner;
    int active;      /* experts with at least one row */
    int *expert;     /* [active] which */
    int *first;      /* [active + 1] its first place */
    int *slot;       /* [slots] by place */
    int *place;      /* [slots] by slot */
    enum number num; /* of gate and up */
    enum number num_down;
    char *x;    /* [n, hidden] */
    char *h;    /* [slots, inner] by place */
    float *out; /* [worker][slots, BLOCK] by place */
    int *next;  /* [experts] while sorting */
};

/* Sorts the slots by expert, keeping their order within one. */
static void group(struct mixture *m, const int32_t *ids, int experts)
{
    int slots = m->n * m->k, place = 0;
    memset(m->next, 0, (size_t)experts * sizeof(*m->next));
    for (int s = 0; s < slots; s++)
        m->next[ids[s]]++;
    m->active = 0;
    for (int e = 0; e < experts; e++) {
        int rows = m->next[e];
        if (rows == 0)
            continue;
        m->expert[m->active] = e;
        m->first[m->active++] = m->next[e] = place;
        place += rows;
    }
    m->first[m->active] = place;
    for (int s = 0; s < slots; s++) {
        m->place[s] = m->next[ids[s]]++;
        m->slot[m->place[s]] = s;
    }
}

/* h of n places from `at` on, elements r .. r + rows - 1 */
static void up_tile(const struct mixture *m, const struct expert *e, int r, int rows, int at, int n)
{
    float gate[VEC_ROWS * BLOCK], up[VEC_ROWS * BLOCK];
    const void *x[VEC_ROWS];
    size_t size = number_x_bytes(m->num_down);
    for (int i = 0; i < n; i++) {
        size_t row = (size_t)(m->slot[at + i] / m->k);
        x[i] = m->x + row * (size_t)m->hidden * number_x_bytes(m->num);
    }
    cpu_dots(m->c, gate, BLOCK, &e->gate, m->num, r, rows, x, n);
    cpu_dots(m->c, up, BLOCK, &e->up, m->num, r, rows, x, n);
    for (int i = 0; i < n; i++) {
        float *g = gate + i * BLOCK;
        char *h = m->h + (size_t)(at + i) * (size_t)m->inner * size;
        m->c->vec->silu_mul(g, up + i * BLOCK, (size_t)rows);
        if (m->num_down == NUM_SPLIT)
            m->c->vec->to_split((uint16_t *)h + r, (uint16_t *)h + m->inner + r, g, (size_t)rows);
        else
            memcpy((float *)h + r, g, (size_t)rows * sizeof(*g));
    }
}

static void up_task(void *arg, int task, int worker)
{
    const struct mixture *m = arg;
    int blocks = (m->inner + BLOCK - 1) / BLOCK, a = task / blocks, r = task % blocks * BLOCK;
    int rows = min_int(BLOCK, m->inner - r), end = m->first[a + 1];
    (void)worker;
    for (int at = m->first[a]; at < end; at += VEC_ROWS)
        up_tile(m, &m->e[m->expert[a]], r, rows, at, min_int(VEC_ROWS, end - at));
}

/* out[place][0 .. rows) for all places of one active expert */
static void down_expert(const struct mixture *m, float *out, int a, int r, int rows)
{
    const void *h[VEC_ROWS];
    size_t stride = (size_t)m->inner * number_x_bytes(m->num_down);
    for (int at = m->first[a], n; at < m->first[a + 1]; at += n) {
        n = min_int(VEC_ROWS, m->first[a + 1] - at);
        for (int i = 0; i < n; i++)
            h[i] = m->h + (size_t)(at + i) * stride;
        cpu_dots(m->c, out + (size_t)at * BLOCK, BLOCK, &m->e[m->expert[a]].down, m->num_down, r,
                 rows, h, n);
    }
}

static void down_task(void *arg, int task, int worker)
{
    const struct mixture *m = arg;
    int r = task * BLOCK, rows = min_int(BLOCK, m->hidden - r), slots = m->n * m->k;
    float *out = m->out + (size_t)worker * (size_t)slots * BLOCK;
    for (int a = 0; a < m->active; a++)
        down_expert(m, out, a, r, rows);
    for (int s = 0; s < slots; s++)
        m->c->vec->axpy(m->y + (size_t)(s / m->k) * (size_t)m->hidden + r,
                        out + (size_t)m->place[s] * BLOCK, m->weights[s], (size_t)rows);
}

/* Cuts the scratch into the arrays of m. */
static void arrange(struct mixture *m, struct device *d, int experts)
{
    size_t slots = (size_t)m->n * (size_t)m->k, most = (size_t)experts;
    size_t x = (size_t)m->n * (size_t)m->hidden * 4, h = slots * (size_t)m->inner * 4;
    size_t out = slots * BLOCK * 4 * (size_t)pool_threads(m->c->pool);
    char *p = host_scratch(d, x + h + out + (3 * most + 1 + 2 * slots) * sizeof(int));
    m->x = p;
    m->h = p + x;
    m->out = (float *)(p + x + h);
    m->expert = (int *)(p + x + h + out);
    m->first = m->expert + most;
    m->next = m->first + most + 1;
    m->slot = m->next + most;
    m->place = m->slot + slots;
}

/* Whether one conversion of x, and one of h, serves all experts. */
static int uniform(const struct expert *e, int experts)
{
    for (int i = 0; i < experts; i++)
        if (e[i].gate.type != e->gate.type || e[i].up.type != e->gate.type ||
            e[i].down.type != e->down.type)
            return 0;
    return 1;
}

void cpu_experts(struct device *d, float *y, const float *x, int n, const struct expert *e,
                 int experts, const int32_t *ids, const float *weights, int k)
{
    struct cpu *c = (struct cpu *)d;
    if (!uniform(e, experts)) {
        plain_experts(d, y, x, n, e, experts, ids, weights, k);
        return;
    }
    struct mixture m = {.c = c, .e = e, .y = y, .weights = weights, .n = n, .k = k};
    m.hidden = e->down.rows;
    m.inner = e->gate.rows;
    m.num = cpu_number(c, e->gate.type, 0);
    m.num_down = cpu_number(c, e->down.type, 0);
    arrange(&m, d, experts);
    group(&m, ids, experts);
    if (m.num == NUM_SPLIT)
        cpu_split(c, m.x, x, (size_t)n, (size_t)m.hidden);
    else
        memcpy(m.x, x, (size_t)n * (size_t)m.hidden * sizeof(*x));
    pool_run(c->pool, up_task, &m, m.active * ((m.inner + BLOCK - 1) / BLOCK));
    pool_run(c->pool, down_task, &m, (m.hidden + BLOCK - 1) / BLOCK);
}
