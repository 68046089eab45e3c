/*
 * engine/engine.c - the conversation: ChatML around what people say, and the answer token by token.
 *
 *   [<|im_start|>system\n...<|im_end|>\n]
 *   <|im_start|>user\n ... <|audio_start|> rows <|audio_end|> ... <|im_end|>\n
 *   <|im_start|>assistant\n ... <|im_end|>\n
 *
 * Control tokens are pushed by id; text between two of them is tokenised as one piece, as the
 * reference's template does, and cannot produce a control token itself.
 */
#include "engine/engine.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "engine/private.h"

static int default_context(const struct model *m)
{
    return min_int(8192, m->config.thinker.max_positions);
}

static struct decoder_opts decoder_options(const struct engine_opts *o)
{
    return (struct decoder_opts){
        .weights = &o->model->thinker.text,
        .device = o->device,
        .max_positions = o->context ? o->context : default_context(o->model),
        .max_rows = ROWS,
        .kv_type = o->model->kv_type,
    };
}

size_t engine_bytes(const struct engine_opts *o)
{
    struct decoder_opts d = decoder_options(o);
    const struct decoder_config *c = &o->model->config.thinker;
    return decoder_bytes(&d) + encoder_bytes(o->model) +
           (3 * (size_t)ROWS * c->hidden + (size_t)c->vocab) * sizeof(float) +
           (size_t)d.max_positions * 5;
}

static int alloc_buffers(struct engine *e)
{
    const struct ops *op = e->dev->op;
    size_t hidden = (size_t)e->model->config.thinker.hidden;
    size_t vocab = (size_t)e->model->config.thinker.vocab;
    e->ids = calloc((size_t)e->context, sizeof(*e->ids));
    e->kinds = calloc((size_t)e->context, sizeof(*e->kinds));
    e->dev_ids = op->alloc(e->dev, ROWS * sizeof(int32_t));
    e->x = op->alloc(e->dev, ROWS * hidden * sizeof(float));
    e->audio = op->alloc(e->dev, ROWS * hidden * sizeof(float));
    e->tap = op->alloc(e->dev, ROWS * hidden * sizeof(float));
    e->last = op->alloc(e->dev, hidden * sizeof(float));
    e->logits = op->alloc(e->dev, vocab * sizeof(float));
    e->next = op->alloc(e->dev, sizeof(*e->next));
    e->draw = op->alloc(e->dev, sizeof(*e->draw));
    e->seen = op->alloc(e->dev, (vocab + 31) / 32 * sizeof(uint32_t));
    return e->ids && e->kinds && e->dev_ids && e->x && e->audio && e->tap && e->last && e->logits &&
                   e->next && e->draw && e->seen
               ? 0
               : -ENOMEM;
}

static struct sampling default_sampling(const struct generation_config *g)
{
    return (struct sampling){.temperature = g->temperature,
                             .top_k = g->top_k,
                             .top_p = g->top_p,
                             .repetition_penalty = g->repetition_penalty};
}

int engine_check(const struct engine_opts *o, struct problems *why)
{
    int most = o->model->config.thinker.max_positions;
    if (o->context >= 0 && o->context <= most)
        return 0;
    return problem_add(why, -EINVAL,
                       "thinker: found a context of %d positions, expected 1 to %d, its "
                       "max_position_embeddings",
                       o->context, most);
}

int engine_open(struct engine **ret, const struct engine_opts *o, struct problems *why)
{
    struct decoder_opts d = decoder_options(o);
    int err = engine_check(o, why);
    if (err < 0)
        return err;
    struct engine *e = calloc(1, sizeof(*e));
    if (e == NULL)
        return -ENOMEM;
    e->model = o->model;
    e->tokenizer = o->tokenizer;
    e->dev = o->device;
    e->next_id = -1;
    e->context = d.max_positions;
    e->sampling = o->sampling ? *o->sampling : default_sampling(&o->model->config.generation);
    e->end_of_text = o->tokenizer ? tokenizer_find(o->tokenizer, "<|endoftext|>") : -1;
    err = decoder_open(&e->decoder, &d, why);
    if (err == 0)
        err = alloc_buffers(e);
    if (err == 0)
        err = sound_open(&e->sound, o->model, o->device);
    if (err < 0) {
        engine_close(e);
        return problem_add(why, err, "no memory for %zu bytes of the Thinker's caches and buffers",
                           engine_bytes(o));
    }
    *ret = e;
    return 0;
}

