#!/usr/bin/env python3
"""Stage B of parley-mini: the reference's Code2Wav as a vocoder on the codes of stage A.

usage: train_vocoder.py OUT [--seconds 450] [--resume CODE2WAV]

Reads OUT/codes.pt and OUT/codec.pt; writes OUT/code2wav.pt, and held-out clips as the teacher
says them (OUT/teacher.wav) and as the codec gives them back (OUT/codec.wav).  With --resume the
weights start from an earlier run, and the adversarial phase starts at once."""

import argparse
import math
import os
import wave

import numpy as np
import torch
import torch.nn as nn

from codec import LATENT, LogMel, mel_bank
from common import (CODES, DEVICE, GROUPS, HOP, ON_GPU, RATE, Adam, Clock, Reporter, autocast,
                    graphed, halves, pace, save, setup, wait_for)
from config import CODE2WAV
from discriminators import Judges, judge_loss, maker_loss

CONTEXT, WINDOW, LEAD = 32, 10, 2  # frames the transformer sees, are decoded, and warm it up
SEGMENT = 14336                    # samples compared
PLAIN = 0.1                        # part of the time without judges
MEL_WEIGHT = 15
RESOLUTIONS = [(128, 12), (256, 24), (512, 48), (1024, 80), (2048, 140)]


def fast_snake():
    """One compiled kernel in place of the reference's five: the activation takes most time."""
    from transformers.models.qwen3_omni_moe import modeling_qwen3_omni_moe as reference

    def snake(x, alpha, beta):
        wide = x.float()
        gain = 1 / (torch.exp(beta)[:, None] + 1e-9)
        return (wide + torch.sin(wide * torch.exp(alpha)[:, None]).square() * gain).to(x.dtype)

    if ON_GPU:
        torch._dynamo.config.force_parameter_static_shapes = False
        torch._dynamo.config.recompile_limit = 64
        snake = torch.compile(snake, dynamic=True)
    reference.Qwen3OmniMoeSnakeBeta.forward = lambda self, x: snake(x, self.alpha, self.beta)


def make_code2wav(sizes):
    from transformers.models.qwen3_omni_moe import modeling_qwen3_omni_moe as reference
    from transformers.models.qwen3_omni_moe.configuration_qwen3_omni_moe import (
        Qwen3OmniMoeCode2WavConfig)

    config = Qwen3OmniMoeCode2WavConfig(**sizes)
    config._attn_implementation = "sdpa"
    return reference.Qwen3OmniMoeCode2Wav(config).to(DEVICE)


@torch.no_grad()
def first_values(model, codec):
    """The reference's own initial values are far too small to train from."""
    width = model.config.hidden_size
    books = codec["quantiser"]["books"].to(DEVICE).reshape(-1, LATENT)
    spread = torch.linalg.qr(torch.randn(width, LATENT, device=DEVICE))[0].t()
    scale = math.sqrt(width / LATENT) / codec["scale"]
    model.code_embedding.weight.copy_(GROUPS * books @ spread * scale)
    for m in model.decoder.modules():
        if isinstance(m, (nn.Conv1d, nn.ConvTranspose1d)):
            m.reset_parameters()
        if isinstance(m, nn.ConvTranspose1d):
            m.weight.mul_(math.sqrt(1.5 * m.stride[0]))
    for transposed, block in model.upsample:
        transposed.conv.reset_parameters()
        transposed.conv.weight.mul_(math.sqrt(3))
        block.gamma.fill_(0.3)


def window_mask(length, window):
    i = torch.arange(length, device=DEVICE)
    return ((i[:, None] >= i) & (i[:, None] - i < window))[None, None]


