/*
 * engine/sound.c - one sound of the user's turn, encoded while it arrives.
 *
 *   samples -> mel frames -> [each full chunk] stem -> [each full window] transformer -> Thinker
 *
 * The mel clamp depends on the loudest energy of the whole sound, which is known only at its end.
 * Every chunk and window therefore remembers the peak it was encoded with and its own lowest
 * energy: if the peak has grown since and the lowest energy lies below the new clamp, its numbers
 * changed and it is encoded again; otherwise what was done early is exact. At the end the sequence
 * is rewound to the first window that must be done again, which for speech is rare.
 */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "engine/private.h"

static const struct mark UNKNOWN = {.peak = -INFINITY, .floor = -INFINITY};

int sound_open(struct sound *s, const struct model *m, struct device *dev)
{
    const struct audio_config *c = &m->config.audio;
    s->chunks = calloc((size_t)c->window_chunks, sizeof(*s->chunks));
    s->piece = malloc((size_t)c->chunk * c->mel_bins * sizeof(float));
    int err = s->chunks != NULL && s->piece != NULL ? 0 : -ENOMEM;
    if (err == 0)
        err = mel_open(&s->mel, c->mel_bins);
    if (err == 0)
        err = encoder_open(&s->encoder, m, dev);
    return err; /* the owner closes what is half open */
}

void sound_close(struct sound *s)
{
    mel_close(s->mel);
    encoder_close(s->encoder);
    free(s->chunks);
    free(s->window);
    free(s->piece);
}

/* With the peak known now, would this piece be encoded differently? */
static bool stale(const struct mark *m, float peak)
{
    return m->peak != peak && m->floor < fmaxf(m->peak, peak) - 8.0f;
}

static int window_frames(const struct engine *e)
{
    return e->model->config.audio.chunk * e->model->config.audio.window_chunks;
}

static void stem(struct engine *e, int chunk, int frames, int padded)
{
    struct sound *s = &e->sound;
    int first = s->windows * window_frames(e) + chunk * e->model->config.audio.chunk;
    float peak = mel_peak(s->mel);
    mel_read(s->mel, first, frames, peak, s->piece);
    encoder_stem(s->encoder, chunk, s->piece, frames, padded);
    s->chunks[chunk] = (struct mark){.peak = peak, .floor = mel_floor(s->mel, first, frames)};
}

static int keep_rows(struct engine *e, const float *rows, int tokens)
{
    struct kept *k = &e->kept;
    size_t out = (size_t)e->model->config.audio.output;
    if (!k->on)
        return 0;
    int err = grow_array(&k->rows, &k->rows_cap, (size_t)(k->tokens + tokens) * out, sizeof(float));
    if (err < 0)
        return err;
    e->dev->op->get(e->dev, k->rows + k->tokens * out, rows, tokens * out * sizeof(float));
    k->tokens += tokens;
    return 0;
}

/* Transformer over the first `tokens` rows of the window, and its rows into the sequence. */
static int encode_window(struct engine *e, int tokens, struct problems *why)
{
    struct sound *s = &e->sound;
    const float *rows = encoder_window(s->encoder, tokens);
    int err = keep_rows(e, rows, tokens);
    return err < 0 ? err : seq_push_sound(e, rows, tokens, why);
}

/* All chunks of the window went through the stem: encode it, prefill it, begin the next. */
static int finish_window(struct engine *e, struct problems *why)
{
    struct sound *s = &e->sound;
    const struct audio_config *c = &e->model->config.audio;
    float peak = mel_peak(s->mel);
    int err = grow_array(&s->window, &s->window_cap, (size_t)s->windows + 1, sizeof(*s->window));
    if (err < 0)
        return err;
    for (int i = 0; i < c->window_chunks; i++)
        if (stale(&s->chunks[i], peak))
            stem(e, i, c->chunk, c->chunk);
    s->window[s->windows] = (struct window){
        .position = e->length,
        .mark = {.peak = peak,
                 .floor = mel_floor(s->mel, s->windows * window_frames(e), window_frames(e))},
    };
    err = encode_window(e, encoder_window_tokens(c), why);
    if (err < 0)
        return err;
    s->windows++;
    s->done = 0;
    return seq_feed(e, false);
}

/* Everything that is complete. */
static int advance(struct engine *e, struct problems *why)
{
    struct sound *s = &e->sound;
    const struct audio_config *c = &e->model->config.audio;
    int err = 0;
    while (err == 0 &&
           mel_frames(s->mel) >= s->windows * window_frames(e) + (s->done + 1) * c->chunk) {
        stem(e, s->done, c->chunk, c->chunk);
        s->done++;
        if (s->done == c->window_chunks)
            err = finish_window(e, why);
    }
    return err;
}

