/*
 * daemon/acoustics.h - what a simulated room is made of: impulse responses, noises, levels. All of
 * it depends on its seeds alone.
 *
 * An impulse response is a list of taps (lag, gain) with energy 1: the direct sound and a tail of
 * velvet noise, one pulse of random sign at a random place in each 0.8 ms, under an exponential
 * that falls by 60 dB in rt60 (Karjalainen and Jaervelaeinen, "Reverberation Modeling Using Velvet
 * Noise", 2007). That sounds like dense noise and costs a fiftieth of it.
 *
 * Threads: none of this is shared.
 */
#ifndef PARLEY_DAEMON_ACOUSTICS_H
#define PARLEY_DAEMON_ACOUSTICS_H

#include <stddef.h>
#include <stdint.h>

#include "base/problem.h"
#include "daemon/scenario.h"

struct taps {
    int *lag; /* [n] samples, rising */
    float *gain;
    size_t n;
    int last; /* the greatest lag */
};

/* Direct sound after `delay` samples, a tail of `tail_db` relative to it. 0 or -ENOMEM. */
int taps_make(struct taps *t, int rate, int delay, int rt60_ms, double tail_db, uint64_t seed);

/* The response in a sound file, normalised; what is 60 dB below its peak is left out. */
int taps_read(struct taps *t, int rate, int delay, const char *path, struct problems *why);

/* y[n + t->last] = x[n] through the taps; y is zeroed first. */
void taps_apply(const struct taps *t, const float *x, size_t n, float *y);

void taps_free(struct taps *t);

/* Mean level in dBFS of the loud part of a sound: blocks of 20 ms not 25 dB below the loudest. */
double active_level(const float *pcm, size_t n, int rate);

struct noise {
    enum scenario_noise_kind kind;
    int rate;
    uint64_t state;
    float gain;
    float pink[3];
    double turn[2], wave[2]; /* of the hum: cos and sin of the step, of the phase */
};

/* Noise of `level_db` dBFS (mean). */
void noise_init(struct noise *z, enum scenario_noise_kind kind, double level_db, int rate,
                uint64_t seed);

/* pcm[n] += noise. */
void noise_add(struct noise *z, float *pcm, size_t n);

/* 10^(db / 20) */
double amplitude(double db);

#endif
