"""Independent recognisers for judging speech: pocketsphinx with the domain's words, Whisper.

Neither is part of Parley. pocketsphinx brings its own acoustic model and gets a loop of the words
that answers of a skill may hold; Whisper base (a CTranslate2 folder) hears without any hint.
"""

import re
from functools import cached_property

import numpy as np

import domain

RATE = 16000


def word_errors(said, heard):
    """Least number of insertions, deletions and substitutions between two word lists."""
    row = list(range(len(heard) + 1))
    for i, a in enumerate(said):
        previous, row[0] = row[0], i + 1
        for j, b in enumerate(heard):
            previous, row[j + 1] = row[j + 1], min(row[j + 1] + 1, row[j] + 1, previous + (a != b))
    return row[-1]


def word_loop(skill):
    """Words that answers of a skill are made of."""
    numbers = [domain.number(n) for n in range(101)]
    texts = {
        "sum": numbers + ["plus minus times is"],
        "count": numbers,
        "capital": [*domain.CAPITALS, *domain.CAPITALS.values(), "the capital of is"],
        "opposite": [*domain.OPPOSITES, "the opposite of is"],
        "order": domain.DAYS + domain.MONTHS + ["the day month before after is"],
        "spell": [" ".join("abcdefghijklmnopqrstuvwxyz")],
        "repeat": domain.WORDS,
    }.get(skill) or [a for a, _ in domain.SOCIAL.values()] + list(domain.DECLINE.values())
    return sorted(set(domain.words_of(" ".join(texts))))


def grammar_of(skill):
    """The word loop for a skill of domain.SKILLS."""
    skill = skill.removeprefix("follow_")
    if skill in domain.OPS:
        return "sum"
    return "order" if skill in ("day", "month") else skill


class Sphinx:
    def __init__(self):
        self.decoders = {}

    def decoder(self, grammar):
        from pocketsphinx import Decoder

        if grammar not in self.decoders:
            d = Decoder(lm=None, loglevel="FATAL", samprate=RATE)
            words = [w if d.lookup_word(w) else None for w in word_loop(grammar)]
            loop = " | ".join(w for w in words if w)
            d.add_jsgf_string("g", f"#JSGF V1.0; grammar g; public <s> = ( {loop} )+ ;")
            d.activate_search("g")
            self.decoders[grammar] = d
        return self.decoders[grammar]

    def hear(self, x, skill):
        d = self.decoder(grammar_of(skill))
        pad = np.zeros(RATE // 5, np.float32)
        raw = np.concatenate([pad, x, pad])
        d.start_utt()
        d.process_raw((np.clip(raw, -1, 1) * 32767).astype("<i2").tobytes(), full_utt=True)
        d.end_utt()
        text = d.hyp().hypstr if d.hyp() else ""
        return re.sub(r"\(\d+\)|<[^>]*>|\[[^\]]*\]", "", text).split()


class Whisper:
    SIGNS = [("+", " plus "), ("=", " is "), ("\u00d7", " times "), ("\u00f7", " divided by ")]

    def __init__(self, folder):
        self.folder = str(folder)

    @cached_property
    def model(self):
        from faster_whisper import WhisperModel

        return WhisperModel(self.folder, device="cpu", compute_type="int8", cpu_threads=1,
                            local_files_only=True)

    def hear(self, x, skill=None):
        segments, _ = self.model.transcribe(
            np.pad(x, (RATE // 5, RATE // 5)).astype(np.float32), language="en", beam_size=5,
            condition_on_previous_text=False, without_timestamps=True)
        return self.normalise("".join(s.text for s in segments), skill)

    def normalise(self, text, skill):
        """Digits and signs as words; spelled letters apart."""
        for sign, words in self.SIGNS:
            text = text.replace(sign, words)
        dash = " " if skill == "count" else " minus "
        text = re.sub(r"(?<=\d)\s*-\s*(?=\d)", dash, text)
        text = re.sub(r"(?<=\d)\s*[x*]\s*(?=\d)", " times ", text)
        text = re.sub(r"\d+", lambda m: f" {domain.number(min(int(m[0]), 100))} ", text)
        words = domain.words_of(text)
        if skill and skill.endswith("spell"):
            return [c for w in words for c in (w if len(w) <= 8 else [w])]
        return words


def make(name, whisper_folder=None):
    return Whisper(whisper_folder) if name == "whisper" else Sphinx()
