/* daemon/recording.c - a WAV file and the scenario that plays it as it is. */
#include "daemon/recording.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "audio/ear.h"
#include "base/util.h"
#include "daemon/sound_file.h"
#include "daemon/state_file.h"

enum { AFTER_MS = 5000, NO_ECHO_DB = -120 }; /* AFTER: for the last answer */

struct recording {
    const struct conf *conf;
    const char *system;
    char path[PATH_MAX];
    struct sound_writer *sound;
    size_t n, most;
};

static int make_folders(struct recording *r, time_t now, struct problems *why)
{
    char name[32];
    struct tm t;
    gmtime_r(&now, &t);
    strftime(name, sizeof(name), "%Y%m%d-%H%M%S", &t);
    int n = snprintf(r->path, sizeof(r->path), "%s/recordings", r->conf->state);
    if (n < 0 || (size_t)n + sizeof(name) + 16 > sizeof(r->path))
        return problem_add(why, -ENAMETOOLONG, "%s: the path is too long", r->conf->state);
    if (mkdir(r->path, 0700) < 0 && errno != EEXIST)
        return problem_add(why, -errno, "%s: %s", r->path, strerror(errno));
    snprintf(r->path + n, sizeof(r->path) - (size_t)n, "/%s", name);
    if (mkdir(r->path, 0700) < 0)
        return problem_add(why, -errno, "%s: %s", r->path, strerror(errno));
    return 0;
}

/* The options of [turn] as a scenario names them. */
static json_t *turn_options(const struct conf *c)
{
    size_t n;
    const struct conf_key *k = conf_keys(&n);
    json_t *turn = json_object();
    for (size_t i = 0; i < n; i++) {
        const char *at = (const char *)c + k[i].at;
        if (strcmp(k[i].section, "turn") != 0 || strcmp(k[i].name, "tell_cut") == 0)
            continue;
        json_t *value = k[i].type == CONF_INT    ? json_integer(*(const int *)at)
                        : k[i].type == CONF_REAL ? json_real((double)*(const float *)at)
                                                 : json_boolean(*(const bool *)at);
        json_object_set_new(turn, k[i].name, value);
    }
    return turn;
}

/* The room is in the recording already and our own voice is not: nothing is added, nothing removed,
 * and its level stays. */
static json_t *scenario(const struct recording *r, size_t samples)
{
    const struct conf *c = r->conf;
    const char *speaker = c->speaker[0] != '\0' ? c->speaker : NULL;
    return json_pack("{s:s, s:i, s:s*, s:b, s:o, s:{s:b}, s:{s:i, s:i, s:b, s:s*}, s:{s:i, s:i}, "
                     "s:[{s:i, s:s, s:b, s:i}]}",
                     "about", "A recording of a running parleyd.", "length_ms",
                     (int)(samples * 1000 / EAR_RATE) + AFTER_MS, "system", r->system, "tell_cut",
                     c->tell_cut, "turn", turn_options(c), "ear", "no_cancel", true, "model",
                     "max_tokens", c->max_tokens, "context", c->context, "sampled", true, "speaker",
                     speaker, "room", "rt60_ms", 0, "echo_db", NO_ECHO_DB, "sounds", "at_ms", 0,
                     "file", "heard.wav", "as_it_is", true, "rt60_ms", 0);
}

static int write_scenario(const struct recording *r, size_t samples, struct problems *why)
{
    int err = state_write_json(r->path, "scenario.json", 0600, scenario(r, samples));
    if (err < 0)
        problem_add(why, err, "%s/scenario.json: %s", r->path, strerror(-err));
    return err;
}

int recording_open(struct recording **ret, const struct recording_opts *o, struct problems *why)
{
    char file[PATH_MAX + 16];
    struct recording *r = calloc(1, sizeof(*r));
    if (r == NULL)
        return -ENOMEM;
    r->conf = o->conf;
    r->system = o->system;
    r->most = (size_t)o->seconds * EAR_RATE;
    int err = make_folders(r, o->now, why);
    snprintf(file, sizeof(file), "%s/heard.wav", r->path);
    if (err == 0)
        err = sound_writer_open(&r->sound, file, EAR_RATE, 1, why);
    if (err == 0) /* now, and again once the length is known: the process may be killed */
        err = write_scenario(r, r->most, why);
    if (err < 0) {
        sound_writer_close(r->sound, NULL);
        free(r);
        return err;
    }
    *ret = r;
    return 0;
}

int recording_add(struct recording *r, const float *pcm, size_t n, struct problems *why)
{
    n = min_size(n, r->most - r->n);
    r->n += n;
    int err = sound_writer_add(r->sound, pcm, n, why);
    return err < 0 ? err : r->n == r->most;
}

double recording_left_s(const struct recording *r)
{
    return (double)(r->most - r->n) / EAR_RATE;
}

const char *recording_path(const struct recording *r)
{
    return r->path;
}

int recording_close(struct recording *r, struct problems *why)
{
    if (r == NULL)
        return 0;
    int err = sound_writer_close(r->sound, why);
    int written = write_scenario(r, r->n, why);
    free(r);
    return err < 0 ? err : written;
}
