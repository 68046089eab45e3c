/*
 * audio/alsa.c - ALSA: hardware, plugins, and sound servers behind them.
 *
 * Periods of 10 ms, four of them; 16, 32 bits or float, one channel or two, whatever is granted;
 * the rate must be exactly the one asked for ("plughw:" and "default" convert). Not blocking, so
 * that a device that stands still is noticed. Overruns and underruns are mended here and told; what
 * cannot be mended (unplugged: ENODEV, EBADFD; a sound server that died: EIO, or EPIPE for ever) is
 * the end of the device: audio/audio.c opens it again. Cards are opened by name: their numbers
 * change when they are plugged in again.
 */
#include <alsa/asoundlib.h>
#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "audio/device.h"
#include "base/util.h"

enum {
    PERIODS = 4,

    IDLE_NS = 2000000,
    IDLES_MAX = 50,
    MENDS_MAX = 20,
    NAMES_MAX = 12,
    CHANNELS_MAX = 8
};

struct alsa_device {
    struct audio_device_opts o;
    snd_pcm_t *pcm;
    snd_pcm_format_t format;
    unsigned channels;
    unsigned char *raw; /* [period, channels] of format */
    size_t done;        /* frames of the present period that were moved */
    int idle;           /* times in a row that nothing was moved */
    int mends;          /* in a row, without a frame moved between them */
    bool xrun;          /* in the present period */
    snd_pcm_sframes_t buffer;
};

static void no_message(const char *file, int line, const char *function, int err, const char *fmt,
                       ...)
{
    (void)file, (void)line, (void)function, (void)err, (void)fmt;
}

void alsa_be_quiet(void)
{
    snd_lib_error_set_handler(no_message);
}

static snd_pcm_stream_t stream_of(enum audio_direction d)
{
    return d == AUDIO_CAPTURE ? SND_PCM_STREAM_CAPTURE : SND_PCM_STREAM_PLAYBACK;
}

/* ---- names ---- */

/* Calls for every name that ALSA knows for the direction, until it returns false. */
static void each_name(enum audio_direction direction, bool (*visit)(void *ctx, const char *name),
                      void *ctx)
{
    void **hints;
    const char *wanted = direction == AUDIO_CAPTURE ? "Input" : "Output";
    snd_config_update_free_global();
    if (snd_device_name_hint(-1, "pcm", &hints) < 0)
        return;
    bool more = true;
    for (void **h = hints; *h != NULL && more; h++) {
        char *name = snd_device_name_get_hint(*h, "NAME");
        char *way = snd_device_name_get_hint(*h, "IOID");
        if (name != NULL && (way == NULL || strcmp(way, wanted) == 0))
            more = visit(ctx, name);
        free(name);
        free(way);
    }
    snd_device_name_free_hint(hints);
}

static bool print_name(void *ctx, const char *name)
{
    fprintf(ctx, "alsa:%s\n", name);
    return true;
}

static void alsa_list(FILE *out, enum audio_direction direction, struct pa_host *host)
{
    (void)host;
    alsa_be_quiet();
    each_name(direction, print_name, out);
}

struct names {
    char text[512];
    int n;
};

static bool collect_name(void *ctx, const char *name)
{
    struct names *names = ctx;
    size_t used = strlen(names->text);
    if (names->n++ == NAMES_MAX || used + strlen(name) + 8 > sizeof(names->text)) {
        snprintf(names->text + used, sizeof(names->text) - used, ", ...");
        return false;
    }
    snprintf(names->text + used, sizeof(names->text) - used, "%s%s", used > 0 ? ", " : "", name);
    return true;
}

static int refuse_open(const struct audio_device_opts *o, int err, struct problems *why)
{
    struct names names = {.n = 0};
    const char *what = o->direction == AUDIO_CAPTURE ? "microphone" : "loudspeaker";
    if (err == -EBUSY)
        return problem_add(why, -EBUSY, "alsa:%s: this %s is in use by another program", o->name,
                           what);
    each_name(o->direction, collect_name, &names);
    return problem_add(why, -ENODEV, "alsa:%s: this %s cannot be opened (%s); there are: %s",
                       o->name, what, snd_strerror(err), names.n > 0 ? names.text : "none");
}

