/*
 * tests/unit/test_conf.c - parley.conf: defaults, every kind of fault as one sentence, the
 * committed file against the table, what can be reloaded.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/util.h"
#include "daemon/conf.h"

static int parse(struct conf *c, const char *text, struct problems *why)
{
    return conf_parse(c, text, strlen(text), "f", why);
}

static void test_empty_is_default(void **unused)
{
    (void)unused;
    struct conf a, b;
    struct problems why = {0};
    size_t n;
    const struct conf_key *k = conf_keys(&n);
    assert_int_equal(conf_init(&a), 0);
    assert_int_equal(parse(&b, "", &why), 0);
    for (size_t i = 0; i < n; i++)
        assert_true(conf_equal(&k[i], &a, &b));
    assert_string_equal(a.capture, "alsa:default");
    assert_int_equal(a.context, 8192);
    assert_int_equal(a.history, CONF_HISTORY_MEMORY);
    assert_int_equal(a.log_level, CONF_LOG_INFO);
    assert_true(a.echo_cancel && !a.recording);
    conf_free(&a);
    conf_free(&b);
    conf_free(&b);
}

/* Turn taking has its own defaults; the file shows the same ones. */
static void test_turn_defaults(void **unused)
{
    (void)unused;
    struct conf c;
    struct turn shown, own;
    assert_int_equal(conf_init(&c), 0);
    memset(&shown, 0, sizeof(shown));
    memset(&own, 0, sizeof(own));
    assert_int_equal(turn_init(&shown, &c.turn, 0, NULL), 0);
    assert_int_equal(turn_init(&own, NULL, 0, NULL), 0);
    assert_memory_equal(&shown.for_, &own.for_, sizeof(own.for_));
    assert_true(shown.likely == own.likely && shown.unlikely == own.unlikely &&
                shown.confirm_probability == own.confirm_probability &&
                shown.hold_probability == own.hold_probability &&
                shown.settle_probability == own.settle_probability &&
                shown.wake_needed == own.wake_needed && shown.heard_you == own.heard_you);
    conf_free(&c);
}

static void test_values(void **unused)
{
    (void)unused;
    struct conf c;
    struct problems why = {0};
    assert_int_equal(parse(&c,
                           "\xEF\xBB\xBF# a comment\r\n"
                           "[audio]\r\n"
                           "  volume = 35  ; in per cent\r\n"
                           "noise: yes\n"
                           "capture=alsa:hw:CARD=Mic,DEV=0\n"
                           "[turn]\n"
                           "likely = 0.75\n"
                           "[speech]\n"
                           "speaker =\n"
                           "[history]\n"
                           "keep = file",
                           &why),
                     0);
    assert_int_equal(c.volume, 35);
    assert_true(c.noise);
    assert_string_equal(c.capture, "alsa:hw:CARD=Mic,DEV=0");
    assert_float_equal(c.turn.likely, 0.75, 1e-6);
    assert_string_equal(c.speaker, "");
    assert_int_equal(c.history, CONF_HISTORY_FILE);
    conf_free(&c);
}

