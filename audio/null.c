/* audio/null.c - a microphone that hears nothing and a loudspeaker that nobody hears, at the pace
 * of time. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "audio/device.h"

struct null_device {
    struct audio_device_opts o;
    int64_t next_ns; /* when the next period is due */
};

int64_t audio_now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

void audio_sleep_until_ns(int64_t at_ns)
{
    const struct timespec t = {.tv_sec = at_ns / 1000000000, .tv_nsec = at_ns % 1000000000};
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
}

void audio_pace(int64_t *next_ns, const struct audio_device_opts *o, size_t n,
                struct audio_moment *m)
{
    int64_t now = audio_now_ns();
    if (!o->unpaced && *next_ns > now)
        audio_sleep_until_ns(*next_ns);
    if (*next_ns + 1000000000 < now) /* the first one, or the machine slept */
        *next_ns = now;
    m->at_ns = *next_ns;
    m->delay =
        o->direction == AUDIO_PLAYBACK ? 5 * (int64_t)n : 0; /* as if so much were buffered */
    *next_ns += (int64_t)n * 1000000000 / o->rate;
}

static int null_open(void **device, const struct audio_device_opts *o, char *text,
                     struct problems *why)
{
    (void)why;
    struct null_device *d = calloc(1, sizeof(*d));
    if (d == NULL)
        return -ENOMEM;
    d->o = *o;
    snprintf(text, AUDIO_TEXT, "null, %d Hz, %s", o->rate, o->unpaced ? "unpaced" : "paced");
    *device = d;
    return 0;
}

static int null_transfer(void *device, float *pcm, size_t n, struct audio_moment *m)
{
    struct null_device *d = device;
    audio_pace(&d->next_ns, &d->o, n, m);
    if (d->o.direction == AUDIO_CAPTURE)
        memset(pcm, 0, n * sizeof(float));
    return 0;
}

static void null_list(FILE *out, enum audio_direction direction, struct pa_host *host)
{
    (void)direction;
    (void)host;
    fprintf(out, "null\n");
}

const struct audio_device_kind audio_null = {
    .prefix = "null",
    .open = null_open,
    .transfer = null_transfer,
    .list = null_list,
    .close = free,
};
