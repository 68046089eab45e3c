/*
 * base/problem.h - what was wrong, in sentences.
 *
 * Everything that opens a file or checks an input takes a `struct problems *`: each defect becomes
 * one sentence naming the object, the field, what was found and what was expected. The caller
 * prints them; nothing below the daemon writes to a terminal. A list that is full counts what it
 * drops, so a checkpoint with 28,000 wrong tensors still reports briefly.
 *
 * Threads: a list belongs to one thread.
 */
#ifndef PARLEY_BASE_PROBLEM_H
#define PARLEY_BASE_PROBLEM_H

#include <stddef.h>

#define PROBLEMS_MAX 32

struct problems {
    char *text[PROBLEMS_MAX]; /* sentences, each owned by the list */
    size_t n;
    size_t dropped; /* further problems that found no room */
};

/* Appends one sentence and returns `err` (a negative errno), so that a failing function can say
 * `return problem_add(why, -EINVAL, "...")`. `p` may be NULL: then only `err` is returned. */
int problem_add(struct problems *p, int err, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

void problems_free(struct problems *p);

#endif