/* Each text has exactly this fault. */
static void test_faults(void **unused)
{
    (void)unused;
    const struct {
        const char *text, *sentence;
    } cases[] = {
        {"[audio]\n\nvolume = 300\n",
         "f:3: [audio] volume: found '300', expected a whole number from 0 to 100"},
        {"[audio]\nvolume = 3x\n",
         "f:2: [audio] volume: found '3x', expected a whole number from 0 to 100"},
        {"[audio]\nvolume =\n",
         "f:2: [audio] volume: found '', expected a whole number from 0 to 100"},
        {"[audio]\nvolume = 99999999999999999999\n",
         "f:2: [audio] volume: found '99999999999999999999', expected a whole number from 0 to "
         "100"},
        {"[turn]\nlikely = nan\n", "f:2: [turn] likely: found 'nan', expected a number from 0.001 "
                                   "to 1"},
        {"[audio]\nnoise = maybe\n", "f:2: [audio] noise: found 'maybe', expected yes or no"},
        {"[history]\nkeep = disk\n",
         "f:2: [history] keep: found 'disk', expected one of memory, file"},
        {"[history]\nkeeps = file\n", "f:2: [history] has no key 'keeps', it has: keep, turns"},
        {"volume = 3\n", "f:1: found 'volume' before the first [section]"},
        {"[audio]\nvolume = 3\nnoise = no\nvolume = 4\n",
         "f:4: [audio] volume was set in line 2 already"},
        {"[audio]\nvolume = 3\n   volume = 4\n", "f:3: [audio] volume was set in line 2 already"},
        {"[audio]\nvolume\n", "f:2: found 'volume', expected key = value"},
        {"[audio]\n\nvolume 3 ; a = b\n", "f:3: expected key = value"},
        {"[audio\nvolume = 3", "f:1: found a section without ']'"},
        {"[radio]\nvolume = 3",
         "f:1: unknown section [radio], there are: model, audio, speech, turn, history, recording, "
         "buttons, control, service"},
        {"[audio]\ncapture = a\x01z\n", "f:2: found a control character"},
        {"[audio]\ncapture = foo:bar\n",
         "f:2: [audio] capture: device 'foo:bar': no such kind of device, expected alsa:NAME, "
         "portaudio:NAME, wav:PATH or null"},
        {"[audio]\nplayback = speaker\n",
         "f:2: [audio] playback: device 'speaker': no such kind of device, expected alsa:NAME, "
         "portaudio:NAME, wav:PATH or null"},
        {"[audio]\nrate = 16001\n",
         "f:2: [audio] rate: found '16001', expected a whole number from 16000 to 192000 in steps "
         "of 100 (beyond 64000: of 400)"},
        {"[audio]\nrate = 64100\n",
         "f:2: [audio] rate: found '64100', expected a whole number from 16000 to 192000 in steps "
         "of 100 (beyond 64000: of 400)"},
        {"[audio]\nrate = 15900\n",
         "f:2: [audio] rate: found '15900', expected a whole number from 16000 to 192000 in steps "
         "of 100 (beyond 64000: of 400)"},
        {"[buttons]\nmute = KEY_NOPE\n",
         "f:2: [buttons] mute: found 'KEY_NOPE', expected the name of a key as KEY_MICMUTE, or "
         "nothing"},
        {"[control]\nsocket =\n",
         "f:2: [control] socket: found '', expected a path of at most 107 characters"},
        {"[turn]\nend_likely_ms = 700\n",
         "f: [turn] turn taking: expected end_likely_ms <= end_ms <= silence_max_ms"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct conf c;
        struct problems why = {0};
        int err = parse(&c, cases[i].text, &why);
        if (err >= 0 || why.n < 1 || strcmp(why.text[0], cases[i].sentence) != 0)
            fail_msg("%s -> %d, %s", cases[i].text, err, why.n > 0 ? why.text[0] : "-");
        if (strncmp(cases[i].sentence, "f:1: found a section", 20) != 0)
            assert_int_equal(why.n, 1);
        problems_free(&why);
    }
}

/* Where the modules themselves draw the line. */
static void test_names(void **unused)
{
    (void)unused;
    static const struct {
        const char *text;
        bool good;
    } cases[] = {
        {"[model]\ndevice = gpu\n", false},          {"[model]\ndevice = cpu:nothing\n", false},
        {"[model]\ndevice = cuda:x\n", false},       {"[model]\ndevice =\n", false},
        {"[model]\ndevice = plain\n", true},         {"[model]\ndevice = cpu\n", true},
        {"[model]\ndevice = cpu:generic\n", true},   {"[audio]\ncapture = null\n", true},
        {"[audio]\ncapture = wav:/a b.wav\n", true}, {"[audio]\nrate = 44100\n", true},
        {"[audio]\nrate = 96000\n", true},           {"[audio]\nrate = 192000\n", true},
        {"[audio]\nrate = 191900\n", false},         {"[buttons]\nstop =\n", true},
        {"[buttons]\nstop = KEY_SPACE\n", true},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct conf c;
        struct problems why = {0};
        int err = parse(&c, cases[i].text, &why);
        if ((err == 0) != cases[i].good || why.n != (cases[i].good ? 0 : 1))
            fail_msg("%s -> %d, %s", cases[i].text, err, why.n > 0 ? why.text[0] : "-");
        if (err == 0)
            conf_free(&c);
        problems_free(&why);
    }
}

static void put_file(const char *path, const char *text)
{
    FILE *f = fopen(path, "we");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

/* What a value names is looked at where the file is read from a disk, and only there. */
static void test_files(void **unused)
{
    (void)unused;
    static const struct {
        const char *text, *sentence;
    } cases[] = {
        {"[speech]\nsystem_file = /nowhere\n",
         ":2: [speech] system_file: /nowhere: No such file or directory"},
        {"[speech]\nsystem_file = " SOURCE_DIR "/models/vad/silero.bin\n",
         ":2: [speech] system_file: " SOURCE_DIR
         "/models/vad/silero.bin: found more than 65536 bytes"},
        {"[speech]\nsystem_file = " SOURCE_DIR "/README.md\n", NULL},
        {"[audio]\nvad = /nowhere\n", ":2: [audio] vad: /nowhere: No such file or directory"},
        {"[audio]\nvad = " SOURCE_DIR "/models/vad/silero.bin\n", NULL},
        {"[model]\npath = /nowhere\n",
         ":2: [model] path: /nowhere/config.json: No such file or directory"},
        {"[model]\npath = " SOURCE_DIR "/models/parley-mini\n", NULL},
        {"[model]\npath = " SOURCE_DIR "/models/parley-mini\ncontext = 65536\n", NULL},
        {"[model]\npath = " SOURCE_DIR "/models/parley-mini\ncontext = 65537\n",
         ":3: [model] context: thinker: found a context of 65537 positions, expected 1 to 65536, "
         "its max_position_embeddings"},
        {"[model]\npath = " SOURCE_DIR "/models/parley-mini\n[speech]\nspeaker = Ethan\n", NULL},
        {"[model]\npath = " SOURCE_DIR "/models/parley-mini\n[speech]\nspeaker = nobody\n",
         ":4: [speech] speaker: talker: speaker \"nobody\" is unknown; the model has ethan"},
    };
    char dir[] = "/tmp/parley-conf-XXXXXX", path[64], expected[512];
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof(path), "%s/conf", dir);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct conf c;
        struct problems why = {0};
        put_file(path, cases[i].text);
        int err = conf_load(&c, path, &why);
        if (cases[i].sentence == NULL) {
            if (err < 0)
                fail_msg("%s -> %s", cases[i].text, why.text[0]);
            conf_free(&c);
            continue;
        }
        snprintf(expected, sizeof(expected), "%s%s", path, cases[i].sentence);
        assert_true(err < 0);
        assert_int_equal(why.n, 1);
        assert_string_equal(why.text[0], expected);
        problems_free(&why);
        assert_int_equal(parse(&c, cases[i].text, &why), 0);
        conf_free(&c);
    }
    unlink(path);
    rmdir(dir);
}

