/*
 * tests/tiny_vocabulary.h - a vocabulary of 256 bytes and a few merges, as the text of its files.
 *
 * Ids 0..255 are the bytes themselves, so that tests can write ids by hand; then the merges in
 * order; then a gap; then added tokens from 300. For the unit and the fuzz test of the tokenizer.
 */
#ifndef PARLEY_TESTS_TINY_VOCABULARY_H
#define PARLEY_TESTS_TINY_VOCABULARY_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/tokenizer_impl.h"
#include "model/utf8.h"

/* Spelled in the byte alphabet: U+0120 is a space, "\u00c3\u00a9" the two bytes of e acute. */
static const char *const tiny_merges[][2] = {
    {"h", "e"}, {"l", "l"}, {"he", "ll"}, {"hell", "o"},        {"\u0120", "w"},
    {"o", "r"}, {"a", "a"}, {"aa", "aa"}, {"\u0120", "\u0120"}, {"\u00c3", "\u00a9"},
    {"l", "o"}, {"o", "o"}, {"e", "l"},
};
enum {
    TINY_MERGES = sizeof(tiny_merges) / sizeof(tiny_merges[0]),
    TINY_START = 300, /* <|im_start|> */
    TINY_END = 301,   /* <|im_end|> */
    TINY_THINK = 302, /* <think>, not special */
    TINY_NORMAL = 303 /* <n\u00e9>, looked for after NFC */
};

#define TINY_TOKEN(content, normalized, special)                                                   \
    "{\"content\":\"" content "\",\"lstrip\":false,\"normalized\":" normalized                     \
    ",\"rstrip\":false,\"single_word\":false,\"special\":" special "}"

static const char tiny_config[] =
    "{\"add_prefix_space\":false,\"added_tokens_decoder\":{"
    "\"300\":" TINY_TOKEN("<|im_start|>", "false",
                          "true") ","
                                  "\"301\":" TINY_TOKEN("<|im_end|>", "false",
                                                        "true") ","
                                                                "\"302\":" TINY_TOKEN(
                                                                    "<think>", "false",
                                                                    "false") ","
                                                                             "\"303\":" TINY_TOKEN(
                                                                                 "<n\u00e9>",
                                                                                 "true",
                                                                                 "false") "}}";

static const char tiny_added[] =
    "[{\"id\":300,\"content\":\"<|im_start|>\",\"special\":true},"
    "{\"id\":301,\"content\":\"<|im_end|>\",\"special\":true,\"normalized\":false},"
    "{\"id\":302,\"content\":\"<think>\",\"special\":false},"
    "{\"id\":303,\"content\":\"<ne\\u0301>\",\"special\":false,\"normalized\":true}]";

static const char tiny_scheme[] =
    "\"normalizer\":{\"type\":\"NFC\"},\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":["
    "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(?i:'s|'t|'re|'ve|'m|'ll|'d)|"
    "[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|\\\\p{N}| ?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|"
    "\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+\"},\"behavior\":\"Isolated\",\"invert\":false},"
    "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":false,"
    "\"use_regex\":false}]}";

/* The character that stands for a byte in vocab.json. */
static inline int tiny_alphabet(int byte)
{
    int rest = 0;
    for (int b = 0; b <= byte; b++) {
        int plain = (b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b <= 0xff && b != 0xad);
        if (b == byte)
            return plain ? b : 0x100 + rest;
        rest += !plain;
    }
    return -1;
}

struct tiny_files {
    char *vocab, *merges, *all; /* all: the same as tokenizer.json */
};

static inline char *tiny_vocab_text(void)
{
    char *text = NULL;
    size_t len;
    FILE *f = open_memstream(&text, &len);
    fputc('{', f);
    for (int b = 0; b < 256; b++) {
        char c[5] = {0};
        c[utf8_put(c, tiny_alphabet(b))] = '\0';
        fprintf(f, "%s\"%s%s\":%d", b ? "," : "", c[0] == '"' || c[0] == '\\' ? "\\" : "", c, b);
    }
    for (int i = 0; i < TINY_MERGES; i++)
        fprintf(f, ",\"%s%s\":%d", tiny_merges[i][0], tiny_merges[i][1], 256 + i);
    fputc('}', f);
    fclose(f);
    return text;
}

static inline struct tiny_files tiny_files(void)
{
    struct tiny_files tiny = {.vocab = tiny_vocab_text()};
    size_t len;
    FILE *f = open_memstream(&tiny.merges, &len);
    fputs("#version: 0.2\n", f);
    for (int i = 0; i < TINY_MERGES; i++)
        fprintf(f, "%s %s\n", tiny_merges[i][0], tiny_merges[i][1]);
    fclose(f);
    f = open_memstream(&tiny.all, &len);
    fprintf(f, "{\"added_tokens\":%s,%s,\"model\":{\"type\":\"BPE\",\"vocab\":%s,\"merges\":[",
            tiny_added, tiny_scheme, tiny.vocab);
    for (int i = 0; i < TINY_MERGES; i++) /* both spellings */
        fprintf(f, i % 2 ? ",[\"%s\",\"%s\"]" : &",\"%s %s\""[i == 0], tiny_merges[i][0],
                tiny_merges[i][1]);
    fputs("]}}", f);
    fclose(f);
    return tiny;
}

static inline void tiny_free(struct tiny_files *tiny)
{
    free(tiny->vocab);
    free(tiny->merges);
    free(tiny->all);
}

static inline struct tokenizer_file tiny_file(const char *name, const char *text)
{
    return (struct tokenizer_file){name, text, text == NULL ? 0 : strlen(text)};
}

/* Opens the tiny vocabulary from its separate files. */
static inline struct tokenizer *tiny_open(void)
{
    struct tiny_files tiny = tiny_files();
    struct tokenizer_file file[PART_COUNT] = {
        [PART_VOCAB] = tiny_file("vocab.json", tiny.vocab),
        [PART_MERGES] = tiny_file("merges.txt", tiny.merges),
        [PART_CONFIG] = tiny_file("tokenizer_config.json", tiny_config),
    };
    struct tokenizer *t = NULL;
    tokenizer_parse(&t, file, NULL);
    tiny_free(&tiny);
    return t;
}

#endif
