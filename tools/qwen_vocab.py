#!/usr/bin/env python3
"""Converts the rank file of the Qwen vocabulary to vocab.json, merges.txt, tokenizer_config.json.

A rank file lists each token (base64) with its rank, which is also its id. A token of more than one
byte was made by joining two tokens of lower rank: the two that remain when its own bytes are merged
by the ranks below it. That pair is the merge. Standard library only.

    python3 tools/qwen_vocab.py qwen.tiktoken DIRECTORY
"""

import base64
import json
import os
import sys

# The added tokens of the released Qwen3-Omni, in order of id from 151643; those in the second list
# are not "special": they are matched as a whole but stay in decoded text.
ADDED = """<|endoftext|> <|im_start|> <|im_end|> <|object_ref_start|> <|object_ref_end|>
<|box_start|>
<|box_end|> <|quad_start|> <|quad_end|> <|vision_start|> <|vision_end|> <|vision_pad|> <|image_pad|>
<|video_pad|> <tool_call> </tool_call> <|fim_prefix|> <|fim_middle|> <|fim_suffix|> <|fim_pad|>
<|repo_name|> <|file_sep|> <tool_response> </tool_response> <think> </think> <|audio_start|>
<|audio_end|> <tts_pad> <tts_text_bos> <tts_text_eod> <tts_text_bos_single> <|audio_pad|>""".split()
NOT_SPECIAL = set("""<tool_call> </tool_call> <|fim_prefix|> <|fim_middle|> <|fim_suffix|>
<|fim_pad|>
<|repo_name|> <|file_sep|> <tool_response> </tool_response> <think> </think>""".split())


def byte_alphabet():
    """The printable character of each byte: itself where printable Latin-1, else U+0100 and up."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [b for b in range(256) if b not in plain]
    return {**{b: chr(b) for b in plain}, **{b: chr(0x100 + i) for i, b in enumerate(rest)}}


def parts_of(token, ranks):
    """What is left of a token's bytes when they are merged by ranks below its own."""
    limit = ranks[token]
    parts = [token[i : i + 1] for i in range(len(token))]
    while len(parts) > 1:
        best, at = limit, -1
        for i in range(len(parts) - 1):
            rank = ranks.get(parts[i] + parts[i + 1], limit)
            if rank < best:
                best, at = rank, i
        if at < 0:
            break
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return parts


def main():
    source, target = sys.argv[1:3]
    ranks = {}
    with open(source, "rb") as f:
        for line in f:
            token, rank = line.split()
            ranks[base64.b64decode(token)] = int(rank)
    letters = byte_alphabet()
    spell = lambda token: "".join(letters[b] for b in token)
    merges = []
    for token in sorted(ranks, key=ranks.get):
        if len(token) == 1:
            continue
        parts = parts_of(token, ranks)
        if len(parts) != 2:
            sys.exit(f"{source}: token {ranks[token]}: found {len(parts)} parts, expected 2")
        merges.append(" ".join(map(spell, parts)))
    decoder = {
        str(len(ranks) + i): {
            "content": content,
            "lstrip": False,
            "normalized": False,
            "rstrip": False,
            "single_word": False,
            "special": content not in NOT_SPECIAL,
        }
        for i, content in enumerate(ADDED)
    }
    config = {"add_prefix_space": False, "added_tokens_decoder": decoder}
    os.makedirs(target, exist_ok=True)
    for name, value in (
        ("vocab.json", {spell(t): r for t, r in sorted(ranks.items(), key=lambda x: x[1])}),
        ("tokenizer_config.json", config),
    ):
        with open(os.path.join(target, name), "w", encoding="utf-8") as f:
            json.dump(value, f, ensure_ascii=False, indent=None if name == "vocab.json" else 1)
    with open(os.path.join(target, "merges.txt"), "w", encoding="utf-8", newline="\n") as f:
        f.write("#version: 0.2\n" + "".join(m + "\n" for m in merges))


if __name__ == "__main__":
    main()
