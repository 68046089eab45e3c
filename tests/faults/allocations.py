#!/usr/bin/env python3
"""tests/faults/allocations.py - the n-th allocation of a replayed conversation fails, for all n.

    tests/faults/allocations.py PARLEY LIBRARY [STEP] [STEP_LATE] [PART/PARTS]

PARLEY is the program, LIBRARY libparley_faults.so (faults.c says how it works). turn.json is replayed: start,
a spoken turn, a barge-in, stop. Every STEP-th allocation fails while things are opened (1: each), every
STEP_LATE-th among the last 2,000, in which the conversation is; PART/PARTS: every PARTS-th of these
only, so that several processes can share them.

Good is, for each n: the process ends by itself; with status 0 and the very log of a run without fault, or
with another status and a sentence that says what failed, or with "failed" in the log (a turn that
did not come about); and of what was allocated nothing is left but what is left without fault.
Prints each n that is not good, then the sum. Exit status 77: the model is not here.
"""
import collections
import os
import re
import subprocess
import sys
import tempfile

SOURCE = os.path.abspath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
MODEL = os.path.join(SOURCE, "models/parley-mini")
LATE = 2000
# Libraries that do not check what malloc gives them: their allocations do not fail here.
EXCEPT = "libsoxr:libwebrtc:libstdc++"
# Libraries that check most of them: where they crash, or keep something, it is counted apart.
THEIRS = ("libsndfile", "libFLAC")


class Row:
    """One line of the report."""

    def __init__(self, text):
        head, _, self.said = text.rstrip("\n").partition(" | ")
        number, self.how, status, leaked, *askers = head.split(" ", 4)
        self.number, self.status, self.leaked = int(number), int(status), leaked
        names = askers[0].split(",") if askers else []
        self.asker, self.leaks = names[0] if names else leaked, names[1:]
        self.kept = collections.Counter(name.partition("#")[0] for name in self.leaks)


def run(parley, library, scenario, what, report, words=("--quiet",)):
    env = dict(os.environ, PARLEY_FAULTS=what, PARLEY_FAULTS_REPORT=report,
               PARLEY_FAULTS_EXCEPT=EXCEPT, LD_PRELOAD=library)
    subprocess.run([parley, "replay", scenario, "--model", MODEL, "--vad",
                    os.path.join(SOURCE, "models/vad/silero.bin"), "--threads", "1", *words],
                   env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    with open(report, encoding="utf-8", errors="replace") as f:
        rows = [Row(line) for line in f]
    os.remove(report)
    return rows


def prepare(parley, folder):
    """The scenario with its log beside it, as this machine makes it."""
    scenario = os.path.join(folder, "turn.json")
    with open(os.path.join(SOURCE, "tests/faults/turn.json"), encoding="utf-8") as f:
        text = f.read().replace("../replay", os.path.join(SOURCE, "tests/replay"))
    with open(scenario, "w", encoding="utf-8") as f:
        f.write(text)
    subprocess.run([parley, "replay", scenario, "--model", MODEL, "--vad",
                    os.path.join(SOURCE, "models/vad/silero.bin"), "--threads", "1", "--quiet",
                    "--update"], stdout=subprocess.DEVNULL, check=True)
    return scenario


def theirs(name):
    return name.startswith(THEIRS)


def wrong(row, usual):
    """What is not good about it, or None."""
    if row.how in ("signal", "nofork"):
        return f"{row.how} {row.status}"
    if row.how == "silent" and row.said == "":
        return f"left at once with status {row.status}, without a word"
    if row.status != 0 and row.said == "":
        return f"status {row.status} without a word"
    if row.status != 0 and "parley: " not in row.said and '"event":"failed"' not in row.said:
        return "something else happens without a word"
    if row.status == 0 and row.said != "":
        return "status 0"
    left = row.kept - usual
    return f"leaks {dict(left)}" if left else None


def judge(rows, usual):
    count = collections.Counter()
    for row in rows:
        bad = wrong(row, usual)
        kind = "good" if bad is None else "bad"
        left = row.kept - usual
        if bad and (theirs(row.asker) or (left and all(map(theirs, left)))):
            kind = "library"
        count[kind] += 1
        count["unharmed" if row.status == 0 and kind == "good" else "told"] += kind == "good"
        if kind != "good":
            print(f"{row.number}: {row.asker}: {bad}; said: {row.said[:300]}", flush=True)
    return count


def main(parley, library, step=401, late=97, part="0/1"):
    if not os.path.exists(os.path.join(MODEL, "model-00001-of-00002.safetensors")):
        print("skip: the weights of models/parley-mini are not here")
        return 77
    part, parts = map(int, part.split("/"))
    with tempfile.TemporaryDirectory(prefix="parley-faults-") as folder:
        scenario = prepare(parley, folder)
        report = os.path.join(folder, "report")
        plain = run(parley, library, scenario, "count", report)[0]
        usual = run(parley, library, scenario, "count", report, ())[0].kept  # with stdout's buffer
        most, step, late = plain.number, int(step), int(late)
        rows = []
        for first, last, by in ((1, most - LATE, step), (most - LATE + 1, most, late)):
            what = f"each={first + part * by}:{last}:{by * parts}"
            rows += run(parley, library, scenario, what, report)[:-1]
    count = judge(rows, usual)
    left = re.sub(r"[{}']", "", str(dict(usual)))
    print(f"{most} allocations, {len(rows)} failed in turn: {count['told']} were told, "
          f"{count['unharmed']} did no harm, {count['library']} were mishandled in a library, "
          f"{count['bad']} are bad. Left at the end of any run: {left or 'nothing'}")
    return 1 if count["bad"] or not rows else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
