/*
 * daemon/ask.c - `parley ask`: the turns of one conversation from files and the command line.
 *
 * Sound is handed to the engine in pieces of 100 ms as a microphone would, so what can be encoded
 * before the end of the question is; the latencies count from its last sample. They leave out what
 * was computed before that, which a live device does while the person speaks.
 */
#include <errno.h>
#include <getopt.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/util.h"
#include "daemon/commands.h"
#include "daemon/dump.h"
#include "daemon/reply.h"
#include "daemon/sound_file.h"

#define PIECE     1600 /* samples handed over at once: 100 ms */
#define TURNS_MAX 256

static const char help[] =
    "usage: parley ask --model DIR (--in FILE | --text T)... [options]\n"
    "\n"
    "Every --in and --text is one turn of a conversation. Words go to standard output.\n"
    "\n"
    "  --model DIR        checkpoint directory (config.json, safetensors, tokenizer files)\n"
    "  --in FILE          a spoken turn: WAV, FLAC, Ogg ... of any rate and channel count\n"
    "  --text T           a written turn\n"
    "  --out FILE         the answers' sound as WAV, 24 kHz, one after the other\n"
    "  --system T         system text\n"
    "  --speaker NAME     voice\n"
    "  --device D         auto, cuda, cuda:1 ..., cpu, plain (default auto: a GPU if it fits)\n"
    "  --threads N        threads of the CPU device (default: one per processor)\n"
    "  --context N        positions the conversation may take (default 8192)\n"
    "  --greedy           always the likeliest token, in words and speech\n"
    "  --seed N           of the random draws (default 0)\n"
    "  --temperature X    of the words (default: the checkpoint's)\n"
    "  --max-tokens N     most tokens of an answer (default 1024)\n"
    "  --max-frames N     most frames (80 ms) of speech (default: the checkpoint's)\n"
    "  --text-only        no speech; its weights are neither needed nor loaded\n"
    "  --paging           run even if the weights do not fit in memory (slow)\n"
    "  --dump FILE        intermediate tensors of the first turn, as safetensors\n"
    "  --json             one JSON line per turn instead of words\n"
    "  --quiet            no plan, no progress, no latencies\n";

struct turn {
    const char *file; /* or */
    const char *text;
    double seconds;
};

struct ask {
    struct session_opts session;
    struct reply_opts reply;
    struct turn turn[TURNS_MAX];
    int turns;
    const char *out, *system, *dump;
    bool json, quiet, help;
};

enum option_id {
    OPT_MODEL = 256,
    OPT_IN,
    OPT_TEXT,
    OPT_OUT,
    OPT_SYSTEM,
    OPT_SPEAKER,
    OPT_DEVICE,
    OPT_THREADS,
    OPT_CONTEXT,
    OPT_GREEDY,
    OPT_SEED,
    OPT_TEMPERATURE,
    OPT_MAX_TOKENS,
    OPT_MAX_FRAMES,
    OPT_TEXT_ONLY,
    OPT_PAGING,
    OPT_DUMP,
    OPT_JSON,
    OPT_QUIET,
    OPT_HELP
};

static const struct option options[] = {
    {"model", required_argument, NULL, OPT_MODEL},
    {"in", required_argument, NULL, OPT_IN},
    {"text", required_argument, NULL, OPT_TEXT},
    {"out", required_argument, NULL, OPT_OUT},
    {"system", required_argument, NULL, OPT_SYSTEM},
    {"speaker", required_argument, NULL, OPT_SPEAKER},
    {"device", required_argument, NULL, OPT_DEVICE},
    {"threads", required_argument, NULL, OPT_THREADS},
    {"context", required_argument, NULL, OPT_CONTEXT},
    {"greedy", no_argument, NULL, OPT_GREEDY},
    {"seed", required_argument, NULL, OPT_SEED},
    {"temperature", required_argument, NULL, OPT_TEMPERATURE},
    {"max-tokens", required_argument, NULL, OPT_MAX_TOKENS},
    {"max-frames", required_argument, NULL, OPT_MAX_FRAMES},
    {"text-only", no_argument, NULL, OPT_TEXT_ONLY},
    {"paging", no_argument, NULL, OPT_PAGING},
    {"dump", required_argument, NULL, OPT_DUMP},
    {"json", no_argument, NULL, OPT_JSON},
    {"quiet", no_argument, NULL, OPT_QUIET},
    {"help", no_argument, NULL, OPT_HELP},
    {0},
};

static bool add_turn(struct ask *a, const char *file, const char *text)
{
    if (a->turns == TURNS_MAX) {
        fprintf(stderr, "parley: --in, --text: found more than %d turns\n", TURNS_MAX);
        return false;
    }
    a->turn[a->turns++] = (struct turn){.file = file, .text = text};
    return true;
}

