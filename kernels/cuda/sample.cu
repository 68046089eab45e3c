/*
 * kernels/cuda/sample.cu - choosing the next id, as kernels/plain/sample.c does: same order, same
 * random number, sums in double.
 *
 * One block. A candidate is a key of 64 bits: its logit as an integer that sorts alike, then the id
 * backwards, so that a larger key is a likelier candidate and no two are equal. Thresholds (the
 * k-th key, the last key of the nucleus, the key that was drawn) are found by halving the range of
 * keys and counting or weighing what lies above: every step is one pass over the keys.
 */
#include "kernels/cuda/math.cuh"

enum { THREADS = 1024, WARPS = THREADS / WARP };

typedef unsigned long long u64;

static const u64 NO_KEY = 0; /* may not be drawn */

struct choice {
    const float *logits;
    u64 *keys; /* [count] */
    int count;
    struct sampling s;
    uint32_t *seen;
    uint64_t *draw;
    int32_t *id;
};

struct shared {
    double room[WARPS];
    u64 best[WARPS];
    double value;
    u64 key;
};

static __device__ u64 scramble(u64 x)
{
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ x >> 27) * 0x94d049bb133111ebull;
    return x ^ x >> 31;
}

static __device__ double uniform(u64 seed, u64 draw)
{
    u64 key = scramble(seed + 0x9e3779b97f4a7c15ull);
    return (double)(scramble(key + draw * 0x9e3779b97f4a7c15ull) >> 11) * 0x1p-53;
}

/* exp(x) for x <= 0 by additions and multiplications alone, as on the host: no fma. */
static __device__ double exp_portable(double x)
{
    const double ln2_hi = 0x1.62e42fefa3800p-1, ln2_lo = 0x1.ef35793c76730p-45;
    const double inverse[15] = {0,        1.0,      1.0 / 2,  1.0 / 3,  1.0 / 4,
                                1.0 / 5,  1.0 / 6,  1.0 / 7,  1.0 / 8,  1.0 / 9,
                                1.0 / 10, 1.0 / 11, 1.0 / 12, 1.0 / 13, 1.0 / 14};
    if (!(x > -700))
        return 0;
    double k = floor(__dadd_rn(__dmul_rn(x, 1.4426950408889634), 0.5)), sum = 1;
    double r = __dsub_rn(__dsub_rn(x, __dmul_rn(k, ln2_hi)), __dmul_rn(k, ln2_lo));
#pragma unroll
    for (int i = 14; i > 0; i--)
        sum = __dadd_rn(1, __dmul_rn(__dmul_rn(sum, r), inverse[i]));
    return ldexp(sum, (int)k);
}

/* Larger floats, larger numbers; never 0 for a number. */
static __device__ u64 key_of(float l, int id)
{
    unsigned u = __float_as_uint(l == 0 ? 0.0f : l);
    u = u & 0x80000000u ? ~u : u | 0x80000000u;
    return (u64)u << 32 | (unsigned)~id;
}

static __device__ float logit_of(u64 key)
{
    unsigned u = (unsigned)(key >> 32);
    return __uint_as_float(u & 0x80000000u ? u & 0x7fffffffu : ~u);
}

static __device__ int id_of(u64 key)
{
    return (int)~(unsigned)key;
}

static __device__ u64 make_key(const struct choice *c, int i)
{
    const struct sampling *s = &c->s;
    float l = c->logits[i], penalty = s->repetition_penalty > 0 ? s->repetition_penalty : 1;
    if (c->seen != NULL && (c->seen[i >> 5] >> (i & 31) & 1u))
        l = l > 0 ? __fdiv_rn(l, penalty) : l * penalty;
    if ((s->limit > 0 && i >= s->limit && i != s->keep) || l != l)
        return NO_KEY;
    return key_of(s->temperature > 0 ? __fdiv_rn(l, s->temperature) : l, i);
}

static __device__ u64 block_best(u64 key, struct shared *s)
{
    for (int m = WARP / 2; m > 0; m /= 2) {
        u64 other = __shfl_xor_sync(0xffffffffu, key, m);
        key = other > key ? other : key;
    }
    if (threadIdx.x % WARP == 0)
        s->best[threadIdx.x / WARP] = key;
    __syncthreads();
    key = s->best[0];
    for (int i = 1; i < WARPS; i++)
        key = s->best[i] > key ? s->best[i] : key;
    __syncthreads();
    return key;
}

