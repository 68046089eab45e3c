/*
 * tests/unit/test_talker.c - the Talker's bookkeeping: it waits for words, keeps the user's rows,
 * repeats itself for a seed, and stops. (That it says the right thing: tests/parity.)
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <errno.h>

#include "talker/talker.h"
#include "tests/support/speech.h"

enum { USER_ROWS = 150, WORDS = 6, FRAMES = 12, NEWLINE = 10, HIDDEN_MAX = 64 };

static const int32_t words[WORDS] = {40, 41, 42, 43, 44, 45};

/* The user's turns: words, a sound in the middle, words. */
struct user {
    int32_t ids[USER_ROWS];
    float hidden[USER_ROWS * HIDDEN_MAX];
};

static struct prompt_rows user_rows(const struct speech *s, struct user *u, int n, int stable)
{
    const struct config *c = &s->model->config;
    for (int i = 0; i < USER_ROWS; i++)
        u->ids[i] = i > 3 && i < 140 ? c->tokens.audio_pad : 20 + i;
    for (int i = 0; i < USER_ROWS * c->talker.thinker_hidden; i++)
        u->hidden[i] = (float)(i * 37 % 101) / 50.0f - 1.0f;
    return (struct prompt_rows){.n = n, .stable = stable, .ids = u->ids, .hidden = u->hidden};
}

/* Speech never ends by itself, so that tests about other things have frames enough. */
static int setup_endless(void **state)
{
    int err = speech_setup(state);
    if (err == 0)
        ((struct speech *)*state)->model->config.talker.codec_eos = -1;
    return err;
}

static struct talker *open_talker(const struct speech *s, uint64_t seed, int max_frames)
{
    struct talker *t;
    const struct talker_opts o = {.model = s->model,
                                  .device = s->dev,
                                  .newline = NEWLINE,
                                  .positions = 400,
                                  .max_frames = max_frames,
                                  .seed = seed};
    assert_int_equal(talker_open(&t, &o, NULL), 0);
    return t;
}

static void prompt(const struct speech *s, struct talker *t, int n, int stable)
{
    struct user u;
    const struct prompt_rows rows = user_rows(s, &u, n, stable);
    assert_int_equal(talker_prompt(t, &rows, NULL), 0);
}

static void say(struct talker *t, int n)
{
    for (int i = 0; i < n; i++)
        assert_int_equal(talker_text(t, words[i]), 0);
}

/* Frames first .. first + n - 1, one after the other. */
static void frames(struct talker *t, struct codec_frame *f, int n)
{
    for (int i = 0; i < n; i++)
        assert_int_equal(talker_next(t, &f[i]), 1);
}

static bool same(const struct speech *s, const struct codec_frame *a, const struct codec_frame *b,
                 int n)
{
    size_t bytes = (size_t)s->model->config.talker.groups * sizeof(int32_t);
    for (int i = 0; i < n; i++)
        if (memcmp(a[i].codes, b[i].codes, bytes) != 0)
            return false;
    return true;
}

/* A whole reply of FRAMES frames to `n` rows. */
static void reply(const struct speech *s, struct talker *t, struct codec_frame *f, int n,
                  int stable)
{
    prompt(s, t, n, stable);
    say(t, WORDS);
    talker_text_end(t);
    frames(t, f, FRAMES);
}

static void waits_for_words(void **state)
{
    const struct speech *s = *state;
    struct codec_frame f;
    struct talker *t = open_talker(s, 1, 0);
    prompt(s, t, 9, 0);
    assert_int_equal(talker_next(t, &f), -EAGAIN);
    assert_int_equal(talker_next(t, &f), -EAGAIN);
    say(t, 2);
    frames(t, &f, 1);
    frames(t, &f, 1);
    assert_int_equal(talker_next(t, &f), -EAGAIN);
    assert_int_equal(talker_stop_reason(t), TALKER_SPEAKING);
    talker_text_end(t);
    for (int i = 0; i < 5; i++)
        frames(t, &f, 1);
    talker_close(t);
}

