/*
 * tests/support/turn_script.h - a conversation with turn taking as a list of events at times in ms,
 * a tick every 10 ms between them, and the log of what it did.
 *
 *     2200 tick: listening hear_end
 *     2600 tick: speaking commit play
 *
 * One line for each event that did anything: when, which, the state after it, its actions.
 */
#ifndef PARLEY_TESTS_SUPPORT_TURN_SCRIPT_H
#define PARLEY_TESTS_SUPPORT_TURN_SCRIPT_H

#include "tests/support/floor.h"

enum { SCRIPT_MS = 16, SCRIPT_PERIOD_MS = 10 };

struct cue {
    int at_ms;
    enum turn_event_kind kind;
    int age_ms;
    float probability; /* of the event; of ONSET, END and TICK also of the ticks from here on */
};

struct turn_script {
    struct floor floor;
    float probability; /* of the ticks */
    int now_ms;
    const char *wrong; /* the first broken rule */
    char log[4096];
};

/* The stream starts two seconds before 2^64. */
void turn_script_open(struct turn_script *s, const struct turn_opts *o);

/* One event, now. */
void turn_script_step(struct turn_script *s, const struct cue *c);

/* `n` cues and the ticks until `until_ms`; the events of a period come before its tick. */
void turn_script_play(struct turn_script *s, const struct cue *cues, size_t n, int until_ms);

#endif
