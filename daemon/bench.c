/*
 * daemon/bench.c - `parley bench`: how long everything takes on this machine, beside the floor that
 * memory sets. The measuring is in measure.c.
 *
 * Each figure is the median over the runs, with the smallest and largest. The floor of decoding is
 * the bytes of weights that one token must read, divided by the rate at which this machine reads
 * memory, measured in the same run.
 */
#include <errno.h>
#include <getopt.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "daemon/commands.h"
#include "daemon/measure.h"
#include "daemon/plan.h"

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
    "  --long N           decode behind N positions too\n"
    "  --text-only        leave speech out\n"
    "  --json             one JSON object\n";

static const struct figure blank[FIGURES] = {
    [HEAR_MS] = {.name = "hear_ms", .unit = "ms, mel and encoder, 4 s at once"},
    [ENCODER_MS] = {.name = "encoder_ms", .unit = "ms, encoder alone, 4 s"},
    [FIRST_TOKEN_MS] = {.name = "first_token_ms", .unit = "ms after the question"},
    [THINKER_TOK_S] = {.name = "thinker_tok_s", .unit = "tokens/s behind the question"},
    [FLOOR_SHARE] = {.name = "floor_share", .unit = "of the byte floor"},
    [LONG_TOK_S] = {.name = "long_tok_s", .unit = "tokens/s behind --long"},
    [FRAME_MS] = {.name = "frame_ms", .unit = "ms, Talker + predictor, a frame"},
    [CODE2WAV_MS] = {.name = "code2wav_ms", .unit = "ms a frame"},
    [RTF] = {.name = "rtf", .unit = "s of work / s of sound, whole reply"},
    [BESIDE_RTF] = {.name = "beside_rtf", .unit = "speech while the Thinker decodes"},
    [BESIDE_LATE_MS] = {.name = "beside_late_ms", .unit = "ms, slowest frame of a run"},
    [BESIDE_TOK_S] = {.name = "beside_tok_s", .unit = "tokens/s meanwhile"},
    [FIRST_SOUND_MS] = {.name = "first_sound_ms", .unit = "ms after the question"},
    [READ_GB_S] = {.name = "read_gb_s", .unit = "GB/s read from memory"},
};

static int print_json(struct bench *b, const struct session *s)
{
    json_t *root = json_pack("{s:s, s:i, s:f, s:f, s:f, s:I, s:I}", "device", s->dev->name, "runs",
                             b->runs, "question_s", b->seconds, "load_s", s->load_s, "open_s",
                             b->open_s, "anonymous_bytes", (json_int_t)b->anonymous, "token_bytes",
                             (json_int_t)token_bytes(s->model));
    if (b->device.total > 0)
        json_object_set_new(root, "device_memory",
                            json_pack("{s:I, s:I, s:I}", "total", (json_int_t)b->device.total,
                                      "used", (json_int_t)b->device.used, "planned",
                                      (json_int_t)b->device.planned));
    for (int i = 0; i < FIGURES; i++) {
        struct figure *f = &b->figure[i];
        if (f->n == 0)
            continue;
        double median = figure_median(f);
        json_object_set_new(root, f->name,
                            json_pack("{s:f, s:f, s:f, s:i}", "median", median, "min", f->value[0],
                                      "max", f->value[f->n - 1], "n", (int)f->n));
    }
    char *text = json_dumps(root, JSON_REAL_PRECISION(6));
    json_decref(root);
    if (text == NULL)
        return -ENOMEM;
    printf("%s\n", text);
    free(text);
    return 0;
}

static void print_memory(const struct bench *b, const struct session *s)
{
    char anonymous[32], token[32], used[32], planned[32];
    printf("a token reads %s of weights; anonymous memory at its peak %s\n",
           bytes_text(token, sizeof(token), (double)token_bytes(s->model)),
           bytes_text(anonymous, sizeof(anonymous), (double)b->anonymous));
    if (b->device.total > 0)
        printf("%s in use on the device, %s planned for weights and caches: %.2f %% above\n",
               bytes_text(used, sizeof(used), (double)b->device.used),
               bytes_text(planned, sizeof(planned), (double)b->device.planned),
               100 * ((double)b->device.used / (double)b->device.planned - 1));
}

static void print_table(struct bench *b, const struct session *s)
{
    printf("device %s; %d runs; question of %.1f s\n", s->dev->name, b->runs, b->seconds);
    printf("%-16s %10s %10s %10s\n", "figure", "median", "min", "max");
    printf("%-16s %10.3f %32s\n", "load_s", s->load_s, "s");
    printf("%-16s %10.3f %32s\n", "open_s", b->open_s, "s");
    for (int i = 0; i < FIGURES; i++) {
        struct figure *f = &b->figure[i];
        if (f->n == 0)
            continue;
        double median = figure_median(f);
        printf("%-16s %10.3f %10.3f %10.3f  %s\n", f->name, median, f->value[0], f->value[f->n - 1],
               f->unit);
    }
    print_memory(b, s);
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
    case 'l':
        ok = option_long("--long", value, 64, 60000, &n);
        b->long_context = (int)n;
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
        {"model", required_argument, NULL, 'm'},
        {"synthetic", required_argument, NULL, 'y'},
        {"type", required_argument, NULL, 'T'},
        {"device", required_argument, NULL, 'd'},
        {"threads", required_argument, NULL, 't'},
        {"seconds", required_argument, NULL, 's'},
        {"frames", required_argument, NULL, 'f'},
        {"runs", required_argument, NULL, 'r'},
        {"long", required_argument, NULL, 'l'},
        {"text-only", no_argument, NULL, 'x'},
        {"json", no_argument, NULL, 'j'},
        {"help", no_argument, NULL, 'h'},
        {0},
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
    b->session.context = max_int(b->session.context, b->long_context + 256);
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
    double start = clock_seconds();
    b->session.report = b->json ? NULL : stderr;
    int err = session_open(&s, &b->session, why);
    if (err < 0)
        return err;
    b->open_s = clock_seconds() - start;
    err = measure_all(b, &s, why);
    if (err == 0 && b->json)
        err = print_json(b, &s);
    else if (err == 0)
        print_table(b, &s);
    for (int i = 0; i < FIGURES; i++)
        free(b->figure[i].value);
    free(b->question);
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
