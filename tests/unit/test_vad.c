/*
 * tests/unit/test_vad.c - voice activity.
 *
 * The network against the probabilities of the silero-vad package on a short sound
 * (tests/golden/vad), and its independence of how the sound is cut; damaged weight files and
 * impossible settings are refused by name; sound that is no number does no lasting harm. The
 * conclusions drawn from probabilities are checked on rows of them written down here, one
 * character a chunk, and on random ones.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <errno.h>
#include <sndfile.h>

#include "base/util.h"
#include "tests/support/sanitized.h"
#include "vad/segment.h"
#include "vad/vad.h"

#define WEIGHTS SOURCE_DIR "/models/vad/silero.bin"
#define GOLDEN  SOURCE_DIR "/tests/golden/vad/"

enum { SAMPLES = 88000, CHUNKS = SAMPLES / VAD_CHUNK, EVENTS_MAX = 32 };
/* What is enough of it where it is heard again and again: its first speech begins within. */
enum { PART = SANITIZED ? 28000 : SAMPLES };
/* Where the golden sound has speech: printed by tools/vad_reference.py when it made it. */
enum { FIRST = 12000, FIRST_END = 38250, SECOND = 49250, SECOND_END = 63154 };

static float speech[SAMPLES];
static uint32_t seed = 1;

static uint32_t noise(void)
{
    seed = seed * 1664525u + 1013904223u;
    return seed >> 8;
}

static int load_speech(void **state)
{
    (void)state;
    SF_INFO info = {0};
    SNDFILE *f = sf_open(GOLDEN "speech.wav", SFM_READ, &info);
    sf_count_t n = f ? sf_read_float(f, speech, SAMPLES) : 0;
    sf_close(f);
    return n == SAMPLES ? 0 : -1;
}

static struct vad *open_vad(void)
{
    struct vad *v = NULL;
    struct vad_opts o = {.path = WEIGHTS};
    assert_int_equal(vad_open(&v, &o, NULL), 0);
    return v;
}

/* What came out of a sound: the probability after each chunk and the events. */
struct track {
    float p[CHUNKS];
    struct vad_event event[EVENTS_MAX];
    int chunks, events;
};

/* Feeds pieces of `piece` samples, or of random lengths when it is 0. */
static void feed(struct vad *v, const float *pcm, size_t n, size_t piece, struct track *t)
{
    struct vad_now now;
    *t = (struct track){0};
    for (size_t at = 0; at < n;) {
        size_t some = min_size(n - at, piece ? piece : 1 + noise() % 900);
        for (size_t used; some > 0; some -= used, at += used) {
            struct vad_event *e = &t->event[t->events];
            used = vad_feed(v, pcm + at, some, e);
            assert_true(used == some || (used > 0 && used < some && e->kind != VAD_NONE));
            t->events += e->kind != VAD_NONE;
            assert_true(t->events < EVENTS_MAX);
            vad_now(v, &now);
            t->chunks = (int)(now.position / VAD_CHUNK);
            if (t->chunks > 0)
                t->p[t->chunks - 1] = now.probability;
        }
    }
}

static void matches_the_package(void **state)
{
    (void)state;
    struct vad *v = open_vad();
    struct track t;
    feed(v, speech, SAMPLES, 160, &t);
    vad_close(v);
    FILE *f = fopen(GOLDEN "probabilities.txt", "r");
    assert_non_null(f);
    char line[100];
    assert_non_null(fgets(line, sizeof(line), f));
    double worst = 0;
    int n = 0;
    for (; fgets(line, sizeof(line), f); n++)
        worst = fmax(worst, fabs(strtod(line, NULL) - (double)t.p[min_int(n, CHUNKS - 1)]));
    fclose(f);
    print_message("largest difference from the package: %.1e\n", worst);
    assert_int_equal(n, t.chunks);
    assert_int_equal(n, CHUNKS);
    assert_true(worst < 1e-5);
}

