"""Batch augmentation of 16 kHz speech on the GPU: pace, room, device, noise, level.

Static shapes, no host synchronisation and the device's own random numbers: a CUDA graph may hold
the call. `augment(wave, lengths)` takes [B, L] float samples in -1..1 whose tail beyond `lengths`
is zero, and returns (wave, lengths) of the same shapes.
"""

import math

import torch

RATE = 16000
ROOM_TAPS = 8000            # half a second: beyond that even RT60 0.7 s is down by 43 dB
FLOOR = 10 ** (-60 / 20)    # rms below which a clip counts as silent


def _uniform(shape, low, high, device):
    return low + (high - low) * torch.rand(shape, device=device)


def _chance(n, probability, device):
    return torch.rand(n, 1, device=device) < probability


def _decibels(x):
    return 10 ** (x / 20)


def _mask(wave, lengths):
    return torch.arange(wave.shape[1], device=wave.device) < lengths[:, None]


def rms(wave, lengths):
    return (wave.square().sum(1) / lengths.clamp(min=1)).sqrt()[:, None]


def change_speed(wave, lengths, spread=0.1):
    """Plays each clip faster or slower (the pitch follows), by cubic interpolation. A clip that
    would not fit is slowed down only as far as it does."""
    n = wave.shape[1]
    factor = _uniform(len(wave), 1 - spread, 1 + spread, wave.device)
    factor = torch.maximum(factor, lengths / n)
    at = torch.arange(n, device=wave.device) * factor[:, None]
    i = at.floor().long()
    f = at - i

    def sample(k):
        j = i + k
        return wave.gather(1, j.clamp(0, n - 1)) * (j < n)

    a, b, c, d = sample(-1), sample(0), sample(1), sample(2)
    out = b + 0.5 * f * (c - a + f * (2 * a - 5 * b + 4 * c - d + f * (3 * (b - c) + d - a)))
    new = (lengths / factor).floor().long().clamp(1, n)
    return out * _mask(out, new), new


def room_spectrum(b, size, device, probability):
    """Spectra of made-up rooms: direct sound, then noise that decays by 60 dB in RT60."""
    t = torch.arange(ROOM_TAPS, device=device) / RATE
    rt60 = _uniform((b, 1), 0.1, 0.7, device)
    tail = torch.randn(b, ROOM_TAPS, device=device) * torch.exp(-6.9 * t / rt60)
    tail = tail * (t > _uniform((b, 1), 0.001, 0.02, device))
    ratio = _decibels(-_uniform((b, 1), -4, 13, device))    # reverberant to direct sound
    tail = tail / tail.square().sum(1, keepdim=True).sqrt() * ratio
    tail = tail * _chance(b, probability, device)
    tail[:, 0] = 1
    return torch.fft.rfft(tail, size)


def device_gain(b, bins, device, probability):
    """Frequency responses of microphones and lines: a wavy curve and the ends cut off."""
    hz = torch.linspace(0, RATE / 2, bins, device=device)
    points = torch.randn(b, 1, 10, device=device) * 4
    place = torch.log1p(hz / 300) / math.log1p(RATE / 2 / 300)
    curve = torch.nn.functional.interpolate(points, 256, mode="linear", align_corners=True)[:, 0]
    curve = curve[:, (place * 255).long()]
    low = _uniform((b, 1), 20, 300, device)
    high = _uniform((b, 1), 3200, 9000, device)
    passed = torch.sigmoid((high - hz) / 150) * (1 - 1 / (1 + (hz / low) ** 4))
    cut = 20 * torch.log10(passed + 1e-3)
    return torch.where(_chance(b, probability, device), _decibels(curve + cut), 1.0)


def coloured_noise(b, n, device):
    """Noise of unit rms that falls by 0 to 6 dB an octave: white, pink, brown and between."""
    bins = n // 2 + 1
    slope = _uniform((b, 1), 0, 1, device)
    shape = torch.arange(1, bins + 1, device=device, dtype=torch.float) ** -slope
    spectrum = torch.view_as_complex(torch.randn(b, bins, 2, device=device)) * shape
    noise = torch.fft.irfft(spectrum, n)
    return noise / noise.square().mean(1, keepdim=True).sqrt().clamp(min=1e-9)


def babble(wave, lengths, voices=4):
    """Other clips of the batch on top of each other, of unit rms where they sound."""
    b, n = wave.shape
    scaled = wave / rms(wave, lengths).clamp(min=FLOOR)
    out = torch.zeros_like(wave)
    for _ in range(voices):
        other = torch.rand(b, device=wave.device).argsort()
        shift = (torch.rand(b, 1, device=wave.device) * n).long()
        index = (torch.arange(n, device=wave.device) + shift) % n
        out += scaled[other].gather(1, index)
    return out / math.sqrt(voices)


def add_noise(wave, lengths, probability, low=3.0, high=27.0):
    """Noise at `low` to `high` dB under the speech; a silent clip gets a faint one."""
    b, n = wave.shape
    device = wave.device
    noise = torch.where(_chance(b, 0.3, device), babble(wave, lengths),
                        coloured_noise(b, n, device))
    speech = rms(wave, lengths)
    faint = _decibels(_uniform((b, 1), -75, -40, device))
    gain = speech * _decibels(-_uniform((b, 1), low, high, device))
    gain = torch.where(speech > FLOOR, gain * _chance(b, probability, device), faint)
    return wave + noise * gain


def augment(wave, lengths, speed=0.1, room=0.5, device=0.5, noise=0.75):
    """Speed spread and the probabilities of the other changes; then a level between -38 and
    -14 dB, clipped as a converter would."""
    b, n = wave.shape
    wave, lengths = change_speed(wave, lengths, speed)
    size = 1 << (n + ROOM_TAPS - 1).bit_length()
    spectrum = torch.fft.rfft(wave, size) * room_spectrum(b, size, wave.device, room)
    spectrum = spectrum * device_gain(b, size // 2 + 1, wave.device, device)
    before = rms(wave, lengths)
    wave = torch.fft.irfft(spectrum, size)[:, :n]
    wave = wave * (before / rms(wave, lengths).clamp(min=1e-9))
    wave = add_noise(wave, lengths, noise)
    target = _decibels(_uniform((b, 1), -38, -14, wave.device))
    now = rms(wave, lengths)
    wave = torch.where(before > FLOOR, wave * target / now.clamp(min=1e-9), wave)
    return wave.clamp(-1, 1) * _mask(wave, lengths), lengths
