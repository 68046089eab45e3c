/*
 * kernels/cuda/flash.cu - attention of many rows over a cache of 16-bit keys and values, on the
 * tensor cores.
 *
 * A block takes 64 queries of one key head: the query heads of a key head stand one behind the
 * other for each row, so that a row of a group of eight gives eight queries. Keys pass in tiles of
 * 64; the softmax is carried along (largest score, mass, and what was summed, shrunk when a larger
 * score comes). Queries and weights enter as two 16-bit halves: the result is as good as with fp32.
 */
#include "kernels/cuda/attend.cuh"

#include "kernels/cuda/mma.cuh"

enum {
    WARPS = 4,
    THREADS = WARPS * WARP,
    QUERIES = WARPS * TILE_M,
    KEYS = 64,
    PAD = 8, /* 16 bytes: rows that are read together lie in different banks */
};

struct flash {
    float *y;
    const float *q;
    int n, group;
    struct kv kv;
    struct attention a;
    const int32_t *pos;
};

template <int DIM> struct tiles {
    unsigned short high[QUERIES][DIM + PAD], low[QUERIES][DIM + PAD];
    unsigned short k[KEYS][DIM + PAD], v[KEYS][DIM + PAD];
};

static __device__ __forceinline__ void load4(unsigned *r, const unsigned short *p)
{
    unsigned at = (unsigned)__cvta_generic_to_shared(p);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(at));
}

static __device__ __forceinline__ void load4_turned(unsigned *r, const unsigned short *p)
{
    unsigned at = (unsigned)__cvta_generic_to_shared(p);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(at));
}

/* Where query `at` of the block begins, in q and in y; -1 beyond the end. */
static __device__ __forceinline__ long query_at(const struct flash *f, int at)
{
    int i = at / f->group, head = blockIdx.y * f->group + at % f->group;
    return i < f->n ? ((long)i * f->a.heads + head) * f->kv.dim : -1;
}

template <enum dtype T, int DIM>
static __device__ __forceinline__ void take_queries(struct tiles<DIM> *s, const struct flash *f)
{
    for (int i = threadIdx.x; i < QUERIES * DIM / 2; i += THREADS) {
        int r = i / (DIM / 2), pair = i % (DIM / 2);
        long at = query_at(f, blockIdx.x * QUERIES + r);
        float x = at >= 0 ? f->q[at + 2 * pair] * f->a.scale : 0;
        float z = at >= 0 ? f->q[at + 2 * pair + 1] * f->a.scale : 0;
        unsigned high = narrow2<T>(x, z);
        float2 h = widen2<T>(high);
        ((unsigned *)s->high[r])[pair] = high;
        ((unsigned *)s->low[r])[pair] = narrow2<T>(x - h.x, z - h.y);
    }
}

template <int DIM>
static __device__ __forceinline__ void take_keys(struct tiles<DIM> *s, const struct flash *f,
                                                 int from, int end)
{
    const int units = DIM / UNIT;
    for (int i = threadIdx.x; i < KEYS * units; i += THREADS) {
        int key = i / units, u = i % units;
        size_t at = ((size_t)((from + key) % f->kv.rows) * f->kv.heads + blockIdx.y) * units + u;
        uint4 none = make_uint4(0, 0, 0, 0);
        *(uint4 *)&s->k[key][u * UNIT] = from + key < end ? ((const uint4 *)f->kv.k)[at] : none;
        *(uint4 *)&s->v[key][u * UNIT] = from + key < end ? ((const uint4 *)f->kv.v)[at] : none;
    }
}

