#!/usr/bin/env python3
"""Stage D of parley-mini: audio encoder and Thinker, from spoken questions to the answers' text.

usage: train_thinker.py DATA[,DATA...] OUT TOKENIZER [--seconds 600] [--resume THINKER]

Reads DATA/questions.i16 and .jsonl; writes OUT/thinker.pt.  Training begins when the first DATA is
complete; the others join it, in their order, as they become so.

Every clip is heard in several disguises (augment.py), whose log-mels stay on the GPU; each step
disguises those once more (disguise.py), so that no clip is ever heard twice the same.  The loss is on the answers alone.  Two helps, of which nothing is left in the model's files: in the
first part of the time the encoder also has to write down what it hears (CTC), and a share of the
dialogues asks for the question itself ("transcribe")."""

import argparse
import collections
import random
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

import augment
from disguise import disguise
from common import (DEVICE, ON_GPU, Adam, Clock, Reporter, autocast, graphed, halves, held_out,
                    pace, read_clips, save, setup, wait_until)
from config import ENCODER
from ctc import ctc_loss
from layers import CHUNK
from packing import SLOTS, Batches, Packer, Prompt, Shape
from thinker import Thinker
from train_talker import load_tokenizer
from whisper_mel import WhisperMel, chunked

LONGEST = SLOTS * CHUNK * 160 - 160   # samples: one attention window
BALANCE, CTC_WEIGHT, CTC_PART = 0.01, 0.5, 0.35
JOIN_UNTIL = 0.86   # data that come later than this part of the time are left out


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


def stretch(mels, frames, longest, knots=9):
    """Another pace, which also changes on the way; log-mels are interpolated in time."""
    n, width = len(frames), mels.shape[2]
    pace = torch.exp((torch.rand(n, 1, device=DEVICE) - 0.5) * 0.4)
    swing = torch.randn(n, 1, knots, device=DEVICE) * torch.rand(n, 1, 1, device=DEVICE) * 0.22
    swing = F.interpolate(swing, width, mode="linear", align_corners=True)[:, 0]
    steps = torch.where(torch.rand(n, 1, device=DEVICE) < 0.75, pace * torch.exp(swing), 1.0)
    begin = F.pad(steps.cumsum(1), (1, 0))           # where each old frame comes to lie
    new = begin.gather(1, frames[:, None])
    begin = begin * (longest / new).clamp(max=1)
    new = begin.gather(1, frames[:, None])[:, 0].long().clamp(min=1)
    wanted = torch.arange(int(new.max()), device=DEVICE).float().expand(n, -1).contiguous()
    low = (torch.searchsorted(begin, wanted, right=True) - 1).clamp(min=0)
    low = torch.minimum(low, (frames - 1).clamp(min=0)[:, None])
    high = torch.minimum(low + 1, (frames - 1).clamp(min=0)[:, None])
    start, length = begin.gather(1, low), begin.gather(1, low + 1) - begin.gather(1, low)
    part = ((wanted - start) / length).clamp(0, 1)[:, None]
    low, high = (i[:, None].expand(-1, mels.shape[1], -1) for i in (low, high))
    out = mels.gather(2, low) * (1 - part) + mels.gather(2, high) * part
    inside = torch.arange(out.shape[2], device=DEVICE) < new[:, None]
    return torch.where(inside[:, None], out, 0.0), new


