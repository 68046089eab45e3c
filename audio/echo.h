/*
 * audio/echo.h - the echo that the microphone is to hear of what the loudspeaker plays, predicted
 * by an adaptive filter, and the rest, in which a person is untouched.
 *
 * webrtc (audio/apm.cc) also suppresses what it takes for echo, and of a person who talks over an
 * echo much goes with it. The rest given here is only the difference of microphone and prediction:
 * what audio/near.c judges, and what webrtc gets, which then has little left to suppress.
 *
 * A partitioned frequency-domain Kalman filter (Enzner and Vary 2006; Kuech, Mabande and Enzner
 * 2014): how far each coefficient is still off is estimated beside it, and decides how much it
 * learns. Speech of a person slows it, so that it does not unlearn the room.
 *
 * Threads: one owner. Only echo_open allocates.
 */
#ifndef PARLEY_AUDIO_ECHO_H
#define PARLEY_AUDIO_ECHO_H

#include <stdbool.h>

enum { ECHO_RATE = 16000, ECHO_PERIOD = 160, ECHO_TAIL_MS = 320 };

struct echo;

/* 0 or -ENOMEM. */
int echo_open(struct echo **ret);

/* 10 ms: predicted[ECHO_PERIOD] of mic[ECHO_PERIOD], rest = mic - predicted. Returns true when the
 * room has changed so much that everything learnt was thrown away. */
bool echo_period(struct echo *e, const float *mic, const float *far, float *predicted, float *rest);

/* The echo may come earlier or later from now on: it is learnt as fast as at first. */
void echo_moved(struct echo *e);

void echo_close(struct echo *e); /* NULL is legal */

#endif
