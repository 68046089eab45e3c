/*
 * kernels/ops.h - the op list of the model, one table per backend.
 *
 * The model (engine/, talker/, code2wav/, model/decoder.c) is written once against this table:
 *
 *     d->op->linear(d, y, x, n, &layer->q, NULL, 0);
 *
 * Backends: "cpu" (vector kernels and a thread pool; default), "plain" (the plain-C twin of every
 * op: slow, short, obviously right; tests compare every other backend against it). "cuda" comes
 * behind the same table.
 *
 * Conventions
 *   - Activations are fp32, row-major, one row per token, frame or sample; `n` is the number of
 *     rows and may be anything >= 1. Pointers are device memory from `alloc` (weights: wherever the
 *     loader put them). Nothing overlaps unless an op says so.
 *   - What changes from step to step (ids, positions) is read from device memory, so that a backend
 *     may record a step once and replay it.
 *   - Sums are fp32 or wider. On the host a row's result does not depend on `n` nor on the number
 *     of threads: one row at a time and many rows at once agree bit for bit. (A KV ring of another
 *     length may round differently.) On CUDA the way of summing is chosen by `n`, so that rows
 * agree to rounding only; the same calls give the same bits again.
 *   - Ops never fail and never print. Sizes were checked when the model was opened.
 *   - Threads: a device belongs to one thread at a time; open one per stage thread.
 */
#ifndef PARLEY_KERNELS_OPS_H
#define PARLEY_KERNELS_OPS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/problem.h"
#include "kernels/dtype.h"

struct device;

/* A matrix as stored: y = W x. Convolutions are matrices too, with cols = in * kernel positions,
 * but never I8.
 *
 * I8: element (r, c) is scale[r][c / group] * (byte - 128), the bytes of a row begin at a multiple
 * of 4 and those behind its last element are not looked at. The last group of a row may be short.
 */
struct weight {
    const void *data; /* [rows, cols] row-major, aligned to its element size; NULL = absent */
    enum dtype type;
    int rows; /* out */
    int cols; /* in */
    enum dtype scale_type;
    const void *scale; /* I8: [rows, groups], groups = ceil(cols / group); else NULL */
    int group;         /* I8: columns that share a scale, 1 .. cols */
};

/* From one row of w->data to the next. */
static inline size_t weight_row_bytes(const struct weight *w)
{
    if (w->type == DT_I8)
        return ((size_t)w->cols + 3) / 4 * 4;
    return (size_t)w->cols * dtype_size(w->type);
}

/* Scales of one row of an I8 matrix. */
static inline int weight_groups(const struct weight *w)
{
    return (w->cols + w->group - 1) / w->group;
}

/* Everything that one product reads. */
static inline size_t weight_bytes(const struct weight *w)
{
    size_t row = weight_row_bytes(w);
    if (w->type == DT_I8)
        row += (size_t)weight_groups(w) * dtype_size(w->scale_type);
    return w->data ? (size_t)w->rows * row : 0;
}

/* One expert of a mixture: down(silu(gate x) * (up x)). */
struct expert {
    struct weight gate; /* [expert_intermediate, hidden] */
    struct weight up;   /* [expert_intermediate, hidden] */
    struct weight down; /* [hidden, expert_intermediate] */
};

/* Keys and values of one layer. Position p lives in row p % rows: a cache as long as the context
 * never wraps, one of window + batch rows is a ring. */
struct kv {
    void *k; /* [rows, heads * dim] */
    void *v; /* [rows, heads * dim] */
    enum dtype type;
    int rows;
    int heads;
    int dim;
};

struct attention {
    int heads;   /* query heads, a multiple of the kv heads */
    int causal;  /* 1: query i sees positions 0..pos+i; 0: all of 0..n-1, cache written at pos 0 */
    int window;  /* > 0: only the last `window` positions including its own */
    float scale; /* applied to q.k before softmax */
};

/* How the next id is chosen, in the order: repetition penalty, suppression, temperature, top-k,
 * top-p, softmax, draw (MODEL.md, Sampling). */
struct sampling {
    float temperature;        /* 0 = greedy: the largest logit, lowest id among equals */
    int top_k;                /* 0 = off */
    float top_p;              /* 0 or >= 1 = off */
    float repetition_penalty; /* 0 or 1 = off */
    int limit;                /* ids >= limit are suppressed, 0 = none ... */
    int keep;                 /* ... except this one (an end token); ignored when limit is 0 */
    uint64_t seed;
};

