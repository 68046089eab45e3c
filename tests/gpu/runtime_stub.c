/* tests/gpu/runtime_stub.c - see runtime_stub.h. */
#include "tests/gpu/runtime_stub.h"

#include <cuda_runtime_api.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct stub stub;

static double reached_ms;  /* when the stream comes to the last event; `pace_ms` */
static cudaError_t broken; /* the sticky error, once it has come */

static cudaError_t answer(const char *call)
{
    if (broken != cudaSuccess)
        return broken;
    if (stub.call == NULL || strcmp(stub.call, call) != 0 || stub.after-- > 0)
        return cudaSuccess;
    if (stub.sticky)
        broken = (cudaError_t)stub.error;
    return (cudaError_t)stub.error;
}

#define ANSWER answer(__func__)

/* `what` if the call succeeds. */
#define GIVE(to, what)                                                                             \
    do {                                                                                           \
        cudaError_t err_ = ANSWER;                                                                 \
        if (err_ == cudaSuccess)                                                                   \
            *(to) = (what);                                                                        \
        return err_;                                                                               \
    } while (0)

static void *thing(void)
{
    return calloc(1, sizeof(double));
}

static double now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

/* Whether what ends at `end_ms` has ended. */
static cudaError_t ended(cudaError_t err, double end_ms)
{
    return err == cudaSuccess && (stub.hang || now_ms() < end_ms) ? cudaErrorNotReady : err;
}

static cudaError_t drop(const char *call, void *p)
{
    cudaError_t err = answer(call);
    free(p);
    return err;
}

/* What the compiler puts around kernels. */
void **__cudaRegisterFatBinary(void *binary);
void __cudaRegisterFatBinaryEnd(void **handle);
void __cudaUnregisterFatBinary(void **handle);
void __cudaRegisterFunction(void **handle, const char *host, char *device, const char *name,
                            int limit, void *tid, void *bid, void *bdim, void *gdim, int *size);
unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t smem, void *stream);
cudaError_t __cudaPopCallConfiguration(dim3 *grid, dim3 *block, size_t *smem, void *stream);
cudaError_t __cudaGetKernel(cudaKernel_t *kernel, const void *entry);
cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3 grid, dim3 block, void **args, size_t smem,
                               cudaStream_t stream);

void **__cudaRegisterFatBinary(void *binary)
{
    static void *handle;
    handle = binary;
    return &handle;
}

void __cudaRegisterFatBinaryEnd(void **handle)
{
    (void)handle;
}

void __cudaUnregisterFatBinary(void **handle)
{
    (void)handle;
}

void __cudaRegisterFunction(void **handle, const char *host, char *device, const char *name,
                            int limit, void *tid, void *bid, void *bdim, void *gdim, int *size)
{
    (void)handle, (void)host, (void)device, (void)name, (void)limit;
    (void)tid, (void)bid, (void)bdim, (void)gdim, (void)size;
}

unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t smem, void *stream)
{
    (void)grid, (void)block, (void)smem, (void)stream;
    return 0;
}

cudaError_t __cudaPopCallConfiguration(dim3 *grid, dim3 *block, size_t *smem, void *stream)
{
    *grid = *block = (dim3){1, 1, 1};
    *smem = 0;
    *(void **)stream = NULL;
    return cudaSuccess;
}

cudaError_t __cudaGetKernel(cudaKernel_t *kernel, const void *entry)
{
    *kernel = (cudaKernel_t)(uintptr_t)entry;
    return cudaSuccess;
}

cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3 grid, dim3 block, void **args, size_t smem,
                               cudaStream_t stream)
{
    (void)kernel, (void)grid, (void)block, (void)args, (void)smem, (void)stream;
    stub.launches++;
    return answer("cudaLaunchKernel");
}

cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t *config, const void *func, void **args)
{
    (void)config, (void)func, (void)args;
    stub.launches++;
    return ANSWER;
}

cudaError_t cudaFuncSetAttribute(const void *func, enum cudaFuncAttribute attr, int value)
{
    (void)func, (void)attr, (void)value;
    return ANSWER;
}

cudaError_t cudaFuncGetAttributes(struct cudaFuncAttributes *a, const void *func)
{
    (void)func;
    memset(a, 0, sizeof(*a));
    a->ptxVersion = 90;
    return ANSWER;
}

cudaError_t cudaOccupancyMaxActiveClusters(int *clusters, const void *func,
                                           const cudaLaunchConfig_t *config)
{
    (void)func, (void)config;
    GIVE(clusters, 1);
}

/* The device. */
cudaError_t cudaDriverGetVersion(int *version)
{
    GIVE(version, stub.no_driver ? 0 : 13000);
}

