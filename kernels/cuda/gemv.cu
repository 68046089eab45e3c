/*
 * kernels/cuda/gemv.cu - matrix products with one or two rows of x: linear, norm_linear,
 * linear_add, norm_swiglu. What does not fit (types, sizes, more rows) goes to gemm.cu.
 *
 * k_once is for one row of x and matrices of 2,048 or 4,096 columns that all blocks hold at once in
 * registers, as in the Thinker; k_rows and k_pairs go through any number of rows of any size.
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
#pragma unroll 4
            for (int i = threadIdx.x; i < cols / 4; i += GEMV_THREADS)
                place4(xs, i, g->units, ((const float4 *)x)[i]);
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

/* What is to be added to, asked for early: 0 in all lanes but the first. */
static __device__ __forceinline__ float read_old(const struct gemv *g, const struct place *p,
                                                 int next, int n, bool there)
{
    bool adds = there && (g->flags & LINEAR_ADD) && threadIdx.x % WARP == 0;
    return adds ? p->y[(size_t)n * p->rows + next] : 0;
}

static __device__ __forceinline__ void finish(const struct gemv *g, const struct place *p, int next,
                                              int n, float v, float old)
{
    int r = p->r + next;
    v = activate_row(v + (g->bias != NULL ? g->bias[r] : 0), g->scale, r, g->flags);
    p->y[(size_t)n * p->rows + next] = v + old;
}

/* A warp's rows, one after the other, CHUNK units a lane at a time. */
template <enum dtype T, int N>
static __global__ void __launch_bounds__(GEMV_THREADS, GEMV_BLOCKS) k_rows(struct gemv g)
{
    extern __shared__ float xs[];
    uint4 w[CHUNK];
    float acc[N] = {}, old[N] = {};
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
            int next = row + gridDim.x * GEMV_WARPS;
            if (next < total)
                prefetch_row(find_row(&g, next).w, g.units);
            dependents_start();
            dependency_wait();
            stage<N>(xs, &g);
            staged = true;
        }
        for (int n = 0; n < N && at == 0; n++)
            old[n] = read_old(&g, &p, 0, n, row < total);
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
                finish(&g, &p, 0, n, v, old[n]);
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
    float acc[2][N] = {}, old[2][N] = {};
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
            int next = task + gridDim.x * GEMV_WARPS;
            if (next < total && SWIGLU)
                prefetch_row(g.w[1] + (size_t)next * g.units, g.units);
            if (next < total) /* pairs are neighbours in one matrix */
                prefetch_row(find_row(&g, SWIGLU ? next : 2 * next).w,
                             SWIGLU ? g.units : 2 * g.units);
            dependents_start();
            dependency_wait();
            stage<N>(xs, &g);
            staged = true;
        }
        for (int n = 0; n < N && at == 0 && !SWIGLU; n++) {
            old[0][n] = read_old(&g, &p, 0, n, task < total);
            old[1][n] = read_old(&g, &p, 1, n, task < total);
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
                finish(&g, &p, 0, n, v, old[0][n]);
                finish(&g, &p, 1, n, z, old[1][n]);
            }
            acc[0][n] = acc[1][n] = 0;
        }
        at = 0;
        task += gridDim.x * GEMV_WARPS;
    }
}

/* Weights of rows first .. first + count - 1, C units a thread and row. */
template <int R, int C>
static __device__ __forceinline__ void fetch_rows(uint4 w[R][C], const struct gemv *g, int first,
                                                  int count)
{
#pragma unroll
    for (int r = 0; r < R; r++) {
        const uint4 *row = find_row(g, first + r).w + threadIdx.x;
#pragma unroll
        for (int c = 0; c < C; c++)
            w[r][c] = r < count ? fetch_unit(row + c * GEMV_THREADS) : make_uint4(0, 0, 0, 0);
    }
}

/* A thread's elements of x to registers, times the norm's weights; returns its sum of squares. */
template <int C>
static __device__ __forceinline__ float take_x(float4 *x, const float4 *norm, const struct gemv *g)
{
    float squares = 0;
#pragma unroll
    for (int i = 0; i < 2 * C; i++)
        x[i] = *quarter(g->x, i);
#pragma unroll
    for (int i = 0; i < 2 * C && g->norm != NULL; i++) {
        squares += x[i].x * x[i].x + x[i].y * x[i].y + x[i].z * x[i].z + x[i].w * x[i].w;
        x[i] = times4(x[i], norm[i]);
    }
    return squares;
}

/* R rows a block, all of them at once: every weight is under way before x is looked at, and x goes
 * to registers, a thread's columns of it. The norm's scale comes last. For matrices that the device
 * takes in one go. */
