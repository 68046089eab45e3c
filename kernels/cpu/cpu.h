/*
 * kernels/cpu/cpu.h - the CPU backend's device and what its files share.
 *
 * An op splits its work into tasks for the pool; a task calls vector kernels. The split depends on
 * shapes and the number of threads, the results do not (see vec_matrix.c for why).
 */
#ifndef PARLEY_KERNELS_CPU_CPU_H
#define PARLEY_KERNELS_CPU_CPU_H

#include "kernels/cpu/pool.h"
#include "kernels/cpu/vec.h"
#include "kernels/plain/plain.h"

/* cos and sin of the last positions asked for: every layer of a step asks for the same. */
struct turns {
    int half, pos, n;
    struct host_room room;
    float *table;    /* [n][2][half]: cosines, then sines */
    float *inv_freq; /* [half] behind it: what the table was made from */
};

struct cpu {
    struct host host; /* first: d and scratch */
    struct pool *pool;
    const struct vec *vec;
    struct turns turns;
    char name[64];
};

/* One matrix product y[n, rows] = act(x W^T + bias) with x as the kernels want it. */
struct product {
    const struct weight *w;
    enum number num;
    const void *x;
    size_t ldx; /* bytes from one row of x to the next; rows may overlap */
    int n;
    float *y;
    const float *bias;
    unsigned flags;
};

int cpu_open(struct device **ret, const char *isa, int threads, struct problems *why);
void cpu_close(struct device *d);

/* linear.c */
/* How a product is taken. bf16 weights of `linear` and `experts` meet x split in two bf16 halves:
 * the error of one rounding of x now and then picks another expert, which is worth far more than
 * the rounding itself. Code2Wav's
 * convolutions have no router behind them and round x once. */
enum number cpu_number(const struct cpu *c, enum dtype type, unsigned flags);
enum number cpu_number_conv(const struct cpu *c, enum dtype type);
static inline size_t number_x_bytes(enum number num)
{
    return num == NUM_PAIR ? 2 : 4;
}
/* fp32 x rounded to bf16; each row of x as its high halves, then its low ones. In parallel when x
 * is large. */
void cpu_round(struct cpu *c, void *to, const float *x, size_t count);
void cpu_split(struct cpu *c, void *to, const float *x, size_t rows, size_t cols);
void cpu_product(struct cpu *c, const struct product *p);
/* out[i * ldo + j] = row r + j of w times x_i, for j < rows and i < n <= VEC_ROWS. */
void cpu_dots(const struct cpu *c, float *out, size_t ldo, const struct weight *w, enum number num,
              int r, int rows, const void *const *x, int n);
void cpu_embed(struct device *d, float *y, const struct weight *table, const int32_t *ids, int n,
               int add);
void cpu_linear(struct device *d, float *y, const float *x, int n, const struct weight *w,
                const float *bias, unsigned flags);

/* experts.c */
void cpu_experts(struct device *d, float *y, const float *x, int n, const struct expert *e,
                 int experts, const int32_t *ids, const float *weights, int k);

/* attend.c */
void cpu_kv_store(struct device *d, const struct kv *kv, const float *k, const float *v, int n,
                  const int32_t *pos);
void cpu_attend(struct device *d, float *y, const float *q, int n, const struct kv *kv,
                const struct attention *a, const int32_t *pos);

/* element.c */
void cpu_rms_norm(struct device *d, float *y, const float *x, int n, int dim, const float *w,
                  float eps);
void cpu_layer_norm(struct device *d, float *y, const float *x, int n, int dim, const float *w,
                    const float *b, float eps);
void cpu_norm_rope(struct device *d, float *x, int n, int heads, int dim, const float *norm,
                   float eps, const float *inv_freq, const int32_t *pos);
void cpu_silu_mul(struct device *d, float *gate, const float *up, size_t count);
void cpu_add(struct device *d, float *y, const float *x, size_t count);
void cpu_scale_add(struct device *d, float *y, const float *x, int n, int dim, const float *scale);
void cpu_gate_add(struct device *d, float *y, const float *x, int n, int dim, const float *gate);
void cpu_snake(struct device *d, float *y, const float *x, int t, int channels, const float *alpha,
               const float *inv_beta);
void cpu_route(struct device *d, int32_t *ids, float *weights, const float *logits, int n,
               int experts, int k, int renorm);

/* conv.c */
void cpu_conv2d(struct device *d, float *y, const float *x, int n, int h, int w,
                const struct weight *weight, const float *bias);
void cpu_conv1d(struct device *d, float *y, const float *x, int t, const struct weight *w,
                const float *bias, int kernel, int dilation, unsigned flags);
void cpu_conv1d_depthwise(struct device *d, float *y, const float *x, int t, int channels,
                          const float *w, const float *bias, int kernel);
void cpu_conv1d_up(struct device *d, float *y, const float *x, int t, const struct weight *w,
                   const float *bias, int stride, int kernel);

/* read.c */
double cpu_read_rate(struct cpu *c, const void *data, size_t bytes);

#endif
