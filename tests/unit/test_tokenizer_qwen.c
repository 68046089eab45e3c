/*
 * tests/unit/test_tokenizer_qwen.c - equality with the reference tokenizer on the real vocabulary.
 *
 * The vocabulary (151,643 tokens) is not in the repository: tools/fetch_qwen_vocab.sh puts it into
 * build-data/qwen-vocab, or PARLEY_QWEN_VOCAB names its directory. What the reference makes of some
 * 22,000 strings in many scripts is in tests/golden/tokenizer/qwen.txt; tools/tokenizer_golden.py
 * made it and describes the format. To see what the reference wants for a failing line N:
 *
 *     python3 tools/tokenizer_golden.py --show N build-data/qwen-vocab <
 * tests/golden/tokenizer/qwen.txt
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/util.h"
#include "model/nfc.h"
#include "model/tokenizer.h"

enum { IDS_MAX = 16384, TEXT_MAX = 65536 };

static const char *vocabulary_dir(void)
{
    const char *dir = getenv("PARLEY_QWEN_VOCAB");
    return dir != NULL ? dir : SOURCE_DIR "/build-data/qwen-vocab";
}

static uint64_t hash_ids(const int32_t *ids, size_t n)
{
    uint64_t h = 0xcbf29ce484222325u;
    for (size_t i = 0; i < n; i++)
        for (int shift = 0; shift < 32; shift += 8)
            h = (h ^ ((uint32_t)ids[i] >> shift & 0xff)) * 0x100000001b3u;
    return h;
}

/* Undoes the escapes of the golden in place; the length. */
static size_t unescape(char *text, size_t len)
{
    size_t n = 0;
    for (size_t i = 0; i < len; i++) {
        char c = text[i];
        if (c == '\\' && i + 1 < len) {
            c = text[++i];
            c = c == 'n' ? '\n' : c == 'r' ? '\r' : c == '0' ? '\0' : c;
        }
        text[n++] = c;
    }
    return n;
}

static void check_decode(const struct tokenizer *t, const int32_t *ids, size_t n, const char *text,
                         size_t len, size_t line)
{
    static char out[TEXT_MAX];
    char *normal;
    size_t n_normal;
    assert_int_equal(nfc(&normal, &n_normal, text, len), 0);
    int got = tokenizer_decode(t, ids, n, 0, out, sizeof(out));
    if (got != (int)n_normal || memcmp(out, normal, n_normal) != 0)
        fail_msg("line %zu: decoding gives %d bytes, expected the NFC of %zu", line, got, n_normal);
    free(normal);
}

static void check_line(const struct tokenizer *t, char *line, size_t len, size_t number)
{
    static int32_t ids[IDS_MAX];
    char mode, same;
    int count, head = 0;
    unsigned long long hash;
    if (sscanf(line, "%c %d %llx %c%n", &mode, &count, &hash, &same, &head) != 4)
        fail_msg("line %zu: found no golden line", number);
    char *text = line + head + 1;
    size_t n_text = unescape(text, len - (size_t)head - 1);
    int n = tokenizer_encode(t, text, n_text, mode == 'a' ? TOKENIZER_ADDED : 0, ids, IDS_MAX);
    if (n != count || hash_ids(ids, (size_t)n) != hash)
        fail_msg("line %zu: %d ids, hash %016llx; expected %d, %016llx", number, n,
                 n < 0 ? 0 : (unsigned long long)hash_ids(ids, (size_t)n), count, hash);
    if (same == '=')
        check_decode(t, ids, (size_t)n, text, n_text, number);
}

static void test_golden(void **state)
{
    char *text, *at;
    size_t len, number = 0;
    assert_int_equal(read_file(&text, &len, SOURCE_DIR "/tests/golden/tokenizer/qwen.txt", 1 << 24),
                     0);
    for (at = text; at < text + len; number++) {
        char *end = memchr(at, '\n', (size_t)(text + len - at));
        assert_non_null(end);
        check_line(*state, at, (size_t)(end - at), number + 1);
        at = end + 1;
    }
    free(text);
    assert_true(number >= 20000);
    printf("%zu strings equal the reference\n", number);
}

/* The ids that the prompt is built from. */
static void test_known_ids(void **state)
{
    static const struct {
        const char *text;
        int id;
    } known[] = {
        {"system", 8948},
        {"user", 872},
        {"assistant", 77091},
        {"\n", 198},
        {"!", 0},
        {"<|endoftext|>", 151643},
        {"<|im_start|>", 151644},
        {"<|im_end|>", 151645},
        {"<|audio_start|>", 151669},
        {"<|audio_end|>", 151670},
        {"<tts_pad>", 151671},
        {"<|audio_pad|>", 151675},
    };
    for (size_t i = 0; i < ARRAY_LEN(known); i++)
        assert_int_equal(tokenizer_find(*state, known[i].text), known[i].id);
    assert_int_equal(tokenizer_count(*state), 151676);
}

/* Each token by itself: its text is what decoding it gives, and no plain text makes an added one.
 */
static void test_all_tokens(void **state)
{
    for (int32_t id = 0; id < tokenizer_count(*state); id++) {
        char text[TOKENIZER_STREAM_MAX];
        int32_t ids[TOKENIZER_STREAM_MAX];
        struct tokenizer_carry carry = {0};
        int len = tokenizer_stream(*state, &carry, id, 0, text, sizeof(text));
        assert_true(len >= 0);
        int n = tokenizer_encode(*state, text, (size_t)len, 0, ids, ARRAY_LEN(ids));
        assert_true(n >= 0);
        for (int i = 0; i < n; i++)
            assert_true(ids[i] < 151643);
    }
}

static int open_vocabulary(void **state)
{
    struct tokenizer *t = NULL;
    struct problems why = {0};
    int err = tokenizer_open(&t, vocabulary_dir(), &why);
    for (size_t i = 0; i < why.n; i++)
        printf("%s\n", why.text[i]);
    problems_free(&why);
    *state = t;
    return err;
}

static int close_vocabulary(void **state)
{
    tokenizer_close(*state);
    return 0;
}

int main(void)
{
    char path[4096];
    snprintf(path, sizeof(path), "%s/vocab.json", vocabulary_dir());
    if (access(path, R_OK) != 0) {
        printf("skip: no vocabulary in %s; tools/fetch_qwen_vocab.sh fetches it\n",
               vocabulary_dir());
        return 77;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden),
        cmocka_unit_test(test_known_ids),
        cmocka_unit_test(test_all_tokens),
    };
    return cmocka_run_group_tests(tests, open_vocabulary, close_vocabulary);
}
