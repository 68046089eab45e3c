/*
 * model/load.c - opening a model and bringing its weights in, a step at a time.
 *
 * After binding there is a list of pieces. Loading sorts it by component and place in the file (a
 * disk is read forwards), allocates the owned block, and then every step handles a few megabytes:
 *
 *     in place       pages of the mapped file are populated; the kernel was told a little ahead
 *     copied         matrices that lie unaligned in the file
 *     widened        small vectors to f32; the snakes' exponentials are taken here
 *     random         synthetic weights
 *
 * For a device with memory of its own everything is copied: the matrices by the threads of
 * upload.c, or made there when they are random; the vectors are made on the host and copied at once
 * at the end.
 *
 * A step is measured in bytes, not in time. 4 MiB are a few milliseconds from memory and stay
 * below 100 ms from any disk that is worth loading from.
 *
 * Files must not shrink while they are mapped: whoever truncates a checkpoint in use ends the
 * process with SIGBUS. Where the kernel populates for us the loss is noticed during loading.
 */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/util.h"
#include "model/loader.h"

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#endif

#define STEP_BYTES  ((size_t)4 << 20)
#define AHEAD_BYTES ((size_t)64 << 20)
#define CONFIG_MAX  ((size_t)16 << 20)

#define DEVICE_STEP_BYTES ((size_t)1 << 30) /* made by a GPU in milliseconds */
#define DEVICE_STEP_MS    50

static int read_config(struct config *c, const char *path, struct problems *why)
{
    char *text;
    size_t len;
    int err = read_file(&text, &len, path, CONFIG_MAX);
    if (err < 0)
        return problem_add(why, err == -ENOMEM ? err : -EINVAL,
                           "%s: found no readable file (%s), expected the model's configuration",
                           path, strerror(-err));
    const char *slash = strrchr(path, '/');
    err = config_parse(c, text, len, slash ? slash + 1 : path, why);
    free(text);
    return err;
}

/* generation_config.json may be absent, but not unreadable. */
static int read_generation(struct config *c, const char *path, struct problems *why)
{
    char *text;
    size_t len;
    int err = read_file(&text, &len, path, CONFIG_MAX);
    if (err == -ENOENT)
        return 0;
    if (err < 0)
        return problem_add(why, -EINVAL, "%s: cannot be read: %s", path, strerror(-err));
    err = len > 0 ? config_parse_generation(c, text, len, "generation_config.json", why)
                  : problem_add(why, -EINVAL, "%s: found nothing, expected a JSON object", path);
    free(text);
    return err;
}

static int read_directory(struct model *m, const char *dir, struct problems *why)
{
    char *config = NULL, *generation = NULL;
    int err = -ENOMEM;
    if (asprintf(&config, "%s/config.json", dir) < 0)
        config = NULL;
    if (asprintf(&generation, "%s/generation_config.json", dir) < 0)
        generation = NULL;
    if (!config || !generation)
        goto out;
    err = read_config(&m->config, config, why);
    if (err == 0)
        err = read_generation(&m->config, generation, why);
    if (err == 0)
        err = checkpoint_open(&m->loader->checkpoint, dir, why);
out:
    free(config);
    free(generation);
    return err;
}

static int bind_all(struct model *m, const struct model_opts *o, struct problems *why)
{
    struct loader *l = m->loader;
    struct binder *b = &l->binder;
    m->speech = m->config.has_speech && !o->text_only;
    checkpoint_source_init(&l->files, l->checkpoint);
    random_source_init(&l->random, o->synthetic_type, o->seed);
    b->source = l->checkpoint ? &l->files.source : &l->random.source;
    b->quant = &m->config.quant;
    b->far = l->device != NULL;
    b->why = why;
    int err = bind_model(b, m);
    if (err == 0 && l->checkpoint)
        err = checkpoint_error(l->checkpoint);
    return err == -ENOMEM ? problem_add(why, err, "no memory for the list of tensors") : err;
}