static __device__ double block_total(double v, struct shared *s)
{
    for (int m = WARP / 2; m > 0; m /= 2)
        v += __shfl_xor_sync(0xffffffffu, v, m);
    if (threadIdx.x % WARP == 0)
        s->room[threadIdx.x / WARP] = v;
    __syncthreads();
    v = 0;
    for (int i = 0; i < WARPS; i++)
        v += s->room[i];
    __syncthreads();
    return v;
}

static __device__ int count_above(const struct choice *c, u64 least)
{
    int n = 0;
    for (int from = 0; from < c->count; from += THREADS) {
        int i = from + threadIdx.x;
        n += __syncthreads_count(i < c->count && c->keys[i] >= least);
    }
    return n;
}

/* Mass of keys in [least, below). */
static __device__ double mass_between(const struct choice *c, struct shared *s, u64 least,
                                      u64 below, float top)
{
    double sum = 0;
    for (int i = threadIdx.x; i < c->count; i += THREADS)
        if (c->keys[i] >= least && c->keys[i] < below)
            sum += exp_portable((double)logit_of(c->keys[i]) - top);
    return block_total(sum, s);
}

/* The largest key with at least k keys not below it. */
static __device__ u64 kth_key(const struct choice *c, int k)
{
    u64 key = 0;
    for (int bit = 63; bit >= 0; bit--) {
        u64 next = key | 1ull << bit;
        if (count_above(c, next) >= k)
            key = next;
    }
    return key;
}

