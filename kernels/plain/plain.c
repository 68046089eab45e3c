/*
 * kernels/plain/plain.c - the table of the plain backend.
 */
#include "kernels/plain/plain.h"

#include <errno.h>
#include <stdlib.h>

#include "kernels/compose.h"

static const struct ops plain_ops = {
    .alloc = plain_alloc,
    .release = plain_release,
    .put = plain_put,
    .get = plain_get,
    .mark = plain_mark,
    .get_marked = plain_get,
    .copy = plain_copy,
    .embed = plain_embed,
    .linear = plain_linear,
    .rms_norm = plain_rms_norm,
    .layer_norm = plain_layer_norm,
    .norm_rope = plain_norm_rope,
    .kv_store = plain_kv_store,
    .attend = plain_attend,
    .silu_mul = plain_silu_mul,
    .add = plain_add,
    .scale_add = plain_scale_add,
    .gate_add = plain_gate_add,
    .transpose = plain_transpose,
    .route = plain_route,
    .experts = plain_experts,
    .conv2d = plain_conv2d,
    .conv1d = plain_conv1d,
    .conv1d_depthwise = plain_conv1d_depthwise,
    .conv1d_up = plain_conv1d_up,
    .snake = plain_snake,
    .sample = plain_sample,
    .linears = compose_linears,
    .norm_linear = compose_norm_linear,
    .rope_attend = compose_rope_attend,
    .linear_add = compose_linear_add,
    .norm_swiglu = compose_norm_swiglu,
    .mixture = compose_mixture,
    .embed_sum = compose_embed_sum,
    .advance = plain_advance,
    .step_begin = plain_step_begin,
    .step_end = plain_step_end,
    .step_drop = plain_step_drop,
};

int plain_open(struct device **ret, struct problems *why)
{
    struct host *h = calloc(1, sizeof(*h));
    if (h == NULL)
        return problem_add(why, -ENOMEM, "device plain: no memory left");
    h->d.op = &plain_ops;
    h->d.name = "plain";
    if (host_room_open(&h->scratch, HOST_SCRATCH) < 0) {
        free(h);
        return problem_add(why, -ENOMEM, "device plain: no room for scratch");
    }
    *ret = &h->d;
    return 0;
}

void plain_close(struct device *d)
{
    host_room_close(&((struct host *)d)->scratch);
    free(d);
}
