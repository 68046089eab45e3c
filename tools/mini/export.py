#!/usr/bin/env python3
"""Joins the trained parts of parley-mini to a checkpoint in the layout of the released one.

usage: export.py OUT TOKENIZER MODEL

Reads OUT/thinker.pt, talker.pt and code2wav.pt and the tokenizer's files; writes MODEL:
config.json, generation_config.json, preprocessor_config.json, model.safetensors (bf16, one tensor
for each expert's matrix, no vision tower) and copies of the tokenizer's files."""

import argparse
import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file

import config
from train_talker import load_tokenizer

TOKENIZER_FILES = ["tokenizer.json", "vocab.json", "merges.txt", "tokenizer_config.json"]
GENERATION = {"talker_max_new_tokens": 400, "talker_repetition_penalty": 1.05,
              "talker_temperature": 0.9, "talker_top_k": 50, "talker_top_p": 1.0}
PREPROCESSOR = {"chunk_length": 300, "dither": 0.0,
                "feature_extractor_type": "WhisperFeatureExtractor", "feature_size": 128,
                "hop_length": 160, "n_fft": 400, "n_samples": 4800000, "nb_max_frames": 30000,
                "padding_side": "right", "padding_value": 0.0, "return_attention_mask": True,
                "sampling_rate": 16000}


def write_json(path, value):
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def token_ids(tokenizer):
    """Ids of the special tokens by name, and of the roles."""
    ids = {text: i for text, i in tokenizer.get_vocab().items() if text.startswith("<")}
    for role in ("system", "user", "assistant"):
        ids[role], = tokenizer.encode(role).ids
    return ids


def released_layout(state):
    """One matrix for each expert's gate, up and down, as in the released files."""
    out = {}
    for name, value in state.items():
        prefix, _, kind = name.rpartition(".")
        if not prefix.endswith(".experts"):
            out[name] = value
            continue
        for e, matrix in enumerate(value):
            if kind == "down_proj":
                out[f"{prefix}.{e}.down_proj.weight"] = matrix
                continue
            gate, up = matrix.chunk(2)
            out[f"{prefix}.{e}.gate_proj.weight"] = gate
            out[f"{prefix}.{e}.up_proj.weight"] = up
    return out


def read_part(path, prefix):
    state = torch.load(path, map_location="cpu")["model"]
    return {f"{prefix}.{name}": value for name, value in state.items()
            if not name.endswith("code_offset")}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("tokenizer", type=Path)
    parser.add_argument("model", type=Path)
    args = parser.parse_args()
    args.model.mkdir(parents=True, exist_ok=True)
    tokenizer = load_tokenizer(args.tokenizer)
    tensors = {}
    for part in ("thinker", "talker", "code2wav"):
        tensors.update(released_layout(read_part(args.out / f"{part}.pt", part)))
    tensors = {k: v.to(torch.bfloat16).contiguous().clone() for k, v in sorted(tensors.items())}
    assert all(v.isfinite().all() for v in tensors.values())
    save_file(tensors, args.model / "model.safetensors", metadata={"format": "pt"})
    (args.model / "model.safetensors").chmod(0o644)
    write_json(args.model / "config.json",
               config.build(token_ids(tokenizer), tokenizer.get_vocab_size()))
    write_json(args.model / "generation_config.json", GENERATION)
    write_json(args.model / "preprocessor_config.json", PREPROCESSOR)
    for name in TOKENIZER_FILES:
        if args.tokenizer.resolve() != args.model.resolve():
            shutil.copy(args.tokenizer / name, args.model / name)
    count = sum(v.numel() for v in tensors.values())
    print(f"{args.model}: {len(tensors)} tensors, {count / 1e6:.2f} M parameters")


if __name__ == "__main__":
    main()
