/*
 * tests/live/interpose.c - catches what an audio thread must not do: allocate, free, lock, wait,
 * log, read, write, open, close. Linked into a test program, or preloaded into any program
 * (LD_PRELOAD); audio/realtime.h marks where the rules hold.
 *
 * Counts are kept for our own code and, apart from it, for what happens inside the device's library
 * (ALSA's plugins and PulseAudio's client lock and write to their socket: that is theirs, and worth
 * knowing). interpose_report, or the end of a program that PARLEY_INTERPOSE names a file for, says
 * them: a line for each function that was called, with the count and the address of the first
 * caller.
 */
#include "tests/live/interpose.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "audio/realtime.h"

enum call { MALLOC, FREE, LOCK, COND, READ, WRITE, LOG, OPEN, CLOSE, CALLS };
static const char *const names[CALLS] = {"malloc", "free",  "mutex_lock", "cond_wait", "read",
                                         "write",  "print", "open",       "close"};

static __thread int region __attribute__((tls_model("initial-exec")));
static atomic_long counts[3][CALLS], periods[3];
static _Atomic(void *) first[3][CALLS];

static void note(enum call c, void *caller)
{
    if (region == REALTIME_NONE)
        return;
    void *none = NULL;
    atomic_fetch_add(&counts[region][c], 1);
    atomic_compare_exchange_strong(&first[region][c], &none, caller);
}

void audio_realtime_region(enum realtime_region r)
{
    region = r;
    atomic_fetch_add(&periods[r], 1);
}

long interpose_count(enum realtime_region r)
{
    long sum = 0;
    for (int c = 0; c < CALLS; c++)
        sum += atomic_load(&counts[r][c]);
    return sum;
}

long interpose_entered(enum realtime_region r)
{
    return atomic_load(&periods[r]);
}

void interpose_report(FILE *out)
{
    static const char *const regions[] = {"", "ours", "library"};
    for (int r = REALTIME_OURS; r <= REALTIME_LIBRARY; r++) {
        fprintf(out, "%s: entered %ld times\n", regions[r], atomic_load(&periods[r]));
        for (int c = 0; c < CALLS; c++) {
            Dl_info where = {0};
            void *at = atomic_load(&first[r][c]);
            if (at == NULL)
                continue;
            dladdr(at, &where);
            fprintf(out, "%s: %s %ld, first from %s %s\n", regions[r], names[c],
                    atomic_load(&counts[r][c]), where.dli_fname ? where.dli_fname : "?",
                    where.dli_sname ? where.dli_sname : "?");
        }
    }
}

__attribute__((destructor)) static void report_at_end(void)
{
    const char *path = getenv("PARLEY_INTERPOSE");
    FILE *f = path != NULL && atomic_load(&periods[REALTIME_OURS]) > 0 ? fopen(path, "w") : NULL;
    if (f == NULL)
        return;
    interpose_report(f);
    fclose(f);
}

/* ---- the functions themselves ---- */

extern void *__libc_malloc(size_t n);
extern void *__libc_calloc(size_t n, size_t size);
extern void *__libc_realloc(void *p, size_t n);
extern void *__libc_memalign(size_t alignment, size_t n);
extern void __libc_free(void *p);

#define CALLER __builtin_return_address(0)

void *malloc(size_t n)
{
    note(MALLOC, CALLER);
    return __libc_malloc(n);
}

void *calloc(size_t n, size_t size)
{
    note(MALLOC, CALLER);
    return __libc_calloc(n, size);
}

void *realloc(void *p, size_t n)
{
    note(MALLOC, CALLER);
    return __libc_realloc(p, n);
}

void *aligned_alloc(size_t alignment, size_t n)
{
    note(MALLOC, CALLER);
    return __libc_memalign(alignment, n);
}

int posix_memalign(void **p, size_t alignment, size_t n)
{
    note(MALLOC, CALLER);
    *p = __libc_memalign(alignment, n);
    return *p != NULL ? 0 : ENOMEM;
}

void free(void *p)
{
    if (p != NULL)
        note(FREE, CALLER);
    __libc_free(p);
}

/* The next one behind ours. dlsym may lock and allocate: it is asked before main. */
static int (*real_lock)(pthread_mutex_t *);
static int (*real_cond)(pthread_cond_t *, pthread_mutex_t *);
static int (*real_timed)(pthread_cond_t *, pthread_mutex_t *, const struct timespec *);
static ssize_t (*real_read)(int, void *, size_t);
static int (*real_close)(int);
static int (*real_vfprintf)(FILE *, const char *, va_list);
static size_t (*real_fwrite)(const void *, size_t, size_t, FILE *);
static ssize_t (*real_write)(int, const void *, size_t);
static ssize_t (*real_writev)(int, const struct iovec *, int);
static int (*real_open)(const char *, int, ...);
static int (*real_openat)(int, const char *, int, ...);
static FILE *(*real_fopen)(const char *, const char *);

