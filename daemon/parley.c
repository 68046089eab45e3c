/*
 * daemon/parley.c - the program `parley`: one word on the command line picks a command.
 *
 * Exit codes: 0 done, 1 failed (memory, device, writing), 2 bad input or usage.
 */
#include <stdio.h>
#include <string.h>

#include "base/util.h"
#include "daemon/commands.h"

static const struct command {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *job;
} commands[] = {
    {"ask", cmd_ask, "answer spoken or written questions, in words and sound"},
    {"talk", cmd_talk, "talk through microphone and loudspeaker"},
    {"inspect", cmd_inspect, "say what a checkpoint holds, needs, and what is wrong with it"},
    {"replay", cmd_replay, "play a recorded scenario in a simulated room, in virtual time"},
    {"bench", cmd_bench, "measure load, first token, first sound, speeds"},
    {"states", cmd_states, "write the Thinker's state behind recordings, to train a detector"},
    {"quantize", cmd_quantize, "write a checkpoint again with 8-bit weights"},
    {"model", cmd_model, "add, list, use, verify the models of the service"},
    {"ctl", cmd_ctl, "speak to the service parleyd: status, mute, say, ask ..."},
};

static void usage(FILE *f)
{
    fprintf(f, "usage: parley COMMAND [options]   (parley COMMAND --help tells more)\n\n");
    for (size_t i = 0; i < ARRAY_LEN(commands); i++)
        fprintf(f, "  %-8s %s\n", commands[i].name, commands[i].job);
}

int main(int argc, char **argv)
{
    heap_keep_small();
    if (argc < 2) {
        usage(stderr);
        return EXIT_BAD_INPUT;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "help") == 0) {
        usage(stdout);
        return check_output(0);
    }
    for (size_t i = 0; i < ARRAY_LEN(commands); i++)
        if (strcmp(argv[1], commands[i].name) == 0)
            return check_output(commands[i].run(argc - 1, argv + 1));
    fprintf(stderr, "parley: unknown command '%s'\n", argv[1]);
    usage(stderr);
    return EXIT_BAD_INPUT;
}
