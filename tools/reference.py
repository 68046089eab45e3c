#!/usr/bin/env python3
"""Reference data for Parley: random checkpoints, a tiny tokenizer and golden results.

Nothing here is needed to build, run or test Parley.  The tool drives the Qwen3OmniMoe classes of
the `transformers` package, so that what the tests compare with is the reference itself:

  make       build a random checkpoint from a config and a seed, in the released file layout
  tokenizer  train a tiny byte-level BPE with the special tokens of the release
  question   cut a recording to a 16 kHz mono 16-bit question, with a quieter first part if wanted
  golden     run the reference on a checkpoint and a question; write golden.safetensors, bf16.json

Requirements:
  torch==2.11.0
  transformers==5.17.0
  safetensors==0.8.0
  tokenizers==0.23.3
  numpy==2.4.6
  scipy==1.17.1
  soundfile==0.14.0
"""

import argparse
import datetime
import json
import math
import re
import shlex
import sys
import unicodedata
import warnings
import zlib
from pathlib import Path

import numpy as np
import torch

DTYPES = {"bf16": torch.bfloat16, "f16": torch.float16, "f32": torch.float32}

# The special tokens of the release, in the order of their ids (which follow the ordinary tokens).
# True: `special` in the sense of tokenizer_config.json, that is hidden when decoding.
SPECIAL_TOKENS = [
    ("<|endoftext|>", True), ("<|im_start|>", True), ("<|im_end|>", True),
    ("<|object_ref_start|>", True), ("<|object_ref_end|>", True), ("<|box_start|>", True),
    ("<|box_end|>", True), ("<|quad_start|>", True), ("<|quad_end|>", True),
    ("<|vision_start|>", True), ("<|vision_end|>", True), ("<|vision_pad|>", True),
    ("<|image_pad|>", True), ("<|video_pad|>", True), ("<tool_call>", False),
    ("</tool_call>", False), ("<|fim_prefix|>", False), ("<|fim_middle|>", False),
    ("<|fim_suffix|>", False), ("<|fim_pad|>", False), ("<|repo_name|>", False),
    ("<|file_sep|>", False), ("<tool_response>", False), ("</tool_response>", False),
    ("<think>", False), ("</think>", False), ("<|audio_start|>", True), ("<|audio_end|>", True),
    ("<tts_pad>", True), ("<tts_text_bos>", True), ("<tts_text_eod>", True),
    ("<tts_text_bos_single>", True), ("<|audio_pad|>", True),
]

# Which config key holds the id of which token: (path in config.json, token).
CONFIG_TOKENS = [
    ("im_start_token_id", "<|im_start|>"), ("im_end_token_id", "<|im_end|>"),
    ("tts_pad_token_id", "<tts_pad>"), ("tts_bos_token_id", "<tts_text_bos>"),
    ("tts_eos_token_id", "<tts_text_eod>"), ("system_token_id", "system"),
    ("user_token_id", "user"), ("assistant_token_id", "assistant"),
    ("thinker_config.audio_token_id", "<|audio_pad|>"),
    ("thinker_config.image_token_id", "<|image_pad|>"),
    ("thinker_config.video_token_id", "<|video_pad|>"),
    ("thinker_config.audio_start_token_id", "<|audio_start|>"),
    ("thinker_config.audio_end_token_id", "<|audio_end|>"),
    ("thinker_config.vision_start_token_id", "<|vision_start|>"),
    ("thinker_config.vision_end_token_id", "<|vision_end|>"),
    ("thinker_config.user_token_id", "user"),
    ("talker_config.audio_token_id", "<|audio_pad|>"),
    ("talker_config.image_token_id", "<|image_pad|>"),
    ("talker_config.video_token_id", "<|video_pad|>"),
    ("talker_config.audio_start_token_id", "<|audio_start|>"),
    ("talker_config.audio_end_token_id", "<|audio_end|>"),
    ("talker_config.vision_start_token_id", "<|vision_start|>"),
    ("talker_config.vision_end_token_id", "<|vision_end|>"),
    ("talker_config.user_token_id", "user"),
]


def save_tensors(tensors, path, metadata):
    from safetensors.torch import save_file

    save_file(tensors, path, metadata=metadata)
    path.chmod(0o644)  # safetensors makes files that only their owner can read


def write_json(path, value):
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


# ------------------------------------------------------------------------------------------------
# make: a random checkpoint
# ------------------------------------------------------------------------------------------------

