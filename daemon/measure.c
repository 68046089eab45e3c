/*
 * daemon/measure.c - the measuring behind `parley bench`; see measure.h.
 *
 * The question is made here (noise in syllables) and handed over in pieces of 100 ms. The latencies
 * count from the moment at which its last piece arrives: what was computed of the pieces before, a
 * live device computes while the person speaks. A system text is in the cache already.
 */
#include "daemon/measure.h"

#include <errno.h>
#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/thread.h"
#include "base/util.h"
#include "daemon/plan.h"
#include "daemon/reply.h"
#include "engine/encoder.h"

#define RATE       16000
#define PIECE      1600
#define TOKENS     48  /* decoded in a run */
#define WORDS      32  /* of a reply, whatever the model would say to noise */
#define FRAMES     400 /* mel frames: 4 s */
#define READ_BYTES ((size_t)256 << 20)
#define READ_FAR   ((size_t)2 << 30) /* of a device's own memory */

static const char system_text[] =
    "You are a helpful voice. Answer in one or two short sentences, in the language of the "
    "question, with words that sound natural when they are spoken.";

static void note(struct bench *b, enum figure_id id, double value)
{
    struct figure *f = &b->figure[id];
    if (grow_array(&f->value, &f->cap, f->n + 1, sizeof(*f->value)) == 0)
        f->value[f->n++] = value;
}

static double middle(double *value, size_t n)
{
    qsort(value, n, sizeof(*value), by_double);
    return n % 2 ? value[n / 2] : (value[n / 2 - 1] + value[n / 2]) / 2;
}

double figure_median(struct figure *f)
{
    return f->n > 0 ? middle(f->value, f->n) : 0;
}

static void watch_memory(struct bench *b)
{
    b->anonymous = max_size(b->anonymous, memory_anonymous());
}

/* Noise whose loudness rises and falls four times a second: no speech, but no steady tone either.
 */
static int make_question(struct bench *b)
{
    uint32_t state = 1;
    size_t most = (size_t)(fmax(b->seconds, 4.0) * RATE);
    b->samples = (size_t)(b->seconds * RATE);
    b->question = malloc(most * sizeof(float));
    if (b->question == NULL)
        return -ENOMEM;
    for (size_t i = 0; i < most; i++) {
        state = state * 1664525u + 1013904223u;
        double loud = 0.05 + 0.25 * fabs(sin(4.0 * M_PI * (double)i / RATE));
        b->question[i] = (float)(loud * ((double)state / 2147483648.0 - 1.0));
    }
    return 0;
}

static size_t expert_bytes(const struct expert *e)
{
    return weight_bytes(&e->gate) + weight_bytes(&e->up) + weight_bytes(&e->down);
}

size_t token_bytes(const struct model *m)
{
    const struct decoder_config *c = &m->config.thinker;
    size_t bytes = weight_bytes(&m->thinker.head);
    for (int l = 0; l < c->layers; l++) {
        const struct decoder_layer *w = &m->thinker.text.layers[l];
        bytes += weight_bytes(&w->q) + weight_bytes(&w->k) + weight_bytes(&w->v) +
                 weight_bytes(&w->o) + weight_bytes(&w->gate) + weight_bytes(&w->up) +
                 weight_bytes(&w->down) + weight_bytes(&w->router) + expert_bytes(&w->shared);
        if (w->experts != NULL)
            bytes += (size_t)c->top_k * expert_bytes(&w->experts[0]);
    }
    return bytes;
}

/* Until the device has done what was begun on its handle: what is measured next begins then. */
static void settle(struct bench *b, struct session *s)
{
    float any;
    s->dev->op->get(s->dev, &any, b->read_buffer, sizeof(any));
}

/* 4 s of sound at once: mel and encoder as the engine runs them. */
static int measure_hearing(struct bench *b, struct session *s, struct problems *why)
{
    int err = engine_rewind(s->engine, b->base, why);
    if (err == 0)
        err = engine_turn(s->engine, why);
    double start = clock_seconds();
    if (err == 0)
        err = engine_hear(s->engine, b->question, 4 * RATE, why);
    if (err == 0)
        err = engine_hear_end(s->engine, why);
    settle(b, s);
    note(b, HEAR_MS, 1e3 * (clock_seconds() - start));
    return err;
}

