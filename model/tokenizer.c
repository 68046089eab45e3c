/*
 * model/tokenizer.c - the public functions: opening, encoding, decoding.
 *
 * Encoding is a chain in which each step hands parts of the text to the next:
 *
 *     [added tokens] -> NFC -> [added tokens that are normalized] -> pieces -> BPE
 *
 * The steps in brackets run under TOKENIZER_ADDED only. As in the reference, each part between
 * added tokens is normalised by itself. Decoding joins the bytes of the tokens and repairs what is
 * not UTF-8, one byte at a time, so that streaming and decoding at once are the same code.
 */
#include "model/tokenizer.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "model/bpe.h"
#include "model/nfc.h"
#include "model/pretokenize.h"
#include "model/tokenizer_impl.h"
#include "model/utf8.h"

enum { FILE_BYTES_MAX = 256 << 20 };

struct encoder {
    const struct vocabulary *v;
    unsigned flags;
    struct bpe_work work;
    struct id_sink out;
};

typedef int (*part_fn)(struct encoder *e, const char *text, size_t len);

static int encode_pieces(struct encoder *e, const char *text, size_t len)
{
    int err = 0;
    while (len > 0 && err == 0) {
        size_t n = pretokenize_next(text, len);
        err = bpe_piece(e->v, &e->work, text, n, &e->out);
        text += n;
        len -= n;
    }
    return err;
}

/* Emits the added tokens of one kind in the text and hands what lies between them to `next`. */
static int split(struct encoder *e, const char *text, size_t len, bool normalized, part_fn next)
{
    size_t from = 0, i = 0;
    int err = 0;
    while (i < len && err == 0) {
        int32_t id = vocabulary_added_at(e->v, text + i, len - i, normalized);
        if (id < 0) {
            i++;
            continue;
        }
        err = next(e, text + from, i - from);
        id_sink_put(&e->out, id);
        i += e->v->token[id].len;
        from = i;
    }
    return err < 0 ? err : next(e, text + from, len - from);
}

static int encode_normal(struct encoder *e, const char *text, size_t len)
{
    if (e->flags & TOKENIZER_ADDED)
        return split(e, text, len, true, encode_pieces);
    return encode_pieces(e, text, len);
}

static int encode_raw(struct encoder *e, const char *text, size_t len)
{
    if (nfc_already(text, len))
        return encode_normal(e, text, len);
    char *normal;
    size_t n;
    int err = nfc(&normal, &n, text, len);
    if (err < 0)
        return err;
    err = encode_normal(e, normal, n);
    free(normal);
    return err;
}

int tokenizer_encode(const struct tokenizer *t, const char *text, size_t len, unsigned flags,
                     int32_t *ids, size_t cap)
{
    if (len > TOKENIZER_INPUT_MAX)
        return -E2BIG;
    if (!utf8_valid(text, len))
        return -EILSEQ;
    struct encoder e = {
        .v = &t->v,
        .flags = flags,
        .out = {.ids = ids, .cap = ids == NULL ? 0 : cap},
    };
    int err = flags & TOKENIZER_ADDED ? split(&e, text, len, false, encode_raw)
                                      : encode_raw(&e, text, len);
    bpe_work_free(&e.work);
    if (err < 0)
        return err;
    return ids != NULL && e.out.n > cap ? -ENOSPC : (int)e.out.n;
}

struct text_sink {
    char *text;
    size_t n, cap;
};

static void put(struct text_sink *sink, const void *bytes, size_t n)
{
    if (sink->n + n <= sink->cap)
        memcpy(sink->text + sink->n, bytes, n);
    sink->n += n;
}

/* A byte that does not continue what is held ends it with one U+FFFD and is looked at afresh. */
static void put_byte(struct text_sink *sink, struct tokenizer_carry *carry, unsigned char byte)
{
    for (;;) {
        carry->held[carry->n++] = byte;
        enum utf8_state state = utf8_state(carry->held, carry->n);
        if (state == UTF8_BEGUN)
            return;
        size_t n = carry->n;
        carry->n = 0;
        if (state == UTF8_WHOLE) {
            put(sink, carry->held, n);
            return;
        }
        put(sink, "\xef\xbf\xbd", 3);
        if (n == 1)
            return;
    }
}

