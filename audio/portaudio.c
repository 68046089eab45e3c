/*
 * audio/portaudio.c - PortAudio, the second choice beside ALSA.
 *
 * Samples are moved by the blocking calls, but only as many as are said to be there, so that
 * nothing ever blocks in them: PortAudio does not report a device that went away, its streams just
 * stop. Its list of devices is that of the last Pa_Initialize, which happens only when nobody uses
 * it: a device that is plugged in later is found once both sides have been closed. So when one side
 * cannot be opened, it asks the other to let go for a moment (`wanted`).
 *
 * Pa_* is not safe to be called by several threads when it opens or closes; a lock is held there,
 * never while samples are moved.
 */
#include <dlfcn.h>
#include <errno.h>
#include <math.h>
#include <portaudio.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "audio/device.h"
#include "base/util.h"

enum { POLL_NS = 2000000, POLLS = 50, NAMES_BYTES = 512 };
#define LATENCY_S                                                                                  \
    0.04 /* of the loudspeaker: as many periods as with ALSA; its own 20 ms run dry                \
          */
#define ASK_NS INT64_C(5000000000)

struct pa_host {
    pthread_mutex_t lock;
    int users;           /* open devices */
    int64_t asked_ns;    /* when a side last asked the other one to let go */
    _Atomic bool wanted; /* ... and it has not yet */
};

struct pa_device {
    struct audio_device_opts o;
    PaStream *stream;
    size_t done;
    bool counted, xrun;
    double latency; /* seconds, of the stream */
};

int pa_host_open(struct pa_host **ret)
{
    struct pa_host *h = calloc(1, sizeof(*h));
    if (h == NULL)
        return -ENOMEM;
    pthread_mutex_init(&h->lock, NULL);
    *ret = h;
    return 0;
}

void pa_host_close(struct pa_host *h)
{
    if (h == NULL)
        return;
    pthread_mutex_destroy(&h->lock);
    free(h);
}

/* ---- with the lock held ---- */

static bool fits(const PaDeviceInfo *info, enum audio_direction d)
{
    return d == AUDIO_CAPTURE ? info->maxInputChannels > 0 : info->maxOutputChannels > 0;
}

static PaDeviceIndex find(const char *name, enum audio_direction d)
{
    if (name[0] == '\0' || strcmp(name, "default") == 0)
        return d == AUDIO_CAPTURE ? Pa_GetDefaultInputDevice() : Pa_GetDefaultOutputDevice();
    for (PaDeviceIndex i = 0; i < Pa_GetDeviceCount(); i++) {
        const PaDeviceInfo *info = Pa_GetDeviceInfo(i);
        if (fits(info, d) && strcmp(info->name, name) == 0)
            return i;
    }
    return paNoDevice;
}

static void collect_names(char *text, enum audio_direction d)
{
    size_t used = 0;
    for (PaDeviceIndex i = 0; i < Pa_GetDeviceCount() && used + 64 < NAMES_BYTES; i++) {
        const PaDeviceInfo *info = Pa_GetDeviceInfo(i);
        if (fits(info, d))
            used += (size_t)snprintf(text + used, NAMES_BYTES - used, "%s%.50s",
                                     used > 0 ? ", " : "", info->name);
    }
}

static int refuse(const struct audio_device_opts *o, const char *cause, int err,
                  struct problems *why)
{
    char names[NAMES_BYTES] = "";
    collect_names(names, o->direction);
    return problem_add(why, err, "portaudio:%s: this %s cannot be opened (%s); there are: %s",
                       o->name, o->direction == AUDIO_CAPTURE ? "microphone" : "loudspeaker", cause,
                       names[0] != '\0' ? names : "none");
}

static int open_stream(struct pa_device *d, PaDeviceIndex index, struct problems *why)
{
    const PaDeviceInfo *info = Pa_GetDeviceInfo(index);
    bool capture = d->o.direction == AUDIO_CAPTURE;
    double latency =
        capture ? info->defaultLowInputLatency : fmax(info->defaultLowOutputLatency, LATENCY_S);
    const PaStreamParameters p = {.device = index,
                                  .channelCount = 1,
                                  .sampleFormat = paFloat32,
                                  .suggestedLatency = latency};
    PaError err = Pa_OpenStream(&d->stream, capture ? &p : NULL, capture ? NULL : &p, d->o.rate,
                                (unsigned long)d->o.period, paNoFlag, NULL, NULL);
    if (err != paNoError) {
        d->stream = NULL;
        return refuse(&d->o, Pa_GetErrorText(err), err == paDeviceUnavailable ? -EBUSY : -ENODEV,
                      why);
    }
    err = Pa_StartStream(d->stream);
    if (err != paNoError)
        return refuse(&d->o, Pa_GetErrorText(err), -EIO, why);
    const PaStreamInfo *s = Pa_GetStreamInfo(d->stream);
    d->latency = s == NULL ? 0.0 : capture ? s->inputLatency : s->outputLatency;
    return 0;
}

static void no_message(const char *text)
{
    (void)text;
}

