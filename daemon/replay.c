/*
 * daemon/replay.c - `parley replay`: a conversation from recordings in a simulated room, in virtual
 * time, with the same log and the same samples on every run.
 *
 *   each 10 ms:  work that is done by now | cues that are due | player -> room -> ear ->
 *                conversation_period | work that can begin
 *
 * One thread does it all. The model computes as fast as it can, but a piece of its work counts as
 * finished only after the time that the scenario says it takes, so neither the machine's speed nor
 * its load can be seen in the log.
 */
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>

#include "base/util.h"
#include "daemon/commands.h"
#include "daemon/conversation.h"
#include "daemon/expect.h"
#include "daemon/installed.h"
#include "daemon/picture.h"
#include "daemon/scenario.h"
#include "daemon/scene.h"
#include "daemon/sound_file.h"

enum { PERIOD_MS = 10, EXPECTED_NOT = 1 };

static const char help[] =
    "usage: parley replay SCENARIO.json --model DIR [options]\n"
    "\n"
    "Plays a conversation in a simulated room and compares what happened with what is expected:\n"
    "the scenario's own list, and SCENARIO.events.jsonl line by line. tests/replay/README.md\n"
    "describes the scenarios.\n"
    "\n"
    "  --model DIR      checkpoint directory\n"
    "  --out FILE       WAV, 48 kHz: left what the room sounds like without us, right what we say\n"
    "  --events FILE    the event log, one JSON object a line\n"
    "  --picture FILE   the conversation on a page, SVG\n"
    "  --speed S        max (default), real, or how many times faster than real time\n"
    "  --no-compare     nothing is expected, nothing of the log is kept: for days at a time\n"
    "  --update         write SCENARIO.events.jsonl instead of comparing with it\n"
    "  --vad FILE       weights of the speech detector (default: those that come with Parley)\n"
    "  --device D       auto, cpu, plain (default cpu)\n"
    "  --threads N      threads of the CPU device (default: one per processor)\n"
    "  --quiet          no summary\n"
    "\n"
    "Exit code 1: something else happened than was expected.\n";

struct options {
    const char *scenario, *out, *events, *picture, *vad;
    struct session_opts session;
    double speed; /* 0 = as fast as it goes */
    bool no_compare, update, quiet, help;
};

/* A sound or an event of the scenario, waiting for its moment. */
struct cue {
    const struct scenario_when *when;
    size_t index;
    bool sound;
    int left;   /* lines that have still to come */
    int due_ms; /* once none is left */
    bool done;
};

struct replay {
    const struct options *o;
    struct scenario s;
    struct session session;
    struct scene *scene;
    struct player *player;
    struct ear *ear;
    struct conversation *conversation;
    struct expect *expect;
    struct picture *picture;
    struct sound_writer *out;
    FILE *events;
    struct cue *cues;
    size_t n_cues;
    int now_ms; /* end of the period at hand */
    int err;    /* of the log's callback */

    double cost[WORK_KINDS];
    int pending;    /* kind of the work in progress */
    double done_ms; /* when it is finished */
};

/* -- The log ---------------------------------------------------------------------------------- */

static void count_down(struct replay *r)
{
    for (size_t i = 0; i < r->n_cues; i++) {
        struct cue *c = &r->cues[i];
        if (c->left == 0 || !expect_newest(r->expect, c->when->after))
            continue;
        if (--c->left == 0)
            c->due_ms = r->now_ms + c->when->at_ms;
    }
}

static void log_line(void *ctx, const char *line, size_t n)
{
    struct replay *r = ctx;
    if (r->err == 0)
        r->err = expect_line(r->expect, line, n);
    if (r->err == 0 && r->picture != NULL)
        r->err = picture_line(r->picture, line, n);
    if (r->events != NULL)
        fwrite(line, 1, n, r->events);
    if (r->err == 0)
        count_down(r);
}

