/*
 * daemon/model_store.c - copy or unpack beside, sum on the way, flush, check, rename.
 *
 * Files come one after the other from a `source` (a directory or an archive) that is asked for the
 * next file and for its next bytes.
 */
#include "daemon/model_store.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/util.h"
#include "daemon/installed.h"
#include "daemon/model_source.h"
#include "daemon/plan.h"
#include "daemon/session.h"
#include "daemon/sums.h"

enum { PIECE = 1 << 20 };

static int place(char *path, const char *dir, const char *name, struct problems *why)
{
    if (snprintf(path, PATH_MAX, "%s/%s", dir, name) < PATH_MAX)
        return 0;
    return problem_add(why, -ENAMETOOLONG, "%s/%s: the path is too long", dir, name);
}

static int failed(struct problems *why, const char *path)
{
    int err = -errno;
    return problem_add(why, err, "%s: %s", path, strerror(-err));
}

/* The names of the store are names of directories that no one stumbles over. */
static int check_name(const char *name, struct problems *why)
{
    bool good =
        name[0] != '\0' && name[0] != '.' && strlen(name) <= 100 && strcmp(name, "current") != 0;
    for (const char *c = name; *c != '\0'; c++)
        good = good && (isalnum((unsigned char)*c) || strchr("._+-", *c) != NULL);
    if (good)
        return 0;
    return problem_add(why, -EINVAL,
                       "model name: found '%.100s', expected letters, digits and ._+- (not "
                       "'current')",
                       name);
}

void model_store_name(char *name, size_t size, const char *source)
{
    static const char *const ends[] = {".tar",    ".tgz",     ".tar.gz",
                                       ".tar.xz", ".tar.zst", ".tar.bz2"};
    size_t n = strlen(source);
    while (n > 1 && source[n - 1] == '/')
        n--;
    size_t from = n;
    while (from > 0 && source[from - 1] != '/')
        from--;
    snprintf(name, size, "%.*s", (int)(n - from), source + from);
    n = strlen(name);
    for (size_t i = 0; i < ARRAY_LEN(ends); i++) {
        size_t m = strlen(ends[i]);
        if (n > m && strcmp(name + n - m, ends[i]) == 0) {
            name[n - m] = '\0';
            return;
        }
    }
}

/* Removes a directory with the files in it (there are no folders below a model). */
static void remove_flat(const char *dir)
{
    DIR *d = opendir(dir);
    if (d == NULL)
        return;
    for (struct dirent *e; (e = readdir(d)) != NULL;)
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            unlinkat(dirfd(d), e->d_name, 0);
    closedir(d);
    rmdir(dir);
}

static void remove_leftovers(const char *store)
{
    char path[PATH_MAX];
    DIR *d = opendir(store);
    if (d == NULL)
        return;
    for (struct dirent *e; (e = readdir(d)) != NULL;)
        if (strncmp(e->d_name, ".incoming-", 10) == 0 && place(path, store, e->d_name, NULL) == 0)
            remove_flat(path);
    closedir(d);
}

