/* daemon/end_of_turn.c - the detector of the end of a turn: see end_of_turn.h. */
#include "daemon/end_of_turn.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "model/safetensors.h"

struct end_of_turn {
    int hidden;
    float bias;
    float weight[]; /* [hidden] */
};

/* A tensor of n finite numbers, copied. */
static int take(float *to, const struct st_file *f, const char *name, size_t n,
                struct problems *why)
{
    char found[64], wanted[64];
    const struct st_tensor *t = st_find(f, name);
    if (t == NULL)
        return problem_add(why, -EINVAL, "%s: found no tensor %s, expected F32 %s", f->name, name,
                           st_shape_text(wanted, sizeof(wanted), &n, 1));
    if (t->type != ST_F32 || t->ndim != 1 || t->shape[0] != n)
        return problem_add(why, -EINVAL, "%s: tensor %s: found %s %s, expected F32 %s", f->name,
                           name, st_type_name(t->type),
                           st_shape_text(found, sizeof(found), t->shape, t->ndim),
                           st_shape_text(wanted, sizeof(wanted), &n, 1));
    memcpy(to, st_data(f, t), n * sizeof(float));
    for (size_t i = 0; i < n; i++)
        if (!isfinite(to[i]))
            return problem_add(why, -EINVAL, "%s: tensor %s: found %s at %zu, expected a number",
                               f->name, name, isnan(to[i]) ? "NaN" : "infinity", i);
    return 0;
}

static int load(struct end_of_turn **ret, const char *path, int hidden, struct problems *why)
{
    size_t n = (size_t)hidden;
    struct st_file *f;
    int err = st_open(&f, path, why);
    if (err < 0)
        return err;
    struct end_of_turn *e = malloc(sizeof(*e) + n * sizeof(float));
    err = e == NULL ? -ENOMEM : take(e->weight, f, "weight", n, why);
    if (err == 0)
        err = take(&e->bias, f, "bias", 1, why);
    st_close(f);
    if (err < 0) {
        free(e);
        return err;
    }
    e->hidden = hidden;
    *ret = e;
    return 0;
}

int end_of_turn_open(struct end_of_turn **ret, const char *dir, int hidden, struct problems *why)
{
    char *path;
    *ret = NULL;
    if (asprintf(&path, "%s/%s", dir, END_OF_TURN_FILE) < 0)
        return -ENOMEM;
    int err = access(path, F_OK) == 0 ? load(ret, path, hidden, why) : 0;
    free(path);
    return err;
}

float end_of_turn_probability(const struct end_of_turn *e, const float *state)
{
    double sum = (double)e->bias;
    for (int i = 0; i < e->hidden; i++)
        sum += (double)e->weight[i] * (double)state[i];
    return (float)(1 / (1 + exp(-sum)));
}

void end_of_turn_close(struct end_of_turn *e)
{
    free(e);
}
