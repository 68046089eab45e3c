/*
 * kernels/cuda/moe.cu - a mixture of experts for one row: three launches.
 *
 *     norm_linear    a = rms_norm(x), logits of all experts and of the shared expert's gate
 *     k_up           every block finds the k best by itself (a rank is a count of larger logits),
 *                    then h = silu(gate a) * (up a) of the chosen and the shared expert
 *     k_down         x += sum over all h of weight * down h: a block some rows of all experts
 *
 * Sums are taken in a fixed order, so the same input gives the same bits.
 */
#include "kernels/cuda/moe.cuh"

#include "kernels/cuda/gemv.cuh"

enum { EXPERTS_MOST = GEMV_THREADS, K_MOST = 16 };

struct decode {
    struct regular e;
    struct regular shared; /* one expert; gate NULL = none */
    const float *a, *logits, *share;
    int count, k, renorm;
    unsigned inverse; /* 2^32 / inner, rounded up */
    int32_t *ids;     /* of the chosen, below count; given when logits is NULL, else written */
    float *weights;   /* likewise */
    float *h;         /* [k * inner + shared inner] */
    float *y;         /* [hidden] */
};

struct choice {
    int id[K_MOST];
    __align__(16) unsigned order[EXPERTS_MOST];
};

/* Whole numbers in the order of logits. */
static __device__ __forceinline__ unsigned to_order(float l)
{
    unsigned u = __float_as_uint(l == l ? l : -INFINITY); /* some expert is taken all the same */
    return u & 0x80000000u ? ~u : u | 0x80000000u;
}

static __device__ __forceinline__ float from_order(unsigned o)
{
    return __uint_as_float(o & 0x80000000u ? o & 0x7fffffffu : ~o);
}

/* The k largest logits, the lower id among equals; `logit` is that of expert threadIdx.x. Two
 * threads find the rank of one: how many come before it. */
static __device__ __forceinline__ void choose(struct choice *s, const struct decode *d, float logit)
{
    int half = threadIdx.x % 2;
    s->order[threadIdx.x] = (int)threadIdx.x < d->count ? to_order(logit) : 0;
    __syncthreads();
    for (int from = 0; from < d->count; from += GEMV_THREADS / 2) {
        int e = from + threadIdx.x / 2, rank = 0;
        unsigned mine = s->order[e];
#pragma unroll 4
        for (int j = 4 * half; j < d->count; j += 8) {
            uint4 o = *(const uint4 *)&s->order[j];
            unsigned least = j + 3 < e ? mine : mine + 1;
            rank += (o.x >= least) + (o.y >= least) + (o.z >= least) + (o.w >= least);
        }
        for (int j = e / 4 * 4; j < e; j++) /* equals just before it */
            rank += half == 0 && s->order[j] == mine;
        rank += __shfl_xor_sync(0xffffffffu, rank, 1);
        if (half == 0 && e < d->count && rank < d->k)
            s->id[rank] = e;
    }
    __syncthreads();
}

/* One warp says what was chosen, and the weights: exp(l - top) / sum over the chosen or all. */
static __device__ __forceinline__ void tell_choice(const struct choice *s, const struct decode *d)
{
    int lane = threadIdx.x % WARP;
    float top = from_order(s->order[s->id[0]]), sum = 0;
    float mine = lane < d->k ? expf(from_order(s->order[s->id[lane]]) - top) : 0;
    for (int e = lane; e < d->count && !d->renorm; e += WARP)
        sum += expf(from_order(s->order[e]) - top);
    sum = warp_sum(d->renorm ? mine : sum);
    if (lane < d->k) {
        d->ids[lane] = s->id[lane];
        d->weights[lane] = mine / sum;
    }
}

/* Which of the chosen, one behind the other, has intermediate i. */
static __device__ __forceinline__ int whose(int i, const struct decode *d)
{
    return (int)__umulhi((unsigned)i, d->inverse);
}

/* A warp takes row r of gate and up of one of the chosen, or of the shared expert.
 *
 * k_down may begin when every block of this kernel has passed dependents_start(). By then block 0
 * has told the choice, so that k_down finds it there and knows which weights to ask for; but only
 * this kernel's end makes it sure, and k_down looks again then. */
