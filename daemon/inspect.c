/*
 * daemon/inspect.c - `parley inspect DIR [--json]`: what a checkpoint holds, what it needs beside
 * what is free, and everything that is wrong with it.
 *
 * Only headers are read: it takes a second for the full-size model. Exit codes: 0 good, 2 broken
 * (every problem is a sentence), 1 when it could not be found out.
 */
#include <errno.h>
#include <getopt.h>
#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/util.h"
#include "daemon/commands.h"
#include "daemon/plan.h"
#include "daemon/session.h"
#include "model/model.h"
#include "model/tokenizer.h"

static const char help[] =
    "usage: parley inspect DIR [--text-only] [--device D] [--json]\n"
    "\n"
    "Reads the configuration, the tokenizer and the headers of the weight files of a checkpoint\n"
    "directory, and checks every tensor's name, type and shape.\n"
    "\n"
    "  --text-only   leave out the speech components, as parley ask --text-only does\n"
    "  --device D    auto, cuda, cuda:1 ..., cpu: whose memory is looked at (default auto: the\n"
    "                one that parley ask would take)\n"
    "  --json        one JSON object instead of a table\n";

struct inspection {
    bool json;
    struct session_opts opts;
    struct session s; /* model, tokenizer: NULL when refused */
    struct plan_memory where;
    size_t caches;
    struct problems why, unfit; /* what is wrong; why it does not fit here */
    int err, fits;              /* of the first that failed; of plan_check */
};

static void print_layout(const struct inspection *in)
{
    const struct config *c = &in->s.model->config;
    struct model_layout layout;
    model_layout(in->s.model, &layout);
    printf("%s\n", in->opts.dir);
    printf("  weights     %zu file%s, %s\n", layout.files, layout.files == 1 ? "" : "s",
           layout.sharded ? "found by model.safetensors.index.json" : "no index");
    printf("  experts     %s\n", layout.fused_experts ? "fused" : "one by one");
    printf("  thinker     %d layers of %d, %d experts, %d positions\n", c->thinker.layers,
           c->thinker.hidden, c->thinker.experts, c->thinker.max_positions);
    printf("  speech      %s", in->s.model->speech ? "yes:" : c->has_speech ? "left out" : "no");
    for (int i = 0; in->s.model->speech && i < c->talker.n_speakers; i++)
        printf("%s%s", i ? ", " : " ", c->talker.speakers[i].name);
    printf("\n");
    if (in->s.tokenizer)
        printf("  tokenizer   %d tokens\n", tokenizer_count(in->s.tokenizer));
}

/* Without the file, sampling is by the reference's defaults. */
static bool has_generation(const struct inspection *in)
{
    char path[PATH_MAX];
    int n = snprintf(path, sizeof(path), "%s/generation_config.json", in->opts.dir);
    return n < PATH_MAX && access(path, F_OK) == 0;
}

static void print_verdict(const struct inspection *in)
{
    const char *where = in->where.device ? in->where.device : "the CPU";
    if (in->fits < 0)
        printf("  fits        no: %s\n", in->unfit.n > 0 ? in->unfit.text[0] : where);
    else if (in->where.unused == 0)
        printf("  fits        not known: how much memory is free cannot be read\n");
    else
        printf("  fits        yes, on %s\n", where);
}

static void print_text(const struct inspection *in)
{
    if (in->s.model) {
        print_layout(in);
        printf("\n");
        plan_print(stdout, &in->where, in->s.model, in->caches);
        print_verdict(in);
    } else {
        printf("%s\n", in->opts.dir);
    }
    if (!has_generation(in))
        printf("  sampling    by the reference's defaults: there is no generation_config.json\n");
    for (size_t i = 0; i < in->why.n; i++)
        printf("  problem     %s\n", in->why.text[i]);
    if (in->why.dropped > 0)
        printf("  problem     and %zu more\n", in->why.dropped);
    printf("  %s\n", in->err < 0 ? "BROKEN" : "good");
}

/* Paths need not be UTF-8, JSON must: bytes that are not ASCII become '?' then. */
static json_t *json_text(const char *text)
{
    json_t *v = json_string(text);
    if (v)
        return v;
    char *copy = strdup(text);
    for (char *p = copy; p && *p; p++)
        *p = (unsigned char)*p < 128 ? *p : '?';
    v = json_string(copy ? copy : "");
    free(copy);
    return v;
}

static json_t *row_json(const struct plan_row *row)
{
    json_t *types = json_array();
    for (int t = 0; t < DT_COUNT; t++)
        if (row->types >> t & 1)
            json_array_append_new(types, json_string(dtype_name((enum dtype)t)));
    return json_pack("{s:s, s:I, s:I, s:o, s:I, s:I}", "name", row->component, "tensors",
                     (json_int_t)row->tensors, "parameters", (json_int_t)row->parameters, "types",
                     types, "mapped_bytes", (json_int_t)row->mapped, "owned_bytes",
                     (json_int_t)row->owned);
}