cudaError_t cudaGetDeviceCount(int *count)
{
    GIVE(count, 1);
}

cudaError_t cudaSetDevice(int device)
{
    (void)device;
    return ANSWER;
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *p, int device)
{
    (void)device;
    memset(p, 0, sizeof(*p));
    snprintf(p->name, sizeof(p->name), "Stub");
    p->multiProcessorCount = 4;
    p->major = 9;
    p->integrated = stub.integrated;
    p->sharedMemPerBlockOptin = 227 << 10;
    return ANSWER;
}

cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest)
{
    *least = 0;
    *greatest = -5;
    return ANSWER;
}

cudaError_t cudaMemGetInfo(size_t *unused, size_t *total)
{
    *total = (size_t)1 << 30;
    GIVE(unused, (size_t)1 << 30);
}

const char *cudaGetErrorName(cudaError_t err)
{
    static const struct {
        cudaError_t err;
        const char *name;
    } names[] = {{cudaErrorMemoryAllocation, "cudaErrorMemoryAllocation"},
                 {cudaErrorIllegalAddress, "cudaErrorIllegalAddress"},
                 {cudaErrorLaunchFailure, "cudaErrorLaunchFailure"},
                 {cudaErrorECCUncorrectable, "cudaErrorECCUncorrectable"},
                 {cudaErrorDevicesUnavailable, "cudaErrorDevicesUnavailable"},
                 {cudaErrorNoKernelImageForDevice, "cudaErrorNoKernelImageForDevice"},
                 {cudaErrorTimeout, "cudaErrorTimeout"}};
    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
        if (names[i].err == err)
            return names[i].name;
    return "cudaError";
}

const char *cudaGetErrorString(cudaError_t err)
{
    return cudaGetErrorName(err);
}

cudaError_t cudaGetLastError(void)
{
    return broken;
}

/* Memory. */
cudaError_t cudaMalloc(void **p, size_t bytes)
{
    GIVE(p, calloc(1, bytes));
}

cudaError_t cudaFree(void *p)
{
    return drop(__func__, p);
}

cudaError_t cudaMallocHost(void **p, size_t bytes)
{
    GIVE(p, calloc(1, bytes));
}

cudaError_t cudaFreeHost(void *p)
{
    return drop(__func__, p);
}

cudaError_t cudaMemcpyAsync(void *dst, const void *src, size_t bytes, enum cudaMemcpyKind kind,
                            cudaStream_t stream)
{
    (void)kind, (void)stream;
    cudaError_t err = ANSWER;
    if (err == cudaSuccess)
        memmove(dst, src, bytes);
    return err;
}

cudaError_t cudaMemsetAsync(void *p, int value, size_t bytes, cudaStream_t stream)
{
    (void)stream;
    cudaError_t err = ANSWER;
    if (err == cudaSuccess)
        memset(p, value, bytes);
    return err;
}

/* Streams and events. */
cudaError_t cudaStreamCreateWithPriority(cudaStream_t *stream, unsigned flags, int priority)
{
    (void)flags, (void)priority;
    GIVE(stream, thing());
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags)
{
    (void)flags;
    GIVE(stream, thing());
}

cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
    return drop(__func__, stream);
}

cudaError_t cudaStreamQuery(cudaStream_t stream)
{
    (void)stream;
    return ended(ANSWER, reached_ms);
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags)
{
    (void)stream, (void)event, (void)flags;
    return ANSWER;
}

cudaError_t cudaEventCreate(cudaEvent_t *event)
{
    GIVE(event, thing());
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags)
{
    (void)flags;
    GIVE(event, thing());
}

cudaError_t cudaEventDestroy(cudaEvent_t event)
{
    return drop(__func__, event);
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream)
{
    (void)stream;
    double now = now_ms();
    if (stub.pace_ms > 0)
        reached_ms = (reached_ms > now ? reached_ms : now) + stub.pace_ms;
    *(double *)event = reached_ms;
    return ANSWER;
}

cudaError_t cudaEventQuery(cudaEvent_t event)
{
    return ended(ANSWER, *(double *)event);
}

cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t from, cudaEvent_t to)
{
    (void)from, (void)to;
    GIVE(ms, 1.0f);
}

/* Recorded steps. */
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, enum cudaStreamCaptureMode mode)
{
    (void)stream, (void)mode;
    return ANSWER;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph)
{
    (void)stream;
    GIVE(graph, thing());
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *exec, cudaGraph_t graph, unsigned long long flags)
{
    (void)graph, (void)flags;
    GIVE(exec, thing());
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream)
{
    (void)exec, (void)stream;
    stub.launches++;
    return ANSWER;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec)
{
    return drop(__func__, exec);
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph)
{
    return drop(__func__, graph);
}