/* The store exists, and no other process adds to it. The lock's descriptor or negative errno. */
static int lock(const char *store, struct problems *why)
{
    if (mkdir(store, 0755) < 0 && errno != EEXIST)
        return failed(why, store);
    int fd = open(store, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return failed(why, store);
    if (flock(fd, LOCK_EX | LOCK_NB) == 0)
        return fd;
    close(fd);
    return problem_add(why, -EBUSY, "%s: another process is adding a model", store);
}

static int check_room(const char *store, const struct model_source *s, struct problems *why)
{
    struct statvfs f;
    char needs[32], has[32];
    double bytes = model_source_bytes(s);
    if (statvfs(store, &f) < 0 || (double)f.f_bavail * (double)f.f_frsize >= bytes)
        return 0;
    return problem_add(why, -ENOSPC, "%s: needs %s, the disk has %s left", store,
                       bytes_text(needs, sizeof(needs), bytes),
                       bytes_text(has, sizeof(has), (double)f.f_bavail * (double)f.f_frsize));
}

static int write_all(int fd, const char *bytes, size_t n)
{
    while (n > 0) {
        ssize_t done = write(fd, bytes, n);
        if (done < 0 && errno != EINTR)
            return -errno;
        bytes += done > 0 ? done : 0;
        n -= done > 0 ? (size_t)done : 0;
    }
    return 0;
}

/* The source's present file into `dir`, to the disk, with its sum into `sums`. */
static int copy_file(struct model_source *s, const char *dir, char *piece, struct sums *sums,
                     struct problems *why)
{
    char path[PATH_MAX];
    struct summing sum;
    ssize_t n = 0;
    int err = place(path, dir, model_source_name(s), why);
    if (err < 0)
        return err;
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
    if (fd < 0)
        return failed(why, path);
    summing_begin(&sum);
    while (err == 0 && (n = model_source_read(s, piece, PIECE, why)) > 0) {
        summing_add(&sum, piece, (size_t)n);
        err = write_all(fd, piece, (size_t)n);
    }
    if (err == 0 && n == 0 && (fchmod(fd, 0644) < 0 || fsync(fd) < 0))
        err = -errno;
    if (close(fd) < 0 && err == 0)
        err = -errno;
    if (err < 0)
        return problem_add(why, err, "%s: %s", path, strerror(-err));
    return n < 0 ? (int)n : sums_add(sums, model_source_name(s), &sum);
}

/* All files; `brought` becomes the source's own SHA256SUMS, if it has one. */
static int copy_all(struct model_source *s, const char *dir, struct sums *sums,
                    struct sums *brought, FILE *report, struct problems *why)
{
    char *piece = malloc(PIECE);
    int more, err = piece != NULL ? 0 : -ENOMEM;
    while (err == 0 && (more = model_source_next(s, why)) != 0) {
        if (more < 0) {
            err = more;
        } else if (strcmp(model_source_name(s), SUMS_FILE) == 0) {
            ssize_t n = model_source_read(s, piece, PIECE, why);
            err = n < 0 ? (int)n : sums_parse(brought, piece, (size_t)n, SUMS_FILE, why);
        } else {
            err = copy_file(s, dir, piece, sums, why);
            if (err == 0 && report != NULL)
                fprintf(report, "  %s\n", model_source_name(s));
        }
    }
    free(piece);
    return err;
}

static int write_sums(const struct sums *sums, const char *dir, struct problems *why)
{
    char path[PATH_MAX];
    int err = place(path, dir, SUMS_FILE, why);
    if (err < 0)
        return err;
    FILE *f = fopen(path, "wxe");
    if (f == NULL)
        return failed(why, path);
    sums_write(sums, f);
    if (fflush(f) != 0 || ferror(f) || fchmod(fileno(f), 0644) < 0 || fsync(fileno(f)) < 0)
        err = -errno;
    if (fclose(f) != 0 && err == 0)
        err = -errno;
    return err < 0 ? problem_add(why, err, "%s: %s", path, strerror(-err)) : 0;
}

/* All that `parley inspect` checks, and that it speaks, which parleyd needs. */
static int check_model(const char *dir, struct problems *why)
{
    struct session s;
    const struct session_opts o = {.dir = dir, .device = "cpu", .threads = 1};
    int err = session_look(&s, &o, why);
    if (err == 0 && !s.model->speech)
        err = problem_add(why, -EINVAL,
                          "%s/config.json: found a model without speech, expected "
                          "enable_audio_output with talker_config and code2wav_config",
                          dir);
    session_close(&s);
    return err;
}

/* Before it is copied, which for a large model takes minutes; an archive shows only afterwards. */
static int check_source(const char *source, struct problems *why)
{
    struct stat st;
    return stat(source, &st) == 0 && S_ISDIR(st.st_mode) ? check_model(source, why) : 0;
}

static int sync_dir(const char *dir, struct problems *why)
{
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int err = fd < 0 || fsync(fd) < 0 ? failed(why, dir) : 0;
    if (fd >= 0)
        close(fd);
    return err;
}

/* From a source to a whole model in `dir`. */
static int fill(struct model_source *s, const char *dir, FILE *report, struct problems *why)
{
    struct sums sums = {0}, brought = {0};
    int err = copy_all(s, dir, &sums, &brought, report, why);
    if (err == 0 && brought.n > 0)
        err = sums_compare(&brought, &sums, model_source_path(s), why);
    if (err == 0)
        err = write_sums(&sums, dir, why);
    if (err == 0)
        err = check_model(dir, why);
    if (err == 0)
        err = sync_dir(dir, why);
    sums_free(&sums);
    sums_free(&brought);
    return err;
}

static int settle(const char *store, const char *incoming, const char *name, struct problems *why)
{
    char path[PATH_MAX];
    int err = place(path, store, name, why);
    if (err < 0)
        return err;
    if (chmod(incoming, 0755) < 0)
        return failed(why, incoming);
    if (renameat2(AT_FDCWD, incoming, AT_FDCWD, path, RENAME_NOREPLACE) < 0)
        return failed(why, path);
    return sync_dir(store, why);
}

int model_store_add(const char *store, const char *source, const char *name, FILE *report,
                    struct problems *why)
{
    char named[PATH_MAX], incoming[PATH_MAX], path[PATH_MAX];
    struct model_source *s = NULL;
    struct stat st;
    model_store_name(named, sizeof(named), source);
    name = name != NULL ? name : named;
    int err = check_name(name, why), held = -1;
    if (err == 0)
        err = model_source_open(&s, source, why);
    if (err == 0)
        err = held = lock(store, why);
    if (err >= 0)
        err = place(path, store, name, why);
    if (err == 0 && lstat(path, &st) == 0)
        err = problem_add(why, -EEXIST, "%s: there is a model of this name", path);
    if (err == 0)
        err = check_source(source, why);
    if (err == 0) {
        remove_leftovers(store);
        err = check_room(store, s, why);
    }
    if (err == 0)
        err = place(incoming, store, ".incoming-XXXXXX", why);
    if (err == 0 && mkdtemp(incoming) == NULL)
        err = failed(why, incoming);
    else if (err == 0) {
        err = fill(s, incoming, report, why);
        if (err == 0)
            err = settle(store, incoming, name, why);
        if (err < 0)
            remove_flat(incoming);
    }
    model_source_close(s);
    if (held >= 0)
        close(held);
    return err < 0 ? err : 0;
}

/* Where the model of this name is: in the store, or with the program. The link's text goes to
 * `target`. */
static int locate(const char *store, const char *name, char *target, struct problems *why)
{
    char path[PATH_MAX], config[PATH_MAX];
    int err = check_name(name, why);
    if (err == 0)
        err = place(path, store, name, why);
    if (err == 0)
        err = place(config, path, "config.json", why);
    if (err < 0)
        return err;
    if (access(config, R_OK) == 0) {
        snprintf(target, PATH_MAX, "%s", name);
        return 0;
    }
    snprintf(config, sizeof(config), "%s/config.json", name);
    if (installed_path(path, sizeof(path), config, NULL) == 0) {
        *strrchr(path, '/') = '\0';
        return realpath(path, target) != NULL ? 0 : failed(why, path);
    }
    return problem_add(why, -ENOENT, "%s: there is no model '%s'; `parley model list` names them",
                       store, name);
}

/* The directory behind a link's text. */
static int resolve(char *dir, const char *store, const char *target, struct problems *why)
{
    if (target[0] != '/')
        return place(dir, store, target, why);
    snprintf(dir, PATH_MAX, "%s", target);
    return 0;
}

int model_store_use(const char *store, const char *name, struct problems *why)
{
    char target[PATH_MAX], path[PATH_MAX], beside[PATH_MAX];
    int err = locate(store, name, target, why);
    if (err == 0)
        err = resolve(path, store, target, why);
    if (err == 0)
        err = check_model(path, why);
    if (err == 0)
        err = place(path, store, "current", why);
    if (err == 0)
        err = place(beside, store, ".current.new", why);
    if (err < 0)
        return err;
    unlink(beside); /* what a power cut left */
    if (symlink(target, beside) < 0)
        return failed(why, beside);
    if (rename(beside, path) < 0) {
        err = failed(why, path);
        unlink(beside);
        return err;
    }
    return sync_dir(store, why);
}

/* Sums every file of `dir` but SHA256SUMS. */
static int sum_all(const char *dir, struct sums *sums, FILE *report, struct problems *why)
{
    struct model_source *s;
    struct summing sum;
    char *piece = malloc(PIECE);
    int err = piece != NULL ? model_source_open(&s, dir, why) : -ENOMEM;
    if (err < 0) {
        free(piece);
        return err;
    }
    while (err == 0 && (err = model_source_next(s, why)) > 0) {
        ssize_t n;
        err = 0;
        if (strcmp(model_source_name(s), SUMS_FILE) == 0)
            continue;
        summing_begin(&sum);
        while ((n = model_source_read(s, piece, PIECE, why)) > 0)
            summing_add(&sum, piece, (size_t)n);
        err = n < 0 ? (int)n : sums_add(sums, model_source_name(s), &sum);
        if (err == 0 && report != NULL)
            fprintf(report, "  %s\n", model_source_name(s));
        if (err == 0)
            continue;
        break;
    }
    model_source_close(s);
    free(piece);
    return err;
}

int model_store_verify(const char *store, const char *name, FILE *report, struct problems *why)
{
    char dir[PATH_MAX], target[PATH_MAX], path[PATH_MAX], *text = NULL;
    struct sums listed = {0}, found = {0};
    size_t n;
    int err = 0;
    if (name != NULL)
        err = locate(store, name, target, why);
    else
        snprintf(target, sizeof(target), "current");
    if (err == 0)
        err = resolve(dir, store, target, why);
    if (err == 0)
        err = place(path, dir, SUMS_FILE, why);
    if (err == 0 && (err = read_file(&text, &n, path, PIECE)) < 0)
        problem_add(why, err, "%s: %s", path, strerror(-err));
    if (err == 0)
        err = sums_parse(&listed, text, n, path, why);
    if (err == 0)
        err = sum_all(dir, &found, report, why);
    if (err == 0)
        err = sums_compare(&listed, &found, dir, why);
    free(text);
    sums_free(&listed);
    sums_free(&found);
    return err;
}

static double size_of(const char *dir)
{
    struct model_source *s;
    double bytes = 0;
    if (model_source_open(&s, dir, NULL) == 0) {
        bytes = model_source_bytes(s);
        model_source_close(s);
    }
    return bytes;
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

int model_store_list(const char *store, FILE *out, struct problems *why)
{
    char path[PATH_MAX], target[PATH_MAX] = "", size[32];
    struct dirent **names;
    bool shown = false;
    int err = place(path, store, "current", why);
    if (err < 0)
        return err;
    ssize_t length = readlink(path, target, sizeof(target) - 1);
    target[length > 0 ? length : 0] = '\0';
    int n = scandir(store, &names, NULL, by_name);
    if (n < 0)
        return failed(why, store);
    for (int i = 0; i < n; i++) {
        const char *name = names[i]->d_name;
        struct stat st;
        if (name[0] != '.' && place(path, store, name, NULL) == 0 && lstat(path, &st) == 0 &&
            S_ISDIR(st.st_mode)) {
            bool current = strcmp(name, target) == 0;
            fprintf(out, "%c %-32s %10s\n", current ? '*' : ' ', name,
                    bytes_text(size, sizeof(size), size_of(path)));
            shown = shown || current;
        }
        free(names[i]);
    }
    free(names);
    if (target[0] != '\0' && !shown)
        fprintf(out, "* %-32s %10s\n", target,
                target[0] == '/' && access(target, R_OK) == 0
                    ? bytes_text(size, sizeof(size), size_of(target))
                    : "missing");
    return 0;
}
