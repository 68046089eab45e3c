/*
 * base/ring.c - a ring between two threads.
 *
 * `head` is the position behind the last written element, `tail` that of the next unread one; both
 * only grow (and may wrap around 2^64), so head - tail is what is in the ring, 0 ... capacity,
 * without a flag for full. Each is stored by one side alone: with release, after the elements have
 * been written or read, and loaded by the other with acquire, before it touches them. They lie in
 * cache lines of their own, so that the sides do not slow each other.
 */
#include "base/ring.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"

enum { LINE = 64 }; /* bytes of a cache line */

struct ring {
    unsigned char *memory; /* [capacity, size] */
    size_t size, capacity;
    _Alignas(LINE) _Atomic uint64_t head; /* stored by the producer */
    _Atomic uint64_t lost;                /* likewise */
    _Alignas(LINE) _Atomic uint64_t tail; /* stored by the consumer */
};

int ring_open(struct ring **ret, size_t size, size_t capacity, uint64_t start)
{
    size_t n = 1, bytes;
    if (size == 0 || capacity == 0 || capacity > SIZE_MAX / 2 + 1)
        return -EINVAL;
    while (n < capacity)
        n *= 2;
    if (!mul_size(n, size, &bytes) || bytes > SIZE_MAX - LINE)
        return -EINVAL;
    struct ring *r = aligned_alloc(LINE, sizeof(*r)); /* a multiple of its alignment */
    if (r == NULL)
        return -ENOMEM;
    r->memory = aligned_alloc(LINE, (bytes + LINE - 1) / LINE * LINE);
    if (r->memory == NULL) {
        free(r);
        return -ENOMEM;
    }
    /* Touched now: no page fault in a real-time thread. Of malloc and memset the compiler makes
       calloc, which touches nothing. */
    memset(r->memory, 0, bytes);
    r->size = size;
    r->capacity = n;
    atomic_init(&r->head, start);
    atomic_init(&r->tail, start);
    atomic_init(&r->lost, 0);
    *ret = r;
    return 0;
}

void ring_close(struct ring *r)
{
    if (r == NULL)
        return;
    free(r->memory);
    free(r);
}

static unsigned char *place(const struct ring *r, uint64_t position)
{
    return r->memory + (size_t)(position & (r->capacity - 1)) * r->size;
}

/* Elements from `position` to the end of the memory. */
static size_t in_one_piece(const struct ring *r, uint64_t position)
{
    return r->capacity - (size_t)(position & (r->capacity - 1));
}

size_t ring_write_room(const struct ring *r)
{
    uint64_t head = atomic_load_explicit(&r->head, memory_order_relaxed);
    uint64_t tail = atomic_load_explicit(&r->tail, memory_order_acquire);
    return r->capacity - (size_t)(head - tail);
}

size_t ring_write_begin(struct ring *r, void **elements, size_t n)
{
    uint64_t head = atomic_load_explicit(&r->head, memory_order_relaxed);
    *elements = place(r, head);
    return min_size(n, min_size(ring_write_room(r), in_one_piece(r, head)));
}

void ring_write_end(struct ring *r, size_t n)
{
    uint64_t head = atomic_load_explicit(&r->head, memory_order_relaxed);
    atomic_store_explicit(&r->head, head + n, memory_order_release);
}

size_t ring_write(struct ring *r, const void *elements, size_t n)
{
    uint64_t head = atomic_load_explicit(&r->head, memory_order_relaxed);
    size_t fits = min_size(n, ring_write_room(r));
    size_t first = min_size(fits, in_one_piece(r, head));
    if (first > 0)
        memcpy(place(r, head), elements, first * r->size);
    if (fits > first)
        memcpy(r->memory, (const unsigned char *)elements + first * r->size,
               (fits - first) * r->size);
    ring_write_end(r, fits);
    if (fits < n) {
        uint64_t lost = atomic_load_explicit(&r->lost, memory_order_relaxed);
        atomic_store_explicit(&r->lost, lost + (n - fits), memory_order_relaxed);
    }
    return fits;
}

size_t ring_read_avail(const struct ring *r)
{
    uint64_t head = atomic_load_explicit(&r->head, memory_order_acquire);
    uint64_t tail = atomic_load_explicit(&r->tail, memory_order_relaxed);
    return (size_t)(head - tail);
}

size_t ring_read_begin(struct ring *r, const void **elements, size_t n)
{
    uint64_t tail = atomic_load_explicit(&r->tail, memory_order_relaxed);
    *elements = place(r, tail);
    return min_size(n, min_size(ring_read_avail(r), in_one_piece(r, tail)));
}

void ring_read_end(struct ring *r, size_t n)
{
    uint64_t tail = atomic_load_explicit(&r->tail, memory_order_relaxed);
    atomic_store_explicit(&r->tail, tail + n, memory_order_release);
}

size_t ring_read(struct ring *r, void *elements, size_t n)
{
    uint64_t tail = atomic_load_explicit(&r->tail, memory_order_relaxed);
    size_t there = min_size(n, ring_read_avail(r));
    size_t first = min_size(there, in_one_piece(r, tail));
    if (first > 0)
        memcpy(elements, place(r, tail), first * r->size);
    if (there > first)
        memcpy((unsigned char *)elements + first * r->size, r->memory, (there - first) * r->size);
    ring_read_end(r, there);
    return there;
}

size_t ring_read_skip(struct ring *r, uint64_t to)
{
    uint64_t tail = atomic_load_explicit(&r->tail, memory_order_relaxed);
    int64_t wanted = (int64_t)(to - tail);
    size_t n = wanted > 0 ? min_size((size_t)wanted, ring_read_avail(r)) : 0;
    ring_read_end(r, n);
    return n;
}

/* By an onlooker too: with acquire, so that what was told of it elsewhere is in order. */
uint64_t ring_write_at(const struct ring *r)
{
    return atomic_load_explicit(&r->head, memory_order_acquire);
}

uint64_t ring_read_at(const struct ring *r)
{
    return atomic_load_explicit(&r->tail, memory_order_acquire);
}

uint64_t ring_lost(const struct ring *r)
{
    return atomic_load_explicit(&r->lost, memory_order_relaxed);
}

size_t ring_capacity(const struct ring *r)
{
    return r->capacity;
}
