/*
 * engine/engine.h - speech and text in, words out: one conversation with the Thinker.
 *
 * Calling order of a turn:
 *     engine_turn; any of (engine_text | engine_hear ... engine_hear_end); engine_answer;
 *     engine_next until it returns 0.
 * Sound is encoded and prefilled while it arrives: each finished 8 s window at once, at the end
 * only the tail (exact: the same numbers as in one shot). The sequence is ChatML always; text from
 * outside can never become a control token. Every position can be returned to with engine_rewind.
 *
 * Errors: 0 or negative errno with one sentence in `why`; -ENOSPC = the context is full. After an
 * error the conversation stands as before the turn if the caller rewinds to its engine_length then.
 * Threads: one owner.
 * Source: MODEL.md, Prompt; Audio encoder; Sampling; Hand-over.
 */
#ifndef PARLEY_ENGINE_ENGINE_H
#define PARLEY_ENGINE_ENGINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/problem.h"
#include "model/flow.h"
#include "model/model.h"
#include "model/tokenizer.h"

struct engine;

struct engine_opts {
    const struct model *model;
    const struct tokenizer *tokenizer; /* NULL for random weights: a byte of text is an id then */
    struct device *device;
    int context;                     /* positions; 0 = min(8192, what the model allows) */
    const struct sampling *sampling; /* NULL = the checkpoint's generation settings */
};

/* What engine_open would refuse, known before the weights are there: 0, or -EINVAL for a context
 * beyond what the model was made for. */
int engine_check(const struct engine_opts *o, struct problems *why);

/* As engine_check, or -ENOMEM. */
int engine_open(struct engine **ret, const struct engine_opts *o, struct problems *why);

/* System text; only before the first turn. */
int engine_system(struct engine *e, const char *text, struct problems *why);

/* Begins a user turn, closing what was open before. */
int engine_turn(struct engine *e, struct problems *why);

/* A piece of text of the user's turn, UTF-8. */
int engine_text(struct engine *e, const char *text, struct problems *why);

/* Sound of the user's turn: mono, 16 kHz, [-1, 1]; pieces of any length make one sound until
 * engine_hear_end. Non-finite samples and a sound under 10 ms are refused. */
int engine_hear(struct engine *e, const float *pcm, size_t n, struct problems *why);
int engine_hear_end(struct engine *e, struct problems *why);

/* The person goes on after all: forgets everything since the last engine_hear_end (its tail, the
 * answer), after which engine_hear continues the same sound. -EINVAL when there was no sound. */
int engine_hear_resume(struct engine *e, struct problems *why);

/* Ends the user's turn and prefills the rest of the prompt. */
int engine_answer(struct engine *e, struct problems *why);

/* The next token of the answer: 1 and its id; 0 at the stop token; -ENOSPC when the context is
 * full. The id is known before it is fed, so that the Talker can speak it meanwhile. */
int engine_next(struct engine *e, int32_t *id, struct problems *why);

/* After a token: begins the work of the next one without waiting for it, where the device works by
 * itself; on the CPU it does nothing, nor after engine_keep: the logits could not be looked at. */
void engine_ahead(struct engine *e);

/* As engine_next with the id given from outside (teacher forcing). */
int engine_force(struct engine *e, int32_t id, struct problems *why);

/* Behind engine_answer or a rewind into an answer: n tokens of it that are known already, in one
 * pass instead of one by one. They must not be control tokens. */
int engine_recall(struct engine *e, const int32_t *ids, int n, struct problems *why);

/* Positions so far; engine_rewind forgets all from `length` on and may leave the answer (or the
 * question) half said: engine_next goes on from there, engine_turn closes it. -EINVAL beyond the
 * end or inside a sound. */
int engine_length(const struct engine *e);
int engine_rewind(struct engine *e, int length, struct problems *why);

/* All ids so far [engine_length]. */
const int32_t *engine_ids(const struct engine *e);

/* Positions left; positions that a sound of so many seconds takes, with its two marks. */
int engine_room(const struct engine *e);
double engine_sound_tokens(const struct engine *e, double seconds);

/* What the Talker needs of the user's turns. */
void engine_prompt(struct engine *e, struct prompt_rows *rows);

/* The Thinker's last row, normed [hidden]: what the logits that engine_logits copies were made
 * from. Behind engine_answer it has seen all that was said. */
void engine_state(struct engine *e, float *state);

/* Copies for dumps and tests: the logits [vocab] that engine_next will choose from (or chose from);
 * mel [frames, bins] and encoder rows [tokens, output] of the last sound, kept only when asked for
 * by engine_keep(e). Return the number of rows. */
void engine_keep(struct engine *e);
void engine_logits(struct engine *e, float *logits);
int engine_mel(const struct engine *e, const float **mel);
int engine_encoded(const struct engine *e, const float **rows);

/* Bytes that engine_open takes for caches and buffers. */
size_t engine_bytes(const struct engine_opts *o);

void engine_close(struct engine *e); /* NULL is legal */

#endif
