/*
 * model/vocabulary.h - the tables of a tokenizer: tokens, their texts, the merges.
 *
 * Filled once while a vocabulary is read, then only looked at. Texts are the real bytes of a token,
 * not the printable alphabet of the files.
 */
#ifndef PARLEY_MODEL_VOCABULARY_H
#define PARLEY_MODEL_VOCABULARY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    VOCABULARY_MAX = 1 << 20, /* ids below this: tables are indexed by id */
    TOKEN_BYTES_MAX = 1024,   /* longest text of a token */
    NO_RANK = -1,             /* rank of two symbols that do not merge */
};

struct token {
    uint32_t at, len; /* its text in `bytes` */
    bool present;
    bool added;      /* matched as a whole before BPE, and never made by it */
    bool special;    /* leaves no text under TOKENIZER_SKIP_SPECIAL */
    bool normalized; /* an added token that is looked for in the text's NFC */
    bool made;       /* a merge or a single byte makes it */
};

struct merge {
    uint64_t pair; /* left id << 32 | right id */
    int32_t rank;  /* NO_RANK marks a free slot */
    int32_t id;    /* what the two become */
};

struct vocabulary {
    struct token *token; /* [n_token], by id */
    size_t n_token, token_cap;
    char *bytes;
    size_t n_bytes, bytes_cap;
    int32_t *slot; /* [n_slot] hash of texts: an id or -1 */
    size_t n_slot, n_text;
    struct merge *merge; /* [n_merge_slot] hash of pairs */
    size_t n_merge_slot, n_merge;
    int32_t byte_id[256];
    int32_t *added; /* ids of added tokens, by first byte, longest first */
    size_t n_added, added_cap;
    bool added_first[256]; /* bytes that an added token begins with */
};

/* 0; -EEXIST: the id is taken; -EALREADY: the text is; -ENOMEM. */
int vocabulary_add(struct vocabulary *v, int32_t id, const char *text, size_t len);

/* The id of the token with this text, or -ENOENT. */
int32_t vocabulary_find(const struct vocabulary *v, const char *text, size_t len);

/* The next merge in order of rank. 0; -EEXIST: the pair is taken; -ENOMEM. */
int vocabulary_add_merge(struct vocabulary *v, int32_t left, int32_t right, int32_t id);

/* The merge of two symbols, or NULL. */
const struct merge *vocabulary_merge(const struct vocabulary *v, int32_t left, int32_t right);

/* The longest added token that `text` begins with, or -1. */
int32_t vocabulary_added_at(const struct vocabulary *v, const char *text, size_t len,
                            bool normalized);

/* Makes vocabulary_added_at() work, when all tokens are there. */
void vocabulary_sort_added(struct vocabulary *v);

static inline const char *vocabulary_text(const struct vocabulary *v, int32_t id, size_t *len)
{
    *len = v->token[id].len;
    return v->bytes + v->token[id].at;
}

static inline bool vocabulary_has(const struct vocabulary *v, int32_t id)
{
    return id >= 0 && (size_t)id < v->n_token && v->token[id].present;
}

void vocabulary_free(struct vocabulary *v);

#endif
