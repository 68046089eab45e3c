/* model/utf8.h - strict UTF-8: no surrogates, no overlong forms, nothing above U+10FFFF. */
#ifndef PARLEY_MODEL_UTF8_H
#define PARLEY_MODEL_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What some bytes are: a whole character, the beginning of one, or neither. */
enum utf8_state { UTF8_WHOLE, UTF8_BEGUN, UTF8_WRONG };
enum utf8_state utf8_state(const unsigned char *bytes, size_t n);

bool utf8_valid(const char *text, size_t len);

/* Bytes written to `out`, which has room for 4. `c` is a code point and no surrogate. */
size_t utf8_put(char *out, int32_t c);

/* The length of the character at `s` and its code point; `s` lies in valid text. */
static inline size_t utf8_get(const char *s, int32_t *c)
{
    const unsigned char *b = (const unsigned char *)s;
    if (b[0] < 0x80) {
        *c = b[0];
        return 1;
    }
    if (b[0] < 0xe0) {
        *c = (b[0] & 0x1f) << 6 | (b[1] & 0x3f);
        return 2;
    }
    if (b[0] < 0xf0) {
        *c = (b[0] & 0x0f) << 12 | (b[1] & 0x3f) << 6 | (b[2] & 0x3f);
        return 3;
    }
    *c = (b[0] & 0x07) << 18 | (b[1] & 0x3f) << 12 | (b[2] & 0x3f) << 6 | (b[3] & 0x3f);
    return 4;
}

#endif
