/*
 * audio/join.c - microphone and far end in the microphone's time.
 *
 *   mic samples --ring--> skip or fill with silence ----------------------------> mic
 *   far samples --ring--> skip or wait --> libsoxr, variable rate --> far
 *                                                  ^
 *   moments --> clock of mic --> time of the period's end --> clock of far --> where far should be
 *
 * A clock is a line through the moments: position at the converter over time, followed by a loop of
 * second order that is quick at first and slow later, since moments jitter by milliseconds.
 *
 * Positions of the far end are those in its ring. Positions of the microphone are those of what
 * join_take gave; `shift` lies between them and its ring, and changes when time was lost.
 */
#include "audio/join.h"

#include <errno.h>
#include <math.h>
#include <soxr.h>
#include <stdlib.h>
#include <string.h>

#include "base/ring.h"
#include "base/util.h"

enum { SECONDS = 4, MOMENTS = 1024, HOLD_MAX = 4096 };
#define QUICK_HZ   1.0   /* bandwidth of a clock's loop in its first half second */
#define SLOW_HZ    0.002 /* ... from the fourth minute on; between them as one half over time */
#define GAP_MAX_S  10.0  /* the longest silence for lost samples of the microphone */
#define JUMP_S     0.060 /* a clock that is off by more is set anew */
#define RATE_MAX   6e-4  /* what a clock may be off its nominal rate */
#define FAR_JUMP_S 0.020 /* far end off by more is moved at once, by less gradually */
#define FOLLOW_S   3.0   /* time in which it is moved gradually */
#define FOLLOW_MAX 5e-3  /* ... but no faster */

struct mark {
    uint64_t from; /* position of its first sample */
    uint64_t to;   /* ... behind its last */
    int64_t at_ns, delay;
    bool anew;
};

struct clock {
    bool set;
    double at, position, rate; /* seconds, samples, samples a second */
    double since;              /* seconds of the first moment */
};

struct side {
    struct ring *samples, *marks;
    struct clock clock;
    bool pending, anew; /* marks that found no room lose nothing but their `anew` */
    struct mark next;   /* read, not yet applied */
};

struct join {
    int rate;
    size_t period;
    int64_t origin_ns; /* times count from here */
    bool started;
    struct side side[2];
    uint64_t taken; /* samples of the microphone given out */
    int64_t shift;  /* position of the microphone less that in its ring */
    double capture_delay;
    soxr_t vary;
    bool flowing; /* far end is in place and goes through `vary` */
    double at;    /* far position of what `vary` gives next */
    double error; /* samples */
    size_t hold;  /* samples that `vary` holds */
    float *silence, *primed;
};

static int open_resampler(struct join *j)
{
    soxr_error_t failed;
    const soxr_quality_spec_t quality = soxr_quality_spec(SOXR_HQ, SOXR_VR);
    const soxr_runtime_spec_t runtime = soxr_runtime_spec(1);
    j->vary = soxr_create(1.1, 1.0, 1, &failed, NULL, &quality, &runtime);
    return failed != NULL ? -ENOMEM : 0;
}

/* By how many samples the resampler shifts; soxr_delay does not say. Where a click comes out tells.
 */
static int measure_hold(struct join *j)
{
    enum { N = 2 * HOLD_MAX };
    float *in = calloc(2 * N, sizeof(float)), *out = in + N;
    size_t used, done;
    if (in == NULL)
        return -ENOMEM;
    in[0] = 1.0f;
    soxr_set_io_ratio(j->vary, 1.0, 0);
    soxr_process(j->vary, in, N, &used, out, N, &done);
    for (size_t i = 0; i < done; i++)
        if (out[i] > out[j->hold])
            j->hold = i;
    free(in);
    return j->hold < HOLD_MAX ? 0 : -EINVAL;
}

int join_open(struct join **ret, int rate)
{
    struct join *j = calloc(1, sizeof(*j));
    if (j == NULL)
        return -ENOMEM;
    j->rate = rate;
    j->period = (size_t)rate / 100;
    int err = open_resampler(j);
    for (int s = 0; s < 2 && err == 0; s++) {
        err = ring_open(&j->side[s].samples, sizeof(float), (size_t)(SECONDS * rate), 0);
        if (err == 0)
            err = ring_open(&j->side[s].marks, sizeof(struct mark), MOMENTS, 0);
        j->side[s].clock.rate = rate;
    }
    j->silence = calloc(j->period, sizeof(float));
    j->primed = calloc(HOLD_MAX, sizeof(float));
    if (err == 0 && j->silence != NULL && j->primed != NULL)
        err = measure_hold(j);
    if (err < 0 || j->silence == NULL || j->primed == NULL) {
        join_close(j);
        return err < 0 ? err : -ENOMEM;
    }
    *ret = j;
    return 0;
}

