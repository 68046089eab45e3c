/*
 * model/upload.c - matrices from files to a device with memory of its own.
 *
 *     files -> [thread: pread -> pinned buffer -> lane] x THREADS -> device
 *
 * A thread takes the next few megabytes that lie together in a file, reads them in one go and
 * begins a copy for every matrix in them, while its other buffer is still on its way: 28,000 small
 * tensors cost no more than as many bytes in one. Files are read rather than mapped, because
 * mapping a page costs more than copying it. All host memory that this takes is 2 * THREADS_MAX *
 * CHUNK_BYTES of buffers.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/thread.h"
#include "base/util.h"
#include "model/loader.h"

#define CHUNK_BYTES ((size_t)4 << 20)
#define GAP_BYTES   ((size_t)64 << 10) /* that nobody wants, but not worth two reads */
#define THREADS_MAX 16

/* Bytes begin .. end of one file, and the first of the pieces that lie in them. */
struct range {
    const struct st_file *file;
    size_t begin, end, piece;
};

struct upload {
    struct loader *l;
    struct thread thread[THREADS_MAX];
    int threads;
    pthread_mutex_t lock; /* of all that follows */
    pthread_cond_t changed;
    size_t piece, at; /* what comes next; `at` counts bytes */
    size_t done;      /* bytes that were handed to the device, or are vectors */
    int running;
    int err;
    const char *broken; /* file that was shorter than its header said */
    bool stop;
};

static size_t stored_bytes(const struct piece *p)
{
    return p->count * dtype_size(p->type);
}

static size_t place_in_file(const struct piece *p)
{
    return (size_t)(p->from - p->file->map);
}

/* Takes what comes next, up to CHUNK_BYTES; false when nothing is left. Called with the lock. */
static bool take(struct upload *u, struct range *r)
{
    const struct binder *b = &u->l->binder;
    *r = (struct range){.piece = b->n};
    for (; u->piece < b->n; u->piece++, u->at = 0) {
        const struct piece *p = &b->pieces[u->piece];
        if (!p->stored) {
            u->done += p->count * sizeof(float);
            continue;
        }
        size_t from = place_in_file(p) + u->at, left = stored_bytes(p) - u->at;
        if (!r->file)
            *r = (struct range){p->file, from, from, u->piece};
        if (p->file != r->file || from < r->end || from > r->end + GAP_BYTES ||
            from >= r->begin + CHUNK_BYTES)
            return true;
        size_t bytes = min_size(left, r->begin + CHUNK_BYTES - from);
        r->end = from + bytes;
        if (bytes < left) {
            u->at += bytes;
            return true;
        }
    }
    return r->file != NULL;
}

static int read_range(const struct range *r, unsigned char *to)
{
    for (size_t at = r->begin; at < r->end;) {
        ssize_t n = pread(r->file->fd, to + (at - r->begin), r->end - at, (off_t)at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : -EIO;
        at += (size_t)n;
    }
    return 0;
}

/* Begins to copy every matrix that has a part in the range; returns how many bytes they are. */
static size_t send_range(const struct upload *u, const struct range *r, struct lane *lane,
                         const unsigned char *buffer)
{
    const struct binder *b = &u->l->binder;
    size_t sent = 0;
    for (size_t i = r->piece; i < b->n; i++) {
        const struct piece *p = &b->pieces[i];
        if (!p->stored)
            continue;
        size_t place = place_in_file(p), begin = max_size(place, r->begin),
               end = min_size(place + stored_bytes(p), r->end);
        if (p->file != r->file || begin >= end)
            break;
        u->l->device->load->lane_copy(lane, piece_place(u->l, p) + (begin - place),
                                      buffer + (begin - r->begin), end - begin);
        sent += end - begin;
    }
    return sent;
}

static void note(struct upload *u, size_t sent, int err, const char *file)
{
    pthread_mutex_lock(&u->lock);
    u->done += sent;
    if (err < 0 && u->err == 0) {
        u->err = err;
        u->broken = file;
        u->stop = true;
    }
    pthread_mutex_unlock(&u->lock);
}

static bool next_range(struct upload *u, struct range *r)
{
    pthread_mutex_lock(&u->lock);
    bool more = !u->stop && take(u, r);
    pthread_mutex_unlock(&u->lock);
    return more;
}

static void *read_files(void *arg)
{
    struct upload *u = arg;
    const struct loading *load = u->l->device->load;
    struct range r;
    struct lane *lane = load->lane_open(u->l->device, CHUNK_BYTES);
    if (!lane)
        note(u, 0, -ENOMEM, NULL);
    while (lane && next_range(u, &r)) {
        unsigned char *buffer = load->lane_buffer(lane);
        int err = read_range(&r, buffer);
        size_t sent = err < 0 ? 0 : send_range(u, &r, lane, buffer);
        note(u, sent, err, r.file->name);
    }
    if (lane)
        load->lane_close(lane);
    pthread_mutex_lock(&u->lock);
    u->running--;
    pthread_cond_signal(&u->changed);
    pthread_mutex_unlock(&u->lock);
    return NULL;
}

int upload_start(struct upload **ret, struct loader *l, struct problems *why)
{
    struct upload *u = calloc(1, sizeof(*u));
    pthread_condattr_t clock;
    if (!u)
        return problem_add(why, -ENOMEM, "no memory to load weights with");
    u->l = l;
    pthread_mutex_init(&u->lock, NULL);
    pthread_condattr_init(&clock);
    pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    pthread_cond_init(&u->changed, &clock);
    pthread_condattr_destroy(&clock);
    u->threads = u->running = min_int(thread_cpus(), THREADS_MAX);
    for (int i = 0; i < u->threads; i++) {
        int err = thread_start(&u->thread[i], "load", read_files, u);
        if (err < 0) { /* those that run do the work; without any there is none */
            pthread_mutex_lock(&u->lock);
            u->running -= u->threads - i;
            pthread_mutex_unlock(&u->lock);
            u->threads = i;
            if (i == 0) {
                upload_close(u);
                return problem_add(why, err, "a thread to load weights could not be started: %s",
                                   strerror(-err));
            }
        }
    }
    *ret = u;
    return 0;
}

static int sentence(const struct upload *u, struct problems *why)
{
    if (!u->broken)
        return problem_add(why, u->err, "no pinned host memory to load weights with");
    if (u->err == -EIO)
        return problem_add(why, -EIO,
                           "%s: found its end, or a broken disk, before all weights "
                           "were read",
                           u->broken);
    return problem_add(why, u->err, "%s: cannot be read: %s", u->broken, strerror(-u->err));
}

int upload_wait(struct upload *u, int ms, size_t *done, int *row, struct problems *why)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += (long)ms * 1000000;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    pthread_mutex_lock(&u->lock);
    while (u->running > 0 && pthread_cond_timedwait(&u->changed, &u->lock, &until) == 0)
        ;
    int running = u->running;
    size_t at = min_size(u->piece, u->l->binder.n - 1);
    *done = u->done;
    *row = (int)u->l->binder.pieces[at].row;
    pthread_mutex_unlock(&u->lock);
    if (running > 0)
        return 1;
    return u->err < 0 ? sentence(u, why) : 0;
}

void upload_close(struct upload *u)
{
    if (!u)
        return;
    pthread_mutex_lock(&u->lock);
    u->stop = true;
    pthread_mutex_unlock(&u->lock);
    for (int i = 0; i < u->threads; i++)
        thread_join(&u->thread[i]);
    pthread_cond_destroy(&u->changed);
    pthread_mutex_destroy(&u->lock);
    free(u);
}
