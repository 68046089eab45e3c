"""Shared by the training stages of parley-mini: sizes, data files, schedules, CUDA graphs.

Every stage keeps all of its data on the GPU, replays its whole step as one CUDA graph and stops
when its time is up, so that a stage costs the seconds that its command line says."""

import contextlib
import json
import math
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn as nn

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
ON_GPU = DEVICE == "cuda"
RATE = 24000
HOP = 1920            # samples of one code frame: 80 ms
GROUPS, CODES = 8, 512
CODEC_SPECIALS = 1024  # the reference never samples the last 1024 ids of the talker but for eos
SPEAKER = "ethan"      # the reference's default name; parley-mini has this one voice

# Ids of the talker's vocabulary, in the release's order: pad, bos, eos, nothink, think bos and eos.
CODEC_PAD, CODEC_BOS, CODEC_EOS = CODES + 100, CODES + 101, CODES + 102
CODEC_NOTHINK, CODEC_THINK_BOS, CODEC_THINK_EOS = CODES + 107, CODES + 108, CODES + 109
CODEC_SPEAKER = CODES + 254

EMBEDDING_SEED = 20  # the Thinker's input embeddings are random and fixed: stages C and D share them


def setup(seed):
    torch.manual_seed(seed)
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True


def autocast():
    return torch.autocast("cuda", torch.bfloat16) if ON_GPU else contextlib.nullcontext()


def token_embeddings(vocab, width):
    """The Thinker's embed_tokens: frozen, so that the talker can be trained beside the Thinker."""
    generator = torch.Generator().manual_seed(EMBEDDING_SEED)
    return torch.randn(vocab, width, generator=generator).bfloat16().float()


class Clock:
    """Time budget of a stage, and its learning rate: warm-up, then a cosine down to `floor`."""

    def __init__(self, budget, warmup=200, floor=0.03):
        self.budget, self.warmup, self.floor = budget, warmup, floor
        self.start, self.step = time.time(), 0

    def elapsed(self):
        return time.time() - self.start

    def fraction(self):
        return min(1.0, self.elapsed() / self.budget)

    def rate(self):
        cosine = 0.5 + 0.5 * math.cos(math.pi * self.fraction())
        return min(1.0, (self.step + 1) / self.warmup) * (self.floor + (1 - self.floor) * cosine)


class Reporter:
    """Prints a line every `seconds`; says when it did, so that callers can add slow measures."""

    def __init__(self, name, seconds=20.0):
        self.name, self.seconds = name, seconds
        self.start = self.last = time.time()
        self.last_step = 0

    def due(self):
        return time.time() - self.last >= self.seconds

    def say(self, step, text):
        now = time.time()
        speed = (step - self.last_step) / max(now - self.last, 1e-6)
        print(f"{self.name} {step} {now - self.start:.0f}s {speed:.1f}/s {text}", flush=True)
        self.last, self.last_step = now, step


class Adam:
    """AdamW whose step fits into a CUDA graph, with an exponential average of the weights."""

    def __init__(self, module, rate, betas=(0.9, 0.98), decay=0.05, clip=1.0, average=0.0):
        self.params = [p for p in module.parameters() if p.requires_grad]
        self.scale, self.clip, self.average = rate, clip, average
        self.rate = torch.zeros((), device=DEVICE)
        matrices = [p for p in self.params if p.dim() > 1]
        vectors = [p for p in self.params if p.dim() <= 1]
        graph = dict(capturable=True, fused=True) if ON_GPU else {}
        self.optimizer = torch.optim.AdamW(
            [dict(params=matrices, weight_decay=decay), dict(params=vectors, weight_decay=0.0)],
            lr=self.rate, betas=betas, eps=1e-8, **graph)
        self.mean = [p.detach().clone() for p in self.params] if average else None

    def set_rate(self, factor):
        self.rate.fill_(self.scale * factor)

    def step(self, loss):
        gradients = torch.autograd.grad(loss, self.params, allow_unused=True)
        for p, g in zip(self.params, gradients):
            p.grad = self.like(p, g)
        nn.utils.clip_grad_norm_(self.params, self.clip, foreach=ON_GPU or None)
        self.optimizer.step()
        if self.mean:
            with torch.no_grad():
                torch._foreach_lerp_(self.mean, self.params, 1.0 - self.average)

    @staticmethod
    def like(p, g):
        """The gradient with the strides of its parameter: the fused step wants nothing else."""
        if g is None:
            return torch.zeros_like(p)
        return g if g.stride() == p.stride() else torch.empty_like(p).copy_(g)

    @contextlib.contextmanager
    def averaged(self):
        """The averaged weights in place of the trained ones."""
        if not self.mean:
            yield
            return
        kept = [p.detach().clone() for p in self.params]
        self._put(self.mean)
        try:
            yield
        finally:
            self._put(kept)

    @torch.no_grad()
    def _put(self, values):
        torch._foreach_copy_(self.params, values)


def graphed(step, feed):
    """The step as one CUDA graph; on a CPU, or should the capture fail, the step itself."""
    if not ON_GPU:
        return step
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            feed()
            step()
    torch.cuda.current_stream().wait_stream(side)
    torch.cuda.synchronize()
    try:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            step()
        return graph.replay
    except RuntimeError as error:
        torch.cuda.synchronize()
        print("no CUDA graph:", error, flush=True)
        return step


def pace(step):
    """Keeps the host at most some steps ahead of the GPU, so that the clock stays honest."""
    if ON_GPU and step % 20 == 0:
        torch.cuda.synchronize()


# ------------------------------------------------------------------------------------------------
# Files
# ------------------------------------------------------------------------------------------------

def read_clips(folder, name):
    """(int16 samples of all clips in one array, one dict a clip) of NAME.i16 and NAME.jsonl."""
    folder = Path(folder)
    samples = np.fromfile(folder / f"{name}.i16", dtype=np.int16)
    with open(folder / f"{name}.jsonl", encoding="utf-8") as file:
        clips = [json.loads(line) for line in file if line.strip()]
    return samples, clips


def save(value, path):
    """Write, then rename: another stage may be waiting for the file."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    torch.save(value, part)
    part.rename(path)


def wait_until(ready, seconds=1200):
    deadline = time.time() + seconds
    while not ready():
        if time.time() > deadline:
            raise TimeoutError(ready)
        time.sleep(0.5)


def wait_for(path, seconds=1200):
    wait_until(Path(path).exists, seconds)
    return torch.load(path, map_location="cpu", weights_only=False)


def halves(state):
    """A state dict at 2 bytes a weight: bf16 is what the released checkpoint holds."""
    return {k: v.detach().to(torch.bfloat16).cpu() if v.is_floating_point() else v.cpu()
            for k, v in state.items()}


def held_out(text, share=50):
    """Whether a text belongs to the held-out part: the same answer in every stage and run."""
    import zlib

    return zlib.crc32(text.encode()) % share == 0
