/*
 * model/bind.h - tensors of a source into struct model. Private to model/ and to tests.
 *
 * Binding asks the source for every tensor once, by name and exact shape, and leaves for each a
 * `piece`: what model_load has to do for it. On the host, matrices in files stay where they lie;
 * everything else (widened vectors, matrices that lie unaligned, random numbers) gets a place in
 * one owned block, which is allocated when everything is bound and its size is known. For a device
 * with memory of its own the block is there and holds everything.
 *
 * In the block come first the matrices, one behind the other in the order of binding, then the
 * vectors. So q, k and v of a layer are neighbours, gate and up too, and the experts of a layer lie
 * at equal distances: a backend may take them for one matrix where the sizes leave no gap.
 */
#ifndef PARLEY_MODEL_BIND_H
#define PARLEY_MODEL_BIND_H

#include "model/model.h"
#include "model/source.h"

enum row { ROW_THINKER, ROW_AUDIO, ROW_TALKER, ROW_PREDICTOR, ROW_CODE2WAV, ROW_VISION, ROW_COUNT };

enum transform { AS_IS, SNAKE_ALPHA, SNAKE_BETA }; /* exp(x); 1 / (exp(x) + 1e-9) */

struct piece {
    const unsigned char *from;  /* in a mapped file; NULL = random numbers */
    const struct st_file *file; /* that file; NULL = `from` is a small block */
    size_t count;               /* elements */
    const void **stored;        /* what it is for: as stored, or */
    float **vector;             /* widened to f32 */
    size_t offset;              /* among the owned matrices, or vectors, when not in place */
    uint64_t seed;
    float mean, deviation;
    enum dtype type; /* of `from`, or of the random numbers */
    enum row row;
    enum transform transform;
    bool in_place;
};

struct binder {
    struct source *source;
    const struct quant_config *quant; /* what bytes may mean */
    struct problems *why;
    int err; /* the first failure; binding goes on, to find the others */
    enum row row;
    struct piece *pieces;
    size_t n, cap;
    bool far;      /* the weights go to a device with memory of its own */
    size_t owned;  /* bytes of matrices in the owned block, ... */
    size_t small;  /* ... and of vectors behind them */
    void **blocks; /* small arrays made while binding: layers, experts, tables */
    size_t n_blocks, cap_blocks;
    size_t largest; /* bytes of the row's largest tensor so far */
    struct plan_row rows[ROW_COUNT];
    bool fused; /* some experts were */
};

/* Binds everything of m->config into *m; with m->speech also Talker and Code2Wav. */
int bind_model(struct binder *b, struct model *m);
/* Releases the pieces, not the blocks. */
void binder_free_pieces(struct binder *b);

/* For the files bind_*.c. Failures go to b->err. */
#define TENSOR_NAME_MAX 160
#define PREFIX_MAX      120 /* of a name built in two steps */

void bind_thinker(struct binder *b, struct model *m);
void bind_audio(struct binder *b, struct model *m);
void bind_talker(struct binder *b, struct model *m);
void bind_predictor(struct binder *b, struct model *m);
void bind_code2wav(struct binder *b, struct model *m);

enum { DECODER_HEAD_NORMS = 1, DECODER_LAYER_SCALES = 2 };
void bind_decoder(struct binder *b, struct decoder_weights *d, const struct decoder_config *c,
                  const char *prefix, unsigned flags);

/* Remembers a failure. */
void bind_fail(struct binder *b, int err);
/* Asks the source, and counts what it has; false after a failure. */
bool bind_ask(struct binder *b, const struct tensor_want *want, struct tensor_got *got);
/* Counts parameters into the plan. */
void bind_count(struct binder *b, size_t count, enum dtype type);
/* Elements first .. first + p.count - 1 of a stored tensor are what `p` is for. */
void bind_piece(struct binder *b, struct piece p, const struct tensor_got *got, size_t first);
/* bind_packed.c: whether the matrix `name` is stored as 8-bit weights, and binding it. */
bool bind_is_packed(const struct binder *b, const char *name);
void bind_packed(struct binder *b, struct weight *w, int rows, int cols, const char *name);

/* A vector of n numbers computed while binding, in a block of bind_alloc. */
void bind_computed(struct binder *b, float **v, float *computed, size_t n);

/* Zeroed memory that lives as long as the model; NULL after a failure or for n = 0. */
void *bind_alloc(struct binder *b, size_t n, size_t size);

/* A matrix [rows, cols] as stored with `shape` (rows * cols elements). */
void bind_tensor(struct binder *b, struct weight *w, int rows, int cols, int ndim,
                 const size_t *shape, const char *fmt, ...) __attribute__((format(printf, 7, 8)));
/* A table of vectors, stored as [rows, cols] and never quantised. */
void bind_table(struct binder *b, struct weight *w, int rows, int cols, const char *fmt, ...)
    __attribute__((format(printf, 5, 6)));
/* The matrix of a linear layer, named X.weight: stored as [rows, cols], or as bytes with scales in
 * X.weight_packed, X.weight_scale and X.weight_shape. */
void bind_matrix(struct binder *b, struct weight *w, int rows, int cols, const char *fmt, ...)
    __attribute__((format(printf, 5, 6)));

/* Experts as transformers 5 stores them: many matrices in one tensor. bind_fused asks for the
 * tensor (false after a failure), bind_slice takes the matrix that begins at element `first`. */
bool bind_fused(struct binder *b, struct tensor_got *got, const size_t shape[3], const char *fmt,
                ...) __attribute__((format(printf, 4, 5)));
void bind_slice(struct binder *b, struct weight *w, const struct tensor_got *got, size_t first,
                int rows, int cols);

/* A vector [n] widened to f32. `fill` says what random numbers in its place look like. */
enum fill { FILL_NORM, FILL_BIAS, FILL_SCALE, FILL_SNAKE_ALPHA, FILL_SNAKE_BETA };
void bind_vector(struct binder *b, float **v, int n, enum fill fill, const char *fmt, ...)
    __attribute__((format(printf, 5, 6)));
/* The same for a small tensor [n, 1, kernel] (depthwise convolution). */
void bind_depthwise(struct binder *b, float **v, int n, int kernel, const char *fmt, ...)
    __attribute__((format(printf, 5, 6)));

/* Names that several components share: prefix.weight, prefix.bias. */
void bind_linear(struct binder *b, struct conv *c, int rows, int cols, const char *prefix);
void bind_layer_norm(struct binder *b, struct layer_norm *n, int dim, const char *prefix);

#endif
