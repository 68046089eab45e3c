"""Packs dialogues into batches of one fixed shape, so that one CUDA graph serves all of them.

Audio chunks of one second fill rows of eight seconds, tokens fill rows of the Thinker; masks keep
neighbours in a row apart.  Runs in worker processes and gives numpy arrays."""

import numpy as np
import torch

from whisper_mel import token_count

SLOTS = 8               # chunks of an encoder row: the reference's attention window
TRANSCRIBE = "transcribe"


class Prompt:
    """The tokens around what is said."""

    def __init__(self, tokenizer):
        def ids(text):
            return tokenizer.encode(text).ids

        self.head = ids("<|im_start|>user\n<|audio_start|>")
        self.audio = tokenizer.token_to_id("<|audio_pad|>")
        self.audio_end = ids("<|audio_end|>")
        self.tail = ids("<|im_end|>\n<|im_start|>assistant\n")
        self.end = ids("<|im_end|>")
        self.newline = ids("\n")
        self.transcribe = ids(TRANSCRIBE)


class Shape:
    """Rows and widths of a batch."""

    def __init__(self, encoder_rows=96, rows=44, length=384, audios=320, target=48):
        self.encoder_rows, self.rows, self.length = encoder_rows, rows, length
        self.audios, self.target = audios, target


class Packer:
    """Lays one dialogue after another into a batch, until one does not fit."""

    def __init__(self, prompt, shape, first, frames, questions, answers):
        """first, frames: [variants, clips], where a clip's chunks begin in the bank and its mel
        frames; questions, answers: token arrays of every clip."""
        self.prompt, self.shape = prompt, shape
        self.first, self.frames = first, frames
        self.questions, self.answers = questions, answers

    def begin(self):
        s = self.shape
        slots = s.encoder_rows * SLOTS
        self.batch = {
            "chunks": np.zeros(slots, np.int64), "chunk_audio": np.full(slots, -1, np.int32),
            "chunk_tokens": np.zeros(slots, np.int32),
            "ids": np.zeros((s.rows, s.length), np.int64),
            "source": np.full((s.rows, s.length), -1, np.int64),
            "document": np.full((s.rows, s.length), -1, np.int32),
            "positions": np.zeros((s.rows, s.length), np.int64),
            "labels": np.full((s.rows, s.length), -100, np.int64),
            "heard": np.zeros((s.audios, SLOTS * 13), np.int64),
            "times": np.zeros(s.audios, np.int64),
            "targets": np.zeros((s.audios, s.target), np.int64),
            "counts": np.zeros(s.audios, np.int64),
        }
        self.room = np.full(s.encoder_rows, SLOTS)
        self.space = np.full(s.rows, s.length)
        self.audios = self.documents = 0
        self.turns = []       # (row, begin, end, clip) of every answer's labels

    def sources(self, slot, tokens):
        """Rows of the flattened encoder output that a clip's tokens come from."""
        return slot * 13 + np.arange(tokens)

    def tokens_of(self, turns, transcribe):
        total = 0
        for variant, clip in turns:
            answer = self.questions if transcribe else self.answers
            total += (len(self.prompt.head) + token_count(int(self.frames[variant, clip]))
                      + 1 + len(self.prompt.tail) + len(answer[clip]) + 2
                      + len(self.prompt.transcribe) * transcribe)
        return total

    def add(self, turns, transcribe=False):
        """turns: (variant, clip) of one dialogue; False if there is no room left."""
        chunks = [-(-int(self.frames[v, c]) // 100) for v, c in turns]
        need = self.tokens_of(turns, transcribe)
        row = int(np.argmax(self.space >= need))
        if self.space[row] < need or self.audios + len(turns) > self.shape.audios:
            return False
        room, rows = self.room.copy(), []
        for n in chunks:
            at = int(np.argmax(room >= n))
            if room[at] < n:
                return False
            rows.append(at)
            room[at] -= n
        begin = self.shape.length - self.space[row]
        end = begin
        for (variant, clip), n, at in zip(turns, chunks, rows):
            slot = at * SLOTS + SLOTS - self.room[at]
            self.room[at] -= n
            end = self.add_turn(row, end, variant, clip, slot, n, transcribe)
        self.batch["document"][row, begin:end] = self.documents
        self.batch["positions"][row, begin:end] = np.arange(end - begin)
        self.documents += 1
        self.space[row] -= end - begin
        return True

    def add_turn(self, row, at, variant, clip, slot, chunks, transcribe):
        b, p, frames = self.batch, self.prompt, int(self.frames[variant, clip])
        tokens = token_count(frames)
        b["chunks"][slot:slot + chunks] = self.first[variant, clip] + np.arange(chunks)
        b["chunk_audio"][slot:slot + chunks] = self.audios
        b["chunk_tokens"][slot:slot + chunks] = 13
        b["chunk_tokens"][slot + chunks - 1] = tokens - 13 * (chunks - 1)
        question, source = self.questions[clip], self.sources(slot, tokens)
        answer = question if transcribe else self.answers[clip]
        if len(question) <= self.shape.target:
            b["heard"][self.audios, :tokens] = source
            b["times"][self.audios] = tokens
            b["targets"][self.audios, :len(question)] = question
            b["counts"][self.audios] = len(question)
        self.audios += 1
        ids = [*p.head, *[p.audio] * tokens, *p.audio_end]
        first = at + len(p.head)
        b["source"][row, first:first + tokens] = source
        ids += (p.transcribe if transcribe else []) + p.tail
        said = at + len(ids) - 1
        spoken = [*answer, *p.end]
        ids += spoken + p.newline
        b["ids"][row, at:at + len(ids)] = ids
        b["labels"][row, said:said + len(spoken)] = spoken
        self.turns.append((row, said, said + len(spoken), clip))
        return at + len(ids)


class Batches(torch.utils.data.IterableDataset):
    """Endless batches of random dialogues: lists of clip numbers."""

    def __init__(self, packer, dialogues, variants, transcribe):
        self.packer, self.dialogues = packer, dialogues
        self.variants, self.transcribe = variants, transcribe

    def draw(self, rng):
        turns = self.dialogues[rng.integers(len(self.dialogues))]
        transcribe = rng.random() < self.transcribe
        if transcribe:
            turns = [turns[rng.integers(len(turns))]]
            transcribe = len(self.packer.questions[turns[0]]) > 0
        return [(int(rng.integers(self.variants)), clip) for clip in turns], transcribe

    def __iter__(self):
        info = torch.utils.data.get_worker_info()
        rng = np.random.default_rng(info.seed if info else 0)
        while True:
            self.packer.begin()
            misses = 0
            while misses < 6:
                misses += not self.packer.add(*self.draw(rng))
            yield {k: torch.from_numpy(v) for k, v in self.packer.batch.items()}
