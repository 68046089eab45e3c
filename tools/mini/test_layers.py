#!/usr/bin/env python3
"""Shows that the training modules compute what the reference's classes compute.

usage: test_layers.py [TOKENIZER]; random weights, fp32, on the CPU"""

import sys

import numpy as np
import torch

import config
from common import CODES, DEVICE, GROUPS, token_embeddings
from layers import CHUNK
from packing import SLOTS, Packer, Prompt, Shape
from talker import Talker
from thinker import Thinker
from train_talker import OPENING, USER_ROWS, Rows, load_tokenizer
from train_thinker import masks_of
from whisper_mel import WhisperMel, chunked, token_count


def reference_model(tokenizer):
    from transformers import Qwen3OmniMoeConfig, Qwen3OmniMoeForConditionalGeneration

    ids = {t: tokenizer.token_to_id(t) for t in tokenizer.get_vocab()}
    ids.update({w: tokenizer.encode(w).ids[0] for w in ("user", "system", "assistant")})
    raw = config.build(ids, tokenizer.get_vocab_size())
    model = Qwen3OmniMoeForConditionalGeneration._from_config(
        Qwen3OmniMoeConfig.from_dict(raw), attn_implementation="eager",
        experts_implementation="eager")
    return model.float().eval()


def load_into(part, module):
    """Every weight of the training module has a place in the reference, and none is missing."""
    missing, unexpected = part.load_state_dict(module.state_dict(), strict=False)
    missing = [k for k in missing if not k.startswith("visual.")]
    assert not missing and not unexpected, (missing, unexpected)


def close(name, mine, theirs):
    error = (mine - theirs).abs().max().item() / theirs.abs().max().item()
    print(f"{name:28} largest difference {error:.1e}")
    assert error < 1e-4, name


def mel_of(wave):
    from transformers import WhisperFeatureExtractor

    extractor = WhisperFeatureExtractor(feature_size=128)
    out = extractor(wave, sampling_rate=16000, padding=True, truncation=False,
                    return_attention_mask=True, return_tensors="pt")
    return out["input_features"][0, :, :int(out["attention_mask"].sum())]


@torch.no_grad()
def test_thinker(reference, tokenizer):
    thinker = Thinker(tokenizer.get_vocab_size()).eval()
    load_into(reference.thinker, thinker)
    rng = np.random.default_rng(0)
    waves = [rng.standard_normal(n).astype(np.float32) * 0.1 for n in (16000 * 2 + 4100, 39000)]
    lengths = torch.tensor([len(w) for w in waves])
    padded = torch.zeros(2, int(lengths.max()))
    for row, wave in zip(padded, waves):
        row[:len(wave)] = torch.from_numpy(wave)
    mels, frames = WhisperMel()(padded, lengths)
    theirs = [mel_of(w) for w in waves]
    for mine, n, true in zip(mels, frames, theirs):
        assert n == true.shape[1]
        close("mel", mine[:, :n - 1], true[:, :-1])

    # A dialogue of both, behind another one in the same row.
    chunks = chunked(mels)
    bank = chunks.flatten(0, 1)
    first = np.array([[0, chunks.shape[1]]])
    prompt = Prompt(tokenizer)
    texts = [tokenizer.encode(t).ids for t in ("what is two plus two", "and times three")]
    packer = Packer(prompt, Shape(3, 2, 256, 8, 16), first, frames.numpy()[None], texts, texts)
    packer.begin()
    assert packer.add([(0, 1)]) and packer.add([(0, 0), (0, 1)])
    batch = {k: torch.from_numpy(v) for k, v in packer.batch.items()}
    heard, said = masks_of(batch)
    audio, _ = thinker.audio_tower(bank[batch["chunks"]], heard.shape[0], heard)
    states = thinker(batch["ids"], audio, batch["source"], batch["positions"], said)
    mine = thinker.lm_head(states)

    where = (batch["document"] == 1).nonzero()
    ids = batch["ids"][where[:, 0], where[:, 1]][None]
    features = torch.zeros(2, 128, int(frames.max()))
    mask = torch.zeros(2, int(frames.max()), dtype=torch.long)
    for i, mel in enumerate(mels):
        features[i, :, :frames[i]], mask[i, :frames[i]] = mel[:, :frames[i]], 1
    out = reference.thinker(input_ids=ids, attention_mask=torch.ones_like(ids),
                            input_features=features, feature_attention_mask=mask,
                            output_hidden_states=True)
    close("thinker logits", mine[where[:, 0], where[:, 1]], out.logits[0])
    close("tap", thinker.model.tap[where[:, 0], where[:, 1]],
          out.hidden_states[config.ACCEPT_LAYER][0])


