"""The talker and its code predictor, with the reference's parameter names (prefix `talker.`)."""

import torch
import torch.nn as nn
import torch.nn.functional as F

from common import (CODEC_BOS, CODEC_EOS, CODEC_NOTHINK, CODEC_PAD, CODEC_SPEAKER, CODEC_THINK_BOS,
                    CODEC_THINK_EOS, CODES, GROUPS)
from config import PREDICTOR, TALKER, TALKER_VOCAB, THINKER
from layers import Decoder, initialise

# What the codec adds to rows 3 to 8 of the nine that open a reply.
OPENING_CODES = [CODEC_NOTHINK, CODEC_THINK_BOS, CODEC_THINK_EOS, CODEC_SPEAKER, CODEC_PAD,
                 CODEC_BOS]


class Projection(nn.Module):
    def __init__(self, width, inner, out):
        super().__init__()
        self.linear_fc1, self.linear_fc2 = nn.Linear(width, inner), nn.Linear(inner, out)

    def forward(self, x):
        return self.linear_fc2(F.silu(self.linear_fc1(x)))


class TalkerModel(Decoder):
    def __init__(self, c):
        super().__init__(c)
        self.codec_embedding = nn.Embedding(TALKER_VOCAB, c["hidden"])


class PredictorModel(Decoder):
    def __init__(self, c):
        super().__init__(c)
        self.codec_embedding = nn.ModuleList(
            [nn.Embedding(CODES, c["hidden"]) for _ in range(GROUPS - 1)])


class CodePredictor(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.model = PredictorModel(c)
        self.lm_head = nn.ModuleList(
            [nn.Linear(c["hidden"], CODES, bias=False) for _ in range(GROUPS - 1)])


class Talker(nn.Module):
    def __init__(self, dropout=0.0):
        super().__init__()
        trunk, predictor = {**TALKER, "dropout": dropout}, {**PREDICTOR, "dropout": dropout}
        widths = (THINKER["hidden"], TALKER["projection_inner"], TALKER["hidden"])
        self.model = TalkerModel(trunk)
        self.text_projection, self.hidden_projection = Projection(*widths), Projection(*widths)
        self.codec_head = nn.Linear(TALKER["hidden"], TALKER_VOCAB, bias=False)
        self.code_predictor = CodePredictor(predictor)
        self.register_buffer("opening_codes", torch.tensor(OPENING_CODES[:5]), persistent=False)
        initialise(self.model, TALKER["layers"])
        initialise(self.code_predictor, PREDICTOR["layers"])
        for table in self.tables():
            nn.init.normal_(table.weight, std=0.35)

    def tables(self):
        return [self.model.codec_embedding, *self.code_predictor.model.codec_embedding]

    def frame_embedding(self, codes):
        """[..., groups] -> the sum of the embeddings of a frame's codes"""
        return sum(table(codes[..., g]) for g, table in enumerate(self.tables()))

    def opening(self, projected):
        """The first eight rows of a reply: projected texts [8, width] plus codec embeddings."""
        codec = F.pad(self.model.codec_embedding(self.opening_codes), (0, 0, 3, 0))
        return projected + codec

    def residual_logits(self, hidden, codes):
        """Logits of codes 1..k of frames, from the talker's state and codes 0..k-1 [m, k]."""
        tables = self.tables()
        rows = [hidden] + [tables[g](codes[:, g]).to(hidden.dtype) for g in range(codes.shape[1])]
        x = torch.stack(rows, 1)
        y = self.code_predictor.model(x, torch.arange(x.shape[1], device=x.device))
        heads = self.code_predictor.lm_head
        return torch.stack([heads[g](y[:, g + 1]) for g in range(codes.shape[1])], 1)


def sample(logits, temperature, top_k, top_p=1.0):
    """One draw a row, by the reference's rules."""
    values, index = (logits.float() / max(temperature, 1e-4)).topk(min(top_k, logits.shape[-1]))
    probs = values.softmax(-1)
    before = probs.cumsum(-1) - probs
    probs = torch.where(before < top_p, probs, 0)
    return index.gather(-1, torch.multinomial(probs, 1))[:, 0]


def allowed_first(logits, used, penalty):
    """Repetition penalty on the codes in use, and nothing but real codes and the end."""
    scaled = torch.where(logits > 0, logits / penalty, logits * penalty)
    logits = torch.where(used, scaled, logits).clone()
    end = logits[:, CODEC_EOS].clone()
    logits[:, CODES:] = -1e9
    logits[:, CODEC_EOS] = end
    return logits
