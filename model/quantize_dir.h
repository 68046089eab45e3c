/*
 * model/quantize_dir.h - the directory that a quantised checkpoint is written to: made beside the
 * wanted name, renamed when it is complete. Private to model/quantize*.c.
 */
#ifndef PARLEY_MODEL_QUANTIZE_DIR_H
#define PARLEY_MODEL_QUANTIZE_DIR_H

#include <jansson.h>

#include "base/problem.h"

struct out_dir {
    char *wanted;
    char *temp; /* NULL: not made, or renamed */
};

/* Makes the temporary directory; the wanted one must not exist or be empty (-EINVAL). All of them:
 * -EIO when something cannot be written. */
int out_dir_open(struct out_dir *d, const char *wanted, struct problems *why);
/* A path inside; NULL for lack of memory. Caller frees. */
char *out_dir_path(const struct out_dir *d, const char *name);
int out_dir_put_json(const struct out_dir *d, const char *name, const json_t *v,
                     struct problems *why);
/* Copies tokenizer, settings and texts of `from`, but neither weights nor config.json. */
int out_dir_copy_texts(const struct out_dir *d, const char *from, struct problems *why);
int out_dir_finish(struct out_dir *d, struct problems *why);
/* Removes the temporary directory if it is there still. */
void out_dir_close(struct out_dir *d);

#endif
