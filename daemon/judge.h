/*
 * daemon/judge.h - is it a person who speaks while we do, or our own echo?
 *
 * What the echo canceller leaves of our voice may still sound like speech to the voice detector,
 * because it is. The ear measures in each period how likely the microphone holds more than our own
 * echo. While the loudspeaker sounds, speech counts only with that, though less of it is asked for
 * the surer the detector is; while it is silent, the detector is believed. Two witnesses of which
 * neither waits for the other: the first sign of both is known some 90 ms after a person begins.
 *
 * Who has held the reply for nothing a few times becomes wary: in a room where the canceller does
 * badly the reply goes on for a little before it is held, instead of stumbling at every word.
 *
 * Threads: one owner.
 */
#ifndef PARLEY_DAEMON_JUDGE_H
#define PARLEY_DAEMON_JUDGE_H

#include <stdbool.h>
#include <stdint.h>

#include "audio/ear.h"
#include "vad/vad.h"

struct judge {
    bool open;      /* what is heard can be a person */
    int near_for;   /* periods for which somebody is believed to go on, while we sound */
    int run;        /* periods in a row with somebody near, short gaps allowed */
    int gap;        /* periods of the gap at hand */
    int doubts;     /* the reply was held for nothing so often lately */
    int calm_for;   /* periods until one of them is forgotten */
    bool voice;     /* the detector is between a start and an end ... */
    uint64_t since; /* ... and the start was at this sample */
    bool speech;    /* both */
};

/* What changes: speech begins, ends, or (VAD_NONE) neither, `age` samples ago. */
struct verdict {
    enum vad_kind kind;
    uint32_t age;
};

void judge_open(struct judge *j);

/* The frame of the period that ends at sample `at`, before the detector's news of it; probability
 * is the detector's last. */
struct verdict judge_near(struct judge *j, const struct ear_frame *frame, float probability,
                          uint64_t at);

/* The detector has found a start or an end `age` samples before `at`. */
struct verdict judge_voice(struct judge *j, enum vad_kind kind, uint32_t age, uint64_t at);

/* The reply was held, and it was nothing; it was held, and somebody spoke. */
void judge_doubted(struct judge *j);
void judge_confirmed(struct judge *j);

/* The detector's probability, if a person can be meant by it just now: what is left of our own echo
 * after the reply was held does not count as speech. */
float judge_probability(const struct judge *j, float probability);

#endif
