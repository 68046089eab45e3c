/*
 * daemon/measure.h - the figures of `parley bench`: what is measured, and the measuring of it.
 *
 * Private to bench.c and measure.c.
 */
#ifndef PARLEY_DAEMON_MEASURE_H
#define PARLEY_DAEMON_MEASURE_H

#include <stdbool.h>
#include <stddef.h>

#include "daemon/session.h"

#define RUNS_MAX 101

enum figure_id {
    HEAR_MS,
    ENCODER_MS,
    FIRST_TOKEN_MS,
    THINKER_TOK_S,
    FLOOR_SHARE,
    LONG_TOK_S,
    FRAME_MS,
    CODE2WAV_MS,
    RTF,
    BESIDE_RTF,
    BESIDE_LATE_MS,
    BESIDE_TOK_S,
    FIRST_SOUND_MS,
    READ_GB_S,
    FIGURES
};

struct figure {
    const char *name, *unit;
    double *value; /* [n] */
    size_t n, cap;
};

struct bench {
    struct session_opts session;
    double seconds;   /* of the question */
    int runs, frames; /* frames of speech in a run */
    int long_context; /* positions at which decoding is measured too; 0 = not */
    bool json, help;
    float *question;
    size_t samples;
    int base;         /* positions of the system text, which stays in the cache */
    size_t anonymous; /* largest seen, bytes */
    void *read_buffer;
    size_t read_bytes;
    bool read_resident; /* the read buffer is touched: memory is no longer the model's alone */
    double open_s;      /* from nothing to a session that can answer */
    struct plan_device {
        size_t total, used, planned; /* of a device's own memory: bytes in all, taken by anybody,
                                        weights and caches of the session */
    } device;
    struct figure figure[FIGURES];
};

/* Bytes of weights that one decoded token reads. */
size_t token_bytes(const struct model *m);

/* The median; sorts the values. */
double figure_median(struct figure *f);

/* All figures: one run that does not count, then b->runs. 0 or negative errno. */
int measure_all(struct bench *b, struct session *s, struct problems *why);

#endif