int model_open(struct model **ret, const struct model_opts *o, struct problems *why)
{
    int err = -ENOMEM;
    struct model *m = calloc(1, sizeof(*m));
    if (!m)
        return err;
    m->loader = calloc(1, sizeof(*m->loader));
    if (!m->loader)
        goto out;
    m->loader->device = o->device && o->device->load ? o->device : NULL;
    err = o->dir ? read_directory(m, o->dir, why) : read_config(&m->config, o->synthetic, why);
    if (err == 0)
        err = bind_all(m, o, why);
    if (err < 0)
        goto out;
    plan_make(m->loader);
    *ret = m;
    m = NULL;
out:
    model_close(m);
    return err;
}

static size_t piece_bytes(const struct piece *p, size_t count)
{
    return count * (p->vector ? sizeof(float) : dtype_size(p->type));
}

static int by_place(const void *pa, const void *pb)
{
    const struct piece *a = pa, *b = pb;
    if (a->row != b->row)
        return a->row < b->row ? -1 : 1;
    if (a->from != b->from)
        return (uintptr_t)a->from < (uintptr_t)b->from ? -1 : 1;
    return a->offset < b->offset ? -1 : a->offset > b->offset;
}

static size_t owned_bytes(const struct loader *l)
{
    return max_size(l->binder.owned + l->binder.small, 1);
}

static int alloc_host(struct loader *l, struct problems *why)
{
    size_t bytes = owned_bytes(l);
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        return problem_add(why, -ENOMEM, "%zu bytes of memory for weights cannot be had: %s", bytes,
                           strerror(errno));
    (void)madvise(p, bytes, MADV_HUGEPAGE); /* a wish */
    l->owned = p;
    l->vectors = l->owned + l->binder.owned;
    return 0;
}

static int alloc_device(struct loader *l, struct problems *why)
{
    struct device *d = l->device;
    float base[4096];
    l->owned = d->op->alloc(d, owned_bytes(l));
    if (!l->owned)
        return problem_add(why, -ENOMEM, "%s: %zu bytes of memory for weights cannot be had",
                           d->name, owned_bytes(l));
    l->vectors = malloc(max_size(l->binder.small, 1));
    l->base = l->checkpoint ? NULL : d->op->alloc(d, sizeof(base));
    if (!l->vectors || (!l->checkpoint && !l->base))
        return problem_add(why, -ENOMEM, "no memory to load weights with");
    random_base(base);
    if (l->base)
        d->op->put(d, l->base, base, sizeof(base));
    return 0;
}

/* The first step's extra work: memory for what is owned, and every pointer into it. */
static int begin(struct loader *l, struct problems *why)
{
    struct binder *b = &l->binder;
    int err = l->device ? alloc_device(l, why) : alloc_host(l, why);
    if (err < 0)
        return err;
    if (b->n > 0)
        qsort(b->pieces, b->n, sizeof(*b->pieces), by_place);
    for (size_t i = 0; i < b->n; i++) {
        struct piece *piece = &b->pieces[i];
        if (piece->stored && !piece->in_place)
            *piece->stored = piece_place(l, piece);
        else if (piece->vector)
            *piece->vector = (float *)piece_place(l, piece);
        l->total += piece_bytes(piece, piece->count);
    }
    return 0;
}

/* The pages that hold [p, p + bytes). */
static void page_range(const unsigned char *p, size_t bytes, void **start, size_t *len)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), from = (uintptr_t)p / page * page;
    *start = (void *)from;
    *len = (uintptr_t)p + bytes - from;
}

static void touch(const unsigned char *p, size_t bytes)
{
    const volatile unsigned char *v = p;
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    for (size_t i = 0; i < bytes; i += page)
        (void)v[i];
    (void)v[bytes - 1];
}

