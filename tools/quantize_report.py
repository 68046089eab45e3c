#!/usr/bin/env python3
"""tools/quantize_report.py - what quantising did to answers: the same questions to two checkpoints.

    tools/quantize_report.py BEFORE AFTER QUESTION.wav ... [--text T]... [--parley build/parley]

Every question is asked of both with `parley ask --greedy --dump`. For each stage the table has the
error |after - before| / |before| (2-norms): its mean and its largest value over the questions, and
the largest single difference relative to the largest value. Words and codes are fed back, so stages
are compared as far as the ids before them agree. Exit status 0, or 1 if a question failed. Only the
Python standard library is used.
"""
import argparse
import array
import json
import math
import os
import struct
import subprocess
import sys
import tempfile

# stage in the table: tensor of the dump, ids that it follows
STAGES = {
    "mel": ("mel", None),
    "audio encoder": ("encoder", None),
    "thinker logits": ("thinker_logits", "text_ids"),
    "talker hidden": ("talker_hidden", "codes"),
    "code 0 logits": ("code0_logits", "codes"),
    "sound": ("wave", "codes"),
}


def read_dump(path):
    """name -> (shape, array) of a .safetensors file of F32 and I32."""
    with open(path, "rb") as f:
        length, = struct.unpack("<Q", f.read(8))
        header = json.loads(f.read(length))
        data = f.read()
    tensors = {}
    for name, info in header.items():
        if name != "__metadata__":
            begin, end = info["data_offsets"]
            values = array.array("f" if info["dtype"] == "F32" else "i")
            values.frombytes(data[begin:end])
            tensors[name] = info["shape"], values
    return tensors


def ask(parley, model, question, options):
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "dump.safetensors")
        command = [parley, "ask", "--model", model, "--greedy", "--quiet", "--json", "--dump", path]
        done = subprocess.run(command + options + question, capture_output=True, text=True)
        if done.returncode != 0:
            sys.stderr.write(done.stderr)
            return None, None
        return json.loads(done.stdout), read_dump(path)


def agreeing_rows(a, b):
    """Rows at the beginning that are the same in both tensors."""
    width = math.prod(a[0][1:])
    n = min(len(a[1]), len(b[1])) // width
    for i in range(n):
        if a[1][i * width:(i + 1) * width] != b[1][i * width:(i + 1) * width]:
            return i
    return n


def common(stage, before, after):
    """The parts of a stage's two tensors that had the same input, None when there are none."""
    name, ids = STAGES[stage]
    if name not in before or name not in after:
        return None
    (shape, a), (_, b) = before[name], after[name]
    n = min(len(a), len(b))
    if ids is not None and ids in before and ids in after:
        total = before[ids][0][0]
        same = agreeing_rows(before[ids], after[ids])
        if name == "talker_hidden" or name == "code0_logits":  # the words are its input, too
            if agreeing_rows(before["text_ids"], after["text_ids"]) < before["text_ids"][0][0]:
                same = 0
        if name == "wave":
            n = n if same == total else len(a) * same // max(total, 1)
        else:
            n = min(n, (same + 1) * math.prod(shape[1:]))
    return (a[:n], b[:n]) if n > 0 else None


def errors(a, b):
    square = math.fsum(x * x for x in a)
    off = math.fsum((x - y) ** 2 for x, y in zip(a, b))
    top = max(abs(x) for x in a)
    largest = max(abs(x - y) for x, y in zip(a, b))
    return math.sqrt(off / square) if square else 0.0, largest / top if top else 0.0


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("before")
    parser.add_argument("after")
    parser.add_argument("questions", nargs="*", metavar="QUESTION.wav")
    parser.add_argument("--text", action="append", default=[], help="a written question")
    parser.add_argument("--parley", default="build/parley")
    parser.add_argument("--max-tokens", default="64")
    parser.add_argument("--max-frames", default="60")
    parser.add_argument("--device", default="auto")
    a = parser.parse_args()
    options = ["--max-tokens", a.max_tokens, "--max-frames", a.max_frames, "--device", a.device]
    questions = [["--in", q] for q in a.questions] + [["--text", t] for t in a.text]
    if not questions:
        parser.error("no question: give sound files or --text T")
    found = {stage: [] for stage in STAGES}
    changed, asked, failed = [], 0, 0
    for question in questions:
        line, before = ask(a.parley, a.before, question, options)
        other, after = ask(a.parley, a.after, question, options) if line else (None, None)
        if other is None:
            failed += 1
            continue
        asked += 1
        if line["text"] != other["text"]:
            changed.append((question[1], line["text"], other["text"]))
        for stage, values in found.items():
            pair = common(stage, before, after)
            if pair:
                values.append(errors(*pair))
    print(f"{'stage':16} {'questions':>9} {'mean error':>11} {'largest':>11} {'one value':>11}")
    for stage, values in found.items():
        if values:
            of = [v[0] for v in values]
            print(f"{stage:16} {len(values):9} {sum(of) / len(of):11.2e} {max(of):11.2e} "
                  f"{max(v[1] for v in values):11.2e}")
    print(f"answers changed: {len(changed)} of {asked}")
    for name, text, other in changed:
        print(f"  {name}\n    before: {text}\n    after:  {other}")
    if failed:
        print(f"questions that failed: {failed}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
