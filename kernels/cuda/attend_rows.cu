/*
 * kernels/cuda/attend_rows.cu - attention of eight rows and more over fp32 keys and values: the
 * audio encoder. Heads of 64 or 128.
 *
 * A block takes eight rows of one query head, a warp a row in the softmax; keys pass in tiles
 * through shared memory.
 */
#include "kernels/cuda/attend.cuh"

enum { ROWS = 8, THREADS = ROWS * WARP };

template <int DIM> struct room {
    static const int keys = 4096 / DIM;
    __align__(16) float k[keys][DIM + 4]; /* 16 bytes more: no two lanes in one bank */
    __align__(16) float v[keys][DIM];
    __align__(16) float q[ROWS][DIM];
    __align__(16) float p[ROWS][keys];
    float shrink[ROWS], mass[ROWS];
};

struct many {
    float *y;
    const float *q;
    int n;
    struct kv kv;
    struct attention a;
    const int32_t *pos;
};

/* Keys that row i sees: from .. end - 1. */
static __device__ __forceinline__ void seen(const struct many *m, int pos, int i, int *from,
                                            int *end)
{
    *end = m->a.causal ? pos + i + 1 : m->n;
    *from = m->a.causal && m->a.window > 0 ? max(0, *end - m->a.window) : 0;
}

template <int DIM>
static __device__ __forceinline__ void take(float *to, int pitch, const void *kind,
                                            const struct many *m, int head, int from, int end)
{
    const int units = DIM / 4, keys = room<DIM>::keys;
#pragma unroll
    for (int i = 0; i < keys * units / THREADS; i++) {
        int at = i * THREADS + (int)threadIdx.x, key = at / units, u = at % units;
        size_t row = (size_t)((from + key) % m->kv.rows) * m->kv.heads + head;
        copy16_if(to + key * pitch + 4 * u, (const float4 *)kind + row * units + u,
                  from + key < end);
    }
    copies_end();
}

/* Begins to copy keys from .. end - 1 of a head, as many as there is room for, then values. */
template <int DIM>
static __device__ __forceinline__ void take_keys(struct room<DIM> *s, const struct many *m,
                                                 int head, int from, int end)
{
    take<DIM>(s->k[0], DIM + 4, m->kv.k, m, head, from, end);
    take<DIM>(s->v[0], DIM, m->kv.v, m, head, from, end);
}

/* Until keys are here (LEFT 1), and values (0). */
template <int LEFT> static __device__ __forceinline__ void keys_wait(void)
{
    copies_wait<LEFT>();
    __syncthreads();
}

template <int DIM> static __device__ __forceinline__ void score(struct room<DIM> *s)
{
    const int step = THREADS / s->keys, rows = ROWS / step;
    int key = threadIdx.x % s->keys, first = threadIdx.x / s->keys;
    float sum[rows] = {};
#pragma unroll 8
    for (int i = 0; i < DIM; i += 4) {
        float4 k = *(const float4 *)&s->k[key][i];
#pragma unroll
        for (int j = 0; j < rows; j++) {
            float4 q = *(const float4 *)&s->q[first + j * step][i];
            sum[j] = fmaf(k.x, q.x, fmaf(k.y, q.y, fmaf(k.z, q.z, fmaf(k.w, q.w, sum[j]))));
        }
    }
#pragma unroll
    for (int j = 0; j < rows; j++)
        s->p[first + j * step][key] = sum[j];
}

/* The softmax of this warp's row so far. */
template <int DIM>
static __device__ __forceinline__ void weigh(struct room<DIM> *s, float *top, int from, int low,
                                             int end)
{
    int row = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    float now = *top, mass = 0;
    for (int i = lane; i < s->keys; i += WARP) {
        if (from + i < low || from + i >= end)
            s->p[row][i] = -INFINITY;
        now = fmaxf(now, s->p[row][i]);
    }
    now = warp_max(now);
    float base = now == -INFINITY ? 0 : now;
    for (int i = lane; i < s->keys; i += WARP) {
        float e = expf(s->p[row][i] - base);
        s->p[row][i] = e;
        mass += e;
    }
    mass = warp_sum(mass);
    if (lane == 0) {
        s->shrink[row] = expf(*top - base);
        s->mass[row] = s->mass[row] * s->shrink[row] + mass;
    }
    *top = now;
}

