/*
 * tests/unit/test_parleyd.c - the service as its manager and its owner meet it: a real process, the
 * small model, silent devices, a notification socket and the control socket of our own.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
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

#include <jansson.h>

#include "base/util.h"
#include "daemon/scenario.h"
#include "daemon/sound_file.h"

#ifdef PARLEY_EMULATED
#define EMULATOR PARLEY_EMULATED
#else
#define EMULATOR ""
#endif
#define PROGRAM BINARY_DIR "/parleyd"
#define MODEL   SOURCE_DIR "/models/parley-mini"
#define VAD     SOURCE_DIR "/models/vad/silero.bin"

enum { PATIENCE_MS = 60000 }; /* sanitizers on a busy machine */

struct rig {
    char dir[32], conf[64], control[64], state[64], model[256];
    int notify;    /* socket of the service manager */
    int listening; /* handed over at the start; 0 = none */
    pid_t pid;
    bool ready;
};

static void write_conf_mic(struct rig *r, const char *capture, const char *more)
{
    FILE *f = fopen(r->conf, "we");
    fprintf(f,
            "[model]\npath = %s\ncontext = 2048\n[audio]\ncapture = %s\nplayback = null:\n"
            "realtime = no\nvad = %s\n"
            "[control]\nsocket = %s\ngroup =\n[service]\nstate = %s\n%s",
            r->model, capture, VAD, r->control, r->state, more);
    fclose(f);
}

static void write_conf(struct rig *r, const char *more)
{
    write_conf_mic(r, "null:", more);
}

static int rig_up(void **state)
{
    struct rig *r = calloc(1, sizeof(*r));
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    snprintf(r->dir, sizeof(r->dir), "/tmp/parleyd-XXXXXX");
    if (mkdtemp(r->dir) == NULL)
        return -1;
    snprintf(r->conf, sizeof(r->conf), "%s/conf", r->dir);
    snprintf(r->model, sizeof(r->model), "%s", MODEL);
    snprintf(r->control, sizeof(r->control), "%s/control", r->dir);
    snprintf(r->state, sizeof(r->state), "%s/state", r->dir);
    mkdir(r->state, 0700);
    snprintf(a.sun_path, sizeof(a.sun_path), "%s/notify", r->dir);
    r->notify = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (bind(r->notify, (struct sockaddr *)&a, sizeof(a)) < 0)
        return -1;
    write_conf(r, "");
    *state = r;
    return 0;
}

static int rig_down(void **state)
{
    struct rig *r = *state;
    if (r->pid > 0) {
        kill(r->pid, SIGKILL);
        waitpid(r->pid, NULL, 0);
    }
    close(r->notify);
    pid_t pid = fork();
    if (pid == 0) {
        execlp("rm", "rm", "-rf", r->dir, (char *)NULL);
        _exit(127);
    }
    waitpid(pid, NULL, 0);
    free(r);
    return 0;
}

static void execute(const struct rig *r)
{
    char command[1024];
    snprintf(command, sizeof(command), "exec %s %s --config %s", EMULATOR, PROGRAM, r->conf);
    execl("/bin/sh", "sh", "-c", command, (char *)NULL);
}

/* As the manager does it; in the child. */
static void hand_over(const struct rig *r)
{
    char pid[16];
    if (r->listening == 0)
        return;
    dup2(r->listening, 3);
    snprintf(pid, sizeof(pid), "%d", (int)getpid());
    setenv("LISTEN_PID", pid, 1);
    setenv("LISTEN_FDS", "1", 1);
}

static void start(struct rig *r)
{
    char socket[128];
    snprintf(socket, sizeof(socket), "%s/notify", r->dir);
    r->ready = false;
    r->pid = fork();
    if (r->pid == 0) {
        setenv("NOTIFY_SOCKET", socket, 1);
        setenv("WATCHDOG_USEC", "2000000", 1);
        int fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
        dup2(fd, STDERR_FILENO);
        hand_over(r);
        execute(r);
        _exit(127);
    }
}

