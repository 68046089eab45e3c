/*
 * daemon/state_file.h - small files in the state directory that are whole or not there: written
 * beside, flushed to disk, then renamed. After a power cut there is the old text or the new one.
 *
 * Threads: no state; one writer for each file.
 */
#ifndef PARLEY_DAEMON_STATE_FILE_H
#define PARLEY_DAEMON_STATE_FILE_H

#include <jansson.h>
#include <stddef.h>
#include <sys/types.h>

/* DIR/NAME becomes these `n` bytes, with this mode. 0 or negative errno (-ENOSPC, -EROFS ...); then
 * the old file is as it was. */
int state_write(const char *dir, const char *name, mode_t mode, const char *text, size_t n);

/* The same with a JSON value, which is consumed (NULL = -ENOMEM). */
int state_write_json(const char *dir, const char *name, mode_t mode, json_t *value);

/* The JSON object in DIR/NAME. NULL when there is none, or it is no object: *err is then -ENOENT,
 * -EPROTO or what reading said. */
json_t *state_read_json(const char *dir, const char *name, int *err);

/* No DIR/NAME any more, also after a power cut, nor what a cut-off write left of it. 0 (also if
 * there was none, or no DIR) or negative errno. */
int state_remove(const char *dir, const char *name);

#endif
