/*
 * model/nfc.c - NFC over utf8proc's character data.
 *
 *     decompose each character -> order runs of marks by combining class -> compose
 *
 * utf8proc does the first and the last step. Ordering is done here because utf8proc sorts by
 * neighbour swaps, which is quadratic: a megabyte of alternating marks would take minutes.
 *
 * The reference normaliser knows an old Unicode. A mark that came later is a plain base character
 * to it, so such characters (unicode_is_late) are copied and cut the text: nothing moves across
 * them or combines with them.
 */
#include "model/nfc.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "base/util.h"
#include "model/unicode_class.h"
#include "model/utf8.h"

enum {
    CODES_PER_CHARACTER = 4, /* longest canonical decomposition */
    SHORT_RUN = 16,          /* marks that are ordered by insertion */
};

struct codes {
    int32_t *at;
    size_t n, cap;
    int32_t *spare; /* for ordering long runs */
    size_t spare_cap;
};

static const utf8proc_option_t options = UTF8PROC_COMPOSE | UTF8PROC_STABLE;

/* Characters that are their own NFC whatever stands beside them: no mark, no decomposition, never
 * the second of a pair. The common blocks only. */
static bool inert(int32_t c)
{
    if (c < 0x300)
        return true;
    return (c >= 0x3001 && c <= 0x3029) || (c >= 0x3030 && c <= 0x3098) ||
           (c >= 0x309b && c <= 0x9fff) || (c >= 0xac00 && c <= 0xd7a3) ||
           (c >= 0x400 && c <= 0x482) || (c >= 0x2010 && c <= 0x206f) ||
           (c >= 0xff00 && c <= 0xffef);
}

bool nfc_already(const char *text, size_t len)
{
    int32_t c;
    for (size_t i = 0; i < len; i += utf8_get(text + i, &c)) {
        utf8_get(text + i, &c);
        if (!inert(c))
            return false;
    }
    return true;
}

/* Characters that are copied and that nothing moves across. U+11A7 is the one before the first
 * final consonant of Hangul: utf8proc composes it as if it were that of number 0, and so loses it.
 */
static bool apart(int32_t c)
{
    return c == 0x11a7 || unicode_is_late(c);
}

static unsigned char mark_class(int32_t c)
{
    return (unsigned char)utf8proc_get_property(c)->combining_class;
}

static void order_short(int32_t *run, size_t n)
{
    for (size_t i = 1; i < n; i++) {
        int32_t c = run[i];
        size_t j = i;
        for (; j > 0 && mark_class(run[j - 1]) > mark_class(c); j--)
            run[j] = run[j - 1];
        run[j] = c;
    }
}

/* Counting sort: stable, linear. */
static int order_long(struct codes *codes, int32_t *run, size_t n)
{
    size_t start[257] = {0};
    if (grow_array(&codes->spare, &codes->spare_cap, n, sizeof(*codes->spare)) < 0)
        return -ENOMEM;
    memcpy(codes->spare, run, n * sizeof(*run));
    for (size_t i = 0; i < n; i++)
        start[mark_class(run[i]) + 1]++;
    for (size_t i = 1; i < ARRAY_LEN(start); i++)
        start[i] += start[i - 1];
    for (size_t i = 0; i < n; i++)
        run[start[mark_class(codes->spare[i])]++] = codes->spare[i];
    return 0;
}

/* Puts every run of marks from `from` to the end in order of combining class. */
static int order(struct codes *codes, size_t from)
{
    size_t i = from;
    while (i < codes->n) {
        if (mark_class(codes->at[i]) == 0) {
            i++;
            continue;
        }
        size_t run = i;
        while (i < codes->n && mark_class(codes->at[i]) != 0)
            i++;
        if (i - run <= SHORT_RUN)
            order_short(codes->at + run, i - run);
        else if (order_long(codes, codes->at + run, i - run) < 0)
            return -ENOMEM;
    }
    return 0;
}

/* Orders and composes what was decomposed since `from`. */
static int finish(struct codes *codes, size_t from)
{
    if (from == codes->n)
        return 0;
    if (order(codes, from) < 0)
        return -ENOMEM;
    utf8proc_ssize_t n =
        utf8proc_normalize_utf32(codes->at + from, (utf8proc_ssize_t)(codes->n - from), options);
    codes->n = from + (size_t)n;
    return 0;
}

static int decompose(struct codes *codes, int32_t c)
{
    if (grow_array(&codes->at, &codes->cap, codes->n + CODES_PER_CHARACTER, sizeof(*codes->at)) < 0)
        return -ENOMEM;
    int boundary = 0;
    utf8proc_ssize_t n =
        utf8proc_decompose_char(c, codes->at + codes->n, CODES_PER_CHARACTER, options, &boundary);
    codes->n += (size_t)n;
    return 0;
}

static int normalise(struct codes *codes, const char *text, size_t len)
{
    size_t from = 0; /* where the stretch begins that is not composed yet */
    int32_t c;
    int err = 0;
    for (size_t i = 0; i < len && err == 0;) {
        i += utf8_get(text + i, &c);
        if (!apart(c)) {
            err = decompose(codes, c);
            continue;
        }
        err = finish(codes, from);
        if (err == 0)
            err = grow_array(&codes->at, &codes->cap, codes->n + 1, sizeof(*codes->at));
        if (err == 0)
            codes->at[codes->n++] = c;
        from = codes->n;
    }
    return err < 0 ? err : finish(codes, from);
}

static int to_utf8(char **ret, size_t *ret_len, const struct codes *codes)
{
    char *out = malloc(codes->n * 4 + 1);
    size_t n = 0;
    if (out == NULL)
        return -ENOMEM;
    for (size_t i = 0; i < codes->n; i++)
        n += utf8_put(out + n, codes->at[i]);
    *ret = out;
    *ret_len = n;
    return 0;
}

int nfc(char **ret, size_t *ret_len, const char *text, size_t len)
{
    struct codes codes = {0};
    int err = normalise(&codes, text, len);
    if (err == 0)
        err = to_utf8(ret, ret_len, &codes);
    free(codes.at);
    free(codes.spare);
    return err;
}
