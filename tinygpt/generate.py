"""Sampling text from a model, token by token."""

import numpy as np

from autograd import Stream, no_grad
from autograd.backend import to_numpy

SAMPLING_SITE = 60_002


@no_grad()
def generate(model, ids, n_tokens, temperature=1.0, top_k=0, seed=0):
    """Yield n_tokens token ids that continue the ids of a prompt (at least one; the last block_size are looked at).

    temperature divides the logits; 0 takes the most likely token. top_k > 0 keeps only the k most likely.
    """
    ids = list(ids)
    for step in range(n_tokens):
        window = np.array([ids[-model.config.block_size :]])  # (1, T)
        hidden = model.transformer(window, None)
        logits = to_numpy(model.head(hidden[:, -1]).data)[0]  # (1, C) -> (V)
        ids.append(choose_token(logits, temperature, top_k, Stream(seed, step, SAMPLING_SITE)))
        yield ids[-1]


def choose_token(logits, temperature, top_k, stream):
    """One token id drawn from the softmax of logits (V)."""
    if temperature == 0:
        return int(logits.argmax())
    logits = logits.astype(np.float64) / temperature
    if 0 < top_k < len(logits):
        logits[logits < np.partition(logits, -top_k)[-top_k]] = -np.inf
    cumulative = np.cumsum(np.exp(logits - logits.max()))
    return int(np.searchsorted(cumulative, stream.uniform(1)[0] * cumulative[-1], side="right"))
