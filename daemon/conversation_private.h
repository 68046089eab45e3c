/*
 * daemon/conversation_private.h - the two sides of a conversation and what crosses between them.
 *
 *   floor --> work    orders, sound     (conversation_floor.c writes, conversation_work.c reads)
 *   work --> floor    reports
 *
 * An order carries the position in the ring of sound up to which sound belongs to what was before
 * it, so that both rings together are one line.
 */
#ifndef PARLEY_DAEMON_CONVERSATION_PRIVATE_H
#define PARLEY_DAEMON_CONVERSATION_PRIVATE_H

#include <semaphore.h>
#include <stdatomic.h>

#include "base/ring.h"
#include "daemon/conversation.h"
#include "daemon/earcon.h"
#include "daemon/heard.h"
#include "daemon/judge.h"
#include "daemon/reply.h"
#include "vad/vad.h"

enum {
    SPEECH_RATE = 24000, /* of replies */
    FRAME_MOST = 1920,   /* samples of speech in one frame */
    EVENTS_MOST = 64,    /* told by the owner in one period */
    REPORT_TEXT = 1000,
};

/* -- What crosses ----------------------------------------------------------------------------- */

enum order_kind {
    ORDER_HEAR,      /* a new turn; the one before is over */
    ORDER_HEAR_END,  /* of the turn; begin an answer */
    ORDER_ROLL_BACK, /* there was no end and no answer */
    ORDER_TRUNCATE,  /* of the answer `heard` samples were heard */
    ORDER_CLOSE,     /* the answer was heard to its end, or was empty */
    ORDER_FORGET,    /* there was no turn */
    ORDER_COMPACT,   /* the oldest turns go */
    ORDER_CLEAR,     /* all turns go */
};

struct order {
    enum order_kind kind;
    uint32_t turn, answer;
    uint64_t sound; /* position in the ring of sound */
    uint64_t heard; /* samples at SPEECH_RATE */
    char *text;     /* of a written HEAR, NULL: it is spoken; the receiver's from now on */
    bool say;       /* not the person's words but ours */
};

enum report_kind {
    REPORT_LIKELY, /* probability: of the turn being over */
    REPORT_READY,  /* the first sound of the answer is queued, and will last */
    REPORT_EMPTY,  /* nothing to say */
    REPORT_FAILED, /* text: why */
    REPORT_FULL,   /* the context */
    REPORT_WORD,   /* text */
    REPORT_SAID,   /* text: all of it; stop: why it ended; a: tokens, b: samples */
    REPORT_MEMORY, /* text: kept; a: tokens, b: of, c: samples heard */
    REPORT_FORGOT, /* a: turns, b: left, c: positions; asked: by a CLEAR */
};

struct report {
    enum report_kind kind;
    uint32_t turn, answer;
    int64_t a, b, c;
    float probability;
    bool asked;
    const char *stop; /* of constant memory */
    char text[REPORT_TEXT];
};

/* -- Floor ------------------------------------------------------------------------------------ */

struct floor_side {
    struct turn turn;
    struct vad *vad;
    struct judge judge;
    struct earcons earcons;
    uint64_t periods;
    uint64_t start, at; /* samples: of the stream's start, heard so far */

    float *past;        /* [past_size] sound heard, sample n at n modulo past_size */
    uint64_t past_size; /* a power of two */
    bool hearing;       /* sound goes to the work side */
    bool overflowed;    /* some of it found no room */

    bool clear;    /* everything is to be forgotten */
    char *written; /* the turn that is asked for, until it is sent */
    bool say;
    bool wrote; /* the turn at hand was written */

    enum turn_event_kind events[EVENTS_MOST];
    int n_events;

    uint32_t ending; /* the answer whose last sample was given to the device ... */
    uint64_t end_at; /* ... and leaves it then; */
    bool is_ending;  /* whether there is one */
    uint64_t delay;  /* samples of the player's rate in the device */
    uint64_t starved;

    bool dry; /* the reply ran out of samples in the last period */

    int stop_ms; /* from onset to silence, of the doubt at hand */
    int flags;   /* CONVERSATION_* of this period */
    struct event_line line;
};