static void near(int64_t a, int64_t b, int64_t room)
{
    assert_in_range(a - b + room, 0, 2 * room);
}

static void finds_the_speech(void **state)
{
    (void)state;
    struct vad *v = open_vad();
    struct track t;
    feed(v, speech, SAMPLES, 160, &t);
    assert_int_equal(t.events, 4);
    const int64_t truth[4] = {FIRST, FIRST_END, SECOND, SECOND_END};
    for (int i = 0; i < 4; i++) {
        assert_int_equal(t.event[i].kind, i % 2 ? VAD_END : VAD_START);
        near(t.event[i].at, truth[i], 1600);
        assert_true(t.event[i].known - truth[i] <= (i % 2 ? 4800 : 1600));
        assert_true(t.event[i].from < truth[i - i % 2]);
    }
    vad_close(v);
}

static void cutting_changes_nothing(void **state)
{
    (void)state;
    const size_t pieces[] = {1, 7, 160, 511, 512, 513, 4000, PART, 0, 0};
    struct vad *v = open_vad();
    struct track whole, cut;
    feed(v, speech, PART, 160, &whole);
    for (size_t i = 0; i < ARRAY_LEN(pieces); i++) {
        vad_reset(v, 0);
        feed(v, speech, PART, pieces[i], &cut);
        assert_int_equal(whole.events, cut.events);
        assert_memory_equal(whole.event, cut.event, sizeof(cut.event));
        assert_int_equal(whole.chunks, PART / VAD_CHUNK);
        for (int k = 0; pieces[i] && pieces[i] <= VAD_CHUNK && k < whole.chunks; k++)
            assert_memory_equal(&whole.p[k], &cut.p[k], sizeof(float));
        assert_memory_equal(&whole.p[whole.chunks - 1], &cut.p[whole.chunks - 1], sizeof(float));
    }
    vad_close(v);
}

static void reset_is_fresh(void **state)
{
    (void)state;
    struct vad *v = open_vad();
    struct track fresh, again;
    feed(v, speech, PART, 160, &fresh);
    vad_reset(v, 0);
    feed(v, speech + 5000, 20001, 160, &again); /* leaves it within speech and within a chunk */
    vad_reset(v, 0);
    feed(v, speech, PART, 160, &again);
    assert_memory_equal(&fresh, &again, sizeof(fresh));
    vad_reset(v, 1000000);
    struct vad_event e;
    size_t used = vad_feed(v, speech, PART, &e);
    assert_int_equal(e.kind, VAD_START);
    assert_int_equal(e.at, fresh.event[0].at + 1000000);
    assert_int_equal(e.known, 1000000 + used);
    vad_close(v);
}

static void no_number_does_no_harm(void **state)
{
    (void)state;
    struct vad *v = open_vad();
    static float bad[PART], mended[PART];
    const float poison[] = {NAN, INFINITY, -INFINITY, -NAN, 3e38f, -3e38f};
    uint64_t count = 0;
    for (int i = 0; i < PART; i++) {
        int hit = i > 3000 && i % 97 == 0, k = i / 97 % 6;
        bad[i] = hit ? poison[k] : speech[i];
        mended[i] = !hit ? speech[i] : k == 4 ? 4.0f : k == 5 ? -4.0f : 0;
        count += hit && k < 4;
    }
    struct track t, same;
    struct vad_now now;
    feed(v, bad, PART, 160, &t);
    vad_now(v, &now);
    assert_int_equal(now.bad, count);
    vad_reset(v, 0);
    feed(v, mended, PART, 160, &same);
    assert_memory_equal(&t, &same, sizeof(t));
    for (int i = 0; i < t.chunks; i++)
        assert_true(t.p[i] >= 0 && t.p[i] <= 1);
    vad_close(v);
}