/* JACK's library, if PortAudio was built with it, would say that no server runs. */
static void jack_be_quiet(void)
{
    static const char *const setters[] = {"jack_set_error_function", "jack_set_info_function"};
    for (size_t i = 0; i < ARRAY_LEN(setters); i++) {
        union {
            void *found;
            void (*call)(void (*)(const char *));
        } set = {dlsym(RTLD_DEFAULT, setters[i])};
        if (set.found != NULL)
            set.call(no_message);
    }
}

/* The libraries below it write nothing to the terminal from now on. */
static PaError initialize(void)
{
    alsa_be_quiet();
    jack_be_quiet();
    return Pa_Initialize();
}

static int open_locked(struct pa_device *d, struct problems *why)
{
    PaError err = initialize();
    if (err != paNoError)
        return problem_add(why, -ENODEV, "portaudio: %s", Pa_GetErrorText(err));
    d->counted = true;
    d->o.host->users++;
    PaDeviceIndex index = find(d->o.name, d->o.direction);
    if (index == paNoDevice)
        return refuse(&d->o, "no such device", -ENODEV, why);
    return open_stream(d, index, why);
}

static void close_locked(struct pa_device *d)
{
    if (d->stream != NULL)
        Pa_AbortStream(d->stream);
    if (d->stream != NULL)
        Pa_CloseStream(d->stream);
    if (!d->counted)
        return;
    d->o.host->users--;
    Pa_Terminate();
}

/* The list may be an old one; now and then that is worth an interruption of the other side. */
static void ask_other(struct pa_host *h)
{
    int64_t now = audio_now_ns();
    if (h->users == 0 || now - h->asked_ns < ASK_NS)
        return;
    h->asked_ns = now;
    atomic_store(&h->wanted, true);
}

/* ---- the kind ---- */

static void pa_close(void *device)
{
    struct pa_device *d = device;
    if (d == NULL)
        return;
    pthread_mutex_lock(&d->o.host->lock);
    close_locked(d);
    pthread_mutex_unlock(&d->o.host->lock);
    free(d);
}

static int pa_open(void **device, const struct audio_device_opts *o, char *text,
                   struct problems *why)
{
    struct pa_device *d = calloc(1, sizeof(*d));
    if (d == NULL)
        return -ENOMEM;
    d->o = *o;
    pthread_mutex_lock(&o->host->lock);
    int err = open_locked(d, why);
    if (err < 0) {
        close_locked(d);
        ask_other(o->host);
    }
    pthread_mutex_unlock(&o->host->lock);
    if (err < 0) {
        free(d);
        return err;
    }
    snprintf(text, AUDIO_TEXT, "portaudio:%.60s, %d Hz, periods of %d, latency %.0f ms", o->name,
             o->rate, o->period, 1e3 * d->latency);
    *device = d;
    return 0;
}

/* Waits until n samples can be moved without blocking. */
static int wait_for(struct pa_device *d, size_t n)
{
    for (int i = 0; i < POLLS; i++) {
        signed long there = d->o.direction == AUDIO_CAPTURE ? Pa_GetStreamReadAvailable(d->stream)
                                                            : Pa_GetStreamWriteAvailable(d->stream);
        if (there < 0 && there != paInputOverflowed && there != paOutputUnderflowed)
            return -EIO;
        if (there >= (signed long)n)
            return 0;
        audio_sleep_until_ns(audio_now_ns() + POLL_NS);
    }
    return -EAGAIN;
}

/* What lies between us and the converter, as far as PortAudio tells. */
static int64_t delay_of(const struct pa_device *d)
{
    double whole = d->latency * d->o.rate;
    signed long room = d->o.direction == AUDIO_PLAYBACK ? Pa_GetStreamWriteAvailable(d->stream) : 0;
    return llround(fmax(whole - (room > 0 ? (double)room : 0.0), 0.0));
}

static int pa_transfer(void *device, float *pcm, size_t n, struct audio_moment *m)
{
    struct pa_device *d = device;
    if (atomic_exchange(&d->o.host->wanted, false))
        return -ESTALE;
    int err = wait_for(d, n);
    if (err < 0)
        return err;
    PaError moved = d->o.direction == AUDIO_CAPTURE ? Pa_ReadStream(d->stream, pcm, n)
                                                    : Pa_WriteStream(d->stream, pcm, n);
    m->at_ns = audio_now_ns();
    m->delay = delay_of(d);
    if (moved == paInputOverflowed || moved == paOutputUnderflowed)
        return AUDIO_XRUN;
    return moved == paNoError ? 0 : -EIO;
}

static void pa_list(FILE *out, enum audio_direction direction, struct pa_host *host)
{
    pthread_mutex_lock(&host->lock);
    if (initialize() == paNoError) {
        for (PaDeviceIndex i = 0; i < Pa_GetDeviceCount(); i++)
            if (fits(Pa_GetDeviceInfo(i), direction))
                fprintf(out, "portaudio:%s\n", Pa_GetDeviceInfo(i)->name);
        Pa_Terminate();
    }
    pthread_mutex_unlock(&host->lock);
}

const struct audio_device_kind audio_portaudio = {
    .prefix = "portaudio",
    .open = pa_open,
    .transfer = pa_transfer,
    .list = pa_list,
    .close = pa_close,
};
