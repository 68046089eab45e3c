/*
 * tests/unit/test_code2wav.c - the codec decoder carries its state: however the frames are cut, the
 * sound is the same, bit for bit. (That it is the right sound: tests/parity.)
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <errno.h>

#include "code2wav/code2wav.h"
#include "tests/support/speech.h"

enum { FRAMES = 100 }; /* more than the ring of keys: the window of 19 and 64 */

static void random_codes(const struct speech *s, int32_t *codes, int n)
{
    const struct code2wav_config *c = &s->model->config.code2wav;
    uint32_t x = 7;
    for (int i = 0; i < n * c->groups; i++) {
        x = x * 1664525u + 1013904223u;
        codes[i] = (int32_t)((x >> 8) % (uint32_t)c->codebook);
    }
}

static struct code2wav *open_decoder(const struct speech *s, int max_frames)
{
    struct code2wav *c;
    const struct code2wav_opts o = {.model = s->model, .device = s->dev, .max_frames = max_frames};
    assert_int_equal(code2wav_open(&c, &o, NULL), 0);
    return c;
}

static float *room(const struct speech *s, int n)
{
    return calloc((size_t)n * (size_t)s->model->config.code2wav.frame_samples, sizeof(float));
}

/* n frames, `piece` at a time; returns the samples. */
static int decode(const struct speech *s, struct code2wav *c, const int32_t *codes, int n,
                  int piece, float *pcm)
{
    int groups = s->model->config.code2wav.groups, samples = 0;
    for (int i = 0; i < n; i += piece) {
        int step = n - i < piece ? n - i : piece;
        int got = code2wav_next(c, codes + i * groups, step, pcm + samples);
        assert_true(got >= 0);
        samples += got;
    }
    return samples;
}

static void any_cut_is_the_same_sound(void **state)
{
    const struct speech *s = *state;
    const struct code2wav_config *config = &s->model->config.code2wav;
    const int cuts[][2] = {{64, FRAMES}, {1, 1}, {4, 3}, {1, FRAMES}, {7, 20}};
    int32_t codes[FRAMES * CODE_GROUPS_MAX];
    int expected = FRAMES * config->frame_samples - code2wav_delay(config);
    float *first = room(s, FRAMES), *pcm = room(s, FRAMES);
    random_codes(s, codes, FRAMES);
    for (size_t i = 0; i < sizeof(cuts) / sizeof(cuts[0]); i++) {
        struct code2wav *c = open_decoder(s, cuts[i][0]);
        float *to = i == 0 ? first : pcm;
        assert_int_equal(decode(s, c, codes, FRAMES, cuts[i][1], to), expected);
        assert_memory_equal(to, first, (size_t)expected * sizeof(float));
        code2wav_close(c);
    }
    free(first);
    free(pcm);
}

static void first_call_lacks_the_delay(void **state)
{
    const struct speech *s = *state;
    const struct code2wav_config *config = &s->model->config.code2wav;
    int32_t codes[3 * CODE_GROUPS_MAX];
    struct code2wav *c = open_decoder(s, 1);
    float *pcm = room(s, 1);
    random_codes(s, codes, 3);
    assert_int_equal(code2wav_next(c, codes, 0, pcm), 0);
    assert_int_equal(code2wav_next(c, codes, 1, pcm),
                     config->frame_samples - code2wav_delay(config));
    assert_int_equal(code2wav_next(c, codes + config->groups, 1, pcm), config->frame_samples);
    assert_int_equal(code2wav_next(c, codes + 2 * config->groups, 1, pcm), config->frame_samples);
    free(pcm);
    code2wav_close(c);
}

static void the_release_lags_by_555(void **state)
{
    (void)state;
    const struct code2wav_config release = {.n_rates = 4, .rates = {8, 5, 4, 3}};
    assert_int_equal(code2wav_delay(&release), 555);
}

static void reset_is_as_fresh(void **state)
{
    const struct speech *s = *state;
    int32_t codes[9 * CODE_GROUPS_MAX];
    struct code2wav *c = open_decoder(s, 2);
    float *first = room(s, 9), *again = room(s, 9);
    random_codes(s, codes, 9);
    int samples = decode(s, c, codes, 9, 2, first);
    code2wav_reset(c);
    assert_int_equal(decode(s, c, codes, 9, 1, again), samples);
    assert_memory_equal(again, first, (size_t)samples * sizeof(float));
    free(first);
    free(again);
    code2wav_close(c);
}

