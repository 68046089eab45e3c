/*
 * kernels/cuda/attend.cu - attention.
 *
 * One row (decoding), heads of 64 or 128: a block takes the query heads of one key head and a part
 * of the positions; it also norms and turns its queries and the new key, and stores the new key and
 * value when its part holds them. The last block of a key head puts the parts together.
 *
 * Many rows: flash.cu, attend_rows.cu. Any number of rows, any size: a block takes one row of one
 * head (k_attend).
 */
#include "kernels/cuda/attend.cuh"

enum {
    THREADS = 256,
    WARPS = THREADS / WARP,
    GROUP_MOST = 8, /* query heads of a key head */
    PARTS_MOST = 64,
    ANY_THREADS = 128,
    ANY_DIMS = 4, /* * ANY_THREADS: largest head */
};

struct decode {
    float *y;
    const float *q, *k, *v; /* of the new position, neither normed nor turned */
    struct kv kv;
    int group, window;
    float scale;
    struct rope rope;
    const int32_t *pos;
    float *parts; /* [kv heads, parts, group, dim + 2] sum, largest score, mass */
    unsigned *counters;
};

/* Keys in a tile, and how much of shared memory a row takes: 16 bytes more, so that lanes that read
 * the same column of neighbouring rows do not meet in a bank. */
template <enum dtype T> struct tile {
    static const int size = T == DT_F32 ? 4 : 2;
    static const int keys = T == DT_F32 ? 32 : 64;
};

template <enum dtype T, int DIM> struct room {
    __align__(16) char k[tile<T>::keys][DIM * tile<T>::size + 16];
    __align__(16) char v[tile<T>::keys][DIM * tile<T>::size];
    __align__(16) float q[GROUP_MOST][DIM];
    __align__(16) float p[GROUP_MOST][tile<T>::keys];
    float top[GROUP_MOST], mass[GROUP_MOST], shrink[GROUP_MOST];
    float key[DIM];
};

/* 4 elements from shared memory as floats. */
template <enum dtype T> static __device__ __forceinline__ float4 four(const char *row, int i)
{
    if (T == DT_F32)
        return ((const float4 *)row)[i];
    uint2 u = ((const uint2 *)row)[i];
    float2 a = widen2 < T == DT_BF16 ? DT_BF16 : DT_F16 > (u.x);
    float2 b = widen2 < T == DT_BF16 ? DT_BF16 : DT_F16 > (u.y);
    return make_float4(a.x, a.y, b.x, b.y);
}

template <enum dtype T> static __device__ __forceinline__ float2 two(const char *row, int i)
{
    if (T == DT_F32)
        return ((const float2 *)row)[i];
    return widen2 < T == DT_BF16 ? DT_BF16 : DT_F16 > (((const unsigned *)row)[i]);
}

/* Keys and values of positions from .. from + count - 1 on their way. */
template <enum dtype T, int DIM> struct fetched {
    static const int row_units = DIM * tile<T>::size / 16;
    static const int each = tile<T>::keys * row_units / THREADS;
    uint4 k[each], v[each];
};

template <enum dtype T, int DIM>
static __device__ __forceinline__ void fetch(struct fetched<T, DIM> *f, const struct decode *d,
                                             int head, int from, int count)
{
    const int row_units = fetched<T, DIM>::row_units;
#pragma unroll
    for (int j = 0; j < fetched<T, DIM>::each; j++) {
        int i = threadIdx.x + j * THREADS, key = i / row_units;
        size_t row = (size_t)((from + key) % d->kv.rows) * d->kv.heads + head;
        f->k[j] = f->v[j] = make_uint4(0, 0, 0, 0);
        if (key < count) {
            f->k[j] = ((const uint4 *)d->kv.k)[row * row_units + i % row_units];
            f->v[j] = ((const uint4 *)d->kv.v)[row * row_units + i % row_units];
        }
    }
}

template <enum dtype T, int DIM>
static __device__ __forceinline__ void place(struct room<T, DIM> *s,
                                             const struct fetched<T, DIM> *f)
{
    const int row_units = fetched<T, DIM>::row_units;
#pragma unroll
    for (int j = 0; j < fetched<T, DIM>::each; j++) {
        int i = threadIdx.x + j * THREADS, key = i / row_units;
        ((uint4 *)s->k[key])[i % row_units] = f->k[j];
        ((uint4 *)s->v[key])[i % row_units] = f->v[j];
    }
}

