/*
 * model/tokenizer_load.c - the files of a vocabulary, checked as they are read.
 *
 * Order matters: tokens, then the 256 single bytes, then merges (which name tokens), then added
 * tokens. Each defect is a sentence with the file, the place, what was found and what was expected;
 * reading goes on to the next entry where that makes sense, so one run reports many. Two rules are
 * about safety rather than form: no merge and no single byte may make an added token, because then
 * plain text could become a control token.
 *
 * vocab.json spells bytes in a printable alphabet of 256 characters: the printable Latin-1
 * characters stand for themselves, the other 68 bytes are U+0100 and up.
 */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "model/json_text.h"
#include "model/nfc.h"
#include "model/pretokenize.h"
#include "model/tokenizer_impl.h"
#include "model/utf8.h"

struct loader {
    struct vocabulary *v;
    const char *name; /* the file being read */
    struct problems *why;
};

/* A stretch of a file for a sentence: cut, and nothing in it that a terminal would obey. */
struct quote {
    char text[64];
};

static struct quote quote(const char *s, size_t len)
{
    struct quote q;
    size_t n = 0;
    for (size_t i = 0; i < len && n < sizeof(q.text) - 8; i++) {
        unsigned char b = (unsigned char)s[i];
        if (b >= 0x20 && b < 0x7f)
            q.text[n++] = (char)b;
        else
            n += (size_t)snprintf(q.text + n, 5, "\\x%02x", b);
        if (n >= sizeof(q.text) - 8 && i + 1 < len)
            n += (size_t)snprintf(q.text + n, 4, "...");
    }
    q.text[n] = '\0';
    return q;
}

static const char *kind(const json_t *j)
{
    if (j == NULL)
        return "nothing";
    switch (json_typeof(j)) {
    case JSON_OBJECT:
        return "an object";
    case JSON_ARRAY:
        return "an array";
    case JSON_STRING:
        return "a string";
    case JSON_INTEGER:
        return "an integer";
    case JSON_REAL:
        return "a real number";
    case JSON_TRUE:
        return "true";
    case JSON_FALSE:
        return "false";
    default:
        return "null";
    }
}

static int parse(json_t **ret, const struct tokenizer_file *file, struct problems *why)
{
    json_error_t error;
    int err = json_text_parse(ret, file->text, file->len, file->name, &error, why);
    if (err == -EINVAL)
        problem_add(why, err, "%s: line %d: %s; expected JSON without repeated keys", file->name,
                    error.line, quote(error.text, strlen(error.text)).text);
    return err;
}

static int expect_object(const struct loader *l, const json_t *j, const char *field)
{
    if (json_is_object(j))
        return 0;
    return problem_add(l->why, -EINVAL, "%s: %s: found %s, expected an object", l->name, field,
                       kind(j));
}

/* The byte that a character of the printable alphabet stands for, or -1. */
static int alphabet_byte(int32_t c)
{
    if ((c >= 0x21 && c <= 0x7e) || (c >= 0xa1 && c <= 0xff && c != 0xad))
        return c;
    if (c < 0x100 || c >= 0x144)
        return -1;
    c -= 0x100; /* 00..20, 7f..a0, ad */
    return c <= 0x20 ? c : c < 67 ? 0x7f + (c - 33) : 0xad;
}

/* Turns printable characters into bytes; the length, or -EINVAL for a character outside of the
 * alphabet, an empty text or more than TOKEN_BYTES_MAX. */
static int to_bytes(char out[TOKEN_BYTES_MAX], const char *text, size_t len)
{
    int n = 0;
    for (size_t i = 0; i < len;) {
        int32_t c;
        i += utf8_get(text + i, &c);
        int b = alphabet_byte(c);
        if (b < 0 || n == TOKEN_BYTES_MAX)
            return -EINVAL;
        out[n++] = (char)b;
    }
    return n > 0 ? n : -EINVAL;
}

