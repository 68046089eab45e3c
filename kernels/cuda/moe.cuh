/*
 * kernels/cuda/moe.cuh - what the files for mixtures of experts share.
 */
#ifndef PARLEY_KERNELS_CUDA_MOE_CUH
#define PARLEY_KERNELS_CUDA_MOE_CUH

#include "kernels/cuda/math.cuh"

/* Experts whose matrices lie at regular distances in one type of 16 bits. */
struct regular {
    const char *gate, *up, *down; /* of expert 0; NULL: they are not regular */
    size_t step, step_down;       /* bytes from expert to expert: gate and up, down */
    enum dtype type;
    int hidden, inner;
};

struct regular moe_regular(const struct expert *e, int experts);

void cuda_experts_any(struct device *d, float *y, const float *x, int n, const struct expert *e,
                      int experts, const int32_t *ids, const float *weights, int k);

/* y += mixture for the rows of x, any number of them, experts read once: moe_many.cu. */
void cuda_experts_many(struct device *d, float *y, const float *x, int n, const struct regular *e,
                       int experts, const int32_t *ids, const float *weights, int k);

/* A copy of the experts' array on the device, made anew when the array has changed. */
const struct expert *cuda_expert_table(struct cuda *c, const struct expert *e, int experts);

#endif
