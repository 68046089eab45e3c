#!/usr/bin/env python3
"""Stage A of parley-mini: codes from the log-mels of the teacher's clips.

usage: train_codec.py DATA OUT [--seconds 50] [--use CODEC]

Reads DATA/teacher.i16 and .jsonl; writes OUT/codes.pt (codes, samples cut to whole frames) and
OUT/codec.pt (the codec itself).  With --use the codec of an earlier run is taken as it is."""

import argparse
import random

import numpy as np
import torch
import torch.nn as nn

from codec import AutoEncoder, LogMel, Quantiser, encode_all
from common import (CODES, DEVICE, GROUPS, HOP, Clock, Reporter, halves, held_out, read_clips,
                    save, setup)

WINDOW, PLAIN_STEPS = 32, 500  # frames of a training crop; steps before the quantiser comes in


def whole_frames(samples, clips):
    """Clips joined, each ending on a whole frame and one spare: Code2Wav gives 555 samples less."""
    parts, starts = [], [0]
    for clip in clips:
        x = samples[clip["offset"]:clip["offset"] + clip["samples"]]
        x = np.pad(x, (0, -len(x) % HOP + HOP))
        parts.append(x)
        starts.append(starts[-1] + len(x) // HOP)
    return np.concatenate(parts), np.array(starts)


def learning_rate(clock, optimizer):
    for group in optimizer.param_groups:
        group["lr"] = 1e-3 * clock.rate()


def train(model, quantiser, mels, clock, batch, plain_steps):
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, betas=(0.9, 0.98), weight_decay=0.01)
    report = Reporter("codec", 10)
    crop = torch.arange(WINDOW, device=DEVICE)
    while clock.fraction() < 1:
        learning_rate(clock, optimizer)
        at = torch.randint(0, len(mels) - WINDOW, (batch, 1), device=DEVICE)
        target = mels[at + crop]
        z = model.encode(target)
        commitment = torch.zeros((), device=DEVICE)
        if clock.step == plain_steps:
            with torch.no_grad():
                blocks = torch.randint(0, len(mels) - WINDOW, (1200, 1), device=DEVICE) + crop
                quantiser.start_from(model.encode(mels[blocks]).reshape(-1, z.shape[-1]).float())
        if clock.step >= plain_steps:
            books = GROUPS if random.random() < 0.6 else random.randint(1, GROUPS)
            latent = z.detach()
            z, _, commitment = quantiser(z, books)
            if clock.step % 20 == 0:
                quantiser.revive_all(latent)
        loss = (model.decode(z) - target).abs().mean()
        (loss + 0.25 * commitment).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        clock.step += 1
        if report.due():
            report.say(clock.step, f"mel {loss.item():.3f} commitment {commitment.item():.3f} "
                       f"entries {(quantiser.counts > 0.05).sum(1).tolist()}")


@torch.no_grad()
def held_out_error(model, quantiser, mels, starts, indices):
    """Mel L1 of clips by the number of codebooks; 0: without the quantiser."""
    errors = {}
    for books in (1, 2, 4, GROUPS, 0):
        total = []
        for i in indices:
            mel = mels[starts[i]:starts[i + 1]]
            z = model.encode(mel[None])
            z = quantiser(z, books)[0] if books else z
            total.append((model.decode(z) - mel).abs().mean())
        errors[books] = round(torch.stack(total).mean().item(), 4)
    return errors


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data")
    parser.add_argument("out")
    parser.add_argument("--seconds", type=float, default=50)
    parser.add_argument("--use", help="codec.pt of an earlier run")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--plain-steps", type=int, default=PLAIN_STEPS)
    args = parser.parse_args()
    setup(0)
    random.seed(0)
    samples, clips = read_clips(args.data, "teacher")
    clips.sort(key=lambda c: held_out(c["text"]))  # the held-out clips come last
    samples, starts = whole_frames(samples, clips)
    train_count = sum(not held_out(c["text"]) for c in clips)
    audio = torch.from_numpy(samples).to(DEVICE)
    mels = LogMel().stacked(audio)
    print(f"codec: {len(clips)} clips, {len(audio) / 24000 / 3600:.2f} h, "
          f"{len(clips) - train_count} held out", flush=True)

    model, quantiser = AutoEncoder().to(DEVICE), Quantiser().to(DEVICE)
    train_mels = mels[:starts[train_count]]
    if args.use:
        state = torch.load(args.use, map_location=DEVICE)
        model.load_state_dict({k: v.float() for k, v in state["model"].items()})
        quantiser.load_state_dict(state["quantiser"])
    else:
        model.mean.copy_(train_mels.mean())
        model.deviation.copy_(train_mels.std())
        train(model, quantiser, train_mels, Clock(args.seconds), args.batch, args.plain_steps)
    model.eval()
    quantiser.eval()
    codes = encode_all(model, quantiser, mels)
    indices = range(train_count, min(len(clips), train_count + 40))
    print("codec: held-out mel L1 by codebooks",
          held_out_error(model, quantiser, mels, starts, indices), flush=True)
    used = [torch.bincount(codes[:, q], minlength=CODES).float() for q in range(GROUPS)]
    bits = [float(torch.special.entr(u / u.sum()).sum() / np.log(2)) for u in used]
    print("codec: entropy of the codes in bits", [round(b, 1) for b in bits], flush=True)
    scale = quantiser(model.encode(mels[None, :2000]))[0].std().item()
    save({"model": halves(model.state_dict()), "scale": scale,
          "quantiser": {"books": quantiser.books, "counts": quantiser.counts,
                        "sums": quantiser.sums}},
         f"{args.out}/codec.pt")
    save({"codes": codes.to(torch.int16).cpu(), "starts": starts, "train": train_count,
          "texts": [c["text"] for c in clips], "audio": audio.cpu()}, f"{args.out}/codes.pt")


if __name__ == "__main__":
    main()
