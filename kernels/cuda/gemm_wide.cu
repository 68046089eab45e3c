/*
 * kernels/cuda/gemm_wide.cu - products of more than 16 rows of x with matrices of many rows.
 *
 * Here it is not weights alone that cost, but reading x again for every few rows of them. So a
 * block takes 128 rows of weights, 16 a warp, and up to 64 of x, which all its warps share: each
 * step of 32 columns is made into operands once, in shared memory, in the order in which lanes want
 * them, while the step before is being multiplied. What would leave multiprocessors idle is cut
 * along the columns; then the parts go to memory and a second kernel adds them up in order.
 */
#include "kernels/cuda/gemm.cuh"

#include "kernels/cuda/mma.cuh"

enum {
    WARPS = 8,
    THREADS = WARPS * WARP,
    TALL = WARPS * TILE_M,
    AHEAD = 4,
    PARTS_MOST = 16,
    STEPS_LEAST = 4, /* of a part */
};

/* Operands of one step: [tile of 8 rows of x][high, low][lane]. */
template <int NT> struct operands {
    uint4 at[NT][2][WARP];
};

template <enum dtype T, int NT>
static __device__ __forceinline__ void place(struct operands<NT> *o, const float4 b[2])
{
    int row = threadIdx.x / 4, lane = row % TILE_N * 4 + threadIdx.x % 4;
    struct operand x = make_operand<T, true>(b[0], b[1]);
    o->at[row / TILE_N][0][lane] = make_uint4(x.high[0], x.high[1], x.high[2], x.high[3]);
    o->at[row / TILE_N][1][lane] = make_uint4(x.low[0], x.low[1], x.low[2], x.low[3]);
}

template <enum dtype T, int NT>
static __device__ __forceinline__ void multiply_step(float c[NT][4], const struct operands<NT> *o,
                                                     uint4 upper, uint4 lower, int lane)
{
#pragma unroll
    for (int n = 0; n < NT; n++) {
        uint4 h = o->at[n][0][lane], l = o->at[n][1][lane];
        struct operand b = {{h.x, h.y, h.z, h.w}, {l.x, l.y, l.z, l.w}};
        multiply<T, true>(c[n], upper, lower, &b);
    }
}

static __device__ __forceinline__ void finish(const struct gemm *g, int t, int r, float v)
{
    float *y = g->y + (size_t)t * g->rows + r;
    v = activate(v + (g->bias != NULL ? g->bias[r % g->bias_rows] : 0), g->flags);
    if (g->scale != NULL)
        v *= g->scale[r];
    *y = g->flags & LINEAR_ADD ? *y + v : v;
}

/* Block (rows of weights, rows of x, part of the columns); parts[part][n][rows], NULL = to y. */
template <enum dtype T, int NT>
static __global__ void __launch_bounds__(THREADS, 2) k_wide(struct gemm g, float *parts)
{
    __shared__ struct operands<NT> o[2];
    int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, t = blockIdx.y * NT * TILE_N;
    int row = blockIdx.x * TALL + warp * TILE_M, steps = g.cols / STEP, z = blockIdx.z;
    int first = steps * z / (int)gridDim.z, count = steps * (z + 1) / (int)gridDim.z - first;
    const char *upper = (const char *)g.w +
                        ((size_t)min(row + lane / 4, g.rows - 1) * g.cols + lane % 4 * UNIT) * 2;
    const char *lower =
        (const char *)g.w +
        ((size_t)min(row + 8 + lane / 4, g.rows - 1) * g.cols + lane % 4 * UNIT) * 2;
    int mine = min(t + (int)threadIdx.x / 4, g.n - 1);
    bool loads = threadIdx.x < NT * TILE_N * 4;
    const float *x =
        g.x + mine / g.per * g.pitch_outer + mine % g.per * g.pitch + threadIdx.x % 4 * UNIT;
    float c[NT][4] = {};
    uint4 w[AHEAD][2];
    float4 b[2];
#pragma unroll
    for (int s = 0; s < AHEAD; s++)
        if (s < count) {
            w[s][0] = fetch_unit((const uint4 *)(upper + (first + s) * STEP * 2));
            w[s][1] = fetch_unit((const uint4 *)(lower + (first + s) * STEP * 2));
        }
    dependents_start();
    dependency_wait();
    if (loads) {
        const float4 *p = (const float4 *)(x + first * STEP);
        b[0] = p[0];
        b[1] = p[1];
    }
    for (int from = 0; from < count; from += AHEAD) {
#pragma unroll
        for (int s = 0; s < AHEAD; s++) {
            int step = from + s;
            if (step >= count)
                break;
            if (loads)
                place<T, NT>(&o[s % 2], b);
            __syncthreads();
            if (loads && step + 1 < count) {
                const float4 *p = (const float4 *)(x + (first + step + 1) * STEP);
                b[0] = p[0];
                b[1] = p[1];
            }
            multiply_step<T, NT>(c, &o[s % 2], w[s][0], w[s][1], lane);
            if (step + AHEAD < count) {
                w[s][0] = fetch_unit((const uint4 *)(upper + (first + step + AHEAD) * STEP * 2));
                w[s][1] = fetch_unit((const uint4 *)(lower + (first + step + AHEAD) * STEP * 2));
            }
        }
    }
#pragma unroll
    for (int n = 0; n < NT; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int r = row + lane / 4 + i / 2 * 8, at = t + n * TILE_N + lane % 4 * 2 + i % 2;
            if (r >= g.rows || at >= g.n)
                continue;
            if (parts == NULL)
                finish(&g, at, r, c[n][i]);
            else
                parts[((size_t)z * g.n + at) * g.rows + r] = c[n][i];
        }
}

static __global__ void k_add_parts(struct gemm g, const float *parts, int count)
{
    size_t i = (size_t)blockIdx.x * THREADS + threadIdx.x, all = (size_t)g.n * g.rows;
    dependents_start();
    dependency_wait();
    if (i >= all)
        return;
    float sum = 0;
#pragma unroll 4
    for (int p = 0; p < count; p++)
        sum += parts[p * all + i];
    finish(&g, (int)(i / g.rows), (int)(i % g.rows), sum);
}

template <enum dtype T, int NT> static void start(struct cuda *c, const struct gemm *g)
{
    int tall = div_up(g->rows, TALL), wide = div_up(g->n, NT * TILE_N), steps = g->cols / STEP;
    int parts = at_most(at_most(PARTS_MOST, at_least(1, steps / STEPS_LEAST)),
                        at_least(1, 2 * c->sms / (tall * wide)));
    size_t all = (size_t)g->n * g->rows;
    dim3 grid((unsigned)tall, (unsigned)wide, (unsigned)parts);
    float *sums = NULL;
    if (parts > 1)
        sums = (float *)cuda_scratch(c, parts * all * sizeof(float));
    LAUNCH(c, (k_wide<T, NT>), grid, THREADS, 0, *g, sums);
    if (parts > 1)
        LAUNCH(c, k_add_parts, (unsigned)((all + THREADS - 1) / THREADS), THREADS, 0, *g, sums,
               parts);
}

template <enum dtype T> static void choose(struct cuda *c, const struct gemm *g)
{
    if (g->n <= 4 * TILE_N)
        start<T, 4>(c, g);
    else
        start<T, 8>(c, g);
}

bool cuda_gemm_wide(struct cuda *c, const struct gemm *g)
{
    if (g->n <= 2 * TILE_N || g->rows < 4 * TALL || g->in < g->cols)
        return false;
    if (g->type == DT_BF16)
        choose<DT_BF16>(c, g);
    else
        choose<DT_F16>(c, g);
    return true;
}
