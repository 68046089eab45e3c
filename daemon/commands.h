/* daemon/commands.h - the commands of the program `parley` and what they share. */
#ifndef PARLEY_DAEMON_COMMANDS_H
#define PARLEY_DAEMON_COMMANDS_H

#include <stdbool.h>

#include "base/problem.h"

enum { EXIT_FAILED = 1, EXIT_BAD_INPUT = 2 };

/* argv[0] is the command's own name; the exit code. */
int cmd_ask(int argc, char **argv);
int cmd_inspect(int argc, char **argv);
int cmd_bench(int argc, char **argv);
int cmd_quantize(int argc, char **argv);
int cmd_replay(int argc, char **argv);
int cmd_states(int argc, char **argv);
int cmd_talk(int argc, char **argv);
int cmd_ctl(int argc, char **argv);
int cmd_model(int argc, char **argv);

/* Prints the sentences to stderr as "parley: ...", frees them, and turns the error into an exit
 * code: 2 when the input was at fault, 1 otherwise. */
int report_problems(struct problems *why, int err);

/* The exit code of a command that returned `code`: what it wrote to standard output must have
 * arrived, else there is a sentence and the command has failed. */
int check_output(int code);

/* Parses a whole number or a decimal of an option; false (and a sentence on stderr) when `text` is
 * not one within [min, max]. */
bool option_long(const char *option, const char *text, long min, long max, long *out);
bool option_double(const char *option, const char *text, double min, double max, double *out);

#endif
