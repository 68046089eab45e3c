/*
 * daemon/conversation_work.c - the side that touches the model: how a turn should be (said by the
 * floor's orders) and how it is in the engine, and one small piece of work at a time that brings
 * the second nearer to the first.
 *
 *   AT_REST --engine_turn--> OPEN --all heard--> HEARD --reply_begin--> ANSWERING --> ANSWERED
 *                             ^                    |                       |              |
 *                             +---- roll back -----+-----------------------+--------------+
 *
 * Orders cost nothing but a rewind and are obeyed before each piece, so nothing is computed for a
 * turn or an answer that has been given up, be it ever so far behind. The turn's sound is kept
 * until the turn is over: it may have to be heard again behind a shorter memory.
 */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "daemon/conversation_private.h"

enum {
    PIECE = EAR_RATE / 10,  /* samples heard at once */
    LEAST = EAR_RATE / 100, /* less is no sound to the engine */
    TOKENS = 256,           /* of an answer, unless told */
    RESERVE = 1150,         /* positions for a question of half a minute and a minute's answer */
    MEASURED_FRAMES = 6,    /* from here on the reply's own rate counts */
    REPORTS_FREE = 64,      /* words leave so much room to what matters */
};

#define FRAME_S   0.08
#define FAST      0.85 /* seconds of work for a second of speech: below, a reply needs no lead */
#define UNKNOWN_S 3.0  /* what is taken to be still unsaid while the words go on */

void work_report(struct conversation *c, struct report *r)
{
    struct work_side *w = &c->work;
    r->turn = w->turn;
    r->answer = w->answer;
    ring_write(c->reports, r, 1);
}

static void report(struct conversation *c, enum report_kind kind)
{
    struct report r = {.kind = kind};
    work_report(c, &r);
}

/* -- Failures --------------------------------------------------------------------------------- */

static void stop_reply(struct conversation *c)
{
    struct work_side *w = &c->work;
    if (w->replying)
        reply_end(&w->reply);
    w->replying = false;
    atomic_store(&c->making, false);
}

/* The turn stands still until the floor says how to go on. */
static void fail(struct conversation *c, int err)
{
    struct work_side *w = &c->work;
    struct report r = {.kind = err == -ENOSPC ? REPORT_FULL : REPORT_FAILED};
    snprintf(r.text, sizeof(r.text), "%s", w->why.n > 0 ? w->why.text[0] : strerror(-err));
    problems_free(&w->why);
    stop_reply(c);
    w->stuck = true;
    work_report(c, &r);
}

/* -- Orders ----------------------------------------------------------------------------------- */

/* Sound up to `to` belongs to the turn, or to nobody. */
static int collect(struct conversation *c, uint64_t to)
{
    struct work_side *w = &c->work;
    size_t n = (size_t)(to - ring_read_at(c->sound));
    if (!w->wanted || w->ended) {
        ring_read_skip(c->sound, to);
        return 0;
    }
    int err = grow_array(&w->pcm, &w->cap, w->n + n, sizeof(float));
    if (err == 0)
        w->n += ring_read(c->sound, w->pcm + w->n, n);
    return err;
}

/* The engine forgets the turn, if it has any of it. */
static int take_back(struct conversation *c)
{
    struct work_side *w = &c->work;
    stop_reply(c);
    int err = w->phase != AT_REST ? engine_rewind(w->session->engine, w->base, &w->why) : 0;
    w->phase = AT_REST;
    w->fed = 0;
    return err;
}

static int order_hear(struct conversation *c, const struct order *o)
{
    struct work_side *w = &c->work;
    int err = take_back(c); /* of a turn that was not closed */
    if (err < 0)
        return err;
    w->wanted = true;
    w->turn = o->turn;
    w->n = 0;
    free(w->text);
    w->text = o->text;
    w->say = o->say;
    w->ended = w->answering = w->cut = w->stuck = false;
    return 0;
}

static int order_close(struct conversation *c)
{
    struct work_side *w = &c->work;
    return w->wanted && w->phase == ANSWERED ? memory_close_turn(c, 0, true) : 0;
}

static int order_roll_back(struct conversation *c)
{
    struct work_side *w = &c->work;
    int err = 0;
    stop_reply(c);
    if (w->phase >= HEARD)
        err = engine_hear_resume(w->session->engine, &w->why);
    if (w->phase >= HEARD)
        w->phase = OPEN;
    w->ended = w->answering = false;
    return err;
}

