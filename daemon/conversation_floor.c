/*
 * daemon/conversation_floor.c - the side that takes turns: every 10 ms what was heard, what the
 * work side reports and what the player has come to become events of turn.c, and its actions are
 * obeyed at once. Nothing here computes for long, waits, or allocates.
 */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "daemon/conversation_private.h"
#include "model/utf8.h"

enum { MS = EAR_RATE / 1000, REACH_MORE = EAR_RATE, SIGN_PERIODS = 100 };

static uint64_t power_of_two(uint64_t least)
{
    uint64_t n = 1;
    while (n < least)
        n *= 2;
    return n;
}

int floor_open(struct conversation *c, const struct conversation_opts *o, struct problems *why)
{
    struct floor_side *f = &c->floor;
    const struct vad_opts vad = {.path = o->vad};
    f->start = f->at = o->start;
    int err = turn_init(&f->turn, o->turn, o->start, why);
    if (err == 0 && o->turn != NULL && o->turn->sample_rate != 0 &&
        o->turn->sample_rate != EAR_RATE)
        err = problem_add(why, -EINVAL, "turn taking: sample_rate is %d, expected %d",
                          o->turn->sample_rate, EAR_RATE);
    if (err == 0)
        err = vad_open(&f->vad, &vad, why);
    if (err == 0)
        err = earcons_open(&f->earcons, o->rate ? o->rate : 48000);
    if (err < 0)
        return err;
    const struct turn_times *t = &f->turn.for_;
    f->past_size = power_of_two(t->preroll + 2 * t->held_max + t->silence_max + REACH_MORE);
    f->past = calloc(f->past_size, sizeof(float));
    judge_open(&f->judge);
    return f->past != NULL ? 0 : -ENOMEM;
}

void floor_close(struct floor_side *f)
{
    free(f->written);
    vad_close(f->vad);
    earcons_close(&f->earcons);
    free(f->past);
}

void conversation_event(struct conversation *c, enum turn_event_kind kind)
{
    struct floor_side *f = &c->floor;
    if (f->n_events < EVENTS_MOST)
        f->events[f->n_events++] = kind;
}

static int write_turn(struct conversation *c, const char *text, bool say)
{
    struct floor_side *f = &c->floor;
    if (f->written != NULL)
        return -EBUSY;
    if (text[0] == '\0' || !utf8_valid(text, strlen(text)))
        return -EINVAL;
    f->written = strdup(text);
    f->say = say;
    return f->written != NULL ? 0 : -ENOMEM;
}

int conversation_ask(struct conversation *c, const char *text)
{
    return write_turn(c, text, false);
}

int conversation_say(struct conversation *c, const char *text)
{
    return write_turn(c, text, true);
}

void conversation_forget(struct conversation *c)
{
    c->floor.clear = true;
}

void conversation_earcon(struct conversation *c, enum turn_earcon e)
{
    if ((unsigned)e < TURN_EARCONS && e != TURN_EARCON_NONE)
        player_earcon(c->player, c->floor.earcons.pcm[e], c->floor.earcons.n[e]);
}

/* -- To the work side ------------------------------------------------------------------------- */

static void send_sound(struct conversation *c, const float *pcm, size_t n)
{
    if (ring_write(c->sound, pcm, n) < n)
        c->floor.overflowed = true;
}

/* Everything heard from sample `from` on. */
static void send_past(struct conversation *c, uint64_t from)
{
    struct floor_side *f = &c->floor;
    uint64_t n = f->at - from;
    if (n > f->past_size)
        n = f->past_size;
    while (n > 0) {
        uint64_t at = (f->at - n) & (f->past_size - 1);
        uint64_t k = f->past_size - at < n ? f->past_size - at : n;
        send_sound(c, f->past + at, (size_t)k);
        n -= k;
    }
}

