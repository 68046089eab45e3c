"""Disguises of speakers and lines in the log-mels themselves: cheap enough for every step.

What a clip's waveform cannot change at once for a whole batch, its log-mels can: the length of
the vocal tract (a warp of the bands, or of their envelope alone), a vocoder's buzz, the colour of a microphone (a curve added to the bands), a
vocoder's blur, steady noise.  Static shapes and the device's own random numbers: a CUDA graph may
hold the call."""

import math

import torch
import torch.nn.functional as F

from common import DEVICE

BANDS, TOP_HZ = 128, 8000
SPAN = 8.0      # log10 of power between a clip's loudest bin and the floor of its log-mels


def _to_band(hz):
    """Where a frequency falls among the centres of Slaney's bands."""
    mel = torch.where(hz < 1000, hz * 3 / 200,
                      15 + torch.log(hz.clamp(min=1) / 1000) * 27 / math.log(6.4))
    top = 15 + math.log(TOP_HZ / 1000) * 27 / math.log(6.4)
    return mel / top * (BANDS + 1) - 1


def _band_hz():
    grid = torch.linspace(0, TOP_HZ, 20001)
    index = torch.searchsorted(_to_band(grid), torch.arange(BANDS).float())
    return grid[index.clamp(max=len(grid) - 1)]


BAND_HZ = _band_hz().to(DEVICE)


def _uniform(n, low, high):
    return low + (high - low) * torch.rand(n, 1, device=DEVICE)


def _chance(n, probability):
    return torch.rand(n, 1, device=DEVICE) < probability


def _curve(n, points, deviation):
    """Smooth random curves over the bands, [n, BANDS]."""
    knots = torch.randn(n, 1, points, device=DEVICE)
    return F.interpolate(knots, BANDS, mode="linear", align_corners=True)[:, 0] * deviation


def _smoothing(width):
    """Bands to their envelope: what is left when the harmonics are smoothed away."""
    at = torch.arange(BANDS).float()
    kernel = torch.exp(-0.5 * ((at[:, None] - at) / width) ** 2)
    return (kernel / kernel.sum(1, keepdim=True)).to(DEVICE)


ENVELOPE, ENVELOPE_MEAN = _smoothing(4.0), _smoothing(24.0)


class Settings:
    """What is done to each of n clips."""

    def __init__(self, n):
        self.warp = torch.where(_chance(n, 0.6), torch.exp(_uniform(n, -0.2, 0.2)), 1.0)
        self.throat = torch.where(_chance(n, 0.6), torch.exp(_uniform(n, -0.22, 0.22)), 1.0)
        self.voicing = torch.where(_chance(n, 0.55), _uniform(n, 0.0, 1.6), 1.0)
        self.contrast = torch.where(_chance(n, 0.55), _uniform(n, 0.55, 1.35), 1.0)
        tilt = torch.linspace(-1, 1, BANDS, device=DEVICE) * _uniform(n, -0.7, 0.7)
        self.colour = (tilt + _curve(n, 9, _uniform(n, 0, 0.6))) * _chance(n, 0.75)
        self.colour = self.colour + _uniform(n, -0.5, 0.5)
        self.blur = _uniform(n, 0, 0.33) * _chance(n, 0.3)
        self.smear = _uniform(n, 0, 0.33) * _chance(n, 0.3)
        self.noise = _curve(n, 6, 0.5) - _uniform(n, 2.4, 7.0) - 20.0 * _chance(n, 0.55)
        cut = torch.where(_chance(n, 0.3), _uniform(n, 3000, 7500), 20000.0)
        self.muffle = torch.sigmoid((cut - BAND_HZ) / 100) * 5 - 5

    def of(self, owner):
        """The same, a row for each chunk."""
        out = Settings.__new__(Settings)
        out.__dict__ = {name: value[owner] for name, value in self.__dict__.items()}
        return out


def _warped(x, warp):
    """Bands of a speaker whose vocal tract is so much shorter."""
    at = _to_band(BAND_HZ / warp).clamp(0, BANDS - 1)
    low = at.floor().long().clamp(max=BANDS - 2)
    part = (at - low)[:, :, None]
    low = low[:, :, None].expand(-1, -1, x.shape[2])
    return x.gather(1, low) * (1 - part) + x.gather(1, low + 1) * part


def _other_speaker(x, s):
    """Another size of throat under the same pitch, harmonics that stand out more or less, and
    formants sharper or flatter: in what ways one synthesiser's voices differ from another's."""
    envelope = ENVELOPE @ x
    fine = x - envelope
    mean = ENVELOPE_MEAN @ x
    envelope = mean + (envelope - mean) * s.contrast[:, :, None]
    return _warped(envelope, s.throat) + fine * s.voicing[:, :, None]


def _softened(x, share, dim):
    """Each value mixed with its neighbours along a dimension."""
    n = x.shape[dim]
    before = torch.cat([x.narrow(dim, 0, 1), x.narrow(dim, 0, n - 1)], dim)
    after = torch.cat([x.narrow(dim, 1, n - 1), x.narrow(dim, n - 1, 1)], dim)
    share = share[:, :, None]
    return x * (1 - share) + (before + after) * share / 2


def disguise(chunks, owner, clips):
    """Whisper's log-mels [n, 128, 100] of chunks; owner [n]: the clip of each, -1 for none; of
    `clips` clips at most.  Padding is 0 and stays so."""
    owner = torch.where(owner < 0, clips, owner).long()
    s = Settings(clips + 1).of(owner)
    used = chunks != 0
    x = chunks * 4 - 4
    x = _other_speaker(_warped(torch.where(used, x, -10.0), s.warp), s)
    x = _softened(_softened(x, s.blur * 2, 1), s.smear * 2, 2)
    x = x + (s.colour + s.muffle)[:, :, None]
    top = _loudest(torch.where(used, x, -30.0), owner, clips)
    noise = top + s.noise[:, :, None] + 0.3 * torch.randn_like(x)
    x = torch.logaddexp(x * math.log(10), noise * math.log(10)) / math.log(10)
    x = torch.maximum(x, top - SPAN).clamp(min=-10)
    return torch.where(used, (x + 4) / 4, 0.0)


def _loudest(x, owner, clips):
    loudest = torch.full((clips + 1,), -10.0, device=x.device)
    loudest = loudest.scatter_reduce(0, owner, x.amax((1, 2)), "amax")
    return loudest[owner][:, None, None]
