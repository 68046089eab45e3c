"""Connectionist temporal classification that a CUDA graph can hold (torch's own reads lengths back
to the host).  Used in training alone: it teaches the audio encoder where the words are."""

import torch

from common import ON_GPU

NONE = -1e4  # log of nothing, finite so that differences stay numbers


def _forward_step(a, emission, skip, active):
    """One step of the forward recursion over [batch, states]."""
    one = torch.cat([torch.full_like(a[:, :1], NONE), a[:, :-1]], 1)
    two = torch.cat([torch.full_like(a[:, :2], NONE), a[:, :-2]], 1) + skip
    top = torch.maximum(torch.maximum(a, one), two)
    new = top + torch.log(torch.exp(a - top) + torch.exp(one - top) + torch.exp(two - top))
    return torch.where(active, (new + emission).clamp(min=NONE), a)


def _backward_step(b, emission, skip, active):
    """The same from the end: b holds the log weight of what follows each state."""
    b = b + emission
    one = torch.cat([b[:, 1:], torch.full_like(b[:, :1], NONE)], 1)
    two = torch.cat([(b + skip)[:, 2:], torch.full_like(b[:, :2], NONE)], 1)
    top = torch.maximum(torch.maximum(b, one), two)
    new = top + torch.log(torch.exp(b - top) + torch.exp(one - top) + torch.exp(two - top))
    return torch.where(active, new.clamp(min=NONE), b - emission)


if ON_GPU:
    _forward_step = torch.compile(_forward_step, dynamic=False)
    _backward_step = torch.compile(_backward_step, dynamic=False)


class _Ctc(torch.autograd.Function):
    """Negative log likelihood [batch] of emissions [batch, time, states]."""

    @staticmethod
    def forward(ctx, emissions, skip, times, last):
        batch, length, states = emissions.shape
        order = torch.arange(states, device=emissions.device)
        alphas = [torch.where(order < 2, emissions[:, 0], NONE)]
        for t in range(1, length):
            active = (times > t)[:, None]
            alphas.append(_forward_step(alphas[-1], emissions[:, t].contiguous(), skip, active))
        ends = (order == last[:, None]) | (order == last[:, None] - 1)
        total = torch.where(ends, alphas[-1], NONE).logsumexp(1)
        ctx.save_for_backward(emissions, torch.stack(alphas, 1), skip, times, ends, total)
        return -total

    @staticmethod
    def backward(ctx, gradient):
        emissions, alphas, skip, times, ends, total = ctx.saved_tensors
        length = emissions.shape[1]
        b = torch.where(ends, 0.0, NONE)
        betas = [b]
        for t in range(length - 1, 0, -1):
            active = (times > t)[:, None]
            betas.append(_backward_step(betas[-1], emissions[:, t].contiguous(), skip, active))
        betas = torch.stack(betas[::-1], 1)
        share = torch.exp(alphas + betas - total[:, None, None])
        running = torch.arange(length, device=times.device) < times[:, None]
        possible = (total > NONE / 2)[:, None, None]
        share = torch.where(running[..., None] & possible, share, 0.0)
        return -share * gradient[:, None, None], None, None, None


def ctc_loss(log_probs, targets, times, counts):
    """Loss [batch]; zero where the target does not fit.  The last class is the blank.

    log_probs [batch, time, classes], targets [batch, n], times and counts [batch]."""
    batch, n = targets.shape
    blank = log_probs.shape[-1] - 1
    states = torch.full((batch, 2 * n + 1), blank, device=targets.device, dtype=torch.long)
    states[:, 1::2] = targets
    repeated = torch.ones_like(states, dtype=torch.bool)
    repeated[:, 2:] = states[:, 2:] == states[:, :-2]
    skip = torch.where(repeated | (states == blank), NONE, 0.0)
    emissions = log_probs.gather(2, states[:, None].expand(-1, log_probs.shape[1], -1))
    loss = _Ctc.apply(emissions, skip, times, 2 * counts)
    return torch.where((loss < -NONE / 2) & (times > 0) & (counts > 0), loss, 0.0)
