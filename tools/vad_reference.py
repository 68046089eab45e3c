#!/usr/bin/env python3
"""Reference data for voice activity: a short sound, and what the silero-vad package says about it.

  tools/vad_reference.py sound A.wav B.wav --out SOUND.wav
      A and B (speech, mono, 16 kHz) one after the other with gaps; noise under it that grows from
      -60 to -36 dBFS, a click in the first gap, B 12 dB softer. 5.5 s, 16 bit.
  tools/vad_reference.py golden SOUND.wav --out PROBABILITIES.txt
      one probability for every 512 samples, from the package's own model

Nothing here is needed to build, run or test Parley. tests/golden/vad/README.md says how the
committed files were made.

Requirements: silero-vad==6.2.3, torch==2.11.0, numpy==2.4.6, soundfile==0.14.0
"""
import argparse
import importlib.metadata

import numpy as np
import soundfile

RATE, CHUNK, SAMPLES = 16000, 512, 88000
FIRST, CLICK, GAP = 12000, 3000, 11000  # start of A, click after A, from A to B; samples


def load(path):
    pcm, rate = soundfile.read(path, dtype="float32")
    assert rate == RATE and pcm.ndim == 1, path
    return pcm


def trim(pcm):
    """Without the silence around the speech."""
    loud = np.flatnonzero(np.abs(pcm) > 0.01)
    return pcm[loud[0]:loud[-1]]


def sound(args):
    a, b = (trim(load(path)) for path in args.speech)
    noise = np.random.default_rng(5).standard_normal(SAMPLES)
    out = noise * 10 ** (np.linspace(-60, -36, SAMPLES) / 20)
    out[FIRST:FIRST + len(a)] += a
    click = FIRST + len(a) + CLICK
    out[click:click + 40] += np.where(np.arange(40) % 8 < 4, 0.5, -0.5)
    second = FIRST + len(a) + GAP
    out[second:second + len(b)] += 0.25 * b
    print(f"speech at {FIRST}..{FIRST + len(a)} and {second}..{second + len(b)}, click at {click}")
    assert second + len(b) < SAMPLES - RATE // 2, "too long"
    soundfile.write(args.out, np.clip(out, -1, 1), RATE, subtype="PCM_16")


def golden(args):
    import torch
    from silero_vad import load_silero_vad

    torch.set_num_threads(1)
    model = load_silero_vad()
    pcm = torch.from_numpy(load(args.sound))
    with torch.no_grad():
        p = [float(model(pcm[i:i + CHUNK], RATE)) for i in range(0, len(pcm) - CHUNK + 1, CHUNK)]
    with open(args.out, "w", encoding="ascii") as f:
        f.write(f"# silero-vad {importlib.metadata.version('silero-vad')}, chunks of {CHUNK}\n")
        f.writelines(f"{x:.8f}\n" for x in p)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("sound")
    command.add_argument("speech", nargs=2)
    command.add_argument("--out", required=True)
    command.set_defaults(run=sound)
    command = commands.add_parser("golden")
    command.add_argument("sound")
    command.add_argument("--out", required=True)
    command.set_defaults(run=golden)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
