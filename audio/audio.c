/*
 * audio/audio.c - one microphone and one loudspeaker, live.
 *
 *   microphone --capture thread--> join --audio_read--> mic, far
 *   player --playback thread--> loudspeaker
 *                          \--> join
 *
 * Each side has a thread, which opens its device when it was lost (allowed to take its time), and
 * in between only moves samples (bound by the rules of real time, audio/realtime.h). Unpaced there
 * are no threads: audio_read moves a period of both sides itself, so that a run gives the same
 * result every time.
 */
#include "audio/audio.h"

#include <errno.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "audio/device.h"
#include "audio/join.h"
#include "audio/realtime.h"
#include "base/thread.h"
#include "base/util.h"

enum {

    PERIOD_MS = 10,
    FIRST_STALL_MS = 4000, /* a sound server may take so long for the first samples */
    LATE_MS = 300,         /* a microphone that is so late is not waited for ... */
    AGAIN_MS = 30,         /* ... but for so long each time, until it is back */
    RETRY_MS = 100,        /* the first pause between two attempts to open; it doubles ... */
    RETRY_MAX_MS = 400,    /* ... up to this */
    NAP_MS = 20,           /* looking whether to stop */
};
#define MS 1000000 /* ns */

enum half_state { HALF_RUNS, HALF_LOST, HALF_MUTED };

/* One side: its device, its thread. */
struct half {
    struct audio *a;
    enum audio_direction direction;
    const struct audio_device_kind *kind;
    char name[AUDIO_NAME];
    void *device; /* the thread's, once it runs */
    bool gone;    /* likewise: it was announced as lost */
    struct thread thread;
    bool running;
    float *pcm;               /* [period] */
    char text[2][AUDIO_TEXT]; /* the newest at text_at */
    _Atomic int text_at;
    _Atomic bool stop, muted;
    _Atomic int state;                  /* enum half_state */
    _Atomic uint64_t xruns, lost, back; /* times */
    _Atomic uint64_t moved;             /* times that samples did not follow the ones before */
    _Atomic bool over;                  /* the recording is at its end */
    uint64_t lost_told, back_told, moved_told; /* audio_read's */
};

struct audio {
    int rate;
    size_t period;
    bool unpaced, end_told, late, hears;
    struct player *player;
    struct pa_host *host;
    struct join *join;
    struct half half[2];
    sem_t ready; /* a period came, or somebody wakes audio_read */
    _Atomic bool woken;
    int64_t due_ns; /* when the next period should be given out */
};

/* ---- the threads ---- */

static int open_device(struct half *h, struct problems *why)
{
    const struct audio_device_opts o = {.name = h->name,
                                        .direction = h->direction,
                                        .rate = h->a->rate,
                                        .period = (int)h->a->period,
                                        .unpaced = h->a->unpaced,
                                        .host = h->a->host};
    int next = 1 - atomic_load(&h->text_at);
    int err = h->kind->open(&h->device, &o, h->text[next], why);
    if (err < 0)
        h->device = NULL;
    else
        atomic_store(&h->text_at, next);
    return err;
}

static void close_device(struct half *h)
{
    if (h->device != NULL)
        h->kind->close(h->device);
    h->device = NULL;
}

static int move_period(struct half *h, struct audio_moment *m)
{
    realtime_enter(REALTIME_LIBRARY);
    int moved = h->kind->transfer(h->device, h->pcm, h->a->period, m);
    realtime_enter(REALTIME_OURS);
    return moved;
}

/* Announced once, also when it was muted meanwhile. */
static void tell_lost(struct half *h)
{
    atomic_store(&h->state, HALF_LOST);
    if (!h->gone)
        atomic_fetch_add(&h->lost, 1);
    h->gone = true;
}

static void tell_runs(struct half *h)
{
    atomic_store(&h->state, HALF_RUNS);
    if (h->gone)
        atomic_fetch_add(&h->back, 1);
    h->gone = false;
}

/* Bound by the rules of real time from its first line to its last. Returns why it ended: 0 when it
 * was told to, negative errno when the device is gone. */