__attribute__((constructor)) static void find_real(void)
{
    *(void **)&real_lock = dlsym(RTLD_NEXT, "pthread_mutex_lock");
    *(void **)&real_cond = dlsym(RTLD_NEXT, "pthread_cond_wait");
    *(void **)&real_timed = dlsym(RTLD_NEXT, "pthread_cond_timedwait");
    *(void **)&real_read = dlsym(RTLD_NEXT, "read");
    *(void **)&real_close = dlsym(RTLD_NEXT, "close");
    *(void **)&real_vfprintf = dlsym(RTLD_NEXT, "vfprintf");
    *(void **)&real_fwrite = dlsym(RTLD_NEXT, "fwrite");
    *(void **)&real_write = dlsym(RTLD_NEXT, "write");
    *(void **)&real_writev = dlsym(RTLD_NEXT, "writev");
    *(void **)&real_open = dlsym(RTLD_NEXT, "open");
    *(void **)&real_openat = dlsym(RTLD_NEXT, "openat");
    *(void **)&real_fopen = dlsym(RTLD_NEXT, "fopen");
}

int pthread_mutex_lock(pthread_mutex_t *m)
{
    note(LOCK, CALLER);
    if (real_lock == NULL)
        find_real();
    return real_lock(m);
}

int pthread_cond_wait(pthread_cond_t *c, pthread_mutex_t *m)
{
    note(COND, CALLER);
    if (real_cond == NULL)
        find_real();
    return real_cond(c, m);
}

int pthread_cond_timedwait(pthread_cond_t *c, pthread_mutex_t *m, const struct timespec *t)
{
    note(COND, CALLER);
    if (real_timed == NULL)
        find_real();
    return real_timed(c, m, t);
}

ssize_t read(int fd, void *data, size_t n)
{
    note(READ, CALLER);
    if (real_read == NULL)
        find_real();
    return real_read(fd, data, n);
}

int close(int fd)
{
    note(CLOSE, CALLER);
    if (real_close == NULL)
        find_real();
    return real_close(fd);
}

/* The C library writes inside of itself, where nothing is seen of it. */
static int print(FILE *f, const char *format, va_list args, void *caller)
{
    note(LOG, caller);
    if (real_vfprintf == NULL)
        find_real();
    return real_vfprintf(f, format, args);
}

int vfprintf(FILE *f, const char *format, va_list args)
{
    return print(f, format, args, CALLER);
}

int fprintf(FILE *f, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int n = print(f, format, args, CALLER);
    va_end(args);
    return n;
}

int printf(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int n = print(stdout, format, args, CALLER);
    va_end(args);
    return n;
}

size_t fwrite(const void *data, size_t size, size_t n, FILE *f)
{
    note(LOG, CALLER);
    if (real_fwrite == NULL)
        find_real();
    return real_fwrite(data, size, n, f);
}

int fputs(const char *text, FILE *f)
{
    note(LOG, CALLER);
    if (real_fwrite == NULL)
        find_real();
    return real_fwrite(text, 1, strlen(text), f) == strlen(text) ? 0 : EOF;
}

ssize_t write(int fd, const void *data, size_t n)
{
    note(WRITE, CALLER);
    if (real_write == NULL)
        find_real();
    return real_write(fd, data, n);
}

ssize_t writev(int fd, const struct iovec *v, int n)
{
    note(WRITE, CALLER);
    if (real_writev == NULL)
        find_real();
    return real_writev(fd, v, n);
}

int open(const char *path, int flags, ...)
{
    va_list args;
    va_start(args, flags);
    mode_t mode = (flags & (O_CREAT | O_TMPFILE)) != 0 ? va_arg(args, mode_t) : 0;
    va_end(args);
    note(OPEN, CALLER);
    if (real_open == NULL)
        find_real();
    return real_open(path, flags, mode);
}

int openat(int folder, const char *path, int flags, ...)
{
    va_list args;
    va_start(args, flags);
    mode_t mode = (flags & (O_CREAT | O_TMPFILE)) != 0 ? va_arg(args, mode_t) : 0;
    va_end(args);
    note(OPEN, CALLER);
    if (real_openat == NULL)
        find_real();
    return real_openat(folder, path, flags, mode);
}

FILE *fopen(const char *path, const char *mode)
{
    note(OPEN, CALLER);
    if (real_fopen == NULL)
        find_real();
    return real_fopen(path, mode);
}
