#!/usr/bin/env python3
"""tools/measure_turns.py - the figures of turn taking, from sets of replayed scenarios.

    tools/measure_turns.py [SET ...] [--parley build/parley] [--model models/parley-mini]
                           [--jobs 2] [--keep FOLDER] [--page FILE] [--recordings FOLDER]

Sets (all but `soak` and `recordings` by default):
  barge-in    100 interruptions of a counting reply in 10 rooms, the reply 10 dB over the voice: time
              to silence at the DAC, and whether memory holds the words that were heard
  own-speech  30 minutes of own speech in the same rooms: how often it interrupts itself
  sounds      coughs, knocks and backchannels during a reply: does it go on, when, with each sample
  endpoint    108 questions with a pause of 0.2 to 1.0 s inside: time to the answer, answers into
              the pause; with the detector of meaning and by silence alone
  identical   every scenario of tests/replay ten times: the same bytes; speed against real time
  soak        (not by default) a quiet room for --hours, a question --every so many minutes (six
              times as many on the first day), the count of samples passing 2^32 on the way: all of
              them answered, no state stuck, and memory no larger than on the first day. More
              than 360 hours are several runs
  recordings  recordings of the Full-Duplex-Bench layout in FOLDER (input.wav and labels), if there

Scenarios are written into a folder (a temporary one unless --keep), replayed by `parley replay`, and
scored with tools/score.py from what was played and from the event log. --page writes a table in
Markdown. Only the Python standard library is used; `endpoint` speaks by flite and espeak-ng.
"""
import argparse
import array
import concurrent.futures
import datetime
import filecmp
import glob
import json
import math
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
import wave

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.dont_write_bytecode = True
import score  # noqa: E402

ROOT = os.path.normpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
VOICES = os.path.join(ROOT, "tests", "replay", "voices")
RATE = 48000

# Ten rooms: small and large, near and far, with slow devices, drifting clocks, a weak loudspeaker.
ROOMS = [dict(zip(("rt60_ms", "delay_ms", "play_delay_ms", "drift_ppm", "saturation"), r))
         for r in ((120, 3, 20, 0, 0), (180, 5, 20, 50, 0), (250, 5, 20, -50, 0),
                   (250, 10, 30, 100, 0), (300, 8, 40, 0, 0.6), (350, 5, 20, 200, 0),
                   (400, 12, 20, -200, 0), (450, 20, 40, 0, 0), (500, 5, 20, 0, 0.5),
                   (600, 15, 30, 100, 0))]
ECHO_DB = 10
QUIET = [{"kind": "pink", "level_db": -62}]


class Machine:
    """Runs scenarios, as many at once as there are jobs."""

    def __init__(self, options, folder):
        self.options, self.folder = options, folder
        self.pool = concurrent.futures.ThreadPoolExecutor(options.jobs)
        self.sound_s = self.wall_s = 0.0

    def one(self, name, scenario):
        base = os.path.join(self.folder, name)
        with open(base + ".json", "w", encoding="utf-8") as f:
            json.dump(scenario, f, indent=1)
        command = [self.options.parley, "replay", base + ".json", "--model", self.options.model,
                   "--vad", os.path.join(ROOT, "models", "vad", "silero.bin"), "--threads", "1",
                   "--out", base + ".wav", "--events", base + ".jsonl"]
        began = time.monotonic()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if not os.path.exists(base + ".jsonl") or done.returncode > 1:
            sys.exit(f"measure_turns: {name}: {done.stdout}{done.stderr}")
        return Result(base, scenario, done.stdout, time.monotonic() - began)

    def all(self, scenarios):
        """A dict of names and scenarios into a dict of names and results."""
        futures = {name: self.pool.submit(self.one, name, s) for name, s in scenarios.items()}
        results = {}
        for n, (name, future) in enumerate(futures.items(), 1):
            results[name] = future.result()
            if sys.stderr.isatty():
                print(f"\r{n} of {len(futures)} ", end="", file=sys.stderr)
        if sys.stderr.isatty():
            print("\r\033[K", end="", file=sys.stderr)
        return results


