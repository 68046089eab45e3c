/*
 * daemon/session.c - from a directory name to stages that can answer: device, headers, tokenizer,
 * plan and refusal, weights with progress, caches.
 */
#include "daemon/session.h"

#include <errno.h>
#include <stdlib.h>
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

/* Speech by the checkpoint's settings, or the likeliest codes. */
struct speech_sampling {
    struct sampling code0, residual;
};

static void greedy_speech(struct speech_sampling *s, const struct generation_config *g)
{
    *s = (struct speech_sampling){.code0.repetition_penalty = g->talker_repetition_penalty};
}

static struct talker_opts talker_options(const struct session *s, const struct session_opts *o,
                                         const struct speech_sampling *greedy)
{
    int32_t newline = 0; /* without a tokenizer any id will do: the weights are random */
    if (s->tokenizer != NULL)
        tokenizer_encode(s->tokenizer, "\n", 1, 0, &newline, 1);
    return (struct talker_opts){.model = s->model,
                                .device = s->speech,
                                .speaker = o->speaker,
                                .newline = newline,
                                .positions = o->context,
                                .max_frames = o->max_frames,
                                .seed = o->seed,
                                .sampling = o->greedy ? &greedy->code0 : NULL,
                                .residual_sampling = o->greedy ? &greedy->residual : NULL};
}

int session_check_tokenizer(const struct model *m, const struct tokenizer *t, struct problems *why)
{
    const struct token_ids *c = &m->config.tokens;
    const struct {
        const char *field, *text;
        int32_t id;
    } control[] = {
        {"im_start_token_id", "<|im_start|>", c->im_start},
        {"im_end_token_id", "<|im_end|>", c->im_end},
        {"system_token_id", "system", c->system},
        {"user_token_id", "user", c->user},
        {"assistant_token_id", "assistant", c->assistant},
        {"audio_start_token_id", "<|audio_start|>", c->audio_start},
        {"audio_token_id", "<|audio_pad|>", c->audio_pad},
        {"audio_end_token_id", "<|audio_end|>", c->audio_end},
    };
    int err = 0, count = tokenizer_count(t);
    if (count > m->config.thinker.vocab)
        err = problem_add(why, -EINVAL,
                          "tokenizer: found ids up to %d, expected below the %d rows of "
                          "thinker.model.embed_tokens.weight",
                          count - 1, m->config.thinker.vocab);
    for (size_t i = 0; i < ARRAY_LEN(control); i++) {
        int id = tokenizer_find(t, control[i].text);
        if (id < 0)
            err =
                problem_add(why, -EINVAL,
                            "tokenizer: found no %s, expected it at id %d as config.json's %s says",
                            control[i].text, control[i].id, control[i].field);
        else if (id != control[i].id)
            err = problem_add(why, -EINVAL,
                              "tokenizer: found %s at id %d, expected %d as config.json's %s says",
                              control[i].text, id, control[i].id, control[i].field);
    }
    return err;
}

static int open_device(struct session *s, const struct session_opts *o, const char *name,
                       struct problems *why)
{
    struct device_opts d = {.name = name, .threads = o->threads, .hang_ms = o->hang_ms};
    int err = device_open(&s->dev, &d, why);
    if (err < 0)
        return err;
    s->speech = s->dev;
    if (s->dev->load == NULL)
        return 0;
    d.urgent = true;
    return device_open(&s->speech, &d, why);
}

static void close_device(struct session *s)
{
    if (s->speech != s->dev)
        device_close(s->speech);
    device_close(s->dev);
    s->dev = s->speech = NULL;
}

static int open_model(struct session *s, const struct session_opts *o, struct problems *why)
{
    const struct model_opts m = {.dir = o->dir,
                                 .synthetic = o->synthetic,
                                 .synthetic_type = o->synthetic_type,
                                 .seed = o->seed,
                                 .text_only = o->text_only,
                                 .device = s->dev};
    return model_open(&s->model, &m, why);
}

/* What a checkpoint brings besides weights: its vocabulary, perhaps a detector. Without a model
 * only the vocabulary is looked at. */
static int open_extras(struct session *s, const struct session_opts *o, struct problems *why)
{
    int err = tokenizer_open(&s->tokenizer, o->dir, why);
    if (err == 0 && s->model != NULL)
        err = session_check_tokenizer(s->model, s->tokenizer, why);
    if (s->model == NULL)
        return err;
    int detector = end_of_turn_open(&s->end_of_turn, o->dir, s->model->config.thinker.hidden, why);
    return err < 0 ? err : detector;
}

size_t session_cache_bytes(const struct session *s, const struct session_opts *o)
{
    struct engine_opts e = engine_options(s, o);
    const struct code2wav_opts c = {.model = s->model};
    size_t bytes = engine_bytes(&e);
    if (s->model->speech) {
        struct speech_sampling greedy;
        struct talker_opts t = talker_options(s, o, &greedy);
        bytes += talker_bytes(&t) + code2wav_bytes(&c);
    }
    return bytes;
}

