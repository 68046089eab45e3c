/*
 * kernels/cuda/gemv.cuh - the inner loop of everything that decodes: rows of 16-bit weights times
 * one or two vectors. Reading the weights is all that costs.
 *
 * A warp takes a task, some rows of weights of `units` 16-byte units. Each lane fetches CHUNK units
 * before it uses the first, so that a multiprocessor has 128 KB on the way from memory; the vector
 * lies in shared memory in fp32, in two planes (elements 0..3 and 4..7 of every unit), which lanes
 * read without bank conflicts. Or a block takes some rows together, a thread some columns of units
 * of all of them: then a vector is read once for all rows, straight to registers.
 */
#ifndef PARLEY_KERNELS_CUDA_GEMV_CUH
#define PARLEY_KERNELS_CUDA_GEMV_CUH

#include "kernels/cuda/math.cuh"

enum {
    GEMV_THREADS = 256,
    GEMV_WARPS = GEMV_THREADS / WARP,
    GEMV_BLOCKS = 2, /* of a kernel on a multiprocessor */
    CHUNK = 16,
    UNIT = 8, /* weights in 16 bytes */
    LINE = 8, /* units in a line of the cache */
};

/* Weights are read once: they should not push out what is read again. */
static __device__ __forceinline__ uint4 fetch_unit(const uint4 *p)
{
    uint4 v;
    asm volatile("ld.global.nc.L1::no_allocate.L2::128B.v4.u32 {%0,%1,%2,%3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(p));
    return v;
}

/* Begins to bring a row of weights into the second-level cache; a whole warp calls it. */
static __device__ __forceinline__ void prefetch_row(const uint4 *row, int units)
{
    for (int u = threadIdx.x % WARP * LINE; u < units; u += WARP * LINE)
        asm volatile("prefetch.global.L2 [%0];" ::"l"(row + u));
}

/* Where element i of a vector lies in shared memory. */
static __device__ __forceinline__ int plane_index(int i, int units)
{
    return (i & 4 ? units * 4 : 0) + i / UNIT * 4 + (i & 3);
}

/* Elements 4i .. 4i + 3 of a vector to their place. */
static __device__ __forceinline__ void place4(float *xs, int i, int units, float4 v)
{
    *(float4 *)&xs[(i & 1 ? units * 4 : 0) + i / 2 * 4] = v;
}

/* A vector cut among the threads of a block: unit threadIdx.x of every GEMV_THREADS. This is half
 * i % 2 of the thread's unit i / 2. */
static __device__ __forceinline__ const float4 *quarter(const float *x, int i)
{
    return (const float4 *)x + (i / 2 * GEMV_THREADS + threadIdx.x) * 2 + i % 2;
}

/* 8 weights times as many numbers. */
template <enum dtype T> static __device__ __forceinline__ float dot8(uint4 w, float4 lo, float4 hi)
{
    float2 a = widen2<T>(w.x), b = widen2<T>(w.y), c = widen2<T>(w.z), d = widen2<T>(w.w);
    float s = a.x * lo.x, t = c.x * hi.x;
    s = fmaf(a.y, lo.y, s);
    t = fmaf(c.y, hi.y, t);
    s = fmaf(b.x, lo.z, s);
    t = fmaf(d.x, hi.z, t);
    s = fmaf(b.y, lo.w, s);
    t = fmaf(d.y, hi.w, t);
    return s + t;
}

/* 8 weights times elements 8u .. 8u + 7. */
template <enum dtype T>
static __device__ __forceinline__ float dot_unit(uint4 w, const float *x, int u, int units)
{
    return dot8<T>(w, *(const float4 *)(x + u * 4), *(const float4 *)(x + (units + u) * 4));
}

static __device__ __forceinline__ float4 times4(float4 a, float4 b)
{
    return make_float4(a.x * b.x, a.y * b.y, a.z * b.z, a.w * b.w);
}

/* The sum of what all threads of a block have left in a row of shared memory; a whole warp. */
static __device__ __forceinline__ float row_sum(const float *row)
{
    const float4 *v = (const float4 *)row + threadIdx.x % WARP;
    float4 a = v[0], b = v[WARP];
    return warp_sum((a.x + a.y) + (a.z + a.w) + ((b.x + b.y) + (b.z + b.w)));
}

#endif