/* The encoder alone, over 4 s of mel frames that are there, in chunks and windows of its size. */
static void measure_encoder(struct bench *b, struct session *s, struct encoder *e, const float *mel)
{
    const struct audio_config *c = &s->model->config.audio;
    float last;
    const float *rows = NULL;
    double start = clock_seconds();
    for (int at = 0, chunk = 0; at < FRAMES; at += c->chunk) {
        int frames = min_int(c->chunk, FRAMES - at);
        int tokens = chunk * encoder_tokens(c->chunk) + encoder_tokens(frames);
        encoder_stem(e, chunk++, mel + (size_t)at * c->mel_bins, frames, c->chunk);
        if (chunk == c->window_chunks || at + frames == FRAMES) {
            rows = encoder_window(e, tokens);
            chunk = 0;
        }
    }
    s->dev->op->get(s->dev, &last, rows, sizeof(last));
    note(b, ENCODER_MS, 1e3 * (clock_seconds() - start));
}

/* All of the question but its last piece. */
static int ask_most(struct bench *b, struct session *s, struct problems *why)
{
    int err = engine_rewind(s->engine, b->base, why);
    if (err == 0)
        err = engine_turn(s->engine, why);
    for (size_t at = 0; err == 0 && at + PIECE < b->samples; at += PIECE)
        err = session_hear(s, b->question + at, PIECE, why);
    return err;
}

static int ask_last(struct bench *b, struct session *s, struct problems *why)
{
    size_t at = (b->samples - 1) / PIECE * PIECE;
    return session_hear(s, b->question + at, b->samples - at, why);
}

static int ask_question(struct bench *b, struct session *s, struct problems *why)
{
    int err = ask_most(b, s, why);
    return err < 0 ? err : ask_last(b, s, why);
}

/* One token more; a stop token is replaced by another one. */
static int decode_token(struct session *s, struct problems *why)
{
    int32_t id;
    int err = engine_next(s->engine, &id, why);
    return err == 0 ? engine_force(s->engine, (id + 1) % 100, why) : err;
}

/* Seconds that a token typically takes, from here on. */
static int decode(struct session *s, double *typical, struct problems *why)
{
    double took[TOKENS];
    int err = 0;
    for (int i = 0; err >= 0 && i < TOKENS; i++) {
        double start = clock_seconds();
        err = decode_token(s, why);
        took[i] = clock_seconds() - start;
    }
    /* the first token only draws: its logits came with the prompt */
    *typical = err < 0 ? 0 : middle(took + 1, TOKENS - 1);
    return err < 0 ? err : 0;
}

/* Decoding by itself, and the rate at which memory can be read right before and after. */
static int measure_words(struct bench *b, struct session *s, struct problems *why)
{
    double typical;
    int err = ask_question(b, s, why);
    if (err == 0)
        err = engine_answer(s->engine, why);
    double rate = device_read_rate(s->dev, b->read_buffer, b->read_bytes);
    if (err == 0)
        err = decode(s, &typical, why);
    if (err < 0)
        return err;
    rate = fmax(rate, device_read_rate(s->dev, b->read_buffer, b->read_bytes));
    note(b, READ_GB_S, rate / 1e9);
    note(b, THINKER_TOK_S, 1.0 / typical);
    note(b, FLOOR_SHARE, (double)token_bytes(s->model) / rate / typical);
    return 0;
}

/* A conversation of `long_context` positions, and decoding behind it. */
static int measure_long(struct bench *b, struct session *s, struct problems *why)
{
    char *text = malloc((size_t)b->long_context + 1);
    int err = text == NULL ? -ENOMEM : engine_rewind(s->engine, b->base, why);
    if (err < 0)
        goto out;
    int room = b->long_context - b->base - 16;
    for (int i = 0; i < room; i++)
        text[i] = "long ago "[i % 9];
    text[max_int(room, 0)] = '\0';
    err = engine_turn(s->engine, why);
    if (err == 0)
        err = engine_text(s->engine, text, why);
    if (err == 0)
        err = engine_answer(s->engine, why);
    while (err >= 0 && engine_length(s->engine) < b->long_context)
        err = decode_token(s, why);
    int length = engine_length(s->engine);
    for (int i = 0; err >= 0 && i < b->runs; i++) {
        double typical;
        err = decode(s, &typical, why);
        if (err == 0)
            err = engine_rewind(s->engine, length, why);
        if (err == 0)
            note(b, LONG_TOK_S, 1.0 / typical);
    }
out:
    free(text);
    return err < 0 ? err : 0;
}

