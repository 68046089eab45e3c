/*
 * tests/support/speech.h - scaffolding of the tests of Talker and Code2Wav: a loaded synthetic
 * model, and a device whose allocations are counted and fail on demand.
 */
#ifndef PARLEY_TESTS_SPEECH_H
#define PARLEY_TESTS_SPEECH_H

#include "model/model.h"

struct speech {
    struct device *dev;
    const struct ops *real;
    struct ops counting; /* real, but for alloc */
    struct model *model;
};

/* One test at a time: how many allocations were made, and which one fails (from 0; never: -1). */
static int speech_allocs, speech_fails = -1;
static const struct ops *speech_real;

static void *speech_alloc(struct device *d, size_t bytes)
{
    return speech_allocs++ == speech_fails ? NULL : speech_real->alloc(d, bytes);
}

static int speech_setup(void **state)
{
    static struct speech s;
    const struct device_opts d = {.threads = 2};
    const struct model_opts m = {.synthetic = SOURCE_DIR "/tools/configs/awkward.json",
                                 .synthetic_type = DT_BF16,
                                 .seed = 1};
    struct load_progress p;
    int more = device_open(&s.dev, &d, NULL);
    if (more == 0)
        more = model_open(&s.model, &m, NULL);
    if (more < 0)
        return more;
    while ((more = model_load(s.model, &p, NULL)) == 1)
        ;
    speech_real = s.real = s.dev->op;
    s.counting = *s.real;
    s.counting.alloc = speech_alloc;
    s.dev->op = &s.counting;
    *state = &s;
    return more;
}

static int speech_teardown(void **state)
{
    struct speech *s = *state;
    model_close(s->model);
    s->dev->op = s->real;
    device_close(s->dev);
    return 0;
}

#endif
