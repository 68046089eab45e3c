/*
 * daemon/live.h - a conversation through real devices, for `parley talk` and parleyd: audio, ear
 * and conversation joined, with their threads.
 *
 *   audio's two threads   samples between devices and rings, nothing else
 *   "floor"               audio_read -> ear_period -> conversation_period, every 10 ms
 *   "work"                conversation_work; sleeps when there is nothing to do
 *   the owner             opens, tells, reads, stops; waits for the others only in live_stop
 *
 * Devices that go away and come back are announced to the conversation, which goes on. What happens
 * is a stream of event lines (conversation.h).
 *
 * Threads: one owner; live_stats and live_progress from any thread.
 */
#ifndef PARLEY_DAEMON_LIVE_H
#define PARLEY_DAEMON_LIVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "audio/audio.h"
#include "base/problem.h"
#include "daemon/conversation.h"

struct live;

/* Zero means the default. */
struct live_opts {
    struct session *session; /* open, with speech; borrowed, the work thread's until stopped */
    const char *capture, *playback; /* as audio_opts */
    int rate;                       /* of the devices; 48000 */
    bool realtime;                  /* as audio_opts: refused is a note in live_open's `why` */
    bool no_cancel;                 /* the devices have their own echo canceller */
    bool noise, gain;               /* suppress noise, automatic gain */
    int delay_ms;                   /* loudspeaker to microphone, beyond what the devices report */
    int queue_ms;                   /* of speech made ahead; 10000 */
    float volume;                   /* 1 */
    const char *vad;                /* models/vad/silero.bin; required */
    const char *system;             /* system text */
    const struct turn_opts *turn;
    bool tell_cut, texts; /* as conversation_opts */
    bool muted;           /* at the start; no microphone is opened, or missed */
    int max_tokens;
};

/* Opens the devices and the conversation; nothing runs yet. */
int live_open(struct live **ret, const struct live_opts *o, struct problems *why);

/* The threads run from here on. */
int live_start(struct live *l, struct problems *why);

/* Mute, unmute, stop, wake: in the next period. -EAGAIN when too many wait. */
int live_event(struct live *l, enum turn_event_kind kind);

/* A written turn, answered aloud; words to be said as they stand; everything forgotten; a short
 * sound: as conversation.h, in the next period. -EINVAL: no UTF-8, -EAGAIN, -ENOMEM. */
int live_ask(struct live *l, const char *text);
int live_say(struct live *l, const char *text);
int live_forget(struct live *l);
int live_earcon(struct live *l, enum turn_earcon e);

/* Amplitude factor of everything that sounds. */
void live_volume(struct live *l, float gain);

/* For a recording: from now on what the ear gives (EAR_RATE, echo removed) waits for at most 4 s to
 * be fetched, or no longer. */
void live_tap(struct live *l, bool on);
size_t live_tapped(struct live *l, float *pcm, size_t n);

/* Readable (poll) when event lines have come, and when it has ended. live_read takes one line, with
 * its newline and a NUL, and returns its bytes, 0 when there is none. An owner who does not read
 * loses lines, not the conversation. */
enum { LIVE_LINE_MAX = EVENT_LINE_MAX };
int live_fd(const struct live *l);
size_t live_read(struct live *l, char text[LIVE_LINE_MAX]);

/* It ended by itself: a wav: microphone came to its end and everything was answered, or the model
 * failed for good (live_stop says why). */
bool live_ended(const struct live *l);

struct live_stats {
    struct conversation_now now;
    struct audio_stats audio;
    float erle;   /* dB; 0 = not known */
    float near;   /* ear_frame.near of the last period */
    bool settled; /* the canceller has learned the room */
    bool mic_lost, speaker_lost;
    uint64_t clipped, bad; /* samples of the microphone */
    uint64_t lines_lost;
};

void live_stats(struct live *l, struct live_stats *s);

/* Periods of the floor and rounds of the work side (each piece, each sleep of at most a second)
 * done so far: a watchdog sees that both go on. A piece may take long; see the figures of the
 * model. */
struct live_progress {
    uint64_t floor, work;
};

void live_progress(const struct live *l, struct live_progress *p);

/* Silence behind a fade within 50 ms, then the threads end. 0, or why the work side had ended. */
int live_stop(struct live *l, struct problems *why);

void live_close(struct live *l); /* stopped, or never started; NULL is legal */

#endif
