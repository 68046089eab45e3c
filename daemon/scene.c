/*
 * daemon/scene.c - the simulated room: mixes what the microphone hears, period by period.
 *
 * Two time lines: the microphone's samples (`now`) and the device's (`pulled`). Device sample d
 * sounds at the microphone's time t with d = t * (1 + drift) - play_delay; `truth` and `heard` are
 * such positions, the second one as the joiner of both clocks believes it to be.
 */
#include "daemon/scene.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "daemon/acoustics.h"
#include "daemon/sound_file.h"

/* Level of the loudspeaker's signal at which the echo is as loud as `echo_db` says. */
#define SPEAKER_DB   -22.5
#define VOICE_TAIL   -3.0 /* dB: reverberation of a person who stands off */
#define SPEAKER_TAIL -9.0 /* ... of the loudspeaker beside the microphone */

enum { LINE = 1 << 16, SEED_ECHO = 77 }; /* device samples that are kept: more than a second */

struct playing {
    float *pcm; /* [n] at the microphone */
    size_t n;
    double from_ms, to_ms; /* what is heard of it */
    uint64_t start, end;   /* sounds from .. to; 0 = not yet */
};

struct meter {
    double sum;
    uint64_t blocks;
};

struct scene {
    const struct scenario *s;
    struct playing *sounds;
    struct noise *noises;
    struct taps echo;
    float echo_gain;
    float *history; /* [echo.last + SCENE_PERIOD] the loudspeaker, newest last */
    float *line;    /* [LINE] the device's samples by position */
    uint64_t now;   /* microphone samples so far */
    uint64_t pulled;
    uint64_t sounded; /* ... of them until the last that was no silence */
    uint64_t echoed;  /* microphone samples until the loudspeaker last sounded */
    double heard, rate;
    bool speaker_lost, mic_lost, mic_closed;
    uint64_t underrun_to, overflow_to, no_number_to;
    struct meter voice, echoes;
};

static uint64_t samples(int ms)
{
    return (uint64_t)ms * (SCENE_RATE / 1000);
}

/* The recording as it arrives at the microphone: through its path, at its level. */
static int hear(struct playing *p, const struct scenario *s, size_t index, const float *pcm,
                size_t n)
{
    const struct scenario_sound *sound = &s->sounds[index];
    struct taps path;
    int err = taps_make(&path, SCENE_RATE, 0, sound->rt60_ms, VOICE_TAIL,
                        (uint64_t)s->room.seed * 1000 + index);
    if (err < 0)
        return err;
    p->n = n + (size_t)path.last;
    p->pcm = malloc(p->n * sizeof(*p->pcm));
    if (p->pcm != NULL) {
        taps_apply(&path, pcm, n, p->pcm);
        double level = active_level(p->pcm, p->n, SCENE_RATE);
        double wanted = sound->as_it_is ? level : s->room.voice_db + sound->level_db;
        float gain = (float)amplitude(wanted - level);
        for (size_t i = 0; i < p->n; i++)
            p->pcm[i] *= gain;
    }
    taps_free(&path);
    return p->pcm ? 0 : -ENOMEM;
}

static void find_span(struct playing *p, const float *pcm, size_t n)
{
    float peak = 0;
    size_t first = 0, last = n - 1;
    for (size_t i = 0; i < n; i++)
        peak = fmaxf(peak, fabsf(pcm[i]));
    while (first < last && fabsf(pcm[first]) < peak / 100)
        first++;
    while (last > first && fabsf(pcm[last]) < peak / 100)
        last--;
    p->from_ms = (double)first * 1000 / SCENE_RATE;
    p->to_ms = (double)(last + 1) * 1000 / SCENE_RATE;
}

static int load_sound(struct scene *r, size_t index, struct problems *why)
{
    float *pcm = NULL;
    size_t n = 0;
    int err = sound_file_read_at(&pcm, &n, r->s->sounds[index].file, SCENE_RATE, why);
    if (err < 0)
        return err;
    find_span(&r->sounds[index], pcm, n);
    err = hear(&r->sounds[index], r->s, index, pcm, n);
    free(pcm);
    return err;
}

static int open_echo(struct scene *r, struct problems *why)
{
    const struct scenario_room *o = &r->s->room;
    int delay = (int)samples(o->delay_ms);
    int err = o->impulse ? taps_read(&r->echo, SCENE_RATE, delay, o->impulse, why)
                         : taps_make(&r->echo, SCENE_RATE, delay, o->rt60_ms, SPEAKER_TAIL,
                                     (uint64_t)o->seed * 1000 + SEED_ECHO + (1u << 31));
    if (err < 0)
        return err;
    r->echo_gain = (float)amplitude(o->voice_db + o->echo_db - SPEAKER_DB);
    r->history = calloc((size_t)r->echo.last + SCENE_PERIOD, sizeof(float));
    return r->history ? 0 : -ENOMEM;
}

