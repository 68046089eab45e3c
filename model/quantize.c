/*
 * model/quantize.c - the steps of quantising: a tensor at a time into the entries of a file, the
 * file, and at the end index, configuration and texts.
 */
#include "model/quantize.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "model/quantize_dir.h"
#include "model/quantize_plan.h"

enum { PARTS = 3 }; /* bytes, scales, shape */

struct quantizer {
    struct quant_plan plan;
    struct out_dir dir;
    char *in;
    struct quantize_row rows[ROW_COUNT];
    size_t next, done;        /* item, bytes */
    struct st_entry *entries; /* of the file that is being filled; names are owned */
    size_t n, cap;
    void **owned; /* data that is not in a mapped file */
    size_t n_owned, cap_owned;
    json_t *map;      /* of the index */
    size_t total_out; /* bytes of all entries */
};

static const char *const components[ROW_COUNT] = {"thinker",        "audio encoder", "talker",
                                                  "code predictor", "code2wav",      "others"};

int quantizer_open(struct quantizer **ret, const struct quantize_opts *o, struct problems *why)
{
    int err = -ENOMEM;
    struct quantizer *q = calloc(1, sizeof(*q));
    if (!q)
        return err;
    q->in = strdup(o->in);
    q->map = json_object();
    if (!q->in || !q->map)
        goto out;
    for (int i = 0; i < ROW_COUNT; i++)
        q->rows[i].component = components[i];
    err = quant_plan_open(&q->plan, o, why);
    if (err == 0)
        err = out_dir_open(&q->dir, o->out, why);
    if (err < 0)
        goto out;
    *ret = q;
    q = NULL;
out:
    quantizer_close(q);
    return err;
}

static void shard_name(const struct quantizer *q, size_t shard, char *name, size_t size)
{
    if (q->plan.shards == 1)
        snprintf(name, size, "model.safetensors");
    else
        snprintf(name, size, "model-%05zu-of-%05zu.safetensors", shard + 1, q->plan.shards);
}

/* Takes over the name. */
static int add_entry(struct quantizer *q, struct st_entry e, size_t shard)
{
    char file[64];
    int err = grow_array(&q->entries, &q->cap, q->n + 1, sizeof(*q->entries));
    if (err < 0) {
        free((void *)e.name);
        return err;
    }
    shard_name(q, shard, file, sizeof(file));
    q->entries[q->n++] = e;
    return json_object_set_new(q->map, e.name, json_string(file)) < 0 ? -ENOMEM : 0;
}

/* Zeroed memory until the file is written. */
static void *own(struct quantizer *q, size_t n, size_t size)
{
    int err = grow_array(&q->owned, &q->cap_owned, q->n_owned + 1, sizeof(*q->owned));
    void *p = err < 0 ? NULL : calloc(n, size);
    if (p != NULL)
        q->owned[q->n_owned++] = p;
    return p;
}

static void free_entries(struct quantizer *q)
{
    for (size_t i = 0; i < q->n; i++)
        free((void *)q->entries[i].name);
    for (size_t i = 0; i < q->n_owned; i++)
        free(q->owned[i]);
    q->n = q->n_owned = 0;
}

static int copy(struct quantizer *q, const struct quant_item *item)
{
    struct st_entry e = {.type = item->from->type, .ndim = item->from->ndim};
    memcpy(e.shape, item->from->shape, sizeof(e.shape));
    e.data = st_data(item->file, item->from);
    e.name = strdup(item->name);
    return e.name ? add_entry(q, e, item->shard) : -ENOMEM;
}

/* The file's values may lie unaligned. */
static void widen(float *to, void *aligned, const unsigned char *from, enum dtype type, int n)
{
    memcpy(aligned, from, (size_t)n * dtype_size(type));
    for (int i = 0; i < n; i++)
        to[i] = dtype_read(type, aligned, (size_t)i);
}

static void count_error(struct quantize_row *row, const char *name, double error, double square)
{
    double e = square > 0 ? sqrt(error / square) : 0;
    row->mean += (e - row->mean) / (double)(row->quantised + 1);
    row->quantised++;
    if (e < row->largest)
        return;
    row->largest = e;
    snprintf(row->worst, sizeof(row->worst), "%s", name);
}

