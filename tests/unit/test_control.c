/*
 * tests/unit/test_control.c - the control protocol: requests and replies to the byte, and the
 * socket with clients that are many, slow, silent, endless, or not allowed.
 */
#include <errno.h>
#include <grp.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/util.h"
#include "daemon/control_socket.h"

static int run(void *ctx, const struct control_request *r, json_t *reply, struct problems *why)
{
    int *calls = ctx;
    (*calls)++;
    if (r->cmd == CONTROL_STOP)
        return problem_add(why, -EAGAIN, "nothing plays");
    if (r->cmd == CONTROL_SAY)
        json_object_set_new(reply, "said", json_string(r->text));
    if (r->cmd == CONTROL_VOLUME || r->cmd == CONTROL_LOG_LEVEL)
        json_object_set_new(reply, "number", json_integer(r->number));
    return 0;
}

static void test_lines(void **unused)
{
    (void)unused;
    const struct {
        const char *in, *out;
        int calls;
    } cases[] = {
        {"{\"cmd\":\"say\",\"text\":\"a\\u00e4\",\"id\":7}",
         "{\"v\":1,\"id\":7,\"ok\":true,\"said\":\"a\\u00E4\"}\n", 1},
        {"{\"v\":1,\"id\":\"x\",\"cmd\":\"volume\",\"number\":100}",
         "{\"v\":1,\"id\":\"x\",\"ok\":true,\"number\":100}\n", 1},
        {"{\"cmd\":\"log-level\",\"text\":\"info\"}", "{\"v\":1,\"ok\":true,\"number\":2}\n", 1},
        {"{\"cmd\":\"stop\"}", "{\"v\":1,\"ok\":false,\"error\":\"nothing plays\"}\n", 1},
        {"{\"cmd\":\"volume\",\"number\":101,\"id\":[1]}",
         "{\"v\":1,\"ok\":false,\"error\":\"volume: found 101, expected a whole number from 0 to "
         "100\"}\n",
         0},
        {"{\"cmd\":\"volume\",\"number\":1.5}",
         "{\"v\":1,\"ok\":false,\"error\":\"volume: expected a whole number from 0 to 100\"}\n", 0},
        {"{\"cmd\":\"volume\"}",
         "{\"v\":1,\"ok\":false,\"error\":\"volume: expected a whole number from 0 to 100\"}\n", 0},
        {"{\"cmd\":\"say\",\"text\":\"\"}",
         "{\"v\":1,\"ok\":false,\"error\":\"say: expected a text\"}\n", 0},
        {"{\"cmd\":\"log-level\",\"text\":\"loud\"}",
         "{\"v\":1,\"ok\":false,\"error\":\"log-level: found 'loud', expected error, warning, info "
         "or debug\"}\n",
         0},
        {"{\"cmd\":\"mute\",\"text\":\"x\"}",
         "{\"v\":1,\"ok\":false,\"error\":\"mute: unknown field 'text'\"}\n", 0},
        {"{\"v\":2,\"cmd\":\"mute\"}",
         "{\"v\":1,\"ok\":false,\"error\":\"v: expected protocol version 1\"}\n", 0},
        {"[]", "{\"v\":1,\"ok\":false,\"error\":\"expected one JSON object a line\"}\n", 0},
        {"{}", "{\"v\":1,\"ok\":false,\"error\":\"cmd: expected the name of a command\"}\n", 0},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        int calls = 0;
        enum control_cmd cmd;
        char *out = control_answer(run, &calls, cases[i].in, strlen(cases[i].in), &cmd);
        assert_string_equal(out, cases[i].out);
        assert_int_equal(calls, cases[i].calls);
        free(out);
    }
}

