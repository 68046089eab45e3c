/*
 * tests/unit/test_expect.c - expectations of a replay on made-up logs: what is found, what is
 * missed, what the diff says; and the picture of such a log.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/util.h"
#include "daemon/expect.h"
#include "daemon/picture.h"

#define LOG BINARY_DIR "/expect-test.events.jsonl"
#define SVG BINARY_DIR "/expect-test.svg"

static const char *const lines[] = {
    "{\"at\":0,\"ms\":100.0,\"event\":\"sound\",\"name\":\"a<b.flac\"}\n",
    "{\"at\":0,\"ms\":200.0,\"event\":\"tick\",\"state\":\"listening\",\"actions\":[\"hear\"]}\n",
    "{\"at\":0,\"ms\":300.0,\"event\":\"word\",\"answer\":1,\"text\":\"Par\"}\n",
    "{\"at\":0,\"ms\":310.0,\"event\":\"word\",\"answer\":1,\"text\":\"is.\"}\n",
    "{\"at\":0,\"ms\":900.0,\"event\":\"tick\",\"state\":\"speaking\",\"answer\":1,"
    "\"actions\":[\"commit\",\"play\"]}\n",
    "{\"at\":0,\"ms\":950.0,\"event\":\"said\",\"tokens\":2,\"text\":\"It is Paris.\","
    "\"stop\":\"end\"}\n",
    "{\"at\":0,\"ms\":980.0,\"event\":\"memory\",\"answer\":1,\"tokens\":1,\"of\":2,"
    "\"text\":\"Par\"}\n",
    "{\"at\":0,\"ms\":990.0,\"event\":\"speech_onset\",\"state\":\"held\",\"actions\":[\"hold\"]}"
    "\n",
};

/* Scenario of three JSON texts. */
static struct scenario with(const char *expect, const char *never, const char *count)
{
    char path[] = "x.json";
    struct scenario s = {.path = strdup(path), .root = json_object()};
    const struct {
        const char *key, *text;
        const json_t **to;
    } lists[] = {{"e", expect, &s.expect}, {"n", never, &s.never}, {"c", count, &s.count}};
    for (size_t i = 0; i < ARRAY_LEN(lists); i++) {
        json_t *list = json_loads(lists[i].text, 0, NULL);
        assert_non_null(list);
        json_object_set_new(s.root, lists[i].key, list);
        *lists[i].to = list;
    }
    return s;
}

static struct expect *fed(const struct scenario *s)
{
    struct expect *e = NULL;
    assert_int_equal(expect_open(&e, s, NULL), 0);
    for (size_t i = 0; i < ARRAY_LEN(lines); i++)
        assert_int_equal(expect_line(e, lines[i], strlen(lines[i])), 0);
    return e;
}

/* What the check prints; "" when it is content. */
static void check(const char *expect, const char *never, const char *count, char *said, size_t size)
{
    struct scenario s = with(expect, never, count);
    struct expect *e = fed(&s);
    memset(said, 0, size);
    FILE *f = fmemopen(said, size, "w");
    assert_non_null(f);
    bool good = expect_fulfilled(e, f);
    fclose(f);
    assert_int_equal(good, said[0] == '\0');
    expect_close(e);
    scenario_free(&s);
}

static void test_patterns(void **unused)
{
    (void)unused;
    static const struct {
        const char *expect, *never, *count, *says;
    } cases[] = {
        {"[]", "[]", "[]", ""},
        {"[{\"event\":\"sound\"},{\"action\":\"play\",\"within_ms\":800}]", "[]", "[]", ""},
        {"[{\"event\":\"sound\"},{\"action\":\"play\",\"within_ms\":700}]", "[]", "[]",
         "expect[1]: not found after 100 ms"},
        {"[{\"action\":\"play\"},{\"event\":\"sound\"}]", "[]", "[]", "like it: {\"at\":0"},
        {"[{\"event\":\"said\",\"text\":\"paris\",\"tokens\":2}]", "[]", "[]", ""},
        {"[{\"event\":\"said\",\"text\":\"Rome\"}]", "[]", "[]", "expect[0]"},
        {"[{\"event\":\"said\",\"tokens\":3}]", "[]", "[]", "expect[0]"},
        {"[{\"event\":\"said\",\"stop\":\"en\"}]", "[]", "[]", "expect[0]"},
        {"[{\"state\":\"held\",\"from_ms\":980,\"to_ms\":1000}]", "[]", "[]", ""},
        {"[{\"state\":\"held\",\"to_ms\":980}]", "[]", "[]", "expect[0]"},
        {"[]", "[{\"action\":\"drop\"}]", "[]", ""},
        {"[]", "[{\"action\":\"hold\"}]", "[]", "never[0]: found {\"action\":\"hold\"}"},
        {"[]", "[{\"action\":\"hold\",\"to_ms\":500}]", "[]", ""},
        {"[]", "[]", "[{\"event\":\"word\",\"times\":2}]", ""},
        {"[]", "[]", "[{\"event\":\"word\",\"times\":3}]", "count[0]: found 2 times"},
        {"[]", "[]", "[{\"action\":\"drop\",\"times\":0}]", ""},
    };
    char said[2000];
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        check(cases[i].expect, cases[i].never, cases[i].count, said, sizeof(said));
        if (cases[i].says[0] == '\0' ? said[0] != '\0' : strstr(said, cases[i].says) == NULL)
            fail_msg("case %zu: %s", i, said);
    }
}

static void test_newest(void **unused)
{
    (void)unused;
    struct scenario s = with("[]", "[]", "[]");
    struct expect *e = NULL;
    assert_int_equal(expect_open(&e, &s, NULL), 0);
    assert_false(expect_newest(e, "sound"));
    expect_close(e);
    e = fed(&s);
    assert_true(expect_newest(e, "hold") && expect_newest(e, "speech_onset"));
    assert_false(expect_newest(e, "play"));
    expect_close(e);
    expect_close(NULL);
    scenario_free(&s);
}

