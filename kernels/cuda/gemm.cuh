/*
 * kernels/cuda/gemm.cuh - products of many rows, convolutions among them: y[t, rows] = W x_t, where
 * x_t is put together from pieces of `in` neighbouring floats, one for each tap.
 */
#ifndef PARLEY_KERNELS_CUDA_GEMM_CUH
#define PARLEY_KERNELS_CUDA_GEMM_CUH

#include "kernels/cuda/cuda.h"

/* Row t of the product begins at x + t / per * pitch_outer + t % per * pitch, its tap i from there
 * at i / taps_per * tap_outer + i % taps_per * tap. All in floats. */
struct gemm {
    const void *w; /* [rows, taps * in], 16 bits, aligned to 16 bytes */
    enum dtype type;
    int rows, cols, in; /* in is a multiple of 32 */
    const float *x;
    int n, per, taps_per;
    long pitch_outer, pitch, tap_outer, tap;
    float *y;
    const float *bias; /* [bias_rows], again and again */
    const float *scale;
    int bias_rows;
    unsigned flags;
};

/* Split: x in two halves (see mma.cuh), else rounded once. */
void cuda_gemm(struct cuda *c, const struct gemm *g, bool split);

/* For more than 16 rows of x, in two halves, and many of weights (gemm_wide.cu). False: another
 * kernel is better, nothing was done. */
bool cuda_gemm_wide(struct cuda *c, const struct gemm *g);

/* As linear, for any n; y = ... scale * W x with LINEAR_ADD when scale is given. */
void cuda_linear_many(struct device *d, float *y, const float *x, int n, const struct weight *w,
                      const float *bias, const float *scale, unsigned flags);
void cuda_linear_any(struct device *d, float *y, const float *x, int n, const struct weight *w,
                     const float *bias, const float *scale, unsigned flags);

#endif
