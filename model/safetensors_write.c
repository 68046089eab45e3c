/*
 * model/safetensors_write.c - writing a .safetensors file: --dump, tests, small trained models.
 *
 * Tensors go by falling element size, then by name, behind a header padded to 8 bytes: so each is
 * aligned to its elements, and the same entries give the same file. It is written beside its
 * name and renamed when it is complete and on the disk, unless that name is a device or a pipe.
 */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/util.h"
#include "model/safetensors.h"

static int by_size_and_name(const void *pa, const void *pb)
{
    const struct st_entry *a = pa, *b = pb;
    size_t sa = st_type_size(a->type), sb = st_type_size(b->type);
    if (sa != sb)
        return sa > sb ? -1 : 1;
    return strcmp(a->name, b->name);
}

static bool entry_bytes(const struct st_entry *e, size_t *bytes)
{
    bool fits = e->ndim >= 0 && e->ndim <= ST_DIMS_MAX;
    *bytes = st_type_size(e->type);
    for (int i = 0; fits && i < e->ndim; i++)
        fits = mul_size(*bytes, e->shape[i], bytes);
    return fits;
}

static json_t *entry_json(const struct st_entry *e, size_t begin, size_t end)
{
    json_t *shape = json_array();
    for (int i = 0; i < e->ndim; i++)
        json_array_append_new(shape, json_integer((json_int_t)e->shape[i]));
    return json_pack("{s:s, s:o, s:[I, I]}", "dtype", st_type_name(e->type), "shape", shape,
                     "data_offsets", (json_int_t)begin, (json_int_t)end);
}

/* The header's text, `entries` sorted; NULL and a sentence, or NULL for lack of memory. */
static char *header_text(const struct st_entry *entries, size_t n, const char *path,
                         struct problems *why)
{
    size_t at = 0, bytes;
    char *text = NULL;
    json_t *root = json_pack("{s:{s:s}}", "__metadata__", "format", "pt");
    for (size_t i = 0; i < n; i++) {
        const struct st_entry *e = &entries[i];
        if (!entry_bytes(e, &bytes) || bytes > SIZE_MAX / 4 - at) {
            problem_add(why, -EINVAL, "%s: tensor %s: shape: does not fit", path, e->name);
            goto out;
        }
        if (json_object_get(root, e->name)) {
            problem_add(why, -EINVAL, "%s: tensor %s: found twice, expected once", path, e->name);
            goto out;
        }
        if (json_object_set_new(root, e->name, entry_json(e, at, at + bytes)) < 0) {
            problem_add(why, -EINVAL, "%s: a tensor's name is not UTF-8", path);
            goto out;
        }
        at += bytes;
    }
    text = json_dumps(root, JSON_COMPACT);
out:
    json_decref(root);
    return text;
}

static bool write_all(FILE *f, const char *header, const struct st_entry *entries, size_t n)
{
    size_t len = strlen(header), padded = (len + 7) / 8 * 8, bytes;
    unsigned char size[8];
    for (int i = 0; i < 8; i++)
        size[i] = (unsigned char)((uint64_t)padded >> 8 * i);
    bool good = fwrite(size, 1, 8, f) == 8 && fprintf(f, "%-*s", (int)padded, header) > 0;
    for (size_t i = 0; good && i < n; i++)
        good = entry_bytes(&entries[i], &bytes) &&
               (bytes == 0 || fwrite(entries[i].data, 1, bytes, f) == bytes);
    return good && fflush(f) == 0 && (fsync(fileno(f)) == 0 || errno == EINVAL); /* of a pipe */
}

/* A device or a pipe is written to; a file could not take its name. */
static bool is_special(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && !S_ISREG(st.st_mode);
}

static int write_file(const char *path, const char *header, const struct st_entry *entries,
                      size_t n)
{
    int err = 0, fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0)
        return -errno;
    FILE *f = fdopen(fd, "wb");
    if (!f) {
        close(fd);
        return -ENOMEM;
    }
    if (!write_all(f, header, entries, n))
        err = errno ? -errno : -EIO;
    if (fclose(f) != 0 && err == 0)
        err = -errno;
    return err;
}

/* Beside its place first, so that it is there as a whole or not at all. */
static int write_renamed(const char *path, const char *temp, const char *header,
                         const struct st_entry *entries, size_t n)
{
    int err = write_file(temp, header, entries, n);
    if (err == 0 && rename(temp, path) < 0)
        err = -errno;
    if (err < 0)
        unlink(temp);
    return err;
}

int safetensors_write(const char *path, const struct st_entry *entries, size_t n,
                      struct problems *why)
{
    int err = -ENOMEM;
    char *header = NULL, *temp = NULL;
    struct st_entry *sorted = calloc(n + 1, sizeof(*sorted));
    if (!sorted)
        return err;
    for (size_t i = 0; i < n; i++)
        sorted[i] = entries[i];
    qsort(sorted, n, sizeof(*sorted), by_size_and_name);
    header = header_text(sorted, n, path, why);
    if (!header) {
        err = -EINVAL;
        goto out;
    }
    if (asprintf(&temp, "%s.%d.tmp", path, (int)getpid()) < 0) {
        temp = NULL;
        goto out;
    }
    err = is_special(path) ? write_file(path, header, sorted, n)
                           : write_renamed(path, temp, header, sorted, n);
    if (err < 0)
        err = problem_add(why, -EIO, "%s: cannot be written: %s", path, strerror(-err));
out:
    free(temp);
    free(header);
    free(sorted);
    return err;
}
