/*
 * kernels/cpu/vec_bytes.c - y = W x with 8-bit weights (compiled per instruction set).
 *
 * Bytes are widened to fp32 and multiplied with fp32 x. Within a group of columns a lane adds up
 * byte * x, and x itself; at the group's end (sum of byte * x - 128 * sum of x) times the group's
 * scale goes to the lane's total; at the end of a block of columns the totals are folded into
 * `out`. So neither the 128 nor a scale costs anything a weight.
 *
 * Every output is summed in the same order whatever tile it falls into, as in vec_matrix.c, whose
 * tiles these are: what a lane takes, where groups and blocks end, depends on the matrix alone.
 */
#include "kernels/cpu/simd.h"
#include "kernels/cpu/vec_all.h"
#include "kernels/ops.h"

enum {
#if VL == 16 || defined(__aarch64__)
    TILE_X = 6,     /* 4 x 6 sums; the totals wait in memory */
    TILE_W_ONE = 8, /* rows with one row of x: 8 sums, 8 totals */
#else
    TILE_X = 2,
    TILE_W_ONE = 4,
#endif
    TILE_W = 4,
    LINE = 64,    /* bytes; rows are too short for the machine to see that others follow */
    BLOCK = 1024, /* columns; of 6 rows of x they stay in the first level cache */
};

/* Where the tile's rows lie, and which columns are done. */
struct bytes {
    const uint8_t *w; /* first row, first column of all */
    size_t ldw;
    const char *scale; /* first row, first group */
    size_t lds;        /* bytes of a row of scales */
    enum dtype type;   /* of a scale */
    int group;
};

INLINE float scale_at(const struct bytes *b, int row, int group)
{
    const char *p = b->scale + (size_t)row * b->lds;
    if (b->type == DT_BF16)
        return bf16_to_f32(((const uint16_t *)p)[group]);
    return b->type == DT_F32 ? ((const float *)p)[group] : f16_to_f32(((const uint16_t *)p)[group]);
}

/* n < VL columns from c on, into acc and sum. */
INLINE void rest(vf acc[TILE_W_ONE][TILE_X], vf sum[TILE_X], const struct bytes *b,
                 const float *const *x, int c, int n, const int nw, const int nx)
{
#pragma GCC unroll 6
    for (int i = 0; i < nx; i++) {
        vf v = vf_load_n(x[i] + c, n);
        sum[i] += v;
#pragma GCC unroll 8
        for (int r = 0; r < nw; r++)
            acc[r][i] = vf_fma(vf_from_bytes_n(b->w + (size_t)r * b->ldw + c, n), v, acc[r][i]);
    }
}

/* acc[nw][nx] = sums over the columns c .. end - 1, which are of one group. */
INLINE void run(vf acc[TILE_W_ONE][TILE_X], const struct bytes *b, const float *const *x, int c,
                int end, const int nw, const int nx)
{
    vf a[TILE_W_ONE], sum[TILE_X] = {{0}};
    for (; c + VL <= end; c += VL) {
        if (nx == 1 && c % LINE == 0)
#pragma GCC unroll 8
            for (int r = 0; r < nw; r++)
                __builtin_prefetch(b->w + (size_t)(r + nw) * b->ldw + c);
#pragma GCC unroll 8
        for (int r = 0; r < nw; r++)
            a[r] = vf_from_bytes(b->w + (size_t)r * b->ldw + c);
#pragma GCC unroll 6
        for (int i = 0; i < nx; i++) {
            vf v = vf_load(x[i] + c);
            sum[i] += v;
#pragma GCC unroll 8
            for (int r = 0; r < nw; r++)
                acc[r][i] = vf_fma(a[r], v, acc[r][i]);
        }
    }
    if (c < end)
        rest(acc, sum, b, x, c, end - c, nw, nx);
#pragma GCC unroll 6
    for (int i = 0; i < nx; i++)
#pragma GCC unroll 8
        for (int r = 0; r < nw; r++)
            acc[r][i] = vf_fma(sum[i], vf_all(-128), acc[r][i]);
}

INLINE void put4(float *out, v4 s, int first)
{
    v4 old = {0};
    if (!first)
        memcpy(&old, out, sizeof(old));
    s = first ? s : old + s;
    memcpy(out, &s, sizeof(s));
}

