/*
 * daemon/scene.h - a simulated room around a loudspeaker and a microphone, in periods of 10 ms of
 * the microphone's time.
 *
 *   player -> device (holds play_delay) -> loudspeaker -> echo path ---+
 *                  |                       recordings, each by its ----+-> microphone
 *                  |                       own path; noises -----------+
 *                  +-> far: the same samples in the microphone's time, as audio_read gives them
 *
 * The loudspeaker's clock may run faster than the microphone's: then the device pulls a period more
 * now and then, the echo is played at the true rate, and `far` follows it by a control loop, as the
 * live joiner of both clocks does.
 *
 * Threads: one owner.
 */
#ifndef PARLEY_DAEMON_SCENE_H
#define PARLEY_DAEMON_SCENE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/problem.h"
#include "daemon/scenario.h"

enum { SCENE_RATE = 48000, SCENE_PERIOD = 480 };

struct scene;

/* Loads every recording. `s` must outlive the room. */
int scene_open(struct scene **ret, const struct scenario *s, struct problems *why);

/* Sound `index` of the scenario begins with the next period. */
void scene_sound(struct scene *r, size_t index);

/* Where in that sound something is heard: first and last sample above -40 dB of its peak. */
void scene_sound_span(const struct scene *r, size_t index, double *from_ms, double *to_ms);

/* The device wants a period of the player before the next scene_period: while (scene_hungry(r))
 * player_pull(p, pcm, SCENE_PERIOD), scene_play(r, pcm). Never hungry while it cannot play. */
bool scene_hungry(struct scene *r);
void scene_play(struct scene *r, const float pcm[SCENE_PERIOD]);

struct scene_period {
    float mic[SCENE_PERIOD];     /* what the microphone gives; zeros while it is lost or closed */
    float far[SCENE_PERIOD];     /* what the loudspeaker played, in the microphone's time */
    float user[SCENE_PERIOD];    /* what was at the microphone without the echo */
    float speaker[SCENE_PERIOD]; /* what the loudspeaker played, exactly */
};

void scene_period(struct scene *r, struct scene_period *p);

/* Samples given to scene_play that have not sounded at the end of the last period. */
uint64_t scene_play_delay(const struct scene *r);

/* Devices: gone or closed ones give silence and lose what they hold. */
void scene_speaker_lost(struct scene *r, bool lost);
void scene_mic_lost(struct scene *r, bool lost);
void scene_mic_closed(struct scene *r, bool closed);

/* From the next period on, for so long: the device gets nothing and plays silence; the microphone's
 * samples are lost (silence instead); they are no numbers. */
void scene_underrun(struct scene *r, int ms);
void scene_overflow(struct scene *r, int ms);
void scene_no_number(struct scene *r, int ms);

/* Mean levels at the microphone so far while there was any sound, dBFS; -120 for none. */
struct scene_levels {
    double voice, echo;
};

void scene_levels(const struct scene *r, struct scene_levels *l);

void scene_close(struct scene *r); /* NULL is legal */

#endif
