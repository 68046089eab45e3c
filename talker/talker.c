/*
 * talker/talker.c - the Talker's sequence: prompt, nine assistant rows, one row a frame.
 *
 *   user rows    audio pad: hidden_projection(Thinker's hidden row), other: P(id)
 *   assistant    P(im_start) P(assistant) P(newline)
 *                P(tts_pad) + nothink | think_bos | think_eos | speaker
 *                P(tts_bos) + codec_pad
 *                P(word 0)  + codec_bos                                         -> frame 0
 *   each frame   E(c0) + sum of E_g(c_g) + P(word f | tts_eos, then tts_pad)     -> frame f
 *
 * P(id) = text_projection(the Thinker's embedding of id); E, E_g: predictor.c. A step gives the
 * hidden state H, code 0 is drawn from codec_head H, the others by the code predictor; when code 0
 * is codec_eos the reply is over (the predictor has run for nothing then, once a reply, so that a
 * step is one piece of work without a look at its middle).
 *
 * Rows 0 to 7 of the assistant's part are the same for every reply and known before the first word.
 */
#include "talker/talker.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/util.h"
#include "model/decoder.h"
#include "talker/predictor.h"

enum {
    ROWS = 128,                /* most rows of the prompt in one pass */
    ANSWER_ROWS = 9,           /* of the assistant before the first frame */
    CONSTANT_ROWS = 8,         /* of these, before the first word */
    CODEC_ROWS = 6,            /* of these, the last ones with a codec part */
    TEXT_ROWS = 3,             /* of these, the first ones without */
    CODEC_CONTROL_IDS = 1024,  /* ids at the end of the codec vocabulary that are no codes */
    DEFAULT_POSITIONS = 8192,  /* 11 minutes */
    RUNAWAY_FRAMES = 25,       /* 2 s after the last word are always allowed, ... */
    RUNAWAY_FRAMES_A_WORD = 8, /* ... more when there was more to say */
    OWNED_MAX = 16,
};

struct talker {
    const struct model *model;
    const struct talker_config *config;
    const struct talker_weights *w;
    struct device *dev; /* NULL while memory is only being counted */
    struct decoder *decoder;
    struct predictor *predictor;
    struct sampling sampling; /* of code 0 */
    int hidden;
    int positions;
    int max_frames;

    int32_t *ids;   /* [ROWS] */
    float *in;      /* [ROWS, thinker_hidden] */
    float *mid;     /* [ROWS, projection] */
    float *x;       /* [ROWS, hidden] */
    float *answer;  /* [ANSWER_ROWS, hidden], the last one without its word */
    float *eos;     /* [hidden] P(tts_eos) */
    float *pad;     /* [hidden] P(tts_pad) */
    float *word;    /* [hidden] P of the word of this step */
    float *row;     /* [hidden] the first frame's row of the residual stream */
    float *h;       /* [hidden] H */
    float *logits;  /* [vocab] of code 0 */
    int32_t *codes; /* [groups] of the last frame */
    uint32_t *seen; /* bitmap [vocab] of this reply's code 0 */
    uint64_t *draw; /* number of the next draw of this reply */

    int user_rows;   /* rows of the user's turns in the cache */
    int answer_rows; /* rows of the assistant's part behind them */
    int32_t *words;  /* [n_words] tokens of the answer */
    size_t words_cap;
    int n_words;
    bool ended;       /* no more words will come */
    int frames;       /* of this reply so far */
    uint32_t *spoken; /* bitmap [vocab], host: code 0 of all frames of the reply but the last */
    int32_t last;     /* code 0 of the last one */
    enum talker_stop stop;

    const struct weight **tables; /* [groups] whose rows add up to a frame's embedding */
    struct step *first, *later;   /* recorded: what makes the first frame, and each later one */

    void *owned[OWNED_MAX]; /* device memory to release */
    int n_owned;
    size_t bytes;
    bool failed;
};

/* Zeroed device memory for `count` floats or 32-bit ids. Failure is remembered, not returned, so
 * that the plan below reads as a list. */
static void *take(struct talker *t, size_t count)
{
    t->bytes += count * sizeof(float);
    if (t->dev == NULL || t->failed)
        return NULL;
    void *p = t->n_owned < OWNED_MAX ? t->dev->op->alloc(t->dev, count * sizeof(float)) : NULL;
    if (p == NULL)
        t->failed = true;
    else
        t->owned[t->n_owned++] = p;
    return p;
}

