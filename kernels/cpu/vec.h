/*
 * kernels/cpu/vec.h - the vector kernels of one instruction set.
 *
 * Each vec_*.c is compiled once per instruction set with VEC_SUFFIX defined; VEC(dots) is then
 * dots_avx2, dots_neon and so on, and `struct vec` is how the rest of the backend reaches them.
 * Kernels are serial and touch no state; threads and blocking are their callers' business.
 */
#ifndef PARLEY_KERNELS_CPU_VEC_H
#define PARLEY_KERNELS_CPU_VEC_H

#include <stddef.h>
#include <stdint.h>

#include "kernels/dtype.h"

#define VEC_PASTE2(a, b) a##_##b
#define VEC_PASTE(a, b)  VEC_PASTE2(a, b)
#define VEC(name)        VEC_PASTE(name, VEC_SUFFIX)

enum { VEC_ROWS = 6 }; /* most rows of x in one call of `dots` */

struct weight; /* kernels/ops.h */

/* What is multiplied with what: weights of a dtype with fp32 x; bf16 pairs with x rounded to bf16,
 * or with x split in two bf16 halves. */
enum number {
    NUM_F32 = DT_F32,
    NUM_BF16 = DT_BF16,
    NUM_F16 = DT_F16,
    NUM_I8 = DT_I8,
    NUM_PAIR,
    NUM_SPLIT,
};

struct vec {
    const char *name;
    int pairs; /* NUM_PAIR and NUM_SPLIT are there */

    /* out[i * ldo + r] = w_r . x_i for r < rows, i < n <= VEC_ROWS; w_r at w + r * ldw bytes. */
    void (*dots)(float *out, size_t ldo, enum number num, const void *w, size_t ldw, int rows,
                 const void *const *x, int n, int cols);
    /* The same for rows row .. row + rows - 1 of an I8 matrix, with fp32 x. */
    void (*dots8)(float *out, size_t ldo, const struct weight *w, int row, int rows,
                  const void *const *x, int n);
    /* y[i * ldy + c] += sum over j < keys of p[i * ldp + j] v[j][c], c < width, v_j at v + j * ldv
     * bytes */
    void (*mix)(float *y, size_t ldy, const float *p, size_t ldp, int n, const void *v, size_t ldv,
                enum dtype type, int keys, int width);
    /* y[i] = act(sums[i] + bias[i]), += with LINEAR_ADD; bias may be NULL */
    void (*finish)(float *y, const float *sums, const float *bias, size_t n, unsigned flags);
    /* p = softmax(scale * p) */
    void (*softmax)(float *p, size_t n, float scale);
    void (*to_bf16)(uint16_t *y, const float *x, size_t n);
    /* x = high + low to 16 bits of mantissa */
    void (*to_split)(uint16_t *high, uint16_t *low, const float *x, size_t n);
    void (*widen)(float *y, const void *x, enum dtype type, size_t n, int add);

    void (*silu_mul)(float *gate, const float *up, size_t n);
    void (*add)(float *y, const float *x, size_t n);
    void (*scale_add)(float *y, const float *x, const float *scale, size_t n);
    void (*axpy)(float *y, const float *x, float a, size_t n); /* y += a x */
    void (*snake)(float *y, const float *x, const float *alpha, const float *inv_beta, size_t n);
    void (*rms)(float *y, const float *x, const float *w, float eps, size_t n);
    void (*layer)(float *y, const float *x, const float *w, const float *b, float eps, size_t n);
    /* (x_i, x_{i+n}) turned by the angle of (c_i, s_i) */
    void (*turn)(float *x, const float *c, const float *s, size_t n);
    /* y[c] = bias[c] + sum over i of w[i][c] x[i][c], rows of n */
    void (*depthwise)(float *y, const float *x, const float *w, const float *bias, int kernel,
                      size_t n);
    /* The sum of the 32-bit words, but for some at the end: reads memory and does little else. */
    uint32_t (*read)(const void *data, size_t bytes);
};

/* The best instruction set of this machine, or the one called `name`; NULL when it is not there. */
const struct vec *vec_find(const char *name);

/* The i-th that this machine has, best first; NULL behind the last. */
const struct vec *vec_available(int i);

#endif
