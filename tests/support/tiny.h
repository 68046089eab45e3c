/*
 * tests/support/tiny.h - small checkpoints on disk, good ones and altered ones.
 *
 * The list of tensors is what the binder asks for, so it cannot drift from the product; the values
 * are random and kept, so that a test can tell whether they arrived. Everything asserts: a test
 * need not look after errors of its own scaffolding.
 */
#ifndef PARLEY_TESTS_TINY_H
#define PARLEY_TESTS_TINY_H

#include <jansson.h>

#include "model/model.h"
#include "model/safetensors.h"

struct tiny_tensor {
    char *name;
    int ndim;
    size_t shape[4], count;
    float *values;
    enum st_type type; /* as it will be written */
};

struct tiny {
    json_t *config;
    struct tiny_tensor *tensors; /* [n], in the order in which the binder asks */
    size_t n, cap;
    char dir[64]; /* of tiny_write; removed by tiny_free */
};

struct tiny_layout {
    bool fused;
    int shards;   /* 0 = model.safetensors alone */
    int misalign; /* bytes by which the data is moved away from its alignment */
};

/* A configuration with every component, and its tensors as `type`; ST_TYPE_COUNT = all three
 * weight types in turn. */
void tiny_init(struct tiny *t, enum st_type type);
/* Likewise for a given configuration. */
void tiny_init_config(struct tiny *t, enum st_type type, json_t *config);

/* Writes the directory t->dir. */
void tiny_write(struct tiny *t, const struct tiny_layout *layout);

/* NULL when there is none. */
struct tiny_tensor *tiny_find(struct tiny *t, const char *name);
void tiny_drop(struct tiny *t, const char *name);

/* Files of t->dir. */
void tiny_path(const struct tiny *t, const char *file, char path[128]);
void tiny_remove(const struct tiny *t, const char *file);
void tiny_truncate(const struct tiny *t, const char *file, size_t size);
void tiny_put(const struct tiny *t, const char *file, const void *bytes, size_t n);
char *tiny_get(const struct tiny *t, const char *file, size_t *n);
/* Replaces the first `from` in the file's text; in a .safetensors file in its header, whose length
 * is corrected. */
void tiny_replace(const struct tiny *t, const char *file, const char *from, const char *to);
/* Sets the value at a dotted path of a JSON file to the JSON text `value`; NULL removes it. */
void tiny_set(const struct tiny *t, const char *file, const char *path, const char *value);

/* Removes the directory. */
void tiny_free(struct tiny *t);

/* Opens t->dir; on success loads it completely. */
int tiny_open(const struct tiny *t, struct model **m, bool text_only, struct problems *why);

/* Whether one of the sentences has all the words (NULL ends them early). */
bool problems_mention(const struct problems *why, const char *const words[4]);

#endif
