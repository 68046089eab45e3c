/*
 * daemon/earcon.c - a table of notes becomes short sounds; see earcon.h.
 */
#include "daemon/earcon.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

enum { NOTES = 5, EDGE_MS = 12 };

#define PEAK 0.1 /* -20 dBFS */
#define SOFT 0.4 /* of it: what is only a nod */

/* Up to five notes, one after the other; each glides from one frequency to another. */
struct note {
    int ms;
    double from, to; /* Hz; 0 = a rest */
};

static const struct note table[TURN_EARCONS][NOTES] = {
    [TURN_EARCON_AWAKE] = {{70, 660, 660}, {90, 880, 880}},
    [TURN_EARCON_WAIT] = {{60, 520, 520}, {60, 0, 0}, {60, 520, 520}},
    [TURN_EARCON_EMPTY] = {{120, 440, 415}},
    [TURN_EARCON_CUT] = {{70, 660, 660}, {70, 550, 550}, {70, 660, 660}},
    [TURN_EARCON_REPEAT] = {{90, 500, 560}, {50, 0, 0}, {120, 560, 700}},
    [TURN_EARCON_FAILED] = {{120, 392, 380}, {40, 0, 0}, {180, 294, 280}},
    [TURN_EARCON_FULL] = {{100, 440, 440}, {100, 392, 392}, {160, 330, 330}},
    [TURN_EARCON_LOST] = {{100, 587, 587}, {160, 392, 380}},
    [TURN_EARCON_BACK] = {{100, 392, 400}, {160, 587, 587}},
    [TURN_EARCON_MUTED] = {{80, 523, 523}, {100, 349, 349}},
    [TURN_EARCON_UNMUTED] = {{80, 349, 349}, {100, 523, 523}},
    [TURN_EARCON_READY] = {{90, 523, 523}, {90, 659, 659}, {140, 784, 784}},
    [TURN_EARCON_RECORD] = {{60, 880, 880}, {50, 0, 0}, {60, 880, 880}},
    [TURN_EARCON_HEARD] = {{70, 587, 622}},
    /* READY, then home again. */
    [TURN_EARCON_OFFLINE] =
        {{90, 523, 523}, {90, 659, 659}, {140, 784, 784}, {120, 0, 0}, {260, 523, 523}},
};

static size_t samples(const struct note *n, int rate)
{
    return (size_t)n->ms * (size_t)rate / 1000;
}

/* A sine whose frequency glides, with raised-cosine edges. */
static void play(float *pcm, const struct note *note, double peak, int rate)
{
    size_t n = samples(note, rate), edge = (size_t)EDGE_MS * (size_t)rate / 1000;
    double phase = 0;
    for (size_t i = 0; i < n && note->from > 0; i++) {
        size_t near = i < n - 1 - i ? i : n - 1 - i;
        double envelope = near >= edge ? 1 : 0.5 - 0.5 * cos(M_PI * (double)near / (double)edge);
        phase += 2 * M_PI * (note->from + (note->to - note->from) * (double)i / (double)n) / rate;
        pcm[i] = (float)(peak * envelope * sin(phase));
    }
}

int earcons_open(struct earcons *e, int rate)
{
    *e = (struct earcons){0};
    for (int k = TURN_EARCON_NONE + 1; k < TURN_EARCONS; k++) {
        size_t at = 0;
        double peak = k == TURN_EARCON_HEARD ? SOFT * PEAK : PEAK;
        for (int i = 0; i < NOTES; i++)
            e->n[k] += samples(&table[k][i], rate);
        e->pcm[k] = calloc(e->n[k], sizeof(float));
        if (e->pcm[k] == NULL) {
            earcons_close(e);
            return -ENOMEM;
        }
        for (int i = 0; i < NOTES; i++) {
            play(e->pcm[k] + at, &table[k][i], peak, rate);
            at += samples(&table[k][i], rate);
        }
    }
    return 0;
}

void earcons_close(struct earcons *e)
{
    for (int k = 0; k < TURN_EARCONS; k++)
        free(e->pcm[k]);
    *e = (struct earcons){0};
}
