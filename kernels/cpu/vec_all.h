/*
 * kernels/cpu/vec_all.h - the kernels of struct vec as functions of one instruction set.
 */
#ifndef PARLEY_KERNELS_CPU_VEC_ALL_H
#define PARLEY_KERNELS_CPU_VEC_ALL_H

#include "kernels/cpu/vec.h"

void VEC(dots)(float *out, size_t ldo, enum number num, const void *w, size_t ldw, int rows,
               const void *const *x, int n, int cols);
void VEC(dots8)(float *out, size_t ldo, const struct weight *w, int row, int rows,
                const void *const *x, int n);
void VEC(mix)(float *y, size_t ldy, const float *p, size_t ldp, int n, const void *v, size_t ldv,
              enum dtype type, int keys, int width);
void VEC(finish)(float *y, const float *sums, const float *bias, size_t n, unsigned flags);
void VEC(softmax)(float *p, size_t n, float scale);
void VEC(to_bf16)(uint16_t *y, const float *x, size_t n);
void VEC(to_split)(uint16_t *high, uint16_t *low, const float *x, size_t n);
void VEC(widen)(float *y, const void *x, enum dtype type, size_t n, int add);
void VEC(silu_mul)(float *gate, const float *up, size_t n);
void VEC(add)(float *y, const float *x, size_t n);
void VEC(scale_add)(float *y, const float *x, const float *scale, size_t n);
void VEC(axpy)(float *y, const float *x, float a, size_t n);
void VEC(snake)(float *y, const float *x, const float *alpha, const float *inv_beta, size_t n);
void VEC(rms)(float *y, const float *x, const float *w, float eps, size_t n);
void VEC(layer)(float *y, const float *x, const float *w, const float *b, float eps, size_t n);
void VEC(turn)(float *x, const float *c, const float *s, size_t n);
void VEC(depthwise)(float *y, const float *x, const float *w, const float *bias, int kernel,
                    size_t n);
uint32_t VEC(read)(const void *data, size_t bytes);

#endif