static int open_all(struct scene *r, struct problems *why)
{
    const struct scenario *s = r->s;
    r->sounds = calloc(s->n_sounds + 1, sizeof(*r->sounds));
    r->noises = calloc(s->n_noises + 1, sizeof(*r->noises));
    r->line = calloc(LINE, sizeof(*r->line));
    if (r->sounds == NULL || r->noises == NULL || r->line == NULL)
        return -ENOMEM;
    for (size_t i = 0; i < s->n_noises; i++)
        noise_init(&r->noises[i], s->noises[i].kind, s->noises[i].level_db, SCENE_RATE,
                   (uint64_t)s->room.seed * 1000 + 500 + i);
    int err = open_echo(r, why);
    for (size_t i = 0; err == 0 && i < s->n_sounds; i++)
        err = load_sound(r, i, why);
    return err;
}

int scene_open(struct scene **ret, const struct scenario *s, struct problems *why)
{
    struct scene *r = calloc(1, sizeof(*r));
    if (r == NULL)
        return -ENOMEM;
    r->s = s;
    r->rate = 1;
    r->heard = -(double)samples(s->room.play_delay_ms);
    int err = open_all(r, why);
    if (err < 0)
        scene_close(r);
    else
        *ret = r;
    return err;
}

void scene_close(struct scene *r)
{
    if (r == NULL)
        return;
    for (size_t i = 0; r->sounds != NULL && i < r->s->n_sounds; i++)
        free(r->sounds[i].pcm);
    taps_free(&r->echo);
    free(r->sounds);
    free(r->noises);
    free(r->history);
    free(r->line);
    free(r);
}

/* -- Recordings and noises -------------------------------------------------------------------- */

void scene_sound(struct scene *r, size_t index)
{
    struct playing *p = &r->sounds[index];
    int repeat_ms = r->s->sounds[index].repeat_ms;
    p->start = r->now;
    p->end = r->now + (repeat_ms ? samples(repeat_ms) : p->n);
}

void scene_sound_span(const struct scene *r, size_t index, double *from_ms, double *to_ms)
{
    *from_ms = r->sounds[index].from_ms;
    *to_ms = r->sounds[index].to_ms;
    if (r->s->sounds[index].repeat_ms)
        *to_ms = r->s->sounds[index].repeat_ms;
}

static void mix_sound(const struct scene *r, const struct playing *p, float *pcm)
{
    for (int i = 0; i < SCENE_PERIOD && r->now + (uint64_t)i < p->end; i++)
        pcm[i] += p->pcm[(r->now + (uint64_t)i - p->start) % p->n];
}

static void mix_user(struct scene *r, float *pcm)
{
    memset(pcm, 0, SCENE_PERIOD * sizeof(*pcm));
    for (size_t i = 0; i < r->s->n_sounds; i++)
        mix_sound(r, &r->sounds[i], pcm);
    for (size_t i = 0; i < r->s->n_noises; i++) {
        const struct scenario_noise *z = &r->s->noises[i];
        if (r->now >= samples(z->from_ms) && r->now < samples(z->to_ms))
            noise_add(&r->noises[i], pcm, SCENE_PERIOD);
    }
}

/* -- The loudspeaker -------------------------------------------------------------------------- */

/* The device's position that sounds at the microphone's time `t`. */
static double truth(const struct scene *r, uint64_t t)
{
    const struct scenario_room *o = &r->s->room;
    return (double)t + (double)t * (o->drift_ppm * 1e-6) - (double)samples(o->play_delay_ms);
}

static bool wants(const struct scene *r)
{
    double need = truth(r, r->now + SCENE_PERIOD) + (double)samples(r->s->room.play_delay_ms);
    return (double)r->pulled < need;
}

void scene_play(struct scene *r, const float pcm[SCENE_PERIOD])
{
    for (int i = 0; i < SCENE_PERIOD; i++)
        r->line[(r->pulled + (uint64_t)i) % LINE] = pcm[i];
    r->pulled += SCENE_PERIOD;
    if (!is_silence(pcm, SCENE_PERIOD))
        r->sounded = r->pulled;
}

bool scene_hungry(struct scene *r)
{
    static const float silence[SCENE_PERIOD];
    if (!r->speaker_lost && r->now >= r->underrun_to)
        return wants(r);
    while (wants(r))
        scene_play(r, silence);
    return false;
}

uint64_t scene_play_delay(const struct scene *r)
{
    return (uint64_t)((double)r->pulled - truth(r, r->now));
}

/* The device's sample at a position between two of them (Catmull and Rom's cubic). */
static float line_at(const struct scene *r, double position)
{
    if (position < 1)
        return 0;
    uint64_t at = (uint64_t)position;
    float x = (float)(position - (double)at);
    float a = r->line[(at - 1) % LINE], b = r->line[at % LINE];
    if (x == 0)
        return b;
    float c = r->line[(at + 1) % LINE], d = r->line[(at + 2) % LINE];
    float p = 0.5f * (c - a), q = a - 2.5f * b + 2 * c - 0.5f * d;
    return b + x * (p + x * (q + x * (0.5f * (d - a) + 1.5f * (b - c))));
}

