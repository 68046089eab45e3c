#!/usr/bin/env python3
"""tools/lint.py - the rules of ARCHITECTURE.md and CONTRIBUTING.md that a script can check.

    tools/lint.py [ROOT]            all rules but the formatter; one line per finding
    tools/lint.py --format [ROOT]   clang-format 14 over every C file; exit 77 when it is not there

Exit status 0: clean, 1: findings. A new rule is a function that yields (line, text); it is entered
in RULES and gets a snippet in tests/lint_selftest.py that proves that it can fail. Only the Python
standard library is used.
"""
import os
import re
import shutil
import subprocess
import sys

LINE_MAX = 100
FUNCTION_MAX = 100
FILE_MAX = 800

# Who may include whom. A folder always may include itself; None = everything.
STAGE = {"base", "kernels", "model"}
MAY_INCLUDE = {
    "base": set(),
    "audio": {"base"},
    "vad": {"base"},
    "kernels": {"base"},
    "model": {"base", "kernels"},
    "engine": STAGE,
    "talker": STAGE,
    "code2wav": STAGE,
    "daemon": {"base", "audio", "vad", "kernels", "model", "engine", "talker", "code2wav"},
    "tests": None,
    "tools": None,
}
FREE = {"tests", "tools"}  # folders that are not part of the program

# Third-party headers and the folders that wrap them.
LIBRARIES = {
    "jansson.h": {"model", "daemon"},
    "utf8proc.h": {"model"},
    "sndfile.h": {"daemon", "audio"},
    "soxr.h": {"daemon", "audio"},
    "alsa/asoundlib.h": {"audio"},
    "portaudio.h": {"audio"},
    "cuda_runtime.h": {"kernels"},
    "ini.h": {"daemon"},
    "systemd/sd-event.h": {"daemon"},
    "systemd/sd-daemon.h": {"daemon"},
    "libevdev/libevdev.h": {"daemon"},
    "archive.h": {"daemon"},
    "nettle/sha2.h": {"daemon"},
}

BANNED = "strcpy strcat sprintf vsprintf gets atoi atol atof strtok alloca system popen".split()
PRINTING = "printf vprintf puts putchar perror".split()
PRINTS = {"daemon"} | FREE  # folders whose files may write to the terminal

SKIP_FOLDERS = re.compile(r"^(build.*|out|\.(?!ci$).*|__pycache__|venv)$")
C_FILE = re.compile(r"\.(c|h|cu|cuh|cc)$")
SCRIPT = re.compile(r"(\.(py|sh|cmake)|CMakeLists\.txt|Makefile|/run)$")
TEXT = re.compile(r"(\.(md|json|conf|service|yml|txt)|LICENSE)$")


class Source:
    """One file: its path from the root, its lines, and for C its code without comments, strings
    and preprocessor lines, with every line still in its place."""

    def __init__(self, root, path):
        self.path = path
        self.folder = path.split("/")[0]
        self.is_c = bool(C_FILE.search(path))
        self.is_source = self.is_c or bool(SCRIPT.search(path))
        with open(os.path.join(root, path), encoding="utf-8", errors="replace") as f:
            self.text = f.read()
        self.lines = self.text.split("\n")
        self.code = strip_c(self.text) if self.is_c else ""
        self.code_lines = self.code.split("\n")


def strip_c(text):
    """Blanks comments, the inside of string and character literals, and preprocessor lines."""
    def blank(match):
        found = match.group(0)
        if found[0] in "\"'":
            return found[0] + " " * (len(found) - 2) + found[0]
        return re.sub(r"[^\n]", " ", found)

    text = re.sub(r"/\*.*?\*/|//[^\n]*|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'", blank, text,
                  flags=re.S)
    return re.sub(r"^[ \t]*#(?:[^\n]*\\\n)*[^\n]*", blank, text, flags=re.M)


