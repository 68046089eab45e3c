/*
 * kernels/cuda/gemm.cu - products of many rows on the tensor cores.
 *
 * A block takes 16 or 32 rows of weights and up to 32 of x; its eight warps share out the columns
 * and add up in shared memory at the end. So every weight is read by one warp of each block row,
 * straight from memory, and even a matrix of a few hundred rows keeps many multiprocessors busy.
 */
#include "kernels/cuda/gemm.cuh"

#include "kernels/cuda/mma.cuh"

enum { WARPS = 8, THREADS = WARPS * WARP, AHEAD = 2 };

/* Where this lane reads: rows g and g + 8 of each tile; rows beyond the end repeat the last one. */
template <int MT>
static __device__ __forceinline__ void weight_rows(const char *w[2 * MT], const struct gemm *g,
                                                   int row, int lane)
{
    for (int i = 0; i < 2 * MT; i++) {
        int r = min(row + i * (TILE_M / 2) + lane / 4, g->rows - 1);
        w[i] = (const char *)g->w + ((size_t)r * g->cols + lane % 4 * UNIT) * 2;
    }
}

static __device__ __forceinline__ long tap_offset(const struct gemm *g, int k)
{
    int tap = k / g->in;
    return tap / g->taps_per * g->tap_outer + tap % g->taps_per * g->tap + k % g->in;
}

/* Column steps of this warp: from *first on, *count of them. */
static __device__ __forceinline__ void share_steps(int steps, int warp, int *first, int *count)
{
    *first = steps * warp / WARPS;
    *count = steps * (warp + 1) / WARPS - *first;
}

/* The warps' sums, added up in order, to y. sums[warp][x row][16 MT + 1] */
template <int MT, int NT>
static __device__ __forceinline__ void add_up(const struct gemm *g, const float *sums, int row,
                                              int t)
{
    const int tall = MT * TILE_M, stride = NT * TILE_N * (tall + 1);
    for (int i = threadIdx.x; i < NT * TILE_N * tall; i += THREADS) {
        int r = row + i % tall, at = t + i / tall;
        if (r >= g->rows || at >= g->n)
            continue;
        const float *from = sums + i / tall * (tall + 1) + i % tall;
        float v = g->bias != NULL ? g->bias[r % g->bias_rows] : 0;
        for (int w = 0; w < WARPS; w++)
            v += from[w * stride];
        v = activate(v, g->flags);
        float *y = g->y + (size_t)at * g->rows + r;
        if (g->scale != NULL)
            v *= g->scale[r];
        *y = g->flags & LINEAR_ADD ? *y + v : v;
    }
}

template <int MT, int NT>
static __device__ __forceinline__ void keep_sums(float *sums, const float c[MT][NT][4], int warp,
                                                 int lane)
{
    const int tall = MT * TILE_M;
    sums += warp * NT * TILE_N * (tall + 1);
#pragma unroll
    for (int m = 0; m < MT; m++)
#pragma unroll
        for (int n = 0; n < NT; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                int r = m * TILE_M + lane / 4 + i / 2 * 8, t = n * TILE_N + lane % 4 * 2 + i % 2;
                sums[t * (tall + 1) + r] = c[m][n][i];
            }
}

template <int MT>
static __device__ __forceinline__ void fetch_weights(uint4 w[2 * MT],
                                                     const char *const rows[2 * MT], int step)
{
#pragma unroll
    for (int i = 0; i < 2 * MT; i++)
        w[i] = fetch_unit((const uint4 *)(rows[i] + step * STEP * 2));
}

/* This lane's columns of one step of a row of x: 32 bytes, or 16 that are an operand already. */
template <enum gemm_x X>
static __device__ __forceinline__ void fetch_row(float4 b[2], const char *x)
{
    b[0] = *(const float4 *)x;
    if (X != X_NARROW)
        b[1] = *(const float4 *)(x + sizeof(float4));
}

/* Parts of x. */
static __host__ __device__ constexpr int parts_of(enum gemm_x how)
{
    return how == X_EXACT ? 3 : how == X_SPLIT ? 2 : 1;
}

template <enum dtype T, enum gemm_x X>
static __device__ __forceinline__ operand<parts_of(X)> operand_of(const float4 b[2])
{
    operand<parts_of(X)> o;
    if (X != X_NARROW)
        return make_operand<T, parts_of(X)>(b[0], b[1]);
    o.part[0][0] = __float_as_uint(b[0].x);
    o.part[0][1] = __float_as_uint(b[0].y);
    o.part[0][2] = __float_as_uint(b[0].z);
    o.part[0][3] = __float_as_uint(b[0].w);
    return o;
}

/* A block: 16 MT rows of weights, 8 NT rows of x. Weights are fetched AHEAD steps before they are
 * used, rows of x one step. */
