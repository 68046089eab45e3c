/*
 * kernels/cuda/any.cu - products for weights of any type and any size: a warp a dot product,
 * nothing clever. fp32 and 8-bit weights, odd shapes and convolutions of one channel come here;
 * what is fast stands in gemv.cu, gemm.cu and moe.cu.
 */
#include "kernels/cuda/conv.cuh"
#include "kernels/cuda/gemm.cuh"
#include "kernels/cuda/moe.cuh"

enum { THREADS = 256, WARPS = THREADS / WARP, ROWS = 4 };

/* A warp takes one row of w and ROWS rows of x. */
static __global__ void k_linear(float *y, const float *x, int n, struct weight w, const float *bias,
                                const float *scale, unsigned flags)
{
    int r = blockIdx.x * WARPS + threadIdx.x / WARP, lane = threadIdx.x % WARP;
    int first = blockIdx.y * ROWS, rows = min(ROWS, n - first);
    float acc[ROWS] = {};
    dependents_start();
    dependency_wait();
    if (r >= w.rows)
        return;
    x += (size_t)first * w.cols;
    for (int i = lane; i < w.cols; i += WARP) {
        float v = read_weight(&w, (size_t)r, (size_t)i);
#pragma unroll
        for (int j = 0; j < ROWS; j++)
            acc[j] = fmaf(v, j < rows ? x[(size_t)j * w.cols + i] : 0, acc[j]);
    }
#pragma unroll
    for (int j = 0; j < ROWS; j++) {
        float v = activate(warp_sum(acc[j]) + (bias != NULL ? bias[r] : 0), flags);
        float *to = y + (size_t)(first + j) * w.rows + r;
        if (scale != NULL)
            v *= scale[r];
        if (lane == 0 && j < rows)
            *to = flags & LINEAR_ADD ? *to + v : v;
    }
}

void cuda_linear_any(struct device *d, float *y, const float *x, int n, const struct weight *w,
                     const float *bias, const float *scale, unsigned flags)
{
    dim3 grid((unsigned)div_up(w->rows, WARPS), (unsigned)div_up(n, ROWS));
    LAUNCH(cuda_of(d), k_linear, grid, THREADS, 0, y, x, n, *w, bias, scale, flags);
}

static __device__ __forceinline__ float dot_any(const struct weight *w, int row, const float *x,
                                                int lane)
{
    float sum = 0;
    for (int i = lane; i < w->cols; i += WARP)
        sum = fmaf(read_weight(w, (size_t)row, (size_t)i), x[i], sum);
    return warp_sum(sum);
}

/* h[slot, inner] = silu(gate x) * (up x); a slot is (row, choice). */
static __global__ void k_experts_up(float *h, const float *x, const struct expert *e,
                                    const int32_t *ids, int slots, int k, int inner, int hidden)
{
    size_t task = (size_t)blockIdx.x * WARPS + threadIdx.x / WARP;
    int lane = threadIdx.x % WARP;
    dependents_start();
    dependency_wait();
    if (task >= (size_t)slots * inner)
        return;
    int slot = (int)(task / inner), r = (int)(task % inner);
    const struct expert *at = &e[ids[slot]];
    const float *row = x + (size_t)(slot / k) * hidden;
    float gate = dot_any(&at->gate, r, row, lane), up = dot_any(&at->up, r, row, lane);
    if (lane == 0)
        h[task] = silu(gate) * up;
}

/* y[row, hidden] += sum over choices of weight * down h */
static __global__ void k_experts_down(float *y, const float *h, const struct expert *e,
                                      const int32_t *ids, const float *weights, int n, int k,
                                      int inner, int hidden)
{
    size_t task = (size_t)blockIdx.x * WARPS + threadIdx.x / WARP;
    int lane = threadIdx.x % WARP;
    dependents_start();
    dependency_wait();
    if (task >= (size_t)n * hidden)
        return;
    int row = (int)(task / hidden), r = (int)(task % hidden);
    float sum = 0;
    for (int j = row * k; j < (row + 1) * k; j++)
        sum += weights[j] * dot_any(&e[ids[j]].down, r, h + (size_t)j * inner, lane);
    if (lane == 0)
        y[task] += sum;
}