# Gains on top of the fan-in rule (std = gain / sqrt(fan in)); the first match counts.  They keep
# every branch of the network worth as much as its residual stream, so that an error anywhere is
# seen at the end, and they spread the logits, so that greedy choices have a margin.
GAINS = [
    (r"^thinker\.visual\.", 1.0),
    (r"lm_head(\.\d+)?\.weight$|codec_head\.weight$", 3.0),
    (r"\.mlp\.gate\.weight$", 2.5),
    (r"shared_expert_gate\.weight$", 1.5),
    (r"(o_proj|out_proj)\.weight$", 2.0),
    (r"experts\.\d+\.down_proj\.weight$", 3.0),
    (r"down_proj\.weight$", 2.5),
    (r"\.fc2\.weight$|proj2\.weight$|linear_fc2\.weight$|pwconv2\.weight$", 2.0),
    (r"conv2d1\.weight$", 1.5),
    (r"(conv2d[23]|conv_out)\.weight$", 1.7),
    (r"decoder\.\d+\.block\.[234]\.conv2\.conv\.weight$", 0.4),
    (r"code2wav\.decoder\.\d+\.block\.", 0.8),
]

# (pattern, mean, std) of the parameters that are no matrices.
CONSTANTS = [
    (r"\.bias$", 0.0, 0.05),
    (r"\.q_norm\.weight$", 2.0, 0.2),  # attention that chooses, rather than an even mean
    (r"(norm\d?|layernorm|layer_norm|ln_post|ln_q)\.weight$", 1.0, 0.1),
    (r"\.(alpha|beta)$", 0.0, 0.25),
    (r"\.gamma$|_layer_scale\.scale$", 0.3, 0.05),
    (r"code_predictor\.model\.codec_embedding\.\d+\.weight$", 0.0, 0.5),
    (r"code_embedding\.weight$", 0.0, 2.0),
    (r"(embed_tokens|codec_embedding|pos_embed)\.weight$", 0.0, 1.0),
]


def fan_in(name, shape, config):
    """Number of products summed into one output value."""
    if re.search(r"code2wav\.upsample\.\d+\.0\.conv\.weight$", name):
        return shape[0]      # transposed, kernel = stride: one tap per output
    if re.search(r"code2wav\.decoder\.\d+\.block\.1\.conv\.weight$", name):
        return 2 * shape[0]  # transposed, kernel = 2 * stride: two taps per output
    return math.prod(shape[1:])


def init_tensor(name, shape, config, seed):
    """A random tensor that depends on the seed and the tensor's own name alone.

    The values are rounded to bf16 here, so that a bf16 and an f32 file of one seed hold the same
    numbers and share their goldens (f16 too, but for numbers below its normal range)."""
    rng = np.random.Generator(np.random.Philox(key=[seed, zlib.crc32(name.encode())]))
    x = rng.standard_normal(shape, dtype=np.float32)
    for pattern, mean, std in CONSTANTS:
        if re.search(pattern, name):
            x = mean + std * x
            break
    else:
        gain = next((g for pattern, g in GAINS if re.search(pattern, name)), 1.0)
        x *= gain / math.sqrt(fan_in(name, shape, config))

    # A trained model does not answer with special or padding tokens, and does not end its speech
    # after a frame: damp those rows, so that greedy replies of the goldens are long enough.
    if name == "thinker.lm_head.weight":
        x[config.im_start_token_id - 1:] *= 0.5
    if name == "talker.codec_head.weight":
        x[config.talker_config.codec_eos_token_id] *= 0.3
    # The last convolution sets the level of the wave, which must stay clear of the clamp.
    if name == f"code2wav.decoder.{len(config.code2wav_config.upsample_rates) + 2}.conv.weight":
        x *= 0.06
    return torch.from_numpy(x).to(torch.bfloat16)


