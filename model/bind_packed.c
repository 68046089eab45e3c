/*
 * model/bind_packed.c - matrices of 8-bit weights, as compressed-tensors' "pack-quantized" stores
 * them (MODEL.md, 8-bit weights). For a linear layer X with a matrix [rows, cols]:
 *
 *     X.weight_packed   I32 [rows, ceil(cols / 4)], which is a byte a weight, rows padded to 4
 *     X.weight_scale    F32, BF16 or F16 [rows, groups]; one group is a row of its own
 *     X.weight_shape    I64 [2], rows and cols
 *
 * Bytes and scales stay where they lie. What would change the meaning of a byte and is not
 * implemented (zero points, columns in another order) is refused by name.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/util.h"
#include "model/bind.h"

static bool has(const struct binder *b, const char *name, const char *suffix)
{
    char full[TENSOR_NAME_MAX + 16];
    snprintf(full, sizeof(full), "%s%s", name, suffix);
    return b->source->has(b->source, full);
}

bool bind_is_packed(const struct binder *b, const char *name)
{
    return has(b, name, "_packed");
}

static void refuse(struct binder *b, const char *name, const char *found, const char *expected)
{
    bind_fail(b, problem_add(b->why, -EINVAL, "tensor %s: found %s, expected %s", name, found,
                             expected));
}

static bool meaning_known(struct binder *b, const char *name)
{
    int err = b->err;
    if (b->quant->n == 0)
        refuse(b, name, "8-bit weights", "a quantization_config in config.json that tells of them");
    if (has(b, name, ""))
        refuse(b, name, "it stored twice, plain and packed", "one of them");
    if (has(b, name, "_zero_point"))
        refuse(b, name, "zero points", "symmetric 8-bit weights, which have none");
    if (has(b, name, "_g_idx"))
        refuse(b, name, "an order of columns (g_idx)", "8-bit weights in the order of the columns");
    return b->err == err;
}

/* X.weight_packed and X.weight_shape: the bytes. */
static bool bind_bytes(struct binder *b, struct weight *w, const char *name)
{
    char full[TENSOR_NAME_MAX + 16], found[96], expected[96];
    struct tensor_got got;
    struct tensor_want want = {.name = full,
                               .kind = KIND_BYTES,
                               .ndim = 2,
                               .shape = {(size_t)w->rows, ((size_t)w->cols + 3) / 4}};
    snprintf(full, sizeof(full), "%s_packed", name);
    if (!bind_ask(b, &want, &got))
        return false;
    bind_piece(b,
               (struct piece){.stored = &w->data, .count = (size_t)w->rows * weight_row_bytes(w)},
               &got, 0);
    want = (struct tensor_want){.name = full, .kind = KIND_SIZES, .ndim = 1, .shape = {2}};
    snprintf(full, sizeof(full), "%s_shape", name);
    if (!bind_ask(b, &want, &got))
        return false;
    if (got.sizes[0] == w->rows && got.sizes[1] == w->cols)
        return true;
    snprintf(found, sizeof(found), "[%lld, %lld]", (long long)got.sizes[0],
             (long long)got.sizes[1]);
    snprintf(expected, sizeof(expected), "[%d, %d] by config.json", w->rows, w->cols);
    refuse(b, full, found, expected);
    return false;
}

/* The group whose scales are `groups` to a row; 0 when none of the configuration fits. */
static int find_group(const struct quant_config *q, int cols, size_t groups)
{
    for (int i = 0; i < q->n; i++) {
        int group = q->group[i] == 0 ? cols : min_int(q->group[i], cols);
        if (cols % group == 0 && (size_t)(cols / group) == groups)
            return group;
    }
    return 0;
}

static void refuse_groups(struct binder *b, const char *name, const struct weight *w,
                          const struct tensor_got *got)
{
    char found[96], expected[200];
    int at = snprintf(expected, sizeof(expected), "[%d, n] with groups that divide %d: ", w->rows,
                      w->cols);
    snprintf(found, sizeof(found), "scales [%lld, %lld]", (long long)got->sizes[0],
             (long long)got->sizes[1]);
    for (int i = 0; i < b->quant->n; i++) {
        char group[24];
        snprintf(group, sizeof(group), "%d columns", b->quant->group[i]);
        at += snprintf(expected + at, sizeof(expected) - (size_t)at, "%s%s", i ? ", " : "",
                       b->quant->group[i] ? group : "whole rows");
    }
    refuse(b, name, found, expected);
}

static void bind_scales(struct binder *b, struct weight *w, const char *name)
{
    char full[TENSOR_NAME_MAX + 16];
    struct tensor_got got;
    const struct tensor_want want = {.name = full,
                                     .kind = KIND_SCALES,
                                     .ndim = 2,
                                     .shape = {(size_t)w->rows, 0}};
    snprintf(full, sizeof(full), "%s_scale", name);
    if (!bind_ask(b, &want, &got))
        return;
    int group = find_group(b->quant, w->cols, (size_t)got.sizes[1]);
    if (group == 0 || got.sizes[0] != w->rows) {
        refuse_groups(b, full, w, &got);
        return;
    }
    w->group = group;
    w->scale_type = got.type;
    bind_piece(b,
               (struct piece){.stored = &w->scale,
                              .count = (size_t)w->rows * (size_t)weight_groups(w)},
               &got, 0);
}

void bind_packed(struct binder *b, struct weight *w, int rows, int cols, const char *name)
{
    *w = (struct weight){.type = DT_I8, .rows = rows, .cols = cols, .group = cols};
    if (!meaning_known(b, name) || !bind_bytes(b, w, name))
        return;
    bind_count(b, (size_t)rows * (size_t)cols, DT_I8);
    bind_scales(b, w, name);
}
