"""A GPT, as nanoGPT arranges it, on our own autograd. Read from Linear down to GPT.

Shapes: B sequences, T positions, C channels, V tokens in the vocabulary. Weights are stored (in, out) and
applied as x @ W, which is also GPT-2's layout. Dropout happens when a call is given a `Stream` to draw from,
and only then.
"""

import numpy as np

import autograd as ag
from autograd import Stream, Tensor
from autograd.backend import move
from autograd.ops.attention import attend_to_cache
from tinygpt.config import GPTConfig


class Module:
    """Holds Tensors and other Modules as attributes; knows how to list them."""

    def named_parameters(self, prefix=""):
        """Yield (name, Tensor), named like `h.0.attn.c_attn.weight`.

        A shared Tensor comes once, under its first name.
        """
        seen = set()
        for name, parameter in self._walk(prefix):
            if id(parameter) not in seen:
                seen.add(id(parameter))
                yield name, parameter

    def named_modules(self, name=""):
        """Yield (name, Module) for this module and all below it; the outermost goes by its class's name."""
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

    def to(self, device):
        """Move the parameters to a device ("cpu", "cuda:0"); returns the module."""
        for parameter in self.parameters():
            parameter.data = move(parameter.data, device)
        return self

    def parameters(self):
        return [parameter for _, parameter in self.named_parameters()]


class Linear(Module):
    def __init__(self, n_in, n_out, bias=True, activation=None):
        self.weight = Tensor(np.zeros((n_in, n_out), np.float32), requires_grad=True)
        if bias:
            self.bias = Tensor(np.zeros(n_out, np.float32), requires_grad=True)
        self.activation = activation

    def __call__(self, x):
        return ag.linear(x, self.weight, getattr(self, "bias", None), activation=self.activation)


class Embedding(Module):
    def __init__(self, n_rows, n_embd):
        self.weight = Tensor(np.zeros((n_rows, n_embd), np.float32), requires_grad=True)

    def __call__(self, ids):
        return ag.embedding(self.weight, ids)


class LayerNorm(Module):
    def __init__(self, n_embd):
        self.weight = Tensor(np.ones(n_embd, np.float32), requires_grad=True)
        self.bias = Tensor(np.zeros(n_embd, np.float32), requires_grad=True)

    def __call__(self, x):
        return ag.layer_norm(x, self.weight, self.bias)


class Dropout(Module):
    """Each dropout layer of a model has a site of its own in the random space, so that no two draw the same
    mask.
    """

    def __init__(self, p, site):
        self.p, self.site = p, site

    def __call__(self, x, stream):
        return ag.dropout(x, self.p, stream.at(site=self.site)) if stream and self.p else x


class CausalSelfAttention(Module):
    def __init__(self, config, site):
        # q, k and v in one product
        self.c_attn = Linear(config.n_embd, 3 * config.n_embd, bias=config.qkv_bias)
        self.c_proj = Linear(config.n_embd, config.n_embd)
        self.n_head, self.p, self.site = config.n_head, config.dropout, site
        self.dropout = Dropout(config.dropout, site + 1)

    def __call__(self, x, stream, cache=None):
        qkv = self.c_attn(x)  # (B, T, C) -> (B, T, 3C)
        if cache is not None:
            return self.c_proj(Tensor(attend_to_cache(qkv.data, self.n_head, *cache)))
        p = self.p if stream else 0.0
        # (B, T, C)
        y = ag.causal_attention(qkv, self.n_head, dropout=p, stream=stream and stream.at(site=self.site))
        return self.dropout(self.c_proj(y), stream)


class MLP(Module):
    def __init__(self, config, site):
        self.c_fc = Linear(config.n_embd, 4 * config.n_embd, activation=config.activation)
        self.c_proj = Linear(4 * config.n_embd, config.n_embd)
        self.dropout = Dropout(config.dropout, site)

    def __call__(self, x, stream):
        return self.dropout(self.c_proj(self.c_fc(x)), stream)  # (B, T, C) -> (B, T, 4C) -> (B, T, C)


class Block(Module):
    """Communication (attention), then computation (MLP), each on a normalised copy and added to the residual
    stream.
    """

    SITES = 3  # dropout layers per block

    def __init__(self, config, site):
        self.ln_1 = LayerNorm(config.n_embd)
        self.attn = CausalSelfAttention(config, site)
        self.ln_2 = LayerNorm(config.n_embd)
        self.mlp = MLP(config, site + 2)

    def __call__(self, x, stream, cache=None):
        y = self.attn(self.ln_1(x), stream, cache)
        if cache is not None:
            x = x[:, -y.shape[1] :]  # the last block may answer for the last position only
        x = x + y
        return x + self.mlp(self.ln_2(x), stream)


