/* daemon/model_source.c - a sorted directory, or libarchive. */
#include "daemon/model_source.h"

#include <archive.h>
#include <archive_entry.h>
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BLOCK = 1 << 16, NAME_ROOM = 128 };

struct model_source {
    char *path;
    double bytes;
    char name[NAME_ROOM];
    /* a directory */
    struct dirent **entries;
    int n, at, fd;
    int dir;
    /* an archive */
    struct archive *archive;
    char folder[NAME_ROOM]; /* the one that all files lie in */
    bool any;               /* a file was seen, so `folder` is settled */
};

static int visible(const struct dirent *e)
{
    return e->d_name[0] != '.';
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

static bool plain_file(const struct model_source *s, int i, struct stat *st)
{
    return fstatat(s->dir, s->entries[i]->d_name, st, 0) == 0 && S_ISREG(st->st_mode);
}

static int open_dir(struct model_source *s, struct problems *why)
{
    struct stat st;
    s->dir = open(s->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    s->n = s->dir < 0 ? -1 : scandir(s->path, &s->entries, visible, by_name);
    if (s->n < 0) {
        s->n = 0;
        return problem_add(why, -errno, "%s: %s", s->path, strerror(errno));
    }
    for (int i = 0; i < s->n; i++)
        if (plain_file(s, i, &st))
            s->bytes += (double)st.st_size;
    return 0;
}

static int archive_fault(struct model_source *s, struct problems *why)
{
    const char *text = archive_error_string(s->archive);
    return problem_add(why, -EBADMSG, "%s: %s", s->path,
                       text != NULL ? text : "not a tar file that can be read");
}

static int open_archive(struct model_source *s, struct problems *why)
{
    s->archive = archive_read_new();
    if (s->archive == NULL)
        return -ENOMEM;
    archive_read_support_filter_all(s->archive);
    archive_read_support_format_tar(s->archive);
    if (archive_read_open_filename(s->archive, s->path, BLOCK) != ARCHIVE_OK)
        return archive_fault(s, why);
    return 0;
}

int model_source_open(struct model_source **ret, const char *path, struct problems *why)
{
    struct stat st;
    if (stat(path, &st) < 0)
        return problem_add(why, -errno, "%s: %s", path, strerror(errno));
    struct model_source *s = calloc(1, sizeof(*s));
    if (s == NULL)
        return -ENOMEM;
    s->dir = s->fd = -1;
    s->path = strdup(path);
    s->bytes = S_ISREG(st.st_mode) ? (double)st.st_size : 0;
    int err = s->path == NULL       ? -ENOMEM
              : S_ISDIR(st.st_mode) ? open_dir(s, why)
                                    : open_archive(s, why);
    if (err < 0) {
        model_source_close(s);
        return err;
    }
    *ret = s;
    return 0;
}

const char *model_source_path(const struct model_source *s)
{
    return s->path;
}

double model_source_bytes(const struct model_source *s)
{
    return s->bytes;
}

const char *model_source_name(const struct model_source *s)
{
    return s->name;
}

/* Letters, digits and ._+- : what the files of checkpoints are called. */
static int take_name(struct model_source *s, const char *name, struct problems *why)
{
    bool good = strlen(name) < NAME_ROOM && name[0] != '\0';
    for (const char *c = name; *c != '\0'; c++)
        good = good && (isalnum((unsigned char)*c) || strchr("._+-", *c) != NULL);
    if (!good)
        return problem_add(why, -EINVAL,
                           "%s: found a file named '%.60s', expected letters, digits and ._+-",
                           s->path, name);
    snprintf(s->name, sizeof(s->name), "%s", name);
    return 1;
}

static int next_in_dir(struct model_source *s, struct problems *why)
{
    struct stat st;
    if (s->fd >= 0)
        close(s->fd);
    s->fd = -1;
    while (s->at < s->n && !plain_file(s, s->at, &st))
        s->at++;
    if (s->at == s->n)
        return 0;
    const char *name = s->entries[s->at++]->d_name;
    s->fd = openat(s->dir, name, O_RDONLY | O_CLOEXEC);
    if (s->fd < 0)
        return problem_add(why, -errno, "%s/%s: %s", s->path, name, strerror(errno));
    return take_name(s, name, why);
}

/* "./folder/name" -> name; one folder for all. */
static int take_path(struct model_source *s, const char *path, struct problems *why)
{
    while (strncmp(path, "./", 2) == 0)
        path += 2;
    const char *slash = strchr(path, '/');
    size_t n = slash != NULL ? (size_t)(slash - path) : 0;
    bool same =
        n < NAME_ROOM && (!s->any || (strlen(s->folder) == n && memcmp(s->folder, path, n) == 0));
    if (!same || (slash != NULL && (n == 0 || strchr(slash + 1, '/') != NULL)))
        return problem_add(why, -EINVAL,
                           "%s: found '%.100s', expected all files at the top or in one folder",
                           s->path, path);
    snprintf(s->folder, sizeof(s->folder), "%.*s", (int)n, path);
    s->any = true;
    return take_name(s, slash != NULL ? slash + 1 : path, why);
}

/* .gitattributes and the like, which a directory's files do not count either. */
static bool hidden(const char *path)
{
    const char *slash = strrchr(path, '/');
    const char *name = slash != NULL ? slash + 1 : path;
    return name[0] == '.' && name[1] != '\0' && strcmp(name, "..") != 0;
}

static int next_in_archive(struct model_source *s, struct problems *why)
{
    for (;;) {
        struct archive_entry *e;
        int got = archive_read_next_header(s->archive, &e);
        if (got == ARCHIVE_EOF)
            return 0;
        if (got != ARCHIVE_OK)
            return archive_fault(s, why);
        const char *path = archive_entry_pathname(e);
        if (archive_entry_filetype(e) == AE_IFDIR)
            continue;
        if (path == NULL || archive_entry_filetype(e) != AE_IFREG ||
            archive_entry_hardlink(e) != NULL)
            return problem_add(why, -EINVAL, "%s: found '%.100s', which is no plain file", s->path,
                               path != NULL ? path : "?");
        if (!hidden(path))
            return take_path(s, path, why);
    }
}

int model_source_next(struct model_source *s, struct problems *why)
{
    return s->archive != NULL ? next_in_archive(s, why) : next_in_dir(s, why);
}

ssize_t model_source_read(struct model_source *s, void *bytes, size_t n, struct problems *why)
{
    if (s->archive != NULL) {
        ssize_t got = archive_read_data(s->archive, bytes, n);
        return got < 0 ? archive_fault(s, why) : got;
    }
    ssize_t got;
    do
        got = read(s->fd, bytes, n);
    while (got < 0 && errno == EINTR);
    if (got < 0)
        return problem_add(why, -errno, "%s/%s: %s", s->path, s->name, strerror(errno));
    return got;
}

void model_source_close(struct model_source *s)
{
    if (s == NULL)
        return;
    if (s->archive != NULL)
        archive_read_free(s->archive);
    for (int i = 0; i < s->n; i++)
        free(s->entries[i]);
    free(s->entries);
    if (s->fd >= 0)
        close(s->fd);
    if (s->dir >= 0)
        close(s->dir);
    free(s->path);
    free(s);
}
