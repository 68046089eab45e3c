/*
 * model/safetensors.c - reading a .safetensors file: header, checks, mapping.
 *
 * The header comes from outside and is believed in nothing: sizes are multiplied with overflow
 * checks, offsets are compared against what the file really holds, and after sorting by offset
 * every tensor must begin where the one before it ended. The fuzzer enters at st_parse.
 */
#include "model/safetensors.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/util.h"
#include "model/json_text.h"

static const struct {
    const char *name;
    size_t size;
} types[ST_TYPE_COUNT] = {
    [ST_F64] = {"F64", 8},         [ST_F32] = {"F32", 4},         [ST_F16] = {"F16", 2},
    [ST_BF16] = {"BF16", 2},       [ST_F8_E4M3] = {"F8_E4M3", 1}, [ST_F8_E5M2] = {"F8_E5M2", 1},
    [ST_F8_E8M0] = {"F8_E8M0", 1}, [ST_I64] = {"I64", 8},         [ST_I32] = {"I32", 4},
    [ST_I16] = {"I16", 2},         [ST_I8] = {"I8", 1},           [ST_U64] = {"U64", 8},
    [ST_U32] = {"U32", 4},         [ST_U16] = {"U16", 2},         [ST_U8] = {"U8", 1},
    [ST_BOOL] = {"BOOL", 1},
};

size_t st_type_size(enum st_type t)
{
    return types[t].size;
}

const char *st_type_name(enum st_type t)
{
    return types[t].name;
}

bool st_type_weight(enum st_type t, enum dtype *as)
{
    *as = t == ST_F32 ? DT_F32 : t == ST_BF16 ? DT_BF16 : DT_F16;
    return t == ST_F32 || t == ST_BF16 || t == ST_F16;
}

const char *st_shape_text(char *buf, size_t size, const size_t *shape, int ndim)
{
    size_t at = (size_t)snprintf(buf, size, "[");
    for (int i = 0; i < ndim && at < size; i++)
        at += (size_t)snprintf(buf + at, size - at, "%s%zu", i ? ", " : "", shape[i]);
    if (at < size)
        snprintf(buf + at, size - at, "]");
    return buf;
}

/* One header entry being read: where complaints about it go. */
struct entry {
    const char *file;
    const char *name;
    struct problems *why;
};

static int parse_type(const struct entry *e, struct st_tensor *t, const json_t *v)
{
    const char *name = json_string_value(v);
    for (int i = 0; name && i < ST_TYPE_COUNT; i++)
        if (strcmp(name, types[i].name) == 0) {
            t->type = (enum st_type)i;
            return 0;
        }
    return problem_add(e->why, -EINVAL,
                       "%s: tensor %s: dtype: found %.40s, expected F32, BF16, F16 or another type "
                       "of the safetensors format",
                       e->file, e->name, name ? name : "no string");
}

/* A non-negative integer, or a sentence. */
static int parse_size(const struct entry *e, size_t *out, const json_t *v, const char *field)
{
    if (!json_is_integer(v))
        return problem_add(e->why, -EINVAL, "%s: tensor %s: %s: found %s, expected integers",
                           e->file, e->name, field,
                           json_is_real(v) ? "a number with a fraction" : "something else");
    json_int_t x = json_integer_value(v);
    if (x < 0)
        return problem_add(e->why, -EINVAL,
                           "%s: tensor %s: %s: found %" JSON_INTEGER_FORMAT ", expected 0 or more",
                           e->file, e->name, field, x);
    *out = (size_t)x;
    return 0;
}

static int parse_shape(const struct entry *e, struct st_tensor *t, const json_t *v)
{
    if (!json_is_array(v) || json_array_size(v) > ST_DIMS_MAX)
        return problem_add(e->why, -EINVAL,
                           "%s: tensor %s: shape: found %s, expected an array of at most %d sizes",
                           e->file, e->name, json_is_array(v) ? "a longer array" : "no array",
                           ST_DIMS_MAX);
    t->ndim = (int)json_array_size(v);
    t->count = 1;
    bool fits = true;
    for (int i = 0; i < t->ndim; i++) {
        int err = parse_size(e, &t->shape[i], json_array_get(v, (size_t)i), "shape");
        if (err < 0)
            return err;
        fits = fits && mul_size(t->count, t->shape[i], &t->count);
    }
    if (fits)
        fits = mul_size(t->count, types[t->type].size, &t->bytes);
    if (fits)
        return 0;
    char shape[200];
    return problem_add(e->why, -EINVAL,
                       "%s: tensor %s: shape: found %s, expected a size that fits 64 bits", e->file,
                       e->name, st_shape_text(shape, sizeof(shape), t->shape, t->ndim));
}