static void when_words_come_does_not_matter(void **state)
{
    const struct speech *s = *state;
    struct codec_frame at_once[FRAMES], as_needed[FRAMES];
    struct talker *t = open_talker(s, 1, 0);
    reply(s, t, at_once, 9, 0);
    prompt(s, t, 9, 9);
    for (int i = 0; i < WORDS; i++) {
        assert_int_equal(talker_next(t, &as_needed[i]), -EAGAIN);
        assert_int_equal(talker_text(t, words[i]), 0);
        frames(t, &as_needed[i], 1);
    }
    assert_int_equal(talker_next(t, &as_needed[WORDS]), -EAGAIN);
    talker_text_end(t);
    frames(t, &as_needed[WORDS], FRAMES - WORDS);
    assert_true(same(s, at_once, as_needed, FRAMES));
    talker_close(t);
}

static void kept_rows_are_as_good_as_new(void **state)
{
    const struct speech *s = *state;
    const int width = s->model->config.talker.text.hidden;
    struct codec_frame fresh[FRAMES], kept[FRAMES], other[FRAMES];
    float h[2][HIDDEN_MAX];
    struct talker *a = open_talker(s, 1, 0), *b = open_talker(s, 1, 0);
    reply(s, a, fresh, USER_ROWS, 0);
    talker_hidden(a, h[0]);
    reply(s, b, other, 30, 0);
    prompt(s, b, 141, 30);
    prompt(s, b, 140, 140);
    reply(s, b, kept, USER_ROWS, 140);
    talker_hidden(b, h[1]);
    assert_false(same(s, fresh, other, FRAMES));
    assert_true(same(s, fresh, kept, FRAMES));
    assert_memory_equal(h[0], h[1], (size_t)width * sizeof(float));
    talker_close(a);
    talker_close(b);
}

static void a_seed_decides(void **state)
{
    const struct speech *s = *state;
    struct codec_frame one[FRAMES], again[FRAMES], two[FRAMES];
    struct talker *a = open_talker(s, 1, 0), *b = open_talker(s, 2, 0);
    reply(s, a, one, 9, 0);
    reply(s, a, again, 9, 9);
    reply(s, b, two, 9, 0);
    assert_true(same(s, one, again, FRAMES));
    assert_false(same(s, one, two, FRAMES));
    talker_close(a);
    talker_close(b);
}

static void greedy_needs_no_seed(void **state)
{
    const struct speech *s = *state;
    const struct sampling code0 = {.repetition_penalty = 1.05f}, residual = {0};
    struct codec_frame f[2][FRAMES];
    for (uint64_t i = 0; i < 2; i++) {
        struct talker *t;
        const struct talker_opts o = {.model = s->model,
                                      .device = s->dev,
                                      .newline = NEWLINE,
                                      .positions = 100,
                                      .seed = i,
                                      .sampling = &code0,
                                      .residual_sampling = &residual};
        assert_int_equal(talker_open(&t, &o, NULL), 0);
        reply(s, t, f[i], 9, 0);
        talker_close(t);
    }
    assert_true(same(s, f[0], f[1], FRAMES));
}

static void codes_lie_in_the_codebook(void **state)
{
    const struct speech *s = *state;
    struct codec_frame f[FRAMES];
    struct talker *t = open_talker(s, 3, 0);
    reply(s, t, f, 9, 0);
    for (int i = 0; i < FRAMES; i++)
        for (int g = 0; g < s->model->config.talker.groups; g++)
            assert_in_range(f[i].codes[g], 0, s->model->config.code2wav.codebook - 1);
    talker_close(t);
}

static void ends_when_the_end_is_drawn(void **state)
{
    struct speech *s = *state;
    struct talker_config *c = &s->model->config.talker;
    struct codec_frame f[FRAMES];
    struct talker *t = open_talker(s, 1, 0);
    int end = 0;
    reply(s, t, f, 9, 0);
    c->codec_eos = f[5].codes[0];
    while (f[end].codes[0] != c->codec_eos)
        end++;
    prompt(s, t, 9, 9);
    say(t, WORDS);
    frames(t, f, end);
    assert_int_equal(talker_next(t, f), 0);
    assert_int_equal(talker_next(t, f), 0);
    assert_int_equal(talker_stop_reason(t), TALKER_END);
    c->codec_eos = -1;
    talker_close(t);
}

