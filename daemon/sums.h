/*
 * daemon/sums.h - SHA-256 of files and lists of them as sha256sum writes them: 64 digits, two
 * blanks, the file's name.
 *
 * Threads: one owner.
 */
#ifndef PARLEY_DAEMON_SUMS_H
#define PARLEY_DAEMON_SUMS_H

#include <nettle/sha2.h>
#include <stddef.h>
#include <stdio.h>

#include "base/problem.h"

#define SUMS_FILE "SHA256SUMS"

struct summing {
    struct sha256_ctx state;
};

void summing_begin(struct summing *s);
void summing_add(struct summing *s, const void *bytes, size_t n);

struct sums {
    struct sum {
        char digits[65]; /* lower case */
        char name[128];
    } * list;
    size_t n, cap;
};

/* 0, -ENAMETOOLONG, -ENOMEM. Ends the summing. */
int sums_add(struct sums *s, const char *name, struct summing *sum);

/* A list of plain names; `file` is for the sentence. */
int sums_parse(struct sums *s, const char *text, size_t n, const char *file, struct problems *why);

/* `found` against what is `listed`: a sentence for each file that differs, is missing, or is not
 * listed; `where` begins it. 0 or -EBADMSG. */
int sums_compare(const struct sums *listed, const struct sums *found, const char *where,
                 struct problems *why);

/* Sorted by name. */
void sums_write(const struct sums *s, FILE *f);

void sums_free(struct sums *s);

#endif
