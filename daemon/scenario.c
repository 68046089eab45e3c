/*
 * daemon/scenario.c - scenarios read from JSON and checked.
 *
 * One function for each object of the file. All faults of a file are said, not only the first.
 */
#include "daemon/scenario.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/util.h"
#include "daemon/fields.h"

static const char *const noise_names[] = {"white", "pink", "hum"};
_Static_assert(ARRAY_LEN(noise_names) == NOISE_KINDS, "a noise has no name");

/* In the order of enum conversation_work, without WORK_NONE. */
static const char *const work_names[] = {"hear", "prompt", "word", "frame", "memory"};
_Static_assert(ARRAY_LEN(work_names) + 1 == WORK_KINDS, "a piece of work has no name");

/* A machine that is fast enough for parley-mini ten times over. */
static const double standard_cost[WORK_KINDS] = {
    [WORK_HEAR] = 5, [WORK_PROMPT] = 20, [WORK_WORD] = 5, [WORK_FRAME] = 10, [WORK_MEMORY] = 2};

/* Events that a scenario may bring; the others are for the daemon itself to find. */
static const enum turn_event_kind allowed[] = {TURN_WAKE,     TURN_STOP,         TURN_MUTE,
                                               TURN_UNMUTE,   TURN_RELEASE,      TURN_MIC_LOST,
                                               TURN_MIC_BACK, TURN_SPEAKER_LOST, TURN_SPEAKER_BACK,
                                               TURN_OVERFLOW};

/* `name` beside the scenario file; the caller frees. */
static char *beside(const char *scenario, const char *name)
{
    char *path = NULL;
    const char *slash = strrchr(scenario, '/');
    int folder = slash && name[0] != '/' ? (int)(slash - scenario) + 1 : 0;
    return asprintf(&path, "%.*s%s", folder, scenario, name) < 0 ? NULL : path;
}

/* The file that a field names, or NULL. */
static char *read_path(struct fields *f, const char *key, const char *scenario)
{
    const char *name = fields_text(f, key);
    char *path = name ? beside(scenario, name) : NULL;
    if (path != NULL && access(path, R_OK) == 0)
        return path;
    if (path != NULL)
        fields_wrong(f, key, "the name of a readable sound file beside the scenario");
    else if (name != NULL)
        f->err = problem_add(f->why, -ENOMEM, "%s: no memory to read it", f->file);
    free(path);
    return NULL;
}

static void read_when(struct fields *f, struct scenario_when *w)
{
    w->nth = 1;
    fields_need(f, "at_ms");
    w->after = fields_text(f, "after");
    fields_int(f, "at_ms", 0, SCENARIO_MS_MAX, &w->at_ms);
    fields_int(f, "nth", 1, 1000000, &w->nth);
}

static void read_room(struct scenario *s, const json_t *value, struct problems *why, int *err)
{
    struct fields f;
    struct scenario_room *r = &s->room;
    fields_begin(&f, s->path, "room", value, why);
    fields_int(&f, "rt60_ms", 0, 2000, &r->rt60_ms);
    fields_int(&f, "delay_ms", 0, 500, &r->delay_ms);
    fields_real(&f, "echo_db", -120, 40, &r->echo_db);
    fields_real(&f, "voice_db", -90, 0, &r->voice_db);
    fields_real(&f, "saturation", 0, 10, &r->saturation);
    fields_real(&f, "drift_ppm", -1000, 1000, &r->drift_ppm);
    fields_int(&f, "play_delay_ms", 10, 500, &r->play_delay_ms);
    fields_int(&f, "seed", 0, 1000000, &r->seed);
    r->impulse = read_path(&f, "impulse", s->path);
    if (fields_end(&f) < 0)
        *err = -EINVAL;
}

static void read_model(struct scenario *s, const json_t *value, struct problems *why, int *err)
{
    struct fields f;
    struct scenario_model *m = &s->model;
    fields_begin(&f, s->path, "model", value, why);
    fields_int(&f, "max_tokens", 1, 1 << 20, &m->max_tokens);
    fields_int(&f, "max_frames", 1, 100000, &m->max_frames);
    fields_int(&f, "context", 16, 1 << 20, &m->context);
    fields_int(&f, "seed", 0, 1000000, &m->seed);
    fields_bool(&f, "sampled", &m->sampled);
    m->speaker = fields_text(&f, "speaker");
    if (fields_end(&f) < 0)
        *err = -EINVAL;
}

static void read_ear(struct scenario *s, const json_t *value, struct problems *why, int *err)
{
    struct fields f;
    fields_begin(&f, s->path, "ear", value, why);
    fields_int(&f, "delay_ms", 0, 500, &s->ear.delay_ms);
    fields_bool(&f, "no_cancel", &s->ear.no_cancel);
    fields_bool(&f, "noise", &s->ear.noise);
    fields_bool(&f, "gain", &s->ear.gain);
    if (fields_end(&f) < 0)
        *err = -EINVAL;
}

