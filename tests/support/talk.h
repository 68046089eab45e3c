/*
 * tests/support/talk.h - scaffolding of the tests of conversation.c: the small model that ships
 * with Parley, a player whose sound goes nowhere, and a person who says recordings at given times.
 *
 * Time is virtual: each period of 10 ms is heard, played, and worked for; `pieces` bounds the work
 * of a period, 0 = all there is.
 */
#ifndef PARLEY_TESTS_SUPPORT_TALK_H
#define PARLEY_TESTS_SUPPORT_TALK_H

#include "daemon/conversation.h"

struct talk {
    struct session session;
    struct player *player;
    struct conversation *conversation;
    uint64_t now;            /* samples of 16 kHz since the start */
    uint64_t delay;          /* samples at 48 kHz that the device holds */
    int pieces;              /* of work in a period; 0 = all, -1 = none */
    double cost[WORK_KINDS]; /* seconds that a piece of each kind takes; all 0 = not measured */
    bool echo;               /* the frames say that the loudspeaker sounds */
    float *out;              /* everything that was played, at 48 kHz */
    size_t n_out, out_cap;
    char *log;
    size_t log_len;
};

/* The model and what the tests need besides; false: it is not here (the reason is printed). */
bool talk_model(struct session *s, int context);

/* A conversation on the session of `t`, whose model is open already. `o` may be NULL; its session,
 * player, detector and log are filled in. */
void talk_begin(struct talk *t, const struct conversation_opts *o);
void talk_end(struct talk *t);

/* A recording at 16 kHz. Caller frees. */
float *talk_recording(const char *path, size_t *n);

/* n samples of microphone, then silence up to `until` ms since the start. */
void talk_say(struct talk *t, const float *pcm, size_t n);
void talk_wait(struct talk *t, int until_ms);

/* Until the log has `text` (behind `from`), or `most_ms` have gone by; NULL then. */
const char *talk_until(struct talk *t, const char *from, const char *text, int most_ms);

#endif