static int pump(struct half *h)
{
    struct audio *a = h->a;
    bool playback = h->direction == AUDIO_PLAYBACK, anew = true, again = false;
    int64_t moved_ns = audio_now_ns(), stall_ms = FIRST_STALL_MS;
    int moved = 0;
    while (!atomic_load(&h->stop) && !atomic_load(&h->muted)) {
        struct audio_moment m;
        if (playback && !again)
            player_pull(a->player, h->pcm, a->period);
        moved = move_period(h, &m);
        again = moved == -EAGAIN;
        if (again && audio_now_ns() - moved_ns < stall_ms * MS)
            continue;
        if (moved < 0)
            return again ? -ETIMEDOUT : moved;
        anew = anew || moved == AUDIO_XRUN;
        if (moved == AUDIO_XRUN)
            atomic_fetch_add(&h->xruns, 1);
        if (moved == AUDIO_OVER)
            atomic_store(&h->over, true);
        join_write(a->join, h->direction, h->pcm, a->period, &m, anew);
        if (anew) {
            tell_runs(h); /* not when it was opened: now it works */
            atomic_fetch_add(&h->moved, 1);
        }
        anew = false;
        moved_ns = audio_now_ns();
        stall_ms = AUDIO_STALL_MS;
        if (!playback)
            sem_post(&a->ready);
    }
    return 0;
}

/* Sleeps for ms, or until the thread is to end. */
static void nap(struct half *h, int ms)
{
    int64_t until = audio_now_ns() + (int64_t)ms * MS;
    while (!atomic_load(&h->stop) && audio_now_ns() < until)
        audio_sleep_until_ns(audio_now_ns() + NAP_MS * MS);
}

/* Opens the device again and again, until it is there or the thread is to end. */
static void reopen(struct half *h)
{
    for (int ms = RETRY_MS; !atomic_load(&h->stop) && !atomic_load(&h->muted);
         ms = min_int(2 * ms, RETRY_MAX_MS)) {
        if (open_device(h, NULL) == 0)
            return;
        tell_lost(h);
        nap(h, ms);
    }
}

static void run_device(struct half *h)
{
    realtime_enter(REALTIME_OURS);
    int err = pump(h);
    realtime_enter(REALTIME_NONE);
    close_device(h);
    if (err == 0 || err == -ESTALE)
        return;
    tell_lost(h);
    nap(h, RETRY_MS);
}

static void *half_main(void *arg)
{
    struct half *h = arg;
    while (!atomic_load(&h->stop)) {
        if (atomic_load(&h->muted)) {
            close_device(h);
            atomic_store(&h->state, HALF_MUTED);
            nap(h, NAP_MS);
            continue;
        }
        if (h->device == NULL)
            reopen(h);
        if (h->device != NULL)
            run_device(h);
    }
    return NULL;
}

/* ---- open and close ---- */

static const struct audio_device_kind *find_kind(const struct audio_device_kind *const *kinds,
                                                 const char *name, size_t length)
{
    for (; *kinds != NULL; kinds++)
        if (strlen((*kinds)->prefix) == length && strncmp(name, (*kinds)->prefix, length) == 0)
            return *kinds;
    return NULL;
}

/* The parts of "KIND:REST"; `option` is whose name it is, for the sentence. */
static int split_name(const struct audio_device_kind **kind, const char **rest, const char *option,
                      const char *name, const struct audio_device_kind *const *kinds,
                      struct problems *why)
{
    size_t length = strcspn(name, ":");
    *kind = find_kind(kinds, name, length);
    if (*kind == NULL)
        return problem_add(why, -EINVAL,
                           "%s '%s': no such kind of device, expected alsa:NAME, portaudio:NAME, "
                           "wav:PATH or null",
                           option, name);
    *rest = name[length] == ':' ? name + length + 1 : "";
    if (strlen(*rest) >= AUDIO_NAME)
        return problem_add(why, -EINVAL, "%s: its name is longer than %d bytes", option,
                           AUDIO_NAME - 1);
    return 0;
}

static int name_half(struct half *h, const char *name, const struct audio_device_kind *const *kinds,
                     struct problems *why)
{
    const char *option = h->direction == AUDIO_CAPTURE ? "microphone" : "loudspeaker", *rest;
    int err = split_name(&h->kind, &rest, option, name, kinds, why);
    if (err < 0)
        return err;
    memcpy(h->name, rest, strlen(rest) + 1);
    bool can = h->kind != &audio_alsa && h->kind != &audio_portaudio;
    if (h->a->unpaced && !can)
        return problem_add(why, -EINVAL, "%s '%s': only wav: and null can be unpaced", option,
                           name);
    return 0;
}

static int open_half(struct audio *a, enum audio_direction direction, const char *name,
                     const struct audio_device_kind *const *kinds, struct problems *why)
{
    struct half *h = &a->half[direction];
    h->a = a;
    h->direction = direction;
    int err = name_half(h, name != NULL ? name : "alsa:default", kinds, why);
    if (err < 0)
        return err;
    h->pcm = calloc(a->period, sizeof(float));
    if (h->pcm == NULL)
        return -ENOMEM;
    return atomic_load(&h->muted) ? 0 : open_device(h, why);
}