static void log_cue(struct replay *r, const struct cue *c, int start_ms)
{
    struct event_line l;
    event_line_begin(&l, (uint64_t)start_ms * EAR_RATE / 1000, EAR_RATE,
                     c->sound ? "sound" : "cue");
    if (c->sound) {
        double from_ms, to_ms;
        scene_sound_span(r->scene, c->index, &from_ms, &to_ms);
        event_line_text(&l, "name", r->s.sounds[c->index].name);
        event_line_real(&l, "from_ms", start_ms + from_ms, 1);
        event_line_real(&l, "to_ms", start_ms + to_ms, 1);
    } else {
        event_line_text(&l, "name", r->s.events[c->index].name);
        if (r->s.events[c->index].for_ms > 0)
            event_line_int(&l, "for_ms", r->s.events[c->index].for_ms);
    }
    const char *text = event_line_end(&l);
    log_line(r, text, l.n);
}

/* -- Cues ------------------------------------------------------------------------------------- */

static int make_cues(struct replay *r)
{
    const struct scenario *s = &r->s;
    r->n_cues = s->n_sounds + s->n_events;
    r->cues = calloc(r->n_cues + 1, sizeof(*r->cues));
    if (r->cues == NULL)
        return -ENOMEM;
    for (size_t i = 0; i < r->n_cues; i++) {
        struct cue *c = &r->cues[i];
        c->sound = i >= s->n_events;
        c->index = c->sound ? i - s->n_events : i;
        c->when = c->sound ? &s->sounds[c->index].when : &s->events[c->index].when;
        c->left = c->when->after ? c->when->nth : 0;
        c->due_ms = c->when->at_ms;
    }
    return 0;
}

static void turn_event(struct replay *r, const struct scenario_event *e)
{
    switch (e->turn) {
    case TURN_MIC_LOST:
    case TURN_MIC_BACK:
        scene_mic_lost(r->scene, e->turn == TURN_MIC_LOST);
        break;
    case TURN_SPEAKER_LOST:
    case TURN_SPEAKER_BACK:
        scene_speaker_lost(r->scene, e->turn == TURN_SPEAKER_LOST);
        break;
    case TURN_OVERFLOW:
        scene_overflow(r->scene, e->for_ms);
        break;
    default:
        break;
    }
    conversation_event(r->conversation, e->turn);
}

static void fire(struct replay *r, struct cue *c, int start_ms)
{
    const struct scenario_event *e = c->sound ? NULL : &r->s.events[c->index];
    c->done = true;
    log_cue(r, c, start_ms);
    if (c->sound) {
        scene_sound(r->scene, c->index);
        return;
    }
    switch (e->fault) {
    case FAULT_TURN:
        turn_event(r, e);
        break;
    case FAULT_UNDERRUN:
        scene_underrun(r->scene, e->for_ms);
        break;
    case FAULT_NO_NUMBER:
        scene_no_number(r->scene, e->for_ms);
        break;
    case FAULT_COST:
        for (int k = 0; k < WORK_KINDS; k++)
            if (e->cost[k] >= 0)
                r->cost[k] = e->cost[k];
        break;
    }
}

static void fire_due(struct replay *r, int start_ms)
{
    for (size_t i = 0; i < r->n_cues; i++) {
        struct cue *c = &r->cues[i];
        if (!c->done && c->left == 0 && c->due_ms <= start_ms)
            fire(r, c, start_ms);
    }
}

/* What waited for something that did not happen. */
static bool all_fired(const struct replay *r)
{
    bool all = true;
    for (size_t i = 0; i < r->n_cues; i++) {
        const struct cue *c = &r->cues[i];
        if (c->done)
            continue;
        all = false;
        printf("%s: %s[%zu]: never came: %s\n", r->s.path, c->sound ? "sounds" : "events", c->index,
               c->left ? "what it comes after did not happen so often"
                       : "its time is after the end");
    }
    return all;
}

/* -- Model work in virtual time --------------------------------------------------------------- */

/* All that is finished by now; what follows begins when the piece before it ended. */
static int work(struct replay *r, struct problems *why)
{
    while (r->pending != WORK_NONE && r->done_ms <= r->now_ms) {
        double took_ms = r->cost[r->pending];
        int kind = conversation_work(r->conversation, why);
        if (kind < 0)
            return kind;
        conversation_cost(r->conversation, took_ms / 1000);
        r->pending = conversation_next(r->conversation);
        r->done_ms += r->cost[r->pending];
    }
    return 0;
}

static void begin_work(struct replay *r)
{
    if (r->pending != WORK_NONE)
        return;
    r->pending = conversation_next(r->conversation);
    r->done_ms = r->now_ms + r->cost[r->pending];
}

