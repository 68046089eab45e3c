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

/* The same over fp32 keys (attend_rows.cu). */
bool cuda_attend_rows(struct cuda *c, float *y, const float *q, int n, const struct kv *kv,
                      const struct attention *a, const int32_t *pos);

/* As rope_attend, for one row over 16-bit keys of heads of 64 or 128 (attend_one.cu). False: does
 * not fit, nothing was done. */
bool cuda_attend_one(struct cuda *c, float *y, const float *q, const float *k, const float *v,
                     const struct kv *kv, const struct attention *a, const struct rope *r,
                     const int32_t *pos);

/* to[DIM] = from, normed and turned by `pos`; one warp. */
template <int DIM>
static __device__ __forceinline__ void attend_turn(float *to, const float *from, const float *norm,
                                                   const struct rope *r, int pos, float scale)
{
    const int half = DIM / 2, each = DIM / 2 / WARP;
    int lane = threadIdx.x % WARP;
    float a[each], b[each], sum = 0;
#pragma unroll
    for (int j = 0; j < each; j++) {
        a[j] = from[lane + j * WARP];
        b[j] = from[half + lane + j * WARP];
        sum += a[j] * a[j] + b[j] * b[j];
    }
    float by = norm != NULL ? 1 / sqrtf(warp_sum(sum) / DIM + r->eps) : 1;
#pragma unroll
    for (int j = 0; j < each; j++) {
        int i = lane + j * WARP;
        float s, c, x = a[j] * by, z = b[j] * by;
        if (norm != NULL) {
            x *= norm[i];
            z *= norm[half + i];
        }
        sincosf((float)pos * r->inv_freq[i], &s, &c);
        to[i] = (x * c - z * s) * scale;
        to[half + i] = (z * c + x * s) * scale;
    }
}

#endif
