/*
 * tests/fuzz/fuzz_scenario.c - any text as a scenario of `parley replay`: read, its expectations
 * checked, and a log held against them.
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "daemon/expect.h"
#include "daemon/scenario.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void judge(const struct scenario *s, FILE *sink)
{
    static const char line[] = "{\"at\":0,\"ms\":0.0,\"event\":\"tick\",\"state\":\"held\","
                               "\"text\":\"One\",\"actions\":[\"hold\"]}\n";
    struct expect *e = NULL;
    struct problems why = {0};
    if (expect_open(&e, s, &why) == 0 && expect_line(e, line, sizeof(line) - 1) == 0)
        (void)expect_fulfilled(e, sink);
    expect_close(e);
    problems_free(&why);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static int fd = -1; /* in memory, for thousands of runs a second */
    static FILE *sink;
    char path[64];
    struct scenario s;
    struct problems why = {0};
    if (fd < 0 && ((fd = memfd_create("scenario", 0)) < 0 || !(sink = fopen("/dev/null", "w"))))
        abort();
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    if (ftruncate(fd, 0) < 0 || pwrite(fd, data, size, 0) != (ssize_t)size)
        abort();
    if (scenario_read(&s, path, &why) == 0) {
        judge(&s, sink);
        scenario_free(&s);
    } else if (why.n == 0) {
        abort(); /* refused without a word */
    }
    problems_free(&why);
    return 0;
}
