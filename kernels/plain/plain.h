/*
 * kernels/plain/plain.h - the plain-C twin of every op.
 *
 * One obvious loop nest an op: no vectors, no threads, no blocking, sums in double. It is the
 * yardstick of every other backend, and serves as their implementation wherever an op is never
 * hot. Every function is the table entry of the same name; shapes and meaning: kernels/ops.h.
 */
#ifndef PARLEY_KERNELS_PLAIN_H
#define PARLEY_KERNELS_PLAIN_H

#include "kernels/ops.h"

/* Address space, reserved when a device is opened so that no op has to ask for memory later; its
 * pages come when they are touched. */
struct host_room {
    void *p;
    size_t bytes;
};

/* The first member of every backend that runs on the host. */
struct host {
    struct device d;
    struct host_room scratch; /* contents live for one op */
};

/* 0 or -ENOMEM. */
int host_room_open(struct host_room *r, size_t bytes);
void host_room_close(struct host_room *r);

/* At least `bytes`, aligned to a page; what was in it is lost where it has to grow. Ops cannot
 * fail: where it cannot grow the process ends here (abort). */
void *host_room(struct host_room *r, size_t bytes);

/* What HOST_SCRATCH reserves is more than any op needs of models that fit the machine. */
#define HOST_SCRATCH ((size_t)1 << 30)
void *host_scratch(struct device *d, size_t bytes);

int plain_open(struct device **ret, struct problems *why);
void plain_close(struct device *d);

/* memory.c */
void *plain_alloc(struct device *d, size_t bytes);
void plain_release(struct device *d, void *p);
void plain_put(struct device *d, void *dst, const void *host, size_t bytes);
void plain_get(struct device *d, void *host, const void *src, size_t bytes);
void plain_mark(struct device *d);
void plain_copy(struct device *d, void *dst, const void *src, size_t bytes);

/* step.c */
void plain_advance(struct device *d, int32_t *pos, int n);
int plain_step_begin(struct device *d, struct step **step);
void plain_step_end(struct device *d, struct step **step);
void plain_step_drop(struct device *d, struct step *step);

/* linear.c */
double plain_dot(const float *a, const float *b, size_t n);
float plain_gelu(float x);
float plain_silu(float x);
void plain_row(float *out, const struct weight *w, size_t row);
void plain_embed(struct device *d, float *y, const struct weight *table, const int32_t *ids, int n,
                 int add);
void plain_linear(struct device *d, float *y, const float *x, int n, const struct weight *w,
                  const float *bias, unsigned flags);
void plain_experts(struct device *d, float *y, const float *x, int n, const struct expert *e,
                   int experts, const int32_t *ids, const float *weights, int k);

/* norm.c */
void plain_rms_norm(struct device *d, float *y, const float *x, int n, int dim, const float *w,
                    float eps);
void plain_layer_norm(struct device *d, float *y, const float *x, int n, int dim, const float *w,
                      const float *b, float eps);
void plain_norm_rope(struct device *d, float *x, int n, int heads, int dim, const float *norm,
                     float eps, const float *inv_freq, const int32_t *pos);

/* attend.c */
void plain_kv_store(struct device *d, const struct kv *kv, const float *k, const float *v, int n,
                    const int32_t *pos);
void plain_attend(struct device *d, float *y, const float *q, int n, const struct kv *kv,
                  const struct attention *a, const int32_t *pos);

/* element.c */
void plain_silu_mul(struct device *d, float *gate, const float *up, size_t count);
void plain_add(struct device *d, float *y, const float *x, size_t count);
void plain_scale_add(struct device *d, float *y, const float *x, int n, int dim,
                     const float *scale);
void plain_gate_add(struct device *d, float *y, const float *x, int n, int dim, const float *gate);
void plain_transpose(struct device *d, float *y, const float *x, int batch, int rows, int cols);
void plain_snake(struct device *d, float *y, const float *x, int t, int channels,
                 const float *alpha, const float *inv_beta);

/* conv.c */
void plain_conv2d(struct device *d, float *y, const float *x, int n, int h, int w,
                  const struct weight *weight, const float *bias);
void plain_conv1d(struct device *d, float *y, const float *x, int t, const struct weight *w,
                  const float *bias, int kernel, int dilation, unsigned flags);
void plain_conv1d_depthwise(struct device *d, float *y, const float *x, int t, int channels,
                            const float *w, const float *bias, int kernel);
void plain_conv1d_up(struct device *d, float *y, const float *x, int t, const struct weight *w,
                     const float *bias, int stride, int kernel);

/* route.c, sample.c */
void plain_route(struct device *d, int32_t *ids, float *weights, const float *logits, int n,
                 int experts, int k, int renorm);
void plain_sample(struct device *d, int32_t *id, const float *logits, int count,
                  const struct sampling *s, uint32_t *seen, uint64_t *draw);

#endif
