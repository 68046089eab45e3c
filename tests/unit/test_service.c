/*
 * tests/unit/test_service.c - the service manager is told the right things, the watchdog sees who
 * is stuck, starts.json counts crashes through kills, power cuts, rubbish and full disks; files are
 * replaced whole.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/util.h"
#include "daemon/service.h"
#include "daemon/state_file.h"

static char dir[64];

static int make_dir(void **unused)
{
    (void)unused;
    snprintf(dir, sizeof(dir), "/tmp/parley-service-XXXXXX");
    return mkdtemp(dir) == NULL;
}

static int remove_dir(void **unused)
{
    (void)unused;
    state_remove(dir, "starts.json");
    state_remove(dir, "f");
    return rmdir(dir);
}

/* A service manager: the socket that NOTIFY_SOCKET names. */
static void test_notify(void **unused)
{
    (void)unused;
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    char text[256];
    snprintf(a.sun_path, sizeof(a.sun_path), "%s/notify", dir);
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
    setenv("NOTIFY_SOCKET", a.sun_path, 1);
    setenv("WATCHDOG_USEC", "8000000", 1);
    unsetenv("WATCHDOG_PID");
    struct watchdog w;
    static const char *const names[] = {"floor"};
    watchdog_init(&w, names, 1, 10, 0);
    assert_true(w.asked);
    assert_int_equal(w.every_us, 2000000);
    service_status("loading %d %%\nof it", 7);
    service_extend(30);
    service_ready();
    watchdog_feed(&w);
    service_stopping();
    static const char *const expected[] = {"STATUS=loading 7 % of it",
                                           "EXTEND_TIMEOUT_USEC=30000000", "READY=1", "WATCHDOG=1",
                                           "STOPPING=1"};
    for (size_t i = 0; i < ARRAY_LEN(expected); i++) {
        ssize_t n = recv(fd, text, sizeof(text) - 1, 0);
        assert_true(n > 0);
        text[n] = '\0';
        assert_string_equal(text, expected[i]);
    }
    unsetenv("NOTIFY_SOCKET");
    unsetenv("WATCHDOG_USEC");
    watchdog_init(&w, names, 1, 10, 0);
    assert_false(w.asked);
    close(fd);
    unlink(a.sun_path);
}

static void test_watchdog(void **unused)
{
    (void)unused;
    static const char *const names[] = {"floor", "work"};
    struct watchdog w;
    const uint64_t second = 1000000;
    watchdog_init(&w, names, 2, 10, 100 * second);
    uint64_t counts[2] = {0, 0};
    assert_null(watchdog_judge(&w, counts, 110 * second));
    assert_string_equal(watchdog_judge(&w, counts, 111 * second), "floor");
    counts[0] = 5;
    assert_string_equal(watchdog_judge(&w, counts, 111 * second), "work");
    counts[1] = UINT64_MAX;
    assert_null(watchdog_judge(&w, counts, 112 * second));
    counts[1]++; /* it wrapped, it moved */
    counts[0]++;
    assert_null(watchdog_judge(&w, counts, 121 * second));
    counts[0]++;
    assert_null(watchdog_judge(&w, counts, 131 * second));
    assert_string_equal(watchdog_judge(&w, counts, 131 * second + 1), "work");
}

static struct service_record begin(void)
{
    static struct service_record r;
    struct problems why = {0};
    service_begin(&r, dir, &why);
    if (why.n > 0)
        fail_msg("%s", why.text[0]);
    return r;
}

static void test_crash_loop(void **unused)
{
    (void)unused;
    static const int pauses[] = {0, 1, 5, -1, -1};
    for (int i = 0; i < 5; i++) { /* each one is killed */
        struct service_record r = begin();
        assert_int_equal(r.quick, i);
        assert_int_equal(r.starts, i + 1);
        assert_int_equal(service_pause(&r), pauses[i]);
        assert_string_equal(r.why, i > 0 ? "it crashed or was killed in phase 'loading'" : "");
        assert_int_equal(service_phase(&r, "loading"), 0);
    }
    struct service_record r = begin();
    assert_int_equal(service_end(&r, NULL), 0); /* somebody stopped it: a new beginning */
    r = begin();
    assert_int_equal(r.quick, 0);
    assert_int_equal(r.starts, 7);
    assert_string_equal(r.why, "");
}

/* Safe mode does not last for ever: one more try, then safe mode again, and the reason stays. */
static void test_retry(void **unused)
{
    (void)unused;
    for (int i = 0; i < SERVICE_CRASHES; i++) {
        struct service_record r = begin();
        service_end(&r, "model: it is not there");
    }
    for (int i = 0; i < 2; i++) {
        struct service_record r = begin();
        assert_int_equal(service_pause(&r), -1);
        service_phase(&r, "safe");
        assert_int_equal(service_retry(&r), 0);
        r = begin();
        assert_int_equal(service_pause(&r), 5);
        assert_string_equal(r.why, "model: it is not there");
        service_end(&r, "model: it is not there");
    }
}

static void test_failure_says_why(void **unused)
{
    (void)unused;
    struct service_record r = begin();
    service_end(&r, "model: config.json: No such file or directory");
    r = begin();
    assert_int_equal(r.quick, 1);
    assert_string_equal(r.why, "model: config.json: No such file or directory");
    assert_int_equal(service_end(&r, "caf\xC3\xA9/\xFF: No such file"), 0); /* no UTF-8 */
    r = begin();
    assert_int_equal(r.quick, 2);
    assert_string_equal(r.why, "caf?\?/?: No such file");
}

