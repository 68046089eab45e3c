/*
 * kernels/compose.h - the fused ops as what they mean: the ops that each stands for, in order.
 *
 * For backends on the host, which gain nothing from fusing, and for shapes that a backend has no
 * kernel for. Shapes and meaning: kernels/ops.h.
 */
#ifndef PARLEY_KERNELS_COMPOSE_H
#define PARLEY_KERNELS_COMPOSE_H

#include "kernels/ops.h"

void compose_linears(struct device *d, float *const *y, const float *x, int n,
                     const struct weight *const *w, const float *const *bias, int count,
                     unsigned flags);
void compose_norm_linear(struct device *d, float *const *y, float *a, const float *x, int n,
                         const struct norm *norm, const struct weight *const *w, int count);
void compose_rope_attend(struct device *d, float *y, float *q, float *k, const float *v, int n,
                         const struct kv *kv, const struct attention *a, const struct rope *r,
                         const int32_t *pos);
void compose_linear_add(struct device *d, float *y, float *room, const float *x, int n,
                        const struct weight *w, const float *scale);
void compose_norm_swiglu(struct device *d, float *y, float *room, float *a, const float *x, int n,
                         const struct norm *norm, const struct weight *gate,
                         const struct weight *up);
void compose_mixture(struct device *d, float *x, int n, const struct norm *norm,
                     const struct moe *m);
void compose_embed_sum(struct device *d, float *y, const struct weight *const *tables,
                       const int32_t *ids, int count);

#endif
