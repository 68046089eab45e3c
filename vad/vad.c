/*
 * vad/vad.c - gathers samples into chunks, asks the network, lets segment.c draw the conclusions.
 *
 *     pcm -> clean (NaN, loudness) -> chunk [512] -> silero_chunk -> segment_push -> event
 *
 * Everything lives in one block that vad_open makes; feeding touches nothing else.
 */
#include "vad/vad.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "vad/segment.h"
#include "vad/silero.h"

_Static_assert((int)SILERO_CHUNK == (int)VAD_CHUNK, "vad.h tells how long a chunk is");

struct vad {
    struct silero *net;
    struct silero_state state;
    struct segment segment;

    float chunk[VAD_CHUNK]; /* the first `filled` samples are waiting */
    int filled;
    int64_t position; /* samples fed */
    float probability;
    uint64_t bad;
};

int vad_open(struct vad **ret, const struct vad_opts *o, struct problems *why)
{
    struct vad *v = calloc(1, sizeof(*v));
    if (v == NULL)
        return problem_add(why, -ENOMEM, "voice activity: no memory left");
    int err = segment_init(&v->segment, o, why);
    if (err == 0)
        err = silero_open(&v->net, o->path, why);
    if (err < 0) {
        vad_close(v);
        return err;
    }
    vad_reset(v, 0);
    *ret = v;
    return 0;
}

/* A NaN or an infinity would stay in the network's memory for ever. */
static void clean(struct vad *v, float *out, const float *pcm, int n)
{
    for (int i = 0; i < n; i++) {
        float x = pcm[i];
        bool finite = x - x == 0;
        v->bad += !finite;
        x = finite ? x : 0;
        out[i] = x > 4 ? 4 : x < -4 ? -4 : x;
    }
}

size_t vad_feed(struct vad *v, const float *pcm, size_t n, struct vad_event *event)
{
    *event = (struct vad_event){.kind = VAD_NONE};
    size_t taken = 0;
    while (taken < n && event->kind == VAD_NONE) {
        int some = (int)min_size(n - taken, (size_t)(VAD_CHUNK - v->filled));
        clean(v, v->chunk + v->filled, pcm + taken, some);
        taken += (size_t)some;
        v->position += some;
        v->filled += some;
        if (v->filled < VAD_CHUNK)
            break;
        v->filled = 0;
        v->probability = silero_chunk(v->net, &v->state, v->chunk);
        segment_push(&v->segment, v->position, v->probability, event);
    }
    return taken;
}

void vad_now(const struct vad *v, struct vad_now *now)
{
    const struct segment *s = &v->segment;
    *now = (struct vad_now){.position = v->position,
                            .probability = v->probability,
                            .speech = s->speech,
                            .voiced = s->voiced,
                            .quiet = s->speech ? v->position - v->filled - s->last_end : 0,
                            .bad = v->bad};
}

int vad_reach(const struct vad *v)
{
    return segment_reach(&v->segment);
}

void vad_reset(struct vad *v, int64_t position)
{
    memset(&v->state, 0, sizeof(v->state));
    segment_reset(&v->segment, position);
    v->filled = 0;
    v->position = position;
    v->probability = 0;
    v->bad = 0;
}

void vad_close(struct vad *v)
{
    if (v == NULL)
        return;
    silero_close(v->net);
    free(v);
}
