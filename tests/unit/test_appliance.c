/*
 * tests/unit/test_appliance.c - buttons and commands meet at the microphone: whatever comes in
 * between, after "muted" it is closed.
 */
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include <errno.h>
#include <sndfile.h>

#include "base/util.h"
#include "daemon/appliance.h"
#include "daemon/state_file.h"
#include "tests/support/talk.h"

static struct appliance a;
static bool no_memory; /* for formatted text */

/* The C library's, but for that. */
int asprintf(char **text, const char *fmt, ...)
{
    va_list args;
    if (no_memory)
        return -1;
    va_start(args, fmt);
    int n = vasprintf(text, fmt, args);
    va_end(args);
    return n;
}

static int open_with(const char *capture)
{
    struct problems why = {0};
    const struct live_opts o = {.session = &a.session,
                                .capture = capture,
                                .playback = "null:",
                                .vad = SOURCE_DIR "/models/vad/silero.bin",
                                .muted = true};
    snprintf(a.record.dir, sizeof(a.record.dir), "/tmp/parley-appliance-XXXXXX");
    if (mkdtemp(a.record.dir) == NULL || live_open(&a.live, &o, &why) < 0)
        return -1;
    a.state = APPLIANCE_READY;
    a.muted = true;
    return live_start(a.live, &why);
}

static int open_all(void **unused)
{
    (void)unused;
    return open_with("null:");
}

/* Whoever presses the talk key says this: the device is opened by it, and is a file. */
static int open_question(void **unused)
{
    (void)unused;
    return open_with("wav:" SOURCE_DIR "/etc/demo/sum.wav");
}

static char mic_path[64];

/* The microphone is not there, and comes later. */
static int open_nowhere(void **unused)
{
    (void)unused;
    snprintf(mic_path, sizeof(mic_path), "wav:/tmp/parley-microphone-%d.wav", (int)getpid());
    return open_with(mic_path);
}

static int close_all(void **unused)
{
    (void)unused;
    live_stop(a.live, NULL);
    live_close(a.live);
    state_remove(a.record.dir, "starts.json");
    return rmdir(a.record.dir);
}

static enum turn_state floor_state(void)
{
    struct live_stats s;
    live_stats(a.live, &s);
    return s.now.state;
}

static bool floor_muted(void)
{
    return floor_state() == TURN_MUTED;
}

static bool mic_lost(void)
{
    struct live_stats s;
    live_stats(a.live, &s);
    return s.mic_lost;
}

static void wait_floor(bool muted)
{
    for (int ms = 0; floor_muted() != muted; ms += 10) {
        if (ms > 30000)
            fail_msg("the microphone is still %s", muted ? "open" : "closed");
        usleep(10000);
    }
}

static void wait_state(enum turn_state state)
{
    for (int ms = 0; floor_state() != state; ms += 10) {
        if (ms > 30000)
            fail_msg("still %s, expected %s", turn_state_name(floor_state()),
                     turn_state_name(state));
        usleep(10000);
    }
}

/* What `ctl status` and the metrics tell. */
static bool told_muted(void)
{
    const struct control_request asked[] = {{.cmd = CONTROL_STATUS}, {.cmd = CONTROL_METRICS}};
    json_t *reply = json_object();
    assert_int_equal(appliance_control(&a, &asked[0], reply, NULL), 0);
    assert_int_equal(appliance_control(&a, &asked[1], reply, NULL), 0);
    bool yes = json_is_true(json_object_get(reply, "muted"));
    const char *metrics = json_string_value(json_object_get(reply, "text"));
    assert_non_null(strstr(metrics, yes ? "parley_muted 1\n" : "parley_muted 0\n"));
    json_decref(reply);
    return yes;
}

static void command(enum control_cmd cmd)
{
    const struct control_request r = {.cmd = cmd};
    json_t *reply = json_object();
    assert_int_equal(appliance_control(&a, &r, reply, NULL), 0);
    json_decref(reply);
}

/* The talk key opens a muted microphone for as long as it is held. */
static void test_push_to_talk(void **unused)
{
    (void)unused;
    wait_floor(true);
    assert_true(told_muted());
    appliance_button(&a, BUTTON_TALK, true);
    wait_floor(false);
    assert_false(told_muted());
    appliance_button(&a, BUTTON_TALK, false);
    wait_floor(true);
    assert_true(a.muted && told_muted());
}

/* What was said until the release is answered, though it is muted again; and so is what is said
 * after the key has taken the floor from the answer. */
static void test_question(void **unused)
{
    (void)unused;
    struct live_stats s;
    wait_floor(true);
    for (int i = 0; i < 2; i++) {
        appliance_button(&a, BUTTON_TALK, true);
        wait_state(TURN_LISTENING);
        usleep(1200000); /* not to its end */
        appliance_button(&a, BUTTON_TALK, false);
        assert_true(told_muted());
        wait_state(TURN_SPEAKING);
    }
    wait_floor(true);
    live_stats(a.live, &s);
    assert_int_equal(s.now.turns, 2);
    assert_int_equal(s.now.replies, 2);
    assert_int_equal(s.audio.mic_lost, 0);
}

