/*
 * tests/parity/full.c - a checkpoint of any size against golden results of tools/reference_gpu.py.
 *
 *     parity_full [--device D] CHECKPOINT_DIR GOLDEN_DIR...
 *
 * The weights are loaded once. Every stage is forced along the golden's tokens and codes; its error
 * against the reference in fp32 may be 1.5 times the reference's own error in bf16.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "model/decoder.h"
#include "tests/parity/stages.h"

/* The code predictor alone, along given codes, row by row as it runs in a frame. */
struct forced {
    struct device *dev;
    const struct model *m;
    struct decoder *decoder;
    int hidden, vocab;
    float *x, *normed, *logits; /* [2, hidden], [hidden], [vocab] on the device */
    int32_t *code;              /* [1] there */
};

static void forced_open(struct forced *p, const struct session *s)
{
    const struct decoder_config *c = &s->model->config.talker.predictor;
    const struct decoder_opts o = {.weights = &s->model->talker.predictor,
                                   .device = s->speech,
                                   .max_positions = s->model->config.talker.groups,
                                   .max_rows = 2,
                                   .kv_type = DT_F32};
    const struct ops *op = s->speech->op;
    *p = (struct forced){.dev = s->speech, .m = s->model, .hidden = c->hidden, .vocab = c->vocab};
    MUST(decoder_open(&p->decoder, &o, &why));
    p->x = op->alloc(p->dev, 2 * (size_t)c->hidden * sizeof(float));
    p->normed = op->alloc(p->dev, (size_t)c->hidden * sizeof(float));
    p->logits = op->alloc(p->dev, (size_t)c->vocab * sizeof(float));
    p->code = op->alloc(p->dev, sizeof(*p->code));
}

static void forced_close(struct forced *p)
{
    decoder_close(p->decoder);
    p->dev->op->release(p->dev, p->x);
    p->dev->op->release(p->dev, p->normed);
    p->dev->op->release(p->dev, p->logits);
    p->dev->op->release(p->dev, p->code);
}

/* Logits of code g + 1 from code g, and for g = 0 from the Talker's hidden state before it. */
static void forced_pass(struct forced *p, int g, int32_t code, const float *hidden, float *logits)
{
    const struct ops *op = p->dev->op;
    const struct talker_weights *w = &p->m->talker;
    int n = g == 0 ? 2 : 1;
    if (g == 0)
        op->put(p->dev, p->x, hidden, (size_t)p->hidden * sizeof(float));
    op->put(p->dev, p->code, &code, sizeof(code));
    op->embed(p->dev, p->x + (n - 1) * p->hidden,
              g == 0 ? &w->codec_embedding : &w->code_embedding[g - 1], p->code, 1, 0);
    decoder_forward(p->decoder, p->x, n, -1, NULL);
    decoder_norm(p->decoder, p->normed, p->x + (n - 1) * p->hidden, 1);
    op->linear(p->dev, p->logits, p->normed, 1, &w->code_head[g], NULL, 0);
    op->get(p->dev, logits, p->logits, (size_t)p->vocab * sizeof(float));
}

/* Residual codes of frame 0, from the hidden state that the Talker really made. */
static void check_predictor(struct run *r)
{
    size_t words, total;
    const int32_t *ids = golden_i32(&r->g, "text_ids", &words);
    const int32_t *codes = golden_i32(&r->g, "codes", &total);
    int passes = r->s.model->config.talker.groups - 1;
    struct codec_frame frame;
    struct forced p;
    forced_open(&p, &r->s);
    float *hidden = malloc((size_t)p.hidden * sizeof(float));
    float *logits = malloc((size_t)passes * (size_t)p.vocab * sizeof(float));
    talker_text(r->s.talker, ids[0]);
    if (talker_next(r->s.talker, &frame) != 1)
        line(r, "first frame", 1, 0);
    talker_hidden(r->s.talker, hidden);
    for (int g = 0; g < passes; g++)
        forced_pass(&p, g, codes[g], hidden, logits + (size_t)g * (size_t)p.vocab);
    compare(r, "residual_logits", "residual_logits", logits, (size_t)passes * (size_t)p.vocab);
    free(hidden);
    free(logits);
    forced_close(&p);
}

static void check_case(struct run *r, const char *dir)
{
    char path[8192], *system = NULL;
    size_t len;
    MUST(golden_open(&r->g, dir, &why));
    snprintf(path, sizeof(path), "%s/question.wav", dir);
    MUST(sound_file_read(&r->pcm, &r->samples, path, &why));
    snprintf(path, sizeof(path), "%s/system.txt", dir);
    if (read_file(&system, &len, path, 1 << 20) == 0 && len > 0)
        r->system = system;
    r->shape = strrchr(dir, '/') ? strrchr(dir, '/') + 1 : dir;
    MUST(engine_rewind(r->s.engine, 0, &why));
    check_question(r);
    check_tap(r);
    check_words(r, "thinker_logits", "thinker_logits", "text_ids");
    check_predictor(r);
    check_tap(r); /* the Talker begins again */
    check_speech(r, "talker_hidden", "codes", "text_ids", true);
    check_sound(r, "codes", "wave");
    free(system);
    r->system = NULL;
    free(r->pcm);
    golden_close(&r->g);
}

int main(int argc, char **argv)
{
    struct run r = {.pass = "bf16"};
    const char *device = "cuda";
    if (argc > 3 && strcmp(argv[1], "--device") == 0) {
        device = argv[2];
        argc -= 2;
        argv += 2;
    }
    if (argc < 3) {
        fprintf(stderr, "usage: parity_full [--device D] CHECKPOINT_DIR GOLDEN_DIR...\n");
        return 2;
    }
    const struct session_opts o = {.dir = argv[1],
                                   .device = device,
                                   .greedy = true,
                                   .temperature = 0,
                                   .context = 4096,
                                   .report = stderr};
    MUST(session_open(&r.s, &o, &why));
    engine_keep(r.s.engine);
    printf("%-8s %-5s %-28s %10s %10s  on %s, loaded in %.2f s\n", "case", "pass", "stage", "error",
           "bar", r.s.dev->name, r.s.load_s);
    for (int i = 2; i < argc; i++)
        check_case(&r, argv[i]);
    printf("%d of %d checks passed\n", r.checked - r.failed, r.checked);
    session_close(&r.s);
    return r.failed ? 1 : 0;
}
