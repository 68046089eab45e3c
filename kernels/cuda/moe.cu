/*
 * kernels/cuda/moe.cu - a mixture of experts for one row: three launches.
 *
 *     norm_linear    a = rms_norm(x), logits of all experts and of the shared expert's gate
 *     k_up           every block finds the k best by itself (a rank is a count of larger logits),
 *                    then h = silu(gate a) * (up a) of the chosen and the shared expert
 *     k_down         x += sum over all h of weight * down h: a warp adds up a row of all experts
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
    int32_t *ids;   /* of the chosen; given when logits is NULL, else also written */
    float *weights; /* likewise */
    float *h;       /* [k * inner + shared inner] */
    float *y;       /* [hidden] */
};

struct choice {
    int id[K_MOST];
    __align__(16) float all[EXPERTS_MOST];
};

/* The k largest logits, the lower id among equals: every thread finds the rank of one. */
static __device__ __forceinline__ void choose(struct choice *s, const struct decode *d)
{
    int e = threadIdx.x, rank = 0;
    float mine = e < d->count ? d->logits[e] : -INFINITY;
    if (mine != mine)
        mine = -INFINITY; /* not a number: some expert is taken all the same */
    s->all[e] = mine;
    __syncthreads();
    for (int j = 0; j < d->count && e < d->count; j += 4) {
        float4 l = *(const float4 *)&s->all[j];
        rank += l.x > mine || (l.x == mine && j < e);
        rank += l.y > mine || (l.y == mine && j + 1 < e);
        rank += l.z > mine || (l.z == mine && j + 2 < e);
        rank += l.w > mine || (l.w == mine && j + 3 < e);
    }
    if (e < d->count && rank < d->k)
        s->id[rank] = e;
    __syncthreads();
}

/* One block says what was chosen, and the weights: exp(l - top) / sum over the chosen or over all.
 */
static __device__ __forceinline__ void tell_choice(const struct choice *s, const struct decode *d)
{
    __shared__ float room[WARP];
    int j = threadIdx.x;
    float top = s->all[s->id[0]], sum = 0;
    if (d->renorm)
        for (int i = 0; i < d->k; i++)
            sum += expf(s->all[s->id[i]] - top);
    else
        sum = block_sum(j < d->count ? expf(s->all[j] - top) : 0, room);
    if (j < d->k) {
        d->ids[j] = s->id[j];
        d->weights[j] = expf(s->all[s->id[j]] - top) / sum;
    }
}

/* A warp takes row r of gate and up of one of the chosen, or of the shared expert. */
template <enum dtype T>
static __global__ void __launch_bounds__(GEMV_THREADS, GEMV_BLOCKS) k_up(struct decode d)
{
    extern __shared__ __align__(16) float xs[];
    __shared__ struct choice s;
    int units = d.e.hidden / UNIT, routed = d.k * d.e.inner, total = routed + d.shared.inner;
    int task = blockIdx.x * GEMV_WARPS + threadIdx.x / WARP, lane = threadIdx.x % WARP;
    dependents_start();
    dependency_wait();
#pragma unroll 4
    for (int i = threadIdx.x; i < d.e.hidden; i += GEMV_THREADS)
        xs[plane_index(i, units)] = d.a[i];
    if (d.logits != NULL)
        choose(&s, &d);
    else if (threadIdx.x < d.k)
        s.id[threadIdx.x] = d.ids[threadIdx.x];
    __syncthreads();
    for (; task < total; task += gridDim.x * GEMV_WARPS) {
        bool own = task < routed;
        size_t row = (size_t)(own ? task % d.e.inner : task - routed) * units;
        size_t step = own ? (size_t)s.id[task / d.e.inner] * d.e.step : 0;
        const uint4 *gate = (const uint4 *)((own ? d.e.gate : d.shared.gate) + step) + row;
        const uint4 *up = (const uint4 *)((own ? d.e.up : d.shared.up) + step) + row;
        float acc[2] = {};
        for (int at = 0; at < units; at += CHUNK / 2 * WARP) {
            uint4 w[CHUNK];
#pragma unroll
            for (int j = 0; j < CHUNK; j++) {
                int u = at + j / 2 * WARP + lane;
                w[j] = u < units ? fetch_unit((j % 2 ? up : gate) + u) : make_uint4(0, 0, 0, 0);
            }
#pragma unroll
            for (int j = 0; j < CHUNK; j++) {
                int u = at + j / 2 * WARP + lane;
                if (u < units)
                    acc[j % 2] += dot_unit<T>(w[j], xs, u, units);
            }
        }
        float v = warp_sum(acc[0]), z = warp_sum(acc[1]);
        if (lane == 0)
            d.h[task] = silu(v) * z;
    }
    if (blockIdx.x == 0 && d.logits != NULL)
        tell_choice(&s, &d);
}

