/*
 * audio/near.c - is there more in the microphone than our own echo?
 *
 * In each of 18 bands (evenly spaced in mel), over windows of 20 ms:
 *
 *     z = rest / (leak * echo + noise)          in dB, at most Z_MAX
 *
 * echo   power of the predicted echo, and a little of all bands' in each: a loudspeaker that bends
 *        fills the gaps. It decays no faster than in a room, so that a tail that is longer than the
 *        filter is covered
 * leak   what usually remains of it: the running 80 % quantile of rest / echo while there is echo.
 *        It follows slowly, and hardly at all while somebody talks
 * noise  the running minimum of the rest, raised to where noise seldom gets
 *
 * A voice over another stands out where the other has gaps in its spectrum: so the mean of the few
 * highest z counts, smoothed over about 80 ms. Where it stands for echo alone and for a person was
 * measured in simulated rooms (tests/unit/test_ear.c repeats it in small).
 */
#include "audio/near.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "audio/fft.h"
#include "base/util.h"

enum {
    BANDS = 18,
    HIGHEST = 5,   /* bands that count */
    ECHO_MIN = 4,  /* bands with echo that make a period worth learning from */
    FIRST = 50,    /* such periods in which it may be all echo, whatever the score */
    SETTLED = 200, /* ... until the leak is trusted */
    WINDOW = 2 * NEAR_PERIOD,
};
#define LOW_HZ     150.0f
#define HIGH_HZ    7200.0f
#define TAIL       0.85f   /* of the echo's power from period to period: 0.7 dB, RT60 0.85 s */
#define SPREAD     0.1f    /* of the mean power of all bands, in each */
#define QUANTILE   0.8f    /* of the rest over the echo that the leak follows */
#define STEP_FIRST 1.0f    /* dB a period, until settled */
#define STEP       0.2f    /* ... later */
#define STEP_NEAR  0.02f   /* ... while somebody talks */
#define NOISE_RISE 1.005f  /* a period: 2 dB a second */
#define NOISE_OVER 6.0f    /* of the minimum */
#define Z_MIN      (-5.0f) /* dB */
#define Z_MAX      25.0f
#define SMOOTH     0.12f
#define HELD       2.0f  /* score from which the leak is held */
#define EVEN       7.8f  /* score that is as likely echo as not: beyond all echoes measured */
#define SLOPE      0.8f  /* of the likelihood around it */
#define TINY       1e-9f /* power below everything */
#define FAR_SILENT (-70.0f)

struct near {
    struct fft fft;
    float window[WINDOW];
    int edge[BANDS + 1]; /* bins */
    float predicted[WINDOW], rest[WINDOW];
    float echo[BANDS], smooth[BANDS], noise[BANDS]; /* powers */
    float leak[BANDS];                              /* dB */
    int learnt;                                     /* periods with echo, up to SETTLED */
    float score;
};

static float mel(float hz)
{
    return log10f(1.0f + hz / 700.0f);
}

int near_open(struct near **ret)
{
    struct near *n = calloc(1, sizeof(*n));
    if (n == NULL)
        return -ENOMEM;
    fft_init(&n->fft);
    for (int i = 0; i < WINDOW; i++)
        n->window[i] = 0.5f - 0.5f * cosf(6.2831853f * ((float)i + 0.5f) / WINDOW);
    for (int b = 0; b <= BANDS; b++) {
        float m = mel(LOW_HZ) + (mel(HIGH_HZ) - mel(LOW_HZ)) * (float)b / BANDS;
        n->edge[b] = (int)(700.0f * (powf(10.0f, m) - 1.0f) * FFT_N / NEAR_RATE + 0.5f);
    }
    for (int b = 0; b < BANDS; b++)
        n->noise[b] = 1e-3f;
    *ret = n;
    return 0;
}

void near_close(struct near *n)
{
    free(n);
}

