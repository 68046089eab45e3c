/*
 * kernels/cpu/vec_matrix.c - matrix products, both ways round (compiled per instruction set).
 *
 * `dots` is y = W x as the weights lie: a tile of 4 weight rows times up to 6 rows of x keeps one
 * vector accumulator per output, walks along the columns, and sums each accumulator across at the
 * end. Nothing is packed. A tile with one row of x takes 8 weight rows, so that enough additions
 * and enough memory streams are in flight.
 *
 * Every output is summed in the same order whatever tile it falls into: columns in blocks of
 * DOT_BYTES, lane l of a block taking columns l, l + VL, l + 2 VL ...; lanes folded; blocks added
 * up. That is what makes one row at a time and many rows at once agree bit for bit.
 *
 * `mix` is y += P V with V's rows along the output: attention's values, transposed convolutions.
 * One accumulator vector holds VL neighbouring outputs; keys are added in order, MIX_BLOCK at a
 * time.
 */
#include "kernels/cpu/simd.h"
#include "kernels/cpu/vec_all.h"

enum {
    DOT_BYTES = 64 * 4 * VL, /* of a row of x, summed before the lanes are; see `block` */
#if VL == 16 || defined(__aarch64__)
    TILE_X = 6, /* 4 x 6 accumulators + 4 weights + 1 of 32 registers */
    MIX_ROWS = 6,
    MIX_VECTORS = 4,
#else
    TILE_X = 3, /* 4 x 3 accumulators of 16 registers */
    MIX_ROWS = 4,
    MIX_VECTORS = 2,
#endif
    TILE_W = 4,
    TILE_W_ONE = 8, /* weight rows with one row of x */
    MIX_AHEAD = 16, /* rows of prefetch: the machine does not see that distant rows follow */
};

/* Bytes of one weight and of one x, and elements a vector register takes. */
#define WEIGHT_BYTES(num) ((num) == NUM_F32 ? 4 : 2)
#define PAIRED(num)       ((num) == NUM_PAIR || (num) == NUM_SPLIT)
#define X_BYTES(num)      (PAIRED(num) ? 2 : 4)
#define STEP(num)         (PAIRED(num) ? 2 * VL : VL)

/* A vector of weights as `mac` wants it: widened, or raw pairs of bf16. */
INLINE vf weights(enum number num, const char *p)
{
    if (num == NUM_BF16)
        return vf_from_bf16(vh_load(p));
    if (num == NUM_F16)
        return vf_from_f16(vh_load(p));
    return vf_load(p);
}

INLINE vf pairs_n(const char *p, int n)
{
#if defined(__AVX512BF16__)
    return (vf)_mm512_maskz_loadu_epi16((__mmask32)((1ull << n) - 1), p);
#endif
    uint16_t part[2 * VL] = {0};
    memcpy(part, p, (size_t)n * sizeof(*part));
    return vf_load(part);
}

INLINE vf weights_n(enum number num, const char *p, int n)
{
    if (num == NUM_BF16)
        return vf_from_bf16(vh_load_n(p, n));
    if (num == NUM_F16)
        return vf_from_f16(vh_load_n(p, n));
    return PAIRED(num) ? pairs_n(p, n) : vf_load_n(p, n);
}

INLINE vf mac(enum number num, vf acc, vf w, vf x)
{
#if defined(__AVX512BF16__)
    if (PAIRED(num))
        return (vf)_mm512_dpbf16_ps((__m512)acc, (__m512bh)w, (__m512bh)x);
#endif
    (void)num;
    return vf_fma(w, x, acc);
}

/* Adds (or, first, puts) four sums to out. */
INLINE void put4(float *out, v4 s, int first)
{
    v4 old = {0};
    if (!first)
        memcpy(&old, out, sizeof(old));
    s = first ? s : old + s;
    memcpy(out, &s, sizeof(s));
}

/* One tile of nw x nx outputs over k columns, k <= DOT_BYTES worth. nw, nx and num are constants
 * where this is inlined, so that acc lives in registers. `low`: bytes from a row of x to its low
 * halves (NUM_SPLIT). */
