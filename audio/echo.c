/*
 * audio/echo.c - a partitioned frequency-domain Kalman filter.
 *
 * Per bin, with X_j the far end's spectrum of partition j, W_j its coefficient, P_j the expected
 * square of its error, V the expected square of everything that is no echo:
 *
 *     Y = sum_j X_j W_j                              predicted echo (overlap-save, last period)
 *     G_j = P_j / (sum_i |X_i|^2 P_i + 2 V)          gain; 2: a period is part of a transform
 *     W_j += G_j conj(X_j) E
 *     P_j = A^2 (1 - r G_j |X_j|^2) P_j + (1 - A^2) max(|W_j|^2, L_j),   r = period / transform
 *
 * L_j keeps P_j from dying with W_j while the far end is silent: what was never heard may be any
 * room. A partition is two periods long, so the spectra of the far end serve every second one. That
 * a filter has no taps beyond its partition is enforced for a few partitions each period in turn.
 *
 * While the far end has been silent for longer than the filter remembers, there is nothing to
 * predict or to learn: only V is kept up to date, and P is made up for afterwards, all at once.
 */
#include "audio/echo.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "audio/fft.h"
#include "base/util.h"

enum {
    PARTITION = 2 * ECHO_PERIOD, /* taps; PARTITION + ECHO_PERIOD <= FFT_N + 1 */
    PARTITIONS = ECHO_TAIL_MS * ECHO_RATE / 1000 / PARTITION,
    HISTORY = 2 * PARTITIONS,                                 /* spectra, one a period */
    CONSTRAIN = 4,                                            /* partitions a period */
    REST = HISTORY + (FFT_N + ECHO_PERIOD - 1) / ECHO_PERIOD, /* periods that silence takes to
                                                                 fill all that is remembered */
};
#define KEEP   0.9995f /* A: how much of the room stays from period to period */
#define LEAST  1e-2f   /* L_0; from partition to partition it falls by DECAY */
#define SMOOTH 0.5f    /* of V */
#define DECAY  0.63f   /* of P from partition to partition at first: 2 dB in 20 ms, as in a room */
#define FLOOR  1e-6f   /* of V: -80 dBFS or so */

struct echo {
    struct fft fft;
    float far[FFT_N];              /* the newest samples */
    struct spectrum x[HISTORY];    /* of the far end; the newest at `at` */
    struct spectrum w[PARTITIONS]; /* the filter */
    float p[PARTITIONS][FFT_BINS]; /* expected square of its error */
    float v[FFT_BINS];             /* of what is no echo */
    int at, turn;
    int silent;                  /* periods of silence at the far end, up to REST */
    float waited;                /* periods at rest, for which P is still to be made up; from 46
                                    hours on, when nothing is left of P, it counts no further */
    float mic_power, rest_power; /* smoothed over 100 ms */
};

void echo_moved(struct echo *e)
{
    for (int j = 0; j < PARTITIONS; j++)
        for (int k = 0; k < FFT_BINS; k++)
            e->p[j][k] = powf(DECAY, (float)j);
    e->waited = 0.0f;
}

static void forget(struct echo *e)
{
    memset(e->w, 0, sizeof(e->w));
    echo_moved(e);
    e->mic_power = e->rest_power = 0.0f;
}

int echo_open(struct echo **ret)
{
    struct echo *e = calloc(1, sizeof(*e));
    if (e == NULL)
        return -ENOMEM;
    fft_init(&e->fft);
    forget(e);
    *ret = e;
    return 0;
}

void echo_close(struct echo *e)
{
    free(e);
}

static const struct spectrum *far_of(const struct echo *e, int partition)
{
    return &e->x[(e->at + HISTORY - 2 * partition) % HISTORY];
}

static void push_far(struct echo *e, const float *far)
{
    memmove(e->far, e->far + ECHO_PERIOD, (FFT_N - ECHO_PERIOD) * sizeof(float));
    memcpy(e->far + FFT_N - ECHO_PERIOD, far, ECHO_PERIOD * sizeof(float));
    e->at = (e->at + 1) % HISTORY;
    fft_forward(&e->fft, &e->x[e->at], e->far);
}

WIDE static void predict(const struct echo *e, float *predicted)
{
    struct spectrum y = {{0.0f}, {0.0f}};
    float time[FFT_N];
    for (int j = 0; j < PARTITIONS; j++) {
        const struct spectrum *x = far_of(e, j), *w = &e->w[j];
        for (int k = 0; k < FFT_BINS; k++) {
            y.re[k] += x->re[k] * w->re[k] - x->im[k] * w->im[k];
            y.im[k] += x->re[k] * w->im[k] + x->im[k] * w->re[k];
        }
    }
    fft_inverse(&e->fft, time, &y);
    memcpy(predicted, time + FFT_N - ECHO_PERIOD, ECHO_PERIOD * sizeof(float));
}