/* The number of frames until the end, after n words. */
static int run_out(struct talker *t, int n)
{
    struct codec_frame f;
    int count = 0;
    say(t, n);
    talker_text_end(t);
    while (talker_next(t, &f) == 1)
        count++;
    return count;
}

static void runaway_speech_is_stopped(void **state)
{
    const struct speech *s = *state;
    struct talker *t = open_talker(s, 1, 0);
    prompt(s, t, 9, 0);
    assert_int_equal(run_out(t, 1), 1 + 1 + 25);
    assert_int_equal(talker_stop_reason(t), TALKER_RUNAWAY);
    prompt(s, t, 9, 9);
    assert_int_equal(run_out(t, WORDS), WORDS + 1 + 8 * WORDS);
    assert_int_equal(talker_stop_reason(t), TALKER_RUNAWAY);
    talker_close(t);
}

static void frames_are_limited(void **state)
{
    const struct speech *s = *state;
    struct talker *t = open_talker(s, 1, 8);
    prompt(s, t, 9, 0);
    assert_int_equal(run_out(t, 3), 8);
    assert_int_equal(talker_stop_reason(t), TALKER_MAX_FRAMES);
    talker_close(t);
}

static void the_cache_is_limited(void **state)
{
    const struct speech *s = *state;
    const struct talker_opts o = {.model = s->model, .device = s->dev, .positions = 30};
    struct problems why = {0};
    struct talker *t;
    struct user u;
    struct prompt_rows rows = user_rows(s, &u, 22, 0);
    assert_int_equal(talker_open(&t, &o, NULL), 0);
    assert_int_equal(talker_prompt(t, &rows, &why), -ENOSPC);
    assert_int_equal(why.n, 1);
    assert_int_equal(run_out(t, 3), 0);
    rows.n = 21; /* the nine rows fit, and give one frame */
    assert_int_equal(talker_prompt(t, &rows, NULL), 0);
    assert_int_equal(run_out(t, 3), 1);
    assert_int_equal(talker_stop_reason(t), TALKER_MAX_FRAMES);
    problems_free(&why);
    talker_close(t);
}

static void no_words_no_speech(void **state)
{
    const struct speech *s = *state;
    struct talker *t = open_talker(s, 1, 0);
    prompt(s, t, 9, 0);
    assert_int_equal(run_out(t, 0), 0);
    assert_int_equal(talker_stop_reason(t), TALKER_NO_TEXT);
    talker_close(t);
}

static void wrong_words_are_refused(void **state)
{
    const struct speech *s = *state;
    struct talker *t = open_talker(s, 1, 0);
    prompt(s, t, 9, 0);
    assert_int_equal(talker_text(t, -1), -EINVAL);
    assert_int_equal(talker_text(t, s->model->config.thinker.vocab), -EINVAL);
    talker_text_end(t);
    assert_int_equal(talker_text(t, words[0]), -EINVAL);
    talker_close(t);
}

static void replaced_codes_are_built_upon(void **state)
{
    const struct speech *s = *state;
    struct codec_frame plain[FRAMES], same_codes[FRAMES], others[FRAMES];
    struct talker *t = open_talker(s, 1, 0);
    reply(s, t, plain, 9, 0);
    for (int pass = 0; pass < 2; pass++) {
        struct codec_frame *f = pass == 0 ? same_codes : others;
        prompt(s, t, 9, 9);
        say(t, WORDS);
        talker_text_end(t);
        for (int i = 0; i < FRAMES; i++) {
            frames(t, &f[i], 1);
            talker_replace(t, plain[pass == 0 || i != 3 ? i : 0].codes);
        }
    }
    assert_true(same(s, plain, same_codes, FRAMES));
    assert_true(same(s, plain, others, 4));
    assert_false(same(s, plain, others, FRAMES));
    talker_close(t);
}