/* -- Running ---------------------------------------------------------------------------------- */

static int write_out(struct replay *r, const struct scene_period *p, struct problems *why)
{
    float both[2 * SCENE_PERIOD];
    for (int i = 0; i < SCENE_PERIOD; i++) {
        both[2 * i] = p->user[i];
        both[2 * i + 1] = p->speaker[i];
    }
    return sound_writer_add(r->out, both, ARRAY_LEN(both), why);
}

static int record(struct replay *r, const struct scene_period *p, struct problems *why)
{
    struct conversation_now now;
    int err = r->err;
    conversation_now(r->conversation, &now);
    if (err == 0 && r->out != NULL)
        err = write_out(r, p, why);
    if (err == 0 && r->picture != NULL)
        err = picture_period(r->picture, p->user, p->speaker, SCENE_PERIOD, now.state);
    return err;
}

static int period(struct replay *r, struct problems *why)
{
    struct scene_period p;
    struct ear_frame frame;
    float pcm[SCENE_PERIOD];
    fire_due(r, r->now_ms);
    r->now_ms += PERIOD_MS;
    while (scene_hungry(r->scene)) {
        player_pull(r->player, pcm, SCENE_PERIOD);
        scene_play(r->scene, pcm);
    }
    scene_period(r->scene, &p);
    ear_period(r->ear, p.mic, p.far, &frame);
    int err = work(r, why);
    if (err < 0)
        return err;
    int flags = conversation_period(r->conversation, &frame, scene_play_delay(r->scene));
    if (flags & (CONVERSATION_MIC_CLOSE | CONVERSATION_MIC_OPEN))
        scene_mic_closed(r->scene, (flags & CONVERSATION_MIC_CLOSE) != 0);
    begin_work(r);
    return record(r, &p, why);
}

/* For people who want to watch: not before its time. */
static void pace(const struct replay *r, double began)
{
    double ahead = r->now_ms / (1000 * r->o->speed) - (clock_seconds() - began);
    if (ahead <= 0)
        return;
    struct timespec t = {(time_t)ahead, (long)((ahead - (double)(time_t)ahead) * 1e9)};
    if (r->events != NULL)
        fflush(r->events);
    nanosleep(&t, NULL);
}

static void summary(const struct replay *r, double seconds)
{
    struct conversation_now now;
    struct scene_levels l;
    conversation_now(r->conversation, &now);
    scene_levels(r->scene, &l);
    printf(
        "%s: %.1f s in %.2f s (%.1f times real time); at the microphone room %.1f, echo %.1f dBFS; "
        "%u turns, %u replies, %u interrupted, %u resumed\n",
        r->s.path, r->s.length_ms / 1e3, seconds, r->s.length_ms / 1e3 / seconds, l.voice, l.echo,
        now.turns, now.replies, now.interrupted, now.resumed);
}

static int run(struct replay *r, struct problems *why)
{
    double began = clock_seconds();
    int err = 0;
    while (err == 0 && r->now_ms < r->s.length_ms) {
        err = period(r, why);
        if (r->o->speed > 0)
            pace(r, began);
    }
    if (err == 0 && !r->o->quiet)
        summary(r, clock_seconds() - began);
    return err;
}

/* -- Afterwards ------------------------------------------------------------------------------- */

/* "tests/replay/cough.events.jsonl"; the caller frees. */
static char *log_path(const char *scenario)
{
    size_t n = strlen(scenario);
    char *path = NULL;
    if (n > 5 && strcmp(scenario + n - 5, ".json") == 0)
        n -= 5;
    return asprintf(&path, "%.*s.events.jsonl", (int)n, scenario) < 0 ? NULL : path;
}

/* What the log may depend on besides the scenario: "x86_64 cpu avx512bf16". */
static void machine_kind(const struct replay *r, char *text, size_t size)
{
    struct utsname u = {0};
    const char *name = r->session.dev->name;
    uname(&u);
    snprintf(text, size, "%s %.*s", u.machine, (int)strcspn(name, ","), name);
}