static void note_reply(struct bench *b, struct session *s, const struct reply *r)
{
    const struct reply_stats *st = &r->stats;
    if (st->frames == 0)
        return;
    double sound_s = (double)st->samples / 12.5 / s->model->config.code2wav.frame_samples;
    note(b, RTF, st->last_sound_s / sound_s);
}

/* A reply, from the last piece of the question on. */
static int measure_reply(struct bench *b, struct session *s, struct problems *why)
{
    struct reply r = {0};
    struct reply_piece p;
    const struct reply_opts o = {.min_tokens = WORDS, .max_tokens = WORDS, .max_frames = b->frames};
    bool word = false, sound = false;
    int err = ask_most(b, s, why);
    double start = clock_seconds();
    if (err == 0)
        err = ask_last(b, s, why);
    if (err == 0)
        err = reply_begin(&r, s, &o, why);
    while (err == 0 && (err = reply_next(&r, &p, why)) > 0) {
        double now = clock_seconds();
        if (err == REPLY_TEXT && !word)
            note(b, FIRST_TOKEN_MS, 1e3 * (now - start));
        if (err == REPLY_SOUND && !sound)
            note(b, FIRST_SOUND_MS, 1e3 * (now - start));
        word = word || err == REPLY_TEXT;
        sound = sound || err == REPLY_SOUND;
        err = 0;
    }
    if (!b->read_resident)
        watch_memory(b);
    if (err == 0)
        note_reply(b, s, &r);
    reply_end(&r);
    return err;
}

/* Decodes words for as long as somebody speaks beside it. */
struct beside {
    struct session *s;
    struct thread thread;
    int from; /* position to which it returns when the context is full */
    int tokens, err;
    atomic_bool stop;
};

static void *decode_beside(void *arg)
{
    struct beside *d = arg;
    while (d->err >= 0 && !atomic_load(&d->stop)) {
        d->err = decode_token(d->s, NULL);
        d->tokens++;
        if (d->err >= 0 && engine_room(d->s->engine) < 2)
            d->err = engine_rewind(d->s->engine, d->from, NULL);
    }
    return NULL;
}

/* One frame of speech; its words are there. */
static int speak(struct bench *b, struct session *s, float *pcm, double *took)
{
    struct codec_frame frame;
    double start = clock_seconds();
    int got = talker_next(s->talker, &frame);
    double half = clock_seconds();
    if (got <= 0)
        return got == 0 ? -EPROTO : got;
    got = code2wav_next(s->code2wav, frame.codes, 1, pcm);
    double end = clock_seconds();
    *took = end - start;
    if (b != NULL) {
        note(b, FRAME_MS, 1e3 * (half - start));
        note(b, CODE2WAV_MS, 1e3 * (end - half));
    }
    return got < 0 ? got : 0;
}

/* Prompt and words of b->frames frames, and the first frame, which is not like the others. */
static int speech_begin(struct bench *b, struct session *s, float *pcm, struct problems *why)
{
    struct prompt_rows rows;
    double took;
    int err = ask_question(b, s, why);
    if (err == 0)
        err = engine_answer(s->engine, why);
    if (err < 0)
        return err;
    engine_prompt(s->engine, &rows);
    err = talker_prompt(s->talker, &rows, why);
    code2wav_reset(s->code2wav);
    for (int i = 0; err == 0 && i <= b->frames; i++)
        err = talker_text(s->talker, i % 100);
    return err < 0 ? err : speak(NULL, s, pcm, &took);
}

/* Speech that ends early (random weights may say that they are done) counts as far as it went. */
static int measure_speech(struct bench *b, struct session *s, struct problems *why)
{
    float *pcm = malloc((size_t)s->model->config.code2wav.frame_samples * sizeof(float));
    double took;
    int err = pcm == NULL ? -ENOMEM : speech_begin(b, s, pcm, why);
    for (int i = 1; err == 0 && i < b->frames; i++)
        err = speak(b, s, pcm, &took);
    free(pcm);
    return err == -EPROTO ? 0 : err;
}

