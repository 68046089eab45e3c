/*
 * tests/support/far.h - a device that says it has memory of its own: the plain-C ops, with weights
 * that have to be brought to it as to a GPU. What it holds can be looked at.
 */
#ifndef PARLEY_TESTS_FAR_H
#define PARLEY_TESTS_FAR_H

#include "kernels/plain/plain.h"

struct far {
    struct host host; /* what the plain ops work with; host.d is the device */
    size_t total;     /* bytes it says to have, */
    size_t cached;    /* and of those to be used */
    bool integrated;  /* they are the host's */
    int lanes;        /* open now */
    int opened;       /* in all */
    int fail_at;      /* > 0: the lane of this number finds no memory */
    size_t copies, bytes;
};

void far_open(struct far *f);
void far_close(struct far *f);

#endif
