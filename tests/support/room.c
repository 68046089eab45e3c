/* tests/support/room.c - a simulated room. */
#include "tests/support/room.h"

#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/sound_file.h"

struct room {
    struct room_opts o;
    size_t taps, filled;
    float *response; /* [taps] */
    float *pending;  /* [taps]: what is still to be heard */
    uint32_t seed;
    float noise;
};

/* Uniform in [-1, 1). */
static float any(uint32_t *seed)
{
    *seed = *seed * 1664525u + 1013904223u;
    return (float)(int32_t)*seed / 2147483648.0f;
}

static float bell(uint32_t *seed)
{
    return (any(seed) + any(seed) + any(seed)) * 1.0f; /* variance 1 */
}

static void make_response(struct room *r)
{
    size_t direct = (size_t)(r->o.delay_ms * ROOM_RATE / 1000.0);
    double energy = 0.0, share = pow(10.0, r->o.direct_db / 10.0);
    for (size_t i = direct + 1; i < r->taps; i++) {
        double t = (double)(i - direct) / ROOM_RATE;
        r->response[i] = bell(&r->seed) * (float)pow(10.0, -3.0 * t / r->o.rt60);
        energy += (double)r->response[i] * r->response[i];
    }
    double scale = sqrt(pow(10.0, r->o.gain_db / 10.0) / (energy * (1.0 + share)));
    for (size_t i = 0; i < r->taps; i++)
        r->response[i] *= (float)scale;
    r->response[direct] = (float)(scale * sqrt(energy * share));
}

int room_open(struct room **ret, const struct room_opts *o)
{
    struct room *r = calloc(1, sizeof(*r));
    if (r == NULL)
        return -ENOMEM;
    r->o = *o;
    r->seed = o->seed * 2654435761u + 12345u;
    r->taps = (size_t)((o->delay_ms / 1000.0 + o->rt60) * ROOM_RATE) + 16;
    r->response = calloc(r->taps, sizeof(float));
    r->pending = calloc(2 * r->taps, sizeof(float));
    if (r->response == NULL || r->pending == NULL) {
        room_close(r);
        return -ENOMEM;
    }
    r->noise = o->noise_dbfs < 0.0 ? (float)pow(10.0, o->noise_dbfs / 20.0) : 0.0f;
    make_response(r);
    *ret = r;
    return 0;
}

void room_close(struct room *r)
{
    if (r == NULL)
        return;
    free(r->response);
    free(r->pending);
    free(r);
}

/* sum += x * response: nearly all of the work, and no work for the thread sanitizer. */
__attribute__((no_sanitize("thread"))) static void
add_response(float *restrict sum, const float *restrict response, size_t taps, float x)
{
    for (size_t i = 0; i < taps; i++)
        sum[i] += x * response[i];
}

void room_hear(struct room *r, const float *far, float *mic, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        float x = far[i], *sum = r->pending + r->filled;
        if (r->o.saturation > 0.0)
            x = (float)(r->o.saturation * tanh(x / r->o.saturation));
        if (x != 0.0f)
            add_response(sum, r->response, r->taps, x);
        mic[i] = sum[0] + r->noise * bell(&r->seed);
        if (++r->filled == r->taps) {
            memcpy(r->pending, r->pending + r->taps, r->taps * sizeof(float));
            memset(r->pending + r->taps, 0, r->taps * sizeof(float));
            r->filled = 0;
        }
    }
}

int room_read(float **pcm, size_t *n, const char *path)
{
    return sound_file_read(pcm, n, path, NULL);
}
