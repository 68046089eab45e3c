/*
 * model/loader.h - what stands behind a struct model: mapped files, owned memory, the work left to
 * do. Private to load.c, upload.c and plan.c of model/.
 */
#ifndef PARLEY_MODEL_LOADER_H
#define PARLEY_MODEL_LOADER_H

#include "model/bind.h"

struct cursor {
    size_t piece, at; /* `at` counts elements */
};

struct upload;

struct loader {
    struct checkpoint *checkpoint; /* NULL when synthetic */
    struct checkpoint_source files;
    struct random_source random;
    struct binder binder; /* pieces, plan rows, small blocks */
    struct plan_row plan[ROW_COUNT];
    int n_rows;
    struct device *device;     /* with memory of its own, or NULL */
    unsigned char *owned;      /* anonymous or device memory; NULL until loading begins */
    unsigned char *vectors;    /* the vectors in it, for a device first here on the host */
    struct upload *upload;     /* for a device: the threads that read the matrices */
    float *base;               /* for a device: what random numbers are made of, in its memory */
    struct cursor next, ahead; /* what the next step does; what was announced to the kernel */
    size_t done, announced, total;
    struct random_table table;
    bool table_ready;
};

/* Fills the plan's rows from what was bound. */
void plan_make(struct loader *l);

/* Where a piece is on the device or in owned memory. */
static inline unsigned char *piece_place(const struct loader *l, const struct piece *p)
{
    return l->owned + (p->stored ? 0 : l->binder.owned) + p->offset;
}

/* upload.c: reads all matrices, whose pieces are sorted by place, and copies them to the device,
 * with threads of its own. Neither the pieces nor the files may change meanwhile. */
int upload_start(struct upload **ret, struct loader *l, struct problems *why);
/* Waits up to `ms`. 1 = not yet all, 0 = everything is on the device, negative errno; how many
 * bytes are, and the plan row that is being read. */
int upload_wait(struct upload *u, int ms, size_t *done, int *row, struct problems *why);
void upload_close(struct upload *u); /* ends the threads; NULL is legal */

#endif
