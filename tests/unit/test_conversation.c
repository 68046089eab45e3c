/*
 * tests/unit/test_conversation.c - conversations with the small model that ships with Parley:
 * turns, pauses, interruptions, what is remembered of them, and all of it the same each time.
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
#include "tests/support/talk.h"

#define DEMO SOURCE_DIR "/etc/demo/"

static struct talk t;
static float *capital, *sum, *times;
static size_t n_capital, n_sum, n_times;

static void has(const char *text)
{
    if (strstr(t.log, text) == NULL)
        fail_msg("the log lacks: %s\n%s", text, t.log);
}

static void hasnt(const char *text)
{
    if (strstr(t.log, text) != NULL)
        fail_msg("the log has: %s\n%s", text, t.log);
}

/* The words of the log's "word" lines from `from` on, put together. */
static void words(const char *from, char *text, size_t size)
{
    static const char event[] = "\"event\":\"word\"", key[] = "\"text\":\"";
    size_t n = 0;
    for (const char *p = from; (p = strstr(p, event)) != NULL;) {
        p = strstr(p, key) + sizeof(key) - 1;
        while (*p != '"' && n + 1 < size)
            text[n++] = *p++;
    }
    text[n] = '\0';
}

static void test_plain(void **unused)
{
    (void)unused;
    char text[256];
    talk_begin(&t, NULL);
    talk_wait(&t, 500);
    talk_say(&t, capital, n_capital);
    assert_non_null(talk_until(&t, NULL, "answer_ended", 10000));
    talk_wait(&t, 9000);
    if (getenv("TALK_LOG"))
        puts(t.log);
    words(t.log, text, sizeof(text));
    assert_string_equal(text, "The capital of France is Paris.");
    talk_end(&t);
}

static int open_all(void **state)
{
    (void)state;
    capital = talk_recording(DEMO "capital.wav", &n_capital);
    sum = talk_recording(DEMO "sum.wav", &n_sum);
    times = talk_recording(DEMO "times-two.wav", &n_times);
    return 0;
}

static int close_all(void **state)
{
    (void)state;
    free(capital);
    free(sum);
    free(times);
    session_close(&t.session);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plain),
    };
    if (!talk_model(&t.session, 1024))
        return 77;
    (void)has, (void)hasnt;
    return cmocka_run_group_tests(tests, open_all, close_all);
}
