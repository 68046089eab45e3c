/*
 * vad/silero.c - the Silero VAD network (version 6, 16 kHz branch), written out in C.
 *
 *     sound  [64 of the chunk before + 512 + 64 mirrored] = [640]
 *     stft   window 256, hop 128                  -> [4, 129 real + 129 imaginary] -> magnitude
 *     conv1  3 taps, 129 -> 128, ReLU             -> [4, 128]
 *     conv2  3 taps, 128 -> 64, stride 2, ReLU    -> [2, 64]
 *     conv3  3 taps, 64 -> 64, stride 2, ReLU     -> [1, 64]
 *     conv4  3 taps, 64 -> 128, ReLU              -> [1, 128]
 *     lstm   128 -> 128, state carried            -> [128]
 *     out    ReLU, 128 -> 1, sigmoid              -> probability
 *
 * Rows are times, columns are channels, one row of zeros stands before and after the rows of a
 * convolution: so the inputs of its three taps lie in one piece, and every layer is the same
 * product y = x W + b with W [in, out]. The compiler vectorises along the outputs; the order of
 * the sums is fixed, so the result is the same for any vector width.
 *
 * Architecture and weights: the `silero-vad` package (MIT), its tinygrad_model.py; this is our own
 * code after that description. The file: models/vad/README.md.
 */
#include "vad/silero.h"

#include <errno.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"

enum { WINDOW = 256, HOP = 128, FRAMES = 4, BINS = WINDOW / 2 + 1, PADDED = 640, HIDDEN = 128 };
enum { BLOCK = 64 }; /* outputs at once */
enum { HEADER = 64, VERSION = 1, FILE_MAX = 4 << 20 };
enum { STFT, CONV1, CONV2, CONV3, CONV4, LSTM, OUT, LAYERS };

_Static_assert((int)HIDDEN == (int)SILERO_HIDDEN, "the state is as wide as the LSTM");
_Static_assert(SILERO_CONTEXT + SILERO_CHUNK + WINDOW / 4 == PADDED, "what the STFT reads");
_Static_assert((FRAMES - 1) * HOP + WINDOW == PADDED, "the last window ends with the sound");

struct layer {
    const float *w; /* [in, out] */
    const float *b; /* [out], or NULL */
};

/* In the order of the file; the LSTM's inputs are [x, hidden], its outputs the gates i, f, g, o. */
static const struct shape {
    int in, out, bias;
} shapes[LAYERS] = {
    [STFT] = {WINDOW, 2 * BINS, 0}, [CONV1] = {3 * BINS, 128, 1},
    [CONV2] = {3 * 128, 64, 1},     [CONV3] = {3 * 64, 64, 1},
    [CONV4] = {3 * 64, 128, 1},     [LSTM] = {128 + HIDDEN, 4 * HIDDEN, 1},
    [OUT] = {HIDDEN, 1, 1},
};

struct silero {
    char *file;
    struct layer layer[LAYERS];
};

/* The first bytes of the file, little-endian, followed by the floats. */
struct header {
    char magic[8]; /* "PARLEYVA" */
    uint32_t version, rate, chunk, context;
    uint32_t floats; /* behind the header */
    uint32_t zero;
    uint64_t checksum; /* FNV-1a, 64 bits, over the bytes of the floats */
    uint8_t unused[24];
};

_Static_assert(sizeof(struct header) == HEADER, "the header has no holes");

static uint64_t fnv1a(const char *p, size_t n)
{
    uint64_t h = 0xcbf29ce484222325u;
    for (size_t i = 0; i < n; i++)
        h = (h ^ (uint8_t)p[i]) * 0x100000001b3u;
    return h;
}

static size_t all_floats(void)
{
    size_t n = 0;
    for (int i = 0; i < LAYERS; i++)
        n += (size_t)(shapes[i].in + shapes[i].bias) * (size_t)shapes[i].out;
    return n;
}

static int check(const char *path, const char *file, size_t len, struct problems *why)
{
    struct header h;
    size_t floats = all_floats();
    if (len < HEADER || memcmp(file, "PARLEYVA", 8) != 0)
        return problem_add(why, -EINVAL, "%s: not a voice activity weight file", path);
    memcpy(&h, file, sizeof(h));
    if (h.version != VERSION)
        return problem_add(why, -EINVAL, "%s: version %u, expected %d", path, h.version, VERSION);
    if (h.rate != 16000 || h.chunk != SILERO_CHUNK || h.context != SILERO_CONTEXT ||
        h.floats != floats)
        return problem_add(why, -EINVAL,
                           "%s: rate %u, chunk %u, context %u, %u floats; expected 16000, %d, %d, "
                           "%zu",
                           path, h.rate, h.chunk, h.context, h.floats, SILERO_CHUNK, SILERO_CONTEXT,
                           floats);
    if (len != HEADER + 4 * floats)
        return problem_add(why, -EINVAL, "%s: %zu bytes, expected %zu", path, len,
                           HEADER + 4 * floats);
    if (h.checksum != fnv1a(file + HEADER, 4 * floats))
        return problem_add(why, -EINVAL, "%s: the checksum is wrong, the file is damaged", path);
    return 0;
}

