/*
 * daemon/plan.h - the memory plan as a person reads it, the refusal of what cannot fit, and the
 * progress of loading.
 */
#ifndef PARLEY_DAEMON_PLAN_H
#define PARLEY_DAEMON_PLAN_H

#include <stdbool.h>
#include <stdio.h>

#include "base/problem.h"
#include "model/model.h"

/* "70.52 GB" into buf. */
const char *bytes_text(char *buf, size_t size, double bytes);

/* Bytes this process may still take: MemAvailable, or what its control group leaves if that is
 * less. 0 when neither can be read. */
size_t memory_available(void);

/* "F32+BF16" of a plan row's types. */
const char *types_text(char *buf, size_t size, unsigned types);

/* All rows together. */
struct plan_row plan_sum(const struct model *m);

/* One row per component, the caches (0 = not known), the sum, and what is free. */
void plan_print(FILE *f, const struct model *m, size_t caches);

/* 0, or -ENOMEM with a sentence that has the figures: anonymous memory must fit; so must the mapped
 * files unless `paging` says that reading them from disk as they are used is acceptable. */
int plan_check(const struct model *m, size_t caches, bool paging, struct problems *why);

/* Loading as seen from outside: on a terminal one line with bytes, rate and time left, elsewhere
 * one line per finished component. `out` NULL = quiet. */
struct load_meter {
    FILE *out;
    double start, shown;
    int row;
};

void load_meter_show(struct load_meter *l, const struct model *m, const struct load_progress *p);
void load_meter_end(struct load_meter *l, const struct model *m, int err);

#endif