template <enum dtype T>
static __global__ void __launch_bounds__(GEMV_THREADS, GEMV_BLOCKS) k_up(struct decode d)
{
    extern __shared__ __align__(16) float xs[];
    __shared__ struct choice s;
    int units = d.e.hidden / UNIT, routed = d.k * d.e.inner, total = routed + d.shared.inner;
    int task = blockIdx.x * GEMV_WARPS + threadIdx.x / WARP, lane = threadIdx.x % WARP;
    dependency_wait();
    float logit = 0;
    if (d.logits != NULL && (int)threadIdx.x < d.count)
        logit = d.logits[threadIdx.x];
#pragma unroll 2
    for (int i = threadIdx.x; i < units * 2; i += GEMV_THREADS)
        place4(xs, i, units, ((const float4 *)d.a)[i]);
    if (d.logits != NULL)
        choose(&s, &d, logit);
    else if (threadIdx.x < d.k)
        s.id[threadIdx.x] = d.ids[threadIdx.x];
    if (blockIdx.x == 0 && d.logits != NULL && threadIdx.x < WARP) {
        tell_choice(&s, &d);
        __threadfence();
    }
    __syncthreads();
    dependents_start();
    for (; task < total; task += gridDim.x * GEMV_WARPS) {
        int part = whose(task, &d);
        bool own = task < routed;
        size_t row = (size_t)(own ? task - part * d.e.inner : task - routed) * units;
        size_t step = own ? (size_t)s.id[part] * d.e.step : 0;
        const uint4 *gate = (const uint4 *)((own ? d.e.gate : d.shared.gate) + step) + row;
        const uint4 *up = (const uint4 *)((own ? d.e.up : d.shared.up) + step) + row;
        float acc[2] = {};
        for (int at = lane; at < units; at += CHUNK / 2 * WARP) {
            uint4 w[CHUNK];
#pragma unroll
            for (int j = 0; j < CHUNK; j++) {
                int u = at + j / 2 * WARP;
                w[j] = u < units ? fetch_unit((j % 2 ? up : gate) + u) : make_uint4(0, 0, 0, 0);
            }
#pragma unroll
            for (int j = 0; j < CHUNK; j++)
                acc[j % 2] += dot_unit<T>(w[j], xs, min(at + j / 2 * WARP, units - 1), units);
        }
        float v = warp_sum(acc[0]), z = warp_sum(acc[1]);
        if (lane == 0)
            d.h[task] = silu(v) * z;
    }
}

/* A thread's C columns of units of the chosen down matrices, one behind the other. */
template <int C> struct columns {
    const uint4 *from[C]; /* of row 0; NULL = none */
    int pitch[C];         /* units of a row */
    int part[C];          /* among the chosen; k = the shared expert */
    int id[C];            /* of the chosen, as it was read */
};

template <int C>
static __device__ __forceinline__ void read_ids(int id[C], const struct columns<C> *f,
                                                const struct decode *d)
{
#pragma unroll
    for (int c = 0; c < C; c++)
        id[c] = __ldcg(d->ids + min(f->part[c], d->k - 1));
}

template <int C> static __device__ __forceinline__ bool same_ids(const int a[C], const int b[C])
{
    bool same = true;
#pragma unroll
    for (int c = 0; c < C; c++)
        same = same && a[c] == b[c];
    return same;
}

/* Whatever was read, the columns are those of an expert. */
template <int C>
static __device__ __forceinline__ void find_columns(struct columns<C> *f, const struct decode *d,
                                                    int units)
{
    int each = d->e.inner / UNIT;
#pragma unroll
    for (int c = 0; c < C; c++)
        f->part[c] = min(whose((c * GEMV_THREADS + threadIdx.x) * UNIT, d), d->k);
    read_ids<C>(f->id, f, d);
#pragma unroll
    for (int c = 0; c < C; c++) {
        int u = c * GEMV_THREADS + threadIdx.x, within = u - f->part[c] * each;
        bool own = f->part[c] < d->k;
        size_t id = min((unsigned)f->id[c], (unsigned)d->count - 1);
        const char *base = own ? d->e.down + id * d->e.step_down : d->shared.down;
        f->pitch[c] = own ? each : d->shared.inner / UNIT;
        f->from[c] = u < units ? (const uint4 *)base + within : NULL;
    }
}

