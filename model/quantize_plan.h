/*
 * model/quantize_plan.h - what quantising does with every tensor of a checkpoint. Private to
 * model/quantize*.c.
 */
#ifndef PARLEY_MODEL_QUANTIZE_PLAN_H
#define PARLEY_MODEL_QUANTIZE_PLAN_H

#include "model/bind.h"
#include "model/quantize.h"

/* One matrix or other tensor of the new checkpoint. */
struct quant_item {
    char *name; /* as it was; X.weight becomes X.weight_packed and so on */
    const struct st_tensor *from;
    const struct st_file *file;
    size_t first;    /* element of `from` where it begins */
    int rows, cols;  /* when it is quantised */
    int group;       /* 0 = copied */
    bool linear;     /* could have been quantised */
    enum row row;    /* component */
    size_t shard;    /* number of the file it goes to */
    size_t bytes;    /* there */
    size_t original; /* bytes in the source */
};

struct quant_plan {
    struct checkpoint *checkpoint;
    struct quant_item *items; /* [n] by shard */
    size_t n, cap;
    size_t shards;
    size_t total; /* bytes of the source */
};

/* Reads the headers of o->in, whose model is sound, and decides. */
int quant_plan_open(struct quant_plan *p, const struct quantize_opts *o, struct problems *why);
void quant_plan_close(struct quant_plan *p);

#endif
