#!/usr/bin/env python3
"""tests/lint_selftest.py - proves that every rule of tools/lint.py can fail, and that sound code
passes them all. Each snippet is put alone into a temporary tree; the rule it is entered under must
report it. Run with no arguments."""
import os
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tools"))
sys.dont_write_bytecode = True
import lint  # noqa: E402

TOP = "/* a file with a job */\n"
BODY = "int f(int x)\n{\n    %s\n    return x;\n}\n"

# (rule, path, text): the text breaks the rule.
BAD = [
    ("include", "base/a.c", TOP + '#include "kernels/ops.h"\n'),
    ("include", "kernels/cpu/a.c", TOP + '#include "model/model.h"\n'),
    ("include", "engine/a.c", TOP + '#include "talker/talker.h"\n'),
    ("include", "talker/a.h", TOP + '#  include "daemon/reply.h"\n'),
    ("include", "engine/a.c", TOP + '#include "engine.h"\n'),
    ("library", "engine/a.c", TOP + "#include <jansson.h>\n"),
    ("library", "talker/a.c", TOP + "#include <sndfile.h>\n"),
    ("environment", "model/a.c", TOP + BODY % 'getenv("HOME");'),
    ("environment", "daemon/a.c", TOP + BODY % 'x = secure_getenv ("A") != 0;'),
    ("thread", "engine/a.c", TOP + BODY % "pthread_create(&t, NULL, g, NULL);"),
    ("thread", "daemon/a.c", TOP + BODY % "pthread_cancel(t);"),
    ("printing", "model/a.c", TOP + BODY % 'printf("hello");'),
    ("printing", "model/a.c", TOP + BODY % 'fprintf(stderr, "hello");'),
    ("printing", "kernels/a.c", TOP + BODY % 'fputs("hello", stdout);'),
    ("function-length", "model/a.c", TOP + BODY % ("x++;\n    " * 97)),
    ("file-length", "model/a.c", TOP + "int f(void);\n" * 800),
    ("line-length", "model/a.c", TOP + "/* " + "x" * 95 + " */\n"),
    ("line-length", "tools/a.sh", "#!/bin/sh\n# " + "x" * 99 + "\n"),
    ("mutable-state", "model/a.c", TOP + "static int count;\n"),
    ("mutable-state", "model/a.c", TOP + "int table[4] = {1, 2, 3, 4};\n"),
    ("mutable-state", "model/a.h", TOP + "extern struct device *device;\n"),
    ("mutable-state", "model/a.c", TOP + "static const char *names[] = {\"a\", \"b\"};\n"),
    ("mutable-state", "model/a.c", TOP + "static _Thread_local int last;\n"),
    ("mutable-state", "model/a.c", TOP + "static struct {\n    int x;\n} pair = {1};\n"),
    ("mutable-state", "model/a.c", TOP + "static int (*hook)(int) = 0;\n"),
    ("mutable-state", "model/a.c", TOP + BODY % "static int calls;"),
    ("mutable-state", "kernels/a.cu", TOP + "template <int N> static int made[N];\n"),
    ("mutable-state", "model/a.c", TOP + "static volatile sig_atomic_t stop;\n"),
    ("opening-comment", "model/a.c", '#include "model/model.h"\n/* late */\n'),
    ("opening-comment", "model/a.h", "#ifndef A\n#define A\n#endif\n"),
    ("opening-comment", "tools/a.py", "import os\n"),
    ("unfinished", "model/a.c", TOP + "/* TO" + "DO: the rest */\n"),
    ("unfinished", "README.md", "# Parley\n\nFIX" + "ME\n"),
    ("unfinished", "tools/a.sh", "#!/bin/sh\n# XX" + "X\n"),
    ("ascii", "model/a.c", TOP + "/* caf\u00e9 */\n"),
    ("ascii", "CMakeLists.txt", "# caf\u00e9\n"),
    ("machine-path", "README.md", "see /ho" + "me/someone/models\n"),
    ("machine-path", "model/a.c", TOP + 'static const char *const dir = "/ro' + 'ot/models";\n'),
    ("machine-path", "tools/a.sh", "#!/bin/sh\ncd /wo" + "rk/tree\n"),
] + [
    ("banned-call", "tests/unit/a.c", TOP + BODY % f"{name}(x);") for name in lint.BANNED
]

