/*
 * kernels/cpu/read.c - how fast memory can be read.
 *
 * All threads add up the words of their share; what comes out is what decoding could reach if it
 * had nothing else to do.
 */
#include "base/util.h"
#include "kernels/cpu/cpu.h"

enum { SHARE = 1 << 20, LANES = 32 };

struct reading {
    const char *data;
    size_t bytes;
    uint64_t *sums; /* [tasks], so that no read can be left out */
};

static void read_task(void *arg, int task, int worker)
{
    const struct reading *r = arg;
    size_t from = (size_t)task * SHARE, end = from + SHARE < r->bytes ? from + SHARE : r->bytes;
    uint64_t sum[LANES] = {0}, word[LANES];
    (void)worker;
    for (; from + sizeof(word) <= end; from += sizeof(word)) {
        memcpy(word, r->data + from, sizeof(word));
        for (int i = 0; i < LANES; i++)
            sum[i] += word[i];
    }
    for (int i = 0; i < LANES; i++)
        r->sums[task] += sum[i];
}

double cpu_read_rate(struct cpu *c, const void *data, size_t bytes)
{
    int tasks = (int)((bytes + SHARE - 1) / SHARE);
    struct reading r = {data, bytes, host_scratch(&c->host.d, (size_t)tasks * sizeof(uint64_t))};
    memset(r.sums, 0, (size_t)tasks * sizeof(uint64_t));
    double start = clock_seconds();
    pool_run(c->pool, read_task, &r, tasks);
    return (double)bytes / (clock_seconds() - start);
}
