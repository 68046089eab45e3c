/*
 * model/quantize.h - a checkpoint again with its linear layers in 8 bits (MODEL.md, 8-bit weights).
 *
 * open   reads the headers, decides for every tensor whether it is copied or quantised, and makes a
 *        directory beside the wanted one.
 * step   quantises or copies one tensor; the last one writes the configuration and gives the
 *        directory its name. Until then nothing of that name exists.
 *
 * Quantised are the matrices of linear layers; embeddings, convolutions, norms, biases, routers and
 * gates stay as they are, and so does what `keep` matches. Fused experts become experts one by one.
 *
 * Threads: one owner.
 */
#ifndef PARLEY_MODEL_QUANTIZE_H
#define PARLEY_MODEL_QUANTIZE_H

#include <stddef.h>
#include <stdint.h>

#include "base/problem.h"

struct quantizer;

struct quantize_opts {
    const char *in;          /* a checkpoint directory of F32, BF16 or F16 weights */
    const char *out;         /* must not exist, or be an empty directory */
    int group;               /* columns that share a scale; 0 = 128 */
    const char *const *keep; /* [n_keep] shell patterns of tensor names that stay as they are */
    int n_keep;
    size_t shard_bytes; /* a file holds about so much; 0 = 4 GB */
};

/* One component: what became of its matrices. */
struct quantize_row {
    const char *component;
    size_t quantised, copied; /* tensors */
    size_t before, after;     /* bytes */
    double mean, largest;     /* |error| / |weights| of a matrix (2-norms), over the matrices */
    char worst[200];          /* the name of the one with the largest */
};

struct quantize_progress {
    size_t done, total; /* bytes of the source */
};

int quantizer_open(struct quantizer **ret, const struct quantize_opts *o, struct problems *why);

/* 1 = more to do, 0 = the directory is there, negative errno after a sentence. */
int quantizer_step(struct quantizer *q, struct quantize_progress *p, struct problems *why);

/* The rows of all components; returns their number. */
int quantizer_rows(const struct quantizer *q, const struct quantize_row **rows);

/* Removes what is unfinished; NULL is allowed. */
void quantizer_close(struct quantizer *q);

/* One row of `cols` weights: bytes to[cols] (value + 128), a bf16 scale for each group of `group`
 * columns. Adds the squared error and the squared weights. */
void quantize_row(uint8_t *to, uint16_t *scales, const float *w, int cols, int group, double *error,
                  double *square);

#endif
