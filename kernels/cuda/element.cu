/*
 * kernels/cuda/element.cu - norms, rope, embeddings, copies and everything else that works on
 * single values or rows. One thread a value, or one block a row.
 */
#include "kernels/cuda/math.cuh"

enum { THREADS = 256, ROW_THREADS = 256, COPY_MOST = 1 << 22 };

static unsigned blocks_for(size_t count)
{
    return (unsigned)((count + THREADS - 1) / THREADS);
}

static __device__ __forceinline__ size_t value_index(void)
{
    return (size_t)blockIdx.x * THREADS + threadIdx.x;
}

static __global__ void k_copy(float *y, const float *x, size_t count)
{
    size_t i = value_index();
    dependents_start();
    dependency_wait();
    if (i < count)
        y[i] = x[i];
}

/* Towards lower addresses by `shift` floats: thread i moves i, i + shift, i + 2 shift ... in this
 * order, so that nothing is overwritten before it was read. */
static __global__ void k_slide(float *y, size_t count, size_t shift)
{
    size_t i = value_index();
    dependents_start();
    dependency_wait();
    for (; i < count && value_index() < shift; i += shift)
        y[i] = y[i + shift];
}

/* Towards higher addresses, from the end. */
static __global__ void k_slide_up(float *x, size_t count, size_t shift)
{
    size_t i = value_index();
    dependents_start();
    dependency_wait();
    if (i >= shift || i >= count)
        return;
    for (size_t j = i + (count - 1 - i) / shift * shift;; j -= shift) {
        x[j + shift] = x[j];
        if (j < shift)
            break;
    }
}

void cuda_copy(struct device *d, void *dst, const void *src, size_t bytes)
{
    struct cuda *c = cuda_of(d);
    char *to = (char *)dst;
    const char *from = (const char *)src;
    size_t count = bytes / sizeof(float);
    bool floats = bytes % sizeof(float) == 0 && (size_t)(to - from) % sizeof(float) == 0;
    if (bytes == 0 || to == from)
        return;
    if (to < from && to + bytes > from && floats) {
        size_t shift = (size_t)(from - to) / sizeof(float);
        size_t threads = shift < count ? shift : count;
        LAUNCH(c, k_slide, blocks_for(threads), THREADS, 0, (float *)dst, count, shift);
    } else if (from < to && from + bytes > to && floats) {
        size_t shift = (size_t)(to - from) / sizeof(float);
        size_t threads = shift < count ? shift : count;
        LAUNCH(c, k_slide_up, blocks_for(threads), THREADS, 0, (float *)(uintptr_t)from, count,
               shift);
    } else if (floats && count < COPY_MOST) {
        LAUNCH(c, k_copy, blocks_for(count), THREADS, 0, (float *)dst, (const float *)src, count);
    } else {
        CUDA_MUST(cudaMemcpyAsync(dst, src, bytes, cudaMemcpyDeviceToDevice, c->stream));
    }
}

static __global__ void k_embed(float *y, struct weight table, const int32_t *ids, int add)
{
    size_t row = blockIdx.x;
    dependents_start();
    dependency_wait();
    size_t id = (size_t)ids[row];
    y += row * (size_t)table.cols;
    for (int i = threadIdx.x; i < table.cols; i += blockDim.x) {
        float v = read_weight(&table, id, (size_t)i);
        y[i] = add ? y[i] + v : v;
    }
}

void cuda_embed(struct device *d, float *y, const struct weight *table, const int32_t *ids, int n,
                int add)
{
    LAUNCH(cuda_of(d), k_embed, n, ROW_THREADS, 0, y, *table, ids, add);
}

enum { TABLES = 16 };

struct table_list {
    struct weight table[TABLES];
};

static __global__ void k_embed_sum(float *y, struct table_list t, const int32_t *ids, int count,
                                   int add)
{
    int i = (int)value_index();
    dependents_start();
    dependency_wait();
    if (i >= t.table[0].cols)
        return;
    float sum = add ? y[i] : 0;
    for (int g = 0; g < count; g++)
        sum += read_weight(&t.table[g], (size_t)ids[g], (size_t)i);
    y[i] = sum;
}

