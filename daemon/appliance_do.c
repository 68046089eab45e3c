/*
 * daemon/appliance_do.c - what people can make parleyd do, and what it notices of the conversation.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/util.h"
#include "daemon/appliance.h"

/* Steps of loudness that sound alike: amplitude goes with the square. */
float appliance_gain(const struct appliance *a)
{
    float v = (float)a->volume / 100;
    return v * v;
}

static int need_ready(const struct appliance *a, struct problems *why)
{
    if (a->state == APPLIANCE_READY)
        return 0;
    if (a->state == APPLIANCE_SAFE)
        return problem_add(why, -EAGAIN, "safe mode after %d quick crashes: %s", a->record.quick,
                           a->record.why);
    return problem_add(why, -EAGAIN, "not ready: %s", appliance_state_name(a->state));
}

/* -- Commands --------------------------------------------------------------------------------- */

static void put(json_t *reply, const char *key, json_t *value)
{
    json_object_set_new(reply, key, value);
}

static json_t *text_or_null(const char *text)
{
    json_t *value = text != NULL ? json_string(text) : NULL;
    return value != NULL ? value : json_null();
}

static void put_live(struct appliance *a, json_t *reply)
{
    struct live_stats s;
    live_stats(a->live, &s);
    put(reply, "floor", json_string(turn_state_name(s.now.state)));
    put(reply, "capture", text_or_null(s.audio.capture));
    put(reply, "playback", text_or_null(s.audio.playback));
    put(reply, "microphone_lost", json_boolean(s.mic_lost));
    put(reply, "speaker_lost", json_boolean(s.speaker_lost));
    put(reply, "turns", json_integer(s.now.turns));
    put(reply, "replies", json_integer(s.now.replies));
    put(reply, "context_used", json_integer(s.now.context_used));
    put(reply, "context", json_integer(s.now.context));
}

static int status(struct appliance *a, json_t *reply)
{
    put(reply, "state", json_string(appliance_state_name(a->state)));
    put(reply, "model", text_or_null(a->conf.model));
    put(reply, "muted", json_boolean(a->muted));
    put(reply, "volume", json_integer(a->volume));
    put(reply, "uptime_s", json_integer((json_int_t)((appliance_now(a) - a->began_us) / 1000000)));
    put(reply, "starts", json_integer((json_int_t)a->record.starts));
    put(reply, "quick_crashes", json_integer(a->record.quick));
    if (a->record.why[0] != '\0')
        put(reply, "last_end", text_or_null(a->record.why));
    if (a->state == APPLIANCE_LOADING) {
        put(reply, "loaded_bytes", json_integer((json_int_t)atomic_load(&a->done)));
        put(reply, "total_bytes", json_integer((json_int_t)atomic_load(&a->total)));
    }
    if (a->buttons != NULL)
        put(reply, "buttons", json_boolean(buttons_present(a->buttons)));
    if (a->state == APPLIANCE_READY)
        put_live(a, reply);
    return 0;
}

static int event(struct appliance *a, enum turn_event_kind kind, struct problems *why)
{
    int err = need_ready(a, why);
    return err < 0 ? err : live_event(a->live, kind);
}

/* The microphone is closed for good, whatever becomes of this process. */
static int mute(struct appliance *a, bool muted, struct problems *why)
{
    int err = service_muted(&a->record, muted);
    if (a->live != NULL && a->muted != muted) {
        int told = live_event(a->live, muted ? TURN_MUTE : TURN_UNMUTE);
        if (told < 0)
            return told;
    }
    a->muted = muted;
    a->held_open = false;
    if (a->state == APPLIANCE_READY)
        service_status("ready%s", muted ? ", muted" : "");
    if (err < 0)
        return problem_add(why, err, "%s now, but a restart forgets it: %s: %s",
                           muted ? "muted" : "unmuted", a->conf.state, strerror(-err));
    return 0;
}

