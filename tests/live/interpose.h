/* tests/live/interpose.h - what audio threads did that they must not; see interpose.c. */
#ifndef PARLEY_TESTS_INTERPOSE_H
#define PARLEY_TESTS_INTERPOSE_H

#include <stdio.h>

#include "audio/realtime.h"

/* Forbidden calls so far in this region; how often it was entered. */
long interpose_count(enum realtime_region r);
long interpose_entered(enum realtime_region r);

void interpose_report(FILE *out);

#endif
