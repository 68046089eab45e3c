/*
 * tests/faults/faults.c - makes one call of a program fail; to be preloaded (LD_PRELOAD).
 *
 * PARLEY_FAULTS says what:
 *
 *     count                the calls are counted
 *     nth=N                allocation N of the process fails, and no other
 *     each=FROM:TO:STEP    at allocations FROM, FROM + STEP, ... the process forks; there it fails
 * in the child, whose end is waited for, while the parent goes on as if nothing had been. All of a
 * run's allocations in one run; for programs of one thread. call=NAME:N:ERROR    call N of NAME
 * (read, write, pread, ...; the table below) returns -1 with that errno, or with ERROR = short
 * moves half of what was asked for
 *
 * Allocations are counted between the beginning and the end of main, whoever asks: the program, its
 * libraries, the C library within. Those of a library whose name stands in PARLEY_FAULTS_EXCEPT
 * (separated by colons) are neither counted nor failed. What was allocated since the beginning of
 * main and is not free at the end of the process is a leak.
 *
 * The end of a process, or of each child, is one line in the file PARLEY_FAULTS_REPORT:
 *
 *     N how status leaked where | what was said on standard error (its lines joined by " / ")
 *
 * where N is the allocation, the number of all of them, or how often `call` came to its fault;
 * `how` is exit, signal, or silent (it left without passing its exit handlers); `where` is the
 * library and the offset in it that asked for the allocation that failed; then the askers of up to
 * LEAKS_SHOWN leaked blocks with their numbers. PARLEY_FAULTS_STACK=N prints who asks for
 * allocation N.
 */
#include <dlfcn.h>
#include <errno.h>
#include <execinfo.h>
#include <fcntl.h>
#include <malloc.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define CALLER __builtin_return_address(0)

extern void *__libc_malloc(size_t n);
extern void *__libc_calloc(size_t n, size_t size);
extern void *__libc_realloc(void *p, size_t n);
extern void *__libc_memalign(size_t align, size_t n);
extern void __libc_free(void *p);

enum {
    BLOCKS = 1 << 17, /* room for blocks alive at once; a power of two */
    FDS = 64,         /* of which a child's reading is undone */
    SAID_MAX = 4000,
    LEAKS_SHOWN = 16,
    LEAKS_MAX = 2000, /* characters */
    HANG_S = 20,      /* a child that takes longer hangs: SIGALRM ends it */
    EXCEPT_MAX = 8,
};

enum mode { OFF, COUNT, NTH, EACH, CALL };

struct block {
    uintptr_t at;
    void *asker;
    long number;
};

/* What main's end and the handlers at exit need to know; written before main but for `child`. */
static enum mode mode;
static long shown_stack, from, to, step,
    child; /* child: the allocation that fails here, 0 = in the parent */
static int report_fd = -1;
static atomic_long allocations, hits; /* hits: calls that failed */
static atomic_bool inside;            /* main */
static void *failed_asker;
static char except[EXCEPT_MAX][32];
static struct {
    uintptr_t from, to;
} except_range[EXCEPT_MAX];
static int n_except;

/* ---- blocks that are alive: open addressing, a lock of one word ---- */

static struct block *blocks; /* [BLOCKS] */
static atomic_flag lock = ATOMIC_FLAG_INIT;
static long alive;

static void enter(void)
{
    while (atomic_flag_test_and_set_explicit(&lock, memory_order_acquire))
        ;
}

static void leave(void)
{
    atomic_flag_clear_explicit(&lock, memory_order_release);
}

static size_t home(uintptr_t at)
{
    return (size_t)((at >> 4) * 0x9E3779B97F4A7C15u >> 43) & (BLOCKS - 1);
}

static void keep(void *p, void *asker)
{
    if (p == NULL || blocks == NULL || mode == CALL || !atomic_load(&inside))
        return;
    enter();
    size_t i = home((uintptr_t)p);
    while (blocks[i].at != 0)
        i = (i + 1) & (BLOCKS - 1);
    blocks[i] = (struct block){(uintptr_t)p, asker, atomic_load(&allocations)};
    alive++;
    leave();
}

/* Closes the gap, so that no search ends at it. */
static void close_gap(size_t gap)
{
    for (size_t i = (gap + 1) & (BLOCKS - 1); blocks[i].at != 0; i = (i + 1) & (BLOCKS - 1)) {
        size_t h = home(blocks[i].at);
        if (((i - h) & (BLOCKS - 1)) < ((i - gap) & (BLOCKS - 1)))
            continue;
        blocks[gap] = blocks[i];
        gap = i;
    }
    blocks[gap].at = 0;
}

