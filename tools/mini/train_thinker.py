#!/usr/bin/env python3
"""Stage D of parley-mini: audio encoder and Thinker, from spoken questions to the answers' text.

usage: train_thinker.py DATA OUT TOKENIZER [--seconds 600] [--resume THINKER]

Reads DATA/questions.i16 and .jsonl; writes OUT/thinker.pt.

First every clip is heard in several disguises (augment.py), whose log-mels stay on the GPU.  The
loss is on the answers alone.  Two helps, of which nothing is left in the model's files: in the
first part of the time the encoder also has to write down what it hears (CTC), and a share of the
dialogues asks for the question itself ("transcribe")."""

import argparse
import collections
import time

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

import augment
from common import (DEVICE, ON_GPU, Adam, Clock, Reporter, autocast, graphed, halves, held_out,
                    pace, read_clips, save, setup)
from config import ENCODER
from ctc import ctc_loss
from layers import CHUNK
from packing import SLOTS, Batches, Packer, Prompt, Shape
from thinker import Thinker
from train_talker import load_tokenizer
from whisper_mel import WhisperMel, chunked

LONGEST = SLOTS * CHUNK * 160 - 160   # samples: one attention window
BALANCE, CTC_WEIGHT, CTC_PART = 0.01, 0.5, 0.35


# ------------------------------------------------------------------------------------------------
# Data
# ------------------------------------------------------------------------------------------------

def group_dialogues(clips):
    """Lists of clip numbers of each dialogue, in order: (for training, held out)."""
    found = collections.defaultdict(list)
    for i, clip in enumerate(clips):
        found[clip["dialogue"]].append((clip["turn"], i))
    train, held = [], []
    for name, turns in found.items():
        turns = [i for _, i in sorted(turns)]
        (held if held_out(str(name), 100) else train).append(turns)
    return train, held


def place(waves, lengths):
    """Silence of random length before and after each clip."""
    n, longest = len(waves), torch.full_like(lengths, LONGEST)
    lead, trail = (torch.rand(2, n, device=DEVICE) * torch.tensor([[0.5], [0.9]], device=DEVICE)
                   * (torch.rand(2, n, device=DEVICE) < 0.8) * 16000).long()
    total = torch.minimum(lead + lengths + trail, longest)
    at = torch.arange(int(total.max()), device=DEVICE) - lead[:, None]
    inside = (at >= 0) & (at < lengths[:, None])
    waves = waves.gather(1, at.clamp(0, waves.shape[1] - 1))
    return torch.where(inside, waves, 0.0), total


