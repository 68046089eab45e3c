/*
 * daemon/appliance.c - states and what leads from one to the next; signals; the watchdog.
 *
 * Why things end is written down before they end: a process that is killed on its way out has said
 * what was to be said.
 */
#include "daemon/appliance.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "base/util.h"
#include "daemon/commands.h"
#include "daemon/installed.h"

enum {
    TICK_US = 500000,
    ACCURACY_US = 10000,
    EXTEND_S = 30,
    SAFE_RETRY_S = 900,  /* safe mode tries again after */
    STOP_DEADLINE_S = 2, /* a thread that does not end by then is left behind */
    LANGUAGE_ROOM = 128,
};

/* -- Words ------------------------------------------------------------------------------------ */

void appliance_log(const struct appliance *a, enum conf_log level, const char *fmt, ...)
{
    static const char *const priority[] = {SD_ERR, SD_WARNING, SD_INFO, SD_DEBUG};
    char text[2048];
    va_list args;
    if ((int)level > a->conf.log_level)
        return;
    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    fprintf(stderr, "%s%s\n", isatty(STDERR_FILENO) ? "" : priority[level], text);
}

void appliance_log_all(const struct appliance *a, enum conf_log level, struct problems *why)
{
    for (size_t i = 0; i < why->n; i++)
        appliance_log(a, level, "%s", why->text[i]);
    problems_free(why);
}

const char *appliance_state_name(enum appliance_state s)
{
    static const char *const names[] = {"pausing", "loading", "opening",
                                        "ready",   "safe",    "stopping"};
    _Static_assert(ARRAY_LEN(names) == APPLIANCE_STATES, "a state has no name");
    return (unsigned)s < APPLIANCE_STATES ? names[s] : "?";
}

uint64_t appliance_now(const struct appliance *a)
{
    uint64_t now = 0;
    sd_event_now(a->event, CLOCK_MONOTONIC, &now);
    return now;
}

static void enter(struct appliance *a, enum appliance_state s)
{
    a->state = s;
    if (s == APPLIANCE_STOPPING)
        return; /* the record ends on its own */
    int err = service_phase(&a->record, appliance_state_name(s));
    if (err < 0)
        appliance_log(a, CONF_LOG_DEBUG, "%s: %s", a->record.dir, strerror(-err));
}

static void leave(struct appliance *a, int code)
{
    a->code = code;
    sd_event_exit(a->event, code);
}

/* It cannot go on; the next start is told why. */
static void fail(struct appliance *a, int err, struct problems *why)
{
    char text[SERVICE_WHY_MAX];
    snprintf(text, sizeof(text), "%s", why->n > 0 ? why->text[0] : strerror(-err));
    service_end(&a->record, text);
    service_status("failed: %s", text);
    if (why->n == 0)
        appliance_log(a, CONF_LOG_ERROR, "%s", text);
    appliance_log_all(a, CONF_LOG_ERROR, why);
    leave(a, EXIT_FAILED);
}

/* -- Loading ---------------------------------------------------------------------------------- */

/* The loader's thread. */
static bool loading(void *appliance, size_t done, size_t total)
{
    struct appliance *a = appliance;
    atomic_store(&a->done, done);
    atomic_store(&a->total, total);
    return !atomic_load(&a->no_further);
}

static void *load(void *appliance)
{
    struct appliance *a = appliance;
    const struct session_opts o = {.dir = a->conf.model,
                                   .device = a->conf.device,
                                   .threads = a->conf.threads,
                                   .context = a->conf.context,
                                   .speaker = a->conf.speaker[0] != '\0' ? a->conf.speaker : NULL,
                                   .temperature = -1,
                                   .paging = a->conf.paging,
                                   .loading = loading,
                                   .loading_ctx = a};
    const uint64_t one = 1;
    a->load_err = session_open(&a->session, &o, &a->load_why);
    atomic_store(&a->load_ended, true);
    (void)!write(a->loaded_fd, &one, sizeof(one)); /* should it fail, the next tick looks */
    return NULL;
}

static void start_loading(struct appliance *a)
{
    enter(a, APPLIANCE_LOADING);
    int err = thread_start(&a->loader, "parley-load", load, a);
    a->loader_runs = err == 0;
    struct problems why = {0};
    if (err < 0)
        fail(a, problem_add(&why, err, "the loader's thread cannot be made: %s", strerror(-err)),
             &why);
}

