/*
 * kernels/plain/memory.c - device memory of a backend that lives on the host: the heap.
 *
 * Allocations are aligned to a cache line, which is also the widest vector.
 */
#include "kernels/plain/plain.h"

#include <stdlib.h>
#include <string.h>

enum { ALIGN = 64 };

static void *aligned(size_t bytes)
{
    if (bytes > SIZE_MAX - ALIGN)
        return NULL;
    bytes = bytes ? (bytes + ALIGN - 1) / ALIGN * ALIGN : ALIGN;
    return aligned_alloc(ALIGN, bytes);
}

void *host_scratch(struct device *d, size_t bytes)
{
    struct host *h = (struct host *)d;
    if (bytes > h->scratch_bytes) {
        free(h->scratch);
        h->scratch = aligned(bytes);
        if (h->scratch == NULL)
            abort();
        h->scratch_bytes = bytes;
    }
    return h->scratch;
}

void host_scratch_free(struct device *d)
{
    struct host *h = (struct host *)d;
    free(h->scratch);
    h->scratch = NULL;
    h->scratch_bytes = 0;
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