/* -- Work ------------------------------------------------------------------------------------- */

/* What is left of a turn that is over. */
struct memory {
    float *pcm; /* [n] at 16 kHz */
    size_t n;
    char *text; /* ... or, if it was written */
    bool say;
    int32_t *ids; /* [n_ids] of the answer, as far as it was heard */
    int n_ids;
    int positions; /* that all this takes */
};

enum phase {
    AT_REST,   /* no turn in the engine */
    OPEN,      /* engine_turn was called, some of the sound was heard */
    HEARD,     /* ... all of it, and ended */
    ANSWERING, /* the reply is being made */
    ANSWERED,  /* it is complete */
};

struct work_side {
    struct session *session;
    struct problems why; /* of the last failure */
    int max_tokens;
    bool tell_cut;
    int system_at; /* length of the sequence behind the system text */
    int reserve;   /* positions that should be free when a turn begins */

    /* As it should be. */
    bool wanted; /* a turn */
    uint32_t turn, answer;
    float *pcm; /* [n] its sound */
    size_t n, cap;
    char *text;     /* ... or what is written of it */
    bool say;       /* ... as words of ours */
    bool ended;     /* no more sound */
    bool answering; /* an answer is wanted */
    bool cut;       /* none is, nor will it be: the turn is to be closed as it is */
    bool stuck;     /* it failed; the floor will say how to go on */

    /* As it is. */
    enum phase phase;
    size_t fed;    /* samples of pcm in the engine */
    int base;      /* length of the sequence before the turn */
    int reply_at;  /* ... and before the answer's first token */
    bool replying; /* reply is open */
    struct reply reply;
    int32_t *ids; /* words to be said, of `reply` */
    float *state; /* [hidden] room for engine_state */
    struct heard heard;
    bool begun;     /* in the player's queue */
    bool announced; /* READY was said */

    /* Turns that are over, oldest first; those from `recall` on are not in the engine again yet. */
    struct memory *past; /* [n_past] */
    size_t n_past, past_cap;
    size_t recall;
    bool recall_open;
    size_t recall_fed;

    /* Seconds of work for a second of speech. */
    enum conversation_work last;
    double cost; /* of the reply in making */
    double rate; /* of replies, 0 = not known */
};

/* -- Both ------------------------------------------------------------------------------------- */

struct conversation {
    struct conversation_opts opts;
    struct player *player;
    struct ring *sound;   /* float, 16 kHz */
    struct ring *orders;  /* struct order */
    struct ring *reports; /* struct report */
    struct floor_side floor;
    struct work_side work;
    sem_t wake;
    bool wake_open;
    _Atomic bool woken, making; /* an answer is in making and may wait for room */
    _Atomic bool crowded;       /* the context should be compacted when there is time */

    /* For onlookers. */
    _Atomic int state, context_used, context, answer_ms, stop_ms;
    _Atomic uint64_t at;
    _Atomic float speech, level, far, rate;
    _Atomic uint32_t turns, replies, interrupted, resumed, failed;
};

/* The player's name for an answer: never 0, in the same order. */
static inline uint32_t player_tag(uint32_t answer)
{
    return 2 * answer + 1;
}

/* conversation_floor.c */
int floor_open(struct conversation *c, const struct conversation_opts *o, struct problems *why);
void floor_close(struct floor_side *f);

/* conversation_log.c: lines of the event log, on the floor's thread. */
void log_turn(struct conversation *c, const struct turn_event *e, const struct turn_actions *a);
void log_report(struct conversation *c, const struct report *r);
void log_waits(struct conversation *c);

/* conversation_work.c */
int work_open(struct conversation *c, const struct conversation_opts *o, struct problems *why);
void work_close(struct work_side *w);
void work_report(struct conversation *c, struct report *r);

/* conversation_memory.c: turns that are over; called by the work side. */
int memory_close_turn(struct conversation *c, uint64_t heard, bool all);
int memory_compact(struct conversation *c);
int memory_clear(struct conversation *c, bool asked);
bool memory_recalling(const struct work_side *w);
int memory_recall(struct conversation *c, struct problems *why);
void memory_free(struct work_side *w);

#endif