static void samples_are_sound(void **state)
{
    const struct speech *s = *state;
    int32_t codes[9 * CODE_GROUPS_MAX];
    struct code2wav *c = open_decoder(s, 9);
    float *pcm = room(s, 9), most = 0;
    random_codes(s, codes, 9);
    int samples = code2wav_next(c, codes, 9, pcm);
    for (int i = 0; i < samples; i++) {
        assert_true(pcm[i] >= -1 && pcm[i] <= 1);
        most = pcm[i] > most ? pcm[i] : most;
    }
    assert_true(most > 0);
    free(pcm);
    code2wav_close(c);
}

static void a_wrong_code_changes_nothing(void **state)
{
    const struct speech *s = *state;
    const struct code2wav_config *config = &s->model->config.code2wav;
    int32_t codes[2 * CODE_GROUPS_MAX], wrong[2 * CODE_GROUPS_MAX];
    struct code2wav *c = open_decoder(s, 1);
    float *pcm = room(s, 2);
    random_codes(s, codes, 2);
    memcpy(wrong, codes, sizeof(wrong));
    wrong[2 * config->groups - 1] = config->codebook;
    assert_int_equal(code2wav_next(c, wrong, 2, pcm), -EINVAL);
    wrong[2 * config->groups - 1] = -1;
    assert_int_equal(code2wav_next(c, wrong, 2, pcm), -EINVAL);
    assert_int_equal(code2wav_next(c, codes, -1, pcm), -EINVAL);
    assert_int_equal(code2wav_next(c, codes, 2, pcm),
                     2 * config->frame_samples - code2wav_delay(config));
    free(pcm);
    code2wav_close(c);
}

static void memory_is_taken_at_open_alone(void **state)
{
    const struct speech *s = *state;
    const struct code2wav_opts o = {.model = s->model, .device = s->dev, .max_frames = 3};
    int32_t codes[4 * CODE_GROUPS_MAX];
    float *pcm = room(s, 4);
    struct code2wav *c = open_decoder(s, 3);
    random_codes(s, codes, 4);
    speech_allocs = 0;
    decode(s, c, codes, 4, 4, pcm);
    code2wav_reset(c);
    assert_int_equal(speech_allocs, 0);
    assert_true(code2wav_bytes(&o) > 4 * 3 * (size_t)s->model->config.code2wav.frame_samples);
    code2wav_close(c);
    free(pcm);
}

static void every_allocation_may_fail(void **state)
{
    const struct speech *s = *state;
    const struct code2wav_opts o = {.model = s->model, .device = s->dev};
    struct code2wav *c = NULL;
    int err = -ENOMEM, n = 0;
    for (; err < 0; n++) {
        struct problems why = {0};
        speech_allocs = 0;
        speech_fails = n;
        err = code2wav_open(&c, &o, &why);
        assert_true(err == 0 || (err == -ENOMEM && why.n == 1));
        problems_free(&why);
    }
    speech_fails = -1;
    assert_true(n > 30);
    code2wav_close(c);
    code2wav_close(NULL);
}

static void speech_is_needed(void **state)
{
    struct speech *s = *state;
    const struct code2wav_opts o = {.model = s->model, .device = s->dev};
    struct code2wav *c;
    struct problems why = {0};
    s->model->speech = false;
    assert_int_equal(code2wav_open(&c, &o, &why), -EINVAL);
    s->model->speech = true;
    assert_int_equal(why.n, 1);
    assert_non_null(strstr(why.text[0], "without speech"));
    problems_free(&why);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_cut_is_the_same_sound),
        cmocka_unit_test(first_call_lacks_the_delay),
        cmocka_unit_test(the_release_lags_by_555),
        cmocka_unit_test(reset_is_as_fresh),
        cmocka_unit_test(samples_are_sound),
        cmocka_unit_test(a_wrong_code_changes_nothing),
        cmocka_unit_test(memory_is_taken_at_open_alone),
        cmocka_unit_test(every_allocation_may_fail),
        cmocka_unit_test(speech_is_needed),
    };
    return cmocka_run_group_tests(tests, speech_setup, speech_teardown);
}