/* Keeps and says why it is not the GPU. */
static void say_cpu(struct session *s, const struct session_opts *o, const struct problems *why)
{
    if (why->n == 0)
        return;
    s->not_gpu = strdup(why->text[0]);
    if (o->report != NULL)
        fprintf(o->report, "the CPU computes: %s\n", why->text[0]);
}

/* Device and model. Without a name it is the GPU if there is one and the model fits there. */
static int open_place(struct session *s, const struct session_opts *o, struct problems *why)
{
    bool any = o->device == NULL || strcmp(o->device, "auto") == 0;
    struct problems doubt = {0};
    int err = open_device(s, o, any ? "cuda" : o->device, any ? &doubt : why);
    if (err == 0) {
        err = open_model(s, o, why);
        if (err < 0 || !any)
            goto out;
        const struct plan_memory where = plan_memory(s->dev);
        if (plan_check(&where, s->model, session_cache_bytes(s, o), false, &doubt) == 0)
            goto out;
        model_close(s->model);
        s->model = NULL;
    } else if (!any) {
        goto out;
    }
    close_device(s);
    err = open_device(s, o, "cpu", why);
    if (err == 0)
        err = open_model(s, o, why);
    if (err == 0)
        say_cpu(s, o, &doubt);
out:
    problems_free(&doubt);
    return err;
}

/* What needs no weights to be refused. */
static int check_options(const struct session *s, const struct session_opts *o,
                         struct problems *why)
{
    const struct engine_opts e = engine_options(s, o);
    struct speech_sampling greedy;
    int err = engine_check(&e, why);
    if (err < 0 || !s->model->speech)
        return err;
    const struct talker_opts t = talker_options(s, o, &greedy);
    return talker_check(&t, why);
}

/* One line per component, or on a terminal one line that grows. */
static int load(struct session *s, const struct session_opts *o, struct problems *why)
{
    struct load_meter meter = {.out = o->report, .start = clock_seconds()};
    struct load_progress p = {0};
    int more;
    while ((more = model_load(s->model, &p, why)) == 1) {
        load_meter_show(&meter, s->model, &p);
        if (s->dev->load != NULL) /* its steps are long */
            s->load_anonymous = max_size(s->load_anonymous, memory_anonymous());
        if (o->loading != NULL && !o->loading(o->loading_ctx, p.done, p.total))
            return -ECANCELED;
    }
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
    struct speech_sampling greedy;
    greedy_speech(&greedy, &s->model->config.generation);
    struct talker_opts t = talker_options(s, o, &greedy);
    err = talker_open(&s->talker, &t, why);
    if (err < 0)
        return err;
    const struct code2wav_opts c = {.model = s->model, .device = s->speech, .max_frames = 1};
    return code2wav_open(&s->code2wav, &c, why);
}

static int check_plan(struct session *s, const struct session_opts *o, struct problems *why)
{
    const struct plan_memory where = plan_memory(s->dev);
    size_t caches = session_cache_bytes(s, o);
    struct plan_row sum = plan_sum(s->model);
    s->planned = sum.mapped + sum.owned + caches;
    if (o->report != NULL)
        plan_print(o->report, &where, s->model, caches);
    return plan_check(&where, s->model, caches, o->paging, why);
}

int session_look(struct session *s, const struct session_opts *o, struct problems *why)
{
    *s = (struct session){0};
    int err = open_place(s, o, why), extras = 0;
    if (o->dir != NULL && s->dev != NULL)
        extras = open_extras(s, o, why);
    return err < 0 ? err : extras;
}

int session_open(struct session *s, const struct session_opts *o, struct problems *why)
{
    *s = (struct session){0};
    int err = open_place(s, o, why);
    if (err == 0 && o->dir != NULL)
        err = open_extras(s, o, why);
    if (err == 0)
        err = check_options(s, o, why);
    if (err == 0)
        err = check_plan(s, o, why);
    if (err == 0)
        err = load(s, o, why);
    if (err == 0)
        err = open_stages(s, o, why);
    if (err < 0)
        session_close(s);
    return err;
}

int session_hear(struct session *s, const float *pcm, size_t n, struct problems *why)
{
    struct prompt_rows rows;
    int err = engine_hear(s->engine, pcm, n, why);
    if (err < 0 || s->talker == NULL)
        return err;
    engine_prompt(s->engine, &rows);
    return rows.n > rows.stable ? talker_prompt(s->talker, &rows, why) : 0;
}

void session_close(struct session *s)
{
    code2wav_close(s->code2wav);
    talker_close(s->talker);
    engine_close(s->engine);
    tokenizer_close(s->tokenizer);
    end_of_turn_close(s->end_of_turn);
    model_close(s->model);
    close_device(s);
    free(s->not_gpu);
    *s = (struct session){0};
}