static size_t bitmap_words(const struct talker *t)
{
    return ((size_t)t->config->text.vocab + 31) / 32;
}

static void plan(struct talker *t)
{
    size_t hidden = (size_t)t->hidden;
    t->ids = take(t, ROWS);
    t->in = take(t, ROWS * (size_t)t->config->thinker_hidden);
    t->mid = take(t, ROWS * (size_t)t->config->projection);
    t->x = take(t, ROWS * hidden);
    t->answer = take(t, ANSWER_ROWS * hidden);
    t->eos = take(t, hidden);
    t->pad = take(t, hidden);
    t->word = take(t, hidden);
    t->row = take(t, hidden);
    t->h = take(t, hidden);
    t->logits = take(t, (size_t)t->config->text.vocab);
    t->codes = take(t, (size_t)t->config->groups);
    t->seen = take(t, bitmap_words(t));
    t->draw = take(t, sizeof(uint64_t) / sizeof(float));
}

static void set_up(struct talker *t, const struct talker_opts *o)
{
    t->model = o->model;
    t->config = &o->model->config.talker;
    t->w = &o->model->talker;
    t->hidden = t->config->text.hidden;
    t->positions =
        o->positions > 0 ? o->positions : min_int(DEFAULT_POSITIONS, t->config->text.max_positions);
    t->max_frames =
        o->max_frames > 0 ? o->max_frames : o->model->config.generation.talker_max_frames;
}

static struct decoder_opts decoder_options(const struct talker *t, struct device *dev)
{
    return (struct decoder_opts){.weights = &t->w->text,
                                 .device = dev,
                                 .max_positions = t->positions,
                                 .max_rows = ROWS,
                                 .kv_type = t->model->kv_type};
}

size_t talker_bytes(const struct talker_opts *o)
{
    struct talker t = {0};
    set_up(&t, o);
    plan(&t);
    const struct decoder_opts d = decoder_options(&t, NULL);
    return t.bytes + decoder_bytes(&d) + predictor_bytes(o->model);
}

/* The codec id of a speaker, or -EINVAL with the names that exist. */
static int32_t find_speaker(const struct talker_config *c, const char *name, struct problems *why)
{
    char names[SPEAKERS_MAX * (SPEAKER_NAME_MAX + 2)] = "";
    size_t len = 0;
    const char *wanted = name != NULL ? name : "ethan";
    for (int i = 0; i < c->n_speakers; i++) {
        if (strcasecmp(c->speakers[i].name, wanted) == 0)
            return c->speakers[i].id;
        len += (size_t)snprintf(names + len, sizeof(names) - len, "%s%s", i > 0 ? ", " : "",
                                c->speakers[i].name);
    }
    if (c->n_speakers > 0 && name == NULL)
        return c->speakers[0].id;
    return problem_add(why, -EINVAL, "talker: speaker \"%s\" is unknown; the model has %s", wanted,
                       c->n_speakers > 0 ? names : "none");
}

/* What the configuration reader does not know to check. */
static int check(const struct talker *t, const struct talker_opts *o, struct problems *why)
{
    const struct config *c = &t->model->config;
    int codes = t->config->text.vocab - CODEC_CONTROL_IDS, least = ANSWER_ROWS + 1;
    if (codes < 1 || codes > c->code2wav.codebook)
        return problem_add(why, -EINVAL,
                           "talker: %d codes (vocab_size less %d control ids), expected 1 to %d, "
                           "Code2Wav's codebook_size",
                           codes, CODEC_CONTROL_IDS, c->code2wav.codebook);
    if (o->newline < 0 || o->newline >= c->thinker.vocab)
        return problem_add(why, -EINVAL, "talker: newline is token %d, expected 0 to %d",
                           (int)o->newline, c->thinker.vocab - 1);
    if (t->positions < least || t->positions > t->config->text.max_positions)
        return problem_add(why, -EINVAL,
                           "talker: found a context of %d positions, expected %d to %d, its "
                           "max_position_embeddings",
                           t->positions, least, t->config->text.max_positions);
    return 0;
}

int talker_check(const struct talker_opts *o, struct problems *why)
{
    struct talker t = {0};
    if (!o->model->speech)
        return problem_add(why, -EINVAL, "talker: the model was opened without speech");
    set_up(&t, o);
    int32_t speaker = find_speaker(t.config, o->speaker, why);
    return speaker < 0 ? speaker : check(&t, o, why);
}