static void show_loading(struct appliance *a)
{
    size_t done = atomic_load(&a->done), total = atomic_load(&a->total);
    if (done == a->done_before)
        return;
    a->done_before = done;
    service_extend(EXTEND_S);
    service_status("loading %s: %zu of %zu MB", a->conf.model, done / 1000000, total / 1000000);
}

/* -- Ready ------------------------------------------------------------------------------------ */

static void take_lines(struct appliance *a)
{
    char line[LIVE_LINE_MAX];
    size_t n;
    while ((n = live_read(a->live, line)) > 0)
        appliance_event_line(a, line, n);
    if (live_ended(a->live) && a->state == APPLIANCE_READY)
        leave(a, 0);
}

static int on_lines(sd_event_source *io, int fd, uint32_t events, void *appliance)
{
    (void)io;
    (void)fd;
    (void)events;
    take_lines(appliance);
    return 0;
}

static int on_watchdog(sd_event_source *timer, uint64_t due, void *appliance)
{
    (void)due;
    struct appliance *a = appliance;
    struct live_progress p;
    uint64_t now = appliance_now(a);
    live_progress(a->live, &p);
    const uint64_t counts[] = {p.floor, p.work};
    const char *stuck = watchdog_judge(&a->watchdog, counts, now);
    if (stuck == NULL)
        watchdog_feed(&a->watchdog);
    else if (a->stuck != stuck)
        appliance_log(a, CONF_LOG_ERROR, "the thread '%s' has made no progress for %d s", stuck,
                      a->conf.stall_s);
    a->stuck = stuck;
    sd_event_source_set_time(timer, now + a->watchdog.every_us);
    return sd_event_source_set_enabled(timer, SD_EVENT_ONESHOT);
}

static int watch_over(struct appliance *a)
{
    static const char *const names[] = {"floor", "work"};
    uint64_t now = appliance_now(a);
    watchdog_init(&a->watchdog, names, ARRAY_LEN(names), a->conf.stall_s, now);
    int err = sd_event_add_time(a->event, &a->dog, CLOCK_MONOTONIC, now + a->watchdog.every_us,
                                ACCURACY_US, on_watchdog, a);
    if (err >= 0)
        err = sd_event_add_io(a->event, &a->lines, live_fd(a->live), EPOLLIN, on_lines, a);
    return err < 0 ? err : 0;
}

static int open_live(struct appliance *a, struct problems *why)
{
    const struct conf *c = &a->conf;
    const struct live_opts o = {.session = &a->session,
                                .capture = c->capture,
                                .playback = c->playback,
                                .rate = c->rate,
                                .realtime = c->realtime,
                                .no_cancel = !c->echo_cancel,
                                .noise = c->noise,
                                .gain = c->gain,
                                .delay_ms = c->delay_ms,
                                .vad = a->vad,
                                .system = a->system,
                                .turn = &c->turn,
                                .tell_cut = c->tell_cut,
                                .texts = true,
                                .muted = a->muted,
                                .max_tokens = c->max_tokens};
    int err = live_open(&a->live, &o, why);
    if (err < 0 && why->n == 0)
        problem_add(why, err, "the conversation cannot be opened: %s", strerror(-err));
    if (err < 0)
        return err;
    live_volume(a->live, appliance_gain(a));
    err = live_start(a->live, why);
    return err < 0 ? err : watch_over(a);
}

static void say_ready(struct appliance *a)
{
    a->ready_us = appliance_now(a);
    enter(a, APPLIANCE_READY);
    service_status("ready%s", a->muted ? ", muted" : "");
    service_ready();
    appliance_greet(a);
    appliance_log(a, CONF_LOG_INFO, "ready after %.1f s: %s on %s",
                  (double)(a->ready_us - a->began_us) / 1e6, a->conf.model, a->session.dev->name);
    if (a->session.not_gpu != NULL)
        appliance_log(a, CONF_LOG_INFO, "the CPU computes: %s", a->session.not_gpu);
}

