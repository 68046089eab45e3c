#!/usr/bin/env python3
"""Byte-level BPE of parley-mini, trained on its domain, in the files of Qwen2's tokenizer.

The Talker consumes one text token per 80 ms frame, and speech must not run ahead of the text: so
no token holds more than a few letters (--letters, a leading blank not counted). The trainers of
the tokenizers library know no such limit in letters, hence the small one here; the files are
written, and proved equal to the pieces found here, with that library.

usage: tokenizer.py --out models/parley-mini [--vocab 1200] [--letters 3]
"""

import argparse
import json
import re
import sys
from collections import Counter
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import domain  # noqa: E402
import reference  # noqa: E402

ROLES = ["system", "user", "assistant"]     # each must be one token
BLANK = "\u0120"                            # the byte-level alphabet's blank


def letters(piece):
    return len(piece.replace(BLANK, ""))


def corpus(n_answers=20000, n_dialogues=3000):
    """Words of answers, and with less weight of questions, as the pretokenizer cuts them."""
    words = Counter()
    cut = re.compile(r"'(?:s|t|re|ve|m|ll|d)| ?[A-Za-z]+| ?[^\sA-Za-z]+")
    for text in domain.answers(n_answers):
        words.update(cut.findall(text))
    for dialogue in domain.dialogues(n_dialogues):
        for turn in dialogue:
            words.update(cut.findall(turn["question"]))
            words.update(cut.findall(turn["answer"]))
    return {w.replace(" ", BLANK): n for w, n in words.items() if w not in ROLES}


def count_pairs(pieces, words, limit):
    pairs = Counter()
    for word, parts in pieces.items():
        for pair in zip(parts, parts[1:]):
            if letters(pair[0] + pair[1]) <= limit:
                pairs[pair] += words[word]
    return pairs


def merge(parts, pair):
    out, i = [], 0
    while i < len(parts):
        both = tuple(parts[i:i + 2]) == pair
        out.append(parts[i] + parts[i + 1] if both else parts[i])
        i += 2 if both else 1
    return out


def train(words, n_merges, limit):
    """The most frequent pair first; ties by the alphabet, so that the result is the same."""
    pieces = {w: list(w) for w in words}
    merges = []
    while len(merges) < n_merges:
        pairs = count_pairs(pieces, words, limit)
        if not pairs:
            break
        pair = min(pairs, key=lambda p: (-pairs[p], p))
        merges.append(pair)
        for word, parts in pieces.items():
            if pair[0] in parts:
                pieces[word] = merge(parts, pair)
    return merges


def add_roles(merges):
    """Joins the roles with merges of the lowest rank: other words hardly ever meet them."""
    for role in ROLES:
        parts = list(role)
        for pair in merges:
            parts = merge(parts, pair)
        while len(parts) > 1:
            pair = (parts[0], parts[1])
            merges.append(pair)
            parts = merge(parts, pair)
    return merges


def build(merges):
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers
    from tokenizers import pre_tokenizers, processors

    names = sorted(pre_tokenizers.ByteLevel.alphabet()) + [a + b for a, b in merges]
    vocab = {name: i for i, name in enumerate(dict.fromkeys(names))}
    tok = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    tok.normalizer = normalizers.NFC()
    tok.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(reference.QWEN2_PATTERN), behavior="isolated", invert=False),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    tok.decoder = decoders.ByteLevel()
    tok.post_processor = processors.ByteLevel(trim_offsets=False)
    tok.add_tokens([AddedToken(t, special=s, normalized=False)
                    for t, s in reference.SPECIAL_TOKENS])
    return tok, vocab


def config_values(tok):
    """tokenizer_config.json, with the fields of the release."""
    special = reference.SPECIAL_TOKENS
    return {
        "add_bos_token": False,
        "add_prefix_space": False,
        "added_tokens_decoder": {
            str(tok.token_to_id(t)): {"content": t, "lstrip": False, "normalized": False,
                                      "rstrip": False, "single_word": False, "special": s}
            for t, s in special},
        "additional_special_tokens": [t for t, s in special[1:] if s],
        "audio_bos_token": "<|audio_start|>",
        "audio_eos_token": "<|audio_end|>",
        "audio_token": "<|audio_pad|>",
        "bos_token": None,
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>",
        "errors": "replace",
        "image_token": "<|image_pad|>",
        "model_max_length": 32768,
        "pad_token": "<|endoftext|>",
        "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
        "video_token": "<|video_pad|>",
        "vision_bos_token": "<|vision_start|>",
        "vision_eos_token": "<|vision_end|>",
    }


def write(tok, vocab, merges, out):
    out.mkdir(parents=True, exist_ok=True)
    tok.save(str(out / "tokenizer.json"), pretty=False)
    (out / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False) + "\n", encoding="utf-8")
    lines = "\n".join(" ".join(pair) for pair in merges)
    (out / "merges.txt").write_text("#version: 0.2\n" + lines + "\n", encoding="utf-8")
    reference.write_json(out / "tokenizer_config.json", config_values(tok))


def check(tok, limit):
    """Roles are single tokens, texts come back, and no piece is longer than the limit."""
    for word in ROLES + ["\n"]:
        if len(tok.encode(word).ids) != 1:
            sys.exit(f"{word!r} is not a single token")
    texts = domain.answers(8000, seed=99)
    counts = Counter()
    for text in texts:
        encoded = tok.encode(text)
        if tok.decode(encoded.ids) != text:
            sys.exit(f"{text!r} does not come back")
        counts.update(letters(piece) for piece in encoded.tokens)
        long = [p for p in encoded.tokens if letters(p) > limit and p not in ROLES]
        if long:
            print(f"long pieces in {text!r}: {long}")
    total, chars = sum(counts.values()), sum(map(len, texts))
    by_letters = dict(sorted(counts.items()))
    print(f"{chars / total:.2f} characters per token; tokens by letters: {by_letters}")


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--out", type=Path, required=True)
    p.add_argument("--vocab", type=int, default=1200, help="ordinary tokens, 256 bytes included")
    p.add_argument("--letters", type=int, default=3, help="most letters of one token")
    args = p.parse_args()
    merges = add_roles(train(corpus(), args.vocab - 256 - 6, args.letters))
    tok, vocab = build(merges)
    write(tok, vocab, merges, args.out)
    check(tok, args.letters)
    ids = ", ".join(f"{t} {tok.token_to_id(t)}" for t in
                    ROLES + ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|audio_pad|>"])
    print(f"{args.out}: {len(vocab)} ordinary tokens, {tok.get_vocab_size()} in all; {ids}")


if __name__ == "__main__":
    main()
