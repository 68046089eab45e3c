/*
 * model/source.c - the two sources of tensors: a checkpoint's files, and a random generator.
 *
 * Random weights stand in for a checkpoint in speed measurements and tests. They are drawn by index
 * from a table of 4096 normally distributed values in the wanted type, five draws from every 64
 * random bits, so that filling runs at the speed of memory rather than of a logarithm. Only
 * additions, multiplications and a square root are used: the numbers are the same everywhere.
 */
#include "model/source.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/util.h"

static int refuse_shape(const struct st_file *f, const struct tensor_want *w,
                        const struct st_tensor *t, struct problems *why)
{
    char found[200], expected[120];
    if (w->kind == KIND_SCALES)
        snprintf(expected, sizeof(expected), "[%zu, any]", w->shape[0]);
    else
        st_shape_text(expected, sizeof(expected), w->shape, w->ndim);
    return problem_add(why, -EINVAL, "%s: tensor %s: shape: found %s, expected %s by config.json",
                       f->name, w->name, st_shape_text(found, sizeof(found), t->shape, t->ndim),
                       expected);
}

static int refuse_type(const struct st_file *f, const struct tensor_want *w,
                       const struct st_tensor *t, struct problems *why)
{
    static const char *const expected[] = {"F32, BF16 or F16", "F32, BF16 or F16", "I32",
                                           "I64 or I32"};
    return problem_add(why, -EINVAL, "%s: tensor %s: dtype: found %s, expected %s", f->name,
                       w->name, st_type_name(t->type), expected[w->kind]);
}

static bool type_good(enum tensor_kind kind, enum st_type type, enum dtype *as)
{
    switch (kind) {
    case KIND_BYTES:
        *as = DT_I8;
        return type == ST_I32;
    case KIND_SIZES:
        return type == ST_I64 || type == ST_I32;
    default:
        return st_type_weight(type, as);
    }
}

static bool shape_good(const struct tensor_want *w, const struct st_tensor *t,
                       struct tensor_got *got)
{
    bool good = t->ndim == w->ndim;
    for (int i = 0; good && i < w->ndim; i++) {
        bool any = w->kind == KIND_SCALES && w->shape[i] == 0;
        good = any || t->shape[i] == w->shape[i];
        got->sizes[i] = (int64_t)t->shape[i];
    }
    return good;
}

static void read_sizes(int64_t *to, const struct st_tensor *t, const unsigned char *data)
{
    for (size_t i = 0; i < t->count; i++) {
        int32_t narrow;
        if (t->type == ST_I64) {
            memcpy(&to[i], data + i * sizeof(*to), sizeof(*to));
            continue;
        }
        memcpy(&narrow, data + i * sizeof(narrow), sizeof(narrow));
        to[i] = narrow;
    }
}

static int checkpoint_get(struct source *s, const struct tensor_want *w, struct tensor_got *got,
                          struct problems *why)
{
    struct checkpoint *c = ((struct checkpoint_source *)s)->checkpoint;
    const struct st_tensor *t;
    const struct st_file *f;
    int err = checkpoint_find(c, w->name, &t, &f, why);
    if (err < 0)
        return err;
    if (err == 0) {
        char expected[120];
        return problem_add(why, -EINVAL, "%s: tensor %s: found nothing, expected weights of %s",
                           checkpoint_list_name(c), w->name,
                           st_shape_text(expected, sizeof(expected), w->shape, w->ndim));
    }
    *got = (struct tensor_got){0};
    if (!type_good(w->kind, t->type, &got->type))
        return refuse_type(f, w, t, why);
    if (!shape_good(w, t, got))
        return refuse_shape(f, w, t, why);
    got->data = st_data(f, t);
    got->file = f;
    if (w->kind == KIND_SIZES)
        read_sizes(got->sizes, t, got->data);
    return 0;
}

static bool checkpoint_source_has(const struct source *s, const char *name)
{
    return checkpoint_has(((const struct checkpoint_source *)s)->checkpoint, name);
}