static int start_half(struct half *h)
{
    const char *name = h->direction == AUDIO_CAPTURE ? "capture" : "playback";
    int err = thread_start(&h->thread, name, half_main, h);
    h->running = err == 0;
    return err;
}

static int open_all(struct audio *a, const struct audio_opts *o,
                    const struct audio_device_kind *const *kinds, struct problems *why)
{
    int err = pa_host_open(&a->host);
    if (err == 0)
        err = join_open(&a->join, a->rate);
    if (err == 0)
        err = open_half(a, AUDIO_CAPTURE, o->capture, kinds, why);
    if (err == 0)
        err = open_half(a, AUDIO_PLAYBACK, o->playback, kinds, why);
    if (err == 0 && !a->unpaced)
        err = start_half(&a->half[AUDIO_PLAYBACK]);
    if (err == 0 && !a->unpaced)
        err = start_half(&a->half[AUDIO_CAPTURE]);
    return err;
}

/* Opens everything with real-time priority: our two threads inherit it, and so do those that sound
 * servers' clients and PortAudio start for themselves, without which ours would wait in vain. */
static int open_realtime(struct audio *a, const struct audio_opts *o,
                         const struct audio_device_kind *const *kinds, struct problems *why)
{
    int refused = thread_realtime(true);
    int err = open_all(a, o, kinds, why);
    if (refused == 0)
        thread_realtime(false);
    else if (err == 0)
        problem_add(why, 0,
                    "audio: real-time priority is refused (%s; the limit is LimitRTPRIO= or rtprio "
                    "in limits.conf): sound may break off while the machine is busy",
                    strerror(-refused));
    return err;
}

int audio_open_kinds(struct audio **ret, const struct audio_opts *o,
                     const struct audio_device_kind *const *kinds, struct problems *why)
{
    int rate = o->rate != 0 ? o->rate : 48000;
    if (rate < 8000 || rate > 192000 || rate % 100 != 0)
        return problem_add(why, -EINVAL,
                           "audio: rate: found %d Hz, expected 8000 to 192000 in steps of 100",
                           rate);
    if (o->player == NULL)
        return problem_add(why, -EINVAL, "audio: no player");
    struct audio *a = calloc(1, sizeof(*a));
    if (a == NULL)
        return -ENOMEM;
    a->rate = rate;
    a->period = (size_t)rate / 100;
    a->unpaced = o->unpaced;
    a->player = o->player;
    audio_mute(a, o->muted);
    atomic_store(&a->half[AUDIO_CAPTURE].state, o->muted ? HALF_MUTED : HALF_RUNS);
    a->due_ns = audio_now_ns() + (int64_t)PERIOD_MS * MS;
    sem_init(&a->ready, 0, 0);
    bool realtime = o->realtime && !o->unpaced;
    int err = realtime ? open_realtime(a, o, kinds, why) : open_all(a, o, kinds, why);
    if (err < 0) {
        audio_close(a);
        return err;
    }
    *ret = a;
    return 0;
}

static const struct audio_device_kind *const all_kinds[] = {&audio_alsa, &audio_portaudio,
                                                            &audio_wav, &audio_null, NULL};

int audio_check(const char *name, struct problems *why)
{
    const struct audio_device_kind *kind;
    const char *rest;
    return split_name(&kind, &rest, "device", name, all_kinds, why);
}

int audio_open(struct audio **ret, const struct audio_opts *o, struct problems *why)
{
    return audio_open_kinds(ret, o, all_kinds, why);
}

void audio_close(struct audio *a)
{
    if (a == NULL)
        return;
    for (int i = 0; i < 2; i++)
        atomic_store(&a->half[i].stop, true);
    for (int i = 0; i < 2; i++) {
        if (a->half[i].running)
            thread_join(&a->half[i].thread);
        close_device(&a->half[i]);
        free(a->half[i].pcm);
    }
    join_close(a->join);
    pa_host_close(a->host);
    sem_destroy(&a->ready);
    free(a);
}

/* ---- reading ---- */

static int tell(struct half *h, int lost, int back)
{
    uint64_t times_lost = atomic_load(&h->lost), times_back = atomic_load(&h->back);
    uint64_t times_moved = atomic_load(&h->moved);
    int set = (times_lost != h->lost_told ? lost : 0) | (times_back != h->back_told ? back : 0) |
              (times_moved != h->moved_told ? AUDIO_MOVED : 0);
    h->lost_told = times_lost;
    h->back_told = times_back;
    h->moved_told = times_moved;
    return set;
}