/* Devices that are not there yet may come; anything else that is wrong stays wrong. */
static void try_devices(struct appliance *a)
{
    struct problems why = {0};
    int err = open_live(a, &why);
    if (err == 0) {
        appliance_log_all(a, CONF_LOG_WARNING, &why);
        say_ready(a);
    } else if (err == -ENODEV || err == -EBUSY || err == -ENOENT) {
        service_extend(EXTEND_S);
        service_status("waiting: %s", why.n > 0 ? why.text[0] : strerror(-err));
        if (a->state != APPLIANCE_OPENING) { /* once: entering writes to the disk */
            appliance_log_all(a, CONF_LOG_WARNING, &why);
            enter(a, APPLIANCE_OPENING);
        }
        live_close(a->live);
        a->live = NULL;
    } else {
        fail(a, err, &why);
    }
    problems_free(&why);
}

static void loaded(struct appliance *a)
{
    struct problems why = {0};
    sd_event_source_set_enabled(a->loaded, SD_EVENT_OFF);
    thread_join(&a->loader);
    a->loader_runs = false;
    a->has_session = a->load_err == 0;
    if (a->load_err < 0) {
        fail(a, a->load_err, &a->load_why);
        return;
    }
    appliance_log_all(a, CONF_LOG_WARNING, &a->load_why);
    if (!a->conf.paging)
        service_lock_memory(&why);
    appliance_log_all(a, CONF_LOG_WARNING, &why);
    try_devices(a);
}

static int on_loaded(sd_event_source *io, int fd, uint32_t events, void *appliance)
{
    (void)io;
    (void)fd;
    (void)events;
    loaded(appliance);
    return 0;
}

/* -- The loop --------------------------------------------------------------------------------- */

static void enter_safe(struct appliance *a)
{
    enter(a, APPLIANCE_SAFE);
    appliance_log(a, CONF_LOG_ERROR,
                  "safe mode after %d quick crashes: %s; only the control socket answers",
                  a->record.quick, a->record.why);
    service_status("safe mode after %d quick crashes: %s", a->record.quick, a->record.why);
}

static void tick_safe(struct appliance *a, uint64_t lasted_us)
{
    service_extend(EXTEND_S);
    if (lasted_us < (uint64_t)SAFE_RETRY_S * 1000000)
        return;
    appliance_log(a, CONF_LOG_INFO, "safe mode ends: another try");
    service_retry(&a->record);
    leave(a, EXIT_FAILED);
}

static void tick(struct appliance *a, uint64_t now)
{
    uint64_t lasted = now - a->began_us;
    switch (a->state) {
    case APPLIANCE_PAUSING:
        service_extend(EXTEND_S);
        if (lasted >= (uint64_t)service_pause(&a->record) * 1000000)
            start_loading(a);
        break;
    case APPLIANCE_LOADING:
        show_loading(a);
        if (atomic_load(&a->load_ended))
            loaded(a);
        break;
    case APPLIANCE_OPENING:
        try_devices(a);
        break;
    case APPLIANCE_READY:
        take_lines(a);
        appliance_take_recording(a);
        if (!a->record.settled && now - a->ready_us >= SERVICE_SETTLED_S * 1000000ull)
            service_settled(&a->record);
        break;
    case APPLIANCE_SAFE:
        tick_safe(a, lasted);
        break;
    default:
        break;
    }
}

static int on_tick(sd_event_source *timer, uint64_t due, void *appliance)
{
    (void)due;
    uint64_t now = appliance_now(appliance);
    tick(appliance, now);
    sd_event_source_set_time(timer, now + TICK_US);
    return sd_event_source_set_enabled(timer, SD_EVENT_ONESHOT);
}

/* The second signal, or a thread that does not end: everything that must last is on disk. */
static void end_at_once(int number)
{
    (void)number;
    _exit(0);
}

static int on_stop(sd_event_source *source, const struct signalfd_siginfo *info, void *appliance)
{
    struct appliance *a = appliance;
    sigset_t set;
    (void)source;
    if (a->state == APPLIANCE_STOPPING)
        _exit(0);
    appliance_log(a, CONF_LOG_INFO, "stopping: signal %u", info->ssi_signo);
    enter(a, APPLIANCE_STOPPING);
    service_end(&a->record, NULL);
    const struct sigaction action = {.sa_handler = end_at_once};
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGALRM, &action, NULL);
    alarm(STOP_DEADLINE_S);
    service_stopping();
    leave(a, 0);
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigprocmask(SIG_UNBLOCK, &set, NULL);
    return 0;
}