INLINE void tile(float *out, size_t ldo, const enum number num, const char *w, size_t ldw,
                 const char *const *x, size_t low, int k, int first, const int nw, const int nx)
{
    vf acc[TILE_W_ONE][TILE_X] = {{{0}}}, a[TILE_W_ONE];
    int c = 0;
    for (; c + STEP(num) <= k; c += STEP(num)) {
#pragma GCC unroll 8
        for (int r = 0; r < nw; r++)
            a[r] = weights(num, w + (size_t)r * ldw + (size_t)c * WEIGHT_BYTES(num));
#pragma GCC unroll 6
        for (int i = 0; i < nx; i++) {
            vf b = vf_load(x[i] + (size_t)c * X_BYTES(num));
#pragma GCC unroll 8
            for (int r = 0; r < nw; r++)
                acc[r][i] = mac(num, acc[r][i], a[r], b);
            if (num != NUM_SPLIT)
                continue;
            b = vf_load(x[i] + low + (size_t)c * X_BYTES(num));
#pragma GCC unroll 8
            for (int r = 0; r < nw; r++)
                acc[r][i] = mac(num, acc[r][i], a[r], b);
        }
    }
    if (c < k) {
#pragma GCC unroll 6
        for (int i = 0; i < nx; i++) {
            const char *p = x[i] + (size_t)c * X_BYTES(num);
            vf b = PAIRED(num) ? pairs_n(p, k - c) : vf_load_n(p, k - c);
            vf l = num == NUM_SPLIT ? pairs_n(p + low, k - c) : b;
#pragma GCC unroll 8
            for (int r = 0; r < nw; r++) {
                const char *from = w + (size_t)r * ldw + (size_t)c * WEIGHT_BYTES(num);
                vf v = weights_n(num, from, k - c);
                acc[r][i] = mac(num, acc[r][i], v, b);
                if (num == NUM_SPLIT)
                    acc[r][i] = mac(num, acc[r][i], v, l);
            }
        }
    }
#pragma GCC unroll 6
    for (int i = 0; i < nx; i++) {
        float *o = out + (size_t)i * ldo;
        if (nw == 1) {
            float s = vf_sum(acc[0][i]);
            *o = first ? s : *o + s;
            continue;
        }
        put4(o, vf_sum4(acc[0][i], acc[1][i], acc[2][i], acc[3][i]), first);
        if (nw == TILE_W_ONE)
            put4(o + 4, vf_sum4(acc[4][i], acc[5][i], acc[6][i], acc[7][i]), first);
    }
}

/* All tiles of `rows` weight rows with nx rows of x. */
INLINE void tiles(float *out, size_t ldo, const enum number num, const char *w, size_t ldw,
                  int rows, const char *const *x, size_t low, int k, int first, const int nx)
{
    const int step = nx == 1 ? TILE_W_ONE : TILE_W;
    int r = 0;
    for (; r + step <= rows; r += step)
        tile(out + r, ldo, num, w + (size_t)r * ldw, ldw, x, low, k, first, step, nx);
    for (; r < rows; r++)
        tile(out + r, ldo, num, w + (size_t)r * ldw, ldw, x, low, k, first, 1, nx);
}

/* One block of columns; rows of x in tiles of TILE_X. A block of DOT_BYTES spans at most one page
 * of each row: rows a multiple of a page apart share the sets of the first level cache, and 6 rows
 * of x with 4 of weights are what its ways hold. */
INLINE void block(float *out, size_t ldo, const enum number num, const char *w, size_t ldw,
                  int rows, const char *const *x, size_t low, int n, int k, int first)
{
    for (int i; n > 0; n -= i, x += i, out += (size_t)i * ldo) {
        i = n < TILE_X ? n : TILE_X;
        switch (i) {
        case 1:
            tiles(out, ldo, num, w, ldw, rows, x, low, k, first, 1);
            break;
        case 2:
            tiles(out, ldo, num, w, ldw, rows, x, low, k, first, 2);
            break;
        case 3:
            tiles(out, ldo, num, w, ldw, rows, x, low, k, first, 3);
            break;
#if VL == 16 || defined(__aarch64__)
        case 4:
            tiles(out, ldo, num, w, ldw, rows, x, low, k, first, 4);
            break;
        case 5:
            tiles(out, ldo, num, w, ldw, rows, x, low, k, first, 5);
            break;
        default:
            tiles(out, ldo, num, w, ldw, rows, x, low, k, first, 6);
            break;
#endif
        }
    }
}

INLINE void blocks(float *out, size_t ldo, const enum number num, const char *w, size_t ldw,
                   int rows, const void *const *x, int n, int cols)
{
    const char *at[VEC_ROWS];
    const int most = DOT_BYTES / X_BYTES(num);
    for (int c = 0; c < cols; c += most) {
        int k = cols - c < most ? cols - c : most;
        for (int i = 0; i < n; i++)
            at[i] = (const char *)x[i] + (size_t)c * X_BYTES(num);
        block(out, ldo, num, w + (size_t)c * WEIGHT_BYTES(num), ldw, rows, at, (size_t)cols * 2, n,
              k, c == 0);
    }
}

void VEC(dots)(float *out, size_t ldo, enum number num, const void *w, size_t ldw, int rows,
               const void *const *x, int n, int cols)
{
    if (num == NUM_F32)
        blocks(out, ldo, NUM_F32, w, ldw, rows, x, n, cols);
    else if (num == NUM_BF16)
        blocks(out, ldo, NUM_BF16, w, ldw, rows, x, n, cols);
    else if (num == NUM_F16)
        blocks(out, ldo, NUM_F16, w, ldw, rows, x, n, cols);
#if defined(__AVX512BF16__)
    else if (num == NUM_PAIR)
        blocks(out, ldo, NUM_PAIR, w, ldw, rows, x, n, cols);
    else
        blocks(out, ldo, NUM_SPLIT, w, ldw, rows, x, n, cols);
#endif
}

