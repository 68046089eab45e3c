/*
 * daemon/buttons.h - keys of an input device (a keyboard, GPIO keys of a board) that mute, stop and
 * open a conversation.
 *
 * The mute key toggles. The stop key ends a reply. The talk key opens a conversation; while the
 * microphone is muted it opens the microphone for as long as it is held (push to talk). A device
 * that is missing or goes away is looked for every few seconds.
 *
 * Threads: the one that runs the event loop.
 */
#ifndef PARLEY_DAEMON_BUTTONS_H
#define PARLEY_DAEMON_BUTTONS_H

#include <stdbool.h>
#include <systemd/sd-event.h>

#include "base/problem.h"

enum button { BUTTON_MUTE, BUTTON_STOP, BUTTON_TALK, BUTTONS };

/* Only presses and releases; what repeats while a key is held is not told. */
typedef void button_pressed(void *ctx, enum button b, bool down);

struct buttons;

struct buttons_opts {
    sd_event *event;
    const char *device;
    const char *keys[BUTTONS]; /* "KEY_MICMUTE"; "" = none */
    int retry_s;               /* 0 = 5 */
    button_pressed *pressed;
    void *ctx;
};

/* There is a key of this name; "" and NULL are none, and fine. */
bool buttons_key(const char *name);

/* -EINVAL for a name that buttons_key denies. A device that is not there is looked for. */
int buttons_open(struct buttons **ret, const struct buttons_opts *o, struct problems *why);

/* The device is there. */
bool buttons_present(const struct buttons *b);

void buttons_close(struct buttons *b); /* NULL is legal */

#endif