/* Silence, white noise, mains hum, a tone, clicks: 5.5 seconds of each are no speech. */
static float no_speech(int kind, int i)
{
    float white = (float)noise() * 0x1p-23f - 1, t = (float)i / VAD_RATE;
    switch (kind) {
    case 0:
        return 0;
    case 1:
        return 0.1f * white;
    case 2:
        return 0.1f * sinf(314.159f * t) + 0.03f * sinf(942.478f * t) + 0.001f * white;
    case 3:
        return 0.3f * sinf(2764.6f * t) + 0.001f * white;
    default:
        return (i % 4321 < 200 ? 0.5f * expf((float)(i % 4321) / -40) : 0.001f) * white;
    }
}

static void noise_is_no_speech(void **state)
{
    (void)state;
    struct vad *v = open_vad();
    struct track t;
    static float pcm[PART];
    for (int kind = 0; kind < 5; kind++) {
        for (int i = 0; i < PART; i++)
            pcm[i] = no_speech(kind, i);
        vad_reset(v, 0);
        feed(v, pcm, PART, 160, &t);
        assert_int_equal(t.events, 0);
    }
    vad_close(v);
}

static void other_thresholds(void **state)
{
    (void)state;
    const struct vad_opts o = {WEIGHTS, .threshold_on = 0.99999f, .threshold_off = 0.9f};
    struct vad *v;
    struct track t;
    assert_int_equal(vad_open(&v, &o, NULL), 0);
    feed(v, speech, SAMPLES, 160, &t);
    assert_true(t.events > 0 && t.event[0].known > FIRST + 4000);
    vad_close(v);
}

/* One sentence that names what is wrong. */
static void refused(const struct vad_opts *o, int err, const char *sentence)
{
    struct vad *v = NULL;
    struct problems why = {0};
    assert_int_equal(vad_open(&v, o, &why), err);
    assert_null(v);
    assert_int_equal(why.n, 1);
    if (strstr(why.text[0], sentence) == NULL)
        fail_msg("\"%s\" does not say \"%s\"", why.text[0], sentence);
    problems_free(&why);
}

static void write_file(const char *path, const char *data, size_t n)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, n, f), n);
    fclose(f);
}

static void refuses_wrong_files(void **state)
{
    (void)state;
    const char *path = "test_vad.bin";
    const struct vad_opts o = {.path = path};
    char *good = NULL;
    size_t n = 0;
    assert_int_equal(read_file(&good, &n, WEIGHTS, 1 << 22), 0);
    remove(path);
    refused(&o, -ENOENT, "test_vad.bin: No such file");
    refused(&(struct vad_opts){0}, -EINVAL, "no weight file is named");
    const size_t short_by[] = {n, n - 7, n - 63};
    for (size_t i = 0; i < ARRAY_LEN(short_by); i++) {
        write_file(path, good, n - short_by[i]);
        refused(&o, -EINVAL, "not a voice activity weight file");
    }
    write_file(path, good, n - 1);
    refused(&o, -EINVAL, "1236547 bytes, expected 1236548");
    write_file(path, good, n + 1); /* the closing NUL of read_file */
    refused(&o, -EINVAL, "1236549 bytes, expected 1236548");
    const struct {
        size_t at;
        const char *sentence;
    } flips[] = {{0, "not a voice activity weight file"},
                 {8, "version 0, expected 1"},
                 {12, "rate 16001, chunk 512"},
                 {16, "chunk 513"},
                 {20, "context 65"},
                 {24, "floats; expected"},
                 {32, "checksum"},
                 {64, "checksum"},
                 {n / 2, "checksum"},
                 {n - 1, "checksum"}};
    for (size_t i = 0; i < ARRAY_LEN(flips); i++) {
        good[flips[i].at] ^= 1;
        write_file(path, good, n);
        refused(&o, -EINVAL, flips[i].sentence);
        good[flips[i].at] ^= 1;
    }
    free(good);
    remove(path);
}

