/* model/pretokenize.h - cuts text into the pieces inside which BPE merges. */
#ifndef PARLEY_MODEL_PRETOKENIZE_H
#define PARLEY_MODEL_PRETOKENIZE_H

#include <stddef.h>

/* The pattern that pretokenize_next() implements; tokenizer.json must name it. */
extern const char pretokenize_pattern[];

/* The length in bytes of the first piece of valid UTF-8; at least 1. `len` > 0. */
size_t pretokenize_next(const char *text, size_t len);

#endif
