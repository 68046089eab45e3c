/*
 * model/plan.c - what a model takes: tensors, parameters and bytes of each component.
 */
#include "model/loader.h"

void plan_make(struct loader *l)
{
    struct plan_row *vision = &l->binder.rows[ROW_VISION];
    if (l->checkpoint)
        checkpoint_count(l->checkpoint, "thinker.visual.", &vision->tensors, &vision->parameters);
    /* Only components at the end can be absent, so a row keeps the number its pieces carry. */
    for (int i = 0; i < ROW_COUNT; i++)
        if (l->binder.rows[i].tensors > 0)
            l->plan[l->n_rows++] = l->binder.rows[i];
}

int model_plan(const struct model *m, const struct plan_row **rows)
{
    *rows = m->loader->plan;
    return m->loader->n_rows;
}

void model_layout(const struct model *m, struct model_layout *layout)
{
    const struct loader *l = m->loader;
    *layout = (struct model_layout){0};
    if (!l->checkpoint)
        return;
    layout->files = checkpoint_shards(l->checkpoint);
    layout->sharded = checkpoint_sharded(l->checkpoint);
    layout->fused_experts = l->binder.fused;
}
