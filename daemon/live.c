/*
 * daemon/live.c - devices, ear, conversation and their two threads; see live.h.
 *
 * The floor's thread owns audio, ear and the floor's side of the conversation; the owner's wishes
 * and the event lines cross in rings. It is paced by audio_read and does no lengthy work, but it is
 * no real-time thread: it writes lines and locks the figures for a copy.
 */
#include "daemon/live.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/ring.h"
#include "base/thread.h"
#include "base/util.h"
#include "model/utf8.h"

enum {
    WISHES = 64,
    TAP = 4 * EAR_RATE,
    LINES = 512,          /* that wait for the owner, ... */
    LINE_BYTES = 1 << 18, /* ... and their text */
    FADE_PERIODS = 4,     /* from a stop's silence until the threads end: it has left the device */
    FADE_MOST = 50,       /* ... from the stop, however late the loudspeaker's thread is */
    IDLE_PERIODS = 100,   /* of silence after the end of a wav: microphone */
    STATS_PERIODS = 10,   /* between two looks at the devices' figures */
    LOST_PERIODS = 30,    /* of microphone: the turn cannot be trusted */
    FORGIVE_PERIODS = 50, /* without a loss pay for one lost */
};

enum wish_kind { WISH_EVENT, WISH_ASK, WISH_SAY, WISH_FORGET, WISH_EARCON };

struct wish {
    enum wish_kind kind;
    int what;   /* the event, the earcon */
    char *text; /* the floor's from now on */
};

struct live {
    struct live_opts opts;
    int rate;
    struct player *player;
    struct audio *audio;
    struct ear *ear;
    struct conversation *conversation;
    struct ring *wishes; /* struct wish, owner -> floor */
    struct ring *bytes;  /* char, floor -> owner */
    struct ring *sizes;  /* size_t of each line; written behind its bytes */
    struct ring *tap;    /* float, floor -> owner */
    _Atomic bool tapped;
    int fd; /* eventfd: lines have come */
    struct thread floor, work;
    bool floor_runs, work_runs;
    _Atomic bool stop, ended;
    _Atomic uint64_t periods, rounds, lines_lost;

    pthread_mutex_t lock; /* of figures */
    struct live_stats figures;
    int work_err; /* the work thread's, until it is joined */
    struct problems work_why;

    /* The floor's thread. */
    float *mic, *far; /* [rate / 100] */
    struct audio_stats devices;
    struct live_stats now; /* what becomes figures */
    int idle, lost, kept;
    bool at_end; /* of a wav: microphone */
};

/* -- The stream of lines ---------------------------------------------------------------------- */

static void poke(const struct live *l)
{
    const uint64_t one = 1;
    if (write(l->fd, &one, sizeof(one)) < 0)
        return; /* full: it is readable anyway */
}

static void take_line(void *ctx, const char *line, size_t n)
{
    struct live *l = ctx;
    if (ring_write_room(l->bytes) < n || ring_write_room(l->sizes) == 0) {
        atomic_fetch_add(&l->lines_lost, 1);
    } else {
        ring_write(l->bytes, line, n);
        ring_write(l->sizes, &n, 1);
    }
    poke(l);
}

int live_fd(const struct live *l)
{
    return l->fd;
}

size_t live_read(struct live *l, char text[LIVE_LINE_MAX])
{
    uint64_t count;
    size_t n = 0;
    if (ring_read(l->sizes, &n, 1) == 1) {
        ring_read(l->bytes, text, n);
        text[n] = '\0';
        return n;
    }
    /* Nothing is there: now the signal may be taken down, and what came meanwhile is looked for
     * once more. */
    if (read(l->fd, &count, sizeof(count)) == (ssize_t)sizeof(count))
        return live_read(l, text);
    return 0;
}

/* -- The work side's thread ------------------------------------------------------------------- */