/* What cannot change while it runs is named, and waits for the next start. */
static void reload(struct appliance *a)
{
    struct conf fresh;
    struct problems why = {0};
    size_t n;
    const struct conf_key *k = conf_keys(&n);
    if (a->conf_path == NULL)
        return;
    if (conf_load(&fresh, a->conf_path, &why) < 0) {
        appliance_log_all(a, CONF_LOG_ERROR, &why);
        appliance_log(a, CONF_LOG_ERROR, "the configuration stays as it was");
        return;
    }
    for (size_t i = 0; i < n; i++)
        if (!conf_equal(&k[i], &a->conf, &fresh)) {
            appliance_log(a, CONF_LOG_INFO, "[%s] %s has changed%s", k[i].section, k[i].name,
                          k[i].reload ? "" : "; it takes effect on a restart");
            if (k[i].at == offsetof(struct conf, volume)) {
                a->volume = fresh.volume;
                service_volume(&a->record, -1); /* what was set by hand before is over */
            }
        }
    conf_reload(&a->conf, &fresh);
    conf_free(&fresh);
    if (a->live != NULL)
        live_volume(a->live, appliance_gain(a));
    appliance_take_recording(a);
}

static int on_reload(sd_event_source *source, const struct signalfd_siginfo *info, void *appliance)
{
    (void)source;
    (void)info;
    struct appliance *a = appliance;
    bool ready = a->state == APPLIANCE_READY; /* nobody else may say so */
    if (ready)
        service_reloading();
    reload(a);
    if (ready)
        service_ready();
    return 0;
}

/* -- Begin and end ---------------------------------------------------------------------------- */

static int add_sources(struct appliance *a)
{
    int err = sd_event_add_signal(a->event, NULL, SIGTERM, on_stop, a);
    if (err >= 0)
        err = sd_event_add_signal(a->event, NULL, SIGINT, on_stop, a);
    if (err >= 0)
        err = sd_event_add_signal(a->event, NULL, SIGHUP, on_reload, a);
    if (err >= 0)
        err = sd_event_add_time(a->event, &a->tick, CLOCK_MONOTONIC, 0, ACCURACY_US, on_tick, a);
    a->loaded_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (err >= 0 && a->loaded_fd < 0)
        err = -errno;
    if (err >= 0)
        err = sd_event_add_io(a->event, &a->loaded, a->loaded_fd, EPOLLIN, on_loaded, a);
    return err < 0 ? err : 0;
}

static int open_control(struct appliance *a, struct problems *why)
{
    int n = sd_listen_fds(1);
    const struct control_socket_opts o = {.event = a->event,
                                          .fd = n > 0 ? SD_LISTEN_FDS_START : -1,
                                          .path = a->conf.socket,
                                          .group = a->conf.group,
                                          .run = appliance_control,
                                          .ctx = a};
    if (n > 1)
        return problem_add(why, -EINVAL, "found %d sockets handed over, expected at most 1", n);
    return control_socket_open(&a->control, &o, why);
}

static int open_buttons(struct appliance *a, struct problems *why)
{
    const struct buttons_opts o = {.event = a->event,
                                   .device = a->conf.buttons,
                                   .keys = {a->conf.mute_key, a->conf.stop_key, a->conf.talk_key},
                                   .pressed = appliance_button,
                                   .ctx = a};
    return a->conf.buttons[0] != '\0' ? buttons_open(&a->buttons, &o, why) : 0;
}

/* The system text: the file, and a sentence about the language. */
static int read_system(struct appliance *a, struct problems *why)
{
    const char *language = a->conf.language;
    char *text = NULL;
    size_t n = 0;
    if (a->conf.system_file[0] != '\0') {
        int err = read_file(&text, &n, a->conf.system_file, CONF_SYSTEM_MAX);
        if (err < 0)
            return problem_add(why, err, "[speech] system_file: %s: %s", a->conf.system_file,
                               strerror(-err));
        while (n > 0 && text[n - 1] == '\n')
            text[--n] = '\0';
    }
    int err = 0;
    if (language[0] != '\0' &&
        asprintf(&a->system, "%s%sThe person speaks %s. Answer in %s.", n > 0 ? text : "",
                 n > 0 ? "\n" : "", language, language) < 0) {
        a->system = NULL;
        err = problem_add(why, -ENOMEM, "[speech] no memory for the system text");
    } else if (language[0] == '\0' && n > 0) {
        a->system = text;
        return 0;
    }
    free(text);
    return err;
}

