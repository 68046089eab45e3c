/*
 * daemon/reply.h - one answer, pulled piece by piece: words from the engine, sound from Talker and
 * Code2Wav.
 *
 * The order is the one that brings sound first: whenever the Talker can make a frame it does, and
 * only when it waits for a word the Thinker makes the next one.
 *
 * Threads: one owner, the same as of the session's stages.
 */
#ifndef PARLEY_DAEMON_REPLY_H
#define PARLEY_DAEMON_REPLY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/problem.h"
#include "daemon/session.h"
#include "model/flow.h"

struct reply_opts {
    int max_tokens; /* 0 = 1024 */
    int min_tokens; /* a stop token before so many words is replaced: for measuring */
    int max_frames; /* 0 = the checkpoint's */
    const int32_t
        *ids;  /* [n_ids] words to be said instead of the Thinker's; kept by the caller ... */
    int n_ids; /* ... as long as the reply lives; ids NULL = the Thinker's */
};

struct reply_stats {
    int tokens, frames;
    size_t samples;
    double first_token_s; /* from reply_begin; < 0 = never */
    double first_sound_s;
    double last_sound_s;
    double thinker_s; /* spent making words after the first */
    double talker_s;  /* spent in Talker and code predictor */
    double code2wav_s;
    const char *stop; /* "end", "max_tokens", "max_frames", "runaway", "silence", "context" */
};

enum { REPLY_END, REPLY_TEXT, REPLY_SOUND };

struct reply_piece {
    int32_t id;       /* REPLY_TEXT */
    char *text;       /* REPLY_TEXT: what the id completes, NUL-terminated, perhaps empty */
    const float *pcm; /* REPLY_SOUND: at 24 kHz, valid until the next call */
    size_t samples;
    struct codec_frame frame; /* REPLY_SOUND */
};

struct reply {
    struct session *s;
    struct reply_opts opts;
    struct reply_stats stats;
    struct tokenizer_carry carry;
    char text[TOKENIZER_STREAM_MAX + 1];
    float *pcm; /* [frame_samples] */
    double start;
    bool words_done, speech_done;
    int quiet_frames;
};

/* The user's turn is in the engine (all but engine_answer): completes the prompt. The clock of the
 * statistics starts here: the person has just stopped speaking. */
int reply_begin(struct reply *r, struct session *s, const struct reply_opts *o,
                struct problems *why);

/* REPLY_TEXT, REPLY_SOUND or REPLY_END; negative errno. */
int reply_next(struct reply *r, struct reply_piece *p, struct problems *why);

/* The next word although a frame could be made: for a caller who has no room for sound just now.
 * REPLY_TEXT, or REPLY_END when the words are at their end. */
int reply_word(struct reply *r, struct reply_piece *p, struct problems *why);

/* Whether reply_next would make a frame (else a word, or nothing any more). */
bool reply_speaks(const struct reply *r);

/* Frees what reply_begin took. */
void reply_end(struct reply *r);

#endif
