/*
 * tests/parity/stages.h - one stage after the other against what the reference made of the same
 * weights; shared by the programs parity (small shapes) and parity_full (one large checkpoint).
 *
 * Every check prints a line: the error relative to the golden's values, and its bar. In the exact
 * pass that is the largest error and 2e-4; else root mean squares and the largest one, and 1.5
 * times the reference's own error in bf16 at that stage.
 */
#ifndef PARLEY_TESTS_STAGES_H
#define PARLEY_TESTS_STAGES_H

#include <stdbool.h>

#include "daemon/session.h"
#include "daemon/sound_file.h"
#include "tests/parity/golden.h"

#define SAME 1e-5

struct run {
    struct golden g;
    struct session s;
    const char *shape, *pass;
    const char *system; /* text before the question, NULL = none */
    bool brief;         /* few words, few frames of each stage */
    bool exact;         /* the fp32 pass, free-running; else forced along the golden's tokens */
    float *pcm;
    size_t samples;
    int failed, checked;
};

void die(struct problems *why, const char *what);

#define MUST(call)                                                                                 \
    do {                                                                                           \
        struct problems why = {0};                                                                 \
        if ((call) < 0)                                                                            \
            die(&why, #call);                                                                      \
    } while (0)

void line(struct run *r, const char *stage, double error, double bar);

/* Largest difference relative to the largest wanted value. */
double largest(const float *got, const float *want, size_t n);

/* One stage's values against the golden `name`; n may be less than the golden has. */
void compare(struct run *r, const char *stage, const char *name, const float *got, size_t n);

void compare_ids(struct run *r, const char *stage, const int32_t *got, const int32_t *want,
                 size_t n);

/* Hands the question over in pieces of `piece` samples. */
void hear(struct run *r, size_t piece);

/* In this order: the question up to the logits of the first word; what is handed to the Talker;
 * words; speech for the golden's words; sound for the golden's codes. */
void check_question(struct run *r);
void check_tap(struct run *r);
void check_words(struct run *r, const char *stage, const char *logits_name, const char *ids_name);
void check_speech(struct run *r, const char *hidden_name, const char *codes_name,
                  const char *ids_name, bool logits_too);
void check_sound(struct run *r, const char *codes_name, const char *wave_name);

#endif
