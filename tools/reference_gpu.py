#!/usr/bin/env python3
"""The reference at full size on a GPU: random weights, checkpoint, golden results, speed.

One process, because the weights fill most of the device once and the host's memory-backed file
system too:

  1. fills the Qwen3OmniMoe classes of `transformers` with random bf16 weights on the device, by the
     rules of tools/reference.py
  2. writes them as a checkpoint in the released layout (experts one by one, shards of 5 GB)
  3. measures the reference's own speed: report.json
  4. runs it over given tokens and codes in bf16 and again in fp32, layer by layer where the device
     could not hold both, and writes golden results and the error of bf16: golden/CASE

Cases: a question of 4 s, one of 20 s, and a context of 2,000 tokens. The tokenizer it writes knows
bytes, roles and control tokens at their released ids and nothing else: all that random weights can
use.

Requirements: those of tools/reference.py; a GPU with 100 GB, 100 GB of memory-backed files.
"""

import argparse
import concurrent.futures
import json
import math
import os
import re
import struct
import sys
import time
import warnings
import wave
import zlib
from pathlib import Path

import numpy as np
import torch

import reference
from reference import CONSTANTS, GAINS, SPEAKER, SPECIAL_TOKENS, difference, fan_in, forced

SHARD_BYTES = 5 << 30
WRITERS = 8
ORDINARY_TOKENS = 151643
TEXT = 17      # words of the answer in the golden results
FRAMES = 12    # frames of speech
CODEC_FRAMES = 100
CONTEXT = 2000
CASES = {"q4": (4, 0), "q20": (20, 0), "c2000": (4, CONTEXT)}  # seconds, positions of the prompt


def say(text):
    print(f"[{time.perf_counter() - START:6.1f} s] {text}", flush=True)


def sync(device):
    if device == "cuda":
        torch.cuda.synchronize()


# ------------------------------------------------------------------------------------------------
# weights and checkpoint
# ------------------------------------------------------------------------------------------------

def canonical(name):
    """The name under which the rules know a tensor: fused experts stand for their parts."""
    name = name.replace(".experts.gate_up_proj", ".experts.0.gate_proj.weight")
    return name.replace(".experts.down_proj", ".experts.0.down_proj.weight")


def fill(name, parameter, config, seed, device):
    """tools/reference.py's init_tensor with the device's own generator."""
    generator = torch.Generator(device=device)
    generator.manual_seed(seed << 32 | zlib.crc32(name.encode()))
    known = canonical(name)
    mean, std = 0.0, None
    for pattern, m, s in CONSTANTS:
        if re.search(pattern, known):
            mean, std = m, s
            break
    if std is None:
        gain = next((g for pattern, g in GAINS if re.search(pattern, known)), 1.0)
        inputs = parameter.shape[-1] if known != name else fan_in(known, parameter.shape, config)
        std = gain / math.sqrt(inputs)
    parameter.normal_(mean, std, generator=generator)
    if name == "thinker.lm_head.weight":
        parameter[config.im_start_token_id - 1:] *= 0.5
    if name == "talker.codec_head.weight":
        parameter[config.talker_config.codec_eos_token_id] *= 0.3
    if name == f"code2wav.decoder.{len(config.code2wav_config.upsample_rates) + 2}.conv.weight":
        parameter *= 0.06


def build(config, seed, device):
    from transformers import Qwen3OmniMoeForConditionalGeneration

    with torch.device(device):
        model = Qwen3OmniMoeForConditionalGeneration._from_config(
            config, dtype=torch.bfloat16, attn_implementation="sdpa")
    model.eval().requires_grad_(False)
    for name, parameter in model.state_dict().items():
        if parameter.is_floating_point():
            fill(name, parameter, config, seed, device)
    return model


