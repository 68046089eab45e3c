/*
 * kernels/cuda/memory.cu - device memory, copies, scratch, and the end of the process after a
 * fault.
 *
 * put and get go through pinned staging memory. put returns when the source has been staged, get
 * when the bytes are there. Memory comes from cudaMalloc, so that every handle of a GPU may use it.
 */
#include "kernels/cuda/cuda.h"

#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

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

void cuda_wait(struct cuda *c, cudaStream_t stream)
{
    double deadline = now_ms() + c->hang_ms;
    cudaError_t err;
    while ((err = cudaStreamQuery(stream)) == cudaErrorNotReady)
        if (now_ms() > deadline)
            cuda_must(cudaErrorTimeout, "cudaStreamQuery(stream)", __FILE__, __LINE__);
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
    return p;
}

void cuda_release(struct device *d, void *p)
{
    struct cuda *c = cuda_of(d);
    if (p == NULL)
        return;
    cuda_wait(c, c->stream);
    CUDA_MUST(cudaFree(p));
}

/* Pinned memory of at least `bytes` that no copy is using. */
static void *staging(struct cuda *c, size_t bytes)
{
    cuda_wait(c, c->stream);
    if (bytes > c->staging_bytes) {
        CUDA_MUST(cudaFreeHost(c->staging));
        CUDA_MUST(cudaMallocHost(&c->staging, bytes));
        c->staging_bytes = bytes;
    }
    return c->staging;
}

void cuda_put(struct device *d, void *dst, const void *host, size_t bytes)
{
    struct cuda *c = cuda_of(d);
    void *p = staging(c, bytes);
    memcpy(p, host, bytes);
    CUDA_MUST(cudaMemcpyAsync(dst, p, bytes, cudaMemcpyHostToDevice, c->stream));
}

void cuda_get(struct device *d, void *host, const void *src, size_t bytes)
{
    struct cuda *c = cuda_of(d);
    void *p = staging(c, bytes);
    CUDA_MUST(cudaMemcpyAsync(p, src, bytes, cudaMemcpyDeviceToHost, c->stream));
    cuda_wait(c, c->stream);
    memcpy(host, p, bytes);
}
