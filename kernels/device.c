/*
 * kernels/device.c - finds the backend by name.
 *
 *     NULL, "auto"    the best there is: cpu
 *     "cpu"           vector kernels for the best instruction set of this machine
 *     "cpu:avx2"      for this one
 *     "plain"         the plain-C twins
 */
#include "kernels/ops.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "kernels/cpu/cpu.h"
#include "kernels/plain/plain.h"

static int unknown(const char *name, struct problems *why)
{
    char list[256];
    const struct vec *v;
    size_t used = (size_t)snprintf(list, sizeof(list), "auto, cpu");
    for (int i = 0; (v = vec_available(i)) != NULL && used < sizeof(list); i++)
        used += (size_t)snprintf(list + used, sizeof(list) - used, ", cpu:%s", v->name);
    return problem_add(why, -EINVAL, "device \"%s\": not available here; there are %s and plain",
                       name, list);
}

int device_open(struct device **ret, const struct device_opts *o, struct problems *why)
{
    const char *name = o->name ? o->name : "auto";
    *ret = NULL;
    if (strcmp(name, "plain") == 0)
        return plain_open(ret, why);
    if (strcmp(name, "auto") == 0 || strcmp(name, "cpu") == 0)
        return cpu_open(ret, NULL, o->threads, why);
    if (strncmp(name, "cpu:", 4) == 0 && vec_find(name + 4) != NULL)
        return cpu_open(ret, name + 4, o->threads, why);
    return unknown(name, why);
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
    else
        cpu_close(d);
}

double device_read_rate(struct device *d, const void *data, size_t bytes)
{
    return is_plain(d) ? 0 : cpu_read_rate((struct cpu *)d, data, bytes);
}
