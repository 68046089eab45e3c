/*
 * tests/unit/test_ask.c - the command line as a person meets it: exit codes, one sentence for every
 * bad input, JSON, dump, sound files of many kinds.
 */
#include <fcntl.h>
#include <getopt.h>
#include <math.h>
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
#include <jansson.h>
#include <sndfile.h>

#include "base/util.h"
#include "daemon/commands.h"
#include "model/safetensors.h"

#define SHAPE    SOURCE_DIR "/tests/golden/heads"
#define QUESTION SHAPE "/question.wav"

static char dir[4096];

static const char *in_dir(const char *name)
{
    static char path[4][8192];
    static int turn;
    turn = (turn + 1) % 4;
    snprintf(path[turn], sizeof(path[turn]), "%s/%s", dir, name);
    return path[turn];
}

struct result {
    int code;
    char *out, *err; /* freed by the next run */
};

static void redirect(int fd, const char *path, int *saved)
{
    fflush(NULL);
    *saved = dup(fd);
    int file = open(path, O_CREAT | O_TRUNC | O_WRONLY, 0600);
    assert_true(file >= 0);
    dup2(file, fd);
    close(file);
}

static void restore(int fd, int saved)
{
    fflush(NULL);
    dup2(saved, fd);
    close(saved);
}

/* Runs a command in this process, so that the sanitizers see it. */
static struct result run(int (*cmd)(int, char **), char **argv)
{
    static struct result r;
    int out, err, argc = 0;
    size_t len;
    free(r.out);
    free(r.err);
    while (argv[argc] != NULL)
        argc++;
    optind = 0;
    redirect(1, in_dir("stdout"), &out);
    redirect(2, in_dir("stderr"), &err);
    r.code = cmd(argc, argv);
    restore(1, out);
    restore(2, err);
    assert_int_equal(read_file(&r.out, &len, in_dir("stdout"), 1 << 24), 0);
    assert_int_equal(read_file(&r.err, &len, in_dir("stderr"), 1 << 24), 0);
    return r;
}

#define ASK(...)                                                                                   \
    run(cmd_ask, (char *[]){"ask", "--model", SHAPE, "--quiet", "--max-tokens", "6",               \
                            "--max-frames", "4", __VA_ARGS__, NULL})

static void assert_refused(struct result r, const char *a, const char *b)
{
    if (r.code != EXIT_BAD_INPUT || strstr(r.err, a) == NULL || strstr(r.err, b) == NULL)
        fail_msg("exit %d, '%s' (expected 2, '%s' and '%s')", r.code, r.err, a, b);
    assert_ptr_equal(strchr(r.err, '\n'), r.err + strlen(r.err) - 1); /* one sentence */
}

/* A sound file of `seconds` of a tone with this loudness; `bad` replaces sample 5. */
static char *sound(const char *name, int format, int rate, int channels, double seconds,
                   float loudness, float bad)
{
    SF_INFO info = {.samplerate = rate, .channels = channels, .format = format};
    SNDFILE *f = sf_open(in_dir(name), SFM_WRITE, &info);
    assert_non_null(f);
    size_t n = (size_t)(seconds * rate) * channels;
    float *x = calloc(n + 1, sizeof(*x));
    for (size_t i = 0; i < n; i++)
        x[i] = loudness * (float)sin(0.05 * (double)i);
    if (n > 5 && bad != 0)
        x[5] = bad;
    assert_int_equal(sf_write_float(f, x, (sf_count_t)n), n);
    sf_close(f);
    free(x);
    return strdup(in_dir(name));
}

#define WAV   (SF_FORMAT_WAV | SF_FORMAT_PCM_16)
#define FLOAT (SF_FORMAT_WAV | SF_FORMAT_FLOAT)

static void test_usage(void **state)
{
    (void)state;
    assert_int_equal(run(cmd_ask, (char *[]){"ask", NULL}).code, 2);
    assert_int_equal(run(cmd_ask, (char *[]){"ask", "--help", NULL}).code, 0);
    assert_int_equal(run(cmd_ask, (char *[]){"ask", "--model", SHAPE, NULL}).code, 2);
    assert_int_equal(run(cmd_ask, (char *[]){"ask", "--bogus", NULL}).code, 2);
    assert_refused(ASK("--text", "x", "--threads", "zero"), "--threads", "zero");
    assert_refused(ASK("--text", "x", "--temperature", "-1"), "--temperature", "-1");
    assert_refused(ASK("--text", "x", "--seed", "1e3"), "--seed", "1e3");
    assert_refused(ASK("--text", "x", "--max-tokens", "0"), "--max-tokens", "0");
    assert_refused(ASK("--text", "x", "--device", "abacus"), "abacus", "cpu");
    assert_refused(ASK("--text", "x", "--speaker", "nobody"), "nobody", "ethan");
    assert_refused(ASK("--text", "x", "--context", "100000"), "context of 100000", "65536");
    assert_refused(ASK("--text", "x", "--context", "100000", "--text-only"), "thinker", "65536");
    assert_refused(ASK("--text", "x", "stray"), "stray", "option");
}