/* Adds a token whose bytes and id were checked; says what is wrong if either is taken. */
static int add_token(const struct loader *l, const char *field, int32_t id, const char *bytes,
                     size_t n)
{
    int err = vocabulary_add(l->v, id, bytes, n);
    if (err == -EEXIST)
        return problem_add(l->why, -EINVAL, "%s: %s: \"%s\" has id %d, expected an id of its own",
                           l->name, field, quote(bytes, n).text, id);
    if (err == -EALREADY)
        return problem_add(l->why, -EINVAL,
                           "%s: %s: \"%s\" has id %d, expected id %d, which the token had before",
                           l->name, field, quote(bytes, n).text, id,
                           vocabulary_find(l->v, bytes, n));
    if (err < 0)
        return problem_add(l->why, err, "%s: no memory", l->name);
    return 0;
}

/* An id from JSON, or -1 after a sentence. */
static int32_t check_id(const struct loader *l, const char *field, const char *key,
                        const json_t *value)
{
    struct quote q = quote(key, strlen(key));
    json_int_t id = json_integer_value(value);
    if (json_is_integer(value) && id >= 0 && id < VOCABULARY_MAX)
        return (int32_t)id;
    if (json_is_integer(value))
        problem_add(l->why, -EINVAL, "%s: %s: \"%s\" has id %lld, expected 0 to %d", l->name, field,
                    q.text, (long long)id, VOCABULARY_MAX - 1);
    else
        problem_add(l->why, -EINVAL, "%s: %s: \"%s\" is %s, expected an integer id", l->name, field,
                    q.text, kind(value));
    return -1;
}

static int load_vocab_entry(const struct loader *l, const char *field, const char *key,
                            const json_t *value)
{
    char bytes[TOKEN_BYTES_MAX];
    int32_t id = check_id(l, field, key, value);
    if (id < 0)
        return -EINVAL;
    int n = to_bytes(bytes, key, strlen(key));
    if (n < 0)
        return problem_add(l->why, -EINVAL,
                           "%s: %s: found \"%s\", expected 1 to %d characters of the byte alphabet",
                           l->name, field, quote(key, strlen(key)).text, TOKEN_BYTES_MAX);
    return add_token(l, field, id, bytes, (size_t)n);
}

static int find_bytes(const struct loader *l, const char *field)
{
    int err = 0;
    for (int b = 0; b < 256; b++) {
        char byte = (char)b;
        int32_t id = vocabulary_find(l->v, &byte, 1);
        l->v->byte_id[b] = id;
        if (id < 0)
            err = problem_add(l->why, -EINVAL,
                              "%s: %s: no token for byte 0x%02x, expected all 256 bytes", l->name,
                              field, b);
        else
            l->v->token[id].made = true;
    }
    return err;
}

static int load_vocab(const struct loader *l, const char *field, json_t *vocab)
{
    const char *key;
    json_t *value;
    int err = expect_object(l, vocab, field);
    if (err < 0)
        return err;
    json_object_foreach(vocab, key, value)
    {
        int bad = load_vocab_entry(l, field, key, value);
        if (bad == -ENOMEM)
            return bad;
        err = bad < 0 ? bad : err;
    }
    return err < 0 ? err : find_bytes(l, field);
}

struct span {
    const char *text;
    size_t len;
};

/* The id of the token that one side of a merge names, or -1 after a sentence. Its bytes are put
 * into `bytes`. */
static int32_t merge_side(const struct loader *l, const char *unit, size_t place, struct span side,
                          char bytes[TOKEN_BYTES_MAX], int *n)
{
    *n = to_bytes(bytes, side.text, side.len);
    int32_t id = *n < 0 ? -1 : vocabulary_find(l->v, bytes, (size_t)*n);
    if (id < 0) {
        problem_add(l->why, -EINVAL, "%s: %s %zu: found \"%s\", expected a token of the vocabulary",
                    l->name, unit, place, quote(side.text, side.len).text);
        return -1;
    }
    return id;
}

/* The merge at `place`, which is a line of merges.txt or an index of an array (`unit`). */
static int load_merge(const struct loader *l, const char *unit, size_t place, struct span left,
                      struct span right)
{
    char bytes[2 * TOKEN_BYTES_MAX];
    int n_left = 0, n_right = 0;
    int32_t a = merge_side(l, unit, place, left, bytes, &n_left);
    if (a < 0)
        return -EINVAL;
    int32_t b = merge_side(l, unit, place, right, bytes + n_left, &n_right);
    if (b < 0)
        return -EINVAL;
    int32_t id = vocabulary_find(l->v, bytes, (size_t)(n_left + n_right));
    if (id < 0)
        return problem_add(l->why, -EINVAL,
                           "%s: %s %zu: the pair makes \"%s\", expected a token of the vocabulary",
                           l->name, unit, place, quote(bytes, (size_t)(n_left + n_right)).text);
    int err = vocabulary_add_merge(l->v, a, b, id);
    if (err == -EEXIST)
        return problem_add(l->why, -EINVAL, "%s: %s %zu: found \"%s\" for the second time", l->name,
                           unit, place, quote(bytes, (size_t)(n_left + n_right)).text);
    return err < 0 ? problem_add(l->why, err, "%s: no memory", l->name) : 0;
}

