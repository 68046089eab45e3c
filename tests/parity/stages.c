/* tests/parity/stages.c - see stages.h. */
#include "tests/parity/stages.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BAR        2e-4
#define BF16_RATIO 1.5

enum {
    BRIEF = 4, /* words and frames: a recorded step is done, recorded, replayed twice */
    FRAMES_AT_ONCE = 64,
};

void die(struct problems *why, const char *what)
{
    for (size_t i = 0; i < why->n; i++)
        fprintf(stderr, "parity: %s\n", why->text[i]);
    fprintf(stderr, "parity: %s failed\n", what);
    exit(1);
}

void line(struct run *r, const char *stage, double error, double bar)
{
    bool ok = error <= bar;
    r->checked++;
    r->failed += !ok;
    printf("%-8s %-5s %-28s %10.2e %10.2e  %s\n", r->shape, r->pass, stage, error, bar,
           ok ? "ok" : "FAIL");
}

double largest(const float *got, const float *want, size_t n)
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

/* As compare; `label` is what the line calls it. */
static void compare_as(struct run *r, const char *label, const char *stage, const char *name,
                       const float *got, size_t n)
{
    size_t count;
    const float *want = golden_f32(&r->g, name, &count);
    if (count < n)
        line(r, label, INFINITY, 0);
    else if (r->exact)
        line(r, label, largest(got, want, n), BAR);
    else
        line(r, label, root_mean_square(got, want, n),
             BF16_RATIO * golden_bf16_error(&r->g, stage, "rms"));
    if (!r->exact && count >= n) {
        char both[64];
        snprintf(both, sizeof(both), "%s (largest)", label);
        line(r, both, largest(got, want, n), BF16_RATIO * golden_bf16_error(&r->g, stage, "max"));
    }
}

void compare(struct run *r, const char *stage, const char *name, const float *got, size_t n)
{
    compare_as(r, stage, stage, name, got, n);
}

void compare_ids(struct run *r, const char *stage, const int32_t *got, const int32_t *want,
                 size_t n)
{
    size_t wrong = 0;
    for (size_t i = 0; i < n; i++)
        wrong += got[i] != want[i];
    char what[64];
    snprintf(what, sizeof(what), "%s, %zu of %zu", stage, n - wrong, n);
    line(r, what, (double)wrong, 0);
}

void hear(struct run *r, size_t piece)
{
    if (r->system != NULL)
        MUST(engine_system(r->s.engine, r->system, &why));
    MUST(engine_turn(r->s.engine, &why));
    for (size_t at = 0; at < r->samples; at += piece) {
        size_t n = r->samples - at < piece ? r->samples - at : piece;
        MUST(engine_hear(r->s.engine, r->pcm + at, n, &why));
    }
    MUST(engine_answer(r->s.engine, &why));
}

/* Of so many words or frames, those to be looked at. */
static size_t some(const struct run *r, size_t n)
{
    return r->brief && n > BRIEF ? BRIEF : n;
}

void check_question(struct run *r)
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
void check_tap(struct run *r)
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
void check_words(struct run *r, const char *stage, const char *logits_name, const char *ids_name)
{
    size_t steps, vocab = golden_dim(&r->g, logits_name, 1);
    const int32_t *want = golden_i32(&r->g, ids_name, &steps);
    steps = some(r, steps);
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
void check_speech(struct run *r, const char *hidden_name, const char *codes_name,
                  const char *ids_name, bool logits_too)
{
    size_t words, total, groups = golden_dim(&r->g, codes_name, 1);
    const int32_t *ids = golden_i32(&r->g, ids_name, &words);
    const int32_t *want = golden_i32(&r->g, codes_name, &total);
    size_t frames = some(r, total / groups), hidden = golden_dim(&r->g, hidden_name, 1);
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
        compare_ids(r, codes_name, codes, want, frames * groups);
    free(h);
    free(l);
    free(codes);
}

/* Sound for the golden's codes, as many frames at a time as the decoder takes. */
static float *decode(struct run *r, struct code2wav *c, const char *codes_name, int step,
                     size_t *samples)
{
    size_t total, groups = golden_dim(&r->g, codes_name, 1);
    const int32_t *codes = golden_i32(&r->g, codes_name, &total);
    int frames = (int)some(r, total / groups);
    float *pcm = calloc((size_t)frames, r->s.model->config.code2wav.frame_samples * sizeof(float));
    *samples = 0;
    code2wav_reset(c);
    for (int f = 0; f < frames; f += step) {
        int n = frames - f < step ? frames - f : step;
        int got = code2wav_next(c, codes + f * groups, n, pcm + *samples);
        *samples += got > 0 ? (size_t)got : 0;
    }
    return pcm;
}

void check_sound(struct run *r, const char *codes_name, const char *wave_name)
{
    size_t samples, all, count;
    struct code2wav *many;
    const struct code2wav_opts o = {.model = r->s.model,
                                    .device = r->s.speech,
                                    .max_frames = FRAMES_AT_ONCE};
    MUST(code2wav_open(&many, &o, &why));
    float *single = decode(r, r->s.code2wav, codes_name, 1, &samples);
    float *once = decode(r, many, codes_name, FRAMES_AT_ONCE, &all);
    code2wav_close(many);
    golden_f32(&r->g, wave_name, &count);
    size_t frames = some(r, golden_dim(&r->g, codes_name, 0));
    const struct code2wav_config *c = &r->s.model->config.code2wav;
    line(r, "wave length",
         fabs((double)samples - (double)(frames * c->frame_samples - code2wav_delay(c))), 0);
    if (samples != all || (samples != count && !r->brief))
        line(r, "wave length as golden", 1, 0);
    else
        compare(r, wave_name, wave_name, single, samples);
    if (r->exact) /* with x rounded to 16 bits the order of sums shows */
        line(r, "wave: frames = one shot", largest(single, once, samples), SAME);
    else if (all <= count)
        compare_as(r, "wave in one shot", wave_name, wave_name, once, all);
    free(single);
    free(once);
}
