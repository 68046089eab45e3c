/*
 * engine/sequence.c - the sequence of positions: append, feed in passes, rewind.
 *
 * Along with the KV cache the rows that the Talker needs of the user's turns are kept: ids, and at
 * sound positions the residual stream at the input of the accepted layer (MODEL.md, Hand-over).
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "engine/private.h"

static int full(const struct engine *e, struct problems *why)
{
    return problem_add(why, -ENOSPC,
                       "the context is full: it holds %d positions, and the conversation needs "
                       "more",
                       e->context);
}

static void append(struct engine *e, int32_t id, enum kind kind)
{
    e->ids[e->length] = id;
    e->kinds[e->length] = (uint8_t)kind;
    e->length++;
    e->logits_ready = false;
    e->seen_stale = true;
}

int seq_push(struct engine *e, int32_t id, enum kind kind, struct problems *why)
{
    if (e->length == e->context)
        return full(e, why);
    int err = e->length - e->fed == ROWS ? seq_feed(e, false) : 0;
    if (err == 0)
        append(e, id, kind);
    return err;
}

int seq_push_sound(struct engine *e, const float *rows, int n, struct problems *why)
{
    size_t hidden = (size_t)e->model->config.thinker.hidden;
    for (int part; n > 0; n -= part, rows += (size_t)part * hidden) {
        if (e->length == e->context)
            return full(e, why);
        int err = e->length - e->fed == ROWS ? seq_feed(e, false) : 0;
        if (err < 0)
            return err;
        int queued = e->length - e->fed;
        part = min_int(n, min_int(ROWS - queued, e->context - e->length));
        e->dev->op->copy(e->dev, e->audio + (size_t)queued * hidden, rows,
                         (size_t)part * hidden * sizeof(float));
        for (int i = 0; i < part; i++)
            append(e, e->model->config.tokens.audio_pad, KIND_SOUND);
    }
    return 0;
}

/* Queued ids to embeddings; sound positions take the encoder's rows instead. */
static void embed_queue(struct engine *e, int n)
{
    const struct ops *op = e->dev->op;
    size_t hidden = (size_t)e->model->config.thinker.hidden;
    op->put(e->dev, e->dev_ids, e->ids + e->fed, (size_t)n * sizeof(int32_t));
    op->embed(e->dev, e->x, &e->model->thinker.embed, e->dev_ids, n, 0);
    for (int i = 0, run; i < n; i += run) {
        run = 1;
        if (e->kinds[e->fed + i] != KIND_SOUND)
            continue;
        while (i + run < n && e->kinds[e->fed + i + run] == KIND_SOUND)
            run++;
        op->copy(e->dev, e->x + i * hidden, e->audio + i * hidden, run * hidden * sizeof(float));
    }
}

/* Rows of the pass just begun that belong to the user's turns; a run of sound is fetched at once,
 * as soon as the layer that the Talker accepts is done. */
static int keep_user_rows(struct engine *e, int n)
{
    size_t hidden = (size_t)e->model->config.thinker.hidden, rows = (size_t)(e->user_n + n);
    const uint8_t *kinds = e->kinds + e->fed;
    int err = grow_array(&e->user_ids, &e->user_ids_cap, rows, sizeof(int32_t));
    if (err == 0)
        err = grow_array(&e->user_hidden, &e->user_hidden_cap, rows * hidden, sizeof(float));
    for (int i = 0, run; err == 0 && i < n; i += run) {
        for (run = 1; i + run < n && kinds[i + run] == kinds[i];)
            run++;
        if (kinds[i] == KIND_OTHER)
            continue;
        memcpy(e->user_ids + e->user_n, e->ids + e->fed + i, (size_t)run * sizeof(int32_t));
        if (kinds[i] == KIND_SOUND)
            e->dev->op->get_marked(e->dev, e->user_hidden + (size_t)e->user_n * hidden,
                                   e->tap + (size_t)i * hidden,
                                   (size_t)run * hidden * sizeof(float));
        e->user_n += run;
    }
    return err;
}

static void run_head(struct engine *e, const float *row)
{
    const struct norm norm = decoder_final(e->decoder);
    const struct weight *const head[] = {&e->model->thinker.head};
    e->dev->op->norm_linear(e->dev, &e->logits, e->last, row, 1, &norm, head, 1);
}

