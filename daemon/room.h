/*
 * daemon/room.h - a simulated room around a loudspeaker and a microphone, in periods of 10 ms of
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
#ifndef PARLEY_DAEMON_ROOM_H
#define PARLEY_DAEMON_ROOM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/problem.h"
#include "daemon/scenario.h"

enum { ROOM_RATE = 48000, ROOM_PERIOD = 480 };

struct room;

/* Loads every recording. `s` must outlive the room. */
int room_open(struct room **ret, const struct scenario *s, struct problems *why);

/* Sound `index` of the scenario begins with the next period. */
void room_sound(struct room *r, size_t index);

/* Where in that sound something is heard: first and last sample above -40 dB of its peak. */
void room_sound_span(const struct room *r, size_t index, double *from_ms, double *to_ms);

/* The device wants a period of the player before the next room_period: while (room_hungry(r))
 * player_pull(p, pcm, ROOM_PERIOD), room_play(r, pcm). Never hungry while it cannot play. */
bool room_hungry(struct room *r);
void room_play(struct room *r, const float pcm[ROOM_PERIOD]);

struct room_period {
    float mic[ROOM_PERIOD];     /* what the microphone gives; zeros while it is lost or closed */
    float far[ROOM_PERIOD];     /* what the loudspeaker played, in the microphone's time */
    float user[ROOM_PERIOD];    /* what was at the microphone without the echo */
    float speaker[ROOM_PERIOD]; /* what the loudspeaker played, exactly */
};

void room_period(struct room *r, struct room_period *p);

/* Samples given to room_play that have not sounded at the end of the last period. */
uint64_t room_play_delay(const struct room *r);

/* Devices: gone or closed ones give silence and lose what they hold. */
void room_speaker_lost(struct room *r, bool lost);
void room_mic_lost(struct room *r, bool lost);
void room_mic_closed(struct room *r, bool closed);

/* From the next period on, for so long: the device gets nothing and plays silence; the microphone's
 * samples are lost (silence instead); they are no numbers. */
void room_underrun(struct room *r, int ms);
void room_overflow(struct room *r, int ms);
void room_no_number(struct room *r, int ms);

/* Mean levels at the microphone so far while there was any sound, dBFS; -120 for none. */
struct room_levels {
    double voice, echo;
};

void room_levels(const struct room *r, struct room_levels *l);

void room_close(struct room *r); /* NULL is legal */

#endif