def checkpoint_tensors(config, layout, vision):
    """Yield (name, [parts]) of every stored tensor; the parts are (name, shape) to be stacked."""
    from transformers import Qwen3OmniMoeForConditionalGeneration

    with torch.device("meta"):
        model = Qwen3OmniMoeForConditionalGeneration(config)
    for name, value in model.state_dict().items():
        shape = tuple(value.shape)
        if name.startswith("thinker.visual.") and not vision:
            continue
        fused = re.match(r"(.*\.experts)\.(gate_up_proj|down_proj)$", name)
        if not fused:
            yield name, [(name, shape)]
            continue
        prefix, which = fused.groups()
        if which == "gate_up_proj":
            projections, part = ["gate_proj", "up_proj"], (shape[1] // 2, shape[2])
        else:
            projections, part = ["down_proj"], shape[1:]
        parts = [[(f"{prefix}.{e}.{p}.weight", part) for p in projections]
                 for e in range(shape[0])]
        if layout == "fused":
            yield name, parts
        else:
            for expert in parts:
                for p in expert:
                    yield p[0], [p]


def build_tensor(parts, config, seed):
    if isinstance(parts[0], list):  # fused experts: gate over up, experts stacked
        return torch.stack([torch.cat([init_tensor(n, s, config, seed) for n, s in expert])
                            for expert in parts])
    return init_tensor(*parts[0], config, seed)


def element_count(parts):
    return sum(element_count(p) if isinstance(p, list) else math.prod(p[1]) for p in parts)


def cmd_make(args):
    from transformers import Qwen3OmniMoeConfig

    raw = json.loads(args.config.read_text(encoding="utf-8"))
    raw["architectures"] = ["Qwen3OmniMoeForConditionalGeneration"]
    raw["model_type"] = "qwen3_omni_moe"
    dtype_name = {"bf16": "bfloat16", "f16": "float16", "f32": "float32"}[args.dtype]
    raw["dtype"] = dtype_name
    config = Qwen3OmniMoeConfig.from_dict(json.loads(json.dumps(raw)))

    out = args.out
    out.mkdir(parents=True, exist_ok=True)
    for stale in [*out.glob("model*.safetensors"), *out.glob("model*.index.json")]:
        stale.unlink()
    write_json(out / "config.json", raw)
    write_json(out / "generation_config.json", {
        "talker_max_new_tokens": 4096,
        "talker_repetition_penalty": 1.05,
        "talker_temperature": 0.9,
        "talker_top_k": 50,
        "talker_top_p": 1.0,
    })
    write_json(out / "preprocessor_config.json", {
        "chunk_length": 300,
        "dither": 0.0,
        "feature_extractor_type": "WhisperFeatureExtractor",
        "feature_size": config.thinker_config.audio_config.num_mel_bins,
        "hop_length": 160,
        "n_fft": 400,
        "n_samples": 4800000,
        "nb_max_frames": 30000,
        "padding_side": "right",
        "padding_value": 0.0,
        "return_attention_mask": True,
        "sampling_rate": 16000,
    })

    # Split into shards of about equal size; every shard is written before the next is built.
    tensors = list(checkpoint_tensors(config, args.layout, not args.no_vision))
    total = sum(element_count(parts) for _, parts in tensors)
    metadata = {"seed": str(args.seed)}  # one key: the writer keeps no order among several
    itemsize = DTYPES[args.dtype].itemsize
    weight_map, shard, done = {}, {}, 0
    number = 1

    def flush():
        nonlocal shard, number
        name = "model.safetensors"
        if args.shards > 1:
            name = f"model-{number:05d}-of-{args.shards:05d}.safetensors"
        save_tensors(shard, out / name, metadata)
        weight_map.update({key: name for key in shard})
        shard, number = {}, number + 1

    for name, parts in tensors:
        if number < args.shards and done >= total * number / args.shards:
            flush()
        shard[name] = build_tensor(parts, config, args.seed).to(DTYPES[args.dtype]).contiguous()
        done += element_count(parts)
    flush()
    if args.shards > 1:
        write_json(out / "model.safetensors.index.json",
                   {"metadata": {"total_size": total * itemsize}, "weight_map": weight_map})
    print(f"{out}: {len(tensors)} tensors, {total} parameters, {total * itemsize} bytes")


# ------------------------------------------------------------------------------------------------
# tokenizer
# ------------------------------------------------------------------------------------------------

QWEN2_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)

# Roles first and often: each must become one token, as in the release.
TOKENIZER_TEXT = ["system\nuser\nassistant\n"] * 40 + [
    "You are Parley. You are a kind voice that talks with the user.",
    "hello, what about two? What do you think about the other one, and where is it?",
    "The rain in the north is over now; the sun will shine there for the rest of the day.",
    "I can tell you more, if you want to hear it: there are three of them in the house.",
    "That is what they said when we were there, and that is all there is to say about it.",
    "Thanks! I'm sure we'll be fine, they've been here before and it's not that far.",
    "It was the first time that the train left the station before the hour had come.",
    "Would you like some tea with that? The water is hot and the cups are on the table.",
]

# Strings of the tokenizer test: what the pretokeniser, NFC and the added tokens have to settle.
TOKENIZER_CASES = [
    "", "hello", "Hello, World!", "You are Parley.", "what about two?",
    "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n",
    "<|im_start|>system\nYou are Parley.<|im_end|>\n",
    "  leading and trailing  ", "tabs\tand\t\ttabs", "line\nline\n\nline\r\nline \n  line",
    "I'm, you're, we've, they'll, he'd, it's, don't, DON'T, I'M", "12345 3.14 1,000,000",
    "a1b2c3", "snake_case camelCase kebab-case", "...!?;:()[]{}", "!", "!!!\n\n", " !\n",
    "caf\u00e9 na\u00efve", "cafe\u0301 nai\u0308ve", "\u212b \u00c5 A\u030a", "\u1e9b\u0323",
    "\u4f60\u597d\uff0c\u4e16\u754c\u3002", "\ud55c\uad6d\uc5b4 \u1112\u1161\u11ab",
    "\u041f\u0440\u0438\u0432\u0435\u0442, \u043c\u0438\u0440", "\u0645\u0631\u062d\u0628\u0627",
    "\u0928\u092e\u0938\u094d\u0924\u0947", "\U0001f600\U0001f468\u200d\U0001f469\u200d\U0001f467",
    "\u0663\u0664\u0665 \u00bd \u2167 x\u00b2", "\u00a0nbsp\u3000wide\u2003em", "a\u200bb",
    "<|audio_start|><|audio_pad|><|audio_pad|><|audio_end|>", "<think>\nno\n</think>\n\nyes",
    "<|im_star|> <|im_start| > <tts_pad><tts_text_bos>x<tts_text_eod>",
    "<tool_call>\n{\"name\": \"f\"}\n</tool_call>", "\u017fs's'S'\u017f", "trailing newline\n",
    "mixed \u4f60a1\u597d b\u00e9", "\x00\x01\x7f", "   \n   \n", "a  b   c    d",
]