static int populate(const unsigned char *p, size_t bytes, struct problems *why)
{
    void *start;
    size_t len;
    page_range(p, bytes, &start, &len);
    for (int tries = 0; tries < 100; tries++) {
        if (madvise(start, len, MADV_POPULATE_READ) == 0)
            return 0;
        if (errno == EFAULT)
            return problem_add(why, -EIO, "a weight file became shorter while it was being read");
        if (errno != EINTR && errno != EAGAIN)
            break; /* a kernel before 5.14, or an unusual file system */
    }
    touch(p, bytes);
    return 0;
}

/* Tells the kernel what comes next, in small portions: a large one would block. */
static void read_ahead(struct loader *l)
{
    const struct binder *b = &l->binder;
    size_t budget = 2 * STEP_BYTES;
    while (l->ahead.piece < b->n && budget > 0 && l->announced < l->done + AHEAD_BYTES) {
        const struct piece *p = &b->pieces[l->ahead.piece];
        size_t left = p->count - l->ahead.at;
        size_t count = min_size(left, budget / sizeof(float) + 1);
        if (p->from && count > 0) {
            void *start;
            size_t len;
            page_range(p->from + l->ahead.at * dtype_size(p->type), count * dtype_size(p->type),
                       &start, &len);
            (void)madvise(start, len, MADV_WILLNEED);
        }
        l->announced += piece_bytes(p, count);
        budget -= min_size(budget, piece_bytes(p, count));
        l->ahead.at += count;
        if (l->ahead.at == p->count)
            l->ahead = (struct cursor){l->ahead.piece + 1, 0};
    }
}

static void transform(float *x, size_t n, enum transform how)
{
    for (size_t i = 0; i < n && how == SNAKE_ALPHA; i++)
        x[i] = expf(x[i]);
    for (size_t i = 0; i < n && how == SNAKE_BETA; i++)
        x[i] = 1 / (expf(x[i]) + 1e-9f);
}

/* The file's values may lie unaligned: they go through an aligned buffer. */
static void widen(float *to, const unsigned char *from, enum dtype type, size_t n)
{
    float aligned[1024];
    size_t size = dtype_size(type);
    for (size_t done = 0; done < n; done += ARRAY_LEN(aligned)) {
        size_t part = min_size(n - done, ARRAY_LEN(aligned));
        memcpy(aligned, from + done * size, part * size);
        for (size_t i = 0; i < part; i++)
            to[done + i] = dtype_read(type, aligned, i);
    }
}

static void fill(struct loader *l, const struct piece *p, size_t first, size_t n, void *to)
{
    struct random_table *t = &l->table;
    if (!l->table_ready || t->type != p->type || t->mean != p->mean || t->deviation != p->deviation)
        random_table_init(t, p->type, p->mean, p->deviation);
    l->table_ready = true;
    random_fill(t, p->seed, first, n, to);
}

/* Elements first .. first + n - 1 of a piece. */
static int load_part(struct loader *l, const struct piece *p, size_t first, size_t n,
                     struct problems *why)
{
    const unsigned char *from = p->from ? p->from + first * dtype_size(p->type) : NULL;
    if (n == 0)
        return 0;
    int err = from ? populate(from, n * dtype_size(p->type), why) : 0;
    if (err < 0 || p->in_place)
        return err;
    unsigned char *to = (p->vector ? l->vectors : l->owned) + p->offset + piece_bytes(p, first);
    if (!from)
        fill(l, p, first, n, to);
    else if (p->vector)
        widen((float *)to, from, p->type, n);
    else
        memcpy(to, from, n * dtype_size(p->type));
    if (p->vector)
        transform((float *)to, n, p->transform);
    return 0;
}

/* A few megabytes of pieces. A part is a whole number of random blocks, or the rest of its piece.
 */
