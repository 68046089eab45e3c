/* daemon/installed.c - share/parley beside the program's folder or in it. */
#include "daemon/installed.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/util.h"

int installed_path(char *path, size_t size, const char *name, struct problems *why)
{
    static const char *const places[] = {"/../share/parley", "/share/parley",
                                         "/../../share/parley"};
    char program[PATH_MAX], found[PATH_MAX + 64];
    ssize_t n = readlink("/proc/self/exe", program, sizeof(program) - 1);
    if (n < 0)
        return problem_add(why, -errno, "%s: cannot tell where the program is: %s", name,
                           strerror(errno));
    program[n] = '\0';
    char *slash = strrchr(program, '/');
    if (slash != NULL)
        *slash = '\0';
    for (size_t i = 0; i < ARRAY_LEN(places); i++)
        if (snprintf(found, sizeof(found), "%s%s/%s", program, places[i], name) < (int)size &&
            access(found, R_OK) == 0) {
            memcpy(path, found, strlen(found) + 1);
            return 0;
        }
    return problem_add(why, -ENOENT, "%s is neither in %s/../share/parley nor in %s/share/parley",
                       name, program, program);
}
