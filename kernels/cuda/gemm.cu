/*
 * kernels/cuda/gemm.cu - products of many rows on the tensor cores.
 *
 * A block takes 32 rows of weights and up to 64 of x; its eight warps share out the columns and add
 * up in shared memory at the end. So every weight is read by one warp of each block row, straight
 * from memory, and even a matrix of a few hundred rows keeps many multiprocessors busy.
 */
#include "kernels/cuda/gemm.cuh"

#include "kernels/cuda/mma.cuh"

enum { WARPS = 8, THREADS = WARPS * WARP, MT = 2, BLOCK_M = MT * TILE_M, AHEAD = 2 };

struct lane_rows {
    const char *w[2 * MT]; /* this lane's columns of its rows of weights */
};

/* Where this lane reads: rows g and g + 8 of each tile; rows beyond the end repeat the last one. */
static __device__ __forceinline__ struct lane_rows weight_rows(const struct gemm *g, int row,
                                                               int lane)
{
    struct lane_rows l;
    for (int i = 0; i < 2 * MT; i++) {
        int r = min(row + i * (TILE_M / 2) + lane / 4, g->rows - 1);
        l.w[i] = (const char *)g->w + ((size_t)r * g->cols + lane % 4 * UNIT) * 2;
    }
    return l;
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

/* The warps' sums, added up in order, to y. sums[warp][x row][BLOCK_M + 1] */
template <int NT>
static __device__ __forceinline__ void add_up(const struct gemm *g, const float *sums, int row,
                                              int t)
{
    const int stride = NT * TILE_N * (BLOCK_M + 1);
    for (int i = threadIdx.x; i < NT * TILE_N * BLOCK_M; i += THREADS) {
        int r = row + i % BLOCK_M, at = t + i / BLOCK_M;
        if (r >= g->rows || at >= g->n)
            continue;
        const float *from = sums + i / BLOCK_M * (BLOCK_M + 1) + i % BLOCK_M;
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

template <int NT>
static __device__ __forceinline__ void keep_sums(float *sums, const float c[MT][NT][4], int warp,
                                                 int lane)
{
    sums += warp * NT * TILE_N * (BLOCK_M + 1);
    for (int m = 0; m < MT; m++)
        for (int n = 0; n < NT; n++)
            for (int i = 0; i < 4; i++) {
                int r = m * TILE_M + lane / 4 + i / 2 * 8, t = n * TILE_N + lane % 4 * 2 + i % 2;
                sums[t * (BLOCK_M + 1) + r] = c[m][n][i];
            }
}

template <enum dtype T, int NT, bool SPLIT>
static __global__ void __launch_bounds__(THREADS, 2) k_gemm(struct gemm g)
{
    extern __shared__ float sums[];
    int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    int row = blockIdx.x * BLOCK_M, t = blockIdx.y * NT * TILE_N, first, count;
    struct lane_rows l = weight_rows(&g, row, lane);
    const float *x[NT];
    float c[MT][NT][4] = {};
    uint4 w[AHEAD][2 * MT];
    share_steps(g.cols / STEP, warp, &first, &count);
    for (int n = 0; n < NT; n++) {
        int at = min(t + n * TILE_N + lane / 4, g.n - 1);
        x[n] = g.x + at / g.per * g.pitch_outer + at % g.per * g.pitch + lane % 4 * UNIT;
    }
#pragma unroll
    for (int s = 0; s < AHEAD; s++)
        for (int i = 0; i < 2 * MT; i++)
            if (s < count)
                w[s][i] = fetch_unit((const uint4 *)(l.w[i] + (first + s) * STEP * 2));
    dependents_start();
    dependency_wait();
    for (int from = 0; from < count; from += AHEAD) {
#pragma unroll
        for (int s = 0; s < AHEAD; s++) {
            int step = from + s;
            if (step >= count)
                break;
            uint4 now[2 * MT];
            for (int i = 0; i < 2 * MT; i++)
                now[i] = w[s][i];
            for (int i = 0; i < 2 * MT && step + AHEAD < count; i++)
                w[s][i] = fetch_unit((const uint4 *)(l.w[i] + (first + step + AHEAD) * STEP * 2));
            long offset = tap_offset(&g, (first + step) * STEP);
#pragma unroll
            for (int n = 0; n < NT; n++) {
                const float4 *p = (const float4 *)(x[n] + offset);
                struct operand b = make_operand<T, SPLIT>(p[0], p[1]);
                for (int m = 0; m < MT; m++)
                    multiply<T, SPLIT>(c[m][n], now[2 * m], now[2 * m + 1], &b);
            }
        }
    }
    keep_sums<NT>(sums, c, warp, lane);
    __syncthreads();
    add_up<NT>(&g, sums, row, t);
}

template <enum dtype T, int NT, bool SPLIT> static void start(struct cuda *c, const struct gemm *g)
{
    dim3 grid((unsigned)div_up(g->rows, BLOCK_M), (unsigned)div_up(g->n, NT * TILE_N));
    size_t smem = (size_t)WARPS * NT * TILE_N * (BLOCK_M + 1) * sizeof(float);
    if (smem > 48 * 1024)
        CUDA_MUST(cudaFuncSetAttribute((k_gemm<T, NT, SPLIT>),
                                       cudaFuncAttributeMaxDynamicSharedMemorySize, (int)smem));
    LAUNCH(c, (k_gemm<T, NT, SPLIT>), grid, THREADS, smem, *g);
}

template <enum dtype T, bool SPLIT> static void choose(struct cuda *c, const struct gemm *g)
{
    if (g->n <= TILE_N)
        start<T, 1, SPLIT>(c, g);
    else if (g->n <= 2 * TILE_N)
        start<T, 2, SPLIT>(c, g);
    else if (g->n <= 4 * TILE_N)
        start<T, 4, SPLIT>(c, g);
    else
        start<T, 8, SPLIT>(c, g);
}

void cuda_gemm(struct cuda *c, const struct gemm *g, bool split)
{
    if (g->type == DT_BF16 && split)
        choose<DT_BF16, true>(c, g);
    else if (g->type == DT_BF16)
        choose<DT_BF16, false>(c, g);
    else if (split)
        choose<DT_F16, true>(c, g);
    else
        choose<DT_F16, false>(c, g);
}

void cuda_linear_many(struct device *d, float *y, const float *x, int n, const struct weight *w,
                      const float *bias, const float *scale, unsigned flags)
{
    bool narrow = w->type == DT_BF16 || w->type == DT_F16;
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
    cuda_gemm(cuda_of(d), &g, true);
}
