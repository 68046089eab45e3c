/*
 * audio/player.c - replies on their way to the loudspeaker.
 *
 *   producer --resample--> queue (a ring at the device's rate) --> stage --envelope, gain--> device
 *                                                     earcons --------------------^
 *
 * The device thread copies what it may need of the queue to a small linear stage: the block that is
 * asked for and one fade more. So there is always enough at hand to fade out, and what is played
 * while fading out is not taken from the stage: after a hold, or after the queue has run dry, the
 * reply goes on at exactly the sample where the fade began.
 *
 * What the threads tell each other are single words. The producer: which answer is in the queue,
 * from which position, up to which. The floor: which answer may sound, up to which number answers
 * are dropped. The device: what it gave of which answer, and which one is over. Answers that follow
 * each other in the queue are told apart by position; nobody but the device thread takes anything
 * out of it.
 */
#include "audio/player.h"

#include <errno.h>
#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "audio/resample.h"
#include "base/ring.h"
#include "base/util.h"

enum { PIECE = 64, EARCONS = 8 }; /* source samples resampled at once; earcons on their way */
#define OPEN_END UINT64_MAX

enum mode { SILENT, SOUNDING, FADING };

struct earcon {
    const float *pcm;
    size_t n, at;
    int level; /* of `fade`; falls when a newer one takes over */
};

/* What the device got of an answer; written by its thread, read by all (see publish). */
struct tally {
    _Atomic uint32_t answer;
    _Atomic uint64_t pulled; /* samples at the device's rate */
    _Atomic uint64_t since;  /* samples of anything else that followed the last of them */
};

struct player {
    int rate, source_rate, fade;
    size_t block, refill, reserve; /* samples at `rate`; room kept for the end of an answer */
    struct ring *queue, *earcons;

    /* producer */
    struct resample *up;
    float *piece;
    uint32_t writing;
    _Atomic uint64_t written; /* samples of the source */
    _Atomic uint32_t answer;  /* what the queue holds from `start` up to `end` */
    _Atomic uint64_t start, end;

    /* floor */
    _Atomic uint32_t allowed; /* may sound; 0 = held */
    _Atomic uint32_t dropped; /* this one and all before are */
    _Atomic float volume;

    /* device */
    uint32_t current;
    enum mode mode;
    int level;            /* of `fade`: the envelope */
    float *stage;         /* [block + fade] */
    size_t staged, ahead; /* samples in it; of them, heard already by the fade in progress */
    bool ended;           /* nothing of `current` is to come */
    bool dry;             /* it ran out of samples and waits for `refill` */
    float gain, target, step;
    struct earcon ear[2]; /* the newest, the one it replaced */
    uint64_t pulled, since;
    _Atomic uint32_t over; /* the answer that came to its end */
    _Atomic uint64_t starved;
    _Atomic uint32_t turn; /* odd while now and before are being written */
    struct tally now, before;
    _Atomic bool silenced; /* the last sample pulled was at volume 0 or so */
};

static int check(const struct player *p, const struct player_opts *o, struct problems *why)
{
    if (p->rate < 8000 || p->rate > 192000)
        return problem_add(why, -EINVAL, "player: rate: found %d, expected 8000 to 192000 Hz",
                           p->rate);
    if (p->source_rate < 8000 || p->source_rate > 192000)
        return problem_add(why, -EINVAL,
                           "player: rate of replies: found %d, expected 8000 to 192000 Hz",
                           p->source_rate);
    if (o->queue_ms < 100 || o->queue_ms > 600000)
        return problem_add(why, -EINVAL, "player: queue: found %d ms, expected 100 to 600000",
                           o->queue_ms);
    if (o->fade_ms < 1 || o->fade_ms > 100)
        return problem_add(why, -EINVAL, "player: fade: found %d ms, expected 1 to 100",
                           o->fade_ms);
    if (o->refill_ms < 1 || o->refill_ms > o->queue_ms / 2)
        return problem_add(why, -EINVAL,
                           "player: refill: found %d ms, expected at most half the queue of %d ms",
                           o->refill_ms, o->queue_ms);
    return 0;
}

