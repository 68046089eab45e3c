/*
 * daemon/turn.h - who has the floor: turn taking as a pure table.
 *
 *     (state, event, sample time) -> (state, actions)
 *
 * No sound, no model, no clock and no memory is touched here; the same events give the same actions
 * always, so that a recorded conversation can be replayed. The caller (one thread, one queue)
 * brings events in order and does what the actions say.
 *
 * A turn of the person has two horizons. After a short silence (speculate_ms) the hearing is ended
 * and an answer begun that nobody hears; at the end of the turn (end_ms) it is committed and sounds
 * at once. If the person goes on before, it is rolled back and the same turn is heard further.
 * A reply that is interrupted is first held, then either dropped (it was speech) or resumed (it was
 * a cough, "mhm", or our own echo).
 *
 * Two rules that may surprise. Who mutes the microphone wants peace: a device that cannot be
 * interrupted by voice does not talk, so a reply is dropped. A reply of which next to nothing was
 * heard (undo_ms) and that the person talks over was a false end of turn: it is rolled back too.
 * Push-to-talk is UNMUTE, WAKE and, when the key comes up, RELEASE: the microphone closes and what
 * was said is answered. Until that answer is over the state is not yet MUTED, but `closed` is set.
 *
 * Time is the microphone's sample count, 64 bits, allowed to wrap; every deadline is looked at on
 * TURN_TICK, which the caller sends at least once a period, after the other events of that period.
 *
 * Threads: one owner.
 */
#ifndef PARLEY_DAEMON_TURN_H
#define PARLEY_DAEMON_TURN_H

#include <stdbool.h>
#include <stdint.h>

#include "base/problem.h"

enum turn_state {
    TURN_IDLE,      /* nobody has the floor */
    TURN_LISTENING, /* the person has it: speaking, or in a pause of the turn */
    TURN_THINKING,  /* the turn is over, the answer has no sound yet */
    TURN_SPEAKING,  /* the reply is playing */
    TURN_HELD,      /* the reply waits: is that speech? is the speaker back? */
    TURN_MUTED,     /* microphone closed, nothing sounds, nothing will */
    TURN_STATES
};

enum turn_event_kind {
    TURN_TICK,         /* `probability` of speech in the period that ends at `at` */
    TURN_SPEECH_ONSET, /* voice activity began `age` samples ago, with `probability` */
    TURN_SPEECH_END,   /* ... and ended `age` samples ago */
    TURN_END_LIKELY,   /* a detector of meaning: the turn is over with `probability` */
    TURN_ANSWER_READY, /* the first sound of `answer` is there */
    TURN_ANSWER_EMPTY, /* `answer` has nothing to say */
    TURN_ANSWER_ENDED, /* the last sample of `answer` left the DAC `age` samples ago */
    TURN_NOT_SPEECH,   /* a judge: this was a cough, a backchannel, echo */
    TURN_BARGE_IN,     /* a judge: this is somebody who wants the floor */
    TURN_WAKE,         /* attention asked for: wake word, button, control */
    TURN_STOP,         /* control: silence, now */
    TURN_MUTE,
    TURN_UNMUTE,
    TURN_RELEASE, /* of the talk key: muted again, and what was said until now is the turn */
    TURN_MIC_LOST,
    TURN_MIC_BACK,
    TURN_SPEAKER_LOST,
    TURN_SPEAKER_BACK,
    TURN_OVERFLOW,     /* so much of the sound of `turn` was lost that it cannot be trusted */
    TURN_MODEL_FAILED, /* hearing or answering `turn` failed */
    TURN_CONTEXT_FULL, /* no room for `turn` in the model's context */
    TURN_ASKED,        /* control: a written turn, or words to be said; it has the floor at once */
    TURN_EVENTS
};

struct turn_event {
    enum turn_event_kind kind;
    uint64_t at;       /* sample time; never backwards (an earlier one is taken for the last) */
    uint32_t age;      /* so many samples before `at` it happened */
    float probability; /* [0, 1] */
    uint32_t turn;   /* of OVERFLOW, MODEL_FAILED, CONTEXT_FULL: as the actions said; others ... */
    uint32_t answer; /* ... are stale and ignored. Of ANSWER_*: likewise; of END_LIKELY: the one
                        that was begun at this silence, 0 = not said */
};