def statements(code):
    """Yields (line, text, depth) for every declaration or statement: what stands between ; { }.
    Braces of an initialiser belong to their declaration."""
    body = re.compile(r"\b((?:struct|union|enum)(?:\s+\w+)?\s*)(\{[^{}]*\})")
    count = 1
    while count:  # members of a type are no statements: an @ stands for them
        code, count = body.subn(lambda m: m[1] + "@" + re.sub(r"[^\n]", " ", m[2][1:]), code)
    start, depth, i = 0, 0, 0
    while i < len(code):
        c = code[i]
        if c == "{" and re.search(r"=\s*$", code[start:i]):
            level = 0
            while i < len(code):
                level += {"{": 1, "}": -1}.get(code[i], 0)
                if level == 0:
                    break
                i += 1
        elif c in ";{}":
            piece = code[start:i]
            lead = len(piece) - len(piece.lstrip())
            if piece.strip() or c == "{":
                yield code.count("\n", 0, start + lead) + 1, piece.strip(), depth
            depth += {"{": 1, "}": -1}.get(c, 0)
            start = i + 1
        i += 1


def functions(source):
    """Yields (line, name, lines) of every function: K&R style puts both braces in column 0."""
    begin = None
    for n, line in enumerate(source.code_lines, 1):
        if line.startswith("{") and begin is None:
            begin = n
        elif line.startswith("}") and begin is not None:
            head = " ".join(source.code_lines[max(0, begin - 6):begin - 1])
            names = re.findall(r"(\w+)\s*\(", head)
            yield begin, names[-1] if names else "?", n - begin + 1
            begin = None


def calls(source, names):
    pattern = re.compile(r"(?<![\w.>])(" + "|".join(names) + r")\s*\(")
    for n, line in enumerate(source.code_lines, 1):
        for match in pattern.finditer(line):
            yield n, match.group(1)


def include_table(s):
    allowed = MAY_INCLUDE.get(s.folder)
    if not s.is_c or s.folder not in MAY_INCLUDE:
        return
    for n, line in enumerate(s.lines, 1):
        match = re.match(r'\s*#\s*include\s+"([^"]+)"', line)
        if not match:
            continue
        name = match.group(1)
        top = name.split("/")[0]
        if s.folder in FREE and top not in MAY_INCLUDE:
            continue
        if top not in MAY_INCLUDE:
            yield n, f'"{name}" is not written from the root of the tree'
        elif top != s.folder and allowed is not None and top not in allowed:
            yield n, f"{s.folder}/ may not include {top}/"


def library_table(s):
    if not s.is_c or s.folder in FREE:
        return
    for n, line in enumerate(s.lines, 1):
        match = re.match(r"\s*#\s*include\s+<([^>]+)>", line)
        if match and s.folder not in LIBRARIES.get(match.group(1), {s.folder}):
            yield n, f"<{match.group(1)}> belongs in {', '.join(LIBRARIES[match.group(1)])}"


def banned_call(s):
    if s.is_c:
        for n, name in calls(s, BANNED):
            yield n, f"{name}() is not used here"


def environment(s):
    if s.is_c and s.folder not in FREE:
        for n, name in calls(s, ["getenv", "secure_getenv", "setenv", "putenv"]):
            yield n, f"{name}() outside tests/ and tools/"


def threads(s):
    if s.is_c and s.path != "base/thread.c":
        for n, name in calls(s, ["pthread_create", "thrd_create", "pthread_cancel"]):
            yield n, f"{name}(): threads are made in base/thread.c and are never cancelled"


def printing(s):
    if not s.is_c or s.folder in PRINTS or s.path == "base/log.c":
        return
    for n, name in calls(s, PRINTING):
        yield n, f"{name}() in a library folder"
    for n, line in enumerate(s.code_lines, 1):
        if re.search(r"\bv?f(printf|puts|putc|write)\b.*\b(stdout|stderr)\b", line):
            yield n, "writes to the terminal in a library folder"


def function_length(s):
    for n, name, length in functions(s):
        if length > FUNCTION_MAX:
            yield n, f"{name}() has {length} lines, the limit is {FUNCTION_MAX}"


def file_length(s):
    if s.is_c and len(s.lines) - 1 > FILE_MAX:
        yield len(s.lines) - 1, f"{len(s.lines) - 1} lines, the limit is {FILE_MAX}"


def line_length(s):
    if s.is_source and not s.path.endswith(".py"):  # Python holds lists of sentences
        for n, line in enumerate(s.lines, 1):
            if len(line) > LINE_MAX:
                yield n, f"{len(line)} columns, the limit is {LINE_MAX}"