static int allocate(struct player *p, int queue_ms, struct problems *why)
{
    int err = resample_open(&p->up, p->source_rate, p->rate);
    if (err == -EINVAL)
        return problem_add(why, err, "player: no way from %d to %d Hz", p->source_rate, p->rate);
    if (err < 0)
        return err;
    p->reserve = resample_most(p->up, 0) + PIECE;
    p->piece = calloc(max_size(resample_most(p->up, PIECE), p->reserve), sizeof(float));
    p->stage = calloc(p->block + (size_t)p->fade, sizeof(float));
    if (p->piece == NULL || p->stage == NULL)
        return -ENOMEM;
    size_t room = (size_t)queue_ms * (size_t)p->rate / 1000 + p->reserve;
    err = ring_open(&p->queue, sizeof(float), room, 0);
    return err < 0 ? err : ring_open(&p->earcons, sizeof(struct earcon), EARCONS, 0);
}

int player_open(struct player **ret, const struct player_opts *o, struct problems *why)
{
    struct player_opts d = o != NULL ? *o : (struct player_opts){0};
    d.queue_ms = d.queue_ms != 0 ? d.queue_ms : 4000;
    d.fade_ms = d.fade_ms != 0 ? d.fade_ms : 5;
    d.refill_ms = d.refill_ms != 0 ? d.refill_ms : 300;
    struct player *p = calloc(1, sizeof(*p));
    if (p == NULL)
        return -ENOMEM;
    p->rate = d.rate != 0 ? d.rate : 48000;
    p->source_rate = d.source_rate != 0 ? d.source_rate : 24000;
    p->fade = d.fade_ms * p->rate / 1000;
    p->block = (size_t)p->rate / 100;
    p->refill = (size_t)d.refill_ms * (size_t)p->rate / 1000;
    p->gain = p->target = 1.0f;
    atomic_init(&p->volume, 1.0f);
    atomic_init(&p->end, OPEN_END);
    int err = check(p, &d, why);
    if (err == 0)
        err = allocate(p, d.queue_ms, why);
    if (err < 0) {
        player_close(p);
        return err;
    }
    *ret = p;
    return 0;
}

void player_close(struct player *p)
{
    if (p == NULL)
        return;
    resample_close(p->up);
    ring_close(p->queue);
    ring_close(p->earcons);
    free(p->piece);
    free(p->stage);
    free(p);
}

static bool is_dropped(const struct player *p, uint32_t answer)
{
    return (int32_t)(answer - atomic_load(&p->dropped)) <= 0;
}

/* ---- the producer ---- */

int player_begin(struct player *p, uint32_t answer)
{
    uint32_t last = atomic_load(&p->answer);
    if (answer == 0)
        return -EINVAL;
    if (last != 0 && atomic_load(&p->over) != last && !is_dropped(p, last))
        return -EAGAIN;
    resample_reset(p->up);
    p->writing = answer;
    atomic_store(&p->written, 0);
    atomic_store(&p->end, OPEN_END);
    atomic_store(&p->start, ring_write_at(p->queue));
    atomic_store(&p->answer, answer);
    return 0;
}

bool player_wants(const struct player *p, uint32_t answer)
{
    return answer != 0 && answer == atomic_load(&p->answer) && !is_dropped(p, answer);
}

size_t player_room(const struct player *p)
{
    size_t room = ring_write_room(p->queue);
    size_t free = room > p->reserve ? room - p->reserve : 0;
    return (size_t)((uint64_t)free * (uint64_t)p->source_rate / (uint64_t)p->rate);
}

size_t player_write(struct player *p, uint32_t answer, const float *pcm, size_t n)
{
    if (answer != p->writing || !player_wants(p, answer) || atomic_load(&p->end) != OPEN_END)
        return 0;
    n = min_size(n, player_room(p));
    for (size_t i = 0; i < n;) {
        size_t k = min_size(n - i, PIECE);
        ring_write(p->queue, p->piece, resample_feed(p->up, pcm + i, k, p->piece));
        i += k;
    }
    atomic_fetch_add(&p->written, n);
    return n;
}

void player_end(struct player *p, uint32_t answer)
{
    if (answer != p->writing || !player_wants(p, answer) || atomic_load(&p->end) != OPEN_END)
        return;
    ring_write(p->queue, p->piece, resample_end(p->up, p->piece));
    atomic_store(&p->end, ring_write_at(p->queue));
}

/* ---- the floor ---- */

void player_play(struct player *p, uint32_t answer)
{
    atomic_store(&p->allowed, answer);
}

void player_hold(struct player *p)
{
    atomic_store(&p->allowed, 0);
}

void player_drop(struct player *p, uint32_t answer)
{
    if (!is_dropped(p, answer))
        atomic_store(&p->dropped, answer);
}

void player_earcon(struct player *p, const float *pcm, size_t n)
{
    const struct earcon e = {.pcm = pcm, .n = n, .level = p->fade};
    ring_write(p->earcons, &e, 1);
}

