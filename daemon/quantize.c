/*
 * daemon/quantize.c - `parley quantize IN_DIR OUT_DIR`: a checkpoint again, its linear layers in
 * 8 bits, and how far the weights moved.
 */
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/util.h"
#include "daemon/commands.h"
#include "daemon/plan.h"
#include "model/quantize.h"

static const char help[] =
    "usage: parley quantize IN_DIR OUT_DIR [options]\n"
    "\n"
    "Writes the checkpoint IN_DIR again with the matrices of its linear layers in 8 bits, as the\n"
    "pack-quantized format of compressed-tensors: half the size of bf16. Embeddings, "
    "convolutions,\n"
    "norms, routers and gates stay as they are. OUT_DIR must not exist, or be empty.\n"
    "\n"
    "  --group N          columns that share a scale, 16 to 1024 (default 128); where N does not\n"
    "                     divide a row, its half, and so on\n"
    "  --keep PATTERN     tensors that stay as they are, as a shell pattern of their names, such\n"
    "                     as '*lm_head*'; may be repeated\n"
    "  --shard-mb N       megabytes of a weight file (default 4294)\n"
    "  --quiet            no progress and no report\n";

enum { KEEP_MAX = 32 };

struct command {
    struct quantize_opts opts;
    const char *keep[KEEP_MAX];
    bool quiet;
};

/* 0, or the exit code plus one. */
static int parse(struct command *c, int argc, char **argv)
{
    static const struct option options[] = {
        {"group", required_argument, NULL, 'g'},    {"keep", required_argument, NULL, 'k'},
        {"shard-mb", required_argument, NULL, 's'}, {"quiet", no_argument, NULL, 'q'},
        {"help", no_argument, NULL, 'h'},           {NULL, 0, NULL, 0},
    };
    int id;
    long n;
    optind = 0;
    while ((id = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (id == 'h') {
            fputs(help, stdout);
            return 1;
        }
        if (id == '?' || (id == 'g' && !option_long("--group", optarg, 16, 1024, &n)) ||
            (id == 's' && !option_long("--shard-mb", optarg, 1, 1 << 20, &n)))
            return 1 + EXIT_BAD_INPUT;
        if (id == 's')
            c->opts.shard_bytes = (size_t)n * 1000000;
        if (id == 'g')
            c->opts.group = (int)n;
        c->quiet |= id == 'q';
        if (id == 'k' && c->opts.n_keep == KEEP_MAX) {
            fprintf(stderr, "parley: --keep: found more than %d patterns\n", KEEP_MAX);
            return 1 + EXIT_BAD_INPUT;
        }
        if (id == 'k')
            c->keep[c->opts.n_keep++] = optarg;
    }
    if (optind != argc - 2) {
        fputs(help, stderr);
        return 1 + EXIT_BAD_INPUT;
    }
    c->opts.in = argv[optind];
    c->opts.out = argv[optind + 1];
    c->opts.keep = c->keep;
    return 0;
}

struct meter {
    double start, shown;
    bool terminal;
};

static void show(struct meter *m, const struct quantize_progress *p)
{
    double now = clock_seconds(), rate = (double)p->done / (now - m->start + 1e-9);
    char done[32], total[32], per_second[32];
    if (now - m->shown < (m->terminal ? 0.2 : 10))
        return;
    m->shown = now;
    fprintf(stderr, "%squantised %s of %s, %s/s%s", m->terminal ? "\r\033[K" : "",
            bytes_text(done, sizeof(done), (double)p->done),
            bytes_text(total, sizeof(total), (double)p->total),
            bytes_text(per_second, sizeof(per_second), rate), m->terminal ? "" : "\n");
}

static void report(const struct quantizer *q)
{
    const struct quantize_row *row;
    int n = quantizer_rows(q, &row);
    char before[32], after[32];
    printf("  %-16s %9s %9s %10s %10s %10s %10s  %s\n", "component", "quantised", "copied",
           "before", "after", "mean error", "largest", "in");
    for (int i = 0; i < n; i++) {
        if (row[i].quantised + row[i].copied == 0)
            continue;
        printf("  %-16s %9zu %9zu %10s %10s", row[i].component, row[i].quantised, row[i].copied,
               bytes_text(before, sizeof(before), (double)row[i].before),
               bytes_text(after, sizeof(after), (double)row[i].after));
        if (row[i].quantised > 0)
            printf(" %9.3f%% %9.3f%%  %s", 100 * row[i].mean, 100 * row[i].largest, row[i].worst);
        printf("\n");
    }
}

static const int stop_signals[] = {SIGINT, SIGTERM};

/* Held back while there is an unfinished directory, unless they are ignored anyway. */
static sigset_t hold_signals(void)
{
    sigset_t held;
    struct sigaction now;
    sigemptyset(&held);
    for (size_t i = 0; i < ARRAY_LEN(stop_signals); i++)
        if (sigaction(stop_signals[i], NULL, &now) == 0 && now.sa_handler != SIG_IGN)
            sigaddset(&held, stop_signals[i]);
    sigprocmask(SIG_BLOCK, &held, NULL);
    return held;
}

static bool interrupted(void)
{
    sigset_t pending;
    if (sigpending(&pending) < 0)
        return false;
    for (size_t i = 0; i < ARRAY_LEN(stop_signals); i++)
        if (sigismember(&pending, stop_signals[i]) == 1)
            return true;
    return false;
}

static int run(const struct command *c, struct problems *why)
{
    struct quantizer *q = NULL;
    struct quantize_progress p = {0, 0};
    struct meter m = {.start = clock_seconds(), .terminal = isatty(STDERR_FILENO)};
    int more = quantizer_open(&q, &c->opts, why);
    m.shown = m.start;
    if (more < 0)
        return more;
    more = 1;
    while (!interrupted() && (more = quantizer_step(q, &p, why)) == 1)
        if (!c->quiet)
            show(&m, &p);
    if (!c->quiet && m.terminal)
        fprintf(stderr, "\r\033[K");
    if (more == 0 && !c->quiet)
        report(q);
    quantizer_close(q);
    return more;
}

int cmd_quantize(int argc, char **argv)
{
    struct command c = {.quiet = false};
    struct problems why = {0};
    int code = parse(&c, argc, argv);
    if (code != 0)
        return code - 1;
    const sigset_t held = hold_signals();
    int err = run(&c, &why);
    sigprocmask(SIG_UNBLOCK, &held, NULL); /* a signal that came ends the process here */
    code = err < 0 ? report_problems(&why, err) : 0;
    problems_free(&why);
    return code;
}