def stored(name, parameter):
    """(name, view) of every tensor that the released layout has for a parameter."""
    fused = re.match(r"(.*\.experts)\.(gate_up_proj|down_proj)$", name)
    if not fused:
        return [(name, parameter)]
    parts = []
    for e in range(parameter.shape[0]):
        base = f"{fused[1]}.{e}"
        if fused[2] == "down_proj":
            parts.append((f"{base}.down_proj.weight", parameter[e]))
            continue
        half = parameter.shape[1] // 2
        parts.append((f"{base}.gate_proj.weight", parameter[e, :half]))
        parts.append((f"{base}.up_proj.weight", parameter[e, half:]))
    return parts


def write_shard(path, parameters):
    """A safetensors file with the tensors in the order of their names, as the release has them."""
    tensors = sorted((part for name, p in parameters for part in stored(name, p)),
                     key=lambda part: part[0])
    header, place = {}, {}
    at = 0
    for name, view in tensors:
        size = view.numel() * 2
        header[name] = {"dtype": "BF16", "shape": list(view.shape), "data_offsets": [at, at + size]}
        place[name] = at
        at += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    fd = os.open(path, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o644)
    os.ftruncate(fd, 8 + len(text) + at)
    os.pwrite(fd, struct.pack("<Q", len(text)) + text, 0)
    for name, parameter in parameters:  # one copy off the device for all parts
        host = parameter.detach().contiguous().cpu().view(torch.int16)
        for part, view in stored(name, host):
            data = memoryview(view.contiguous().numpy()).cast("B")
            done, begin = 0, 8 + len(text) + place[part]
            while done < len(data):
                done += os.pwrite(fd, data[done:], begin + done)
    os.close(fd)
    return [name for name, _ in tensors]


