/*
 * vad/segment.h - from a row of probabilities to starts and ends of speech.
 *
 * Only vad.c and the tests include this; vad.h says what the options and the events mean. Pure
 * bookkeeping: one probability a chunk, all times in samples.
 *
 *     probability   .1 .2 .3 .9 .9 .4 .9 .1 .1 .1 .1 .1 .1 .1
 *     voiced               ^  #  #  #  #  .  .  .  .  .  .  |
 *                     ^    |  START known here              END known here, at the last #
 *                     |    onset: rises through threshold_rise
 *                     from: onset less pre-roll
 */
#ifndef PARLEY_VAD_SEGMENT_H
#define PARLEY_VAD_SEGMENT_H

#include "vad/vad.h"

/* Chunks before a start that are looked at for its onset. */
enum { SEGMENT_BACK = 8 };

struct segment {
    float on, off, rise;
    int min_speech, hang, pre_roll; /* samples */

    int64_t run;    /* samples of the present run of chunks at `on` or above, in silence */
    int64_t rising; /* samples of the present run at `rise` or above, at most SEGMENT_BACK chunks
                       longer than `run` */
    int64_t floor;  /* end of the speech before: nothing reaches back beyond it */

    bool speech;
    int64_t from;     /* of the present speech */
    int64_t voiced;   /* samples of its chunks at `off` or above */
    int64_t last_end; /* where the last of them ended */
};

/* 0, or -EINVAL with a sentence. */
int segment_init(struct segment *s, const struct vad_opts *o, struct problems *why);

void segment_reset(struct segment *s, int64_t position);

/* The chunk of VAD_CHUNK samples that ends at `end` has probability `p`. */
void segment_push(struct segment *s, int64_t end, float p, struct vad_event *event);

int segment_reach(const struct segment *s);

#endif