/* Muted it needs no microphone; unmuted it waits for one as for one that was pulled. */
static void test_no_microphone(void **unused)
{
    (void)unused;
    wait_floor(true);
    usleep(300000);
    assert_false(mic_lost());
    command(CONTROL_UNMUTE);
    for (int ms = 0; !mic_lost() && ms < 30000; ms += 10)
        usleep(10000);
    assert_true(mic_lost());
    assert_int_equal(symlink(SOURCE_DIR "/etc/demo/sum.wav", mic_path + strlen("wav:")), 0);
    wait_state(TURN_LISTENING);
    assert_false(mic_lost());
    unlink(mic_path + strlen("wav:"));
}

/* Of a loudspeaker's file: from its first sound to its last, in ms. */
static int sounding_ms(const char *path)
{
    SF_INFO info = {0};
    SNDFILE *f = sf_open(path, SFM_READ, &info);
    assert_non_null(f);
    long first = -1, last = 0;
    float x;
    for (long i = 0; sf_readf_float(f, &x, 1) == 1; i++) {
        if (x < 0.02f)
            continue;
        first = first < 0 ? i : first;
        last = i;
    }
    sf_close(f);
    return first < 0 ? 0 : (int)((last - first) * 1000 / info.samplerate);
}

/* The first start of an installation says that no network is needed, the next ones are ready. Muted
 * it says nothing, and says it later. */
static void test_greeting(void **unused)
{
    (void)unused;
    static const struct {
        bool muted;
        int least_ms, most_ms;
    } starts[] = {{true, 0, 0}, {false, 600, 720}, {false, 200, 330}};
    struct live *running = a.live;
    int ms[ARRAY_LEN(starts)];
    char path[64], device[80];
    snprintf(path, sizeof(path), "%.40s/out.wav", a.record.dir);
    snprintf(device, sizeof(device), "wav:%s", path);
    const struct live_opts o = {.session = &a.session,
                                .capture = "null:",
                                .playback = device,
                                .vad = SOURCE_DIR "/models/vad/silero.bin"};
    for (size_t i = 0; i < ARRAY_LEN(starts); i++) {
        assert_int_equal(live_open(&a.live, &o, NULL), 0);
        assert_int_equal(live_start(a.live, NULL), 0);
        a.muted = starts[i].muted;
        appliance_greet(&a);
        usleep(2000000);
        live_stop(a.live, NULL);
        live_close(a.live);
        ms[i] = sounding_ms(path);
    }
    unlink(path);
    a.live = running;
    for (size_t i = 0; i < ARRAY_LEN(starts); i++)
        assert_in_range(ms[i], starts[i].least_ms, starts[i].most_ms);
}

/* Muting while the key is held closes at once, and releasing it opens nothing. */
static void test_mute_while_held(void **unused)
{
    (void)unused;
    wait_floor(true);
    appliance_button(&a, BUTTON_TALK, true);
    wait_floor(false);
    command(CONTROL_MUTE);
    wait_floor(true);
    appliance_button(&a, BUTTON_TALK, false);
    usleep(100000);
    assert_true(floor_muted() && a.muted);
}

/* Unmuting while it is held leaves the microphone open after the release. */
static void test_unmute_while_held(void **unused)
{
    (void)unused;
    wait_floor(true);
    appliance_button(&a, BUTTON_TALK, true);
    wait_floor(false);
    command(CONTROL_UNMUTE);
    appliance_button(&a, BUTTON_TALK, false);
    usleep(100000);
    assert_false(floor_muted() || a.muted);
    appliance_button(&a, BUTTON_MUTE, true);
    wait_floor(true);
}

/* What cannot be announced is not recorded. */
static void test_silent_recording(void **unused)
{
    (void)unused;
    struct problems why = {0};
    struct live *running = a.live;
    const struct control_request r = {.cmd = CONTROL_RECORD, .number = 1};
    const struct live_opts o = {.session = &a.session,
                                .capture = "null:",
                                .playback = "null:",
                                .vad = SOURCE_DIR "/models/vad/silero.bin"};
    json_t *reply = json_object();
    assert_int_equal(live_open(&a.live, &o, &why), 0); /* no thread takes what it is told */
    while (live_event(a.live, TURN_WAKE) == 0)
        ;
    a.conf = (struct conf){.recording = true, .recording_max_s = 1, .state = a.record.dir};
    a.volume = 100;
    assert_int_equal(appliance_control(&a, &r, reply, &why), -EAGAIN);
    assert_null(a.recording);
    live_close(a.live);
    a.live = running;
    json_decref(reply);
    problems_free(&why);
}

static void line(const char *text)
{
    appliance_event_line(&a, text, strlen(text));
}

