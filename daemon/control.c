/*
 * daemon/control.c - requests checked against the table of commands, replies written.
 *
 * jansson refuses bytes that are no UTF-8, duplicate keys and NULs within strings; here every field
 * has to be one that is known, and to be of its type.
 */
#include "daemon/control.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "model/json_text.h"

static const struct control_command commands[CONTROL_CMDS] = {
    [CONTROL_STATUS] = {.name = "status", .help = "how things stand"},
    [CONTROL_WATCH] = {.name = "watch", .help = "what happens, one JSON line each"},
    [CONTROL_MUTE] = {.name = "mute", .help = "close the microphone, also across restarts"},
    [CONTROL_UNMUTE] = {.name = "unmute", .help = "open it again"},
    [CONTROL_STOP] = {.name = "stop", .help = "end the reply that is being given"},
    [CONTROL_WAKE] = {.name = "wake", .help = "open a conversation, as the talk button does"},
    [CONTROL_SAY] = {.name = "say",
                     .argument = CONTROL_TEXT,
                     .shown = "TEXT",
                     .help = "say these words"},
    [CONTROL_ASK] = {.name = "ask",
                     .argument = CONTROL_TEXT,
                     .shown = "TEXT",
                     .help = "answer this, aloud, as if it had been spoken"},
    [CONTROL_DEVICES] = {.name = "devices", .help = "microphones and loudspeakers that exist"},
    [CONTROL_METRICS] = {.name = "metrics", .help = "counters and latencies as Prometheus text"},
    [CONTROL_HISTORY] = {.name = "history", .help = "the turns that are remembered"},
    [CONTROL_FORGET] = {.name = "forget", .help = "forget the conversation, on disk too"},
    [CONTROL_VOLUME] = {.name = "volume",
                        .argument = CONTROL_NUMBER,
                        .max = 100,
                        .shown = "N",
                        .help = "loudness, 0 to 100 per cent"},
    [CONTROL_LOG_LEVEL] = {.name = "log-level",
                           .argument = CONTROL_TEXT,
                           .choices = "error|warning|info|debug",
                           .shown = "L",
                           .help = "error, warning, info or debug"},
    [CONTROL_RECORD] = {.name = "record",
                        .argument = CONTROL_NUMBER,
                        .max = 3600,
                        .shown = "SECONDS",
                        .help = "record what is heard, for `parley replay`; 0 ends it"},
};

const struct control_command *control_commands(void)
{
    return commands;
}

static int find_command(struct control_request *r, const json_t *cmd, struct problems *why)
{
    if (!json_is_string(cmd))
        return problem_add(why, -EINVAL, "cmd: expected the name of a command");
    for (int i = 0; i < CONTROL_CMDS; i++)
        if (strcmp(commands[i].name, json_string_value(cmd)) == 0) {
            r->cmd = (enum control_cmd)i;
            return 0;
        }
    char names[256];
    size_t n = 0;
    for (int i = 0; i < CONTROL_CMDS; i++)
        n += (size_t)snprintf(names + n, sizeof(names) - n, "%s%s", i > 0 ? ", " : "",
                              commands[i].name);
    return problem_add(why, -EINVAL, "cmd: found '%.40s', expected one of %s",
                       json_string_value(cmd), names);
}

static int take_text(struct control_request *r, const json_t *text, struct problems *why)
{
    const struct control_command *c = &commands[r->cmd];
    if (!json_is_string(text) || json_string_length(text) == 0)
        return problem_add(why, -EINVAL, "%s: expected a text", c->name);
    if (json_string_length(text) > CONTROL_TEXT_MAX)
        return problem_add(why, -EINVAL, "%s: found %zu bytes of text, expected at most %d",
                           c->name, json_string_length(text), CONTROL_TEXT_MAX);
    r->text = json_string_value(text);
    if (c->choices == NULL)
        return 0;
    r->number = find_word(c->choices, r->text);
    if (r->number >= 0)
        return 0;
    return problem_add(why, -EINVAL, "%s: found '%.40s', expected %s", c->name, r->text, c->help);
}

static int take_number(struct control_request *r, const json_t *number, struct problems *why)
{
    const struct control_command *c = &commands[r->cmd];
    if (!json_is_integer(number))
        return problem_add(why, -EINVAL, "%s: expected a whole number from %d to %d", c->name,
                           c->min, c->max);
    json_int_t n = json_integer_value(number);
    if (n < c->min || n > c->max)
        return problem_add(why, -EINVAL,
                           "%s: found %" JSON_INTEGER_FORMAT
                           ", expected a whole number from %d to %d",
                           c->name, n, c->min, c->max);
    r->number = (int)n;
    return 0;
}