static bool gone(const struct rig *r)
{
    siginfo_t info = {0};
    return waitid(P_PID, (id_t)r->pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 &&
           info.si_pid == r->pid;
}

/* Waits until the service says something that contains `text`; false if it ends before. */
static bool notified(struct rig *r, const char *text)
{
    char said[1024];
    for (int ms = 0; ms < PATIENCE_MS; ms += 100) {
        struct pollfd p = {.fd = r->notify, .events = POLLIN};
        if (poll(&p, 1, 100) == 1) {
            ssize_t n = recv(r->notify, said, sizeof(said) - 1, 0);
            said[n > 0 ? n : 0] = '\0';
            r->ready = r->ready || strstr(said, "READY=1") != NULL;
            if (strstr(said, text) != NULL)
                return true;
        } else if (gone(r)) {
            return false;
        }
    }
    return false;
}

static void start_ready(struct rig *r)
{
    start(r);
    if (!notified(r, "READY=1"))
        fail_msg("parleyd did not become ready");
}

/* A manager that does not read would hold parleyd up. */
static void hear_out(struct rig *r)
{
    char said[1024];
    ssize_t n;
    while ((n = recv(r->notify, said, sizeof(said), MSG_DONTWAIT)) > 0)
        r->ready = r->ready || memmem(said, (size_t)n, "READY=1", 7) != NULL;
}

static int ended(struct rig *r)
{
    int status;
    for (int ms = 0; ms < PATIENCE_MS; ms += 10) {
        hear_out(r);
        if (waitpid(r->pid, &status, WNOHANG) == r->pid) {
            r->pid = 0;
            return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
        }
        usleep(10000);
    }
    fail_msg("parleyd did not end");
    return -1;
}

static void killed(struct rig *r)
{
    kill(r->pid, SIGKILL);
    assert_int_equal(ended(r), -SIGKILL);
}

/* A request and its reply. */
static json_t *control(struct rig *r, const char *request)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    char *line = NULL;
    size_t cap = 0;
    hear_out(r);
    snprintf(a.sun_path, sizeof(a.sun_path), "%s", r->control);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    for (int i = 0; connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0; i++) {
        if (i == 1000)
            fail_msg("control socket: %s", strerror(errno));
        usleep(10000);
    }
    FILE *f = fdopen(fd, "r+");
    dprintf(fd, "%s\n", request);
    assert_true(getline(&line, &cap, f) > 0);
    json_t *reply = json_loads(line, 0, NULL);
    assert_non_null(reply);
    fclose(f);
    free(line);
    return reply;
}

static int unix_socket(const char *path, int (*use)(int, const struct sockaddr *, socklen_t))
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    snprintf(a.sun_path, sizeof(a.sun_path), "%s", path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(use(fd, (const struct sockaddr *)&a, sizeof(a)), 0);
    return fd;
}

/* Lines of the event log from now on. */
static FILE *watch(const struct rig *r)
{
    char reply[64];
    int fd = unix_socket(r->control, connect);
    dprintf(fd, "{\"cmd\":\"watch\"}\n");
    FILE *f = fdopen(fd, "r");
    setvbuf(f, NULL, _IONBF, 0); /* what is there can be polled for */
    assert_non_null(fgets(reply, sizeof(reply), f));
    return f;
}

/* The next line with this text; the caller frees. Meanwhile the manager reads what it is told. */
static char *watched(struct rig *r, FILE *f, const char *text)
{
    char *line = NULL;
    size_t cap = 0;
    struct pollfd p = {.fd = fileno(f), .events = POLLIN};
    for (int ms = 0; line == NULL || strstr(line, text) == NULL;) {
        hear_out(r);
        if (poll(&p, 1, 100) == 1)
            assert_true(getline(&line, &cap, f) > 0);
        else
            assert_true((ms += 100) < PATIENCE_MS);
    }
    return line;
}

static void accepted(struct rig *r, const char *request)
{
    json_t *reply = control(r, request);
    if (!json_is_true(json_object_get(reply, "ok")))
        fail_msg("%s: %s", request, json_string_value(json_object_get(reply, "error")));
    json_decref(reply);
}

static void status_has(struct rig *r, const char *key, json_t *wanted)
{
    json_t *reply = control(r, "{\"cmd\":\"status\"}");
    json_t *found = json_object_get(reply, key);
    if (!json_equal(found, wanted))
        fail_msg("%s in %s", key, json_dumps(reply, 0));
    json_decref(wanted);
    json_decref(reply);
}

