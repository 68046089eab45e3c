/*
 * model/checkpoint.c - from a directory to tensors: index, shards, lookup.
 *
 * All names are kept in one table sorted by name: which shard, and (once that is open) which entry
 * of its header. Opening a shard fills in its entries and reports every name that the index
 * promises and the shard lacks.
 */
#include "model/checkpoint.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/util.h"
#include "model/json_text.h"

#define INDEX_MAX ((size_t)256 << 20)

struct shard {
    char *name;
    struct st_file *file; /* NULL: not opened yet, or refused */
    int err;              /* why it was refused; said once */
};

struct slot {
    char *name; /* owned when the index gave it */
    size_t shard;
    const struct st_tensor *tensor; /* NULL until the shard is open */
};

struct checkpoint {
    char *dir;
    bool sharded;
    struct shard *shards;
    size_t n_shards, cap_shards;
    struct slot *slots; /* sorted by name */
    size_t n_slots, cap_slots;
};

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct slot *)a)->name, ((const struct slot *)b)->name);
}

static void sort_slots(struct checkpoint *c)
{
    if (c->n_slots > 0)
        qsort(c->slots, c->n_slots, sizeof(*c->slots), by_name);
}

static struct slot *find_slot(const struct checkpoint *c, const char *name)
{
    const struct slot key = {.name = (char *)name};
    if (c->n_slots == 0)
        return NULL;
    return bsearch(&key, c->slots, c->n_slots, sizeof(key), by_name);
}

static int add_shard(struct checkpoint *c, const char *name, size_t *at)
{
    /* Indexes list neighbours together: the last shard is the likeliest. */
    for (size_t i = c->n_shards; i-- > 0;)
        if (strcmp(c->shards[i].name, name) == 0) {
            *at = i;
            return 0;
        }
    int err = grow_array(&c->shards, &c->cap_shards, c->n_shards + 1, sizeof(*c->shards));
    if (err < 0)
        return err;
    struct shard *s = &c->shards[c->n_shards];
    *s = (struct shard){.name = strdup(name)};
    if (!s->name)
        return -ENOMEM;
    *at = c->n_shards++;
    return 0;
}

static int add_slot(void *arg, const char *tensor, const char *shard)
{
    struct checkpoint *c = arg;
    int err = grow_array(&c->slots, &c->cap_slots, c->n_slots + 1, sizeof(*c->slots));
    if (err < 0)
        return err;
    struct slot *s = &c->slots[c->n_slots];
    *s = (struct slot){.name = strdup(tensor)};
    if (!s->name)
        return -ENOMEM;
    c->n_slots++;
    return add_shard(c, shard, &s->shard);
}

/* A shard is a file beside the index, never a path out of the directory. */
static bool shard_name_good(const char *name)
{
    size_t n = name ? strlen(name) : 0;
    if (n == 0 || n > 255 || strchr(name, '/') || name[0] == '.')
        return false;
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)name[i] < 32 || name[i] == 127)
            return false;
    return true;
}

static int parse_map(json_t *root, const char *name, struct problems *why,
                     int (*each)(void *arg, const char *tensor, const char *shard), void *arg)
{
    json_t *map = json_object_get(root, "weight_map"), *v;
    const char *tensor;
    int err = 0;
    if (!json_is_object(map) || json_object_size(map) == 0)
        return problem_add(why, -EINVAL,
                           "%s: weight_map: found %s, expected an object of tensor and file names",
                           name, json_is_object(map) ? "an empty object" : "no object");
    json_object_foreach(map, tensor, v)
    {
        const char *shard = json_string_value(v);
        if (!shard_name_good(shard) || strlen(tensor) > ST_NAME_MAX)
            err = problem_add(why, -EINVAL,
                              "%s: weight_map.%.80s: found %.80s, expected the name of a file in "
                              "the same directory",
                              name, tensor, shard ? shard : "no string");
        else if (err == 0)
            err = each(arg, tensor, shard);
        if (err == -ENOMEM)
            break;
    }
    return err;
}

int checkpoint_parse_index(const char *text, size_t len, const char *name, struct problems *why,
                           int (*each)(void *arg, const char *tensor, const char *shard), void *arg)
{
    json_error_t e;
    json_t *root;
    int err = json_text_parse(&root, text, len, name, &e, why);
    if (err == -EINVAL)
        problem_add(why, err, "%s: line %d: %s, expected a JSON object", name, e.line, e.text);
    if (err < 0)
        return err;
    err = parse_map(root, name, why, each, arg);
    json_decref(root);
    return err;
}

static int path_in(const struct checkpoint *c, char **path, const char *name)
{
    if (asprintf(path, "%s/%s", c->dir, name) >= 0)
        return 0;
    *path = NULL;
    return -ENOMEM;
}