/* Who expects nothing keeps the newest line only: the one that came first is not found. */
static void test_nothing(void **unused)
{
    (void)unused;
    struct scenario s = with("[{\"event\":\"sound\"}]", "[]", "[]");
    struct expect *e = NULL;
    char said[4096] = "";
    FILE *f = fmemopen(said, sizeof(said), "w");
    assert_int_equal(expect_open(&e, &s, NULL), 0);
    expect_nothing(e);
    for (size_t i = 0; i < ARRAY_LEN(lines); i++)
        assert_int_equal(expect_line(e, lines[i], strlen(lines[i])), 0);
    assert_true(expect_newest(e, "hold") && expect_newest(e, "speech_onset"));
    assert_false(expect_fulfilled(e, f));
    fclose(f);
    expect_close(e);
    scenario_free(&s);
}

static bool compare(struct expect *e, const char *kind, char *said, size_t size)
{
    struct problems why = {0};
    memset(said, 0, size);
    FILE *f = fmemopen(said, size, "w");
    bool good = expect_compare(e, LOG, kind, f, &why);
    fclose(f);
    if (why.n > 0)
        snprintf(said, size, "%s", why.text[0]);
    problems_free(&why);
    return good;
}

static void test_log(void **unused)
{
    (void)unused;
    struct scenario s = with("[]", "[]", "[]");
    struct expect *e = fed(&s);
    char said[4000];
    remove(LOG);
    assert_true(compare(e, "a b", said, sizeof(said)));
    assert_non_null(strstr(said, "not there"));
    assert_int_equal(expect_update(e, LOG, "a b", NULL), 0);
    assert_true(compare(e, "a b", said, sizeof(said)));
    assert_string_equal(said, "");
    assert_true(compare(e, "a c", said, sizeof(said)));
    assert_non_null(strstr(said, "made on a b, this is a c"));
    /* One line more than expected. */
    assert_int_equal(expect_line(e, lines[0], strlen(lines[0])), 0);
    assert_false(compare(e, "a b", said, sizeof(said)));
    assert_non_null(strstr(said, "line 10 is another one (8 lines expected, 9 found)"));
    assert_non_null(strstr(said, "+ {\"at\":0,\"ms\":100.0,\"event\":\"sound\""));
    assert_null(strstr(said, "- {"));
    FILE *f = fopen(LOG, "w");
    fputs("{\"at\":0}\n", f);
    fclose(f);
    assert_false(compare(e, "a b", said, sizeof(said)));
    assert_non_null(strstr(said, "found no {\"made_on\""));
    expect_close(e);
    scenario_free(&s);
}

static void test_difference(void **unused)
{
    (void)unused;
    struct scenario s = with("[]", "[]", "[]");
    struct expect *e = NULL, *other = fed(&s);
    char said[4000];
    assert_int_equal(expect_update(other, LOG, "k", NULL), 0);
    assert_int_equal(expect_open(&e, &s, NULL), 0);
    for (size_t i = 0; i < ARRAY_LEN(lines); i++) {
        const char *line = i == 4 ? "{\"ms\":910.0,\"event\":\"tick\"}\n" : lines[i];
        assert_int_equal(expect_line(e, line, strlen(line)), 0);
    }
    assert_false(compare(e, "k", said, sizeof(said)));
    assert_non_null(strstr(said, "line 6 is another one"));
    assert_non_null(
        strstr(said, "  {\"at\":0,\"ms\":310.0")); /* the line before, for orientation */
    assert_non_null(strstr(said, "- {\"at\":0,\"ms\":900.0"));
    assert_non_null(strstr(said, "+ {\"ms\":910.0"));
    expect_close(e);
    expect_close(other);
    scenario_free(&s);
}

static void test_picture(void **unused)
{
    (void)unused;
    struct picture *p = NULL;
    struct problems why = {0};
    float loud[480], silent[480] = {0};
    for (int i = 0; i < 480; i++)
        loud[i] = (float)(i % 48) / 96;
    assert_int_equal(picture_open(&p, "One & two"), 0);
    for (int i = 0; i < 2500; i++)
        assert_int_equal(picture_period(p, i < 50 ? loud : silent, i > 90 ? loud : silent, 480,
                                        i < 90 ? TURN_LISTENING : TURN_SPEAKING),
                         0);
    for (size_t i = 0; i < ARRAY_LEN(lines); i++)
        assert_int_equal(picture_line(p, lines[i], strlen(lines[i])), 0);
    assert_int_equal(picture_line(p, "no json", 7), 0);
    assert_int_equal(picture_write(p, SVG, &why), 0);
    assert_true(picture_write(p, BINARY_DIR "/no/such.svg", &why) < 0);
    problems_free(&why);
    picture_close(p);
    picture_close(NULL);
    char *text = NULL;
    size_t n = 0;
    assert_int_equal(read_file(&text, &n, SVG, 1 << 20), 0);
    const char *const words[] = {"One &amp; two", ">a&lt;b<",    ">Par ...<", ">commit<",
                                 ">hold<",        ">listening<", "</svg>"};
    for (size_t i = 0; i < ARRAY_LEN(words); i++)
        if (strstr(text, words[i]) == NULL)
            fail_msg("the picture has no %s", words[i]);
    assert_true(n < 200000); /* a page, however long the conversation */
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_patterns),   cmocka_unit_test(test_newest),
        cmocka_unit_test(test_nothing),    cmocka_unit_test(test_log),
        cmocka_unit_test(test_difference), cmocka_unit_test(test_picture),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
