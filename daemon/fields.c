/* daemon/fields.c - JSON from outside, read field by field, with a sentence for each fault. */
#include "daemon/fields.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "model/json_text.h"

enum { FILE_BYTES_MAX = 4 << 20 };

int fields_load(json_t **root, const char *file, struct problems *why)
{
    char *text = NULL;
    size_t n = 0;
    int err = read_file(&text, &n, file, FILE_BYTES_MAX);
    if (err == -EFBIG)
        return problem_add(why, -EINVAL, "%s: found more than %d bytes, expected a JSON file", file,
                           FILE_BYTES_MAX);
    if (err < 0)
        return problem_add(why, err, "%s: cannot be read: %s", file, strerror(-err));
    json_error_t e;
    err = json_text_parse(root, text, n, file, &e, why);
    free(text);
    if (err == -EINVAL)
        problem_add(why, err, "%s:%d: found no JSON: %s", file, e.line, e.text);
    return err;
}

/* What was found, as short text. */
static void describe(const json_t *value, char *text, size_t size)
{
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        snprintf(text, size, "an object");
        break;
    case JSON_ARRAY:
        snprintf(text, size, "a list");
        break;
    case JSON_STRING:
        snprintf(text, size, "\"%.40s\"", json_string_value(value));
        break;
    case JSON_INTEGER:
        snprintf(text, size, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
        break;
    case JSON_REAL:
        snprintf(text, size, "%g", json_real_value(value));
        break;
    default:
        snprintf(text, size, "%s",
                 json_is_null(value) ? "null" : (json_is_true(value) ? "true" : "false"));
        break;
    }
}

/* "room.rt60_ms" */
static void full_name(const struct fields *f, const char *key, char *text, size_t size)
{
    snprintf(text, size, "%s%s%s", f->path, f->path[0] && key[0] ? "." : "", key);
}

void fields_wrong(struct fields *f, const char *key, const char *expected)
{
    char found[64], name[192];
    const json_t *value = json_object_get(f->object, key);
    if (value != NULL)
        describe(value, found, sizeof(found));
    else
        snprintf(found, sizeof(found), "nothing");
    full_name(f, key, name, sizeof(name));
    f->err = problem_add(f->why, -EINVAL, "%s: %s: found %s, expected %s", f->file, name, found,
                         expected);
}

void fields_begin(struct fields *f, const char *file, const char *path, const json_t *value,
                  struct problems *why)
{
    *f = (struct fields){.file = file, .object = value, .why = why};
    snprintf(f->path, sizeof(f->path), "%s", path);
    if (json_is_object(value))
        return;
    char found[64];
    describe(value, found, sizeof(found));
    f->object = NULL;
    f->err = problem_add(why, -EINVAL, "%s: %s: found %s, expected an object", file,
                         path[0] ? path : "the whole", found);
}

const json_t *fields_any(struct fields *f, const char *key)
{
    if (f->n < FIELDS_MAX)
        f->known[f->n++] = key;
    return json_object_get(f->object, key);
}

bool fields_int(struct fields *f, const char *key, int min, int max, int *out)
{
    const json_t *v = fields_any(f, key);
    char expected[80];
    if (v == NULL)
        return false;
    json_int_t n = json_integer_value(v);
    if (json_is_integer(v) && n >= min && n <= max) {
        *out = (int)n;
        return true;
    }
    snprintf(expected, sizeof(expected), "a whole number from %d to %d", min, max);
    fields_wrong(f, key, expected);
    return false;
}

bool fields_real(struct fields *f, const char *key, double min, double max, double *out)
{
    const json_t *v = fields_any(f, key);
    char expected[80];
    if (v == NULL)
        return false;
    double x = json_number_value(v);
    if (json_is_number(v) && x >= min && x <= max) {
        *out = x;
        return true;
    }
    snprintf(expected, sizeof(expected), "a number from %g to %g", min, max);
    fields_wrong(f, key, expected);
    return false;
}

bool fields_bool(struct fields *f, const char *key, bool *out)
{
    const json_t *v = fields_any(f, key);
    if (v == NULL)
        return false;
    if (json_is_boolean(v)) {
        *out = json_is_true(v);
        return true;
    }
    fields_wrong(f, key, "true or false");
    return false;
}

const char *fields_text(struct fields *f, const char *key)
{
    const json_t *v = fields_any(f, key);
    if (v != NULL && !json_is_string(v))
        fields_wrong(f, key, "a text");
    return json_string_value(v);
}

const json_t *fields_array(struct fields *f, const char *key)
{
    const json_t *v = fields_any(f, key);
    if (v == NULL || json_is_array(v))
        return v;
    fields_wrong(f, key, "a list");
    return NULL;
}

bool fields_need(struct fields *f, const char *key)
{
    if (f->object == NULL || json_object_get(f->object, key) != NULL)
        return true;
    fields_wrong(f, key, "this field to be there");
    return false;
}

void fields_path(const struct fields *f, const char *key, size_t index, char path[96])
{
    char name[192];
    full_name(f, key, name, sizeof(name));
    snprintf(path, 96, "%.80s[%zu]", name, index);
}

static bool known(const struct fields *f, const char *key)
{
    for (size_t i = 0; i < f->n; i++)
        if (strcmp(f->known[i], key) == 0)
            return true;
    return false;
}

/* "a, b, c" */
static void name_known(const struct fields *f, char *text, size_t size)
{
    size_t n = 0;
    text[0] = '\0';
    for (size_t i = 0; i < f->n && n < size; i++)
        n += (size_t)snprintf(text + n, size - n, "%s%s", i ? ", " : "", f->known[i]);
}

int fields_end(struct fields *f)
{
    char expected[512];
    void *root = (void *)(uintptr_t)f->object; /* jansson's iterator is not const */
    name_known(f, expected, sizeof(expected));
    for (void *i = json_object_iter(root); i != NULL; i = json_object_iter_next(root, i)) {
        const char *key = json_object_iter_key(i);
        if (!known(f, key))
            f->err = problem_add(f->why, -EINVAL,
                                 "%s: %s: found the unknown field \"%.90s\", expected some of %s",
                                 f->file, f->path[0] ? f->path : "the whole", key, expected);
    }
    return f->err;
}
