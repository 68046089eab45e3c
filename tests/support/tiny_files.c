/* tests/support/tiny_files.c - altering the files of a small checkpoint; see tiny.h. */
#undef NDEBUG
#include <assert.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/util.h"
#include "tests/support/tiny.h"

void tiny_path(const struct tiny *t, const char *file, char path[128])
{
    assert(snprintf(path, 128, "%s/%s", t->dir, file) < 128);
}

void tiny_remove(const struct tiny *t, const char *file)
{
    char path[128];
    tiny_path(t, file, path);
    assert(unlink(path) == 0);
}

void tiny_truncate(const struct tiny *t, const char *file, size_t size)
{
    char path[128];
    tiny_path(t, file, path);
    assert(truncate(path, (off_t)size) == 0);
}

void tiny_put(const struct tiny *t, const char *file, const void *bytes, size_t n)
{
    char path[128];
    tiny_path(t, file, path);
    FILE *f = fopen(path, "wb");
    assert(f && fwrite(bytes, 1, n, f) == n && fclose(f) == 0);
}

char *tiny_get(const struct tiny *t, const char *file, size_t *n)
{
    char path[128], *text;
    tiny_path(t, file, path);
    assert(read_file(&text, n, path, (size_t)1 << 30) == 0);
    return text;
}

static size_t header_length(const char *bytes)
{
    uint64_t n;
    memcpy(&n, bytes, 8);
    return (size_t)n;
}

void tiny_replace(const struct tiny *t, const char *file, const char *from, const char *to)
{
    size_t n, ext = strlen(".safetensors"), len = strlen(file);
    bool weights = len > ext && strcmp(file + len - ext, ".safetensors") == 0;
    char *text = tiny_get(t, file, &n), *end = text + n;
    char *body = weights ? text + 8 : text;
    if (weights)
        end = body + header_length(text);
    char *at = memmem(body, (size_t)(end - body), from, strlen(from));
    assert(at);
    size_t before = (size_t)(at - text), rest = n - before - strlen(from);
    char *out = malloc(n + strlen(to));
    memcpy(out, text, before);
    memcpy(out + before, to, strlen(to));
    memcpy(out + before + strlen(to), at + strlen(from), rest);
    if (weights) {
        uint64_t header = header_length(text) + strlen(to) - strlen(from);
        memcpy(out, &header, 8);
    }
    tiny_put(t, file, out, before + strlen(to) + rest);
    free(out);
    free(text);
}

/* The object that holds the last part of `path`. */
static json_t *holder(json_t *root, const char **path)
{
    const char *dot;
    while ((dot = strchr(*path, '.')) && json_is_object(root)) {
        char key[64];
        assert(snprintf(key, sizeof(key), "%.*s", (int)(dot - *path), *path) < 64);
        json_t *inner = json_object_get(root, key);
        if (!json_is_object(inner)) /* tensor names have dots */
            break;
        root = inner;
        *path = dot + 1;
    }
    return root;
}

void tiny_set(const struct tiny *t, const char *file, const char *path, const char *value)
{
    size_t n;
    char *text = tiny_get(t, file, &n);
    json_t *root = json_loadb(text, n, 0, NULL);
    json_t *object = holder(root, &path);
    if (value) {
        json_t *v = json_loads(value, JSON_DECODE_ANY, NULL);
        assert(v && json_object_set_new(object, path, v) == 0);
    } else {
        assert(json_object_del(object, path) == 0);
    }
    free(text);
    text = json_dumps(root, JSON_INDENT(1));
    tiny_put(t, file, text, strlen(text));
    free(text);
    json_decref(root);
}

static void remove_directory(const char *dir)
{
    DIR *d = opendir(dir);
    for (struct dirent *e; d && (e = readdir(d));) {
        char path[400];
        snprintf(path, sizeof(path), "%s/%s", dir, e->d_name);
        if (e->d_name[0] != '.')
            unlink(path);
    }
    if (d)
        closedir(d);
    rmdir(dir);
}

void tiny_free(struct tiny *t)
{
    for (size_t i = 0; i < t->n; i++) {
        free(t->tensors[i].name);
        free(t->tensors[i].values);
    }
    free(t->tensors);
    json_decref(t->config);
    if (t->dir[0])
        remove_directory(t->dir);
    *t = (struct tiny){0};
}
