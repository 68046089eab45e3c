/*
 * kernels/plain/route.c - which experts a row goes to.
 *
 * Chosen by logit rather than by probability: the order is the same, but two logits whose
 * probabilities round to the same number do not become a tie.
 */
#include "kernels/plain/plain.h"

#include <math.h>
#include <stdbool.h>

static bool taken(const int32_t *ids, int n, int id)
{
    for (int i = 0; i < n; i++)
        if (ids[i] == id)
            return true;
    return false;
}

/* The largest logit not among ids[chosen], the lower id among equals; some valid id whatever the
 * logits are. */
static int32_t next_best(const float *logits, int experts, const int32_t *ids, int chosen)
{
    int best = -1;
    for (int e = 0; e < experts; e++)
        if (!taken(ids, chosen, e) && (best < 0 || logits[e] > logits[best]))
            best = e;
    return best;
}

/* One row: p_e = exp(l_e - max) / sum over all experts, or over the k chosen with renorm. */
static void route_row(int32_t *ids, float *weights, const float *logits, int experts, int k,
                      int renorm)
{
    double sum = 0;
    for (int i = 0; i < k; i++)
        ids[i] = next_best(logits, experts, ids, i);
    float top = logits[ids[0]];
    for (int i = 0; i < (renorm ? k : experts); i++)
        sum += exp((double)logits[renorm ? ids[i] : i] - top);
    for (int i = 0; i < k; i++)
        weights[i] = (float)(exp((double)logits[ids[i]] - top) / sum);
}

void plain_route(struct device *d, int32_t *ids, float *weights, const float *logits, int n,
                 int experts, int k, int renorm)
{
    (void)d;
    for (int i = 0; i < n; i++, ids += k, weights += k, logits += experts)
        route_row(ids, weights, logits, experts, k, renorm);
}