static int parse_offsets(const struct entry *e, struct st_tensor *t, const json_t *v,
                         size_t data_size)
{
    size_t end = 0;
    if (!json_is_array(v) || json_array_size(v) != 2)
        return problem_add(e->why, -EINVAL,
                           "%s: tensor %s: data_offsets: found %s, expected [begin, end]", e->file,
                           e->name, json_is_array(v) ? "another number of values" : "no array");
    int err = parse_size(e, &t->begin, json_array_get(v, 0), "data_offsets");
    if (err == 0)
        err = parse_size(e, &end, json_array_get(v, 1), "data_offsets");
    if (err < 0)
        return err;
    if (t->begin > end || end > data_size)
        return problem_add(e->why, -EINVAL,
                           "%s: tensor %s: data_offsets: found [%zu, %zu], expected a range within "
                           "the %zu bytes of data in the file (is it truncated?)",
                           e->file, e->name, t->begin, end, data_size);
    char shape[200];
    if (end - t->begin != t->bytes)
        return problem_add(e->why, -EINVAL,
                           "%s: tensor %s: data_offsets: found %zu bytes, expected %zu for %s %s",
                           e->file, e->name, end - t->begin, t->bytes, types[t->type].name,
                           st_shape_text(shape, sizeof(shape), t->shape, t->ndim));
    return 0;
}

static int parse_tensor(const struct entry *e, struct st_tensor *t, json_t *v, size_t data_size)
{
    *t = (struct st_tensor){.name = e->name};
    if (!json_is_object(v))
        return problem_add(e->why, -EINVAL,
                           "%s: tensor %s: found no object, expected dtype, shape, data_offsets",
                           e->file, e->name);
    int err = parse_type(e, t, json_object_get(v, "dtype"));
    if (err == 0)
        err = parse_shape(e, t, json_object_get(v, "shape"));
    if (err == 0)
        err = parse_offsets(e, t, json_object_get(v, "data_offsets"), data_size);
    return err;
}

static int by_offset(const void *pa, const void *pb)
{
    const struct st_tensor *a = pa, *b = pb;
    if (a->begin != b->begin)
        return a->begin < b->begin ? -1 : 1;
    if (a->bytes != b->bytes) /* empty ones first */
        return a->bytes < b->bytes ? -1 : 1;
    return strcmp(a->name, b->name);
}

/* Together the tensors cover the data: neither overlaps nor holes. */
static int check_cover(const struct st_header *h, size_t data_size, const char *file,
                       struct problems *why)
{
    size_t at = 0;
    int err = 0;
    for (size_t i = 0; i < h->n; i++) {
        const struct st_tensor *t = &h->tensors[i];
        if (t->begin != at)
            err = problem_add(why, -EINVAL,
                              "%s: tensor %s: data_offsets: found a begin at %zu, expected %zu, "
                              "where the data before it ends (%s)",
                              file, t->name, t->begin, at, t->begin < at ? "overlap" : "hole");
        at = t->begin + t->bytes;
    }
    if (err == 0 && at != data_size)
        err = problem_add(why, -EINVAL,
                          "%s: data: found %zu bytes, expected %zu, where the last tensor ends",
                          file, data_size, at);
    return err;
}

static int check_metadata(json_t *v, const char *file, struct problems *why)
{
    const char *key;
    json_t *text;
    bool good = json_is_object(v);
    json_object_foreach(v, key, text)
    {
        good = good && json_is_string(text);
    }
    return good ? 0
                : problem_add(why, -EINVAL,
                              "%s: __metadata__: found other values, expected an object of strings",
                              file);
}

/* The names in one block of their own, so that the JSON tree can go. */
static int copy_names(struct st_header *h, json_t *root)
{
    const char *name;
    json_t *v;
    size_t bytes = 1;
    json_object_foreach(root, name, v) bytes += strlen(name) + 1;
    h->names = malloc(bytes);
    h->tensors = calloc(json_object_size(root) + 1, sizeof(*h->tensors));
    return h->names && h->tensors ? 0 : -ENOMEM;
}

/* Names go into sentences and onto terminals. */
static int check_name(const char *name, const char *file, struct problems *why)
{
    bool good = *name && strlen(name) <= ST_NAME_MAX;
    for (const char *p = name; good && *p; p++)
        good = (unsigned char)*p >= 32 && *p != 127;
    return good ? 0
                : problem_add(why, -EINVAL,
                              "%s: header: found a tensor name that is empty, longer than %d bytes "
                              "or has control characters, expected a printable name",
                              file, ST_NAME_MAX);
}

static int parse_all(struct st_header *h, json_t *root, size_t data_size, const char *file,
                     struct problems *why)
{
    const char *key;
    json_t *v;
    int err = copy_names(h, root);
    char *name = h->names;
    if (err < 0)
        return err;
    json_object_foreach(root, key, v)
    {
        memcpy(name, key, strlen(key) + 1);
        const struct entry e = {file, name, why};
        int bad = check_name(name, file, why);
        name += strlen(name) + 1;
        if (bad == 0 && strcmp(key, "__metadata__") == 0)
            bad = check_metadata(v, file, why);
        else if (bad == 0)
            bad = parse_tensor(&e, &h->tensors[h->n++], v, data_size);
        err = bad < 0 ? bad : err;
    }
    if (err < 0)
        return err;
    qsort(h->tensors, h->n, sizeof(*h->tensors), by_offset);
    return check_cover(h, data_size, file, why);
}