void cuda_experts_any(struct device *d, float *y, const float *x, int n, const struct expert *e,
                      int experts, const int32_t *ids, const float *weights, int k)
{
    struct cuda *c = cuda_of(d);
    int hidden = e->down.rows, inner = e->gate.rows, slots = n * k;
    const struct expert *table = cuda_expert_table(c, e, experts);
    float *h = (float *)cuda_scratch(c, (size_t)slots * inner * sizeof(float));
    unsigned up = (unsigned)(((size_t)slots * inner + WARPS - 1) / WARPS);
    unsigned down = (unsigned)(((size_t)n * hidden + WARPS - 1) / WARPS);
    LAUNCH(c, k_experts_up, up, THREADS, 0, h, x, table, ids, slots, k, inner, hidden);
    LAUNCH(c, k_experts_down, down, THREADS, 0, y, h, table, ids, weights, n, k, inner, hidden);
}

/* y[t, out]: a warp an output; weight [out, in, kernel]. */
static __global__ void k_conv1d(float *y, const float *x, int t, struct weight w, const float *bias,
                                int kernel, int dilation, unsigned flags)
{
    size_t task = (size_t)blockIdx.x * WARPS + threadIdx.x / WARP;
    int lane = threadIdx.x % WARP, in = w.cols / kernel;
    dependents_start();
    dependency_wait();
    if (task >= (size_t)t * w.rows)
        return;
    int s = (int)(task / w.rows), o = (int)(task % w.rows);
    float sum = 0;
    for (int i = lane; i < w.cols; i += WARP) {
        long from = s - (long)(kernel - 1 - i % kernel) * dilation;
        sum = fmaf(read_weight(&w, (size_t)o, (size_t)i), x[from * in + i / kernel], sum);
    }
    float v = warp_sum(sum) + (bias != NULL ? bias[o] : 0);
    if (lane == 0)
        y[task] = flags & LINEAR_ADD ? y[task] + v : v;
}

void cuda_conv1d_any(struct device *d, float *y, const float *x, int t, const struct weight *w,
                     const float *bias, int kernel, int dilation, unsigned flags)
{
    unsigned grid = (unsigned)(((size_t)t * w->rows + WARPS - 1) / WARPS);
    LAUNCH(cuda_of(d), k_conv1d, grid, THREADS, 0, y, x, t, *w, bias, kernel, dilation, flags);
}

/* y[j * stride + i, o]: a warp an output; weight [in, out * kernel]. */
static __global__ void k_up(float *y, const float *x, int t, struct weight w, const float *bias,
                            int stride, int kernel)
{
    size_t task = (size_t)blockIdx.x * WARPS + threadIdx.x / WARP;
    int lane = threadIdx.x % WARP, out = w.cols / kernel, in = w.rows;
    dependents_start();
    dependency_wait();
    if (task >= (size_t)t * stride * out)
        return;
    int o = (int)(task % out), i = (int)(task / out % stride);
    const float *now = x + (long)(task / out / stride) * in, *before = now - in;
    size_t tap = (size_t)o * kernel + i;
    float sum = 0;
    for (int ch = lane; ch < in; ch += WARP) {
        sum = fmaf(read_weight(&w, (size_t)ch, tap), now[ch], sum);
        if (kernel > stride)
            sum = fmaf(read_weight(&w, (size_t)ch, tap + stride), before[ch], sum);
    }
    float v = warp_sum(sum) + (bias != NULL ? bias[o] : 0);
    if (lane == 0)
        y[task] = v;
}

void cuda_conv1d_up_any(struct device *d, float *y, const float *x, int t, const struct weight *w,
                        const float *bias, int stride, int kernel)
{
    size_t tasks = (size_t)t * stride * (w->cols / kernel);
    LAUNCH(cuda_of(d), k_up, (unsigned)((tasks + WARPS - 1) / WARPS), THREADS, 0, y, x, t, *w, bias,
           stride, kernel);
}

enum { TAPS = 9, SHORT = 64 };

