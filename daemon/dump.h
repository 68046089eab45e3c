/*
 * daemon/dump.h - intermediate tensors of a turn, collected row by row and written as one
 * safetensors file: what --dump is for, and what the parity tests compare with the goldens.
 */
#ifndef PARLEY_DAEMON_DUMP_H
#define PARLEY_DAEMON_DUMP_H

#include <stddef.h>

#include "base/problem.h"
#include "model/safetensors.h"

#define DUMP_TENSORS_MAX 16

struct dump_tensor {
    const char *name;  /* a literal */
    enum st_type type; /* ST_F32 or ST_I32 */
    size_t cols, rows; /* cols 0 = a vector of `rows` */
    void *data;
    size_t cap;
};

struct dump {
    struct dump_tensor tensor[DUMP_TENSORS_MAX];
    size_t n;
};

/* Appends rows [n, cols] of 4-byte elements to the tensor of this name (made when new); cols 0
 * means a vector. 0 or -ENOMEM. */
int dump_add(struct dump *d, const char *name, enum st_type type, const void *rows, size_t n,
             size_t cols);

/* The tensor of this name, or NULL. */
const struct dump_tensor *dump_find(const struct dump *d, const char *name);

int dump_write(const struct dump *d, const char *path, struct problems *why);
void dump_free(struct dump *d);

#endif
