/*
 * daemon/sound_file.h - questions from sound files, answers into WAV files.
 *
 * Reads whatever libsndfile reads, of any rate and channel count, as mono at 16 kHz (channels are
 * averaged, libsoxr resamples). Writes 16-bit WAV.
 */
#ifndef PARLEY_DAEMON_SOUND_FILE_H
#define PARLEY_DAEMON_SOUND_FILE_H

#include <stddef.h>

#include "base/problem.h"

#define QUESTION_RATE 16000

/* Seconds of sound in the file by its header; < 0: negative errno and a sentence. */
double sound_file_seconds(const char *path, struct problems *why);

/* The whole file, mono, 16 kHz; the caller frees. Empty, silent (all below -80 dBFS) and non-finite
 * sound is refused. 0 or negative errno and a sentence. */
int sound_file_read(float **pcm, size_t *n, const char *path, struct problems *why);

/* The same at `rate` Hz. */
int sound_file_read_at(float **pcm, size_t *n, const char *path, int rate, struct problems *why);

struct sound_writer;

/* `channels` interleaved; n counts samples of all channels together. */
int sound_writer_open(struct sound_writer **ret, const char *path, int rate, int channels,
                      struct problems *why);
int sound_writer_add(struct sound_writer *w, const float *pcm, size_t n, struct problems *why);

/* Completes the file. 0 or negative errno and a sentence. NULL is allowed. */
int sound_writer_close(struct sound_writer *w, struct problems *why);

#endif
