/*
 * model/utf8.c - checking and writing UTF-8.
 *
 * The well-formed sequences are those of table 3-7 of the Unicode standard: the first byte fixes
 * the length and the range of the second byte, all others are 80..BF. A begun sequence is a prefix
 * of a well-formed one, which is what makes "replace the maximal subpart by one U+FFFD" fall out of
 * utf8_state() in the streaming decoder.
 */
#include "model/utf8.h"

/* Length of the sequence that starts with `b` and the range of its second byte; 0 for no start. */
static size_t sequence(unsigned char b, unsigned char *low, unsigned char *high)
{
    *low = b == 0xe0 ? 0xa0 : b == 0xf0 ? 0x90 : 0x80;
    *high = b == 0xed ? 0x9f : b == 0xf4 ? 0x8f : 0xbf;
    if (b < 0x80)
        return 1;
    if (b < 0xc2 || b > 0xf4)
        return 0;
    return b < 0xe0 ? 2 : b < 0xf0 ? 3 : 4;
}

enum utf8_state utf8_state(const unsigned char *bytes, size_t n)
{
    unsigned char low, high;
    size_t need = sequence(bytes[0], &low, &high);
    if (need == 0 || n > need)
        return UTF8_WRONG;
    if (n > 1 && (bytes[1] < low || bytes[1] > high))
        return UTF8_WRONG;
    for (size_t i = 2; i < n; i++)
        if ((bytes[i] & 0xc0) != 0x80)
            return UTF8_WRONG;
    return n == need ? UTF8_WHOLE : UTF8_BEGUN;
}

bool utf8_valid(const char *text, size_t len)
{
    const unsigned char *b = (const unsigned char *)text;
    for (size_t i = 0; i < len;) {
        unsigned char low, high;
        if (b[i] < 0x80) {
            i++;
            continue;
        }
        size_t n = sequence(b[i], &low, &high);
        if (n == 0 || n > len - i || utf8_state(b + i, n) != UTF8_WHOLE)
            return false;
        i += n;
    }
    return true;
}

size_t utf8_put(char *out, int32_t c)
{
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        out[0] = (char)(0xc0 | c >> 6);
        out[1] = (char)(0x80 | (c & 0x3f));
        return 2;
    }
    if (c < 0x10000) {
        out[0] = (char)(0xe0 | c >> 12);
        out[1] = (char)(0x80 | (c >> 6 & 0x3f));
        out[2] = (char)(0x80 | (c & 0x3f));
        return 3;
    }
    out[0] = (char)(0xf0 | c >> 18);
    out[1] = (char)(0x80 | (c >> 12 & 0x3f));
    out[2] = (char)(0x80 | (c >> 6 & 0x3f));
    out[3] = (char)(0x80 | (c & 0x3f));
    return 4;
}