void join_close(struct join *j)
{
    if (j == NULL)
        return;
    for (int s = 0; s < 2; s++) {
        ring_close(j->side[s].samples);
        ring_close(j->side[s].marks);
    }
    soxr_delete(j->vary);
    free(j->silence);
    free(j->primed);
    free(j);
}

void join_write(struct join *j, enum audio_direction side, const float *pcm, size_t n,
                const struct audio_moment *m, bool anew)
{
    struct side *s = &j->side[side];
    uint64_t at = ring_write_at(s->samples);
    size_t fits = min_size(n, ring_write_room(s->samples));
    const struct mark mark = {
        .from = at, .to = at + fits, .at_ns = m->at_ns, .delay = m->delay, .anew = anew || s->anew};
    s->anew = ring_write(s->marks, &mark, 1) < 1 || fits < n; /* nobody reads: time is lost */
    ring_write(s->samples, pcm, fits);
}

/* ---- clocks ---- */

static double seconds(const struct join *j, int64_t ns)
{
    return (double)(ns - j->origin_ns) / 1e9;
}

static double position_at(const struct clock *c, double t)
{
    return c->position + (t - c->at) * c->rate;
}

static double time_of(const struct clock *c, double position)
{
    return c->at + (position - c->position) / c->rate;
}

static void set_clock(struct clock *c, double t, double position)
{
    c->set = true;
    c->at = c->since = t;
    c->position = position;
}

static void follow(struct clock *c, double t, double position, double nominal)
{
    double dt = t - c->at, off = position - position_at(c, t);
    if (!c->set || fabs(off) > JUMP_S * nominal) {
        set_clock(c, t, position);
        return;
    }
    if (dt <= 0.0)
        return;
    double hz = fmin(fmax(0.5 / (t - c->since + 1e-3), SLOW_HZ), QUICK_HZ);
    double w = fmin(2.0 * 3.14159265 * hz * dt, 0.5);
    c->position = position_at(c, t) + fmin(1.4142 * w, 1.0) * off;
    c->rate += w * w * off / dt;
    c->rate = fmin(fmax(c->rate, nominal * (1.0 - RATE_MAX)), nominal * (1.0 + RATE_MAX));
    c->at = t;
}

static bool next_mark(struct side *s)
{
    if (!s->pending)
        s->pending = ring_read(s->marks, &s->next, 1) == 1;
    return s->pending;
}

static void start(struct join *j, int64_t ns)
{
    if (!j->started)
        j->origin_ns = ns;
    j->started = true;
}

/* The far end's moments count as soon as they are known. */
static void read_far_marks(struct join *j)
{
    struct side *s = &j->side[AUDIO_PLAYBACK];
    while (next_mark(s)) {
        start(j, s->next.at_ns);
        double t = seconds(j, s->next.at_ns);
        double heard = (double)s->next.to - (double)s->next.delay;
        if (s->next.anew) {
            set_clock(&s->clock, t, heard);
            j->flowing = false;
        } else {
            follow(&s->clock, t, heard, j->rate);
        }
        s->pending = false;
    }
}

/* The microphone's count from the sample on that they belong to. */
static void read_mic_marks(struct join *j)
{
    struct side *s = &j->side[AUDIO_CAPTURE];
    while (next_mark(s) && s->next.from <= ring_read_at(s->samples)) {
        start(j, s->next.at_ns);
        double t = seconds(j, s->next.at_ns);
        j->capture_delay = (double)s->next.delay;
        if (!s->clock.set) {
            j->shift = (int64_t)j->taken - (int64_t)s->next.from; /* silence was given until now */
        } else if (s->next.anew) {
            /* By the clock, but not before what was given out, nor far behind it: the delays that
             * sound servers report are wrong by hundreds of milliseconds now and then. */
            double came = position_at(&s->clock, t) - (double)s->next.delay -
                          (double)(s->next.to - s->next.from);
            came = fmin(fmax(came, (double)j->taken), (double)j->taken + GAP_MAX_S * j->rate);
            j->shift = llround(came) - (int64_t)s->next.from;
            s->clock.since = t;
        }
        double captured = (double)((int64_t)s->next.to + j->shift + s->next.delay);
        follow(&s->clock, t, captured, j->rate);
        s->pending = false;
    }
}

/* ---- microphone ---- */

bool join_ready(struct join *j)
{
    struct side *s = &j->side[AUDIO_CAPTURE];
    read_mic_marks(j);
    int64_t there = (int64_t)ring_write_at(s->samples) + j->shift;
    return there - (int64_t)j->taken >= (int64_t)j->period;
}

