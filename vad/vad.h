/*
 * vad/vad.h - is someone talking, since which sample, until which sample.
 *
 * Sound goes in as it arrives, in pieces of any length (the daemon: 10 ms). A small neural network
 * judges every 512 samples (32 ms); a start or an end of speech comes out at the sample where it
 * became known, with the sample where it really happened:
 *
 *     while (n > 0) {
 *         size_t used = vad_feed(v, pcm, n, &event);
 *         if (event.kind == VAD_START) ...
 *         pcm += used, n -= used;
 *     }
 *
 * The result does not depend on how the sound was cut into pieces. Time is counted in samples at
 * 16 kHz from the start (or from what vad_reset was told); no clock is ever read.
 *
 * Threads: one owner (the hear thread). vad_feed neither allocates, locks, logs nor blocks; about
 * 0.1 ms of one core for every 32 ms of sound.
 * Network, weights and figures: vad/README.md, models/vad/README.md.
 */
#ifndef PARLEY_VAD_VAD_H
#define PARLEY_VAD_VAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/problem.h"

enum { VAD_RATE = 16000, VAD_CHUNK = 512 }; /* Hz; samples the network judges at once */

struct vad;

/* Zero means the default. Durations below one chunk (32 ms) act as one chunk. */
struct vad_opts {
    const char *path;     /* the weights, models/vad/silero.bin */
    float threshold_on;   /* speech starts at this probability; 0.5 */
    float threshold_off;  /* ... and goes on down to this one; 0.7 * threshold_on */
    float threshold_rise; /* chunks before the start with at least this belong to it; 0.15 */
    int min_speech_ms;    /* probable speech without a gap before a start is told; 32 */
    int hang_ms;          /* silence before an end is told; 200 */
    int pre_roll_ms;      /* kept before the onset, so that no first phoneme is lost; 200 */
};

enum vad_kind { VAD_NONE, VAD_START, VAD_END };

struct vad_event {
    enum vad_kind kind;
    int64_t from;  /* first sample to keep: onset less pre-roll; never before an earlier end */
    int64_t at;    /* START: the onset. END: where the last voiced chunk ended */
    int64_t known; /* samples fed when it became known: at < known */
};

/* How things stand after the samples fed so far. */
struct vad_now {
    int64_t position;  /* samples fed */
    float probability; /* of speech in the newest whole chunk; 0 before the first */
    bool speech;       /* between a START and its END */
    int64_t voiced;    /* samples in voiced chunks of this speech; 0 in silence */
    int64_t quiet;     /* samples since the last voiced chunk of this speech; 0 in silence */
    uint64_t bad;      /* samples that were no number; taken as 0 */
};

int vad_open(struct vad **ret, const struct vad_opts *o, struct problems *why);

/* Takes samples (mono, [-1, 1]) until something happens or all `n` are taken, and returns how many
 * it took: less than `n` only with an event, at least 1. `event` is always written. Louder samples
 * are clipped at +-4. */
size_t vad_feed(struct vad *v, const float *pcm, size_t n, struct vad_event *event);

void vad_now(const struct vad *v, struct vad_now *now);

/* The most samples that `known - from` of a START can be: what the owner has to keep at hand. */
int vad_reach(const struct vad *v);

/* Forgets all sound and speech; the next sample has number `position`. */
void vad_reset(struct vad *v, int64_t position);

void vad_close(struct vad *v); /* NULL is legal */

#endif
