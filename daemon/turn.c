/*
 * daemon/turn.c - turn taking: one function a cell of the table.
 *
 *            onset            silence, committed         first sound
 *     IDLE ---------> LISTENING --------------> THINKING -----------> SPEAKING ---> IDLE (ended)
 *                      ^  ^                       |  ^                 |    ^
 *                      |  |  it was speech: the   v  |  it was not     v    |
 *                      |  +--- turn goes on ---- HELD ---------------- HELD-+
 *                      +------ a new turn -------------------------------+
 *
 * An event first changes what is known of the voice and the devices (note), whatever the state;
 * then the cell decides. With the microphone closed an answer ends in MUTED, not in IDLE. Deadlines
 * are differences of sample times, taken modulo 2^64. Every state but IDLE and MUTED ends by
 * itself: LISTENING by turn_max, THINKING by think_max, SPEAKING by speak_max, HELD by held_max and
 * device_wait. Events of an answer or a turn that is no longer the current one are dropped at the
 * door.
 */
#include "daemon/turn.h"

#include <errno.h>

typedef void (*cell)(struct turn *t, const struct turn_event *e, struct turn_actions *a);

static bool reached(uint64_t now, uint64_t deadline)
{
    return (int64_t)(now - deadline) >= 0;
}

static uint64_t later(uint64_t a, uint64_t b)
{
    return reached(a, b) ? a : b;
}

static void earcon(struct turn_actions *a, enum turn_earcon e)
{
    a->set |= TURN_DO_EARCON;
    a->earcon = e;
}

/* Speech of the person's turn so far, in samples. */
static uint64_t spoken(const struct turn *t)
{
    return t->spoken + (t->speech && !t->deaf ? t->now - t->onset_at : 0);
}

/* -- Moves: what several cells do ------------------------------------------------------------- */

static void open_window(struct turn *t, uint64_t from)
{
    t->lapsed = false;
    t->awake_until = from + t->for_.follow_up;
}

static bool attentive(const struct turn *t)
{
    return !t->wake_needed || !t->lapsed;
}

/* Nothing is heard twice, and nothing from long ago. */
static uint64_t reach_back(const struct turn *t, uint64_t from)
{
    uint64_t oldest = t->now - t->for_.preroll - 2 * t->for_.held_max;
    return later(from, later(t->hear_to, oldest));
}

static void forget_answer(struct turn *t)
{
    t->answering = t->ready = t->empty = t->played = t->doubt = false;
}

static void start_turn(struct turn *t, struct turn_actions *a, uint64_t onset)
{
    t->state = TURN_LISTENING;
    t->turn++;
    t->silent_at = onset;
    t->spoken = 0;
    t->stretches = t->speech;
    t->pause = t->for_.end;
    t->forced = t->compacted = false;
    a->set |= TURN_DO_HEAR;
    a->hear_from = reach_back(t, onset - t->for_.preroll);
    t->turn_at = later(onset, a->hear_from);
}

/* The turn and its answer are over, one way or the other. */
static void close_turn(struct turn *t, struct turn_actions *a)
{
    forget_answer(t);
    t->state = t->closed ? TURN_MUTED : TURN_IDLE;
    if (t->compact_due)
        a->set |= TURN_DO_COMPACT;
    t->compact_due = false;
}

/* ... by itself: whoever has begun to speak meanwhile is next. */
static void next_turn(struct turn *t, struct turn_actions *a)
{
    close_turn(t, a);
    if (t->speech && !t->deaf)
        start_turn(t, a, t->onset_at);
}

/* ... because somebody said so: what is being spoken is not meant for us. `never`: the turn is
 * forgotten too, which is only possible before its answer sounds. */
static void let_go(struct turn *t, struct turn_actions *a, bool never)
{
    if (t->answering)
        a->set |= TURN_DO_DROP;
    if (t->state == TURN_LISTENING || (never && !t->played))
        a->set |= TURN_DO_FORGET;
    else if (t->answering)
        a->set |= TURN_DO_TRUNCATE;
    t->deaf = t->speech;
    close_turn(t, a);
}