/* The new key and value: into the cache, and into the tile in the place of what was there. */
template <enum dtype T, int DIM>
static __device__ __forceinline__ void add_new(struct room<T, DIM> *s, const struct decode *d,
                                               int head, int pos, int key)
{
    size_t row = ((size_t)(pos % d->kv.rows) * d->kv.heads + head) * DIM;
    for (int i = threadIdx.x; i < DIM; i += THREADS) {
        float v = d->v[head * DIM + i];
        write_element(T, s->k[key], (size_t)i, s->key[i]);
        write_element(T, s->v[key], (size_t)i, v);
        write_element(T, d->kv.k, row + i, s->key[i]);
        write_element(T, d->kv.v, row + i, v);
    }
}

/* p[h][key] = q_h . k_key, and the softmax so far: what was summed before shrinks. */
template <enum dtype T, int DIM>
static __device__ __forceinline__ void weigh(struct room<T, DIM> *s, int group, int count)
{
    const int keys = tile<T>::keys;
    int key = threadIdx.x % keys, lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    for (int h = threadIdx.x / keys; h < group; h += THREADS / keys) {
        float sum = 0;
        for (int i = 0; i < DIM / 4; i++) {
            float4 k = four<T>(s->k[key], i), q = ((const float4 *)s->q[h])[i];
            sum = fmaf(k.x, q.x, fmaf(k.y, q.y, fmaf(k.z, q.z, fmaf(k.w, q.w, sum))));
        }
        s->p[h][key] = key < count ? sum : -INFINITY;
    }
    __syncthreads();
    if (warp < group) {
        float top = s->top[warp], mass = 0;
        for (int i = lane; i < keys; i += WARP)
            top = fmaxf(top, s->p[warp][i]);
        top = warp_max(top);
        for (int i = lane; i < keys; i += WARP) {
            float e = expf(s->p[warp][i] - top);
            s->p[warp][i] = e;
            mass += e;
        }
        mass = warp_sum(mass);
        if (lane == 0) {
            s->shrink[warp] = expf(s->top[warp] - top);
            s->mass[warp] = s->mass[warp] * s->shrink[warp] + mass;
            s->top[warp] = top;
        }
    }
    __syncthreads();
}

/* A thread has two neighbouring dimensions of every STEP-th head. */
template <int DIM> struct share {
    static const int step = THREADS / (DIM / 2);
    static const int heads = (GROUP_MOST + step - 1) / step;
};

template <enum dtype T, int DIM>
static __device__ __forceinline__ void mix(float2 *acc, const struct room<T, DIM> *s, int group)
{
    int pair = threadIdx.x % (DIM / 2), first = threadIdx.x / (DIM / 2);
#pragma unroll
    for (int j = 0; j < share<DIM>::heads; j++) {
        int h = first + j * share<DIM>::step;
        if (h >= group)
            continue;
        float2 sum = make_float2(acc[j].x * s->shrink[h], acc[j].y * s->shrink[h]);
        for (int key = 0; key < tile<T>::keys; key++) {
            float2 v = two<T>(s->v[key], pair);
            sum.x = fmaf(s->p[h][key], v.x, sum.x);
            sum.y = fmaf(s->p[h][key], v.y, sum.y);
        }
        acc[j] = sum;
    }
}

/* The parts of one key head, put together by its last block. */
template <int DIM>
static __device__ __forceinline__ void combine(const struct decode *d, int head, int parts)
{
    const int size = DIM + 2;
    const float *from = d->parts + (size_t)head * PARTS_MOST * d->group * size;
    for (int i = threadIdx.x; i < d->group * DIM; i += THREADS) {
        int h = i / DIM;
        float top = -INFINITY, sum = 0, mass = 0;
        for (int p = 0; p < parts; p++)
            top = fmaxf(top, from[(p * d->group + h) * size + DIM]);
        for (int p = 0; p < parts; p++) {
            const float *part = from + (p * d->group + h) * size;
            float e = expf(part[DIM] - top);
            sum = fmaf(e, part[i % DIM], sum);
            mass = fmaf(e, part[DIM + 1], mass);
        }
        d->y[(size_t)head * d->group * DIM + i] = sum / mass;
    }
}

