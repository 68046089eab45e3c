/*
 * daemon/judge.h - is it a person who speaks while we do, or our own echo?
 *
 * The echo canceller leaves a residue that sounds like speech, because it is: ours. What the ear
 * measures of each period (how likely the microphone holds more than our own echo) opens and shuts
 * a gate in front of the voice detector: while the loudspeaker sounds, the detector hears only what
 * can be a person. While it is silent the gate is wide open.
 *
 * Threads: one owner.
 */
#ifndef PARLEY_DAEMON_JUDGE_H
#define PARLEY_DAEMON_JUDGE_H

#include <stdbool.h>

#include "audio/ear.h"

struct judge {
    int far_for;  /* periods for which the far end may still be in the room */
    int near_for; /* periods for which somebody near is believed to go on */
    float gate;   /* amplitude at the end of the last period */
};

void judge_open(struct judge *j);

/* pcm[EAR_PERIOD]: what the voice detector is to hear of the frame. */
void judge_listen(struct judge *j, const struct ear_frame *frame, float *pcm);

#endif