/* "hw:1,0" and "plughw:1,0" with the card's name in the place of its number. */
static void by_card_name(char *name, size_t size)
{
    char card_name[64];
    const char *number = strstr(name, "hw:");
    if (number == NULL || !isdigit((unsigned char)number[3]))
        return;
    size_t kind = (size_t)(number - name) + 3;
    char *rest;
    long card = strtol(name + kind, &rest, 10);
    snprintf(card_name, sizeof(card_name), "hw:%ld", card);
    snd_ctl_t *ctl;
    snd_ctl_card_info_t *info;
    if (snd_ctl_open(&ctl, card_name, 0) < 0)
        return;
    if (snd_ctl_card_info_malloc(&info) == 0) {
        if (snd_ctl_card_info(ctl, info) == 0) {
            char device[16];
            snprintf(device, sizeof(device), "%.15s", *rest == ',' ? rest + 1 : "0");
            snprintf(name + kind, size - kind, "CARD=%s,DEV=%s", snd_ctl_card_info_get_id(info),
                     device);
        }
        snd_ctl_card_info_free(info);
    }
    snd_ctl_close(ctl);
}

/* ---- open ---- */

static int set_format(struct alsa_device *d, snd_pcm_hw_params_t *hw)
{
    static const snd_pcm_format_t formats[] = {SND_PCM_FORMAT_S16, SND_PCM_FORMAT_S32,
                                               SND_PCM_FORMAT_FLOAT};
    for (size_t i = 0; i < ARRAY_LEN(formats); i++)
        if (snd_pcm_hw_params_set_format(d->pcm, hw, formats[i]) == 0) {
            d->format = formats[i];
            return 0;
        }
    return -EINVAL;
}

static int set_hardware(struct alsa_device *d, snd_pcm_hw_params_t *hw, struct problems *why)
{
    unsigned rate = (unsigned)d->o.rate, channels = 1;
    snd_pcm_uframes_t period = (snd_pcm_uframes_t)d->o.period, buffer = PERIODS * period;
    int err = snd_pcm_hw_params_any(d->pcm, hw);
    if (err >= 0)
        err = snd_pcm_hw_params_set_access(d->pcm, hw, SND_PCM_ACCESS_RW_INTERLEAVED);
    if (err < 0 || set_format(d, hw) < 0)
        return problem_add(why, -EINVAL, "alsa:%s: takes neither 16 nor 32 bits nor float",
                           d->o.name);
    if (snd_pcm_hw_params_set_channels_near(d->pcm, hw, &channels) < 0 || channels > CHANNELS_MAX)
        return problem_add(why, -EINVAL, "alsa:%s: channels: expected 1 to %d", d->o.name,
                           CHANNELS_MAX);
    d->channels = channels;
    if (snd_pcm_hw_params_set_rate_near(d->pcm, hw, &rate, NULL) < 0 || rate != (unsigned)d->o.rate)
        return problem_add(why, -EINVAL,
                           "alsa:%s: rate: gives %u Hz, expected %d; plug%s would convert",
                           d->o.name, rate, d->o.rate,
                           strncmp(d->o.name, "hw:", 3) == 0 ? d->o.name : "hw:...");
    snd_pcm_hw_params_set_period_size_near(d->pcm, hw, &period, NULL);
    snd_pcm_hw_params_set_buffer_size_near(d->pcm, hw, &buffer);
    err = snd_pcm_hw_params(d->pcm, hw);
    if (err < 0)
        return problem_add(why, -EINVAL, "alsa:%s: refuses its settings: %s", d->o.name,
                           snd_strerror(err));
    return 0;
}

