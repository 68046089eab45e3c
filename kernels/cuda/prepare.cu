/*
 * kernels/cuda/prepare.cu - what is made of weights at their first use and kept: the array of a
 * layer's experts on the device, and convolutions with their columns in another order.
 *
 * An entry is known by the address of what it was made from. Whoever releases that memory through
 * the same handle makes it forgotten; model and handle are closed in either order otherwise.
 */
#include "kernels/cuda/prepare.cuh"

#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/moe.cuh"

struct entry {
    const void *from;
    void *copy;   /* on the host: what a table of experts was made from */
    size_t bytes; /* of copy; of packed weights: of them */
    int taps;     /* of packed weights, and stride or side */
    int stride;
    void *device;
};

struct block { /* of device memory that this handle gave out */
    char *at;
    size_t bytes;
};

struct prepared {
    struct entry *entries;
    int n, cap;
    struct block *blocks;
    int n_blocks, blocks_cap;
};

static void *grown(void *p, int n, int *cap, size_t size)
{
    if (n < *cap)
        return p;
    *cap = at_least(2 * *cap, 64);
    p = realloc(p, (size_t)*cap * size);
    CUDA_MUST(p != NULL ? cudaSuccess : cudaErrorMemoryAllocation);
    return p;
}

static struct prepared *prepared(struct cuda *c)
{
    if (c->prepared == NULL)
        c->prepared = (struct prepared *)calloc(1, sizeof(*c->prepared));
    CUDA_MUST(c->prepared != NULL ? cudaSuccess : cudaErrorMemoryAllocation);
    return c->prepared;
}

static struct entry *find(struct prepared *p, const void *from)
{
    for (int i = 0; i < p->n; i++)
        if (p->entries[i].from == from)
            return &p->entries[i];
    return NULL;
}

static struct entry *add(struct prepared *p, const void *from, size_t device_bytes)
{
    p->entries = (struct entry *)grown(p->entries, p->n, &p->cap, sizeof(*p->entries));
    struct entry *e = &p->entries[p->n++];
    memset(e, 0, sizeof(*e));
    e->from = from;
    CUDA_MUST(cudaMalloc(&e->device, device_bytes));
    return e;
}

static void drop(struct entry *e)
{
    CUDA_MUST(cudaFree(e->device));
    free(e->copy);
}

void cuda_remember(struct cuda *c, void *at, size_t bytes)
{
    struct prepared *p = prepared(c);
    p->blocks = (struct block *)grown(p->blocks, p->n_blocks, &p->blocks_cap, sizeof(*p->blocks));
    p->blocks[p->n_blocks].at = (char *)at;
    p->blocks[p->n_blocks++].bytes = bytes;
}

static void forget_range(struct prepared *p, const char *at, size_t bytes)
{
    for (int i = 0; i < p->n;) {
        const char *from = (const char *)p->entries[i].from;
        if (from < at || from >= at + bytes) {
            i++;
            continue;
        }
        drop(&p->entries[i]);
        p->entries[i] = p->entries[--p->n];
    }
}

void cuda_forget(struct cuda *c, void *at)
{
    struct prepared *p = prepared(c);
    for (int i = 0; i < p->n_blocks; i++)
        if (p->blocks[i].at == at) {
            forget_range(p, p->blocks[i].at, p->blocks[i].bytes);
            p->blocks[i] = p->blocks[--p->n_blocks];
            return;
        }
}

void cuda_prepared_close(struct cuda *c)
{
    struct prepared *p = prepared(c);
    for (int i = 0; i < p->n; i++)
        drop(&p->entries[i]);
    free(p->entries);
    free(p->blocks);
    free(p);
}

/* Not through the handle's stream: a step may be being recorded. */
static void upload(struct cuda *c, void *to, const void *from, size_t bytes)
{
    CUDA_MUST(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, c->side));
    cuda_wait(c, c->side);
}