/* The reply to this has this text somewhere, sooner or later. */
static void wait_text(struct rig *r, const char *request, const char *wanted)
{
    for (int ms = 0; ms < PATIENCE_MS; ms += 50) {
        json_t *reply = control(r, request);
        char *text = json_dumps(reply, 0);
        bool found = strstr(text, wanted) != NULL;
        free(text);
        json_decref(reply);
        if (found)
            return;
        usleep(50000);
    }
    fail_msg("%s: never '%s'", request, wanted);
}

static void test_ready_and_stopped(void **state)
{
    struct rig *r = *state;
    start_ready(r);
    status_has(r, "state", json_string("ready"));
    status_has(r, "floor", json_string("idle"));
    assert_true(notified(r, "WATCHDOG=1"));
    kill(r->pid, SIGTERM);
    assert_true(notified(r, "STOPPING=1"));
    assert_int_equal(ended(r), 0);
    assert_int_equal(access(r->control, F_OK), -1);
}

static void test_mute_and_volume_outlast(void **state)
{
    struct rig *r = *state;
    start_ready(r);
    accepted(r, "{\"cmd\":\"mute\"}");
    accepted(r, "{\"cmd\":\"volume\",\"number\":35}");
    killed(r);
    start_ready(r);
    status_has(r, "muted", json_true());
    status_has(r, "volume", json_integer(35));
    for (int i = 0; i < 500; i++) { /* the floor has been told */
        json_t *reply = control(r, "{\"cmd\":\"status\"}");
        const char *floor = json_string_value(json_object_get(reply, "floor"));
        bool muted = floor != NULL && strcmp(floor, "muted") == 0;
        json_decref(reply);
        if (muted)
            break;
        usleep(10000);
    }
    status_has(r, "floor", json_string("muted"));
    accepted(r, "{\"cmd\":\"unmute\"}");
    kill(r->pid, SIGTERM);
    assert_int_equal(ended(r), 0);
}

static void test_crash_loop(void **state)
{
    struct rig *r = *state;
    for (int i = 0; i < 3; i++) {
        start(r);
        assert_true(notified(r, i < 2 ? "READY=1" : "STATUS=waiting 5 s after a crash"));
        status_has(r, "quick_crashes", json_integer(i));
        killed(r);
    }
    start(r);
    assert_true(notified(r, "STATUS=safe mode after 3 quick crashes"));
    status_has(r, "state", json_string("safe"));
    assert_false(r->ready);
    json_t *reply = control(r, "{\"cmd\":\"wake\"}");
    const char *error = json_string_value(json_object_get(reply, "error"));
    assert_string_equal(error, "safe mode after 3 quick crashes: it crashed or was killed in phase "
                               "'pausing'");
    json_decref(reply);
    kill(r->pid, SIGTERM);
    assert_int_equal(ended(r), 0);
    start_ready(r); /* somebody restarted it: a new beginning */
    status_has(r, "quick_crashes", json_integer(0));
}

/* Bytes of `text` as the model's config.json, and nothing else of a model. */
static void bare_model(struct rig *r, const char *text)
{
    char path[300];
    snprintf(r->model, sizeof(r->model), "%s/model", r->dir);
    mkdir(r->model, 0700);
    snprintf(path, sizeof(path), "%s/config.json", r->model);
    FILE *f = fopen(path, "we");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
    write_conf(r, "");
}

/* What loading stumbles over leads to safe mode as well, which says it. */
static void test_spoilt_model(void **state)
{
    struct rig *r = *state;
    bare_model(r, "{}");
    for (int i = 0; i < 3; i++) {
        start(r);
        if (i == 1) {
            assert_true(notified(r, "STATUS=waiting 1 s after a crash: "));
            json_t *reply = control(r, "{\"cmd\":\"status\"}");
            const char *why = json_string_value(json_object_get(reply, "last_end"));
            assert_non_null(strstr(why, "config.json"));
            json_decref(reply);
        }
        assert_true(notified(r, "STATUS=failed: "));
        assert_int_equal(ended(r), 1);
        assert_false(r->ready);
    }
    start(r);
    assert_true(notified(r, "STATUS=safe mode after 3 quick crashes: config.json"));
    json_t *reply = control(r, "{\"cmd\":\"history\"}");
    assert_true(json_is_array(json_object_get(reply, "turns")));
    json_decref(reply);
    kill(r->pid, SIGTERM);
    assert_int_equal(ended(r), 0);
}

/* A microphone that is not there is waited for; meanwhile nobody writes to the disk, and a reload
 * makes nothing ready. */
