/* model/bpe.h - merges the bytes of one piece into tokens. */
#ifndef PARLEY_MODEL_BPE_H
#define PARLEY_MODEL_BPE_H

#include <stddef.h>
#include <stdint.h>

#include "model/vocabulary.h"

/* Where ids go: counted all, stored up to `cap`. */
struct id_sink {
    int32_t *ids;
    size_t n, cap;
};

static inline void id_sink_put(struct id_sink *sink, int32_t id)
{
    if (sink->n < sink->cap)
        sink->ids[sink->n] = id;
    sink->n++;
}

/* Memory that long pieces share within one call of encode; starts as zeros. */
struct bpe_work {
    struct bpe_symbol *symbol;
    uint64_t *heap;
    size_t symbol_cap, heap_cap;
};

/* Appends the ids of `len` > 0 bytes. 0 or -ENOMEM. Time O(len log len). */
int bpe_piece(const struct vocabulary *v, struct bpe_work *work, const char *text, size_t len,
              struct id_sink *out);

void bpe_work_free(struct bpe_work *work);

#endif
