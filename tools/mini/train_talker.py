#!/usr/bin/env python3
"""Stage C of parley-mini: text to codes, the talker and its code predictor.

usage: train_talker.py OUT TOKENIZER [--seconds 300] [--more CODES...] [--resume TALKER]

Reads OUT/codes.pt, and the codes of further sentences whenever they are there (--more); writes
OUT/talker.pt and, once OUT/code2wav.done is there, held-out sentences
as the talker says them (OUT/talk_*.wav, OUT/talk.json).

The rows are those of the reference: user turns, eight opening rows, then one row a frame, each
with the next text token.  The user turns are made up (random lengths, noise in place of what the
Thinker heard, other sentences in place of typed questions), so that the voice depends on the text
of the answer alone."""

import argparse
import json
import random
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

import domain
from common import (CODEC_BOS, CODEC_EOS, CODES, DEVICE, GROUPS, Adam, Clock, Reporter, autocast,
                    graphed, halves, pace, save, setup, token_embeddings, wait_for)
from config import THINKER
from talker import Talker, allowed_first, sample

USER_ROWS, OPENING = 48, 8
FAR = 500             # largest gap of positions between the user's rows and the reply
NOISE, LOST = 0.3, 0.3  # largest shares of input codes, and of whole frames, that are random
PREDICTED = 2048      # frames of a step that the code predictor is trained on
BUCKETS = [(40, 128), (72, 96), (176, 32)]  # (slots, replies of a step): few long ones, apart
BALANCE = 0.01
JOIN_UNTIL = 0.8      # sentences that come later than this part of the time are left out


def load_tokenizer(folder):
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(Path(folder) / "tokenizer.json"))


class Clips:
    """All clips as padded tensors: slot 0 is the first token's row, slot s that of frame s - 1."""

    def __init__(self, data, tokenizer):
        ids = {t: tokenizer.token_to_id(t) for t in ("<tts_pad>", "<tts_text_eod>")}
        self.starts = data["starts"]
        count = len(data["texts"])
        slots = int((self.starts[1:] - self.starts[:-1]).max()) + 1
        self.tokens = torch.full((count, slots), ids["<tts_pad>"], dtype=torch.int16)
        self.codes = torch.zeros(count, slots, GROUPS, dtype=torch.int16)
        self.target = torch.full((count, slots, GROUPS), -100, dtype=torch.int16)
        self.frames = torch.as_tensor(self.starts[1:] - self.starts[:-1])
        long = 0
        for i, encoding in enumerate(tokenizer.encode_batch(data["texts"])):
            tokens = encoding.ids + [ids["<tts_text_eod>"]]
            long += len(tokens) > int(self.frames[i])
            tokens = tokens[:slots]
            codes = data["codes"][self.starts[i]:self.starts[i + 1]]
            self.tokens[i, :len(tokens)] = torch.tensor(tokens)
            self.codes[i, 1:len(codes) + 1] = codes
            self.target[i, :len(codes)] = codes
            self.target[i, len(codes), 0] = CODEC_EOS
        print(f"talker: {count} clips, {slots} slots, {long} with more tokens than frames",
              flush=True)
        self.tokens, self.codes, self.target = (
            t.to(DEVICE) for t in (self.tokens, self.codes, self.target))
        often = domain.heard_often()
        self.often = torch.tensor([often.get(text, 1) for text in data["texts"]])


def user_templates(tokenizer, texts, count, rng):
    """Token ids of made-up user turns, right-aligned in USER_ROWS columns; -1: no row."""
    def one():
        row = []
        while len(row) < rng.choice((1, 1, 1, 40, USER_ROWS)):
            if rng.random() < 0.8:
                inner = [audio[0], *[audio[1]] * rng.randint(8, 60), audio[2]]
            else:
                inner = tokenizer.encode(rng.choice(texts)).ids
            row += head + inner + tail
        return row[-USER_ROWS:]

    head = tokenizer.encode("<|im_start|>user\n").ids
    tail = tokenizer.encode("<|im_end|>\n").ids
    audio = [tokenizer.token_to_id(t) for t in ("<|audio_start|>", "<|audio_pad|>",
                                                "<|audio_end|>")]
    table = torch.full((count, USER_ROWS), -1, dtype=torch.long)
    for i in range(count):
        row = one()
        table[i, USER_ROWS - len(row):] = torch.tensor(row)
    return table.to(DEVICE), audio[1]