class Result:
    def __init__(self, base, scenario, said, wall_s):
        self.base, self.scenario, self.said, self.wall_s = base, scenario, said, wall_s
        self.events = score.read_events(base + ".jsonl")
        self.sounds = [e for e in self.events if e["event"] == "sound"]

    def loud(self):
        return score.loud_ms(self.base + ".wav", -50, 1)

    def speaker(self):
        """The loudspeaker's samples."""
        with wave.open(self.base + ".wav", "rb") as f:
            values = array.array("h", f.readframes(f.getnframes()))
        return values[1::2]

    def forget(self):
        """The recording is big and was scored."""
        os.remove(self.base + ".wav")

    def first(self, action, after_ms=0):
        for e in self.events:
            if e["ms"] >= after_ms and action in e.get("actions", []):
                return e
        return None


def voice(name):
    return os.path.join(VOICES, name + ".flac")


def scenario(about, length_ms, sounds, room=None, **more):
    return {"about": about, "length_ms": length_ms, "sounds": sounds, "noises": QUIET,
            "room": {"echo_db": ECHO_DB, **(room or {})}, **more}


def sound(name, at_ms, **more):
    return {"file": voice(name), "at_ms": at_ms, **more}


def rooms():
    for n, room in enumerate(ROOMS):
        yield n, {**room, "seed": n + 1}


def ms(value):
    return "-" if value is None else f"{value:.0f} ms"


def share(part, whole):
    return f"{part} of {whole}" + (f" ({100 * part / whole:.1f} %)" if whole else "")


def spread(values):
    """Median and the range of the middle four fifths."""
    if not values:
        return "-"
    q = score.quantile
    return f"{q(values, 0.5):.0f} ms ({q(values, 0.1):.0f} to {q(values, 0.9):.0f})"


def level(results):
    """The echo over the voice at the microphone, as the rooms measured it."""
    found = [re.search(r"room ([-\d.]+), echo ([-\d.]+) dBFS", r.said) for r in results]
    over = sorted(float(m[2]) - float(m[1]) for m in found if m)
    return f"{over[0]:.1f} to {over[-1]:.1f} dB" if over else "-"


# ------------------------------------------------------------------------------------------------
# interruptions
# ------------------------------------------------------------------------------------------------

INTERRUPTIONS = ("capital-france", "capital-spain", "capital-italy", "capital-japan",
                 "seven-plus-eight", "three-plus-four", "nine-minus-two", "opposite-hot",
                 "opposite-big", "wait")


def played(result):
    """When the counting reply began, in ms: it is the first reply or the second."""
    first = "count" in result.sounds[0]["name"]
    plays = [e["ms"] for e in result.events if "play" in e.get("actions", [])]
    return int(plays[0 if first else 1])


def spoken_words(result):
    """Spans in ms, since the last reply began, of the words of a counting reply: bursts of sound
    between silences. None unless there are as many as words in the text, for some length of the
    silence that parts them."""
    said = [e for e in result.events if e["event"] == "said"]
    start = played(result)
    loud = bytes(score.loud_ms(result.base + ".wav", -36, 1))[start:]
    words = re.findall(r"[a-z]+", said[-1].get("text", "").lower())
    for gap in range(40, 200, 10):
        bursts = [m.span() for m in re.finditer(rb"\x01(?:\x00{0,%d}\x01)*" % gap, loud)]
        bursts = [(a, b) for a, b in bursts if b - a >= 60]
        if len(bursts) == len(words):
            return bursts
    return None


def heard_error(result, spans):
    """Words in memory less words that sounded for more than half of their length. A hold that was
    given up on the way moves what follows it."""
    barge = result.sounds[-1]
    start = played(result)
    memory = [e for e in result.events if e["event"] == "memory" and e["ms"] > start]
    if not memory or not spans or "text" not in memory[0]:
        return None
    if any("resume" in e.get("actions", []) and start < e["ms"] for e in result.events):
        return None
    end = score.last_loud(result.loud(), start, int(barge["to_ms"]))
    heard = sum(start + (a + b) / 2 < end for a, b in spans)
    return len(re.findall(r"[a-z]+", memory[0]["text"].lower())) - heard


