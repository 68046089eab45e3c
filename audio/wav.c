/*
 * audio/wav.c - a recording as microphone, a file as loudspeaker.
 *
 * The recording is read and resampled as a whole when it is opened. What is played goes to the file
 * at once when nothing is paced; else through a ring to a thread of its own, since an audio thread
 * writes no files.
 */
#include <errno.h>
#include <sndfile.h>
#include <soxr.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "audio/device.h"
#include "base/ring.h"
#include "base/thread.h"
#include "base/util.h"

enum { BLOCK = 4096, RING_SECONDS = 10, HOURS_MAX = 4, CHANNELS_MAX = 64 };

struct wav_device {
    struct audio_device_opts o;
    int64_t next_ns;
    float *pcm; /* of the recording */
    size_t n, at;
    SNDFILE *file; /* to be written */
    struct ring *ring;
    struct thread writer;
    bool writing;
    _Atomic bool stop, failed; /* failed: not everything could be written */
};

static int refuse(struct problems *why, const char *path, const char *sentence)
{
    return problem_add(why, -EINVAL, "wav:%s: %s", path, sentence);
}

/* All frames averaged to mono. */
static size_t read_mono(SNDFILE *f, int channels, float *mono, size_t room)
{
    float *block = malloc((size_t)BLOCK * (size_t)channels * sizeof(float));
    size_t n = 0;
    sf_count_t got;
    while (block != NULL && n < room && (got = sf_readf_float(f, block, BLOCK)) > 0)
        for (sf_count_t i = 0; i < got && n < room; i++) {
            float sum = 0.0f;
            for (int c = 0; c < channels; c++)
                sum += block[i * channels + c];
            mono[n++] = sum / (float)channels;
        }
    free(block);
    return n;
}

static int resample_all(struct wav_device *d, float *mono, size_t n, int rate)
{
    size_t room = (size_t)((double)n * d->o.rate / rate) + 16;
    const soxr_quality_spec_t quality = soxr_quality_spec(SOXR_HQ, 0);
    const soxr_runtime_spec_t runtime = soxr_runtime_spec(1);
    d->pcm = malloc(room * sizeof(float));
    if (d->pcm == NULL)
        return -ENOMEM;
    soxr_error_t failed = soxr_oneshot(rate, d->o.rate, 1, mono, n, NULL, d->pcm, room, &d->n, NULL,
                                       &quality, &runtime);
    return failed != NULL ? -ENOMEM : 0;
}

static int load(struct wav_device *d, struct problems *why)
{
    SF_INFO info = {0};
    SNDFILE *f = sf_open(d->o.name, SFM_READ, &info);
    if (f == NULL)
        return problem_add(why, -ENODEV, "wav:%s: not a readable sound file: %s", d->o.name,
                           sf_strerror(NULL));
    int err = 0;
    float *mono = NULL;
    if (info.frames < 1)
        err = refuse(why, d->o.name, "found 0 samples, expected sound");
    else if (info.channels < 1 || info.channels > CHANNELS_MAX)
        err = refuse(why, d->o.name, "channels: expected 1 to 64");
    else if (info.samplerate < 1000 || info.frames / info.samplerate > HOURS_MAX * 3600)
        err = refuse(why, d->o.name, "length: expected at most 4 hours");
    else if ((mono = malloc((size_t)info.frames * sizeof(float))) == NULL)
        err = -ENOMEM;
    size_t n = err == 0 ? read_mono(f, info.channels, mono, (size_t)info.frames) : 0;
    if (err == 0 && sf_error(f) != SF_ERR_NO_ERROR)
        err = problem_add(why, -EIO, "wav:%s: cannot be read to its end: %s", d->o.name,
                          sf_strerror(f));
    if (err == 0)
        err = resample_all(d, mono, n, info.samplerate);
    free(mono);
    sf_close(f);
    return err;
}

static void write_out(struct wav_device *d)
{
    const void *pcm;
    size_t n;
    while ((n = ring_read_begin(d->ring, &pcm, BLOCK)) > 0) {
        if (sf_write_float(d->file, pcm, (sf_count_t)n) != (sf_count_t)n)
            atomic_store(&d->failed, true);
        ring_read_end(d->ring, n);
    }
}

static void *writer(void *arg)
{
    struct wav_device *d = arg;
    while (!atomic_load(&d->stop)) {
        write_out(d);
        audio_sleep_until_ns(audio_now_ns() + 50000000);
    }
    write_out(d);
    return NULL;
}

static int create(struct wav_device *d, struct problems *why)
{
    SF_INFO info = {.samplerate = d->o.rate,
                    .channels = 1,
                    .format = SF_FORMAT_WAV | SF_FORMAT_PCM_16};
    d->file = sf_open(d->o.name, SFM_WRITE, &info);
    if (d->file == NULL)
        return problem_add(why, -EIO, "wav:%s: cannot be written: %s", d->o.name,
                           sf_strerror(NULL));
    sf_command(d->file, SFC_SET_CLIPPING, NULL, SF_TRUE);
    if (d->o.unpaced)
        return 0;
    int err = ring_open(&d->ring, sizeof(float), (size_t)(RING_SECONDS * d->o.rate), 0);
    if (err == 0)
        err = thread_start(&d->writer, "wav writer", writer, d);
    d->writing = err == 0;
    return err;
}

static void wav_close(void *device)
{
    struct wav_device *d = device;
    if (d == NULL)
        return;
    if (d->writing) {
        atomic_store(&d->stop, true);
        thread_join(&d->writer);
    }
    if (d->file != NULL)
        sf_close(d->file);
    ring_close(d->ring);
    free(d->pcm);
    free(d);
}

static int wav_open(void **device, const struct audio_device_opts *o, char *text,
                    struct problems *why)
{
    if (o->name[0] == '\0')
        return problem_add(why, -EINVAL, "wav: no file named, expected wav:PATH");
    struct wav_device *d = calloc(1, sizeof(*d));
    if (d == NULL)
        return -ENOMEM;
    d->o = *o;
    int err = o->direction == AUDIO_CAPTURE ? load(d, why) : create(d, why);
    if (err < 0) {
        wav_close(d);
        return err;
    }
    snprintf(text, AUDIO_TEXT, "wav:%.80s, %d Hz, %s", o->name, o->rate,
             o->unpaced ? "unpaced" : "paced");
    *device = d;
    return 0;
}

static int wav_transfer(void *device, float *pcm, size_t n, struct audio_moment *m)
{
    struct wav_device *d = device;
    audio_pace(&d->next_ns, &d->o, n, m);
    if (d->o.direction == AUDIO_PLAYBACK) {
        if (d->ring != NULL)
            ring_write(d->ring, pcm, n);
        else if (sf_write_float(d->file, pcm, (sf_count_t)n) != (sf_count_t)n)
            atomic_store(&d->failed, true);
        return atomic_load(&d->failed) ? -EIO : 0;
    }
    size_t k = min_size(n, d->n - d->at);
    memcpy(pcm, d->pcm + d->at, k * sizeof(float));
    memset(pcm + k, 0, (n - k) * sizeof(float));
    d->at += k;
    return k < n ? AUDIO_OVER : 0;
}

static void wav_list(FILE *out, enum audio_direction direction, struct pa_host *host)
{
    (void)direction;
    (void)host;
    fprintf(out, "wav:PATH\n");
}

const struct audio_device_kind audio_wav = {
    .prefix = "wav",
    .open = wav_open,
    .transfer = wav_transfer,
    .list = wav_list,
    .close = wav_close,
};
