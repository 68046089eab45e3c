/*
 * daemon/fields.h - JSON from outside, read field by field.
 *
 * Every getter checks type and range; what is wrong becomes one sentence ("rooms.json:
 * sounds[2].at_ms: found "soon", expected a whole number from 0 to 60000") and leaves *out as it
 * was. fields_end names the keys that nobody asked for, so that a misspelt one is never silently
 * without effect.
 *
 *     struct fields f;
 *     fields_begin(&f, "room.json", "room", value, why);
 *     fields_int(&f, "rt60_ms", 0, 5000, &room->rt60_ms);
 *     return fields_end(&f);
 *
 * Threads: one owner.
 */
#ifndef PARLEY_DAEMON_FIELDS_H
#define PARLEY_DAEMON_FIELDS_H

#include <jansson.h>
#include <stdbool.h>

#include "base/problem.h"

#define FIELDS_MAX 32

struct fields {
    const char *file;
    char path[96]; /* of the object, "sounds[2]"; "" for the root */
    const json_t *object;
    struct problems *why;
    int err;
    const char *known[FIELDS_MAX]; /* keys that were asked for */
    size_t n;
};

/* The file's root; the caller json_decref()s it. 0 or negative errno and a sentence. Duplicate keys
 * are refused, and files above 4 MB. */
int fields_load(json_t **root, const char *file, struct problems *why);

/* `value` is what stands at `path` and should be an object; `file` must outlive `f`. */
void fields_begin(struct fields *f, const char *file, const char *path, const json_t *value,
                  struct problems *why);

/* True when the key is there and right. */
bool fields_int(struct fields *f, const char *key, int min, int max, int *out);
bool fields_real(struct fields *f, const char *key, double min, double max, double *out);
bool fields_bool(struct fields *f, const char *key, bool *out);

/* NULL when the key is not there or is something else. They belong to the JSON value. */
const char *fields_text(struct fields *f, const char *key);
const json_t *fields_array(struct fields *f, const char *key);
const json_t *fields_any(struct fields *f, const char *key);

/* The key has to be there; says so if it is not. */
bool fields_need(struct fields *f, const char *key);

/* One more thing is wrong with the field: "found X, expected Y". */
void fields_wrong(struct fields *f, const char *key, const char *expected);

/* The path of an element of a list in this object: "sounds[2]". */
void fields_path(const struct fields *f, const char *key, size_t index, char path[96]);

/* 0, or -EINVAL when something was wrong or a key is unknown. */
int fields_end(struct fields *f);

#endif
