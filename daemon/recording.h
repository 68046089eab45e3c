/*
 * daemon/recording.h - a recording of what the microphone heard, asked for by somebody, that
 * `parley replay` plays again.
 *
 *     STATE/recordings/20261121-091500/heard.wav       16 kHz, our own voice removed
 *     STATE/recordings/20261121-091500/scenario.json
 *
 * The scenario holds the turn-taking options of the day, so that what went wrong goes wrong again.
 * Folders have mode 0700. Nothing is recorded for longer than was asked for.
 *
 * Threads: one owner; writing blocks on the disk.
 */
#ifndef PARLEY_DAEMON_RECORDING_H
#define PARLEY_DAEMON_RECORDING_H

#include <stdbool.h>
#include <stddef.h>
#include <time.h>

#include "base/problem.h"
#include "daemon/conf.h"

struct recording;

/* Starts one of at most `seconds`; `now` names it. */
int recording_open(struct recording **ret, const struct conf *conf, int seconds, time_t now,
                   struct problems *why);

/* More sound, 16 kHz. 1 = that was all that was asked for, 0, or negative errno. */
int recording_add(struct recording *r, const float *pcm, size_t n, struct problems *why);

double recording_left_s(const struct recording *r);
const char *recording_path(const struct recording *r); /* of the folder */

/* Completes both files. 0 or negative errno. NULL is legal. */
int recording_close(struct recording *r, struct problems *why);

#endif
