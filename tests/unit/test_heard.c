/*
 * tests/unit/test_heard.c - which words were heard: text against voiced time, with a tone of a
 * known length for each word.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/util.h"
#include "daemon/heard.h"

enum { RATE = 24000 };

static struct heard h;

/* `ms` of a tone, or of silence. */
static void sound(int ms, float level)
{
    float pcm[RATE / 100];
    for (int i = 0; i < ms / 10; i++) {
        for (size_t k = 0; k < ARRAY_LEN(pcm); k++)
            pcm[k] = level * sinf(0.1f * (float)k);
        assert_int_equal(heard_sound(&h, pcm, ARRAY_LEN(pcm)), 0);
    }
}

static int tokens_at(int ms)
{
    return heard_tokens(&h, (uint64_t)ms * RATE / 1000, NULL);
}

/* Words of one pace: 100 ms for a letter's weight, so 500 ms for "abc" and 600 for "wxyz". */
static void say(const char *const *words, size_t n)
{
    for (size_t i = 0; i < n; i++)
        assert_int_equal(heard_word(&h, words[i]), 0);
}

static void test_whole(void **unused)
{
    (void)unused;
    static const char *const words[] = {"abc", " wx", "yz", ",", " def", "."};
    size_t bytes;
    heard_begin(&h);
    say(words, ARRAY_LEN(words));
    sound(200, 0);
    sound(500, 0.1f);
    sound(40, 0);
    sound(600, 0.1f);
    sound(700, 0); /* the comma */
    sound(500, 0.1f);
    sound(300, 0);
    heard_text_end(&h);
    heard_sound_end(&h);
    const struct {
        int ms, tokens;
    } cuts[] = {{0, 0},    {200, 0},  {400, 0},  {500, 1},  {700, 1},  {1000, 1}, {1100, 4},
                {1340, 4}, {2000, 4}, {2200, 4}, {2400, 6}, {2540, 6}, {2840, 6}, {9999, 6}};
    for (size_t i = 0; i < ARRAY_LEN(cuts); i++)
        if (tokens_at(cuts[i].ms) != cuts[i].tokens)
            fail_msg("at %d ms: %d tokens, expected %d", cuts[i].ms, tokens_at(cuts[i].ms),
                     cuts[i].tokens);
    assert_int_equal(heard_tokens(&h, 1340 * RATE / 1000, &bytes), 4);
    assert_int_equal(bytes, strlen("abc wxyz,"));
}

/* While the reply is being made the pace of the ones before is taken. */
static void test_partial(void **unused)
{
    (void)unused;
    static const char *const words[] = {"abc", " wxyz", " abc", " wxyz", " abc", " wxyz"};
    for (int i = 0; i < 20; i++) { /* learns 100 ms a letter, whatever it thought before */
        heard_begin(&h);
        say(words, 4);
        sound(2200, 0.1f);
        heard_text_end(&h);
        heard_sound_end(&h);
    }
    assert_true(fabs(h.pace - 10) < 0.2);
    heard_begin(&h);
    say(words, ARRAY_LEN(words));
    sound(1800, 0.1f);
    assert_int_equal(tokens_at(200), 0);
    assert_int_equal(tokens_at(400), 1);
    assert_int_equal(tokens_at(1000), 2);
    assert_int_equal(tokens_at(1800), 3);
    assert_int_equal(tokens_at(9999), 3); /* no more than was made */
    assert_true(fabs(heard_seconds(&h) - 3.3) < 0.1);
}

static void test_odd(void **unused)
{
    (void)unused;
    static const char *const syllables[] = {"\xe4\xbd\xa0", "\xe5\xa5\xbd", "\xe3\x80\x82"};
    heard_begin(&h);
    assert_int_equal(tokens_at(1000), 0); /* nothing */
    heard_text_end(&h);
    heard_sound_end(&h);
    assert_int_equal(tokens_at(1000), 0);
    heard_begin(&h); /* words and no sound */
    say((const char *const[]){"abc", " def"}, 2);
    heard_text_end(&h);
    assert_int_equal(tokens_at(0), 0);
    heard_begin(&h); /* without spaces each syllable is a word */
    say(syllables, ARRAY_LEN(syllables));
    sound(1000, 0.1f);
    heard_text_end(&h);
    heard_sound_end(&h);
    assert_int_equal(tokens_at(100), 0);
    assert_int_equal(tokens_at(450), 1);
    assert_int_equal(tokens_at(1000), 3);
    heard_begin(&h); /* tokens without text belong to what follows */
    say((const char *const[]){"", "ab", "", " cd"}, 4);
    sound(1000, 0.1f);
    heard_text_end(&h);
    heard_sound_end(&h);
    assert_int_equal(tokens_at(0), 0);
    assert_int_equal(tokens_at(500), 3);
    heard_free(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whole),
        cmocka_unit_test(test_partial),
        cmocka_unit_test(test_odd),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
