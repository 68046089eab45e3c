/* daemon/recording.c - a WAV file and the scenario that plays it in a dead room. */
#include "daemon/recording.h"

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "audio/ear.h"
#include "base/util.h"
#include "daemon/acoustics.h"
#include "daemon/sound_file.h"
#include "daemon/state_file.h"

struct recording {
    const struct conf *conf;
    char path[PATH_MAX];
    struct sound_writer *sound;
    float *pcm; /* [most]: kept for the level, which the scenario names */
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

int recording_open(struct recording **ret, const struct conf *conf, int seconds, time_t now,
                   struct problems *why)
{
    char file[PATH_MAX + 16];
    struct recording *r = calloc(1, sizeof(*r));
    if (r == NULL)
        return -ENOMEM;
    r->conf = conf;
    r->most = (size_t)seconds * EAR_RATE;
    r->pcm = malloc(r->most * sizeof(float));
    int err = r->pcm == NULL ? -ENOMEM : make_folders(r, now, why);
    snprintf(file, sizeof(file), "%s/heard.wav", r->path);
    if (err == 0)
        err = sound_writer_open(&r->sound, file, EAR_RATE, 1, why);
    if (err < 0) {
        free(r->pcm);
        free(r);
        return err;
    }
    *ret = r;
    return 0;
}

int recording_add(struct recording *r, const float *pcm, size_t n, struct problems *why)
{
    n = min_size(n, r->most - r->n);
    memcpy(r->pcm + r->n, pcm, n * sizeof(float));
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

/* The room is in the recording already: nothing is added to it, and its level stays. */
static json_t *scenario(const struct recording *r)
{
    double level_db = r->n > 0 ? fmax(-90, fmin(0, active_level(r->pcm, r->n, EAR_RATE))) : -90;
    return json_pack("{s:s, s:i, s:b, s:o, s:{s:f}, s:[{s:i, s:s, s:i}]}", "about",
                     "A recording of a running parleyd.", "length_ms",
                     (int)(r->n * 1000 / EAR_RATE) + 5000, "tell_cut", r->conf->tell_cut, "turn",
                     turn_options(r->conf), "room", "voice_db", level_db, "sounds", "at_ms", 0,
                     "file", "heard.wav", "rt60_ms", 0);
}

int recording_close(struct recording *r, struct problems *why)
{
    if (r == NULL)
        return 0;
    int err = sound_writer_close(r->sound, why);
    int written = state_write_json(r->path, "scenario.json", 0600, scenario(r));
    if (written < 0)
        problem_add(why, written, "%s/scenario.json: %s", r->path, strerror(-written));
    free(r->pcm);
    free(r);
    return err < 0 ? err : written;
}
