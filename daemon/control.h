/*
 * daemon/control.h - the control protocol: one line in, one line out. No sockets here.
 *
 *     {"cmd":"say","text":"Dinner is ready.","id":7}
 *     {"v":1,"id":7,"ok":true}
 *     {"cmd":"volume","number":300}
 *     {"v":1,"ok":false,"error":"volume: found 300, expected a whole number from 0 to 100"}
 *
 * A request is one JSON object: `cmd`, its argument (`text` or `number`), and if wanted `id` (a
 * whole number or a string, sent back) and `v` (1, else the request is refused). Anything else in
 * it is refused. A reply has `v`, `id`, `ok`; then what the command gives, or `error`, one
 * sentence. After `watch` every further line without `v` is one of the event log
 * (daemon/event_log.h).
 *
 * What a command does is the business of the caller's control_run. The table of commands serves the
 * daemon, `parley ctl` and its help alike. The manual page parleyd-control(7) tells the same.
 *
 * Threads: no state; one caller at a time for each `ctx`.
 */
#ifndef PARLEY_DAEMON_CONTROL_H
#define PARLEY_DAEMON_CONTROL_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/problem.h"

enum {
    CONTROL_VERSION = 1,
    CONTROL_LINE_MAX = 32768, /* bytes of a request with its "\n" */
    CONTROL_TEXT_MAX = 8192,  /* bytes of `text` */
};

enum control_cmd {
    CONTROL_STATUS,
    CONTROL_WATCH,
    CONTROL_MUTE,
    CONTROL_UNMUTE,
    CONTROL_STOP,
    CONTROL_WAKE,
    CONTROL_SAY,
    CONTROL_ASK,
    CONTROL_DEVICES,
    CONTROL_METRICS,
    CONTROL_HISTORY,
    CONTROL_FORGET,
    CONTROL_VOLUME,
    CONTROL_LOG_LEVEL,
    CONTROL_RECORD,
    CONTROL_CMDS
};

enum control_argument { CONTROL_NOTHING, CONTROL_TEXT, CONTROL_NUMBER };

struct control_command {
    const char *name;
    enum control_argument argument;
    int min, max;        /* of a number */
    const char *choices; /* of a text: "error|warning|info|debug", NULL = any */
    const char *shown;   /* the argument in help: "TEXT" */
    const char *help;
};

/* [CONTROL_CMDS], in the order of enum control_cmd. */
const struct control_command *control_commands(void);

struct control_request {
    enum control_cmd cmd;
    const char *text; /* CONTROL_TEXT */
    int number;       /* CONTROL_NUMBER; for choices their number */
};

/* Does it. What the command gives is added to `reply` (an object). Negative errno and a sentence in
 * `why`: refused. */
typedef int control_run(void *ctx, const struct control_request *r, json_t *reply,
                        struct problems *why);

/* The answer to one line (with or without its end), "\n" at its end; the caller frees. NULL only
 * when memory is short. `cmd` is what was done, CONTROL_CMDS when it was refused. */
char *control_answer(control_run *run, void *ctx, const char *line, size_t n,
                     enum control_cmd *cmd);

/* The line of a refusal that no request led to: too many connections, a line too long. The caller
 * frees; NULL when memory is short. */
char *control_refusal(const char *error);

#endif
