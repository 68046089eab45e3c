/*
 * daemon/ctl.c - `parley ctl`: one command to a running parleyd, its answer for people or, with
 * --json, as it came.
 *
 * Exit codes: 0 done, 1 parleyd cannot be reached or went away, 2 usage or refused.
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/util.h"
#include "daemon/commands.h"
#include "daemon/conf.h"
#include "daemon/control.h"

enum { WAIT_S = 30 };

struct ctl {
    const char *socket;
    bool json;
    const struct control_command *command;
    enum control_cmd cmd;
    const char *argument;
};

static void usage(FILE *f)
{
    const struct control_command *c = control_commands();
    fprintf(f, "usage: parley ctl [--socket PATH] [--json] COMMAND [ARGUMENT]\n\n");
    for (int i = 0; i < CONTROL_CMDS; i++) {
        char name[32];
        snprintf(name, sizeof(name), "%s %s", c[i].name, c[i].shown != NULL ? c[i].shown : "");
        fprintf(f, "  %-15s %s\n", name, c[i].help);
    }
    fprintf(f, "\n  --socket PATH   of parleyd (default: /run/parley/control.sock)\n"
               "  --json          parleyd's answer as it came\n");
}

static bool find_command(struct ctl *c, const char *name)
{
    for (int i = 0; i < CONTROL_CMDS; i++)
        if (strcmp(control_commands()[i].name, name) == 0) {
            c->cmd = (enum control_cmd)i;
            c->command = &control_commands()[i];
            return true;
        }
    fprintf(stderr, "parley: ctl: unknown command '%s'\n", name);
    return false;
}

/* 1 = help was asked for, 0 = go, -1 = a sentence was said. */
static int parse(struct ctl *c, int argc, char **argv)
{
    static const struct option options[] = {{"socket", required_argument, NULL, 's'},
                                            {"json", no_argument, NULL, 'j'},
                                            {"help", no_argument, NULL, 'h'},
                                            {0}};
    int id;
    while ((id = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (id == 's')
            c->socket = optarg;
        else if (id == 'j')
            c->json = true;
        else
            return id == 'h' ? 1 : -1;
    }
    if (optind == argc) {
        usage(stderr);
        return -1;
    }
    if (!find_command(c, argv[optind++]))
        return -1;
    bool wants = c->command->argument != CONTROL_NOTHING;
    if (argc - optind == (wants ? 1 : 0)) {
        c->argument = wants ? argv[optind] : NULL;
        return 0;
    }
    fprintf(stderr, "parley: ctl: %s takes %s\n", c->command->name,
            wants ? c->command->shown : "no argument");
    return -1;
}

/* The request as a line; NULL and a sentence when the argument is none. */
static char *request_line(const struct ctl *c)
{
    json_t *request = json_pack("{s:i, s:s}", "v", CONTROL_VERSION, "cmd", c->command->name);
    json_t *value = NULL;
    long n;
    if (c->command->argument == CONTROL_NUMBER &&
        option_long(c->command->name, c->argument, c->command->min, c->command->max, &n))
        value = json_integer(n);
    if (c->command->argument == CONTROL_TEXT && (value = json_string(c->argument)) == NULL)
        fprintf(stderr, "parley: ctl: the text is no UTF-8\n");
    if (c->command->argument != CONTROL_NOTHING && value == NULL) {
        json_decref(request);
        return NULL;
    }
    if (value != NULL)
        json_object_set_new(request, c->command->argument == CONTROL_TEXT ? "text" : "number",
                            value);
    char *line = json_dumps(request, JSON_COMPACT);
    json_decref(request);
    return line;
}

static int reach(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct timeval wait = {.tv_sec = WAIT_S};
    if (strlen(path) >= sizeof(address.sun_path)) {
        fprintf(stderr, "parley: %s: expected a socket of at most %zu characters\n", path,
                sizeof(address.sun_path) - 1);
        return -1;
    }
    memcpy(address.sun_path, path, strlen(path));
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0) {
        fprintf(stderr, "parley: %s: %s; is parleyd running, and may you speak to it?\n", path,
                strerror(errno));
        if (fd >= 0)
            close(fd);
        return -1;
    }
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof(wait));
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait));
    return fd;
}

static bool send_line(int fd, const char *line)
{
    size_t n = strlen(line);
    while (n > 0) {
        ssize_t sent = send(fd, line, n, MSG_NOSIGNAL);
        if (sent < 0 && errno != EINTR)
            return false;
        line += sent > 0 ? sent : 0;
        n -= sent > 0 ? (size_t)sent : 0;
    }
    return send(fd, "\n", 1, MSG_NOSIGNAL) == 1;
}

static void show_value(const char *key, const json_t *value, int depth);