static int step(struct loader *l, struct problems *why)
{
    const struct binder *b = &l->binder;
    size_t before = l->done;
    while (l->next.piece < b->n && l->done - before < STEP_BYTES) {
        const struct piece *p = &b->pieces[l->next.piece];
        size_t room = (STEP_BYTES - (l->done - before)) / sizeof(float);
        size_t blocks = max_size(room / RANDOM_BLOCK, 1) * RANDOM_BLOCK;
        size_t n = min_size(p->count - l->next.at, blocks);
        int err = load_part(l, p, l->next.at, n, why);
        if (err < 0)
            return err;
        l->done += piece_bytes(p, n);
        l->next.at += n;
        if (l->next.at == p->count)
            l->next = (struct cursor){l->next.piece + 1, 0};
    }
    return l->next.piece < b->n;
}

/* All vectors, to the host. */
static int load_vectors(struct loader *l, struct problems *why)
{
    int err = 0;
    for (size_t i = 0; err == 0 && i < l->binder.n; i++) {
        const struct piece *p = &l->binder.pieces[i];
        if (p->vector)
            err = load_part(l, p, 0, p->count, why);
    }
    return err;
}

/* Random matrices, made where they belong; one look at the device at the end, so that a step is
 * over when its work is. */
static int make_random(struct loader *l)
{
    struct device *d = l->device;
    const struct binder *b = &l->binder;
    size_t before = l->done;
    for (; l->next.piece < b->n && l->done - before < DEVICE_STEP_BYTES; l->next.piece++) {
        const struct piece *p = &b->pieces[l->next.piece];
        if (p->stored)
            d->load->random(d, piece_place(l, p), p->type, l->base, p->mean, p->deviation, p->seed,
                            p->count);
        l->done += piece_bytes(p, p->count);
    }
    float look;
    d->op->get(d, &look, l->base, sizeof(look));
    return l->next.piece < b->n;
}

/* The device's step: threads read and copy, or it makes random numbers itself; at the end come the
 * vectors. */
static int device_step(struct loader *l, int *row, struct problems *why)
{
    struct device *d = l->device;
    int more = 0;
    if (!l->checkpoint)
        more = make_random(l);
    else if (!l->upload)
        more = upload_start(&l->upload, l, why) < 0 ? -ENOMEM : 1;
    else
        more = upload_wait(l->upload, DEVICE_STEP_MS, &l->done, row, why);
    if (more == 0) {
        more = load_vectors(l, why);
        d->op->put(d, l->owned + l->binder.owned, l->vectors, l->binder.small);
        l->done = l->total;
    }
    return more;
}

int model_load(struct model *m, struct load_progress *p, struct problems *why)
{
    struct loader *l = m->loader;
    int row = 0, more = l->owned ? 0 : begin(l, why);
    if (more < 0)
        return more;
    if (!l->device) {
        read_ahead(l);
        more = step(l, why);
    } else {
        more = device_step(l, &row, why);
    }
    if (p && l->binder.n > 0) {
        size_t at = min_size(l->next.piece, l->binder.n - 1);
        p->row = l->upload && more == 1 ? row : (int)l->binder.pieces[at].row;
        p->component = l->plan[p->row].component;
        p->done = l->done;
        p->total = l->total;
    }
    return more;
}

size_t model_device_bytes(const struct model *m)
{
    return m->loader->device ? owned_bytes(m->loader) : 0;
}

static void free_owned(struct loader *l)
{
    struct device *d = l->device;
    upload_close(l->upload);
    if (!d) {
        if (l->owned)
            munmap(l->owned, owned_bytes(l));
        return;
    }
    d->op->release(d, l->base);
    d->op->release(d, l->owned);
    free(l->vectors);
}

void model_close(struct model *m)
{
    if (!m)
        return;
    struct loader *l = m->loader;
    if (l) {
        for (size_t i = 0; i < l->binder.n_blocks; i++)
            free(l->binder.blocks[i]);
        free(l->binder.blocks);
        free_owned(l);
        binder_free_pieces(&l->binder);
        checkpoint_close(l->checkpoint);
    }
    free(l);
    free(m);
}
