/*
 * kernels/cuda/math.cuh - what kernels share: element access by type, reductions, activations.
 */
#ifndef PARLEY_KERNELS_CUDA_MATH_CUH
#define PARLEY_KERNELS_CUDA_MATH_CUH

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "kernels/cuda/cuda.h"

enum { WARP = 32 };

static __device__ __forceinline__ float bits_float(unsigned u)
{
    return __uint_as_float(u);
}

/* Element i of an array of one of the DT_FLOATS. */
static __device__ __forceinline__ float read_element(enum dtype t, const void *data, size_t i)
{
    if (t == DT_F32)
        return ((const float *)data)[i];
    unsigned short h = ((const unsigned short *)data)[i];
    return t == DT_BF16 ? bits_float((unsigned)h << 16) : __half2float(__ushort_as_half(h));
}

static __device__ __forceinline__ void write_element(enum dtype t, void *data, size_t i, float v)
{
    if (t == DT_F32)
        ((float *)data)[i] = v;
    else if (t == DT_BF16)
        ((__nv_bfloat16 *)data)[i] = __float2bfloat16_rn(v);
    else
        ((__half *)data)[i] = __float2half_rn(v);
}

/* Element (row, col) of a matrix of any type. */
static __device__ __forceinline__ float read_weight(const struct weight *w, size_t row, size_t col)
{
    if (w->type != DT_I8)
        return read_element(w->type, w->data, row * (size_t)w->cols + col);
    size_t stride = ((size_t)w->cols + 3) / 4 * 4;
    size_t groups = ((size_t)w->cols + (size_t)w->group - 1) / (size_t)w->group;
    float scale = read_element(w->scale_type, w->scale, row * groups + col / (size_t)w->group);
    return scale * (float)((int)((const unsigned char *)w->data)[row * stride + col] - 128);
}

/* Two weights of 16 bits that lie in one word, the first one low. */
template <enum dtype T> static __device__ __forceinline__ float2 widen2(unsigned u)
{
    if (T == DT_BF16)
        return make_float2(bits_float(u << 16), bits_float(u & 0xffff0000u));
    return __half22float2(*(const __half2 *)&u);
}

static __device__ __forceinline__ float warp_sum(float v)
{
    for (int m = WARP / 2; m > 0; m /= 2)
        v += __shfl_xor_sync(0xffffffffu, v, m);
    return v;
}

static __device__ __forceinline__ float warp_max(float v)
{
    for (int m = WARP / 2; m > 0; m /= 2)
        v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, m));
    return v;
}

/* The same sum in every thread of the block; room[32] in shared memory, free afterwards. */
static __device__ __forceinline__ float block_sum(float v, float *room)
{
    int warps = blockDim.x / WARP, warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    v = warp_sum(v);
    if (lane == 0)
        room[warp] = v;
    __syncthreads();
    v = warp_sum(lane < warps ? room[lane] : 0);
    __syncthreads();
    return v;
}

static __device__ __forceinline__ float silu(float x)
{
    return x / (1 + expf(-x));
}

static __device__ __forceinline__ float gelu(float x)
{
    return 0.5f * x * erfcf(-x * 0.70710678118654752f);
}

static __device__ __forceinline__ float activate(float x, unsigned flags)
{
    return flags & LINEAR_GELU ? gelu(x) : flags & LINEAR_SILU ? silu(x) : x;
}

/* The same for row r of a product whose scales of rows may be NULL. */
static __device__ __forceinline__ float activate_row(float v, const float *scale, int r,
                                                     unsigned flags)
{
    v = activate(v, flags);
    if (scale != NULL)
        v *= scale[r];
    return v;
}

/* Begins to copy 16 bytes to shared memory, past the first-level cache; when nothing is there,
 * zeros instead. */
static __device__ __forceinline__ void copy16(void *to, const void *from)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(
                     (unsigned)__cvta_generic_to_shared(to)),
                 "l"(from)
                 : "memory");
}

static __device__ __forceinline__ void copy16_if(void *to, const void *from, bool there)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(
                     (unsigned)__cvta_generic_to_shared(to)),
                 "l"(from), "r"(there ? 16 : 0)
                 : "memory");
}

/* What this thread has begun to copy since the last call is a group. */
static __device__ __forceinline__ void copies_end(void)
{
    asm volatile("cp.async.commit_group;" ::: "memory");
}

/* Until all that this thread has begun to copy is there, in groups or not. */
static __device__ __forceinline__ void copies_wait_all(void)
{
    asm volatile("cp.async.wait_all;" ::: "memory");
}

/* Until no more than LEFT of this thread's groups are under way. */
template <int LEFT> static __device__ __forceinline__ void copies_wait(void)
{
    asm volatile("cp.async.wait_group %0;" ::"n"(LEFT) : "memory");
}

/* True in the last block of `blocks` that calls it with this counter; what the others wrote before
 * may be read then. The counter is zero again afterwards. */
static __device__ __forceinline__ bool last_block(unsigned *counter, unsigned blocks)
{
    __shared__ unsigned place;
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) {
        place = atomicAdd(counter, 1u);
        if (place == blocks - 1)
            *counter = 0;
    }
    __syncthreads();
    bool last = place == blocks - 1;
    if (last)
        __threadfence();
    return last;
}

#endif
