"""Sampling text from a model, token by token, with a cache of keys and values."""

import codecs

import numpy as np

from autograd import Stream, no_grad
from autograd.backend import array_module, keep_freed_memory, to_numpy
from tinygpt.config import SAMPLING_SITE, UserError

WHEN_FULL = ("exact", "halve")
END_OF_TEXT = "<|endoftext|>"  # GPT-2 saw it before every text


class KeyValueCache:
    """The keys and values (B, H, T, D) of all positions so far, for each block; `length` positions are
    filled.
    """

    def __init__(self, model, rows=1):
        config = model.config
        weight = model.transformer.wte.weight.data
        shape = (rows, config.n_head, config.block_size, config.n_embd // config.n_head)
        zeros = array_module(weight).zeros
        self.keys = [zeros(shape, weight.dtype) for _ in range(config.n_layer)]
        self.values = [zeros(shape, weight.dtype) for _ in range(config.n_layer)]
        self.length = 0


def generate(model, ids, n_tokens, **options):
    """Yield n_tokens token ids that continue the ids of a prompt: one row of `generate_rows`, with its
    options.
    """
    for (token,) in generate_rows(model, ids, n_tokens, rows=1, **options):
        yield int(token)


def generate_rows(
    model,
    ids,
    n_tokens,
    rows,
    temperature=1.0,
    top_k=0,
    top_p=1.0,
    seed=0,
    when_full="exact",
    vocab_size=None,
):
    """Yield n_tokens arrays (rows): the next token of each of several different texts that continue one
    prompt.

    ids: the prompt's tokens (at least one; the last block_size are looked at). temperature, top_k and top_p
    shape the `probabilities`; tokens from vocab_size on, which a model may have beyond its tokenizer, are
    left out. A row's choices depend on the seed and its number alone, not on how many rows there are.

    Until the context is full, a token costs one position's work, since the cache holds the rest. Then the
    window slides, and with learned positions every position's keys and values change. when_full="exact"
    recomputes the window for each token, as the reference does; "halve" drops the older half of the context,
    recomputes the newer half once, and goes on with the cache: other text, many times faster.
    """
    if when_full not in WHEN_FULL:
        raise UserError(f"when_full {when_full!r}: choose from " + ", ".join(WHEN_FULL))
    keep_freed_memory()
    columns = [np.full(rows, token) for token in ids]  # one array (rows) per position
    for step, logits in zip(range(n_tokens), next_logits(model, columns, when_full), strict=False):
        stream = Stream(seed, step, SAMPLING_SITE)
        choices = [
            choose_token(row[:vocab_size], temperature, top_k, stream.at(row=i), top_p)
            for i, row in enumerate(logits)
        ]
        columns.append(np.array(choices))
        yield columns[-1]


def next_logits(model, columns, when_full):
    """Yield the logits (B, V) of the token after `columns`, a list of (B) ids that the caller extends between
    two values.
    """
    block_size, n = model.config.block_size, len(columns)
    # before `done`: in the cache, or gone
    cache, done = (
        KeyValueCache(model, len(columns[0])),
        max(0, n - block_size),
    )
    while True:
        if cache.length + len(columns) - done > block_size:  # full: start a new window
            cache.length = 0
            done = len(columns) - (block_size if when_full == "exact" else block_size // 2 + 1)
        with no_grad():
            hidden = model.transformer.extend(np.stack(columns[done:], 1), cache)  # (B, t) -> (B, 1, C)
            logits = model.head(hidden[:, -1])  # (B, C) -> (B, V)
        done = len(columns)
        yield to_numpy(logits.data)


def probabilities(logits, temperature=1.0, top_k=0, top_p=1.0):
    """What a token is drawn from: float64 (V) from logits (V), with a temperature above 0.

    In this order: divide the logits by the temperature; if top_k > 0 keep the k most likely (and their
    equals); keep the smallest set of most likely tokens that together have top_p of what is left.
    """
    logits = (logits.astype(np.float64) - logits.max()) / temperature
    if 0 < top_k < len(logits):
        logits[logits < np.partition(logits, -top_k)[-top_k]] = -np.inf
    p = np.exp(logits)
    p /= p.sum()
    if top_p < 1:
        order = np.argsort(-p, kind="stable")
        likelier = np.cumsum(p[order]) - p[order]  # than this one, together
        p[order[likelier >= top_p]] = 0
        p /= p.sum()
    return p


def choose_token(logits, temperature, top_k, stream, top_p=1.0):
    """One token id drawn from the `probabilities` of logits (V). Temperature 0 takes the most likely one."""
    if not np.isfinite(logits).all():
        raise UserError(
            "the model's predictions are not numbers: its weights are damaged or its training diverged"
        )
    if temperature == 0:
        return int(logits.argmax())
    cumulative = np.cumsum(probabilities(logits, temperature, top_k, top_p))
    return int(np.searchsorted(cumulative, stream.uniform(1)[0] * cumulative[-1], side="right"))


def prompt_ids(tokenizer, prompt):
    """The ids of a prompt. An empty one starts as a text does that the tokenizer was made for.

    That is GPT-2's <|endoftext|> if there is one, else a line break, else (in a vocabulary without) the first
    token.
    """
    if prompt:
        return tokenizer.encode(prompt)
    starts = [i for i, piece in enumerate(tokenizer.pieces) if piece in (END_OF_TEXT.encode(), b"\n")]
    return [max(starts, key=lambda i: len(tokenizer.pieces[i]), default=0)]


class TextStream:
    """Tokens that become text as they come: whole characters only, and nothing from a stop text on.

    What may turn out to be the start of a stop text is held back until it is clear.
    """

    def __init__(self, tokenizer, stops=()):
        self.pieces, self.stops, self.stopped = tokenizer.pieces, stops, False
        self._decoder, self._held = codecs.getincrementaldecoder("utf-8")("replace"), ""

    def feed(self, token):
        """The text that a token makes certain, perhaps none."""
        return self._release(self._decoder.decode(self.pieces[token]))

    def finish(self):
        """The text that was held back. An unfinished character becomes U+FFFD."""
        return self._release(self._decoder.decode(b"", final=True), final=True)

    def _release(self, text, final=False):
        if self.stopped:
            return ""
        text = self._held + text
        found = [at for at in map(text.find, self.stops) if at >= 0]
        self.stopped = bool(found)
        release = min(found) if found else len(text) if final else len(text) - self._undecided(text)
        self._held = text[release:]
        return text[:release]

    def _undecided(self, text):
        """The length of the longest end of the text that some stop text begins with."""
        lengths = (n for stop in self.stops for n in range(len(stop) - 1, 0, -1) if text.endswith(stop[:n]))
        return max(lengths, default=0)