/* Bytes and scales of a matrix. */
static int fill(struct quantizer *q, const struct quant_item *item, uint8_t *bytes,
                uint16_t *scales)
{
    const struct weight w = {.type = DT_I8, .cols = item->cols, .group = item->group};
    size_t stride = weight_row_bytes(&w), groups = (size_t)weight_groups(&w);
    double error = 0, square = 0;
    enum dtype type;
    st_type_weight(item->from->type, &type);
    size_t row = (size_t)item->cols * dtype_size(type);
    const unsigned char *from = st_data(item->file, item->from);
    float *wide = malloc(2 * (size_t)item->cols * sizeof(*wide));
    if (!wide)
        return -ENOMEM;
    from += item->first * dtype_size(type);
    for (size_t r = 0; r < (size_t)item->rows; r++) {
        widen(wide, wide + item->cols, from + r * row, type, item->cols);
        quantize_row(bytes + r * stride, scales + r * groups, wide, item->cols, item->group, &error,
                     &square);
    }
    free(wide);
    count_error(&q->rows[item->row], item->name, error, square);
    return isfinite(error) && isfinite(square) ? 0 : -EDOM;
}

static int quantize(struct quantizer *q, const struct quant_item *item, struct problems *why)
{
    static const char *const suffix[PARTS] = {"_packed", "_scale", "_shape"};
    static const enum st_type type[PARTS] = {ST_I32, ST_BF16, ST_I64};
    size_t rows = (size_t)item->rows, words = ((size_t)item->cols + 3) / 4;
    size_t groups = ((size_t)item->cols + (size_t)item->group - 1) / (size_t)item->group;
    const size_t shape[PARTS][2] = {{rows, words}, {rows, groups}, {2, 1}};
    void *data[PARTS] = {NULL};
    int err = 0;
    for (int i = 0; err == 0 && i < PARTS; i++) {
        struct st_entry e = {.type = type[i], .ndim = i < 2 ? 2 : 1};
        char *name = NULL;
        memcpy(e.shape, shape[i], sizeof(shape[i]));
        e.data = data[i] = own(q, shape[i][0] * shape[i][1], st_type_size(type[i]));
        if (data[i] == NULL || asprintf(&name, "%s%s", item->name, suffix[i]) < 0)
            return -ENOMEM;
        e.name = name;
        err = add_entry(q, e, item->shard);
    }
    if (err < 0)
        return err;
    memcpy(data[2], (const int64_t[]){item->rows, item->cols}, 2 * sizeof(int64_t));
    err = fill(q, item, data[0], data[1]);
    if (err == -EDOM)
        return problem_add(why, -EINVAL,
                           "%s: tensor %s: found infinite weights or NaN, expected numbers",
                           item->file->name, item->from->name);
    return err;
}

static int write_shard(struct quantizer *q, size_t shard, struct problems *why)
{
    char name[64];
    shard_name(q, shard, name, sizeof(name));
    char *path = out_dir_path(&q->dir, name);
    int err = path ? safetensors_write(path, q->entries, q->n, why) : -ENOMEM;
    free(path);
    free_entries(q);
    return err;
}

static int write_index(const struct quantizer *q, struct problems *why)
{
    json_t *index = json_pack("{s:{s:I}, s:O}", "metadata", "total_size", (json_int_t)q->total_out,
                              "weight_map", q->map);
    int err =
        index ? out_dir_put_json(&q->dir, "model.safetensors.index.json", index, why) : -ENOMEM;
    json_decref(index);
    return err;
}

/* A group of the configuration; targets: all linear layers, or those whose group is this. */
static json_t *scheme_json(const struct quantizer *q, int group, bool all, bool rows)
{
    json_t *targets = json_array();
    if (all)
        json_array_append_new(targets, json_string("Linear"));
    for (size_t i = 0; i < q->plan.n && !all; i++) {
        const struct quant_item *item = &q->plan.items[i];
        bool whole = item->group == item->cols;
        if (item->group > 0 && whole == rows && (rows || item->group == group))
            json_array_append_new(targets,
                                  json_stringn(item->name, strlen(item->name) - strlen(".weight")));
    }
    return json_pack("{s:o, s:{s:i, s:s, s:b, s:s, s:o, s:b}, s:n, s:n}", "targets", targets,
                     "weights", "num_bits", 8, "type", "int", "symmetric", 1, "strategy",
                     rows ? "channel" : "group", "group_size",
                     rows ? json_null() : json_integer(group), "dynamic", 0, "input_activations",
                     "output_activations");
}

