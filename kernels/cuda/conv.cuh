/*
 * kernels/cuda/conv.cuh - convolutions of any type and size (any.cu).
 */
#ifndef PARLEY_KERNELS_CUDA_CONV_CUH
#define PARLEY_KERNELS_CUDA_CONV_CUH

#include "kernels/cuda/cuda.h"

void cuda_conv1d_any(struct device *d, float *y, const float *x, int t, const struct weight *w,
                     const float *bias, int kernel, int dilation, unsigned flags);
void cuda_conv1d_up_any(struct device *d, float *y, const float *x, int t, const struct weight *w,
                        const float *bias, int stride, int kernel);
void cuda_conv2d_any(struct device *d, float *y, const float *x, int n, int h, int w,
                     const struct weight *weight, const float *bias);

#endif