static __device__ __forceinline__ void send_unit(uint4 *to, const uint4 *from)
{
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16;" ::"r"(
                     (unsigned)__cvta_generic_to_shared(to)),
                 "l"(from)
                 : "memory");
}

/* Units of `count` rows from `first` on, to ws[r][c][threadIdx.x]. */
template <int R, int C>
static __device__ __forceinline__ void send_rows(uint4 (*ws)[C][GEMV_THREADS],
                                                 const struct columns<C> *f, int first, int count)
{
#pragma unroll
    for (int c = 0; c < C; c++)
#pragma unroll
        for (int r = 0; r < R; r++)
            if (r < count && f->from[c] != NULL)
                send_unit(&ws[r][c][threadIdx.x], f->from[c] + (size_t)(first + r) * f->pitch[c]);
}

/* A thread's part of h to registers, times the experts' weights; zeros behind the end. */
template <int C>
static __device__ __forceinline__ void take_h(float4 *h, const struct columns<C> *f,
                                              const struct decode *d)
{
    float by[C];
#pragma unroll
    for (int c = 0; c < C; c++)
        by[c] = f->from[c] == NULL  ? 0
                : f->part[c] < d->k ? __ldcg(d->weights + f->part[c])
                                    : __ldcg(d->share);
#pragma unroll
    for (int i = 0; i < 2 * C; i++)
        h[i] = f->from[i / 2] != NULL ? *quarter(d->h, i) : make_float4(0, 0, 0, 0);
#pragma unroll
    for (int c = 0; c < C; c++)
        by[c] = f->part[c] < d->k ? by[c] : 1 / (1 + expf(-by[c]));
#pragma unroll
    for (int i = 0; i < 2 * C; i++)
        h[i] = times4(h[i], make_float4(by[i / 2], by[i / 2], by[i / 2], by[i / 2]));
}

/* R rows of all chosen down matrices a block, C columns of units a thread. The weights go to shared
 * memory, of which k_up needs little, while other blocks of k_up are still at work; a thread
 * touches there what it sent for. */
template <enum dtype T, int R, int C>
static __global__ void __launch_bounds__(GEMV_THREADS, C < 5 ? 4 : 2) k_down(struct decode d)
{
    extern __shared__ uint4 memory[];
    uint4(*ws)[C][GEMV_THREADS] = (uint4(*)[C][GEMV_THREADS])memory; /* [R] */
    int units = (d.k * d.e.inner + d.shared.inner) / UNIT, warp = threadIdx.x / WARP;
    struct columns<C> f;
    float4 h[2 * C];
    int id[C];
    bool waited = false;
    find_columns<C>(&f, &d, units);
    for (int first = blockIdx.x * R; first < d.e.hidden; first += gridDim.x * R) {
        int count = min(R, d.e.hidden - first);
        float old = 0;
        send_rows<R, C>(ws, &f, first, count);
        if (!waited) {
            dependents_start();
            dependency_wait();
            read_ids<C>(id, &f, &d);
            take_h<C>(h, &f, &d);
            if (!same_ids<C>(id, f.id)) { /* the choice was read before it was there */
                copies_wait_all();
                find_columns<C>(&f, &d, units);
                send_rows<R, C>(ws, &f, first, count);
            }
            waited = true;
        }
        if (warp < count && threadIdx.x % WARP == 0)
            old = d.y[first + warp];
        copies_wait_all();
#pragma unroll
        for (int r = 0; r < R; r++) {
            float sum = 0;
#pragma unroll
            for (int c = 0; c < C; c++)
                if (f.from[c] != NULL)
                    sum += dot8<T>(ws[r][c][threadIdx.x], h[2 * c], h[2 * c + 1]);
            *(float *)&ws[r][0][threadIdx.x] = sum;
        }
        __syncthreads();
        if (warp < count) {
            float sum = 0;
            for (int i = threadIdx.x % WARP; i < GEMV_THREADS; i += WARP)
                sum += *(const float *)&ws[warp][0][i];
            sum = warp_sum(sum);
            if (threadIdx.x % WARP == 0)
                d.y[first + warp] = old + sum;
        }
        __syncthreads();
    }
}