class Maker:
    """Code2Wav in two halves: frames to 50 Hz features over a context, then a part to samples."""

    def __init__(self, model):
        self.model = model
        self.window = model.config.sliding_window
        self.offsets = torch.arange(GROUPS, device=DEVICE) * CODES

    def features(self, codes):
        """[batch, frames, groups] -> [batch, width, 4 * frames]"""
        transformer = self.model.pre_transformer
        h = self.model.code_embedding(codes + self.offsets).mean(2)
        positions = torch.arange(h.shape[1], device=DEVICE)[None]
        tables = transformer.rotary_emb(h, positions)
        mask = window_mask(h.shape[1], self.window)
        for layer in transformer.layers:
            h = layer(h, attention_mask=mask, position_ids=positions, position_embeddings=tables)
            h = h[0] if isinstance(h, tuple) else h
        h = transformer.norm(h).permute(0, 2, 1)
        for stage in self.model.upsample:
            for block in stage:
                h = block(h)
        return h

    def samples(self, h):
        for block in self.model.decoder:
            h = block(h)
        return h[:, 0]

    @torch.no_grad()
    def decode(self, codes):
        return self.samples(self.features(codes[None].to(DEVICE)))[0].float()


class Crops:
    """Random pieces of the training clips; the inputs of the graph, refilled before each step."""

    def __init__(self, data, batch):
        self.codes = data["codes"].long().to(DEVICE)
        self.audio = data["audio"].to(DEVICE)
        self.end = int(data["starts"][data["train"]]) - CONTEXT
        starts = torch.as_tensor(data["starts"][:data["train"]])
        self.starts = starts.clamp(max=self.end).to(DEVICE)
        self.at = torch.zeros(batch, dtype=torch.long, device=DEVICE)
        self.skip, self.lead = torch.zeros_like(self.at), torch.zeros_like(self.at)
        # A quarter of the items begin where a clip begins, with nothing before it: without them
        # every reply would open with a click.
        self.opening = torch.arange(batch, device=DEVICE) < max(1, batch // 4)

    def feed(self):
        n = len(self.at)
        clips = self.starts[torch.randint(0, len(self.starts), (n,), device=DEVICE)]
        anywhere = torch.randint(0, self.end, (n,), device=DEVICE)
        skip = torch.randint(0, CONTEXT - WINDOW + 1, (n,), device=DEVICE)
        self.at.copy_(torch.where(self.opening, clips, anywhere))
        self.skip.copy_(torch.where(self.opening, 0, skip))
        self.lead.copy_(torch.where(self.opening, 0, LEAD))

    def make(self, maker):
        """(made, true) samples [batch, SEGMENT]"""
        frames = torch.arange(CONTEXT, device=DEVICE)
        h = maker.features(self.codes[self.at[:, None] + frames]).transpose(1, 2)
        part = 4 * self.skip[:, None] + torch.arange(4 * WINDOW, device=DEVICE)
        h = h[torch.arange(len(part), device=DEVICE)[:, None], part].transpose(1, 2)
        index = torch.arange(SEGMENT, device=DEVICE)
        made = maker.samples(h).float().gather(1, (self.lead * HOP)[:, None] + index)
        begin = (self.at + self.skip + self.lead) * HOP
        return made, self.audio[begin[:, None] + index].float() / 32768


class MelLoss:
    def __init__(self):
        self.parts = [(n, mel_bank(n, bands), torch.hann_window(n, device=DEVICE))
                      for n, bands in RESOLUTIONS]

    def __call__(self, made, true):
        loss = 0
        for n, bank, window in self.parts:
            a, b = (torch.log(bank @ (torch.stft(x, n, n // 4, window=window, return_complex=True)
                                      .abs() / (n / 4)) + 1e-4) for x in (made, true))
            loss = loss + (a - b).abs().mean()
        return loss / len(self.parts)


class Training:
    def __init__(self, maker, crops):
        self.maker, self.crops = maker, crops
        self.judges = Judges().to(DEVICE)
        self.mel = MelLoss()
        kind = dict(betas=(0.8, 0.99), decay=0.01)
        self.making = Adam(maker.model, 6e-4, clip=20.0, average=0.999, **kind)
        self.judging = Adam(self.judges, 3e-4, clip=10.0, **kind)
        self.log = torch.zeros(4, device=DEVICE)

    def set_rate(self, factor):
        self.making.set_rate(factor)
        self.judging.set_rate(0.1 + 0.9 * factor)

    def plain_step(self):
        with autocast():
            made, true = self.crops.make(self.maker)
        mel = self.mel(made, true)
        self.making.step(MEL_WEIGHT * mel)
        self.log[0] = mel.detach()

    def adversarial_step(self):
        with autocast():
            made, true = self.crops.make(self.maker)
            verdicts = self.judges(torch.cat([true, made.detach()]))
        judged = judge_loss(verdicts)
        self.judging.step(judged)
        with autocast():
            verdicts = self.judges(torch.cat([true, made]))
        adversarial, matching = maker_loss(verdicts)
        mel = self.mel(made, true)
        self.making.step(MEL_WEIGHT * mel + adversarial + 2 * matching)
        for i, value in enumerate((mel, judged, adversarial, matching)):
            self.log[i] = value.detach()


def train(training, clock, plain, keep):
    """Both phases; `keep` is called every two minutes to write what there is."""
    report, kept = Reporter("vocoder"), clock.start
    for step, until in ((training.plain_step, plain), (training.adversarial_step, 1.0)):
        if clock.fraction() >= until:
            continue
        training.set_rate(clock.rate())
        run = graphed(step, training.crops.feed)
        while clock.fraction() < until:
            training.set_rate(clock.rate())
            training.crops.feed()
            run()
            clock.step += 1
            pace(clock.step)
            if report.due():
                mel, judged, adversarial, matching = training.log.tolist()
                report.say(clock.step, f"mel {mel:.3f} judges {judged:.3f} "
                           f"adversarial {adversarial:.3f} features {matching:.3f}")
            if clock.elapsed() + clock.start - kept > 120:
                kept = clock.elapsed() + clock.start
                keep()


def write_wave(path, parts):
    gap = torch.zeros(RATE // 2)
    joined = torch.cat([torch.cat([p.float().cpu(), gap]) for p in parts]).clamp(-1, 1)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes((joined.numpy() * 32767).astype(np.int16).tobytes())


@torch.no_grad()
def evaluate(maker, data, out, count=40):
    """Held-out mel L1 (comparable with stage A), and the sounds to listen to."""
    mel = LogMel()
    made, true, errors = [], [], []
    for i in range(data["train"], min(len(data["texts"]), data["train"] + count)):
        a, b = int(data["starts"][i]), int(data["starts"][i + 1])
        y = maker.decode(data["codes"][a:b].long())
        x = data["audio"][a * HOP:b * HOP].to(DEVICE).float()[:len(y)] / 32768
        spare = torch.zeros(b * HOP - a * HOP - len(y), device=DEVICE)
        errors.append((mel(torch.cat([y, spare])[None])
                       - mel(torch.cat([x, spare])[None])).abs().mean())
        made.append(y)
        true.append(x)
    print("vocoder: held-out mel L1", round(torch.stack(errors).mean().item(), 4), flush=True)
    write_wave(f"{out}/teacher.wav", true)
    write_wave(f"{out}/codec.wav", made)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out")
    parser.add_argument("--seconds", type=float, default=450)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--decoder-dim", type=int, default=CODE2WAV["decoder_dim"])
    parser.add_argument("--resume", help="code2wav.pt of an earlier run")
    args = parser.parse_args()
    setup(1)
    os.makedirs(args.out, exist_ok=True)
    data = wait_for(f"{args.out}/codes.pt")
    codec = wait_for(f"{args.out}/codec.pt")
    clock = Clock(args.seconds)
    fast_snake()
    sizes = {**CODE2WAV, "decoder_dim": args.decoder_dim}
    model = make_code2wav(sizes)
    if args.resume:
        state = torch.load(args.resume, map_location=DEVICE)["model"]
        model.load_state_dict({k: v.float() for k, v in state.items()}, strict=False)
    else:
        first_values(model, codec)
    maker = Maker(model)
    training = Training(maker, Crops(data, args.batch))
    print(f"vocoder: {sum(p.numel() for p in model.parameters()) / 1e6:.2f} M", flush=True)

    def keep():
        with training.making.averaged():
            save({"model": halves(model.state_dict()), "sizes": sizes, "step": clock.step},
                 f"{args.out}/code2wav.pt")

    train(training, clock, 0.0 if args.resume else PLAIN, keep)
    keep()
    with training.making.averaged():
        evaluate(maker, data, args.out)
    save({}, f"{args.out}/code2wav.done")
    print(f"vocoder: done, {clock.step} steps in {clock.elapsed():.0f} s", flush=True)


if __name__ == "__main__":
    main()
