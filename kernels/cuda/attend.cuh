/*
 * kernels/cuda/attend.cuh - what the files for attention share.
 */
#ifndef PARLEY_KERNELS_CUDA_ATTEND_CUH
#define PARLEY_KERNELS_CUDA_ATTEND_CUH

#include "kernels/cuda/math.cuh"

/* As the op attend, for several rows over 16-bit keys of heads of 64 or 128. False: does not fit,
 * nothing was done. */
bool cuda_flash(struct cuda *c, float *y, const float *q, int n, const struct kv *kv,
                const struct attention *a, const int32_t *pos);

#endif