/* Where unit u of row 0 of all chosen down matrices, one behind the other, lies. */
static __device__ __forceinline__ const uint4 *down_unit(const struct decode *d, const int *id,
                                                         int u)
{
    int each = d->e.inner / UNIT, part = u / each;
    if (part < d->k)
        return (const uint4 *)(d->e.down + id[part] * d->e.step_down) + u % each;
    return (const uint4 *)d->shared.down + u - d->k * each;
}

/* One row of all chosen down matrices a warp. The first weights are under way before h is looked
 * at; h takes the experts' weights on its way to shared memory. */
template <enum dtype T>
static __global__ void __launch_bounds__(GEMV_THREADS, GEMV_BLOCKS) k_down(struct decode d)
{
    extern __shared__ __align__(16) float hs[];
    __shared__ int id[K_MOST];
    __shared__ float weight[K_MOST + 1];
    int routed = d.k * d.e.inner, units = (routed + d.shared.inner) / UNIT;
    int own = routed / UNIT, each = d.e.inner / UNIT, other = d.shared.inner / UNIT;
    const uint4 **from = (const uint4 **)(hs + units * UNIT);
    int row = blockIdx.x * GEMV_WARPS + threadIdx.x / WARP, lane = threadIdx.x % WARP;
    bool staged = false;
    dependents_start();
    dependency_wait();
    if (threadIdx.x < d.k) {
        id[threadIdx.x] = d.ids[threadIdx.x];
        weight[threadIdx.x] = d.weights[threadIdx.x];
    }
    if (threadIdx.x == 0)
        weight[d.k] = d.shared.inner > 0 ? 1 / (1 + expf(-*d.share)) : 0;
    __syncthreads();
    for (int u = threadIdx.x; u < units; u += GEMV_THREADS)
        from[u] = down_unit(&d, id, u);
    __syncthreads();
    for (; row < d.e.hidden || !staged; row += gridDim.x * GEMV_WARPS) {
        float acc = 0;
        for (int at = 0; at < units; at += CHUNK * WARP) {
            uint4 w[CHUNK];
#pragma unroll
            for (int j = 0; j < CHUNK; j++) {
                int u = at + j * WARP + lane;
                w[j] = make_uint4(0, 0, 0, 0);
                if (u < units && row < d.e.hidden)
                    w[j] = fetch_unit(from[u] + (size_t)row * (u < own ? each : other));
            }
            if (!staged) {
#pragma unroll 4
                for (int i = threadIdx.x; i < units * UNIT; i += GEMV_THREADS)
                    hs[plane_index(i, units)] = d.h[i] * weight[min(i / d.e.inner, d.k)];
                __syncthreads();
                staged = true;
            }
#pragma unroll
            for (int j = 0; j < CHUNK; j++) {
                int u = at + j * WARP + lane;
                if (u < units)
                    acc += dot_unit<T>(w[j], hs, u, units);
            }
        }
        acc = warp_sum(acc);
        if (lane == 0 && row < d.e.hidden)
            d.y[row] += acc;
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

template <enum dtype T> static void launch(struct cuda *c, const struct decode *d)
{
    int most = c->sms * GEMV_BLOCKS, h = d->k * d->e.inner + d->shared.inner;
    size_t x = (size_t)d->e.hidden * sizeof(float);
    size_t hs = (size_t)h * sizeof(float) + (size_t)h / UNIT * sizeof(uint4 *);
    LAUNCH(c, k_up<T>, at_most(div_up(h, GEMV_WARPS), most), GEMV_THREADS, x, *d);
    LAUNCH(c, k_down<T>, at_most(div_up(d->e.hidden, GEMV_WARPS), most), GEMV_THREADS, hs, *d);
}

static void decode(struct cuda *c, struct decode *d)
{
    size_t h = (size_t)d->k * d->e.inner + d->shared.inner;
    d->h = (float *)cuda_scratch(c, h * sizeof(float));
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
    if (n > 1 || !decodes(&one.e, &one.shared, experts, k)) {
        cuda_experts_any(d, y, x, n, e, experts, ids, weights, k);
        return;
    }
    one.a = x;
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
