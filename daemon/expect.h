/*
 * daemon/expect.h - whether a replay did what was expected of it.
 *
 * Two ways beside each other. Readable expectations in the scenario hold for any model that answers
 * well:
 *
 *     "expect": [{"action": "play", "within_ms": 900}, {"event": "said", "text": "Paris"}],
 *     "never":  [{"action": "hold"}],
 *     "count":  [{"action": "play", "times": 1}]
 *
 * The lines of "expect" are to be found in this order. Each is a pattern: `event`, `was`, `state`,
 * `earcon` are equal, `action` is among the actions, any other text field holds the text (whatever
 * the case), any other number or truth is equal; `from_ms` and `to_ms` bound the time, `within_ms`
 * the time since the line matched before (or the start).
 *
 * And the whole event log, line by line, in SCENARIO.events.jsonl, whose first line says on which
 * kind of processor it was made: another kind rounds otherwise, so there it is not compared.
 *
 * Threads: one owner.
 */
#ifndef PARLEY_DAEMON_EXPECT_H
#define PARLEY_DAEMON_EXPECT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "base/problem.h"
#include "daemon/scenario.h"

struct expect;

/* Checks the patterns; a sentence for each that makes no sense. `s` must outlive it. */
int expect_open(struct expect **ret, const struct scenario *s, struct problems *why);

/* Nothing will be asked but expect_newest: no other line is kept, for days of log. */
void expect_nothing(struct expect *e);

/* One line of the event log, ending in "\n". 0 or -ENOMEM. */
int expect_line(struct expect *e, const char *line, size_t n);

/* Whether the newest line has this event or action. */
bool expect_newest(const struct expect *e, const char *event_or_action);

/* The log is complete: says what is missing or too much on `out`. True when all is as expected. */
bool expect_fulfilled(struct expect *e, FILE *out);

/* Compares the log with the file (false and a diff on `out`), or writes it. `kind` names the kind
 * of processor. A file that is not there is a note, not a fault. */
bool expect_compare(struct expect *e, const char *path, const char *kind, FILE *out,
                    struct problems *why);
int expect_update(struct expect *e, const char *path, const char *kind, struct problems *why);

void expect_close(struct expect *e); /* NULL is legal */

#endif