static void test_no_microphone(void **state)
{
    struct rig *r = *state;
    char file[128];
    struct stat before, after;
    snprintf(file, sizeof(file), "%s/starts.json", r->state);
    write_conf_mic(r, "alsa:hw:CARD=nowhere", "");
    start(r);
    assert_true(notified(r, "STATUS=waiting: "));
    write_conf_mic(r, "alsa:hw:CARD=nowhere", "[audio]\nvolume = 35\n");
    kill(r->pid, SIGHUP);
    wait_text(r, "{\"cmd\":\"status\"}", "\"volume\": 35");
    status_has(r, "state", json_string("opening"));
    assert_true(notified(r, "STATUS=waiting: "));
    assert_int_equal(stat(file, &before), 0);
    for (int i = 0; i < 3; i++)
        assert_true(notified(r, "STATUS=waiting: "));
    assert_false(r->ready);
    accepted(r, "{\"cmd\":\"forget\"}");
    assert_int_equal(stat(file, &after), 0);
    assert_memory_equal(&before.st_mtim, &after.st_mtim, sizeof(before.st_mtim));
    kill(r->pid, SIGTERM);
    assert_int_equal(ended(r), 0);
}

static void test_bad_configuration(void **state)
{
    struct rig *r = *state;
    static const char *const bad[] = {
        "log_level = loud\n",
        "[speech]\nsystem_file = /nowhere\n",
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        write_conf(r, bad[i]);
        start(r);
        assert_int_equal(ended(r), 2);
    }
    write_conf_mic(r, "foo:bar", "");
    start(r);
    assert_int_equal(ended(r), 2);
}

/* Whoever waits at the manager's socket is told why nobody will answer, and is gone from there: the
 * manager has no reason to start it again. */
static void test_bad_configuration_is_told(void **state)
{
    struct rig *r = *state;
    char line[512] = "";
    write_conf(r, "log_level = lo\xff\n");
    r->listening = unix_socket(r->control, bind);
    assert_int_equal(listen(r->listening, 16), 0);
    int asks = unix_socket(r->control, connect), silent = unix_socket(r->control, connect);
    dprintf(asks, "{\"cmd\":\"status\"}\n");
    start(r);
    assert_int_equal(ended(r), 2);
    struct pollfd waiting = {.fd = r->listening, .events = POLLIN};
    assert_int_equal(poll(&waiting, 1, 0), 0);
    assert_true(recv(asks, line, sizeof(line) - 1, MSG_DONTWAIT) > 0);
    assert_non_null(strstr(line, "\"ok\":false"));
    assert_non_null(strstr(line, "bad configuration: "));
    assert_non_null(strstr(line, "[service] log_level: found 'lo?', expected one of error,"));
    assert_true(recv(silent, line, sizeof(line) - 1, MSG_DONTWAIT) > 0);
    close(asks);
    close(silent);
    close(r->listening);
}

static void test_reload(void **state)
{
    struct rig *r = *state;
    start_ready(r);
    accepted(r, "{\"cmd\":\"volume\",\"number\":35}");
    write_conf(r, "log_level = error\n[audio]\nnoise = yes\n");
    kill(r->pid, SIGHUP);
    assert_true(notified(r, "RELOADING=1"));
    assert_true(notified(r, "READY=1"));
    status_has(r, "volume", json_integer(35)); /* the file says nothing new of it */
    write_conf(r, "log_level = rubbish\n");
    kill(r->pid, SIGHUP);
    assert_true(notified(r, "READY=1"));
    status_has(r, "state", json_string("ready"));
    kill(r->pid, SIGTERM);
    assert_int_equal(ended(r), 0);
}

/* Any moment is a good one to be stopped. */
static void test_stopped_at_any_time(void **state)
{
    struct rig *r = *state;
    for (int i = 0; i < 20; i++) {
        start(r);
        usleep((useconds_t)(i * 15000));
        kill(r->pid, SIGTERM);
        int code = ended(r); /* before main() has blocked it, the signal itself ends it */
        assert_true(code == 0 || code == -SIGTERM);
    }
    start_ready(r);
    kill(r->pid, SIGTERM);
    kill(r->pid, SIGTERM);
    int code = ended(r);
    assert_true(code == 0 || code == -SIGTERM);
}

