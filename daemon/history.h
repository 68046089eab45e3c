/*
 * daemon/history.h - what was said, for `parley ctl history`: in memory, and only if configured in
 * one file, HISTORY_FILE in the state directory, mode 0600.
 *
 * People's turns are sound and stay without words here unless they were typed; of replies there is
 * what was heard of them.
 *
 * Threads: one owner.
 */
#ifndef PARLEY_DAEMON_HISTORY_H
#define PARLEY_DAEMON_HISTORY_H

#include <jansson.h>
#include <stdint.h>

#include "base/problem.h"

#define HISTORY_FILE "history.json"

struct history {
    json_t *turns;   /* [{"at":seconds since 1970,"who":"person","text":"..."}] */
    size_t most;     /* older ones are forgotten, */
    size_t bytes;    /* ... also what makes these too many for a file that can be read again */
    const char *dir; /* of the file, or NULL = memory only; borrowed */
};

/* A file that cannot be read is a sentence, and the history is empty. 0 or -ENOMEM. */
int history_open(struct history *h, size_t most, const char *dir, struct problems *why);

/* `at` in seconds since 1970; a text of more than 16 kB ends with "...". 0 or negative errno of
 * writing the file; the memory has it anyway. */
int history_add(struct history *h, int64_t at, const char *who, const char *text);

/* The newest turns that take at most so many bytes as JSON in ASCII, oldest first, and how many are
 * older than these. Borrows none of it; NULL when memory is short. */
json_t *history_newest(const struct history *h, size_t most, size_t *left_out);

/* Nothing was ever said. With a file or without: an old file goes too. 0 or negative errno. */
int history_forget(struct history *h, const char *state);

void history_close(struct history *h);

#endif
