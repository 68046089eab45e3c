/*
 * daemon/control_socket.c - the listening socket and its connections.
 *
 * A connection is a buffer of input that holds less than one line, a queue of output, and a timer.
 * While output waits, nothing more is read: whoever asks without reading stops himself.
 */
#include "daemon/control_socket.h"

#include <errno.h>
#include <grp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/util.h"

enum { GROUPS_MAX = 256, ACCURACY_US = 100000 };

struct client {
    struct control_socket *owner;
    int fd;
    sd_event_source *io, *timer;
    char *in, *out;
    size_t n_in, n_out, sent, cap;
    bool watching, closing;
    uint64_t lost; /* lines that a watcher was too slow for */
};

struct control_socket {
    struct control_socket_opts opts;
    char *path; /* to be removed, or NULL */
    int fd;
    gid_t gid;
    bool has_group;
    uint64_t quiet_us;
    sd_event_source *io, *pause;
    struct client *clients[CONTROL_CLIENTS];
};

static void close_client(struct client *c)
{
    struct control_socket *s = c->owner;
    for (int i = 0; i < CONTROL_CLIENTS; i++)
        if (s->clients[i] == c)
            s->clients[i] = NULL;
    sd_event_source_disable_unref(c->io);
    sd_event_source_disable_unref(c->timer);
    close(c->fd);
    free(c->in);
    free(c->out);
    free(c);
}

static size_t queued(const struct client *c)
{
    return c->n_out - c->sent;
}

/* False when it does not fit: the queue is as it was. */
static bool queue(struct client *c, const char *text, size_t n)
{
    if (queued(c) + n > CONTROL_QUEUE_MAX)
        return false;
    if (c->sent > 0) {
        memmove(c->out, c->out + c->sent, queued(c));
        c->n_out -= c->sent;
        c->sent = 0;
    }
    if (grow_array(&c->out, &c->cap, c->n_out + n, 1) < 0)
        return false;
    memcpy(c->out + c->n_out, text, n);
    c->n_out += n;
    return true;
}

static void restart_timer(struct client *c)
{
    uint64_t now = 0;
    sd_event_now(c->owner->opts.event, CLOCK_MONOTONIC, &now);
    sd_event_source_set_time(c->timer, now + c->owner->quiet_us);
    sd_event_source_set_enabled(c->timer, SD_EVENT_ONESHOT);
}

/* Sends what can be sent. False: the connection is over. */
static bool flush(struct client *c)
{
    while (queued(c) > 0) {
        ssize_t n = send(c->fd, c->out + c->sent, queued(c), MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            break;
        if (n < 0)
            return false;
        c->sent += (size_t)n;
        restart_timer(c); /* it reads, so it lives */
    }
    if (queued(c) == 0) {
        c->n_out = c->sent = 0;
        if (c->closing)
            return false;
    }
    uint32_t events = queued(c) > 0 ? EPOLLOUT : EPOLLIN;
    return sd_event_source_set_io_events(c->io, events) >= 0;
}

/* A refusal that ends the connection once it is sent. */
static bool refuse(struct client *c, const char *error)
{
    char *line = control_refusal(error);
    c->closing = true;
    if (line != NULL)
        queue(c, line, strlen(line));
    free(line);
    return flush(c);
}

static bool answer(struct client *c, const char *line, size_t n)
{
    enum control_cmd cmd;
    char *text = control_answer(c->owner->opts.run, c->owner->opts.ctx, line, n, &cmd);
    const char *lacks = text != NULL ? "the answer is too long" : "no memory for the answer";
    bool ok = text != NULL && queue(c, text, strlen(text));
    free(text);
    if (!ok && (text = control_refusal(lacks)) != NULL) {
        ok = queue(c, text, strlen(text));
        free(text);
    }
    if (cmd == CONTROL_WATCH)
        c->watching = true;
    return ok;
}

/* Answers whole lines as long as nothing waits to be sent. False: the connection is over. */
static bool take_lines(struct client *c)
{
    size_t at = 0;
    bool ok = true;
    while (ok && !c->closing && queued(c) == 0) {
        char *end = memchr(c->in + at, '\n', c->n_in - at);
        if (end == NULL)
            break;
        size_t n = (size_t)(end - (c->in + at));
        ok = answer(c, c->in + at, n) && flush(c);
        at += n + 1;
    }
    if (!ok)
        return false;
    memmove(c->in, c->in + at, c->n_in - at);
    c->n_in -= at;
    if (!c->closing && c->n_in == CONTROL_LINE_MAX && memchr(c->in, '\n', c->n_in) == NULL)
        return refuse(c, "the line is too long");
    return true;
}

static bool read_input(struct client *c)
{
    ssize_t n = recv(c->fd, c->in + c->n_in, CONTROL_LINE_MAX - c->n_in, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return true;
    if (n <= 0)
        return false;
    c->n_in += (size_t)n;
    restart_timer(c);
    return take_lines(c);
}

static void tell_lost(struct client *c)
{
    char line[64];
    if (c->lost == 0)
        return;
    int n = snprintf(line, sizeof(line), "{\"event\":\"lost\",\"lines\":%llu}\n",
                     (unsigned long long)c->lost);
    if (queue(c, line, (size_t)n))
        c->lost = 0;
}

static int on_client(sd_event_source *io, int fd, uint32_t events, void *client)
{
    (void)io;
    (void)fd;
    struct client *c = client;
    bool ok = true;
    if (events & EPOLLOUT) {
        ok = flush(c);
        if (ok && queued(c) == 0) {
            tell_lost(c);
            ok = flush(c) && (queued(c) > 0 || take_lines(c));
        }
    } else if (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
        ok = read_input(c);
    }
    if (ok && (events & (EPOLLHUP | EPOLLERR)) && !(events & EPOLLIN))
        ok = false;
    if (!ok)
        close_client(c);
    return 0;
}

/* Nothing came, nothing went. A watcher may be silent, as long as it reads. */
static int on_quiet(sd_event_source *timer, uint64_t usec, void *client)
{
    (void)timer;
    (void)usec;
    struct client *c = client;
    if (c->watching && queued(c) == 0)
        restart_timer(c);
    else
        close_client(c);
    return 0;
}

/* root, our own user, or a member of the group, at first or in addition. */
static bool allowed(const struct control_socket *s, int fd)
{
    struct ucred peer;
    socklen_t size = sizeof(peer);
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0)
        return false;
    if (peer.uid == 0 || peer.uid == geteuid())
        return true;
    if (!s->has_group)
        return false;
    if (peer.gid == s->gid)
        return true;
    gid_t groups[GROUPS_MAX];
    size = sizeof(groups);
    if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, &size) < 0)
        return false;
    for (size_t i = 0; i < size / sizeof(groups[0]); i++)
        if (groups[i] == s->gid)
            return true;
    return false;
}

