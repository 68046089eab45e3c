/*
 * audio/resample.h - from one fixed sample rate to another by a short linear-phase filter.
 *
 * Used where the same samples must come out on every machine, however the input was cut into
 * pieces, and where the delay must be known to the sample: replies on their way to the device, and
 * microphone and far end on their way to 16 kHz. Nothing below 0.42 of the lower rate is touched,
 * everything from half of it on is 80 dB down.
 *
 * Output number k belongs to input time k * from / to: there is no shift, output just comes
 * resample_wait input samples later than its time. (Clocks that drift are libsoxr's:
 * audio/audio.c.)
 *
 * Threads: one owner. Only resample_open allocates.
 */
#ifndef PARLEY_AUDIO_RESAMPLE_H
#define PARLEY_AUDIO_RESAMPLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct resample;

/* The ratio of two rates is of small numbers (up to 640). */
bool resample_can(int from, int to);

/* 0; -EINVAL for rates that resample_can denies; -ENOMEM. */
int resample_open(struct resample **ret, int from, int to);

/* Input samples that have to follow before an output is made. */
int resample_wait(const struct resample *r);

/* The most samples that resample_feed of `n`, or resample_end (n = 0), writes. */
size_t resample_most(const struct resample *r, size_t n);

/* Takes all n samples; returns how many were written to `out`. */
size_t resample_feed(struct resample *r, const float *in, size_t n, float *out);

/* The input is over: the rest of its time, and a new input begins. */
size_t resample_end(struct resample *r, float *out);

/* Forgets the input; a new one begins. */
void resample_reset(struct resample *r);

void resample_close(struct resample *r); /* NULL is legal */

#endif
