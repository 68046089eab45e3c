/*
 * daemon/model_store.h - the models of an appliance: one directory each, and a link `current` to
 * the one that is used.
 *
 *     STORE/NAME/            config.json, model-*.safetensors, tokenizer files, SHA256SUMS
 *     STORE/current          -> NAME, or to a model that came with the program
 *     STORE/.incoming-XXXXXX what is being added; removed by the next add if that was cut off
 *
 * A model appears under its name only when it is whole: copied, summed, on disk, and found to be a
 * checkpoint that the service can answer with: weights, tokenizer, detector as `parley inspect`
 * checks them, and speech. Switching checks that too and replaces the link in one step. SHA256SUMS
 * is what sha256sum writes; one that the source brings is checked.
 *
 * Threads: any; two processes that add at once are kept apart by a lock.
 */
#ifndef PARLEY_DAEMON_MODEL_STORE_H
#define PARLEY_DAEMON_MODEL_STORE_H

#include <stdio.h>

#include "base/problem.h"

#define MODEL_STORE "/var/lib/parley/models"

/* The name that a source gets without another: its own without folders and without the ending of a
 * tar file, "dir/Model-7B.tar.gz" -> "Model-7B". */
void model_store_name(char *name, size_t size, const char *source);

/* Copies a directory or unpacks a tar file (also compressed) whose files lie in it directly or in
 * one folder; a directory is checked before it is copied. `name` NULL = model_store_name.
 * `report` gets a line for each file, or NULL. 0 or negative errno and sentences; then nothing is
 * left behind. */
int model_store_add(const char *store, const char *source, const char *name, FILE *report,
                    struct problems *why);

/* `current` becomes `name`: a model of the store, or one that came with the program. */
int model_store_use(const char *store, const char *name, struct problems *why);

/* Reads every file again and compares it with SHA256SUMS: a sentence for each that differs, is
 * missing, or is not listed. `name` NULL = the current one. */
int model_store_verify(const char *store, const char *name, FILE *report, struct problems *why);

/* A line for each model: "* NAME  1.20 GB" (* = current). */
int model_store_list(const char *store, FILE *out, struct problems *why);

#endif
