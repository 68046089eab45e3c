/*
 * kernels/cuda/mma.cuh - tiles of 16 weight rows times 8 rows of x on the tensor cores.
 *
 * A weight is read from device memory by exactly one warp, so weights go straight to registers, 16
 * bytes a lane. That gives a lane 8 neighbouring columns where the instruction wants 2 + 2 of two
 * steps of 16; since a sum may be taken in any order, the columns are simply renamed, for x alike:
 *
 *     lane (g, t), g = lane / 4, t = lane % 4, step of 32 columns from k:
 *         A  rows g, g + 8, columns k + 8t .. k + 8t + 7
 *         B  row g of x,    columns k + 8t .. k + 8t + 7
 *         C  rows g, g + 8 of the weights, rows 2t, 2t + 1 of x
 *
 * x is fp32 in memory and enters in PARTS parts of 16 bits, each what those before it lost to
 * rounding. One is x rounded; two of bf16 hold 16 bits of x; three hold all.
 */
#ifndef PARLEY_KERNELS_CUDA_MMA_CUH
#define PARLEY_KERNELS_CUDA_MMA_CUH

#include "kernels/cuda/gemv.cuh"

enum { STEP = 32, TILE_M = 16, TILE_N = 8 };

template <enum dtype T>
static __device__ __forceinline__ void mma(float *c, unsigned a0, unsigned a1, unsigned a2,
                                           unsigned a3, unsigned b0, unsigned b1)
{
    if (T == DT_BF16)
        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                     "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                     : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                     : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
    else
        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
                     "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                     : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                     : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

/* Two floats as two numbers of type T in one word, the first one low. */
template <enum dtype T> static __device__ __forceinline__ unsigned narrow2(float lo, float hi)
{
    unsigned u;
    if (T == DT_BF16)
        asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(u) : "f"(hi), "f"(lo));
    else /* beyond what f16 holds, the second half takes the rest */
        asm("cvt.rn.f16x2.f32 %0, %1, %2;"
            : "=r"(u)
            : "f"(fminf(fmaxf(hi, -65504.0f), 65504.0f)),
              "f"(fminf(fmaxf(lo, -65504.0f), 65504.0f)));
    return u;
}

/* 8 columns of a row of x as the instruction wants them. */
template <int PARTS> struct operand {
    unsigned part[PARTS][4];
};

template <enum dtype T, int PARTS>
static __device__ __forceinline__ operand<PARTS> make_operand(float4 p, float4 q)
{
    operand<PARTS> b;
    float2 rest[4] = {make_float2(p.x, p.y), make_float2(p.z, p.w), make_float2(q.x, q.y),
                      make_float2(q.z, q.w)};
#pragma unroll
    for (int k = 0; k < PARTS; k++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            b.part[k][i] = narrow2<T>(rest[i].x, rest[i].y);
            float2 taken = widen2<T>(b.part[k][i]);
            rest[i] = make_float2(rest[i].x - taken.x, rest[i].y - taken.y);
        }
    return b;
}

/* c += tile of weights (rows g: upper, g + 8: lower) times the operand, 32 columns. */
template <enum dtype T, int PARTS>
static __device__ __forceinline__ void multiply(float *c, uint4 upper, uint4 lower,
                                                const operand<PARTS> *b)
{
#pragma unroll
    for (int k = 0; k < PARTS; k++) {
        mma<T>(c, upper.x, lower.x, upper.y, lower.y, b->part[k][0], b->part[k][1]);
        mma<T>(c, upper.z, lower.z, upper.w, lower.w, b->part[k][2], b->part[k][3]);
    }
}

#endif