void near_reset(struct near *n)
{
    n->learnt = 0;
    n->score = Z_MIN;
    memset(n->leak, 0, sizeof(n->leak));
}

bool near_settled(const struct near *n)
{
    return n->learnt >= SETTLED;
}

/* Mean power of each band in the last 20 ms. */
static void powers(const struct near *n, float *past, const float *now, float *power)
{
    float x[FFT_N] = {0.0f};
    struct spectrum s;
    memmove(past, past + NEAR_PERIOD, NEAR_PERIOD * sizeof(float));
    memcpy(past + NEAR_PERIOD, now, NEAR_PERIOD * sizeof(float));
    if (is_silence(past, WINDOW)) {
        for (int b = 0; b < BANDS; b++)
            power[b] = TINY;
        return;
    }
    for (int i = 0; i < WINDOW; i++)
        x[i] = past[i] * n->window[i];
    fft_forward(&n->fft, &s, x);
    for (int b = 0; b < BANDS; b++) {
        float sum = 0.0f;
        for (int k = n->edge[b]; k < n->edge[b + 1]; k++)
            sum += s.re[k] * s.re[k] + s.im[k] * s.im[k];
        power[b] = sum / (float)(n->edge[b + 1] - n->edge[b]) + TINY;
    }
}

static float decibel(float power)
{
    return 10.0f * log10f(power);
}

static float clamp(float x, float least, float most)
{
    return fminf(fmaxf(x, least), most);
}

/* Who talks into our first words is not to be learnt as echo, or nobody is heard for seconds. */
static float step_of(const struct near *n, bool up)
{
    if (n->learnt < SETTLED)
        return up && n->learnt >= FIRST && n->score > HELD ? STEP : STEP_FIRST;
    return n->score > HELD ? STEP_NEAR : STEP;
}

/* One band: its z, and what is learnt from it. Returns whether there was echo. */
static bool judge_band(struct near *n, int b, float predicted, float rest, float *z)
{
    n->echo[b] = fmaxf(predicted, TAIL * n->echo[b]);
    n->smooth[b] += 0.2f * (rest - n->smooth[b]);
    n->noise[b] = fminf(n->noise[b] * NOISE_RISE, n->smooth[b]);
    float leaked = powf(10.0f, 0.1f * n->leak[b]) * n->echo[b];
    *z = clamp(decibel(rest / (leaked + NOISE_OVER * n->noise[b])), Z_MIN, Z_MAX);
    if (n->echo[b] < 10.0f * n->noise[b])
        return false;
    bool above = decibel(rest / n->echo[b]) > n->leak[b];
    n->leak[b] += step_of(n, above) * (above ? QUANTILE : QUANTILE - 1.0f);
    return true;
}

static float mean_of_highest(float *z)
{
    float sum = 0.0f;
    for (int i = 0; i < HIGHEST; i++) {
        int at = 0;
        for (int b = 1; b < BANDS; b++)
            if (z[b] > z[at])
                at = b;
        sum += z[at];
        z[at] = Z_MIN;
    }
    return sum / HIGHEST;
}

float near_period(struct near *n, const float *predicted, const float *rest, float far)
{
    float y[BANDS], e[BANDS], z[BANDS], bent = 0.0f;
    int with_echo = 0;
    powers(n, n->predicted, predicted, y);
    powers(n, n->rest, rest, e);
    for (int b = 0; b < BANDS; b++)
        bent += y[b] * (SPREAD / BANDS);
    for (int b = 0; b < BANDS; b++)
        with_echo += judge_band(n, b, y[b] + bent, e[b], &z[b]);
    if (with_echo >= ECHO_MIN && n->learnt < SETTLED)
        n->learnt++;
    n->score += SMOOTH * (mean_of_highest(z) - n->score);
    if (far < FAR_SILENT)
        return 1.0f;
    return 1.0f / (1.0f + expf((EVEN - n->score) / SLOPE));
}
