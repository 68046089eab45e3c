/*
 * tests/unit/test_history.c - the history keeps what it may and forgets what it shall; buttons that
 * are not there or have no such key.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/util.h"
#include "daemon/buttons.h"
#include "daemon/history.h"
#include "daemon/state_file.h"

static char dir[64], file[96];

static int make_dir(void **unused)
{
    (void)unused;
    snprintf(dir, sizeof(dir), "/tmp/parley-history-XXXXXX");
    if (mkdtemp(dir) == NULL)
        return -1;
    snprintf(file, sizeof(file), "%s/%s", dir, HISTORY_FILE);
    return 0;
}

static int remove_dir(void **unused)
{
    (void)unused;
    unlink(file);
    return rmdir(dir);
}

static const char *text_of(const struct history *h, size_t i)
{
    return json_string_value(json_object_get(json_array_get(h->turns, i), "text"));
}

static void test_memory_only(void **unused)
{
    (void)unused;
    struct history h;
    assert_int_equal(history_open(&h, 2, NULL, NULL), 0);
    assert_int_equal(history_add(&h, 1, "person", "one"), 0);
    assert_int_equal(history_add(&h, 2, "parley", "two"), 0);
    assert_int_equal(history_add(&h, 3, "person", "three"), 0);
    assert_int_equal(json_array_size(h.turns), 2);
    assert_string_equal(text_of(&h, 0), "two");
    assert_int_equal(access(file, F_OK), -1);
    assert_int_equal(history_forget(&h, dir), 0);
    assert_int_equal(json_array_size(h.turns), 0);
    history_close(&h);
}

static void test_file(void **unused)
{
    (void)unused;
    struct history h;
    struct problems why = {0};
    struct stat st;
    assert_int_equal(history_open(&h, 10, dir, &why), 0);
    assert_int_equal(history_add(&h, 1, "person", "one"), 0);
    assert_int_equal(history_add(&h, 2, "parley", "two \xC3\xA4"), 0);
    history_close(&h);
    assert_int_equal(stat(file, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    assert_int_equal(history_open(&h, 1, dir, &why), 0); /* fewer may be kept now */
    assert_int_equal(json_array_size(h.turns), 1);
    assert_string_equal(text_of(&h, 0), "two \xC3\xA4");
    char cut_off[128]; /* what a power cut within a write left is forgotten as well */
    snprintf(cut_off, sizeof(cut_off), "%s/.%s.new", dir, HISTORY_FILE);
    assert_int_equal(link(file, cut_off), 0);
    assert_int_equal(history_forget(&h, dir), 0);
    assert_int_equal(access(file, F_OK), -1);
    assert_int_equal(unlink(cut_off), -1);
    assert_int_equal(why.n, 0);
    history_close(&h);
}

static void test_rubbish(void **unused)
{
    (void)unused;
    static const char *const rubbish[] = {
        "",
        "{\"turns\":[{\"at\":1}]}",
        "{\"turns\":[{\"at\":\"x\",\"who\":\"a\",\"text\":\"b\"}]}",
        "[]",
        "{\"turns\":[{\"at\":1,\"who\":\"a\",\"text\":\"b\"},7]}",
    };
    for (size_t i = 0; i < ARRAY_LEN(rubbish); i++) {
        struct history h;
        struct problems why = {0};
        assert_int_equal(state_write(dir, HISTORY_FILE, 0600, rubbish[i], strlen(rubbish[i])), 0);
        assert_int_equal(history_open(&h, 10, dir, &why), 0);
        assert_int_equal(why.n, 1);
        assert_non_null(strstr(why.text[0], "the history begins anew"));
        assert_int_equal(json_array_size(h.turns), 0);
        assert_int_equal(history_add(&h, 1, "person", "one"), 0);
        history_close(&h);
        problems_free(&why);
    }
}

/* What the disk does not give back now it may give another time: nothing is written over it. */
static void test_unreadable(void **unused)
{
    (void)unused;
    struct history h;
    struct problems why = {0};
    assert_int_equal(mkdir(file, 0700), 0);
    assert_int_equal(history_open(&h, 10, dir, &why), 0);
    assert_int_equal(why.n, 1);
    assert_non_null(strstr(why.text[0], "in memory only"));
    assert_int_equal(history_add(&h, 1, "person", "one"), 0);
    assert_int_equal(json_array_size(h.turns), 1);
    history_close(&h);
    problems_free(&why);
    assert_int_equal(rmdir(file), 0);
}

