/*
 * model/loader.h - what stands behind a struct model: mapped files, owned memory, the work left to
 * do. Private to model/load.c and model/plan.c.
 */
#ifndef PARLEY_MODEL_LOADER_H
#define PARLEY_MODEL_LOADER_H

#include "model/bind.h"

struct cursor {
    size_t piece, at; /* `at` counts elements */
};

struct loader {
    struct checkpoint *checkpoint; /* NULL when synthetic */
    struct checkpoint_source files;
    struct random_source random;
    struct binder binder; /* pieces, plan rows, small blocks */
    struct plan_row plan[ROW_COUNT];
    int n_rows;
    unsigned char *owned;      /* anonymous memory; NULL until loading begins */
    struct cursor next, ahead; /* what the next step does; what was announced to the kernel */
    size_t done, announced, total;
    struct random_table table;
    bool table_ready;
};

/* Fills the plan's rows from what was bound. */
void plan_make(struct loader *l);

#endif