def cmd_tokenizer(args):
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers
    from tokenizers import pre_tokenizers, processors, trainers

    tok = Tokenizer(models.BPE())
    tok.normalizer = normalizers.NFC()
    tok.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(QWEN2_PATTERN), behavior="isolated", invert=False),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    tok.decoder = decoders.ByteLevel()
    tok.post_processor = processors.ByteLevel(trim_offsets=False)
    tok.train_from_iterator(TOKENIZER_TEXT, trainers.BpeTrainer(
        vocab_size=256 + args.merges, min_frequency=1, show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet())))
    tok.add_tokens([AddedToken(t, special=s, normalized=False) for t, s in SPECIAL_TOKENS])

    out = args.out
    out.mkdir(parents=True, exist_ok=True)
    tok.save(str(out / "tokenizer.json"))
    model = json.loads(tok.to_str())["model"]
    vocab = dict(sorted(model["vocab"].items(), key=lambda item: item[1]))
    (out / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False), encoding="utf-8")
    merges = [m if isinstance(m, str) else " ".join(m) for m in model["merges"]]
    (out / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n",
                                    encoding="utf-8")
    write_json(out / "tokenizer_config.json", {
        "add_bos_token": False,
        "add_prefix_space": False,
        "added_tokens_decoder": {
            str(tok.token_to_id(t)): {"content": t, "lstrip": False, "normalized": False,
                                      "rstrip": False, "single_word": False, "special": s}
            for t, s in SPECIAL_TOKENS},
        "additional_special_tokens": [t for t, s in SPECIAL_TOKENS[1:] if s],
        "audio_bos_token": "<|audio_start|>",
        "audio_eos_token": "<|audio_end|>",
        "audio_token": "<|audio_pad|>",
        "bos_token": None,
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>",
        "errors": "replace",
        "image_token": "<|image_pad|>",
        "model_max_length": 131072,
        "pad_token": "<|endoftext|>",
        "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
        "video_token": "<|video_pad|>",
        "vision_bos_token": "<|vision_start|>",
        "vision_eos_token": "<|vision_end|>",
    })

    for word in ("system", "user", "assistant", "\n"):
        if len(tok.encode(word).ids) != 1:
            sys.exit(f"{word!r} is not a single token; train with more merges")
    config_path = out / "config.json"
    if config_path.exists():
        config = json.loads(config_path.read_text(encoding="utf-8"))
        for path, token in CONFIG_TOKENS:
            value = config
            for key in path.split("."):
                value = value.get(key) if value is not None else None
            if value != tok.token_to_id(token):
                sys.exit(f"config.json: {path} is {value}, but {token} is {tok.token_to_id(token)}")
    if args.cases:
        write_json(args.cases, [{"text": t, "ids": tok.encode(t).ids} for t in TOKENIZER_CASES])
    print(f"{out}: {len(vocab)} ordinary tokens, {tok.get_vocab_size()} in all; " +
          ", ".join(f"{t} {tok.token_to_id(t)}" for t in
                    ("system", "user", "assistant", "<|endoftext|>", "<|audio_pad|>")))


# ------------------------------------------------------------------------------------------------
# question
# ------------------------------------------------------------------------------------------------

def cmd_question(args):
    import soundfile

    pieces = []
    for path in args.inputs:
        wave, rate = soundfile.read(path, dtype="float64")
        if rate != 16000 or wave.ndim != 1:
            sys.exit(f"{path}: 16 kHz mono expected")
        pieces.append(wave)
    wave = np.concatenate(pieces)
    if len(wave) < args.samples:
        sys.exit(f"only {len(wave)} samples, {args.samples} wanted")
    wave = wave[:args.samples] * args.gain
    quiet = int(args.quiet_until * 16000)
    wave[:quiet] *= args.quiet_gain
    pcm = np.clip(np.rint(wave * 32768), -32768, 32767).astype(np.int16)
    soundfile.write(args.out, pcm, 16000, subtype="PCM_16")
    print(f"{args.out}: {len(pcm)} samples, peak {np.abs(pcm / 32768).max():.3f}")


# ------------------------------------------------------------------------------------------------
# golden
# ------------------------------------------------------------------------------------------------

TEXT_STEPS = 64      # thinker steps of the first turn
FRAMES = 24          # code frames of the first turn
TURN2_TEXT = 16
TURN2_FRAMES = 8
TURN2_KEPT = 12      # tokens of the first reply that stay in the conversation
SYSTEM_TEXT = 8
CODEC_FRAMES = 100   # random codes, longer than the sliding window of Code2Wav
SPEAKER = "Ethan"


