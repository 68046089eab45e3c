#!/usr/bin/env python3
"""Synthesises the training data of parley-mini on many cores.

  questions.i16    int16, mono, 16 kHz: what users say, by speakers of voices.draw, and sounds
  questions.jsonl  one line an utterance: offset, samples, voice, text, dialogue, turn, answer,
                   skill, key; dialogues stand together, their turns in order
  teacher.i16      int16, mono, 24 kHz: answers by the one voice that the model learns
  teacher.jsonl    offset, samples, text

Offsets and lengths count samples. A stream grows while it is made; its .jsonl appears when it is
complete. The teacher comes first, so that training of the codec can begin beside the questions.

usage: synth.py --voices voices.tar.xz --out DIR [--questions 45000] [--answers 18000] [--jobs 16]
"""

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"     # one process a core: threads of the libraries would only fight

import argparse  # noqa: E402
import json  # noqa: E402
import random  # noqa: E402
import sys  # noqa: E402
import tempfile  # noqa: E402
import time  # noqa: E402
from concurrent.futures import ProcessPoolExecutor  # noqa: E402
from pathlib import Path  # noqa: E402

import numpy as np  # noqa: E402
from scipy.signal import lfilter, resample_poly  # noqa: E402

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import domain  # noqa: E402
import pack_voices  # noqa: E402
import voices  # noqa: E402

QUESTION_RATE, TEACHER_RATE = 16000, 24000
TEACHER = {"length": 1.15, "noise": 0.333, "noise_w": 0.333}    # calmer than Piper's defaults

# ------------------------------------------------------------------------------------------------
# waves
# ------------------------------------------------------------------------------------------------


def resample(x, rate, target):
    up, down = target // 50, round(rate / 50)
    return x if up == down else resample_poly(x, up, down).astype(np.float32)


def loud_frames(x, rate, below_db):
    """Which 10 ms frames come within below_db of the loudest."""
    hop = rate // 100
    n = len(x) // hop
    power = np.square(x[:n * hop]).reshape(n, hop).mean(1)
    return power > power.max(initial=0) * 10 ** (-below_db / 10), hop


