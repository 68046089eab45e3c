/*
 * kernels/cuda/gemv.cuh - the inner loop of everything that decodes: rows of 16-bit weights times
 * one or two vectors. Reading the weights is all that costs.
 *
 * A warp takes a task, some rows of weights of `units` 16-byte units. Each lane fetches CHUNK units
 * before it uses the first, so that a multiprocessor has 128 KB on the way from memory; the vector
 * lies in shared memory in fp32, in two planes (elements 0..3 and 4..7 of every unit), which lanes
 * read without bank conflicts.
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

/* Where element i of a vector lies in shared memory. */
static __device__ __forceinline__ int plane_index(int i, int units)
{
    return (i & 4 ? units * 4 : 0) + i / UNIT * 4 + (i & 3);
}

/* 8 weights times elements 8u .. 8u + 7. */
template <enum dtype T>
static __device__ __forceinline__ float dot_unit(uint4 w, const float *x, int u, int units)
{
    float4 lo = *(const float4 *)(x + u * 4), hi = *(const float4 *)(x + (units + u) * 4);
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

#endif
