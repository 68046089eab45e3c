#!/usr/bin/env python3
"""The listener's page of parley-mini: ten spoken answers beside the teacher's voice saying the
same, as Ogg Opus, and the spectrograms of the first four.

usage: listen.py --model models/parley-mini --eval build-data/mini-eval --teacher voices.tar.xz
           --out models/parley-mini/listen       (needs: soundfile, Pillow)"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import evaluate  # noqa: E402

RATE = 24000
SKILLS = ["capital", "add", "greet", "decline", "opposite", "count", "day", "spell", "repeat",
          "repeat"]
HEIGHT, HOP, WINDOW = 200, 240, 1024


def first_of_each(dialogues):
    """The first single question of each skill of SKILLS that is answered by a sentence."""
    taken = []
    for skill in SKILLS:
        taken.append(next(d for d, turns in enumerate(dialogues)
                          if d not in taken and len(turns) == 1 and turns[0]["skill"] == skill))
    return taken


def ask(parley, model, question, sound):
    out = subprocess.run([parley, "ask", "--model", model, "--in", question, "--out", sound,
                          "--json", "--quiet"], check=True, capture_output=True, text=True).stdout
    return json.loads(out.splitlines()[0])["text"]


def spectrogram(x):
    """Grey levels [HEIGHT, frames] of 0 to 8 kHz, 70 dB below the loudest as black, brightened."""
    frames = np.lib.stride_tricks.sliding_window_view(np.pad(x, WINDOW // 2), WINDOW)[::HOP]
    power = np.abs(np.fft.rfft(frames * np.hanning(WINDOW))) ** 2
    db = 10 * np.log10(power[:, :WINDOW * 8000 // RATE] + 1e-12)
    grey = np.clip((db - db.max() + 70) / 70, 0, 1)
    rows = np.linspace(grey.shape[1] - 1, 0, HEIGHT).astype(int)
    return (grey[:, rows].T ** 0.6 * 255).astype(np.uint8)


def picture(pairs, path):
    """Teacher on the left, model on the right, one row a sentence."""
    from PIL import Image, ImageDraw

    width, gap = 330, 10
    sheet = Image.new("L", (2 * width + 3 * gap, len(pairs) * (HEIGHT + 30) + 20), 255)
    draw = ImageDraw.Draw(sheet)
    draw.text((gap, 4), "teacher", 0)
    draw.text((width + 2 * gap, 4), "model", 0)
    for row, (text, *sounds) in enumerate(pairs):
        top = 20 + row * (HEIGHT + 30)
        for column, x in enumerate(sounds):
            image = Image.fromarray(spectrogram(x)[:, :width])
            sheet.paste(image, (gap + column * (width + gap), top))
        draw.text((gap, top + HEIGHT + 4), text, 0)
    sheet.quantize(32).save(path, optimize=True)


def main():
    import soundfile

    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--parley", default=str(HERE.parent.parent / "build" / "parley"))
    p.add_argument("--model", required=True)
    p.add_argument("--eval", type=Path, required=True)
    p.add_argument("--teacher", type=Path, required=True)
    p.add_argument("--voice", default="flite-rms", help="that asks")
    p.add_argument("--out", type=Path, required=True)
    args = p.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    dialogues = json.loads((args.eval / "eval.json").read_text(encoding="utf-8"))["dialogues"]
    lines, pairs = ["# parley-mini: ten answers\n", f"Asked by {args.voice}; beside each the "
                    "teacher's voice saying the same words.\n", "| asked | answer | model | "
                    "teacher |", "|---|---|---|---|"], []
    with tempfile.TemporaryDirectory() as folder:
        teacher = evaluate.Teacher(args.teacher, Path(folder) / "voices")
        for i, d in enumerate(first_of_each(dialogues)):
            question = args.eval / args.voice / "clean" / f"{d:03d}-0.wav"
            text = ask(args.parley, args.model, str(question), f"{folder}/a.wav")
            model = soundfile.read(f"{folder}/a.wav", dtype="float32")[0]
            taught = teacher.synth.say_answer(text, teacher.joe)
            for name, x in (("model", model), ("teacher", taught)):
                soundfile.write(args.out / f"{i}-{name}.ogg", x, RATE, format="OGG",
                                subtype="OPUS")
            pairs.append((text, taught, model))
            lines.append(f"| {dialogues[d][0]['question']} | {text} | [{i}-model.ogg]"
                         f"({i}-model.ogg) | [{i}-teacher.ogg]({i}-teacher.ogg) |")
    picture(pairs[:4], args.out / "spectrograms.png")
    lines.append("\nSpectrograms, 0 to 8 kHz, 70 dB, of the first four:\n\n"
                 "![spectrograms](spectrograms.png)")
    (args.out / "README.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
