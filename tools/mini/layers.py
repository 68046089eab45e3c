"""The decoder layers of Qwen3OmniMoe as plain modules that train fast.

Names and shapes of all parameters are those of the reference's state dict (fused experts), and
test_layers.py shows that the outputs are equal.  What differs is the way: a handful of experts is
computed for every token as two large products, which a CUDA graph can hold."""

import math

import torch
import torch.nn as nn
import torch.nn.functional as F


class RmsNorm(nn.Module):
    def __init__(self, width, eps=1e-6):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x):
        return F.rms_norm(x.float(), (x.shape[-1],), self.weight, self.eps).to(x.dtype)


def rope_tables(positions, head_dim, theta):
    """cos and sin [..., head_dim] of integer positions, halves repeated (rotate-half pairing)."""
    exponent = torch.arange(0, head_dim, 2, device=positions.device).float() / head_dim
    angles = positions[..., None].float() * theta ** -exponent
    angles = torch.cat([angles, angles], -1)
    return angles.cos(), angles.sin()


def rotate(x, tables):
    cos, sin = (t.unsqueeze(-3).to(x.dtype) for t in tables)  # one table for all heads
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat([-second, first], -1) * sin


class Attention(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = c["heads"], c["kv_heads"], c["head_dim"]
        width, inner, kv = c["hidden"], self.heads * self.head_dim, self.kv_heads * self.head_dim
        self.q_proj = nn.Linear(width, inner, bias=False)
        self.k_proj = nn.Linear(width, kv, bias=False)
        self.v_proj = nn.Linear(width, kv, bias=False)
        self.o_proj = nn.Linear(inner, width, bias=False)
        self.q_norm, self.k_norm = RmsNorm(self.head_dim), RmsNorm(self.head_dim)

    def forward(self, x, tables, mask):
        batch, length, _ = x.shape
        shape = (batch, length, -1, self.head_dim)
        q = rotate(self.q_norm(self.q_proj(x).view(shape)).transpose(1, 2), tables)
        k = rotate(self.k_norm(self.k_proj(x).view(shape)).transpose(1, 2), tables)
        v = self.v_proj(x).view(shape).transpose(1, 2)
        k, v = (t.repeat_interleave(self.heads // self.kv_heads, dim=1) for t in (k, v))
        q, k = q.to(v.dtype), k.to(v.dtype)
        a = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None)
        return self.o_proj(a.transpose(1, 2).reshape(batch, length, -1))


class Mlp(nn.Module):
    def __init__(self, width, inner):
        super().__init__()
        self.gate_proj = nn.Linear(width, inner, bias=False)
        self.up_proj = nn.Linear(width, inner, bias=False)
        self.down_proj = nn.Linear(inner, width, bias=False)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Router(nn.Module):
    def __init__(self, experts, width):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(experts, width))


class Experts(nn.Module):
    def __init__(self, experts, width, inner):
        super().__init__()
        self.gate_up_proj = nn.Parameter(torch.empty(experts, 2 * inner, width))
        self.down_proj = nn.Parameter(torch.empty(experts, width, inner))

    def forward(self, x, weights):
        """x [..., width]; weights [..., experts], zero for the experts that a token skips."""
        experts, double, width = self.gate_up_proj.shape
        both = F.linear(x, self.gate_up_proj.view(experts * double, width))
        gate, up = both.unflatten(-1, (experts, 2, double // 2)).unbind(-2)
        inner = F.silu(gate) * up * weights[..., None].to(up.dtype)
        return F.linear(inner.flatten(-2), self.down_proj.permute(1, 0, 2).flatten(1))


class Mixture(nn.Module):
    """Top-k experts with renormalised weights, and a gated shared expert where there is one."""

    def __init__(self, c):
        super().__init__()
        self.top_k = c["top_k"]
        self.gate = Router(c["experts"], c["hidden"])
        self.experts = Experts(c["experts"], c["hidden"], c["expert_inner"])
        if c.get("shared_inner"):
            self.shared_expert = Mlp(c["hidden"], c["shared_inner"])
            self.shared_expert_gate = nn.Linear(c["hidden"], 1, bias=False)
        self.balance = None  # of the last call: the usual load-balancing loss

    def forward(self, x):
        with torch.autocast(x.device.type, enabled=False):
            probs = F.linear(x.float(), self.gate.weight.float()).softmax(-1)
        chosen = torch.zeros_like(probs).scatter(-1, probs.topk(self.top_k, -1).indices, 1.0)
        weights = probs * chosen
        weights = weights / weights.sum(-1, keepdim=True)
        dims = tuple(range(probs.dim() - 1))
        self.balance = (chosen.mean(dims) * probs.mean(dims)).sum() * probs.shape[-1] / self.top_k
        y = self.experts(x, weights)
        if hasattr(self, "shared_expert"):
            y = y + torch.sigmoid(self.shared_expert_gate(x)) * self.shared_expert(x)
        return y


class DecoderLayer(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.self_attn = Attention(c)
        self.mlp = Mixture(c) if c.get("experts") else Mlp(c["hidden"], c["inner"])
        self.input_layernorm = RmsNorm(c["hidden"])
        self.post_attention_layernorm = RmsNorm(c["hidden"])
        self.dropout = nn.Dropout(c.get("dropout", 0.0))

    def forward(self, x, tables, mask):
        x = x + self.dropout(self.self_attn(self.input_layernorm(x), tables, mask))
        return x + self.dropout(self.mlp(self.post_attention_layernorm(x)))


class Decoder(nn.Module):
    """Layers and the final norm; `tap` is the residual stream at the input of layer `tap_at`."""

    def __init__(self, c, tap_at=None):
        super().__init__()
        self.layers = nn.ModuleList([DecoderLayer(c) for _ in range(c["layers"])])
        self.norm = RmsNorm(c["hidden"])
        self.head_dim, self.theta = c["head_dim"], c.get("theta", 1e6)
        self.tap_at, self.tap = tap_at, None

    def forward(self, x, positions, mask=None):
        """positions [batch, length] or [length]; mask None: causal."""
        if positions.dim() == 1:
            positions = positions[None]
        tables = rope_tables(positions, self.head_dim, self.theta)
        for i, layer in enumerate(self.layers):
            if i == self.tap_at:
                self.tap = x
            x = layer(x, tables, mask)
        return self.norm(x)

    def balance(self):
        losses = [layer.mlp.balance for layer in self.layers if isinstance(layer.mlp, Mixture)]
        return torch.stack(losses).mean()


def initialise(module, layers):
    """Products keep their scale; what is added to the residual stream starts small."""
    for name, p in module.named_parameters():
        if p.dim() < 2 or "conv2d" in name or "embedding" in name:
            continue
        std = p.shape[-1] ** -0.5
        if name.endswith(("o_proj.weight", "out_proj.weight", "down_proj.weight", "fc2.weight",
                          "experts.down_proj")):
            std /= math.sqrt(2 * layers)
        if name.endswith("gate.weight"):
            std = 0.02
        nn.init.normal_(p, std=std)


# ------------------------------------------------------------------------------------------------
# Audio encoder
# ------------------------------------------------------------------------------------------------

CHUNK, CHUNK_TOKENS = 100, 13  # mel frames of a chunk of one second, and what the stem makes of it


class EncoderAttention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.k_proj, self.v_proj = nn.Linear(width, width), nn.Linear(width, width)
        self.q_proj, self.out_proj = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x, mask):
        batch, length, width = x.shape
        q, k, v = (p(x).view(batch, length, self.heads, -1).transpose(1, 2)
                   for p in (self.q_proj, self.k_proj, self.v_proj))
        a = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.out_proj(a.transpose(1, 2).reshape(batch, length, width))


class EncoderLayer(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.self_attn = EncoderAttention(c["hidden"], c["heads"])
        self.self_attn_layer_norm = nn.LayerNorm(c["hidden"])
        self.fc1 = nn.Linear(c["hidden"], c["inner"])
        self.fc2 = nn.Linear(c["inner"], c["hidden"])
        self.final_layer_norm = nn.LayerNorm(c["hidden"])
        self.dropout = nn.Dropout(c.get("dropout", 0.0))

    def forward(self, x, mask):
        x = x + self.dropout(self.self_attn(self.self_attn_layer_norm(x), mask))
        return x + self.dropout(self.fc2(F.gelu(self.fc1(self.final_layer_norm(x)))))


def sinusoids(length, width):
    rates = torch.exp(-math.log(10000) / (width // 2 - 1) * torch.arange(width // 2).float())
    angles = torch.arange(length)[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], 1)


class AudioEncoder(nn.Module):
    def __init__(self, c):
        super().__init__()
        channels, width = c["channels"], c["hidden"]
        self.conv2d1 = nn.Conv2d(1, channels, 3, 2, padding=1)
        self.conv2d2 = nn.Conv2d(channels, channels, 3, 2, padding=1)
        self.conv2d3 = nn.Conv2d(channels, channels, 3, 2, padding=1)
        self.conv_out = nn.Linear(channels * c["mels"] // 8, width, bias=False)
        self.layers = nn.ModuleList([EncoderLayer(c) for _ in range(c["layers"])])
        self.ln_post = nn.LayerNorm(width)
        self.proj1, self.proj2 = nn.Linear(width, width), nn.Linear(width, c["output"])
        self.register_buffer("positions", sinusoids(CHUNK_TOKENS, width), persistent=False)

    def stem(self, chunks):
        """[n, mels, 100] -> [n, 13, width]"""
        x = chunks[:, None].contiguous(memory_format=torch.channels_last)
        for conv in (self.conv2d1, self.conv2d2, self.conv2d3):
            x = F.gelu(conv(x))
        x = x.permute(0, 3, 1, 2).flatten(2)  # [n, time, channels * bands]
        return self.conv_out(x) + self.positions.to(x.dtype)[:x.shape[1]]

    def forward(self, chunks, rows, mask):
        """Chunks of `rows` rows -> (output [rows, tokens, output], features before the output)."""
        x = self.stem(chunks)
        x = x.reshape(rows, -1, x.shape[-1])
        for layer in self.layers:
            x = layer(x, mask)
        features = self.ln_post(x)
        return self.proj2(F.gelu(self.proj1(features))), features