static void add_model_json(json_t *root, const struct inspection *in)
{
    const struct config *c = &in->s.model->config;
    const struct plan_row *row;
    struct model_layout layout;
    int n = model_plan(in->s.model, &row);
    struct plan_row sum = plan_sum(in->s.model);
    json_t *components = json_array(), *speakers = json_array();
    model_layout(in->s.model, &layout);
    for (int i = 0; i < n; i++)
        json_array_append_new(components, row_json(&row[i]));
    for (int i = 0; in->s.model->speech && i < c->talker.n_speakers; i++)
        json_array_append_new(speakers, json_text(c->talker.speakers[i].name));
    json_object_set_new(root, "files", json_integer((json_int_t)layout.files));
    json_object_set_new(root, "sharded", json_boolean(layout.sharded));
    json_object_set_new(root, "fused_experts", json_boolean(layout.fused_experts));
    json_object_set_new(root, "speech", json_boolean(in->s.model->speech));
    json_object_set_new(root, "speakers", speakers);
    json_object_set_new(root, "components", components);
    json_object_set_new(root, "tensors", json_integer((json_int_t)sum.tensors));
    json_object_set_new(root, "parameters", json_integer((json_int_t)sum.parameters));
    json_object_set_new(root, "weight_bytes", json_integer((json_int_t)(sum.mapped + sum.owned)));
    json_object_set_new(root, "cache_bytes", json_integer((json_int_t)in->caches));
    if (in->where.device)
        json_object_set_new(root, "device", json_text(in->where.device));
    json_object_set_new(root, "available_bytes", json_integer((json_int_t)in->where.unused));
    json_object_set_new(root, "fits", json_boolean(in->fits == 0));
    if (in->unfit.n > 0)
        json_object_set_new(root, "refusal", json_text(in->unfit.text[0]));
}

static int print_json(const struct inspection *in)
{
    json_t *root = json_object(), *problems = json_array();
    json_object_set_new(root, "directory", json_text(in->opts.dir));
    json_object_set_new(root, "good", json_boolean(in->err == 0));
    json_object_set_new(root, "generation_config", json_boolean(has_generation(in)));
    if (in->s.model)
        add_model_json(root, in);
    for (size_t i = 0; i < in->why.n; i++)
        json_array_append_new(problems, json_text(in->why.text[i]));
    json_object_set_new(root, "problems", problems);
    json_object_set_new(root, "further_problems", json_integer((json_int_t)in->why.dropped));
    int err = json_dumpf(root, stdout, JSON_INDENT(2));
    printf("\n");
    json_decref(root);
    return err;
}

static void look(struct inspection *in)
{
    in->opts.report = in->json ? NULL : stderr; /* why it is not the GPU */
    in->err = session_look(&in->s, &in->opts, &in->why);
    if (in->s.model == NULL)
        return;
    in->where = plan_memory(in->s.dev);
    in->caches = session_cache_bytes(&in->s, &in->opts);
    in->fits = plan_check(&in->where, in->s.model, in->caches, false, &in->unfit);
}

/* 0, or the exit code plus one. */
static int parse_options(struct inspection *in, int argc, char **argv)
{
    static const struct option options[] = {{"text-only", no_argument, NULL, 't'},
                                            {"device", required_argument, NULL, 'd'},
                                            {"json", no_argument, NULL, 'j'},
                                            {"help", no_argument, NULL, 'h'},
                                            {NULL, 0, NULL, 0}};
    int c;
    optind = 0; /* from the start, whoever parsed options before */
    while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (c == 'h') {
            fputs(help, stdout);
            return 1;
        }
        if (c == 'd')
            in->opts.device = optarg;
        in->opts.text_only |= c == 't';
        in->json |= c == 'j';
        if (c == '?')
            return 1 + EXIT_BAD_INPUT;
    }
    if (optind != argc - 1) {
        fputs(help, stderr);
        return 1 + EXIT_BAD_INPUT;
    }
    in->opts.dir = argv[optind];
    return 0;
}

int cmd_inspect(int argc, char **argv)
{
    struct inspection in = {0};
    int code = parse_options(&in, argc, argv);
    if (code != 0)
        return code - 1;
    look(&in);
    if (in.json)
        print_json(&in);
    else
        print_text(&in);
    code = in.err == 0 ? 0 : in.err == -ENOMEM || in.err == -EIO ? EXIT_FAILED : EXIT_BAD_INPUT;
    session_close(&in.s);
    problems_free(&in.why);
    problems_free(&in.unfit);
    return code;
}
