"""The same GPT written with PyTorch, to measure against: the lecture's form (head by head) and the fast form
(SDPA).
"""

import torch
import torch.nn.functional as F
from torch import nn


class Head(nn.Module):
    """One attention head with its own matrices, as the lecture's gpt.py has it."""

    def __init__(self, C, D, T, p):
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(C, D, bias=False) for _ in range(3))
        self.register_buffer("past", torch.tril(torch.ones(T, T)))
        self.dropout = nn.Dropout(p)

    def forward(self, x):
        T = x.shape[1]
        q, k = self.query(x), self.key(x)
        scores = q @ k.transpose(-2, -1) * k.shape[-1] ** -0.5
        scores = scores.masked_fill(self.past[:T, :T] == 0, float("-inf"))
        return self.dropout(F.softmax(scores, dim=-1)) @ self.value(x)


class HeadByHead(nn.Module):
    def __init__(self, C, H, T, p):
        super().__init__()
        self.heads = nn.ModuleList([Head(C, C // H, T, p) for _ in range(H)])
        self.proj = nn.Linear(C, C)

    def forward(self, x):
        return self.proj(torch.cat([head(x) for head in self.heads], dim=-1))


class ScaledDotProduct(nn.Module):
    """All heads in one product and PyTorch's own fused attention, as nanoGPT has it."""

    def __init__(self, C, H, T, p):
        super().__init__()
        self.n_head, self.p = H, p
        self.qkv, self.proj = nn.Linear(C, 3 * C, bias=False), nn.Linear(C, C)

    def forward(self, x):
        B, T, C = x.shape
        q, k, v = (part.view(B, T, self.n_head, -1).transpose(1, 2) for part in self.qkv(x).split(C, dim=2))
        y = F.scaled_dot_product_attention(
            q, k, v, dropout_p=self.p if self.training else 0.0, is_causal=True
        )
        return self.proj(y.transpose(1, 2).reshape(B, T, C))


class Block(nn.Module):
    def __init__(self, attention, C, H, T, p, activation):
        super().__init__()
        self.ln1, self.ln2 = nn.LayerNorm(C), nn.LayerNorm(C)
        self.attention, self.dropout = attention(C, H, T, p), nn.Dropout(p)
        self.mlp = nn.Sequential(nn.Linear(C, 4 * C), activation, nn.Linear(4 * C, C), nn.Dropout(p))

    def forward(self, x):
        x = x + self.dropout(self.attention(self.ln1(x)))
        return x + self.mlp(self.ln2(x))


class TorchGPT(nn.Module):
    """config: a tinygpt GPTConfig; attention: HeadByHead or ScaledDotProduct."""

    def __init__(self, config, attention):
        super().__init__()
        V, T, C, H, p = config.vocab_size, config.block_size, config.n_embd, config.n_head, config.dropout
        activation = nn.ReLU() if config.activation == "relu" else nn.GELU(approximate="tanh")
        self.block_size = T
        self.tokens, self.positions = nn.Embedding(V, C), nn.Embedding(T, C)
        self.blocks = nn.Sequential(
            *[Block(attention, C, H, T, p, activation) for _ in range(config.n_layer)]
        )
        self.norm, self.head = nn.LayerNorm(C), nn.Linear(C, V, bias=config.head_bias)
        if config.tied_head:
            self.head.weight = self.tokens.weight

    def forward(self, ids, targets=None):
        x = self.tokens(ids) + self.positions(torch.arange(ids.shape[1], device=ids.device))
        logits = self.head(self.norm(self.blocks(x)))
        return logits if targets is None else F.cross_entropy(logits.flatten(0, 1), targets.flatten())

    @torch.no_grad()
    def generate(self, ids, n_tokens):
        """As gpt.py does it: the whole window again for every token."""
        for _ in range(n_tokens):
            probabilities = F.softmax(self(ids[:, -self.block_size :])[:, -1], dim=-1)
            ids = torch.cat([ids, torch.multinomial(probabilities, 1)], dim=1)
        return ids
