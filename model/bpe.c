/*
 * model/bpe.c - byte pair encoding of one piece.
 *
 * The rule: start from single bytes; as long as two neighbours form a merge, join the pair of
 * lowest rank, the leftmost of equals. Two ways to the same result, chosen by length:
 *
 *   short   an array that is searched for the lowest rank each time: no memory, and fastest for
 * words long    a linked list with a heap of (rank, position): n log n, for a megabyte of one
 * letter
 *
 * A heap entry is stale when the pair at its position has changed since; it is then skipped.
 */
#include "model/bpe.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"

enum {
    SHORT_PIECE = 48, /* bytes; both ways take the same time at about this length */
    NO_SYMBOL = -1,
};

struct bpe_symbol {
    int32_t id;         /* NO_SYMBOL once it was joined to its left neighbour */
    int32_t prev, next; /* positions, or NO_SYMBOL at the ends */
    int32_t rank;       /* of the pair with `next`, or NO_RANK */
    int32_t joined;     /* what that pair becomes */
};

struct pair {
    uint32_t rank; /* UINT32_MAX when the two do not merge */
    int32_t joined;
};

static struct pair pair_at(const struct vocabulary *v, int32_t left, int32_t right)
{
    const struct merge *m = vocabulary_merge(v, left, right);
    return m == NULL ? (struct pair){UINT32_MAX, 0} : (struct pair){(uint32_t)m->rank, m->id};
}

static size_t lowest(const struct pair *pair, size_t n)
{
    size_t best = 0;
    for (size_t i = 1; i < n; i++)
        if (pair[i].rank < pair[best].rank)
            best = i;
    return best;
}

static void short_piece(const struct vocabulary *v, const char *text, size_t len,
                        struct id_sink *out)
{
    int32_t id[SHORT_PIECE];
    struct pair pair[SHORT_PIECE]; /* pair[i]: id[i] with id[i + 1] */
    size_t n = len;
    for (size_t i = 0; i < n; i++)
        id[i] = v->byte_id[(unsigned char)text[i]];
    for (size_t i = 0; i + 1 < n; i++)
        pair[i] = pair_at(v, id[i], id[i + 1]);
    while (n > 1) {
        size_t at = lowest(pair, n - 1);
        if (pair[at].rank == UINT32_MAX)
            break;
        id[at] = pair[at].joined;
        n--;
        memmove(id + at + 1, id + at + 2, (n - at - 1) * sizeof(*id));
        memmove(pair + at, pair + at + 1, (n - at - 1) * sizeof(*pair));
        if (at > 0)
            pair[at - 1] = pair_at(v, id[at - 1], id[at]);
        if (at + 1 < n)
            pair[at] = pair_at(v, id[at], id[at + 1]);
    }
    for (size_t i = 0; i < n; i++)
        id_sink_put(out, id[i]);
}

struct heap {
    uint64_t *at; /* rank << 32 | position: the order of numbers is the order of merging */
    size_t n;
};

static void heap_push(struct heap *h, uint64_t key)
{
    size_t i = h->n++;
    for (; i > 0 && h->at[(i - 1) / 2] > key; i = (i - 1) / 2)
        h->at[i] = h->at[(i - 1) / 2];
    h->at[i] = key;
}

static uint64_t heap_pop(struct heap *h)
{
    uint64_t top = h->at[0], last = h->at[--h->n];
    size_t i = 0;
    for (size_t child; (child = 2 * i + 1) < h->n; i = child) {
        if (child + 1 < h->n && h->at[child + 1] < h->at[child])
            child++;
        if (last <= h->at[child])
            break;
        h->at[i] = h->at[child];
    }
    h->at[i] = last;
    return top;
}

/* Looks up the pair that begins at `left` and queues it if it is a merge. */
static void queue_pair(const struct vocabulary *v, struct heap *h, struct bpe_symbol *symbol,
                       int32_t left)
{
    struct bpe_symbol *s = &symbol[left];
    s->rank = NO_RANK;
    if (s->next == NO_SYMBOL)
        return;
    const struct merge *m = vocabulary_merge(v, s->id, symbol[s->next].id);
    if (m == NULL)
        return;
    s->rank = m->rank;
    s->joined = m->id;
    heap_push(h, (uint64_t)(uint32_t)m->rank << 32 | (uint32_t)left);
}

/* Joins the symbol at `at` with its right neighbour. */
static void join(const struct vocabulary *v, struct heap *h, struct bpe_symbol *symbol, int32_t at)
{
    struct bpe_symbol *s = &symbol[at];
    struct bpe_symbol *right = &symbol[s->next];
    s->id = s->joined;
    s->next = right->next;
    right->id = NO_SYMBOL;
    right->rank = NO_RANK;
    if (s->next != NO_SYMBOL)
        symbol[s->next].prev = at;
    queue_pair(v, h, symbol, at);
    if (s->prev != NO_SYMBOL)
        queue_pair(v, h, symbol, s->prev);
}

static int long_piece(const struct vocabulary *v, struct bpe_work *work, const char *text,
                      size_t len, struct id_sink *out)
{
    /* Each of at most len - 1 joins takes one entry off and puts at most two on. */
    if (grow_array(&work->symbol, &work->symbol_cap, len, sizeof(*work->symbol)) < 0 ||
        grow_array(&work->heap, &work->heap_cap, 2 * len, sizeof(*work->heap)) < 0)
        return -ENOMEM;
    struct bpe_symbol *symbol = work->symbol;
    struct heap heap = {.at = work->heap};
    int32_t n = (int32_t)len;
    for (int32_t i = 0; i < n; i++)
        symbol[i] = (struct bpe_symbol){
            .id = v->byte_id[(unsigned char)text[i]],
            .prev = i - 1,
            .next = i + 1 < n ? i + 1 : NO_SYMBOL,
        };
    for (int32_t i = 0; i < n; i++)
        queue_pair(v, &heap, symbol, i);
    while (heap.n > 0) {
        uint64_t key = heap_pop(&heap);
        int32_t at = (int32_t)(uint32_t)key, rank = (int32_t)(key >> 32);
        if (symbol[at].rank == rank)
            join(v, &heap, symbol, at);
    }
    for (int32_t i = 0; i != NO_SYMBOL; i = symbol[i].next)
        id_sink_put(out, symbol[i].id);
    return 0;
}

int bpe_piece(const struct vocabulary *v, struct bpe_work *work, const char *text, size_t len,
              struct id_sink *out)
{
    if (len > SHORT_PIECE)
        return long_piece(v, work, text, len, out);
    short_piece(v, text, len, out);
    return 0;
}

void bpe_work_free(struct bpe_work *work)
{
    free(work->symbol);
    free(work->heap);
    *work = (struct bpe_work){0};
}