/* To be done in this order, lowest bit first. */
enum turn_action {
    TURN_DO_MIC_CLOSE = 1 << 0,
    TURN_DO_HOLD = 1 << 1,      /* silence within one period and a 5 ms fade; keep the rest */
    TURN_DO_DROP = 1 << 2,      /* stop making the answer, throw away its sound, the same fade */
    TURN_DO_TRUNCATE = 1 << 3,  /* memory keeps of the answer what was heard, perhaps nothing */
    TURN_DO_ROLL_BACK = 1 << 4, /* no answer was begun; hearing goes on from `hear_from` */
    TURN_DO_FORGET = 1 << 5,    /* the whole turn never was */
    TURN_DO_COMPACT = 1 << 6,   /* forget the oldest turns, then go on with what did not fit */
    TURN_DO_HEAR = 1 << 7,      /* a new `turn`: hear everything from `hear_from` on (after ASKED:
                                   what is written) */
    TURN_DO_HEAR_END = 1 << 8,  /* hear up to `hear_to`, no further; begin `answer`, unheard */
    TURN_DO_COMMIT = 1 << 9,    /* the answer is meant */
    TURN_DO_PLAY = 1 << 10,     /* its sound starts */
    TURN_DO_RESUME = 1 << 11,   /* its sound goes on where it was held */
    TURN_DO_EARCON = 1 << 12,   /* play or show `earcon` */
    TURN_DO_MIC_OPEN = 1 << 13,
    TURN_DO_LAPSE = 1 << 14, /* the follow-up window is over */
};
#define TURN_ACTIONS 15

enum turn_earcon {
    TURN_EARCON_NONE,
    TURN_EARCON_AWAKE,   /* somebody asked for attention and has it */
    TURN_EARCON_WAIT,    /* the answer takes long */
    TURN_EARCON_EMPTY,   /* there is no answer */
    TURN_EARCON_CUT,     /* the turn was too long; what was heard is answered */
    TURN_EARCON_REPEAT,  /* not heard in full, please say it again */
    TURN_EARCON_FAILED,  /* the model failed or took too long */
    TURN_EARCON_FULL,    /* the turn does not fit into the context */
    TURN_EARCON_LOST,    /* microphone or speaker went away */
    TURN_EARCON_BACK,    /* ... and came back */
    TURN_EARCON_MUTED,   /* microphone off */
    TURN_EARCON_UNMUTED, /* microphone on */
    TURN_EARCON_READY,   /* the service has started and listens */
    TURN_EARCON_RECORD,  /* a recording begins, or ends */
    TURN_EARCON_HEARD,   /* a spoken turn was taken, its answer is on the way; if `heard_you` */
    TURN_EARCON_OFFLINE, /* READY, and no network is needed: at an installation's first start */
    TURN_EARCONS
};

struct turn_actions {
    uint32_t set;             /* of TURN_DO_* */
    enum turn_earcon earcon;  /* with EARCON */
    uint64_t hear_from;       /* with HEAR, ROLL_BACK: the first sample to be heard; at most ...
                                 ... preroll_ms + 2 * held_max_ms ago, so much is to be kept */
    uint64_t hear_to;         /* with HEAR_END: the first sample that is not heard */
    uint32_t turn, answer;    /* numbers of the current ones, for tagging work and its events */
    enum turn_state was, now; /* the state before and after */
};

/* Zero means default. A time of 1 ms is as good as none. */
struct turn_opts {
    int sample_rate;           /* of all times in events; 16000 */
    int preroll_ms;            /* heard before the onset; 300 */
    int min_speech_ms;         /* less speech is no turn; 200 */
    int speculate_ms;          /* silence after which an answer is begun; 200 */
    int end_ms;                /* silence that ends the turn; 600 */
    int end_likely_ms;         /* ... when the detector of meaning finds it finished; 300 */
    int silence_max_ms;        /* ... when it finds it unfinished: the longest silence; 2000 */
    float likely;              /* its probability for "finished"; 0.8 */
    float unlikely;            /* its probability for "unfinished"; 0.4 */
    int turn_max_ms;           /* the longest turn; 60000 */
    int confirm_ms;            /* so much speech during a reply is meant to interrupt it; 650 */
    int insist_ms;             /* after less than that half of it is enough for so long; 1500 */
    float confirm_probability; /* a period counts as speech from here on; 0.6 */
    float hold_probability;    /* a reply is held from here on; 0.5 */
    int held_max_ms;           /* doubt that lasts longer was none; 2000 */
    int grace_ms;              /* of own sound, before which it is not held; 150 */
    int settle_ms;             /* of own sound until the echo canceller can be trusted; 1500 */
    float settle_probability;  /* a reply is held from here on until then; 0.8 */
    int undo_ms;               /* a reply cut off so early is rolled back; 500 */
    int slow_ms;               /* thinking time between two earcons; 2500 */
    int think_max_ms;          /* longest thinking; 60000 */
    int speak_max_ms;          /* longest reply; 600000 */
    int device_wait_ms;        /* a reply waits so long for a lost speaker; 10000 */
    int follow_up_ms;          /* from the real end of playback: the conversation is open; 8000 */
    bool wake_needed;          /* speech outside of it is not meant for us, until TURN_WAKE */
    bool heard_you;            /* an earcon when a spoken turn is committed and has no sound yet */
};

