/*
 * daemon/conf.c - the table of keys, and what is done with it: parse, check, write, reload.
 *
 * inih splits lines into section, key and value; it knows nothing of line numbers or of what is
 * wrong with a line. Both are added where it asks for the next line: malformed ones are refused
 * there and never reach it. Indented lines are moved to the left, which turns off its way of
 * continuing values.
 */
#include "daemon/conf.h"

#include <ctype.h>
#include <errno.h>
#include <ini.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "daemon/conf_check.h"

enum { FILE_MAX_BYTES = 1 << 20 };

#define ROW(sec, key, kind, field, std, lo, hi, names, live, text)                                 \
    {                                                                                              \
        .section = sec, .name = key, .type = kind, .at = offsetof(struct conf, field),             \
        .standard = std, .min = lo, .max = hi, .choices = names, .reload = live, .help = text      \
    }
#define TEXT(sec, key, field, std, live, text)                                                     \
    ROW(sec, key, CONF_TEXT, field, std, 0, 0, NULL, live, text)
#define INT(sec, key, field, std, lo, hi, live, text)                                              \
    ROW(sec, key, CONF_INT, field, std, lo, hi, NULL, live, text)
/* With what `accepts` says in words: a check of the value, a look at the file it names. */
#define NAMED(sec, key, field, std, checked, looked, words, text)                                  \
    {                                                                                              \
        .section = sec, .name = key, .type = CONF_TEXT, .at = offsetof(struct conf, field),        \
        .standard = std, .check = checked, .look = looked, .accepts = words, .help = text          \
    }
#define BOOL(sec, key, field, std, live, text)                                                     \
    ROW(sec, key, CONF_BOOL, field, std, 0, 0, NULL, live, text)
#define CHOICE(sec, key, field, std, names, live, text)                                            \
    ROW(sec, key, CONF_CHOICE, field, std, 0, 0, names, live, text)
