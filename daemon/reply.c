/*
 * daemon/reply.c - the order in which one answer is made; see reply.h.
 */
#include "daemon/reply.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"

#define QUIET_LEVEL  1e-3f /* -60 dBFS: a frame below it says nothing */
#define QUIET_FRAMES 38 /* 3 s of it after the last word end a speech that missed its end token */

static double elapsed(const struct reply *r)
{
    return clock_seconds() - r->start;
}

int reply_begin(struct reply *r, struct session *s, const struct reply_opts *o,
                struct problems *why)
{
    *r = (struct reply){.s = s, .opts = *o, .start = clock_seconds()};
    if (r->opts.max_tokens == 0)
        r->opts.max_tokens = 1024;
    r->stats = (struct reply_stats){.first_token_s = -1,
                                    .first_sound_s = -1,
                                    .last_sound_s = -1,
                                    .stop = "end"};
    int err = engine_answer(s->engine, why);
    if (err < 0 || s->talker == NULL) {
        r->speech_done = true;
        return err;
    }
    r->pcm = malloc((size_t)s->model->config.code2wav.frame_samples * sizeof(float));
    if (r->pcm == NULL)
        return -ENOMEM;
    code2wav_reset(s->code2wav);
    struct prompt_rows rows;
    engine_prompt(s->engine, &rows);
    return talker_prompt(s->talker, &rows, why);
}

static int end_words(struct reply *r, const char *stop)
{
    r->words_done = true;
    r->stats.stop = stop;
    if (r->s->talker != NULL)
        talker_text_end(r->s->talker);
    return 0;
}

/* The text that an id completes. Ids beyond the vocabulary (padding rows of the head) have none. */
static void decode_piece(struct reply *r, struct reply_piece *p)
{
    int n = 0;
    if (r->s->tokenizer != NULL)
        n = tokenizer_stream(r->s->tokenizer, &r->carry, p->id, TOKENIZER_SKIP_SPECIAL, r->text,
                             sizeof(r->text) - 1);
    r->text[max_int(n, 0)] = '\0';
    p->text = r->text;
}

/* 1 and the next word, 0 at the end. */
static int choose_word(struct reply *r, int32_t *id, struct problems *why)
{
    if (r->opts.ids == NULL) {
        int got = engine_next(r->s->engine, id, why);
        if (got != 0 || r->stats.tokens >= r->opts.min_tokens)
            return got;
        *id = r->stats.tokens; /* one of the first ids: a letter or so */
        return engine_force(r->s->engine, *id, why);
    }
    if (r->stats.tokens == r->opts.n_ids)
        return 0;
    *id = r->opts.ids[r->stats.tokens];
    return engine_force(r->s->engine, *id, why);
}

/* REPLY_TEXT, or 0 when the words are at their end. */
static int next_word(struct reply *r, struct reply_piece *p, struct problems *why)
{
    if (r->stats.tokens == r->opts.max_tokens)
        return end_words(r, "max_tokens");
    double before = elapsed(r);
    int got = choose_word(r, &p->id, why);
    if (got == 0)
        return end_words(r, "end");
    if (got == -ENOSPC && r->stats.tokens > 0) {
        if (why != NULL)
            problems_free(why); /* an answer cut by a full context is a stop, not an error */
        return end_words(r, "context");
    }
    if (got < 0)
        return got;
    if (r->stats.tokens++ == 0)
        r->stats.first_token_s = elapsed(r);
    else
        r->stats.thinker_s += elapsed(r) - before;
    if (r->stats.tokens < r->opts.max_tokens)
        engine_ahead(r->s->engine); /* the Thinker goes on while the Talker speaks */
    int err = r->s->talker != NULL && !r->speech_done ? talker_text(r->s->talker, p->id) : 0;
    if (err < 0)
        return err; /* a word that the Talker lacks would be missing in the sound */
    decode_piece(r, p);
    return REPLY_TEXT;
}

static void end_speech(struct reply *r, const char *stop)
{
    r->speech_done = true;
    if (stop != NULL)
        r->stats.stop = stop;
}

static bool too_quiet(struct reply *r, size_t n)
{
    float peak = 0.0f;
    for (size_t i = 0; i < n; i++)
        peak = fmaxf(peak, fabsf(r->pcm[i]));
    r->quiet_frames = peak < QUIET_LEVEL ? r->quiet_frames + 1 : 0;
    return r->words_done && r->quiet_frames >= QUIET_FRAMES;
}

static const char *speech_stop(enum talker_stop stop)
{
    switch (stop) {
    case TALKER_MAX_FRAMES:
        return "max_frames";
    case TALKER_RUNAWAY:
        return "runaway";
    default:
        return NULL;
    }
}

/* REPLY_SOUND, 0 at the end of speech, -EAGAIN when a word is missing. */
static int next_sound(struct reply *r, struct reply_piece *p, struct problems *why)
{
    double before = elapsed(r);
    int got = talker_next(r->s->talker, &p->frame);
    r->stats.talker_s += elapsed(r) - before;
    if (got == 0)
        end_speech(r, speech_stop(talker_stop_reason(r->s->talker)));
    if (got == -EAGAIN && r->words_done)
        return problem_add(why, -EPROTO, "talker: waits for a word although the text has ended");
    if (got <= 0)
        return got;
    before = elapsed(r);
    int n = code2wav_next(r->s->code2wav, p->frame.codes, 1, r->pcm);
    if (n < 0)
        return n;
    r->stats.last_sound_s = elapsed(r);
    r->stats.code2wav_s += r->stats.last_sound_s - before;
    if (r->stats.frames++ == 0)
        r->stats.first_sound_s = r->stats.last_sound_s;
    r->stats.samples += (size_t)n;
    p->pcm = r->pcm;
    p->samples = (size_t)n;
    if (too_quiet(r, p->samples))
        end_speech(r, "silence");
    return REPLY_SOUND;
}

int reply_next(struct reply *r, struct reply_piece *p, struct problems *why)
{
    while (!r->words_done || !r->speech_done) {
        int got = r->speech_done ? -EAGAIN : next_sound(r, p, why);
        if (got == -EAGAIN)
            got = next_word(r, p, why);
        if (got != 0)
            return got;
    }
    return REPLY_END;
}

int reply_word(struct reply *r, struct reply_piece *p, struct problems *why)
{
    return r->words_done ? REPLY_END : next_word(r, p, why);
}

/* Frame f needs word f, or to know that there is none. */
bool reply_speaks(const struct reply *r)
{
    return !r->speech_done && (r->words_done || r->stats.frames < r->stats.tokens);
}

void reply_end(struct reply *r)
{
    free(r->pcm);
    r->pcm = NULL;
}
