/*
 * engine/encoder.h - the audio encoder: mel frames in, rows for the Thinker out (for engine/, and
 * for `parley bench`, which times it alone).
 *
 * Two steps, because they become final at different times: the stem works on one chunk of mel
 * frames (1 s) by itself, the transformer on one window of chunks (8 s). The stem's rows of the
 * current window wait inside. Source: MODEL.md, Stem; Audio encoder.
 */
#ifndef PARLEY_ENGINE_ENCODER_H
#define PARLEY_ENGINE_ENCODER_H

#include "model/model.h"

struct encoder;

/* 0 or -ENOMEM. */
int encoder_open(struct encoder **ret, const struct model *model, struct device *dev);

/* Rows for a chunk of `frames` mel frames: each of three convolutions halves, rounding up. */
int encoder_tokens(int frames);

/* ... for a whole window. */
int encoder_window_tokens(const struct audio_config *c);

/* Rows for a whole sound of `frames` mel frames. */
int encoder_sound_tokens(const struct audio_config *c, int frames);

/* Stem on chunk `chunk` of the current window: mel[frames, mel_bins] (host), padded with zeros to
 * `padded` frames, gives encoder_tokens(frames) rows. */
void encoder_stem(struct encoder *e, int chunk, const float *mel, int frames, int padded);

/* Transformer over the first n stem rows; returns the rows [n, output] in device memory, valid
 * until the next call. The stem rows stay. */
const float *encoder_window(struct encoder *e, int n);

/* Bytes of buffers that encoder_open takes. */
size_t encoder_bytes(const struct model *model);

void encoder_close(struct encoder *e);

#endif