static void drop(void *p)
{
    if (p == NULL || blocks == NULL)
        return;
    enter();
    size_t i = home((uintptr_t)p);
    while (blocks[i].at != 0 && blocks[i].at != (uintptr_t)p)
        i = (i + 1) & (BLOCKS - 1);
    if (blocks[i].at != 0) {
        close_gap(i);
        alive--;
    }
    leave();
}

/* ---- the report ---- */

/* "libjansson.so.4+0x51c2" */
static int put_asker(char *text, size_t room, void *asker)
{
    Dl_info where = {0};
    if (dladdr(asker, &where) == 0 || where.dli_fname == NULL)
        return snprintf(text, room, "?");
    const char *name = strrchr(where.dli_fname, '/');
    return snprintf(text, room, "%s+0x%zx", name ? name + 1 : where.dli_fname,
                    (size_t)((char *)asker - (char *)where.dli_fbase));
}

/* The first part of the line, by the process itself when it ends in order. */
static size_t put_leaks(char *text, size_t room)
{
    size_t n = (size_t)snprintf(text, room, "%ld ", alive);
    n += (size_t)put_asker(text + n, room - n, failed_asker);
    int shown = 0;
    for (size_t i = 0; i < BLOCKS && alive > 0 && shown < LEAKS_SHOWN; i++) {
        if (blocks[i].at == 0)
            continue;
        text[n++] = ',';
        n += (size_t)put_asker(text + n, room - n, blocks[i].asker);
        n += (size_t)snprintf(text + n, room - n, "#%ld", blocks[i].number);
        shown++;
    }
    return n;
}

/* A child leaves its part here; the parent reads it. */
static struct {
    char said[SAID_MAX], leaks[LEAKS_MAX];
    size_t n_leaks;
} * shared;

static void report(long n, const char *how, int status, const char *leaks, const char *said)
{
    char line[SAID_MAX + LEAKS_MAX + 100];
    int len = snprintf(line, sizeof(line), "%ld %s %d %s | %s\n", n, how, status, leaks, said);
    if (report_fd >= 0)
        (void)!syscall(SYS_write, report_fd, line, (size_t)len);
}

__attribute__((destructor)) static void at_end(void)
{
    static char leaks[LEAKS_MAX];
    atomic_store(&inside, false);
    if (mode == OFF)
        return;
    if (child > 0) {
        shared->n_leaks = put_leaks(shared->leaks, sizeof(shared->leaks));
        return;
    }
    put_leaks(leaks, sizeof(leaks));
    report(atomic_load(mode == CALL ? &hits : &allocations), "exit", 0, leaks, "");
}

/* ---- a child for an allocation ---- */

static off_t offsets[FDS];

/* Children share the parent's offsets into files. */
static void keep_offsets(bool restore)
{
    for (int fd = 0; fd < FDS; fd++) {
        if (!restore)
            offsets[fd] = syscall(SYS_lseek, fd, 0, SEEK_CUR);
        else if (offsets[fd] >= 0)
            syscall(SYS_lseek, fd, offsets[fd], SEEK_SET);
    }
}

static void be_child(long n, int said, void *asker)
{
    child = n;
    failed_asker = asker;
    syscall(SYS_dup2, said, STDERR_FILENO);
    syscall(SYS_dup2, said, STDOUT_FILENO);
    alarm(HANG_S);
}

static void hear(int said)
{
    ssize_t n = syscall(SYS_pread64, said, shared->said, SAID_MAX - 1, 0L);
    shared->said[n > 0 ? n : 0] = '\0';
    for (char *c = shared->said; *c != '\0'; c++)
        if (*c == '\n')
            *c = c[1] != '\0' ? '/' : '\0';
}

/* True in the child. */
static bool fork_at(long n, void *asker)
{
    int said = (int)syscall(SYS_memfd_create, "said", MFD_CLOEXEC), status = 0;
    shared->n_leaks = 0;
    keep_offsets(false);
    pid_t pid = fork();
    if (pid == 0) {
        be_child(n, said, asker);
        return true;
    }
    while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    keep_offsets(true);
    hear(said);
    syscall(SYS_close, said);
    shared->leaks[shared->n_leaks] = '\0';
    char asked[300] = "? ";
    put_asker(asked + 2, sizeof(asked) - 2, asker);
    const char *leaks = shared->n_leaks > 0 ? shared->leaks : asked;
    if (pid < 0)
        report(n, "nofork", errno, leaks, "");
    else if (WIFSIGNALED(status))
        report(n, "signal", WTERMSIG(status), leaks, shared->said);
    else
        report(n, shared->n_leaks > 0 ? "exit" : "silent", WEXITSTATUS(status), leaks,
               shared->said);
    return false;
}