template <enum dtype T, int DIM>
static __device__ __forceinline__ void put_out(const struct decode *d, const struct room<T, DIM> *s,
                                               const float2 *acc, int head, int part, int parts)
{
    const int size = DIM + 2;
    int pair = threadIdx.x % (DIM / 2), first = threadIdx.x / (DIM / 2);
    float *to = d->parts + ((size_t)head * PARTS_MOST + part) * d->group * size;
#pragma unroll
    for (int j = 0; j < share<DIM>::heads; j++) {
        int h = first + j * share<DIM>::step;
        if (h >= d->group)
            continue;
        float *y = d->y + ((size_t)head * d->group + h) * DIM + 2 * pair;
        if (parts > 1)
            y = to + h * size + 2 * pair;
        float by = parts > 1 ? 1 : 1 / s->mass[h];
        y[0] = acc[j].x * by;
        y[1] = acc[j].y * by;
        if (parts > 1 && pair == 0) {
            to[h * size + DIM] = s->top[h];
            to[h * size + DIM + 1] = s->mass[h];
        }
    }
}

template <enum dtype T, int DIM>
static __global__ void __launch_bounds__(THREADS) k_decode(struct decode d)
{
    __shared__ struct room<T, DIM> s;
    const int keys = tile<T>::keys;
    int head = blockIdx.x, part = blockIdx.y, warp = threadIdx.x / WARP;
    struct fetched<T, DIM> f;
    float2 acc[share<DIM>::heads] = {};
    dependents_start();
    int pos = *d.pos, from = d.window > 0 ? max(0, pos + 1 - d.window) : 0, total = pos + 1 - from;
    int each = max(keys, (total + (int)gridDim.y - 1) / (int)gridDim.y);
    int parts = (total + each - 1) / each, end = min(pos + 1, from + (part + 1) * each);
    from += part * each;
    if (part < parts) /* what is in the cache was written a step ago: no need to wait */
        fetch<T, DIM>(&f, &d, head, from, min(keys, end - from));
    dependency_wait();
    if (part >= parts)
        return;
    for (int i = warp; i <= d.group; i += WARPS) {
        bool query = i < d.group;
        const float *norm = query ? d.rope.q_norm : d.rope.k_norm;
        struct turn<DIM> turn;
        attend_find_turn<DIM>(&turn, norm, &d.rope, pos);
        attend_turn<DIM>(query ? s.q[i] : s.key,
                         query ? d.q + (head * d.group + i) * DIM : d.k + head * DIM, &turn,
                         norm != NULL, d.rope.eps, query ? d.scale : 1);
    }
    if (threadIdx.x < GROUP_MOST) {
        s.top[threadIdx.x] = -INFINITY;
        s.mass[threadIdx.x] = 0;
    }
    for (; from < end; from += keys) {
        int count = min(keys, end - from);
        place<T, DIM>(&s, &f);
        if (from + keys < end)
            fetch<T, DIM>(&f, &d, head, from + keys, min(keys, end - from - keys));
        __syncthreads();
        if (pos >= from && pos < from + count)
            add_new<T, DIM>(&s, &d, head, pos, pos - from);
        __syncthreads();
        weigh<T, DIM>(&s, d.group, count);
        mix<T, DIM>(acc, &s, d.group);
        __syncthreads();
    }
    put_out<T, DIM>(&d, &s, acc, head, part, parts);
    if (parts > 1 && last_block(&d.counters[head], (unsigned)parts))
        combine<DIM>(&d, head, parts);
}

static void launch(struct cuda *c, const struct decode *d)
{
    int parts = at_most(PARTS_MOST, div_up(d->kv.rows, tile<DT_F32>::keys));
    dim3 grid((unsigned)d->kv.heads, (unsigned)parts);
    if (d->kv.dim == 128)
        LAUNCH(c, (k_decode<DT_F32, 128>), grid, THREADS, 0, *d);
    else
        LAUNCH(c, (k_decode<DT_F32, 64>), grid, THREADS, 0, *d);
}

