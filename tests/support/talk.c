/*
 * tests/support/talk.c - see talk.h.
 */
#include "tests/support/talk.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/util.h"
#include "daemon/sound_file.h"

#define MODEL SOURCE_DIR "/models/parley-mini"
#define VAD   SOURCE_DIR "/models/vad/silero.bin"

enum { RATE = 48000, PERIOD = RATE / 100, LOG_MAX = 8 << 20 };

bool talk_model(struct session *s, int context)
{
    struct stat st;
    struct problems why = {.n = 0};
    const struct session_opts o = {.dir = MODEL,
                                   .temperature = -1,
                                   .context = context,
                                   .threads = 1};
    if (stat(MODEL "/model-00001-of-00002.safetensors", &st) < 0) {
        printf("skip: models/parley-mini is not here\n");
        return false;
    }
    if (session_open(s, &o, &why) == 0)
        return true;
    printf("skip: %s\n", why.n > 0 ? why.text[0] : "the model does not open");
    problems_free(&why);
    return false;
}

static void take_line(void *ctx, const char *line, size_t n)
{
    struct talk *t = ctx;
    if (t->log == NULL) /* in one place: tests hold on to what they have found in it */
        t->log = malloc(LOG_MAX);
    if (t->log == NULL || t->log_len + n + 1 > LOG_MAX)
        abort();
    memcpy(t->log + t->log_len, line, n + 1);
    t->log_len += n;
}

void talk_begin(struct talk *t, const struct conversation_opts *o)
{
    struct conversation_opts opts = o != NULL ? *o : (struct conversation_opts){.texts = true};
    struct problems why = {.n = 0};
    opts.session = &t->session;
    opts.vad = VAD;
    opts.log = take_line;
    opts.ctx = t;
    take_line(t, "", 0);
    int err = player_open(&t->player, NULL, &why);
    opts.player = t->player;
    if (err == 0)
        err = conversation_open(&t->conversation, &opts, &why);
    if (err < 0) {
        fprintf(stderr, "%s\n", why.n > 0 ? why.text[0] : strerror(-err));
        abort();
    }
}

void talk_end(struct talk *t)
{
    conversation_close(t->conversation);
    player_close(t->player);
    free(t->log);
    free(t->out);
    *t = (struct talk){.session = t->session};
}

float *talk_recording(const char *path, size_t *n)
{
    float *pcm = NULL;
    struct problems why = {.n = 0};
    if (sound_file_read(&pcm, n, path, &why) < 0) {
        fprintf(stderr, "%s\n", why.n > 0 ? why.text[0] : path);
        abort();
    }
    return pcm;
}

static int work_once(struct talk *t)
{
    struct problems why = {.n = 0};
    int guess = conversation_next(t->conversation);
    int kind = conversation_work(t->conversation, &why);
    if (kind < 0 || kind != guess) {
        fprintf(stderr, "work: %d, expected %d: %s\n", kind, guess, why.n ? why.text[0] : "");
        abort();
    }
    conversation_cost(t->conversation, t->cost[kind]);
    return kind;
}

static float play(struct talk *t)
{
    float peak = 0;
    if (grow_array(&t->out, &t->out_cap, t->n_out + PERIOD, sizeof(float)) < 0)
        abort();
    player_pull(t->player, t->out + t->n_out, PERIOD);
    for (int i = 0; i < PERIOD; i++)
        peak = t->out[t->n_out + (size_t)i] > peak ? t->out[t->n_out + (size_t)i] : peak;
    t->n_out += PERIOD;
    return peak;
}

static void period(struct talk *t, const float *pcm, size_t n)
{
    struct ear_frame f = {.level = -60, .far = -120, .near = 1, .settled = true};
    if (n > 0)
        memcpy(f.clean, pcm, n * sizeof(float));
    memcpy(f.raw, f.clean, sizeof(f.raw));
    if (play(t) > 1e-3f && t->echo)
        f.far = -20;
    conversation_period(t->conversation, &f, t->delay);
    t->now += EAR_PERIOD;
    for (int i = 0; t->pieces == 0 || i < t->pieces; i++)
        if (work_once(t) == WORK_NONE)
            break;
}

void talk_say(struct talk *t, const float *pcm, size_t n)
{
    for (size_t i = 0; i < n; i += EAR_PERIOD)
        period(t, pcm + i, min_size(EAR_PERIOD, n - i));
}

void talk_wait(struct talk *t, int until_ms)
{
    while (t->now < (uint64_t)until_ms * 16)
        period(t, NULL, 0);
}

const char *talk_until(struct talk *t, const char *from, const char *text, int most_ms)
{
    size_t skip = from != NULL ? (size_t)(from - t->log) : 0;
    uint64_t end = t->now + (uint64_t)most_ms * 16;
    const char *found;
    while ((found = strstr(t->log + skip, text)) == NULL && t->now < end)
        period(t, NULL, 0);
    return found;
}