static void *work(void *arg)
{
    struct live *l = arg;
    int kind = WORK_NONE;
    while (!atomic_load(&l->stop) && kind >= 0) {
        double before = clock_seconds();
        kind = conversation_work(l->conversation, &l->work_why);
        if (kind > WORK_NONE)
            conversation_cost(l->conversation, clock_seconds() - before);
        else if (kind == WORK_NONE)
            conversation_wait(l->conversation);
        atomic_fetch_add(&l->rounds, 1);
    }
    l->work_err = kind < 0 ? kind : 0;
    if (kind < 0) {
        atomic_store(&l->ended, true);
        poke(l);
    }
    return NULL;
}

/* -- The floor's thread ----------------------------------------------------------------------- */

static void tell_notices(struct live *l, int notices)
{
    static const struct {
        int notice;
        enum turn_event_kind event;
    } table[] = {{AUDIO_MIC_LOST, TURN_MIC_LOST},
                 {AUDIO_MIC_BACK, TURN_MIC_BACK},
                 {AUDIO_SPEAKER_LOST, TURN_SPEAKER_LOST},
                 {AUDIO_SPEAKER_BACK, TURN_SPEAKER_BACK}};
    for (size_t i = 0; i < ARRAY_LEN(table); i++)
        if (notices & table[i].notice)
            conversation_event(l->conversation, table[i].event);
    if (notices & (AUDIO_MIC_LOST | AUDIO_MIC_BACK))
        l->now.mic_lost = !(notices & AUDIO_MIC_BACK);
    if (notices & (AUDIO_SPEAKER_LOST | AUDIO_SPEAKER_BACK))
        l->now.speaker_lost = !(notices & AUDIO_SPEAKER_BACK);
    l->at_end |= (notices & AUDIO_END) != 0;
}

/* A period lost now and then does no harm; many of them do. */
static void count_overruns(struct live *l, int notices)
{
    if (!(notices & AUDIO_OVERRUN)) {
        l->kept += l->lost > 0;
        if (l->kept < FORGIVE_PERIODS)
            return;
        l->lost--;
        l->kept = 0;
    } else if (++l->lost >= LOST_PERIODS) {
        struct conversation_now now;
        conversation_now(l->conversation, &now);
        if (now.state == TURN_LISTENING)
            conversation_event(l->conversation, TURN_OVERFLOW);
        l->lost = 0;
    }
}

/* False: not in this period. */
static bool tell_wish(struct live *l, const struct wish *w)
{
    switch (w->kind) {
    case WISH_EVENT:
        conversation_event(l->conversation, (enum turn_event_kind)w->what);
        return true;
    case WISH_ASK:
        return conversation_ask(l->conversation, w->text) != -EBUSY;
    case WISH_SAY:
        return conversation_say(l->conversation, w->text) != -EBUSY;
    case WISH_FORGET:
        conversation_forget(l->conversation);
        return true;
    default:
        conversation_earcon(l->conversation, (enum turn_earcon)w->what);
        return true;
    }
}

static void tell_wishes(struct live *l)
{
    const void *w;
    while (ring_read_begin(l->wishes, &w, 1) == 1 && tell_wish(l, w)) {
        free(((const struct wish *)w)->text);
        ring_read_end(l->wishes, 1);
    }
}

static void publish(struct live *l, const struct ear_frame *f)
{
    l->now.erle = f->erle;
    l->now.near = f->near;
    l->now.settled = f->settled;
    l->now.clipped += (uint64_t)f->clipped;
    l->now.bad += (uint64_t)f->bad;
    if (atomic_fetch_add(&l->periods, 1) % STATS_PERIODS != 0)
        return;
    audio_stats(l->audio, &l->devices);
    l->now.audio = l->devices;
    pthread_mutex_lock(&l->lock);
    l->figures = l->now;
    pthread_mutex_unlock(&l->lock);
}

/* A wav: microphone is at its end and nothing more will be said. */
static bool is_over(struct live *l)
{
    struct conversation_now now;
    conversation_now(l->conversation, &now);
    l->idle = l->at_end && now.state == TURN_IDLE ? l->idle + 1 : 0;
    return l->idle >= IDLE_PERIODS;
}

