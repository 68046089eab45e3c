/*
 * audio/join.h - the microphone's samples and the loudspeaker's of the same instant, joined in the
 * microphone's time. No threads, no clock: audio/audio.c brings both, tests bring virtual time.
 *
 * Each side writes its samples with a moment: when they were moved and how far the converter was
 * from them. From that its clock is followed: which sample is at the converter at a given time, and
 * how fast they go by. The far end is resampled (libsoxr, variable rate) so that its samples come
 * out together with those the microphone took while they sounded. Where samples are missing there
 * is silence, so that neither time line ever has a gap.
 *
 * Threads: join_write by an audio thread for each side (never allocates, locks or waits), all else
 * by one owner.
 */
#ifndef PARLEY_AUDIO_JOIN_H
#define PARLEY_AUDIO_JOIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "audio/device.h"

/* The far end comes so much early: delays that devices report are some milliseconds off, and an
 * echo that seems to come before its cause cannot be cancelled. */
enum { JOIN_LEAD_MS = 15 };

struct join;

int join_open(struct join **ret, int rate);

/* Samples of one side. `anew`: time has passed since the last ones (an xrun, the device was opened
 * again). */
void join_write(struct join *j, enum audio_direction side, const float *pcm, size_t n,
                const struct audio_moment *m, bool anew);

/* Whether a whole period of the microphone is there. */
bool join_ready(struct join *j);

/* mic[rate / 100], far[rate / 100]: the next period, silence where nothing is there. Returns how
 * many samples of the microphone were missing. */
size_t join_take(struct join *j, float *mic, float *far);

/* Samples of the loudspeaker that are not heard yet; that were overtaken in the microphone. */
double join_play_delay(const struct join *j, int64_t now_ns);
double join_capture_delay(const struct join *j);

/* The loudspeaker's clock against the microphone's. */
double join_drift_ppm(const struct join *j);

/* By how many samples the far end is off its place: for tests and statistics. */
double join_error(const struct join *j);

void join_close(struct join *j); /* NULL is legal */

#endif