void cuda_rope_attend(struct device *dev, float *y, float *q, float *k, const float *v, int n,
                      const struct kv *kv, const struct attention *a, const struct rope *r,
                      const int32_t *pos)
{
    struct cuda *c = cuda_of(dev);
    int group = a->heads / kv->heads;
    if (n == 1 && cuda_attend_one(c, y, q, k, v, kv, a, r, pos))
        return;
    if (n > 1 || kv->type != DT_F32 || (kv->dim != 64 && kv->dim != 128) || group > GROUP_MOST ||
        !a->causal || kv->heads > CUDA_COUNTERS) {
        compose_rope_attend(dev, y, q, k, v, n, kv, a, r, pos);
        return;
    }
    struct decode d = {};
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
    d.parts =
        (float *)cuda_scratch(c, (size_t)a->heads * PARTS_MOST * (kv->dim + 2) * sizeof(float));
    launch(c, &d);
}

/* The block's largest v; room[32]. */
static __device__ __forceinline__ float block_max(float v, float *room)
{
    v = warp_max(v);
    if (threadIdx.x % WARP == 0)
        room[threadIdx.x / WARP] = v;
    __syncthreads();
    v = room[0];
    for (int i = 1; i < ANY_THREADS / WARP; i++)
        v = fmaxf(v, room[i]);
    __syncthreads();
    return v;
}

/* Block (head, row). Keys in tiles of one a thread; then every thread sums its dimensions. */
static __global__ void k_attend(float *y, const float *q, int n, struct kv kv, struct attention a,
                                const int32_t *pos)
{
    __shared__ float p[ANY_THREADS], room[WARP];
    float acc[ANY_DIMS] = {}, top = -INFINITY, mass = 0;
    dependents_start();
    dependency_wait();
    int head = blockIdx.x, row = blockIdx.y, kv_head = head / (a.heads / kv.heads);
    int end = a.causal ? *pos + row + 1 : n;
    int from = a.causal && a.window > 0 ? max(0, end - a.window) : 0;
    q += ((size_t)row * a.heads + head) * kv.dim;
    y += ((size_t)row * a.heads + head) * kv.dim;
    for (; from < end; from += ANY_THREADS) {
        int key = from + threadIdx.x, count = min(ANY_THREADS, end - from);
        float score = -INFINITY;
        if (key < end) {
            size_t at = ((size_t)(key % kv.rows) * kv.heads + kv_head) * kv.dim;
            score = 0;
            for (int i = 0; i < kv.dim; i++)
                score = fmaf(q[i], read_element(kv.type, kv.k, at + i), score);
            score *= a.scale;
        }
        float now = fmaxf(top, block_max(score, room));
        float shrink = expf(top - now), weight = key < end ? expf(score - now) : 0;
        p[threadIdx.x] = weight;
        mass = mass * shrink + block_sum(weight, room);
        top = now;
        for (int j = 0; j < ANY_DIMS; j++) {
            int i = threadIdx.x + j * ANY_THREADS;
            if (i >= kv.dim)
                break;
            float sum = acc[j] * shrink;
            for (int m = 0; m < count; m++) {
                size_t at = ((size_t)((from + m) % kv.rows) * kv.heads + kv_head) * kv.dim;
                sum = fmaf(p[m], read_element(kv.type, kv.v, at + i), sum);
            }
            acc[j] = sum;
        }
        __syncthreads();
    }
    for (int j = 0; j < ANY_DIMS; j++)
        if (threadIdx.x + j * ANY_THREADS < kv.dim)
            y[threadIdx.x + j * ANY_THREADS] = acc[j] / mass;
}

void cuda_attend(struct device *d, float *y, const float *q, int n, const struct kv *kv,
                 const struct attention *a, const int32_t *pos)
{
    dim3 grid((unsigned)a->heads, (unsigned)n);
    if (cuda_flash(cuda_of(d), y, q, n, kv, a, pos) ||
        cuda_attend_rows(cuda_of(d), y, q, n, kv, a, pos))
        return;
    LAUNCH(cuda_of(d), k_attend, grid, ANY_THREADS, 0, y, q, n, *kv, *a, pos);
}
