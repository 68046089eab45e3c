/*
 * engine/mel.h - log-mel frames of a sound that is still arriving (private to engine/).
 *
 * A frame is final once its last sample is there; only the clamp to "8 below the loudest" depends
 * on the whole sound, so raw log10 energies are kept and the clamp is applied when frames are read.
 * Source: MODEL.md, Mel front end.
 */
#ifndef PARLEY_ENGINE_MEL_H
#define PARLEY_ENGINE_MEL_H

#include <stddef.h>

#define MEL_RATE 16000
#define MEL_HOP  160
#define MEL_FFT  400

struct mel;

/* 0 or -ENOMEM. */
int mel_open(struct mel **ret, int bins);

/* Appends mono samples at 16 kHz. 0, -ENOMEM. */
int mel_push(struct mel *m, const float *pcm, size_t n);

/* Adds the frames that the end of the sound completes (reflection on the right), so that there are
 * floor(samples / 160). 0, -ENOMEM. */
int mel_finish(struct mel *m);

/* Undoes mel_finish: more samples may come. */
void mel_resume(struct mel *m);

/* Forgets everything. */
void mel_reset(struct mel *m);

size_t mel_samples(const struct mel *m);
int mel_frames(const struct mel *m);

/* Largest raw log10 energy so far; the frames read with it are exact if it does not grow. */
float mel_peak(const struct mel *m);

/* Smallest raw log10 energy among frames first .. first+n-1. */
float mel_floor(const struct mel *m, int first, int n);

/* out[n, bins] = (max(raw, peak - 8) + 4) / 4. */
void mel_read(const struct mel *m, int first, int n, float peak, float *out);

void mel_close(struct mel *m);

#endif