def interruption(n, k, room, first):
    """Sound k interrupts the counting reply in room n; before it came a question, or nothing did
    and the canceller has heard no sound of ours yet."""
    at = 700 + (k * 10 + n) * 45
    again = sound(INTERRUPTIONS[k], at, after="play", nth=1 if first else 2)
    return scenario(f"Interrupted by {INTERRUPTIONS[k]}.", at + (9000 if first else 14000),
                    count_after(first) + [again], room)


def count_after(first):
    if first:
        return [sound("count-ten", 500)]
    return [sound("capital-france", 300), sound("count-ten", 600, after="answer_ended")]


class Stops:
    """What became of interruptions."""

    def __init__(self):
        self.ms, self.gap, self.missed, self.errors, self.failing = [], 0, 0, [], []

    def add(self, name, r, words):
        span = r.sounds[-1]
        dropped = r.first("drop", span["from_ms"])
        if dropped is None or dropped["ms"] > span["to_ms"] + 1000:
            self.missed += 1
            self.failing.append(name)
            return
        last = score.last_loud(r.loud(), int(span["from_ms"]), int(dropped["ms"]) + 50)
        if last is None:  # in a gap between two words, and no word came after
            self.gap += 1
        else:
            self.ms.append(last + 1 - int(span["from_ms"]))
            if self.ms[-1] > 250:
                self.failing.append(f"{name} ({self.ms[-1]} ms)")
        if "truncate" in dropped["actions"]:
            self.errors.append(heard_error(r, words))

    def row(self, page, what, results, bar):
        page.row(what, spread(self.ms),
                 f"95th percentile {ms(score.quantile(self.ms, 0.95))}; {len(self.ms)} stopped, "
                 f"{self.missed} missed, {self.gap} in a gap of the reply; echo over voice "
                 f"{level(results)}", bar)
        page.failing(what.split(":")[0], self.failing)


def barge_in(machine, page):
    scenarios = {}
    for n, room in rooms():
        for first in (False, True):
            scenarios[f"count-{n}-{first}"] = scenario("A reply that nobody interrupts.",
                                                       12000 if first else 16000,
                                                       count_after(first), room)
        for k in range(len(INTERRUPTIONS)):
            scenarios[f"barge-{n}-{k}"] = interruption(n, k, room, False)
        for k in range(0, len(INTERRUPTIONS), 4):
            scenarios[f"first-{n}-{k}"] = interruption(n, k, room, True)
    results = machine.all(scenarios)
    stops, first = Stops(), Stops()
    words = {(n, f): spoken_words(results[f"count-{n}-{f}"]) for n, _ in rooms()
             for f in (False, True)}
    for name, r in results.items():
        kind, n = name.split("-")[:2]
        if kind != "count":
            early = kind == "first"
            (first if early else stops).add(name, r, words[int(n), early])
        r.forget()
    stops.row(page, "barge-in: from the voice to silence, at the DAC", results.values(),
              "median <= 150, 95 % <= 250 ms")
    first.row(page, "barge-in into the first reply ever: the same", results.values(), "")
    known = [e for e in stops.errors + first.errors if e is not None]
    page.row("memory: words kept less words heard", f"{sum(abs(e) <= 1 for e in known)} of "
             f"{len(known)} within 1",
             ", ".join(f"{e:+d}: {known.count(e)}" for e in sorted(set(known)))
             + f"; {sum(w is not None for w in words.values())} of {len(words)} replies have "
             "words that can be told apart", "<= 1 word in 50 replies")


# ------------------------------------------------------------------------------------------------
# own speech
# ------------------------------------------------------------------------------------------------

LONG = ("count-ten", "what-can", "spell-diamond", "count-twenty", "capital-france")


