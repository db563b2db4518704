"""The same GPT written with PyTorch, to measure against and to compare with.

It has two forms of attention: the lecture's, head by head, and the fast one (SDPA). The layers have our
model's names. Its weights can be copied in, and the gradients come out under its names.
"""

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import nn

TORCH_ACTIVATIONS = {
    "relu": nn.ReLU,
    "gelu": lambda: nn.GELU(approximate="tanh"),
    "gelu_exact": nn.GELU,
}


class Head(nn.Module):
    """One attention head with its own matrices, as the lecture's gpt.py has it."""

    def __init__(self, config):
        super().__init__()
        C, T = config.n_embd, config.block_size
        D = C // config.n_head
        # In the lecture's order: from the same seed they draw the same weights.
        self.key, self.query, self.value = (nn.Linear(C, D, bias=config.qkv_bias) for _ in range(3))
        self.register_buffer("past", torch.tril(torch.ones(T, T)))
        self.dropout = nn.Dropout(config.dropout)
        self.scale = config.attention_scale or D**-0.5

    def forward(self, x):
        T = x.shape[1]
        q, k = self.query(x), self.key(x)  # (B, T, C) -> (B, T, D)
        scores = q @ k.transpose(-2, -1) * self.scale  # (B, T, T)
        scores = scores.masked_fill(self.past[:T, :T] == 0, float("-inf"))
        return self.dropout(F.softmax(scores, dim=-1)) @ self.value(x)


class HeadByHead(nn.Module):
    """The lecture's attention: each head by itself."""

    def __init__(self, config):
        super().__init__()
        self.heads = nn.ModuleList([Head(config) for _ in range(config.n_head)])
        self.c_proj = nn.Linear(config.n_embd, config.n_embd)

    def forward(self, x):
        return self.c_proj(torch.cat([head(x) for head in self.heads], dim=-1))

    def c_attn(self):
        """The layers that stand side by side in our c_attn: all queries, then all keys, then all values."""
        queries = [head.query for head in self.heads]
        keys = [head.key for head in self.heads]
        values = [head.value for head in self.heads]
        return queries + keys + values


class ScaledDotProduct(nn.Module):
    """All heads in one product and PyTorch's own fused attention, as nanoGPT has it."""

    def __init__(self, config):
        super().__init__()
        C = config.n_embd
        self.n_head, self.p, self.scale = config.n_head, config.dropout, config.attention_scale
        self.c_attn, self.c_proj = nn.Linear(C, 3 * C, bias=config.qkv_bias), nn.Linear(C, C)

    def forward(self, x):
        B, T, C = x.shape
        qkv = self.c_attn(x).split(C, dim=2)  # (B, T, 3C) -> 3 x (B, T, C)
        q, k, v = (part.view(B, T, self.n_head, -1).transpose(1, 2) for part in qkv)  # (B, H, T, D)
        p = self.p if self.training else 0.0
        y = F.scaled_dot_product_attention(q, k, v, dropout_p=p, is_causal=True, scale=self.scale)
        return self.c_proj(y.transpose(1, 2).reshape(B, T, C))  # (B, H, T, D) -> (B, T, C)


class Block(nn.Module):
    def __init__(self, config, attention):
        super().__init__()
        C = config.n_embd
        self.ln_1, self.ln_2 = nn.LayerNorm(C), nn.LayerNorm(C)
        self.attn, self.dropout = attention(config), nn.Dropout(config.dropout)
        self.mlp = nn.Sequential(
            OrderedDict(
                c_fc=nn.Linear(C, 4 * C),
                activation=TORCH_ACTIVATIONS[config.activation](),
                c_proj=nn.Linear(4 * C, C),
                dropout=nn.Dropout(config.dropout),
            )
        )

    def forward(self, x):
        x = x + self.dropout(self.attn(self.ln_1(x)))
        return x + self.mlp(self.ln_2(x))


class TorchGPT(nn.Module):
    """config: a tinygpt GPTConfig; attention: HeadByHead or ScaledDotProduct.

    It differs from our model in one thing: there is no dropout after the embeddings.
    """

    def __init__(self, config, attention):
        super().__init__()
        C = config.n_embd
        self.config = config
        self.transformer = nn.ModuleDict(
            dict(
                wte=nn.Embedding(config.vocab_size, C),
                wpe=nn.Embedding(config.block_size, C),
                h=nn.Sequential(*[Block(config, attention) for _ in range(config.n_layer)]),
                ln_f=nn.LayerNorm(C),
            )
        )
        # a tied head has no bias
        self.lm_head = nn.Linear(C, config.vocab_size, bias=config.head_bias and not config.tied_head)
        if config.tied_head:
            self.lm_head.weight = self.transformer.wte.weight

    def forward(self, ids, targets=None):
        """Logits (B, T, V) for ids (B, T), or with targets (B, T) the mean cross entropy."""
        body = self.transformer
        x = body.wte(ids) + body.wpe(torch.arange(ids.shape[1], device=ids.device))  # (B, T, C) + (T, C)
        logits = self.lm_head(body.ln_f(body.h(x)))
        return logits if targets is None else F.cross_entropy(logits.flatten(0, 1), targets.flatten())

    @torch.no_grad()
    def generate(self, ids, n_tokens):
        """As gpt.py does it: the whole window again for every token."""
        for _ in range(n_tokens):
            probabilities = F.softmax(self(ids[:, -self.config.block_size :])[:, -1], dim=-1)
            ids = torch.cat([ids, torch.multinomial(probabilities, 1)], dim=1)
        return ids

    @torch.no_grad()
    def copy_weights(self, model):
        """Take over the weights, and their dtype, of one of our models with the same config."""
        ours = {name: torch.tensor(parameter.data) for name, parameter in model.named_parameters()}
        self.to(ours["transformer.wte.weight"].dtype)
        for name, layers in self.layers_by_our_names():
            for kind, _ in layers[0].named_parameters():
                parts = ours[f"{name}.{kind}"].chunk(len(layers), dim=-1)
                for layer, part in zip(layers, parts, strict=True):
                    in_our_layout(layer, getattr(layer, kind)).copy_(part)

    def gradients(self):
        """The gradients as NumPy arrays, by the names and in the layout of our model."""
        gradients = {}
        for name, layers in self.layers_by_our_names():
            for kind, _ in layers[0].named_parameters():
                parts = [in_our_layout(layer, getattr(layer, kind).grad) for layer in layers]
                gradients[f"{name}.{kind}"] = torch.cat(parts, dim=-1).numpy()
        return gradients

    def layers_by_our_names(self):
        """Yield (a layer's name in our model, the layers here that hold it side by side)."""
        for name, module in self.named_modules():
            if name == "lm_head" and self.config.tied_head:
                continue  # our model has no such layer
            if isinstance(module, HeadByHead):
                yield f"{name}.c_attn", module.c_attn()
            elif isinstance(module, (nn.Linear, nn.Embedding, nn.LayerNorm)) and ".heads." not in name:
                yield name, [module]


def in_our_layout(layer, tensor):
    """A view of a layer's weight, bias or gradient as our model holds it: a Linear's weight is (in, out)."""
    return tensor.t() if isinstance(layer, nn.Linear) else tensor