template <enum dtype T, int R, int C>
static __global__ void __launch_bounds__(GEMV_THREADS, GEMV_BLOCKS) k_once(struct gemv g)
{
    const int turns = (R + GEMV_WARPS - 1) / GEMV_WARPS;
    __shared__ __align__(16) float part[R + 1][GEMV_THREADS];
    int first = blockIdx.x * R, count = min(R, g.rows[0] + g.rows[1] + g.rows[2] - first);
    int warp = threadIdx.x / WARP;
    uint4 w[R][C];
    float4 x[2 * C], norm[2 * C];
    float old[turns], scale = 1;
    fetch_rows<R, C>(w, &g, first, count);
#pragma unroll
    for (int i = 0; i < 2 * C; i++)
        norm[i] = g.norm != NULL ? *quarter(g.norm, i) : make_float4(0, 0, 0, 0);
    dependents_start();
    dependency_wait();
    part[R][threadIdx.x] = take_x<C>(x, norm, &g);
#pragma unroll
    for (int i = 0; i < turns; i++) {
        struct place p = find_row(&g, first + warp + i * GEMV_WARPS);
        old[i] = read_old(&g, &p, 0, 0, warp + i * GEMV_WARPS < count);
    }
#pragma unroll
    for (int r = 0; r < R; r++) {
        float sum = 0;
#pragma unroll
        for (int c = 0; c < C; c++)
            sum += dot8<T>(w[r][c], x[2 * c], x[2 * c + 1]);
        part[r][threadIdx.x] = sum;
    }
    __syncthreads();
    if (g.norm != NULL)
        scale = 1 / sqrtf(row_sum(part[R]) / (float)(g.units * UNIT) + g.eps);
#pragma unroll
    for (int i = 0; i < turns; i++) {
        int r = warp + i * GEMV_WARPS;
        if (r >= count)
            break;
        struct place p = find_row(&g, first + r);
        float v = row_sum(part[r]) * scale;
        if (threadIdx.x % WARP == 0)
            finish(&g, &p, 0, 0, v, old[i]);
    }
#pragma unroll
    for (int i = 0; i < 2 * C; i++)
        if (g.norm != NULL && blockIdx.x == 0)
            *(float4 *)quarter(g.a, i) = times4(x[i], make_float4(scale, scale, scale, scale));
}

/* May these kernels read w? */
static bool fits(const struct weight *w)
{
    return (w->type == DT_BF16 || w->type == DT_F16) && w->cols % UNIT == 0 &&
           (uintptr_t)w->data % sizeof(uint4) == 0;
}

static bool all_fit(int n, const float *x, const struct weight *const *w, int count, bool normed)
{
    for (int i = 0; i < count; i++)
        if (!fits(w[i]) || w[i]->type != w[0]->type)
            return false;
    return n <= ROWS_MOST && (uintptr_t)x % sizeof(float4) == 0 &&
           (!normed || w[0]->cols <= NORM_VALUES * GEMV_THREADS) &&
           n * w[0]->cols <= 12 * 1024 - WARP; /* 48 KB of shared memory, with room for sums */
}

/* Starts k_once, if R rows a block and C columns of units are what it takes. */
template <enum dtype T, int R, int C>
static bool start_once(struct cuda *c, const struct gemv *g, int rows)
{
    if (g->units != C * GEMV_THREADS || rows > R * c->sms * GEMV_BLOCKS ||
        ((uintptr_t)g->norm | (uintptr_t)g->a) % sizeof(float4) != 0)
        return false;
    cuda_shared_memory((const void *)k_once<T, R, C>, 0);
    LAUNCH(c, (k_once<T, R, C>), div_up(rows, R), GEMV_THREADS, 0, *g);
    return true;
}

template <enum dtype T, int N> static void launch(struct cuda *c, const struct gemv *g, bool swiglu)
{
    int all = g->rows[0] + g->rows[1] + g->rows[2];
    if (N == 1 && !swiglu &&
        (start_once<T, 1, 1>(c, g, all) || start_once<T, 4, 1>(c, g, all) ||
         start_once<T, 20, 1>(c, g, all) || start_once<T, 8, 2>(c, g, all)))
        return;
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
    if (!all_fit(n, x, &w, 1, false)) {
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
    if (!all_fit(n, x, &w, 1, false)) {
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
    if (!all_fit(n, x, w, count, true)) {
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
    if (!all_fit(n, x, w, 2, true)) {
        compose_norm_swiglu(d, y, room, a, x, n, norm, gate, up);
        return;
    }
    struct gemv g = gemv_of(both, x, w, 2);
    g.norm = norm->w;
    g.eps = norm->eps;
    g.a = a;
    run(cuda_of(d), &g, gate->type, n, true);
}