static void give_up(struct turn *t, struct turn_actions *a, enum turn_earcon because)
{
    let_go(t, a, true);
    open_window(t, t->now);
    earcon(a, because);
}

static void end_hearing(struct turn *t, struct turn_actions *a)
{
    t->answering = true;
    t->answer++;
    t->hear_to = t->now;
    a->set |= TURN_DO_HEAR_END;
    a->hear_to = t->now;
}

static bool sound_blocked(const struct turn *t)
{
    return t->speaker_lost && t->ready;
}

/* A voice that is noticed only now, in a din that began long ago. */
static void renew_onset(struct turn *t)
{
    if (!t->speech || t->now - t->onset_at <= t->for_.held_max)
        return;
    t->onset_at = t->voiced_at = t->now;
    t->voiced = 0;
}

static void hold(struct turn *t, struct turn_actions *a, bool doubt)
{
    renew_onset(t);
    t->state = TURN_HELD;
    t->held_at = t->doubt_at = t->now;
    t->doubt = doubt;
    if (t->played)
        a->set |= TURN_DO_HOLD;
}

static void play(struct turn *t, struct turn_actions *a)
{
    if (sound_blocked(t)) {
        hold(t, a, false);
        return;
    }
    t->state = TURN_SPEAKING;
    t->played = true;
    t->spoke_at = t->now;
    t->hold_from = t->now + t->for_.grace;
    a->set |= TURN_DO_PLAY;
}

/* From a committed answer to what is known of it. */
static void think(struct turn *t, struct turn_actions *a)
{
    t->state = TURN_THINKING;
    if (t->empty) {
        earcon(a, TURN_EARCON_EMPTY);
        open_window(t, t->now);
        next_turn(t, a);
    } else if (t->ready) {
        play(t, a);
    }
}

static void commit(struct turn *t, struct turn_actions *a)
{
    t->think_at = t->slow_at = t->hold_from = t->now;
    t->hold_bar = t->hold_probability;
    a->set |= TURN_DO_COMMIT;
    think(t, a);
    if (t->heard_you && t->spoken > 0 && t->state == TURN_THINKING && a->earcon == TURN_EARCON_NONE)
        earcon(a, TURN_EARCON_HEARD);
}

/* Back into the same turn: without a gap, unless own sound or a long silence would be in it. What
 * is left out does not count for its length. */
static void roll_back(struct turn *t, struct turn_actions *a, uint64_t onset)
{
    bool gap = t->played || t->now - t->hear_to > t->for_.silence_max;
    a->hear_from = reach_back(t, gap ? onset - t->for_.preroll : t->hear_to);
    t->turn_at += a->hear_from - t->hear_to;
    a->set |= TURN_DO_ROLL_BACK;
    forget_answer(t);
    t->state = TURN_LISTENING;
    t->pause = t->for_.end;
    if (!t->speech)
        t->silent_at = t->now;
}

/* The person has taken the floor from the answer. */
static void interrupt(struct turn *t, struct turn_actions *a)
{
    uint64_t onset = t->speech ? t->onset_at : t->now;
    bool early = !t->played || !reached(onset, t->spoke_at + t->for_.undo);
    a->set |= TURN_DO_DROP;
    t->deaf = false;
    if (early && !t->forced) {
        t->stretches++;
        roll_back(t, a, onset);
        return;
    }
    a->set |= TURN_DO_TRUNCATE;
    close_turn(t, a);
    start_turn(t, a, onset);
}

/* The answer goes on. */
static void release(struct turn *t, struct turn_actions *a)
{
    t->doubt = false;
    if (sound_blocked(t)) /* it stays held, for the speaker */
        return;
    if (!t->played) {
        think(t, a);
        return;
    }
    t->state = TURN_SPEAKING;
    a->set |= TURN_DO_RESUME;
}

