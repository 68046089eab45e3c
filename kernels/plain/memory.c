/*
 * kernels/plain/memory.c - device memory of a backend that lives on the host: the heap.
 *
 * Allocations are aligned to a cache line, which is also the widest vector.
 */
#include "kernels/plain/plain.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { ALIGN = 64 };

static void *aligned(size_t bytes)
{
    if (bytes > SIZE_MAX - ALIGN)
        return NULL;
    bytes = bytes ? (bytes + ALIGN - 1) / ALIGN * ALIGN : ALIGN;
    return aligned_alloc(ALIGN, bytes);
}

int host_room_open(struct host_room *r, size_t bytes)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                   -1, 0);
    if (p == MAP_FAILED)
        return -ENOMEM;
    *r = (struct host_room){p, bytes};
    return 0;
}

void host_room_close(struct host_room *r)
{
    if (r->p != NULL)
        munmap(r->p, r->bytes);
    *r = (struct host_room){0};
}

void *host_room(struct host_room *r, size_t bytes)
{
    if (bytes <= r->bytes)
        return r->p;
    host_room_close(r);
    if (host_room_open(r, bytes) < 0)
        abort();
    return r->p;
}

void *host_scratch(struct device *d, size_t bytes)
{
    return host_room(&((struct host *)d)->scratch, bytes);
}

void *plain_alloc(struct device *d, size_t bytes)
{
    (void)d;
    void *p = aligned(bytes);
    if (p != NULL)
        memset(p, 0, bytes);
    return p;
}

void plain_release(struct device *d, void *p)
{
    (void)d;
    free(p);
}

void plain_put(struct device *d, void *dst, const void *host, size_t bytes)
{
    (void)d;
    memcpy(dst, host, bytes);
}

void plain_get(struct device *d, void *host, const void *src, size_t bytes)
{
    (void)d;
    memcpy(host, src, bytes);
}

void plain_mark(struct device *d)
{
    (void)d; /* everything is ready when its op returns */
}

void plain_copy(struct device *d, void *dst, const void *src, size_t bytes)
{
    (void)d;
    memmove(dst, src, bytes);
}
