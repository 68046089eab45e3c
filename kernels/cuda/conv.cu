/*
 * kernels/cuda/conv.cu - convolutions, as products of many rows (gemm.cu) with x rounded once to
 * the weights' 16 bits. Convolutions with one output channel are dot products and stay in fp32.
 */
#include "kernels/cuda/conv.cuh"

#include "kernels/cuda/gemm.cuh"
#include "kernels/cuda/math.cuh"
#include "kernels/cuda/mma.cuh"
#include "kernels/cuda/prepare.cuh"

enum { WHOLE = 1 << 30, SIDE = 3, PAD_THREADS = 256 };

/* Can a convolution with `in` channels be a product on the tensor cores? */
static bool fits(const struct weight *w, int in, const float *x)
{
    return (w->type == DT_BF16 || w->type == DT_F16) && in % STEP == 0 &&
           (uintptr_t)x % sizeof(float4) == 0;
}

static struct gemm gemm_of(const void *packed, enum dtype type, int rows, int taps, int in)
{
    struct gemm g = {};
    g.w = packed;
    g.type = type;
    g.rows = rows;
    g.cols = taps * in;
    g.in = in;
    g.per = g.taps_per = WHOLE;
    g.pitch = in;
    return g;
}

void cuda_conv1d(struct device *d, float *y, const float *x, int t, const struct weight *w,
                 const float *bias, int kernel, int dilation, unsigned flags)
{
    struct cuda *c = cuda_of(d);
    int in = w->cols / kernel;
    if (!fits(w, in, x) || w->rows < TILE_M) {
        cuda_conv1d_any(d, y, x, t, w, bias, kernel, dilation, flags);
        return;
    }
    const void *packed = kernel > 1 ? cuda_pack_taps(c, w, kernel) : w->data;
    struct gemm g = gemm_of(packed, w->type, w->rows, kernel, in);
    g.x = x - (long)(kernel - 1) * dilation * in;
    g.tap = (long)dilation * in;
    g.n = t;
    g.y = y;
    g.bias = bias;
    g.bias_rows = w->rows;
    g.flags = flags;
    cuda_gemm(c, &g, X_ROUND);
}

void cuda_conv1d_up(struct device *d, float *y, const float *x, int t, const struct weight *w,
                    const float *bias, int stride, int kernel)
{
    struct cuda *c = cuda_of(d);
    int in = w->rows, out = w->cols / kernel, taps = kernel / stride, rows = stride * out;
    if (!fits(w, in, x)) {
        cuda_conv1d_up_any(d, y, x, t, w, bias, stride, kernel);
        return;
    }
    struct gemm g = gemm_of(cuda_pack_up(c, w, stride, taps), w->type, rows, taps, in);
    g.bias = bias;
    g.bias_rows = out;
    g.x = x - (long)(taps - 1) * in;
    g.tap = in;
    g.n = t;
    g.y = y;
    cuda_gemm(c, &g, X_ROUND);
}

/* to[n, h + 2, w + 2, in] = x rounded to type T, with a border of zeros; a thread a unit. */
template <enum dtype T>
static __global__ void k_pad(uint4 *to, const float *x, size_t count, int h, int w, int units)
{
    size_t i = (size_t)blockIdx.x * PAD_THREADS + threadIdx.x;
    dependents_start();
    dependency_wait();
    if (i >= count)
        return;
    size_t pixel = i / units;
    int col = (int)(pixel % (w + 2)) - 1, row = (int)(pixel / (w + 2) % (h + 2)) - 1;
    size_t image = pixel / (w + 2) / (h + 2);
    uint4 v = make_uint4(0, 0, 0, 0);
    if (row >= 0 && row < h && col >= 0 && col < w) {
        const float4 *p =
            (const float4 *)x + (((image * h + row) * w + col) * units + i % units) * 2;
        operand<1> o = make_operand<T, 1>(p[0], p[1]);
        v = make_uint4(o.part[0][0], o.part[0][1], o.part[0][2], o.part[0][3]);
    }
    to[i] = v;
}

void cuda_conv2d(struct device *d, float *y, const float *x, int n, int h, int w,
                 const struct weight *weight, const float *bias)
{
    struct cuda *c = cuda_of(d);
    int in = weight->cols / (SIDE * SIDE), ho = (h + 1) / 2, wo = (w + 1) / 2;
    size_t image = (size_t)(h + 2) * (w + 2) * in, count = image * n / UNIT;
    if (!fits(weight, in, x)) {
        cuda_conv2d_any(d, y, x, n, h, w, weight, bias);
        return;
    }
    unsigned blocks = (unsigned)((count + PAD_THREADS - 1) / PAD_THREADS);
    uint4 *padded = (uint4 *)cuda_scratch(c, count * sizeof(uint4));
    LAUNCH(c, (weight->type == DT_BF16 ? k_pad<DT_BF16> : k_pad<DT_F16>), blocks, PAD_THREADS, 0,
           padded, x, count, h, w, in / UNIT);
    struct gemm g =
        gemm_of(cuda_pack_square(c, weight, SIDE), weight->type, weight->rows, SIDE * SIDE, in);
    g.per = wo;
    g.taps_per = SIDE;
    g.pitch = 2 * in;
    g.pitch_outer = (long)2 * (w + 2) * in;
    g.tap = in;
    g.tap_outer = (long)(w + 2) * in;
    g.n = ho * wo;
    g.bias = bias;
    g.bias_rows = weight->rows;
    g.flags = LINEAR_GELU;
    for (int i = 0; i < n; i++) {
        g.x = padded + (size_t)i * image / UNIT;
        g.y = y + (size_t)i * ho * wo * weight->rows;
        cuda_gemm(c, &g, X_NARROW);
    }
}
