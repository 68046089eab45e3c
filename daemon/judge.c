/*
 * daemon/judge.c - the gate before the voice detector; see judge.h.
 */
#include "daemon/judge.h"

#include <math.h>

enum {
    FAR_PERIODS = 30,  /* 300 ms: the room's echo of what was played last */
    NEAR_PERIODS = 25, /* 250 ms: a syllable's gaps do not shut the gate */
};

#define FAR_SILENT -60.0f /* dBFS */
#define NEAR       0.5f   /* somebody is there from here on, ... */
#define NEAR_EARLY 0.8f   /* ... while the canceller still learns the room */
#define SHUT       0.01f  /* amplitude */

void judge_open(struct judge *j)
{
    *j = (struct judge){.gate = 1};
}

static bool is_open(struct judge *j, const struct ear_frame *f)
{
    if (f->far > FAR_SILENT)
        j->far_for = FAR_PERIODS;
    else if (j->far_for > 0)
        j->far_for--;
    if (j->far_for == 0) /* near says nothing of echo then */
        j->near_for = 0;
    else if (f->near >= (f->settled ? NEAR : NEAR_EARLY))
        j->near_for = NEAR_PERIODS;
    else if (j->near_for > 0)
        j->near_for--;
    return j->far_for == 0 || j->near_for > 0;
}

void judge_listen(struct judge *j, const struct ear_frame *f, float *pcm)
{
    float to = is_open(j, f) ? 1 : SHUT;
    float step = (to - j->gate) / EAR_PERIOD;
    for (int i = 0; i < EAR_PERIOD; i++)
        pcm[i] = isfinite(f->clean[i]) ? f->clean[i] * (j->gate + step * (float)(i + 1)) : 0;
    j->gate = to;
}
