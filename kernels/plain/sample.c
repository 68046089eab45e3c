/*
 * kernels/plain/sample.c - choosing the next id.
 *
 * Penalised, unsuppressed logits become candidates. Greedy takes the best one. Otherwise they are
 * brought in order of likelihood as far as top-k and top-p need it (a heap, so the tail of a large
 * vocabulary is never sorted), cut, and one is drawn by walking the cumulative sum.
 *
 * The same seed and draw number give the same id on every machine: exp is computed here with
 * additions and multiplications only, sums are double, order is (logit falling, id rising), and the
 * random number is a hash of (seed, draw) rather than the state of a generator.
 */
#include "kernels/plain/plain.h"

#include <math.h>
#include <stdbool.h>

struct candidate {
    float logit;
    int32_t id;
};

/* The finaliser of SplitMix64: a bijection of 64 bits in which every input bit moves every output
 * bit with probability about one half. */
static uint64_t scramble(uint64_t x)
{
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

/* Uniform in [0, 1) with 53 bits. */
static double uniform(uint64_t seed, uint64_t draw)
{
    uint64_t key = scramble(seed + 0x9e3779b97f4a7c15u);
    return (double)(scramble(key + draw * 0x9e3779b97f4a7c15u) >> 11) * 0x1p-53;
}

/* exp(x) for x <= 0, to about 1e-15: x = k ln 2 + r with |r| <= ln(2)/2, exp(r) by its series. */
static double exp_portable(double x)
{
    static const double inverse[15] = {0,        1.0,      1.0 / 2,  1.0 / 3,  1.0 / 4,
                                       1.0 / 5,  1.0 / 6,  1.0 / 7,  1.0 / 8,  1.0 / 9,
                                       1.0 / 10, 1.0 / 11, 1.0 / 12, 1.0 / 13, 1.0 / 14};
    static const double ln2_hi = 0x1.62e42fefa3800p-1, ln2_lo = 0x1.ef35793c76730p-45;
    if (!(x > -700))
        return 0;
    double k = floor(x * 1.4426950408889634 + 0.5), r = x - k * ln2_hi - k * ln2_lo, sum = 1;
    for (int i = 14; i > 0; i--)
        sum = 1 + sum * r * inverse[i];
    return ldexp(sum, (int)k);
}

static bool likelier(const struct candidate *a, const struct candidate *b)
{
    return a->logit > b->logit || (a->logit == b->logit && a->id < b->id);
}

/* Restores the heap (the likeliest on top) below slot i. */
static void sink(struct candidate *c, int n, int i)
{
    struct candidate moving = c[i];
    for (int child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && likelier(&c[child + 1], &c[child]))
            child++;
        if (!likelier(&c[child], &moving))
            break;
        c[i] = c[child];
    }
    c[i] = moving;
}

/* Moves the likeliest of c[n] to c[n - 1]; c[n - 1] is a heap again. */
static void pop(struct candidate *c, int n)
{
    struct candidate top = c[0];
    c[0] = c[n - 1];
    sink(c, n - 1, 0);
    c[n - 1] = top;
}

/* Candidates of all ids that may be drawn at all; NaN may not. */
static int collect(struct candidate *c, const float *logits, int count, const struct sampling *s,
                   const uint32_t *seen)
{
    float penalty = s->repetition_penalty > 0 ? s->repetition_penalty : 1;
    int n = 0;
    for (int i = 0; i < count; i++) {
        float l = logits[i];
        if (seen != NULL && (seen[i >> 5] >> (i & 31) & 1u))
            l = l > 0 ? l / penalty : l * penalty;
        if ((s->limit > 0 && i >= s->limit && i != s->keep) || l != l)
            continue;
        c[n++] = (struct candidate){s->temperature > 0 ? l / s->temperature : l, i};
    }
    return n;
}

static const struct candidate *likeliest(const struct candidate *c, int n)
{
    const struct candidate *best = c;
    for (int i = 1; i < n; i++)
        if (likelier(&c[i], best))
            best = &c[i];
    return best;
}

/* Sum of exp(logit - top). */
static double mass(const struct candidate *c, int n, float top)
{
    double sum = 0;
    for (int i = 0; i < n; i++)
        sum += exp_portable((double)c[i].logit - top);
    return sum;
}

/* Walks c[0..n-1] until the cumulative mass passes u * total. */
static int32_t pick(const struct candidate *c, int n, float top, double total, double u)
{
    double sum = 0;
    int32_t id = c[0].id;
    for (int i = 0; i < n; i++) {
        double p = exp_portable((double)c[i].logit - top);
        if (p > 0)
            id = c[i].id;
        sum += p;
        if (sum > u * total)
            break;
    }
    return id;
}

/* Top-p: from the likeliest on, a candidate stays when the mass of itself and all less likely ones
 * exceeds 1 - top_p (so the least likely go while together they weigh at most that much). The heap
 * holds c[0..heap-1], what was popped lies behind it, the likeliest last. Returns how many stay. */
static int nucleus(struct candidate *c, int n, int heap, int most, float top, float top_p,
                   double *total)
{
    double all = *total, head = 0;
    int stay = 0;
    while (stay < most && (stay == 0 || all - head > (1 - (double)top_p) * all)) {
        if (n - stay - 1 < heap)
            pop(c, heap--);
        head += exp_portable((double)c[n - 1 - stay].logit - top);
        stay++;
    }
    *total = head;
    return stay;
}

/* Brings the `stay` candidates that may be drawn to the end of c[n], likeliest last. */
static int cut(struct candidate *c, int n, const struct sampling *s, float top, double *total)
{
    int heap = n, stay = n;
    for (int i = n / 2 - 1; i >= 0; i--)
        sink(c, n, i);
    if (s->top_k > 0 && s->top_k < n) {
        for (stay = s->top_k; heap > n - stay; heap--)
            pop(c, heap);
    }
    *total = mass(c + n - stay, stay, top);
    if (s->top_p > 0 && s->top_p < 1)
        stay = nucleus(c, n, heap, stay, top, s->top_p, total);
    return stay;
}

static int32_t draw_one(struct candidate *c, int n, const struct sampling *s, uint64_t draw)
{
    bool cutting = (s->top_k > 0 && s->top_k < n) || (s->top_p > 0 && s->top_p < 1);
    float top = likeliest(c, n)->logit;
    int stay = n;
    double total;
    if (isinf(top)) /* nothing to weigh: all -inf, or an infinite logit */
        return likeliest(c, n)->id;
    if (cutting)
        stay = cut(c, n, s, top, &total);
    else
        total = mass(c, n, top);
    return pick(c + n - stay, stay, top, total, uniform(s->seed, draw));
}

void plain_sample(struct device *d, int32_t *id, const float *logits, int count,
                  const struct sampling *s, uint32_t *seen, uint64_t *draw)
{
    struct candidate *c = host_scratch(d, (size_t)count * sizeof(*c));
    int n = collect(c, logits, count, s, seen);
    if (n == 0)
        *id = s->limit > 0 ? s->keep : 0;
    else if (s->temperature > 0)
        *id = draw_one(c, n, s, *draw);
    else
        *id = likeliest(c, n)->id;
    (*draw)++;
    if (seen != NULL)
        seen[*id >> 5] |= 1u << (*id & 31);
}