/* -- Doubt: is that somebody speaking? -------------------------------------------------------- */

static bool doubtful(const struct turn *t, float probability)
{
    float bar = t->hold_bar;
    if (t->played && t->own < t->for_.settle && bar < t->settle_probability)
        bar = t->settle_probability;
    return t->speech && !t->deaf && reached(t->now, t->hold_from) && probability >= bar;
}

/* Before any sound it costs nothing to be wrong: as much speech as makes a turn is enough. Of a
 * short word alone nobody knows whether it is "okay" or "stop"; who says it again means it. */
static bool confirmed(const struct turn *t)
{
    if (!t->played)
        return t->voiced >= t->for_.min_speech;
    bool insists = !reached(t->onset_at, t->insist_until);
    return t->voiced >= (insists ? t->for_.confirm / 2 : t->for_.confirm);
}

/* -- IDLE ------------------------------------------------------------------------------------- */

static void nothing(struct turn *t, const struct turn_event *e, struct turn_actions *a)
{
    (void)t, (void)e, (void)a;
}

static void idle_tick(struct turn *t, const struct turn_event *e, struct turn_actions *a)
{
    (void)e;
    if (t->lapsed || !reached(t->now, t->awake_until))
        return;
    t->lapsed = true;
    a->set |= TURN_DO_LAPSE;
}

static void idle_onset(struct turn *t, const struct turn_event *e, struct turn_actions *a)
{
    (void)e;
    if (attentive(t))
        start_turn(t, a, t->onset_at);
}

static void idle_wake(struct turn *t, const struct turn_event *e, struct turn_actions *a)
{
    (void)e;
    earcon(a, TURN_EARCON_AWAKE);
    open_window(t, t->now);
    if (t->speech) { /* the word itself is no part of the question */
        t->deaf = false;
        t->onset_at = t->now;
        t->hear_to = later(t->hear_to, t->now);
        start_turn(t, a, t->now);
    }
}

/* What is written needs no hearing and cannot go on. Who speaks meanwhile is not part of it. */
static void idle_asked(struct turn *t, const struct turn_event *e, struct turn_actions *a)
{
    (void)e;
    t->deaf = t->speech;
    start_turn(t, a, t->now);
    a->hear_from = t->turn_at = t->now;
    t->forced = true;
    end_hearing(t, a);
    commit(t, a);
}

static void say_lost(struct turn *t, const struct turn_event *e, struct turn_actions *a)
{
    (void)t, (void)e;
    earcon(a, TURN_EARCON_LOST);
}

static void say_back(struct turn *t, const struct turn_event *e, struct turn_actions *a)
{
    (void)t, (void)e;
    earcon(a, TURN_EARCON_BACK);
}

static void compact(struct turn *t, const struct turn_event *e, struct turn_actions *a)
{
    (void)t, (void)e;
    a->set |= TURN_DO_COMPACT;
}

/* -- LISTENING -------------------------------------------------------------------------------- */

static void listen_pause(struct turn *t, struct turn_actions *a)
{
    uint64_t silence = t->now - t->silent_at;
    bool over = silence >= t->pause;
    if (spoken(t) < t->for_.min_speech) {
        if (over)
            let_go(t, a, true); /* a click, a cough: nobody notices */
        return;
    }
    if (!t->answering && (over || silence >= t->for_.speculate))
        end_hearing(t, a);
    if (over)
        commit(t, a);
}

static void listen_tick(struct turn *t, const struct turn_event *e, struct turn_actions *a)
{
    (void)e;
    if (!t->speech || t->deaf)
        listen_pause(t, a);
    if (t->state != TURN_LISTENING || t->now - t->turn_at < t->for_.turn_max)
        return;
    if (spoken(t) < t->for_.min_speech) {
        let_go(t, a, true);
        return;
    }
    earcon(a, TURN_EARCON_CUT);
    t->forced = true;
    if (!t->answering)
        end_hearing(t, a);
    t->deaf = t->speech; /* the rest of it interrupts nothing */
    commit(t, a);
}

