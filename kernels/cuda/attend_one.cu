/*
 * kernels/cuda/attend_one.cu - attention of one row over a cache of 16-bit keys and values, with
 * norm, rope and the storing of the new key and value: what every decoded word does in every layer.
 *
 * A block takes a key head and a part of the positions, 128 at a time. The keys and values that are
 * in the cache already are fetched before the kernel waits for its queries: no kernel that may
 * still be under way writes them, because a position is written a whole step earlier. Then, on the
 * tensor cores,
 *
 *     scores   [16 keys of a warp] x [8 query heads]      A = keys, B = queries
 *     sums     [16 dimensions of a warp] x [8 heads]      A = values turned, B = weights
 *
 * queries and weights in two 16-bit halves. The last block of a key head puts the parts together.
 */
#include "kernels/cuda/attend.cuh"

#include "kernels/cuda/mma.cuh"

enum {
    WARPS = 8,
    THREADS = (WARPS + 1) * WARP, /* one warp for the new key */
    KEYS = WARPS * TILE_M,
    HEADS = 8,
    PARTS_MOST = 64,
    AT_ONCE = 16,
    PAD = 8, /* 16 bytes: rows that are read together lie in different banks */
};

struct one {
    float *y;
    const float *q, *k, *v; /* of the new position, neither normed nor turned */
    struct kv kv;
    int group, window;
    float scale;
    struct rope rope;
    const int32_t *pos;
    float *parts; /* [kv heads, parts, group, dim] sums */
    float2 *tops; /* [kv heads, parts, group] largest score, mass */
    unsigned *counters;
};

