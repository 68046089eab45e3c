/*
 * audio/device.h - what a kind of device (alsa, portaudio, wav, null) gives to audio/audio.c.
 * Private to audio/ and its tests, which bring a kind of their own.
 *
 * open, list and close belong to ordinary threads and may take their time. transfer is called by an
 * audio thread: apart from what a device's library does inside itself, it neither allocates, locks,
 * logs nor opens anything, and returns at least every AUDIO_STALL_MS.
 */
#ifndef PARLEY_AUDIO_DEVICE_H
#define PARLEY_AUDIO_DEVICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "audio/audio.h"
#include "base/problem.h"

enum audio_direction { AUDIO_CAPTURE, AUDIO_PLAYBACK };

enum {
    AUDIO_STALL_MS = 1000, /* a device that moves nothing for so long is gone */
    AUDIO_XRUN = 1,        /* transfer: some samples were lost (or silence played) before these */
    AUDIO_OVER = 2,        /* transfer: a recording is at its end; this is silence */
    AUDIO_NAME = 256,      /* bytes of a name */
    AUDIO_TEXT = 160,      /* ... of a description */
};

struct audio_device_opts {
    char *name; /* [AUDIO_NAME] without the kind: "default", "hw:CARD=Headset", a path; open may
                     put one in its place by which the device is found again */
    enum audio_direction direction;
    int rate, period; /* Hz; samples of 10 ms */
    bool unpaced;
    struct pa_host *host; /* what all PortAudio devices share */
};

/* When a transfer returned, and how far the converter is from it. */
struct audio_moment {
    int64_t at_ns; /* CLOCK_MONOTONIC */
    int64_t delay; /* samples: captured, but not yet read; or written, but not yet heard */
};

struct audio_device_kind {
    const char *prefix; /* "alsa" */

    /* `text` (AUDIO_TEXT bytes) says what was granted. */
    int (*open)(void **device, const struct audio_device_opts *o, char *text, struct problems *why);

    /* Moves n samples (mono, [-1, 1]) out of or into the device, waiting as the device paces.
     * 0, AUDIO_XRUN, AUDIO_OVER; -EAGAIN when nothing was moved yet and the caller may look
     * whether it is to stop (called again with the same samples); -ESTALE: close and open it again
     * without a word; another negative errno: the device is gone. */
    int (*transfer)(void *device, float *pcm, size_t n, struct audio_moment *m);

    /* Names that could be opened, one a line, each with its prefix. */
    void (*list)(FILE *out, enum audio_direction direction, struct pa_host *host);

    void (*close)(void *device);
};

extern const struct audio_device_kind audio_alsa, audio_portaudio, audio_wav, audio_null;

/* ALSA's library, also inside of PortAudio, writes nothing to the terminal from now on. */
void alsa_be_quiet(void);

int pa_host_open(struct pa_host **ret);
void pa_host_close(struct pa_host *h); /* NULL is legal */

/* audio_open with other kinds: `kinds` ends in NULL. */
int audio_open_kinds(struct audio **ret, const struct audio_opts *o,
                     const struct audio_device_kind *const *kinds, struct problems *why);

int64_t audio_now_ns(void);
void audio_sleep_until_ns(int64_t at_ns);

/* For devices without a clock of their own: waits until the next n samples are due (unless unpaced)
 * and says when that was. *next_ns starts at 0. */
void audio_pace(int64_t *next_ns, const struct audio_device_opts *o, size_t n,
                struct audio_moment *m);

#endif