/* Playback starts when all but one period is there, and runs through underruns no further. */
static int set_software(struct alsa_device *d, snd_pcm_uframes_t period, snd_pcm_uframes_t buffer)
{
    snd_pcm_sw_params_t *sw;
    snd_pcm_sw_params_alloca(&sw);
    int err = snd_pcm_sw_params_current(d->pcm, sw);
    snd_pcm_uframes_t start = d->o.direction == AUDIO_PLAYBACK ? buffer - period : 1;
    if (err == 0)
        err = snd_pcm_sw_params_set_start_threshold(d->pcm, sw, start);
    if (err == 0)
        err = snd_pcm_sw_params_set_avail_min(d->pcm, sw, period);
    return err == 0 ? snd_pcm_sw_params(d->pcm, sw) : err;
}

static int set_up(struct alsa_device *d, char *text, struct problems *why)
{
    snd_pcm_hw_params_t *hw;
    snd_pcm_uframes_t period = 0, buffer = 0;
    snd_pcm_hw_params_alloca(&hw);
    int err = set_hardware(d, hw, why);
    if (err < 0)
        return err;
    snd_pcm_hw_params_get_period_size(hw, &period, NULL);
    snd_pcm_hw_params_get_buffer_size(hw, &buffer);
    if (set_software(d, period, buffer) < 0)
        return problem_add(why, -EINVAL, "alsa:%s: refuses its thresholds", d->o.name);
    d->buffer = (snd_pcm_sframes_t)buffer;
    size_t frame = d->channels * (size_t)snd_pcm_format_width(d->format) / 8;
    d->raw = calloc((size_t)d->o.period, frame);
    if (d->raw == NULL)
        return -ENOMEM;
    snprintf(text, AUDIO_TEXT, "alsa:%.60s, %d Hz, %s, %u channels, periods of %lu, buffer of %lu",
             d->o.name, d->o.rate, snd_pcm_format_name(d->format), d->channels, period, buffer);
    err = snd_pcm_prepare(d->pcm);
    if (err == 0 && d->o.direction == AUDIO_CAPTURE)
        err = snd_pcm_start(d->pcm);
    return err < 0
               ? problem_add(why, -EIO, "alsa:%s: does not start: %s", d->o.name, snd_strerror(err))
               : 0;
}

static void alsa_close(void *device)
{
    struct alsa_device *d = device;
    if (d == NULL)
        return;
    if (d->pcm != NULL) {
        snd_pcm_drop(d->pcm);
        snd_pcm_close(d->pcm);
    }
    free(d->raw);
    free(d);
}

static int alsa_open(void **device, const struct audio_device_opts *o, char *text,
                     struct problems *why)
{
    alsa_be_quiet();
    struct alsa_device *d = calloc(1, sizeof(*d));
    if (d == NULL)
        return -ENOMEM;
    d->o = *o;
    if (o->name[0] == '\0')
        snprintf(o->name, AUDIO_NAME, "default");
    by_card_name(o->name, AUDIO_NAME);
    snd_config_update_free_global(); /* cards and servers may have changed */
    int err = snd_pcm_open(&d->pcm, d->o.name, stream_of(o->direction), SND_PCM_NONBLOCK);
    if (err < 0) {
        d->pcm = NULL;
        err = refuse_open(&d->o, err, why);
    } else {
        err = set_up(d, text, why);
    }
    if (err < 0) {
        alsa_close(d);
        return err;
    }
    *device = d;
    return 0;
}

/* ---- moving samples ---- */

/* One sample of the period as it lies in `raw`. */
static float get(const struct alsa_device *d, size_t i)
{
    const void *raw = d->raw;
    if (d->format == SND_PCM_FORMAT_S16)
        return (float)((const int16_t *)raw)[i] / 32768.0f;
    if (d->format == SND_PCM_FORMAT_S32)
        return (float)((const int32_t *)raw)[i] / 2147483648.0f;
    return ((const float *)raw)[i];
}