/* Refused with a sentence, whatever it is. */
static void test_rubbish(void **unused)
{
    (void)unused;
    static const char *const rubbish[] = {
        "",
        "{",
        "{\"cmd\":\"mute\",\"cmd\":\"unmute\"}",
        "\xff\xfe",
        "{\"cmd\":\"fly\"}",
        "null",
        "{\"cmd\":\"say\",\"text\":\"a\\u0000b\"}",
        "{\"cmd\":\"mute\"} {\"cmd\":\"mute\"}",
    };
    for (size_t i = 0; i < ARRAY_LEN(rubbish); i++) {
        int calls = 0;
        enum control_cmd cmd;
        char *out = control_answer(run, &calls, rubbish[i], strlen(rubbish[i]), &cmd);
        json_t *reply = json_loads(out, 0, NULL);
        assert_true(json_is_false(json_object_get(reply, "ok")));
        assert_true(json_string_length(json_object_get(reply, "error")) > 5);
        assert_int_equal(calls, 0);
        assert_int_equal(cmd, CONTROL_CMDS);
        json_decref(reply);
        free(out);
    }
    char *text = malloc(CONTROL_TEXT_MAX + 64);
    int n = snprintf(text, CONTROL_TEXT_MAX + 64, "{\"cmd\":\"say\",\"text\":\"%0*d\"}",
                     CONTROL_TEXT_MAX + 1, 0);
    enum control_cmd cmd;
    int calls = 0;
    char *out = control_answer(run, &calls, text, (size_t)n, &cmd);
    assert_non_null(strstr(out, "say: found 8193 bytes of text, expected at most 8192"));
    free(out);
    free(text);
}

static int allocations_left;

static void *allocate(size_t n)
{
    return allocations_left-- > 0 ? malloc(n) : NULL;
}

/* Whichever allocation of the JSON library fails: an answer that is one, or none. */
static void test_memory_short(void **unused)
{
    (void)unused;
    static const char line[] = "{\"v\":1,\"cmd\":\"say\",\"text\":\"hello\",\"id\":\"a\"}";
    bool whole = false;
    int n = 0;
    json_set_alloc_funcs(allocate, free);
    for (; !whole && n < 10000; n++) {
        int calls = 0;
        enum control_cmd cmd;
        allocations_left = n;
        char *out = control_answer(run, &calls, line, sizeof(line) - 1, &cmd);
        allocations_left = INT_MAX;
        if (out != NULL) {
            json_t *reply = json_loads(out, 0, NULL);
            assert_true(json_is_boolean(json_object_get(reply, "ok")));
            whole = strcmp(out, "{\"v\":1,\"id\":\"a\",\"ok\":true,\"said\":\"hello\"}\n") == 0;
            json_decref(reply);
        }
        free(out);
    }
    json_set_alloc_funcs(malloc, free);
    assert_true(whole && n > 10);
}

/* A server of our own in this process; clients are plain sockets that do not block. */
struct rig {
    sd_event *event;
    struct control_socket *server;
    struct sockaddr_un address;
    char dir[64];
    int calls;
};

static void rig_up(struct rig *r, const char *group, int quiet_s)
{
    struct problems why = {0};
    *r = (struct rig){.dir = "/tmp/parley-control-XXXXXX", .address.sun_family = AF_UNIX};
    assert_non_null(mkdtemp(r->dir));
    snprintf(r->address.sun_path, sizeof(r->address.sun_path), "%s/s", r->dir);
    assert_true(sd_event_new(&r->event) >= 0);
    struct control_socket_opts o = {.event = r->event,
                                    .fd = -1,
                                    .path = r->address.sun_path,
                                    .group = group,
                                    .quiet_s = quiet_s,
                                    .run = run,
                                    .ctx = &r->calls};
    if (control_socket_open(&r->server, &o, &why) < 0)
        fail_msg("%s", why.n > 0 ? why.text[0] : "?");
    problems_free(&why);
}

static void rig_down(struct rig *r)
{
    control_socket_close(r->server);
    sd_event_unref(r->event);
    assert_int_equal(access(r->address.sun_path, F_OK), -1);
    rmdir(r->dir);
}

static int client(struct rig *r)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&r->address, sizeof(r->address)), 0);
    return fd;
}

/* Lets the server do all it can now. */
static void turn_over(struct rig *r)
{
    while (sd_event_run(r->event, 0) > 0)
        ;
}

/* What the server sent; -1 when it has closed and nothing is left. */
static ssize_t hear(int fd, char *text, size_t size)
{
    size_t n = 0;
    ssize_t got;
    while (n + 1 < size && (got = recv(fd, text + n, size - 1 - n, 0)) > 0)
        n += (size_t)got;
    text[n] = '\0';
    return n == 0 && got == 0 ? -1 : (ssize_t)n;
}