/* The options of turn taking, by their own names; turn_init judges them together. */
static void read_turn(struct scenario *s, const json_t *value, struct problems *why, int *err)
{
    struct fields f;
    struct turn probe;
    fields_begin(&f, s->path, "turn", value, why);
    void *object = (void *)(uintptr_t)f.object; /* jansson's iterator is not const */
    for (void *i = json_object_iter(object); i != NULL; i = json_object_iter_next(object, i)) {
        const char *key = json_object_iter_key(i);
        const json_t *v = json_object_iter_value(i);
        double x = json_is_boolean(v) ? json_is_true(v) : json_number_value(v);
        int bad = json_is_boolean(v) || json_is_number(v) ? 0 : -EINVAL;
        if (bad == 0)
            bad = turn_option_set(&s->turn, key, x);
        if (bad < 0)
            fields_wrong(&f, key,
                         bad == -ENOENT ? "only options of daemon/turn.h"
                                        : "a number that the option can hold");
    }
    if (f.err == 0)
        f.err = turn_init(&probe, &s->turn, 0, why);
    if (f.err < 0)
        *err = f.err;
}

static int read_cost(double cost[WORK_KINDS], const char *file, const char *path,
                     const json_t *value, struct problems *why)
{
    struct fields f;
    fields_begin(&f, file, path, value, why);
    for (int k = 1; k < WORK_KINDS; k++)
        fields_real(&f, work_names[k - 1], 0, 60000, &cost[k]);
    return fields_end(&f);
}

static int read_sound(struct scenario *s, struct scenario_sound *sound, struct fields *f)
{
    *sound = (struct scenario_sound){.rt60_ms = s->room.rt60_ms};
    read_when(f, &sound->when);
    fields_need(f, "file");
    sound->file = read_path(f, "file", s->path);
    sound->name = json_string_value(json_object_get(f->object, "file"));
    fields_real(f, "level_db", -60, 60, &sound->level_db);
    fields_int(f, "rt60_ms", 0, 2000, &sound->rt60_ms);
    fields_int(f, "repeat_ms", 0, SCENARIO_MS_MAX, &sound->repeat_ms);
    fields_bool(f, "as_it_is", &sound->as_it_is);
    return fields_end(f);
}

static int read_noise(struct scenario *s, struct scenario_noise *noise, struct fields *f)
{
    *noise = (struct scenario_noise){.to_ms = s->length_ms};
    const char *kind = fields_text(f, "kind");
    fields_need(f, "kind");
    fields_need(f, "level_db");
    fields_real(f, "level_db", -120, 0, &noise->level_db);
    fields_int(f, "from_ms", 0, SCENARIO_MS_MAX, &noise->from_ms);
    fields_int(f, "to_ms", 0, SCENARIO_MS_MAX, &noise->to_ms);
    noise->kind = NOISE_KINDS;
    for (unsigned k = 0; kind != NULL && k < NOISE_KINDS; k++)
        if (strcmp(kind, noise_names[k]) == 0)
            noise->kind = (enum scenario_noise_kind)k;
    if (kind != NULL && noise->kind == NOISE_KINDS)
        fields_wrong(f, "kind", "\"white\", \"pink\" or \"hum\"");
    if (noise->to_ms < noise->from_ms)
        fields_wrong(f, "to_ms", "at least from_ms");
    return fields_end(f);
}

static bool find_event(struct scenario_event *e)
{
    static const struct {
        const char *name;
        enum scenario_fault fault;
    } own[] = {{"underrun", FAULT_UNDERRUN}, {"no_number", FAULT_NO_NUMBER}, {"cost", FAULT_COST}};
    for (size_t i = 0; i < ARRAY_LEN(own); i++)
        if (strcmp(e->name, own[i].name) == 0) {
            e->fault = own[i].fault;
            return true;
        }
    for (size_t i = 0; i < ARRAY_LEN(allowed); i++)
        if (strcmp(e->name, turn_event_name(allowed[i])) == 0) {
            e->fault = FAULT_TURN;
            e->turn = allowed[i];
            return true;
        }
    return false;
}

static void say_events(struct fields *f)
{
    char expected[256] = "\"underrun\", \"no_number\", \"cost\"";
    for (size_t i = 0, n = strlen(expected); i < ARRAY_LEN(allowed) && n < sizeof(expected); i++)
        n += (size_t)snprintf(expected + n, sizeof(expected) - n, ", \"%s\"",
                              turn_event_name(allowed[i]));
    fields_wrong(f, "event", expected);
}