/* "left right", or one sentence. */
static int load_merge_text(const struct loader *l, const char *unit, size_t place, struct span line)
{
    const char *gap = memchr(line.text, ' ', line.len);
    size_t left = gap == NULL ? 0 : (size_t)(gap - line.text);
    size_t right = gap == NULL ? 0 : line.len - left - 1;
    if (left == 0 || right == 0 || memchr(gap + 1, ' ', right) != NULL)
        return problem_add(l->why, -EINVAL, "%s: %s %zu: found \"%s\", expected two tokens",
                           l->name, unit, place, quote(line.text, line.len).text);
    return load_merge(l, unit, place, (struct span){line.text, left},
                      (struct span){gap + 1, right});
}

static int load_merges_file(const struct loader *l, const struct tokenizer_file *file)
{
    const char *at = file->text, *end = file->text + file->len;
    int err = 0;
    if (!utf8_valid(file->text, file->len))
        return problem_add(l->why, -EINVAL, "%s: found bytes that are not UTF-8", file->name);
    for (size_t line = 1; at < end; line++) {
        const char *newline = memchr(at, '\n', (size_t)(end - at));
        const char *stop = newline == NULL ? end : newline;
        struct span s = {at, (size_t)(stop - at)};
        if (s.len > 0 && s.text[s.len - 1] == '\r')
            s.len--;
        at = newline == NULL ? end : newline + 1;
        bool version = line == 1 && s.len >= 8 && memcmp(s.text, "#version", 8) == 0;
        if (version || s.len == 0)
            continue;
        int bad = load_merge_text(l, "line", line, s);
        if (bad == -ENOMEM)
            return bad;
        err = bad < 0 ? bad : err;
    }
    return err;
}

static struct span string_span(const json_t *j)
{
    return (struct span){json_string_value(j), json_string_length(j)};
}

/* One element of model.merges: "a b" or ["a", "b"]. */
static int load_merge_json(const struct loader *l, size_t i, const json_t *j)
{
    const json_t *a = json_array_get(j, 0), *b = json_array_get(j, 1);
    if (json_is_string(j))
        return load_merge_text(l, "model.merges", i, string_span(j));
    if (json_array_size(j) == 2 && json_is_string(a) && json_is_string(b))
        return load_merge(l, "model.merges", i, string_span(a), string_span(b));
    return problem_add(l->why, -EINVAL,
                       "%s: model.merges %zu: found %s, expected \"a b\" or [\"a\", \"b\"]",
                       l->name, i, kind(j));
}

static int load_merges_json(const struct loader *l, const json_t *merges)
{
    size_t i;
    json_t *j;
    int err = 0;
    if (!json_is_array(merges))
        return problem_add(l->why, -EINVAL, "%s: model.merges: found %s, expected an array",
                           l->name, kind(merges));
    json_array_foreach(merges, i, j)
    {
        int bad = load_merge_json(l, i, j);
        if (bad == -ENOMEM)
            return bad;
        err = bad < 0 ? bad : err;
    }
    return err;
}

/* A boolean that may be absent, which is false. 0, or -EINVAL after a sentence. */
static int get_flag(const struct loader *l, const char *where, const json_t *j, const char *name,
                    bool *value)
{
    const json_t *flag = json_object_get(j, name);
    *value = json_is_true(flag);
    if (flag == NULL || json_is_boolean(flag))
        return 0;
    return problem_add(l->why, -EINVAL, "%s: %s: %s is %s, expected true or false", l->name, where,
                       name, kind(flag));
}

/* Registers an added token. It may stand in the plain vocabulary too, under the same id and only if
 * nothing there can make it. */
