/*
 * daemon/model_command.c - `parley model`: add, list, use, verify the models of this appliance.
 */
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "base/util.h"
#include "daemon/commands.h"
#include "daemon/model_store.h"

static const char help[] =
    "usage: parley model [--store DIR] COMMAND\n"
    "\n"
    "  add SOURCE [--name NAME]  copy a checkpoint directory or unpack a tar file; sums are "
    "written\n"
    "                            (NAME: SOURCE's own, without folders and without .tar.gz or\n"
    "                            the like)\n"
    "  list                      the models there are; * marks the one that parleyd uses\n"
    "  use NAME                  parleyd uses this one from its next start on\n"
    "  verify [NAME]             read every file and compare its SHA-256\n"
    "\n"
    "  --store DIR               where they are kept (default: " MODEL_STORE ")\n";

struct model_args {
    const char *store, *name;
    bool help;
};

static bool parse(struct model_args *a, int argc, char **argv)
{
    static const struct option options[] = {{"store", required_argument, NULL, 's'},
                                            {"name", required_argument, NULL, 'n'},
                                            {"help", no_argument, NULL, 'h'},
                                            {0}};
    int id;
    while ((id = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (id == 's')
            a->store = optarg;
        else if (id == 'n')
            a->name = optarg;
        else if (id == 'h')
            a->help = true;
        else
            return false;
    }
    return true;
}

static int add(const struct model_args *a, const char *source, struct problems *why)
{
    char name[PATH_MAX];
    model_store_name(name, sizeof(name), source);
    int err = model_store_add(a->store, source, a->name, stderr, why);
    if (err == 0)
        fprintf(stderr, "added; `parley model use %s` makes parleyd take it\n",
                a->name != NULL ? a->name : name);
    return err;
}

static int use(const struct model_args *a, const char *name, struct problems *why)
{
    int err = model_store_use(a->store, name, why);
    if (err == 0)
        fprintf(stderr, "%s is used from the next start on: systemctl restart parleyd\n", name);
    return err;
}

static int verify(const struct model_args *a, const char *name, struct problems *why)
{
    int err = model_store_verify(a->store, name, stderr, why);
    if (err == 0)
        fprintf(stderr, "every file is as it was added\n");
    return err;
}

/* The code, or -1: no such command with so many arguments. */
static int run(const struct model_args *a, int n, char **words)
{
    struct problems why = {0};
    int err;
    if (n == 2 && strcmp(words[0], "add") == 0)
        err = add(a, words[1], &why);
    else if (n == 1 && strcmp(words[0], "list") == 0)
        err = model_store_list(a->store, stdout, &why);
    else if (n == 2 && strcmp(words[0], "use") == 0)
        err = use(a, words[1], &why);
    else if ((n == 1 || n == 2) && strcmp(words[0], "verify") == 0)
        err = verify(a, n == 2 ? words[1] : NULL, &why);
    else
        return -1;
    int code = err < 0 ? report_problems(&why, err) : 0;
    problems_free(&why);
    return code;
}

int cmd_model(int argc, char **argv)
{
    struct model_args a = {.store = MODEL_STORE};
    if (!parse(&a, argc, argv))
        return EXIT_BAD_INPUT;
    if (a.help) {
        fputs(help, stdout);
        return 0;
    }
    int code = run(&a, argc - optind, argv + optind);
    if (code < 0) {
        fputs(help, stderr);
        return EXIT_BAD_INPUT;
    }
    return code;
}
