/*
 * tests/support/floor.c - obeys turn taking and complains.
 *
 * The rules are written from the side of who obeys: HOLD needs something that sounds, COMMIT an
 * answer that was begun, and so on. After each step the state must be the one that the obeyed
 * actions amount to, and no state may outlive its limit.
 */
#include "tests/support/floor.h"

#include <stdio.h>
#include <string.h>

#define RULE(holds)                                                                                \
    do {                                                                                           \
        if (!(holds))                                                                              \
            return #holds;                                                                         \
    } while (0)

const char *floor_open(struct floor *f, const struct turn_opts *o, uint64_t now)
{
    *f = (struct floor){.started = now, .hear_to = now, .tick_at = now};
    return turn_init(&f->turn, o, now, NULL) == 0 ? NULL : "turn_init refuses";
}

static void close_turn(struct floor *f)
{
    f->open = f->hearing = f->begun = f->committed = f->playing = f->held = f->empty = false;
}

static bool before(uint64_t a, uint64_t b)
{
    return (int64_t)(a - b) < 0;
}

/* So much of the past is there. */
static bool kept(const struct floor *f, uint64_t at)
{
    return f->turn.now - at <= f->turn.for_.preroll + 2 * f->turn.for_.held_max;
}

/* HOLD, DROP, TRUNCATE, ROLL_BACK, FORGET: what ends something. */
static const char *obey_ends(struct floor *f, const struct turn_actions *a)
{
    uint32_t set = a->set;
    if (set & TURN_DO_HOLD) {
        RULE(f->playing && !f->held);
        f->held = true;
        f->holds++;
    }
    if (set & TURN_DO_DROP) {
        RULE(f->begun);
        RULE(set & (TURN_DO_TRUNCATE | TURN_DO_ROLL_BACK | TURN_DO_FORGET));
    }
    if (set & TURN_DO_TRUNCATE) {
        RULE(f->committed && (set & TURN_DO_DROP));
        RULE(!(set & (TURN_DO_ROLL_BACK | TURN_DO_FORGET)));
        close_turn(f);
    }
    if (set & TURN_DO_ROLL_BACK) {
        RULE(f->open && f->begun && !f->hearing && (set & TURN_DO_DROP));
        RULE(!before(a->hear_from, f->hear_to) && !before(f->turn.now, a->hear_from));
        RULE(kept(f, a->hear_from));
        f->open_at += a->hear_from - f->hear_to;
        f->begun = f->committed = f->playing = f->held = f->empty = false;
        f->hearing = true;
    }
    if (set & TURN_DO_FORGET) {
        RULE(f->open && !f->playing);
        RULE(!f->begun || (set & TURN_DO_DROP));
        close_turn(f);
    }
    return NULL;
}

/* HEAR, HEAR_END, COMMIT, PLAY, RESUME: what begins something. */
static const char *obey_begins(struct floor *f, const struct turn_actions *a, uint32_t last_turn,
                               uint32_t last_answer)
{
    uint32_t set = a->set;
    RULE(a->turn == last_turn + !!(set & TURN_DO_HEAR));
    RULE(a->answer == last_answer + !!(set & TURN_DO_HEAR_END));
    if (set & TURN_DO_HEAR) {
        RULE(!f->open && !f->mic_closed && (!f->turn.mic_lost || f->asked));
        RULE(!before(a->hear_from, f->started) && !before(f->turn.now, a->hear_from));
        RULE(!before(a->hear_from, f->hear_to) && kept(f, a->hear_from));
        f->open = f->hearing = true;
        f->open_at = f->turn.now;
        f->turns++;
    }
    if (set & TURN_DO_HEAR_END) {
        RULE(f->hearing && !f->begun && a->hear_to == f->turn.now);
        f->hearing = false;
        f->begun = true;
        f->hear_to = a->hear_to;
    }
    if (set & TURN_DO_COMMIT) {
        RULE(f->begun && !f->committed);
        f->committed = true;
        f->commit_at = f->turn.now;
    }
    if (set & TURN_DO_PLAY) {
        RULE(f->committed && !f->playing && !f->turn.speaker_lost);
        f->playing = true;
        f->play_at = f->turn.now;
        f->replies++;
    }
    if (set & TURN_DO_RESUME) {
        RULE(f->playing && f->held && !f->turn.speaker_lost);
        f->held = false;
    }
    return NULL;
}

