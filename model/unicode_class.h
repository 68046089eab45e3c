/* model/unicode_class.h - the character classes that the tokenizer's results depend on. */
#ifndef PARLEY_MODEL_UNICODE_CLASS_H
#define PARLEY_MODEL_UNICODE_CLASS_H

#include <stddef.h>
#include <stdint.h>

enum unicode_class { CLASS_OTHER, CLASS_LETTER, CLASS_NUMBER, CLASS_SPACE };

struct unicode_range {
    int32_t first, last;
};

struct unicode_class_range {
    int32_t first, last;
    enum unicode_class class;
};

/* Both sorted, without overlap; see unicode_table.c for what they hold. */
extern const struct unicode_class_range unicode_classes[];
extern const size_t unicode_n_classes;
extern const struct unicode_range unicode_late[];
extern const size_t unicode_n_late;

enum unicode_class unicode_class(int32_t c);

/* 1 when normalisation must leave `c` alone because the reference does not know it. */
int unicode_is_late(int32_t c);

#endif
