/*
 * model/tokenizer.h - text to token ids and back, as the checkpoint's own vocabulary has it.
 *
 * Byte-level BPE of the Qwen2 family: NFC, a fixed pre-tokeniser, then merges by rank inside each
 * piece. The ids equal those of the reference tokenizer (see tests/unit/test_tokenizer_qwen.c).
 *
 * What people say or type is data: unless TOKENIZER_ADDED is given, no text can turn into an added
 * token, so `<|im_start|>` in it is a few plain tokens and never the control token. The ids of
 * control tokens come from tokenizer_find().
 *
 * Threads: a tokenizer never changes after it was opened; every function but open and close may be
 * called from any thread at once. Nothing here blocks on anything but memory, and open on files.
 */
#ifndef PARLEY_MODEL_TOKENIZER_H
#define PARLEY_MODEL_TOKENIZER_H

#include <stddef.h>
#include <stdint.h>

#include "base/problem.h"

struct tokenizer;

/* Flag of encode: added tokens in the text (`<|im_end|>`) become their ids. For templates that the
 * program itself wrote, never for what came from outside. */
#define TOKENIZER_ADDED 1u

/* Flag of decode and stream: tokens that the vocabulary calls special leave no text. */
#define TOKENIZER_SKIP_SPECIAL 2u

/* Longest text that is encoded in one call, in bytes (it bounds the memory of a call). */
#define TOKENIZER_INPUT_MAX (16u << 20)

/* Room that always suffices for one tokenizer_stream() call, in bytes. */
#define TOKENIZER_STREAM_MAX 3078

/* The bytes of a character whose end has not come yet. Starts as zeros; owned by the caller. */
struct tokenizer_carry {
    unsigned char held[4];
    unsigned char n;
};

/* Reads the vocabulary of the checkpoint in `dir`: vocab.json and merges.txt, with added tokens
 * from tokenizer_config.json (and added_tokens.json when there is one), or else tokenizer.json.
 * When both forms lie there the first is read. 0 or a negative errno: then `why` says what is
 * wrong. */
int tokenizer_open(struct tokenizer **ret, const char *dir, struct problems *why);

/* Encodes `len` bytes of UTF-8, which may hold NUL. The number of ids, which are in `ids`; with
 * `ids` NULL they are only counted. -EILSEQ: not UTF-8. -ENOSPC: more than `cap` ids. -E2BIG:
 * longer than TOKENIZER_INPUT_MAX. -ENOMEM. */
int tokenizer_encode(const struct tokenizer *t, const char *text, size_t len, unsigned flags,
                     int32_t *ids, size_t cap);

/* The text of `n` ids, always valid UTF-8: bytes that form no character become U+FFFD. The number
 * of bytes, which are in `out` (no closing NUL); with `out` NULL they are only counted. -EINVAL: an
 * id that the vocabulary lacks. -ENOSPC: more than `cap` bytes. -E2BIG: more than INT_MAX bytes. */
int tokenizer_decode(const struct tokenizer *t, const int32_t *ids, size_t n, unsigned flags,
                     char *out, size_t cap);

/* The same one id at a time: the text that this id completes, perhaps none. The last call has id -1
 * and yields U+FFFD when a character was left unfinished. Joined, the results equal
 * tokenizer_decode(). After an error the carry is as before. Errors as decode. */
int tokenizer_stream(const struct tokenizer *t, struct tokenizer_carry *carry, int32_t id,
                     unsigned flags, char *out, size_t cap);

/* The id of an added token ("<|im_end|>") or of the plain token with exactly this text ("system"),
 * or -ENOENT. */
int tokenizer_find(const struct tokenizer *t, const char *text);

/* One more than the highest id. */
int tokenizer_count(const struct tokenizer *t);

void tokenizer_close(struct tokenizer *t); /* NULL is legal */

#endif