/* Options whose value is a number. */
static bool take_number(struct ask *a, int id, const char *text)
{
    long n = 0;
    double x = 0;
    switch (id) {
    case OPT_THREADS:
        if (!option_long("--threads", text, 1, 1024, &n))
            return false;
        a->session.threads = (int)n;
        return true;
    case OPT_CONTEXT:
        if (!option_long("--context", text, 16, 1 << 20, &n))
            return false;
        a->session.context = (int)n;
        return true;
    case OPT_SEED:
        if (!option_long("--seed", text, 0, INT64_MAX, &n))
            return false;
        a->session.seed = (uint64_t)n;
        return true;
    case OPT_TEMPERATURE:
        if (!option_double("--temperature", text, 0, 100, &x))
            return false;
        a->session.temperature = (float)x;
        return true;
    case OPT_MAX_TOKENS:
        if (!option_long("--max-tokens", text, 1, 1 << 20, &n))
            return false;
        a->reply.max_tokens = (int)n;
        return true;
    default:
        if (!option_long("--max-frames", text, 1, 1 << 16, &n))
            return false;
        a->session.max_frames = a->reply.max_frames = (int)n;
        return true;
    }
}

static bool take(struct ask *a, int id, char *value)
{
    switch (id) {
    case OPT_MODEL:
        a->session.dir = value;
        return true;
    case OPT_IN:
        return add_turn(a, value, NULL);
    case OPT_TEXT:
        return add_turn(a, NULL, value);
    case OPT_OUT:
        a->out = value;
        return true;
    case OPT_SYSTEM:
        a->system = value;
        return true;
    case OPT_SPEAKER:
        a->session.speaker = value;
        return true;
    case OPT_DEVICE:
        a->session.device = value;
        return true;
    case OPT_DUMP:
        a->dump = value;
        return true;
    case OPT_GREEDY:
        return a->session.greedy = true;
    case OPT_TEXT_ONLY:
        return a->session.text_only = true;
    case OPT_PAGING:
        return a->session.paging = true;
    case OPT_JSON:
        return a->json = true;
    case OPT_QUIET:
        return a->quiet = true;
    case OPT_HELP:
        return a->help = true;
    case '?':
        return false;
    default:
        return take_number(a, id, value);
    }
}

static bool parse(struct ask *a, int argc, char **argv)
{
    int id;
    const char *wrong = NULL;
    *a = (struct ask){.session = {.temperature = -1}};
    while ((id = getopt_long(argc, argv, "", options, NULL)) != -1)
        if (!take(a, id, optarg))
            return false;
    if (a->help)
        return true;
    if (optind < argc)
        wrong = argv[optind];
    if (wrong != NULL)
        fprintf(stderr, "parley: ask: found '%s', expected an option\n", wrong);
    else if (a->session.dir == NULL)
        fprintf(stderr, "parley: ask: --model DIR is missing\n");
    else if (a->turns == 0)
        fprintf(stderr, "parley: ask: no turn: give --in FILE or --text T\n");
    else if (a->out != NULL && a->session.text_only)
        fprintf(stderr, "parley: ask: --out is for speech, which --text-only leaves out\n");
    else
        return true;
    return false;
}

/* Whether a file can be written there, as far as that is known without making it. */
static int check_place(const char *path, struct problems *why)
{
    struct stat st;
    const char *slash = path ? strrchr(path, '/') : NULL;
    char *folder = slash ? strndup(path, (size_t)(slash - path) + 1) : strdup(".");
    int err = folder ? 0 : -ENOMEM;
    if (err == 0 && path != NULL) {
        bool there = stat(path, &st) == 0;
        if (there && S_ISDIR(st.st_mode))
            err = -EISDIR;
        else if (access(there ? path : folder, W_OK) < 0)
            err = -errno;
        if (err < 0)
            err = problem_add(why, -EIO, "%s: cannot be written: %s", path, strerror(-err));
    }
    free(folder);
    return err;
}

/* Looks at every file before anything is loaded. */
static int check_files(struct ask *a, struct problems *why)
{
    int err = check_place(a->out, why);
    if (err == 0)
        err = check_place(a->dump, why);
    if (err < 0)
        return err;
    for (int i = 0; i < a->turns; i++) {
        struct turn *t = &a->turn[i];
        if (t->file != NULL && (t->seconds = sound_file_seconds(t->file, why)) < 0)
            return -EINVAL;
    }
    return 0;
}

/* A sound that cannot fit the context is refused before it is read. */
static int check_length(const struct session *s, const struct turn *t, struct problems *why)
{
    int room = engine_room(s->engine);
    double tokens = engine_sound_tokens(s->engine, t->seconds);
    if (tokens <= room)
        return 0;
    return problem_add(why, -ENOSPC,
                       "%s: %.0f s of sound take %.0f positions, the context has room for %d; "
                       "--context N sets it",
                       t->file, t->seconds, tokens, room);
}

