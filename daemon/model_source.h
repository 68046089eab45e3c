/*
 * daemon/model_source.h - the files of a checkpoint, one after the other, from a directory or a tar
 * file (plain or compressed).
 *
 * Only plain files count, and links to them in a directory; hidden files, and folders of a
 * directory, are passed over. In an archive the files lie at the top or together in one folder;
 * anything else in it is refused, so nothing can be written where it does not belong.
 *
 * Threads: one owner.
 */
#ifndef PARLEY_DAEMON_MODEL_SOURCE_H
#define PARLEY_DAEMON_MODEL_SOURCE_H

#include <stddef.h>
#include <sys/types.h>

#include "base/problem.h"

struct model_source;

int model_source_open(struct model_source **ret, const char *path, struct problems *why);

const char *model_source_path(const struct model_source *s);

/* Of all files; of an archive, of the archive. */
double model_source_bytes(const struct model_source *s);

/* 1 = there is another file, 0 = that was all, negative errno. */
int model_source_next(struct model_source *s, struct problems *why);

/* A plain name without folders. */
const char *model_source_name(const struct model_source *s);

/* The next bytes of this file; 0 at its end. */
ssize_t model_source_read(struct model_source *s, void *bytes, size_t n, struct problems *why);

void model_source_close(struct model_source *s); /* NULL is legal */

#endif
