/*
 * model/unicode_class.c - which class a character has for the tokenizer.
 *
 * The ids that a checkpoint was trained on depend on what its tokenizer held for a letter, so the
 * answer must not move when a system library learns a newer Unicode. That is why the classes are a
 * table of our own (unicode_table.c, made from the reference by tools/tokenizer_unicode.py) and
 * not a call to a library.
 */
#include "model/unicode_class.h"

/* ASCII in one look-up and the Han block in one comparison: together most of all text. */
static enum unicode_class ascii_class(int32_t c)
{
    if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'))
        return CLASS_LETTER;
    if (c >= '0' && c <= '9')
        return CLASS_NUMBER;
    return c == ' ' || (c >= '\t' && c <= '\r') ? CLASS_SPACE : CLASS_OTHER;
}

enum unicode_class unicode_class(int32_t c)
{
    if (c < 0x80)
        return ascii_class(c);
    if (c >= 0x4e00 && c <= 0x9fff)
        return CLASS_LETTER;
    size_t low = 0, high = unicode_n_classes;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (c > unicode_classes[mid].last)
            low = mid + 1;
        else if (c < unicode_classes[mid].first)
            high = mid;
        else
            return unicode_classes[mid].class;
    }
    return CLASS_OTHER;
}

int unicode_is_late(int32_t c)
{
    size_t low = 0, high = unicode_n_late;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (c > unicode_late[mid].last)
            low = mid + 1;
        else if (c < unicode_late[mid].first)
            high = mid;
        else
            return 1;
    }
    return 0;
}