static void period(struct live *l, int notices)
{
    struct ear_frame frame;
    tell_notices(l, notices);
    count_overruns(l, notices);
    tell_wishes(l);
    if (notices & AUDIO_MOVED)
        ear_moved(l->ear);
    ear_period(l->ear, l->mic, l->far, &frame);
    if (atomic_load(&l->tapped))
        ring_write(l->tap, frame.clean, EAR_PERIOD);
    int flags = conversation_period(l->conversation, &frame, l->devices.play_delay);
    if (flags & (CONVERSATION_MIC_CLOSE | CONVERSATION_MIC_OPEN))
        audio_mute(l->audio, (flags & CONVERSATION_MIC_CLOSE) != 0);
    publish(l, &frame);
    if (!atomic_load(&l->ended) && is_over(l)) {
        atomic_store(&l->ended, true);
        poke(l);
    }
}

static void *floor_main(void *arg)
{
    struct live *l = arg;
    int left = FADE_PERIODS, waited = 0;
    while (left > 0) {
        int notices = audio_read(l->audio, l->mic, l->far);
        if (atomic_load(&l->stop)) {
            if (waited++ == 0)
                conversation_event(l->conversation, TURN_STOP);
            if (player_silenced(l->player) || waited > FADE_MOST)
                left--;
        }
        if (notices >= 0)
            period(l, notices);
    }
    return NULL;
}

/* -- The owner -------------------------------------------------------------------------------- */

static int wish(struct live *l, enum wish_kind kind, int what, const char *text)
{
    struct wish w = {.kind = kind, .what = what};
    if (text != NULL && (text[0] == '\0' || !utf8_valid(text, strlen(text))))
        return -EINVAL;
    if (text != NULL && (w.text = strdup(text)) == NULL)
        return -ENOMEM;
    if (ring_write(l->wishes, &w, 1) == 1)
        return 0;
    free(w.text);
    return -EAGAIN;
}

int live_event(struct live *l, enum turn_event_kind kind)
{
    return wish(l, WISH_EVENT, (int)kind, NULL);
}

int live_ask(struct live *l, const char *text)
{
    return wish(l, WISH_ASK, 0, text);
}

int live_say(struct live *l, const char *text)
{
    return wish(l, WISH_SAY, 0, text);
}

int live_forget(struct live *l)
{
    return wish(l, WISH_FORGET, 0, NULL);
}

int live_earcon(struct live *l, enum turn_earcon e)
{
    return wish(l, WISH_EARCON, (int)e, NULL);
}

void live_tap(struct live *l, bool on)
{
    ring_read_skip(l->tap, ring_write_at(l->tap));
    atomic_store(&l->tapped, on);
}

size_t live_tapped(struct live *l, float *pcm, size_t n)
{
    return ring_read(l->tap, pcm, n);
}

void live_volume(struct live *l, float gain)
{
    player_volume(l->player, gain);
}

bool live_ended(const struct live *l)
{
    return atomic_load(&l->ended);
}

void live_stats(struct live *l, struct live_stats *s)
{
    pthread_mutex_lock(&l->lock);
    *s = l->figures;
    pthread_mutex_unlock(&l->lock);
    conversation_now(l->conversation, &s->now);
    s->lines_lost = atomic_load(&l->lines_lost);
}

void live_progress(const struct live *l, struct live_progress *p)
{
    p->floor = atomic_load(&l->periods);
    p->work = atomic_load(&l->rounds);
}

static int open_rings(struct live *l)
{
    int err = ring_open(&l->wishes, sizeof(struct wish), WISHES, 0);
    if (err == 0)
        err = ring_open(&l->bytes, 1, LINE_BYTES, 0);
    if (err == 0)
        err = ring_open(&l->tap, sizeof(float), TAP, 0);
    if (err == 0)
        err = ring_open(&l->sizes, sizeof(size_t), LINES, 0);
    if (err == 0 && (l->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) < 0)
        err = -errno;
    l->mic = calloc((size_t)l->rate / 100, sizeof(float));
    l->far = calloc((size_t)l->rate / 100, sizeof(float));
    return err == 0 && (l->mic == NULL || l->far == NULL) ? -ENOMEM : err;
}