static void update_rest(struct echo *e, const struct spectrum *rest)
{
    for (int k = 0; k < FFT_BINS; k++) {
        float power = rest->re[k] * rest->re[k] + rest->im[k] * rest->im[k];
        e->v[k] = SMOOTH * e->v[k] + (1.0f - SMOOTH) * power;
    }
}

/* The denominator of the gain: sum_i |X_i|^2 P_i + 2 V. */
WIDE static void total(const struct echo *e, float *sum)
{
    for (int k = 0; k < FFT_BINS; k++)
        sum[k] = 2.0f * e->v[k] + FLOOR;
    for (int j = 0; j < PARTITIONS; j++) {
        const struct spectrum *x = far_of(e, j);
        for (int k = 0; k < FFT_BINS; k++)
            sum[k] += (x->re[k] * x->re[k] + x->im[k] * x->im[k]) * e->p[j][k];
    }
}

/* What P_j tends to while nothing is heard of the far end. */
static float least_of(int partition)
{
    return LEAST * powf(DECAY, (float)partition);
}

WIDE static void learn(struct echo *e, const struct spectrum *rest, const float *sum)
{
    const float r = (float)ECHO_PERIOD / FFT_N, a2 = KEEP * KEEP;
    for (int j = 0; j < PARTITIONS; j++) {
        const struct spectrum *x = far_of(e, j);
        struct spectrum *w = &e->w[j];
        float *p = e->p[j], least = least_of(j);
        for (int k = 0; k < FFT_BINS; k++) {
            float xr = x->re[k], xi = x->im[k], g = p[k] / sum[k];
            w->re[k] += g * (xr * rest->re[k] + xi * rest->im[k]);
            w->im[k] += g * (xr * rest->im[k] - xi * rest->re[k]);
            float w2 = w->re[k] * w->re[k] + w->im[k] * w->im[k];
            float kept = a2 * (1.0f - r * g * (xr * xr + xi * xi));
            p[k] = kept * p[k] + (1.0f - a2) * fmaxf(w2, least);
        }
    }
}

/* Takes away the taps that a partition must not have. */
static void constrain(struct echo *e)
{
    float taps[FFT_N];
    for (int i = 0; i < CONSTRAIN; i++) {
        struct spectrum *w = &e->w[e->turn];
        fft_inverse(&e->fft, taps, w);
        memset(taps + PARTITION, 0, (FFT_N - PARTITION) * sizeof(float));
        fft_forward(&e->fft, w, taps);
        e->turn = (e->turn + 1) % PARTITIONS;
    }
}

static float power(const float *x)
{
    float sum = 0.0f;
    for (int i = 0; i < ECHO_PERIOD; i++)
        sum += x[i] * x[i];
    return sum / ECHO_PERIOD;
}

/* A filter that makes things worse is a filter of another room. */
static bool is_wrong(struct echo *e, const float *mic, const float *rest)
{
    e->mic_power += 0.1f * (power(mic) - e->mic_power);
    e->rest_power += 0.1f * (power(rest) - e->rest_power);
    return e->rest_power > 1.5f * e->mic_power + FLOOR;
}

/* As many periods of P_j = A^2 P_j + (1 - A^2) max(|W_j|^2, L_j) as were spent at rest. */
static void catch_up(struct echo *e)
{
    float kept = powf(KEEP * KEEP, e->waited);
    for (int j = 0; j < PARTITIONS; j++) {
        const struct spectrum *w = &e->w[j];
        float least = least_of(j);
        for (int k = 0; k < FFT_BINS; k++) {
            float end = fmaxf(w->re[k] * w->re[k] + w->im[k] * w->im[k], least);
            e->p[j][k] = end + kept * (e->p[j][k] - end);
        }
    }
    e->waited = 0.0f;
}

/* Whether this period can be spent at rest. */
static bool rests(struct echo *e, const float *far)
{
    e->silent = count_silence(e->silent, REST, far, ECHO_PERIOD);
    if (e->silent == REST) {
        e->waited++;
        return true;
    }
    if (e->waited > 0.0f)
        catch_up(e);
    return false;
}

bool echo_period(struct echo *e, const float *mic, const float *far, float *predicted, float *rest)
{
    float padded[FFT_N] = {0.0f}, sum[FFT_BINS];
    struct spectrum spectrum;
    bool resting = rests(e, far);
    memset(predicted, 0, ECHO_PERIOD * sizeof(float));
    if (!resting) {
        push_far(e, far);
        predict(e, predicted);
    }
    for (int i = 0; i < ECHO_PERIOD; i++)
        rest[i] = padded[FFT_N - ECHO_PERIOD + i] = mic[i] - predicted[i];
    fft_forward(&e->fft, &spectrum, padded);
    update_rest(e, &spectrum);
    if (!resting) {
        total(e, sum);
        learn(e, &spectrum, sum);
        constrain(e);
    }
    if (!is_wrong(e, mic, rest))
        return false;
    forget(e);
    memcpy(rest, mic, ECHO_PERIOD * sizeof(float));
    return true;
}
