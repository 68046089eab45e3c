/*
 * engine/private.h - the one conversation's state, shared by the files of engine/.
 *
 * The sequence is an array of ids. Its first `fed` positions are in the Thinker's KV cache; the
 * rest (at most ROWS) is the queue, fed in one pass when it is full or when logits are needed: a
 * short question costs one pass over the weights, not one for each piece of the prompt.
 */
#ifndef PARLEY_ENGINE_PRIVATE_H
#define PARLEY_ENGINE_PRIVATE_H

#include "engine/encoder.h"
#include "engine/engine.h"
#include "engine/mel.h"
#include "model/decoder.h"

#define ROWS 128 /* most positions in one pass */

/* What a position is to the Talker. */
enum kind { KIND_OTHER, KIND_USER, KIND_SOUND };

struct mark {    /* what a piece of sound was encoded with */
    float peak;  /* the loudest energy known then */
    float floor; /* its own smallest raw energy */
};

struct window {
    struct mark mark;
    int position; /* in the sequence, of its first row */
};

enum sound_phase { SOUND_NONE, SOUND_OPEN, SOUND_ENDED };

struct sound {
    enum sound_phase phase;
    struct mel *mel;
    struct encoder *encoder;
    int start;             /* position of the first row */
    int windows;           /* finished windows */
    int done;              /* chunks of the current window that went through the stem */
    int final_windows;     /* finished windows when the end was declared, for resuming */
    struct mark *chunks;   /* [window_chunks] of the current window */
    struct window *window; /* [windows] */
    size_t window_cap;
    float *piece; /* [chunk, mel_bins] normalised mel of one chunk */
};

struct kept { /* copies for dumps */
    bool on;
    float *mel, *rows;
    size_t mel_cap, rows_cap;
    int frames, tokens;
};

struct engine {
    const struct model *model;
    const struct tokenizer *tokenizer;
    struct device *dev;
    int context;
    struct sampling sampling;
    int32_t end_of_text; /* second stop id, -1 when the vocabulary has none */

    struct decoder *decoder;
    int32_t *ids;   /* [context] */
    uint8_t *kinds; /* [context] enum kind */
    int length, fed;
    bool logits_ready;
    int32_t *dev_ids; /* [ROWS] */
    float *x;         /* [ROWS, hidden] */
    float *audio;     /* [ROWS, hidden] encoder rows of the queue's sound positions */
    float *tap;       /* [ROWS, hidden] */
    float *last;      /* [hidden] normed last row */
    float *logits;    /* [vocab] */

    int32_t *next;     /* the sampled id, device memory; what a step feeds */
    int32_t next_id;   /* what *next holds, -1 = unknown */
    struct step *step; /* recorded: one id in, logits out */
    uint64_t *draw;    /* number of the next draw, device memory */
    uint32_t *seen;    /* bitmap [vocab] for the repetition penalty */
    bool seen_stale;

    char *plain; /* text of the open segment that is not tokenised yet */
    size_t plain_len, plain_cap;

    int32_t *user_ids; /* [user_n] rows for the Talker */
    float *user_hidden;
    size_t user_ids_cap, user_hidden_cap;
    int user_n, user_stable;

    struct sound sound;
    struct kept kept;
};

/* sequence.c: appending and feeding positions. */
int seq_push(struct engine *e, int32_t id, enum kind kind, struct problems *why);
int seq_push_sound(struct engine *e, const float *rows, int n, struct problems *why);
int seq_feed(struct engine *e, bool logits);
void seq_rewind(struct engine *e, int length);
int seq_logits(struct engine *e);
int seq_plain(struct engine *e, const char *text);
int seq_flush_plain(struct engine *e, enum kind kind, struct problems *why);

/* sound.c: a sound that is still arriving. */
int sound_open(struct sound *s, const struct model *m, struct device *dev);
void sound_close(struct sound *s);

#endif
