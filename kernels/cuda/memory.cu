/*
 * kernels/cuda/memory.cu - device memory, copies, scratch, and the end of the process after a
 * fault.
 *
 * put returns as soon as the source has been copied to pinned memory: slots in turn, each with an
 * event that says when it may be used again. get waits. Memory comes from cudaMalloc, so that every
 * handle of a GPU may use it; a handle may go from thread to thread, so what begins a piece of work
 * (put, get, alloc, sample, a step) makes its GPU the thread's.
 */
#include "kernels/cuda/cuda.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
    SLOTS = 64,
    SLOT_BYTES = 64 << 10,
    LANDING_BYTES = 1 << 20,
};

struct staging {
    unsigned char *slots;   /* [SLOTS, SLOT_BYTES] pinned */
    unsigned char *landing; /* [LANDING_BYTES] pinned, where get's bytes come down */
    cudaEvent_t sent[SLOTS];
    size_t taken, gone; /* slots in all: given out, and of those the bytes have left */
};

void cuda_must(cudaError_t err, const char *expr, const char *file, int line)
{
    if (err == cudaSuccess)
        return;
    char text[512];
    int n = snprintf(text, sizeof(text), "parley: GPU fault: %s, %s:%d: %s (%s)\n", expr, file,
                     line, cudaGetErrorName(err), cudaGetErrorString(err));
    if (write(STDERR_FILENO, text, (size_t)at_most(n, (int)sizeof(text) - 1)) < 0)
        _exit(CUDA_FAULT_STATUS);
    _exit(CUDA_FAULT_STATUS);
}

static double now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

/* Has the stream come to bytes that were put there, since the last look? Then it is alive, however
 * much there still is to do. */
static bool moves(struct staging *s)
{
    size_t before = s->gone;
    while (s->gone < s->taken && cudaEventQuery(s->sent[s->gone % SLOTS]) == cudaSuccess)
        s->gone++;
    return s->gone > before;
}

void cuda_wait(struct cuda *c, cudaStream_t stream)
{
    double deadline = now_ms() + c->hang_ms;
    cudaError_t err;
    while ((err = cudaStreamQuery(stream)) == cudaErrorNotReady) {
        if (moves(c->staging))
            deadline = now_ms() + c->hang_ms;
        else if (now_ms() > deadline)
            cuda_must(cudaErrorTimeout, "cudaStreamQuery(stream)", __FILE__, __LINE__);
    }
    CUDA_MUST(err);
}

void cuda_wait_event(struct cuda *c, cudaEvent_t event)
{
    double deadline = now_ms() + c->hang_ms;
    cudaError_t err;
    while ((err = cudaEventQuery(event)) == cudaErrorNotReady) {
        if (now_ms() > deadline)
            cuda_must(cudaErrorTimeout, "cudaEventQuery(event)", __FILE__, __LINE__);
        usleep(20);
    }
    CUDA_MUST(err);
}

void *cuda_scratch(struct cuda *c, size_t bytes)
{
    if (bytes <= c->scratch_bytes)
        return c->scratch;
    if (c->n_retired == (int)(sizeof(c->retired) / sizeof(*c->retired)))
        cuda_must(cudaErrorMemoryAllocation, "cuda_scratch", __FILE__, __LINE__);
    c->retired[c->n_retired++] = c->scratch; /* kernels under way and recorded steps name it */
    size_t more = bytes > 2 * c->scratch_bytes ? bytes : 2 * c->scratch_bytes;
    CUDA_MUST(cudaMalloc(&c->scratch, more));
    c->scratch_bytes = more;
    return c->scratch;
}

/* Zeroed, and seen so by every stream. */
void *cuda_alloc(struct device *d, size_t bytes)
{
    struct cuda *c = cuda_of(d);
    void *p;
    CUDA_MUST(cudaSetDevice(c->ordinal));
    cudaError_t err = cudaMalloc(&p, bytes ? bytes : 1);
    if (err == cudaErrorMemoryAllocation) {
        (void)cudaGetLastError(); /* a refusal, not a fault */
        return NULL;
    }
    CUDA_MUST(err);
    CUDA_MUST(cudaMemsetAsync(p, 0, bytes, c->stream));
    cuda_wait(c, c->stream);
    cuda_remember(c, p, bytes);
    return p;
}