static void listen_onset(struct turn *t, const struct turn_event *e, struct turn_actions *a)
{
    (void)e;
    t->stretches++;
    t->pause = t->for_.end;
    if (t->answering) {
        a->set |= TURN_DO_DROP;
        roll_back(t, a, t->onset_at);
    }
}

static void listen_end_likely(struct turn *t, const struct turn_event *e, struct turn_actions *a)
{
    (void)a;
    if (t->speech && !t->deaf)
        return;
    if (e->probability >= t->likely)
        t->pause = t->for_.end_likely;
    else
        t->pause = e->probability < t->unlikely ? t->for_.silence_max : t->for_.end;
}

/* Of LISTENING and HELD: what is known of the answer waits. */
static void note_answer(struct turn *t, const struct turn_event *e, struct turn_actions *a)
{
    (void)a;
    if (e->kind == TURN_ANSWER_READY)
        t->ready = t->answering && !t->empty;
    else
        t->empty = t->answering && !t->ready;
}

/* A judge speaks of the sound at hand; what was said before stands. */
static void listen_not_speech(struct turn *t, const struct turn_event *e, struct turn_actions *a)
{
    (void)e;
    if (t->stretches <= 1 && !t->answering) {
        let_go(t, a, true);
    } else if (t->speech && !t->deaf) { /* it does not keep the turn open */
        t->deaf = true;
        t->silent_at = t->now;
    }
}

static void listen_mic_lost(struct turn *t, const struct turn_event *e, struct turn_actions *a)
{
    (void)e;
    if (t->cut) /* half a question is none; after its end it is answered */
        let_go(t, a, true);
    earcon(a, TURN_EARCON_LOST);
}

static void listen_overflow(struct turn *t, const struct turn_event *e, struct turn_actions *a)
{
    (void)e;
    give_up(t, a, TURN_EARCON_REPEAT);
}

/* -- What several states do with bad news ----------------------------------------------------- */

static void stop(struct turn *t, const struct turn_event *e, struct turn_actions *a)
{
    (void)e;
    let_go(t, a, false);
    open_window(t, t->now);
}

static void close_mic(struct turn *t, struct turn_actions *a)
{
    if (!t->closed)
        a->set |= TURN_DO_MIC_CLOSE;
    t->closed = true;
    t->speech = t->deaf = false;
}

static void mute(struct turn *t, const struct turn_event *e, struct turn_actions *a)
{
    (void)e;
    close_mic(t, a);
    if (t->state != TURN_IDLE)
        let_go(t, a, false);
    t->state = TURN_MUTED;
    earcon(a, TURN_EARCON_MUTED);
}

/* In THINKING and SPEAKING: the answer goes on, and is muted behind it. */
static void answer_release(struct turn *t, const struct turn_event *e, struct turn_actions *a)
{
    (void)e;
    t->forced = true;
    close_mic(t, a);
}

static void listen_release(struct turn *t, const struct turn_event *e, struct turn_actions *a)
{
    if (spoken(t) < t->for_.min_speech) {
        mute(t, e, a);
        return;
    }
    answer_release(t, e, a);
    if (!t->answering)
        end_hearing(t, a);
    commit(t, a);
}

/* Of THINKING, SPEAKING and HELD: not MUTED as long as an answer sounds or will. */
static void open_mic(struct turn *t, const struct turn_event *e, struct turn_actions *a)
{
    (void)e;
    if (!t->closed)
        return;
    t->closed = false;
    t->hear_to = later(t->hear_to, t->now); /* nothing from before is heard */
    a->set |= TURN_DO_MIC_OPEN;
    earcon(a, t->mic_lost ? TURN_EARCON_LOST : TURN_EARCON_UNMUTED);
}