static void show_object(const json_t *object, int depth)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)object, key, value) show_value(key, value, depth);
}

/* key: value, what is inside of an object two columns to the right. */
static void show_value(const char *key, const json_t *value, int depth)
{
    printf("%*s%s:", depth * 2, "", key);
    if (json_is_object(value)) {
        printf("\n");
        show_object(value, depth + 1);
    } else if (json_is_string(value)) {
        printf(" %s\n", json_string_value(value));
    } else if (json_is_boolean(value)) {
        printf(" %s\n", json_is_true(value) ? "yes" : "no");
    } else if (json_is_real(value)) {
        printf(" %.6g\n", json_real_value(value));
    } else {
        char *text = json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY);
        printf(" %s\n", text != NULL ? text : "?");
        free(text);
    }
}

static void show_history(const json_t *reply)
{
    size_t i;
    json_t *turn;
    json_int_t left_out = json_integer_value(json_object_get(reply, "left_out"));
    if (left_out > 0)
        printf("(%" JSON_INTEGER_FORMAT " older ones)\n", left_out);
    json_array_foreach(json_object_get(reply, "turns"), i, turn)
    {
        const char *who = json_string_value(json_object_get(turn, "who"));
        const char *text = json_string_value(json_object_get(turn, "text"));
        printf("%s: %s\n", who != NULL ? who : "?", text != NULL ? text : "");
    }
}

/* The answer, for people: a `text` as it is, turns as a dialogue, anything else as key: value. */
static void show(const struct ctl *c, json_t *reply)
{
    json_t *text = json_object_get(reply, "text");
    if (c->cmd == CONTROL_HISTORY) {
        show_history(reply);
    } else if (json_is_string(text)) {
        fputs(json_string_value(text), stdout);
    } else {
        json_object_del(reply, "v");
        json_object_del(reply, "ok");
        show_object(reply, 0);
    }
}

static int take_reply(const struct ctl *c, char *line, size_t n)
{
    json_error_t error;
    json_t *reply = json_loadb(line, n, 0, &error);
    int code = 0;
    if (!json_is_object(reply)) {
        fprintf(stderr, "parley: ctl: parleyd's answer is not JSON\n");
        code = EXIT_FAILED;
    } else if (!json_is_true(json_object_get(reply, "ok"))) {
        const char *text = json_string_value(json_object_get(reply, "error"));
        fprintf(stderr, "parley: %s\n", text != NULL ? text : "refused without a reason");
        code = EXIT_BAD_INPUT;
    }
    if (c->json && reply != NULL)
        printf("%.*s\n", (int)n, line);
    else if (code == 0)
        show(c, reply);
    json_decref(reply);
    return code;
}

/* Lines of the event log until parleyd goes away, or nobody takes ours any more. */
static int watch(const struct ctl *c, FILE *f, int fd)
{
    bool read_on = true;
    char *line = NULL;
    size_t cap = 0;
    struct timeval for_ever = {0};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &for_ever, sizeof(for_ever));
    while (read_on && getline(&line, &cap, f) > 0)
        read_on = fputs(line, stdout) >= 0 && fflush(stdout) == 0;
    free(line);
    if (read_on)
        fprintf(stderr, "parley: %s: parleyd went away\n", c->socket);
    return read_on ? EXIT_FAILED : 0;
}

static int converse(const struct ctl *c, int fd, const char *request)
{
    char *line = NULL;
    size_t cap = 0;
    FILE *f = fdopen(fd, "r+");
    if (f == NULL) {
        close(fd);
        return EXIT_FAILED;
    }
    /* A refusal may have come already, then what we send finds nobody: it is read all the same. */
    (void)send_line(fd, request);
    ssize_t n = getline(&line, &cap, f);
    int code = EXIT_FAILED;
    if (n <= 0)
        fprintf(stderr, "parley: %s: no answer from parleyd\n", c->socket);
    else
        code = take_reply(c, line, (size_t)n - (line[n - 1] == '\n'));
    if (code == 0 && c->cmd == CONTROL_WATCH)
        code = watch(c, f, fd);
    free(line);
    fclose(f);
    return code;
}

int cmd_ctl(int argc, char **argv)
{
    struct conf conf;
    if (conf_init(&conf) < 0)
        return EXIT_FAILED;
    struct ctl c = {.socket = conf.socket};
    int code = EXIT_BAD_INPUT, parsed = parse(&c, argc, argv);
    if (parsed > 0) {
        usage(stdout);
        code = 0;
    } else if (parsed == 0) {
        char *request = request_line(&c);
        int fd = request != NULL ? reach(c.socket) : -1;
        if (fd >= 0)
            code = converse(&c, fd, request);
        else if (request != NULL)
            code = EXIT_FAILED;
        free(request);
    }
    conf_free(&conf);
    return code;
}
