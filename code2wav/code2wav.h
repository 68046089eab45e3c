/*
 * code2wav/code2wav.h - codec frames in, sound out: the decoder of the speech codec, frame by
 * frame.
 *
 * One frame of codes becomes frame_samples samples (1920 = 80 ms at 24 kHz). The network is causal
 * and all that it remembers is carried from call to call, so a reply decoded one frame at a time is
 * the same sound as the reply decoded at once: no context is computed twice, there are no seams.
 * The output lags the input by code2wav_delay() samples: that much is missing from the first call,
 * and the end of an utterance stays inside (as in the reference).
 *
 *     code2wav_open; for each reply: code2wav_reset, code2wav_next ...; code2wav_close.
 *
 * Threads: one owner, who owns the device meanwhile; nothing blocks but arithmetic.
 * Source: MODEL.md, Code2Wav.
 */
#ifndef PARLEY_CODE2WAV_CODE2WAV_H
#define PARLEY_CODE2WAV_CODE2WAV_H

#include <stddef.h>
#include <stdint.h>

#include "model/model.h"

struct code2wav;

struct code2wav_opts {
    const struct model *model; /* loaded, with speech */
    struct device *device;
    int max_frames; /* frames that go through the network at once; 0 = 1. More cost memory */
};

/* 0; -EINVAL when the model has no speech, -ENOMEM; `why` gets a sentence. All memory is taken
 * here.
 */
int code2wav_open(struct code2wav **ret, const struct code2wav_opts *o, struct problems *why);

/* Decodes n more frames, codes[n, groups] (host), n of any size, into pcm (host, room for
 * n * frame_samples), mono, in [-1, 1]. Returns the samples written: n * frame_samples, less the
 * delay on the first call of a reply. -EINVAL: a code outside the codebook; -ENOSPC: the reply is
 * longer than the model can place (only without a sliding window); then nothing has changed. */
int code2wav_next(struct code2wav *c, const int32_t *codes, int n, float *pcm);

/* Silence before the first frame again. */
void code2wav_reset(struct code2wav *c);

/* Samples by which the output lags: 555 for rates 8, 5, 4, 3. */
int code2wav_delay(const struct code2wav_config *config);

/* Bytes that code2wav_open takes. */
size_t code2wav_bytes(const struct code2wav_opts *o);

void code2wav_close(struct code2wav *c); /* NULL is legal */

#endif
