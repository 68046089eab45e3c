/*
 * daemon/event_log.h - what happened, one JSON object a line: for replay, for watching a running
 * daemon, for scoring.
 *
 *     {"at":35200,"ms":2200.0,"event":"tick","was":"listening","state":"listening",
 *      "actions":["hear_end"],"turn":1,"answer":1,"hear_to":35200}
 *
 * Every line has `at` (sample time since the start), `ms` (the same, for people) and `event`; then
 * what belongs to the event. The same calls give the same bytes on every machine: fixed order,
 * fixed decimals, no locale, ASCII only (other characters are written as \u escapes, bytes that are
 * no UTF-8 as U+FFFD). A line is built in its own memory, nothing is allocated; what does not fit
 * is left out, text shortened between two characters, and "cut":true says so.
 *
 * Threads: a line belongs to one thread. What becomes of the text is the caller's business.
 */
#ifndef PARLEY_DAEMON_EVENT_LOG_H
#define PARLEY_DAEMON_EVENT_LOG_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/turn.h"

#define EVENT_LINE_MAX 4096

struct event_line {
    char text[EVENT_LINE_MAX]; /* NUL-terminated */
    size_t n;
    bool cut;
};

/* Starts a line; `at` is in samples since the start of the stream, of which there are `rate` a
 * second. */
void event_line_begin(struct event_line *l, uint64_t at, int rate, const char *event);

/* Fields; keys are short and plain. A real number has `decimals` places, 0 to 6; what is no number
 * becomes null. */
void event_line_text(struct event_line *l, const char *key, const char *utf8);
void event_line_int(struct event_line *l, const char *key, int64_t value);
void event_line_real(struct event_line *l, const char *key, double value, int decimals);
void event_line_bool(struct event_line *l, const char *key, bool value);

/* A whole step of turn taking: event_line_begin and its fields, more may follow. `start` is the
 * sample time of the stream's start. False, and no line, for a tick that did nothing. */
bool event_line_turn(struct event_line *l, const struct turn_event *e, const struct turn_actions *a,
                     uint64_t start, int rate);

/* Closes the line with "}\n" and returns its text, l->n bytes. */
const char *event_line_end(struct event_line *l);

/* Whether a line that was parsed again has this action. */
bool event_has_action(const json_t *line, const char *name);

#endif
