/*
 * kernels/cpu/vec.c - the table of one instruction set (compiled per instruction set).
 */
#include "kernels/cpu/vec_all.h"

#define VEC_STRING2(a) #a
#define VEC_STRING(a)  VEC_STRING2(a)

extern const struct vec VEC(vec);

const struct vec VEC(vec) = {
    .name = VEC_STRING(VEC_SUFFIX),
#if defined(__AVX512BF16__)
    .pairs = 1,
#endif
    .dots = VEC(dots),
    .dots8 = VEC(dots8),
    .mix = VEC(mix),
    .finish = VEC(finish),
    .softmax = VEC(softmax),
    .to_bf16 = VEC(to_bf16),
    .to_split = VEC(to_split),
    .widen = VEC(widen),
    .silu_mul = VEC(silu_mul),
    .add = VEC(add),
    .scale_add = VEC(scale_add),
    .axpy = VEC(axpy),
    .snake = VEC(snake),
    .rms = VEC(rms),
    .layer = VEC(layer),
    .turn = VEC(turn),
    .depthwise = VEC(depthwise),
    .read = VEC(read),
};
