/*
 * kernels/cuda/step.cu - steps: the first time the ops are done one by one, which loads kernels and
 * makes scratch, the second time they are recorded as a graph, from then on the graph is launched.
 *
 * A graph names scratch memory by address: cuda_scratch never frees what a recording may name.
 */
#include "kernels/cuda/cuda.h"

#include <stdlib.h>

struct step {
    cudaGraphExec_t graph; /* NULL = was done once and not recorded yet */
};

int cuda_step_begin(struct device *d, struct step **step)
{
    struct cuda *c = cuda_of(d);
    CUDA_MUST(cudaSetDevice(c->ordinal));
    if (*step == NULL)
        return 1;
    if ((*step)->graph != NULL) {
        CUDA_MUST(cudaGraphLaunch((*step)->graph, c->stream));
        return 0;
    }
    c->recording = 1;
    CUDA_MUST(cudaStreamBeginCapture(c->stream, cudaStreamCaptureModeRelaxed));
    return 1;
}

void cuda_step_end(struct device *d, struct step **step)
{
    struct cuda *c = cuda_of(d);
    cudaGraph_t graph;
    if (*step == NULL) {
        *step = (struct step *)calloc(1, sizeof(**step)); /* without memory: never recorded */
        return;
    }
    CUDA_MUST(cudaStreamEndCapture(c->stream, &graph));
    c->recording = 0;
    CUDA_MUST(cudaGraphInstantiate(&(*step)->graph, graph, 0));
    CUDA_MUST(cudaGraphDestroy(graph));
    CUDA_MUST(cudaGraphLaunch((*step)->graph, c->stream));
}

void cuda_step_drop(struct device *d, struct step *step)
{
    struct cuda *c = cuda_of(d);
    if (step == NULL)
        return;
    cuda_wait(c, c->stream);
    if (step->graph != NULL)
        CUDA_MUST(cudaGraphExecDestroy(step->graph));
    free(step);
}