/* Every field is one of those that this command has. */
static int check_fields(const struct control_request *r, json_t *request, struct problems *why)
{
    enum control_argument a = commands[r->cmd].argument;
    const char *key;
    json_t *value;
    json_object_foreach(request, key, value)
    {
        bool known = strcmp(key, "cmd") == 0 || strcmp(key, "id") == 0 || strcmp(key, "v") == 0 ||
                     (a == CONTROL_TEXT && strcmp(key, "text") == 0) ||
                     (a == CONTROL_NUMBER && strcmp(key, "number") == 0);
        if (!known)
            return problem_add(why, -EINVAL, "%s: unknown field '%.40s'", commands[r->cmd].name,
                               key);
    }
    return 0;
}

static int read_request(struct control_request *r, json_t *request, struct problems *why)
{
    json_t *v = json_object_get(request, "v");
    if (v != NULL && (!json_is_integer(v) || json_integer_value(v) != CONTROL_VERSION))
        return problem_add(why, -EPROTO, "v: expected protocol version %d", CONTROL_VERSION);
    int err = find_command(r, json_object_get(request, "cmd"), why);
    if (err == 0)
        err = check_fields(r, request, why);
    if (err == 0 && commands[r->cmd].argument == CONTROL_TEXT)
        err = take_text(r, json_object_get(request, "text"), why);
    if (err == 0 && commands[r->cmd].argument == CONTROL_NUMBER)
        err = take_number(r, json_object_get(request, "number"), why);
    return err;
}

static char *line_of(json_t *reply)
{
    char *text = json_dumps(reply, JSON_COMPACT | JSON_ENSURE_ASCII);
    size_t n = text != NULL ? strlen(text) : 0;
    char *line = text != NULL ? realloc(text, n + 2) : NULL;
    if (line == NULL) {
        free(text);
        return NULL;
    }
    memcpy(line + n, "\n", 2);
    return line;
}

/* The first sentence is the error; there is rarely a second one. */
static void add_error(json_t *reply, int err, const struct problems *why)
{
    const char *text = why->n > 0 ? why->text[0] : strerror(-err);
    json_t *sentence = json_string(text);
    if (sentence == NULL) /* a file name with odd bytes in it */
        sentence = json_string(strerror(-err));
    json_object_set_new(reply, "error", sentence);
}

/* {"v":1,"id":...}: an id that is neither number nor string is left out. */
static json_t *begin_reply(const json_t *request)
{
    json_t *id = json_object_get(request, "id");
    json_t *reply = json_pack("{s:i}", "v", CONTROL_VERSION);
    bool plain = json_is_integer(id) || (json_is_string(id) && json_string_length(id) <= 64);
    if (reply != NULL && plain)
        json_object_set(reply, "id", id);
    return reply;
}

char *control_answer(control_run *run, void *ctx, const char *line, size_t n, enum control_cmd *cmd)
{
    struct control_request r = {0};
    struct problems why = {0};
    json_error_t error;
    char *answer = NULL;
    int err;
    json_t *request;
    int parsed = json_text_parse(&request, line, n, "the request", &error, &why);
    json_t *reply = begin_reply(request), *body = json_object();
    *cmd = CONTROL_CMDS;
    if (reply == NULL || body == NULL)
        goto out;
    if (parsed == -ENOMEM)
        err = parsed;
    else if (request == NULL)
        err = problem_add(&why, -EINVAL, "not JSON: %s", error.text);
    else if (!json_is_object(request))
        err = problem_add(&why, -EINVAL, "expected one JSON object a line");
    else
        err = read_request(&r, request, &why);
    if (err == 0) {
        err = run(ctx, &r, body, &why);
        *cmd = err == 0 ? r.cmd : CONTROL_CMDS;
    }
    if (json_object_set_new(reply, "ok", json_boolean(err == 0)) < 0 ||
        (err == 0 && json_object_update(reply, body) < 0))
        goto out;
    if (err < 0)
        add_error(reply, err, &why);
    answer = line_of(reply);
out:
    problems_free(&why);
    json_decref(body);
    json_decref(reply);
    json_decref(request);
    return answer;
}

char *control_refusal(const char *error)
{
    json_t *reply = json_pack("{s:i, s:b, s:s}", "v", CONTROL_VERSION, "ok", 0, "error", error);
    char *line = reply != NULL ? line_of(reply) : NULL;
    json_decref(reply);
    return line;
}