def load_model(path, dtype):
    import transformers
    from transformers import Qwen3OmniMoeForConditionalGeneration

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    warnings.filterwarnings("ignore", message="Passing `repetition_penalty` with")

    model, info = Qwen3OmniMoeForConditionalGeneration.from_pretrained(
        path, dtype=dtype, attn_implementation="eager", experts_implementation="eager",
        output_loading_info=True)
    # Vision weights may be left out of a checkpoint: no result here depends on them.
    missing = [k for k in info["missing_keys"] if not k.startswith("thinker.visual.")]
    if missing or info["unexpected_keys"] or info["mismatched_keys"]:
        sys.exit(f"checkpoint does not fit: {missing} {info['unexpected_keys']}")
    return model.eval()


def extract_mel(path, samples):
    """Log-mel [bins, frames] of one clip by the Whisper feature extractor of the processor."""
    from transformers import WhisperFeatureExtractor

    extractor = WhisperFeatureExtractor.from_pretrained(path)
    features = extractor(samples, sampling_rate=16000, padding=True, truncation=False,
                         return_attention_mask=True, return_tensors="pt")
    frames = int(features["attention_mask"].sum())
    return features["input_features"][0, :, :frames]


def audio_tokens(frames, n_window):
    full, tail = divmod(frames, 2 * n_window)
    return 13 * full + -(-tail // 8)


class Recorder:
    """Keeps what the generate() of the thinker and of the talker return inside the full one."""

    def __init__(self, model):
        self.thinker = self.talker = None
        inner_thinker, inner_talker = model.thinker.generate, model.talker.generate

        def thinker(*args, **kwargs):
            self.thinker = inner_thinker(*args, **kwargs)
            return self.thinker

        def talker(*args, **kwargs):
            self.talker = inner_talker(*args, **kwargs)
            return self.talker

        model.thinker.generate, model.talker.generate = thinker, talker


def audio_inputs(mel):
    if mel is None:
        return {}
    return {"input_features": mel[None],
            "feature_attention_mask": torch.ones(1, mel.shape[1], dtype=torch.long)}


def generate(model, recorder, config, ids, mel, text_steps, frames):
    """Greedy text and speech by the reference's generate(): a dict of what it went through."""
    ids = torch.tensor([ids])
    sequences, wave = model.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), **audio_inputs(mel), speaker=SPEAKER,
        thinker_max_new_tokens=text_steps, thinker_eos_token_id=config.im_end_token_id,
        thinker_do_sample=False, thinker_output_logits=True,
        # The codes of a frame come with the step after it, hence one step more.
        talker_max_new_tokens=frames + 1, talker_do_sample=False,
        talker_repetition_penalty=1.05, talker_output_logits=True)
    thinker, talker = recorder.thinker, recorder.talker
    codes = [h[-1] for h in talker.hidden_states if h[-1] is not None]
    result = {
        "ids": sequences[0, ids.shape[1]:],
        "logits": torch.cat(thinker.logits).float(),
        "prompt_hidden": [h[0] for h in thinker.hidden_states[0]],
        "talker_hidden": torch.stack([h[0][-1][0, -1] for h in talker.hidden_states[:frames]]),
        "code0_logits": torch.cat(talker.logits[:frames]).float(),
        "codes": torch.cat(codes) if codes else None,
        "wave": wave[0, 0],
    }
    if len(result["ids"]) != text_steps or result["codes"] is None \
            or len(result["codes"]) != frames:
        sys.exit("the reply ended early: take another seed")
    return result