/* Does every matrix of `now` lie `step` bytes behind that of `before`, in the same shape? */
static bool follows(const struct expert *now, const struct expert *before, size_t step,
                    size_t step_down)
{
    return (const char *)now->gate.data == (const char *)before->gate.data + step &&
           (const char *)now->up.data == (const char *)before->up.data + step &&
           (const char *)now->down.data == (const char *)before->down.data + step_down &&
           now->gate.type == before->gate.type && now->up.type == before->up.type &&
           now->down.type == before->down.type;
}

static bool aligned(const void *p)
{
    return (uintptr_t)p % sizeof(uint4) == 0;
}

struct regular moe_regular(const struct expert *e, int experts)
{
    struct regular r = {}, none = {};
    r.type = e->gate.type;
    r.hidden = e->gate.cols;
    r.inner = e->gate.rows;
    if (experts > 1) {
        r.step = (size_t)((const char *)e[1].gate.data - (const char *)e[0].gate.data);
        r.step_down = (size_t)((const char *)e[1].down.data - (const char *)e[0].down.data);
    }
    if ((r.type != DT_BF16 && r.type != DT_F16) || e->up.type != r.type || e->down.type != r.type ||
        r.hidden % UNIT != 0 || r.inner % UNIT != 0 || !aligned(e->gate.data) ||
        !aligned(e->up.data) || !aligned(e->down.data) || r.step % sizeof(uint4) != 0 ||
        r.step_down % sizeof(uint4) != 0)
        return none;
    for (int i = 1; i < experts; i++)
        if (!follows(&e[i], &e[i - 1], r.step, r.step_down))
            return none;
    r.gate = (const char *)e->gate.data;
    r.up = (const char *)e->up.data;
    r.down = (const char *)e->down.data;
    return r;
}

template <enum dtype T, int R, int C>
static void launch_down(struct cuda *c, const struct decode *d)
{
    size_t ws = (size_t)R * C * GEMV_THREADS * sizeof(uint4);
    int grid = at_most(div_up(d->e.hidden, R), c->sms * GEMV_BLOCKS);
    cuda_shared_memory((const void *)k_down<T, R, C>, ws);
    LAUNCH(c, (k_down<T, R, C>), grid, GEMV_THREADS, ws, *d);
}

template <enum dtype T> static void launch(struct cuda *c, const struct decode *d)
{
    int most = c->sms * GEMV_BLOCKS, h = d->k * d->e.inner + d->shared.inner;
    size_t x = (size_t)d->e.hidden * sizeof(float);
    cuda_shared_memory((const void *)k_up<T>, x);
    LAUNCH(c, k_up<T>, at_most(div_up(h, GEMV_WARPS), most), GEMV_THREADS, x, *d);
    if (h <= 3 * GEMV_THREADS * UNIT && d->e.hidden > 4 * most)
        launch_down<T, 8, 3>(c, d);
    else if (h <= 2 * GEMV_THREADS * UNIT)
        launch_down<T, 4, 2>(c, d);
    else
        launch_down<T, 4, 5>(c, d);
}

static void decode(struct cuda *c, struct decode *d)
{
    size_t h = (size_t)d->k * d->e.inner + d->shared.inner;
    d->h = (float *)cuda_scratch(c, h * sizeof(float));
    d->inverse = 0xffffffffu / (unsigned)d->e.inner + 1;
    if (d->e.type == DT_BF16)
        launch<DT_BF16>(c, d);
    else
        launch<DT_F16>(c, d);
}

/* Do the two kernels above take it? */
static bool decodes(const struct regular *e, const struct regular *shared, int count, int k)
{
    int h = k * e->inner + shared->inner;
    return e->gate != NULL && count <= EXPERTS_MOST && k <= K_MOST && e->hidden <= 11 * 1024 &&
           h <= 9 * 1024 && (shared->inner == 0 || shared->type == e->type);
}

