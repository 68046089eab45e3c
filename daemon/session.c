/*
 * daemon/session.c - from a directory name to stages that can answer: device, headers, tokenizer,
 * plan and refusal, weights with progress, caches.
 */
#include "daemon/session.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/util.h"
#include "daemon/plan.h"

static struct engine_opts engine_options(const struct session *s, const struct session_opts *o)
{
    return (struct engine_opts){.model = s->model,
                                .tokenizer = s->tokenizer,
                                .device = s->dev,
                                .context = o->context};
}

static struct talker_opts talker_options(const struct session *s, const struct session_opts *o)
{
    return (struct talker_opts){.model = s->model,
                                .device = s->dev,
                                .prompt_rows = o->context,
                                .max_frames = o->max_frames,
                                .speaker = o->speaker,
                                .greedy = o->greedy,
                                .seed = o->seed};
}

static int open_files(struct session *s, const struct session_opts *o, struct problems *why)
{
    const struct device_opts d = {.name = o->device, .threads = o->threads};
    const struct model_opts m = {.dir = o->dir,
                                 .synthetic = o->synthetic,
                                 .synthetic_type = DT_BF16,
                                 .seed = o->seed,
                                 .text_only = o->text_only};
    int err = device_open(&s->dev, &d, why);
    if (err == 0)
        err = model_open(&s->model, &m, why);
    if (err == 0 && o->dir != NULL)
        err = tokenizer_open(&s->tokenizer, o->dir, why);
    return err;
}

/* Caches and buffers of all stages, in bytes. */
static size_t cache_bytes(const struct session *s, const struct session_opts *o)
{
    struct engine_opts e = engine_options(s, o);
    struct talker_opts t = talker_options(s, o);
    size_t bytes = engine_bytes(&e);
    if (s->model->speech)
        bytes += talker_bytes(&t) + code2wav_bytes(s->model, 1);
    return bytes;
}

/* One line per component, or on a terminal one line that grows. */
static int load(struct session *s, const struct session_opts *o, struct problems *why)
{
    struct load_meter meter = {.out = o->report, .start = clock_seconds()};
    struct load_progress p = {0};
    int more;
    while ((more = model_load(s->model, &p, why)) == 1)
        load_meter_show(&meter, s->model, &p);
    load_meter_end(&meter, s->model, more);
    s->load_s = clock_seconds() - meter.start;
    return more;
}

static int open_stages(struct session *s, const struct session_opts *o, struct problems *why)
{
    struct engine_opts e = engine_options(s, o);
    struct sampling sampling = {.temperature = s->model->config.generation.temperature,
                                .top_k = s->model->config.generation.top_k,
                                .top_p = s->model->config.generation.top_p,
                                .repetition_penalty =
                                    s->model->config.generation.repetition_penalty,
                                .seed = o->seed};
    if (o->temperature >= 0)
        sampling.temperature = o->temperature;
    if (o->greedy)
        sampling.temperature = 0;
    e.sampling = &sampling;
    int err = engine_open(&s->engine, &e, why);
    if (err < 0 || !s->model->speech)
        return err;
    struct talker_opts t = talker_options(s, o);
    err = talker_open(&s->talker, &t, why);
    if (err < 0)
        return err;
    const struct code2wav_opts c = {.model = s->model, .device = s->dev, .max_frames = 1};
    return code2wav_open(&s->code2wav, &c, why);
}

int session_open(struct session *s, const struct session_opts *o, struct problems *why)
{
    *s = (struct session){0};
    int err = open_files(s, o, why);
    if (err == 0 && o->report != NULL)
        plan_print(o->report, s->model, cache_bytes(s, o));
    if (err == 0)
        err = plan_check(s->model, cache_bytes(s, o), o->paging, why);
    if (err == 0)
        err = load(s, o, why);
    if (err == 0)
        err = open_stages(s, o, why);
    if (err < 0)
        session_close(s);
    return err;
}

void session_close(struct session *s)
{
    code2wav_close(s->code2wav);
    talker_close(s->talker);
    engine_close(s->engine);
    tokenizer_close(s->tokenizer);
    model_close(s->model);
    device_close(s->dev);
    *s = (struct session){0};
}
