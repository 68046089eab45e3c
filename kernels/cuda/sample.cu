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

enum {
    WARPS_MOST = 32,
    FAR_THREADS = WARPS_MOST * WARP, /* many keys, in device memory */
    NEAR_THREADS = 256,              /* few keys, in registers and shared memory */
    NEAR_EACH = 16,
    NEAR_MOST = NEAR_THREADS * NEAR_EACH,
    GREEDY_BLOCKS = 128,
};

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
    double room[WARPS_MOST];
    u64 best[WARPS_MOST];
    int part[2][WARPS_MOST];
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
    for (int i = 1; i < blockDim.x / WARP; i++)
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
    for (int i = 0; i < blockDim.x / WARP; i++)
        v += s->room[i];
    __syncthreads();
    return v;
}

/* How many keys are not below `least`. */
static __device__ int count_above(const struct choice *c, u64 least)
{
    int n = 0;
    for (int from = 0; from < c->count; from += blockDim.x) {
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
    for (int i = threadIdx.x; i < c->count; i += blockDim.x)
        if (c->keys[i] >= least && c->keys[i] < below)
            sum += exp_portable((double)logit_of(c->keys[i]) - top);
    return block_total(sum, s);
}

/* Is this bit of a key the same in all of them? Ids stand there backwards: ones above the bits that
 * ids have. */
static __device__ bool idle_bit(int bit, int count)
{
    return bit < 32 && bit >= 32 - __clz(count);
}

/* As kth_key for keys that this thread holds: one barrier a bit. */
static __device__ u64 kth_near(const struct choice *c, struct shared *s, int k)
{
    u64 own[NEAR_EACH], key = 0;
    int phase = 0;
    for (int j = 0; j < NEAR_EACH; j++) {
        int i = threadIdx.x + j * NEAR_THREADS;
        own[j] = i < c->count ? c->keys[i] : NO_KEY;
    }
    for (int bit = 63; bit >= 0; bit--) {
        u64 next = key | 1ull << bit;
        int n = 0;
        if (idle_bit(bit, c->count)) {
            key = next;
            continue;
        }
        for (int j = 0; j < NEAR_EACH; j++)
            n += own[j] >= next;
        n = __reduce_add_sync(0xffffffffu, n);
        if (threadIdx.x % WARP == 0)
            s->part[phase][threadIdx.x / WARP] = n;
        __syncthreads();
        n = 0;
        for (int w = 0; w < NEAR_THREADS / WARP; w++)
            n += s->part[phase][w];
        phase ^= 1;
        if (n >= k)
            key = next;
        if (n == k)
            break;
    }
    return key;
}

/* The largest key with at least k keys not below it; stops early when exactly k are. */
static __device__ u64 kth_key(const struct choice *c, int k)
{
    u64 key = 0;
    for (int bit = 63; bit >= 0; bit--) {
        u64 next = key | 1ull << bit;
        if (idle_bit(bit, c->count)) {
            key = next;
            continue;
        }
        int n = count_above(c, next);
        if (n >= k)
            key = next;
        if (n == k)
            break;
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

enum { SORTED_MOST = 128, EACH = SORTED_MOST / WARP };

/* Few candidates, likeliest last. */
struct sorted {
    u64 found[SORTED_MOST], key[SORTED_MOST];
    double mass[SORTED_MOST];
    int n;
};

static __device__ void sort_above(const struct choice *c, struct sorted *o, u64 least, float top)
{
    if (threadIdx.x == 0)
        o->n = 0;
    __syncthreads();
    for (int i = threadIdx.x; i < c->count; i += blockDim.x)
        if (c->keys[i] >= least)
            o->found[atomicAdd(&o->n, 1)] = c->keys[i];
    __syncthreads();
    if (threadIdx.x < SORTED_MOST)
        o->mass[threadIdx.x] = 0;
    __syncthreads();
    if (threadIdx.x < o->n) {
        u64 mine = o->found[threadIdx.x];
        int rank = 0;
        for (int j = 0; j < o->n; j++)
            rank += o->found[j] < mine;
        o->key[rank] = mine;
        o->mass[rank] = exp_portable((double)logit_of(mine) - top);
    }
    __syncthreads();
}

/* Sum of v over the lanes up to this one. */
static __device__ double warp_prefix(double v, int lane)
{
    for (int m = 1; m < WARP; m *= 2) {
        double below = __shfl_up_sync(0xffffffffu, v, m);
        v += lane >= m ? below : 0;
    }
    return v;
}

/* One warp; lane l has the candidates EACH l .. EACH l + EACH - 1, least likely first. Those from
 * `first` on stay: the nucleus leaves out what together weighs at most 1 - top_p. Then the walk. */
static __device__ u64 pick_sorted(const struct choice *c, const struct sorted *o, double u)
{
    int lane = threadIdx.x, n = o->n, first = 0, at = n;
    double upto[EACH], sum = 0;
    for (int i = 0; i < EACH; i++) {
        sum += o->mass[lane * EACH + i];
        upto[i] = sum;
    }
    double before = warp_prefix(sum, lane) - sum;
    double all = __shfl_sync(0xffffffffu, before + sum, WARP - 1), cut = 0;
    if (c->s.top_p > 0 && c->s.top_p < 1) {
        first = n - 1;
        for (int i = EACH - 1; i >= 0; i--)
            if (lane * EACH + i < n && before + upto[i] > (1 - (double)c->s.top_p) * all)
                first = min(first, lane * EACH + i);
        first = __reduce_min_sync(0xffffffffu, first);
        double own = 0;
        for (int i = 0; i < EACH; i++)
            if (lane * EACH + i < first)
                own = before + upto[i];
        for (int m = WARP / 2; m > 0; m /= 2)
            own = fmax(own, __shfl_xor_sync(0xffffffffu, own, m));
        cut = own;
    }
    for (int i = EACH - 1; i >= 0; i--) {
        int k = lane * EACH + i;
        if (k >= first && k < n && o->mass[k] > 0 && before + upto[i] - cut > u * (all - cut))
            at = k;
    }
    at = __reduce_min_sync(0xffffffffu, at);
    return o->key[min(at, n - 1)];
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
        for (int i = threadIdx.x; i <= middle; i += blockDim.x)
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
    u64 least = 1;
    if (few)
        least = blockDim.x == NEAR_THREADS ? kth_near(c, s, k) : kth_key(c, k);
    if ((few ? k : n) <= SORTED_MOST) {
        sort_above(c, o, least, top);
        if (threadIdx.x < WARP) {
            u64 key = pick_sorted(c, o, u);
            if (threadIdx.x == 0)
                s->key = key;
        }
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

static __global__ void __launch_bounds__(FAR_THREADS) k_sample(struct choice c)
{
    extern __shared__ u64 near[];
    __shared__ struct shared s;
    __shared__ struct sorted o;
    u64 best = NO_KEY;
    dependency_wait();
    if (c.keys == NULL)
        c.keys = near;
    for (int i = threadIdx.x; i < c.count; i += blockDim.x) {
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
static __global__ void __launch_bounds__(FAR_THREADS) k_greedy(struct choice c, unsigned *counter)
{
    __shared__ struct shared s;
    u64 best = NO_KEY;
    dependency_wait();
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < c.count; i += gridDim.x * blockDim.x) {
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

void cuda_sample(struct device *d, int32_t *id, const float *logits, int count,
                 const struct sampling *s, uint32_t *seen, uint64_t *draw)
{
    struct cuda *c = cuda_of(d);
    struct choice how = {};
    CUDA_MUST(cudaSetDevice(c->ordinal));
    how.logits = logits;
    how.count = count;
    how.s = *s;
    how.seen = seen;
    how.draw = draw;
    how.id = id;
    if (!(s->temperature > 0)) {
        how.keys = (u64 *)cuda_scratch(c, GREEDY_BLOCKS * sizeof(u64));
        int grid = at_most(GREEDY_BLOCKS, div_up(count, FAR_THREADS));
        LAUNCH(c, k_greedy, grid, FAR_THREADS, 0, how, c->counters);
        return;
    }
    size_t keys = (size_t)count * sizeof(u64), near = count <= NEAR_MOST ? keys : 0;
    if (near == 0)
        how.keys = (u64 *)cuda_scratch(c, keys);
    LAUNCH(c, k_sample, 1, near ? NEAR_THREADS : FAR_THREADS, near, how);
}
