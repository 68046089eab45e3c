/* tests/parity/golden.c - reading goldens, and the same checkpoint in another number format. */
#include "tests/parity/golden.h"

#include <dirent.h>
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/util.h"
#include "kernels/dtype.h"

static const char *join(char *buf, size_t size, const char *dir, const char *name)
{
    snprintf(buf, size, "%s/%s", dir, name);
    return buf;
}

int golden_open(struct golden *g, const char *dir, struct problems *why)
{
    char path[8192];
    snprintf(g->dir, sizeof(g->dir), "%s", dir);
    return st_open(&g->file, join(path, sizeof(path), dir, "golden.safetensors"), why);
}

void golden_close(struct golden *g)
{
    st_close(g->file);
}

static const struct st_tensor *find(const struct golden *g, const char *name)
{
    const struct st_tensor *t = st_find(g->file, name);
    if (t == NULL) {
        fprintf(stderr, "%s/golden.safetensors: no tensor '%s'\n", g->dir, name);
        exit(1);
    }
    return t;
}

const float *golden_f32(const struct golden *g, const char *name, size_t *count)
{
    const struct st_tensor *t = find(g, name);
    *count = t->count;
    return st_data(g->file, t);
}

const int32_t *golden_i32(const struct golden *g, const char *name, size_t *count)
{
    const struct st_tensor *t = find(g, name);
    *count = t->count;
    return st_data(g->file, t);
}

size_t golden_dim(const struct golden *g, const char *name, int axis)
{
    return find(g, name)->shape[axis];
}

double golden_bf16_error(const struct golden *g, const char *stage, const char *measure)
{
    char path[8192];
    json_t *j = json_load_file(join(path, sizeof(path), g->dir, "bf16.json"), 0, NULL);
    json_t *s = json_object_get(json_object_get(j, "stages"), stage);
    double error = json_number_value(json_object_get(s, measure));
    json_decref(j);
    return error;
}

static int copy_file(const char *from, const char *to, const char *name)
{
    char path[8192], *text;
    size_t len;
    int err = read_file(&text, &len, join(path, sizeof(path), from, name), 1 << 26);
    if (err < 0)
        return err;
    FILE *f = fopen(join(path, sizeof(path), to, name), "wb");
    err = f != NULL && fwrite(text, 1, len, f) == len ? 0 : -EIO;
    if (f != NULL && fclose(f) != 0)
        err = -EIO;
    free(text);
    return err;
}

/* Adds the tensors of one shard, converted; their data and names live on in `keep`. */
static void add_shard(const struct st_file *f, enum st_type type, struct st_entry *entries,
                      size_t *n)
{
    for (size_t i = 0; i < f->header.n; i++) {
        const struct st_tensor *t = &f->header.tensors[i];
        enum dtype from, to;
        st_type_weight(t->type, &from);
        st_type_weight(type, &to);
        void *data = malloc(t->count * 4);
        for (size_t k = 0; k < t->count; k++)
            dtype_write(to, data, k, dtype_read(from, st_data(f, t), k));
        struct st_entry e = {.name = t->name, .type = type, .ndim = t->ndim, .data = data};
        memcpy(e.shape, t->shape, sizeof(e.shape));
        entries[(*n)++] = e;
    }
}

#define SHARDS_MAX  8
#define ENTRIES_MAX 20000

int golden_recast(const struct golden *g, const char *to, enum st_type type, struct problems *why)
{
    struct st_file *shard[SHARDS_MAX];
    struct st_entry *entries = calloc(ENTRIES_MAX, sizeof(*entries));
    size_t n = 0, shards = 0;
    int err = 0;
    DIR *d = opendir(g->dir);
    mkdir(to, 0755);
    for (struct dirent *e; err == 0 && d != NULL && (e = readdir(d)) != NULL;) {
        char path[8192];
        const char *dot = strrchr(e->d_name, '.');
        if (strncmp(e->d_name, "model", 5) == 0 && dot != NULL && !strcmp(dot, ".safetensors")) {
            err = st_open(&shard[shards], join(path, sizeof(path), g->dir, e->d_name), why);
            if (err == 0)
                add_shard(shard[shards++], type, entries, &n);
        } else if (dot != NULL && strcmp(dot, ".safetensors") != 0 && strcmp(dot, ".wav") != 0 &&
                   strcmp(e->d_name, "model.safetensors.index.json") != 0 && e->d_name[0] != '.') {
            err = copy_file(g->dir, to, e->d_name);
        }
    }
    closedir(d);
    char path[8192];
    if (err == 0)
        err = safetensors_write(join(path, sizeof(path), to, "model.safetensors"), entries, n, why);
    for (size_t i = 0; i < n; i++)
        free((void *)entries[i].data);
    free(entries);
    for (size_t i = 0; i < shards; i++)
        st_close(shard[i]);
    return err;
}