/* One tile of nw x nx outputs over the columns c .. end - 1. */
INLINE void tile(float *out, size_t ldo, const struct bytes *b, const float *const *x, int c,
                 int end, const int nw, const int nx)
{
    vf total[TILE_W_ONE][TILE_X] = {{{0}}};
    int first = c == 0;
    while (c < end) {
        vf acc[TILE_W_ONE][TILE_X] = {{{0}}};
        int g = c / b->group, stop = (g + 1) * b->group;
        stop = stop < end ? stop : end;
        run(acc, b, x, c, stop, nw, nx);
#pragma GCC unroll 8
        for (int r = 0; r < nw; r++) {
            vf s = vf_all(scale_at(b, r, g));
#pragma GCC unroll 6
            for (int i = 0; i < nx; i++)
                total[r][i] = vf_fma(acc[r][i], s, total[r][i]);
        }
        c = stop;
    }
#pragma GCC unroll 6
    for (int i = 0; i < nx; i++) {
        float *o = out + (size_t)i * ldo;
        if (nw == 1) {
            float s = vf_sum(total[0][i]);
            *o = first ? s : *o + s;
            continue;
        }
        put4(o, vf_sum4(total[0][i], total[1][i], total[2][i], total[3][i]), first);
        if (nw == 8) {
            vf(*t)[TILE_X] = &total[nw - 4]; /* the other half */
            put4(o + 4, vf_sum4(t[0][i], t[1][i], t[2][i], t[3][i]), first);
        }
    }
}

/* All tiles of `rows` weight rows with nx rows of x. */
INLINE void tiles(float *out, size_t ldo, struct bytes b, int rows, const float *const *x, int c,
                  int end, const int nx)
{
    const int step = nx == 1 ? TILE_W_ONE : TILE_W;
    int r = 0;
    for (; r + step <= rows; r += step) {
        tile(out + r, ldo, &b, x, c, end, step, nx);
        b.w += (size_t)step * b.ldw;
        b.scale += (size_t)step * b.lds;
    }
    for (; r < rows; r++) {
        tile(out + r, ldo, &b, x, c, end, 1, nx);
        b.w += b.ldw;
        b.scale += b.lds;
    }
}

/* One block of columns; rows of x in tiles of TILE_X. */
INLINE void block(float *out, size_t ldo, const struct bytes *b, int rows, const float *const *x,
                  int n, int c, int end)
{
    for (int i; n > 0; n -= i, x += i, out += (size_t)i * ldo) {
        i = n < TILE_X ? n : TILE_X;
        switch (i) {
        case 1:
            tiles(out, ldo, *b, rows, x, c, end, 1);
            break;
#if VL == 16 || defined(__aarch64__)
        case 2:
            tiles(out, ldo, *b, rows, x, c, end, 2);
            break;
        case 3:
            tiles(out, ldo, *b, rows, x, c, end, 3);
            break;
        case 4:
            tiles(out, ldo, *b, rows, x, c, end, 4);
            break;
        case 5:
            tiles(out, ldo, *b, rows, x, c, end, 5);
            break;
        default:
            tiles(out, ldo, *b, rows, x, c, end, 6);
            break;
#else
        default:
            tiles(out, ldo, *b, rows, x, c, end, 2);
            break;
#endif
        }
    }
}

/* Where the block that begins at column c ends: whole groups, or a part of one large group. */
static int block_end(const struct weight *w, int c)
{
    int end = c + BLOCK / w->group * w->group;
    if (w->group > BLOCK) {
        int stop = (c / w->group + 1) * w->group;
        end = c + BLOCK < stop ? c + BLOCK : stop;
    }
    return end < w->cols ? end : w->cols;
}

void VEC(dots8)(float *out, size_t ldo, const struct weight *w, int row, int rows,
                const void *const *x, int n)
{
    struct bytes b = {.ldw = weight_row_bytes(w), .type = w->scale_type, .group = w->group};
    b.lds = (size_t)weight_groups(w) * dtype_size(w->scale_type);
    b.w = (const uint8_t *)w->data + (size_t)row * b.ldw;
    b.scale = (const char *)w->scale + (size_t)row * b.lds;
    for (int c = 0, end; c < w->cols; c = end) {
        end = block_end(w, c);
        block(out, ldo, &b, rows, (const float *const *)x, n, c, end);
    }
}
