/*
 * kernels/cuda/cuda.h - the CUDA backend's device and what its files share.
 *
 * An op is a host function (the launcher) and the kernels it may start: it chooses by shape and
 * type in one visible `if` and returns before the GPU has done anything. Everything of one handle
 * happens in the order of its stream; only `get` waits.
 *
 * Kernels start early: a launch lets its blocks begin while the kernel before it still drains
 * (programmatic dependent launch, from compute capability 9.0 on). So every kernel that was started
 * with LAUNCH first fetches what nobody writes (weights), then calls dependency_wait() in every
 * thread before it touches anything else, reading or writing. Kernels that end a step (advance,
 * sample) do not let the next one begin early: what was written before them, positions and the
 * cache of keys, may be fetched without waiting by all that follow. One kernel (k_down in moe.cu)
 * reads ahead of the wait what its predecessor has probably written, and looks again behind it.
 *
 * Faults are fatal: CUDA_MUST ends the process with expression, file, line and CUDA's name of it.
 */
#ifndef PARLEY_KERNELS_CUDA_CUDA_H
#define PARLEY_KERNELS_CUDA_CUDA_H

#include <cuda_runtime.h>

extern "C" {
#include "kernels/compose.h"
#include "kernels/cuda/backend.h"
}

enum { CUDA_FAULT_STATUS = 3 }; /* exit status after a fault of the GPU */

#define CUDA_MUST(expr) cuda_must((expr), #expr, __FILE__, __LINE__)

struct prepared; /* weights in another order, made at their first use: prepare.cu */

struct cuda {
    struct device d;
    char name[128];
    int ordinal;
    int sms;     /* multiprocessors */
    int major;   /* compute capability that the kernels were compiled for, no more than the GPU's */
    int hang_ms; /* silence for so long ends the process */
    size_t smem; /* most shared memory of a block */
    int parts;   /* most blocks of a cluster of wide products; 0 = none can be had */
    int integrated; /* its memory is the host's */
    cudaStream_t stream;
    cudaStream_t side;  /* for what must not be recorded, or not wait for all that was begun */
    cudaEvent_t marked; /* the last mark */
    void *scratch;      /* of one op; grows on demand, never while a step is being recorded */
    size_t scratch_bytes;
    void *retired[32]; /* scratch that recorded steps may still name */
    int n_retired;
    unsigned *counters;      /* [CUDA_COUNTERS] zero between kernels: blocks that have finished */
    struct staging *staging; /* for put and get: memory.cu */
    struct prepared *prepared;
    int recording; /* a step is being recorded */
};

enum { CUDA_COUNTERS = 65536 };

static inline struct cuda *cuda_of(struct device *d)
{
    return (struct cuda *)d;
}

/* Ends the process unless err is success. */
void cuda_must(cudaError_t err, const char *expr, const char *file, int line);

/* Waits until the stream has done everything, or the event has come. After hang_ms without that,
 * and without the stream having come to anything that was put there, the process ends. The second
 * sleeps between looks, for threads that load. */
void cuda_wait(struct cuda *c, cudaStream_t stream);
void cuda_wait_event(struct cuda *c, cudaEvent_t event);

/* What put and get go through; taken at open, released at close. */
int cuda_staging_open(struct cuda *c);
void cuda_staging_close(struct cuda *c);

extern const struct loading cuda_loading; /* load.cu */

/* At least `bytes` of device memory for the op that is being launched, aligned to 256. */
void *cuda_scratch(struct cuda *c, size_t bytes);

static inline int div_up(int a, int b)
{
    return (a + b - 1) / b;
}

static inline int at_most(int a, int b)
{
    return a < b ? a : b;
}

static inline int at_least(int a, int b)
{
    return a > b ? a : b;
}

/* A kernel may take so many bytes. It prefers an undivided shared memory, so that the kernel behind
 * it finds room beside it. */
static inline void cuda_shared_memory(const void *kernel, size_t bytes)
{
    CUDA_MUST(cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout,
                                   cudaSharedmemCarveoutMaxShared));
    CUDA_MUST(
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes));
}

/* Starts kernel(args...) on the handle's stream. */
#define LAUNCH(c, kernel, grid, block, smem, ...)                                                  \
    do {                                                                                           \
        cudaLaunchAttribute early_;                                                                \
        cudaLaunchConfig_t how_ = cuda_launch_config((c), &early_, (grid), (block), (smem));       \
        CUDA_MUST(cudaLaunchKernelEx(&how_, (kernel), __VA_ARGS__));                               \
    } while (0)

static inline cudaLaunchConfig_t cuda_launch_config(struct cuda *c, cudaLaunchAttribute *early,
                                                    dim3 grid, dim3 block, size_t smem)
{
    cudaLaunchConfig_t how = {};
    how.gridDim = grid;
    how.blockDim = block;
    how.dynamicSmemBytes = smem;
    how.stream = c->stream;
    early->id = cudaLaunchAttributeProgrammaticStreamSerialization;
    early->val.programmaticStreamSerializationAllowed = 1;
    how.attrs = early;
    how.numAttrs = c->major >= 9 ? 1 : 0;
    return how;
}

