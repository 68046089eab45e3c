/*
 * daemon/earcon.h - the short sounds that say what words would take too long for: a rising pair of
 * tones for "I am listening", a falling one for "I did not get that", and so on.
 *
 * They are computed when the daemon starts (sines with soft edges), -20 dBFS and quieter: never
 * louder than speech. Threads: constant after earcons_open.
 */
#ifndef PARLEY_DAEMON_EARCON_H
#define PARLEY_DAEMON_EARCON_H

#include <stddef.h>

#include "daemon/turn.h"

struct earcons {
    float *pcm[TURN_EARCONS]; /* mono, [-1, 1]; NULL for NONE */
    size_t n[TURN_EARCONS];
};

/* 0, or -ENOMEM. */
int earcons_open(struct earcons *e, int rate);
void earcons_close(struct earcons *e);

#endif