# Code that looks like a breach and is none.
GOOD = {
    "kernels/a.cu": TOP + "template <int N, bool B> struct room {\n    int a[N];\n};\n",
    "model/a.c": TOP + """#include "model/model.h"

#include <jansson.h>

/* strcpy(a, b), printf("x") and getenv("y") are only spoken of here. */
static const char *const names[] = {"strcpy(", "static int x;"};
static const struct {
    const char *name;
    int size;
} types[] = {{"F32", 4}, {"BF16", 2}};
static const float table[2][2] = {
    {1.0f, 2.0f},
    {3.0f, 4.0f},
};
static int (*const hook)(int) = 0;
typedef int (*callback)(void *arg);
struct pair {
    int a, b;
};
enum { ONE, TWO };
extern int g(const char *text, int n);
static int h(struct pair *p);
static struct pair *make(void);
int declared(int x) __attribute__((const));

static struct pair *make(void)
{
    static const int start = 3;
    struct pair *p = get(start);
    p->printf(p);
    snprintf(p->text, 8, "%d", p->a);
    return p;
}

int f(int x)
{
    switch (x) {
    case ONE: {
        int y = x;
        x = y;
        break;
    }
    default:
        for (int i = 0; i < 3; i++)
            x += i;
    }
    return x;
}
""",
    "base/thread.c": TOP + BODY % "pthread_create(&t, NULL, g, NULL);",
    "daemon/a.c": TOP + '#include "engine/engine.h"\n#include <sndfile.h>\n'
                  "static volatile sig_atomic_t stop;\n" + BODY % 'printf("hello");',
    "tests/unit/a.c": TOP + '#include "daemon/reply.h"\n#include "helper.h"\nstatic int count;\n'
                      + BODY % 'getenv("HOME");',
    "tools/a.py": '"""tools/a.py - caf\u00e9."""\n',
    "tools/a.sh": "#!/bin/sh\n# reads /etc/os-release, writes $HOME/work/out and ./home/x\n",
    "README.md": "# Parley\n\nSee tests/work/ and https://example.org/home/.\n",
    "model/long.c": TOP + BODY % ("x++;\n    " * 95),
}


def report(files):
    """What the rules say about a tree of these files."""
    with tempfile.TemporaryDirectory() as root:
        for path, text in files.items():
            full = os.path.join(root, path)
            os.makedirs(os.path.dirname(full), exist_ok=True)
            with open(full, "w", encoding="utf-8") as f:
                f.write(text)
        return lint.lint(root)


def check_format():
    """The formatter's check fails on bad layout; None = there is no formatter."""
    if lint.formatter() is None:
        return None
    with tempfile.TemporaryDirectory() as root:
        with open(os.path.join(root, ".clang-format"), "w", encoding="utf-8") as f:
            f.write("BasedOnStyle: LLVM\n")
        os.mkdir(os.path.join(root, "base"))
        with open(os.path.join(root, "base", "a.c"), "w", encoding="utf-8") as f:
            f.write("int  f( void ) ;\n")
        command = [sys.executable, lint.__file__, "--format", root]
        return lint.subprocess.run(command, capture_output=True).returncode == 1


def main():
    failed = 0
    for rule, path, text in BAD:
        found = report({path: text})
        if not any(f" {rule}: " in line for line in found):
            failed += 1
            print(f"FAILED {rule}: nothing said about {path}:\n{text[:200]}\n  said: {found}")
    for line in report(GOOD):
        failed += 1
        print(f"FAILED: sound code was reported: {line}")
    for rule in set(lint.RULES) - {case[0] for case in BAD}:
        failed += 1
        print(f"FAILED: rule {rule} has no snippet here")
    layout = check_format()
    if layout is None:
        print("skip: clang-format 14 is not installed, its check was not tried")
    elif not layout:
        failed += 1
        print("FAILED: bad layout was not reported")
    print(f"lint self-test: {len(BAD)} snippets, {failed} failures")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
