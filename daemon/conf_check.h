/*
 * daemon/conf_check.h - checks of single values for the table in conf.c, each by the module that
 * will have to take the value.
 *
 * Each is a conf_check of conf.h: 0, or negative errno and perhaps a sentence. Threads: no state.
 */
#ifndef PARLEY_DAEMON_CONF_CHECK_H
#define PARLEY_DAEMON_CONF_CHECK_H

#include "daemon/conf.h"

int conf_check_device(const char *value, struct problems *why); /* of the model */
int conf_check_sound(const char *value, struct problems *why);  /* microphone, loudspeaker */
int conf_check_rate(const char *value, struct problems *why);
int conf_check_key(const char *value, struct problems *why); /* of a keyboard */
int conf_check_socket(const char *value, struct problems *why);

/* These look at the file. An empty value names none. */
int conf_look_model(const char *value, struct problems *why);
int conf_look_vad(const char *value, struct problems *why);
int conf_look_system(const char *value, struct problems *why);

/* What the model's config.json says of context and speaker. 0, or negative errno, a sentence, and
 * the name of the key in [model] or [speech] whose value it is. A model that cannot be read is the
 * business of who loads it. */
int conf_look_at_model(const struct conf *c, const char **key, struct problems *why);

#endif
