/*
 * daemon/end_of_turn.h - does a question sound finished? A linear detector over the Thinker's state
 * at the place where its answer begins:
 *
 *     probability = 1 / (1 + exp(-(weight . state + bias)))
 *
 * The state has seen all of the sound and the conversation before it, so this costs one product. It
 * belongs to one model: end_of_turn.safetensors beside its weights, F32 weight [hidden] and bias
 * [1], made by tools/end_of_turn.py.
 *
 * Threads: constant after opening.
 */
#ifndef PARLEY_DAEMON_END_OF_TURN_H
#define PARLEY_DAEMON_END_OF_TURN_H

#include "base/problem.h"

#define END_OF_TURN_FILE "end_of_turn.safetensors"

struct end_of_turn;

/* 0, and NULL in *ret when the folder has no such file; or negative errno and a sentence about what
 * is wrong with it. */
int end_of_turn_open(struct end_of_turn **ret, const char *dir, int hidden, struct problems *why);

/* Of the person being finished; state [hidden] as of engine_state behind engine_answer. */
float end_of_turn_probability(const struct end_of_turn *e, const float *state);

void end_of_turn_close(struct end_of_turn *e); /* NULL is legal */

#endif
