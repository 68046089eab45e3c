/*
 * model/vocabulary.c - tokens by id and by text, merges by pair.
 *
 * Both hashes use open addressing with linear probing and stay at most half full. The pair hash is
 * what encoding spends its time in: 16 bytes a slot, so four candidates share a cache line.
 */
#include "model/vocabulary.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"

enum { FIRST_SLOTS = 1024 };

static uint64_t mix(uint64_t x)
{
    x ^= x >> 32;
    x *= 0xd6e8feb86659fd93u;
    return x ^ x >> 32;
}

static uint64_t hash_text(const char *text, size_t len)
{
    uint64_t h = 0xcbf29ce484222325u; /* FNV-1a */
    for (size_t i = 0; i < len; i++)
        h = (h ^ (unsigned char)text[i]) * 0x100000001b3u;
    return mix(h);
}

/* The slot of the text, or the free slot where it would go. */
static size_t text_slot(const struct vocabulary *v, const char *text, size_t len)
{
    size_t i = hash_text(text, len) & (v->n_slot - 1);
    for (; v->slot[i] >= 0; i = (i + 1) & (v->n_slot - 1)) {
        const struct token *t = &v->token[v->slot[i]];
        if (t->len == len && memcmp(v->bytes + t->at, text, len) == 0)
            break;
    }
    return i;
}

static int grow_slots(struct vocabulary *v)
{
    if (v->n_text < v->n_slot / 2)
        return 0;
    size_t n = v->n_slot ? v->n_slot * 2 : FIRST_SLOTS;
    int32_t *slot = malloc(n * sizeof(*slot));
    if (slot == NULL)
        return -ENOMEM;
    memset(slot, 0xff, n * sizeof(*slot)); /* all -1 */
    free(v->slot);
    v->slot = slot;
    v->n_slot = n;
    for (size_t id = 0; id < v->n_token; id++) {
        const struct token *t = &v->token[id];
        if (t->present)
            slot[text_slot(v, v->bytes + t->at, t->len)] = (int32_t)id;
    }
    return 0;
}

/* Room for the id, ids between that have no token yet, and the text. */
static int reserve(struct vocabulary *v, int32_t id, size_t len)
{
    size_t n = (size_t)id + 1;
    int err = grow_slots(v);
    if (err == 0)
        err = grow_array(&v->bytes, &v->bytes_cap, v->n_bytes + len + 1, 1);
    if (err == 0)
        err = grow_array(&v->token, &v->token_cap, n, sizeof(*v->token));
    if (err == 0 && n > v->n_token) {
        memset(v->token + v->n_token, 0, (n - v->n_token) * sizeof(*v->token));
        v->n_token = n;
    }
    return err;
}

int vocabulary_add(struct vocabulary *v, int32_t id, const char *text, size_t len)
{
    if (vocabulary_has(v, id))
        return -EEXIST;
    int err = reserve(v, id, len);
    if (err < 0)
        return err;
    size_t slot = text_slot(v, text, len);
    if (v->slot[slot] >= 0)
        return -EALREADY;
    v->token[id] = (struct token){
        .at = (uint32_t)v->n_bytes,
        .len = (uint32_t)len,
        .present = true,
    };
    memcpy(v->bytes + v->n_bytes, text, len);
    v->n_bytes += len;
    v->slot[slot] = id;
    v->n_text++;
    return 0;
}

int32_t vocabulary_find(const struct vocabulary *v, const char *text, size_t len)
{
    if (v->n_slot == 0)
        return -ENOENT;
    int32_t id = v->slot[text_slot(v, text, len)];
    return id >= 0 ? id : -ENOENT;
}

static struct merge *merge_slot(struct merge *slots, size_t n, uint64_t pair)
{
    size_t i = mix(pair) & (n - 1);
    while (slots[i].rank != NO_RANK && slots[i].pair != pair)
        i = (i + 1) & (n - 1);
    return &slots[i];
}

static int grow_merges(struct vocabulary *v)
{
    if (v->n_merge < v->n_merge_slot / 2)
        return 0;
    size_t n = v->n_merge_slot ? v->n_merge_slot * 2 : FIRST_SLOTS;
    struct merge *slots = malloc(n * sizeof(*slots));
    if (slots == NULL)
        return -ENOMEM;
    for (size_t i = 0; i < n; i++)
        slots[i] = (struct merge){.rank = NO_RANK};
    for (size_t i = 0; i < v->n_merge_slot; i++)
        if (v->merge[i].rank != NO_RANK)
            *merge_slot(slots, n, v->merge[i].pair) = v->merge[i];
    free(v->merge);
    v->merge = slots;
    v->n_merge_slot = n;
    return 0;
}

static uint64_t pair_of(int32_t left, int32_t right)
{
    return (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
}

int vocabulary_add_merge(struct vocabulary *v, int32_t left, int32_t right, int32_t id)
{
    int err = grow_merges(v);
    if (err < 0)
        return err;
    uint64_t pair = pair_of(left, right);
    struct merge *m = merge_slot(v->merge, v->n_merge_slot, pair);
    if (m->rank != NO_RANK)
        return -EEXIST;
    *m = (struct merge){.pair = pair, .rank = (int32_t)v->n_merge, .id = id};
    v->n_merge++;
    v->token[id].made = true;
    return 0;
}

const struct merge *vocabulary_merge(const struct vocabulary *v, int32_t left, int32_t right)
{
    if (v->n_merge_slot == 0)
        return NULL;
    const struct merge *m = merge_slot(v->merge, v->n_merge_slot, pair_of(left, right));
    return m->rank == NO_RANK ? NULL : m;
}

/* Texts by their first byte, and the longer of two first: the first that fits is the longest. */
static int compare_added(const void *a, const void *b, void *vocabulary)
{
    const struct vocabulary *v = vocabulary;
    size_t len_a, len_b;
    const char *text_a = vocabulary_text(v, *(const int32_t *)a, &len_a);
    const char *text_b = vocabulary_text(v, *(const int32_t *)b, &len_b);
    int first = (unsigned char)text_a[0] - (unsigned char)text_b[0];
    return first != 0 ? first : (len_a < len_b) - (len_a > len_b);
}

void vocabulary_sort_added(struct vocabulary *v)
{
    if (v->n_added == 0)
        return;
    qsort_r(v->added, v->n_added, sizeof(*v->added), compare_added, v);
    for (size_t i = 0; i < v->n_added; i++)
        v->added_first[(unsigned char)v->bytes[v->token[v->added[i]].at]] = true;
}

int32_t vocabulary_added_at(const struct vocabulary *v, const char *text, size_t len,
                            bool normalized)
{
    if (!v->added_first[(unsigned char)text[0]])
        return -1;
    for (size_t i = 0; i < v->n_added; i++) {
        size_t n;
        const char *added = vocabulary_text(v, v->added[i], &n);
        if ((unsigned char)added[0] > (unsigned char)text[0])
            break;
        if (n <= len && memcmp(added, text, n) == 0 &&
            v->token[v->added[i]].normalized == normalized)
            return v->added[i];
    }
    return -1;
}

void vocabulary_free(struct vocabulary *v)
{
    free(v->token);
    free(v->bytes);
    free(v->slot);
    free(v->merge);
    free(v->added);
    *v = (struct vocabulary){0};
}