/* 0, EXPECTED_NOT or negative errno. */
static int judge(struct replay *r, struct problems *why)
{
    char kind[128], *path = log_path(r->s.path);
    if (path == NULL)
        return -ENOMEM;
    machine_kind(r, kind, sizeof(kind));
    bool good = all_fired(r);
    good = expect_fulfilled(r->expect, stdout) && good;
    int err = 0;
    if (r->o->update)
        err = expect_update(r->expect, path, kind, why);
    else
        good = expect_compare(r->expect, path, kind, stdout, why) && good;
    free(path);
    return err < 0 ? err : good ? 0 : EXPECTED_NOT;
}

static int finish(struct replay *r, struct problems *why)
{
    int err = sound_writer_close(r->out, why);
    r->out = NULL;
    if (err == 0 && r->picture != NULL)
        err = picture_write(r->picture, r->o->picture, why);
    bool short_of = r->events != NULL && ferror(r->events) != 0; /* some line is missing */
    if (r->events != NULL && (fclose(r->events) != 0 || short_of))
        err = problem_add(why, -EIO, "%s: cannot be completed", r->o->events);
    r->events = NULL;
    if (err == 0 && r->o->no_compare)
        return all_fired(r) ? 0 : EXPECTED_NOT;
    return err < 0 ? err : judge(r, why);
}

/* -- Opening ---------------------------------------------------------------------------------- */

static int open_conversation(struct replay *r, struct problems *why)
{
    char vad[PATH_MAX];
    const struct scenario *s = &r->s;
    int err = r->o->vad ? 0 : installed_path(vad, sizeof(vad), INSTALLED_VAD, why);
    if (err < 0)
        return err;
    uint64_t before = (uint64_t)s->wrap_after_ms * EAR_RATE / 1000;
    uint64_t wrap = s->wrap_bits > 0 && s->wrap_bits < 64 ? (uint64_t)1 << s->wrap_bits : 0;
    const struct conversation_opts o = {.session = &r->session,
                                        .player = r->player,
                                        .rate = SCENE_RATE,
                                        .vad = r->o->vad ? r->o->vad : vad,
                                        .system = s->system,
                                        .turn = &s->turn,
                                        .tell_cut = s->tell_cut,
                                        .texts = true,
                                        .max_tokens = s->model.max_tokens,
                                        .start = wrap - before,
                                        .log = log_line,
                                        .ctx = r};
    return conversation_open(&r->conversation, &o, why);
}

static int open_session(struct replay *r, struct problems *why)
{
    struct session_opts o = r->o->session;
    const struct scenario_model *m = &r->s.model;
    o.context = m->context;
    o.max_frames = m->max_frames;
    o.seed = (uint64_t)m->seed;
    o.speaker = m->speaker;
    o.greedy = !m->sampled;
    o.temperature = -1;
    return session_open(&r->session, &o, why);
}

static int open_files(struct replay *r, struct problems *why)
{
    const struct options *o = r->o;
    int err = 0;
    if (o->picture != NULL)
        err = picture_open(&r->picture, r->s.about ? r->s.about : r->s.path);
    if (err == 0 && o->out != NULL)
        err = sound_writer_open(&r->out, o->out, SCENE_RATE, 2, why);
    if (err == 0 && o->events != NULL && (r->events = fopen(o->events, "w")) == NULL)
        err = problem_add(why, -EIO, "%s: cannot be written: %s", o->events, strerror(errno));
    return err;
}

static int open_all(struct replay *r, struct problems *why)
{
    struct ear_opts ear = r->s.ear;
    const struct player_opts player = {.rate = SCENE_RATE};
    ear.rate = SCENE_RATE;
    memcpy(r->cost, r->s.cost, sizeof(r->cost));
    int err = expect_open(&r->expect, &r->s, why);
    if (err == 0 && r->o->no_compare)
        expect_nothing(r->expect);
    if (err == 0)
        err = make_cues(r);
    if (err == 0)
        err = scene_open(&r->scene, &r->s, why);
    if (err == 0)
        err = player_open(&r->player, &player, why);
    if (err == 0)
        err = ear_open(&r->ear, &ear, why);
    if (err == 0)
        err = open_session(r, why);
    if (err == 0)
        err = open_conversation(r, why);
    return err < 0 ? err : open_files(r, why);
}