/* c[key tile][4] = scores of this warp's 16 queries. */
template <enum dtype T, int DIM>
static __device__ __forceinline__ void score(float c[KEYS / 8][4], const struct tiles<DIM> *s,
                                             int warp, int lane)
{
    for (int i = 0; i < KEYS / 8; i++)
        c[i][0] = c[i][1] = c[i][2] = c[i][3] = 0;
#pragma unroll
    for (int d = 0; d < DIM; d += 16) {
        unsigned h[4], l[4];
        load4(h, &s->high[warp * TILE_M + lane % 16][d + lane / 16 * 8]);
        load4(l, &s->low[warp * TILE_M + lane % 16][d + lane / 16 * 8]);
#pragma unroll
        for (int key = 0; key < KEYS; key += 16) {
            unsigned k[4];
            load4(k, &s->k[key + lane / 16 * 8 + lane % 8][d + lane / 8 % 2 * 8]);
            float *one = c[key / 8], *two = c[key / 8 + 1];
            mma<T>(one, h[0], h[1], h[2], h[3], k[0], k[1]);
            mma<T>(one, l[0], l[1], l[2], l[3], k[0], k[1]);
            mma<T>(two, h[0], h[1], h[2], h[3], k[2], k[3]);
            mma<T>(two, l[0], l[1], l[2], l[3], k[2], k[3]);
        }
    }
}

/* The softmax carried by one lane for its two queries (rows g and g + 8). */
struct carried {
    float top[2], mass[2], shrink[2];
    int end[2], from[2]; /* keys that are seen */
};

static __device__ __forceinline__ float quad_max(float v)
{
    v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, 1));
    return fmaxf(v, __shfl_xor_sync(0xffffffffu, v, 2));
}

static __device__ __forceinline__ float quad_sum(float v)
{
    v += __shfl_xor_sync(0xffffffffu, v, 1);
    return v + __shfl_xor_sync(0xffffffffu, v, 2);
}

/* Scores become weights. A query that has seen no key yet keeps a finite maximum out of exp. */
static __device__ __forceinline__ void weigh(float c[KEYS / 8][4], struct carried *w, int from,
                                             int lane)
{
#pragma unroll
    for (int r = 0; r < 2; r++) {
        float top = w->top[r], mass = 0;
        for (int i = 0; i < KEYS / 8; i++)
            for (int j = 0; j < 2; j++) {
                int key = from + i * 8 + lane % 4 * 2 + j;
                if (key >= w->end[r] || key < w->from[r])
                    c[i][2 * r + j] = -INFINITY;
                top = fmaxf(top, c[i][2 * r + j]);
            }
        top = quad_max(top);
        float base = top == -INFINITY ? 0 : top;
        for (int i = 0; i < KEYS / 8; i++)
            for (int j = 0; j < 2; j++) {
                c[i][2 * r + j] = expf(c[i][2 * r + j] - base);
                mass += c[i][2 * r + j];
            }
        w->shrink[r] = expf(w->top[r] - base);
        w->mass[r] = w->mass[r] * w->shrink[r] + quad_sum(mass);
        w->top[r] = top;
    }
}

/* o[dim tile][4] = o * shrink + weights V */
template <enum dtype T, int DIM>
static __device__ __forceinline__ void mix(float o[DIM / 8][4], float c[KEYS / 8][4],
                                           const struct carried *w, const struct tiles<DIM> *s,
                                           int lane)
{
    for (int i = 0; i < DIM / 8; i++)
        for (int j = 0; j < 4; j++)
            o[i][j] *= w->shrink[j / 2];
#pragma unroll
    for (int key = 0; key < KEYS; key += 16) {
        unsigned h[4], l[4];
        for (int i = 0; i < 4; i++) { /* rows g, g + 8 of the first 8 keys, then of the others */
            const float *p = &c[key / 8 + i / 2][i % 2 * 2];
            h[i] = narrow2<T>(p[0], p[1]);
            float2 back = widen2<T>(h[i]);
            l[i] = narrow2<T>(p[0] - back.x, p[1] - back.y);
        }
#pragma unroll
        for (int d = 0; d < DIM; d += 16) {
            unsigned v[4];
            load4_turned(v, &s->v[key + lane % 16][d + lane / 16 * 8]);
            mma<T>(o[d / 8], h[0], h[1], h[2], h[3], v[0], v[1]);
            mma<T>(o[d / 8], l[0], l[1], l[2], l[3], v[0], v[1]);
            mma<T>(o[d / 8 + 1], h[0], h[1], h[2], h[3], v[2], v[3]);
            mma<T>(o[d / 8 + 1], l[0], l[1], l[2], l[3], v[2], v[3]);
        }
    }
}

