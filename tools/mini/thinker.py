"""The Thinker with its audio encoder, with the reference's parameter names (prefix `thinker.`)."""

import torch
import torch.nn as nn

from common import token_embeddings
from config import ACCEPT_LAYER, ENCODER, THINKER
from layers import AudioEncoder, Decoder, initialise


class ThinkerModel(Decoder):
    def __init__(self, c, vocab):
        super().__init__(c, ACCEPT_LAYER)
        self.embed_tokens = nn.Embedding(vocab, c["hidden"])
        self.embed_tokens.weight.data.copy_(token_embeddings(vocab, c["hidden"]))
        self.embed_tokens.weight.requires_grad_(False)


class Thinker(nn.Module):
    def __init__(self, vocab, dropout=0.0):
        super().__init__()
        self.audio_tower = AudioEncoder({**ENCODER, "dropout": dropout})
        self.model = ThinkerModel({**THINKER, "dropout": dropout}, vocab)
        self.lm_head = nn.Linear(THINKER["hidden"], vocab, bias=False)
        initialise(self.audio_tower, ENCODER["layers"])
        initialise(self.model, THINKER["layers"])
        nn.init.normal_(self.lm_head.weight, std=0.02)
        self.model.embed_tokens.weight.data.copy_(token_embeddings(vocab, THINKER["hidden"]))

    def forward(self, ids, audio, source, positions, mask):
        """Normed states [rows, length, hidden]; source >= 0: the row of `audio` in place of the
        token's embedding."""
        x = self.model.embed_tokens(ids)
        heard = audio.flatten(0, 1)[source.clamp(min=0)]
        x = torch.where((source >= 0)[..., None], heard.to(x.dtype), x)
        return self.model(x, positions, mask)