static void refuses_wrong_settings(void **state)
{
    (void)state;
    refused(&(struct vad_opts){WEIGHTS, .threshold_on = 1.5f}, -EINVAL, "thresholds on 1.5");
    refused(&(struct vad_opts){WEIGHTS, .threshold_on = NAN}, -EINVAL, "thresholds on nan");
    refused(&(struct vad_opts){WEIGHTS, .threshold_on = 0.3f, .threshold_off = 0.4f}, -EINVAL,
            "off 0.4");
    refused(&(struct vad_opts){WEIGHTS, .threshold_rise = -1}, -EINVAL, "rise -1");
    refused(&(struct vad_opts){WEIGHTS, .min_speech_ms = -1}, -EINVAL, "min_speech_ms is -1");
    refused(&(struct vad_opts){WEIGHTS, .hang_ms = 60001}, -EINVAL, "hang_ms is 60001");
    refused(&(struct vad_opts){WEIGHTS, .pre_roll_ms = -5}, -EINVAL, "pre_roll_ms is -5");
}

/* A row of probabilities, one digit a chunk in tenths, and the events in chunks: S from at known,
 * E from at known. The settings are in chunks too (32 ms). */
struct row {
    const char *name, *tenths, *events;
    int min, hang, pre;
    float on, off, rise;
};

static const struct row rows[] = {
    {"silence", "0000000000", "", 1, 2, 1, .5f, .3f, .15f},
    {"plain", "00099990000", "S2 3 4 E2 7 9 ", 1, 2, 1, .5f, .3f, .15f},
    {"at once", "9", "S0 0 1 ", 1, 2, 1, .5f, .3f, .15f},
    {"just at the thresholds", "0053330000", "S1 2 3 E1 6 8 ", 1, 2, 1, .5f, .3f, .15f},
    {"never up to the first threshold", "0044440000", "", 1, 2, 1, .5f, .3f, .15f},
    {"dip above the second", "0094949000000", "S1 2 3 E1 7 9 ", 1, 2, 1, .5f, .3f, .15f},
    {"dip within the hang", "00909000000", "S1 2 3 E1 5 7 ", 1, 2, 1, .5f, .3f, .15f},
    {"dip as long as the hang", "009009000", "S1 2 3 E1 3 5 S4 5 6 E4 6 8 ", 1, 2, 1, .5f, .3f,
     .15f},
    {"climb belongs to it", "00023490000", "S2 3 7 E2 7 9 ", 1, 2, 1, .5f, .3f, .15f},
    {"climb with a gap", "02202290000", "S3 4 7 E3 7 9 ", 1, 2, 1, .5f, .3f, .15f},
    {"climb is bounded", "0222222222222900", "S4 5 14 E4 14 16 ", 1, 2, 1, .5f, .3f, .15f},
    {"no climb when rise is above on", "00044490000", "S5 6 7 E5 7 9 ", 1, 2, 1, .5f, .3f, .8f},
    {"too short", "00990099000", "", 3, 2, 1, .5f, .3f, .15f},
    {"long enough", "0099900000", "S1 2 5 E1 5 7 ", 3, 2, 1, .5f, .3f, .15f},
    {"short bits do not add up", "09909900000", "", 3, 2, 1, .5f, .3f, .15f},
    {"short bits, rise through", "0992999000", "S0 1 7 E0 7 9 ", 3, 2, 1, .5f, .3f, .15f},
    {"pre-roll not before the sound", "0099000", "S0 2 3 E0 4 6 ", 1, 2, 5, .5f, .3f, .15f},
    {"pre-roll not before the last end", "00990090000", "S0 2 3 E0 4 6 S4 6 7 E4 7 9 ", 1, 2, 5,
     .5f, .3f, .15f},
    {"climb not before the last end was known", "0099222900", "S0 2 3 E0 4 6 S4 6 8 E4 8 10 ", 1, 2,
     5, .5f, .3f, .15f},
};