static void send(struct conversation *c, enum order_kind kind, const struct turn_actions *a,
                 uint64_t heard)
{
    struct order o = {.kind = kind,
                      .turn = a->turn,
                      .answer = a->answer,
                      .sound = ring_write_at(c->sound),
                      .heard = heard};
    if (kind == ORDER_HEAR)
        c->floor.wrote = c->floor.written != NULL;
    if (kind == ORDER_HEAR && c->floor.written != NULL) {
        o.text = c->floor.written;
        o.say = c->floor.say;
        c->floor.written = NULL;
    }
    if (ring_write(c->orders, &o, 1) == 1)
        return;
    free(o.text);
    conversation_event(c, TURN_MODEL_FAILED); /* the work side hangs */
}

static void hear(struct conversation *c, enum order_kind kind, const struct turn_actions *a)
{
    c->floor.hearing = true; /* a written turn ends with the same step, and has no past */
    c->floor.overflowed = false;
    send(c, kind, a, 0);
    send_past(c, a->hear_from);
}

/* -- What turn taking says -------------------------------------------------------------------- */

static int delay_ms(const struct conversation *c)
{
    uint64_t rate = c->opts.rate ? (uint64_t)c->opts.rate : 48000;
    return (int)(c->floor.delay * 1000 / rate);
}

static void obey_player(struct conversation *c, const struct turn_actions *a)
{
    struct floor_side *f = &c->floor;
    if (a->set & TURN_DO_HOLD)
        player_hold(c->player);
    if (a->set & TURN_DO_DROP)
        player_drop(c->player, player_tag(a->answer));
    if (a->set & (TURN_DO_PLAY | TURN_DO_RESUME))
        player_play(c->player, player_tag(a->answer));
    if (a->set & TURN_DO_EARCON)
        player_earcon(c->player, f->earcons.pcm[a->earcon], f->earcons.n[a->earcon]);
}

/* In the order of their bits, which is what turn.h asks for. */
static void obey_work(struct conversation *c, const struct turn_actions *a, uint64_t heard)
{
    struct floor_side *f = &c->floor;
    if (a->set & TURN_DO_FORGET)
        f->hearing = false;
    if (a->set & TURN_DO_TRUNCATE)
        send(c, ORDER_TRUNCATE, a, heard);
    if (a->set & TURN_DO_ROLL_BACK)
        hear(c, ORDER_ROLL_BACK, a);
    if (a->set & TURN_DO_FORGET)
        send(c, ORDER_FORGET, a, 0);
    if (a->set & TURN_DO_COMPACT)
        send(c, ORDER_COMPACT, a, 0);
    if (a->set & TURN_DO_HEAR)
        hear(c, ORDER_HEAR, a);
    if (a->set & TURN_DO_HEAR_END) {
        f->hearing = false;
        send(c, ORDER_HEAR_END, a, 0);
    }
}

/* Counts, and how long things took. */
static void note(struct conversation *c, const struct turn_actions *a)
{
    struct floor_side *f = &c->floor;
    bool speech = a->now == TURN_LISTENING && a->set & (TURN_DO_TRUNCATE | TURN_DO_ROLL_BACK);
    if (a->set & TURN_DO_HEAR)
        atomic_fetch_add(&c->turns, 1);
    if (a->set & TURN_DO_PLAY) {
        atomic_fetch_add(&c->replies, 1);
        int ms = (int)((f->at - f->turn.silent_at) / MS) + delay_ms(c);
        atomic_store(&c->answer_ms, f->wrote ? -1 : ms);
    }
    if (a->set & TURN_DO_EARCON && a->earcon == TURN_EARCON_FAILED)
        atomic_fetch_add(&c->failed, 1);
    if (a->set & TURN_DO_RESUME)
        atomic_fetch_add(&c->resumed, 1);
    if (a->set & TURN_DO_RESUME && !f->turn.speaker_lost)
        judge_doubted(&f->judge);
    if (a->set & TURN_DO_HOLD && f->turn.doubt)
        f->stop_ms = (int)((f->at - f->turn.onset_at) / MS) + delay_ms(c);
    if (a->set & TURN_DO_DROP && speech && (a->was == TURN_HELD || a->was == TURN_SPEAKING)) {
        judge_confirmed(&f->judge);
        atomic_fetch_add(&c->interrupted, 1);
        atomic_store(&c->stop_ms, f->stop_ms);
    }
    if (a->set & TURN_DO_MIC_CLOSE) /* the last one in a period counts */
        f->flags = CONVERSATION_MIC_CLOSE;
    if (a->set & TURN_DO_MIC_OPEN)
        f->flags = CONVERSATION_MIC_OPEN;
}