static void test_bad_sounds(void **state)
{
    (void)state;
    char *empty = sound("empty.wav", WAV, 16000, 1, 0, 0, 0);
    char *silent = sound("silent.wav", WAV, 16000, 1, 1, 0, 0);
    char *nan = sound("nan.wav", FLOAT, 16000, 1, 1, 0.5f, NAN);
    char *inf = sound("inf.wav", FLOAT, 16000, 1, 1, 0.5f, INFINITY);
    char *brief = sound("brief.wav", WAV, 16000, 1, 0.005, 0.5f, 0);
    char *hours =
        sound("half_an_hour.wav", SF_FORMAT_WAV | SF_FORMAT_PCM_U8, 1000, 1, 1800, 0.5f, 0);
    assert_refused(ASK("--in", empty), "empty.wav", "0 samples");
    assert_refused(ASK("--in", silent), "silent.wav", "silent");
    assert_refused(ASK("--in", nan), "nan.wav", "sample 5");
    assert_refused(ASK("--in", inf), "inf.wav", "sample 5");
    assert_refused(ASK("--in", brief), "brief.wav", "80 samples");
    assert_refused(ASK("--in", hours), "half_an_hour.wav", "1800 s");
    assert_refused(ASK("--in", (char *)in_dir("missing.wav")), "missing.wav", "sound file");
    assert_refused(ASK("--in", SHAPE "/config.json"), "config.json", "sound file");
    assert_refused(ASK("--in", "/dev/null"), "/dev/null", "sound file");
    char *all[] = {empty, silent, nan, inf, brief, hours};
    for (size_t i = 0; i < ARRAY_LEN(all); i++)
        free(all[i]);
}

static void test_bad_text_and_model(void **state)
{
    (void)state;
    char *long_text = malloc(40001);
    memset(long_text, 'q', 40000);
    long_text[40000] = '\0';
    assert_refused(ASK("--text", "caf\xe9"), "text", "UTF-8");
    assert_refused(ASK("--text", long_text), "context", "8192");
    assert_refused(ASK("--text", "x", "--context", "16", "--text", "y"), "context", "16");
    free(long_text);
    struct result r =
        run(cmd_ask, (char *[]){"ask", "--model", "/nonexistent", "--text", "x", NULL});
    assert_refused(r, "/nonexistent/config.json", "expected");
    assert_refused(ASK("--text", "x", "--out", "a.wav", "--text-only"), "--out", "--text-only");
}

/* Where nothing can be written is found out before anything is loaded. */
static void test_unwritable(void **state)
{
    (void)state;
    char *const options[] = {"--out", "--dump"};
    for (size_t i = 0; i < ARRAY_LEN(options); i++) {
        struct result r = ASK("--text", "x", options[i], "/nonexistent/a");
        assert_int_equal(r.code, EXIT_FAILED);
        assert_non_null(strstr(r.err, "/nonexistent/a: cannot be written"));
        assert_string_equal(r.out, "");
        assert_int_equal(ASK("--text", "x", options[i], dir).code, EXIT_FAILED);
    }
    assert_int_equal(ASK("--text", "x", "--dump", "/dev/full").code, EXIT_FAILED);
}

/* Any rate, channel count and container gives an answer. */
static void test_sound_kinds(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        int format, rate, channels;
    } kinds[] = {
        {"a.wav", WAV, 8000, 1},
        {"b.wav", FLOAT, 44100, 2},
        {"c.flac", SF_FORMAT_FLAC | SF_FORMAT_PCM_24, 48000, 3},
        {"d.ogg", SF_FORMAT_OGG | SF_FORMAT_VORBIS, 22050, 1},
        {"e.aiff", SF_FORMAT_AIFF | SF_FORMAT_PCM_16, 96000, 1},
    };
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
        char *path =
            sound(kinds[i].name, kinds[i].format, kinds[i].rate, kinds[i].channels, 0.7, 0.4f, 0);
        struct result r = ASK("--in", path, "--json");
        json_t *line = json_loads(r.out, 0, NULL);
        assert_int_equal(r.code, 0);
        assert_non_null(line);
        double heard = json_number_value(json_object_get(line, "heard_s"));
        assert_true(fabs(heard - 0.7) < 0.01);
        json_decref(line);
        free(path);
    }
}

/* A full disk behind standard output is a failure, not silence. */
static void test_lost_output(void **state)
{
    (void)state;
    int out, err;
    redirect(1, "/dev/full", &out);
    redirect(2, in_dir("stderr"), &err);
    printf("an answer\n");
    int lost = check_output(0), refused = check_output(EXIT_BAD_INPUT);
    restore(1, out);
    restore(2, err);
    clearerr(stdout);
    assert_int_equal(lost, EXIT_FAILED);
    assert_int_equal(refused, EXIT_BAD_INPUT);
    assert_int_equal(check_output(0), 0);
}