/* The state is what the actions amount to. */
static const char *agrees(const struct floor *f)
{
    enum turn_state s = f->turn.state;
    RULE((unsigned)s < TURN_STATES);
    RULE(f->turn.closed == f->mic_closed);
    RULE(s != TURN_MUTED || f->mic_closed);
    RULE((s != TURN_IDLE && s != TURN_LISTENING) || !f->mic_closed);
    RULE((s == TURN_SPEAKING) == (f->playing && !f->held));
    RULE((s == TURN_LISTENING) == (f->open && !f->committed));
    RULE((s == TURN_IDLE || s == TURN_MUTED) == !f->open);
    RULE(s != TURN_THINKING || !f->playing);
    RULE(s != TURN_SPEAKING || !f->turn.speaker_lost);
    RULE(!f->hearing || s == TURN_LISTENING);
    RULE(f->turn.state == f->last.now);
    RULE(!!(f->last.set & TURN_DO_EARCON) == (f->last.earcon != TURN_EARCON_NONE));
    return NULL;
}

/* After a tick that has found it so, no state is older than it may become. */
static const char *in_time(const struct floor *f)
{
    const struct turn *t = &f->turn;
    if (f->last.was != f->last.now)
        return NULL;
    RULE(t->state != TURN_LISTENING || t->now - f->open_at < t->for_.turn_max);
    RULE(t->state != TURN_THINKING || t->now - f->commit_at < t->for_.think_max);
    RULE(t->state != TURN_SPEAKING || t->now - f->play_at < t->for_.speak_max);
    /* A doubt may begin just before the tick that would have ended the wait for the speaker. */
    RULE(t->state != TURN_HELD ||
         t->now - f->held_at < t->for_.device_wait + t->for_.held_max + f->longest_tick);
    return NULL;
}

static const char *obey(struct floor *f, const struct turn_event *e, uint32_t turn, uint32_t answer)
{
    const struct turn_actions *a = &f->last;
    bool nothing_to_say = a->earcon == TURN_EARCON_EMPTY;
    if (nothing_to_say)
        RULE(f->empty && !f->playing);
    if (e->kind == TURN_ANSWER_ENDED && e->answer == answer && f->playing)
        close_turn(f);
    if (nothing_to_say && !(a->set & TURN_DO_COMMIT)) {
        RULE(f->committed);
        close_turn(f);
    }
    if (a->set & TURN_DO_MIC_CLOSE) {
        RULE(!f->mic_closed);
        f->mic_closed = true;
    }
    const char *wrong = obey_ends(f, a);
    if (wrong == NULL)
        wrong = obey_begins(f, a, turn, answer);
    if (wrong != NULL)
        return wrong;
    if (nothing_to_say && (a->set & TURN_DO_COMMIT))
        close_turn(f);
    if (a->set & TURN_DO_MIC_OPEN) {
        RULE(f->mic_closed);
        f->mic_closed = false;
    }
    return NULL;
}

const char *floor_step(struct floor *f, struct turn_event e, bool tagged)
{
    uint32_t turn = f->turn.turn, answer = f->turn.answer;
    uint64_t now = f->turn.now;
    if (!tagged) {
        e.turn = turn;
        e.answer = answer;
    }
    if (e.kind == TURN_ANSWER_EMPTY && e.answer == answer && f->begun && !f->turn.ready)
        f->empty = true;
    RULE(turn_step(&f->turn, &e, &f->last) == 0);
    f->asked = e.kind == TURN_ASKED;
    f->steps++;
    if (e.kind == TURN_TICK) {
        if (f->turn.now - f->tick_at > f->longest_tick)
            f->longest_tick = f->turn.now - f->tick_at;
        f->tick_at = f->turn.now;
    }
    RULE(!before(f->turn.now, now));
    const char *wrong = obey(f, &e, turn, answer);
    if (f->last.now == TURN_HELD && f->last.was != TURN_HELD)
        f->held_at = f->turn.now;
    if (wrong == NULL)
        wrong = agrees(f);
    if (wrong == NULL && e.kind == TURN_TICK)
        wrong = in_time(f);
    return wrong;
}

void floor_say(const struct floor *f, char *text, size_t size)
{
    const struct turn_actions *a = &f->last;
    size_t n = (size_t)snprintf(text, size, "%s", turn_state_name(a->now));
    for (unsigned bit = 0; bit < TURN_ACTIONS && n < size; bit++) {
        unsigned one = a->set & 1u << bit;
        if (one == 0)
            continue;
        n += (size_t)snprintf(text + n, size - n, " %s", turn_action_name(bit));
        if (one == TURN_DO_EARCON && n < size)
            n += (size_t)snprintf(text + n, size - n, ":%s", turn_earcon_name(a->earcon));
        if ((one == TURN_DO_HEAR || one == TURN_DO_ROLL_BACK) && n < size)
            n += (size_t)snprintf(text + n, size - n, "@%d",
                                  (int)((a->hear_from - f->started) / 16));
    }
}
