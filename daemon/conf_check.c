/* daemon/conf_check.c - who is asked what of a value. */
#include "daemon/conf_check.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "audio/audio.h"
#include "audio/ear.h"
#include "base/util.h"
#include "daemon/buttons.h"
#include "daemon/control_socket.h"
#include "engine/engine.h"
#include "kernels/ops.h"
#include "model/model.h"
#include "talker/talker.h"
#include "vad/vad.h"

#define CONFIG_MAX ((size_t)16 << 20) /* bytes of a config.json */

int conf_check_device(const char *value, struct problems *why)
{
    return device_check(value, why);
}

int conf_check_sound(const char *value, struct problems *why)
{
    return audio_check(value, why);
}

int conf_check_rate(const char *value, struct problems *why)
{
    (void)why;
    return ear_takes((int)strtol(value, NULL, 10)) ? 0 : -EINVAL;
}

int conf_check_key(const char *value, struct problems *why)
{
    (void)why;
    return buttons_key(value) ? 0 : -EINVAL;
}

int conf_check_socket(const char *value, struct problems *why)
{
    (void)why;
    return value[0] != '\0' && strlen(value) <= CONTROL_PATH_MAX ? 0 : -EINVAL;
}

int conf_look_model(const char *value, struct problems *why)
{
    char *config;
    int err = 0;
    if (asprintf(&config, "%s/config.json", value) < 0)
        return -ENOMEM;
    if (access(config, R_OK) < 0)
        err = problem_add(why, -errno, "%s: %s", config, strerror(errno));
    free(config);
    return err;
}

int conf_look_vad(const char *value, struct problems *why)
{
    struct vad *v = NULL;
    const struct vad_opts o = {.path = value};
    int err = value[0] != '\0' ? vad_open(&v, &o, why) : 0;
    vad_close(v);
    return err;
}

int conf_look_system(const char *value, struct problems *why)
{
    char *text = NULL;
    size_t n;
    int err = value[0] != '\0' ? read_file(&text, &n, value, CONF_SYSTEM_MAX) : 0;
    free(text);
    if (err == -EFBIG)
        return problem_add(why, err, "%s: found more than %d bytes", value, CONF_SYSTEM_MAX);
    return err < 0 ? problem_add(why, err, "%s: %s", value, strerror(-err)) : 0;
}

/* Its numbers, without any weights. */
static int read_model(struct model *m, const char *dir)
{
    char *path, *text;
    size_t n;
    if (asprintf(&path, "%s/config.json", dir) < 0)
        return -ENOMEM;
    int err = read_file(&text, &n, path, CONFIG_MAX);
    free(path);
    if (err < 0)
        return err;
    err = config_parse(&m->config, text, n, "config.json", NULL);
    m->speech = err == 0 && m->config.has_speech;
    free(text);
    return err;
}

int conf_look_at_model(const struct conf *c, const char **key, struct problems *why)
{
    struct model *m = calloc(1, sizeof(*m));
    int err = m != NULL ? read_model(m, c->model) : -ENOMEM;
    const struct engine_opts engine = {.model = m, .context = c->context};
    struct talker_opts talker = {.model = m, .positions = c->context};
    if (err < 0) {
        free(m);
        return err == -ENOMEM ? err : 0;
    }
    *key = "context";
    err = engine_check(&engine, why);
    if (err == 0 && m->speech)
        err = talker_check(&talker, why);
    if (err == 0 && m->speech && c->speaker[0] != '\0') {
        *key = "speaker";
        talker.speaker = c->speaker;
        err = talker_check(&talker, why);
    }
    free(m);
    return err;
}
