/*
 * kernels/cuda/gemv.cu - matrix products with one or two rows of x: linear, norm_linear,
 * linear_add, norm_swiglu. What does not fit (types, sizes, more rows) goes to gemm.cu.
 */
#include "kernels/cuda/gemm.cuh"
#include "kernels/cuda/gemv.cuh"

enum { ROWS_MOST = 2, NORM_VALUES = 8, MATRICES = 3 };

/* Up to three matrices with the same x, or gate and up of a SwiGLU. */
struct gemv {
    const uint4 *w[MATRICES];
    int rows[MATRICES];
    float *y[MATRICES];
    int units; /* of 8 columns */
    const float *x;
    const float *norm; /* NULL = none */
    float eps;
    float *a; /* the normed x goes there too */
    const float *bias, *scale;
    unsigned flags;
};

/* A row of one of the matrices. */
struct place {
    const uint4 *w;
    float *y; /* of the first row of x */
    int r, rows;
};

/* Row r of all matrices together. */
static __device__ __forceinline__ struct place find_row(const struct gemv *g, int r)
{
    struct place p = {g->w[0], g->y[0], r, g->rows[0]};
    if (p.r >= p.rows) {
        p.r -= p.rows;
        p.w = g->w[1];
        p.y = g->y[1];
        p.rows = g->rows[1];
        if (p.r >= p.rows) {
            p.r -= p.rows;
            p.w = g->w[2];
            p.y = g->y[2];
            p.rows = g->rows[2];
        }
    }
    p.w += (size_t)p.r * g->units;
    p.y += p.r;
    return p;
}

/* The weights of the norm to where the rows of x come: they need not wait for x. */
template <int N> static __device__ __forceinline__ void stage_norm(float *xs, const struct gemv *g)
{
    int cols = g->units * UNIT;
    for (int i = threadIdx.x; i < cols && g->norm != NULL; i += GEMV_THREADS)
        for (int n = 0; n < N; n++)
            xs[n * cols + plane_index(i, g->units)] = g->norm[i];
}

/* The rows of x, normed when asked for, into shared memory. A thread touches what it touched in
 * stage_norm. */
template <int N> static __device__ __forceinline__ void stage(float *xs, const struct gemv *g)
{
    __shared__ float room[WARP];
    int cols = g->units * UNIT;
    for (int n = 0; n < N; n++, xs += cols) {
        const float *x = g->x + (size_t)n * cols;
        float v[NORM_VALUES], sum = 0;
        if (g->norm == NULL) {
            for (int i = threadIdx.x; i < cols; i += GEMV_THREADS)
                xs[plane_index(i, g->units)] = x[i];
            continue;
        }
#pragma unroll
        for (int j = 0; j < NORM_VALUES; j++) {
            int i = threadIdx.x + j * GEMV_THREADS;
            v[j] = i < cols ? x[i] : 0;
            sum += v[j] * v[j];
        }
        float scale = 1 / sqrtf(block_sum(sum, room) / (float)cols + g->eps);
#pragma unroll
        for (int j = 0; j < NORM_VALUES; j++) {
            int i = threadIdx.x + j * GEMV_THREADS;
            if (i >= cols)
                continue;
            float *at = &xs[plane_index(i, g->units)];
            *at *= v[j] * scale;
            if (blockIdx.x == 0)
                g->a[(size_t)n * cols + i] = *at;
        }
    }
    __syncthreads();
}

static __device__ __forceinline__ void finish(const struct gemv *g, const struct place *p, int next,
                                              int n, float v)
{
    int r = p->r + next;
    float *y = p->y + (size_t)n * p->rows + next;
    v = activate(v + (g->bias != NULL ? g->bias[r] : 0), g->flags);
    if (g->scale != NULL)
        v *= g->scale[r];
    *y = g->flags & LINEAR_ADD ? *y + v : v;
}

