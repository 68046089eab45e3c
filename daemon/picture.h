/*
 * daemon/picture.h - a conversation on one page: an SVG with the sound at the microphone, the turn
 * states as coloured bands, the sound of the loudspeaker, and what happened as labelled marks.
 *
 * Long conversations take several rows, up to six, then the rows get denser.
 *
 * Threads: one owner.
 */
#ifndef PARLEY_DAEMON_PICTURE_H
#define PARLEY_DAEMON_PICTURE_H

#include <stddef.h>

#include "base/problem.h"
#include "daemon/turn.h"

struct picture;

/* `title` is copied. 0 or -ENOMEM. */
int picture_open(struct picture **ret, const char *title);

/* 10 ms: n samples of both sides at the same time, and who has the floor at their end. */
int picture_period(struct picture *p, const float *user, const float *speaker, size_t n,
                   enum turn_state state);

/* A line of the event log; those worth a mark get one. */
int picture_line(struct picture *p, const char *line, size_t n);

int picture_write(const struct picture *p, const char *path, struct problems *why);

void picture_close(struct picture *p); /* NULL is legal */

#endif