/* Back to the beginning of window w: its rows and all later ones leave the sequence. */
static void restart_at(struct engine *e, int w)
{
    struct sound *s = &e->sound;
    seq_rewind(e, w < s->windows ? s->window[w].position : e->length);
    e->kept.tokens = min_int(e->kept.tokens, w * e->model->config.audio.window_chunks *
                                                 encoder_tokens(e->model->config.audio.chunk));
    s->windows = w;
    s->done = 0;
}

static int begin(struct engine *e, struct problems *why)
{
    struct sound *s = &e->sound;
    int err = seq_flush_plain(e, KIND_USER, why);
    if (err == 0)
        err = seq_push(e, e->model->config.tokens.audio_start, KIND_USER, why);
    if (err < 0)
        return err;
    mel_reset(s->mel);
    s->phase = SOUND_OPEN;
    s->start = e->length;
    s->windows = s->done = 0;
    e->kept.tokens = e->kept.frames = 0;
    return 0;
}

int engine_hear(struct engine *e, const float *pcm, size_t n, struct problems *why)
{
    struct sound *s = &e->sound;
    for (size_t i = 0; i < n; i++)
        if (!isfinite(pcm[i]))
            return problem_add(why, -EINVAL, "sound: sample %zu is %s, expected a finite number",
                               (s->phase == SOUND_OPEN ? mel_samples(s->mel) : 0) + i,
                               isnan(pcm[i]) ? "not a number" : "infinite");
    int err = s->phase == SOUND_OPEN ? 0 : begin(e, why);
    if (err == 0)
        err = mel_push(s->mel, pcm, n);
    return err < 0 ? err : advance(e, why);
}

/* The chunk that the end of the sound left incomplete. */
static int encode_tail(struct engine *e, struct problems *why)
{
    struct sound *s = &e->sound;
    const struct audio_config *c = &e->model->config.audio;
    int frames = mel_frames(s->mel), full = encoder_tokens(c->chunk);
    int rest = frames - s->windows * window_frames(e) - s->done * c->chunk;
    float peak = mel_peak(s->mel);
    for (int i = 0; i < s->done; i++)
        if (stale(&s->chunks[i], peak))
            stem(e, i, c->chunk, c->chunk);
    if (rest > 0) /* zeros are padded only behind a sound that has a full chunk (MODEL.md, Stem) */
        stem(e, s->done, rest, frames > c->chunk ? c->chunk : rest);
    int tokens = s->done * full + encoder_tokens(rest);
    return tokens > 0 ? encode_window(e, tokens, why) : 0;
}

static int keep_mel(struct engine *e)
{
    struct kept *k = &e->kept;
    struct mel *m = e->sound.mel;
    size_t bins = (size_t)e->model->config.audio.mel_bins;
    if (!k->on)
        return 0;
    int err = grow_array(&k->mel, &k->mel_cap, (size_t)mel_frames(m) * bins, sizeof(float));
    if (err < 0)
        return err;
    k->frames = mel_frames(m);
    mel_read(m, 0, k->frames, mel_peak(m), k->mel);
    return 0;
}

int engine_hear_end(struct engine *e, struct problems *why)
{
    struct sound *s = &e->sound;
    if (s->phase != SOUND_OPEN || mel_samples(s->mel) < MEL_HOP)
        return problem_add(why, -EINVAL, "sound: found %zu samples at 16 kHz, expected at least %d",
                           s->phase == SOUND_OPEN ? mel_samples(s->mel) : 0, MEL_HOP);
    s->final_windows = s->windows;
    int err = mel_finish(s->mel);
    if (err < 0)
        return err;
    for (int w = 0; w < s->windows; w++)
        if (stale(&s->window[w].mark, mel_peak(s->mel)))
            restart_at(e, w); /* ends the loop */
    err = advance(e, why);
    if (err == 0)
        err = encode_tail(e, why);
    if (err == 0)
        err = keep_mel(e);
    if (err == 0)
        err = seq_push(e, e->model->config.tokens.audio_end, KIND_USER, why);
    s->phase = SOUND_ENDED;
    return err;
}

int engine_hear_resume(struct engine *e, struct problems *why)
{
    struct sound *s = &e->sound;
    if (s->phase != SOUND_ENDED)
        return problem_add(why, -EINVAL, "sound: there is none to go on with");
    mel_resume(s->mel);
    int w = min_int(s->final_windows, s->windows);
    int full = encoder_tokens(e->model->config.audio.chunk) * e->model->config.audio.window_chunks;
    seq_rewind(e, s->start + w * full);
    restart_at(e, w);
    for (int i = 0; i < e->model->config.audio.window_chunks; i++)
        s->chunks[i] = UNKNOWN;
    s->phase = SOUND_OPEN;
    return advance(e, why);
}