@torch.no_grad()
def forced(model, config, prompt, mel, text, codes):
    """The same results from whole-sequence passes over given tokens and codes, in plain steps.

    It serves two ends: at fp32 it shows that the layout of the talker's rows, as Parley has it,
    is that of generate(); at bf16 it gives the error of the reference's own lower precision."""
    talker_config = config.talker_config
    thinker, talker = model.thinker, model.talker
    prompt = torch.as_tensor(prompt)
    text, codes = torch.as_tensor(text).long(), torch.as_tensor(codes).long()
    ids = torch.cat([prompt, text[:-1]])[None]
    inputs = audio_inputs(mel)
    result = {}
    if mel is not None:
        result["encoder"] = thinker.get_audio_features(**inputs).last_hidden_state
    out = thinker(input_ids=ids, attention_mask=torch.ones_like(ids), **inputs,
                  output_hidden_states=True)
    result["thinker_logits"] = out.logits[0, len(prompt) - 1:]
    tap = out.hidden_states[talker_config.accept_hidden_layer][0]
    audio = ids[0] == config.thinker_config.audio_token_id
    result["tap"] = tap[audio]

    # Rows of the user turns: the tap at audio positions, the embedding at all others.
    def project(tokens):
        return talker.text_projection(thinker.get_input_embeddings()(torch.as_tensor(tokens)))

    segment = torch.cumsum((prompt == config.im_start_token_id).int(), 0)
    starts = (prompt == config.im_start_token_id).nonzero()[:, 0]
    rows = []
    for s, start in enumerate(starts.tolist(), start=1):
        if prompt[start + 1] != config.user_token_id:
            continue
        where = (segment == s).nonzero()[:, 0]
        part = project(prompt[where])
        is_audio = audio[where]
        if is_audio.any():
            part[is_audio] = talker.hidden_projection(tap[where[is_audio]])
        rows.append(part)

    # The nine rows of the reply.
    pad, bos = config.tts_pad_token_id, config.tts_bos_token_id
    start = starts[-1].item()
    reply = torch.cat([prompt[start:start + 3], torch.tensor([pad] * 4 + [bos]), text[:1]])
    specials = [talker_config.codec_nothink_id, talker_config.codec_think_bos_id,
                talker_config.codec_think_eos_id, talker_config.speaker_id[SPEAKER.lower()],
                talker_config.codec_pad_id, talker_config.codec_bos_id]
    reply = project(reply)
    reply[3:] += talker.get_input_embeddings()(torch.tensor(specials))
    rows.append(reply)

    # The rows of the frames: the sum of a frame's code embeddings and the next text token.
    code_tables = [talker.get_input_embeddings(), *talker.code_predictor.get_input_embeddings()]
    for s in range(len(codes) - 1):
        frame = torch.stack([table(c) for table, c in zip(code_tables, codes[s])]).sum(0)
        rows.append((frame + project(text[s + 1]))[None])
    hidden = talker.model(inputs_embeds=torch.cat(rows)[None]).last_hidden_state[0]
    result["talker_hidden"] = hidden = hidden[-len(codes):]
    result["code0_logits"] = talker.codec_head(hidden)

    # Code predictor: the talker's hidden state, then the codes of the frame but for the last.
    rows = torch.stack([hidden] + [t(c) for t, c in zip(code_tables, codes.T[:-1])], dim=1)
    out = talker.code_predictor.model(inputs_embeds=rows).last_hidden_state
    heads = talker.code_predictor.lm_head
    result["residual_logits"] = torch.stack(
        [head(out[:, g + 1]) for g, head in enumerate(heads)], dim=1)
    result["wave"] = model.code2wav(codes.T[None])[0, 0]
    return {k: v.float() for k, v in result.items()}


def wave_length(config, frames):
    """Samples of a full Code2Wav pass: every last-stage stride gives up a frame of its own rate."""
    n = frames * math.prod(config.code2wav_config.upsampling_ratios)
    for stride in config.code2wav_config.upsample_rates:
        n = (n - 1) * stride
    return n


def difference(value, golden):
    value, golden = value.double(), golden.double()
    return {"max": ((value - golden).abs().max() / golden.abs().max()).item(),
            "rms": ((value - golden).pow(2).mean().sqrt() / golden.pow(2).mean().sqrt()).item()}


def margin(logits):
    """Smallest gap between the two best logits, relative to the largest logit of that step."""
    top = logits.topk(2, dim=-1).values
    return ((top[..., 0] - top[..., 1]) / logits.abs().amax(-1)).min().item()


class RouterWatch:
    """Keeps the experts that the routers take, and how narrowly they take them."""

    def __init__(self, model):
        self.smallest_gap = math.inf
        self.taken = []  # (part of the model, sorted experts [positions, top k]) of every call
        for name, module in model.named_modules():
            if type(module).__name__.endswith("TextTopKRouter"):
                part = name.split(".")[0]
                module.register_forward_hook(
                    lambda module, _, output, part=part: self.see(module, output, part))

    def see(self, module, output, part):
        top = output[0].float().topk(module.top_k + 1, dim=-1).values
        self.smallest_gap = min(self.smallest_gap, (top[:, -2] - top[:, -1]).min().item())
        self.taken.append((part, output[2].sort(-1).values))


def router_changes(taken, other):
    """How many (layer, position) pairs take another set of experts: {part: [changed, all]}."""
    counts = {}
    for (part, a), (_, b) in zip(taken, other, strict=True):
        count = counts.setdefault(part, [0, 0])
        count[0] += int((a != b).any(-1).sum())
        count[1] += len(a)
    return counts


