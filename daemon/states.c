/*
 * daemon/states.c - `parley states`: what the Thinker has in mind when its answer begins, for many
 * recordings: what a detector is trained on (tools/end_of_turn.py).
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "daemon/commands.h"
#include "daemon/reply.h"
#include "daemon/sound_file.h"
#include "model/safetensors.h"

enum { LIST_MAX = 64 << 20, ANSWER_MOST = 64, PIECE = 1600 };

static const char help[] =
    "usage: parley states --model DIR --list FILE --out FILE [options]\n"
    "\n"
    "Writes `state` [lines, hidden] F32 as safetensors: the Thinker's last row, normed, where the\n"
    "answer to the last recording of each line of FILE begins.\n"
    "\n"
    "  --list FILE      recordings, one a line; those before it in a line, parted by tabs, are\n"
    "                   earlier turns of the same conversation, which are answered (in words)\n"
    "  --device D, --threads N, --context N, --paging   as `parley ask`\n";

struct states {
    struct session_opts session;
    const char *list, *out;
    bool help;
    struct session s;
    float *rows; /* [n, hidden] */
    size_t n, cap;
};

static bool parse(struct states *a, int argc, char **argv)
{
    static const struct option options[] = {
        {"model", required_argument, NULL, 'm'},
        {"list", required_argument, NULL, 'l'},
        {"out", required_argument, NULL, 'o'},
        {"device", required_argument, NULL, 'd'},
        {"threads", required_argument, NULL, 't'},
        {"context", required_argument, NULL, 'c'},
        {"paging", no_argument, NULL, 'p'},
        {"help", no_argument, NULL, 'h'},
        {0},
    };
    const char **const texts[] = {
        ['m'] = &a->session.dir, ['l'] = &a->list, ['o'] = &a->out, ['d'] = &a->session.device};
    long n = 0;
    int id;
    while ((id = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (id == '?' || (id == 't' && !option_long("--threads", optarg, 1, 1024, &n)) ||
            (id == 'c' && !option_long("--context", optarg, 16, 1 << 20, &n)))
            return false;
        if (id == 't')
            a->session.threads = (int)n;
        else if (id == 'c')
            a->session.context = (int)n;
        else if (id == 'p')
            a->session.paging = true;
        else if (id == 'h')
            a->help = true;
        else
            *texts[id] = optarg;
    }
    if (a->help || (optind == argc && a->session.dir && a->list && a->out))
        return true;
    fprintf(stderr, "parley: states: expected --model DIR --list FILE --out FILE\n");
    return false;
}

/* The turn up to where its answer begins. */
static int hear(struct engine *e, const char *path, struct problems *why)
{
    float *pcm = NULL;
    size_t n = 0;
    int err = sound_file_read(&pcm, &n, path, why);
    if (err == 0)
        err = engine_turn(e, why);
    for (size_t at = 0; err == 0 && at < n; at += PIECE)
        err = engine_hear(e, pcm + at, min_size(PIECE, n - at), why);
    if (err == 0)
        err = engine_answer(e, why);
    free(pcm);
    return err;
}

/* As it will stand in memory. */
static int answer(struct engine *e, struct problems *why)
{
    int32_t id;
    int more = 1;
    for (int i = 0; more == 1 && i < ANSWER_MOST; i++)
        more = engine_next(e, &id, why);
    return more < 0 ? more : 0;
}

static int take_line(struct states *a, char *line, struct problems *why)
{
    struct engine *e = a->s.engine;
    size_t hidden = (size_t)a->s.model->config.thinker.hidden;
    char *rest = NULL;
    int err = engine_rewind(e, 0, why);
    char *path = strtok_r(line, "\t", &rest);
    while (err == 0 && path != NULL) {
        err = hear(e, path, why);
        path = strtok_r(NULL, "\t", &rest);
        if (err == 0 && path != NULL)
            err = answer(e, why);
    }
    if (err == 0)
        err = grow_array(&a->rows, &a->cap, (a->n + 1) * hidden, sizeof(float));
    if (err == 0)
        engine_state(e, a->rows + a->n++ * hidden);
    return err;
}

static int take_all(struct states *a, struct problems *why)
{
    char *text = NULL, *rest = NULL;
    size_t len;
    int err = read_file(&text, &len, a->list, LIST_MAX);
    if (err < 0)
        return problem_add(why, err, "%s: cannot be read: %s", a->list, strerror(-err));
    for (char *l = strtok_r(text, "\n", &rest); err == 0 && l; l = strtok_r(NULL, "\n", &rest))
        err = take_line(a, l, why);
    free(text);
    return err;
}

static int states(struct states *a, struct problems *why)
{
    a->session.temperature = -1;
    a->session.greedy = a->session.text_only = true;
    int err = session_open(&a->s, &a->session, why);
    if (err < 0)
        return err;
    err = take_all(a, why);
    const struct st_entry entry = {.name = "state",
                                   .type = ST_F32,
                                   .ndim = 2,
                                   .shape = {a->n, (size_t)a->s.model->config.thinker.hidden},
                                   .data = a->rows};
    if (err == 0)
        err = safetensors_write(a->out, &entry, 1, why);
    session_close(&a->s);
    free(a->rows);
    return err;
}

int cmd_states(int argc, char **argv)
{
    struct states a = {0};
    struct problems why = {0};
    if (!parse(&a, argc, argv))
        return EXIT_BAD_INPUT;
    if (a.help) {
        fputs(help, stdout);
        return 0;
    }
    int err = states(&a, &why);
    int code = err < 0 ? report_problems(&why, err) : 0;
    problems_free(&why);
    return code;
}