/* All of it belongs to turn.c; it stands here so that it needs no allocation. */
struct turn {
    enum turn_state state;
    struct turn_times {
        uint64_t preroll, min_speech, speculate, end, end_likely, silence_max, turn_max, confirm,
            insist, held_max, grace, settle, undo, slow, think_max, speak_max, device_wait,
            follow_up;
    } for_; /* lengths in samples */
    float likely, unlikely, confirm_probability, hold_probability, settle_probability;
    bool wake_needed, heard_you;
    uint64_t now; /* of the last event */

    /* The voice at the microphone, whoever has the floor. */
    bool mic_lost, speaker_lost;
    bool closed;        /* the microphone, by MUTE or RELEASE */
    bool speech;        /* between onset and end */
    bool deaf;          /* this stretch of speech has been judged; it interrupts nothing */
    bool cut;           /* the microphone was lost in mid-speech */
    uint64_t onset_at;  /* of this stretch */
    uint64_t silent_at; /* end of the last one */
    uint64_t voiced;    /* samples of this stretch that count as speech */
    uint64_t voiced_at; /* ... counted up to here */

    /* The person's turn. */
    uint32_t turn;      /* its number */
    uint64_t turn_at;   /* its onset, moved by what was not heard of it */
    uint64_t spoken;    /* length of its finished stretches of speech */
    unsigned stretches; /* of speech, 2 = several */
    uint64_t pause;     /* silence that ends it, as things look */
    uint64_t hear_to;   /* heard up to here */
    bool forced;        /* ended by turn_max, RELEASE, ASKED: no way back */
    bool compacted;     /* room was made for it once */

    /* The answer. */
    uint32_t answer;    /* its number */
    bool answering;     /* begun */
    bool ready, empty;  /* what is known of it */
    bool played;        /* PLAY was given */
    uint64_t think_at;  /* committed */
    uint64_t slow_at;   /* ... or the last earcon since */
    uint64_t spoke_at;  /* PLAY was given */
    uint64_t hold_from; /* not held before */
    float hold_bar;     /* not held below */
    uint64_t own;       /* own sound since the canceller started, up to for_.settle */
    bool doubt;         /* HELD: is it speech? */
    uint64_t held_at, doubt_at, insist_until;
    bool compact_due; /* the context was full; room is made after the reply */

    /* The conversation. */
    bool lapsed;
    uint64_t awake_until;
};

/* 0, or -EINVAL with a sentence about the option that makes no sense. `now` is the sample time of
 * the stream's start; nothing before it can be heard. `o` may be NULL. */
int turn_init(struct turn *t, const struct turn_opts *o, uint64_t now, struct problems *why);

/* Sets an option by its name in struct turn_opts, true and false being 1 and 0, for those who read
 * them from a file. -ENOENT for a name that is none; turn_init judges the values, but -EINVAL is
 * for a number that the option cannot hold. */
int turn_option_set(struct turn_opts *o, const char *name, double value);

/* One event; `a` is written in full. 0, or -EINVAL for a kind that does not exist. */
int turn_step(struct turn *t, const struct turn_event *e, struct turn_actions *a);

/* "idle", "speech_onset", "hear_end", "wait": as the event log spells them; "?" outside. The
 * action is a bit number. */
const char *turn_state_name(enum turn_state s);
const char *turn_event_name(enum turn_event_kind k);
const char *turn_action_name(unsigned bit);
const char *turn_earcon_name(enum turn_earcon e);

#endif
