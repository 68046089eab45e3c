/*
 * kernels/cpu/read.c - how fast memory can be read.
 *
 * All threads add up the words of their share, in several streams at once as a matrix product has
 * them. What comes out is what decoding could reach if it had nothing else to do.
 */
#include "base/util.h"
#include "kernels/cpu/cpu.h"

enum { SHARE = 1 << 20 };

struct reading {
    const struct vec *vec;
    const char *data;
    size_t bytes;
    uint32_t *sums; /* [tasks], so that no read can be left out */
};

static void read_task(void *arg, int task, int worker)
{
    const struct reading *r = arg;
    size_t from = (size_t)task * SHARE, left = r->bytes - from;
    (void)worker;
    r->sums[task] = r->vec->read(r->data + from, left < SHARE ? left : SHARE);
}

double cpu_read_rate(struct cpu *c, const void *data, size_t bytes)
{
    int tasks = (int)((bytes + SHARE - 1) / SHARE);
    struct reading r = {c->vec, data, bytes,
                        host_scratch(&c->host.d, (size_t)tasks * sizeof(uint32_t))};
    double start = clock_seconds();
    pool_run(c->pool, read_task, &r, tasks);
    return (double)bytes / (clock_seconds() - start);
}