static int read_event(struct scenario *s, struct scenario_event *e, struct fields *f)
{
    char path[96];
    *e = (struct scenario_event){.name = fields_text(f, "event")};
    read_when(f, &e->when);
    fields_need(f, "event");
    if (e->name != NULL && !find_event(e))
        say_events(f);
    bool lasts = e->fault == FAULT_UNDERRUN || e->fault == FAULT_NO_NUMBER ||
                 (e->fault == FAULT_TURN && e->turn == TURN_OVERFLOW);
    if (lasts) {
        fields_need(f, "for_ms");
        fields_int(f, "for_ms", 10, SCENARIO_MS_MAX, &e->for_ms);
    }
    for (int k = 0; k < WORK_KINDS; k++)
        e->cost[k] = -1;
    if (e->fault == FAULT_COST && fields_need(f, "cost")) {
        snprintf(path, sizeof(path), "%.80s.cost", f->path);
        if (read_cost(e->cost, s->path, path, fields_any(f, "cost"), f->why) < 0)
            f->err = -EINVAL;
    }
    return fields_end(f);
}

typedef int read_element(struct scenario *s, void *element, struct fields *f);

/* A list of objects; every element of `size` bytes is made by `read`. */
static size_t read_list(struct scenario *s, struct fields *root, const char *key, void *list,
                        size_t size, read_element *read)
{
    const json_t *array = fields_array(root, key);
    size_t n = json_array_size(array);
    char *elements = n > 0 ? calloc(n, size) : NULL;
    if (n > 0 && elements == NULL) {
        root->err = -ENOMEM;
        return 0;
    }
    *(void **)list = elements;
    for (size_t i = 0; i < n; i++) {
        struct fields f;
        char path[96];
        fields_path(root, key, i, path);
        fields_begin(&f, s->path, path, json_array_get(array, i), root->why);
        if (read(s, elements + i * size, &f) < 0)
            root->err = -EINVAL;
    }
    return n;
}

static int element_sound(struct scenario *s, void *element, struct fields *f)
{
    return read_sound(s, element, f);
}

static int element_noise(struct scenario *s, void *element, struct fields *f)
{
    return read_noise(s, element, f);
}

static int element_event(struct scenario *s, void *element, struct fields *f)
{
    return read_event(s, element, f);
}

static void read_wrap(struct scenario *s, const json_t *value, struct problems *why, int *err)
{
    struct fields f;
    fields_begin(&f, s->path, "wrap", value, why);
    fields_need(&f, "bits");
    fields_need(&f, "after_ms");
    fields_int(&f, "bits", 32, 64, &s->wrap_bits);
    fields_int(&f, "after_ms", 0, SCENARIO_MS_MAX, &s->wrap_after_ms);
    if (fields_end(&f) < 0)
        *err = -EINVAL;
}

/* The objects of the root. */
static void read_objects(struct scenario *s, struct fields *f)
{
    static const struct {
        const char *key;
        void (*read)(struct scenario *s, const json_t *value, struct problems *why, int *err);
    } objects[] = {{"room", read_room},
                   {"model", read_model},
                   {"ear", read_ear},
                   {"turn", read_turn},
                   {"wrap", read_wrap}};
    for (size_t i = 0; i < ARRAY_LEN(objects); i++) {
        const json_t *value = fields_any(f, objects[i].key);
        if (value != NULL)
            objects[i].read(s, value, f->why, &f->err);
    }
    const json_t *cost = fields_any(f, "cost");
    if (cost != NULL && read_cost(s->cost, s->path, "cost", cost, f->why) < 0)
        f->err = -EINVAL;
}

static int read_root(struct scenario *s, struct problems *why)
{
    struct fields f;
    fields_begin(&f, s->path, "", s->root, why);
    s->about = fields_text(&f, "about");
    s->system = fields_text(&f, "system");
    fields_need(&f, "about");
    fields_need(&f, "length_ms");
    fields_int(&f, "length_ms", 10, SCENARIO_MS_MAX, &s->length_ms);
    fields_bool(&f, "tell_cut", &s->tell_cut);
    read_objects(s, &f);
    s->n_sounds = read_list(s, &f, "sounds", &s->sounds, sizeof(s->sounds[0]), element_sound);
    s->n_noises = read_list(s, &f, "noises", &s->noises, sizeof(s->noises[0]), element_noise);
    s->n_events = read_list(s, &f, "events", &s->events, sizeof(s->events[0]), element_event);
    s->expect = fields_array(&f, "expect");
    s->never = fields_array(&f, "never");
    s->count = fields_array(&f, "count");
    return fields_end(&f);
}

int scenario_read(struct scenario *s, const char *path, struct problems *why)
{
    *s = (struct scenario){
        .room = {.rt60_ms = 250, .delay_ms = 5, .voice_db = -26, .play_delay_ms = 20}};
    memcpy(s->cost, standard_cost, sizeof(s->cost));
    s->path = strdup(path);
    int err = s->path ? fields_load(&s->root, path, why) : -ENOMEM;
    if (err == 0)
        err = read_root(s, why);
    if (err < 0)
        scenario_free(s);
    return err;
}

void scenario_free(struct scenario *s)
{
    for (size_t i = 0; i < s->n_sounds; i++)
        free(s->sounds[i].file);
    free(s->room.impulse);
    free(s->sounds);
    free(s->noises);
    free(s->events);
    free(s->path);
    json_decref(s->root);
    *s = (struct scenario){0};
}