def fade(x, rate, seconds=0.004):
    """Soft ends: a cut through a breath would click."""
    n = min(int(seconds * rate), len(x) // 2)
    ramp = np.linspace(0, 1, n, dtype=np.float32)
    x[:n] *= ramp
    x[len(x) - n:] *= ramp[::-1]
    return x


def trim(x, rate, lead, trail, below_db=42):
    """Leaves lead and trail seconds around the loud part: what was there, then silence."""
    loud, hop = loud_frames(x, rate, below_db)
    at = np.flatnonzero(loud)
    if not len(at):
        return x
    first, last = at[0] * hop - int(lead * rate), (at[-1] + 1) * hop + int(trail * rate)
    kept = fade(x[max(first, 0):last].copy(), rate)
    return np.pad(kept, (max(-first, 0), max(last - len(x), 0)))


def level(x, rate, db):
    """Speech level (of the frames that are not silent) to so many dB of full scale."""
    loud, hop = loud_frames(x, rate, 30)
    if not loud.any():
        return x
    power = np.square(x[:len(loud) * hop]).reshape(-1, hop)[loud].mean()
    gain = 10 ** (db / 20) / np.sqrt(power)
    return x * min(gain, 0.95 / np.abs(x).max())


def to_int16(x):
    return np.clip(np.round(x * 32767), -32768, 32767).astype("<i2")


# ------------------------------------------------------------------------------------------------
# sounds without speech
# ------------------------------------------------------------------------------------------------


def pink(rng, n):
    """Noise that falls by 3 dB an octave (Kellet's filter)."""
    b, a = [0.049922, -0.095993, 0.050612, -0.004408], [1, -2.494956, 2.017265, -0.522189]
    return lfilter(b, a, rng.standard_normal(n))


def music(rng, n, rate):
    """Chords and a tune of plain tones with overtones."""
    x, t = np.zeros(n), np.arange(n) / rate
    scale = 220 * 2 ** (np.array([0, 2, 4, 5, 7, 9, 11, 12, 14, 16]) / 12) * rng.uniform(0.7, 1.6)
    beat = rng.uniform(0.15, 0.5)
    overtones = rng.uniform(0.1, 0.9, 5) / np.arange(1, 6)
    for start in np.arange(0, n / rate, beat):
        for pitch in rng.choice(scale, rng.integers(1, 4), replace=False):
            s = t - start
            envelope = np.where(s >= 0, np.exp(-np.maximum(s, 0) * rng.uniform(2, 8)), 0)
            x += envelope * sum(g * np.sin(2 * np.pi * pitch * (k + 1) * s)
                                for k, g in enumerate(overtones))
    return x


def sound(kind, r, rate=QUESTION_RATE):
    """1 to 4 seconds of a sound that nobody should answer."""
    rng = np.random.default_rng(r.getrandbits(32))
    n = int(r.uniform(1.0, 4.0) * rate)
    t = np.arange(n) / rate
    if kind == "silence":
        return np.zeros(n, np.float32)
    if kind == "hiss":
        x, db = rng.standard_normal(n), r.uniform(-70, -45)
    elif kind == "music":
        x, db = music(rng, n, rate), r.uniform(-35, -15)
    elif kind == "hum":
        base = r.choice([50, 60, 100, 120])
        x = sum(np.sin(2 * np.pi * base * k * t) / k for k in range(1, 6))
        db = r.uniform(-45, -22)
    elif kind == "beeps":
        gate = np.sin(2 * np.pi * r.uniform(0.7, 4) * t) > r.uniform(-0.3, 0.7)
        x, db = np.sin(2 * np.pi * r.uniform(400, 3000) * t) * gate, r.uniform(-35, -18)
    elif kind in ("clicks", "crackle"):
        x = rng.standard_normal(n) * (rng.random(n) < (3 / rate if kind == "clicks" else 0.01))
        x, db = lfilter([1], [1, -r.uniform(0.2, 0.9)], x), r.uniform(-50, -30)
    elif kind == "wind":
        x = lfilter([0.02], [1, -0.98], rng.standard_normal(n))
        x, db = x * (1.2 + np.sin(2 * np.pi * r.uniform(0.2, 1) * t)), r.uniform(-40, -20)
    else:
        x, db = (pink(rng, n) if kind == "pink" else rng.standard_normal(n)), r.uniform(-45, -18)
    power = np.sqrt(np.square(x).mean()) or 1.0
    return np.clip(x * (10 ** (db / 20) / power), -1, 1).astype(np.float32)


# ------------------------------------------------------------------------------------------------
# workers
# ------------------------------------------------------------------------------------------------

_engines = None


def start_worker(folder):
    global _engines
    _engines = voices.Voices(folder)


def say_question(text, speaker, r):
    x, rate = _engines.say(speaker, text, r)
    x = resample(x, rate, QUESTION_RATE)
    x = trim(x, QUESTION_RATE, r.uniform(0.03, 0.25), r.uniform(0.05, 0.35))
    return level(x, QUESTION_RATE, -23)


def say_answer(text, engine):
    x, rate = engine.say(text, **TEACHER)
    x = trim(resample(x, rate, TEACHER_RATE), TEACHER_RATE, 0.04, 0.1, below_db=48)
    return level(x, TEACHER_RATE, -20)


def questions_part(job):
    """Utterances of some dialogues, each dialogue by one speaker, into a file of their own."""
    index, seed, dialogues, path = job
    begin = time.process_time()
    r = random.Random(f"questions {seed} {index}")
    rows, waves = [], []
    for dialogue, turns in dialogues:
        speaker = voices.draw(r)
        for k, turn in enumerate(turns):
            quiet = turn["skill"] == "nonspeech"
            x = sound(turn["sound"], r) if quiet else say_question(turn["question"], speaker, r)
            waves.append(to_int16(x))
            rows.append({"samples": len(x), "voice": turn["sound"] if quiet else speaker["engine"],
                         "text": turn["question"], "dialogue": dialogue, "turn": k,
                         "answer": turn["answer"], "skill": turn["skill"], "key": turn["key"]})
    np.concatenate(waves).tofile(path)
    return path, rows, time.process_time() - begin


def teacher_part(job):
    _, _, texts, path = job
    begin = time.process_time()
    engine = _engines.engine("joe")
    waves = [to_int16(say_answer(text, engine)) for text in texts]
    np.concatenate(waves).tofile(path)
    rows = [{"samples": len(x), "text": text} for text, x in zip(texts, waves)]
    return path, rows, time.process_time() - begin


def make_stream(pool, items, size, part, args, name, rate):
    """Runs the parts on all cores and joins them, in their order, to one stream."""
    start = time.time()
    with tempfile.TemporaryDirectory(dir=args.out) as parts:
        jobs = [(i, args.seed, items[i:i + size], f"{parts}/{i}")
                for i in range(0, len(items), size)]
        rows, offset, busy = [], 0, 0
        with open(args.out / f"{name}.i16", "wb") as stream:
            for path, part_rows, seconds in pool.map(part, jobs):
                busy += seconds
                stream.write(Path(path).read_bytes())
                os.unlink(path)
                for row in part_rows:
                    rows.append({"offset": offset, **row})
                    offset += row["samples"]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (args.out / f"{name}.part").write_text(text, encoding="utf-8")
    (args.out / f"{name}.part").rename(args.out / f"{name}.jsonl")
    wall = time.time() - start
    print(f"{name}: {len(rows)} utterances, {offset / rate / 3600:.2f} h in {wall:.1f} s, "
          f"{busy:.0f} s of processor, {offset / rate / busy:.1f} times real time", flush=True)


def some_dialogues(n_questions, seed):
    """As many dialogues as give so many utterances."""
    out, total = [], 0
    for turns in domain.dialogues(n_questions, seed):
        if total >= n_questions:
            break
        out.append((len(out), turns))
        total += len(turns)
    return out


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--voices", type=Path, required=True, help="archive of pack_voices.py")
    p.add_argument("--out", type=Path, required=True)
    p.add_argument("--unpacked", type=Path, help="where the voices are unpacked; OUT/voices if not")
    p.add_argument("--questions", type=int, default=45000, help="utterances")
    p.add_argument("--answers", type=int, default=18000, help="sentences of the teacher")
    p.add_argument("--jobs", type=int, default=os.cpu_count())
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--only", choices=["teacher", "questions"])
    args = p.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    start = time.time()
    folder = pack_voices.unpack(args.voices, args.unpacked or args.out / "voices")
    with ProcessPoolExecutor(args.jobs, None, start_worker, (folder,)) as pool:
        print(f"ready after {time.time() - start:.1f} s", flush=True)
        if args.only != "questions":
            make_stream(pool, domain.answers(args.answers, args.seed), 40, teacher_part,
                        args, "teacher", TEACHER_RATE)
        if args.only != "teacher":
            make_stream(pool, some_dialogues(args.questions, args.seed), 40, questions_part,
                        args, "questions", QUESTION_RATE)
    print(f"{time.time() - start:.1f} s in all", flush=True)


if __name__ == "__main__":
    main()