def own_speech(machine, page):
    scenarios = {}
    for n, room in rooms():
        for k in range(5):
            ask = [sound(LONG[(n + k) % len(LONG)], 500)]
            ask += [sound(LONG[(n + k + i) % len(LONG)], 700, after="answer_ended", nth=i)
                    for i in range(1, 12)]
            scenarios[f"own-{n}-{k}"] = scenario("Nobody interrupts.", 104000, ask, room)
    results = machine.all(scenarios)
    own_ms = drops = holds = 0
    held, failing = [], []
    for name, r in results.items():
        own_ms += sum(r.loud())
        for e in r.events:
            near = any(s["from_ms"] - 100 <= e["ms"] <= s["to_ms"] + 1000 for s in r.sounds)
            if near or e["event"] == "sound":
                continue
            if score.dropped(e):
                drops += 1
                failing.append(f"{name} at {e['ms']:.0f} ms")
            if "hold" in e.get("actions", []):
                holds += 1
                back = r.first("resume", e["ms"])
                held.append(back["ms"] - e["ms"] if back else 0)
        r.forget()
    minutes = own_ms / 60000
    page.row("own speech: self-interruptions", f"{drops} in {minutes:.1f} min",
             f"{holds} short holds ({holds / max(minutes, 1e-9):.1f} a minute), {spread(held)} "
             f"each; echo over voice {level(results.values())}", "0 in 30 min")
    page.failing("own speech", failing)


# ------------------------------------------------------------------------------------------------
# coughs and backchannels
# ------------------------------------------------------------------------------------------------

SOUNDS = {"cough": ("cough-1", "cough-2", "cough-3"), "knock": ("knock", "click"),
          "backchannel": ("mhm-1", "mhm-2", "mhm-3", "uh-huh", "yeah", "okay", "right")}


