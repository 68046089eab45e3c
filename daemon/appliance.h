/*
 * daemon/appliance.h - the life of parleyd, from the start to the last fade.
 *
 *     pausing  after quick crashes, a while longer each time
 *     loading  the model comes into memory, by a thread of its own
 *     opening  until the sound devices are there
 *     ready    it listens and answers
 *     safe     after too many quick crashes: only the control socket, which says why
 *     stopping
 *
 * The control socket answers in every state. Everything here runs in the main thread's event loop;
 * the conversation has its own threads (daemon/live.h).
 *
 * appliance.c     states, signals, watchdog
 * appliance_do.c  what control commands and buttons do
 *
 * Privacy: what is said goes to people who watch or ask for the history on the control socket, and
 * nowhere else: never to the journal, to disk only if configured.
 */
#ifndef PARLEY_DAEMON_APPLIANCE_H
#define PARLEY_DAEMON_APPLIANCE_H

#include <stdatomic.h>
#include <systemd/sd-event.h>

#include "base/thread.h"
#include "daemon/buttons.h"
#include "daemon/conf.h"
#include "daemon/control_socket.h"
#include "daemon/history.h"
#include "daemon/live.h"
#include "daemon/metrics.h"
#include "daemon/recording.h"
#include "daemon/service.h"
#include "daemon/session.h"

enum appliance_state {
    APPLIANCE_PAUSING,
    APPLIANCE_LOADING,
    APPLIANCE_OPENING,
    APPLIANCE_READY,
    APPLIANCE_SAFE,
    APPLIANCE_STOPPING,
    APPLIANCE_STATES
};

struct appliance {
    struct conf conf;
    const char *conf_path; /* NULL = none: defaults */
    sd_event *event;
    enum appliance_state state;
    int code; /* to exit with */
    uint64_t began_us;
    struct service_record record;
    struct control_socket *control;
    struct buttons *buttons;
    sd_event_source *tick, *dog, *lines, *loaded;

    /* loading */
    struct thread loader;
    bool loader_runs;
    int loaded_fd; /* eventfd */
    _Atomic bool no_further, load_ended;
    _Atomic size_t done, total;
    size_t done_before; /* at the last tick */
    int load_err;
    struct problems load_why;
    struct session session;
    bool has_session;

    /* ready */
    struct live *live;
    char *system; /* text, or NULL */
    char vad[4096];
    bool muted, held_open; /* held_open: by the talk key */
    int volume;
    uint64_t ready_us;
    struct watchdog watchdog;
    const char *stuck; /* who was told of last */

    struct recording *recording; /* NULL = none */
    struct history history;
    uint64_t forget_by_us; /* what is heard of until then, or until it is forgotten, is not noted */
    bool typed;            /* the turn that is being answered was written */
    struct metrics metrics;
    struct conversation_now seen; /* when the last line was taken */
    uint64_t speech_end;          /* sample time; 0 = no turn of speech is open */
};

/* Runs until it is told to stop; the exit code. Takes `conf`. */
int appliance_run(struct conf *conf, const char *conf_path);

/* A line for the journal or the terminal, if the configured level lets it pass. */
void appliance_log(const struct appliance *a, enum conf_log level, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* The sentences, which are then gone. */
void appliance_log_all(const struct appliance *a, enum conf_log level, struct problems *why);

const char *appliance_state_name(enum appliance_state s);

/* appliance_do.c */
int appliance_control(void *appliance, const struct control_request *r, json_t *reply,
                      struct problems *why);
void appliance_button(void *appliance, enum button b, bool down);
void appliance_greet(struct appliance *a); /* it is ready, and says so */
void appliance_event_line(struct appliance *a, const char *line, size_t n);
/* What was heard since the last call; ends a recording that may not be made any more. */
void appliance_take_recording(struct appliance *a);
int appliance_end_recording(struct appliance *a, struct problems *why);
float appliance_gain(const struct appliance *a);

uint64_t appliance_now(const struct appliance *a); /* us, monotonic */

#endif