/* A model that was made for less than the default. */
static void test_short_model(void **unused)
{
    (void)unused;
    struct conf c;
    struct problems why = {0};
    char dir[] = "/tmp/parley-conf-XXXXXX", path[64], line[96], expected[256], *text;
    size_t n;
    assert_int_equal(read_file(&text, &n, SOURCE_DIR "/models/parley-mini/config.json", 1 << 20),
                     0);
    for (char *at = text; (at = strstr(at, "65536")) != NULL; at++)
        memcpy(at, "4096 ", 5);
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof(path), "%s/config.json", dir);
    put_file(path, text);
    free(text);
    snprintf(line, sizeof(line), "[model]\npath = %s\n", dir);
    snprintf(path, sizeof(path), "%s/conf", dir);
    put_file(path, line);
    snprintf(expected, sizeof(expected),
             "%s: [model] context: thinker: found a context of 8192 positions, expected 1 to 4096, "
             "its max_position_embeddings",
             path);
    assert_true(conf_load(&c, path, &why) < 0);
    assert_string_equal(why.text[0], expected);
    problems_free(&why);
    unlink(path);
    snprintf(path, sizeof(path), "%s/config.json", dir);
    unlink(path);
    rmdir(dir);
}

static void test_all_faults_at_once(void **unused)
{
    (void)unused;
    struct conf c;
    struct problems why = {0};
    assert_true(parse(&c, "[audio]\nvolume = -1\nnoise = 2\nx = 1\n[turn]\nend_ms = 0\n", &why) <
                0);
    assert_int_equal(why.n, 4);
    problems_free(&why);
}