static struct sampling code0_sampling(const struct talker *t, const struct talker_opts *o)
{
    const struct generation_config *g = &t->model->config.generation;
    struct sampling s = {.temperature = g->talker_temperature,
                         .top_k = g->talker_top_k,
                         .top_p = g->talker_top_p,
                         .repetition_penalty = g->talker_repetition_penalty};
    if (o->sampling != NULL)
        s = *o->sampling;
    s.limit = t->config->text.vocab - CODEC_CONTROL_IDS;
    s.keep = t->config->codec_eos;
    s.seed = o->seed;
    return s;
}

static struct sampling residual_sampling(const struct talker *t, const struct talker_opts *o)
{
    const struct generation_config *g = &t->model->config.generation;
    struct sampling s = {.temperature = g->predictor_temperature,
                         .top_k = g->predictor_top_k,
                         .top_p = g->predictor_top_p};
    if (o->residual_sampling != NULL)
        s = *o->residual_sampling;
    s.limit = 0;
    s.seed = o->seed;
    return s;
}

/* y[n, hidden] = fc2(silu(fc1(in[n, thinker_hidden]))). */
static void project(struct talker *t, float *y, const struct projection *p, int n)
{
    const struct ops *op = t->dev->op;
    op->linear(t->dev, t->mid, t->in, n, &p->fc1.w, p->fc1.bias, LINEAR_SILU);
    op->linear(t->dev, y, t->mid, n, &p->fc2.w, p->fc2.bias, 0);
}

/* y[n, hidden] = P(ids[n]), n <= ROWS. */
static void project_text(struct talker *t, float *y, const int32_t *ids, int n)
{
    const struct ops *op = t->dev->op;
    op->put(t->dev, t->ids, ids, (size_t)n * sizeof(*ids));
    op->embed(t->dev, t->in, &t->model->thinker.embed, t->ids, n, 0);
    project(t, y, &t->w->text_projection, n);
}

/* y[n, hidden] = hidden_projection(rows[n, thinker_hidden]), n <= ROWS. */
static void project_sound(struct talker *t, float *y, const float *rows, int n)
{
    size_t bytes = (size_t)n * (size_t)t->config->thinker_hidden * sizeof(float);
    t->dev->op->put(t->dev, t->in, rows, bytes);
    project(t, y, &t->w->hidden_projection, n);
}

/* The assistant's rows and the markers that follow the words; computed once. */
static void prepare(struct talker *t, int32_t newline, int32_t speaker)
{
    const struct ops *op = t->dev->op;
    const struct token_ids *k = &t->model->config.tokens;
    const struct talker_config *c = t->config;
    const int32_t codec[CODEC_ROWS] = {c->codec_nothink, c->codec_think_bos, c->codec_think_eos,
                                       speaker,          c->codec_pad,       c->codec_bos};
    const int32_t text[CONSTANT_ROWS] = {k->im_start, k->assistant, newline,    k->tts_pad,
                                         k->tts_pad,  k->tts_pad,   k->tts_pad, k->tts_bos};
    size_t constant = (size_t)CONSTANT_ROWS * (size_t)t->hidden;
    op->put(t->dev, t->ids, codec, sizeof(codec));
    op->embed(t->dev, t->answer + TEXT_ROWS * t->hidden, &t->w->codec_embedding, t->ids, CODEC_ROWS,
              0);
    project_text(t, t->x, text, CONSTANT_ROWS);
    op->add(t->dev, t->answer, t->x, constant);
    project_text(t, t->eos, &k->tts_eos, 1);
    project_text(t, t->pad, &k->tts_pad, 1);
}

int talker_open(struct talker **ret, const struct talker_opts *o, struct problems *why)
{
    int err = talker_check(o, why);
    if (err < 0)
        return err;
    struct talker *t = calloc(1, sizeof(*t));
    if (t == NULL)
        return problem_add(why, -ENOMEM, "talker: no memory");
    t->dev = o->device;
    set_up(t, o);
    t->sampling = code0_sampling(t, o);
    const struct sampling residual = residual_sampling(t, o);
    const struct decoder_opts d = decoder_options(t, t->dev);
    if ((err = decoder_open(&t->decoder, &d, why)) < 0 ||
        (err = predictor_open(&t->predictor, t->model, t->dev, &residual, why)) < 0)
        goto out;
    plan(t);
    t->spoken = calloc(bitmap_words(t), sizeof(*t->spoken));
    t->tables = calloc((size_t)t->config->groups, sizeof(*t->tables));
    if (t->failed || t->spoken == NULL || t->tables == NULL) {
        err = problem_add(why, -ENOMEM, "talker: no memory for %zu bytes of buffers", t->bytes);
        goto out;
    }
    for (int g = 0; g < t->config->groups; g++)
        t->tables[g] = g > 0 ? &t->w->code_embedding[g - 1] : &t->w->codec_embedding;
    prepare(t, o->newline, find_speaker(t->config, o->speaker, NULL));
    *ret = t;
    return 0;
out:
    talker_close(t);
    return err;
}