@torch.no_grad()
def test_talker(reference, tokenizer):
    talker = Talker().eval()
    load_into(reference.talker, talker)
    rows = Rows(talker, tokenizer, ["what is this"], templates=4)
    rows.users[:] = -1
    said = tokenizer.encode("Two plus two is four.").ids
    tokens = torch.tensor([said + [tokenizer.token_to_id("<tts_text_eod>")]
                           + [tokenizer.token_to_id("<tts_pad>")] * 3])
    codes = torch.randint(0, CODES, (1, tokens.shape[1], GROUPS))
    built, positions, mask = rows.build(rows.users[:1], torch.zeros(1, dtype=torch.long),
                                        tokens, codes)
    assert positions[0, USER_ROWS:].tolist() == list(range(OPENING + tokens.shape[1]))
    states = talker.model(built, positions, mask)[0, USER_ROWS + OPENING:]

    # The opening of the reference.
    c = reference.config
    head = tokenizer.encode("<|im_start|>assistant\n").ids + said
    embeddings = token_embeddings(tokenizer.get_vocab_size(), config.THINKER["hidden"])
    special = [c.tts_bos_token_id, c.tts_eos_token_id, c.tts_pad_token_id]
    bos, eos, pad = reference.talker.text_projection(embeddings[special])[None].chunk(3, 1)
    opening, _, trailing = reference._get_talker_assistant_parts(
        0, len(head), c.talker_config.speaker_id["ethan"], embeddings[head][None], pad, bos, eos)
    close("opening rows", built[0, USER_ROWS:USER_ROWS + OPENING + 1], opening[0])
    frames = sum(t(codes[:, 1:, g]) for g, t in enumerate(talker.tables()))
    text = torch.cat([trailing, pad.expand(1, frames.shape[1] - trailing.shape[1], -1)], 1)
    whole = torch.cat([opening, frames + text], 1)
    out = reference.talker.model(inputs_embeds=whole).last_hidden_state[0, OPENING:]
    close("talker states", states, out)
    close("first codes", talker.codec_head(states), reference.talker.codec_head(out))

    true = codes[0, 1:]
    mine = talker.residual_logits(states[:-1], true[:, :-1])
    inputs = [states[:-1]] + [t(true[:, g]) for g, t in enumerate(talker.tables()[:-1])]
    predictor = reference.talker.code_predictor
    out = predictor.model(inputs_embeds=torch.stack(inputs, 1)).last_hidden_state
    theirs = torch.stack([h(out[:, g + 1]) for g, h in enumerate(predictor.lm_head)], 1)
    close("residual codes", mine, theirs)


def main():
    torch.manual_seed(0)
    assert DEVICE == "cpu", "run with CUDA_VISIBLE_DEVICES="
    tokenizer = load_tokenizer(sys.argv[1] if len(sys.argv) > 1 else "tests/golden/long")
    reference = reference_model(tokenizer)
    parts = {"thinker": reference.thinker, "talker": reference.talker,
             "code2wav": reference.code2wav}
    for name, part in parts.items():
        n = sum(p.numel() for k, p in part.named_parameters() if not k.startswith("visual."))
        print(f"{name:28} {n / 1e6:.2f} M parameters")
    assert token_count(CHUNK * SLOTS) == 13 * SLOTS
    test_thinker(reference, tokenizer)
    test_talker(reference, tokenizer)


if __name__ == "__main__":
    main()
