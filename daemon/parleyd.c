/*
 * daemon/parleyd.c - the service: options, configuration, then appliance.c.
 *
 * Exit codes: 0 stopped in order, 1 failed, 2 bad configuration or usage.
 */
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "base/util.h"
#include "daemon/appliance.h"
#include "daemon/commands.h"

static const char help[] =
    "usage: parleyd [--config FILE]\n"
    "\n"
    "The voice assistant as a service: it listens, thinks and speaks until it is told to stop.\n"
    "`parley ctl` speaks to it.\n"
    "\n"
    "  --config FILE   configuration (default: all defaults)\n"
    "  --check         say what is wrong with the configuration, and end\n"
    "  --defaults      write a configuration with every key commented at its default, and end\n";

struct arguments {
    const char *config;
    bool check, defaults, help;
};

static bool parse(struct arguments *a, int argc, char **argv)
{
    static const struct option options[] = {{"config", required_argument, NULL, 'c'},
                                            {"check", no_argument, NULL, 'k'},
                                            {"defaults", no_argument, NULL, 'd'},
                                            {"help", no_argument, NULL, 'h'},
                                            {0}};
    int id;
    while ((id = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (id == 'c')
            a->config = optarg;
        else if (id == 'k')
            a->check = true;
        else if (id == 'd')
            a->defaults = true;
        else if (id == 'h')
            a->help = true;
        else
            return false;
    }
    if (optind == argc)
        return true;
    fprintf(stderr, "parleyd: found '%s', expected an option\n", argv[optind]);
    return false;
}

int main(int argc, char **argv)
{
    struct arguments a = {0};
    struct conf conf;
    struct problems why = {0};
    heap_keep_small();
    if (!parse(&a, argc, argv))
        return EXIT_BAD_INPUT;
    if (a.help) {
        fputs(help, stdout);
        return 0;
    }
    if (a.defaults) {
        conf_write(stdout);
        return 0;
    }
    int err = a.config != NULL ? conf_load(&conf, a.config, &why) : conf_init(&conf);
    if (err < 0) {
        (void)report_problems(&why, err);
        return EXIT_BAD_INPUT;
    }
    if (a.check) {
        conf_free(&conf);
        return 0;
    }
    return appliance_run(&conf, a.config);
}