template <int DIM> struct room {
    unsigned short k[KEYS][DIM + PAD], v[KEYS][DIM + PAD];
    unsigned short q[2][HEADS][DIM + PAD];  /* high, low */
    unsigned short p[2][HEADS][KEYS + PAD]; /* weights, high and low */
    float score[HEADS][KEYS + 4];
    float key[DIM], value[DIM]; /* the new ones */
    float top[HEADS], mass[HEADS], shrink[HEADS];
    float factor[HEADS][PARTS_MOST];
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

/* Positions from .. end - 1 into the tile, zeros behind them. */
template <int DIM>
static __device__ __forceinline__ void fetch(struct room<DIM> *s, const struct one *d, int head,
                                             int from, int end)
{
    const int units = DIM / UNIT;
    for (int i = threadIdx.x; i < KEYS * units; i += THREADS) {
        int key = i / units, u = i % units;
        bool there = from + key < end;
        size_t row = (size_t)((there ? from + key : 0) % d->kv.rows) * d->kv.heads + head;
        copy16_if(&s->k[key][u * UNIT], (const uint4 *)d->kv.k + row * units + u, there);
        copy16_if(&s->v[key][u * UNIT], (const uint4 *)d->kv.v + row * units + u, there);
    }
    copies_end();
}

/* The new key and value into the cache and into row `key` of the tile; one warp. The key is in
 * s->key already. */
template <enum dtype T, int DIM>
static __device__ __forceinline__ void add_new(struct room<DIM> *s, const struct one *d, int head,
                                               int pos, int key)
{
    size_t row = ((size_t)(pos % d->kv.rows) * d->kv.heads + head) * DIM;
    for (int i = threadIdx.x % WARP; i < DIM; i += WARP) {
        float v = s->value[i];
        write_element(T, s->k[key], (size_t)i, s->key[i]);
        write_element(T, s->v[key], (size_t)i, v);
        write_element(T, d->kv.k, row + i, s->key[i]);
        write_element(T, d->kv.v, row + i, v);
    }
}

/* The new key, turned, and value; one warp. */
template <int DIM>
static __device__ __forceinline__ void take_new(struct room<DIM> *s, const struct one *d, int head,
                                                const struct turn<DIM> *t)
{
    for (int i = threadIdx.x % WARP; i < DIM; i += WARP)
        s->value[i] = d->v[head * DIM + i];
    attend_turn<DIM>(s->key, d->k + head * DIM, t, d->rope.k_norm != NULL, d->rope.eps, 1);
}

/* Query head `warp`, normed, turned, scaled, in two halves. */
template <enum dtype T, int DIM>
static __device__ __forceinline__ void take_query(struct room<DIM> *s, const struct one *d,
                                                  int head, const struct turn<DIM> *t, int warp)
{
    int lane = threadIdx.x % WARP;
    float *q = &s->score[warp][0]; /* free until there are scores */
    if (warp < d->group)
        attend_turn<DIM>(q, d->q + (head * d->group + warp) * DIM, t, d->rope.q_norm != NULL,
                         d->rope.eps, d->scale);
    __syncwarp();
    for (int i = lane; i < DIM / 2; i += WARP) {
        float x = warp < d->group ? q[2 * i] : 0, z = warp < d->group ? q[2 * i + 1] : 0;
        unsigned high = narrow2<T>(x, z);
        float2 h = widen2<T>(high);
        ((unsigned *)s->q[0][warp])[i] = high;
        ((unsigned *)s->q[1][warp])[i] = narrow2<T>(x - h.x, z - h.y);
    }
}

template <enum dtype T, int DIM>
static __device__ __forceinline__ void score(struct room<DIM> *s, int warp, int lane)
{
    float c[4] = {}, l[4] = {};
#pragma unroll
    for (int d = 0; d < DIM; d += 32) {
        unsigned a[4], b[4], high[4], low[4];
        load4(a, &s->k[warp * TILE_M + lane % 16][d + lane / 16 * 8]);
        load4(b, &s->k[warp * TILE_M + lane % 16][d + 16 + lane / 16 * 8]);
        load4(high, &s->q[0][lane % 8][d + lane / 8 * 8]);
        load4(low, &s->q[1][lane % 8][d + lane / 8 * 8]);
        mma<T>(c, a[0], a[1], a[2], a[3], high[0], high[1]);
        mma<T>(l, a[0], a[1], a[2], a[3], low[0], low[1]);
        mma<T>(c, b[0], b[1], b[2], b[3], high[2], high[3]);
        mma<T>(l, b[0], b[1], b[2], b[3], low[2], low[3]);
    }
    for (int i = 0; i < 4; i++)
        s->score[lane % 4 * 2 + i % 2][warp * TILE_M + lane / 4 + i / 2 * 8] = c[i] + l[i];
}

/* Scores of head `warp` become weights in two halves; the softmax is carried from tile to tile. */
template <enum dtype T, int DIM>
static __device__ __forceinline__ void weigh(struct room<DIM> *s, int group, int count, int warp,
                                             int lane)
{
    const int each = KEYS / WARP;
    float w[each], top = s->top[warp], mass = 0;
    for (int i = 0; i < each; i++) { /* neighbours, so that halves are stored in pairs */
        int key = lane * each + i;
        w[i] = key < count && warp < group ? s->score[warp][key] : -INFINITY;
        top = fmaxf(top, w[i]);
    }
    top = warp_max(top);
    for (int i = 0; i < each; i++) {
        w[i] = warp < group ? expf(w[i] - top) : 0;
        mass += w[i];
    }
    mass = warp_sum(mass);
    for (int i = 0; i < each; i += 2) {
        unsigned high = narrow2<T>(w[i], w[i + 1]);
        float2 h = widen2<T>(high);
        ((unsigned *)s->p[0][warp])[(lane * each + i) / 2] = high;
        ((unsigned *)s->p[1][warp])[(lane * each + i) / 2] = narrow2<T>(w[i] - h.x, w[i + 1] - h.y);
    }
    __syncwarp(); /* all lanes have read s->top */
    if (lane == 0) {
        float shrink = warp < group ? expf(s->top[warp] - top) : 0;
        s->shrink[warp] = shrink;
        s->mass[warp] = s->mass[warp] * shrink + mass;
        s->top[warp] = top;
    }
}

/* c = c * shrink + values turned x weights: dimensions 16 warp .., heads. */
template <enum dtype T, int DIM>
static __device__ __forceinline__ void mix(float c[4], const struct room<DIM> *s, int count,
                                           int warp, int lane)
{
    float l[4] = {};
    for (int i = 0; i < 4; i++)
        c[i] *= s->shrink[lane % 4 * 2 + i % 2];
    for (int key = 0; key < count; key += 32) {
        unsigned a[4], b[4], high[4], low[4];
        load4_turned(a, &s->v[key + lane / 16 * 8 + lane % 8][warp * TILE_M + lane / 8 % 2 * 8]);
        load4_turned(b,
                     &s->v[key + 16 + lane / 16 * 8 + lane % 8][warp * TILE_M + lane / 8 % 2 * 8]);
        load4(high, &s->p[0][lane % 8][key + lane / 8 * 8]);
        load4(low, &s->p[1][lane % 8][key + lane / 8 * 8]);
        mma<T>(c, a[0], a[1], a[2], a[3], high[0], high[1]);
        mma<T>(l, a[0], a[1], a[2], a[3], low[0], low[1]);
        mma<T>(c, b[0], b[1], b[2], b[3], high[2], high[3]);
        mma<T>(l, b[0], b[1], b[2], b[3], low[2], low[3]);
    }
    for (int i = 0; i < 4; i++)
        c[i] += l[i];
}

/* What this block has, to its place among the parts; or, if it is the only one, to y. */
template <int DIM>
static __device__ __forceinline__ void put_out(const struct one *d, const struct room<DIM> *s,
                                               const float c[4], int head, int part, int parts,
                                               int warp, int lane)
{
    size_t at = parts > 1 ? (size_t)head * PARTS_MOST + part : head;
    float *to = parts > 1 ? d->parts : d->y;
    for (int i = 0; i < 4 && warp * TILE_M < DIM; i++) {
        int h = lane % 4 * 2 + i % 2, r = warp * TILE_M + lane / 4 + i / 2 * 8;
        if (h < d->group)
            to[(at * d->group + h) * DIM + r] = parts > 1 ? c[i] : c[i] / s->mass[h];
    }
    if (parts > 1 && threadIdx.x < d->group)
        d->tops[at * d->group + threadIdx.x] =
            make_float2(s->top[threadIdx.x], s->mass[threadIdx.x]);
}

/* What each part counts for query head `warp`. */
template <int DIM>
static __device__ __forceinline__ void find_factors(const struct one *d, struct room<DIM> *s,
                                                    int head, int parts, int warp, int lane)
{
    if (warp < d->group) {
        float2 t[PARTS_MOST / WARP];
        float top = -INFINITY, mass = 0;
        for (int i = 0; i < PARTS_MOST / WARP; i++) {
            int p = lane + i * WARP;
            t[i] = p < parts ? d->tops[((size_t)head * PARTS_MOST + p) * d->group + warp]
                             : make_float2(-INFINITY, 0);
            top = fmaxf(top, t[i].x);
        }
        top = warp_max(top);
        for (int i = 0; i < PARTS_MOST / WARP; i++)
            mass += t[i].y * expf(t[i].x - top);
        mass = warp_sum(mass);
        for (int i = 0; i < PARTS_MOST / WARP; i++)
            s->factor[warp][lane + i * WARP] = expf(t[i].x - top) / mass;
    }
}

/* The parts of one key head, put together by its last block: a thread four dimensions. AT_ONCE
 * parts are asked for before their factors are known. */
template <int DIM>
static __device__ __forceinline__ void combine(const struct one *d, struct room<DIM> *s, int head,
                                               int parts, int warp, int lane)
{
    int i = threadIdx.x, each = d->group * (DIM / 4);
    const float4 *from = (const float4 *)d->parts + (size_t)head * PARTS_MOST * each + i;
    float4 sum = make_float4(0, 0, 0, 0);
    for (int first = 0; first < parts; first += AT_ONCE) {
        float4 v[AT_ONCE];
#pragma unroll
        for (int p = 0; p < AT_ONCE; p++)
            if (i < each && first + p < parts)
                v[p] = from[(size_t)(first + p) * each];
        if (first == 0) {
            find_factors<DIM>(d, s, head, parts, warp, lane);
            __syncthreads();
        }
#pragma unroll
        for (int p = 0; p < AT_ONCE; p++) {
            if (i >= each || first + p >= parts)
                break;
            float f = s->factor[i / (DIM / 4)][first + p];
            sum.x = fmaf(f, v[p].x, sum.x);
            sum.y = fmaf(f, v[p].y, sum.y);
            sum.z = fmaf(f, v[p].z, sum.z);
            sum.w = fmaf(f, v[p].w, sum.w);
        }
    }
    if (i < each)
        ((float4 *)(d->y + (size_t)head * d->group * DIM))[i] = sum;
}

template <enum dtype T, int DIM>
static __global__ void __launch_bounds__(THREADS) k_one(struct one d)
{
    extern __shared__ __align__(16) char memory[];
    struct room<DIM> *s = (struct room<DIM> *)memory;
    int head = blockIdx.x, part = blockIdx.y, warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    float c[4] = {};
    struct turn<DIM> turn;
    dependents_start();
    int pos = *d.pos, from = d.window > 0 ? max(0, pos + 1 - d.window) : 0, total = pos + 1 - from;
    int each = max(KEYS, (total + (int)gridDim.y - 1) / (int)gridDim.y);
    int parts = (total + each - 1) / each, end = min(pos + 1, from + (part + 1) * each);
    from += part * each;
    if (part >= parts)
        return;
    fetch<DIM>(s, &d, head, from, min(end, pos));
    attend_find_turn<DIM>(&turn, warp < WARPS ? d.rope.q_norm : d.rope.k_norm, &d.rope, pos);
    dependency_wait();
    if (warp < WARPS)
        take_query<T, DIM>(s, &d, head, &turn, warp);
    else if (end == pos + 1)
        take_new<DIM>(s, &d, head, &turn);
    if (threadIdx.x < HEADS) {
        s->top[threadIdx.x] = -INFINITY;
        s->mass[threadIdx.x] = 0;
    }
    for (; from < end; from += KEYS) {
        int count = min(KEYS, end - from);
        copies_wait_all();
        __syncthreads();
        if (warp == WARPS && pos >= from && pos < from + count)
            add_new<T, DIM>(s, &d, head, pos, pos - from);
        __syncthreads();
        if (warp < WARPS)
            score<T, DIM>(s, warp, lane);
        __syncthreads();
        if (warp < WARPS)
            weigh<T, DIM>(s, d.group, count, warp, lane);
        __syncthreads();
        if (warp * TILE_M < DIM)
            mix<T, DIM>(c, s, count, warp, lane);
        __syncthreads();
        if (from + KEYS < end)
            fetch<DIM>(s, &d, head, from + KEYS, min(end, pos));
    }
    if (warp < WARPS)
        put_out<DIM>(&d, s, c, head, part, parts, warp, lane);
    if (parts > 1 && last_block(&d.counters[head], (unsigned)parts))
        combine<DIM>(&d, s, head, parts, warp, lane);
}

template <enum dtype T, int DIM> static void start(struct cuda *c, const struct one *d)
{
    int parts = at_most(PARTS_MOST, div_up(d->kv.rows, KEYS)),
        bytes = (int)sizeof(struct room<DIM>);
    dim3 grid((unsigned)d->kv.heads, (unsigned)parts);
    cuda_shared_memory((const void *)k_one<T, DIM>, (size_t)bytes);
    LAUNCH(c, (k_one<T, DIM>), grid, THREADS, (size_t)bytes, *d);
}

bool cuda_attend_one(struct cuda *c, float *y, const float *q, const float *k, const float *v,
                     const struct kv *kv, const struct attention *a, const struct rope *r,
                     const int32_t *pos)
{
    int group = a->heads / kv->heads;
    if ((kv->type != DT_F16 && kv->type != DT_BF16) || group > HEADS || !a->causal ||
        (kv->dim != 64 && kv->dim != 128) || kv->heads > CUDA_COUNTERS)
        return false;
    struct one d = {};
    d.y = y;
    d.q = q;
    d.k = k;
    d.v = v;
    d.kv = *kv;
    d.group = group;
    d.window = a->window;
    d.scale = a->scale;
    d.rope = *r;
    d.pos = pos;
    d.counters = c->counters;
    size_t tops = (size_t)a->heads * PARTS_MOST * sizeof(float2);
    char *room = (char *)cuda_scratch(c, tops * (1 + kv->dim / 2));
    d.tops = (float2 *)room;
    d.parts = (float *)(room + tops);
    if (kv->type == DT_F16 && kv->dim == 128)
        start<DT_F16, 128>(c, &d);
    else if (kv->type == DT_F16)
        start<DT_F16, 64>(c, &d);
    else if (kv->dim == 128)
        start<DT_BF16, 128>(c, &d);
    else
        start<DT_BF16, 64>(c, &d);
    return true;
}
