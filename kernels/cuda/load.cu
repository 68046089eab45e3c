/*
 * kernels/cuda/load.cu - how weights come into a GPU's memory (struct loading of ops.h).
 *
 * A lane is a stream with two pinned buffers: while one is on its way, the other is filled. Lanes
 * belong to threads that load and share nothing with the handle but its GPU.
 */
#include "kernels/cuda/cuda.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <stdlib.h>

struct lane {
    struct cuda *c;
    cudaStream_t stream;
    void *buffer[2];
    cudaEvent_t sent[2]; /* recorded behind the copies from each */
    int now;             /* the buffer given last */
};

static bool memory(struct device *d, size_t *total, size_t *unused)
{
    struct cuda *c = cuda_of(d);
    CUDA_MUST(cudaSetDevice(c->ordinal));
    CUDA_MUST(cudaMemGetInfo(unused, total));
    return c->integrated;
}

static void release(struct lane *l)
{
    CUDA_MUST(cudaFreeHost(l->buffer[0]));
    CUDA_MUST(cudaFreeHost(l->buffer[1]));
    free(l);
}

static struct lane *lane_open(struct device *d, size_t bytes)
{
    struct lane *l = (struct lane *)calloc(1, sizeof(*l));
    if (l == NULL)
        return NULL;
    l->c = cuda_of(d);
    CUDA_MUST(cudaSetDevice(l->c->ordinal));
    for (int i = 0; i < 2; i++) {
        cudaError_t err = cudaMallocHost(&l->buffer[i], bytes);
        if (err == cudaErrorMemoryAllocation) {
            (void)cudaGetLastError(); /* a refusal, not a fault */
            release(l);
            return NULL;
        }
        CUDA_MUST(err);
    }
    CUDA_MUST(cudaStreamCreateWithFlags(&l->stream, cudaStreamNonBlocking));
    for (int i = 0; i < 2; i++)
        CUDA_MUST(cudaEventCreateWithFlags(&l->sent[i], cudaEventDisableTiming));
    return l;
}

static void *lane_buffer(struct lane *l)
{
    CUDA_MUST(cudaEventRecord(l->sent[l->now], l->stream));
    l->now ^= 1;
    cuda_wait_event(l->c, l->sent[l->now]);
    return l->buffer[l->now];
}

static void lane_copy(struct lane *l, void *dst, const void *part, size_t bytes)
{
    CUDA_MUST(cudaMemcpyAsync(dst, part, bytes, cudaMemcpyHostToDevice, l->stream));
}

static void lane_close(struct lane *l)
{
    for (int i = 0; i < 2; i++) {
        CUDA_MUST(cudaEventRecord(l->sent[i], l->stream));
        cuda_wait_event(l->c, l->sent[i]);
        CUDA_MUST(cudaEventDestroy(l->sent[i]));
    }
    CUDA_MUST(cudaStreamDestroy(l->stream));
    release(l);
}

/* The generator of model/source.c by index: number i of a tensor lies in block i / RANDOM_BLOCK,
 * which begins at a state of its own; 64 random bits give DRAWS numbers. */
enum { RANDOM_BLOCK = 1 << 16, DRAWS = 5, TABLE = 4096 };

static __device__ unsigned long long random_word(unsigned long long seed, size_t block, int word)
{
    unsigned long long z = seed + block * 0xd1342543de82ef95ull;
    z += (word + 1) * 0x9e3779b97f4a7c15ull;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return z ^ z >> 31;
}

static __device__ void narrow(float *to, float x)
{
    *to = x;
}

static __device__ void narrow(__nv_bfloat16 *to, float x)
{
    *to = __float2bfloat16_rn(x);
}

static __device__ void narrow(__half *to, float x)
{
    *to = __float2half_rn(x);
}

/* One thread block a RANDOM_BLOCK. */
template <typename T>
static __global__ void fill_random(T *dst, const float *table, float mean, float deviation,
                                   unsigned long long seed, size_t count)
{
    __shared__ T value[TABLE];
    size_t first = (size_t)blockIdx.x * RANDOM_BLOCK;
    int n = count - first < RANDOM_BLOCK ? (int)(count - first) : (int)RANDOM_BLOCK;
    for (int i = threadIdx.x; i < TABLE; i += blockDim.x) /* rounded twice, as on the host */
        narrow(&value[i], __fadd_rn(mean, __fmul_rn(deviation, table[i])));
    __syncthreads();
    for (int word = threadIdx.x; word * DRAWS < n; word += blockDim.x) {
        unsigned long long bits = random_word(seed, blockIdx.x, word);
        for (int i = word * DRAWS; i < n && i < (word + 1) * DRAWS; i++, bits >>= 12)
            dst[first + i] = value[bits & (TABLE - 1)];
    }
}

static void make_random(struct device *d, void *dst, enum dtype type, const float *table,
                        float mean, float deviation, uint64_t seed, size_t count)
{
    struct cuda *c = cuda_of(d);
    unsigned blocks = (unsigned)((count + RANDOM_BLOCK - 1) / RANDOM_BLOCK);
    if (type == DT_F32)
        fill_random<<<blocks, 256, 0, c->stream>>>((float *)dst, table, mean, deviation, seed,
                                                   count);
    else if (type == DT_BF16)
        fill_random<<<blocks, 256, 0, c->stream>>>((__nv_bfloat16 *)dst, table, mean, deviation,
                                                   seed, count);
    else
        fill_random<<<blocks, 256, 0, c->stream>>>((__half *)dst, table, mean, deviation, seed,
                                                   count);
    CUDA_MUST(cudaGetLastError());
}

const struct loading cuda_loading = {
    1u << DT_F32 | 1u << DT_BF16 | 1u << DT_F16,
    memory,
    lane_open,
    lane_buffer,
    lane_copy,
    lane_close,
    make_random,
};