static int add_added(const struct loader *l, const char *field, int32_t id, struct span text,
                     bool special, bool normalized)
{
    struct vocabulary *v = l->v;
    if (text.len == 0 || text.len > TOKEN_BYTES_MAX)
        return problem_add(l->why, -EINVAL,
                           "%s: %s: id %d has a text of %zu bytes, expected 1 to %d", l->name,
                           field, id, text.len, TOKEN_BYTES_MAX);
    bool plain = vocabulary_has(v, id) && vocabulary_find(v, text.text, text.len) == id;
    if (plain && v->token[id].made)
        return problem_add(l->why, -EINVAL,
                           "%s: %s: \"%s\" is also what plain text makes, expected a token that "
                           "no merge makes",
                           l->name, field, quote(text.text, text.len).text);
    int err = plain ? 0 : add_token(l, field, id, text.text, text.len);
    if (err < 0)
        return err;
    if (grow_array(&v->added, &v->added_cap, v->n_added + 1, sizeof(*v->added)) < 0)
        return problem_add(l->why, -ENOMEM, "%s: no memory", l->name);
    if (!v->token[id].added)
        v->added[v->n_added++] = id;
    v->token[id].added = true;
    v->token[id].special = special;
    v->token[id].normalized = normalized;
    return 0;
}

/* The text of an added token that is looked for in normalised text is itself normalised. */
static int add_normalized(const struct loader *l, const char *field, int32_t id, struct span text,
                          bool special)
{
    char *normal;
    size_t n;
    if (nfc(&normal, &n, text.text, text.len) < 0)
        return problem_add(l->why, -ENOMEM, "%s: no memory", l->name);
    int err = add_added(l, field, id, (struct span){normal, n}, special, true);
    free(normal);
    return err;
}

/* An added token as an object with content and flags. */
static int load_added_object(const struct loader *l, const char *field, int32_t id, json_t *j)
{
    static const char *const unsupported[] = {"lstrip", "rstrip", "single_word"};
    const json_t *content = json_object_get(j, "content");
    bool special, normalized, set;
    char where[96];
    snprintf(where, sizeof(where), "%s: id %d", field, id);
    if (!json_is_string(content))
        return problem_add(l->why, -EINVAL, "%s: %s: content is %s, expected a string", l->name,
                           where, kind(content));
    for (size_t i = 0; i < ARRAY_LEN(unsupported); i++) {
        if (get_flag(l, where, j, unsupported[i], &set) < 0)
            return -EINVAL;
        if (set)
            return problem_add(l->why, -EINVAL, "%s: %s: %s is true, expected false", l->name,
                               where, unsupported[i]);
    }
    if (get_flag(l, where, j, "special", &special) < 0 ||
        get_flag(l, where, j, "normalized", &normalized) < 0)
        return -EINVAL;
    if (normalized)
        return add_normalized(l, field, id, string_span(content), special);
    return add_added(l, field, id, string_span(content), special, false);
}

/* added_tokens_decoder of tokenizer_config.json: "151643" -> object. */
static int load_added_decoder(const struct loader *l, json_t *decoder)
{
    const char *field = "added_tokens_decoder";
    const char *key;
    json_t *value;
    int err = expect_object(l, decoder, field);
    if (err < 0)
        return err;
    json_object_foreach(decoder, key, value)
    {
        char *end;
        size_t digits = strspn(key, "0123456789");
        long id = strtol(key, &end, 10);
        int bad = 0;
        if (digits == 0 || digits > 9 || *end != '\0' || id >= VOCABULARY_MAX)
            bad = problem_add(l->why, -EINVAL, "%s: %s: found key \"%s\", expected an id to %d",
                              l->name, field, quote(key, strlen(key)).text, VOCABULARY_MAX - 1);
        else
            bad = load_added_object(l, field, (int32_t)id, value);
        if (bad == -ENOMEM)
            return bad;
        err = bad < 0 ? bad : err;
    }
    return err;
}

/* added_tokens of tokenizer.json: an array of objects with their id. */
static int load_added_array(const struct loader *l, json_t *added)
{
    size_t i;
    json_t *j;
    int err = 0;
    if (added == NULL || json_is_null(added))
        return 0;
    if (!json_is_array(added))
        return problem_add(l->why, -EINVAL, "%s: added_tokens: found %s, expected an array",
                           l->name, kind(added));
    json_array_foreach(added, i, j)
    {
        char place[32];
        snprintf(place, sizeof(place), "%zu", i);
        int32_t id = check_id(l, "added_tokens", place, json_object_get(j, "id"));
        int bad = id < 0 ? -EINVAL : load_added_object(l, "added_tokens", id, j);
        if (bad == -ENOMEM)
            return bad;
        err = bad < 0 ? bad : err;
    }
    return err;
}