/* Rows threadIdx / DIM and every (THREADS / DIM)th after it, dimension threadIdx % DIM. */
template <int DIM>
static __device__ __forceinline__ void add_values(float acc[ROWS * DIM / THREADS],
                                                  const struct room<DIM> *s)
{
    const int each = ROWS * DIM / THREADS, step = THREADS / DIM;
    int dim = threadIdx.x % DIM, first = threadIdx.x / DIM;
#pragma unroll
    for (int j = 0; j < each; j++)
        acc[j] *= s->shrink[first + j * step];
#pragma unroll 4
    for (int key = 0; key < s->keys; key += 4) {
        float a = s->v[key][dim], b = s->v[key + 1][dim], c = s->v[key + 2][dim];
        float d = s->v[key + 3][dim];
#pragma unroll
        for (int j = 0; j < each; j++) {
            float4 p = *(const float4 *)&s->p[first + j * step][key];
            acc[j] = fmaf(p.w, d, fmaf(p.z, c, fmaf(p.y, b, fmaf(p.x, a, acc[j]))));
        }
    }
}

template <int DIM> static __global__ void __launch_bounds__(THREADS) k_rows(struct many m)
{
    __shared__ struct room<DIM> s;
    const int each = ROWS * DIM / THREADS, step = THREADS / DIM;
    int head = blockIdx.x, first = blockIdx.y * ROWS, row = first + (int)threadIdx.x / WARP;
    int kv_head = head / (m.a.heads / m.kv.heads), dim = threadIdx.x % DIM;
    int low, end, from, last, unused;
    float acc[each] = {}, top = -INFINITY;
    dependents_start();
    dependency_wait();
    int pos = m.a.causal ? *m.pos : 0;
    seen(&m, pos, min(row, m.n - 1), &low, &end);
    seen(&m, pos, first, &from, &unused);
    seen(&m, pos, min(first + ROWS, m.n) - 1, &unused, &last);
#pragma unroll
    for (int j = 0; j < each; j++) {
        int r = min(first + (int)threadIdx.x / DIM + j * step, m.n - 1);
        acc[j] = m.q[((size_t)r * m.a.heads + head) * DIM + dim] * m.a.scale;
    }
    take_keys<DIM>(&s, &m, kv_head, from, last);
#pragma unroll
    for (int j = 0; j < each; j++) {
        s.q[threadIdx.x / DIM + j * step][dim] = acc[j];
        acc[j] = 0;
    }
    if (threadIdx.x < ROWS)
        s.mass[threadIdx.x] = 0;
    for (;;) {
        keys_wait<1>();
        score<DIM>(&s);
        __syncthreads();
        weigh<DIM>(&s, &top, from, low, end);
        keys_wait<0>();
        add_values<DIM>(acc, &s);
        __syncthreads();
        from += s.keys;
        if (from >= last)
            break;
        take_keys<DIM>(&s, &m, kv_head, from, last);
    }
#pragma unroll
    for (int j = 0; j < each; j++) {
        int r = threadIdx.x / DIM + j * step;
        if (first + r < m.n)
            m.y[((size_t)(first + r) * m.a.heads + head) * DIM + dim] = acc[j] / s.mass[r];
    }
}

bool cuda_attend_rows(struct cuda *c, float *y, const float *q, int n, const struct kv *kv,
                      const struct attention *a, const int32_t *pos)
{
    dim3 grid((unsigned)a->heads, (unsigned)div_up(n, ROWS));
    struct many m = {y, q, n, *kv, *a, pos};
    if (n < ROWS || kv->type != DT_F32 || (kv->dim != 64 && kv->dim != 128))
        return false;
    if (kv->dim == 128)
        LAUNCH(c, k_rows<128>, grid, THREADS, 0, m);
    else
        LAUNCH(c, k_rows<64>, grid, THREADS, 0, m);
    return true;
}