int silero_open(struct silero **ret, const char *path, struct problems *why)
{
    if (path == NULL)
        return problem_add(why, -EINVAL, "voice activity: no weight file is named");
    struct silero *s = calloc(1, sizeof(*s));
    if (s == NULL)
        return problem_add(why, -ENOMEM, "voice activity: no memory left");
    size_t len = 0;
    int err = read_file(&s->file, &len, path, FILE_MAX);
    if (err < 0)
        problem_add(why, err, "%s: %s", path, strerror(-err));
    else
        err = check(path, s->file, len, why);
    if (err < 0) {
        silero_close(s);
        return err;
    }
    const float *p = (const float *)(const void *)(s->file + HEADER);
    for (int i = 0; i < LAYERS; i++) {
        s->layer[i].w = p;
        p += shapes[i].in * shapes[i].out;
        s->layer[i].b = shapes[i].bias ? p : NULL;
        p += shapes[i].bias * shapes[i].out;
    }
    *ret = s;
    return 0;
}

/* Outputs from o on of one row, BLOCK of them, which stay in registers. */
static inline void block(float *restrict y, const float *x, const struct layer *l, int in, int out,
                         int o)
{
    float sum[BLOCK];
    for (int k = 0; k < BLOCK; k++)
        sum[k] = l->b ? l->b[o + k] : 0;
    for (int i = 0; i < in; i++)
        for (int k = 0; k < BLOCK; k++)
            sum[k] += x[i] * l->w[i * out + o + k];
    memcpy(y + o, sum, sizeof(sum));
}

/* y [rows, out] = x W + b; row r of x begins at x + r * step. */
WIDE static void product(const struct silero *s, int layer, float *restrict y, const float *x,
                         int rows, int step)
{
    const struct layer *l = &s->layer[layer];
    const int in = shapes[layer].in, out = shapes[layer].out;
    int o = 0;
    for (; o + BLOCK <= out; o += BLOCK)
        for (int r = 0; r < rows; r++)
            block(y + r * out, x + r * step, l, in, out, o);
    for (; o < out; o++)
        for (int r = 0; r < rows; r++) {
            float sum = l->b ? l->b[o] : 0;
            for (int i = 0; i < in; i++)
                sum += x[r * step + i] * l->w[i * out + o];
            y[r * out + o] = sum;
        }
}

static void relu(float *x, int n)
{
    for (int i = 0; i < n; i++)
        x[i] = x[i] > 0 ? x[i] : 0;
}

/* Magnitudes [FRAMES, BINS] of context + chunk + its mirrored end. */
static void spectrum(const struct silero *s, float *magnitude, const float *context,
                     const float *pcm)
{
    float sound[PADDED], y[FRAMES * 2 * BINS];
    const int n = SILERO_CONTEXT + SILERO_CHUNK;
    memcpy(sound, context, SILERO_CONTEXT * sizeof(*sound));
    memcpy(sound + SILERO_CONTEXT, pcm, SILERO_CHUNK * sizeof(*sound));
    for (int i = 0; i < PADDED - n; i++)
        sound[n + i] = sound[n - 2 - i];
    product(s, STFT, y, sound, FRAMES, HOP);
    for (int t = 0; t < FRAMES; t++) {
        const float *re = y + t * 2 * BINS, *im = re + BINS;
        for (int k = 0; k < BINS; k++)
            magnitude[t * BINS + k] = sqrtf(re[k] * re[k] + im[k] * im[k]);
    }
}

/* y: the features [128] of one chunk, from its magnitudes with a zero row around. */
static void encode(const struct silero *s, float *y, const float *magnitude)
{
    float a[(FRAMES + 2) * 128] = {0}, b[4 * 64] = {0}, c[3 * 64] = {0};
    product(s, CONV1, a + 128, magnitude, FRAMES, BINS);
    relu(a + 128, FRAMES * 128);
    product(s, CONV2, b + 64, a, 2, 2 * 128);
    relu(b + 64, 2 * 64);
    product(s, CONV3, c + 64, b, 1, 0);
    relu(c + 64, 64);
    product(s, CONV4, y, c, 1, 0);
    relu(y, 128);
}

static float sigmoid(float x)
{
    return 1 / (1 + expf(-x));
}

static void lstm(const struct silero *s, struct silero_state *state, const float *x)
{
    float in[128 + HIDDEN], gates[4 * HIDDEN];
    memcpy(in, x, 128 * sizeof(*in));
    memcpy(in + 128, state->hidden, sizeof(state->hidden));
    product(s, LSTM, gates, in, 1, 0);
    for (int k = 0; k < HIDDEN; k++) {
        float i = sigmoid(gates[k]), f = sigmoid(gates[HIDDEN + k]);
        float g = tanhf(gates[2 * HIDDEN + k]), o = sigmoid(gates[3 * HIDDEN + k]);
        state->cell[k] = f * state->cell[k] + i * g;
        state->hidden[k] = o * tanhf(state->cell[k]);
    }
}

float silero_chunk(const struct silero *s, struct silero_state *state, const float *pcm)
{
    float magnitude[(FRAMES + 2) * BINS] = {0}, features[128], logit;
    spectrum(s, magnitude + BINS, state->context, pcm);
    memcpy(state->context, pcm + SILERO_CHUNK - SILERO_CONTEXT, sizeof(state->context));
    encode(s, features, magnitude);
    lstm(s, state, features);
    memcpy(features, state->hidden, sizeof(features));
    relu(features, HIDDEN);
    product(s, OUT, &logit, features, 1, 0);
    return sigmoid(logit);
}

void silero_close(struct silero *s)
{
    if (s == NULL)
        return;
    free(s->file);
    free(s);
}