static int notices(struct audio *a)
{
    int set = tell(&a->half[AUDIO_CAPTURE], AUDIO_MIC_LOST, AUDIO_MIC_BACK) |
              tell(&a->half[AUDIO_PLAYBACK], AUDIO_SPEAKER_LOST, AUDIO_SPEAKER_BACK);
    if (atomic_load(&a->half[AUDIO_CAPTURE].over) && !a->end_told && !join_ready(a->join)) {
        a->end_told = true;
        set |= AUDIO_END;
    }
    return set;
}

/* Waits until a period is there (0), is not to be waited for any longer (1), or audio_wake. */
static int wait_period(struct audio *a)
{
    for (;;) {
        if (atomic_exchange(&a->woken, false))
            return -EINTR;
        if (join_ready(a->join))
            return 0;
        bool runs = atomic_load(&a->half[AUDIO_CAPTURE].state) == HALF_RUNS;
        int patience_ms = !runs ? 0 : a->late ? AGAIN_MS : LATE_MS;
        int64_t limit = a->due_ns + patience_ms * (int64_t)MS, now = audio_now_ns();
        if (now >= limit)
            return 1;
        limit = limit < now + PERIOD_MS * MS ? limit : now + PERIOD_MS * MS;
        const struct timespec t = {.tv_sec = limit / 1000000000, .tv_nsec = limit % 1000000000};
        sem_clockwait(&a->ready, CLOCK_MONOTONIC, &t);
    }
}

static int read_unpaced(struct audio *a, float *mic, float *far)
{
    struct audio_moment m;
    struct half *c = &a->half[AUDIO_CAPTURE], *p = &a->half[AUDIO_PLAYBACK];
    int moved = 0;
    memset(mic, 0, a->period * sizeof(float));
    if (!atomic_load(&c->muted) && (c->device != NULL || open_device(c, NULL) == 0))
        moved = c->kind->transfer(c->device, mic, a->period, &m);
    player_pull(a->player, far, a->period);
    memcpy(p->pcm, far, a->period * sizeof(float));
    p->kind->transfer(p->device, p->pcm, a->period, &m);
    bool end = moved == AUDIO_OVER && !a->end_told;
    a->end_told = a->end_told || end;
    return end ? AUDIO_END : 0;
}

int audio_read(struct audio *a, float *mic, float *far)
{
    if (a->unpaced)
        return atomic_exchange(&a->woken, false) ? -EINTR : read_unpaced(a, mic, far);
    int late = wait_period(a);
    if (late < 0)
        return late;
    int64_t now = audio_now_ns();
    a->late = late == 1;
    a->due_ns = (late == 1 && now - a->due_ns < 1000 * (int64_t)MS ? a->due_ns : now) +
                PERIOD_MS * (int64_t)MS;
    const struct half *c = &a->half[AUDIO_CAPTURE];
    bool heard = a->hears; /* the first period after a pause may begin in its middle */
    a->hears = atomic_load(&c->state) == HALF_RUNS && !atomic_load(&c->muted);
    size_t missing = join_take(a->join, mic, far);
    return notices(a) | (missing > 0 && heard && a->hears ? AUDIO_OVERRUN : 0);
}

void audio_wake(struct audio *a)
{
    atomic_store(&a->woken, true);
    sem_post(&a->ready);
}

void audio_mute(struct audio *a, bool muted)
{
    atomic_store(&a->half[AUDIO_CAPTURE].muted, muted);
}

void audio_stats(const struct audio *a, struct audio_stats *s)
{
    const struct half *c = &a->half[AUDIO_CAPTURE], *p = &a->half[AUDIO_PLAYBACK];
    double delay = a->unpaced ? 0.0 : join_play_delay(a->join, audio_now_ns());
    *s = (struct audio_stats){
        .overruns = atomic_load(&c->xruns),
        .underruns = atomic_load(&p->xruns),
        .mic_lost = atomic_load(&c->lost),
        .speaker_lost = atomic_load(&p->lost),
        .play_delay = (uint64_t)delay,
        .round_trip = (uint64_t)(delay + join_capture_delay(a->join)),
        .drift_ppm = join_drift_ppm(a->join),
        .capture =
            atomic_load(&c->state) == HALF_MUTED ? "closed" : c->text[atomic_load(&c->text_at)],
        .playback = p->text[atomic_load(&p->text_at)],
    };
}

int audio_list(FILE *out)
{
    struct pa_host *host;
    int err = pa_host_open(&host);
    if (err < 0)
        return err;
    for (int d = 0; d < 2; d++) {
        fprintf(out, d == AUDIO_CAPTURE ? "microphones:\n" : "loudspeakers:\n");
        for (size_t k = 0; all_kinds[k] != NULL; k++)
            all_kinds[k]->list(out, (enum audio_direction)d, host);
    }
    pa_host_close(host);
    return 0;
}
