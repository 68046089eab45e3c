/*
 * kernels/cuda/gemm_wide.cu - products of more than 8 rows of x with matrices of many rows, up to
 * three matrices over the same x in one launch.
 *
 * Here it is not weights alone that cost, but reading x again for every few rows of them. So a
 * block takes many rows of weights and up to 64 of x, which come to shared memory two steps of 32
 * columns at a time, in the order in which lanes want them, while the chunk before is being
 * multiplied; x is made into operands where it lies. What would leave multiprocessors idle is cut
 * along the columns: the blocks of a cluster take a part each and then a share of the sums, which
 * they read from each other's shared memory, always in the same order.
 */
#include "kernels/cuda/gemm.cuh"

#include "kernels/cuda/mma.cuh"

enum {
    WARPS = 8,
    THREADS = WARPS * WARP,
    ROW_WARPS = 4, /* share out the rows of weights, 32 each; the other two the rows of x: */
    GROUPS = 4,    /* of 8 rows of weights a warp */
    TALL = ROW_WARPS * GROUPS * 8,
    TILES = 4, /* of 16 rows of x in a block, */
    MINE = 2,  /* so many for a warp */
    WIDE = TILES * TILE_M,
    STEPS = 2,                   /* of a chunk */
    CHUNKS = 3,                  /* that have room: one being multiplied, two on their way */
    UNITS = STEPS * STEP / UNIT, /* of a row of weights in a chunk */
    COPIES = TALL * UNITS / THREADS,
    PARTS_MOST = 16,  /* of the columns: blocks of a cluster, if so many can be had, */
    STEPS_LEAST = 2,  /* each of so many steps */
    ROWS_LEAST = 512, /* of a matrix */
    PITCH = TALL + 8, /* of the sums of a row of x: no two lanes in one bank */
};

struct chunk {
    uint4 w[STEPS][TALL / 8][WARP]; /* [step][8 rows][lane] */
    uint4 x[STEPS][TILES][4][WARP]; /* [step][16 rows][operand][lane] */
};

/* Shared memory; at the end its beginning is sums[WIDE][PITCH]. */
struct room {
    struct chunk chunk[CHUNKS];
};

struct wide {
    const void *w[LINEARS_MOST]; /* [rows, cols], 16 bits, aligned to 16 bytes */
    float *y[LINEARS_MOST];
    const float *bias[LINEARS_MOST]; /* NULL = none */
    int rows[LINEARS_MOST];          /* multiples of 4 */
    int tall[LINEARS_MOST];          /* blocks of them */
    int cols, n, tiles;              /* tiles of rows of x in a block */
    const float *x;
    const float *scale;
    unsigned flags;
};

/* What this thread copies: unit threadIdx % 8 of some rows of weights, of both steps; a unit of
 * each fourth row of x in the tile and the step that are the warp's. */
struct source {
    const char *w[COPIES];
    const float *x[4];
};

static __device__ __forceinline__ void copy_weights(struct chunk *c, const struct source *s, int k,
                                                    int steps)
{
    int unit = threadIdx.x % UNITS;
    if (k * STEPS + unit / 4 < steps)
#pragma unroll
        for (int i = 0; i < COPIES; i++) {
            int row = threadIdx.x / UNITS + i * (THREADS / UNITS);
            copy16(&c->w[unit / 4][row / 8][row % 8 * 4 + unit % 4],
                   s->w[i] + k * UNITS * sizeof(uint4));
        }
}

/* `rows` of the warp's 16 rows of x are there. */
static __device__ __forceinline__ void copy_x(struct chunk *c, const struct source *s, int k,
                                              int steps, int rows)
{
    int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, unit = lane % 8;
    if (k * STEPS + warp % STEPS < steps)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int row = lane / 8 + 4 * i;
            if (row < rows)
                copy16(&c->x[warp % STEPS][warp / STEPS][row / 8 * 2 + unit % 2]
                            [row % 8 * 4 + unit / 2],
                       s->x[i] + k * STEPS * STEP);
        }
}

/* 16 rows of x into operands, in their place: rows g and g + 8 of the first 16 columns, of the
 * second, as they are renamed (mma.cuh); then the same of the second part. */