static int add_client(struct control_socket *s, int slot, int fd)
{
    struct client *c = calloc(1, sizeof(*c));
    if (c == NULL) {
        close(fd);
        return -ENOMEM;
    }
    *c = (struct client){.owner = s, .fd = fd, .in = malloc(CONTROL_LINE_MAX)};
    uint64_t now = 0;
    sd_event_now(s->opts.event, CLOCK_MONOTONIC, &now);
    int err = c->in == NULL ? -ENOMEM : 0;
    if (err == 0)
        err = sd_event_add_io(s->opts.event, &c->io, fd, EPOLLIN, on_client, c);
    if (err >= 0)
        err = sd_event_add_time(s->opts.event, &c->timer, CLOCK_MONOTONIC, now + s->quiet_us,
                                ACCURACY_US, on_quiet, c);
    if (err < 0) {
        close_client(c);
        return err;
    }
    s->clients[slot] = c;
    if (!allowed(s, fd) && !refuse(c, "not allowed: neither root nor a member of the group"))
        close_client(c);
    return 0;
}

/* Told at once, without keeping anything. */
static void turn_away(int fd, const char *error)
{
    char *line = control_refusal(error);
    if (line != NULL)
        (void)!send(fd, line, strlen(line), MSG_DONTWAIT | MSG_NOSIGNAL);
    free(line);
    close(fd);
}

static int on_pause_over(sd_event_source *timer, uint64_t usec, void *socket)
{
    (void)timer;
    (void)usec;
    struct control_socket *s = socket;
    sd_event_source_set_enabled(s->io, SD_EVENT_ON);
    return 0;
}

/* Out of descriptors or memory: a pause instead of a busy loop. */
static void pause_listening(struct control_socket *s)
{
    uint64_t now = 0;
    sd_event_now(s->opts.event, CLOCK_MONOTONIC, &now);
    sd_event_source_set_enabled(s->io, SD_EVENT_OFF);
    s->pause = sd_event_source_disable_unref(s->pause);
    if (sd_event_add_time(s->opts.event, &s->pause, CLOCK_MONOTONIC, now + 1000000, ACCURACY_US,
                          on_pause_over, s) < 0)
        sd_event_source_set_enabled(s->io, SD_EVENT_ON);
}