static void say(int fd, const char *text)
{
    assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

static void test_socket(void **unused)
{
    (void)unused;
    struct rig r;
    char text[8192];
    struct stat st;
    rig_up(&r, "", 0);
    assert_int_equal(stat(r.address.sun_path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0660);
    int fd = client(&r);
    say(fd, "{\"cmd\":\"mu");
    turn_over(&r);
    assert_int_equal(hear(fd, text, sizeof(text)), 0);
    say(fd, "te\"}\n{\"cmd\":\"unmute\",\"id\":2}\n{\"cmd\":");
    turn_over(&r);
    hear(fd, text, sizeof(text));
    assert_string_equal(text, "{\"v\":1,\"ok\":true}\n{\"v\":1,\"id\":2,\"ok\":true}\n");
    assert_int_equal(r.calls, 2);
    close(fd);
    turn_over(&r);
    rig_down(&r);
}

static void test_second_daemon(void **unused)
{
    (void)unused;
    struct rig r;
    struct problems why = {0};
    struct control_socket *second = NULL;
    rig_up(&r, "", 0);
    struct control_socket_opts o = {
        .event = r.event, .fd = -1, .path = r.address.sun_path, .group = "", .run = run};
    assert_int_equal(control_socket_open(&second, &o, &why), -EADDRINUSE);
    assert_non_null(strstr(why.text[0], "another parleyd answers there"));
    problems_free(&why);
    rig_down(&r);
}

static void test_long_line(void **unused)
{
    (void)unused;
    struct rig r;
    char text[8192], block[4096];
    rig_up(&r, "", 0);
    int fd = client(&r);
    memset(block, 'x', sizeof(block));
    for (int i = 0; i < 2 * CONTROL_LINE_MAX / (int)sizeof(block); i++) {
        (void)!send(fd, block, sizeof(block), MSG_NOSIGNAL);
        turn_over(&r);
    }
    hear(fd, text, sizeof(text));
    assert_non_null(strstr(text, "the line is too long"));
    assert_int_equal(hear(fd, text, sizeof(text)), -1);
    close(fd);
    rig_down(&r);
}

static void test_too_many(void **unused)
{
    (void)unused;
    struct rig r;
    char text[256];
    int fd[CONTROL_CLIENTS + 1];
    rig_up(&r, "", 0);
    for (int i = 0; i <= CONTROL_CLIENTS; i++) {
        fd[i] = client(&r);
        turn_over(&r);
    }
    hear(fd[CONTROL_CLIENTS], text, sizeof(text));
    assert_non_null(strstr(text, "too many connections"));
    close(fd[0]);
    turn_over(&r);
    int again = client(&r);
    say(again, "{\"cmd\":\"mute\"}\n");
    turn_over(&r);
    assert_true(hear(again, text, sizeof(text)) > 0);
    close(again);
    for (int i = 1; i <= CONTROL_CLIENTS; i++)
        close(fd[i]);
    turn_over(&r);
    rig_down(&r);
}

/* A watcher that does not read costs a bounded queue; when it reads again it is told what it has
 * missed. The one beside it misses nothing. */
static void test_watchers(void **unused)
{
    (void)unused;
    struct rig r;
    enum { LINES = 20000 };
    static char text[CONTROL_QUEUE_MAX * 8];
    rig_up(&r, "", 0);
    int slow = client(&r), quick = client(&r);
    say(slow, "{\"cmd\":\"watch\"}\n");
    say(quick, "{\"cmd\":\"watch\"}\n");
    turn_over(&r);
    assert_int_equal(control_socket_watchers(r.server), 2);
    hear(quick, text, sizeof(text));
    size_t quickly = 0, lost = 0, slowly = 0;
    for (int i = 0; i < LINES; i++) {
        char line[64];
        int n =
            snprintf(line, sizeof(line), "{\"event\":\"e\",\"n\":%d,\"pad\":\"0123456789\"}\n", i);
        control_socket_publish(r.server, line, (size_t)n);
        turn_over(&r);
        hear(quick, text, sizeof(text));
        for (char *c = text; (c = strchr(c, '\n')) != NULL; c++)
            quickly++;
    }
    assert_int_equal(quickly, LINES);
    for (int i = 0; i < 100; i++) {
        hear(slow, text, sizeof(text));
        for (char *c = text; (c = strstr(c, "\"event\":\"e\"")) != NULL; c++)
            slowly++;
        char *told = strstr(text, "\"event\":\"lost\",\"lines\":");
        if (told != NULL)
            lost += strtoul(strrchr(told, ':') + 1, NULL, 10);
        turn_over(&r);
    }
    assert_true(lost > 0);
    assert_int_equal(slowly + lost, LINES);
    close(slow);
    close(quick);
    turn_over(&r);
    assert_int_equal(control_socket_watchers(r.server), 0);
    rig_down(&r);
}

/* Requests without reading the answers: the server stops reading, nothing grows. */
static void test_deaf_asker(void **unused)
{
    (void)unused;
    struct rig r;
    rig_up(&r, "", 0);
    int fd = client(&r), sent = 0;
    static const char line[] = "{\"cmd\":\"say\",\"text\":\"once more\"}\n";
    for (int i = 0; i < 100000; i++) {
        sent += send(fd, line, sizeof(line) - 1, MSG_NOSIGNAL) == (ssize_t)sizeof(line) - 1;
        turn_over(&r);
    }
    assert_true(r.calls > 100);
    assert_true(r.calls < 100000 && sent < 100000);
    close(fd);
    turn_over(&r);
    rig_down(&r);
}

static void test_quiet(void **unused)
{
    (void)unused;
    struct rig r;
    char text[256];
    rig_up(&r, "", 1);
    int silent = client(&r), watcher = client(&r);
    say(watcher, "{\"cmd\":\"watch\"}\n");
    for (int i = 0; i < 20; i++)
        sd_event_run(r.event, 100000);
    assert_int_equal(hear(silent, text, sizeof(text)), -1);
    assert_true(hear(watcher, text, sizeof(text)) > 0);
    assert_int_equal(hear(watcher, text, sizeof(text)), 0);
    close(silent);
    close(watcher);
    turn_over(&r);
    rig_down(&r);
}

/* Somebody else's process: refused, whatever the mode of the socket says. */
static void test_credentials(void **unused)
{
    (void)unused;
    struct rig r;
    if (geteuid() != 0) {
        print_message("skip: needs root to become somebody else\n");
        skip();
    }
    rig_up(&r, "daemon", 0);
    chmod(r.dir, 0755);
    chmod(r.address.sun_path, 0666);
    const struct {
        gid_t gid;
        bool extra, allowed;
    } cases[] = {{65534, false, false}, {1, false, true}, {65534, true, true}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        int calls = r.calls;
        pid_t pid = fork();
        if (pid == 0) {
            char text[512];
            gid_t daemon = 1;
            int fd;
            if (setgroups(cases[i].extra, &daemon) < 0 || setgid(cases[i].gid) < 0 ||
                setuid(65534) < 0 || (fd = socket(AF_UNIX, SOCK_STREAM, 0)) < 0 ||
                connect(fd, (struct sockaddr *)&r.address, sizeof(r.address)) < 0)
                _exit(9);
            (void)!send(fd, "{\"cmd\":\"mute\"}\n", 15, MSG_NOSIGNAL);
            ssize_t n = recv(fd, text, sizeof(text) - 1, 0);
            text[n > 0 ? n : 0] = '\0';
            _exit(strstr(text, "\"ok\":true") ? 0 : strstr(text, "not allowed") ? 1 : 2);
        }
        int status = 0;
        while (waitpid(pid, &status, WNOHANG) == 0)
            sd_event_run(r.event, 20000);
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), cases[i].allowed ? 0 : 1);
        assert_int_equal(r.calls - calls, cases[i].allowed);
    }
    rig_down(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lines),         cmocka_unit_test(test_rubbish),
        cmocka_unit_test(test_memory_short),  cmocka_unit_test(test_socket),
        cmocka_unit_test(test_second_daemon), cmocka_unit_test(test_long_line),
        cmocka_unit_test(test_too_many),      cmocka_unit_test(test_watchers),
        cmocka_unit_test(test_deaf_asker),    cmocka_unit_test(test_quiet),
        cmocka_unit_test(test_credentials),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
