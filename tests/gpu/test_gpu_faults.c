/*
 * tests/gpu/test_gpu_faults.c - what goes wrong with a GPU, without one: a fault ends the process
 * at once with expression, file and line; what can be refused is refused with a sentence.
 *
 * The CUDA backend runs unchanged on a runtime that fails when it is told to (runtime_stub.h).
 */
#include <cuda_runtime_api.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/util.h"
#include "daemon/session.h"
#include "tests/gpu/runtime_stub.h"
#include "tests/support/flatten.h"
#include "tests/support/tiny.h"

#define SHAPE   SOURCE_DIR "/tests/golden/heads"
#define HANG_MS 300
#define FAULT   3 /* exit status */

static struct device *open_gpu(void)
{
    struct device *d = NULL;
    const struct device_opts o = {.name = "cuda", .hang_ms = HANG_MS};
    assert_int_equal(device_open(&d, &o, NULL), 0);
    return d;
}

/* What a program may be doing when it happens. */
static void use_memory(void)
{
    struct device *d = open_gpu();
    char bytes[100] = "x";
    void *p = d->op->alloc(d, sizeof(bytes));
    stub.after += stub.call != NULL && strcmp(stub.call, "cudaMalloc") == 0;
    d->op->put(d, p, bytes, sizeof(bytes));
    d->op->get(d, bytes, p, sizeof(bytes));
}

static void use_kernels(void)
{
    struct device *d = open_gpu();
    float *x = d->op->alloc(d, 64 * sizeof(float)), y;
    d->op->add(d, x, x, 64);
    d->op->get(d, &y, x, sizeof(y));
}

static void use_steps(void)
{
    struct device *d = open_gpu();
    float *x = d->op->alloc(d, 64 * sizeof(float));
    struct step *step = NULL;
    for (int i = 0; i < 3; i++)
        if (d->op->step_begin(d, &step)) {
            d->op->add(d, x, x, 64);
            d->op->step_end(d, &step);
        }
}

static void load_weights(void)
{
    struct session s;
    const struct session_opts o = {.dir = SHAPE, .device = "cuda", .temperature = -1};
    struct problems why = {0};
    int err = session_open(&s, &o, &why);
    for (size_t i = 0; i < why.n; i++)
        fprintf(stderr, "%s\n", why.text[i]);
    exit(err < 0 ? 1 : 0);
}

/* A lane by itself, whose copies never arrive. */
static void use_lane(void)
{
    struct device *d = open_gpu();
    struct lane *l = d->load->lane_open(d, 1 << 16);
    stub.hang = true;
    d->load->lane_buffer(l);
}

static void hang_in_get(void)
{
    struct device *d = open_gpu();
    float *x = d->op->alloc(d, 64), y;
    stub.hang = true;
    d->op->get(d, &y, x, sizeof(y));
}

/* Much is begun, each piece shorter than a hang, all of it longer. */
static void wait_long(void)
{
    struct device *d = open_gpu();
    float *x = d->op->alloc(d, 64), y = 1;
    stub.pace_ms = HANG_MS / 2;
    for (int i = 0; i < 5; i++)
        d->op->put(d, x, &y, sizeof(y));
    d->op->get(d, &y, x, sizeof(y));
}

struct end {
    int status; /* exit status, or -1 when a signal ended it */
    double seconds;
    char text[4096]; /* of standard error */
};

/* Runs `work` in a process of its own. */
static struct end run(const struct stub *how, void (*work)(void))
{
    struct end e = {.status = -1};
    int pipe_fd[2], status;
    fflush(NULL);
    assert_int_equal(pipe(pipe_fd), 0);
    double start = clock_seconds();
    pid_t pid = fork();
    if (pid == 0) {
        stub = *how;
        dup2(pipe_fd[1], STDERR_FILENO);
        close(pipe_fd[0]);
        work();
        _exit(0);
    }
    close(pipe_fd[1]);
    for (ssize_t n, at = 0;
         (n = read(pipe_fd[0], e.text + at, sizeof(e.text) - 1 - (size_t)at)) > 0;)
        at += n;
    close(pipe_fd[0]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    e.seconds = clock_seconds() - start;
    if (WIFEXITED(status))
        e.status = WEXITSTATUS(status);
    return e;
}

static const struct fault {
    void (*work)(void);
    struct stub how;
    const char *words[3]; /* on standard error: expression, file, error */
} faults[] = {
    {use_memory,
     {.call = "cudaMemcpyAsync", .error = cudaErrorMemoryAllocation},
     {"cudaMemcpyAsync(", "memory.cu:", "cudaErrorMemoryAllocation"}},
    {use_memory,
     {.call = "cudaStreamQuery", .after = 1, .error = cudaErrorECCUncorrectable, .sticky = true},
     {"GPU fault", "memory.cu:", "cudaErrorECCUncorrectable"}},
    {use_kernels,
     {.call = "cudaLaunchKernelExC", .error = cudaErrorLaunchFailure, .sticky = true},
     {"cudaLaunchKernelEx", ".cu:", "cudaErrorLaunchFailure"}},
    {use_kernels,
     {.call = "cudaStreamQuery", .after = 1, .error = cudaErrorIllegalAddress, .sticky = true},
     {"GPU fault", "memory.cu:", "cudaErrorIllegalAddress"}},
    {use_steps,
     {.call = "cudaGraphLaunch", .error = cudaErrorIllegalAddress, .sticky = true},
     {"cudaGraphLaunch(", ".cu:", "cudaErrorIllegalAddress"}},
    {use_steps,
     {.call = "cudaGraphInstantiate", .error = cudaErrorMemoryAllocation},
     {"cudaGraphInstantiate(", ".cu:", "cudaErrorMemoryAllocation"}},
    {load_weights,
     {.call = "cudaMemcpyAsync", .after = 3, .error = cudaErrorIllegalAddress, .sticky = true},
     {"cudaMemcpyAsync(", "load.cu:", "cudaErrorIllegalAddress"}},
    {hang_in_get, {0}, {"cudaStreamQuery(", "memory.cu:", "cudaErrorTimeout"}},
    {use_lane, {0}, {"cudaEventQuery(", "memory.cu:", "cudaErrorTimeout"}},
};

static void a_fault_ends_the_process_within_a_second(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(faults); i++) {
        const struct fault *f = &faults[i];
        struct end e = run(&f->how, f->work);
        bool said = true;
        for (int w = 0; w < 3; w++)
            said = said && strstr(e.text, f->words[w]) != NULL;
        if (e.status != FAULT || !said || e.seconds > 1.0)
            fail_msg("fault %zu: status %d after %.2f s, said '%s'", i, e.status, e.seconds,
                     e.text);
        assert_memory_equal(e.text, "parley: GPU fault: ", 19);
    }
}