void cuda_embed_sum(struct device *d, float *y, const struct weight *const *tables,
                    const int32_t *ids, int count)
{
    struct table_list t;
    unsigned grid = blocks_for((size_t)tables[0]->cols);
    for (int from = 0, n; from < count; from += n) {
        n = at_most(TABLES, count - from);
        for (int i = 0; i < n; i++)
            t.table[i] = *tables[from + i];
        LAUNCH(cuda_of(d), k_embed_sum, grid, THREADS, 0, y, t, ids + from, n, from > 0);
    }
}

static __global__ void k_rms_norm(float *y, const float *x, int dim, const float *w, float eps)
{
    __shared__ float room[WARP];
    dependents_start();
    dependency_wait();
    x += (size_t)blockIdx.x * dim;
    y += (size_t)blockIdx.x * dim;
    float sum = 0;
    for (int i = threadIdx.x; i < dim; i += blockDim.x)
        sum += x[i] * x[i];
    float scale = 1 / sqrtf(block_sum(sum, room) / (float)dim + eps);
    for (int i = threadIdx.x; i < dim; i += blockDim.x)
        y[i] = x[i] * scale * w[i];
}

void cuda_rms_norm(struct device *d, float *y, const float *x, int n, int dim, const float *w,
                   float eps)
{
    LAUNCH(cuda_of(d), k_rms_norm, n, ROW_THREADS, 0, y, x, dim, w, eps);
}

enum { KEPT = 8 }; /* values of a row that a thread keeps; what is beyond them is read again */

static __global__ void __launch_bounds__(ROW_THREADS)
    k_layer_norm(float *y, const float *x, int dim, const float *w, const float *b, float eps)
{
    __shared__ float room[WARP];
    const int rest = KEPT * ROW_THREADS + threadIdx.x;
    float v[KEPT], scales[KEPT], shifts[KEPT], sum = 0, var = 0;
#pragma unroll
    for (int k = 0; k < KEPT; k++) {
        int i = k * ROW_THREADS + threadIdx.x;
        scales[k] = i < dim ? w[i] : 0;
        shifts[k] = i < dim ? b[i] : 0;
    }
    dependents_start();
    dependency_wait();
    x += (size_t)blockIdx.x * dim;
    y += (size_t)blockIdx.x * dim;
#pragma unroll
    for (int k = 0; k < KEPT; k++) {
        int i = k * ROW_THREADS + threadIdx.x;
        v[k] = i < dim ? x[i] : 0;
        sum += v[k];
    }
    for (int i = rest; i < dim; i += ROW_THREADS)
        sum += x[i];
    float mean = block_sum(sum, room) / (float)dim;
#pragma unroll
    for (int k = 0; k < KEPT; k++)
        if (k * ROW_THREADS + (int)threadIdx.x < dim)
            var += (v[k] - mean) * (v[k] - mean);
    for (int i = rest; i < dim; i += ROW_THREADS)
        var += (x[i] - mean) * (x[i] - mean);
    float scale = 1 / sqrtf(block_sum(var, room) / (float)dim + eps);
#pragma unroll
    for (int k = 0; k < KEPT; k++) {
        int i = k * ROW_THREADS + threadIdx.x;
        if (i < dim)
            y[i] = (v[k] - mean) * scale * scales[k] + shifts[k];
    }
    for (int i = rest; i < dim; i += ROW_THREADS)
        y[i] = (x[i] - mean) * scale * w[i] + b[i];
}

void cuda_layer_norm(struct device *d, float *y, const float *x, int n, int dim, const float *w,
                     const float *b, float eps)
{
    LAUNCH(cuda_of(d), k_layer_norm, n, ROW_THREADS, 0, y, x, dim, w, b, eps);
}

