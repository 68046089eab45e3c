/* daemon/dump.c - intermediate tensors of a turn; see dump.h. */
#include "daemon/dump.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"

static size_t width(const struct dump_tensor *t)
{
    return t->cols ? t->cols : 1;
}

int dump_add(struct dump *d, const char *name, enum st_type type, const void *rows, size_t n,
             size_t cols)
{
    struct dump_tensor *t = (struct dump_tensor *)dump_find(d, name);
    if (t == NULL) {
        if (d->n == DUMP_TENSORS_MAX)
            return -ENOMEM;
        t = &d->tensor[d->n++];
        *t = (struct dump_tensor){.name = name, .type = type, .cols = cols};
    }
    int err = grow_array(&t->data, &t->cap, (t->rows + n) * width(t), 4);
    if (err < 0)
        return err;
    memcpy((char *)t->data + t->rows * width(t) * 4, rows, n * width(t) * 4);
    t->rows += n;
    return 0;
}

const struct dump_tensor *dump_find(const struct dump *d, const char *name)
{
    for (size_t i = 0; i < d->n; i++)
        if (strcmp(d->tensor[i].name, name) == 0)
            return &d->tensor[i];
    return NULL;
}

int dump_write(const struct dump *d, const char *path, struct problems *why)
{
    struct st_entry entries[DUMP_TENSORS_MAX];
    for (size_t i = 0; i < d->n; i++) {
        const struct dump_tensor *t = &d->tensor[i];
        entries[i] = (struct st_entry){.name = t->name,
                                       .type = t->type,
                                       .ndim = t->cols ? 2 : 1,
                                       .shape = {t->rows, t->cols},
                                       .data = t->data};
    }
    return safetensors_write(path, entries, d->n, why);
}

void dump_free(struct dump *d)
{
    for (size_t i = 0; i < d->n; i++)
        free(d->tensor[i].data);
    *d = (struct dump){0};
}