static void test_settled_is_no_crash(void **unused)
{
    (void)unused;
    struct service_record r = begin();
    service_phase(&r, "ready");
    service_settled(&r);
    r = begin();
    assert_int_equal(r.quick, 0);
    assert_false(r.settled);
}

static void test_power_cut_is_no_crash(void **unused)
{
    (void)unused;
    struct service_record r = begin();
    snprintf(r.boot, sizeof(r.boot), "another");
    service_phase(&r, "ready");
    r = begin();
    assert_int_equal(r.quick, 0);
}

static void test_mute_and_volume_last(void **unused)
{
    (void)unused;
    struct service_record r = begin();
    assert_false(r.muted);
    assert_int_equal(r.volume, -1);
    service_muted(&r, true);
    service_volume(&r, 35);
    r = begin(); /* killed */
    assert_true(r.muted);
    assert_int_equal(r.volume, 35);
    service_end(&r, NULL);
    r = begin(); /* stopped */
    assert_true(r.muted);
}

/* An installation greets once, also when the first run was killed. */
static void test_greeted_once(void **unused)
{
    (void)unused;
    struct service_record r = begin();
    assert_false(r.greeted);
    r = begin();
    assert_false(r.greeted);
    assert_int_equal(service_greeted(&r), 0);
    r = begin();
    assert_true(r.greeted);
}

static void test_rubbish_record(void **unused)
{
    (void)unused;
    static const char *const rubbish[] = {"", "{", "[1]", "{\"starts\":-4,\"quick_crashes\":1e9}",
                                          "{\"starts\":\"x\",\"volume\":400,\"boot\":7}"};
    for (size_t i = 0; i < ARRAY_LEN(rubbish); i++) {
        struct service_record r;
        struct problems why = {0};
        assert_int_equal(state_write(dir, "starts.json", 0600, rubbish[i], strlen(rubbish[i])), 0);
        service_begin(&r, dir, &why);
        assert_int_equal(why.n, i < 3 ? 1 : 0);
        assert_int_equal(r.muted, i < 3);
        assert_int_equal(r.starts, 1);
        assert_int_equal(r.volume, -1);
        assert_int_equal(service_pause(&r), 0);
        problems_free(&why);
    }
}

/* It is there, but the disk does not give it back: whoever muted it finds it muted. */
static void test_unreadable_record(void **unused)
{
    (void)unused;
    char path[128];
    struct service_record r;
    struct problems why = {0};
    snprintf(path, sizeof(path), "%s/starts.json", dir);
    assert_int_equal(mkdir(path, 0700), 0); /* cannot be read, nor written over */
    service_begin(&r, dir, &why);
    assert_int_equal(why.n, 2);
    assert_non_null(strstr(why.text[0], "muted"));
    assert_true(r.muted);
    problems_free(&why);
    assert_int_equal(rmdir(path), 0);
}

static void test_no_directory(void **unused)
{
    (void)unused;
    struct service_record r;
    struct problems why = {0};
    service_begin(&r, "/nowhere/parley", &why);
    assert_int_equal(why.n, 1);
    assert_non_null(strstr(why.text[0], "crashes are not counted"));
    assert_int_equal(service_pause(&r), 0);
    problems_free(&why);
}

static void test_files_are_whole(void **unused)
{
    (void)unused;
    char path[128], *text;
    size_t n;
    struct stat st;
    snprintf(path, sizeof(path), "%s/f", dir);
    assert_int_equal(state_write(dir, "f", 0640, "one", 3), 0);
    assert_int_equal(state_write(dir, "f", 0600, "second", 6), 0);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    assert_int_equal(read_file(&text, &n, path, 100), 0);
    assert_string_equal(text, "second");
    free(text);
    snprintf(path, sizeof(path), "%s/.f.new", dir);
    assert_int_equal(access(path, F_OK), -1);
    assert_int_equal(symlink("/dev/null", path), 0); /* what is in the way is not followed */
    assert_int_equal(state_write(dir, "f", 0600, "third", 5), 0);
    assert_int_equal(state_remove(dir, "f"), 0);
    assert_int_equal(state_remove(dir, "f"), 0);
    assert_int_equal(state_remove("/nowhere/parley", "f"), 0);
    assert_int_equal(state_write("/dev/full", "f", 0600, "x", 1), -ENOTDIR);
}

/* Where memory may not be locked, that is said. */
static void test_memory_not_locked(void **unused)
{
    (void)unused;
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        const struct rlimit little = {65536, 65536};
        struct problems why = {0};
        bool limited = setrlimit(RLIMIT_MEMLOCK, &little) == 0;
        service_lock_memory(&why);
        bool said = why.n == 1 && strstr(why.text[0], "memory is not locked") != NULL;
        problems_free(&why);
        _exit(limited && said ? 0 : 1);
    }
    int status = -1;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, make_dir, remove_dir)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_notify),
        TEST(test_watchdog),
        TEST(test_crash_loop),
        TEST(test_retry),
        TEST(test_failure_says_why),
        TEST(test_settled_is_no_crash),
        TEST(test_power_cut_is_no_crash),
        TEST(test_mute_and_volume_last),
        TEST(test_greeted_once),
        TEST(test_rubbish_record),
        TEST(test_unreadable_record),
        TEST(test_no_directory),
        TEST(test_files_are_whole),
        TEST(test_memory_not_locked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