/* One warp a head. */
static __global__ void k_norm_rope(float *x, int rows, int heads, int dim, const float *norm,
                                   float eps, const float *inv_freq, const int32_t *pos)
{
    int head = (int)(value_index() / WARP), lane = threadIdx.x % WARP, half = dim / 2;
    dependents_start();
    dependency_wait();
    if (head >= rows * heads)
        return;
    x += (size_t)head * dim;
    float scale = 1;
    if (norm != NULL) {
        float sum = 0;
        for (int i = lane; i < dim; i += WARP)
            sum += x[i] * x[i];
        scale = 1 / sqrtf(warp_sum(sum) / (float)dim + eps);
    }
    float at = (float)(*pos + head / heads);
    for (int i = lane; i < half; i += WARP) {
        float s, c, a = x[i] * scale, b = x[i + half] * scale;
        if (norm != NULL) {
            a *= norm[i];
            b *= norm[i + half];
        }
        sincosf(at * inv_freq[i], &s, &c);
        x[i] = a * c - b * s;
        x[i + half] = b * c + a * s;
    }
    for (int i = 2 * half + lane; i < dim && norm != NULL; i += WARP) /* an odd one is not turned */
        x[i] *= scale * norm[i];
}

void cuda_norm_rope(struct device *d, float *x, int n, int heads, int dim, const float *norm,
                    float eps, const float *inv_freq, const int32_t *pos)
{
    LAUNCH(cuda_of(d), k_norm_rope, blocks_for((size_t)n * heads * WARP), THREADS, 0, x, n, heads,
           dim, norm, eps, inv_freq, pos);
}

static __global__ void k_kv_store(struct kv kv, const float *k, const float *v, int n,
                                  const int32_t *pos)
{
    size_t i = value_index(), width = (size_t)kv.heads * (size_t)kv.dim;
    dependents_start();
    dependency_wait();
    if (i >= (size_t)n * width)
        return;
    size_t row = (size_t)((*pos + (int)(i / width)) % kv.rows) * width + i % width;
    write_element(kv.type, kv.k, row, k[i]);
    write_element(kv.type, kv.v, row, v[i]);
}

void cuda_kv_store(struct device *d, const struct kv *kv, const float *k, const float *v, int n,
                   const int32_t *pos)
{
    size_t count = (size_t)n * kv->heads * kv->dim;
    LAUNCH(cuda_of(d), k_kv_store, blocks_for(count), THREADS, 0, *kv, k, v, n, pos);
}

static __global__ void k_silu_mul(float *gate, const float *up, size_t count)
{
    size_t i = value_index();
    dependents_start();
    dependency_wait();
    if (i < count)
        gate[i] = silu(gate[i]) * up[i];
}

void cuda_silu_mul(struct device *d, float *gate, const float *up, size_t count)
{
    LAUNCH(cuda_of(d), k_silu_mul, blocks_for(count), THREADS, 0, gate, up, count);
}

static __global__ void k_add(float *y, const float *x, size_t count)
{
    size_t i = value_index();
    dependents_start();
    dependency_wait();
    if (i < count)
        y[i] += x[i];
}

void cuda_add(struct device *d, float *y, const float *x, size_t count)
{
    LAUNCH(cuda_of(d), k_add, blocks_for(count), THREADS, 0, y, x, count);
}

static __global__ void k_scale_add(float *y, const float *x, size_t count, int dim,
                                   const float *scale)
{
    size_t i = value_index();
    dependents_start();
    dependency_wait();
    if (i < count)
        y[i] += scale[i % (size_t)dim] * x[i];
}

void cuda_scale_add(struct device *d, float *y, const float *x, int n, int dim, const float *scale)
{
    size_t count = (size_t)n * dim;
    LAUNCH(cuda_of(d), k_scale_add, blocks_for(count), THREADS, 0, y, x, count, dim, scale);
}