static void step(struct conversation *c, struct turn_event e)
{
    struct turn_actions a;
    uint64_t heard = 0;
    bool answering = c->floor.turn.answering;
    e.at = c->floor.at;
    if (c->floor.turn.played) /* known before anything is dropped */
        heard = player_heard(c->player, player_tag(c->floor.turn.answer), c->floor.delay);
    if (turn_step(&c->floor.turn, &e, &a) < 0)
        return;
    log_turn(c, &e, &a);
    obey_player(c, &a);
    if (answering && !c->floor.turn.answering && !(a.set & TURN_DO_DROP))
        send(c, ORDER_CLOSE, &a, 0); /* it is over by itself */
    obey_work(c, &a, heard);
    note(c, &a);
}

/* -- What becomes events ---------------------------------------------------------------------- */

static void remember(struct floor_side *f, const float *pcm)
{
    uint64_t at = f->at & (f->past_size - 1), n = f->past_size - at;
    n = n < EAR_PERIOD ? n : EAR_PERIOD;
    memcpy(f->past + at, pcm, n * sizeof(float));
    memcpy(f->past, pcm + n, (EAR_PERIOD - n) * sizeof(float));
    f->at += EAR_PERIOD;
}

static void tell_voice(struct conversation *c, struct verdict v)
{
    struct vad_now now;
    if (v.kind == VAD_NONE)
        return;
    vad_now(c->floor.vad, &now);
    step(c, (struct turn_event){.kind = v.kind == VAD_START ? TURN_SPEECH_ONSET : TURN_SPEECH_END,
                                .age = v.age,
                                .probability = now.probability});
}

static void voice(struct conversation *c, const struct ear_frame *frame, const float *pcm)
{
    struct floor_side *f = &c->floor;
    struct vad_event v;
    struct vad_now now;
    vad_now(f->vad, &now);
    tell_voice(c, judge_near(&f->judge, frame, now.probability, f->at));
    for (size_t i = 0; i < EAR_PERIOD;) {
        i += vad_feed(f->vad, pcm + i, EAR_PERIOD - i, &v);
        uint32_t age = (uint32_t)(v.known - v.at) + (uint32_t)(EAR_PERIOD - i);
        if (v.kind != VAD_NONE)
            tell_voice(c, judge_voice(&f->judge, v.kind, age, f->at));
    }
}

static void read_reports(struct conversation *c)
{
    static const struct {
        enum report_kind report;
        enum turn_event_kind event;
    } table[] = {{REPORT_LIKELY, TURN_END_LIKELY},
                 {REPORT_READY, TURN_ANSWER_READY},
                 {REPORT_EMPTY, TURN_ANSWER_EMPTY},
                 {REPORT_FAILED, TURN_MODEL_FAILED},
                 {REPORT_FULL, TURN_CONTEXT_FULL}};
    struct report r;
    while (ring_read(c->reports, &r, 1) == 1) {
        log_report(c, &r);
        for (size_t i = 0; i < ARRAY_LEN(table); i++)
            if (table[i].report == r.kind)
                step(c, (struct turn_event){.kind = table[i].event,
                                            .turn = r.turn,
                                            .answer = r.answer,
                                            .probability = r.probability});
        if (r.kind == REPORT_EMPTY) /* nothing is queued, nothing will be pulled */
            player_drop(c->player, player_tag(r.answer));
    }
}

