"""A GPT, arranged as in nanoGPT, on our own autograd. Read from Linear down to GPT.

Shapes: B sequences, T positions, C channels, V tokens in the vocabulary; in attention H heads of D channels.
Weights are stored (in, out) and applied as x @ W, which is also GPT-2's layout. There is dropout only in a
call that is given a `Stream` to draw from.
"""

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

import autograd as ag
from autograd import Stream, Tensor
from autograd.backend import array_module, move
from autograd.ops.attention import attend_to_cache
from autograd.ops.nn import as_ids
from autograd.random import check_dropout_rate, check_stream
from tinygpt.config import GPTConfig


class Module:
    """Holds Tensors and other Modules as attributes; knows how to list them."""

    def named_parameters(self, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
        """Yield (name, Tensor), named like `h.0.attn.c_attn.weight`.

        A shared Tensor comes once, under its first name.
        """
        seen = set()
        for name, parameter in self._walk(prefix):
            if id(parameter) not in seen:
                seen.add(id(parameter))
                yield name, parameter

    def named_modules(self, name: str = "") -> Iterator[tuple[str, "Module"]]:
        """Yield (name, Module) for this module and all below it; the outermost has the name of its class."""
        yield name or type(self).__name__, self
        for child, value in self._children():
            if isinstance(value, Module):
                yield from value.named_modules(f"{name}.{child}".lstrip("."))

    def _walk(self, prefix):
        for name, value in self._children():
            if isinstance(value, Tensor):
                yield prefix + name, value
            else:
                yield from value._walk(f"{prefix}{name}.")

    def _children(self):
        """Yield (name, Tensor or Module) for each attribute that is one, and for the items of lists."""
        for name, value in vars(self).items():
            if isinstance(value, list):
                yield from ((f"{name}.{i}", item) for i, item in enumerate(value))
            elif isinstance(value, (Tensor, Module)):
                yield name, value

    def to(self, device: str) -> Self:
        """Move the parameters to a device ("cpu", "cuda:0"); returns the module."""
        for parameter in self.parameters():
            parameter.data = move(parameter.data, device)
        return self

    def parameters(self) -> list[Tensor]:
        return [parameter for _, parameter in self.named_parameters()]


class Linear(Module):
    def __init__(self, n_in: int, n_out: int, bias: bool = True, activation: str | None = None) -> None:
        self.weight = Tensor(np.zeros((n_in, n_out), np.float32), requires_grad=True, copy=False)
        self.bias = Tensor(np.zeros(n_out, np.float32), requires_grad=True, copy=False) if bias else None
        self.activation = activation

    def __call__(self, x: Tensor) -> Tensor:
        return ag.linear(x, self.weight, self.bias, activation=self.activation)

    def onto(self, residual: Tensor, x: Tensor, dropout: "Dropout", stream: Stream | None) -> Tensor:
        """residual + dropout(self(x)), in one operation. For layers without an activation."""
        p, stream = dropout.draws(stream)
        return ag.residual_linear(residual, x, self.weight, self.bias, p, stream)


class Embedding(Module):
    def __init__(self, n_rows: int, n_embd: int) -> None:
        self.weight = Tensor(np.zeros((n_rows, n_embd), np.float32), requires_grad=True, copy=False)

    def __call__(self, ids: np.ndarray) -> Tensor:
        return ag.embedding(self.weight, ids)


class LayerNorm(Module):
    def __init__(self, n_embd: int) -> None:
        self.weight = Tensor(np.ones(n_embd, np.float32), requires_grad=True, copy=False)
        self.bias = Tensor(np.zeros(n_embd, np.float32), requires_grad=True, copy=False)

    def __call__(self, x: Tensor) -> Tensor:
        return ag.layer_norm(x, self.weight, self.bias)


class Dropout(Module):
    """Every dropout layer of a model has its own site in the random space: no two draw the same mask."""

    def __init__(self, p: float, site: int) -> None:
        check_dropout_rate(p)
        self.p, self.site = p, site

    def __call__(self, x: Tensor, stream: Stream | None) -> Tensor:
        p, stream = self.draws(stream)
        return ag.dropout(x, p, stream) if p else x

    def draws(self, stream: Stream | None) -> tuple[float, Stream | None]:
        """With what probability this layer drops, and where it draws. Without a stream it drops nothing."""
        if stream is None or self.p == 0:
            return 0.0, None
        return self.p, stream.at(site=self.site)


@dataclass
class BlockCache:
    """One block's keys and values (B, H, T, D), for sampling. See attend_to_cache."""

    keys: np.ndarray
    values: np.ndarray
    start: int  # how many positions are filled; the new ones come after these
    last_only: bool  # whether the block need only answer for its last position


class CausalSelfAttention(Module):
    def __init__(self, config: GPTConfig, site: int) -> None:
        # q, k and v in one product
        self.c_attn = Linear(config.n_embd, 3 * config.n_embd, bias=config.qkv_bias)
        self.c_proj = Linear(config.n_embd, config.n_embd)
        self.n_head, self.scale = config.n_head, config.attention_scale
        self.p, self.site = config.dropout, site
        self.dropout = Dropout(config.dropout, site + 1)

    def __call__(
        self, x: Tensor, residual: Tensor, stream: Stream | None, cache: BlockCache | None = None
    ) -> Tensor:
        """What the heads find in x, added to the residual stream."""
        qkv = self.c_attn(x)  # (B, T, C) -> (B, T, 3C)
        if cache is not None:
            y = self._attend_to_cache(qkv, cache)
            residual = residual[:, -1:] if cache.last_only else residual  # (B, T, C) -> (B, 1, C), as y
        elif stream is None:
            y = ag.causal_attention(qkv, self.n_head, self.scale)  # (B, T, 3C) -> (B, T, C)
        else:
            here = stream.at(site=self.site)
            y = ag.causal_attention(qkv, self.n_head, self.scale, dropout=self.p, stream=here)
        return self.c_proj.onto(residual, y, self.dropout, stream)

    def _attend_to_cache(self, qkv, cache):
        y = attend_to_cache(
            qkv.data,
            self.n_head,
            keys=cache.keys,
            values=cache.values,
            start=cache.start,
            last_only=cache.last_only,
            scale=self.scale,
        )
        return Tensor(y)  # (B, T, 3C) -> (B, T, C), or (B, 1, C) if last_only


class MLP(Module):
    def __init__(self, config: GPTConfig, site: int) -> None:
        self.c_fc = Linear(config.n_embd, 4 * config.n_embd, activation=config.activation)
        self.c_proj = Linear(4 * config.n_embd, config.n_embd)
        self.dropout = Dropout(config.dropout, site)

    def __call__(self, x: Tensor, residual: Tensor, stream: Stream | None) -> Tensor:
        hidden = self.c_fc(x)  # (B, T, C) -> (B, T, 4C)
        return self.c_proj.onto(residual, hidden, self.dropout, stream)  # (B, T, 4C) -> (B, T, C)


class Block(Module):
    """Communication (attention), then computation (MLP).

    Each works on a normalised copy, and its result is added to the residual stream.
    """

    SITES = 3  # dropout layers per block

    def __init__(self, config: GPTConfig, site: int) -> None:
        self.ln_1 = LayerNorm(config.n_embd)
        self.attn = CausalSelfAttention(config, site)
        self.ln_2 = LayerNorm(config.n_embd)
        self.mlp = MLP(config, site + 2)

    def __call__(self, x: Tensor, stream: Stream | None, cache: BlockCache | None = None) -> Tensor:
        x = self.attn(self.ln_1(x), residual=x, stream=stream, cache=cache)
        return self.mlp(self.ln_2(x), residual=x, stream=stream)


class Transformer(Module):
    """Everything below the output head: token and position embeddings, the blocks, the final norm."""

    def __init__(self, config: GPTConfig) -> None:
        self.wte = Embedding(config.vocab_size, config.n_embd)
        self.wpe = Embedding(config.block_size, config.n_embd)
        self.dropout = Dropout(config.dropout if config.embedding_dropout else 0.0, site=0)
        self.h = [Block(config, site=1 + i * Block.SITES) for i in range(config.n_layer)]
        self.ln_f = LayerNorm(config.n_embd)
        # True: activation checkpointing, for sequences that are too large for the memory
        self.recompute_blocks = False

    def __call__(self, ids: np.ndarray, stream: Stream | None) -> Tensor:
        x = self.wte(ids) + self.wpe.weight[: ids.shape[1]]  # (B, T, C) + (T, C)
        x = self.dropout(x, stream)
        for block in self.h:
            if self.recompute_blocks:
                x = ag.checkpoint(functools.partial(block, stream=stream), x)
            else:
                x = block(x, stream)
        return self.ln_f(x)

    def extend(self, ids: np.ndarray, cache: "KeyValueCache") -> Tensor:
        """The last hidden state (B, 1, C) of ids (B, t) that follow the positions in a cache.

        The last block computes only what its last position needs, which saves most of that block's work.
        """
        start = cache.length
        x = self.wte(ids) + self.wpe.weight[start : start + ids.shape[1]]  # (B, t, C) + (t, C)
        for i, block in enumerate(self.h):
            is_last = i == len(self.h) - 1
            x = block(x, stream=None, cache=cache.of_block(i, last_only=is_last))
        cache.length += ids.shape[1]
        return self.ln_f(x)


class GPT(Module):
    """The language model. `model(ids)` gives logits, `model.loss(ids, targets)` the mean cross entropy.

    ids and targets are integers: nested lists or arrays.
    """

    def __init__(self, config: GPTConfig, seed: int | None = 0) -> None:
        self.config = config
        self.transformer = Transformer(config)
        if not config.tied_head:
            self.lm_head = Linear(config.n_embd, config.vocab_size, bias=config.head_bias)
        if seed is not None:  # None: the weights come from elsewhere
            init_weights = self.init_as_torch if config.torch_init else self.init_as_gpt2
            init_weights(Stream(seed, step=-1))  # the moment before step 0

    def init_as_gpt2(self, stream: Stream) -> None:
        """Matrices from N(0, 0.02²), biases 0, norms 1.

        GPT-2 scales what is added to the residual stream by 1/√(2L).
        """
        for site, (name, parameter) in enumerate(self.named_parameters()):
            if parameter.ndim == 2:
                scaled = self.config.scaled_init and name.endswith("c_proj.weight")
                std = 0.02 / (2 * self.config.n_layer) ** 0.5 if scaled else 0.02
                parameter.data[...] = stream.at(site=site).normal(parameter.shape, std)

    def init_as_torch(self, stream: Stream) -> None:
        """What PyTorch's layers begin with: embeddings from N(0, 1), norms 1, and a Linear layer's weight and
        bias uniform between -1/√n and 1/√n for n inputs.
        """
        for site, (_, module) in enumerate(self.named_modules()):
            draw = stream.at(site=site)
            if isinstance(module, Embedding):
                module.weight.data[...] = draw.normal(module.weight.shape, 1.0)
            if isinstance(module, Linear):
                n_in, n_out = module.weight.shape
                rows = draw.symmetric((n_in + 1, n_out), n_in**-0.5)  # the last one for the bias
                module.weight.data[...] = rows[:-1]
                if module.bias is not None:
                    module.bias.data[...] = rows[-1]

    def __call__(self, ids: ArrayLike, stream: Stream | None = None) -> Tensor:
        """Logits (B, T, V) for token ids (B, T), T at most block_size."""
        ids = self._checked(ids, stream)
        return self.head(self.transformer(ids, stream))

    def head_parameters(self) -> tuple[Tensor, Tensor | None]:
        """Weight (C, V) and bias (V) or None of the output head.

        A tied head uses the token embedding a second time.
        """
        if self.config.tied_head:
            return ag.transpose(self.transformer.wte.weight), None
        return self.lm_head.weight, self.lm_head.bias

    def head(self, x: Tensor) -> Tensor:
        """Logits (..., V) for the hidden states x (..., C)."""
        return ag.linear(x, *self.head_parameters())

    def loss(self, ids: ArrayLike, targets: ArrayLike, stream: Stream | None = None) -> Tensor:
        """Mean cross entropy in nats of targets (B, T), the tokens that follow ids (B, T).

        Targets of -1 do not count.
        """
        ids, targets = self._checked(ids, stream), as_ids(targets, "target")
        if targets.shape != ids.shape:
            raise ValueError(
                f"targets of shape {targets.shape} do not fit token ids of shape {ids.shape}; "
                "wanted (B, T) for both"
            )
        hidden = self.transformer(ids, stream)  # (B, T, C)
        return ag.linear_cross_entropy(hidden, *self.head_parameters(), targets, ignore_index=-1)

    def _checked(self, ids, stream):
        """The ids as an array (B, T). TypeError or ValueError for what the model cannot read."""
        ids = as_ids(ids, "token id")
        if ids.ndim != 2 or ids.size == 0:
            raise ValueError(f"token ids of shape {ids.shape}; wanted (B, T), with at least one token")
        if ids.shape[1] > self.config.block_size:
            raise ValueError(f"{ids.shape[1]} tokens do not fit the context of {self.config.block_size}")
        if stream is not None:
            check_stream(stream)
        return ids

    def num_parameters(self) -> int:
        return sum(parameter.size for parameter in self.parameters())

    def parameter_groups(self, weight_decay: float, decay_vectors: bool = False) -> list[dict[str, Any]]:
        """Two groups for the optimizer, since biases and norms (vectors) usually have no weight decay."""
        parameters = self.parameters()
        matrices = [p for p in parameters if p.ndim >= 2]
        vectors = [p for p in parameters if p.ndim < 2]
        return [
            {"params": matrices, "weight_decay": weight_decay},
            {"params": vectors, "weight_decay": weight_decay if decay_vectors else 0.0},
        ]


class KeyValueCache:
    """The keys and values (B, H, T, D) of each block for the first `length` positions, for sampling.

    There is room for block_size positions.
    """

    def __init__(self, model: GPT, rows: int = 1) -> None:
        config = model.config
        weight = model.transformer.wte.weight.data
        shape = (rows, config.n_head, config.block_size, config.n_embd // config.n_head)
        zeros = array_module(weight).zeros
        self.keys = [zeros(shape, weight.dtype) for _ in range(config.n_layer)]
        self.values = [zeros(shape, weight.dtype) for _ in range(config.n_layer)]
        self.length = 0

    def of_block(self, i: int, last_only: bool) -> BlockCache:
        """What block number i gets to work on the next positions."""
        return BlockCache(self.keys[i], self.values[i], start=self.length, last_only=last_only)
