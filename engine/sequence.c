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

int seq_push(struct engine *e, int32_t id, enum kind kind, const float *row, struct problems *why)
{
    if (e->length == e->context)
        return problem_add(why, -ENOSPC,
                           "the context is full: it holds %d positions, and the conversation needs "
                           "more",
                           e->context);
    if (e->length - e->fed == ROWS) {
        int err = seq_feed(e, false);
        if (err < 0)
            return err;
    }
    size_t hidden = (size_t)e->model->config.thinker.hidden;
    if (kind == KIND_SOUND)
        e->dev->op->copy(e->dev, e->audio + (size_t)(e->length - e->fed) * hidden, row,
                         hidden * sizeof(float));
    e->ids[e->length] = id;
    e->kinds[e->length] = (uint8_t)kind;
    e->length++;
    e->logits_ready = false;
    e->seen_stale = true;
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

/* Rows of the pass just made that belong to the user's turns. */
static int keep_user_rows(struct engine *e, int n)
{
    size_t hidden = (size_t)e->model->config.thinker.hidden, rows = (size_t)(e->user_n + n);
    int err = grow_array(&e->user_ids, &e->user_ids_cap, rows, sizeof(int32_t));
    if (err == 0)
        err = grow_array(&e->user_hidden, &e->user_hidden_cap, rows * hidden, sizeof(float));
    for (int i = 0; err == 0 && i < n; i++) {
        if (e->kinds[e->fed + i] == KIND_OTHER)
            continue;
        e->user_ids[e->user_n] = e->ids[e->fed + i];
        if (e->kinds[e->fed + i] == KIND_SOUND)
            e->dev->op->get(e->dev, e->user_hidden + e->user_n * hidden, e->tap + i * hidden,
                            hidden * sizeof(float));
        e->user_n++;
    }
    return err;
}

int seq_feed(struct engine *e, bool logits)
{
    int n = e->length - e->fed;
    const struct model *m = e->model;
    size_t hidden = (size_t)m->config.thinker.hidden;
    if (n == 0)
        return 0;
    embed_queue(e, n);
    decoder_forward(e->decoder, e->x, n, m->speech ? m->config.talker.accept_layer : -1, e->tap);
    if (m->speech) {
        int err = keep_user_rows(e, n);
        if (err < 0) {
            decoder_rewind(e->decoder, e->fed);
            return err;
        }
    }
    e->fed = e->length;
    if (logits) {
        decoder_norm(e->decoder, e->last, e->x + (size_t)(n - 1) * hidden, 1);
        e->dev->op->linear(e->dev, e->logits, e->last, 1, &m->thinker.head, NULL, 0);
        e->logits_ready = true;
    }
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
        err = seq_push(e, (unsigned char)e->plain[i] % e->model->config.thinker.vocab, kind, NULL,
                       why);
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
        err = seq_push(e, ids[i], kind, NULL, why);
    free(ids);
    return err;
}
