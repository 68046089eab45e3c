/*
 * vad/segment.c - from a row of probabilities to starts and ends of speech.
 *
 * Hysteresis: speech starts at `on` and lives on down to `off`. Hang: it ends only after so much
 * silence, and the end is then told at the sample where the silence began. Onset: the network
 * often is a chunk late for a soft first sound, and its probability climbs while it makes up its
 * mind; so the onset is put at the beginning of that climb.
 */
#include "vad/segment.h"

#include <errno.h>

#include "base/util.h"

enum { MS = VAD_RATE / 1000, LONGEST_MS = 60000 };

static int64_t min_i64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t max_i64(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* Writes a duration in samples; `least` is its smallest value. */
static int duration(int *samples, const char *name, int ms, int standard, int least,
                    struct problems *why)
{
    if (ms < 0 || ms > LONGEST_MS)
        return problem_add(why, -EINVAL, "voice activity: %s is %d, expected 0 to %d", name, ms,
                           LONGEST_MS);
    *samples = max_int((ms ? ms : standard) * MS, least);
    return 0;
}

int segment_init(struct segment *s, const struct vad_opts *o, struct problems *why)
{
    *s = (struct segment){0};
    s->on = o->threshold_on != 0 ? o->threshold_on : 0.5f;
    s->off = o->threshold_off != 0 ? o->threshold_off : 0.7f * s->on;
    s->rise = o->threshold_rise != 0 ? o->threshold_rise : 0.15f;
    if (!(s->on > 0 && s->on < 1) || !(s->off > 0 && s->off <= s->on) || !(s->rise > 0))
        return problem_add(why, -EINVAL,
                           "voice activity: thresholds on %g, off %g, rise %g; expected "
                           "0 < off <= on < 1 and rise > 0",
                           (double)s->on, (double)s->off, (double)s->rise);
    int err = duration(&s->min_speech, "min_speech_ms", o->min_speech_ms, 0, VAD_CHUNK, why);
    if (err == 0)
        err = duration(&s->hang, "hang_ms", o->hang_ms, 200, VAD_CHUNK, why);
    if (err == 0)
        err = duration(&s->pre_roll, "pre_roll_ms", o->pre_roll_ms, 200, 0, why);
    return err;
}

void segment_reset(struct segment *s, int64_t position)
{
    s->run = s->rising = 0;
    s->floor = position;
    s->speech = false;
    s->from = s->last_end = position;
    s->voiced = 0;
}

static void in_silence(struct segment *s, int64_t end, float p, struct vad_event *event)
{
    s->run = p >= s->on ? s->run + VAD_CHUNK : 0;
    s->rising = p >= s->on || p >= s->rise ? s->rising + VAD_CHUNK : 0;
    s->rising = min_i64(s->rising, s->run + SEGMENT_BACK * VAD_CHUNK);
    if (s->run < s->min_speech)
        return;
    int64_t onset = max_i64(end - s->rising, s->floor);
    s->speech = true;
    s->from = max_i64(onset - s->pre_roll, s->floor);
    s->voiced = s->run;
    s->last_end = end;
    *event = (struct vad_event){VAD_START, s->from, onset, end};
}

static void in_speech(struct segment *s, int64_t end, float p, struct vad_event *event)
{
    if (p >= s->off) {
        s->voiced += VAD_CHUNK;
        s->last_end = end;
        return;
    }
    if (end - s->last_end < s->hang)
        return;
    *event = (struct vad_event){VAD_END, s->from, s->last_end, end};
    segment_reset(s, s->last_end);
}

void segment_push(struct segment *s, int64_t end, float p, struct vad_event *event)
{
    *event = (struct vad_event){.kind = VAD_NONE};
    if (s->speech)
        in_speech(s, end, p, event);
    else
        in_silence(s, end, p, event);
}

int segment_reach(const struct segment *s)
{
    int run = (s->min_speech + VAD_CHUNK - 1) / VAD_CHUNK;
    return s->pre_roll + (run + SEGMENT_BACK) * VAD_CHUNK;
}