/* Half an hour of sound takes minutes on a CPU. */
static void show_heard(const struct ask *a, const struct turn *t, size_t samples, double *shown)
{
    double now = clock_seconds();
    if (a->quiet || !isatty(STDERR_FILENO) || now - *shown < 0.5)
        return;
    *shown = now;
    fprintf(stderr, "\r\033[Kheard %.0f of %.0f s\r", (double)samples / QUESTION_RATE, t->seconds);
}

static int hear(const struct ask *a, struct session *s, const struct turn *t, struct problems *why)
{
    float *pcm = NULL;
    size_t n = 0;
    double start = clock_seconds(), shown = start;
    int err = check_length(s, t, why);
    if (err == 0)
        err = sound_file_read(&pcm, &n, t->file, why);
    for (size_t at = 0; err == 0 && at < n; at += PIECE) {
        err = session_hear(s, pcm + at, n - at < PIECE ? n - at : PIECE, why);
        show_heard(a, t, at, &shown);
    }
    if (shown > start)
        fprintf(stderr, "\033[K");
    free(pcm);
    return err;
}

static int dump_piece(struct dump *d, struct session *s, int kind, const struct reply_piece *p)
{
    const struct config *c = &s->model->config;
    size_t vocab = (size_t)c->thinker.vocab;
    if (kind == REPLY_TEXT) {
        float *logits = malloc(vocab * sizeof(*logits));
        if (logits == NULL)
            return -ENOMEM;
        engine_logits(s->engine, logits);
        int err = dump_add(d, "thinker_logits", ST_F32, logits, 1, vocab);
        free(logits);
        return err < 0 ? err : dump_add(d, "text_ids", ST_I32, &p->id, 1, 0);
    }
    size_t hidden = (size_t)c->talker.text.hidden, codec = (size_t)c->talker.text.vocab;
    float *rows = malloc((hidden > codec ? hidden : codec) * sizeof(*rows));
    if (rows == NULL)
        return -ENOMEM;
    talker_hidden(s->talker, rows);
    int err = dump_add(d, "talker_hidden", ST_F32, rows, 1, hidden);
    talker_logits(s->talker, rows);
    if (err == 0)
        err = dump_add(d, "code0_logits", ST_F32, rows, 1, codec);
    free(rows);
    if (err == 0)
        err = dump_add(d, "codes", ST_I32, p->frame.codes, 1, (size_t)c->talker.groups);
    return err < 0 ? err : dump_add(d, "wave", ST_F32, p->pcm, p->samples, 0);
}

/* What the prompt was made of, once it is complete. */
static int dump_prompt(struct dump *d, struct session *s)
{
    const struct config *c = &s->model->config;
    const float *rows;
    int err = dump_add(d, "prompt_ids", ST_I32, engine_ids(s->engine),
                       (size_t)engine_length(s->engine), 0);
    int n = engine_mel(s->engine, &rows);
    if (err == 0 && n > 0) /* [frames, bins]: time first */
        err = dump_add(d, "mel", ST_F32, rows, (size_t)n, (size_t)c->audio.mel_bins);
    n = engine_encoded(s->engine, &rows);
    if (err == 0 && n > 0)
        err = dump_add(d, "encoder", ST_F32, rows, (size_t)n, (size_t)c->audio.output);
    return err;
}

struct answer {
    char *text;
    size_t len, cap;
};

static int add_text(struct answer *a, const char *piece)
{
    size_t n = strlen(piece);
    int err = grow_array(&a->text, &a->cap, a->len + n + 1, 1);
    if (err == 0) {
        memcpy(a->text + a->len, piece, n + 1);
        a->len += n;
    }
    return err;
}

static double rtf(const struct session *s, const struct reply_stats *st)
{
    int rate = s->model->config.code2wav.frame_samples * 25 / 2; /* 12.5 frames a second */
    return st->samples ? st->last_sound_s * rate / (double)st->samples : 0;
}

static json_t *milliseconds(double s)
{
    return s < 0 ? json_null() : json_real((double)(long)(s * 1e5) / 100);
}

static int print_json(const struct session *s, int turn, const struct turn *t,
                      const struct reply_stats *st, const struct answer *a)
{
    json_t *line = json_pack("{s:i, s:f, s:s, s:i, s:i, s:I, s:o, s:o, s:f, s:s}", "turn", turn,
                             "heard_s", t->seconds, "text", a->text ? a->text : "", "tokens",
                             st->tokens, "frames", st->frames, "samples", (json_int_t)st->samples,
                             "first_token_ms", milliseconds(st->first_token_s), "first_sound_ms",
                             milliseconds(st->first_sound_s), "rtf", rtf(s, st), "stop", st->stop);
    char *text = line ? json_dumps(line, JSON_REAL_PRECISION(6)) : NULL;
    json_decref(line);
    if (text == NULL)
        return -ENOMEM;
    printf("%s\n", text);
    fflush(stdout);
    free(text);
    return 0;
}

