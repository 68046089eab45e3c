#!/usr/bin/env python3
"""Renders the held-out questions with voices that training never heard.

OUT/eval.json lists dialogues and their turns; the sound of a turn lies in
OUT/VOICE/CONDITION/DIALOGUE-TURN.wav (16 kHz). Conditions: clean; noise10, noise 10 dB under the
speech; room04, a room of RT60 0.4 s. Turns without speech are in OUT/sound/clean.

usage: make_eval.py --out build-data/mini-eval [--kokoro FOLDER] [--voices flite-rms,...]
       make_eval.py --demo etc/demo
"""

import argparse
import json
import random
import sys
import wave
from pathlib import Path

import numpy as np
from scipy.signal import fftconvolve

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import domain  # noqa: E402
import pack_voices  # noqa: E402
import synth  # noqa: E402
import voices  # noqa: E402

RATE = synth.QUESTION_RATE
CONDITIONS = ["clean", "noise10", "room04"]
DEMO = {"capital": "What is the capital of France?", "sum": "How much is seven plus eight?",
        "times-two": "And times two?"}


def write_wave(path, x):
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as w:
        w.setnchannels(1)
        w.setsampwidth(2)
        w.setframerate(RATE)
        w.writeframes(synth.to_int16(x).tobytes())


def add_noise(x, rng, db=10):
    """White and pink noise by turns, so many dB under the speech."""
    noise = rng.standard_normal(len(x)) if rng.random() < 0.5 else synth.pink(rng, len(x))
    loud, hop = synth.loud_frames(x, RATE, 30)
    speech = np.square(x[:len(loud) * hop]).reshape(-1, hop)[loud].mean()
    return x + noise * np.sqrt(speech / np.square(noise).mean()) * 10 ** (-db / 20)


def add_room(x, rng, rt60=0.4):
    """A diffuse tail of the same energy as the direct sound."""
    t = np.arange(int(rt60 * RATE)) / RATE
    tail = rng.standard_normal(len(t)) * np.exp(-6.9 * t / rt60) * (t > 0.004)
    tail[1:] /= np.sqrt(np.square(tail).sum())
    tail[0] = 1
    out = fftconvolve(np.pad(x, (0, int(0.2 * RATE))), tail)[:len(x) + int(0.2 * RATE)]
    return out * min(1, np.sqrt(np.square(x).mean() / np.square(out).mean()))


def render(engines, voice, text, r):
    """A question as a recording would hold it: some silence before and after."""
    setting = {**voices.JUDGE, **voices.DEVELOP}[voice]
    x, rate = engines.say(setting, text, r, vary=0.3)
    x = synth.trim(synth.resample(x, rate, RATE), RATE, 0.15, 0.25)
    return synth.level(x, RATE, -23)


def conditions(x, seed):
    rng = np.random.default_rng(seed)
    return {"clean": x, "noise10": add_noise(x, rng), "room04": add_room(x, rng)}


def make(engines, args):
    dialogues = domain.eval_dialogues()
    for d, turns in enumerate(dialogues):
        for k, turn in enumerate(turns):
            name = f"{d:03d}-{k}.wav"
            if turn["skill"] == "nonspeech":
                write_wave(args.out / "sound" / "clean" / name,
                           synth.sound(turn["sound"], random.Random(f"eval {d}")))
                continue
            for voice in args.voices:
                x = render(engines, voice, turn["question"], random.Random(f"{voice} {d} {k}"))
                for condition, y in conditions(x, 100 * d + k).items():
                    write_wave(args.out / voice / condition / name, y)
        if d % 50 == 0:
            print(f"{d} of {len(dialogues)} dialogues", flush=True)
    listing = {"voices": args.voices, "conditions": CONDITIONS, "dialogues": dialogues}
    (args.out / "eval.json").write_text(json.dumps(listing, indent=1) + "\n", encoding="utf-8")


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--out", type=Path)
    p.add_argument("--demo", type=Path, help="write the three questions of the demonstration")
    p.add_argument("--voices", type=lambda s: s.split(","))
    p.add_argument("--kokoro", type=Path, help="kokoro.onnx, vocab.json, voices_ja.npz")
    args = p.parse_args()
    engines = voices.Voices(pack_voices.SYSTEM, args.kokoro)
    args.voices = args.voices or [v for v in voices.JUDGE
                                  if args.kokoro or not v.startswith("kokoro")]
    if args.out:
        make(engines, args)
    for name, text in DEMO.items() if args.demo else []:
        write_wave(args.demo / f"{name}.wav",
                   render(engines, "flite-rms", text, random.Random(f"demo {name}")))


if __name__ == "__main__":
    main()
