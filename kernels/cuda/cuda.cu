/*
 * kernels/cuda/cuda.cu - a handle on a GPU: what there is, opening, closing.
 */
#include "kernels/cuda/gemm.cuh"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

static void make_streams(struct cuda *c, const struct device_opts *o)
{
    int least, greatest;
    CUDA_MUST(cudaDeviceGetStreamPriorityRange(&least, &greatest));
    CUDA_MUST(cudaStreamCreateWithPriority(&c->stream, cudaStreamNonBlocking,
                                           o->urgent ? greatest : least));
    CUDA_MUST(cudaStreamCreateWithFlags(&c->side, cudaStreamNonBlocking));
    CUDA_MUST(cudaEventCreateWithFlags(&c->marked, cudaEventDisableTiming));
    CUDA_MUST(cudaMalloc((void **)&c->counters, CUDA_COUNTERS * sizeof(*c->counters)));
    CUDA_MUST(cudaMemsetAsync(c->counters, 0, CUDA_COUNTERS * sizeof(*c->counters), c->stream));
}

/* Stands for all kernels: what it was compiled for, they were. */
static __global__ void k_probe(void)
{
}

/* What of this program runs on the GPU; a sentence if nothing does. */
static int find_kernels(struct cuda *c, const cudaDeviceProp *is, struct problems *why)
{
    cudaFuncAttributes a;
    cudaError_t err = cudaFuncGetAttributes(&a, (const void *)k_probe);
    (void)cudaGetLastError();
    if (err != cudaSuccess)
        return problem_add(
            why, -EINVAL,
            "device %s: found compute capability %d.%d, for which this program has no "
            "kernels: build it with -DPARLEY_CUDA_ARCH=%d%d (%s)",
            c->name, is->major, is->minor, is->major, is->minor, cudaGetErrorName(err));
    c->major = at_most(is->major, a.ptxVersion / 10);
    return 0;
}

/* Whether the GPU is there and lets this process in; a sentence if not. */
static int enter(int ordinal, struct problems *why)
{
    int n = 0, driver = 0;
    cudaError_t err = cudaDriverGetVersion(&driver);
    if (err != cudaSuccess || driver == 0)
        return problem_add(why, -EINVAL, "device cuda:%d: found no NVIDIA driver", ordinal);
    err = cudaGetDeviceCount(&n);
    if (err == cudaErrorNoDevice || (err == cudaSuccess && ordinal >= n))
        return problem_add(why, -EINVAL, "device cuda:%d: found %d GPU%s", ordinal, n,
                           n == 1 ? "" : "s");
    if (err == cudaSuccess)
        err = cudaSetDevice(ordinal);
    if (err == cudaSuccess)
        err = cudaFree(NULL); /* makes the context */
    (void)cudaGetLastError();
    return err == cudaSuccess
               ? 0
               : problem_add(why, -EINVAL, "device cuda:%d: cannot be used: %s (%s)", ordinal,
                             cudaGetErrorName(err), cudaGetErrorString(err));
}

int cuda_open(struct device **ret, int ordinal, const struct device_opts *o, struct problems *why)
{
    cudaDeviceProp is;
    int err = enter(ordinal, why);
    if (err < 0)
        return err;
    struct cuda *c = (struct cuda *)calloc(1, sizeof(*c));
    if (c == NULL || cuda_staging_open(c) < 0) {
        free(c);
        return problem_add(why, -ENOMEM, "device cuda:%d: no memory left", ordinal);
    }
    CUDA_MUST(cudaGetDeviceProperties(&is, ordinal));
    snprintf(c->name, sizeof(c->name), "cuda:%d %.100s", ordinal, is.name);
    err = find_kernels(c, &is, why);
    if (err < 0) {
        cuda_staging_close(c);
        free(c);
        return err;
    }
    c->ordinal = ordinal;
    c->sms = is.multiProcessorCount;
    c->smem = is.sharedMemPerBlockOptin;
    c->integrated = is.integrated;
    c->hang_ms = o->hang_ms > 0 ? o->hang_ms : 5000;
    c->d.op = &cuda_ops;
    c->d.load = &cuda_loading;
    c->d.name = c->name;
    make_streams(c, o);
    c->parts = cuda_wide_parts(c);
    *ret = &c->d;
    return 0;
}

void cuda_close(struct device *d)
{
    struct cuda *c = cuda_of(d);
    CUDA_MUST(cudaSetDevice(c->ordinal));
    cuda_wait(c, c->stream);
    CUDA_MUST(cudaStreamDestroy(c->stream));
    CUDA_MUST(cudaStreamDestroy(c->side));
    CUDA_MUST(cudaEventDestroy(c->marked));
    cuda_prepared_close(c);
    CUDA_MUST(cudaFree(c->counters));
    CUDA_MUST(cudaFree(c->scratch));
    for (int i = 0; i < c->n_retired; i++)
        CUDA_MUST(cudaFree(c->retired[i]));
    cuda_staging_close(c);
    free(c);
}
