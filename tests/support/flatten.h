/* tests/support/flatten.h - all values of a loaded model in one array, for comparing models. */
#ifndef PARLEY_TESTS_FLATTEN_H
#define PARLEY_TESTS_FLATTEN_H

#include "model/model.h"

struct flat {
    float *values;
    size_t n, cap;
    struct device *device; /* that has to be asked for the values; NULL = they can be read */
};

/* In the order of the tensor inventory: the one in which struct tiny lists its tensors. */
void flatten(struct flat *f, const struct model *m);

/* The same for weights in the memory of a device (no 8-bit ones). */
void flatten_from(struct flat *f, const struct model *m, struct device *d);

#endif