template <enum dtype T> static __device__ __forceinline__ void make_operands(uint4 x[4][WARP])
{
    int lane = threadIdx.x % WARP;
    float4 f[4];
#pragma unroll
    for (int i = 0; i < 4; i++)
        f[i] = *(const float4 *)&x[i][lane];
    operand<2> a = make_operand<T, 2>(f[0], f[1]), b = make_operand<T, 2>(f[2], f[3]);
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const unsigned *u = &a.part[i / 2][i % 2 * 2], *v = &b.part[i / 2][i % 2 * 2];
        x[i][lane] = make_uint4(u[0], v[0], u[1], v[1]);
    }
}

/* One step of this warp: 32 rows of weights, 32 of x. Here x is what mma.cuh calls weights, and the
 * other way round: so neither has to be moved between registers. */
template <enum dtype T>
static __device__ __forceinline__ void
multiply_step(float c[MINE][GROUPS][4], const uint4 w[GROUPS][WARP], const uint4 x[MINE][4][WARP])
{
    int lane = threadIdx.x % WARP;
    uint4 b[GROUPS];
#pragma unroll
    for (int n = 0; n < GROUPS; n++)
        b[n] = w[n][lane];
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int m = 0; m < MINE; m++) {
            uint4 a = x[m][i][lane];
#pragma unroll
            for (int n = 0; n < GROUPS; n++)
                mma<T>(c[m][n], a.x, a.y, a.z, a.w, i % 2 ? b[n].z : b[n].x,
                       i % 2 ? b[n].w : b[n].y);
        }
}

static __device__ __forceinline__ void keep_sums(float *sums, const float c[MINE][GROUPS][4])
{
    int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    int t = warp / ROW_WARPS * MINE * TILE_M + lane / 4;
    int r = warp % ROW_WARPS * GROUPS * 8 + lane % 4 * 2;
#pragma unroll
    for (int m = 0; m < MINE; m++)
#pragma unroll
        for (int n = 0; n < GROUPS; n++)
#pragma unroll
            for (int i = 0; i < 2; i++)
                *(float2 *)&sums[(t + m * TILE_M + 8 * i) * PITCH + r + n * 8] =
                    make_float2(c[m][n][2 * i], c[m][n][2 * i + 1]);
}

/* Until all blocks of the cluster are here, what they wrote to shared memory before may be read. */
static __device__ __forceinline__ void cluster_sync(void)
{
#if __CUDA_ARCH__ >= 900
    __syncwarp();
    asm volatile("barrier.cluster.arrive.release.aligned;\n"
                 "barrier.cluster.wait.acquire.aligned;" ::
                     : "memory");
#endif
}

/* Four floats that lie in the shared memory of another block of the cluster, where p is in ours. */
static __device__ __forceinline__ float4 read_from(const float *p, int rank)
{
    float4 v = make_float4(0, 0, 0, 0);
#if __CUDA_ARCH__ >= 900
    unsigned at = (unsigned)__cvta_generic_to_shared(p);
    asm volatile("{ .reg .u32 a;\n"
                 "mapa.shared::cluster.u32 a, %4, %5;\n"
                 "ld.shared::cluster.v4.f32 {%0,%1,%2,%3}, [a]; }"
                 : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w)
                 : "r"(at), "r"(rank));
#endif
    return v;
}

static __device__ __forceinline__ float finish(const struct wide *g, int m, int r, float v)
{
    v += g->bias[m] != NULL ? g->bias[m][r] : 0;
    return activate_row(v, g->scale, r, g->flags);
}

/* This block's share of the sums of its cluster, from row `row` of matrix m, row t of x on. */
static __device__ __forceinline__ void add_up(const struct wide *g, const float *sums, int m,
                                              int row, int t, int parts)
{
    const int units = TALL / 4;
    int count = min(g->tiles * TILE_M, g->n - t) * units;
    for (int i = blockIdx.z * THREADS + threadIdx.x; i < count; i += parts * THREADS) {
        int at = i / units, r = row + i % units * 4;
        const float *from = sums + at * PITCH + i % units * 4;
        float4 v = make_float4(0, 0, 0, 0), old = v, part[PARTS_MOST];
        if (r >= g->rows[m])
            continue;
        float4 *y = (float4 *)(g->y[m] + (size_t)(t + at) * g->rows[m] + r);
        if (g->flags & LINEAR_ADD)
            old = *y;
#pragma unroll
        for (int p = 0; p < PARTS_MOST; p++)
            if (p < parts)
                part[p] = read_from(from, p);
#pragma unroll
        for (int p = 0; p < PARTS_MOST; p++)
            if (p < parts)
                v = make_float4(v.x + part[p].x, v.y + part[p].y, v.z + part[p].z, v.w + part[p].w);
        *y = make_float4(old.x + finish(g, m, r, v.x), old.y + finish(g, m, r + 1, v.y),
                         old.z + finish(g, m, r + 2, v.z), old.w + finish(g, m, r + 3, v.w));
    }
}