class Bank:
    """Log-mel chunks [capacity, 128, 100] of every clip in several disguises; variant 0 has none."""

    def __init__(self, variants, capacity):
        self.variants, self.mel, self.total = variants, WhisperMel(), 0
        self.chunks = torch.zeros(capacity, 128, CHUNK, dtype=torch.float16, device=DEVICE)
        self.first = self.frames = np.zeros((variants, 0), np.int64)

    def add_clips(self, samples, clips, block=512):
        """False if there is no room left for them."""
        samples = torch.from_numpy(samples).to(DEVICE)
        offsets = torch.tensor([c["offset"] for c in clips], device=DEVICE)
        lengths = torch.tensor([c["samples"] for c in clips], device=DEVICE)
        lengths = lengths.clamp(max=LONGEST - 1600)
        first = np.zeros((self.variants, len(clips)), np.int64)
        frames = np.zeros((self.variants, len(clips)), np.int64)
        order, before = torch.argsort(lengths), self.total
        for variant in range(self.variants):
            for i in range(0, len(order), block):
                index = order[i:i + block]
                made = self.hear(samples, offsets[index], lengths[index], variant > 0)
                if not self.put(*made, first[variant], frames[variant], index.cpu().numpy()):
                    self.total = before
                    return False
        self.first = np.concatenate([self.first, first], 1)
        self.frames = np.concatenate([self.frames, frames], 1)
        return True

    @torch.no_grad()
    def hear(self, samples, offsets, lengths, disguised):
        """(log-mels, frames) of some clips."""
        at = torch.arange(int(lengths.max()), device=DEVICE)
        source = (offsets[:, None] + at).clamp(max=len(samples) - 1)
        waves = samples[source].float() / 32768
        waves = torch.where(at < lengths[:, None], waves, 0.0)
        if disguised:
            waves, lengths = augment.augment(*place(waves, lengths), speed=0.17, room=0.55, noise=0.75)
        waves = F.pad(waves, (0, max(0, 640 - waves.shape[1])))
        waves = (waves * 32768).round().clamp(-32768, 32767) / 32768
        mels, frames = self.mel(waves, lengths)
        return stretch(mels, frames, LONGEST // 160) if disguised else (mels, frames)

    def put(self, mels, frames, first, lasting, index):
        """Chunks into the bank; writes down where each clip's begin and its frames."""
        chunks = chunked(mels).half()
        counts = -(-frames // CHUNK)
        used = torch.arange(chunks.shape[1], device=DEVICE) < counts[:, None]
        end = self.total + int(counts.sum())
        if end > len(self.chunks):
            return False
        self.chunks[self.total:end] = chunks[used]
        first[index] = (torch.cumsum(counts, 0) - counts).cpu().numpy() + self.total
        lasting[index] = frames.cpu().numpy()
        self.total = end
        return True


class Corpus:
    """All data that have come so far."""

    def __init__(self, folders, tokenizer, bank, shape, workers):
        self.folders, self.tokenizer, self.bank = list(folders), tokenizer, bank
        self.shape, self.workers, self.prompt = shape, workers, Prompt(tokenizer)
        self.clips, self.questions, self.answers = [], [], []
        self.train, self.held = [], []

    def ready(self):
        return bool(self.folders) and Path(self.folders[0], "questions.jsonl").exists()

    def take(self):
        """The next folder's clips join."""
        began, folder = time.time(), self.folders.pop(0)
        samples, clips = read_clips(folder, "questions")
        if not self.bank.add_clips(samples, clips):
            print(f"thinker: no room for {folder}", flush=True)
            return
        train, held = group_dialogues(clips)
        base = len(self.clips)
        for found, known in ((train, self.train), (held, self.held)):
            known += [[base + i for i in turns] for turns in found]
        questions, answers = usable(clips, self.tokenizer)
        self.clips += clips
        self.questions += questions
        self.answers += answers
        print(f"thinker: {folder}: {len(clips)} clips, {len(samples) / 16000 / 3600:.1f} h, "
              f"{len(train)} dialogues, {len(held)} held out, {self.bank.total} chunks, "
              f"{time.time() - began:.0f} s", flush=True)

    def packer(self):
        return Packer(self.prompt, self.shape, self.bank.first, self.bank.frames, self.questions,
                      self.answers)

    def batches(self, transcribe):
        batches = Batches(self.packer(), self.train, self.bank.variants, transcribe)
        return iter(torch.utils.data.DataLoader(
            batches, batch_size=None, num_workers=self.workers, pin_memory=ON_GPU,
            prefetch_factor=8 if self.workers else None))

    def held_out(self):
        dialogues = list(self.held)
        random.Random(1).shuffle(dialogues)
        return HeldOut(self.packer(), dialogues, self.clips, self.bank.variants)


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

    bands, moments = span(chunks.shape[1], 24, 0.4), span(chunks.shape[2], 12, 0.4)
    return chunks.masked_fill(bands[:, :, None] | moments[:, None], 0.0)


# ------------------------------------------------------------------------------------------------
# Training
# ------------------------------------------------------------------------------------------------

class Training:
    def __init__(self, thinker, bank, rate, audios):
        self.thinker, self.bank, self.audios = thinker, bank, audios
        vocab = thinker.lm_head.out_features
        self.writer = nn.Linear(ENCODER["hidden"], vocab + 1).to(DEVICE)  # of the CTC help
        both = nn.ModuleList([thinker, self.writer])
        self.adam = Adam(both, rate, average=0.9995)
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
        if hidden:
            chunks = hide(disguise(chunks, batch["chunk_audio"], self.audios))
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
    """Whole answers right, by skill and engine, on dialogues that training never sees."""

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
                for kind in (self.clips[clip]["skill"], self.clips[clip]["voice"], "all"):
                    totals[kind] += 1
                    hits[kind] += right
        order = sorted((k for k in totals if totals[k] > 4), key=lambda s: (s != "all", s))
        return " ".join(f"{s} {100 * hits[s] / totals[s]:.0f}" for s in order)


def train(training, corpus, transcribe, clock, keep):
    report, kept, held = Reporter("thinker", 30), 0.0, corpus.held_out()
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
            if clock.step % 100 == 0 and corpus.ready() and clock.fraction() < JOIN_UNTIL:
                corpus.take()
                training.source, held = corpus.batches(transcribe), corpus.held_out()
            if report.due():
                answer, written, balance, _ = training.log.tolist()
                report.say(clock.step, f"answer {answer:.3f} writing {written:.3f} "
                           f"balance {balance:.3f} | {held.measure(training)}")
            if clock.elapsed() - kept > 100:
                kept = clock.elapsed()
                keep()


def usable(clips, tokenizer):
    """Clips with their tokens; names as packing.py wants them."""
    questions = [e.ids for e in tokenizer.encode_batch([c["text"] for c in clips])]
    answers = [e.ids for e in tokenizer.encode_batch([c["answer"] for c in clips])]
    return questions, answers


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", help="one folder, or several with commas between")
    parser.add_argument("out")
    parser.add_argument("tokenizer")
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--variants", type=int, default=6)
    parser.add_argument("--capacity", type=int, default=2600000, help="chunks; 25 kB each")
    parser.add_argument("--workers", type=int, default=6)
    parser.add_argument("--transcribe", type=float, default=0.2)
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--shape", default="96,44,384,320", help="sizes of a batch")
    parser.add_argument("--resume", help="thinker.pt of an earlier run")
    args = parser.parse_args()
    setup(3)
    clock = Clock(args.seconds, warmup=400)
    tokenizer = load_tokenizer(args.tokenizer)
    shape = Shape(*map(int, args.shape.split(",")))
    corpus = Corpus(args.data.split(","), tokenizer, Bank(args.variants, args.capacity), shape,
                    args.workers)
    wait_until(corpus.ready)
    corpus.take()

    thinker = Thinker(tokenizer.get_vocab_size(), args.dropout).to(DEVICE)
    if args.resume:
        state = torch.load(args.resume, map_location=DEVICE)["model"]
        thinker.load_state_dict({k: v.float() for k, v in state.items()})
    print(f"thinker: {sum(p.numel() for p in thinker.parameters()) / 1e6:.2f} M", flush=True)
    training = Training(thinker, corpus.bank, args.rate, shape.audios)
    training.use(corpus.batches(args.transcribe))

    def keep():
        with training.adam.averaged():
            save({"model": halves(thinker.state_dict()), "step": clock.step},
                 f"{args.out}/thinker.pt")

    train(training, corpus, args.transcribe, clock, keep)
    keep()
    held = corpus.held_out()
    print(f"thinker: done, {clock.step} steps; {held.measure(training)}", flush=True)
    save({}, f"{args.out}/thinker.done")


if __name__ == "__main__":
    main()
