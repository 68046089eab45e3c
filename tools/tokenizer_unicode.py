#!/usr/bin/env python3
"""Writes model/unicode_table.c: the character data that token ids depend on.

Both tables are measured, not copied from a standard: the classes by asking the regular expressions
of the Hugging Face `tokenizers` package about every code point, the late characters by comparing
its NFC with that of a current Unicode (`unicodedata2`, or Python's own data where that is absent).

    python3 tools/tokenizer_unicode.py > model/unicode_table.c
"""

import sys

from tokenizers import Regex, normalizers, pre_tokenizers

try:
    import unicodedata2 as unicode_data
except ImportError:
    import unicodedata as unicode_data

CODES = [c for c in range(1, 0x110000) if not 0xD800 <= c < 0xE000]
CLASSES = (("CLASS_LETTER", r"\p{L}"), ("CLASS_NUMBER", r"\p{N}"), ("CLASS_SPACE", r"\s"))
# Marks of many combining classes, to see whether another mark is reordered beside them.
PROBES = [0x316, 0x301, 0x334, 0x345, 0x94D, 0x93C, 0x31B, 0x5B0, 0x64B, 0xE38, 0xF71, 0x302A]


def matching(pattern):
    """The code points that `pattern` matches: it then stands alone between two controls."""
    split = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    return [c for c in CODES if len(split.pre_tokenize_str("\x01" + chr(c) + "\x02")) == 3]


def ranges(codes):
    out = []
    for c in sorted(codes):
        if out and out[-1][1] == c - 1:
            out[-1][1] = c
        else:
            out.append([c, c])
    return out


def late_codes():
    """Code points that the reference's NFC treats as unknown although Unicode now knows them."""
    ours = normalizers.NFC().normalize_str
    late = set()
    for c in CODES:
        if unicode_data.combining(chr(c)):
            for p in PROBES:
                for s in ("x" + chr(c) + chr(p), "x" + chr(p) + chr(c)):
                    if ours(s) != unicode_data.normalize("NFC", s):
                        late.add(c)
        parts = unicode_data.decomposition(chr(c))
        if parts and not parts.startswith("<"):
            parts = [int(p, 16) for p in parts.split()]
            s = "".join(map(chr, parts))
            if ours(s) != unicode_data.normalize("NFC", s):
                late |= {c, parts[0]}
    return late


def table(rows):
    lines, line = [], "   "
    for row in rows:
        if len(line) + 1 + len(row) > 100:
            lines.append(line)
            line = "   "
        line += " " + row
    return "\n".join(lines + [line])


def main():
    classes = []
    for name, pattern in CLASSES:
        classes += [(a, b, name) for a, b in ranges(matching(pattern))]
    short = {"CLASS_LETTER": "L", "CLASS_NUMBER": "N", "CLASS_SPACE": "S"}
    class_rows = [f"{{0x{a:x}, 0x{b:x}, {short[n]}}}," for a, b, n in sorted(classes)]
    late_rows = [f"{{0x{a:x}, 0x{b:x}}}," for a, b in ranges(late_codes())]
    sys.stdout.write(f"""/*
 * model/unicode_table.c - made by tools/tokenizer_unicode.py; do not edit.
 *
 * unicode_classes: \\p{{L}}, \\p{{N}} and \\s as the reference pre-tokeniser has them.
 * unicode_late: characters that Unicode has given a combining class or a decomposition since the
 * reference normaliser's version (compared with Unicode {unicode_data.unidata_version}).
 */
#include "model/unicode_class.h"

#include "base/util.h"

/* clang-format off */
#define L CLASS_LETTER
#define N CLASS_NUMBER
#define S CLASS_SPACE

const struct unicode_class_range unicode_classes[] = {{
{table(class_rows)}
}};
const size_t unicode_n_classes = ARRAY_LEN(unicode_classes);

const struct unicode_range unicode_late[] = {{
{table(late_rows)}
}};
const size_t unicode_n_late = ARRAY_LEN(unicode_late);
""")


if __name__ == "__main__":
    main()