def write_checkpoint(model, out):
    shards, size = [[]], 0
    for name, parameter in model.state_dict().items():
        if not parameter.is_floating_point():
            continue
        size += parameter.numel() * 2
        if size > SHARD_BYTES and shards[-1]:
            shards.append([])
            size = parameter.numel() * 2
        shards[-1].append((name, parameter))
    names = [f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors" for i in range(len(shards))]
    weight_map = {}
    with concurrent.futures.ThreadPoolExecutor(WRITERS) as pool:
        written = pool.map(write_shard, [out / n for n in names], shards)
        for name, tensors in zip(names, written):
            weight_map.update({t: name for t in tensors})
    reference.write_json(out / "model.safetensors.index.json",
                         {"metadata": {}, "weight_map": weight_map})
    return len(weight_map)


def byte_alphabet():
    """Byte -> character of byte-level BPE; the ids of bytes are in this order."""
    own = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [b for b in range(256) if b not in own]
    return {b: i for i, b in enumerate(own + rest)}, \
        [chr(b) for b in own] + [chr(256 + i) for i in range(len(rest))]


def write_tokenizer(config, out):
    _, letters = byte_alphabet()
    vocabulary = {letter: i for i, letter in enumerate(letters)}
    roles = {config.system_token_id: "system", config.user_token_id: "user",
             config.assistant_token_id: "assistant"}
    for i in range(len(letters), ORDINARY_TOKENS):
        vocabulary[roles.get(i, f"x{i}")] = i
    (out / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
    (out / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
    reference.write_json(out / "tokenizer_config.json", {
        "added_tokens_decoder": {
            str(ORDINARY_TOKENS + i): {"content": t, "lstrip": False, "normalized": False,
                                       "rstrip": False, "single_word": False, "special": s}
            for i, (t, s) in enumerate(SPECIAL_TOKENS)},
        "tokenizer_class": "Qwen2Tokenizer",
    })


def write_settings(raw, config, out):
    reference.write_json(out / "config.json", raw)
    reference.write_json(out / "generation_config.json", {
        "talker_max_new_tokens": 4096, "talker_repetition_penalty": 1.05,
        "talker_temperature": 0.9, "talker_top_k": 50, "talker_top_p": 1.0})
    reference.write_json(out / "preprocessor_config.json", {
        "chunk_length": 300, "dither": 0.0, "feature_extractor_type": "WhisperFeatureExtractor",
        "feature_size": config.thinker_config.audio_config.num_mel_bins, "hop_length": 160,
        "n_fft": 400, "n_samples": 4800000, "nb_max_frames": 30000, "padding_side": "right",
        "padding_value": 0.0, "return_attention_mask": True, "sampling_rate": 16000})
    write_tokenizer(config, out)


# ------------------------------------------------------------------------------------------------
# questions
# ------------------------------------------------------------------------------------------------

def question(seconds, path):
    """Noise in syllables, as 16-bit sound, written and read back as the program will read it."""
    rng = np.random.Generator(np.random.Philox(key=[seconds, 1]))
    t = np.arange(seconds * 16000) / 16000
    x = rng.uniform(-1, 1, len(t)) * (0.05 + 0.25 * np.abs(np.sin(4 * math.pi * t)))
    pcm = np.rint(x * 32767).astype(np.int16)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes(pcm.tobytes())
    return pcm.astype(np.float32) / 32768


def prompt(config, mel, length):
    """Ids of a spoken turn, under a system text that makes them `length` long (0 = none)."""
    ids, _ = byte_alphabet()
    start, end, newline = config.im_start_token_id, config.im_end_token_id, ids[10]
    audio = config.thinker_config
    n = reference.audio_tokens(mel.shape[1], audio.audio_config.n_window)
    turn = [start, config.user_token_id, newline, audio.audio_start_token_id,
            *[audio.audio_token_id] * n, audio.audio_end_token_id, end, newline,
            start, config.assistant_token_id, newline]
    text = ""
    if length:
        text = ("All that was said before. " * 200)[:length - len(turn) - 5]
        turn = [start, config.system_token_id, newline, *[ids[ord(c)] for c in text], end,
                newline] + turn
    return turn, text


def inputs(ids, mel, device, dtype):
    ids = torch.tensor([ids], device=device)
    result = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if mel is not None:
        result["input_features"] = mel[None].to(device, dtype)
        result["feature_attention_mask"] = torch.ones(1, mel.shape[1], dtype=torch.long,
                                                      device=device)
    return result


# ------------------------------------------------------------------------------------------------
# golden results
# ------------------------------------------------------------------------------------------------

def widen_while_used(module):
    """fp32 for as long as its forward takes: the device cannot hold all layers so."""
    def cast(dtype):
        def hook(module, *_):
            for p in module.parameters():
                p.data = p.data.to(dtype)
        return hook
    module.register_forward_pre_hook(cast(torch.float32))
    module.register_forward_hook(cast(torch.bfloat16))


def make_fp32(model):
    for layer in model.thinker.model.layers:
        widen_while_used(layer)
    for part in (model.thinker.audio_tower, model.thinker.model.embed_tokens,
                 model.thinker.model.norm, model.thinker.lm_head, model.talker, model.code2wav):
        part.float()
    model.set_experts_implementation("eager")


@torch.no_grad()
def run_case(model, config, case, dtype, device):
    """Stages of one case: the same tokens and codes in either precision."""
    torch.set_default_device(device)
    result = forced(model, config, case["ids"], case["mel"].to(device, dtype), case["text"],
                    case["codes"])
    torch.set_default_device("cpu")
    result = {k: v.cpu() for k, v in result.items()}
    result["residual_logits"] = result["residual_logits"][0]
    return result


def make_cases(config, extract, out, names):
    cases = {}
    vocabulary = config.talker_config.code_predictor_config.vocab_size
    for name in names:
        seconds, length = CASES[name]
        folder = out / "golden" / name
        folder.mkdir(parents=True, exist_ok=True)
        samples = question(seconds, folder / "question.wav")
        mel = extract(out, samples)
        ids, system = prompt(config, mel, length)
        rng = np.random.Generator(np.random.Philox(key=[len(ids), 2]))
        codes = rng.integers(0, vocabulary, (FRAMES, config.talker_config.num_code_groups))
        (folder / "system.txt").write_text(system, encoding="utf-8")
        cases[name] = {"ids": ids, "mel": mel, "folder": folder,
                       "text": rng.integers(300, 8000, TEXT).tolist(), "codes": codes.tolist()}
    return cases


def write_case(case, golden, narrow):
    stages = {k: difference(narrow[k], golden[k]) for k in golden}
    stages["mel"] = difference(case["mel"].bfloat16().float(), case["mel"])
    tensors = {k: v.contiguous() for k, v in golden.items()}
    tensors["mel"] = case["mel"].contiguous()
    for name in ("prompt_ids", "text_ids", "codes"):
        source = {"prompt_ids": "ids", "text_ids": "text", "codes": "codes"}[name]
        tensors[name] = torch.tensor(case[source], dtype=torch.int32)
    reference.save_tensors(tensors, case["folder"] / "golden.safetensors", {})
    reference.write_json(case["folder"] / "bf16.json", {"stages": stages})
    return stages


def goldens(model, config, cases, device):
    model.set_experts_implementation("grouped_mm")
    narrow = {name: run_case(model, config, c, torch.bfloat16, device) for name, c in cases.items()}
    say("bf16 results")
    make_fp32(model)
    for name, case in cases.items():
        wide = run_case(model, config, case, torch.float32, device)
        stages = write_case(case, wide, narrow[name])
        say(f"fp32 results of {name}: bf16 error rms " +
            ", ".join(f"{k} {v['rms']:.1e}" for k, v in stages.items()))


# ------------------------------------------------------------------------------------------------
# speed
# ------------------------------------------------------------------------------------------------

class Stamps:
    """A streamer that keeps the time at which every token came; the first call brings the prompt.
    After the first token the experts may be computed in another way."""

    def __init__(self, model, then):
        self.times, self.model, self.then = [], model, then

    def put(self, value):
        self.times.append(time.perf_counter())
        if len(self.times) == 2 and self.then:
            self.model.set_experts_implementation(self.then)

    def end(self):
        pass


def spread(values):
    return {"median": float(np.median(values)), "min": float(np.min(values)),
            "max": float(np.max(values)), "n": len(values)}


def timed(device, runs, work):
    """Seconds of `work`, after two runs that do not count."""
    times = []
    for i in range(runs + 2):
        sync(device)
        start = time.perf_counter()
        work()
        sync(device)
        times.append(time.perf_counter() - start)
    return times[2:]


def words(model, given, tokens, device, then=None):
    """Seconds to the first token and between the others."""
    stamps = Stamps(model, then)
    sync(device)
    start = time.perf_counter()
    model.thinker.generate(**given, max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False,
                           streamer=stamps)
    return stamps.times[1] - start, list(np.diff(stamps.times[1:]))


def frames(model, given, count, device):
    """Seconds between the Talker's frames, and from its start to the first one."""
    begun, start, generate = [], [], model.talker.generate

    def before(*_):
        sync(device)
        begun.append(time.perf_counter())

    def started(*args, **kwargs):
        sync(device)
        start.append(time.perf_counter())
        return generate(*args, **kwargs)

    hook = model.talker.register_forward_pre_hook(before)
    model.talker.generate = started
    try:
        model.generate(**given, speaker=SPEAKER, thinker_max_new_tokens=8,
                       thinker_do_sample=False, talker_max_new_tokens=count + 1)
    finally:
        hook.remove()
        del model.talker.generate
    # Codes of a frame are predicted in the forward after the step that chose its first one.
    return list(np.diff(begun[1:])), begun[2] - start[0]


@torch.no_grad()
def speed(report, model, config, cases, device, runs):
    """Fills the report; a figure that cannot be had is left out and said."""
    given = {n: inputs(c["ids"], c["mel"], device, torch.bfloat16) for n, c in cases.items()}
    audio = {k: v for k, v in given["q4"].items() if "feature" in k}
    report["encoder_ms"] = spread([1e3 * t for t in timed(
        device, runs, lambda: model.thinker.get_audio_features(**audio))])
    codes = torch.randint(0, config.code2wav_config.codebook_size,
                          (1, config.code2wav_config.num_quantizers, 26), device=device)
    report["code2wav_ms"] = spread([1e3 * t for t in timed(
        device, runs, lambda: model.code2wav(codes))])
    long = {"input_ids": torch.randint(300, 8000, (1, 4000), device=device)}
    long["attention_mask"] = torch.ones_like(long["input_ids"])
    def first_token(name, ask, experts):
        model.set_experts_implementation(experts)
        words(model, ask, 2, device)
        report[f"{name}, {experts}"] = spread(
            [1e3 * words(model, ask, 1, device)[0] for _ in range(max(runs // 2, 3))])

    def decode(name, ask, prompt_experts, experts):
        model.set_experts_implementation(prompt_experts)
        _, between = words(model, ask, runs + 4, device, then=experts)
        report[f"{name}, {experts}"] = spread([1 / t for t in between[3:]])

    def speech():
        model.set_experts_implementation("batched_mm")
        between, first = frames(model, given["q4"], runs + 4, device)
        report["frame_ms"] = spread([1e3 * t for t in between[3:]])
        report["first_frame_ms"] = spread([1e3 * first])

    # batched_mm copies every token's experts: best for single rows, too large for long prompts.
    for work in (lambda: first_token("first_token_4_ms", given["q4"], "grouped_mm"),
                 lambda: first_token("first_token_20_ms", given["q20"], "grouped_mm"),
                 lambda: first_token("first_token_4_ms", given["q4"], "batched_mm"),
                 lambda: decode("thinker_100_tok_s", given["q4"], "grouped_mm", "grouped_mm"),
                 lambda: decode("thinker_100_tok_s", given["q4"], "grouped_mm", "batched_mm"),
                 speech,
                 lambda: decode("thinker_4000_tok_s", long, "grouped_mm", "batched_mm")):
        try:
            work()
        except Exception as e:  # pylint: disable=broad-except
            print(f"no figure: {type(e).__name__}: {e}", flush=True)


# ------------------------------------------------------------------------------------------------

def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("config", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--no-speed", action="store_true")
    parser.add_argument("--no-golden", action="store_true")
    args = parser.parse_args()

    import transformers
    from transformers import Qwen3OmniMoeConfig

    transformers.logging.set_verbosity_error()
    warnings.filterwarnings("ignore")
    torch.backends.cudnn.allow_tf32 = False
    raw = json.loads(args.config.read_text(encoding="utf-8"))
    config = Qwen3OmniMoeConfig.from_dict(json.loads(json.dumps(raw)))
    args.out.mkdir(parents=True, exist_ok=True)
    model = build(config, args.seed, args.device)
    count = sum(p.numel() for p in model.parameters())
    say(f"{count} parameters on {args.device}")
    write_settings(raw, config, args.out)
    tensors = write_checkpoint(model, args.out)
    say(f"checkpoint of {tensors} tensors in {args.out}")
    cases = make_cases(config, reference.extract_mel, args.out, args.cases.split(","))
    report = {"parameters": count, "torch": torch.__version__,
              "transformers": transformers.__version__}
    if args.device == "cuda":
        report["device"] = torch.cuda.get_device_name()
    if not args.no_speed:
        speed(report, model, config, cases, args.device, args.runs)
        say("speed measured")
    if args.device == "cuda":
        report["peak_device_gb"] = torch.cuda.max_memory_allocated() / 1e9
    reference.write_json(args.out / "report.json", report)
    if not args.no_golden:
        goldens(model, config, cases, args.device)
    sys.stdout.flush()
    os._exit(0)  # freeing piece by piece takes seconds


START = time.perf_counter()
if __name__ == "__main__":
    main()