/* Steps of columns first .. first + count - 1 of row `row` of matrix m, row t of x on. */
static __device__ __forceinline__ void set_source(struct source *s, const struct wide *g, int m,
                                                  int row, int t, int first)
{
    int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
#pragma unroll
    for (int i = 0; i < COPIES; i++) {
        int r = min(row + (int)threadIdx.x / UNITS + i * (THREADS / UNITS), g->rows[m] - 1);
        s->w[i] = (const char *)g->w[m] +
                  ((size_t)r * g->cols + first * STEP + threadIdx.x % UNITS * UNIT) * 2;
    }
#pragma unroll
    for (int i = 0; i < 4; i++)
        s->x[i] = g->x + (size_t)(t + warp / STEPS * TILE_M + lane / 8 + 4 * i) * g->cols +
                  (first + warp % STEPS) * STEP + lane % 8 * 4;
}

/* Block (rows of weights, rows of x, part of the columns). */
template <enum dtype T>
static __global__ void __launch_bounds__(THREADS, 2) k_wide(const __grid_constant__ struct wide g)
{
    extern __shared__ uint4 shared[];
    struct chunk *chunks = ((struct room *)shared)->chunk, *c;
    int warp = threadIdx.x / WARP, m = 0, tile = blockIdx.x;
    for (; tile >= g.tall[m]; m++)
        tile -= g.tall[m];
    int row = tile * TALL, t = blockIdx.y * g.tiles * TILE_M, parts = gridDim.z;
    int steps = g.cols / STEP, first = steps * blockIdx.z / parts;
    int count = steps * (blockIdx.z + 1) / parts - first;
    int rows = min(g.tiles * TILE_M, g.n - t) - warp / STEPS * TILE_M; /* of x, to be copied */
    bool works = warp / ROW_WARPS * MINE < g.tiles;
    struct source s;
    float sum[MINE][GROUPS][4] = {};
    set_source(&s, &g, m, row, t, first);
    for (int k = 0; k < CHUNKS - 1; k++)
        copy_weights(&chunks[k], &s, k, count);
    copies_end();
    dependents_start();
    dependency_wait();
    for (int k = 0; k < CHUNKS - 1; k++) {
        copy_x(&chunks[k], &s, k, count, rows);
        copies_end();
    }
    for (int k = 0; k * STEPS < count; k++) {
        c = &chunks[k % CHUNKS];
        copies_wait<CHUNKS - 2>(); /* for the oldest chunk */
        __syncwarp();              /* the warp's part of x was copied by all its lanes */
        if (rows > 0)
            make_operands<T>(c->x[warp % STEPS][warp / STEPS]);
        __syncthreads();
        copy_weights(&chunks[(k + CHUNKS - 1) % CHUNKS], &s, k + CHUNKS - 1, count);
        copy_x(&chunks[(k + CHUNKS - 1) % CHUNKS], &s, k + CHUNKS - 1, count, rows);
        copies_end();
#pragma unroll
        for (int j = 0; j < STEPS; j++)
            if (works && k * STEPS + j < count)
                multiply_step<T>(sum, &c->w[j][warp % ROW_WARPS * GROUPS],
                                 &c->x[j][warp / ROW_WARPS * MINE]);
    }
    __syncthreads(); /* the chunks are done with, sums take the room */
    if (works)
        keep_sums((float *)shared, sum);
    cluster_sync();
    add_up(&g, (const float *)shared, m, row, t, parts);
    cluster_sync(); /* nobody leaves whose sums are being read */
}

