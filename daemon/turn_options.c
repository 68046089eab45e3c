/*
 * daemon/turn_options.c - the start of turn taking: options with their defaults, checked and turned
 * into samples; and the names that the event log shows.
 */
#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stddef.h>
#include <string.h>

#include "base/util.h"
#include "daemon/turn.h"

enum { DAY_MS = 86400000 };

struct length {
    const char *name;
    size_t from, to; /* in struct turn_opts, in struct turn_times */
    int standard;
};

#define LENGTH(option, standard)                                                                   \
    {                                                                                              \
#option "_ms", offsetof(struct turn_opts, option##_ms),                                    \
            offsetof(struct turn_times, option), standard                                          \
    }

static const struct length lengths[] = {
    LENGTH(preroll, 300),       LENGTH(min_speech, 200),  LENGTH(speculate, 200),
    LENGTH(end, 600),           LENGTH(end_likely, 300),  LENGTH(silence_max, 2000),
    LENGTH(turn_max, 60000),    LENGTH(confirm, 650),     LENGTH(held_max, 2000),
    LENGTH(grace, 150),         LENGTH(settle, 1500),     LENGTH(undo, 500),
    LENGTH(slow, 2500),         LENGTH(think_max, 60000), LENGTH(speak_max, 600000),
    LENGTH(device_wait, 10000), LENGTH(follow_up, 8000),  LENGTH(insist, 1500),
};

struct share {
    const char *name;
    size_t from, to; /* in struct turn_opts, in struct turn */
    float standard;
};

#define SHARE(option, standard)                                                                    \
    {                                                                                              \
#option, offsetof(struct turn_opts, option), offsetof(struct turn, option), standard       \
    }

static const struct share shares[] = {
    SHARE(likely, 0.8f),
    SHARE(unlikely, 0.4f),
    SHARE(confirm_probability, 0.6f),
    SHARE(hold_probability, 0.5f),
    SHARE(settle_probability, 0.8f),
};

static int read_lengths(struct turn *t, const struct turn_opts *o, int rate, struct problems *why)
{
    for (size_t i = 0; i < ARRAY_LEN(lengths); i++) {
        const struct length *l = &lengths[i];
        int ms = *(const int *)((const char *)o + l->from);
        if (ms < 0 || ms > DAY_MS)
            return problem_add(why, -EINVAL, "turn taking: %s is %d, expected 0 to %d", l->name, ms,
                               DAY_MS);
        uint64_t samples = (uint64_t)(ms ? ms : l->standard) * (uint64_t)rate / 1000;
        *(uint64_t *)((char *)&t->for_ + l->to) = samples;
    }
    return 0;
}

static int read_shares(struct turn *t, const struct turn_opts *o, struct problems *why)
{
    for (size_t i = 0; i < ARRAY_LEN(shares); i++) {
        const struct share *s = &shares[i];
        float p = *(const float *)((const char *)o + s->from);
        if (!(p >= 0 && p <= 1))
            return problem_add(why, -EINVAL, "turn taking: %s is %g, expected 0 to 1", s->name,
                               (double)p);
        *(float *)((char *)t + s->to) = p > 0 ? p : s->standard;
    }
    return 0;
}

/* A time that is left to its default gives way to one that is set. */
static int check(struct turn *t, const struct turn_opts *o, struct problems *why)
{
    if (o->end_likely_ms == 0 && t->for_.end_likely > t->for_.end)
        t->for_.end_likely = t->for_.end;
    if (o->silence_max_ms == 0 && t->for_.silence_max < t->for_.end)
        t->for_.silence_max = t->for_.end;
    if (t->for_.end_likely > t->for_.end || t->for_.end > t->for_.silence_max)
        return problem_add(why, -EINVAL,
                           "turn taking: expected end_likely_ms <= end_ms <= silence_max_ms");
    if (t->unlikely > t->likely)
        return problem_add(why, -EINVAL, "turn taking: expected unlikely <= likely");
    return 0;
}