def is_variable(text):
    """A declaration that makes an object: no type alone, no function, no typedef."""
    if re.match(r"(typedef|return|_Static_assert|case|default|goto|else)\b", text):
        return False
    text = re.sub(r"^template\s*<[^<>]*>\s*", "", text)
    head = re.sub(r"__attribute__\s*\(\(.*?\)\)", "", text.split("=")[0])
    if re.match(r"(static |extern |const )*(struct|union|enum)(\s+\w+)?\s*@?\s*$", head):
        return False
    if "(" in head:
        return re.search(r"\(\s*\*", head) is not None and "=" in text
    return re.search(r"[\w\]\s*]+\w", head) is not None and len(re.findall(r"\w+", head)) > 1


def is_constant(text):
    head = text.split("=")[0]
    if "_Thread_local" in head or "__thread" in head:
        return False
    return re.search(r"\bconst\b", head.rsplit("*", 1)[-1]) is not None


def mutable_state(s):
    if not s.is_c or s.folder in FREE:
        return
    for n, text, depth in statements(s.code):
        local = depth > 0
        if local and not text.startswith("static "):
            continue
        if not is_variable(text) or is_constant(text):
            continue
        if s.folder == "daemon" and "volatile sig_atomic_t" in text:
            continue  # a signal handler has no other way to speak
        yield n, "mutable state outlives its call: " + " ".join(text.split())[:60]


def opening_comment(s):
    if s.is_c and not re.match(r"\s*(/\*|//)", s.text):
        yield 1, "does not open with a comment that says what the file is for"
    if s.is_source and not s.is_c and not re.match(r'\s*(#|"""|\'\'\')', s.text):
        yield 1, "does not open with a comment that says what the file is for"


def unfinished(s):
    pattern = re.compile(r"\b(" + "TO" + "DO|FIX" + "ME|XX" + r"X)\b")
    for n, line in enumerate(s.lines, 1):
        match = pattern.search(line)
        if match:
            yield n, f"{match.group(1)} left behind; open points go to NOTES.md"


def plain_ascii(s):
    if s.is_source and not s.path.endswith(".py"):  # samples of text in golden makers may differ
        for n, line in enumerate(s.lines, 1):
            if not line.isascii():
                yield n, "a character outside ASCII; write it as an escape"


def machine_path(s):
    pattern = re.compile(r"(?<![\w.$}/)*])/(root|home|Users|work|mnt|srv|workspace|scratch)(/|\b)")
    for n, line in enumerate(s.lines, 1):
        match = pattern.search(line)
        if match:
            yield n, f"the path of one machine: {line[match.start():match.start() + 30]}"


RULES = {
    "include": include_table,
    "library": library_table,
    "banned-call": banned_call,
    "environment": environment,
    "thread": threads,
    "printing": printing,
    "function-length": function_length,
    "file-length": file_length,
    "line-length": line_length,
    "mutable-state": mutable_state,
    "opening-comment": opening_comment,
    "unfinished": unfinished,
    "ascii": plain_ascii,
    "machine-path": machine_path,
}


def paths(root):
    """Every text file of the tree, build folders and golden data left out."""
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(f for f in folders if not SKIP_FOLDERS.match(f))
        for name in sorted(files):
            path = os.path.relpath(os.path.join(folder, name), root)
            if path.startswith("tests/golden/") and not path.endswith(".md"):
                continue
            if C_FILE.search(path) or SCRIPT.search("/" + path) or TEXT.search(path):
                yield path


def lint(root):
    found = []
    for path in paths(root):
        source = Source(root, path)
        for name, rule in RULES.items():
            found += [f"{path}:{n}: {name}: {text}" for n, text in rule(source)]
    return found


def formatter():
    for name in ["clang-format-14", "clang-format"]:
        path = shutil.which(name)
        if path:
            said = subprocess.run([path, "--version"], capture_output=True, text=True).stdout
            if re.search(r"version 14\.", said):
                return path
    return None


def check_format(root):
    tool = formatter()
    if tool is None:
        print("skip: clang-format 14 is not installed")
        return 77
    files = [p for p in paths(root) if C_FILE.search(p)]
    if not files:
        return 0
    return 1 if subprocess.run([tool, "--dry-run", "-Werror"] + files, cwd=root).returncode else 0


def main(args):
    want_format = "--format" in args
    args = [a for a in args if a != "--format"]
    root = args[0] if args else os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
    root = os.path.normpath(root)
    if want_format:
        return check_format(root)
    found = lint(root)
    print("\n".join(found) if found else f"lint: clean, {len(RULES)} rules")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
