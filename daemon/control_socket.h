/*
 * daemon/control_socket.h - the control protocol on a Unix socket: who may speak, how much, how
 * long.
 *
 * Allowed are root, the user parleyd runs as, and members of one group, by the credentials that the
 * kernel gives. Nobody can take more than a bounded piece of memory or hold anybody up: at most
 * CONTROL_CLIENTS connections, CONTROL_LINE_MAX bytes a request, a bounded queue of output. A
 * connection that says nothing for a while (and does not watch), or does not read what it asked
 * for, is closed. A watcher that is too slow loses lines and is told how many:
 * {"event":"lost","lines":12}.
 *
 * Threads: the one that runs the event loop; nothing blocks.
 */
#ifndef PARLEY_DAEMON_CONTROL_SOCKET_H
#define PARLEY_DAEMON_CONTROL_SOCKET_H

#include <systemd/sd-event.h>

#include "base/problem.h"
#include "daemon/control.h"

enum {
    CONTROL_CLIENTS = 16,
    CONTROL_QUEUE_MAX = 262144,
    CONTROL_PATH_MAX = 107, /* bytes that the kernel takes as a socket's name */
};

struct control_socket;

struct control_socket_opts {
    sd_event *event;
    int fd;            /* a listening socket that was handed over, ours from now on; or -1 and: */
    const char *path;  /* made here, mode 0660, group `group`; removed at the end */
    const char *group; /* "" = nobody beside root and our own user */
    int quiet_s;       /* a silent connection is closed after; 0 = 60 */
    control_run *run;
    void *ctx;
};

/* -EADDRINUSE when somebody answers on `path` already. */
int control_socket_open(struct control_socket **ret, const struct control_socket_opts *o,
                        struct problems *why);

/* Instead of all that: everybody who waits at the listening socket `fd` is told `error` (UTF-8), a
 * sentence, and closed. For a service that cannot start, and would be started for them again. */
void control_socket_refuse(int fd, const char *error);

/* One line of the event log, with its "\n", to everybody who watches. Not from within `run`. */
void control_socket_publish(struct control_socket *s, const char *line, size_t n);

int control_socket_watchers(const struct control_socket *s);

void control_socket_close(struct control_socket *s); /* NULL is legal */

#endif