static void test_no_room(void **unused)
{
    (void)unused;
    struct history h;
    assert_int_equal(history_open(&h, 10, dir, NULL), 0);
    h.dir = "/nowhere";
    assert_int_equal(history_add(&h, 1, "person", "one"), -ENOENT);
    assert_int_equal(json_array_size(h.turns), 1); /* the memory has it anyway */
    assert_int_equal(history_add(&h, 1, "person", "\xFF"), -ENOMEM);
    history_close(&h);
}

/* However much is said, the file can be read again; the oldest go first. */
static void test_bytes(void **unused)
{
    (void)unused;
    enum { TURNS = 200, LONG = 16384 };
    static char text[LONG + 1];
    struct history h;
    struct problems why = {0};
    memset(text, '\1', LONG); /* six bytes each as JSON: 19 MB */
    assert_int_equal(history_open(&h, 10000, dir, &why), 0);
    h.dir = NULL;
    for (int i = 0; i < TURNS; i++)
        assert_int_equal(history_add(&h, i, "person", text), 0);
    h.dir = dir;
    assert_int_equal(history_add(&h, TURNS, "person", "last"), 0);
    size_t n = json_array_size(h.turns);
    assert_in_range(n, 20, TURNS - 1);
    history_close(&h);
    assert_int_equal(history_open(&h, 10000, dir, &why), 0);
    assert_int_equal(why.n, 0);
    assert_int_equal(json_array_size(h.turns), n);
    assert_string_equal(text_of(&h, n - 1), "last");
    history_close(&h);
}

/* A text that is too long says that it was cut, between two characters. */
static void test_long(void **unused)
{
    (void)unused;
    static char text[3 * 6000 + 1];
    struct history h;
    for (int i = 0; i < 6000; i++)
        memcpy(text + 3 * i, "\xE2\x82\xAC", 3);
    assert_int_equal(history_open(&h, 10, NULL, NULL), 0);
    assert_int_equal(history_add(&h, 1, "parley", text), 0);
    const char *kept = text_of(&h, 0);
    assert_in_range(strlen(kept), 16380, 16384);
    assert_string_equal(kept + strlen(kept) - 6, "\xE2\x82\xAC...");
    history_close(&h);
}

static void test_newest(void **unused)
{
    (void)unused;
    struct history h;
    size_t left_out;
    assert_int_equal(history_open(&h, 10, NULL, NULL), 0);
    for (int i = 0; i < 5; i++)
        assert_int_equal(history_add(&h, i, "person", "\xC3\xA4\1"), 0);
    for (size_t most = 0; most < 1000; most++) {
        json_t *turns = history_newest(&h, most, &left_out);
        char *bytes = json_dumps(turns, JSON_COMPACT | JSON_ENSURE_ASCII);
        size_t n = json_array_size(turns);
        assert_int_equal(n + left_out, 5);
        assert_true(n == 0 || strlen(bytes) <= most);
        for (size_t i = 0; i < n; i++)
            assert_ptr_equal(json_array_get(turns, i), json_array_get(h.turns, left_out + i));
        free(bytes);
        json_decref(turns);
    }
    assert_int_equal(left_out, 0);
    history_close(&h);
}

static void pressed(void *ctx, enum button b, bool down)
{
    (void)b;
    (void)down;
    ++*(int *)ctx;
}

static void test_buttons(void **unused)
{
    (void)unused;
    int presses = 0;
    sd_event *event;
    struct buttons *b = NULL;
    struct problems why = {0};
    assert_true(sd_event_new(&event) >= 0);
    struct buttons_opts o = {.event = event,
                             .device = "/dev/input/not-there",
                             .keys = {"KEY_MICMUTE", "", "KEY_BANANA"},
                             .pressed = pressed,
                             .ctx = &presses};
    assert_int_equal(buttons_open(&b, &o, &why), -EINVAL);
    assert_non_null(strstr(why.text[0], "found 'KEY_BANANA'"));
    problems_free(&why);
    o.keys[2] = "KEY_VOICECOMMAND";
    assert_int_equal(buttons_open(&b, &o, &why), 0); /* it is looked for */
    assert_non_null(strstr(why.text[0], "/dev/input/not-there is not there yet"));
    assert_false(buttons_present(b));
    buttons_close(b);
    problems_free(&why);
    o.device = "/dev/null"; /* no input device */
    assert_int_equal(buttons_open(&b, &o, &why), 0);
    assert_false(buttons_present(b));
    buttons_close(b);
    problems_free(&why);
    sd_event_unref(event);
    assert_int_equal(presses, 0);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, make_dir, remove_dir)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_memory_only), TEST(test_file),    TEST(test_rubbish),
        TEST(test_unreadable),  TEST(test_no_room), TEST(test_buttons),
        TEST(test_bytes),       TEST(test_long),    TEST(test_newest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
