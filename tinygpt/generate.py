"""Sampling text from a model, token by token, with a cache of keys and values."""

import numpy as np

from autograd import Stream, no_grad
from autograd.backend import array_module, keep_freed_memory, to_numpy
from tinygpt.config import UserError

SAMPLING_SITE = 60_002
WHEN_FULL = ("exact", "halve")


class KeyValueCache:
    """The keys and values (B, H, T, D) of all positions so far, for each block; `length` positions are filled."""

    def __init__(self, model, rows=1):
        config = model.config
        weight = model.transformer.wte.weight.data
        shape = (rows, config.n_head, config.block_size, config.n_embd // config.n_head)
        zeros = array_module(weight).zeros
        self.keys = [zeros(shape, weight.dtype) for _ in range(config.n_layer)]
        self.values = [zeros(shape, weight.dtype) for _ in range(config.n_layer)]
        self.length = 0


@no_grad()
def generate(model, ids, n_tokens, temperature=1.0, top_k=0, seed=0, when_full="exact"):
    """Yield n_tokens token ids that continue the ids of a prompt (at least one; the last block_size are looked at).

    temperature divides the logits; 0 takes the most likely token. top_k > 0 keeps only the k most likely.
    Until the context is full, a token costs one position's work, since the cache holds the rest. Then the window
    slides, and with learned positions every position's keys and values change. when_full="exact" recomputes the
    window for each token, as the reference does; "halve" drops the older half of the context, recomputes the newer
    half once, and goes on with the cache: other text, many times faster.
    """
    if when_full not in WHEN_FULL:
        raise UserError(f"when_full {when_full!r}: choose from " + ", ".join(WHEN_FULL))
    keep_freed_memory()
    ids = list(ids)
    for step, logits in zip(range(n_tokens), next_logits(model, ids, when_full), strict=False):
        ids.append(choose_token(logits, temperature, top_k, Stream(seed, step, SAMPLING_SITE)))
        yield ids[-1]


def next_logits(model, ids, when_full):
    """Yield the logits (V) of the token that follows `ids`, a list that the caller extends between two values."""
    block_size = model.config.block_size
    cache, done = KeyValueCache(model), max(0, len(ids) - block_size)  # tokens before `done` are in the cache, or gone
    while True:
        if cache.length + len(ids) - done > block_size:  # full: start a new window
            cache.length = 0
            done = len(ids) - (block_size if when_full == "exact" else block_size // 2 + 1)
        hidden = model.transformer.extend(np.array([ids[done:]]), cache)  # (1, 1, C)
        done = len(ids)
        yield to_numpy(model.head(hidden[:, -1]).data)[0]  # (1, C) -> (V)


def choose_token(logits, temperature, top_k, stream):
    """One token id drawn from the softmax of logits (V)."""
    if not np.isfinite(logits).all():
        raise UserError("the model's predictions are not numbers: its weights are damaged or its training diverged")
    if temperature == 0:
        return int(logits.argmax())
    logits = logits.astype(np.float64) / temperature
    if 0 < top_k < len(logits):
        logits[logits < np.partition(logits, -top_k)[-top_k]] = -np.inf
    cumulative = np.cumsum(np.exp(logits - logits.max()))
    return int(np.searchsorted(cumulative, stream.uniform(1)[0] * cumulative[-1], side="right"))
