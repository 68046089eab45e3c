/*
 * kernels/cuda/moe_many.cu - a mixture of experts for many rows: every expert's weights are read
 * once.
 *
 *     k_group   slots (row, choice) sorted by expert
 *     k_up      a block: one expert, 16 rows of its gate and up; h[slot] = silu(gate x) * (up x)
 *     k_down    a block: one expert, 32 rows of its down; out[slot] = weight * down h[slot]
 *     k_sum     y[row] += out of its slots, in the order of the choices
 *
 * The eight warps of a block share out the columns, as in gemm.cu.
 */
#include "kernels/cuda/moe.cuh"

#include "kernels/cuda/mma.cuh"

enum {
    WARPS = 8,
    THREADS = WARPS * WARP,
    NT = 4,                /* tiles of 8 slots at once */
    SLOTS = NT * TILE_N,   /* more of one expert: another round */
    PAIR = 2 * TILE_M,     /* rows of weights in a block */
    STRIDE = PAIR + 1,     /* of sums in shared memory */
    SUMS = SLOTS * STRIDE, /* of a warp */
    GROUP_THREADS = 1024,
    AHEAD = 2,
};

struct many {
    struct regular e;
    int n, k, experts;
    const float *x;       /* [n, hidden] */
    const int32_t *ids;   /* [n, k] */
    const float *weights; /* [n, k] */
    int *first;           /* [experts + 1] places of an expert's slots */
    int *slot;            /* [n * k] by place */
    float *h;             /* [n * k, inner] by slot */
    float *out;           /* [n * k, hidden] by slot */
    float *y;             /* [n, hidden] */
};

static __global__ void __launch_bounds__(GROUP_THREADS) k_group(struct many m)
{
    extern __shared__ int next[];
    int slots = m.n * m.k;
    dependents_start();
    dependency_wait();
    for (int e = threadIdx.x; e <= m.experts; e += GROUP_THREADS)
        next[e] = 0;
    __syncthreads();
    for (int s = threadIdx.x; s < slots; s += GROUP_THREADS)
        atomicAdd(&next[m.ids[s]], 1);
    __syncthreads();
    if (threadIdx.x == 0) {
        int place = 0;
        for (int e = 0; e < m.experts; e++) {
            int rows = next[e];
            m.first[e] = next[e] = place;
            place += rows;
        }
        m.first[m.experts] = place;
    }
    __syncthreads();
    for (int s = threadIdx.x; s < slots; s += GROUP_THREADS)
        m.slot[atomicAdd(&next[m.ids[s]], 1)] = s;
}

/* What a warp works on: two tiles of 16 rows of weights, `count` steps of columns from `first` on.
 */
struct work {
    const char *w[4]; /* this lane's columns of rows g and g + 8 of both tiles */
    const float *x[NT];
    int first, count, tiles;
};

static __device__ __forceinline__ void set_rows(struct work *k, int tile, const char *matrix,
                                                int row, int rows, int cols, int lane)
{
    for (int i = 0; i < 2; i++) {
        int r = min(row + i * (TILE_M / 2) + lane / 4, rows - 1);
        k->w[2 * tile + i] = matrix + ((size_t)r * cols + lane % 4 * UNIT) * 2;
    }
}

/* The sums of all warps' steps, in shared memory: sums[warp][slot][row of weights]. */
template <enum dtype T>
static __device__ __forceinline__ void product(float *sums, const struct work *k, int lane)
{
    float c[2][NT][4] = {};
    uint4 w[AHEAD][4];
#pragma unroll
    for (int s = 0; s < AHEAD; s++)
        for (int i = 0; i < 4 && s < k->count; i++)
            w[s][i] = fetch_unit((const uint4 *)(k->w[i] + (k->first + s) * STEP * 2));
    for (int from = 0; from < k->count; from += AHEAD) {
#pragma unroll
        for (int s = 0; s < AHEAD; s++) {
            int step = from + s;
            if (step >= k->count)
                break;
            uint4 now[4];
            for (int i = 0; i < 4; i++)
                now[i] = w[s][i];
            for (int i = 0; i < 4 && step + AHEAD < k->count; i++)
                w[s][i] =
                    fetch_unit((const uint4 *)(k->w[i] + (k->first + step + AHEAD) * STEP * 2));
#pragma unroll
            for (int n = 0; n < NT; n++) {
                if (n >= k->tiles)
                    break;
                const float4 *p = (const float4 *)(k->x[n] + (k->first + step) * STEP);
                operand<2> b = make_operand<T, 2>(p[0], p[1]);
                multiply<T, 2>(c[0][n], now[0], now[1], &b);
                multiply<T, 2>(c[1][n], now[2], now[3], &b);
            }
        }
    }
#pragma unroll
    for (int m = 0; m < 2; m++)
#pragma unroll
        for (int n = 0; n < NT; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                int r = m * TILE_M + lane / 4 + i / 2 * 8, at = n * TILE_N + lane % 4 * 2 + i % 2;
                sums[threadIdx.x / WARP * SUMS + at * STRIDE + r] = c[m][n][i];
            }
    __syncthreads();
}

static __device__ __forceinline__ float total(const float *sums, int slot, int row)
{
    float v = 0;
    for (int w = 0; w < WARPS; w++)
        v += sums[w * SUMS + slot * STRIDE + row];
    return v;
}

static __device__ __forceinline__ void share(struct work *k, int cols, int warp)
{
    int steps = cols / STEP;
    k->first = steps * warp / WARPS;
    k->count = steps * (warp + 1) / WARPS - k->first;
}

