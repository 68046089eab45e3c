/*
 * model/checkpoint.h - a checkpoint directory: any tensor by name, whichever file it is in.
 *
 * model.safetensors alone, or model.safetensors.index.json and the shards it names. A shard is
 * opened when the first tensor of it is asked for, so a text-only model does not need the files
 * that hold nothing but speech.
 *
 * Threads: one owner while tensors are being looked up; constant afterwards.
 */
#ifndef PARLEY_MODEL_CHECKPOINT_H
#define PARLEY_MODEL_CHECKPOINT_H

#include "model/safetensors.h"

struct checkpoint;

int checkpoint_open(struct checkpoint **ret, const char *dir, struct problems *why);

/* Finds a tensor. 1: found, *tensor and *file set. 0: no file has it. Negative: its file is missing
 * or broken, which has been said once. */
int checkpoint_find(struct checkpoint *c, const char *name, const struct st_tensor **tensor,
                    const struct st_file **file, struct problems *why);

/* Whether the checkpoint lists the name; opens nothing. */
bool checkpoint_has(const struct checkpoint *c, const char *name);

/* The i-th name that the checkpoint lists, in the order of the names; NULL behind the last. */
const char *checkpoint_name(const struct checkpoint *c, size_t i);

/* 0, or why one of the shards opened so far was refused. */
int checkpoint_error(const struct checkpoint *c);

/* Counts what begins with `prefix`: names listed, and the parameters of those whose shard is open.
 */
void checkpoint_count(const struct checkpoint *c, const char *prefix, size_t *tensors,
                      size_t *parameters);

/* "model.safetensors" or "model.safetensors.index.json": where a missing tensor is missing. */
const char *checkpoint_list_name(const struct checkpoint *c);
bool checkpoint_sharded(const struct checkpoint *c);
/* Number of data files, opened or not. */
size_t checkpoint_shards(const struct checkpoint *c);

void checkpoint_close(struct checkpoint *c);

/* The index's text: calls `each` for every (tensor, shard) pair, both checked. For checkpoint_open
 * and the fuzzer. */
int checkpoint_parse_index(const char *text, size_t len, const char *name, struct problems *why,
                           int (*each)(void *arg, const char *tensor, const char *shard),
                           void *arg);

#endif
