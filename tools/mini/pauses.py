#!/usr/bin/env python3
"""Questions of the domain, whole and half said, as they sound at a short silence: what the detector
of the end of a turn (tools/end_of_turn.py) is trained and judged on.

  OUT/NUMBER.wav    mono, 16 kHz
  OUT/clips.list    for `parley states`: a clip a line, before some of them an earlier question
  OUT/clips.jsonl   of each: finished, how, voice, skill, question, text

A clip ends like the sound that Parley holds when it looks: 0.1 to 0.4 s behind the last voice. It
is one of
  whole       a question                                                      finished
  joined      a question with a pause of 0.2 to 1 s inside, three ways        finished
  cut         the beginning of a question, cut before a word                  unfinished
  comma       the beginning of a question that its speaker interrupts         unfinished
  alone       the beginning of a question, said as if it were a sentence      unfinished
Where what was said so far is a question itself ("spell cat", please) it is not used.

usage: pauses.py --voices FOLDER_OR_ARCHIVE --out OUT [--questions 2500] [--seed 1] [--jobs 2]
                 [--judge]      by the voices and in the phrasings that training never hears
       pauses.py --texts 108    prints such questions: number, first part, second part
"""

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"     # one process a core: threads of the libraries would only fight

import argparse  # noqa: E402
import json  # noqa: E402
import random  # noqa: E402
import re  # noqa: E402
import sys  # noqa: E402
from concurrent.futures import ProcessPoolExecutor  # noqa: E402
from pathlib import Path  # noqa: E402

import numpy as np  # noqa: E402

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import domain  # noqa: E402
import make_eval  # noqa: E402
import pack_voices  # noqa: E402
import synth  # noqa: E402
import voices  # noqa: E402

RATE = synth.QUESTION_RATE
JUDGES = ["flite-rms", "flite-awb", "espeak-scottish"]
HEARD_BEFORE = 0.3      # seconds in front of the voice

# ------------------------------------------------------------------------------------------------
# texts
# ------------------------------------------------------------------------------------------------

SLOTS = {domain.number(n): "{n}" for n in range(101)}
SLOTS.update({c.lower(): "{c}" for c in domain.CAPITALS})
SLOTS.update({d.lower(): "{d}" for d in domain.DAYS + domain.MONTHS})
SLOTS.update({"day": "{k}", "month": "{k}"})
WORDS = {w.lower() for w in domain.WORDS}


def plain(text):
    """The words of a text, those that fill its phrasings replaced by what they are."""
    return tuple(SLOTS.get(w, w) for w in re.findall(r"[a-z'-]+", text.lower()))


def questions(n, seed, held=False):
    """n questions of all kinds."""
    r = random.Random(f"pauses {seed}")
    out = []
    while len(out) < n:
        kind = domain.pick_weighted(r, {**domain.SHARES, "repeat": 14, "decline": 8,
                                        "nonspeech": 0})
        made, state = domain.MAKERS[kind](r, held and kind != "decline")
        if state["kind"] in domain.FOLLOW and r.random() < 0.2:
            made, _ = domain.FOLLOW[state["kind"]](r, held, state)
        out.append((made["question"], made["skill"]))
    return out


class Whole:
    """Knows what is a question already."""

    def __init__(self, n=60000):
        self.known = set()
        for held in (False, True):
            for text, _ in questions(n, f"known {held}", held):
                words = plain(text)
                for i in range(max(1, min(8, len(words) - 1))):     # with and without its opening
                    self.known.add(words[i:])

    def says(self, text):
        """Whether it, or its end, has been asked."""
        words = plain(text)
        return words in self.known or any(words[i:] in self.known
                                          for i in range(1, len(words) - 1))


def boundaries(text, skill, whole):
    """Where a speaker may stop to think: numbers of words said so far, the question unfinished."""
    words = text.split()
    last = len(words)
    if skill == "repeat":       # each word may be the last one
        heads = [i for i, w in enumerate(words) if re.sub(r"\W", "", w.lower()) in WORDS]
        last = min(len(words), (heads or [0])[0] + 1)
    if skill == "decline":      # "tell me a story" about a dog
        last = (len(words) + 2) // 2
    asked = (k for k in range(1, last) if whole.says(" ".join(words[:k])))
    return list(range(1, next(asked, last)))


# ------------------------------------------------------------------------------------------------
# sounds
# ------------------------------------------------------------------------------------------------


def voiced(x):
    """First and last sample of what is loud."""
    loud, hop = synth.loud_frames(x, RATE, 38)
    at = np.flatnonzero(loud)
    return (at[0] * hop, (at[-1] + 1) * hop) if len(at) else (0, len(x))


def tight(x):
    first, last = voiced(x)
    return synth.fade(x[first:last].copy(), RATE)


def longest_gap(x):
    """(first, last) sample of the longest silence between loud parts, or None under 70 ms."""
    loud, hop = synth.loud_frames(x, RATE, 34)
    at = np.flatnonzero(loud)
    gaps = np.diff(at)
    if not len(gaps) or gaps.max() < 8:
        return None
    k = int(gaps.argmax())
    return (at[k] + 1) * hop, at[k + 1] * hop


def quiet(seconds):
    return np.zeros(int(seconds * RATE), np.float32)