static __device__ __forceinline__ void range(struct carried *w, const struct flash *f, int pos,
                                             int query)
{
    for (int r = 0; r < 2; r++) {
        int i = min((query + r * 8) / f->group, f->n - 1);
        w->top[r] = -INFINITY;
        w->mass[r] = 0;
        w->end[r] = f->a.causal ? pos + i + 1 : f->n;
        w->from[r] = f->a.causal && f->a.window > 0 ? max(0, w->end[r] - f->a.window) : 0;
    }
}

template <enum dtype T, int DIM>
static __global__ void __launch_bounds__(THREADS) k_flash(struct flash f)
{
    extern __shared__ __align__(16) char memory[];
    struct tiles<DIM> *s = (struct tiles<DIM> *)memory;
    int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    float c[KEYS / 8][4], o[DIM / 8][4] = {};
    struct carried w, first, last;
    dependents_start();
    dependency_wait();
    int pos = f.a.causal ? *f.pos : 0, query = blockIdx.x * QUERIES + warp * TILE_M + lane / 4;
    range(&w, &f, pos, query);
    range(&first, &f, pos, blockIdx.x * QUERIES);
    range(&last, &f, pos, (blockIdx.x + 1) * QUERIES - 1);
    take_queries<T, DIM>(s, &f);
    for (int from = first.from[0] / KEYS * KEYS; from < last.end[0]; from += KEYS) {
        take_keys<DIM>(s, &f, from, last.end[0]);
        __syncthreads();
        score<T, DIM>(c, s, warp, lane);
        weigh(c, &w, from, lane);
        mix<T, DIM>(o, c, &w, s, lane);
        __syncthreads();
    }
    for (int r = 0; r < 2; r++) {
        long at = query_at(&f, query + r * 8);
        for (int i = 0; at >= 0 && i < DIM / 8; i++) {
            float *y = f.y + at + i * 8 + lane % 4 * 2;
            y[0] = o[i][2 * r] / w.mass[r];
            y[1] = o[i][2 * r + 1] / w.mass[r];
        }
    }
}

template <enum dtype T, int DIM> static void start(struct cuda *c, const struct flash *f)
{
    dim3 grid((unsigned)div_up(f->n * f->group, QUERIES), (unsigned)f->kv.heads);
    int bytes = (int)sizeof(struct tiles<DIM>);
    CUDA_MUST(cudaFuncSetAttribute((k_flash<T, DIM>), cudaFuncAttributeMaxDynamicSharedMemorySize,
                                   bytes));
    LAUNCH(c, (k_flash<T, DIM>), grid, THREADS, (size_t)bytes, *f);
}

bool cuda_flash(struct cuda *c, float *y, const float *q, int n, const struct kv *kv,
                const struct attention *a, const int32_t *pos)
{
    bool narrow = kv->type == DT_F16 || kv->type == DT_BF16;
    if (n < 2 || !narrow || (kv->dim != 64 && kv->dim != 128))
        return false;
    struct flash f = {y, q, n, a->heads / kv->heads, *kv, *a, pos};
    if (kv->type == DT_F16 && kv->dim == 128)
        start<DT_F16, 128>(c, &f);
    else if (kv->type == DT_F16)
        start<DT_F16, 64>(c, &f);
    else if (kv->dim == 128)
        start<DT_BF16, 128>(c, &f);
    else
        start<DT_BF16, 64>(c, &f);
    return true;
}
