/*
 * tests/gpu/both.h - the same data on the host and on a GPU, and comparing what became of it.
 *
 * For tests of one device against the plain one. Everything taken belongs to the case that is being
 * run and goes back with give_back(). Process-wide state: one test program, one thread.
 */
#ifndef PARLEY_TESTS_GPU_BOTH_H
#define PARLEY_TESTS_GPU_BOTH_H

#include <stdbool.h>

#include "kernels/ops.h"

/* The same bytes on both sides. */
struct both {
    void *host, *device;
};

struct weights {
    struct weight host, device;
};

/* The op being tested. */
struct tested {
    const char *name;
    int cases, failed;
    double worst;
    bool real;
};

extern struct device *plain, *gpu;
extern struct tested now;
extern uint64_t state; /* of the random numbers */

void die(const char *what);
float noise(void); /* uniform in [-1, 1) */
struct both take(size_t bytes);
void give_back(void);
void to_device(struct both b, size_t bytes); /* host to device */
void fill(enum dtype type, void *to, size_t n, float scale);
struct both floats(size_t n, float scale);
/* Numbers that 16 bits of this type hold exactly: what convolutions round x to. */
struct both narrow_floats(size_t n, enum dtype type);
struct both poisoned(size_t n); /* NaN */
struct both ints(size_t n, int below);
struct both number(int32_t v);
struct weights matrix(enum dtype type, int rows, int cols);

/* |device - host| <= bar * max |host|, no NaN; counted and, when it fails, told with a, b, c. */
void close_to(struct both y, size_t n, double bar, const char *what, int a, int b, int c);
/* The same for sums of terms of size `term`, which may cancel: relative to that at least. */
void close_sums(struct both y, size_t n, double term, double bar, const char *what, int a, int b);
void same_ints(struct both y, size_t n, const char *what, int a, int b, int c);

#endif