const struct expert *cuda_expert_table(struct cuda *c, const struct expert *e, int experts)
{
    struct prepared *p = prepared(c);
    size_t bytes = (size_t)experts * sizeof(*e);
    struct entry *at = find(p, e);
    if (at != NULL && at->bytes == bytes && memcmp(at->copy, e, bytes) == 0)
        return (const struct expert *)at->device;
    if (at != NULL) { /* another layer's array at the same address */
        drop(at);
        *at = p->entries[--p->n];
    }
    at = add(p, e, bytes);
    at->bytes = bytes;
    at->copy = malloc(bytes);
    CUDA_MUST(at->copy != NULL ? cudaSuccess : cudaErrorMemoryAllocation);
    memcpy(at->copy, e, bytes);
    upload(c, at->device, e, bytes);
    return (const struct expert *)at->device;
}

enum { THREADS = 256 };

/* to[row, tap, in] = from[row, in, tap of order[tap]]; element sizes of 16 bits. */
static __global__ void k_pack(unsigned short *to, const unsigned short *from, size_t count, int in,
                              int taps, int turn)
{
    size_t i = (size_t)blockIdx.x * THREADS + threadIdx.x;
    if (i >= count)
        return;
    int ch = (int)(i % in), tap = (int)(i / in % taps);
    if (turn > 0) /* taps lie [w][h] in the file, [h][w] here */
        tap = tap % turn * turn + tap / turn;
    to[i] = from[(i / in / taps * in + ch) * taps + tap];
}

/* to[i * out + o][tap][ch] = from[ch][o][i + stride * (taps - 1 - tap)] */
static __global__ void k_pack_up(unsigned short *to, const unsigned short *from, size_t count,
                                 int in, int out, int stride, int taps)
{
    size_t i = (size_t)blockIdx.x * THREADS + threadIdx.x;
    if (i >= count)
        return;
    int ch = (int)(i % in), tap = (int)(i / in % taps);
    int o = (int)(i / in / taps % out), s = (int)(i / in / taps / out);
    to[i] = from[((size_t)ch * out + o) * (size_t)(stride * taps) + s + stride * (taps - 1 - tap)];
}

static struct entry *find_packed(struct prepared *p, const void *from, size_t bytes, int taps,
                                 int stride)
{
    for (int i = 0; i < p->n; i++) {
        struct entry *e = &p->entries[i];
        if (e->from == from && e->bytes == bytes && e->taps == taps && e->stride == stride)
            return e;
    }
    return NULL;
}

static const void *pack(struct cuda *c, const struct weight *w, int in, int taps, int turn,
                        int stride)
{
    struct prepared *p = prepared(c);
    size_t count = (size_t)w->rows * w->cols, bytes = count * sizeof(unsigned short);
    struct entry *at = find_packed(p, w->data, bytes, taps, stride > 0 ? stride : -turn);
    unsigned grid = (unsigned)((count + THREADS - 1) / THREADS);
    if (at != NULL)
        return at->device;
    if (!c->recording)
        cuda_wait(c, c->stream); /* the weights may just be on their way */
    at = add(p, w->data, bytes);
    at->bytes = bytes;
    at->taps = taps;
    at->stride = stride > 0 ? stride : -turn;
    unsigned short *to = (unsigned short *)at->device;
    const unsigned short *from = (const unsigned short *)w->data;
    if (stride > 0)
        k_pack_up<<<grid, THREADS, 0, c->side>>>(to, from, count, in, w->cols / stride / taps,
                                                 stride, taps);
    else
        k_pack<<<grid, THREADS, 0, c->side>>>(to, from, count, in, taps, turn);
    CUDA_MUST(cudaGetLastError());
    cuda_wait(c, c->side);
    return to;
}

const void *cuda_pack_taps(struct cuda *c, const struct weight *w, int taps)
{
    return pack(c, w, w->cols / taps, taps, 0, 0);
}

const void *cuda_pack_square(struct cuda *c, const struct weight *w, int side)
{
    return pack(c, w, w->cols / (side * side), side * side, side, 0);
}

const void *cuda_pack_up(struct cuda *c, const struct weight *w, int stride, int taps)
{
    return pack(c, w, w->rows, taps, 0, stride);
}
