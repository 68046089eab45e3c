/*
 * tests/parity/parity.c - every stage against what the reference made of the same random weights.
 *
 *     parity [--device D] SHAPE_DIR SCRATCH_DIR
 *
 * prints one line per stage: the largest error relative to the golden's largest value, and its bar.
 * Two passes: weights widened to fp32, greedy and free-running (bar 2e-4, ids and codes equal);
 * weights in bf16 as they lie, forced along the golden's tokens and codes (bar: 1.5 times the
 * reference's own bf16 error at that stage).
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/session.h"
#include "daemon/sound_file.h"
#include "tests/parity/golden.h"

#define BAR        2e-4
#define SAME       1e-5
#define BF16_RATIO 1.5

struct run {
    struct golden g;
    struct session s;
    const char *shape, *pass;
    bool exact; /* the fp32 pass */
    float *pcm;
    size_t samples;
    int failed, checked;
};

static void die(struct problems *why, const char *what)
{
    for (size_t i = 0; i < why->n; i++)
        fprintf(stderr, "parity: %s\n", why->text[i]);
    fprintf(stderr, "parity: %s failed\n", what);
    exit(1);
}

#define MUST(call)                                                                                 \
    do {                                                                                           \
        struct problems why = {0};                                                                 \
        if ((call) < 0)                                                                            \
            die(&why, #call);                                                                      \
    } while (0)

static void line(struct run *r, const char *stage, double error, double bar)
{
    bool ok = error <= bar;
    r->checked++;
    r->failed += !ok;
    printf("%-8s %-5s %-28s %10.2e %10.2e  %s\n", r->shape, r->pass, stage, error, bar,
           ok ? "ok" : "FAIL");
}

/* Largest difference relative to the largest wanted value. */
static double largest(const float *got, const float *want, size_t n)
{
    double diff = 0, top = 1e-30;
    for (size_t i = 0; i < n; i++) {
        double d = fabs((double)got[i] - want[i]);
        diff = d > diff || isnan(d) ? d : diff;
        top = fmax(top, fabs(want[i]));
    }
    return isnan(diff) ? INFINITY : diff / top;
}

static double root_mean_square(const float *got, const float *want, size_t n)
{
    double diff = 0, top = 1e-30;
    for (size_t i = 0; i < n; i++) {
        diff += pow((double)got[i] - want[i], 2);
        top += pow(want[i], 2);
    }
    return isnan(diff) ? INFINITY : sqrt(diff / top);
}

/* One stage's values against the golden `name`; n may be less than the golden has. */
static void compare(struct run *r, const char *stage, const char *name, const float *got, size_t n)
{
    size_t count;
    const float *want = golden_f32(&r->g, name, &count);
    if (count < n)
        line(r, stage, INFINITY, 0);
    else if (r->exact)
        line(r, stage, largest(got, want, n), BAR);
    else
        line(r, stage, root_mean_square(got, want, n),
             BF16_RATIO * golden_bf16_error(&r->g, stage, "rms"));
    if (!r->exact && count >= n) {
        char both[64];
        snprintf(both, sizeof(both), "%s (largest)", stage);
        line(r, both, largest(got, want, n), BF16_RATIO * golden_bf16_error(&r->g, stage, "max"));
    }
}

static void compare_ids(struct run *r, const char *stage, const int32_t *got, const int32_t *want,
                        size_t n)
{
    size_t wrong = 0;
    for (size_t i = 0; i < n; i++)
        wrong += got[i] != want[i];
    char what[64];
    snprintf(what, sizeof(what), "%s, %zu of %zu", stage, n - wrong, n);
    line(r, what, (double)wrong, 0);
}

static void open_session(struct run *r, const char *dir, const char *device)
{
    const struct session_opts o = {
        .dir = dir, .device = device, .greedy = true, .temperature = 0, .context = 1024};
    MUST(session_open(&r->s, &o, &why));
    engine_keep(r->s.engine);
}

/* Hands the question over in pieces of `piece` samples. */
static void hear(struct run *r, size_t piece)
{
    MUST(engine_turn(r->s.engine, &why));
    for (size_t at = 0; at < r->samples; at += piece) {
        size_t n = r->samples - at < piece ? r->samples - at : piece;
        MUST(engine_hear(r->s.engine, r->pcm + at, n, &why));
    }
    MUST(engine_answer(r->s.engine, &why));
}

static void check_question(struct run *r)
{
    size_t n, bins = golden_dim(&r->g, "mel", 0), frames = golden_dim(&r->g, "mel", 1);
    const float *rows, *golden = golden_f32(&r->g, "mel", &n);
    hear(r, 777);
    if ((size_t)engine_mel(r->s.engine, &rows) != frames)
        line(r, "mel frames", 1, 0);
    float *turned = malloc(n * sizeof(float)), *copy = malloc(n * sizeof(float));
    for (size_t f = 0; f < frames; f++)
        for (size_t b = 0; b < bins; b++) {
            turned[b * frames + f] = rows[f * bins + b];
            copy[b * frames + f] = golden[b * frames + f];
        }
    line(r, "mel", largest(turned, copy, n), BAR);
    free(turned);
    free(copy);
    int tokens = engine_encoded(r->s.engine, &rows);
    if ((size_t)tokens != golden_dim(&r->g, "encoder", 0))
        line(r, "encoder rows", 1, 0);
    compare(r, "encoder", "encoder", rows, (size_t)tokens * golden_dim(&r->g, "encoder", 1));
    const int32_t *ids = golden_i32(&r->g, "prompt_ids", &n);
    if ((size_t)engine_length(r->s.engine) != n)
        line(r, "prompt length", 1, 0);
    compare_ids(r, "prompt ids", engine_ids(r->s.engine), ids, n);
}

/* The residual stream handed to the Talker at sound positions. */
static void check_tap(struct run *r)
{
    struct prompt_rows rows;
    engine_prompt(r->s.engine, &rows);
    size_t hidden = golden_dim(&r->g, "tap", 1), n = 0;
    float *got = calloc((size_t)rows.n, hidden * sizeof(float));
    for (int i = 0; i < rows.n; i++)
        if (rows.ids[i] == r->s.model->config.tokens.audio_pad)
            memcpy(got + n++ * hidden, rows.hidden + i * hidden, hidden * sizeof(float));
    compare(r, "tap", "tap", got, n * hidden);
    free(got);
    MUST(talker_prompt(r->s.talker, &rows, &why));
}

/* Words: logits of every step; the ids free-running or forced. */
static void check_words(struct run *r, const char *stage, const char *logits_name,
                        const char *ids_name)
{
    size_t steps, vocab = golden_dim(&r->g, logits_name, 1);
    const int32_t *want = golden_i32(&r->g, ids_name, &steps);
    float *logits = malloc(steps * vocab * sizeof(float));
    int32_t *ids = calloc(steps, sizeof(*ids));
    for (size_t i = 0; i < steps; i++) {
        ids[i] = want[i];
        if (r->exact)
            MUST(engine_next(r->s.engine, &ids[i], &why));
        else
            MUST(engine_force(r->s.engine, want[i], &why));
        engine_logits(r->s.engine, logits + i * vocab);
    }
    compare(r, stage, logits_name, logits, steps * vocab);
    if (r->exact)
        compare_ids(r, ids_name, ids, want, steps);
    free(logits);
    free(ids);
}

/* Speech for the golden's words: hidden, code0 logits and codes of every frame. */
static void check_speech(struct run *r, const char *hidden_name, const char *codes_name,
                         const char *ids_name, bool logits_too)
{
    size_t words, total, groups = golden_dim(&r->g, codes_name, 1);
    const int32_t *ids = golden_i32(&r->g, ids_name, &words);
    const int32_t *want = golden_i32(&r->g, codes_name, &total);
    size_t frames = total / groups, hidden = golden_dim(&r->g, hidden_name, 1);
    size_t vocab = golden_dim(&r->g, "code0_logits", 1);
    float *h = calloc(frames, hidden * sizeof(float)), *l = calloc(frames, vocab * sizeof(float));
    int32_t *codes = calloc(total, sizeof(*codes));
    for (size_t i = 0; i < words; i++)
        talker_text(r->s.talker, ids[i]);
    for (size_t f = 0; f < frames; f++) {
        struct codec_frame frame;
        if (talker_next(r->s.talker, &frame) != 1)
            break;
        memcpy(codes + f * groups, frame.codes, groups * sizeof(*codes));
        talker_hidden(r->s.talker, h + f * hidden);
        talker_logits(r->s.talker, l + f * vocab);
        if (!r->exact)
            talker_replace(r->s.talker, want + f * groups);
    }
    compare(r, "talker_hidden", hidden_name, h, frames * hidden);
    if (logits_too)
        compare(r, "code0_logits", "code0_logits", l, frames * vocab);
    if (r->exact)
        compare_ids(r, codes_name, codes, want, total);
    free(h);
    free(l);
    free(codes);
}

/* Sound for the golden's codes, `step` frames at a time. */
static float *decode(struct run *r, const char *codes_name, int step, size_t *samples)
{
    size_t total, groups = golden_dim(&r->g, codes_name, 1);
    const int32_t *codes = golden_i32(&r->g, codes_name, &total);
    int frames = (int)(total / groups);
    float *pcm = calloc((size_t)frames, r->s.model->config.code2wav.frame_samples * sizeof(float));
    *samples = 0;
    code2wav_reset(r->s.code2wav);
    for (int f = 0; f < frames; f += step) {
        int n = frames - f < step ? frames - f : step;
        int got = code2wav_next(r->s.code2wav, codes + f * groups, n, pcm + *samples);
        *samples += got > 0 ? (size_t)got : 0;
    }
    return pcm;
}

static void check_sound(struct run *r, const char *codes_name, const char *wave_name)
{
    size_t samples, all, count;
    float *single = decode(r, codes_name, 1, &samples);
    float *once = decode(r, codes_name, 1 << 20, &all);
    golden_f32(&r->g, wave_name, &count);
    size_t frames = golden_dim(&r->g, codes_name, 0);
    const struct code2wav_config *c = &r->s.model->config.code2wav;
    line(r, "wave length",
         fabs((double)samples - (double)(frames * c->frame_samples - code2wav_delay(c))), 0);
    if (samples != count || all != count)
        line(r, "wave length as golden", 1, 0);
    else
        compare(r, wave_name, wave_name, single, samples);
    line(r, "wave: frames = one shot", largest(single, once, samples), SAME);
    free(single);
    free(once);
}

/* Turn two: the answer is cut after 12 words, a written turn follows. */
static void check_second_turn(struct run *r, int prompt)
{
    size_t n;
    const int32_t *want = golden_i32(&r->g, "turn2_prompt_ids", &n);
    struct prompt_rows rows;
    MUST(engine_rewind(r->s.engine, prompt + 12, &why));
    MUST(engine_turn(r->s.engine, &why));
    MUST(engine_text(r->s.engine, "what about two?", &why));
    MUST(engine_answer(r->s.engine, &why));
    compare_ids(r, "turn2 prompt ids", engine_ids(r->s.engine), want, n);
    engine_prompt(r->s.engine, &rows);
    MUST(talker_prompt(r->s.talker, &rows, &why));
    if (!r->exact)
        return;
    check_words(r, "turn2_logits", "turn2_logits", "turn2_ids");
    check_speech(r, "turn2_talker_hidden", "turn2_codes", "turn2_ids", false);
}

static void check_system(struct run *r)
{
    size_t n;
    const int32_t *want = golden_i32(&r->g, "sys_prompt_ids", &n);
    MUST(engine_rewind(r->s.engine, 0, &why));
    MUST(engine_system(r->s.engine, "You are Parley.", &why));
    MUST(engine_turn(r->s.engine, &why));
    MUST(engine_text(r->s.engine, "hello", &why));
    MUST(engine_answer(r->s.engine, &why));
    compare_ids(r, "sys prompt ids", engine_ids(r->s.engine), want, n);
    check_words(r, "sys_logits", "sys_logits", "sys_ids");
}

/* Copies of the encoder rows and of the first logits after the question heard in some way. */
struct heard {
    float *rows, *logits;
    size_t n_rows, n_logits;
};

static struct heard take(struct run *r)
{
    const float *rows;
    struct heard h = {.n_logits = (size_t)r->s.model->config.thinker.vocab};
    h.n_rows = (size_t)engine_encoded(r->s.engine, &rows) * r->s.model->config.audio.output;
    h.rows = malloc(h.n_rows * sizeof(float));
    h.logits = malloc(h.n_logits * sizeof(float));
    memcpy(h.rows, rows, h.n_rows * sizeof(float));
    engine_logits(r->s.engine, h.logits);
    return h;
}

static void same(struct run *r, const char *what, struct heard *got, const struct heard *want)
{
    double error =
        got->n_rows == want->n_rows ? largest(got->rows, want->rows, want->n_rows) : INFINITY;
    line(r, what, fmax(error, largest(got->logits, want->logits, want->n_logits)), SAME);
    free(got->rows);
    free(got->logits);
}

/* The person pauses after `part` samples, the answer begins, the person goes on. */
static void hear_with_pause(struct run *r, size_t part)
{
    int32_t id;
    MUST(engine_rewind(r->s.engine, 0, &why));
    MUST(engine_turn(r->s.engine, &why));
    MUST(engine_hear(r->s.engine, r->pcm, part, &why));
    MUST(engine_answer(r->s.engine, &why));
    MUST(engine_next(r->s.engine, &id, &why));
    MUST(engine_hear_resume(r->s.engine, &why));
    MUST(engine_hear(r->s.engine, r->pcm + part, r->samples - part, &why));
    MUST(engine_answer(r->s.engine, &why));
}

static void check_increments(struct run *r)
{
    static const size_t pieces[] = {160, 1600, 16001};
    char what[64];
    MUST(engine_rewind(r->s.engine, 0, &why));
    hear(r, r->samples);
    struct heard once = take(r), other;
    for (size_t i = 0; i < sizeof(pieces) / sizeof(*pieces); i++) {
        MUST(engine_rewind(r->s.engine, 0, &why));
        hear(r, pieces[i]);
        other = take(r);
        snprintf(what, sizeof(what), "pieces of %zu = one shot", pieces[i]);
        same(r, what, &other, &once);
    }
    for (size_t tenth = 1; tenth < 10; tenth += 4) {
        hear_with_pause(r, r->samples * tenth / 10 + 7);
        other = take(r);
        snprintf(what, sizeof(what), "pause at %zu/10 = none", tenth);
        same(r, what, &other, &once);
    }
    free(once.rows);
    free(once.logits);
}

/* Says something else, takes it back, and must go on as if it had never been said. */
static void check_rewind(struct run *r)
{
    int32_t first[16], second[16];
    size_t vocab = (size_t)r->s.model->config.thinker.vocab;
    float *a = malloc(vocab * sizeof(float)), *b = malloc(vocab * sizeof(float));
    MUST(engine_rewind(r->s.engine, 0, &why));
    hear(r, 1600);
    int prompt = engine_length(r->s.engine);
    for (int i = 0; i < 16; i++)
        MUST(engine_next(r->s.engine, &first[i], &why));
    engine_logits(r->s.engine, a);
    MUST(engine_rewind(r->s.engine, prompt + 3, &why));
    MUST(engine_turn(r->s.engine, &why));
    MUST(engine_text(r->s.engine, "never mind", &why));
    MUST(engine_answer(r->s.engine, &why));
    MUST(engine_rewind(r->s.engine, prompt + 3, &why));
    memcpy(second, first, sizeof(second));
    for (int i = 3; i < 16; i++)
        MUST(engine_next(r->s.engine, &second[i], &why));
    engine_logits(r->s.engine, b);
    compare_ids(r, "rewind: ids", second, first, 16);
    line(r, "rewind: logits", largest(b, a, vocab), SAME);
    free(a);
    free(b);
}

static void pass(struct run *r, const char *dir, const char *device)
{
    open_session(r, dir, device);
    check_question(r);
    check_tap(r);
    int prompt = engine_length(r->s.engine);
    check_words(r, "thinker_logits", "thinker_logits", "text_ids");
    check_speech(r, "talker_hidden", "codes", "text_ids", true);
    check_sound(r, "codes", "wave");
    check_sound(r, "codec_codes", "codec_wave");
    check_second_turn(r, prompt);
    if (r->exact) {
        check_system(r);
        check_increments(r);
        check_rewind(r);
    }
    session_close(&r->s);
}

int main(int argc, char **argv)
{
    struct run r = {0};
    const char *device = "cpu";
    char path[8192], recast[8192];
    if (argc == 5 && strcmp(argv[1], "--device") == 0) {
        device = argv[2];
        argc -= 2;
        argv += 2;
    }
    if (argc != 3) {
        fprintf(stderr, "usage: parity [--device D] SHAPE_DIR SCRATCH_DIR\n");
        return 2;
    }
    MUST(golden_open(&r.g, argv[1], &why));
    snprintf(path, sizeof(path), "%s/question.wav", argv[1]);
    MUST(sound_file_read(&r.pcm, &r.samples, path, &why));
    r.shape = strrchr(argv[1], '/') ? strrchr(argv[1], '/') + 1 : argv[1];
    snprintf(recast, sizeof(recast), "%s", argv[2]);
    MUST(golden_recast(&r.g, recast, ST_F32, &why));
    printf("%-8s %-5s %-28s %10s %10s  on %s\n", "shape", "pass", "stage", "error", "bar", device);
    r.pass = "fp32";
    r.exact = true;
    pass(&r, recast, device);
    r.pass = "bf16";
    r.exact = false;
    pass(&r, argv[1], device);
    printf("%s: %d of %d checks passed\n", r.shape, r.checked - r.failed, r.checked);
    free(r.pcm);
    golden_close(&r.g);
    return r.failed ? 1 : 0;
}
