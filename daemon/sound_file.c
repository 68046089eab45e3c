/* daemon/sound_file.c - libsndfile and libsoxr around the questions and answers of `parley ask`. */
#include "daemon/sound_file.h"

#include <errno.h>
#include <math.h>
#include <sndfile.h>
#include <soxr.h>
#include <stdlib.h>
#include <string.h>

#define SILENCE        1e-4f /* -80 dBFS */
#define PER_SECOND_MIN 100   /* a sound is one mel frame at least: 10 ms */
#define SECONDS_MAX    (24 * 3600.0)
#define FRAMES_BLOCK   4096
#define CHANNELS_MAX   64
#define RATE_MIN       1000
#define RATE_MAX       768000

struct sound_writer {
    SNDFILE *file;
    char *path;
};

static int check_info(const SF_INFO *info, const char *path, struct problems *why)
{
    if (info->channels < 1 || info->channels > CHANNELS_MAX)
        return problem_add(why, -EINVAL, "%s: channels: found %d, expected 1 to %d", path,
                           info->channels, CHANNELS_MAX);
    if (info->samplerate < RATE_MIN || info->samplerate > RATE_MAX)
        return problem_add(why, -EINVAL, "%s: sample rate: found %d Hz, expected %d to %d Hz", path,
                           info->samplerate, RATE_MIN, RATE_MAX);
    if (info->frames == 0)
        return problem_add(why, -EINVAL, "%s: found 0 samples, expected sound", path);
    double seconds = (double)info->frames / info->samplerate;
    if (seconds < 0 || seconds > SECONDS_MAX)
        return problem_add(why, -EINVAL, "%s: length: found %.0f s, expected at most %.0f s", path,
                           seconds, SECONDS_MAX);
    return 0;
}

static SNDFILE *open_file(const char *path, SF_INFO *info, struct problems *why)
{
    *info = (SF_INFO){0};
    SNDFILE *f = sf_open(path, SFM_READ, info);
    if (f == NULL) {
        problem_add(why, -EINVAL, "%s: not a readable sound file: %s", path, sf_strerror(NULL));
        return NULL;
    }
    if (check_info(info, path, why) == 0)
        return f;
    sf_close(f);
    return NULL;
}

double sound_file_seconds(const char *path, struct problems *why)
{
    SF_INFO info;
    SNDFILE *f = open_file(path, &info, why);
    if (f == NULL)
        return -EINVAL;
    sf_close(f);
    return (double)info.frames / info.samplerate;
}

/* All frames averaged to mono; returns how many there really were. */
static size_t read_mono(SNDFILE *f, const SF_INFO *info, float *block, float *mono)
{
    size_t n = 0, room = (size_t)info->frames;
    sf_count_t got;
    while (n < room && (got = sf_readf_float(f, block, FRAMES_BLOCK)) > 0) {
        for (sf_count_t i = 0; i < got && n < room; i++) {
            float sum = 0.0f;
            for (int c = 0; c < info->channels; c++)
                sum += block[i * info->channels + c];
            mono[n++] = sum / (float)info->channels;
        }
    }
    return n;
}

static int check_samples(const float *x, size_t n, const char *path, struct problems *why)
{
    float peak = 0.0f;
    for (size_t i = 0; i < n; i++) {
        if (!isfinite(x[i]))
            return problem_add(why, -EINVAL, "%s: sample %zu: found %s, expected a finite number",
                               path, i, isnan(x[i]) ? "not a number" : "infinity");
        peak = fmaxf(peak, fabsf(x[i]));
    }
    if (n == 0)
        return problem_add(why, -EINVAL, "%s: found 0 samples, expected sound", path);
    if (peak < SILENCE)
        return problem_add(why, -EINVAL,
                           "%s: silent: the loudest of %zu samples is %.1e of full scale, expected "
                           "at least %.0e",
                           path, n, (double)peak, (double)SILENCE);
    return 0;
}