static void test_long_line_and_nul(void **unused)
{
    (void)unused;
    struct conf c;
    struct problems why = {0};
    char text[400] = "[audio]\ncapture = ";
    memset(text + strlen(text), 'a', 300);
    assert_true(parse(&c, text, &why) < 0);
    assert_string_equal(why.text[0], "f:2: found 310 characters, expected at most 197");
    assert_int_equal(why.n, 1);
    problems_free(&why);
    static const char nul[] = "[audio]\nvolume = 3\0\n";
    assert_true(conf_parse(&c, nul, sizeof(nul) - 1, "f", &why) < 0);
    assert_string_equal(why.text[0], "f:2: found a control character");
    problems_free(&why);
}

static void test_missing_file(void **unused)
{
    (void)unused;
    struct conf c;
    struct problems why = {0};
    assert_true(conf_load(&c, "/nowhere/parley.conf", &why) < 0);
    assert_string_equal(why.text[0], "/nowhere/parley.conf: No such file or directory");
    problems_free(&why);
}

static char *written(size_t *n)
{
    char *text = NULL;
    FILE *f = open_memstream(&text, n);
    conf_write(f);
    fclose(f);
    return text;
}

/* etc/parley.conf is what the table says; with every comment mark of a key taken away it parses to
 * the same. */
static void test_committed_file(void **unused)
{
    (void)unused;
    size_t n, m, keys;
    char *text = written(&n), *file;
    assert_int_equal(read_file(&file, &m, SOURCE_DIR "/etc/parley.conf", 1 << 20), 0);
    if (n != m || memcmp(text, file, n) != 0)
        fail_msg("etc/parley.conf is not what `parleyd --defaults` writes");
    struct conf standard, parsed;
    struct problems why = {0};
    int set = 0;
    for (char *c = text; (c = strchr(c, '#')) != NULL; c++)
        if (c[1] != ' ' && c[1] != '\n') {
            *c = ' ';
            set++;
        }
    const struct conf_key *k = conf_keys(&keys);
    assert_int_equal(set, keys);
    if (parse(&parsed, text, &why) < 0)
        fail_msg("%s", why.text[0]);
    assert_int_equal(conf_init(&standard), 0);
    for (size_t i = 0; i < keys; i++)
        assert_true(conf_equal(&k[i], &standard, &parsed));
    conf_free(&standard);
    conf_free(&parsed);
    free(text);
    free(file);
}

static void test_reload(void **unused)
{
    (void)unused;
    struct conf a, b;
    struct problems why = {0};
    size_t n;
    const struct conf_key *k = conf_keys(&n);
    for (size_t i = 0; i < n; i++)
        assert_false(k[i].reload && k[i].type == CONF_TEXT);
    assert_int_equal(conf_init(&a), 0);
    assert_int_equal(parse(&b,
                           "[audio]\nvolume=1\nnoise=yes\n[service]\nlog_level="
                           "debug\n",
                           &why),
                     0);
    conf_reload(&a, &b);
    assert_int_equal(a.volume, 1);
    assert_int_equal(a.log_level, CONF_LOG_DEBUG);
    assert_false(a.noise); /* only a restart changes it */
    conf_free(&a);
    conf_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_empty_is_default),
        cmocka_unit_test(test_turn_defaults),
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_faults),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_files),
        cmocka_unit_test(test_short_model),
        cmocka_unit_test(test_all_faults_at_once),
        cmocka_unit_test(test_long_line_and_nul),
        cmocka_unit_test(test_missing_file),
        cmocka_unit_test(test_committed_file),
        cmocka_unit_test(test_reload),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
