/*
 * kernels/cuda/gemm.cuh - products of many rows, convolutions among them: y[t, rows] = W x_t, where
 * x_t is put together from pieces of `in` neighbouring floats, one for each tap.
 */
#ifndef PARLEY_KERNELS_CUDA_GEMM_CUH
#define PARLEY_KERNELS_CUDA_GEMM_CUH

#include "kernels/cuda/cuda.h"

/* Row t of the product begins at x + t / per * pitch_outer + t % per * pitch, its tap i from there
 * at i / taps_per * tap_outer + i % taps_per * tap. All in elements of x. */
struct gemm {
    const void *w; /* [rows, taps * in], 16 bits, aligned to 16 bytes */
    enum dtype type;
    int rows, cols, in; /* in is a multiple of 32 */
    const void *x;      /* fp32; X_NARROW: of the weights' type */
    int n, per, taps_per;
    long pitch_outer, pitch, tap_outer, tap;
    float *y;
    const float *bias; /* [bias_rows], again and again */
    const float *scale;
    int bias_rows;
    unsigned flags;
};

/* How x meets the weights: rounded once, in so many parts (see mma.cuh), or as it is. */
enum gemm_x { X_NARROW, X_ROUND, X_SPLIT, X_EXACT };

void cuda_gemm(struct cuda *c, const struct gemm *g, enum gemm_x how);

enum { LINEARS_MOST = 3 };

/* How many blocks of wide products may share out their columns on this GPU; 0 = it has no such
 * clusters. Asked for once, when the handle is opened. */
int cuda_wide_parts(struct cuda *c);

/* As linears, with scale as below, for more than 8 rows of x and many of weights (gemm_wide.cu).
 * False: another kernel is better, nothing was done. */
bool cuda_linears_wide(struct cuda *c, float *const *y, const float *x, int n,
                       const struct weight *const *w, const float *const *bias, const float *scale,
                       int count, unsigned flags);

/* As linear, for any n; y = ... scale * W x with LINEAR_ADD when scale is given. */
void cuda_linear_many(struct device *d, float *y, const float *x, int n, const struct weight *w,
                      const float *bias, const float *scale, unsigned flags);
void cuda_linear_any(struct device *d, float *y, const float *x, int n, const struct weight *w,
                     const float *bias, const float *scale, unsigned flags);

#endif
