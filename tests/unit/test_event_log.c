/*
 * tests/unit/test_event_log.c - lines of the event log: their exact bytes, hostile text, lines that
 * are too long; each is read back with a JSON parser.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include <jansson.h>
#include <locale.h>
#include <math.h>

#include "base/util.h"
#include "daemon/event_log.h"

static json_t *parse(struct event_line *l)
{
    json_error_t error;
    assert_true(l->n == strlen(l->text) && l->n < EVENT_LINE_MAX);
    assert_int_equal(l->text[l->n - 1], '\n');
    assert_ptr_equal(strchr(l->text, '\n'), l->text + l->n - 1);
    json_t *line = json_loads(l->text, JSON_REJECT_DUPLICATES, &error);
    if (line == NULL)
        fail_msg("%s: %s", error.text, l->text);
    return line;
}

static void test_fields(void **unused)
{
    (void)unused;
    struct event_line l;
    event_line_begin(&l, 35201, 16000, "level");
    event_line_text(&l, "who", "me");
    event_line_int(&l, "least", INT64_MIN);
    event_line_real(&l, "a", -0.0004, 3);
    event_line_real(&l, "b", -1.9996, 3);
    event_line_real(&l, "c", 2.5, 0);
    event_line_real(&l, "d", (double)NAN, 3);
    event_line_real(&l, "e", -(double)INFINITY, 3);
    event_line_real(&l, "f", 1e300, 3);
    event_line_real(&l, "g", 0.0625, 6);
    event_line_bool(&l, "yes", true);
    event_line_bool(&l, "no", false);
    assert_string_equal(event_line_end(&l),
                        "{\"at\":35201,\"ms\":2200.0,\"event\":\"level\",\"who\":\"me\","
                        "\"least\":-9223372036854775808,\"a\":0.000,\"b\":-2.000,\"c\":2,"
                        "\"d\":null,\"e\":null,\"f\":null,\"g\":0.062500,\"yes\":true,"
                        "\"no\":false}\n");
    json_decref(parse(&l));
}

static void test_time(void **unused)
{
    (void)unused;
    const struct {
        uint64_t at;
        int rate;
        const char *ms;
    } times[] = {
        {0, 16000, "\"ms\":0.0,"},
        {1, 16000, "\"ms\":0.0,"},
        {159, 16000, "\"ms\":9.9,"},
        {UINT64_C(30) * 86400 * 48000 + 24, 48000, "\"ms\":2592000000.5,"},
        {UINT64_C(1) << 62, 16000, "\"ms\":288230376151711744.0,"},
    };
    for (size_t i = 0; i < ARRAY_LEN(times); i++) {
        struct event_line l;
        event_line_begin(&l, times[i].at, times[i].rate, "x");
        event_line_end(&l);
        assert_non_null(strstr(l.text, times[i].ms));
        json_decref(parse(&l));
    }
}

static void test_text(void **unused)
{
    (void)unused;
    const char *const texts[][2] = {
        {"a\"b\\c\n\t\x01\x7f", "a\\\"b\\\\c\\n\\u0009\\u0001\\u007f"},
        {"caf\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80", "caf\\u00e9 \\u20ac \\ud83d\\ude00"},
        {"\xff\x80z", "\\ufffd\\ufffdz"},                     /* no beginning of a character */
        {"\xc3", "\\ufffd"},                                  /* half of one, at the end */
        {"\xe2\x82z", "\\ufffd\\ufffdz"},                     /* ... and in the middle */
        {"\xc0\xaf", "\\ufffd\\ufffd"},                       /* overlong */
        {"\xed\xa0\x80", "\\ufffd\\ufffd\\ufffd"},            /* a surrogate */
        {"\xf4\x90\x80\x80", "\\ufffd\\ufffd\\ufffd\\ufffd"}, /* beyond the last */
        {"\xf4\x8f\xbf\xbf", "\\udbff\\udfff"},
        {"", ""},
    };
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        struct event_line l;
        char want[256];
        event_line_begin(&l, 0, 16000, "x");
        event_line_text(&l, "t", texts[i][0]);
        snprintf(want, sizeof(want), "{\"at\":0,\"ms\":0.0,\"event\":\"x\",\"t\":\"%s\"}\n",
                 texts[i][1]);
        assert_string_equal(event_line_end(&l), want);
        json_decref(parse(&l));
    }
}

