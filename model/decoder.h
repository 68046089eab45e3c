/*
 * model/decoder.h - the one stack of decoder layers behind Thinker, Talker, code predictor and
 * Code2Wav's transformer: weights are shared and constant, a `struct decoder` is one sequence.
 *
 * Threads: one owner. Source: MODEL.md, Decoder layer.
 */
#ifndef PARLEY_MODEL_DECODER_H
#define PARLEY_MODEL_DECODER_H

#include "model/model.h"

struct decoder;

struct decoder_opts {
    const struct decoder_weights *weights;
    struct device *device;
    int max_positions; /* rows of the KV cache; with a sliding window a ring is kept instead */
    int max_rows;      /* most rows in one forward */
    enum dtype kv_type;
};

/* 0 or -ENOMEM (`why` names the bytes). */
int decoder_open(struct decoder **ret, const struct decoder_opts *o, struct problems *why);

/* Runs n rows x[n, hidden] (in place: the residual stream) at the next n positions. When tap >= 0
 * and tap_out is not NULL, the residual at the INPUT of layer `tap` is copied to tap_out[n,
 * hidden], and marked (ops.h). The final norm is not applied. n <= max_rows and there is room: the
 * caller checked. */
void decoder_forward(struct decoder *d, float *x, int n, int tap, float *tap_out);

/* The same in three parts, for a step that is recorded (ops.h): decoder_place before it, once;
 * decoder_run inside; decoder_count behind it, each time that the step was done. */
void decoder_place(struct decoder *d);
void decoder_run(struct decoder *d, float *x, int n, int tap, float *tap_out);
void decoder_count(struct decoder *d, int n);

/* As decoder_run, for a caller who keeps positions himself: the rows go to *pos ..., in device
 * memory; the decoder's own length is not touched. */
void decoder_run_at(struct decoder *d, float *x, int n, const int32_t *pos);

/* Final norm of the decoder. */
struct norm decoder_final(const struct decoder *d);

/* Final norm of rows x into y. */
void decoder_norm(struct decoder *d, float *y, const float *x, int n);

/* Positions in the cache. */
int decoder_length(const struct decoder *d);

/* Forget everything from position `length` on; not further back than a ring remembers. */
void decoder_rewind(struct decoder *d, int length);

/* Bytes of cache and scratch that decoder_open would take. */
size_t decoder_bytes(const struct decoder_opts *o);

void decoder_close(struct decoder *d);

#endif
