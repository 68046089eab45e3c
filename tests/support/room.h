/*
 * tests/support/room.h - a room for tests: what a microphone hears of a loudspeaker, at 16 kHz. An
 * impulse response of a direct path and exponentially decaying noise, a loudspeaker that
 * saturates, noise at the microphone. The same seed is the same room on every machine.
 */
#ifndef PARLEY_TESTS_ROOM_H
#define PARLEY_TESTS_ROOM_H

#include <stddef.h>
#include <stdint.h>

enum { ROOM_RATE = 16000 };

struct room_opts {
    double rt60;       /* seconds */
    double delay_ms;   /* of the direct path */
    double gain_db;    /* energy of the response */
    double direct_db;  /* of the direct path over the reverberation; 0 = as much */
    double saturation; /* 0 = none; else the level at which tanh bends */
    double noise_dbfs; /* 0 = none */
    uint32_t seed;
};

struct room;

int room_open(struct room **ret, const struct room_opts *o);

/* mic[n] of what far[n] sounds like; called with consecutive pieces. */
void room_hear(struct room *r, const float *far, float *mic, size_t n);

void room_close(struct room *r);

/* A mono 16-bit WAV at 16 kHz; the caller frees. */
int room_read(float **pcm, size_t *n, const char *path);

#endif
