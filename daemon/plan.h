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

/* Where weights and caches go: a device's own memory, or the host's. */
struct plan_memory {
    const char *device; /* its name; NULL = the host's memory */
    unsigned types;     /* bit t: matrices of type t can be computed with there */
    size_t total;       /* 0 = not known */
    size_t unused;      /* bytes this process may still take; on the host, and on a device whose
                           memory is the host's, MemAvailable, or what a container's limit leaves
                           (the control group at the mount's root) if that is less. 0 when neither
                           can be read */
};

/* `d` NULL = the host. */
struct plan_memory plan_memory(struct device *d);

/* Anonymous resident memory of this process now, in bytes. */
size_t memory_anonymous(void);

/* What a model takes with its caches: on a device with 3 % for kernels and scratch, at least 64 MB.
 */
size_t plan_need(const struct plan_memory *where, const struct model *m, size_t caches);

/* "F32+BF16" of a plan row's types. */
const char *types_text(char *buf, size_t size, unsigned types);

/* All rows together. */
struct plan_row plan_sum(const struct model *m);

/* One row per component, the caches (0 = not known), the sum, and what is free. */
void plan_print(FILE *f, const struct plan_memory *where, const struct model *m, size_t caches);

/* 0, or -ENOMEM with a sentence that has the figures: everything must fit on a device; on the host
 * anonymous memory must, and so must the mapped files unless `paging` says that reading them from
 * disk as they are used is acceptable. -EINVAL for weights of a type the device cannot use. */
int plan_check(const struct plan_memory *where, const struct model *m, size_t caches, bool paging,
               struct problems *why);

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