static int order_truncate(struct conversation *c, uint64_t heard)
{
    struct work_side *w = &c->work;
    if (!w->wanted)
        return 0;
    stop_reply(c);
    w->answering = false;
    if (w->phase >= ANSWERING)
        return memory_close_turn(c, heard, false);
    w->cut = true; /* closed when all of the question has been heard */
    w->stuck = false;
    return 0;
}

/* Between turns, or because this one did not fit: then it is heard again. */
static int order_compact(struct conversation *c)
{
    struct work_side *w = &c->work;
    int err = take_back(c);
    w->stuck = false;
    return err < 0 ? err : memory_compact(c);
}

static int obey(struct conversation *c, const struct order *o)
{
    struct work_side *w = &c->work;
    int err = collect(c, o->sound);
    if (err < 0)
        return err;
    switch (o->kind) {
    case ORDER_HEAR:
        return order_hear(c, o);
    case ORDER_HEAR_END:
        w->ended = w->answering = true;
        w->answer = o->answer;
        return 0;
    case ORDER_ROLL_BACK:
        return order_roll_back(c);
    case ORDER_TRUNCATE:
        return order_truncate(c, o->heard);
    case ORDER_CLOSE:
        return order_close(c);
    case ORDER_FORGET:
        w->wanted = w->stuck = false;
        return take_back(c);
    case ORDER_CLEAR:
        w->wanted = w->stuck = w->cut = false;
        err = take_back(c);
        return err < 0 ? err : memory_clear(c, true);
    default:
        return order_compact(c);
    }
}

/* A turn that is being closed has to be closed before the next one opens. */
static bool obeyable(const struct work_side *w, const struct order *o)
{
    return !w->cut || w->stuck || o->kind != ORDER_HEAR;
}

static const struct order *next_order(struct conversation *c)
{
    const void *o;
    return ring_read_begin(c->orders, &o, 1) == 1 && obeyable(&c->work, o) ? o : NULL;
}

/* What the ring of sound holds beyond the last order belongs to the turn, if it is open. Orders are
 * written before the sound that follows them, so the place is read first. */
static int catch_up(struct conversation *c)
{
    uint64_t to = ring_write_at(c->sound);
    return ring_read_avail(c->orders) == 0 ? collect(c, to) : 0;
}

static int obey_all(struct conversation *c)
{
    const struct order *o;
    int err = 0;
    while (err == 0 && (o = next_order(c)) != NULL) {
        const struct order copy = *o;
        ring_read_end(c->orders, 1);
        err = obey(c, &copy);
    }
    return err < 0 ? err : catch_up(c);
}

/* -- Pieces: hearing -------------------------------------------------------------------------- */

static int open_turn(struct conversation *c)
{
    struct work_side *w = &c->work;
    w->base = engine_length(w->session->engine);
    int err = engine_turn(w->session->engine, &w->why);
    if (err == 0) {
        w->phase = OPEN;
        w->fed = 0;
    } else {
        engine_rewind(w->session->engine, w->base, NULL);
    }
    return err;
}

static int hear_piece(struct conversation *c)
{
    struct work_side *w = &c->work;
    int err = w->phase == AT_REST ? open_turn(c) : 0;
    size_t n = min_size(PIECE, w->n - w->fed);
    if (err == 0)
        err = session_hear(w->session, w->pcm + w->fed, n, &w->why);
    w->fed += n;
    return err;
}

/* A written turn; what we are to say is no turn of the person's. */
static int read_text(struct conversation *c)
{
    struct work_side *w = &c->work;
    struct engine *e = w->session->engine;
    int err = 0;
    w->base = engine_length(e);
    if (!w->say && (err = open_turn(c)) == 0)
        err = engine_text(e, w->text, &w->why);
    return err;
}

/* The words to be said, if they are given. */
static int given_words(struct work_side *w, struct reply_opts *o)
{
    size_t len = w->say ? strlen(w->text) : 0;
    if (len == 0)
        return 0;
    const struct tokenizer *t = w->session->tokenizer;
    int n = tokenizer_encode(t, w->text, len, 0, NULL, 0);
    if (n < 0)
        return n;
    free(w->ids);
    w->ids = malloc(((size_t)n + 1) * sizeof(*w->ids));
    if (w->ids == NULL)
        return -ENOMEM;
    o->ids = w->ids;
    o->n_ids = o->max_tokens = tokenizer_encode(t, w->text, len, 0, w->ids, (size_t)n);
    return o->n_ids < 0 ? o->n_ids : 0;
}

