/*
 * kernels/plain/step.c - positions counted on; steps, which are never recorded on the host.
 */
#include "kernels/plain/plain.h"

void plain_advance(struct device *d, int32_t *pos, int n)
{
    (void)d;
    *pos += n;
}

int plain_step_begin(struct device *d, struct step **step)
{
    (void)d;
    (void)step;
    return 1;
}

void plain_step_end(struct device *d, struct step **step)
{
    (void)d;
    (void)step;
}

void plain_step_drop(struct device *d, struct step *step)
{
    (void)d;
    (void)step;
}