class Transformer(Module):
    """Everything below the output head: token and position embeddings, the blocks, the final norm."""

    def __init__(self, config):
        self.wte = Embedding(config.vocab_size, config.n_embd)
        self.wpe = Embedding(config.block_size, config.n_embd)
        self.dropout = Dropout(config.dropout if config.embedding_dropout else 0.0, site=0)
        self.h = [Block(config, site=1 + i * Block.SITES) for i in range(config.n_layer)]
        self.ln_f = LayerNorm(config.n_embd)
        self.recompute_blocks = (
            False  # True: activation checkpointing, for sequences too large for the memory
        )

    def __call__(self, ids, stream):
        x = self.wte(ids) + self.wpe.weight[: ids.shape[1]]  # (B, T, C) + (T, C)
        x = self.dropout(x, stream)
        for block in self.h:
            if self.recompute_blocks:
                x = ag.checkpoint(lambda x, block=block: block(x, stream), x)
            else:
                x = block(x, stream)
        return self.ln_f(x)

    def extend(self, ids, cache):
        """The last hidden state (B, 1, C) of ids (B, t) that follow the positions in a
        generate.KeyValueCache.

        The last block computes only what its last position needs, which saves most of that block's work.
        """
        start = cache.length
        x = self.wte(ids) + self.wpe.weight[start : start + ids.shape[1]]  # (B, t, C) + (t, C)
        for block, keys, values in zip(self.h, cache.keys, cache.values, strict=True):
            x = block(x, None, cache=(keys, values, start, block is self.h[-1]))
        cache.length += ids.shape[1]
        return self.ln_f(x)


class GPT(Module):
    """The language model. `model(ids)` gives logits, `model.loss(ids, targets)` the mean cross entropy."""

    def __init__(self, config: GPTConfig, seed=0):
        self.config = config
        self.transformer = Transformer(config)
        if not config.tied_head:
            self.lm_head = Linear(config.n_embd, config.vocab_size, bias=config.head_bias)
        if seed is not None:  # None: the weights come from elsewhere
            self.init_weights(seed)

    def init_weights(self, seed):
        """Matrices from N(0, 0.02²), biases 0, norms 1.

        GPT-2 scales what is added to the residual stream by 1/√(2L).
        """
        stream = Stream(seed, step=-1)  # the moment before step 0
        for site, (name, parameter) in enumerate(self.named_parameters()):
            if parameter.ndim == 2:
                scaled = self.config.scaled_init and name.endswith("c_proj.weight")
                std = 0.02 / (2 * self.config.n_layer) ** 0.5 if scaled else 0.02
                parameter.data[...] = stream.at(site=site).normal(parameter.shape, std)

    def __call__(self, ids, stream=None):
        """Logits (B, T, V) for token ids (B, T), T at most block_size."""
        self._check_length(ids)
        return self.head(self.transformer(ids, stream))

    def head_parameters(self):
        """Weight (C, V) and bias (V) or None of the output head.

        A tied head uses the token embedding a second time.
        """
        if self.config.tied_head:
            return ag.transpose(self.transformer.wte.weight), None
        return self.lm_head.weight, getattr(self.lm_head, "bias", None)

    def head(self, x):
        """Logits (..., V) for the hidden states x (..., C)."""
        return ag.linear(x, *self.head_parameters())

    def loss(self, ids, targets, stream=None):
        """Mean cross entropy in nats of targets (B, T), the tokens that follow ids (B, T); targets of -1 do
        not count.
        """
        self._check_length(ids)
        hidden = self.transformer(ids, stream)  # (B, T, C)
        return ag.linear_cross_entropy(hidden, *self.head_parameters(), targets, ignore_index=-1)

    def _check_length(self, ids):
        if ids.shape[1] > self.config.block_size:
            raise ValueError(f"{ids.shape[1]} tokens do not fit the context of {self.config.block_size}")

    def num_parameters(self):
        return sum(parameter.size for parameter in self.parameters())

    def parameter_groups(self, weight_decay, decay_vectors=False):
        """Two groups for the optimizer, since biases and norms (vectors) usually go without weight decay."""
        parameters = self.parameters()
        matrices = [p for p in parameters if p.ndim >= 2]
        vectors = [p for p in parameters if p.ndim < 2]
        return [
            {"params": matrices, "weight_decay": weight_decay},
            {"params": vectors, "weight_decay": weight_decay if decay_vectors else 0.0},
        ]
