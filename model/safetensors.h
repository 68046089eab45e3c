/*
 * model/safetensors.h - one .safetensors file: its header checked, its data mapped.
 *
 *     8 bytes   length n of the header, little endian, at most 100 MB
 *     n bytes   JSON: name -> {"dtype", "shape", "data_offsets": [begin, end]}, "__metadata__"
 *     the rest  data; offsets count from here; no overlaps, no holes
 *
 * A file that was opened has passed: every tensor lies inside the file, its bytes are the product
 * of its shape and its element size, and together the tensors cover the data exactly once. Nothing
 * of the data is read. A file that is truncated by somebody else while it is mapped ends the
 * process with SIGBUS; that is not handled.
 *
 * Threads: constant after opening.
 */
#ifndef PARLEY_MODEL_SAFETENSORS_H
#define PARLEY_MODEL_SAFETENSORS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/problem.h"
#include "kernels/dtype.h"

#define ST_DIMS_MAX   8
#define ST_NAME_MAX   512
#define ST_HEADER_MAX (100u << 20)

/* clang-format off */
enum st_type {
    ST_F64, ST_F32, ST_F16, ST_BF16, ST_F8_E4M3, ST_F8_E5M2, ST_F8_E8M0, ST_I64, ST_I32, ST_I16,
    ST_I8, ST_U64, ST_U32, ST_U16, ST_U8, ST_BOOL, ST_TYPE_COUNT
};
/* clang-format on */

struct st_tensor {
    const char *name; /* lives as long as the file */
    enum st_type type;
    int ndim;
    size_t shape[ST_DIMS_MAX];
    size_t count;        /* elements */
    size_t begin, bytes; /* in the data */
};

struct st_header {
    struct st_tensor *tensors; /* [n], in the order of their data */
    size_t n;
    size_t data_start; /* in the file */
    void *names;       /* what the names point into; private */
};

struct st_file {
    struct st_header header;
    char *name; /* as used in sentences: the last part of the path */
    const unsigned char *map;
    size_t size;
    int fd; /* stays open for those who read rather than map */
};

/* Checks a header. `bytes` is the beginning of the file, at least as much as the header takes or
 * `file_size`, whichever is less. Every defect is a sentence. 0, -EINVAL or -ENOMEM. */
int st_parse(struct st_header *h, const void *bytes, size_t len, size_t file_size, const char *name,
             struct problems *why);
void st_header_free(struct st_header *h);

int st_open(struct st_file **ret, const char *path, struct problems *why);
/* NULL when there is none of this name. */
const struct st_tensor *st_find(const struct st_file *f, const char *name);
const void *st_data(const struct st_file *f, const struct st_tensor *t);
void st_close(struct st_file *f);

size_t st_type_size(enum st_type t);
const char *st_type_name(enum st_type t);
/* Whether weights of this type can be computed with, and as what. */
bool st_type_weight(enum st_type t, enum dtype *as);

/* "[2, 3]" into buf; for sentences. */
const char *st_shape_text(char *buf, size_t size, const size_t *shape, int ndim);

struct st_entry {
    const char *name;
    enum st_type type;
    int ndim;
    size_t shape[ST_DIMS_MAX];
    const void *data;
};

/* Writes a file that st_open and the reference accept: tensors by falling element size, then by
 * name, so that each is aligned and the same entries give the same bytes. The file appears under
 * its name only when it is complete; a device or a pipe is written to as it is. 0, -EINVAL for a
 * doubled name or an impossible shape, -ENOMEM, -EIO when it cannot be written. */
int safetensors_write(const char *path, const struct st_entry *entries, size_t n,
                      struct problems *why);

#endif
