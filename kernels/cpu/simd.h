/*
 * kernels/cpu/simd.h - one vector of floats, whatever the instruction set.
 *
 * Included only by the vec_*.c files, which are compiled once per instruction set; the flags of the
 * compilation decide what `vf` is. Arithmetic, shifts and comparisons are the compiler's vector
 * extensions (a + b, (vi)a >> 1, a < b), so that only what the language lacks stands here: partial
 * and converting loads, fused multiply-add, sums across a vector.
 *
 *     instruction set   VL   fma           bf16 -> f32        f16 -> f32
 *     avx512[bf16]      16   yes           shift              vcvtph2ps
 *     avx2              8    yes           shift              vcvtph2ps
 *     neon              4    yes           shift              fcvtl
 *     generic           4    mul, add      shift              scalar
 *
 * Sums across a vector have one fixed order, ((l0 + l2) + (l1 + l3)) after folding halves onto each
 * other, in the single and in the four-at-once form alike: results must not depend on which is
 * used.
 */
#ifndef PARLEY_KERNELS_CPU_SIMD_H
#define PARLEY_KERNELS_CPU_SIMD_H

#include <stdint.h>
#include <string.h>

#include "kernels/dtype.h"

#if defined(__AVX2__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#if defined(__AVX512F__)
#define VL 16
#elif defined(__AVX2__)
#define VL 8
#else
#define VL 4
#endif

typedef float vf __attribute__((vector_size(4 * VL)));
typedef int32_t vi __attribute__((vector_size(4 * VL)));
typedef uint32_t vu __attribute__((vector_size(4 * VL)));
typedef uint16_t vh __attribute__((vector_size(2 * VL)));
typedef float v4 __attribute__((vector_size(16)));

#define INLINE static inline __attribute__((always_inline, unused))

INLINE vf vf_load(const void *p)
{
    vf v;
    memcpy(&v, p, sizeof(v));
    return v;
}

INLINE void vf_store(void *p, vf v)
{
    memcpy(p, &v, sizeof(v));
}

INLINE vf vf_all(float x)
{
    return x - (vf){0}; /* a broadcast; x - 0 keeps the sign of -0 */
}

/* The first n < VL elements, zeros behind them. */
INLINE vf vf_load_n(const void *p, int n)
{
#if defined(__AVX512F__)
    return (vf)_mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p);
#else
    vf v = {0};
    memcpy(&v, p, (size_t)n * sizeof(float));
    return v;
#endif
}

INLINE void vf_store_n(void *p, vf v, int n)
{
#if defined(__AVX512F__)
    _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), (__m512)v);
#else
    memcpy(p, &v, (size_t)n * sizeof(float));
#endif
}

/* a * b + c, with one rounding where the machine can */
INLINE vf vf_fma(vf a, vf b, vf c)
{
#if defined(__AVX512F__)
    return (vf)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__AVX2__)
    return (vf)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#elif defined(__aarch64__)
    return (vf)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#else
    return a * b + c;
#endif
}

/* VL 16-bit patterns, or the first n of them with zeros behind. */
INLINE vh vh_load(const void *p)
{
    vh v;
    memcpy(&v, p, sizeof(v));
    return v;
}

INLINE vh vh_load_n(const void *p, int n)
{
#if defined(__AVX512BW__) && defined(__AVX512VL__)
    return (vh)_mm256_maskz_loadu_epi16((__mmask16)((1u << n) - 1), p);
#else
    vh v = {0};
    memcpy(&v, p, (size_t)n * sizeof(uint16_t));
    return v;
#endif
}

INLINE vf vf_from_bf16(vh h)
{
    return (vf)(__builtin_convertvector(h, vu) << 16);
}