/* Does it sound finished? What the answer begins from tells. */
static void judge_end(struct conversation *c)
{
    struct work_side *w = &c->work;
    struct report r = {.kind = REPORT_LIKELY};
    if (w->session->end_of_turn == NULL || w->text != NULL)
        return;
    engine_state(w->session->engine, w->state);
    r.probability = end_of_turn_probability(w->session->end_of_turn, w->state);
    work_report(c, &r);
}

/* The turn's end, in two pieces: the rest of the sound; the rest of the prompt. */
static int begin_answer(struct conversation *c)
{
    struct work_side *w = &c->work;
    struct reply_opts o = {.max_tokens = w->max_tokens};
    int err = given_words(w, &o);
    if (err < 0)
        return err;
    err = w->answering ? reply_begin(&w->reply, w->session, &o, &w->why)
                       : engine_answer(w->session->engine, &w->why);
    w->replying = w->answering;
    if (err < 0)
        return err;
    w->reply_at = engine_length(w->session->engine);
    w->phase = ANSWERING;
    w->begun = w->announced = false;
    w->cost = 0;
    heard_begin(&w->heard);
    atomic_store(&c->making, w->answering);
    if (w->answering)
        judge_end(c);
    return w->cut ? memory_close_turn(c, 0, false) : 0;
}

static int prompt_piece(struct conversation *c)
{
    struct work_side *w = &c->work;
    if (w->phase == HEARD)
        return begin_answer(c);
    int err = w->text != NULL ? read_text(c) : engine_hear_end(w->session->engine, &w->why);
    if (err == 0)
        w->phase = HEARD;
    return err;
}

/* -- Pieces: answering ------------------------------------------------------------------------ */

/* Whether the player takes a frame now. */
static bool has_room(struct conversation *c)
{
    struct work_side *w = &c->work;
    if (!w->begun)
        w->begun = player_begin(c->player, player_tag(w->answer)) == 0;
    return w->begun && player_room(c->player) >= FRAME_MOST;
}

/* A reply that is made faster than it is spoken may sound at once. Else the lead must last: what
 * is still to be made takes (rate - 1) times longer than what is still to be spoken. */
static bool will_last(struct conversation *c)
{
    struct work_side *w = &c->work;
    double made = (double)w->reply.stats.samples / SPEECH_RATE;
    double rate = w->reply.stats.frames >= MEASURED_FRAMES ? w->cost / made : w->rate;
    if (w->cost <= 0 || player_room(c->player) < FRAME_MOST) /* not measured; as much as goes */
        return true;
    if (rate < FAST)
        return rate > 0;
    double all = fmax(heard_seconds(&w->heard), w->heard.text_done ? 0 : made + UNKNOWN_S);
    return made >= (all - made) * (rate - 1) + 2 * FRAME_S;
}

static void add_word(struct conversation *c, const char *text)
{
    struct report r = {.kind = REPORT_WORD};
    for (size_t n = strlen(text); n > 0 && ring_write_room(c->reports) > REPORTS_FREE;) {
        size_t k = min_size(n, sizeof(r.text) - 1);
        memcpy(r.text, text, k);
        r.text[k] = '\0';
        r.a = (int64_t)k;
        work_report(c, &r);
        text += k;
        n -= k;
    }
}

static void finish_reply(struct conversation *c)
{
    struct work_side *w = &c->work;
    const struct reply_stats *st = &w->reply.stats;
    struct report r = {.kind = REPORT_SAID,
                       .a = st->tokens,
                       .b = (int64_t)st->samples,
                       .stop = st->stop};
    heard_text_end(&w->heard);
    heard_sound_end(&w->heard);
    player_end(c->player, player_tag(w->answer));
    snprintf(r.text, sizeof(r.text), "%s", w->heard.len > 0 ? w->heard.text : "");
    if (st->samples == 0)
        report(c, REPORT_EMPTY);
    else if (!w->announced)
        report(c, REPORT_READY);
    w->announced = true;
    work_report(c, &r);
    if (st->samples > 0 && w->cost > 0)
        w->rate = w->cost * SPEECH_RATE / (double)st->samples;
    atomic_store(&c->rate, (float)w->rate);
    stop_reply(c);
    w->phase = ANSWERED;
    if (engine_room(w->session->engine) < w->reserve)
        atomic_store(&c->crowded, true);
}

static int take_sound(struct conversation *c, const struct reply_piece *p)
{
    struct work_side *w = &c->work;
    int err = heard_sound(&w->heard, p->pcm, p->samples);
    if (err < 0)
        return err;
    player_write(c->player, player_tag(w->answer), p->pcm, p->samples); /* there is room */
    if (!w->announced && will_last(c)) {
        w->announced = true;
        report(c, REPORT_READY);
    }
    return 0;
}

