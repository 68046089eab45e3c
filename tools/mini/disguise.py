"""Rooms, noises, microphones and paces for clips of speech, many clips at a time on the GPU.

`augment(waves [n, samples], lengths [n], longest)` gives (waves, lengths), padded with zeros."""

import math

import torch
import torch.nn.functional as F

RATE = 16000


def uniform(n, low, high, device):
    return low + (high - low) * torch.rand(n, 1, device=device)


def maybe(n, share, device):
    return torch.rand(n, 1, device=device) < share


def change_pace(waves, lengths):
    """Faster and higher, or slower and lower: one factor for the block."""
    factor = float(torch.empty(1).uniform_(0.9, 1.12))
    waves = F.interpolate(waves[:, None], scale_factor=1 / factor, mode="linear")[:, 0]
    return waves, (lengths / factor).long().clamp(max=waves.shape[1])


def place(waves, lengths, longest):
    """Silence of random length before and after."""
    n, device = len(waves), waves.device
    lead = (uniform(n, 0, 0.5, device)[:, 0] * RATE * maybe(n, 0.8, device)[:, 0]).long()
    trail = (uniform(n, 0, 0.9, device)[:, 0] * RATE * maybe(n, 0.8, device)[:, 0]).long()
    total = (lead + lengths + trail).clamp(max=longest)
    at = torch.arange(int(total.max()), device=device) - lead[:, None]
    inside = (at >= 0) & (at < lengths[:, None])
    waves = waves.gather(1, at.clamp(0, waves.shape[1] - 1))
    return torch.where(inside, waves, 0.0), total


def shaped(spectrum, frequencies):
    """Random microphone: cuts at both ends, a tilt and a broad bump."""
    n, device = len(spectrum), spectrum.device
    low, high = uniform(n, 20, 300, device), uniform(n, 2800, 8000, device)
    wide = maybe(n, 0.5, device)
    low, high = torch.where(wide, 20.0, low), torch.where(wide, 9000.0, high)
    gain = torch.sigmoid((frequencies - low) / 40) * torch.sigmoid((high - frequencies) / 200)
    octaves = torch.log2(frequencies.clamp(min=60) / 1000)
    tilt = uniform(n, -3, 3, device) * octaves
    bump = uniform(n, -6, 6, device) * torch.exp(-(octaves - uniform(n, -2, 2.5, device)) ** 2)
    return spectrum * gain * 10 ** ((tilt + bump) / 20)


def rooms(n, device, length=RATE // 2):
    """Impulse responses: a direct path and a decaying, darkening tail."""
    t = torch.arange(length, device=device) / RATE
    decay = torch.exp(-6.9 * t / uniform(n, 0.1, 0.6, device))
    tail = torch.randn(n, length, device=device) * decay
    tail = F.avg_pool1d(F.pad(tail[:, None], (1, 1)), 3, 1)[:, 0]
    tail = tail * (t > 0.002)
    level = 10 ** (uniform(n, -18, 2, device) / 20)
    tail = tail / tail.norm(dim=1, keepdim=True) * level * maybe(n, 0.5, device)
    tail[:, 0] = 1.0
    return tail


def noises(waves):
    """Noise with a random slope of its spectrum, or other clips played backwards."""
    n, length = waves.shape
    device = waves.device
    spectrum = torch.fft.rfft(torch.randn(n, length, device=device))
    f = torch.fft.rfftfreq(length, 1 / RATE).to(device).clamp(min=30)
    coloured = torch.fft.irfft(spectrum * f ** uniform(n, -1.2, 0.2, device), length)
    voices = sum(waves[torch.randperm(n, device=device)].flip(1) for _ in range(3))
    swell = 1 + 0.5 * torch.sin(2 * math.pi * uniform(n, 0.2, 3, device)
                                * torch.arange(length, device=device) / RATE)
    return torch.where(maybe(n, 0.2, device), voices, coloured * swell)


def power(x, lengths):
    return x.square().sum(1, keepdim=True) / lengths[:, None].clamp(min=1)


def augment(waves, lengths, longest):
    n, device = len(waves), waves.device
    spoken = lengths
    waves, lengths = change_pace(waves, lengths)
    waves, lengths = place(waves, lengths, longest)
    size = waves.shape[1]
    spectrum = torch.fft.rfft(waves, size + RATE // 2)
    frequencies = torch.fft.rfftfreq(size + RATE // 2, 1 / RATE).to(device)
    spectrum = spectrum * torch.fft.rfft(rooms(n, device), size + RATE // 2)
    waves = torch.fft.irfft(shaped(spectrum, frequencies), size + RATE // 2)[:, :size]
    loud = power(waves, spoken).clamp(min=1e-9)
    noise = noises(waves)
    ratio = 10 ** (-uniform(n, 5, 35, device) / 10)
    scale = (loud * ratio / power(noise, lengths.new_full((n,), size)).clamp(min=1e-12)).sqrt()
    waves = waves + noise * scale * maybe(n, 0.75, device)
    level = 10 ** (uniform(n, -38, -12, device) / 20)
    waves = waves * level / loud.sqrt().clamp(min=3e-3)
    waves = waves.clamp(-1, 1)
    inside = torch.arange(size, device=device) < lengths[:, None]
    return torch.where(inside, waves, 0.0), lengths
