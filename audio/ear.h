/*
 * audio/ear.h - what the microphone heard, without what the loudspeaker said.
 *
 * 10 ms of microphone and the 10 ms that the DAC really got at the same time go in; out come 10 ms
 * at 16 kHz, once with echo (and, if wanted, noise) removed and once raw, with the measures from
 * which the barge-in judge tells a person from our own echo. An adaptive filter of our own predicts
 * the echo (audio/echo.c), webrtc-audio-processing takes away what is left of it (audio/apm.cc).
 *
 * The far-end time line has no gaps: silence is passed when nothing plays and for every period that
 * the DAC missed.
 *
 * Threads: one owner; not real-time (the library locks).
 */
#ifndef PARLEY_AUDIO_EAR_H
#define PARLEY_AUDIO_EAR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/problem.h"

enum { EAR_RATE = 16000, EAR_PERIOD = 160 }; /* Hz, samples of 10 ms */

struct ear;

/* Zero means the default. */
struct ear_opts {
    int rate;       /* of microphone and far end; 48000 */
    int delay_ms;   /* from the DAC to the microphone, best a little low; 0 */
    bool no_cancel; /* the device has its own canceller */
    bool noise;     /* suppress steady noise */
    bool gain;      /* automatic gain */
};

/*
 * near: how likely the microphone holds more than our own echo, [0, 1], 1 while the far end is
 * silent. It is of this very period, not as late as clean and raw. 0.5 lies beyond the echoes in
 * ten simulated rooms; a voice 10 dB under the echo passes it within about 100 ms.
 * To be trusted only once `settled`, and not for some seconds after the device was carried into
 * another room; then too little of the echo is known, and clean holds more of it, too.
 */
struct ear_frame {
    float clean[EAR_PERIOD]; /* echo removed */
    float raw[EAR_PERIOD];   /* as it came, delayed by as much as clean is */
    float level;             /* rms of raw, dBFS, floor -120 */
    float far;               /* loudest rms of the far end in the last half second, dBFS */
    float near;              /* see above */
    float erle;              /* dB, 0 until it is known */
    bool settled;            /* the canceller has adapted to the room */
    int bad;                 /* samples that were no number, taken as 0 */
    int clipped;             /* samples at full scale */
};

/* Such a rate can be turned into EAR_RATE: 16000 to 192000 in steps of 100, beyond 64000 of 400
 * (and some more). */
bool ear_takes(int rate);

/* 0, -EINVAL for a rate that ear_takes denies, -ENOMEM. */
int ear_open(struct ear **ret, const struct ear_opts *o, struct problems *why);

/* Samples at EAR_RATE by which `clean` and `raw` lag behind the microphone. */
int ear_latency(const struct ear *e);

/* mic[rate/100], far[rate/100]; either may be NULL for silence. */
void ear_period(struct ear *e, const float *mic, const float *far, struct ear_frame *out);

/* A better delay, or a known jump: the filter is kept. */
void ear_delay(struct ear *e, int delay_ms);

/* The echo may come earlier or later from now on (AUDIO_MOVED): it is learnt as fast as at first,
 * and until then not taken for somebody. */
void ear_moved(struct ear *e);

void ear_close(struct ear *e); /* NULL is legal */

#endif