static void a_long_queue_is_no_hang(void **state)
{
    (void)state;
    struct end e = run(&(struct stub){0}, wait_long);
    assert_string_equal(e.text, "");
    assert_int_equal(e.status, 0);
    assert_true(e.seconds > 2 * HANG_MS * 1e-3);
}

/* No memory for an allocation is an answer, no fault. */
static void no_memory_is_refused(void **state)
{
    (void)state;
    struct end e =
        run(&(struct stub){.call = "cudaMalloc", .after = 2, .error = cudaErrorMemoryAllocation},
            load_weights);
    assert_int_equal(e.status, 1);
    assert_non_null(strstr(e.text, "memory for weights cannot be had"));
    e = run(&(struct stub){.call = "cudaMallocHost",
                           .after = 6,
                           .error = cudaErrorMemoryAllocation},
            load_weights);
    assert_int_equal(e.status, 1);
    assert_non_null(strstr(e.text, "pinned"));
}

static void a_gpu_that_cannot_be_used_is_refused(void **state)
{
    (void)state;
    struct device *d = NULL;
    struct problems why = {0};
    const struct device_opts gpu = {.name = "cuda"}, second = {.name = "cuda:1"}, any = {0};
    stub = (struct stub){.call = "cudaFree", .error = cudaErrorDevicesUnavailable};
    assert_int_equal(device_open(&d, &gpu, &why), -EINVAL);
    assert_true(problems_mention(&why, (const char *const[4]){"cuda:0", "cannot be used"}));
    problems_free(&why);
    stub = (struct stub){0};
    assert_int_equal(device_open(&d, &second, &why), -EINVAL);
    assert_true(problems_mention(&why, (const char *const[4]){"cuda:1", "found 1 GPU"}));
    problems_free(&why);
    stub = (struct stub){.call = "cudaFuncGetAttributes", .error = cudaErrorNoKernelImageForDevice};
    assert_int_equal(device_open(&d, &gpu, &why), -EINVAL);
    assert_true(problems_mention(&why, (const char *const[4]){"cuda:0", "capability 9.0",
                                                              "PARLEY_CUDA_ARCH=90"}));
    problems_free(&why);
    stub = (struct stub){.no_driver = true};
    assert_int_equal(device_open(&d, &gpu, &why), -EINVAL);
    assert_true(problems_mention(&why, (const char *const[4]){"no NVIDIA driver"}));
    problems_free(&why);
    assert_int_equal(device_open(&d, &any, &why), 0); /* the CPU */
    assert_null(d->load);
    device_close(d);
    stub = (struct stub){0};
    assert_int_equal(device_open(&d, &any, &why), 0);
    assert_non_null(d->load);
    device_close(d);
}

/* The real lanes, and memory that can be looked at. */
static void weights_arrive_by_lanes(void **state)
{
    (void)state;
    struct model *m[2] = {NULL, NULL};
    struct flat flat[2];
    stub = (struct stub){0};
    struct device *d = open_gpu();
    for (int i = 0; i < 2; i++) {
        const struct model_opts o = {.dir = SHAPE, .device = i ? d : NULL};
        int more = model_open(&m[i], &o, NULL);
        while (more == 0 && (more = model_load(m[i], NULL, NULL)) == 1)
            more = 0;
        assert_int_equal(more, 0);
        flatten(&flat[i], m[i]);
    }
    assert_int_equal(flat[0].n, flat[1].n);
    assert_memory_equal(flat[0].values, flat[1].values, flat[0].n * sizeof(float));
    for (int i = 0; i < 2; i++) {
        free(flat[i].values);
        model_close(m[i]);
    }
    device_close(d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_fault_ends_the_process_within_a_second),
        cmocka_unit_test(a_long_queue_is_no_hang),
        cmocka_unit_test(no_memory_is_refused),
        cmocka_unit_test(a_gpu_that_cannot_be_used_is_refused),
        cmocka_unit_test(weights_arrive_by_lanes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