class Bank:
    """Log-mel chunks [n, 128, 100] of every clip in several disguises; variant 0 has none."""

    def __init__(self, samples, clips, variants, block=512):
        self.samples = torch.from_numpy(samples).to(DEVICE)
        self.offsets = torch.tensor([c["offset"] for c in clips], device=DEVICE)
        self.lengths = torch.tensor([c["samples"] for c in clips], device=DEVICE)
        self.lengths = self.lengths.clamp(max=LONGEST - 1600)
        self.mel, self.parts, self.total = WhisperMel(), [], 0
        self.first = np.zeros((variants, len(clips)), np.int64)
        self.frames = np.zeros((variants, len(clips)), np.int64)
        order = torch.argsort(self.lengths)
        for variant in range(variants):
            for i in range(0, len(order), block):
                self.add(variant, order[i:i + block])
        self.chunks = torch.cat(self.parts)
        del self.parts, self.samples

    @torch.no_grad()
    def add(self, variant, index):
        lengths = self.lengths[index]
        at = torch.arange(int(lengths.max()), device=DEVICE)
        source = (self.offsets[index][:, None] + at).clamp(max=len(self.samples) - 1)
        waves = self.samples[source].float() / 32768
        waves = torch.where(at < lengths[:, None], waves, 0.0)
        if variant:
            waves, lengths = augment.augment(*place(waves, lengths))
        waves = F.pad(waves, (0, max(0, 640 - waves.shape[1])))
        waves = (waves * 32768).round().clamp(-32768, 32767) / 32768
        mels, frames = self.mel(waves, lengths)
        chunks = chunked(mels).half()
        counts = -(-frames // CHUNK)
        used = torch.arange(chunks.shape[1], device=DEVICE) < counts[:, None]
        self.parts.append(chunks[used])
        first = (torch.cumsum(counts, 0) - counts).cpu().numpy() + self.total
        self.first[variant, index.cpu().numpy()] = first
        self.frames[variant, index.cpu().numpy()] = frames.cpu().numpy()
        self.total += int(counts.sum())


def masks_of(batch):
    """Attention masks (encoder, Thinker) of a batch: the same audio, the same dialogue."""
    within = torch.arange(13, device=DEVICE) < batch["chunk_tokens"][:, None]
    owner = torch.where(within, batch["chunk_audio"][:, None], -1).view(-1, SLOTS * 13)
    heard = (owner[:, :, None] == owner[:, None]) & (owner >= 0)[:, None]
    heard = heard | torch.eye(owner.shape[1], dtype=torch.bool, device=DEVICE)
    document = batch["document"]
    order = torch.arange(document.shape[1], device=DEVICE)
    said = (document[:, :, None] == document[:, None]) & (order[:, None] >= order)
    return heard[:, None], said[:, None]


def hide(chunks):
    """Bands and moments at random are blanked: no single cue may carry a word."""
    n = len(chunks)

    def span(size, widest, share):
        width = torch.rand(n, 1, device=DEVICE) * widest * (torch.rand(n, 1, device=DEVICE) < share)
        begin = torch.rand(n, 1, device=DEVICE) * (size - width)
        at = torch.arange(size, device=DEVICE)
        return (at >= begin) & (at < begin + width)

    bands, moments = span(chunks.shape[1], 20, 0.3), span(chunks.shape[2], 10, 0.3)
    return chunks.masked_fill(bands[:, :, None] | moments[:, None], 0.0)


# ------------------------------------------------------------------------------------------------
# Training
# ------------------------------------------------------------------------------------------------

class Training:
    def __init__(self, thinker, bank, rate):
        self.thinker, self.bank = thinker, bank
        vocab = thinker.lm_head.out_features
        self.writer = nn.Linear(ENCODER["hidden"], vocab + 1).to(DEVICE)  # of the CTC help
        both = nn.ModuleList([thinker, self.writer])
        self.adam = Adam(both, rate, average=0.999)
        self.log = torch.zeros(4, device=DEVICE)
        self.batch = self.source = None

    def use(self, source):
        self.source = source
        self.batch = {k: v.to(DEVICE) for k, v in next(source).items()}

    def feed(self):
        for name, value in next(self.source).items():
            self.batch[name].copy_(value, non_blocking=True)

    def encode(self, batch, hidden):
        heard, _ = masks_of(batch)
        chunks = self.bank.chunks[batch["chunks"]].float()
        chunks = hide(chunks) if hidden else chunks
        return self.thinker.audio_tower(chunks, heard.shape[0], heard)

    def answer_logits(self, batch, audio):
        _, said = masks_of(batch)
        states = self.thinker(batch["ids"], audio, batch["source"], batch["positions"], said)
        return self.thinker.lm_head(states)

    def writing_loss(self, features):
        heard = features.flatten(0, 1)[self.batch["heard"]]
        log_probs = self.writer(heard).float().log_softmax(-1)
        loss = ctc_loss(log_probs, self.batch["targets"], self.batch["times"],
                        self.batch["counts"])
        return loss.sum() / self.batch["counts"].sum().clamp(min=1)

    def step(self, writing):
        with autocast():
            audio, features = self.encode(self.batch, True)
            logits = self.answer_logits(self.batch, audio)
            written = self.writing_loss(features) if writing else torch.zeros((), device=DEVICE)
        answer = F.cross_entropy(logits.float().flatten(0, 1), self.batch["labels"].flatten(),
                                 ignore_index=-100)
        balance = self.thinker.model.balance()
        self.adam.step(answer + CTC_WEIGHT * written + BALANCE * balance)
        for i, value in enumerate((answer, written, balance)):
            self.log[i] = value.detach()

    @torch.no_grad()
    def right(self, batch, turns):
        """Of each answer, whether every token of it is the likeliest one."""
        batch = {k: torch.from_numpy(v).to(DEVICE) for k, v in batch.items()}
        with autocast():
            audio, _ = self.encode(batch, False)
            best = self.answer_logits(batch, audio).argmax(-1)
        wrong = ((best != batch["labels"]) & (batch["labels"] >= 0)).cpu().numpy()
        return [not wrong[row, a:b].any() for row, a, b, _ in turns]


class HeldOut:
    """Whole answers right, by skill, on dialogues that training never sees."""

    def __init__(self, packer, dialogues, clips, variants):
        self.clips, self.batches = clips, {}
        for name, variant in (("clean", 0), ("disguised", variants - 1)):
            queue, made = list(dialogues), []
            while queue and len(made) < 3:
                packer.begin()
                while queue and packer.add([(variant, c) for c in queue[0]]):
                    queue.pop(0)
                if not packer.turns:
                    queue.pop(0)    # too long for a row
                    continue
                made.append((packer.batch, packer.turns))
            self.batches[name] = made

    def measure(self, training):
        training.thinker.eval()
        lines = []
        with training.adam.averaged():
            for name, batches in self.batches.items():
                lines.append(f"{name} {self.score(training, batches)}")
        training.thinker.train()
        return "; ".join(lines)

    def score(self, training, batches):
        hits, totals = collections.Counter(), collections.Counter()
        for batch, turns in batches:
            for (_, _, _, clip), right in zip(turns, training.right(batch, turns)):
                for skill in (self.clips[clip]["skill"], "all"):
                    totals[skill] += 1
                    hits[skill] += right
        order = sorted(totals, key=lambda s: (s != "all", s))
        return " ".join(f"{s} {100 * hits[s] / totals[s]:.0f}" for s in order)


def train(training, clock, held, keep):
    report, kept = Reporter("thinker", 30), 0.0
    for writing, until in ((True, CTC_PART), (False, 1.0)):
        if clock.fraction() >= until:
            continue
        training.adam.set_rate(clock.rate())
        run = graphed(lambda writing=writing: training.step(writing), training.feed)
        while clock.fraction() < until:
            training.adam.set_rate(clock.rate())
            training.feed()
            run()
            clock.step += 1
            pace(clock.step)
            if report.due():
                answer, written, balance, _ = training.log.tolist()
                report.say(clock.step, f"answer {answer:.3f} writing {written:.3f} "
                           f"balance {balance:.3f} | {held.measure(training)}")
            if clock.elapsed() - kept > 120:
                kept = clock.elapsed()
                keep()


def usable(clips, tokenizer):
    """Clips with their tokens; names as packing.py wants them."""
    questions = [e.ids for e in tokenizer.encode_batch([c["text"] for c in clips])]
    answers = [e.ids for e in tokenizer.encode_batch([c["answer"] for c in clips])]
    return questions, answers


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data")
    parser.add_argument("out")
    parser.add_argument("tokenizer")
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--variants", type=int, default=8)
    parser.add_argument("--workers", type=int, default=6)
    parser.add_argument("--transcribe", type=float, default=0.15)
    parser.add_argument("--dropout", type=float, default=0.05)
    parser.add_argument("--shape", default="96,44,384,320", help="sizes of a batch")
    parser.add_argument("--resume", help="thinker.pt of an earlier run")
    args = parser.parse_args()
    setup(3)
    tokenizer = load_tokenizer(args.tokenizer)
    samples, clips = read_clips(args.data, "questions")
    questions, answers = usable(clips, tokenizer)
    train_dialogues, held_dialogues = group_dialogues(clips)
    print(f"thinker: {len(clips)} clips, {len(samples) / 16000 / 3600:.1f} h, "
          f"{len(train_dialogues)} dialogues, {len(held_dialogues)} held out, longest question "
          f"{max(map(len, questions))} tokens", flush=True)
    began = time.time()
    bank = Bank(samples, clips, args.variants)
    print(f"thinker: {len(bank.chunks)} chunks in {time.time() - began:.0f} s", flush=True)

    shape = Shape(*map(int, args.shape.split(",")))
    packer = Packer(Prompt(tokenizer), shape, bank.first, bank.frames, questions, answers)
    batches = Batches(packer, train_dialogues, args.variants, args.transcribe)
    held = HeldOut(packer, held_dialogues, clips, args.variants)
    loader = torch.utils.data.DataLoader(
        batches, batch_size=None, num_workers=args.workers, pin_memory=ON_GPU,
        prefetch_factor=8 if args.workers else None)

    thinker = Thinker(tokenizer.get_vocab_size(), args.dropout).to(DEVICE)
    if args.resume:
        state = torch.load(args.resume, map_location=DEVICE)["model"]
        thinker.load_state_dict({k: v.float() for k, v in state.items()})
    print(f"thinker: {sum(p.numel() for p in thinker.parameters()) / 1e6:.2f} M", flush=True)
    training = Training(thinker, bank, args.rate)
    training.use(iter(loader))
    clock = Clock(args.seconds, warmup=400)
    if args.resume:
        clock.start -= CTC_PART * args.seconds  # no CTC: its head is not kept
        clock.budget += CTC_PART * args.seconds

    def keep():
        with training.adam.averaged():
            save({"model": halves(thinker.state_dict()), "step": clock.step},
                 f"{args.out}/thinker.pt")

    train(training, clock, held, keep)
    keep()
    print(f"thinker: done, {clock.step} steps; {held.measure(training)}", flush=True)
    save({}, f"{args.out}/thinker.done")


if __name__ == "__main__":
    main()