template <enum dtype T, int MT, int NT, enum gemm_x X>
static __global__ void __launch_bounds__(THREADS, 2) k_gemm(struct gemm g)
{
    extern __shared__ float sums[];
    int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    int row = blockIdx.x * MT * TILE_M, t = blockIdx.y * NT * TILE_N, first, count;
    const char *rows[2 * MT];
    const int size = X == X_NARROW ? 2 : sizeof(float);
    const char *x[NT];
    float c[MT][NT][4] = {};
    uint4 w[AHEAD][2 * MT];
    float4 next[NT][2];
    weight_rows<MT>(rows, &g, row, lane);
    share_steps(g.cols / STEP, warp, &first, &count);
#pragma unroll
    for (int n = 0; n < NT; n++) {
        int at = min(t + n * TILE_N + lane / 4, g.n - 1);
        x[n] = (const char *)g.x +
               (at / g.per * g.pitch_outer + at % g.per * g.pitch + lane % 4 * UNIT) * size;
    }
#pragma unroll
    for (int s = 0; s < AHEAD; s++)
        if (s < count)
            fetch_weights<MT>(w[s], rows, first + s);
    dependents_start();
    dependency_wait();
#pragma unroll
    for (int n = 0; n < NT && count > 0; n++)
        fetch_row<X>(next[n], x[n] + tap_offset(&g, first * STEP) * size);
    for (int from = 0; from < count; from += AHEAD) {
#pragma unroll
        for (int s = 0; s < AHEAD; s++) {
            int step = from + s;
            if (step >= count)
                break;
            bool more = step + 1 < count;
            long offset = more ? tap_offset(&g, (first + step + 1) * STEP) : 0;
#pragma unroll
            for (int n = 0; n < NT; n++) {
                operand<parts_of(X)> o = operand_of<T, X>(next[n]);
                if (more)
                    fetch_row<X>(next[n], x[n] + offset * size);
#pragma unroll
                for (int m = 0; m < MT; m++)
                    multiply<T, parts_of(X)>(c[m][n], w[s][2 * m], w[s][2 * m + 1], &o);
            }
            if (step + AHEAD < count)
                fetch_weights<MT>(w[s], rows, first + step + AHEAD);
        }
    }
    keep_sums<MT, NT>(sums, c, warp, lane);
    __syncthreads();
    add_up<MT, NT>(&g, sums, row, t);
}

template <enum dtype T, int MT, int NT, enum gemm_x X>
static void start(struct cuda *c, const struct gemm *g)
{
    dim3 grid((unsigned)div_up(g->rows, MT * TILE_M), (unsigned)div_up(g->n, NT * TILE_N));
    size_t smem = (size_t)WARPS * NT * TILE_N * (MT * TILE_M + 1) * sizeof(float);
    LAUNCH(c, (k_gemm<T, MT, NT, X>), grid, THREADS, smem, *g);
}

/* Tiles as large as leave a block for every multiprocessor. */
template <enum dtype T, enum gemm_x X> static void choose(struct cuda *c, const struct gemm *g)
{
    int tiles = div_up(g->n, TILE_N), tall = div_up(g->rows, 2 * TILE_M);
    int nt = tiles > 2 ? 4 : tiles;
    while (nt > 1 && tall * div_up(tiles, nt) < c->sms)
        nt /= 2;
    bool two = tall * div_up(tiles, nt) >= c->sms;
    if (nt == 4)
        start<T, 2, 4, X>(c, g);
    else if (nt == 2)
        start<T, 2, 2, X>(c, g);
    else if (two)
        start<T, 2, 1, X>(c, g);
    else
        start<T, 1, 1, X>(c, g);
}

template <enum dtype T> static void by_x(struct cuda *c, const struct gemm *g, enum gemm_x how)
{
    if (how == X_EXACT)
        choose<T, X_EXACT>(c, g);
    else if (how == X_SPLIT)
        choose<T, X_SPLIT>(c, g);
    else if (how == X_ROUND)
        choose<T, X_ROUND>(c, g);
    else
        choose<T, X_NARROW>(c, g);
}

void cuda_gemm(struct cuda *c, const struct gemm *g, enum gemm_x how)
{
    if (g->type == DT_BF16)
        by_x<DT_BF16>(c, g, how);
    else
        by_x<DT_F16>(c, g, how);
}

void cuda_linear_many(struct device *d, float *y, const float *x, int n, const struct weight *w,
                      const float *bias, const float *scale, unsigned flags)
{
    bool narrow = w->type == DT_BF16 || w->type == DT_F16;
    bool exact = flags & LINEAR_EXACT;
    if (cuda_linears_wide(cuda_of(d), &y, x, n, &w, &bias, scale, 1, flags))
        return;
    if (!narrow || w->cols % STEP != 0 || (uintptr_t)w->data % sizeof(uint4) != 0 ||
        (uintptr_t)x % sizeof(float4) != 0) {
        cuda_linear_any(d, y, x, n, w, bias, scale, flags);
        return;
    }
    struct gemm g = {};
    g.w = w->data;
    g.type = w->type;
    g.rows = w->rows;
    g.cols = g.in = w->cols;
    g.x = x;
    g.n = n;
    g.per = g.taps_per = 1 << 30;
    g.pitch = w->cols;
    g.y = y;
    g.bias = bias;
    g.bias_rows = w->rows;
    g.scale = scale;
    g.flags = flags;
    cuda_gemm(cuda_of(d), &g, exact ? X_EXACT : X_SPLIT);
}

void cuda_linears(struct device *d, float *const *y, const float *x, int n,
                  const struct weight *const *w, const float *const *bias, int count,
                  unsigned flags)
{
    if (!cuda_linears_wide(cuda_of(d), y, x, n, w, bias, NULL, count, flags))
        compose_linears(d, y, x, n, w, bias, count, flags);
}