static void failed(struct turn *t, const struct turn_event *e, struct turn_actions *a)
{
    (void)e;
    give_up(t, a, TURN_EARCON_FAILED);
}

/* Room is made once a turn; a turn that does not fit even then is too long. What sounds already
 * comes to an end by itself. */
static void full(struct turn *t, const struct turn_event *e, struct turn_actions *a)
{
    (void)e;
    if (t->played) {
        t->compact_due = true;
    } else if (!t->compacted) {
        t->compacted = true;
        a->set |= TURN_DO_COMPACT;
    } else {
        give_up(t, a, TURN_EARCON_FULL);
    }
}

/* A button or a word that calls us, over an answer: the floor is free at once. */
static void wake(struct turn *t, const struct turn_event *e, struct turn_actions *a)
{
    let_go(t, a, false);
    idle_wake(t, e, a);
}

/* ... or a written turn: what was going on is over. */
static void asked(struct turn *t, const struct turn_event *e, struct turn_actions *a)
{
    let_go(t, a, false);
    idle_asked(t, e, a);
}

static void barge_in(struct turn *t, const struct turn_event *e, struct turn_actions *a)
{
    (void)e;
    if (t->mic_lost)
        return;
    if (!t->doubt)
        renew_onset(t);
    interrupt(t, a);
}

static void not_speech(struct turn *t, const struct turn_event *e, struct turn_actions *a)
{
    (void)e;
    t->deaf = t->speech;
    if (t->doubt) /* HELD */
        release(t, a);
}

/* -- THINKING --------------------------------------------------------------------------------- */

static void think_tick(struct turn *t, const struct turn_event *e, struct turn_actions *a)
{
    if (t->now - t->think_at >= t->for_.think_max) {
        failed(t, e, a);
    } else if (doubtful(t, e->probability)) {
        hold(t, a, true);
    } else if (t->now - t->slow_at >= t->for_.slow) {
        t->slow_at = t->now;
        earcon(a, TURN_EARCON_WAIT);
    }
}

/* Of THINKING and SPEAKING. */
static void answer_onset(struct turn *t, const struct turn_event *e, struct turn_actions *a)
{
    if (doubtful(t, e->probability))
        hold(t, a, true);
}

static void think_answer(struct turn *t, const struct turn_event *e, struct turn_actions *a)
{
    note_answer(t, e, a);
    think(t, a);
}

/* -- SPEAKING --------------------------------------------------------------------------------- */

static void speak_tick(struct turn *t, const struct turn_event *e, struct turn_actions *a)
{
    if (t->now - t->spoke_at >= t->for_.speak_max)
        stop(t, e, a);
    else if (doubtful(t, e->probability))
        hold(t, a, true);
}

static void speak_ended(struct turn *t, const struct turn_event *e, struct turn_actions *a)
{
    if (!t->played) /* HELD before it began: it cannot have ended */
        return;
    open_window(t, t->now - e->age);
    next_turn(t, a);
}

static void speak_speaker_lost(struct turn *t, const struct turn_event *e, struct turn_actions *a)
{
    hold(t, a, false);
    say_lost(t, e, a);
}

/* -- HELD ------------------------------------------------------------------------------------- */

static void held_tick(struct turn *t, const struct turn_event *e, struct turn_actions *a)
{
    (void)e;
    if (t->doubt && confirmed(t)) {
        interrupt(t, a);
        return;
    }
    if (t->doubt && t->now - t->doubt_at >= t->for_.held_max) {
        t->hold_bar = t->confirm_probability; /* a din; a voice in it has to be clearer */
        t->hold_from = t->now + t->for_.held_max;
        release(t, a);
    }
    if (t->state == TURN_HELD && sound_blocked(t) && t->now - t->held_at >= t->for_.device_wait) {
        a->set |= TURN_DO_DROP | TURN_DO_TRUNCATE;
        open_window(t, t->now);
        next_turn(t, a);
    }
}

