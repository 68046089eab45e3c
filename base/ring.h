/*
 * base/ring.h - a ring between two threads: one produces, one consumes, neither ever waits.
 *
 * Elements have one fixed size, anything from a sample (float) to a record. Positions are absolute
 * counts of elements since the start, 64 bits, so that "sample number n" means the same on both
 * sides and for ever; the place in memory is the position modulo the capacity, a power of two.
 * Nothing is allocated, locked or looped over without bound after ring_open, whose memory is
 * touched already: both sides may be real-time threads.
 *
 * A full ring refuses the newest elements; the producer counts them (ring_lost) and goes on. Who
 * must keep a gapless time line notes how many were refused and later writes as much silence.
 *
 * Threads: the functions named write belong to the producer, those named read to the consumer; the
 * others may be called by both, and by onlookers.
 */
#ifndef PARLEY_BASE_RING_H
#define PARLEY_BASE_RING_H

#include <stddef.h>
#include <stdint.h>

struct ring;

/* A ring of at least `capacity` elements (rounded up to a power of two) of `size` bytes, whose
 * first element has position `start`. 0; -EINVAL for nothing or too much; -ENOMEM. */
int ring_open(struct ring **ret, size_t size, size_t capacity, uint64_t start);

/* Appends up to `n` elements and returns how many found room; the rest is counted as lost. */
size_t ring_write(struct ring *r, const void *elements, size_t n);

/* Elements that ring_write is sure to take. */
size_t ring_write_room(const struct ring *r);

/* Without a copy: room for up to `n` elements in one piece (less at the end of the memory), then
 * what of it was filled. Returns the number of elements at *elements, 0 when full. */
size_t ring_write_begin(struct ring *r, void **elements, size_t n);
void ring_write_end(struct ring *r, size_t n);

/* Takes up to `n` elements and returns how many there were. */
size_t ring_read(struct ring *r, void *elements, size_t n);

/* Elements that ring_read is sure to give. */
size_t ring_read_avail(const struct ring *r);

/* Without a copy, as for writing. The elements stay the consumer's until ring_read_end. */
size_t ring_read_begin(struct ring *r, const void **elements, size_t n);
void ring_read_end(struct ring *r, size_t n);

/* Throws away unread elements before position `to`; those that are not there yet stay to come.
 * Returns how many were thrown away. */
size_t ring_read_skip(struct ring *r, uint64_t to);

/* The position of the next element to be written, and to be read. */
uint64_t ring_write_at(const struct ring *r);
uint64_t ring_read_at(const struct ring *r);

/* Elements refused so far. */
uint64_t ring_lost(const struct ring *r);

size_t ring_capacity(const struct ring *r);

void ring_close(struct ring *r); /* NULL is legal; both sides have ended */

#endif