/* One id in, logits out: the step of every word. The id is where sampling left it. */
static void feed_one(struct engine *e, int32_t id)
{
    const struct ops *op = e->dev->op;
    if (id != e->next_id)
        op->put(e->dev, e->next, &id, sizeof(id));
    e->next_id = id;
    decoder_place(e->decoder);
    if (op->step_begin(e->dev, &e->step)) {
        op->embed(e->dev, e->x, &e->model->thinker.embed, e->next, 1, 0);
        decoder_run(e->decoder, e->x, 1, -1, NULL);
        run_head(e, e->x);
        op->step_end(e->dev, &e->step);
    }
    decoder_count(e->decoder, 1);
}

/* The queue, through the layers; the tap is needed where it holds sound. */
static void feed_many(struct engine *e, int n, bool logits)
{
    const struct model *m = e->model;
    size_t hidden = (size_t)m->config.thinker.hidden;
    bool sound = memchr(e->kinds + e->fed, KIND_SOUND, (size_t)n) != NULL;
    int tap = m->speech && sound ? m->config.talker.accept_layer : -1;
    embed_queue(e, n);
    decoder_forward(e->decoder, e->x, n, tap, e->tap);
    if (logits)
        run_head(e, e->x + (size_t)(n - 1) * hidden);
}

int seq_feed(struct engine *e, bool logits)
{
    int n = e->length - e->fed;
    if (n == 0)
        return 0;
    if (n == 1 && logits && e->kinds[e->fed] != KIND_SOUND)
        feed_one(e, e->ids[e->fed]);
    else
        feed_many(e, n, logits);
    if (e->model->speech) {
        int err = keep_user_rows(e, n);
        if (err < 0) {
            decoder_rewind(e->decoder, e->fed);
            return err;
        }
    }
    e->fed = e->length;
    e->logits_ready = logits;
    return 0;
}

void seq_rewind(struct engine *e, int length)
{
    if (length >= e->length)
        return;
    e->length = length;
    if (length < e->fed) {
        e->fed = length;
        decoder_rewind(e->decoder, length);
        e->user_n = 0;
        for (int i = 0; e->model->speech && i < length; i++)
            e->user_n += e->kinds[i] != KIND_OTHER;
        e->user_stable = min_int(e->user_stable, e->user_n);
    }
    e->logits_ready = false;
    e->seen_stale = true;
    e->plain_len = 0;
}

/* Makes the logits of the last position available: feeds the queue, or after a rewind runs the last
 * position once more. */
int seq_logits(struct engine *e)
{
    if (e->logits_ready)
        return 0;
    if (e->length == e->fed) {
        if (e->length == 0 || e->kinds[e->length - 1] == KIND_SOUND)
            return -EINVAL;
        int length = e->length;
        seq_rewind(e, length - 1);
        e->length = length; /* its id and kind are still there: it is the queue now */
    }
    return seq_feed(e, true);
}

int seq_plain(struct engine *e, const char *text)
{
    size_t n = strlen(text);
    int err = grow_array(&e->plain, &e->plain_cap, e->plain_len + n, 1);
    if (err < 0)
        return err;
    memcpy(e->plain + e->plain_len, text, n);
    e->plain_len += n;
    return 0;
}

/* Without a vocabulary (random weights made from a config alone) each byte is an id. */
static int push_bytes(struct engine *e, size_t len, enum kind kind, struct problems *why)
{
    int err = 0;
    for (size_t i = 0; err == 0 && i < len; i++)
        err = seq_push(e, (unsigned char)e->plain[i] % e->model->config.thinker.vocab, kind, why);
    return err;
}

int seq_flush_plain(struct engine *e, enum kind kind, struct problems *why)
{
    size_t len = e->plain_len;
    e->plain_len = 0;
    if (len == 0)
        return 0;
    if (e->tokenizer == NULL)
        return push_bytes(e, len, kind, why);
    int n = tokenizer_encode(e->tokenizer, e->plain, len, 0, NULL, 0);
    if (n == -EILSEQ)
        return problem_add(why, -EILSEQ, "text: found bytes that are not UTF-8, expected UTF-8");
    if (n < 0)
        return problem_add(why, n, "text of %zu bytes: %s", len, strerror(-n));
    if (n > e->context - e->length)
        return problem_add(why, -ENOSPC,
                           "the text is %d tokens long, the context has room for %d of %d", n,
                           e->context - e->length, e->context);
    int32_t *ids = malloc((size_t)n * sizeof(*ids) + 1);
    if (ids == NULL)
        return -ENOMEM;
    n = tokenizer_encode(e->tokenizer, e->plain, len, 0, ids, (size_t)n);
    int err = n < 0 ? n : 0;
    for (int i = 0; err == 0 && i < n; i++)
        err = seq_push(e, ids[i], kind, why);
    free(ids);
    return err;
}
