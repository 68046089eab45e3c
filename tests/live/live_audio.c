/*
 * tests/live/live_audio.c - the devices in real time, driven by tests/live/audio.sh.
 *
 *   live_audio CAPTURE PLAYBACK loop          what is played comes back: level, delay, place of far
 *   live_audio CAPTURE PLAYBACK restart       says "kill", then "start", as the server is to be
 *                                             treated; sound must be back 2 s after it is up, which
 *                                             a line on standard input says
 *
 * The microphone must hear the loudspeaker. Exit status 0: as it should be.
 */
#include <errno.h>
#include <math.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "audio/audio.h"
#include "audio/ear.h"
#include "base/util.h"

enum { RATE = 48000, PERIOD = 480, SOURCE = 24000, LAG_MAX = 150 }; /* ms */
#define LOUD 0.02f

struct live {
    struct audio *a;
    struct player *p;
    float mic[PERIOD], far[PERIOD];
    int told;
};

static float rms(const float *x)
{
    float sum = 0.0f;
    for (int i = 0; i < PERIOD; i++)
        sum += x[i] * x[i];
    return sqrtf(sum / PERIOD);
}

/* A period from the devices; the player always has something to play. */
static void step(struct live *l, uint32_t answer, const float *pcm, size_t n, size_t *at)
{
    if (*at < n)
        *at += player_write(l->p, answer, pcm + *at, n - *at);
    int set = audio_read(l->a, l->mic, l->far);
    l->told |= set > 0 ? set : 0;
}

static bool warm_up(struct live *l)
{
    size_t none = 0;
    double began = clock_seconds();
    int good = 0;
    while (good < 100 && clock_seconds() - began < 15.0) {
        l->told = 0;
        step(l, 0, NULL, 0, &none);

        good = l->told == 0 ? good + 1 : 0;
    }
    return good == 100;
}

/* Noise in bursts of 200 ms, so that its place is plain. */
static void make_noise(float *pcm, size_t n)
{
    uint32_t seed = 7;
    for (size_t i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        float x = 0.4f * (float)(int32_t)seed / 2147483648.0f;
        pcm[i] = i / (SOURCE / 5) % 2 == 0 ? x : 0.0f;
    }
}

/* Loudness of every millisecond, less its mean. */
static void loudness(const float *x, float *out, size_t n)
{
    float mean = 0.0f;
    for (size_t i = 0; i < n; i++) {
        out[i] = 0.0f;
        for (size_t k = 0; k < RATE / 1000; k++)
            out[i] += fabsf(x[i * (RATE / 1000) + k]);
        mean += out[i] / (float)n;
    }
    for (size_t i = 0; i < n; i++)
        out[i] -= mean;
}

/* The lag in ms at which the loudness of b follows that of a best, and how alike they are there. */
static int best_lag(const float *a, const float *b, size_t n, double *alike)
{
    int best = 0;
    *alike = 0.0;
    for (int lag = -LAG_MAX; lag <= LAG_MAX; lag++) {
        double ab = 0.0, aa = 1e-12, bb = 1e-12;
        for (size_t i = LAG_MAX; i + LAG_MAX < n; i++) {
            double x = a[i], y = b[(long)i + lag];
            ab += x * y;
            aa += x * x;
            bb += y * y;
        }
        if (ab / sqrt(aa * bb) > *alike) {
            *alike = ab / sqrt(aa * bb);
            best = lag;
        }
    }
    return best;
}