void checkpoint_source_init(struct checkpoint_source *s, struct checkpoint *c)
{
    s->source = (struct source){checkpoint_get, checkpoint_source_has};
    s->checkpoint = c;
}

/* FNV-1a: only has to tell names apart. */
static uint64_t name_hash(const char *name)
{
    uint64_t h = UINT64_C(0xcbf29ce484222325);
    for (; *name; name++)
        h = (h ^ (unsigned char)*name) * UINT64_C(0x100000001b3);
    return h;
}

static int random_get(struct source *s, const struct tensor_want *w, struct tensor_got *got,
                      struct problems *why)
{
    const struct random_source *r = (const struct random_source *)s;
    (void)why;
    *got = (struct tensor_got){.type = w->wide ? DT_F32 : r->type,
                               .seed = name_hash(w->name) ^ r->seed * UINT64_C(0x9e3779b97f4a7c15)};
    return 0;
}

static bool random_has(const struct source *s, const char *name)
{
    (void)s;
    (void)name;
    return false;
}

void random_source_init(struct random_source *s, enum dtype type, uint64_t seed)
{
    s->source = (struct source){random_get, random_has};
    s->type = type;
    s->seed = seed;
}

/* splitmix64: every state gives a good next one, 0 included. */
static uint64_t next_random(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

void random_base(float base[4096])
{
    double x[4096], sum = 0, square = 0;
    const size_t n = ARRAY_LEN(x);
    uint64_t state = 1;
    for (size_t i = 0; i < n; i++) { /* the sum of twelve uniform numbers is nearly normal */
        x[i] = -6;
        for (int k = 0; k < 12; k++)
            x[i] += (double)(next_random(&state) >> 11) * 0x1p-53;
        sum += x[i];
        square += x[i] * x[i];
    }
    double centre = sum / (double)n, scale = 1 / sqrt(square / (double)n - centre * centre);
    for (size_t i = 0; i < n; i++)
        base[i] = (float)((x[i] - centre) * scale);
}

void random_table_init(struct random_table *t, enum dtype type, float mean, float deviation)
{
    float base[ARRAY_LEN(t->value.f32)];
    random_base(base);
    t->type = type;
    t->mean = mean;
    t->deviation = deviation;
    for (size_t i = 0; i < ARRAY_LEN(base); i++)
        dtype_write(type, &t->value, i, mean + deviation * base[i]);
}

#define DRAWS 5 /* of 12 bits each from 64 */

static void fill_f32(const struct random_table *t, uint64_t state, size_t n, float *out)
{
    size_t i = 0;
    while (i < n) {
        uint64_t bits = next_random(&state);
        for (int k = 0; k < DRAWS && i < n; k++, bits >>= 12)
            out[i++] = t->value.f32[bits & 4095];
    }
}

static void fill_h16(const struct random_table *t, uint64_t state, size_t n, uint16_t *out)
{
    size_t i = 0;
    for (; i + DRAWS <= n; i += DRAWS) {
        uint64_t bits = next_random(&state);
        for (int k = 0; k < DRAWS; k++, bits >>= 12)
            out[i + (size_t)k] = t->value.h16[bits & 4095];
    }
    for (uint64_t bits = next_random(&state); i < n; bits >>= 12)
        out[i++] = t->value.h16[bits & 4095];
}

void random_fill(const struct random_table *t, uint64_t seed, size_t first, size_t n, void *out)
{
    for (size_t done = 0; done < n; done += RANDOM_BLOCK) {
        uint64_t state = seed + (first + done) / RANDOM_BLOCK * UINT64_C(0xd1342543de82ef95);
        size_t part = n - done < RANDOM_BLOCK ? n - done : RANDOM_BLOCK;
        char *to = (char *)out + done * dtype_size(t->type);
        if (t->type == DT_F32)
            fill_f32(t, state, part, (float *)to);
        else
            fill_h16(t, state, part, (uint16_t *)to);
    }
}
