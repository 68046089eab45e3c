/*
 * daemon/conversation_memory.c - what is remembered: turns that are over, with the part of their
 * answers that was heard; and forgetting the oldest when the context fills.
 *
 * A turn is kept as its sound (64 kB a second) and the ids of its answer. To forget the oldest ones
 * the sequence is rewound to the system text and the others are fed again, a second of sound at a
 * time, mostly while nobody speaks. Keys and values cannot be kept: they are rotated for positions
 * that will be others, and were computed from what is to be forgotten. Half of the context is freed
 * at once, so that this is rare: a few seconds of work after many minutes of talk.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "daemon/conversation_private.h"

enum { RECALL_PIECE = EAR_RATE, MARK_IDS = 8 };

#define CUT_MARK "..." /* behind the last word that was heard */

static void drop_oldest(struct work_side *w, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        free(w->past[i].pcm);
        free(w->past[i].text);
        free(w->past[i].ids);
    }
    if (n < w->n_past)
        memmove(w->past, w->past + n, (w->n_past - n) * sizeof(*w->past));
    w->n_past -= n;
}

/* -- A turn is over --------------------------------------------------------------------------- */

/* Says in the model's own words that the answer was cut here. */
static int mark_cut(struct work_side *w)
{
    int32_t ids[MARK_IDS];
    const struct tokenizer *t = w->session->tokenizer;
    if (!w->tell_cut || t == NULL)
        return 0;
    int n = tokenizer_encode(t, CUT_MARK, strlen(CUT_MARK), 0, ids, MARK_IDS);
    return n > 0 && n <= MARK_IDS ? engine_recall(w->session->engine, ids, n, &w->why) : 0;
}

/* Moves the turn from what is wanted to what is past. */
static int keep(struct work_side *w)
{
    struct engine *e = w->session->engine;
    int n = engine_length(e) - w->reply_at;
    int err = grow_array(&w->past, &w->past_cap, w->n_past + 1, sizeof(*w->past));
    int32_t *ids = err == 0 ? malloc(((size_t)n + 1) * sizeof(*ids)) : NULL;
    if (ids == NULL)
        return -ENOMEM;
    memcpy(ids, engine_ids(e) + w->reply_at, (size_t)n * sizeof(*ids));
    float *fitting = realloc(w->pcm, w->n * sizeof(float) + 1);
    w->past[w->n_past++] = (struct memory){.pcm = fitting != NULL ? fitting : w->pcm,
                                           .n = w->n,
                                           .text = w->text,
                                           .say = w->say,
                                           .ids = ids,
                                           .n_ids = n,
                                           .positions = engine_length(e) - w->base};
    w->recall = w->n_past;
    w->pcm = NULL;
    w->text = NULL;
    w->n = w->cap = w->fed = 0;
    return 0;
}

/* Of a long answer its end, and a mark that there was more: what was heard last counts. */
static void say_kept(struct conversation *c, uint64_t heard, int tokens, size_t bytes)
{
    struct work_side *w = &c->work;
    const char *text = bytes > 0 ? w->heard.text : "";
    struct report r = {.kind = REPORT_MEMORY,
                       .a = tokens,
                       .b = w->heard.tokens,
                       .c = (int64_t)heard};
    size_t from = 0, mark = strlen(CUT_MARK);
    if (bytes > sizeof(r.text) - 1) {
        memcpy(r.text, CUT_MARK, mark);
        from = bytes - (sizeof(r.text) - 1 - mark);
        while (from < bytes && ((unsigned char)text[from] & 0xc0) == 0x80) /* within a character */
            from++;
    }
    memcpy(r.text + (from > 0 ? mark : 0), text + from, bytes - from);
    work_report(c, &r);
}