/* While the reply waits for a speaker. */
static void held_onset(struct turn *t, const struct turn_event *e, struct turn_actions *a)
{
    (void)e, (void)a;
    if (t->doubt || !t->speech || t->deaf)
        return;
    renew_onset(t);
    t->doubt = true;
    t->doubt_at = t->now;
}

static void held_end(struct turn *t, const struct turn_event *e, struct turn_actions *a)
{
    (void)e;
    if (!t->doubt)
        return;
    if (confirmed(t)) {
        interrupt(t, a);
        return;
    }
    if (t->voiced >= t->for_.min_speech)
        t->insist_until = t->now + t->for_.insist;
    release(t, a);
}

/* Nobody can settle it any more. */
static void held_mic_lost(struct turn *t, const struct turn_event *e, struct turn_actions *a)
{
    if (t->doubt)
        release(t, a);
    say_lost(t, e, a);
}

static void held_release(struct turn *t, const struct turn_event *e, struct turn_actions *a)
{
    answer_release(t, e, a);
    if (t->doubt)
        release(t, a);
}

static void held_speaker_back(struct turn *t, const struct turn_event *e, struct turn_actions *a)
{
    say_back(t, e, a);
    if (!t->doubt)
        release(t, a);
}

/* -- MUTED ------------------------------------------------------------------------------------ */

static void unmute(struct turn *t, const struct turn_event *e, struct turn_actions *a)
{
    t->state = TURN_IDLE;
    open_window(t, t->now);
    open_mic(t, e, a);
}

/* -- The table -------------------------------------------------------------------------------- */

static const cell table[TURN_EVENTS][TURN_STATES] = {
    /* idle, listening, thinking, speaking, held, muted */
    [TURN_TICK] = {idle_tick, listen_tick, think_tick, speak_tick, held_tick, nothing},
    [TURN_SPEECH_ONSET] = {idle_onset, listen_onset, answer_onset, answer_onset, held_onset,
                           nothing},
    [TURN_SPEECH_END] = {nothing, nothing, nothing, nothing, held_end, nothing},
    [TURN_END_LIKELY] = {nothing, listen_end_likely, nothing, nothing, nothing, nothing},
    [TURN_ANSWER_READY] = {nothing, note_answer, think_answer, nothing, note_answer, nothing},
    [TURN_ANSWER_EMPTY] = {nothing, note_answer, think_answer, nothing, note_answer, nothing},
    [TURN_ANSWER_ENDED] = {nothing, nothing, nothing, speak_ended, speak_ended, nothing},
    [TURN_NOT_SPEECH] = {nothing, listen_not_speech, not_speech, not_speech, not_speech, nothing},
    [TURN_BARGE_IN] = {nothing, nothing, barge_in, barge_in, barge_in, nothing},
    [TURN_WAKE] = {idle_wake, nothing, wake, wake, wake, nothing},
    [TURN_STOP] = {nothing, stop, stop, stop, stop, nothing},
    [TURN_MUTE] = {mute, mute, mute, mute, mute, nothing},
    [TURN_UNMUTE] = {nothing, nothing, open_mic, open_mic, open_mic, unmute},
    [TURN_RELEASE] = {mute, listen_release, answer_release, answer_release, held_release, nothing},
    [TURN_MIC_LOST] = {say_lost, listen_mic_lost, say_lost, say_lost, held_mic_lost, nothing},
    [TURN_MIC_BACK] = {say_back, say_back, say_back, say_back, say_back, nothing},
    [TURN_SPEAKER_LOST] = {say_lost, say_lost, say_lost, speak_speaker_lost, say_lost, nothing},
    [TURN_SPEAKER_BACK] = {say_back, say_back, say_back, say_back, held_speaker_back, nothing},
    [TURN_OVERFLOW] = {nothing, listen_overflow, nothing, nothing, not_speech, nothing},
    [TURN_MODEL_FAILED] = {nothing, failed, failed, failed, failed, nothing},
    [TURN_CONTEXT_FULL] = {compact, full, full, full, full, compact},
    [TURN_ASKED] = {idle_asked, asked, asked, asked, asked, nothing},
};

