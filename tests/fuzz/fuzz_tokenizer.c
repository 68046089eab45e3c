/*
 * tests/fuzz/fuzz_tokenizer.c - libFuzzer target of the tokenizer.
 *
 * The first byte of the input chooses:
 *
 *     0..3   one of the vocabulary's files is replaced by the input (the rest is good) and opened
 *     4      tokenizer.json is the input
 *     5..    the input is text (and, byte pair by byte pair, ids) for the tiny vocabulary
 *
 * Text must come back as its NFC, with no control token unless asked for, and the same when decoded
 * in pieces. A seed corpus: the files of tests/golden checkpoints behind such a byte.
 */
#include <errno.h>
#include <stdint.h>

#include "model/nfc.h"
#include "model/pretokenize.h"
#include "tests/tiny_vocabulary.h"

#define CHECK(x)                                                                                   \
    do {                                                                                           \
        if (!(x))                                                                                  \
            __builtin_trap();                                                                      \
    } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Decodes one id at a time and at once: the same, and valid. Returns the text, which the caller
 * frees. */
static char *check_decode(const struct tokenizer *t, const int32_t *ids, size_t n, unsigned flags,
                          size_t *len)
{
    int want = tokenizer_decode(t, ids, n, flags, NULL, 0);
    CHECK(want >= 0);
    char *whole = malloc((size_t)want + 1), part[TOKENIZER_STREAM_MAX];
    CHECK(whole != NULL);
    CHECK(tokenizer_decode(t, ids, n, flags, whole, (size_t)want) == want);
    CHECK(utf8_valid(whole, (size_t)want));
    struct tokenizer_carry carry = {0};
    size_t at = 0;
    for (size_t i = 0; i <= n; i++) {
        int got = tokenizer_stream(t, &carry, i < n ? ids[i] : -1, flags, part, sizeof(part));
        CHECK(got >= 0 && at + (size_t)got <= (size_t)want);
        CHECK(memcmp(whole + at, part, (size_t)got) == 0);
        CHECK(utf8_valid(part, (size_t)got));
        at += (size_t)got;
    }
    CHECK(at == (size_t)want);
    *len = at;
    return whole;
}

static void check_text(const struct tokenizer *t, const char *text, size_t len, unsigned flags)
{
    int n = tokenizer_encode(t, text, len, flags, NULL, 0);
    if (!utf8_valid(text, len)) {
        CHECK(n == -EILSEQ);
        return;
    }
    CHECK(n >= 0);
    int32_t *ids = calloc((size_t)n + 1, sizeof(*ids));
    CHECK(ids != NULL);
    CHECK(tokenizer_encode(t, text, len, flags, ids, (size_t)n) == n);
    char *normal, *back;
    size_t n_normal, n_back;
    back = check_decode(t, ids, (size_t)n, 0, &n_back);
    CHECK(nfc(&normal, &n_normal, text, len) == 0);
    if (flags == 0) { /* parts between added tokens are normalised apart, so only then */
        CHECK(n_normal == n_back && memcmp(normal, back, n_back) == 0);
        for (int i = 0; i < n; i++)
            CHECK(ids[i] < 256 + TINY_MERGES);
        CHECK(!nfc_already(text, len) || (n_normal == len && memcmp(normal, text, len) == 0));
    }
    char *twice;
    size_t n_twice;
    CHECK(nfc(&twice, &n_twice, normal, n_normal) == 0);
    CHECK(n_twice == n_normal && memcmp(twice, normal, n_twice) == 0);
    free(twice);
    free(normal);
    free(back);
    free(ids);
}

static void check_ids(const struct tokenizer *t, const uint8_t *data, size_t size)
{
    int32_t *ids = calloc(size + 1, sizeof(*ids));
    CHECK(ids != NULL);
    size_t n = 0, len;
    for (size_t i = 0; i + 1 < size; i += 2) {
        int32_t id = (data[i] | data[i + 1] << 8) % (256 + TINY_MERGES + 4);
        ids[n++] = id < 256 + TINY_MERGES ? id : id - 256 - TINY_MERGES + TINY_START;
    }
    free(check_decode(t, ids, n, 0, &len));
    free(check_decode(t, ids, n, TOKENIZER_SKIP_SPECIAL, &len));
    free(ids);
}

/* A vocabulary that was accepted must be fit for use. */
static void check_open(const struct tokenizer_file file[PART_COUNT])
{
    static const char text[] = "hello <|im_end|> e\u0301 \xf0\x9f\x98\x80 world aaaa \u4f60's\n";
    struct tokenizer *t = NULL;
    struct problems why = {0};
    int err = tokenizer_parse(&t, file, &why);
    CHECK((err == 0) == (t != NULL));
    CHECK((err < 0) == (why.n > 0));
    if (t != NULL) {
        int32_t ids[128];
        int n = tokenizer_encode(t, text, sizeof(text) - 1, TOKENIZER_ADDED, ids, 128);
        size_t len;
        CHECK(n > 0 && n < 128);
        free(check_decode(t, ids, (size_t)n, TOKENIZER_SKIP_SPECIAL, &len));
        n = tokenizer_encode(t, text, sizeof(text) - 1, 0, ids, 128);
        for (int i = 0; i < n; i++)
            CHECK(!t->v.token[ids[i]].added);
    }
    tokenizer_close(t);
    problems_free(&why);
}

static void open_with(enum tokenizer_part part, const uint8_t *data, size_t size)
{
    struct tiny_files tiny = tiny_files();
    char *text = malloc(size); /* exactly, so that reading beyond the end is noticed */
    CHECK(text != NULL);
    memcpy(text, data, size);
    struct tokenizer_file file[PART_COUNT] = {
        [PART_VOCAB] = tiny_file("vocab.json", part == PART_ALL ? NULL : tiny.vocab),
        [PART_MERGES] = tiny_file("merges.txt", tiny.merges),
        [PART_CONFIG] = tiny_file("tokenizer_config.json", tiny_config),
    };
    file[part] = (struct tokenizer_file){"input", text, size};
    check_open(file);
    free(text);
    tiny_free(&tiny);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct tokenizer *tiny;
    if (tiny == NULL)
        tiny = tiny_open();
    CHECK(tiny != NULL);
    if (size < 2)
        return 0;
    if (data[0] < PART_COUNT) {
        open_with((enum tokenizer_part)data[0], data + 1, size - 1);
        return 0;
    }
    check_text(tiny, (const char *)data + 1, size - 1, 0);
    check_text(tiny, (const char *)data + 1, size - 1, TOKENIZER_ADDED);
    check_ids(tiny, data + 1, size - 1);
    return 0;
}