/* A warp's rows, one after the other, CHUNK units a lane at a time. */
template <enum dtype T, int N>
static __global__ void __launch_bounds__(GEMV_THREADS, GEMV_BLOCKS) k_rows(struct gemv g)
{
    extern __shared__ float xs[];
    uint4 w[CHUNK];
    float acc[N] = {};
    int total = g.rows[0] + g.rows[1] + g.rows[2], lane = threadIdx.x % WARP;
    int row = blockIdx.x * GEMV_WARPS + threadIdx.x / WARP, at = 0;
    bool staged = false;
    stage_norm<N>(xs, &g);
    while (row < total || !staged) {
        struct place p = find_row(&g, row);
#pragma unroll
        for (int j = 0; j < CHUNK; j++) {
            int u = at + j * WARP + lane;
            w[j] = row < total && u < g.units ? fetch_unit(p.w + u) : make_uint4(0, 0, 0, 0);
        }
        if (!staged) {
            dependents_start();
            dependency_wait();
            stage<N>(xs, &g);
            staged = true;
        }
#pragma unroll
        for (int j = 0; j < CHUNK; j++) {
            int u = at + j * WARP + lane;
            for (int n = 0; n < N && u < g.units; n++)
                acc[n] += dot_unit<T>(w[j], xs + n * g.units * UNIT, u, g.units);
        }
        at += CHUNK * WARP;
        if (at < g.units)
            continue;
        for (int n = 0; n < N; n++) {
            float v = warp_sum(acc[n]);
            if (lane == 0 && row < total)
                finish(&g, &p, 0, n, v);
            acc[n] = 0;
        }
        at = 0;
        row += gridDim.x * GEMV_WARPS;
    }
}

/* As k_rows; a task is two rows at once: of one matrix when rows are short, so that as much is on
 * the way, or the same row of gate and up. */
template <enum dtype T, int N, bool SWIGLU>
static __global__ void __launch_bounds__(GEMV_THREADS, GEMV_BLOCKS) k_pairs(struct gemv g)
{
    extern __shared__ float xs[];
    uint4 w[CHUNK];
    float acc[2][N] = {};
    int total = SWIGLU ? g.rows[0] : (g.rows[0] + g.rows[1] + g.rows[2]) / 2;
    int task = blockIdx.x * GEMV_WARPS + threadIdx.x / WARP, lane = threadIdx.x % WARP, at = 0;
    bool staged = false;
    stage_norm<N>(xs, &g);
    while (task < total || !staged) {
        struct place p = find_row(&g, SWIGLU ? task : 2 * task);
        const uint4 *q = SWIGLU ? g.w[1] + (size_t)task * g.units : p.w + g.units;
#pragma unroll
        for (int j = 0; j < CHUNK; j++) {
            int u = at + j / 2 * WARP + lane;
            w[j] = task < total && u < g.units ? fetch_unit((j % 2 ? q : p.w) + u)
                                               : make_uint4(0, 0, 0, 0);
        }
        if (!staged) {
            dependents_start();
            dependency_wait();
            stage<N>(xs, &g);
            staged = true;
        }
#pragma unroll
        for (int j = 0; j < CHUNK; j++) {
            int u = at + j / 2 * WARP + lane;
            for (int n = 0; n < N && u < g.units; n++)
                acc[j % 2][n] += dot_unit<T>(w[j], xs + n * g.units * UNIT, u, g.units);
        }
        at += CHUNK / 2 * WARP;
        if (at < g.units)
            continue;
        for (int n = 0; n < N; n++) {
            float v = warp_sum(acc[0][n]), z = warp_sum(acc[1][n]);
            if (lane == 0 && task < total && SWIGLU) {
                p.y[(size_t)n * p.rows] = silu(v) * z;
            } else if (lane == 0 && task < total) {
                finish(&g, &p, 0, n, v);
                finish(&g, &p, 1, n, z);
            }
            acc[0][n] = acc[1][n] = 0;
        }
        at = 0;
        task += gridDim.x * GEMV_WARPS;
    }
}

/* May these kernels read w? */
static bool fits(const struct weight *w)
{
    return (w->type == DT_BF16 || w->type == DT_F16) && w->cols % UNIT == 0 &&
           (uintptr_t)w->data % sizeof(uint4) == 0;
}

static bool all_fit(int n, const struct weight *const *w, int count, bool normed)
{
    for (int i = 0; i < count; i++)
        if (!fits(w[i]) || w[i]->type != w[0]->type)
            return false;
    return n <= ROWS_MOST && (!normed || w[0]->cols <= NORM_VALUES * GEMV_THREADS) &&
           n * w[0]->cols <= 12 * 1024; /* 48 KB of shared memory */
}