def run_golden(path, question):
    """Golden tensors of a checkpoint directory, checks on them, experts taken, and the seed."""
    import soundfile
    from safetensors import safe_open
    from tokenizers import Tokenizer

    tok = Tokenizer.from_file(str(path / "tokenizer.json"))
    samples, rate = soundfile.read(question, dtype="float32")
    if rate != 16000 or samples.ndim != 1:
        sys.exit(f"{question}: 16 kHz mono expected")
    mel = extract_mel(path, samples)
    model = load_model(path, torch.float32)
    config = model.config
    watch = RouterWatch(model)
    recorder = Recorder(model)
    golden, checks = {"mel": mel}, {}

    # First turn: a spoken question.
    n_audio = audio_tokens(mel.shape[1], config.thinker_config.audio_config.n_window)
    prompt = tok.encode("<|im_start|>user\n<|audio_start|>" + "<|audio_pad|>" * n_audio +
                        "<|audio_end|><|im_end|>\n<|im_start|>assistant\n").ids
    turn = generate(model, recorder, config, prompt, mel, TEXT_STEPS, FRAMES)
    golden["encoder"] = model.thinker.get_audio_features(**audio_inputs(mel)).last_hidden_state
    assert golden["encoder"].shape[0] == n_audio
    is_audio = torch.tensor(prompt) == config.thinker_config.audio_token_id
    golden["prompt_ids"] = torch.tensor(prompt)
    golden["tap"] = turn["prompt_hidden"][config.talker_config.accept_hidden_layer][is_audio]
    golden["thinker_logits"], golden["text_ids"] = turn["logits"], turn["ids"]
    golden["talker_hidden"], golden["code0_logits"] = turn["talker_hidden"], turn["code0_logits"]
    golden["codes"], golden["wave"] = turn["codes"], turn["wave"]
    assert len(turn["wave"]) == wave_length(config, FRAMES)

    # Random codes: longer than the sliding window.
    code2wav = config.code2wav_config
    with safe_open(next(iter(sorted(path.glob("model*.safetensors")))), "pt") as file:
        seed = int(file.metadata()["seed"])
    rng = np.random.Generator(np.random.Philox(key=[seed, zlib.crc32(b"codec_codes")]))
    golden["codec_codes"] = torch.from_numpy(rng.integers(
        0, code2wav.codebook_size, (CODEC_FRAMES, code2wav.num_quantizers)))
    golden["codec_wave"] = model.code2wav(golden["codec_codes"].T[None])[0, 0]

    # Second turn of the same conversation: a typed question.
    prompt2 = prompt + turn["ids"][:TURN2_KEPT].tolist() + tok.encode(
        "<|im_end|>\n<|im_start|>user\nwhat about two?<|im_end|>\n<|im_start|>assistant\n").ids
    turn2 = generate(model, recorder, config, prompt2, mel, TURN2_TEXT, TURN2_FRAMES)
    golden["turn2_prompt_ids"] = torch.tensor(prompt2)
    golden["turn2_logits"], golden["turn2_ids"] = turn2["logits"], turn2["ids"]
    golden["turn2_talker_hidden"], golden["turn2_codes"] = turn2["talker_hidden"], turn2["codes"]

    # Text alone, under a system text.
    prompt3 = tok.encode("<|im_start|>system\nYou are Parley.<|im_end|>\n<|im_start|>user\n"
                         "hello<|im_end|>\n<|im_start|>assistant\n").ids
    turn3 = generate(model, recorder, config, prompt3, None, SYSTEM_TEXT, 1)
    golden["sys_prompt_ids"] = torch.tensor(prompt3)
    golden["sys_logits"], golden["sys_ids"] = turn3["logits"], turn3["ids"]

    # The same by plain whole-sequence passes.
    watch.taken.clear()
    plain = forced(model, config, prompt, mel, turn["ids"], turn["codes"])
    taken = list(watch.taken)
    plain2 = forced(model, config, prompt2, mel, turn2["ids"], turn2["codes"])
    golden["residual_logits"] = plain["residual_logits"][0]
    assert (plain["residual_logits"].argmax(-1) == turn["codes"][:, 1:]).all()
    assert (plain2["residual_logits"].argmax(-1) == turn2["codes"][:, 1:]).all()
    assert (plain["thinker_logits"].argmax(-1) == turn["ids"]).all()
    checks["plain_vs_generate"] = {
        key: difference(plain[key], golden[key])["max"]
        for key in ("encoder", "tap", "thinker_logits", "talker_hidden", "code0_logits", "wave")}
    checks["plain_vs_generate"]["turn2_logits"] = difference(
        plain2["thinker_logits"], golden["turn2_logits"])["max"]
    checks["plain_vs_generate"]["turn2_talker_hidden"] = difference(
        plain2["talker_hidden"], golden["turn2_talker_hidden"])["max"]

    # How safe the greedy choices are: replay the reference's rule for the first code.
    codec_eos = config.talker_config.codec_eos_token_id
    suppressed = torch.zeros(golden["code0_logits"].shape[1], dtype=torch.bool)
    suppressed[-1024:] = True
    suppressed[codec_eos] = False
    processed = golden["code0_logits"].clone()
    for s in range(FRAMES):
        used = turn["codes"][:s, 0].unique()
        processed[s, used] = torch.where(processed[s, used] > 0, processed[s, used] / 1.05,
                                         processed[s, used] * 1.05)
    processed[:, suppressed] = -100.0
    assert (processed.argmax(-1) == turn["codes"][:, 0]).all()
    checks["margins"] = {
        "text": min(margin(golden[k]) for k in ("thinker_logits", "turn2_logits", "sys_logits")),
        "code0": margin(processed.clamp(min=-golden["code0_logits"].abs().max())),
        "residual_codes": margin(plain["residual_logits"]),
        "router_logit": watch.smallest_gap,
    }
    peaks = [golden[k].abs().max().item() for k in ("wave", "codec_wave")]
    checks["signal"] = {
        "distinct_text_ids": turn["ids"].unique().numel(),
        "distinct_code0": turn["codes"][:, 0].unique().numel(),
        "ordinary_text_ids": bool((turn["ids"] < config.im_start_token_id - 1).all()),
        "wave_peak": peaks[0], "wave_std": golden["wave"].std().item(),
        "codec_wave_peak": peaks[1], "codec_wave_std": golden["codec_wave"].std().item(),
        "clamped_samples": int(sum((golden[k].abs() >= 1).sum() for k in ("wave", "codec_wave"))),
    }
    golden = {k: v.float() if v.is_floating_point() else v.int() for k, v in golden.items()}
    return {k: v.detach().contiguous() for k, v in golden.items()}, checks, taken, seed