static void tell_events(struct conversation *c)
{
    struct floor_side *f = &c->floor;
    if (f->written != NULL)
        step(c, (struct turn_event){.kind = TURN_ASKED});
    free(f->written); /* muted: nobody has taken it */
    f->written = NULL;
    for (int i = 0; i < f->n_events; i++)
        step(c, (struct turn_event){.kind = f->events[i], .turn = f->turn.turn});
    f->n_events = 0;
    if (f->clear) {
        const struct turn_actions now = {.turn = f->turn.turn, .answer = f->turn.answer};
        step(c, (struct turn_event){.kind = TURN_STOP});
        send(c, ORDER_CLEAR, &now, 0);
    }
    f->clear = false;
    if (f->overflowed && f->hearing)
        step(c, (struct turn_event){.kind = TURN_OVERFLOW, .turn = f->turn.turn});
    f->overflowed = false;
    if (f->turn.state == TURN_IDLE && atomic_exchange(&c->crowded, false))
        step(c, (struct turn_event){.kind = TURN_CONTEXT_FULL, .turn = f->turn.turn});
}

/* The last sample has left the queue; it leaves the device by its delay later. */
static void watch_end(struct conversation *c, const struct player_state *s)
{
    struct floor_side *f = &c->floor;
    if (!s->ended || !f->turn.played || s->answer != player_tag(f->turn.answer)) {
        f->is_ending = false;
        return;
    }
    if (!f->is_ending)
        f->end_at = f->at + (uint64_t)(delay_ms(c) * MS);
    f->is_ending = true;
    if ((int64_t)(f->at - f->end_at) < 0)
        return;
    f->is_ending = false;
    step(c, (struct turn_event){.kind = TURN_ANSWER_ENDED, .answer = f->turn.answer});
}

static void watch_player(struct conversation *c)
{
    struct floor_side *f = &c->floor;
    struct player_state s;
    player_state(c->player, &s);
    bool current = f->turn.answering && s.answer == player_tag(f->turn.answer);
    if (s.answer != 0 && !current) /* the work side began it before it knew better */
        player_drop(c->player, s.answer);
    bool dry = s.starved != f->starved;
    f->starved = s.starved;
    if (dry && !f->dry && current) {
        log_waits(c);
        player_earcon(c->player, f->earcons.pcm[TURN_EARCON_WAIT], f->earcons.n[TURN_EARCON_WAIT]);
    }
    f->dry = dry;
    watch_end(c, &s);
}

static void publish(struct conversation *c, const struct ear_frame *frame, float probability)
{
    const struct floor_side *f = &c->floor;
    atomic_store(&c->state, (int)f->turn.state);
    atomic_store(&c->at, f->at);
    atomic_store(&c->speech, probability);
    atomic_store(&c->level, frame->level);
    atomic_store(&c->far, frame->far);
}

int conversation_period(struct conversation *c, const struct ear_frame *frame, uint64_t play_delay)
{
    struct floor_side *f = &c->floor;
    float clean[EAR_PERIOD];
    bool muted = f->turn.closed;
    struct vad_now now;
    f->flags = 0;
    f->delay = play_delay;
    for (int i = 0; i < EAR_PERIOD; i++)
        clean[i] = isfinite(frame->clean[i]) && !muted ? frame->clean[i] : 0;
    remember(f, clean);
    if (f->hearing)
        send_sound(c, clean, EAR_PERIOD);
    voice(c, frame, clean);
    read_reports(c);
    tell_events(c);
    watch_player(c);
    vad_now(f->vad, &now);
    float probability = judge_probability(&f->judge, now.probability);
    step(c, (struct turn_event){.kind = TURN_TICK, .probability = probability});
    publish(c, frame, probability);
    bool sign = f->periods++ % SIGN_PERIODS == 0; /* of life, for who watches the work side */
    if (f->hearing || ring_read_avail(c->orders) > 0 || atomic_load(&c->making) || sign)
        conversation_wake(c);
    return f->flags;
}
