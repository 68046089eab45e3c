/*
 * model/flow.h - the records that cross from one stage to the next. Stages include this and never
 * each other.
 */
#ifndef PARLEY_MODEL_FLOW_H
#define PARLEY_MODEL_FLOW_H

#include <stdint.h>

#include "model/config.h"

/* engine -> talker: the positions of all user turns so far, in order. Owned by the engine, valid
 * until its next call. Source: MODEL.md, Hand-over. */
struct prompt_rows {
    int n;
    int stable;          /* leading rows that are as they were at the last hand-over */
    const int32_t *ids;  /* [n] */
    const float *hidden; /* [n, thinker_hidden] host; rows count where ids[i] is the audio pad */
};

/* talker -> code2wav: 80 ms of speech. */
struct codec_frame {
    int32_t codes[CODE_GROUPS_MAX]; /* the first `groups` of the configuration count */
};

#endif
