/*
 * model/bind.c - the binder's verbs: ask for a tensor, check it, decide where its values will be.
 *
 * Nothing here reads weights. A failure is remembered and binding goes on, so that one run reports
 * everything that is wrong with a checkpoint.
 */
#include "model/bind.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/util.h"

void bind_fail(struct binder *b, int err)
{
    if (b->err == 0 || err == -ENOMEM)
        b->err = err;
}

void *bind_alloc(struct binder *b, size_t n, size_t size)
{
    if (n == 0)
        return NULL;
    int err = grow_array(&b->blocks, &b->cap_blocks, b->n_blocks + 1, sizeof(*b->blocks));
    void *p = err < 0 ? NULL : calloc(n, size);
    if (!p)
        bind_fail(b, -ENOMEM);
    else
        b->blocks[b->n_blocks++] = p;
    return p;
}

/* Room for `count` values of type t behind what `used` counts; its offset. A GPU reads whole
 * segments, the CPU whole cache lines. */
static size_t reserve(struct binder *b, size_t *used, size_t count, enum dtype t)
{
    size_t at = *used, bytes, align = b->far ? 256 : 64;
    if (!mul_size(count, dtype_size(t), &bytes) || bytes > SIZE_MAX / 4 - at)
        bind_fail(b, -ENOMEM);
    else
        *used += (bytes + align - 1) / align * align;
    b->rows[b->row].owned += *used - at;
    return at;
}

void bind_piece(struct binder *b, struct piece p, const struct tensor_got *got, size_t first)
{
    int err = grow_array(&b->pieces, &b->cap, b->n + 1, sizeof(*b->pieces));
    if (err < 0) {
        bind_fail(b, err);
        return;
    }
    p.type = got->type;
    p.seed = got->seed;
    p.row = b->row;
    p.file = got->file;
    if (got->data)
        p.from = got->data + first * dtype_size(got->type);
    p.in_place = p.stored && p.from && (uintptr_t)p.from % dtype_size(got->type) == 0 && !b->far;
    if (p.in_place)
        *p.stored = p.from;
    if (p.in_place)
        b->rows[b->row].mapped += p.count * dtype_size(p.type);
    else if (p.stored)
        p.offset = reserve(b, &b->owned, p.count, p.type);
    else
        p.offset = reserve(b, &b->small, p.count, DT_F32);
    b->pieces[b->n++] = p;
}

void bind_computed(struct binder *b, float **v, float *computed, size_t n)
{
    const struct tensor_got got = {.data = (const unsigned char *)computed, .type = DT_F32};
    *v = computed;
    if (computed && b->far)
        bind_piece(b, (struct piece){.vector = v, .count = n}, &got, 0);
}

void bind_count(struct binder *b, size_t count, enum dtype type)
{
    struct plan_row *row = &b->rows[b->row];
    row->parameters += count;
    row->types |= 1u << type;
    if (count * dtype_size(type) > b->largest) {
        b->largest = count * dtype_size(type);
        row->type = type;
    }
}

bool bind_ask(struct binder *b, const struct tensor_want *want, struct tensor_got *got)
{
    size_t count = 1;
    int err = b->err == -ENOMEM ? -ENOMEM : b->source->get(b->source, want, got, b->why);
    if (err < 0) {
        bind_fail(b, err);
        return false;
    }
    for (int i = 0; i < want->ndim; i++) /* cannot overflow: config.c bounds every size */
        count *= want->shape[i];
    b->rows[b->row].tensors++;
    if (want->kind == KIND_FLOATS)
        bind_count(b, count, got->type);
    return true;
}

static void bind_stored(struct binder *b, struct weight *w, int rows, int cols,
                        const struct tensor_want *want)
{
    struct tensor_got got;
    *w = (struct weight){.rows = rows, .cols = cols};
    if (!bind_ask(b, want, &got))
        return;
    w->type = got.type;
    bind_piece(b,
               (struct piece){.stored = &w->data,
                              .count = (size_t)rows * (size_t)cols,
                              .mean = want->mean,
                              .deviation = want->deviation},
               &got, 0);
}

void bind_tensor(struct binder *b, struct weight *w, int rows, int cols, int ndim,
                 const size_t *shape, const char *fmt, ...)
{
    char name[TENSOR_NAME_MAX];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(name, sizeof(name), fmt, ap);
    va_end(ap);
    struct tensor_want want = {.name = name,
                               .ndim = ndim,
                               .deviation = 1 / sqrtf((float)max_int(cols, 1))};
    for (int i = 0; i < ndim; i++)
        want.shape[i] = shape[i];
    bind_stored(b, w, rows, cols, &want);
}

void bind_table(struct binder *b, struct weight *w, int rows, int cols, const char *fmt, ...)
{
    char name[TENSOR_NAME_MAX];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(name, sizeof(name), fmt, ap);
    va_end(ap);
    bind_tensor(b, w, rows, cols, 2, (const size_t[]){(size_t)rows, (size_t)cols}, "%s", name);
}

