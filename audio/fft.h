/*
 * audio/fft.h - the transform of real signals of one fixed length, in float.
 *
 *     X[k] = sum_n x[n] e^(-2 pi i k n / FFT_N)        k = 0 ... FFT_N / 2
 *
 * Own and small, so that the same bits come out everywhere. Private to audio/.
 *
 * Threads: a struct fft is constant after fft_init and may be shared.
 */
#ifndef PARLEY_AUDIO_FFT_H
#define PARLEY_AUDIO_FFT_H

enum { FFT_N = 512, FFT_BINS = FFT_N / 2 + 1 };

struct fft {
    float cos[FFT_N / 2], sin[FFT_N / 2];         /* of 2 pi k / FFT_N */
    float turn_re[FFT_N / 2], turn_im[FFT_N / 2]; /* the same, for spans of 1, 2, 4 ... in a row */
    unsigned short order[FFT_N / 2];              /* bit-reversed */
};

struct spectrum {
    float re[FFT_BINS], im[FFT_BINS];
};

void fft_init(struct fft *f);

void fft_forward(const struct fft *f, struct spectrum *out, const float *in);

/* The inverse, scaled so that it undoes fft_forward. */
void fft_inverse(const struct fft *f, float *out, const struct spectrum *in);

#endif