static int loop(struct live *l)
{
    enum { SECONDS = 8, N = SECONDS * 100, FROM = 4000, LAST = SECONDS * 1000 - FROM };
    static float noise[SECONDS * SOURCE], mic[N * PERIOD], far[N * PERIOD];
    static float mic_loud[SECONDS * 1000], far_loud[SECONDS * 1000];
    struct ear *ear = NULL;
    struct ear_frame heard = {.erle = 0.0f};
    if (ear_open(&ear, NULL, NULL) < 0)
        return 1;
    size_t at = 0;
    int first_mic = -1;
    struct audio_stats s;
    make_noise(noise, ARRAY_LEN(noise));
    player_begin(l->p, 1);
    player_play(l->p, 1);
    for (int i = 0; i < N; i++) {
        step(l, 1, noise, ARRAY_LEN(noise), &at);
        ear_period(ear, l->mic, l->far, &heard);
        memcpy(mic + i * PERIOD, l->mic, sizeof(l->mic));
        memcpy(far + i * PERIOD, l->far, sizeof(l->far));
        if (first_mic < 0 && rms(l->mic) > LOUD)
            first_mic = i;
    }
    audio_stats(l->a, &s);
    double alike;
    loudness(mic, mic_loud, SECONDS * 1000);
    loudness(far, far_loud, SECONDS * 1000);
    int lag = best_lag(far_loud + FROM, mic_loud + FROM, LAST, &alike);
    ear_close(ear);
    printf("%s | %s\n", s.capture, s.playback);
    printf("heard after %d ms; far end %d ms before it, alike %.2f, erle %.0f dB; delay %.0f ms, "
           "round trip "
           "%.0f ms, drift %.0f ppm; xruns %d/%d\n",
           first_mic * 10, lag, alike, heard.erle, (double)s.play_delay / 48.0,
           (double)s.round_trip / 48.0, s.drift_ppm, (int)s.overruns, (int)s.underruns);
    return first_mic >= 0 && first_mic < 50 && alike > 0.6 && lag > -40 && lag < 80 ? 0 : 1;
}

static bool line_waits(void)
{
    struct pollfd p = {.fd = STDIN_FILENO, .events = POLLIN};
    char text[64];
    return poll(&p, 1, 0) == 1 && read(STDIN_FILENO, text, sizeof(text)) > 0;
}

/* Goes on until all of `wanted` was told, a line came (*up_at: when), or the seconds are over. */
static bool go_on(struct live *l, int wanted, double seconds, double *up_at)
{
    static float noise[SOURCE * 10];
    static size_t at;
    static uint32_t answer;
    double began = clock_seconds();
    while ((l->told & wanted) != wanted && clock_seconds() - began < seconds) {
        struct player_state s;
        player_state(l->p, &s);
        if (answer == 0 || at == ARRAY_LEN(noise)) {
            player_drop(l->p, answer);
            make_noise(noise, ARRAY_LEN(noise));
            player_begin(l->p, ++answer);
            player_play(l->p, answer);
            at = 0;
        }
        step(l, answer, noise, ARRAY_LEN(noise), &at);
        if (*up_at == 0.0 && line_waits())
            *up_at = clock_seconds();
        if ((wanted & AUDIO_END) != 0 && rms(l->mic) > LOUD)
            return true; /* waiting for sound */
    }
    return (l->told & wanted) == wanted;
}

static int restart(struct live *l)
{
    const int lost = AUDIO_MIC_LOST | AUDIO_SPEAKER_LOST,
              back = AUDIO_MIC_BACK | AUDIO_SPEAKER_BACK;
    double up_at = 0.0, none = -1.0;
    if (!go_on(l, AUDIO_END, 5.0, &none)) {
        printf("no sound before the server was killed\n");
        return 1;
    }
    l->told = 0;
    printf("kill\n");
    double killed = clock_seconds();
    if (!go_on(l, lost, 10.0, &none)) {
        printf("the loss was not told: %x\n", (unsigned)l->told);
        return 1;
    }
    printf("both told lost after %.2f s\n", clock_seconds() - killed);
    l->told = 0;
    printf("start\n");
    if (!go_on(l, back, 20.0, &up_at)) {
        printf("not told back: %x\n", (unsigned)l->told);
        return 1;
    }
    bool sounds = go_on(l, AUDIO_END, 5.0, &up_at);
    double took = up_at > 0.0 ? clock_seconds() - up_at : 0.0;
    printf("%s %.2f s after the server was up\n", sounds ? "sound back" : "no sound", took);
    return sounds && took <= 2.0 ? 0 : 1;
}

int main(int argc, char **argv)
{
    struct live l = {0};
    struct problems why = {0};
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (argc != 4)
        return 2;
    if (player_open(&l.p, NULL, NULL) < 0)
        return 2;
    const struct audio_opts o = {.capture = argv[1],
                                 .playback = argv[2],
                                 .realtime = true,
                                 .player = l.p};
    int result = 1;
    if (audio_open(&l.a, &o, &why) < 0)
        printf("%s\n", why.n > 0 ? why.text[0] : "cannot be opened");
    else if (!warm_up(&l))
        printf("the microphone gives no even stream\n");
    else
        result = strcmp(argv[3], "loop") == 0 ? loop(&l) : restart(&l);
    problems_free(&why);
    audio_close(l.a);
    player_close(l.p);
    return result;
}
