/* daemon/state_file.c - write beside, flush, rename, flush the directory. */
#include "daemon/state_file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/util.h"
#include "model/json_text.h"

enum { READ_MAX = 16 << 20 };

static int write_all(int fd, const char *text, size_t n)
{
    while (n > 0) {
        ssize_t done = write(fd, text, n);
        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0)
            return -errno;
        text += done;
        n -= (size_t)done;
    }
    return fsync(fd) < 0 ? -errno : 0;
}

/* Where NAME is written before it is NAME. */
static int beside_of(char beside[NAME_MAX + 1], const char *name)
{
    return snprintf(beside, NAME_MAX + 1, ".%s.new", name) > NAME_MAX ? -ENAMETOOLONG : 0;
}

static int write_in(int at, const char *name, mode_t mode, const char *text, size_t n)
{
    char beside[NAME_MAX + 1];
    if (beside_of(beside, name) < 0)
        return -ENAMETOOLONG;
    unlinkat(at, beside, 0); /* what a power cut left */
    int fd = openat(at, beside, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return -errno;
    int err = write_all(fd, text, n);
    if (err == 0 && fchmod(fd, mode) < 0)
        err = -errno;
    if (close(fd) < 0 && err == 0)
        err = -errno;
    if (err == 0 && renameat(at, beside, at, name) < 0)
        err = -errno;
    if (err == 0 && fsync(at) < 0)
        err = -errno;
    if (err < 0)
        unlinkat(at, beside, 0);
    return err;
}

int state_write(const char *dir, const char *name, mode_t mode, const char *text, size_t n)
{
    int at = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (at < 0)
        return -errno;
    int err = write_in(at, name, mode, text, n);
    close(at);
    return err;
}

int state_write_json(const char *dir, const char *name, mode_t mode, json_t *value)
{
    char *text = value != NULL ? json_dumps(value, JSON_INDENT(1) | JSON_ENSURE_ASCII) : NULL;
    json_decref(value);
    if (text == NULL)
        return -ENOMEM;
    int err = state_write(dir, name, mode, text, strlen(text));
    free(text);
    return err;
}

json_t *state_read_json(const char *dir, const char *name, int *err)
{
    char path[PATH_MAX], *text;
    size_t n;
    if (snprintf(path, sizeof(path), "%s/%s", dir, name) >= (int)sizeof(path)) {
        *err = -ENAMETOOLONG;
        return NULL;
    }
    *err = read_file(&text, &n, path, READ_MAX);
    if (*err < 0)
        return NULL;
    json_t *value;
    json_error_t e;
    *err = json_text_parse(&value, text, n, name, &e, NULL);
    free(text);
    if (json_is_object(value))
        return value;
    json_decref(value);
    if (*err != -ENOMEM)
        *err = -EPROTO;
    return NULL;
}

/* A read-only file system refuses even what is not there; that is no failure. */
static int remove_in(int at, const char *name)
{
    struct stat st;
    if (fstatat(at, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return errno == ENOENT ? 0 : -errno;
    return unlinkat(at, name, 0) < 0 || fsync(at) < 0 ? -errno : 0;
}

int state_remove(const char *dir, const char *name)
{
    char beside[NAME_MAX + 1];
    if (beside_of(beside, name) < 0)
        return -ENAMETOOLONG;
    int at = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (at < 0)
        return errno == ENOENT ? 0 : -errno;
    int err = remove_in(at, name);
    int left = remove_in(at, beside); /* by a write that a power cut ended */
    err = err < 0 ? err : left;
    close(at);
    return err;
}
