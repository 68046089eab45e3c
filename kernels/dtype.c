/*
 * kernels/dtype.c - half precision in plain integer arithmetic, and element access by type.
 *
 * The vector kernels convert whole rows with instructions; what stands here defines what those must
 * give, and serves tables, tests and the plain backend.
 */
#include "kernels/dtype.h"

static float from_bits(uint32_t u)
{
    float f;
    memcpy(&f, &u, sizeof(f));
    return f;
}

static uint32_t to_bits(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof(u));
    return u;
}

/* f16 is sign, 5 bits of exponent (bias 15), 10 bits of fraction; f32 has bias 127 and 23 bits. */
float f16_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16;
    uint32_t exponent = h >> 10 & 31u, fraction = h & 0x3ffu;
    if (exponent == 31) /* infinity, or a NaN, which becomes quiet */
        return from_bits(sign | 0x7f800000u | fraction << 13 | (fraction ? 0x400000u : 0));
    if (exponent == 0) { /* zero and subnormals: fraction * 2^-24 is exact in f32 */
        float f = (float)fraction * 0x1p-24f;
        return sign ? -f : f;
    }
    return from_bits(sign | (exponent + 112) << 23 | fraction << 13);
}

uint16_t f32_to_f16(float f)
{
    uint32_t u = to_bits(f), sign = u >> 16 & 0x8000u;
    u &= 0x7fffffffu;
    if (u > 0x7f800000u)
        return (uint16_t)(sign | 0x7e00u | (u >> 13 & 0x3ffu));
    if (u >= 0x477ff000u) /* 65520 and above round to infinity */
        return (uint16_t)(sign | 0x7c00u);
    if (u < 0x38800000u) /* below 2^-14: adding 0.5 leaves units of 2^-24 in the low bits */
        return (uint16_t)(sign | (to_bits(from_bits(u) + 0.5f) - to_bits(0.5f)));
    u += 0xfffu + (u >> 13 & 1u);
    return (uint16_t)(sign | ((u - (112u << 23)) >> 13));
}

float dtype_read(enum dtype t, const void *data, size_t i)
{
    if (t == DT_F32)
        return ((const float *)data)[i];
    uint16_t h = ((const uint16_t *)data)[i];
    return t == DT_BF16 ? bf16_to_f32(h) : f16_to_f32(h);
}

void dtype_write(enum dtype t, void *data, size_t i, float value)
{
    if (t == DT_F32)
        ((float *)data)[i] = value;
    else
        ((uint16_t *)data)[i] = t == DT_BF16 ? f32_to_bf16(value) : f32_to_f16(value);
}
