/*
 * daemon/conf.h - the configuration of parleyd: one table of keys that parses, checks, explains and
 * writes parley.conf.
 *
 *     [audio]
 *     volume = 80            ; 0 to 100
 *
 * The file is INI as inih reads it: sections, `key = value`, comments behind # or ; at the start of
 * a line and behind " ;". A line has at most 197 characters and never goes on in the next one. What
 * is not in the file has its default. Every fault is one sentence with file, line, key, what was
 * found and what is accepted; all faults of a file are told at once.
 *
 * A new key is one row in conf.c and one field here; what only another module knows of its value is
 * asked there (conf_check.c). etc/parley.conf is what conf_write writes
 * (`parleyd --defaults`); a test holds the two together.
 *
 * Threads: a configuration belongs to one thread.
 */
#ifndef PARLEY_DAEMON_CONF_H
#define PARLEY_DAEMON_CONF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "base/problem.h"
#include "daemon/turn.h"

enum { CONF_SYSTEM_MAX = 65536 }; /* bytes of system_file */

enum conf_history { CONF_HISTORY_MEMORY, CONF_HISTORY_FILE };
enum conf_log { CONF_LOG_ERROR, CONF_LOG_WARNING, CONF_LOG_INFO, CONF_LOG_DEBUG };

/* Texts are never NULL; empty = not set. */
struct conf {
    /* [model] */
    char *model, *device;
    int threads, context, max_tokens;
    bool paging;
    /* [audio] */
    char *capture, *playback;
    int rate;
    bool realtime, echo_cancel, noise, gain;
    int delay_ms, volume;
    char *vad;
    /* [speech] */
    char *speaker, *language, *system_file;
    /* [turn] */
    struct turn_opts turn;
    bool tell_cut;
    /* [history] */
    int history; /* enum conf_history */
    int history_turns;
    /* [recording] */
    bool recording;
    int recording_max_s;
    /* [buttons] */
    char *buttons, *mute_key, *stop_key, *talk_key;
    /* [control] */
    char *socket, *group;
    /* [service] */
    char *state;
    int stall_s;
    int log_level; /* enum conf_log */
};

/* What a value must be beyond its type and range, or what it names: 0, or negative errno and
 * perhaps a sentence, else the key's `accepts` tells. */
typedef int conf_check(const char *value, struct problems *why);

enum conf_type { CONF_TEXT, CONF_INT, CONF_REAL, CONF_BOOL, CONF_CHOICE };

struct conf_key {
    const char *section, *name;
    enum conf_type type;
    size_t at;            /* of the field in struct conf */
    const char *standard; /* the default, as the file would say it */
    double min, max;      /* CONF_INT, CONF_REAL */
    const char *choices;  /* CONF_CHOICE: "memory|file", stored as 0, 1, ... */
    bool reload;          /* can change while parleyd runs */
    conf_check *check;    /* of the value itself, or NULL */
    conf_check *look;     /* at the file that it names, or NULL; only by conf_load */
    const char *accepts;  /* in words, if type and range do not tell it all, or NULL */
    const char *help;     /* "what it is", for the file and the manual page */
};

const struct conf_key *conf_keys(size_t *n);

/* All defaults. 0 or -ENOMEM. */
int conf_init(struct conf *c);

/* The file at `path`; `c` is written in full. What a start would stumble over is told here, as far
 * as that can be known without loading the model or opening a device: files that are named must be
 * readable. 0, or negative errno and sentences: then nothing is
 * left to be freed. */
int conf_load(struct conf *c, const char *path, struct problems *why);

/* The same for `n` bytes of text; `name` is the file in the sentences. Files that values name are
 * not looked at. */
int conf_parse(struct conf *c, const char *text, size_t n, const char *name, struct problems *why);

/* The file with every key commented at its default, and its help. */
void conf_write(FILE *f);

/* What `k` accepts, as the sentences say it: "a whole number from 0 to 100". */
const char *conf_accepts(const struct conf_key *k, char *text, size_t size);

bool conf_equal(const struct conf_key *k, const struct conf *a, const struct conf *b);

/* Takes the values of all keys that can change while parleyd runs (none of them is a text). */
void conf_reload(struct conf *c, const struct conf *from);

void conf_free(struct conf *c); /* also of zeros */

#endif
