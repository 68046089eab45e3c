/*
 * daemon/judge.c - the voice detector and the measure of somebody near, put together; see judge.h.
 */
#include "daemon/judge.h"

#include <math.h>

enum {
    NEAR_PERIODS = 50, /* half a second: pauses between words are no end, nor is our own holding */
    NEAR_DELAY = 10 * EAR_PERIOD, /* samples: so long it takes to notice somebody */
};

/* So many periods in a row somebody must be near, after so many doubts that came to nothing. */
static const int wary[] = {1, 1, 5, 10, 20, 40};

enum {
    DOUBTS_MOST = sizeof(wary) / sizeof(wary[0]) - 1,
    FORGET_PERIODS = 1000, /* 10 s of calm pay for one doubt */
    GAP_PERIODS = 5,
};

#define FAR_SILENT -70.0f /* dBFS; half a second after the last sound there is no echo either */
#define NEAR       0.5f   /* somebody is there from here on, ... */
#define NEAR_EARLY 0.8f   /* ... while the canceller still learns the room */
#define SURE       0.9f   /* a detector surer than this is no surer */

void judge_open(struct judge *j)
{
    *j = (struct judge){.open = true};
}

/* Speech is voice that can be a person's. */
static struct verdict conclude(struct judge *j, uint32_t began, uint32_t ended)
{
    bool speech = j->voice && j->open, was = j->speech;
    j->speech = speech;
    if (speech == was)
        return (struct verdict){.kind = VAD_NONE};
    return speech ? (struct verdict){.kind = VAD_START, .age = began}
                  : (struct verdict){.kind = VAD_END, .age = ended};
}

void judge_doubted(struct judge *j)
{
    j->doubts += j->doubts < DOUBTS_MOST;
    j->calm_for = FORGET_PERIODS;
}

void judge_confirmed(struct judge *j)
{
    j->doubts -= j->doubts > 0;
}

/* How likely somebody has to be near, for a detector so sure: what little our echo leaves sounds
 * seldom as much like speech as a person. */
static float bar(const struct ear_frame *f, float probability)
{
    if (!f->settled)
        return NEAR_EARLY;
    float sure = fminf(probability, SURE) - 0.5f;
    return NEAR - fmaxf(sure, 0.0f);
}

/* Whether somebody has been near for as long as is asked for. */
static bool is_near(struct judge *j, const struct ear_frame *f, float probability)
{
    bool near = f->near >= bar(f, probability);
    j->gap = near ? 0 : j->gap + 1;
    j->run = near || (j->run > 0 && j->gap <= GAP_PERIODS) ? j->run + 1 : 0;
    if (j->doubts > 0 && --j->calm_for == 0) {
        j->doubts--;
        j->calm_for = FORGET_PERIODS;
    }
    return near && j->run >= wary[j->doubts];
}

struct verdict judge_near(struct judge *j, const struct ear_frame *f, float probability,
                          uint64_t at)
{
    uint64_t voice = at - j->since;
    if (f->far < FAR_SILENT) {
        j->near_for = j->run = j->gap = 0;
        j->open = true;
    } else {
        if (is_near(j, f, probability))
            j->near_for = NEAR_PERIODS;
        else if (j->near_for > 0)
            j->near_for--;
        j->open = j->near_for > 0;
    }
    return conclude(j, (uint32_t)(voice < NEAR_DELAY ? voice : NEAR_DELAY),
                    NEAR_PERIODS * EAR_PERIOD);
}

struct verdict judge_voice(struct judge *j, enum vad_kind kind, uint32_t age, uint64_t at)
{
    j->voice = kind == VAD_START;
    if (j->voice)
        j->since = at - age;
    return conclude(j, age, age);
}

float judge_probability(const struct judge *j, float probability)
{
    return j->open && j->gap <= GAP_PERIODS ? probability : 0.0f;
}
