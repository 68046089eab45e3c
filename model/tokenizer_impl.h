/* model/tokenizer_impl.h - inside the tokenizer: its files, its parser; for its own .c and tests.
 */
#ifndef PARLEY_MODEL_TOKENIZER_IMPL_H
#define PARLEY_MODEL_TOKENIZER_IMPL_H

#include <stddef.h>

#include "base/problem.h"
#include "model/tokenizer.h"
#include "model/vocabulary.h"

struct tokenizer {
    struct vocabulary v;
};

/* The files that may describe a vocabulary. */
enum tokenizer_part {
    PART_VOCAB,  /* vocab.json: text -> id */
    PART_MERGES, /* merges.txt: a pair a line, best first */
    PART_CONFIG, /* tokenizer_config.json: added_tokens_decoder */
    PART_ADDED,  /* added_tokens.json: text -> id, the older form */
    PART_ALL,    /* tokenizer.json: everything */
    PART_COUNT,
};

struct tokenizer_file {
    const char *name; /* as sentences call it */
    const char *text; /* NULL: there is no such file */
    size_t len;
};

/* tokenizer_open() on files that are in memory. */
int tokenizer_parse(struct tokenizer **ret, const struct tokenizer_file file[PART_COUNT],
                    struct problems *why);

/* Fills an empty vocabulary from the files. 0 or a negative errno with sentences in `why`; the
 * caller frees the vocabulary either way. */
int tokenizer_load(struct vocabulary *v, const struct tokenizer_file file[PART_COUNT],
                   struct problems *why);

#endif
