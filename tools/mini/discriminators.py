"""The judges of stage B: does this second of sound come from the teacher?  Training alone."""

import math

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.nn.utils.parametrizations import weight_norm


class PeriodJudge(nn.Module):
    """Sees the wave folded to rows of `period` samples."""

    def __init__(self, period):
        super().__init__()
        self.period = period
        widths = [1, 16, 64, 128, 256]
        layers = [nn.Conv2d(a, b, (5, 1), (3, 1), (2, 0)) for a, b in zip(widths, widths[1:])]
        layers.append(nn.Conv2d(256, 256, (5, 1), 1, (2, 0)))
        self.layers = nn.ModuleList([weight_norm(layer) for layer in layers])
        self.last = weight_norm(nn.Conv2d(256, 1, (3, 1), 1, (1, 0)))

    def forward(self, x):
        x = F.pad(x, (0, -x.shape[-1] % self.period)).view(len(x), 1, -1, self.period)
        features = []
        for layer in self.layers:
            x = F.leaky_relu(layer(x), 0.1)
            features.append(x)
        return self.last(x), features


class SpectrumJudge(nn.Module):
    """Sees the complex spectrum of one window length."""

    def __init__(self, n_fft, width=32):
        super().__init__()
        self.n_fft = n_fft
        self.register_buffer("window", torch.hann_window(n_fft))
        layers = [nn.Conv2d(2, width, (3, 9), 1, (1, 4))]
        layers += [nn.Conv2d(width, width, (3, 9), (1, 2), (d, 4), (d, 1)) for d in (1, 2, 4)]
        layers.append(nn.Conv2d(width, width, (3, 3), 1, (1, 1)))
        self.layers = nn.ModuleList([weight_norm(layer) for layer in layers])
        self.last = weight_norm(nn.Conv2d(width, 1, (3, 3), 1, (1, 1)))

    def forward(self, x):
        s = torch.stft(x.float(), self.n_fft, self.n_fft // 4, window=self.window,
                       return_complex=True) / math.sqrt(self.n_fft * 0.375) * 3
        x = torch.stack([s.real, s.imag], 1).transpose(2, 3)
        features = []
        for layer in self.layers:
            x = F.leaky_relu(layer(x), 0.1)
            features.append(x)
        return self.last(x), features


class Judges(nn.Module):
    def __init__(self):
        super().__init__()
        self.all = nn.ModuleList([PeriodJudge(p) for p in (2, 3, 5, 7, 11)]
                                 + [SpectrumJudge(n) for n in (2048, 1024, 512)])

    def forward(self, x):
        return [judge(x) for judge in self.all]


def judge_loss(verdicts):
    """Least squares; each verdict holds the true sounds first, the made ones second."""
    loss = 0
    for score, _ in verdicts:
        true, made = score.float().chunk(2)
        loss = loss + ((1 - true) ** 2).mean() + (made ** 2).mean()
    return loss


def maker_loss(verdicts):
    """(what fools the judges, how far the made sounds' features are from the true ones')"""
    adversarial = matching = 0
    for score, features in verdicts:
        adversarial = adversarial + ((1 - score.float().chunk(2)[1]) ** 2).mean()
        for feature in features:
            true, made = feature.float().chunk(2)
            matching = matching + (true.detach() - made).abs().mean()
    return adversarial, matching