INLINE vf vf_from_f16(vh h)
{
#if defined(__AVX512F__)
    return (vf)_mm512_cvtph_ps((__m256i)h);
#elif defined(__AVX2__)
    return (vf)_mm256_cvtph_ps((__m128i)h);
#elif defined(__aarch64__)
    return (vf)vcvt_f32_f16((float16x4_t)h);
#else
    return (vf){f16_to_f32(h[0]), f16_to_f32(h[1]), f16_to_f32(h[2]), f16_to_f32(h[3])};
#endif
}

/* VL bytes, as 0 .. 255. */
INLINE vf vf_from_bytes(const uint8_t *p)
{
#if defined(__AVX512F__)
    return (vf)_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p)));
#elif defined(__AVX2__)
    return (vf)_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)p)));
#else
    uint8_t b __attribute__((vector_size(VL)));
    memcpy(&b, p, sizeof(b));
    return __builtin_convertvector(__builtin_convertvector(b, vi), vf);
#endif
}

/* The first n < VL of them, zeros behind. */
INLINE vf vf_from_bytes_n(const uint8_t *p, int n)
{
    uint8_t part[VL] = {0};
    memcpy(part, p, (size_t)n);
    return vf_from_bytes(part);
}

/* Per lane: mask (all ones or all zeros, as comparisons give) ? a : b */
INLINE vf vf_select(vi mask, vf a, vf b)
{
    return (vf)((mask & (vi)a) | (~mask & (vi)b));
}

INLINE vf vf_max(vf a, vf b)
{
    return vf_select(a > b, a, b);
}

INLINE vf vf_min(vf a, vf b)
{
    return vf_select(a < b, a, b);
}

INLINE vf vf_abs(vf a)
{
    return (vf)((vi)a & 0x7fffffff);
}

/* The halves of a vector folded onto each other until four lanes are left. */
INLINE v4 vf_fold(vf v)
{
#if defined(__AVX512F__)
    __m256 a = (__m256)_mm512_castps512_ps256((__m512)v);
    __m256 b = _mm512_extractf32x8_ps((__m512)v, 1);
    __m256 s = (__m256)((__v8sf)a + (__v8sf)b);
    return (v4)_mm256_castps256_ps128(s) + (v4)_mm256_extractf128_ps(s, 1);
#elif defined(__AVX2__)
    return (v4)_mm256_castps256_ps128((__m256)v) + (v4)_mm256_extractf128_ps((__m256)v, 1);
#else
    return (v4)v;
#endif
}

INLINE float vf_sum(vf v)
{
    v4 s = vf_fold(v);
    return (s[0] + s[2]) + (s[1] + s[3]);
}

/* {sum a, sum b, sum c, sum d} */
INLINE v4 vf_sum4(vf a, vf b, vf c, vf d)
{
    v4 p = vf_fold(a), q = vf_fold(b), r = vf_fold(c), s = vf_fold(d);
    v4 pq02 = __builtin_shufflevector(p, q, 0, 4, 1, 5); /* p0 q0 p1 q1 */
    v4 pq13 = __builtin_shufflevector(p, q, 2, 6, 3, 7); /* p2 q2 p3 q3 */
    v4 rs02 = __builtin_shufflevector(r, s, 0, 4, 1, 5);
    v4 rs13 = __builtin_shufflevector(r, s, 2, 6, 3, 7);
    v4 pq = pq02 + pq13, rs = rs02 + rs13; /* p0+p2 q0+q2 p1+p3 q1+q3 */
    return __builtin_shufflevector(pq, rs, 0, 1, 4, 5) +
           __builtin_shufflevector(pq, rs, 2, 3, 6, 7);
}

/* 2^k for whole k in -126..127, given as a float */
INLINE vf vf_pow2(vf k)
{
    return (vf)((__builtin_convertvector(k, vi) + 127) << 23);
}

/* The nearest whole number, for |x| < 2^22: adding 1.5 * 2^23 leaves no room for a fraction. */
INLINE vf vf_round(vf x)
{
    return (x + 0x1.8p23f) - 0x1.8p23f;
}

