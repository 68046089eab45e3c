/*
 * audio/realtime.h - marks where an audio thread is bound by the rules of real time, for the tests'
 * interposer, which counts every allocation, lock, write and file opened there
 * (tests/live/interpose.c defines the function; in the product it is absent and nothing is
 * called).
 *
 * What a device's own library does inside of a transfer is marked as its own: it is counted, too,
 * but apart from ours.
 */
#ifndef PARLEY_AUDIO_REALTIME_H
#define PARLEY_AUDIO_REALTIME_H

enum realtime_region { REALTIME_NONE, REALTIME_OURS, REALTIME_LIBRARY };

void audio_realtime_region(enum realtime_region region) __attribute__((weak));

static inline void realtime_enter(enum realtime_region region)
{
    if (audio_realtime_region)
        audio_realtime_region(region);
}

#endif
