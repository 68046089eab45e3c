/*
 * kernels/cpu/cpu.c - the CPU backend's table, and the choice of the instruction set.
 *
 * Ops that are never hot are the plain ones.
 */
#include "kernels/cpu/cpu.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/thread.h"
#include "base/util.h"
#include "kernels/compose.h"

enum { TURNS_ROOM = 1 << 26 }; /* a prompt of 100,000 positions at once */

static const struct ops cpu_ops = {
    .alloc = plain_alloc,
    .release = plain_release,
    .put = plain_put,
    .get = plain_get,
    .mark = plain_mark,
    .get_marked = plain_get,
    .copy = plain_copy,
    .embed = cpu_embed,
    .linear = cpu_linear,
    .rms_norm = cpu_rms_norm,
    .layer_norm = cpu_layer_norm,
    .norm_rope = cpu_norm_rope,
    .kv_store = cpu_kv_store,
    .attend = cpu_attend,
    .silu_mul = cpu_silu_mul,
    .add = cpu_add,
    .scale_add = cpu_scale_add,
    .gate_add = cpu_gate_add,
    .transpose = plain_transpose,
    .route = cpu_route,
    .experts = cpu_experts,
    .conv2d = cpu_conv2d,
    .conv1d = cpu_conv1d,
    .conv1d_depthwise = cpu_conv1d_depthwise,
    .conv1d_up = cpu_conv1d_up,
    .snake = cpu_snake,
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

#if defined(__x86_64__)
extern const struct vec vec_avx512bf16, vec_avx512, vec_avx2;
#elif defined(__aarch64__)
extern const struct vec vec_neon;
#endif
extern const struct vec vec_generic;

const struct vec *vec_available(int i)
{
#if defined(__x86_64__)
    int avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    int avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                 __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
    if (avx512 && __builtin_cpu_supports("avx512bf16") && i-- == 0)
        return &vec_avx512bf16;
    if (avx512 && i-- == 0)
        return &vec_avx512;
    if (avx2 && i-- == 0)
        return &vec_avx2;
#elif defined(__aarch64__)
    if (i-- == 0) /* part of the architecture */
        return &vec_neon;
#endif
    return i == 0 ? &vec_generic : NULL;
}

const struct vec *vec_find(const char *name)
{
    const struct vec *v;
    for (int i = 0; (v = vec_available(i)) != NULL; i++)
        if (name == NULL || strcmp(v->name, name) == 0)
            return v;
    return NULL;
}

int cpu_open(struct device **ret, const char *isa, int threads, struct problems *why)
{
    struct cpu *c = calloc(1, sizeof(*c));
    threads = threads > 0 ? threads : thread_cpus();
    int err = c != NULL ? host_room_open(&c->host.scratch, HOST_SCRATCH) : -ENOMEM;
    if (err == 0)
        err = host_room_open(&c->turns.room, TURNS_ROOM);
    if (err < 0) {
        cpu_close((struct device *)c);
        return problem_add(why, err, "device cpu: no memory");
    }
    err = pool_open(&c->pool, threads);
    if (err < 0) {
        cpu_close((struct device *)c);
        return problem_add(why, err, "device cpu: %d threads could not be started: %s", threads,
                           strerror(-err));
    }
    c->vec = vec_find(isa);
    c->host.d.op = &cpu_ops;
    c->host.d.name = c->name;
    snprintf(c->name, sizeof(c->name), "cpu %s, %d thread%s", c->vec->name, threads,
             threads == 1 ? "" : "s");
    *ret = &c->host.d;
    return 0;
}

void cpu_close(struct device *d)
{
    struct cpu *c = (struct cpu *)d;
    if (c == NULL)
        return;
    pool_close(c->pool);
    host_room_close(&c->turns.room);
    host_room_close(&c->host.scratch);
    free(c);
}