static void close_all(struct replay *r)
{
    if (r->events != NULL)
        fclose(r->events);
    sound_writer_close(r->out, NULL);
    picture_close(r->picture);
    conversation_close(r->conversation);
    session_close(&r->session);
    ear_close(r->ear);
    player_close(r->player);
    scene_close(r->scene);
    expect_close(r->expect);
    free(r->cues);
    scenario_free(&r->s);
}

static int replay(const struct options *o, struct problems *why)
{
    struct replay r = {.o = o};
    int err = scenario_read(&r.s, o->scenario, why);
    if (err < 0)
        return err;
    err = open_all(&r, why);
    if (err == 0)
        err = run(&r, why);
    if (err == 0)
        err = finish(&r, why);
    close_all(&r);
    return err;
}

/* -- Command line ----------------------------------------------------------------------------- */

enum option_id {
    OPT_MODEL = 256,
    OPT_OUT,
    OPT_EVENTS,
    OPT_PICTURE,
    OPT_SPEED,
    OPT_NO_COMPARE,
    OPT_UPDATE,
    OPT_VAD,
    OPT_DEVICE,
    OPT_THREADS,
    OPT_QUIET,
    OPT_HELP
};

static const struct option option_table[] = {
    {"model", required_argument, NULL, OPT_MODEL},
    {"out", required_argument, NULL, OPT_OUT},
    {"events", required_argument, NULL, OPT_EVENTS},
    {"picture", required_argument, NULL, OPT_PICTURE},
    {"speed", required_argument, NULL, OPT_SPEED},
    {"no-compare", no_argument, NULL, OPT_NO_COMPARE},
    {"update", no_argument, NULL, OPT_UPDATE},
    {"vad", required_argument, NULL, OPT_VAD},
    {"device", required_argument, NULL, OPT_DEVICE},
    {"threads", required_argument, NULL, OPT_THREADS},
    {"quiet", no_argument, NULL, OPT_QUIET},
    {"help", no_argument, NULL, OPT_HELP},
    {0},
};

static bool take_number(struct options *o, int id, const char *text)
{
    long n = 0;
    if (id == OPT_THREADS) {
        bool good = option_long("--threads", text, 1, 1024, &n);
        o->session.threads = (int)n;
        return good;
    }
    o->speed = 0;
    if (strcmp(text, "max") == 0)
        return true;
    if (strcmp(text, "real") != 0)
        return option_double("--speed (max, real or a number)", text, 0.01, 1000, &o->speed);
    o->speed = 1;
    return true;
}

static bool take(struct options *o, int id, const char *value)
{
    switch (id) {
    case OPT_MODEL:
        o->session.dir = value;
        return true;
    case OPT_OUT:
        o->out = value;
        return true;
    case OPT_EVENTS:
        o->events = value;
        return true;
    case OPT_PICTURE:
        o->picture = value;
        return true;
    case OPT_NO_COMPARE:
        return o->no_compare = true;
    case OPT_UPDATE:
        return o->update = true;
    case OPT_VAD:
        o->vad = value;
        return true;
    case OPT_DEVICE:
        o->session.device = value;
        return true;
    case OPT_QUIET:
        return o->quiet = true;
    case OPT_HELP:
        return o->help = true;
    case OPT_SPEED:
    case OPT_THREADS:
        return take_number(o, id, value);
    default:
        return false;
    }
}

static bool parse(struct options *o, int argc, char **argv)
{
    int id;
    *o = (struct options){.session.device = "cpu"};
    while ((id = getopt_long(argc, argv, "", option_table, NULL)) != -1)
        if (!take(o, id, optarg))
            return false;
    if (o->help)
        return true;
    if (optind + 1 != argc || o->session.dir == NULL) {
        fprintf(stderr, "parley: replay: expected one SCENARIO.json and --model DIR\n");
        return false;
    }
    o->scenario = argv[optind];
    return true;
}

int cmd_replay(int argc, char **argv)
{
    struct options o;
    struct problems why = {0};
    if (!parse(&o, argc, argv))
        return EXIT_BAD_INPUT;
    if (o.help) {
        fputs(help, stdout);
        return 0;
    }
    int err = replay(&o, &why);
    if (err < 0 || (err == EXPECTED_NOT && why.n > 0))
        return report_problems(&why, err < 0 ? err : -EIO);
    return err == EXPECTED_NOT ? EXIT_FAILED : 0;
}
