#!/usr/bin/env python3
"""tools/end_of_turn.py - makes the detector of the end of a turn that a model brings along.

    parley states --model DIR --list CLIPS.list --out STATES.safetensors
    tools/end_of_turn.py fit --states STATES.safetensors --clips CLIPS.jsonl --out FILE
    tools/end_of_turn.py test --states STATES.safetensors --clips CLIPS.jsonl --detector FILE

A clip is a recording of a question, or of the beginning of one, that ends like the sound that
Parley looks at: about 0.2 s of silence behind the last voice. CLIPS.list names the recordings, one
a line (earlier turns of its conversation before it, parted by tabs); CLIPS.jsonl says of each line,
in the same order, {"finished": true} or false. Fields besides are shown by `test` as groups.
tools/mini/pauses.py makes both for the domain of parley-mini; for another model take questions as
its users ask them, whole and cut before words, by many voices.

FILE is to be called end_of_turn.safetensors and lies beside the model's weights: F32 weight [hidden]
and bias [1] of a logistic regression on the Thinker's state (daemon/end_of_turn.h). Several --states
and --clips are taken together. Needs numpy.
"""
import argparse
import json
import struct
import sys

import numpy as np

STEPS = 40


def read_safetensors(path):
    with open(path, "rb") as f:
        n, = struct.unpack("<Q", f.read(8))
        header = json.loads(f.read(n))
        data = f.read()
    out = {}
    for name, t in header.items():
        if name == "__metadata__":
            continue
        if t["dtype"] != "F32":
            sys.exit(f"end_of_turn: {path}: {name} is {t['dtype']}, expected F32")
        begin, end = t["data_offsets"]
        out[name] = np.frombuffer(data[begin:end], np.float32).reshape(t["shape"])
    return out


def write_safetensors(path, tensors):
    header, at = {}, 0
    for name, x in tensors.items():
        header[name] = {"dtype": "F32", "shape": list(x.shape), "data_offsets": [at, at + x.nbytes]}
        at += x.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for x in tensors.values():
            f.write(x.astype("<f4").tobytes())


def read(o):
    """States [n, hidden] and the clips' rows."""
    states, rows = [], []
    for path, clips in zip(o.states, o.clips, strict=True):
        states.append(read_safetensors(path)["state"])
        with open(clips, encoding="utf-8") as f:
            more = [json.loads(line) for line in f if line.strip()]
        if len(more) != len(states[-1]):
            sys.exit(f"end_of_turn: {path} has {len(states[-1])} states, {clips} {len(more)} clips")
        rows += more
    return np.concatenate(states).astype(np.float64), rows


def regression(x, y, weights, decay):
    """Logistic regression by Newton's method; the squares of the weights cost `decay` a clip."""
    x = np.hstack([x, np.ones((len(x), 1))])
    cost = np.full(x.shape[1], decay * weights.sum())
    cost[-1] = 0
    w = np.zeros(x.shape[1])
    for _ in range(STEPS):
        p = 1 / (1 + np.exp(-np.clip(x @ w, -30, 30)))
        gradient = x.T @ (weights * (p - y)) + cost * w
        bend = (x * (weights * p * (1 - p))[:, None]).T @ x + np.diag(cost)
        step = np.linalg.solve(bend + 1e-9 * np.eye(len(w)), gradient)
        w -= step
        if np.abs(step).max() < 1e-6:
            break
    return w[:-1], w[-1]


def area(score, y):
    """Under the curve of finished clips found against unfinished ones taken for them."""
    rank = np.empty(len(score))
    rank[np.argsort(score, kind="stable")] = np.arange(1, len(score) + 1)
    n, m = y.sum(), len(y) - y.sum()
    return (rank[y].sum() - n * (n + 1) / 2) / max(n * m, 1)


def fit(o):
    x, rows = read(o)
    y = np.array([r["finished"] for r in rows], bool)
    mean, spread = x.mean(0), x.std(0) + 1e-6
    weights = np.where(y, 0.5 / y.mean(), 0.5 / (1 - y.mean()))  # as if both were as likely
    w, b = regression((x - mean) / spread, y, weights, o.decay)
    w /= spread
    b -= w @ mean
    write_safetensors(o.out, {"weight": w.astype(np.float32), "bias": np.float32([b])})
    print(f"{len(rows)} clips, {y.mean():.0%} finished; on themselves: area {area(x @ w + b, y):.4f}")


def table(name, p, y):
    ends = ", ".join(f"{t}: {(p[y] >= t).mean():.1%} / {(p[~y] >= t).mean():.1%}"
                     for t in (0.5, 0.7, 0.8, 0.9, 0.95) if y.any() and not y.all())
    waits = ", ".join(f"{t}: {(p[y] < t).mean():.1%} / {(p[~y] < t).mean():.1%}"
                      for t in (0.05, 0.1, 0.2, 0.3) if y.any() and not y.all())
    if y.any() and not y.all():
        print(f"{name} ({len(y)}): area {area(p, y):.4f}\n    finished / unfinished ones taken for "
              f"finished from {ends}\n    ... for unfinished below {waits}")
    else:
        print(f"{name} ({len(y)}): " + ", ".join(f"from {t}: {(p >= t).mean():.1%}"
                                                for t in (0.2, 0.5, 0.8)))


def test(o):
    x, rows = read(o)
    d = read_safetensors(o.detector)
    p = 1 / (1 + np.exp(-(x @ d["weight"].astype(np.float64) + float(d["bias"][0]))))
    y = np.array([r["finished"] for r in rows], bool)
    table("all", p, y)
    for field in o.group:
        for value in sorted({str(r.get(field)) for r in rows}):
            chosen = np.array([str(r.get(field)) == value for r in rows])
            table(f"{field} {value}", p[chosen], y[chosen])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["fit", "test"])
    parser.add_argument("--states", action="append", required=True)
    parser.add_argument("--clips", action="append", required=True)
    parser.add_argument("--out", default="end_of_turn.safetensors")
    parser.add_argument("--detector", default="end_of_turn.safetensors")
    parser.add_argument("--decay", type=float, default=1e-3)
    parser.add_argument("--group", action="append", default=[])
    o = parser.parse_args()
    {"fit": fit, "test": test}[o.what](o)


if __name__ == "__main__":
    main()
