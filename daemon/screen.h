/*
 * daemon/screen.h - a live conversation on a terminal: what was said, above a line with levels,
 * state and latencies that is drawn again and again. Where there is no terminal, plain lines.
 *
 *     you: (2.1 s)
 *     parley: The capital of France is Paris.
 *     speaking  mic ##  speaker #####  voice  2 %  answer 640 ms   [space stops, m mutes]
 * quits
 *
 * It reads the event lines of conversation.h. Threads: one owner.
 */
#ifndef PARLEY_DAEMON_SCREEN_H
#define PARLEY_DAEMON_SCREEN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "daemon/live.h"

enum { SCREEN_TEXT = 2048 };

struct screen {
    FILE *out;
    bool live;                /* lines may be drawn over */
    int width;                /* columns */
    int drawn;                /* lines of the part that is drawn again */
    char answer[SCREEN_TEXT]; /* as far as the words have come */
    size_t answer_len;
    int64_t number; /* of that answer */
    bool meant;     /* it was committed: it may be shown */
    double heard_s; /* of the turn */
    int64_t hear_from;
};

/* `live`: `out` is a terminal of so many columns. */
void screen_open(struct screen *s, FILE *out, bool live, int width);

/* One line of the event log. */
void screen_line(struct screen *s, const char *line, size_t n);

/* The part below, as things stand. Nothing without a terminal. */
void screen_draw(struct screen *s, const struct live_stats *stats);

/* A line of our own above it. */
void screen_say(struct screen *s, const char *text);

void screen_close(struct screen *s);

#endif