static void run_row(const struct row *r, char *said, size_t size)
{
    const struct vad_opts o = {NULL,        r->on,        r->off,     r->rise,
                               32 * r->min, 32 * r->hang, 32 * r->pre};
    struct segment s;
    struct vad_event e;
    assert_int_equal(segment_init(&s, &o, NULL), 0);
    segment_reset(&s, 0);
    said[0] = '\0';
    for (int i = 0; r->tenths[i]; i++) {
        segment_push(&s, (i + 1) * VAD_CHUNK, (float)(r->tenths[i] - '0') / 10, &e);
        size_t at = strlen(said);
        if (e.kind != VAD_NONE)
            snprintf(said + at, size - at, "%c%d %d %d ", e.kind == VAD_START ? 'S' : 'E',
                     (int)(e.from / VAD_CHUNK), (int)(e.at / VAD_CHUNK),
                     (int)(e.known / VAD_CHUNK));
    }
}

static void conclusions(void **state)
{
    (void)state;
    char said[200];
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        run_row(&rows[i], said, sizeof(said));
        if (strcmp(said, rows[i].events) != 0)
            fail_msg("%s: %s, expected %s", rows[i].name, said, rows[i].events);
    }
}

/* Whatever the probabilities: starts and ends take turns, speeches do not overlap, and a start
 * never asks for more than segment_reach of the past. */
static void laws(void **state)
{
    (void)state;
    for (int run = 0; run < 200; run++) {
        const struct vad_opts o = {.min_speech_ms = (int)(noise() % 120),
                                   .hang_ms = (int)(noise() % 400),
                                   .pre_roll_ms = (int)(noise() % 400)};
        struct segment s;
        struct vad_event e;
        int64_t last = 0, from = 0;
        enum vad_kind kind = VAD_END;
        float p = 0;
        assert_int_equal(segment_init(&s, &o, NULL), 0);
        segment_reset(&s, 0);
        for (int64_t end = VAD_CHUNK; end < 300 * VAD_CHUNK; end += VAD_CHUNK) {
            p = noise() % 3 ? p : (float)(noise() % 1000) / 1000;
            segment_push(&s, end, noise() % 50 ? p : NAN, &e);
            if (e.kind == VAD_NONE)
                continue;
            assert_int_not_equal(e.kind, kind);
            kind = e.kind;
            assert_int_equal(e.known, end);
            assert_true(last <= e.from && e.from <= e.at);
            assert_true(kind == VAD_END ? e.from == from && e.at < end
                                        : end - e.from <= segment_reach(&s));
            from = e.from;
            last = kind == VAD_END ? e.at : last;
        }
    }
}

/* The counters that turn taking reads between events. */
static void counters(void **state)
{
    (void)state;
    struct vad *v = open_vad();
    struct vad_event e;
    struct vad_now now;
    size_t at = 0;
    while (at < PART) {
        at += vad_feed(v, speech + at, min_size(160, PART - at), &e);
        vad_now(v, &now);
        assert_int_equal(now.position, at);
        assert_true(now.quiet >= 0 && now.voiced >= 0 && now.voiced <= now.position);
        assert_true(now.speech ? now.voiced > 0 : now.voiced == 0 && now.quiet == 0);
        assert_true(now.quiet < 200 * 16 + 2 * VAD_CHUNK);
        if (e.kind == VAD_START)
            assert_true(e.known - e.from <= vad_reach(v));
    }
    vad_close(v);
    vad_close(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(matches_the_package),
        cmocka_unit_test(finds_the_speech),
        cmocka_unit_test(noise_is_no_speech),
        cmocka_unit_test(cutting_changes_nothing),
        cmocka_unit_test(reset_is_fresh),
        cmocka_unit_test(no_number_does_no_harm),
        cmocka_unit_test(other_thresholds),
        cmocka_unit_test(refuses_wrong_files),
        cmocka_unit_test(refuses_wrong_settings),
        cmocka_unit_test(conclusions),
        cmocka_unit_test(laws),
        cmocka_unit_test(counters),
    };
    return cmocka_run_group_tests(tests, load_speech, NULL);
}
