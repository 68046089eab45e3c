/*
 * model/pretokenize.c - the Qwen2 pre-tokeniser as a scanner.
 *
 * The reference splits with a backtracking regular expression of seven alternatives, tried in order
 * at each position. They need one character of lookahead, and every character begins one of them,
 * so a scanner that tries them in the same order gives the same pieces in linear time, with no
 * limits on the length of a run. Classes come from unicode_class.c.
 */
#include "model/pretokenize.h"

#include <stdbool.h>
#include <string.h>

#include "model/unicode_class.h"
#include "model/utf8.h"

const char pretokenize_pattern[] =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}"
    "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

struct cursor {
    const char *at, *end;
};

/* The class of the character at the cursor and its length; CLASS_END, which is no class, at the
 * end. */
enum { CLASS_END = -1 };

static int peek(const struct cursor *c, size_t *len)
{
    int32_t code;
    if (c->at == c->end)
        return CLASS_END;
    *len = utf8_get(c->at, &code);
    return (int)unicode_class(code);
}

static void skip_class(struct cursor *c, int class)
{
    size_t len;
    while (peek(c, &len) == class)
        c->at += len;
}

static bool newline(char b)
{
    return b == '\r' || b == '\n';
}

/* (?i:'s|'t|'re|'ve|'m|'ll|'d): bytes matched, or 0. Folding case adds one letter that is not
 * ASCII: U+017F, the long s. */
static size_t contraction(const char *s, size_t len)
{
    if (len < 2 || s[0] != '\'')
        return 0;
    if (len >= 3 && memcmp(s + 1, "\xc5\xbf", 2) == 0)
        return 3;
    char a = (char)(s[1] | 0x20);
    if (a == 's' || a == 't' || a == 'm' || a == 'd')
        return 2;
    if (len < 3)
        return 0;
    char b = (char)(s[2] | 0x20);
    bool two = (a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l');
    return two ? 3 : 0;
}

/* \s*[\r\n]+|\s+(?!\S)|\s+: to the last newline of the run if it has one; else all of it at the end
 * of the text; else all but its last character, which belongs to what follows. */
static size_t space(const char *text, size_t len)
{
    struct cursor c = {text, text + len};
    const char *after_newline = NULL, *last = text;
    size_t n;
    while (peek(&c, &n) == CLASS_SPACE) {
        last = c.at;
        if (newline(*c.at))
            after_newline = c.at + 1;
        c.at += n;
    }
    if (after_newline != NULL)
        return (size_t)(after_newline - text);
    if (c.at == c.end || last == text)
        return (size_t)(c.at - text);
    return (size_t)(last - text);
}

size_t pretokenize_next(const char *text, size_t len)
{
    struct cursor c = {text, text + len};
    size_t n, n2 = 0;
    size_t short_form = contraction(text, len);
    if (short_form > 0)
        return short_form;

    int first = peek(&c, &n);
    c.at += n;
    int second = peek(&c, &n2);
    if (first == CLASS_LETTER ||
        (second == CLASS_LETTER && first != CLASS_NUMBER && !newline(*text))) {
        skip_class(&c, CLASS_LETTER);
        return (size_t)(c.at - text);
    }
    if (first == CLASS_NUMBER)
        return n;
    if (first == CLASS_OTHER || (*text == ' ' && second == CLASS_OTHER)) {
        skip_class(&c, CLASS_OTHER);
        while (c.at < c.end && newline(*c.at))
            c.at++;
        return (size_t)(c.at - text);
    }
    return space(text, len);
}
