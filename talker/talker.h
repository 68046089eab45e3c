/*
 * talker/talker.h - words in, codec frames out: the Talker and its code predictor.
 *
 * One reply:
 *     talker_prompt; then, in any interleaving that keeps each order,
 *     talker_text for every token of the answer, talker_text_end   (as the Thinker produces them)
 *     talker_next until it returns 0                               (as fast as sound is wanted)
 *     talker_stop_reason
 * A frame needs one token of the answer: frame f the token f, the frame after the last token the
 * end-of-text marker, later frames nothing. The Talker never runs ahead of the words: a token that
 * is not there yet is waited for. One look-up table row a word is all that crosses from the Thinker
 * during an answer.
 *
 * The rows of the user's turns stay in the cache from reply to reply.
 *
 * Threads: one owner, who owns the device meanwhile; nothing blocks but arithmetic.
 * Source: MODEL.md, Hand-over; Talker; Code predictor; Sampling.
 */
#ifndef PARLEY_TALKER_TALKER_H
#define PARLEY_TALKER_TALKER_H

#include <stddef.h>
#include <stdint.h>

#include "model/flow.h"
#include "model/model.h"

struct talker;

struct talker_opts {
    const struct model *model; /* loaded, with speech */
    struct device *device;
    const char *speaker; /* any case; NULL = "ethan", or the first one where there is no ethan */
    int32_t newline;     /* id of "\n" in the checkpoint's vocabulary */
    int positions;  /* of the cache: prompt + 9 + frames; 0 = min(8192, what the model allows) */
    int max_frames; /* of one reply; 0 = the checkpoint's talker_max_new_tokens */
    uint64_t seed;  /* the same prompt, words and seed give the same reply */
    const struct sampling *sampling;          /* of code 0, NULL = the checkpoint's settings; ... */
    const struct sampling *residual_sampling; /* ... of the other codes. Seed and suppressed ids
                                                 are set by the talker. Temperature 0 is for parity
                                                 only: the likeliest speech is poor speech. */
};

enum talker_stop {
    TALKER_SPEAKING,   /* not at an end */
    TALKER_END,        /* the Talker said that it is done */
    TALKER_NO_TEXT,    /* there were no words */
    TALKER_MAX_FRAMES, /* max_frames, or the cache is full */
    TALKER_RUNAWAY,    /* the words were over long ago and no end came */
};

/* What talker_open would refuse, known before the weights are there. 0; -EINVAL: the model has no
 * speech, an unknown speaker (those that exist are said), options out of range. */
int talker_check(const struct talker_opts *o, struct problems *why);

/* As talker_check, or -ENOMEM. All device memory is taken here. */
int talker_open(struct talker **ret, const struct talker_opts *o, struct problems *why);

/* Begins a reply to the user's turns in `rows`, forgetting the reply before. Only rows from
 * rows->stable on are computed. May be called early, with more rows following in another call.
 * -ENOSPC when the rows do not leave room for speech. */
int talker_prompt(struct talker *t, const struct prompt_rows *rows, struct problems *why);

/* The next token of the answer (never the stop token). -EINVAL: outside the vocabulary, or after
 * the end; -ENOMEM. */
int talker_text(struct talker *t, int32_t id);

/* No more tokens will come. */
void talker_text_end(struct talker *t);

/* 1 and the next frame; 0 at the end of speech; -EAGAIN: the word that this frame needs is not here
 * yet. Called before the first word, it already computes what does not depend on it. */
int talker_next(struct talker *t, struct codec_frame *frame);

enum talker_stop talker_stop_reason(const struct talker *t);

/* Replaces the codes [groups] of the last frame, on which all that follows builds (teacher forcing;
 * the codes must lie in the codebook). */
void talker_replace(struct talker *t, const int32_t *codes);

/* Copies for dumps and tests, of the step behind the last frame: the normed hidden state [hidden]
 * and the raw logits of code 0 [vocab]. */
void talker_hidden(struct talker *t, float *hidden);
void talker_logits(struct talker *t, float *logits);

/* Bytes of device memory that talker_open takes. */
size_t talker_bytes(const struct talker_opts *o);

void talker_close(struct talker *t); /* NULL is legal */

#endif
