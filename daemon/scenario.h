/*
 * daemon/scenario.h - a conversation to be replayed: who speaks when, in which room, what breaks,
 * and what is to be seen in the event log. tests/replay/README.md describes the file's fields.
 *
 * Reading checks everything: types, ranges, names of events, files that exist; unknown fields are
 * refused. Times are ms since the start, or since the nth line of the event log with a given event
 * or action ("after"), so that "300 ms into the second reply" needs no guessing.
 *
 * Threads: one owner; nothing is changed after scenario_read.
 */
#ifndef PARLEY_DAEMON_SCENARIO_H
#define PARLEY_DAEMON_SCENARIO_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "audio/ear.h"
#include "base/problem.h"
#include "daemon/conversation.h"
#include "daemon/turn.h"

enum { SCENARIO_MS_MAX = 20 * 24 * 3600 * 1000 }; /* as many days as an int of ms holds, or so */

/* A moment. */
struct scenario_when {
    int at_ms;
    const char *after; /* event or action of a log line from which at_ms counts; NULL = the start */
    int nth;           /* the nth such line, from 1 */
};

struct scenario_room {
    int rt60_ms;       /* reverberation time; 250 */
    int delay_ms;      /* from the loudspeaker to the microphone; 5 */
    double echo_db;    /* of the loudspeaker over the voice, at the microphone; 0 */
    double voice_db;   /* dBFS of a voice at the microphone; -26 */
    double saturation; /* amplitude that the loudspeaker approaches; 0 = linear */
    double drift_ppm;  /* by which the loudspeaker's clock is faster than the microphone's */
    int play_delay_ms; /* sound that the loudspeaker's device holds; 20 */
    int seed;
    char *impulse; /* sound file with the response of the echo path instead of a made one */
};

/* A recording that sounds in the room. */
struct scenario_sound {
    struct scenario_when when;
    char *file;
    const char *name; /* as the scenario spells it */
    double level_db;  /* over the level of a voice; 0 */
    int rt60_ms;      /* of its way to the microphone; the room's */
    int repeat_ms;    /* goes round for so long; 0 = once */
    bool as_it_is;    /* its level stays: it was recorded at the microphone */
};

enum scenario_noise_kind { NOISE_WHITE, NOISE_PINK, NOISE_HUM, NOISE_KINDS };

struct scenario_noise {
    enum scenario_noise_kind kind;
    double level_db;    /* dBFS at the microphone */
    int from_ms, to_ms; /* 0 = the end */
};

/* Something happens to a device, to the control side or to the model. */
enum scenario_fault {
    FAULT_TURN,      /* a TURN_* event and what belongs to it */
    FAULT_UNDERRUN,  /* the loudspeaker gets nothing for so long */
    FAULT_NO_NUMBER, /* the microphone gives NaN and infinity */
    FAULT_COST       /* the model gets slower or faster */
};

struct scenario_event {
    struct scenario_when when;
    const char *name;
    enum scenario_fault fault;
    enum turn_event_kind turn; /* of FAULT_TURN */
    int for_ms;                /* of underrun, no_number, overflow */
    double cost[WORK_KINDS];   /* of FAULT_COST: ms for each piece, < 0 = as before */
};

struct scenario {
    char *path;
    json_t *root; /* owns the names */
    const char *about, *system;
    int length_ms;
    struct turn_opts turn;
    bool tell_cut;
    struct scenario_model {
        int max_tokens, max_frames, context, seed; /* 0 = default */
        bool sampled;                              /* by the checkpoint's settings, not greedily */
        const char *speaker;                       /* voice of the replies, NULL = the default */
    } model;
    struct ear_opts ear;
    int wrap_bits, wrap_after_ms; /* counts of samples begin so long before 2^bits; 0 = at 0 */
    struct scenario_room room;
    double cost[WORK_KINDS]; /* ms of a piece of model work */
    struct scenario_sound *sounds;
    struct scenario_noise *noises;
    struct scenario_event *events;
    size_t n_sounds, n_noises, n_events;
    const json_t *expect, *never, *count; /* for expect.h */
};

/* 0 or negative errno and sentences. On failure nothing is left to be freed. */
int scenario_read(struct scenario *s, const char *path, struct problems *why);

void scenario_free(struct scenario *s);

#endif