/* All from this position on is silence (the cubic looks one sample back). */
static bool silent_from(const struct scene *r, double position)
{
    return position - 2 > (double)r->sounded;
}

/* Follows the true position by a loop of second order, about a second slow. */
static void listen_far(struct scene *r, float *far)
{
    bool silent = silent_from(r, r->heard);
    for (int i = 0; i < SCENE_PERIOD; i++)
        far[i] = silent ? 0.0f : line_at(r, r->heard + i * r->rate);
    r->heard += SCENE_PERIOD * r->rate;
    double behind = truth(r, r->now + SCENE_PERIOD) - r->heard;
    r->rate += behind * 2e-7;
    r->heard += behind * 0.02;
}

/* A loudspeaker that cannot go beyond `limit`. */
static float saturate(float x, float limit)
{
    return limit > 0 ? x / sqrtf(1 + x / limit * (x / limit)) : x;
}

WIDE static void mix_echo(struct scene *r, const float *speaker, float *pcm)
{
    size_t last = (size_t)r->echo.last;
    float limit = (float)r->s->room.saturation;
    if (!is_silence(speaker, SCENE_PERIOD))
        r->echoed = r->now + SCENE_PERIOD;
    memset(pcm, 0, SCENE_PERIOD * sizeof(*pcm));
    if (r->now > r->echoed + last + SCENE_PERIOD)
        return; /* the history is all silence */
    memmove(r->history, r->history + SCENE_PERIOD, last * sizeof(float));
    for (int i = 0; i < SCENE_PERIOD; i++)
        r->history[last + (size_t)i] = r->echo_gain * saturate(speaker[i], limit);
    for (size_t k = 0; k < r->echo.n; k++) {
        const float *from = r->history + last - (size_t)r->echo.lag[k];
        float gain = r->echo.gain[k];
        for (int i = 0; i < SCENE_PERIOD; i++)
            pcm[i] += gain * from[i];
    }
}

/* -- The microphone --------------------------------------------------------------------------- */

static void measure(struct meter *m, const float *pcm)
{
    double sum = 0;
    for (int i = 0; i < SCENE_PERIOD; i++)
        sum += (double)pcm[i] * (double)pcm[i];
    if (sum < SCENE_PERIOD * 1e-5) /* -50 dBFS */
        return;
    m->sum += sum / SCENE_PERIOD;
    m->blocks++;
}

static double level(const struct meter *m)
{
    return m->blocks ? 10 * log10(m->sum / (double)m->blocks) : -120;
}

void scene_levels(const struct scene *r, struct scene_levels *l)
{
    *l = (struct scene_levels){level(&r->voice), level(&r->echoes)};
}

/* What the converter makes of it, and what is broken about it. */
static void capture(const struct scene *r, const float *user, float *mic)
{
    static const float junk[] = {NAN, INFINITY, -INFINITY, 1e30f, 0.0f};
    bool silent = r->mic_lost || r->mic_closed || r->now < r->overflow_to;
    for (int i = 0; i < SCENE_PERIOD; i++) {
        float x = mic[i] + user[i];
        mic[i] = silent ? 0 : x > 1 ? 1 : x < -1 ? -1 : x;
        if (r->now < r->no_number_to)
            mic[i] = junk[(size_t)i % ARRAY_LEN(junk)];
    }
}

void scene_period(struct scene *r, struct scene_period *p)
{
    bool silent = silent_from(r, truth(r, r->now));
    for (int i = 0; i < SCENE_PERIOD; i++)
        p->speaker[i] = silent ? 0.0f : line_at(r, truth(r, r->now + (uint64_t)i));
    listen_far(r, p->far);
    mix_user(r, p->user);
    mix_echo(r, p->speaker, p->mic);
    measure(&r->voice, p->user);
    measure(&r->echoes, p->mic);
    capture(r, p->user, p->mic);
    r->now += SCENE_PERIOD;
}

void scene_speaker_lost(struct scene *r, bool lost)
{
    r->speaker_lost = lost;
    if (lost)
        memset(r->line, 0, LINE * sizeof(*r->line));
}

void scene_mic_lost(struct scene *r, bool lost)
{
    r->mic_lost = lost;
}

void scene_mic_closed(struct scene *r, bool closed)
{
    r->mic_closed = closed;
}

void scene_underrun(struct scene *r, int ms)
{
    r->underrun_to = r->now + samples(ms);
}

void scene_overflow(struct scene *r, int ms)
{
    r->overflow_to = r->now + samples(ms);
}

void scene_no_number(struct scene *r, int ms)
{
    r->no_number_to = r->now + samples(ms);
}