static int on_connect(sd_event_source *io, int listening, uint32_t events, void *socket)
{
    (void)io;
    (void)events;
    struct control_socket *s = socket;
    int fd = accept4(listening, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0) {
        if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)
            pause_listening(s);
        return 0;
    }
    for (int i = 0; i < CONTROL_CLIENTS; i++)
        if (s->clients[i] == NULL) {
            add_client(s, i, fd);
            return 0;
        }
    turn_away(fd, "too many connections");
    return 0;
}

/* Somebody listens there: parleyd runs already. */
static bool answered(const struct sockaddr_un *address)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool yes = fd >= 0 && connect(fd, (const struct sockaddr *)address, sizeof(*address)) == 0;
    if (fd >= 0)
        close(fd);
    return yes;
}

static int listen_at(struct control_socket *s, const char *path, struct problems *why)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    _Static_assert(CONTROL_PATH_MAX == sizeof(address.sun_path) - 1, "the kernel's limit");
    if (strlen(path) > CONTROL_PATH_MAX)
        return problem_add(why, -ENAMETOOLONG, "%s: expected a socket of at most %d characters",
                           path, CONTROL_PATH_MAX);
    memcpy(address.sun_path, path, strlen(path));
    if (answered(&address))
        return problem_add(why, -EADDRINUSE, "%s: another parleyd answers there", path);
    struct stat st;
    if (lstat(path, &st) == 0 && S_ISSOCK(st.st_mode))
        unlink(path);
    s->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    mode_t mask = umask(0117); /* never open to others, not for a moment */
    int err = s->fd < 0 || bind(s->fd, (const struct sockaddr *)&address, sizeof(address)) < 0
                  ? -errno
                  : 0;
    umask(mask);
    if (err < 0)
        return problem_add(why, err, "%s: %s", path, strerror(-err));
    s->path = strdup(path);
    if (s->has_group && chown(path, (uid_t)-1, s->gid) < 0 && geteuid() == 0)
        return problem_add(why, -errno, "%s: group %s: %s", path, s->opts.group, strerror(errno));
    if (listen(s->fd, CONTROL_CLIENTS) < 0)
        return problem_add(why, -errno, "%s: %s", path, strerror(errno));
    return 0;
}

static int find_group(struct control_socket *s, struct problems *why)
{
    if (s->opts.group == NULL || s->opts.group[0] == '\0')
        return 0;
    const struct group *g = getgrnam(s->opts.group); /* however many members it has */
    if (g == NULL)                                   /* a note: root and our own user still can */
        return problem_add(why, 0, "control: there is no group '%s'", s->opts.group);
    s->gid = g->gr_gid;
    s->has_group = true;
    return 0;
}

int control_socket_open(struct control_socket **ret, const struct control_socket_opts *o,
                        struct problems *why)
{
    struct control_socket *s = calloc(1, sizeof(*s));
    if (s == NULL)
        return -ENOMEM;
    s->opts = *o;
    s->fd = o->fd;
    s->quiet_us = (uint64_t)(o->quiet_s > 0 ? o->quiet_s : 60) * 1000000;
    int err = find_group(s, why);
    if (err == 0 && o->fd < 0)
        err = listen_at(s, o->path, why);
    if (err == 0)
        err = sd_event_add_io(o->event, &s->io, s->fd, EPOLLIN, on_connect, s);
    if (err < 0) {
        control_socket_close(s);
        return err;
    }
    *ret = s;
    return 0;
}

void control_socket_refuse(int fd, const char *error)
{
    struct pollfd waiting = {.fd = fd, .events = POLLIN};
    for (int i = 0; i < SOMAXCONN && poll(&waiting, 1, 0) == 1; i++) {
        int client = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (client < 0)
            return;
        turn_away(client, error);
    }
}

void control_socket_publish(struct control_socket *s, const char *line, size_t n)
{
    for (int i = 0; i < CONTROL_CLIENTS; i++) {
        struct client *c = s->clients[i];
        if (c == NULL || !c->watching || c->closing)
            continue;
        if (c->lost > 0 || !queue(c, line, n))
            c->lost++;
        else if (!flush(c))
            close_client(c);
    }
}

int control_socket_watchers(const struct control_socket *s)
{
    int n = 0;
    for (int i = 0; i < CONTROL_CLIENTS; i++)
        n += s->clients[i] != NULL && s->clients[i]->watching;
    return n;
}

void control_socket_close(struct control_socket *s)
{
    if (s == NULL)
        return;
    for (int i = 0; i < CONTROL_CLIENTS; i++)
        if (s->clients[i] != NULL)
            close_client(s->clients[i]);
    sd_event_source_disable_unref(s->io);
    sd_event_source_disable_unref(s->pause);
    if (s->fd >= 0)
        close(s->fd);
    if (s->path != NULL)
        unlink(s->path);
    free(s->path);
    free(s);
}
