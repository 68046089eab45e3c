/*
 * daemon/session.h - a model with its device, tokenizer and stages, opened the way every command
 * wants it: plan first, then load with progress, then caches.
 */
#ifndef PARLEY_DAEMON_SESSION_H
#define PARLEY_DAEMON_SESSION_H

#include <stdbool.h>
#include <stdio.h>

#include "base/problem.h"
#include "code2wav/code2wav.h"
#include "daemon/end_of_turn.h"
#include "engine/engine.h"
#include "kernels/ops.h"
#include "model/model.h"
#include "model/tokenizer.h"
#include "talker/talker.h"

struct session_opts {
    const char *dir;       /* checkpoint directory, or NULL and: */
    const char *synthetic; /* config.json of a random model; it has no tokenizer */
    enum dtype synthetic_type;
    const char *device; /* as device_open */
    int threads;
    int hang_ms;         /* as device_opts */
    int context;         /* positions, 0 = the engine's default */
    int max_frames;      /* speech frames of one answer, 0 = the checkpoint's */
    const char *speaker; /* NULL = the default */
    bool text_only;
    bool greedy;
    float temperature; /* < 0 = the checkpoint's */
    uint64_t seed;
    bool paging;  /* weights that do not fit may be read from disk as they are used */
    FILE *report; /* plan and progress; NULL = quiet */
    /* Told between pieces of weights, in bytes; false = load no more (-ECANCELED). NULL = nobody.
     */
    bool (*loading)(void *ctx, size_t done, size_t total);
    void *loading_ctx;
};

struct session {
    struct device *dev;    /* of the engine */
    struct device *speech; /* of Talker and Code2Wav: on a GPU a handle of its own, whose work goes
                              first; else `dev` */
    struct model *model;
    struct tokenizer *tokenizer;
    struct engine *engine;
    struct talker *talker;           /* NULL in text-only mode */
    struct code2wav *code2wav;       /* likewise */
    struct end_of_turn *end_of_turn; /* NULL where the model brings none */
    char *not_gpu;                   /* with "auto" on the CPU: why, a sentence; else NULL */
    double load_s;
    size_t load_anonymous; /* the most anonymous memory seen while loading, in bytes */
    size_t planned;        /* bytes of weights, caches and buffers by the plan */
};

/* The part of session_open that reads no weights: device, every header with name and shape,
 * tokenizer, detector. 0, or negative errno and everything that is wrong; what could be opened is
 * there until session_close all the same. */
int session_look(struct session *s, const struct session_opts *o, struct problems *why);

/* Caches and buffers of all stages by these options, in bytes; with a model. */
size_t session_cache_bytes(const struct session *s, const struct session_opts *o);

/* 0 or negative errno and sentences. On failure nothing is left open. */
int session_open(struct session *s, const struct session_opts *o, struct problems *why);

/* The vocabulary belongs to the model: no id beyond its embedding, the control tokens where its
 * config.json says. 0, or -EINVAL and a sentence for each that differs. */
int session_check_tokenizer(const struct model *m, const struct tokenizer *t, struct problems *why);

/* As engine_hear; what the Talker can already compute of the question is computed too. */
int session_hear(struct session *s, const float *pcm, size_t n, struct problems *why);

void session_close(struct session *s);

#endif