/* This lane's rows of x for the slots of places from `place` on; `each` rows of slots share one. */
static __device__ __forceinline__ void set_slots(struct work *k, const struct many *m,
                                                 const float *x, int cols, int each, int place,
                                                 int end, int lane)
{
    k->tiles = (min(SLOTS, end - place) + TILE_N - 1) / TILE_N;
    for (int n = 0; n < NT; n++) {
        int s = m->slot[min(place + n * TILE_N + lane / 4, end - 1)];
        k->x[n] = x + (size_t)(s / each) * cols + lane % 4 * UNIT;
    }
}

template <enum dtype T> static __global__ void __launch_bounds__(THREADS, 2) k_up(struct many m)
{
    extern __shared__ float sums[];
    int e = blockIdx.y, row = blockIdx.x * TILE_M, lane = threadIdx.x % WARP;
    struct work k;
    dependents_start();
    dependency_wait();
    int end = m.first[e + 1];
    share(&k, m.e.hidden, threadIdx.x / WARP);
    set_rows(&k, 0, m.e.gate + e * m.e.step, row, m.e.inner, m.e.hidden, lane);
    set_rows(&k, 1, m.e.up + e * m.e.step, row, m.e.inner, m.e.hidden, lane);
    for (int place = m.first[e]; place < end; place += SLOTS) {
        set_slots(&k, &m, m.x, m.e.hidden, m.k, place, end, lane);
        product<T>(sums, &k, lane);
        for (int i = threadIdx.x; i < k.tiles * TILE_N * TILE_M; i += THREADS) {
            int at = i / TILE_M, r = i % TILE_M;
            if (place + at < end && row + r < m.e.inner)
                m.h[(size_t)m.slot[place + at] * m.e.inner + row + r] =
                    silu(total(sums, at, r)) * total(sums, at, TILE_M + r);
        }
        __syncthreads();
    }
}

template <enum dtype T> static __global__ void __launch_bounds__(THREADS, 2) k_down(struct many m)
{
    extern __shared__ float sums[];
    int e = blockIdx.y, row = blockIdx.x * PAIR, lane = threadIdx.x % WARP;
    struct work k;
    dependents_start();
    dependency_wait();
    int end = m.first[e + 1];
    share(&k, m.e.inner, threadIdx.x / WARP);
    set_rows(&k, 0, m.e.down + e * m.e.step_down, row, m.e.hidden, m.e.inner, lane);
    set_rows(&k, 1, m.e.down + e * m.e.step_down, row + TILE_M, m.e.hidden, m.e.inner, lane);
    for (int place = m.first[e]; place < end; place += SLOTS) {
        set_slots(&k, &m, m.h, m.e.inner, 1, place, end, lane);
        product<T>(sums, &k, lane);
        for (int i = threadIdx.x; i < k.tiles * TILE_N * PAIR; i += THREADS) {
            int at = i / PAIR, r = i % PAIR;
            if (place + at >= end || row + r >= m.e.hidden)
                continue;
            int s = m.slot[place + at];
            m.out[(size_t)s * m.e.hidden + row + r] = m.weights[s] * total(sums, at, r);
        }
        __syncthreads();
    }
}

static __global__ void k_sum(struct many m)
{
    size_t i = (size_t)blockIdx.x * THREADS + threadIdx.x;
    dependents_start();
    dependency_wait();
    if (i >= (size_t)m.n * m.e.hidden)
        return;
    const float *out = m.out + i / m.e.hidden * m.k * m.e.hidden + i % m.e.hidden;
    float sum = 0;
    for (int j = 0; j < m.k; j++)
        sum += out[(size_t)j * m.e.hidden];
    m.y[i] += sum;
}

template <enum dtype T> static void launch(struct cuda *c, const struct many *m)
{
    size_t sums = (size_t)WARPS * SUMS * sizeof(float);
    dim3 up((unsigned)div_up(m->e.inner, TILE_M), (unsigned)m->experts);
    dim3 down((unsigned)div_up(m->e.hidden, PAIR), (unsigned)m->experts);
    LAUNCH(c, k_group, 1, GROUP_THREADS, (size_t)(m->experts + 1) * sizeof(int), *m);
    LAUNCH(c, k_up<T>, up, THREADS, sums, *m);
    LAUNCH(c, k_down<T>, down, THREADS, sums, *m);
    LAUNCH(c, k_sum, (unsigned)div_up(m->n * m->e.hidden, THREADS), THREADS, 0, *m);
}

void cuda_experts_many(struct device *d, float *y, const float *x, int n, const struct regular *e,
                       int experts, const int32_t *ids, const float *weights, int k)
{
    struct cuda *c = cuda_of(d);
    size_t slots = (size_t)n * k, h = slots * e->inner, out = slots * e->hidden;
    size_t ints = (size_t)experts + 1 + slots;
    struct many m = {};
    m.e = *e;
    m.n = n;
    m.k = k;
    m.experts = experts;
    m.x = x;
    m.ids = ids;
    m.weights = weights;
    m.y = y;
    m.h = (float *)cuda_scratch(c, (h + out) * sizeof(float) + ints * sizeof(int));
    m.out = m.h + h;
    m.first = (int *)(m.out + out);
    m.slot = m.first + experts + 1;
    if (e->type == DT_BF16)
        launch<DT_BF16>(c, &m);
    else
        launch<DT_F16>(c, &m);
}