static size_t take_mic(struct join *j, float *mic)
{
    struct side *s = &j->side[AUDIO_CAPTURE];
    size_t missing = 0;
    for (size_t n = 0; n < j->period;) {
        read_mic_marks(j);
        int64_t want = (int64_t)(j->taken + n) - j->shift; /* in the ring */
        int64_t ahead = (int64_t)ring_read_at(s->samples) - want;
        size_t k = j->period - n;
        if (ahead < 0) {
            ring_read_skip(s->samples, (uint64_t)want);
            ahead = (int64_t)ring_read_at(s->samples) - want;
        }
        if (s->pending) /* what follows belongs to another time */
            k = min_size(k, (size_t)(s->next.from - ring_read_at(s->samples)));
        size_t got = ahead == 0 ? ring_read(s->samples, mic + n, k) : 0;
        if (got == 0) {
            got = ahead > 0 ? min_size(j->period - n, (size_t)ahead) : j->period - n;
            memset(mic + n, 0, got * sizeof(float));
            missing += got;
        }
        n += got;
    }
    j->taken += j->period;
    return missing;
}

/* ---- far end ---- */

/* out[n] from the resampler, `ratio` samples of the ring each. It takes no more of them than it
 * needs. Where the ring has none, silence takes their place, and the far end has lost its place. */
static void flow(struct join *j, float *out, size_t n, double ratio)
{
    struct ring *r = j->side[AUDIO_PLAYBACK].samples;
    soxr_set_io_ratio(j->vary, ratio, 0); /* at once, so that `at` can be counted */
    j->at += (double)n * ratio;
    for (size_t made = 0; made < n;) {
        const void *in;
        size_t used = 0, done = 0, there = ring_read_begin(r, &in, j->period);
        soxr_process(j->vary, there > 0 ? in : j->silence, there > 0 ? there : j->period, &used,
                     out + made, n - made, &done);
        ring_read_end(r, there > 0 ? used : 0);
        j->flowing = j->flowing && there > 0;
        made += done;
    }
}

/* Puts the far end to where it should be: skips what was never heard, or gives silence (false)
 * until it is. */
static bool place(struct join *j, double from)
{
    struct ring *r = j->side[AUDIO_PLAYBACK].samples;
    double at = (double)ring_read_at(r);
    if (from < at)
        return false;
    ring_read_skip(r, (uint64_t)llround(from));
    soxr_clear(j->vary);
    soxr_set_io_ratio(j->vary, 1.0, 0);
    j->at = (double)ring_read_at(r) - (double)j->hold;
    j->flowing = true;
    flow(j, j->primed, j->hold, 1.0); /* what comes out first is what it holds: silence */
    return true;
}

static void take_far(struct join *j, float *far)
{
    const struct clock *m = &j->side[AUDIO_CAPTURE].clock, *f = &j->side[AUDIO_PLAYBACK].clock;
    read_far_marks(j);
    memset(far, 0, j->period * sizeof(float));
    if (!m->set || !f->set)
        return;
    double pace = f->rate / m->rate;
    double end = time_of(m, (double)j->taken) + JOIN_LEAD_MS / 1000.0; /* of this period */
    double due = position_at(f, end);
    double from = due - (double)j->period * pace;

    j->error = j->flowing ? from - j->at : 0.0;
    if (j->flowing && fabs(j->error) > FAR_JUMP_S * j->rate)
        j->flowing = false;
    if (!j->flowing && !place(j, from))
        return;
    double follow_by = j->error / (FOLLOW_S * j->rate);
    follow_by = fmin(fmax(follow_by, -FOLLOW_MAX), FOLLOW_MAX);
    flow(j, far, j->period, pace * (1.0 + follow_by));
}

size_t join_take(struct join *j, float *mic, float *far)
{
    size_t missing = take_mic(j, mic);
    take_far(j, far);
    return missing;
}

/* ---- what is known ---- */

double join_play_delay(const struct join *j, int64_t now_ns)
{
    const struct side *s = &j->side[AUDIO_PLAYBACK];
    if (!s->clock.set)
        return 0.0;
    double inside = (double)ring_write_at(s->samples) - position_at(&s->clock, seconds(j, now_ns));
    return fmax(inside, 0.0);
}

double join_capture_delay(const struct join *j)
{
    return j->capture_delay;
}

double join_drift_ppm(const struct join *j)
{
    const struct clock *m = &j->side[AUDIO_CAPTURE].clock, *f = &j->side[AUDIO_PLAYBACK].clock;
    return m->set && f->set ? (f->rate / m->rate - 1.0) * 1e6 : 0.0;
}

double join_error(const struct join *j)
{
    return j->error;
}
