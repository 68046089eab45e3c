#!/usr/bin/env python3
"""Asks parley the held-out questions of make_eval.py and judges the answers.

A turn is right if its key words stand in the answer's text, side by side; a declined one if the
answer is one of the apologies; a turn without speech if there is no text. Turns that only lead up
to a follow-up are not judged. With --speech N, N answers are spoken too and recognised, and so is
the teacher's voice saying the same texts.

usage: evaluate.py --model DIR --eval build-data/mini-eval [--out results.json] [--page page.md]
       [--join results.json...]
       [--speech 100 --recogniser whisper --whisper FOLDER --teacher voices.tar.xz]
"""

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import wave
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from scipy.signal import resample_poly

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import domain  # noqa: E402
import recognise  # noqa: E402

GROUPS = {"greet": "small talk", "name": "small talk", "able": "small talk", "day": "day, month",
          "month": "day, month"}


def group(skill):
    return "follow-up" if skill.startswith("follow") else GROUPS.get(skill, skill)


def holds(words, key):
    return any(words[i:i + len(key)] == key for i in range(len(words) - len(key) + 1))


def is_right(turn, text):
    words = domain.words_of(text)
    if turn["skill"] == "nonspeech":
        return not words
    if turn["skill"] == "repeat":
        return words == turn["key"]
    if turn["skill"] == "count" or turn["skill"].endswith("spell"):
        return words == domain.words_of(turn["answer"])
    return holds(words, turn["key"])


# ------------------------------------------------------------------------------------------------
# running parley
# ------------------------------------------------------------------------------------------------