void bind_matrix(struct binder *b, struct weight *w, int rows, int cols, const char *fmt, ...)
{
    char name[TENSOR_NAME_MAX];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(name, sizeof(name), fmt, ap);
    va_end(ap);
    const struct tensor_want want = {.name = name,
                                     .ndim = 2,
                                     .shape = {(size_t)rows, (size_t)cols},
                                     .deviation = 1 / sqrtf((float)max_int(cols, 1)),
                                     .linear = true};
    if (bind_is_packed(b, name))
        bind_packed(b, w, rows, cols, name);
    else
        bind_stored(b, w, rows, cols, &want);
}

bool bind_fused(struct binder *b, struct tensor_got *got, const size_t shape[3], const char *fmt,
                ...)
{
    char name[TENSOR_NAME_MAX];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(name, sizeof(name), fmt, ap);
    va_end(ap);
    const struct tensor_want want = {.name = name,
                                     .ndim = 3,
                                     .shape = {shape[0], shape[1], shape[2]},
                                     .linear = true};
    return bind_ask(b, &want, got);
}

void bind_slice(struct binder *b, struct weight *w, const struct tensor_got *got, size_t first,
                int rows, int cols)
{
    *w = (struct weight){.type = got->type, .rows = rows, .cols = cols};
    bind_piece(b, (struct piece){.stored = &w->data, .count = (size_t)rows * (size_t)cols}, got,
               first);
}

static const struct {
    float mean, deviation;
    enum transform transform;
} fills[] = {
    [FILL_NORM] = {1, 0.1f, AS_IS},
    [FILL_BIAS] = {0, 0.02f, AS_IS},
    [FILL_SCALE] = {0.3f, 0.02f, AS_IS},
    [FILL_SNAKE_ALPHA] = {0, 0.1f, SNAKE_ALPHA},
    [FILL_SNAKE_BETA] = {0, 0.1f, SNAKE_BETA},
};

void bind_vector(struct binder *b, float **v, int n, enum fill fill, const char *fmt, ...)
{
    char name[TENSOR_NAME_MAX];
    struct tensor_got got;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(name, sizeof(name), fmt, ap);
    va_end(ap);
    const struct tensor_want want = {.name = name,
                                     .ndim = 1,
                                     .shape = {(size_t)n},
                                     .mean = fills[fill].mean,
                                     .deviation = fills[fill].deviation,
                                     .wide = true};
    if (bind_ask(b, &want, &got))
        bind_piece(b,
                   (struct piece){.vector = v,
                                  .count = (size_t)n,
                                  .mean = want.mean,
                                  .deviation = want.deviation,
                                  .transform = fills[fill].transform},
                   &got, 0);
}

void bind_depthwise(struct binder *b, float **v, int n, int kernel, const char *fmt, ...)
{
    char name[TENSOR_NAME_MAX];
    struct tensor_got got;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(name, sizeof(name), fmt, ap);
    va_end(ap);
    const struct tensor_want want = {.name = name,
                                     .ndim = 3,
                                     .shape = {(size_t)n, 1, (size_t)kernel},
                                     .deviation = 1 / sqrtf((float)kernel),
                                     .wide = true};
    if (bind_ask(b, &want, &got))
        bind_piece(b,
                   (struct piece){.vector = v,
                                  .count = (size_t)n * (size_t)kernel,
                                  .deviation = want.deviation},
                   &got, 0);
}

void bind_linear(struct binder *b, struct conv *c, int rows, int cols, const char *prefix)
{
    bind_matrix(b, &c->w, rows, cols, "%s.weight", prefix);
    bind_vector(b, &c->bias, rows, FILL_BIAS, "%s.bias", prefix);
}

void bind_layer_norm(struct binder *b, struct layer_norm *n, int dim, const char *prefix)
{
    bind_vector(b, &n->w, dim, FILL_NORM, "%s.weight", prefix);
    bind_vector(b, &n->b, dim, FILL_BIAS, "%s.bias", prefix);
}

static void begin_row(struct binder *b, enum row row)
{
    b->row = row;
    b->largest = 0;
}

int bind_model(struct binder *b, struct model *m)
{
    static const char *const names[ROW_COUNT] = {"thinker",  "audio encoder",
                                                 "talker",   "code predictor",
                                                 "code2wav", "vision, unused"};
    for (int i = 0; i < ROW_COUNT; i++)
        b->rows[i].component = names[i];
    begin_row(b, ROW_THINKER);
    bind_thinker(b, m);
    begin_row(b, ROW_AUDIO);
    bind_audio(b, m);
    if (m->speech) {
        begin_row(b, ROW_TALKER);
        bind_talker(b, m);
        begin_row(b, ROW_PREDICTOR);
        bind_predictor(b, m);
        begin_row(b, ROW_CODE2WAV);
        bind_code2wav(b, m);
    }
    return b->err;
}

void binder_free_pieces(struct binder *b)
{
    free(b->pieces);
    b->pieces = NULL;
    b->n = b->cap = 0;
}
