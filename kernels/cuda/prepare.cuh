/*
 * kernels/cuda/prepare.cuh - convolutions of 16 bits as matrices for gemm.cu, made at the first use
 * and kept by the handle.
 */
#ifndef PARLEY_KERNELS_CUDA_PREPARE_CUH
#define PARLEY_KERNELS_CUDA_PREPARE_CUH

#include "kernels/cuda/cuda.h"

/* [out, taps, in] of [out, in, taps]. */
const void *cuda_pack_taps(struct cuda *c, const struct weight *w, int taps);
/* [out, side (h), side (w), in] of [out, in, side (w), side (h)]. */
const void *cuda_pack_square(struct cuda *c, const struct weight *w, int side);
/* [stride * out, taps, in] of a transposed convolution [in, out * stride * taps]: the row before,
 * if taps is 2, then the row itself. */
const void *cuda_pack_up(struct cuda *c, const struct weight *w, int stride, int taps);

#endif