void player_volume(struct player *p, float gain)
{
    atomic_store(&p->volume, isfinite(gain) ? fminf(fmaxf(gain, 0.0f), 4.0f) : 1.0f);
}

/* ---- the device ---- */

/* Lets onlookers see now and before as they were at one moment. */
static void publish(struct player *p)
{
    atomic_fetch_add(&p->turn, 1);
    if (atomic_load(&p->now.answer) != p->current) {
        atomic_store(&p->before.answer, atomic_load(&p->now.answer));
        atomic_store(&p->before.pulled, atomic_load(&p->now.pulled));
        atomic_store(&p->before.since, atomic_load(&p->now.since));
        atomic_store(&p->now.answer, p->current);
    }
    atomic_store(&p->now.pulled, p->pulled);
    atomic_store(&p->now.since, p->since);
    atomic_fetch_add(&p->turn, 1);
}

/* The answer before is silent: the newest one in the queue takes its place. */
static void adopt(struct player *p, uint32_t answer)
{
    publish(p);
    p->current = answer;
    p->staged = p->ahead = 0;
    p->pulled = p->since = 0;
    p->ended = p->dry = false;
    ring_read_skip(p->queue, atomic_load(&p->start));
    publish(p);
}

/* Brings the stage up to date and says whether `current` may go on. The order of the loads matters:
 * what was in the queue before `answer` was seen to be `current` belongs to it, and when `end` was
 * seen first, that was all. */
static bool look(struct player *p, size_t n, uint32_t *answer)
{
    uint64_t end = atomic_load(&p->end);
    size_t there = ring_read_avail(p->queue);
    *answer = atomic_load(&p->answer);
    if (*answer != p->current || p->current == 0)
        return false;
    if (is_dropped(p, p->current)) {
        if (p->mode == SILENT) {
            ring_read_skip(p->queue, ring_read_at(p->queue) + there);
            p->staged = 0;
        }
        return false;
    }
    size_t want = min_size(n + (size_t)p->fade, p->block + (size_t)p->fade);
    if (p->staged < want)
        p->staged += ring_read(p->queue, p->stage + p->staged, min_size(want - p->staged, there));
    p->ended = end != OPEN_END;
    if (p->ended && p->staged == 0 && ring_read_at(p->queue) == end)
        atomic_store(&p->over, p->current);
    return atomic_load(&p->allowed) == p->current;
}

/* Whether the stage holds enough to play n samples and still be able to fade out. */
static bool enough(struct player *p, size_t n)
{
    if (p->ended)
        return p->staged > 0;
    size_t there = p->staged + ring_read_avail(p->queue);
    return p->staged >= n + (size_t)p->fade && (!p->dry || there >= p->refill);
}

/* Starts or stops sounding as the others want it and as the queue allows. */
static void decide(struct player *p, size_t n)
{
    uint32_t answer;
    bool may = look(p, n, &answer);
    if (p->mode == SILENT && answer != p->current) {
        adopt(p, answer);
        may = look(p, n, &answer);
    }
    bool can = may && enough(p, n);
    if (may && !can && !p->ended && (p->mode == SOUNDING || p->dry)) {
        p->dry = true;
        atomic_fetch_add(&p->starved, 1);
    }
    if (p->mode == SILENT && can) {
        p->mode = SOUNDING;
        p->dry = false;
        p->level = 0;
    } else if (p->mode == SOUNDING && !can) {
        p->mode = FADING;
        p->ahead = 0;
    }
}

/* The envelope of a sample that has `left` behind it, itself included: down to the end. */
static float envelope(const struct player *p, size_t left)
{
    return (float)min_size((size_t)p->level, left) / (float)p->fade;
}

static void sound(struct player *p, float *pcm, size_t n)
{
    size_t k = min_size(n, p->staged);
    for (size_t i = 0; i < k; i++) {
        p->level += p->level < p->fade;
        pcm[i] = p->stage[i] * envelope(p, p->staged - i);
    }
    p->staged -= k;
    memmove(p->stage, p->stage + k, p->staged * sizeof(float));
    p->pulled += k;
    p->since = n - k;
    if (p->staged > 0)
        return;
    p->mode = SILENT; /* all of an answer that has ended: less would have been kept for a fade */
    p->level = 0;
    atomic_store(&p->over, p->current);
}