static int open_audio(struct live *l, const struct live_opts *o, struct problems *why)
{
    const struct player_opts player = {.rate = l->rate,
                                       .queue_ms = o->queue_ms ? o->queue_ms : 10000};
    const struct ear_opts ear = {.rate = l->rate,
                                 .delay_ms = o->delay_ms,
                                 .no_cancel = o->no_cancel,
                                 .noise = o->noise,
                                 .gain = o->gain};
    int err = player_open(&l->player, &player, why);
    const struct audio_opts audio = {.capture = o->capture,
                                     .playback = o->playback,
                                     .rate = l->rate,
                                     .muted = o->muted,
                                     .realtime = o->realtime,
                                     .player = l->player};
    if (err == 0)
        err = ear_open(&l->ear, &ear, why);
    return err < 0 ? err : audio_open(&l->audio, &audio, why);
}

static int open_conversation(struct live *l, const struct live_opts *o, struct problems *why)
{
    const struct conversation_opts c = {.session = o->session,
                                        .player = l->player,
                                        .rate = l->rate,
                                        .vad = o->vad,
                                        .system = o->system,
                                        .turn = o->turn,
                                        .tell_cut = o->tell_cut,
                                        .texts = o->texts,
                                        .max_tokens = o->max_tokens,
                                        .log = take_line,
                                        .ctx = l};
    return conversation_open(&l->conversation, &c, why);
}

int live_open(struct live **ret, const struct live_opts *o, struct problems *why)
{
    struct live *l = calloc(1, sizeof(*l));
    if (l == NULL)
        return -ENOMEM;
    l->opts = *o;
    l->rate = o->rate ? o->rate : 48000;
    l->fd = -1;
    pthread_mutex_init(&l->lock, NULL);
    int err = open_rings(l);
    if (err == 0)
        err = open_audio(l, o, why);
    if (err == 0)
        err = open_conversation(l, o, why);
    if (err < 0) {
        live_close(l);
        return err;
    }
    audio_stats(l->audio, &l->devices);
    l->figures.audio = l->devices;
    if (o->volume > 0)
        live_volume(l, o->volume);
    if (o->muted)
        live_event(l, TURN_MUTE);
    *ret = l;
    return 0;
}

int live_start(struct live *l, struct problems *why)
{
    int err = thread_start(&l->work, "parley-work", work, l);
    l->work_runs = err == 0;
    if (err == 0) {
        err = thread_start(&l->floor, "parley-floor", floor_main, l);
        l->floor_runs = err == 0;
    }
    if (err == 0)
        return 0;
    live_stop(l, why); /* one thread alone must not outlive this */
    return problem_add(why, err, "live: no thread could be made: %s", strerror(-err));
}

int live_stop(struct live *l, struct problems *why)
{
    live_volume(l, 0); /* a fade for whatever sounds, earcons too */
    atomic_store(&l->stop, true);
    audio_wake(l->audio);
    if (l->floor_runs)
        thread_join(&l->floor);
    conversation_wake(l->conversation);
    if (l->work_runs)
        thread_join(&l->work);
    l->floor_runs = l->work_runs = false;
    for (size_t i = 0; i < l->work_why.n; i++)
        problem_add(why, l->work_err, "%s", l->work_why.text[i]);
    return l->work_err;
}

void live_close(struct live *l)
{
    if (l == NULL)
        return;
    audio_close(l->audio); /* its threads pull from the player */
    conversation_close(l->conversation);
    ear_close(l->ear);
    player_close(l->player);
    struct wish w;
    while (l->wishes != NULL && ring_read(l->wishes, &w, 1) == 1)
        free(w.text);
    ring_close(l->wishes);
    ring_close(l->bytes);
    ring_close(l->tap);
    ring_close(l->sizes);
    if (l->fd >= 0)
        close(l->fd);
    pthread_mutex_destroy(&l->lock);
    problems_free(&l->work_why);
    free(l->mic);
    free(l->far);
    free(l);
}