class Rows:
    """Input rows, positions and mask of a batch of replies."""

    def __init__(self, talker, tokenizer, texts, templates=4096):
        vocab = tokenizer.get_vocab_size()
        self.talker = talker
        self.embeddings = token_embeddings(vocab, THINKER["hidden"]).to(DEVICE)
        self.users, self.audio_id = user_templates(tokenizer, texts, templates, random.Random(5))
        words = "<|im_start|>assistant\n" + "<tts_pad>" * 4 + "<tts_text_bos>"
        self.opening = torch.tensor(tokenizer.encode(words).ids, device=DEVICE)
        assert len(self.opening) == OPENING

    def user(self, users):
        """Rows [batch, USER_ROWS, width] of template ids; the audio rows are noise."""
        batch = len(users)
        text = self.talker.text_projection(self.embeddings[users.clamp(min=0)])
        loudness = torch.exp(torch.rand(batch, 1, 1, device=DEVICE) * 4 - 1)
        noise = torch.randn(batch, USER_ROWS, THINKER["hidden"], device=DEVICE)
        noise = noise + torch.randn(batch, 1, THINKER["hidden"], device=DEVICE)
        heard = self.talker.hidden_projection(noise * loudness)
        return torch.where((users == self.audio_id)[..., None], heard, text)

    def build(self, users, gaps, tokens, codes):
        """(rows, positions, mask) of the whole reply; slot 0 carries codec_bos for codes."""
        talker = self.talker
        opening = talker.opening(talker.text_projection(self.embeddings[self.opening]))
        frames = talker.frame_embedding(codes[:, 1:])
        first = talker.model.codec_embedding.weight[CODEC_BOS].expand(len(codes), 1, -1)
        reply = talker.text_projection(self.embeddings[tokens]) + torch.cat([first, frames], 1)
        rows = torch.cat([self.user(users), opening.expand(len(codes), -1, -1), reply], 1)
        valid = F.pad(users >= 0, (0, rows.shape[1] - USER_ROWS), value=True)
        positions = valid.long().cumsum(1) - 1
        later = torch.arange(rows.shape[1], device=DEVICE) >= USER_ROWS
        positions = positions.clamp(min=0) + gaps[:, None] * later
        order = torch.arange(rows.shape[1], device=DEVICE)
        mask = (order[:, None] >= order) & valid[:, None]
        mask = mask | torch.eye(len(order), dtype=torch.bool, device=DEVICE)
        return rows, positions, mask[:, None]

    def states(self, *batch):
        """The talker's normed states of the reply's slots."""
        rows, positions, mask = self.build(*batch)
        return self.talker.model(rows, positions, mask)[:, USER_ROWS + OPENING:]