/* The same while the Thinker decodes on its own handle of the device. */
static int measure_beside(struct bench *b, struct session *s, struct problems *why)
{
    float *pcm = malloc((size_t)s->model->config.code2wav.frame_samples * sizeof(float));
    double took, all = 0, late = 0;
    int frames = 0, err = pcm == NULL ? -ENOMEM : speech_begin(b, s, pcm, why);
    if (err < 0)
        goto out;
    struct beside d = {.s = s, .from = engine_length(s->engine)};
    double start = clock_seconds();
    err = thread_start(&d.thread, "think", decode_beside, &d);
    if (err < 0)
        goto out;
    for (; err == 0 && frames < b->frames - 1; frames++) {
        err = speak(NULL, s, pcm, &took);
        if (err < 0)
            break;
        all += took;
        late = fmax(late, took);
    }
    atomic_store(&d.stop, true);
    thread_join(&d.thread);
    if (frames > 0) {
        note(b, BESIDE_RTF, all / frames * 12.5);
        note(b, BESIDE_LATE_MS, 1e3 * late);
        note(b, BESIDE_TOK_S, d.tokens / (clock_seconds() - start));
    }
    err = d.err < 0 ? d.err : err;
out:
    free(pcm);
    return err == -EPROTO ? 0 : err;
}

/* Memory to measure the read rate with: where the weights are. */
static int take_read_buffer(struct bench *b, struct session *s)
{
    if (s->dev->load != NULL) {
        b->read_bytes = READ_FAR;
        b->read_buffer = s->dev->op->alloc(s->dev, b->read_bytes);
        return b->read_buffer != NULL ? 0 : -ENOMEM;
    }
    b->read_bytes = READ_BYTES;
    return posix_memalign(&b->read_buffer, 1 << 21, READ_BYTES) == 0 ? 0 : -ENOMEM;
}

static void release_read_buffer(struct bench *b, struct session *s)
{
    if (s->dev->load != NULL)
        s->dev->op->release(s->dev, b->read_buffer);
    else
        free(b->read_buffer);
    b->read_buffer = NULL;
}

static void look_at_device(struct bench *b, struct session *s)
{
    struct plan_memory m = plan_memory(s->dev);
    if (m.device == NULL)
        return;
    b->device =
        (struct plan_device){.total = m.total, .used = m.total - m.unused, .planned = s->planned};
}

static int one_run(struct bench *b, struct session *s, struct encoder *e, const float *mel,
                   struct problems *why)
{
    int err = measure_reply(b, s, why);
    if (!b->read_resident) {
        look_at_device(b, s);
        err = err == 0 ? take_read_buffer(b, s) : err;
        if (err == 0 && s->dev->load == NULL)
            memset(b->read_buffer, 1, b->read_bytes);
        b->read_resident = true;
    }
    if (err == 0)
        err = measure_hearing(b, s, why);
    if (err == 0)
        measure_encoder(b, s, e, mel);
    if (err == 0)
        err = measure_words(b, s, why);
    if (err == 0 && s->talker != NULL)
        err = measure_speech(b, s, why);
    if (err == 0 && s->talker != NULL && s->speech != s->dev)
        err = measure_beside(b, s, why);
    return err;
}

static int runs(struct bench *b, struct session *s, struct encoder *e, const float *mel,
                struct problems *why)
{
    int err = 0;
    for (int i = -1; err == 0 && i < b->runs; i++) { /* the first run warms up and does not count */
        err = one_run(b, s, e, mel, why);
        for (int f = 0; i < 0 && f < FIGURES; f++)
            b->figure[f].n = 0;
        if (isatty(STDERR_FILENO))
            fprintf(stderr, "\rrun %d of %d", i + 1, b->runs);
    }
    if (isatty(STDERR_FILENO))
        fprintf(stderr, "\r\033[K");
    if (err == 0 && b->long_context > 0)
        err = measure_long(b, s, why);
    return err;
}

int measure_all(struct bench *b, struct session *s, struct problems *why)
{
    size_t values = (size_t)FRAMES * s->model->config.audio.mel_bins;
    float *mel = calloc(values, sizeof(float));
    struct encoder *e = NULL;
    int err = mel == NULL ? -ENOMEM : make_question(b);
    b->anonymous = s->load_anonymous;
    watch_memory(b);
    for (size_t i = 0; err == 0 && i < values; i++)
        mel[i] = b->question[i % (4 * RATE)] * 4;
    if (err == 0)
        err = encoder_open(&e, s->model, s->dev);
    if (err == 0)
        err = engine_system(s->engine, system_text, why);
    b->base = engine_length(s->engine);
    if (err == 0)
        err = runs(b, s, e, mel, why);
    release_read_buffer(b, s);
    encoder_close(e);
    free(mel);
    return err;
}
