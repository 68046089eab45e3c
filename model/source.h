/*
 * model/source.h - where the binder asks for tensors: a checkpoint, or random numbers.
 *
 * The binder knows names, shapes and what to do with them; a source knows bytes. Private to model/
 * (and to tests, whose own source records what a checkpoint must contain).
 */
#ifndef PARLEY_MODEL_SOURCE_H
#define PARLEY_MODEL_SOURCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/problem.h"
#include "kernels/dtype.h"
#include "model/checkpoint.h"

/* What the elements are, which decides what may be stored. */
enum tensor_kind {
    KIND_FLOATS, /* F32, BF16, F16 */
    KIND_SCALES, /* the same, of 8-bit weights; any size in the place of a 0 */
    KIND_BYTES,  /* four weights of 8 bits in an I32 */
    KIND_SIZES,  /* I64 or I32, on the host at once */
};

struct tensor_want {
    const char *name;
    int ndim;
    size_t shape[4];
    enum tensor_kind kind;
    float mean, deviation; /* of random numbers in its place */
    bool wide;             /* a small vector, widened to f32: random ones need no rounding */
    bool linear;           /* the matrix of a linear layer: may be quantised */
};

struct tensor_got {
    const unsigned char *data;  /* NULL: random numbers, made while loading */
    const struct st_file *file; /* whose map `data` points into */
    enum dtype type;            /* of floats */
    uint64_t seed;              /* of the random numbers */
    int64_t sizes[4];           /* KIND_SIZES: the values; KIND_SCALES: the shape */
};

struct source {
    /* 0, or a negative errno after a sentence naming file, tensor, found and expected. */
    int (*get)(struct source *s, const struct tensor_want *want, struct tensor_got *got,
               struct problems *why);
    /* Whether there is a tensor of this name: decides between layouts. */
    bool (*has)(const struct source *s, const char *name);
};

struct checkpoint_source {
    struct source source;
    struct checkpoint *checkpoint;
};

struct random_source {
    struct source source;
    enum dtype type;
    uint64_t seed;
};

void checkpoint_source_init(struct checkpoint_source *s, struct checkpoint *c);
void random_source_init(struct random_source *s, enum dtype type, uint64_t seed);

/* Random numbers come in blocks that do not depend on each other: block i of a tensor holds its
 * elements from i * RANDOM_BLOCK on. The same (seed, deviation, mean) give the same numbers, up to
 * rounding, in every type. */
#define RANDOM_BLOCK ((size_t)1 << 16)

struct random_table {
    enum dtype type;
    float mean, deviation;
    union {
        float f32[4096];
        uint16_t h16[4096];
    } value;
};

/* What all tables are made of: 4096 normally distributed numbers of mean 0 and deviation 1. */
void random_base(float base[4096]);
void random_table_init(struct random_table *t, enum dtype type, float mean, float deviation);
/* Elements first .. first + n - 1 of the tensor, to `out`; `first` is a multiple of RANDOM_BLOCK.
 */
void random_fill(const struct random_table *t, uint64_t seed, size_t first, size_t n, void *out);

#endif