/* added_tokens.json: text -> id and nothing more; such tokens count as special. Those that are
 * known already must agree. */
static int load_added_map(const struct loader *l, json_t *map)
{
    const char *key;
    json_t *value;
    int err = expect_object(l, map, "the file");
    if (err < 0)
        return err;
    json_object_foreach(map, key, value)
    {
        struct span text = {key, strlen(key)};
        int32_t id = check_id(l, "added token", key, value), known;
        known = vocabulary_find(l->v, text.text, text.len);
        if (id >= 0 && known == id && l->v->token[id].added)
            continue;
        int bad = id < 0 ? -EINVAL : add_added(l, "added token", id, text, true, false);
        if (bad == -ENOMEM)
            return bad;
        err = bad < 0 ? bad : err;
    }
    return err;
}

/* A member of tokenizer.json must be this string. */
static int expect_text(const struct loader *l, const json_t *j, const char *field, const char *want)
{
    const char *text = json_string_value(j);
    if (text != NULL && strcmp(text, want) == 0)
        return 0;
    struct quote found = {"nothing"};
    if (text != NULL)
        found = quote(text, strlen(text));
    else
        snprintf(found.text, sizeof(found.text), "%s", kind(j));
    return problem_add(l->why, -EINVAL, "%s: %s: found %s, expected %s", l->name, field, found.text,
                       want);
}

/* A member must be absent, null, false or "": everything else changes the scheme. */
static int expect_unset(const struct loader *l, const json_t *j, const char *field)
{
    if (j == NULL || json_is_null(j) || json_is_false(j) ||
        (json_is_string(j) && json_string_length(j) == 0))
        return 0;
    return problem_add(l->why, -EINVAL, "%s: %s: found %s, expected it unset", l->name, field,
                       kind(j));
}

/* That tokenizer.json describes the one scheme that this program implements. */
static int check_scheme(const struct loader *l, json_t *root)
{
    const json_t *model = json_object_get(root, "model");
    const json_t *before = json_object_get(root, "pre_tokenizer");
    const json_t *steps = json_object_get(before, "pretokenizers");
    const json_t *split = json_array_get(steps, 0), *bytes = json_array_get(steps, 1);
    const json_t *pattern = json_object_get(json_object_get(split, "pattern"), "Regex");
    const json_t *normal = json_object_get(root, "normalizer");
    int err = 0;
    err |= expect_text(l, json_object_get(model, "type"), "model.type", "BPE");
    err |= expect_unset(l, json_object_get(model, "dropout"), "model.dropout");
    err |= expect_unset(l, json_object_get(model, "ignore_merges"), "model.ignore_merges");
    err |= expect_unset(l, json_object_get(model, "continuing_subword_prefix"),
                        "model.continuing_subword_prefix");
    err |=
        expect_unset(l, json_object_get(model, "end_of_word_suffix"), "model.end_of_word_suffix");
    err |= expect_text(l, json_object_get(normal, "type"), "normalizer.type", "NFC");
    err |= expect_text(l, json_object_get(before, "type"), "pre_tokenizer.type", "Sequence");
    err |= expect_text(l, json_object_get(split, "type"), "pretokenizers 0 type", "Split");
    err |= expect_text(l, pattern, "pretokenizers 0 pattern.Regex", pretokenize_pattern);
    err |=
        expect_text(l, json_object_get(split, "behavior"), "pretokenizers 0 behavior", "Isolated");
    err |= expect_unset(l, json_object_get(split, "invert"), "pretokenizers 0 invert");
    err |= expect_text(l, json_object_get(bytes, "type"), "pretokenizers 1 type", "ByteLevel");
    err |= expect_unset(l, json_object_get(bytes, "add_prefix_space"),
                        "pretokenizers 1 add_prefix_space");
    err |= expect_unset(l, json_object_get(bytes, "use_regex"), "pretokenizers 1 use_regex");
    return err < 0 ? -EINVAL : 0;
}

