/*
 * daemon/bench.c - `parley bench`: how long everything takes on this machine, beside the floor that
 * memory sets.
 *
 * Each figure is the median over the runs, with the smallest and largest. The question is made here
 * (noise in syllables), handed over in pieces of 100 ms; what a live device does while the person
 * speaks is not part of the latencies. The floor of decoding is the bytes of weights that one token
 * must read, divided by the rate at which this machine reads memory, measured in the same run.
 */
#include <errno.h>
#include <getopt.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "daemon/commands.h"
#include "daemon/plan.h"
#include "daemon/reply.h"

#define RATE       16000
#define PIECE      1600
#define RUNS_MAX   101
#define TOKENS     48 /* decoded in a run for thinker_tok_s */
#define READ_BYTES ((size_t)256 << 20)

static const char help[] =
    "usage: parley bench (--model DIR | --synthetic CONFIG.json) [options]\n"
    "\n"
    "  --synthetic FILE   random weights in memory with the dimensions of this config.json\n"
    "  --type T           their type: bf16 (default), f16, f32\n"
    "  --device D         auto, cuda, cuda:1 ..., cpu, plain (default auto: a GPU if it fits)\n"
    "  --threads N        threads of the CPU device (default: one per processor)\n"
    "  --seconds X        length of the question (default 4)\n"
    "  --frames N         frames of speech in a run (default 50, that is 4 s)\n"
    "  --runs N           (default 5)\n"
    "  --text-only        leave speech out\n"
    "  --json             one JSON object\n";

struct figure {
    const char *name, *unit;
    double value[RUNS_MAX];
    int n;
};

enum figure_id {
    ENCODER_MS,
    FIRST_TOKEN_MS,
    THINKER_TOK_S,
    FLOOR_SHARE,
    FRAME_MS,
    CODE2WAV_MS,
    RTF,
    FIRST_SOUND_MS,
    READ_GB_S,
    FIGURES
};

struct bench {
    struct session_opts session;
    double seconds;
    int runs, frames;
    bool json, help;
    float *question;
    size_t samples;
    size_t anonymous; /* largest seen, bytes */
    void *read_buffer;
    bool read_resident; /* the read buffer is touched: memory is no longer the model's alone */
    struct figure figure[FIGURES];
};

static const struct figure blank[FIGURES] = {
    [ENCODER_MS] = {.name = "encoder_ms", .unit = "ms for 4 s of sound"},
    [FIRST_TOKEN_MS] = {.name = "first_token_ms", .unit = "ms after the question"},
    [THINKER_TOK_S] = {.name = "thinker_tok_s", .unit = "tokens/s"},
    [FLOOR_SHARE] = {.name = "floor_share", .unit = "of the byte floor"},
    [FRAME_MS] = {.name = "frame_ms", .unit = "ms, Talker + predictor, a frame"},
    [CODE2WAV_MS] = {.name = "code2wav_ms", .unit = "ms a frame"},
    [RTF] = {.name = "rtf", .unit = "s of work / s of sound"},
    [FIRST_SOUND_MS] = {.name = "first_sound_ms", .unit = "ms after the question"},
    [READ_GB_S] = {.name = "read_gb_s", .unit = "GB/s read from memory"},
};

