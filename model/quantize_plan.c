/*
 * model/quantize_plan.c - which tensors of a checkpoint are matrices of linear layers, and what
 * becomes of each.
 *
 * The binder knows: it is run once with a source that answers from the checkpoint and writes down
 * what was asked for.
 */
#include "model/quantize_plan.h"

#include <errno.h>
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"

enum { GROUP = 128, GROUP_LEAST = 16 };
#define SHARD_BYTES ((size_t)4 << 30)

/* Decisions between experts and gates of mixtures are left at full precision. */
static const char *const always_kept[] = {"*.mlp.gate.weight", "*.shared_expert_gate.weight"};

struct wanted {
    char *name;
    bool linear;
    enum row row;
};

struct finder {
    struct source source;
    struct checkpoint_source files;
    const struct binder *binder;
    struct wanted *wanted;
    size_t n, cap;
};

static int note(struct source *s, const struct tensor_want *want, struct tensor_got *got,
                struct problems *why)
{
    struct finder *f = (struct finder *)s;
    int err = grow_array(&f->wanted, &f->cap, f->n + 1, sizeof(*f->wanted));
    char *name = err < 0 ? NULL : strdup(want->name);
    if (!name)
        return -ENOMEM;
    f->wanted[f->n++] = (struct wanted){name, want->linear, f->binder->row};
    return f->files.source.get(&f->files.source, want, got, why);
}

static bool note_has(const struct source *s, const char *name)
{
    const struct finder *f = (const struct finder *)s;
    return f->files.source.has(&f->files.source, name);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct wanted *)a)->name, ((const struct wanted *)b)->name);
}

/* Fills f->wanted, sorted by name. */
static int find_wanted(struct finder *f, struct checkpoint *c, const struct config *config,
                       struct problems *why)
{
    struct model m = {.config = *config, .speech = config->has_speech};
    struct binder b = {.source = &f->source, .quant = &m.config.quant, .why = why};
    f->source = (struct source){note, note_has};
    f->binder = &b;
    checkpoint_source_init(&f->files, c);
    int err = bind_model(&b, &m);
    binder_free_pieces(&b);
    for (size_t i = 0; i < b.n_blocks; i++)
        free(b.blocks[i]);
    free(b.blocks);
    if (f->n > 0)
        qsort(f->wanted, f->n, sizeof(*f->wanted), by_name);
    return err;
}

static bool is_kept(const struct quantize_opts *o, const char *name)
{
    for (size_t i = 0; i < ARRAY_LEN(always_kept); i++)
        if (fnmatch(always_kept[i], name, 0) == 0)
            return true;
    for (int i = 0; i < o->n_keep; i++)
        if (fnmatch(o->keep[i], name, 0) == 0)
            return true;
    return false;
}

/* The wanted group, or half of it, and so on, if that divides a row; else the row. */
static int group_of(const struct quantize_opts *o, int cols)
{
    for (int g = o->group ? o->group : GROUP; g >= GROUP_LEAST && g < cols; g /= 2)
        if (cols % g == 0)
            return g;
    return cols;
}

static int add(struct quant_plan *p, const char *name, struct quant_item item)
{
    int err = grow_array(&p->items, &p->cap, p->n + 1, sizeof(*p->items));
    item.name = err < 0 ? NULL : strdup(name);
    if (!item.name)
        return -ENOMEM;
    if (item.group > 0) {
        const struct weight w = {.type = DT_I8, .cols = item.cols, .group = item.group};
        size_t row = weight_row_bytes(&w) + (size_t)weight_groups(&w) * sizeof(uint16_t);
        item.bytes = (size_t)item.rows * row + 2 * sizeof(int64_t);
        item.original = (size_t)item.rows * (size_t)item.cols * st_type_size(item.from->type);
    } else {
        item.bytes = item.original = item.from->bytes;
    }
    p->total += item.original;
    p->items[p->n++] = item;
    return 0;
}