static bool excepted(void *asker)
{
    for (int i = 0; i < n_except; i++)
        if ((uintptr_t)asker >= except_range[i].from && (uintptr_t)asker < except_range[i].to)
            return true;
    return false;
}

static void show_stack(void)
{
    void *stack[32];
    bool was = atomic_exchange(&inside, false);
    backtrace_symbols_fd(stack, backtrace(stack, 32), STDERR_FILENO);
    atomic_store(&inside, was);
}

/* True: this allocation fails. */
static bool fails(void *asker)
{
    if (mode == OFF || mode == CALL || !atomic_load(&inside) || excepted(asker))
        return false;
    long n = atomic_fetch_add(&allocations, 1) + 1;
    bool now = false;
    if (n == shown_stack)
        show_stack();
    if (mode == NTH && n == from) {
        now = true;
        failed_asker = asker;
    } else if (mode == EACH && child == 0 && n >= from && n <= to && (n - from) % step == 0) {
        int before = errno;
        atomic_store(&inside, false); /* fork allocates */
        now = fork_at(n, asker);
        atomic_store(&inside, true);
        errno = before;
    }
    if (now)
        errno = ENOMEM;
    return now;
}

/* ---- the functions themselves ---- */

void *malloc(size_t n)
{
    if (fails(CALLER))
        return NULL;
    void *p = __libc_malloc(n);
    keep(p, CALLER);
    return p;
}

void *calloc(size_t n, size_t size)
{
    if (fails(CALLER))
        return NULL;
    void *p = __libc_calloc(n, size);
    keep(p, CALLER);
    return p;
}

static void *again(void *p, size_t n, void *asker)
{
    if (fails(asker))
        return NULL;
    drop(p); /* before: another thread may be given it at once */
    void *q = __libc_realloc(p, n);
    if (q != NULL)
        keep(q, asker);
    else if (n > 0)
        keep(p, asker);
    return q;
}

void *realloc(void *p, size_t n)
{
    return again(p, n, CALLER);
}

void *reallocarray(void *p, size_t n, size_t size)
{
    size_t all;
    if (__builtin_mul_overflow(n, size, &all)) {
        errno = ENOMEM;
        return NULL;
    }
    return again(p, all, CALLER);
}

static void *aligned(size_t align, size_t n, void *asker)
{
    if (fails(asker))
        return NULL;
    void *p = __libc_memalign(align, n);
    keep(p, asker);
    return p;
}

void *aligned_alloc(size_t align, size_t n)
{
    return aligned(align, n, CALLER);
}

void *memalign(size_t align, size_t n)
{
    return aligned(align, n, CALLER);
}

int posix_memalign(void **p, size_t align, size_t n)
{
    void *q = aligned(align, n, CALLER);
    if (q == NULL)
        return ENOMEM;
    *p = q;
    return 0;
}

void free(void *p)
{
    drop(p);
    __libc_free(p);
}

/* ---- calls that fail, or do half ---- */

enum call { CALL_READ, CALL_PREAD, CALL_WRITE, CALL_RECV, CALL_SEND, CALL_MMAP, CALLS };
static const char *const call_names[CALLS] = {"read", "pread", "write", "recv", "send", "mmap"};
static enum call call;
static int call_error; /* 0 = half */
static atomic_long calls[CALLS];

/* 0: as asked; 1: half; -1: fails, errno is set. Mapping counts as an allocation as well. */
static int fate(enum call c, size_t n)
{
    if (!atomic_load(&inside))
        return 0;
    long count = atomic_fetch_add(&calls[c], 1) + 1;
    if (mode != CALL || c != call || count != from)
        return 0;
    atomic_fetch_add(&hits, 1);
    if (call_error == 0)
        return n > 1;
    errno = call_error;
    return -1;
}

#define PART(c, n)                                                                                 \
    switch (fate(c, n)) {                                                                          \
    case -1:                                                                                       \
        return -1;                                                                                 \
    case 1:                                                                                        \
        n = n / 2;                                                                                 \
        break;                                                                                     \
    default:                                                                                       \
        break;                                                                                     \
    }

ssize_t read(int fd, void *p, size_t n)
{
    PART(CALL_READ, n)
    return syscall(SYS_read, fd, p, n);
}

ssize_t pread(int fd, void *p, size_t n, off_t at)
{
    PART(CALL_PREAD, n)
    return syscall(SYS_pread64, fd, p, n, at);
}

ssize_t pread64(int fd, void *p, size_t n, off_t at)
{
    PART(CALL_PREAD, n)
    return syscall(SYS_pread64, fd, p, n, at);
}