#ifdef __CUDACC__
/* From here on what earlier kernels wrote may be read, and what they read be written. */
static __device__ __forceinline__ void dependency_wait(void)
{
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

/* The next kernel may begin to fetch its weights. */
static __device__ __forceinline__ void dependents_start(void)
{
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;");
#endif
}
#endif

/* The table (ops.cu) and its ops, by file. Shapes and meaning: kernels/ops.h. */
extern const struct ops cuda_ops;

/* memory.cu */
void *cuda_alloc(struct device *d, size_t bytes);
void cuda_release(struct device *d, void *p);
void cuda_put(struct device *d, void *dst, const void *host, size_t bytes);
void cuda_get(struct device *d, void *host, const void *src, size_t bytes);

/* prepare.cu: what was made of weights, until their memory is released through this handle. */
void cuda_remember(struct cuda *c, void *at, size_t bytes);
void cuda_forget(struct cuda *c, void *at);
void cuda_prepared_close(struct cuda *c);

/* element.cu */
void cuda_mark(struct device *d);
void cuda_get_marked(struct device *d, void *host, const void *src, size_t bytes);
void cuda_copy(struct device *d, void *dst, const void *src, size_t bytes);
void cuda_embed(struct device *d, float *y, const struct weight *table, const int32_t *ids, int n,
                int add);
void cuda_embed_sum(struct device *d, float *y, const struct weight *const *tables,
                    const int32_t *ids, int count);
void cuda_rms_norm(struct device *d, float *y, const float *x, int n, int dim, const float *w,
                   float eps);
void cuda_layer_norm(struct device *d, float *y, const float *x, int n, int dim, const float *w,
                     const float *b, float eps);
void cuda_norm_rope(struct device *d, float *x, int n, int heads, int dim, const float *norm,
                    float eps, const float *inv_freq, const int32_t *pos);
void cuda_kv_store(struct device *d, const struct kv *kv, const float *k, const float *v, int n,
                   const int32_t *pos);
void cuda_silu_mul(struct device *d, float *gate, const float *up, size_t count);
void cuda_add(struct device *d, float *y, const float *x, size_t count);
void cuda_scale_add(struct device *d, float *y, const float *x, int n, int dim, const float *scale);
void cuda_gate_add(struct device *d, float *y, const float *x, int n, int dim, const float *gate);
void cuda_transpose(struct device *d, float *y, const float *x, int batch, int rows, int cols);
void cuda_snake(struct device *d, float *y, const float *x, int t, int channels, const float *alpha,
                const float *inv_beta);
void cuda_conv1d_depthwise(struct device *d, float *y, const float *x, int t, int channels,
                           const float *w, const float *bias, int kernel);
void cuda_advance(struct device *d, int32_t *pos, int n);

/* gemm.cu */
void cuda_linears(struct device *d, float *const *y, const float *x, int n,
                  const struct weight *const *w, const float *const *bias, int count,
                  unsigned flags);

/* gemv.cu */
void cuda_linear(struct device *d, float *y, const float *x, int n, const struct weight *w,
                 const float *bias, unsigned flags);
void cuda_linear_add(struct device *d, float *y, float *room, const float *x, int n,
                     const struct weight *w, const float *scale);
void cuda_norm_linear(struct device *d, float *const *y, float *a, const float *x, int n,
                      const struct norm *norm, const struct weight *const *w, int count);
void cuda_norm_swiglu(struct device *d, float *y, float *room, float *a, const float *x, int n,
                      const struct norm *norm, const struct weight *gate, const struct weight *up);

/* moe.cu */
void cuda_route(struct device *d, int32_t *ids, float *weights, const float *logits, int n,
                int experts, int k, int renorm);
void cuda_experts(struct device *d, float *y, const float *x, int n, const struct expert *e,
                  int experts, const int32_t *ids, const float *weights, int k);
void cuda_mixture(struct device *d, float *x, int n, const struct norm *norm, const struct moe *m);

/* attend.cu */
void cuda_attend(struct device *d, float *y, const float *q, int n, const struct kv *kv,
                 const struct attention *a, const int32_t *pos);
void cuda_rope_attend(struct device *d, float *y, float *q, float *k, const float *v, int n,
                      const struct kv *kv, const struct attention *a, const struct rope *r,
                      const int32_t *pos);

/* conv.cu */
void cuda_conv1d(struct device *d, float *y, const float *x, int t, const struct weight *w,
                 const float *bias, int kernel, int dilation, unsigned flags);
void cuda_conv1d_up(struct device *d, float *y, const float *x, int t, const struct weight *w,
                    const float *bias, int stride, int kernel);
void cuda_conv2d(struct device *d, float *y, const float *x, int n, int h, int w,
                 const struct weight *weight, const float *bias);

/* sample.cu */
void cuda_sample(struct device *d, int32_t *id, const float *logits, int count,
                 const struct sampling *s, uint32_t *seen, uint64_t *draw);

/* step.cu */
int cuda_step_begin(struct device *d, struct step **step);
void cuda_step_end(struct device *d, struct step **step);
void cuda_step_drop(struct device *d, struct step *step);

#endif