static __global__ void k_gate_add(float *y, const float *x, size_t count, int dim,
                                  const float *gate)
{
    size_t i = value_index();
    dependents_start();
    dependency_wait();
    if (i < count)
        y[i] += x[i] / (1 + expf(-gate[i / (size_t)dim]));
}

void cuda_gate_add(struct device *d, float *y, const float *x, int n, int dim, const float *gate)
{
    size_t count = (size_t)n * dim;
    LAUNCH(cuda_of(d), k_gate_add, blocks_for(count), THREADS, 0, y, x, count, dim, gate);
}

enum { TILE = 32, TILE_ROWS = 8 };

/* Block (x, y, z) turns the tile of columns x, rows y of matrix z through shared memory. */
static __global__ void k_transpose(float *y, const float *x, int rows, int cols)
{
    __shared__ float tile[TILE][TILE + 1];
    size_t matrix = (size_t)blockIdx.z * rows * cols;
    dependents_start();
    dependency_wait();
    for (int i = threadIdx.y; i < TILE; i += TILE_ROWS) {
        int r = blockIdx.y * TILE + i, col = blockIdx.x * TILE + threadIdx.x;
        if (r < rows && col < cols)
            tile[i][threadIdx.x] = x[matrix + (size_t)r * cols + col];
    }
    __syncthreads();
    for (int i = threadIdx.y; i < TILE; i += TILE_ROWS) {
        int r = blockIdx.y * TILE + threadIdx.x, col = blockIdx.x * TILE + i;
        if (r < rows && col < cols)
            y[matrix + (size_t)col * rows + r] = tile[threadIdx.x][i];
    }
}

void cuda_transpose(struct device *d, float *y, const float *x, int batch, int rows, int cols)
{
    dim3 grid((unsigned)div_up(cols, TILE), (unsigned)div_up(rows, TILE), (unsigned)batch);
    LAUNCH(cuda_of(d), k_transpose, grid, dim3(TILE, TILE_ROWS), 0, y, x, rows, cols);
}

static __global__ void k_snake(float *y, const float *x, size_t count, int channels,
                               const float *alpha, const float *inv_beta)
{
    size_t i = value_index();
    dependents_start();
    dependency_wait();
    if (i >= count)
        return;
    size_t ch = i % (size_t)channels;
    float s = sinf(x[i] * alpha[ch]);
    y[i] = x[i] + s * s * inv_beta[ch];
}

void cuda_snake(struct device *d, float *y, const float *x, int t, int channels, const float *alpha,
                const float *inv_beta)
{
    size_t count = (size_t)t * channels;
    LAUNCH(cuda_of(d), k_snake, blocks_for(count), THREADS, 0, y, x, count, channels, alpha,
           inv_beta);
}

static __global__ void k_depthwise(float *y, const float *x, size_t count, int channels,
                                   const float *w, const float *bias, int kernel)
{
    size_t i = value_index();
    dependents_start();
    dependency_wait();
    if (i >= count)
        return;
    size_t ch = i % (size_t)channels;
    float sum = bias != NULL ? bias[ch] : 0;
    const float *tap = x + i - (size_t)(kernel - 1) * channels;
    for (int j = 0; j < kernel; j++, tap += channels)
        sum += w[ch * (size_t)kernel + (size_t)j] * *tap;
    y[i] = sum;
}

void cuda_conv1d_depthwise(struct device *d, float *y, const float *x, int t, int channels,
                           const float *w, const float *bias, int kernel)
{
    size_t count = (size_t)t * channels;
    LAUNCH(cuda_of(d), k_depthwise, blocks_for(count), THREADS, 0, y, x, count, channels, w, bias,
           kernel);
}

static __global__ void k_advance(int32_t *pos, int n)
{
    dependency_wait(); /* and the next kernel begins when this one has ended: cuda.h */
    *pos += n;
}

void cuda_advance(struct device *d, int32_t *pos, int n)
{
    LAUNCH(cuda_of(d), k_advance, 1, 1, 0, pos, n);
}
