#!/usr/bin/env python3
"""tools/replay_sounds.py FOLDER - coughs, a click and a knock for tests/replay, by formula.

A cough is a burst of noise (the cords fly open) and a weaker, longer one (the air that follows),
each under an envelope that rises in 5 ms and falls exponentially, through two resonances of the
throat:

    y = sum over bursts of a * (1 - exp(-t / 5 ms)) * exp(-t / tau) * white(t - start)
    out = resonance(f1, b1) + 0.6 * resonance(f2, b2) of y

A click is 4 ms of a damped sine of 2.2 kHz, a knock two of 180 Hz with 30 ms. 16 kHz, 16 bits, fixed
seeds: the same bytes always. Only the Python standard library is used.
"""
import math
import random
import struct
import sys
import wave

RATE = 16000


def burst(y, start, amplitude, tau, seed):
    draw = random.Random(seed)
    for i in range(int(start * RATE), len(y)):
        t = i / RATE - start
        y[i] += amplitude * (1 - math.exp(-t / 0.005)) * math.exp(-t / tau) * draw.uniform(-1, 1)


def resonance(x, frequency, bandwidth):
    """A two-pole filter."""
    r = math.exp(-math.pi * bandwidth / RATE)
    a1, a2 = 2 * r * math.cos(2 * math.pi * frequency / RATE), -r * r
    y, y1, y2 = [], 0.0, 0.0
    for value in x:
        y1, y2 = value * (1 - r) + a1 * y1 + a2 * y2, y1
        y.append(y1)
    return y


def cough(seconds, bursts, formants, seed):
    x = [0.0] * int(seconds * RATE)
    for n, (start, amplitude, tau) in enumerate(bursts):
        burst(x, start, amplitude, tau, seed + n)
    first = resonance(x, *formants[0])
    second = resonance(x, *formants[1])
    return [a + 0.6 * b for a, b in zip(first, second)]


def ring(seconds, strokes, frequency, tau):
    y = [0.0] * int(seconds * RATE)
    for start in strokes:
        for i in range(int(start * RATE), len(y)):
            t = i / RATE - start
            y[i] += math.exp(-t / tau) * math.sin(2 * math.pi * frequency * t)
    return y


def write(folder, name, y):
    peak = max(abs(v) for v in y)
    with wave.open(f"{folder}/{name}.wav", "wb") as f:
        f.setnchannels(1)
        f.setsampwidth(2)
        f.setframerate(RATE)
        f.writeframes(b"".join(struct.pack("<h", round(v / peak * 23000)) for v in y))


def main(folder):
    write(folder, "cough-1", cough(0.40, [(0.01, 1.0, 0.045), (0.13, 0.35, 0.08)],
                                   [(900, 400), (2400, 900)], 11))
    write(folder, "cough-2", cough(0.70, [(0.01, 1.0, 0.05), (0.33, 0.8, 0.05), (0.45, 0.2, 0.07)],
                                   [(700, 350), (1900, 700)], 22))
    write(folder, "cough-3", cough(0.30, [(0.01, 1.0, 0.04), (0.09, 0.5, 0.05)],
                                   [(1200, 600), (3000, 1200)], 33))
    write(folder, "click", ring(0.06, [0.01], 2200, 0.004))
    write(folder, "knock", ring(0.50, [0.01, 0.21], 180, 0.030))


if __name__ == "__main__":
    main(sys.argv[1])