/* y = x * rsqrt(mean(x^2) + eps) * w */
struct norm {
    const float *w; /* [dim] */
    float eps;
};

/* What happens to heads before attention: norm of each (skipped when NULL), then the rotary
 * embedding. */
struct rope {
    const float *q_norm, *k_norm; /* [dim], NULL = none */
    float eps;
    const float *inv_freq; /* [dim/2] */
};

/* A mixture of experts as a layer has it, and room for what it computes on the way, [n] rows each.
 */
struct moe {
    const struct weight *router; /* [count, hidden] */
    const struct expert *experts;
    int count, k, renorm;
    const struct expert *shared;      /* gate.data NULL = none */
    const struct weight *shared_gate; /* [1, hidden] */
    float *a, *branch;                /* [hidden] */
    float *logits;                    /* [count] */
    float *gate, *up;                 /* [shared intermediate] */
    float *weights;                   /* [k] */
    float *share;                     /* [1] */
    int32_t *ids;                     /* [k] */
};

/* A recorded step; NULL = none yet. */
struct step;

enum { LINEAR_ADD = 1, LINEAR_GELU = 2, LINEAR_SILU = 4, LINEAR_EXACT = 8 };

struct ops {
    /* Memory. `alloc` returns zeroed bytes aligned to 64, NULL when there are none left. */
    void *(*alloc)(struct device *d, size_t bytes);
    void (*release)(struct device *d, void *p);
    void (*put)(struct device *d, void *dst, const void *host, size_t bytes);
    void (*get)(struct device *d, void *host, const void *src, size_t bytes);
    /* The same for what is ready at the last `mark`: waits for nothing that was begun after it. */
    void (*mark)(struct device *d);
    void (*get_marked)(struct device *d, void *host, const void *src, size_t bytes);
    /* dst may overlap src, as memmove. */
    void (*copy)(struct device *d, void *dst, const void *src, size_t bytes);

    /* y[n, cols] = table[ids[i]], or += with add. */
    void (*embed)(struct device *d, float *y, const struct weight *table, const int32_t *ids, int n,
                  int add);

    /* y[n, rows] = act(x[n, cols] W^T + bias); bias[rows] may be NULL. LINEAR_ADD: y += instead.
     * LINEAR_GELU is the exact (erf) gelu. LINEAR_EXACT keeps x in fp32 where the backend would
     * otherwise round it to the weight's 16 bits (routers). */
    void (*linear)(struct device *d, float *y, const float *x, int n, const struct weight *w,
                   const float *bias, unsigned flags);

    /* y = x * rsqrt(mean(x^2) + eps) * w; y may be x. */
    void (*rms_norm)(struct device *d, float *y, const float *x, int n, int dim, const float *w,
                     float eps);
    /* y = (x - mean) * rsqrt(var + eps) * w + b; y may be x. */
    void (*layer_norm)(struct device *d, float *y, const float *x, int n, int dim, const float *w,
                       const float *b, float eps);

    /* In place on x[n, heads, dim]: RMS norm per head (norm[dim], skipped when NULL), then the
     * rotary embedding of position *pos + row, pairs (i, i + dim/2), inv_freq[dim/2]. */
    void (*norm_rope)(struct device *d, float *x, int n, int heads, int dim, const float *norm,
                      float eps, const float *inv_freq, const int32_t *pos);

    /* Rows k, v [n, heads*dim] into the cache at positions *pos .. *pos + n - 1. */
    void (*kv_store)(struct device *d, const struct kv *kv, const float *k, const float *v, int n,
                     const int32_t *pos);

    /* y[n, heads*dim] = softmax(scale q K^T) V for n queries at positions *pos ..., whose own keys
     * are stored already. */
    void (*attend)(struct device *d, float *y, const float *q, int n, const struct kv *kv,
                   const struct attention *a, const int32_t *pos);