/* Seconds from STOPPING=1 to the end, while the loader's thread waits for a file. */
static double stop_held_up(struct rig *r, const char *fifo, bool twice)
{
    int hold = -1;
    start(r);
    for (int ms = 0; hold < 0 && ms < PATIENCE_MS; ms += 10) {
        hold = open(fifo, O_WRONLY | O_NONBLOCK | O_CLOEXEC); /* not before it is read from */
        usleep(10000);
    }
    assert_true(hold >= 0);
    kill(r->pid, SIGTERM);
    assert_true(notified(r, "STOPPING=1"));
    double began = clock_seconds();
    if (twice)
        kill(r->pid, SIGTERM);
    assert_int_equal(ended(r), 0);
    close(hold);
    return clock_seconds() - began;
}

/* The first signal gives a thread that is stuck two seconds, the second one none. */
static void test_second_signal(void **state)
{
    struct rig *r = *state;
    char file[300], fifo[300];
    bare_model(r, "");
    snprintf(file, sizeof(file), "%s/config.json", r->model);
    unlink(file);
    assert_int_equal(symlink(MODEL "/config.json", file), 0);
    snprintf(fifo, sizeof(fifo), "%s/generation_config.json", r->model);
    assert_int_equal(mkfifo(fifo, 0600), 0);
    double alone = stop_held_up(r, fifo, false), last = alone; /* an end itself may take long */
    assert_true(alone >= 1.5);
    for (int i = 0; i < 3 && last >= alone - 1; i++)
        last = stop_held_up(r, fifo, true);
    assert_true(last < alone - 1);
}

static void test_metrics_and_watch(void **state)
{
    struct rig *r = *state;
    start_ready(r);
    json_t *reply = control(r, "{\"cmd\":\"metrics\"}");
    const char *text = json_string_value(json_object_get(reply, "text"));
    assert_non_null(strstr(text, "\nparley_ready 1\n"));
    assert_non_null(strstr(text, "\nparley_starts_total 1\n"));
    assert_non_null(strstr(text, "parley_first_sound_seconds_bucket{le=\"+Inf\"} 0\n"));
    json_decref(reply);
    FILE *f = watch(r);
    accepted(r, "{\"cmd\":\"mute\"}");
    free(watched(r, f, "\"event\":\"mute\""));
    fclose(f);
}