class Training:
    def __init__(self, talker, rows, rate):
        self.talker, self.rows = talker, rows
        self.adam = Adam(talker, rate, betas=(0.9, 0.95), average=0.999)
        self.log = torch.zeros(3, device=DEVICE)
        self.clips = self.buckets = self.train_count = None

    def use(self, clips, train_count, shrink):
        """Other clips from now on: all graphs have to be made again."""
        self.clips, self.train_count = clips, train_count
        self.buckets = self.make_buckets(shrink)

    def make_buckets(self, shrink):
        """(clips, slots, index) of each bucket; longer clips than the last one's are cut."""
        slots, found, least = self.clips.frames[:self.train_count] + 1, [], 0
        for most, batch in BUCKETS:
            last = most == BUCKETS[-1][0]
            inside = (slots > least) & ((slots <= most) | last)
            members = inside.nonzero()[:, 0]
            members = members.repeat_interleave(self.clips.often[members]).to(DEVICE)
            if len(members):
                index = torch.zeros(batch // shrink, dtype=torch.long, device=DEVICE)
                found.append((members, min(most, self.clips.tokens.shape[1]), index))
            least = most
        return found

    def feeder(self, bucket):
        members, _, index = bucket

        def feed():
            index.copy_(members[torch.randint(0, len(members), index.shape, device=DEVICE)])
        return feed

    @staticmethod
    def spoil(codes):
        """Codes and frames at random in part of the input, another share in every reply: what
        was said so far must not be what tells one clip of the training from the others."""
        share = torch.rand(2, len(codes), 1, 1, device=DEVICE)
        wrong = torch.rand(codes.shape, device=DEVICE) < NOISE * share[0]
        lost = torch.rand(*codes.shape[:2], 1, device=DEVICE) < LOST * share[1]
        return torch.where(wrong | lost, torch.randint_like(codes, CODES), codes)

    def losses(self, index, slots, noisy, frames):
        clips, batch = self.clips, len(index)
        tokens, codes = clips.tokens[index, :slots].long(), clips.codes[index, :slots].long()
        target = clips.target[index, :slots].long()
        if noisy:
            codes = self.spoil(codes)
        users = self.rows.users[torch.randint(0, len(self.rows.users), (batch,), device=DEVICE)]
        gaps = torch.randint(-FAR, FAR, (batch,), device=DEVICE).clamp(min=0)
        states = self.rows.states(users, gaps, tokens, codes)
        first = F.cross_entropy(self.talker.codec_head(states).float().flatten(0, 1),
                                target[..., 0].flatten(), ignore_index=-100)
        real = (target[..., 1] >= 0).flatten().float()
        chosen = (real * 2 + torch.rand_like(real)).topk(min(frames, len(real))).indices
        true = target.flatten(0, 1)[chosen]
        logits = self.talker.residual_logits(states.flatten(0, 1)[chosen],
                                             true[:, :-1].clamp(min=0))
        rest = F.cross_entropy(logits.float().flatten(0, 1), true[:, 1:].flatten(),
                               ignore_index=-100)
        return first, rest

    def step(self, bucket):
        _, slots, index = bucket
        with autocast():
            first, rest = self.losses(index, slots, True, PREDICTED)
        balance = self.talker.model.balance()
        self.adam.step(first + 2 * rest + BALANCE * balance)
        for i, value in enumerate((first, rest, balance)):
            self.log[i] = value.detach()

    @torch.no_grad()
    def held_out(self, count=96):
        self.talker.eval()
        end = min(len(self.clips.tokens), self.train_count + count)
        index = torch.arange(self.train_count, end, device=DEVICE)
        frames = int((self.clips.target[index][..., 1] >= 0).sum())
        with self.adam.averaged(), autocast():
            first, rest = self.losses(index, self.clips.tokens.shape[1], False, frames)
        self.talker.train()
        return first.item(), rest.item()


@torch.no_grad()
def speak(rows, clips, index, temperature, limit):
    """Codes of a few replies, drawn as the reference draws them: list of [frames, groups]."""
    talker, batch = rows.talker, len(index)
    tokens = F.pad(clips.tokens[index].long(), (0, limit), value=int(clips.tokens[0, -1]))
    users = rows.users[:batch]
    gaps = torch.zeros(batch, dtype=torch.long, device=DEVICE)
    codes = torch.zeros(batch, 1, GROUPS, dtype=torch.long, device=DEVICE)
    used = torch.zeros(batch, talker.codec_head.out_features, dtype=torch.bool, device=DEVICE)
    ends = torch.full((batch,), limit, device=DEVICE)
    for frame in range(limit):
        with autocast():
            state = rows.states(users, gaps, tokens[:, :frame + 1], codes)[:, -1]
            logits = allowed_first(talker.codec_head(state).float(), used, 1.05)
            drawn = sample(logits, temperature, 50)
            ends = torch.where((drawn == CODEC_EOS) & (ends == limit), frame, ends)
            used.scatter_(1, drawn[:, None], True)
            new = drawn.clamp(max=CODES - 1)[:, None]
            for _ in range(GROUPS - 1):
                logits = talker.residual_logits(state, new)[:, -1]
                new = torch.cat([new, sample(logits, 1.0, 50, 0.8)[:, None]], 1)
        codes = torch.cat([codes, new[:, None]], 1)
        if bool((ends < limit).all()):
            break
    return [codes[i, 1:1 + max(2, int(ends[i]))] for i in range(batch)]


def listen(rows, clips, data, out, count=40):
    """Held-out replies as sound, at two temperatures."""
    from train_vocoder import Maker, make_code2wav, write_wave

    wait_for(f"{out}/code2wav.done")
    vocoder = torch.load(f"{out}/code2wav.pt", map_location=DEVICE)
    model = make_code2wav(vocoder["sizes"])
    model.load_state_dict(vocoder["model"], strict=False)
    maker = Maker(model.eval())
    end = min(len(data["texts"]), data["train"] + count)
    index = torch.arange(data["train"], end, device=DEVICE)
    limit = int(clips.frames.max()) + 20
    notes = {"texts": data["texts"][data["train"]:end]}
    for name, temperature in (("t9", 0.9), ("t6", 0.6)):
        torch.manual_seed(3)
        spoken = speak(rows, clips, index, temperature, limit)
        sounds = [maker.decode(codes) for codes in spoken]
        write_wave(f"{out}/talk_{name}.wav", sounds)
        notes[name] = [len(s) for s in sounds]
        true = clips.frames[data["train"]:end].tolist()
        apart = [abs(len(c) - t) for c, t in zip(spoken, true)]
        print(f"talker: {name}: frames off by {sum(apart) / len(apart):.1f} on average, "
              f"{max(apart)} at most", flush=True)
    Path(f"{out}/talk.json").write_text(json.dumps(notes), encoding="utf-8")


class Steps:
    """The graphs of all buckets, and how often each has to run."""

    def __init__(self, training):
        self.runs, self.shares = [], []
        for bucket in training.buckets:
            feed = training.feeder(bucket)
            feed()
            run = graphed(lambda bucket=bucket: training.step(bucket), feed)
            self.runs.append((feed, run))
            self.shares.append(len(bucket[0]) / len(bucket[2]))

    def run(self):
        feed, run = random.choices(self.runs, self.shares)[0]
        feed()
        run()


def train(training, clock, more, keep):
    """Keeps the weights that do best on the held-out clips: the talker overfits in a minute.
    `more()` takes further clips if they have come and says whether it did."""
    report, best = Reporter("talker", 10), float("inf")
    more()
    training.adam.set_rate(clock.rate())
    steps = Steps(training)
    while clock.fraction() < 1:
        training.adam.set_rate(clock.rate())
        steps.run()
        clock.step += 1
        pace(clock.step)
        if report.due():
            first, rest, balance = training.log.tolist()
            held_first, held_rest = training.held_out()
            report.say(clock.step, f"first {first:.3f} rest {rest:.3f} balance {balance:.3f} "
                       f"held out {held_first:.3f} {held_rest:.3f}")
            if clock.step > 500 and held_first + held_rest < best:
                best = held_first + held_rest
                keep()
            if clock.fraction() < JOIN_UNTIL and more():
                steps = Steps(training)


def join(more, data):
    """The training clips of `more` before all clips of `data`."""
    n = more["train"]
    end = int(more["starts"][n])
    starts = [*more["starts"][:n], *(data["starts"] + end)]
    return {"codes": torch.cat([more["codes"][:end], data["codes"]]), "train": n + data["train"],
            "starts": np.array(starts), "texts": more["texts"][:n] + data["texts"]}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out")
    parser.add_argument("tokenizer")
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--shrink", type=int, default=1, help="divides the batches")
    parser.add_argument("--rate", type=float, default=8e-4)
    parser.add_argument("--dropout", type=float, default=0.15)
    parser.add_argument("--more", nargs="*", default=[], help="further codes.pt of the same codec")
    parser.add_argument("--resume", help="talker.pt of an earlier run")
    args = parser.parse_args()
    setup(2)
    data = wait_for(f"{args.out}/codes.pt")
    data.pop("audio", None)
    clock = Clock(args.seconds, warmup=300)
    tokenizer = load_tokenizer(args.tokenizer)
    talker = Talker(dropout=args.dropout).to(DEVICE)
    if args.resume:
        state = torch.load(args.resume, map_location=DEVICE)["model"]
        talker.load_state_dict({k: v.float() for k, v in state.items()})
    print(f"talker: {sum(p.numel() for p in talker.parameters()) / 1e6:.2f} M", flush=True)
    rows = Rows(talker, tokenizer, data["texts"])
    training = Training(talker, rows, args.rate)
    waiting = list(args.more)

    def more():
        nonlocal data
        came = [path for path in waiting if Path(path).exists()]
        for path in came:
            waiting.remove(path)
            data = join(torch.load(path, map_location="cpu", weights_only=False), data)
        if came or training.clips is None:
            training.use(Clips(data, tokenizer), data["train"], args.shrink)
        return bool(came)

    def keep():
        with training.adam.averaged():
            save({"model": halves(talker.state_dict()), "step": clock.step},
                 f"{args.out}/talker.pt")

    train(training, clock, more, keep)
    state = torch.load(f"{args.out}/talker.pt", map_location=DEVICE)
    print(f"talker: done, {clock.step} steps in {clock.elapsed():.0f} s; best after "
          f"{state['step']}", flush=True)
    talker.load_state_dict({k: v.float() for k, v in state["model"].items()})
    talker.eval()
    listen(rows, training.clips, data, args.out)
    save({}, f"{args.out}/talker.done")


if __name__ == "__main__":
    main()
