/*
 * tools/vad_track.c - what the voice activity detector makes of recordings, and what it costs.
 *
 *     vad_track WEIGHTS [on=0.5] [off=0.35] [rise=0.15] [min=32] [hang=200] [pre=200] FILE.wav...
 *     vad_track WEIGHTS bench
 *
 * For every file (mono, 16 kHz) lines of:
 *     file PATH SAMPLES | chunk END PROBABILITY | start FROM AT KNOWN | end FROM AT KNOWN
 * with positions in samples. tools/vad_eval.py reads them. `bench` times a minute of noise in 10 ms
 * pieces, several times, and prints the best and the median.
 */
#include <sndfile.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "vad/vad.h"

enum { PIECE = VAD_RATE / 100, RUNS = 9, BENCH_SECONDS = 60 };

static int fail(const char *what, const char *why)
{
    fprintf(stderr, "vad_track: %s: %s\n", what, why);
    return 1;
}

static void feed(struct vad *v, const float *pcm, size_t n, int print)
{
    struct vad_event event;
    struct vad_now now;
    while (n > 0) {
        size_t used = vad_feed(v, pcm, n, &event);
        pcm += used;
        n -= used;
        if (!print)
            continue;
        vad_now(v, &now);
        if (now.position % VAD_CHUNK == 0)
            printf("chunk %lld %.7f\n", (long long)now.position, (double)now.probability);
        if (event.kind != VAD_NONE)
            printf("%s %lld %lld %lld\n", event.kind == VAD_START ? "start" : "end",
                   (long long)event.from, (long long)event.at, (long long)event.known);
    }
}

static int track(struct vad *v, const char *path)
{
    SF_INFO info = {0};
    SNDFILE *f = sf_open(path, SFM_READ, &info);
    if (f == NULL)
        return fail(path, sf_strerror(NULL));
    int err = info.channels == 1 && info.samplerate == VAD_RATE ? 0 : 1;
    if (err)
        fail(path, "expected mono sound at 16 kHz");
    /* 32 divides 512, so a chunk always ends with a piece. */
    float pcm[32];
    sf_count_t n;
    printf("file %s %lld\n", path, (long long)info.frames);
    vad_reset(v, 0);
    while (!err && (n = sf_read_float(f, pcm, ARRAY_LEN(pcm))) > 0)
        feed(v, pcm, (size_t)n, 1);
    sf_close(f);
    return err;
}

static void bench(struct vad *v)
{
    static float pcm[BENCH_SECONDS * VAD_RATE];
    double seconds[RUNS];
    uint32_t state = 1;
    for (size_t i = 0; i < ARRAY_LEN(pcm); i++) {
        state = state * 1664525u + 1013904223u;
        pcm[i] = (float)(int32_t)state * 0x1p-34f;
    }
    for (int run = 0; run < RUNS; run++) {
        vad_reset(v, 0);
        double began = clock_seconds();
        for (size_t i = 0; i < ARRAY_LEN(pcm); i += PIECE)
            feed(v, pcm + i, PIECE, 0);
        seconds[run] = clock_seconds() - began;
    }
    qsort(seconds, RUNS, sizeof(*seconds), by_double);
    printf("bench: %.3f %% of one core in real time (median %.3f %%), %.0f us a chunk of 32 ms\n",
           100 * seconds[0] / BENCH_SECONDS, 100 * seconds[RUNS / 2] / BENCH_SECONDS,
           1e6 * seconds[0] / ((double)ARRAY_LEN(pcm) / VAD_CHUNK));
}

/* 1 when `arg` is a setting. */
static int setting(struct vad_opts *o, const char *arg)
{
    const char *names[] = {"on=", "off=", "rise=", "min=", "hang=", "pre="};
    float *reals[] = {&o->threshold_on, &o->threshold_off, &o->threshold_rise};
    int *times[] = {&o->min_speech_ms, &o->hang_ms, &o->pre_roll_ms};
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        size_t n = strlen(names[i]);
        if (strncmp(arg, names[i], n) != 0)
            continue;
        if (i < 3)
            *reals[i] = strtof(arg + n, NULL);
        else
            *times[i - 3] = (int)strtol(arg + n, NULL, 10);
        return 1;
    }
    return 0;
}

int main(int argc, char **argv)
{
    if (argc < 3)
        return fail("usage",
                    "vad_track WEIGHTS [on=0.5 ...] FILE.wav... | vad_track WEIGHTS bench");
    struct vad_opts o = {.path = argv[1]};
    struct problems why = {0};
    struct vad *v = NULL;
    int i = 2, err = 0;
    while (i < argc && setting(&o, argv[i]))
        i++;
    if (vad_open(&v, &o, &why) < 0) {
        fail("open", why.n ? why.text[0] : "no reason given");
        problems_free(&why);
        return 1;
    }
    for (; i < argc && !err; i++)
        if (strcmp(argv[i], "bench") == 0)
            bench(v);
        else
            err = track(v, argv[i]);
    vad_close(v);
    return err;
}