static int push(struct engine *e, int32_t id, enum kind kind, struct problems *why)
{
    int err = seq_flush_plain(e, kind, why);
    return err < 0 ? err : seq_push(e, id, kind, why);
}

/* Ends the segment that is open, wherever a rewind left it: <|im_end|> and a newline. */
static int close_segment(struct engine *e, struct problems *why)
{
    int32_t end = e->model->config.tokens.im_end;
    int n = e->length, err = 0;
    if (n == 0 || (n >= 2 && e->ids[n - 2] == end))
        return 0;
    enum kind kind = e->kinds[n - 1] == KIND_OTHER ? KIND_OTHER : KIND_USER;
    if (e->ids[n - 1] != end)
        err = push(e, end, kind, why);
    if (err == 0)
        err = seq_plain(e, "\n");
    return err < 0 ? err : seq_flush_plain(e, kind, why);
}

/* <|im_start|>role\n; the newline waits, so that it is tokenised together with the text behind. */
static int open_segment(struct engine *e, int32_t role, enum kind kind, struct problems *why)
{
    int err = seq_push(e, e->model->config.tokens.im_start, kind, why);
    if (err == 0)
        err = seq_push(e, role, kind, why);
    return err < 0 ? err : seq_plain(e, "\n");
}

int engine_system(struct engine *e, const char *text, struct problems *why)
{
    if (e->length > 0)
        return problem_add(why, -EINVAL, "system text: comes before the first turn, not after it");
    int err = open_segment(e, e->model->config.tokens.system, KIND_OTHER, why);
    if (err == 0)
        err = seq_plain(e, text);
    if (err == 0)
        err = seq_flush_plain(e, KIND_OTHER, why);
    return err < 0 ? err : close_segment(e, why);
}

int engine_turn(struct engine *e, struct problems *why)
{
    e->sound.phase = SOUND_NONE;
    e->plain_len = 0;
    int err = close_segment(e, why);
    return err < 0 ? err : open_segment(e, e->model->config.tokens.user, KIND_USER, why);
}

int engine_text(struct engine *e, const char *text, struct problems *why)
{
    int err = 0;
    if (e->sound.phase == SOUND_OPEN)
        err = engine_hear_end(e, why);
    e->sound.phase = SOUND_NONE; /* what follows the sound makes it final */
    return err < 0 ? err : seq_plain(e, text);
}

int engine_answer(struct engine *e, struct problems *why)
{
    int err = e->sound.phase == SOUND_OPEN ? engine_hear_end(e, why) : 0;
    if (err == 0)
        err = seq_flush_plain(e, KIND_USER, why);
    if (err == 0)
        err = close_segment(e, why);
    if (err == 0)
        err = open_segment(e, e->model->config.tokens.assistant, KIND_OTHER, why);
    if (err == 0)
        err = seq_flush_plain(e, KIND_OTHER, why);
    return err < 0 ? err : seq_logits(e);
}

/* The repetition penalty covers every id of the sequence. */
static int refresh_seen(struct engine *e)
{
    size_t words = ((size_t)e->model->config.thinker.vocab + 31) / 32;
    uint32_t *bits = calloc(words, sizeof(*bits));
    if (bits == NULL)
        return -ENOMEM;
    for (int i = 0; i < e->length; i++)
        bits[e->ids[i] / 32] |= 1u << e->ids[i] % 32;
    e->dev->op->put(e->dev, e->seen, bits, words * sizeof(*bits));
    free(bits);
    e->seen_stale = false;
    return 0;
}

static bool penalised(const struct sampling *s)
{
    return s->repetition_penalty > 0.0f && s->repetition_penalty != 1.0f;
}

