/*
 * audio/near.h - is there more in the microphone than our own echo?
 *
 * Judged every 10 ms from the predicted echo and the rest (audio/echo.h), in bands: what the rest
 * usually keeps of the echo is learnt (the filter is never perfect, loudspeakers bend), so is the
 * noise; what rises above both in several bands is somebody.
 *
 * Threads: one owner. Only near_open allocates.
 */
#ifndef PARLEY_AUDIO_NEAR_H
#define PARLEY_AUDIO_NEAR_H

#include <stdbool.h>

enum { NEAR_RATE = 16000, NEAR_PERIOD = 160 };

struct near;

/* 0 or -ENOMEM. */
int near_open(struct near **ret);

/* 10 ms; far is the loudspeaker's level in dBFS at its loudest in the last half second. Returns
 * how likely it is, [0, 1]. */
float near_period(struct near *n, const float *predicted, const float *rest, float far);

/* The filter starts anew. */
void near_reset(struct near *n);

/* The filter has seen enough of the echo to be trusted. */
bool near_settled(const struct near *n);

void near_close(struct near *n); /* NULL is legal */

#endif