ssize_t write(int fd, const void *p, size_t n)
{
    PART(CALL_WRITE, n)
    return syscall(SYS_write, fd, p, n);
}

ssize_t recv(int fd, void *p, size_t n, int flags)
{
    PART(CALL_RECV, n)
    return syscall(SYS_recvfrom, fd, p, n, flags, NULL, NULL);
}

ssize_t send(int fd, const void *p, size_t n, int flags)
{
    PART(CALL_SEND, n)
    return syscall(SYS_sendto, fd, p, n, flags, NULL, 0);
}

void *mmap(void *at, size_t n, int prot, int flags, int fd, off_t offset)
{
    if (fails(CALLER) || fate(CALL_MMAP, 0) < 0) {
        errno = ENOMEM;
        return MAP_FAILED;
    }
    return (void *)syscall(SYS_mmap, at, n, prot, flags, fd, offset);
}

/* ---- before and around main ---- */

static void take_except(const char *names)
{
    for (; names != NULL && *names != '\0' && n_except < EXCEPT_MAX; n_except++) {
        size_t n = strcspn(names, ":");
        snprintf(except[n_except], sizeof(except[0]), "%.*s", (int)n, names);
        names += n + (names[n] == ':');
    }
}

/* From the process's own map: the code of the libraries that are excepted. */
static void find_ranges(void)
{
    char line[600];
    FILE *f = n_except > 0 ? fopen("/proc/self/maps", "re") : NULL;
    while (f != NULL && fgets(line, sizeof(line), f) != NULL) {
        unsigned long a, b;
        char rights[8];
        if (sscanf(line, "%lx-%lx %7s", &a, &b, rights) != 3 || rights[2] != 'x')
            continue;
        for (int i = 0; i < n_except; i++)
            if (strstr(line, except[i]) != NULL) {
                except_range[i].from = a;
                except_range[i].to = b;
            }
    }
    if (f != NULL)
        fclose(f);
}

static int error_number(const char *name)
{
    for (int e = 1; e < 134; e++)
        if (strerrorname_np(e) != NULL && strcmp(strerrorname_np(e), name) == 0)
            return e;
    return 0;
}

static bool take_call(const char *what)
{
    char name[32], error[32];
    if (sscanf(what, "call=%31[^:]:%ld:%31s", name, &from, error) != 3)
        return false;
    for (int c = 0; c < CALLS; c++)
        if (strcmp(name, call_names[c]) == 0) {
            call = (enum call)c;
            call_error = error_number(error);
            return true;
        }
    return false;
}

__attribute__((constructor)) static void begin(void)
{
    const char *what = getenv("PARLEY_FAULTS"), *path = getenv("PARLEY_FAULTS_REPORT"),
               *stack = getenv("PARLEY_FAULTS_STACK");
    if (what == NULL)
        return;
    shown_stack = stack != NULL ? strtol(stack, NULL, 10) : 0;
    take_except(getenv("PARLEY_FAULTS_EXCEPT"));
    if (path != NULL)
        report_fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    blocks = (void *)syscall(SYS_mmap, NULL, BLOCKS * sizeof(*blocks), PROT_READ | PROT_WRITE,
                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0L);
    shared = (void *)syscall(SYS_mmap, NULL, sizeof(*shared), PROT_READ | PROT_WRITE,
                             MAP_SHARED | MAP_ANONYMOUS, -1, 0L);
    if (strcmp(what, "count") == 0)
        mode = COUNT;
    else if (sscanf(what, "nth=%ld", &from) == 1)
        mode = NTH;
    else if (sscanf(what, "each=%ld:%ld:%ld", &from, &to, &step) == 3 && step > 0)
        mode = EACH;
    else if (take_call(what))
        mode = CALL;
}

static int (*real_main)(int, char **, char **);

static int around_main(int argc, char **argv, char **env)
{
    find_ranges();
    atomic_store(&inside, mode != OFF);
    int code = real_main(argc, argv, env);
    return code;
}

int __libc_start_main(int (*main)(int, char **, char **), int argc, char **argv, void (*init)(void),
                      void (*fini)(void), void (*rtld_fini)(void), void *end);
int __libc_start_main(int (*main)(int, char **, char **), int argc, char **argv, void (*init)(void),
                      void (*fini)(void), void (*rtld_fini)(void), void *end)
{
    int (*real)(int (*)(int, char **, char **), int, char **, void (*)(void), void (*)(void),
                void (*)(void), void *);
    *(void **)&real = dlsym(RTLD_NEXT, "__libc_start_main");
    real_main = main;
    return real(around_main, argc, argv, init, fini, rtld_fini, end);
}