static int answer_piece(struct conversation *c, enum conversation_work kind)
{
    struct work_side *w = &c->work;
    struct reply_piece p;
    int got = kind == WORK_FRAME ? reply_next(&w->reply, &p, &w->why)
                                 : reply_word(&w->reply, &p, &w->why);
    int err = got < 0 ? got : 0;
    if (got == REPLY_TEXT && (err = heard_word(&w->heard, p.text)) == 0)
        add_word(c, p.text);
    if (got == REPLY_SOUND)
        err = take_sound(c, &p);
    if (err == 0 && w->reply.words_done && !w->heard.text_done)
        heard_text_end(&w->heard);
    if (err == 0 && w->reply.words_done && w->reply.speech_done)
        finish_reply(c);
    return err;
}

/* -- Which piece ------------------------------------------------------------------------------ */

static enum conversation_work answering_next(struct conversation *c)
{
    struct work_side *w = &c->work;
    bool room = has_room(c);
    if (reply_speaks(&w->reply) && room)
        return WORK_FRAME;
    if (!w->reply.words_done)
        return WORK_WORD;
    return w->reply.speech_done || room ? WORK_FRAME : WORK_NONE;
}

static enum conversation_work next_piece(struct conversation *c)
{
    struct work_side *w = &c->work;
    size_t rest = w->n - w->fed;
    if (memory_recalling(w))
        return WORK_MEMORY;
    if (!w->wanted || w->stuck)
        return WORK_NONE;
    if (w->phase <= OPEN && (rest >= PIECE || (rest > 0 && w->ended)))
        return WORK_HEAR;
    if (w->phase <= HEARD && w->ended)
        return WORK_PROMPT;
    return w->phase == ANSWERING && w->replying ? answering_next(c) : WORK_NONE;
}

static int do_piece(struct conversation *c, enum conversation_work kind)
{
    struct work_side *w = &c->work;
    switch (kind) {
    case WORK_MEMORY:
        return memory_recall(c, &w->why);
    case WORK_HEAR:
        return hear_piece(c);
    case WORK_PROMPT:
        if (w->n >= LEAST || w->text != NULL)
            return prompt_piece(c);
        report(c, REPORT_EMPTY); /* no sound to speak of */
        w->stuck = true;
        return 0;
    default:
        return answer_piece(c, kind);
    }
}

int conversation_next(struct conversation *c)
{
    if (next_order(c) != NULL || catch_up(c) < 0)
        return WORK_MEMORY;
    return (int)next_piece(c);
}

int conversation_work(struct conversation *c, struct problems *why)
{
    struct work_side *w = &c->work;
    bool orders = next_order(c) != NULL;
    int err = obey_all(c);
    if (err < 0)
        return problem_add(why, err, "conversation: %s",
                           w->why.n > 0 ? w->why.text[0] : strerror(-err));
    enum conversation_work kind = orders ? WORK_MEMORY : next_piece(c);
    if (!orders && kind != WORK_NONE && (err = do_piece(c, kind)) < 0)
        fail(c, err);
    w->last = kind;
    atomic_store(&c->context_used, engine_length(w->session->engine));
    return (int)kind;
}

void conversation_cost(struct conversation *c, double seconds)
{
    struct work_side *w = &c->work;
    if (w->last == WORK_WORD || w->last == WORK_FRAME)
        w->cost += seconds;
}

/* -- Open, close ------------------------------------------------------------------------------ */

int work_open(struct conversation *c, const struct conversation_opts *o, struct problems *why)
{
    struct work_side *w = &c->work;
    struct engine *e = o->session->engine;
    w->session = o->session;
    w->max_tokens = o->max_tokens ? o->max_tokens : TOKENS;
    w->tell_cut = o->tell_cut;
    int err = engine_rewind(e, 0, why);
    if (err == 0 && o->system != NULL)
        err = engine_system(e, o->system, why);
    w->system_at = engine_length(e);
    atomic_store(&c->context_used, w->system_at);
    atomic_store(&c->context, w->system_at + engine_room(e));
    w->reserve = min_int(RESERVE, (w->system_at + engine_room(e)) / 3);
    w->state = malloc((size_t)o->session->model->config.thinker.hidden * sizeof(float));
    return w->state == NULL ? -ENOMEM : err;
}

void work_close(struct work_side *w)
{
    if (w->replying)
        reply_end(&w->reply);
    heard_free(&w->heard);
    memory_free(w);
    problems_free(&w->why);
    free(w->pcm);
    free(w->text);
    free(w->ids);
    free(w->state);
}
