/*
 * tests/support/floor.h - a stand-in for what obeys turn taking: it keeps what each action means
 * (is a turn open, is an answer meant, does it sound) and finds orders that make no sense.
 */
#ifndef PARLEY_TESTS_SUPPORT_FLOOR_H
#define PARLEY_TESTS_SUPPORT_FLOOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/turn.h"

struct floor {
    struct turn turn;
    struct turn_actions last;
    bool mic_closed;
    bool open, hearing;                   /* the turn */
    bool begun, committed, playing, held; /* the answer */
    bool empty;                           /* it was said to be */
    bool asked;                           /* the last event was a written turn */
    uint64_t started;                     /* the stream */
    uint64_t hear_to;                     /* end of the last hearing */
    uint64_t open_at, commit_at, play_at; /* when it came about */
    uint64_t held_at;                     /* HELD was entered */
    uint64_t tick_at, longest_tick;
    uint64_t steps, holds, turns, replies; /* counts, to see that a test tests something */
};

/* NULL, or what is wrong. */
const char *floor_open(struct floor *f, const struct turn_opts *o, uint64_t now);

/* One event, with the current turn and answer filled in unless `tagged`. NULL, or the broken rule.
 * The actions are in f->last. */
const char *floor_step(struct floor *f, struct turn_event e, bool tagged);

/* "held hold earcon:lost": the state after the last step and its actions; places of the sound
 * ("hear@700") in ms since the start of the stream, at 16 kHz. */
void floor_say(const struct floor *f, char *text, size_t size);

#endif
