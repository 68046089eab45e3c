/*
 * tests/parity/golden.h - a shape's folder: random checkpoint, question, and what the reference
 * made of them (tests/golden/README.md).
 */
#ifndef PARLEY_TESTS_GOLDEN_H
#define PARLEY_TESTS_GOLDEN_H

#include "model/safetensors.h"

struct golden {
    char dir[4096];
    struct st_file *file;
};

int golden_open(struct golden *g, const char *dir, struct problems *why);
void golden_close(struct golden *g);

/* Data and element count of a tensor; ends the program when it is missing. */
const float *golden_f32(const struct golden *g, const char *name, size_t *count);
const int32_t *golden_i32(const struct golden *g, const char *name, size_t *count);

/* Axis `axis` of the tensor's shape. */
size_t golden_dim(const struct golden *g, const char *name, int axis);

/* The reference's own error in bf16 at a stage, from bf16.json: the largest relative to the largest
 * value, or of root mean squares. */
double golden_bf16_error(const struct golden *g, const char *stage, const char *measure);

/* Writes the checkpoint once more with all weights in `type`, in one file, to the directory `to`.
 */
int golden_recast(const struct golden *g, const char *to, enum st_type type, struct problems *why);

#endif