template <enum dtype T, int N> static void launch(struct cuda *c, const struct gemv *g, bool swiglu)
{
    size_t smem = (size_t)N * g->units * UNIT * sizeof(float);
    bool even = g->rows[0] % 2 == 0 && g->rows[1] % 2 == 0 && g->rows[2] % 2 == 0;
    bool pairs = swiglu || (even && g->units <= CHUNK / 2 * WARP);
    int rows = g->rows[0] + (swiglu ? 0 : g->rows[1] + g->rows[2]);
    int tasks = pairs && !swiglu ? rows / 2 : rows;
    int grid = at_most(div_up(tasks, GEMV_WARPS), c->sms * GEMV_BLOCKS);
    if (swiglu)
        LAUNCH(c, (k_pairs<T, N, true>), grid, GEMV_THREADS, smem, *g);
    else if (pairs)
        LAUNCH(c, (k_pairs<T, N, false>), grid, GEMV_THREADS, smem, *g);
    else
        LAUNCH(c, (k_rows<T, N>), grid, GEMV_THREADS, smem, *g);
}

static void run(struct cuda *c, const struct gemv *g, enum dtype type, int n, bool swiglu)
{
    if (type == DT_BF16 && n == 1)
        launch<DT_BF16, 1>(c, g, swiglu);
    else if (type == DT_BF16)
        launch<DT_BF16, 2>(c, g, swiglu);
    else if (n == 1)
        launch<DT_F16, 1>(c, g, swiglu);
    else
        launch<DT_F16, 2>(c, g, swiglu);
}

static struct gemv gemv_of(float *const *y, const float *x, const struct weight *const *w,
                           int count)
{
    struct gemv g = {};
    for (int i = 0; i < count; i++) {
        g.w[i] = (const uint4 *)w[i]->data;
        g.rows[i] = w[i]->rows;
        g.y[i] = y[i];
    }
    g.units = w[0]->cols / UNIT;
    g.x = x;
    return g;
}

void cuda_linear(struct device *d, float *y, const float *x, int n, const struct weight *w,
                 const float *bias, unsigned flags)
{
    if (!all_fit(n, &w, 1, false)) {
        cuda_linear_many(d, y, x, n, w, bias, NULL, flags);
        return;
    }
    struct gemv g = gemv_of(&y, x, &w, 1);
    g.bias = bias;
    g.flags = flags;
    run(cuda_of(d), &g, w->type, n, false);
}

void cuda_linear_add(struct device *d, float *y, float *room, const float *x, int n,
                     const struct weight *w, const float *scale)
{
    (void)room;
    if (!all_fit(n, &w, 1, false)) {
        cuda_linear_many(d, y, x, n, w, NULL, scale, LINEAR_ADD);
        return;
    }
    struct gemv g = gemv_of(&y, x, &w, 1);
    g.scale = scale;
    g.flags = LINEAR_ADD;
    run(cuda_of(d), &g, w->type, n, false);
}

void cuda_norm_linear(struct device *d, float *const *y, float *a, const float *x, int n,
                      const struct norm *norm, const struct weight *const *w, int count)
{
    if (!all_fit(n, w, count, true)) {
        compose_norm_linear(d, y, a, x, n, norm, w, count);
        return;
    }
    struct gemv g = gemv_of(y, x, w, count);
    g.norm = norm->w;
    g.eps = norm->eps;
    g.a = a;
    run(cuda_of(d), &g, w[0]->type, n, false);
}

void cuda_norm_swiglu(struct device *d, float *y, float *room, float *a, const float *x, int n,
                      const struct norm *norm, const struct weight *gate, const struct weight *up)
{
    const struct weight *const w[] = {gate, up};
    float *const both[] = {y, room};
    if (!all_fit(n, w, 2, true)) {
        compose_norm_swiglu(d, y, room, a, x, n, norm, gate, up);
        return;
    }
    struct gemv g = gemv_of(both, x, w, 2);
    g.norm = norm->w;
    g.eps = norm->eps;
    g.a = a;
    run(cuda_of(d), &g, gate->type, n, true);
}