/* exp(x) to about 1e-7 relative; x below -87.3 gives 1.2e-38, above 88 gives 1.6e38.
 * x = k ln 2 + r, |r| <= 0.35, exp(r) by its series to r^7 / 7!. ln 2 is split so that k * high is
 * exact. */
INLINE vf vf_exp(vf x)
{
    x = vf_min(vf_max(x, vf_all(-87.3f)), vf_all(88.0f));
    vf k = vf_round(x * 1.44269504f);
    vf r = vf_fma(k, vf_all(-0x1.62ep-1f), x);
    r = vf_fma(k, vf_all(-0x1.0bfbe8p-15f), r);
    vf p = vf_all(1.0f / 5040);
    p = vf_fma(p, r, vf_all(1.0f / 720));
    p = vf_fma(p, r, vf_all(1.0f / 120));
    p = vf_fma(p, r, vf_all(1.0f / 24));
    p = vf_fma(p, r, vf_all(1.0f / 6));
    p = vf_fma(p, r, vf_all(0.5f));
    p = vf_fma(p * r, r, r);
    return (p + 1.0f) * vf_pow2(k);
}

/* x sigmoid(x) */
INLINE vf vf_silu(vf x)
{
    return x / (vf_exp(-x) + 1.0f);
}

/* gelu(x) = x Phi(x), exact form. With s = |x| and a = s / sqrt 2,
 *     Phi(-s) = erfc(a) / 2 = exp(-s^2 / 2) E(t) / 2,   t = 1 / (1 + 0.3 a),
 * where E, a polynomial fitted to exp(a^2) erfc(a) on 0 <= a <= 9.5, is within 2e-8 relative.
 * Phi(s) is 1 - Phi(-s). Being relative to Phi(-s), the error does not grow for negative x. */
INLINE vf vf_gelu(vf x)
{
    static const float e[9] = {0.16918961f, 0.17069195f,  0.14848235f, 0.21443656f, -0.09363188f,
                               0.54639592f, -0.51122719f, 0.4850968f,  -0.12943415f};
    vf s = vf_abs(x), t = 1.0f / (s * 0.21213203f + 1.0f), p = vf_all(e[8]);
    for (int i = 7; i >= 0; i--)
        p = vf_fma(p, t, vf_all(e[i]));
    vf tail = p * t * vf_exp(s * s * -0.5f) * 0.5f;
    return x * vf_select(x < 0, tail, 1.0f - tail);
}

/* sin(x)^2 for |x| <= 8192, within 2e-7. Its period is pi: r = x - k pi, |r| <= pi/2, with pi in
 * three parts of which the first two times k are exact; sin(r) = r + r^3 P(r^2), P fitted. */
INLINE vf vf_sin_squared(vf x)
{
    vf k = vf_round(x * 0.318309886f);
    vf r = vf_fma(k, vf_all(-0x1.92p+1f), x);
    r = vf_fma(k, vf_all(-0x1.fb4p-11f), r);
    r = vf_fma(k, vf_all(-0x1.4442d2p-23f), r);
    vf q = r * r, p = vf_all(-2.3845515e-8f);
    p = vf_fma(p, q, vf_all(2.7522550e-6f));
    p = vf_fma(p, q, vf_all(-1.98408026e-4f));
    p = vf_fma(p, q, vf_all(8.3333305e-3f));
    p = vf_fma(p, q, vf_all(-0.166666666f));
    vf s = vf_fma(p * q, r, r);
    return s * s;
}

/* f32 -> bf16 in the high halves of 32 bits: nearest, ties to even; NaN stays NaN. */
INLINE vu vf_round_bf16(vf x)
{
    vu u = (vu)x;
    vu nearest = u + 0x7fffu + (u >> 16 & 1u), quiet = u | 0x400000u;
    vu nan = (vu)(x != x);
    return ((nan & quiet) | (~nan & nearest)) >> 16;
}

#endif
