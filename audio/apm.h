/*
 * audio/apm.h - webrtc-audio-processing 0.3 as a C interface: echo, noise and gain of 10 ms at
 * 16 kHz. Private to audio/; the mechanism is in apm.cc, the only C++ file of the tree.
 *
 * Threads: one owner; not real-time (the library locks).
 */
#ifndef PARLEY_AUDIO_APM_H
#define PARLEY_AUDIO_APM_H

#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { APM_RATE = 16000, APM_PERIOD = 160 };

struct apm;

struct apm_opts {
    bool cancel, noise, gain;
};

/* 0 or -ENOMEM. */
int apm_open(struct apm **ret, const struct apm_opts *o);

/* near[APM_PERIOD] is replaced by what is left of it without the echo of far[APM_PERIOD], which
 * reached the microphone about delay_ms later than it is given. */
void apm_period(struct apm *a, float *near, const float *far, int delay_ms);

void apm_close(struct apm *a); /* NULL is legal */

#ifdef __cplusplus
}
#endif

#endif