/* The least key that stays in the nucleus: what is likelier than it weighs less than top_p. */
static __device__ u64 nucleus_key(const struct choice *c, struct shared *s, u64 least, u64 best,
                                  float top, double all)
{
    u64 low = least, high = best; /* high stays; the first that stays lies in [low, high] */
    while (low < high) {
        u64 middle = low + (high - low) / 2;
        double head = mass_between(c, s, middle + 1, ~0ull, top);
        if (all - head > (1 - (double)c->s.top_p) * all)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

enum { SORTED_MOST = 128 };

/* Few candidates: sorted, likeliest last, then what the host does, in its order. */
struct sorted {
    u64 key[SORTED_MOST];
    double mass[SORTED_MOST];
    int n;
};

static __device__ void sort_above(const struct choice *c, struct sorted *o, struct shared *s,
                                  u64 least, float top)
{
    __shared__ u64 found[SORTED_MOST];
    if (threadIdx.x == 0)
        o->n = 0;
    __syncthreads();
    for (int i = threadIdx.x; i < c->count; i += THREADS)
        if (c->keys[i] >= least)
            found[atomicAdd(&o->n, 1)] = c->keys[i];
    __syncthreads();
    if (threadIdx.x < o->n) {
        u64 mine = found[threadIdx.x];
        int rank = 0;
        for (int j = 0; j < o->n; j++)
            rank += found[j] < mine;
        o->key[rank] = mine;
        o->mass[rank] = exp_portable((double)logit_of(mine) - top);
    }
    __syncthreads();
}

/* One thread: the nucleus, then the walk from the least likely on. */
static __device__ u64 pick_sorted(const struct choice *c, const struct sorted *o, double u)
{
    double total = 0, sum = 0;
    int stay = o->n;
    for (int i = 0; i < o->n; i++)
        total += o->mass[i];
    if (c->s.top_p > 0 && c->s.top_p < 1) {
        double all = total, head = 0;
        for (stay = 0; stay < o->n && (stay == 0 || all - head > (1 - (double)c->s.top_p) * all);)
            head += o->mass[o->n - 1 - stay++];
        total = head;
    }
    u64 key = o->key[o->n - stay];
    for (int i = o->n - stay; i < o->n; i++) {
        if (o->mass[i] > 0)
            key = o->key[i];
        sum += o->mass[i];
        if (sum > u * total)
            break;
    }
    return key;
}

/* Many candidates that stay: the least key whose mass with everything below it passes u. */
static __device__ u64 pick_above(const struct choice *c, struct shared *s, u64 least, u64 best,
                                 float top, double u)
{
    double total = mass_between(c, s, least, ~0ull, top);
    u64 low = least, high = best;
    while (low < high) {
        u64 middle = low + (high - low) / 2;
        if (mass_between(c, s, least, middle + 1, top) > u * total)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

/* Nothing is cut: the walk is in the order of ids. The id that passes u * total is found by
 * halving. */
static __device__ u64 pick_any(const struct choice *c, struct shared *s, float top, double u)
{
    double total = mass_between(c, s, 1, ~0ull, top);
    int low = 0, high = c->count - 1;
    while (low < high) {
        int middle = low + (high - low) / 2;
        double sum = 0;
        for (int i = threadIdx.x; i <= middle; i += THREADS)
            if (c->keys[i] != NO_KEY)
                sum += exp_portable((double)logit_of(c->keys[i]) - top);
        if (block_total(sum, s) > u * total)
            high = middle;
        else
            low = middle + 1;
    }
    return key_of(0, low);
}

/* The key that is drawn; `best` is the likeliest one. */
static __device__ u64 choose(const struct choice *c, struct shared *s, struct sorted *o, u64 best)
{
    float top = logit_of(best);
    double u = uniform(c->s.seed, *c->draw);
    int n = count_above(c, 1), k = c->s.top_k;
    bool few = k > 0 && k<n, nucleus = c->s.top_p> 0 && c->s.top_p < 1;
    if (isinf(top))
        return best;
    if (!few && !nucleus)
        return pick_any(c, s, top, u);
    u64 least = few ? kth_key(c, k) : 1;
    if ((few ? k : n) <= SORTED_MOST) {
        sort_above(c, o, s, least, top);
        if (threadIdx.x == 0)
            s->key = pick_sorted(c, o, u);
        __syncthreads();
        return s->key;
    }
    if (nucleus)
        least = nucleus_key(c, s, least, best, top, mass_between(c, s, least, ~0ull, top));
    return pick_above(c, s, least, best, top, u);
}

static __device__ void finish(const struct choice *c, u64 key)
{
    int id = key == NO_KEY ? (c->s.limit > 0 ? c->s.keep : 0) : id_of(key);
    *c->id = id;
    (*c->draw)++;
    if (c->seen != NULL)
        c->seen[id >> 5] |= 1u << (id & 31);
}

static __global__ void __launch_bounds__(THREADS) k_sample(struct choice c)
{
    extern __shared__ u64 near[];
    __shared__ struct shared s;
    __shared__ struct sorted o;
    u64 best = NO_KEY;
    dependents_start();
    dependency_wait();
    if (c.keys == NULL)
        c.keys = near;
    for (int i = threadIdx.x; i < c.count; i += THREADS) {
        c.keys[i] = make_key(&c, i);
        best = c.keys[i] > best ? c.keys[i] : best;
    }
    best = block_best(best, &s);
    if (best != NO_KEY)
        best = choose(&c, &s, &o, best);
    if (threadIdx.x == 0)
        finish(&c, best);
}

/* The best of each block, then the last block has the best of all. */
static __global__ void __launch_bounds__(THREADS) k_greedy(struct choice c, unsigned *counter)
{
    __shared__ struct shared s;
    u64 best = NO_KEY;
    dependents_start();
    dependency_wait();
    for (int i = blockIdx.x * THREADS + threadIdx.x; i < c.count; i += gridDim.x * THREADS) {
        u64 key = make_key(&c, i);
        best = key > best ? key : best;
    }
    best = block_best(best, &s);
    if (threadIdx.x == 0)
        c.keys[blockIdx.x] = best;
    if (!last_block(counter, gridDim.x))
        return;
    best = block_best(threadIdx.x < gridDim.x ? c.keys[threadIdx.x] : NO_KEY, &s);
    if (threadIdx.x == 0)
        finish(&c, best);
}

enum { NEAR_MOST = 4096, GREEDY_BLOCKS = 128 }; /* keys in shared memory; blocks at most */

void cuda_sample(struct device *d, int32_t *id, const float *logits, int count,
                 const struct sampling *s, uint32_t *seen, uint64_t *draw)
{
    struct cuda *c = cuda_of(d);
    struct choice how = {};
    how.logits = logits;
    how.count = count;
    how.s = *s;
    how.seen = seen;
    how.draw = draw;
    how.id = id;
    if (!(s->temperature > 0)) {
        how.keys = (u64 *)cuda_scratch(c, GREEDY_BLOCKS * sizeof(u64));
        int grid = at_most(GREEDY_BLOCKS, div_up(count, THREADS));
        LAUNCH(c, k_greedy, grid, THREADS, 0, how, c->counters);
        return;
    }
    size_t keys = (size_t)count * sizeof(u64), near = count <= NEAR_MOST ? keys : 0;
    if (near == 0)
        how.keys = (u64 *)cuda_scratch(c, keys);
    LAUNCH(c, k_sample, 1, THREADS, near, how);
}