static void print_summary(const struct session *s, const struct reply_stats *st)
{
    fprintf(stderr, "[%d tokens", st->tokens);
    if (st->tokens > 0)
        fprintf(stderr, ", first after %.0f ms", 1e3 * st->first_token_s);
    if (st->frames > 0)
        fprintf(stderr, "; %.2f s of sound, first after %.0f ms, rtf %.2f",
                (double)st->samples / (s->model->config.code2wav.frame_samples * 12.5),
                1e3 * st->first_sound_s, rtf(s, st));
    fprintf(stderr, "; stop: %s]\n", st->stop);
}

/* Pulls the answer to its end. */
static int pull(const struct ask *a, struct session *s, struct reply *r, struct sound_writer *out,
                struct dump *dump, struct answer *answer, struct problems *why)
{
    struct reply_piece p;
    int kind, err = 0;
    while (err == 0 && (kind = reply_next(r, &p, why)) != REPLY_END) {
        if (kind < 0)
            return kind;
        if (kind == REPLY_TEXT) {
            err = add_text(answer, p.text);
            if (!a->json) {
                fputs(p.text, stdout);
                fflush(stdout);
            }
        } else if (out != NULL) {
            err = sound_writer_add(out, p.pcm, p.samples, why);
        }
        if (err == 0 && dump != NULL)
            err = dump_piece(dump, s, kind, &p);
    }
    return err;
}

static int answer_turn(const struct ask *a, struct session *s, int turn, struct sound_writer *out,
                       struct dump *dump, struct problems *why)
{
    const struct turn *t = &a->turn[turn];
    struct reply r = {0};
    struct answer answer = {0};
    int err = engine_turn(s->engine, why);
    if (err == 0)
        err = t->file ? hear(a, s, t, why) : engine_text(s->engine, t->text, why);
    if (err == 0)
        err = reply_begin(&r, s, &a->reply, why);
    if (err == 0 && dump != NULL)
        err = dump_prompt(dump, s);
    if (err == 0)
        err = pull(a, s, &r, out, dump, &answer, why);
    if (err == 0 && a->json)
        err = print_json(s, turn + 1, t, &r.stats, &answer);
    else if (err == 0)
        printf("\n");
    if (err == 0 && !a->json && !a->quiet)
        print_summary(s, &r.stats);
    reply_end(&r);
    free(answer.text);
    return err;
}

static int converse(const struct ask *a, struct session *s, struct sound_writer *out,
                    struct problems *why)
{
    struct dump dump = {0};
    int err = 0;
    if (a->dump != NULL)
        engine_keep(s->engine);
    if (a->system != NULL)
        err = engine_system(s->engine, a->system, why);
    for (int i = 0; err == 0 && i < a->turns; i++)
        err = answer_turn(a, s, i, out, a->dump && i == 0 ? &dump : NULL, why);
    if (err == 0 && a->dump != NULL)
        err = dump_write(&dump, a->dump, why);
    dump_free(&dump);
    return err;
}

static int ask(struct ask *a, struct problems *why)
{
    struct session s;
    struct sound_writer *out = NULL;
    a->session.report = a->quiet ? NULL : stderr;
    int err = check_files(a, why);
    if (err < 0)
        return err;
    err = session_open(&s, &a->session, why);
    if (err < 0)
        return err;
    if (a->out != NULL && !s.model->speech)
        err = problem_add(why, -EINVAL,
                          "--out: found a model without speech in %s, expected one "
                          "that speaks",
                          a->session.dir);
    else if (a->out != NULL)
        err = sound_writer_open(&out, a->out, s.model->config.code2wav.frame_samples * 25 / 2, 1,
                                why);
    if (err == 0)
        err = converse(a, &s, out, why);
    int closed = sound_writer_close(out, why);
    session_close(&s);
    return err < 0 ? err : closed;
}

int cmd_ask(int argc, char **argv)
{
    struct ask *a = malloc(sizeof(*a));
    struct problems why = {0};
    int code = EXIT_FAILED;
    if (a == NULL)
        return code;
    if (!parse(a, argc, argv)) {
        code = EXIT_BAD_INPUT;
    } else if (a->help) {
        fputs(help, stdout);
        code = 0;
    } else {
        int err = ask(a, &why);
        code = err < 0 ? report_problems(&why, err) : 0;
    }
    problems_free(&why);
    free(a);
    return code;
}