/* The header's length, or a sentence. */
static int header_length(size_t *ret, const unsigned char *bytes, size_t len, size_t file_size,
                         const char *name, struct problems *why)
{
    uint64_t n = 0;
    if (file_size < 8 || len < 8)
        return problem_add(
            why, -EINVAL, "%s: size: found %zu bytes, expected at least the 8 of the header length",
            name, file_size);
    for (int i = 7; i >= 0; i--)
        n = n << 8 | bytes[i];
    if (n > ST_HEADER_MAX)
        return problem_add(why, -EINVAL,
                           "%s: header length: found %" PRIu64 " bytes, expected at most %u", name,
                           n, ST_HEADER_MAX);
    if (n > file_size - 8 || n > len - 8)
        return problem_add(why, -EINVAL,
                           "%s: header length: found %" PRIu64
                           " bytes, expected at most the %zu that follow in the file (is it "
                           "truncated?)",
                           name, n, file_size - 8);
    *ret = (size_t)n;
    return 0;
}

int st_parse(struct st_header *h, const void *bytes, size_t len, size_t file_size, const char *name,
             struct problems *why)
{
    size_t n = 0;
    json_error_t e;
    *h = (struct st_header){0};
    int err = header_length(&n, bytes, len, file_size, name, why);
    if (err < 0)
        return err;
    const char *text = (const char *)bytes + 8;
    if (n == 0 || text[0] != '{')
        return problem_add(why, -EINVAL, "%s: header: found %s, expected it to begin with {", name,
                           n ? "other text" : "nothing");
    json_t *root;
    err = json_text_parse(&root, text, n, name, &e, why);
    if (err == -EINVAL)
        problem_add(why, err, "%s: header: byte %d: %s, expected a JSON object", name, e.position,
                    e.text);
    if (err < 0)
        return err;
    h->data_start = n + 8;
    err = parse_all(h, root, file_size - h->data_start, name, why);
    json_decref(root);
    if (err < 0)
        st_header_free(h);
    return err;
}

void st_header_free(struct st_header *h)
{
    free(h->tensors);
    free(h->names);
    *h = (struct st_header){0};
}

static int map_file(struct st_file *f, const char *path, struct problems *why)
{
    struct stat st = {0};
    int err = 0;
    f->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe would wait for its writer */
    if (f->fd < 0) {
        err = -errno;
        return problem_add(why, err == -ENOENT ? -EINVAL : err,
                           "%s: found no readable file (%s), expected safetensors", path,
                           strerror(-err));
    }
    if (fstat(f->fd, &st) < 0 || !S_ISREG(st.st_mode))
        return problem_add(why, -EINVAL, "%s: found no regular file, expected safetensors", path);
    if (st.st_size < 8)
        return problem_add(why, -EINVAL, "%s: size: found %lld bytes, expected a safetensors file",
                           path, (long long)st.st_size);
    f->size = (size_t)st.st_size;
    void *map = mmap(NULL, f->size, PROT_READ, MAP_PRIVATE, f->fd, 0);
    if (map == MAP_FAILED)
        return problem_add(why, -errno, "%s: %zu bytes cannot be mapped: %s", path, f->size,
                           strerror(errno));
    f->map = map;
    return 0;
}

int st_open(struct st_file **ret, const char *path, struct problems *why)
{
    int err = -ENOMEM;
    struct st_file *f = calloc(1, sizeof(*f));
    if (!f)
        return err;
    f->fd = -1;
    const char *slash = strrchr(path, '/');
    f->name = strdup(slash ? slash + 1 : path);
    if (!f->name)
        goto out;
    err = map_file(f, path, why);
    if (err == 0)
        err = st_parse(&f->header, f->map, f->size, f->size, f->name, why);
    if (err < 0)
        goto out;
    *ret = f;
    f = NULL;
out:
    st_close(f);
    return err;
}

const struct st_tensor *st_find(const struct st_file *f, const char *name)
{
    for (size_t i = 0; i < f->header.n; i++)
        if (strcmp(f->header.tensors[i].name, name) == 0)
            return &f->header.tensors[i];
    return NULL;
}

const void *st_data(const struct st_file *f, const struct st_tensor *t)
{
    return f->map + f->header.data_start + t->begin;
}

void st_close(struct st_file *f)
{
    if (!f)
        return;
    if (f->map)
        munmap((void *)f->map, f->size);
    if (f->fd >= 0)
        close(f->fd);
    st_header_free(&f->header);
    free(f->name);
    free(f);
}
