/*
 * daemon/conversation.h - the conversation: what is heard becomes turns, turns become replies, and
 * the model remembers what was really heard of them.
 *
 * Two sides that never wait for each other, joined by rings:
 *
 *   floor   conversation_period, every 10 ms of microphone: voice activity, the barge-in judge,
 *           turn.c, the player. It alone decides who has the floor, and writes the event log.
 *   work    conversation_work: one small piece of model work (some sound encoded, one word, one
 *           frame of speech) and back, so that a dropped answer stops at once. It alone touches the
 *           session.
 *
 * Live, each side has a thread (daemon/live.c). In replay one thread calls both in virtual time
 * (daemon/replay.c). What crosses carries turn and answer numbers; stale records are dropped.
 *
 * What is remembered: for each turn its sound, and of its answer the tokens that were heard. When
 * the context fills, the oldest turns go, and those that stay are fed again from their sound and
 * tokens: the conversation stands then as if it had begun with them. (Keys and values computed
 * behind turns that are gone would be of other positions, and of rows that saw what is forgotten.)
 *
 * Time is the microphone's sample count at 16 kHz; no clock is read here.
 *
 * The log: a line for each step of turn taking (event_log.h), and
 *   word    {answer, text | bytes}        a piece of the answer, as the Thinker says it
 *   said    {answer, tokens, sound_ms, stop, text?}   the answer is complete; why it ended
 *   memory  {turn, answer, heard_ms, tokens, of, text?}   what is kept of an answer that is over
 *   forgot  {turns, left, context, asked?}  turns that had to go; positions in use now; asked true:
 *                                         by conversation_forget, behind everything said before
 *   failed  {turn, why}
 *   waits   {answer}                      it ran dry: the model is slower than speech
 */
#ifndef PARLEY_DAEMON_CONVERSATION_H
#define PARLEY_DAEMON_CONVERSATION_H

#include <stdbool.h>
#include <stdint.h>

#include "audio/ear.h"
#include "audio/player.h"
#include "base/problem.h"
#include "daemon/event_log.h"
#include "daemon/session.h"
#include "daemon/turn.h"

struct conversation;

/* Everything that happens, for the log (floor's thread). `line` ends in "\n". */
typedef void conversation_log(void *ctx, const char *line, size_t n);

struct conversation_opts {
    struct session *session; /* open, with speech; borrowed */
    struct player *player;   /* borrowed */
    int rate;                /* of the player's device; 0 = 48000 */
    const char *vad;         /* the detector's weights, models/vad/silero.bin */
    const char *system;      /* system text, NULL = none */
    const struct turn_opts *turn;
    bool tell_cut;         /* the model is told where it was interrupted */
    bool texts;            /* the log holds what was said (else only lengths) */
    int max_tokens;        /* of one reply, 0 = 256 */
    uint64_t start;        /* number of the first sample of the microphone */
    conversation_log *log; /* NULL = none */
    void *ctx;
};

int conversation_open(struct conversation **ret, const struct conversation_opts *o,
                      struct problems *why);

/* Floor: 10 ms of microphone. `play_delay` are samples (at the player's rate) that the device
 * holds. Returns a set of CONVERSATION_*. */
enum { CONVERSATION_MIC_CLOSE = 1, CONVERSATION_MIC_OPEN = 2 };
int conversation_period(struct conversation *c, const struct ear_frame *frame, uint64_t play_delay);

/* Floor: mute, unmute, stop, wake, devices lost and back, overflow; takes effect in the next
 * period. */
void conversation_event(struct conversation *c, enum turn_event_kind kind);

/* Floor: a written turn of the person's, or words to be said as they stand; whatever is going on
 * is over. Answered aloud, and remembered, like any other turn. -EBUSY: one is waiting for the next
 * period already; -EINVAL: empty, or no UTF-8; -ENOMEM. Nothing happens while muted. */
int conversation_ask(struct conversation *c, const char *text);
int conversation_say(struct conversation *c, const char *text);

/* Floor: stops, and forgets everything but the system text. */
void conversation_forget(struct conversation *c);

/* Floor: one of the short sounds, over whatever plays. */
void conversation_earcon(struct conversation *c, enum turn_earcon e);

/* Work: what conversation_work would do now, were it called; changes nothing. */
int conversation_next(struct conversation *c);

/* Work: does one piece; what it was, WORK_NONE when there is nothing to do. Negative errno: the
 * session is broken for good (`why` says). */
enum conversation_work {
    WORK_NONE,
    WORK_HEAR,   /* 100 ms of sound: encoded and prefilled when a chunk, a window is full */
    WORK_PROMPT, /* the end of the sound encoded; or the rest of the prompt, an answer begun */
    WORK_WORD,   /* one token of the Thinker */
    WORK_FRAME,  /* one frame of speech */
    WORK_MEMORY, /* the floor's orders obeyed (turns opened, rewound, closed), or a piece of an
                    earlier turn fed again */
    WORK_KINDS
};
int conversation_work(struct conversation *c, struct problems *why);

/* Work: what the piece just done took: of a clock when live, of the scenario in replay. A reply
 * that the model makes slower than it is spoken is not played before enough of it is there. */
void conversation_cost(struct conversation *c, double seconds);

/* Work: sleeps until there may be something to do, or a second of periods has gone by (live);
 * conversation_wake ends the sleep. */
void conversation_wait(struct conversation *c);
void conversation_wake(struct conversation *c);

/* How things stand, for meters and status; any thread. */
struct conversation_now {
    enum turn_state state;
    uint64_t at;      /* samples */
    float speech;     /* probability */
    float level, far; /* dBFS */
    uint32_t turns, replies, interrupted, resumed, failed;
    int answer_ms; /* from the end of the last turn's speech to its answer's first sound; -1: there
                      was none, or it was written */
    int stop_ms;   /* from the onset of the last interruption to silence, -1 */
    int context_used, context;
    float rate; /* seconds of work for a second of speech; 0 = not known */
};
void conversation_now(const struct conversation *c, struct conversation_now *now);

void conversation_close(struct conversation *c); /* NULL is legal; both sides have ended */

#endif