static int volume(struct appliance *a, int percent, struct problems *why)
{
    a->volume = percent;
    if (a->live != NULL)
        live_volume(a->live, appliance_gain(a));
    int err = service_volume(&a->record, percent);
    if (err < 0)
        return problem_add(why, err, "set now, but a restart forgets it: %s: %s", a->conf.state,
                           strerror(-err));
    return 0;
}

/* What `write` writes, as the reply's text. */
static int put_written(json_t *reply, int (*write)(FILE *f, void *ctx), void *ctx)
{
    char *text = NULL;
    size_t n = 0;
    FILE *f = open_memstream(&text, &n);
    if (f == NULL)
        return -ENOMEM;
    int err = write(f, ctx);
    if (fclose(f) != 0 && err == 0)
        err = -ENOMEM;
    if (err >= 0)
        put(reply, "text", text_or_null(text));
    free(text);
    return err < 0 ? err : 0;
}

static int write_devices(FILE *f, void *ctx)
{
    (void)ctx;
    return audio_list(f);
}

static void measure(struct appliance *a, struct metrics *m)
{
    struct live_stats s = {0};
    if (a->live != NULL)
        live_stats(a->live, &s);
    m->ready = a->state == APPLIANCE_READY;
    m->muted = a->muted;
    m->safe_mode = a->state == APPLIANCE_SAFE;
    m->uptime_s = (double)(appliance_now(a) - a->began_us) / 1e6;
    m->starts = (double)a->record.starts;
    m->memory_bytes = metrics_memory();
    m->descriptors = metrics_descriptors();
    m->turns = s.now.turns;
    m->replies = s.now.replies;
    m->interrupted = s.now.interrupted;
    m->resumed = s.now.resumed;
    m->overruns = (double)s.audio.overruns;
    m->underruns = (double)s.audio.underruns;
    m->mic_lost = (double)s.audio.mic_lost;
    m->speaker_lost = (double)s.audio.speaker_lost;
    m->log_lost = (double)s.lines_lost;
    m->erle_db = (double)s.erle;
    m->drift_ppm = s.audio.drift_ppm;
    m->delay_s = (double)s.audio.play_delay / a->conf.rate;
    m->rtf = (double)s.now.rate;
    m->context_used = s.now.context_used;
    m->context = s.now.context;
}

static int write_metrics(FILE *f, void *appliance)
{
    struct appliance *a = appliance;
    measure(a, &a->metrics);
    metrics_write(f, &a->metrics);
    return 0;
}

static int forget(struct appliance *a, struct problems *why)
{
    int err = history_forget(&a->history, a->conf.state);
    if (err < 0)
        return problem_add(why, err, "%s/%s: %s", a->conf.state, HISTORY_FILE, strerror(-err));
    return 0;
}

int appliance_control(void *ctx, const struct control_request *r, json_t *reply,
                      struct problems *why)
{
    struct appliance *a = ctx;
    switch (r->cmd) {
    case CONTROL_STATUS:
        return status(a, reply);
    case CONTROL_WATCH:
        return 0;
    case CONTROL_MUTE:
        return mute(a, true, why);
    case CONTROL_UNMUTE:
        return mute(a, false, why);
    case CONTROL_STOP:
        return event(a, TURN_STOP, why);
    case CONTROL_WAKE:
        return event(a, TURN_WAKE, why);
    case CONTROL_DEVICES:
        return put_written(reply, write_devices, a);
    case CONTROL_METRICS:
        return put_written(reply, write_metrics, a);
    case CONTROL_HISTORY:
        json_object_set(reply, "turns", a->history.turns);
        return 0;
    case CONTROL_FORGET:
        return forget(a, why);
    case CONTROL_VOLUME:
        return volume(a, r->number, why);
    case CONTROL_LOG_LEVEL:
        a->conf.log_level = r->number;
        return 0;
    default:
        return -ENOSYS;
    }
}

/* -- Buttons ---------------------------------------------------------------------------------- */

