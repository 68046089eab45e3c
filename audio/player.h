/*
 * audio/player.h - replies on their way to the loudspeaker: queue, hold, fade, and what was really
 * heard of them.
 *
 *   producer (speaks)      player_begin, player_write ..., player_end      24 kHz in, queued at
 *                                                                          the device's rate
 *   floor (takes turns)    player_play, player_hold, player_drop, player_earcon, player_volume
 *   device (plays)         player_pull, every 10 ms, silence where there is nothing to play
 *   anybody                player_heard
 *
 * A reply is queued unheard until player_play. player_hold silences it within the period that is
 * pulled next, by a fade; what was not heard stays queued and player_play goes on there without a
 * lost or repeated sample (the faded piece is heard again from its start, with a fade in).
 * player_drop throws the reply away behind the same fade. A reply whose producer is too slow fades
 * out, waits until refill_ms are queued, and goes on in the same way. Only one reply is queued at a
 * time: player_begin of the next one fails with -EAGAIN until the one before is over or dropped.
 *
 * "Heard" counts the reply's own samples that player_pull gave to the device. What still lies in
 * the device (its delay) is the caller's to subtract: player_heard takes it.
 *
 * From 24 kHz to the device's rate it goes by a filter without delay (audio/resample.h): a sample
 * of a reply is exactly rate / source_rate samples of the device.
 *
 * Threads: one producer, one floor, one device thread, and player_state and player_heard from
 * anywhere; none ever waits for another, player_pull neither allocates, locks, logs nor calls the
 * system.
 */
#ifndef PARLEY_AUDIO_PLAYER_H
#define PARLEY_AUDIO_PLAYER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/problem.h"

struct player;

/* Zero means the default. */
struct player_opts {
    int rate;        /* of the device; 48000 */
    int source_rate; /* of replies; 24000 */
    int queue_ms;    /* of reply that is kept ready; 4000 */
    int refill_ms;   /* so much is waited for when a reply has run dry; 300 */
    int fade_ms;     /* 5 */
};

int player_open(struct player **ret, const struct player_opts *o, struct problems *why);

/* Starts queueing `answer` (a number, never 0, that grows from one to the next). -EAGAIN while
 * another one is not over, -EINVAL for 0. */
int player_begin(struct player *p, uint32_t answer);

/* Queues up to `n` samples (mono, [-1, 1]) and returns how many found room; the rest is to be
 * brought again later. 0 for a reply that was dropped: the producer stops. */
size_t player_write(struct player *p, uint32_t answer, const float *pcm, size_t n);

/* Room for samples of the source; whether `answer` is still wanted. */
size_t player_room(const struct player *p);
bool player_wants(const struct player *p, uint32_t answer);

/* No more samples of `answer` will come. */
void player_end(struct player *p, uint32_t answer);

/* `answer` sounds from now on, or goes on where it was held. */
void player_play(struct player *p, uint32_t answer);
void player_hold(struct player *p);
void player_drop(struct player *p, uint32_t answer); /* and all before it */

/* Mixes a short sound (at the device's rate, constant memory that outlives the player) over
 * whatever plays, also while a reply is held; the newest one wins. */
void player_earcon(struct player *p, const float *pcm, size_t n);

/* Amplitude factor, reached within one period; 1 = as it is. */
void player_volume(struct player *p, float gain);

/* Whether the device has been given the end of a fade to volume 0. Any thread. */
bool player_silenced(const struct player *p);

/* The next n samples for the device, always all of them. Owner: the device thread. */
void player_pull(struct player *p, float *pcm, size_t n);

struct player_state {
    uint32_t answer;  /* the reply in the queue, 0 = none */
    bool playing;     /* not held and something of it is queued or still to come */
    bool ended;       /* player_end was called and all of it was pulled */
    uint64_t pulled;  /* of its samples (at the source's rate) given to the device */
    uint64_t queued;  /* ... written and not yet pulled */
    uint64_t starved; /* periods in which a reply that had begun to sound had too few samples */
};

void player_state(const struct player *p, struct player_state *s);

/* Samples of `answer`, at the source's rate, that left the loudspeaker when `delay` samples at the
 * device's rate are still inside the device. 0 for an answer that is not or no longer known; the
 * number of an answer that is over or dropped stays readable until the next but one begins. */
uint64_t player_heard(const struct player *p, uint32_t answer, uint64_t delay);

void player_close(struct player *p); /* NULL is legal */

#endif