int turn_init(struct turn *t, const struct turn_opts *o, uint64_t now, struct problems *why)
{
    static const struct turn_opts standard = {0};
    if (o == NULL)
        o = &standard;
    int rate = o->sample_rate ? o->sample_rate : 16000;
    *t = (struct turn){.now = now, .silent_at = now, .hear_to = now, .voiced_at = now};
    t->insist_until = now;
    t->wake_needed = o->wake_needed;
    t->heard_you = o->heard_you;
    t->lapsed = true; /* there is no conversation yet */
    if (rate < 1000 || rate > 384000)
        return problem_add(why, -EINVAL, "turn taking: sample_rate is %d, expected 1000 to 384000",
                           rate);
    int err = read_lengths(t, o, rate, why);
    if (err == 0)
        err = read_shares(t, o, why);
    return err < 0 ? err : check(t, o, why);
}

static int set_length(int *ms, double value)
{
    if (value != rint(value) || fabs(value) > INT_MAX)
        return -EINVAL;
    *ms = (int)value;
    return 0;
}

int turn_option_set(struct turn_opts *o, const char *name, double value)
{
    for (size_t i = 0; i < ARRAY_LEN(lengths); i++)
        if (strcmp(lengths[i].name, name) == 0)
            return set_length((int *)((char *)o + lengths[i].from), value);
    for (size_t i = 0; i < ARRAY_LEN(shares); i++) {
        if (strcmp(shares[i].name, name) != 0)
            continue;
        *(float *)((char *)o + shares[i].from) = (float)value;
        return isfinite(value) ? 0 : -EINVAL;
    }
    if (strcmp(name, "wake_needed") == 0)
        o->wake_needed = value != 0;
    else if (strcmp(name, "heard_you") == 0)
        o->heard_you = value != 0;
    else
        return -ENOENT;
    return value == 0 || value == 1 ? 0 : -EINVAL;
}

/* The order of the enums in turn.h. */
static const char *const states[] = {"idle", "listening", "thinking", "speaking", "held", "muted"};

static const char *const events[] = {
    "tick",         "speech_onset", "speech_end",   "end_likely", "answer_ready", "answer_empty",
    "answer_ended", "not_speech",   "barge_in",     "wake",       "stop",         "mute",
    "unmute",       "release",      "mic_lost",     "mic_back",   "speaker_lost", "speaker_back",
    "overflow",     "model_failed", "context_full", "asked",
};

static const char *const actions[] = {
    "mic_close", "hold",   "drop", "truncate", "roll_back", "forget",   "compact", "hear",
    "hear_end",  "commit", "play", "resume",   "earcon",    "mic_open", "lapse",
};

static const char *const earcons[] = {
    "none", "awake", "wait",  "empty",   "cut",   "repeat", "failed", "full",
    "lost", "back",  "muted", "unmuted", "ready", "record", "heard",  "offline",
};

_Static_assert(ARRAY_LEN(states) == TURN_STATES, "a state has no name");
_Static_assert(ARRAY_LEN(events) == TURN_EVENTS, "an event has no name");
_Static_assert(ARRAY_LEN(actions) == TURN_ACTIONS, "an action has no name");
_Static_assert(ARRAY_LEN(earcons) == TURN_EARCONS, "an earcon has no name");

const char *turn_state_name(enum turn_state s)
{
    return (unsigned)s < TURN_STATES ? states[s] : "?";
}

const char *turn_event_name(enum turn_event_kind k)
{
    return (unsigned)k < TURN_EVENTS ? events[k] : "?";
}

const char *turn_action_name(unsigned bit)
{
    return bit < TURN_ACTIONS ? actions[bit] : "?";
}

const char *turn_earcon_name(enum turn_earcon e)
{
    return (unsigned)e < TURN_EARCONS ? earcons[e] : "?";
}