/* Plays from the stage without taking anything out of it. */
static void fade(struct player *p, float *pcm, size_t n)
{
    for (size_t i = 0; i < n && p->level > 0 && p->ahead < p->staged; i++) {
        pcm[i] = p->stage[p->ahead] * envelope(p, p->staged - p->ahead);
        p->ahead++;
        p->level--;
    }
    p->since += n;
    if (p->level == 0 || p->ahead == p->staged) {
        p->mode = SILENT;
        p->level = 0;
        p->ahead = 0;
    }
}

/* Adds an earcon; `leaving` ones fade away. */
static void mix(struct player *p, struct earcon *e, bool leaving, float *pcm, size_t n)
{
    for (size_t i = 0; i < n && e->at < e->n && e->level > 0; i++) {
        pcm[i] += e->pcm[e->at++] * (float)e->level / (float)p->fade;
        e->level -= leaving;
    }
}

static void mix_earcons(struct player *p, float *pcm, size_t n)
{
    struct earcon newest;
    while (ring_read(p->earcons, &newest, 1) == 1) {
        if (p->ear[0].at < p->ear[0].n)
            p->ear[1] = p->ear[0];
        p->ear[0] = newest;
    }
    mix(p, &p->ear[0], false, pcm, n);
    mix(p, &p->ear[1], true, pcm, n);
}

static void amplify(struct player *p, float *pcm, size_t n)
{
    float volume = atomic_load(&p->volume);
    if (volume != p->target) {
        p->target = volume;
        p->step = (volume - p->gain) / (float)p->block;
    }
    for (size_t i = 0; i < n; i++) {
        if (fabsf(p->target - p->gain) <= fabsf(p->step))
            p->gain = p->target;
        else
            p->gain += p->step;
        pcm[i] = fminf(fmaxf(pcm[i] * p->gain, -1.0f), 1.0f);
    }
}

static void pull_block(struct player *p, float *pcm, size_t n)
{
    memset(pcm, 0, n * sizeof(float));
    decide(p, n);
    if (p->mode == SOUNDING)
        sound(p, pcm, n);
    else if (p->mode == FADING)
        fade(p, pcm, n);
    else
        p->since += n;
    mix_earcons(p, pcm, n);
    amplify(p, pcm, n);
}

void player_pull(struct player *p, float *pcm, size_t n)
{
    for (size_t i = 0; i < n;) {
        size_t k = min_size(n - i, p->block);
        pull_block(p, pcm + i, k);
        i += k;
    }
    atomic_store(&p->silenced, p->gain < 1e-4f); /* -80 dB; steps add up to nearly 0 */
    publish(p);
}

/* ---- onlookers ---- */

/* What of `answer` the device got: false for one that is not known. */
static bool find(const struct player *p, uint32_t answer, uint64_t *pulled, uint64_t *since)
{
    uint32_t turn;
    bool found;
    do {
        turn = atomic_load(&p->turn);
        const struct tally *t = atomic_load(&p->now.answer) == answer ? &p->now : &p->before;
        found = atomic_load(&t->answer) == answer;
        *pulled = atomic_load(&t->pulled);
        *since = atomic_load(&t->since);
    } while (turn % 2 != 0 || turn != atomic_load(&p->turn));
    return found && answer != 0;
}

/* Samples of the source in so many of the device. */
static uint64_t at_source(const struct player *p, uint64_t samples)
{
    return samples * (uint64_t)p->source_rate / (uint64_t)p->rate;
}

static uint64_t no_more(uint64_t a, uint64_t most)
{
    return a < most ? a : most;
}

bool player_silenced(const struct player *p)
{
    return atomic_load(&p->silenced);
}

void player_state(const struct player *p, struct player_state *s)
{
    uint64_t pulled = 0, since;
    uint32_t answer = atomic_load(&p->answer);
    bool over = answer != 0 && atomic_load(&p->over) == answer;
    *s = (struct player_state){.starved = atomic_load(&p->starved)};
    if (answer == 0 || is_dropped(p, answer))
        return;
    if (!find(p, answer, &pulled, &since))
        pulled = 0;
    uint64_t written = atomic_load(&p->written);
    s->answer = answer;
    s->ended = over;
    s->pulled = no_more(at_source(p, pulled), written);
    s->queued = written - s->pulled;
    s->playing = !over && atomic_load(&p->allowed) == answer;
}

uint64_t player_heard(const struct player *p, uint32_t answer, uint64_t delay)
{
    uint64_t pulled, since;
    if (!find(p, answer, &pulled, &since))
        return 0;
    uint64_t inside = delay > since ? delay - since : 0;
    return at_source(p, pulled > inside ? pulled - inside : 0);
}
