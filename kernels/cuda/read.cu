/*
 * kernels/cuda/read.cu - how fast this GPU reads its memory: the floor of decoding.
 */
#include "kernels/cuda/cuda.h"

enum { THREADS = 512, BLOCKS_PER_SM = 4, AT_ONCE = 8, PASSES = 5 };

/* Every thread has AT_ONCE loads of 16 bytes under way; the sum keeps the compiler from leaving
 * them out. */
static __global__ void __launch_bounds__(THREADS)
    read_all(const uint4 *data, size_t count, unsigned *sum)
{
    size_t stride = (size_t)gridDim.x * THREADS, i = (size_t)blockIdx.x * THREADS + threadIdx.x;
    unsigned bits = 0;
    for (; i + (AT_ONCE - 1) * stride < count; i += AT_ONCE * stride) {
        uint4 v[AT_ONCE];
#pragma unroll
        for (int k = 0; k < AT_ONCE; k++)
            v[k] = __ldcs(data + i + k * stride);
#pragma unroll
        for (int k = 0; k < AT_ONCE; k++)
            bits ^= v[k].x ^ v[k].y ^ v[k].z ^ v[k].w;
    }
    if (bits == 0x9e3779b9u)
        *sum = bits;
}

double cuda_read_rate(struct device *d, const void *data, size_t bytes)
{
    struct cuda *c = cuda_of(d);
    cudaEvent_t from, to;
    float ms, best = 0;
    unsigned *sum = (unsigned *)cuda_scratch(c, sizeof(*sum));
    CUDA_MUST(cudaEventCreate(&from));
    CUDA_MUST(cudaEventCreate(&to));
    for (int i = 0; i < PASSES; i++) {
        CUDA_MUST(cudaEventRecord(from, c->stream));
        read_all<<<c->sms * BLOCKS_PER_SM, THREADS, 0, c->stream>>>((const uint4 *)data, bytes / 16,
                                                                    sum);
        CUDA_MUST(cudaGetLastError());
        CUDA_MUST(cudaEventRecord(to, c->stream));
        cuda_wait(c, c->stream);
        CUDA_MUST(cudaEventElapsedTime(&ms, from, to));
        best = i == 0 || ms < best ? ms : best;
    }
    CUDA_MUST(cudaEventDestroy(from));
    CUDA_MUST(cudaEventDestroy(to));
    return best > 0 ? (double)bytes / best * 1e3 : 0;
}