static int add_matrix(struct quant_plan *p, const struct quantize_opts *o, const char *name,
                      struct quant_item item, int rows, int cols)
{
    item.rows = rows;
    item.cols = cols;
    item.group = group_of(o, cols);
    return add(p, name, item);
}

/* experts.gate_up_proj [E, 2I, H] or experts.down_proj [E, H, I], one matrix a part. */
static int add_fused(struct quant_plan *p, const struct quantize_opts *o, const char *name,
                     struct quant_item item)
{
    static const char *const halves[] = {"gate_proj", "up_proj"}, *const whole[] = {"down_proj"};
    bool two = strstr(name, ".gate_up_proj") != NULL;
    const char *const *parts = two ? halves : whole, *dot = strrchr(name, '.');
    size_t n = two ? 2 : 1, rows = item.from->shape[1] / n, cols = item.from->shape[2];
    char full[TENSOR_NAME_MAX + 64];
    int err = 0;
    for (size_t e = 0; e < item.from->shape[0]; e++)
        for (size_t i = 0; i < n && err == 0; i++) {
            snprintf(full, sizeof(full), "%.*s.%zu.%s.weight", (int)(dot - name), name, e,
                     parts[i]);
            item.first = (e * n + i) * rows * cols;
            err = add_matrix(p, o, full, item, (int)rows, (int)cols);
        }
    return err;
}

static int add_tensor(struct quant_plan *p, const struct quantize_opts *o, const struct finder *f,
                      const char *name, struct problems *why)
{
    struct quant_item item = {.row = ROW_VISION};
    const struct wanted key = {.name = (char *)name};
    const struct wanted *w = bsearch(&key, f->wanted, f->n, sizeof(key), by_name);
    int err = checkpoint_find(p->checkpoint, name, &item.from, &item.file, why);
    if (err < 0)
        return err;
    if (w != NULL) {
        item.row = w->row;
        item.linear = w->linear;
    }
    if (!item.linear || is_kept(o, name))
        return add(p, name, item);
    if (item.from->ndim == 3)
        return add_fused(p, o, name, item);
    return add_matrix(p, o, name, item, (int)item.from->shape[0], (int)item.from->shape[1]);
}

static void deal_shards(struct quant_plan *p, const struct quantize_opts *o)
{
    size_t most = o->shard_bytes ? o->shard_bytes : SHARD_BYTES, used = 0;
    p->shards = 1;
    for (size_t i = 0; i < p->n; i++) {
        if (used > 0 && used + p->items[i].bytes > most) {
            p->shards++;
            used = 0;
        }
        used += p->items[i].bytes;
        p->items[i].shard = p->shards - 1;
    }
}

int quant_plan_open(struct quant_plan *p, const struct quantize_opts *o, struct problems *why)
{
    const struct model_opts mo = {.dir = o->in};
    struct finder f = {.n = 0};
    struct model *m = NULL;
    const char *name;
    *p = (struct quant_plan){0};
    int err = model_open(&m, &mo, why);
    if (err == 0 && m->config.quant.n > 0)
        err = problem_add(why, -EINVAL,
                          "%s: config.json: found a quantization_config, expected "
                          "weights that are not quantised yet",
                          o->in);
    if (err == 0)
        err = checkpoint_open(&p->checkpoint, o->in, why);
    if (err == 0)
        err = find_wanted(&f, p->checkpoint, &m->config, why);
    for (size_t i = 0; err == 0 && (name = checkpoint_name(p->checkpoint, i)) != NULL; i++)
        err = add_tensor(p, o, &f, name, why);
    deal_shards(p, o);
    for (size_t i = 0; i < f.n; i++)
        free(f.wanted[i].name);
    free(f.wanted);
    model_close(m);
    return err;
}

void quant_plan_close(struct quant_plan *p)
{
    for (size_t i = 0; i < p->n; i++)
        free(p->items[i].name);
    free(p->items);
    checkpoint_close(p->checkpoint);
    *p = (struct quant_plan){0};
}
