/* daemon/commands.c - what the commands share: how sentences reach a person, numbers of options. */
#include "daemon/commands.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int report_problems(struct problems *why, int err)
{
    for (size_t i = 0; i < why->n; i++)
        fprintf(stderr, "parley: %s\n", why->text[i]);
    if (why->dropped > 0)
        fprintf(stderr, "parley: and %zu more problems\n", why->dropped);
    if (why->n == 0)
        fprintf(stderr, "parley: %s\n", strerror(-err));
    problems_free(why);
    switch (-err) {
    case ENOMEM:
    case EIO:
    case EPROTO:
        return EXIT_FAILED;
    default:
        return EXIT_BAD_INPUT;
    }
}

int check_output(int code)
{
    bool good = fflush(stdout) == 0 && !ferror(stdout);
    if (good || code != 0)
        return code;
    fprintf(stderr, "parley: standard output: cannot be written\n");
    return EXIT_FAILED;
}

bool option_long(const char *option, const char *text, long min, long max, long *out)
{
    char *end;
    errno = 0;
    *out = strtol(text, &end, 10);
    if (errno == 0 && end != text && *end == '\0' && *out >= min && *out <= max)
        return true;
    fprintf(stderr, "parley: %s: found '%s', expected a whole number from %ld to %ld\n", option,
            text, min, max);
    return false;
}

bool option_double(const char *option, const char *text, double min, double max, double *out)
{
    char *end;
    *out = strtod(text, &end);
    if (end != text && *end == '\0' && isfinite(*out) && *out >= min && *out <= max)
        return true;
    fprintf(stderr, "parley: %s: found '%s', expected a number from %g to %g\n", option, text, min,
            max);
    return false;
}