/* A launch of `parts` blocks a cluster; `how` has room for its attributes. */
template <enum dtype T>
static cudaLaunchConfig_t configure(struct cuda *c, cudaLaunchAttribute how[2], int tall, int wide,
                                    int parts)
{
    cudaLaunchConfig_t config =
        cuda_launch_config(c, how, dim3((unsigned)tall, (unsigned)wide, (unsigned)parts), THREADS,
                           sizeof(struct room));
    cudaLaunchAttribute *cluster = &how[config.numAttrs++];
    cluster->id = cudaLaunchAttributeClusterDimension;
    cluster->val.clusterDim.x = cluster->val.clusterDim.y = 1;
    cluster->val.clusterDim.z = (unsigned)parts;
    return config;
}

/* What every launch needs, recorded ones too: set once, for good. */
template <enum dtype T> static void allow(void)
{
    CUDA_MUST(cudaFuncSetAttribute(k_wide<T>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                   (int)sizeof(struct room)));
    CUDA_MUST(cudaFuncSetAttribute(k_wide<T>, cudaFuncAttributeNonPortableClusterSizeAllowed, 1));
}

int cuda_wide_parts(struct cuda *c)
{
    if (c->major < 9 || c->smem < sizeof(struct room))
        return 0;
    allow<DT_BF16>();
    allow<DT_F16>();
    for (int parts = PARTS_MOST; parts > 0; parts /= 2) {
        cudaLaunchAttribute how[2];
        cudaLaunchConfig_t config = configure<DT_BF16>(c, how, 1, 1, parts);
        int clusters = 0;
        if (cudaOccupancyMaxActiveClusters(&clusters, k_wide<DT_BF16>, &config) == cudaSuccess &&
            clusters > 0)
            return parts;
    }
    (void)cudaGetLastError();
    return 0;
}

template <enum dtype T> static void start(struct cuda *c, const struct wide *g)
{
    int wide = div_up(g->n, WIDE), tall = g->tall[0] + g->tall[1] + g->tall[2];
    int parts = at_most(at_most(c->parts, at_least(1, g->cols / STEP / STEPS_LEAST)),
                        at_least(1, 2 * c->sms / (tall * wide)));
    cudaLaunchAttribute how[2];
    cudaLaunchConfig_t config = configure<T>(c, how, tall, wide, parts);
    CUDA_MUST(cudaLaunchKernelEx(&config, k_wide<T>, *g));
}

/* Can these products be done here? */
static bool fits(const struct cuda *c, float *const *y, const float *x, int n,
                 const struct weight *const *w, int count)
{
    if (c->parts == 0 || n <= TILE_N || count > LINEARS_MOST || w[0]->cols % STEP != 0 ||
        (w[0]->type != DT_BF16 && w[0]->type != DT_F16) || (uintptr_t)x % sizeof(float4) != 0)
        return false;
    for (int i = 0; i < count; i++)
        if (w[i]->type != w[0]->type || w[i]->cols != w[0]->cols || w[i]->rows < ROWS_LEAST ||
            w[i]->rows % 4 != 0 || (uintptr_t)w[i]->data % sizeof(uint4) != 0 ||
            (uintptr_t)y[i] % sizeof(float4) != 0)
            return false;
    return true;
}

bool cuda_linears_wide(struct cuda *c, float *const *y, const float *x, int n,
                       const struct weight *const *w, const float *const *bias, const float *scale,
                       int count, unsigned flags)
{
    struct wide g = {};
    if ((flags & LINEAR_EXACT) || !fits(c, y, x, n, w, count))
        return false;
    for (int i = 0; i < count; i++) {
        g.w[i] = w[i]->data;
        g.y[i] = y[i];
        g.bias[i] = bias[i];
        g.rows[i] = w[i]->rows;
        g.tall[i] = div_up(w[i]->rows, TALL);
    }
    g.cols = w[0]->cols;
    g.n = n;
    g.tiles = div_up(div_up(n, TILE_M), div_up(n, WIDE));
    g.x = x;
    g.scale = scale;
    g.flags = flags;
    if (w[0]->type == DT_BF16)
        start<DT_BF16>(c, &g);
    else
        start<DT_F16>(c, &g);
    return true;
}