static int load_all(struct loader *l, const struct tokenizer_file *file)
{
    json_t *root, *model;
    l->name = file->name;
    int err = parse(&root, file, l->why);
    if (err < 0)
        return err;
    model = json_object_get(root, "model");
    err = check_scheme(l, root);
    if (err == 0)
        err = load_vocab(l, "model.vocab", json_object_get(model, "vocab"));
    if (err == 0)
        err = load_merges_json(l, json_object_get(model, "merges"));
    if (err == 0)
        err = load_added_array(l, json_object_get(root, "added_tokens"));
    json_decref(root);
    return err;
}

static int load_vocab_file(struct loader *l, const struct tokenizer_file *file)
{
    json_t *root;
    l->name = file->name;
    int err = parse(&root, file, l->why);
    if (err < 0)
        return err;
    err = load_vocab(l, "the file", root);
    json_decref(root);
    return err;
}

/* 1 when tokenizer_config.json lists the added tokens, 0 when it leaves them to another file. */
static int load_config(struct loader *l, const struct tokenizer_file *file)
{
    json_t *root, *decoder;
    l->name = file->name;
    int err = parse(&root, file, l->why);
    if (err < 0)
        return err;
    decoder = json_object_get(root, "added_tokens_decoder");
    err = expect_object(l, root, "the file");
    if (err == 0)
        err = expect_unset(l, json_object_get(root, "add_prefix_space"), "add_prefix_space");
    if (err == 0 && decoder != NULL) {
        err = load_added_decoder(l, decoder);
        err = err < 0 ? err : 1;
    }
    json_decref(root);
    return err;
}

/* The added tokens of tokenizer.json for a checkpoint whose other files do not list them. */
static int load_added_of_all(struct loader *l, const struct tokenizer_file *file)
{
    json_t *root;
    l->name = file->name;
    int err = parse(&root, file, l->why);
    if (err < 0)
        return err;
    err = load_added_array(l, json_object_get(root, "added_tokens"));
    json_decref(root);
    return err;
}

static int load_added_file(struct loader *l, const struct tokenizer_file *file)
{
    json_t *root;
    l->name = file->name;
    int err = parse(&root, file, l->why);
    if (err < 0)
        return err;
    err = load_added_map(l, root);
    json_decref(root);
    return err;
}

/* vocab.json, merges.txt and whatever lists the added tokens. */
static int load_apart(struct loader *l, const struct tokenizer_file file[PART_COUNT])
{
    if (file[PART_MERGES].text == NULL)
        return problem_add(l->why, -EINVAL, "%s: no such file, expected it beside vocab.json",
                           file[PART_MERGES].name);
    if (file[PART_CONFIG].text == NULL && file[PART_ALL].text == NULL &&
        file[PART_ADDED].text == NULL)
        return problem_add(l->why, -EINVAL,
                           "%s: no such file, expected it, tokenizer.json or added_tokens.json to "
                           "list the added tokens",
                           file[PART_CONFIG].name);
    int err = load_vocab_file(l, &file[PART_VOCAB]);
    l->name = file[PART_MERGES].name;
    if (err == 0)
        err = load_merges_file(l, &file[PART_MERGES]);
    int listed = 0;
    if (err == 0 && file[PART_CONFIG].text != NULL)
        err = listed = load_config(l, &file[PART_CONFIG]);
    if (err == 0 && !listed && file[PART_ALL].text != NULL)
        err = load_added_of_all(l, &file[PART_ALL]);
    if (err >= 0 && file[PART_ADDED].text != NULL)
        err = load_added_file(l, &file[PART_ADDED]);
    return err < 0 ? err : 0;
}

int tokenizer_load(struct vocabulary *v, const struct tokenizer_file file[PART_COUNT],
                   struct problems *why)
{
    struct loader l = {.v = v, .why = why};
    int err;
    if (file[PART_VOCAB].text != NULL)
        err = load_apart(&l, file);
    else if (file[PART_ALL].text != NULL)
        err = load_all(&l, &file[PART_ALL]);
    else
        err = problem_add(why, -EINVAL, "%s: no such file, expected it or tokenizer.json beside it",
                          file[PART_VOCAB].name);
    if (err == 0)
        vocabulary_sort_added(v);
    return err;
}