/* Texts of every length around the limit, of characters of one to twelve bytes once written. */
static void test_long(void **unused)
{
    (void)unused;
    static const char *const units[] = {"a", "\"", "\xc3\xa9", "\xf0\x9f\x98\x80"};
    static char text[4 * EVENT_LINE_MAX];
    for (size_t u = 0; u < ARRAY_LEN(units); u++) {
        size_t size = strlen(units[u]);
        for (size_t n = 0; (n + 1) * size < sizeof(text) && n < EVENT_LINE_MAX + 50; n++) {
            struct event_line l;
            memcpy(text + n * size, units[u], size + 1);
            event_line_begin(&l, 0, 16000, "x");
            event_line_text(&l, "t", text);
            event_line_int(&l, "after", 12345678901234);
            event_line_real(&l, "real", 123456789.25, 6);
            event_line_bool(&l, "bool", true);
            event_line_text(&l, "last", "text");
            event_line_end(&l);
            json_t *line = parse(&l);
            const char *back = json_string_value(json_object_get(line, "t"));
            assert_non_null(back);
            assert_memory_equal(back, text, strlen(back));
            assert_true(l.cut || strlen(back) == strlen(text));
            assert_int_equal(l.cut, json_is_true(json_object_get(line, "cut")));
            json_decref(line);
        }
    }
}

static void test_many(void **unused)
{
    (void)unused;
    struct event_line l;
    event_line_begin(&l, 0, 16000, "x");
    for (int i = 0; i < 2000; i++) {
        char key[16];
        snprintf(key, sizeof(key), "k%d", i);
        event_line_int(&l, key, i);
    }
    event_line_end(&l);
    assert_true(l.cut);
    json_t *line = parse(&l);
    assert_true(json_object_size(line) > 250);
    json_decref(line);
}

static void test_turn(void **unused)
{
    (void)unused;
    struct turn t;
    struct turn_actions a;
    struct event_line l;
    uint64_t start = UINT64_MAX - 999;
    assert_int_equal(turn_init(&t, NULL, start, NULL), 0);
    struct turn_event e = {.kind = TURN_TICK, .at = start + 160};
    turn_step(&t, &e, &a);
    assert_false(event_line_turn(&l, &e, &a, start, 16000));
    e = (struct turn_event){.kind = TURN_SPEECH_ONSET,
                            .at = start + 16000,
                            .age = 800,
                            .probability = 0.875f};
    turn_step(&t, &e, &a);
    assert_true(event_line_turn(&l, &e, &a, start, 16000));
    event_line_text(&l, "note", "more");
    assert_string_equal(event_line_end(&l),
                        "{\"at\":16000,\"ms\":1000.0,\"event\":\"speech_onset\","
                        "\"probability\":0.875,\"age\":800,\"was\":\"idle\",\"state\":"
                        "\"listening\",\"actions\":[\"hear\"],\"turn\":1,\"answer\":0,"
                        "\"hear_from\":10400,\"note\":\"more\"}\n");
    json_decref(parse(&l));
    e = (struct turn_event){.kind = TURN_MUTE, .at = start + 17000};
    turn_step(&t, &e, &a);
    assert_true(event_line_turn(&l, &e, &a, start, 16000));
    assert_non_null(strstr(event_line_end(&l), "\"state\":\"muted\",\"actions\":[\"mic_close\","
                                               "\"forget\",\"earcon\"],\"turn\":1,\"answer\":0,"
                                               "\"earcon\":\"muted\"}"));
    json_decref(parse(&l));
}

/* A locale with a decimal comma changes nothing. */
static void test_locale(void **unused)
{
    (void)unused;
    struct event_line l;
    if (setlocale(LC_ALL, "de_DE.UTF-8") == NULL)
        print_message("the locale de_DE.UTF-8 is not there; tested without\n");
    event_line_begin(&l, 8, 16000, "x");
    event_line_real(&l, "v", 1.5, 1);
    assert_string_equal(event_line_end(&l), "{\"at\":8,\"ms\":0.5,\"event\":\"x\",\"v\":1.5}\n");
    setlocale(LC_ALL, "C");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fields), cmocka_unit_test(test_time), cmocka_unit_test(test_text),
        cmocka_unit_test(test_long),   cmocka_unit_test(test_many), cmocka_unit_test(test_turn),
        cmocka_unit_test(test_locale),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
