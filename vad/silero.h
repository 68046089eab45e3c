/*
 * vad/silero.h - the network behind vad.h: 512 new samples in, one probability of speech out.
 *
 * Only vad.c and the tests include this.
 */
#ifndef PARLEY_VAD_SILERO_H
#define PARLEY_VAD_SILERO_H

#include "base/problem.h"

enum { SILERO_CHUNK = 512, SILERO_CONTEXT = 64, SILERO_HIDDEN = 128 };

struct silero; /* the weights; never changed after silero_open */

/* What the network remembers from chunk to chunk. All zero is the beginning. */
struct silero_state {
    float context[SILERO_CONTEXT]; /* the newest samples of the last chunk */
    float hidden[SILERO_HIDDEN];
    float cell[SILERO_HIDDEN];
};

int silero_open(struct silero **ret, const char *path, struct problems *why);

/* Probability of speech in `pcm` [SILERO_CHUNK], whose samples are finite and within +-4. */
float silero_chunk(const struct silero *s, struct silero_state *state, const float *pcm);

void silero_close(struct silero *s); /* NULL is legal */

#endif