def ask(args, files, sound=None):
    """The JSON lines of one conversation, or None if parley failed. A file of digital silence,
    which parley refuses to take for a recording, counts as a turn without an answer."""
    command = [str(args.parley), "ask", "--model", str(args.model), "--json", "--quiet"]
    command += args.option + (["--out", str(sound)] if sound else ["--text-only"])
    for path in files:
        command += ["--in", str(path)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode == 2 and ": silent: the loudest of" in done.stderr:
        return [{"text": ""} for _ in files]
    if done.returncode:
        print(f"{' '.join(command)}\n{done.stderr.strip()}", file=sys.stderr)
        return None
    return [json.loads(line) for line in done.stdout.splitlines()]


def file_of(args, voice, condition, d, k):
    return args.eval / voice / condition / f"{d:03d}-{k}.wav"


def cases(args, listing):
    """(voice, condition, dialogue number, turns) of everything that is asked."""
    for d, turns in enumerate(listing["dialogues"][:args.limit]):
        if turns[0]["skill"] == "nonspeech":
            yield "sound", "clean", d, turns
            continue
        for voice in args.voices or listing["voices"]:
            for condition in args.conditions or listing["conditions"]:
                yield voice, condition, d, turns


def run_case(args, case):
    voice, condition, d, turns = case
    lines = ask(args, [file_of(args, voice, condition, d, k) for k in range(len(turns))])
    rows = []
    for k, turn in enumerate(turns):
        if not turn["held"]:
            continue
        text = lines[k]["text"] if lines else ""
        words = domain.words_of(text)
        errors = recognise.word_errors(turn["key"], words)
        rows.append({"voice": voice, "condition": condition, "dialogue": d, "turn": k,
                     "skill": turn["skill"], "question": turn["question"], "text": text,
                     "expected": turn["answer"], "failed": lines is None,
                     "right": lines is not None and is_right(turn, text),
                     "words": len(turn["key"]), "errors": min(errors, len(turn["key"]))})
    return rows


def run_all(args, listing):
    work = list(cases(args, listing))
    rows = []
    with ThreadPoolExecutor(args.jobs) as pool:
        for i, result in enumerate(pool.map(lambda c: run_case(args, c), work)):
            rows += result
            if (i + 1) % 200 == 0:
                right = sum(r["right"] for r in rows)
                print(f"{i + 1} of {len(work)}: {right} of {len(rows)} right", flush=True)
    return rows


# ------------------------------------------------------------------------------------------------
# speech
# ------------------------------------------------------------------------------------------------


def read_wave(path):
    with wave.open(str(path)) as w:
        x = np.frombuffer(w.readframes(w.getnframes()), "<i2").astype(np.float32) / 32768
        return x, w.getframerate()


def at_16k(x, rate):
    return resample_poly(x, 160, rate // 100).astype(np.float32)


def spoken_answers(args, listing, folder):
    """(text, skill, samples at 16 kHz, latencies) of single clean questions."""
    voice = (args.voices or listing["voices"])[0]
    singles = [d for d, turns in enumerate(listing["dialogues"])
               if len(turns) == 1 and turns[0]["skill"] != "nonspeech"]
    random.Random(5).shuffle(singles)
    for d in singles[:args.speech]:
        path = Path(folder) / "answer.wav"
        lines = ask(args, [file_of(args, voice, "clean", d, 0)], path)
        if lines and lines[0]["text"]:
            x, rate = read_wave(path)
            yield lines[0], listing["dialogues"][d][0]["skill"], at_16k(x, rate)


class Teacher:
    """The voice that the model learned from, at 16 kHz."""

    def __init__(self, archive, folder):
        import pack_voices
        import synth
        import voices

        self.synth = synth
        self.joe = voices.Voices(pack_voices.unpack(archive, folder)).engine("joe")

    def say(self, text):
        return at_16k(self.synth.say_answer(text, self.joe), self.synth.TEACHER_RATE)


def judge_speech(args, listing):
    """Word errors of the model's and of the teacher's voice on the same texts, by skill. Speech
    much shorter than the teacher's was cut, much longer ran away."""
    ear = recognise.make(args.recogniser, args.whisper)
    counts = defaultdict(lambda: [0, 0, 0, 0])      # words, errors, teacher's errors, answers
    ratios, lines = [], []
    with tempfile.TemporaryDirectory() as folder:
        teacher = Teacher(args.teacher, Path(folder) / "voices")
        for line, skill, x in spoken_answers(args, listing, folder):
            said, taught = domain.words_of(line["text"]), teacher.say(line["text"])
            entry = counts[group(skill)]
            entry[0] += len(said)
            entry[1] += recognise.word_errors(said, ear.hear(x, skill))
            entry[2] += recognise.word_errors(said, ear.hear(taught, skill))
            entry[3] += 1
            lines.append(line)
            ratios.append(len(x) / len(taught))
    return {"recogniser": args.recogniser, "counts": dict(counts), "answers": len(lines),
            "cut": sum(r < 0.6 for r in ratios), "ran away": sum(r > 1.7 for r in ratios),
            "first_sound_ms": statistics.median([v["first_sound_ms"] for v in lines] or [0]),
            "rtf": statistics.median([v["rtf"] for v in lines] or [0])}


# ------------------------------------------------------------------------------------------------
# report
# ------------------------------------------------------------------------------------------------


def percent(part, whole):
    return f"{100 * part / whole:.1f}" if whole else "-"


def table(head, lines):
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join("| " + " | ".join(map(str, row)) + " |" for row in rows) + "\n"


def answers_table(rows):
    columns = sorted({(r["voice"], r["condition"]) for r in rows if r["voice"] != "sound"})
    groups = list(dict.fromkeys(group(r["skill"]) for r in rows))
    at = defaultdict(lambda: [0, 0])
    for r in rows:
        for g in (group(r["skill"]), "questions"):
            if g == "questions" and r["skill"] in ("decline", "nonspeech"):
                continue
            entry = at[g, r["voice"], r["condition"]]
            entry[0] += r["right"]
            entry[1] += 1
    lines = []
    for g in groups + ["questions"]:
        cells = [at[g, v, c] for v, c in columns]
        if g == "nonspeech":
            right, n = at[g, "sound", "clean"]
            lines.append([f"{g} ({n})", percent(right, n)] + [""] * (len(columns) - 1))
        else:
            lines.append([f"{g} ({cells[0][1]})"] + [percent(*cell) for cell in cells])
    return table(["right answers, %"] + [f"{v}, {c}" for v, c in columns], lines)


def repeat_line(rows):
    out = []
    for condition in dict.fromkeys(r["condition"] for r in rows):
        part = [r for r in rows if r["skill"] == "repeat" and r["condition"] == condition]
        words, errors = sum(r["words"] for r in part), sum(r["errors"] for r in part)
        if part:
            out.append(f"{condition} {percent(words - errors, words)} %")
    return "Words right in repeat-after-me: " + ", ".join(out) + ".\n"


def speech_text(s):
    lines = [[g, n, words, percent(e, words), percent(t, words)]
             for g, (words, e, t, n) in s["counts"].items()]
    sums = [sum(c[i] for c in s["counts"].values()) for i in range(4)]
    lines.append(["all", sums[3], sums[0], percent(sums[1], sums[0]), percent(sums[2], sums[0])])
    return (table(["spoken answers", "answers", "words", "word error, model, %",
                   "word error, teacher, %"], lines)
            + f"\nRecogniser: {s['recogniser']}. Cut short: {s['cut']}, ran away: {s['ran away']}. "
            f"Median first sound {s['first_sound_ms']:.0f} ms, rtf {s['rtf']:.2f}.\n")


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--parley", type=Path, default=HERE.parent.parent / "build" / "parley")
    p.add_argument("--model", type=Path, required=True)
    p.add_argument("--eval", type=Path, required=True, help="folder of make_eval.py")
    p.add_argument("--voices", type=lambda s: s.split(","))
    p.add_argument("--conditions", type=lambda s: s.split(","))
    p.add_argument("--limit", type=int, help="the first N dialogues only")
    p.add_argument("--jobs", type=int, default=1)
    p.add_argument("--option", action="append", default=[], help="passed on to parley ask")
    p.add_argument("--speech", type=int, default=0, help="recognise N spoken answers")
    p.add_argument("--recogniser", choices=["sphinx", "whisper"], default="sphinx")
    p.add_argument("--whisper", type=Path, help="Whisper as a CTranslate2 folder")
    p.add_argument("--teacher", type=Path, help="archive of pack_voices.py")
    p.add_argument("--join", type=Path, nargs="*", help="answers of earlier runs: ask nothing anew")
    p.add_argument("--out", type=Path, help="every answer, as JSON")
    p.add_argument("--page", type=Path, help="the tables, as Markdown")
    args = p.parse_args()
    if args.speech and not args.teacher:
        p.error("--speech needs --teacher")
    listing = json.loads((args.eval / "eval.json").read_text(encoding="utf-8"))
    if args.join:
        read = [r for f in args.join for r in json.loads(f.read_text(encoding="utf-8"))["answers"]]
        rows = list({tuple(r[k] for k in ("voice", "condition", "dialogue", "turn")): r
                     for r in read}.values())
    else:
        rows = run_all(args, listing)
    page = answers_table(rows) + "\n" + repeat_line(rows)
    failed = sum(r["failed"] for r in rows)
    if failed:
        page += f"\nparley failed on {failed} of {len(rows)} turns.\n"
    speech = judge_speech(args, listing) if args.speech else None
    if speech:
        page += "\n" + speech_text(speech)
    print(page)
    if args.page:
        args.page.write_text(page, encoding="utf-8")
    if args.out:
        args.out.write_text(json.dumps({"answers": rows, "speech": speech}, indent=1) + "\n",
                            encoding="utf-8")


if __name__ == "__main__":
    main()
