/*
 * daemon/parleyd.c - the service: options, configuration, then appliance.c.
 *
 * Exit codes: 0 stopped in order, 1 failed, 2 bad configuration or usage.
 */
#include <getopt.h>
#include <stdio.h>
#include <string.h>
#include <systemd/sd-daemon.h>

#include "base/util.h"
#include "daemon/appliance.h"
#include "daemon/commands.h"
#include "daemon/control_socket.h"

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

/* Who had us started by speaking to the manager's socket is told as well; left alone, they would be
 * a reason to start us again at once. */
static void refuse(const struct problems *why, int err)
{
    char text[1024];
    int sockets = sd_listen_fds(1);
    snprintf(text, sizeof(text), "bad configuration: %s",
             why->n > 0 ? why->text[0] : strerror(-err));
    for (char *c = text; *c != '\0'; c++)
        if ((unsigned char)*c >= 0x80) /* a file's text need not be UTF-8, the answer must */
            *c = '?';
    for (int i = 0; i < sockets; i++)
        control_socket_refuse(SD_LISTEN_FDS_START + i, text);
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
        refuse(&why, err);
        (void)report_problems(&why, err);
        return EXIT_BAD_INPUT;
    }
    if (a.check) {
        conf_free(&conf);
        return 0;
    }
    return appliance_run(&conf, a.config);
}