/* One of the `lanes` parts of the sum of output `task`. */
static __device__ __forceinline__ float conv2d_part(const float *x, size_t task, int h, int w,
                                                    const struct weight *weight, int lane,
                                                    int lanes)
{
    int in = weight->cols / TAPS, ho = (h + 1) / 2, wo = (w + 1) / 2;
    int o = (int)(task % weight->rows);
    size_t pixel = task / weight->rows;
    int col = (int)(pixel % wo), row = (int)(pixel / wo % ho);
    float sum = 0;
    x += pixel / wo / ho * (size_t)h * w * in;
    for (int i = lane; i < weight->cols; i += lanes) {
        int r = 2 * row - 1 + i % 3, q = 2 * col - 1 + i % TAPS / 3;
        if (r >= 0 && r < h && q >= 0 && q < w)
            sum = fmaf(read_weight(weight, (size_t)o, (size_t)i),
                       x[((size_t)r * w + q) * in + i / TAPS], sum);
    }
    return sum;
}

/* y[n, ho, wo, out]; weight [out, in, kernel_w, kernel_h]. A warp an output, or a thread when there
 * is little to sum. */
static __global__ void k_conv2d(float *y, const float *x, size_t tasks, int h, int w,
                                struct weight weight, const float *bias, int lanes)
{
    size_t task = ((size_t)blockIdx.x * THREADS + threadIdx.x) / lanes;
    int lane = threadIdx.x % lanes;
    dependents_start();
    dependency_wait();
    if (task >= tasks)
        return;
    float sum = conv2d_part(x, task, h, w, &weight, lane, lanes);
    if (lanes > 1)
        sum = warp_sum(sum);
    if (lane == 0)
        y[task] = gelu(sum + (bias != NULL ? bias[task % weight.rows] : 0));
}

enum { PIXELS = 16 };

/* One channel in: a block takes some pixels, a thread the weights of one channel out at a time. */
static __global__ void k_conv2d_one(float *y, const float *x, int pixels, int h, int w,
                                    struct weight weight, const float *bias)
{
    __shared__ float seen[PIXELS][TAPS];
    int ho = (h + 1) / 2, wo = (w + 1) / 2, first = blockIdx.x * PIXELS;
    dependents_start();
    dependency_wait();
    for (int i = threadIdx.x; i < PIXELS * TAPS; i += THREADS) {
        int pixel = first + i / TAPS, tap = i % TAPS;
        int r = 2 * (pixel / wo % ho) - 1 + tap % 3, q = 2 * (pixel % wo) - 1 + tap / 3;
        bool inside = pixel < pixels && r >= 0 && r < h && q >= 0 && q < w;
        seen[i / TAPS][tap] = inside ? x[((size_t)(pixel / wo / ho) * h + r) * w + q] : 0;
    }
    __syncthreads();
    for (int o = threadIdx.x; o < weight.rows; o += THREADS) {
        float k[TAPS], start = bias != NULL ? bias[o] : 0;
#pragma unroll
        for (int i = 0; i < TAPS; i++)
            k[i] = read_weight(&weight, (size_t)o, (size_t)i);
        for (int p = 0; p < PIXELS && first + p < pixels; p++) {
            float sum = 0;
#pragma unroll
            for (int i = 0; i < TAPS; i++)
                sum = fmaf(k[i], seen[p][i], sum);
            y[(size_t)(first + p) * weight.rows + o] = gelu(sum + start);
        }
    }
}

void cuda_conv2d_any(struct device *d, float *y, const float *x, int n, int h, int w,
                     const struct weight *weight, const float *bias)
{
    int pixels = n * ((h + 1) / 2) * ((w + 1) / 2);
    if (weight->cols == TAPS) {
        LAUNCH(cuda_of(d), k_conv2d_one, (unsigned)div_up(pixels, PIXELS), THREADS, 0, y, x, pixels,
               h, w, *weight, bias);
        return;
    }
    size_t tasks = (size_t)pixels * weight->rows;
    int lanes = weight->cols <= SHORT ? 1 : WARP;
    LAUNCH(cuda_of(d), k_conv2d, (unsigned)((tasks * lanes + THREADS - 1) / THREADS), THREADS, 0, y,
           x, tasks, h, w, *weight, bias, lanes);
}