/* End of speech to the end of its turn; what is written between them or later is no part of it. */
static void test_endpoint(void **unused)
{
    (void)unused;
    const struct histogram *h = &a.metrics.endpoint;
    uint64_t n = 0;
    char path[PATH_MAX + 16];
    snprintf(path, sizeof(path), "%s/control", a.record.dir);
    assert_true(sd_event_new(&a.event) >= 0);
    const struct control_socket_opts o = {.event = a.event, .fd = -1, .path = path, .group = ""};
    assert_int_equal(control_socket_open(&a.control, &o, NULL), 0);
    a.metrics = (struct metrics){0};
    assert_int_equal(history_open(&a.history, 20, NULL, NULL), 0);
    line("{\"at\":16000,\"event\":\"speech_end\",\"age\":1600}");
    line("{\"at\":24000,\"event\":\"tick\",\"actions\":[\"hear_end\",\"commit\"]}");
    assert_float_equal(h->sum, 0.6, 1e-9);
    line("{\"at\":9600000,\"event\":\"asked\",\"actions\":[\"hear\",\"hear_end\",\"commit\"]}");
    line("{\"at\":9700000,\"event\":\"speech_end\",\"age\":1600}");
    line("{\"at\":9900000,\"event\":\"asked\",\"actions\":[\"hear\",\"hear_end\",\"commit\"]}");
    line("{\"at\":9910000,\"event\":\"speech_end\",\"age\":1600}");
    line("{\"at\":9911000,\"event\":\"speech_onset\",\"age\":800}");
    line("{\"at\":9926000,\"event\":\"tick\",\"actions\":[\"commit\"]}"); /* turn_max */
    assert_float_equal(h->sum, 0.6, 1e-9);
    line("{\"at\":9940000,\"event\":\"speech_end\",\"age\":0}");
    line("{\"at\":9948000,\"event\":\"tick\",\"actions\":[\"commit\"]}");
    assert_float_equal(h->sum, 1.1, 1e-9);
    for (int i = 0; i < METRICS_BUCKETS; i++)
        n += h->count[i];
    assert_int_equal(n, 2);
    history_close(&a.history);
    control_socket_close(a.control);
    a.event = sd_event_unref(a.event);
}

/* However long the history is, the newest of it can be asked for. */
static void test_long_history(void **unused)
{
    (void)unused;
    static char text[2000];
    const struct control_request r = {.cmd = CONTROL_HISTORY};
    json_t *reply = json_object();
    memset(text, 'x', sizeof(text) - 1);
    assert_int_equal(history_open(&a.history, 1000, NULL, NULL), 0);
    for (int i = 0; i < 300; i++)
        assert_int_equal(history_add(&a.history, i, "person", text), 0);
    assert_int_equal(appliance_control(&a, &r, reply, NULL), 0);
    json_t *turns = json_object_get(reply, "turns");
    json_int_t left_out = json_integer_value(json_object_get(reply, "left_out"));
    assert_int_equal((json_int_t)json_array_size(turns) + left_out, 300);
    assert_in_range(left_out, 100, 250);
    assert_true(
        json_equal(json_array_get(turns, 0), json_array_get(a.history.turns, (size_t)left_out)));
    assert_true(json_dumpb(reply, NULL, 0, JSON_COMPACT) < CONTROL_QUEUE_MAX - 500);
    json_decref(reply);
    history_close(&a.history);
}

/* Without its system text it does not begin: the next start is told why. */
static void test_no_system_text(void **unused)
{
    (void)unused;
    char dir[] = "/tmp/parley-appliance-XXXXXX", text[512], file[64], *found;
    struct problems why = {0};
    struct conf conf;
    size_t n;
    int status;
    assert_non_null(mkdtemp(dir));
    snprintf(text, sizeof(text),
             "[speech]\nlanguage = German\n[model]\npath = %s\n"
             "[control]\ngroup =\nsocket = %s/control\n[service]\nstate = %s\n",
             dir, dir, dir);
    assert_int_equal(conf_parse(&conf, text, strlen(text), "conf", &why), 0);
    pid_t pid = fork();
    if (pid == 0) {
        no_memory = true;
        _exit(appliance_run(&conf, NULL));
    }
    conf_free(&conf);
    waitpid(pid, &status, 0);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 1);
    snprintf(file, sizeof(file), "%s/starts.json", dir);
    assert_int_equal(read_file(&found, &n, file, 4096), 0);
    assert_non_null(strstr(found, "no memory for the system text"));
    free(found);
    state_remove(dir, "starts.json");
    assert_int_equal(rmdir(dir), 0);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, open_all, close_all)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_push_to_talk),
        cmocka_unit_test_setup_teardown(test_question, open_question, close_all),
        cmocka_unit_test_setup_teardown(test_no_microphone, open_nowhere, close_all),
        TEST(test_greeting),
        TEST(test_mute_while_held),
        TEST(test_unmute_while_held),
        TEST(test_silent_recording),
        TEST(test_endpoint),
        TEST(test_long_history),
        cmocka_unit_test(test_no_system_text),
    };
    if (!talk_model(&a.session, 2048))
        return 77;
    int failures = cmocka_run_group_tests(tests, NULL, NULL);
    session_close(&a.session);
    return failures;
}
