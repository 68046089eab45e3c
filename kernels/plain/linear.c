/*
 * kernels/plain/linear.c - embedding rows, matrix products, mixtures of experts.
 *
 * Weight rows are widened to fp32 one at a time; products are summed in double.
 */
#include "kernels/plain/plain.h"

#include <math.h>

/* sum of a[i] * b[i] */
double plain_dot(const float *a, const float *b, size_t n)
{
    double s = 0;
    for (size_t i = 0; i < n; i++)
        s += (double)a[i] * b[i];
    return s;
}

/* x Phi(x), the exact gelu */
float plain_gelu(float x)
{
    return (float)(0.5 * x * (1 + erf(x * M_SQRT1_2)));
}

/* x sigmoid(x) */
float plain_silu(float x)
{
    return (float)(x / (1 + exp(-(double)x)));
}

/* scale[row][i / group] * (byte - 128) */
static void row_of_bytes(float *out, const struct weight *w, size_t row)
{
    const unsigned char *bytes = (const unsigned char *)w->data + row * weight_row_bytes(w);
    size_t groups = (size_t)weight_groups(w), group = (size_t)w->group;
    for (size_t i = 0; i < (size_t)w->cols; i++)
        out[i] =
            dtype_read(w->scale_type, w->scale, row * groups + i / group) * (float)(bytes[i] - 128);
}

/* out[cols] = row `row` of w */
void plain_row(float *out, const struct weight *w, size_t row)
{
    size_t cols = (size_t)w->cols;
    if (w->type == DT_I8) {
        row_of_bytes(out, w, row);
        return;
    }
    for (size_t i = 0; i < cols; i++)
        out[i] = dtype_read(w->type, w->data, row * cols + i);
}

void plain_embed(struct device *d, float *y, const struct weight *table, const int32_t *ids, int n,
                 int add)
{
    float *row = host_scratch(d, (size_t)table->cols * sizeof(float));
    for (int i = 0; i < n; i++) {
        plain_row(row, table, (size_t)ids[i]);
        for (int j = 0; j < table->cols; j++, y++)
            *y = add ? *y + row[j] : row[j];
    }
}

static float activate(float x, unsigned flags)
{
    if (flags & LINEAR_GELU)
        return plain_gelu(x);
    if (flags & LINEAR_SILU)
        return plain_silu(x);
    return x;
}

/* Like plain_linear, with row[cols] for the widened weights. */
static void product(float *y, const float *x, int n, const struct weight *w, const float *bias,
                    unsigned flags, float *row)
{
    size_t rows = (size_t)w->rows, cols = (size_t)w->cols;
    for (size_t r = 0; r < rows; r++) {
        plain_row(row, w, r);
        for (size_t i = 0; i < (size_t)n; i++) {
            double sum = plain_dot(row, x + i * cols, cols) + (bias ? bias[r] : 0);
            float v = activate((float)sum, flags);
            y[i * rows + r] = flags & LINEAR_ADD ? y[i * rows + r] + v : v;
        }
    }
}

void plain_linear(struct device *d, float *y, const float *x, int n, const struct weight *w,
                  const float *bias, unsigned flags)
{
    product(y, x, n, w, bias, flags, host_scratch(d, (size_t)w->cols * sizeof(float)));
}

/* y[hidden] += weight * down(silu(gate x) * (up x)); scratch[4 * max(hidden, inner)] */
static void expert(float *y, const float *x, const struct expert *e, float weight, float *scratch)
{
    int hidden = e->down.rows, inner = e->gate.rows;
    size_t stride = (size_t)(hidden > inner ? hidden : inner);
    float *gate = scratch + stride, *up = gate + stride, *out = up + stride;
    product(gate, x, 1, &e->gate, NULL, LINEAR_SILU, scratch);
    product(up, x, 1, &e->up, NULL, 0, scratch);
    for (int i = 0; i < inner; i++)
        gate[i] *= up[i];
    product(out, gate, 1, &e->down, NULL, 0, scratch);
    for (int i = 0; i < hidden; i++)
        y[i] += weight * out[i];
}

void plain_experts(struct device *d, float *y, const float *x, int n, const struct expert *e,
                   int experts, const int32_t *ids, const float *weights, int k)
{
    (void)experts;
    int hidden = e->down.rows, inner = e->gate.rows;
    size_t stride = (size_t)(hidden > inner ? hidden : inner);
    float *scratch = host_scratch(d, 4 * stride * sizeof(float));
    for (size_t i = 0; i < (size_t)n; i++)
        for (size_t j = i * (size_t)k; j < (i + 1) * (size_t)k; j++)
            expert(y + i * (size_t)hidden, x + i * (size_t)hidden, &e[ids[j]], weights[j], scratch);
}