static void note(struct bench *b, enum figure_id id, double value)
{
    struct figure *f = &b->figure[id];
    if (f->n < RUNS_MAX)
        f->value[f->n++] = value;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double middle(double *value, int n)
{
    qsort(value, (size_t)n, sizeof(*value), by_value);
    return n % 2 ? value[n / 2] : (value[n / 2 - 1] + value[n / 2]) / 2;
}

/* Anonymous resident memory of this process now. */
static size_t anonymous_bytes(void)
{
    char *text;
    size_t len, kb = 0;
    if (read_file(&text, &len, "/proc/self/status", 1 << 16) < 0)
        return 0;
    const char *at = strstr(text, "RssAnon:");
    if (at != NULL)
        kb = strtoul(at + strlen("RssAnon:"), NULL, 10);
    free(text);
    return kb * 1024;
}

static void watch_memory(struct bench *b)
{
    size_t now = anonymous_bytes();
    b->anonymous = now > b->anonymous ? now : b->anonymous;
}

/* Noise whose loudness rises and falls four times a second: no speech, but no steady tone either.
 */
static int make_question(struct bench *b)
{
    uint32_t state = 1;
    size_t most = (size_t)(fmax(b->seconds, 4.0) * RATE);
    b->samples = (size_t)(b->seconds * RATE);
    b->question = malloc(most * sizeof(float));
    if (b->question == NULL)
        return -ENOMEM;
    for (size_t i = 0; i < most; i++) {
        state = state * 1664525u + 1013904223u;
        double loud = 0.05 + 0.25 * fabs(sin(4.0 * M_PI * (double)i / RATE));
        b->question[i] = (float)(loud * ((double)state / 2147483648.0 - 1.0));
    }
    return 0;
}

static size_t expert_bytes(const struct expert *e)
{
    return weight_bytes(&e->gate) + weight_bytes(&e->up) + weight_bytes(&e->down);
}

/* Bytes of weights that one decoded token reads. */
static size_t token_bytes(const struct model *m)
{
    const struct decoder_config *c = &m->config.thinker;
    size_t bytes = weight_bytes(&m->thinker.head);
    for (int l = 0; l < c->layers; l++) {
        const struct decoder_layer *w = &m->thinker.text.layers[l];
        bytes += weight_bytes(&w->q) + weight_bytes(&w->k) + weight_bytes(&w->v) +
                 weight_bytes(&w->o) + weight_bytes(&w->gate) + weight_bytes(&w->up) +
                 weight_bytes(&w->down) + weight_bytes(&w->router) + expert_bytes(&w->shared);
        if (w->experts != NULL)
            bytes += (size_t)c->top_k * expert_bytes(&w->experts[0]);
    }
    return bytes;
}

static int measure_encoder(struct bench *b, struct session *s, struct problems *why)
{
    int err = engine_rewind(s->engine, 0, why);
    if (err == 0)
        err = engine_turn(s->engine, why);
    double start = clock_seconds();
    if (err == 0)
        err = engine_hear(s->engine, b->question, 4 * RATE, why);
    if (err == 0)
        err = engine_hear_end(s->engine, why);
    note(b, ENCODER_MS, 1e3 * (clock_seconds() - start));
    return err;
}

static int ask_question(struct bench *b, struct session *s, struct problems *why)
{
    int err = engine_rewind(s->engine, 0, why);
    if (err == 0)
        err = engine_turn(s->engine, why);
    for (size_t at = 0; err == 0 && at < b->samples; at += PIECE)
        err = session_hear(s, b->question + at, b->samples - at < PIECE ? b->samples - at : PIECE,
                           why);
    return err;
}

/* Decoding by itself, and the rate at which memory can be read right before and after. */
static int measure_words(struct bench *b, struct session *s, struct problems *why)
{
    double took[TOKENS];
    int32_t id;
    int err = ask_question(b, s, why);
    if (err == 0)
        err = engine_answer(s->engine, why);
    double rate = device_read_rate(s->dev, b->read_buffer, READ_BYTES);
    for (int i = 0; err >= 0 && i < TOKENS; i++) {
        double start = clock_seconds();
        err = engine_next(s->engine, &id, why);
        if (err == 0) /* a stop token: go on with another one */
            err = engine_force(s->engine, (id + 1) % 100, why);
        took[i] = clock_seconds() - start;
    }
    if (err < 0)
        return err;
    rate = fmax(rate, device_read_rate(s->dev, b->read_buffer, READ_BYTES));
    /* the first token only draws: its logits came with the prompt */
    double typical = middle(took + 1, TOKENS - 1);
    note(b, READ_GB_S, rate / 1e9);
    note(b, THINKER_TOK_S, 1.0 / typical);
    note(b, FLOOR_SHARE, (double)token_bytes(s->model) / rate / typical);
    return 0;
}

static int measure_reply(struct bench *b, struct session *s, struct problems *why)
{
    struct reply r = {0};
    struct reply_piece p;
    const struct reply_opts o = {.max_tokens = 32, .max_frames = b->frames};
    int err = ask_question(b, s, why);
    if (err == 0)
        err = reply_begin(&r, s, &o, why);
    while (err == 0 && (err = reply_next(&r, &p, why)) > 0)
        err = 0;
    if (!b->read_resident)
        watch_memory(b);
    if (err == 0 && r.stats.first_token_s >= 0)
        note(b, FIRST_TOKEN_MS, 1e3 * r.stats.first_token_s);
    if (err == 0 && r.stats.frames > 0) {
        double sound_s = (double)r.stats.samples / 12.5 / s->model->config.code2wav.frame_samples;
        note(b, FIRST_SOUND_MS, 1e3 * r.stats.first_sound_s);
        note(b, FRAME_MS, 1e3 * r.stats.talker_s / r.stats.frames);
        note(b, CODE2WAV_MS, 1e3 * r.stats.code2wav_s / r.stats.frames);
        note(b, RTF, r.stats.last_sound_s / sound_s);
    }
    reply_end(&r);
    return err;
}

static int measure(struct bench *b, struct session *s, struct problems *why)
{
    int err = make_question(b);
    watch_memory(b);
    if (err == 0 && posix_memalign(&b->read_buffer, 1 << 21, READ_BYTES) != 0)
        err = -ENOMEM;
    if (err < 0)
        return err;
    for (int i = -1; err == 0 && i < b->runs; i++) { /* the first run warms up and does not count */
        err = measure_reply(b, s, why);
        if (i < 0)
            memset(b->read_buffer, 1, READ_BYTES);
        b->read_resident = true;
        if (err == 0)
            err = measure_encoder(b, s, why);
        if (err == 0)
            err = measure_words(b, s, why);
        for (int f = 0; i < 0 && f < FIGURES; f++)
            b->figure[f].n = 0;
        if (!b->json)
            fprintf(stderr, "\rrun %d of %d", i + 1, b->runs);
    }
    if (!b->json)
        fprintf(stderr, "\r                \r");
    return err;
}

static int print_json(struct bench *b, const struct session *s)
{
    json_t *root =
        json_pack("{s:s, s:i, s:f, s:f, s:I, s:I}", "device", s->dev->name, "runs", b->runs,
                  "question_s", b->seconds, "load_s", s->load_s, "anonymous_bytes",
                  (json_int_t)b->anonymous, "token_bytes", (json_int_t)token_bytes(s->model));
    for (int i = 0; i < FIGURES; i++) {
        struct figure *f = &b->figure[i];
        if (f->n == 0)
            continue;
        double median = middle(f->value, f->n);
        json_object_set_new(root, f->name,
                            json_pack("{s:f, s:f, s:f}", "median", median, "min", f->value[0],
                                      "max", f->value[f->n - 1]));
    }
    char *text = json_dumps(root, JSON_REAL_PRECISION(6));
    json_decref(root);
    if (text == NULL)
        return -ENOMEM;
    printf("%s\n", text);
    free(text);
    return 0;
}

static void print_table(struct bench *b, const struct session *s)
{
    char anonymous[32], token[32];
    printf("device %s; %d runs; question of %.1f s\n", s->dev->name, b->runs, b->seconds);
    printf("%-16s %10s %10s %10s\n", "figure", "median", "min", "max");
    printf("%-16s %10.3f %32s\n", "load_s", s->load_s, "s");
    for (int i = 0; i < FIGURES; i++) {
        struct figure *f = &b->figure[i];
        if (f->n == 0)
            continue;
        double median = middle(f->value, f->n);
        printf("%-16s %10.3f %10.3f %10.3f  %s\n", f->name, median, f->value[0], f->value[f->n - 1],
               f->unit);
    }
    printf("a token reads %s of weights; anonymous memory at its peak %s\n",
           bytes_text(token, sizeof(token), (double)token_bytes(s->model)),
           bytes_text(anonymous, sizeof(anonymous), (double)b->anonymous));
}

static bool take_type(struct bench *b, const char *text)
{
    static const struct {
        const char *name;
        enum dtype type;
    } types[] = {{"bf16", DT_BF16}, {"f16", DT_F16}, {"f32", DT_F32}};
    for (size_t i = 0; i < ARRAY_LEN(types); i++)
        if (strcmp(text, types[i].name) == 0) {
            b->session.synthetic_type = types[i].type;
            return true;
        }
    fprintf(stderr, "parley: --type: found '%s', expected bf16, f16 or f32\n", text);
    return false;
}

static bool take(struct bench *b, int id, char *value)
{
    long n = 0;
    bool ok = true;
    switch (id) {
    case 'm':
        b->session.dir = value;
        return true;
    case 'y':
        b->session.synthetic = value;
        return true;
    case 'T':
        return take_type(b, value);
    case 'd':
        b->session.device = value;
        return true;
    case 't':
        ok = option_long("--threads", value, 1, 1024, &n);
        b->session.threads = (int)n;
        return ok;
    case 's':
        return option_double("--seconds", value, 0.1, 60, &b->seconds);
    case 'f':
        ok = option_long("--frames", value, 1, 1000, &n);
        b->frames = (int)n;
        return ok;
    case 'r':
        ok = option_long("--runs", value, 1, RUNS_MAX, &n);
        b->runs = (int)n;
        return ok;
    case 'x':
        return b->session.text_only = true;
    case 'j':
        return b->json = true;
    case 'h':
        return b->help = true;
    default:
        return false;
    }
}

static bool parse(struct bench *b, int argc, char **argv)
{
    static const struct option options[] = {
        {"model", required_argument, NULL, 'm'},   {"synthetic", required_argument, NULL, 'y'},
        {"type", required_argument, NULL, 'T'},    {"device", required_argument, NULL, 'd'},
        {"threads", required_argument, NULL, 't'}, {"seconds", required_argument, NULL, 's'},
        {"frames", required_argument, NULL, 'f'},  {"runs", required_argument, NULL, 'r'},
        {"text-only", no_argument, NULL, 'x'},     {"json", no_argument, NULL, 'j'},
        {"help", no_argument, NULL, 'h'},          {0},
    };
    int id;
    *b = (struct bench){.session = {.temperature = -1, .synthetic_type = DT_BF16, .context = 2048},
                        .seconds = 4,
                        .runs = 5,
                        .frames = 50};
    memcpy(b->figure, blank, sizeof(blank));
    while ((id = getopt_long(argc, argv, "", options, NULL)) != -1)
        if (!take(b, id, optarg))
            return false;
    b->session.max_frames = b->frames;
    if (b->help)
        return true;
    if (optind < argc)
        fprintf(stderr, "parley: bench: found '%s', expected an option\n", argv[optind]);
    else if ((b->session.dir == NULL) == (b->session.synthetic == NULL))
        fprintf(stderr, "parley: bench: give either --model DIR or --synthetic CONFIG.json\n");
    else
        return true;
    return false;
}

static int bench(struct bench *b, struct problems *why)
{
    struct session s;
    b->session.report = b->json ? NULL : stderr;
    int err = session_open(&s, &b->session, why);
    if (err < 0)
        return err;
    err = measure(b, &s, why);
    if (err == 0 && b->json)
        err = print_json(b, &s);
    else if (err == 0)
        print_table(b, &s);
    free(b->question);
    free(b->read_buffer);
    session_close(&s);
    return err;
}

int cmd_bench(int argc, char **argv)
{
    struct bench *b = malloc(sizeof(*b));
    struct problems why = {0};
    int code = EXIT_FAILED;
    if (b == NULL)
        return code;
    if (!parse(b, argc, argv)) {
        code = EXIT_BAD_INPUT;
    } else if (b->help) {
        fputs(help, stdout);
        code = 0;
    } else {
        int err = bench(b, &why);
        code = err < 0 ? report_problems(&why, err) : 0;
    }
    problems_free(&why);
    free(b);
    return code;
}