class Speaker:
    """One voice, one way of speaking, for the parts of one question."""

    def __init__(self, engines, voice, seed):
        self.engines, self.voice, self.seed = engines, voice, seed

    def say(self, text):
        x, rate = self.engines.say(self.voice, text, random.Random(self.seed), 0.6)
        x = synth.level(synth.resample(x, rate, RATE), RATE, -23)
        return x

    def word_ends(self, k):
        """Where the first k words of what was said last end, as a share of it; None = not told."""
        return self.engines.engine(self.voice["engine"]).word_end(k)


def gap(r):
    return quiet(r.uniform(0.2, 1.0))


def clips(speaker, text, skill, whole, r):
    """Rows (how, finished, text, sound) of one question."""
    words = text.split()
    said = speaker.say(text)
    places = boundaries(text, skill, whole)
    out = [("whole", True, text, tight(said))]
    if not places:
        return out
    k = r.choice(places)
    head, tail = " ".join(words[:k]).rstrip(",.?"), " ".join(words[k:])
    j = r.choice(places)
    end = speaker.word_ends(j)
    if end is not None:
        at = int(end * len(said))
        out.append(("cut", False, " ".join(words[:j]), tight(said[:at])))
        out.append(("joined", True, text, np.concatenate([tight(said[:at]), gap(r),
                                                           tight(said[at:])])))
    both = speaker.say(f"{head}, {tail}")
    hole = longest_gap(both)
    if hole and "," not in head + tail:
        first, last = hole
        out.append(("comma", False, head, tight(both[:first])))
        out.append(("joined", True, text, np.concatenate([tight(both[:first]), gap(r),
                                                           tight(both[last:])])))
    one = tight(speaker.say(head + r.choice([".", "", "...", "?"])))
    out.append(("alone", False, head, one))
    out.append(("joined", True, text, np.concatenate([one, gap(r), tight(speaker.say(tail))])))
    return out


def recorded(x, r):
    """As a microphone has it, up to the moment at which Parley looks."""
    rng = np.random.default_rng(r.getrandbits(32))
    x = np.concatenate([quiet(HEARD_BEFORE * r.uniform(0.6, 1.2)), x, quiet(r.uniform(0.1, 0.4))])
    if r.random() < 0.5:
        x = make_eval.add_room(x, rng, r.uniform(0.1, 0.6))[:len(x)]
    x = synth.level(x, RATE, r.uniform(-35, -18))
    if r.random() < 0.3:
        x = make_eval.add_noise(x, rng, r.uniform(12, 35))
    return x + synth.pink(rng, len(x)) * 10 ** (r.uniform(-75, -58) / 20)


# ------------------------------------------------------------------------------------------------
# workers
# ------------------------------------------------------------------------------------------------

_engines = _whole = None


def start_worker(folder):
    global _engines, _whole
    _engines, _whole = voices.Voices(folder), Whole()


def part(job):
    """Clips of some questions: their rows, each with its file and that of an earlier turn."""
    index, items, judge, seed, out = job
    r = random.Random(f"pauses {seed} {index}")
    rows, earlier = [], None
    for number, (text, skill) in items:
        name = JUDGES[number % len(JUDGES)] if judge else None
        voice = voices.JUDGE[name] if judge else voices.draw(r)
        speaker = Speaker(_engines, voice, r.getrandbits(32))
        for k, (how, finished, said, x) in enumerate(clips(speaker, text, skill, _whole, r)):
            path = out / f"{number:05d}-{k}.wav"
            make_eval.write_wave(path, recorded(x, r))
            before = [str(earlier)] if earlier and r.random() < 0.3 else []
            rows.append(("\t".join([*before, str(path)]),
                         {"finished": finished, "how": how, "voice": name or voice["engine"],
                          "skill": skill, "question": number, "earlier": len(before),
                          "text": said}))
            earlier = path if how == "whole" else earlier
    return rows


def print_texts(n, seed):
    """Questions in two parts, the first of them unfinished, each question once."""
    r, whole, seen = random.Random(f"texts {seed}"), Whole(), set()
    for text, skill in questions(20 * n, seed, True):
        places = boundaries(text, skill, whole)
        if places and text not in seen and len(seen) < n:
            seen.add(text)
            k, words = r.choice(places), text.split()
            print(f"{len(seen):03d}|{' '.join(words[:k]).rstrip(',')}|{' '.join(words[k:])}")


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--voices", type=Path)
    p.add_argument("--out", type=Path)
    p.add_argument("--questions", type=int, default=2500)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--jobs", type=int, default=os.cpu_count())
    p.add_argument("--judge", action="store_true")
    p.add_argument("--texts", type=int)
    args = p.parse_args()
    if args.texts:
        print_texts(args.texts, args.seed)
        return
    if not args.voices or not args.out:
        p.error("--voices and --out are missing")
    folder = args.voices
    if folder.is_file():
        folder = pack_voices.unpack(folder, args.out / "voices")
    args.out.mkdir(parents=True, exist_ok=True)
    items = list(enumerate(questions(args.questions, args.seed, args.judge)))
    jobs = [(i, items[i:i + 25], args.judge, args.seed, args.out.resolve())
            for i in range(0, len(items), 25)]
    with ProcessPoolExecutor(args.jobs, None, start_worker, (folder,)) as pool:
        rows = [row for rows in pool.map(part, jobs) for row in rows]
    (args.out / "clips.list").write_text("".join(f"{line}\n" for line, _ in rows),
                                         encoding="utf-8")
    (args.out / "clips.jsonl").write_text("".join(json.dumps(row) + "\n" for _, row in rows),
                                          encoding="utf-8")
    print(f"{len(rows)} clips of {len(items)} questions")


if __name__ == "__main__":
    main()