static void put(const struct alsa_device *d, size_t i, float x)
{
    void *raw = d->raw;
    x = fminf(fmaxf(x, -1.0f), 1.0f);
    if (d->format == SND_PCM_FORMAT_S16)
        ((int16_t *)raw)[i] = (int16_t)lrintf(x * 32767.0f);
    else if (d->format == SND_PCM_FORMAT_S32)
        ((int32_t *)raw)[i] = (int32_t)(x * 2147483520.0f);
    else
        ((float *)raw)[i] = x;
}

static void to_mono(const struct alsa_device *d, float *pcm, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        float sum = 0.0f;
        for (unsigned c = 0; c < d->channels; c++)
            sum += get(d, i * d->channels + c);
        pcm[i] = sum / (float)d->channels;
    }
}

static void from_mono(const struct alsa_device *d, const float *pcm, size_t n)
{
    for (size_t i = 0; i < n; i++)
        for (unsigned c = 0; c < d->channels; c++)
            put(d, i * d->channels + c, pcm[i]);
}

/* An xrun or a suspended machine; anything else is the end. */
static int mend(struct alsa_device *d, int err)
{
    if (err != -EPIPE && err != -ESTRPIPE && err != -EINTR)
        return err;
    if (++d->mends > MENDS_MAX)
        return -EIO;
    d->xrun = d->xrun || err != -EINTR;
    err = snd_pcm_recover(d->pcm, err, 1);
    if (err == 0 && d->o.direction == AUDIO_CAPTURE && d->xrun)
        err = snd_pcm_start(d->pcm);
    return err;
}

/* Moves some frames: how many, -EAGAIN after a while without any, or another negative errno. It
 * looks every 2 ms: snd_pcm_wait with the plugin for PulseAudio returns at once, again and again.
 */
static snd_pcm_sframes_t move_some(struct alsa_device *d, size_t n)
{
    size_t frame = d->channels * (size_t)snd_pcm_format_width(d->format) / 8;
    void *at = d->raw + d->done * frame;
    snd_pcm_sframes_t moved = d->o.direction == AUDIO_CAPTURE ? snd_pcm_readi(d->pcm, at, n)
                                                              : snd_pcm_writei(d->pcm, at, n);
    if (moved != -EAGAIN && moved != 0) {
        d->idle = 0;
        return moved;
    }
    if (++d->idle > IDLES_MAX) {
        d->idle = 0;
        return -EAGAIN;
    }
    audio_sleep_until_ns(audio_now_ns() + IDLE_NS);
    return 0;
}

static int alsa_transfer(void *device, float *pcm, size_t n, struct audio_moment *m)
{
    struct alsa_device *d = device;
    bool capture = d->o.direction == AUDIO_CAPTURE;
    if (!capture && d->done == 0)
        from_mono(d, pcm, n);
    while (d->done < n) {
        snd_pcm_sframes_t moved = move_some(d, n - d->done);
        if (moved == -EAGAIN)
            return -EAGAIN;
        if (moved < 0 && (moved = mend(d, (int)moved)) < 0)
            return (int)moved;
        if (moved > 0)
            d->mends = 0;
        d->done += (size_t)moved;
    }
    snd_pcm_sframes_t delay = 0;
    if (snd_pcm_delay(d->pcm, &delay) < 0 || delay < 0)
        delay = 0;
    if (capture && delay > d->buffer) /* the plugin for PulseAudio makes such figures up */
        delay = 0;
    m->at_ns = audio_now_ns();
    m->delay = delay;
    if (capture)
        to_mono(d, pcm, n);
    bool xrun = d->xrun;
    d->done = 0;
    d->xrun = false;
    return xrun ? AUDIO_XRUN : 0;
}

const struct audio_device_kind audio_alsa = {
    .prefix = "alsa",
    .open = alsa_open,
    .transfer = alsa_transfer,
    .list = alsa_list,
    .close = alsa_close,
};
