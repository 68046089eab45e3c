/*
 * kernels/dtype.h - the number formats of stored weights and their exact conversions.
 *
 * Activations are always fp32; only what lies on disk (and the KV cache) is narrower. I8 is no
 * number by itself: a byte means (byte - 128) times the scale of its group, which struct weight
 * keeps beside the bytes. A new weight format (int4, NVFP4) gets a line here and a row reader in
 * every backend.
 */
#ifndef PARLEY_KERNELS_DTYPE_H
#define PARLEY_KERNELS_DTYPE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum dtype {
    DT_F32,
    DT_BF16,
    DT_F16,
    DT_FLOATS, /* those before stand for themselves: dtype_read, dtype_write, vectors, caches */
    DT_I8 = DT_FLOATS,
    DT_COUNT
};

static inline size_t dtype_size(enum dtype t)
{
    static const unsigned char size[DT_COUNT] = {4, 2, 2, 1};
    return size[t];
}

static inline const char *dtype_name(enum dtype t)
{
    static const char *const names[DT_COUNT] = {"F32", "BF16", "F16", "I8"};
    return names[t];
}

static inline float bf16_to_f32(uint16_t h)
{
    uint32_t u = (uint32_t)h << 16;
    float f;
    memcpy(&f, &u, sizeof(f));
    return f;
}

/* Round to nearest, ties to even; NaN stays NaN. */
static inline uint16_t f32_to_bf16(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof(u));
    if ((u & 0x7fffffffu) > 0x7f800000u)
        return (uint16_t)(u >> 16 | 0x40u);
    return (uint16_t)((u + 0x7fffu + (u >> 16 & 1u)) >> 16);
}

float f16_to_f32(uint16_t h);
uint16_t f32_to_f16(float f); /* round to nearest, ties to even; overflow gives infinity */

/* Element `i` of an array of type `t`, which is one of the DT_FLOATS. */
float dtype_read(enum dtype t, const void *data, size_t i);
void dtype_write(enum dtype t, void *data, size_t i, float value);

#endif