static bool stops(const struct engine *e, int32_t id)
{
    return id == e->model->config.tokens.im_end || (id >= 0 && id == e->end_of_text);
}

static int accept(struct engine *e, int32_t id, struct problems *why)
{
    if (stops(e, id))
        return 0;
    int err = seq_push(e, id, KIND_OTHER, why);
    return err < 0 ? err : 1;
}

int engine_next(struct engine *e, int32_t *id, struct problems *why)
{
    const struct ops *op = e->dev->op;
    bool penalty = penalised(&e->sampling);
    int err = seq_logits(e);
    if (err == 0 && penalty && e->seen_stale)
        err = refresh_seen(e);
    if (err < 0)
        return err;
    op->sample(e->dev, e->next, e->logits, e->model->config.thinker.vocab, &e->sampling,
               penalty ? e->seen : NULL, e->draw);
    op->get(e->dev, id, e->next, sizeof(*id));
    e->next_id = *id;
    return accept(e, *id, why);
}

void engine_ahead(struct engine *e)
{
    if (e->dev->load != NULL && !e->kept.on)
        (void)seq_logits(e); /* what fails will fail again in engine_next, and be said there */
}

int engine_force(struct engine *e, int32_t id, struct problems *why)
{
    int err = seq_logits(e);
    return err < 0 ? err : accept(e, id, why);
}

int engine_length(const struct engine *e)
{
    return e->length;
}

int engine_room(const struct engine *e)
{
    return e->context - e->length;
}

double engine_sound_tokens(const struct engine *e, double seconds)
{
    const struct audio_config *c = &e->model->config.audio;
    double frames = seconds * MEL_RATE / MEL_HOP;
    if (frames > 1e9)
        return frames;
    return encoder_sound_tokens(c, (int)frames) + 2;
}

int engine_rewind(struct engine *e, int length, struct problems *why)
{
    if (length < 0 || length > e->length)
        return problem_add(why, -EINVAL, "rewind: found position %d, expected 0 to %d", length,
                           e->length);
    if (length > 0 && length < e->length && e->kinds[length - 1] == KIND_SOUND)
        return problem_add(why, -EINVAL, "rewind: position %d lies inside a sound", length);
    seq_rewind(e, length);
    e->plain_len = 0;
    e->sound.phase = SOUND_NONE;
    return 0;
}

const int32_t *engine_ids(const struct engine *e)
{
    return e->ids;
}

void engine_prompt(struct engine *e, struct prompt_rows *rows)
{
    *rows = (struct prompt_rows){.n = e->user_n,
                                 .stable = e->user_stable,
                                 .ids = e->user_ids,
                                 .hidden = e->user_hidden};
    e->user_stable = e->user_n;
}

void engine_state(struct engine *e, float *state)
{
    e->dev->op->get(e->dev, state, e->last,
                    (size_t)e->model->config.thinker.hidden * sizeof(float));
}

void engine_keep(struct engine *e)
{
    e->kept.on = true;
}

void engine_logits(struct engine *e, float *logits)
{
    e->dev->op->get(e->dev, logits, e->logits,
                    (size_t)e->model->config.thinker.vocab * sizeof(float));
}

int engine_mel(const struct engine *e, const float **mel)
{
    *mel = e->kept.mel;
    return e->kept.frames;
}

int engine_encoded(const struct engine *e, const float **rows)
{
    *rows = e->kept.rows;
    return e->kept.tokens;
}

void engine_close(struct engine *e)
{
    if (e == NULL)
        return;
    void *const buffers[] = {e->dev_ids, e->x,    e->audio, e->tap, e->last,
                             e->logits,  e->next, e->draw,  e->seen};
    for (size_t i = 0; i < ARRAY_LEN(buffers); i++)
        e->dev->op->release(e->dev, buffers[i]);
    e->dev->op->step_drop(e->dev, e->step);
    decoder_close(e->decoder);
    sound_close(&e->sound);
    free(e->ids);
    free(e->kinds);
    free(e->plain);
    free(e->user_ids);
    free(e->user_hidden);
    free(e->kept.mel);
    free(e->kept.rows);
    free(e);
}
