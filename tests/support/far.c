/* tests/support/far.c - see far.h. */
#include "tests/support/far.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "model/source.h"

struct lane {
    struct far *far;
    size_t bytes;
    unsigned char *buffer[2];
    int last;
};

static bool far_memory(struct device *d, size_t *total, size_t *unused)
{
    const struct far *f = (const struct far *)d;
    *total = f->total;
    *unused = f->total - f->cached;
    return f->integrated;
}

static struct lane *far_lane_open(struct device *d, size_t bytes)
{
    struct far *f = (struct far *)d;
    int number = __atomic_add_fetch(&f->opened, 1, __ATOMIC_SEQ_CST);
    if (number == f->fail_at)
        return NULL;
    struct lane *l = calloc(1, sizeof(*l));
    l->far = f;
    l->bytes = bytes;
    l->buffer[0] = malloc(bytes);
    l->buffer[1] = malloc(bytes);
    __atomic_add_fetch(&f->lanes, 1, __ATOMIC_SEQ_CST);
    return l;
}

/* What was there before must have been copied already: it is destroyed. */
static void *far_lane_buffer(struct lane *l)
{
    l->last ^= 1;
    memset(l->buffer[l->last], 0xa5, l->bytes);
    return l->buffer[l->last];
}

static void far_lane_copy(struct lane *l, void *dst, const void *part, size_t bytes)
{
    const unsigned char *from = part;
    assert_true(from >= l->buffer[l->last] && from + bytes <= l->buffer[l->last] + l->bytes);
    memcpy(dst, part, bytes);
    __atomic_add_fetch(&l->far->copies, 1, __ATOMIC_SEQ_CST);
    __atomic_add_fetch(&l->far->bytes, bytes, __ATOMIC_SEQ_CST);
}

static void far_lane_close(struct lane *l)
{
    __atomic_sub_fetch(&l->far->lanes, 1, __ATOMIC_SEQ_CST);
    free(l->buffer[0]);
    free(l->buffer[1]);
    free(l);
}

/* The generator once more, as a GPU counts it: every number by its own index. */
static void far_random(struct device *d, void *dst, enum dtype type, const float *table, float mean,
                       float deviation, uint64_t seed, size_t count)
{
    (void)d;
    for (size_t i = 0; i < count; i++) {
        uint64_t within = i % RANDOM_BLOCK;
        uint64_t z = seed + i / RANDOM_BLOCK * UINT64_C(0xd1342543de82ef95);
        z += (within / 5 + 1) * UINT64_C(0x9e3779b97f4a7c15);
        z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
        z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
        z ^= z >> 31;
        dtype_write(type, dst, i, mean + deviation * table[z >> within % 5 * 12 & 4095]);
    }
}

static const struct loading far_loading = {
    .types = 1u << DT_F32 | 1u << DT_BF16 | 1u << DT_F16 | 1u << DT_I8,
    .memory = far_memory,
    .lane_open = far_lane_open,
    .lane_buffer = far_lane_buffer,
    .lane_copy = far_lane_copy,
    .lane_close = far_lane_close,
    .random = far_random,
};

void far_open(struct far *f)
{
    struct device *plain;
    *f = (struct far){.total = (size_t)1 << 30};
    assert_int_equal(plain_open(&plain, NULL), 0);
    f->host.d = (struct device){.op = plain->op, .name = "far", .load = &far_loading};
    device_close(plain);
}

void far_close(struct far *f)
{
    assert_int_equal(f->lanes, 0);
    host_room_close(&f->host.scratch);
}
