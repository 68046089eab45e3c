/*
 * daemon/service.h - parleyd and its service manager: what is told to it, the watchdog, and the
 * memory of earlier starts that crash loops need.
 *
 * Telling is by sd_notify and does nothing when nobody listens.
 *
 * The watchdog is fed by progress: every thread that matters has a counter, and only while all of
 * them have moved lately is the manager told so. A stuck thread, or a stuck main loop, starves it.
 *
 * Starts are written down in the state directory (starts.json). A run that neither lasted
 * SERVICE_SETTLED_S in service nor ended in order was a quick crash; SERVICE_CRASHES of them in a
 * row mean safe mode. Before that, each one makes the next start wait longer. (systemd 252 knows no
 * growing pauses.) A run that ended with the machine's power is no crash: its boot was another.
 *
 * Threads: the main one.
 */
#ifndef PARLEY_DAEMON_SERVICE_H
#define PARLEY_DAEMON_SERVICE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/problem.h"

/* "STATUS=..." for people. */
void service_status(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void service_ready(void);
void service_stopping(void);
void service_reloading(void); /* service_ready ends it */

/* Loading goes on: the manager's time limit for starting is put off by so much. */
void service_extend(int seconds);

enum { SERVICE_THREADS = 4 };

struct watchdog {
    uint64_t stall_us;
    int n;
    struct {
        const char *name;
        uint64_t count, moved_us;
    } thread[SERVICE_THREADS];
    bool asked;        /* the service manager waits for us */
    uint64_t every_us; /* judge so often */
};

/* `names` [n]; `now_us` of the monotonic clock. What the manager wants is read from it. */
void watchdog_init(struct watchdog *w, const char *const *names, int n, int stall_s,
                   uint64_t now_us);

/* `counts` [n] as they are now. NULL while everybody goes on, else the name of who does not. */
const char *watchdog_judge(struct watchdog *w, const uint64_t *counts, uint64_t now_us);

/* Tells the manager; only right after a judgement of NULL. */
void watchdog_feed(const struct watchdog *w);

enum { SERVICE_CRASHES = 3, SERVICE_SETTLED_S = 60, SERVICE_WHY_MAX = 512 };

struct service_record {
    char dir[4096];
    char boot[64];             /* the kernel's name for this boot */
    uint64_t starts;           /* of all time, with this one */
    int quick;                 /* quick crashes in a row before this start */
    bool settled, muted;       /* muted: as the last run left it */
    bool greeted;              /* this installation has been ready, and has been heard, before */
    int volume;                /* -1 = as configured */
    char phase[32];            /* what this run is doing */
    char why[SERVICE_WHY_MAX]; /* what the run before said at its end, or was doing */
};

/* Reads what was, counts this start and writes it down. A record that cannot be read is begun
 * anew. What did not work is a sentence in `why` and no failure: a full disk keeps nobody from
 * speaking. */
void service_begin(struct service_record *r, const char *dir, struct problems *why);

/* Seconds to wait before loading; < 0 = do not, this is a crash loop. */
int service_pause(const struct service_record *r);

/* What this run is doing now ("loading", "ready"), if it should crash. 0 or negative errno, as of
 * all that follow. */
int service_phase(struct service_record *r, const char *phase);
int service_settled(struct service_record *r);
int service_muted(struct service_record *r, bool muted);
int service_greeted(struct service_record *r);
int service_volume(struct service_record *r, int volume);

/* It ends: in order (`why` NULL), or by a failure that can be told. */
int service_end(struct service_record *r, const char *why);

/* Safe mode ends: the next start tries once more, and knows why this was safe mode. */
int service_retry(struct service_record *r);

/* Keeps what is used in memory, so that no audio waits for a disk. A limit that is too small is a
 * sentence and no error. */
void service_lock_memory(struct problems *why);

#endif