/* -- What is known of voice and devices, in any state ----------------------------------------- */

/* Work that was given up still reports for a while. */
static bool stale(const struct turn *t, const struct turn_event *e)
{
    switch (e->kind) {
    case TURN_ANSWER_READY:
    case TURN_ANSWER_EMPTY:
    case TURN_ANSWER_ENDED:
        return e->answer != t->answer;
    case TURN_END_LIKELY:
        return e->answer != 0 && (!t->answering || e->answer != t->answer);
    case TURN_OVERFLOW:
    case TURN_MODEL_FAILED:
    case TURN_CONTEXT_FULL:
        return e->turn != t->turn;
    default:
        return false;
    }
}

static bool note_onset(struct turn *t, const struct turn_event *e)
{
    if (t->speech || t->mic_lost || t->closed)
        return false;
    t->speech = true;
    t->deaf = false;
    t->onset_at = later(t->now - e->age, t->silent_at);
    t->voiced = e->probability >= t->confirm_probability ? t->now - t->onset_at : 0;
    t->voiced_at = t->now;
    return true;
}

static bool note_end(struct turn *t, uint64_t age)
{
    if (!t->speech)
        return false;
    if (!t->deaf) {
        t->silent_at = later(t->now - age, t->onset_at);
        if (t->state == TURN_LISTENING)
            t->spoken += t->silent_at - t->onset_at;
    }
    t->speech = t->deaf = false;
    return true;
}

static bool note_flag(bool *flag, bool value)
{
    bool changed = *flag != value;
    *flag = value;
    return changed;
}

/* False: it changes nothing and is not told to the table. */
static bool note(struct turn *t, const struct turn_event *e)
{
    switch (e->kind) {
    case TURN_TICK:
        if (t->speech && e->probability >= t->confirm_probability)
            t->voiced += t->now - t->voiced_at;
        t->voiced_at = t->now;
        return true;
    case TURN_SPEECH_ONSET:
        return note_onset(t, e);
    case TURN_SPEECH_END:
        return note_end(t, e->age);
    case TURN_RELEASE:
        note_end(t, 0);
        return true;
    case TURN_WAKE:
    case TURN_ASKED:
    case TURN_BARGE_IN:
        return !t->closed; /* nobody takes the floor who could not be heard */
    case TURN_MIC_LOST:
        t->cut = t->speech && !t->deaf;
        note_end(t, 0);
        return note_flag(&t->mic_lost, true);
    case TURN_MIC_BACK:
        return note_flag(&t->mic_lost, false);
    case TURN_SPEAKER_LOST:
        t->own = 0; /* another path from speaker to microphone when it is back */
        return note_flag(&t->speaker_lost, true);
    case TURN_SPEAKER_BACK:
        return note_flag(&t->speaker_lost, false);
    default:
        return !stale(t, e);
    }
}

static void advance(struct turn *t, uint64_t at)
{
    uint64_t now = later(at, t->now);
    if (t->state == TURN_SPEAKING && !t->closed && t->own < t->for_.settle)
        t->own += now - t->now;
    t->now = now;
}

int turn_step(struct turn *t, const struct turn_event *e, struct turn_actions *a)
{
    if ((unsigned)e->kind >= TURN_EVENTS)
        return -EINVAL;
    *a = (struct turn_actions){.was = t->state};
    advance(t, e->at);
    if (note(t, e))
        table[e->kind][t->state](t, e, a);
    a->turn = t->turn;
    a->answer = t->answer;
    a->now = t->state;
    return 0;
}
