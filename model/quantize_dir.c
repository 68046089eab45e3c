/*
 * model/quantize_dir.c - writing a checkpoint directory so that it is there as a whole or not at
 * all.
 */
#include "model/quantize_dir.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/util.h"

#define TEXT_MAX ((size_t)256 << 20)

static int is_empty(const char *path, bool *empty)
{
    DIR *d = opendir(path);
    const struct dirent *e;
    *empty = true;
    if (d == NULL)
        return errno == ENOENT ? 0 : -errno;
    while (*empty && (e = readdir(d)) != NULL)
        *empty = strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0;
    closedir(d);
    return 0;
}

int out_dir_open(struct out_dir *d, const char *wanted, struct problems *why)
{
    bool empty;
    size_t n = strlen(wanted);
    *d = (struct out_dir){0};
    while (n > 1 && wanted[n - 1] == '/')
        n--;
    int err = is_empty(wanted, &empty);
    if (err < 0)
        return problem_add(why, -EIO, "%s: cannot be written to: %s", wanted, strerror(-err));
    if (!empty)
        return problem_add(why, -EINVAL, "%s: found files in it, expected a new or empty directory",
                           wanted);
    d->wanted = strndup(wanted, n);
    if (!d->wanted || asprintf(&d->temp, "%s.%d.tmp", d->wanted, (int)getpid()) < 0) {
        d->temp = NULL;
        return -ENOMEM;
    }
    if (mkdir(d->temp, 0777) == 0)
        return 0;
    err = problem_add(why, -EIO, "%s: cannot be made: %s", d->temp, strerror(errno));
    free(d->temp);
    d->temp = NULL;
    return err;
}

char *out_dir_path(const struct out_dir *d, const char *name)
{
    char *path;
    return asprintf(&path, "%s/%s", d->temp, name) < 0 ? NULL : path;
}

static int put(const struct out_dir *d, const char *name, const char *text, size_t len,
               struct problems *why)
{
    int err = 0;
    char *path = out_dir_path(d, name);
    if (path == NULL)
        return -ENOMEM;
    FILE *f = fopen(path, "wb");
    if (f == NULL)
        err = -errno;
    if (f != NULL && (fwrite(text, 1, len, f) != len || fflush(f) != 0 || fsync(fileno(f)) != 0))
        err = errno ? -errno : -EIO;
    if (f != NULL && fclose(f) != 0 && err == 0)
        err = -errno;
    if (err < 0)
        err = problem_add(why, -EIO, "%s: cannot be written: %s", path, strerror(-err));
    free(path);
    return err;
}

int out_dir_put_json(const struct out_dir *d, const char *name, const json_t *v,
                     struct problems *why)
{
    char *text = json_dumps(v, JSON_INDENT(2) | JSON_REAL_PRECISION(15));
    if (text == NULL)
        return -ENOMEM;
    int err = put(d, name, text, strlen(text), why);
    free(text);
    return err;
}

/* Weights and the files written anew are not texts. */
static bool is_text(const char *name)
{
    static const char *const ends[] = {".json", ".txt", ".md", ".jinja", ".model"};
    size_t n = strlen(name);
    if (name[0] == '.' || strcmp(name, "config.json") == 0 ||
        strcmp(name, "model.safetensors.index.json") == 0)
        return false;
    for (size_t i = 0; i < ARRAY_LEN(ends); i++)
        if (n > strlen(ends[i]) && strcmp(name + n - strlen(ends[i]), ends[i]) == 0)
            return true;
    return strncmp(name, "LICENSE", 7) == 0 || strncmp(name, "NOTICE", 6) == 0;
}

static int copy_text(const struct out_dir *d, const char *from, const char *name,
                     struct problems *why)
{
    char *path, *text = NULL;
    size_t len;
    struct stat st;
    if (asprintf(&path, "%s/%s", from, name) < 0)
        return -ENOMEM;
    int err = stat(path, &st) < 0 ? -errno : 0;
    if (err == 0 && !S_ISREG(st.st_mode))
        goto out;
    if (err == 0)
        err = read_file(&text, &len, path, TEXT_MAX);
    if (err < 0)
        problem_add(why, err, "%s: cannot be read: %s", path, strerror(-err));
    else
        err = put(d, name, text, len, why);
out:
    free(text);
    free(path);
    return err;
}

int out_dir_copy_texts(const struct out_dir *d, const char *from, struct problems *why)
{
    int err = 0;
    const struct dirent *e;
    DIR *dir = opendir(from);
    if (dir == NULL)
        return problem_add(why, -errno, "%s: cannot be read: %s", from, strerror(errno));
    while (err == 0 && (e = readdir(dir)) != NULL)
        if (is_text(e->d_name))
            err = copy_text(d, from, e->d_name, why);
    closedir(dir);
    return err;
}

int out_dir_finish(struct out_dir *d, struct problems *why)
{
    if (rename(d->temp, d->wanted) < 0)
        return problem_add(why, -EIO, "%s: cannot be given that name: %s", d->wanted,
                           strerror(errno));
    free(d->temp);
    d->temp = NULL;
    return 0;
}

static void remove_files(const char *path)
{
    const struct dirent *e;
    DIR *dir = opendir(path);
    while (dir != NULL && (e = readdir(dir)) != NULL)
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            unlinkat(dirfd(dir), e->d_name, 0);
    if (dir != NULL)
        closedir(dir);
    rmdir(path);
}

void out_dir_close(struct out_dir *d)
{
    if (d->temp != NULL)
        remove_files(d->temp);
    free(d->temp);
    free(d->wanted);
    *d = (struct out_dir){0};
}