static void test_json(void **state)
{
    (void)state;
    static const char *const keys[] = {"turn",   "heard_s", "text",           "tokens",
                                       "frames", "samples", "first_token_ms", "first_sound_ms",
                                       "rtf",    "stop"};
    struct result r = ASK("--in", QUESTION, "--text", "and \"then\"?", "--json", "--greedy",
                          "--out", (char *)in_dir("answer.wav"));
    assert_int_equal(r.code, 0);
    char *second = strchr(r.out, '\n');
    assert_non_null(second);
    *second++ = '\0';
    json_t *line[] = {json_loads(r.out, 0, NULL), json_loads(second, 0, NULL)};
    json_int_t samples = 0;
    for (int t = 0; t < 2; t++) {
        for (size_t k = 0; k < ARRAY_LEN(keys); k++)
            if (json_object_get(line[t], keys[k]) == NULL)
                fail_msg("no '%s'", keys[k]);
        assert_int_equal(json_integer_value(json_object_get(line[t], "turn")), t + 1);
        json_int_t frames = json_integer_value(json_object_get(line[t], "frames"));
        json_int_t n = json_integer_value(json_object_get(line[t], "samples"));
        assert_int_equal(n, 1920 * frames - 555);
        samples += n;
        json_decref(line[t]);
    }
    SF_INFO info = {0};
    SNDFILE *f = sf_open(in_dir("answer.wav"), SFM_READ, &info);
    assert_non_null(f);
    assert_int_equal(info.frames, samples);
    assert_int_equal(info.samplerate, 24000);
    sf_close(f);
}

static void test_dump(void **state)
{
    (void)state;
    static const char *const names[] = {"mel",      "encoder", "prompt_ids",    "thinker_logits",
                                        "text_ids", "codes",   "talker_hidden", "code0_logits",
                                        "wave"};
    struct problems why = {0};
    struct st_file *f;
    assert_int_equal(ASK("--in", QUESTION, "--dump", (char *)in_dir("dump.safetensors")).code, 0);
    assert_int_equal(st_open(&f, in_dir("dump.safetensors"), &why), 0);
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (st_find(f, names[i]) == NULL)
            fail_msg("the dump has no '%s'", names[i]);
    assert_int_equal(st_find(f, "wave")->shape[0], 1920 * st_find(f, "codes")->shape[0] - 555);
    st_close(f);
}

static void test_text_only(void **state)
{
    (void)state;
    struct result r = ASK("--in", QUESTION, "--text-only", "--json");
    json_t *line = json_loads(r.out, 0, NULL);
    assert_int_equal(r.code, 0);
    assert_int_equal(json_integer_value(json_object_get(line, "frames")), 0);
    assert_true(json_is_null(json_object_get(line, "first_sound_ms")));
    json_decref(line);
}

/* Every figure is there whatever the sizes: here the encoder's windows are not the usual ones. */
static void test_bench(void **state)
{
    (void)state;
    static const char *const keys[] = {"load_s",         "anonymous_bytes", "encoder_ms",
                                       "first_token_ms", "thinker_tok_s",   "floor_share",
                                       "frame_ms",       "code2wav_ms",     "rtf",
                                       "first_sound_ms", "read_gb_s"};
    char *file = strdup(in_dir("config.json"));
    json_t *config = json_load_file(SOURCE_DIR "/tools/configs/awkward.json", 0, NULL);
    const char *const parts[] = {"thinker_config", "talker_config"};
    for (size_t i = 0; i < ARRAY_LEN(parts); i++)
        json_object_set_new(json_object_get(json_object_get(config, parts[i]), "text_config"),
                            "max_position_embeddings", json_integer(4096));
    assert_int_equal(json_dump_file(config, file, 0), 0);
    json_decref(config);
    struct result r =
        run(cmd_bench, (char *[]){"bench", "--synthetic", file, "--runs", "1", "--frames", "2",
                                  "--device", "cpu", "--json", NULL});
    json_t *figures = json_loads(r.out, 0, NULL);
    assert_int_equal(r.code, 0);
    for (size_t k = 0; k < ARRAY_LEN(keys); k++)
        if (json_object_get(figures, keys[k]) == NULL)
            fail_msg("no '%s'", keys[k]);
    json_decref(figures);
    assert_refused(run(cmd_bench, (char *[]){"bench", "--synthetic", file, "--type", "f8", NULL}),
                   "--type", "bf16");
    assert_int_equal(run(cmd_bench, (char *[]){"bench", NULL}).code, EXIT_BAD_INPUT);
    free(file);
}

static int make_dir(void **state)
{
    (void)state;
    snprintf(dir, sizeof(dir), "%s/test_ask", BINARY_DIR);
    mkdir(dir, 0755);
    return access(dir, W_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_usage),       cmocka_unit_test(test_bad_sounds),
        cmocka_unit_test(test_sound_kinds), cmocka_unit_test(test_bad_text_and_model),
        cmocka_unit_test(test_json),        cmocka_unit_test(test_dump),
        cmocka_unit_test(test_bench),       cmocka_unit_test(test_unwritable),
        cmocka_unit_test(test_text_only),   cmocka_unit_test(test_lost_output),
    };
    return cmocka_run_group_tests(tests, make_dir, NULL);
}
