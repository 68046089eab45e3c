/*
 * kernels/cuda/backend.h - what kernels/device.c needs of the CUDA backend; no CUDA header.
 *
 * The backend is there when the build found a toolkit (PARLEY_CUDA is defined then). Whether the
 * machine has a driver and a GPU is asked at run time: the runtime library is linked statically.
 */
#ifndef PARLEY_KERNELS_CUDA_BACKEND_H
#define PARLEY_KERNELS_CUDA_BACKEND_H

#include "kernels/ops.h"

/* Opens GPU `ordinal` with a stream of its own. Memory of one handle may be used by every other
 * handle of the same GPU. 0, -EINVAL (there is no such GPU: what was found is said), -ENOMEM. */
int cuda_open(struct device **ret, int ordinal, const struct device_opts *o, struct problems *why);
void cuda_close(struct device *d);

/* device_read_rate for memory of the device. */
double cuda_read_rate(struct device *d, const void *data, size_t bytes);

#endif