def gap_free(result, plain):
    """The reply is the one that nobody disturbed, but for the silence of the hold: the same samples
    up to the hold and, shifted, from the resumption on."""
    a, b = plain.speaker(), result.speaker()
    held = [e for e in result.events if "hold" in e.get("actions", [])]
    back = [e for e in result.events if "resume" in e.get("actions", [])]
    if len(held) != len(back):
        return False
    shift, last = 0, 0
    tail = 60 * RATE // 1000  # behind the fade in, and what the device holds
    for h, r, following in zip(held, back, held[1:] + [None]):
        until = int(h["ms"]) * RATE // 1000
        if a[last:until - shift] != b[last + shift:until]:
            return False
        at = int(r["ms"]) * RATE // 1000 + tail + 2 * RATE // 100
        window = b[at:at + RATE // 2]
        if following is not None:
            window = window[:max(0, int(following["ms"]) * RATE // 1000 - at)]
        shift = find_shift(a, window, at, int(r["ms"] - h["ms"]) * RATE // 1000 + shift)
        if shift is None:
            return False
        last = at - shift
    end = min(len(b) - shift, len(a))
    return a[last:end] == b[last + shift:end + shift]


CAUSED_MS = 300  # a hold so soon after a sound is for its reverberation, later for our own echo


def caused(hold, span):
    return hold is not None and span[0] <= hold <= span[1] + CAUSED_MS


def last_resume(result, span):
    """Of the holds for this sound; when it began, where there was none."""
    last, hold = span[0], None
    for e in result.events:
        if "hold" in e.get("actions", []):
            hold = e["ms"]
        elif "resume" in e.get("actions", []) and caused(hold, span):
            last = e["ms"]
    return last


def own_holds(result, span):
    return sum("hold" in e.get("actions", []) and not caused(e["ms"], span)
               for e in result.events)


def find_shift(a, window, at, guess):
    """By how much `window` of the disturbed reply is late, near a guess."""
    for shift in range(guess - RATE // 20, guess + RATE // 20):
        if 0 <= at - shift and a[at - shift:at - shift + len(window)] == window:
            return shift
    return None


def sounds(machine, page):
    scenarios = {}
    for n, room in rooms():
        room = {**room, "drift_ppm": 0}  # so that samples can be compared
        ask = [sound("count-ten", 500)]
        scenarios[f"plain-{n}"] = scenario("Nobody disturbs, not even an echo.", 9000, ask,
                                           {**room, "echo_db": -100})
        for k, name in enumerate(sum(SOUNDS.values(), ())):
            other = sound(name, 900 + (k * 311 + n * 173) % 2600, after="play")
            scenarios[f"sound-{n}-{name}"] = scenario(f"{name} during the reply.", 9000,
                                                      ask + [other], room)
    results = machine.all(scenarios)
    for kind, names in SOUNDS.items():
        total = good = dropped = held = exact = own = 0
        back, late, failing = [], [], []
        for name in names:
            for n in range(len(ROOMS)):
                r = results[f"sound-{n}-{name}"]
                span = (r.sounds[1]["from_ms"], r.sounds[1]["to_ms"], kind)
                total += 1
                lost = any(score.dropped(e) for e in r.events)
                dropped += lost
                resumed = score.resume_ms(r.events, span)
                after = resumed and last_resume(r, span) - span[1]
                held += resumed is not None
                if resumed is not None:
                    back.append(resumed)
                    late.append(max(0, after))
                same = not lost and gap_free(r, results[f"plain-{n}"])
                exact += same
                own += own_holds(r, span)
                fine = same and (after or 0) <= 600
                good += fine
                if not fine:
                    failing.append(f"sound-{n}-{name}" + (" dropped" if lost else
                                                          f" {after or 0:.0f} ms after"
                                                          if same else " samples"))
        page.row(f"{kind}: goes on within 600 ms of its end, no sample lost or repeated",
                 share(good, total), f"{held} held, for {spread(back)}, going on {spread(late)} "
                 f"after its end; {dropped} dropped; {exact} with each sample; {own} holds for our "
                 "own echo besides", ">= 95 %")
        page.failing(kind, failing)
    for r in results.values():
        r.forget()


# ------------------------------------------------------------------------------------------------
# the end of a turn
# ------------------------------------------------------------------------------------------------

PAUSED = 108  # questions in tools/paused_questions.txt
PAUSES = tuple(range(200, 1001, 100))


def silence_only(end_ms):
    return {"end_ms": end_ms, "end_likely_ms": end_ms, "silence_max_ms": end_ms}


# What is measured beside the settings as shipped, which come first.
ENDINGS = {"as shipped": {}, "likely 0.5": {"likely": 0.5}, "likely 0.7": {"likely": 0.7},
           "likely 0.9": {"likely": 0.9}, "likely 0.95": {"likely": 0.95},
           **{f"silence alone, {n} ms": silence_only(n) for n in (300, 400, 500, 600, 800, 1000)}}


def with_pause(folder, number, turn):
    """Question `number` with its pause. The parts are padded by 20 ms on each side."""
    first, second = (os.path.join(folder, f"part-{number:03d}-{k}.flac") for k in (1, 2))
    pause = PAUSES[(number - 1) // 3 % len(PAUSES)]  # each length with each of the three voices
    again = round(400 + file_ms(first) + pause - 40)
    length = int(again + file_ms(second) + 3500) // 10 * 10
    return scenario(f"A pause of {pause} ms.", length,
                    [{"file": first, "at_ms": 400}, {"file": second, "at_ms": again}],
                    {"echo_db": 0}, turn=turn,
                    model={"max_tokens": 6, "max_frames": 8})  # only the first sound counts


class Endings:
    """Latencies, and answers into the pause by its length, of one setting."""

    def __init__(self, machine, folder, name, turn):
        results = machine.all({f"end-{re.sub(r'[^a-z0-9]+', '-', name)}-{n:03d}":
                               with_pause(folder, n, turn) for n in range(1, PAUSED + 1)})
        self.name, self.total, self.failing = name, len(results), []
        self.ms, self.cuts, self.undone = [], {p: 0 for p in PAUSES}, 0
        for key, r in results.items():
            self.add(key, r)
            r.forget()
        self.cut = sum(self.cuts.values())

    def add(self, key, r):
        loud = r.loud()
        if score.is_cut_in(loud, int(r.sounds[0]["to_ms"]), int(r.sounds[1]["from_ms"]) + 100):
            self.cuts[PAUSES[(int(key[-3:]) - 1) // 3 % len(PAUSES)]] += 1
            self.undone += any("roll_back" in e.get("actions", []) and e.get("was") in
                               ("held", "speaking") for e in r.events)
            self.failing.append(key)
            return
        self.ms += [x for x in score.answer_latencies(
            loud, [(0, int(r.sounds[1]["to_ms"]), "")]) if x is not None]

    def row(self, page, bar):
        page.row(f"endpoint, {self.name}: from the end of speech to the first sound",
                 spread(self.ms), f"95th percentile {ms(score.quantile(self.ms, 0.95))}; answers "
                 f"into the pause {share(self.cut, self.total)}, {self.undone} of them taken back "
                 f"at once; {self.total - self.cut - len(self.ms)} not answered", bar)


def endpoint(machine, page):
    folder = os.path.join(machine.folder, "parts")
    try:
        subprocess.run([os.path.join(ROOT, "tools", "replay_voices.sh"), folder, "parts"],
                       check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as e:
        print(f"skip: endpoint: tools/replay_voices.sh needs flite, espeak-ng and sox ({e})")
        return
    curve = []
    for name, turn in ENDINGS.items():
        curve.append(Endings(machine, folder, name, turn))
        curve[-1].row(page, "" if turn else "median <= 700 ms at <= 5 % cuts")
    page.failing("endpoint as shipped", curve[0].failing)
    page.note(f"The end of a turn: {curve[0].total} questions with a pause inside, by voices that "
              "neither the model nor its\ndetector ever heard. Answers into the pause, in % of "
              f"{curve[0].total // len(PAUSES)} each, by its length:\n")
    page.note("| ends a turn | median | 95 % | cuts | " + " | ".join(f"{p} ms" for p in PAUSES)
              + " |")
    page.note("|---" * (len(PAUSES) + 4) + "|")
    for c in curve:
        each = (f"{100 * c.cuts[p] * len(PAUSES) / c.total:.0f}" for p in PAUSES)
        page.note(f"| {c.name} | {ms(score.quantile(c.ms, 0.5))} | "
                  f"{ms(score.quantile(c.ms, 0.95))} | {100 * c.cut / c.total:.1f} % | "
                  + " | ".join(each) + " |")


def file_ms(path):
    """Length of a FLAC file, from its header (STREAMINFO)."""
    with open(path, "rb") as f:
        head = f.read(26)
    rate = int.from_bytes(head[18:21], "big") >> 4
    count = int.from_bytes(head[21:26], "big") & ((1 << 36) - 1)
    return 1000 * count / rate


# ------------------------------------------------------------------------------------------------
# the scenarios of the tests
# ------------------------------------------------------------------------------------------------

def identical(machine, page):
    o = machine.options
    files = sorted(glob.glob(os.path.join(ROOT, "tests", "replay", "*.json")))
    speeds, different = [], []

    def run(path, n):
        base = os.path.join(machine.folder, f"same-{os.path.basename(path)[:-5]}-{n}")
        command = [o.parley, "replay", path, "--model", o.model, "--threads", str(1 + n % 3),
                   "--vad", os.path.join(ROOT, "models", "vad", "silero.bin"),
                   "--out", base + ".wav", "--events", base + ".jsonl"]
        said = subprocess.run(command, capture_output=True, text=True, check=False).stdout
        speed = re.search(r"\(([\d.]+) times real time\)", said)
        return base, float(speed[1]) if speed else None

    for path in files:
        runs = [run(path, n) for n in range(o.runs)]
        speeds += [s for _, s in runs if s]
        for base, _ in runs[1:]:
            if not all(filecmp.cmp(runs[0][0] + end, base + end, shallow=False)
                       for end in (".wav", ".jsonl")):
                different.append(os.path.basename(path))
        for base, _ in runs:
            os.remove(base + ".wav")
            os.remove(base + ".jsonl")
    page.row("identical runs", f"{len(files)} scenarios, {o.runs} runs each with 1, 2 or 3 threads",
             f"{len(different)} runs that differ" + (": " + ", ".join(different)
                                                     if different else ""), "0")
    speeds.sort()
    page.row("speed of replay, times real time",
             f"{score.quantile(speeds, 0.5):.1f} ({speeds[0]:.1f} to {speeds[-1]:.1f})",
             "one at a time; loading left out", ">= 3")


# ------------------------------------------------------------------------------------------------
# for a long time
# ------------------------------------------------------------------------------------------------

PIECE_HOURS = 360  # the longest scenario


def memory_of(pid):
    """KiB of its own, now."""
    with open(f"/proc/{pid}/status", encoding="ascii") as f:
        return int(re.search(r"RssAnon:\s+(\d+)", f.read()).group(1))


def watch(process, log):
    """How far it was and what memory it had, every few seconds until it ends."""
    samples = []
    while process.poll() is None:
        time.sleep(5)
        try:
            with open(log, "rb") as f:
                f.seek(max(0, os.path.getsize(log) - 8192))
                times = re.findall(rb'"ms":([0-9.]+)', f.read())
            if times:
                samples.append((float(times[-1]) / 3.6e6, memory_of(process.pid)))
        except (OSError, AttributeError):
            pass  # not begun yet, or just over
    return samples


def soak_piece(machine, piece, hours):
    """Six times as many questions on the first day, and a context that is full within it: caches
    and lists have then met their longest turn, and what still grows is a leak."""
    o, name = machine.options, os.path.join(machine.folder, f"soak-{piece}")
    first, step = min(24, hours / 4), int(o.every * 60000)
    busy, end = int(first * 3.6e6), int(hours * 3.6e6)
    times = [*range(2000, busy, step // 6), *range(busy + 2000, end - 60000, step)]
    with open(name + ".json", "w", encoding="utf-8") as f:
        json.dump(scenario("A question now and then.", end,
                           [sound(LONG[i % len(LONG)], t) for i, t in enumerate(times)],
                           ROOMS[3 + 2 * piece % 6], model={"context": 512},
                           wrap={"bits": 32, "after_ms": int(hours * 1.8e6)}), f)
    with subprocess.Popen([o.parley, "replay", name + ".json", "--model", o.model, "--threads", "1",
                           "--no-compare", "--events", name + ".jsonl", "--vad",
                           os.path.join(ROOT, "models", "vad", "silero.bin")],
                          stdout=subprocess.PIPE, text=True) as process:
        samples = watch(process, name + ".jsonl")
        said = process.stdout.read().strip()
    events = score.read_events(name + ".jsonl")
    day = [m for at, m in samples if first / 2 <= at < first] or [0]
    last = [m for at, m in samples if at >= hours - first] or [0]
    wrong = sum(e["event"] in ("overflow", "model_failed", "mic_lost", "speaker_lost") for e in events)
    return {"asked": len(times), "ended": sum(e["event"] == "answer_ended" for e in events),
            "last": [e["state"] for e in events if "state" in e][-1], "wrong": wrong,
            "more": int(statistics.median(last) - statistics.median(day)),
            "most": max(m for _, m in samples) - max(day), "said": said}


def soak(machine, page):
    o = machine.options
    pieces = max(1, math.ceil(o.hours / PIECE_HOURS))
    found = list(machine.pool.map(lambda p: soak_piece(machine, p, o.hours / pieces),
                                  range(pieces)))
    for f in found:
        print(f["said"])
    page.row(f"{o.hours:g} hours of a quiet room in {pieces} runs, a question every "
             f"{o.every:g} min (six times as many on the first day)",
             f"{share(sum(f['ended'] for f in found), sum(f['asked'] for f in found))} answered to "
             "the end", f"in the end {', '.join(f['last'] for f in found)}; "
             f"{sum(f['wrong'] for f in found)} xruns and failures; memory after the first day "
             f"{', '.join('%+d' % f['more'] for f in found)} KiB (medians of the last day and the "
             f"first's second half), peak {', '.join('%+d' % f['most'] for f in found)} KiB",
             "all; <= 64 KiB more")


# ------------------------------------------------------------------------------------------------
# recordings of people
# ------------------------------------------------------------------------------------------------

def recordings(machine, page):
    folder = machine.options.recordings
    found = sorted(glob.glob(os.path.join(folder or "", "*", "input.wav")))
    if not folder or not found:
        print("skip: recordings: no */input.wav under --recordings")
        return
    scenarios = {}
    for path in found:
        with wave.open(path, "rb") as f:
            length = 1000 * f.getnframes() / f.getframerate()
        name = os.path.basename(os.path.dirname(path))
        scenarios[name] = {"about": name, "length_ms": int(length) // 10 * 10 + 4000,
                           "sounds": [{"at_ms": 0, "file": os.path.abspath(path), "rt60_ms": 0}],
                           "room": {"echo_db": 0}}
    for name, r in machine.all(scenarios).items():
        loud = r.loud()
        plays = [f"{e['ms'] / 1000:.2f}" for e in r.events if "play" in e.get("actions", [])]
        drops = [f"{e['ms'] / 1000:.2f}" for e in r.events if score.dropped(e)]
        page.row(f"recording {name}", f"answers at {', '.join(plays) or '-'} s",
                 f"dropped at {', '.join(drops) or '-'} s; {sum(loud) / 1000:.1f} s of own sound",
                 "")


# ------------------------------------------------------------------------------------------------

class Page:
    def __init__(self):
        self.rows, self.notes, self.bad = [], [], []

    def row(self, what, figure, more, bar):
        self.rows.append((what, figure, more, bar))
        print(f"{what}: {figure}; {more}" + (f"  [{bar}]" if bar else ""), flush=True)

    def note(self, text):
        self.notes.append(text)
        print(text, flush=True)

    def failing(self, what, names):
        if names:
            self.bad.append((what, names))
            print(f"  failing: {', '.join(names)}", flush=True)

    def write(self, path, options, wall_s):
        model = "unknown processor"
        with open("/proc/cpuinfo", encoding="utf-8") as f:
            for line in f:
                if line.startswith("model name"):
                    model = line.split(":", 1)[1].strip()
        with open(path, "w", encoding="utf-8") as f:
            f.write("# Figures of turn taking\n\n"
                    f"{datetime.date.today()}, {os.cpu_count()} processors ({model}, "
                    f"{platform.machine()}), {wall_s / 60:.0f} minutes with {options.jobs} at a "
                    f"time. Made by\n\n    tools/measure_turns.py {' '.join(sys.argv[1:])}\n\n"
                    "Simulated rooms, synthetic voices (tests/replay/README.md), parley-mini. A "
                    "figure is a median with the range of the\nmiddle four fifths. Where a bar was "
                    "set it stands in the last column.\n\n| what | figure | more | bar |\n"
                    "|---|---|---|---|\n")
            for row in self.rows:
                f.write("| " + " | ".join(row) + " |\n")
            f.write("\n" + "\n".join(self.notes) + "\n")
            for what, names in self.bad:
                f.write(f"\nFell short, {what}: {', '.join(names)}.\n")


SETS = {"barge-in": barge_in, "own-speech": own_speech, "sounds": sounds, "endpoint": endpoint,
        "identical": identical, "soak": soak, "recordings": recordings}


def main(args):
    parser = argparse.ArgumentParser(description="Figures of turn taking, by replay.")
    parser.add_argument("sets", nargs="*", metavar="SET", help=", ".join(SETS))
    parser.add_argument("--parley", default=os.path.join(ROOT, "build", "parley"))
    parser.add_argument("--model", default=os.path.join(ROOT, "models", "parley-mini"))
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--runs", type=int, default=10, help="of each scenario for `identical`")
    parser.add_argument("--hours", type=float, default=2, help="of `soak`")
    parser.add_argument("--every", type=float, default=5, help="minutes between its questions")
    parser.add_argument("--keep", metavar="FOLDER")
    parser.add_argument("--page", metavar="FILE")
    parser.add_argument("--recordings", metavar="FOLDER")
    o = parser.parse_args(args)
    unknown = [s for s in o.sets if s not in SETS]
    if unknown:
        parser.error(f"unknown set {unknown[0]}; there are {', '.join(SETS)}")
    chosen = o.sets or [s for s in SETS if s != "soak" and (s != "recordings" or o.recordings)]
    page, began = Page(), time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        folder = o.keep or temporary
        os.makedirs(folder, exist_ok=True)
        machine = Machine(o, folder)
        for name in chosen:
            SETS[name](machine, page)
    if o.page:
        page.write(o.page, o, time.monotonic() - began)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
