/*
 * tests/parity/parity.c - every stage against what the reference made of the same random weights.
 *
 *     parity [--brief] [--device D] SHAPE_DIR SCRATCH_DIR
 *
 * prints one line per stage: the largest error relative to the golden's largest value, and its bar.
 * Two passes: weights widened to fp32, greedy and free-running (bar 2e-4, ids and codes equal);
 * weights in bf16 as they lie, forced along the golden's tokens and codes (bar: 1.5 times the
 * reference's own bf16 error at that stage). --brief, for tools that slow a program down a
 * thousand times, is the beginning of each stage of the second pass.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/parity/stages.h"

static void open_session(struct run *r, const char *dir, const char *device)
{
    const struct session_opts o = {.dir = dir,
                                   .device = device,
                                   .hang_ms = 600000, /* checkers of memory are slow */
                                   .greedy = true,
                                   .temperature = 0,
                                   .context = 1024};
    MUST(session_open(&r->s, &o, &why));
    engine_keep(r->s.engine);
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
    if (!r->brief) {
        check_sound(r, "codec_codes", "codec_wave");
        check_second_turn(r, prompt);
    }
    if (r->exact) {
        check_system(r);
        check_increments(r);
        check_rewind(r);
    }
    session_close(&r->s);
}

/* A GPU that is not there is no failure. */
static bool missing(const char *device)
{
    struct device *d;
    struct problems why = {0};
    const struct device_opts o = {.name = device};
    if (strncmp(device, "cuda", 4) != 0)
        return false;
    if (device_open(&d, &o, &why) < 0) {
        printf("skip: %s\n", why.n ? why.text[0] : "no GPU");
        problems_free(&why);
        return true;
    }
    device_close(d);
    return false;
}

int main(int argc, char **argv)
{
    struct run r = {0};
    const char *device = "cpu";
    char path[8192], recast[8192];
    if (argc > 3 && strcmp(argv[1], "--brief") == 0) {
        r.brief = true;
        argc--;
        argv++;
    }
    if (argc == 5 && strcmp(argv[1], "--device") == 0) {
        device = argv[2];
        argc -= 2;
        argv += 2;
    }
    if (argc != 3) {
        fprintf(stderr, "usage: parity [--brief] [--device D] SHAPE_DIR SCRATCH_DIR\n");
        return 2;
    }
    if (missing(device))
        return 77;
    setvbuf(stdout, NULL, _IOLBF, 0); /* whoever stops a slow run sees how far it came */
    MUST(golden_open(&r.g, argv[1], &why));
    snprintf(path, sizeof(path), "%s/question.wav", argv[1]);
    MUST(sound_file_read(&r.pcm, &r.samples, path, &why));
    r.shape = strrchr(argv[1], '/') ? strrchr(argv[1], '/') + 1 : argv[1];
    snprintf(recast, sizeof(recast), "%s", argv[2]);
    printf("%-8s %-5s %-28s %10s %10s  on %s\n", "shape", "pass", "stage", "error", "bar", device);
    if (!r.brief) {
        MUST(golden_recast(&r.g, recast, ST_F32, &why));
        r.pass = "fp32";
        r.exact = true;
        pass(&r, recast, device);
    }
    r.pass = "bf16";
    r.exact = false;
    pass(&r, argv[1], device);
    printf("%s: %d of %d checks passed\n", r.shape, r.checked - r.failed, r.checked);
    free(r.pcm);
    golden_close(&r.g);
    return r.failed ? 1 : 0;
}
