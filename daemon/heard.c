/*
 * daemon/heard.c - voiced time against text; see heard.h.
 */
#include "daemon/heard.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"

enum { RATE = 24000, BLOCK = 480 }; /* Hz; samples of 20 ms */

#define VOICED_FLOOR 1e-3f /* a block below never counts as voice */
#define VOICED_SHARE 0.06f /* ... nor one so far below the loudest */
#define WORD         2.0   /* letters that a word counts besides its own */
#define PACE_START   20.0  /* letters in a second of voice, before anything was measured */
#define PACE_MOST    45.0
#define PACE_LEAST   7.0

void heard_begin(struct heard *h)
{
    h->len = h->blocks = 0;
    h->tokens = h->filled = 0;
    h->energy = 0;
    h->samples = 0;
    h->text_done = h->sound_done = false;
    if (h->pace <= 0)
        h->pace = PACE_START;
}

int heard_word(struct heard *h, const char *text)
{
    size_t n = strlen(text);
    int err = grow_array(&h->text, &h->text_cap, h->len + n + 1, 1);
    if (err == 0)
        err = grow_array(&h->ends, &h->ends_cap, (size_t)h->tokens + 1, sizeof(*h->ends));
    if (err < 0)
        return err;
    memcpy(h->text + h->len, text, n + 1);
    h->len += n;
    h->ends[h->tokens++] = h->len;
    return 0;
}

int heard_sound(struct heard *h, const float *pcm, size_t n)
{
    int err = grow_array(&h->level, &h->level_cap, h->blocks + n / BLOCK + 1, sizeof(float));
    if (err < 0)
        return err;
    for (size_t i = 0; i < n; i++) {
        h->energy += (double)pcm[i] * pcm[i];
        if (++h->filled < BLOCK)
            continue;
        h->level[h->blocks++] = (float)sqrt(h->energy / BLOCK);
        h->energy = 0;
        h->filled = 0;
    }
    h->samples += n;
    return 0;
}

/* Seconds of voice in the first `samples`. */
static double voiced_seconds(const struct heard *h, uint64_t samples)
{
    float loudest = 0;
    size_t blocks = (size_t)((samples + BLOCK / 2) / BLOCK), voiced = 0;
    for (size_t i = 0; i < h->blocks; i++)
        loudest = fmaxf(loudest, h->level[i]);
    float bar = fmaxf(VOICED_FLOOR, VOICED_SHARE * loudest);
    for (size_t i = 0; i < h->blocks && i < blocks; i++)
        voiced += h->level[i] >= bar;
    return (double)voiced * BLOCK / RATE;
}

/* What a character adds to the time of speech, in letters. Characters of several bytes count by
 * their first one: Latin, Greek, Cyrillic as letters, the syllables of East Asia as three. */
static double weight(unsigned char c)
{
    if (c >= '0' && c <= '9')
        return 4;
    if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'))
        return 1;
    if (c >= 0xe3)
        return 3;
    return c >= 0xc3 ? 1 : 0;
}

/* Of the text from byte `from` up to `to`; a word adds a little of its own, so that letters that
 * are spelled are not taken for the letters of a word. */
static double text_weight(const struct heard *h, size_t from, size_t to)
{
    double sum = 0;
    for (size_t i = from; i < to; i++) {
        bool first = h->text[i] != ' ' && (i == 0 || h->text[i - 1] == ' ');
        sum += weight((unsigned char)h->text[i]) + (first ? WORD : 0);
    }
    return sum;
}

static void learn_pace(struct heard *h)
{
    double voiced = voiced_seconds(h, h->samples), letters = text_weight(h, 0, h->len);
    if (voiced < 0.5 || letters < 4)
        return;
    double pace = fmin(fmax(letters / voiced, PACE_LEAST), PACE_MOST);
    h->pace += 0.3 * (pace - h->pace);
}

void heard_text_end(struct heard *h)
{
    h->text_done = true;
}

void heard_sound_end(struct heard *h)
{
    h->sound_done = true;
    if (h->text_done)
        learn_pace(h);
}

/* Where the word that begins at `from` ends; a character of East Asia is a word. */
static size_t word_end(const struct heard *h, size_t from)
{
    size_t at = from;
    while (at < h->len && h->text[at] == ' ')
        at++;
    while (at < h->len && h->text[at] != ' ') {
        bool syllable = (unsigned char)h->text[at] >= 0xe3;
        for (at++; at < h->len && ((unsigned char)h->text[at] & 0xc0) == 0x80;)
            at++;
        if (syllable)
            break;
    }
    return at;
}

/* Letters that were spoken in the first `samples`. */
static double letters_heard(const struct heard *h, uint64_t samples)
{
    double voiced = voiced_seconds(h, samples);
    if (!h->text_done || !h->sound_done)
        return voiced * h->pace;
    double all = voiced_seconds(h, h->samples);
    return all > 0 ? text_weight(h, 0, h->len) * voiced / all : 0;
}

int heard_tokens(const struct heard *h, uint64_t samples, size_t *bytes)
{
    double letters = letters_heard(h, samples), before = 0;
    size_t kept = 0;
    bool all = h->text_done && h->sound_done && samples >= h->samples;
    while (!all && kept < h->len) {
        size_t end = word_end(h, kept);
        double own = text_weight(h, kept, end);
        if (before + own / 2 >= letters)
            break;
        before += own;
        kept = end;
    }
    int n = 0;
    while (n < h->tokens && (all || h->ends[n] <= kept))
        n++;
    if (kept == 0 && !all)
        n = 0;
    if (bytes != NULL)
        *bytes = n > 0 ? h->ends[n - 1] : 0;
    return n;
}

double heard_seconds(const struct heard *h)
{
    return text_weight(h, 0, h->len) / h->pace;
}

void heard_free(struct heard *h)
{
    free(h->text);
    free(h->ends);
    free(h->level);
    *h = (struct heard){0};
}
