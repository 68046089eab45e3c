/*
 * kernels/device.c - finds the backend by name.
 *
 *     NULL, "auto"    a GPU where there is one, else cpu
 *     "cuda:1"        the second GPU; "cuda" is the first
 *     "cpu"           vector kernels for the best instruction set of this machine
 *     "cpu:avx2"      for this one
 *     "plain"         the plain-C twins
 */
#include "kernels/ops.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cpu/cpu.h"
#include "kernels/cuda/backend.h"
#include "kernels/plain/plain.h"

static int unknown(const char *name, struct problems *why)
{
#ifdef PARLEY_CUDA
    static const char first[] = "auto, cuda, cpu";
#else
    static const char first[] = "auto, cpu";
#endif
    char list[256];
    const struct vec *v;
    size_t used = (size_t)snprintf(list, sizeof(list), "%s", first);
    for (int i = 0; (v = vec_available(i)) != NULL && used < sizeof(list); i++)
        used += (size_t)snprintf(list + used, sizeof(list) - used, ", cpu:%s", v->name);
    return problem_add(why, -EINVAL, "device \"%s\": not available here; there are %s and plain",
                       name, list);
}

#ifdef PARLEY_CUDA
static int cuda_built(int ordinal, struct problems *why)
{
    (void)ordinal;
    (void)why;
    return 0;
}
#else
static int cuda_built(int ordinal, struct problems *why)
{
    return problem_add(why, -EINVAL,
                       "device cuda:%d: this program was built without a CUDA toolkit", ordinal);
}

int cuda_open(struct device **ret, int ordinal, const struct device_opts *o, struct problems *why)
{
    (void)ret;
    (void)o;
    return cuda_built(ordinal, why);
}

void cuda_close(struct device *d)
{
    (void)d;
}

double cuda_read_rate(struct device *d, const void *data, size_t bytes)
{
    (void)d;
    (void)data;
    (void)bytes;
    return 0;
}
#endif

/* "cuda" or "cuda:N". */
static bool is_cuda(const char *name, int *ordinal)
{
    char *end;
    *ordinal = 0;
    if (strncmp(name, "cuda", 4) != 0)
        return false;
    if (name[4] == '\0')
        return true;
    if (name[4] != ':' || name[5] < '0' || name[5] > '9')
        return false;
    *ordinal = (int)strtol(name + 5, &end, 10);
    return *end == '\0';
}

int device_check(const char *name, struct problems *why)
{
    int gpu;
    if (is_cuda(name, &gpu))
        return cuda_built(gpu, why);
    if (strcmp(name, "auto") == 0 || strcmp(name, "plain") == 0 || strcmp(name, "cpu") == 0)
        return 0;
    bool can = strncmp(name, "cpu:", 4) == 0 && vec_find(name + 4) != NULL;
    return can ? 0 : unknown(name, why);
}

int device_open(struct device **ret, const struct device_opts *o, struct problems *why)
{
    const char *name = o->name ? o->name : "auto";
    int gpu = 0, err = device_check(name, why);
    *ret = NULL;
    if (err < 0)
        return err;
    if (strcmp(name, "plain") == 0)
        return plain_open(ret, why);
    if (is_cuda(name, &gpu))
        return cuda_open(ret, gpu, o, why);
    if (strcmp(name, "auto") == 0 && cuda_open(ret, 0, o, NULL) == 0)
        return 0;
    return cpu_open(ret, strncmp(name, "cpu:", 4) == 0 ? name + 4 : NULL, o->threads, why);
}

static int is_plain(const struct device *d)
{
    return strcmp(d->name, "plain") == 0;
}

void device_close(struct device *d)
{
    if (d == NULL)
        return;
    if (is_plain(d))
        plain_close(d);
    else if (d->load != NULL)
        cuda_close(d);
    else
        cpu_close(d);
}

double device_read_rate(struct device *d, const void *data, size_t bytes)
{
    if (is_plain(d))
        return 0;
    return d->load != NULL ? cuda_read_rate(d, data, bytes)
                           : cpu_read_rate((struct cpu *)d, data, bytes);
}