/* The answer is over: all of it was heard, or `heard` samples were. */
int memory_close_turn(struct conversation *c, uint64_t heard, bool all)
{
    struct work_side *w = &c->work;
    struct engine *e = w->session->engine;
    size_t bytes = w->heard.len;
    int err = 0, tokens = w->heard.tokens;
    bool nothing = all && w->heard.samples == 0; /* neither said nor heard */
    if (!all)
        tokens = heard_tokens(&w->heard, heard, &bytes);
    if (nothing)
        err = engine_rewind(e, w->base, &w->why);
    else if (tokens < w->heard.tokens || engine_length(e) > w->reply_at + tokens)
        err = engine_rewind(e, min_int(w->reply_at + tokens, engine_length(e)), &w->why);
    if (err == 0 && !all && tokens < w->heard.tokens)
        err = mark_cut(w);
    say_kept(c, all ? w->heard.samples : heard, tokens, bytes);
    if (err == 0 && !nothing)
        err = keep(w);
    w->phase = AT_REST;
    w->wanted = w->cut = w->stuck = false;
    return err == -ENOSPC ? 0 : err;
}

/* -- Forgetting ------------------------------------------------------------------------------- */

/* Positions that the turn at hand will take when it is heard again. */
static int at_hand(const struct work_side *w)
{
    double seconds = (double)w->n / EAR_RATE;
    if (w->wanted && w->text != NULL)
        return (int)min_size(strlen(w->text), INT32_MAX / 2);
    return w->wanted ? (int)engine_sound_tokens(w->session->engine, seconds) : 0;
}

int memory_compact(struct conversation *c)
{
    struct work_side *w = &c->work;
    struct engine *e = w->session->engine;
    int context = engine_length(e) + engine_room(e), kept = 0;
    int most = min_int(context / 2, context - w->reserve - at_hand(w)) - w->system_at;
    size_t n = 0;
    while (n + 1 < w->n_past && kept + w->past[w->n_past - 1 - n].positions <= most)
        kept += w->past[w->n_past - 1 - n++].positions;
    size_t gone = w->n_past - n;
    drop_oldest(w, gone);
    w->recall = 0;
    w->recall_open = false;
    int err = engine_rewind(e, w->system_at, &w->why);
    struct report r = {.kind = REPORT_FORGOT,
                       .a = (int64_t)gone,
                       .b = (int64_t)n,
                       .c = (int64_t)w->system_at + kept};
    work_report(c, &r);
    return err;
}

int memory_clear(struct conversation *c, bool asked)
{
    struct work_side *w = &c->work;
    struct report r = {.kind = REPORT_FORGOT,
                       .a = (int64_t)w->n_past,
                       .c = w->system_at,
                       .asked = asked};
    drop_oldest(w, w->n_past);
    w->recall = 0;
    w->recall_open = false;
    work_report(c, &r);
    return engine_rewind(w->session->engine, w->system_at, &w->why);
}

bool memory_recalling(const struct work_side *w)
{
    return w->recall < w->n_past;
}

/* The rest of an earlier turn, once its sound has been fed. */
static int recall_answer(struct work_side *w, const struct memory *m, struct problems *why)
{
    struct engine *e = w->session->engine;
    int err = m->text == NULL ? engine_hear_end(e, why) : 0;
    if (err == 0)
        err = engine_answer(e, why);
    if (err == 0)
        err = engine_recall(e, m->ids, m->n_ids, why);
    w->recall_open = false;
    w->recall += err == 0;
    return err;
}

static int recall_piece(struct work_side *w, struct problems *why)
{
    const struct memory *m = &w->past[w->recall];
    int err = 0;
    if (!w->recall_open) {
        err = m->say ? 0 : engine_turn(w->session->engine, why);
        if (err == 0 && m->text != NULL && !m->say)
            err = engine_text(w->session->engine, m->text, why);
        w->recall_open = true;
        w->recall_fed = 0;
    }
    if (w->recall_fed == m->n)
        return err < 0 ? err : recall_answer(w, m, why);
    size_t n = min_size(RECALL_PIECE, m->n - w->recall_fed);
    if (err == 0)
        err = session_hear(w->session, m->pcm + w->recall_fed, n, why);
    w->recall_fed += n;
    return err;
}

/* What does not fit any more after all is forgotten: the conversation goes on without a past. */
int memory_recall(struct conversation *c, struct problems *why)
{
    struct work_side *w = &c->work;
    int err = recall_piece(w, why);
    if (err == 0)
        return 0;
    problems_free(why);
    return memory_clear(c, false);
}

void memory_free(struct work_side *w)
{
    drop_oldest(w, w->n_past);
    free(w->past);
}