static void begin_reply(struct talker *t)
{
    const uint64_t draw = 0;
    t->answer_rows = 0;
    t->n_words = 0;
    t->ended = false;
    t->frames = 0;
    t->stop = TALKER_SPEAKING;
    decoder_rewind(t->decoder, t->user_rows);
    memset(t->spoken, 0, bitmap_words(t) * sizeof(*t->spoken));
    t->dev->op->put(t->dev, t->seen, t->spoken, bitmap_words(t) * sizeof(*t->spoken));
    t->dev->op->put(t->dev, t->draw, &draw, sizeof(draw));
}

/* n rows of the prompt from `from` on in one pass, each run of one kind projected at once. */
static void feed_prompt(struct talker *t, const struct prompt_rows *rows, int from, int n)
{
    const int32_t *ids = rows->ids + from, pad = t->model->config.tokens.audio_pad;
    for (int i = 0, run; i < n; i += run) {
        bool sound = ids[i] == pad;
        float *x = t->x + i * t->hidden;
        for (run = 1; i + run < n && (ids[i + run] == pad) == sound;)
            run++;
        if (sound)
            project_sound(t, x, rows->hidden + (size_t)(from + i) * t->config->thinker_hidden, run);
        else
            project_text(t, x, ids + i, run);
    }
    decoder_forward(t->decoder, t->x, n, -1, NULL);
}

int talker_prompt(struct talker *t, const struct prompt_rows *rows, struct problems *why)
{
    t->user_rows = max_int(0, min_int(t->user_rows, min_int(rows->stable, rows->n)));
    begin_reply(t);
    if (rows->n > t->positions - ANSWER_ROWS) {
        t->stop = TALKER_MAX_FRAMES;
        return problem_add(why, -ENOSPC,
                           "talker: %d rows of the user's turns leave no room for speech in %d "
                           "positions",
                           rows->n, t->positions);
    }
    while (t->user_rows < rows->n) {
        int n = min_int(rows->n - t->user_rows, ROWS);
        feed_prompt(t, rows, t->user_rows, n);
        t->user_rows += n;
    }
    return 0;
}

int talker_text(struct talker *t, int32_t id)
{
    if (t->ended || id < 0 || id >= t->model->config.thinker.vocab)
        return -EINVAL;
    int err = grow_array(&t->words, &t->words_cap, (size_t)t->n_words + 1, sizeof(*t->words));
    if (err < 0)
        return err;
    t->words[t->n_words++] = id;
    return 0;
}

void talker_text_end(struct talker *t)
{
    t->ended = true;
}

/* The assistant's rows up to `to`, the last of them with the first word; returns the newest row. */
static const float *feed_answer(struct talker *t, int to)
{
    const struct ops *op = t->dev->op;
    int n = to - t->answer_rows;
    size_t row = (size_t)t->hidden;
    float *last = t->x + (n - 1) * t->hidden;
    op->copy(t->dev, t->x, t->answer + t->answer_rows * t->hidden, n * row * sizeof(float));
    if (to == ANSWER_ROWS)
        op->add(t->dev, last, t->word, row);
    decoder_forward(t->decoder, t->x, n, -1, NULL);
    t->answer_rows = to;
    return last;
}

/* The row after a frame, of its codes' embeddings and the word, through the layers (recorded). */
static const float *run_frame(struct talker *t)
{
    const struct ops *op = t->dev->op;
    op->embed_sum(t->dev, t->x, t->tables, t->codes, t->config->groups);
    op->add(t->dev, t->x, t->word, (size_t)t->hidden);
    decoder_run(t->decoder, t->x, 1, -1, NULL);
    return t->x;
}

/* The text's part of the row of frame `frames`, into `word`. */
static void place_word(struct talker *t)
{
    size_t bytes = (size_t)t->hidden * sizeof(float);
    if (t->frames < t->n_words)
        project_text(t, t->word, &t->words[t->frames], 1);
    else
        t->dev->op->copy(t->dev, t->word, t->frames == t->n_words ? t->eos : t->pad, bytes);
}