    /* Element-wise. */
    void (*silu_mul)(struct device *d, float *gate, const float *up, size_t count);
    void (*add)(struct device *d, float *y, const float *x, size_t count);
    /* y[n, dim] += scale[dim] * x[n, dim] (layer scale, ConvNeXt gamma). */
    void (*scale_add)(struct device *d, float *y, const float *x, int n, int dim,
                      const float *scale);
    /* y[n, dim] += sigmoid(gate[n]) * x[n, dim] (shared expert). */
    void (*gate_add)(struct device *d, float *y, const float *x, int n, int dim, const float *gate);
    /* y[batch, cols, rows] = x[batch, rows, cols]. */
    void (*transpose)(struct device *d, float *y, const float *x, int batch, int rows, int cols);

    /* For each row the k largest of softmax(logits[n, experts]), largest first, ties to the lower
     * id: ids[n, k] and weights[n, k]; renorm divides the weights by their sum. */
    void (*route)(struct device *d, int32_t *ids, float *weights, const float *logits, int n,
                  int experts, int k, int renorm);
    /* y[n, hidden] += sum over k of weights * expert_ids(x[n, hidden]). */
    void (*experts)(struct device *d, float *y, const float *x, int n, const struct expert *e,
                    int experts, const int32_t *ids, const float *weights, int k);

    /* 3x3 convolution, stride 2, padding 1, exact gelu, channels last:
     * y[n, ho, wo, out] from x[n, h, w, in], ho = (h+1)/2, wo = (w+1)/2.
     * The weight lies as PyTorch's [out, in, kernel_w, kernel_h]: its first kernel axis runs along
     * w here, its last along h, because h is time and w is mel frequency (MODEL.md, stem). */
    void (*conv2d)(struct device *d, float *y, const float *x, int n, int h, int w,
                   const struct weight *weight, const float *bias);

    /* Causal convolutions, channels last, over t samples. x has its history in front: rows
     * x[-(kernel-1)*dilation] .. x[-1] are readable and hold what came before (zeros at first).
     * conv1d: weight [out, in*kernel] (PyTorch's [out, in, kernel]), y[t, out], flag LINEAR_ADD. */
    void (*conv1d)(struct device *d, float *y, const float *x, int t, const struct weight *w,
                   const float *bias, int kernel, int dilation, unsigned flags);
    /* Depthwise: w[channels, kernel], y[t, channels]. */
    void (*conv1d_depthwise)(struct device *d, float *y, const float *x, int t, int channels,
                             const float *w, const float *bias, int kernel);
    /* Transposed, stride s, kernel s or 2s, weight [in, out*kernel] (PyTorch's [in, out, kernel]):
     * y[t*s, out]; block j = bias + W[..0:s] x_j (+ W[..s:2s] x_{j-1} when kernel is 2s, one row of
     * history). */
    void (*conv1d_up)(struct device *d, float *y, const float *x, int t, const struct weight *w,
                      const float *bias, int stride, int kernel);
    /* SnakeBeta: y = x + sin(x * alpha)^2 * inv_beta, per channel; y may be x. */
    void (*snake)(struct device *d, float *y, const float *x, int t, int channels,
                  const float *alpha, const float *inv_beta);

    /* *id = an id drawn from logits[count] (not changed). `seen` is a bitmap of ids under the
     * penalty (NULL: none); the drawn id is added to it. *draw is the number of the draw, counted
     * up by one: with the seed it decides the random number. */
    void (*sample)(struct device *d, int32_t *id, const float *logits, int count,
                   const struct sampling *s, uint32_t *seen, uint64_t *draw);

    /* Fused ops: what stands in each comment, in this order; a backend may do it in fewer passes.
     * Room that an op is given for what lies between is not to be read afterwards. */