static int find_vad(struct appliance *a, struct problems *why)
{
    if (a->conf.vad[0] == '\0')
        return installed_path(a->vad, sizeof(a->vad), INSTALLED_VAD, why);
    snprintf(a->vad, sizeof(a->vad), "%s", a->conf.vad);
    return 0;
}

static int open_history(struct appliance *a, struct problems *why)
{
    const char *dir = a->conf.history == CONF_HISTORY_FILE ? a->conf.state : NULL;
    return history_open(&a->history, (size_t)a->conf.history_turns, dir, why);
}

static int prepare(struct appliance *a, struct problems *why)
{
    int err = read_system(a, why);
    if (err == 0)
        err = find_vad(a, why);
    return err == 0 ? open_buttons(a, why) : err;
}

static void block_signals(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
}

static void begin(struct appliance *a)
{
    struct problems why = {0};
    service_begin(&a->record, a->conf.state, &why);
    a->muted = a->record.muted;
    a->volume = a->record.volume >= 0 ? a->record.volume : a->conf.volume;
    appliance_log_all(a, CONF_LOG_WARNING, &why);
    int err = open_control(a, &why);
    if (err == 0)
        err = open_history(a, &why);
    bool safe = err == 0 && service_pause(&a->record) < 0;
    if (err == 0 && !safe) /* what fails here may be what has led to safe mode */
        err = prepare(a, &why);
    if (err < 0) {
        fail(a, err, &why);
        return;
    }
    appliance_log_all(a, CONF_LOG_WARNING, &why);
    if (safe) {
        enter_safe(a);
        return;
    }
    enter(a, APPLIANCE_PAUSING);
    if (service_pause(&a->record) > 0)
        service_status("waiting %d s after a crash: %s", service_pause(&a->record), a->record.why);
}

/* The conversation fades out first; the rest cannot be heard. */
static void end(struct appliance *a)
{
    struct problems why = {0};
    a->tick = sd_event_source_disable_unref(a->tick);
    a->dog = sd_event_source_disable_unref(a->dog);
    a->lines = sd_event_source_disable_unref(a->lines);
    a->loaded = sd_event_source_disable_unref(a->loaded);
    atomic_store(&a->no_further, true);
    if (a->live != NULL) {
        appliance_end_recording(a, &why);
        int err = live_stop(a->live, &why);
        if (err < 0 && a->state == APPLIANCE_READY)
            fail(a, err, &why);
        else if (err == 0 && a->state == APPLIANCE_READY)
            service_end(&a->record, NULL); /* a recording that came to its end */
        problems_free(&why);
    }
    live_close(a->live);
    if (a->loader_runs)
        thread_join(&a->loader);
    if (a->has_session || (a->loader_runs && a->load_err == 0))
        session_close(&a->session);
    buttons_close(a->buttons);
    control_socket_close(a->control);
    history_close(&a->history);
    problems_free(&a->load_why);
    free(a->system);
    if (a->loaded_fd >= 0)
        close(a->loaded_fd);
    sd_event_unref(a->event);
}

int appliance_run(struct conf *conf, const char *conf_path)
{
    struct appliance *a = calloc(1, sizeof(*a));
    if (a == NULL) {
        conf_free(conf);
        return EXIT_FAILED;
    }
    a->conf = *conf;
    a->conf_path = conf_path;
    a->loaded_fd = -1;
    block_signals();
    int err = sd_event_new(&a->event);
    if (err >= 0)
        err = add_sources(a);
    if (err >= 0) {
        a->began_us = appliance_now(a);
        begin(a);
        err = sd_event_loop(a->event);
    }
    if (err < 0) {
        appliance_log(a, CONF_LOG_ERROR, "the event loop: %s", strerror(-err));
        a->code = EXIT_FAILED;
    }
    end(a);
    int code = a->code;
    conf_free(&a->conf);
    free(a);
    return code;
}