/* Opens with these options over usable ones; the sentence must hold `part`. */
static void refuses(const struct speech *s, struct talker_opts o, const char *part)
{
    struct problems why = {0};
    struct talker *t;
    o.model = s->model;
    o.device = s->dev;
    assert_int_equal(talker_open(&t, &o, &why), -EINVAL);
    assert_int_equal(why.n, 1);
    if (strstr(why.text[0], part) == NULL)
        fail_msg("\"%s\" does not say \"%s\"", why.text[0], part);
    problems_free(&why);
}

static void options_are_checked(void **state)
{
    struct speech *s = *state;
    struct talker_config *c = &s->model->config.talker;
    int vocab = c->text.vocab, speakers = c->n_speakers;
    refuses(s, (struct talker_opts){.speaker = "bob"},
            "speaker \"bob\" is unknown; the model has chelsie, ethan, aiden");
    refuses(s, (struct talker_opts){.newline = -1}, "newline is token -1");
    refuses(s, (struct talker_opts){.positions = 9}, "9 positions, expected 10");
    refuses(s, (struct talker_opts){.positions = c->text.max_positions + 1}, "positions");
    c->text.vocab = 1024;
    refuses(s, (struct talker_opts){0}, "0 codes");
    c->text.vocab = vocab;
    c->n_speakers = 0;
    refuses(s, (struct talker_opts){0}, "the model has none");
    c->n_speakers = speakers;
    s->model->speech = false;
    refuses(s, (struct talker_opts){0}, "without speech");
    s->model->speech = true;
}

static void speakers_differ_and_have_no_case(void **state)
{
    const struct speech *s = *state;
    static const char *const names[] = {NULL, "eThAn", "Aiden"};
    struct codec_frame f[3][FRAMES];
    for (int i = 0; i < 3; i++) {
        struct talker *t;
        const struct talker_opts o = {.model = s->model,
                                      .device = s->dev,
                                      .newline = NEWLINE,
                                      .speaker = names[i]};
        assert_int_equal(talker_open(&t, &o, NULL), 0);
        reply(s, t, f[i], 9, 0);
        talker_close(t);
    }
    assert_true(same(s, f[0], f[1], FRAMES));
    assert_false(same(s, f[0], f[2], FRAMES));
}

static void memory_is_taken_at_open_alone(void **state)
{
    const struct speech *s = *state;
    struct codec_frame f[FRAMES];
    struct talker *t = open_talker(s, 1, 0);
    speech_allocs = 0;
    reply(s, t, f, USER_ROWS, 0);
    assert_int_equal(speech_allocs, 0);
    talker_close(t);
}

static void every_allocation_may_fail(void **state)
{
    const struct speech *s = *state;
    const struct talker_opts o = {.model = s->model, .device = s->dev};
    struct talker *t = NULL;
    int err = -ENOMEM, n = 0;
    for (; err < 0; n++) {
        struct problems why = {0};
        speech_allocs = 0;
        speech_fails = n;
        err = talker_open(&t, &o, &why);
        assert_true(err == 0 || (err == -ENOMEM && why.n == 1));
        problems_free(&why);
    }
    speech_fails = -1;
    assert_true(n > 40);
    assert_true(talker_bytes(&o) > 0);
    talker_close(t);
    talker_close(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(waits_for_words),
        cmocka_unit_test(when_words_come_does_not_matter),
        cmocka_unit_test(kept_rows_are_as_good_as_new),
        cmocka_unit_test(a_seed_decides),
        cmocka_unit_test(greedy_needs_no_seed),
        cmocka_unit_test(codes_lie_in_the_codebook),
        cmocka_unit_test(ends_when_the_end_is_drawn),
        cmocka_unit_test(runaway_speech_is_stopped),
        cmocka_unit_test(frames_are_limited),
        cmocka_unit_test(the_cache_is_limited),
        cmocka_unit_test(no_words_no_speech),
        cmocka_unit_test(wrong_words_are_refused),
        cmocka_unit_test(replaced_codes_are_built_upon),
        cmocka_unit_test(options_are_checked),
        cmocka_unit_test(speakers_differ_and_have_no_case),
        cmocka_unit_test(memory_is_taken_at_open_alone),
        cmocka_unit_test(every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, setup_endless, speech_teardown);
}