/* Said and asked words are spoken, remembered, kept if configured, and forgotten. */
static void test_words(void **state)
{
    struct rig *r = *state;
    char file[128];
    struct stat st;
    snprintf(file, sizeof(file), "%s/history.json", r->state);
    write_conf(r, "[history]\nkeep = file\n");
    start_ready(r);
    accepted(r, "{\"cmd\":\"say\",\"text\":\"two and three.\"}");
    wait_text(r, "{\"cmd\":\"history\"}", "two and three.");
    accepted(r, "{\"cmd\":\"ask\",\"text\":\"Count to three.\"}");
    wait_text(r, "{\"cmd\":\"history\"}", "Count to three.");
    wait_text(r, "{\"cmd\":\"status\"}", "\"replies\": 2");
    assert_int_equal(stat(file, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    killed(r);
    start_ready(r);
    wait_text(r, "{\"cmd\":\"history\"}", "Count to three.");
    accepted(r, "{\"cmd\":\"forget\"}");
    wait_text(r, "{\"cmd\":\"history\"}", "\"turns\": []");
    assert_int_equal(access(file, F_OK), -1);
}

/* What was heard of a reply that forgetting cuts comes after the history is empty, and stays out.
 */
static void test_forget_within_reply(void **state)
{
    struct rig *r = *state;
    char file[128];
    snprintf(file, sizeof(file), "%s/history.json", r->state);
    write_conf(r, "[history]\nkeep = file\n");
    start_ready(r);
    FILE *f = watch(r);
    accepted(r, "{\"cmd\":\"say\",\"text\":\"one, two, three, four, five, six and seven.\"}");
    free(watched(r, f, "\"play\""));
    usleep(1500000);
    accepted(r, "{\"cmd\":\"forget\"}");
    char *line = watched(r, f, "\"event\":\"memory\"");
    if (strstr(line, "\"text\":\"one") == NULL || strstr(line, "seven") != NULL)
        fail_msg("not cut in the middle: %s", line);
    free(line);
    free(watched(r, f, "\"event\":\"forgot\""));
    wait_text(r, "{\"cmd\":\"history\"}", "\"turns\": []");
    assert_int_equal(access(file, F_OK), -1);
    accepted(r, "{\"cmd\":\"say\",\"text\":\"two and three.\"}");
    wait_text(r, "{\"cmd\":\"history\"}", "two and three.");
    fclose(f);
}

/* Nobody is recorded who would not hear it announced, or once it is not allowed any more. */
static void test_recording_is_heard(void **state)
{
    struct rig *r = *state;
    static const char record[] = "{\"cmd\":\"record\",\"number\":300}";
    static const char status[] = "{\"cmd\":\"status\"}";
    write_conf(r, "[recording]\nallow = yes\n");
    start_ready(r);
    accepted(r, "{\"cmd\":\"volume\",\"number\":0}");
    wait_text(r, record, "record: the volume is 0; below 20 nobody may hear it announced");
    accepted(r, "{\"cmd\":\"volume\",\"number\":20}");
    accepted(r, record);
    accepted(r, "{\"cmd\":\"volume\",\"number\":19}");
    status_has(r, "recording_s", json_integer(0));
    accepted(r, "{\"cmd\":\"volume\",\"number\":100}");
    usleep(1100000); /* the name of a recording is its second */
    accepted(r, record);
    write_conf(r, "");
    kill(r->pid, SIGHUP);
    wait_text(r, status, "\"recording_s\": 0,");
    wait_text(r, record, "has no allow = yes");
}

/* The folder of a recording that begins now. */
static void begin_recording(struct rig *r, int seconds, char path[256])
{
    char request[64];
    snprintf(request, sizeof(request), "{\"cmd\":\"record\",\"number\":%d}", seconds);
    json_t *reply = control(r, request);
    const char *folder = json_string_value(json_object_get(reply, "path"));
    assert_non_null(folder);
    snprintf(path, 256, "%s", folder);
    json_decref(reply);
}

/* Quiet, a question, quiet. */
static void write_question(const char *path)
{
    static float silence[16000];
    float *pcm;
    size_t n;
    struct problems why = {0};
    struct sound_writer *w;
    assert_int_equal(sound_file_read(&pcm, &n, SOURCE_DIR "/etc/demo/sum.wav", &why), 0);
    assert_int_equal(sound_writer_open(&w, path, 16000, 1, &why), 0);
    for (int i = 0; i < 12; i++)
        if (i == 3)
            sound_writer_add(w, pcm, n, &why);
        else
            sound_writer_add(w, silence, 16000, &why);
    assert_int_equal(sound_writer_close(w, &why), 0);
    free(pcm);
}

/* `parley ARGUMENTS`; the rest of the command line is the shell's. */
static pid_t start_parley(const char *arguments)
{
    char command[1024];
    snprintf(command, sizeof(command), "exec %s %s/parley %s", EMULATOR, BINARY_DIR, arguments);
    pid_t pid = fork();
    if (pid == 0) {
        execl("/bin/sh", "sh", "-c", command, (char *)NULL);
        _exit(127);
    }
    return pid;
}

/* Its exit code. */
static int end_parley(pid_t pid)
{
    int status;
    waitpid(pid, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* Who watches is told that there is nothing more to see. */
static void test_watch_ends(void **state)
{
    struct rig *r = *state;
    char arguments[512], file[64], wanted[128], *said = NULL;
    struct stat st = {0};
    size_t n;
    start_ready(r);
    snprintf(arguments, sizeof(arguments), "ctl --socket %s watch >%s/lines 2>%s/said", r->control,
             r->dir, r->dir);
    pid_t pid = start_parley(arguments);
    snprintf(file, sizeof(file), "%s/lines", r->dir);
    for (int ms = 0; st.st_size == 0 && ms < PATIENCE_MS; ms += 50) {
        accepted(r, ms % 100 == 0 ? "{\"cmd\":\"mute\"}" : "{\"cmd\":\"unmute\"}");
        usleep(50000);
        stat(file, &st);
    }
    killed(r);
    assert_int_equal(end_parley(pid), 1);
    snprintf(file, sizeof(file), "%s/said", r->dir);
    assert_int_equal(read_file(&said, &n, file, 4096), 0);
    snprintf(wanted, sizeof(wanted), "parley: %s: parleyd went away\n", r->control);
    assert_string_equal(said, wanted);
    free(said);
}

/* Not without leave, not for longer; the replay hears what was heard, and answers. */
static void test_recording(void **state)
{
    struct rig *r = *state;
    char sound[64], microphone[80], path[256], arguments[768], *events;
    size_t n;
    struct problems why = {0};
    snprintf(sound, sizeof(sound), "%s/question.wav", r->dir);
    snprintf(microphone, sizeof(microphone), "wav:%s", sound);
    write_question(sound);
    write_conf_mic(r, microphone, "[speech]\nlanguage = English\n");
    start_ready(r);
    wait_text(r, "{\"cmd\":\"record\",\"number\":1}", "has no allow = yes in [recording]");
    write_conf_mic(r, microphone,
                   "[speech]\nlanguage = English\n[recording]\nallow = yes\nmax_s = 10\n");
    kill(r->pid, SIGHUP);
    wait_text(r, "{\"cmd\":\"record\",\"number\":11}", "max_s allows 10");
    begin_recording(r, 7, path);
    wait_text(r, "{\"cmd\":\"record\",\"number\":1}", "one is being made already");
    wait_text(r, "{\"cmd\":\"status\"}", "\"recording_s\": 0,");
    snprintf(arguments, sizeof(arguments),
             "replay %s/scenario.json --model %s --vad %s/models/vad/silero.bin --no-compare "
             "--quiet --events %s/events",
             path, MODEL, SOURCE_DIR, r->dir);
    assert_int_equal(end_parley(start_parley(arguments)), 0);
    snprintf(path, sizeof(path), "%s/events", r->dir);
    assert_int_equal(read_file(&events, &n, path, 1 << 20), 0);
    const char *memory = strstr(events, "\"event\":\"memory\"");
    if (memory == NULL || strstr(memory, "fifteen") == NULL)
        fail_msg("%s", events);
    free(events);
    problems_free(&why);
}

/* Who kills it finds a recording that can be replayed, as it was heard. */
static void test_recording_killed(void **state)
{
    struct rig *r = *state;
    char path[256], file[300];
    struct scenario s;
    struct problems why = {0};
    write_conf(r,
               "[speech]\nlanguage = German\n[recording]\nallow = yes\n[turn]\nslow_ms = 1234\n");
    start_ready(r);
    begin_recording(r, 300, path);
    wait_text(r, "{\"cmd\":\"status\"}", "\"recording_s\": 298.");
    killed(r);
    snprintf(file, sizeof(file), "%s/heard.wav", path);
    assert_true(sound_file_seconds(file, &why) >= 1);
    snprintf(file, sizeof(file), "%s/scenario.json", path);
    if (scenario_read(&s, file, &why) < 0)
        fail_msg("%s", why.text[0]);
    assert_int_equal(s.length_ms, 305000);
    assert_string_equal(s.system, "The person speaks German. Answer in German.");
    assert_int_equal(s.model.context, 2048);
    assert_int_equal(s.model.max_tokens, 256);
    assert_true(s.model.sampled && s.ear.no_cancel && s.sounds[0].as_it_is && s.tell_cut);
    assert_true(s.room.echo_db <= -120 && s.room.rt60_ms == 0);
    assert_int_equal(s.turn.slow_ms, 1234);
    scenario_free(&s);
    problems_free(&why);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, rig_up, rig_down)

int main(void)
{
    const struct CMUnitTest tests[] = {TEST(test_ready_and_stopped),
                                       TEST(test_mute_and_volume_outlast),
                                       TEST(test_crash_loop),
                                       TEST(test_spoilt_model),
                                       TEST(test_bad_configuration),
                                       TEST(test_bad_configuration_is_told),
                                       TEST(test_reload),
                                       TEST(test_stopped_at_any_time),
                                       TEST(test_second_signal),
                                       TEST(test_metrics_and_watch),
                                       TEST(test_no_microphone),
                                       TEST(test_recording_is_heard),
                                       TEST(test_recording_killed),
                                       TEST(test_watch_ends),
                                       TEST(test_recording),
                                       TEST(test_words),
                                       TEST(test_forget_within_reply)};
    size_t n = ARRAY_LEN(tests);
#ifdef PARLEY_EMULATED
    n -= 3; /* a second of speech takes minutes there */
#endif
    return _cmocka_run_group_tests("tests", tests, n, NULL, NULL);
}