/* Points the table at a shard's header; what the index promised must be there. */
static int fill_slots(struct checkpoint *c, size_t shard, struct problems *why)
{
    const struct st_header *h = &c->shards[shard].file->header;
    int err = 0;
    for (size_t i = 0; i < h->n; i++) {
        struct slot *s = find_slot(c, h->tensors[i].name);
        if (s && s->shard == shard)
            s->tensor = &h->tensors[i];
    }
    for (size_t i = 0; i < c->n_slots; i++)
        if (c->slots[i].shard == shard && !c->slots[i].tensor)
            err = problem_add(why, -EINVAL, "%s: tensor %s: found nothing in %s, expected it there",
                              checkpoint_list_name(c), c->slots[i].name, c->shards[shard].name);
    return err;
}

static int open_shard(struct checkpoint *c, size_t shard, struct problems *why)
{
    struct shard *s = &c->shards[shard];
    char *path;
    if (s->file || s->err < 0)
        return s->err;
    s->err = path_in(c, &path, s->name);
    if (s->err < 0)
        return s->err;
    s->err = st_open(&s->file, path, why);
    free(path);
    if (s->err == 0)
        s->err = fill_slots(c, shard, why);
    return s->err;
}

/* model.safetensors: its header is the list of names. */
static int open_single(struct checkpoint *c, struct problems *why)
{
    size_t shard;
    int err = add_shard(c, "model.safetensors", &shard);
    if (err == 0)
        err = open_shard(c, shard, why);
    if (err < 0)
        return err;
    const struct st_header *h = &c->shards[shard].file->header;
    for (size_t i = 0; i < h->n && err == 0; i++) {
        err = add_slot(c, h->tensors[i].name, "model.safetensors");
        if (err == 0)
            c->slots[c->n_slots - 1].tensor = &h->tensors[i];
    }
    sort_slots(c);
    return err;
}

static int open_index(struct checkpoint *c, const char *path, struct problems *why)
{
    char *text = NULL;
    size_t len = 0;
    int err = read_file(&text, &len, path, INDEX_MAX);
    if (err < 0)
        return problem_add(why, -EINVAL,
                           "%s: found neither model.safetensors nor a readable "
                           "model.safetensors.index.json (%s), expected one of them",
                           c->dir, strerror(-err));
    c->sharded = true;
    err = checkpoint_parse_index(text, len, "model.safetensors.index.json", why, add_slot, c);
    free(text);
    sort_slots(c);
    return err;
}

int checkpoint_open(struct checkpoint **ret, const char *dir, struct problems *why)
{
    char *single = NULL, *index = NULL;
    int err = -ENOMEM;
    struct checkpoint *c = calloc(1, sizeof(*c));
    if (!c)
        return err;
    c->dir = strdup(dir);
    if (!c->dir || path_in(c, &single, "model.safetensors") < 0 ||
        path_in(c, &index, "model.safetensors.index.json") < 0)
        goto out;
    err = access(single, F_OK) == 0 ? open_single(c, why) : open_index(c, index, why);
    if (err < 0)
        goto out;
    *ret = c;
    c = NULL;
out:
    free(single);
    free(index);
    checkpoint_close(c);
    return err;
}

int checkpoint_find(struct checkpoint *c, const char *name, const struct st_tensor **tensor,
                    const struct st_file **file, struct problems *why)
{
    struct slot *s = find_slot(c, name);
    if (!s)
        return 0;
    int err = open_shard(c, s->shard, why);
    if (!s->tensor)
        return err < 0 ? err : -EINVAL;
    *tensor = s->tensor;
    *file = c->shards[s->shard].file;
    return 1;
}

bool checkpoint_has(const struct checkpoint *c, const char *name)
{
    return find_slot(c, name) != NULL;
}

const char *checkpoint_name(const struct checkpoint *c, size_t i)
{
    return i < c->n_slots ? c->slots[i].name : NULL;
}

int checkpoint_error(const struct checkpoint *c)
{
    for (size_t i = 0; i < c->n_shards; i++)
        if (c->shards[i].err < 0)
            return c->shards[i].err;
    return 0;
}

void checkpoint_count(const struct checkpoint *c, const char *prefix, size_t *tensors,
                      size_t *parameters)
{
    *tensors = *parameters = 0;
    for (size_t i = 0; i < c->n_slots; i++)
        if (strncmp(c->slots[i].name, prefix, strlen(prefix)) == 0) {
            ++*tensors;
            *parameters += c->slots[i].tensor ? c->slots[i].tensor->count : 0;
        }
}

const char *checkpoint_list_name(const struct checkpoint *c)
{
    return c->sharded ? "model.safetensors.index.json" : "model.safetensors";
}

bool checkpoint_sharded(const struct checkpoint *c)
{
    return c->sharded;
}

size_t checkpoint_shards(const struct checkpoint *c)
{
    return c->n_shards;
}

void checkpoint_close(struct checkpoint *c)
{
    if (!c)
        return;
    for (size_t i = 0; i < c->n_shards; i++) {
        st_close(c->shards[i].file);
        free(c->shards[i].name);
    }
    for (size_t i = 0; i < c->n_slots; i++)
        free(c->slots[i].name);
    free(c->shards);
    free(c->slots);
    free(c->dir);
    free(c);
}