/* All codes of the frame from the newest row of the residual stream (recorded). */
static void choose(struct talker *t, const float *row)
{
    const struct ops *op = t->dev->op;
    const struct norm norm = decoder_final(t->decoder);
    const struct weight *const head[] = {&t->w->codec_head};
    op->norm_linear(t->dev, &t->logits, t->h, row, 1, &norm, head, 1);
    op->sample(t->dev, t->codes, t->logits, t->config->text.vocab, &t->sampling, t->seen, t->draw);
    predictor_frame(t->predictor, t->codes, t->h, t->draw);
}

/* Why no further frame may be made, or TALKER_SPEAKING. */
static enum talker_stop limit(const struct talker *t)
{
    int more = max_int(RUNAWAY_FRAMES, RUNAWAY_FRAMES_A_WORD * t->n_words);
    if (t->ended && t->n_words == 0)
        return TALKER_NO_TEXT;
    if (t->frames >= t->max_frames || decoder_length(t->decoder) >= t->positions)
        return TALKER_MAX_FRAMES;
    if (t->ended && t->frames - t->n_words > more)
        return TALKER_RUNAWAY;
    return TALKER_SPEAKING;
}

static void mark(uint32_t *bitmap, int32_t id)
{
    bitmap[id / 32] |= 1u << id % 32;
}

/* The step that makes frame number `frames`, all of whose input is there. */
static void step(struct talker *t, struct codec_frame *frame)
{
    const struct ops *op = t->dev->op;
    place_word(t);
    if (t->frames == 0) {
        const float *row = feed_answer(t, ANSWER_ROWS);
        op->copy(t->dev, t->row, row, (size_t)t->hidden * sizeof(float));
        if (op->step_begin(t->dev, &t->first)) {
            choose(t, t->row);
            op->step_end(t->dev, &t->first);
        }
    } else {
        mark(t->spoken, t->last);
        decoder_place(t->decoder);
        if (op->step_begin(t->dev, &t->later)) {
            choose(t, run_frame(t));
            op->step_end(t->dev, &t->later);
        }
        decoder_count(t->decoder, 1);
    }
    op->get(t->dev, frame->codes, t->codes, (size_t)t->config->groups * sizeof(int32_t));
}

int talker_next(struct talker *t, struct codec_frame *frame)
{
    if (t->stop == TALKER_SPEAKING)
        t->stop = limit(t);
    if (t->stop != TALKER_SPEAKING)
        return 0;
    if (t->frames >= t->n_words && !t->ended) {
        if (t->answer_rows < CONSTANT_ROWS)
            feed_answer(t, CONSTANT_ROWS);
        return -EAGAIN;
    }
    step(t, frame);
    if (frame->codes[0] == t->config->codec_eos) {
        t->stop = TALKER_END;
        return 0;
    }
    t->last = frame->codes[0];
    t->frames++;
    return 1;
}

enum talker_stop talker_stop_reason(const struct talker *t)
{
    return t->stop;
}

void talker_replace(struct talker *t, const int32_t *codes)
{
    const struct ops *op = t->dev->op;
    size_t bytes = bitmap_words(t) * sizeof(*t->spoken);
    uint32_t before = t->spoken[codes[0] / 32];
    t->last = codes[0];
    op->put(t->dev, t->codes, codes, (size_t)t->config->groups * sizeof(*codes));
    mark(t->spoken, t->last);
    op->put(t->dev, t->seen, t->spoken, bytes);
    t->spoken[t->last / 32] = before;
}

void talker_hidden(struct talker *t, float *hidden)
{
    t->dev->op->get(t->dev, hidden, t->h, (size_t)t->hidden * sizeof(float));
}

void talker_logits(struct talker *t, float *logits)
{
    t->dev->op->get(t->dev, logits, t->logits, (size_t)t->config->text.vocab * sizeof(float));
}

void talker_close(struct talker *t)
{
    if (t == NULL)
        return;
    predictor_close(t->predictor);
    decoder_close(t->decoder);
    for (int i = 0; i < t->n_owned; i++)
        t->dev->op->release(t->dev, t->owned[i]);
    if (t->dev != NULL) {
        t->dev->op->step_drop(t->dev, t->first);
        t->dev->op->step_drop(t->dev, t->later);
    }
    free(t->words);
    free(t->spoken);
    free(t->tables);
    free(t);
}