enum { MIX_BLOCK = 128 }; /* keys added into one accumulator before it goes to y */

/* y[nx][nv vectors] += p[nx][keys] v, the last vector having `last` lanes. */
INLINE void mix_tile(float *y, size_t ldy, const float *p, size_t ldp, const char *v, size_t ldv,
                     const enum dtype type, int keys, int last, const int nx, const int nv)
{
    const size_t vector = VL * (type == DT_F32 ? 4 : 2);
    vf acc[MIX_ROWS][MIX_VECTORS] = {{{0}}}, b[MIX_VECTORS];
    for (int j = 0; j < keys; j++, v += ldv) {
#pragma GCC unroll 4
        for (int c = 0; c < nv; c++) {
            const char *from = v + (size_t)c * vector;
            __builtin_prefetch(from + MIX_AHEAD * ldv);
            if (c == nv - 1 && last < VL)
                b[c] = weights_n((enum number)type, from, last);
            else
                b[c] = weights((enum number)type, from);
        }
#pragma GCC unroll 6
        for (int i = 0; i < nx; i++) {
            vf a = vf_all(p[(size_t)i * ldp + (size_t)j]);
#pragma GCC unroll 4
            for (int c = 0; c < nv; c++)
                acc[i][c] = vf_fma(a, b[c], acc[i][c]);
        }
    }
#pragma GCC unroll 6
    for (int i = 0; i < nx; i++)
#pragma GCC unroll 4
        for (int c = 0; c < nv; c++) {
            float *to = y + (size_t)i * ldy + (size_t)c * VL;
            if (c == nv - 1 && last < VL)
                vf_store_n(to, vf_load_n(to, last) + acc[i][c], last);
            else
                vf_store(to, vf_load(to) + acc[i][c]);
        }
}

/* All columns for nx rows: panels of MIX_VECTORS vectors, then single ones. */
INLINE void mix_rows(float *y, size_t ldy, const float *p, size_t ldp, const char *v, size_t ldv,
                     const enum dtype type, int keys, int width, const int nx)
{
    const int size = type == DT_F32 ? 4 : 2;
    int c = 0;
    for (; c + MIX_VECTORS * VL <= width; c += MIX_VECTORS * VL)
        mix_tile(y + c, ldy, p, ldp, v + c * size, ldv, type, keys, VL, nx, MIX_VECTORS);
    for (; c + VL <= width; c += VL)
        mix_tile(y + c, ldy, p, ldp, v + c * size, ldv, type, keys, VL, nx, 1);
    if (c < width)
        mix_tile(y + c, ldy, p, ldp, v + c * size, ldv, type, keys, width - c, nx, 1);
}

/* All rows, in tiles of MIX_ROWS and one of what is left, so that few rows read V once. */
INLINE void mix_type(float *y, size_t ldy, const float *p, size_t ldp, int n, const char *v,
                     size_t ldv, const enum dtype type, int keys, int width)
{
    for (int i; n > 0; n -= i, y += (size_t)i * ldy, p += (size_t)i * ldp) {
        i = n < MIX_ROWS ? n : MIX_ROWS;
        switch (i) {
        case 1:
            mix_rows(y, ldy, p, ldp, v, ldv, type, keys, width, 1);
            break;
        case 2:
            mix_rows(y, ldy, p, ldp, v, ldv, type, keys, width, 2);
            break;
        case 3:
            mix_rows(y, ldy, p, ldp, v, ldv, type, keys, width, 3);
            break;
        case 4:
            mix_rows(y, ldy, p, ldp, v, ldv, type, keys, width, 4);
            break;
#if VL == 16 || defined(__aarch64__)
        case 5:
            mix_rows(y, ldy, p, ldp, v, ldv, type, keys, width, 5);
            break;
        default:
            mix_rows(y, ldy, p, ldp, v, ldv, type, keys, width, 6);
            break;
#endif
        }
    }
}

void VEC(mix)(float *y, size_t ldy, const float *p, size_t ldp, int n, const void *v, size_t ldv,
              enum dtype type, int keys, int width)
{
    const char *from = v;
    for (int j = 0; j < keys; j += MIX_BLOCK, p += MIX_BLOCK, from += MIX_BLOCK * ldv) {
        int k = keys - j < MIX_BLOCK ? keys - j : MIX_BLOCK;
        if (type == DT_F32)
            mix_type(y, ldy, p, ldp, n, from, ldv, DT_F32, k, width);
        else if (type == DT_BF16)
            mix_type(y, ldy, p, ldp, n, from, ldv, DT_BF16, k, width);
        else
            mix_type(y, ldy, p, ldp, n, from, ldv, DT_F16, k, width);
    }
}
