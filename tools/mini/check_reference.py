#!/usr/bin/env python3
"""Shows that parley-mini is the architecture: the reference loads the same directory and gives,
greedily and in fp32, the same text and codes as the program.

usage: check_reference.py MODEL PARLEY WAV...

The program's fp16 caches and its bf16 weights in fp32 arithmetic are its own; a code may differ
where two are all but equally likely, and then everything after it does: such questions are
reported with the place of the first difference."""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from reference import Recorder, audio_inputs, audio_tokens, extract_mel, load_model  # noqa: E402


def ask_reference(model, recorder, tokenizer, path, wave):
    """(token ids, codes [frames, groups]) of a spoken question."""
    import soundfile

    samples, _ = soundfile.read(wave, dtype="float32")
    mel = extract_mel(path, samples)
    tokens = audio_tokens(mel.shape[1], 50)
    ids = torch.tensor([tokenizer.encode(
        "<|im_start|>user\n<|audio_start|>" + "<|audio_pad|>" * tokens +
        "<|audio_end|><|im_end|>\n<|im_start|>assistant\n").ids])
    eos = model.config.im_end_token_id
    sequences, _ = model.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), **audio_inputs(mel), speaker="ethan",
        thinker_max_new_tokens=100, thinker_eos_token_id=eos, thinker_do_sample=False,
        talker_max_new_tokens=200, talker_do_sample=False, talker_repetition_penalty=1.05)
    codes = [h[-1] for h in recorder.talker.hidden_states if h[-1] is not None]
    said = [t for t in sequences[0, ids.shape[1]:].tolist() if t != eos]
    return said, torch.cat(codes)


def ask_program(program, path, wave):
    from safetensors.torch import load_file

    with tempfile.TemporaryDirectory() as folder:
        dump = f"{folder}/dump.safetensors"
        out = subprocess.run([program, "ask", "--model", str(path), "--in", str(wave), "--greedy",
                              "--max-frames", "199", "--json", "--quiet", "--dump", dump,
                              "--out", f"{folder}/o.wav"],
                             check=True, capture_output=True, text=True).stdout
        tensors = load_file(dump)
    return json.loads(out.splitlines()[0]), tensors


def first_difference(mine, theirs):
    for i, (a, b) in enumerate(zip(mine.tolist(), theirs.tolist())):
        if a != b:
            return i
    return None if len(mine) == len(theirs) else min(len(mine), len(theirs))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("program")
    parser.add_argument("waves", type=Path, nargs="+")
    args = parser.parse_args()
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(args.model / "tokenizer.json"))
    model = load_model(args.model, torch.float32)
    recorder = Recorder(model)
    same_text = same_codes = 0
    for wave in args.waves:
        said, codes = ask_reference(model, recorder, tokenizer, args.model, wave)
        reply, tensors = ask_program(args.program, args.model, wave)
        ids = [t for t in tensors["text_ids"].tolist() if t != model.config.im_end_token_id]
        apart = first_difference(tensors["codes"], codes)
        same_text += ids == said
        same_codes += apart is None
        print(f"{wave.name}: {tokenizer.decode(said)!r} text "
              f"{'equal' if ids == said else tokenizer.decode(ids)!r}, codes "
              f"{'equal' if apart is None else f'differ from frame {apart} of {len(codes)}'}",
              flush=True)
    print(f"{same_text} texts and {same_codes} codes of {len(args.waves)} equal")


if __name__ == "__main__":
    main()