/* The text of one id, or of the end of the text for -1. */
static int put_id(const struct tokenizer *t, struct text_sink *sink, struct tokenizer_carry *carry,
                  int32_t id, unsigned flags)
{
    if (carry->n >= sizeof(carry->held))
        return -EINVAL;
    if (id == -1) {
        if (carry->n > 0)
            put(sink, "\xef\xbf\xbd", 3);
        carry->n = 0;
        return 0;
    }
    if (!vocabulary_has(&t->v, id))
        return -EINVAL;
    if ((flags & TOKENIZER_SKIP_SPECIAL) && t->v.token[id].special)
        return 0;
    size_t n;
    const char *bytes = vocabulary_text(&t->v, id, &n);
    for (size_t i = 0; i < n; i++)
        put_byte(sink, carry, (unsigned char)bytes[i]);
    return sink->n > INT_MAX ? -E2BIG : 0;
}

static int text_result(const struct text_sink *sink)
{
    return sink->text != NULL && sink->n > sink->cap ? -ENOSPC : (int)sink->n;
}

int tokenizer_decode(const struct tokenizer *t, const int32_t *ids, size_t n, unsigned flags,
                     char *out, size_t cap)
{
    struct text_sink sink = {.text = out, .cap = out == NULL ? 0 : cap};
    struct tokenizer_carry carry = {0};
    int err = 0;
    for (size_t i = 0; i < n && err == 0; i++)
        err = ids[i] < 0 ? -EINVAL : put_id(t, &sink, &carry, ids[i], flags);
    if (err == 0)
        err = put_id(t, &sink, &carry, -1, flags);
    return err < 0 ? err : text_result(&sink);
}

int tokenizer_stream(const struct tokenizer *t, struct tokenizer_carry *carry, int32_t id,
                     unsigned flags, char *out, size_t cap)
{
    struct text_sink sink = {.text = out, .cap = out == NULL ? 0 : cap};
    struct tokenizer_carry after = *carry;
    int err = put_id(t, &sink, &after, id, flags);
    if (err == 0)
        err = text_result(&sink);
    if (err >= 0)
        *carry = after;
    return err;
}

int tokenizer_find(const struct tokenizer *t, const char *text)
{
    return vocabulary_find(&t->v, text, strlen(text));
}

int tokenizer_count(const struct tokenizer *t)
{
    return (int)t->v.n_token;
}

void tokenizer_close(struct tokenizer *t)
{
    if (t == NULL)
        return;
    vocabulary_free(&t->v);
    free(t);
}

int tokenizer_parse(struct tokenizer **ret, const struct tokenizer_file file[PART_COUNT],
                    struct problems *why)
{
    struct tokenizer *t = calloc(1, sizeof(*t));
    if (t == NULL)
        return problem_add(why, -ENOMEM, "tokenizer: no memory");
    int err = tokenizer_load(&t->v, file, why);
    if (err < 0) {
        tokenizer_close(t);
        return err;
    }
    *ret = t;
    return 0;
}

/* Reads one file if it is there; `path` and `text` are freed by the caller. */
static int read_part(struct tokenizer_file *file, char **path, char **text, const char *dir,
                     const char *name, struct problems *why)
{
    if (asprintf(path, "%s/%s", dir, name) < 0) {
        *path = NULL;
        return problem_add(why, -ENOMEM, "%s: no memory", name);
    }
    file->name = *path;
    int err = read_file(text, &file->len, *path, FILE_BYTES_MAX);
    if (err == -ENOENT)
        return 0;
    if (err < 0)
        return problem_add(why, err, "%s: %s", *path, strerror(-err));
    file->text = *text;
    return 0;
}

int tokenizer_open(struct tokenizer **ret, const char *dir, struct problems *why)
{
    static const char *const names[PART_COUNT] = {
        [PART_VOCAB] = "vocab.json",
        [PART_MERGES] = "merges.txt",
        [PART_CONFIG] = "tokenizer_config.json",
        [PART_ADDED] = "added_tokens.json",
        [PART_ALL] = "tokenizer.json",
    };
    struct tokenizer_file file[PART_COUNT] = {0};
    char *path[PART_COUNT] = {0}, *text[PART_COUNT] = {0};
    int err = 0;
    for (int i = 0; i < PART_COUNT && err == 0; i++)
        err = read_part(&file[i], &path[i], &text[i], dir, names[i], why);
    if (err == 0)
        err = tokenizer_parse(ret, file, why);
    for (int i = 0; i < PART_COUNT; i++) {
        free(path[i]);
        free(text[i]);
    }
    return err;
}
