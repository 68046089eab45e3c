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

/* What a warp needs to norm and turn a vector of a position: a lane has the pairs (i, i + DIM / 2)
 * with i = lane + 32 j. */
template <int DIM> struct turn {
    float sine[DIM / 2 / WARP], cosine[DIM / 2 / WARP];
    float low[DIM / 2 / WARP], high[DIM / 2 / WARP]; /* of the norm */
};

template <int DIM>
static __device__ __forceinline__ void attend_find_turn(struct turn<DIM> *t, const float *norm,
                                                        const struct rope *r, int pos)
{
#pragma unroll
    for (int j = 0; j < DIM / 2 / WARP; j++) {
        int i = threadIdx.x % WARP + j * WARP;
        t->low[j] = norm != NULL ? norm[i] : 1;
        t->high[j] = norm != NULL ? norm[DIM / 2 + i] : 1;
        sincosf((float)pos * r->inv_freq[i], &t->sine[j], &t->cosine[j]);
    }
}

/* to[DIM] = from, normed (if so) and turned; one warp. */
template <int DIM>
static __device__ __forceinline__ void attend_turn(float *to, const float *from,
                                                   const struct turn<DIM> *t, bool normed,
                                                   float eps, float scale)
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
    float by = normed ? 1 / sqrtf(warp_sum(sum) / DIM + eps) : 1;
#pragma unroll
    for (int j = 0; j < each; j++) {
        int i = lane + j * WARP;
        float x = a[j] * by * t->low[j], z = b[j] * by * t->high[j];
        to[i] = (x * t->cosine[j] - z * t->sine[j]) * scale;
        to[half + i] = (z * t->cosine[j] + x * t->sine[j]) * scale;
    }
}

#endif
