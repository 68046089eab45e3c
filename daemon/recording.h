/*
 * daemon/recording.h - a recording of what the microphone heard, asked for by somebody, that
 * `parley replay` plays again.
 *
 *     STATE/recordings/20261121-091500/heard.wav       16 kHz, our own voice removed
 *     STATE/recordings/20261121-091500/scenario.json
 *
 * The scenario holds what the conversation was opened with: turn taking, system text, context and
 * length of replies, voice. The replay hears the same sound, without an echo of its own replies; it
 * answers in its own words and pace, as replies are drawn by lot and the machine's speed is not
 * recorded, and with the model that it is given. What a crash leaves can be replayed, too. Folders
 * have mode 0700. Nothing is recorded for longer than was asked for; nothing here removes a
 * recording.
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

struct recording_opts {
    const struct conf *conf; /* borrowed, as is: */
    const char *system;      /* system text, NULL = none */
    int seconds;             /* at most so long */
    time_t now;              /* names it */
};

int recording_open(struct recording **ret, const struct recording_opts *o, struct problems *why);

/* More sound, 16 kHz. 1 = that was all that was asked for, 0, or negative errno. */
int recording_add(struct recording *r, const float *pcm, size_t n, struct problems *why);

double recording_left_s(const struct recording *r);
const char *recording_path(const struct recording *r); /* of the folder */

/* Completes both files. 0 or negative errno. NULL is legal. */
int recording_close(struct recording *r, struct problems *why);

#endif
