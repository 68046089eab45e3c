/*
 * audio/audio.h - one microphone and one loudspeaker, live.
 *
 * Devices by name: "alsa:NAME", "portaudio:NAME", "wav:PATH" (microphone: read; loudspeaker:
 * written), "null". A capture thread moves samples from the microphone to a ring, a playback thread
 * from the player to the loudspeaker and, as the far end, to another ring; nothing else happens in
 * them. audio_read joins both in the microphone's time: the clocks of two devices are held together
 * by a variable resampler, gaps are silence.
 *
 * A device that goes away is announced once, opened again by name with back-off for ever, and
 * announced when it is back; audio_read keeps giving silence at the pace of time meanwhile.
 *
 * Threads: one owner for everything below.
 */
#ifndef PARLEY_AUDIO_AUDIO_H
#define PARLEY_AUDIO_AUDIO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "audio/player.h"
#include "base/problem.h"

struct audio;

/* Zero means the default. */
struct audio_opts {
    const char *capture;  /* "alsa:default" */
    const char *playback; /* "alsa:default" */
    int rate;             /* 48000; the rate of audio_read and of the player */
    bool unpaced;         /* wav: and null: as fast as they are read */
    bool muted;           /* the microphone stays closed until audio_mute(a, false) */
    bool realtime;        /* ask for real-time priority; refused is a note in `why`, no error */
    struct player *player;
};

/* Whether `name` makes sense as a device; it is not looked for. 0, or -EINVAL and a sentence. */
int audio_check(const char *name, struct problems *why);

/* -ENODEV and a sentence that names the devices that exist, -EBUSY, -EINVAL for a rate or a name
 * that makes no sense. */
int audio_open(struct audio **ret, const struct audio_opts *o, struct problems *why);

enum audio_notice {
    AUDIO_MIC_LOST = 1 << 0,
    AUDIO_MIC_BACK = 1 << 1,
    AUDIO_SPEAKER_LOST = 1 << 2,
    AUDIO_SPEAKER_BACK = 1 << 3,
    AUDIO_OVERRUN = 1 << 4, /* microphone samples were lost in this period (silence instead) */
    AUDIO_END = 1 << 5,     /* the wav: microphone is at its end; silence from now on */
    AUDIO_MOVED = 1 << 6,   /* an xrun, a device opened anew: the echo may come at another time */
};

/* Waits for the next 10 ms: mic[rate/100], far[rate/100] of the same instant (far 15 ms early, so
 * that no echo comes before its cause). Returns a set of
 * AUDIO_* (0 mostly), or -EINTR after audio_wake. */
int audio_read(struct audio *a, float *mic, float *far);

/* Makes a waiting audio_read return; from any thread or signal handler. */
void audio_wake(struct audio *a);

/* Closes the microphone for real (mute), and opens it again; one that is not there then is told as
 * lost and looked for. */
void audio_mute(struct audio *a, bool muted);

struct audio_stats {
    uint64_t overruns, underruns;    /* of the devices */
    uint64_t mic_lost, speaker_lost; /* times they went away */
    uint64_t play_delay;             /* samples at `rate` in the loudspeaker's device now */
    uint64_t round_trip;             /* DAC to microphone as the devices report it, samples */
    double drift_ppm;                /* loudspeaker's clock against the microphone's */
    const char *capture, *playback;  /* what was opened, with rate and period; "closed": muted */
};

void audio_stats(const struct audio *a, struct audio_stats *s);

/* Names that could be opened, one a line: `parley talk --list-devices`. */
int audio_list(FILE *out);

void audio_close(struct audio *a); /* NULL is legal */

#endif