/* While muted the talk key opens the microphone as long as it is held: no record of that. */
static void talk(struct appliance *a, bool down)
{
    if (down && a->muted) {
        live_event(a->live, TURN_UNMUTE);
        a->held_open = true;
    }
    if (down)
        live_event(a->live, TURN_WAKE);
    else if (a->held_open) {
        live_event(a->live, TURN_MUTE);
        a->held_open = false;
    }
}

void appliance_button(void *ctx, enum button b, bool down)
{
    struct appliance *a = ctx;
    struct problems why = {0};
    if (b == BUTTON_MUTE && down)
        mute(a, !a->muted, &why);
    else if (b == BUTTON_STOP && down && a->state == APPLIANCE_READY)
        live_event(a->live, TURN_STOP);
    else if (b == BUTTON_TALK && a->state == APPLIANCE_READY)
        talk(a, down);
    appliance_log_all(a, CONF_LOG_WARNING, &why);
}

/* -- What happens ----------------------------------------------------------------------------- */

static bool has_action(const json_t *line, const char *name)
{
    size_t i;
    json_t *action;
    json_array_foreach(json_object_get(line, "actions"), i, action)
    {
        if (json_is_string(action) && strcmp(json_string_value(action), name) == 0)
            return true;
    }
    return false;
}

static int64_t whole(const json_t *line, const char *key)
{
    return json_integer_value(json_object_get(line, key));
}

/* Latencies: what happened between the last line and this one. */
static void take_latencies(struct appliance *a, const json_t *line, const char *event)
{
    struct live_stats s;
    uint64_t at = (uint64_t)whole(line, "at");
    live_stats(a->live, &s);
    if (strcmp(event, "speech_end") == 0)
        a->speech_end = at - (uint64_t)whole(line, "age");
    if (has_action(line, "commit") && a->speech_end > 0 && at >= a->speech_end)
        histogram_add(&a->metrics.endpoint, (double)(at - a->speech_end) / EAR_RATE);
    if (s.now.replies != a->seen.replies && s.now.answer_ms >= 0)
        histogram_add(&a->metrics.first_sound, s.now.answer_ms / 1e3);
    if (s.now.interrupted != a->seen.interrupted && s.now.stop_ms >= 0)
        histogram_add(&a->metrics.stop, s.now.stop_ms / 1e3);
    a->metrics.failed += strcmp(event, "failed") == 0;
    a->seen = s.now;
}

/* What was heard of a reply, and that somebody spoke. */
static void take_history(struct appliance *a, const json_t *line, const char *event)
{
    char text[64];
    int err = 0;
    const char *said = json_string_value(json_object_get(line, "text"));
    if (strcmp(event, "memory") == 0 && said != NULL && said[0] != '\0') {
        err = history_add(&a->history, time(NULL), "parley", said);
    } else if (has_action(line, "commit") && whole(line, "hear_to") > 0) {
        snprintf(text, sizeof(text), "(speech)");
        err = history_add(&a->history, time(NULL), "person", text);
    }
    if (err < 0)
        appliance_log(a, CONF_LOG_WARNING, "%s/%s: %s", a->conf.state, HISTORY_FILE,
                      strerror(-err));
}

/* For the journal: that something happened and to whom, never what was said. */
static void log_event(const struct appliance *a, const json_t *line, const char *event)
{
    const char *why = json_string_value(json_object_get(line, "why"));
    const char *state = json_string_value(json_object_get(line, "state"));
    bool bad = strcmp(event, "failed") == 0 || strstr(event, "_lost") != NULL;
    appliance_log(a, bad ? CONF_LOG_WARNING : CONF_LOG_DEBUG, "%s%s%s%s%s", event,
                  state != NULL ? ", " : "", state != NULL ? state : "", why != NULL ? ": " : "",
                  why != NULL ? why : "");
}

void appliance_event_line(struct appliance *a, const char *text, size_t n)
{
    json_t *line = json_loadb(text, n, 0, NULL);
    const char *event = json_string_value(json_object_get(line, "event"));
    if (event != NULL) {
        take_latencies(a, line, event);
        take_history(a, line, event);
        log_event(a, line, event);
    }
    json_decref(line);
    control_socket_publish(a->control, text, n);
}