    /* y[i] = linear(x, w[i], bias[i], flags) for i < count <= 3. */
    void (*linears)(struct device *d, float *const *y, const float *x, int n,
                    const struct weight *const *w, const float *const *bias, int count,
                    unsigned flags);
    /* a = rms_norm(x), y[i] = w[i] a for i < count <= 3. `a` may be read afterwards. */
    void (*norm_linear)(struct device *d, float *const *y, float *a, const float *x, int n,
                        const struct norm *norm, const struct weight *const *w, int count);
    /* norm_rope of q and k, kv_store of k and v, attend. Afterwards q and k are undefined. */
    void (*rope_attend)(struct device *d, float *y, float *q, float *k, const float *v, int n,
                        const struct kv *kv, const struct attention *a, const struct rope *r,
                        const int32_t *pos);
    /* y += scale * (w x); scale NULL = 1. room[n, w->rows] */
    void (*linear_add)(struct device *d, float *y, float *room, const float *x, int n,
                       const struct weight *w, const float *scale);
    /* a = rms_norm(x), y = silu(gate a) * (up a). room[n, gate->rows] */
    void (*norm_swiglu)(struct device *d, float *y, float *room, float *a, const float *x, int n,
                        const struct norm *norm, const struct weight *gate,
                        const struct weight *up);
    /* a = rms_norm(x), route, x += experts(a) + sigmoid(shared_gate a) * shared(a) */
    void (*mixture)(struct device *d, float *x, int n, const struct norm *norm,
                    const struct moe *m);
    /* y[cols] = sum over i < count of row ids[i] of tables[i]. */
    void (*embed_sum)(struct device *d, float *y, const struct weight *const *tables,
                      const int32_t *ids, int count);

    /* *pos += n */
    void (*advance)(struct device *d, int32_t *pos, int n);

    /* A step is a sequence of ops that is the same every time, down to pointers and counts:
     *
     *     if (op->step_begin(d, &step)) {
     *         ops ... (no put, get, alloc, release)
     *         op->step_end(d, &step);
     *     }
     *
     * A backend that can, records the ops and later does all of them at once: then step_begin has
     * done the step and returns 0. step_drop forgets a recording; NULL is allowed. */
    int (*step_begin)(struct device *d, struct step **step);
    void (*step_end)(struct device *d, struct step **step);
    void (*step_drop)(struct device *d, struct step *step);
};

/* How weights come into memory that is not the host's. A lane copies from its own two pinned
 * buffers without waiting; every thread that loads has a lane, beside the thread that owns the
 * device.
 *
 *     l = lane_open; { b = lane_buffer(l); fill b; lane_copy(l, ...)... }...; lane_close
 */
struct lane;

struct loading {
    unsigned types; /* bit t: matrices of type t can be computed with */
    /* Bytes of the device in all, and not taken by anybody now. True: they are the host's, and what
     * the host could give back (cached files) may not be counted as unused. */
    bool (*memory)(struct device *d, size_t *total, size_t *unused);
    struct lane *(*lane_open)(struct device *d, size_t bytes); /* NULL: no memory left */
    /* A buffer of `bytes`; waits until what was copied from it before has arrived. */
    void *(*lane_buffer)(struct lane *l);
    /* Begins to copy a part of the buffer given last to device memory. */
    void (*lane_copy)(struct lane *l, void *dst, const void *part, size_t bytes);
    void (*lane_close)(struct lane *l); /* waits for everything */
    /* Random weights made in place, the numbers of random_fill (model/source.h): table[4096] are
     * normally distributed numbers in device memory. */
    void (*random)(struct device *d, void *dst, enum dtype type, const float *table, float mean,
                   float deviation, uint64_t seed, size_t count);
};

/* The first member of every backend's own structure. */
struct device {
    const struct ops *op;
    const char *name;           /* "cpu avx512bf16, 2 threads" */
    const struct loading *load; /* NULL: weights are used where they lie in the host's memory */
};

struct device_opts {
    const char *name; /* "auto" or NULL, "cpu", "cuda", "cuda:1", "plain"; with ":avx2", ":neon",
                         ":generic" ... after "cpu" to force one instruction set */
    int threads;      /* of the CPU; 0 = one per processor of this process */
    bool urgent;      /* CUDA: its work goes before that of other handles (speech) */
    int hang_ms;      /* CUDA: silence for so long ends the process; 0 = 5000 */
};

/* Whether device_open knows the name on this machine; a GPU is not looked for. 0, or -EINVAL and a
 * sentence that names what exists. */
int device_check(const char *name, struct problems *why);

/* Opens a device. 0, -EINVAL for an unknown or unavailable name (what exists is said), -ENOMEM. */
int device_open(struct device **ret, const struct device_opts *o, struct problems *why);

/* Releases the device and joins its threads; NULL is allowed. Memory from `alloc` that was not
 * released stays valid on the CPU. */
void device_close(struct device *d);

/* Reads `bytes` once with all threads of a CPU device and returns the rate in bytes per second: the
 * floor that decoding is measured against. */
double device_read_rate(struct device *d, const void *data, size_t bytes);

#endif