struct scheme {
    int group; /* 0 = whole rows */
    size_t matrices;
};

/* The different groups, the commonest first. */
static int collect_schemes(const struct quantizer *q, struct scheme *s)
{
    int n = 0;
    for (size_t i = 0; i < q->plan.n; i++) {
        const struct quant_item *item = &q->plan.items[i];
        int group = item->group == item->cols ? 0 : item->group, at = 0;
        if (item->group == 0)
            continue;
        while (at < n && s[at].group != group)
            at++;
        if (at == n)
            s[n++] = (struct scheme){group, 0};
        s[at].matrices++;
        if (s[at].matrices > s[0].matrices) {
            struct scheme first = s[0];
            s[0] = s[at];
            s[at] = first;
        }
    }
    return n;
}

static json_t *quantization_json(const struct quantizer *q)
{
    struct scheme s[QUANT_GROUPS_MAX];
    json_t *groups = json_object(), *ignore = json_array();
    int n = collect_schemes(q, s);
    for (int i = 0; i < n; i++) {
        char key[24];
        snprintf(key, sizeof(key), "group_%d", i);
        json_object_set_new(groups, key, scheme_json(q, s[i].group, i == 0, s[i].group == 0));
    }
    for (size_t i = 0; i < q->plan.n; i++) {
        const struct quant_item *item = &q->plan.items[i];
        size_t len = strlen(item->name), end = strlen(".weight");
        if (item->linear && item->group == 0 && len > end)
            json_array_append_new(ignore, json_stringn(item->name, len - end));
    }
    json_array_append_new(ignore, json_string("re:thinker\\.visual\\..*"));
    return json_pack("{s:s, s:s, s:s, s:o, s:o, s:n}", "quant_method", "compressed-tensors",
                     "format", "pack-quantized", "quantization_status", "compressed",
                     "config_groups", groups, "ignore", ignore, "kv_cache_scheme");
}

static int write_config(const struct quantizer *q, struct problems *why)
{
    json_error_t e;
    char *path;
    if (asprintf(&path, "%s/config.json", q->in) < 0)
        return -ENOMEM;
    json_t *root = json_load_file(path, 0, &e), *section = quantization_json(q);
    int err = root ? 0 : problem_add(why, -EINVAL, "%s: %s", path, e.text);
    if (err == 0 && (!section || json_object_set(root, "quantization_config", section) < 0))
        err = -ENOMEM;
    if (err == 0)
        err = out_dir_put_json(&q->dir, "config.json", root, why);
    json_decref(section);
    json_decref(root);
    free(path);
    return err;
}

static int finish(struct quantizer *q, struct problems *why)
{
    int err = q->plan.shards > 1 ? write_index(q, why) : 0;
    if (err == 0)
        err = write_config(q, why);
    if (err == 0)
        err = out_dir_copy_texts(&q->dir, q->in, why);
    return err < 0 ? err : out_dir_finish(&q->dir, why);
}

int quantizer_step(struct quantizer *q, struct quantize_progress *p, struct problems *why)
{
    if (q->next == q->plan.n)
        return finish(q, why);
    const struct quant_item *item = &q->plan.items[q->next++];
    struct quantize_row *row = &q->rows[item->row];
    int err = item->group > 0 ? quantize(q, item, why) : copy(q, item);
    row->copied += item->group == 0;
    row->before += item->original;
    row->after += item->bytes;
    q->total_out += item->bytes;
    q->done += item->original;
    if (p)
        *p = (struct quantize_progress){q->done, q->plan.total};
    if (err == 0 && (q->next == q->plan.n || q->plan.items[q->next].shard != item->shard))
        err = write_shard(q, item->shard, why);
    return err < 0 ? err : 1;
}

int quantizer_rows(const struct quantizer *q, const struct quantize_row **rows)
{
    *rows = q->rows;
    return ROW_COUNT;
}

void quantizer_close(struct quantizer *q)
{
    if (!q)
        return;
    free_entries(q);
    free(q->entries);
    free(q->owned);
    json_decref(q->map);
    out_dir_close(&q->dir);
    quant_plan_close(&q->plan);
    free(q->in);
    free(q);
}
