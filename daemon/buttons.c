/* daemon/buttons.c - libevdev on the event loop, re-opened when the device is back. */
#include "daemon/buttons.h"

#include <errno.h>
#include <fcntl.h>
#include <libevdev/libevdev.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { ACCURACY_US = 500000 };

struct buttons {
    struct buttons_opts opts;
    int code[BUTTONS]; /* -1 = none */
    bool down[BUTTONS];
    int fd;
    struct libevdev *dev;
    sd_event_source *io, *retry;
};

static void lose_device(struct buttons *b)
{
    b->io = sd_event_source_disable_unref(b->io);
    libevdev_free(b->dev);
    b->dev = NULL;
    if (b->fd >= 0)
        close(b->fd);
    b->fd = -1;
    for (int i = 0; i < BUTTONS; i++) {
        if (b->down[i]) /* nobody will ever release it */
            b->opts.pressed(b->opts.ctx, (enum button)i, false);
        b->down[i] = false;
    }
}

static void take_event(struct buttons *b, const struct input_event *e)
{
    if (e->type != EV_KEY || e->value < 0 || e->value > 1)
        return;
    for (int i = 0; i < BUTTONS; i++) {
        if (b->code[i] != e->code || b->down[i] == (e->value == 1))
            continue;
        b->down[i] = e->value == 1;
        b->opts.pressed(b->opts.ctx, (enum button)i, b->down[i]);
    }
}

static int look_again(struct buttons *b);

static int on_input(sd_event_source *io, int fd, uint32_t events, void *buttons)
{
    (void)io;
    (void)fd;
    (void)events;
    struct buttons *b = buttons;
    struct input_event e;
    unsigned how = LIBEVDEV_READ_FLAG_NORMAL;
    for (;;) {
        int got = libevdev_next_event(b->dev, how, &e);
        if (got == LIBEVDEV_READ_STATUS_SYNC) {
            how = LIBEVDEV_READ_FLAG_SYNC; /* events were lost: the state follows */
            take_event(b, &e);
        } else if (got == LIBEVDEV_READ_STATUS_SUCCESS) {
            take_event(b, &e);
        } else if (got == -EAGAIN && how == LIBEVDEV_READ_FLAG_SYNC) {
            how = LIBEVDEV_READ_FLAG_NORMAL;
        } else {
            if (got != -EAGAIN) {
                lose_device(b);
                look_again(b);
            }
            return 0;
        }
    }
}

static int open_device(struct buttons *b)
{
    b->fd = open(b->opts.device, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    int err = b->fd < 0 ? -errno : libevdev_new_from_fd(b->fd, &b->dev);
    if (err >= 0)
        err = sd_event_add_io(b->opts.event, &b->io, b->fd, EPOLLIN, on_input, b);
    if (err < 0)
        lose_device(b);
    return err;
}

static int on_retry(sd_event_source *timer, uint64_t usec, void *buttons)
{
    (void)timer;
    (void)usec;
    struct buttons *b = buttons;
    return open_device(b) < 0 ? look_again(b) : 0;
}

static int look_again(struct buttons *b)
{
    uint64_t now = 0;
    sd_event_now(b->opts.event, CLOCK_MONOTONIC, &now);
    now += (uint64_t)(b->opts.retry_s > 0 ? b->opts.retry_s : 5) * 1000000;
    if (b->retry == NULL)
        return sd_event_add_time(b->opts.event, &b->retry, CLOCK_MONOTONIC, now, ACCURACY_US,
                                 on_retry, b);
    sd_event_source_set_time(b->retry, now);
    return sd_event_source_set_enabled(b->retry, SD_EVENT_ONESHOT);
}

/* Its code, -1 = none, -2 = there is no such key. */
static int key_code(const char *name)
{
    if (name == NULL || name[0] == '\0')
        return -1;
    int code = libevdev_event_code_from_name(EV_KEY, name);
    return code >= 0 ? code : -2;
}

bool buttons_key(const char *name)
{
    return key_code(name) != -2;
}

int buttons_open(struct buttons **ret, const struct buttons_opts *o, struct problems *why)
{
    struct buttons *b = calloc(1, sizeof(*b));
    if (b == NULL)
        return -ENOMEM;
    b->opts = *o;
    b->fd = -1;
    int err = 0;
    for (int i = 0; i < BUTTONS; i++) {
        b->code[i] = key_code(o->keys[i]);
        if (!buttons_key(o->keys[i]))
            err = problem_add(why, -EINVAL,
                              "[buttons] found '%s', expected the name of a key as KEY_MICMUTE",
                              o->keys[i]);
    }
    int absent = err == 0 ? open_device(b) : 0;
    if (absent < 0) {
        problem_add(why, 0, "[buttons] %s is not there yet: %s", o->device, strerror(-absent));
        err = look_again(b);
    }
    if (err < 0) {
        buttons_close(b);
        return err;
    }
    *ret = b;
    return 0;
}

bool buttons_present(const struct buttons *b)
{
    return b->dev != NULL;
}

void buttons_close(struct buttons *b)
{
    if (b == NULL)
        return;
    b->opts.pressed = NULL;
    for (int i = 0; i < BUTTONS; i++)
        b->down[i] = false;
    lose_device(b);
    sd_event_source_disable_unref(b->retry);
    free(b);
}