/* mono[n] from rate `from` to rate `to`; frees or hands on `mono`. */
static int resample(float **pcm, size_t *count, float *mono, size_t n, int from, int to)
{
    if (from == to) {
        *pcm = mono;
        *count = n;
        return 0;
    }
    size_t room = (size_t)ceil((double)n * to / from) + 16, done = 0;
    soxr_quality_spec_t quality = soxr_quality_spec(SOXR_HQ, 0);
    soxr_runtime_spec_t runtime = soxr_runtime_spec(1);
    float *out = malloc(room * sizeof(*out));
    soxr_error_t failed = out == NULL ? "no memory" : NULL;
    if (failed == NULL)
        failed =
            soxr_oneshot(from, to, 1, mono, n, NULL, out, room, &done, NULL, &quality, &runtime);
    free(mono);
    if (failed != NULL) {
        free(out);
        return -ENOMEM;
    }
    *pcm = out;
    *count = done;
    return 0;
}

int sound_file_read(float **pcm, size_t *n, const char *path, struct problems *why)
{
    return sound_file_read_at(pcm, n, path, QUESTION_RATE, why);
}

int sound_file_read_at(float **pcm, size_t *n, const char *path, int rate, struct problems *why)
{
    SF_INFO info;
    SNDFILE *f = open_file(path, &info, why);
    if (f == NULL)
        return -EINVAL;
    int err = -ENOMEM;
    float *block = malloc((size_t)FRAMES_BLOCK * info.channels * sizeof(*block));
    float *mono = malloc((size_t)info.frames * sizeof(*mono));
    if (block == NULL || mono == NULL) {
        problem_add(why, err, "%s: no memory for its %lld samples", path, (long long)info.frames);
        goto out;
    }
    size_t got = read_mono(f, &info, block, mono);
    err = sf_error(f) == SF_ERR_NO_ERROR
              ? check_samples(mono, got, path, why)
              : problem_add(why, -EIO, "%s: cannot be read to its end: %s", path, sf_strerror(f));
    if (err < 0)
        goto out;
    err = resample(pcm, n, mono, got, info.samplerate, rate);
    mono = NULL;
    if (err == 0 && *n < (size_t)(rate / PER_SECOND_MIN)) {
        err = problem_add(why, -EINVAL, "%s: found %zu samples at %d kHz, expected at least %d",
                          path, *n, rate / 1000, rate / PER_SECOND_MIN);
        free(*pcm);
        *pcm = NULL;
    }
out:
    free(mono);
    free(block);
    sf_close(f);
    return err;
}

int sound_writer_open(struct sound_writer **ret, const char *path, int rate, int channels,
                      struct problems *why)
{
    struct sound_writer *w = calloc(1, sizeof(*w));
    SF_INFO info = {.samplerate = rate,
                    .channels = channels,
                    .format = SF_FORMAT_WAV | SF_FORMAT_PCM_16};
    if (w == NULL || (w->path = strdup(path)) == NULL) {
        free(w);
        return -ENOMEM;
    }
    w->file = sf_open(path, SFM_WRITE, &info);
    if (w->file == NULL) {
        problem_add(why, -EIO, "%s: cannot be written: %s", path, sf_strerror(NULL));
        sound_writer_close(w, NULL);
        return -EIO;
    }
    sf_command(w->file, SFC_SET_CLIPPING, NULL, SF_TRUE);
    *ret = w;
    return 0;
}

int sound_writer_add(struct sound_writer *w, const float *pcm, size_t n, struct problems *why)
{
    if (sf_write_float(w->file, pcm, (sf_count_t)n) == (sf_count_t)n)
        return 0;
    return problem_add(why, -EIO, "%s: cannot be written: %s", w->path, sf_strerror(w->file));
}

int sound_writer_close(struct sound_writer *w, struct problems *why)
{
    int err = 0;
    if (w == NULL)
        return 0;
    if (w->file != NULL && sf_close(w->file) != 0)
        err = problem_add(why, -EIO, "%s: cannot be completed", w->path);
    free(w->path);
    free(w);
    return err;
}