void cuda_release(struct device *d, void *p)
{
    struct cuda *c = cuda_of(d);
    if (p == NULL)
        return;
    CUDA_MUST(cudaSetDevice(c->ordinal));
    cuda_wait(c, c->stream);
    cuda_forget(c, p);
    CUDA_MUST(cudaFree(p));
}

int cuda_staging_open(struct cuda *c)
{
    struct staging *s = (struct staging *)calloc(1, sizeof(*s));
    if (s == NULL)
        return -1;
    CUDA_MUST(cudaMallocHost((void **)&s->slots, (size_t)SLOTS * SLOT_BYTES));
    CUDA_MUST(cudaMallocHost((void **)&s->landing, LANDING_BYTES));
    for (int i = 0; i < SLOTS; i++)
        CUDA_MUST(cudaEventCreateWithFlags(&s->sent[i], cudaEventDisableTiming));
    c->staging = s;
    return 0;
}

void cuda_staging_close(struct cuda *c)
{
    struct staging *s = c->staging;
    for (int i = 0; i < SLOTS; i++)
        CUDA_MUST(cudaEventDestroy(s->sent[i]));
    CUDA_MUST(cudaFreeHost(s->slots));
    CUDA_MUST(cudaFreeHost(s->landing));
    free(s);
}

/* The next slot, whose last bytes have left. An event that was never recorded counts as come. */
static int take_slot(struct cuda *c)
{
    struct staging *s = c->staging;
    int slot = (int)(s->taken % SLOTS);
    double deadline = 0;
    cudaError_t err;
    while ((err = cudaEventQuery(s->sent[slot])) == cudaErrorNotReady) {
        deadline = deadline > 0 ? deadline : now_ms() + c->hang_ms;
        if (now_ms() > deadline)
            cuda_must(cudaErrorTimeout, "cudaEventQuery(sent)", __FILE__, __LINE__);
    }
    CUDA_MUST(err);
    if (s->taken - s->gone == SLOTS)
        s->gone++;
    s->taken++;
    return slot;
}

void cuda_put(struct device *d, void *dst, const void *host, size_t bytes)
{
    struct cuda *c = cuda_of(d);
    struct staging *s = c->staging;
    CUDA_MUST(cudaSetDevice(c->ordinal));
    for (size_t at = 0, part; at < bytes; at += part) {
        part = bytes - at < SLOT_BYTES ? bytes - at : (size_t)SLOT_BYTES;
        int slot = take_slot(c);
        unsigned char *p = s->slots + (size_t)slot * SLOT_BYTES;
        memcpy(p, (const char *)host + at, part);
        CUDA_MUST(cudaMemcpyAsync((char *)dst + at, p, part, cudaMemcpyHostToDevice, c->stream));
        CUDA_MUST(cudaEventRecord(s->sent[slot], c->stream));
    }
}

static void get_by(struct cuda *c, cudaStream_t stream, void *host, const void *src, size_t bytes)
{
    struct staging *s = c->staging;
    CUDA_MUST(cudaSetDevice(c->ordinal));
    for (size_t at = 0, part; at < bytes; at += part) {
        part = bytes - at < LANDING_BYTES ? bytes - at : (size_t)LANDING_BYTES;
        CUDA_MUST(cudaMemcpyAsync(s->landing, (const char *)src + at, part, cudaMemcpyDeviceToHost,
                                  stream));
        cuda_wait(c, stream);
        memcpy((char *)host + at, s->landing, part);
    }
}

void cuda_get(struct device *d, void *host, const void *src, size_t bytes)
{
    struct cuda *c = cuda_of(d);
    get_by(c, c->stream, host, src, bytes);
}

void cuda_mark(struct device *d)
{
    struct cuda *c = cuda_of(d);
    CUDA_MUST(cudaEventRecord(c->marked, c->stream));
}

void cuda_get_marked(struct device *d, void *host, const void *src, size_t bytes)
{
    struct cuda *c = cuda_of(d);
    CUDA_MUST(cudaStreamWaitEvent(c->side, c->marked, 0));
    get_by(c, c->side, host, src, bytes);
}