void cuda_experts(struct device *d, float *y, const float *x, int n, const struct expert *e,
                  int experts, const int32_t *ids, const float *weights, int k)
{
    struct cuda *c = cuda_of(d);
    struct decode one = {};
    one.e = moe_regular(e, experts);
    if (n > 1 && one.e.gate != NULL && one.e.hidden % 32 == 0 && one.e.inner % 32 == 0) {
        cuda_experts_many(d, y, x, n, &one.e, experts, ids, weights, k);
        return;
    }
    if (n > 1 || !aligned(x) || !decodes(&one.e, &one.shared, experts, k)) {
        cuda_experts_any(d, y, x, n, e, experts, ids, weights, k);
        return;
    }
    one.a = x;
    one.count = experts;
    one.k = k;
    one.ids = (int32_t *)(uintptr_t)ids;
    one.weights = (float *)(uintptr_t)weights;
    one.y = y;
    decode(c, &one);
}

void cuda_mixture(struct device *d, float *x, int n, const struct norm *norm, const struct moe *m)
{
    struct cuda *c = cuda_of(d);
    struct decode one = {};
    one.e = moe_regular(m->experts, m->count);
    if (m->shared->gate.data != NULL)
        one.shared = moe_regular(m->shared, 1);
    bool shared = m->shared->gate.data != NULL;
    if (n > 1 || !decodes(&one.e, &one.shared, m->count, m->k) ||
        (shared && one.shared.gate == NULL)) {
        compose_mixture(d, x, n, norm, m);
        return;
    }
    float *const y[] = {m->logits, m->share};
    const struct weight *const w[] = {m->router, m->shared_gate};
    cuda_norm_linear(d, y, m->a, x, 1, norm, w, shared ? 2 : 1);
    one.a = m->a;
    one.logits = m->logits;
    one.share = m->share;
    one.count = m->count;
    one.k = m->k;
    one.renorm = m->renorm;
    one.ids = m->ids;
    one.weights = m->weights;
    one.y = x;
    decode(c, &one);
}

/* A warp a row: k times the largest logit that was not taken. */
static __global__ void k_route(int32_t *ids, float *weights, const float *logits, int n,
                               int experts, int k, int renorm)
{
    int row = blockIdx.x, lane = threadIdx.x;
    dependents_start();
    dependency_wait();
    ids += (size_t)row * k;
    weights += (size_t)row * k;
    logits += (size_t)row * experts;
    float top = 0, sum = 0, last = INFINITY;
    int last_id = -1;
    for (int i = 0; i < k; i++) {
        float best = -INFINITY;
        int id = experts;
        for (int e = lane; e < experts; e += WARP) {
            float l = logits[e] == logits[e] ? logits[e] : -INFINITY;
            bool open = l < last || (l == last && e > last_id);
            if (open && (l > best || (l == best && e < id))) {
                best = l;
                id = e;
            }
        }
        for (int m = WARP / 2; m > 0; m /= 2) {
            float other = __shfl_xor_sync(0xffffffffu, best, m);
            int other_id = __shfl_xor_sync(0xffffffffu, id, m);
            if (other > best || (other == best && other_id < id)) {
                best = other;
                id = other_id;
            }
        }
        last = best;
        last_id = id;
        top = i == 0 ? best : top;
        sum += expf(best - top);
        if (lane == 0) {
            ids[i] = id < experts ? id : 0;
            weights[i] = expf(best - top);
        }
    }
    if (!renorm) {
        sum = 0;
        for (int e = lane; e < experts; e += WARP)
            sum += expf(logits[e] - top);
        sum = warp_sum(sum);
    }
    __syncwarp();
    for (int i = lane; i < k; i += WARP)
        weights[i] /= sum;
}

void cuda_route(struct device *d, int32_t *ids, float *weights, const float *logits, int n,
                int experts, int k, int renorm)
{
    LAUNCH(cuda_of(d), k_route, n, WARP, 0, ids, weights, logits, n, experts, k, renorm);
}
