/*
 * tests/gpu/runtime_stub.h - a CUDA runtime without a GPU, linked in place of the real one, that
 * answers as it is told.
 *
 * Device memory is the host's: allocations and copies are real, kernels do nothing. A stub of the
 * driver below the real runtime would need its private, undocumented tables; here every call that
 * the product makes is answered, which is the seam where its checks sit.
 */
#ifndef PARLEY_TESTS_RUNTIME_STUB_H
#define PARLEY_TESTS_RUNTIME_STUB_H

#include <stdbool.h>

struct stub {
    const char *call; /* name of the runtime function that fails; NULL = none */
    int after;        /* calls of it that still succeed */
    int error;        /* what it returns then, a cudaError_t */
    bool sticky;      /* from then on every call returns it, as after a fault of the GPU */
    bool hang;        /* nothing that was begun ever ends */
    int pace_ms;      /* what is put there is reached so long after what was before it */
    bool integrated;  /* the GPU's memory is the host's */
    bool no_driver;
    int launches; /* kernels and recorded steps started */
};

extern struct stub stub;

#endif
