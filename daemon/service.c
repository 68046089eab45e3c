/* daemon/service.c - sd_notify, judging progress, starts.json. */
#include "daemon/service.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <systemd/sd-daemon.h>

#include "base/util.h"
#include "daemon/state_file.h"

#define RECORD "starts.json"

enum { UNASKED_US = 2000000 };

void service_status(const char *fmt, ...)
{
    char text[1024];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    for (char *c = text; *c != '\0'; c++)
        if (*c == '\n')
            *c = ' ';
    sd_notifyf(0, "STATUS=%s", text);
}

void service_ready(void)
{
    sd_notify(0, "READY=1");
}

void service_stopping(void)
{
    sd_notify(0, "STOPPING=1");
}

void service_reloading(void)
{
    sd_notify(0, "RELOADING=1");
}

void service_extend(int seconds)
{
    sd_notifyf(0, "EXTEND_TIMEOUT_USEC=%d000000", seconds);
}

void watchdog_init(struct watchdog *w, const char *const *names, int n, int stall_s,
                   uint64_t now_us)
{
    uint64_t limit = 0;
    *w = (struct watchdog){.n = n, .stall_us = (uint64_t)stall_s * 1000000};
    w->asked = sd_watchdog_enabled(0, &limit) > 0;
    /* Three judgements within the manager's patience. */
    w->every_us = w->asked ? limit / 4 : UNASKED_US;
    for (int i = 0; i < n; i++) {
        w->thread[i].name = names[i];
        w->thread[i].moved_us = now_us;
    }
}

const char *watchdog_judge(struct watchdog *w, const uint64_t *counts, uint64_t now_us)
{
    const char *stuck = NULL;
    for (int i = 0; i < w->n; i++) {
        if (counts[i] != w->thread[i].count) {
            w->thread[i].count = counts[i];
            w->thread[i].moved_us = now_us;
        } else if (stuck == NULL && now_us - w->thread[i].moved_us > w->stall_us) {
            stuck = w->thread[i].name;
        }
    }
    return stuck;
}

void watchdog_feed(const struct watchdog *w)
{
    if (w->asked)
        sd_notify(0, "WATCHDOG=1");
}

static void copy_text(char *to, size_t size, const char *from)
{
    snprintf(to, size, "%s", from != NULL ? from : "");
}

static void this_boot(char *boot, size_t size)
{
    char *text;
    size_t n;
    boot[0] = '\0';
    if (read_file(&text, &n, "/proc/sys/kernel/random/boot_id", 4096) < 0)
        return;
    text[strcspn(text, "\n")] = '\0';
    copy_text(boot, size, text);
    free(text);
}

/* A sentence may hold a file's name, which need not be UTF-8, or end within a character. */
static json_t *words(const char *text)
{
    char plain[SERVICE_WHY_MAX];
    json_t *value = json_string(text);
    if (value != NULL)
        return value;
    copy_text(plain, sizeof(plain), text);
    for (char *c = plain; *c != '\0'; c++)
        if ((unsigned char)*c >= 0x80)
            *c = '?';
    return json_string(plain);
}

static int write_record(const struct service_record *r, bool ended, const char *why)
{
    json_t *v =
        json_pack("{s:I, s:i, s:b, s:b, s:b, s:b, s:i, s:s, s:s, s:o}", "starts",
                  (json_int_t)r->starts, "quick_crashes", r->quick, "settled", r->settled, "ended",
                  ended, "muted", r->muted, "greeted", r->greeted, "volume", r->volume, "boot",
                  r->boot, "phase", r->phase, "why", words(why != NULL ? why : ""));
    return state_write_json(r->dir, RECORD, 0600, v);
}

/* What the last run left: whether it crashed quickly, and how it can be said. */
static void take_record(struct service_record *r, json_t *v)
{
    const char *boot = json_string_value(json_object_get(v, "boot"));
    const char *phase = json_string_value(json_object_get(v, "phase"));
    const char *why = json_string_value(json_object_get(v, "why"));
    json_int_t starts = json_integer_value(json_object_get(v, "starts"));
    json_int_t quick = json_integer_value(json_object_get(v, "quick_crashes"));
    json_t *volume = json_object_get(v, "volume");
    r->starts = starts > 0 ? (uint64_t)starts : 0;
    r->quick = quick > 0 && quick < 1000 ? (int)quick : 0;
    r->muted = json_is_true(json_object_get(v, "muted"));
    r->greeted = json_is_true(json_object_get(v, "greeted"));
    r->volume = json_is_integer(volume) && json_integer_value(volume) <= 100
                    ? (int)json_integer_value(volume)
                    : -1;
    bool ended = json_is_true(json_object_get(v, "ended"));
    bool settled = json_is_true(json_object_get(v, "settled"));
    bool other_boot = boot == NULL || strcmp(boot, r->boot) != 0;
    if (ended)
        r->quick = 0;
    else if (!settled && !other_boot)
        r->quick++;
    if (why != NULL && why[0] != '\0')
        copy_text(r->why, sizeof(r->why), why);
    else if (!ended)
        snprintf(r->why, sizeof(r->why), "it crashed or was killed in phase '%.31s'",
                 phase != NULL ? phase : "?");
}

void service_begin(struct service_record *r, const char *dir, struct problems *why)
{
    int err;
    *r = (struct service_record){.volume = -1, .phase = "starting"};
    copy_text(r->dir, sizeof(r->dir), dir);
    this_boot(r->boot, sizeof(r->boot));
    json_t *v = state_read_json(dir, RECORD, &err);
    if (v != NULL)
        take_record(r, v);
    else if (err != -ENOENT) { /* whoever muted it must be able to rely on that */
        problem_add(why, err, "%s/%s: %s; it is begun anew, and muted", dir, RECORD,
                    strerror(-err));
        r->muted = true;
    }
    json_decref(v);
    r->starts++;
    err = write_record(r, false, NULL);
    if (err < 0)
        problem_add(why, err, "%s/%s: %s; crashes are not counted", dir, RECORD, strerror(-err));
}

int service_pause(const struct service_record *r)
{
    static const int pauses[SERVICE_CRASHES] = {0, 1, 5};
    return r->quick >= SERVICE_CRASHES ? -1 : pauses[r->quick];
}

int service_phase(struct service_record *r, const char *phase)
{
    copy_text(r->phase, sizeof(r->phase), phase);
    return write_record(r, false, NULL);
}

int service_settled(struct service_record *r)
{
    r->settled = true;
    r->quick = 0;
    return write_record(r, false, NULL);
}

int service_muted(struct service_record *r, bool muted)
{
    r->muted = muted;
    return write_record(r, false, NULL);
}

int service_greeted(struct service_record *r)
{
    r->greeted = true;
    return write_record(r, false, NULL);
}

int service_volume(struct service_record *r, int volume)
{
    r->volume = volume;
    return write_record(r, false, NULL);
}

int service_end(struct service_record *r, const char *why)
{
    return write_record(r, why == NULL, why);
}

int service_retry(struct service_record *r)
{
    r->quick = SERVICE_CRASHES - 2; /* the next start counts this run as well */
    return write_record(r, false, r->why);
}

void service_lock_memory(struct problems *why)
{
    struct rlimit limit;
    /* Below "unlimited" a lock would make later allocations fail instead of being slow. */
    if (getrlimit(RLIMIT_MEMLOCK, &limit) < 0 || limit.rlim_cur != RLIM_INFINITY)
        problem_add(why, 0, "memory is not locked: the limit (LimitMEMLOCK) is not infinity");
    else if (mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) < 0)
        problem_add(why, -errno, "memory is not locked: %s", strerror(errno));
}
