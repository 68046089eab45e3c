"""The codec that turns the teacher's voice into codes: log-mels, encoder, residual quantiser.

It exists in training alone.  Eight mel frames (80 ms) make one latent vector of 48 numbers, which
eight codebooks of 512 entries describe in turn, each what the ones before it left over."""

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

from common import CODES, DEVICE, GROUPS, HOP, RATE

MELS, STACK, LATENT = 96, 8, 48
MEL_HOP = HOP // STACK


def mel_bank(n_fft, bands, low=0.0, high=RATE / 2, rate=RATE):
    """Triangles on the mel scale, [bands, n_fft / 2 + 1]."""
    def to_mel(f):
        return 2595 * np.log10(1 + f / 700)

    edges = 700 * (10 ** (np.linspace(to_mel(low), to_mel(high), bands + 2) / 2595) - 1)
    bins = np.linspace(0, rate / 2, n_fft // 2 + 1)
    rise = (bins - edges[:-2, None]) / np.diff(edges)[:-1, None]
    fall = (edges[2:, None] - bins) / np.diff(edges)[1:, None]
    bank = np.maximum(0, np.minimum(rise, fall))
    return torch.tensor(bank, dtype=torch.float32, device=DEVICE)


class LogMel:
    """Log-mels whose frame j is centred on its own 240 samples: [batch, n] -> [batch, n/240, 96]."""

    def __init__(self):
        self.bank = mel_bank(1024, MELS, 40)
        self.window = torch.hann_window(720, device=DEVICE)

    def __call__(self, x):
        x = F.pad(x, (392, 392))
        s = torch.stft(x, 1024, MEL_HOP, 720, self.window, center=False, return_complex=True)
        return torch.log(self.bank @ (s.abs() / 360) + 1e-4).transpose(1, 2)

    def stacked(self, samples, block=400 * HOP):
        """Log-mels of one long int16 tensor, eight frames a row: [frames, 8 * 96]."""
        parts = [self(samples[i:i + block][None].float() / 32768)[0]
                 for i in range(0, len(samples), block)]  # the edges of blocks do not matter
        return torch.cat(parts).view(-1, STACK * MELS)


class Residual(nn.Module):
    def __init__(self, width, causal):
        super().__init__()
        self.conv, self.point = nn.Conv1d(width, width, 3), nn.Conv1d(width, width, 1)
        self.pad = (2, 0) if causal else (1, 1)

    def forward(self, x):
        y = F.layer_norm(x.transpose(1, 2), x.shape[1:2]).transpose(1, 2)
        return x + self.point(F.gelu(self.conv(F.pad(y, self.pad))))


class AutoEncoder(nn.Module):
    def __init__(self, width=512):
        super().__init__()
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("deviation", torch.ones(()))
        self.into = nn.Linear(STACK * MELS, width)
        self.encoder = nn.Sequential(*[Residual(width, False) for _ in range(3)])
        self.out = nn.Linear(width, LATENT)
        self.back = nn.Linear(LATENT, width)
        self.decoder = nn.Sequential(*[Residual(width, True) for _ in range(4)])
        self.final = nn.Linear(width, STACK * MELS)

    def encode(self, mel):
        x = self.into((mel - self.mean) / self.deviation).transpose(1, 2)
        return self.out(self.encoder(x).transpose(1, 2))

    def decode(self, z):
        x = self.decoder(self.back(z).transpose(1, 2)).transpose(1, 2)
        return self.final(x) * self.deviation + self.mean


def nearest(x, book):
    return ((book ** 2).sum(-1) - 2 * x @ book.t()).argmin(-1)


class Quantiser(nn.Module):
    """Codebooks kept as running means of what falls to each entry; unused entries are re-seeded."""

    def __init__(self, decay=0.98):
        super().__init__()
        self.decay = decay
        self.register_buffer("books", torch.zeros(GROUPS, CODES, LATENT))
        self.register_buffer("counts", torch.ones(GROUPS, CODES))
        self.register_buffer("sums", torch.zeros(GROUPS, CODES, LATENT))

    def forward(self, z, books=GROUPS):
        """(straight-through latent, indices [..., books], commitment loss)"""
        flat = z.reshape(-1, LATENT).float()
        rest, found, commitment = flat, [], 0.0
        for q in range(books):
            index = nearest(rest.detach(), self.books[q])
            entry = self.books[q][index]
            found.append(index)
            if self.training:
                self.update(q, index, rest.detach())
                commitment = commitment + F.mse_loss(rest, entry)
            rest = rest - entry
        quantised = flat + (flat - rest - flat).detach()
        return quantised.view_as(z), torch.stack(found, -1).view(*z.shape[:-1], books), commitment

    @torch.no_grad()
    def update(self, q, index, rest):
        gain = 1 - self.decay
        ones = torch.full((len(index),), gain, device=rest.device)
        self.counts[q].mul_(self.decay).index_add_(0, index, ones)
        self.sums[q].mul_(self.decay).index_add_(0, index, rest * gain)
        self.books[q] = self.sums[q] / (self.counts[q] + 1e-6)[:, None]

    @torch.no_grad()
    def revive(self, rest, q):
        dead = (self.counts[q] < 0.03)[:, None]
        seeds = rest[torch.randint(0, len(rest), (CODES,), device=rest.device)]
        self.books[q] = torch.where(dead, seeds, self.books[q])
        self.sums[q] = torch.where(dead, seeds * 0.5, self.sums[q])
        self.counts[q] = torch.where(dead[:, 0], 0.5, self.counts[q])

    @torch.no_grad()
    def revive_all(self, z):
        rest = z.reshape(-1, LATENT).float()
        for q in range(GROUPS):
            self.revive(rest, q)
            rest = rest - self.books[q][nearest(rest, self.books[q])]

    @torch.no_grad()
    def start_from(self, points, rounds=8):
        """k-means of the residuals, book after book."""
        rest = points
        for q in range(GROUPS):
            book = rest[torch.randperm(len(rest), device=rest.device)[:CODES]].clone()
            for _ in range(rounds):
                counts, sums = self.totals(rest, nearest(rest, book))
                seeds = rest[torch.randint(0, len(rest), (CODES,), device=rest.device)]
                book = torch.where(counts[:, None] > 0, sums / counts.clamp(min=1)[:, None], seeds)
            index = nearest(rest, book)
            counts, _ = self.totals(rest, index)
            self.books[q] = book
            self.counts[q] = counts / len(index) * 2048
            self.sums[q] = book * self.counts[q][:, None]
            rest = rest - book[index]

    @staticmethod
    def totals(rest, index):
        counts = torch.zeros(CODES, device=rest.device)
        counts.index_add_(0, index, torch.ones(len(index), device=rest.device))
        sums = torch.zeros(CODES, LATENT, device=rest.device).index_add_(0, index, rest)
        return counts, sums


@torch.no_grad()
def encode_all(model, quantiser, mels, block=2000, edge=8):
    """Codes [frames, groups] of all frames; clips end in silence, so they are run as one stream."""
    codes = torch.zeros(len(mels), GROUPS, dtype=torch.long, device=mels.device)
    for a in range(0, len(mels), block):
        left, right = max(0, a - edge), min(len(mels), a + block + edge)
        found = quantiser(model.encode(mels[left:right][None]))[1][0]
        codes[a:a + block] = found[a - left:a - left + block]
    return codes
