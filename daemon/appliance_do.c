/*
 * daemon/appliance_do.c - what people can make parleyd do, and what it notices of the conversation.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/util.h"
#include "daemon/appliance.h"

enum {
    ANNOUNCE_VOLUME = 20, /* per cent; at less an earcon may be lost in a room */
    REPLY_MORE = 1024     /* bytes of a reply around what it brings */
};

/* Steps of loudness that sound alike: amplitude goes with the square. */
float appliance_gain(const struct appliance *a)
{
    float v = (float)a->volume / 100;
    return v * v;
}

/* Not while the talk key holds the microphone open. */
static bool muted(const struct appliance *a)
{
    return a->muted && !a->held_open;
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
    put(reply, "muted", json_boolean(muted(a)));
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
    put(reply, "recording_s",
        a->recording != NULL ? json_real(recording_left_s(a->recording)) : json_integer(0));
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

/* The microphone is closed for good, whatever becomes of this process; also when it is closed
 * already and only an answer is still spoken: who mutes wants peace. */
static int mute(struct appliance *a, bool on, struct problems *why)
{
    int err = service_muted(&a->record, on);
    int told = a->live != NULL ? live_event(a->live, on ? TURN_MUTE : TURN_UNMUTE) : 0;
    if (told < 0)
        return told;
    a->muted = on;
    a->held_open = false;
    if (a->state == APPLIANCE_READY)
        service_status("ready%s", on ? ", muted" : "");
    if (err < 0)
        return problem_add(why, err, "%s now, but a restart forgets it: %s: %s",
                           on ? "muted" : "unmuted", a->conf.state, strerror(-err));
    return 0;
}

static int volume(struct appliance *a, int percent, struct problems *why)
{
    a->volume = percent;
    if (a->live != NULL)
        live_volume(a->live, appliance_gain(a));
    appliance_take_recording(a);
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
    m->muted = muted(a);
    m->safe_mode = a->state == APPLIANCE_SAFE;
    m->uptime_s = (double)(appliance_now(a) - a->began_us) / 1e6;
    m->starts = (double)a->record.starts;
    m->memory_bytes = metrics_memory();
    m->descriptors = metrics_descriptors();
    m->turns = s.now.turns;
    m->replies = s.now.replies;
    m->interrupted = s.now.interrupted;
    m->resumed = s.now.resumed;
    m->failed = s.now.failed;
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

/* A reply that is cut by this still says what was heard of it, before the conversation has
 * forgotten. Should that line be lost: by then a piece of work is done, or the watchdog ends us. */
static int forget(struct appliance *a, struct problems *why)
{
    int told = a->live != NULL ? live_forget(a->live) : 0; /* whatever becomes of the file */
    if (a->live != NULL && told == 0)
        a->forget_by_us = appliance_now(a) + 2 * (uint64_t)a->conf.stall_s * 1000000;
    int err = history_forget(&a->history, a->conf.state);
    if (err < 0)
        return problem_add(why, err, "%s/%s: %s", a->conf.state, HISTORY_FILE, strerror(-err));
    return told;
}

static void note(struct appliance *a, const char *who, const char *text)
{
    int err = history_add(&a->history, time(NULL), who, text);
    if (err < 0)
        appliance_log(a, CONF_LOG_WARNING, "%s/%s: %s", a->conf.state, HISTORY_FILE,
                      strerror(-err));
}

/* Typed words go into the history as they are: nobody hears them otherwise. */
static int ask(struct appliance *a, const char *text, struct problems *why)
{
    int err = need_ready(a, why);
    if (err == 0 && a->muted) /* who mutes wants peace */
        return problem_add(why, -EAGAIN, "muted");
    if (err == 0 && (err = live_ask(a->live, text)) == 0)
        note(a, "person", text);
    return err;
}

static int say(struct appliance *a, const char *text, struct problems *why)
{
    int err = need_ready(a, why);
    if (err == 0 && a->muted)
        return problem_add(why, -EAGAIN, "muted");
    return err < 0 ? err : live_say(a->live, text);
}

/* Whoever is in the room hears that a recording begins and ends; as long as one is made, this has
 * to stay so. */
static int may_record(struct appliance *a, struct problems *why)
{
    struct live_stats s;
    live_stats(a->live, &s);
    if (!a->conf.recording)
        return problem_add(why, -EPERM, "record: parley.conf has no allow = yes in [recording]");
    if (a->volume < ANNOUNCE_VOLUME)
        return problem_add(why, -EPERM,
                           "record: the volume is %d; below %d nobody may hear it announced",
                           a->volume, ANNOUNCE_VOLUME);
    if (s.speaker_lost)
        return problem_add(why, -EPERM,
                           "record: the loudspeaker is lost; nobody hears it announced");
    return 0;
}

static int record(struct appliance *a, int seconds, json_t *reply, struct problems *why)
{
    int err = need_ready(a, why);
    if (err < 0)
        return err;
    if (seconds == 0)
        return appliance_end_recording(a, why);
    if ((err = may_record(a, why)) < 0)
        return err;
    if (seconds > a->conf.recording_max_s)
        return problem_add(why, -EINVAL, "record: found %d s, [recording] max_s allows %d", seconds,
                           a->conf.recording_max_s);
    if (a->recording != NULL)
        return problem_add(why, -EBUSY, "record: one is being made already");
    err = live_earcon(a->live, TURN_EARCON_RECORD); /* first: nothing is recorded unannounced */
    if (err < 0)
        return problem_add(why, err, "record: it cannot be announced now: %s", strerror(-err));
    const struct recording_opts o = {.conf = &a->conf,
                                     .system = a->system,
                                     .seconds = seconds,
                                     .now = time(NULL)};
    err = recording_open(&a->recording, &o, why);
    if (err < 0)
        return err;
    put(reply, "path", text_or_null(recording_path(a->recording)));
    appliance_log(a, CONF_LOG_WARNING, "recording for %d s: %s", seconds,
                  recording_path(a->recording));
    live_tap(a->live, true);
    return 0;
}

/* As much as the connection can hold. */
static int history(const struct appliance *a, json_t *reply)
{
    size_t left_out;
    json_t *turns = history_newest(&a->history, CONTROL_QUEUE_MAX - REPLY_MORE, &left_out);
    if (turns == NULL)
        return -ENOMEM;
    put(reply, "turns", turns);
    if (left_out > 0)
        put(reply, "left_out", json_integer((json_int_t)left_out));
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
    case CONTROL_SAY:
        return say(a, r->text, why);
    case CONTROL_ASK:
        return ask(a, r->text, why);
    case CONTROL_DEVICES:
        return put_written(reply, write_devices, a);
    case CONTROL_METRICS:
        return put_written(reply, write_metrics, a);
    case CONTROL_HISTORY:
        return history(a, reply);
    case CONTROL_FORGET:
        return forget(a, why);
    case CONTROL_VOLUME:
        return volume(a, r->number, why);
    case CONTROL_LOG_LEVEL:
        a->conf.log_level = r->number;
        return 0;
    case CONTROL_RECORD:
        return record(a, r->number, reply, why);
    default:
        return -ENOSYS;
    }
}

int appliance_end_recording(struct appliance *a, struct problems *why)
{
    if (a->recording == NULL)
        return 0;
    live_tap(a->live, false);
    live_earcon(a->live, TURN_EARCON_RECORD);
    appliance_log(a, CONF_LOG_INFO, "the recording has ended: %s", recording_path(a->recording));
    int err = recording_close(a->recording, why);
    a->recording = NULL;
    return err;
}

void appliance_take_recording(struct appliance *a)
{
    float pcm[4096];
    size_t n;
    struct problems why = {0};
    int done = a->recording != NULL ? may_record(a, &why) : 0;
    while (done == 0 && a->recording != NULL && (n = live_tapped(a->live, pcm, ARRAY_LEN(pcm))) > 0)
        done = recording_add(a->recording, pcm, n, &why);
    if (done != 0)
        appliance_end_recording(a, &why);
    appliance_log_all(a, CONF_LOG_WARNING, &why);
}

/* -- Buttons ---------------------------------------------------------------------------------- */

/* While muted the talk key opens the microphone as long as it is held: no record of that. */
static void talk(struct appliance *a, bool down)
{
    if (down && a->muted)
        a->held_open = live_event(a->live, TURN_UNMUTE) == 0;
    if (down)
        live_event(a->live, TURN_WAKE);
    else if (a->held_open)
        a->held_open = live_event(a->live, TURN_RELEASE) < 0;
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

/* Whoever has just set it up learns that it works without a network: once, and not by looking for
 * one, since the service manager lets us see none. */
void appliance_greet(struct appliance *a)
{
    bool first = !a->record.greeted;
    if (a->muted || live_earcon(a->live, first ? TURN_EARCON_OFFLINE : TURN_EARCON_READY) < 0)
        return;
    int err = first ? service_greeted(&a->record) : 0;
    if (err < 0)
        appliance_log(a, CONF_LOG_WARNING, "the next start greets as the first one does: %s: %s",
                      a->conf.state, strerror(-err));
}

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
    if (strcmp(event, "speech_onset") == 0 || strcmp(event, "asked") == 0)
        a->speech_end = 0;
    if (strcmp(event, "speech_end") == 0)
        a->speech_end = at - (uint64_t)whole(line, "age");
    if (has_action(line, "commit") && a->speech_end > 0 && at >= a->speech_end) {
        histogram_add(&a->metrics.endpoint, (double)(at - a->speech_end) / EAR_RATE);
        a->speech_end = 0;
    }
    if (s.now.replies != a->seen.replies && s.now.answer_ms >= 0)
        histogram_add(&a->metrics.first_sound, s.now.answer_ms / 1e3);
    if (s.now.interrupted != a->seen.interrupted && s.now.stop_ms >= 0)
        histogram_add(&a->metrics.stop, s.now.stop_ms / 1e3);
    a->seen = s.now;
}

/* What was heard of a reply; that somebody spoke. Typed words were noted when they came. */
static void take_history(struct appliance *a, const json_t *line, const char *event)
{
    const char *said = json_string_value(json_object_get(line, "text"));
    bool forgetting = appliance_now(a) < a->forget_by_us;
    if (strcmp(event, "forgot") == 0 && json_is_true(json_object_get(line, "asked")))
        a->forget_by_us = 0;
    if (strcmp(event, "asked") == 0)
        a->typed = true;
    if (strcmp(event, "memory") == 0 && said != NULL && said[0] != '\0' && !forgetting)
        note(a, "parley", said);
    if (!has_action(line, "commit"))
        return;
    if (!a->typed && !forgetting)
        note(a, "person", "(speech)");
    a->typed = false;
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