#define TURN_MS(key, std, text)                                                                    \
    ROW("turn", #key, CONF_INT, turn.key, std, 1, 3600000, NULL, false, text)
#define TURN_SHARE(key, std, text)                                                                 \
    ROW("turn", #key, CONF_REAL, turn.key, std, 0.001, 1, NULL, false, text)

#define SOUND  "alsa:NAME, portaudio:NAME, wav:PATH or null:"
#define BUTTON "the name of a key as KEY_MICMUTE, or nothing"

/* In the order of the file. The defaults of [turn] are those of turn.h; a test compares them. */
static const struct conf_key keys[] = {
    NAMED("model", "path", model, "/var/lib/parley/models/current", NULL, conf_look_model,
          "a directory with a model",
          "checkpoint directory; `parley model use NAME` points `current` somewhere else"),
    NAMED("model", "device", device, "auto", conf_check_device, NULL,
          "auto, cpu, cpu:ISA, plain, cuda or cuda:N", "what computes; auto: a GPU if it can"),
    INT("model", "threads", threads, "0", 0, 1024, false,
        "threads of the CPU device; 0 = one per processor"),
    INT("model", "context", context, "8192", 16, 1 << 20, false,
        "positions that a conversation may take; older turns are forgotten beyond"),
    INT("model", "max_tokens", max_tokens, "256", 1, 1 << 20, false, "most tokens of one reply"),
    BOOL("model", "paging", paging, "no", false,
         "run even if the weights do not fit in memory (slow)"),

    NAMED("audio", "capture", capture, "alsa:default", conf_check_sound, NULL, SOUND,
          "microphone; `parley talk --list-devices` names what is there"),
    NAMED("audio", "playback", playback, "alsa:default", conf_check_sound, NULL, SOUND,
          "loudspeaker"),
    {.section = "audio",
     .name = "rate",
     .type = CONF_INT,
     .at = offsetof(struct conf, rate),
     .standard = "48000",
     .min = 16000,
     .max = 192000,
     .check = conf_check_rate,
     .accepts = "a whole number from 16000 to 192000 in steps of 100 (beyond 64000: of 400)",
     .help = "samples a second of both"},
    BOOL("audio", "realtime", realtime, "yes", false, "ask for real-time priority"),
    BOOL("audio", "echo_cancel", echo_cancel, "yes", false,
         "remove our own voice from the microphone; no if the device does it"),
    BOOL("audio", "noise", noise, "no", false, "suppress steady noise"),
    BOOL("audio", "gain", gain, "no", false, "automatic gain of the microphone"),
    INT("audio", "delay_ms", delay_ms, "0", 0, 500, false,
        "from loudspeaker to microphone beyond what the devices report; rather too low"),
    INT("audio", "volume", volume, "100", 0, 100, true, "of replies and earcons, in per cent"),
    NAMED("audio", "vad", vad, "", NULL, conf_look_vad, "a file",
          "weights of the voice detector; empty = the installed ones"),

    TEXT("speech", "speaker", speaker, "", false, "voice of the replies; empty = the model's own"),
    TEXT("speech", "language", language, "", false,
         "language that people will speak, in English (`German`); empty = not told to the model"),
    NAMED("speech", "system_file", system_file, "", NULL, conf_look_system, "a file",
          "the system text of every conversation; empty = none"),

    TURN_MS(preroll_ms, "300", "heard before speech begins"),
    TURN_MS(min_speech_ms, "200", "less speech is no turn"),
    TURN_MS(speculate_ms, "200", "silence after which an answer is begun, unheard"),
    TURN_MS(end_ms, "600", "silence that ends a turn"),
    TURN_MS(end_likely_ms, "300", "... when what was said sounds finished"),
    TURN_MS(silence_max_ms, "2000", "... when it sounds unfinished"),
    TURN_SHARE(likely, "0.8", "probability that counts as finished"),
    TURN_SHARE(unlikely, "0.4", "probability that counts as unfinished"),
    TURN_MS(turn_max_ms, "60000", "the longest turn"),
    TURN_MS(confirm_ms, "650", "so much speech during a reply is meant to interrupt it"),
    TURN_MS(insist_ms, "1500", "so soon after too short a word half of that is enough"),
    TURN_SHARE(confirm_probability, "0.6", "speech counts as such from here on"),
    TURN_SHARE(hold_probability, "0.5", "a reply is held from here on"),
    TURN_MS(held_max_ms, "2000", "doubt that lasts longer was none"),
    TURN_MS(grace_ms, "150", "of a reply, before which it is not held"),
    TURN_MS(settle_ms, "1500", "of own sound until echo removal can be trusted"),
    TURN_SHARE(settle_probability, "0.8", "a reply is held from here on until then"),
    TURN_MS(undo_ms, "500", "a reply cut off so early never was"),
    TURN_MS(slow_ms, "2500", "thinking time between two earcons"),
    TURN_MS(think_max_ms, "60000", "longest thinking"),
    TURN_MS(speak_max_ms, "600000", "longest reply"),
    TURN_MS(device_wait_ms, "10000", "a reply waits so long for a lost loudspeaker"),
    TURN_MS(follow_up_ms, "8000", "after a reply the conversation is open so long"),
    BOOL("turn", "wake_needed", turn.wake_needed, "no", false,
         "speech outside of a conversation is not answered before the talk button"),
    BOOL("turn", "heard_you", turn.heard_you, "no", false,
         "a soft sound when a question was taken, unless the reply begins at once; off, since on a "
         "fast machine it would only disturb the reply"),
    BOOL("turn", "tell_cut", tell_cut, "yes", false, "the model is told where it was interrupted"),

    CHOICE("history", "keep", history, "memory", "memory|file", false,
           "where the conversation is kept; file: history.json in the state directory, mode 0600"),
    INT("history", "turns", history_turns, "50", 1, 10000, false, "turns that are kept"),

    BOOL("recording", "allow", recording, "no", true,
         "whether `parley ctl record` may record what is heard, for `parley replay`"),
    INT("recording", "max_s", recording_max_s, "300", 1, 3600, true, "longest recording"),

    TEXT("buttons", "device", buttons, "", false,
         "input device, e.g. /dev/input/by-path/platform-gpio-keys-event; empty = none"),
    NAMED("buttons", "mute", mute_key, "KEY_MICMUTE", conf_check_key, NULL, BUTTON,
          "key that mutes and unmutes"),
    NAMED("buttons", "stop", stop_key, "KEY_STOP", conf_check_key, NULL, BUTTON,
          "key that ends a reply"),
    NAMED("buttons", "talk", talk_key, "KEY_VOICECOMMAND", conf_check_key, NULL, BUTTON,
          "key that opens a conversation; while muted, hold it while you ask"),

    NAMED("control", "socket", socket, "/run/parley/control.sock", conf_check_socket, NULL,
          "a path of at most 107 characters",
          "Unix socket of `parley ctl`, unless the service manager hands one over"),
    TEXT("control", "group", group, "parley", false,
         "members may use the socket, beside root and parleyd's own user"),

    TEXT("service", "state", state, "/var/lib/parley/state", false, "directory for what must last"),
    INT("service", "stall_s", stall_s, "10", 1, 600, false,
        "a thread without progress for so long is taken for stuck"),
    CHOICE("service", "log_level", log_level, "info", "error|warning|info|debug", true,
           "what goes to the journal"),
};

const struct conf_key *conf_keys(size_t *n)
{
    *n = ARRAY_LEN(keys);
    return keys;
}

const char *conf_accepts(const struct conf_key *k, char *text, size_t size)
{
    if (k->accepts != NULL) {
        snprintf(text, size, "%s", k->accepts);
        return text;
    }
    switch (k->type) {
    case CONF_INT:
        snprintf(text, size, "a whole number from %.0f to %.0f", k->min, k->max);
        break;
    case CONF_REAL:
        snprintf(text, size, "a number from %g to %g", k->min, k->max);
        break;
    case CONF_BOOL:
        snprintf(text, size, "yes or no");
        break;
    case CONF_CHOICE: {
        size_t n = (size_t)snprintf(text, size, "one of ");
        for (const char *c = k->choices; *c != '\0' && n + 3 < size; c++) {
            if (*c == '|')
                text[n++] = ',';
            text[n++] = *c == '|' ? ' ' : *c;
        }
        text[n] = '\0';
        break;
    }
    default:
        snprintf(text, size, "text");
    }
    return text;
}

static void *field(const struct conf_key *k, struct conf *c)
{
    return (char *)c + k->at;
}

static const void *field_of(const struct conf_key *k, const struct conf *c)
{
    return (const char *)c + k->at;
}

static int set_int(int *at, const struct conf_key *k, const char *value)
{
    char *end;
    errno = 0;
    long n = strtol(value, &end, 10);
    if (errno != 0 || end == value || *end != '\0' || (double)n < k->min || (double)n > k->max)
        return -EINVAL;
    *at = (int)n;
    return 0;
}

static int set_real(float *at, const struct conf_key *k, const char *value)
{
    char *end;
    double x = strtod(value, &end);
    if (end == value || *end != '\0' || !(x >= k->min && x <= k->max))
        return -EINVAL;
    *at = (float)x;
    return 0;
}

static int set_text(char **at, const char *value)
{
    char *copy = strdup(value);
    if (copy == NULL)
        return -ENOMEM;
    free(*at);
    *at = copy;
    return 0;
}

/* 0, -EINVAL for a value that the key does not accept, -ENOMEM. */
static int set(struct conf *c, const struct conf_key *k, const char *value)
{
    int n;
    switch (k->type) {
    case CONF_INT:
        return set_int(field(k, c), k, value);
    case CONF_REAL:
        return set_real(field(k, c), k, value);
    case CONF_BOOL:
        n = find_word("no|yes", value);
        *(bool *)field(k, c) = n == 1;
        return n < 0 ? -EINVAL : 0;
    case CONF_CHOICE:
        n = find_word(k->choices, value);
        *(int *)field(k, c) = n < 0 ? 0 : n;
        return n < 0 ? -EINVAL : 0;
    default:
        return set_text(field(k, c), value);
    }
}

int conf_init(struct conf *c)
{
    int err = 0;
    *c = (struct conf){0};
    for (size_t i = 0; err == 0 && i < ARRAY_LEN(keys); i++)
        err = set(c, &keys[i], keys[i].standard);
    if (err < 0)
        conf_free(c);
    return err;
}

/* A file on its way through inih. */
struct reading {
    struct conf *conf;
    const char *name, *at, *end; /* of the text */
    int line;
    int line_of[ARRAY_LEN(keys)]; /* where it was set, 0 = not yet */
    bool look;                    /* at the files that values name */
    int err;
    struct problems *why;
};

static int fault(struct reading *r, int err, const char *text)
{
    r->err = err;
    if (r->line > 0)
        problem_add(r->why, err, "%s:%d: %s", r->name, r->line, text);
    else
        problem_add(r->why, err, "%s: %s", r->name, text);
    return 0;
}

/* Section or key names, "a, b, c". `section` NULL: the sections. */
static const char *known(const char *section, char *text, size_t size)
{
    size_t n = 0;
    text[0] = '\0';
    for (size_t i = 0; i < ARRAY_LEN(keys) && n < size; i++) {
        bool fresh = i == 0 || strcmp(keys[i].section, keys[i - 1].section) != 0;
        if (section == NULL ? !fresh : strcmp(keys[i].section, section) != 0)
            continue;
        n += (size_t)snprintf(text + n, size - n, "%s%s", n > 0 ? ", " : "",
                              section == NULL ? keys[i].section : keys[i].name);
    }
    return text;
}

static bool is_section(const char *name)
{
    for (size_t i = 0; i < ARRAY_LEN(keys); i++)
        if (strcmp(keys[i].section, name) == 0)
            return true;
    return false;
}

static bool plain(const char *line)
{
    for (const char *c = line; *c != '\0'; c++)
        if (iscntrl((unsigned char)*c) && *c != '\t')
            return false;
    return true;
}

/* "[section]" is one that exists. */
static bool check_section(struct reading *r, char *line)
{
    char text[1024], names[512];
    char *end = strchr(line, ']');
    if (end == NULL) {
        fault(r, -EINVAL, "found a section without ']'");
        return false;
    }
    *end = '\0';
    bool there = is_section(line + 1);
    snprintf(text, sizeof(text), "unknown section [%s], there are: %s", line + 1,
             known(NULL, names, sizeof(names)));
    if (!there)
        fault(r, -EINVAL, text);
    *end = ']';
    return there;
}

/* What inih shall see of a line: nothing, if something is wrong with it. The keys of a section that
 * does not exist are not blamed as well: they are told by the section's name. */
static void check_line(struct reading *r, char *line)
{
    char text[512];
    if (line[0] == '\0' || line[0] == '#' || line[0] == ';')
        return;
    if (line[0] == '[') {
        check_section(r, line);
        return;
    }
    if (strpbrk(line, "=:") != NULL)
        return;
    snprintf(text, sizeof(text), "found '%s', expected key = value", line);
    fault(r, -EINVAL, text);
    line[0] = '\0';
}

/* inih's fgets: one line, without its end and its leading blanks. */
static char *next_line(char *buf, int size, void *reading)
{
    struct reading *r = reading;
    if (r->at == r->end)
        return NULL;
    const char *stop = memchr(r->at, '\n', (size_t)(r->end - r->at));
    const char *next = stop != NULL ? stop + 1 : r->end;
    const char *from = r->at, *to = stop != NULL ? stop : r->end;
    r->at = next;
    r->line++;
    if (r->line == 1 && to - from >= 3 && memcmp(from, "\xEF\xBB\xBF", 3) == 0)
        from += 3;
    while (from < to && isblank((unsigned char)*from))
        from++;
    while (from < to && isspace((unsigned char)to[-1]))
        to--;
    size_t n = (size_t)(to - from);
    buf[0] = '\0';
    if (n + 3 > (size_t)size) {
        char text[64];
        snprintf(text, sizeof(text), "found %zu characters, expected at most %d", n, size - 3);
        fault(r, -EINVAL, text);
        return buf;
    }
    memcpy(buf, from, n);
    buf[n] = '\0';
    if (strlen(buf) != n || !plain(buf)) {
        fault(r, -EINVAL, "found a control character");
        buf[0] = '\0';
        return buf;
    }
    check_line(r, buf);
    return buf;
}

static const struct conf_key *find(const char *section, const char *name)
{
    for (size_t i = 0; i < ARRAY_LEN(keys); i++)
        if (strcmp(keys[i].section, section) == 0 && strcmp(keys[i].name, name) == 0)
            return &keys[i];
    return NULL;
}

static int no_such_key(struct reading *r, const char *section, const char *name)
{
    char text[2048], names[1024];
    if (section[0] == '\0')
        snprintf(text, sizeof(text), "found '%s' before the first [section]", name);
    else
        snprintf(text, sizeof(text), "[%s] has no key '%s', it has: %s", section, name,
                 known(section, names, sizeof(names)));
    return fault(r, -EINVAL, text);
}

/* What others know of a value. Negative errno, and the sentence is told. */
static int ask(struct reading *r, const struct conf_key *k, const char *value)
{
    char text[512], accepts[128];
    struct problems own = {0};
    int err = k->check != NULL ? k->check(value, &own) : 0;
    if (err == 0 && r->look && k->look != NULL)
        err = k->look(value, &own);
    if (err < 0 && own.n > 0)
        snprintf(text, sizeof(text), "[%s] %s: %s", k->section, k->name, own.text[0]);
    else
        snprintf(text, sizeof(text), "[%s] %s: found '%s', expected %s", k->section, k->name, value,
                 conf_accepts(k, accepts, sizeof(accepts)));
    problems_free(&own);
    return err < 0 ? fault(r, err, err == -ENOMEM ? "not enough memory" : text) : 1;
}

/* inih's handler: one key. */
static int take(void *reading, const char *section, const char *name, const char *value)
{
    struct reading *r = reading;
    char text[512], accepts[128];
    if (section[0] != '\0' && !is_section(section))
        return 0;
    const struct conf_key *k = find(section, name);
    if (k == NULL)
        return no_such_key(r, section, name);
    int *line = &r->line_of[k - keys];
    if (*line != 0) {
        snprintf(text, sizeof(text), "[%s] %s was set in line %d already", section, name, *line);
        return fault(r, -EINVAL, text);
    }
    *line = r->line;
    int err = set(r->conf, k, value);
    if (err == 0)
        return ask(r, k, value);
    snprintf(text, sizeof(text), "[%s] %s: found '%s', expected %s", section, name, value,
             conf_accepts(k, accepts, sizeof(accepts)));
    return fault(r, err, err == -ENOMEM ? "not enough memory" : text);
}

/* Keys that make no sense together. */
static void check_together(struct reading *r)
{
    struct turn t;
    int err = turn_init(&t, &r->conf->turn, 0, NULL);
    if (err == 0)
        return;
    r->err = err;
    struct problems why = {0};
    turn_init(&t, &r->conf->turn, 0, &why);
    problem_add(r->why, err, "%s: [turn] %s", r->name, why.n > 0 ? why.text[0] : "");
    problems_free(&why);
}

/* Keys that make no sense with the model; they may stand at their defaults. */
static void check_model(struct reading *r)
{
    const char *name = "context";
    struct problems own = {0};
    int err = conf_look_at_model(r->conf, &name, &own);
    if (err < 0) {
        const char *section = strcmp(name, "speaker") == 0 ? "speech" : "model";
        char text[512];
        r->line = r->line_of[find(section, name) - keys];
        snprintf(text, sizeof(text), "[%s] %s: %s", section, name,
                 own.n > 0 ? own.text[0] : strerror(-err));
        fault(r, err, text);
    }
    problems_free(&own);
}

static int parse(struct reading *r)
{
    int err = conf_init(r->conf);
    if (err < 0)
        return problem_add(r->why, err, "%s: not enough memory", r->name);
    int line = ini_parse_stream(next_line, r, take, r);
    if (line != 0 && r->err == 0) { /* a line that only inih stumbles over: `volume 80 ; a = b` */
        r->line = line;
        fault(r, line > 0 ? -EINVAL : -ENOMEM, "expected key = value");
    }
    if (r->err == 0)
        check_together(r);
    if (r->err == 0 && r->look)
        check_model(r);
    if (r->err < 0)
        conf_free(r->conf);
    return r->err;
}

int conf_parse(struct conf *c, const char *text, size_t n, const char *name, struct problems *why)
{
    struct reading r = {.conf = c, .name = name, .at = text, .end = text + n, .why = why};
    return parse(&r);
}

int conf_load(struct conf *c, const char *path, struct problems *why)
{
    char *text;
    size_t n;
    int err = read_file(&text, &n, path, FILE_MAX_BYTES);
    if (err == -EFBIG)
        return problem_add(why, err, "%s: found more than %d bytes", path, FILE_MAX_BYTES);
    if (err < 0)
        return problem_add(why, err, "%s: %s", path, strerror(-err));
    struct reading r = {
        .conf = c, .name = path, .at = text, .end = text + n, .why = why, .look = true};
    err = parse(&r);
    free(text);
    return err;
}

void conf_write(FILE *f)
{
    char accepts[128];
    fprintf(f, "# parley.conf - configuration of parleyd; every key stands at its default.\n"
               "#\n"
               "# `parleyd --check --config FILE` says what is wrong with a file. Keys marked\n"
               "# (reload) take effect on `systemctl reload parleyd`, the others on a restart.\n");
    for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
        const struct conf_key *k = &keys[i];
        if (i == 0 || strcmp(k->section, keys[i - 1].section) != 0)
            fprintf(f, "\n[%s]\n", k->section);
        fprintf(f, "\n# %s%s\n", k->help, k->reload ? " (reload)" : "");
        if (k->type != CONF_TEXT || k->accepts != NULL)
            fprintf(f, "# %s\n", conf_accepts(k, accepts, sizeof(accepts)));
        fprintf(f, "#%s =%s%s\n", k->name, k->standard[0] != '\0' ? " " : "", k->standard);
    }
}

bool conf_equal(const struct conf_key *k, const struct conf *a, const struct conf *b)
{
    const void *x = field_of(k, a), *y = field_of(k, b);
    switch (k->type) {
    case CONF_TEXT:
        return strcmp(*(char *const *)x, *(char *const *)y) == 0;
    case CONF_REAL:
        return *(const float *)x == *(const float *)y;
    case CONF_BOOL:
        return *(const bool *)x == *(const bool *)y;
    default:
        return *(const int *)x == *(const int *)y;
    }
}

void conf_reload(struct conf *c, const struct conf *from)
{
    for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
        const struct conf_key *k = &keys[i];
        if (!k->reload)
            continue;
        const void *x = field_of(k, from);
        if (k->type == CONF_BOOL)
            *(bool *)field(k, c) = *(const bool *)x;
        else
            *(int *)field(k, c) = *(const int *)x;
    }
}

void conf_free(struct conf *c)
{
    for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
        if (keys[i].type != CONF_TEXT)
            continue;
        char **text = field(&keys[i], c);
        free(*text);
        *text = NULL;
    }
}