def run_bf16(path, golden, taken):
    """The reference in bf16 on the fp32 run's tokens and codes, stage by stage."""
    model = load_model(path, torch.bfloat16)
    config = model.config
    watch = RouterWatch(model)
    mel = golden["mel"].bfloat16()
    result = forced(model, config, golden["prompt_ids"].long(), mel,
                    golden["text_ids"], golden["codes"])
    result["mel"] = mel
    codes = golden["codec_codes"].long()
    with torch.no_grad():
        result["codec_wave"] = model.code2wav(codes.T[None])[0, 0]
    result["residual_logits"] = result["residual_logits"][0]
    stages = ("mel", "encoder", "tap", "thinker_logits", "talker_hidden", "code0_logits",
              "residual_logits", "wave", "codec_wave")
    errors = {k: difference(result[k].float(), golden[k]) for k in stages}
    return errors, router_changes(taken, watch.taken)


def cmd_golden(args):
    import tokenizers
    import transformers

    golden, checks, taken, seed = run_golden(args.dir, args.question)
    stages, changes = run_bf16(args.dir, golden, taken)
    report = {
        "note": "Error of the reference run in bf16, teacher-forced on the tokens and codes of "
                "its fp32 run: max = max|bf16 - fp32| / max|fp32|, rms = the same of root mean "
                "squares; router_changes: positions of all layers at which bf16 takes another "
                "set of experts, and how many there are.",
        "stages": stages,
        "router_changes": changes,
        "checks": checks,
        "provenance": {
            "command": "tools/reference.py " + shlex.join(sys.argv[1:]),
            "seed": seed,
            "date": datetime.date.today().isoformat(),
            "python": sys.version.split()[0],
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "tokenizers": tokenizers.__version__,
            "numpy": np.__version__,
            "unicode": unicodedata.unidata_version,
        },
    }
    print(json.dumps({k: report[k] for k in ("stages", "router_changes", "checks")}, indent=1))
    if args.dry_run:
        return
    save_tensors(golden, args.dir / "golden.safetensors", {"seed": str(seed)})
    write_json(args.dir / "bf16.json", report)
    for name, value in golden.items():
        print(f"{name:22} {list(value.shape)} {str(value.dtype)[6:]}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)

    p = commands.add_parser("make", help="build a random checkpoint")
    p.add_argument("config", type=Path)
    p.add_argument("--seed", type=int, required=True)
    p.add_argument("--out", type=Path, required=True)
    p.add_argument("--dtype", choices=DTYPES, default="bf16")
    p.add_argument("--layout", choices=["released", "fused"], default="released")
    p.add_argument("--shards", type=int, default=1)
    p.add_argument("--no-vision", action="store_true", help="leave thinker.visual.* out")
    p.set_defaults(run=cmd_make)

    p = commands.add_parser("tokenizer", help="train the tiny tokenizer")
    p.add_argument("--out", type=Path, required=True)
    p.add_argument("--merges", type=int, default=104)
    p.add_argument("--cases", type=Path, help="also write texts and their ids to this file")
    p.set_defaults(run=cmd_tokenizer)

    p = commands.add_parser("question", help="cut a recording to a question")
    p.add_argument("inputs", type=Path, nargs="+", help="16 kHz mono files, joined")
    p.add_argument("--samples", type=int, required=True)
    p.add_argument("--gain", type=float, default=1.0)
    p.add_argument("--quiet-until", type=float, default=0.0, help="seconds")
    p.add_argument("--quiet-gain", type=float, default=0.05)
    p.add_argument("--out", type=Path, required=True)
    p.set_defaults(run=cmd_question)

    p = commands.add_parser("golden", help="run the reference")
    p.add_argument("dir", type=Path)
    p.add_argument("--question", type=Path, required=True)
    p.add_argument("--dry-run", action="store_true", help="print the checks, write nothing")
    p.set_defaults(run=cmd_golden)

    args = parser.parse_args()
    torch.set_num_threads(1)
    args.run(args)


if __name__ == "__main__":
    main()
